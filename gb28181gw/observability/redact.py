"""What must never reach a log line, an event or a trace (S-14): secrets, control characters, endless strings.

One place for the three, because they are applied together to everything that a peer may have written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

MAX_FIELD_CHARS = 256
"""A field of a log line or event is cut here; the cut is marked with an ellipsis."""
MAX_ITEMS = 32
"""Items of a list or mapping inside a field."""
HIDDEN = "***"
CLEAN = object()
"""Given as the field `_clean` with a log line whose fields went through here already."""

SECRET_NAMES = frozenset(
    {
        "authorization",
        "proxy_authorization",
        "password",
        "passwd",
        "secret",
        "token",
        "api_key",
        "response",
        "ha1",
        "nonce_key",
        "token_key",
        "admin_key",
    }
)
"""Names of fields whose value is hidden whole, in lower case with underscores."""

_SECRET_TEXT = re.compile(
    r"""
      (?P<digest>\bresponse\s*=\s*)"?[0-9a-fA-F]{16,}"?
    | (?P<bearer>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}
    | (?P<named>\b(?:token|password|passwd|secret|api_key)["']?\s*[=:]\s*)
      ("[^"\r\n]*"|'[^'\r\n]*'|[^\s&;,"'<>}]+)
    | (?P<element><(?:\w+:)?password>)[^<]*
    | (?P<key>\bgbk_)[A-Za-z0-9_-]{8,}
    | (?P<userinfo>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def _hide(match: re.Match[str]) -> str:
    kept = next((group for group in match.groupdict().values() if group is not None), "")
    return kept + HIDDEN


def hide_secrets(text: str) -> str:
    """Replace digest responses, bearer keys, ``token=`` and ``password=`` values and URL user info."""
    if text.isalnum():
        return text  # ids and words, which most fields are
    return _SECRET_TEXT.sub(_hide, text)


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean_text(text: str, limit: int = MAX_FIELD_CHARS) -> str:
    """`text` on one line, without secrets, control or direction characters, and at most `limit` long."""
    if len(text) > limit:
        # The expression looks at a bounded part only: a peer chooses the length.
        text = text[: limit * 2]
    text = hide_secrets(text)
    if not text.isprintable():
        text = "".join(map(_escape, text))
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text


def clean_value(value: object) -> object:
    """Make any value fit for one JSON line; recursion is bounded by `MAX_ITEMS` and by depth."""
    return _clean(value, 0)


def _clean(value: object, depth: int) -> object:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int | float | bool | None):
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            return clean_text(str(value))
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return clean_text(bytes(value[: MAX_FIELD_CHARS * 2]).decode("utf-8", "backslashreplace"))
    if depth < 3 and isinstance(value, Mapping):
        return {
            clean_text(str(key), 64): hide_named(str(key), item, depth + 1)
            for key, item in list(value.items())[:MAX_ITEMS]
        }
    if depth < 3 and isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_clean(item, depth + 1) for item in list(items)[:MAX_ITEMS]]
    return clean_text(str(value))


def hide_named(name: str, value: object, depth: int = 0) -> object:
    """`clean_value`, with everything hidden whose name says that it is a secret."""
    if name.lower().replace("-", "_") in SECRET_NAMES:
        return HIDDEN
    return _clean(value, depth)
