"""WHEP by the media listener, with aiortc as the player."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.outputs import webrtc
from tests.support.media import audio_clip, interleave, video_clip
from tests.support.outputs import CHANNEL, DEVICE, Bench, bench, request
from tests.support.plane import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import MediaStreamError

PATH = f"/live/{DEVICE}_{CHANNEL}/whep"
H264 = video_clip(Codec.H264, frames=200, gop=25)
PCMA = audio_clip(Codec.PCMA, packets=200)


@dataclass
class Player:
    """aiortc; counts the pictures and packets of sound that it decodes."""

    peer: RTCPeerConnection
    pictures: int = 0
    sounds: int = 0

    async def offer(self) -> str:
        for kind in ("video", "audio"):
            self.peer.addTransceiver(kind, direction="recvonly")
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def count(self, track: object) -> None:
        try:
            while True:
                await track.recv()  # type: ignore[attr-defined]
                if track.kind == "video":  # type: ignore[attr-defined]
                    self.pictures += 1
                else:
                    self.sounds += 1
        except MediaStreamError:
            return


@asynccontextmanager
async def player() -> AsyncIterator[Player]:
    made = Player(RTCPeerConnection(RTCConfiguration(iceServers=[])))
    tasks: list[asyncio.Task[None]] = []
    made.peer.on("track", lambda track: tasks.append(asyncio.ensure_future(made.count(track))))
    try:
        yield made
    finally:
        await made.peer.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def post(b: Bench, sdp: str, query: str = "token=good", content_type: str = "application/sdp") -> tuple[
    int, dict[str, str], bytes
]:  # fmt: skip
    head = f"POST {PATH}?{query} HTTP/1.1\nHost: gw\nContent-Type: {content_type}\nContent-Length: {len(sdp)}\n\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", b.port)
    try:
        writer.write(head.replace("\n", "\r\n").encode() + sdp.encode())
        async with asyncio.timeout(10):
            text = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in text[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(text[0].split()[1]), headers, body
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def feed(b: Bench, frames: list[Frame]) -> None:
    for frame in frames:
        b.push([frame])
        await asyncio.sleep(0.01)


@asynccontextmanager
async def studio() -> AsyncIterator[Bench]:
    async with bench(media_host="127.0.0.1") as b:
        frames = interleave(PCMA, H264)
        b.push(frames[:20])
        await until(lambda: len(b.plane.tracks("live")) == 2)
        feeding = asyncio.ensure_future(feed(b, frames[20:]))
        try:
            yield b
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


async def test_picture_and_sound_reach_the_player_and_delete_ends_it() -> None:
    async with studio() as b, player() as p:
        status, headers, answer = await post(b, await p.offer())
        assert (status, headers["content-type"]) == (201, "application/sdp"), answer
        assert b" 127.0.0.1 " in answer
        await p.peer.setRemoteDescription(RTCSessionDescription(sdp=answer.decode(), type="answer"))
        await until(lambda: p.pictures > 20 and p.sounds > 5, timeout_s=20)
        assert b.source.viewers[0].kind == "webrtc"
        assert b.source.viewers[0].grant_id == "key-good"
        place = headers["location"]
        assert place.startswith(f"{PATH}/")
        other = place.replace(CHANNEL, "1" * 20)
        assert (await request(b.port, f"DELETE {other} HTTP/1.1\nHost: gw\n\n"))[0] == 404
        assert (await request(b.port, f"DELETE {place} HTTP/1.1\nHost: gw\n\n"))[0] == 200
        assert b.source.held == len(b.listener.whep) == 0
        assert b.listener.viewers.ended == {"viewer_gone": 1}
        assert (await request(b.port, f"DELETE {place} HTTP/1.1\nHost: gw\n\n"))[0] == 404


async def test_player_that_never_connects_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "CONNECT_S", 0.1)
    async with studio() as b, player() as p:
        status, _, _ = await post(b, await p.offer())
        assert status == 201
        await until(lambda: len(b.listener.whep) == 0)
        assert b.listener.viewers.ended == {"no_connection": 1}


async def test_revoked_grant_and_ended_stream_end_sessions() -> None:
    async with studio() as b, player() as one, player() as two:
        for p in (one, two):
            _, _, answer = await post(b, await p.offer())
            await p.peer.setRemoteDescription(RTCSessionDescription(sdp=answer.decode(), type="answer"))
            await until(lambda p=p: p.pictures > 0, timeout_s=20)
            if p is one:
                b.listener.close_grants(lambda grant_id: grant_id == "key-good")
                assert len(b.listener.whep) == 0
        b.plane.close_stream("live", "device_gone")
        await until(lambda: len(b.listener.whep) == 0)
        assert b.listener.viewers.ended == {"revoked": 1, "device_gone": 1}


async def test_refusals() -> None:
    async with studio() as b, player() as p:
        offer = await p.offer()
        assert (await post(b, offer, query=""))[0] == 401
        assert (await post(b, offer, query="token=stolen"))[0] == 401
        assert (await post(b, offer, content_type="text/plain"))[0] == 415
        assert (await post(b, "x" * 70_000))[0] == 413
        assert (await post(b, "v=0\r\nnonsense"))[0] in (422, 502)
        audio_only = "".join(part for part in [offer.partition("m=video")[0]])
        assert (await post(b, audio_only))[0] == 422
        assert (await request(b.port, f"GET {PATH}?token=good HTTP/1.1\nHost: gw\n\n"))[0] == 405
        assert (await request(b.port, f"DELETE {PATH} HTTP/1.1\nHost: gw\n\n"))[0] == 405
        assert b.source.held == len(b.listener.whep) == 0


async def test_h265_is_not_carried() -> None:
    async with bench(media_host="127.0.0.1") as b, player() as p:
        b.push(video_clip(Codec.H265)[:5])
        await until(lambda: len(b.plane.tracks("live")) == 1)
        status, _, body = await post(b, await p.offer())
        assert (status, b"h265" in body) == (502, True)
