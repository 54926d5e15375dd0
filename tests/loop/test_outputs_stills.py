"""Stills of a stream that the test feeds, by the worker process."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import av
import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import nal
from gb28181gw.outputs import picture_decoder, stills
from gb28181gw.outputs.picture_decoder import PictureDecoder
from gb28181gw.outputs.source import Viewer
from gb28181gw.outputs.stills import Stills
from tests.support.media import video_clip
from tests.support.outputs import CHANNEL, DEVICE, Bench, bench
from tests.support.plane import until

VIEWER = Viewer(client="127.0.0.1:1", kind="snapshot", grant_id="g")
H264 = video_clip(Codec.H264)


@dataclass
class Clock:
    """Wall time that a test moves."""

    at: float = 1_700_000_000.0

    def wall(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


@asynccontextmanager
async def studio() -> AsyncIterator[tuple[Bench, Stills, Clock]]:
    async with bench() as b:
        clock = Clock()
        made = Stills(b.plane, b.source, clock)
        try:
            yield b, made, clock
        finally:
            await made.close()


def size_of(jpeg: bytes) -> tuple[int, int]:
    """Of the picture in it, as a foreign decoder sees it."""
    with av.open(io.BytesIO(jpeg), format="mjpeg") as source:
        frame = next(source.decode(video=0))
        return frame.width, frame.height


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
async def test_picture_of_a_running_stream(codec: Codec) -> None:
    async with studio() as (b, made, _):
        b.push(video_clip(codec, gop=25)[:30])
        snapshot = await made.take(DEVICE, CHANNEL, VIEWER)
        assert size_of(snapshot.jpeg) == (320, 240)
        assert snapshot.stale == ""
        assert b.source.viewers[0].kind == "snapshot"
        await until(lambda: b.source.held == 0)
        assert b.plane.gauges["sinks"] == 0


async def test_key_frame_that_comes_later_without_its_parameter_sets() -> None:
    async with studio() as (b, made, _):
        taking = asyncio.ensure_future(made.take(DEVICE, CHANNEL, VIEWER))
        await until(lambda: b.plane.gauges["sinks"] == 1)
        slices = [u for u in nal.split_annexb(H264[0].payload) if u[0] & 0x1F == nal.H264_IDR]
        b.push([replace(H264[0], payload=nal.join_annexb(slices))])
        assert size_of((await taking).jpeg) == (320, 240)


async def test_askers_share_one_picture_and_a_fresh_one_is_kept() -> None:
    async with studio() as (b, made, clock):
        b.push(H264[:1])
        found = await asyncio.gather(*(made.take(DEVICE, CHANNEL, VIEWER) for _ in range(5)))
        assert all(snapshot is found[0] for snapshot in found)
        assert await made.take(DEVICE, CHANNEL, VIEWER) is found[0]
        assert len(b.source.leases) == 1
        clock.at += stills.FRESH_S + 1
        assert await made.take(DEVICE, CHANNEL, VIEWER) is not found[0]
        assert len(b.source.leases) == 2
        assert made.decoder.started == 1


async def test_last_picture_with_its_time_when_the_device_is_offline() -> None:
    async with studio() as (b, made, clock):
        b.source.error = GatewayError("gb.route.offline")
        with pytest.raises(GatewayError) as error:
            await made.take(DEVICE, CHANNEL, VIEWER)
        assert error.value.code == "gb.route.offline"
        b.source.error = None
        b.push(H264[:1])
        first = await made.take(DEVICE, CHANNEL, VIEWER)
        b.source.error = GatewayError("gb.route.offline")
        clock.at += 3600
        again = await made.take(DEVICE, CHANNEL, VIEWER)
        assert (again.jpeg, again.taken_at, again.stale) == (first.jpeg, first.taken_at, "gb.route.offline")


async def test_asker_that_goes_away_leaves_the_others_their_picture() -> None:
    async with studio() as (b, made, _):
        one = asyncio.ensure_future(made.take(DEVICE, CHANNEL, VIEWER))
        two = asyncio.ensure_future(made.take(DEVICE, CHANNEL, VIEWER))
        await until(lambda: b.plane.gauges["sinks"] == 1)
        one.cancel()
        b.push(H264[:1])
        assert size_of((await two).jpeg) == (320, 240)


async def test_no_key_frame_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "KEY_FRAME_S", 0.05)
    async with studio() as (b, made, _):
        with pytest.raises(GatewayError) as error:
            await made.take(DEVICE, CHANNEL, VIEWER)
        assert error.value.code == "gb.media.no_keyframe"
        assert b.source.held == 0


async def test_stream_that_ends_meanwhile() -> None:
    async with studio() as (b, made, _):
        taking = asyncio.ensure_future(made.take(DEVICE, CHANNEL, VIEWER))
        await until(lambda: b.plane.gauges["sinks"] == 1)
        b.plane.close_stream("live")
        with pytest.raises(GatewayError) as error:
            await taking
        assert error.value.code == "gb.media.silent"


async def test_i10_pictures_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "MAX_BYTES", 1)
    async with studio() as (b, made, clock):
        b.push(H264[:1])
        for _ in range(3):
            await made.take(DEVICE, CHANNEL, VIEWER)
            clock.at += 60
        assert len(made) == 1


async def test_s05_broken_picture_and_dead_worker_cost_their_job_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = PictureDecoder()
    try:
        with pytest.raises(GatewayError) as error:
            await decoder.jpeg(Codec.H264, b"\0\0\0\1\x65garbage")
        assert error.value.code == "gb.codec.demux_error"
        assert decoder.started == 1
        process = decoder._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        monkeypatch.setattr(picture_decoder, "JOB_S", 0.05)
        with pytest.raises(GatewayError):
            await decoder.jpeg(Codec.H264, H264[0].payload)
        monkeypatch.setattr(picture_decoder, "JOB_S", 10.0)
        assert size_of(await decoder.jpeg(Codec.H264, H264[0].payload)) == (320, 240)
        assert decoder.started == 2
        with pytest.raises(GatewayError) as error:
            await decoder.jpeg(Codec.SVAC, b"x")
        assert error.value.code == "gb.codec.codec_unsupported"
    finally:
        await decoder.close()
