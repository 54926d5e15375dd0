"""Media ports: one owner of the range `[media] ports`.

A lease is an even port and the odd one above it (RTP and RTCP, RFC 3550 11; MED-32). Ports are chosen at
random, which makes the port hard to guess (threat S-06), and rest after use (INV-06). A lease that is not
released is a leak; `owners()` names its owner.
"""

from __future__ import annotations

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.media.leasing import NumberPool

TAKEN_RETRY_S = 60.0
"""A port that another program held is tried again after so long."""


class PortLease:
    """The right to bind `port` (even) and `port + 1`. Released once; a context manager."""

    __slots__ = ("_pool", "port")

    def __init__(self, pool: PortPool, port: int) -> None:
        self._pool: PortPool | None = pool
        self.port = port

    def release(self) -> None:
        """Give the port back; it rests first. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.numbers.release(self.port)

    def mark_taken(self) -> None:
        """Binding failed with EADDRINUSE: another program has the port. Ends the lease."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.numbers.mark_taken(self.port)

    def __enter__(self) -> PortLease:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()


class PortPool:
    """Port pairs from `first` to `last`, both included."""

    def __init__(self, first: int, last: int, rest_s: float, clock: Clock) -> None:
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"media ports {first}-{last} are not a range of ports")
        self.first, self.last = first, last
        self.numbers = NumberPool(range(first + first % 2, last, 2), rest_s, TAKEN_RETRY_S, clock)

    def acquire(self, owner: str = "") -> PortLease:
        """A random free pair. Raises `gb.media.port_exhausted`."""
        port = self.numbers.acquire(owner)
        if port is None:
            raise GatewayError(
                "gb.media.port_exhausted",
                f"All {self.numbers.capacity} port pairs of {self.first}-{self.last} are in use "
                f"({self.in_use} by streams, {self.resting} resting, {self.taken} by other programs).",
                in_use=self.in_use,
                resting=self.resting,
                taken=self.taken,
            )
        return PortLease(self, port)

    def reserve(self, port: int, owner: str = "") -> PortLease:
        """This very pair, for a dialog that survived a restart. Raises `gb.media.bind_failed`."""
        if not self.numbers.reserve(port, owner):
            raise GatewayError("gb.media.bind_failed", f"Media port {port} is in use or resting.", port=port)
        return PortLease(self, port)

    def mark_taken(self, port: int) -> None:
        """As `PortLease.mark_taken`, by number; the lease's release then does nothing."""
        self.numbers.mark_taken(port)

    @property
    def capacity(self) -> int:
        return self.numbers.capacity

    @property
    def in_use(self) -> int:
        return self.numbers.in_use

    @property
    def resting(self) -> int:
        return self.numbers.resting

    @property
    def taken(self) -> int:
        return self.numbers.taken

    @property
    def free(self) -> int:
        return self.numbers.free

    @property
    def alarm(self) -> bool:
        """80 % or more of the pairs cannot be handed out now (fault row F-14)."""
        return self.numbers.alarm

    def owners(self) -> dict[int, str]:
        return self.numbers.owners()
