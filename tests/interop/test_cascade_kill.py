"""F-11, F-17: kill -9 of the gateway in the middle, while the platform above it watches through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess, simulated_devices, wait_until

pytestmark = pytest.mark.interop

MIDDLE, TOP = "34020100002000000001", "34020200002000000001"
NVR, CAMERA = "34020000001180000001", "34020000001320000001"
SECRET = "kill-chain-secret"


def gateway(directory: Path, own: str, **media: object) -> GatewayProcess:
    directory.mkdir()
    return GatewayProcess(
        directory, sip={"id": own, "domain": own[:10], "password": SECRET}, media={"idle_stop_s": 60, **media}
    )


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_f17_f11_the_top_ends_what_a_killed_gateway_sent_and_starts_it_again(
    tmp_path: Path, transport: str
) -> None:
    middle = gateway(tmp_path / "middle", MIDDLE)
    top = gateway(tmp_path / "top", TOP, source_timeout_s=3)
    try:
        middle.start()
        top.start()
        options = ("--server-id", MIDDLE, "--domain", MIDDLE[:10], "--id", NVR, "--channels", "1")
        with simulated_devices(middle, "--password", SECRET, *options):
            middle.wait_online(NVR, 1)
            answer = middle.post(
                "/uppers",
                {
                    "id": TOP, "domain": TOP[:10], "host": "127.0.0.1", "port": top.sip_port,
                    "transport": transport, "password": SECRET, "keepalive_s": 2,
                },
            )  # fmt: skip
            assert answer.status_code == 201, answer.text
            answer = middle.api.put(f"/api/v1/uppers/{TOP}/channels", json={"all": True})
            assert answer.status_code == 200, answer.text
            top.wait_online(MIDDLE, 1)
            before = top.live(MIDDLE, CAMERA)
            middle.kill()
            ended = top.wait_event("stream.stopped", 30, stream_id=before["id"])
            assert ended["reason"] == "silent"
            wait_until(
                lambda: top.api.get(f"/api/v1/streams/{before['id']}").status_code == 404, "it to be gone", 5
            )
            middle.events.clear()
            middle.start()
            middle.wait_event("upper.registered", 60, upper_id=TOP)
            # The BYE of the old dialog is answered 481, which ends it as well as a 200 (RFC 3261 15.1.2).
            after = top.live(MIDDLE, CAMERA)
            assert after["state"] == "running" and after["id"] != before["id"]
            wait_until(lambda: middle.get(f"/uppers/{TOP}")["streams"] == 1, "one stream, not two")
            assert top.api.delete(f"/api/v1/streams/{after['id']}").status_code == 204
            wait_until(lambda: middle.get(f"/uppers/{TOP}")["streams"] == 0, "no stream to be left")
            assert top.seen("stream.bye_unanswered") == []
    finally:
        top.stop()
        middle.stop()
