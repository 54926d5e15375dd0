"""The catalogue of one device as a tree (GB/T 28181-2022 Annex J; rows CAT-07, CAT-12).

Items come in any order, name parents that are not there, several parents, the server, themselves, or go round in a
circle. So the tree is built when all items are in, from what resolves:

- a region hangs below the longest region code that its own begins with;
- a virtual organisation below its parent organisation, else below its business group;
- everything else below the last of its parents that is in the catalogue, an organisation or group before others;
  else below the region of its civil code; else below the device.
"""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.devices.models import Channel, Device
from gb28181gw.gb.ids import NodeKind

_REGION = NodeKind.REGION.value
_GROUP = NodeKind.GROUP.value
_ORGANISATION = NodeKind.ORGANISATION.value


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """One node of a device's catalogue with its place."""

    channel: Channel
    parent_id: str
    """The node it hangs below, or the device's id."""


def build_tree(device: Device) -> list[TreeNode]:
    """Every node that is there, parents before their children, without loops."""
    nodes = {channel.id: channel for channel in device.channels.values() if not channel.gone}
    nodes.pop(device.id, None) if len(nodes) > 1 else None
    parents = {node_id: _parent(channel, nodes, device.id) for node_id, channel in nodes.items()}
    _break_cycles(parents, device.id)
    children: dict[str, list[str]] = {}
    for node_id in sorted(nodes):
        children.setdefault(parents[node_id], []).append(node_id)
    found: list[TreeNode] = []
    waiting = list(reversed(children.get(device.id, [])))
    while waiting:
        node_id = waiting.pop()
        found.append(TreeNode(channel=nodes[node_id], parent_id=parents[node_id]))
        if node_id != device.id:
            waiting.extend(reversed(children.get(node_id, ())))
    return found


def _parent(channel: Channel, nodes: dict[str, Channel], root: str) -> str:
    if channel.kind == _REGION:
        return _region(channel.id[:-1], nodes) or root
    known = [parent for parent in channel.parent_ids if parent in nodes and parent != channel.id]
    if channel.kind == _ORGANISATION:
        organisations = [parent for parent in known if nodes[parent].kind == _ORGANISATION]
        if organisations:
            return organisations[-1]
        if channel.group_id in nodes and channel.group_id != channel.id:
            return channel.group_id
    if known:
        ordering = [parent for parent in known if nodes[parent].kind in (_GROUP, _ORGANISATION)]
        return (ordering or known)[-1]
    if channel.kind == _ORGANISATION:
        return root
    return _region(channel.civil_code, nodes) or root


def _region(code: str, nodes: dict[str, Channel]) -> str:
    """The longest region of the catalogue that `code` lies in; empty: none."""
    for length in (8, 6, 4, 2):
        if len(code) >= length and code[:length] in nodes:
            return code[:length]
    return ""


def _break_cycles(parents: dict[str, str], root: str) -> None:
    """Hang one node of each circle below the device."""
    safe: set[str] = {root}
    for start in sorted(parents):
        way: list[str] = []
        on_way: set[str] = set()
        node = start
        while node not in safe and node in parents:
            if node in on_way:
                parents[node] = root
                break
            way.append(node)
            on_way.add(node)
            node = parents[node]
        safe.update(way)
