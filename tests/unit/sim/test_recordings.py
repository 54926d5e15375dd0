"""What a simulated recorder holds, and how it plays it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.content import Loop, Picture
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.recordings import Recorded, RecordFile, embedded_time, files, with_time
from gb28181gw.sim.replay import Steering, read_steering

NOW = 1_714_521_600.0  # 2024-05-01T00:00:00Z
KEY = b"\0\0\0\1\x67sps\0\0\0\1\x68pps\0\0\0\1\x65slice"
INTER = b"\0\0\0\1\x41slice"


def loop() -> Loop:
    pictures = tuple(
        Picture(KEY if number % 50 == 0 else INTER, number % 50 == 0, 0) for number in range(250)
    )
    return Loop(video=Codec.H264, audio=None, fps=Fraction(25), width=64, height=64, pictures=pictures)


def recorded(start: int, end: int, *parts: tuple[int, int]) -> Recorded:
    held = [RecordFile(start=begin, end=behind) for begin, behind in parts or ((start, end),)]
    return Recorded(loop(), held, start, end)


def test_files_cover_the_last_hours_without_a_hole() -> None:
    found = files(NOW - 3600, NOW + 60, now=NOW - 100, hours=24, file_s=600, quirks=frozenset())
    assert (found[0].start, found[-1].end) == (int(NOW) - 3600, int(NOW) - 100)
    assert all(before.end == after.start for before, after in pairwise(found))
    assert files(NOW - 90_000, NOW - 88_000, now=NOW, hours=24, file_s=600, quirks=frozenset()) == []


def test_pb13_each_file_lacks_its_end() -> None:
    found = files(NOW - 1200, NOW, now=NOW, hours=24, file_s=600, quirks=frozenset({Quirk.PB_13}))
    assert [after.start - before.end for before, after in pairwise(found)] == [5]


def test_a_playback_begins_at_the_key_frame_before_and_ends_before_the_end() -> None:
    span = recorded(int(NOW) + 3, int(NOW) + 5)
    numbers = [span.begin(span.spans[0][0])]
    while (following := span.following(numbers[-1])) is not None:
        numbers.append(following)
    times = [embedded_time(span.access(number).data) for number in numbers]
    begin = datetime(2024, 5, 1, 0, 0, 2, tzinfo=UTC)
    assert times == [begin + timedelta(milliseconds=40 * number) for number in range(75)]


def test_what_is_missing_is_left_out_up_to_a_key_frame() -> None:
    start = int(NOW)
    span = recorded(start, start + 20, (start, start + 5), (start + 9, start + 20))
    last = span.number_at(start + 5) - 1
    following = span.following(last)
    assert following is not None
    assert span.time_of(following) == start + 10
    assert span.begins_file(last, following)


def test_backwards_goes_by_groups() -> None:
    start = int(NOW)
    span = recorded(start, start + 20)
    at = span.number_at(start + 5)
    number = span.key_at_or_before(at)
    shown = []
    while number is not None and len(shown) < 120:
        shown.append(number)
        number = span.following(number, backwards=True)
    first = span.number_at(start + 4)
    assert shown == [*range(first, first + 50), *range(first - 50, first), *range(first - 100, first - 80)]


@pytest.mark.parametrize(("codec", "slice_header"), [(Codec.H264, b"\x65"), (Codec.H265, b"\x26\x01")])
def test_the_time_stands_before_the_first_slice(codec: Codec, slice_header: bytes) -> None:
    sets = b"\0\0\0\1\x67sps" if codec is Codec.H264 else b"\0\0\0\1\x40\x01vps"
    picture = sets + b"\0\0\0\1" + slice_header + b"data"
    stamped = with_time(picture, codec, Fraction(int(NOW)) + Fraction(1, 25))
    assert embedded_time(stamped) == datetime(2024, 5, 1, 0, 0, 0, 40_000, tzinfo=UTC)
    assert stamped.startswith(sets)
    assert stamped.endswith(b"\0\0\0\1" + slice_header + b"data")
    assert embedded_time(picture) is None


def test_steering_is_read() -> None:
    assert read_steering(b"PLAY RTSP/1.0\r\nCSeq: 4\r\nScale: -2.0\r\nRange: npt=12.5-\r\n\r\n") == Steering(
        method="PLAY", version="RTSP/1.0", cseq="4", scale=-2.0, npt=12.5
    )
    assert read_steering(b"PLAY MANSRTSP/1.0\r\nRange: npt=now-\r\n") == Steering(
        method="PLAY", version="MANSRTSP/1.0", cseq=""
    )
    assert read_steering(b"HELLO") is None
    assert read_steering(b"PLAY RTSP/1.0\r\nScale: fast\r\n") is None
