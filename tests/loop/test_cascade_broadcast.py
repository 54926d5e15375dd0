"""An upper platform speaks through a loudspeaker below: Broadcast, our call, G.711 down to the device."""

from __future__ import annotations

import asyncio
import re
import socket
import wave
from pathlib import Path

import pytest

from gb28181gw.media.wire.rtp import RtpPacketiser
from gb28181gw.sip.message import Request, Response
from tests.support.sim_platform import SERVER_ID
from tests.support.upper import LOCAL_ID, NVR, UPPER, Cascade, cascade

CAMERA = "34020000001320000001"
SOURCE = "34020000001360000001"
LOUD, LOUDER = 0x2A, 0xAA
"""A-law codes of a strong wave, below and above zero."""


def announce(both: Cascade, target: str, sn: int) -> None:
    """Notify Broadcast."""
    platform = both.platform
    body = (
        f'<?xml version="1.0"?>\r\n<Notify><CmdType>Broadcast</CmdType><SN>{sn}</SN><SourceID>{SOURCE}</SourceID>'
        f"<TargetID>{target}</TargetID></Notify>\r\n"
    ).encode()
    request = platform.request(
        "MESSAGE", LOCAL_ID, call_id=f"b{sn}", body=body, content_type="Application/MANSCDP+xml"
    )
    platform.send(request, platform.registered[LOCAL_ID])


def invites(both: Cascade) -> list[Request]:
    return [seen.request for seen in both.platform.seen if seen.request.method == "INVITE"]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_tk11_an_upper_speaks_and_ends_it(tmp_path: Path, transport: str) -> None:
    heard = tmp_path / "heard"
    heard.mkdir()
    async with cascade(tmp_path, "--hear-dir", str(heard), media={"plane": "python"}) as both:
        platform = both.platform
        await both.add_upper()
        await both.share(items=[{"device_id": NVR, "channel_id": CAMERA}])
        announce(both, "34020000001320000099", 1)
        await platform.until(lambda: any(response.status == 404 for response, _ in platform.responses))

        announce(both, CAMERA, 2)
        assert "<Result>OK</Result>" in await both.answer(2)
        await platform.until(lambda: invites(both))
        invite = invites(both)[0]
        if transport == "tcp":
            # A source that cannot send over UDP says so, and is offered the other way.
            platform.send(Response.reply_to(invite, 488, to_tag="no"), platform.registered[LOCAL_ID])
            await platform.until(lambda: len({one.call_id for one in invites(both)}) == 2)
            invite = invites(both)[-1]
            assert b"TCP/RTP/AVP 8" in invite.body and b"a=setup:passive" in invite.body
        assert invite.to.uri.user == SOURCE and b"m=audio" in invite.body and b"a=recvonly" in invite.body
        talk = (await asyncio.to_thread(both.gateway.get, "/talks"))["items"][0]
        assert talk["microphone"] == "upper", "nobody else can take it before the first packet"
        port = int(re.findall(rb"m=audio (\d+)", invite.body)[0])
        ssrc = int(re.findall(rb"y=(\d+)", invite.body)[0])
        body = (
            invite.body.replace(b"a=recvonly", b"a=sendonly")
            .replace(b"m=audio %d" % port, b"m=audio 40000")
            .replace(b"a=setup:passive", b"a=setup:active")
        )
        source = platform.registered[LOCAL_ID]
        contact = ("Contact", f"<sip:{SERVER_ID}@127.0.0.1:{platform.port}>")
        platform.send(
            Response.reply_to(
                invite, 200, to_tag="up", headers=[contact, ("Content-Type", "application/sdp")], body=body
            ),
            source,
        )
        await platform.until(
            lambda: any(
                seen.request.method == "ACK" and seen.request.call_id == invite.call_id
                for seen in platform.seen
            )
        )

        packets = RtpPacketiser(payload_type=8, ssrc=ssrc)
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as voice:
            await asyncio.to_thread(voice.connect, ("127.0.0.1", port))
            for number in range(150):
                for packet in packets.packetise(bytes([LOUD, LOUDER] * 80), number * 160):
                    framed = packet if transport == "udp" else len(packet).to_bytes(2, "big") + packet
                    voice.sendall(framed)
                await asyncio.sleep(0.02)
        talks = (await asyncio.to_thread(both.gateway.get, "/talks"))["items"]
        assert len(talks) == 1 and talks[0]["spoken_s"] > 1
        platform.send(
            platform.request("BYE", LOCAL_ID, call_id=invite.call_id, to_tag=invite.from_.tag, from_tag="up"),
            source,
        )
        await asyncio.to_thread(both.gateway.wait_event, "upper.stream_stopped", 20, reason="upper_bye")
        for _ in range(200):
            if not (await asyncio.to_thread(both.gateway.get, "/talks"))["items"]:
                break
            await asyncio.sleep(0.05)
        assert (await asyncio.to_thread(both.gateway.get, "/talks"))["items"] == []
        assert both.gateway.seen("upper.stream_started", kind="broadcast", upper_id=UPPER)[0][
            "transport"
        ] == ("udp" if transport == "udp" else "tcp-passive")
    files = list(heard.glob("*.wav"))
    assert len(files) == 1
    with wave.open(str(files[0])) as sound:
        data = sound.readframes(sound.getnframes())
    samples = [int.from_bytes(data[at : at + 2], "little", signed=True) for at in range(0, len(data), 2)]
    assert max(samples) > 15_000 and min(samples) < -15_000
