"""The order of pictures as their headers tell it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.picture_order import PictureOrder
from tests.support.media import H264_PPS, h264_sps, video_clip

STEP = 3600


@pytest.mark.parametrize("b_frames", [0, 1, 2, 3])
@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_med37_distance_of_neighbours_is_that_of_their_times(codec: Codec, b_frames: int) -> None:
    clip = video_clip(codec, frames=60, gop=20, b_frames=b_frames)
    order = PictureOrder(clip[0].track)
    compared = 0
    for earlier, later in pairwise(clip):
        frames = order.frames_between(earlier.payload, later.payload)
        if later.key or not b_frames:
            assert frames is None
        else:
            assert frames == (later.pts_90k - earlier.pts_90k) / STEP
            compared += 1
    assert compared == (57 if b_frames else 0)
    assert order.is_coded == (b_frames > 0)
    assert order.delay * STEP <= clip[0].pts_90k  # an encoder may wait longer than it needs
    assert (order.delay > 0) == (b_frames > 0)


def test_med37_counts_wrap() -> None:
    """A group of pictures that is longer than the counts reach."""
    clip = video_clip(Codec.H264, frames=200, gop=200, b_frames=2)
    order = PictureOrder(clip[0].track)
    info = nal.parse_h264_sps(clip[0].track.parameter_sets[0])
    assert 1 << info.order_bits < 400
    for earlier, later in pairwise(clip):
        assert (
            order.frames_between(earlier.payload, later.payload) == (later.pts_90k - earlier.pts_90k) / STEP
        )


@pytest.mark.parametrize(
    "track",
    [
        Track(kind=TrackKind.VIDEO, codec=Codec.SVAC),
        Track(kind=TrackKind.VIDEO, codec=Codec.H264),
        Track(kind=TrackKind.VIDEO, codec=Codec.H264, parameter_sets=(b"\x67\x4d",)),
        Track(
            kind=TrackKind.VIDEO, codec=Codec.H264, parameter_sets=(h264_sps(width=64, height=64), H264_PPS)
        ),
        Track(kind=TrackKind.VIDEO, codec=Codec.H265, parameter_sets=(b"\x42\x01\x01",)),
    ],
    ids=["opaque", "unknown", "broken", "order-type-2", "broken-h265"],
)
def test_nothing_is_told(track: Track) -> None:
    order = PictureOrder(track)
    assert (order.delay, order.is_coded) == (0, False)
    assert order.frames_between(b"\0\0\0\1\x41\x9a", b"\0\0\0\1\x41\x9a") is None


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_bounds_slices_that_cannot_be_read(codec: Codec) -> None:
    clip = video_clip(codec, frames=10, b_frames=2)
    sets = clip[0].track.parameter_sets
    order = PictureOrder(replace(clip[0].track, parameter_sets=(*sets[:-1], sets[-1][:2])))
    for broken in (b"", b"\0\0\0\1", clip[3].payload[:6], b"\0\0\1\x06\x05"):
        assert order.frames_between(clip[2].payload, broken) is None
        assert order.frames_between(broken, clip[2].payload) is None
