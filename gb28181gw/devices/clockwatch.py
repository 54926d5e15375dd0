"""Whether our wall clock may be told to cameras: `Date` of a registration sets theirs (TM-02, S-25)."""

from __future__ import annotations

from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.observability.events import EventBus

STEP_S: Final = 2.0
DISTRUST_S: Final = 600.0
"""No `Date` for so long after the clock stepped."""
_EARLIEST: Final = 1_704_067_200.0
"""2024-01-01: a host that is earlier has lost its clock."""


class ClockWatch:
    """Compares wall and monotonic time once a second."""

    def __init__(self, clock: Clock, bus: EventBus) -> None:
        self._clock = clock
        self._bus = bus
        self._difference = clock.wall() - clock.monotonic()
        self._stepped_at: float | None = None

    @property
    def trusted(self) -> bool:
        """False while the clock is known to be wrong or stepped a moment ago."""
        if self._clock.wall() < _EARLIEST:
            return False
        return self._stepped_at is None or self._clock.monotonic() - self._stepped_at >= DISTRUST_S

    def tick(self) -> None:
        """Called once a second."""
        now = self._clock.monotonic()
        difference = self._clock.wall() - now
        step_s = difference - self._difference
        # Slow slewing moves the difference too: only what happens within a tick is a step.
        self._difference = difference
        if abs(step_s) >= STEP_S:
            self._stepped_at = now
            self._bus.emit(
                "clock.stepped",
                step_s=round(step_s, 1),
                detail="Devices get no Date for ten minutes; check the time service of the host.",
            )
