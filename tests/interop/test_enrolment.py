"""`enrolment = "approve"`, the default: a new device waits, and one call of the API lets it in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import command, running_gateway, simulated_devices, wait_until

pytestmark = pytest.mark.interop

DEVICE = "34020000001180000001"


def test_s01_a_new_device_waits_until_it_is_approved(tmp_path: Path) -> None:
    with (
        running_gateway(tmp_path, sip={"enrolment": "approve"}) as gateway,
        simulated_devices(gateway, "--id", DEVICE, "--channels", "2", "--keepalive", "1"),
    ):
        waiting = wait_until(
            lambda: (
                gateway.api.get(f"/api/v1/devices/{DEVICE}").status_code == 200
                and gateway.get(f"/devices/{DEVICE}")
            ),
            "the device to wait for approval",
        )
        assert waiting["approved"] is False
        assert gateway.seen("device.pending", device_id=DEVICE)
        viewer_key = subprocess.run(
            [
                *command(),
                "key",
                "create",
                "--name",
                "guest",
                "--role",
                "viewer",
                "--config",
                str(gateway.config),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        with httpx.Client(
            base_url=f"http://127.0.0.1:{gateway.api_port}", headers={"Authorization": f"Bearer {viewer_key}"}
        ) as viewer:
            assert viewer.get("/api/v1/devices").json() == {"items": [], "total": 0}
            assert viewer.get(f"/api/v1/devices/{DEVICE}").status_code == 404
            channel = "34020000001320000001"
            refused = gateway.post(f"/devices/{DEVICE}/channels/{channel}/live")
            assert refused.json()["code"] in ("gb.route.not_approved", "gb.route.channel_unknown")
            # Keepalives are answered and nothing is asked: the simulator would have told its queries.
            assert gateway.seen("catalog.started") == []
            assert gateway.post(f"/devices/{DEVICE}/approve").status_code in (200, 204)
            gateway.wait_online(DEVICE, channels=2)
            seen = viewer.get("/api/v1/devices").json()["items"]
            assert [(one["id"], one["approved"], one["online"]) for one in seen] == [(DEVICE, True, True)]
            assert viewer.post(f"/api/v1/devices/{DEVICE}/approve").status_code == 403
        assert gateway.live(DEVICE, channel)["state"] == "running"
