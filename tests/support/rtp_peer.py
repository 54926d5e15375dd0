"""Peers of RTP sinks: what an upper platform or a device that listens is, as far as packets go."""

from __future__ import annotations

import asyncio
import socket

from gb28181gw.media.wire.rfc4571 import Framer
from gb28181gw.media.wire.rtp import RtpPacket
from tests.support.plane import free_port_pair


class UdpPeer:
    """A pair of sockets that keeps what comes."""

    def __init__(self) -> None:
        self.port = free_port_pair()
        self.datagrams: list[bytes] = []
        self.reports: list[tuple[bytes, tuple[str, int]]] = []
        self._sockets: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        for port in (self.port, self.port + 1):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
            sock.setblocking(False)
            sock.bind(("127.0.0.1", port))
            loop.add_reader(sock, self._read, sock)
            self._sockets.append(sock)

    @property
    def remote(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def packets(self) -> list[RtpPacket]:
        return [RtpPacket.parse(data) for data in self.datagrams if not 200 <= data[1] <= 204]

    @property
    def payload(self) -> bytes:
        return b"".join(packet.payload for packet in self.packets)

    def send_rtcp(self, data: bytes, to: tuple[str, int]) -> None:
        self._sockets[1].sendto(data, to)

    def send_rtp(self, data: bytes, to: tuple[str, int]) -> None:
        self._sockets[0].sendto(data, to)

    def _read(self, sock: socket.socket) -> None:
        while True:
            try:
                data, source = sock.recvfrom(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            if sock is self._sockets[0]:
                self.datagrams.append(data)
            else:
                self.reports.append((data, source))

    def close(self) -> None:
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()


class TcpPeer:
    """One connection of RFC 4571; `reading` False stands still, as a stalled peer does."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.ended = False
        self._framer = Framer()
        self.frames: list[bytes] = []
        self._reading = False
        self.read()

    @classmethod
    async def dial(cls, port: int, host: str = "127.0.0.1", source: str = "127.0.0.1") -> TcpPeer:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        return cls(sock)

    @property
    def packets(self) -> list[RtpPacket]:
        return [RtpPacket.parse(data) for data in self.frames if not 200 <= data[1] <= 204]

    @property
    def payload(self) -> bytes:
        return b"".join(packet.payload for packet in self.packets)

    def read(self) -> None:
        if not self._reading and not self.ended:
            self._reading = True
            asyncio.get_running_loop().add_reader(self.sock, self._readable)

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self.sock)

    def drain(self) -> bool:
        """Read without the loop, which does not tell of a reset (uvloop). True: the connection has ended."""
        if not self.ended:
            self._readable()
        return self.ended

    def _readable(self) -> None:
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
            self.pause()
            return
        self.frames += [packet for packet in self._framer.feed(data) if packet is not None]

    def close(self) -> None:
        self.pause()
        self.sock.close()
