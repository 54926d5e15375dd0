"""Order by sequence number, bounded in time and number."""

from __future__ import annotations

import random

import pytest

from gb28181gw.media.wire.reorder import Gap, ReorderBuffer
from gb28181gw.media.wire.rtp import RtpPacket


def _packet(number: int) -> RtpPacket:
    return RtpPacket(96, number % 65536, 0, 1, b"")


def _numbers(out: list[RtpPacket | Gap]) -> list[int | Gap]:
    return [item if isinstance(item, Gap) else item.sequence_number for item in out]


def _push(buffer: ReorderBuffer, numbers: list[int], now: float = 0.0) -> list[int | Gap]:
    out: list[RtpPacket | Gap] = []
    for number in numbers:
        out += buffer.push(_packet(number), now)
    return _numbers(out)


def test_order_is_kept_without_delay() -> None:
    buffer = ReorderBuffer()
    for number in range(65530, 65545):
        assert _push(buffer, [number]) == [number % 65536]
    assert buffer.held == 0
    assert buffer.deadline is None


def test_med24_reordered_packets_are_put_right() -> None:
    buffer = ReorderBuffer()
    assert _push(buffer, [1, 3, 2, 5, 6, 4, 7]) == [1, 2, 3, 4, 5, 6, 7]
    assert (buffer.reordered, buffer.lost, buffer.duplicated) == (3, 0, 0)


def test_med24_missing_packets_are_given_up_after_the_window() -> None:
    buffer = ReorderBuffer()
    _push(buffer, [1, 4], now=10.0)
    assert buffer.deadline == pytest.approx(10.2)
    assert buffer.poll(10.19) == []
    assert _numbers(buffer.poll(10.2)) == [Gap(2), 4]
    assert buffer.lost == 2
    assert buffer.poll(11.0) == []


def test_a_push_gives_up_as_well() -> None:
    buffer = ReorderBuffer()
    _push(buffer, [1, 3], now=0.0)
    assert _push(buffer, [4], now=0.3) == [Gap(1), 3, 4]


def test_med24_window_is_bounded_in_packets() -> None:
    buffer = ReorderBuffer()
    assert _push(buffer, [0]) == [0]
    out = _push(buffer, list(range(2, 514)))
    assert out[0] == Gap(1)
    assert out[1:] == list(range(2, 514))


def test_med24_window_grows_with_late_packets_and_shrinks_in_calm() -> None:
    buffer = ReorderBuffer()
    _push(buffer, [1, 3], now=0.0)
    buffer.poll(0.25)
    assert _push(buffer, [2], now=0.35) == []
    assert (buffer.late, buffer.duplicated) == (1, 0)
    assert 0.2 < buffer.window_s <= 0.5
    _push(buffer, [2], now=0.36)
    assert (buffer.late, buffer.duplicated) == (1, 1)
    grown = buffer.window_s
    _push(buffer, [5, 4], now=30.0)
    assert buffer.window_s == grown
    _push(buffer, [7, 6], now=61.0)
    assert buffer.window_s == 0.2


def test_med24_window_never_passes_half_a_second() -> None:
    buffer = ReorderBuffer()
    for start in range(0, 100, 4):
        now = start * 1.0
        _push(buffer, [start, start + 2], now=now)
        buffer.poll(now + 0.6)
        _push(buffer, [start + 1], now=now + 0.9)
        _push(buffer, [start + 3], now=now + 0.95)
    assert buffer.window_s == 0.5


def test_med23_duplicates_are_dropped() -> None:
    buffer = ReorderBuffer()
    assert _push(buffer, [1, 1, 2, 4, 4, 3, 3, 5]) == [1, 2, 3, 4, 5]
    assert buffer.duplicated == 3


def test_med23_a_run_of_duplicates_is_no_restart() -> None:
    buffer = ReorderBuffer()
    _push(buffer, list(range(100, 110)))
    assert _push(buffer, list(range(100, 110))) == []
    assert buffer.duplicated == 10
    assert _push(buffer, [110]) == [110]


def test_med23_restart_is_believed_with_the_second_packet() -> None:
    buffer = ReorderBuffer()
    _push(buffer, [1000, 1001, 1003])
    assert _push(buffer, [40000]) == []
    assert _push(buffer, [40001, 40002]) == [Gap(1), 1003, Gap(0, True), 40000, 40001, 40002]
    assert (buffer.restarts, buffer.lost) == (1, 1)


def test_med23_restart_at_a_lower_number() -> None:
    buffer = ReorderBuffer()
    _push(buffer, [5000])
    assert _push(buffer, [1, 2, 3]) == [Gap(0, True), 1, 2, 3]


def test_med23_restart_by_a_few_packets_is_believed_after_half_a_second_of_old_numbers() -> None:
    buffer = ReorderBuffer()
    _push(buffer, list(range(300)))
    out: list[RtpPacket | Gap] = []
    for number in range(40):
        out += buffer.push(_packet(number), 20.0 + number * 0.02)
    assert out[0] == Gap(0, True)
    assert _numbers(out[1:]) == list(range(25, 40))
    assert buffer.restarts == 1


def test_med23_old_packets_among_new_ones_are_no_restart() -> None:
    buffer = ReorderBuffer()
    _push(buffer, list(range(300)))
    out: list[RtpPacket | Gap] = []
    for number in range(60):
        at = 20.0 + number * 0.02
        out += buffer.push(_packet(number), at)
        if number % 20 == 19:
            out += buffer.push(_packet(300 + number // 20), at)
    assert _numbers(out) == [300, 301, 302]
    assert (buffer.restarts, buffer.duplicated) == (0, 60)


def test_med23_one_stray_packet_changes_nothing() -> None:
    buffer = ReorderBuffer()
    _push(buffer, [1000])
    assert _push(buffer, [30000, 1001, 1002]) == [1001, 1002]


def test_a_long_loss_is_counted() -> None:
    buffer = ReorderBuffer()
    _push(buffer, [0])
    assert _push(buffer, [1001, 1002]) == [Gap(1000), 1001, 1002]
    assert (buffer.lost, buffer.restarts) == (1000, 0)


def test_f09_wrap_with_loss_and_reordering() -> None:
    chance = random.Random(7)
    numbers = [number for number in range(65000, 67000) if chance.random() > 0.02]
    for index in range(0, len(numbers) - 4, 4):
        piece = numbers[index : index + 4]
        chance.shuffle(piece)
        numbers[index : index + 4] = piece
    if numbers[0] != min(numbers[:4]):
        numbers[0], numbers[numbers.index(min(numbers[:4]))] = min(numbers[:4]), numbers[0]
    buffer = ReorderBuffer()
    out: list[RtpPacket | Gap] = []
    for index, number in enumerate(numbers):
        out += buffer.push(_packet(number), index * 0.003)
    out += buffer.flush()
    delivered = [item.sequence_number for item in out if not isinstance(item, Gap)]
    assert delivered == [number % 65536 for number in sorted(numbers)]
    missing = sum(item.lost for item in out if isinstance(item, Gap))
    assert missing == buffer.lost == max(numbers) - min(numbers) + 1 - len(numbers)
