"""What a browser makes of the streams: chromium plays fragmented MP4 through MSE."""

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
DEVICE = "34020000001180000001"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    media = {"origins": ["*"], "listen": "127.0.0.1"}
    directory: Path = tmp_path_factory.mktemp("browser")
    with running_gateway(directory, media=media) as gateway:
        camera = ("--id", DEVICE, "--channels", "1", "--video", "h264", "--audio", "pcma")
        with simulated_devices(gateway, *camera):
            gateway.wait_online(DEVICE, channels=1, limit_s=60)
            yield gateway


@pytest.mark.parametrize("form", ["ws_fmp4", "http_fmp4"])
def test_chromium_plays_fmp4_with_sound(gateway: GatewayProcess, form: str) -> None:
    channel = str(gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"])
    url = gateway.live(DEVICE, channel)["urls"][form]
    with browser.page() as page:
        page.evaluate(f"{browser.MSE_PLAYER}({url!r})")

        def played() -> dict[str, object] | None:
            seen: dict[str, object] = page.evaluate(browser.MSE_LOOK)
            assert seen["error"] == "", seen
            return seen if int(str(seen["frames"])) >= 75 and int(str(seen["sound"])) > 0 else None

        seen = wait_until(played, "75 pictures and sound in the browser", 60)
        assert str(seen["codecs"]).endswith(",mp4a.40.2")
        assert int(str(seen["width"])) > 0
