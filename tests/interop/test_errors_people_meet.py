"""Each error that a person meets gives a sentence that says what to do: on the API, in the log, on the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import PASSWORD, GatewayProcess, command, running_gateway, simulated_devices

pytestmark = pytest.mark.interop

DEVICE = "34020000001180000001"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path) as gateway:
        yield gateway


def problem(gateway: GatewayProcess, device: str, **body: Any) -> dict[str, Any]:
    channel = gateway.get(f"/devices/{device}/channels")["items"][0]["id"]
    answer = gateway.post(f"/devices/{device}/channels/{channel}/live", body)
    assert answer.headers["content-type"].startswith("application/problem+json")
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status_code
    assert len(found["detail"].split()) > 8
    failed = gateway.wait_event("stream.failed", device_id=device)
    assert failed["reason"] == found["code"].rsplit(".", 1)[1]
    return found


def test_wrong_password(gateway: GatewayProcess) -> None:
    with simulated_devices(gateway, "--id", DEVICE, "--password", "falsch-falsch"):
        refused = gateway.wait_event("device.register_refused", device_id=DEVICE)
        assert refused["reason"] == "wrong_password"
        assert "password" in refused["hint" if "hint" in refused else "detail"]
    assert "falsch" not in json.dumps(gateway.events)
    assert PASSWORD not in json.dumps(gateway.events)
    assert gateway.api.get(f"/api/v1/devices/{DEVICE}").status_code == 404


def test_offline_device(gateway: GatewayProcess) -> None:
    with simulated_devices(gateway, "--id", DEVICE, "--channels", "1"):
        gateway.wait_online(DEVICE, channels=1, limit_s=60)
        channel = gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"]
    gateway.wait_event("device.offline", device_id=DEVICE)
    answer = gateway.post(f"/devices/{DEVICE}/channels/{channel}/live")
    assert (answer.status_code, answer.json()["code"]) == (409, "gb.route.offline")
    assert "keepalive" in answer.json()["detail"]


def test_device_answers_486(gateway: GatewayProcess) -> None:
    with simulated_devices(gateway, "--id", DEVICE, "--channels", "1", "--quirk", "INV-11"):
        gateway.wait_online(DEVICE, channels=1, limit_s=60)
        found = problem(gateway, DEVICE)
    assert (found["status"], found["code"], found["stage"]) == (502, "gb.sip.rejected", "sip")
    assert found["sip_status"] == 486


def test_no_media_connection_is_made(gateway: GatewayProcess) -> None:
    with simulated_devices(gateway, "--id", DEVICE, "--channels", "1", "--quirk", "INV-21"):
        gateway.wait_online(DEVICE, channels=1, limit_s=60)
        found = problem(gateway, DEVICE, transport="tcp-passive")
    assert (found["status"], found["code"], found["stage"]) == (504, "gb.media.tcp_not_connected", "media")
    assert "127.0.0.1" in found["detail"]


def test_no_rtp_arrives(gateway: GatewayProcess) -> None:
    with simulated_devices(gateway, "--id", DEVICE, "--channels", "1", "--rtp-loss", "0.999999"):
        gateway.wait_online(DEVICE, channels=1, limit_s=60)
        found = problem(gateway, DEVICE, transport="udp")
    assert (found["status"], found["code"], found["stage"]) == (504, "gb.media.no_rtp", "media")
    assert "127.0.0.1" in found["detail"]


def test_no_answer_to_invite(gateway: GatewayProcess) -> None:
    with simulated_devices(gateway, "--id", DEVICE, "--channels", "1", "--quirk", "F-05-SILENT"):
        gateway.wait_online(DEVICE, channels=1, limit_s=60)
        found = problem(gateway, DEVICE, transport="udp")
    assert (found["status"], found["code"]) == (504, "gb.sip.no_answer")


def serve(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(), "serve", "--config", str(config)], capture_output=True, text=True, timeout=30
    )


def test_port_in_use(gateway: GatewayProcess, tmp_path: Path) -> None:
    """A second gateway with its own data and the first one's ports."""
    other = tmp_path / "other.toml"
    other.write_text(gateway.config.read_text().replace(str(tmp_path / "data"), str(tmp_path / "data2")))
    done = serve(other)
    assert done.returncode == 1
    line = next(json.loads(line) for line in done.stderr.splitlines() if "gateway.start_failed" in line)
    assert line["reason"] == "port_in_use"
    assert str(gateway.media_port) in line["detail"]
    assert "Stop the program that uses it" in line["hint"]


def test_bad_configuration(tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text('[sip]\nlisten = "5060"\nkeepalive = 60\n[media]\nports = "9-8"\n')
    done = serve(config)
    assert done.returncode == 1
    for sentence in (
        "sip.listen",
        "sip.keepalive is not a known key. Did you mean sip.keepalive_s?",
        "media.ports",
    ):
        assert sentence in done.stderr
    checked = subprocess.run(
        [*command(), "check", "--config", str(config)], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 1
    assert "keepalive_s" in checked.stdout + checked.stderr
