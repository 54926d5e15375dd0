"""What a simulated loudspeaker hears: RTP in, by UDP or TCP, decoded to PCM and kept, so that it can be looked at."""

from __future__ import annotations

import asyncio
import socket
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from gb28181gw.media.wire.aac import split_au_headers
from gb28181gw.media.wire.exceptions import WireError
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.rfc4571 import Framer
from gb28181gw.media.wire.rtp import RtpPacket, is_rtcp
from gb28181gw.sim.media_links import bind_pair
from gb28181gw.sim.options import TalkCodec, TalkTransport

RATE: Final = 8_000
LIMIT_S: Final = 600
"""Sound kept."""

_DECODERS: Final = {"pcma": "pcm_alaw", "pcmu": "pcm_mulaw", "aac": "aac", "ps": "pcm_alaw"}


class Ear:
    """Owner of one audio socket. `close` is idempotent."""

    def __init__(self, codec: TalkCodec, changed: Callable[[], None]) -> None:
        self.codec: TalkCodec = codec
        self.pcm = bytearray()
        """Signed 16-bit little-endian mono samples at 8 kHz."""
        self.packets = 0
        self.malformed = 0
        self.ssrcs: set[int] = set()
        self.sources: set[tuple[str, int]] = set()
        """Where packets came from."""
        self.spans: list[int] = []
        """Steps of the RTP timestamps, as long as they are few."""
        self.connected = False
        self.port = 0
        self.parameter_sets = b""
        """AAC: the AudioSpecificConfig of the answer's fmtp."""
        self._changed = changed
        self._decoder: AudioCodecContext | None = None
        self._resampler = AudioResampler("s16", "mono", RATE)
        self._demuxer = PsDemuxer()
        self._last_timestamp: int | None = None
        self._sockets: tuple[socket.socket, ...] = ()
        self._peer: tuple[str, int] | None = None
        self._server: asyncio.Server | None = None
        self._link: _TcpEar | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._closed = False

    # --- sockets --------------------------------------------------------------------------------------------------

    async def open(self, host: str, transport: TalkTransport) -> int:
        """Make the socket; the port for the SDP (9 for a side that dials)."""
        loop = asyncio.get_running_loop()
        if transport == "udp":
            rtp, rtcp = bind_pair(host)
            self._sockets = (rtp, rtcp)
            loop.add_reader(rtp.fileno(), self._readable, rtp)
            self.port = rtp.getsockname()[1]
        elif transport == "tcp-passive":
            self._server = await loop.create_server(lambda: _TcpEar(self), host, 0)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            self.port = 9
        return self.port

    def send_to(self, host: str, port: int) -> None:
        """Where `speak` sends over UDP."""
        self._peer = (host, port)

    def dial(self, host: str, port: int) -> None:
        """tcp-active: connect in the background."""

        async def connect() -> None:
            try:
                await asyncio.get_running_loop().create_connection(lambda: _TcpEar(self), host, port)
            except OSError:
                return  # the platform gives up by itself

        self._dialling = asyncio.create_task(connect())

    def speak(self, packet: bytes) -> None:
        """Send an RTP packet back on the same port or connection."""
        if self._link is not None:
            self._link.write(len(packet).to_bytes(2, "big") + packet)
        elif self._sockets and self._peer is not None:
            try:
                self._sockets[0].sendto(packet, self._peer)
            except OSError:
                return  # nobody listens; a device goes on regardless

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
        if self._server is not None:
            self._server.close()
        if self._link is not None:
            self._link.close()
        for one in self._sockets:
            asyncio.get_running_loop().remove_reader(one.fileno())
            one.close()

    def _readable(self, rtp: socket.socket) -> None:
        for _ in range(64):
            try:
                data, source = rtp.recvfrom(65_536)
            except OSError:
                return
            self.take(data, source[:2])

    def joined(self, link: _TcpEar) -> bool:
        """A connection stands; False: there is one already."""
        if self._closed or self._link is not None:
            return False
        self._link, self.connected = link, True
        self._changed()
        return True

    # --- sound ----------------------------------------------------------------------------------------------------

    def take(self, data: bytes, source: tuple[str, int]) -> None:
        """One RTP packet."""
        if self._closed or is_rtcp(data):
            return
        try:
            packet = RtpPacket.parse(data)
        except WireError:
            self.malformed += 1
            return
        self.packets += 1
        self.ssrcs.add(packet.ssrc)
        self.sources.add(source)
        if self._last_timestamp is not None and len(self.spans) < 1_000:
            self.spans.append((packet.timestamp - self._last_timestamp) & 0xFFFF_FFFF)
        self._last_timestamp = packet.timestamp
        for payload in self._payloads(packet):
            self._hear(payload)
        self._changed()

    def _payloads(self, packet: RtpPacket) -> list[bytes]:
        payload = bytes(packet.payload)
        if self.codec == "aac":
            return split_au_headers(payload) or []
        if self.codec != "ps":
            return [payload]
        units = self._demuxer.feed(payload, packet.timestamp, packet.marker, 0.0)
        return [unit.payload for unit in units if not unit.codec.is_video]

    def _hear(self, payload: bytes) -> None:
        if not payload or len(self.pcm) > LIMIT_S * RATE * 2:
            return
        if self._decoder is None:
            self._decoder = self._make_decoder()
        try:
            for frame in self._decoder.decode(av.Packet(payload)):
                if isinstance(frame, AudioFrame):
                    self._keep(frame)
        except (OSError, ValueError):
            self.malformed += 1  # PyAV's errors are OSError and ValueError

    def _keep(self, frame: AudioFrame) -> None:
        for pcm in self._resampler.resample(frame):
            self.pcm += bytes(pcm.planes[0])[: pcm.samples * 2]

    def _make_decoder(self) -> AudioCodecContext:
        decoder = av.CodecContext.create(_DECODERS[self.codec], "r")
        if not isinstance(decoder, AudioCodecContext):
            raise TypeError("FFmpeg's audio codecs are not audio codecs")
        if self.codec == "aac":
            decoder.extradata = self.parameter_sets
        else:
            decoder.sample_rate = RATE
            decoder.layout = "mono"
        return decoder

    def save(self, path: Path) -> None:
        """Write what was heard as a WAV file."""
        with wave.open(str(path), "wb") as target:
            target.setnchannels(1)
            target.setsampwidth(2)
            target.setframerate(RATE)
            target.writeframes(bytes(self.pcm))


class _TcpEar(asyncio.Protocol):
    """One connection with RFC 4571 framing."""

    def __init__(self, owner: Ear) -> None:
        self._owner = owner
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self._peer = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast("asyncio.Transport", transport)  # uvloop's own class has the same methods
        self._transport = connection
        self._peer = connection.get_extra_info("peername")[:2]
        if not self._owner.joined(self):
            connection.abort()

    def data_received(self, data: bytes) -> None:
        for packet in self._framer.feed(data):
            if packet is not None:
                self._owner.take(packet, self._peer)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
