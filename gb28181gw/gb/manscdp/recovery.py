"""Reading broken markup: what is lost when a tag is damaged, and how to find it again (XML-06, 08, 16).

The scan does not build a tree from nesting, which is what broke. It cuts the text at the borders of items, tries each
piece by itself, and reads a damaged piece field by field: a field ends at the next tag whose name is known.
"""

from __future__ import annotations

import html
import re

from lxml import etree

from gb28181gw.gb.manscdp.document import FORBIDDEN, Element, new_parser
from gb28181gw.gb.manscdp.names import CANONICAL, GROUPS, ITEM_LISTS, LEAVES, ROOTS, local_name

MAX_ITEMS = 10_000
"""Records of one message (Annex M)."""

_PARSER = new_parser()
_ITEM_OPEN = re.compile(r"<(?:\w{1,16}:)?Item\b", re.IGNORECASE)
_ITEM_BORDER = re.compile(r"<(/?)(?:\w{1,16}:)?Item\b[^<>]{0,256}>?", re.IGNORECASE)
_LIST_OPEN = re.compile(
    r"<(?:\w{1,16}:)?(" + "|".join(sorted(ITEM_LISTS)) + r")\b([^<>]{0,256})>?", re.IGNORECASE
)
_LIST_CLOSE = re.compile(r"</(?:\w{1,16}:)?(" + "|".join(sorted(ITEM_LISTS)) + r")\b", re.IGNORECASE)
_BROKEN_END = re.compile(r"(?:<|&lt;)/[\w:]{0,80}>?\Z|/(?P<name>\w{1,64})>\Z")
_NUM = re.compile(r"""num\s*=\s*["']?\s*(\d{1,6})""", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r"<(/?)(?:\w{1,16}:)?([A-Za-z_][\w.\-]{0,63})\b[^<>]{0,256}?(/?)>")
_ROOT = re.compile(r"</?(?:\w{1,16}:)?(" + "|".join(sorted(ROOTS)) + r")\b[^<>]{0,256}>?", re.IGNORECASE)


def has_items(text: str) -> bool:
    """Whether the text has the list that the scan is made for."""
    return _ITEM_OPEN.search(text) is not None


def is_whole(element: Element, text: str) -> bool:
    """Whether a recovered tree has every item of the text, each in its list, and no field inside a field.

    Names are already the standard's.
    """
    items = 0
    for node in element.iter():
        tag = node.tag
        if tag == "Item":
            items += 1
            parent = node.getparent()
            if parent is None or parent.tag == "Item" or parent.tag not in GROUPS:
                return False
        elif tag in LEAVES:
            if len(node):
                return False
        elif tag in ITEM_LISTS and any(child.tag != "Item" for child in node):
            return False
    return items == len(_ITEM_OPEN.findall(text))


def scan(text: str) -> Element | None:
    """Rebuild a document from what can be told apart in the text; None when not even a root name is there."""
    root_tag = _ROOT.search(text)
    if root_tag is None:
        return None
    root = etree.Element(local_name(root_tag[1]))
    start = root_tag.end() if not root_tag[0].startswith("</") else 0
    members = _LIST_OPEN.search(text, start)
    border = _ITEM_BORDER.search(text, start)
    ends = [match.start() for match in (members, border) if match is not None]
    for name, value in _fields(text[start : min(ends, default=len(text))]):
        _append(root, name, value)
    if not ends:
        return root
    closing = members if members is not None else _LIST_CLOSE.search(text, ends[0])
    container = etree.SubElement(root, local_name(closing[1]) if closing is not None else "DeviceList")
    if members is not None:
        number = _NUM.search(members[2])
        if number is not None:
            container.set("Num", number[1])
        start = members.end()
    else:
        start = ends[0]
    container.extend(_items(text[start:]))
    return root


def _items(text: str) -> list[Element]:
    items: list[Element] = []
    position, inside = 0, False
    for border in _ITEM_BORDER.finditer(text):
        _read_piece(items, text[position : border.start()], inside=inside)
        position, inside = border.end(), not border[1]
        if len(items) >= MAX_ITEMS:
            return items
    _read_piece(items, text[position:], inside=inside)
    return items


def _read_piece(items: list[Element], piece: str, *, inside: bool) -> None:
    """Add the item or items of the text between two borders.

    Outside an item only text with a `DeviceID` counts: its own opening tag was damaged.
    """
    if "<" not in piece or not (inside or "DeviceID" in piece):
        return
    try:
        item = etree.fromstring(f"<Item>{piece}</Item>", _PARSER)
    except (etree.XMLSyntaxError, ValueError):
        pass
    else:
        names = [local_name(str(child.tag)) for child in item]
        if names.count("DeviceID") <= 1 and "Item" not in names:
            for child, name in zip(item, names, strict=True):
                child.tag = name
            items.append(item)
            return
    current: Element | None = None
    for name, value in _fields(piece):
        if current is None or (name == "DeviceID" and current.find("DeviceID") is not None):
            if len(items) >= MAX_ITEMS:
                return
            current = etree.Element("Item")
            items.append(current)
        _append(current, name, value)


def _append(parent: Element, name: str, value: str) -> None:
    value = value.strip()
    damaged = _BROKEN_END.search(value, max(0, len(value) - 100))
    if damaged is not None and damaged["name"] in {None, name}:
        value = value[: damaged.start()]
    etree.SubElement(parent, name).text = FORBIDDEN.sub("", html.unescape(value))


def _fields(text: str) -> list[tuple[str, str]]:
    """Name and text of each field in reading order; groups are dissolved (readers take fields at any level).

    A known name always is markup; an unknown one only outside a known field. A last field without any end is left
    out: it may be cut, and half an id would be another id.
    """
    found: list[tuple[str, str]] = []
    name, start = "", 0
    for tag in _TAG.finditer(text):
        closing, spelled, empty = tag.groups()
        known = CANONICAL.get(spelled.lower())
        if known is None and (name in LEAVES or (closing and name != spelled)):
            continue  # part of the text of a field, or the end of something unknown
        if name:
            found.append((name, text[start : tag.start()]))
        name = ""
        if not closing and not empty and known not in GROUPS and known not in ROOTS:
            name, start = known or spelled, tag.end()
    return found
