"""Answers that are passed on: what one peer answered, written for another (GB/T 28181-2022 9.5.2, A.2.6).

The strict writer of `schema` refuses what a description does not know. Here values come from a device, so what is
known is written in the order of Annex A, and what is not is kept behind it (A.4), under names that are safe to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.commands import Answer, Command
from gb28181gw.gb.manscdp.schema import Group, Node, Value, Values
from gb28181gw.gb.manscdp.writer import Writer, number

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,63}")
_HEAD: Final = frozenset({"CmdType", "SN", "DeviceID"})


def write_answer(
    command: Command,
    sn: int,
    device_id: str,
    values: Values,
    *,
    charset: Charset,
    edition: Edition,
    items: Sequence[Value] | None = None,
    total: int = 0,
) -> bytes:
    """A Response to `command`. `items`: those of this message, of `total` in all; the list in `values` is left out.

    With no items and a total of 0 there is no list element (Annex M).
    """
    writer = Writer("Response", command.cmd_type, sn, device_id)
    listed = items is not None
    rest = {
        name: value
        for name, value in values.items()
        if name not in _HEAD and not (listed and _is_list(name, command))
    }
    known = {node.name for node in command.response}
    for node in command.response:
        if listed and node.name == "SumNum":
            writer.leaf("SumNum", str(total))
        elif listed and node.name == command.list_name:
            if items:
                with writer.group(command.list_name, len(items)):
                    for item in items:
                        _write(writer, _item_node(node, command), command.item_name, item, edition)
        elif node.name in rest and node.since <= edition:
            _write(writer, node, node.name, rest[node.name], edition)
    for name, value in rest.items():
        if name not in known:
            _write(writer, None, name, value, edition)
    return writer.finish(charset)


def write_result(command: Command, sn: int, device_id: str, *, ok: bool, charset: Charset) -> bytes:
    """A Response that tells only whether it was done; a list that could not be had is told as empty."""
    writer = Writer("Response", command.cmd_type, sn, device_id)
    writer.leaf("Result", "OK" if ok else "ERROR")
    if command.answer is Answer.PARTS:
        writer.leaf("SumNum", "0")
    return writer.finish(charset)


def _is_list(name: str, command: Command) -> bool:
    return name in ("SumNum", command.list_name)


def _item_node(node: Node, command: Command) -> Node | None:
    members = node.members if isinstance(node, Group) else ()
    return next((member for member in members if member.name == command.item_name), None)


def _write(writer: Writer, node: Node | None, name: str, value: Value, edition: Edition) -> None:
    if _NAME.fullmatch(name) is None:
        return
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Mapping):
            members = node.members if isinstance(node, Group) else ()
            counted = (
                sum(len(held) for held in one.values() if isinstance(held, list))
                if isinstance(node, Group) and node.num
                else None
            )
            with writer.group(name, counted):
                _write_members(writer, members, one, edition)
        elif not isinstance(one, list):
            writer.leaf(name, one if isinstance(one, str) else number(one))


def _write_members(writer: Writer, members: Iterable[Node], values: Values, edition: Edition) -> None:
    known = {member.name: member for member in members}
    for name, member in known.items():
        if name in values and member.since <= edition:
            _write(writer, member, name, values[name], edition)
    for name, value in values.items():
        if name not in known:
            _write(writer, None, name, value, edition)
