"""Productions of RFC 3261 section 25 that several modules share, and the limits on their size.

Each pattern is quoted with its rule. What is read more widely than the rule says so and gives the reason.
"""

from __future__ import annotations

import re

# Limits. A message beyond them is refused before anything is built from it.
MAX_DATAGRAM = 65_535
MAX_STREAM_MESSAGE = 1_048_576
MAX_TRUSTED_MESSAGE = 8_388_608
"""Over a connection whose peer has proved itself: 10,000 records in one message (Annex M) are several megabytes."""
MAX_HEADER_SECTION = 32_768
MAX_HEADER_COUNT = 128
MAX_LINE = 8_192

MAX_CSEQ = 2**32 - 1
"""RFC 3261 8.1.1.5 says below 2**31; devices start CSeq at any 32-bit number, beyond that it is an error."""
MAX_DELTA_SECONDS = 2**32 - 1
"""RFC 3261 20.19: larger values of Expires count as this."""

MAGIC_COOKIE = "z9hG4bK"
"""RFC 3261 8.1.1.7: branches that begin so are unique in space and time."""

# token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~")
TOKEN_CLASS = r"A-Za-z0-9\-.!%*_+`'~"  # noqa: S105 (a character class)
TOKEN = re.compile(rf"[{TOKEN_CLASS}]+")

METHODS = (
    "REGISTER",
    "MESSAGE",
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "INFO",
    "SUBSCRIBE",
    "NOTIFY",
    "UPDATE",
    "PRACK",
    "REFER",
    "PUBLISH",
)
"""Methods with a registered meaning; others are legal tokens and are left as they came."""

KNOWN_METHODS = {method: method for method in METHODS}


def read_method(text: str) -> str:
    """`Register` -> `REGISTER`; an unknown method stays as it is (methods are case-sensitive, RFC 3261 7.1)."""
    known = KNOWN_METHODS.get(text)
    if known is not None:
        return known
    return KNOWN_METHODS.get(text.upper(), text)


def split_list(text: str, separator: str) -> list[str]:
    """Split at `separator` outside quoted strings and angle brackets; parts are trimmed, empty ones kept.

    RFC 3261 7.3.1 (comma lists) and 25.1 (parameters). An unbalanced quote or bracket makes the rest one part.
    """
    if '"' not in text and "<" not in text:
        return [part.strip() for part in text.split(separator)]
    parts: list[str] = []
    start = 0
    quoted = False
    depth = 0
    position = 0
    size = len(text)
    while position < size:
        char = text[position]
        if quoted:
            if char == "\\":
                position += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char == "<":
            depth = 1
        elif char == ">":
            depth = 0
        elif char == separator and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
        position += 1
    parts.append(text[start:].strip())
    return parts


Params = tuple[tuple[str, str | None], ...]
"""Parameters in their order; names in lower case (they compare without case), None: no value given."""


def parse_params(text: str) -> Params:
    """Parameters of ``a=1;b;c="x"`` (a leading `;` is allowed). Quotes stay on; empty ones are dropped.

    generic-param = token [ EQUAL gen-value ]; EQUAL allows blanks around it (RFC 3261 25.1).
    """
    if not text:
        return ()
    found: list[tuple[str, str | None]] = []
    for part in split_list(text, ";"):
        if not part:
            continue
        name, equal, value = part.partition("=")
        found.append((name.rstrip().lower(), value.lstrip() if equal else None))
    return tuple(found)


def find_param(params: Params, name: str) -> str | None:
    """Value of the first parameter `name` (lower case); "" if it has none; None if it is absent."""
    for key, value in params:
        if key == name:
            return value or ""
    return None


def format_params(params: Params) -> str:
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params)
