"""Every stream that the API shows: those of devices, and what the gateway plays of its own recordings."""

from __future__ import annotations

from datetime import datetime

from gb28181gw.gb.mansrtsp import Action
from gb28181gw.media.engine import MediaTransport
from gb28181gw.recording.table import Recording
from gb28181gw.sessions.models import ControlView, StreamView
from gb28181gw.sessions.table import Sessions


class AllStreams:
    """Satisfies `api.services.Streams`; keeps nothing itself. Errors are those of the two owners."""

    def __init__(self, sessions: Sessions, recording: Recording) -> None:
        self._sessions = sessions
        self._recording = recording

    async def start_live(
        self, device_id: str, channel_id: str, *, transport: MediaTransport | None = None
    ) -> StreamView:
        return await self._sessions.start_live(device_id, channel_id, transport=transport)

    async def start_playback(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        transport: MediaTransport | None = None,
        centre: bool = False,
    ) -> StreamView:
        return await self._sessions.start_playback(
            device_id, channel_id, start, end, transport=transport, centre=centre
        )

    async def control(self, stream_id: str, action: Action) -> ControlView | None:
        """None: no device was asked."""
        playback = self._recording.playback(stream_id)
        if playback is not None:
            playback.control(action)
            return None
        return await self._sessions.control(stream_id, action)

    def list(self) -> list[StreamView]:
        return [*self._sessions.list(), *self._recording.playing()]

    def get(self, stream_id: str) -> StreamView:
        playback = self._recording.playback(stream_id)
        return playback.view() if playback is not None else self._sessions.get(stream_id)

    async def stop(self, stream_id: str, reason: str = "stopped") -> None:
        playback = self._recording.playback(stream_id)
        if playback is None:
            await self._sessions.stop(stream_id, reason)
            return
        playback.stop(reason)
        await playback.ended.wait()
