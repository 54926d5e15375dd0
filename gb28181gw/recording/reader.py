"""Reads the gateway's own segments: their times, their frames, and their fragments for joining. No I/O but reading.

Written for what `segment.SegmentMaker` writes, also where a kill or a full disk cut it: whatever is not whole at the
end of a file does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from gb28181gw.media.tracks import Frame, Track, TrackKind
from gb28181gw.media.wire.fmp4 import TIMESCALE, TRACK_IDS
from gb28181gw.recording.segment import ABOUT_UUID, read_about

_MAX_HEAD: Final = 1 << 20
_MAX_BOX: Final = 64 << 20
_U32, _U64 = Struct("!I"), Struct("!Q")
_SAMPLE = Struct("!IIIi")
_SYNC: Final = 0x02000000
_KINDS = {number: kind for kind, number in TRACK_IDS.items()}


class SegmentError(Exception):
    """The file is none of ours, or damaged before its end."""


@dataclass(frozen=True, slots=True)
class SegmentHead:
    init: bytes
    """`ftyp` and `moov`."""
    start: float
    form: str
    tracks: tuple[Track, ...]
    length: int
    """Bytes before the first fragment."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    kind: TrackKind
    dts_90k: int
    """From the beginning of the file."""
    offset_90k: int
    duration_90k: int
    key: bool
    at: int
    """Within the fragment."""
    size: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """One `moof` with its `mdat`."""

    data: bytes
    end: int
    """Offset in the file behind it."""
    samples: tuple[SampleRow, ...]
    times: tuple[int, ...]
    """Where in `data` the 64-bit times of its tracks stand."""

    @property
    def begin_90k(self) -> int:
        return min(row.dts_90k for row in self.samples)

    @property
    def end_90k(self) -> int:
        """Of its pictures: sound may reach a little further."""
        pictures = [row for row in self.samples if row.kind is TrackKind.VIDEO]
        return max(row.dts_90k + row.duration_90k for row in pictures or self.samples)

    @property
    def is_key(self) -> bool:
        """It begins with a key frame."""
        first = next((row for row in self.samples if row.kind is TrackKind.VIDEO), None)
        return first is not None and first.key

    def moved(self, by_90k: int) -> bytes:
        """The same with other times."""
        data = bytearray(self.data)
        for at in self.times:
            _U64.pack_into(data, at, max(_U64.unpack_from(data, at)[0] + by_90k, 0))
        return bytes(data)


def read_head(path: Path) -> SegmentHead:
    """Raises SegmentError, OSError."""
    with path.open("rb") as file:
        data = file.read(_MAX_HEAD)
    at = 0
    while at + 8 <= len(data):
        size, kind = _U32.unpack_from(data, at)[0], data[at + 4 : at + 8]
        if size < 8 or at + size > len(data):
            break
        if kind == b"uuid" and data[at + 8 : at + 24] == ABOUT_UUID:
            try:
                start, form, tracks = read_about(data[at + 24 : at + size])
            except (ValueError, KeyError, TypeError) as error:
                raise SegmentError(f"{path.name} says of itself what cannot be read.") from error
            return SegmentHead(data[:at], start, form, tracks, at + size)
        at += size
    raise SegmentError(f"{path.name} has no head.")


def fragments(path: Path, at: int) -> Iterator[Fragment]:
    """From the offset to the last whole one. Raises SegmentError, OSError."""
    with path.open("rb") as file:
        file.seek(at)
        while True:
            moof = _box(file.read(8), b"moof", file.read)
            if not moof:
                return
            mdat = _box(file.read(8), b"mdat", file.read)
            if not mdat:
                return
            at += len(moof) + len(mdat)
            yield _parse(moof, mdat, at)


def frames_of(fragment: Fragment, tracks: tuple[Track, ...]) -> list[Frame]:
    """Its frames in the order of their times, counted from the beginning of the file."""
    known = {track.kind: track for track in tracks}
    found = []
    for row in fragment.samples:
        track = known.get(row.kind)
        if track is None:
            continue
        payload = fragment.data[row.at : row.at + row.size]
        if row.kind is TrackKind.VIDEO:
            payload = _annexb(payload)
        found.append(
            Frame(
                track=track,
                pts_90k=row.dts_90k + row.offset_90k,
                dts_90k=row.dts_90k,
                key=row.key,
                payload=payload,
            )
        )
    return sorted(found, key=lambda frame: frame.dts_90k)


def measure(path: Path) -> tuple[SegmentHead, float, int]:
    """(head, end as wall time, bytes that are whole). Reads no pictures. Raises SegmentError, OSError."""
    head = read_head(path)
    end_90k, length = 0, head.length
    total = path.stat().st_size
    with path.open("rb") as file:
        while True:
            file.seek(length)
            moof = _box(file.read(8), b"moof", file.read)
            mdat = file.read(8)
            if not moof or len(mdat) < 8 or mdat[4:] != b"mdat":
                break
            end = length + len(moof) + _U32.unpack_from(mdat)[0]
            if end > total:
                break
            end_90k, length = max(end_90k, _parse(moof, b"", end).end_90k), end
    return head, head.start + end_90k / TIMESCALE, length


def _box(head: bytes, kind: bytes, read: Callable[[int], bytes]) -> bytes:
    """A whole box of this kind; empty: there is none."""
    if len(head) < 8 or head[4:] != kind:
        return b""
    size = _U32.unpack_from(head)[0]
    if not 8 <= size <= _MAX_BOX:
        return b""
    body = read(size - 8)
    return head + body if len(body) == size - 8 else b""


def _parse(moof: bytes, mdat: bytes, end: int) -> Fragment:
    rows: list[SampleRow] = []
    times: list[int] = []
    at = 8
    while at + 8 <= len(moof):
        size, kind = _U32.unpack_from(moof, at)[0], moof[at + 4 : at + 8]
        if size < 8:
            raise SegmentError("A fragment is damaged.")
        if kind == b"traf":
            rows += _parse_traf(moof, at + 8, at + size, times)
        at += size
    if not rows:
        raise SegmentError("A fragment is empty.")
    return Fragment(moof + mdat, end, tuple(rows), tuple(times))


def _parse_traf(moof: bytes, at: int, end: int, times: list[int]) -> list[SampleRow]:
    """`tfhd`, `tfdt` of version 1 and `trun` with all fields, as `media.wire.fmp4` writes them."""
    kind = TrackKind.VIDEO
    base = 0
    rows = []
    while at + 8 <= end:
        size, name = _U32.unpack_from(moof, at)[0], moof[at + 4 : at + 8]
        if size < 8:
            raise SegmentError("A fragment is damaged.")
        if name == b"tfhd":
            kind = _KINDS.get(_U32.unpack_from(moof, at + 12)[0], TrackKind.VIDEO)
        elif name == b"tfdt":
            times.append(at + 12)
            base = _U64.unpack_from(moof, at + 12)[0]
        elif name == b"trun":
            count, place = Struct("!II").unpack_from(moof, at + 12)
            if at + 20 + count * _SAMPLE.size > end:
                raise SegmentError("A fragment is damaged.")
            for number in range(count):
                duration, length, flags, offset = _SAMPLE.unpack_from(moof, at + 20 + number * _SAMPLE.size)
                rows.append(SampleRow(kind, base, offset, duration, flags == _SYNC, place, length))
                base += duration
                place += length
        at += size
    return rows


def _annexb(data: bytes) -> bytes:
    parts = []
    at = 0
    while at + 4 <= len(data):
        size = _U32.unpack_from(data, at)[0]
        parts.append(b"\x00\x00\x00\x01" + data[at + 4 : at + 4 + size])
        at += 4 + size
    return b"".join(parts)
