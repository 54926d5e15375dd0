"""The program stream demuxer, row by row of the field's deviations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from gb28181gw.media.tracks import Codec, Frame, TrackKind
from gb28181gw.media.wire import aac, nal
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.ps_mux import MapPolicy, PsMuxer
from gb28181gw.media.wire.units import EsUnit
from tests.support.media import (
    H264_PPS,
    audio_clip,
    h264_slice,
    h264_sps,
    interleave,
    pack_header,
    pes,
    ps_stream,
    stream_map,
    video_clip,
)

CODE = nal.START_CODE


def _run(
    chunks: Sequence[bytes], demuxer: PsDemuxer | None = None, *, flush: bool = True
) -> tuple[PsDemuxer, list[EsUnit]]:
    demuxer = demuxer or PsDemuxer()
    units = [unit for chunk in chunks for unit in demuxer.feed(chunk)]
    if flush:
        units += demuxer.flush()
    return demuxer, units


def _video(units: Sequence[EsUnit]) -> list[EsUnit]:
    return [unit for unit in units if unit.kind is TrackKind.VIDEO]


def _audio(units: Sequence[EsUnit]) -> list[EsUnit]:
    return [unit for unit in units if unit.kind is TrackKind.AUDIO]


def _assert_same(units: Sequence[EsUnit], clip: Sequence[Frame]) -> None:
    assert [unit.payload for unit in units] == [frame.payload for frame in clip]
    assert [(unit.pts_90k, unit.dts_90k) for unit in units] == [(f.pts_90k, f.dts_90k) for f in clip]
    assert [unit.key for unit in units] == [frame.key for frame in clip]


def _packs(clip: Sequence[Frame], build: Callable[[Frame], bytes]) -> list[bytes]:
    return [pack_header(frame.dts_90k) + build(frame) for frame in clip]


CLIP = video_clip(Codec.H264, frames=30, gop=10)
HEVC = video_clip(Codec.H265, frames=30, gop=10)


@pytest.mark.parametrize("clip", [CLIP, HEVC], ids=["h264", "h265"])
def test_plain_stream(clip: tuple[Frame, ...]) -> None:
    demuxer, units = _run(ps_stream(clip))
    _assert_same(units, clip)
    assert not any(unit.damaged for unit in units)
    assert demuxer.counters.errors == 0
    assert demuxer.quirks == {}
    (track,) = demuxer.tracks
    assert track == clip[0].track
    assert demuxer.tracks_version == 1


def test_med01_map_says_h264_stream_is_h265() -> None:
    demuxer, units = _run(ps_stream(HEVC, PsMuxer(video=Codec.H264)))
    _assert_same(units, HEVC)
    assert {unit.codec for unit in units} == {Codec.H265}
    assert demuxer.quirks["ps.psm_codec_mismatch"] == 3


def test_med01_map_says_h265_stream_is_h264() -> None:
    demuxer, units = _run(ps_stream(CLIP, PsMuxer(video=Codec.H265)))
    _assert_same(units, CLIP)
    assert {unit.codec for unit in units} == {Codec.H264}
    assert "ps.psm_codec_mismatch" in demuxer.quirks


def test_med01_nothing_is_given_out_before_parameter_sets() -> None:
    """Joined between key frames: slices alone do not tell the codec."""
    demuxer, units = _run(ps_stream(CLIP)[5:])
    _assert_same(units, CLIP[10:])
    assert demuxer.tracks_version == 1


@pytest.mark.parametrize("clip", [CLIP, HEVC], ids=["h264", "h265"])
def test_med02_no_map_at_all(clip: tuple[Frame, ...]) -> None:
    demuxer, units = _run(ps_stream(clip, PsMuxer(video=clip[0].track.codec, map_policy=MapPolicy.NEVER)))
    _assert_same(units, clip)
    assert demuxer.quirks == {"ps.no_stream_map": 1}


def test_med02_audio_without_map_is_taken_for_g711_after_a_second() -> None:
    sound = audio_clip(Codec.PCMA)
    demuxer, units = _run(ps_stream(sound, PsMuxer(video=None, map_policy=MapPolicy.NEVER)))
    assert [unit.payload for unit in units] == [frame.payload for frame in sound[24:]]
    assert units[0].codec is Codec.PCMA
    assert "ps.audio_codec_assumed" in demuxer.quirks


def test_med02_map_only_in_the_first_pack_is_kept() -> None:
    sound = audio_clip(Codec.PCMU, packets=5)
    first = pack_header() + stream_map({0xC0: 0x91}) + pes(sound[0].payload, stream_id=0xC0, pts=0)
    rest = [pack_header() + pes(f.payload, stream_id=0xC0, pts=f.pts_90k) for f in sound[1:]]
    _, units = _run([first, *rest])
    assert {unit.codec for unit in units} == {Codec.PCMU}
    assert len(units) == 5


def test_med03_first_map_lists_audio_only() -> None:
    mapped = [
        pack_header() + stream_map({0xC0: 0x90}) + pes(b"\xd5" * 320, stream_id=0xC0, pts=n * 3600)
        for n in range(3)
    ]
    demuxer, units = _run(mapped, flush=False)
    assert [track.codec for track in demuxer.tracks] == [Codec.PCMA]
    before = demuxer.tracks_version
    _, units = _run(ps_stream(CLIP), demuxer)
    assert len(_video(units)) == 30
    assert [track.codec for track in demuxer.tracks] == [Codec.H264, Codec.PCMA]
    assert demuxer.tracks_version == before + 1


@pytest.mark.parametrize(
    "bad",
    [
        stream_map({0xE0: 0x24, 0xC0: 0x90}, map_length=0),
        stream_map({0xE0: 0x24, 0xC0: 0x90}, map_length=0xFFFF),
        stream_map({0xC0: 0x90, 0xE0: 0x24}, descriptor_length=0x7FFF),
        stream_map({0xC0: 0x90, 0xE0: 0x24}, crc=b"\xde\xad\xbe\xef"),
        stream_map({0xC0: 0x90, 0xE0: 0x24}, info=b"\x0e\x03\xc0\x10\x00", descriptors=b"\x0a\x04chi\x00"),
        b"\x00\x00\x01\xbc\x00\x02\xe0\xff",
        b"\x00\x00\x01\xbc\x00\x00",
        b"\x00\x00\x01\xbc\x00\x06\xe0\xff\xff\xff\x00\x00",
    ],
)
def test_med04_lengths_of_the_map_do_not_add_up(bad: bytes) -> None:
    stream = [pack_header(f.dts_90k) + bad + pes(f.payload, pts=f.pts_90k) for f in HEVC]
    demuxer, units = _run(stream)
    _assert_same(units, HEVC)
    assert demuxer.counters.resyncs == 0


def test_med04_map_is_read_in_spite_of_wrong_lengths() -> None:
    for bad in (
        stream_map({0xC0: 0x91}, map_length=0),
        stream_map({0xC0: 0x91}, map_length=2000),
        stream_map({0xC0: 0x91}, descriptors=b"\x0a\x04chi\x00"),
    ):
        demuxer, units = _run([pack_header() + bad + pes(b"\x7f" * 320, stream_id=0xC0, pts=0)])
        assert demuxer.stream_types == {0xC0: 0x91}
        assert [unit.codec for unit in units] == [Codec.PCMU]


def test_med04_map_too_large_is_skipped_by_its_length() -> None:
    huge = b"\x00\x00\x01\xbc\xff\xff" + bytes(0xFFFF)
    demuxer, units = _run([pack_header() + huge, *ps_stream(CLIP)])
    _assert_same(units, CLIP)
    assert demuxer.counters.oversized == 1


@pytest.mark.parametrize("step", [1, 7, 188, 1400, 100_000])
def test_med05_pes_length_zero(step: int) -> None:
    stream = b"".join(ps_stream(CLIP, PsMuxer(video=Codec.H264, unbounded_pes=True)))
    demuxer, units = _run([stream[i : i + step] for i in range(0, len(stream), step)])
    _assert_same(units, CLIP)
    assert demuxer.quirks["ps.pes_length_zero"] == 30


def test_med05_pes_length_zero_ends_at_audio_and_at_private_data_too() -> None:
    private = b"\x00\x00\x01\xbd\x00\x08" + bytes(8)
    stream = []
    for number, frame in enumerate(CLIP):
        sound = pes(b"\xd5" * 160, stream_id=0xC0, pts=frame.pts_90k)
        stream.append(pack_header(frame.dts_90k) + stream_map({0xE0: 0x1B, 0xC0: 0x90}))
        stream.append(pes(frame.payload, pts=frame.pts_90k, length=0))
        stream.append(private if number % 2 else sound)
    _, units = _run(stream)
    _assert_same(_video(units), CLIP)
    assert len(_audio(units)) == 15


@pytest.mark.parametrize("size", [500, 1500, 65000])
def test_med06_one_picture_in_several_pes_the_first_with_times(size: int) -> None:
    clip = video_clip(Codec.H264, frames=12, gop=6, noise=60)
    _, units = _run(ps_stream(clip, PsMuxer(video=Codec.H264, max_pes_payload=size)))
    _assert_same(units, clip)


@pytest.mark.parametrize("size", [300, 1111])
def test_med06_each_pes_of_a_picture_with_the_same_times(size: int) -> None:
    def build(frame: Frame) -> bytes:
        return b"".join(
            pes(frame.payload[i : i + size], pts=frame.pts_90k, dts=frame.dts_90k)
            for i in range(0, len(frame.payload), size)
        )

    _, units = _run(_packs(CLIP, build))
    _assert_same(units, CLIP)


@pytest.mark.parametrize("clip", [CLIP, HEVC], ids=["h264", "h265"])
@pytest.mark.parametrize("packs", [False, True])
def test_med06_one_pes_for_each_nal_unit(clip: tuple[Frame, ...], packs: bool) -> None:
    """Also with a pack header before each: neither pack nor PES ends a picture."""

    def build(frame: Frame) -> bytes:
        return b"".join(
            (pack_header(frame.dts_90k) if packs else b"") + pes(CODE + unit, pts=frame.pts_90k)
            for unit in nal.split_annexb(frame.payload)
        )

    _, units = _run(_packs(clip, build))
    _assert_same(units, clip)


@pytest.mark.parametrize("packs", [False, True])
def test_med06_slices_of_one_picture_in_pes_of_their_own(packs: bool) -> None:
    clip = video_clip(Codec.H264, frames=20, gop=10, slices=4)
    assert sum(1 for unit in nal.split_annexb(clip[1].payload) if unit[0] & 0x1F == 1) == 4

    def build(frame: Frame) -> bytes:
        return b"".join(
            (pack_header(frame.dts_90k) if packs else b"")
            + pes(CODE + unit, pts=frame.pts_90k if not n else None)
            for n, unit in enumerate(nal.split_annexb(frame.payload))
        )

    _, units = _run(_packs(clip, build))
    _assert_same(units, clip)


def test_med06_one_pes_with_the_end_of_a_picture_and_the_start_of_the_next() -> None:
    """A PES of its own for every 2,000 bytes, times for the first picture that begins in it (ISO 13818-1)."""
    stream = b"".join(frame.payload for frame in CLIP)
    starts: list[tuple[int, int]] = []
    position = 0
    for frame in CLIP:
        starts.append((position, frame.pts_90k))
        position += len(frame.payload)
    chunks = []
    expected: dict[int, int] = {}
    for begin in range(0, len(stream), 2000):
        inside = [(place, pts) for place, pts in starts if begin <= place < begin + 2000]
        chunks.append(pack_header() + pes(stream[begin : begin + 2000], pts=inside[0][1] if inside else None))
        if inside:
            expected[inside[0][0]] = inside[0][1]
    _, units = _run(chunks)
    assert [unit.payload for unit in units] == [frame.payload for frame in CLIP]
    assert [unit.pts_90k for unit in units] == [expected.get(place) for place, _ in starts]


def test_med06_start_code_split_between_two_pes() -> None:
    """The times of the second PES are of the picture that begins in it, not of the one whose first zero did not."""
    first, second, third, fourth = CLIP[:4]
    assert second.payload[:4] == third.payload[:4] == CODE
    times = [frame.pts_90k for frame in CLIP[:4]]
    _, units = _run(
        [
            pack_header() + pes(first.payload + second.payload[:1], pts=times[0]),
            pack_header() + pes(second.payload[1:] + third.payload, pts=times[2]),
            pack_header() + pes(fourth.payload, pts=times[3]),
        ]
    )
    assert [unit.payload for unit in units] == [frame.payload for frame in CLIP[:4]]
    assert [unit.pts_90k for unit in units] == [times[0], None, times[2], times[3]]


def test_med40_short_start_code_behind_a_zero_keeps_its_time() -> None:
    """A picture that ends in a zero, and the next PES with a start code of three bytes."""
    packs = _packs(CLIP, lambda frame: pes(frame.payload[1:] + b"\x00", pts=frame.pts_90k))
    _, units = _run(packs)
    _assert_same(units, CLIP)


@pytest.mark.parametrize("clip", [CLIP, HEVC], ids=["h264", "h265"])
def test_med06_a_picture_that_ends_in_the_next_pes_is_waited_for(clip: tuple[Frame, ...]) -> None:
    """PES of a fixed size, sent when the first picture that begins in them is due: no pause ends a picture."""
    stream = b"".join(frame.payload for frame in clip)
    demuxer = PsDemuxer()
    units: list[EsUnit] = []
    now = 0.0
    for number, start in enumerate(range(0, len(stream), 1000)):
        units += demuxer.flush_after(now)
        units += demuxer.feed(pack_header() + pes(stream[start : start + 1000], pts=number * 3600), now=now)
        now += 0.1
    units += demuxer.flush()
    assert [unit.payload for unit in units] == [frame.payload for frame in clip]
    assert demuxer.counters.premature == 0
    assert not any(unit.damaged for unit in units)


def test_med06_field_pairs_are_one_picture() -> None:
    sps = h264_sps(width=704, height=576, fields=True)
    pictures = []
    for number in range(6):
        head = [sps, H264_PPS] if number == 0 else []
        fields = [
            h264_slice(idr=number == 0, frame_num=number % 16, field=False),
            h264_slice(frame_num=number % 16, field=True),
        ]
        pictures.append(nal.join_annexb([*head, *fields]))
    stream = [pack_header() + pes(data, pts=n * 3600) for n, data in enumerate(pictures)]
    _, units = _run(stream)
    assert [unit.payload for unit in units] == pictures
    assert [unit.pts_90k for unit in units] == [n * 3600 for n in range(6)]


def test_med06_frames_of_a_stream_that_may_have_fields_stay_apart() -> None:
    sps = h264_sps(width=704, height=576, fields=True)
    pictures = [nal.join_annexb([sps, H264_PPS, h264_slice(idr=True)])]
    pictures += [nal.join_annexb([h264_slice(frame_num=n % 16)]) for n in range(1, 6)]
    _, units = _run([pack_header() + pes(b"".join(pictures), pts=0)])
    assert [unit.payload for unit in units] == pictures


@pytest.mark.parametrize("header_length", [3, 200, 255])
def test_med07_header_length_contradicts_the_packet(header_length: int) -> None:
    short = [replace(frame, payload=CODE + h264_slice(frame_num=n)) for n, frame in enumerate(CLIP)]
    short[0] = CLIP[0]
    stream = [pack_header() + pes(CLIP[0].payload, pts=0)]
    stream += [
        pack_header() + pes(frame.payload, pts=frame.pts_90k, header_length=header_length)
        for frame in short[1:]
    ]
    demuxer, units = _run(stream)
    assert [unit.payload for unit in units] == [frame.payload for frame in short]
    assert [unit.pts_90k for unit in units] == [frame.pts_90k for frame in short]
    assert demuxer.quirks["ps.pes_header_length"] == 29


def test_med07_header_length_past_a_packet_of_nothing() -> None:
    stream = [
        pack_header() + b"\x00\x00\x01\xe0\x00\x03\x80\x80\xff" + pes(f.payload, pts=f.pts_90k) for f in CLIP
    ]
    demuxer, units = _run(stream)
    _assert_same(units, CLIP)
    assert demuxer.counters.resyncs == 0


@pytest.mark.parametrize("stream_id", [0xBD, 0xBF, 0xBE, 0xF3])
def test_med08_start_codes_inside_private_data(stream_id: int) -> None:
    """The corpus case: the data reads 00 00 00 01 00 00 01 BA."""
    private = b"\x00\x00\x01" + bytes((stream_id,)) + bytes.fromhex("0008 00000001 000001ba")

    def build(frame: Frame) -> bytes:
        return private + pes(frame.payload, pts=frame.pts_90k, dts=frame.dts_90k) + private

    demuxer, units = _run(_packs(CLIP, build))
    _assert_same(units, CLIP)
    assert demuxer.counters.errors == 0


def test_med09_pack_start_code_inside_the_payload() -> None:
    """Inside a packet of known length nothing is searched."""
    trap = b"\x06\x05\x08" + pack_header()[:8] + b"\x00\x00\x01\xe0\x00\x00\x80"
    clip = [replace(frame, payload=frame.payload + CODE + trap) for frame in CLIP]
    demuxer, units = _run([pack_header() + pes(f.payload, pts=f.pts_90k) for f in clip])
    assert len(units) >= 29
    assert all(trap[:3] in unit.payload for unit in units[1:])
    assert demuxer.counters.resyncs == 0


def test_med10_short_pack_header() -> None:
    """The corpus case: 00 00 01 BA 00 00 01 E0."""
    stream = [b"\x00\x00\x01\xba" + pes(f.payload, pts=f.pts_90k, dts=f.dts_90k) for f in HEVC]
    demuxer, units = _run(stream)
    _assert_same(units, HEVC)
    assert demuxer.quirks["ps.short_pack_header"] == 30
    assert demuxer.counters.errors == 0


@pytest.mark.parametrize("stuffing", [b"\xff\xff\x00\x00\x00\x01", b"\x00\x00\x01\xba\x00\x00\x01", b"\xff"])
def test_med11_stuffing_of_any_content_is_skipped_by_its_length(stuffing: bytes) -> None:
    stream = [pack_header(f.dts_90k, stuffing) + pes(f.payload, pts=f.pts_90k) for f in CLIP]
    demuxer, units = _run(stream)
    _assert_same(units, CLIP)
    assert demuxer.counters.errors == 0


def test_med11_stuffing_that_the_header_does_not_count() -> None:
    stream = [pack_header(f.dts_90k) + b"\xff\xff\x00\x00" + pes(f.payload, pts=f.pts_90k) for f in CLIP]
    demuxer, units = _run(stream)
    _assert_same(units, CLIP)
    assert demuxer.quirks["ps.pack_stuffing"] == 30
    assert demuxer.counters.resyncs == 0


@pytest.mark.parametrize("policy", MapPolicy)
def test_med12_system_header_and_map_always_or_never(policy: MapPolicy) -> None:
    demuxer, units = _run(ps_stream(CLIP, PsMuxer(video=Codec.H264, map_policy=policy)))
    _assert_same(units, CLIP)
    assert demuxer.counters.errors == 0


@pytest.mark.parametrize("declared", [0x90, 0x91, None])
def test_med13_adts_under_another_stream_type(declared: int | None) -> None:
    sound = audio_clip(Codec.AAC)
    head = stream_map({0xC0: declared}) if declared is not None else b""
    config = sound[0].track.parameter_sets[0]
    stream = [
        pack_header(f.dts_90k)
        + head
        + pes(aac.build_adts(config, len(f.payload)) + f.payload, stream_id=0xC0, pts=f.pts_90k)
        for f in sound
    ]
    demuxer, units = _run(stream)
    assert {unit.codec for unit in units[1:]} == {Codec.AAC}
    assert [unit.payload for unit in units][-len(sound) + 1 :] == [frame.payload for frame in sound[1:]]
    assert demuxer.tracks[0].parameter_sets == (config,)
    assert demuxer.quirks["ps.audio_codec_mismatch"] == len(sound) - 1


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_aac_as_declared(rate: int) -> None:
    sound = audio_clip(Codec.AAC, rate=rate)
    demuxer, units = _run(ps_stream(sound, PsMuxer(video=None, audio=Codec.AAC, map_policy=MapPolicy.ALWAYS)))
    assert [unit.payload for unit in units] == [frame.payload for frame in sound]
    assert [unit.pts_90k for unit in units] == [frame.pts_90k for frame in sound]
    assert demuxer.tracks == (sound[0].track,)
    assert demuxer.quirks == {}


def test_aac_frames_across_pes() -> None:
    """Several ADTS frames in a PES, the last goes on in the next one."""
    sound = audio_clip(Codec.AAC)
    config = sound[0].track.parameter_sets[0]
    stream = b"".join(aac.build_adts(config, len(f.payload)) + f.payload for f in sound)
    chunks = [
        pack_header()
        + stream_map({0xC0: 0x0F})
        + pes(stream[i : i + 333], stream_id=0xC0, pts=None if i else 0)
        for i in range(0, len(stream), 333)
    ]
    _, units = _run(chunks)
    assert [unit.payload for unit in units] == [frame.payload for frame in sound]
    step = 1024 * 90000 // 8000
    assert [unit.pts_90k for unit in units] == [n * step for n in range(len(sound))]


def test_med14_au_headers_without_adts() -> None:
    sound = audio_clip(Codec.AAC)
    stream = [
        pack_header()
        + stream_map({0xC0: 0x1C})
        + pes(
            b"\x00\x10" + (len(f.payload) << 3).to_bytes(2, "big") + f.payload, stream_id=0xC0, pts=f.pts_90k
        )
        for f in sound
    ]
    demuxer, units = _run(stream)
    assert [unit.payload for unit in units] == [frame.payload for frame in sound]
    assert demuxer.tracks[0].parameter_sets == (aac.DEFAULT_CONFIG,)
    assert "ps.aac_au_headers" in demuxer.quirks


def test_med14_unreadable_audio_does_not_hold_up_video() -> None:
    stream = [
        pack_header(f.dts_90k)
        + stream_map({0xE0: 0x1B, 0xC0: 0x1C})
        + pes(f.payload, pts=f.pts_90k)
        + pes(b"\x55" * 100, stream_id=0xC0, pts=f.pts_90k)
        for f in CLIP
    ]
    demuxer, units = _run(stream)
    _assert_same(units, CLIP)
    assert "ps.audio_unreadable" in demuxer.quirks
    assert [track.codec for track in demuxer.tracks] == [Codec.H264]


@pytest.mark.parametrize(
    ("stream_type", "codec"),
    [
        (0x90, Codec.PCMA),
        (0x91, Codec.PCMU),
        (0x92, Codec.G722_1),
        (0x93, Codec.G723_1),
        (0x99, Codec.G729),
        (0x9B, Codec.SVACA),
    ],
)
def test_med15_audio_stream_types(stream_type: int, codec: Codec) -> None:
    demuxer, units = _run(
        [pack_header() + stream_map({0xC0: stream_type}) + pes(b"\x2a" * 160, stream_id=0xC0, pts=1)] * 3
    )
    assert [(unit.codec, unit.payload) for unit in units] == [(codec, b"\x2a" * 160)] * 3
    assert demuxer.tracks[0].codec is codec


def test_med15_stream_type_without_codec_is_named() -> None:
    demuxer, units = _run(
        [pack_header() + stream_map({0xC0: 0x81}) + pes(b"\x0b\x77", stream_id=0xC0, pts=1)]
    )
    assert units == []
    assert "ps.unsupported_stream_type" in demuxer.quirks


def test_med16_declared_audio_that_never_comes() -> None:
    demuxer, units = _run(ps_stream(CLIP, PsMuxer(video=Codec.H264, audio=Codec.PCMA)))
    _assert_same(units, CLIP)
    assert [track.kind for track in demuxer.tracks] == [TrackKind.VIDEO]


def test_med17_audio_that_begins_late() -> None:
    sound = [replace(f, pts_90k=f.pts_90k + 72000, dts_90k=f.dts_90k + 72000) for f in audio_clip(packets=5)]
    frames = interleave(CLIP, sound)
    demuxer = PsDemuxer()
    versions = []
    units = []
    for pack in ps_stream(frames, PsMuxer(video=Codec.H264, audio=Codec.PCMA)):
        units += demuxer.feed(pack)
        versions.append((demuxer.tracks_version, len(demuxer.tracks)))
    units += demuxer.flush()
    assert len(_audio(units)) == 5
    _assert_same(_video(units), CLIP)
    assert versions[5] == (1, 1)
    assert versions[-1] == (2, 2)


@pytest.mark.parametrize("timestamp", [lambda n: 0, lambda n: n * 40, lambda n: n * 7919 % 90000])
def test_med20_rtp_timestamps_do_not_matter(timestamp: Callable[[int], int]) -> None:
    demuxer = PsDemuxer()
    units = [
        unit for n, pack in enumerate(ps_stream(CLIP)) for unit in demuxer.feed(pack, timestamp(n), False)
    ]
    _assert_same(units + demuxer.flush(), CLIP)


def _chunks(clip: Sequence[Frame], size: int = 1000) -> list[tuple[bytes, bool]]:
    """Payloads with `True` on the last of each frame."""
    out = []
    for pack in ps_stream(clip):
        pieces = [pack[i : i + size] for i in range(0, len(pack), size)]
        out += [(piece, n == len(pieces) - 1) for n, piece in enumerate(pieces)]
    return out


LONG = video_clip(Codec.H264, frames=100, gop=25)


def test_med22_trusted_markers_end_a_picture_at_once() -> None:
    demuxer = PsDemuxer()
    waiting = []
    got = 0
    sent = 0
    for piece, last in _chunks(LONG):
        got += len(demuxer.feed(piece, marker=last))
        if last:
            sent += 1
            waiting.append(sent - got)
    assert waiting[:25] == [1] * 25  # not trusted: the next start ends it
    assert set(waiting[27:]) == {0}
    assert demuxer.counters.premature == 0


@pytest.mark.parametrize("marked", ["never", "always", "middle"])
def test_med22_markers_that_lie_end_nothing(marked: str) -> None:
    demuxer = PsDemuxer()
    units: list[EsUnit] = []
    for number, (piece, last) in enumerate(_chunks(LONG, 400)):
        mark = {"never": False, "always": True, "middle": not last and number % 2 == 0}[marked]
        units += demuxer.feed(piece, marker=mark)
    _assert_same(units + demuxer.flush(), LONG)
    assert demuxer.counters.premature == 0


def test_med22_markers_that_begin_to_lie_cost_one_picture() -> None:
    """Trusted after a good start; the first lie is caught, counted and marked, and trust is gone."""
    clip = video_clip(Codec.H264, frames=100, gop=25, slices=4)
    demuxer = PsDemuxer()
    units: list[EsUnit] = []
    for number, frame in enumerate(clip):
        slices = [pes(CODE + unit, pts=frame.pts_90k) for unit in nal.split_annexb(frame.payload)]
        for index, piece in enumerate(slices):
            last = index == len(slices) - 1
            lie = number == 40 and index == 1
            units += demuxer.feed((pack_header() if not index else b"") + piece, marker=last or lie)
    units += demuxer.flush()
    assert demuxer.counters.premature == 1
    assert "rtp.marker_inside_picture" in demuxer.quirks
    wrong = [n for n, unit in enumerate(units) if unit.payload not in {frame.payload for frame in clip}]
    assert wrong == [40]
    assert [n for n, unit in enumerate(units) if unit.damaged] == list(range(41, 50))


def test_design3_nothing_waits_longer_than_one_frame_interval() -> None:
    demuxer = PsDemuxer()
    for number, pack in enumerate(ps_stream(LONG[:10])):
        demuxer.feed(pack, now=number * 0.04)
    assert demuxer.deadline == pytest.approx(0.36 + 0.04)
    assert demuxer.flush_after(0.39) == []
    (unit,) = demuxer.flush_after(0.4)
    assert unit.payload == LONG[9].payload
    assert unit.arrival == pytest.approx(0.36)
    assert demuxer.deadline is None
    units = demuxer.feed(ps_stream(LONG[10:12])[0], now=0.5) + demuxer.flush()
    assert [unit.payload for unit in units] == [LONG[10].payload]
    assert demuxer.counters.premature == 0


def test_design3_an_open_pes_is_not_flushed() -> None:
    demuxer = PsDemuxer()
    packs = ps_stream(LONG[:3])
    demuxer.feed(packs[0] + packs[1][:-5], now=1.0)
    assert demuxer.deadline is None
    assert demuxer.flush_after(9.0) == []


def test_design3_a_pause_inside_a_picture_is_found_out() -> None:
    clip = video_clip(Codec.H264, frames=20, gop=10, slices=4)
    demuxer = PsDemuxer()
    units: list[EsUnit] = []
    for frame in clip:
        pieces = [pes(CODE + unit, pts=frame.pts_90k) for unit in nal.split_annexb(frame.payload)]
        at = frame.dts_90k / 90000
        units += demuxer.feed(pack_header() + pieces[0] + pieces[1], now=at)
        if frame is clip[5]:
            units += demuxer.flush_after(at + 1.0)
        units += demuxer.feed(b"".join(pieces[2:]), now=at)
    units += demuxer.flush()
    assert demuxer.counters.premature == 1
    assert [n for n, unit in enumerate(units) if unit.damaged] == [6, 7, 8, 9]


def test_med24_gap_drops_the_broken_picture_and_marks_the_rest() -> None:
    demuxer = PsDemuxer()
    units: list[EsUnit] = []
    for number, pack in enumerate(ps_stream(CLIP)):
        pieces = [pack[i : i + 500] for i in range(0, len(pack), 500)]
        for index, piece in enumerate(pieces):
            if number == 13 and index == min(1, len(pieces) - 1):
                demuxer.gap()
                continue
            units += demuxer.feed(piece)
    units += demuxer.flush()
    kept = [frame for n, frame in enumerate(CLIP) if n != 13]
    assert [unit.payload for unit in units] == [frame.payload for frame in kept]
    assert [unit.damaged for unit in units] == [13 < n < 20 for n in range(30) if n != 13]
    assert (demuxer.counters.gaps, demuxer.counters.dropped_units) == (1, 1)


@pytest.mark.parametrize("clip", [CLIP, HEVC], ids=["h264", "h265"])
def test_f09_any_single_loss_passes_no_broken_picture(clip: tuple[Frame, ...]) -> None:
    payloads = {frame.payload for frame in clip}
    pieces = [
        (n, pack[i : i + 700]) for n, pack in enumerate(ps_stream(clip)) for i in range(0, len(pack), 700)
    ]
    for lost, (broken, _) in enumerate(pieces):
        demuxer = PsDemuxer()
        units: list[EsUnit] = []
        for number, (_, piece) in enumerate(pieces):
            if number == lost:
                demuxer.gap()
                continue
            units += demuxer.feed(piece)
        units += demuxer.flush()
        assert all(unit.payload in payloads for unit in units), lost
        # Whole again at the latest with the next key frame (they come every ten pictures).
        whole = clip[(broken // 10 + 1) * 10 :]
        if whole:
            assert [unit.payload for unit in units][-len(whole) :] == [frame.payload for frame in whole]
            assert not any(unit.damaged for unit in units[-len(whole) :])


@pytest.mark.parametrize("clip", [CLIP, HEVC], ids=["h264", "h265"])
def test_f09_loss_before_the_codec_is_known(clip: tuple[Frame, ...]) -> None:
    packs = ps_stream(clip)
    demuxer = PsDemuxer()
    demuxer.feed(packs[0][:80])
    demuxer.gap()
    units = [unit for pack in packs[1:] for unit in demuxer.feed(pack)] + demuxer.flush()
    assert [unit.payload for unit in units] == [frame.payload for frame in clip[10:]]


def test_f09_loss_inside_sound_drops_that_packet_only() -> None:
    sound = audio_clip(packets=10)
    packs = ps_stream(sound, PsMuxer(video=None, audio=Codec.PCMA, map_policy=MapPolicy.ALWAYS))
    demuxer = PsDemuxer()
    units: list[EsUnit] = []
    for number, pack in enumerate(packs):
        units += demuxer.feed(pack[:100])
        if number == 5:
            demuxer.gap()
        else:
            units += demuxer.feed(pack[100:])
    assert [unit.payload for unit in units] == [f.payload for n, f in enumerate(sound) if n != 5]
    assert [unit.damaged for unit in units] == [n == 6 for n in range(10) if n != 5]


def test_f09_garbage_between_packets_is_passed_over() -> None:
    packs = ps_stream(CLIP)
    demuxer, units = _run([*packs[:8], b"\x12\x34" * 300, *packs[8:]])
    assert demuxer.counters.resyncs == 1
    assert demuxer.counters.skipped_bytes == 600
    assert [u.payload for u in units] == [f.payload for n, f in enumerate(CLIP) if n != 7]
    assert [u.damaged for u in units] == [n in (8, 9) for n in range(30) if n != 7]


def test_f09_zeros_between_packets_are_stuffing() -> None:
    demuxer, units = _run([pack + bytes(50) for pack in ps_stream(CLIP)])
    _assert_same(units, CLIP)
    assert demuxer.counters.resyncs == 0


def test_f09_pes_longer_than_its_payload_costs_one_group() -> None:
    packs = ps_stream(CLIP)
    bad = pack_header() + pes(CLIP[5].payload, pts=CLIP[5].pts_90k, length=len(CLIP[5].payload) + 90)
    demuxer, units = _run([*packs[:5], bad, *packs[6:]])
    assert demuxer.counters.resyncs >= 1
    assert [u.payload for u in units][-20:] == [f.payload for f in CLIP[10:]]
    assert not any(unit.damaged for unit in units[-20:])


def test_med35_parameter_sets_from_the_sdp() -> None:
    clip = video_clip(Codec.H264, frames=30, gop=30)
    bare = [
        replace(
            frame,
            payload=nal.join_annexb(
                [u for u in nal.split_annexb(frame.payload) if u[0] & 0x1F not in (7, 8)]
            ),
        )
        for frame in clip
    ]
    demuxer, units = _run(ps_stream(bare))
    assert units == []
    demuxer = PsDemuxer()
    demuxer.preset(Codec.H264, clip[0].track.parameter_sets)
    _, units = _run(ps_stream(bare), demuxer)
    _assert_same(units, bare)
    assert demuxer.tracks == (clip[0].track,)


def test_med35_missing_parameter_sets_are_named() -> None:
    packs = [pack_header() + pes(CODE + h264_slice(frame_num=n % 16), pts=n * 3600) for n in range(260)]
    demuxer, units = _run(packs)
    assert units == []
    assert demuxer.quirks["ps.no_parameter_sets"] == 1
    assert demuxer.tracks == ()


def test_med36_resolution_changes_in_mid_stream() -> None:
    small = video_clip(Codec.H264, width=160, height=128, frames=10, gop=10)
    demuxer, units = _run(ps_stream(CLIP) + ps_stream(small) + ps_stream(CLIP))
    assert [unit.payload for unit in units] == [f.payload for f in (*CLIP, *small, *CLIP)]
    assert [unit.track.width for unit in units] == [320] * 30 + [160] * 10 + [320] * 30
    assert demuxer.tracks_version == 3
    assert units[30].track.parameter_sets == small[0].track.parameter_sets
    assert not any(unit.damaged for unit in units)


@pytest.mark.parametrize("mapped", [True, False])
def test_med36_codec_changes_in_mid_stream(mapped: bool) -> None:
    policy = MapPolicy.KEY if mapped else MapPolicy.NEVER
    stream = ps_stream(CLIP, PsMuxer(video=Codec.H264, map_policy=policy))
    stream += ps_stream(HEVC, PsMuxer(video=Codec.H265, map_policy=policy))
    stream += ps_stream(CLIP, PsMuxer(video=Codec.H264, map_policy=policy))
    demuxer, units = _run(stream)
    assert [unit.payload for unit in units if unit.codec is Codec.H265] == [f.payload for f in HEVC]
    first = [unit.payload for unit in units if unit.codec is Codec.H264]
    assert first[:29] == [f.payload for f in CLIP[:29]]
    assert first[-30:] == [f.payload for f in CLIP]
    assert demuxer.tracks_version == 3


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_med37_b_frames_keep_both_times(codec: Codec) -> None:
    clip = video_clip(codec, frames=40, gop=20, b_frames=2)
    assert any(frame.pts_90k != frame.dts_90k for frame in clip)
    _, units = _run(ps_stream(clip))
    _assert_same(units, clip)


@pytest.mark.parametrize(("codec", "stream_type"), [(Codec.SVAC, 0x80), (Codec.MPEG4, 0x10)])
def test_med38_opaque_video_is_passed_unharmed(codec: Codec, stream_type: int) -> None:
    payloads = [b"\x00\x00\x01\xb6" + bytes((0x10 if n % 5 else 0x50,)) + b"\x99" * 900 for n in range(10)]
    stream = [
        pack_header() + stream_map({0xE0: stream_type}) + pes(p[:500], pts=n * 3600) + pes(p[500:])
        for n, p in enumerate(payloads)
    ]
    demuxer, units = _run(stream)
    assert [unit.payload for unit in units] == payloads
    assert [unit.pts_90k for unit in units] == [n * 3600 for n in range(10)]
    assert [track.codec for track in demuxer.tracks] == [codec]


def test_med38_opaque_video_without_times_is_cut_at_packs() -> None:
    payloads = [bytes((n,)) * 700 for n in range(1, 9)]
    stream = [pack_header() + stream_map({0xE0: 0x80}) + pes(p) for p in payloads]
    _, units = _run(stream)
    assert [unit.payload for unit in units] == payloads


@pytest.mark.parametrize("timed", [True, False])
def test_med38_opaque_video_after_a_loss(timed: bool) -> None:
    payloads = [bytes((n,)) * 700 for n in range(1, 9)]
    demuxer = PsDemuxer()
    units: list[EsUnit] = []
    for number, payload in enumerate(payloads):
        pack = pack_header() + stream_map({0xE0: 0x80}) + pes(payload, pts=number * 3600 if timed else None)
        units += demuxer.feed(pack[:400])
        if number == 3:
            demuxer.gap()
        else:
            units += demuxer.feed(pack[400:])
    units += demuxer.flush()
    assert [unit.payload for unit in units] == [p for n, p in enumerate(payloads) if n != 3]


def test_med39_encrypted_video_is_named() -> None:
    payload = nal.join_annexb([bytes((0xFF - n,)) + b"\x5c" * 200 for n in range(4)])
    demuxer, units = _run(
        [pack_header() + stream_map({0xE0: 0x1B}) + pes(payload, pts=n) for n in range(300)]
    )
    assert units == []
    assert "ps.video_encrypted" in demuxer.quirks
    assert demuxer.counters.resyncs == 0


def test_med39_encrypted_video_without_start_codes_is_named() -> None:
    demuxer, _ = _run([pack_header() + pes(b"\x5c" * 900, pts=n * 3600) for n in range(300)])
    assert "ps.video_encrypted" in demuxer.quirks


def test_med39_clear_headers_with_senseless_types() -> None:
    """Parameter sets are clear, the slices are not."""
    head = pack_header() + pes(CLIP[0].payload, pts=0)
    demuxer, _ = _run(
        [head] + [pack_header() + pes(CODE + b"\x9d" + b"\x5c" * 99, pts=n) for n in range(150)]
    )
    assert "ps.video_encrypted" in demuxer.quirks


def test_med40_clutter_is_tolerated() -> None:
    def build(frame: Frame) -> bytes:
        units = list(nal.split_annexb(frame.payload))
        body = b"\x00\x00\x00\x01\x09\xf0" + b"\x00\x00\x01\x06\x05\x01\x00\x80"
        body += b"\x00\x00\x01" + units[0] + b"\x00\x00"
        body += b"".join(b"\x00\x00\x00\x00\x01" + unit for unit in units[1:])
        return pes(body + b"\x00\x00\x01\x0c\xff\xff\x80" + b"\x00" * 5, pts=frame.pts_90k)

    demuxer, units = _run(_packs(CLIP, build))
    wanted = [
        nal.join_annexb(
            [b"\x09\xf0", b"\x06\x05\x01\x00\x80", *nal.split_annexb(f.payload), b"\x0c\xff\xff\x80"]
        )
        for f in CLIP
    ]
    assert [unit.payload for unit in units[1:]] == wanted[1:]
    assert units[0].payload == wanted[0][wanted[0].index(CODE + b"\x67") :]  # joined at the first SPS
    assert [unit.pts_90k for unit in units] == [frame.pts_90k for frame in CLIP]
    assert demuxer.counters.errors == 0


@pytest.mark.parametrize("clip", [CLIP, HEVC], ids=["h264", "h265"])
@pytest.mark.parametrize("empty", [b"\x00\x00\x01", b"\x00\x00\x00\x01", b"\x00\x00\x01\x00\x00\x01"])
def test_med40_empty_units_are_left_out(clip: tuple[Frame, ...], empty: bytes) -> None:
    packs = _packs(clip, lambda frame: pes(frame.payload + empty, pts=frame.pts_90k))
    demuxer, units = _run(packs, flush=False)
    assert [unit.payload for unit in units] == [frame.payload for frame in clip[:-1]]
    assert demuxer.counters.errors == 0


def test_med40_sei_behind_the_slices_goes_to_the_next_picture_with_its_own_time() -> None:
    stream = [
        pack_header() + pes(f.payload + b"\x00\x00\x00\x01\x06\x05\x01\x00\x80", pts=f.pts_90k) for f in CLIP
    ]
    _, units = _run(stream)
    assert [unit.pts_90k for unit in units[:30]] == [frame.pts_90k for frame in CLIP]


def test_intra_pictures_without_idr_are_key_frames() -> None:
    sps = h264_sps(width=320, height=240)

    def picture(n: int) -> bytes:
        if n % 5:
            return nal.join_annexb([h264_slice(frame_num=n % 16)])
        intra = b"\x61" + h264_slice(idr=True, frame_num=n % 16)[1:]
        return nal.join_annexb([sps, H264_PPS, intra])

    demuxer, units = _run([pack_header() + pes(picture(n), pts=n * 3600) for n in range(15)])
    assert [unit.key for unit in units] == [n % 5 == 0 for n in range(15)]
    assert not any(unit.damaged for unit in units)
    assert demuxer.quirks["es.key_without_idr"] == 3


def test_rate_is_measured_where_the_parameter_sets_tell_none() -> None:
    sps = h264_sps(width=320, height=240)
    demuxer = PsDemuxer()
    units: list[EsUnit] = []
    for n in range(60):
        head = [sps, H264_PPS] if n % 30 == 0 else []
        payload = nal.join_annexb([*head, h264_slice(idr=n % 30 == 0, frame_num=n % 16)])
        units += demuxer.feed(pack_header() + pes(payload, pts=n * 7200))
    assert units[0].track.fps == 0.0
    assert units[-1].track.fps == 12.5
    assert demuxer.tracks_version == 2
    assert units[-1].track.parameter_sets == units[0].track.parameter_sets


def test_bounds_a_picture_without_end_is_dropped() -> None:
    demuxer = PsDemuxer(max_unit=50_000)
    demuxer.feed(pack_header() + pes(CLIP[0].payload, pts=0))
    units = []
    for _ in range(40):
        units += demuxer.feed(pes(b"\x5c" * 60_000))
    assert demuxer.counters.oversized >= 1
    units += _run(ps_stream(CLIP[10:]), demuxer)[1]
    assert [unit.payload for unit in units] == [frame.payload for frame in CLIP[10:]]


def test_bounds_audio_without_end_is_dropped() -> None:
    demuxer = PsDemuxer()
    demuxer.feed(pack_header() + stream_map({0xC0: 0x90}) + pes(b"", stream_id=0xC0, length=0))
    for _ in range(10):
        demuxer.feed(b"\x5c" * 60_000)
    assert demuxer.counters.oversized >= 1


def test_a_second_video_stream_is_named_and_left_out() -> None:
    stream = [
        pack_header() + pes(f.payload, pts=f.pts_90k) + pes(f.payload, pts=f.pts_90k, stream_id=0xE1)
        for f in CLIP
    ]
    demuxer, units = _run(stream)
    _assert_same(units, CLIP)
    assert "ps.second_video_stream" in demuxer.quirks


def test_wrap_of_the_times_is_kept_raw() -> None:
    top = (1 << 33) - 5 * 3600
    clip = [replace(f, pts_90k=f.pts_90k + top, dts_90k=f.dts_90k + top) for f in CLIP]
    _, units = _run(ps_stream(clip))
    assert [unit.pts_90k for unit in units] == [frame.pts_90k % (1 << 33) for frame in clip]


def test_program_end_code_is_passed_over() -> None:
    demuxer, units = _run([pack + b"\x00\x00\x01\xb9" for pack in ps_stream(CLIP)])
    _assert_same(units, CLIP)
    assert demuxer.counters.errors == 0


def test_mpeg1_system_stream_is_read() -> None:
    """ISO 11172-1 headers, as a file may have them."""
    stream = []
    for frame in CLIP:
        body = b"\xff\xff\x60\x20" + b"\x21" + _times(frame.pts_90k)[1:] + frame.payload
        packet = b"\x00\x00\x01\xe0" + len(body).to_bytes(2, "big") + body
        stream.append(b"\x00\x00\x01\xba\x21\x00\x01\x00\x01\x80\x00\x01" + packet)
    _, units = _run(stream)
    assert [unit.payload for unit in units] == [frame.payload for frame in CLIP]
    assert [unit.pts_90k for unit in units] == [frame.pts_90k for frame in CLIP]


def _times(pts: int) -> bytes:
    return pes(b"", pts=pts)[9:14]
