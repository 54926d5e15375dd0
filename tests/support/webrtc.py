"""Offers as browsers write them, and a transport without a network that records what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gb28181gw.outputs.webrtc_sdp import Candidate, LocalTransport, Offer

UFRAG = "a1B2"
PASSWORD = "c" * 24
FINGERPRINT = ":".join(["AB"] * 32)
H264 = """a=rtpmap:102 H264/90000
a=rtcp-fb:102 nack pli
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:104 H264/90000
a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f
a=rtpmap:108 H264/90000
a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f
"""
H265 = "a=rtpmap:116 H265/90000\na=fmtp:116 level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST\n"
TRANSPORT = f"""a=ice-ufrag:{UFRAG}
a=ice-pwd:{PASSWORD}
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
"""


def browser_offer(
    *, h264: bool = True, h265: bool = False, audio: bool = True, candidates: str = ""
) -> bytes:
    """Video 102, 104 (mode 0), 108, and 116 with `h265`; audio 111 Opus, 0, 8."""
    video = "a=rtpmap:96 VP8/90000\n" + H264 * h264 + H265 * h265
    numbers = "96" + " 102 104 108" * h264 + " 116" * h265
    text = "v=0\no=- 46117 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE " + ("0 1" if audio else "0") + "\n"
    text += f"m=video 9 UDP/TLS/RTP/SAVPF {numbers}\nc=IN IP4 0.0.0.0\n{TRANSPORT}{candidates}"
    text += f"a=mid:0\na=recvonly\na=rtcp-mux\n{video}"
    if audio:
        text += f"m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8\nc=IN IP4 0.0.0.0\n{TRANSPORT}a=mid:1\na=recvonly\na=rtcp-mux\n"
        text += "a=rtpmap:111 opus/48000/2\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\n"
    return text.replace("\n", "\r\n").encode()


def microphone_offer(*, codecs: str = "111 0 8", direction: str = "sendonly", kind: str = "audio") -> bytes:
    """Audio 111 Opus, 0, 8, as `codecs` names them."""
    text = "v=0\no=- 46117 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE 0\n"
    text += f"m={kind} 9 UDP/TLS/RTP/SAVPF {codecs}\nc=IN IP4 0.0.0.0\n{TRANSPORT}a=mid:0\na={direction}\na=rtcp-mux\n"
    text += "a=rtpmap:111 opus/48000/2\na=rtpmap:9 G722/8000\n"
    return text.replace("\n", "\r\n").encode()


class FakeTransport:
    """Connects when it is told to."""

    def __init__(
        self,
        on_rtcp: Callable[[bytes], None],
        on_lost: Callable[[], None],
        on_rtp: Callable[[bytes], None] | None = None,
    ) -> None:
        self.on_rtcp = on_rtcp
        self.on_rtp = on_rtp
        self.on_lost = on_lost
        self.addresses: list[str] = []
        self.offer: Offer | None = None
        self.connected = asyncio.Event()
        self.refuses = False
        self.broken = False
        self.sent: list[bytes] = []
        self.candidates: list[Candidate] = []
        self.closed = 0

    async def open(self, addresses: Sequence[str]) -> LocalTransport:
        self.addresses = list(addresses)
        return LocalTransport(
            ufrag="ours",
            password="o" * 22,
            fingerprints=(("sha-256", FINGERPRINT),),
            candidates=(
                Candidate(foundation="1", component=1, priority=7, host="127.0.0.1", port=5004, kind="host"),
            ),
        )

    async def connect(self, offer: Offer) -> None:
        self.offer = offer
        if self.refuses:
            raise ConnectionError("no way")
        await self.connected.wait()

    async def add_candidates(self, candidates: Sequence[Candidate]) -> None:
        self.candidates += candidates

    async def send(self, packet: bytes) -> None:
        if self.broken:
            raise ConnectionError("gone")
        self.sent.append(packet)

    async def close(self) -> None:
        self.closed += 1

    @property
    def rtp(self) -> list[bytes]:
        return [packet for packet in self.sent if not 200 <= packet[1] <= 206]


class Network:
    """Makes transports, and keeps them."""

    def __init__(self) -> None:
        self.made: list[FakeTransport] = []
        self.refuses = False
        """New ones find no way."""

    def __call__(
        self,
        on_rtcp: Callable[[bytes], None],
        on_lost: Callable[[], None],
        on_rtp: Callable[[bytes], None] | None = None,
    ) -> FakeTransport:
        self.made.append(FakeTransport(on_rtcp, on_lost, on_rtp))
        self.made[-1].refuses = self.refuses
        return self.made[-1]
