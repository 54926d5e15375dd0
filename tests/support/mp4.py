"""Reading fragmented MP4 and MPEG-TS, for tests; written apart from the writers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(kind, body) of the boxes of `data`; raises AssertionError when they do not fill it."""
    place = 0
    while place < len(data):
        size, kind = struct.unpack_from("!I4s", data, place)
        assert 8 <= size <= len(data) - place, f"box {kind!r} of {size} bytes does not fit"
        yield kind.decode("latin-1"), data[place + 8 : place + size]
        place += size


def whole_boxes(data: bytes) -> list[tuple[str, bytes]]:
    """The boxes of a stream that may be cut off at its end."""
    found = []
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from("!I4s", data, place)
        if place + size > len(data):
            break
        found.append((kind.decode("latin-1"), data[place + 8 : place + size]))
        place += size
    return found


def find(data: bytes, path: str) -> list[bytes]:
    """Bodies of the boxes at a path like ``moov/trak/tkhd``."""
    kind, _, rest = path.partition("/")
    found = [body for name, body in boxes(data) if name == kind]
    return [deeper for body in found for deeper in find(body, rest)] if rest else found


@dataclass(frozen=True)
class Sample:
    track_id: int
    dts: int
    pts: int
    duration: int
    is_sync: bool
    data: bytes


def samples(moof: bytes, mdat: bytes) -> list[Sample]:
    """Samples of one fragment, whose `trun` has every field (flags 0xF01)."""
    found = []
    base = 8 + len(moof)
    for traf in find(struct.pack("!I4s", base, b"moof") + moof, "moof/traf"):
        (track_id,) = struct.unpack_from("!I", find(traf, "tfhd")[0], 4)
        version, time = struct.unpack_from("!IQ", find(traf, "tfdt")[0])
        assert version == 1 << 24
        trun = find(traf, "trun")[0]
        flags, count, offset = struct.unpack_from("!IIi", trun)
        assert flags == 0x01000F01
        place = offset - base - 8
        for index in range(count):
            duration, size, sample_flags, shown = struct.unpack_from("!IIIi", trun, 12 + 16 * index)
            found.append(
                Sample(
                    track_id=track_id,
                    dts=time,
                    pts=time + shown,
                    duration=duration,
                    is_sync=not sample_flags & 0x00010000,
                    data=mdat[place : place + size],
                )
            )
            assert len(found[-1].data) == size
            place += size
            time += duration
    return found


def stream_samples(data: bytes) -> list[Sample]:
    """Samples of all fragments of a stream, which may be cut off at its end."""
    found: list[Sample] = []
    moof = b""
    for kind, body in whole_boxes(data):
        if kind == "moof":
            moof = body
        elif kind == "mdat":
            found += samples(moof, body)
    return found


@dataclass(frozen=True)
class TsPacket:
    pid: int
    starts: bool
    continuity: int
    discontinuity: bool
    random_access: bool
    pcr: int | None
    payload: bytes


def ts_packets(data: bytes) -> list[TsPacket]:
    """Whole packets of a transport stream."""
    found = []
    for place in range(0, len(data) - 187, 188):
        packet = data[place : place + 188]
        assert packet[0] == 0x47, f"no sync byte at {place}"
        control = packet[3] >> 4 & 3
        start, flags, pcr = 4, 0, None
        if control & 2:
            size = packet[4]
            flags = packet[5] if size else 0
            if flags & 0x10:
                pcr = int.from_bytes(packet[6:11], "big") >> 7
            start = 5 + size
            assert start <= 188
        found.append(
            TsPacket(
                pid=(packet[1] & 0x1F) << 8 | packet[2],
                starts=bool(packet[1] & 0x40),
                continuity=packet[3] & 0x0F,
                discontinuity=bool(flags & 0x80),
                random_access=bool(flags & 0x40),
                pcr=pcr,
                payload=packet[start:] if control & 1 else b"",
            )
        )
    return found


def check_continuity(packets: list[TsPacket]) -> None:
    """2.4.3.3: the counter of a PID goes up with each payload, unless told otherwise."""
    last: dict[int, int] = {}
    for packet in packets:
        if packet.pid in last and not packet.discontinuity:
            step = 1 if packet.payload else 0
            assert packet.continuity == (last[packet.pid] + step) & 0x0F, f"PID {packet.pid:#x} lost packets"
        last[packet.pid] = packet.continuity


@dataclass(frozen=True)
class Pes:
    pid: int
    stream_id: int
    pts: int
    dts: int
    random_access: bool
    pcr: int | None
    payload: bytes


def _time(data: bytes) -> int:
    return (data[0] >> 1 & 7) << 30 | (data[1] << 8 | data[2]) >> 1 << 15 | (data[3] << 8 | data[4]) >> 1


def pes_units(packets: list[TsPacket]) -> list[Pes]:
    """PES in the order in which they begin, without those of the tables."""
    units: list[tuple[TsPacket, bytearray]] = []
    current: dict[int, bytearray] = {}
    for packet in packets:
        if packet.pid in (0, 0x1000) or not packet.payload:
            continue
        if packet.starts:
            current[packet.pid] = bytearray()
            units.append((packet, current[packet.pid]))
        if packet.pid in current:
            current[packet.pid] += packet.payload
    found = []
    for first, unit in units:
        assert unit[:3] == b"\x00\x00\x01"
        size, head = int.from_bytes(unit[4:6], "big"), 9 + unit[8]
        assert size == 0 or size == len(unit) - 6, "the length of a PES is wrong"
        pts = _time(unit[9:14])
        dts = _time(unit[14:19]) if unit[7] & 0x40 else pts
        found.append(
            Pes(
                pid=first.pid,
                stream_id=unit[3],
                pts=pts,
                dts=dts,
                random_access=first.random_access,
                pcr=first.pcr,
                payload=bytes(unit[head:]),
            )
        )
    return found


def stream_types(packets: list[TsPacket]) -> list[tuple[int, dict[int, int]]]:
    """(version, PID -> stream_type) of each program map; its checksum is checked."""
    maps = []
    for packet in packets:
        if packet.pid != 0x1000 or not packet.payload:
            continue
        length = int.from_bytes(packet.payload[2:4], "big") & 0x0FFF
        section = packet.payload[1 : 4 + length]
        assert _crc(section) == 0
        found = {}
        place = 12
        while place < len(section) - 4:
            found[int.from_bytes(section[place + 1 : place + 3], "big") & 0x1FFF] = section[place]
            place += 5 + (int.from_bytes(section[place + 3 : place + 5], "big") & 0x0FFF)
        maps.append((section[5] >> 1 & 0x1F, found))
    return maps


def _crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(7, -1, -1):
            crc = (crc << 1 ^ (0x04C11DB7 if (crc >> 31 ^ byte >> bit) & 1 else 0)) & 0xFFFFFFFF
    return crc
