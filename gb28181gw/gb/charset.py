"""Bytes to text and back: the only place that decides between GB 2312, GBK, GB 18030 and UTF-8.

The label in an XML declaration is often wrong, so the bytes decide: pure ASCII is done, valid UTF-8 is UTF-8,
all else is GB 18030 (a superset of GB 2312 and GBK) with replacement (XML-01, XML-02). Common Chinese names in
UTF-8 are often valid GB 18030 by accident, never the reverse, so UTF-8 is tried first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from gb28181gw.gb.quirks import Quirk


class Charset(StrEnum):
    """What a peer is written to; the value is the label in the XML declaration."""

    GB2312 = "GB2312"
    GB18030 = "GB18030"
    UTF8 = "UTF-8"

    @classmethod
    def parse(cls, text: str) -> Charset:
        """A person's or peer's spelling: ``gbk``, ``gb2312``, ``utf8`` … Raises `ValueError`."""
        family = _FAMILY.get(_squeeze(text))
        if family is None:
            raise ValueError(f"character set {text!r} is not one of GB2312, GB18030, UTF-8")
        return family

    @property
    def codec(self) -> str:
        """Python codec. GB 2312 is written by GB 18030: the same bytes for its own characters, and rare ones
        in names survive (devices read the label as GBK)."""
        return "utf-8" if self is Charset.UTF8 else "gb18030"


def _squeeze(label: str) -> str:
    return label.strip().lower().replace("-", "").replace("_", "")


_FAMILY = {
    "gb2312": Charset.GB2312,
    "gbk": Charset.GB2312,
    "cp936": Charset.GB2312,
    "gb18030": Charset.GB18030,
    "utf8": Charset.UTF8,
}

_DECLARATION = re.compile(rb"([^<]{0,512}+)<\?xml\b([^>]{0,200})>")
_ENCODING = re.compile(rb"""encoding\s*=\s*["']?\s*([A-Za-z0-9_.\-]{1,40})""", re.IGNORECASE)
_UTF8_BOM = b"\xef\xbb\xbf"
_NON_ASCII = re.compile(rb"[\x80-\xff]+")

_MOSTLY = 0.9
"""Share of the bytes above 0x7f that must stand in whole UTF-8 sequences before damaged text counts as UTF-8.
Text in GBK stays far below: its second bytes rarely are continuation bytes of a well-formed sequence."""
_CHINESE = "\u0800"
"""Below it UTF-8 needs at most two bytes."""
_ENOUGH = 12
"""And at least so many such bytes, so that two GBK characters cannot pass by accident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Text of a body, its XML declaration and byte order mark taken off."""

    text: str
    encoding: str
    """``ascii``, ``utf-8`` or ``gb18030``: what the bytes were."""
    declaration: bool
    """Whether there was an XML declaration."""
    declared: str
    """Label of the declaration as sent; empty without one."""
    quirks: tuple[Quirk, ...] = ()


def decode(body: bytes) -> Decoded:
    """Decode a MANSCDP or SDP body. Never fails: bytes that fit nothing become U+FFFD."""
    quirks: list[Quirk] = []
    if body.startswith(_UTF8_BOM):
        body = body[3:]
        quirks.append(Quirk.XML_BOM)
    declared = ""
    declaration = _DECLARATION.match(body)
    if declaration is not None:
        label = _ENCODING.search(declaration[2])
        if label is not None:
            declared = label[1].decode("ascii")
        if declaration[1]:
            quirks.append(Quirk.XML_LEADING_BYTES)
        body = body[declaration.end() :]
    if body.isascii():
        text, encoding = body.decode("ascii"), "ascii"
    else:
        text, encoding = _decode_bytes(body, declared, quirks)
        if declared and Quirk.CHARSET_UNDECODABLE not in quirks:
            _check_label(body, encoding, declared, quirks)
    return Decoded(
        text=text,
        encoding=encoding,
        declaration=declaration is not None,
        declared=declared,
        quirks=tuple(quirks),
    )


def _decode_bytes(body: bytes, declared: str, quirks: list[Quirk]) -> tuple[str, str]:
    labelled_gb = _FAMILY.get(_squeeze(declared), Charset.UTF8) is not Charset.UTF8
    try:
        text, sound = body.decode("gb18030"), True
    except UnicodeDecodeError:
        text, sound = body.decode("gb18030", "replace"), False
    try:
        read = body.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        # A short GBK name may be UTF-8 by accident, but then of Latin or Greek letters; Chinese takes three bytes each.
        if not (sound and labelled_gb and max(read) < _CHINESE):
            return read, "utf-8"
    if not (sound and labelled_gb) and _is_damaged_utf8(body):
        quirks.append(Quirk.CHARSET_UTF8_DAMAGED)
        return body.decode("utf-8", "replace"), "utf-8"
    if not sound:
        quirks.append(Quirk.CHARSET_UNDECODABLE)
    return text, "gb18030"


def _is_damaged_utf8(body: bytes) -> bool:
    """UTF-8 with a character cut at a length limit (XML-06), which read as GB 18030 would spoil every name."""
    total = sum(map(len, _NON_ASCII.findall(body)))
    kept = body.decode("utf-8", "ignore")
    whole = sum(len(run) for run in _NON_ASCII.findall(kept.encode("utf-8")))
    return whole >= _ENOUGH and whole >= total * _MOSTLY


def _check_label(body: bytes, encoding: str, declared: str, quirks: list[Quirk]) -> None:
    family = _FAMILY.get(_squeeze(declared))
    if (family is Charset.UTF8) != (encoding == "utf-8"):
        quirks.append(Quirk.CHARSET_DECLARATION_LIED)
    elif family is Charset.GB2312:
        try:
            body.decode("gb2312")
        except UnicodeDecodeError:
            quirks.append(Quirk.CHARSET_BEYOND_GB2312)


def encode(text: str, charset: Charset) -> bytes:
    """Text in the peer's character set; a character that has no bytes there becomes ``?``, never nothing."""
    return text.encode(charset.codec, "replace")
