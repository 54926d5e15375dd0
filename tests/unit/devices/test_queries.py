"""Questions and answers by SN."""

from __future__ import annotations

import asyncio

import pytest

from gb28181gw.devices.models import Device, Presence
from gb28181gw.devices.presence import PresenceKeeper, PresenceRules
from gb28181gw.devices.queries import OPEN_LIMIT, Queries
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.xml import parse
from tests.support.devices import Calls, FakeAgent, FakeClock, RecordingBus, binding, make_device, udp, until
from tests.support.stores import MemoryDeviceStore


class World:
    def __init__(self) -> None:
        clock = FakeClock()
        bus = RecordingBus()
        self.registry = Registry(store=MemoryDeviceStore(), bus=bus, clock=clock)
        self.presence = PresenceKeeper(
            registry=self.registry, bus=bus, clock=clock, rules=PresenceRules(), probe=Calls()
        )
        self.agent = FakeAgent()
        self.queries = Queries(
            agent=self.agent, registry=self.registry, presence=self.presence, timeout_s=0.2
        )
        self.device = self.make(1)

    def make(self, number: int) -> Device:
        device = make_device(number)
        self.registry.enrol(device)
        device.binding = binding(udp(5000 + number))
        self.registry.bind(device, udp(5000 + number))
        device.presence = Presence.ONLINE
        return device

    def ask(self, device: Device | None = None) -> asyncio.Task[Document]:
        asked = device or self.device
        return asyncio.create_task(
            self.queries.ask(
                asked,
                "DeviceInfo",
                lambda sn: f"<Query><CmdType>DeviceInfo</CmdType><SN>{sn}</SN></Query>".encode(),
            )
        )

    async def sent(self, count: int = 1) -> list[int]:
        await until(lambda: len(self.agent.queries("DeviceInfo")) >= count)
        return self.agent.queries("DeviceInfo")


def answer(sn: object, name: str = "x", cmd_type: str = "DeviceInfo") -> Document:
    return parse(
        f"<Response><CmdType>{cmd_type}</CmdType><SN>{sn}</SN><DeviceName>{name}</DeviceName></Response>".encode()
    )


@pytest.fixture
def world() -> World:
    return World()


async def test_f04_the_answer_is_found_by_its_sn(world: World) -> None:
    one, two = world.ask(), world.ask()
    first, second = await world.sent(2)
    assert first != second
    assert world.queries.feed(world.device, answer(second, "two"))
    assert world.queries.feed(world.device, answer(first, "one"))
    assert ((await one).text("DeviceName"), (await two).text("DeviceName")) == ("one", "two")
    assert world.queries.open_count == 0


@pytest.mark.parametrize("sn", ["", "x", "0", "99999999"])
async def test_xml11_a_wrong_sn_is_the_only_open_querys(world: World, sn: str) -> None:
    asking = world.ask()
    await world.sent()
    assert world.queries.feed(world.device, answer(sn, "found"))
    assert (await asking).text("DeviceName") == "found"
    assert world.queries.guessed == 1
    assert world.device.quirks == {"query.sn_differs": 1}


async def test_xml11_a_wrong_sn_is_nobodys_when_two_are_open(world: World) -> None:
    tasks = [world.ask(), world.ask()]
    await world.sent(2)
    assert not world.queries.feed(world.device, answer(0))
    assert world.queries.late == 1
    for task in tasks:
        with pytest.raises(GatewayError):
            await task


async def test_s03_answers_of_another_device_or_type_are_nobodys(world: World) -> None:
    other = world.make(2)
    asking = world.ask()
    (sn,) = await world.sent()
    assert not world.queries.feed(other, answer(sn))
    assert not world.queries.feed(world.device, answer(sn, cmd_type="DeviceStatus"))
    assert world.queries.feed(world.device, answer(sn))
    await asking


async def test_f04_late_answers_are_counted_and_dropped(world: World) -> None:
    asking = world.ask()
    (sn,) = await world.sent()
    with pytest.raises(GatewayError) as caught:
        await asking
    assert caught.value.code == "gb.sip.no_answer"
    assert world.queries.unanswered == 1
    assert not world.queries.feed(world.device, answer(sn))
    assert world.queries.late == 1


async def test_a_refused_question_carries_the_status(world: World) -> None:
    world.agent.status = 488
    with pytest.raises(GatewayError) as caught:
        await world.ask()
    assert (caught.value.code, caught.value.sip_status) == ("gb.sip.rejected", 488)


async def test_an_answer_without_a_200_is_enough(world: World) -> None:
    world.agent.silent.add(udp(5001))
    asking = world.ask()
    (sn,) = await world.sent()
    world.queries.feed(world.device, answer(sn))
    assert (await asking).sn == sn


async def test_an_answer_before_the_200_is_enough(world: World) -> None:
    world.agent.hear = lambda _path, text: world.queries.feed(
        world.device, answer(text.partition("<SN>")[2].partition("<")[0])
    )
    assert (await world.ask()).cmd_type == "DeviceInfo"


async def test_ka04_any_answer_is_a_sign_of_life(world: World) -> None:
    world.device.presence = Presence.SUSPECT
    world.agent.status = 404
    with pytest.raises(GatewayError):
        await world.ask()
    assert world.device.presence is Presence.ONLINE


async def test_i10_open_questions_are_bounded(world: World) -> None:
    opened = [world.queries.open(world.device.id, "DeviceInfo", Calls()) for _ in range(OPEN_LIMIT)]
    with pytest.raises(GatewayError) as caught:
        await world.ask()
    assert caught.value.code == "gb.route.busy"
    for query in opened:
        world.queries.close(query)
        world.queries.close(query)
    assert world.queries.open_count == 0


async def test_an_offline_device_is_not_asked(world: World) -> None:
    world.device.presence = Presence.OFFLINE
    with pytest.raises(GatewayError) as caught:
        await world.ask()
    assert caught.value.code == "gb.route.offline"
    assert world.agent.sent == []


def test_xml21_sns_are_unique_and_fit_into_32_bits(world: World) -> None:
    numbers = [world.queries.next_sn() for _ in range(10_000)]
    assert len(set(numbers)) == 10_000
    assert min(numbers) >= 1
    assert max(numbers) < 2**31
    world.queries._sn = 1_000_000_000
    assert world.queries.next_sn() == 1


def test_xml21_the_start_is_random() -> None:
    assert len({World().queries.next_sn() for _ in range(5)}) > 1


async def test_whether_anything_answers_on_a_path(world: World) -> None:
    assert await world.queries.touches(world.device, udp(1), b"<Query/>", timeout_s=0.1)
    world.agent.status = 403
    assert await world.queries.touches(world.device, udp(1), b"<Query/>", timeout_s=0.1)
    world.agent.silent.add(udp(2))
    assert not await world.queries.touches(world.device, udp(2), b"<Query/>", timeout_s=0.1)
