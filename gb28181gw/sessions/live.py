"""The live stream of a channel: one INVITE for all who watch it, renewed while somebody does."""

from __future__ import annotations

from gb28181gw.sessions.models import StreamKind
from gb28181gw.sessions.stream import Stream


class LiveStream(Stream):
    """Owner of one channel's live stream."""

    kind = StreamKind.LIVE

    def _history(self) -> None:
        return None
