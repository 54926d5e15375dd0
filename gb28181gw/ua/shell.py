"""The loop around the endpoint: after every stimulus drain events, send, arm one timer (aioquic's contract)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from gb28181gw.clock import Clock
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.events import Event
from gb28181gw.sip.path import Path
from gb28181gw.transport.transports import Transports

Trace = Callable[[Literal["in", "out"], Path, bytes], None]


class Shell:
    """Joins endpoint, transports and event loop. All calls in the loop's thread."""

    def __init__(self, endpoint: Endpoint, transports: Transports, clock: Clock) -> None:
        self.endpoint = endpoint
        self.clock = clock
        self._transports = transports
        self.on_event: Callable[[Event], None] = lambda event: None
        self.on_sent: Trace | None = None
        self.closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._pumping = False

    def now(self) -> float:
        return self.clock.monotonic()

    def pump(self) -> None:
        """Hand out events, send, arm the timer. A call from within a handler only adds to what is being handed out."""
        if self._pumping:
            return
        self._pumping = True
        try:
            next_event, on_event = self.endpoint.next_event, self.on_event
            while (event := next_event()) is not None:
                on_event(event)
        finally:
            self._pumping = False
        self._flush()
        self._arm()

    def close(self) -> None:
        """No more timers."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        send, on_sent = self._transports.send, self.on_sent
        lost: list[Path] = []
        for path, data in self.endpoint.data_to_send():
            if on_sent is not None:
                on_sent("out", path, data)
            if not send(path, data) and path.connection_id:
                lost.append(path)
        if lost:
            for path in lost:
                self.endpoint.path_failed(path, self.now())
            self.pump()

    def _arm(self) -> None:
        when = self.endpoint.get_timer()
        if when is None or self.closed:
            return
        if self._timer is not None:
            if self._timer_at <= when:
                return  # fires early enough, and looks again then
            self._timer.cancel()
        self._timer_at = when
        # At least a millisecond, the resolution of the loop's timers: a timer never fires twice for one reason.
        delay = max(0.001, when - self.now())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.endpoint.handle_timer(self.now())
        self.pump()
