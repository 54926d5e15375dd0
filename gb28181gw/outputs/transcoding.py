"""G.711 to AAC for consumers that ask for it: one encoder a stream, shared, gone with its last user.

A frame sink takes the source's audio, a worker thread decodes and encodes it (PyAV, imported with the first
use), and the packets go back into the stream as a second audio track. The PCM is made by us, so a thread is
safe enough. When the thread does not keep up, audio is dropped and counted; video never waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.observability.events import EventBus

if TYPE_CHECKING:
    from gb28181gw.outputs.aac_encoder import AacEncoder

logger = logging.getLogger(__name__)

_MAX_QUEUED = 100
"""Audio packets that wait for the thread: two to four seconds."""
_THREADS = 2
SOURCES = (Codec.PCMA, Codec.PCMU)


class _Transcoder:
    """One stream's encoder. Owner of its frame sink and its task."""

    def __init__(self, stream_id: str, engine: Engine, executor: ThreadPoolExecutor, bus: EventBus) -> None:
        self.stream_id = stream_id
        self.users = 0
        self.dropped = 0
        self._engine = engine
        self._executor = executor
        self._bus = bus
        self._queue: deque[Frame] = deque()
        self._wake = asyncio.Event()
        self._codec: Codec | None = None
        self._sink = engine.add_frame_sink(stream_id, self._on_frames, video=False, audio=True)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"aac:{stream_id}")

    def _on_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.track.codec in SOURCES:
                if len(self._queue) >= _MAX_QUEUED:
                    self._queue.popleft()
                    self.dropped += 1
                self._queue.append(frame)
        if self._queue:
            self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        encoder: AacEncoder | None = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = list(self._queue)
            self._queue.clear()
            try:
                if encoder is None:
                    encoder = await loop.run_in_executor(self._executor, _make_encoder)
                encoded = await loop.run_in_executor(self._executor, encoder.encode, batch)
            except (ImportError, OSError, ValueError) as error:
                # PyAV's errors are OSError and ValueError; the stream goes on without made audio.
                self._bus.emit(
                    "transcoding.failed",
                    stream_id=self.stream_id,
                    codec=batch[-1].track.codec.value,
                    reason="codec_unsupported",
                    detail=str(error),
                )
                logger.warning("audio of %s cannot be made into AAC: %s", self.stream_id, error)
                return
            if encoded and self._codec is None:
                self._codec = batch[-1].track.codec
                self._bus.emit("transcoding.started", stream_id=self.stream_id, codec=self._codec.value)
            for packet in encoded:
                track = Track(
                    kind=TrackKind.AUDIO,
                    codec=Codec.AAC,
                    sample_rate=packet.sample_rate,
                    channels=1,
                    parameter_sets=(packet.configuration,),
                )
                self._engine.push(
                    self.stream_id, track, packet.pts_90k, packet.pts_90k, packet.payload, key=True
                )

    async def close(self, reason: str) -> None:
        self._engine.close_sink(self._sink)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._codec is not None:
            self._bus.emit(
                "transcoding.ended", stream_id=self.stream_id, codec=self._codec.value, reason=reason
            )


def _make_encoder() -> AacEncoder:
    from gb28181gw.outputs.aac_encoder import AacEncoder

    return AacEncoder()


class AudioTranscoding:
    """Owner of the encoders, counted by users."""

    def __init__(self, engine: Engine, bus: EventBus) -> None:
        self._engine = engine
        self._bus = bus
        self._transcoders: dict[str, _Transcoder] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._executor: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._transcoders)

    def use(self, stream_id: str) -> None:
        """One more consumer wants AAC of this stream. Nothing is encoded while its audio is AAC or absent."""
        transcoder = self._transcoders.get(stream_id)
        if transcoder is None:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="aac")
            transcoder = _Transcoder(stream_id, self._engine, self._executor, self._bus)
            self._transcoders[stream_id] = transcoder
        transcoder.users += 1

    def leave(self, stream_id: str) -> None:
        """One consumer less; the last one ends the encoder."""
        transcoder = self._transcoders.get(stream_id)
        if transcoder is None:
            return
        transcoder.users -= 1
        if transcoder.users == 0:
            del self._transcoders[stream_id]
            task = asyncio.get_running_loop().create_task(transcoder.close("viewer_gone"))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End all encoders and their threads."""
        transcoders, self._transcoders = list(self._transcoders.values()), {}
        for transcoder in transcoders:
            await transcoder.close("shutting_down")
        while self._closing:
            await asyncio.gather(*self._closing)
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)
