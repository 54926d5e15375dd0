"""Bytes of a MANSCDP body to a `Document`.

Theory of operation. The bytes are decoded first and libxml2 never sees the declaration (it would believe it:
XML-01, XML-02). Then one strict parse, which is all that a sound body costs. Only when that fails the text goes
through the tolerances one after the other, each named by a `Quirk`:

1. characters that XML 1.0 forbids are removed, bare ``&`` and raw ``<`` become text, and the strict parse is
   tried again;
2. what follows the root is split off as another document or as trailing bytes (XML-18);
3. libxml2's recovering parser; its tree is taken only if it lost and misplaced nothing that can be told;
4. the scan of `recovery`, which reads the head and each item by itself, so that one broken item costs only itself.

Limits (threat S-05) hold on every way: no DTD or entity declaration, 16 levels, 20,000 elements or one for each 16
characters, the size given by the caller. All patterns are linear in the text.
"""

from __future__ import annotations

import math
import re

from lxml import etree

from gb28181gw.gb.charset import Decoded, decode
from gb28181gw.gb.exceptions import XmlParseError
from gb28181gw.gb.manscdp import recovery
from gb28181gw.gb.manscdp.document import FORBIDDEN, Document, Element, new_parser
from gb28181gw.gb.manscdp.keepalive import sniff_keepalive
from gb28181gw.gb.manscdp.names import CANONICAL_CMD, KNOWN, ROOTS, local_name
from gb28181gw.gb.quirks import Quirk

__all__ = ["MAX_DEPTH", "MAX_DOCUMENTS", "MAX_ELEMENTS", "Document", "parse", "sniff_keepalive"]

MAX_DEPTH = 16
"""Levels of elements; the deepest message of the standard has seven."""
MAX_ELEMENTS = 20_000
"""In any body. A longer one may have one for each `BYTES_AN_ELEMENT` characters: Annex M allows 10,000 records in a
message, which is some four megabytes of full catalogue items, and a real element is longer than that."""
BYTES_AN_ELEMENT = 16
MAX_REFERENCES = 20_000
"""``&`` in a body that is not well-formed."""
MAX_ATTRIBUTES = 64
"""Of the root element, when the head is looked for there."""
MAX_DOCUMENTS = 8
"""Documents taken from one body; what follows counts as trailing bytes."""

_STRICT = new_parser()
_RECOVER = new_parser(recover=True)

_DTD = re.compile(r"<!\s*(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)(?:#(?:(\d{1,7})|[xX]([0-9a-fA-F]{1,6}));)?")
_RAW_LESS_THAN = re.compile(r"<(?![A-Za-z_/!?])|<(?=[^<>]*(?:<|\Z))(?!!--|!\[CDATA\[)")
_DECLARATION = re.compile(r"<\?xml\b[^<>]{0,200}>", re.IGNORECASE)
_LONG_TAG = re.compile(r"<[^<>]{16384}")
_ROOT_OPEN = re.compile(r"<(?:\w{1,16}:)?(Control|Query|Notify|Response)\b", re.IGNORECASE)
_TOO_DEEP = etree.XPath("boolean(" + "/*" * (MAX_DEPTH + 1) + ")")
_COUNT = etree.XPath("count(//*)")


def parse(body: bytes, *, max_bytes: int = 1_048_576) -> Document:
    """Read a body as leniently as is safe.

    `max_bytes` is the caller's limit (64 KB from UDP, 8 MB from TCP). Raises `XmlParseError` with reason ``empty``,
    ``too_large``, ``dtd``, ``too_deep``, ``too_many_elements``, ``not_xml`` or ``root``; no other exception.
    """
    if len(body) > max_bytes:
        raise XmlParseError("too_large", f"{len(body)} bytes, {max_bytes} allowed")
    decoded = decode(body)
    quirks = list(decoded.quirks)
    if not decoded.declaration:
        quirks.append(Quirk.XML_NO_DECLARATION)
    text = _trim(decoded.text, quirks)
    _refuse(text)
    try:
        element = etree.fromstring(text, _STRICT)
    except (etree.XMLSyntaxError, ValueError):
        return _parse_broken(text, decoded, quirks)
    _check_limits(element, text)
    return _document(element, decoded, quirks, recovered=False)


def _trim(text: str, quirks: list[Quirk]) -> str:
    start = text.find("<")
    if start < 0:
        raise XmlParseError("empty" if not text.strip("\0\r\n\t ") else "not_xml", "no element in the body")
    if start > 0:
        if text[:start].strip():
            quirks.append(Quirk.XML_LEADING_BYTES)
        text = text[start:]
    if text[-1] == "\0":
        quirks.append(Quirk.XML_NUL_PADDING)
        text = text.rstrip("\0\r\n\t ")
    return text


def _refuse(text: str) -> None:
    """Raise for what must not reach a parser. Run again after each change of the text."""
    if "<!" in text and _DTD.search(text) is not None:
        raise XmlParseError("dtd", "document type and entity declarations are refused")
    if text.count("<") > 2 * max_elements(text):
        raise XmlParseError("too_many_elements", f"more than {max_elements(text)} elements")


def max_elements(text: str) -> int:
    """Elements that a body of this length may have (S-05)."""
    return max(MAX_ELEMENTS, len(text) // BYTES_AN_ELEMENT)


def _check_limits(element: Element, text: str) -> None:
    if _TOO_DEEP(element):
        raise XmlParseError("too_deep", f"more than {MAX_DEPTH} levels")
    allowed = max_elements(text)
    if text.count("<") > allowed and _count(element) > allowed:
        raise XmlParseError("too_many_elements", f"more than {allowed} elements")


def _count(element: Element) -> float:
    count = _COUNT(element)
    return count if isinstance(count, float) else math.inf


def _document(element: Element, decoded: Decoded, quirks: list[Quirk], *, recovered: bool) -> Document:
    fields = _fields(element)
    if element.tag not in ROOTS or "CmdType" not in fields or not fields.keys() <= KNOWN:
        fields = _rename(element, quirks)
        if element.tag not in ROOTS:
            raise XmlParseError("root", f"root element {str(element.tag)[:40]!r}")
    head = {name: _head_text(element, fields, name, quirks) for name in ("CmdType", "SN", "DeviceID")}
    cmd_type = head["CmdType"]
    sn_text = head["SN"]
    sn = int(sn_text) if sn_text.isascii() and sn_text.isdigit() and len(sn_text) <= 18 else None
    if sn is None:
        quirks.append(Quirk.XML_SN_UNREADABLE)
    return Document(
        root=str(element.tag),
        cmd_type=CANONICAL_CMD.get(cmd_type.lower(), cmd_type[:64]),
        sn=sn,
        device_id=head["DeviceID"][:64],
        element=element,
        fields=fields,
        declared=decoded.declared,
        recovered=recovered,
        quirks=tuple(dict.fromkeys(quirks)),
    )


def _fields(element: Element) -> dict[str, Element]:
    fields: dict[str, Element] = {}
    for child in element:
        fields.setdefault(str(child.tag), child)
    return fields


def _rename(element: Element, quirks: list[Quirk]) -> dict[str, Element]:
    """Give every element the standard's name: other case, namespaces and prefixes taken away (XML-10)."""
    changed = False
    for node in element.iter():
        tag = str(node.tag)
        name = local_name(tag)
        if name != tag:
            node.tag = name
            changed = True
    if changed:
        quirks.append(Quirk.XML_NAME_FORM)
    return _fields(element)


def _head_text(element: Element, fields: dict[str, Element], name: str, quirks: list[Quirk]) -> str:
    child = fields.get(name)
    if child is not None:
        return (child.text or "").strip()
    if len(element.attrib) > MAX_ATTRIBUTES:
        return ""  # lxml reads n attributes in the time of n²
    for key, value in element.attrib.items():
        if local_name(str(key)) == name:
            quirks.append(Quirk.XML_HEAD_IN_ATTRIBUTES)
            return str(value).strip()
    return ""


def _parse_broken(text: str, decoded: Decoded, quirks: list[Quirk]) -> Document:
    text = _repair(text, quirks)
    documents: list[Document] = []
    rest = text
    while rest and len(documents) < MAX_DOCUMENTS:
        try:
            element = etree.fromstring(rest, _STRICT)
        except (etree.XMLSyntaxError, ValueError):
            first, rest = _split(rest)
        else:
            first, rest = rest, ""
            _check_limits(element, first)
            documents.append(_document(element, decoded, quirks, recovered=False))
            break
        if rest and _ROOT_OPEN.search(rest) is None:
            quirks.append(Quirk.XML_TRAILING_BYTES)
            rest = ""
        elif rest:
            quirks.append(Quirk.XML_SECOND_DOCUMENT)
        try:
            documents.append(_parse_one(first, decoded, quirks))
        except XmlParseError:
            if not documents:
                raise
            quirks.append(Quirk.XML_TRAILING_BYTES)
            break
    return _join(documents, quirks)


def _join(documents: list[Document], quirks: list[Quirk]) -> Document:
    head = documents[0]
    return Document(
        root=head.root,
        cmd_type=head.cmd_type,
        sn=head.sn,
        device_id=head.device_id,
        element=head.element,
        fields=head.fields,
        declared=head.declared,
        recovered=head.recovered,
        quirks=tuple(dict.fromkeys(quirks)),
        following=tuple(documents[1:]),
    )


def _repair(text: str, quirks: list[Quirk]) -> str:
    clean = FORBIDDEN.sub("", text)
    if clean != text:
        quirks.append(Quirk.XML_CONTROL_CHAR)
        _refuse(clean)
    clean = _DECLARATION.sub("", clean)
    if clean.count("&") > MAX_REFERENCES:
        raise XmlParseError("too_many_elements", f"more than {MAX_REFERENCES} references")
    amended = _AMPERSAND.sub(_ampersand, clean)
    if amended != clean:
        quirks.append(Quirk.XML_BARE_AMPERSAND)
    angles = _RAW_LESS_THAN.sub("&lt;", amended)
    if angles != amended:
        quirks.append(Quirk.XML_RAW_LESS_THAN)
    _refuse(angles)
    if _LONG_TAG.search(angles) is not None:
        raise XmlParseError("not_xml", "a tag of more than 16 KB")
    return angles


def _ampersand(match: re.Match[str]) -> str:
    """Keep a numeric reference to an allowed character, drop one to a forbidden character, escape the rest."""
    decimal, hexadecimal = match.groups()
    if decimal is None and hexadecimal is None:
        return "&amp;" + match[0][1:]
    number = int(decimal) if decimal is not None else int(hexadecimal, 16)
    if number > 0x10FFFF or FORBIDDEN.match(chr(number)):
        return ""
    return match[0]


def _split(text: str) -> tuple[str, str]:
    """The first document and what stands behind its closing tag."""
    opened = _ROOT_OPEN.search(text)
    if opened is None:
        return text, ""
    closing = re.compile(rf"</(?:\w{{1,16}}:)?{opened[1]}\s*>", re.IGNORECASE).search(text, opened.end())
    if closing is None:
        return text, ""
    return text[: closing.end()], text[closing.end() :].lstrip()


def _parse_one(text: str, decoded: Decoded, quirks: list[Quirk]) -> Document:
    try:
        element = etree.fromstring(text, _STRICT)
    except (etree.XMLSyntaxError, ValueError):
        pass
    else:
        _check_limits(element, text)
        return _document(element, decoded, quirks, recovered=False)
    recovered = _recover(text, quirks)
    if recovered is not None:
        quirks.append(Quirk.XML_RECOVERED)
        return _document(recovered, decoded, quirks, recovered=True)
    scanned = recovery.scan(text)
    if scanned is None:
        raise XmlParseError("not_xml", "no root element can be found")
    quirks.append(Quirk.XML_ITEMS_SCANNED)
    return _document(scanned, decoded, quirks, recovered=True)


def _recover(text: str, quirks: list[Quirk]) -> Element | None:
    """libxml2's own recovery, or None when it lost something that the scan can still find."""
    try:
        # the stub does not say so, but a recovering parser may return None
        element: Element | None = etree.fromstring(text, _RECOVER)
    except (etree.XMLSyntaxError, ValueError):
        return None
    if element is None or (_TOO_DEEP(element) and recovery.has_items(text)):
        return None  # unclosed fields nest without end; the scan reads them side by side
    _check_limits(element, text)
    if local_name(str(element.tag)) not in ROOTS:
        return None
    _rename(element, quirks)
    return element if recovery.is_whole(element, text) else None
