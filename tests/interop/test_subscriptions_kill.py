"""F-17: subscriptions, and a device that takes pictures, with real processes and kill -9 between them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = pytest.mark.interop

DEVICE = "34020000001180000001"
KINDS = {"catalog", "alarm", "position"}


def told(gateway: GatewayProcess, what: str) -> list[dict[str, object]]:
    """What the simulator said so far."""
    (log,) = gateway.directory.glob("simulator-*.log")
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [row for row in rows if what in row.values()]


def notified(gateway: GatewayProcess) -> dict[str, int]:
    """Notifications by kind, of subscriptions that are active."""
    items = gateway.get(f"/devices/{DEVICE}/subscriptions")["items"]
    return {one["kind"]: one["notifies"] for one in items if one["state"] == "active"}


def test_f17_subscriptions_go_on_in_their_dialogs_after_kill_9(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path).start()
    try:
        with simulated_devices(
            gateway, "--id", DEVICE, "--change", "0.5", "--alarm", "0.5", "--position", "1"
        ):
            gateway.wait_online(DEVICE, channels=1, limit_s=60)
            wait_until(
                lambda: set(notified(gateway)) == KINDS and all(notified(gateway).values()), "NOTIFY", 30
            )
            gateway.kill()
            gateway.events.clear()
            gateway.start()
            wait_until(
                lambda: set(notified(gateway)) == KINDS and all(notified(gateway).values()), "NOTIFY", 30
            )
            assert gateway.seen("subscription.started") == []
            assert {row["command"] for row in told(gateway, "subscribed")} == {
                "Catalog", "Alarm", "MobilePosition",
            }  # fmt: skip
            assert len(told(gateway, "subscribed")) == 3
            assert "notify.unasked" not in gateway.get(f"/devices/{DEVICE}")["quirks"]
    finally:
        gateway.stop()


def test_r139_a_picture_of_the_device_over_the_media_listener(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway, simulated_devices(gateway, "--id", DEVICE):
        gateway.wait_online(DEVICE, channels=1, limit_s=60)
        channel = gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"]
        answer = gateway.api.post(f"/api/v1/devices/{DEVICE}/channels/{channel}/snapshots", json={"count": 2})
        assert answer.status_code == 202, answer.text
        order = answer.json()["id"]
        wait_until(
            lambda: gateway.get(f"/snapshots/orders/{order}")["state"] == "complete", "two pictures", 30
        )
        (first, second) = gateway.get(f"/snapshots?order_id={order}")["items"]
        for picture in (first, second):
            image = gateway.api.get(picture["path"])
            assert image.headers["content-type"] == "image/jpeg" and len(image.content) == picture["size"]
        files = list((gateway.directory / "data" / "snapshots").glob("*.jpg"))
        assert {file.stem for file in files} == {first["id"], second["id"]}
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)
