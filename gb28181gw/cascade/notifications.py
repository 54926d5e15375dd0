"""Subscriptions of one upper: a task each, which tells what its feed collected (GB/T 28181-2022 9.11, Annex N).

A subscription is told serially (Annex M), never faster than its pace, and not at all while we are not registered:
its feed goes on collecting, and when the upper is back one round brings it up to date (F-11). It ends with its time,
by the upper's word, or when the upper answers that it does not know it; nothing is renewed silently (CS-17).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone
from typing import Final, TypeVar

from gb28181gw.cascade import tree as trees
from gb28181gw.cascade.feeds import (
    AlarmFeed,
    CatalogFeed,
    Feed,
    PositionFeed,
    PtzFeed,
    Subscribed,
    read_subscribed,
)
from gb28181gw.cascade.link import UpperLink
from gb28181gw.cascade.requests import read_body
from gb28181gw.cascade.routes import read_route
from gb28181gw.cascade.sharing import ChannelBook, Key, Sharing
from gb28181gw.devices.reports import Alarm, Place, PtzPlace
from gb28181gw.errors import GatewayError
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.answers import write_result
from gb28181gw.gb.manscdp.commands import COMMANDS
from gb28181gw.gb.manscdp.messages import CONTENT_TYPE
from gb28181gw.gb.times import format_time
from gb28181gw.observability.events import EventBus
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.notifier import Grant, Notifier

Kind = TypeVar("Kind")

SUBSCRIPTIONS_LIMIT: Final = 32
"""Of one upper (threat S-21)."""
_GONE: Final = frozenset({404, 410, 481, 489})
"""What ends a subscription (RFC 6665 4.2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds; tests take smaller ones."""

    gather_s: float = 1.0
    """From the first change to its NOTIFY, so that what comes together is told together."""
    between_s: float = 5.0
    """Between two rounds of the catalogue."""
    answer_s: float = 10.0
    again_s: float = 15.0
    """After a NOTIFY that was not answered."""


@dataclass(slots=True)
class NotifyCounters:
    """Plain counters for the exporter, summed over all uppers."""

    subscribed: int = 0
    refused: int = 0
    notified: int = 0
    failed: int = 0
    expired: int = 0
    ended_by_upper: int = 0


class _Subscription:
    """One of them. Owner of its grant, its feed and its task."""

    def __init__(self, owner: Notifications, subscribed: Subscribed, feed: Feed) -> None:
        self.subscribed = subscribed
        self.feed = feed
        self.grant: Grant | None = None
        self.wake = asyncio.Event()
        self.expires_at = 0.0
        self.task: asyncio.Task[None] | None = None
        self._owner = owner

    def extend(self, seconds: float) -> None:
        self.expires_at = asyncio.get_running_loop().time() + seconds
        self.wake.set()

    async def run(self) -> None:
        """Until it ends."""
        loop = asyncio.get_running_loop()
        owner, pace = self._owner, self._owner.pace
        while True:
            while not (self.feed.waiting and owner.link.registered):
                if not await self._woken(self.expires_at):
                    await owner.expire(self)
                    return
                if self.grant is not None and not self.grant.expires_s:
                    await owner.goodbye(self)
                    return
            await asyncio.sleep(pace.gather_s if self.subscribed.cmd_type != "Alarm" else 0)
            began = loop.time()
            outcome = await self._tell()
            if outcome == "gone":
                owner.drop(self)
                return
            wait = pace.between_s if self.subscribed.cmd_type == "Catalog" else 0.0
            if self.subscribed.cmd_type == "MobilePosition":
                wait = self.subscribed.interval_s
            if outcome == "failed":
                wait = pace.again_s
            await self._woken_for_end(began + wait)

    async def _tell(self) -> str:
        """One round: told, failed, or gone."""
        owner = self._owner
        tree = await owner.tree() if self.feed.needs_tree else None
        bodies = self.feed.take(tree)
        for body in bodies:
            grant, path = self.grant, owner.link.path
            if grant is None:
                return "gone"
            if path is None:
                self._again(bodies[bodies.index(body) :])
                return "failed"
            remaining = int(self.expires_at - asyncio.get_running_loop().time())
            try:
                response = await owner.notifier.notify(
                    grant, path, body, CONTENT_TYPE, remaining_s=remaining, timeout_s=owner.pace.answer_s
                )
            except GatewayError:
                owner.counters.failed += 1
                self._again(bodies[bodies.index(body) :])
                return "failed"
            if response.status in _GONE:
                return "gone"
            owner.counters.notified += 1
        return "told"

    def _again(self, bodies: list[bytes]) -> None:
        """What did not arrive is told when the upper is back: it may hold states, which must not be lost."""
        feed = self.feed
        self.feed = _Leftover(bodies, feed) if not isinstance(feed, _Leftover) else feed
        if isinstance(feed, _Leftover):
            feed.bodies = [*bodies, *feed.bodies]

    async def _woken(self, until: float) -> bool:
        """True when something happened before that time."""
        self.wake.clear()
        if self.feed.waiting and self._owner.link.registered:
            return True
        try:
            async with asyncio.timeout_at(until):
                await self.wake.wait()
        except TimeoutError:
            return False
        return True

    async def _woken_for_end(self, until: float) -> None:
        """A pause that only the end of the subscription cuts short."""
        loop = asyncio.get_running_loop()
        while (left := until - loop.time()) > 0 and (self.grant is None or self.grant.expires_s):
            self.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.wake.wait()


class _Leftover:
    """Bodies that were not answered, before what the feed has next."""

    def __init__(self, bodies: list[bytes], feed: Feed) -> None:
        self.bodies = bodies
        self.inner = feed

    @property
    def waiting(self) -> bool:
        return bool(self.bodies) or self.inner.waiting

    @property
    def needs_tree(self) -> bool:
        return self.inner.needs_tree

    def take(self, tree: trees.SharedTree | None) -> list[bytes]:
        bodies, self.bodies = self.bodies, []
        return [*bodies, *(self.inner.take(tree) if self.inner.waiting else [])]


class Notifications:
    """The subscriptions of one upper. Its owner tells it what happens here."""

    def __init__(
        self,
        *,
        link: UpperLink,
        sharing: Callable[[], Sharing],
        book: ChannelBook,
        notifier: Notifier,
        bus: EventBus,
        zone: timezone,
        next_sn: Callable[[], int],
        counters: NotifyCounters,
        pace: Pace,
    ) -> None:
        self.link = link
        self.notifier = notifier
        self.counters = counters
        self.pace = pace
        self._sharing = sharing
        self._book = book
        self._bus = bus
        self._zone = zone
        self._next_sn = next_sn
        self._all: list[_Subscription] = []

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is subscribed to, by CmdType."""
        return tuple(sorted(one.subscribed.cmd_type for one in self._all))

    async def tree(self) -> trees.SharedTree:
        return await trees.build(self._sharing(), self._book)

    # -- SUBSCRIBE -----------------------------------------------------------------------------------------

    def subscribe(self, incoming: Incoming) -> None:
        """A SUBSCRIBE outside dialogs."""
        document = read_body(incoming, self._bus, self.link.upper.id)
        if document is None:
            return
        subscribed = read_subscribed(document)
        refusal = 0
        if subscribed is None:
            refusal = 489
        elif len(self._all) >= SUBSCRIPTIONS_LIMIT:
            refusal = 503
        if subscribed is None or refusal:
            self.counters.refused += 1
            incoming.respond(refusal)
            return
        one = _Subscription(self, subscribed, self._feed(subscribed))
        grant = self.notifier.accept(
            incoming,
            user=self.link.upper.id,
            on_refresh=lambda later: self._within(one, later),
            body=self._confirmation(subscribed),
            content_type=CONTENT_TYPE,
        )
        if grant is None:
            return
        same = (subscribed.cmd_type, subscribed.target)
        for other in list(self._all):
            if (other.subscribed.cmd_type, other.subscribed.target) == same:
                self.drop(other)  # asked for anew in another dialog: it forgot the one before
        one.grant = grant
        self._all.append(one)
        self.counters.subscribed += 1
        one.extend(grant.expires_s)
        self._bus.emit(
            "upper.subscribed",
            upper_id=self.link.upper.id,
            cmd=subscribed.cmd_type,
            device_id=subscribed.target or None,
            expires_s=grant.expires_s,
            user_identity=read_route(incoming.request, own_id=self.link.upper.local_id, lower_id="").identity
            or None,
        )
        one.task = asyncio.get_running_loop().create_task(
            self._live(one), name=f"notify {self.link.upper.id}"
        )

    def _within(self, one: _Subscription, incoming: Incoming) -> None:
        """A request of the upper in the dialog."""
        if incoming.method != "SUBSCRIBE" or one.grant is None:
            incoming.respond(200 if incoming.method in ("MESSAGE", "OPTIONS") else 405)
            return
        self.notifier.refresh(
            one.grant, incoming, body=self._confirmation(one.subscribed), content_type=CONTENT_TYPE
        )
        if one.grant.expires_s:
            one.extend(one.grant.expires_s)
        else:
            self.counters.ended_by_upper += 1
            one.wake.set()

    def _confirmation(self, subscribed: Subscribed) -> bytes:
        """Body of the 200: a Response in 2016 (9.11.1.3), nothing since."""
        upper = self.link.upper
        if upper.edition >= Edition.V3_0 or subscribed.cmd_type != "Alarm":
            return b""
        return write_result(
            COMMANDS["Alarm"],
            subscribed.sn,
            subscribed.target or upper.local_id,
            ok=True,
            charset=upper.dialect.charset_used,
        )

    def _feed(self, subscribed: Subscribed) -> Feed:
        upper = self.link.upper
        match subscribed.cmd_type:
            case "Catalog":
                return CatalogFeed(upper, self._sharing, self._book, subscribed, self._next_sn)
            case "Alarm":
                return AlarmFeed(upper, subscribed, self._next_sn, self._format)
            case "MobilePosition":
                return PositionFeed(upper, subscribed, self._format)
            case _:
                return PtzFeed(upper, subscribed)

    def _format(self, seconds: float) -> str:
        return format_time(seconds, self._zone)

    # -- its life ------------------------------------------------------------------------------------------

    async def _live(self, one: _Subscription) -> None:
        try:
            if isinstance(one.feed, CatalogFeed):
                await one.feed.begin(await self.tree())
            await one.run()
        except Exception as error:  # supervision point: one subscription must not cost another
            self._bus.emit(
                "gateway.task_failed",
                task=f"notify {self.link.upper.id}",
                error=type(error).__name__,
                detail=str(error)[:200],
            )
            self.drop(one)

    async def expire(self, one: _Subscription) -> None:
        """Its time is over."""
        self.counters.expired += 1
        await self.goodbye(one)

    async def goodbye(self, one: _Subscription) -> None:
        """The last NOTIFY, and forget it."""
        grant, path = one.grant, self.link.path
        self._forget(one)
        if grant is not None and path is not None and self.link.registered:
            with contextlib.suppress(GatewayError):
                await self.notifier.terminate(grant, path, "timeout", timeout_s=self.pace.answer_s)

    def drop(self, one: _Subscription) -> None:
        """Forget it without a word."""
        self._forget(one)
        if one.task is not None and one.task is not asyncio.current_task():
            one.task.cancel()

    def _forget(self, one: _Subscription) -> None:
        if one in self._all:
            self._all.remove(one)
        if one.grant is not None:
            self.notifier.forget(one.grant)
            one.grant = None

    async def close(self) -> None:
        """End all of them."""
        tasks = [one.task for one in self._all if one.task is not None]
        for one in list(self._all):
            self.drop(one)
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what happens here ---------------------------------------------------------------------------------

    def link_changed(self) -> None:
        """We are registered again, or no longer."""
        for one in self._all:
            one.wake.set()

    def touched(self, keys: list[Key], *, updated: bool = False) -> None:
        """Channels changed, appeared or went."""
        for one, feed in self._feeds(CatalogFeed):
            feed.touch(keys, updated=updated)
            one.wake.set()

    def device_touched(self, device_id: str) -> None:
        """A device came or went."""
        for one, feed in self._feeds(CatalogFeed):
            feed.touch_device(device_id)
            one.wake.set()

    def alarm(self, alarm: Alarm) -> None:
        """A device raised one."""
        shared_id = self._sharing().shared_id(alarm.device_id, alarm.channel_id)
        for one, feed in self._feeds(AlarmFeed):
            if shared_id is not None:  # nothing of what is not shared leaks through reports (S-21)
                feed.add(shared_id, alarm)
                one.wake.set()

    def place(self, place: Place) -> None:
        """Something told where it is."""
        shared_id = self._sharing().shared_id(place.device_id, place.channel_id)
        for one, feed in self._feeds(PositionFeed):
            if shared_id is not None:
                feed.add(shared_id, place)
                one.wake.set()

    def ptz(self, place: PtzPlace) -> None:
        """A camera told where it looks."""
        shared_id = self._sharing().shared_id(place.device_id, place.channel_id)
        for one, feed in self._feeds(PtzFeed):
            if shared_id is not None:
                feed.add(shared_id, place)
                one.wake.set()

    def _feeds(self, kind: type[Kind]) -> list[tuple[_Subscription, Kind]]:
        found: list[tuple[_Subscription, Kind]] = []
        for one in self._all:
            feed = one.feed.inner if isinstance(one.feed, _Leftover) else one.feed
            if isinstance(feed, kind):
                found.append((one, feed))
        return found
