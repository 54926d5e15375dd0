"""RTP over TCP (RFC 4571; GB/T 28181-2022 Annex D): listening, dialling, or both at once (INV-18).

One connection feeds the stream; until it is known which one, a few may be open. A connection that does not
become it within ten seconds, and those that come while it is alive, are closed.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import cast

from gb28181gw.media.engine import EventKind
from gb28181gw.media.reference.receiver import ReceiverCore
from gb28181gw.media.reference.receiver_udp import MAX_WAITING_BYTES
from gb28181gw.media.reference.sockets import keep_alive
from gb28181gw.media.reference.source import SILENT_SAME_HOST_S, Source, Verdict, address
from gb28181gw.media.wire.exceptions import FramingError
from gb28181gw.media.wire.rfc4571 import Framer

DIAL_TRIES = 3
DIAL_PAUSE_S = 1.0
DIAL_TIMEOUT_S = 3.0
PROVE_S = 10.0
MAX_PENDING = 4
_LATCHING = frozenset({Verdict.LATCHED, Verdict.SWITCHED, Verdict.TAKEN_OVER})
_numbers = itertools.count(1)


class TcpReceiver:
    """Owner of a listener, of its connections, and of the task that dials."""

    def __init__(self, core: ReceiverCore) -> None:
        self._core = core
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._dialling: asyncio.Task[None] | None = None
        self._closed = False
        self.listens = False

    async def listen(self, sock: socket.socket) -> None:
        """Take the bound socket over; on an error it is closed."""
        self.listens = True
        try:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: _Connection(self, self._core), sock=sock, backlog=8)
        except BaseException:
            sock.close()
            raise
        if self._closed:
            server.close()
            return
        self._server = server

    def dial(self, host: str, port: int) -> None:
        """Connect to the device: 3 tries, 1 s apart (Annex D). A dialling under way goes on."""
        if self._closed or self.is_dialling:
            return
        self._dialling = asyncio.get_running_loop().create_task(self._dial(host, port))

    @property
    def is_dialling(self) -> bool:
        return self._dialling is not None and not self._dialling.done()

    async def _dial(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        peer = address((host, port))
        reason = ""
        try:
            ip_address(host)  # names are not looked up on this path
        except ValueError:
            self._core.tell(EventKind.CONNECT_FAILED, peer=peer, detail="not_an_address")
            return
        for attempt in range(DIAL_TRIES):
            if attempt:
                await asyncio.sleep(DIAL_PAUSE_S)
            if self._core.gate.source is not None:
                return  # the device has connected to us meanwhile
            try:
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    await loop.create_connection(lambda: _Connection(self, self._core), host, port)
            except TimeoutError:
                reason = "timeout"
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                return
        self._core.tell(EventKind.CONNECT_FAILED, peer=peer, detail=reason)

    def tick(self, now: float) -> None:
        """Close what did not become the stream's connection in time; answer the sender reports of the one that did.

        A device that sends none may take a report for media it does not know, and the connection itself tells it that
        we live; so RTCP goes over TCP only to those that speak it (RFC 4571 2, GB/T 28181-2022 5.2).
        """
        latched = self._core.gate.source
        for connection in list(self._connections):
            if connection.source != latched:
                talks = self._core.report_sinks and connection is self.talk
                if now - connection.since > PROVE_S and not talks:
                    connection.close()
            elif self._core.rtcp_peer == latched:
                report = self._core.due_report(now)
                if report is not None:
                    connection.send(report)

    @property
    def talk(self) -> _Connection | None:
        """The connection that RTP sinks of this receiver send on: the latched one, else the first of an address that
        was expected, since a device that only listens never sends what would latch it."""
        gate = self._core.gate
        believed: _Connection | None = None
        for connection in self._connections:
            if connection.source == gate.source:
                return connection
            is_first = believed is None or connection.since < believed.since
            if is_first and self._core.spec.expected_hosts and gate.expects(connection.source):
                believed = connection
        return believed if gate.source is None else None

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._dialling is not None:
            self._dialling.cancel()
        for connection in list(self._connections):
            connection.close()

    async def wait_closed(self) -> None:
        """After `close`: the dialling has ended."""
        if self._dialling is not None:
            await asyncio.gather(self._dialling, return_exceptions=True)

    # for the connections

    def made(self, connection: _Connection, now: float) -> bool:
        """Room for a connection? One that comes while the stream's own is alive is not wanted, unless that one
        latched by grace only (rule 1)."""
        gate = self._core.gate
        alive = (
            gate.source is not None
            and gate.last_accepted is not None
            and now - gate.last_accepted < SILENT_SAME_HOST_S
        )
        if self._closed or (alive and not (gate.by_grace and gate.expects(connection.source))):
            return False
        if len(self._connections) > MAX_PENDING and not self._make_room(connection):
            return False
        self._connections.add(connection)
        return True

    def _make_room(self, connection: _Connection) -> bool:
        """Strangers who came first must not lock an expected address out (threat S-06)."""
        gate = self._core.gate
        if not gate.expects(connection.source):
            return False
        for other in self._connections:
            if other.source != gate.source and not gate.expects(other.source):
                self._connections.discard(other)
                other.close()
                return True
        return False

    def proved(self, connection: _Connection) -> None:
        """This connection is the stream's: the others end."""
        for other in list(self._connections):
            if other is not connection:
                other.close()

    def ended(self, connection: _Connection) -> None:
        self._connections.discard(connection)


def adopt_connection(
    transport: asyncio.Transport, owner: TcpReceiver, core: ReceiverCore, data: bytes
) -> None:
    """A connection that was accepted elsewhere becomes one of this receiver; `data` is what has come over it."""
    connection = _Connection(owner, core)
    transport.set_protocol(connection)
    connection.connection_made(transport)
    connection.data_received(data)


class _Connection(asyncio.Protocol):
    """One media connection, accepted or dialled."""

    def __init__(self, owner: TcpReceiver, core: ReceiverCore) -> None:
        self._owner = owner
        self._core = core
        self._framer = Framer(core.spec.ssrc)
        self._transport: asyncio.Transport | None = None
        self._wanted = False
        self.since = 0.0
        self.source: Source = ("", 0, next(_numbers))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.since = asyncio.get_running_loop().time()
        peer = transport.get_extra_info("peername") or ("", 0)
        self.source = (peer[0], peer[1], self.source[-1])
        if not self._owner.made(self, self.since):
            self._core.quirk("rtp.second_connection", address(self.source))
            self._transport.abort()
            return
        self._wanted = True
        sock = transport.get_extra_info("socket")
        if sock is not None:
            keep_alive(sock)
        self._core.tell(EventKind.CONNECTED, peer=address(self.source))

    def data_received(self, data: bytes) -> None:
        if not self._wanted:
            return
        core, source = self._core, self.source
        try:
            packets = self._framer.feed(data)
        except FramingError:
            core.quirk("rtp.framing_lost")
            self.close()
            return
        for packet in packets:
            if packet is None:
                core.lost_framing(source)
            elif core.packet(packet, source) in _LATCHING:
                self._owner.proved(self)
        if self._framer.quirks:
            for name in self._framer.quirks:
                core.quirk(name)

    def send(self, data: bytes) -> bool:
        """False: too much waits for the kernel already."""
        if self._transport is None or self._transport.get_write_buffer_size() > MAX_WAITING_BYTES:
            return False
        self._transport.write(len(data).to_bytes(2, "big") + data)
        return True

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.ended(self)
        if not self._wanted:
            return
        self._wanted = False
        was_latched = self._core.gate.source == self.source
        self._core.disconnected(self.source)
        if was_latched:
            self._core.tell(EventKind.DISCONNECTED, peer=address(self.source))

    def close(self) -> None:
        if self._transport is not None:
            with suppress(OSError):
                self._transport.abort()
