"""Which recordings a device has (GB/T 28181-2022 9.7): one question, an answer in any number of parts.

A search ends with the last part by `SumNum`, with a silence between parts, or with its time; what is missing then is
said (`partial`). Equal searches that run at once are one, and different ones of a device wait for each other, because
there are recorders that answer only one (PB-05).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

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
        self._turns: dict[str, asyncio.Lock] = {}

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

    async def close(self) -> None:
        """End the searches."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _ask(self, device: Device, question: _Question) -> RecordList:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.all_s
        turn = self._turns.setdefault(device.id, asyncio.Lock())
        try:
            async with asyncio.timeout_at(deadline):
                await turn.acquire()
        except TimeoutError:
            raise GatewayError(
                "gb.route.busy", f"Device {device.id} still answers earlier searches for recordings."
            ) from None
        try:
            return await self._collect(device, question, deadline - loop.time())
        finally:
            turn.release()
            if not turn.locked():
                self._turns.pop(device.id, None)

    async def _collect(self, device: Device, question: _Question, left_s: float) -> RecordList:
        _, channel_id, start, end, kind, location = question
        dialect, zone = dialect_of(device), zone_of(device.timezone or self._timezone)
        found = _Found()

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
                self._registry.add_quirk(device.id, quirk.value, row=quirk.row)
            return found.add(response.records, response.total)

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
            )
        except GatewayError as error:
            if not error.evidence.get("taken"):
                raise
            return RecordList(items=(), partial=False, sum_num=None, answered=False)
        items = found.sorted()
        partial = found.cut or (not complete and (found.total is None or len(items) < found.total))
        if partial:
            self._bus.emit(
                "records.partial",
                device_id=device.id,
                channel_id=channel_id,
                received=len(items),
                expected=found.total,
            )
        return RecordList(items=items, partial=partial, sum_num=found.total)


class _Found:
    """Joins the parts."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.cut = False
        self._records: dict[Record, None] = {}

    def add(self, records: tuple[Record, ...], total: int | None) -> bool:
        """Take a part; True when nothing more can come."""
        for record in records:
            if len(self._records) >= MAX_RECORDS:
                self.cut = True
                return True
            self._records.setdefault(record)
        if total is not None:
            # CAT-02 of lists: a count that only counts this message is not the count of all.
            self.total = max(total, self.total or 0)
        return self.total is not None and len(self._records) >= self.total

    def sorted(self) -> tuple[Record, ...]:
        """By start, then by end; what has no time comes last."""
        far = float("inf")
        return tuple(
            sorted(
                self._records,
                key=lambda record: (
                    record.start.timestamp() if record.start else far,
                    record.end.timestamp() if record.end else far,
                    record.name,
                ),
            )
        )
