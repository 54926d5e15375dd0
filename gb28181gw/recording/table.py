"""The owner of recordings: plans with their recorders, the index, the room on the disk, and what is played.

Theory of operation. Each plan has a recorder (`recorder`), whose files are written in one of a few threads. The index
is in the database: a row when a file is opened and again when it is closed, so a start after a kill finds the files
without an end and reads how far they go. What the database did not take is written again later. Housekeeping removes
what is too old or too much, oldest first and never what is locked; when nothing may go and the disk is full, or when
a write fails, all recorders stop and go on by themselves once there is room. Nothing else of the gateway waits for
this disk (F-16). Where an object store is configured, finished files are brought there (`upload`), and read from
there when their file here is gone (`sources`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.reports import Alarm
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.observability.events import EventBus
from gb28181gw.recording.files import settle, write_all
from gb28181gw.recording.joining import joined
from gb28181gw.recording.models import (
    ObjectStore,
    ObjectStoreError,
    RecorderState,
    RecorderView,
    RecordingPlan,
    RecordingStore,
    Segment,
    Span,
    spans_of,
)
from gb28181gw.recording.playback import PlaybackHold, RecordingPlayback
from gb28181gw.recording.reader import SegmentError, measure
from gb28181gw.recording.recorder import (
    ChannelRecorder,
    LiveStreams,
    MadeAudio,
    RecorderContext,
    RecordingCounters,
)
from gb28181gw.recording.sources import SegmentFiles
from gb28181gw.recording.upload import UploadCounters, Uploads
from gb28181gw.sessions.models import Consumer, StreamView

DAY_S: Final = 86_400.0
MAX_SPAN_S: Final = 31 * DAY_S
LOOK_S: Final = 5.0
"""Pace of the look at the disk."""
SWEEP_S: Final = 300.0
"""Pace of the search for what is too old."""
PROBE_BYTES: Final = 1 << 20
AT_A_TIME: Final = 50
MAX_REMOVED: Final = 200
"""Files that are removed for room between two looks: a disk may say late that it has some."""
PLAYBACKS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingLimits:
    """Of `[recording]`."""

    segment_s: float = 60.0
    keep_days: int = 30
    max_gb: float = 0.0
    """0: as much as the disk has."""
    min_free_mb: float = 1024.0
    threads: int = 4
    idle_s: float = 30.0
    """Of a playback without viewers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPlan:
    """Of `[recording.s3]`."""

    objects: ObjectStore
    prefix: str = ""
    parallel: int = 2
    keep_local: bool = True
    """False: a file here goes as soon as it is complete there, unless it is locked."""


class Recording:
    """Owner of everything of recordings. All calls on the event loop's thread."""

    def __init__(
        self,
        *,
        streams: LiveStreams,
        engine: Engine,
        audio: MadeAudio,
        store: RecordingStore,
        bus: EventBus,
        clock: Clock,
        zone: tzinfo,
        directory: Path,
        limits: RecordingLimits,
        upload: UploadPlan | None = None,
    ) -> None:
        self.counters = RecordingCounters()
        self.upload_counters = UploadCounters()
        self.total_bytes = 0
        """Of the closed files in the index that are here."""
        self._store = store
        self._bus = bus
        self._clock = clock
        self._engine = engine
        self._directory = directory
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._keep_local = upload is None or upload.keep_local
        self._place = upload.objects.place if upload is not None else ""
        self.uploads: Uploads | None = None
        self._files = SegmentFiles(directory)
        if upload is not None:
            self.uploads = Uploads(
                store=store,
                objects=upload.objects,
                bus=bus,
                clock=clock,
                directory=directory,
                prefix=upload.prefix,
                parallel=upload.parallel,
                counters=self.upload_counters,
            )
            self._files = SegmentFiles(directory, upload.objects, self.uploads.name_of, self._fetched)
        self._threads = [
            ThreadPoolExecutor(1, thread_name_prefix=f"recording-{number}")
            for number in range(limits.threads)
        ]
        self._context = RecorderContext(
            streams=streams,
            engine=engine,
            audio=audio,
            bus=bus,
            clock=clock,
            zone=zone,
            directory=directory,
            segment_s=limits.segment_s,
            counters=self.counters,
            has_room=lambda: not self._full,
            on_disk_error=self._disk_error,
            on_segments=self._segments_changed,
        )
        self._recorders: dict[tuple[str, str], ChannelRecorder] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._playbacks: dict[str, RecordingPlayback] = {}
        self._playing: set[asyncio.Task[None]] = set()
        self._full = ""
        """Why nothing is written; empty: it is."""
        self._unsaved: dict[str, Segment] = {}
        self._saving: asyncio.Task[None] | None = None
        self._deciding = asyncio.Lock()
        """What is evidence, or what goes: one after the other."""
        self._house: asyncio.Task[None] | None = None

    # ---- start and stop

    async def start(self) -> None:
        """Read the plans, and how far the files go that a kill left open."""
        await asyncio.to_thread(self._files.clear)
        await self._recover()
        self.total_bytes = await self._store.total_bytes()
        if self.uploads is not None and (older := await self._store.queue_uploads(self._clock.wall())):
            self._bus.emit("recording.upload_queued", place=self._place, segments=older)
        for plan in await self._store.load_plans():
            self._add(plan)
        self._house = asyncio.create_task(self._keep_house(), name="recording house")
        if self.uploads is not None:
            self.uploads.start()

    async def close(self) -> None:
        """Finish what is open and write the index."""
        tasks = [*self._tasks.values(), *self._playing]
        if self._house is not None:
            tasks.append(self._house)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._saving is not None:
            await asyncio.gather(self._saving, return_exceptions=True)
        await self._save()
        if self.uploads is not None:
            await self.uploads.close()
        self._files.close()
        for thread in self._threads:
            thread.shutdown(wait=True)

    async def _recover(self) -> None:
        gone: list[str] = []
        kept = 0
        for segment in await self._store.open_segments():
            found = await asyncio.to_thread(self._measure, segment)
            if found is None:
                gone.append(segment.id)
            else:
                kept += 1
                await self._store.save_segment(self._to_upload(found))
        await self._store.remove_segments(gone)
        if kept or gone:
            self._bus.emit("recording.recovered", segments=kept, empty=len(gone))

    def _measure(self, segment: Segment) -> Segment | None:
        """In a thread. None: there is no picture in it, and it is removed."""
        path = self._directory / segment.file
        try:
            head, end, size = measure(path)
            if end > head.start:
                with path.open("r+b") as file:
                    file.truncate(size)
                    settle(path, file.fileno(), new_folders=True)
                return replace(segment, end=end, size=size)
        except (OSError, SegmentError):
            pass  # it never came to a picture
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None

    # ---- plans

    def plans(self) -> list[RecorderView]:
        """Every plan, by device and channel."""
        return [recorder.view() for _, recorder in sorted(self._recorders.items())]

    def get(self, device_id: str, channel_id: str) -> RecorderView:
        """Raises gb.route.not_found."""
        recorder = self._recorders.get((device_id, channel_id))
        if recorder is None:
            raise GatewayError("gb.route.not_found", "This channel has no plan of recording.")
        return recorder.view()

    async def put(self, plan: RecordingPlan) -> RecorderView:
        """In force at once. Raises gb.route.storage_unavailable."""
        await self._store.save_plan(plan)
        await self._drop(plan.device_id, plan.channel_id)
        self._bus.emit(
            "recording.plan_changed",
            device_id=plan.device_id,
            channel_id=plan.channel_id,
            mode=plan.mode.value,
        )
        return self._add(plan).view()

    async def remove(self, device_id: str, channel_id: str) -> None:
        """End the recording; what was recorded stays for its time. Raises gb.route.not_found."""
        self.get(device_id, channel_id)
        await self._store.remove_plan(device_id, channel_id)
        await self._drop(device_id, channel_id)
        self._bus.emit("recording.plan_changed", device_id=device_id, channel_id=channel_id, mode="none")

    def forget_device(self, device_id: str) -> None:
        """The device was removed: its plans go, what was recorded stays for its time."""
        for channel_id in [channel for device, channel in self._recorders if device == device_id]:
            task = asyncio.create_task(self.remove(device_id, channel_id), name="forget recording")
            self._playing.add(task)
            task.add_done_callback(self._played)

    def _add(self, plan: RecordingPlan) -> ChannelRecorder:
        key = (plan.device_id, plan.channel_id)
        recorder = ChannelRecorder(self._context, plan, self._threads[hash(key) % len(self._threads)])
        self._recorders[key] = recorder
        task = asyncio.create_task(recorder.run(), name=f"recorder {plan.channel_id}")
        self._tasks[key] = task
        task.add_done_callback(self._bug)
        return recorder

    async def _drop(self, device_id: str, channel_id: str) -> None:
        self._recorders.pop((device_id, channel_id), None)
        task = self._tasks.pop((device_id, channel_id), None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _bug(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._bus.emit("gateway.task_failed", task=task.get_name(), detail=repr(bug))

    # ---- what others tell

    def on_alarm(self, alarm: Alarm) -> None:
        """`Reports.on_alarm`: of a channel; of the device or an alarm input, all its channels that wait for alarms."""
        exact = self._recorders.get((alarm.device_id, alarm.channel_id))
        if exact is not None:
            exact.alarm()
            return
        for (device_id, _), recorder in self._recorders.items():
            if device_id == alarm.device_id:
                recorder.alarm()

    def stream_ended(self, view: StreamView, reason: str) -> None:
        """`Sessions.on_ended`."""
        recorder = self._recorders.get((view.device_id, view.channel_id))
        if recorder is not None:
            recorder.stream_ended(view, reason)

    def device_online(self, device_id: str) -> None:
        """Ask again for its streams at once."""
        for (owner, _), recorder in self._recorders.items():
            if owner == device_id:
                recorder.wake()

    # ---- the index

    async def segments(
        self, device_id: str, channel_id: str, start: datetime, end: datetime
    ) -> list[Segment]:
        """That overlap the time, oldest first. Raises gb.route.invalid."""
        begin, until = _span(start, end)
        found = await self._store.segments(device_id, channel_id, begin, until)
        unsaved = {one.id: one for one in self._unsaved.values()}
        return [unsaved.get(one.id, one) for one in found]

    async def spans(self, device_id: str, channel_id: str, start: datetime, end: datetime) -> list[Span]:
        """What was recorded without a gap, oldest first."""
        return spans_of(await self.segments(device_id, channel_id, start, end), self._clock.wall())

    async def lock(
        self, device_id: str, channel_id: str, start: datetime, end: datetime, *, locked: bool
    ) -> int:
        """Evidence: what overlaps the time is never deleted, until it is unlocked. The number of files."""
        begin, until = _span(start, end)
        async with self._deciding:
            number = await self._store.lock(device_id, channel_id, begin, until, locked=locked)
        self._bus.emit(
            "recording.locked" if locked else "recording.unlocked",
            device_id=device_id,
            channel_id=channel_id,
            segments=number,
        )
        return number

    def _segments_changed(self, changes: list[Segment]) -> None:
        for segment in changes:
            self._unsaved[segment.id] = self._to_upload(segment)
            if segment.end is not None:
                self.total_bytes += segment.size
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save(), name="recording index")

    def _to_upload(self, segment: Segment) -> Segment:
        """A finished file is in the queue from its row on."""
        if self.uploads is None or segment.end is None:
            return segment
        return replace(segment, upload_due=self._clock.wall())

    async def _save(self) -> None:
        """Write the index; what the database does not take is tried again by the housekeeping."""
        with contextlib.suppress(GatewayError):
            while self._unsaved:
                segment = next(iter(self._unsaved.values()))
                await self._store.save_segment(segment)
                if self._unsaved.get(segment.id) is segment:
                    del self._unsaved[segment.id]
                if self.uploads is not None and segment.upload_due is not None:
                    self.uploads.wake()

    # ---- playing and fetching

    async def play(
        self, device_id: str, channel_id: str, start: datetime, end: datetime
    ) -> RecordingPlayback:
        """A stream that plays what was recorded. Raises gb.media.no_recording, gb.route.busy, gb.route.invalid."""
        if len(self._playbacks) >= PLAYBACKS:
            raise GatewayError("gb.route.busy", f"{PLAYBACKS} recordings are played at a time.")
        segments = await self.segments(device_id, channel_id, start, end)
        if not segments:
            raise GatewayError("gb.media.no_recording", "Nothing of this time was recorded here.")
        playback = RecordingPlayback(
            self._engine,
            self._bus,
            self._clock,
            self._files,
            segments,
            start.timestamp(),
            end.timestamp(),
            idle_s=self._limits.idle_s,
        )
        await playback.prepare()
        self._playbacks[playback.id] = playback
        task = asyncio.create_task(playback.run(), name=f"playback {playback.id}")
        self._playing.add(task)
        task.add_done_callback(self._played)
        task.add_done_callback(lambda _: self._playbacks.pop(playback.id, None))
        return playback

    def _played(self, task: asyncio.Task[None]) -> None:
        self._playing.discard(task)
        self._bug(task)

    def playback(self, stream_id: str) -> RecordingPlayback | None:
        """None: it is no stream of ours."""
        return self._playbacks.get(stream_id)

    def playing(self) -> list[StreamView]:
        """What is played, in the order of its beginning."""
        return [playback.view() for playback in self._playbacks.values()]

    def lease(self, stream_id: str, consumer: Consumer) -> PlaybackHold | None:
        """A viewer's hold on a playback; None: it is no stream of ours."""
        playback = self._playbacks.get(stream_id)
        return playback.lease(consumer) if playback is not None else None

    async def file(self, device_id: str, channel_id: str, start: datetime, end: datetime) -> Iterator[bytes]:
        """One MP4 of the time, in pieces.

        Raises gb.media.no_recording, gb.route.invalid, gb.media.store_unavailable, gb.route.busy.
        """
        segments = await self.segments(device_id, channel_id, start, end)
        if not segments:
            raise GatewayError("gb.media.no_recording", "Nothing of this time was recorded here.")
        forms = {segment.form for segment in segments}
        if len(forms) > 1:
            raise GatewayError(
                "gb.route.invalid",
                "The picture or the sound changes its form within this time, and one file has one form only: "
                "fetch the spans one by one.",
            )
        pieces = joined(self._files, segments, start.timestamp(), end.timestamp())
        first = await asyncio.to_thread(next, pieces, b"")
        if not first:
            raise GatewayError("gb.media.no_recording", "The files of this time are gone.")
        return itertools.chain((first,), pieces)

    def _fetched(self, segment: Segment, error: ObjectStoreError | None) -> None:
        """In any thread: a segment came from the object store, or did not."""
        self._loop.call_soon_threadsafe(self._tell_fetched, segment, error)

    def _tell_fetched(self, segment: Segment, error: ObjectStoreError | None) -> None:
        if error is None:
            self.upload_counters.fetched += 1
            return
        self.upload_counters.fetch_failures += 1
        self._bus.emit(
            "recording.fetch_failed",
            device_id=segment.device_id,
            channel_id=segment.channel_id,
            file=segment.file,
            place=self._place,
            reason=error.reason,
            detail=error.detail,
        )

    # ---- the disk

    @property
    def disk_full(self) -> str:
        """Why nothing is written; empty: it is."""
        return self._full

    @property
    def gauges(self) -> dict[str, int]:
        """Recorders by state."""
        counts = {state.value: 0 for state in RecorderState}
        for recorder in self._recorders.values():
            counts[recorder.view().state.value] += 1
        return counts

    def _disk_error(self, error: OSError) -> None:
        self._stop_all(f"{error.strerror or error}")

    def _stop_all(self, why: str) -> None:
        if self._full:
            return
        self._full = why
        self._bus.emit("recording.disk_full", detail=why, path=str(self._directory))
        for recorder in self._recorders.values():
            recorder.wake()

    def _go_on(self) -> None:
        if not self._full:
            return
        self._full = ""
        self._bus.emit("recording.disk_resumed", path=str(self._directory))
        for recorder in self._recorders.values():
            recorder.wake()

    async def _keep_house(self) -> None:
        due = 0.0
        while True:
            with contextlib.suppress(GatewayError):  # the database is away: later
                if self._clock.monotonic() >= due:
                    await self.sweep()
                    due = self._clock.monotonic() + SWEEP_S
                await self.look()
            await asyncio.sleep(LOOK_S)

    async def sweep(self) -> None:
        """Remove what is too old."""
        now = self._clock.wall()
        for device_id, channel_id in await self._store.recorded_channels():
            recorder = self._recorders.get((device_id, channel_id))
            days = recorder.plan.keep_days if recorder is not None else None
            before = now - (days if days is not None else self._limits.keep_days) * DAY_S
            while await self._remove_expired(device_id, channel_id, before):
                pass

    async def _remove_expired(self, device_id: str, channel_id: str, before: float) -> bool:
        """Some of what ended before; False: there is nothing any more."""
        async with self._deciding:
            old = await self._store.expired(device_id, channel_id, before, AT_A_TIME)
            await self._delete(old, "expired")
        return bool(old)

    async def look(self) -> None:
        """Write what the database did not take, remove what is too much, see whether the disk takes something."""
        await self._save()
        if not self._keep_local:
            while await self._remove_copies():
                pass
        limit = self._limits.max_gb * 1e9
        while limit and self.total_bytes > limit and await self._remove_oldest("too_large"):
            pass
        if not self._recorders and not self._full:
            return
        need, removed = round(self._limits.min_free_mb * 1e6), 0
        while (free := await asyncio.to_thread(self._free)) < need and removed < MAX_REMOVED:
            if not await self._remove_oldest("disk_full"):
                self._stop_all(f"{free // 1_000_000} MB are free, and nothing may be deleted.")
                return
            removed += 1
        if self._full and free >= need:
            takes = await asyncio.to_thread(self._takes)
            if takes:
                self._go_on()

    async def _remove_copies(self) -> bool:
        """Some files here of what the object store has; False: there are none, or they are being read."""
        async with self._deciding:
            return await self._drop_copies(await self._store.oldest_local(AT_A_TIME, uploaded=True))

    async def _remove_oldest(self, reason: str) -> bool:
        """What the object store has goes first; False: there is nothing that may go."""
        async with self._deciding:
            for copy in await self._store.oldest_local(AT_A_TIME, uploaded=True):
                if await self._drop_copies([copy]):
                    return True
            old = await self._store.oldest_local(1, uploaded=False)
            await self._delete(old, reason)
            return bool(old)

    async def _drop_copies(self, segments: Sequence[Segment]) -> bool:
        """Delete the files here of what the object store has; False: none could be."""
        dropped = [one for one in segments if await asyncio.to_thread(self._files.drop, one)]
        await self._store.local_removed([one.id for one in dropped])
        self.total_bytes -= sum(one.size for one in dropped)
        self.counters.copies_removed += len(dropped)
        return bool(dropped)

    async def _delete(self, segments: Sequence[Segment], reason: str) -> None:
        """The files first: a row without a file is a gap, a file without a row is lost room."""
        if not segments:
            return
        await asyncio.to_thread(self._unlink, segments)
        await self._store.remove_segments([one.id for one in segments])
        self.total_bytes -= sum(one.size for one in segments if one.local)
        self.counters.removed += len(segments)
        self._bus.emit(
            "recording.removed",
            device_id=segments[0].device_id,
            channel_id=segments[0].channel_id,
            segments=len(segments),
            reason=reason,
        )

    def _unlink(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            path = self._directory / segment.file
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            for folder in (path.parent, path.parent.parent):
                with contextlib.suppress(OSError):  # not empty yet
                    folder.rmdir()

    def _free(self) -> int:
        """Bytes; 0 where the disk does not even say that."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            return shutil.disk_usage(self._directory).free
        except OSError:
            return 0

    def _takes(self) -> bool:
        """A file can be written."""
        probe = self._directory / ".probe"
        try:
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                write_all(descriptor, bytes(PROBE_BYTES))
            finally:
                os.close(descriptor)
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
        return True


def _span(start: datetime, end: datetime) -> tuple[float, float]:
    begin, until = start.timestamp(), end.timestamp()
    if not begin < until <= begin + MAX_SPAN_S:
        raise GatewayError("gb.route.invalid", "end lies after start, by at most 31 days.")
    return begin, until
