"""One owner for a set of numbers that must never be used twice at once, nor again too soon.

Ports and SSRCs share these rules (invariants I2 and I3, quirk row INV-06): a number is free, leased,
resting or taken by somebody else; it is chosen at random among the free ones; a released number rests
before it is free again, so that a device that missed a BYE cannot show its picture in the next session.

The free set is a list in which the chosen entry is replaced by the last one, so acquiring costs the same
however large the pool is. Resting numbers leave in the order in which they came, because all rest equally
long.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable

from gb28181gw.clock import Clock

ALARM_SHARE = 0.8
"""A pool that is used beyond this share raises the alarm (fault row F-14)."""


class NumberPool:
    """Free, leased, resting and taken numbers of one kind. Not thread-safe: it lives on the event loop."""

    def __init__(self, numbers: Iterable[int], rest_s: float, taken_s: float, clock: Clock) -> None:
        self._free = list(numbers)
        self.capacity = len(self._free)
        self._rest_s = rest_s
        self._taken_s = taken_s
        self._clock = clock
        self._leased: dict[int, str] = {}
        self._resting: deque[tuple[float, int]] = deque()
        self._taken: deque[tuple[float, int]] = deque()
        self._extra: set[int] = set()

    def acquire(self, owner: str) -> int | None:
        """A random free number, now leased to `owner`; None when there is none."""
        self._wake()
        if not self._free:
            return None
        index = secrets.randbelow(len(self._free))
        number = self._free[index]
        last = self._free.pop()
        if index < len(self._free):
            self._free[index] = last
        self._leased[number] = owner
        return number

    def reserve(self, number: int, owner: str) -> bool:
        """Lease this very number; False when it is leased, resting or taken.

        A number outside the pool can be reserved too: it is watched while it is leased and forgotten after
        its rest.
        """
        self._wake()
        if number in self._leased or any(
            number == n for queue in (self._resting, self._taken) for _, n in queue
        ):
            return False
        try:
            self._free.remove(number)
        except ValueError:
            self._extra.add(number)
        self._leased[number] = owner
        return True

    def release(self, number: int) -> None:
        """End the lease; the number rests. A number that is not leased is left alone."""
        if self._leased.pop(number, None) is not None:
            self._resting.append((self._clock.monotonic() + self._rest_s, number))
            self._wake()

    def mark_taken(self, number: int) -> None:
        """End the lease of a number that somebody else turned out to use; it is tried again later."""
        if self._leased.pop(number, None) is not None:
            self._taken.append((self._clock.monotonic() + self._taken_s, number))

    def owners(self) -> dict[int, str]:
        """Leased numbers with their owners, for people and for leak reports."""
        return dict(self._leased)

    @property
    def in_use(self) -> int:
        return len(self._leased)

    @property
    def resting(self) -> int:
        self._wake()
        return len(self._resting)

    @property
    def taken(self) -> int:
        self._wake()
        return len(self._taken)

    @property
    def free(self) -> int:
        self._wake()
        return len(self._free)

    @property
    def used_share(self) -> float:
        """0 to 1: the share that cannot be handed out now, for whatever reason."""
        return 1.0 - self.free / self.capacity if self.capacity else 1.0

    @property
    def alarm(self) -> bool:
        """The pool is used to 80 % or more."""
        return self.used_share >= ALARM_SHARE

    def _wake(self) -> None:
        now = self._clock.monotonic()
        for queue in (self._resting, self._taken):
            while queue and queue[0][0] <= now:
                number = queue.popleft()[1]
                if number in self._extra:
                    self._extra.discard(number)
                else:
                    self._free.append(number)
