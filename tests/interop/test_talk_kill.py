"""A gateway that is killed while somebody talks ends the talk at the device after its start (F-17)."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess, simulated_devices, wait_until
from tests.support.talking import tone

pytestmark = pytest.mark.interop

DEVICE = "34020000001180000001"


@pytest.mark.parametrize("way", ["broadcast", "talk"])
def test_f17_tk10_a_device_is_told_that_the_talk_is_over(tmp_path: Path, way: str) -> None:
    heard = tmp_path / "heard"
    heard.mkdir()
    said = tmp_path / "said.wav"
    with wave.open(str(said), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(tone(5.0))
    gateway = GatewayProcess(tmp_path).start()
    try:
        options = ("--id", DEVICE, "--channels", "1", "--hear-dir", str(heard))
        with simulated_devices(gateway, *options):
            gateway.wait_online(DEVICE, channels=1, limit_s=60)
            channel = gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"]
            begun = gateway.post(f"/devices/{DEVICE}/channels/{channel}/talk", {"way": way})
            assert (begun.status_code, begun.json()["way"]) == (200, way), begun.text
            sent = gateway.api.post(
                f"/api/v1/talks/{begun.json()['id']}/audio",
                content=said.read_bytes(),
                headers={"Content-Type": "audio/wav"},
            )
            assert sent.status_code == 202, sent.text
            wait_until(lambda: gateway.get(f"/talks/{begun.json()['id']}")["spoken_s"] > 1, "some sound")
            gateway.kill()
            gateway.events.clear()
            gateway.start()
            gateway.wait_event("stream.orphan_ended", 30, device_id=DEVICE, channel_id=channel)
            # The device writes what it heard when its side is over: it took the BYE.
            (wav,) = wait_until(lambda: list(heard.glob("*.wav")), "the device's end of the talk", 30)
            with wave.open(str(wav)) as file:
                assert file.getnframes() >= 8_000
            assert gateway.get("/talks")["total"] == 0
            again = gateway.post(f"/devices/{DEVICE}/channels/{channel}/talk", {"way": way})
            assert again.status_code == 200, again.text
    finally:
        gateway.stop()
