"""Viewers: who watches what on handed-over sockets, and the leases that keep their streams alive.

A viewer is admitted with a lease and its socket; from then on the engine owns the socket. When the engine
says that the sink closed, the lease and the made audio are released here, exactly once (invariant I2).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine, EngineEvent, EventKind, SocketSinkSpec
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.routes import PlayTarget
from gb28181gw.outputs.source import Lease, Viewer
from gb28181gw.outputs.transcoding import AudioTranscoding


@dataclass(slots=True, kw_only=True)
class _Watching:
    number: int
    target: PlayTarget
    viewer: Viewer
    lease: Lease
    made_audio: bool
    started: float
    sink_id: int = 0


class Viewers:
    """Owner of the table of viewers of this listener."""

    def __init__(
        self, engine: Engine, transcoding: AudioTranscoding, bus: EventBus, *, per_stream: int
    ) -> None:
        self._engine = engine
        self._transcoding = transcoding
        self._bus = bus
        self.per_stream = per_stream
        self._watching: dict[int, _Watching] = {}
        self._by_stream: Counter[str] = Counter()
        self._number = 0
        self.ended: Counter[str] = Counter()
        """Viewers that ended, by reason."""

    def __len__(self) -> int:
        return len(self._watching)

    def on_stream(self, stream_id: str) -> int:
        """Viewers of one engine stream."""
        return self._by_stream[stream_id]

    def admit(
        self,
        fd: int,
        spec: SocketSinkSpec,
        target: PlayTarget,
        viewer: Viewer,
        lease: Lease,
    ) -> None:
        """Hand the socket `fd` and the lease over. On GatewayError the caller still has both."""
        stream_id = lease.stream_id
        if self._by_stream[stream_id] >= self.per_stream:
            raise GatewayError(
                "gb.output.too_many_viewers", f"{self.per_stream} viewers watch this stream already."
            )
        made_audio = spec.audio == "aac"
        self._number += 1
        watching = _Watching(
            number=self._number,
            target=target,
            viewer=viewer,
            lease=lease,
            made_audio=made_audio,
            started=time.monotonic(),
        )
        # The record of the view comes before its first byte (invariant I6).
        self._bus.emit("viewer.started", **self._fields(watching))
        try:
            watching.sink_id = self._engine.add_socket_sink(
                stream_id, fd, spec, lambda event: self._on_event(watching, event)
            )
        except GatewayError as error:
            self._bus.emit("viewer.ended", **self._fields(watching), reason=error.reason, duration_ms=0)
            raise
        self._watching[watching.number] = watching
        self._by_stream[stream_id] += 1
        if made_audio:
            self._transcoding.use(stream_id)

    def close_grants(self, has_ended: Callable[[str], bool]) -> None:
        """End the viewers whose grant is no longer valid (docs/reference/api.md)."""
        for watching in list(self._watching.values()):
            if has_ended(watching.viewer.grant_id):
                self._end(watching, "revoked", 0)

    def close(self) -> None:
        """End all."""
        for watching in list(self._watching.values()):
            self._end(watching, "shutting_down", 0)

    def _on_event(self, watching: _Watching, event: EngineEvent) -> None:
        if event.kind is EventKind.SINK_CLOSED:
            self._end(watching, event.detail, event.bytes_out)

    def _end(self, watching: _Watching, reason: str, bytes_out: int) -> None:
        if self._watching.pop(watching.number, None) is None:
            return
        stream_id = watching.lease.stream_id
        self._by_stream[stream_id] -= 1
        if not self._by_stream[stream_id]:
            del self._by_stream[stream_id]
        self._engine.close_sink(watching.sink_id)
        if watching.made_audio:
            self._transcoding.leave(stream_id)
        watching.lease.release()
        self.ended[reason] += 1
        duration_ms = round((time.monotonic() - watching.started) * 1000)
        self._bus.emit(
            "viewer.ended",
            **self._fields(watching),
            reason=reason,
            duration_ms=duration_ms,
            bytes=bytes_out,
        )

    @staticmethod
    def _fields(watching: _Watching) -> dict[str, object]:
        target = watching.target
        return {
            "device_id": target.device_id or None,
            "channel_id": target.channel_id or None,
            "stream_id": target.stream_id or None,
            "viewer": watching.number,
            "kind": watching.viewer.kind,
            "grant_id": watching.viewer.grant_id,
            "client": watching.viewer.client,
        }
