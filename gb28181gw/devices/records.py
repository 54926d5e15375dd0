"""Which recordings a device has (GB/T 28181-2022 9.7): one question, an answer in any number of parts.

A search ends with the last part by `SumNum`, with a silence between parts, or with its time; what is missing then is
said (`partial`). Equal searches that run at once are one, and different ones of a device wait for each other, because
there are recorders that answer only one (PB-05).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from gb28181gw.devices.assembly import MORE_QUIRK, Assembly
from gb28181gw.devices.dialects import dialect_of, zone_of
from gb28181gw.devices.models import Device
from gb28181gw.devices.queries import Queries, Waits
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.records import (
    Record,
    RecordInfoQuery,
    read_record_info_response,
    write_record_info_query,
)
from gb28181gw.observability.events import EventBus

MAX_RECORDS: Final = 20_000
"""Kept of one search."""


class Location(StrEnum):
    """Whose recordings: told by the To id, or by a fuzzy query (A.2.4.5)."""

    FRONT_END = "front_end"
    """Those that the channel made itself: To is the channel."""
    CENTRE = "centre"
    """Those that the device keeps as a centre: To is the device."""
    BOTH = "both"
    """`IndistinctQuery`: To is the device, which merges both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLimits:
    """Seconds."""

    first_s: float = 10.0
    between_s: float = 4.0
    all_s: float = 19.0
    """Waiting for another search included; the API answers within 20 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordList:
    """What a search found, oldest first, each once."""

    items: tuple[Record, ...]
    partial: bool
    """Parts are missing: the device counted more, or was cut."""
    sum_num: int | None
    """`SumNum` of the device; None: it told none."""
    answered: bool = True
    """False: it took the question and never answered, as many do when they have nothing (PB-06)."""


_Question = tuple[str, str, datetime, datetime, str, Location]


@dataclass(slots=True, eq=False)
class _Turn:
    """Whose turn it is at a device, while anybody runs or waits."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Records:
    """Owner of the searches that run."""

    def __init__(
        self,
        *,
        registry: Registry,
        queries: Queries,
        bus: EventBus,
        timezone: str,
        limits: RecordLimits | None = None,
    ) -> None:
        """`timezone` is that of devices without their own."""
        self._registry = registry
        self._queries = queries
        self._bus = bus
        self._timezone = timezone
        self._limits = limits if limits is not None else RecordLimits()
        self._running: dict[_Question, asyncio.Task[RecordList]] = {}
        self._turns: dict[str, _Turn] = {}

    async def search(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        kind: str = "all",
        location: Location = Location.FRONT_END,
    ) -> RecordList:
        """Recordings of a channel that touch a span of time (aware times), at most after `all_s`.

        Raises GatewayError gb.sip.no_answer and .rejected as queries do, gb.route.busy when earlier searches of the
        device took all the time, and what `Registry.target` raises.
        """
        device = self._registry.require(device_id)
        self._registry.target(device_id, channel_id)
        question = (device_id, channel_id, start, end, kind, location)
        running = self._running.get(question)
        if running is None:
            running = asyncio.create_task(self._ask(device, question), name=f"records {channel_id}")
            self._running[question] = running
            running.add_done_callback(lambda _: self._running.pop(question, None))
        # Whoever asked first may leave: the others still want the answer.
        return await asyncio.shield(running)

    async def spans(
        self, device_id: str, channel_id: str, start: int, end: int, *, centre: bool
    ) -> list[tuple[float, float]]:
        """(start, end) of what is recorded of a span, oldest first, all in seconds since 1970 UTC.

        Empty for nothing, and for a device that does not tell, or not all.
        """
        try:
            found = await self.search(
                device_id,
                channel_id,
                datetime.fromtimestamp(start, UTC),
                datetime.fromtimestamp(end, UTC),
                location=Location.CENTRE if centre else Location.FRONT_END,
            )
        except GatewayError:
            return []
        if found.partial:
            return []
        return [
            (record.start.timestamp(), record.end.timestamp())
            for record in found.items
            if record.start is not None and record.end is not None
        ]

    async def close(self) -> None:
        """End the searches."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _ask(self, device: Device, question: _Question) -> RecordList:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.all_s
        turn = self._turns.setdefault(device.id, _Turn())
        turn.users += 1
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await turn.lock.acquire()
            except TimeoutError:
                raise GatewayError(
                    "gb.route.busy", f"Device {device.id} still answers earlier searches for recordings."
                ) from None
            try:
                return await self._collect(device, question, deadline - loop.time())
            finally:
                turn.lock.release()
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[device.id]

    async def _collect(self, device: Device, question: _Question, left_s: float) -> RecordList:
        _, channel_id, start, end, kind, location = question
        dialect, zone = dialect_of(device), zone_of(device.timezone or self._timezone)
        found: Assembly[Record, Record] = Assembly(limit=MAX_RECORDS)

        def write(sn: int) -> bytes:
            query = RecordInfoQuery(
                sn=sn,
                device_id=channel_id,
                start=start,
                end=end,
                kind=kind,
                fuzzy=location is Location.BOTH,
            )
            return write_record_info_query(query, dialect.charset_used, dialect.edition, zone)

        def take(document: Document) -> bool:
            response = read_record_info_response(document, zone)
            for quirk in response.quirks:
                if quirk not in document.quirks:  # those were counted when it came
                    self._registry.add_quirk(device, quirk.value, row=quirk.row)
            found.take([(record, record) for record in response.records], response.total)
            return found.reached

        limits = self._limits
        waits = Waits(first_s=min(limits.first_s, left_s), between_s=limits.between_s, all_s=left_s)
        try:
            complete = await self._queries.gather(
                device,
                "RecordInfo",
                write,
                take,
                waits=waits,
                channel_id=channel_id if location is Location.FRONT_END else None,
                after=lambda: found.patience(device, limits.between_s),
            )
        except GatewayError as error:
            if error.code != "gb.sip.no_answer" or not error.evidence.get("taken"):
                raise
            return RecordList(items=(), partial=False, sum_num=None, answered=False)
        if found.beyond:
            self._registry.add_quirk(device, MORE_QUIRK)
        items = _in_order(found.items)
        partial = found.dropped > 0 or not complete
        if partial:
            self._bus.emit(
                "records.partial",
                device_id=device.id,
                channel_id=channel_id,
                received=len(items),
                expected=found.expected,
            )
        return RecordList(items=items, partial=partial, sum_num=found.expected)


def _in_order(records: Iterable[Record]) -> tuple[Record, ...]:
    """By start, then by end; what has no time comes last."""
    far = float("inf")
    return tuple(
        sorted(
            records,
            key=lambda record: (
                record.start.timestamp() if record.start else far,
                record.end.timestamp() if record.end else far,
                record.name,
            ),
        )
    )
