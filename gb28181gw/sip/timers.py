"""The timers of RFC 3261 table 4 and RFC 6026 as an immutable argument.

Durations are seconds. The values are those for unreliable transports; over a reliable one the transactions leave
A, E and G off and take D, I, J and K as zero (RFC 3261 17, table 4).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """T1, T2, T4 and what follows from them. Tests make everything faster with a small `t1`."""

    t1: float = 0.5
    """Estimate of the round-trip time."""
    t2: float = 4.0
    """Longest interval between retransmissions of non-INVITE requests and INVITE responses."""
    t4: float = 5.0
    """Longest time that a message stays in the network."""

    def __post_init__(self) -> None:
        if not 0 < self.t1 <= self.t2 or self.t4 <= 0:
            raise ValueError("timers must be positive and t1 must not be longer than t2")

    @property
    def a(self) -> float:
        """First INVITE retransmission; doubles each time."""
        return self.t1

    @property
    def b(self) -> float:
        """INVITE client gives up without any response."""
        return 64 * self.t1

    @property
    def c(self) -> float:
        """INVITE client gives up after a provisional response and no final one (RFC 3261 16.6, step 11)."""
        return 360 * self.t1

    @property
    def d(self) -> float:
        """INVITE client absorbs repeated 300-699 responses."""
        return 64 * self.t1

    @property
    def e(self) -> float:
        """First non-INVITE retransmission; doubles up to T2."""
        return self.t1

    @property
    def f(self) -> float:
        """Non-INVITE client gives up."""
        return 64 * self.t1

    @property
    def g(self) -> float:
        """First retransmission of an INVITE's final response; doubles up to T2."""
        return self.t1

    @property
    def h(self) -> float:
        """INVITE server waits for the ACK of a 300-699 response."""
        return 64 * self.t1

    @property
    def i(self) -> float:
        """INVITE server absorbs repeated ACKs."""
        return self.t4

    @property
    def j(self) -> float:
        """Non-INVITE server absorbs repeated requests."""
        return 64 * self.t1

    @property
    def k(self) -> float:
        """Non-INVITE client absorbs repeated responses."""
        return self.t4

    @property
    def l(self) -> float:  # noqa: E743 - the RFC's name
        """INVITE server absorbs repeated INVITEs after its 2xx (RFC 6026 7.1)."""
        return 64 * self.t1

    @property
    def m(self) -> float:
        """INVITE client passes repeated 2xx responses to its user (RFC 6026 7.2)."""
        return 64 * self.t1

    @property
    def trying(self) -> float:
        """INVITE server sends 100 by itself when its user has not answered (RFC 3261 17.2.1: 200 ms)."""
        return 0.4 * self.t1
