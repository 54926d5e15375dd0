from __future__ import annotations

from gb28181gw.media.reference.gop import KeptGop, Role
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind

TRACK = Track(kind=TrackKind.VIDEO, codec=Codec.H264)


def frame(*, key: bool = False, size: int = 10) -> Frame:
    return Frame(track=TRACK, pts_90k=0, dts_90k=0, key=key, payload=b"x" * size)


def test_keeps_from_the_last_key_frame_on() -> None:
    gop = KeptGop()
    gop.add(Role.VIDEO, frame())
    gop.add(Role.AUDIO, frame(key=True))
    assert len(gop) == 0, "audio alone begins nothing"
    first, second = frame(key=True), frame(key=True)
    for item in (first, frame(), frame()):
        gop.add(Role.VIDEO, item)
    gop.add(Role.AUDIO, frame(key=True))
    assert len(gop) == 4
    gop.add(Role.VIDEO, second)
    assert [kept for _, kept in gop] == [second]
    assert gop.size_bytes == 10


def test_i10_group_that_outgrows_its_bound_is_given_up_whole() -> None:
    for gop in (KeptGop(max_bytes=100), KeptGop(max_frames=10)):
        gop.add(Role.VIDEO, frame(key=True))
        assert all(gop.add(Role.VIDEO, frame()) for _ in range(9))
        assert not gop.add(Role.VIDEO, frame())
        assert (len(gop), gop.size_bytes) == (0, 0)
        assert gop.add(Role.VIDEO, frame())
        assert len(gop) == 0, "the rest of a broken group is not kept"
        gop.add(Role.VIDEO, frame(key=True))
        assert len(gop) == 1
