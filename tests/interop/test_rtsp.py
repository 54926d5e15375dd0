"""The RTSP server of a real gateway, read by ffmpeg, GStreamer and FFmpeg as PyAV carries it (what OpenCV uses)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from gb28181gw.media import native
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed"),
]
DEVICES = {
    "h264": ("34020000001180000001", "pcma"),
    "h265": ("34020000001180000101", "aac"),
}
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory: Path = tmp_path_factory.mktemp("rtsp")
    with running_gateway(directory, media={"idle_stop_s": 2, "plane": request.param}) as gateway:
        cameras = [
            ("--id", device, "--channels", "1", "--video", video, "--audio", audio)
            for video, (device, audio) in DEVICES.items()
        ]
        with simulated_devices(gateway, *cameras[0]), simulated_devices(gateway, *cameras[1]):
            for device, _ in DEVICES.values():
                gateway.wait_online(device, channels=1, limit_s=60)
            yield gateway


def channel(gateway: GatewayProcess, device: str) -> str:
    return str(gateway.get(f"/devices/{device}/channels")["items"][0]["id"])


def url(gateway: GatewayProcess, video: str) -> str:
    device = DEVICES[video][0]
    return str(gateway.live(device, channel(gateway, device))["urls"]["rtsp"])


def run(*argv: str, timeout_s: int = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.parametrize("video", ["h264", "h265"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("seconds", [4, pytest.param(30, marks=pytest.mark.long)])
def test_ffmpeg_plays_without_an_error_line(
    gateway: GatewayProcess, video: str, transport: str, seconds: int
) -> None:
    command = ["ffmpeg", "-v", "error", "-rtsp_transport", transport, "-i", url(gateway, video)]
    done = run(*command, "-t", str(seconds), "-f", "null", "-", timeout_s=seconds + 60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("video", ["h264", "h265"])
def test_ffprobe_sees_picture_and_sound(gateway: GatewayProcess, video: str) -> None:
    show = ["-show_entries", "stream=codec_name,width,sample_rate", "-of", "compact=p=0"]
    done = run("ffprobe", "-v", "error", "-rtsp_transport", "tcp", *show, url(gateway, video))
    codec, sound = {"h264": ("h264", "pcm_alaw"), "h265": ("hevc", "aac")}[video]
    assert f"codec_name={codec}|width=" in done.stdout
    assert f"codec_name={sound}|sample_rate=8000" in done.stdout


@pytest.mark.skipif(not shutil.which("gst-launch-1.0"), reason="GStreamer is not installed")
@pytest.mark.parametrize("video", ["h264", "h265"])
@pytest.mark.parametrize("protocols", ["tcp", "udp"])
def test_gstreamer_decodes(gateway: GatewayProcess, video: str, protocols: str) -> None:
    source = ["rtspsrc", f"location={url(gateway, video)}", f"protocols={protocols}", "latency=100", "name=s"]
    decode = ["s.", "!", f"rtp{video}depay", "!", f"{video}parse", "!", f"avdec_{video}", "!", "fakesink"]
    done = run("gst-launch-1.0", "-q", *source, *decode[:-1], "fakesink", "num-buffers=50")
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr + done.stdout


def test_key_as_the_password_starts_an_idle_channel_and_ends_it(gateway: GatewayProcess) -> None:
    device = DEVICES["h264"][0]
    wait_until(lambda: gateway.get("/streams")["total"] == 0, "no stream", 60)
    place = f"127.0.0.1:{gateway.rtsp_port}/live/{device}_{channel(gateway, device)}"
    with av.open(
        f"rtsp://player:{gateway.key}@{place}", options={"rtsp_transport": "tcp"}, timeout=30
    ) as source:
        for number, _ in enumerate(source.decode(video=0)):
            if number == 30:
                break
        assert gateway.get("/streams")["items"][0]["consumers"] == 1
    wait_until(lambda: gateway.get("/streams")["total"] == 0, "the stream ended with its last player", 60)
