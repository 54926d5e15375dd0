"""What a WebRTC viewer costs, and what transcoding one stream from H.265 to H.264 costs: CPU seconds a minute.

Run: python -m bench.webrtc [--viewers 1 5 10] [--seconds 10] [--kbps 2000]
     python -m bench.webrtc --transcode [--size 1920x1080] [--seconds 10]

The listener with the Python plane runs in this process and is fed with H.264 and G.711; the viewers are aiortc in a
process of their own and decode nothing. CPU is user + system of the listener's process by its CPU clock, less what
the same feed costs without a viewer. Needs the test support of the repository.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import av
import httpx
import uvloop

from bench.media_server import _Guard, _Source
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.observability.events import EventBus
from gb28181gw.observability.logs import configure_logging
from gb28181gw.outputs.listener import ListenerConfig, MediaListener
from gb28181gw.outputs.transcode_protocol import Made
from gb28181gw.outputs.webrtc_host import WebRtcConfig
from gb28181gw.outputs.worker_transcoder import WorkerTranscoder

_FPS = 25


def make_video(codec: str, width: int, height: int, kbps: int, frames: int) -> list[Frame]:
    """A moving picture with noise, a key frame every two seconds, about `kbps`."""
    encoder = av.CodecContext.create("libx264" if codec == "h264" else "libx265", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, _FPS), Fraction(_FPS)
    encoder.bit_rate = kbps * 1000
    encoder.gop_size = 2 * _FPS
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    if codec == "h265":
        encoder.options["x265-params"] = "log-level=none:bframes=0"
    graph = av.filter.Graph()
    source = graph.add("testsrc2", f"size={width}x{height}:rate={_FPS}")
    noise = graph.add("noise", "all_strength=12:all_flags=t")
    form = graph.add("format", "yuv420p")
    sink = graph.add("buffersink")
    source.link_to(noise)
    noise.link_to(form)
    form.link_to(sink)
    graph.configure()
    track = Track(kind=TrackKind.VIDEO, codec=Codec(codec), width=width, height=height)
    made: list[Frame] = []
    for number in range(frames):
        picture = graph.pull()
        assert isinstance(picture, av.VideoFrame)
        picture.pts, picture.time_base = number, Fraction(1, _FPS)
        for packet in encoder.encode(picture):
            at = len(made) * 90_000 // _FPS
            made.append(
                Frame(track=track, pts_90k=at, dts_90k=at, key=packet.is_keyframe, payload=bytes(packet))
            )
    return made


async def feed(plane: ReferencePlane, video: Sequence[Frame], seconds: float) -> None:
    """In real time, over and over; 20 ms of G.711 twice a picture."""
    sound = Track(kind=TrackKind.AUDIO, codec=Codec.PCMA, sample_rate=8000, channels=1)
    begun, number = time.monotonic(), 0
    while (elapsed := time.monotonic() - begun) < seconds:
        while number <= elapsed * _FPS:
            frame = video[number % len(video)]
            at = feed_position(number)
            plane.push("bench", frame.track, at, at, frame.payload, key=frame.key)
            for half in (0, 1800):
                plane.push("bench", sound, at + half, at + half, b"\xd5" * 160)
            number += 1
        await asyncio.sleep(0.01)


def feed_position(number: int) -> int:
    return (_base[0] + number) * 90_000 // _FPS


_base = [0]


async def measure_viewers(counts: Sequence[int], seconds: float, kbps: int) -> None:
    video = make_video("h264", 1280, 720, kbps, 4 * _FPS)
    plane = ReferencePlane()
    bus = EventBus()
    listener = MediaListener(
        plane,
        _Source(),
        _Guard(),
        bus,
        ListenerConfig(host="127.0.0.1", port=0, webrtc=WebRtcConfig(host="127.0.0.1", sessions=1000)),
    )
    await listener.start()
    plane.create_stream("bench", lambda _: None)
    sent = sum(len(frame.payload) for frame in video) * 8 / len(video) * _FPS / 1e6
    print(f"H.264 1280x720, {sent:.1f} Mbit/s, and G.711")
    floor = 0.0
    for count in (0, *counts):
        peers = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.webrtc", "--peers", str(count), "--port", str(listener.port),
            stdin=asyncio.subprocess.PIPE,
        )  # fmt: skip
        while len(listener.webrtc) < count:
            await feed(plane, video, 0.4)
            _base[0] += _FPS
        await feed(plane, video, 4.0)
        _base[0] += 5 * _FPS
        cpu, begun, bytes_before = time.process_time(), time.monotonic(), listener.webrtc.bytes_out
        await feed(plane, video, seconds)
        passed = time.monotonic() - begun
        used = (time.process_time() - cpu) / passed * 60
        rate = (listener.webrtc.bytes_out - bytes_before) * 8 / 1e6 / passed
        _base[0] += int(seconds + 1) * _FPS
        alive = len(listener.webrtc)
        assert peers.stdin is not None
        peers.stdin.close()
        await peers.wait()
        while len(listener.webrtc):
            await asyncio.sleep(0.1)
        if not count:
            floor = used
            print(f"no viewer: {used:.2f} CPU s a minute (feeding)")
            continue
        each = (used - floor) / count
        print(
            f"{alive} of {count} viewers, {rate / count:.1f} Mbit/s each: {each:.2f} CPU s a viewer-minute, "
            f"{each / 0.6:.1f} % of a core each"
        )
    await listener.close()
    await plane.close()
    bus.close()


async def run_peers(count: int, port: int) -> None:
    """Viewers that take packets and decode nothing, until the input ends."""
    import aioice.ice
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription

    async def count_only(self: object, packet: object, arrival_time_ms: int) -> None:
        pass

    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    RTCRtpReceiver._handle_rtp_packet = count_only  # type: ignore[method-assign]
    peers = []
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for _ in range(count):
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            peer.addTransceiver("video", direction="recvonly")
            peer.addTransceiver("audio", direction="recvonly")
            await peer.setLocalDescription(await peer.createOffer())
            answer = await client.post(
                f"http://127.0.0.1:{port}/live/bench_1/whep",
                content=peer.localDescription.sdp,
                headers={"content-type": "application/sdp"},
            )
            assert answer.status_code == 201, answer.text
            await peer.setRemoteDescription(RTCSessionDescription(sdp=answer.text, type="answer"))
            peers.append(peer)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for peer in peers:
        await peer.close()


async def measure_transcoding(width: int, height: int, seconds: float) -> None:
    video = make_video("h265", width, height, 4000, int(seconds * _FPS))
    got: list[int] = []
    failed: list[str] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    worker = WorkerTranscoder(
        Made.H264,
        lambda pts, key, payload: got.append(len(payload)),
        failed.append,
    )
    for number, frame in enumerate(video):
        at = number * 90_000 // _FPS
        worker.feed(replace(frame, pts_90k=at, dts_90k=at))
        await asyncio.sleep(1 / _FPS)
    deadline = time.monotonic() + 20
    while len(got) + worker.dropped < len(video) and time.monotonic() < deadline and not failed:
        await asyncio.sleep(0.1)
    await worker.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kbps = sum(got) * 8 / 1000 / max(len(got) / _FPS, 0.001)
    print(
        f"H.265 {width}x{height} to H.264: {len(got)} of {len(video)} pictures, {worker.dropped} dropped, "
        f"{cpu / (len(video) / _FPS) * 60:.1f} CPU s a minute with the worker's start, {kbps:.0f} kbit/s, "
        f"{after.ru_maxrss // 1024} MB {failed or ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--viewers", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kbps", type=int, default=2000)
    parser.add_argument("--transcode", action="store_true")
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--peers", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    configure_logging(format="console", level="error")
    if args.peers >= 0:
        uvloop.run(run_peers(args.peers, args.port))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {' '.join(sys.argv[1:])}"
    )
    if args.transcode:
        width, height = map(int, args.size.split("x"))
        uvloop.run(measure_transcoding(width, height, args.seconds))
    else:
        uvloop.run(measure_viewers(args.viewers, args.seconds, args.kbps))


if __name__ == "__main__":
    main()
