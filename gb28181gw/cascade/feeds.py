"""What a subscription of an upper still has to tell, by kind: pure collectors without clock or socket.

The catalogue's rule (F-11, N.1): the latest state wins. A feed remembers what the upper was told last and which
channels were touched since; what is told is the difference at the moment of telling, so ten thousand changes while
the upper is away, or a channel that flaps, cost one item each.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from gb28181gw.cascade.models import Upper
from gb28181gw.cascade.paging import TCP_BODY, UDP_BODY, pages
from gb28181gw.cascade.sharing import ChannelBook, Key, Sharing
from gb28181gw.cascade.tree import SharedTree
from gb28181gw.devices.models import Channel, ChannelStatus, Device
from gb28181gw.devices.reports import Alarm, Place, PtzPlace
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.alarm import AlarmNotify, write_alarm_notify
from gb28181gw.gb.manscdp.catalogue import CatalogEvent, CatalogItem, CatalogNotify, write_catalog_notify
from gb28181gw.gb.manscdp.document import Document, parse_int
from gb28181gw.gb.manscdp.position import Position, PositionNotify, write_position_notify
from gb28181gw.gb.manscdp.ptz_position import PtzPositionNotify, write_ptz_position

STATES_AT_ONCE: Final = 100
"""Items of one NOTIFY (F-11, N.1)."""
_SLICE: Final = 1_000
ALARMS_KEPT: Final = 1_000
"""While the upper is away; then the oldest are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """The query of a SUBSCRIBE."""

    cmd_type: str
    sn: int
    target: str
    """DeviceID as the upper wrote it."""
    interval_s: float = 5.0
    """Of positions."""
    priorities: tuple[int, int] = (0, 0)
    """Of alarms: first and last; 0: no bound."""
    methods: frozenset[int] = frozenset()
    """Of alarms; empty: all."""


KINDS: Final = ("Catalog", "Alarm", "MobilePosition", "PTZPosition")


def read_subscribed(document: Document) -> Subscribed | None:
    """None for what cannot be subscribed to."""
    if document.cmd_type not in KINDS:
        return None
    methods = {int(digit) for digit in document.text("AlarmMethod") if digit.isascii() and digit.isdigit()}
    return Subscribed(
        cmd_type=document.cmd_type,
        sn=document.sn or 0,
        target=document.device_id,
        interval_s=float(min(max(parse_int(document.text("Interval")) or 5, 1), 3600)),
        priorities=(
            parse_int(document.text("StartAlarmPriority")) or 0,
            parse_int(document.text("EndAlarmPriority")) or 0,
        ),
        methods=frozenset() if 0 in methods else frozenset(methods),
    )


class Feed(Protocol):
    """One kind of collector."""

    @property
    def waiting(self) -> bool:
        """There is something to tell."""
        ...

    def take(self, tree: SharedTree | None) -> list[bytes]:
        """Bodies to send now, in order; what is in them counts as told."""
        ...

    @property
    def needs_tree(self) -> bool:
        """`take` wants the tree."""
        ...


def state_of(device: Device, channel: Channel | None) -> CatalogEvent:
    """What is true now of a channel (None: of the device itself), in the words of Annex N."""
    if not device.online:
        return CatalogEvent.OFF
    if channel is None:
        return CatalogEvent.ON
    if channel.fault in ("VLOST", "DEFECT"):
        return CatalogEvent(channel.fault)
    return CatalogEvent.OFF if device.status_of(channel) is ChannelStatus.OFF else CatalogEvent.ON


class CatalogFeed:
    """Changes of the catalogue."""

    def __init__(
        self,
        upper: Upper,
        sharing: Callable[[], Sharing],
        book: ChannelBook,
        subscribed: Subscribed,
        next_sn: Callable[[], int],
    ) -> None:
        self._upper = upper
        self._sharing = sharing
        self._book = book
        self._subscribed = subscribed
        self._next_sn = next_sn
        self._known: dict[Key, str] = {}
        """What the upper believes is there, with the id that it was told."""
        self._off: dict[Key, CatalogEvent] = {}
        """What it was told is not on."""
        self._touched: OrderedDict[Key, bool] = OrderedDict()
        """True: its fields changed too."""

    @property
    def waiting(self) -> bool:
        return bool(self._touched)

    @property
    def needs_tree(self) -> bool:
        return True

    async def begin(self, tree: SharedTree) -> None:
        """The upper knows the catalogue (it asked, or will) and takes everything for on: what is not must be told."""
        for number, node in enumerate(tree.scope(self._subscribed.target or self._upper.local_id), 1):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            if node.key is None:
                continue
            self._known[node.key] = node.id
            device = self._book.get(node.key.device_id)
            if device is not None and state_of(device, self._channel(node.key)) is not CatalogEvent.ON:
                self._touched[node.key] = False

    def touch(self, keys: Iterable[Key], *, updated: bool = False) -> None:
        """These may have changed."""
        for key in keys:
            self._touched[key] = updated or self._touched.get(key, False)

    def touch_device(self, device_id: str) -> None:
        """The device came or went, and with it all of its channels."""
        self.touch([key for key in self._known if key.device_id == device_id])

    def take(self, tree: SharedTree | None) -> list[bytes]:
        if tree is None:
            return []
        touched, self._touched = self._touched, OrderedDict()
        nodes = {
            node.key: node for node in tree.scope(self._subscribed.target or self._upper.local_id) if node.key
        }
        states: list[CatalogItem] = []
        full: list[CatalogItem] = []
        for key, updated in touched.items():
            node = nodes.get(key)
            device = self._book.get(key.device_id)
            told = self._known.get(key)
            if node is None or device is None:
                if told is not None:
                    del self._known[key]
                    self._off.pop(key, None)
                    states.append(CatalogItem(device_id=told, event=CatalogEvent.DEL))
                continue
            state = state_of(device, self._channel(key))
            if told is None or told != node.id or updated:
                item = tree.item(node, self._book)
                if told is not None and told != node.id:
                    states.append(CatalogItem(device_id=told, event=CatalogEvent.DEL))
                if item is not None:
                    event = CatalogEvent.UPDATE if told == node.id else CatalogEvent.ADD
                    full.append(replace(item, event=event))
                    self._known[key] = node.id
                    self._note(key, state)
                continue
            if state is not self._off.get(key, CatalogEvent.ON):
                states.append(CatalogItem(device_id=node.id, event=state))
                self._note(key, state)
        return [*self._pages(states, STATES_AT_ONCE), *self._full_pages(full)]

    def _note(self, key: Key, state: CatalogEvent) -> None:
        if state is CatalogEvent.ON:
            self._off.pop(key, None)
        else:
            self._off[key] = state

    def _channel(self, key: Key) -> Channel | None:
        device = self._book.get(key.device_id)
        return device.channels.get(key.channel_id) if device is not None else None

    def _write(self, items: Iterable[CatalogItem]) -> bytes:
        dialect = self._upper.dialect
        return write_catalog_notify(
            CatalogNotify(
                sn=self._next_sn(),
                device_id=self._subscribed.target or self._upper.local_id,
                sum_num=None,
                items=tuple(items),
            ),
            dialect.charset_used,
            dialect.edition,
        )

    def _pages(self, items: list[CatalogItem], most: int) -> list[bytes]:
        return [self._write(items[at : at + most]) for at in range(0, len(items), most)]

    def _full_pages(self, items: list[CatalogItem]) -> list[bytes]:
        """Whole items are large: over UDP one or two a message."""
        limit = UDP_BODY if self._upper.transport == "udp" else TCP_BODY
        return list(pages(items, self._write, limit=limit))


@dataclass(slots=True)
class AlarmFeed:
    """Alarms in their order; each is told once."""

    upper: Upper
    subscribed: Subscribed
    next_sn: Callable[[], int]
    format_time: Callable[[float], str]
    dropped: int = 0
    _bodies: list[bytes] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        return bool(self._bodies)

    @property
    def needs_tree(self) -> bool:
        return False

    def add(self, shared_id: str, alarm: Alarm) -> None:
        """If the subscription wants it."""
        if self.subscribed.target not in ("", self.upper.local_id, shared_id):
            return
        first, last = self.subscribed.priorities
        priority = alarm.priority or 4
        if (first and priority < first) or (last and priority > last):
            return
        if self.subscribed.methods and alarm.method not in self.subscribed.methods:
            return
        if len(self._bodies) >= ALARMS_KEPT:
            del self._bodies[0]
            self.dropped += 1
        self._bodies.append(alarm_body(self.upper, shared_id, alarm, self.next_sn(), self.format_time))

    def take(self, tree: SharedTree | None) -> list[bytes]:
        bodies, self._bodies = self._bodies, []
        return bodies


def alarm_body(
    upper: Upper, shared_id: str, alarm: Alarm, sn: int, format_time: Callable[[float], str]
) -> bytes:
    """Notify/Alarm in the upper's ids."""
    return write_alarm_notify(
        AlarmNotify(
            sn=sn,
            device_id=shared_id,
            priority=alarm.priority,
            method=alarm.method,
            time=format_time(alarm.time),
            description=alarm.description,
            longitude=alarm.longitude,
            latitude=alarm.latitude,
            type=alarm.type,
            event_type=alarm.event_type,
        ),
        upper.dialect.charset_used,
        upper.dialect.edition,
    )


@dataclass(slots=True)
class PositionFeed:
    """The newest place of each source."""

    upper: Upper
    subscribed: Subscribed
    format_time: Callable[[float], str]
    _places: dict[str, Place] = field(default_factory=dict)

    @property
    def waiting(self) -> bool:
        return bool(self._places)

    @property
    def needs_tree(self) -> bool:
        return False

    def add(self, shared_id: str, place: Place) -> None:
        if self.subscribed.target in ("", self.upper.local_id, shared_id):
            self._places[shared_id] = place

    def take(self, tree: SharedTree | None) -> list[bytes]:
        places, self._places = self._places, {}
        dialect = self.upper.dialect
        found = [
            Position(
                device_id=shared_id,
                time=self.format_time(place.time),
                longitude=place.longitude,
                latitude=place.latitude,
                speed=place.speed,
                direction=place.direction,
                altitude=place.altitude,
                height=place.height,
            )
            for shared_id, place in places.items()
        ]
        if dialect.edition < Edition.V3_0:
            # One place a message, of the source itself: the schema of 2016 has no other way to name it.
            groups = [[position] for position in found]
        else:
            most = 2 if self.upper.transport == "udp" else 200
            groups = [found[at : at + most] for at in range(0, len(found), most)]
        return [
            write_position_notify(
                PositionNotify(
                    sn=self.subscribed.sn,
                    device_id=(
                        group[0].device_id
                        if dialect.edition < Edition.V3_0
                        else self.subscribed.target or self.upper.local_id
                    ),
                    time=group[0].time,
                    positions=tuple(group),
                ),
                dialect.charset_used,
                dialect.edition,
            )
            for group in groups
        ]


@dataclass(slots=True)
class PtzFeed:
    """Where each camera looked last."""

    upper: Upper
    subscribed: Subscribed
    _places: dict[str, PtzPlace] = field(default_factory=dict)

    @property
    def waiting(self) -> bool:
        return bool(self._places)

    @property
    def needs_tree(self) -> bool:
        return False

    def add(self, shared_id: str, place: PtzPlace) -> None:
        if self.subscribed.target in ("", self.upper.local_id, shared_id):
            self._places[shared_id] = place

    def take(self, tree: SharedTree | None) -> list[bytes]:
        places, self._places = self._places, {}
        return [
            write_ptz_position(
                PtzPositionNotify(
                    sn=self.subscribed.sn,
                    device_id=shared_id,
                    pan=place.pan,
                    tilt=place.tilt,
                    zoom=place.zoom,
                    horizontal_angle=place.horizontal_angle,
                    vertical_angle=place.vertical_angle,
                    max_distance=place.max_distance,
                ),
                self.upper.dialect.charset_used,
            )
            for shared_id, place in places.items()
        ]
