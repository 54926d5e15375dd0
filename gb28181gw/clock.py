"""Time as an argument: every owner of live state is handed a `Clock`, so tests own time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where durations and dates come from."""

    def monotonic(self) -> float:
        """Seconds that never go back; the same base as the event loop's `time()`."""
        ...

    def wall(self) -> float:
        """Seconds since 1970 UTC; may jump, so it is for display, expiry of tokens and persistence only."""
        ...


class SystemClock:
    """The host's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
