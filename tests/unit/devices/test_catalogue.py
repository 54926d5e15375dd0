"""The pure collector of catalogue answers, and items as channels."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gb28181gw.devices.catalogue import Collector, Progress, Waits, channel_of
from gb28181gw.devices.models import CHANNEL_LIMIT, Channel, ChannelStatus, Presence
from gb28181gw.gb.ids import NodeKind
from gb28181gw.gb.manscdp.catalogue import CatalogItem
from tests.support.devices import DOMAIN, PLATFORM, make_device

DEVICE = make_device()
OURS = frozenset((PLATFORM, DOMAIN))


def cameras(first: int, count: int) -> list[Channel]:
    return [Channel(DEVICE.id, f"{number:020d}") for number in range(first, first + count)]


def collector(limit: int = CHANNEL_LIMIT) -> Collector:
    return Collector(now=100.0, limit=limit, waits=Waits())


def test_complete_when_the_count_is_reached() -> None:
    made = collector()
    made.feed(cameras(0, 10), 20, 101.0)
    assert made.progress(102.0) is Progress.RUNNING
    made.feed(cameras(10, 10), 20, 103.0)
    assert made.progress(103.0) is Progress.COMPLETE
    assert (made.received, made.expected) == (20, 20)


def test_cat01_quiet_with_a_deficit_is_partial() -> None:
    made = collector()
    assert made.progress(129.9) is Progress.RUNNING
    assert made.progress(130.0) is Progress.SILENT
    made.feed(cameras(0, 10), 20, 129.0)
    assert made.progress(138.9) is Progress.RUNNING
    assert made.progress(139.0) is Progress.PARTIAL


def test_cat02_a_count_that_is_too_small_only_ends_the_waiting() -> None:
    made = collector()
    for part in range(5):
        made.feed(cameras(part * 10, 10), 10, 101.0)
        assert made.progress(101.0) is Progress.COMPLETE
    assert made.received == 50


def test_cat02_a_count_that_is_absurd_is_only_a_hint() -> None:
    made = collector()
    made.feed(cameras(0, 3), 2**31, 101.0)
    assert made.progress(102.0) is Progress.RUNNING
    assert made.progress(112.0) is Progress.PARTIAL
    assert made.received == 3


def test_cat02_without_a_count_quiet_is_the_end() -> None:
    made = collector()
    made.feed(cameras(0, 3), None, 101.0)
    assert made.progress(110.0) is Progress.RUNNING
    assert made.progress(111.0) is Progress.COMPLETE


def test_cat04_parts_in_any_order_and_twice_give_the_union() -> None:
    parts = [cameras(at, 7) for at in range(0, 300, 7)]
    chance = random.Random(4)
    for _ in range(20):
        mixed = parts + chance.sample(parts, 5)
        chance.shuffle(mixed)
        made = collector()
        for part in mixed:
            made.feed(part, 301, 101.0)
        assert made.progress(101.0) is Progress.COMPLETE
        assert sorted(made.items) == [f"{number:020d}" for number in range(301)]


def test_cat05_a_first_part_without_items() -> None:
    made = collector()
    made.feed([], 4, 101.0)
    assert made.progress(105.0) is Progress.RUNNING
    made.feed(cameras(0, 4), 4, 106.0)
    assert made.progress(106.0) is Progress.COMPLETE


def test_an_empty_catalogue_is_complete() -> None:
    made = collector()
    made.feed([], 0, 101.0)
    assert made.progress(101.0) is Progress.COMPLETE
    assert made.received == 0


def test_the_last_of_equal_ids_counts() -> None:
    made = collector()
    made.feed([Channel(DEVICE.id, "1", name="old")], 2, 101.0)
    made.feed([Channel(DEVICE.id, "1", name="new")], 2, 101.0)
    assert [channel.name for channel in made.items.values()] == ["new"]
    assert made.progress(101.0) is Progress.RUNNING


def test_s03_items_beyond_the_limit_are_dropped_and_counted() -> None:
    made = collector(limit=5)
    made.feed(cameras(0, 8), 8, 101.0)
    assert (made.received, made.dropped) == (5, 3)
    assert made.progress(101.0) is Progress.COMPLETE
    made.feed(cameras(0, 5), 8, 102.0)
    assert made.dropped == 3


def test_f12_a_hundred_thousand_items_with_loss_and_repeats() -> None:
    made = collector(limit=100_000)
    chance = random.Random(12)
    lost = set(chance.sample(range(0, 100_000, 100), 10))
    for at in range(0, 100_000, 100):
        if at in lost:
            continue
        for _ in range(2 if chance.random() < 0.01 else 1):
            made.feed(cameras(at, 100), 100_000, 101.0)
    assert made.received == 99_000
    assert made.progress(200.0) is Progress.PARTIAL


def item(**values: Any) -> CatalogItem:
    return CatalogItem(**{"device_id": "34020000001320000001", **values})


def test_an_item_becomes_a_channel() -> None:
    channel = channel_of(
        DEVICE,
        item(
            name="门口",
            manufacturer="M",
            model="X",
            owner="O",
            civil_code="340200",
            block="B",
            address="A",
            parental=False,
            parent_ids=("p",),
            status=ChannelStatus.ON,
            longitude=117.0,
            latitude=31.0,
            business_group_id="g",
            ptz_type="1",
            ip_address="10.0.0.1",
            port=5060,
            register_way=1,
            secrecy=0,
            details=(("PointType", "1"),),
        ),
        OURS,
    )
    assert channel == Channel(
        device_id=DEVICE.id,
        id="34020000001320000001",
        name="门口",
        kind=NodeKind.CAMERA,
        status=ChannelStatus.ON,
        ptz_type="1",
        parental=False,
        parent_ids=("p",),
        group_id="g",
        civil_code="340200",
        block="B",
        address="A",
        owner="O",
        manufacturer="M",
        model="X",
        longitude=117.0,
        latitude=31.0,
        ip_address="10.0.0.1",
        port=5060,
        register_way=1,
        secrecy=0,
        details=(("PointType", "1"),),
    )


@pytest.mark.parametrize(
    ("sent", "kept", "parent"),
    [
        ((), (), None),
        ((PLATFORM,), (), None),
        ((DOMAIN,), (), None),
        (("34020000001320000001",), (), None),
        (("a",), ("a",), "a"),
        (("a", "b"), ("a", "b"), "b"),
        ((PLATFORM, "a"), ("a",), "a"),
        (("a", DOMAIN), ("a",), "a"),
    ],
)
def test_cat07_whom_a_channel_hangs_below(
    sent: tuple[str, ...], kept: tuple[str, ...], parent: str | None
) -> None:
    channel = channel_of(DEVICE, item(parent_ids=sent), OURS)
    assert channel.parent_ids == kept
    assert channel.parent_id == parent


def test_ka09_a_channel_is_on_only_while_its_device_is_online() -> None:
    device = make_device()
    channel = Channel(device.id, "1", status=ChannelStatus.ON)
    unknown = Channel(device.id, "2")
    assert device.status_of(channel) is ChannelStatus.OFF
    device.presence = Presence.SUSPECT
    assert device.status_of(channel) is ChannelStatus.ON
    assert device.status_of(unknown) is ChannelStatus.UNKNOWN
    assert device.status_of(Channel(device.id, "3", status=ChannelStatus.ON, gone=True)) is ChannelStatus.OFF
