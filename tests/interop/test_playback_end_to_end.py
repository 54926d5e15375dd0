"""Recordings of a simulated device through a real gateway, read by FFmpeg's demuxer and by ffprobe."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from gb28181gw.media import native
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until
from tests.support.recorded import Player, minutes_ago

pytestmark = pytest.mark.interop
DEVICE = "34020000001180000001"
TRANSPORTS = ["udp", "tcp-passive", "tcp-active"]
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")


@pytest.fixture(scope="module", params=["python", pytest.param("native", marks=BUILT)])
def recorder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    media = {"idle_stop_s": 2, "plane": request.param}
    small = ("--size", "320x240", "--bitrate", "200")
    with (
        running_gateway(tmp_path_factory.mktemp("playback"), media=media) as gateway,
        simulated_devices(gateway, "--id", DEVICE, "--channels", "1", *small),
    ):
        gateway.wait_online(DEVICE, channels=1, limit_s=60)
        yield gateway


def channel_of(gateway: GatewayProcess) -> str:
    return str(gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"])


def play(gateway: GatewayProcess, start: Any, seconds: float, **body: Any) -> dict[str, Any]:
    span = {"start": start.isoformat(), "end": (start + timedelta(seconds=seconds)).isoformat()}
    answer = gateway.post(f"/devices/{DEVICE}/channels/{channel_of(gateway)}/playback", {**span, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def control(gateway: GatewayProcess, stream: str, **body: Any) -> None:
    answer = gateway.post(f"/streams/{stream}/control", body)
    assert answer.status_code == 204, answer.text


def effect(gateway: GatewayProcess, stream: str) -> str:
    """What the stream showed of the last control, once it is known."""

    def look() -> str:
        told = str(gateway.get(f"/streams/{stream}")["history"]["control"]["effect"])
        return "" if told == "waiting" else told

    return wait_until(look, "the effect of the control")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_playback_shows_the_requested_time_before_and_after_a_seek(
    recorder: GatewayProcess, transport: str
) -> None:
    start = minutes_ago(60)
    answer = play(recorder, start, 600, transport=transport)
    assert (answer["kind"], answer["state"]) == ("playback", "running")
    with Player(answer["urls"]["http_flv"]) as player:
        first = player.next()
        assert first.key
        assert timedelta(0) <= start - first.recorded <= timedelta(seconds=2)  # the key frame at or before it
        before = player.take(1.0)
        control(recorder, answer["id"], action="seek", position_s=300)
        after = player.until(start + timedelta(seconds=300))
        assert after.key
        more = player.take(1.0)
        assert effect(recorder, answer["id"]) == "seen"
        times = [picture.seconds for picture in (first, *before, after, *more)]
        assert all(0 < later - earlier < 0.5 for earlier, later in pairwise(times))
    history = recorder.get(f"/streams/{answer['id']}")["history"]
    assert 300 <= history["position_s"] < 320
    stream = recorder.get(f"/streams/{answer['id']}")
    assert (stream["kind"], stream["transport"], stream["ssrc"][0]) == ("playback", transport, "1")
    assert recorder.api.delete(f"/api/v1/streams/{answer['id']}").status_code == 204
