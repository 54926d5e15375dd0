"""`PeerTransport` by aiortc: its ICE agent, DTLS and SRTP, without its peer connection and its codecs.

Imported with the first viewer. The places where aiortc's classes are extended are underscored names of its own; that is
why its version is bounded narrowly (docs/decisions/0002).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import aioice
from aiortc import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceTransport,
)

from gb28181gw.outputs.webrtc_sdp import Candidate, LocalTransport, Offer

_CERTIFICATE_S = 7 * 24 * 3600
"""aiortc's certificates are valid for 30 days; one serves all viewers of so long."""
_FIRST_CHECK_S = 0.02


class _Certificates:
    """Owner of the certificate that new viewers get."""

    def __init__(self) -> None:
        self._current: RTCCertificate | None = None
        self._made = 0.0

    def current(self) -> RTCCertificate:
        if self._current is None or time.monotonic() - self._made > _CERTIFICATE_S:
            self._current, self._made = RTCCertificate.generateCertificate(), time.monotonic()
        return self._current


_certificates = _Certificates()


class _Agent(aioice.Connection):
    """Binds what it is told, and waits for the viewer's first check when the offer had no candidate of use."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(ice_controlling=False)
        self._addresses = list(addresses)

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109 - the name of the library
    ) -> list[aioice.Candidate]:
        return await super().get_component_candidates(component, self._addresses or addresses, timeout)

    async def connect(self) -> None:
        while not self._early_checks and not self._remote_candidates:
            if self._closing:
                raise ConnectionError("closed")
            await asyncio.sleep(_FIRST_CHECK_S)
        await super().connect()


class _Gatherer(RTCIceGatherer):
    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(iceServers=[])
        self._connection = _Agent(addresses)


class _Dtls(RTCDtlsTransport):
    """Gives RTCP and RTP away as they are; media of a viewer is not wanted."""

    def __init__(
        self,
        transport: RTCIceTransport,
        certificate: RTCCertificate,
        on_rtcp: Callable[[bytes], None],
        on_rtp: Callable[[bytes], None] | None,
    ) -> None:
        super().__init__(transport, [certificate])
        self._on_rtcp = on_rtcp
        self._on_rtp = on_rtp

    async def _handle_rtcp_data(self, data: bytes) -> None:
        self._on_rtcp(data)

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        if self._on_rtp is not None:
            self._on_rtp(data)


class AiortcTransport:
    """One viewer or speaker. Owner of its sockets and of aiortc's tasks."""

    def __init__(
        self,
        on_rtcp: Callable[[bytes], None],
        on_lost: Callable[[], None],
        on_rtp: Callable[[bytes], None] | None = None,
    ) -> None:
        self._on_rtcp = on_rtcp
        self._on_rtp = on_rtp
        self._on_lost = on_lost
        self._gatherer: _Gatherer | None = None
        self._ice: RTCIceTransport | None = None
        self._dtls: _Dtls | None = None
        self._connected = False
        self._closed = False

    async def open(self, addresses: Sequence[str]) -> LocalTransport:
        self._gatherer = _Gatherer(addresses)
        self._ice = RTCIceTransport(self._gatherer)
        self._dtls = _Dtls(self._ice, _certificates.current(), self._on_rtcp, self._on_rtp)
        await self._gatherer.gather()
        found = self._gatherer.getLocalCandidates()
        if not found:
            raise OSError("no UDP port can be bound for ICE")
        parameters = self._gatherer.getLocalParameters()
        return LocalTransport(
            ufrag=parameters.usernameFragment or "",
            password=parameters.password or "",
            fingerprints=tuple(
                (print_.algorithm, print_.value)
                for print_ in self._dtls.getLocalParameters().fingerprints
                if print_.algorithm == "sha-256"
            ),
            candidates=tuple(
                Candidate(
                    foundation=c.foundation,
                    component=c.component,
                    priority=c.priority,
                    host=c.ip,
                    port=c.port,
                    kind=c.type,
                )
                for c in found
            ),
        )

    async def connect(self, offer: Offer) -> None:
        ice, dtls = self._ice, self._dtls
        assert ice is not None and dtls is not None  # noqa: S101 - opened before
        await self.add_candidates(offer.candidates)
        await ice.start(RTCIceParameters(usernameFragment=offer.ufrag, password=offer.password))
        if ice.state != "completed":
            raise ConnectionError("no way to the viewer was found (ICE)")
        dtls._set_role("server" if offer.active else "client")
        await dtls.start(
            RTCDtlsParameters(
                fingerprints=[RTCDtlsFingerprint(algorithm=a, value=v) for a, v in offer.fingerprints]
            )
        )
        if dtls.state != "connected":
            raise ConnectionError("the viewer's certificate or cipher was refused (DTLS)")
        self._connected = True
        dtls.on("statechange", self._state_changed)
        ice.on("statechange", self._state_changed)

    async def add_candidates(self, candidates: Sequence[Candidate]) -> None:
        if self._gatherer is None or self._closed:
            return
        for candidate in candidates:
            # Of another family than ours, or no address after all: it is not checked.
            with contextlib.suppress(ValueError):
                await self._gatherer._connection.add_remote_candidate(
                    aioice.Candidate(
                        foundation=candidate.foundation,
                        component=candidate.component,
                        transport="udp",
                        priority=candidate.priority,
                        host=candidate.host,
                        port=candidate.port,
                        type=candidate.kind,
                    )
                )

    async def send(self, packet: bytes) -> None:
        if self._dtls is None:
            raise ConnectionError("not connected")
        await self._dtls._send_rtp(packet)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._dtls is not None:
            await self._dtls.stop()
        if self._ice is not None:
            if self._ice.state == "new" and self._gatherer is not None:
                await self._gatherer._connection.close()
            await self._ice.stop()

    def _state_changed(self) -> None:
        dtls, ice = self._dtls, self._ice
        gone = (dtls is not None and dtls.state in ("closed", "failed")) or (
            ice is not None and ice.state in ("closed", "failed")
        )
        if gone and self._connected and not self._closed:
            self._connected = False
            self._on_lost()
