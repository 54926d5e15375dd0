"""F-11, F-17: kill -9 of the gateway in the middle, while the platform above it watches through it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess, simulated_devices, wait_until
from tests.support.sim_platform import udp_sink
from tests.support.upper import LOCAL_ID, cascade

pytestmark = pytest.mark.interop

MIDDLE, TOP = "34020100002000000001", "34020200002000000001"
NVR, CAMERA, SECOND = "34020000001180000001", "34020000001320000001", "34020000001320000002"
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


@pytest.mark.long
async def test_f17_calls_of_an_upper_from_before_a_kill_are_481_and_new_ones_are_served(
    tmp_path: Path,
) -> None:
    async with cascade(tmp_path, channels=2, media={"idle_stop_s": 1}) as both, udp_sink() as sink:
        gateway, platform = both.gateway, both.platform
        await both.add_upper()
        await both.share(all=True)
        old = platform.invite(LOCAL_ID, CAMERA, platform.offer(sink.port), call_id="old")
        answer = await platform.final("INVITE", "old", 30)
        platform.in_dialog("ACK", LOCAL_ID, old, answer)
        now = int(time.time())
        span = f"t={now - 1800} {now - 1200}".encode()
        record = platform.offer(sink.port).replace(b"s=Play", b"s=Playback").replace(b"t=0 0", span)
        kept = platform.invite(LOCAL_ID, SECOND, record, call_id="record")
        kept_answer = await platform.final("INVITE", "record", 30)
        platform.in_dialog("ACK", LOCAL_ID, kept, kept_answer)
        await platform.until(lambda: len(sink.packets) > 50, 20)
        await asyncio.to_thread(gateway.kill)
        platform.registered.clear()
        gateway.events.clear()
        await asyncio.to_thread(gateway.start)
        # The device is told that its recording is over; the live stream goes on for whoever asks, or ends.
        ended = await asyncio.to_thread(gateway.wait_event, "stream.orphan_ended", 30, channel_id=SECOND)
        assert ended["device_id"] == NVR
        await platform.until(lambda: LOCAL_ID in platform.registered, 30)
        await both.registered()
        for call_id, invite, final in (("old", old, answer), ("record", kept, kept_answer)):
            platform.in_dialog("INFO", LOCAL_ID, invite, final, cseq=2)
            platform.in_dialog("BYE", LOCAL_ID, invite, final, cseq=3)
            assert (await platform.final("INFO", call_id)).status == 481
            assert (await platform.final("BYE", call_id)).status == 481
        sink.packets.clear()
        new = platform.invite(LOCAL_ID, CAMERA, platform.offer(sink.port), call_id="new")
        answer = await platform.final("INVITE", "new", 30)
        assert answer.status == 200
        platform.in_dialog("ACK", LOCAL_ID, new, answer)
        await platform.until(lambda: len(sink.packets) > 50, 20)
        platform.in_dialog("BYE", LOCAL_ID, new, answer)
        assert (await platform.final("BYE", "new")).status == 200
        await asyncio.to_thread(
            wait_until, lambda: gateway.get("/streams")["total"] == 0, "no stream to be left"
        )
        assert (await both.upper())["streams"] == 0
