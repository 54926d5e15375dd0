"""Where a recording stands, told by two clocks."""

from __future__ import annotations

import pytest

from gb28181gw.media.engine import StreamCounters
from gb28181gw.sessions.timeline import Timeline


class Picture:
    """A stream whose pictures the test lets pass."""

    def __init__(self, span_s: float = 600.0) -> None:
        self.line = Timeline(span_s)
        self.now = 100.0
        self.output = 0
        self.device = 5_000_000
        self.pictures = 1
        self.look()

    def look(self) -> None:
        counters = StreamCounters(pictures=self.pictures, picture_90k=self.output, device_90k=self.device)
        self.line.observe(self.now, counters, 25.0)

    def run(self, seconds: float, scale: float = 1.0, times: float | None = None) -> None:
        """Pictures of 0.25 s steps at `scale`, their times at `times`."""
        for _ in range(round(seconds * 4)):
            step = round(90_000 * 0.25 * (scale if times is None else times))
            self.now += 0.25
            self.output += step
            self.device += step
            self.pictures += round(25 * 0.25 * scale)
            self.look()

    def jump(self, seconds: float) -> None:
        """The device's time jumps; the output goes on by one picture."""
        self.output += 3600
        self.device += round(seconds * 90_000)
        self.now += 0.04
        self.pictures += 1
        self.look()


def test_position_and_rate_follow_the_pictures() -> None:
    picture = Picture()
    picture.run(10)
    assert picture.line.position_s == pytest.approx(10)
    assert picture.line.rate == pytest.approx(1, rel=0.05)
    picture.line.turn(backwards=False)
    picture.run(5, scale=4)
    assert picture.line.position_s == pytest.approx(30)
    assert picture.line.rate == pytest.approx(4, rel=0.05)


def test_pb13_sound_from_before_the_pictures_moves_no_place() -> None:
    line = Timeline(600.0)
    line.observe(1.0, StreamCounters(pictures=5, picture_90k=27_000 + 4 * 3600, device_90k=77_000), 25.0)
    assert line.position_s == pytest.approx(0.16)


def test_pb13_what_the_list_says_is_missing_is_a_gap() -> None:
    picture = Picture()
    picture.run(5.0)
    picture.line.leap(10.0)
    assert picture.line.gaps == [(pytest.approx(5.04), pytest.approx(4.96))]
    assert picture.line.position_s == 10.0


def test_the_rate_of_a_stream_that_stands_is_nothing() -> None:
    picture = Picture()
    assert picture.line.rate is None
    picture.run(3)
    for _ in range(12):
        picture.now += 0.25
        picture.look()
    assert picture.line.rate == 0


def test_a_seek_is_where_the_device_jumps_after_it_was_asked() -> None:
    picture = Picture()
    picture.run(5)
    picture.line.expect_seek(300)
    picture.run(1)
    assert picture.line.position_s == pytest.approx(6)
    picture.jump(294)
    assert (picture.line.position_s, picture.line.jumps, picture.line.gaps) == (300, 1, [])
    picture.run(2)
    assert picture.line.position_s == pytest.approx(302)


def test_pb13_a_forward_jump_that_nobody_asked_for_is_a_gap() -> None:
    picture = Picture()
    picture.run(5)
    picture.jump(20)
    assert picture.line.position_s == pytest.approx(25)
    [(at, seconds)] = picture.line.gaps
    assert at == pytest.approx(5)
    assert seconds == pytest.approx(19.96)


@pytest.mark.parametrize("seconds", [4000, -4000])
def test_med21_a_jump_to_nowhere_moves_nothing(seconds: float) -> None:
    picture = Picture()
    picture.run(5)
    picture.jump(seconds)
    assert picture.line.position_s == pytest.approx(5.04)
    assert picture.line.gaps == []


def test_backwards_counts_down() -> None:
    picture = Picture()
    picture.run(60)
    picture.line.turn(backwards=True)
    for _ in range(5):
        picture.jump(-4)  # to the group before
        picture.output += 2 * 90_000
        picture.device += 2 * 90_000
        picture.now += 2
        picture.look()
    assert picture.line.position_s == pytest.approx(60 - 5 * 2)
    assert picture.line.gaps == []


def test_pb08_more_pictures_with_times_that_go_on_at_1_are_a_rate_too() -> None:
    picture = Picture()
    picture.run(5, scale=4, times=1)
    assert picture.line.rate == pytest.approx(4, rel=0.1)


def test_after_a_new_invite_the_place_is_kept() -> None:
    picture = Picture()
    picture.run(10)
    picture.line.restart(10)
    picture.device = 77
    picture.output += 900_000  # the pause between
    picture.look()
    picture.run(1)
    assert picture.line.position_s == pytest.approx(11)
