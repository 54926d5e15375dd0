"""Snapshots of a real gateway: of idle channels, many at once, and of a device that has gone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import av
import httpx
import pytest

from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = pytest.mark.interop
DEVICES = {"h264": "34020000001180000001", "h265": "34020000001180000101"}
CHANNELS = 4


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory: Path = tmp_path_factory.mktemp("snapshot")
    with running_gateway(directory, media={"idle_stop_s": 1}, sip={"keepalive_s": 5}) as gateway:
        yield gateway


def snapshot(gateway: GatewayProcess, device: str, channel: str) -> httpx.Response:
    return gateway.api.get(f"/api/v1/devices/{device}/channels/{channel}/snapshot")


def size_of(jpeg: bytes) -> tuple[int, int]:
    with av.open(io.BytesIO(jpeg), format="mjpeg") as source:
        frame = next(source.decode(video=0))
        return frame.width, frame.height


@pytest.mark.parametrize("video", list(DEVICES))
def test_idle_channels_at_once_and_the_last_picture_of_a_device_that_has_gone(
    gateway: GatewayProcess, video: str
) -> None:
    device = DEVICES[video]
    with simulated_devices(gateway, "--id", device, "--channels", str(CHANNELS), "--video", video):
        gateway.wait_online(device, channels=CHANNELS, limit_s=60)
        channels = [str(item["id"]) for item in gateway.get(f"/devices/{device}/channels")["items"]]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda channel: snapshot(gateway, device, channel), channels * 2))
        for answer in answers:
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "image/jpeg"
            width, height = size_of(answer.content)
            assert width > 100
            assert height > 100
        assert answers[0].content == answers[CHANNELS].content, "one picture for those who ask at once"
    taken = datetime.fromisoformat(snapshot(gateway, device, channels[0]).headers["x-picture-time"])

    def stale() -> httpx.Response | None:
        answer = snapshot(gateway, device, channels[0])
        return answer if "x-picture-stale" in answer.headers else None

    answer = wait_until(stale, "a picture of a device that cannot be asked", 60)
    assert answer.status_code == 200
    assert datetime.fromisoformat(answer.headers["x-picture-time"]) >= taken
