"""What viewers and microphones by WebRTC share: the library, where ICE binds, what is announced, room for one more."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from gb28181gw.errors import GatewayError
from gb28181gw.outputs.webrtc_sdp import Candidate, LocalTransport, parse_fragment
from gb28181gw.outputs.webrtc_transport import PeerTransport, TransportFactory

SDP_TYPE = "application/sdp"
FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRtcConfig:
    """Of `[media]`."""

    host: str = "0.0.0.0"  # noqa: S104 - the default of the contract
    """`[media] listen`: where ICE binds."""
    advertise: str = ""
    """Address in the candidates of answers; empty: the bound ones."""
    sessions: int = 100
    transcodes: int = 0
    """H.265 streams made into H.264 at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAnswer:
    """Of a POST: 201."""

    body: bytes
    location: str
    etag: str


class WebRtcHost:
    """Owner of nothing that must be closed; used on the event loop only."""

    def __init__(self, config: WebRtcConfig, make_transport: TransportFactory | None = None) -> None:
        """`make_transport`: None is aiortc's, imported when it is needed."""
        self.config = config
        self._make_transport = make_transport
        self._counts: list[Callable[[], int]] = []

    def counts(self, sessions: Callable[[], int]) -> None:
        """`sessions` is added to what `[media] webrtc_sessions` limits."""
        self._counts.append(sessions)

    def check_room(self) -> None:
        """Raises `gb.output.too_many_viewers`."""
        if sum(count() for count in self._counts) >= self.config.sessions:
            raise GatewayError(
                "gb.output.too_many_viewers", f"{self.config.sessions} WebRTC sessions are open already."
            )

    async def transports(self) -> TransportFactory:
        """Raises `gb.route.internal` where the library is missing."""
        if self._make_transport is None:
            loop = asyncio.get_running_loop()
            try:
                module = await loop.run_in_executor(
                    None, importlib.import_module, "gb28181gw.outputs.webrtc_aiortc"
                )
            except ImportError as error:
                raise GatewayError("gb.route.internal", f"WebRTC cannot be served: {error}.") from error
            self._make_transport = cast("TransportFactory", module.AiortcTransport)
        return self._make_transport

    async def open(self, transport: PeerTransport, local_host: str) -> LocalTransport:
        """Bind; the result is what the peer is told. `local_host`: where it reached the listener.

        Raises `gb.media.bind_failed`.
        """
        try:
            local = await transport.open(self._addresses(local_host))
        except OSError as error:
            raise GatewayError("gb.media.bind_failed", f"No UDP port for ICE: {error}.") from error
        return self._advertised(local)

    def _addresses(self, local_host: str) -> list[str]:
        """Where ICE binds: as configured; else where this peer reached us, all of the host's behind a proxy."""
        configured = ipaddress.ip_address(self.config.host)
        if not configured.is_unspecified:
            return [self.config.host]
        try:
            local = ipaddress.ip_address(local_host)
        except ValueError:
            return []
        mapped = local.ipv4_mapped if isinstance(local, ipaddress.IPv6Address) else None
        return [] if local.is_loopback else [str(mapped or local)]

    def _advertised(self, local: LocalTransport) -> LocalTransport:
        told = self.config.advertise
        if not told:
            return local
        family = ipaddress.ip_address(told).version
        candidates = [c for c in local.candidates if ipaddress.ip_address(c.host).version == family]
        changed = tuple(replace(c, host=told) for c in candidates or local.candidates)
        return replace(local, candidates=changed)


def later_candidates(
    body: bytes, etag: str | None, *, session_etag: str, session_ufrag: str
) -> tuple[Candidate, ...]:
    """What a PATCH brings (RFC 8840 9). Raises GatewayError; a restart of ICE is not served."""
    if etag not in (None, "*", session_etag):
        raise GatewayError("gb.route.stream_unknown", "If-Match names another ICE session.")
    ufrag, candidates = parse_fragment(body)
    if ufrag and ufrag != session_ufrag:
        raise GatewayError(
            "gb.route.invalid", "ICE is not restarted: DELETE the session and post a new offer."
        )
    return candidates
