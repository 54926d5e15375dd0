"""Who is not answered any more, and who only slowly (S-02, F-01, REG-07).

All tables are keyed by what strangers send, so all are bounded: the entry that was touched longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gb28181gw.devices.store import Ban, DeviceStore

TABLE_LIMIT: Final = 10_000
BAD_ANSWERS: Final = 5
BAD_WITHIN_S: Final = 600.0
BAN_S: Final = 900.0
BAN_MAX_S: Final = 86_400.0
FAILING_DEVICES: Final = 20
"""So many ids that never succeeded, failing from one address, ban the address."""
LOOP_PER_MINUTE: Final = 6
"""REGISTERs of one device a minute; beyond, its answers are delayed."""
DROP_PER_MINUTE: Final = 60
"""Beyond so many it is not answered at all."""
DELAY_S: Final = 0.5
DELAY_MAX_S: Final = 4.0


class BanTable:
    """Bad answers by (address, device), and the bans that follow. Survives a restart. Times are wall times."""

    def __init__(self, store: DeviceStore) -> None:
        self._store = store
        self._bad: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        self._failing: OrderedDict[str, set[str]] = OrderedDict()
        self._bans: OrderedDict[tuple[str, str], Ban] = OrderedDict()

    def __len__(self) -> int:
        return len(self._bans)

    def load(self, bans: Iterable[Ban]) -> None:
        for ban in bans:
            self._bans[ban.ip, ban.device_id] = ban

    def banned(self, ip: str, device_id: str, wall: float, *, proven: bool) -> bool:
        """Whether the pair is not answered. `proven`: it succeeded within 24 h, so a ban of the whole address
        does not touch it (carrier NAT)."""
        if not self._bans:
            return False
        ban = self._bans.get((ip, device_id))
        if ban is not None and wall < ban.until:
            return True
        if proven:
            return False
        ban = self._bans.get((ip, ""))
        return ban is not None and wall < ban.until

    def bad(self, ip: str, device_id: str, wall: float, *, proven: bool) -> Ban | None:
        """Count a bad answer; the ban that it causes, if it does."""
        key = (ip, device_id)
        times = [at for at in self._bad.pop(key, ()) if 0 <= wall - at < BAD_WITHIN_S]
        times.append(wall)
        if len(times) >= BAD_ANSWERS:
            return self._ban(ip, device_id, wall)
        self._bad[key] = times
        _trim(self._bad)
        if proven:
            return None
        failing = self._failing.pop(ip, set())
        failing.add(device_id)
        if len(failing) >= FAILING_DEVICES:
            return self._ban(ip, "", wall)
        self._failing[ip] = failing
        _trim(self._failing)
        return None

    def good(self, ip: str, device_id: str) -> None:
        """The pair gave a right answer."""
        self._bad.pop((ip, device_id), None)

    def forgive(self, device_id: str) -> None:
        """A person changed the credentials or let the device in: it gets a fresh start from everywhere."""
        for key in [key for key in self._bad if key[1] == device_id]:
            del self._bad[key]
        for key in [key for key in self._bans if key[1] == device_id]:
            del self._bans[key]
        self._store.remove_bans(device_id)

    def _ban(self, ip: str, device_id: str, wall: float) -> Ban:
        before = self._bans.pop((ip, device_id), None)
        # A ban that ended more than a day ago is forgotten; else the next one is twice as long.
        level = before.level + 1 if before is not None and wall - before.until < BAN_MAX_S else 0
        ban = Ban(ip, device_id, wall + min(BAN_S * 2.0 ** min(level, 16), BAN_MAX_S), level)
        self._bans[ip, device_id] = ban
        _trim(self._bans)
        self._store.save_ban(ban)
        return ban


@dataclass(slots=True)
class _Rate:
    since: float
    count: int
    bare: int
    """REGISTERs without credentials in a row."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a REGISTER is to be answered."""

    delay_s: float
    drop: bool
    unheard: bool
    """It keeps asking without credentials: our challenges do not reach it (REG-19, REG-20). True once a minute."""


_AT_ONCE: Final = Pace(0.0, drop=False, unheard=False)


class RegisterRates:
    """REGISTERs per minute of each (address, device): a device that loops is answered slower and slower."""

    def __init__(self) -> None:
        self._rates: OrderedDict[tuple[str, str], _Rate] = OrderedDict()

    def count(self, ip: str, device_id: str, now: float, *, credentials: bool) -> Pace:
        """Count one REGISTER at monotonic time `now`."""
        key = (ip, device_id)
        rate = self._rates.get(key)
        if rate is None:
            self._rates[key] = _Rate(now, 1, 0 if credentials else 1)
            _trim(self._rates)
            return _AT_ONCE
        self._rates.move_to_end(key)
        if now - rate.since >= 60.0:
            rate.since, rate.count = now, 0
        rate.count += 1
        rate.bare = 0 if credentials else rate.bare + 1
        if rate.count <= LOOP_PER_MINUTE:
            return _AT_ONCE
        delay = min(DELAY_S * 2.0 ** min((rate.count - LOOP_PER_MINUTE - 1) // 2, 8), DELAY_MAX_S)
        unheard = rate.bare > LOOP_PER_MINUTE and rate.count == LOOP_PER_MINUTE + 1
        return Pace(delay, drop=rate.count > DROP_PER_MINUTE, unheard=unheard)


def _trim(
    table: OrderedDict[str, set[str]]
    | OrderedDict[tuple[str, str], list[float]]
    | OrderedDict[tuple[str, str], Ban]
    | OrderedDict[tuple[str, str], _Rate],
) -> None:
    if len(table) > TABLE_LIMIT:
        table.popitem(last=False)
