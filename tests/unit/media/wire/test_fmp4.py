from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.exceptions import ParameterSetError
from gb28181gw.media.wire.flv import length_prefixed
from gb28181gw.media.wire.fmp4 import Fmp4Muxer, Sample, codec_string, fragment, init_segment
from tests.support import mp4
from tests.support.media import audio_clip, video_clip

H264 = video_clip(Codec.H264)
H264_B = video_clip(Codec.H264, b_frames=2)
H265 = video_clip(Codec.H265)
AAC = audio_clip(Codec.AAC)
PCMA = audio_clip(Codec.PCMA)


def muxed(muxer: Fmp4Muxer, frames: list[Frame]) -> bytes:
    return muxer.header() + b"".join(muxer.mux(frame) for frame in frames)


@pytest.mark.parametrize(("frames", "entry", "box"), [(H264, b"avc1", b"avcC"), (H265, b"hvc1", b"hvcC")])
def test_initialisation_segment(frames: list[Frame], entry: bytes, box: bytes) -> None:
    track = frames[0].track
    data = init_segment((AAC[0].track, track))
    assert [kind for kind, _ in mp4.boxes(data)] == ["ftyp", "moov"]
    video, audio = mp4.find(data, "moov/trak/mdia/minf/stbl/stsd")
    assert (video[12:16], audio[12:16]) == (entry, b"mp4a")
    make = nal.avcc if track.codec is Codec.H264 else nal.hvcc
    assert video.endswith(box + make(track.parameter_sets))
    assert audio.endswith(AAC[0].track.parameter_sets[0] + b"\x06\x01\x02")
    assert [body[15] for body in mp4.find(data, "moov/trak/tkhd")] == [1, 2]
    assert [body[7] for body in mp4.find(data, "moov/mvex/trex")] == [1, 2]
    size = mp4.find(data, "moov/trak/tkhd")[0][-8:]
    assert size == (320 << 16).to_bytes(4, "big") + (240 << 16).to_bytes(4, "big")


@pytest.mark.parametrize("frames", [H264, H264_B, H265])
def test_a_fragment_a_frame(frames: list[Frame]) -> None:
    muxer = Fmp4Muxer([frames[0].track], base_90k=0)
    found = mp4.stream_samples(muxed(muxer, frames))
    assert [sample.data for sample in found] == [length_prefixed(frame.payload) for frame in frames]
    assert [(sample.dts, sample.pts) for sample in found] == [(f.dts_90k, f.pts_90k) for f in frames]
    assert [sample.is_sync for sample in found] == [frame.key for frame in frames]
    assert {sample.duration for sample in found} == {3600}


def test_aac_beside_pictures_keeps_its_own_time() -> None:
    muxer = Fmp4Muxer([H264[0].track, AAC[0].track])
    frames = sorted([*H264, *AAC], key=lambda frame: frame.dts_90k)
    sound = [s for s in mp4.stream_samples(muxed(muxer, frames)) if s.track_id == 2]
    assert [sample.data for sample in sound] == [frame.payload for frame in AAC]
    assert all(sample.is_sync for sample in sound)
    rate = AAC[0].track.sample_rate
    assert {sample.duration for sample in sound} == {1024 * 90_000 // rate}


def test_g711_has_no_place() -> None:
    muxer = Fmp4Muxer([H264[0].track, PCMA[0].track])
    assert len(mp4.find(muxer.header(), "moov/trak")) == 1
    assert muxer.mux(PCMA[0]) == b""
    assert not muxer.stale
    assert Fmp4Muxer([PCMA[0].track]).header() == b""


def test_duration_covers_the_longest_recent_distance() -> None:
    muxer = Fmp4Muxer([H264[0].track])
    times = [0, 3600, 7200, 25200, 28800, *range(32400, 32400 + 3600 * 60, 3600)]
    data = b"".join(muxer.mux(replace(H264[0], dts_90k=at, pts_90k=at)) for at in times)
    found = mp4.stream_samples(data)
    durations = [sample.duration for sample in found]
    assert durations[:4] == [3600, 3600, 3600, 18000]
    assert all(3600 <= after <= before for before, after in pairwise(durations[3:]))
    assert durations[-1] < 3900


def test_times_never_go_back() -> None:
    muxer = Fmp4Muxer([H264[0].track, AAC[0].track], base_90k=90_000)
    frames = [replace(H264[0], dts_90k=at, pts_90k=at) for at in (90_000, 93_600, 93_600, 90_000, 97_200)]
    sounds = [replace(AAC[0], dts_90k=at, pts_90k=at) for at in (80_000, 90_000, 90_000, 95_000)]
    found = mp4.stream_samples(b"".join(muxer.mux(frame) for frame in [*frames, *sounds]))
    assert [sample.dts for sample in found if sample.track_id == 1] == [0, 3600, 3601, 3602, 7200]
    assert [sample.dts for sample in found if sample.track_id == 2] == [0, 5000]


def test_med36_new_parameter_sets_bring_a_new_initialisation_segment() -> None:
    small = video_clip(Codec.H264, width=160, height=120)
    muxer = Fmp4Muxer([H264[0].track])
    assert muxer.configuration() == b""
    kinds = [kind for kind, _ in mp4.boxes(muxed(muxer, [H264[0], small[0], small[1]]))]
    assert kinds == ["ftyp", "moov", "moof", "mdat", "ftyp", "moov", "moof", "mdat", "moof", "mdat"]
    assert not muxer.stale
    assert muxer.configuration() == muxer.header() == init_segment([small[0].track])
    assert muxer.fits([small[0].track])


def test_med36_another_codec_ends_it_and_late_sound_is_left_out() -> None:
    muxer = Fmp4Muxer([H264[0].track])
    assert muxer.mux(AAC[0]) == b""
    assert not muxer.stale
    assert muxer.fits([H264[0].track])
    assert not muxer.fits([H264[0].track, AAC[0].track])
    assert muxer.mux(H265[0]) == b""
    assert muxer.stale
    assert not muxer.fits([H264[0].track])


def test_fragment_of_several_samples_and_tracks() -> None:
    pictures = [
        Sample(
            dts_90k=900 + i * 3600, pts_90k=900 + i * 3600, duration_90k=3600, key=not i, data=bytes([i]) * 9
        )
        for i in range(3)
    ]
    sounds = [Sample(dts_90k=500, pts_90k=500, duration_90k=11520, key=True, data=b"sound")]
    data = fragment(7, {TrackKind.VIDEO: pictures, TrackKind.AUDIO: sounds})
    (moof, mdat) = (body for _, body in mp4.boxes(data))
    found = mp4.samples(moof, mdat)
    assert [(s.track_id, s.dts, s.data) for s in found] == [
        *((1, p.dts_90k, p.data) for p in pictures),
        (2, 500, b"sound"),
    ]
    assert int.from_bytes(mp4.find(moof, "mfhd")[0][4:], "big") == 7


@pytest.mark.parametrize(
    ("track", "codecs"),
    [
        (H264[0].track, "avc1.42C00D"),
        (H265[0].track, "hvc1.1.6.L60.90"),
        (AAC[0].track, "mp4a.40.2"),
    ],
)
def test_codecs_parameter(track: Track, codecs: str) -> None:
    assert codec_string(track) == codecs


def test_track_that_cannot_be_announced() -> None:
    for track in (
        replace(H264[0].track, parameter_sets=()),
        replace(AAC[0].track, parameter_sets=()),
        replace(AAC[0].track, parameter_sets=(b"\x11" * 100,)),
    ):
        assert Fmp4Muxer([track]).header() == b""
        with pytest.raises(ParameterSetError):
            init_segment([track])
