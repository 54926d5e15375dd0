"""A bad network for what the simulator sends: loss, duplicates and changed order, from one printed seed."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRates:
    """Probabilities for each datagram, 0 to below 1."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0

    @property
    def none(self) -> bool:
        return not (self.loss or self.duplicate or self.reorder)


@dataclass(slots=True)
class Impairment:
    """Decides for each datagram what leaves, in which order. One for each socket.

    Reordering holds a datagram back until the next one has gone. `flush` gives what is still held.
    """

    rates: FaultRates
    rng: random.Random
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    _held: bytes | None = None

    def apply(self, data: bytes) -> tuple[bytes, ...]:
        """Datagrams to send now in place of `data`."""
        rates = self.rates
        draw = self.rng.random
        if rates.loss and draw() < rates.loss:
            self.lost += 1
            return ()
        if self._held is not None:
            held, self._held = self._held, None
            return (data, held)
        if rates.reorder and draw() < rates.reorder:
            self.reordered += 1
            self._held = data
            return ()
        if rates.duplicate and draw() < rates.duplicate:
            self.duplicated += 1
            return (data, data)
        return (data,)

    def flush(self) -> tuple[bytes, ...]:
        """The datagram that waits for a follower, if any."""
        held, self._held = self._held, None
        return () if held is None else (held,)
