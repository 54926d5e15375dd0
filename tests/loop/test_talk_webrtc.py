"""A microphone by WebRTC (WHIP, RFC 9725) speaks through a simulated loudspeaker: sound, refusals, ends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gb28181gw.access.guard import MediaGuard
from gb28181gw.access.roles import Role
from gb28181gw.access.tokens import make_grant
from gb28181gw.errors import GatewayError
from gb28181gw.outputs import whip_session
from gb28181gw.outputs.listener import ListenerConfig, MediaListener
from gb28181gw.outputs.webrtc_host import WebRtcConfig, WebRtcHost
from gb28181gw.outputs.webrtc_sdp import LocalTransport
from gb28181gw.outputs.whip import WhipInput, best_codec
from tests.support import webrtc as support
from tests.support.devices import until
from tests.support.outputs import Source
from tests.support.talking import TalkBench, heard_level, loud_part, talk_bench, tone
from tests.support.webrtc import UFRAG, FakeTransport, Network, browser_offer, microphone_offer
from tests.support.whep import only_loopback
from tests.support.whip import SDP, WhipClient, whip

HERTZ = 440.0
PCMU_LOUD = b"\x00"
"""The lowest sample of mu-law."""


@dataclass
class Studio:
    """A talk that stands, and a media listener beside it."""

    bench: TalkBench
    listener: MediaListener
    network: Network
    client: httpx.AsyncClient
    begun: dict[str, Any]

    @property
    def talk_id(self) -> str:
        return str(self.begun["id"])

    @property
    def path(self) -> str:
        """With its token."""
        return str(httpx.URL(self.begun["whip_url"]).raw_path.decode())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.port}{self.path}"

    async def offer(self, body: bytes | None = None, path: str = "", **headers: str) -> httpx.Response:
        return await self.client.post(
            path or self.path,
            content=microphone_offer() if body is None else body,
            headers={**SDP, **headers},
        )

    async def speaking(self) -> tuple[str, FakeTransport]:
        response = await self.offer()
        assert response.status_code == 201, response.text
        transport = self.network.made[-1]
        transport.connected.set()
        return str(response.headers["location"]), transport

    async def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.bench.client.get(f"/api/v1/talks/{self.talk_id}")).json()
        return found

    def told(self, event: str) -> dict[str, Any]:
        found: dict[str, Any] = self.bench.running.bus.of(event)[-1]
        return found


@asynccontextmanager
async def studio(
    path: Path, *, real: bool = False, sessions: int = 100, **options: Any
) -> AsyncIterator[Studio]:
    """`real`: ICE, DTLS and SRTP by aiortc; else the test is the network."""
    async with talk_bench(path, **options) as bench:
        config, network = WebRtcConfig(host="127.0.0.1", sessions=sessions), Network()
        guard = MediaGuard(bench.rig.services.keys, bench.rig.services.tokens)
        listener = MediaListener(
            bench.plane,
            Source(),
            guard,
            bench.running.bus,
            ListenerConfig(host="127.0.0.1", port=0, webrtc=config),
        )
        if not real:
            listener.whip = WhipInput(WebRtcHost(config, network))
        listener.whip.talks = bench.talks
        guard.on_revoked(listener.close_grants)
        await listener.start()
        try:
            begun = await bench.start()
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{listener.port}", trust_env=False
            ) as client:
                yield Studio(bench, listener, network, client, begun)
        finally:
            await listener.close()
        assert len(listener.whip) == 0
        assert not bench.talks.list() or bench.talks.list()[0].microphone is None
        assert all(transport.closed == 1 for transport in network.made)


def rtp(number: int, payload: bytes = PCMU_LOUD * 160, *, kind: int = 0, ssrc: int = 7) -> bytes:
    return struct.pack("!BBHII", 0x80, kind, number, number * 160, ssrc) + payload


async def arrived(speaker: WhipClient) -> int | None:
    """Packets lost by what the gateway reports; None: it has not yet."""
    reports = (await speaker.peer.getSenders()[0].getStats()).values()
    return next((one.packetsLost for one in reports if one.type == "remote-inbound-rtp"), None)


@pytest.mark.parametrize("codec", ["audio/opus", pytest.param("audio/pcma", marks=pytest.mark.long)])
async def test_r133_a_tone_by_webrtc_is_heard_at_the_loudspeaker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    only_loopback(monkeypatch)
    monkeypatch.setattr(whip_session, "REPORT_S", 0.1)
    async with studio(tmp_path, real=True) as s, whip(s.url, codec, HERTZ) as speaker:
        response = await speaker.speak()
        assert response.status_code == 201, response.text
        assert "a=recvonly" in speaker.answer and codec.partition("/")[2] in speaker.answer.lower()
        talk = await s.bench.listening()
        # Speaker, gateway and loudspeaker share a thread here: what one is late, the others cannot make good.
        await until(lambda: heard_level(talk.ear.pcm[-4_000:], HERTZ) == pytest.approx(12_000, rel=0.1))
        assert heard_level(talk.ear.pcm[-2_000:], 2 * HERTZ) < 1_000
        assert talk.ear.malformed == 0
        assert (await s.shown())["microphone"] == "webrtc"
        async with asyncio.timeout(10):
            while (report := await arrived(speaker)) is None:
                await asyncio.sleep(0.02)
        assert report == 0, "packets lost, as the speaker is told"
        assert await speaker.delete() == 200
        assert await speaker.delete() == 404
        assert (await s.shown())["microphone"] is None, "the talk stays for the next speaker"
        assert s.told("talk.microphone_closed")["reason"] == "speaker_gone"


async def test_what_is_lost_doubled_or_no_sound_harms_nothing(tmp_path: Path) -> None:
    async with studio(tmp_path) as s:
        response = await s.offer(microphone_offer(codecs="0"))
        assert response.status_code == 201 and "a=rtpmap:0 PCMU/8000" in response.text
        transport = s.network.made[-1]
        transport.connected.set()
        talk = await s.bench.listening()
        say = transport.on_rtp
        assert say is not None
        session = next(iter(s.listener.whip._sessions.values()))
        say(b"\x80")
        say(rtp(0, kind=111))
        assert (session.malformed, session.packets) == (2, 0)
        for number in (1, 3, 2, 2, 4, 65_000, 5, 6):
            say(rtp(number))
        await until(lambda: len(loud_part(bytes(talk.ear.pcm))) >= 6 * 320)
        heard = loud_part(bytes(talk.ear.pcm))
        assert heard == heard[:2] * (6 * 160), "1 to 6, each once, without a break"
        for number in range(8, 8 + 600):
            say(rtp(number, ssrc=8))
        assert session.malformed > 90, "more than anybody says in a second"
        assert (await s.client.delete(response.headers["location"])).status_code == 200
        say(rtp(9))


async def test_what_opus_is_not(tmp_path: Path) -> None:
    async with studio(tmp_path) as s:
        response = await s.offer(microphone_offer(codecs="111 9"))
        assert "a=rtpmap:111 opus/48000/2" in response.text and "G722" not in response.text
        s.network.made[-1].connected.set()
        session = next(iter(s.listener.whip._sessions.values()))
        for number, payload in enumerate((b"\xff\xff\xff", b"", bytes(1_400))):
            session._on_rtp(rtp(number, payload, kind=111))
        assert session.malformed >= 1
        assert (await s.shown())["microphone"] == "webrtc"


async def test_s09_who_may_not_talk_opens_no_microphone(tmp_path: Path) -> None:
    async with studio(tmp_path) as s:
        plain, rig = s.path.partition("?")[0], s.bench.rig
        of_another = rig.services.tokens.mint("/talks/" + "0" * 32, make_grant("operator"))
        of_stream = rig.services.tokens.mint("/live/a_b", make_grant("operator"))
        of_socket = s.begun["audio_url"].partition("token=")[2]
        for token in (of_another, of_stream, of_socket, "good"):
            response = await s.offer(path=f"{plain}?token={token}")
            assert (response.status_code, response.json()["code"]) == (401, "gb.output.bad_token")
        response = await s.offer(path=plain)
        assert (response.status_code, response.json()["code"]) == (401, "gb.route.unauthorised")
        for role, status in ((Role.VIEWER, 403), (Role.OPERATOR, 201)):
            response = await s.offer(path=plain, authorization=f"Bearer {rig.texts[role]}")
            assert response.status_code == status
        assert len(s.network.made) == 1
        assert s.told("viewer.refused")["kind"] == "microphone"


async def test_what_a_microphone_is_not(tmp_path: Path) -> None:
    no_sound = (
        browser_offer(),
        microphone_offer(kind="video"),
        microphone_offer(codecs="9"),
        microphone_offer(direction="inactive"),
    )
    async with studio(tmp_path) as s:
        for body in (b"garbage", b"v=0"):
            response = await s.offer(body)
            assert (response.status_code, response.json()["code"]) == (400, "gb.output.bad_offer")
        for body in no_sound:
            response = await s.offer(body)
            assert (response.status_code, response.json()["code"]) == (406, "gb.output.no_sound_offered")
        wrong = await s.offer(**{"content-type": "application/json"})
        assert (wrong.status_code, wrong.headers["accept-post"]) == (415, "application/sdp")
        assert (await s.offer(b"v=0\r\n" * 20_000)).status_code == 413
        assert (await s.client.get(s.path)).status_code == 405
        assert (await s.client.delete(s.path)).status_code == 405
        preflight = await s.client.options(s.path, headers={"origin": s.url.partition("/talks")[0]})
        assert (preflight.status_code, preflight.headers["accept-post"]) == (204, "application/sdp")
        assert s.network.made == []
        assert not s.bench.running.bus.of("talk.microphone_opened")


def test_a_talk_of_8_khz_takes_g711_and_any_other_opus_first() -> None:
    everything = ("opus", "pcmu", "pcma")
    assert (best_codec(everything, 8_000), best_codec(everything, 16_000)) == ("pcma", "opus")
    assert (best_codec(("opus",), 8_000), best_codec(("pcmu",), 16_000)) == ("opus", "pcmu")


async def test_a_talk_that_ends_while_ice_is_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    class Slow(FakeTransport):
        async def open(self, addresses: Sequence[str]) -> LocalTransport:
            await ended.wait()
            assert not self.closed, "what is being bound is not closed"
            return await super().open(addresses)

    monkeypatch.setattr(support, "FakeTransport", Slow)
    async with studio(tmp_path) as s:
        offering = asyncio.create_task(s.offer())
        await until(lambda: s.bench.talks.get(s.talk_id).microphone)
        await s.bench.talks.stop(s.talk_id)
        ended.set()
        response = await offering
        assert (response.status_code, response.json()["code"]) == (404, "gb.route.talk_unknown")
        await until(lambda: s.network.made[0].closed)


async def test_one_source_at_a_time(tmp_path: Path) -> None:
    async with studio(tmp_path, sessions=2) as s:
        place, transport = await s.speaking()
        second = await s.offer()
        assert (second.status_code, second.json()["code"]) == (409, "gb.route.busy")
        assert s.told("talk.microphone_opened")["client"] in second.json()["detail"]
        with pytest.raises(GatewayError, match="speaks in this talk"):
            s.bench.talks.feed(s.talk_id, tone(0.1), 8_000)
        with pytest.raises(GatewayError, match="speaks in this talk"):
            s.bench.talks.take_microphone(s.talk_id, kind="websocket", client="127.0.0.1:1")
        transport.on_lost()
        await until(lambda: transport.closed)
        assert s.told("talk.microphone_closed")["reason"] == "speaker_gone"
        s.bench.talks.feed(s.talk_id, tone(0.3), 8_000)
        recording = await s.offer()
        assert (recording.status_code, recording.json()["code"]) == (409, "gb.route.busy")
        await until(lambda: not s.bench.talks.get(s.talk_id).queued_s)
        place, transport = await s.speaking()
        assert (await s.client.delete(place)).status_code == 200
        held = s.bench.talks.take_microphone(s.talk_id, kind="upper", client="127.0.0.1:1")
        another = await s.offer()
        assert (another.status_code, another.json()["code"]) == (409, "gb.route.busy"), "an upper speaks"
        held.release("over")


async def test_candidates_may_come_later_and_sessions_are_limited(tmp_path: Path) -> None:
    async with studio(tmp_path, sessions=1) as s:
        response = await s.offer()
        place, transport = response.headers["location"], s.network.made[0]
        kind = {"content-type": "application/trickle-ice-sdpfrag", "if-match": response.headers["etag"]}
        body = "a=ice-ufrag:{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        body += "a=candidate:1 1 udp 9 127.0.0.7 5000 typ host\r\n"
        assert (await s.client.patch(place, content=body.format(UFRAG), headers=kind)).status_code == 204
        assert [candidate.host for candidate in transport.candidates] == ["127.0.0.7"]
        again = await s.client.patch(place, content=body.format("other"), headers=kind)
        assert again.json()["code"] == "gb.route.invalid"
        full = await s.offer()
        assert (full.status_code, full.json()["code"]) == (503, "gb.output.too_many_viewers")
        elsewhere = place.replace(s.talk_id, "0" * 32)
        assert (await s.client.delete(elsewhere)).status_code == 404


async def test_every_end_gives_the_microphone_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whip_session, "REPORT_S", 0.02)
    async with studio(tmp_path) as s:
        ends = {
            "refuses": "not_connected",
            "late": "not_connected",
            "broken": "speaker_gone",
            "revoked": "revoked",
        }
        for how, reason in ends.items():
            monkeypatch.setattr(whip_session, "CONNECT_S", 0.05 if how == "late" else 20.0)
            s.network.refuses = how == "refuses"
            assert (await s.offer()).status_code == 201
            transport = s.network.made[-1]
            transport.broken = how == "broken"
            if how != "late":
                transport.connected.set()
            if how == "broken":
                next(iter(s.listener.whip._sessions.values()))._on_rtp(rtp(1, kind=8))
            if how == "revoked":
                s.listener.close_grants(lambda grant_id: grant_id in s.path)
            await until(lambda transport=transport: transport.closed)  # type: ignore[misc]
            assert s.told("talk.microphone_closed")["reason"] == reason
        assert s.listener.whip.ended == {"not_connected": 2, "speaker_gone": 1, "revoked": 1}
        assert (await s.shown())["state"] == "talking"


async def test_the_end_of_the_talk_ends_the_session(tmp_path: Path) -> None:
    async with studio(tmp_path) as s:
        _, transport = await s.speaking()
        await (await s.bench.listening()).hang_up()
        await until(lambda: transport.closed)
        gone = await s.offer()
        assert (gone.status_code, gone.json()["code"]) == (404, "gb.route.talk_unknown")
        await until(lambda: not s.bench.talks.list())
        s.begun = await s.bench.start()
        _, transport = await s.speaking()
        assert (await s.bench.client.delete(f"/api/v1/talks/{s.talk_id}")).status_code == 204
        await until(lambda: transport.closed)
        assert s.listener.whip.ended == {"talk_over": 2}
        assert s.told("talk.microphone_closed")["reason"] == "talk_over"
