"""Device, channel and region codes (GB/T 28181-2022 6.1, Annex E).

An id from a peer is an opaque string first: what a node *is* is told by the catalogue and by what it does, and
the type digits are a hint only (REG-14).
"""

from __future__ import annotations

import re
from enum import StrEnum

_REGION_LENGTHS = frozenset({2, 4, 6, 8})
_LENIENT = re.compile(r"[0-9A-Za-z_.\-]{1,64}")


class NodeKind(StrEnum):
    """What the type digits of a code say (table E.1), as far as a gateway treats nodes differently (CAT-16)."""

    REGION = "region"
    SYSTEM = "system"
    GROUP = "group"
    ORGANISATION = "organisation"
    CAMERA = "camera"
    DEVICE = "device"
    ALARM = "alarm"
    AUDIO_IN = "audio_in"
    AUDIO_OUT = "audio_out"
    MOBILE = "mobile"
    OTHER = "other"


_KIND_BY_TYPE = {
    131: NodeKind.CAMERA,
    132: NodeKind.CAMERA,
    134: NodeKind.ALARM,
    135: NodeKind.ALARM,
    136: NodeKind.AUDIO_IN,
    137: NodeKind.AUDIO_OUT,
    138: NodeKind.MOBILE,
    140: NodeKind.ALARM,
    200: NodeKind.SYSTEM,
    215: NodeKind.GROUP,
    216: NodeKind.ORGANISATION,
}
_FIRST_MAIN_DEVICE, _LAST_MAIN_DEVICE = 111, 130


def is_gb_id(text: str) -> bool:
    """Whether it is a code of 20 ASCII digits (6.1.1)."""
    return len(text) == 20 and text.isascii() and text.isdigit()


def is_region_code(text: str) -> bool:
    """Whether it is an administrative division code of 2, 4, 6 or 8 digits (A.2.1.2)."""
    return len(text) in _REGION_LENGTHS and text.isascii() and text.isdigit()


def valid_lenient_id(text: str) -> bool:
    """Whether an id outside the standard's form may still be used as a key (REG-13).

    1 to 64 ASCII letters, digits, ``_``, ``-``, ``.``: nothing that could break a header, a path or a log.
    """
    return _LENIENT.fullmatch(text) is not None


def clean_id(text: str) -> str:
    """The id without blanks around it and without URI parameters after it (REG-13: ``3402…;user=phone``)."""
    return text.partition(";")[0].strip()


def type_code(text: str) -> int | None:
    """Digits 11 to 13 of a 20-digit code; None for any other form."""
    return int(text[10:13]) if is_gb_id(text) else None


def node_kind(text: str) -> NodeKind:
    """What the code says the node is. A hint: never refuse an INVITE because of it (REG-14)."""
    if is_region_code(text):
        return NodeKind.REGION
    code = type_code(text)
    if code is None:
        return NodeKind.OTHER
    kind = _KIND_BY_TYPE.get(code)
    if kind is not None:
        return kind
    return NodeKind.DEVICE if _FIRST_MAIN_DEVICE <= code <= _LAST_MAIN_DEVICE else NodeKind.OTHER


def ssrc_domain(platform_id: str) -> str:
    """Digits 4 to 8 of the platform's 20-digit code: digits 2 to 6 of every SSRC made here (Annex G).

    Raises `ValueError` for an id that is not of 20 digits: it is our own, so the configuration is wrong.
    """
    if not is_gb_id(platform_id):
        raise ValueError(f"platform id {platform_id!r} is not a code of 20 digits")
    return platform_id[3:8]


def normalise_civil_code(text: str) -> str:
    """The region code in a `CivilCode` value; empty when there is none (CAT-10).

    A code of 2, 4, 6 or 8 digits is kept. Of a longer number (the 10-digit domain, a whole 20-digit id) or one
    of odd length the longest prefix that is a region code is taken; ``00`` in digits 7-8 names no grass-roots
    unit (table E.1), so six digits stay then. Texts such as ``CivilCode`` give nothing.
    """
    if not text or not (text.isascii() and text.isdigit()) or text[0] == "0":
        return ""
    if len(text) in _REGION_LENGTHS:
        return text
    length = min(8, len(text) & ~1)
    if length == 8 and text[6:8] == "00":
        length = 6
    return text[:length]
