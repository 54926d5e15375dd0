"""The RTSP server, `[rtsp] listen`: pulls of players, recorders and analytics (RFC 2326).

It owns the listening socket, the connections, the streams that they play (`rtsp_stream`) and one pair of UDP ports for
all media over UDP, open while somebody needs it. Who may play is the guard's decision, as for the other outputs: the
token of the URL, or a key as the password of Basic authentication. UDP goes only to the host of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.ports import PortLease, PortPool
from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.rtsp_connection import RtspConnection
from gb28181gw.outputs.rtsp_sdp import media_of
from gb28181gw.outputs.rtsp_stream import RtspStream, audio_codecs
from gb28181gw.outputs.source import PlayGuard, StreamSource
from gb28181gw.outputs.transcoding import SOURCES
from gb28181gw.outputs.viewers import Viewers
from gb28181gw.transport.binding import BACKLOG, bind_tcp

logger = logging.getLogger(__name__)

_TICK_S = 1.0
_REPORT_TICKS = 5
_SEND_BUFFER = 4 * 1024 * 1024
_BIND_TRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RtspConfig:
    """Of `[rtsp]`."""

    host: str = "0.0.0.0"  # noqa: S104 - the default of the contract
    port: int = 8554
    connections: int = 1000
    connections_per_host: int = 200


class UdpPair:
    """Owner of the two UDP sockets that all sessions over UDP share, and of their ports' lease."""

    def __init__(self, host: str, ports: PortPool) -> None:
        self._host = host
        self._ports = ports
        self._users: set[RtspConnection] = set()
        self._lease: PortLease | None = None
        self._rtp: socket.socket | None = None
        self._rtcp: socket.socket | None = None
        self.dropped = 0
        """Packets that the kernel did not take."""

    def open(self, user: RtspConnection) -> tuple[int, int]:
        """The ports. Raises OSError, or GatewayError when no port is free."""
        if self._lease is None:
            self._bind()
        self._users.add(user)
        lease = self._lease
        assert lease is not None  # noqa: S101 - bound above
        return lease.port, lease.port + 1

    def close(self, user: RtspConnection) -> None:
        """The user needs it no longer; the last one closes it. Idempotent."""
        self._users.discard(user)
        if self._users or self._lease is None:
            return
        if self._rtcp is not None:
            asyncio.get_running_loop().remove_reader(self._rtcp)
        for sock in (self._rtp, self._rtcp):
            if sock is not None:
                sock.close()
        self._lease.release()
        self._rtp = self._rtcp = self._lease = None

    def send(self, packets: Sequence[bytes], to: tuple[str, int]) -> int:
        """RTP packets; the bytes that the kernel took."""
        sent = 0
        if self._rtp is None:
            return sent
        for packet in packets:
            try:
                sent += self._rtp.sendto(packet, to)
            except OSError:
                self.dropped += 1
        return sent

    def send_control(self, data: bytes, to: tuple[str, int]) -> None:
        if self._rtcp is not None:
            with contextlib.suppress(OSError):
                self._rtcp.sendto(data, to)

    def _bind(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        for _ in range(_BIND_TRIES):
            lease = self._ports.acquire("rtsp")
            pair = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
            try:
                for offset, sock in enumerate(pair):
                    sock.setblocking(False)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
                    sock.bind((self._host, lease.port + offset))
            except OSError:
                for sock in pair:
                    sock.close()
                lease.mark_taken()
                continue
            self._lease, (self._rtp, self._rtcp) = lease, pair
            asyncio.get_running_loop().add_reader(self._rtcp, self._readable)
            return
        raise OSError("no pair of media ports can be bound")

    def _readable(self) -> None:
        """Reports of players: they live."""
        for _ in range(64):
            try:
                _, source = self._rtcp.recvfrom(2048) if self._rtcp is not None else (b"", ("", 0))
            except OSError:
                return
            for user in self._users:
                if user.host == source[0]:
                    user.heard()


class RtspListener:
    """Owner of everything that RTSP needs but the viewers' table."""

    def __init__(
        self,
        engine: Engine,
        source: StreamSource,
        guard: PlayGuard,
        bus: EventBus,
        viewers: Viewers,
        ports: PortPool,
        config: RtspConfig,
    ) -> None:
        self.source = source
        self.guard = guard
        self.viewers = viewers
        self.udp = UdpPair(config.host, ports)
        self.refused = 0
        self.port = config.port
        """The bound port, once started."""
        self._config = config
        self._engine = engine
        self._bus = bus
        self._server: asyncio.Server | None = None
        self._connections: set[RtspConnection] = set()
        self._by_host: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: dict[tuple[str, str], RtspStream] = {}
        self._ticking: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def streams(self) -> int:
        """Streams that are packed for players."""
        return len(self._streams)

    async def start(self) -> None:
        """Bind. Raises `gb.config.port_in_use` or `gb.config.address_unavailable`."""
        sock = bind_tcp(self._config.host, self._config.port, key="rtsp.listen")
        self.port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: RtspConnection(self), sock=sock, backlog=BACKLOG)
        self._ticking = loop.create_task(self._tick(), name="rtsp")

    async def close(self) -> None:
        """End everything. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = [*self._tasks, *([self._ticking] if self._ticking is not None else [])]
        self._ticking = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()
        if server is not None:
            await server.wait_closed()

    # for the connections

    def admit(self, connection: RtspConnection) -> bool:
        """Room for one more? Counts it in either case; `forget` counts it out."""
        self._connections.add(connection)
        self._by_host[connection.host] += 1
        return (
            len(self._connections) <= self._config.connections
            and self._by_host[connection.host] <= self._config.connections_per_host
        )

    def forget(self, connection: RtspConnection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._by_host[connection.host] -= 1
            if not self._by_host[connection.host]:
                del self._by_host[connection.host]

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def join(self, stream_id: str, audio: str) -> RtspStream:
        """The stream as RTP, shared by all who want the same sound. Raises `gb.codec.codec_unsupported`."""
        name = (stream_id, "copy" if audio == "auto" else audio)
        stream = self._streams.get(name)
        if stream is None or stream.is_over:
            tracks = self._engine.tracks(stream_id)
            if audio == "aac":
                tracks = tuple(_as_aac(track) for track in tracks)
            media = media_of(tracks, audio=audio_codecs(audio))
            if not media:
                what = ", ".join(track.codec.value for track in tracks) or "nothing"
                raise GatewayError("gb.codec.codec_unsupported", f"RTSP does not carry {what}.")
            stream = RtspStream(self._engine, stream_id, media, made_audio=audio == "aac")
            self._streams[name] = stream
        stream.users += 1
        return stream

    def part(self, stream: RtspStream) -> None:
        """One user less; the last one closes it."""
        stream.users -= 1
        if stream.users == 0:
            stream.close()
            for name in [name for name, known in self._streams.items() if known is stream]:
                del self._streams[name]

    def note_refusal(self, error: GatewayError, path: str, client: str) -> None:
        self.refused += 1
        self._bus.emit(
            "viewer.refused",
            client=client,
            path=path[:128],
            kind="rtsp",
            reason=error.reason,
            detail=error.detail,
        )

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        turn = 0
        while True:
            await asyncio.sleep(_TICK_S)
            turn += 1
            now = loop.time()
            for connection in list(self._connections):
                connection.check(now)
            if turn % _REPORT_TICKS == 0:
                for stream in list(self._streams.values()):
                    stream.report()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a request of the RTSP server failed", exc_info=error)


def _as_aac(track: Track) -> Track:
    """What `audio=aac` makes of a G.711 track, as far as a description must know it beforehand."""
    if track.kind is not TrackKind.AUDIO or track.codec not in SOURCES:
        return track
    return Track(
        kind=TrackKind.AUDIO, codec=Codec.AAC, sample_rate=8000, channels=1, parameter_sets=(b"\x15\x88",)
    )
