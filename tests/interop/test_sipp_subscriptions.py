"""A device of sipp that grants a subscription, notifies an alarm in its dialog and ends it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tests.support.gateway import PASSWORD, free_port, running_gateway
from tests.support.sipp_device import alarm_scenario, register_scenario, run_sipp

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("sipp"), reason="sipp is not installed"),
]

DEVICE = "34020000001180000043"
SERVER = "34020000002000000001"
ALARM = (
    f"<Notify><CmdType>Alarm</CmdType><SN>9</SN><DeviceID>{DEVICE}</DeviceID><AlarmPriority>1</AlarmPriority>"
    "<AlarmMethod>2</AlarmMethod><AlarmTime>2024-05-01T08:30:00</AlarmTime></Notify>\n"
)


@pytest.mark.parametrize("transport", ["u1", "t1"], ids=["udp", "tcp"])
def test_r117_sipp_is_subscribed_and_its_notify_belongs_to_the_dialog(tmp_path: Path, transport: str) -> None:
    with running_gateway(tmp_path, sip={"subscribe": ["alarm"]}) as gateway:
        done = run_sipp(
            tmp_path,
            gateway.sip_server,
            transport=transport,
            register=register_scenario(SERVER, DEVICE, PASSWORD, keepalives=20),
            catalogue=(alarm_scenario(SERVER, DEVICE, ALARM), {}),
            local_port=free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM),
        )
        errors = tmp_path / "sipp-errors.log"
        assert done.returncode == 0, errors.read_text() if errors.exists() else done.stdout[-2000:]
        started = gateway.wait_event("subscription.started", device_id=DEVICE)
        assert (started["kind"], started["expires_s"]) == ("alarm", 90)
        ended = gateway.wait_event("subscription.ended", device_id=DEVICE)
        assert (ended["kind"], ended["reason"]) == ("alarm", "giveup")
        (alarm,) = gateway.get("/alarms")["items"]
        assert (alarm["device_id"], alarm["priority"], alarm["method"]) == (DEVICE, 1, 2)
        (view,) = gateway.get(f"/devices/{DEVICE}/subscriptions")["items"]
        assert (view["state"], view["reason"]) == ("failed", "terminated")
        # The first may come together with the 200, before there is a dialog to count it in (RFC 6665 4.1.2.4).
        assert view["notifies"] in (1, 2)
        assert "notify.dialog_differs" not in gateway.get(f"/devices/{DEVICE}")["quirks"]
