"""Stills: a picture of a channel now, made by the gateway from the channel's stream.

Not to be confused with the pictures that a device takes itself and uploads (`devices.snapshots`, GB/T 28181-2022
9.14): a still is decoded here, of whatever edition the device is.

Theory of operation. `take` leases the channel's live stream, waits for a key frame (a running stream has kept its last
one), gives the lease back at once and has the key frame decoded in a process of its own (`stills.pool`). A stream
that runs for stills only ends a second later (SES-10). What several ask for at a time is taken once. So many streams
are started at a time, of which so many of one device; the rest waits, and too many are refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Frame, TrackKind
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.frames import with_parameter_sets
from gb28181gw.sessions.models import Consumer
from gb28181gw.stills.files import StillFiles
from gb28181gw.stills.pool import DecoderPool

T = TypeVar("T")


class StreamHold(Protocol):
    @property
    def stream_id(self) -> str: ...

    def release(self) -> None: ...


class LiveStreams(Protocol):
    """`sessions.table.Sessions`, as far as stills need it."""

    async def lease_live(
        self, device_id: str, channel_id: str, consumer: Consumer, *, brief: bool = False
    ) -> StreamHold: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StillLimits:
    at_once: int = 16
    """Channels whose key frame is waited for."""
    per_device: int = 4
    waiting: int = 500
    """Requests in all; the rest is refused."""
    key_frame_s: float = 12.0
    """So long a key frame is waited for once the stream is there."""


@dataclass(slots=True)
class StillCounters:
    """Plain counters for the exporter."""

    taken: int = 0
    cached: int = 0
    """Answered with a picture that was young enough."""
    stale: int = 0
    """Answered with an older picture than asked for."""
    failed: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """One picture."""

    jpeg: bytes
    taken_at: float
    """When its key frame came, seconds since 1970 UTC."""
    stale: str = ""
    """Why it is older than asked for: the code of the error; empty: it is not."""


@dataclass(frozen=True, slots=True)
class _Holder:
    client: str
    kind: str
    grant_id: str


class Stills:
    """Owner of the pictures under way, the decoders and the files. All calls on the event loop's thread."""

    def __init__(
        self,
        *,
        streams: LiveStreams,
        engine: Engine,
        files: StillFiles,
        bus: EventBus,
        clock: Clock,
        decoders: DecoderPool | None = None,
        limits: StillLimits | None = None,
    ) -> None:
        self.counters = StillCounters()
        self.decoders = decoders if decoders is not None else DecoderPool()
        self._streams = streams
        self._engine = engine
        self._files = files
        self._bus = bus
        self._clock = clock
        self._limits = limits if limits is not None else StillLimits()
        self._room = asyncio.Semaphore(self._limits.at_once)
        self._device_room: dict[str, asyncio.Semaphore] = {}
        self._device_users: Counter[str] = Counter()
        self._taking: dict[tuple[str, str], asyncio.Task[Still]] = {}
        # One thread: the files need no lock.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stills")

    def __len__(self) -> int:
        """Pictures under way."""
        return len(self._taking)

    async def start(self) -> None:
        """Find the pictures that are kept."""
        await self._in_thread(self._files.load)

    async def close(self) -> None:
        tasks = list(self._taking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.decoders.close()
        self._thread.shutdown(wait=True)

    def forget_device(self, device_id: str) -> None:
        """The device was removed: its pictures go."""
        self._thread.submit(self._files.forget_device, device_id)

    async def take(
        self, device_id: str, channel_id: str, *, max_age_s: float = 0.0, stale: bool | None = None
    ) -> Still:
        """A picture that is at most `max_age_s` old, as far as the stream's key frames allow.

        When there is none to be had, the last one that is kept is the answer: always with `stale` True, for a
        device that is offline with None, never with False. Raises GatewayError as starting the stream does, and
        gb.media.no_keyframe, gb.codec.codec_unsupported, gb.codec.not_decodable, gb.route.busy.
        """
        if max_age_s > 0:
            kept = await self._kept(device_id, channel_id)
            if kept is not None and self._clock.wall() - kept.taken_at <= max_age_s:
                self.counters.cached += 1
                return kept
        try:
            return await self._share(device_id, channel_id)
        except GatewayError as error:
            last = None
            if stale or (stale is None and error.code == "gb.route.offline"):
                last = await self._kept(device_id, channel_id)
            if last is None:
                raise
            self.counters.stale += 1
            return Still(jpeg=last.jpeg, taken_at=last.taken_at, stale=error.code)

    # ---- taking

    async def _share(self, device_id: str, channel_id: str) -> Still:
        """Single flight a channel. Who goes away leaves the picture to the others, and to the files."""
        key = (device_id, channel_id)
        task = self._taking.get(key)
        if task is None:
            if len(self._taking) >= self._limits.waiting:
                self.counters.refused += 1
                raise GatewayError("gb.route.busy", f"{self._limits.waiting} pictures are under way.")
            task = asyncio.create_task(self._take(device_id, channel_id), name=f"still {channel_id}")
            self._taking[key] = task
            task.add_done_callback(lambda done: self._taken(key, done))
        return await asyncio.shield(task)

    def _taken(self, key: tuple[str, str], task: asyncio.Task[Still]) -> None:
        self._taking.pop(key, None)
        if not task.cancelled():
            task.exception()  # read here: nobody may be left to wait for it

    async def _take(self, device_id: str, channel_id: str) -> Still:
        began = self._clock.monotonic()
        try:
            frame = await self._with_room(device_id, channel_id)
            jpeg = await self.decoders.to_jpeg(frame.track.codec, with_parameter_sets(frame).payload)
        except GatewayError as error:
            self.counters.failed += 1
            self._bus.emit(
                "still.failed",
                device_id=device_id,
                channel_id=channel_id,
                reason=error.reason,
                code=error.code,
                detail=error.detail,
            )
            raise
        age_s = self._clock.monotonic() - frame.arrival if frame.arrival else 0.0
        still = Still(jpeg=jpeg, taken_at=self._clock.wall() - max(age_s, 0.0))
        self.counters.taken += 1
        self._bus.emit(
            "still.taken",
            device_id=device_id,
            channel_id=channel_id,
            size=len(jpeg),
            age_s=round(max(age_s, 0.0), 2),
            duration_ms=round((self._clock.monotonic() - began) * 1000),
        )
        try:
            await self._in_thread(lambda: self._files.keep(device_id, channel_id, still.taken_at, jpeg))
        except OSError as error:
            # The caller has the picture; that it is not kept is the disk's affair.
            self._bus.emit("still.not_kept", device_id=device_id, channel_id=channel_id, detail=str(error))
        return still

    async def _with_room(self, device_id: str, channel_id: str) -> Frame:
        """A key frame, when it is this channel's turn."""
        room = self._device_room.setdefault(device_id, asyncio.Semaphore(self._limits.per_device))
        self._device_users[device_id] += 1
        try:
            async with room, self._room:
                return await self._key_frame(device_id, channel_id)
        finally:
            self._device_users[device_id] -= 1
            if not self._device_users[device_id]:
                del self._device_users[device_id], self._device_room[device_id]

    async def _key_frame(self, device_id: str, channel_id: str) -> Frame:
        hold = await self._streams.lease_live(
            device_id, channel_id, _Holder(client="gateway", kind="still", grant_id=""), brief=True
        )
        found: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

        def look(frames: list[Frame]) -> None:
            # The first batch is the kept group of pictures: its key frame is the last one that came.
            keys = [frame for frame in frames if frame.key and frame.track.kind is TrackKind.VIDEO]
            if keys and not found.done():
                found.set_result(keys[-1])

        def ended(reason: str) -> None:
            if not found.done():
                found.set_exception(GatewayError("gb.media.no_keyframe", f"The stream ended ({reason})."))

        sink: int | None = None
        try:
            sink = self._engine.add_frame_sink(hold.stream_id, look, audio=False, on_closed=ended)
            async with asyncio.timeout(self._limits.key_frame_s):
                return await found
        except TimeoutError:
            raise GatewayError(
                "gb.media.no_keyframe", f"No key frame came in {self._limits.key_frame_s:.0f} s."
            ) from None
        finally:
            if sink is not None:
                self._engine.close_sink(sink)
            hold.release()

    # ---- what is kept

    async def _kept(self, device_id: str, channel_id: str) -> Still | None:
        found = await self._in_thread(lambda: self._files.read(device_id, channel_id))
        return Still(jpeg=found[1], taken_at=found[0].taken_at) if found is not None else None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
