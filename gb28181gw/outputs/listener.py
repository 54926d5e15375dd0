"""The media listener, `[media] http`: HTTP and WebSocket sockets of consumers, on a port of its own.

It accepts, asks who may see what, leases the stream and hands the socket to the engine (`connection`,
`viewers`), or answers in Python (`hls`). Limits are here: connections in all and of one address, and
descriptors kept free for the rest of the program (fault row F-13); a refused connection gets a sentence, and
the listener itself never ends because of one.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.connection import MediaConnection
from gb28181gw.outputs.hls import HlsOutput
from gb28181gw.outputs.http import CorsPolicy
from gb28181gw.outputs.routes import kind_of
from gb28181gw.outputs.source import PlayGuard, StreamSource
from gb28181gw.outputs.transcoding import AudioTranscoding
from gb28181gw.outputs.uploads import UploadTaker
from gb28181gw.outputs.viewers import Viewers
from gb28181gw.outputs.webrtc import WebRtcOutput
from gb28181gw.outputs.webrtc_host import WebRtcConfig, WebRtcHost
from gb28181gw.outputs.whip import WhipInput
from gb28181gw.transport.binding import BACKLOG, bind_tcp

logger = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = 64
"""Kept free for listeners, the database and the log (fault row F-13)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """Of `[media]`."""

    host: str = "0.0.0.0"  # noqa: S104 - the default of the contract
    port: int = 18081
    origins: Sequence[str] = ()
    """CORS besides this host's own pages."""
    viewers_per_stream: int = 500
    connections: int = 2000
    """Connections that have not become viewers."""
    connections_per_host: int = 200
    queue_bytes: int = 2 * 1024 * 1024
    stall_s: float = 10.0
    merge_s: float = 0.0
    """Frames of so long are written to a viewer together."""
    webrtc: WebRtcConfig = field(default_factory=WebRtcConfig)


class MediaListener:
    """Owner of the listening socket, its connections, their tasks, the viewers and the made audio."""

    def __init__(
        self, engine: Engine, source: StreamSource, guard: PlayGuard, bus: EventBus, config: ListenerConfig
    ) -> None:
        self.config = config
        self.engine = engine
        self.source = source
        self.guard = guard
        self.cors = CorsPolicy(config.origins)
        self.transcoding = AudioTranscoding(engine, bus)
        self.uploads: UploadTaker | None = None
        """Takes the pictures of devices; None: no body is read."""
        self.viewers = Viewers(engine, self.transcoding, bus, per_stream=config.viewers_per_stream)
        self.hls = HlsOutput(engine, source, guard, self.viewers)
        host = WebRtcHost(config.webrtc)
        self.webrtc = WebRtcOutput(engine, source, self.viewers, bus, host)
        self.whip = WhipInput(host)
        self.refused = 0
        """Requests and connections refused."""
        self.port = config.port
        """The bound port, once started."""
        self._bus = bus
        self._server: asyncio.Server | None = None
        self._connections: set[MediaConnection] = set()
        self._by_host: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._descriptor_limit = 1 << 30

    @property
    def connections(self) -> int:
        """Open connections that have not become viewers."""
        return len(self._connections)

    @property
    def tasks(self) -> int:
        """Requests that wait for their stream."""
        return len(self._tasks)

    async def start(self) -> None:
        """Bind. Raises `gb.config.port_in_use` or `gb.config.address_unavailable`."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            self._descriptor_limit = max(soft - RESERVED_DESCRIPTORS, soft // 2)
        sock = bind_tcp(self.config.host, self.config.port, key="media.http")
        self.port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: MediaConnection(self), sock=sock, backlog=BACKLOG)

    async def close(self) -> None:
        """End everything: no new connections, viewers told, tasks awaited. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()
        await self.hls.close()
        await self.webrtc.close()
        await self.whip.close()
        self.viewers.close()
        await self.transcoding.close()
        if server is not None:
            await server.wait_closed()

    def close_grants(self, has_ended: Callable[[str], bool]) -> None:
        """End the viewers and speakers whose grant id `has_ended` (for the guard's notice of revocation)."""
        self.viewers.close_grants(has_ended)
        self.whip.close_grants(has_ended)

    # for the connections

    def admit(self, connection: MediaConnection, descriptor: int) -> bool:
        """Room for one more? Counts it in either case; `forget` counts it out."""
        self._connections.add(connection)
        self._by_host[connection.host] += 1
        return (
            len(self._connections) <= self.config.connections
            and self._by_host[connection.host] <= self.config.connections_per_host
            and descriptor < self._descriptor_limit
        )

    def forget(self, connection: MediaConnection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._by_host[connection.host] -= 1
            if not self._by_host[connection.host]:
                del self._by_host[connection.host]

    def own(self, play: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(play)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def note_refusal(self, error: GatewayError, path: str, client: str) -> None:
        self.refused += 1
        self._bus.emit(
            "viewer.refused",
            client=client,
            path=path[:128],
            kind=kind_of(path),
            reason=error.reason,
            detail=error.detail,
        )

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a request of the media listener failed", exc_info=error)
