"""The one owner of the map of devices. It answers from memory; what it acknowledges is stored first (I9).

Changes come in three kinds. Changes by people (provision, change, approve, remove) wait for the commit and then
become visible. Bindings are written by the registrar, which answers the device after the commit. What is learnt in
passing (last seen, keepalive interval, quirks, the media way) is collected and written every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from gb28181gw.clock import Clock
from gb28181gw.devices.dialects import dialect_of, profile_for
from gb28181gw.devices.models import QUIRK_LIMIT, Binding, Channel, Device, Presence, listed_channels
from gb28181gw.devices.quirks import QUIRK_ROWS
from gb28181gw.devices.store import DeviceStore
from gb28181gw.errors import GatewayError
from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import DEFAULT, Edition, PayloadSet, Profile
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.ids import NodeKind, is_gb_id, node_kind, valid_lenient_id
from gb28181gw.gb.manscdp.catalogue import CatalogEvent, Status
from gb28181gw.gb.mansrtsp import RtspVersion
from gb28181gw.gb.times import parse_zone
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.path import Path
from gb28181gw.ua.models import Target

UNSAVED_SEEN: Final = 1
"""`last seen` or the keepalive interval changed."""
UNSAVED_FACTS: Final = 2
"""Something of the device's own row changed: quirks, DeviceInfo, the media way."""
UNSAVED_BINDING: Final = 4
"""The binding in memory is newer than the stored one (the database did not answer)."""

PathKey = tuple[str, str, int] | int


def path_key(path: Path) -> PathKey:
    """What makes two messages come over the same path: the connection, or transport and source address."""
    return path.connection_id or path[:3]


def same_path(one: Path, other: Path) -> bool:
    """True for the same UDP source, or the same TCP/TLS connection."""
    if one.connection_id or other.connection_id:
        return one.connection_id == other.connection_id
    return one[:3] == other[:3]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """Settings of a device as people give them; None leaves one as it is."""

    name: str | None = None
    password: str | None = None
    """Empty: back to the shared password."""
    username: str | None = None
    media_transport: str | None = None
    charset: str | None = None
    timezone: str | None = None
    dialect: Mapping[str, str] | None = None
    """Switches of `gb.dialect.Dialect`; they replace those of before."""
    subscribe: tuple[str, ...] | Literal["default"] | None = None
    """Kinds of `devices.subscriptions`; ``default``: back to those of the configuration."""

    def keys(self) -> list[str]:
        """Names of what is set; never values."""
        return [name for name in self.__slots__ if getattr(self, name) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelChange:
    """One change of a catalogue, in the words of Annex N."""

    event: CatalogEvent
    channel: Channel
    """As it is now; of a DEL the tombstone."""


def change_of(before: Channel | None, after: Channel) -> CatalogEvent | None:
    """What to call the step from `before` to `after`; None: nothing that anybody sees."""
    was_there = before is not None and not before.gone
    if after.gone:
        return CatalogEvent.DEL if was_there else None
    if before is None or not was_there:
        return CatalogEvent.ADD
    if before == after or replace(before, missed=after.missed) == after:
        return None
    if replace(before, status=after.status, fault=after.fault, missed=after.missed) != after:
        return CatalogEvent.UPDATE
    if after.fault:
        return CatalogEvent(after.fault) if after.fault != before.fault else _ON_OFF[after.status]
    return _ON_OFF[after.status]


_ON_OFF: Final = {
    Status.ON: CatalogEvent.ON,
    Status.OFF: CatalogEvent.OFF,
    Status.UNKNOWN: CatalogEvent.ON,
}
"""A channel whose state is not told counts as playable (CAT-09)."""


class Registry:
    """See the module. All calls on the loop's thread."""

    def __init__(
        self, *, store: DeviceStore, bus: EventBus, clock: Clock, profiles: tuple[Profile, ...] = ()
    ) -> None:
        self._profiles = profiles
        self._store = store
        self._bus = bus
        self._clock = clock
        self._devices: dict[str, Device] = {}
        self._by_path: dict[PathKey, Device | set[Device]] = {}
        self._pending: dict[str, Device] = {}
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._seen: list[Device] = []
        self._changed: list[Device] = []
        self._removal: list[Callable[[Device], None]] = []
        self._forgiven: list[Callable[[str], None]] = []
        self._approved: list[Callable[[Device], None]] = []
        self._settings: list[Callable[[Device], None]] = []
        self._channel_changes: list[Callable[[str, ChannelChange], None]] = []

    # -- reading -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def get(self, device_id: str) -> Device | None:
        return self._devices.get(device_id)

    def all(self) -> list[Device]:
        """All devices, in the order of their ids."""
        return [self._devices[key] for key in sorted(self._devices)]

    def require(self, device_id: str) -> Device:
        """Raises GatewayError gb.route.device_unknown."""
        device = self._devices.get(device_id)
        if device is None:
            raise GatewayError("gb.route.device_unknown", f"There is no device {device_id}.")
        return device

    def channel(self, device_id: str, channel_id: str) -> Channel:
        """A channel that is still there. Raises gb.route.device_unknown, gb.route.channel_unknown."""
        channel = self.require(device_id).channels.get(channel_id)
        if channel is None or channel.gone:
            raise GatewayError("gb.route.channel_unknown", f"Device {device_id} has no channel {channel_id}.")
        return channel

    def alone_on(self, path: Path) -> Device | None:
        """The device bound to `path`, when exactly one is (a lower system may register several ids)."""
        found = self._by_path.get(path_key(path))
        return found if isinstance(found, Device) else None

    def bound_to(self, path: Path) -> list[Device]:
        """All devices bound to `path`."""
        found = self._by_path.get(path_key(path))
        if found is None:
            return []
        return [found] if isinstance(found, Device) else list(found)

    def target(self, device_id: str, channel_id: str | None = None, *, control: bool = False) -> Target:
        """The bound path, resolved now (REG-17), and the To user: the channel, or the device itself.

        `control`: the request moves or changes something, which an unverified path must not (`devices/binding.py`).
        Raises gb.route.device_unknown, .channel_unknown, .not_approved, .offline, .not_authorised, and
        gb.sip.path_lost while the connection of a TCP device is gone.
        """
        device = self.require(device_id)
        if not device.approved:
            raise GatewayError("gb.route.not_approved", f"Device {device_id} waits for approval.")
        if channel_id is not None and channel_id != device_id:
            self.channel(device_id, channel_id)
        if not device.online or device.unregistered_at:
            raise GatewayError("gb.route.offline", f"Device {device_id} is offline.")
        if device.path is None:
            raise GatewayError("gb.sip.path_lost", f"The connection of device {device_id} is gone.")
        if control and device.unverified:
            raise GatewayError(
                "gb.route.not_authorised",
                f"Device {device_id} speaks from a new address and has not registered from there yet.",
            )
        return Target(
            path=device.path,
            user=channel_id or device_id,
            domain=device.domain,
            platform=node_kind(device_id) is NodeKind.SYSTEM,
        )

    async def reach(
        self,
        device_id: str,
        channel_id: str | None = None,
        *,
        control: bool = False,
        timeout_s: float = 5.0,
    ) -> Target:
        """Like `target`, and while a TCP device has no connection waits for its next one (REG-21)."""
        device = self.require(device_id)
        if device.path is None and device.online:
            arrived = asyncio.Event()
            waiting = self._waiting.setdefault(device_id, [])
            waiting.append(arrived)
            try:
                async with asyncio.timeout(timeout_s):
                    await arrived.wait()
            except TimeoutError:
                pass
            finally:
                waiting.remove(arrived)
                if not waiting:
                    self._waiting.pop(device_id, None)
        return self.target(device_id, channel_id, control=control)

    def path_of(self, device_id: str) -> Path | None:
        """The bound path now; None: there is none."""
        device = self._devices.get(device_id)
        return device.path if device is not None else None

    def media_transport(self, device_id: str) -> str:
        """The device's setting: auto, udp, tcp-passive, tcp-active."""
        device = self._devices.get(device_id)
        return device.media_transport if device is not None else "auto"

    def payload_set(self, device_id: str) -> PayloadSet:
        """Payload types that its dialect says to offer first (INV-13)."""
        device = self._devices.get(device_id)
        return dialect_of(device).payloads if device is not None else DEFAULT.payloads

    def rtsp_version(self, device_id: str) -> RtspVersion:
        """In which form of MANSRTSP it is steered (PB-09)."""
        device = self._devices.get(device_id)
        return (dialect_of(device) if device is not None else DEFAULT).rtsp_used

    def is_only_channel(self, device_id: str, channel_id: str) -> bool:
        """Whether the device has no other channel that could be meant (XML-12)."""
        device = self._devices.get(device_id)
        return device is not None and [one.id for one in listed_channels(device)] == [channel_id]

    def channels(self, device_id: str) -> list[Channel]:
        """What can be played or has a function of its own, in the order of ids. Raises gb.route.device_unknown."""
        return listed_channels(self.require(device_id))

    def search(self, text: str = "", *, approved_only: bool = False) -> list[Device]:
        """Devices whose id, name, maker or address contains `text`, in the order of their ids."""
        wanted = text.strip().lower()
        return [
            device
            for device in self.all()
            if (device.approved or not approved_only)
            and (
                not wanted
                or wanted in device.id.lower()
                or wanted in device.display_name.lower()
                or wanted in device.manufacturer.lower()
                or wanted in device.model.lower()
                or wanted in device.remote_address
            )
        ]

    def pending(self) -> list[Device]:
        """Devices that wait for approval."""
        return list(self._pending.values())

    # -- start ---------------------------------------------------------------------------------------------

    async def load(self, as_now: Callable[[Path], Path] = lambda path: path) -> None:
        """Read everything; called once before the SIP listeners open.

        `as_now` gives a stored path our present address and port: the host may have another one since, and what
        we write into Via, Contact and SDP comes from there.
        """
        for device in await self._store.load():
            self._devices[device.id] = device
            self.match_profile(device)
            if not device.approved:
                self._pending[device.id] = device
            if (
                device.binding is not None
                and device.binding.active
                and device.binding.path.transport == "udp"
            ):
                self.bind(device, as_now(device.binding.path))

    def on_removed(self, hear: Callable[[Device], None]) -> None:
        """`hear(device)` is called when a device leaves the map."""
        self._removal.append(hear)

    def on_forgiven(self, hear: Callable[[str], None]) -> None:
        """`hear(device_id)` is called when a person changed the credentials or let the device in."""
        self._forgiven.append(hear)

    def on_approved(self, hear: Callable[[Device], None]) -> None:
        """`hear(device)` is called when a device that waited was let in and is online."""
        self._approved.append(hear)

    def on_changed(self, hear: Callable[[Device], None]) -> None:
        """`hear(device)` is called when a person changed settings of a device."""
        self._settings.append(hear)

    def on_channel_changed(self, hear: Callable[[str, ChannelChange], None]) -> None:
        """`hear(device_id, change)` for each change of the catalogue, by an answer or by a notification.

        Not for every channel of a device that goes offline: that is `PresenceKeeper.on_offline` (KA-09).
        """
        self._channel_changes.append(hear)

    def channel_changed(self, device: Device, before: Channel | None, after: Channel) -> None:
        """Tell the listeners; called by the owner of the catalogue, after the change can be seen."""
        if not self._channel_changes:
            return
        event = change_of(before, after)
        if event is not None:
            change = ChannelChange(event=event, channel=after)
            for hear in self._channel_changes:
                hear(device.id, change)

    # -- changes by people ---------------------------------------------------------------------------------

    async def provision(self, device_id: str, change: DeviceChange) -> Device:
        """Enter a device. Raises gb.route.exists, gb.route.invalid, gb.route.storage_unavailable.

        A device that already waits for approval is taken over and thereby let in.
        """
        if not (is_gb_id(device_id) or (valid_lenient_id(device_id) and len(device_id) <= 32)):
            raise GatewayError(
                "gb.route.invalid", f"id: {device_id!r} is neither 20 digits nor 1 to 32 letters and digits."
            )
        device = self._devices.get(device_id)
        if device is not None and device.provisioned:
            raise GatewayError("gb.route.exists", f"The device {device_id} is there already.")
        if device is None:
            device = Device(id=device_id, created_at=self._clock.wall())
            await self._store_changed(device, change, approved=True, provisioned=True)
            self._devices[device_id] = device
        else:
            waited = not device.approved
            await self._store_changed(device, change, approved=True, provisioned=True)
            if waited:
                self._let_in(device)
        self._bus.emit("device.provisioned", device_id=device_id)
        self._forgive(device_id)
        return device

    async def change(self, device_id: str, change: DeviceChange) -> Device:
        """Raises gb.route.device_unknown, gb.route.storage_unavailable."""
        device = self.require(device_id)
        await self._store_changed(device, change)
        self._bus.emit("device.changed", device_id=device_id, keys=change.keys())
        for hear in self._settings:
            hear(device)
        if change.password is not None or change.username is not None:
            self._forgive(device_id)
        return device

    async def approve(self, device_id: str) -> Device:
        """Let a waiting device in; idempotent. Raises like `change`."""
        device = self.require(device_id)
        if not device.approved:
            # A person decided, so the device is as good as provisioned, also when enrolment is closed later.
            await self._store_changed(device, DeviceChange(), approved=True, provisioned=True)
            self._bus.emit("device.approved", device_id=device_id)
            self._let_in(device)
        self._forgive(device_id)
        return device

    async def remove(self, device_id: str) -> None:
        """Forget a device with its channels and binding. Raises like `change`."""
        device = self.require(device_id)
        await self._store.remove_device(device_id)
        if self._devices.get(device_id) is device:
            self.drop(device)
            self._bus.emit("device.removed", device_id=device_id)

    def drop(self, device: Device) -> None:
        """Take a device out of memory and tell the others."""
        if self._devices.get(device.id) is not device:
            return
        del self._devices[device.id]
        self._pending.pop(device.id, None)
        self.unbind(device)
        for hear in self._removal:
            hear(device)
        device.presence = Presence.OFFLINE

    async def _store_changed(
        self,
        device: Device,
        change: DeviceChange,
        *,
        approved: bool | None = None,
        provisioned: bool | None = None,
    ) -> None:
        """Store a changed copy first, then let it count; nothing changes when the store fails."""
        _check(change)
        values: dict[str, object] = {name: getattr(change, name) for name in change.keys()}  # noqa: SIM118  # a method of the change
        if values.get("password") == "":
            values["password"] = None
        if change.dialect is not None:
            values["dialect"] = dict(change.dialect)
        if change.subscribe == "default":
            values["subscribe"] = None
        if approved is not None:
            values["approved"] = approved
        if provisioned is not None:
            values["provisioned"] = provisioned
        await self._store.save_device(replace(device, **values))  # type: ignore[arg-type]  # names of the class itself
        for name, value in values.items():
            setattr(device, name, value)
        self.note_approval(device)

    def _let_in(self, device: Device) -> None:
        if device.online:
            for hear in self._approved:
                hear(device)

    def _forgive(self, device_id: str) -> None:
        for hear in self._forgiven:
            hear(device_id)

    # -- changes by devices --------------------------------------------------------------------------------

    def enrol(self, device: Device) -> None:
        """Take in a device that registered by itself; its row is written by the registrar."""
        self._devices[device.id] = device
        self.note_approval(device)

    def note_approval(self, device: Device) -> None:
        """Call after `approved` changed: keeps the list of those who wait."""
        if device.approved:
            self._pending.pop(device.id, None)
        else:
            self._pending[device.id] = device

    def is_bound(self, path: Path) -> bool:
        """Whether any device is bound to `path`: one look-up."""
        return path_key(path) in self._by_path

    def bind(self, device: Device, path: Path) -> None:
        """Make `path` the way to the device, from now on and for everybody (REG-17)."""
        self.unbind(device)
        device.path = path
        key = path_key(path)
        found = self._by_path.get(key)
        if found is None:
            self._by_path[key] = device
        elif isinstance(found, set):
            found.add(device)
        elif found is not device:
            self._by_path[key] = {found, device}
        for arrived in self._waiting.get(device.id, ()):
            arrived.set()

    def unbind(self, device: Device) -> None:
        """Nothing can be sent to the device any more."""
        if device.path is None:
            return
        key = path_key(device.path)
        device.path = None
        found = self._by_path.get(key)
        if found is device:
            del self._by_path[key]
        elif isinstance(found, set):
            found.discard(device)
            if len(found) == 1:
                self._by_path[key] = found.pop()

    def set_binding(self, device: Device, binding: Binding) -> None:
        """A verified REGISTER (or its end) is committed: it counts."""
        changed = device.binding is None or device.binding.user_agent != binding.user_agent
        device.binding = binding
        if changed:
            self.match_profile(device)

    def count_quirk(self, device: Device, name: str) -> None:
        """`add_quirk` for what comes with every message: only its first time makes a row be written."""
        if name in device.quirks:
            device.quirks[name] += 1
        else:
            self.add_quirk(device, name)

    def match_profile(self, device: Device) -> None:
        """Call after the maker or the program of a device became known or another one."""
        if not self._profiles:
            return
        found = profile_for(self._profiles, device)
        if found is not device.profile:
            device.profile = found
            self._bus.emit(
                "device.profile", device_id=device.id, file=found.name if found is not None else None
            )

    def learn(self, device: Device, name: str, value: str, why: str) -> None:
        """A switch of the dialect was found out from what the device sends; empty: back to the default."""
        if device.learnt.get(name, "") == value:
            return
        if value:
            device.learnt = {**device.learnt, name: value}
        else:
            device.learnt = {key: text for key, text in device.learnt.items() if key != name}
        self.unsaved(device, UNSAVED_FACTS)
        self._bus.emit(
            "device.learnt", device_id=device.id, switch=name, value=value or "default", detail=why
        )

    def learn_edition(self, device: Device, edition: Edition, why: str) -> None:
        """Which edition a device without `X-GB-Ver` follows, from what it sends."""
        if device.detected_edition != edition.value:
            device.detected_edition = edition.value
            self.unsaved(device, UNSAVED_FACTS)
            self._bus.emit("device.edition_detected", device_id=device.id, edition=edition.value, detail=why)

    def add_quirk(self, device: Device | str, name: str, count: int = 1, row: str = "") -> None:
        """Count a tolerance that fired for the device; the first time is an event."""
        found = self._devices.get(device) if isinstance(device, str) else device
        if found is None:
            return
        before = found.quirks.get(name)
        if before is None:
            if len(found.quirks) >= QUIRK_LIMIT:
                return
            row = row or QUIRK_ROWS.get(name, "")
            self._bus.emit("device.quirk", device_id=found.id, quirk=name, row=row or None)
        found.quirks[name] = (before or 0) + count
        self.unsaved(found, UNSAVED_FACTS)

    def remember_media_way(self, device_id: str, way: str) -> None:
        """The media transport that worked, for `auto`; kept over restarts."""
        device = self._devices.get(device_id)
        if device is not None and device.media_way != way:
            device.media_way = way
            self.unsaved(device, UNSAVED_FACTS)

    def remember_payloads(self, device_id: str, payloads: PayloadSet) -> None:
        """The list of payload types that was accepted after others were refused (INV-13)."""
        device = self._devices.get(device_id)
        if device is not None and payloads is not dialect_of(device).payloads:
            default = payloads is PayloadSet.DEFAULT
            self.learn(device, "payloads", "" if default else payloads.value, "others were refused")

    def media_way(self, device_id: str) -> str:
        """The remembered media transport; empty: none yet."""
        device = self._devices.get(device_id)
        return device.media_way if device is not None else ""

    def remember_talk_way(self, device_id: str, way: str) -> None:
        """The way of talking that worked (TK-01); kept over restarts."""
        device = self._devices.get(device_id)
        if device is not None and device.talk_way != way:
            device.talk_way = way
            self.unsaved(device, UNSAVED_FACTS)

    # -- the batch of every few seconds --------------------------------------------------------------------

    def unsaved(self, device: Device, what: int) -> None:
        """Have the next flush write `what` of the device."""
        new = what & ~device.unsaved
        if not new:
            return
        if new & UNSAVED_SEEN:
            self._seen.append(device)
        if new & (UNSAVED_FACTS | UNSAVED_BINDING) and not device.unsaved & (UNSAVED_FACTS | UNSAVED_BINDING):
            self._changed.append(device)
        device.unsaved |= new

    @property
    def unsaved_count(self) -> int:
        """Devices with something to write: a gauge; bounded by the number of devices."""
        return len(self._seen) + len(self._changed)

    def flush(self) -> None:
        """Hand over what changed; what the store cannot take is kept for the next time (F-15: coalesced by key)."""
        seen, self._seen = self._seen, []
        changed, self._changed = self._changed, []
        if not seen and not changed:
            return
        kept = {device: device.unsaved for device in (*seen, *changed)}
        for device in kept:
            device.unsaved = 0
        present = [device for device in seen if self._devices.get(device.id) is device]
        facts = [device for device in changed if self._devices.get(device.id) is device]

        def done(error: BaseException | None) -> None:
            if error is not None:
                self._keep(kept.items())

        try:
            self._store.flush(present, facts, done)
            for device in facts:
                if kept[device] & UNSAVED_BINDING and device.binding is not None:
                    self._store.save_binding(device, device.binding, done)
        except GatewayError:
            self._keep(kept.items())

    def _keep(self, rows: Iterable[tuple[Device, int]]) -> None:
        for device, what in rows:
            if self._devices.get(device.id) is device:
                self.unsaved(device, what)


MEDIA_TRANSPORTS: Final = frozenset(("auto", "udp", "tcp-passive", "tcp-active"))


def _check(change: DeviceChange) -> None:
    """Raises gb.route.invalid naming the field."""
    field = ""
    try:
        field = "media_transport"
        if change.media_transport is not None and change.media_transport not in MEDIA_TRANSPORTS:
            raise ValueError(f"is not one of {', '.join(sorted(MEDIA_TRANSPORTS))}")
        field = "timezone"
        if change.timezone:
            parse_zone(change.timezone)
        field = "charset"
        if change.charset:
            Charset.parse(change.charset)
        field = "dialect"
        if change.dialect is not None:
            DEFAULT.with_switches(change.dialect)
    except (ValueError, GbError) as error:
        raise GatewayError("gb.route.invalid", f"{field}: {error}") from error
