"""Elements as data: one description serves the strict writer, the lenient reader and the typed API.

A message is a tuple of `Node` in the order of Annex A. `write_values` refuses what a description does not allow;
`read_values` takes what a device sent: names in any order, unknown elements kept as they are (Annex A.4), a number
that is none as its text, an empty element as absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timezone
from enum import StrEnum
from typing import Final

from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import EditionError, GbLocalError, GbParseError
from gb28181gw.gb.manscdp.document import Element, parse_float, parse_int
from gb28181gw.gb.manscdp.writer import Writer, number
from gb28181gw.gb.ptz import Code
from gb28181gw.gb.times import format_time, parse_time

Value = str | int | float | list["Value"] | dict[str, "Value"]
"""As in JSON; a group is a dict, an element that may be repeated a list."""
Values = Mapping[str, Value]

MAX_INT: Final = 2**31 - 1


class Kind(StrEnum):
    """What a leaf holds."""

    TEXT = "text"
    INT = "int"
    NUMBER = "number"
    TIME = "time"
    """Written as local time of the device without zone; given in any form of `times.parse_time`."""
    ID = "id"
    """2 to 20 digits."""
    PTZ = "ptz"
    """A code of `gb.ptz`."""
    METHODS = "methods"
    """Alarm methods: ``1/2`` since 2022, ``12`` before; given in either form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """An element with text."""

    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    many: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    max_length: int = 255
    pattern: str = ""
    since: Edition = Edition.V1_0
    until: Edition = Edition.V3_0
    older: str = ""
    """Its name in the editions up to `older_until`."""
    older_until: Edition = Edition.V2_0
    count_of: str = ""
    """It counts these: siblings of that name, or ``Group.Item``; worked out when it is not given."""
    answer_only: bool = False
    free: bool = False
    """It may hold elements of the vendor's instead of text (Annex A.4)."""
    meaning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An element with children."""

    name: str
    members: tuple[Node, ...]
    required: bool = False
    many: bool = False
    most: int = 10_000
    """With `many`: so many at most."""
    num: bool = False
    """It has the attribute `Num`: how many repeated children it has."""
    since: Edition = Edition.V1_0
    until: Edition = Edition.V3_0
    aliases: tuple[str, ...] = ()
    """Other names that devices send it under."""
    answer_only: bool = False
    meaning: str = ""


Node = Leaf | Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """For whom is written."""

    edition: Edition
    zone: timezone
    forced: bool = False
    """Write what the edition does not know, too."""


# -- writing -------------------------------------------------------------------------------------------------------


def write_values(
    writer: Writer, nodes: Iterable[Node], values: Values, style: Style, where: str = ""
) -> None:
    """The elements of `nodes` that `values` has, in the order of `nodes`.

    Raises `GbLocalError` naming the first field that is missing, unknown or out of range, and `EditionError` for
    one that the device's edition does not know.
    """
    nodes = tuple(nodes)
    known = {node.name for node in nodes if not node.answer_only}
    for name in values:
        if name not in known:
            raise GbLocalError(f"{where}{name}: there is no such field here")
    for node in nodes:
        if node.answer_only:
            continue
        value = values.get(node.name)
        if value is None and isinstance(node, Leaf) and node.count_of:
            value = _count(values, node.count_of)
        if value is None or value == "":
            if node.required and style.edition >= node.since:
                raise GbLocalError(f"{where}{node.name}: is missing")
            continue
        if not node.since <= style.edition <= node.until and not style.forced:
            gone = style.edition > node.until
            raise EditionError(f"{where}{node.name}", node.until if gone else node.since, gone=gone)
        for one in _repeated(node, value, where):
            if isinstance(node, Leaf):
                name = node.older if node.older and style.edition <= node.older_until else node.name
                writer.leaf(name, leaf_text(node, one, style, where))
            else:
                _write_group(writer, node, one, style, where)


def _write_group(writer: Writer, node: Group, value: Value, style: Style, where: str) -> None:
    if not isinstance(value, Mapping):
        raise GbLocalError(f"{where}{node.name}: has members, not a value of its own")
    counted = None
    if node.num:
        counted = sum(len(held) for name, held in value.items() if isinstance(held, list))
    with writer.group(node.name, counted):
        write_values(writer, node.members, value, style, f"{where}{node.name}.")


def _repeated(node: Node, value: Value, where: str) -> list[Value]:
    if not node.many:
        if isinstance(value, list):
            raise GbLocalError(f"{where}{node.name}: is there once, not a list")
        return [value]
    found: list[Value] = value if isinstance(value, list) else [value]
    most = node.most if isinstance(node, Group) else 16
    if len(found) > most:
        raise GbLocalError(f"{where}{node.name}: at most {most}")
    return found


def _count(values: Values, path: str) -> int:
    first, _, rest = path.partition(".")
    held = values.get(first)
    if rest:
        return _count(held, rest) if isinstance(held, Mapping) else 0
    return len(held) if isinstance(held, list) else int(held is not None)


def leaf_text(node: Leaf, value: Value, style: Style, where: str = "") -> str:
    """The text of a leaf, checked. Raises `GbLocalError`."""
    name = f"{where}{node.name}"
    match node.kind:
        case Kind.INT | Kind.NUMBER:
            return _number_text(node, value, name)
        case Kind.TIME:
            moment = parse_time(str(value), style.zone)
            if moment is None:
                raise GbLocalError(f"{name}: {str(value)[:40]!r} is not a time such as 2024-05-01T08:30:00")
            return format_time(moment.timestamp(), style.zone)
        case Kind.PTZ:
            try:
                Code.parse(str(value))
            except GbParseError as error:
                raise GbLocalError(f"{name}: {error.detail}") from None
            return str(value).strip().upper()
        case Kind.METHODS:
            if not isinstance(value, str | int) or re.fullmatch(r"[0-7](/?[0-7])*", str(value)) is None:
                raise GbLocalError(f"{name}: methods are 0 to 7, as in 1/2")
            digits = str(value).replace("/", "")
            return ("/" if style.edition >= Edition.V3_0 else "").join(digits)
    return _plain_text(node, value, name)


def _plain_text(node: Leaf, value: Value, name: str) -> str:
    if isinstance(value, list | dict):
        raise GbLocalError(f"{name}: is text")
    text = value if isinstance(value, str) else number(value)
    if node.kind is Kind.ID and re.fullmatch(r"\d{2,20}", text, re.ASCII) is None:
        raise GbLocalError(f"{name}: an id has 2 to 20 digits")
    if node.choices and text not in node.choices:
        raise GbLocalError(f"{name}: one of {', '.join(node.choices)}, not {text[:40]!r}")
    if len(text) > node.max_length:
        raise GbLocalError(f"{name}: at most {node.max_length} characters")
    if node.pattern and re.fullmatch(node.pattern, text, re.ASCII) is None:
        raise GbLocalError(f"{name}: {text[:40]!r} is not of the form {node.pattern}")
    return text


def _number_text(node: Leaf, value: Value, name: str) -> str:
    found: float | None
    if isinstance(value, bool | list | dict) or (isinstance(value, float) and not math.isfinite(value)):
        found = None
    elif isinstance(value, str):
        found = parse_int(value) if node.kind is Kind.INT else parse_float(value)
    elif node.kind is Kind.INT and value != int(value):
        found = None
    else:
        found = value
    if found is None:
        raise GbLocalError(f"{name}: is a {'whole ' if node.kind is Kind.INT else ''}number")
    if (node.low is not None and found < node.low) or (node.high is not None and found > node.high):
        allowed = f"{'' if node.low is None else number(node.low)}..{'' if node.high is None else number(node.high)}"
        raise GbLocalError(f"{name}: {number(found)} is not within {allowed}")
    return number(int(found) if node.kind is Kind.INT else found)


# -- reading -------------------------------------------------------------------------------------------------------


def read_values(element: Element, nodes: Iterable[Node] = ()) -> dict[str, Value]:
    """What is in an element: known children typed, unknown ones as text or group; of repeated ones that should
    not be the first."""
    by_name: dict[str, Node] = {}
    for node in nodes:
        by_name[node.name] = node
        if isinstance(node, Group):
            by_name.update(dict.fromkeys(node.aliases, node))
    found: dict[str, Value] = {}
    for child in element:
        tag = str(child.tag)
        known = by_name.get(tag)
        name = known.name if known is not None else tag
        value = _read_one(child, known)
        if value is None:
            continue
        if known is not None and known.many:
            held = found.setdefault(name, [])
            if isinstance(held, list):
                held.append(value)
        elif name not in found:
            found[name] = value
        elif known is None:
            held = found[name]
            found[name] = [*held, value] if isinstance(held, list) else [held, value]
    return found


def _read_one(element: Element, node: Node | None) -> Value | None:
    if isinstance(node, Group):
        return read_values(element, node.members)
    if len(element) and (node is None or node.free):
        return read_values(element)
    # Elements inside of what is text by the standard: their text is all that can be meant.
    text = ("".join(map(str, element.itertext())) if len(element) else element.text or "").strip()
    if not text:
        return None
    if isinstance(node, Leaf):
        parsed: float | None = None
        if node.kind is Kind.INT:
            parsed = parse_int(text)
        elif node.kind is Kind.NUMBER:
            parsed = parse_float(text)
        if parsed is not None:
            return parsed
    return text


def differences(written: Values, read: Values, where: str = "") -> list[Difference]:
    """Leaves of `written` that `read` has otherwise or not at all. Numbers are compared as numbers."""
    found: list[Difference] = []
    for name, value in written.items():
        here = f"{where}{name}"
        other = read.get(name)
        if isinstance(value, Mapping):
            found += differences(value, other if isinstance(other, Mapping) else {}, f"{here}.")
        elif isinstance(value, list):
            others = other if isinstance(other, list) else [other]
            for at, one in enumerate(value):
                peer = others[at] if at < len(others) else None
                found += differences({f"[{at}]": one}, {} if peer is None else {f"[{at}]": peer}, here)
        elif not _same(value, other):
            found.append(Difference(here, value, other if isinstance(other, str | int | float) else None))
    return found


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that was written and reads otherwise."""

    field: str
    written: str | int | float
    read: str | int | float | None
    """None: it is not told."""


def _same(one: str | int | float, other: object) -> bool:
    if isinstance(other, list | dict) or other is None:
        return False
    first, second = parse_float(str(one)), parse_float(str(other))
    if first is not None and second is not None:
        return abs(first - second) < 1e-6 * max(1.0, abs(first))
    return str(one).strip() == str(other).strip()


# -- short forms for the tables ------------------------------------------------------------------------------------


def text(name: str, max_length: int = 255, **more: object) -> Leaf:
    return Leaf(name=name, max_length=max_length, **more)  # type: ignore[arg-type]  # fields of Leaf


def whole(name: str, low: int | None = 0, high: int | None = MAX_INT, **more: object) -> Leaf:
    return Leaf(name=name, kind=Kind.INT, low=low, high=high, **more)  # type: ignore[arg-type]  # fields of Leaf


def real(name: str, low: float | None = None, high: float | None = None, **more: object) -> Leaf:
    return Leaf(name=name, kind=Kind.NUMBER, low=low, high=high, **more)  # type: ignore[arg-type]  # of Leaf


def choice(name: str, choices: str, **more: object) -> Leaf:
    return Leaf(name=name, choices=tuple(choices.split()), **more)  # type: ignore[arg-type]  # fields of Leaf


def moment(name: str, **more: object) -> Leaf:
    return Leaf(name=name, kind=Kind.TIME, **more)  # type: ignore[arg-type]  # fields of Leaf


def identity(name: str, **more: object) -> Leaf:
    return Leaf(name=name, kind=Kind.ID, **more)  # type: ignore[arg-type]  # fields of Leaf


def group(name: str, *members: Node, **more: object) -> Group:
    return Group(name=name, members=members, **more)  # type: ignore[arg-type]  # fields of Group
