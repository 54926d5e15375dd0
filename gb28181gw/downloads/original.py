"""Keeps what the device sent: its program stream, byte for byte, beside the file that is made of it.

The plane's raw RTP sink is the one way by which packets leave a plane without being demuxed and remuxed; here its peer
is a connection of our own on loopback, from which the payloads are taken in order. Lost packets stay missing: it is
what came, not what should have come.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine, EngineEvent, MediaTransport, RtpSinkSpec, RtpSinkUpdate
from gb28181gw.media.wire.exceptions import RtpError
from gb28181gw.media.wire.rtp import RtpPacket, is_rtcp

QUEUE_BYTES: Final = 64 * 1024 * 1024
"""What may wait in the plane: this end is in the same process and reads at once."""
_LENGTH: Final = struct.Struct("!H")
_LOOPBACK: Final = "127.0.0.1"
_SSRC: Final = 1


class OriginalKeeper(asyncio.Protocol):
    """The payloads of one stream. Owner of a listener, one connection and one sink."""

    def __init__(self, engine: Engine, on_data: Callable[[bytes], None]) -> None:
        self.untouched = False
        """The bytes are the device's own; else they were muxed here, from elementary streams."""
        self._engine = engine
        self._on_data = on_data
        self._server: asyncio.Server | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._sink: int | None = None
        self._buffer = bytearray()

    async def open(self, stream_id: str) -> bool:
        """Begin with the stream's first packet. False: this plane cannot send RTP."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: self, _LOOPBACK, 0)
            port = self._server.sockets[0].getsockname()[1]
            spec = RtpSinkSpec(
                transport=MediaTransport.TCP_ACTIVE,
                host=_LOOPBACK,
                ssrc=_SSRC,
                remote=(_LOOPBACK, port),
                queue_bytes=QUEUE_BYTES,
            )
            sink = await self._engine.add_rtp_sink(stream_id, spec, self._on_event)
        except (GatewayError, OSError):
            self.close()
            return False
        self._sink = sink.id
        self._engine.update_rtp_sink(sink.id, RtpSinkUpdate(sending=True))
        return True

    def look(self) -> None:
        """Take notice of how the sink works, while it does."""
        if self._sink is not None:
            counters = self._engine.rtp_sink_counters([self._sink]).get(self._sink)
            self.untouched = self.untouched or (counters is not None and counters.passthrough)

    def close(self) -> None:
        """Idempotent."""
        if self._sink is not None:
            self._engine.close_sink(self._sink)
            self._sink = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if self._server is not None:
            self._server.close()
            self._server = None

    def _on_event(self, event: EngineEvent) -> None:
        """The sink's end is the connection's end."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._transport is not None:
            transport.close()  # a stranger on loopback
            return
        self._transport = transport
        if self._server is not None:
            self._server.close()

    def data_received(self, data: bytes) -> None:
        """RFC 4571 frames of our own plane."""
        buffer = self._buffer
        buffer += data
        position, out = 0, []
        while position + 2 <= len(buffer):
            (size,) = _LENGTH.unpack_from(buffer, position)
            if position + 2 + size > len(buffer):
                break
            packet = bytes(buffer[position + 2 : position + 2 + size])
            position += 2 + size
            if is_rtcp(packet):
                continue
            try:
                read = RtpPacket.parse(packet)
            except RtpError:
                continue
            if read.ssrc == _SSRC:
                out.append(read.payload)
        del buffer[:position]
        if out:
            self._on_data(b"".join(out))
