"""The owner of the worker process that makes JPEG of key frames (`picture_worker`), started on first use.

A job that takes too long, or that takes the process with it, costs that job: the process is killed and the next job
starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec
from gb28181gw.outputs.picture_protocol import ANSWER, JOB, MAX_JOB, NUMBERS

JOB_S = 10.0


class PictureDecoder:
    """Jobs wait for each other: a picture takes 30 to 60 ms."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self.started = 0
        """Processes started, in all."""

    async def jpeg(self, codec: Codec, payload: bytes) -> bytes:
        """A JPEG of a key frame with its parameter sets.

        Raises `gb.codec.codec_unsupported` and `gb.codec.demux_error`.
        """
        number = NUMBERS.get(codec)
        if number is None:
            raise GatewayError("gb.codec.codec_unsupported", f"No picture can be made of {codec.value}.")
        if len(payload) > MAX_JOB:
            raise GatewayError("gb.codec.demux_error", "The key frame is too large.")
        async with self._lock:
            try:
                async with asyncio.timeout(JOB_S):
                    return await self._work(number, payload)
            except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
                await self._kill()
                raise GatewayError(
                    "gb.codec.demux_error", "The decoder did not survive the key frame."
                ) from error
            except asyncio.CancelledError:
                await self._kill()  # an answer would be taken for that of the next job
                raise

    async def close(self) -> None:
        """End the process. Idempotent."""
        async with self._lock:
            await self._kill()

    async def _work(self, number: int, payload: bytes) -> bytes:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gb28181gw.outputs.picture_worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            self.started += 1
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(JOB.pack(len(payload), number) + payload)
        await process.stdin.drain()
        size, status = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
        body = await process.stdout.readexactly(min(size, MAX_JOB))
        if status:
            raise GatewayError("gb.codec.demux_error", f"The key frame cannot be decoded: {body.decode()}.")
        return body

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
