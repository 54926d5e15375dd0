"""Where a stream's packets go: a UDP socket pair, a TCP connection that the device dials, or one that it accepts.

RFC 3550 11 (even port, RTCP one above), RFC 4571 framing, RFC 4145 roles; GB/T 28181-2022 Annex D.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Protocol, cast

from gb28181gw.media.wire.rfc4571 import frame
from gb28181gw.sim.faults import FaultRates, Impairment
from gb28181gw.sim.quirks import Quirk

CONNECT_TRIES = 3
CONNECT_PAUSE_S = 1.0
"""Annex D: at least 3 further attempts, at least 1 s apart."""
TCP_BUFFER_BYTES = 1024 * 1024
"""Unsent bytes above which a TCP stream drops pictures, as a camera with a small buffer does."""
_CUT_EVERY = 97
"""MED-25: one packet in so many is cut short."""

Closed = Callable[[str], None]
"""Told once why the link ended by itself."""


class Link(Protocol):
    """Takes RTP packets."""

    max_payload: int

    @property
    def congested(self) -> bool:
        """The peer does not take what is sent: pictures should be left out."""
        ...

    def send(self, packet: bytes) -> int:
        """Bytes that left; 0 when the packet was lost here."""
        ...

    def close(self) -> None: ...


def bind_pair(host: str, first_port: int = 0) -> tuple[socket.socket, socket.socket]:
    """Non-blocking UDP sockets on an even port and the one above. Raises OSError when none is found."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last_error: OSError | None = None
    for _ in range(64):
        rtp = socket.socket(family, socket.SOCK_DGRAM)
        rtcp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            rtp.bind((host, first_port))
            port = rtp.getsockname()[1]
            if port % 2:
                raise OSError(f"port {port} is odd")
            rtcp.bind((host, port + 1))
        except OSError as error:
            last_error = error
            rtp.close()
            rtcp.close()
            if first_port:
                raise
            continue
        rtp.setblocking(False)
        rtcp.setblocking(False)
        return rtp, rtcp
    raise last_error or OSError("no free pair of UDP ports")


class UdpLink:
    """RTP over UDP from a port pair of its own."""

    max_payload = 1400

    def __init__(self, host: str, rates: FaultRates, rng: random.Random) -> None:
        self._host = host
        self._rtp, self._rtcp = bind_pair(host)
        self.port: int = self._rtp.getsockname()[1]
        self.refused = 0
        """ICMP port unreachable seen: nobody listens. A device goes on regardless."""
        self._target: tuple[str, int] | None = None
        self._impairment = None if rates.none else Impairment(rates, rng)
        self._closed = False

    def connect(self, host: str, port: int) -> None:
        """Where packets go from now on."""
        self._target = (host, port)
        self._rtp.connect(self._target)

    @property
    def congested(self) -> bool:
        return False

    def send(self, packet: bytes) -> int:
        if self._closed:
            return 0
        if self._impairment is None:
            return self._send(packet)
        return sum(self._send(data) for data in self._impairment.apply(packet))

    def _send(self, packet: bytes) -> int:
        try:
            return self._rtp.send(packet)
        except BlockingIOError:
            return 0
        except ConnectionRefusedError:
            self.refused += 1
            return 0
        except OSError:
            return 0

    def move(self) -> None:
        """Go on from another source port, as behind a NAT that forgot (MED-33)."""
        target = self._target
        self._rtp.close()
        self._rtcp.close()
        self._rtp, self._rtcp = bind_pair(self._host)
        self.port = self._rtp.getsockname()[1]
        if target is not None:
            self.connect(*target)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._rtp.close()
            self._rtcp.close()


class TcpLink(asyncio.Protocol):
    """RTP over one TCP connection, dialled or accepted."""

    def __init__(self, quirks: frozenset[Quirk], on_connected: Callable[[], None], on_closed: Closed) -> None:
        self.max_payload = 60_000 if Quirk.MED_27 in quirks else 1400
        self._interleaved = Quirk.MED_26 in quirks
        self._cut = Quirk.MED_25 in quirks
        self._on_connected = on_connected
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._server: asyncio.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._sent = 0
        self._closed = False

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast("asyncio.Transport", transport)  # uvloop's own class has the same methods
        if self._closed or self._transport is not None:
            connection.abort()
            return
        self._transport = connection
        if self._server is not None:
            self._server.close()
            self._server = None
        self._on_connected()

    def data_received(self, data: bytes) -> None:
        """RTCP of the receiver; a simple camera ignores it."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed and self._transport is not None:
            self._transport = None
            self._end("connection_lost")

    # control
    async def listen(self, host: str) -> int:
        """Wait for the receiver to dial; returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self, host, 0)
        address: tuple[str, int] = self._server.sockets[0].getsockname()
        return address[1]

    def dial(self, host: str, port: int, local_host: str, delay_s: float = 0.0) -> None:
        """Connect in the background, with the retries of Annex D."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._dial(host, port, local_host, delay_s))

    async def _dial(self, host: str, port: int, local_host: str, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if delay_s:
            await asyncio.sleep(delay_s)
        for attempt in range(CONNECT_TRIES + 1):
            if attempt:
                await asyncio.sleep(CONNECT_PAUSE_S)
            try:
                await loop.create_connection(lambda: self, host, port, local_addr=(local_host, 0))
                return
            except OSError:
                continue
        self._end("connect_failed")

    @property
    def congested(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > TCP_BUFFER_BYTES

    def send(self, packet: bytes) -> int:
        transport = self._transport
        if transport is None:
            return 0
        data = b"$\x00" + len(packet).to_bytes(2, "big") + packet if self._interleaved else frame(packet)
        self._sent += 1
        if self._cut and self._sent % _CUT_EVERY == 0:
            # Half of the packet never follows its length: what a partial write that nobody looked at leaves.
            data = data[: len(data) // 2]
        transport.write(data)
        return len(data)

    def _end(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._on_closed(reason)

    def close(self) -> None:
        self._closed = True
        if self._task is not None:
            # The task may be the caller: it ends by itself then.
            if self._task is not asyncio.current_task():
                self._task.cancel()
            self._task = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._transport is not None:
            # What was written still goes out; a peer that reads nothing must not keep the connection.
            transport, self._transport = self._transport, None
            if transport.get_write_buffer_size():
                transport.abort()
            else:
                transport.close()
