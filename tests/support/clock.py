"""A clock that tests move."""

from __future__ import annotations


class FakeClock:
    """Monotonic and wall time, moved by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now
