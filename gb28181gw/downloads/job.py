"""One download: INVITEs until the span is there, frames into a file, a manifest at the end.

`run` is the whole life. Every INVITE is a *part*: its frame sink is there before the first packet, so a fast transfer
loses no beginning (PB-15), and a task hands what came to a worker thread, which places and writes it (`seam`, `mp4`).
A part that breaks off is followed by another that begins some seconds earlier; only a part that brings no new picture
counts against the tries. A part that the device ends before the span does is followed by one from its end on (PB-14);
a device that has nothing further then has sent all. What ends a part is `sessions`' to say; this module never looks at
SIP.

What was written is in a journal too (`journal`), so that a download that a restart of the gateway interrupts goes on as
one that broke off.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from gb28181gw.downloads.journal import JOURNAL, Fact, Journal
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
from gb28181gw.downloads.resume import gap_seen, part_begins, part_ended, part_joined, take_up
from gb28181gw.downloads.seam import Seam
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine, MediaTransport
from gb28181gw.media.tracks import Frame
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.history import HISTORY_LIMITS, MAX_SHORT_FILES, RecordedSpans, next_recorded
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
_AWAY: Final = frozenset({"gb.route.offline", "gb.sip.no_answer", "gb.sip.path_lost", "gb.media.no_rtp"})
"""What may pass soon after a start of the gateway."""
_FACT_BYTES: Final = 1
"""What a fact counts of what waits: it is not nothing."""
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

    @property
    def recorded(self) -> RecordedSpans: ...


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

    def __init__(
        self,
        context: JobContext,
        job_id: str,
        request: DownloadRequest,
        directory: Path,
        *,
        restored_at: float | None = None,
    ) -> None:
        """`restored_at`: when it was asked for, of a process before this one."""
        self.id = job_id
        self.request = request
        self.directory = directory
        self.state = DownloadState.QUEUED
        self.queue_position: int | None = None
        self.finished: DownloadView | None = None
        """The last view, once it is over."""
        self._context = context
        self.restored = restored_at is not None
        self._created_at = restored_at if restored_at is not None else context.clock.wall()
        self._seam = Seam()
        self._writer: Mp4Writer | None = None
        self._journal: Journal | None = None
        self._queue: deque[list[Frame] | bytes | Fact] = deque()
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
        self._part_had = 0.0
        """Position at the begin of the running part."""
        self._gaps_seen = 0
        """Gaps of the running part that were looked at."""
        self._spans: list[tuple[float, float]] | None = None
        """What the device has recorded of the span, once it was asked."""
        self._placed = False
        """Pictures of the running part have their place in the file."""
        self._interrupted = False

    # ---- for those above

    @property
    def stream_id(self) -> str:
        return self._stream_id

    def view(self) -> DownloadView:
        return self.finished if self.finished is not None else self._view()

    @property
    def created_at(self) -> float:
        return self._created_at

    def interrupt(self) -> None:
        """The gateway stops: what is there is left for the next start. To be called before `run` is cancelled."""
        self._interrupted = True

    def stream_ended(self, view: StreamView, reason: str) -> None:
        """The stream of the running part begins to end."""
        if self._part_ended is not None and not self._part_ended.done():
            self._part_ended.set_result((view, reason))

    # ---- the whole life

    async def run(self) -> None:
        """Until the download is over.

        Never raises but for cancellation; then the file is taken away, or left for the next start (`interrupt`).
        """
        error: GatewayError | None = None
        self.state = DownloadState.RUNNING
        self._emit("download.started")
        await self._keep_manifest(self._view())  # what is found of it where the store is lost
        writing = asyncio.create_task(self._write_all(), name=f"write {self.id}")
        try:
            try:
                await self._take_up()
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
                if error is self._broken or error.code == "gb.sip.cancelled":
                    raise  # a full disk stays full
                if not self._parts and not (self.restored and error.code in _AWAY):
                    raise  # what the device says at first it means
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
            from_s = max(round(self._position_s), self._parts[-1].from_s + 1)
            from_s = min(await self._following(from_s), request.length_s - 1)
        else:
            from_s = 0 if first else max(0, int(self._position_s) - OVERLAP_S)
        self._seam.begin_part(None if self._file_ended else self._position_s - from_s)
        self._gaps_seen, self._placed = 0, False
        self._tell(part_begins(from_s))
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
        self._part_had, gaps = self._position_s, len(self._gaps)
        length, reason = self._seam.length_90k, ""
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
            self._note_part(last, from_s, gaps)
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
        self._place()
        original = await self._close_original(untouched=keeper is not None and keeper.untouched)
        part = Part(
            from_s=from_s,
            joined=self._seam.joined,
            repeated=self._seam.repeated,
            ended=reason,
            original=original,
        )
        self._parts.append(part)
        self._tell(
            part_ended(
                part,
                self._originals[-1] if original else None,
                gaps=self._gaps,
                notes=self._notes,
                received=self._bytes,
                file_size=self._file_size,
            )
        )
        if self._broken is not None:
            raise self._broken
        if reason in _STOPS:
            raise GatewayError("gb.sip.cancelled", f"The stream of the download was ended ({reason}).")
        near = request.length_s - self._position_s <= NEAR_S
        brought_s = (self._seam.length_90k - length) / 90_000
        self._short_files = self._short_files + 1 if brought_s <= NEAR_S else 0
        self._file_ended = reason == "end_of_file" and not near and self._short_files < MAX_SHORT_FILES
        if self._file_ended or not (near or reason in _ENDS):
            return False
        if reason == "end_time":
            self._note("The device went on past the end of the span and was stopped: the file may end later.")
        self._note_end()
        return True

    async def _following(self, from_s: int) -> int:
        """Where the device's list says that it goes on behind a file; what lies between is a gap (PB-13)."""
        request = self.request
        if self._spans is None:
            self._spans = []
            try:
                async with asyncio.timeout(HISTORY_LIMITS.records_s):
                    self._spans = await self._context.recordings.recorded(
                        request.device_id,
                        request.channel_id,
                        request.start,
                        request.end,
                        centre=request.centre,
                    )
            except TimeoutError:
                return from_s
        following = next_recorded(self._spans, request.start + from_s)
        if following is None or following <= request.start + from_s:
            return from_s
        gap = Gap(
            at_s=round(self._position_s, 2),
            seconds=round(following - request.start - self._position_s, 2),
            reason="not_recorded",
        )
        self._gaps.append(gap)
        self._tell(gap_seen(gap))
        self._place()
        return int(following) - request.start

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
        for at_s, seconds in history.gaps[self._gaps_seen :]:
            # What lies before the end of what was there was told by the part that brought it.
            if from_s + at_s >= self._part_had:
                reason = "lost" if view.rtp.lost else "not_recorded"
                gap = Gap(at_s=round(from_s + at_s, 2), seconds=round(seconds, 2), reason=reason)
                self._gaps.append(gap)
                self._tell(gap_seen(gap))
        self._gaps_seen = len(history.gaps)
        self._place()
        self._rate = history.rate
        self._part_bytes = view.rtp.bytes
        if history.file_size is not None and self._attempts == 1:
            self._file_size = history.file_size

    def _place(self) -> None:
        """Where in the span the file stands: what is written, and what of the recording is known to be missing."""
        self._position_s = self._in_span(self._seam.length_90k / 90_000)

    def _in_span(self, file_s: float) -> float:
        """A place in the file, as one in the span. The file has no gaps where the device's time jumps."""
        at_s = file_s
        for leap in self._gaps:
            if leap.at_s <= at_s:
                at_s += leap.seconds
        return at_s

    def _note_part(self, view: StreamView, from_s: int, gaps: int) -> None:
        """The last facts of a part, which began when there were so many gaps."""
        self._take(view, from_s)
        lost = view.rtp.lost
        if lost:
            self._gaps[gaps:] = [replace(gap, reason="lost") for gap in self._gaps[gaps:]]
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

    def _tell(self, fact: Fact) -> None:
        """Into the journal, behind what came before."""
        if self._broken is not None:
            return
        self._waiting_bytes += _FACT_BYTES
        self._queue.append(fact)
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
            size = _size(batch)
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

    def _write(self, frames: list[Frame] | bytes | Fact) -> None:
        """In the worker thread."""
        if isinstance(frames, Fact):
            self._open_journal().tell(frames)
            return
        if isinstance(frames, bytes):
            if self._original is None:
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
                path = self.directory / f"{self._name()}.{len(self._originals) + 1}.ps"
                self._original = path.open("wb")
            self._original.write(frames)
            return
        self._keep(self._seam.take(frames))

    def _keep(self, kept: list[tuple[Frame, int]]) -> None:
        """In the worker thread: into the journal and into the file."""
        if not kept:
            return
        journal = self._open_journal()
        if not self._placed:
            self._placed = True
            journal.tell(part_joined(self._seam.joined, self._seam.repeated))
        journal.add(kept)
        self._file_writer().write(kept)

    def _finish_part(self) -> None:
        """In the worker thread."""
        self._keep(self._seam.finish_part())

    def _open_journal(self) -> Journal:
        if self._journal is None:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._journal = Journal(self.directory / JOURNAL)
        return self._journal

    # ---- what a process before this one left

    async def _take_up(self) -> None:
        """Go on from what is on the disk. Raises gb.output.disk, gb.codec.codec_unsupported."""
        if not self.restored:
            return
        await self._in_thread(self._read_journal)
        self._place()
        if self._parts:
            self._emit("download.resumed", position_s=round(self._position_s, 1), frames=self._view().frames)

    def _read_journal(self) -> None:
        """In the worker thread. The file itself, which has no index yet, is made anew."""
        path = self.directory / JOURNAL
        if not path.exists():
            return

        def on_frame(frame: Frame) -> None:
            self._seam.recall(frame)
            self._file_writer().write([(frame, 0)])

        found = take_up(path, on_frame)
        self._parts, self._gaps, self._notes = found.parts, found.gaps, found.notes
        self._originals, self._bytes, self._file_size = found.originals, found.bytes, found.file_size
        self._attempts = len(found.parts)
        if not found.interrupted:
            return
        original = self.directory / f"{self._name()}.{len(self._originals) + 1}.ps"
        kept = None
        if original.exists():
            kept = _summed(original)
            self._originals.append(kept)
            self._parts[-1] = replace(self._parts[-1], original=kept.name)
        self._open_journal().tell(
            part_ended(
                self._parts[-1],
                kept,
                gaps=self._gaps,
                notes=self._notes,
                received=self._bytes,
                file_size=self._file_size,
            )
        )

    # ---- files

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
        await self._written()
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
        with contextlib.suppress(GatewayError):  # it goes with the directory
            await self._in_thread(self._drop_journal)
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
        single = [(self._in_span(file_s), seconds) for file_s, seconds in self._seam.missing]
        self._gaps += [
            Gap(at_s=round(at_s, 2), seconds=round(seconds, 2), reason="lost") for at_s, seconds in single
        ]
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

    def _drop_journal(self) -> None:
        """In the worker thread."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        (self.directory / JOURNAL).unlink(missing_ok=True)

    async def _abandon(self, writing: asyncio.Task[None]) -> None:
        """Cancelled: nothing of it stays but, where it shall go on, the journal and what the device sent."""
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

        def discard() -> None:
            if self._original is not None:
                self._original.close()
            if self._journal is not None and self._interrupted:
                self._journal.close()
            else:
                self._drop_journal()
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


def _size(batch: list[Frame] | bytes | Fact) -> int:
    if isinstance(batch, Fact):
        return _FACT_BYTES
    return len(batch) if isinstance(batch, bytes) else sum(len(frame.payload) for frame in batch)


def _summed(path: Path) -> DownloadFile:
    with path.open("rb") as file:
        total = hashlib.file_digest(file, "sha256").hexdigest()
    return DownloadFile(name=path.name, size=path.stat().st_size, sha256=total)
