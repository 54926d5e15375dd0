"""Plays what the gateway recorded: segments into a stream of the engine, at the pace at which they were recorded.

The stream is like any other to its viewers (`/playback/{stream_id}` of every output). It begins with its first viewer,
stands still while there is none, and ends some time after the last one, or at the end of the recording. What was not
recorded is left out: the next picture follows at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Frame, Track
from gb28181gw.media.wire.fmp4 import TIMESCALE
from gb28181gw.observability.events import EventBus
from gb28181gw.recording.joining import wanted_fragments
from gb28181gw.recording.models import Segment
from gb28181gw.recording.reader import SegmentError, frames_of, read_head
from gb28181gw.recording.sources import SegmentFiles
from gb28181gw.sessions.models import Consumer

AHEAD_S: Final = 0.5
"""Frames are handed over in pieces of so long."""
STEP_90K: Final = 3600
DRAIN_S: Final = 2.0
"""The end of the recording reaches its viewers before the stream ends."""


class PlaybackHold:
    """One viewer's hold. Satisfies `outputs.source.Lease`."""

    def __init__(self, stream_id: str, on_release: Callable[[], None]) -> None:
        self.stream_id = stream_id
        self._on_release: Callable[[], None] | None = on_release

    def release(self) -> None:
        """Idempotent."""
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release()


def frames_in_order(
    files: SegmentFiles, segments: Sequence[Segment], start: float, end: float
) -> Iterator[list[Frame]]:
    """Frames by fragments, with times that go on from segment to segment. Blocking.

    Raises GatewayError as `SegmentFiles.each` does.
    """
    base, last = 0, -STEP_90K
    for segment, path in files.each(segments):
        try:
            head = read_head(path)
            first: int | None = None
            for fragment, _ in wanted_fragments(path, head.length, segment.start, start, end):
                frames = frames_of(fragment, head.tracks)
                if first is None:
                    first = frames[0].dts_90k
                    base = last + STEP_90K - first
                for frame in frames:
                    frame.dts_90k += base
                    frame.pts_90k += base
                last = max(last, frames[-1].dts_90k)
                yield frames
        except (OSError, SegmentError):
            continue  # it has gone meanwhile: a gap


class RecordingPlayback:
    """Owner of one stream that plays a recording."""

    def __init__(
        self,
        engine: Engine,
        bus: EventBus,
        files: SegmentFiles,
        segments: Sequence[Segment],
        start: float,
        end: float,
        *,
        idle_s: float,
    ) -> None:
        self.id = secrets.token_hex(16)
        self.device_id = segments[0].device_id
        self.channel_id = segments[0].channel_id
        self.start = start
        self.end = end
        self.tracks: tuple[Track, ...] = ()
        self._first: list[Frame] = []
        self._engine = engine
        self._bus = bus
        self._frames = frames_in_order(files, segments, start, end)
        self._idle_s = idle_s
        self._holds = 0
        self._wake = asyncio.Event()
        engine.create_stream(self.id, lambda event: None)

    def lease(self, consumer: Consumer) -> PlaybackHold:
        """`consumer` is told in the outputs' own events."""
        self._holds += 1
        self._wake.set()
        return PlaybackHold(self.id, self._released)

    def _released(self) -> None:
        self._holds -= 1
        self._wake.set()

    async def prepare(self) -> None:
        """Show the first second. Raises gb.media.no_recording when there is none any more."""
        try:
            frames = await self._next()
            if not frames:
                raise GatewayError("gb.media.no_recording", "The files of this time are gone.")
        except GatewayError:
            self._engine.close_stream(self.id)
            raise
        self.tracks = tuple({frame.track.kind: frame.track for frame in frames}.values())
        self._push(frames)
        self._first = frames

    async def run(self) -> None:
        """Until the end of the recording, or of the interest in it."""
        loop = asyncio.get_running_loop()
        reason = "end_of_file"
        self._bus.emit("recording.playback_started", **self._fields())
        try:
            first_90k = self._first[0].dts_90k
            ends_90k = self._first[-1].dts_90k
            began: float | None = None
            while True:
                if not self._holds:
                    began = None
                    if not await self._viewer():
                        reason = "idle"
                        return
                if began is None:
                    began = loop.time() - (ends_90k - first_90k) / TIMESCALE
                frames = await self._next()
                if not frames:
                    await asyncio.sleep(DRAIN_S)
                    return
                for piece in _pieces(frames):
                    due = began + (piece[0].dts_90k - first_90k) / TIMESCALE - AHEAD_S
                    await asyncio.sleep(max(due - loop.time(), 0))
                    self._push(piece)
                ends_90k = frames[-1].dts_90k
        except GatewayError as error:
            reason = error.reason
        finally:
            self._engine.close_stream(self.id, reason)
            self._bus.emit("recording.playback_ended", **self._fields(), reason=reason)

    async def _viewer(self) -> bool:
        """Wait for one; False: none came."""
        try:
            async with asyncio.timeout(self._idle_s):
                while not self._holds:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _next(self) -> list[Frame]:
        return await asyncio.to_thread(next, self._frames, [])

    def _push(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._engine.push(
                self.id, frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=frame.key
            )

    def _fields(self) -> dict[str, object]:
        return {"device_id": self.device_id, "channel_id": self.channel_id, "stream_id": self.id}


def _pieces(frames: list[Frame]) -> Iterator[list[Frame]]:
    """A fragment in parts of a fifth of a second."""
    piece: list[Frame] = []
    for frame in frames:
        if piece and frame.dts_90k - piece[0].dts_90k > TIMESCALE // 5:
            yield piece
            piece = []
        piece.append(frame)
    if piece:
        yield piece
