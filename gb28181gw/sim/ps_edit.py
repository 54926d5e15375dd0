"""Spoils correct program streams in the ways of the MED rows.

Works on the units of one pack as the muxer wrote it (pack header, system header, map, PES), so it knows every
length beforehand and needs no parser of its own beyond that.
"""

from __future__ import annotations

from collections.abc import Iterator

from gb28181gw.media.wire.ps_mux import crc32_mpeg
from gb28181gw.sim.quirks import Quirk

PACK, SYSTEM, MAP, PRIVATE_1 = 0xBA, 0xBB, 0xBC, 0xBD

_OTHER_VIDEO = {0x1B: 0x24, 0x24: 0x1B}
_PRIVATE = (
    b"\x00\x00\x01\xbd\x00\x10" + b"\x00\x00\x00\x01\x00\x00\x01\xba" + b"\x00\x00\x01\xe0\x00\x00\x01\xbc"
)
"""16 bytes of vendor data that look like a NAL unit, a pack, a PES and a map (MED-08)."""

EDITS = frozenset(
    {
        Quirk.MED_01,
        Quirk.MED_02,
        Quirk.MED_02_FIRST,
        Quirk.MED_03,
        Quirk.MED_04,
        Quirk.MED_05,
        Quirk.MED_08,
        Quirk.MED_10,
        Quirk.MED_13,
    }
)
"""Rows that this module acts on."""


def units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(stream id, bytes) of every unit in a well-formed piece of program stream. Raises ValueError."""
    position = 0
    while position < len(data):
        if data[position : position + 3] != b"\x00\x00\x01":
            raise ValueError(f"no start code at byte {position}")
        kind = data[position + 3]
        if kind == PACK:
            size = 14 + (data[position + 13] & 7)
        else:
            size = 6 + int.from_bytes(data[position + 4 : position + 6], "big")
        yield kind, data[position : position + size]
        position += size


class PackEditor:
    """Applies the chosen rows to one stream's packs, in order. Counts maps, so one stream needs one editor."""

    def __init__(self, quirks: frozenset[Quirk]) -> None:
        self._quirks = quirks & EDITS
        self._maps = 0

    @property
    def idle(self) -> bool:
        """True when packs pass unchanged."""
        return not self._quirks

    def edit(self, data: bytes) -> bytes:
        """One pack (or several), spoilt."""
        if not self._quirks:
            return data
        return b"".join(self._edit(kind, unit) for kind, unit in units(data))

    def _edit(self, kind: int, unit: bytes) -> bytes:
        quirks = self._quirks
        if kind == PACK:
            return unit[:4] if Quirk.MED_10 in quirks else unit
        if kind == SYSTEM:
            return b"" if Quirk.MED_02 in quirks else unit
        if kind == MAP:
            return self._map(unit)
        if 0xE0 <= kind <= 0xEF and Quirk.MED_05 in quirks:
            return unit[:4] + b"\x00\x00" + unit[6:]
        return unit

    def _map(self, unit: bytes) -> bytes:
        quirks = self._quirks
        self._maps += 1
        if Quirk.MED_02 in quirks or (Quirk.MED_02_FIRST in quirks and self._maps > 1):
            return b""
        entries = map_entries(unit)
        if Quirk.MED_01 in quirks:
            entries = [(_OTHER_VIDEO.get(kind, kind), stream) for kind, stream in entries]
        if Quirk.MED_13 in quirks:
            entries = [(0x90 if kind == 0x0F else kind, stream) for kind, stream in entries]
        if Quirk.MED_03 in quirks and self._maps <= 2:
            entries = [(kind, stream) for kind, stream in entries if stream < 0xE0]
        rewritten = write_map(entries, broken=Quirk.MED_04 in quirks)
        return rewritten + _PRIVATE if Quirk.MED_08 in quirks else rewritten


def map_entries(unit: bytes) -> list[tuple[int, int]]:
    """(stream_type, stream id) of a program stream map (ISO/IEC 13818-1 2.5.4)."""
    position = 10 + int.from_bytes(unit[8:10], "big")
    end = position + 2 + int.from_bytes(unit[position : position + 2], "big")
    position += 2
    entries: list[tuple[int, int]] = []
    while position + 4 <= end:
        entries.append((unit[position], unit[position + 1]))
        position += 4 + int.from_bytes(unit[position + 2 : position + 4], "big")
    return entries


def write_map(entries: list[tuple[int, int]], *, broken: bool = False) -> bytes:
    """A program stream map without descriptors; `broken`: MED-04 (map length too large, a descriptor length that
    overruns, CRC 0)."""
    listed = b"".join(bytes((kind, stream, 0, 0)) for kind, stream in entries)
    map_length = len(listed)
    if broken and entries:
        listed = listed[:-1] + b"\x30"
        map_length += 9
    body = b"\xe1\xff\x00\x00" + map_length.to_bytes(2, "big") + listed
    head = b"\x00\x00\x01\xbc" + (len(body) + 4).to_bytes(2, "big")
    checksum = b"\0\0\0\0" if broken else crc32_mpeg(head + body).to_bytes(4, "big")
    return head + body + checksum
