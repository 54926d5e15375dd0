"""Searches for recordings: parts, wrong counts, turns; over an agent that is not one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from gb28181gw.devices.models import Channel, Presence
from gb28181gw.devices.presence import PresenceKeeper, PresenceRules
from gb28181gw.devices.queries import Queries
from gb28181gw.devices.records import RecordLimits, RecordList, Records
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.sip.path import Path
from tests.support.devices import (
    Calls,
    FakeAgent,
    FakeClock,
    RecordingBus,
    between,
    binding,
    make_device,
    udp,
    until,
)
from tests.support.stores import MemoryDeviceStore

CHANNEL = "34020000001320000001"
START = datetime(2024, 5, 1, tzinfo=UTC)


class World:
    def __init__(self) -> None:
        clock = FakeClock()
        self.bus = RecordingBus()
        self.registry = Registry(store=MemoryDeviceStore(), bus=self.bus, clock=clock)
        presence = PresenceKeeper(
            registry=self.registry, bus=self.bus, clock=clock, rules=PresenceRules(), probe=Calls()
        )
        self.agent = FakeAgent()
        self.queries = Queries(agent=self.agent, registry=self.registry, presence=presence, timeout_s=0.2)
        self.records = Records(
            registry=self.registry,
            queries=self.queries,
            bus=self.bus,
            timezone="+08:00",
            limits=RecordLimits(first_s=5.0, between_s=0.05, all_s=10.0),
        )
        self.device = make_device(1)
        self.registry.enrol(self.device)
        self.device.binding = binding(udp())
        self.registry.bind(self.device, udp())
        self.device.presence = Presence.ONLINE
        self.device.channels[CHANNEL] = Channel(self.device.id, CHANNEL, "Gate", "camera")

    async def search(self, day: int = 0) -> RecordList:
        start = START + timedelta(days=day)
        return await self.records.search(self.device.id, CHANNEL, start, start + timedelta(hours=1))

    def answer(self, question: str, *parts: tuple[Sequence[int], int | None]) -> None:
        for minutes, total in parts:
            self.queries.feed(self.device, parse(part(int(between(question, "SN")), minutes, total)))

    def answering(self, *parts: tuple[Sequence[int], int | None]) -> None:
        def hear(path: Path, text: str) -> None:
            self.answer(text, *parts)

        self.agent.hear = hear

    @property
    def questions(self) -> list[str]:
        return [text for _, _, text in self.agent.sent]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("gb28181gw.devices.assembly.LATE_S", 0.05)
    made = World()
    yield made
    await made.records.close()


def part(sn: int, minutes: Sequence[int], total: int | None) -> bytes:
    items = "".join(
        f"<Item><DeviceID>{CHANNEL}</DeviceID><Name>Gate</Name><StartTime>2024-05-01T08:{minute:02d}:00</StartTime>"
        f"<EndTime>2024-05-01T08:{minute:02d}:59</EndTime></Item>"
        for minute in minutes
    )
    counted = "" if total is None else f"<SumNum>{total}</SumNum>"
    return (
        f"<Response><CmdType>RecordInfo</CmdType><SN>{sn}</SN><DeviceID>{CHANNEL}</DeviceID>{counted}"
        f'<RecordList Num="{len(minutes)}">{items}</RecordList></Response>'
    ).encode()


def minutes_of(found: RecordList) -> list[int]:
    return [record.start.minute for record in found.items if record.start is not None]


async def test_parts_in_any_order_and_twice_are_one_sorted_list(world: World) -> None:
    world.answering(([2, 3], 4), ([2, 3], 4), ([0, 1], 4))
    found = await world.search()
    assert (minutes_of(found), found.partial, found.sum_num) == ([0, 1, 2, 3], False, 4)


async def test_cat02_a_count_of_one_message_does_not_end_a_search(world: World) -> None:
    world.answering(([0, 1], 2), ([2, 3], 2), ([4], 1))
    found = await world.search()
    assert (minutes_of(found), found.partial) == ([0, 1, 2, 3, 4], False)
    assert world.device.quirks["answer.more_than_announced"] == 1


async def test_pb04_a_missing_part_is_told(world: World) -> None:
    world.answering(([0, 1], 4))
    found = await world.search()
    assert (minutes_of(found), found.partial, found.sum_num) == ([0, 1], True, 4)
    assert world.bus.of("records.partial")[0]["expected"] == 4


async def test_an_answer_that_cannot_be_read_is_not_an_empty_list(world: World) -> None:
    world.agent.hear = lambda path, text: world.queries.unreadable(world.device, "not_xml")
    world.records._limits = RecordLimits(first_s=0.05, between_s=0.05, all_s=10.0)
    with pytest.raises(GatewayError) as caught:
        await world.search()
    assert caught.value.code == "gb.sip.bad_answer"


async def test_pb05_whoever_comes_while_others_wait_waits_behind_them(world: World) -> None:
    searches = [asyncio.ensure_future(world.search(day)) for day in (0, 1)]
    await until(lambda: len(world.questions) == 1)
    world.answer(world.questions[0], ([0, 1, 2], 4), ([3], 4))
    await searches[0]
    # The turn is the second one's now: a third must not go beside it.
    searches.append(asyncio.ensure_future(world.search(2)))
    for number in (1, 2):
        await until(lambda number=number: len(world.questions) > number)
        assert (len(world.questions), world.queries.open_count) == (number + 1, 1)
        world.answer(world.questions[number], ([0, 1, 2], 4), ([3], 4))
        await searches[number]
    assert world.records._turns == {}
