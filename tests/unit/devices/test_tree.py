"""The catalogue as a tree, and the list of channels."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.devices.models import Channel, Device, listed_channels
from gb28181gw.devices.tree import build_tree
from gb28181gw.gb.ids import node_kind
from tests.support.devices import make_device

SYSTEM = "34020000002000000002"
GROUP = "34020000002150000001"
ORGANISATION = "34020000002160000001"
ORGANISATION_2 = "34020000002160000002"
CAMERA = "34020000001320000001"
NVR = "34020000001180000009"


def device(*channels: Channel) -> Device:
    made = make_device()
    made.channels = {channel.id: channel for channel in channels}
    return made


def node(own_id: str, *parents: str, **values: Any) -> Channel:
    return Channel(make_device().id, own_id, kind=node_kind(own_id), parent_ids=parents, **values)


def places(made: Device) -> dict[str, str]:
    return {one.channel.id: one.parent_id for one in build_tree(made)}


ROOT = make_device().id


def test_a_flat_nvr() -> None:
    assert places(device(node(CAMERA, ROOT), node("34020000001320000002"))) == {
        CAMERA: ROOT,
        "34020000001320000002": ROOT,
    }


def test_cat07_an_unknown_parent_hangs_below_the_device() -> None:
    assert places(device(node(CAMERA, "34020000001180000077"))) == {CAMERA: ROOT}


def test_cat07_the_last_known_parent_counts() -> None:
    made = device(node(NVR), node(SYSTEM), node(CAMERA, SYSTEM, NVR))
    assert places(made)[CAMERA] == NVR


def test_cat12_organisations_come_before_devices() -> None:
    made = device(node(NVR), node(ORGANISATION, group_id=GROUP), node(GROUP), node(CAMERA, ORGANISATION, NVR))
    assert places(made)[CAMERA] == ORGANISATION


def test_cat12_groups_and_organisations() -> None:
    made = device(
        node(ORGANISATION_2, ORGANISATION, group_id=GROUP),
        node(ORGANISATION, group_id=GROUP),
        node(GROUP, GROUP),
        node(CAMERA, ORGANISATION_2),
    )
    assert places(made) == {
        GROUP: ROOT,
        ORGANISATION: GROUP,
        ORGANISATION_2: ORGANISATION,
        CAMERA: ORGANISATION_2,
    }


def test_cat12_an_organisation_without_a_group() -> None:
    assert places(device(node(ORGANISATION), node(ORGANISATION_2, GROUP))) == {
        ORGANISATION: ROOT,
        ORGANISATION_2: ROOT,
    }


def test_cat12_an_organisation_that_names_its_group_as_parent() -> None:
    assert places(device(node(GROUP), node(ORGANISATION, GROUP)))[ORGANISATION] == GROUP


def test_regions_by_prefix() -> None:
    made = device(
        node("34"),
        node("340200"),
        node("34020001"),
        node(CAMERA, civil_code="34020001"),
        node(NVR, civil_code="3499"),
    )
    assert places(made) == {"34": ROOT, "340200": "34", "34020001": "340200", CAMERA: "34020001", NVR: "34"}


def test_cat10_no_region_node_no_region_tree() -> None:
    assert places(device(node(CAMERA, civil_code="340200"))) == {CAMERA: ROOT}


def test_cat07_cycles_are_broken() -> None:
    made = device(
        node(ORGANISATION, ORGANISATION_2), node(ORGANISATION_2, ORGANISATION), node(CAMERA, ORGANISATION)
    )
    found = places(made)
    assert set(found) == {ORGANISATION, ORGANISATION_2, CAMERA}
    assert list(found.values()).count(ROOT) == 1


def test_cat14_the_device_itself_is_the_root_not_a_node() -> None:
    assert places(device(node(ROOT), node(CAMERA, ROOT))) == {CAMERA: ROOT}
    assert places(device(node(ROOT))) == {ROOT: ROOT}


def test_tombstones_are_not_in_the_tree() -> None:
    assert places(device(node(NVR, gone=True), node(CAMERA, NVR))) == {CAMERA: ROOT}


IDS = [f"340200000021600000{number:02d}" for number in range(12)]


@given(st.lists(st.tuples(st.sampled_from(IDS), st.lists(st.sampled_from(IDS), max_size=3)), max_size=12))
def test_every_node_is_there_once_with_its_parent_before_it(links: list[tuple[str, list[str]]]) -> None:
    made = device(*(node(own_id, *parents) for own_id, parents in links))
    seen = {ROOT}
    found = build_tree(made)
    for one in found:
        assert one.parent_id in seen
        seen.add(one.channel.id)
    assert sorted(one.channel.id for one in found) == sorted(made.channels)


def listed(made: Device) -> list[str]:
    return [channel.id for channel in listed_channels(made)]


def test_cat16_the_list_has_what_has_a_function_of_its_own() -> None:
    alarm, speaker, monitor = "34020000001340000001", "34020000001370000001", "34020000001330000001"
    made = device(
        node(CAMERA), node(alarm), node(speaker), node(monitor), node(SYSTEM), node(GROUP), node("3402")
    )
    assert listed(made) == sorted([CAMERA, alarm, speaker, monitor])


def test_cat16_a_sub_device_with_children_is_a_level_one_without_is_a_channel() -> None:
    assert listed(device(node(NVR), node(CAMERA, NVR))) == [CAMERA]
    assert listed(device(node(NVR), node(CAMERA))) == sorted([NVR, CAMERA])


def test_cat14_a_device_is_its_own_channel_only_while_it_has_no_other() -> None:
    assert listed(device(node(ROOT))) == [ROOT]
    assert listed(device(node(ROOT), node(CAMERA))) == [CAMERA]
    assert device(node(ROOT), node(CAMERA)).channel_count == 1


def test_tombstones_are_not_listed() -> None:
    assert listed(device(node(CAMERA, gone=True))) == []
