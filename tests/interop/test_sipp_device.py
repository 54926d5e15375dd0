"""A device of sipp: digest over UDP and TCP, keepalives, 300 items in 100 messages out of order with duplicates."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tests.support.gateway import PASSWORD, free_port, running_gateway
from tests.support.sipp_device import catalogue_scenario, register_scenario, run_sipp

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("sipp"), reason="sipp is not installed"),
]

DEVICE = "34020000001180000042"
SERVER = "34020000002000000001"


@pytest.mark.parametrize("transport", ["u1", "t1"], ids=["udp", "tcp"])
def test_sipp_registers_keeps_alive_and_delivers_300_items(tmp_path: Path, transport: str) -> None:
    with running_gateway(tmp_path) as gateway:
        done = run_sipp(
            tmp_path,
            gateway.sip_server,
            transport=transport,
            register=register_scenario(SERVER, DEVICE, PASSWORD, keepalives=40),
            catalogue=catalogue_scenario(SERVER, DEVICE, items=300, per_message=3, seed=7),
            local_port=free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM),
        )
        errors = tmp_path / "sipp-errors.log"
        assert done.returncode == 0, errors.read_text() if errors.exists() else done.stdout[-2000:]
        gateway.wait_event("catalog.complete", device_id=DEVICE)
        device = gateway.get(f"/devices/{DEVICE}")
        assert (device["channel_count"], device["online"]) == (300, True)
        assert device["transport"] == {"u1": "udp", "t1": "tcp"}[transport]
        progress = gateway.get(f"/devices/{DEVICE}/catalog")
        assert (progress["state"], progress["received"], progress["expected"]) == ("complete", 300, 300)
        names = {item["name"] for item in gateway.get(f"/devices/{DEVICE}/channels?size=500")["items"]}
        assert names == {f"Camera {number}" for number in range(1, 301)}
