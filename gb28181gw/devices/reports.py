"""What devices report by themselves: alarms, positions, the end of upgrades and snapshots (GB/T 28181-2022 9.4, 9.11).

Theory of operation. Only what comes over the bound path counts (S-03). An alarm is stored, told as an event and, when
it came as a MESSAGE, answered with a Response (9.4.3): a device that hears none sends it again, so a repeated one is
answered and not stored twice. Positions come in bursts (CTL-04): of each source at most one a second is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gb28181gw.clock import Clock
from gb28181gw.devices.dialects import dialect_of, zone_of
from gb28181gw.devices.messages import Envelope, Messages
from gb28181gw.devices.models import Device
from gb28181gw.devices.queries import Queries
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.datum import to_wgs84
from gb28181gw.gb.manscdp.alarm import AlarmNotify, AlarmResponse, read_alarm_notify, write_alarm_response
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.position import read_position_notify
from gb28181gw.gb.manscdp.ptz_position import read_ptz_position
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.times import parse_time
from gb28181gw.observability.events import EventBus

REPEAT_S: Final = 60.0
"""An alarm with the same SN, source and time within so long is the same one again."""
REMEMBERED: Final = 4_096
"""Alarms known for being repeated."""
SOURCES: Final = 200_000
POSITION_EVERY_S: Final = 1.0
PRUNE_EVERY_S: Final = 3_600.0
DAY_S: Final = 86_400.0
ANSWERS_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One alarm as it is kept. Times are seconds since 1970 UTC."""

    id: int = 0
    device_id: str
    """Which device registered with us."""
    channel_id: str
    """What raised it: a channel, an alarm input that need not be in the catalogue (CTL-02), or the device."""
    priority: int | None
    method: int | None
    type: str
    event_type: str
    time: float
    """What the device says; when it is no time, `received_at`."""
    received_at: float
    description: str
    longitude: float | None
    latitude: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One position as it is kept."""

    id: int = 0
    device_id: str
    channel_id: str
    time: float
    received_at: float
    longitude: float
    latitude: float
    speed: float | None
    direction: float | None
    altitude: float | None
    height: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PtzPlace:
    """Where a camera looked when it told last; values that it did not tell are None."""

    device_id: str
    channel_id: str
    received_at: float
    pan: float | None
    tilt: float | None
    zoom: float | None
    horizontal_angle: float | None
    vertical_angle: float | None
    max_distance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFilter:
    """What is looked for; empty members do not narrow."""

    device_id: str = ""
    channel_id: str = ""
    start: float | None = None
    end: float | None = None
    priority: int = 0
    """0: all."""
    methods: frozenset[int] = frozenset()
    """Empty: all."""
    type: str = ""
    text: str = ""
    """Part of an id or a description."""
    latest: bool = False
    """Of positions: only the last one of each source."""
    offset: int = 0
    limit: int = 50


class ReportStore(Protocol):
    """Keeps reports; `storage` implements it. Writes are behind and never raise for the store's sake."""

    def add_alarm(self, alarm: Alarm) -> None: ...

    def add_place(self, place: Place) -> None: ...

    def save_ptz_place(self, place: PtzPlace) -> None:
        """In the place of the one before."""
        ...

    async def ptz_place(self, device_id: str, channel_id: str) -> PtzPlace | None: ...

    async def alarms(self, wanted: ReportFilter) -> tuple[list[Alarm], int]:
        """Newest first, and how many there are in all. Raises gb.route.storage_unavailable."""
        ...

    async def places(self, wanted: ReportFilter) -> tuple[list[Place], int]: ...

    async def prune(self, *, alarms_before: float, places_before: float) -> int:
        """Remove what was received before; the number of rows."""
        ...


@dataclass(slots=True)
class ReportCounters:
    """Plain counters for the exporter."""

    alarms: int = 0
    alarms_repeated: int = 0
    positions: int = 0
    positions_thinned: int = 0
    """Positions that came too soon after the one before."""
    ptz_positions: int = 0
    off_path: int = 0
    unanswered: int = 0
    """Alarms whose Response the device did not take."""


class Reports:
    """Handler of the notifications, and the face of the store."""

    def __init__(
        self,
        *,
        registry: Registry,
        messages: Messages,
        queries: Queries,
        store: ReportStore,
        bus: EventBus,
        clock: Clock,
        timezone: str,
        alarm_days: int = 90,
        position_days: int = 7,
    ) -> None:
        """`timezone` is that of devices without their own."""
        self.counters = ReportCounters()
        self._registry = registry
        self._messages = messages
        self._queries = queries
        self._store = store
        self._bus = bus
        self._clock = clock
        self._timezone = timezone
        self._alarm_s = alarm_days * DAY_S
        self._position_s = position_days * DAY_S
        self._known: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self._placed: dict[tuple[str, str], float] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._hear_alarm: list[Callable[[Alarm], None]] = []
        self._hear_position: list[Callable[[Place], None]] = []
        self._hear_ptz: list[Callable[[PtzPlace], None]] = []
        self._hear_snapshots: list[Callable[[str, str, list[str]], None]] = []
        self._pruning: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take the notifications, begin to forget what is old."""
        for cmd_type, handler in (
            ("Alarm", self._alarm),
            ("MobilePosition", self._positions),
            ("PTZPosition", self._ptz),
            ("DeviceUpgradeResult", self._upgraded),
            ("UploadSnapShotFinished", self._snapshots),
            ("VideoUploadNotify", self._video),
        ):
            self._messages.on_document("Notify", cmd_type, handler)
        self._pruning = asyncio.get_running_loop().create_task(self._prune())

    async def close(self) -> None:
        tasks = [*self._answering, *([self._pruning] if self._pruning is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_alarm(self, hear: Callable[[Alarm], None]) -> None:
        """`hear(alarm)` for each alarm that is stored; repeated ones are not."""
        self._hear_alarm.append(hear)

    def on_position(self, hear: Callable[[Place], None]) -> None:
        """`hear(place)` for each position that is stored: of a source at most one a second."""
        self._hear_position.append(hear)

    def on_ptz(self, hear: Callable[[PtzPlace], None]) -> None:
        """`hear(place)` when a camera told where it looks."""
        self._hear_ptz.append(hear)

    def on_snapshots(self, hear: Callable[[str, str, list[str]], None]) -> None:
        """`hear(device_id, session_id, files)` when a device has uploaded its pictures."""
        self._hear_snapshots.append(hear)

    async def ptz_place(self, device_id: str, channel_id: str) -> PtzPlace | None:
        """The last one told; None: none yet."""
        return await self._store.ptz_place(device_id, channel_id)

    async def alarms(self, wanted: ReportFilter) -> tuple[list[Alarm], int]:
        return await self._store.alarms(wanted)

    async def places(self, wanted: ReportFilter) -> tuple[list[Place], int]:
        return await self._store.places(wanted)

    # -- alarms --------------------------------------------------------------------------------------------

    def _alarm(self, device: Device, document: Document, envelope: Envelope) -> None:
        if not self._counts(envelope):
            return
        alarm = read_alarm_notify(document)
        self._note(device, document, alarm.quirks)
        if envelope.method == "MESSAGE" and alarm.sn is not None:
            self._answer(device, alarm, envelope)
        source = alarm.device_id or device.id
        key = (device.id, source, alarm.sn, alarm.time, alarm.method, alarm.type)
        now = self._clock.monotonic()
        if now - self._known.get(key, -REPEAT_S) < REPEAT_S:
            self.counters.alarms_repeated += 1
            return
        self._known[key] = now
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        self.counters.alarms += 1
        received = self._clock.wall()
        longitude, latitude = alarm.longitude, alarm.latitude
        if longitude is not None and latitude is not None:
            longitude, latitude = to_wgs84(longitude, latitude, dialect_of(device).datum)
        kept = Alarm(
            device_id=device.id,
            channel_id=source,
            priority=alarm.priority,
            method=alarm.method,
            type=alarm.type,
            event_type=alarm.event_type,
            time=self._time(device, alarm.time, received),
            received_at=received,
            description=alarm.description,
            longitude=longitude,
            latitude=latitude,
        )
        self._store.add_alarm(kept)
        for hear in self._hear_alarm:
            hear(kept)
        self._bus.emit(
            "alarm.received",
            device_id=device.id,
            channel_id=source,
            priority=alarm.priority,
            method=alarm.method,
            type=alarm.type or None,
            time=alarm.time or None,
            description=alarm.description or None,
        )

    def _answer(self, device: Device, alarm: AlarmNotify, envelope: Envelope) -> None:
        """Response/Alarm to whom the notification named as its sender (A.1)."""
        if len(self._answering) >= ANSWERS_AT_ONCE:
            self.counters.unanswered += 1
            return
        body = write_alarm_response(
            AlarmResponse(sn=alarm.sn, device_id=alarm.device_id or device.id),
            dialect_of(device).charset_used,
        )
        task = asyncio.get_running_loop().create_task(self._send(device, envelope.sender, body))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _send(self, device: Device, user: str, body: bytes) -> None:
        try:
            await self._queries.reply(device, body, user=user)
        except GatewayError:
            self.counters.unanswered += 1

    # -- positions -----------------------------------------------------------------------------------------

    def _positions(self, device: Device, document: Document, envelope: Envelope) -> None:
        if not self._counts(envelope):
            return
        notify = read_position_notify(document)
        self._note(device, document, notify.quirks)
        now, received = self._clock.monotonic(), self._clock.wall()
        for position in notify.positions:
            source = position.device_id or notify.device_id or device.id
            key = (device.id, source)
            if now - self._placed.get(key, -POSITION_EVERY_S) < POSITION_EVERY_S:
                self.counters.positions_thinned += 1
                continue
            if len(self._placed) >= SOURCES:
                self._placed.clear()
            self._placed[key] = now
            self.counters.positions += 1
            longitude, latitude = to_wgs84(position.longitude, position.latitude, dialect_of(device).datum)
            place = Place(
                device_id=device.id,
                channel_id=source,
                time=self._time(device, position.time, received),
                received_at=received,
                longitude=longitude,
                latitude=latitude,
                speed=position.speed,
                direction=position.direction,
                altitude=position.altitude,
                height=position.height,
            )
            self._store.add_place(place)
            for hear in self._hear_position:
                hear(place)

    def _ptz(self, device: Device, document: Document, envelope: Envelope) -> None:
        """9.11.2.3 d."""
        if not self._counts(envelope):
            return
        told = read_ptz_position(document)
        self._note(device, document, told.quirks)
        place = PtzPlace(
            device_id=device.id,
            channel_id=told.device_id or envelope.sender or device.id,
            received_at=self._clock.wall(),
            pan=told.pan,
            tilt=told.tilt,
            zoom=told.zoom,
            horizontal_angle=told.horizontal_angle,
            vertical_angle=told.vertical_angle,
            max_distance=told.max_distance,
        )
        if place.channel_id != device.id and place.channel_id not in device.channels:
            return  # it speaks for its own cameras only (S-03)
        self.counters.ptz_positions += 1
        self._store.save_ptz_place(place)
        for hear in self._hear_ptz:
            hear(place)

    # -- the rest ------------------------------------------------------------------------------------------

    def _upgraded(self, device: Device, document: Document, envelope: Envelope) -> None:
        """A.2.5.9."""
        if self._counts(envelope):
            self._bus.emit(
                "device.upgraded",
                device_id=device.id,
                channel_id=document.device_id or None,
                session=document.text("SessionID")[:128],
                result=document.text("UpgradeResult")[:32],
                firmware=document.text("Firmware")[:128],
                reason=document.text("UpgradeFailedReason")[:32] or None,
            )

    def _snapshots(self, device: Device, document: Document, envelope: Envelope) -> None:
        """A.2.5.7: which pictures were uploaded; none means that all failed."""
        if self._counts(envelope):
            members = document.fields.get("SnapShotList")
            texts = [] if members is None else [(child.text or "").strip()[:64] for child in members]
            files = [name for name in texts[:10] if name]
            session = document.text("SessionID")[:128]
            for hear in self._hear_snapshots:
                hear(device.id, session, files)
            self._bus.emit(
                "device.snapshots",
                device_id=device.id,
                channel_id=document.device_id or None,
                session=session,
                files=files,
            )

    def _video(self, device: Device, document: Document, envelope: Envelope) -> None:
        """A.2.5.8: the device has live video to send; what follows the standard does not say."""
        if self._counts(envelope):
            self._bus.emit(
                "device.video_offered",
                device_id=device.id,
                channel_id=document.device_id or None,
                time=document.text("Time")[:64] or None,
            )

    # -- helpers -------------------------------------------------------------------------------------------

    def _counts(self, envelope: Envelope) -> bool:
        """S-03: off the bound path nothing is believed."""
        if not envelope.bound:
            self.counters.off_path += 1
        return envelope.bound

    def _note(self, device: Device, document: Document, quirks: Sequence[Quirk]) -> None:
        """Tolerances of the reader; those of the document were counted by `Messages`."""
        for quirk in quirks:
            if quirk not in document.quirks:
                self._registry.add_quirk(device, quirk.value, row=quirk.row)

    def _time(self, device: Device, text: str, received: float) -> float:
        moment = parse_time(text, zone_of(device.timezone or self._timezone)) if text else None
        return moment.timestamp() if moment is not None else received

    async def _prune(self) -> None:
        while True:
            with contextlib.suppress(GatewayError):  # a store that is away is asked again in an hour
                now = self._clock.wall()
                await self._store.prune(
                    alarms_before=now - self._alarm_s, places_before=now - self._position_s
                )
            await asyncio.sleep(PRUNE_EVERY_S)
