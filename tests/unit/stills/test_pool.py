"""Decoder processes: real ones for pictures, broken ones for what a bitstream may do to them."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import av
import pytest
from av.video.frame import VideoFrame

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec
from gb28181gw.stills.decoder import FAILED, JPEG, REQUEST, serve
from gb28181gw.stills.pool import COMMAND, DecoderLimits, DecoderPool
from tests.support.media import video_clip
from tests.support.plane import until


@asynccontextmanager
async def pool(*command: str, **limits: float) -> AsyncIterator[DecoderPool]:
    made = DecoderPool(DecoderLimits(**limits), command or COMMAND)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()
        assert len(made) == 0


def size_of(jpeg: bytes) -> tuple[int, int]:
    with av.open(io.BytesIO(jpeg), format="jpeg_pipe") as source:
        picture = next(source.decode(video=0))
        assert isinstance(picture, VideoFrame)
        return picture.width, picture.height


def key_frame(codec: Codec) -> bytes:
    return video_clip(codec)[0].payload


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
async def test_a_key_frame_becomes_a_jpeg_of_its_size(codec: Codec) -> None:
    async with pool() as decoders:
        jpeg = await decoders.to_jpeg(codec, key_frame(codec))
        assert size_of(jpeg) == (320, 240)
        await decoders.to_jpeg(codec, key_frame(codec))
        assert (decoders.counters.started, decoders.counters.decoded, len(decoders)) == (1, 2, 1)


async def test_what_is_no_picture_is_an_error_and_the_process_goes_on() -> None:
    async with pool() as decoders:
        for junk in (b"", b"\x00\x00\x00\x01\x65" + b"junk" * 50, key_frame(Codec.H265)[:400]):
            with pytest.raises(GatewayError) as caught:
                await decoders.to_jpeg(Codec.H264, junk)
            assert caught.value.code == "gb.codec.not_decodable"
        assert size_of(await decoders.to_jpeg(Codec.H264, key_frame(Codec.H264))) == (320, 240)
        assert (decoders.counters.started, decoders.counters.failed) == (1, 3)


async def test_a_codec_without_a_decoder_and_a_key_frame_without_end_are_refused() -> None:
    async with pool() as decoders:
        with pytest.raises(GatewayError) as unknown:
            await decoders.to_jpeg(Codec.SVAC, b"x")
        assert unknown.value.code == "gb.codec.codec_unsupported"
        with pytest.raises(GatewayError) as large:
            await decoders.to_jpeg(Codec.H264, bytes(17 << 20))
        assert large.value.code == "gb.codec.not_decodable"
        assert decoders.counters.started == 0


HANGS = "import time; time.sleep(600)"
DIES = "import os; os.abort()"
LIES = "import sys; sys.stdout.buffer.write(b'\\0\\xff\\xff\\xff\\xff' + b'x' * 100)"


@pytest.mark.parametrize("script", [HANGS, DIES, LIES], ids=["hangs", "dies", "lies"])
async def test_a_process_that_breaks_costs_one_picture_and_is_gone(script: str) -> None:
    async with pool(sys.executable, "-c", script, decode_s=1.0) as decoders:
        for _ in range(2):
            with pytest.raises(GatewayError) as caught:
                await decoders.to_jpeg(Codec.H264, key_frame(Codec.H264))
            assert caught.value.code == "gb.codec.not_decodable"
        assert (decoders.counters.killed, len(decoders)) == (2, 0)


async def test_an_idle_process_is_ended() -> None:
    async with pool(idle_s=0.1) as decoders:
        await decoders.to_jpeg(Codec.H264, key_frame(Codec.H264))
        await until(lambda: len(decoders) == 0, what="the end of the idle process")
        await decoders.to_jpeg(Codec.H264, key_frame(Codec.H264))
        assert decoders.counters.started == 2


async def test_no_more_processes_than_allowed_however_many_ask() -> None:
    async with pool(processes=2) as decoders:
        await asyncio.gather(*(decoders.to_jpeg(Codec.H264, key_frame(Codec.H264)) for _ in range(12)))
        assert decoders.counters.started <= 2
        assert decoders.counters.decoded == 12


def test_the_worker_ends_at_half_a_request_and_at_one_that_is_too_long() -> None:
    for data in (REQUEST.pack(0, 10) + b"half", REQUEST.pack(0, 1 << 31), REQUEST.pack(9, 1) + b"x"):
        sink = io.BytesIO()
        serve(io.BytesIO(data), sink)
        assert sink.getvalue() == b""


def test_the_worker_answers_in_order() -> None:
    good = key_frame(Codec.H264)
    sink = io.BytesIO()
    serve(io.BytesIO(REQUEST.pack(0, len(good)) + good + REQUEST.pack(1, 4) + b"junk"), sink)
    answers = sink.getvalue()
    assert answers[0] == JPEG
    assert answers[5:8] == b"\xff\xd8\xff"
    rest = answers[5 + int.from_bytes(answers[1:5], "big") :]
    assert rest[0] == FAILED
