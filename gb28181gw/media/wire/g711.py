"""G.711 to linear samples (ITU-T G.711): what an upper platform says goes to a loudspeaker as PCM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


def _a_law(code: int) -> int:
    code ^= 0x55
    exponent, mantissa = (code & 0x70) >> 4, code & 0x0F
    value = (mantissa << 4) + 8 if not exponent else ((mantissa << 4) + 0x108) << (exponent - 1)
    return value if code & 0x80 else -value


def _mu_law(code: int) -> int:
    code = ~code & 0xFF
    exponent, mantissa = (code & 0x70) >> 4, code & 0x0F
    value = (((mantissa << 3) + 0x84) << exponent) - 0x84
    return -value if code & 0x80 else value


def _table(expand: Callable[[int], int]) -> tuple[bytes, ...]:
    return tuple(expand(code).to_bytes(2, "little", signed=True) for code in range(256))


_TABLES: Final = {"pcma": _table(_a_law), "pcmu": _table(_mu_law)}


def decode(payload: bytes, codec: str) -> bytes:
    """16-bit little-endian samples, one for each octet. `codec`: ``pcma`` or ``pcmu``. Raises KeyError."""
    table = _TABLES[codec]
    return b"".join([table[code] for code in payload])
