"""One microphone by WebRTC: a transport, what was agreed with it, and its sound on the way into a talk.

Packets are put in order, within the little time that a conversation allows, and decoded; what is lost is missing, and
the talk says silence there. The peer is told what arrives (RFC 3550 6.4), so that it and its user can see it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gb28181gw.errors import GatewayError
from gb28181gw.media.wire.exceptions import RtpError
from gb28181gw.media.wire.reception import ReceptionStatistics
from gb28181gw.media.wire.reorder import Gap, ReorderBuffer
from gb28181gw.media.wire.rtcp import SenderReport, build_receiver_report
from gb28181gw.media.wire.rtcp import parse as parse_rtcp
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.outputs.routes import WhipTarget
from gb28181gw.outputs.sender_reports import CNAME
from gb28181gw.outputs.source import Microphone
from gb28181gw.outputs.webrtc_sdp import Format, Offer
from gb28181gw.outputs.webrtc_session import CONNECT_S
from gb28181gw.outputs.webrtc_transport import PeerTransport, TransportFactory

if TYPE_CHECKING:
    from gb28181gw.outputs.whip_sound import SoundDecoder  # which loads PyAV

REPORT_S = 2.0
WINDOW_S = 0.06
MAX_WINDOW_S = 0.2
"""A packet waits so long for those before it."""
MAX_PACKETS_S = 500
"""Of one microphone; Opus of 2.5 ms makes 400 packets a second, and nobody needs more."""


class WhipSession:
    """Ends once, whoever ends it: `on_end(session, reason)`."""

    def __init__(
        self,
        session_id: str,
        target: WhipTarget,
        grant_id: str,
        make_transport: TransportFactory,
        on_end: Callable[[WhipSession, str], None],
    ) -> None:
        self.id = session_id
        self.etag = f'"{session_id[:16]}"'
        self.target = target
        self.grant_id = grant_id
        self.transport: PeerTransport = make_transport(
            self._on_rtcp, lambda: self.end("speaker_gone"), self._on_rtp
        )
        self.microphone: Microphone | None = None
        self.ufrag = ""
        """The peer's, of its offer."""
        self.ended = False
        self.packets = 0
        self.lost = 0
        self.malformed = 0
        """Packets that were no RTP or no such sound, or too many."""
        self._on_end = on_end
        self._decoder: SoundDecoder | None = None
        self._payload_type = -1
        self._clock_rate = 0
        self._source = -1
        self._report_ssrc = secrets.randbits(32)
        self._order = ReorderBuffer()
        self._statistics = ReceptionStatistics()
        self._second = 0
        self._in_second = 0
        self._task: asyncio.Task[None] | None = None

    def begin(self, offer: Offer, chosen: Format, decoder: SoundDecoder) -> None:
        """The answer is on its way: connect, then listen."""
        self.ufrag = offer.ufrag
        self._payload_type, self._clock_rate = chosen.payload_type, chosen.clock_rate
        self._decoder = decoder
        self._task = asyncio.get_running_loop().create_task(self._run(offer), name=f"whip:{self.id[:8]}")

    def end(self, reason: str) -> None:
        """Wish: it is over."""
        if not self.ended:
            self.ended = True
            self._on_end(self, reason)

    async def close(self) -> None:
        """End the transport."""
        self.ended = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.transport.close()

    async def _run(self, offer: Offer) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await self.transport.connect(offer)
        except (TimeoutError, ConnectionError):
            self.end("not_connected")
            return
        try:
            while True:
                await asyncio.sleep(REPORT_S)
                if self._source >= 0:
                    block = self._statistics.report_block(self._source, time.monotonic())
                    await self.transport.send(build_receiver_report(self._report_ssrc, (block,), CNAME))
        except ConnectionError:
            self.end("speaker_gone")

    # the microphone

    def _on_rtp(self, data: bytes) -> None:
        now = time.monotonic()
        if self.ended or self._decoder is None:
            return
        if int(now) != self._second:
            self._second, self._in_second = int(now), 0
        self._in_second += 1
        try:
            packet = RtpPacket.parse(data)
        except RtpError:
            self.malformed += 1
            return
        if packet.payload_type != self._payload_type or self._in_second > MAX_PACKETS_S:
            self.malformed += 1
            return
        if packet.ssrc != self._source:
            self._source = packet.ssrc
            self._order = ReorderBuffer(window_s=WINDOW_S, max_window_s=MAX_WINDOW_S)
            self._statistics = ReceptionStatistics(self._clock_rate)
        self.packets += 1
        self._statistics.update(packet.sequence_number, packet.timestamp, now)
        for item in self._order.push(packet, now):
            if isinstance(item, Gap):
                self.lost += item.lost
            elif not self.ended:
                self._speak(item.payload)

    def _speak(self, payload: bytes) -> None:
        assert self._decoder is not None  # noqa: S101 - what is received was agreed
        try:
            pcm = self._decoder.decode(payload)
        except ValueError:
            self.malformed += 1
            return
        if self.microphone is None or not pcm:
            return
        try:
            self.microphone.feed(pcm, self._decoder.rate)
        except GatewayError:
            self.end("talk_over")

    def _on_rtcp(self, data: bytes) -> None:
        try:
            packets = parse_rtcp(data)
        except RtpError:
            return
        for packet in packets:
            if isinstance(packet, SenderReport) and packet.ssrc == self._source:
                self._statistics.sender_report(packet, time.monotonic())
