"""Device times to stream time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.media.wire.clock import JUMP_90K, StreamClock
from gb28181gw.media.wire.units import EsUnit
from tests.support.media import video_clip

VIDEO = Track(kind=TrackKind.VIDEO, codec=Codec.H264)
VIDEO_25 = Track(kind=TrackKind.VIDEO, codec=Codec.H264, fps=25.0)
AUDIO = Track(kind=TrackKind.AUDIO, codec=Codec.PCMA, sample_rate=8000, channels=1)
STEP = 3600
MODULUS = 1 << 33


def _video(
    pts: int | None,
    arrival: float = 0.0,
    *,
    dts: int | None = None,
    rtp: int | None = None,
    track: Track = VIDEO,
) -> EsUnit:
    return EsUnit(
        track=track,
        stream_id=0xE0,
        pts_90k=None if pts is None else pts % MODULUS,
        dts_90k=None if pts is None else (pts if dts is None else dts) % MODULUS,
        key=False,
        payload=b"",
        rtp_timestamp=rtp,
        arrival=arrival,
    )


def _audio(pts: int | None, arrival: float = 0.0, *, rtp: int | None = None) -> EsUnit:
    return EsUnit(
        track=AUDIO,
        stream_id=0xC0,
        pts_90k=None if pts is None else pts % MODULUS,
        dts_90k=None if pts is None else pts % MODULUS,
        key=True,
        payload=b"\xd5" * 320,
        rtp_timestamp=rtp,
        arrival=arrival,
    )


def _stamps(clock: StreamClock, units: Sequence[EsUnit]) -> list[tuple[int, int]]:
    return [clock.stamp(unit) for unit in units]


def _dts(clock: StreamClock, units: Sequence[EsUnit]) -> list[int]:
    return [dts for _, dts in _stamps(clock, units)]


@pytest.mark.parametrize("start", [0, 12345, MODULUS - 3 * STEP, (1 << 32) - STEP])
def test_even_stream_begins_at_zero_and_survives_the_wrap(start: int) -> None:
    clock = StreamClock()
    units = [_video(start + n * STEP, n * 0.04) for n in range(100)]
    assert _stamps(clock, units) == [(n * STEP, n * STEP) for n in range(100)]
    assert (clock.rebased, clock.interpolated, clock.quirks) == (0, 0, set())


def test_audio_and_video_keep_their_distance() -> None:
    clock = StreamClock()
    clock.stamp(_video(1_000_000, 0.0))
    assert clock.stamp(_audio(1_001_800, 0.02)) == (1800, 1800)
    assert clock.stamp(_video(1_003_600, 0.04)) == (3600, 3600)


def test_audio_before_the_first_picture_is_not_negative() -> None:
    clock = StreamClock()
    clock.stamp(_video(1_000_000, 0.0))
    assert clock.stamp(_audio(999_000, 0.0)) == (0, 0)
    assert clock.stamp(_audio(1_002_600, 0.04)) == (2600, 2600)


def test_frame_carries_the_unit() -> None:
    unit = _video(500, 3.5)
    frame = StreamClock().frame(unit)
    assert (frame.track, frame.pts_90k, frame.dts_90k, frame.arrival) == (VIDEO, 0, 0, 3.5)


@pytest.mark.parametrize("jump", [3600 * 90000, 10 * 90000, JUMP_90K + STEP + 1, -90000, -3600 * 90000])
def test_med21_jump_goes_on_after_one_frame(jump: int) -> None:
    clock = StreamClock()
    times = [n * STEP + (jump if n >= 50 else 0) + 4_000_000_000 for n in range(100)]
    out = _dts(clock, [_video(pts, n * 0.04) for n, pts in enumerate(times)])
    assert out == [n * STEP for n in range(100)]
    assert clock.rebased == 1
    assert "ps.pts_jump" in clock.quirks


def test_med21_small_step_back_without_dts_may_be_b_pictures_and_is_monotonic() -> None:
    clock = StreamClock()
    out = _stamps(clock, [_video((n - 2 * (n >= 50)) * STEP, n * 0.04) for n in range(120)])
    dts = [decode for _, decode in out]
    assert all(later > earlier for earlier, later in itertools.pairwise(dts))
    assert out[100:] == [((n - 2) * STEP, (n - 2) * STEP) for n in range(100, 120)]


def test_med21_small_step_back_with_dts_is_a_jump() -> None:
    clock = StreamClock()
    times = [(n - 2 * (n >= 50)) * STEP for n in range(100)]
    out = _dts(clock, [_video(t + STEP, n * 0.04, dts=t) for n, t in enumerate(times)])
    assert out == [n * STEP for n in range(100)]
    assert clock.rebased == 1


def test_med21_small_step_forward_is_no_jump() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(0, 0.0), _video(STEP + 20_000, 0.04), _video(2 * STEP + 20_000, 0.08)])
    assert out == [0, STEP + 20_000, 2 * STEP + 20_000]
    assert clock.rebased == 0


def test_med21_pause_that_really_passed_is_no_jump() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(0, 0.0), _video(5 * 90000, 5.0), _video(5 * 90000 + STEP, 5.04)])
    assert out == [0, 450_000, 453_600]
    assert clock.rebased == 0


def test_med21_burst_after_a_stall_is_no_jump() -> None:
    clock = StreamClock()
    arrivals = [n * 0.04 if n < 10 else max(2.0, n * 0.04) for n in range(100)]
    assert _dts(clock, [_video(n * STEP, at) for n, at in enumerate(arrivals)]) == [
        n * STEP for n in range(100)
    ]
    assert clock.rebased == 0


@pytest.mark.parametrize("jump", [7200 * 90000, -7200 * 90000])
@pytest.mark.parametrize("behind", [0, 3, 10])
def test_med21_all_tracks_move_together(jump: int, behind: int) -> None:
    """Video jumps first, audio some packets later: afterwards both have their old distance."""
    clock = StreamClock()
    base = 5_000_000_000
    video: list[tuple[int, int]] = []
    audio: list[tuple[int, int]] = []
    for n in range(100):
        at = n * 0.04
        video.append(clock.stamp(_video(base + n * STEP + (jump if n >= 50 else 0), at)))
        audio.append(clock.stamp(_audio(base + n * STEP + 900 + (jump if n >= 50 + behind else 0), at)))
    assert [dts for _, dts in video] == [n * STEP for n in range(100)]
    assert [dts for _, dts in audio] == [n * STEP + 900 for n in range(100)]
    assert clock.rebased == 2


def test_med21_loop_of_a_file_again_and_again() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video((n % 25) * STEP, n * 0.04) for n in range(250)])
    assert out == [n * STEP for n in range(250)]
    assert clock.rebased == 9


def test_audio_that_rounds_its_times_is_not_rebased() -> None:
    clock = StreamClock()
    wobble = [0, 500, -400, 300]
    times = [n * STEP + wobble[n % 4] for n in range(40)]
    out = _dts(clock, [_audio(pts + 9000, n * 0.04) for n, pts in enumerate(times)])
    assert clock.rebased == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(out))


def test_med20_missing_times_follow_the_predecessor() -> None:
    clock = StreamClock()
    units = [_video(n * STEP if n % 3 == 0 else None, n * 0.04, track=VIDEO_25) for n in range(30)]
    assert _dts(clock, units) == [n * STEP for n in range(30)]
    assert clock.interpolated == 20
    assert clock.rebased == 0


def test_med20_audio_without_times_follows_by_its_samples() -> None:
    clock = StreamClock()
    units = [_audio(1000 if n == 0 else None, 0.0) for n in range(10)]
    times = _dts(clock, units)
    assert [time - times[0] for time in times] == [n * STEP for n in range(10)]


def test_med20_rtp_timestamp_where_pts_never_come() -> None:
    clock = StreamClock()
    start = (1 << 32) - 5 * STEP
    units = [_video(None, n * 0.041, rtp=(start + n * STEP) % (1 << 32)) for n in range(50)]
    assert _dts(clock, units) == [n * STEP for n in range(50)]
    assert clock.quirks == {"ps.pts_missing", "ps.clock_from_rtp"}


@pytest.mark.parametrize("pts", [0, 777])
def test_med20_constant_pts_gives_way_to_the_rtp_timestamp(pts: int) -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(pts, n * 0.04, rtp=n * STEP + 5) for n in range(50)])
    steps = [b - a for a, b in itertools.pairwise(out)]
    assert set(steps[6:]) == {STEP}
    assert "ps.pts_useless" in clock.quirks


def test_med20_constant_pts_and_rtp_timestamp_give_way_to_arrival() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(5, 100 + n * 0.05, rtp=9) for n in range(60)])
    steps = [b - a for a, b in itertools.pairwise(out)]
    assert all(4499 <= step <= 4501 for step in steps[12:])
    assert {"ps.pts_useless", "rtp.timestamp_useless", "ps.clock_from_arrival"} <= clock.quirks


def test_med20_milliseconds_sold_as_90_khz() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(n * 40, n * 0.04, rtp=n * STEP) for n in range(200)])
    steps = [b - a for a, b in itertools.pairwise(out)]
    assert set(steps[70:]) == {STEP}
    assert all(step > 0 for step in steps)


def test_med20_nothing_at_all_goes_by_arrival() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(None, 7 + n * 0.04) for n in range(20)])
    assert out == [n * STEP for n in range(20)]


def test_audio_by_packet_times_is_gapless() -> None:
    """Two packets of sound in each RTP timestamp."""
    clock = StreamClock()
    units = [_audio(None, n * 0.04, rtp=(n // 2) * 2 * STEP) for n in range(20)]
    assert _dts(clock, units) == [n * STEP for n in range(20)]


def test_playback_at_quarter_speed_keeps_its_pts() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(n * STEP, n * 0.16) for n in range(200)])
    assert out == [n * STEP for n in range(200)]
    assert clock.quirks == set()


def test_download_at_many_times_the_speed_keeps_its_pts() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(n * STEP, n * 0.001) for n in range(1000)])
    assert out == [n * STEP for n in range(1000)]
    assert clock.rebased == 0


def test_med37_b_pictures_with_dts() -> None:
    clock = StreamClock()
    order = [2, 5, 3, 4, 8, 6, 7, 11, 9, 10]
    units = [_video(pts * STEP, n * 0.04, dts=n * STEP) for n, pts in enumerate(order)]
    assert _stamps(clock, units) == [(pts * STEP, n * STEP) for n, pts in enumerate(order)]
    assert clock.rebased == 0


@pytest.mark.parametrize("depth", [1, 2])
def test_med37_b_pictures_without_dts(depth: int) -> None:
    """P pictures, each followed by the B pictures that are shown before it; PTS alone."""
    shown: list[int] = [0]
    for group in range(20):
        anchor = (group + 1) * (depth + 1)
        shown += [anchor, *range(anchor - depth, anchor)]
    clock = StreamClock()
    out = _stamps(clock, [_video(pts * STEP, n * 0.04) for n, pts in enumerate(shown)])
    assert clock.rebased == 0
    dts = [stamp[1] for stamp in out]
    assert all(later > earlier for earlier, later in itertools.pairwise(dts))
    assert all(pts >= decode for pts, decode in out)
    assert [pts for pts, _ in out[8:]] == [pts * STEP for pts in shown[8:]]


def test_med37_jump_of_a_stream_with_b_pictures() -> None:
    order = [2, 5, 3, 4, 8, 6, 7, 11, 9, 10]
    clock = StreamClock()
    times = [(pts * STEP, n * STEP) for n, pts in enumerate(order)]
    times += [
        (pts * STEP + 9_000_000, (n + 10) * STEP + 9_000_000) for n, pts in enumerate(p + 10 for p in order)
    ]
    out = _stamps(clock, [_video(pts, n * 0.04, dts=dts) for n, (pts, dts) in enumerate(times)])
    assert [dts for _, dts in out] == [n * STEP for n in range(20)]
    assert [pts - dts for pts, dts in out] == [pts - dts for pts, dts in times]
    assert clock.rebased == 1


def _encoded(codec: Codec, frames: int = 50) -> list[EsUnit]:
    """What an encoder with B pictures makes; decoding begins at 0."""
    return [
        EsUnit(
            track=frame.track,
            stream_id=0xE0,
            pts_90k=frame.pts_90k,
            dts_90k=frame.dts_90k,
            key=frame.key,
            payload=frame.payload,
            arrival=number * 0.04,
        )
        for number, frame in enumerate(video_clip(codec, frames=frames, b_frames=2))
    ]


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_med37_the_parameter_sets_tell_the_delay_of_a_stream_without_dts(codec: Codec) -> None:
    """Nothing has to be learnt: times are right from the first picture on."""
    units = _encoded(codec)
    clock = StreamClock()
    out = _stamps(clock, [replace(unit, dts_90k=unit.pts_90k) for unit in units])
    assert out == [(unit.pts_90k, unit.dts_90k) for unit in units]
    assert clock.rebased == 0


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_med37_dts_is_left_out_where_it_would_lie_before_zero(codec: Codec) -> None:
    """As muxers do whose first PTS is 0; and again when their file begins anew."""
    units = _encoded(codec)
    delay = units[0].pts_90k or 0
    assert delay
    written = [
        replace(unit, pts_90k=pts, dts_90k=dts if dts >= 0 else pts)
        for unit in units
        for pts, dts in [((unit.pts_90k or 0) - delay, (unit.dts_90k or 0) - delay)]
    ]
    again = [replace(unit, arrival=unit.arrival + len(units) * 0.04) for unit in written]
    clock = StreamClock()
    out = _stamps(clock, written + again)
    assert [dts for _, dts in out] == [n * STEP for n in range(2 * len(units))]
    assert [pts - dts for pts, dts in out] == [(u.pts_90k or 0) - (u.dts_90k or 0) for u in units] * 2
    assert clock.rebased == 1


@pytest.mark.parametrize("with_dts", [True, False])
@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
def test_med37_pictures_without_times_are_shown_by_their_order_count(codec: Codec, with_dts: bool) -> None:
    """Several small pictures in one PES: its times are those of the first."""
    units = _encoded(codec, frames=100)
    sparse = [
        replace(
            unit,
            pts_90k=unit.pts_90k if n % 5 == 0 else None,
            dts_90k=(unit.dts_90k if with_dts else unit.pts_90k) if n % 5 == 0 else None,
        )
        for n, unit in enumerate(units)
    ]
    clock = StreamClock()
    assert _stamps(clock, sparse) == [(unit.pts_90k, unit.dts_90k) for unit in units]
    assert clock.rebased == 0


def test_med37_sound_that_comes_first_leaves_room_for_the_first_decoding() -> None:
    clock = StreamClock()
    sound, _ = clock.stamp(_audio(0, 0.0))
    units = _encoded(Codec.H264, frames=10)
    times = [(unit.pts_90k or 0) - (units[0].pts_90k or 0) for unit in units]
    out = _stamps(clock, [replace(u, pts_90k=pts, dts_90k=pts) for u, pts in zip(units, times, strict=True)])
    assert out[0][0] == sound
    assert [later - earlier for (_, earlier), (_, later) in itertools.pairwise(out)] == [STEP] * 9


def test_med21_a_jump_back_is_no_creep() -> None:
    """A loop as long as the span over which the speed of a clock is judged."""
    clock = StreamClock()
    units = [_video(n % 63 * STEP, n * 0.04, track=VIDEO_25) for n in range(200)]
    assert _dts(clock, units) == [n * STEP for n in range(200)]
    assert clock.quirks == {"ps.pts_jump"}
    assert clock.rebased == 3


def test_presentation_hours_after_decoding_is_a_fault() -> None:
    clock = StreamClock()
    assert clock.stamp(_video(90000 * 3600, 0.0, dts=5)) == (0, 0)


def test_restart_goes_on_where_the_time_stands() -> None:
    clock = StreamClock()
    _stamps(clock, [_video(n * STEP, n * 0.04) for n in range(10)])
    _stamps(clock, [_audio(n * STEP, n * 0.04) for n in range(10)])
    clock.restart()
    assert clock.stamp(_video(77_000_000, 3.36))[1] == 9 * STEP + 3 * 90000
    assert clock.stamp(_audio(77_000_000 + 1800, 3.38))[1] == 9 * STEP + 3 * 90000 + 1800
    assert clock.rebased == 0


def test_audio_of_another_clock_goes_by_arrival_first() -> None:
    clock = StreamClock()
    _stamps(clock, [_video(n * STEP, n * 0.04) for n in range(25)])
    assert clock.stamp(_audio(1 << 32, 1.0))[1] == 90000
    assert clock.stamp(_audio((1 << 32) + STEP, 1.04))[1] == 90000 + STEP
    assert clock.stamp(_video(25 * STEP, 1.0))[1] == 25 * STEP
    assert "ps.clocks_differ" in clock.quirks


def test_dts_never_stands_still() -> None:
    clock = StreamClock()
    out = _dts(clock, [_video(0, 0.0), _video(0, 0.0), _video(STEP, 0.04)])
    assert out == [0, 1, STEP]
