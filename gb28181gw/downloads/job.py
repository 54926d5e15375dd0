"""One download: INVITEs until the span is there, frames into a file, a manifest at the end.

`run` is the whole life. Every INVITE is a *part*: its frame sink is there before the first packet, so a fast transfer
loses no beginning (PB-15), and a task hands what came to a worker thread, which places and writes it (`seam`, `mp4`).
A part that breaks off is followed by another that begins some seconds earlier; only a part that brings no new picture
counts against the tries. A part that the device ends before the span does is followed by one from its end on (PB-14);
a device that has nothing further then has sent all. What ends a part is `sessions`' to say; this module never looks at
SIP.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from gb28181gw.clock import Clock
from gb28181gw.downloads.models import (
    DownloadFile,
    DownloadRequest,
    DownloadState,
    DownloadView,
    FileError,
    Gap,
    Part,
    write_manifest,
)
from gb28181gw.downloads.original import OriginalKeeper
from gb28181gw.downloads.seam import Seam
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine, MediaTransport
from gb28181gw.media.tracks import Frame
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.history import MAX_SHORT_FILES
from gb28181gw.sessions.models import Consumer, StreamView

if TYPE_CHECKING:
    from gb28181gw.downloads.mp4 import Mp4Writer

OVERLAP_S: Final = 6
"""A further part begins so long before the end of what is there; more than a usual distance of key frames."""
NEAR_S: Final = 3.0
"""A part that ends closer to the end of the span has brought it to its end."""
MAX_WAITING: Final = 256 * 1024 * 1024
"""Bytes of frames that may wait for the disk."""
_ENDS: Final = frozenset({"end_of_file", "end_silent", "end_time"})
_NOTHING_FURTHER: Final = frozenset({"gb.sip.rejected", "gb.media.no_rtp", "gb.media.no_recording"})
"""What a device says of a time of which it has nothing."""
_STOPS: Final = frozenset({"stopped", "shutdown", "device_removed"})
"""Somebody here ended the stream: asking again is not what they want."""


class StreamHold(Protocol):
    def release(self) -> None: ...


class Recordings(Protocol):
    """`sessions.table.Sessions`, as far as a download needs it."""

    async def start_download(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        speed: float,
        transport: MediaTransport | None = None,
        centre: bool = False,
        prepare: Callable[[str], Awaitable[None]] | None = None,
    ) -> StreamView: ...

    async def lease_stream(self, stream_id: str, consumer: Consumer) -> StreamHold: ...

    async def stop(self, stream_id: str, reason: str = "stopped") -> None: ...

    def get(self, stream_id: str) -> StreamView: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """Seconds, where nothing else is said."""

    pauses_s: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)
    """Before each further part; as many parts without a new picture in a row end the download."""
    tell_s: float = 1.0
    """Pace of `download.progress`."""
    look_s: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """What every download shares."""

    recordings: Recordings
    engine: Engine
    bus: EventBus
    clock: Clock
    threads: Executor
    limits: JobLimits


@dataclass(frozen=True, slots=True)
class _Holder:
    """How the lease of a download names its holder."""

    client: str
    kind: str
    grant_id: str


class DownloadJob:
    """Owner of one download and of its directory."""

    def __init__(self, context: JobContext, job_id: str, request: DownloadRequest, directory: Path) -> None:
        self.id = job_id
        self.request = request
        self.directory = directory
        self.state = DownloadState.QUEUED
        self.queue_position: int | None = None
        self.finished: DownloadView | None = None
        """The last view, once it is over."""
        self._context = context
        self._created_at = context.clock.wall()
        self._seam = Seam()
        self._writer: Mp4Writer | None = None
        self._queue: deque[list[Frame] | bytes] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        """Set whenever something was written."""
        self._broken: GatewayError | None = None
        self._stream_id = ""
        self._part_ended: asyncio.Future[tuple[StreamView, str]] | None = None
        self._position_s = 0.0
        self._rate: float | None = None
        self._bytes = 0
        self._part_bytes = 0
        self._file_size: int | None = None
        self._attempts = 0
        self._file_ended = False
        """The device ended the last part before the end of the span: another file may follow (PB-14)."""
        self._short_files = 0
        """Parts in a row that brought hardly anything."""
        self._gaps: list[Gap] = []
        self._parts: list[Part] = []
        self._file: DownloadFile | None = None
        self._keeper: OriginalKeeper | None = None
        self._original: BinaryIO | None = None
        self._originals: list[DownloadFile] = []
        self._notes: list[str] = []

    # ---- for those above

    @property
    def stream_id(self) -> str:
        return self._stream_id

    def view(self) -> DownloadView:
        return self.finished if self.finished is not None else self._view()

    def stream_ended(self, view: StreamView, reason: str) -> None:
        """The stream of the running part begins to end."""
        if self._part_ended is not None and not self._part_ended.done():
            self._part_ended.set_result((view, reason))

    # ---- the whole life

    async def run(self) -> None:
        """Until the download is over. Never raises but for cancellation; then the file is taken away."""
        error: GatewayError | None = None
        self.state = DownloadState.RUNNING
        self._emit("download.started")
        await self._keep_manifest(self._view())  # what a restart finds of it
        writing = asyncio.create_task(self._write_all(), name=f"write {self.id}")
        try:
            try:
                await self._fetch()
            except GatewayError as failure:
                error = failure
            await self._finish(error)
        except asyncio.CancelledError:
            await self._abandon(writing)
            raise
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _fetch(self) -> None:
        """Parts until the span is there. Raises the last failure."""
        misses = 0
        while True:
            had = self._seam.end_90k
            try:
                if await self._fetch_part():
                    return
                if self._file_ended:
                    continue
                failure = GatewayError(
                    "gb.media.silent", f"The transfer broke off at {self._position_s:.0f} s."
                )
            except GatewayError as error:
                failure = error
                if self._file_ended and error.code in _NOTHING_FURTHER:
                    self._note_end()
                    return
                if not self._parts or error is self._broken or error.code == "gb.sip.cancelled":
                    raise  # what the device says at first it means; and a full disk stays full
            misses = 0 if self._seam.end_90k > had else misses + 1
            pauses = self._context.limits.pauses_s
            if misses >= len(pauses):
                raise failure
            self.state = DownloadState.RETRYING
            self._emit(
                "download.retrying",
                reason=failure.reason,
                detail=failure.detail,
                position_s=round(self._position_s, 1),
                delay_s=pauses[misses],
            )
            await asyncio.sleep(pauses[misses])

    async def _fetch_part(self) -> bool:
        """One INVITE; True when the device has no more of the span. Raises GatewayError."""
        request = self.request
        first = not self._parts
        if self._file_ended:
            # Any earlier, and a device would send the end of the same file again.
            from_s = min(max(round(self._position_s), self._parts[-1].from_s + 1), request.length_s - 1)
        else:
            from_s = 0 if first else max(0, int(self._position_s) - OVERLAP_S)
        self._seam.begin_part(None if self._file_ended else self._position_s - from_s)
        self._attempts += 1
        self._part_ended = asyncio.get_running_loop().create_future()
        sinks: list[int] = []
        keeper = OriginalKeeper(self._context.engine, self._on_original) if request.original else None
        self._keeper = keeper

        async def prepare(stream_id: str) -> None:
            self._stream_id = stream_id
            sinks.append(self._context.engine.add_frame_sink(stream_id, self._on_frames))
            if keeper is not None and not await keeper.open(stream_id):
                self._note("The program stream was not kept: this media plane cannot hand it on.")

        hold: StreamHold | None = None
        had, reason = self._position_s, ""
        try:
            view = await self._context.recordings.start_download(
                request.device_id,
                request.channel_id,
                datetime.fromtimestamp(request.start + from_s, UTC),
                datetime.fromtimestamp(request.end, UTC),
                speed=request.speed,
                transport=request.transport,
                centre=request.centre,
                prepare=prepare,
            )
            self.state = DownloadState.RUNNING
            hold = await self._context.recordings.lease_stream(
                view.id, _Holder(client="gateway", kind="download", grant_id="")
            )
            last, reason = await self._watch(from_s)
            if keeper is not None:
                await asyncio.sleep(0)  # what the loop has already read of the program stream comes first
            self._note_part(last, from_s, had)
        finally:
            if hold is not None:
                hold.release()
            if self._stream_id and not self._part_ended.done():
                await self._stop_stream()
            for sink in sinks:
                self._context.engine.close_sink(sink)
            self._keeper = None
            if keeper is not None:
                keeper.close()
            self._bytes += self._part_bytes
            self._part_bytes = 0
            self._stream_id = ""
        await self._written()
        await self._in_thread(self._finish_part)
        original = await self._close_original(untouched=keeper is not None and keeper.untouched)
        self._parts.append(
            Part(
                from_s=from_s,
                joined=self._seam.joined,
                repeated=self._seam.repeated,
                ended=reason,
                original=original,
            )
        )
        if self._broken is not None:
            raise self._broken
        if reason in _STOPS:
            raise GatewayError("gb.sip.cancelled", f"The stream of the download was ended ({reason}).")
        near = request.length_s - self._position_s <= NEAR_S
        self._short_files = self._short_files + 1 if self._position_s - had <= NEAR_S else 0
        self._file_ended = reason == "end_of_file" and not near and self._short_files < MAX_SHORT_FILES
        if self._file_ended or not (near or reason in _ENDS):
            return False
        if reason == "end_time":
            self._note("The device went on past the end of the span and was stopped: the file may end later.")
        self._note_end()
        return True

    def _note_end(self) -> None:
        """The device has no more of the span; what is missing of it is a gap."""
        missing = self.request.length_s - self._position_s
        if missing > NEAR_S:
            self._gaps.append(Gap(at_s=round(self._position_s, 2), seconds=round(missing, 2), reason="end"))

    async def _watch(self, from_s: int) -> tuple[StreamView, str]:
        """Until the part's stream ends; tells the progress meanwhile."""
        assert self._part_ended is not None  # noqa: S101 - made by the caller
        limits, loop = self._context.limits, asyncio.get_running_loop()
        told = loop.time()
        while not self._part_ended.done():
            await asyncio.wait({self._part_ended}, timeout=limits.look_s)
            if self._broken is not None:
                raise self._broken
            self._look(from_s)
            if loop.time() - told >= limits.tell_s:
                told = loop.time()
                self._emit("download.progress", **self._progress())
        return self._part_ended.result()

    def _look(self, from_s: int) -> None:
        """Take position and rate from the running stream."""
        if self._keeper is not None:
            self._keeper.look()
        try:
            view = self._context.recordings.get(self._stream_id)
        except GatewayError:
            return
        self._take(view, from_s)

    def _take(self, view: StreamView, from_s: int) -> None:
        history = view.history
        if history is None:
            return
        self._position_s = max(self._position_s, from_s + history.position_s)
        self._rate = history.rate
        self._part_bytes = view.rtp.bytes
        if history.file_size is not None and self._attempts == 1:
            self._file_size = history.file_size

    def _note_part(self, view: StreamView, from_s: int, had: float) -> None:
        """The last facts of a part: where it stood, and what the device's own time left out."""
        self._take(view, from_s)
        lost = view.rtp.lost
        for at_s, seconds in view.history.gaps if view.history is not None else ():
            if from_s + at_s >= had:
                reason = "lost" if lost else "not_recorded"
                self._gaps.append(Gap(at_s=round(from_s + at_s, 2), seconds=round(seconds, 2), reason=reason))
        if lost:
            self._note(
                f"{lost} packets were lost from {from_s} s on: "
                "pictures behind them may be damaged up to the next key frame."
            )

    async def _stop_stream(self) -> None:
        try:
            await self._context.recordings.stop(self._stream_id, "stopped")
        except GatewayError:
            return  # it has ended already

    # ---- frames

    def _on_frames(self, frames: list[Frame]) -> None:
        self._waiting_bytes += sum(len(frame.payload) for frame in frames)
        if self._waiting_bytes > MAX_WAITING:
            self._break(GatewayError("gb.output.disk", "The disk takes less than the device sends."))
            return
        self._queue.append(frames)
        self._wake.set()

    def _on_original(self, data: bytes) -> None:
        """Bytes of the device's program stream."""
        self._waiting_bytes += len(data)
        self._queue.append(data)
        self._wake.set()

    async def _write_all(self) -> None:
        """Hand what came to the worker thread, in order, as long as the download lives."""
        while True:
            await self._wake.wait()
            if not self._queue:
                self._wake.clear()
                continue
            batch = self._queue.popleft()
            size = len(batch) if isinstance(batch, bytes) else sum(len(frame.payload) for frame in batch)
            try:
                await self._in_thread(partial(self._write, batch))
            except GatewayError as error:
                self._break(error)
            finally:
                self._waiting_bytes -= size
                self._idle.set()

    def _break(self, error: GatewayError) -> None:
        if self._broken is None:
            self._broken = error
        self._queue.clear()
        self._idle.set()

    async def _written(self) -> None:
        """Until everything that came was written."""
        while self._waiting_bytes and self._broken is None:
            self._idle.clear()
            await self._idle.wait()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Raises gb.output.disk, gb.codec.codec_unsupported."""
        working = asyncio.get_running_loop().run_in_executor(self._context.threads, work)
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            # Whoever cancels takes the files away next: nothing may still work on them.
            await asyncio.wait({working})
            if not working.cancelled():
                working.exception()
            raise
        except (FileError, OSError) as error:
            raise GatewayError("gb.output.disk", str(error)) from error

    def _write(self, frames: list[Frame] | bytes) -> None:
        """In the worker thread."""
        if isinstance(frames, bytes):
            if self._original is None:
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
                path = self.directory / f"{self._name()}.{len(self._originals) + 1}.ps"
                self._original = path.open("wb")
            self._original.write(frames)
            return
        kept = self._seam.take(frames)
        if kept:
            self._file_writer().write(kept)

    def _finish_part(self) -> None:
        """In the worker thread."""
        kept = self._seam.finish_part()
        if kept:
            self._file_writer().write(kept)

    async def _close_original(self, *, untouched: bool) -> str:
        """The part's program stream is whole; its name, or empty. Raises gb.output.disk."""
        if self._original is None:
            return ""
        await self._in_thread(self._sum_original)
        if not untouched:
            self._note("The device sent elementary streams; the program stream was made here.")
        return self._originals[-1].name

    def _sum_original(self) -> None:
        """In the worker thread."""
        file, self._original = self._original, None
        if file is not None:
            file.close()
            self._originals.append(_summed(Path(file.name)))

    def _note(self, sentence: str) -> None:
        if sentence not in self._notes:
            self._notes.append(sentence)

    def _file_writer(self) -> Mp4Writer:
        if self._writer is None:
            from gb28181gw.downloads.mp4 import Mp4Writer  # PyAV, with the first use and in a thread

            self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._writer = Mp4Writer(self.directory / f"{self._name()}.mp4.part")
        return self._writer

    def _name(self) -> str:
        begin, end = (
            datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")
            for seconds in (self.request.start, self.request.end)
        )
        return f"{self.request.channel_id}_{begin}_{end}"

    # ---- the end

    async def _finish(self, error: GatewayError | None) -> None:
        """Close the file, sum it up, write the manifest."""
        self._add_missing()
        try:
            await self._in_thread(self._close_file)
        except GatewayError as failure:
            error = error or failure
        if error is None and self._file is None:
            error = GatewayError("gb.media.no_recording", "No picture of the span came.")
        state = DownloadState.COMPLETE if error is None else DownloadState.FAILED
        view = replace(
            self._view(),
            state=state,
            finished_at=self._context.clock.wall(),
            progress=1.0 if error is None else self._view().progress,
            error_code=error.code if error is not None else "",
            error_detail=error.detail if error is not None else "",
            sip_status=error.sip_status if error is not None else None,
        )
        await self._keep_manifest(view)
        # Not before: who sees it over may fetch everything.
        self.state, self.finished = state, view
        if error is None:
            self._emit(
                "download.finished",
                **self._progress(),
                gaps=len(self._gaps),
                sha256=view.file.sha256 if view.file is not None else "",
                duration_ms=round((self._context.clock.wall() - self._created_at) * 1000),
            )
        else:
            self._emit(
                "download.failed",
                reason=error.reason,
                code=error.code,
                detail=error.detail,
                sip_status=error.sip_status,
            )

    def _add_missing(self) -> None:
        """Single pictures that never came; their place in the file is made one in the span."""
        leaps = list(self._gaps)
        for file_s, seconds in self._seam.missing:
            at_s = file_s
            for leap in leaps:
                if leap.at_s <= at_s:
                    at_s += leap.seconds
            self._gaps.append(Gap(at_s=round(at_s, 2), seconds=round(seconds, 2), reason="lost"))
        self._gaps.sort(key=lambda gap: gap.at_s)

    def _close_file(self) -> None:
        """In the worker thread."""
        if self._original is not None:
            self._sum_original()
        writer = self._writer
        if writer is None:
            return
        writer.close()
        if not writer.path.exists():
            return
        path = writer.path.with_suffix("")
        writer.path.replace(path)
        self._file = replace(
            _summed(path), frames=writer.frames, duration_s=round(writer.end_90k / 90_000, 3)
        )

    async def _keep_manifest(self, view: DownloadView) -> None:
        try:
            await self._in_thread(partial(write_manifest, view, self.directory))
        except GatewayError as failure:
            self._emit("download.manifest_failed", detail=failure.detail)

    async def _abandon(self, writing: asyncio.Task[None]) -> None:
        """Cancelled: nothing of it stays."""
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

        def discard() -> None:
            if self._original is not None:
                self._original.close()
            if self._writer is not None:
                self._writer.close()
                self._writer.path.unlink(missing_ok=True)

        try:
            await asyncio.shield(self._in_thread(discard))
        except GatewayError:
            return

    # ---- small things

    def _view(self) -> DownloadView:
        request = self.request
        writer = self._writer
        done = min(max(self._position_s / request.length_s, 0.0), 1.0)
        return DownloadView(
            id=self.id,
            request=request,
            state=self.state,
            created_at=self._created_at,
            queue_position=self.queue_position if self.state is DownloadState.QUEUED else None,
            progress=round(done, 4),
            position_s=round(min(self._position_s, request.length_s), 2),
            rate=self._rate if self.state is DownloadState.RUNNING else None,
            bytes=self._bytes + self._part_bytes,
            frames=writer.frames if writer is not None else 0,
            file_size=self._file_size,
            attempts=self._attempts,
            stream_id=self._stream_id,
            file=self._file,
            originals=tuple(self._originals),
            gaps=tuple(self._gaps),
            parts=tuple(self._parts),
            notes=(*self._notes, *(writer.notes if writer is not None else ())),
        )

    def _progress(self) -> dict[str, object]:
        view = self._view()
        return {
            "progress": view.progress,
            "position_s": view.position_s,
            "rate": round(view.rate, 2) if view.rate is not None else None,
            "bytes": view.bytes,
            "frames": view.frames,
        }

    def _emit(self, event: str, **fields: object) -> None:
        self._context.bus.emit(
            event,
            download_id=self.id,
            device_id=self.request.device_id,
            channel_id=self.request.channel_id,
            stream_id=self._stream_id or None,
            **fields,
        )


def _summed(path: Path) -> DownloadFile:
    with path.open("rb") as file:
        total = hashlib.file_digest(file, "sha256").hexdigest()
    return DownloadFile(name=path.name, size=path.stat().st_size, sha256=total)
