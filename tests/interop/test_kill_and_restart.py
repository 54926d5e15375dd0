"""F-17: kill -9 while a channel plays, and a start on the same ports."""

from __future__ import annotations

import socket
import time
from datetime import datetime, timedelta
from pathlib import Path

import av
import pytest

from gb28181gw.media.engine import Feature
from gb28181gw.media.native import NativePlane
from tests.support.gateway import DEADLINE_SCALE, GatewayProcess, simulated_devices, wait_until
from tests.support.plane import free_port_pair

pytestmark = pytest.mark.interop

DEVICE = "34020000001180000001"


def picture(url: str) -> str:
    with av.open(url, timeout=20) as source:
        next(source.decode(source.streams.video[0]))
        return str(source.streams.video[0].codec_context.name)


@pytest.mark.parametrize(
    ("transport", "shared"), [("udp", False), ("tcp-passive", False), ("udp", True), ("tcp-passive", True)]
)
def test_f17_devices_stay_online_and_play_at_once(tmp_path: Path, transport: str, shared: bool) -> None:
    media: dict[str, object] = {"idle_stop_s": 3}
    if shared:
        able = Feature.SHARED_PORT in NativePlane.features
        media |= {"shared_port": free_port_pair(), "plane": "auto" if able else "python"}
    gateway = GatewayProcess(tmp_path, media=media).start()
    try:
        options = ("--id", DEVICE, "--channels", "2", "--keepalive", "5")
        with simulated_devices(gateway, *options):
            gateway.wait_online(DEVICE, channels=2, limit_s=60)
            channel = gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"]
            before = gateway.live(DEVICE, channel, transport=transport)
            ssrc = int(gateway.get(f"/streams/{before['id']}")["ssrc"])
            registered = gateway.get(f"/devices/{DEVICE}")["registered_at"]
            gateway.kill()
            gateway.events.clear()
            gateway.start()
            device = gateway.get(f"/devices/{DEVICE}")
            assert device["online"] is True
            moved = datetime.fromisoformat(device["registered_at"]) - datetime.fromisoformat(registered)
            assert abs(moved) < timedelta(milliseconds=10)
            assert device["channel_count"] == 2
            after = gateway.live(DEVICE, channel, transport=transport)
            assert after["id"] != before["id"]
            assert picture(after["urls"]["http_flv"]) == "h264"
            assert gateway.seen("device.registered") == []
            # Within 30 s nothing sends that the gateway does not know: every dialog is adopted or ended.
            settled = wait_until(
                lambda: gateway.seen("stream.adopted") or gateway.seen("stream.orphan_ended"),
                "the old dialog",
                30,
            )
            if transport == "udp":
                assert settled[0]["event"] == "stream.adopted"
            wait_until(lambda: gateway.get("/streams")["total"] == 0, "the streams to end", 30)
            assert_silent(ssrc)
    finally:
        gateway.stop()


def assert_silent(ssrc: int) -> None:
    """Nobody on this host still sends RTP with the SSRC: looked at by the kernel's own counters of UDP sockets."""
    deadline = time.monotonic() + 30 * DEADLINE_SCALE
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3)) as tap:
        tap.bind(("lo", 0))
        tap.settimeout(0.5)
        quiet_since = time.monotonic()
        pattern = ssrc.to_bytes(4, "big")
        while time.monotonic() - quiet_since < 2.0:
            assert time.monotonic() < deadline, f"RTP with SSRC {ssrc} still arrives"
            try:
                packet = tap.recv(2048)
            except TimeoutError:
                continue
            if len(packet) > 60 and packet[42 + 8 : 42 + 12] == pattern:
                quiet_since = time.monotonic()


def test_f17_a_hundred_devices_are_back_at_once(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path).start()
    try:
        with simulated_devices(gateway, "--id", DEVICE, "--count", "100", "--channels", "2"):
            wait_until(lambda: len(gateway.get("/devices?size=500")["items"]) == 100, "100 devices", 60)
            wait_until(lambda: gateway.get("/channels?size=1")["total"] == 200, "200 channels", 60)
            gateway.kill()
            gateway.events.clear()
            gateway.start()
            items = gateway.get("/devices?size=500")["items"]
            assert [one["online"] for one in items] == [True] * 100
            assert sum(one["channel_count"] for one in items) == 200
            assert gateway.seen("device.registered") == []
    finally:
        gateway.stop()
