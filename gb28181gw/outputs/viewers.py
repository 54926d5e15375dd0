"""Viewers: who watches what, and the leases that keep their streams alive.

A viewer is admitted with a lease. If it has a socket of its own, the engine owns the socket from then on and says
when it closed (`admit`); if it is served in Python, its output says so (`enter`, `leave`). Either way the lease
and the made audio are released here, exactly once (invariant I2).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine, EngineEvent, EventKind, SocketSinkSpec
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.routes import StreamTarget
from gb28181gw.outputs.source import Lease, StreamSource, Viewer
from gb28181gw.outputs.transcoding import AudioTranscoding


async def lease_of(source: StreamSource, target: StreamTarget, viewer: Viewer) -> Lease:
    """The stream that a play path names, started when it does not run. Raises GatewayError."""
    if target.stream_id:
        return await source.lease_stream(target.stream_id, viewer)
    return await source.lease_live(target.device_id, target.channel_id, viewer)


@dataclass(slots=True, kw_only=True)
class _Watching:
    number: int
    target: StreamTarget
    viewer: Viewer
    lease: Lease
    made_audio: bool
    started: float
    close: Callable[[str], None] | None = None
    """Ends the consumer's own part, with a reason; None before it has one."""


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
        target: StreamTarget,
        viewer: Viewer,
        lease: Lease,
    ) -> None:
        """Hand the socket `fd` and the lease over. On GatewayError the caller still has both."""
        watching = self._begin(target, viewer, lease, made_audio=spec.audio == "aac")
        try:
            sink_id = self._engine.add_socket_sink(
                lease.stream_id, fd, spec, lambda event: self._on_event(watching, event)
            )
        except GatewayError as error:
            self._bus.emit("viewer.ended", **self._fields(watching), reason=error.reason, duration_ms=0)
            raise
        self._register(watching, lambda _: self._engine.close_sink(sink_id))

    def enter(
        self,
        target: StreamTarget,
        viewer: Viewer,
        lease: Lease,
        close: Callable[[str], None],
        *,
        made_audio: bool,
    ) -> int:
        """A viewer that is served in Python takes its lease with it; the answer names it for `leave`.

        `close(reason)` is called when it ends, whoever ended it. On GatewayError the lease is still the caller's.
        """
        watching = self._begin(target, viewer, lease, made_audio=made_audio)
        self._register(watching, close)
        return watching.number

    def leave(self, number: int, reason: str, bytes_out: int) -> None:
        """The viewer has gone, or has to. Idempotent."""
        watching = self._watching.get(number)
        if watching is not None:
            self._end(watching, reason, bytes_out)

    def close_grants(self, has_ended: Callable[[str], bool]) -> None:
        """End the viewers whose grant is no longer valid (docs/reference/api.md)."""
        for watching in list(self._watching.values()):
            if has_ended(watching.viewer.grant_id):
                self._end(watching, "revoked", 0)

    def close(self) -> None:
        """End all."""
        for watching in list(self._watching.values()):
            self._end(watching, "shutting_down", 0)

    def _begin(self, target: StreamTarget, viewer: Viewer, lease: Lease, *, made_audio: bool) -> _Watching:
        if self._by_stream[lease.stream_id] >= self.per_stream:
            raise GatewayError(
                "gb.output.too_many_viewers", f"{self.per_stream} viewers watch this stream already."
            )
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
        return watching

    def _register(self, watching: _Watching, close: Callable[[str], None]) -> None:
        watching.close = close
        self._watching[watching.number] = watching
        self._by_stream[watching.lease.stream_id] += 1
        if watching.made_audio:
            self._transcoding.use(watching.lease.stream_id)

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
        if watching.close is not None:
            watching.close(reason)
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
