"""What outputs need from the rest of the gateway: a stream on lease, a talk to speak in, and a decision who may.

The protocols are declared here, by their consumer, and satisfied elsewhere (`sessions`, `access`); `app`
joins them. Nothing here knows a session or a key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Who holds a lease; for lists, events and revocation."""

    client: str
    """``ip:port`` of the consumer."""
    kind: str
    """``http_flv``, ``ws_flv`` …: the name of the play URL in the API."""
    grant_id: str
    """The key or token grant under which it was opened."""


class Lease(Protocol):
    """A share in a running stream; the stream ends some time after its last lease."""

    @property
    def stream_id(self) -> str:
        """The engine's stream id."""
        ...

    def release(self) -> None:
        """Idempotent."""
        ...


class StreamSource(Protocol):
    """Starts streams and leases them."""

    async def lease_live(self, device_id: str, channel_id: str, consumer: Viewer) -> Lease:
        """The channel's live stream, started when it does not run. Raises `GatewayError`.

        Cancelling the call gives up the share; the caller then has nothing to release.
        """
        ...

    async def lease_stream(self, stream_id: str, consumer: Viewer) -> Lease:
        """A stream that was made by the API (playback). Raises `GatewayError`."""
        ...


class Microphone(Protocol):
    """The right to be a talk's only source of sound."""

    @property
    def sample_rate(self) -> int:
        """Hz that the talk runs at."""
        ...

    def feed(self, pcm: bytes, rate: int) -> None:
        """Signed 16-bit little-endian mono samples. Raises `GatewayError` when the talk is over."""
        ...

    def release(self, reason: str) -> None:
        """Idempotent."""
        ...


class TalkSource(Protocol):
    """Talks that microphones may speak in."""

    def take_microphone(
        self, talk_id: str, *, kind: Literal["webrtc"], client: str, on_over: Callable[[], None]
    ) -> Microphone:
        """`on_over` is called when the talk ends before the release.

        Raises `GatewayError` (`gb.route.talk_unknown`, `gb.route.busy`).
        """
        ...


class Grant(Protocol):
    """A positive decision; connections opened under it end when it is revoked."""

    @property
    def id(self) -> str: ...


class PlayGuard(Protocol):
    """Decides who may open a URL of the media listener."""

    def check(self, path: str, token: str | None, authorization: str | None, client: str) -> Grant:
        """`path` is the URL's path as it was asked for, percent-decoded, without the query; `client` an
        address.

        Raises `GatewayError` (`gb.output.bad_token`, `gb.route.unauthorised`, `gb.route.not_authorised`).
        """
        ...

    def check_open(self, path: str, token: str, is_open: Callable[[str], bool]) -> Grant | None:
        """The grant of a token that may have expired since its view was opened; None: ask `check`."""
        ...

    def renew(self, path: str, grant_id: str) -> str:
        """A fresh token for the stream of `path`."""
        ...
