"""WHEP: WebRTC to browsers (draft-ietf-wish-whep). A session begins with an offer and is a resource until it ends.

It ends by DELETE, with its ICE connection, its stream or its grant, or when no connection was made within `CONNECT_S`.
Media go through aiortc behind `webrtc_peer.WebRtcPeer`; H.264 and G.711 are passed through, nothing is encoded.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, TrackKind
from gb28181gw.outputs.frames import with_parameter_sets
from gb28181gw.outputs.routes import WhepTarget
from gb28181gw.outputs.source import StreamSource, Viewer
from gb28181gw.outputs.viewers import Viewers, lease_of

if TYPE_CHECKING:
    from gb28181gw.outputs.webrtc_peer import WebRtcPeer

logger = logging.getLogger(__name__)

CONNECT_S = 15.0
MAX_OFFER = 64 * 1024
SDP_TYPE = "application/sdp"
_PASSED = (Codec.PCMA, Codec.PCMU)


@dataclass(slots=True, kw_only=True)
class _Session:
    path: str
    peer: WebRtcPeer
    sink_id: int = 0
    number: int = 0
    deadline: asyncio.TimerHandle | None = None


class WhepOutput:
    """Owner of the sessions."""

    def __init__(
        self, engine: Engine, source: StreamSource, viewers: Viewers, *, host: str, advertise: str
    ) -> None:
        self._engine = engine
        self._source = source
        self._viewers = viewers
        self._host = host
        self._advertise = advertise
        self._sessions: dict[str, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, target: WhepTarget, offer: str, viewer: Viewer) -> tuple[str, str]:
        """(session id, answer). Raises GatewayError."""
        from gb28181gw.outputs import webrtc_peer

        lease = await lease_of(self._source, target, viewer)
        peer: WebRtcPeer | None = None
        session_id = secrets.token_urlsafe(12)
        try:
            codecs = self._codecs(lease.stream_id)
            webrtc_peer.bind_to(self._host)
            peer = webrtc_peer.WebRtcPeer(codecs, lambda state: self._changed(session_id, state))
            answer = await peer.answer(offer, self._advertise)
            session = _Session(path=target.path, peer=peer)
            session.number = self._viewers.enter(
                target, viewer, lease, lambda _: self._dismissed(session_id), made_audio=False
            )
        except BaseException:
            lease.release()
            if peer is not None:
                self._own(peer.close())
            raise
        self._sessions[session_id] = session
        session.deadline = asyncio.get_running_loop().call_later(
            CONNECT_S, self._end, session_id, "no_connection"
        )
        return session_id, answer

    def delete(self, path: str, session_id: str) -> bool:
        """The player ends its session; False when there is none of this path."""
        session = self._sessions.get(session_id)
        if session is None or session.path != path:
            return False
        self._end(session_id, "viewer_gone")
        return True

    async def close(self) -> None:
        """End everything. Idempotent."""
        for session_id in list(self._sessions):
            self._end(session_id, "shutting_down")
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _codecs(self, stream_id: str) -> list[Codec]:
        tracks = self._engine.tracks(stream_id)
        video = next((track.codec for track in tracks if track.kind is TrackKind.VIDEO), None)
        if video is not Codec.H264:
            what = f"{video.value} video" if video is not None else "sound without a picture"
            raise GatewayError("gb.codec.codec_unsupported", f"WebRTC does not carry {what}.")
        return [video, *[track.codec for track in tracks if track.codec in _PASSED][:1]]

    def _changed(self, session_id: str, state: str) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            return
        if state == "connected" and not session.sink_id:
            if session.deadline is not None:
                session.deadline.cancel()
            stream_id = self._viewers.stream_of(session.number)
            if stream_id is None:
                return
            session.sink_id = self._engine.add_frame_sink(
                stream_id,
                lambda frames: session.peer.send([with_parameter_sets(frame) for frame in frames]),
                on_closed=lambda reason: self._end(session_id, reason),
            )
        elif state in ("failed", "closed"):
            self._end(session_id, "viewer_gone")

    def _end(self, session_id: str, reason: str) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            self._viewers.leave(session.number, reason, session.peer.bytes_out)  # which dismisses it

    def _dismissed(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        if session.deadline is not None:
            session.deadline.cancel()
        if session.sink_id:
            self._engine.close_sink(session.sink_id)
        self._own(session.peer.close())

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a WebRTC session ended badly", exc_info=error)
