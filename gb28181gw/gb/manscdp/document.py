"""A parsed MANSCDP body: the head that every message has, and the tree for the reader of the message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from gb28181gw.gb.manscdp.names import ITEM_LISTS
from gb28181gw.gb.quirks import Quirk

Element = etree._Element

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
"""Characters that XML 1.0 does not allow (its production 2)."""


def new_parser(*, recover: bool = False) -> etree.XMLParser:
    """A parser that resolves, loads and fetches nothing (threat S-05)."""
    return etree.XMLParser(
        recover=recover,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a body, its names in the standard's spelling.

    The head is read leniently; `sn` is None when it is missing or no number (XML-11), the matcher of answers
    decides then. `quirks` are the tolerances that reading it took.
    """

    root: str
    """``Control``, ``Query``, ``Notify`` or ``Response``."""
    cmd_type: str
    """In the standard's case where known; as sent otherwise; empty when absent."""
    sn: int | None
    device_id: str
    """Empty when absent (`Broadcast`, flat `MobilePosition`)."""
    element: Element = field(repr=False, compare=False)
    fields: dict[str, Element] = field(repr=False, compare=False)
    """Children of the root by name; of repeated ones the first. Read only."""
    declared: str = ""
    """Character set label of the declaration, a hint to the edition."""
    recovered: bool = False
    """Parts of the markup were broken: fields may be lost or cut, items are not."""
    quirks: tuple[Quirk, ...] = ()
    following: tuple[Document, ...] = ()
    """Further documents in the same body (XML-18)."""

    kept: dict[str, object] = field(default_factory=dict, repr=False, compare=False)
    """What a reader made of it, by the reader's own key."""

    def text(self, name: str) -> str:
        """Trimmed text of a child of the root; empty when it is absent or empty."""
        child = self.fields.get(name)
        return "" if child is None else (child.text or "").strip()

    def items(self, list_name: str = "") -> Iterator[Element]:
        """Members of the list of this name, or of whichever list there is."""
        for name in (list_name,) if list_name else ITEM_LISTS:
            members = self.fields.get(name)
            if members is not None:
                yield from members

    def num(self, list_name: str) -> int | None:
        """`Num` of a list (`num` in the 2016 schema); None when absent or no number."""
        members = self.fields.get(list_name)
        if members is None:
            return None
        return parse_int(members.get("Num") or members.get("num") or "")


def parse_int(text: str) -> int | None:
    """A decimal number with optional sign and blanks, at most 18 digits; None for anything else."""
    text = text.strip()
    digits = text[1:] if text[:1] in {"-", "+"} else text
    if len(digits) > 18 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(text)


def parse_float(text: str) -> float | None:
    """A finite decimal number; None for anything else."""
    text = text.strip()
    if not text or len(text) > 32 or "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -1e15 < value < 1e15 else None


def result_ok(text: str) -> bool:
    """Whether a `Result` means success: OK in any case, or absent (XML-13)."""
    return text.strip().upper() in {"", "OK"}
