"""What a simulated platform receives: RTP over UDP or TCP, its payloads written to a file in the order of sending."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import BinaryIO

from gb28181gw.media.wire.exceptions import WireError
from gb28181gw.media.wire.reorder import Gap, ReorderBuffer
from gb28181gw.media.wire.rfc4571 import Framer
from gb28181gw.media.wire.rtp import RtpPacket, is_rtcp


class Recording:
    """Payloads of one call. A gap in the sequence is counted and nothing is put in its place."""

    def __init__(self, path: Path | None, ssrc: int) -> None:
        self.ssrc = ssrc
        self.packets = 0
        self.bytes = 0
        self.lost = 0
        self.foreign = 0
        """Packets with another SSRC."""
        self.first = asyncio.Event()
        """The first packet is there."""
        self._file: BinaryIO | None = path.open("wb") if path is not None else None
        self._order = ReorderBuffer()

    def take(self, data: bytes) -> None:
        """One RTP packet as it came."""
        if len(data) < 12 or is_rtcp(data):
            return
        try:
            packet = RtpPacket.parse(data)
        except WireError:
            return
        if packet.ssrc != self.ssrc:
            self.foreign += 1
            return
        self._write(self._order.push(packet, asyncio.get_running_loop().time()))
        self.first.set()

    def close(self) -> None:
        """Write what waited for its turn. Idempotent."""
        self._write(self._order.flush())
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, packets: list[RtpPacket | Gap]) -> None:
        for packet in packets:
            if isinstance(packet, Gap):
                self.lost += 1
                continue
            self.packets += 1
            self.bytes += len(packet.payload)
            if self._file is not None:
                self._file.write(packet.payload)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._recording.take(data)


class _Tcp(asyncio.Protocol):
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._framer = Framer(recording.ssrc)

    def data_received(self, data: bytes) -> None:
        for packet in self._framer.feed(data):
            if packet is not None:
                self._recording.take(packet)


class MediaSocket:
    """Where the media of one call arrives. Owner of its sockets."""

    def __init__(self, host: str, recording: Recording) -> None:
        self._host = host
        self._recording = recording
        self._server: asyncio.Server | None = None
        self._transport: asyncio.BaseTransport | None = None

    async def udp(self) -> int:
        """Bind; returns the port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Udp(self._recording), local_addr=(self._host, 0)
        )
        return int(self._transport.get_extra_info("sockname")[1])

    async def listen(self) -> int:
        """Wait for the sender's connection; returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Tcp(self._recording), self._host, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def connect(self, host: str, port: int) -> None:
        """Connect to the sender. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: _Tcp(self._recording), host, port)

    async def close(self) -> None:
        """Close everything. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._recording.close()
