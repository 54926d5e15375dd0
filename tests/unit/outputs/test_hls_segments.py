from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.outputs import hls_segments
from gb28181gw.outputs.hls_playlist import parse_name, render
from gb28181gw.outputs.hls_segments import Segmenter
from tests.support import mp4
from tests.support.media import audio_clip, interleave, video_clip

H264 = video_clip(Codec.H264, frames=200, gop=50)
AAC = audio_clip(Codec.AAC)
PCMA = audio_clip(Codec.PCMA)


def fed(
    frames: Sequence[Frame], *, expect_audio: bool = False, segmenter: Segmenter | None = None
) -> Segmenter:
    """One frame at a time, at the time that it tells."""
    made = segmenter or Segmenter(expect_audio=expect_audio)
    for frame in frames:
        made.take([frame], frame.dts_90k / 90_000, 1_700_000_000 + frame.dts_90k / 90_000)
    return made


def moved(frames: Sequence[Frame], at_90k: int) -> list[Frame]:
    return [replace(f, dts_90k=f.dts_90k + at_90k, pts_90k=f.pts_90k + at_90k) for f in frames]


def pictures(segmenter: Segmenter) -> list[mp4.Sample]:
    data = b"".join(part.data for segment in segmenter.segments for part in segment.parts)
    return [sample for sample in mp4.stream_samples(data) if sample.track_id == 1]


def playlist(segmenter: Segmenter) -> list[str]:
    return render(segmenter, lambda _: "token=t").decode().splitlines()


def test_segments_begin_at_key_frames_and_parts_keep_to_the_target() -> None:
    segmenter = fed(H264)
    assert segmenter.ready
    assert (segmenter.target_s, segmenter.part_target_s) == (2, 0.5)
    assert [segment.is_complete for segment in segmenter.segments] == [True, True, True, False]
    for segment in list(segmenter.segments)[:3]:
        assert segment.duration_s == 2.0
        assert [round(part.duration_s, 2) for part in segment.parts] == [0.48, 0.48, 0.48, 0.48, 0.08]
        assert [part.is_independent for part in segment.parts] == [True, False, False, False, False]
        assert not segment.has_discontinuity
    found = pictures(segmenter)
    assert [sample.dts for sample in found] == [3600 * n for n in range(len(found))]
    assert {sample.duration for sample in found} == {3600}


def test_nothing_is_promised_before_a_segment_is_whole() -> None:
    segmenter = fed(H264[:50])
    assert not segmenter.ready
    fed(H264[50:52], segmenter=segmenter)
    assert segmenter.ready


def test_beginning_waits_for_the_sound_that_will_come() -> None:
    segmenter = Segmenter(expect_audio=True)
    fed(interleave(H264[:25], PCMA[:25]), segmenter=segmenter)
    assert not segmenter.inits
    fed(AAC[:1], segmenter=segmenter)
    assert len(mp4.find(segmenter.inits[1], "moov/trak")) == 2
    fed(interleave(H264[25:75], AAC[1:20]), segmenter=segmenter)
    data = b"".join(part.data for part in segmenter.segments[0].parts)
    assert {sample.track_id for sample in mp4.stream_samples(data)} == {1, 2}


def test_sound_that_does_not_come_is_not_waited_for_long() -> None:
    segmenter = fed(H264[:110], expect_audio=True)
    assert len(mp4.find(segmenter.inits[1], "moov/trak")) == 1
    assert segmenter.ready
    assert [sample.dts for sample in pictures(segmenter)][:3] == [0, 3600, 7200]


def test_med17_late_sound_begins_with_a_discontinuity() -> None:
    segmenter = fed(H264[:60])
    fed(interleave(H264[60:160], moved(AAC[:40], 60 * 3600)), segmenter=segmenter)
    first, second, third = list(segmenter.segments)[:3]
    assert (first.init, second.init, third.init) == (1, 1, 2)
    assert third.has_discontinuity
    assert len(mp4.find(segmenter.inits[2], "moov/trak")) == 2
    assert "#EXT-X-DISCONTINUITY" in playlist(segmenter)
    assert len([line for line in playlist(segmenter) if line.startswith("#EXT-X-MAP")]) == 2


def test_med36_another_picture_begins_with_a_discontinuity() -> None:
    small = moved(video_clip(Codec.H264, width=160, height=120, frames=60, gop=50), 100 * 3600)
    segmenter = fed([*H264[:100], *small])
    assert [segment.init for segment in segmenter.segments] == [1, 1, 2, 2]
    assert [segment.has_discontinuity for segment in segmenter.segments] == [False, False, True, False]


def test_gap_in_time_begins_with_a_discontinuity_at_the_next_key_frame() -> None:
    later = moved(H264[25:125], 900_000)
    segmenter = fed([*H264[:60], *later])
    found = pictures(segmenter)
    assert all(sample.duration == 3600 for sample in found)
    jumps = [b.dts - a.dts for a, b in pairwise(found) if b.dts - a.dts != 3600]
    assert len(jumps) == 1
    flags = [segment.has_discontinuity for segment in segmenter.segments]
    assert flags.count(True) == 1


def test_key_frames_that_become_rare_do_not_break_the_promise() -> None:
    sparse = [replace(frame, key=False) for frame in moved(H264, 200 * 3600)]
    segmenter = fed([*H264, *sparse])
    assert segmenter.target_s == 2
    complete = [segment for segment in segmenter.segments if segment.is_complete]
    assert len(complete) == 7
    assert all(round(segment.duration_s) <= 2 for segment in complete)
    assert not complete[-1].parts[0].is_independent


def test_i10_old_segments_go() -> None:
    segmenter = Segmenter(expect_audio=False)
    for turn in range(20):
        fed(moved(H264[:50], turn * 180_000), segmenter=segmenter)
    assert len(segmenter.segments) == hls_segments.KEPT + 1
    lines = playlist(segmenter)
    listed = [int(match[1]) for line in lines if (match := re.match(r"segment-(\d+)\.m4s", line))]
    assert listed == list(range(19 - hls_segments.LISTED, 19))
    assert f"#EXT-X-MEDIA-SEQUENCE:{listed[0]}" in lines
    assert segmenter.find(listed[0] - 1) is not None
    assert segmenter.find(0) is None
    assert segmenter.find(99) is None


def test_playlist() -> None:
    segmenter = fed(H264[:115])
    assert playlist(segmenter) == [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        "#EXT-X-TARGETDURATION:2",
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.500",
        "#EXT-X-PART-INF:PART-TARGET=0.500",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-DISCONTINUITY-SEQUENCE:0",
        '#EXT-X-MAP:URI="init-1.mp4?token=t"',
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.000Z",
        '#EXT-X-PART:DURATION=0.48000,URI="part-0-0.m4s?token=t",INDEPENDENT=YES',
        '#EXT-X-PART:DURATION=0.48000,URI="part-0-1.m4s?token=t"',
        '#EXT-X-PART:DURATION=0.48000,URI="part-0-2.m4s?token=t"',
        '#EXT-X-PART:DURATION=0.48000,URI="part-0-3.m4s?token=t"',
        '#EXT-X-PART:DURATION=0.08000,URI="part-0-4.m4s?token=t"',
        "#EXTINF:2.00000,",
        "segment-0.m4s?token=t",
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:22.000Z",
        '#EXT-X-PART:DURATION=0.48000,URI="part-1-0.m4s?token=t",INDEPENDENT=YES',
        '#EXT-X-PART:DURATION=0.48000,URI="part-1-1.m4s?token=t"',
        '#EXT-X-PART:DURATION=0.48000,URI="part-1-2.m4s?token=t"',
        '#EXT-X-PART:DURATION=0.48000,URI="part-1-3.m4s?token=t"',
        '#EXT-X-PART:DURATION=0.08000,URI="part-1-4.m4s?token=t"',
        "#EXTINF:2.00000,",
        "segment-1.m4s?token=t",
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:24.000Z",
        '#EXT-X-PART:DURATION=0.48000,URI="part-2-0.m4s?token=t",INDEPENDENT=YES',
        '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part-2-1.m4s?token=t"',
    ]
    segmenter.end()
    assert playlist(segmenter)[-1] == "#EXT-X-ENDLIST"
    assert pictures(segmenter)[-1].dts == 114 * 3600


def test_discontinuities_are_counted_when_they_leave() -> None:
    segmenter = Segmenter(expect_audio=False)
    small = video_clip(Codec.H264, width=160, height=120, frames=50, gop=50)
    for turn in range(24):
        clip = H264[:50] if turn % 4 else small
        fed(moved(clip, turn * 180_000), segmenter=segmenter)

    def number(name: str) -> int:
        return int(
            next(line for line in playlist(segmenter) if line.startswith(f"#EXT-X-{name}:")).split(":")[1]
        )

    first = segmenter.find(number("MEDIA-SEQUENCE"))
    assert first is not None
    assert number("DISCONTINUITY-SEQUENCE") == first.init - 1
    assert min(segmenter.inits) == segmenter.segments[0].init


def test_names() -> None:
    assert parse_name("init-3.mp4") == ("init", 3, 0)
    assert parse_name("segment-17.m4s") == ("segment", 17, 0)
    assert parse_name("part-17-2.m4s") == ("part", 17, 2)
    assert parse_name("part-17.m4s") is None
    assert parse_name("segment--1.m4s") is None
