"""Catalogue queries with a device that the test plays: gaps, unasked parts, deleting, stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gb28181gw.devices import catalogue_service
from gb28181gw.devices.catalogue_service import FRESH_S, LATE_MAX_S, RETRY_S, CatalogueService
from gb28181gw.devices.config import DevicesConfig
from gb28181gw.devices.messages import Envelope
from gb28181gw.devices.models import CatalogueState, Channel, ChannelStatus, Device, Presence
from gb28181gw.devices.pacer import Pacer
from gb28181gw.devices.presence import PresenceKeeper, PresenceRules
from gb28181gw.devices.queries import Queries
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.xml import parse
from tests.support.devices import (
    DOMAIN,
    PLATFORM,
    Calls,
    FakeAgent,
    FakeClock,
    RecordingBus,
    between,
    binding,
    catalogue_part,
    item,
    make_device,
    udp,
    until,
)
from tests.support.stores import MemoryDeviceStore

BOUND = Envelope(method="MESSAGE", call_id="c", path=udp(5001), bound=True)
UNBOUND = Envelope(method="MESSAGE", call_id="c", path=udp(6001), bound=False)


class World:
    """One device at udp(5001); `parts(sn)` is what it answers to a catalogue query."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.bus = RecordingBus()
        self.store = MemoryDeviceStore()
        self.registry = Registry(store=self.store, bus=self.bus, clock=self.clock)
        self.presence = PresenceKeeper(
            registry=self.registry, bus=self.bus, clock=self.clock, rules=PresenceRules(), probe=Calls()
        )
        self.agent = FakeAgent()
        self.agent.hear = self.hear
        self.queries = Queries(
            agent=self.agent, registry=self.registry, presence=self.presence, timeout_s=0.01
        )
        config = DevicesConfig(
            platform_id=PLATFORM,
            domain=DOMAIN,
            password="x",
            **{"catalogue_first_part_s": 0.05, "catalogue_between_parts_s": 0.03, **settings},
        )
        self.service = CatalogueService(
            config=config,
            registry=self.registry,
            store=self.store,
            queries=self.queries,
            pacer=Pacer(rate=10_000, clock=self.clock),
            bus=self.bus,
            clock=self.clock,
        )
        self.device = self.make(1)
        self.parts: Sequence[tuple[Sequence[str], int]] = ()
        self.answers: list[Sequence[tuple[Sequence[str], int]]] = []
        self._ticker: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    def make(self, number: int) -> Device:
        device = make_device(number)
        self.registry.enrol(device)
        device.binding = binding(udp(5000 + number))
        self.registry.bind(device, udp(5000 + number))
        device.presence = Presence.ONLINE
        return device

    def hear(self, path: object, text: str) -> None:
        kind, sn = between(text, "CmdType"), int(between(text, "SN"))
        device = next(one for one in self.registry if one.path == path)
        if kind == "Catalog":
            for items, total in self.answers.pop(0) if self.answers else self.parts:
                self.feed(device, catalogue_part(device.id, sn, items, total))

    def feed(self, device: Device, text: str) -> None:
        """As `Messages` does it."""
        document = parse(text.encode("gb18030"))
        if not self.queries.feed(device, document):
            self.service.unasked_response(device, document, BOUND)

    async def __aenter__(self) -> World:
        self._running = asyncio.create_task(self.service.run())
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def _tick(self) -> None:
        """The fake clock follows real time, so that waits of hundredths of a second end."""
        while True:
            await asyncio.sleep(0.005)
            self.clock.advance(0.005)

    async def __aexit__(self, *_error: object) -> None:
        for task in (self._ticker, self._running):
            assert task is not None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def query(self, device: Device | None = None) -> Device:
        """Ask, and wait for the end of the job."""
        asked = device or self.device
        await self.service.refresh(asked.id)
        await until(lambda: asked.id not in self.service._jobs)
        return asked

    def names(self) -> list[str]:
        return [channel.name for channel in self.registry.channels(self.device.id)]

    def conclude(self) -> None:
        """Let the time for late parts pass."""
        self.clock.advance(LATE_MAX_S + 1)
        self.service.tick()


@pytest.fixture
async def world():  # type: ignore[no-untyped-def]  # an async fixture
    async with World() as made:
        yield made


def cameras(*numbers: int) -> list[str]:
    return [item(number) for number in numbers]


def names(*numbers: int) -> list[str]:
    return [f"通道 {number}" for number in numbers]


# -- the answer ----------------------------------------------------------------------------------------------------


async def test_a_complete_answer_is_stored_and_seen(world: World) -> None:
    world.parts = [(cameras(1, 2), 4), (cameras(3, 4), 4)]
    device = await world.query()
    assert world.names() == names(1, 2, 3, 4)
    assert device.catalogue_state is CatalogueState.COMPLETE
    assert (device.catalogue_received, device.catalogue_expected) == (4, 4)
    (event,) = world.bus.of("catalog.complete")
    assert (event["received"], event["expected"], event["channel_count"]) == (4, 4, 4)
    await world.store.save_device(device)
    (stored,) = await world.store.load()
    assert sorted(stored.channels) == sorted(device.channels)


async def test_cat01_a_gap_is_partial_and_asked_again_once(world: World) -> None:
    world.answers = [[(cameras(1, 2), 5)], [(cameras(2, 3), 5)], [(cameras(4), 5)]]
    device = await world.query()
    assert device.catalogue_state is CatalogueState.PARTIAL
    assert world.names() == names(1, 2, 3)
    assert len(world.bus.of("catalog.partial")) == 2
    assert len(world.agent.queries("Catalog")) == 2


async def test_cat01_silence_the_second_time_keeps_what_came(world: World) -> None:
    world.answers = [[(cameras(1, 2), 5)], []]
    device = await world.query()
    assert device.catalogue_state is CatalogueState.PARTIAL
    assert world.names() == names(1, 2)
    assert world.bus.of("catalog.failed") == []


async def test_xml15_a_count_that_stalls_at_the_same_place_is_told(world: World) -> None:
    world.answers = [[(cameras(1, 2), 5)], [(cameras(1, 2), 5)]]
    await world.query()
    assert [event["reason"] for event in world.bus.of("catalog.partial")] == ["quiet", "fragments_lost"]


async def test_cat02_late_parts_during_a_long_commit_are_kept(world: World) -> None:
    device = make_device(5)
    device.id = "34020000002000000005"
    world.registry.enrol(device)
    device.binding = binding(udp(7000))
    world.registry.bind(device, udp(7000))
    device.presence = Presence.ONLINE
    loop = asyncio.get_running_loop()

    def hear(_path: object, text: str) -> None:
        sn = int(between(text, "SN"))
        if between(text, "CmdType") == "Catalog":
            world.feed(device, catalogue_part(device.id, sn, [item(number) for number in range(600)], 600))
            late = catalogue_part(device.id, sn, [item(number) for number in range(600, 620)], 600)
            for turns in range(1, 6):
                loop.call_later(0.0005 * turns, world.feed, device, late)

    world.agent.hear = hear
    await world.query(device)
    await until(lambda: device.channel_count == 620)


async def test_cat01_the_second_answer_may_be_complete(world: World) -> None:
    world.answers = [[(cameras(1), 3)], [(cameras(1, 2, 3), 3)]]
    device = await world.query()
    assert device.catalogue_state is CatalogueState.COMPLETE
    assert world.bus.names().count("catalog.complete") == 1
    assert world.names() == names(1, 2, 3)


async def test_f12_the_old_tree_stays_until_the_new_one_is_there(world: World) -> None:
    world.parts = [(cameras(1, 2), 2)]
    await world.query()
    seen: list[list[str]] = []
    world.parts = ()
    await world.service.refresh(world.device.id)
    await until(lambda: len(world.agent.queries("Catalog")) == 2)
    sn = world.agent.queries("Catalog")[-1]
    world.feed(world.device, catalogue_part(world.device.id, sn, [item(1, Name="new")], 2))
    seen.append(world.names())
    world.feed(world.device, catalogue_part(world.device.id, sn, [item(2, Name="new")], 2))
    await until(lambda: world.device.id not in world.service._jobs)
    assert seen == [names(1, 2)]
    assert world.names() == ["new", "new"]


async def test_progress_is_shown_while_it_runs(world: World) -> None:
    await world.service.refresh(world.device.id)
    assert world.device.catalogue_state is CatalogueState.RUNNING
    await until(lambda: world.agent.queries("Catalog"))
    (sn,) = world.agent.queries("Catalog")
    world.feed(world.device, catalogue_part(world.device.id, sn, cameras(1, 2), 9))
    assert (world.device.catalogue_received, world.device.catalogue_expected) == (2, 9)
    await until(lambda: world.device.id not in world.service._jobs)


async def test_cat02_late_parts_after_a_small_count_are_added(world: World) -> None:
    world.parts = [(cameras(1, 2), 2), (cameras(3, 4), 2), (cameras(5), 1)]
    await world.query()
    assert world.names() == names(1, 2, 3, 4, 5)
    sn = world.agent.queries("Catalog")[-1]
    world.feed(world.device, catalogue_part(world.device.id, sn, cameras(6), 1))
    assert world.names() == names(1, 2, 3, 4, 5, 6)
    await world.service.flush()
    await world.store.save_device(world.device)
    (stored,) = await world.store.load()
    assert len(stored.channels) == 6


async def test_cat06_pressing_again_joins_the_running_query(world: World) -> None:
    world.parts = [(cameras(1), 1)]
    for _ in range(5):
        await world.service.refresh(world.device.id)
    await until(lambda: world.device.id not in world.service._jobs)
    assert len(world.agent.queries("Catalog")) == 1


async def test_cat07_cat23_our_own_ids_are_nobodys_parent(world: World) -> None:
    world.parts = [([item(1, PLATFORM), item(2, world.device.id), item(3, DOMAIN)], 3)]
    await world.query()
    assert [channel.parent_id for channel in world.registry.channels(world.device.id)] == [
        None,
        world.device.id,
        None,
    ]
    assert [node.parent_id for node in world.service.tree(world.device)] == [world.device.id] * 3


async def test_s03_more_channels_than_allowed(world: World) -> None:
    device = world.make(2)
    world.parts = [([item(number) for number in range(at, at + 100)], 1200) for at in range(0, 1200, 100)]
    await world.query(device)
    assert len(device.channels) == 1024
    (event,) = world.bus.of("limit.reached")
    assert (event["limit"], event["value"]) == ("channels", 1024)


async def test_an_unlimited_answer_of_a_platform(world: World) -> None:
    device = make_device(5)
    device.id = "34020000002000000005"
    world.registry.enrol(device)
    device.binding = binding(udp(7000))
    world.registry.bind(device, udp(7000))
    device.presence = Presence.ONLINE
    world.parts = [([item(number) for number in range(at, at + 500)], 2000) for at in range(0, 2000, 500)]
    await world.query(device)
    assert device.channel_count == 2000
    assert device.catalogue_state is CatalogueState.COMPLETE


async def test_the_edition_is_detected(world: World) -> None:
    world.device.binding = binding(udp(5001), edition="")
    world.parts = [([item(1, SecurityLevelCode="A").replace("<Owner>Owner</Owner>", "")], 1)]
    await world.query()
    assert world.device.edition == "3.0"
    assert len(world.bus.of("device.edition_detected")) == 1


async def test_f15_a_dead_database_leaves_the_old_catalogue(world: World) -> None:
    world.parts = [(cameras(1), 1)]
    await world.query()
    world.store.fail = True
    world.parts = [(cameras(1, 2), 2)]
    await world.query()
    assert world.names() == names(1)
    assert world.device.catalogue_state is CatalogueState.FAILED
    world.store.fail = False
    await world.query()
    assert world.names() == names(1, 2)


# -- no answer -----------------------------------------------------------------------------------------------------


async def test_cat15_a_device_without_a_catalogue_gets_one_channel(world: World) -> None:
    world.device.name = "Drone"
    device = await world.query()
    assert device.catalogue_state is CatalogueState.FAILED
    (channel,) = world.registry.channels(device.id)
    assert (channel.id, channel.name, channel.implicit) == (device.id, "Drone", True)
    (event,) = world.bus.of("catalog.failed")
    assert event["reason"] == "no_answer"
    assert len(world.agent.queries("Catalog")) == 1


async def test_cat15_a_refused_query_is_told_with_its_status(world: World) -> None:
    world.agent.status = 405
    device = await world.query()
    assert world.bus.of("catalog.failed")[0]["reason"] == "rejected"
    assert [channel.implicit for channel in world.registry.channels(device.id)] == [True]


async def test_cat14_the_stand_in_retires_when_real_channels_come(world: World) -> None:
    await world.query()
    world.parts = [(cameras(1), 1)]
    await world.query()
    assert world.names() == names(1)
    assert world.device.channels[world.device.id].gone


async def test_a_known_catalogue_survives_a_failed_query(world: World) -> None:
    world.parts = [(cameras(1, 2), 2)]
    await world.query()
    world.parts = ()
    await world.query()
    assert world.names() == names(1, 2)
    assert world.device.catalogue_state is CatalogueState.FAILED


async def test_an_offline_device_cannot_be_asked(world: World) -> None:
    world.device.presence = Presence.OFFLINE
    with pytest.raises(GatewayError) as caught:
        await world.service.refresh(world.device.id)
    assert caught.value.code == "gb.route.offline"
    with pytest.raises(GatewayError) as caught:
        await world.service.refresh("nobody")
    assert caught.value.code == "gb.route.device_unknown"


async def test_a_device_that_goes_offline_in_the_queue_is_skipped(world: World) -> None:
    world.service.enqueue(world.device, "registered")
    world.device.presence = Presence.OFFLINE
    world.clock.advance(1)
    await until(lambda: not world.service._jobs)
    assert world.agent.sent == []
    assert world.device.catalogue_state is CatalogueState.FAILED


# -- unasked -------------------------------------------------------------------------------------------------------


async def test_cat03_an_unasked_single_item_adds_and_never_deletes(world: World) -> None:
    world.parts = [(cameras(1, 2, 3), 3)]
    await world.query()
    world.conclude()
    world.feed(world.device, catalogue_part(world.device.id, 4711, [item(2, Name="renamed")], 1))
    world.feed(world.device, catalogue_part(world.device.id, 4712, cameras(4), 1))
    assert world.names() == [*names(1), "renamed", *names(3, 4)]
    changes = world.bus.of("catalog.changed")
    assert [(one["added"], one["updated"], one["removed"]) for one in changes] == [(0, 1, 0), (1, 0, 0)]


async def test_s03_an_unasked_catalogue_off_the_bound_path_has_no_effect(world: World) -> None:
    document = parse(catalogue_part(world.device.id, 1, cameras(1), 1).encode("gb18030"))
    world.service.unasked_response(world.device, document, UNBOUND)
    world.service.notified(world.device, document, UNBOUND)
    assert world.device.channels == {}


async def test_s03_a_stolen_channel_id_is_only_the_thiefs_own(world: World) -> None:
    thief = world.make(2)
    world.parts = [(cameras(1), 1)]
    await world.query()
    world.feed(thief, catalogue_part(thief.id, 1, [item(1, Name="stolen")], 1))
    assert world.names() == names(1)
    assert thief.channels["34020000001320000001"].name == "stolen"


def notify(*items: str) -> bytes:
    listed = f'<DeviceList Num="1">{"".join(items)}</DeviceList>'
    return f"<Notify><CmdType>Catalog</CmdType><SN>1</SN>{listed}</Notify>".encode("gb18030")


def event(number: int, name: str) -> str:
    return f"<Item><DeviceID>34020000001320{number:06d}</DeviceID><Event>{name}</Event></Item>"


async def test_cat20_events_change_the_state_and_keep_the_rest(world: World) -> None:
    world.parts = [(cameras(1, 2, 3, 4), 4)]
    await world.query()
    world.conclude()
    body = notify(event(1, "OFF"), event(2, "vlost"), event(3, "DEL"), event(9, "ON"), event(9, "DEL"))
    world.service.notified(world.device, parse(body), BOUND)
    one, two, three = (world.device.channels[f"34020000001320{number:06d}"] for number in (1, 2, 3))
    assert (one.status, one.name) == (ChannelStatus.OFF, "通道 1")
    assert two.fault == "VLOST"
    assert three.gone
    assert len(world.device.channels) == 4
    assert world.bus.of("channel.status") == [
        {"device_id": world.device.id, "channel_id": one.id, "status": "OFF", "fault": None},
        {"device_id": world.device.id, "channel_id": two.id, "status": "ON", "fault": "VLOST"},
    ]
    world.service.notified(world.device, parse(notify(event(2, "ON"), event(1, "On"))), BOUND)
    assert world.device.channels[two.id].fault == ""
    assert world.device.channels[one.id].status is ChannelStatus.ON


async def test_cat20_without_an_event_it_is_an_update(world: World) -> None:
    world.parts = [(cameras(1), 1)]
    await world.query()
    world.service.notified(world.device, parse(notify(item(1, Name="new"), item(2))), BOUND)
    assert world.names() == ["new", "通道 2"]
    bare = "<Item><DeviceID>34020000001320000001</DeviceID><Status>OFF</Status></Item>"
    world.service.notified(world.device, parse(notify(bare)), BOUND)
    assert world.names() == ["new", "通道 2"]
    assert world.device.channels["34020000001320000001"].status is ChannelStatus.OFF


async def test_cat18_a_notification_during_a_query_is_not_lost(world: World) -> None:
    world.parts = [(cameras(1, 2), 2)]
    await world.query()
    world.parts = ()
    await world.service.refresh(world.device.id)
    await until(lambda: len(world.agent.queries("Catalog")) == 2)
    sn = world.agent.queries("Catalog")[-1]
    world.feed(world.device, catalogue_part(world.device.id, sn, cameras(1), 2))
    world.service.notified(world.device, parse(notify(event(1, "OFF"))), BOUND)
    world.feed(world.device, catalogue_part(world.device.id, sn, cameras(2), 2))
    await until(lambda: world.device.id not in world.service._jobs)
    assert world.device.channels["34020000001320000001"].status is ChannelStatus.OFF
    assert len(world.device.channels) == 2


async def test_f15_unasked_changes_wait_for_the_database(world: World) -> None:
    world.store.fail = True
    world.feed(world.device, catalogue_part(world.device.id, 1, cameras(1), 1))
    assert world.names() == names(1)
    await world.service.flush()
    world.store.fail = False
    await world.service.flush()
    await world.store.save_device(world.device)
    (stored,) = await world.store.load()
    assert len(stored.channels) == 1


# -- deleting ------------------------------------------------------------------------------------------------------


async def test_cat17_two_complete_answers_without_it_make_a_tombstone(world: World) -> None:
    world.parts = [(cameras(1, 2, 3), 3)]
    await world.query()
    world.conclude()
    world.parts = [(cameras(1, 2), 2)]
    await world.query()
    world.conclude()
    assert world.names() == names(1, 2, 3)
    await world.query()
    world.conclude()
    assert world.names() == names(1, 2)
    assert world.device.channels["34020000001320000003"].gone
    assert world.bus.of("catalog.changed")[-1]["removed"] == 1
    world.parts = [(cameras(1, 2, 3), 3)]
    await world.query()
    assert world.names() == names(1, 2, 3)


async def test_cat17_two_in_a_row(world: World) -> None:
    for listed in ((1, 2), (1,), (1, 2), (1,)):
        world.parts = [(cameras(*listed), len(listed))]
        await world.query()
        world.conclude()
    assert world.names() == names(1, 2)


async def test_cat01_partial_answers_delete_nothing(world: World) -> None:
    world.parts = [(cameras(1, 2, 3), 3)]
    await world.query()
    world.conclude()
    world.parts = [(cameras(1), 3)]
    for _ in range(3):
        await world.query()
        world.conclude()
    assert world.names() == names(1, 2, 3)


async def test_cat02_a_count_per_message_deletes_nothing(world: World) -> None:
    world.parts = [(cameras(1, 2), 2), (cameras(3, 4), 2)]
    for _ in range(3):
        await world.query()
        world.conclude()
    assert world.names() == names(1, 2, 3, 4)
    assert not any(channel.missed for channel in world.device.channels.values())


# -- when to ask ---------------------------------------------------------------------------------------------------


async def test_cat17_a_device_that_comes_back_is_asked_unless_fresh(world: World) -> None:
    world.parts = [(cameras(1), 1)]
    for reason, expected in (("registered", 1), ("keepalive", 1), ("restored", 1)):
        world.service.came_online(world.device, reason)
        world.clock.advance(1)
        await until(lambda: not world.service._jobs)
        assert len(world.agent.queries("Catalog")) == expected
    world.clock.advance(FRESH_S)
    world.service.came_online(world.device, "registered")
    world.clock.advance(1)
    await until(lambda: not world.service._jobs)
    assert len(world.agent.queries("Catalog")) == 2


async def test_cat17_daily_and_after_gaps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_service, "AFTER_ONLINE_S", 0.0)
    world.parts = [(cameras(1), 1)]
    await world.query()
    asked = len(world.agent.queries("Catalog"))

    async def minute_later(seconds: float) -> int:
        world.clock.advance(seconds)
        for _ in range(60):
            world.service.tick()
        await until(lambda: not world.service._jobs)
        return len(world.agent.queries("Catalog"))

    assert await minute_later(RETRY_S) == asked
    assert await minute_later(86_400) == asked + 1
    world.parts = [(cameras(1), 2)]
    await world.query()
    asked = len(world.agent.queries("Catalog"))
    assert await minute_later(60) == asked
    assert await minute_later(RETRY_S) == asked + 2


async def test_a_waiting_device_is_never_asked(world: World) -> None:
    world.device.approved = False
    world.service.came_online(world.device, "registered")
    assert world.service.waiting == 0
    assert world.device.catalogue_state is CatalogueState.NONE


async def test_f01_queries_are_limited_in_number() -> None:
    async with World(catalogues_in_flight=2) as world:
        devices = [world.make(number) for number in range(2, 10)]
        for device in devices:
            await world.service.refresh(device.id)
        most = 0
        while world.service._jobs:
            most = max(most, world.queries.open_count)
            await asyncio.sleep(0.002)
        assert most <= 2
        assert len(world.agent.queries("Catalog")) == 8
        assert world.service.running == 0


async def test_removing_a_device_ends_what_waits_for_it(world: World) -> None:
    world.parts = [(cameras(1), 1)]
    await world.query()
    assert world.queries.open_count == 1
    world.registry.drop(world.device)
    assert world.queries.open_count == 0


# -- DeviceInfo, DeviceStatus --------------------------------------------------------------------------------------


async def test_device_info_and_status(world: World) -> None:
    hear = world.agent.hear

    def answering(path: Any, text: str) -> None:
        assert hear is not None
        hear(path, text)
        kind, sn = between(text, "CmdType"), between(text, "SN")
        rest = {
            "DeviceInfo": "<DeviceName>NVR 1</DeviceName><Manufacturer>Acme</Manufacturer><Model>N</Model>"
            "<Firmware>V2</Firmware><Channel>4</Channel>",
            "DeviceStatus": "<Online>ONLINE</Online><Status>ERROR</Status><Reason>disk</Reason>"
            "<DeviceTime>2024-05-01T09:30:00</DeviceTime>",
        }.get(kind)
        if rest:
            world.feed(
                world.device,
                f"<Response><CmdType>{kind}</CmdType><SN>{sn}</SN><Result>OK</Result>{rest}</Response>",
            )

    world.agent.hear = answering
    world.parts = [(cameras(1), 1)]
    device = await world.query()
    assert (device.display_name, device.manufacturer, device.model, device.firmware) == (
        "NVR 1",
        "Acme",
        "N",
        "V2",
    )
    (event,) = world.bus.of("device.status")
    assert (event["status"], event["detail"]) == ("ERROR", "disk")
    (event,) = world.bus.of("device.clock_wrong")
    assert 3500 <= event["offset_s"] <= 3600


async def test_no_device_info_is_no_trouble(world: World) -> None:
    world.parts = [(cameras(1), 1)]
    device = await world.query()
    assert device.catalogue_state is CatalogueState.COMPLETE
    assert device.manufacturer == ""


def test_i8_channels_are_compared_by_value() -> None:
    assert Channel("d", "c", name="x") == Channel("d", "c", name="x")


async def test_cat17_news_while_a_query_runs_makes_another_one_later(world: World) -> None:
    world.parts = [(cameras(1), 1)]
    await world.query()
    world.conclude()
    asked = len(world.agent.queries("Catalog"))
    world.service.notified(world.device, parse(notify(event(7, "ON"))), BOUND)
    # A minute has passed in `conclude`.
    await until(lambda: len(world.agent.queries("Catalog")) == asked + 1)
    world.service.notified(world.device, parse(notify(event(8, "ADD"), event(9, "DEL"))), BOUND)
    world.service.tick()
    assert len(world.agent.queries("Catalog")) == asked + 1
    await until(lambda: world.device.id not in world.service._jobs)
    world.clock.advance(61)
    world.service.tick()
    await until(lambda: len(world.agent.queries("Catalog")) == asked + 2)
    assert "34020000001320000008" not in world.device.channels
