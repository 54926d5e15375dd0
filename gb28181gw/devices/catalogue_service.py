"""Queries of catalogues, DeviceInfo and DeviceStatus, and what devices tell unasked (rows CAT-01 to CAT-24, F-12).

A device is asked when it came online and its catalogue is not known to be fresh, when somebody asks for it, and once
a day; one query per device at a time, whoever wants it joins (CAT-06). The answers are collected aside and become
visible as a whole, so the old tree stays until the new one is there. Items are stored before they are visible.

Nothing is deleted on the word of one answer (CAT-03, CAT-17): an item becomes a tombstone when two complete answers
in a row did not list it, or the device said DEL on its bound path. An answer stays open for late parts for a while
after its announced count was reached, since that count is often wrong (CAT-02); only then it is judged complete
for the purpose of deleting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.assembly import MORE_QUIRK
from gb28181gw.devices.catalogue import Collector, Progress, Waits, channel_of
from gb28181gw.devices.config import DevicesConfig
from gb28181gw.devices.dialects import dialect_of, zone_of
from gb28181gw.devices.messages import Envelope
from gb28181gw.devices.models import CatalogueState, Channel, ChannelStatus, Device
from gb28181gw.devices.pacer import Pacer
from gb28181gw.devices.queries import OpenQuery, Queries
from gb28181gw.devices.registry import UNSAVED_FACTS, Registry
from gb28181gw.devices.store import DeviceStore
from gb28181gw.devices.tree import TreeNode, build_tree
from gb28181gw.errors import GatewayError
from gb28181gw.gb.dialect import DateForm
from gb28181gw.gb.ids import NodeKind
from gb28181gw.gb.manscdp.catalogue import CatalogEvent, read_catalog_notify, read_catalog_response
from gb28181gw.gb.manscdp.device import read_device_info_response, read_device_status_response
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.messages import (
    CatalogItem,
    CatalogQuery,
    DeviceInfoQuery,
    DeviceStatusQuery,
    write,
)
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.times import parse_time
from gb28181gw.gb.version import detect_edition
from gb28181gw.observability.events import EventBus

AFTER_ONLINE_S: Final = 0.5
"""A device that just got its 200 is given a moment before it is asked."""
FRESH_S: Final = 600.0
"""A complete catalogue is not asked for again when a device comes back within so long."""
RETRY_S: Final = 3_600.0
"""A partial or failed one is asked for again after so long."""
LATE_MAX_S: Final = 60.0
"""An answer is open for late parts no longer than so long after it was complete."""
SLICE: Final = 250
"""Channels handled in one turn of the loop (I8)."""
CLOCK_WRONG_S: Final = 60.0
ASK_AFTER_NEWS_S: Final = 60.0
"""Notifications of unknown channels make us ask for the catalogue at most so often."""
CHANGES_LIMIT: Final = 20_000
"""Channels changed by unasked messages whose commit waits; beyond, the next query brings them."""


@dataclass(slots=True)
class _Job:
    """A device that waits for its turn, or has it."""

    device: Device
    reason: str
    not_before: float


@dataclass(slots=True)
class _Late:
    """A complete answer that is still open for late parts."""

    device: Device
    query: OpenQuery
    collector: Collector
    until: float
    ends: float


class CatalogueService:
    """Owner of the queue, of running queries and of the channels of all devices."""

    def __init__(
        self,
        *,
        config: DevicesConfig,
        registry: Registry,
        store: DeviceStore,
        queries: Queries,
        pacer: Pacer,
        bus: EventBus,
        clock: Clock,
    ) -> None:
        self.completed = 0
        self.partial = 0
        self.failed = 0
        self.items = 0
        """Items received."""
        self._config = config
        self._registry = registry
        self._store = store
        self._queries = queries
        self._pacer = pacer
        self._bus = bus
        self._clock = clock
        self._ours = frozenset((config.platform_id, config.domain))
        self._waits = Waits(
            first_part_s=config.catalogue_first_part_s, between_parts_s=config.catalogue_between_parts_s
        )
        self._queue: deque[_Job] = deque()
        self._jobs: dict[str, _Job] = {}
        self._wake = asyncio.Event()
        self._late: dict[str, _Late] = {}
        self._told: dict[str, dict[str, Channel]] = {}
        """Device -> channels changed by notifications while its query runs: applied on top of its result (CAT-18)."""
        self._unsaved: dict[tuple[str, str], Channel] = {}
        self._news: dict[str, Device] = {}
        """Devices that told of channels which we do not know."""
        self._date_changed: dict[str, float] = {}
        """When the form of `Date` was changed for a device, in wall time."""
        self._ticks = 0
        registry.on_removed(self._removed)

    # -- asking --------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Devices in the queue: a gauge."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Devices whose query runs: a gauge."""
        return len(self._jobs) - len(self._queue)

    async def refresh(self, device_id: str) -> None:
        """Begin a query, or join the one that runs. Raises gb.route.device_unknown, .offline, .not_approved."""
        self._registry.target(device_id)
        self.enqueue(self._registry.require(device_id), "asked", urgent=True)

    def tree(self, device: Device) -> Sequence[TreeNode]:
        """Every node, parents before their children, without loops."""
        return build_tree(device)

    def enqueue(self, device: Device, reason: str, *, urgent: bool = False) -> None:
        """Have the device asked; nothing happens when it waits or is being asked already (CAT-06)."""
        if device.id in self._jobs or not device.approved:
            return
        delay_s = 0.0 if urgent else AFTER_ONLINE_S
        job = _Job(device, reason, self._clock.monotonic() + delay_s)
        self._jobs[device.id] = job
        device.catalogue_state = CatalogueState.RUNNING
        device.catalogue_received, device.catalogue_expected = 0, None
        if urgent:
            self._queue.appendleft(job)
        else:
            self._queue.append(job)
        self._wake.set()

    def came_online(self, device: Device, reason: str) -> None:
        """Ask a device that is back, unless its catalogue is fresh (CAT-17)."""
        if reason == "restored":
            # Its registration and its catalogue were kept: a restart is no reason to ask thousands of devices.
            if device.catalogue_state is CatalogueState.COMPLETE:
                return
        elif (
            device.catalogue_state is CatalogueState.COMPLETE
            and 0 <= self._clock.wall() - device.catalogue_at < FRESH_S
        ):
            return
        self.enqueue(device, reason)

    async def run(self) -> None:
        """Serve the queue until cancelled: at most `catalogues_in_flight` devices at one time."""
        free = asyncio.Semaphore(self._config.catalogues_in_flight)
        async with asyncio.TaskGroup() as group:
            while True:
                await free.acquire()
                job = await self._next()
                group.create_task(self._serve(job, free))

    async def _next(self) -> _Job:
        while True:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            wait_s = self._queue[0].not_before - self._clock.monotonic()
            if wait_s <= 0:
                return self._queue.popleft()
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _serve(self, job: _Job, free: asyncio.Semaphore) -> None:
        device = job.device
        try:
            if device.online and self._registry.get(device.id) is device:
                await self._query_catalogue(device, job.reason)
                await self._query_info(device)
                await self._query_status(device)
        except Exception as error:  # supervision point: one device must not end the service
            self._bus.emit(
                "gateway.task_failed",
                task=f"catalogue {device.id}",
                error=type(error).__name__,
                detail=str(error),
            )
        finally:
            if device.catalogue_state is CatalogueState.RUNNING:
                device.catalogue_state = CatalogueState.FAILED
            self._jobs.pop(device.id, None)
            free.release()

    # -- the catalogue -------------------------------------------------------------------------------------

    async def _query_catalogue(self, device: Device, reason: str) -> None:
        """Ask, and once again when the answer has gaps; what came is kept in any case (CAT-01)."""
        self._conclude_late(device.id)
        device.catalogue_tried = self._clock.monotonic()
        found: dict[str, Channel] = {}
        before: int | None = None
        for attempt in ("first", "again"):
            started = self._clock.monotonic()
            device.catalogue_state = CatalogueState.RUNNING
            collector = Collector(now=started, limit=device.channel_limit, waits=self._waits)
            moved = asyncio.Event()
            query = self._open(device, collector, moved)
            try:
                self._bus.emit(
                    "catalog.started",
                    device_id=device.id,
                    sn=query.sn,
                    reason=reason if attempt == "first" else "again",
                )
                progress, trouble = await self._collect(device, query, collector, moved)
                found = {**found, **collector.items}
                if collector.dropped:
                    self._bus.emit(
                        "limit.reached", limit="channels", value=device.channel_limit, device_id=device.id
                    )
                if progress is Progress.SILENT and before is not None:
                    # The answer with gaps stands.
                    device.catalogue_state = CatalogueState.PARTIAL
                    return
                if progress is Progress.SILENT:
                    await self._failed(device, query, collector, trouble, started)
                    return
                complete = progress is Progress.COMPLETE
                seen = collector.received
                await self._commit(device, found if not complete else collector.items)
                if collector.received != seen:
                    # Parts beyond the announced count that came during the commit (CAT-02).
                    self._merge(device, collector.items.values())
                # XML-15: the same parts are missing again, so they are lost on the way and not by chance.
                stalled = before == collector.received and device.transport == "udp"
                self._finish(device, query, collector, complete=complete, started=started, stalled=stalled)
                before = collector.received
                if complete:
                    now = self._clock.monotonic()
                    until = now + self._waits.between_parts_s
                    self._late[device.id] = _Late(device, query, collector, until, now + LATE_MAX_S)
                    return
            finally:
                if device.id not in self._late:
                    self._queries.close(query)
                self._told.pop(device.id, None)

    def _open(self, device: Device, collector: Collector, moved: asyncio.Event) -> OpenQuery:
        self._told[device.id] = {}

        def sink(document: Document) -> None:
            self._part(device, collector, document)
            if collector.progress(self._clock.monotonic()) is not Progress.RUNNING:
                moved.set()

        return self._queries.open(device.id, "Catalog", sink)

    async def _collect(
        self, device: Device, query: OpenQuery, collector: Collector, collector_moved: asyncio.Event
    ) -> tuple[Progress, GatewayError | None]:
        """Send the query and wait for the end of its answer."""
        await self._pacer.permit()
        body = write(CatalogQuery(sn=query.sn, device_id=device.id), dialect_of(device).charset_used)
        sending = asyncio.ensure_future(self._queries.send(device, body))
        sending.add_done_callback(lambda _task: collector_moved.set())
        trouble: GatewayError | None = None
        try:
            while (progress := collector.progress(now := self._clock.monotonic())) is Progress.RUNNING:
                if sending.done() and not collector.parts and sending.exception() is not None:
                    # Refused, or never taken: no parts will follow. (Parts without a 200 do happen.)
                    progress = Progress.SILENT
                    break
                collector_moved.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(collector.deadline - now, 0.01)):
                        await collector_moved.wait()
        finally:
            sending.cancel()
            result = (await asyncio.gather(sending, return_exceptions=True))[0]
        if isinstance(result, GatewayError):
            trouble = result
        elif isinstance(result, Exception):
            raise result
        return progress, trouble

    def _part(self, device: Device, collector: Collector, document: Document) -> None:
        """One part of an answer to our SN, in time or late."""
        response = read_catalog_response(document)
        self._note(device, response.quirks, document)
        self.items += len(response.items)
        ours, datum = self._ours, dialect_of(device).datum
        channels = [channel_of(device, item, ours, datum) for item in response.items]
        if not collector.parts and not device.edition:
            self._detect(device, document)
        now = self._clock.monotonic()
        before = collector.beyond
        collector.feed(channels, response.sum_num, now)
        if collector.beyond and not before:
            self._registry.add_quirk(device, MORE_QUIRK)
        late = self._late.get(device.id)
        if late is not None and late.collector is collector:
            late.until = min(now + self._waits.between_parts_s, late.ends)
            self._merge(device, channels)
            device.catalogue_received = collector.received
            return
        device.catalogue_received = collector.received
        device.catalogue_expected = collector.expected

    async def _commit(self, device: Device, items: dict[str, Channel]) -> None:
        """Store what changed, 500 rows a transaction, then let the whole answer be seen at once."""
        old = device.channels
        merged = dict(old)
        changed: list[Channel] = []
        # A copy: late parts may add to the collector while this waits.
        for number, channel in enumerate(tuple(items.values())):
            if old.get(channel.id) != channel:
                changed.append(channel)
                merged[channel.id] = channel
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        others = any(one.id != device.id for one in items.values())
        for channel in [one for one in merged.values() if one.implicit and others and not one.gone]:
            # CAT-14: the stand-in retires once real channels are listed.
            merged[channel.id] = replace(channel, gone=True)
            changed.append(merged[channel.id])
        if changed:
            await self._store.save_channels(changed)
        if self._registry.get(device.id) is device:
            merged.update(self._told.get(device.id, {}))
            device.channels = merged
            for number, channel in enumerate(changed):
                self._registry.channel_changed(device, old.get(channel.id), channel)
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)

    def _finish(
        self,
        device: Device,
        query: OpenQuery,
        collector: Collector,
        *,
        complete: bool,
        started: float,
        stalled: bool,
    ) -> None:
        device.catalogue_state = CatalogueState.COMPLETE if complete else CatalogueState.PARTIAL
        device.catalogue_received = collector.received
        device.catalogue_expected = collector.expected
        device.catalogue_at = self._clock.wall()
        self._registry.unsaved(device, UNSAVED_FACTS)
        duration_ms = round((self._clock.monotonic() - started) * 1000)
        if complete:
            self.completed += 1
            self._bus.emit(
                "catalog.complete",
                device_id=device.id,
                sn=query.sn,
                received=collector.received,
                expected=collector.expected,
                duration_ms=duration_ms,
                channel_count=device.channel_count,
            )
        else:
            self.partial += 1
            self._bus.emit(
                "catalog.partial",
                device_id=device.id,
                sn=query.sn,
                received=collector.received,
                expected=collector.expected,
                duration_ms=duration_ms,
                reason="fragments_lost" if stalled else "quiet",
                channel_count=device.channel_count,
            )

    async def _failed(
        self,
        device: Device,
        query: OpenQuery,
        collector: Collector,
        trouble: GatewayError | None,
        started: float,
    ) -> None:
        """Nothing came. The old catalogue stays; a device without one gets a channel with its own id (CAT-15)."""
        self.failed += 1
        device.catalogue_state = CatalogueState.FAILED
        self._registry.unsaved(device, UNSAVED_FACTS)
        self._bus.emit(
            "catalog.failed",
            device_id=device.id,
            sn=query.sn,
            received=collector.received,
            expected=collector.expected,
            duration_ms=round((self._clock.monotonic() - started) * 1000),
            reason=trouble.reason if trouble is not None else "no_answer",
            detail=trouble.detail
            if trouble is not None
            else "The query was taken, and no catalogue followed.",
        )
        if not device.online or any(not channel.gone for channel in device.channels.values()):
            return
        implicit = Channel(
            device.id,
            device.id,
            device.display_name,
            NodeKind.CAMERA,
            manufacturer=device.manufacturer,
            model=device.model,
            implicit=True,
        )
        await self._store.save_channels([implicit])
        device.channels = {**device.channels, implicit.id: implicit}

    # -- what comes unasked --------------------------------------------------------------------------------

    def unasked_response(self, device: Device, document: Document, envelope: Envelope) -> None:
        """A Catalog answer that nobody asked for, or long ago: it may add and update, never delete (CAT-03)."""
        if not envelope.bound:
            return
        response = read_catalog_response(document)
        self._note(device, response.quirks, document)
        self._changed(device, response.items)

    def notified(self, device: Device, document: Document, envelope: Envelope) -> None:
        """A catalogue notification, by MESSAGE or NOTIFY, subscribed or not (CAT-20, CAT-21)."""
        if not envelope.bound:
            return
        notify = read_catalog_notify(document)
        self._note(device, notify.quirks, document)
        self._changed(device, notify.items)
        if any(self._is_news(device, item) for item in notify.items):
            # CAT-17: something is there of which nothing but its id is known.
            self._news[device.id] = device
            self._ask_for_news()

    def _ask_for_news(self) -> None:
        """Ask devices that told of unknown channels: when no query of theirs runs, and not too often."""
        now = self._clock.monotonic()
        for device in list(self._news.values()):
            if device.id not in self._jobs and now - device.catalogue_tried >= ASK_AFTER_NEWS_S:
                del self._news[device.id]
                if device.online:
                    self.enqueue(device, "notified")

    def _is_news(self, device: Device, item: CatalogItem) -> bool:
        if item.event is CatalogEvent.DEL:
            return False
        known = device.channels.get(item.device_id)
        return item.device_id != device.id and (known is None or known.gone or not known.name)

    def _changed(self, device: Device, items: Iterable[CatalogItem]) -> None:
        before = len(device.channels)
        changed = [
            channel
            for item in items
            if (channel := self._apply(device, item)) is not None
            and channel != device.channels.get(channel.id)
        ]
        if not changed:
            return
        old = {channel.id: device.channels.get(channel.id) for channel in changed}
        removed = sum(channel.gone for channel in changed)
        self._merge(device, changed)
        added = len(device.channels) - before
        switched = 0
        for channel in changed:
            known = old[channel.id]
            if known is not None and known == replace(channel, status=known.status, fault=known.fault):
                switched += 1
                self._bus.emit(
                    "channel.status",
                    device_id=device.id,
                    channel_id=channel.id,
                    status=channel.status.value,
                    fault=channel.fault or None,
                )
        if switched < len(changed):
            self._bus.emit(
                "catalog.changed",
                device_id=device.id,
                channel_id=changed[0].id if len(changed) == 1 else None,
                added=added,
                updated=len(changed) - added - removed - switched,
                removed=removed,
            )

    def _apply(self, device: Device, item: CatalogItem) -> Channel | None:
        """The channel as it is after one item; None: it says nothing of a channel that we know or may add."""
        old = device.channels.get(item.device_id)
        match item.event:
            case CatalogEvent.ON | CatalogEvent.OFF:
                status = ChannelStatus.ON if item.event is CatalogEvent.ON else ChannelStatus.OFF
                return replace(old, status=status, fault="") if old is not None else None
            case CatalogEvent.VLOST | CatalogEvent.DEFECT:
                return replace(old, fault=item.event.value) if old is not None else None
            case CatalogEvent.DEL:
                return replace(old, gone=True) if old is not None else None
        if old is None and item.event is not None and not item.name and item.status is ChannelStatus.UNKNOWN:
            return None  # its id alone makes no channel; the catalogue is asked for it
        if old is not None and not item.name and not item.parent_id and not item.manufacturer:
            # An update that names nothing but a state keeps the rest.
            return (
                replace(old, status=item.status, gone=False)
                if item.status is not ChannelStatus.UNKNOWN
                else old
            )
        return channel_of(device, item, self._ours, dialect_of(device).datum)

    def _merge(self, device: Device, channels: Iterable[Channel]) -> None:
        """Let changed channels be seen at once, and store them with the next batch."""
        told = self._told.get(device.id)
        over = 0
        for channel in channels:
            if channel.id not in device.channels and len(device.channels) >= device.channel_limit:
                over += 1
                continue
            before = device.channels.get(channel.id)
            if before == channel:
                continue
            device.channels[channel.id] = channel
            self._registry.channel_changed(device, before, channel)
            if told is not None:
                told[channel.id] = channel
            if len(self._unsaved) < CHANGES_LIMIT:
                self._unsaved[device.id, channel.id] = channel
        if over:
            self._bus.emit("limit.reached", limit="channels", value=device.channel_limit, device_id=device.id)

    async def flush(self) -> None:
        """Store what was changed by unasked messages; what fails is tried again the next time."""
        if not self._unsaved:
            return
        changed, self._unsaved = self._unsaved, {}
        try:
            await self._store.save_channels(list(changed.values()))
        except GatewayError:
            self._unsaved = {**changed, **self._unsaved}

    # -- deleting ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Called once a second: closes answers that wait for late parts, and asks again what is old."""
        now = self._clock.monotonic()
        for late in [late for late in self._late.values() if now >= late.until]:
            self._conclude_late(late.device.id)
        if self._news:
            self._ask_for_news()
        self._ticks += 1
        if self._ticks % 60 == 0:
            self._ask_again(now)

    def _conclude_late(self, device_id: str) -> None:
        """No more late parts: what a complete answer did not list is missed once more (CAT-17)."""
        late = self._late.pop(device_id, None)
        if late is None:
            return
        self._queries.close(late.query)
        listed = late.collector.items
        device = late.device
        if late.collector.dropped:
            return
        missing = [
            replace(channel, missed=channel.missed + 1, gone=channel.missed >= 1)
            for channel in device.channels.values()
            if channel.id not in listed and not channel.gone and not channel.implicit
        ]
        if not missing:
            return
        self._merge(device, missing)
        removed = sum(channel.gone for channel in missing)
        if removed:
            self._bus.emit("catalog.changed", device_id=device.id, added=0, updated=0, removed=removed)

    def _ask_again(self, now: float) -> None:
        """Once a day, or an hour after an answer with gaps."""
        every_s = self._config.catalogue_every_s
        for device in self._registry:
            if not device.online or not device.approved or device.catalogue_state is CatalogueState.RUNNING:
                continue
            if device.catalogue_state is CatalogueState.COMPLETE:
                # `catalogue_tried` is 0 after a restart: then the stored time of the last answer decides.
                old = self._clock.wall() - device.catalogue_at >= every_s
            else:
                old = now - device.catalogue_tried >= RETRY_S
            if old:
                self.enqueue(
                    device, "daily" if device.catalogue_state is CatalogueState.COMPLETE else "retry"
                )

    def _removed(self, device: Device) -> None:
        self._news.pop(device.id, None)
        self._date_changed.pop(device.id, None)
        late = self._late.pop(device.id, None)
        if late is not None:
            self._queries.close(late.query)

    # -- DeviceInfo and DeviceStatus -----------------------------------------------------------------------

    async def _query_info(self, device: Device) -> None:
        await self._pacer.permit()
        charset = dialect_of(device).charset_used
        try:
            document = await self._queries.ask(
                device, "DeviceInfo", lambda sn: write(DeviceInfoQuery(sn=sn, device_id=device.id), charset)
            )
        except GatewayError:
            return  # many do not answer; the catalogue is what counts
        info = read_device_info_response(document)
        self._note(device, info.quirks, document)
        device.manufacturer = info.manufacturer or device.manufacturer
        device.model = info.model or device.model
        device.firmware = info.firmware or device.firmware
        device.reported_name = info.name or device.reported_name
        self._registry.unsaved(device, UNSAVED_FACTS)
        self._registry.match_profile(device)
        self._bus.emit(
            "device.info",
            device_id=device.id,
            manufacturer=device.manufacturer or None,
            model=device.model or None,
            firmware=device.firmware or None,
            channel_count=info.channel_count,
            edition=device.edition or None,
        )

    async def _query_status(self, device: Device) -> None:
        await self._pacer.permit()
        charset = dialect_of(device).charset_used
        try:
            document = await self._queries.ask(
                device,
                "DeviceStatus",
                lambda sn: write(DeviceStatusQuery(sn=sn, device_id=device.id), charset),
            )
        except GatewayError:
            return
        status = read_device_status_response(document)
        self._note(device, status.quirks, document)
        if status.status.upper() not in ("", "OK") or status.online is False:
            self._bus.emit(
                "device.status",
                device_id=device.id,
                online=status.online,
                status=status.status,
                reason="status",
                detail=status.reason or None,
            )
        if status.device_time:
            told = parse_time(status.device_time, zone_of(device.timezone or self._config.timezone))
            offset_s = told.timestamp() - self._clock.wall() if told is not None else 0.0
            if abs(offset_s) > CLOCK_WRONG_S:
                self._bus.emit("device.clock_wrong", device_id=device.id, offset_s=round(offset_s))
                self._learn_date(device, offset_s)

    def _learn_date(self, device: Device, offset_s: float) -> None:
        """TM-01: a clock that is wrong by just the zone was set by a Date that the device reads otherwise."""
        zone = zone_of(device.timezone or self._config.timezone).utcoffset(None).total_seconds()
        dialect = dialect_of(device)
        if not zone or abs(abs(offset_s) - abs(zone)) > CLOCK_WRONG_S or "date" in device.dialect:
            return
        if (device.registered_at or 0.0) < self._date_changed.get(device.id, 0.0):
            return  # it has not had a Date in the new form yet
        self._date_changed[device.id] = self._clock.wall()
        if dialect.date is DateForm.ISO and "date" not in device.learnt:
            self._registry.learn(device, "date", DateForm.GMT.value, "its clock is wrong by the zone")
        elif dialect.date is DateForm.GMT and device.learnt.get("date") == DateForm.GMT.value:
            # Neither form suits it: its clock is its own affair.
            self._registry.learn(
                device, "date", DateForm.OFF.value, "its clock is wrong by the zone either way"
            )

    # -- helpers -------------------------------------------------------------------------------------------

    def _detect(self, device: Device, document: Document) -> None:
        edition = detect_edition(document)
        if edition is not None:
            self._registry.learn_edition(device, edition, "catalogue")

    def _note(self, device: Device, quirks: tuple[Quirk, ...], document: Document) -> None:
        """Count what the reader of the message tolerated beyond what the XML reader did."""
        if quirks and quirks != document.quirks:
            for quirk in quirks:
                if quirk not in document.quirks:
                    self._registry.add_quirk(device, quirk.value, row=quirk.row)
