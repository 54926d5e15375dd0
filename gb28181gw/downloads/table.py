"""The table of downloads: a queue with limits, the jobs that run, and the files that are kept.

A recorder often has one session for a channel or for itself, playback and download together (PB-16): what does not fit
waits in the order of asking, with its place shown. Finished downloads live as a directory with a manifest below
`data_dir/downloads`; that is what a restart finds. They go with DELETE, with their age, or oldest first when all
together are too large.

Downloads that are not over are stored. With the next start they go on in the same order: those that waited begin, and
those that ran are asked for what is still missing (`journal`), each when its device is there.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.downloads.job import DownloadJob, JobContext, JobLimits, Recordings
from gb28181gw.downloads.journal import JOURNAL
from gb28181gw.downloads.models import (
    MANIFEST,
    DownloadRequest,
    DownloadState,
    DownloadView,
    view_of,
    write_manifest,
)
from gb28181gw.downloads.store import DownloadStore, StoredDownload
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine, MediaTransport
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.models import StreamView

MAX_SPAN_S: Final = 31 * 86_400
MAX_QUEUED: Final = 200
KEEP_HOUSE_S: Final = 60.0
LOOK_FOR_S: Final = 0.5
"""How often it is looked whether a device is there."""
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadLimits:
    """Of `[downloads]`."""

    at_once: int = 4
    per_device: int = 1
    keep_days: int = 7
    max_gb: int = 50
    job: JobLimits = field(default_factory=JobLimits)


class Downloads:
    """Owner of the jobs and of the directory. All calls on the event loop's thread."""

    def __init__(
        self,
        *,
        recordings: Recordings,
        engine: Engine,
        bus: EventBus,
        clock: Clock,
        directory: Path,
        store: DownloadStore,
        is_away: Callable[[str], bool],
        limits: DownloadLimits,
    ) -> None:
        """`is_away(device_id)`: a known device that cannot be asked now."""
        self._store = store
        self._is_away = is_away
        self._limits = limits
        self._directory = directory
        self._bus = bus
        self._clock = clock
        self._threads = ThreadPoolExecutor(max(1, limits.at_once), thread_name_prefix="download")
        self._context = JobContext(
            recordings=recordings,
            engine=engine,
            bus=bus,
            clock=clock,
            threads=self._threads,
            limits=limits.job,
        )
        self._jobs: dict[str, DownloadJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._removing: set[str] = set()
        """Jobs that are being ended: they must not start again in the turn in which they end."""
        self._finished: dict[str, DownloadView] = {}
        self._house: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._begun = False
        self._closing = False

    # ---- start and stop

    async def start(self) -> None:
        """Find what an earlier process finished, and what it did not; leftovers of neither are removed."""
        stored = await self._store.load_downloads()
        self._finished = await asyncio.to_thread(self._load, frozenset(one.id for one in stored))
        for one in stored:
            if one.id in self._finished:
                await self._forget(one.id)
                continue
            self._jobs[one.id] = DownloadJob(
                self._context, one.id, one.request, self._directory / one.id, restored_at=one.created_at
            )
        self._number()
        self._house = asyncio.create_task(self._keep_house(), name="downloads")

    def begin(self) -> None:
        """Devices can be asked from now on: what an earlier process did not finish goes on."""
        self._begun = True
        self._fill()
        if any(job.restored for job in self._jobs.values()):
            self._looking = asyncio.create_task(self._look_for_devices(), name="downloads that go on")

    async def close(self) -> None:
        """End what runs: the devices are told. It goes on with the next start."""
        self._closing = True
        for job in self._jobs.values():
            job.interrupt()
        others = [task for task in (self._house, self._looking) if task is not None]
        tasks = [*self._tasks.values(), *others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=True)

    # ---- for the API

    async def add(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        speed: float,
        transport: MediaTransport | None = None,
        centre: bool = False,
        original: bool = True,
    ) -> DownloadView:
        """Queue a download; it starts at once when there is room. It is stored when this returns.

        Raises GatewayError gb.route.invalid, gb.route.busy for a queue that is full, gb.route.storage_unavailable.
        """
        first, last = math.floor(start.timestamp()), math.ceil(end.timestamp())
        if not 0 < first < last <= first + MAX_SPAN_S:
            raise GatewayError("gb.route.invalid", "end lies after start, by at most 31 days.")
        if self._closing:
            raise GatewayError("gb.route.shutting_down")
        if len(self._jobs) >= MAX_QUEUED:
            raise GatewayError("gb.route.busy", f"{MAX_QUEUED} downloads wait already.")
        request = DownloadRequest(
            device_id=device_id,
            channel_id=channel_id,
            start=first,
            end=last,
            speed=speed,
            transport=transport,
            centre=centre,
            original=original,
        )
        job_id = secrets.token_hex(16)
        job = DownloadJob(self._context, job_id, request, self._directory / job_id)
        await self._store.save_download(StoredDownload(id=job_id, created_at=job.created_at, request=request))
        self._jobs[job_id] = job
        self._bus.emit(
            "download.queued",
            download_id=job_id,
            device_id=device_id,
            channel_id=channel_id,
            position=len(self._jobs),
        )
        self._fill()
        return job.view()

    def list(self) -> list[DownloadView]:
        """All, newest first."""
        views = [*self._finished.values(), *(job.view() for job in self._jobs.values())]
        return sorted(views, key=lambda view: view.created_at, reverse=True)

    def get(self, download_id: str) -> DownloadView:
        """Raises gb.route.download_unknown."""
        job = self._jobs.get(download_id)
        if job is not None:
            return job.view()
        try:
            return self._finished[download_id]
        except KeyError:
            raise GatewayError(
                "gb.route.download_unknown", f"There is no download {download_id[:64]}."
            ) from None

    async def remove(self, download_id: str) -> None:
        """End it, if it runs, and take its files away."""
        self.get(download_id)
        self._removing.add(download_id)
        task = self._tasks.get(download_id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._tasks.pop(download_id, None)  # its own callback may come a turn later
        self._removing.discard(download_id)
        job = self._jobs.pop(download_id, None)
        self._finished.pop(download_id, None)
        await self._forget(download_id)
        await asyncio.to_thread(shutil.rmtree, self._directory / download_id, ignore_errors=True)
        self._bus.emit(
            "download.removed", download_id=download_id, reason="stopped" if job is not None else "deleted"
        )
        self._fill()

    def path_of(self, download_id: str, *, manifest: bool = False, name: str = "") -> Path:
        """The file, its manifest, or the original of this `name`.

        Raises gb.route.download_unknown, gb.route.not_found, and gb.route.busy while it is not finished.
        """
        view = self.get(download_id)
        if not view.state.over:
            raise GatewayError("gb.route.busy", f"The download is {view.state}; its file is not finished.")
        if manifest:
            name = MANIFEST
        elif name:
            name = name if any(original.name == name for original in view.originals) else ""
        elif view.file is not None:
            name = view.file.name
        path = self._directory / download_id / name
        if not name or not path.is_file():
            raise GatewayError("gb.route.not_found", "This download has no file.")
        return path

    def stream_ended(self, view: StreamView, reason: str) -> None:
        """`Sessions.on_ended`: a stream begins to end."""
        for job in self._jobs.values():
            if job.stream_id == view.id:
                job.stream_ended(view, reason)

    @property
    def gauges(self) -> dict[str, int]:
        """How many there are in each state."""
        counts = {state.value: 0 for state in DownloadState}
        for view in self.list():
            counts[view.state.value] += 1
        return counts

    # ---- the queue

    def _fill(self) -> None:
        """Start what has room, in the order of asking; the others learn their place."""
        if self._closing or not self._begun:
            return
        for job in list(self._jobs.values()):
            if job.id in self._tasks or job.id in self._removing:
                continue
            device_id = job.request.device_id
            if self._has_room(device_id) and not (job.restored and self._is_away(device_id)):
                self._tasks[job.id] = asyncio.create_task(self._run(job), name=f"download {job.id}")
                self._tasks[job.id].add_done_callback(partial(self._ended, job))
        self._number()

    def _number(self) -> None:
        """Those that wait learn their place."""
        gone = {*self._tasks, *self._removing}
        waiting = [job for job in self._jobs.values() if job.id not in gone]
        for place, job in enumerate(waiting, 1):
            job.queue_position = place

    async def _run(self, job: DownloadJob) -> None:
        await job.run()
        await self._forget(job.id)

    async def _forget(self, download_id: str) -> None:
        """It is over."""
        try:
            await self._store.remove_download(download_id)
        except GatewayError:
            return  # the next start sees by its manifest that it is over

    async def _look_for_devices(self) -> None:
        """Until none of an earlier process waits."""
        while any(job.restored and job.id not in self._tasks for job in self._jobs.values()):
            await asyncio.sleep(LOOK_FOR_S)
            self._fill()

    def _has_room(self, device_id: str) -> bool:
        of_device = sum(1 for key in self._tasks if self._jobs[key].request.device_id == device_id)
        return len(self._tasks) < self._limits.at_once and of_device < self._limits.per_device

    def _ended(self, job: DownloadJob, task: asyncio.Task[None]) -> None:
        self._tasks.pop(job.id, None)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._bus.emit("gateway.task_failed", task=task.get_name(), detail=repr(bug))
        if job.finished is not None and self._jobs.pop(job.id, None) is not None:
            self._finished[job.id] = job.finished
        elif not task.cancelled():
            self._jobs.pop(job.id, None)
        self._fill()

    # ---- the directory

    def _load(self, stored: frozenset[str]) -> dict[str, DownloadView]:
        """In a thread. What is not over and not stored has failed, and leaves no file."""
        found: dict[str, DownloadView] = {}
        if not self._directory.is_dir():
            return found
        for entry in sorted(self._directory.iterdir()):
            try:
                view = view_of(json.loads((entry / MANIFEST).read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError):
                if entry.is_dir() and entry.name not in stored:
                    shutil.rmtree(entry, ignore_errors=True)  # was not finished
                continue
            if view.state.over:
                (entry / JOURNAL).unlink(missing_ok=True)
                found[entry.name] = view
            elif entry.name not in stored:
                found[entry.name] = _interrupted(view, entry, self._clock.wall())
        return found

    async def _keep_house(self) -> None:
        """Remove what is too old, or oldest first what is too much."""
        while True:
            now = self._clock.wall()
            total = sum(map(_size, self._finished.values()))
            for view in sorted(self._finished.values(), key=lambda view: view.finished_at or 0.0):
                age_s = now - (view.finished_at or now)
                too_old = age_s > self._limits.keep_days * _DAY_S
                if not too_old and total <= self._limits.max_gb * 1_000_000_000:
                    continue
                total -= _size(view)
                self._finished.pop(view.id, None)
                await asyncio.to_thread(shutil.rmtree, self._directory / view.id, ignore_errors=True)
                self._bus.emit(
                    "download.removed", download_id=view.id, reason="expired" if too_old else "too_large"
                )
            await asyncio.sleep(KEEP_HOUSE_S)


def _interrupted(view: DownloadView, directory: Path, now: float) -> DownloadView:
    """In a thread: the view of a download that a stop of the gateway ended and that nobody knows any more."""
    failed = replace(
        view,
        state=DownloadState.FAILED,
        finished_at=now,
        error_code="gb.route.shutting_down",
        error_detail="The gateway was stopped meanwhile.",
    )
    for file in directory.iterdir():
        if file.name != MANIFEST:
            file.unlink(missing_ok=True)
    write_manifest(failed, directory)
    return failed


def _size(view: DownloadView) -> int:
    files = [*view.originals, *([view.file] if view.file is not None else [])]
    return sum(file.size for file in files)
