"""Chromium as a WebRTC viewer: pictures counted in the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import browser
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(browser.PROGRAM is None, reason="chromium is not installed"),
]
DEVICES = {"pcma": "34020000001180000001", "aac": "34020000001180000101"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    directory: Path = tmp_path_factory.mktemp("webrtc-browser")
    with running_gateway(directory, media={"origins": ["*"]}) as gateway:
        cameras = [
            ("--id", device, "--channels", "1", "--video", "h264", "--audio", audio)
            for audio, device in DEVICES.items()
        ]
        with simulated_devices(gateway, *cameras[0]), simulated_devices(gateway, *cameras[1]):
            for device in DEVICES.values():
                gateway.wait_online(device, channels=1, limit_s=60)
            yield gateway


@pytest.mark.parametrize(("audio", "sound"), [("pcma", "audio/PCMA"), ("aac", "audio/opus")])
def test_chromium_plays_picture_and_sound(gateway: GatewayProcess, audio: str, sound: str) -> None:
    device = DEVICES[audio]
    channel = str(gateway.get(f"/devices/{device}/channels")["items"][0]["id"])
    url = gateway.live(device, channel)["urls"]["webrtc"]
    with browser.page() as page:
        page.evaluate(f"{browser.WHEP_PLAYER}({url!r})")

        def played() -> dict[str, object] | None:
            seen: dict[str, object] = page.evaluate(browser.WHEP_LOOK)
            assert seen["error"] == "", seen
            enough = int(str(seen["frames"])) >= 75 and int(str(seen["sound"])) > 8000
            return seen if enough else None

        seen = wait_until(played, "75 pictures and sound in the browser", 60)
        assert seen["codecs"] == ["video/H264", sound]
        assert str(seen["session"]).startswith("/live/")
        assert int(str(seen["width"])) > 0
