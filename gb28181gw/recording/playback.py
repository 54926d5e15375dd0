"""Plays what the gateway recorded: segments into a stream of the engine, at the pace at which they were recorded.

The stream is like any other to its viewers (`/playback/{stream_id}` of every output). It begins with its first viewer,
stands still while there is none, and ends some time after the last one, or at the end of the recording. What was not
recorded is left out: the next picture follows at once. It is steered for all who watch: its times go on through a seek,
and run as fast as the recording is played, as those of a device's playback do.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.gb.mansrtsp import Action, Pause, Resume, Scale, Seek
from gb28181gw.media.engine import Engine, ReceiverCounters
from gb28181gw.media.tracks import Frame, Track
from gb28181gw.media.wire.fmp4 import TIMESCALE
from gb28181gw.observability.events import EventBus
from gb28181gw.recording.joining import wanted_fragments
from gb28181gw.recording.models import Segment
from gb28181gw.recording.reader import SegmentError, frames_of, read_head
from gb28181gw.recording.sources import SegmentFiles
from gb28181gw.sessions.models import Consumer, HistoryView, StreamKind, StreamState, StreamView

AHEAD_S: Final = 0.5
"""Frames are handed over in pieces, so long before they are due."""
BEHIND_S: Final = 1.0
"""A disk or a store that was later than that is waited for: what it gives then is not played in haste."""
STEP_90K: Final = 3600
DRAIN_S: Final = 2.0
"""The end of the recording reaches its viewers before the stream ends."""
MEASURE_S: Final = 1.0
"""The speed is told when it was seen for so long."""


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
    files: SegmentFiles, segments: Sequence[Segment], start: float, end: float, after_90k: int
) -> Iterator[tuple[float, list[Frame]]]:
    """(wall time of the first one, frames) by fragments, from the key frame before `start` on. Blocking.

    Their times go on from `after_90k`, and from segment to segment. Raises GatewayError as `SegmentFiles.each` does.
    """
    base, last = 0, after_90k
    wanted = [one for one in segments if one.end is None or one.end > start]
    for segment, path in files.each(wanted):
        try:
            head = read_head(path)
            first: int | None = None
            for fragment, wall in wanted_fragments(path, head.length, segment.start, start, end):
                frames = frames_of(fragment, head.tracks)
                if first is None:
                    first = frames[0].dts_90k
                    base = last + STEP_90K - first
                for frame in frames:
                    frame.dts_90k += base
                    frame.pts_90k += base
                last = max(last, frames[-1].dts_90k)
                yield wall, frames
        except (OSError, SegmentError):
            continue  # it has gone meanwhile: a gap


class RecordingPlayback:
    """Owner of one stream that plays a recording. All calls on the event loop's thread."""

    def __init__(
        self,
        engine: Engine,
        bus: EventBus,
        clock: Clock,
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
        self.ended = asyncio.Event()
        self._engine = engine
        self._bus = bus
        self._files = files
        self._segments = segments
        self._idle_s = idle_s
        self._started_at = clock.wall()
        self._holds = 0
        self._wake = asyncio.Event()
        self._frames = frames_in_order(files, segments, start, end, -STEP_90K)
        self._pieces: deque[tuple[float, list[Frame]]] = deque()
        """(wall time, frames) that were read and not pushed."""
        self._last_90k = -STEP_90K
        """Of what was pushed."""
        self._at = start
        """Wall time of what was pushed last."""
        self._anchor: tuple[float, int] | None = None
        """(loop time, stream time) from which the pace counts; None: from the next piece on."""
        self._paused = False
        self._scale = 1.0
        self._seek_to: float | None = None
        """Wall time where it is to go on, until that is done."""
        self._stopped = ""
        engine.create_stream(self.id, lambda event: None)

    def lease(self, consumer: Consumer) -> PlaybackHold:
        """`consumer` is told in the outputs' own events."""
        self._holds += 1
        self._wake.set()
        return PlaybackHold(self.id, self._released)

    def _released(self) -> None:
        self._holds -= 1
        self._wake.set()

    def view(self) -> StreamView:
        """As the streams of devices are shown."""
        return StreamView(
            id=self.id,
            kind=StreamKind.PLAYBACK,
            state=StreamState.ENDING if self._stopped else StreamState.RUNNING,
            device_id=self.device_id,
            channel_id=self.channel_id,
            ssrc="",
            transport=None,
            tracks=self.tracks,
            rtp=ReceiverCounters(),
            consumers=self._holds,
            started_at=self._started_at,
            history=HistoryView(
                start=self.start,
                end=self.end,
                position_s=round(max(self._at - self.start, 0.0), 3),
                paused=self._paused,
                scale=self._scale,
                rate=self._rate(),
            ),
            source="gateway",
        )

    def _rate(self) -> float | None:
        """Seconds of the recording in a second since it was steered last."""
        if self._anchor is None:
            return None
        began, first_90k = self._anchor
        took = asyncio.get_running_loop().time() - began
        return (
            (self._last_90k - first_90k) / TIMESCALE / (took + AHEAD_S / self._scale)
            if took > MEASURE_S
            else None
        )

    # ---- steering

    def control(self, action: Action) -> None:
        """For all who watch; in force at once. Raises GatewayError: gb.route.invalid, gb.media.no_recording."""
        if isinstance(action, Pause):
            self._paused = True
        elif isinstance(action, Resume):
            self._paused = False
        elif isinstance(action, Seek):
            self._seek_to = self._place(action.position_s)
        elif isinstance(action, Scale):
            if not action.scale > 0:
                raise GatewayError("gb.route.invalid", "What the gateway recorded is played forwards only.")
            self._scale = action.scale
        else:
            raise GatewayError("gb.route.invalid", "End the stream with DELETE.")
        self._anchor = None
        self._wake.set()
        self._bus.emit(
            "recording.playback_steered",
            **self._fields(),
            action=type(action).__name__.lower(),
            position_s=round((self._seek_to or self._at) - self.start, 3),
            scale=self._scale,
        )

    def _place(self, position_s: float) -> float:
        if not (math.isfinite(position_s) and 0 <= position_s < self.end - self.start):
            raise GatewayError(
                "gb.route.invalid", f"position_s lies from 0 to below {self.end - self.start:.3f} s."
            )
        place = self.start + position_s
        if not any(one.end is None or one.end > place for one in self._segments):
            raise GatewayError("gb.media.no_recording", "Nothing was recorded from there on.")
        return place

    def stop(self, reason: str) -> None:
        """End it for all; `ended` is set when that is done."""
        self._stopped = self._stopped or reason
        self._wake.set()

    # ---- the whole life

    async def prepare(self) -> None:
        """Show the first second. Raises gb.media.no_recording when there is none any more."""
        try:
            if not await self._read():
                raise GatewayError("gb.media.no_recording", "The files of this time are gone.")
        except GatewayError:
            self._engine.close_stream(self.id)
            raise
        frames = [frame for _, piece in self._pieces for frame in piece]
        self.tracks = tuple({frame.track.kind: frame.track for frame in frames}.values())
        while self._pieces:
            self._push(*self._pieces.popleft())

    async def run(self) -> None:
        """Until the end of the recording, or of the interest in it."""
        reason = "end_of_file"
        self._bus.emit("recording.playback_started", **self._fields())
        try:
            reason = await self._play()
        except GatewayError as error:
            reason = error.reason
        finally:
            self._engine.close_stream(self.id, reason)
            self.ended.set()
            self._bus.emit("recording.playback_ended", **self._fields(), reason=reason)

    async def _play(self) -> str:
        """Why it is over. Raises GatewayError."""
        while True:
            self._wake.clear()
            if self._stopped:
                return self._stopped
            if self._seek_to is not None:
                self._go_to(self._seek_to)
            if not self._holds:
                self._anchor = None
                if not await self._woken(self._idle_s) and not self._holds:
                    return "idle"
            elif self._paused:
                await self._wake.wait()
            elif not self._pieces and not await self._read():
                if not await self._woken(DRAIN_S):
                    return "end_of_file"
            elif (left := self._left_s()) > 0:
                await self._woken(left)
            elif self._seek_to is None:  # it may have come while the disk was read
                self._push(*self._pieces.popleft())

    def _left_s(self) -> float:
        """Until the next piece is handed over."""
        first_90k, now = self._pieces[0][1][0].dts_90k, asyncio.get_running_loop().time()
        if self._anchor is not None:
            began, from_90k = self._anchor
            left = began + (first_90k - from_90k) / TIMESCALE / self._scale - AHEAD_S - now
            if left > -BEHIND_S - AHEAD_S:
                return left
        self._anchor = (now, first_90k)
        return 0.0

    def _go_to(self, place: float) -> None:
        self._seek_to, self._anchor, self._at = None, None, place
        self._pieces.clear()
        self._frames = frames_in_order(self._files, self._segments, place, self.end, self._last_90k)

    async def _woken(self, seconds: float) -> bool:
        """Something has changed; False: not within the time."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _read(self) -> bool:
        """The next fragment into pieces; False: there is no more. Raises GatewayError."""
        found = await asyncio.to_thread(next, self._frames, None)
        if found is None:
            return False
        wall, frames = found
        first_90k = frames[0].dts_90k
        for piece in _pieces(frames):
            self._pieces.append((wall + (piece[0].dts_90k - first_90k) / TIMESCALE, piece))
        return True

    def _push(self, wall: float, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._engine.push(
                self.id, frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=frame.key
            )
        self._at = wall
        self._last_90k = max(self._last_90k, frames[-1].dts_90k)

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
