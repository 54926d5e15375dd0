"""When subscriptions are asked, renewed, given up and tried again: with a clock that the test owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gb28181gw.devices import subscriptions
from gb28181gw.devices.models import Device, Presence
from gb28181gw.devices.presence import PresenceKeeper, PresenceRules
from gb28181gw.devices.registry import DeviceChange, Registry
from gb28181gw.devices.subscriptions import (
    DeviceSubscriptions,
    Kind,
    SubscribeConfig,
    SubscriptionRecord,
    SubscriptionState,
    SubscriptionView,
)
from gb28181gw.errors import GatewayError
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.message import Headers, Request
from gb28181gw.ua.models import Target
from gb28181gw.ua.subscriptions import Subscription, Subscriptions
from tests.support.devices import (
    Calls,
    FakeClock,
    RecordingBus,
    binding,
    make_device,
    udp,
    until,
)
from tests.support.stores import MemoryDeviceStore


class MemoryStore:
    """`SubscriptionStore` without durability."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], SubscriptionRecord] = {}
        self.fail = False

    async def load_subscriptions(self) -> list[SubscriptionRecord]:
        return list(self.rows.values())

    async def save_subscription(self, record: SubscriptionRecord) -> None:
        if self.fail:
            raise GatewayError("gb.route.storage_unavailable")
        self.rows[record.device_id, record.kind, record.target] = record

    async def remove_subscription(self, device_id: str, kind: str, target: str) -> None:
        self.rows.pop((device_id, kind, target), None)


class Notes:
    """Stands for `Messages`: keeps the hook."""

    def on_notify(self, hear: Any) -> None:
        self.hear = hear


class FakeUa(Subscriptions):
    """Answers as the test says: `answers` are exceptions to raise, or seconds granted."""

    def __init__(self) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]  # nothing is sent
        self.answers: list[GatewayError | int] = []
        self.asked: list[tuple[str, str, str]] = []
        """What, user of To, Event."""
        self._count = 0

    async def subscribe(self, target: Target, *, event: str, expires_s: int, **_: Any) -> Subscription:  # type: ignore[override]
        self.asked.append(("subscribe", target.user, event))
        granted_s = await self._answer(expires_s)
        self._count += 1
        dialog = Dialog(
            call_id=f"call-{self._count}", local_tag="l", remote_tag="r", local_uri="sip:a@b", remote_uri="sip:c@d",
            remote_target="sip:c@d", local_cseq=1, remote_cseq=None, invite_cseq=1, path=target.path,
        )  # fmt: skip
        made = Subscription(dialog=dialog, event=event, granted_s=granted_s)
        self.keep(made)
        return made

    async def refresh(self, subscription: Subscription, *, expires_s: int, **_: Any) -> None:  # type: ignore[override]
        self.asked.append(("refresh", subscription.dialog.call_id, subscription.event))
        subscription.granted_s = await self._answer(expires_s)

    async def end(self, subscription: Subscription, **_: Any) -> None:  # type: ignore[override]
        self.asked.append(("end", subscription.dialog.call_id, subscription.event))

    async def _answer(self, expires_s: int) -> int:
        answer = self.answers.pop(0) if self.answers else expires_s
        await asyncio.sleep(0)
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    def verbs(self) -> list[str]:
        return [what for what, _, _ in self.asked]


class World:
    """One device; `pass_time` moves the clock and lets the service look."""

    def __init__(self, *kinds: Kind, store: MemoryStore | None = None) -> None:
        self.clock = FakeClock()
        self.bus = RecordingBus()
        self.store = store or MemoryStore()
        self.registry = Registry(store=MemoryDeviceStore(), bus=self.bus, clock=self.clock)
        self.presence = PresenceKeeper(
            registry=self.registry, bus=self.bus, clock=self.clock, rules=PresenceRules(), probe=Calls()
        )
        self.ua = FakeUa()
        self.notes = Notes()
        self.service = DeviceSubscriptions(
            config=SubscribeConfig(kinds=kinds or (Kind.ALARM,), after_online_s=0.0),
            registry=self.registry,
            presence=self.presence,
            messages=self.notes,  # type: ignore[arg-type]  # what is used of it
            subscriptions=self.ua,
            store=self.store,
            bus=self.bus,
            clock=self.clock,
            next_sn=lambda: 1,
        )
        self.device = self.make(1)

    def make(self, number: int) -> Device:
        device = make_device(number)
        self.registry.enrol(device)
        device.binding = binding(udp(5000 + number))
        self.registry.bind(device, udp(5000 + number))
        device.presence = Presence.ONLINE
        return device

    @property
    def view(self) -> SubscriptionView:
        (view,) = self.service.of(self.device)
        return view

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.service._wake.set()
        for _ in range(20):
            await asyncio.sleep(0)

    async def settled(self, state: SubscriptionState) -> None:
        await until(lambda: self.service.of(self.device) and self.view.state is state and not self.entry.busy)

    @property
    def entry(self) -> Any:
        (entry,) = self.service._entries[self.device.id].values()
        return entry

    def notify(self, state: str = "", call_id: str = "call-1", device: Device | None = None) -> int:
        headers = Headers(
            (
                ("Call-ID", call_id),
                ("From", "<sip:c@d>;tag=r"),
                ("To", "<sip:a@b>;tag=l"),
                ("Event", "presence"),
                *((("Subscription-State", state),) if state else ()),
            )
        )
        status: int = self.notes.hear(device or self.device, Request("NOTIFY", "sip:a@b", headers, b""))
        return status


def rejected(status: int, **evidence: object) -> GatewayError:
    return GatewayError("gb.sip.rejected", "no", sip_status=status, **evidence)


@asynccontextmanager
async def begun(*answers: GatewayError | int) -> AsyncIterator[World]:
    made = World()
    made.ua.answers = list(answers)
    made.service.start()
    made.service.begin()
    try:
        yield made
    finally:
        await made.service.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with begun() as made:
        yield made


async def test_cat19_it_is_renewed_at_half_of_the_granted_time() -> None:
    async with begun(200) as world:
        await world.settled(SubscriptionState.ACTIVE)
        await world.pass_time(89)
        assert world.ua.verbs() == ["subscribe"]
        await world.pass_time(22)
        await until(lambda: world.ua.verbs() == ["subscribe", "refresh"])
        await world.settled(SubscriptionState.ACTIVE)
        assert world.view.expires_at == pytest.approx(world.clock.wall() + 600, abs=1)
        assert world.store.rows[world.device.id, "alarm", world.device.id].until == world.view.expires_at


async def test_cat19_refusals_are_tried_again_later_each_time() -> None:
    async with begun(rejected(403), rejected(403), rejected(503, retry_after_s=900), 600) as world:
        await world.settled(SubscriptionState.FAILED)
        assert (world.view.sip_status, world.view.failures) == (403, 1)
        for wait_s, asked in ((50, 1), (20, 2), (100, 2), (40, 3), (700, 3)):
            await world.pass_time(wait_s)
            await until(lambda asked=asked: len(world.ua.asked) == asked and not world.entry.busy)  # type: ignore[misc]
        # Retry-After is longer than our own pause.
        await world.pass_time(300)
        await world.settled(SubscriptionState.ACTIVE)
        assert (world.view.failures, world.view.detail, world.view.sip_status) == (0, "", None)
        assert len(world.bus.of("subscription.failed")) == 1


@pytest.mark.parametrize("status", [405, 489, 501])
async def test_cat19_what_is_not_known_is_remembered_until_the_firmware_changes(status: int) -> None:
    world = World()
    world.ua.answers = [rejected(status)] * (2 if status == 489 else 1)
    world.service.start()
    world.service.begin()
    await world.settled(SubscriptionState.UNSUPPORTED)
    asked = len(world.ua.asked)
    assert asked == (2 if status == 489 else 1)  # another Event is tried
    await until(lambda: world.store.rows)
    world.service._online(world.device, "registered")
    world.service._returned(world.device)
    await world.pass_time(86_400)
    assert len(world.ua.asked) == asked
    world.device.firmware = "V2"
    world.service._online(world.device, "registered")
    await world.settled(SubscriptionState.ACTIVE)
    await world.service.close()


async def test_f17_what_was_granted_and_what_is_not_known_outlive_a_restart(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    await world.service.close()
    other = World(store=world.store)
    unknown = SubscriptionRecord(device_id="34020000001180000099", kind="alarm", target="x", until=9e9)
    wrong = SubscriptionRecord(
        device_id=other.device.id, kind="catalog", target=other.device.id, until=9e9, dialog={"dialog": 1}
    )
    for record in (unknown, wrong):
        await other.store.save_subscription(record)
    other.service.start()
    assert other.notify() == 200  # not known yet, and not complained of
    assert other.service.counters.notifies_unasked == 0
    other.service.begin()
    await until(lambda: other.service._loaded and len(other.store.rows) == 1)
    assert other.view.state is SubscriptionState.ACTIVE
    assert other.notify() == 200 and other.view.notifies == 1
    assert list(other.store.rows) == [(other.device.id, "alarm", other.device.id)]
    await other.pass_time(301)
    await until(lambda: other.ua.verbs() == ["refresh"])
    await other.service.close()


async def test_f15_without_a_store_it_lives_as_long_as_the_process(world: World) -> None:
    world.store.fail = True
    await world.settled(SubscriptionState.ACTIVE)
    assert not world.store.rows


async def test_a_device_that_is_away_is_not_asked_and_comes_back_to_its_dialog(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    world.presence.offline(world.device, "keepalive")
    assert world.view.state is SubscriptionState.WAITING and world.view.expires_at
    await world.pass_time(400)
    assert world.ua.verbs() == ["subscribe"]
    world.presence.seen(world.device, "keepalive")
    await until(lambda: world.ua.verbs() == ["subscribe", "refresh"])
    world.presence.offline(world.device, "keepalive")
    await world.pass_time(601)
    world.presence.seen(world.device, "keepalive")
    await until(lambda: world.ua.verbs() == ["subscribe", "refresh", "subscribe"])


async def test_cat19_a_renewal_that_is_refused_makes_a_new_one_at_once(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    world.ua.answers = [rejected(481)]
    await world.pass_time(331)
    await until(lambda: world.ua.verbs() == ["subscribe", "refresh", "subscribe"])
    await world.settled(SubscriptionState.ACTIVE)
    assert world.notify(call_id="call-2") == 200 and world.view.notifies == 1


async def test_a_renewal_without_an_answer_makes_a_new_one_later(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    world.ua.answers = [GatewayError("gb.sip.no_answer")]
    await world.pass_time(331)
    await world.settled(SubscriptionState.FAILED)
    await world.pass_time(67)
    await until(lambda: world.ua.verbs() == ["subscribe", "refresh", "subscribe"])


async def test_a_connection_that_is_gone_keeps_the_dialog(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    world.ua.answers = [GatewayError("gb.sip.path_lost")]
    await world.pass_time(331)
    await world.settled(SubscriptionState.FAILED)
    await world.pass_time(67)
    await until(lambda: world.ua.verbs() == ["subscribe", "refresh", "refresh"])
    await world.settled(SubscriptionState.ACTIVE)


async def test_s03_a_device_ends_its_own_subscriptions_only(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    thief = world.make(2)
    assert world.notify("terminated;reason=noresource", device=thief) == 200
    assert world.view.state is SubscriptionState.ACTIVE and world.view.notifies == 0


async def test_rfc6665_the_notifier_may_shorten(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    assert world.notify("active;expires=2") == 200  # too short to be meant
    assert world.notify("active;expires=9999") == 200
    assert world.view.expires_at == pytest.approx(world.clock.wall() + 600, abs=1)
    assert world.notify("active;expires=90") == 200
    assert world.view.expires_at == pytest.approx(world.clock.wall() + 90, abs=1)
    await world.pass_time(46)
    await until(lambda: world.ua.verbs() == ["subscribe", "refresh"])


@pytest.mark.parametrize(
    ("reason", "age_s", "wait_s", "state"),
    [
        (";reason=timeout", 100, 2, SubscriptionState.WAITING),
        ("", 100, 2, SubscriptionState.WAITING),
        (";reason=deactivated", 5, 70, SubscriptionState.FAILED),  # so soon: it does not want it
        (";reason=giveup;retry-after=600", 100, 661, SubscriptionState.FAILED),
        (";reason=rejected", 100, 70, SubscriptionState.FAILED),
        (";reason=noresource", 100, 8 * 86_400, SubscriptionState.UNSUPPORTED),
    ],
)
async def test_rfc6665_what_the_reason_of_an_end_asks_for(
    world: World, reason: str, age_s: float, wait_s: float, state: SubscriptionState
) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    await world.pass_time(age_s)
    assert world.notify(f"terminated{reason}") == 200
    assert world.view.state is state and world.view.reason == "terminated"
    assert world.notify() == 200  # of nothing any more, and heard all the same
    assert world.service.counters.notifies_unasked == 1
    await world.pass_time(wait_s)
    await until(lambda: world.ua.verbs() == ["subscribe", "subscribe"])


async def test_what_is_not_wanted_while_its_answer_is_under_way_is_ended(world: World) -> None:
    await until(lambda: world.ua.asked)
    await world.registry.change(world.device.id, DeviceChange(subscribe=()))
    await until(lambda: world.ua.verbs() == ["subscribe", "end"])
    assert world.service.of(world.device) == [] and not world.store.rows


async def test_nothing_is_asked_of_a_device_that_waits_for_approval() -> None:
    world = World()
    world.device.approved = False
    world.service.start()
    world.service.begin()
    await world.pass_time(10)
    assert not world.ua.asked
    await world.registry.approve(world.device.id)
    await world.settled(SubscriptionState.ACTIVE)
    await world.service.close()


async def test_renew_asks_at_once_and_only_what_can_be_reached(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    world.service.renew(world.device.id)
    await until(lambda: world.ua.verbs() == ["subscribe", "refresh"])
    world.presence.offline(world.device, "keepalive")
    with pytest.raises(GatewayError) as caught:
        world.service.renew(world.device.id)
    assert caught.value.code == "gb.route.offline"


async def test_counts_are_by_kind_and_state(world: World) -> None:
    await world.settled(SubscriptionState.ACTIVE)
    assert world.service.counts() == {("alarm", "active"): 1}
    world.presence.offline(world.device, "keepalive")
    assert world.service.counts() == {("alarm", "waiting"): 1}


async def test_i10_the_heap_does_not_grow_with_devices_that_come_and_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "HEAP_LIMIT", 50)
    world.service._heap_limit = 50
    await world.settled(SubscriptionState.ACTIVE)
    for _ in range(1_000):
        world.service._when(world.entry, 1_000.0)
        world.clock.advance(0.001)
    assert len(world.service._heap) <= 52


async def test_a_bug_costs_one_device_and_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.settled(SubscriptionState.ACTIVE)

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(world.ua, "refresh", broken)
    await world.pass_time(331)
    await world.settled(SubscriptionState.FAILED)
    assert world.bus.of("gateway.task_failed")[0]["error"] == "RuntimeError"
