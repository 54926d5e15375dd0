from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import aac, nal
from gb28181gw.media.wire.ts_mux import TsMuxer
from tests.support import mp4
from tests.support.media import audio_clip, video_clip

H264 = video_clip(Codec.H264)
H264_B = video_clip(Codec.H264, b_frames=2)
H265 = video_clip(Codec.H265)
AAC = audio_clip(Codec.AAC)
PCMA = audio_clip(Codec.PCMA)
VIDEO, AUDIO = 0x100, 0x101


def packets_of(muxer: TsMuxer, frames: list[Frame]) -> list[mp4.TsPacket]:
    data = b"".join(muxer.mux(frame) for frame in frames)
    assert len(data) % 188 == 0
    packets = mp4.ts_packets(data)
    mp4.check_continuity(packets)
    return packets


@pytest.mark.parametrize(("frames", "stream_type"), [(H264, 0x1B), (H264_B, 0x1B), (H265, 0x24)])
def test_pictures(frames: list[Frame], stream_type: int) -> None:
    track = frames[0].track
    packets = packets_of(TsMuxer([track], base_90k=0), frames)
    units = mp4.pes_units(packets)
    assert [(u.pts, u.dts) for u in units] == [(f.pts_90k + 90_000, f.dts_90k + 90_000) for f in frames]
    assert [unit.random_access for unit in units] == [frame.key for frame in frames]
    assert all(unit.pcr == unit.dts - 9_000 for unit in units)
    assert dict(mp4.stream_types(packets)) == {0: {VIDEO: stream_type}}
    for unit, frame in zip(units, frames, strict=True):
        first = next(nal.split_annexb(unit.payload))
        assert nal.nal_type(track.codec, first) == (9 if track.codec is Codec.H264 else 35)
        assert list(nal.split_annexb(unit.payload))[-1] == list(nal.split_annexb(frame.payload))[-1]


def test_tables_stand_before_key_frames_and_every_half_second() -> None:
    clip = video_clip(Codec.H264, frames=100, gop=50)
    packets = packets_of(TsMuxer([clip[0].track], base_90k=0), clip)
    places = []
    for first, second in pairwise([p for p in packets if p.starts]):
        if first.pid == 0x1000:
            assert second.pid == VIDEO
            places.append((second.pcr or 0) - 81_000)
    assert places[0] == 0
    assert 50 * 3600 in places
    assert all(b - a <= 45_000 + 3_600 for a, b in pairwise(places))


def test_aac_has_adts_and_g711_its_stream_type() -> None:
    for clip, kind in ((AAC, 0x0F), (PCMA, 0x90), (audio_clip(Codec.PCMU), 0x91)):
        tracks = [H264[0].track, clip[0].track]
        frames = sorted([*H264, *clip], key=lambda frame: frame.dts_90k)
        packets = packets_of(TsMuxer(tracks, base_90k=0), frames)
        assert mp4.stream_types(packets)[0] == (0, {VIDEO: 0x1B, AUDIO: kind})
        sounds = [unit for unit in mp4.pes_units(packets) if unit.pid == AUDIO]
        assert len(sounds) == len(clip)
        assert all(unit.pcr is None for unit in sounds)
        head = 7 if kind == 0x0F else 0
        assert [unit.payload[head:] for unit in sounds] == [frame.payload for frame in clip]
        if head:
            header = aac.parse_adts(sounds[0].payload)
            assert header is not None
            assert header.frame_size == len(sounds[0].payload)


def test_sound_alone_carries_the_clock() -> None:
    packets = packets_of(TsMuxer([AAC[0].track], base_90k=0), AAC)
    assert all(unit.pcr == unit.dts - 9_000 for unit in mp4.pes_units(packets))


def test_med17_late_sound_is_a_new_version_of_the_map() -> None:
    packets = packets_of(
        TsMuxer([H264[0].track]), [H264[0], replace(AAC[0], dts_90k=3600, pts_90k=3600), H264[1]]
    )
    assert mp4.stream_types(packets) == [(0, {VIDEO: 0x1B}), (1, {VIDEO: 0x1B, AUDIO: 0x0F})]


def test_med36_another_codec_is_a_new_version_of_the_map() -> None:
    muxer = TsMuxer([H264[0].track])
    packets = packets_of(muxer, [H264[0], replace(H265[0], dts_90k=9000, pts_90k=9000)])
    assert mp4.stream_types(packets) == [(0, {VIDEO: 0x1B}), (1, {VIDEO: 0x24})]
    assert not muxer.stale
    assert muxer.fits([H264[0].track])


@pytest.mark.parametrize("size", [*range(1, 400, 7), 150, 151, 152, 153, 154, 155, 156, 157, 158, 70_000])
def test_units_of_every_size_fill_their_packets(size: int) -> None:
    frame = replace(PCMA[0], payload=b"x" * min(size, 60_000))
    units = mp4.pes_units(packets_of(TsMuxer([H264[0].track]), [frame]))
    assert units[0].payload == frame.payload
    picture = replace(H264[1], payload=nal.START_CODE + b"\x41" + b"\xab" * size)
    units = mp4.pes_units(packets_of(TsMuxer(), [picture]))
    assert units[0].payload.endswith(picture.payload)


def test_key_frames_without_parameter_sets_get_them() -> None:
    sets = list(H264[0].track.parameter_sets)
    slices = [u for u in nal.split_annexb(H264[0].payload) if u[0] & 0x1F == nal.H264_IDR]
    for lead in ([], [b"\x09\xf0"]):
        frame = replace(H264[0], payload=nal.join_annexb([*lead, *slices]))
        (unit,) = mp4.pes_units(packets_of(TsMuxer(), [frame]))
        assert list(nal.split_annexb(unit.payload)) == [b"\x09\xf0", *sets, *slices]


def test_one_that_skipped_is_told_that_counters_jump() -> None:
    muxer = TsMuxer([H264[0].track])
    before = muxer.mux(H264[0])
    for frame in H264[1:25]:
        muxer.mux(frame)
    key = muxer.mux(H264[25])
    packets = mp4.ts_packets(before + muxer.configuration() + key)
    mp4.check_continuity(packets)
    assert {packet.pid for packet in packets if packet.discontinuity} == {0, 0x100, 0x1000}


def test_times_never_go_back_and_wrap_at_33_bits() -> None:
    muxer = TsMuxer(base_90k=0)
    near = (1 << 33) - 90_000 - 1800
    pictures = [replace(H264[0], dts_90k=at, pts_90k=at) for at in (near, near + 3600, near, near + 7200)]
    sounds = [replace(PCMA[0], dts_90k=at, pts_90k=at) for at in (near, near - 1, near + 3600)]
    units = mp4.pes_units(packets_of(muxer, [*pictures, *sounds]))
    times = [unit.dts for unit in units if unit.pid == VIDEO]
    assert times == [(1 << 33) - 1800, 1800, 1801, 5400]
    assert len([unit for unit in units if unit.pid == AUDIO]) == 2


def test_what_has_no_place() -> None:
    muxer = TsMuxer()
    svac = Track(kind=TrackKind.VIDEO, codec=Codec.SVAC)
    assert muxer.mux(replace(H264[0], track=svac)) == b""
    assert muxer.mux(replace(H264[0], payload=b"no start code")) == b""
    assert muxer.mux(replace(AAC[0], payload=b"x" * 9000)) == b""
    assert muxer.mux(replace(AAC[0], track=replace(AAC[0].track, parameter_sets=(b"\xf8\x00",)))) == b""
