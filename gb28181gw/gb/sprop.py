"""Parameter sets out of band: the ``sprop-…`` parameters of ``a=fmtp`` (RFC 6184 8.1, RFC 7798 7.1)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

MAX_SETS = 16
MAX_SET_BYTES = 1024

_NAMES = ("sprop-vps", "sprop-sps", "sprop-pps", "sprop-parameter-sets")
"""In the order in which a decoder wants them."""


def parameter_sets(fmtp: Iterable[str]) -> tuple[bytes, ...]:
    """NAL units without start codes, of the values of ``a=fmtp`` lines (``98 name=value;…``).

    What is not Base64 or too long is left out; never raises.
    """
    texts: dict[str, list[str]] = {}
    for line in fmtp:
        for parameter in line.partition(" ")[2].split(";"):
            name, _, value = parameter.strip().partition("=")
            texts.setdefault(name.strip().lower(), []).extend(value.split(","))
    units = (_unit(text.strip()) for name in _NAMES for text in texts.get(name, ()))
    return tuple(unit for unit in units if unit)[:MAX_SETS]


def _unit(text: str) -> bytes:
    if len(text) > 2 * MAX_SET_BYTES:
        return b""
    try:
        unit = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return unit if len(unit) <= MAX_SET_BYTES else b""
