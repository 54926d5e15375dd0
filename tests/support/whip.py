"""A WHIP client by aiortc, on loopback: it speaks a tone into a talk."""

from __future__ import annotations

import asyncio
import fractions
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from av import AudioFrame

from tests.support.talking import tone

SDP = {"content-type": "application/sdp"}
_RATE = 48_000
_SAMPLES = 960


class Tone(MediaStreamTrack):
    """A tone without end, in real time."""

    kind = "audio"

    def __init__(self, hertz: float) -> None:
        super().__init__()
        # One second of whole periods repeats without a break. Both sides of stereo, as aiortc's Opus is stereo.
        mono = tone(1.0, hertz=hertz, rate=_RATE)
        self._pcm = b"".join(mono[at : at + 2] * 2 for at in range(0, len(mono), 2))
        self._frames = 0
        self._begun = 0.0

    async def recv(self) -> AudioFrame:
        self._begun = self._begun or time.monotonic()
        await asyncio.sleep(max(0.0, self._begun + self._frames * _SAMPLES / _RATE - time.monotonic()))
        at = self._frames % (_RATE // _SAMPLES) * _SAMPLES * 4
        frame = AudioFrame(format="s16", layout="stereo", samples=_SAMPLES)
        frame.planes[0].update(self._pcm[at : at + _SAMPLES * 4])
        frame.sample_rate, frame.pts, frame.time_base = (
            _RATE,
            self._frames * _SAMPLES,
            fractions.Fraction(1, _RATE),
        )
        self._frames += 1
        return frame


class WhipClient:
    """One speaker."""

    def __init__(self, url: str, codec: str, hertz: float) -> None:
        """`codec`: the MIME type that it offers alone; empty: all of aiortc's, Opus first."""
        self.url = url
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.location = ""
        self.answer = ""
        transceiver = self.peer.addTransceiver(Tone(hertz), direction="sendonly")
        if codec:
            offered = RTCRtpSender.getCapabilities("audio").codecs
            transceiver.setCodecPreferences([one for one in offered if one.mimeType.lower() == codec])

    async def speak(self) -> httpx.Response:
        """Post the offer and take the answer; the response, whatever it says."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            response = await client.post(self.url, content=self.peer.localDescription.sdp, headers=SDP)
        if response.status_code == 201:
            self.answer = response.text
            self.location = str(httpx.URL(self.url).join(response.headers["location"]))
            await self.peer.setRemoteDescription(RTCSessionDescription(sdp=response.text, type="answer"))
        return response

    async def delete(self) -> int:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            return (await client.delete(self.location)).status_code


@asynccontextmanager
async def whip(url: str, codec: str = "", hertz: float = 440.0) -> AsyncIterator[WhipClient]:
    client = WhipClient(url, codec, hertz)
    try:
        yield client
    finally:
        await client.peer.close()
