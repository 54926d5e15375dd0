"""The event bus: one fact, one log line, one server-sent event, under one name (docs/reference/events.md).

`EVENTS` (event_table) is the closed table of names; a test reads every `emit` call of the package against it.
`EventBus.emit` is cheap, never blocks and never fails for what a peer wrote.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import structlog

from gb28181gw.observability.event_table import EVENTS, NOISE, EventRow, Level
from gb28181gw.observability.redact import CLEAN, clean_text, hide_named

__all__ = ["EVENTS", "Event", "EventBus", "EventRow", "Level", "Subscription", "UnknownEventError"]


class UnknownEventError(AssertionError):
    """An event that the table does not have was emitted: a mistake in this program, found by its tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One emitted event, as subscribers get it."""

    id: str
    """``BOOT-NUMBER``: unique, and growing within one process; what ``Last-Event-ID`` carries."""
    name: str
    level: Level
    timestamp: str
    """ISO 8601 with offset."""
    fields: Mapping[str, object]
    sequence: int

    def as_dict(self) -> dict[str, object]:
        """The same object as the log line."""
        return {"event": self.name, "level": self.level, "timestamp": self.timestamp, **self.fields}


class Subscription:
    """A bounded queue of one subscriber: the slow one loses its oldest events, and is told how many.

    Iterate with ``async for``; it ends after `close` (of the subscription or of the bus). One task reads.
    """

    def __init__(self, bus: EventBus, names: frozenset[str] | None, size: int) -> None:
        self._bus = bus
        self._names = names
        self._size = size
        self._queue: deque[Event] = deque()
        self._lost = 0
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def _offer(self, event: Event) -> None:
        if self._names is not None and event.name not in self._names:
            return
        if len(self._queue) >= self._size:
            self._queue.popleft()
            self._lost += 1
        self._queue.append(event)
        self._wake.set()

    def _missed(self, count: int) -> None:
        self._lost += count
        self._wake.set()

    def _take(self) -> Event | None:
        if self._lost:
            lost, self._lost = self._lost, 0
            return self._bus.private_event("events.lost", lost=lost)
        if self._queue:
            return self._queue.popleft()
        return None

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """The next event; None when the subscription is closed or after `timeout_s` without one."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    event = self._take()
                    if event is not None or self._closed:
                        return event
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return None

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.next()) is not None:
            yield event

    def close(self) -> None:
        """Idempotent. What is queued can still be read."""
        self._closed = True
        self._wake.set()
        self._bus.forget(self)


@dataclass(slots=True)
class _Window:
    """Counts one event name within the running second."""

    started: float
    used: int = 0
    suppressed: int = 0


class EventBus:
    """Owner of the ring and of the subscribers. All calls are made on the event loop's thread.

    `strict`: an unknown name raises `UnknownEventError`; `app` turns it off, so that a mistake costs a user a
    strange line and not a service. `ring_size` events are kept for subscribers that come back.
    """

    def __init__(
        self,
        *,
        strict: bool = True,
        ring_size: int = 2000,
        zone: tzinfo = UTC,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Events emitted, by name; suppressed ones included."""
        self._strict = strict
        self._zone = zone
        self._wall = wall
        self._monotonic = monotonic
        self._boot = f"{int(wall() * 1000):x}"
        self._sequence = 0
        self._ring: deque[Event] = deque(maxlen=ring_size)
        self._subscriptions: set[Subscription] = set()
        self._windows: dict[str, _Window] = {}
        self._log = structlog.get_logger("gb28181gw.events")
        self._closed = False

    @property
    def subscriber_count(self) -> int:
        return len(self._subscriptions)

    def emit(self, name: str, **fields: object) -> None:
        """Log and publish one event of the table. Fields that are None are left out."""
        row = EVENTS.get(name)
        if row is None:
            if self._strict:
                raise UnknownEventError(f"{name!r} is not in the table of events")
            row = EventRow(
                name=clean_text(name, 64), level="warning", fields=(), meaning="", per_second=NOISE
            )
        self.counts[row.name] += 1
        suppressed = self._admit(row)
        if suppressed is None:
            return
        if suppressed:
            fields["suppressed"] = suppressed
        self._publish(self._make(row, fields))

    def _admit(self, row: EventRow) -> int | None:
        """None: over the limit, leave it out. Else how many were left out since the last line."""
        now = self._monotonic()
        window = self._windows.get(row.name)
        if window is None:
            window = self._windows[row.name] = _Window(started=now)
        elif now - window.started >= 1.0:
            window.started, window.used = now, 0
        if window.used >= row.per_second:
            window.suppressed += 1
            return None
        window.used += 1
        suppressed, window.suppressed = window.suppressed, 0
        return suppressed

    def _make(self, row: EventRow, fields: Mapping[str, object]) -> Event:
        self._sequence += 1
        return Event(
            id=f"{self._boot}-{self._sequence}",
            name=row.name,
            level=row.level,
            timestamp=datetime.fromtimestamp(self._wall(), self._zone).isoformat(timespec="milliseconds"),
            fields={key: hide_named(key, value) for key, value in fields.items() if value is not None},
            sequence=self._sequence,
        )

    def _publish(self, event: Event) -> None:
        write = getattr(self._log, event.level)
        write(event.name, timestamp=event.timestamp, _clean=CLEAN, **event.fields)
        self._ring.append(event)
        for subscription in tuple(self._subscriptions):
            subscription._offer(event)

    def private_event(self, name: str, **fields: object) -> Event:
        """An event for one subscriber only: neither logged nor kept. It repeats the newest id, so that a
        subscriber that comes back with it misses nothing."""
        row = EVENTS[name]
        return Event(
            id=f"{self._boot}-{self._sequence}",
            name=row.name,
            level=row.level,
            timestamp=datetime.fromtimestamp(self._wall(), self._zone).isoformat(timespec="milliseconds"),
            fields=dict(fields),
            sequence=self._sequence,
        )

    def report_suppressed(self) -> None:
        """Tell what was left out with no line after it; called every few seconds and at the end."""
        for name, window in self._windows.items():
            if window.suppressed:
                suppressed, window.suppressed = window.suppressed, 0
                row = EVENTS["log.suppressed"]
                self.counts[row.name] += 1
                self._publish(self._make(row, {"name": name, "suppressed": suppressed}))

    def subscribe(
        self, names: Iterable[str] | None = None, *, last_id: str | None = None, size: int = 1000
    ) -> Subscription:
        """A new subscriber; with `last_id` it first gets what the ring has of the events after that one.

        When events after `last_id` are no longer kept (or it is of another process) it is told so first.
        """
        subscription = Subscription(self, None if names is None else frozenset(names), size)
        if self._closed:
            subscription.close()
            return subscription
        if last_id:
            self._replay(subscription, last_id)
        self._subscriptions.add(subscription)
        return subscription

    def _replay(self, subscription: Subscription, last_id: str) -> None:
        boot, _, number = last_id.partition("-")
        after = int(number) if boot == self._boot and number.isdecimal() and number.isascii() else 0
        oldest = self._ring[0].sequence if self._ring else self._sequence + 1
        if boot != self._boot:
            # Events between the old process's last one and its end cannot be counted: at least this one.
            subscription._missed(max(oldest - 1, 1))
        elif after + 1 < oldest:
            subscription._missed(oldest - 1 - after)
        for event in self._ring:
            if event.sequence > after:
                subscription._offer(event)

    def forget(self, subscription: Subscription) -> None:
        """Called by a subscription that closes."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all subscriptions. Events are still logged afterwards."""
        self.report_suppressed()
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.close()
