"""REGISTER, from the challenge to the binding, without sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gb28181gw.devices.authentication import Authenticator
from gb28181gw.devices.bans import BAN_S, BanTable
from gb28181gw.devices.config import DateMode, DevicesConfig, Enrolment
from gb28181gw.devices.models import Device
from gb28181gw.devices.presence import PresenceKeeper, PresenceRules
from gb28181gw.devices.registrar import HINTS, Registrar
from gb28181gw.devices.registry import UNSAVED_BINDING, DeviceChange, Registry
from gb28181gw.sip.path import Path
from tests.support.devices import (
    DOMAIN,
    PLATFORM,
    Calls,
    FakeClock,
    FakeIncoming,
    PaperDevice,
    RecordingBus,
    device_id,
    make_device,
    tcp,
    udp,
    until,
)
from tests.support.stores import MemoryDeviceStore


class World:
    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.bus = RecordingBus()
        self.store = MemoryDeviceStore()
        self.trusted = True
        self.refused = Calls()
        self.bound = Calls()
        self.settings: dict[str, Any] = {
            "platform_id": PLATFORM,
            "domain": DOMAIN,
            "password": "secret-password",
            "enrolment": Enrolment.OPEN,
            **settings,
        }
        self.build()

    def build(self) -> None:
        self.registry = Registry(store=self.store, bus=self.bus, clock=self.clock)
        self.presence = PresenceKeeper(
            registry=self.registry, bus=self.bus, clock=self.clock, rules=PresenceRules(), probe=Calls()
        )
        self.registrar = Registrar(
            config=DevicesConfig(**self.settings),
            registry=self.registry,
            store=self.store,
            presence=self.presence,
            bus=self.bus,
            clock=self.clock,
            authenticator=Authenticator(key=b"k" * 32, realm=DOMAIN, clock=self.clock),
            bans=BanTable(self.store),
            clock_trusted=lambda: self.trusted,
            on_refused=self.refused,
            on_bound=self.bound,
        )

    def paper(self, number: int = 1, path: Path | None = None, **changes: Any) -> PaperDevice:
        return PaperDevice(device_id(number), path or udp(5000 + number), **changes)

    async def send(self, incoming: FakeIncoming) -> FakeIncoming:
        """Hand over and wait for the commit."""
        self.registrar.handle(incoming)
        await until(lambda: incoming.statuses or incoming.ignored)
        return incoming

    async def register(self, paper: PaperDevice, *extra: str, expires: int | None = 3600) -> FakeIncoming:
        """Ask, take the challenge, answer it."""
        self.clock.advance(0.02)
        first = await self.send(paper.register(*extra, expires=expires))
        if first.status != 401:
            return first
        paper.take(first)
        self.clock.advance(0.02)
        return await self.send(paper.register(*extra, expires=expires, credentials=True))

    def device(self, number: int = 1) -> Device:
        return self.registry.require(device_id(number))

    def refusals(self) -> list[str]:
        return [fields["reason"] for fields in self.bus.of("device.register_refused")]


@pytest.fixture
def world() -> World:
    return World()


# -- the basic flow ------------------------------------------------------------------------------------------------


async def test_the_basic_registration(world: World) -> None:
    answer = await world.register(world.paper(), "X-GB-Ver: 3.0", "User-Agent: Cam/1")
    assert answer.status == 200
    assert answer.headers["expires"] == "3600"
    assert answer.headers["contact"] == f"<sip:{device_id(1)}@192.168.1.64:5060>;expires=3600"
    assert answer.headers["date"] == "2024-05-01T08:30:00.040"
    device = world.device()
    assert device.online
    assert device.path == udp(5001)
    assert device.remote_address == "10.1.1.1:5001"
    assert (device.edition, device.binding.user_agent, device.domain) == ("3.0", "Cam/1", DOMAIN)
    assert world.bus.names() == ["device.registered", "device.online"] or world.bus.names() == [
        "device.online",
        "device.registered",
    ]
    assert world.bound.calls == [(udp(5001), None)]


async def test_the_challenge_is_what_most_devices_know(world: World) -> None:
    incoming = await world.send(world.paper().register())
    header = incoming.headers["www-authenticate"]
    assert header.startswith(f'Digest realm="{DOMAIN}", nonce="')
    assert header.endswith('algorithm=MD5, qop="auth"')


async def test_reg02_qop_can_be_switched_off_for_a_device(world: World) -> None:
    await world.registry.provision(device_id(1), DeviceChange(dialect={"qop": "false"}))
    incoming = await world.send(world.paper().register())
    assert "qop" not in incoming.headers["www-authenticate"]


async def test_i9_the_200_comes_after_the_commit(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    incoming = paper.register(credentials=True)
    world.registrar.handle(incoming)
    assert incoming.statuses == []
    assert world.registry.get(paper.id) is None
    assert world.registrar.uncommitted == 1
    await asyncio.sleep(0)
    assert incoming.status == 200
    assert world.registrar.uncommitted == 0
    (stored,) = await world.store.load()
    assert stored.binding == world.device().binding


async def test_s01_a_refresh_needs_credentials(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    again = await world.send(paper.register())
    assert again.status == 401
    assert again.headers["www-authenticate"]


async def test_reg06_the_same_call_id_is_no_credential(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    other = world.paper(path=udp(9, "10.9.9.9"))
    other.call_id = paper.call_id
    assert (await world.send(other.register())).status == 401
    assert world.device().path == udp(5001)


async def test_a_refresh_on_the_same_path_is_no_new_registration(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    assert (await world.register(paper)).status == 200
    assert len(world.bus.of("device.registered")) == 1
    assert (world.registrar.counters.registered, world.registrar.counters.refreshed) == (1, 1)


async def test_reg17_a_verified_register_moves_the_route_at_once(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    paper.path = udp(7777, "10.7.7.7")
    paper.call_id = "after-reboot"
    assert (await world.register(paper)).status == 200
    assert world.device().path == udp(7777, "10.7.7.7")
    assert world.registry.alone_on(udp(5001)) is None
    assert world.bound.calls[-1] == (udp(7777, "10.7.7.7"), udp(5001))


async def test_reg16_private_contact_is_only_shown(world: World) -> None:
    await world.register(world.paper())
    device = world.device()
    assert "192.168.1.64" in device.binding.contact
    assert world.registry.target(device.id).path.remote_host == "10.1.1.1"


# -- what devices do differently -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "extra", "granted"),
    [
        (None, (), "3600"),
        (30, (), "60"),
        (60, (), "60"),
        (86_400, (), "86400"),
        (999_999, (), "86400"),
    ],
)
async def test_reg10_reg12_the_granted_expiry(
    world: World, asked: int | None, extra: tuple[str, ...], granted: str
) -> None:
    assert (await world.register(world.paper(), *extra, expires=asked)).headers["expires"] == granted


async def test_reg10_expires_in_the_contact_wins(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    incoming = paper.register(expires=3600, credentials=True)
    incoming.request.headers.set("Contact", f"<sip:{paper.id}@192.168.1.64:5060>;expires=120")
    assert (await world.send(incoming)).headers["expires"] == "120"


async def test_reg12_a_device_is_not_expired_before_its_own_time(world: World) -> None:
    await world.register(world.paper(), expires=200_000)
    device = world.device()
    assert device.binding.expires_at - world.clock.wall() == pytest.approx(200_000, abs=1)


async def test_reg01_a_foreign_digest_uri_is_accepted_and_marked(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    incoming = paper.register()
    incoming.request.headers.add(
        "Authorization", paper.authorization(uri="sip:whoever@1.2.3.4").partition(": ")[2]
    )
    assert (await world.send(incoming)).status == 200
    assert world.device().quirks == {"digest.foreign_uri": 1}


async def test_reg02_an_answer_without_qop_is_accepted_and_marked(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    assert (await world.send(paper.register(paper.authorization(qop=False)))).status == 200
    assert world.device().quirks == {"digest.without_qop": 1}


@pytest.mark.parametrize(
    "value", ["", "Digest", 'Digest username="x"', "Basic abc", 'Digest username="x", nonce="", response=""']
)
async def test_reg04_half_an_authorization_is_none(world: World, value: str) -> None:
    incoming = await world.send(world.paper().register(f"Authorization: {value}"))
    assert incoming.status == 401
    assert world.registrar.counters.refused == 0


async def test_reg05_an_old_nonce_with_the_right_hash_is_stale(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    world.clock.advance(4000)
    incoming = await world.send(paper.register(credentials=True))
    assert incoming.status == 401
    assert "stale=true" in incoming.headers["www-authenticate"]
    paper.take(incoming)
    assert (await world.send(paper.register(credentials=True))).status == 200


async def test_reg13_an_unknown_id_must_have_20_digits(world: World) -> None:
    paper = world.paper()
    paper.id = paper.username = "340200000011800001"
    assert (await world.register(paper)).status == 403
    assert world.refusals() == ["id_invalid"]


async def test_reg13_a_provisioned_id_may_be_anything_and_is_marked(world: World) -> None:
    paper = world.paper()
    paper.id = paper.username = "camera7"
    await world.registry.provision("camera7", DeviceChange())
    assert (await world.register(paper)).status == 200
    assert world.registry.require("camera7").quirks == {"id.form": 1}


async def test_reg14_type_digits_decide_nothing(world: World) -> None:
    for number, code in enumerate((111, 118, 131, 132, 200, 999)):
        paper = PaperDevice(device_id(number, code), udp(6000 + number))
        assert (await world.register(paper)).status == 200


async def test_s01_from_and_to_must_agree(world: World) -> None:
    incoming = await world.send(world.paper().register(to=device_id(2)))
    assert incoming.status == 400
    assert len(world.refused.calls) == 1


async def test_reg24_f17_registrations_are_there_after_a_restart(world: World) -> None:
    await world.register(world.paper())
    world.build()
    await world.registry.load()
    world.presence.restore()
    device = world.device()
    assert device.online
    assert device.path == udp(5001)


async def test_inv22_a_stored_binding_takes_the_address_and_port_that_we_have_now(world: World) -> None:
    await world.register(world.paper())
    world.build()
    await world.registry.load(lambda path: path._replace(local_host="198.51.100.7", local_port=5070))
    world.presence.restore()
    target = world.registry.target(world.device().id)
    assert (target.path.local_host, target.path.local_port) == ("198.51.100.7", 5070)
    assert target.path.peer == udp(5001).peer


async def test_f17_a_used_answer_is_used_after_a_restart_too(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    authorization = paper.authorization()
    assert (await world.send(paper.register(authorization))).status == 200
    world.build()
    await world.registry.load()
    assert (await world.send(paper.register(authorization))).status == 401


# -- passwords -----------------------------------------------------------------------------------------------------


async def test_s01_known_and_unknown_ids_look_alike() -> None:
    world = World(enrolment=Enrolment.CLOSED)
    await world.registry.provision(device_id(1), DeviceChange())
    answers = []
    for number in (1, 2):
        paper = world.paper(number, password="guess")
        first = await world.send(paper.register())
        paper.take(first)
        second = await world.send(paper.register(credentials=True))
        answers.append((first.status, len(first.headers["www-authenticate"]), second.status, second.headers))
    assert answers[0] == answers[1]
    assert answers[0][2] == 403


async def test_reg09_the_devices_own_password_wins(world: World) -> None:
    await world.registry.provision(device_id(1), DeviceChange(password="its-own"))
    assert (await world.register(world.paper())).status == 403
    (event,) = world.bus.of("device.register_refused")
    assert "the device's own password" in event["detail"]
    assert "its-own" not in str(world.bus.seen)
    assert "secret-password" not in str(world.bus.seen)
    assert (await world.register(world.paper(password="its-own"))).status == 200


async def test_reg07_a_wrong_password_gives_one_clear_event(world: World) -> None:
    paper = world.paper(password="wrong")
    for _ in range(3):
        assert (await world.register(paper)).status == 403
        world.clock.advance(61)
    (event,) = world.bus.of("device.register_refused")
    assert event["reason"] == "wrong_password"
    assert "PATCH /api/v1/devices" in event["detail"]
    assert "clears it" in HINTS["wrong_password"]


async def test_s02_five_wrong_answers_are_banned_in_silence(world: World) -> None:
    paper = world.paper(password="wrong")
    for _ in range(5):
        assert (await world.register(paper)).status == 403
        world.clock.advance(61)
    assert (await world.send(paper.register())).ignored
    (event,) = world.bus.of("auth.banned")
    assert event["duration_s"] == pytest.approx(BAN_S, abs=1)
    right = world.paper()
    assert (await world.send(right.register())).ignored
    other_place = world.paper(path=udp(5001, "10.8.8.8"))
    assert (await world.register(other_place)).status == 200


async def test_reg07_correcting_the_password_ends_the_ban(world: World) -> None:
    paper = world.paper(password="new-password")
    await world.registry.provision(paper.id, DeviceChange(password="old-password"))
    for _ in range(5):
        await world.register(paper)
        world.clock.advance(61)
    assert (await world.send(paper.register())).ignored
    await world.registry.change(paper.id, DeviceChange(password="new-password"))
    assert (await world.register(paper)).status == 200


async def test_s02_guesses_with_the_right_nonce_find_nothing(world: World) -> None:
    accepted = 0
    for number in range(200):
        paper = world.paper(1, udp(1, f"10.50.{number}.1"), password=f"guess{number}")
        accepted += (await world.register(paper)).status == 200
    assert accepted == 0
    assert len(world.registry) == 0


async def test_s01_the_username_of_another_is_refused(world: World) -> None:
    await world.register(world.paper(1))
    paper = world.paper(2)
    paper.username = device_id(1)
    assert (await world.register(paper)).status == 403
    assert world.refusals() == ["wrong_username"]


async def test_reg07_another_domain_in_the_device_is_told(world: World) -> None:
    paper = world.paper()
    paper.realm = "34010000"
    assert (await world.register(paper)).status == 401
    assert world.refusals() == ["wrong_realm"]
    assert DOMAIN in world.bus.of("device.register_refused")[0]["detail"]


async def test_reg19_a_device_that_does_not_hear_the_401_is_told(world: World) -> None:
    paper = world.paper()
    for _ in range(7):
        world.registrar.handle(paper.register())
    await world.registrar.close()
    assert world.refusals() == ["no_reaction"]
    assert "6081" in world.bus.of("device.register_refused")[0]["detail"]


# -- enrolment -----------------------------------------------------------------------------------------------------


async def test_enrolment_open_lets_in_whoever_knows_the_password(world: World) -> None:
    assert (await world.register(world.paper())).status == 200
    assert world.device().approved
    assert not world.device().provisioned


async def test_enrolment_approve_answers_200_and_waits() -> None:
    world = World(enrolment=Enrolment.APPROVE)
    assert (await world.register(world.paper())).status == 200
    device = world.device()
    assert device.online
    assert not device.approved
    assert world.registry.pending() == [device]
    assert [fields["device_id"] for fields in world.bus.of("device.pending")] == [device.id]
    (stored,) = await world.store.load()
    assert not stored.approved
    await world.registry.approve(device.id)
    assert world.registry.pending() == []
    (stored,) = await world.store.load()
    assert stored.approved


async def test_enrolment_closed_refuses_the_right_password() -> None:
    world = World(enrolment=Enrolment.CLOSED)
    assert (await world.register(world.paper())).status == 403
    assert world.refusals() == ["closed"]
    await world.registry.provision(device_id(1), DeviceChange())
    assert (await world.register(world.paper())).status == 200


async def test_no_shared_password_lets_nobody_in() -> None:
    for none in ("-", None):
        world = World(password=none)
        assert (await world.register(world.paper(password="-"))).status == 403
        assert (await world.register(world.paper(2, password=""))).status == 403


async def test_allow_narrows_ids() -> None:
    world = World(allow=("34020000*",))
    assert (await world.register(world.paper())).status == 200
    paper = PaperDevice("11010000001180000001", udp(9))
    assert (await world.register(paper)).status == 403
    assert world.refusals() == ["not_allowed"]
    await world.registry.provision(paper.id, DeviceChange())
    assert (await world.register(paper)).status == 200


async def test_s01_five_devices_of_one_address_may_wait() -> None:
    world = World(enrolment=Enrolment.APPROVE)
    statuses = [(await world.register(world.paper(number))).status for number in range(1, 7)]
    assert statuses == [200, 200, 200, 200, 200, 403]
    assert world.refusals() == ["pending_full"]
    assert len(world.bus.of("limit.reached")) == 1
    other = world.paper(7, udp(1, "10.2.2.2"))
    assert (await world.register(other)).status == 200


async def test_s01_a_hundred_devices_may_wait() -> None:
    world = World(enrolment=Enrolment.APPROVE)
    for number in range(1, 101):
        assert (await world.register(world.paper(number, udp(1, f"10.2.{number}.1")))).status == 200
    assert (await world.register(world.paper(101, udp(1, "10.3.3.3")))).status == 403


async def test_i10_a_waiting_device_that_is_gone_makes_room() -> None:
    world = World(enrolment=Enrolment.APPROVE)
    for number in range(1, 6):
        await world.register(world.paper(number))
    world.presence.offline(world.device(3), "keepalive")
    assert (await world.register(world.paper(6))).status == 200
    assert world.registry.get(device_id(3)) is None
    await world.registrar.close()
    assert device_id(3) not in [device.id for device in await world.store.load()]


async def test_opening_enrolment_approves_those_who_come_back() -> None:
    world = World(enrolment=Enrolment.APPROVE)
    paper = world.paper()
    await world.register(paper)
    world.settings["enrolment"] = Enrolment.OPEN
    world.build()
    await world.registry.load()
    world.clock.advance(1)
    assert (await world.register(paper)).status == 200
    assert world.device().approved
    assert world.registry.pending() == []
    (stored,) = await world.store.load()
    assert stored.approved


async def test_two_first_registrations_at_one_time_make_one_device(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    one, two = paper.register(credentials=True), paper.register(credentials=True)
    world.registrar.handle(one)
    world.registrar.handle(two)
    await asyncio.sleep(0)
    assert (one.status, two.status) == (200, 200)
    assert len(world.registry) == 1


async def test_s02_a_repeated_answer_during_the_commit_is_a_replay(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    authorization = paper.authorization()
    one, two = paper.register(authorization), paper.register(authorization)
    world.registrar.handle(one)
    world.registrar.handle(two)
    await asyncio.sleep(0)
    assert (one.status, two.status) == (200, 401)


async def test_a_device_provisioned_during_its_first_commit_keeps_what_the_person_said(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    incoming = paper.register(credentials=True)
    world.registrar.handle(incoming)
    provisioned = await world.registry.provision(paper.id, DeviceChange(name="gate"))
    await until(lambda: incoming.statuses)
    assert world.device() is provisioned
    assert provisioned.online
    assert provisioned.nonce == paper.nonce


async def test_a_device_removed_during_a_commit_stays_removed(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    paper.take(await world.send(paper.register()))
    incoming = paper.register(credentials=True)
    world.registrar.handle(incoming)
    world.registry.drop(world.device())
    await until(lambda: incoming.statuses)
    assert incoming.status == 403
    await world.registrar.close()
    assert await world.store.load() == []


# -- unregistering -------------------------------------------------------------------------------------------------


async def test_unregister_is_challenged_and_confirmed(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    assert (await world.send(paper.register(expires=0))).status == 401
    answer = await world.register(paper, expires=0)
    assert answer.status == 200
    assert answer.headers["expires"] == "0"
    assert world.registrar.counters.unregistered == 1
    device = world.device()
    assert not device.binding.active
    for _ in range(5):
        world.clock.advance(1)
        world.presence.tick()
    assert not device.online
    (stored,) = await world.store.load()
    assert not stored.binding.active


async def test_s02_a_used_answer_does_not_register_again_after_unregistering(world: World) -> None:
    paper = world.paper()
    paper.take(await world.send(paper.register()))
    captured = paper.authorization()
    await world.send(paper.register(captured))
    await world.register(paper, expires=0)
    assert (await world.send(paper.register(captured))).status == 401
    assert not world.device().binding.active


async def test_reg11_register_right_after_unregister_keeps_the_device(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    await world.register(paper, expires=0)
    paper.call_id = "after-save"
    await world.register(paper)
    for _ in range(10):
        world.clock.advance(1)
        world.presence.tick()
    assert world.device().online
    assert world.bus.of("device.offline") == []


async def test_reg11_an_overtaken_unregister_has_no_effect(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    await world.register(paper)
    world.clock.advance(0.02)
    paper.cseq = 1  # sent before the registration above, and on its way for longer
    paper.take(await world.send(paper.register(expires=0)))
    late = paper.register(expires=0, credentials=True)
    assert (await world.send(late)).status == 200
    assert world.device().binding.active
    assert world.registrar.counters.unregistered == 0


async def test_a_star_contact_unregisters(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    paper.take(await world.send(paper.register(expires=0)))
    incoming = paper.register(expires=0, credentials=True)
    incoming.request.headers.set("Contact", "*")
    assert (await world.send(incoming)).status == 200
    assert not world.device().binding.active


async def test_unregistering_what_is_not_registered_is_fine(world: World) -> None:
    assert (await world.register(world.paper(), expires=0)).status == 200
    assert len(world.registry) == 0


# -- Date ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "trusted", "sent"),
    [
        (DateMode.AUTO, True, True),
        (DateMode.AUTO, False, False),
        (DateMode.ON, False, True),
        (DateMode.OFF, True, False),
    ],
)
async def test_tm02_date_by_mode_and_clock(mode: DateMode, trusted: bool, sent: bool) -> None:
    world = World(date=mode)
    world.trusted = trusted
    assert ("date" in (await world.register(world.paper())).headers) is sent


async def test_tm01_date_in_the_devices_own_zone_and_form() -> None:
    world = World(timezone="+09:00")
    assert (await world.register(world.paper(1))).headers["date"].startswith("2024-05-01T09:30:00.")
    await world.registry.provision(device_id(2), DeviceChange(timezone="+00:00"))
    assert (await world.register(world.paper(2))).headers["date"].startswith("2024-05-01T00:30:00.")
    await world.registry.provision(device_id(3), DeviceChange(dialect={"date": "gmt"}))
    assert (await world.register(world.paper(3))).headers["date"] == "Wed, 01 May 2024 00:30:00 GMT"
    await world.registry.provision(device_id(4), DeviceChange(dialect={"date": "off"}))
    assert "date" not in (await world.register(world.paper(4))).headers


# -- load and a dead database --------------------------------------------------------------------------------------


async def test_f01_above_capacity_503_known_devices_first() -> None:
    world = World(uncommitted_limit=2)
    known = world.paper(1)
    await world.register(known)
    known.take(await world.send(known.register()))
    strangers = [world.paper(number) for number in (2, 3)]
    for paper in strangers:
        paper.take(await world.send(paper.register()))
    first, second = (paper.register(credentials=True) for paper in strangers)
    third = known.register(credentials=True)
    for incoming in (first, second, third):
        world.registrar.handle(incoming)
    assert second.status == 503
    assert 60 <= int(second.headers["retry-after"]) <= 180
    await asyncio.sleep(0)
    assert (first.status, third.status) == (200, 200)
    assert world.registrar.counters.overloaded == 1


async def test_f15_a_dead_database_keeps_known_devices_and_refuses_new_ones(world: World) -> None:
    known = world.paper(1)
    await world.register(known)
    world.store.fail = True
    assert (await world.register(known)).status == 200
    assert world.device().unsaved & UNSAVED_BINDING
    new = await world.register(world.paper(2))
    assert new.status == 503
    assert int(new.headers["retry-after"]) >= 60
    assert world.registry.get(device_id(2)) is None
    known.path = udp(1, "10.6.6.6")
    assert (await world.register(known)).status == 503
    assert world.device().path == udp(5001)
    assert (await world.register(known, expires=0)).status == 503
    world.store.fail = False
    world.registry.flush()
    await asyncio.sleep(0)
    (stored,) = await world.store.load()
    assert stored.binding == world.device().binding


async def test_f01_a_looping_device_waits_for_its_answer(world: World) -> None:
    paper = world.paper()
    incomings = [paper.register() for _ in range(8)]
    for incoming in incomings:
        world.registrar.handle(incoming)
    assert [incoming.status for incoming in incomings] == [401] * 6 + [None] * 2
    assert world.registrar.counters.delayed == 2
    await until(lambda: all(incoming.statuses for incoming in incomings))
    assert [incoming.status for incoming in incomings] == [401] * 8


async def test_i10_delayed_answers_end_with_the_registrar(world: World) -> None:
    paper = world.paper()
    incomings = [paper.register() for _ in range(8)]
    for incoming in incomings:
        world.registrar.handle(incoming)
    await world.registrar.close()
    assert [incoming.status for incoming in incomings[6:]] == [None, None]


# -- two devices with one id ---------------------------------------------------------------------------------------


async def test_reg15_two_devices_with_one_id(world: World) -> None:
    first, second = world.paper(1), world.paper(1, udp(5001, "10.2.2.2"))
    second.call_id = "another"
    await world.register(first)
    await world.register(second)
    world.clock.advance(5)
    assert (await world.register(first)).status == 200
    (event,) = world.bus.of("device.duplicate_id")
    assert (event["peer"], event["other_peer"]) == ("10.1.1.1:5001", "10.2.2.2:5001")
    world.clock.advance(5)
    assert (await world.register(second)).status == 403
    assert world.refusals() == ["duplicate_id"]
    assert world.device().path == udp(5001)
    assert (await world.register(second, expires=0)).status == 403
    assert world.device().binding.active


async def test_reg15_the_other_one_is_let_in_when_the_first_is_silent(world: World) -> None:
    first, second = world.paper(1), world.paper(1, udp(5001, "10.2.2.2"))
    second.call_id = "another"
    for paper in (first, second, first):
        await world.register(paper)
        world.clock.advance(5)
    world.clock.advance(120)
    assert (await world.register(second)).status == 200
    assert world.device().path == udp(5001, "10.2.2.2")


# -- TCP -----------------------------------------------------------------------------------------------------------


async def test_reg21_a_new_connection_for_each_register(world: World) -> None:
    paper = world.paper(1, tcp(1))
    await world.register(paper)
    for number in range(2, 6):
        paper.path = tcp(number)
        world.clock.advance(61)
        assert (await world.register(paper)).status == 200
        assert world.device().path == tcp(number)
    assert world.bus.of("device.duplicate_id") == []
    assert world.bound.calls[-1] == (tcp(5), tcp(4))


async def test_s01_a_thousand_forged_registers_change_nothing(world: World) -> None:
    paper = world.paper()
    await world.register(paper)
    binding = world.device().binding
    accepted = 0
    for number in range(1000):
        forged = PaperDevice(paper.id, udp(1 + number, f"172.16.{number % 250}.9"), password="")
        forged.call_id = paper.call_id
        forged.nonce = paper.nonce
        incoming = forged.register(credentials=bool(number % 2), expires=0 if number % 3 else 3600)
        world.registrar.handle(incoming)
        accepted += incoming.status == 200
    assert accepted == 0
    assert world.device().binding is binding
    assert make_device().id == paper.id
