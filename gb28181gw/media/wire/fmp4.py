"""Fragmented MP4 (ISO 14496-12, 14496-15 for H.264 and H.265, 14496-1 and -3 for AAC), writer.

An initialisation segment (`ftyp`, `moov`), then fragments (`moof`, `mdat`). `Fmp4Muxer` writes a fragment for each
frame, so that nothing waits for the next one; `fragment` writes as many samples as it is given, for segments that are
kept. Samples of one fragment have exact durations where the caller knows them.

Times are in 1/90000 s in all tracks. The tracks are announced in the initialisation segment and cannot be added to
later: a frame of another one has no place here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import aac, nal
from gb28181gw.media.wire.exceptions import ParameterSetError
from gb28181gw.media.wire.flv import length_prefixed

TIMESCALE = 90_000
TRACK_IDS = {TrackKind.VIDEO: 1, TrackKind.AUDIO: 2}
_CODECS = frozenset({Codec.H264, Codec.H265, Codec.AAC})
_MAX_CONFIG = 64
"""Bytes of an AudioSpecificConfig that fits descriptors with lengths of one byte (14496-1 8.3.3)."""
_DEFAULT_DURATION_90K = 3_600
_MAX_DURATION_90K = 90_000
_MAX_OFFSET_90K = 0x7FFFFFFF

_FTYP = b"iso6" + b"\x00\x00\x02\x00" + b"iso6" + b"iso5" + b"mp41"
_MATRIX = Struct("!9I").pack(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_SYNC_SAMPLE = 0x02000000
"""Depends on no other (8.8.3.1)."""
_OTHER_SAMPLE = 0x01010000
"""Depends on others, is no sync sample."""
_TFHD_FLAGS = 0x020000
"""default-base-is-moof."""
_TRUN_FLAGS = 0x000F01
"""Data offset; duration, size, flags and composition offset of each sample."""

_U32 = Struct("!I")
_SAMPLE = Struct("!IIIi")
_TRUN_HEAD = Struct("!IIi")
_TFDT = Struct("!IQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a fragment; times in 1/90000 s, `data` in the form of the container."""

    dts_90k: int
    pts_90k: int
    duration_90k: int
    key: bool
    data: bytes


def carries(codec: Codec) -> bool:
    """The container has this codec, as far as this gateway goes: G.711 has to become AAC first."""
    return codec in _CODECS


def can_announce(track: Track) -> bool:
    """The codec is carried and the track's configuration can be written."""
    try:
        return carries(track.codec) and bool(_sample_entry(track))
    except ParameterSetError:
        return False


def sample_data(frame: Frame) -> bytes:
    """The payload of a frame as a sample: four-byte lengths in place of start codes; AAC as it is."""
    return length_prefixed(frame.payload) if frame.track.kind is TrackKind.VIDEO else frame.payload


def init_segment(tracks: Iterable[Track]) -> bytes:
    """`ftyp` and `moov` for at most one video and one audio track. Raises `ParameterSetError`."""
    known = sorted(tracks, key=lambda track: TRACK_IDS[track.kind])
    mvhd = _full(
        b"mvhd",
        0,
        0,
        Struct("!IIIIIH10x").pack(0, 0, TIMESCALE, 0, 0x10000, 0x0100),  # rate 1, volume 1
        _MATRIX,
        b"\x00" * 24,
        _U32.pack(3),  # next_track_ID
    )
    traks = [_trak(track) for track in known]
    trex = [_full(b"trex", 0, 0, Struct("!5I").pack(TRACK_IDS[track.kind], 1, 0, 0, 0)) for track in known]
    return _box(b"ftyp", _FTYP) + _box(b"moov", mvhd, *traks, _box(b"mvex", *trex))


def fragment(sequence: int, runs: Mapping[TrackKind, Sequence[Sample]]) -> bytes:
    """`moof` and `mdat` with the samples of each track, in order of decoding; tracks without samples are left out."""
    present = [(TRACK_IDS[kind], samples) for kind, samples in runs.items() if samples]
    head_size = 8 + 16 + sum(8 + 16 + 20 + 20 + 16 * len(samples) for _, samples in present)
    offset = head_size + 8
    trafs: list[bytes] = []
    data: list[bytes] = []
    for track_id, samples in present:
        tfhd = _full(b"tfhd", 0, _TFHD_FLAGS, _U32.pack(track_id))
        tfdt = _box(b"tfdt", _TFDT.pack(1 << 24, samples[0].dts_90k))
        rows = [
            _SAMPLE.pack(
                sample.duration_90k,
                len(sample.data),
                _SYNC_SAMPLE if sample.key else _OTHER_SAMPLE,
                sample.pts_90k - sample.dts_90k,
            )
            for sample in samples
        ]
        trun = _box(b"trun", _TRUN_HEAD.pack(1 << 24 | _TRUN_FLAGS, len(samples), offset), *rows)
        trafs.append(_box(b"traf", tfhd, tfdt, trun))
        for sample in samples:
            data.append(sample.data)
            offset += len(sample.data)
    moof = _box(b"moof", _full(b"mfhd", 0, 0, _U32.pack(sequence & 0xFFFFFFFF)), *trafs)
    return b"".join((moof, _U32.pack(offset - head_size), b"mdat", *data))


def codec_string(track: Track) -> str:
    """The `codecs` parameter of RFC 6381 (ISO 14496-15 Annex E for H.265). Raises `ParameterSetError`."""
    if track.codec is Codec.H264:
        return "avc1." + nal.avcc(track.parameter_sets)[1:4].hex().upper()
    if track.codec is Codec.H265:
        general = nal.hvcc(track.parameter_sets)[1:13]
        space = ("", "A", "B", "C")[general[0] >> 6]
        tier = "H" if general[0] & 0x20 else "L"
        compatible = int(f"{int.from_bytes(general[1:5], 'big'):032b}"[::-1], 2)
        constraints = general[5:11].rstrip(b"\x00")
        tail = "".join(f".{byte:X}" for byte in constraints)
        return f"hvc1.{space}{general[0] & 0x1F}.{compatible:X}.{tier}{general[11]}{tail}"
    object_type, _, _ = aac.parse_audio_specific_config(_audio_config(track))
    return f"mp4a.40.{object_type}"


@dataclass(slots=True)
class _Announced:
    """A track of the initialisation segment, and where its output stands."""

    track: Track
    last_dts_90k: int = -1
    interval_90k: int = 0


class Fmp4Muxer:
    """One stream, a fragment a frame. Its times count from `base_90k`, else from the first frame.

    A sample's duration is not known when its fragment is written. What is written is the longest recent distance of
    two frames: players of the Media Source Extensions leave out all up to the next key frame when one is later than
    twice the duration of the one before (step 11 of "coded frame processing"), and a frame that begins before the
    end of another costs nothing.
    """

    def __init__(self, tracks: Iterable[Track], *, base_90k: int | None = None) -> None:
        self._base = base_90k
        self._sequence = 0
        self._announced: dict[TrackKind, _Announced] = {}
        self._renewed = False
        self.stale = False
        """The picture has become another than the one announced: consumers have to begin anew."""
        for track in tracks:
            if track.kind not in self._announced and can_announce(track):
                self._announced[track.kind] = _Announced(track, interval_90k=_first_interval(track))

    def fits(self, tracks: Iterable[Track], /) -> bool:
        """A new consumer of these tracks may share this muxer."""
        wanted: dict[TrackKind, Codec] = {}
        for track in tracks:
            if can_announce(track):
                wanted.setdefault(track.kind, track.codec)
        return not self.stale and wanted == {kind: a.track.codec for kind, a in self._announced.items()}

    def header(self, _tracks: Iterable[Track] = (), _at_90k: int | None = None, /) -> bytes:
        """The initialisation segment; empty where nothing could be announced."""
        if not self._announced:
            return b""
        return init_segment(announced.track for announced in self._announced.values())

    def configuration(self, _tracks: Iterable[Track] = (), _at_90k: int = 0, /) -> bytes:
        """For a consumer that skipped: the initialisation segment, if it was renewed since the first one."""
        return self.header() if self._renewed else b""

    def mux(self, frame: Frame) -> bytes:
        """The fragment of a frame, led by a new initialisation segment when its track changed; else empty."""
        track = frame.track
        announced = self._announced.get(track.kind)
        if announced is None or announced.track.codec is not track.codec:
            self.stale = self.stale or track.kind is TrackKind.VIDEO or announced is not None
            return b""
        lead = b""
        if announced.track.parameter_sets != track.parameter_sets:
            if not can_announce(track):
                return b""
            announced.track = track
            self._renewed = True
            lead = self.header()
        if self._base is None:
            self._base = frame.dts_90k
        dts = frame.dts_90k - self._base
        if dts <= announced.last_dts_90k:
            if track.kind is TrackKind.AUDIO:
                return lead
            dts = announced.last_dts_90k + 1
        if announced.last_dts_90k >= 0 and track.kind is TrackKind.VIDEO:
            step = min(dts - announced.last_dts_90k, _MAX_DURATION_90K)
            announced.interval_90k = max(step, announced.interval_90k - announced.interval_90k // 16)
        announced.last_dts_90k = dts
        self._sequence += 1
        sample = Sample(
            dts_90k=dts,
            pts_90k=min(max(frame.pts_90k - self._base, dts), dts + _MAX_OFFSET_90K),
            duration_90k=announced.interval_90k,
            key=frame.key or track.kind is TrackKind.AUDIO,
            data=sample_data(frame),
        )
        return lead + fragment(self._sequence, {track.kind: (sample,)})


def sample_duration(track: Track) -> int:
    """Of an AAC packet, or of a picture as far as its parameter sets tell; 0 unknown."""
    if track.kind is TrackKind.AUDIO:
        _, rate, _ = aac.parse_audio_specific_config(_audio_config(track))
        return aac.SAMPLES_PER_FRAME * TIMESCALE // rate if rate else 0
    return int(TIMESCALE / track.fps) if track.fps > 0 else 0


def _first_interval(track: Track) -> int:
    known = sample_duration(track)
    return min(known, _MAX_DURATION_90K) if known else _DEFAULT_DURATION_90K


def _box(kind: bytes, *parts: bytes) -> bytes:
    return b"".join((_U32.pack(8 + sum(map(len, parts))), kind, *parts))


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, _U32.pack(version << 24 | flags), *parts)


def _trak(track: Track) -> bytes:
    """8.3.1 to 8.7.5, with empty sample tables."""
    video = track.kind is TrackKind.VIDEO
    size = (track.width & 0xFFFF, track.height & 0xFFFF) if video else (0, 0)
    tkhd = _full(
        b"tkhd",
        0,
        3,  # enabled, in the presentation
        Struct("!5I").pack(0, 0, TRACK_IDS[track.kind], 0, 0),
        b"\x00" * 12,
        b"\x00\x00\x00\x00" if video else b"\x01\x00\x00\x00",  # volume
        _MATRIX,
        Struct("!II").pack(size[0] << 16, size[1] << 16),
    )
    mdhd = _full(b"mdhd", 0, 0, Struct("!4IHH").pack(0, 0, TIMESCALE, 0, 0x55C4, 0))  # "und"
    hdlr = _full(b"hdlr", 0, 0, b"\x00" * 4, b"vide" if video else b"soun", b"\x00" * 12, b"gb28181gw\x00")
    media = _full(b"vmhd", 0, 1, b"\x00" * 8) if video else _full(b"smhd", 0, 0, b"\x00" * 4)
    dref = _full(b"dref", 0, 0, _U32.pack(1), _full(b"url ", 0, 1))
    stbl = _box(
        b"stbl",
        _full(b"stsd", 0, 0, _U32.pack(1), _sample_entry(track)),
        *(_full(kind, 0, 0, b"\x00" * 4) for kind in (b"stts", b"stsc")),
        _full(b"stsz", 0, 0, b"\x00" * 8),
        _full(b"stco", 0, 0, b"\x00" * 4),
    )
    minf = _box(b"minf", media, _box(b"dinf", dref), stbl)
    return _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, minf))


def _sample_entry(track: Track) -> bytes:
    """`avc1`, `hvc1` or `mp4a`. Raises `ParameterSetError`."""
    if track.kind is TrackKind.AUDIO:
        config = _audio_config(track)
        _, rate, channels = aac.parse_audio_specific_config(config)
        entry = Struct("!6xH8xHHHHHH").pack(1, channels or 2, 16, 0, 0, min(rate, 0xFFFF), 0)
        return _box(b"mp4a", entry, _esds(config))
    if track.codec is Codec.H264:
        kind, configuration = b"avc1", _box(b"avcC", nal.avcc(track.parameter_sets))
    else:
        kind, configuration = b"hvc1", _box(b"hvcC", nal.hvcc(track.parameter_sets))
    entry = Struct("!6xH16xHHIIIH32xHH").pack(
        1, track.width & 0xFFFF, track.height & 0xFFFF, 0x480000, 0x480000, 0, 1, 0x18, 0xFFFF
    )
    return _box(kind, entry, configuration)


def _esds(config: bytes) -> bytes:
    """ISO 14496-14 5.6: an ES_Descriptor around the AudioSpecificConfig."""
    specific = bytes((0x05, len(config))) + config
    decoder = bytes((0x04, 13 + len(specific), 0x40, 0x15)) + b"\x00" * 11 + specific
    body = Struct("!HB").pack(TRACK_IDS[TrackKind.AUDIO], 0) + decoder + b"\x06\x01\x02"
    return _full(b"esds", 0, 0, bytes((0x03, len(body))) + body)


def _audio_config(track: Track) -> bytes:
    config = track.parameter_sets[0] if track.parameter_sets else b""
    if len(config) > _MAX_CONFIG:
        raise ParameterSetError("this AudioSpecificConfig is too long")
    return config
