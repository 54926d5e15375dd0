"""What the simulator sends is read by programs that did not come from this project."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.sim import simulated
from tests.support.sim_platform import deframe, platform, tcp_sink, udp_sink

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed"),
]


def probe(path: Path, *more: str) -> dict[str, object]:
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-count_frames", *more, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    video: dict[str, object] = next(
        stream for stream in json.loads(done.stdout)["streams"] if stream["codec_type"] == "video"
    )
    return video


def decode_errors(path: Path) -> str:
    """What ffmpeg has to say against the pictures."""
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-map", "0:v", "-f", "null", "-"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


@pytest.mark.parametrize(
    ("video", "audio", "codec", "b_frames"),
    [
        ("h264", "none", "h264", 0),
        ("h264", "none", "h264", 2),
        ("h265", "none", "hevc", 0),
        ("h265", "aac", "hevc", 0),
    ],
)
async def test_program_stream_over_udp(
    video: str, audio: str, codec: str, b_frames: int, tmp_path: Path
) -> None:
    async with (
        platform() as gateway,
        udp_sink() as sink,
        simulated(gateway.address, video=video, audio=audio, b_frames=b_frames) as sim,
    ):
        await sim.registered()
        gateway.invite(sim.device.id, sim.device.channels[0].id, gateway.offer(sink.port))
        # Over the seam of the two-second loop.
        await sim.until(lambda: sim.calls and sim.calls[0].stream and sim.calls[0].stream.frames > 75)
    path = tmp_path / "udp.ps"
    path.write_bytes(sink.program_stream())
    found = await asyncio.to_thread(probe, path)
    assert (found["codec_name"], found["width"], found["height"]) == (codec, 320, 240)
    assert found["r_frame_rate"] == "25/1"
    assert int(str(found["nb_read_frames"])) >= 70
    assert await asyncio.to_thread(decode_errors, path) == ""


async def test_program_stream_over_tcp(tmp_path: Path) -> None:
    async with platform() as gateway, tcp_sink() as sink, simulated(gateway.address, audio="none") as sim:
        await sim.registered()
        offer = gateway.offer(sink.port, transport="tcp-passive")
        gateway.invite(sim.device.id, sim.device.channels[0].id, offer)
        await sim.until(lambda: sim.calls and sim.calls[0].stream and sim.calls[0].stream.frames > 50)
    path = tmp_path / "tcp.ps"
    path.write_bytes(b"".join(packet[12:] for packet in deframe(bytes(sink.stream))))
    found = await asyncio.to_thread(probe, path)
    assert (found["codec_name"], found["r_frame_rate"]) == ("h264", "25/1")
    assert await asyncio.to_thread(decode_errors, path) == ""
