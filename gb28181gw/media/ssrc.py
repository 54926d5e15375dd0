"""SSRCs by the standard's rule, and one owner of those in use (GB/T 28181-2022 Annex G, the `y=` line).

Ten decimal digits: `0` live or `1` history, digits 4 to 8 of our own 20-digit id, four digits of the stream.
The value on the wire is the number itself. An SSRC in use or resting is never handed out (INV-06), and
never 0 (INV-05). It is an identifier and no secret: 10,000 values can be guessed.
"""

from __future__ import annotations

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.media.leasing import NumberPool

_SERIALS = 10_000
_MAX_VALUE = 0xFFFFFFFF


def ssrc_text(value: int) -> str:
    """The ten digits of `y=`."""
    return f"{value:010d}"


class SsrcLease:
    """The right to use `value`; `text` is its `y=` form. Released once; a context manager."""

    __slots__ = ("_pool", "text", "value")

    def __init__(self, pool: NumberPool, value: int) -> None:
        self._pool: NumberPool | None = pool
        self.value = value
        self.text = ssrc_text(value)

    def release(self) -> None:
        """Give it back; it rests first. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.release(self.value)

    def __enter__(self) -> SsrcLease:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()


class SsrcPool:
    """All SSRCs of one domain part: 10,000 for live, 10,000 for history."""

    def __init__(self, domain5: str, rest_s: float, clock: Clock) -> None:
        if len(domain5) != 5 or not domain5.isascii() or not domain5.isdigit():
            raise ValueError(f"{domain5!r} are not digits 4 to 8 of a 20-digit id")
        live, history = int(f"0{domain5}0000"), int(f"1{domain5}0000")
        # Value 0 means "no SSRC" to many peers, so a domain part of 00000 has one live number less.
        self._live = NumberPool(range(max(live, 1), live + _SERIALS), rest_s, rest_s, clock)
        self._history = NumberPool(range(history, history + _SERIALS), rest_s, rest_s, clock)
        self._history_first = history

    def acquire(self, live: bool, owner: str = "") -> SsrcLease:
        """A random free one of the kind. Raises `gb.media.ssrc_exhausted`."""
        pool = self._live if live else self._history
        value = pool.acquire(owner)
        if value is None:
            raise GatewayError(
                "gb.media.ssrc_exhausted",
                f"All {pool.capacity} {'live' if live else 'history'} SSRCs are in use ({pool.in_use}) "
                f"or resting ({pool.resting}).",
                in_use=pool.in_use,
                resting=pool.resting,
            )
        return SsrcLease(pool, value)

    def reserve(self, value: int, owner: str = "") -> SsrcLease:
        """This very SSRC, for a dialog that survived a restart; it may come from another domain part.

        Raises `gb.media.ssrc_exhausted` when a stream has it or it rests.
        """
        if not 0 < value <= _MAX_VALUE:
            raise ValueError(f"{value} is no SSRC")
        pool = self._pool_of(value)
        if not pool.reserve(value, owner):
            raise GatewayError(
                "gb.media.ssrc_exhausted", f"SSRC {ssrc_text(value)} is in use or resting.", ssrc=value
            )
        return SsrcLease(pool, value)

    def _pool_of(self, value: int) -> NumberPool:
        if self._history_first <= value < self._history_first + _SERIALS:
            return self._history
        return self._live

    @property
    def capacity(self) -> int:
        return self._live.capacity + self._history.capacity

    @property
    def in_use(self) -> int:
        return self._live.in_use + self._history.in_use

    @property
    def resting(self) -> int:
        return self._live.resting + self._history.resting

    @property
    def alarm(self) -> bool:
        """80 % or more of the live or of the history numbers cannot be handed out now."""
        return self._live.alarm or self._history.alarm

    def owners(self) -> dict[int, str]:
        return self._live.owners() | self._history.owners()
