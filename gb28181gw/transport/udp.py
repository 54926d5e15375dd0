"""SIP over UDP: one socket."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.parser import parse_datagram
from gb28181gw.sip.path import Path
from gb28181gw.transport.binding import bind_udp
from gb28181gw.transport.counters import TransportCounters
from gb28181gw.transport.local_address import LocalAddresses, is_unspecified, normalise
from gb28181gw.transport.receiver import Receiver


class UdpTransport(asyncio.DatagramProtocol):
    """A bound UDP socket that parses what comes and sends what it is given.

    Datagrams of up to 64 KB are taken (devices send catalogue pages of that size in fragments).
    """

    def __init__(self, receiver: Receiver, counters: TransportCounters, addresses: LocalAddresses) -> None:
        self.receiver = receiver
        self._counters = counters
        self._addresses = addresses
        self._transport: asyncio.DatagramTransport | None = None
        self._closed: asyncio.Future[None] | None = None
        self._mapped = False
        self._local_host = ""
        """What we call ourselves towards everybody; empty: it depends on the peer."""
        self.host = ""
        """As bound; may be the wildcard, and is then told to nobody."""
        self.port = 0

    async def bind(self, host: str, port: int) -> None:
        """Bind and start to receive; port 0 takes any. Raises `GatewayError` gb.config.*."""
        loop = asyncio.get_running_loop()
        bound = bind_udp(host, port, key="sip.listen")
        self._mapped = bound.family == socket.AF_INET6
        name = bound.getsockname()
        self.host, self.port = str(name[0]), int(name[1])
        if self._addresses.advertised:
            self._local_host = self._addresses.advertised
        elif not is_unspecified(self.host):
            self._local_host = normalise(self.host)
        self._closed = loop.create_future()
        await loop.create_datagram_endpoint(lambda: self, sock=bound)

    def path_to(self, remote_host: str, remote_port: int) -> Path:
        """The path to a peer through this socket."""
        host = normalise(remote_host)
        return Path("udp", host, remote_port, self._local_host or self._addresses.towards(host), self.port)

    def send(self, path: Path, data: bytes) -> bool:
        """Hand a datagram to the kernel; False when the socket is closed or the kernel refuses the address."""
        if self._transport is None or self._transport.is_closing():
            return False
        host = path.remote_host
        if self._mapped and ":" not in host:
            host = "::ffff:" + host
        try:
            self._transport.sendto(data, (host, path.remote_port))
        except (OSError, ValueError):
            # An address that cannot be reached from this host; the transaction's timer reports it.
            self._addresses.forget()
            return False
        return True

    async def close(self) -> None:
        """Close the socket and wait until it is closed."""
        if self._transport is not None and self._closed is not None:
            self._transport.close()
            await self._closed

    # asyncio.DatagramProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's does not derive from it

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        host = addr[0]
        if self._mapped:
            host = normalise(host)
        path = Path("udp", host, addr[1], self._local_host or self._addresses.towards(host), self.port)
        counters = self._counters
        counters.received += 1
        if not self.receiver.admit(path):
            counters.gated += 1
            return
        try:
            message = parse_datagram(data)
        except SipParseError as error:
            counters.malformed += 1
            self.receiver.on_malformed(error, path, data)
            return
        if message is None:
            counters.pings += 1
            return
        self.receiver.on_message(message, path, data)

    def error_received(self, exc: Exception) -> None:
        # An ICMP answer to something sent earlier; it names nobody, so timers decide. It may be our own route.
        self._counters.send_failures += 1
        self._addresses.forget()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
