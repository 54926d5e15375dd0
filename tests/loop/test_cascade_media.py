"""An upper platform plays: UDP, TCP both ways, and every end of a call. A real gateway, a scripted platform."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gb28181gw.media.native import is_built
from gb28181gw.sip.message import Response
from tests.support.sim_platform import deframe, ssrc_of, tcp_sink, udp_sink
from tests.support.upper import LOCAL_ID, NVR, Cascade, cascade

CAMERA = "34020000001320000001"
PLANE = {"media": {"plane": "python"}}
PLANES = pytest.mark.parametrize(
    "plane", ["python", pytest.param("native", marks=pytest.mark.skipif(not is_built(), reason="not built"))]
)


async def answered(both: Cascade, call_id: str = "call1") -> Response:
    """The final response to an INVITE."""

    def finals() -> list[Response]:
        return [
            response
            for response, _ in both.platform.responses
            if response.call_id == call_id and response.cseq.method == "INVITE" and response.status >= 200
        ]

    await both.platform.until(finals, 30)
    return finals()[0]


async def gone(both: Cascade, reason: str) -> None:
    """The call has ended for that reason and nothing is left of it."""
    await asyncio.to_thread(both.gateway.wait_event, "upper.stream_stopped", 20, reason=reason)
    for _ in range(200):
        if (await both.upper())["streams"] == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("a stream is left")


@PLANES
async def test_cs13_plays_over_udp_with_the_ssrc_of_the_offer(tmp_path: Path, plane: str) -> None:
    async with cascade(tmp_path, media={"plane": plane}) as both, udp_sink() as sink:
        platform = both.platform
        await both.add_upper()
        await both.share(items=[{"device_id": NVR, "channel_id": CAMERA}])
        invite = platform.invite(LOCAL_ID, CAMERA, platform.offer(sink.port, ssrc="0200004321"))
        final = await answered(both)
        assert final.status == 200 and b"y=0200004321" in final.body and b"a=sendonly" in final.body
        assert final.headers.get("X-RoutePath") == LOCAL_ID
        assert sink.packets == []
        platform.in_dialog("ACK", LOCAL_ID, invite, final)
        await platform.until(lambda: len(sink.packets) > 50, 20)
        assert {ssrc_of(packet) for packet in sink.packets} == {200004321}
        assert sink.program_stream().startswith(b"\x00\x00\x01\xba")
        assert (await both.upper())["streams"] == 1
        platform.in_dialog("BYE", LOCAL_ID, invite, final)
        await gone(both, "upper_bye")


@PLANES
@pytest.mark.parametrize("setup", ["passive", "active"])
async def test_cs13_plays_over_tcp_both_ways(tmp_path: Path, setup: str, plane: str) -> None:
    async with cascade(tmp_path, media={"plane": plane}) as both:
        platform = both.platform
        await both.add_upper()
        await both.share(all=True)
        if setup == "passive":
            async with tcp_sink() as sink:
                offer = platform.offer(sink.port, transport="tcp-passive")
                invite = platform.invite(LOCAL_ID, CAMERA, offer)
                final = await answered(both)
                assert b"a=setup:active" in final.body
                platform.in_dialog("ACK", LOCAL_ID, invite, final)
                await platform.until(lambda: len(deframe(bytes(sink.stream))) > 50, 20)
                platform.in_dialog("BYE", LOCAL_ID, invite, final)
                await gone(both, "upper_bye")
            return
        invite = platform.invite(LOCAL_ID, CAMERA, platform.offer(9, transport="tcp-active"))
        final = await answered(both)
        assert b"a=setup:passive" in final.body
        port = int(final.body.split(b"m=video ")[1].split()[0])
        platform.in_dialog("ACK", LOCAL_ID, invite, final)
        async with tcp_sink(connect_to=port) as sink:
            await platform.until(lambda: len(deframe(bytes(sink.stream))) > 50, 20)
            packets = deframe(bytes(sink.stream))
            assert {ssrc_of(packet) for packet in packets} == {200001234}
        # The upper's connection is gone: we end the dialog.
        await platform.until(lambda: any(seen.request.method == "BYE" for seen in platform.seen), 20)


async def test_inv05_an_offer_without_ssrc_gets_one_of_ours(tmp_path: Path) -> None:
    async with cascade(tmp_path, **PLANE) as both, udp_sink() as sink:
        platform = both.platform
        await both.add_upper()
        await both.share(all=True)
        offer = platform.offer(sink.port).replace(b"y=0200001234\r\n", b"y=0000000000\r\n")
        invite = platform.invite(LOCAL_ID, CAMERA, offer)
        final = await answered(both)
        ssrc = int(final.body.split(b"y=")[1].split()[0])
        assert ssrc != 0 and b"y=0" in final.body
        platform.in_dialog("ACK", LOCAL_ID, invite, final)
        await platform.until(lambda: len(sink.packets) > 5, 20)
        assert {ssrc_of(packet) for packet in sink.packets} == {ssrc}


async def test_s11_s21_media_to_a_foreign_address_and_unshared_channels_are_refused(tmp_path: Path) -> None:
    async with cascade(tmp_path, **PLANE) as both:
        platform = both.platform
        await both.add_upper()
        await both.share(items=[{"device_id": NVR, "channel_id": CAMERA}])
        victim = platform.offer(30000).replace(b"c=IN IP4 127.0.0.1", b"c=IN IP4 127.0.0.9")
        platform.invite(LOCAL_ID, CAMERA, victim, call_id="a")
        assert (await answered(both, "a")).status == 403
        platform.invite(LOCAL_ID, "34020000001320000002", platform.offer(30000), call_id="b")
        assert (await answered(both, "b")).status == 404
        assert (await asyncio.to_thread(both.gateway.get, "/streams"))["total"] == 0


async def test_s21_what_is_taken_back_ends_and_loss_of_the_upper_ends_media(tmp_path: Path) -> None:
    async with cascade(tmp_path, **PLANE) as both, udp_sink() as sink:
        platform = both.platform
        await both.add_upper()
        await both.share(all=True)
        for call_id, cause in (("one", "unshared"), ("two", "upper_lost")):
            invite = platform.invite(LOCAL_ID, CAMERA, platform.offer(sink.port), call_id=call_id)
            final = await answered(both, call_id)
            assert final.status == 200
            platform.in_dialog("ACK", LOCAL_ID, invite, final)
            sink.packets.clear()
            await platform.until(lambda: len(sink.packets) > 5, 20)
            if cause == "unshared":
                await both.share(items=[])
                await platform.until(lambda: any(seen.request.method == "BYE" for seen in platform.seen))
                await both.share(all=True)
            else:
                platform.answer_keepalives = False
            await asyncio.to_thread(both.gateway.wait_event, "upper.stream_stopped", 60, reason=cause)


async def test_i1_a_cancelled_invite_and_one_without_ack_leave_nothing(tmp_path: Path) -> None:
    async with cascade(tmp_path, **PLANE) as both, udp_sink() as sink:
        platform = both.platform
        await both.add_upper()
        await both.share(all=True)
        invite = platform.invite(LOCAL_ID, CAMERA, platform.offer(sink.port), call_id="c")
        platform.cancel(LOCAL_ID, invite)
        assert (await answered(both, "c")).status in (200, 487)
        for _ in range(200):
            if (await both.upper())["streams"] == 0:
                break
            await asyncio.sleep(0.05)
        assert sink.packets == []


def gauge(both: Cascade, name: str) -> float:
    """A metric of the gateway."""
    text = both.gateway.api.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith(f"gb28181gw_{name} ")).split()[1])


@PLANES
async def test_r004_a_stream_that_is_only_passed_on_is_not_demuxed(tmp_path: Path, plane: str) -> None:
    async with cascade(tmp_path, media={"plane": plane}) as both, udp_sink() as sink:
        platform = both.platform
        await both.add_upper()
        await both.share(all=True)
        invite = platform.invite(LOCAL_ID, CAMERA, platform.offer(sink.port))
        platform.in_dialog("ACK", LOCAL_ID, invite, await answered(both))
        await platform.until(lambda: len(sink.packets) > 50, 20)
        assert await asyncio.to_thread(gauge, both, "upper_streams_raw") == 1
        # The demuxer rests from the next key frame on.
        for _ in range(10):
            demuxed, packets = await asyncio.to_thread(gauge, both, "rtp_demuxed"), len(sink.packets)
            await platform.until(lambda packets=packets: len(sink.packets) > packets + 500, 20)  # type: ignore[misc]
            if await asyncio.to_thread(gauge, both, "rtp_demuxed") == demuxed:
                return
        raise AssertionError("a demuxer works for nobody")
