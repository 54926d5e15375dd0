"""Two devices with one id, both with right credentials (REG-15): noticed, and the first one kept.

A device that moves registers from its new address and stays there. Two devices take the binding from one another
in turn, each with a Call-ID of its own. So when the address that was just replaced takes the binding back within a
keepalive period, the one in between is a rival: its registrations are refused as long as the first one is alive. Two
devices that refresh seldom are noticed before: the one whose binding was taken goes on with its keepalives.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from gb28181gw.sip.path import Path

TABLE_LIMIT: Final = 10_000

Source = tuple[str, int]


def source_of(path: Path) -> Source:
    """What tells two devices apart: the address, with UDP also the port (connections have a new one each time)."""
    return (path.remote_host, 0 if path.reliable else path.remote_port)


@dataclass(slots=True)
class _Replaced:
    source: Source
    call_id: str
    at: float
    told: bool = False


class DuplicateWatch:
    """Bounded memory of who replaced whom. Times are monotonic."""

    def __init__(self) -> None:
        self._replaced: OrderedDict[str, _Replaced] = OrderedDict()
        self._rivals: OrderedDict[str, Source] = OrderedDict()

    def is_rival(self, device_id: str, path: Path, *, first_alive: bool) -> bool:
        """Whether a registration over `path` is that of a known rival and must be refused."""
        rival = self._rivals.get(device_id)
        if rival is None or rival != source_of(path):
            return False
        if first_alive:
            return True
        del self._rivals[device_id]
        return False

    def moved(
        self,
        device_id: str,
        old: Path,
        old_call_id: str,
        new: Path,
        new_call_id: str,
        now: float,
        period_s: float,
    ) -> bool:
        """A verified registration moves the binding from `old` to `new`. True: `old` is a rival, found out now."""
        old_source, new_source = source_of(old), source_of(new)
        if old_source == new_source:
            return False
        before = self._replaced.pop(device_id, None)
        self._replaced[device_id] = _Replaced(old_source, old_call_id, now)
        if len(self._replaced) > TABLE_LIMIT:
            self._replaced.popitem(last=False)
        found = (
            before is not None
            and before.source == new_source
            and now - before.at < period_s
            and new_call_id != old_call_id
        )
        if found:
            self._rivals[device_id] = old_source
            if len(self._rivals) > TABLE_LIMIT:
                self._rivals.popitem(last=False)
        return found

    def lives_on(self, device_id: str, path: Path) -> bool:
        """A message came over `path` while the bound path answers. True: `path` is where the device was registered
        before, so there are two of them; told once a registration."""
        before = self._replaced.get(device_id)
        if before is None or before.told or before.source != source_of(path):
            return False
        before.told = True
        return True

    def forget(self, device_id: str) -> None:
        """The device is gone from the registry, or its credentials changed."""
        self._replaced.pop(device_id, None)
        self._rivals.pop(device_id, None)
