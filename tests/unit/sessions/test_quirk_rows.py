"""Rows of the field quirks that are about the life of a session, on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from gb28181gw.errors import CODES, GatewayError
from gb28181gw.media.engine import EventKind, MediaTransport
from gb28181gw.outputs.source import Viewer
from gb28181gw.sessions.call import CallLimits
from tests.support.sessions import CHANNEL, DEVICE, Bench, Reply, answer_sdp

VIEWER = Viewer(client="127.0.0.1:1", kind="http_flv", grant_id="g")
UDP, PASSIVE = MediaTransport.UDP, MediaTransport.TCP_PASSIVE
SHORT = CallLimits(answer_s=0.05, first_packet_s=0.05, key_frame_s=0.05)


async def until(met: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not met():
            await asyncio.sleep(0)


async def test_inv12_487_tells_to_check_the_devices_own_id() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(status=487)]
    with pytest.raises(GatewayError) as caught:
        await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert caught.value.sip_status == 487
    assert "487 check the type digits" in caught.value.row.hint


@pytest.mark.parametrize(("advertise", "told"), [("", "127.0.0.1"), ("203.0.113.9", "203.0.113.9")])
async def test_inv22_the_address_of_the_route_is_announced_unless_another_is_configured(
    advertise: str, told: str
) -> None:
    bench = Bench(call_limits=SHORT)
    bench.sessions._context = replace(bench.context, media_advertise=advertise)
    bench.agent.replies = [Reply(media=False)]
    with pytest.raises(GatewayError) as caught:
        await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert f"c=IN IP4 {told}\r\n".encode() in bench.agent.invites[0][1]
    assert f"we announced {told}" in caught.value.detail


async def test_inv20_the_listener_stays_for_the_whole_try() -> None:
    bench = Bench()
    bench.agent.replies = [Reply(media=False, sdp=answer_sdp(setup="active"))]
    started = asyncio.create_task(bench.sessions.start_live(DEVICE, CHANNEL, transport=PASSIVE))
    await until(lambda: bench.agent.acks)
    await asyncio.sleep(0.2)  # the device takes its time; nothing may have been closed meanwhile
    assert bench.engine.open_receivers == [1]
    bench.engine.tell(1, EventKind.CONNECTED)
    bench.engine.media(1)
    assert (await started).state == "running"
    await bench.sessions.close()


async def test_ses03_a_power_cycled_camera_is_invited_again_and_its_old_dialog_ended() -> None:
    bench = Bench()
    await bench.sessions.lease_live(DEVICE, CHANNEL, VIEWER)
    bench.engine.tell(1, EventKind.SILENCE)
    await until(lambda: len(bench.agent.invites) == 2)
    await until(lambda: bench.sessions.list()[0].state == "running")
    assert bench.agent.byes == ["call-1"]
    await bench.sessions.close()


async def test_ses03_without_viewers_silence_ends_the_session_for_good() -> None:
    bench = Bench()
    await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    bench.engine.tell(1, EventKind.SILENCE)
    await bench.assert_clean()
    assert len(bench.agent.invites) == 1


@pytest.mark.parametrize(
    "reply", [Reply(status=500), Reply(silent=True), Reply(sdp=b""), Reply(media=False)], ids=str
)
async def test_ses05_ses07_net05_a_failed_start_leaves_nothing_in_progress(reply: Reply) -> None:
    bench = Bench(call_limits=SHORT)
    bench.agent.replies = [replace(reply) for _ in range(4)]
    with pytest.raises(GatewayError) as caught:
        await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    assert caught.value.code in CODES
    await bench.assert_clean()  # ports, SSRCs, receivers, dialogs
    bench.agent.replies.clear()
    assert (await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)).state == "running"
    await bench.sessions.close()


async def test_ses06_stop_returns_when_the_device_answered_the_bye() -> None:
    bench = Bench()
    view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
    await bench.sessions.stop(view.id)
    assert bench.agent.byes == ["call-1"]
    assert bench.store.records == {}
    assert "stream.stopped" in bench.names()


async def test_ses09_load_is_counted_from_what_lives() -> None:
    bench = Bench()
    for _ in range(3):
        view = await bench.sessions.start_live(DEVICE, CHANNEL, transport=UDP)
        assert (len(bench.sessions.list()), bench.ports.in_use, bench.ssrcs.in_use) == (1, 1, 1)
        await bench.sessions.stop(view.id)
        await until(lambda: not bench.sessions.list())
        assert (bench.ports.in_use, bench.ssrcs.in_use) == (0, 0)
