"""What upper platforms send, sorted: who it is from, and who here serves it.

A request is an upper's when it comes over the path of its registration (rule 1 of `devices/binding.py`), or
over a TCP connection that the upper's own host made to us and on which it names itself: the handshake proves the
address. What says that it is the upper, over UDP from its host but another port, may ask and not order (rule 2). The id
that it calls itself by decides nothing more (CS-01), nor does a device that lives at the same address
(CS-11): of such a pair Query, Control, INVITE and SUBSCRIBE are the upper's, everything else the device's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Final

from gb28181gw.clock import Clock
from gb28181gw.gb.exceptions import GbParseError
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.path import Path
from gb28181gw.ua.incoming import Incoming

BODY_BYTES: Final = 65_536
TASKS_AT_ONCE: Final = 64
"""Questions of one upper that are being answered (threat S-21)."""
RATE: Final = 200.0
"""Requests a second of one upper; twice as many at once."""


class Budget:
    """Of one upper: a token bucket for its requests, and the tasks that answer them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = 2 * RATE
        self._at = clock.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    def permits(self) -> bool:
        """Take one token."""
        now = self._clock.monotonic()
        self._tokens = min(2 * RATE, self._tokens + (now - self._at) * RATE)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @property
    def busy(self) -> bool:
        return len(self._tasks) >= TASKS_AT_ONCE

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Own a task until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class PathTable:
    """Which paths are whose. One look-up for each message of the gateway."""

    def __init__(self) -> None:
        self._by_path: dict[tuple[str, str, int] | int, str] = {}
        self._own: OrderedDict[int, str] = OrderedDict()
        """Connections that uppers made to us."""

    def bind(self, upper_id: str, path: Path | None) -> None:
        """The path of an upper from now on; None: it has none."""
        for key in [key for key, owner in self._by_path.items() if owner == upper_id]:
            del self._by_path[key]
        if path is not None:
            self._by_path[path.connection_id or path[:3]] = upper_id

    def adopt(self, upper_id: str, path: Path) -> None:
        """A connection that the upper made."""
        self._own[path.connection_id] = upper_id
        if len(self._own) > 256:
            self._own.popitem(last=False)

    def forget(self, path: Path) -> None:
        """A connection ended."""
        self._own.pop(path.connection_id, None)

    def owner(self, path: Path) -> str | None:
        key = path.connection_id or path[:3]
        found = self._by_path.get(key)
        if found is None and path.connection_id and self._own:
            found = self._own.get(path.connection_id)
        return found


def read_body(incoming: Incoming, bus: EventBus, upper_id: str) -> Document | None:
    """The document of a MESSAGE or SUBSCRIBE; None when it was answered with 400."""
    try:
        return parse(incoming.request.body, max_bytes=BODY_BYTES)
    except GbParseError as error:
        bus.emit(
            "upper.message_invalid",
            upper_id=upper_id,
            peer=incoming.path.peer,
            reason=error.reason,
            detail=error.detail[:200],
        )
        incoming.respond(400)
        return None
