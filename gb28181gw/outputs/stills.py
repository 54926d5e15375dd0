"""Stills: one JPEG of a channel, from the key frame of its running stream, else by a short start of it.

Who asks while a picture is being made gets the same one; who asks within `FRESH_S` gets the last one. A few channels
are started at a time (`STARTS`), the others wait their turn. When the channel cannot be played, the last picture is
given with its time and the reason, as long as it is kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Frame
from gb28181gw.outputs.frames import with_parameter_sets
from gb28181gw.outputs.picture_decoder import PictureDecoder
from gb28181gw.outputs.source import StreamSource, Viewer

FRESH_S = 5.0
STARTS = 8
KEY_FRAME_S = 10.0
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    jpeg: bytes
    taken_at: float
    """Seconds since 1970."""
    stale: str = ""
    """The error code that kept a fresh one from being made; empty: this is a fresh one."""


_Name = tuple[str, str]


class Stills:
    """Owner of the worker process, of the pictures kept, and of those in the making."""

    def __init__(self, engine: Engine, source: StreamSource, clock: Clock) -> None:
        self.decoder = PictureDecoder()
        self._engine = engine
        self._source = source
        self._clock = clock
        self._kept: OrderedDict[_Name, Still] = OrderedDict()
        self._kept_bytes = 0
        self._making: dict[_Name, asyncio.Task[Still]] = {}
        self._starts = asyncio.Semaphore(STARTS)

    def __len__(self) -> int:
        """Pictures that are kept."""
        return len(self._kept)

    async def take(self, device_id: str, channel_id: str, viewer: Viewer) -> Still:
        """A picture of the channel. Raises GatewayError when there is none, fresh or kept."""
        name = (device_id, channel_id)
        kept = self._kept.get(name)
        if kept is not None and 0 <= self._clock.wall() - kept.taken_at < FRESH_S:
            return kept
        task = self._making.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._make(name, viewer))
            self._making[name] = task
            task.add_done_callback(lambda done: self._made(name, done))
        try:
            return await asyncio.shield(task)
        except GatewayError as error:
            kept = self._kept.get(name)
            if kept is None:
                raise
            return replace(kept, stale=error.code)

    async def close(self) -> None:
        """End what is in the making, and the worker. Idempotent."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.decoder.close()

    async def _make(self, name: _Name, viewer: Viewer) -> Still:
        async with self._starts:
            lease = await self._source.lease_live(*name, viewer)
            try:
                frame = await self._key_frame(lease.stream_id)
            finally:
                lease.release()
        # The last key frame of a stream that runs may be some seconds old.
        taken_at = self._clock.wall() - max(0.0, self._clock.monotonic() - frame.arrival)
        jpeg = await self.decoder.jpeg(frame.track.codec, with_parameter_sets(frame).payload)
        return Still(jpeg=jpeg, taken_at=taken_at)

    async def _key_frame(self, stream_id: str) -> Frame:
        """The last key frame, else the next one."""
        found: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

        def take(frames: list[Frame]) -> None:
            for frame in frames:
                if frame.key and not found.done():
                    found.set_result(frame)

        def closed(_reason: str) -> None:
            if not found.done():
                found.set_exception(
                    GatewayError("gb.media.silent", "The stream ended before a key frame came.")
                )

        sink = self._engine.add_frame_sink(stream_id, take, audio=False, on_closed=closed)
        try:
            async with asyncio.timeout(KEY_FRAME_S):
                return await found
        except TimeoutError:
            raise GatewayError("gb.media.no_keyframe", "No key frame came in time.") from None
        finally:
            self._engine.close_sink(sink)

    def _made(self, name: _Name, task: asyncio.Task[Still]) -> None:
        del self._making[name]
        if task.cancelled() or task.exception() is not None:
            return
        old = self._kept.pop(name, None)
        if old is not None:
            self._kept_bytes -= len(old.jpeg)
        self._kept[name] = task.result()
        self._kept_bytes += len(task.result().jpeg)
        while self._kept_bytes > MAX_BYTES and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._kept_bytes -= len(gone.jpeg)
