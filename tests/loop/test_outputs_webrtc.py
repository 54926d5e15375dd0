"""WHEP by the media listener: sessions, refusals, and what a viewer is sent. The transport is the test's own."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.outputs import webrtc_session
from gb28181gw.outputs.webrtc import WebRtcOutput
from gb28181gw.outputs.webrtc_host import WebRtcConfig, WebRtcHost
from tests.support.outputs import CHANNEL, DEVICE, Bench, bench
from tests.support.plane import audio_frames, interleave, until, video_frames
from tests.support.webrtc import UFRAG, FakeTransport, Network, browser_offer

PATH = f"/live/{DEVICE}_{CHANNEL}/whep"
SDP = {"content-type": "application/sdp"}
CLIP = interleave(video_frames(Codec.H264, 60), audio_frames(Codec.PCMA, 60))


class Whep:
    """A listener with a stream, and a client of it."""

    def __init__(self, b: Bench, network: Network, client: httpx.AsyncClient) -> None:
        self.b = b
        self.network = network
        self.client = client
        self.asked: list[tuple[str, str]] = []
        b.listener.webrtc.ask_key_frame = lambda device, channel: self.asked.append((device, channel))

    async def offer(
        self, body: bytes | None = None, query: str = "token=good", path: str = PATH, **headers: str
    ) -> httpx.Response:
        return await self.client.post(
            f"{path}?{query}", content=browser_offer() if body is None else body, headers={**SDP, **headers}
        )

    async def playing(self, query: str = "token=good") -> tuple[httpx.Response, FakeTransport]:
        response = await self.offer(query=query)
        assert response.status_code == 201, response.text
        transport = self.network.made[-1]
        transport.connected.set()
        return response, transport


@asynccontextmanager
async def whep(frames: list[Frame] = CLIP, **config: object) -> AsyncIterator[Whep]:
    network = Network()
    async with (
        bench(webrtc=WebRtcConfig(host="127.0.0.1")) as b,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{b.port}", trust_env=False) as client,
    ):
        b.listener.webrtc = WebRtcOutput(
            b.plane,
            b.source,
            b.listener.viewers,
            b.bus,
            WebRtcHost(WebRtcConfig(**{"host": "127.0.0.1", **config}), network),  # type: ignore[arg-type]
        )
        b.push(frames)
        await until(lambda: len(b.plane.tracks("live")) == len({f.track.codec for f in frames}))
        yield Whep(b, network, client)
        await b.listener.webrtc.close()
        assert len(b.listener.webrtc) == 0
    assert all(transport.closed == 1 for transport in network.made)


def numbers(packets: list[bytes], payload_type: int) -> list[int]:
    return [int.from_bytes(p[2:4], "big") for p in packets if p[1] & 0x7F == payload_type]


async def test_a_viewer_gets_the_kept_group_and_what_comes() -> None:
    async with whep() as w:
        response, transport = await w.playing()
        assert response.headers["content-type"] == "application/sdp"
        assert re.fullmatch(rf"{PATH}/[\w-]{{24}}", response.headers["location"])
        assert response.headers["etag"].startswith('"')
        assert transport.addresses == ["127.0.0.1"]
        assert "typ host" in response.text and "a=rtpmap:8 PCMA/8000" in response.text
        await until(lambda: transport.rtp)
        last = CLIP[-1].pts_90k
        more = [replace(f, pts_90k=f.pts_90k + last + 3600, dts_90k=f.dts_90k + last + 3600) for f in CLIP]
        w.b.push(more)
        video = sum(f.track.codec is Codec.H264 for f in more)
        await until(lambda: len({p[4:8] for p in transport.rtp if p[1] & 0x7F in (102, 108)}) > video)
        pictures = [RtpPacket.parse(p) for p in transport.rtp if p[1] & 0x7F in (102, 108)]
        assert pictures[0].payload[0] & 0x1F in (7, 9)  # parameter sets before the first slice
        sequence = [p.sequence_number for p in pictures]
        assert sequence == [(sequence[0] + i) & 0xFFFF for i in range(len(sequence))]
        assert all(len(p) <= 1212 for p in transport.rtp)
        assert numbers(transport.rtp, 8)
        assert w.b.source.viewers[0].kind == "webrtc"
        assert (await w.client.delete(response.headers["location"])).status_code == 200
        await until(lambda: transport.closed)
        assert w.b.source.held == 0
        assert w.b.listener.viewers.ended == {"viewer_gone": 1}
        assert (await w.client.delete(response.headers["location"])).status_code == 404


async def test_lost_packets_are_sent_again_and_a_lost_picture_asks_the_device_once() -> None:
    async with whep() as w:
        _, transport = await w.playing()
        await until(lambda: len(transport.rtp) > 10)
        lost = transport.rtp[3]
        ssrc, number = int.from_bytes(lost[8:12], "big"), int.from_bytes(lost[2:4], "big")
        transport.on_rtcp(struct.pack("!BBHIIHH", 0x81, 205, 3, 1, ssrc, number, 0))
        await until(lambda: transport.sent.count(lost) == 2)
        assert w.asked == []  # it began with the kept picture
        for _ in range(5):
            transport.on_rtcp(struct.pack("!BBHII", 0x81, 206, 2, 1, ssrc))
        assert w.asked == [(DEVICE, CHANNEL)]


async def test_reports_keep_picture_and_sound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gb28181gw.outputs.webrtc._REPORT_S", 0.01)
    async with whep() as w:
        _, transport = await w.playing()
        await until(lambda: len({p[4:8] for p in transport.sent if p[1] == 200}) == 2)


@pytest.mark.parametrize(
    ("query", "path", "body", "status", "code"),
    [
        ("token=bad", PATH, None, 401, "gb.output.bad_token"),
        ("", PATH, None, 401, "gb.route.unauthorised"),
        ("token=good", PATH, b"garbage", 400, "gb.output.bad_offer"),
        ("token=good", PATH, b"", 400, "gb.output.bad_offer"),
        ("token=good&audio=aac", PATH, None, 422, "gb.route.invalid"),
        ("token=good&video=h266", PATH, None, 422, "gb.route.invalid"),
        ("token=good", PATH, browser_offer(h264=False), 406, "gb.output.codec_not_offered"),
    ],
)
async def test_refusals_have_a_reason(
    query: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    async with whep() as w:
        response = await w.offer(body, query, path)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert w.b.source.held == 0
        assert w.b.listener.refused == 1


async def test_an_unknown_stream_is_404_and_its_device_is_not_asked() -> None:
    async with whep() as w:
        w.b.source.error = GatewayError("gb.route.stream_unknown")
        response = await w.offer(path="/playback/nothing/whep")
        assert (response.status_code, response.json()["code"]) == (404, "gb.route.stream_unknown")
        assert w.network.made == []


async def test_other_methods_types_and_sizes_are_refused() -> None:
    async with whep() as w:
        assert (await w.client.get(f"{PATH}?token=good")).status_code == 405
        assert (await w.client.delete(f"{PATH}?token=good")).status_code == 405
        wrong = await w.offer(**{"content-type": "application/json"})
        assert (wrong.status_code, wrong.headers["accept-post"]) == (415, "application/sdp")
        assert (await w.offer(b"v=0\r\n" * 20_000)).status_code == 413
        elsewhere = await w.client.post("/live/x.flv?token=good", content=b"v=0", headers=SDP)
        assert elsewhere.status_code == 413


async def test_pages_of_other_origins_may_read_the_location() -> None:
    async with whep() as w:
        origin = {"origin": f"http://127.0.0.1:{1}"}
        preflight = await w.client.options(PATH, headers=origin)
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "Content-Type" in preflight.headers["access-control-allow-headers"]
        response = await w.offer(**origin)
        assert "Location" in response.headers["access-control-expose-headers"]
        assert response.headers["access-control-allow-origin"] == origin["origin"]


async def test_candidates_may_come_later_and_ice_is_not_restarted() -> None:
    async with whep() as w:
        response, transport = await w.playing()
        place = response.headers["location"]
        kind = {"content-type": "application/trickle-ice-sdpfrag", "if-match": response.headers["etag"]}
        body = "a=ice-ufrag:{}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        body += "a=candidate:1 1 udp 9 127.0.0.7 5000 typ host\r\n"
        added = await w.client.patch(place, content=body.format(UFRAG), headers=kind)
        assert added.status_code == 204
        assert [c.host for c in transport.candidates] == ["127.0.0.7"]
        again = await w.client.patch(place, content=body.format("other"), headers=kind)
        assert again.json()["code"] == "gb.route.invalid"
        stale = await w.client.patch(place, content=body, headers={**kind, "if-match": '"x"'})
        assert stale.status_code == 404


async def test_candidates_carry_the_advertised_address() -> None:
    async with whep(advertise="198.51.100.7") as w:
        response = await w.offer()
        assert re.findall(r"a=candidate:.* udp \d+ (\S+) (\d+)", response.text) == [("198.51.100.7", "5004")]


async def test_sessions_are_limited_and_room_comes_back() -> None:
    async with whep(sessions=1) as w:
        response, _ = await w.playing()
        refused = await w.offer()
        assert (refused.status_code, refused.json()["code"]) == (503, "gb.output.too_many_viewers")
        await w.client.delete(response.headers["location"])
        assert (await w.offer()).status_code == 201


async def test_a_revoked_viewer_ends_and_the_others_stay() -> None:
    async with whep() as w:
        _, first = await w.playing()
        response = await w.offer(query="", authorization="Bearer secret")
        assert response.status_code == 201
        second = w.network.made[-1]
        w.b.listener.close_grants(lambda grant_id: grant_id == "key-good")
        await until(lambda: first.closed)
        assert second.closed == 0
        assert w.b.source.held == 1
        assert w.b.listener.viewers.ended == {"revoked": 1}


@pytest.mark.parametrize("how", ["lost", "refuses", "late", "broken", "slow", "stream"])
async def test_every_end_gives_the_lease_back(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {
        "lost": "viewer_gone",
        "refuses": "not_connected",
        "late": "not_connected",
        "broken": "viewer_gone",
        "slow": "slow",
        "stream": "stream_closed",
    }
    monkeypatch.setattr(webrtc_session, "CONNECT_S", 0.05 if how == "late" else 20.0)
    monkeypatch.setattr(webrtc_session, "_LOSSY_S", 0.0)
    async with whep() as w:
        w.network.refuses = how == "refuses"
        response = await w.offer()
        assert response.status_code == 201
        transport = w.network.made[0]
        transport.broken = how == "broken"
        if how != "late":
            transport.connected.set()
        if how == "lost":
            transport.on_lost()
        if how == "stream":
            await until(lambda: transport.rtp)
            w.b.plane.close_stream("live")
        if how == "slow":
            report = struct.pack("!BBHIIBBHIIII", 0x81, 201, 7, 1, 9, 200, 0, 0, 0, 0, 0, 0)
            while not w.b.listener.viewers.ended:
                transport.on_rtcp(report)
                await asyncio.sleep(0)
        await until(lambda: transport.closed)
        assert w.b.source.held == 0
        assert w.b.listener.viewers.ended == {reasons[how]: 1}


async def test_h265_is_refused_with_what_to_do_and_transcoded_only_where_allowed() -> None:
    frames = list(video_frames(Codec.H265, 30))
    async with whep(frames) as w:
        refused = await w.offer()
        assert (refused.status_code, refused.json()["code"]) == (406, "gb.output.codec_not_offered")
        assert "sub-stream" in refused.json()["hint"]
        off = await w.offer(query="token=good&video=h264")
        assert (off.status_code, off.json()["code"]) == (409, "gb.output.transcoding_off")
        taken = await w.offer(browser_offer(h265=True))
        assert taken.status_code == 201
        w.network.made[-1].connected.set()
        await until(lambda: numbers(w.network.made[-1].rtp, 116))


async def test_transcodes_are_limited_and_a_worker_that_cannot_go_on_ends_its_viewers() -> None:
    broken = [
        replace(f, payload=b"\x00\x00\x00\x01" + b"\x26\x01" + b"\xff" * 40)
        for f in video_frames(Codec.H265, 30)
    ]
    async with whep(broken, transcodes=1) as w:
        query = "token=good&video=h264"
        first = await w.offer(query=query)
        assert first.status_code == 201
        assert "H264/90000" in first.text
        assert (await w.offer(query=query)).status_code == 201  # shared
        assert w.b.listener.webrtc.transcodes == 1
        for transport in w.network.made:
            transport.connected.set()
        w.b.push(broken * 3)
        await until(lambda: w.b.listener.viewers.ended.total() == 2, timeout_s=30)
        assert w.b.listener.viewers.ended == {"transcoding_failed": 2}
        await until(lambda: w.b.listener.webrtc.transcodes == 0)
        assert w.b.listener.webrtc.transcoders == 0


async def test_one_transcode_more_than_allowed_is_refused() -> None:
    async with whep(list(video_frames(Codec.H265, 30)), transcodes=1) as w:
        response = await w.offer(query="token=good&video=h264")
        assert response.status_code == 201
        other = video_frames(Codec.H265, 30)
        w.b.plane.create_stream("other", w.b.stream_events)
        for f in other:
            w.b.plane.push("other", f.track, f.pts_90k, f.dts_90k, f.payload, key=f.key)
        await until(lambda: w.b.plane.tracks("other"))
        refused = await w.offer(query="token=good&video=h264", path="/playback/other/whep")
        assert (refused.status_code, refused.json()["code"]) == (503, "gb.output.too_many_transcodes")
        await w.client.delete(response.headers["location"])
        taken = await w.offer(query="token=good&video=h264", path="/playback/other/whep")
        assert taken.status_code == 201
        w.b.plane.close_stream("other")
