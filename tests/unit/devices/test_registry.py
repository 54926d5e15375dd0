"""The map of devices: people's changes, paths, and the batch of what was learnt."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gb28181gw.devices.models import QUIRK_LIMIT, Channel, ChannelStatus, Device, Presence
from gb28181gw.devices.registry import UNSAVED_FACTS, UNSAVED_SEEN, DeviceChange, Registry, change_of
from gb28181gw.errors import GatewayError
from tests.support.devices import Calls, FakeClock, RecordingBus, binding, device_id, make_device, tcp, udp
from tests.support.stores import MemoryDeviceStore


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bus = RecordingBus()
        self.store = MemoryDeviceStore()
        self.registry = Registry(store=self.store, bus=self.bus, clock=self.clock)

    def device(self, number: int = 1, *, online: bool = True) -> Device:
        device = make_device(number)
        self.registry.enrol(device)
        device.binding = binding(udp(5000 + number))
        self.registry.bind(device, udp(5000 + number))
        if online:
            device.presence = Presence.ONLINE
        return device


@pytest.fixture
def world() -> World:
    return World()


def code(caught: pytest.ExceptionInfo[GatewayError]) -> str:
    return caught.value.code


async def test_provision_change_approve_remove(world: World) -> None:
    registry = world.registry
    await registry.provision(device_id(1), DeviceChange(name="gate", password="p1", media_transport="udp"))
    device = await registry.change(device_id(1), DeviceChange(name="door", password=""))
    assert (device.name, device.password, device.media_transport, device.provisioned) == (
        "door",
        None,
        "udp",
        True,
    )
    (stored,) = await world.store.load()
    assert (stored.name, stored.password) == ("door", None)
    with pytest.raises(GatewayError) as caught:
        await registry.provision(device_id(1), DeviceChange())
    assert code(caught) == "gb.route.exists"
    await registry.approve(device_id(1))
    await registry.remove(device_id(1))
    assert await world.store.load() == []
    with pytest.raises(GatewayError) as caught:
        await registry.change(device_id(1), DeviceChange(name="x"))
    assert code(caught) == "gb.route.device_unknown"
    assert world.bus.names() == ["device.provisioned", "device.changed", "device.removed"]
    assert world.bus.of("device.changed")[0]["keys"] == ["name", "password"]


@pytest.mark.parametrize("bad", ["", "a b", "x" * 33, "id;user=phone", "门"])
async def test_s01_ids_that_cannot_be_provisioned(world: World, bad: str) -> None:
    with pytest.raises(GatewayError) as caught:
        await world.registry.provision(bad, DeviceChange())
    assert code(caught) == "gb.route.invalid"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (DeviceChange(media_transport="pigeon"), "media_transport"),
        (DeviceChange(timezone="Mars"), "timezone"),
        (DeviceChange(charset="EBCDIC"), "charset"),
        (DeviceChange(dialect={"colour": "red"}), "dialect"),
    ],
)
async def test_settings_that_mean_nothing_are_refused_by_name(
    world: World, change: DeviceChange, word: str
) -> None:
    with pytest.raises(GatewayError, match=word) as caught:
        await world.registry.provision(device_id(1), change)
    assert code(caught) == "gb.route.invalid"
    assert len(world.registry) == 0


async def test_i9_a_change_that_is_not_stored_does_not_count(world: World) -> None:
    device = world.device()
    world.store.fail = True
    for call in (
        world.registry.change(device.id, DeviceChange(name="new")),
        world.registry.remove(device.id),
        world.registry.provision(device_id(2), DeviceChange()),
    ):
        with pytest.raises(GatewayError) as caught:
            await call
        assert code(caught) == "gb.route.storage_unavailable"
    assert device.name == ""
    assert world.registry.get(device.id) is device
    assert len(world.registry) == 1


async def test_provisioning_a_waiting_device_lets_it_in(world: World) -> None:
    device = world.device()
    device.approved = False
    world.registry.note_approval(device)
    let_in = Calls()
    world.registry.on_approved(let_in)
    assert await world.registry.provision(device.id, DeviceChange(name="gate")) is device
    assert device.approved
    assert world.registry.pending() == []
    assert let_in.calls == [(device,)]


async def test_removed_devices_are_told(world: World) -> None:
    device = world.device()
    hear = Calls()
    world.registry.on_removed(hear)
    await world.registry.remove(device.id)
    assert hear.calls == [(device,)]
    assert world.registry.alone_on(udp(5001)) is None


def test_target_is_the_bound_path(world: World) -> None:
    device = world.device()
    device.channels["c"] = Channel(device.id, "c")
    target = world.registry.target(device.id, "c")
    assert (target.path, target.user, target.domain) == (udp(5001), "c", "3402000000")
    assert world.registry.target(device.id).user == device.id
    assert world.registry.target(device.id, device.id).user == device.id


def test_target_refuses_with_a_reason(world: World) -> None:
    registry = world.registry
    device = world.device()

    def refused(*values: str, control: bool = False) -> str:
        with pytest.raises(GatewayError) as caught:
            registry.target(*values, control=control)
        return code(caught)

    assert refused("nobody") == "gb.route.device_unknown"
    assert refused(device.id, "nothing") == "gb.route.channel_unknown"
    device.channels["gone"] = Channel(device.id, "gone", gone=True)
    assert refused(device.id, "gone") == "gb.route.channel_unknown"
    device.trial_until = 1.0
    assert registry.target(device.id).path == udp(5001)
    assert refused(device.id, control=True) == "gb.route.not_authorised"
    registry.unbind(device)
    assert refused(device.id) == "gb.sip.path_lost"
    device.presence = Presence.OFFLINE
    assert refused(device.id) == "gb.route.offline"
    device.approved = False
    assert refused(device.id) == "gb.route.not_approved"


async def test_reg21_a_request_waits_for_the_next_connection(world: World) -> None:
    device = world.device()
    world.registry.unbind(device)
    waiting = asyncio.create_task(world.registry.reach(device.id))
    await asyncio.sleep(0)
    world.registry.bind(device, tcp(9))
    assert (await waiting).path == tcp(9)
    world.registry.unbind(device)
    with pytest.raises(GatewayError) as caught:
        await world.registry.reach(device.id, timeout_s=0.01)
    assert code(caught) == "gb.sip.path_lost"


def test_several_devices_may_share_a_path(world: World) -> None:
    one, two, three = (world.device(number) for number in (1, 2, 3))
    for device in (one, two, three):
        world.registry.bind(device, udp(7000))
    assert set(world.registry.bound_to(udp(7000))) == {one, two, three}
    assert world.registry.alone_on(udp(7000)) is None
    world.registry.unbind(two)
    world.registry.unbind(one)
    assert world.registry.alone_on(udp(7000)) is three
    assert world.registry.is_bound(udp(7000))
    world.registry.unbind(three)
    assert not world.registry.is_bound(udp(7000))
    assert world.registry.bound_to(udp(7000)) == []


def test_search(world: World) -> None:
    one, two = world.device(1), world.device(2)
    one.name, two.manufacturer, two.approved = "门口 Gate", "Acme", False
    assert world.registry.search() == [one, two]
    assert world.registry.search("gate") == [one]
    assert world.registry.search("acme") == [two]
    assert world.registry.search("10.1.1.1:5002") == [two]
    assert world.registry.search(approved_only=True) == [one]


async def test_quirks_are_counted_told_once_and_kept(world: World) -> None:
    device = world.device()
    await world.store.save_device(device)
    for _ in range(3):
        world.registry.add_quirk(device.id, "xml.bom", row="XML-03")
    world.registry.add_quirk("nobody", "xml.bom")
    assert device.quirks == {"xml.bom": 3}
    assert world.bus.of("device.quirk") == [{"device_id": device.id, "quirk": "xml.bom", "row": "XML-03"}]
    world.registry.flush()
    (stored,) = await world.store.load()
    assert stored.quirks == {"xml.bom": 3}


def test_i10_quirks_are_bounded(world: World) -> None:
    device = world.device()
    for number in range(QUIRK_LIMIT + 10):
        world.registry.add_quirk(device, f"q{number}")
    assert len(device.quirks) == QUIRK_LIMIT


async def test_the_media_way_is_remembered_over_restarts(world: World) -> None:
    device = world.device()
    await world.store.save_device(device)
    world.registry.remember_media_way(device.id, "udp")
    world.registry.remember_media_way("nobody", "udp")
    assert world.registry.media_way(device.id) == "udp"
    assert world.registry.media_way("nobody") == ""
    world.registry.flush()
    (stored,) = await world.store.load()
    assert stored.media_way == "udp"


def test_ka07_many_beats_are_one_row(world: World) -> None:
    device = world.device()
    for _ in range(1000):
        world.registry.unsaved(device, UNSAVED_SEEN)
    assert world.registry.unsaved_count == 1


async def test_f15_what_the_database_did_not_take_is_kept(world: World) -> None:
    device = world.device()
    await world.store.save_device(device)
    world.store.fail = True
    world.registry.remember_media_way(device.id, "udp")
    world.registry.unsaved(device, UNSAVED_SEEN)
    for _ in range(5):
        world.registry.flush()
        await asyncio.sleep(0)
    assert device.unsaved == UNSAVED_SEEN | UNSAVED_FACTS
    assert world.registry.unsaved_count == 2
    world.store.fail = False
    world.registry.flush()
    await asyncio.sleep(0)
    assert device.unsaved == 0
    (stored,) = await world.store.load()
    assert stored.media_way == "udp"


async def test_a_removed_device_is_not_written_again(world: World) -> None:
    device = world.device()
    world.registry.unsaved(device, UNSAVED_FACTS)
    world.registry.drop(device)
    world.registry.flush()
    await asyncio.sleep(0)
    assert await world.store.load() == []


def test_xml12_the_only_channel(world: World) -> None:
    device = world.device()
    device.channels["c1"] = Channel(device.id, "c1")
    assert world.registry.is_only_channel(device.id, "c1")
    device.channels["c2"] = Channel(device.id, "c2")
    assert not world.registry.is_only_channel(device.id, "c1")
    assert not world.registry.is_only_channel("nobody", "c1")
    assert [channel.id for channel in world.registry.channels(device.id)] == ["c1", "c2"]


def test_what_sessions_ask(world: World) -> None:
    device = world.device()
    device.media_transport = "tcp-active"
    assert world.registry.path_of(device.id) == udp(5001)
    assert world.registry.path_of("nobody") is None
    assert world.registry.media_transport(device.id) == "tcp-active"
    assert world.registry.media_transport("nobody") == "auto"


CAMERA = Channel("d", "c", "Gate", status=ChannelStatus.ON)


@pytest.mark.parametrize(
    ("before", "after", "event"),
    [
        (None, CAMERA, "ADD"),
        (replace(CAMERA, gone=True), CAMERA, "ADD"),
        (CAMERA, replace(CAMERA, gone=True), "DEL"),
        (replace(CAMERA, gone=True), replace(CAMERA, gone=True, name="x"), None),
        (None, replace(CAMERA, gone=True), None),
        (CAMERA, CAMERA, None),
        (CAMERA, replace(CAMERA, missed=1), None),
        (CAMERA, replace(CAMERA, status=ChannelStatus.OFF), "OFF"),
        (replace(CAMERA, status=ChannelStatus.OFF), CAMERA, "ON"),
        (CAMERA, replace(CAMERA, status=ChannelStatus.UNKNOWN), "ON"),
        (CAMERA, replace(CAMERA, fault="VLOST"), "VLOST"),
        (replace(CAMERA, fault="VLOST"), replace(CAMERA, fault="DEFECT"), "DEFECT"),
        (replace(CAMERA, fault="VLOST"), CAMERA, "ON"),
        (CAMERA, replace(CAMERA, name="Door"), "UPDATE"),
        (CAMERA, replace(CAMERA, name="Door", status=ChannelStatus.OFF), "UPDATE"),
    ],
)
def test_n43_what_a_change_is_called(before: Channel | None, after: Channel, event: str | None) -> None:
    assert change_of(before, after) == event


async def test_ka09_listeners_hear_changes_of_the_catalogue() -> None:
    registry = Registry(store=MemoryDeviceStore(), bus=RecordingBus(), clock=FakeClock())
    device = make_device()
    registry.enrol(device)
    heard: list[tuple[str, str, str]] = []
    registry.channel_changed(device, None, CAMERA)  # nobody listens
    registry.on_channel_changed(lambda owner, change: heard.append((owner, change.event, change.channel.id)))
    registry.channel_changed(device, None, CAMERA)
    registry.channel_changed(device, CAMERA, CAMERA)
    assert heard == [(device.id, "ADD", "c")]
