"""What an upper is told: the four forms, their fields by Annex J, scopes, and the lint."""

from __future__ import annotations

from dataclasses import replace

from gb28181gw.cascade.models import Tree, Upper
from gb28181gw.cascade.sharing import ShareItem, Sharing, sharing_of
from gb28181gw.cascade.tree import SharedTree, build, lint
from gb28181gw.devices.models import Channel, ChannelStatus, Presence
from gb28181gw.gb.ids import node_kind
from gb28181gw.gb.manscdp.catalogue import CatalogItem, Status
from tests.support.uppers import LOCAL_ID, NVR, Book, camera, make_device

UPPER = Upper(
    id="34020000002000000001", domain="3402000000", host="192.0.2.1", local_id=LOCAL_ID, name="City"
)
GROUP, ORGANISATION = "34020000002150000001", "34020000002160000001"


def organised() -> Book:
    """An NVR with a business group, an organisation in it, one camera there and one beside."""
    device = make_device(channels=2)
    for node in (
        Channel(device_id=NVR, id=GROUP, name="Group", kind=node_kind(GROUP).value),
        Channel(
            device_id=NVR, id=ORGANISATION, name="Floor", kind=node_kind(ORGANISATION).value, group_id=GROUP
        ),
    ):
        device.channels[node.id] = node
    device.channels[camera(1)] = replace(
        device.channels[camera(1)], parent_ids=(NVR, ORGANISATION), ip_address="10.0.0.7", port=37777
    )
    return Book([device])


async def told(book: Book, sharing: Sharing, form: Tree) -> tuple[SharedTree, dict[str, CatalogItem]]:
    tree = await build(sharing, book, form)
    return tree, {item.device_id: item for item in tree.items(tree.nodes, book)}


async def everything(book: Book) -> Sharing:
    sharing = Sharing(UPPER, share_all=True)
    await sharing.follow(book)
    return sharing


async def test_cs08_the_form_devices_keeps_the_tree_and_parents_come_first() -> None:
    book = organised()
    tree, items = await told(book, await everything(book), Tree.DEVICES)
    order = [node.id for node in tree.nodes]
    assert order.index(NVR) < order.index(GROUP) < order.index(ORGANISATION) < order.index(camera(1))
    assert items[NVR].parent_id == LOCAL_ID and items[camera(1)].parent_id == ORGANISATION
    assert items[ORGANISATION].parent_id == "" and items[ORGANISATION].business_group_id == GROUP
    assert items[GROUP].parent_id == NVR and items[GROUP].civil_code  # CS-06
    assert items[camera(2)].parent_id == NVR


async def test_s21_what_is_not_shared_and_addresses_do_not_get_out() -> None:
    book = organised()
    sharing = sharing_of(UPPER, [ShareItem(device_id=NVR, channel_id=camera(2))])
    _, items = await told(book, sharing, Tree.DEVICES)
    assert set(items) == {NVR, camera(2)}
    _, flat = await told(book, sharing, Tree.FLAT)
    assert set(flat) == {camera(2)} and flat[camera(2)].parent_id == LOCAL_ID
    _, items = await told(book, await everything(book), Tree.FLAT)
    assert items[camera(1)].ip_address == "" and items[camera(1)].port is None


async def test_r046_regions_and_groups_are_made_by_annex_j() -> None:
    book = organised()
    sharing = await everything(book)
    _, items = await told(book, sharing, Tree.REGIONS)
    assert [key for key in items if len(key) < 20] == ["34", "3402", "340200"]
    assert items["340200"].parent_id == "" and items[camera(1)].civil_code == "340200"
    tree, items = await told(book, sharing, Tree.GROUPS)
    group, organisation = tree.nodes[0].id, tree.nodes[1].id
    assert (group[10:13], organisation[10:13]) == ("215", "216")
    assert items[group].parent_id == LOCAL_ID and items[organisation].business_group_id == group
    assert items[camera(1)].parent_id == organisation
    again, _ = await told(book, sharing, Tree.GROUPS)
    assert [node.id for node in again.nodes] == [node.id for node in tree.nodes]


async def test_ka09_state_is_the_channels_and_the_devices() -> None:
    book = organised()
    sharing = await everything(book)
    device = book.devices[NVR]
    device.channels[camera(2)] = replace(device.channels[camera(2)], status=ChannelStatus.UNKNOWN)
    _, items = await told(book, sharing, Tree.FLAT)
    assert items[camera(2)].status is Status.ON  # CAT-09
    device.presence = Presence.OFFLINE
    _, items = await told(book, sharing, Tree.FLAT)
    assert {item.status for item in items.values()} == {Status.OFF}


async def test_a_query_for_a_node_is_answered_with_it_and_what_is_below() -> None:
    book = organised()
    tree, _ = await told(book, await everything(book), Tree.DEVICES)
    assert [node.id for node in tree.scope(ORGANISATION)] == [ORGANISATION, camera(1)]
    assert [node.id for node in tree.scope(GROUP)] == [GROUP, ORGANISATION, camera(1)]
    assert len(tree.scope(NVR)) == len(tree.scope(LOCAL_ID)) == 5
    assert tree.scope("11") == [] and tree.scope("34020000001320009999") == []


async def test_lint_names_what_uppers_stumble_over() -> None:
    book = organised()
    device = book.devices[NVR]
    device.channels["cam-7"] = Channel(
        device_id=NVR, id="cam-7", kind=node_kind("cam-7").value, longitude=0.0, latitude=0.0
    )
    sharing = sharing_of(
        UPPER,
        [ShareItem(device_id=NVR, channel_id=one) for one in (camera(1), "cam-7", camera(9))],
    )
    tree, _ = await told(book, sharing, Tree.FLAT)
    found = {(finding.id, finding.problem.split()[0]) for finding in lint(tree, book)}
    assert (camera(9), "Device") in found
    assert {problem for node_id, problem in found if node_id == "cam-7"} == {"The", "CivilCode", "Its", "It"}
    assert not [problem for node_id, problem in found if node_id == camera(1)]
