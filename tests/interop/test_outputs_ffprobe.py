"""What foreign players make of the streams: ffprobe and ffmpeg of the host, and FFmpeg as PyAV carries it."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import av
import pytest

from gb28181gw.media.engine import EventKind, MediaTransport, ReceiverSpec, ReceiverUpdate
from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.media.wire.ps_mux import PsMuxer
from tests.support.outputs import Bench, bench
from tests.support.plane import (
    SSRC,
    Events,
    RtpSource,
    audio_frames,
    framed_stream,
    free_port_pair,
    interleave,
    udp_socket,
    until,
    video_frames,
)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe"),
]


def endless(*lists: tuple[Frame, ...], turn_90k: int) -> Iterator[Frame]:
    """The frames again and again, their times going on."""
    turn = 0
    while True:
        for frame in interleave(*lists):
            at = turn * turn_90k
            yield replace(frame, pts_90k=frame.pts_90k + at, dts_90k=frame.dts_90k + at)
        turn += 1


async def run(*argv: str, timeout_s: float = 30) -> tuple[str, str]:
    """Standard output and error of a program."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode(), err.decode()


async def probe(url: str) -> tuple[dict[str, dict[str, object]], str]:
    """Streams by kind, and what ffprobe complained of."""
    out, err = await run("ffprobe", "-v", "warning", "-of", "json", "-show_streams", url)
    streams = json.loads(out or "{}").get("streams", [])
    return {stream["codec_type"]: stream for stream in streams}, err


@asynccontextmanager
async def device(
    b: Bench, transport: MediaTransport, frames: Iterator[Frame], muxer: PsMuxer
) -> AsyncIterator[None]:
    """A device that sends to a receiver that feeds the stream, in four times real time."""
    events = Events()
    port = free_port_pair()
    spec = ReceiverSpec(
        transport=transport,
        host="127.0.0.1",
        port=0 if transport is MediaTransport.TCP_ACTIVE else port,
        ssrc=SSRC,
        expected_hosts=frozenset({"127.0.0.1"}),
    )
    opened = await b.plane.open_receiver(spec, events)
    b.plane.attach(opened.id, "live")
    source = RtpSource(muxer=muxer)

    async def pace(send: Callable[[list[bytes]], Awaitable[None]]) -> None:
        for frame in frames:
            await send(source.packets(frame))
            await asyncio.sleep(0.01 if frame.track.codec.is_video else 0)

    if transport is MediaTransport.UDP:
        sock = udp_socket()

        async def send(packets: list[bytes]) -> None:
            for packet in packets:
                sock.sendto(packet, ("127.0.0.1", port))

        task = asyncio.create_task(pace(send))
        closing: Callable[[], None] = sock.close
    else:
        connection: socket.socket
        if transport is MediaTransport.TCP_PASSIVE:
            connection = socket.create_connection(("127.0.0.1", port))
        else:
            with socket.create_server(("127.0.0.1", port)) as server:
                update = ReceiverUpdate(connect=("127.0.0.1", port))
                b.plane.update_receiver(opened.id, update)
                await events.wait(EventKind.CONNECTED)
                connection, _ = server.accept()
        connection.setblocking(False)
        loop = asyncio.get_running_loop()

        async def send_tcp(packets: list[bytes]) -> None:
            await loop.sock_sendall(connection, framed_stream(packets))

        task = asyncio.create_task(pace(send_tcp))
        closing = connection.close
    try:
        await b.stream_events.wait(EventKind.KEY_FRAME)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        closing()
        b.plane.close_receiver(opened.id)


@pytest.mark.parametrize("transport", list(MediaTransport))
async def test_ffprobe_reads_h264_and_g711(transport: MediaTransport) -> None:
    muxer = PsMuxer(audio=Codec.PCMA)
    frames = endless(video_frames(), audio_frames(), turn_90k=180_000)
    async with bench() as b, device(b, transport, frames, muxer):
        streams, complaints = await probe(b.url())
        video, audio = streams["video"], streams["audio"]
        assert (video["codec_name"], video["width"], video["height"]) == ("h264", 320, 240)
        assert video["avg_frame_rate"] == "25/1"
        assert (audio["codec_name"], audio["sample_rate"], audio["channels"]) == ("pcm_alaw", "8000", 1)
        assert complaints == ""


async def test_ffmpeg_decodes_without_an_error_line() -> None:
    muxer = PsMuxer(audio=Codec.PCMA)
    frames = endless(video_frames(), audio_frames(), turn_90k=180_000)
    async with bench() as b, device(b, MediaTransport.UDP, frames, muxer):
        _, err = await run("ffmpeg", "-v", "warning", "-i", b.url(), "-t", "6", "-f", "null", "-")
        assert err == ""


@pytest.mark.parametrize("codec", [Codec.PCMA, Codec.PCMU])
async def test_audio_aac_is_made_once_for_all_that_ask(codec: Codec) -> None:
    muxer = PsMuxer(audio=codec)
    frames = endless(video_frames(), audio_frames(codec), turn_90k=180_000)
    async with bench() as b, device(b, MediaTransport.UDP, frames, muxer):
        results = await asyncio.gather(*(probe(b.url("token=good&audio=aac")) for _ in range(2)))
        for streams, complaints in results:
            assert streams["video"]["codec_name"] == "h264"
            assert streams["audio"]["codec_name"] == "aac"
            assert streams["audio"]["sample_rate"] == "8000"
            assert complaints == ""
        assert b.bus.counts["transcoding.started"] == 1
        await until(lambda: len(b.listener.transcoding) == 0, what="the encoder ended with its last user")
        await until(lambda: b.bus.counts["transcoding.ended"] == 1)


@pytest.mark.parametrize("hevc", ["enhanced", "legacy"])
async def test_pyav_reads_h265(hevc: str) -> None:
    muxer = PsMuxer(video=Codec.H265)
    frames = endless(video_frames(Codec.H265), turn_90k=180_000)
    async with bench() as b, device(b, MediaTransport.TCP_PASSIVE, frames, muxer):

        def decode(url: str) -> tuple[str, int, int, int]:
            with av.open(url, timeout=10) as container:
                stream = container.streams.video[0]
                pictures = 0
                for _ in container.decode(stream):
                    pictures += 1
                    if pictures == 60:
                        break
                context = stream.codec_context
                return context.name, context.width, context.height, pictures

        url = b.url(f"token=good&hevc={hevc}")
        assert await asyncio.to_thread(decode, url) == ("hevc", 320, 240, 60)


async def test_program_stream_of_ffmpegs_own_muxer_with_b_frames(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("vob") / "foreign.vob"
    _, err = await run(
        *["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=352x288:rate=25:duration=4"],
        *[
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-bf",
            "2",
            "-g",
            "25",
            "-pix_fmt",
            "yuv420p",
            "-f",
            "vob",
        ],
        str(path),
    )
    assert err == ""
    program = path.read_bytes()
    async with bench() as b:
        events = Events()
        port = free_port_pair()
        spec = ReceiverSpec(transport=MediaTransport.UDP, host="127.0.0.1", port=port, ssrc=SSRC)
        opened = await b.plane.open_receiver(spec, events)
        b.plane.attach(opened.id, "live")
        source = RtpSource()
        with udp_socket() as sock:

            async def send() -> None:
                packets = source.rtp.packetise(program, 0, marker=False)
                for index, packet in enumerate(packets):
                    sock.sendto(packet, ("127.0.0.1", port))
                    if index % 4 == 3:
                        await asyncio.sleep(4 * 4 / len(packets))

            async def send_and_end() -> None:
                await send()
                await asyncio.sleep(0.3)  # the last picture is given out after a pause
                b.plane.close_stream("live")

            task = asyncio.create_task(send_and_end())
            await b.stream_events.wait(EventKind.KEY_FRAME)
            streams, complaints = await probe(b.url())
            await task
            assert complaints == ""
        assert (streams["video"]["codec_name"], streams["video"]["width"]) == ("h264", 352)
        assert streams["video"]["has_b_frames"] == 2
        b.plane.close_receiver(opened.id)
