"""CPU of a media plane: receiving N streams, and one stream to M HTTP-FLV consumers.

Run: python -m bench.reference_plane [--plane python|native] [--workers 1] [--streams 8] [--consumers 1 10 100]
     [--seconds 10] [--json]

A child process sends RTP/PS of 4 Mbit/s a stream over UDP and reads what the consumers get; only the process with
the plane is measured. The figure is CPU seconds of that process for each second and stream (or for each Gbit sent
to consumers): a ratio, so that a shared machine distorts it less than a rate would. Every run also tells what was
lost, because CPU that was saved by losing packets is none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from gb28181gw.media.engine import EngineEvent, MediaTransport, ReceiverSpec
from gb28181gw.media.native import NativePlane
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.ps_mux import PsMuxer
from gb28181gw.media.wire.rtp import RtpPacketiser
from gb28181gw.observability.events import EventBus
from gb28181gw.observability.logs import configure_logging
from gb28181gw.outputs.listener import ListenerConfig, MediaListener
from gb28181gw.outputs.source import Viewer

FPS = 25
GOP = 50
MBIT = 4.0
KEY_FACTOR = 8
FIRST_PORT = 41000
# A real SPS and PPS of 1920x1080; the slices behind them are filler, which nobody here decodes.
SPS = bytes.fromhex("6764002aacd940780227e5c044000003000400000300c83c60c658")
PPS = bytes.fromhex("68ebe3cb22c0")


def gop_frames() -> list[Frame]:
    """One group of pictures whose mean rate is `MBIT`."""
    track = Track(kind=TrackKind.VIDEO, codec=Codec.H264)
    mean = MBIT * 1e6 / 8 / FPS
    small = int(mean * GOP / (GOP - 1 + KEY_FACTOR))
    frames = []
    for index in range(GOP):
        key = index == 0
        slice_head = b"\x65\x88\x80" if key else b"\x41\x9a\x02"
        body = slice_head + b"\x55" * (small * KEY_FACTOR if key else small)
        units = (SPS, PPS, body) if key else (body,)
        payload = b"".join(b"\0\0\0\1" + unit for unit in units)
        frames.append(Frame(track=track, pts_90k=0, dts_90k=0, key=key, payload=payload))
    return frames


def device(ports: list[int], seconds: float, viewers: int, http_port: int, pipe: Connection) -> None:
    """The child: sends to `ports` in real time, reads `viewers` connections."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    frames = gop_frames()
    muxer = PsMuxer()
    senders = [(port, RtpPacketiser(ssrc=1000 + index)) for index, port in enumerate(ports)]
    readers = selectors.DefaultSelector()
    received = packets_sent = 0
    begun = time.monotonic()
    count = int(seconds * FPS)
    opened = viewers == 0
    for number in range(count):
        frame = frames[number % GOP]
        at = number * 90_000 // FPS
        data = muxer.mux_payload(frame.payload, at, at, key=frame.key)
        for index, (port, sender) in enumerate(senders):
            # Streams do not tick together: each has its place within the frame interval.
            due = begun + (number + index / len(senders)) / FPS
            while (wait := due - time.monotonic()) > 0:
                for key, _ in readers.select(wait):
                    received += len(key.fileobj.recv(1 << 20))  # type: ignore[union-attr]
            for packet in sender.packetise(data, at):
                sock.sendto(packet, ("127.0.0.1", port))
                packets_sent += 1
        if not opened and number == FPS:
            opened = True
            for _ in range(viewers):
                viewer = socket.create_connection(("127.0.0.1", http_port))
                viewer.sendall(b"GET /live/a_b.flv?token=x HTTP/1.1\r\nHost: bench\r\n\r\n")
                viewer.setblocking(False)
                readers.register(viewer, selectors.EVENT_READ)
    pipe.send((packets_sent, received))


@dataclass(frozen=True)
class _Grant:
    id: str = "bench"


class _Guard:
    def check(self, path: str, token: str | None, authorization: str | None, client: str) -> _Grant:
        return _Grant()


class _Lease:
    stream_id = "s0"

    def release(self) -> None: ...


class _Source:
    async def lease_live(self, device_id: str, channel_id: str, viewer: Viewer) -> _Lease:
        return _Lease()

    async def lease_stream(self, stream_id: str, viewer: Viewer) -> _Lease:
        return _Lease()


def ignore(_: EngineEvent) -> None: ...


async def measure(
    streams: int, viewers: int, seconds: float, plane_name: str, workers: int
) -> dict[str, float | int]:
    plane = NativePlane(workers) if plane_name == "native" else ReferencePlane()
    listener = MediaListener(plane, _Source(), _Guard(), EventBus(), ListenerConfig(host="127.0.0.1", port=0))
    await listener.start()
    ids, ports = [], []
    for index in range(streams):
        port = FIRST_PORT + 2 * index
        spec = ReceiverSpec(transport=MediaTransport.UDP, host="127.0.0.1", port=port, ssrc=1000 + index)
        receiver = await plane.open_receiver(spec, ignore)
        plane.create_stream(f"s{index}", ignore)
        plane.attach(receiver.id, f"s{index}")
        ids.append(receiver.id)
        ports.append(port)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=device, args=(ports, seconds, viewers, listener.port, theirs)
    )
    child.start()
    theirs.close()
    loop = asyncio.get_running_loop()
    while not any(counter.packets for counter in plane.receiver_counters(ids).values()):
        await asyncio.sleep(0.02)
    cpu, wall = time.process_time(), loop.time()
    sent, received = await loop.run_in_executor(None, ours.recv)
    cpu, wall = time.process_time() - cpu, loop.time() - wall
    child.join()
    counters = plane.receiver_counters(ids).values()
    packets = sum(counter.packets for counter in counters)
    result: dict[str, float | int] = {
        "streams": streams,
        "consumers": viewers,
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 3),
        "packets": packets,
        "packets_lost": sent - packets,
        "cpu_seconds_per_million_packets": round(cpu / packets * 1e6, 2),
        "cpu_seconds_per_stream_second": round(cpu / wall / streams, 5),
    }
    if viewers:
        gbit = received * 8 / 1e9
        result["consumer_gbit"] = round(gbit, 3)
        result["cpu_seconds_per_consumer_gbit"] = round(cpu / gbit, 3) if gbit else 0.0
        result["frames_dropped"] = plane.stream_counters(["s0"])["s0"].frames_dropped
    await listener.close()
    await plane.close()
    return result


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "?")
    return (
        f"{os.cpu_count()} x {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, uvloop {uvloop.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--plane", choices=("python", "native"), default="python")
    parser.add_argument("--workers", type=int, default=1, help="threads of the native plane")
    parser.add_argument("--streams", type=int, nargs="*", default=[8])
    parser.add_argument("--consumers", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    configure_logging(format="json", level="error")
    runs = [(streams, 0) for streams in options.streams] + [(1, count) for count in options.consumers]
    results = [uvloop.run(measure(*run, options.seconds, options.plane, options.workers)) for run in runs]
    command = "python -m bench.reference_plane " + " ".join(sys.argv[1:])
    if options.json:
        print(json.dumps({"command": command, "machine": machine(), "results": results}, indent=2))
        return
    print(
        f"{command}\n{machine()}; {options.plane} plane; {MBIT:g} Mbit/s a stream, {FPS} frames/s, "
        f"key frame every {GOP}"
    )
    for result in results:
        print("  ".join(f"{name}={value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
