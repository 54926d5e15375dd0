"""Transport stream (ISO 13818-1 2.4), writer: one program with at most one video and one audio track.

A frame is one PES, cut into packets of 188 bytes. The tables stand before each key frame, before the first frame of
a track that the map does not name yet, and at least every half second. G.711 has the stream types that GB/T 28181
gives it in program streams (C.1); MPEG assigns it none.
"""

from __future__ import annotations

from collections.abc import Iterable

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import aac, nal
from gb28181gw.media.wire.exceptions import ParameterSetError
from gb28181gw.media.wire.ps_mux import AUDIO_ID, VIDEO_ID, crc32_mpeg, pes_header, pes_times
from gb28181gw.media.wire.stream_types import STREAM_TYPES
from gb28181gw.media.wire.units import PTS_MODULUS

PACKET_SIZE = 188
_ROOM = 184
_CODECS = frozenset({Codec.H264, Codec.H265, Codec.AAC, Codec.PCMA, Codec.PCMU})

_PAT_PID = 0x0000
_MAP_PID = 0x1000
_PIDS = {TrackKind.VIDEO: 0x0100, TrackKind.AUDIO: 0x0101}
_START_90K = 90_000
"""Time of the stream's own zero: what came a little before it still has a place."""
_PCR_LEAD_90K = 9_000
"""The clock runs 100 ms behind the decoding times: so long a decoder may take to receive a picture."""
_TABLES_EVERY_90K = 45_000
_DELIMITERS = {Codec.H264: nal.START_CODE + b"\x09\xf0", Codec.H265: nal.START_CODE + b"\x46\x01\x50"}
_DELIMITER_TYPES = {Codec.H264: nal.H264_AUD, Codec.H265: nal.H265_AUD}
_DISCONTINUITY = bytes((183, 0x80)) + b"\xff" * 182


def carries(codec: Codec) -> bool:
    """The container has this codec."""
    return codec in _CODECS


class TsMuxer:
    """One transport stream. Its times count from `base_90k`, else from the first frame, and begin at one second."""

    def __init__(self, tracks: Iterable[Track] = (), *, base_90k: int | None = None) -> None:
        self._base = base_90k
        self._continuity: dict[int, int] = {}
        self._before: dict[int, int] = {}
        """The counters as they were before the last frame."""
        self._types: dict[TrackKind, int] = {}
        self._version = 0
        self._tables = b""
        self._tables_at: int | None = None
        self._last_dts: dict[TrackKind, int] = {}
        for track in tracks:
            if carries(track.codec):
                self._types.setdefault(track.kind, STREAM_TYPES[track.codec])

    stale = False
    """Nothing makes consumers begin anew: the map announces what changes."""

    def fits(self, _tracks: Iterable[Track], /) -> bool:
        """A new consumer of these tracks may share this muxer."""
        return True

    def header(self, _tracks: Iterable[Track] = (), _at_90k: int | None = None, /) -> bytes:
        """Nothing: the tables stand before each key frame."""
        return b""

    def configuration(self, _tracks: Iterable[Track] = (), _at_90k: int = 0, /) -> bytes:
        """For a consumer that skipped and gets the last frame next: the continuity counters go on with it (2.4.3.5)."""
        return b"".join(
            b"\x47" + pid.to_bytes(2, "big") + bytes((0x20 | (count - 1) & 0x0F,)) + _DISCONTINUITY
            for pid, count in sorted(self._before.items())
        )

    def mux(self, frame: Frame) -> bytes:
        """The packets of a frame; empty if the container has no such codec or an AAC packet no ADTS form."""
        track = frame.track
        if not carries(track.codec):
            return b""
        if self._base is None:
            self._base = frame.dts_90k
        dts = frame.dts_90k - self._base + _START_90K
        video = track.kind is TrackKind.VIDEO
        last = self._last_dts.get(track.kind, -1)
        if dts <= last:
            if not video:
                return b""
            dts = last + 1
        payload = _access_unit(frame) if video else _audio_packet(frame)
        if not payload:
            return b""
        self._last_dts[track.kind] = dts
        self._before = dict(self._continuity)
        parts: list[bytes] = []
        stream_type = STREAM_TYPES[track.codec]
        if self._types.get(track.kind) != stream_type or not self._tables:
            self._types[track.kind] = stream_type
            self._make_tables()
            self._tables_at = None
        due = self._tables_at is None or dts - self._tables_at >= _TABLES_EVERY_90K
        if due or (video and frame.key):
            self._tables_at = dts
            self._append(parts, _PAT_PID, b"\x00" + _association(), b"", stuff=True)
            self._append(parts, _MAP_PID, b"\x00" + self._tables, b"", stuff=True)
        times = pes_times(max(frame.pts_90k - self._base + _START_90K, dts), dts)
        head = pes_header(VIDEO_ID if video else AUDIO_ID, times, None if video else len(payload))
        adaptation = b""
        if video or TrackKind.VIDEO not in self._types:
            adaptation = _clock(dts - _PCR_LEAD_90K, random_access=frame.key)
        self._append(parts, _PIDS[track.kind], head + payload, adaptation)
        return b"".join(parts)

    def _append(
        self, parts: list[bytes], pid: int, data: bytes, adaptation: bytes, *, stuff: bool = False
    ) -> None:
        """Packets of one unit. `stuff`: a table's packet is filled behind it, else in the adaptation field."""
        count = self._continuity.get(pid, 0)
        if stuff:
            data = data.ljust(_ROOM, b"\xff")
        size = len(data)
        place = 0
        start = 0x40
        while place < size:
            left = size - place
            room = _ROOM - len(adaptation)
            if left < room:
                adaptation = _stuffed(adaptation, room - left)
                room = left
            control = 0x30 if adaptation else 0x10
            parts += (
                bytes((0x47, start | pid >> 8, pid & 0xFF, control | count)),
                adaptation,
                data[place : place + room],
            )
            place += room
            count = count + 1 & 0x0F
            start = 0
            adaptation = b""
        self._continuity[pid] = count

    def _make_tables(self) -> None:
        """The program map of the tracks known (2.4.4.8); a new version of it."""
        if self._tables:
            self._version = self._version + 1 & 0x1F
        clock = TrackKind.VIDEO if TrackKind.VIDEO in self._types else TrackKind.AUDIO
        body = (0xE000 | _PIDS[clock]).to_bytes(2, "big") + b"\xf0\x00"
        for kind in (TrackKind.VIDEO, TrackKind.AUDIO):
            if kind in self._types:
                body += bytes((self._types[kind],)) + (0xE000 | _PIDS[kind]).to_bytes(2, "big") + b"\xf0\x00"
        self._tables = _section(0x02, 1, self._version, body)


def _association() -> bytes:
    """2.4.4.3: program 1."""
    return _section(0x00, 1, 0, b"\x00\x01" + (0xE000 | _MAP_PID).to_bytes(2, "big"))


def _section(table_id: int, extension: int, version: int, body: bytes) -> bytes:
    length = 5 + len(body) + 4
    head = bytes((table_id, 0xB0 | length >> 8, length & 0xFF)) + extension.to_bytes(2, "big")
    section = head + bytes((0xC1 | version << 1, 0, 0)) + body
    return section + crc32_mpeg(section).to_bytes(4, "big")


def _clock(time_90k: int, *, random_access: bool) -> bytes:
    """Adaptation field with a PCR (2.4.3.4)."""
    base = time_90k % PTS_MODULUS
    return bytes((7, 0x50 if random_access else 0x10)) + (base << 15 | 0x3F << 9).to_bytes(6, "big")


def _stuffed(adaptation: bytes, count: int) -> bytes:
    """An adaptation field that is `count` bytes longer."""
    if adaptation:
        return bytes((adaptation[0] + count,)) + adaptation[1:] + b"\xff" * count
    if count == 1:
        return b"\x00"
    return bytes((count - 1, 0)) + b"\xff" * (count - 2)


def _access_unit(frame: Frame) -> bytes:
    """With a delimiter in front (2.14.1), and with parameter sets in key frames that come without."""
    track, payload = frame.track, frame.payload
    codec = track.codec
    first: int | None = None
    has_sets = not frame.key
    for unit in nal.split_annexb(payload):
        kind = nal.nal_type(codec, unit)
        first = kind if first is None else first
        has_sets = has_sets or nal.is_parameter_set(codec, kind)
        if has_sets or nal.is_vcl(codec, kind):
            break
    if first is None:
        return b""
    sets = b"" if has_sets else nal.join_annexb(track.parameter_sets)
    if first != _DELIMITER_TYPES[codec]:
        return _DELIMITERS[codec] + sets + payload
    if not sets:
        return payload
    units = list(nal.split_annexb(payload))  # the sets stand behind the delimiter
    return nal.join_annexb(units[:1]) + sets + nal.join_annexb(units[1:])


def _audio_packet(frame: Frame) -> bytes:
    """AAC with its ADTS header; what has none is left out."""
    track = frame.track
    if track.codec is not Codec.AAC:
        return frame.payload
    config = track.parameter_sets[0] if track.parameter_sets else aac.DEFAULT_CONFIG
    try:
        return aac.build_adts(config, len(frame.payload)) + frame.payload
    except (ParameterSetError, ValueError):
        return b""
