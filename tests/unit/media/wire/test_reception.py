"""Loss and jitter as RFC 3550 A.1, A.3 and A.8 count them."""

from __future__ import annotations

import random

import pytest

from gb28181gw.media.wire.reception import ReceptionStatistics
from gb28181gw.media.wire.rtcp import SenderReport, ntp_time


def _run(statistics: ReceptionStatistics, numbers: list[int]) -> None:
    for index, number in enumerate(numbers):
        statistics.update(number % 65536, index * 3600, index * 0.04)


def test_nothing_yet() -> None:
    statistics = ReceptionStatistics()
    assert (statistics.expected, statistics.lost, statistics.total_lost, statistics.jitter) == (0, 0, 0, 0)
    assert statistics.report_block(1, 0.0).fraction_lost == 0


def test_sequence_wraps() -> None:
    statistics = ReceptionStatistics()
    _run(statistics, list(range(65530, 65546)))
    assert statistics.extended_highest_sequence_number == 65545
    assert (statistics.expected, statistics.lost) == (16, 0)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3])
def test_f09_loss_is_exact(share: float) -> None:
    chance = random.Random(share)
    sent = list(range(100_000))
    kept = [number for number in sent if chance.random() >= share or number in (0, 99_999)]
    statistics = ReceptionStatistics()
    _run(statistics, kept)
    assert statistics.total_lost == len(sent) - len(kept)


def test_fraction_is_of_the_interval() -> None:
    statistics = ReceptionStatistics()
    _run(statistics, [n for n in range(100) if n % 4 or n == 0])
    first = statistics.report_block(5, 4.0)
    assert (first.ssrc, first.cumulative_lost, first.fraction_lost) == (5, 24, 24 * 256 // 100)
    _run(statistics, list(range(100, 200)))
    assert statistics.report_block(5, 8.0).fraction_lost == 0
    assert statistics.report_block(5, 8.0).cumulative_lost == 24


def test_duplicates_and_late_packets() -> None:
    statistics = ReceptionStatistics()
    _run(statistics, [1, 2, 4, 3, 3, 5])
    assert statistics.duplicated_or_late == 2
    assert statistics.lost == -1  # as A.3 says
    assert statistics.total_lost == 0


def test_med23_new_sequence_is_believed_when_it_goes_on() -> None:
    statistics = ReceptionStatistics()
    _run(statistics, [10, 11, 13, 30000, 14])
    assert statistics.restarts == 0
    _run(statistics, [40000, 40001, 40002, 40004])
    assert statistics.restarts == 1
    assert statistics.extended_highest_sequence_number == 40004
    assert statistics.total_lost == 2 - 0


def test_jitter_of_an_even_stream_is_zero_and_of_an_uneven_one_is_not() -> None:
    even = ReceptionStatistics()
    _run(even, list(range(100)))
    assert even.jitter == 0
    uneven = ReceptionStatistics()
    for index in range(1000):
        uneven.update(index, index * 3600, index * 0.04 + (0.01 if index % 2 else 0.0))
    assert 800 <= uneven.jitter <= 1000  # 900 ticks between neighbours
    assert 9.0 < uneven.jitter_ms < 11.0


def test_a_jump_of_the_timestamp_does_not_spoil_jitter() -> None:
    statistics = ReceptionStatistics()
    _run(statistics, list(range(10)))
    statistics.update(10, 0x90000000, 0.4)
    statistics.update(11, 0x90000000 + 3600, 0.44)
    assert statistics.jitter == 0


def test_sender_report_is_answered() -> None:
    statistics = ReceptionStatistics()
    statistics.update(1, 0, 0.0)
    report = SenderReport(ssrc=5, ntp_time=ntp_time(1.0), rtp_timestamp=0, packet_count=1, octet_count=1)
    statistics.sender_report(report, 10.0)
    block = statistics.report_block(5, 12.5)
    assert block.last_sender_report == report.middle_ntp
    assert block.delay_since_last_sender_report == round(2.5 * 65536)
