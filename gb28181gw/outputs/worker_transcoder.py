"""The owner of one transcoding process (`transcode_worker`): frames in, packets out, bounded.

Frames that the worker does not take in time are dropped, of video up to the next key frame; nobody else waits. A worker
that ends by itself is not started again: the consumer is told, and decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable

from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.outputs.transcode_protocol import INPUT, MAX_FRAME, NUMBERS, OUTPUT, Made

_MAX_QUEUED_BYTES = 4 * 1024 * 1024
_MAX_QUEUED = 150
_DRAIN_BYTES = 256 * 1024

OnPacket = Callable[[int, bool, bytes], None]
"""(pts_90k, key, payload)."""


class WorkerTranscoder:
    """`close` ends it, once. `on_failed(sentence)` is called at most once, and not after `close`."""

    def __init__(self, made: Made, on_packet: OnPacket, on_failed: Callable[[str], None]) -> None:
        self.dropped = 0
        """Frames that came too fast."""
        self._made = made
        self._on_packet = on_packet
        self._on_failed = on_failed
        self._queue: deque[Frame] = deque()
        self._queued_bytes = 0
        self._skipping = False
        self._wake = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"transcode:{made.value}")

    def feed(self, frame: Frame) -> None:
        """Frames of codecs in `NUMBERS`."""
        if self._task.done():
            return
        video = frame.track.codec is Codec.H265
        full = len(self._queue) >= _MAX_QUEUED or self._queued_bytes > _MAX_QUEUED_BYTES
        if full or (self._skipping and video and not frame.key) or len(frame.payload) > MAX_FRAME:
            self._skipping = video
            self.dropped += 1
            return
        self._skipping = False
        self._queue.append(frame)
        self._queued_bytes += len(frame.payload)
        self._wake.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._ending is not None:
            await self._ending

    async def _run(self) -> None:
        # In a task of its own: a start that is cancelled half-way would leave a process that nobody owns.
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gb28181gw.outputs.transcode_worker",
                self._made.value,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )
        try:
            process = await asyncio.shield(starting)
            assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes were asked for
            writing = asyncio.ensure_future(self._write(process.stdin))
            try:
                await self._read(process.stdout)
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            assert process.stderr is not None  # noqa: S101
            told = (await process.stderr.read(2000)).decode("utf-8", "replace").strip().splitlines()
            self._on_failed(told[-1] if told else "the worker ended")
        except OSError as error:
            self._on_failed(f"the worker cannot be started: {error}")
        finally:
            # So is its end: `close` may come while a worker that failed is being ended.
            self._ending = asyncio.ensure_future(_end(starting))
            await asyncio.shield(self._ending)

    async def _write(self, stdin: asyncio.StreamWriter) -> None:
        told = b""
        with contextlib.suppress(ConnectionError):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    frame = self._queue.popleft()
                    self._queued_bytes -= len(frame.payload)
                    sets = frame.track.parameter_sets
                    config = sets[0] if frame.track.codec is Codec.AAC and sets else b""
                    news, told = (config if config != told else b""), config
                    head = INPUT.pack(
                        len(frame.payload),
                        len(news),
                        NUMBERS[frame.track.codec],
                        frame.key,
                        frame.track.sample_rate or 8000,
                        frame.pts_90k,
                    )
                    stdin.write(head + news + frame.payload)
                    if stdin.transport.get_write_buffer_size() > _DRAIN_BYTES:
                        await stdin.drain()
                await stdin.drain()

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                size, key, pts_90k = OUTPUT.unpack(await stdout.readexactly(OUTPUT.size))
                payload = await stdout.readexactly(min(size, MAX_FRAME))
                self._on_packet(pts_90k, bool(key), payload)


async def _end(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    """Kill it, and read its pipes to their ends: they close with that, and the transport with them."""
    try:
        process = await starting
    except OSError:
        return
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()
    pipes = (pipe.read() for pipe in (process.stdout, process.stderr) if pipe is not None)
    await asyncio.gather(*pipes, return_exceptions=True)
