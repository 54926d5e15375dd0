"""Channels that are pushed to a URL: the owner of all pushes, and one push's whole life.

A push leases the channel's live stream as any viewer, makes FLV of its frames and gives it to a process
(`push_worker`), which sends it. What breaks, the stream or the peer, is begun anew after 1, 2, 5, 10, then 30 s, or as
soon as the device comes online, for ever: a push ends when it is removed, also across restarts of the gateway. No URL
is told as it is (`push_url`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.flv import FlvMuxer
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.frames import with_parameter_sets
from gb28181gw.outputs.push_url import checked_url, is_rtmp, shown_url
from gb28181gw.outputs.source import StreamSource, Viewer
from gb28181gw.outputs.transcoding import SOURCES, AudioTranscoding

PAUSES_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S: Final = 60.0
"""What ran for so long did not fail: its loss is the first one."""
MAX_PUSHES: Final = 64
QUEUE_BYTES: Final = 4 * 1024 * 1024
"""What waits for a slow peer; more is left out up to the next key frame."""
STALL_S: Final = 10.0
"""A worker that takes nothing for so long is given up."""
CONNECT_S: Final = 20.0
MADE_AUDIO_S: Final = 2.0
"""So long the head waits for sound that is being made."""


class PushState(StrEnum):
    STARTING = "starting"
    PUSHING = "pushing"
    RETRYING = "retrying"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOrder:
    """What is pushed where; it is stored."""

    id: str
    device_id: str
    channel_id: str
    url: str
    """With its secrets."""
    video: bool = True
    audio: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PushView:
    order: PushOrder
    url: str
    """Without secrets."""
    state: PushState
    since: float
    """Seconds since 1970."""
    last_error: str
    """Of the last time that it broke; empty: it never did."""
    breaks: int


class PushStore(Protocol):
    """Keeps orders; `storage` implements it. Calls raise gb.route.storage_unavailable."""

    async def load(self) -> list[PushOrder]: ...

    async def save(self, order: PushOrder) -> None: ...

    async def remove(self, push_id: str) -> None: ...


@dataclass(slots=True)
class PushCounters:
    """Plain counters for the exporter."""

    started: int = 0
    broken: int = 0
    bytes: int = 0
    """FLV that workers took."""
    dropped: int = 0
    """Frames left out because the peer was slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushContext:
    """What every push shares."""

    source: StreamSource
    engine: Engine
    audio: AudioTranscoding
    bus: EventBus
    clock: Clock
    counters: PushCounters
    authorities: str
    """The file of those that peers' certificates are checked by; empty: the host's; ``-``: unchecked."""


class _BrokenError(Exception):
    """Why an attempt ended; a sentence without secrets."""


class _Feed:
    """One attempt: frames of a stream through FLV into one worker. Closed by its owner."""

    def __init__(self, context: PushContext, order: PushOrder, source: tuple[Track, ...]) -> None:
        self.closed = ""
        """Why the stream ended."""
        self.wake = asyncio.Event()
        self._context = context
        self._queue: deque[Frame] = deque()
        self._queued = 0
        self._skipping = False
        self._sound = next((track.codec for track in source if track.kind is TrackKind.AUDIO), None)
        self.make_audio = order.audio and is_rtmp(order.url) and self._sound in SOURCES
        self._wanted = {
            kind
            for kind, wish in ((TrackKind.VIDEO, order.video), (TrackKind.AUDIO, order.audio))
            if wish and any(track.kind is kind for track in source)
        }
        self._tracks = {track.kind: track for track in source if self._wants(track)}

    def on_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            if not self._wants(frame.track):
                continue
            picture = frame.track.kind is TrackKind.VIDEO
            full = self._queued > QUEUE_BYTES
            if full or (self._skipping and picture and not frame.key):
                self._skipping = True
                self._context.counters.dropped += 1
                continue
            self._skipping = self._skipping and not picture
            self._tracks[frame.track.kind] = frame.track
            self._queue.append(frame)
            self._queued += len(frame.payload)
        self.wake.set()

    def on_closed(self, reason: str) -> None:
        self.closed = reason
        self.wake.set()

    def _wants(self, track: Track) -> bool:
        if track.kind not in self._wanted or not FlvMuxer.carries(track.codec):
            return False
        return track.codec is Codec.AAC or track.kind is TrackKind.VIDEO or not self.make_audio

    async def write(self, url: str, stdin: asyncio.StreamWriter) -> None:
        """Until the stream ends. Raises _BrokenError."""
        _send(stdin, f"{self._context.authorities}\n{url}\n".encode())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MADE_AUDIO_S):
                while not self._wanted <= self._tracks.keys() and not self.closed:
                    self.wake.clear()
                    await self.wake.wait()
        if not self._tracks:
            raise _BrokenError("The stream has nothing of what is to be pushed.")
        head = dict(self._tracks)  # a peer takes other parameter sets in mid-stream, and no other codec
        first = self._queue[0] if self._queue else None
        muxer = FlvMuxer(base_90k=first.dts_90k if first is not None else None)
        _send(stdin, muxer.header(list(head.values()), first.dts_90k if first is not None else None))
        while not self.closed:
            self.wake.clear()
            while self._queue:
                frame = self._queue.popleft()
                self._queued -= len(frame.payload)
                announced = head.get(frame.track.kind)
                if announced is None:
                    continue  # it came after the head and cannot be announced any more
                if frame.track.codec is not announced.codec:
                    raise _BrokenError(f"The {frame.track.kind.value} is {frame.track.codec.value} now.")
                data = muxer.mux(with_parameter_sets(frame))
                self._context.counters.bytes += len(data)
                _send(stdin, data)
                try:
                    async with asyncio.timeout(STALL_S):
                        await stdin.drain()
                except TimeoutError:
                    raise _BrokenError("The peer takes nothing any more.") from None
            await self.wake.wait()
        raise _BrokenError(f"The stream ended: {self.closed}.")


def _send(stdin: asyncio.StreamWriter, data: bytes) -> None:
    """Raises OSError when the process has ended: uvloop says RuntimeError of its pipe."""
    try:
        stdin.write(data)
    except RuntimeError as error:
        raise BrokenPipeError(str(error)) from error


class Push:
    """One push; `run` is its whole life, until it is cancelled."""

    def __init__(self, context: PushContext, order: PushOrder) -> None:
        self.order = order
        self._context = context
        self._state = PushState.STARTING
        self._since = context.clock.wall()
        self._last_error = ""
        self._breaks = 0
        self._at_once = asyncio.Event()

    def at_once(self) -> None:
        """Do not wait any longer before the next attempt: the device is back."""
        self._at_once.set()

    def view(self) -> PushView:
        return PushView(
            order=self.order,
            url=shown_url(self.order.url),
            state=self._state,
            since=self._since,
            last_error=self._last_error,
            breaks=self._breaks,
        )

    async def run(self) -> None:
        failures = 0
        while True:
            began = self._context.clock.monotonic()
            self._at_once.clear()
            try:
                await self._attempt()
            except (GatewayError, _BrokenError, OSError) as error:
                code = error.code if isinstance(error, GatewayError) else ""
                detail = error.detail if isinstance(error, GatewayError) else str(error)
                self._broke(f"{code}: {detail}" if code else detail)
            failures = 0 if self._context.clock.monotonic() - began > STEADY_S else failures
            try:
                async with asyncio.timeout(PAUSES_S[min(failures, len(PAUSES_S) - 1)]):
                    await self._at_once.wait()
                failures = 0
            except TimeoutError:
                failures += 1

    def emit(self, event: str, **fields: object) -> None:
        order = self.order
        self._context.bus.emit(
            event,
            push_id=order.id,
            device_id=order.device_id,
            channel_id=order.channel_id,
            url=shown_url(order.url),
            **fields,
        )

    def _broke(self, detail: str) -> None:
        self._breaks += 1
        self._context.counters.broken += 1
        self._last_error = detail
        self._enter(PushState.RETRYING)
        self.emit("push.broken", detail=detail, attempts=self._breaks)

    def _enter(self, state: PushState) -> None:
        self._state, self._since = state, self._context.clock.wall()

    async def _attempt(self) -> None:
        """Raises GatewayError, _BrokenError, OSError; does not return otherwise."""
        context, order = self._context, self.order
        holder = Viewer(client="gateway", kind="push", grant_id="")
        lease = await context.source.lease_live(order.device_id, order.channel_id, holder)
        try:
            tracks = tuple(context.engine.tracks(lease.stream_id))
            if order.video and is_rtmp(order.url) and any(one.codec is Codec.H265 for one in tracks):
                raise GatewayError("gb.codec.codec_unsupported", "H.265 is not pushed over RTMP; use RTSP.")
            feed = _Feed(context, order, tracks)
            if feed.make_audio:
                context.audio.use(lease.stream_id)
            try:
                sink = context.engine.add_frame_sink(
                    lease.stream_id,
                    feed.on_frames,
                    video=order.video,
                    audio=order.audio,
                    made_audio=feed.make_audio,
                    on_closed=feed.on_closed,
                )
                try:
                    await self._work(feed)
                finally:
                    context.engine.close_sink(sink)
            finally:
                if feed.make_audio:
                    context.audio.leave(lease.stream_id)
        finally:
            lease.release()

    async def _work(self, feed: _Feed) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gb28181gw.outputs.push_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes were asked for
        assert process.stderr is not None  # noqa: S101
        writing = asyncio.ensure_future(feed.write(self.order.url, process.stdin))
        ended = asyncio.ensure_future(process.wait())
        connected = asyncio.ensure_future(process.stdout.read(1))
        try:
            await asyncio.wait(
                {connected, writing, ended}, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if connected.done() and connected.result():
                self._context.counters.started += 1
                self._enter(PushState.PUSHING)
                self.emit("push.started")
                await asyncio.wait({writing, ended}, return_when=asyncio.FIRST_COMPLETED)
            elif not (writing.done() or ended.done() or connected.done()):
                raise _BrokenError(f"The peer did not take the stream within {CONNECT_S:.0f} s.")
            failure = writing.exception() if writing.done() else None
            if isinstance(failure, _BrokenError):
                raise failure
            if failure is not None and not isinstance(failure, OSError):
                raise _BrokenError(f"A frame could not be written: {type(failure).__name__}.")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STALL_S):
                    await ended  # its sentence says more than a broken pipe
            said = (await process.stderr.read(2000)).decode("utf-8", "replace") if ended.done() else ""
            raise _BrokenError((said.strip().splitlines() or ["The peer ended the connection."])[-1])
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            for task in (writing, connected):
                task.cancel()
            await asyncio.gather(writing, connected, ended, return_exceptions=True)


class Pushes:
    """Owner of all pushes. All calls on the event loop's thread."""

    def __init__(
        self,
        *,
        source: StreamSource,
        engine: Engine,
        audio: AudioTranscoding,
        store: PushStore,
        bus: EventBus,
        clock: Clock,
        authorities: str = "",
    ) -> None:
        self.counters = PushCounters()
        self._store = store
        self._bus = bus
        self._context = PushContext(
            source=source,
            engine=engine,
            audio=audio,
            bus=bus,
            clock=clock,
            counters=self.counters,
            authorities=authorities,
        )
        self._pushes: dict[str, Push] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._removing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Go on with what is stored."""
        for order in await self._store.load():
            self._begin(order)

    async def close(self) -> None:
        """End the processes; the orders stay stored."""
        tasks = [*self._tasks.values(), *self._removing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def gauges(self) -> dict[str, int]:
        """Pushes by state."""
        return dict(Counter(view.state.value for view in self.list()))

    def list(self) -> list[PushView]:
        """By device and channel."""
        views = [push.view() for push in self._pushes.values()]
        return sorted(views, key=lambda view: (view.order.device_id, view.order.channel_id, view.order.id))

    def get(self, push_id: str) -> PushView:
        """Raises gb.route.not_found."""
        push = self._pushes.get(push_id)
        if push is None:
            raise GatewayError("gb.route.not_found", "There is no such push.")
        return push.view()

    async def add(
        self, device_id: str, channel_id: str, url: str, *, video: bool = True, audio: bool = True
    ) -> PushView:
        """Begun at once. Raises gb.route.invalid, .busy, .exists, .storage_unavailable."""
        checked_url(url)
        if not video and not audio:
            raise GatewayError("gb.route.invalid", "video, audio: one of them must be pushed.")
        if len(self._pushes) >= MAX_PUSHES:
            raise GatewayError("gb.route.busy", f"{MAX_PUSHES} pushes run at a time.")
        if any(push.order.url == url for push in self._pushes.values()):
            raise GatewayError("gb.route.exists", "Something is pushed to this URL already.")
        order = PushOrder(
            id=secrets.token_hex(8),
            device_id=device_id,
            channel_id=channel_id,
            url=url,
            video=video,
            audio=audio,
        )
        await self._store.save(order)
        return self._begin(order).view()

    async def remove(self, push_id: str) -> None:
        """End it for good. Raises gb.route.not_found, .storage_unavailable."""
        self.get(push_id)
        await self._store.remove(push_id)
        push, task = self._pushes.pop(push_id, None), self._tasks.pop(push_id, None)
        if push is None or task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        push.emit("push.ended", reason="removed")

    def device_online(self, device_id: str) -> None:
        """The device came online: its pushes that wait for their next attempt make it now."""
        for push in self._pushes.values():
            if push.order.device_id == device_id:
                push.at_once()

    def forget_device(self, device_id: str) -> None:
        """The device was removed: its pushes go."""
        for push in [one for one in self._pushes.values() if one.order.device_id == device_id]:
            task = asyncio.create_task(self.remove(push.order.id), name="forget push")
            self._removing.add(task)
            task.add_done_callback(self._done(self._removing.discard))

    def _begin(self, order: PushOrder) -> Push:
        push = self._pushes[order.id] = Push(self._context, order)
        task = self._tasks[order.id] = asyncio.create_task(push.run(), name=f"push {order.id}")
        task.add_done_callback(self._done(lambda _: None))
        return push

    def _done(self, then: Callable[[asyncio.Task[None]], None]) -> Callable[[asyncio.Task[None]], None]:
        def look(task: asyncio.Task[None]) -> None:
            then(task)
            if not task.cancelled() and (bug := task.exception()) is not None:
                self._bus.emit("gateway.task_failed", task=task.get_name(), detail=type(bug).__name__)

        return look
