"""Twenty consumers of nine kinds on one channel: one call to the device, one stream, and each sees a picture."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest
from websockets.sync.client import connect

from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = pytest.mark.interop
DEVICE = "34020000001180000001"
KINDS = (
    "http_flv",
    "http_fmp4",
    "http_ts",
    "ws_flv",
    "ws_fmp4",
    "ws_ts",
    "hls",
    "rtsp",
    "rtsp_udp",
    "snapshot",
)
PICTURES = 40


@pytest.fixture(scope="module", params=["python", "native"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory: Path = tmp_path_factory.mktemp("every")
    with running_gateway(directory, media={"idle_stop_s": 2, "plane": request.param}) as gateway:
        if gateway.wait_event("gateway.ready")["plane"] != request.param:
            pytest.skip("the native plane was not built")
        camera = ("--id", DEVICE, "--channels", "1", "--video", "h264", "--audio", "pcma")
        with simulated_devices(gateway, *camera):
            gateway.wait_online(DEVICE, channels=1, limit_s=60)
            yield gateway


def pictures_of(source: str | io.BytesIO, **options: str) -> int:
    """How many a foreign decoder makes, up to `PICTURES`."""
    count = 0
    with av.open(source, options=options, timeout=30) as container:
        for _ in container.decode(video=0):
            count += 1
            if count == PICTURES:
                break
    return count


def watch(gateway: GatewayProcess, channel: str, kind: str) -> int:
    urls = gateway.live(DEVICE, channel)["urls"]
    if kind == "snapshot":
        answer = gateway.api.get(f"/api/v1/devices/{DEVICE}/channels/{channel}/snapshot")
        return PICTURES if answer.status_code == 200 else 0
    if kind.startswith("rtsp"):
        return pictures_of(urls["rtsp"], rtsp_transport="udp" if kind == "rtsp_udp" else "tcp")
    if not kind.startswith("ws"):
        return pictures_of(urls[kind])
    data = io.BytesIO()
    with connect(urls[kind], max_size=None) as socket:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            message = socket.recv(timeout=20)
            assert isinstance(message, bytes)
            data.write(message)
    data.seek(0)
    return pictures_of(data)


def test_twenty_consumers_cause_one_call(gateway: GatewayProcess) -> None:
    channel = str(gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"])
    gateway.live(DEVICE, channel)
    with ThreadPoolExecutor(20) as pool:
        watching = [pool.submit(watch, gateway, channel, kind) for kind in KINDS * 2]
        wait_until(
            lambda: gateway.get("/streams")["items"][0]["consumers"] >= 16, "the consumers on the stream", 30
        )
        assert gateway.get("/streams")["total"] == 1
        seen = dict(zip(KINDS * 2, (done.result(timeout=120) for done in watching), strict=True))
    assert all(count >= PICTURES for count in seen.values()), seen
    started = [event for event in gateway.events if event["event"] == "stream.started"]
    assert len(started) == 1
    wait_until(lambda: gateway.get("/streams")["total"] == 0, "the stream ended with its last consumer", 60)
