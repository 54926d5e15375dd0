"""Subscriptions to what devices can tell: catalogue, alarms, positions, PTZ positions (GB/T 28181-2022 9.11, Annex N).

Theory of operation. What is wanted of a device follows from the configuration or the device's own setting; each wish
is an `_Entry`, which lives as long as the wish. An entry that has something to do lies in a heap by its time and
waits there for its turn; a device that is away has its entries out of the heap until it is back.

A subscription is renewed at half of its time (CAT-19), within its dialog. A renewal that is refused makes a new one
at once: the device forgot. Silence and refusals are tried again, later each time. What the device does not know
(405, 489, 501, …) is remembered over restarts and tried again after a week, when its firmware changed, or when a
person asks. A device that registers anew while it counts as online may have restarted: its subscriptions are renewed
at once. A granted subscription is written before it counts, so it survives a restart of ours; nothing is ended then.

Notifications come through `Messages`, which knows who may speak; here they are matched to a subscription (CAT-21)
and their Subscription-State is obeyed. What they tell goes its usual way, with or without a subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from math import inf
from typing import Final, Protocol

from gb28181gw.clock import Clock
from gb28181gw.devices.dialects import dialect_of, zone_of
from gb28181gw.devices.messages import Messages
from gb28181gw.devices.models import Device, listed_channels
from gb28181gw.devices.pacer import Pacer
from gb28181gw.devices.presence import PresenceKeeper
from gb28181gw.devices.registry import ChannelChange, Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.manscdp.catalogue import CatalogEvent
from gb28181gw.gb.manscdp.commands import COMMANDS, write_command
from gb28181gw.gb.manscdp.document import result_ok
from gb28181gw.gb.manscdp.messages import CONTENT_TYPE
from gb28181gw.gb.manscdp.schema import Style, Value
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.message import Request
from gb28181gw.ua.models import Target
from gb28181gw.ua.subscriptions import Belonging, Heard, Subscription, Subscriptions

RETRY_MAX_S: Final = 3_600.0
RENEW_MIN_S: Final = 15.0
"""However short a device's grant is."""
UNSUPPORTED_S: Final = 7 * 86_400.0
RESTARTED_S: Final = 10.0
"""A subscription renewed less than so long ago is not renewed again because the device registered anew."""
ENDED_EARLY_S: Final = 30.0
"""A device that ends a subscription so soon does not want it."""
ANSWER_S: Final = 10.0
END_S: Final = 3.0
PTZ_CHANNELS: Final = 64
"""Cameras of one device whose PTZ position is subscribed."""
SLICE: Final = 250
"""Records or devices handled in one turn of the loop."""
ROWS_AT_ONCE: Final = 500
HEAP_LIMIT: Final = 10_000
"""Places in the heap before outdated ones are looked for."""
MOVABLE: Final = frozenset("1457")
"""`PTZType` of cameras that can turn or zoom."""
UNKNOWN_STATUS: Final = frozenset({405, 415, 420, 489, 501})
"""The device does not know SUBSCRIBE, or not this one."""


class Kind(StrEnum):
    """What can be subscribed; names of the configuration and of the API."""

    CATALOG = "catalog"
    ALARM = "alarm"
    POSITION = "position"
    PTZ = "ptz"


DEFAULT_KINDS: Final = (Kind.CATALOG, Kind.ALARM, Kind.POSITION)

COMMAND: Final = {
    Kind.CATALOG: "Catalog",
    Kind.ALARM: "Alarm",
    Kind.POSITION: "MobilePosition",
    Kind.PTZ: "PTZPosition",
}
"""CmdType of the body."""


class SubscriptionState(StrEnum):
    """Of one entry, as people see it."""

    WAITING = "waiting"
    """For its turn, or for the device to be online."""
    ACTIVE = "active"
    FAILED = "failed"
    """Refused or not answered; tried again."""
    UNSUPPORTED = "unsupported"
    """The device does not know it; tried again after a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeConfig:
    """`[sip] subscribe` and its times."""

    kinds: tuple[Kind, ...] = DEFAULT_KINDS
    expires_s: int = 600
    """N.2.1.2.1."""
    position_interval_s: int = 5
    """A.2.4.9."""
    timezone: str = "+08:00"
    after_online_s: float = 1.0
    """When a device came online; its catalogue query has begun then."""
    retry_s: float = 60.0
    """After the first refusal or silence; doubled each time."""
    in_flight: int = 500
    """SUBSCRIBE requests that wait for their answer: many old devices never give one."""
    requests_per_s: float = 200.0
    """Pace of SUBSCRIBE: 10,000 devices with three kinds need 100 a second at the default time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRecord:
    """One row of the store."""

    device_id: str
    kind: str
    target: str
    """DeviceID of the body: the device, or a camera (ptz)."""
    event: str = ""
    """Value of `Event` that the device took."""
    dialog: Mapping[str, object] | None = None
    """Record of a `ua.subscriptions.Subscription`; None: not supported."""
    until: float = 0.0
    """Wall time: end of the subscription, or of the belief that it is not supported."""
    note: str = ""
    """Firmware that did not know it."""


class SubscriptionStore(Protocol):
    """Keeps what devices granted; `storage` implements it. Calls raise gb.route.storage_unavailable."""

    async def load_subscriptions(self) -> list[SubscriptionRecord]: ...

    async def save_subscription(self, record: SubscriptionRecord) -> None: ...

    async def remove_subscription(self, device_id: str, kind: str, target: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionView:
    """One entry, for the API. Times are seconds since 1970 UTC."""

    kind: Kind
    target: str
    state: SubscriptionState
    event: str
    since: float | None
    expires_at: float | None
    renewed_at: float | None
    notified_at: float | None
    notifies: int
    failures: int
    reason: str
    detail: str
    sip_status: int | None


@dataclass(slots=True)
class SubscriptionCounters:
    """Plain counters for the exporter."""

    subscribed: int = 0
    renewed: int = 0
    refused: int = 0
    unanswered: int = 0
    ended_by_us: int = 0
    ended_by_device: int = 0
    notifies: int = 0
    notifies_off_dialog: int = 0
    """Known by their Call-ID alone (CAT-21)."""
    notifies_unasked: int = 0
    """Of no subscription of ours."""
    notifies_after_end: int = 0
    """Answered 481."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Entry:
    device: Device
    kind: Kind
    target: str
    state: SubscriptionState = SubscriptionState.WAITING
    held: Subscription | None = None
    event: str = ""
    since: float = 0.0
    until: float = 0.0
    renewed_at: float = 0.0
    notified_at: float = 0.0
    notifies: int = 0
    failures: int = 0
    reason: str = ""
    detail: str = ""
    sip_status: int | None = None
    note: str = ""
    due: float = inf
    """Monotonic; infinite: nothing to do until somebody says so."""
    busy: bool = False
    gone: bool = False


_Key = tuple[Kind, str]


class DeviceSubscriptions:
    """Owner of all entries and of the task that serves them."""

    def __init__(
        self,
        *,
        config: SubscribeConfig,
        registry: Registry,
        presence: PresenceKeeper,
        messages: Messages,
        subscriptions: Subscriptions,
        store: SubscriptionStore,
        bus: EventBus,
        clock: Clock,
        next_sn: Callable[[], int],
    ) -> None:
        self.counters = SubscriptionCounters()
        self._config = config
        self._registry = registry
        self._presence = presence
        self._messages = messages
        self._ua = subscriptions
        self._pacer = Pacer(rate=config.requests_per_s, clock=clock)
        self._store = store
        self._bus = bus
        self._clock = clock
        self._next_sn = next_sn
        self._rng = random.Random()  # noqa: S311 - spreads renewals over time, nothing depends on it
        self._entries: dict[str, dict[_Key, _Entry]] = {}
        """By device."""
        self._held: dict[str, _Entry] = {}
        """By Call-ID."""
        self._heap: list[tuple[float, int, _Entry]] = []
        self._heap_limit = HEAP_LIMIT
        self._order = count()
        self._wake = asyncio.Event()
        self._looking: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._loaded = False
        """Before, nothing is decided: what is not in memory yet may have been granted."""

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the notifications; after the registry is loaded and presence restored. `begin` follows."""
        self._presence.on_online(self._online)
        self._presence.on_offline(self._offline)
        self._presence.on_returned(self._returned)
        self._registry.on_approved(lambda device: self._sync(device, self._config.after_online_s))
        self._registry.on_changed(self._changed)
        self._registry.on_removed(self._removed)
        self._registry.on_channel_changed(self._channel_changed)
        self._messages.on_notify(self._hear)

    def begin(self) -> None:
        """Remember what was granted, and start asking; when the SIP listeners are open."""
        self._runner = asyncio.get_running_loop().create_task(self._supervised())

    async def _load(self) -> None:
        """30,000 dialogs take a second or two: nobody waits for them, and the loop goes on between (I8)."""
        stale: list[SubscriptionRecord] = []
        for number, record in enumerate(await self._store.load_subscriptions()):
            if not self._restore(record):
                stale.append(record)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._loaded = True
        if stale:
            self._spawn(self._forget_rows(stale))
        for number, device in enumerate(self._registry.all()):
            self._sync(device, self._config.after_online_s)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Subscriptions go on: they are the next process's."""
        tasks = [*self._tasks, *([self._runner] if self._runner is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _restore(self, record: SubscriptionRecord) -> bool:
        """False: it is of no use any more."""
        device = self._registry.get(record.device_id)
        now, wall = self._clock.monotonic(), self._clock.wall()
        if device is None or record.kind not in set(Kind) or record.until <= wall:
            return False
        entry = _Entry(device=device, kind=Kind(record.kind), target=record.target, event=record.event)
        entry.until, entry.note = record.until, record.note
        if record.dialog is None:
            entry.state, entry.reason = SubscriptionState.UNSUPPORTED, "unsupported"
            entry.due = now + (record.until - wall)
        else:
            try:
                held = Subscription.from_record(record.dialog)
            except (KeyError, ValueError):
                return False
            self._ua.keep(held)
            self._hold(entry, held)
            entry.state = SubscriptionState.ACTIVE
            # Its half was counted from the grant; a restart must not make all of them due at once.
            entry.due = now + min((record.until - wall) * self._rng.uniform(0.3, 0.5), self._config.expires_s)
        self._entries.setdefault(device.id, {})[entry.kind, entry.target] = entry
        self._queue(entry)
        return True

    # -- what is wanted ------------------------------------------------------------------------------------

    def _wanted(self, device: Device) -> set[_Key]:
        if not device.approved:
            return set()
        chosen = self._config.kinds if device.subscribe is None else tuple(map(Kind, device.subscribe))
        wanted: set[_Key] = {(kind, device.id) for kind in chosen if kind is not Kind.PTZ}
        edition = dialect_of(device).edition
        if edition < Edition.V2_0:
            wanted.discard((Kind.POSITION, device.id))
        if Kind.PTZ in chosen and edition >= Edition.V3_0:
            movable = [one.id for one in listed_channels(device) if MOVABLE & set(one.ptz_type)]
            wanted |= {(Kind.PTZ, channel_id) for channel_id in movable[:PTZ_CHANNELS]}
        return wanted

    def _sync(self, device: Device, after_s: float) -> None:
        """Make the entries those that are wanted."""
        if not self._loaded:
            return  # it is done for all devices then
        entries = self._entries.get(device.id, {})
        wanted = self._wanted(device)
        for key in [key for key in entries if key not in wanted]:
            self._drop(entries.pop(key), "not_wanted", tell=True)
        for key in wanted - entries.keys():
            entry = _Entry(device=device, kind=key[0], target=key[1])
            self._entries.setdefault(device.id, {})[key] = entry
            self._when(entry, after_s)
        if not entries and not wanted:
            self._entries.pop(device.id, None)

    def of(self, device: Device) -> list[SubscriptionView]:
        """What is wanted of a device, and how it stands."""
        entries = self._entries.get(device.id, {})
        return [self._view(entries[key]) for key in sorted(entries)]

    def _view(self, entry: _Entry) -> SubscriptionView:
        return SubscriptionView(
            kind=entry.kind,
            target=entry.target,
            state=_shown(entry),
            event=entry.event,
            since=entry.since or None,
            expires_at=entry.until if entry.held is not None else None,
            renewed_at=entry.renewed_at or None,
            notified_at=entry.notified_at or None,
            notifies=entry.notifies,
            failures=entry.failures,
            reason=entry.reason,
            detail=entry.detail,
            sip_status=entry.sip_status,
        )

    def counts(self) -> dict[tuple[str, str], int]:
        """Entries by kind and state: a gauge."""
        found: Counter[tuple[str, str]] = Counter()
        for entries in self._entries.values():
            for entry in entries.values():
                found[entry.kind.value, _shown(entry).value] += 1
        return dict(found)

    def renew(self, device_id: str) -> None:
        """Try everything of a device now, also what it did not know. Raises gb.route.device_unknown, .offline,
        .not_approved."""
        self._registry.target(device_id)
        device = self._registry.require(device_id)
        self._sync(device, 0.0)
        for entry in self._entries.get(device_id, {}).values():
            entry.failures = 0
            self._when(entry, 0.0)

    # -- what happens to devices ---------------------------------------------------------------------------

    def _online(self, device: Device, reason: str) -> None:
        self._sync(device, self._config.after_online_s)
        for entry in self._entries.get(device.id, {}).values():
            if self._still_unsupported(entry):
                continue
            entry.failures = 0
            self._when(entry, self._config.after_online_s)

    def _still_unsupported(self, entry: _Entry) -> bool:
        """A device with another firmware may know more."""
        return entry.state is SubscriptionState.UNSUPPORTED and entry.note == entry.device.firmware

    def _returned(self, device: Device) -> None:
        """It registered anew without having been away: perhaps it restarted and knows nothing any more."""
        recent = self._clock.wall() - RESTARTED_S
        for entry in self._entries.get(device.id, {}).values():
            if not self._still_unsupported(entry) and entry.renewed_at < recent:
                self._when(entry, self._config.after_online_s)

    def _offline(self, device: Device, reason: str) -> None:
        for entry in self._entries.get(device.id, {}).values():
            if entry.state is not SubscriptionState.UNSUPPORTED:
                entry.due = inf
            if reason == "unregistered":
                # It has ended everything by itself (REG-11).
                self._let_go(entry)

    def _changed(self, device: Device) -> None:
        self._sync(device, 0.0)

    def _removed(self, device: Device) -> None:
        for entry in self._entries.pop(device.id, {}).values():
            self._drop(entry, "device_removed", tell=True)

    def _channel_changed(self, device_id: str, change: ChannelChange) -> None:
        """Cameras that come and go, for those whose PTZ position is wanted."""
        if change.event not in (CatalogEvent.ADD, CatalogEvent.DEL, CatalogEvent.UPDATE):
            return
        device = self._registry.get(device_id)
        if device is None:
            return
        chosen = self._config.kinds if device.subscribe is None else device.subscribe
        if Kind.PTZ in chosen and device_id not in self._looking:
            # One look at the end of this turn of the loop, however many channels changed.
            self._looking.add(device_id)
            asyncio.get_running_loop().call_soon(self._look_again, device)

    def _look_again(self, device: Device) -> None:
        self._looking.discard(device.id)
        if self._registry.get(device.id) is device:
            self._sync(device, self._config.after_online_s)

    # -- the queue -----------------------------------------------------------------------------------------

    def _when(self, entry: _Entry, after_s: float) -> None:
        """Serve the entry after so long, if its device is there then."""
        if not entry.device.online:
            entry.due = inf
            return
        entry.due = self._clock.monotonic() + after_s
        self._queue(entry)

    def _queue(self, entry: _Entry) -> None:
        if entry.due == inf:
            return
        if len(self._heap) > self._heap_limit:
            # Devices that come and go leave places behind which nobody will come to for a week.
            self._heap = [place for place in self._heap if place[0] == place[2].due and not place[2].gone]
            heapq.heapify(self._heap)
            self._heap_limit = max(HEAP_LIMIT, 2 * len(self._heap))
        heapq.heappush(self._heap, (entry.due, next(self._order), entry))
        if self._heap[0][2] is entry:
            self._wake.set()

    async def _supervised(self) -> None:
        while True:
            try:
                await self._run()
            except Exception as error:  # supervision point
                self._bus.emit(
                    "gateway.task_failed",
                    task="subscriptions",
                    error=type(error).__name__,
                    detail=str(error)[:200],
                )
            await asyncio.sleep(1.0)

    async def _run(self) -> None:
        """Serve the heap until cancelled: at most `in_flight` requests at one time."""
        if not self._loaded:
            await self._load()
        free = asyncio.Semaphore(self._config.in_flight)
        async with asyncio.TaskGroup() as group:
            while True:
                await free.acquire()
                group.create_task(self._serve(await self._next(), free))

    async def _next(self) -> _Entry:
        """The next entry whose time has come; it is `busy` then."""
        while True:
            self._wake.clear()
            wait_s: float | None = None
            while self._heap:
                due, _, entry = self._heap[0]
                if entry.gone or entry.busy or entry.due != due:
                    heapq.heappop(self._heap)  # was moved, is served, or is not wanted any more
                    continue
                wait_s = due - self._clock.monotonic()
                if wait_s > 0:
                    break
                heapq.heappop(self._heap)
                entry.due, entry.busy = inf, True
                return entry
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _serve(self, entry: _Entry, free: asyncio.Semaphore) -> None:
        try:
            if entry.device.online and entry.device.approved:
                await self._pacer.permit()
                await self._ask(entry)
        except GatewayError as error:
            self._failed(entry, error)
        except Exception as error:  # supervision point: one device must not end the service
            self._failed(entry, GatewayError("gb.route.internal", f"{type(error).__name__}: {error}"))
            self._bus.emit(
                "gateway.task_failed",
                task=f"subscription {entry.device.id}",
                error=type(error).__name__,
                detail=str(error)[:200],
            )
        finally:
            entry.busy = False
            self._queue(entry)
            free.release()
            if entry.gone and entry.held is not None:
                # It was not wanted any more while its answer was under way.
                self._end(entry)

    # -- asking --------------------------------------------------------------------------------------------

    async def _ask(self, entry: _Entry) -> None:
        """Renew what is held, or subscribe. Raises GatewayError."""
        held = entry.held
        if held is not None and self._clock.wall() < entry.until:
            target = await self._target(entry)
            try:
                await self._ua.refresh(
                    held,
                    expires_s=self._config.expires_s,
                    body=self._body(entry),
                    content_type=CONTENT_TYPE,
                    path=target.path,
                    timeout_s=ANSWER_S,
                )
            except GatewayError as error:
                if error.sip_status is None:
                    if error.code == "gb.sip.no_answer":
                        # The device may have lost the dialog, so the next try is a new one.
                        self._let_go(entry)
                    raise
            else:
                _insist_on_ok(entry, held.answer)
                self.counters.renewed += 1
                await self._granted(entry, held)
                return
        self._let_go(entry)
        held = await self._subscribe(entry)
        self._hold(entry, held)
        entry.event, entry.since = held.event, self._clock.wall()
        try:
            _insist_on_ok(entry, held.answer)
        except GatewayError:
            self._let_go(entry)
            raise
        self.counters.subscribed += 1
        await self._granted(entry, held)
        self._bus.emit(
            "subscription.started",
            device_id=entry.device.id,
            channel_id=entry.target if entry.target != entry.device.id else None,
            kind=entry.kind.value,
            expires_s=held.granted_s,
            call_id=held.dialog.call_id,
        )

    async def _subscribe(self, entry: _Entry) -> Subscription:
        """With the Event that the device took before, or those that devices know, one after the other."""
        forms = list(dict.fromkeys((*([entry.event] if entry.event else []), *self._events(entry.kind))))
        for number, event in enumerate(forms):
            try:
                return await self._ua.subscribe(
                    await self._target(entry),
                    event=event,
                    expires_s=self._config.expires_s,
                    body=self._body(entry),
                    content_type=CONTENT_TYPE,
                    timeout_s=ANSWER_S,
                )
            except GatewayError as error:
                if error.sip_status != 489 or number == len(forms) - 1:
                    raise
        raise GatewayError("gb.sip.no_answer")  # there is always a form

    def _events(self, kind: Kind) -> tuple[str, ...]:
        """`Catalog;id=` by N.4.2; the samples of 2016 have ``presence`` for everything else; some know only the name
        of the command."""
        number = str(self._rng.randrange(1, 100_000))
        if kind is Kind.CATALOG:
            return (f"Catalog;id={number}", "presence")
        return ("presence", f"{COMMAND[kind]};id={number}")

    async def _target(self, entry: _Entry) -> Target:
        found = await self._registry.reach(entry.device.id)
        return Target(path=found.path, user=entry.target, domain=found.domain)

    def _body(self, entry: _Entry) -> bytes:
        dialect = dialect_of(entry.device)
        values: dict[str, Value] = {}
        if entry.kind is Kind.ALARM:
            values = {"StartAlarmPriority": 0, "EndAlarmPriority": 0, "AlarmMethod": "0"}
        elif entry.kind is Kind.POSITION:
            values = {"Interval": self._config.position_interval_s}
        style = Style(
            edition=dialect.edition,
            zone=zone_of(entry.device.timezone or self._config.timezone),
            forced=True,
        )
        return write_command(
            COMMANDS[COMMAND[entry.kind]],
            self._next_sn(),
            entry.target,
            values,
            charset=dialect.charset_used,
            style=style,
        )

    async def _granted(self, entry: _Entry, held: Subscription) -> None:
        """Write it, then let it count."""
        now = self._clock.wall()
        self._presence.seen(entry.device, "answer")
        entry.until = now + held.granted_s
        entry.renewed_at = now
        record = SubscriptionRecord(
            device_id=entry.device.id,
            kind=entry.kind.value,
            target=entry.target,
            event=held.event,
            dialog=held.to_record(),
            until=entry.until,
        )
        with contextlib.suppress(GatewayError):  # F-15: without a store it lives as long as this process
            await self._store.save_subscription(record)
        if entry.held is not held:
            return  # ended by the device meanwhile
        entry.state = SubscriptionState.ACTIVE
        entry.failures = 0
        entry.reason = entry.detail = ""
        entry.sip_status = None
        self._renew_after(entry, held.granted_s)

    def _renew_after(self, entry: _Entry, granted_s: float) -> None:
        wait_s = max(granted_s * self._rng.uniform(0.45, 0.55), min(RENEW_MIN_S, granted_s * 0.9))
        if entry.device.online:
            # Something may have asked for an earlier look while the answer was under way.
            entry.due = min(entry.due, self._clock.monotonic() + wait_s)

    # -- refusals ------------------------------------------------------------------------------------------

    def _failed(self, entry: _Entry, error: GatewayError) -> None:
        if entry.gone:
            return
        entry.failures += 1
        entry.reason, entry.detail, entry.sip_status = error.reason, error.detail, error.sip_status
        if error.sip_status is None:
            self.counters.unanswered += 1
        else:
            self.counters.refused += 1
            self._presence.seen(entry.device, "answer")
        if error.sip_status in UNKNOWN_STATUS:
            self._unsupported(entry)
        else:
            entry.state = SubscriptionState.FAILED
            told = error.evidence.get("retry_after_s")
            wait_s = min(self._config.retry_s * 2.0 ** min(entry.failures - 1, 16), RETRY_MAX_S)
            if isinstance(told, int) and 0 < told <= UNSUPPORTED_S:
                wait_s = max(wait_s, float(told))
            self._when(entry, wait_s * self._rng.uniform(0.9, 1.1))
        if entry.failures == 1 or entry.state is SubscriptionState.UNSUPPORTED:
            self._bus.emit(
                "subscription.failed",
                device_id=entry.device.id,
                channel_id=entry.target if entry.target != entry.device.id else None,
                kind=entry.kind.value,
                reason="unsupported" if entry.state is SubscriptionState.UNSUPPORTED else error.reason,
                sip_status=error.sip_status,
                detail=error.detail,
            )

    def _unsupported(self, entry: _Entry) -> None:
        """Remember it over restarts."""
        entry.state = SubscriptionState.UNSUPPORTED
        entry.note = entry.device.firmware
        entry.until = self._clock.wall() + UNSUPPORTED_S
        self._when(entry, UNSUPPORTED_S)
        self._spawn(
            self._save(
                SubscriptionRecord(
                    device_id=entry.device.id,
                    kind=entry.kind.value,
                    target=entry.target,
                    until=entry.until,
                    note=entry.note,
                )
            )
        )

    # -- endings -------------------------------------------------------------------------------------------

    def _hold(self, entry: _Entry, held: Subscription) -> None:
        entry.held = held
        self._held[held.dialog.call_id] = entry

    def _let_go(self, entry: _Entry) -> None:
        """Nothing is held any more; the peer is not told."""
        held, entry.held = entry.held, None
        if held is None:
            return
        self._ua.forget(held)
        self._held.pop(held.dialog.call_id, None)
        if entry.state is SubscriptionState.ACTIVE:
            entry.state = SubscriptionState.WAITING
        self._spawn(self._forget_row(entry.device.id, entry.kind.value, entry.target))

    def _drop(self, entry: _Entry, reason: str, *, tell: bool) -> None:
        """The entry is not wanted any more."""
        entry.gone, entry.due = True, inf
        if entry.held is None:
            self._spawn(self._forget_row(entry.device.id, entry.kind.value, entry.target))
            return
        self._bus.emit(
            "subscription.ended",
            device_id=entry.device.id,
            channel_id=entry.target if entry.target != entry.device.id else None,
            kind=entry.kind.value,
            reason=reason,
        )
        if tell and not entry.busy:
            self._end(entry)

    def _end(self, entry: _Entry) -> None:
        """Expires: 0, for which nobody waits."""
        held = entry.held
        if held is None:
            return
        self._let_go(entry)
        self._ua.forget(held, ended=True)
        if self._clock.wall() < entry.until:
            self.counters.ended_by_us += 1
            self._spawn(self._unsubscribe(entry, held))

    async def _unsubscribe(self, entry: _Entry, held: Subscription) -> None:
        path = self._registry.path_of(entry.device.id)
        with contextlib.suppress(GatewayError):  # it ends by its time then
            await self._ua.end(
                held, body=self._body(entry), content_type=CONTENT_TYPE, path=path, timeout_s=END_S
            )

    # -- notifications -------------------------------------------------------------------------------------

    def _hear(self, device: Device, request: Request) -> int:
        """A NOTIFY on the bound path of `device`; the status of its answer."""
        heard = self._ua.hear(request)
        self.counters.notifies += 1
        if heard.belonging is Belonging.ENDED:
            # RFC 6665 4.1.3: the device learns that nobody listens.
            self.counters.notifies_after_end += 1
            return 481
        if heard.belonging is Belonging.NONE and not self._loaded:
            return 200
        if heard.belonging is Belonging.NONE:
            self.counters.notifies_unasked += 1
            self._registry.add_quirk(device, "notify.unasked", row="CAT-21")
            return 200
        if heard.belonging is Belonging.EARLY:
            return 200
        entry = self._held.get(request.call_id)
        if entry is None or entry.device is not device:
            # The Call-ID of another device's subscription: it speaks for itself only (S-03).
            self.counters.notifies_unasked += 1
            return 200
        if heard.belonging is Belonging.CALL_ID:
            self.counters.notifies_off_dialog += 1
            self._registry.add_quirk(device, "notify.dialog_differs", row="CAT-21")
        entry.notifies += 1
        entry.notified_at = self._clock.wall()
        if heard.state == "terminated":
            self._terminated(entry, heard)
        elif heard.expires_s is not None and heard.expires_s >= RENEW_MIN_S:
            self._shortened(entry, heard.expires_s)
        return 200

    def _shortened(self, entry: _Entry, expires_s: int) -> None:
        """RFC 6665 4.1.2.2: the notifier may shorten at any time."""
        until = self._clock.wall() + expires_s
        if until < entry.until - 1.0 and not entry.busy:
            entry.until = until
            due = self._clock.monotonic() + expires_s * 0.5
            if due < entry.due:
                entry.due = due
                self._queue(entry)

    def _terminated(self, entry: _Entry, heard: Heard) -> None:
        """RFC 6665 4.1.3: what the reason asks for."""
        early = self._clock.wall() - entry.since < ENDED_EARLY_S
        self.counters.ended_by_device += 1
        self._bus.emit(
            "subscription.ended",
            device_id=entry.device.id,
            channel_id=entry.target if entry.target != entry.device.id else None,
            kind=entry.kind.value,
            reason=heard.reason or "terminated",
        )
        self._let_go(entry)
        entry.reason, entry.detail = "terminated", f"The device ended it ({heard.reason or 'no reason'})."
        entry.sip_status = None
        if heard.reason in ("noresource", "invariant"):
            self._unsupported(entry)
            return
        wait_s = 1.0
        if early or heard.reason in ("rejected", "giveup", "probation"):
            entry.failures += 1
            entry.state = SubscriptionState.FAILED
            wait_s = min(self._config.retry_s * 2.0 ** min(entry.failures - 1, 16), RETRY_MAX_S)
        if heard.retry_after_s:
            wait_s = max(wait_s, float(min(heard.retry_after_s, int(RETRY_MAX_S))))
        if entry.busy:
            return  # the request under way decides
        self._when(entry, wait_s * self._rng.uniform(1.0, 1.1))

    # -- the store -----------------------------------------------------------------------------------------

    async def _save(self, record: SubscriptionRecord) -> None:
        with contextlib.suppress(GatewayError):
            await self._store.save_subscription(record)

    async def _forget_rows(self, records: Sequence[SubscriptionRecord]) -> None:
        """Many at a time share one commit; a start does not wait for them."""
        for at in range(0, len(records), ROWS_AT_ONCE):
            await asyncio.gather(
                *(
                    self._forget_row(record.device_id, record.kind, record.target)
                    for record in records[at : at + ROWS_AT_ONCE]
                )
            )

    async def _forget_row(self, device_id: str, kind: str, target: str) -> None:
        with contextlib.suppress(GatewayError):
            await self._store.remove_subscription(device_id, kind, target)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _shown(entry: _Entry) -> SubscriptionState:
    """What is active or failed of a device that is away waits for it."""
    if entry.device.online or entry.state is SubscriptionState.UNSUPPORTED:
        return entry.state
    return SubscriptionState.WAITING


def _insist_on_ok(entry: _Entry, answer: bytes) -> None:
    """2016 puts a Response into the 200 (9.11.1.3): an ERROR in it is a refusal. What cannot be read says nothing."""
    if not answer.strip():
        return
    try:
        document = parse(answer)
    except GbError:
        return
    result = document.text("Result")
    if document.root == "Response" and not result_ok(result):
        raise GatewayError(
            "gb.sip.command_failed",
            f"Device {entry.device.id} answered {result[:64]} to the subscription of {COMMAND[entry.kind]}.",
            sip_status=200,
        )
