"""The bus: one fact, one line, one event."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import Iterator
from enum import StrEnum

import orjson
import pytest
import structlog

from gb28181gw.observability import events as events_module
from gb28181gw.observability.event_table import EVENTS, NOISE
from gb28181gw.observability.events import EventBus, UnknownEventError
from gb28181gw.observability.logs import configure_logging


@pytest.fixture
def stream() -> Iterator[io.BytesIO]:
    """Where lines go while a test configures logging; the default comes back after it."""
    target = io.BytesIO()
    configure_logging(stream=target, level="debug")
    yield target
    structlog.reset_defaults()


class Time:
    def __init__(self) -> None:
        self.wall, self.ticks = 1_700_000_000.0, 10.0

    def bus(self, **more: object) -> EventBus:
        return EventBus(wall=lambda: self.wall, monotonic=lambda: self.ticks, **more)  # type: ignore[arg-type]


def lines(stream: io.BytesIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_and_reads_like_the_contract(stream: io.BytesIO) -> None:
    Time().bus().emit("device.online", device_id="34020000001180000001", reason="registered", peer=None)
    assert stream.getvalue().count(b"\n") == 1
    assert lines(stream) == [
        {
            "event": "device.online",
            "level": "info",
            "timestamp": "2023-11-14T22:13:20.000+00:00",
            "device_id": "34020000001180000001",
            "reason": "registered",
        }
    ]


def test_an_unknown_name_is_found_by_tests_and_survived_by_users(stream: io.BytesIO) -> None:
    with pytest.raises(UnknownEventError, match=r"device\.onlin"):
        EventBus().emit("device.onlin")
    EventBus(strict=False).emit("device.onlin", device_id="1")
    assert lines(stream)[0]["level"] == "warning"


def test_s14_one_event_is_one_line_whatever_a_peer_wrote(stream: io.BytesIO) -> None:
    class Kind(StrEnum):
        A = "a\r\nb"

    EventBus().emit(
        "sip.malformed",
        peer="1.2.3.4:5060\r\nevent: forged",
        reason="\x1b[31mred\x00",
        detail="x" * 5000,
        device_id=b"\xff\r\n",
        transport=Kind.A,
        bytes=2**80,
    )
    assert stream.getvalue().count(b"\n") == 1
    (line,) = lines(stream)
    assert line["peer"] == "1.2.3.4:5060\\x0d\\x0aevent: forged"
    assert line["reason"] == "\\x1b[31mred\\x00"
    assert len(str(line["detail"])) == 256
    assert line["device_id"] == "\\xff\\x0d\\x0a"
    assert line["transport"] == "a\\x0d\\x0ab"
    assert line["bytes"] == str(2**80)


def test_s14_a_flood_is_counted_and_told(stream: io.BytesIO) -> None:
    time = Time()
    bus = time.bus()
    for _ in range(NOISE + 5):
        bus.emit("sip.malformed", peer="a")
    assert len(lines(stream)) == NOISE
    time.ticks += 1
    bus.emit("sip.malformed", peer="a")
    assert lines(stream)[-1]["suppressed"] == 5
    assert bus.counts["sip.malformed"] == NOISE + 6
    for _ in range(NOISE + 1):
        bus.emit("sip.malformed", peer="a")
    bus.report_suppressed()
    assert lines(stream)[-1]["event"] == "log.suppressed"
    assert lines(stream)[-1]["name"] == "sip.malformed"
    assert lines(stream)[-1]["suppressed"] == 2
    before = len(lines(stream))
    bus.report_suppressed()
    assert len(lines(stream)) == before


def test_s14_one_noisy_event_costs_no_other(stream: io.BytesIO) -> None:
    bus = Time().bus()
    for _ in range(NOISE * 2):
        bus.emit("auth.banned", peer="a")
    bus.emit("device.online", device_id="1")
    assert lines(stream)[-1]["event"] == "device.online"


def test_a_level_below_the_configured_one_is_published_but_not_written() -> None:
    target = io.BytesIO()
    configure_logging(stream=target, level="warning")
    try:
        bus = EventBus()
        bus.emit("device.online", device_id="1")
        assert target.getvalue() == b""
        assert bus.counts["device.online"] == 1
    finally:
        structlog.reset_defaults()


async def test_subscribers_get_events_in_order_and_by_name() -> None:
    bus = EventBus()
    everything, some = bus.subscribe(), bus.subscribe(["device.offline"])
    bus.emit("device.online", device_id="1")
    bus.emit("device.offline", device_id="1")
    first, second = await everything.next(1), await everything.next(1)
    assert first is not None
    assert second is not None
    assert [first.name, second.name] == ["device.online", "device.offline"]
    assert second.sequence == first.sequence + 1
    only = await some.next(1)
    assert only is not None
    assert only.as_dict()["event"] == "device.offline"
    assert await some.next(0.001) is None
    assert not some.closed


async def test_a_waiting_subscriber_wakes() -> None:
    bus = EventBus()
    subscription = bus.subscribe()
    waiting = asyncio.create_task(subscription.next(5))
    await asyncio.sleep(0)
    bus.emit("device.online", device_id="1")
    event = await waiting
    assert event is not None
    assert event.name == "device.online"


async def test_f10_a_slow_subscriber_loses_its_oldest_and_is_told() -> None:
    bus = EventBus()
    slow, quick = bus.subscribe(size=2), bus.subscribe()
    for number in range(5):
        bus.emit("device.online", device_id=str(number))
    lost = await slow.next(1)
    assert lost is not None
    assert (lost.name, lost.fields["lost"]) == ("events.lost", 3)
    rest = [await slow.next(1), await slow.next(1)]
    assert [event.fields["device_id"] for event in rest if event] == ["3", "4"]
    assert [(await quick.next(1)).fields["device_id"] for _ in range(5)] == list("01234")  # type: ignore[union-attr]


async def test_a_subscriber_that_comes_back_gets_what_it_missed() -> None:
    bus = EventBus()
    first = bus.subscribe()
    for number in range(3):
        bus.emit("device.online", device_id=str(number))
    seen = await first.next(1)
    assert seen is not None
    again = bus.subscribe(last_id=seen.id)
    assert [(await again.next(1)).fields["device_id"] for _ in range(2)] == ["1", "2"]  # type: ignore[union-attr]
    assert await again.next(0.001) is None


async def test_what_is_no_longer_kept_is_counted() -> None:
    bus = EventBus(ring_size=2)
    first = bus.subscribe()
    for number in range(5):
        bus.emit("device.online", device_id=str(number))
    seen = await first.next(1)
    assert seen is not None
    again = bus.subscribe(last_id=seen.id)
    lost = await again.next(1)
    assert lost is not None
    assert (lost.name, lost.fields["lost"]) == ("events.lost", 2)
    assert [(await again.next(1)).fields["device_id"] for _ in range(2)] == ["3", "4"]  # type: ignore[union-attr]


@pytest.mark.parametrize("last_id", ["other-3", "nonsense", "-", "x-y", "18c-99999999999999999999"])
async def test_an_id_of_another_process_gives_everything_kept_and_says_so(last_id: str) -> None:
    bus = EventBus()
    bus.emit("device.online", device_id="1")
    subscription = bus.subscribe(last_id=last_id)
    lost, event = await subscription.next(1), await subscription.next(1)
    assert lost is not None
    assert lost.name == "events.lost"
    assert event is not None
    assert event.fields["device_id"] == "1"


async def test_closing_ends_the_reader_and_forgets_the_subscriber() -> None:
    bus = EventBus()
    subscription = bus.subscribe()
    bus.emit("device.online", device_id="1")
    bus.close()
    assert [event.name async for event in subscription] == ["device.online"]
    assert bus.subscriber_count == 0
    late = bus.subscribe()
    assert await late.next(1) is None
    bus.emit("gateway.stopped", duration_ms=1)
    assert bus.counts["gateway.stopped"] == 1


def test_the_ring_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(EVENTS["device.online"], per_second=10**9)
    monkeypatch.setitem(events_module.EVENTS, "device.online", row)
    bus = EventBus(ring_size=10)
    for _ in range(100):
        bus.emit("device.online", device_id="1")
    assert len(bus._ring) == 10
