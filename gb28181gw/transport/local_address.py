"""Which address of ours a peer sees: what goes into Via, Contact and SDP.

The address that a socket is bound to is usually ``0.0.0.0`` and must never be told to anybody (INV-23); one
advertised address for all fits only one of several networks (NET-01, INV-22). So the kernel is asked which source
address it would use towards this peer: a UDP socket is connected, which sends nothing, and its name is read.
"""

from __future__ import annotations

import socket
from typing import Final

_CACHED_PER_GENERATION: Final = 16_384
"""Two generations are kept, so memory is bounded (I10) and addresses in use survive a turn-over."""

_UNSPECIFIED: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, never bound


def normalise(host: str) -> str:
    """An IPv4 address as such, also when a dual-stack socket shows it mapped into IPv6 (NET-10)."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def is_unspecified(host: str) -> bool:
    """True for the wildcard addresses, which no peer can use."""
    return host in _UNSPECIFIED


class LocalAddresses:
    """Answers "what do we call ourselves towards this host" and remembers it."""

    def __init__(self, *, advertise: str = "") -> None:
        self.advertised = advertise
        """Configured address for all peers; empty: chosen per peer."""
        self._young: dict[str, str] = {}
        self._old: dict[str, str] = {}

    def towards(self, remote_host: str) -> str:
        """Our address as `remote_host` sees it; `advertise` when one is configured; empty when there is no route."""
        if self.advertised:
            return self.advertised
        known = self._young.get(remote_host)
        if known is not None:
            return known
        known = self._old.get(remote_host)
        if known is None:
            known = _ask_kernel(remote_host)
            if not known:
                return ""
        if len(self._young) >= _CACHED_PER_GENERATION:
            self._old, self._young = self._young, {}
        self._young[remote_host] = known
        return known

    def forget(self) -> None:
        """Ask again from now on: an interface or a route has changed."""
        self._young.clear()
        self._old.clear()


def _ask_kernel(remote_host: str) -> str:
    family = socket.AF_INET6 if ":" in remote_host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Connecting a datagram socket only picks a route. The port has no meaning but must not be 0.
            probe.connect((remote_host, 9))
            found = normalise(str(probe.getsockname()[0]))
    except OSError:
        return ""
    return "" if is_unspecified(found) else found
