"""A WHEP client by aiortc, on loopback; it decodes what it gets."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aioice.ice
import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

SDP = {"content-type": "application/sdp"}


def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc leaves 127.0.0.1 out, and would use the other addresses of this host."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


class WhepClient:
    """One viewer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.frames: Counter[str] = Counter()
        """Decoded, by kind of media."""
        self.sizes: set[tuple[int, int]] = set()
        self.answer = ""
        self.location = ""
        self.headers: httpx.Headers = httpx.Headers()
        self._tasks: list[asyncio.Task[None]] = []
        self.peer.on("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.ensure_future(self._count(track)))

    async def _count(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.frames[track.kind] += 1
                if track.kind == "video":
                    self.sizes.add((frame.width, frame.height))  # type: ignore[union-attr]

    async def offer(self, *kinds: str) -> str:
        for kind in kinds or ("video", "audio"):
            self.peer.addTransceiver(kind, direction="recvonly")
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return self.peer.localDescription.sdp

    async def play(self, *kinds: str) -> httpx.Response:
        """Post the offer and take the answer; the response, whatever it says."""
        sdp = await self.offer(*kinds)
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            response = await client.post(self.url, content=sdp, headers=SDP)
        if response.status_code == 201:
            self.answer = response.text
            self.headers = response.headers
            self.location = str(httpx.URL(self.url).join(response.headers["location"]))
            await self.peer.setRemoteDescription(RTCSessionDescription(sdp=response.text, type="answer"))
        return response

    async def delete(self) -> int:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            return (await client.delete(self.location)).status_code

    async def close(self) -> None:
        await self.peer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def whep(url: str) -> AsyncIterator[WhepClient]:
    client = WhepClient(url)
    try:
        yield client
    finally:
        await client.close()
