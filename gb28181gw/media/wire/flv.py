"""FLV (Adobe FLV 10.1; Enhanced RTMP v1 for H.265), writer.

Tags carry the stream's own time, counted from the first frame or from `base_90k`: with a common base the tags of
one stream are the same for all its viewers and may be shared.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.exceptions import ParameterSetError

_AUDIO_TAG = 8
_VIDEO_TAG = 9
_SCRIPT_TAG = 18

_AVC = 7
_HEVC_LEGACY = 12
_HVC1 = b"hvc1"
_KEY, _INTER = 1, 2
_SEQUENCE_START, _CODED_FRAMES, _CODED_FRAMES_X = 0, 1, 3

_AUDIO_FORMATS = {Codec.PCMA: 7, Codec.PCMU: 8, Codec.AAC: 10}
_SIXTEEN_BIT = 0x02
"""G.711 decodes to 16 bits; the sampling rate field is 5.5 kHz (0) for rates that it cannot say."""


def tag(kind: int, timestamp_ms: int, body: bytes) -> bytes:
    """One tag with the size that follows it. `timestamp_ms` is taken modulo 2^32; the top byte is the extension."""
    size = len(body)
    if size > 0xFFFFFF:
        raise ValueError("an FLV tag holds at most 16,777,215 bytes")
    timestamp_ms &= 0xFFFFFFFF
    head = struct.pack(
        "!BBHHBBBH",
        kind,
        size >> 16,
        size & 0xFFFF,
        timestamp_ms >> 8 & 0xFFFF,
        timestamp_ms & 0xFF,
        timestamp_ms >> 24,
        0,
        0,
    )
    return b"".join((head, body, struct.pack("!I", size + 11)))


class FlvMuxer:
    """One FLV stream. `hevc`: ``enhanced`` (FourCC hvc1) or ``legacy`` (codec id 12)."""

    def __init__(self, *, hevc: str = "enhanced", base_90k: int | None = None) -> None:
        if hevc not in ("enhanced", "legacy"):
            raise ValueError(f"hevc is 'enhanced' or 'legacy', not {hevc!r}")
        self._legacy = hevc == "legacy"
        self._base = base_90k
        self._video_sets: tuple[bytes, ...] | None = None
        self._video_codec: Codec | None = None
        self._audio_config: tuple[Codec, tuple[bytes, ...]] | None = None

    @staticmethod
    def carries(codec: Codec) -> bool:
        """The container has this codec."""
        return codec in (Codec.H264, Codec.H265) or codec in _AUDIO_FORMATS

    stale = False
    """Nothing makes consumers begin anew: tags announce what changes."""

    def fits(self, _tracks: Iterable[Track], /) -> bool:
        """A new consumer of these tracks may share this muxer."""
        return True

    def header(self, tracks: Iterable[Track], pts_90k: int | None = None) -> bytes:
        """File header, onMetaData and sequence headers of the tracks; those that FLV cannot carry are left out.

        Tracks that come later need no new header: `mux` announces them. The flags of the file header say video and
        audio for the tracks given; players read on when another comes. `pts_90k` is the time of the sequence headers.
        """
        known = [track for track in tracks if self.carries(track.codec)]
        video = next((track for track in known if track.kind is TrackKind.VIDEO), None)
        audio = next((track for track in known if track.kind is TrackKind.AUDIO), None)
        flags = (0x01 if video else 0) | (0x04 if audio else 0)
        time_ms = self._milliseconds(pts_90k) if pts_90k is not None else 0
        parts = [
            b"FLV\x01" + bytes((flags,)) + b"\x00\x00\x00\x09\x00\x00\x00\x00",
            tag(_SCRIPT_TAG, time_ms, self._metadata(video, audio)),
        ]
        parts += (self.sequence_header(track, time_ms) for track in (video, audio) if track is not None)
        return b"".join(parts)

    def configuration(self, tracks: Iterable[Track], at_90k: int) -> bytes:
        """The sequence headers alone, for a consumer that skipped over the place where they changed."""
        time_ms = self._milliseconds(at_90k)
        return b"".join(self.sequence_header(track, time_ms) for track in tracks)

    def sequence_header(self, track: Track, timestamp_ms: int = 0) -> bytes:
        """The configuration tag of a track; empty where the codec needs none or its parameter sets do not read."""
        if track.kind is TrackKind.AUDIO:
            self._audio_config = (track.codec, track.parameter_sets)
            if track.codec is not Codec.AAC or not track.parameter_sets:
                return b""
            return tag(_AUDIO_TAG, timestamp_ms, b"\xaf\x00" + track.parameter_sets[0])
        self._video_codec = track.codec
        self._video_sets = track.parameter_sets
        try:
            if track.codec is Codec.H264:
                body = b"\x17\x00\x00\x00\x00" + nal.avcc(track.parameter_sets)
            elif self._legacy:
                body = bytes((_KEY << 4 | _HEVC_LEGACY, 0, 0, 0, 0)) + nal.hvcc(track.parameter_sets)
            else:
                body = bytes((0x80 | _KEY << 4 | _SEQUENCE_START,)) + _HVC1 + nal.hvcc(track.parameter_sets)
        except ParameterSetError:
            return b""
        return tag(_VIDEO_TAG, timestamp_ms, body)

    def mux(self, frame: Frame) -> bytes:
        """The tag of a frame, led by a new sequence header when its track changed; empty if FLV has no such codec."""
        track = frame.track
        codec = track.codec
        if not self.carries(codec):
            return b""
        dts_ms = self._milliseconds(frame.dts_90k)
        if track.kind is TrackKind.AUDIO:
            lead = b""
            if self._audio_config != (codec, track.parameter_sets):
                lead = self.sequence_header(track, dts_ms)
            head = b"\xaf\x01" if codec is Codec.AAC else bytes((_AUDIO_FORMATS[codec] << 4 | _SIXTEEN_BIT,))
            return lead + tag(_AUDIO_TAG, dts_ms, head + frame.payload)
        lead = b""
        if self._video_codec is not codec or self._video_sets != track.parameter_sets:
            lead = self.sequence_header(track, dts_ms)
        offset_ms = self._milliseconds(frame.pts_90k, clamp=False) - dts_ms
        composition = (offset_ms & 0xFFFFFF).to_bytes(3, "big")
        kind = (_KEY if frame.key else _INTER) << 4
        if codec is Codec.H264:
            head = bytes((kind | _AVC, 1)) + composition
        elif self._legacy:
            head = bytes((kind | _HEVC_LEGACY, 1)) + composition
        elif offset_ms:
            head = bytes((0x80 | kind | _CODED_FRAMES,)) + _HVC1 + composition
        else:
            head = bytes((0x80 | kind | _CODED_FRAMES_X,)) + _HVC1
        return lead + tag(_VIDEO_TAG, dts_ms, head + length_prefixed(frame.payload))

    def _milliseconds(self, time_90k: int, *, clamp: bool = True) -> int:
        if self._base is None:
            self._base = time_90k
        ms = (time_90k - self._base) // 90
        return max(0, ms) if clamp else ms

    def _metadata(self, video: Track | None, audio: Track | None) -> bytes:
        values: dict[str, float | bool | str] = {"duration": 0.0}
        if video is not None:
            values |= {"width": float(video.width), "height": float(video.height)}
            if video.fps:
                values["framerate"] = video.fps
            if video.codec is Codec.H264:
                values["videocodecid"] = float(_AVC)
            else:
                values["videocodecid"] = (
                    float(_HEVC_LEGACY) if self._legacy else float(int.from_bytes(_HVC1, "big"))
                )
        if audio is not None:
            values |= {
                "audiocodecid": float(_AUDIO_FORMATS[audio.codec]),
                "audiosamplerate": float(audio.sample_rate),
                "audiosamplesize": 16.0,
                "stereo": audio.channels > 1,
            }
        values["encoder"] = "gb28181gw"
        return _amf_string("onMetaData") + _amf_array(values)


def length_prefixed(payload: bytes) -> bytes:
    """Annex B to four-byte lengths (ISO 14496-15)."""
    parts: list[bytes] = []
    for unit in nal.split_annexb(payload):
        parts += (len(unit).to_bytes(4, "big"), unit)
    return b"".join(parts)


def _amf_name(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _amf_string(text: str) -> bytes:
    return b"\x02" + _amf_name(text)


def _amf_array(values: dict[str, float | bool | str]) -> bytes:
    """ECMA array of AMF0."""
    parts = [b"\x08" + len(values).to_bytes(4, "big")]
    for name, value in values.items():
        parts.append(_amf_name(name))
        if isinstance(value, bool):
            parts.append(bytes((1, value)))
        elif isinstance(value, float):
            parts.append(b"\x00" + struct.pack("!d", value))
        else:
            parts.append(_amf_string(value))
    parts.append(b"\x00\x00\x09")
    return b"".join(parts)
