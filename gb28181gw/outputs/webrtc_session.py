"""One WebRTC viewer: a transport, what was agreed with it, and the packets that wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gb28181gw.media.tracks import Codec
from gb28181gw.outputs.routes import WhepTarget
from gb28181gw.outputs.webrtc_feedback import parse_feedback
from gb28181gw.outputs.webrtc_sdp import OPUS, Format, Offer
from gb28181gw.outputs.webrtc_stream import WebRtcStream
from gb28181gw.outputs.webrtc_transport import PeerTransport, TransportFactory

CONNECT_S = 20.0
"""ICE and DTLS must be done within so long of the answer."""
PICTURE_S = 0.5
"""Without a picture for so long after connecting, the device is asked for one."""
QUEUE_BYTES = 4 * 1024 * 1024
_BURST = 40
_PAUSE_S = 0.004
"""At most `_BURST` packets go at once, some 80 Mbit/s: a kept group must not overrun what is on the way."""
_MAX_LOSS = 0.4
_LOSSY_S = 15.0
"""A viewer that keeps losing so much for so long has no use of the rest."""


class WebRtcSession:
    """A `Player` once its transport is connected. Ends once, whoever ends it: `on_end(session, reason)`."""

    def __init__(
        self,
        session_id: str,
        target: WhepTarget,
        stream: WebRtcStream,
        make_transport: TransportFactory,
        *,
        on_end: Callable[[WebRtcSession, str], None],
        on_picture_lost: Callable[[WebRtcSession], None],
    ) -> None:
        self.id = session_id
        self.etag = f'"{session_id[:16]}"'
        self.target = target
        self.stream = stream
        self.transport: PeerTransport = make_transport(self._on_rtcp, lambda: self._end("viewer_gone"))
        self.viewer: int | None = None
        """Its number among the viewers."""
        self.ufrag = ""
        """The viewer's, of its offer."""
        self.bytes_out = 0
        self._on_end = on_end
        self._on_picture_lost = on_picture_lost
        self._formats: Mapping[str, Format] = {}
        self._plays_video = False
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._queue_limit = QUEUE_BYTES
        self._skipping = True
        self._wake = asyncio.Event()
        self._lossy_since: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    def begin(self, offer: Offer, formats: Mapping[str, Format]) -> None:
        """The answer is on its way: connect, then play."""
        self.ufrag = offer.ufrag
        self._formats = formats
        self._plays_video = any(Codec(name).is_video for name in formats if name != OPUS)
        self._task = asyncio.get_running_loop().create_task(self._run(offer), name=f"webrtc:{self.id[:8]}")

    async def close(self) -> None:
        """End the transport; `on_end` is for who ends a session by itself."""
        self._ended = True
        self.stream.leave(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.transport.close()

    async def _run(self, offer: Offer) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await self.transport.connect(offer)
        except (TimeoutError, ConnectionError):
            self._end("not_connected")
            return
        self._queue_limit = QUEUE_BYTES + self.stream.kept_bytes
        if self.stream.is_over:
            self._end("stream_closed")
            return
        self.stream.play(self)
        # What the plane keeps may come a moment later; after that only the device can help.
        patience = asyncio.get_running_loop().call_later(PICTURE_S, self._look_for_picture)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._drain()
        except ConnectionError:
            self._end("viewer_gone")
        finally:
            patience.cancel()

    def _look_for_picture(self) -> None:
        if self._skipping and self._plays_video:
            self._on_picture_lost(self)

    async def _drain(self) -> None:
        sent = 0
        while self._queue:
            packet = self._queue.popleft()
            self._queued_bytes -= len(packet)
            await self.transport.send(packet)
            self.bytes_out += len(packet)
            sent += 1
            if sent % _BURST == 0:
                await asyncio.sleep(_PAUSE_S)

    # webrtc_stream.Player

    def takes(self, name: str) -> bool:
        return name in self._formats

    def send(self, name: str, packets: Sequence[bytes], *, key: bool) -> None:
        agreed = self._formats.get(name)
        if agreed is None:
            return
        if self._skipping:
            if not key and self._plays_video:
                return
            self._skipping = False
        if self._queued_bytes > self._queue_limit:
            self._queue.clear()
            self._queued_bytes = 0
            self._skipping = True
            return
        for packet in packets:
            self._put(_of_type(packet, agreed.payload_type))

    def report(self, data: bytes) -> None:
        if not self._skipping:
            self._put(data)

    def ended(self, reason: str) -> None:
        self._end(reason)

    def _put(self, packet: bytes) -> None:
        self._queue.append(packet)
        self._queued_bytes += len(packet)
        self._wake.set()

    # the viewer

    def _on_rtcp(self, data: bytes) -> None:
        feedback = parse_feedback(data)
        for ssrc, number in feedback.lost:
            found = self.stream.again(ssrc, number)
            agreed = self._formats.get(found[0]) if found is not None else None
            if found is not None and agreed is not None and self._queued_bytes < self._queue_limit:
                self._put(_of_type(found[1], agreed.payload_type))
        if feedback.key_frame:
            self._on_picture_lost(self)
        if feedback.loss:
            self._judge(max(share for _, share in feedback.loss))

    def _judge(self, loss: float) -> None:
        now = asyncio.get_running_loop().time()
        if loss < _MAX_LOSS:
            self._lossy_since = None
        elif self._lossy_since is None:
            self._lossy_since = now
        elif now - self._lossy_since > _LOSSY_S:
            self._end("slow")

    def _end(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(self, reason)


def _of_type(packet: bytes, payload_type: int) -> bytes:
    return b"".join((packet[:1], bytes((packet[1] & 0x80 | payload_type,)), packet[2:]))
