"""The pool of decoder processes: made on first use, killed when they are slow, broken or idle.

One request at a time goes to a process. A process that dies, or does not answer in time, fails that one request; the
next one gets a new process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec
from gb28181gw.stills.decoder import ANSWER, JPEG, MAX_BYTES, REQUEST

CODECS: Final = {Codec.H264: 0, Codec.H265: 1}
"""Numbers of `decoder.DECODERS`."""
MAX_JPEG_BYTES: Final = 32 * 1024 * 1024
COMMAND: Final = (sys.executable, "-m", "gb28181gw.stills.decoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLimits:
    """Seconds, where nothing else is said."""

    processes: int = 2
    decode_s: float = 8.0
    """A process that needs longer for a picture is killed; its start is within it."""
    idle_s: float = 30.0
    """A process that has had nothing to do for so long is ended."""


@dataclass(slots=True)
class DecoderCounters:
    """Plain counters for the exporter."""

    started: int = 0
    """Processes."""
    decoded: int = 0
    failed: int = 0
    """Access units that gave no picture."""
    killed: int = 0
    """Processes that died or were too slow."""


class DecoderPool:
    """Owner of the processes. All calls on the event loop's thread."""

    def __init__(self, limits: DecoderLimits | None = None, command: Sequence[str] = COMMAND) -> None:
        self.counters = DecoderCounters()
        self._limits = limits if limits is not None else DecoderLimits()
        self._command = command
        self._room = asyncio.Semaphore(self._limits.processes)
        self._idle: list[tuple[asyncio.subprocess.Process, float]] = []
        """With the time since when; the last one was used last."""
        self._busy: set[asyncio.subprocess.Process] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Processes that live."""
        return len(self._idle) + len(self._busy)

    async def to_jpeg(self, codec: Codec, data: bytes) -> bytes:
        """A key frame in Annex B, with its parameter sets, as a JPEG.

        Raises GatewayError gb.codec.codec_unsupported, gb.codec.not_decodable.
        """
        number = CODECS.get(codec)
        if number is None:
            raise GatewayError("gb.codec.codec_unsupported", f"There is no decoder for {codec} here.")
        if len(data) > MAX_BYTES:
            raise GatewayError("gb.codec.not_decodable", f"The key frame has {len(data)} bytes.")
        async with self._room:
            status, answer = await self._ask(REQUEST.pack(number, len(data)), data)
        if status != JPEG or not answer:
            self.counters.failed += 1
            raise GatewayError("gb.codec.not_decodable", answer.decode("utf-8", "replace")[:200])
        self.counters.decoded += 1
        return answer

    async def close(self) -> None:
        """Kill all, and wait for their ends."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        processes = [*(process for process, _ in self._idle), *self._busy]
        self._idle.clear()
        await asyncio.gather(*map(_kill, processes))

    async def _ask(self, head: bytes, data: bytes) -> tuple[int, bytes]:
        process: asyncio.subprocess.Process | None = None
        try:
            async with asyncio.timeout(self._limits.decode_s):
                process = self._idle.pop()[0] if self._idle else await self._start()
                self._busy.add(process)
                assert process.stdin is not None  # noqa: S101 - asked for by `_start`
                assert process.stdout is not None  # noqa: S101 - asked for by `_start`
                process.stdin.write(head + data)
                await process.stdin.drain()
                status, length = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
                if length > MAX_JPEG_BYTES:
                    raise ValueError(length)
                answer = await process.stdout.readexactly(length)
        except (OSError, EOFError, ValueError) as error:
            # TimeoutError is an OSError. A process that gave half an answer gives no other one.
            slow = isinstance(error, TimeoutError)
            self.counters.killed += 1
            self.counters.failed += 1
            await self._drop(process)
            raise GatewayError(
                "gb.codec.not_decodable",
                f"The decoder took longer than {self._limits.decode_s:.0f} s."
                if slow
                else "The decoder broke off.",
            ) from error
        except BaseException:
            await self._drop(process)
            raise
        self._busy.discard(process)
        self._idle.append((process, asyncio.get_running_loop().time()))
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep(), name="stills decoders")
        return status, answer

    async def _start(self) -> asyncio.subprocess.Process:
        self.counters.started += 1
        # What the configuration says in the environment may be a secret: none of the decoder's business.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GB28181GW_")}
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
        )

    async def _drop(self, process: asyncio.subprocess.Process | None) -> None:
        if process is not None:
            self._busy.discard(process)
            await _kill(process)

    async def _sweep(self) -> None:
        """End what is idle, until nothing is left."""
        loop = asyncio.get_running_loop()
        while self._idle:
            await asyncio.sleep(max(self._idle[0][1] + self._limits.idle_s - loop.time(), 0.05))
            while self._idle and loop.time() - self._idle[0][1] >= self._limits.idle_s:
                await _kill(self._idle.pop(0)[0])


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()
