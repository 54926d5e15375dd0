"""Pace of our own messages, and the trust in the wall clock."""

from __future__ import annotations

import asyncio

import pytest

from gb28181gw.devices.clockwatch import DISTRUST_S, ClockWatch
from gb28181gw.devices.pacer import Pacer
from tests.support.devices import FakeClock, RecordingBus


async def test_f01_permits_come_at_the_rate() -> None:
    pacer = Pacer(rate=200, clock=FakeClock(), burst_s=0.1)
    waiting = [asyncio.create_task(pacer.permit()) for _ in range(60)]
    await asyncio.sleep(0)
    assert sum(task.done() for task in waiting) == 20
    assert pacer.behind_s == pytest.approx(60 / 200 - 0.1)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_idle_time_is_not_saved_up() -> None:
    clock = FakeClock()
    pacer = Pacer(rate=10, clock=clock, burst_s=0.1)
    clock.advance(1000)
    await pacer.permit()
    assert pacer.behind_s == pytest.approx(0.0)
    waiting = [asyncio.create_task(pacer.permit()) for _ in range(5)]
    await asyncio.sleep(0)
    assert pacer.behind_s == pytest.approx(0.5)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_tm02_a_step_takes_the_date_away_for_a_while() -> None:
    clock, bus = FakeClock(), RecordingBus()
    watch = ClockWatch(clock, bus)
    clock.advance(1)
    watch.tick()
    assert watch.trusted
    clock.date += 3600
    clock.advance(1)
    watch.tick()
    assert not watch.trusted
    assert bus.of("clock.stepped")[0]["step_s"] == 3600
    clock.advance(DISTRUST_S)
    assert watch.trusted


def test_tm02_slewing_is_no_step() -> None:
    clock, bus = FakeClock(), RecordingBus()
    watch = ClockWatch(clock, bus)
    for _ in range(1000):
        clock.advance(1)
        clock.date += 0.1
        watch.tick()
    assert watch.trusted
    assert bus.names() == []


def test_tm02_a_clock_of_another_age_is_wrong() -> None:
    clock = FakeClock(date=1_000_000.0)
    assert not ClockWatch(clock, RecordingBus()).trusted
