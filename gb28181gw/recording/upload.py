"""Brings finished files to the object store, and removes there what the index has forgotten.

What is to be done is in the database, so it goes on after a restart. A store that does not answer, or refuses, stops
all work there for a time that grows from failure to failure, and the file that failed goes behind the others; the
first success ends that. Nothing is lost meanwhile: files stay here until they are complete there. The name of an object
is in the index before the object can be there, so none is left behind by a kill.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.observability.events import EventBus
from gb28181gw.recording.models import ObjectStore, ObjectStoreError, Segment, UploadStore

PAUSES_S: Final = (2.0, 5.0, 15.0, 60.0, 120.0)
"""Without work after a failure, growing from failure to failure."""
LOOK_S: Final = 5.0
"""The queue is looked at so often, besides each time that something is put in."""
REMOVED_AT_A_TIME: Final = 20


@dataclass(slots=True)
class UploadCounters:
    """Plain counters for the exporter."""

    segments: int = 0
    """Brought to the object store and complete there."""
    bytes: int = 0
    failures: int = 0
    """Attempts that the object store did not take."""
    lost: int = 0
    """Files that were gone before they were uploaded."""
    removed: int = 0
    """Objects removed, because their time is over."""
    fetched: int = 0
    """Segments fetched back for playing or downloading."""
    fetch_failures: int = 0


def object_name(prefix: str, segment: Segment) -> str:
    """Readable: device, channel, day and time of its beginning by UTC, as the files are named."""
    moment = datetime.fromtimestamp(segment.start, UTC)
    device, channel = quote(segment.device_id, safe=""), quote(segment.channel_id, safe="")
    return f"{prefix}{device}/{channel}/{moment:%Y-%m-%d}/{moment:%H%M%S}-{segment.id[:8]}.mp4"


class Uploads:
    """Owner of the work at the object store. All calls on the event loop's thread."""

    def __init__(
        self,
        *,
        store: UploadStore,
        objects: ObjectStore,
        bus: EventBus,
        clock: Clock,
        directory: Path,
        prefix: str,
        parallel: int,
        counters: UploadCounters,
    ) -> None:
        self.waiting = 0
        """Files in the queue, as of the last look."""
        self.failing = ""
        """Why the object store is left alone for now; empty: it is not."""
        self._counters = counters
        self._store = store
        self._objects = objects
        self._bus = bus
        self._clock = clock
        self._directory = directory
        self._prefix = prefix
        self._parallel = parallel
        self._busy: set[str] = set()
        """Ids of the segments in work."""
        self._uploading: set[str] = set()
        """Names of objects that may come to be at any moment."""
        self._taking = asyncio.Lock()
        self._wake = asyncio.Event()
        self._failures = 0
        self._resume_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(), name=f"recording upload {number}")
            for number in range(self._parallel)
        ]
        self._tasks.append(asyncio.create_task(self._remove(), name="recording objects"))
        for task in self._tasks:
            task.add_done_callback(self._bug)

    async def close(self) -> None:
        """What is under way is given up; it is in the queue of the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """There is something in the queue."""
        self._wake.set()

    def name_of(self, segment: Segment) -> str:
        """Where it is, or will be, in the object store."""
        return segment.object or segment.upload_name or object_name(self._prefix, segment)

    def _bug(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._bus.emit("gateway.task_failed", task=task.get_name(), detail=repr(bug))

    # ---- up

    async def _work(self) -> None:
        while True:
            segment = await self._next()
            name = self.name_of(segment)
            self._uploading.add(name)
            try:
                await self._upload(segment, name)
            except GatewayError:
                self._fail("storage_unavailable", "The index does not answer.")  # it is uploaded once more
            finally:
                self._uploading.discard(name)
                self._busy.discard(segment.id)

    async def _next(self) -> Segment:
        """The longest due file that no other task has."""
        while True:
            self._wake.clear()
            if (left := self._resume_at - self._clock.monotonic()) > 0:
                await asyncio.sleep(min(left, LOOK_S))
                continue
            async with self._taking:
                segment = await self._take()
            if segment is not None:
                return segment
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _take(self) -> Segment | None:
        try:
            self.waiting = await self._store.uploads_waiting()
            due = await self._store.uploads_due(self._clock.wall(), self._parallel + 1)
        except GatewayError:
            return None
        for segment in due:
            if segment.id not in self._busy:
                self._busy.add(segment.id)
                return segment
        return None

    async def _upload(self, segment: Segment, name: str) -> None:
        if not segment.upload_name:
            await self._store.name_upload(segment.id, name)
        try:
            size = await self._objects.put(name, self._directory / segment.file)
        except OSError as error:
            # Somebody deleted it: there is nothing that could be tried again.
            self._counters.lost += 1
            self._bus.emit("recording.upload_lost", **_fields(segment), detail=str(error.strerror or error))
            await self._store.put_off_upload(segment.id, None)
            return
        except ObjectStoreError as error:
            self._fail(error.reason, error.detail)
            await self._store.put_off_upload(segment.id, self._clock.wall() + self._pause_s)
            return
        self._well()
        self._counters.segments += 1
        self._counters.bytes += size
        if await self._store.uploaded(segment.id, name):
            self._bus.emit("recording.uploaded", **_fields(segment), object=name, size=size)

    # ---- away

    async def _remove(self) -> None:
        while True:
            if self._clock.monotonic() >= self._resume_at:
                try:
                    for name in await self._store.objects_to_remove(REMOVED_AT_A_TIME):
                        if name in self._uploading:
                            continue
                        await self._objects.remove(name)
                        await self._store.objects_removed([name])
                        self._counters.removed += 1
                        self._well()
                except ObjectStoreError as error:
                    self._fail(error.reason, error.detail)
                except GatewayError:
                    pass  # the database is away: later
            await asyncio.sleep(LOOK_S)

    # ---- how the store stands

    @property
    def _pause_s(self) -> float:
        return PAUSES_S[min(self._failures, len(PAUSES_S)) - 1]

    def _fail(self, reason: str, detail: str) -> None:
        self._counters.failures += 1
        now = self._clock.monotonic()
        if now >= self._resume_at:  # tasks that fail together are one failure
            self._failures += 1
            self._resume_at = now + self._pause_s
        if self.failing != reason:
            self.failing = reason
            self._bus.emit(
                "recording.upload_failed",
                place=self._objects.place,
                reason=reason,
                detail=detail,
                waiting=self.waiting,
            )

    def _well(self) -> None:
        self._failures, self._resume_at = 0, 0.0
        if self.failing:
            self.failing = ""
            self._bus.emit("recording.upload_resumed", place=self._objects.place, waiting=self.waiting)


def _fields(segment: Segment) -> dict[str, object]:
    return {"device_id": segment.device_id, "channel_id": segment.channel_id, "file": segment.file}
