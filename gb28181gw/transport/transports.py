"""The one face of all SIP sockets: send by path, receive through three calls.

Several UDP sockets may live here beside each other: the gateway has one, a simulator one for each of its thousands
of devices. A path names its socket by local port (and host, where a socket is bound to one address).
"""

from __future__ import annotations

import ssl
from typing import Final

from gb28181gw.clock import Clock, SystemClock
from gb28181gw.errors import GatewayError
from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Message
from gb28181gw.sip.path import Path
from gb28181gw.transport.counters import TransportCounters
from gb28181gw.transport.local_address import LocalAddresses
from gb28181gw.transport.receiver import Receiver
from gb28181gw.transport.tcp import TcpLimits, TcpTransport
from gb28181gw.transport.udp import UdpTransport

_TRIES_FOR_ANY_PORT: Final = 20


class _Nobody:
    """Receiver until the user agent attaches: everything is dropped."""

    def admit(self, path: Path) -> bool:
        return False

    def on_message(self, message: Message, path: Path, data: bytes) -> None:
        return

    def on_malformed(self, error: SipParseError, path: Path, data: bytes) -> None:
        return

    def on_closed(self, path: Path) -> None:
        return


class Transports:
    """Owner of the sockets. Attach the receiver before `listen`."""

    def __init__(
        self, *, advertise: str = "", clock: Clock | None = None, tcp_limits: TcpLimits | None = None
    ) -> None:
        self.counters = TransportCounters()
        self.addresses = LocalAddresses(advertise=advertise)
        self._receiver: Receiver = _Nobody()
        self._by_port: dict[int, UdpTransport] = {}
        self._by_address: dict[tuple[str, int], UdpTransport] = {}
        self._tcp = TcpTransport(
            self._receiver,
            self.counters,
            self.addresses,
            clock if clock is not None else SystemClock(),
            tcp_limits,
        )

    def attach(self, receiver: Receiver) -> None:
        """Say who gets what arrives."""
        self._receiver = receiver
        self._tcp.receiver = receiver
        for transport in self._by_address.values():
            transport.receiver = receiver

    async def listen(self, host: str, port: int) -> int:
        """Bind UDP and TCP of one port and start both; returns the port. All or nothing.

        Port 0 takes any port that is free for both. Raises `GatewayError` gb.config.*.
        """
        tries = 1 if port else _TRIES_FOR_ANY_PORT
        while True:
            udp = await self.add_udp(host, port)
            try:
                return await self._tcp.listen(host, udp.port)
            except GatewayError:
                await self.remove_udp(udp)
                tries -= 1
                if not tries:
                    raise

    async def listen_tls(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Bind TLS beside the rest; returns the port. Raises `GatewayError` gb.config.*."""
        return await self._tcp.listen_tls(host, port, context)

    async def add_udp(self, host: str, port: int = 0) -> UdpTransport:
        """Bind one more UDP socket, to be closed by `remove_udp` or `close`. Raises `GatewayError` gb.config.*."""
        transport = UdpTransport(self._receiver, self.counters, self.addresses)
        await transport.bind(host, port)
        self._by_address[(transport.host, transport.port)] = transport
        self._by_port[transport.port] = transport
        return transport

    async def remove_udp(self, transport: UdpTransport) -> None:
        """Close one UDP socket. Idempotent."""
        self._by_address.pop((transport.host, transport.port), None)
        if self._by_port.get(transport.port) is transport:
            del self._by_port[transport.port]
        await transport.close()

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
        """Open a TCP or TLS connection to a *configured* peer. Raises `GatewayError` gb.sip.path_lost."""
        return await self._tcp.connect(
            host, port, local_host=local_host, timeout_s=timeout_s, tls=tls, tls_name=tls_name
        )

    def path_to(self, host: str, port: int) -> Path:
        """The UDP path to a *configured* peer, from the first socket. Raises `GatewayError` gb.sip.path_lost."""
        first = next(iter(self._by_address.values()), None)
        if first is None:
            raise GatewayError("gb.sip.path_lost", "No SIP listener is open.")
        return first.path_to(host, port)

    def send(self, path: Path, data: bytes) -> bool:
        """Send one message on the path; False when that is not possible any more."""
        if path.transport == "udp":
            transport = self._by_address.get((path.local_host, path.local_port)) or self._by_port.get(
                path.local_port
            )
            sent = transport is not None and transport.send(path, data)
        else:
            sent = self._tcp.send(path, data)
        if sent:
            self.counters.sent += 1
        else:
            self.counters.send_failures += 1
        return sent

    def mark_trusted(self, path: Path) -> None:
        """The peer at the end of this connection has proved itself; no effect for UDP."""
        if path.connection_id:
            self._tcp.mark_trusted(path.connection_id)

    def close_path(self, path: Path) -> None:
        """Close the path's connection; no effect for UDP."""
        if path.connection_id:
            self._tcp.close_connection(path.connection_id)

    def is_open(self, path: Path) -> bool:
        """Can something be sent on this path now, as far as we know."""
        if path.connection_id:
            return self._tcp.is_open(path.connection_id)
        return path.transport == "udp" and path.local_port in self._by_port

    async def close(self) -> None:
        """Close every socket and wait until all are closed."""
        for transport in list(self._by_address.values()):
            await self.remove_udp(transport)
        await self._tcp.close()
