"""Says when ports or SSRCs run short, before none is left (fault row F-14, NET-05)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gb28181gw.observability.events import EventBus


class Pool(Protocol):
    """`PortPool` and `SsrcPool` as this watch sees them."""

    @property
    def capacity(self) -> int: ...

    @property
    def in_use(self) -> int: ...

    @property
    def resting(self) -> int: ...

    @property
    def alarm(self) -> bool: ...


class PoolWatch:
    """Emits `limit.reached` once each time that a pool is used to 80 %. `look` is called every few seconds."""

    def __init__(self, pools: Mapping[str, Pool], bus: EventBus) -> None:
        """`pools` by the name that the event gives."""
        self._pools = pools
        self._bus = bus
        self._short: set[str] = set()

    def look(self) -> None:
        for name, pool in self._pools.items():
            if not pool.alarm:
                self._short.discard(name)
            elif name not in self._short:
                self._short.add(name)
                self._bus.emit(
                    "limit.reached",
                    limit=name,
                    value=pool.capacity,
                    detail=f"80 % are used: {pool.in_use} by streams, {pool.resting} rest.",
                )
