"""One WebRTC peer that is sent to, by aiortc. Imported with the first session: aiortc costs 0.2 s and 60 MB.

H.264 and G.711 are packed as they come; nothing is encoded. ICE has host candidates on ephemeral UDP ports alone: no
server is asked for others. The candidates' address is that of the listener, or all of the host where that is none, and
the answer can name another one (NAT with a fixed public address).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import aioice.ice
import av
from aiortc import (
    InvalidStateError,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec, Frame, TrackKind

logger = logging.getLogger(__name__)

MIME_TYPES = {Codec.H264: "video/H264", Codec.PCMA: "audio/PCMA", Codec.PCMU: "audio/PCMU"}
"""What is passed through."""
_QUEUE = 200
"""Frames that wait for the peer's transport; beyond them it skips to the next key frame."""
_BURST_90K = 90
_TIME_BASE = Fraction(1, 90_000)
_CANDIDATE = re.compile(r"^(a=candidate:\S+ \d+ \S+ \d+ )(\S+)( \d+ typ host.*)$", re.MULTILINE)
_ALL_ADDRESSES = aioice.ice.get_host_addresses


def bind_to(host: str) -> None:
    """Gather candidates on this address alone; on all of the host where it names none."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        aioice.ice.get_host_addresses = _ALL_ADDRESSES
    else:
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [host]


class _Feed(MediaStreamTrack):
    """Frames of one track for aiortc, which asks for one after the other."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.queue: asyncio.Queue[av.Packet[Any] | None] = asyncio.Queue(_QUEUE)

    async def recv(self) -> av.Packet[Any]:
        packet = await self.queue.get()
        if packet is None:
            raise MediaStreamError
        return packet


class WebRtcPeer:
    """Owner of one peer connection. `on_state` gets ``connected``, ``failed`` and ``closed``."""

    def __init__(self, codecs: Sequence[Codec], on_state: Callable[[str], None]) -> None:
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._feeds: dict[TrackKind, _Feed] = {}
        self._codecs = {(TrackKind.VIDEO if c.is_video else TrackKind.AUDIO): c for c in codecs}
        self._skipping = True
        self._last_pts = -1
        self.bytes_out = 0

        @self._connection.on("connectionstatechange")
        def changed() -> None:
            on_state(self._connection.connectionState)

    async def answer(self, offer: str, advertise: str) -> str:
        """The answer to an offer, with all candidates. Raises GatewayError when the peers have no codec in common."""
        # aiortc chooses codecs while it reads the offer, so what is sent is said before.
        transceivers = [self._sending(kind, codec) for kind, codec in self._codecs.items()]
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        except (ValueError, AssertionError, KeyError, IndexError, AttributeError, InvalidStateError) as error:
            raise GatewayError("gb.route.invalid", f"The offer cannot be read: {error!r}.") from error
        except OperationError as error:
            raise GatewayError(
                "gb.codec.codec_unsupported", f"No codec is offered that fits: {error}."
            ) from error
        for transceiver in transceivers:
            if transceiver.kind == "video" and transceiver.mid is None:
                raise GatewayError("gb.route.invalid", "The offer has no video to send to.")
        try:
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except (ValueError, AssertionError) as error:
            raise GatewayError(
                "gb.codec.codec_unsupported", f"The offer has no codec in common: {error}."
            ) from error
        answer = self._connection.localDescription.sdp
        return _CANDIDATE.sub(rf"\g<1>{advertise}\g<3>", answer) if advertise else answer

    def _sending(self, kind: TrackKind, codec: Codec) -> RTCRtpTransceiver:
        feed = self._feeds[kind] = _Feed(kind.value)
        transceiver = self._connection.addTransceiver(feed, direction="sendonly")
        wanted = MIME_TYPES[codec].lower()
        known = RTCRtpSender.getCapabilities(kind.value).codecs
        transceiver.setCodecPreferences([entry for entry in known if entry.mimeType.lower() == wanted])
        return transceiver

    def send(self, frames: Sequence[Frame]) -> None:
        """Frames in order. The first ones are the kept group, shown at once: the viewer must not be behind."""
        is_first = self._last_pts < 0
        last = max((frame.pts_90k for frame in frames), default=0)
        for index, frame in enumerate(frames):
            feed = self._feeds.get(frame.track.kind)
            if feed is None or self._codecs.get(frame.track.kind) is not frame.track.codec:
                continue
            video = frame.track.kind is TrackKind.VIDEO
            if video and self._skipping and not frame.key:
                continue
            if is_first and not video:
                continue  # sound of the past
            if feed.queue.qsize() >= _QUEUE - 1:
                self._skipping = self._skipping or video
                continue
            if video:
                self._skipping = False
            packet = av.Packet(frame.payload)
            packet.pts = last - (len(frames) - 1 - index) * _BURST_90K if is_first else frame.pts_90k
            packet.time_base = _TIME_BASE
            self._last_pts = max(self._last_pts, packet.pts)
            self.bytes_out += len(frame.payload)
            feed.queue.put_nowait(packet)

    async def close(self) -> None:
        """End the connection. Idempotent."""
        for feed in self._feeds.values():
            feed.stop()
            while not feed.queue.empty():
                feed.queue.get_nowait()
            feed.queue.put_nowait(None)
        await self._connection.close()
