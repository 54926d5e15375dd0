"""Serves the API inside the running event loop: uvicorn without its own loop, signals, or logging."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from gb28181gw.errors import GatewayError
from gb28181gw.transport.binding import bind_tcp

MAX_HEAD = 32 * 1024
"""Bytes of a request's head. (uvicorn's other HTTP parser keeps heads of any size.)"""
MAX_WS_MESSAGE = 64 * 1024
"""Bytes of one WebSocket message: two thirds of a second of sound at 48 kHz."""
HEAD_S = 10.0
"""A request's head must be complete within so long of its first byte, or of the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerConfig:
    """`[http]` of the configuration."""

    host: str
    port: int
    """0: chosen by the host."""
    cert: str = ""
    key: str = ""
    graceful_s: int = 3
    """Requests under way get so long when the server stops."""


class _Server(uvicorn.Server):
    """Leaves signals to the process and tells when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()


class _Http(H11Protocol):
    """HTTP that does not wait for ever for a request's head; uvicorn limits only the time between two requests."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state is not h11.IDLE:
            # A body that breaks off while its request is answered, or was: two answers would be a mistake of ours.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.transport.close()
            return
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        super().connection_lost(exc)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class ApiServer:
    """Owner of the listener. `start` and `stop` once each."""

    def __init__(self, app: ASGIApp, config: ApiServerConfig) -> None:
        self._app = app
        self._config = config
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The bound port; only after `start`."""
        if self._socket is None:
            raise RuntimeError("the server is not started")
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Bind and serve. Raises GatewayError gb.config.port_in_use, .address_unavailable or .invalid."""
        config = self._config
        self._socket = bind_tcp(config.host, config.port, key="http.listen")
        try:
            settings = uvicorn.Config(
                self._app,
                log_config=None,
                access_log=False,
                lifespan="off",
                loop="none",
                http=_Http,
                h11_max_incomplete_event_size=MAX_HEAD,
                ws="websockets-sansio",
                ws_max_size=MAX_WS_MESSAGE,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=config.graceful_s,
                ssl_certfile=config.cert or None,
                ssl_keyfile=config.key or None,
            )
            settings.load()
        except (OSError, ValueError) as error:
            self._socket.close()
            raise GatewayError(
                "gb.config.invalid", f"http.cert and http.key cannot be used: {error}."
            ) from error
        self._server = _Server(settings)
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="api server")
        serving = asyncio.create_task(self._server.serving.wait())
        await asyncio.wait({self._task, serving}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if self._task.done():
            await self._task
            raise GatewayError("gb.config.invalid", "The API could not be started.")

    async def stop(self) -> None:
        """Accept nothing more, let requests end, then close. Long answers (events) must have been ended before
        by their owner, else they are cut after `graceful_s`. Idempotent."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        done, _ = await asyncio.wait({self._task}, timeout=self._config.graceful_s + 2)
        if not done:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        self._server = None
