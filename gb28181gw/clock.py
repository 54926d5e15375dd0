"""Time as an argument: every owner of live state is handed a `Clock`, so tests own time."""

from __future__ import annotations

import ctypes
import time
from typing import Final, Protocol


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


class _Timex(ctypes.Structure):
    """`struct timex` of Linux (adjtimex(2)); only its beginning is read."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


_STA_UNSYNC: Final = 0x40


def clock_synchronised() -> bool | None:
    """What the kernel knows of its clock; None: nothing."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        timex = _Timex()
        if libc.adjtimex(ctypes.byref(timex)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return not timex.status & _STA_UNSYNC
