"""Who has the stream that a play path names: the sessions, or the recordings of the gateway itself."""

from __future__ import annotations

from gb28181gw.outputs.source import Lease, Viewer
from gb28181gw.recording.table import Recording
from gb28181gw.sessions.table import Sessions


class PlaySource:
    """Satisfies `outputs.source.StreamSource`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.recording: Recording | None = None
        """Joined later: recordings need the outputs' transcoding."""

    async def lease_live(self, device_id: str, channel_id: str, consumer: Viewer) -> Lease:
        return await self._sessions.lease_live(device_id, channel_id, consumer)

    async def lease_stream(self, stream_id: str, consumer: Viewer) -> Lease:
        hold = self.recording.lease(stream_id, consumer) if self.recording is not None else None
        return hold if hold is not None else await self._sessions.lease_stream(stream_id, consumer)
