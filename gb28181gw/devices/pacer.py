"""Work that we start by ourselves, spread out: what thousands of devices cause at once must not be sent at once."""

from __future__ import annotations

import asyncio

from gb28181gw.clock import Clock


class Pacer:
    """At most `rate` permits a second, handed out in the order they were asked for (F-01)."""

    def __init__(self, *, rate: float, clock: Clock, burst_s: float = 0.1) -> None:
        """`burst_s`: permits of so long may be taken at one time."""
        self._gap_s = 1.0 / rate
        self._clock = clock
        self._burst_s = burst_s
        self._next = 0.0

    @property
    def behind_s(self) -> float:
        """How long a permit asked for now will wait."""
        return max(0.0, self._next - self._burst_s - self._clock.monotonic())

    async def permit(self) -> None:
        """Returns when one more message may be sent."""
        now = self._clock.monotonic()
        self._next = max(self._next, now) + self._gap_s
        wait_s = self._next - self._burst_s - now
        if wait_s > 0:
            await asyncio.sleep(wait_s)
