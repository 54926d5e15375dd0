"""Pictures of simulated cameras through a real gateway, read by FFmpeg."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from gb28181gw.media import native
from tests.support.field import Field, Plan, running_field
from tests.support.gateway import command, media_range, wait_until

pytestmark = pytest.mark.interop
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")
SMALL = {"channels": 6, "size": "320x240", "bitrate_kbps": 200}
PLANS = {
    "h264": Plan(rows=(), options=SMALL),
    "h265": Plan(rows=(), options={**SMALL, "video": "h265"}),
    "leaves": Plan(rows=(), options=SMALL),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def devices(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("stills")
    media = {"idle_stop_s": 60, "plane": request.param, "ports": media_range(100)}
    with running_field(directory, PLANS, media=media) as field:
        yield field


def path_of(devices: Field, name: str, number: int = 0) -> str:
    devices.device(name, channels=6)
    return f"/api/v1/devices/{devices.ids[name]}/channels/{devices.channels(name)[number]['id']}"


def seen_by_ffprobe(jpeg: bytes) -> str:
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-f", "jpeg_pipe", "-show_entries", "stream=codec_name,width,height",
         "-of", "csv=p=0", "-"],
        input=jpeg, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == b""
    return done.stdout.decode().strip()


@pytest.mark.parametrize("name", ["h264", "h265"])
def test_ses10_a_stream_started_for_a_picture_ends_at_once(devices: Field, name: str) -> None:
    path = path_of(devices, name)
    answer = devices.gateway.api.get(f"{path}/snapshot?max_age=0")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg"), answer.text
    assert seen_by_ffprobe(answer.content) == "mjpeg,320,240"
    assert "x-picture-stale" not in answer.headers
    assert datetime.fromisoformat(answer.headers["x-picture-time"]).tzinfo is not None
    stopped = devices.gateway.wait_event("stream.stopped", device_id=devices.ids[name], limit_s=10)
    assert stopped["reason"] == "idle"  # a minute by the configuration
    wait_until(
        lambda: not any(one.calls for one in devices.simulations[name].devices), "the end at the device"
    )
    again = devices.gateway.api.get(f"{path}/snapshot?max_age=60")
    assert (again.content, again.headers["x-picture-time"]) == (
        answer.content,
        answer.headers["x-picture-time"],
    )


def test_a_running_stream_is_shared_and_goes_on(devices: Field) -> None:
    path = path_of(devices, "h264", 1)
    channel = path.rpartition("/")[2]
    live = devices.gateway.live(devices.ids["h264"], channel)
    assert devices.gateway.api.get(f"{path}/snapshot?max_age=0").status_code == 200
    assert devices.gateway.get(f"/streams/{live['id']}")["state"] == "running"
    assert len(devices.gateway.seen("stream.started", channel_id=channel)) == 1
    devices.gateway.api.delete(f"/api/v1/streams/{live['id']}")


def test_all_channels_at_a_time(devices: Field) -> None:
    import concurrent.futures

    paths = [path_of(devices, name, number) for name in ("h264", "h265") for number in range(6)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda path: devices.gateway.api.get(f"{path}/snapshot?max_age=0"), paths))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert {seen_by_ffprobe(answer.content) for answer in answers} == {"mjpeg,320,240"}


def test_errors_have_their_codes(devices: Field) -> None:
    device = f"/api/v1/devices/{devices.ids['h264']}"
    unknown = devices.gateway.api.get(f"{device}/channels/34020000001329999999/snapshot")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "gb.route.channel_unknown")
    nobody = devices.gateway.api.get("/api/v1/devices/1/channels/2/snapshot")
    assert (nobody.status_code, nobody.json()["code"]) == (404, "gb.route.device_unknown")


def test_the_last_picture_of_a_device_that_left_and_the_command_line(devices: Field, tmp_path: Path) -> None:
    path = path_of(devices, "leaves")
    first = devices.gateway.api.get(f"{path}/snapshot?max_age=0")
    assert first.status_code == 200, first.text
    devices.leave("leaves")
    wait_until(lambda: not devices.gateway.get(f"/devices/{devices.ids['leaves']}")["online"], "offline")
    last = devices.gateway.api.get(f"{path}/snapshot?max_age=0")
    assert (last.status_code, last.content) == (200, first.content)
    assert last.headers["x-picture-stale"] == "gb.route.offline"
    assert last.headers["x-picture-time"] == first.headers["x-picture-time"]
    refused = devices.gateway.api.get(f"{path}/snapshot?max_age=0&stale=false")
    assert (refused.status_code, refused.json()["code"]) == (409, "gb.route.offline")
    file = tmp_path / "gate.jpg"
    done = subprocess.run(
        [*command(), "device", "snapshot", *path.split("/")[4::2], "-o", str(file), "--json",
         "--config", str(devices.gateway.config)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (told["stale"], told["size"], file.read_bytes()) == (
        "gb.route.offline",
        len(first.content),
        first.content,
    )
