"""Random octets for tags, branches and nonces, drawn from the system in blocks.

A tag needs eight octets, and one system call for each costs more than reading the rest of its message's head
(measured: 5 us a call). The octets are the system's own and each is used once (S-04, XML-21).
"""

from __future__ import annotations

import secrets
from typing import Final

_BLOCK: Final = 4096

_pool = b""
_next = 0


def random_bytes(size: int) -> bytes:
    """`size` octets, at most a block, for the one thread of the signalling."""
    global _pool, _next  # noqa: PLW0603 - the pool is the module's state
    if _next + size > len(_pool):
        _pool, _next = secrets.token_bytes(_BLOCK), 0
    taken = _pool[_next : _next + size]
    _next += size
    return taken


def random_hex(size: int) -> str:
    """`size` octets as hexadecimal digits."""
    return random_bytes(size).hex()
