"""SIP over TCP and TLS: the listeners and their connections.

The gateway answers and asks on the connection that a device opened and never dials the text of a Contact (REG-21,
GB/T 28181-2022 9.1.1 f); `TcpTransport.connect` is for the side that registers: the simulator, and us at an upper
platform.

A connection is *unverified* until `mark_trusted`: it may stay silent for 10 s, its message may take 5 s, and there
may be 8 of them from one host and 2,000 in all (F-08, S-20). A verified one is watched by TCP keepalive alone, and
by a limit on the time that one message may take.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, cast

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.grammar import MAX_TRUSTED_MESSAGE
from gb28181gw.sip.message import Message
from gb28181gw.sip.parser import Ping, StreamParser
from gb28181gw.sip.path import Path
from gb28181gw.transport.binding import BACKLOG, bind_tcp, set_keepalive
from gb28181gw.transport.counters import TransportCounters
from gb28181gw.transport.local_address import LocalAddresses, normalise
from gb28181gw.transport.receiver import Receiver
from gb28181gw.transport.tls import GOODBYE_S, shake


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpLimits:
    """Limits of threats 5."""

    unverified_per_host: int = 8
    unverified_total: int = 2_000
    total: int = 100_000
    """All connections, the verified ones too."""
    idle_s: float = 10.0
    """An unverified connection without a complete message."""
    message_s: float = 5.0
    """From the first to the last byte of a message, unverified."""
    verified_message_s: float = 30.0
    """The same, verified: 1 MB over a slow uplink."""
    backlog_bytes: int = 2 * 1024 * 1024
    """Unsent bytes at which a peer that does not read is cut off."""


_connection_ids = itertools.count(1)
_SWEEP_S: Final = 1.0
_ACCEPT_RETRY_S: Final = 0.2
_FLUSH_S: Final = 0.2
"""Silence after which a body with a doubtful Content-Length is taken as declared (`StreamParser.waiting`)."""


class _Connection(asyncio.Protocol):
    """One connection: framing, its deadlines, its end. Owned by `TcpTransport`."""

    def __init__(
        self, owner: TcpTransport, *, dialled: bool, before: Callable[[], None] | None = None
    ) -> None:
        """`before` is called when the connection is there, before it is counted."""
        self.owner = owner
        self._before = before
        self.verified = dialled
        """A connection that we dialled is one that we want."""
        self.path = Path("tcp", "", 0)
        self.last_message_at = 0.0
        self.partial_since: float | None = None
        self._parser = StreamParser()
        self._transport: asyncio.Transport | None = None
        self._flush: asyncio.TimerHandle | None = None
        self.accepted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        if self._before is not None:
            self._before()
        set_keepalive(transport.get_extra_info("socket"))
        remote, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if remote is None or local is None:
            transport.abort()  # reset before it was accepted
            return
        host = normalise(str(remote[0]))
        self.path = Path(
            "tls" if transport.get_extra_info("ssl_object") is not None else "tcp",
            host,
            int(remote[1]),
            self.owner.addresses.advertised or normalise(str(local[0])),
            int(local[1]),
            next(_connection_ids),
        )
        self.last_message_at = self.owner.now()
        self.accepted = self.owner.add(self)
        if not self.accepted:
            transport.abort()

    def trust(self) -> None:
        """The peer has proved itself: it may be silent, and send what Annex M allows in one message."""
        self.verified = True
        self._parser.allow(MAX_TRUSTED_MESSAGE)

    def data_received(self, data: bytes) -> None:
        now = self.owner.now()
        self._take(self._parser.feed(data), now)
        if not self._parser.buffered:
            self.partial_since = None
        elif self.partial_since is None:
            self.partial_since = now
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._parser.waiting:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_S, self._flush_parser)

    def _flush_parser(self) -> None:
        """Nothing followed a body with a doubtful length: take it as declared (XML-14)."""
        self._flush = None
        self._take(self._parser.flush(), self.owner.now())
        if not self._parser.buffered:
            self.partial_since = None

    def _take(self, items: list[Message | Ping | SipParseError], now: float) -> None:
        counters, receiver = self.owner.counters, self.owner.receiver
        ponged = False
        for item in items:
            if self._transport is None or self._transport.is_closing():
                return
            self.partial_since = None
            if isinstance(item, Ping):
                counters.pings += 1
                # One answer for all that came at once: a flood costs as little as a ping.
                if not ponged:
                    ponged = True
                    self.write(b"\r\n")
            elif not receiver.admit(self.path):
                counters.gated += 1
                self._transport.abort()
            elif isinstance(item, SipParseError):
                counters.malformed += 1
                receiver.on_malformed(item, self.path, b"")
                if item.fatal:
                    counters.closed_framing += 1
                    self._transport.close()
            else:
                # Only messages keep an unverified connection open; a keepalive proves nothing.
                self.last_message_at = now
                counters.received += 1
                receiver.on_message(item, self.path, b"")

    def eof_received(self) -> bool:
        return False  # the peer will send no more, so there is nobody to answer: close

    def connection_lost(self, exc: Exception | None) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self.owner.remove(self)

    def write(self, data: bytes) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() + len(data) > self.owner.limits.backlog_bytes:
            self.owner.counters.closed_backlog += 1
            transport.abort()
            return False
        transport.write(data)
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def overdue(self, now: float, limits: TcpLimits) -> str:
        """Why this connection has to go: ``slow``, ``idle``, or empty."""
        allowed = limits.verified_message_s if self.verified else limits.message_s
        if self.partial_since is not None and now - self.partial_since >= allowed:
            return "slow"
        if not self.verified and now - self.last_message_at >= limits.idle_s:
            return "idle"
        return ""


class TcpTransport:
    """Owner of the listener and of every connection."""

    def __init__(
        self,
        receiver: Receiver,
        counters: TransportCounters,
        addresses: LocalAddresses,
        clock: Clock,
        limits: TcpLimits | None = None,
    ) -> None:
        self.receiver = receiver
        self.counters = counters
        self.addresses = addresses
        self.limits = limits if limits is not None else TcpLimits()
        self.now: Callable[[], float] = clock.monotonic
        self._servers: list[asyncio.Server] = []
        self._connections: dict[int, _Connection] = {}
        self._unverified: dict[str, int] = {}
        """Host -> number of its unverified connections, handshakes included."""
        self._tls_listeners: list[socket.socket] = []
        self._tls_tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def listen(self, host: str, port: int) -> int:
        """Bind and accept; returns the port. Raises `GatewayError` gb.config.*."""
        bound = bind_tcp(host, port, key="sip.listen")
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_server(lambda: _Connection(self, dialled=False), sock=bound, backlog=BACKLOG)
        )
        return int(bound.getsockname()[1])

    async def listen_tls(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Bind and accept TLS; returns the port. Raises `GatewayError` gb.config.*."""
        bound = bind_tcp(host, port, key="sip.listen_tls")
        self._tls_listeners.append(bound)
        self._keep(self._accept_tls(bound, context), "SIP TLS listener")
        return int(bound.getsockname()[1])

    async def _accept_tls(self, bound: socket.socket, context: ssl.SSLContext) -> None:
        """Accepts by hand, so that a connection counts before it has shown TLS (S-20)."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, remote = await loop.sock_accept(bound)
            except OSError:
                await asyncio.sleep(
                    _ACCEPT_RETRY_S
                )  # reset before it was accepted, or no file descriptor left
                continue
            host = normalise(str(remote[0]))
            if len(self._connections) >= self.limits.total or not self._has_room(host):
                self.counters.connections_refused += 1
                accepted.close()
                continue
            accepted.setblocking(False)
            self._count_unverified(host)
            self._keep(self._shake(accepted, host, context), "SIP TLS handshake")

    async def _shake(self, accepted: socket.socket, host: str, context: ssl.SSLContext) -> None:
        counted = True

        def protocol() -> _Connection:
            return _Connection(self, dialled=False, before=leave)

        def leave() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._uncount_unverified(host)

        try:
            if not await shake(accepted, context, protocol):
                self.counters.handshakes_failed += 1
        finally:
            leave()

    def _keep(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tls_tasks.add(task)
        task.add_done_callback(self._tls_tasks.discard)

    async def connect(
        self,
        host: str,
        port: int,
        *,
        local_host: str = "",
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
        tls_name: str = "",
    ) -> Path:
        """Open a connection to a configured address; it counts as verified. Raises `GatewayError` gb.sip.path_lost.

        `tls_name`: the name or address that the peer's certificate must be for; `host` by default.
        """
        loop = asyncio.get_running_loop()
        kind = "TLS" if tls is not None else "TCP"
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, dialled=True),
                    host,
                    port,
                    local_addr=(local_host, 0) if local_host else None,
                    ssl=tls,
                    server_hostname=(tls_name or host) if tls is not None else None,
                    ssl_shutdown_timeout=GOODBYE_S if tls is not None else None,
                )
        except TimeoutError as error:
            raise GatewayError(
                "gb.sip.path_lost",
                f"{kind} {host}:{port} did not accept a connection within {timeout_s:g} s.",
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise GatewayError(
                "gb.sip.path_lost",
                f"TLS {host}:{port}: its certificate is refused: {error.verify_message or error.reason}.",
            ) from error
        except ssl.SSLError as error:
            raise GatewayError(
                "gb.sip.path_lost", f"TLS {host}:{port}: the handshake failed: {error.reason or error}."
            ) from error
        except OSError as error:
            raise GatewayError(
                "gb.sip.path_lost", f"{kind} {host}:{port} cannot be reached: {error.strerror or error}."
            ) from error
        if not connection.accepted:
            raise GatewayError(
                "gb.sip.path_lost", f"{kind} {host}:{port}: the limit of connections is reached."
            )
        return connection.path

    def send(self, path: Path, data: bytes) -> bool:
        """Write to the path's connection; False when it is gone or its peer does not read."""
        connection = self._connections.get(path.connection_id)
        return connection is not None and connection.write(data)

    def mark_trusted(self, connection_id: int) -> None:
        """The peer has proved itself: the limits of unverified connections no longer apply. Idempotent."""
        connection = self._connections.get(connection_id)
        if connection is not None and not connection.verified:
            connection.trust()
            self._leave_unverified(connection)

    def close_connection(self, connection_id: int) -> None:
        """Send what is buffered and close; unknown ids are ignored."""
        connection = self._connections.get(connection_id)
        if connection is not None:
            connection.close()

    def is_open(self, connection_id: int) -> bool:
        return connection_id in self._connections

    async def close(self) -> None:
        """Stop listening, end every connection and wait for it."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for server in self._servers:
            server.close()
        for task in self._tls_tasks:
            task.cancel()
        await asyncio.gather(*self._tls_tasks, return_exceptions=True)
        for listener in self._tls_listeners:
            listener.close()
        self._tls_listeners.clear()
        for connection in list(self._connections.values()):
            connection.abort()
        await self._empty.wait()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    # called by connections

    def add(self, connection: _Connection) -> bool:
        """Take a new connection in, or refuse it because a limit is reached."""
        host = connection.path.remote_host
        if len(self._connections) >= self.limits.total or (
            not connection.verified and not self._has_room(host)
        ):
            self.counters.connections_refused += 1
            return False
        if not connection.verified:
            self._count_unverified(host)
        self._connections[connection.path.connection_id] = connection
        self._empty.clear()
        self.counters.connections += 1
        self.counters.connections_accepted += 1
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        return True

    def remove(self, connection: _Connection) -> None:
        """A connection has ended."""
        if self._connections.pop(connection.path.connection_id, None) is None:
            return
        self.counters.connections -= 1
        if not connection.verified:
            self._leave_unverified(connection)
        if not self._connections:
            self._empty.set()
        self.receiver.on_closed(connection.path)

    def _has_room(self, host: str) -> bool:
        return (
            self._unverified.get(host, 0) < self.limits.unverified_per_host
            and self.counters.connections_unverified < self.limits.unverified_total
        )

    def _count_unverified(self, host: str) -> None:
        self._unverified[host] = self._unverified.get(host, 0) + 1
        self.counters.connections_unverified += 1

    def _uncount_unverified(self, host: str) -> None:
        self.counters.connections_unverified -= 1
        left = self._unverified[host] - 1
        if left:
            self._unverified[host] = left
        else:
            del self._unverified[host]

    def _leave_unverified(self, connection: _Connection) -> None:
        self._uncount_unverified(connection.path.remote_host)

    def _sweep(self) -> None:
        """End what is overdue. Runs once a second while there is a connection: one timer instead of thousands."""
        self._sweeper = None
        now = self.now()
        for connection in list(self._connections.values()):
            reason = connection.overdue(now, self.limits)
            if reason == "slow":
                self.counters.closed_slow += 1
                connection.abort()
            elif reason == "idle":
                self.counters.closed_idle += 1
                connection.abort()
        if self._connections:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
