"""What one upper is told: the shared channels and what orders them, parents before children (Annex J; CS-06).

The tree is built from the mapping and the devices' catalogues when it is needed, as small nodes; an item with all its
fields is made when its page is written, so that 50,000 channels cost little memory and carry their newest state.

Nothing that is not shared gets into it, except what a shared channel hangs below in the form `devices` (CS-08), and
what the forms `regions` and `groups` make up. Addresses of devices are never told (threat S-21).
"""

from __future__ import annotations

import asyncio
import copy
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gb28181gw.cascade.models import Tree, Upper
from gb28181gw.cascade.sharing import ChannelBook, Key, Sharing
from gb28181gw.devices.models import Channel, ChannelStatus, Device
from gb28181gw.devices.tree import TreeNode, build_tree
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.ids import NodeKind, is_gb_id, is_region_code, node_kind, normalise_civil_code
from gb28181gw.gb.manscdp.catalogue import CatalogItem, Status

_SLICE: Final = 1_000
_IN_THREAD: Final = 2_000
"""Catalogues of so many nodes are ordered in a thread (I8)."""
_NOT_TOLD: Final = frozenset({"EndTime", "ErrCode", "CertNum", "Certifiable"})


@dataclass(frozen=True, slots=True)
class Node:
    """One item as the upper will see it."""

    id: str
    parent_id: str
    """In the upper's ids; empty: below the platform itself."""
    key: Key | None = None
    """The node of a device's catalogue behind it; `channel_id` is the device's own id for the device. None: made up."""
    shared: bool = False
    """A shared channel; else it only orders others."""
    name: str = ""
    """Of made ones."""
    group_id: str = ""
    """Business group of a virtual organisation."""


class SharedTree:
    """The nodes of one upper at one moment, in the order of telling."""

    def __init__(self, upper: Upper, nodes: list[Node], missing: list[Key]) -> None:
        self.upper = upper
        self.nodes = nodes
        self.missing = missing
        """Shared channels that no device has now."""
        self._parents = {node.parent_id for node in nodes}
        self._by_id: dict[str, Node] | None = None

    def get(self, node_id: str) -> Node | None:
        if self._by_id is None:
            self._by_id = {node.id: node for node in self.nodes}
        return self._by_id.get(node_id)

    def scope(self, target: str) -> list[Node]:
        """The nodes that a query for `target` is answered with: all for the platform, else it and what is below."""
        if target == self.upper.local_id:
            return self.nodes
        if is_region_code(target) and self.get(target) is None:
            return []
        inside = {target}
        found: list[Node] = []
        for node in self.nodes:  # parents come first
            if node.id in inside or node.parent_id in inside or node.group_id in inside:
                inside.add(node.id)
                found.append(node)
        return found

    def item(self, node: Node, book: ChannelBook) -> CatalogItem | None:
        """The item with its fields as they are now; None: it has gone meanwhile."""
        upper = self.upper
        parent = node.parent_id or upper.local_id
        if node.key is None:
            return _made_item(node, parent, upper)
        device = book.get(node.key.device_id)
        if device is None:
            return None
        if node.key.channel_id == device.id and device.id not in device.channels:
            return _device_item(node, parent, device, upper)
        channel = device.channels.get(node.key.channel_id)
        if channel is None or channel.gone:
            return None
        return _channel_item(node, parent, device, channel, node.id in self._parents)

    def items(self, nodes: Iterable[Node], book: ChannelBook) -> Iterator[CatalogItem]:
        for node in nodes:
            item = self.item(node, book)
            if item is not None:
                yield item


async def build(sharing: Sharing, book: ChannelBook, tree: Tree | None = None) -> SharedTree:
    """The tree of an upper in its form, or in another one (dry run)."""
    upper = sharing.upper
    form = tree or Tree(upper.tree)
    if form is Tree.AUTO:
        form = Tree.DEVICES if sharing.share_all else Tree.FLAT
    present: list[tuple[Key, str]] = []
    missing: list[Key] = []
    async for key, shared_id in _in_turns(await sharing.ordered()):
        device = book.get(key.device_id)
        channel = device.channels.get(key.channel_id) if device is not None else None
        if device is None or not device.approved or channel is None or channel.gone:
            missing.append(key)
        else:
            present.append((key, shared_id))
    if form is Tree.FLAT:
        nodes = [Node(shared_id, "", key, True) async for key, shared_id in _in_turns(present)]
    elif form is Tree.REGIONS:
        nodes = await _by_region(present, book, upper)
    elif form is Tree.GROUPS:
        nodes = await _by_group(present, book, upper)
    else:
        nodes = await _by_device(present, book, upper)
    return SharedTree(upper, nodes, missing)


async def _in_turns(rows: Sequence[tuple[Key, str]]) -> AsyncIterator[tuple[Key, str]]:
    """The rows, with everybody else's turn after each thousand (I8)."""
    for start in range(0, len(rows), _SLICE):
        for row in rows[start : start + _SLICE]:
            yield row
        await asyncio.sleep(0)


# -- the forms -----------------------------------------------------------------------------------------------------


async def _by_device(present: list[tuple[Key, str]], book: ChannelBook, upper: Upper) -> list[Node]:
    """Each device below the platform, its own tree below it, pruned to what leads to a shared channel."""
    by_device: dict[str, dict[str, str]] = {}
    async for key, shared_id in _in_turns(present):
        by_device.setdefault(key.device_id, {})[key.channel_id] = shared_id
    taken = {shared_id for _, shared_id in present} | {upper.id, upper.local_id}
    nodes: list[Node] = []
    regions: set[str] = set()
    for device_id, shared in by_device.items():
        device = book.get(device_id)
        if device is None:
            continue
        ordered = await _ordered(device)
        await asyncio.sleep(0)
        parents = {one.channel.id: one.parent_id for one in ordered}
        wanted: set[str] = set()
        for channel_id in shared:
            step = channel_id
            while step and step not in wanted and step != device_id:
                wanted.add(step)
                step = parents.get(step, "")
        names: dict[str, str] = dict(shared)
        if device_id not in shared:
            names[device_id] = _untaken(device_id, device_id, taken, upper)
            nodes.append(Node(names[device_id], "", Key(device_id, device_id)))
        else:
            nodes.append(Node(shared[device_id], "", Key(device_id, device_id), True))
        for number, one in enumerate(ordered, 1):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            channel = one.channel
            if channel.id not in wanted:
                continue
            if channel.id not in names:
                if channel.kind == NodeKind.REGION.value:
                    names[channel.id] = channel.id  # a region is the same wherever it is told
                    if channel.id in regions:
                        continue
                    regions.add(channel.id)
                else:
                    names[channel.id] = _untaken(channel.id, f"{device_id}/{channel.id}", taken, upper)
            parent = names.get(one.parent_id, names[device_id])
            group = names.get(channel.group_id, "") if channel.kind == NodeKind.ORGANISATION.value else ""
            nodes.append(
                Node(
                    names[channel.id],
                    "" if channel.kind == NodeKind.REGION.value else parent,
                    Key(device_id, channel.id),
                    channel.id in shared,
                    group_id=group,
                )
            )
    return nodes


async def _ordered(device: Device) -> list[TreeNode]:
    if len(device.channels) < _IN_THREAD:
        return build_tree(device)
    snapshot = copy.copy(device)
    snapshot.channels = dict(device.channels)
    return await asyncio.to_thread(build_tree, snapshot)


async def _by_region(present: list[tuple[Key, str]], book: ChannelBook, upper: Upper) -> list[Node]:
    names: dict[str, str] = {}
    for one in book:
        await asyncio.sleep(0)
        for channel in one.channels.values():
            if channel.kind == NodeKind.REGION.value and channel.name:
                names.setdefault(channel.id, channel.name)
    regions: set[str] = set()
    leaves: list[Node] = []
    async for key, shared_id in _in_turns(present):
        device = book.get(key.device_id)
        found = device.channels.get(key.channel_id) if device is not None else None
        code = _civil_code(found, shared_id, upper)
        regions.update(code[:length] for length in (2, 4, 6, 8) if length <= len(code))
        leaves.append(Node(shared_id, "", key, True))
    made = [Node(code, "", name=names.get(code, code)) for code in sorted(regions)]
    return made + leaves


async def _by_group(present: list[tuple[Key, str]], book: ChannelBook, upper: Upper) -> list[Node]:
    taken = {shared_id for _, shared_id in present} | {upper.id, upper.local_id}
    stem = upper.local_id[:10] if is_gb_id(upper.local_id) else "3402000000"
    group = _untaken(f"{stem}2150000001", "group", taken, upper)
    nodes = [Node(group, "", name=upper.name or "gb28181gw")]
    organisations: dict[str, str] = {}
    for device_id in sorted({key.device_id for key, _ in present}):
        device = book.get(device_id)
        # From the device's id and not from its place, so that it stays when others come or go.
        serial = 2 + zlib.crc32(device_id.encode()) % 999_998
        made = _untaken(f"{stem}2160{serial:06d}", device_id, taken, upper)
        organisations[device_id] = made
        name = (device.display_name if device is not None else "") or device_id
        nodes.append(Node(made, "", name=name, group_id=group))
    async for key, shared_id in _in_turns(present):
        nodes.append(Node(shared_id, organisations[key.device_id], key, True))
    return nodes


def _untaken(wanted: str, seed: str, taken: set[str], upper: Upper) -> str:
    """The id itself, or when it is taken one of the same kind that depends on nothing but `seed`."""
    found = wanted
    serial = zlib.crc32(seed.encode()) % 1_000_000
    stem = wanted[:14] if is_gb_id(wanted) else f"{upper.local_id[:10]}2160"
    while found in taken:
        found = f"{stem}{serial:06d}"
        serial = (serial + 1) % 1_000_000
    taken.add(found)
    return found


# -- items ---------------------------------------------------------------------------------------------------------


def _civil_code(channel: Channel | None, shared_id: str, upper: Upper) -> str:
    """Mandatory, so where the device gives none: the region digits of the code, which are what they say (6.1.1)."""
    given = channel.civil_code if channel is not None else ""
    return given or normalise_civil_code(shared_id[:8]) or normalise_civil_code(upper.local_id[:8])


def _made_item(node: Node, parent: str, upper: Upper) -> CatalogItem:
    kind = node_kind(node.id)
    if kind is NodeKind.REGION:
        return CatalogItem(device_id=node.id, name=node.name)
    if kind is NodeKind.GROUP:
        return CatalogItem(
            device_id=node.id, name=node.name, civil_code=_civil_code(None, node.id, upper), parent_id=parent
        )
    return CatalogItem(
        device_id=node.id,
        name=node.name,
        # Only a parent organisation is told as parent (addressing of Annex J); the group has its own field.
        parent_id=node.parent_id if node_kind(node.parent_id) is NodeKind.ORGANISATION else "",
        business_group_id=node.group_id,
    )


def gone_item(node: Node) -> CatalogItem:
    """For a channel that left its device while the pages were sent: the count was told already."""
    return CatalogItem(
        device_id=node.id, name=node.name or node.id, status=Status.OFF, parent_id=node.parent_id
    )


def _device_item(node: Node, parent: str, device: Device, upper: Upper) -> CatalogItem:
    return CatalogItem(
        device_id=node.id,
        name=device.display_name or device.id,
        manufacturer=device.manufacturer or "unknown",
        model=device.model or "unknown",
        owner="unknown",
        civil_code=_civil_code(None, node.id, upper),
        address=device.display_name or device.id,
        parental=True,
        parent_id=parent,
        safety_way=0,
        register_way=1,
        secrecy=0,
        status=Status.ON if device.online else Status.OFF,
    )


def _channel_item(
    node: Node, parent: str, device: Device, channel: Channel, has_children: bool
) -> CatalogItem:
    kind = NodeKind(channel.kind) if channel.kind else node_kind(channel.id)
    name = channel.name or channel.id
    if kind is NodeKind.REGION:
        return CatalogItem(device_id=node.id, name=name)
    if kind is NodeKind.GROUP:
        return CatalogItem(
            device_id=node.id,
            name=name,
            civil_code=channel.civil_code or normalise_civil_code(node.id[:8]),
            parent_id=parent,
        )
    if kind is NodeKind.ORGANISATION:
        return CatalogItem(
            device_id=node.id,
            name=name,
            parent_id=parent if node_kind(parent) is NodeKind.ORGANISATION else "",
            business_group_id=node.group_id,
        )
    # Playable as far as anybody knows: a device that tells no state is shown as on (CAT-09).
    status = device.status_of(channel)
    return CatalogItem(
        device_id=node.id,
        name=name,
        manufacturer=channel.manufacturer or device.manufacturer or "unknown",
        model=channel.model or device.model or "unknown",
        owner=channel.owner or "unknown",
        civil_code=channel.civil_code or normalise_civil_code(node.id[:8]),
        block=channel.block,
        address=channel.address or name,
        parental=has_children,
        parent_id=parent,
        safety_way=0,
        register_way=channel.register_way if channel.register_way is not None else 1,
        secrecy=channel.secrecy if channel.secrecy is not None else 0,
        status=Status.OFF if status is ChannelStatus.OFF else Status.ON,
        longitude=channel.longitude,
        latitude=channel.latitude,
        ptz_type=channel.ptz_type,
        details=tuple(pair for pair in channel.details if pair[0] not in _NOT_TOLD),
    )


# -- lint ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about an item that uppers stumble over."""

    id: str
    problem: str
    """A sentence."""


def lint(tree: SharedTree, book: ChannelBook) -> Iterator[Finding]:
    """Form of ids, region codes, duplicates, parents that are not told, coordinates, channels that are not there."""
    for key in tree.missing:
        yield Finding(
            id=key.channel_id, problem=f"Device {key.device_id} has no such channel now; it is not told."
        )
    seen: set[str] = set()
    known = {node.id for node in tree.nodes}
    for node in tree.nodes:
        if node.id in seen:
            yield Finding(id=node.id, problem="Two items have this id.")
        seen.add(node.id)
        if not is_gb_id(node.id) and not is_region_code(node.id):
            yield Finding(id=node.id, problem="The id has not the 20 digits of the standard (6.1.1).")
        if node.parent_id and node.parent_id not in known:
            yield Finding(id=node.id, problem=f"Its parent {node.parent_id} is not told.")
        item = tree.item(node, book)
        if item is not None:
            yield from _lint_item(item, tree.upper)


def _lint_item(item: CatalogItem, upper: Upper) -> Iterator[Finding]:
    kind = node_kind(item.device_id)
    if kind in (NodeKind.REGION, NodeKind.ORGANISATION):
        return
    if not is_region_code(item.civil_code):
        yield Finding(id=item.device_id, problem=f"CivilCode {item.civil_code!r} is no region code.")
    if (item.longitude is None) is not (item.latitude is None):
        yield Finding(id=item.device_id, problem="It has only one of longitude and latitude.")
    elif item.longitude == 0 and item.latitude == 0:
        yield Finding(id=item.device_id, problem="Its coordinates are 0, 0: nobody set them.")
    if not item.name.strip() or item.name == item.device_id:
        yield Finding(id=item.device_id, problem="It has no name.")
    if "/" in item.ptz_type and upper.edition < Edition.V3_0:
        yield Finding(id=item.device_id, problem="Several PTZ types are not known before the 2022 edition.")
