"""WebRTC of a real gateway: aiortc as a WHEP client, which decodes, and chromium, which plays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gb28181gw.media import native
from tests.support.gateway import (
    DEADLINE_SCALE,
    GatewayProcess,
    running_gateway,
    simulated_devices,
    wait_until,
)
from tests.support.whep import WhepClient, only_loopback, whep

pytestmark = pytest.mark.interop
DEVICES = {
    "pcma": ("34020000001180000001", "h264", "pcma"),
    "aac": ("34020000001180000101", "h264", "aac"),
    "h265": ("34020000001180000201", "h265", "pcma"),
}
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory: Path = tmp_path_factory.mktemp("webrtc")
    media = {"idle_stop_s": 2, "plane": request.param, "transcode": 1}
    with running_gateway(directory, media=media) as gateway:
        cameras = [
            ("--id", device, "--channels", "1", "--video", video, "--audio", audio)
            for device, video, audio in DEVICES.values()
        ]
        with (
            simulated_devices(gateway, *cameras[0]),
            simulated_devices(gateway, *cameras[1]),
            simulated_devices(gateway, *cameras[2]),
        ):
            for device, _, _ in DEVICES.values():
                gateway.wait_online(device, channels=1, limit_s=60)
            yield gateway


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    only_loopback(monkeypatch)


def url(gateway: GatewayProcess, name: str) -> str:
    device = DEVICES[name][0]
    channel = gateway.get(f"/devices/{device}/channels")["items"][0]["id"]
    return str(gateway.live(device, channel)["urls"]["webrtc"])


async def decoded(client: WhepClient, **wanted: int) -> None:
    """Wait until so many frames of each kind were decoded."""
    async with asyncio.timeout(40 * DEADLINE_SCALE):
        while any(client.frames[kind] < count for kind, count in wanted.items()):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("name", "sound"), [("pcma", "PCMA/8000"), ("aac", "opus/48000/2")])
async def test_aiortc_decodes_picture_and_sound(gateway: GatewayProcess, name: str, sound: str) -> None:
    async with whep(url(gateway, name)) as client:
        response = await client.play()
        assert response.status_code == 201, response.text
        audio = client.answer.partition("m=audio")[2]
        first = audio.split()[2]
        assert f"a=rtpmap:{first} {sound}" in audio
        await decoded(client, video=50, audio=50)
        assert gateway.get("/streams")["items"]
        assert await client.delete() == 200
    wait_until(lambda: gateway.get("/streams")["total"] == 0, "the stream ended with its last viewer", 60)
    ended = gateway.wait_event("viewer.ended", kind="webrtc", reason="viewer_gone")
    assert ended["bytes"] > 10_000


async def test_h265_is_made_into_h264_when_asked(gateway: GatewayProcess) -> None:
    place = url(gateway, "h265")
    async with whep(place) as client:
        response = await client.play()
        assert (response.status_code, response.json()["code"]) == (406, "gb.output.codec_not_offered")
    async with whep(f"{place}&video=h264") as client, whep(f"{place}&video=h264") as other:
        assert (await client.play()).status_code == 201
        await decoded(client, video=50, audio=50)
        assert (await other.play()).status_code == 201
        await decoded(other, video=25)
    assert len(gateway.seen("transcoding.started", codec="h264")) == 1
