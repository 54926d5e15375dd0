"""HLS of a real gateway, read by ffmpeg."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed"),
]
DEVICES = {
    ("h264", "pcma"): "34020000001180000001",
    ("h265", "aac"): "34020000001180000101",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory: Path = tmp_path_factory.mktemp("hls")
    with running_gateway(directory, media={"idle_stop_s": 2}) as gateway:
        cameras = [
            ("--id", device, "--channels", "1", "--video", video, "--audio", audio)
            for (video, audio), device in DEVICES.items()
        ]
        with simulated_devices(gateway, *cameras[0]), simulated_devices(gateway, *cameras[1]):
            for device in DEVICES.values():
                gateway.wait_online(device, channels=1, limit_s=60)
            yield gateway


def play(gateway: GatewayProcess, url: str, seconds: int, *headers: str) -> str:
    """What ffmpeg has to say at the level of errors."""
    done = subprocess.run(
        ["ffmpeg", "-v", "error", *headers, "-i", url, "-t", str(seconds), "-f", "null", "-"],
        capture_output=True, text=True, timeout=seconds + 60, check=False,
    )  # fmt: skip
    return done.stderr


def channel(gateway: GatewayProcess, device: str) -> str:
    return str(gateway.get(f"/devices/{device}/channels")["items"][0]["id"])


@pytest.mark.parametrize(
    ("codecs", "seconds"),
    [
        (("h264", "pcma"), 8),
        pytest.param(("h264", "pcma"), 30, marks=pytest.mark.long),
        pytest.param(("h265", "aac"), 30, marks=pytest.mark.long),
    ],
)
def test_ffmpeg_plays_without_an_error_line(
    gateway: GatewayProcess, codecs: tuple[str, str], seconds: int
) -> None:
    device = DEVICES[codecs]
    url = gateway.live(device, channel(gateway, device))["urls"]["hls"]
    assert play(gateway, url, seconds) == ""


def test_h265_by_a_key_in_the_header_starts_an_idle_channel_and_ends_it(gateway: GatewayProcess) -> None:
    device = DEVICES["h265", "aac"]
    wait_until(lambda: gateway.get("/streams")["total"] == 0, "no stream", 60)
    url = f"http://127.0.0.1:{gateway.media_port}/live/{device}_{channel(gateway, device)}/index.m3u8"
    assert play(gateway, url, 4, "-headers", f"Authorization: Bearer {gateway.key}\r\n") == ""
    wait_until(lambda: gateway.get("/streams")["total"] == 0, "the stream ended with its last player", 60)
