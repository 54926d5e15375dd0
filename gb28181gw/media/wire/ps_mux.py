"""Program stream muxer (ISO 13818-1 2.5; GB/T 28181-2022 C.1): one pack per frame.

A key frame's pack is: pack header, system header, program stream map, PES; the others have no system header and no
map. A frame over 65,535 bytes goes into several PES, the first with the times. Used by the simulator, by RTP
output and by the tests; its options make the deviations that devices show.
"""

from __future__ import annotations

from enum import Enum

from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.media.wire import aac
from gb28181gw.media.wire.stream_types import STREAM_TYPES
from gb28181gw.media.wire.units import PTS_MODULUS

VIDEO_ID = 0xE0
AUDIO_ID = 0xC0
MAX_PES_PAYLOAD = 65_000
"""Leaves room for the PES header within the 16-bit length."""


class MapPolicy(Enum):
    """Which packs have system header and map (MED-02, MED-12)."""

    KEY = "key"
    ALWAYS = "always"
    NEVER = "never"


class PsMuxer:
    """Frames of at most one video and one audio track in, packs out.

    `video` and `audio` name the tracks of the map; None leaves one out. `stream_types` replaces what the map says of
    a stream id (MED-01); `unbounded_pes` writes video PES of length 0 (MED-05).
    """

    def __init__(
        self,
        *,
        video: Codec | None = Codec.H264,
        audio: Codec | None = None,
        map_policy: MapPolicy = MapPolicy.KEY,
        stream_types: dict[int, int] | None = None,
        unbounded_pes: bool = False,
        max_pes_payload: int = MAX_PES_PAYLOAD,
        mux_rate_bytes: int = 1_000_000,
    ) -> None:
        if not 1 <= max_pes_payload <= MAX_PES_PAYLOAD:
            raise ValueError(f"max_pes_payload must be 1 to {MAX_PES_PAYLOAD}")
        self._map_policy = map_policy
        self._video = video is not None
        self._unbounded_pes = unbounded_pes
        self._max_pes_payload = max_pes_payload
        self._mux_rate = min(max(1, mux_rate_bytes // 50), 0x3FFFFF)
        types: dict[int, int] = {}
        if video is not None:
            types[VIDEO_ID] = STREAM_TYPES[video]
        if audio is not None:
            types[AUDIO_ID] = STREAM_TYPES[audio]
        self._system_header = _system_header(self._mux_rate, types)
        self._map = _stream_map(types | (stream_types or {}))

    def mux(self, frame: Frame) -> bytes:
        """One frame as one pack. AAC gets its ADTS header from the track's AudioSpecificConfig."""
        track = frame.track
        payload: bytes = frame.payload
        if track.codec is Codec.AAC and payload:
            config = track.parameter_sets[0] if track.parameter_sets else aac.DEFAULT_CONFIG
            payload = aac.build_adts(config, len(payload)) + payload
        return self.mux_payload(
            payload,
            frame.pts_90k,
            frame.dts_90k,
            # Sound alone has no key pictures: a receiver learns from any of its packs what they are (9.12, C.1).
            key=frame.key and (track.codec.is_video or not self._video),
            video=track.codec.is_video,
        )

    def mux_payload(
        self, payload: bytes, pts_90k: int, dts_90k: int, *, key: bool, video: bool = True
    ) -> bytes:
        """The same for a payload that is already in its PES form."""
        parts: list[bytes | memoryview] = [_pack_header(dts_90k, self._mux_rate)]
        if self._map_policy is MapPolicy.ALWAYS or (key and self._map_policy is MapPolicy.KEY):
            parts += (self._system_header, self._map)
        stream_id = VIDEO_ID if video else AUDIO_ID
        view = memoryview(payload)
        times = pes_times(pts_90k, dts_90k)
        size = len(view)
        if self._unbounded_pes and video:
            parts += (pes_header(stream_id, times, None), view)
            return b"".join(parts)
        for start in range(0, max(size, 1), self._max_pes_payload):
            piece = view[start : start + self._max_pes_payload]
            parts += (pes_header(stream_id, b"" if start else times, len(piece)), piece)
        return b"".join(parts)


def _pack_header(scr_90k: int, mux_rate: int) -> bytes:
    """2.5.3.3; SCR extension 0, no stuffing."""
    scr = scr_90k % PTS_MODULUS
    value = 0b01
    value = value << 3 | scr >> 30
    value = value << 1 | 1
    value = value << 15 | scr >> 15 & 0x7FFF
    value = value << 1 | 1
    value = value << 15 | scr & 0x7FFF
    value = value << 1 | 1
    value = value << 9
    value = value << 1 | 1
    value = value << 22 | mux_rate
    value = value << 2 | 3
    value = value << 5 | 0b11111
    value = value << 3
    return b"\x00\x00\x01\xba" + value.to_bytes(10, "big")


def _system_header(mux_rate: int, types: dict[int, int]) -> bytes:
    """2.5.3.5: one audio and one video at most, a buffer bound for each."""
    audio = AUDIO_ID in types
    video = VIDEO_ID in types
    body = (1 << 23 | mux_rate << 1 | 1).to_bytes(3, "big")
    body += bytes((audio << 2, 0xE0 | video, 0x7F))
    for stream_id in types:
        scale, bound = (1, 2048) if stream_id >= 0xE0 else (0, 512)
        body += bytes((stream_id,)) + (0b11 << 14 | scale << 13 | bound).to_bytes(2, "big")
    return b"\x00\x00\x01\xbb" + len(body).to_bytes(2, "big") + body


def _stream_map(types: dict[int, int]) -> bytes:
    """2.5.4.1, without descriptors."""
    entries = b"".join(bytes((kind, stream_id, 0, 0)) for stream_id, kind in types.items())
    body = b"\xe0\xff\x00\x00" + len(entries).to_bytes(2, "big") + entries
    head = b"\x00\x00\x01\xbc" + (len(body) + 4).to_bytes(2, "big") + body
    return head + crc32_mpeg(head).to_bytes(4, "big")


def crc32_mpeg(data: bytes) -> int:
    """CRC of ISO 13818-1 Annex A. Called once per muxer, so it need not be fast."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


def _timestamp(prefix: int, value: int) -> bytes:
    value %= PTS_MODULUS
    return (
        prefix << 36
        | value >> 30 << 33
        | 1 << 32
        | (value >> 15 & 0x7FFF) << 17
        | 1 << 16
        | (value & 0x7FFF) << 1
        | 1
    ).to_bytes(5, "big")


def pes_times(pts_90k: int, dts_90k: int) -> bytes:
    """PTS, and DTS where it differs, as a PES header has them (2.4.3.7)."""
    if pts_90k == dts_90k:
        return _timestamp(0b0010, pts_90k)
    return _timestamp(0b0011, pts_90k) + _timestamp(0b0001, dts_90k)


def pes_header(stream_id: int, times: bytes, size: int | None) -> bytes:
    """A PES header (2.4.3.6) with these `times` for a payload of `size` bytes; None writes length 0."""
    flags = {0: 0x00, 5: 0x80, 10: 0xC0}[len(times)]
    length = 0 if size is None else size + 3 + len(times)
    return (
        b"\x00\x00\x01"
        + bytes((stream_id,))
        + length.to_bytes(2, "big")
        + bytes((0x80 | 0x04 * bool(times), flags, len(times)))
        + times
    )
