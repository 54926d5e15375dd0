"""The path rule: which signalling path belongs to a device, and when it may move.

Pure decisions; `path_keeper` carries them out. The binding is set by a verified REGISTER. A message that names a
bound device and comes over another path proves nothing, so what it may do depends on how it differs:

==============================  =================================================================================
message comes over              what happens
==============================  =================================================================================
the bound path                  ACCEPT
same IP, other transport        PROCESS: a device may send what is long over TCP (RFC 3261 18.1.1); it never moves
new connection, same IP         MOVE: the handshake proves that the address is reachable
same IP and transport, other    PROBE_NEAR: processed, and old and new path are asked together;
port                            old answers within 1 s: stay. Old silent and new answers within 2 s: move
another IP                      PROBE_FAR: no effect and no answer; old and new path are asked together for 4 s;
                                old answers: stay. Only the new one answers: at most a trial, and that only within
                                the networks of verified registrations of the last 30 days
==============================  =================================================================================
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from gb28181gw.devices.config import BindingMode
from gb28181gw.devices.registry import same_path
from gb28181gw.sip.path import Path

NEAR_OLD_S: Final = 1.0
"""Time the bound path has to answer when only the port differs."""
NEAR_NEW_S: Final = 2.0
"""Time the new path has to answer when only the port differs."""
FAR_S: Final = 4.0
"""Time both have when the address differs."""
TRIAL_S: Final = 600.0
NETWORK_S: Final = 30 * 86_400
"""A network is known for so long after a verified registration from it."""
NETWORKS_KEPT: Final = 16


class Action(Enum):
    """What to do with a message of a bound device; see the table of the module."""

    ACCEPT = auto()
    PROCESS = auto()
    MOVE = auto()
    PROBE_NEAR = auto()
    PROBE_FAR = auto()
    IGNORE = auto()


class Outcome(Enum):
    """How a probe of two paths ends."""

    WAIT = auto()
    STAY = auto()
    """The bound path answers: `binding.conflict`."""
    MOVE = auto()
    TRIAL = auto()
    NONE = auto()
    """Nobody answered, or the new address is foreign: no move."""


def classify(bound: Path | None, last: Path | None, path: Path, mode: BindingMode) -> Action:
    """What a message over `path` may do. `bound`: the bound path; None while its connection is gone, then `last`
    is the path of the last verified registration."""
    if bound is not None and same_path(bound, path):
        return Action.ACCEPT
    known = bound or last
    if known is None:
        return Action.IGNORE
    if mode is BindingMode.STRICT:
        return Action.IGNORE
    if known.remote_host == path.remote_host:
        if known.transport != path.transport:
            return Action.PROCESS
        return Action.MOVE if path.reliable else Action.PROBE_NEAR
    return Action.MOVE if mode is BindingMode.ANY else Action.PROBE_FAR


@dataclass(slots=True)
class PathProbe:
    """Both paths are asked at `started`; fed with answers and the time. One per device."""

    near: bool
    """True: only the port differs."""
    known_network: bool
    """The new address lies in a network of a verified registration."""
    started: float
    old_answered: bool = False
    new_answered: bool = False

    def outcome(self, now: float) -> Outcome:
        """What is decided at `now`."""
        if self.old_answered:
            return Outcome.STAY
        passed = now - self.started
        if self.near:
            if self.new_answered and passed >= NEAR_OLD_S:
                return Outcome.MOVE
            return Outcome.NONE if passed >= NEAR_NEW_S else Outcome.WAIT
        if passed < FAR_S:
            return Outcome.WAIT
        if self.new_answered and self.known_network:
            return Outcome.TRIAL
        return Outcome.NONE

    def next_look(self, now: float) -> float:
        """Seconds until `outcome` may change by time alone."""
        passed = now - self.started
        marks = (NEAR_OLD_S, NEAR_NEW_S) if self.near else (FAR_S,)
        return max(min((mark - passed for mark in marks if mark > passed), default=0.0), 0.0)


@lru_cache(maxsize=4096)
def network_of(host: str) -> str:
    """The /16 (IPv4) or /40 (IPv6) that an address lies in; empty for what is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    prefix = 16 if address.version == 4 else 40
    return str(ipaddress.ip_network((address, prefix), strict=False))


def remember_network(networks: Mapping[str, int], host: str, wall_s: float) -> Mapping[str, int]:
    """`networks` with that of `host` as just verified: old ones out, the latest few kept.

    The same object comes back when nothing but the time of a recent entry would change (a day is precise enough).
    """
    network = network_of(host)
    if not network:
        return networks
    now = int(wall_s)
    if network in networks and now - networks[network] < 86_400:
        return networks
    fresh = {name: at for name, at in networks.items() if now - at < NETWORK_S and name != network}
    while len(fresh) >= NETWORKS_KEPT:
        del fresh[min(fresh, key=lambda name: fresh[name])]
    return {**fresh, network: now}


def is_known_network(networks: Mapping[str, int], host: str, wall_s: float) -> bool:
    """Whether a verified registration came from the network of `host` in the last 30 days."""
    at = networks.get(network_of(host))
    return at is not None and wall_s - at < NETWORK_S
