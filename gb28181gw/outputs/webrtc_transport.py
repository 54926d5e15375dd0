"""What we need of a WebRTC library: ICE, DTLS and SRTP to one viewer or speaker, and nothing of media.

`webrtc_aiortc` has the implementation. Negotiation, packets and feedback are ours (`webrtc_sdp`, `webrtc_stream`,
`webrtc_feedback`), so another library, or a plane of its own, has only this to offer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gb28181gw.outputs.webrtc_sdp import Candidate, LocalTransport, Offer


class PeerTransport(Protocol):
    """The transport of one viewer or speaker. Used on the event loop only."""

    async def open(self, addresses: Sequence[str]) -> LocalTransport:
        """Bind a UDP port of the host's choice on each address (none given: on all of this host's).

        Raises OSError when none can be bound.
        """
        ...

    async def connect(self, offer: Offer) -> None:
        """Until packets can be sent. Raises ConnectionError; the caller limits the time."""
        ...

    async def add_candidates(self, candidates: Sequence[Candidate]) -> None:
        """Of a trickle update."""
        ...

    async def send(self, packet: bytes) -> None:
        """RTP or RTCP in the clear. Raises ConnectionError when the way has gone."""
        ...

    async def close(self) -> None:
        """Idempotent. The peer is told by DTLS."""
        ...


class TransportFactory(Protocol):
    """Makes the transport of one peer."""

    def __call__(
        self,
        on_rtcp: Callable[[bytes], None],
        on_lost: Callable[[], None],
        on_rtp: Callable[[bytes], None] | None = None,
    ) -> PeerTransport:
        """`on_lost`: once, when a connected peer leaves or its consent expires (RFC 7675).

        `on_rtp`: None drops the peer's media.
        """
        ...
