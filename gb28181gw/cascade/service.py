"""Everything of this package, joined: the uppers, their links, what they see, and what they ask."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from typing import Final

from gb28181gw.cascade import tree as trees
from gb28181gw.cascade.answers import Answers, Demand, Refusal
from gb28181gw.cascade.broadcasts import BroadcastCounters, UpperBroadcast
from gb28181gw.cascade.calls import UpperCalls
from gb28181gw.cascade.link import LinkCounters, LinkTimers, UpperLink
from gb28181gw.cascade.models import UPPER_LIMIT, Tree, Upper, UpperChange, UpperView, check
from gb28181gw.cascade.notifications import Notifications, NotifyCounters, Pace
from gb28181gw.cascade.requests import Budget, PathTable, read_body
from gb28181gw.cascade.routes import GOES_ROUND, Route, read_route
from gb28181gw.cascade.sharing import ChannelBook, Key, ShareItem, Sharing, sharing_of
from gb28181gw.cascade.store import ShareRow, UpperStore
from gb28181gw.clock import Clock
from gb28181gw.devices.models import TREE_KINDS, Device
from gb28181gw.devices.registry import ChannelChange
from gb28181gw.devices.reports import Alarm, Place, PtzPlace
from gb28181gw.errors import GatewayError
from gb28181gw.gb.ids import NodeKind, node_kind
from gb28181gw.gb.manscdp.broadcast import read_broadcast_notify
from gb28181gw.gb.manscdp.catalogue import CatalogEvent
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.path import Path
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.compose import user_of
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.notifier import Notifier
from gb28181gw.ua.passage import PASSAGE

_SHUTDOWN_S: Final = 1.5
"""For the BYEs of all calls, when the gateway stops."""
_SN_LIMIT: Final = 1_000_000_000


@dataclass(slots=True)
class _Entry:
    """One upper with what lives for it. Replaced parts are closed by `Uppers`."""

    upper: Upper
    sharing: Sharing
    link: UpperLink
    budget: Budget
    notifications: Notifications
    broadcasts: set[UpperBroadcast] = field(default_factory=set)


class Uppers:
    """Owner of the upper platforms. `start` when SIP listens, `close` before the agent closes."""

    def __init__(
        self,
        *,
        store: UpperStore,
        agent: UserAgent,
        bus: EventBus,
        clock: Clock,
        book: ChannelBook,
        answers: Answers,
        calls: UpperCalls,
        default_local_id: str,
        is_device_path: Callable[[Path], bool],
        zone: timezone,
        timers: LinkTimers | None = None,
        pace: Pace | None = None,
    ) -> None:
        """`is_device_path`: whether a device is bound there too (CS-11)."""
        self.counters = LinkCounters()
        self.notify_counters = NotifyCounters()
        self.answers = answers
        self.calls = calls
        self.broadcast_counters = BroadcastCounters()
        self._store = store
        self._agent = agent
        self._bus = bus
        self._clock = clock
        self._book = book
        self._default_local_id = default_local_id
        self._is_device_path = is_device_path
        self._timers = timers if timers is not None else LinkTimers()
        self._zone = zone
        self._pace = pace if pace is not None else Pace()
        self._notifier = Notifier(agent)
        self._entries: dict[str, _Entry] = {}
        self._paths = PathTable()
        self._sn = secrets.randbelow(_SN_LIMIT // 2)
        self._running = False
        self._faulty: set[Key] = set()
        """Channels that said VLOST or DEFECT; some may be well or gone again."""
        self._naming: set[str] = set()
        """Devices whose last keepalive named faulty channels of theirs; some may be gone."""

    # -- life ----------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the store. Raises GatewayError."""
        for stored in await self._store.load_uppers():
            upper = stored.upper
            entry = self._enter(upper, Sharing(upper, share_all=stored.share_all, rows=stored.rows))
            # An upper that knows the catalogue from before our restart plays without asking for it again (F-17).
            await self._keep(entry, await entry.sharing.follow(self._book))

    def start(self) -> None:
        """Begin to register, each upper by itself."""
        self._running = True
        for device in self._book:
            self._faulty.update(Key(device.id, one.id) for one in device.channels.values() if one.fault)
        self._agent.use_platforms(self)
        for entry in self._entries.values():
            if entry.upper.enabled:
                entry.link.start()

    async def close(self) -> None:
        """Unregister everywhere and end."""
        self._running = False
        await asyncio.gather(*(self._end(entry) for entry in self._entries.values()))

    # -- reading -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def registered_count(self) -> int:
        return sum(entry.link.registered for entry in self._entries.values())

    def all(self) -> list[UpperView]:
        """In the order of their ids."""
        return [self._view(self._entries[key]) for key in sorted(self._entries)]

    def get(self, upper_id: str) -> UpperView:
        """Raises GatewayError gb.route.upper_unknown."""
        return self._view(self._require(upper_id))

    # -- changes by people ---------------------------------------------------------------------------------

    async def add(self, upper_id: str, change: UpperChange) -> UpperView:
        """Raises gb.route.exists, gb.route.invalid, gb.route.storage_unavailable."""
        if upper_id in self._entries:
            raise GatewayError("gb.route.exists", f"The upper platform {upper_id} is there already.")
        if len(self._entries) >= UPPER_LIMIT:
            raise GatewayError("gb.route.invalid", f"At most {UPPER_LIMIT} upper platforms.")
        blank = Upper(
            id=upper_id,
            domain=change.domain or "",
            host=change.host or "",
            local_id=change.local_id or self._default_local_id,
            created_at=self._clock.wall(),
        )
        upper = change.applied(blank)
        if not upper.local_id:
            upper = UpperChange(local_id=self._default_local_id).applied(upper)
        check(upper)
        await self._store.save_upper(upper)
        entry = self._enter(upper, Sharing(upper, share_all=False))
        self._bus.emit("upper.added", upper_id=upper_id)
        self._start(entry)
        return self._view(entry)

    async def change(self, upper_id: str, change: UpperChange) -> UpperView:
        """In force at once: the link ends and begins anew with the changed settings. Raises as `add`."""
        entry = self._require(upper_id)
        upper = change.applied(entry.upper)
        await self._store.save_upper(upper)
        self._bus.emit("upper.changed", upper_id=upper_id, keys=change.keys())
        relink = set(change.keys()) - _WITHOUT_RELINK
        if relink:
            await self._end(entry)
        sharing = Sharing(upper, share_all=entry.sharing.share_all, rows=entry.sharing.rows())
        if relink:
            entry = self._enter(upper, sharing)
            self._start(entry)
        else:
            entry.upper = entry.link.upper = upper
            entry.sharing = sharing
            if not upper.control:
                self.calls.end_talks(upper_id, "revoked")
                for broadcast in list(entry.broadcasts):
                    broadcast.end("revoked")
        await self._follow(entry)
        return self._view(entry)

    async def remove(self, upper_id: str) -> None:
        """Unregister and forget. Raises gb.route.upper_unknown, gb.route.storage_unavailable."""
        entry = self._require(upper_id)
        await self._store.remove_upper(upper_id)
        if self._entries.get(upper_id) is entry:
            del self._entries[upper_id]
        await self._end(entry)
        self._bus.emit("upper.removed", upper_id=upper_id)

    # -- sharing -------------------------------------------------------------------------------------------

    async def shared(self, upper_id: str) -> tuple[bool, list[tuple[Key, str]]]:
        """Whether everything is shared, and what that is now, with the upper's ids."""
        entry = self._require(upper_id)
        await self._follow(entry)
        return entry.sharing.share_all, await entry.sharing.ordered()

    async def share(
        self, upper_id: str, items: Sequence[ShareItem], *, share_all: bool, dry_run: bool = False
    ) -> list[tuple[Key, str]]:
        """Replace what the upper sees; returns it. Raises gb.route.invalid naming the row."""
        entry = self._require(upper_id)
        if share_all:
            given = sharing_of(entry.upper, items, entry.sharing)
            changed = Sharing(entry.upper, share_all=True, rows=given.rows())
            await changed.follow(self._book)
        else:
            changed = sharing_of(entry.upper, items, entry.sharing)
        after_rows = await changed.ordered()
        if dry_run:
            return after_rows
        rows: list[ShareRow] = changed.rows()
        await self._store.replace_shares(upper_id, share_all, rows)
        before, after = dict(await entry.sharing.ordered()), dict(after_rows)
        entry.sharing = changed
        entry.notifications.touched([key for key in {**before, **after} if before.get(key) != after.get(key)])
        self.calls.end_unshared(upper_id, lambda key: changed.shared_id(*key) is not None)
        for broadcast in list(entry.broadcasts):
            if changed.shared_id(*broadcast.key) is None:
                broadcast.end("unshared")
        self._bus.emit("upper.shared", upper_id=upper_id, channels=len(changed), all=share_all)
        return after_rows

    async def tree(self, upper_id: str, form: Tree | None = None) -> trees.SharedTree:
        """What the upper is told, or would be told in another form."""
        entry = self._require(upper_id)
        await self._follow(entry)
        return await trees.build(entry.sharing, self._book, form)

    async def _follow(self, entry: _Entry) -> None:
        fresh = await entry.sharing.follow(self._book)
        if fresh:
            await self._store.add_shares(entry.upper.id, fresh)

    # -- ua.models.Platforms -------------------------------------------------------------------------------

    def is_bound(self, path: Path) -> bool:
        """See `Platforms`."""
        return self._paths.owner(path) is not None

    def owner_of(self, path: Path) -> str | None:
        """The upper platform at the end of this path."""
        return self._paths.owner(path)

    def claim(self, incoming: Incoming) -> bool:
        """See `Platforms`."""
        if incoming.method not in ("MESSAGE", "INVITE", "SUBSCRIBE", "OPTIONS"):
            return False
        upper_id = self._paths.owner(incoming.path) or self._by_connection(incoming)
        bound = upper_id is not None
        if upper_id is None:
            upper_id = self._by_host(incoming)
        entry = self._entries.get(upper_id) if upper_id is not None else None
        if entry is None:
            return False
        if incoming.method == "OPTIONS":
            return False  # the agent answers it, to everybody it knows (CS-02)
        if not entry.budget.permits():
            self._bus.emit("limit.reached", limit="upper_requests", upper_id=entry.upper.id)
            incoming.respond(503, headers=(("Retry-After", "1"),))
            return True
        if incoming.method == "MESSAGE":
            return self._message(entry, incoming, bound=bound)
        if incoming.method == "INVITE":
            return self._invite(entry, incoming, bound=bound)
        self._subscribe(entry, incoming)
        return True

    def connection_closed(self, path: Path) -> None:
        """A TCP connection of the gateway ended."""
        self._paths.forget(path)
        for entry in self._entries.values():
            entry.link.connection_lost(path)

    def _by_host(self, incoming: Incoming) -> str | None:
        """The upper that says who it is, over UDP from its own host but another port.

        It may ask: what we answer goes to the path of our registration, and media only after an ACK with our tag.
        """
        path = incoming.path
        if path.transport != "udp" or self._is_device_path(path):
            return None
        entry = self._entries.get(incoming.from_user)
        link = entry.link if entry is not None else None
        if link is None or link.path is None or not link.registered or link.path.reliable:
            return None
        return link.upper.id if link.path.remote_host == path.remote_host else None

    def _by_connection(self, incoming: Incoming) -> str | None:
        """The upper that made this connection and says who it is."""
        path = incoming.path
        if not path.connection_id or self._is_device_path(path):
            return None
        entry = self._entries.get(incoming.from_user)
        link = entry.link if entry is not None else None
        if (
            link is None
            or link.path is None
            or not link.registered
            or link.path.remote_host != path.remote_host
        ):
            return None
        self._paths.adopt(link.upper.id, path)
        self._agent.transports.mark_trusted(path)
        return link.upper.id

    # -- MESSAGE -------------------------------------------------------------------------------------------

    def _message(self, entry: _Entry, incoming: Incoming, *, bound: bool) -> bool:
        if not incoming.request.body:
            incoming.respond(200)
            return True
        document = read_body(incoming, self._bus, entry.upper.id)
        if document is None:
            return True
        if (document.root, document.cmd_type) == ("Notify", "Broadcast"):
            self._broadcast(entry, incoming, document, bound=bound)
            return True
        if document.root not in ("Query", "Control"):
            if self._is_device_path(incoming.path):
                return False
            incoming.respond(200)
            return True
        demand = self.answers.judge(entry.upper, entry.sharing, document)
        if isinstance(demand, Demand) and demand.command.root == "Control" and not bound:
            demand = Refusal(
                status=403, why=f"{demand.command.name} from another port than we are registered at"
            )
        route = self._route_of(entry, incoming, demand.key if isinstance(demand, Demand) else None)
        if isinstance(demand, Demand) and route.goes_round:
            demand = Refusal(status=482, why=GOES_ROUND)
        if isinstance(demand, Refusal):
            self.answers.counters.refused += 1
            self._bus.emit(
                "upper.request_refused",
                upper_id=entry.upper.id,
                cmd=document.cmd_type[:64],
                sip_status=demand.status,
                detail=demand.why,
            )
            incoming.respond(demand.status)
        elif entry.budget.busy:
            incoming.respond(503, headers=(("Retry-After", "5"),))
        else:
            incoming.respond(200)
            entry.budget.run(self._serve(entry, demand, route))
        return True

    async def _serve(self, entry: _Entry, demand: Demand, route: Route) -> None:
        PASSAGE.set(route.passage())
        if demand.command.root == "Control" and demand.key is not None:
            self._bus.emit(
                "upper.control",
                upper_id=entry.upper.id,
                device_id=demand.key.device_id,
                channel_id=demand.key.channel_id,
                cmd=demand.command.name,
                sn=demand.sn,
                user_identity=route.identity or None,
            )
        try:
            if demand.command.name == "Catalog":
                await self._follow(entry)
            await self.answers.serve(entry.link, entry.sharing, demand)
        except GatewayError as error:
            self._bus.emit(
                "upper.answer_failed",
                upper_id=entry.upper.id,
                cmd=demand.command.name,
                sn=demand.sn,
                reason=error.reason,
                detail=error.detail,
            )
        except Exception as error:  # supervision point: one question must not cost another
            self._bus.emit(
                "gateway.task_failed",
                task=f"upper {entry.upper.id} {demand.command.name}",
                error=type(error).__name__,
                detail=str(error)[:200],
            )

    # -- Broadcast -----------------------------------------------------------------------------------------

    def _broadcast(self, entry: _Entry, incoming: Incoming, document: Document, *, bound: bool) -> None:
        notify = read_broadcast_notify(document)
        key = entry.sharing.key_of(notify.target_id)
        if key is None or not bound or not entry.upper.control or entry.budget.busy:
            incoming.respond(404 if key is None else 403)
            return
        route = self._route_of(entry, incoming, key)
        if route.goes_round:
            incoming.respond(482)
            return
        incoming.respond(200)
        self.broadcast_counters.asked += 1
        broadcast = UpperBroadcast(self.calls.tools, self.broadcast_counters, entry.link, key, notify, route)
        entry.budget.run(self._speak(entry, broadcast))

    async def _speak(self, entry: _Entry, broadcast: UpperBroadcast) -> None:
        entry.broadcasts.add(broadcast)
        try:
            await broadcast.run()
        except GatewayError as error:
            self._bus.emit(
                "upper.command_failed",
                upper_id=entry.upper.id,
                cmd="Broadcast",
                reason=error.reason,
                detail=error.detail,
            )
        except Exception as error:  # supervision point: one voice must not cost another
            self._bus.emit(
                "gateway.task_failed",
                task=f"upper {entry.upper.id} broadcast",
                error=type(error).__name__,
                detail=str(error)[:200],
            )
        finally:
            entry.broadcasts.discard(broadcast)

    # -- INVITE --------------------------------------------------------------------------------------------

    def _invite(self, entry: _Entry, incoming: Incoming, *, bound: bool) -> bool:
        if incoming.request.to.tag:
            incoming.respond(481)  # of a dialog that is over
            return True
        # To names the channel; a few put it into the Request-URI alone.
        wanted = (incoming.to_user, user_of(incoming.request.uri))
        key = next((key for name in wanted if (key := entry.sharing.key_of(name)) is not None), None)
        route = self._route_of(entry, incoming, key)
        if key is None and self._is_device_path(incoming.path):
            return False  # a platform that is below us too may call to listen to a talk (CS-11)
        self.calls.invite(entry.link, incoming, key, route, bound=bound)
        return True

    def _route_of(self, entry: _Entry, incoming: Incoming, key: Key | None) -> Route:
        lower_id = key.device_id if key is not None and node_kind(key.device_id) is NodeKind.SYSTEM else ""
        return read_route(incoming.request, own_id=entry.upper.local_id, lower_id=lower_id)

    # -- SUBSCRIBE -----------------------------------------------------------------------------------------

    def _subscribe(self, entry: _Entry, incoming: Incoming) -> None:
        if incoming.request.to.tag:
            incoming.respond(481)  # of a subscription that has ended: it will ask anew
            return
        entry.notifications.subscribe(incoming)

    # -- what happens at the devices -----------------------------------------------------------------------

    def channel_changed(self, device_id: str, change: ChannelChange) -> None:
        """`Registry.on_channel_changed`."""
        channel = change.channel
        device = self._book.get(device_id)
        if channel.fault:
            self._faulty.add(Key(device_id, channel.id))
        new = (
            change.event is CatalogEvent.ADD
            and channel.kind not in TREE_KINDS
            and device is not None
            and device.approved
        )
        for entry in self._entries.values():
            if new and device_id != entry.upper.id:
                fresh = entry.sharing.take_in(channel)
                if fresh:
                    entry.budget.run(self._keep(entry, fresh))
            if entry.sharing.shared_id(device_id, channel.id) is not None:
                updated = change.event in (CatalogEvent.ADD, CatalogEvent.UPDATE)
                entry.notifications.touched([Key(device_id, channel.id)], updated=updated)

    async def _keep(self, entry: _Entry, rows: list[ShareRow]) -> None:
        """Store made ids; when the store does not answer, the next look at the catalogues makes them anew."""
        if not rows:
            return
        with contextlib.suppress(GatewayError):
            await self._store.add_shares(entry.upper.id, rows)

    def device_changed(self, device: Device, reason: str) -> None:
        """A device came online or went offline (`PresenceKeeper`)."""
        for entry in self._entries.values():
            entry.notifications.device_touched(device.id)

    def faults_changed(self, device: Device) -> None:
        """`Messages.on_faults`."""
        self._naming.add(device.id)

    def alarm(self, alarm: Alarm) -> None:
        """`Reports.on_alarm`."""
        for entry in self._entries.values():
            entry.notifications.alarm(alarm)

    def place(self, place: Place) -> None:
        """`Reports.on_position`."""
        for entry in self._entries.values():
            entry.notifications.place(place)

    def ptz_place(self, place: PtzPlace) -> None:
        """`Reports.on_ptz`."""
        for entry in self._entries.values():
            entry.notifications.ptz(place)

    # -- inside --------------------------------------------------------------------------------------------

    def next_sn(self) -> int:
        """For what we tell unasked."""
        self._sn = self._sn % _SN_LIMIT + 1
        return self._sn

    def _require(self, upper_id: str) -> _Entry:
        entry = self._entries.get(upper_id)
        if entry is None:
            raise GatewayError("gb.route.upper_unknown", f"There is no upper platform {upper_id[:64]}.")
        return entry

    def _enter(self, upper: Upper, sharing: Sharing) -> _Entry:
        link = UpperLink(
            upper,
            agent=self._agent,
            bus=self._bus,
            clock=self._clock,
            timers=self._timers,
            counters=self.counters,
            next_sn=self.next_sn,
            faults=lambda: self._faults(upper.id),
            on_path=lambda path: self._paths.bind(upper.id, path),
            on_change=lambda registered: self._changed(upper.id, registered),
        )
        notifications = Notifications(
            link=link,
            sharing=lambda: self._entries[upper.id].sharing,
            book=self._book,
            notifier=self._notifier,
            bus=self._bus,
            zone=self._zone,
            next_sn=self.next_sn,
            counters=self.notify_counters,
            pace=self._pace,
        )
        entry = _Entry(upper, sharing, link, Budget(self._clock), notifications)
        self._entries[upper.id] = entry
        return entry

    def _faults(self, upper_id: str) -> list[str]:
        """What a keepalive names as faulty (9.6.1): shared channels without video or defective, and those that the
        keepalives from below named."""
        entry = self._entries[upper_id]
        found: list[str] = []
        for key in sorted(self._faulty):
            device = self._book.get(key.device_id)
            channel = device.channels.get(key.channel_id) if device is not None else None
            if channel is None or not channel.fault:
                self._faulty.discard(key)
            elif not channel.gone and (shared_id := entry.sharing.shared_id(*key)) is not None:
                found.append(shared_id)
        return [*found, *sorted(self._faults_below(entry.sharing) - set(found))]

    def _faults_below(self, sharing: Sharing) -> set[str]:
        found: set[str] = set()
        for device_id in list(self._naming):
            device = self._book.get(device_id)
            if device is None or not device.faulty:
                self._naming.discard(device_id)
            elif device.online:  # else they are off, and it will say anew
                shared = (sharing.shared_id(device_id, channel_id) for channel_id in device.faulty)
                found.update(one for one in shared if one is not None)
        return found

    def _start(self, entry: _Entry) -> None:
        if self._running and entry.upper.enabled:
            entry.link.start()

    def _changed(self, upper_id: str, registered: bool) -> None:
        if not registered:
            self.calls.end_all(upper_id, "upper_lost")
        entry = self._entries.get(upper_id)
        if entry is not None:
            entry.notifications.link_changed()
            for broadcast in list(entry.broadcasts) if not registered else ():
                broadcast.end("upper_lost")

    async def _end(self, entry: _Entry) -> None:
        await entry.budget.close()
        self.calls.end_all(entry.upper.id, "upper_removed" if self._running else "shutdown")
        await self.calls.settled(entry.upper.id, None if self._running else _SHUTDOWN_S)
        await entry.notifications.close()
        await entry.link.close()

    def _view(self, entry: _Entry) -> UpperView:
        link = entry.link
        return UpperView(
            upper=entry.upper,
            registered=link.registered,
            registered_at=link.registered_at,
            last_error="" if link.registered else link.last_error,
            remote_address=link.path.peer if link.path is not None else "",
            shared_channels=len(entry.sharing),
            share_all=entry.sharing.share_all,
            streams=self.calls.count(entry.upper.id),
            subscriptions=entry.notifications.kinds,
        )


_WITHOUT_RELINK: Final = frozenset(
    {"name", "tree", "control", "drastic", "media_allow", "media_advertise", "charset"}
)
"""Settings that take effect without a new registration."""
