"""One suite over every device store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from gb28181gw.devices.models import CatalogueState, Channel, ChannelStatus
from gb28181gw.devices.store import Ban, DeviceStore
from gb28181gw.storage.database import Database
from gb28181gw.storage.sqlite import SqliteDeviceStore
from tests.support.devices import binding, device_id, make_device, udp
from tests.support.stores import MemoryDeviceStore

LIVE = frozenset(
    (
        *(
            "nonce",
            "nonce_minted_at",
            "nonce_count",
            "channels",
            "binding",
            "path",
            "trial_until",
            "presence",
        ),
        *("seen", "seen_wall", "expires", "keepalive_s", "keepalive_at", "keepalive_gaps", "keepalives"),
        *("warning", "lost_at", "unregistered_at", "slot", "unsaved", "catalogue_tried"),
    )
)
"""Not kept with the device's own row."""


class Stores:
    """A store, and the same store after the process was restarted."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._databases: list[Database] = []
        self._memory = MemoryDeviceStore()

    async def open(self) -> DeviceStore:
        if self._path is None:
            return self._memory
        await self.close()
        database = Database(self._path / "a.db")
        database.start()
        self._databases.append(database)
        return SqliteDeviceStore(database)

    async def close(self) -> None:
        for database in self._databases:
            await database.close()


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    made = Stores(tmp_path if request.param == "sqlite" else None)
    yield made
    await made.close()


async def committed(call, *values) -> None:  # type: ignore[no-untyped-def]  # any callback style method
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    call(*values, lambda error: future.set_exception(error) if error else future.set_result(None))
    await future


async def test_a_device_comes_back_whole(stores: Stores) -> None:
    store = await stores.open()
    device = make_device(
        name="门口",
        password="secret",
        username="cam",
        media_transport="udp",
        charset="UTF-8",
        timezone="+07:00",
        dialect={"qop": "false"},
        approved=False,
        subscribe=("alarm", "ptz"),
        provisioned=True,
        created_at=1_714_000_000.5,
        manufacturer="海康",
        model="N16",
        firmware="V1",
        reported_name="NVR 1",
        detected_edition="2.0",
        media_way="tcp-passive",
        quirks={"xml.bom": 3},
        catalogue_state=CatalogueState.PARTIAL,
        catalogue_received=5,
        catalogue_expected=9,
        catalogue_at=1_714_000_001.25,
    )
    await store.save_device(device)
    (found,) = await (await stores.open()).load()
    for field in fields(device):
        if field.name in LIVE:
            continue
        name = field.name
        assert getattr(found, name) == getattr(device, name), name
    assert found.binding is None


async def test_f17_a_binding_comes_back_with_its_nonce(stores: Stores) -> None:
    store = await stores.open()
    device = make_device()
    made = binding(
        udp(40001),
        nonce="n",
        nonce_minted_at=1_714_523_399.123,
        nonce_count=7,
        networks={"10.1.0.0/16": 1_714_523_400},
        cseq=9,
    )
    await committed(store.enrol, device, made)
    (found,) = await (await stores.open()).load()
    assert found.binding == made
    assert (found.nonce, found.nonce_minted_at, found.nonce_count) == ("n", 1_714_523_399.123, 7)
    assert found.seen_wall == made.registered_at


async def test_the_last_binding_counts(stores: Stores) -> None:
    store = await stores.open()
    device = make_device()
    await committed(store.enrol, device, binding(udp(1)))
    await committed(store.save_binding, device, binding(udp(2), active=False))
    (found,) = await (await stores.open()).load()
    assert found.binding is not None
    assert (found.binding.path.remote_port, found.binding.active) == (2, False)


async def test_the_flush_writes_last_seen_and_facts(stores: Stores) -> None:
    store = await stores.open()
    devices = [make_device(number) for number in (1, 2)]
    for device in devices:
        await committed(store.enrol, device, binding(udp()))
    devices[0].seen_wall, devices[0].keepalive_s = 1_714_600_000.0, 30.0
    devices[1].quirks["xml.bom"] = 1
    await committed(store.flush, [devices[0]], [devices[1]])
    one, two = sorted(await (await stores.open()).load(), key=lambda device: device.id)
    assert (one.seen_wall, one.keepalive_s, one.quirks) == (1_714_600_000.0, 30.0, {})
    assert (two.seen_wall, two.quirks) == (1_714_523_400.0, {"xml.bom": 1})


async def test_channels_are_inserted_replaced_and_removed(stores: Stores) -> None:
    store = await stores.open()
    device = make_device()
    await store.save_device(device)
    full = Channel(
        device.id,
        "34020000001320000001",
        "大门 😀 'quoted\"",
        "camera",
        ChannelStatus.ON,
        "1/4",
        True,
        ("a", "b"),
        "group",
        "340200",
        "block",
        "address",
        "owner",
        "maker",
        "model",
        117.25,
        31.5,
        "10.0.0.1",
        5060,
        1,
        0,
        (("PointType", "1"),),
        "VLOST",
        True,
        1,
        True,
    )
    plain = Channel(device.id, "34020000001320000002")
    await store.save_channels([full, plain])
    (found,) = await (await stores.open()).load()
    assert found.channels == {full.id: full, plain.id: plain}
    store = await stores.open()
    await store.save_channels([replace(plain, name="new")])
    (found,) = await (await stores.open()).load()
    assert found.channels == {full.id: full, plain.id: replace(plain, name="new")}


async def test_cat13_the_same_channel_id_of_two_devices_is_two_channels(stores: Stores) -> None:
    store = await stores.open()
    devices = [make_device(number) for number in (1, 2)]
    for device in devices:
        await store.save_device(device)
        await store.save_channels([Channel(device.id, "34020000001320000001", name=device.id)])
    for found in await (await stores.open()).load():
        assert [channel.name for channel in found.channels.values()] == [found.id]


async def test_more_channels_than_one_transaction_holds(stores: Stores) -> None:
    store = await stores.open()
    device = make_device()
    await store.save_device(device)
    await store.save_channels([Channel(device.id, str(number)) for number in range(1201)])
    (found,) = await (await stores.open()).load()
    assert len(found.channels) == 1201


async def test_removing_a_device_leaves_nothing(stores: Stores) -> None:
    store = await stores.open()
    device = make_device()
    await committed(store.enrol, device, binding(udp()))
    await store.save_channels([Channel(device.id, "1")])
    store.save_ban(Ban("10.0.0.1", device.id, 1.0, 0))
    await store.remove_device(device.id)
    await committed(store.enrol, device, binding(udp()))
    store = await stores.open()
    (found,) = await store.load()
    assert found.channels == {}
    assert await store.load_bans() == []


async def test_s02_bans_survive_a_restart(stores: Stores) -> None:
    store = await stores.open()
    store.save_ban(Ban("10.0.0.1", device_id(1), 1_714_523_999.0, 2))
    store.save_ban(Ban("10.0.0.1", device_id(2), 1_714_523_999.0, 0))
    store.remove_bans(device_id(2))
    assert await (await stores.open()).load_bans() == [Ban("10.0.0.1", device_id(1), 1_714_523_999.0, 2)]


async def test_s02_the_nonce_key_is_made_once(stores: Stores) -> None:
    first = await (await stores.open()).secret("nonce_key")
    assert len(first) == 32
    assert await (await stores.open()).secret("nonce_key") == first
    assert await (await stores.open()).secret("other") != first


async def test_a_running_query_is_not_running_after_a_restart(stores: Stores) -> None:
    store = await stores.open()
    await store.save_device(make_device(catalogue_state=CatalogueState.RUNNING))
    (found,) = await (await stores.open()).load()
    assert found.catalogue_state is CatalogueState.NONE


async def test_xml23_one_bad_channel_does_not_spoil_the_stored_ones(stores: Stores) -> None:
    store = await stores.open()
    device = make_device()
    await store.save_device(device)
    name = "长" * 250 + "'); DROP TABLE channels; --😀"
    await store.save_channels([Channel(device.id, "1", name=name)])
    (found,) = await (await stores.open()).load()
    assert found.channels["1"].name == name
