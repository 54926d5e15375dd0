"""RTP and RTCP over UDP: a pair of sockets, and the receiver reports that go back."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from gb28181gw.media.reference.receiver import ReceiverCore
from gb28181gw.media.reference.source import Source

MAX_WAITING_BYTES = 64 * 1024
"""What may wait in the transport for the kernel; the rest waits in the queue of the sink."""


class _RtpSocket(asyncio.DatagramProtocol):
    def __init__(self, core: ReceiverCore) -> None:
        self._packet = core.packet

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._packet(data, addr[:2])

    def error_received(self, exc: Exception) -> None:
        """An ICMP answer to one of our reports; the device's silence is seen elsewhere."""


class _RtcpSocket(asyncio.DatagramProtocol):
    def __init__(self, core: ReceiverCore) -> None:
        self._core = core

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._core.rtcp_packet(data, addr[:2])

    def error_received(self, exc: Exception) -> None:
        """As for RTP."""


class UdpReceiver:
    """Owner of one bound pair, or user of a `borrowed` one that several receivers share."""

    def __init__(
        self,
        core: ReceiverCore,
        borrowed: tuple[asyncio.DatagramTransport, asyncio.DatagramTransport] | None = None,
    ) -> None:
        self._core = core
        self._owns = borrowed is None
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtcp: asyncio.DatagramTransport | None = None
        if borrowed is not None:
            self._rtp, self._rtcp = borrowed

    async def start(self, rtp: socket.socket, rtcp: socket.socket) -> None:
        """Take the bound sockets over; on an error both are closed."""
        loop = asyncio.get_running_loop()
        core = self._core
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: _RtpSocket(core), sock=rtp)
            self._rtp = transport
            transport, _ = await loop.create_datagram_endpoint(lambda: _RtcpSocket(core), sock=rtcp)
            self._rtcp = transport
        except BaseException:
            self.close()
            rtp.close()
            rtcp.close()
            raise

    def tick(self, now: float) -> None:
        """Send the receiver report when it is due (MED-31).

        To where the device's RTCP came from; until some came, to the port above its RTP port, and to the
        RTP port itself, which is the only open way through a NAT. Nothing goes to a source that has not
        proved itself.
        """
        latched = self._core.gate.source
        if self._rtp is None or self._rtcp is None or latched is None or len(latched) != 2:
            return
        report = self._core.due_report(now)
        if report is None:
            return
        peer = self._core.rtcp_peer
        if peer is not None:
            self._send(self._rtp if peer == latched else self._rtcp, report, peer)
            return
        if latched[1] < 65535:
            self._send(self._rtcp, report, (latched[0], latched[1] + 1))
        self._send(self._rtp, report, latched)

    def send(self, data: bytes, target: tuple[str, int]) -> bool:
        """A packet of an RTP sink from this receiver's RTP port; False: too many wait already."""
        if self._rtp is None:
            return True
        # Datagram transports of both loops have it too; the interface does not say so.
        if cast("asyncio.WriteTransport", self._rtp).get_write_buffer_size() > MAX_WAITING_BYTES:
            return False
        self._rtp.sendto(data, target)
        return True

    def send_control(self, data: bytes, target: tuple[str, int]) -> None:
        """The same for RTCP: to the port above, or where the peer's RTCP came from."""
        peer = self._core.rtcp_peer
        if self._rtcp is not None and target[1] < 65535:
            host_port = (peer[0], peer[1]) if peer is not None else (target[0], target[1] + 1)
            self._rtcp.sendto(data, host_port)

    @staticmethod
    def _send(transport: asyncio.DatagramTransport, data: bytes, peer: Source) -> None:
        transport.sendto(data, (peer[0], peer[1]))

    def close(self) -> None:
        """Idempotent."""
        for transport in (self._rtp, self._rtcp):
            if transport is not None and self._owns:
                transport.abort()
        self._rtp = self._rtcp = None
