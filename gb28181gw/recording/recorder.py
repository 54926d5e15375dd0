"""One channel's recorder: decides when, holds the stream, and hands its frames to a thread.

`run` is the whole life. Outsiders set facts (`alarm`, `wake`, `stream_ended`) and wake it. The stream is the channel's
live stream, leased as by any viewer: what a device does to it is cured by the session, and when that gives up the
recorder asks again, at the latest every 30 s and at once when the device comes online.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, tzinfo
from enum import Enum, auto
from pathlib import Path
from typing import Final, Protocol

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, Frame, TrackKind
from gb28181gw.observability.events import EventBus
from gb28181gw.recording.files import SegmentWriter
from gb28181gw.recording.models import (
    RecorderState,
    RecorderView,
    RecordingPlan,
    RecordMode,
    Segment,
    is_planned,
)
from gb28181gw.sessions.models import Consumer, StreamView

PAUSES_S: Final = (2.0, 5.0, 10.0, 30.0)
"""Before the stream is asked for again, growing from failure to failure."""
STEADY_S: Final = 60.0
"""What ran for so long did not fail: its loss is the first one."""
BATCH_S: Final = 0.3
"""Frames wait so long for the thread: what a kill costs at most, besides the second that is in work there."""
QUEUE_BYTES: Final = 24 * 1024 * 1024
"""Frames that wait for a slow disk; what is more is left out up to the next key frame."""
LOOK_S: Final = 20.0
"""A plan is looked at so often, besides every event."""
_SOUND: Final = frozenset({Codec.AAC, Codec.PCMA, Codec.PCMU})


class StreamHold(Protocol):
    @property
    def stream_id(self) -> str: ...

    def release(self) -> None: ...


class LiveStreams(Protocol):
    """`sessions.table.Sessions`, as far as a recorder needs it."""

    async def lease_live(self, device_id: str, channel_id: str, consumer: Consumer) -> StreamHold: ...


class MadeAudio(Protocol):
    """`outputs.transcoding.AudioTranscoding`."""

    def use(self, stream_id: str) -> None: ...

    def leave(self, stream_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Holder:
    client: str
    kind: str
    grant_id: str


@dataclass(slots=True)
class RecordingCounters:
    """Plain counters for the exporter."""

    segments: int = 0
    bytes: int = 0
    dropped: int = 0
    """Frames left out because the disk was slow."""
    interruptions: int = 0
    """Streams that a recorder lost or did not get."""
    removed: int = 0
    """Segments that retention removed."""
    copies_removed: int = 0
    """Files here that retention removed, because the object store has them."""
    disk_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderContext:
    """What every recorder shares."""

    streams: LiveStreams
    engine: Engine
    audio: MadeAudio
    bus: EventBus
    clock: Clock
    zone: tzinfo
    directory: Path
    segment_s: float
    counters: RecordingCounters
    has_room: Callable[[], bool]
    """The disk takes something."""
    on_disk_error: Callable[[OSError], None]
    on_segments: Callable[[list[Segment]], None]
    """Changes of the index."""


class _Want(Enum):
    NOTHING = auto()
    HOLD = auto()
    """Keep the stream running for what comes before an alarm."""
    RECORD = auto()


class ChannelRecorder:
    """Owner of one channel's recording. All calls on the event loop's thread."""

    def __init__(self, context: RecorderContext, plan: RecordingPlan, thread: Executor) -> None:
        self.plan = plan
        self._context = context
        self._thread = thread
        self._state = RecorderState.IDLE
        self._since = context.clock.wall()
        self._detail = ""
        self._until = 0.0
        """Mode event: monotonic end of the recording after the last alarm."""
        self._wake = asyncio.Event()
        self._stream_id = ""
        self._ended = ""
        """Why the leased stream ended."""
        self._batch: list[tuple[Frame, float]] = []
        self._batch_due = False
        self._queued = 0
        self._skipping = False
        self._jobs: asyncio.Queue[list[tuple[Frame, float]] | None] = asyncio.Queue()

    # ---- for the table

    def view(self) -> RecorderView:
        return RecorderView(
            plan=self.plan,
            state=self._state,
            since=self._since,
            detail=self._detail,
            stream_id=self._stream_id,
        )

    def wake(self) -> None:
        """Something has changed: the disk, the device, the time."""
        self._wake.set()

    def alarm(self) -> None:
        """An alarm of this channel."""
        if self.plan.mode is RecordMode.EVENT:
            self._until = self._context.clock.monotonic() + self.plan.post_s
            self._wake.set()

    def stream_ended(self, view: StreamView, reason: str) -> None:
        """`Sessions.on_ended`."""
        if view.id == self._stream_id:
            self._ended = reason
            self._wake.set()

    # ---- the whole life

    async def run(self) -> None:
        """Until cancelled; what is open is finished then."""
        failures = 0
        while True:
            self._wake.clear()
            if self._want() is _Want.NOTHING:
                failures = 0
                full = not self._context.has_room()
                self._enter(RecorderState.DISK_FULL if full else RecorderState.IDLE)
                await self._sleep(self._look_s())
                continue
            began = self._context.clock.monotonic()
            try:
                kept = await self._hold_stream()
                steady = self._context.clock.monotonic() - began > STEADY_S
                failures = 0 if kept else 1 if steady else failures + 1
            except GatewayError as error:
                failures += 1
                self._interrupted(error.reason, error.detail)
            if failures:
                await self._sleep(PAUSES_S[min(failures, len(PAUSES_S)) - 1])

    def _want(self) -> _Want:
        if not self._context.has_room():
            return _Want.NOTHING
        plan, clock = self.plan, self._context.clock
        if plan.mode is RecordMode.CONTINUOUS:
            return _Want.RECORD
        if plan.mode is RecordMode.EVENT:
            if clock.monotonic() < self._until:
                return _Want.RECORD
            return _Want.HOLD if plan.pre_roll else _Want.NOTHING
        now = datetime.fromtimestamp(clock.wall(), self._context.zone)
        second = now.hour * 3600 + now.minute * 60 + now.second
        return _Want.RECORD if is_planned(plan.week, now.weekday(), second) else _Want.NOTHING

    def _look_s(self) -> float:
        left = self._until - self._context.clock.monotonic()
        return min(LOOK_S, left) if left > 0 else LOOK_S

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.01)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _hold_stream(self) -> bool:
        """With the stream, until it ends or is not wanted any more. False: it ended. Raises GatewayError."""
        plan, context = self.plan, self._context
        self._enter(RecorderState.STARTING)
        self._ended = ""
        hold = await context.streams.lease_live(
            plan.device_id, plan.channel_id, _Holder(client="gateway", kind="recording", grant_id="")
        )
        self._stream_id = hold.stream_id
        try:
            while not self._ended:
                self._wake.clear()
                want = self._want()
                if want is _Want.NOTHING:
                    return True
                if want is _Want.RECORD:
                    await self._record(hold.stream_id)
                else:
                    self._enter(RecorderState.IDLE)
                    await self._sleep(LOOK_S)
            self._interrupted(self._ended, "The stream ended.")
            return False
        finally:
            self._stream_id = ""
            hold.release()

    async def _record(self, stream_id: str) -> None:
        """Write while it is wanted and there is a stream."""
        plan, context = self.plan, self._context
        kinds = {track.codec for track in context.engine.tracks(stream_id)}
        writer = SegmentWriter(
            context.directory,
            plan.device_id,
            plan.channel_id,
            plan.mode.value,
            segment_s=context.segment_s,
            expect_audio=bool(kinds & _SOUND),
        )
        context.audio.use(stream_id)
        self._jobs = asyncio.Queue()
        self._skipping, self._queued = False, 0
        try:
            sink = context.engine.add_frame_sink(stream_id, self._on_frames, made_audio=True)
        except GatewayError:
            context.audio.leave(stream_id)
            self._ended = self._ended or "stream_closed"
            return
        self._enter(RecorderState.RECORDING)
        writing = asyncio.create_task(self._write(writer), name=f"record {plan.channel_id}")
        try:
            while not self._ended and self._want() is _Want.RECORD and not writing.done():
                self._wake.clear()
                await self._sleep(self._look_s())
        finally:
            context.engine.close_sink(sink)
            context.audio.leave(stream_id)
            self._flush_batch()
            self._jobs.put_nowait(None)
            # What came is written also when the gateway stops.
            await asyncio.shield(writing)

    # ---- frames

    def _on_frames(self, frames: list[Frame]) -> None:
        clock = self._context.clock
        now, offset = clock.wall(), clock.wall() - clock.monotonic()
        for frame in frames:
            picture = frame.track.kind is TrackKind.VIDEO
            if self._queued > QUEUE_BYTES:
                self._skipping = True
            if self._skipping and picture and frame.key and self._queued < QUEUE_BYTES // 2:
                self._skipping = False
            if self._skipping:
                self._context.counters.dropped += 1
                continue
            self._queued += len(frame.payload)
            self._batch.append((frame, frame.arrival + offset if frame.arrival else now))
        if self._batch and not self._batch_due:
            self._batch_due = True
            asyncio.get_running_loop().call_later(BATCH_S, self._flush_batch)

    def _flush_batch(self) -> None:
        self._batch_due = False
        batch, self._batch = self._batch, []
        if batch:
            self._jobs.put_nowait(batch)

    async def _write(self, writer: SegmentWriter) -> None:
        """Batches into the thread, in order, until None comes or the disk takes no more."""
        loop, context = asyncio.get_running_loop(), self._context
        try:
            while True:
                batch = await self._jobs.get()
                if batch is None:
                    context.counters.bytes += await loop.run_in_executor(self._thread, writer.finish)
                    return
                try:
                    context.counters.bytes += await loop.run_in_executor(self._thread, writer.write, batch)
                finally:
                    self._queued -= sum(len(frame.payload) for frame, _ in batch)
                self._tell_segments(writer)
        except OSError as error:
            context.counters.disk_errors += 1
            context.on_disk_error(error)
            self._wake.set()
        finally:
            self._tell_segments(writer)

    def _tell_segments(self, writer: SegmentWriter) -> None:
        changes, writer.changes = writer.changes, []
        if changes:
            self._context.counters.segments += sum(one.end is not None for one in changes)
            self._context.on_segments(changes)

    # ---- what is told

    def _enter(self, state: RecorderState, detail: str = "") -> None:
        if state is self._state and detail == self._detail:
            return
        if state is RecorderState.STARTING and self._state is RecorderState.RETRYING:
            return  # told when it worked
        before, self._state = self._state, state
        self._since, self._detail = self._context.clock.wall(), detail
        if state is RecorderState.RECORDING:
            self._emit("recording.started")
        elif before is RecorderState.RECORDING and state in (RecorderState.IDLE, RecorderState.DISK_FULL):
            self._emit(
                "recording.stopped", reason="disk_full" if state is RecorderState.DISK_FULL else "plan"
            )

    def _interrupted(self, reason: str, detail: str) -> None:
        self._context.counters.interruptions += 1
        if self._state is not RecorderState.RETRYING or self._detail != detail:
            self._emit("recording.interrupted", reason=reason, detail=detail)
        self._enter(RecorderState.RETRYING, detail)

    def _emit(self, event: str, **fields: object) -> None:
        self._context.bus.emit(
            event,
            device_id=self.plan.device_id,
            channel_id=self.plan.channel_id,
            stream_id=self._stream_id or None,
            mode=self.plan.mode.value,
            **fields,
        )
