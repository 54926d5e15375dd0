"""One media port for everything (`[media] shared_port`): devices play over it, several at once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gb28181gw.media.engine import Feature
from gb28181gw.media.native import NativePlane
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices
from tests.support.plane import free_port_pair

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed"),
]

NVR = "34020000001180000001"
CAMERA = "34020000001180000101"
ABLE = pytest.mark.skipif(
    Feature.SHARED_PORT not in NativePlane.features, reason="the native plane has no shared_port"
)


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=ABLE)],
)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    media = {"idle_stop_s": 2, "plane": request.param, "shared_port": free_port_pair()}
    with (
        running_gateway(tmp_path_factory.mktemp("shared"), media=media) as gateway,
        simulated_devices(gateway, "--id", NVR, "--channels", "2", "--audio", "pcma"),
        simulated_devices(gateway, "--id", CAMERA, "--channels", "1"),
    ):
        gateway.wait_online(NVR, channels=2, limit_s=60)
        gateway.wait_online(CAMERA, channels=1, limit_s=60)
        yield gateway


def channels(gateway: GatewayProcess) -> list[tuple[str, str]]:
    return [
        (device, str(channel["id"]))
        for device in (NVR, CAMERA)
        for channel in gateway.get(f"/devices/{device}/channels")["items"]
    ]


def picture(url: str) -> dict[str, Any]:
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-rw_timeout", "15000000", url],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {stream["codec_type"]: stream for stream in json.loads(done.stdout)["streams"]}


@pytest.mark.parametrize("transport", ["udp", "tcp-passive", "tcp-active"])
def test_net04_three_channels_play_at_once_over_one_port(gateway: GatewayProcess, transport: str) -> None:
    wanted = channels(gateway)
    assert len(wanted) == 3
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda pair: gateway.live(*pair, transport=transport), wanted))
        seen = list(pool.map(lambda answer: picture(answer["urls"]["http_flv"]), answers))
    assert all(facts["video"]["codec_name"] == "h264" for facts in seen)
    streams = [gateway.get(f"/streams/{answer['id']}") for answer in answers]
    assert [stream["transport"] for stream in streams] == [transport] * 3
    assert len({stream["ssrc"] for stream in streams}) == 3
    assert all(stream["rtp"]["lost"] == 0 and stream["rtp"]["received"] > 50 for stream in streams)
    metrics = gateway.api.get("/metrics").text
    assert re.search(r'^gb28181gw_media_ports\{state="in_use"\} 0(\.0)?$', metrics, re.M)
    for answer in answers:
        assert gateway.api.delete(f"/api/v1/streams/{answer['id']}").status_code == 204
