"""Frames into files and back: what is written is what came, also where the end is missing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from gb28181gw.media.tracks import Codec, Frame, TrackKind
from gb28181gw.recording.reader import SegmentError, fragments, frames_of, measure, read_head
from gb28181gw.recording.segment import Closed, Opened, Piece, SegmentMaker, Written
from tests.support.media import audio_clip, video_clip

START = 1_700_000_000.0


def timed(frames: list[Frame], at: float = START) -> list[tuple[Frame, float]]:
    return [(frame, at + frame.dts_90k / 90_000) for frame in frames]


def clip(codec: Codec = Codec.H264, seconds: int = 8) -> list[Frame]:
    frames = [
        *video_clip(codec, frames=25 * seconds),
        *audio_clip(Codec.AAC, rate=16000, packets=seconds * 16),
    ]
    return sorted(frames, key=lambda frame: frame.dts_90k)


def files_of(pieces: list[Piece]) -> list[tuple[float, float, bytes]]:
    """(start, end, bytes) of each whole file."""
    found = []
    start, data = 0.0, b""
    for piece in pieces:
        if isinstance(piece, Opened):
            start, data = piece.start, piece.data
        elif isinstance(piece, Written):
            data += piece.data
        else:
            found.append((start, piece.end, data))
    return found


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_every_frame_is_in_one_of_the_files_and_reads_as_it_came(codec: Codec, tmp_path: Path) -> None:
    maker = SegmentMaker(segment_s=3, expect_audio=True)
    frames = clip(codec)
    pieces: list[Piece] = []
    for number in range(0, len(frames), 7):
        pieces += maker.take(timed(frames[number : number + 7]))
    files = files_of(pieces + maker.finish())
    assert [(start, end) for start, end, _ in files] == [
        (START, START + 3),
        (START + 3, START + 6),
        (START + 6, START + 8),
    ]
    read: list[Frame] = []
    for start, end, data in files:
        path = tmp_path / "file.mp4"
        path.write_bytes(data)
        head, read_end, length = measure(path)
        assert (head.start, read_end, length) == (start, end, len(data))
        assert {track.codec for track in head.tracks} == {codec, Codec.AAC}
        read += [frame for one in fragments(path, head.length) for frame in frames_of(one, head.tracks)]
    pictures = [frame for frame in frames if frame.track.kind is TrackKind.VIDEO]
    assert [(f.payload, f.key, f.pts_90k - f.dts_90k) for f in read if f.track.kind is TrackKind.VIDEO] == [
        (f.payload, f.key, f.pts_90k - f.dts_90k) for f in pictures
    ]
    sounds = [frame.payload for frame in frames if frame.track.kind is TrackKind.AUDIO]
    assert [f.payload for f in read if f.track.kind is TrackKind.AUDIO] == sounds


def test_f17_whatever_length_a_file_was_cut_to_its_whole_seconds_are_there(tmp_path: Path) -> None:
    maker = SegmentMaker(segment_s=60, expect_audio=True)
    ((_, _, data),) = files_of(maker.take(timed(clip())) + maker.finish())
    path = tmp_path / "cut.mp4"
    path.write_bytes(data)
    head = read_head(path)
    ends = [one.end for one in fragments(path, head.length)]
    assert len(ends) == 8
    for cut in (*range(0, len(data), 9973), *ends, *(end - 1 for end in ends)):
        path.write_bytes(data[:cut])
        if cut < head.length:
            with pytest.raises(SegmentError):
                measure(path)
            continue
        whole = sum(end <= cut for end in ends)
        _, end, length = measure(path)
        assert length == (ends[whole - 1] if whole else head.length)
        assert end == pytest.approx(START + whole, abs=0.1)


def test_a_file_begins_at_a_key_frame_and_without_sound_if_none_comes() -> None:
    maker = SegmentMaker(segment_s=60, expect_audio=True)
    frames = list(video_clip(frames=150))[10:]
    pieces = maker.take(timed(frames)) + maker.finish()
    assert isinstance(pieces[0], Opened)
    assert pieces[0].start == pytest.approx(START + 1)
    assert b"mp4a" not in pieces[0].data


def test_other_parameters_and_sound_that_comes_later_begin_a_new_file() -> None:
    maker = SegmentMaker(segment_s=60, expect_audio=False)
    first = list(video_clip(frames=50))
    changed = [
        replace(frame, dts_90k=frame.dts_90k + 180_000, pts_90k=frame.pts_90k + 180_000)
        for frame in video_clip(frames=50, width=160, height=120)
    ]
    pieces = maker.take(timed([*first, *changed])) + maker.finish()
    heads = [piece for piece in pieces if isinstance(piece, Opened)]
    assert len(heads) == 2
    assert heads[0].form != heads[1].form
    assert [round(piece.end - START, 2) for piece in pieces if isinstance(piece, Closed)] == [2.0, 4.0]

    later = SegmentMaker(segment_s=60, expect_audio=False)
    sound = audio_clip(Codec.AAC, rate=16000, packets=30)
    mixed = sorted([*video_clip(frames=75), *(replace(s, dts_90k=s.dts_90k + 50_000) for s in sound)],
                   key=lambda frame: frame.dts_90k)  # fmt: skip
    heads = [piece for piece in later.take(timed(mixed)) if isinstance(piece, Opened)]
    assert [b"mp4a" in head.data for head in heads] == [False, True]


def test_ses03_a_stream_that_was_away_leaves_a_gap_between_two_files() -> None:
    """Its own clock went on as if nothing had been: the times of arrival tell."""
    maker = SegmentMaker(segment_s=60, expect_audio=False)
    frames = list(video_clip(frames=100))
    files = files_of(
        maker.take(timed(frames[:50])) + maker.take(timed(frames[50:], START + 30)) + maker.finish()
    )
    assert [(round(start - START, 2), round(end - START, 2)) for start, end, _ in files] == [(0, 2), (32, 34)]


def test_files_follow_each_other_without_a_jump_though_the_clocks_drift() -> None:
    maker = SegmentMaker(segment_s=2, expect_audio=False)
    frames = list(video_clip(frames=250))
    drifting = [(frame, START + frame.dts_90k / 90_000 * 1.01) for frame in frames]
    files = files_of(maker.take(drifting) + maker.finish())
    assert len(files) == 5
    for (_, end, _), (start, _, _) in itertools.pairwise(files):
        assert abs(start - end) <= 0.1


def test_what_cannot_be_announced_is_left_out() -> None:
    maker = SegmentMaker(segment_s=2, expect_audio=False)
    assert maker.take(timed(list(audio_clip(Codec.PCMA, packets=20)))) == []
    assert maker.finish() == []
