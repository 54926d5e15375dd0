"""What upper platforms offer to receive, read with the eyes of the sender (GB/T 28181-2022 9.2, 9.12, Annexes C, D)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from gb28181gw.cascade.routes import OfferError
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.sdp import Payload, Sdp, SdpMedia, SessionKind, Setup, parse_sdp
from gb28181gw.media.engine import MediaTransport, RtpPacking


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An offer as far as the sender of media is concerned."""

    sdp: Sdp
    transport: MediaTransport
    remote: tuple[str, int] | None
    """Where to send; None: the peer connects."""
    hosts: frozenset[str]
    """Who may connect."""
    payload: Payload
    packing: RtpPacking
    codec: str


def read_offer(body: bytes, peer_host: str, allow: Iterable[str]) -> Wanted:
    """What an upper asks for. Raises OfferError.

    Media goes to the address of the SDP only if it is the one that signalling comes from, or in an allowed network
    (threat S-11); an address that nobody can have means the signalling one (INV-17).
    """
    if not body:
        raise OfferError(488, "an INVITE without an offer")
    try:
        sdp = parse_sdp(body)
    except GbError as error:
        raise OfferError(400, f"the offer cannot be read: {error}") from error
    media = sdp.first
    if not media.port and not (media.tcp and media.setup is Setup.ACTIVE):
        raise OfferError(488, "the offer has no port")
    host = _media_host(sdp.host_of(media), peer_host, allow)
    payload, packing, codec = _sound(media) if sdp.session is SessionKind.TALK else _payload(media)
    transport = MediaTransport.UDP
    if media.tcp:
        # Who says nothing listens (Annex D: the receiver should be the server).
        transport = MediaTransport.TCP_PASSIVE if media.setup is Setup.ACTIVE else MediaTransport.TCP_ACTIVE
    return Wanted(
        sdp=sdp,
        transport=transport,
        remote=None if transport is MediaTransport.TCP_PASSIVE else (host, media.port),
        hosts=frozenset({host, peer_host}),
        payload=payload,
        packing=packing,
        codec=codec,
    )


def _media_host(text: str, peer_host: str, allow: Iterable[str]) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return peer_host
    if address.is_unspecified or address.is_multicast or str(address) == peer_host:
        return peer_host
    if any(address in ipaddress.ip_network(network, strict=False) for network in allow):
        return str(address)
    raise OfferError(
        403,
        f"media to {address}, which is neither the address that it signals from ({peer_host}) nor in media_allow",
    )


def _payload(media: SdpMedia) -> tuple[Payload, RtpPacking, str]:
    """The program stream if it is offered, else the first elementary stream that we can send."""
    encodings = media.encodings
    for number, name in encodings.items():
        if name == "PS":
            return Payload(number, "PS"), RtpPacking.PS, ""
    for number, name in encodings.items():
        if name in ("H264", "H265"):
            return Payload(number, name), RtpPacking.ES, name.lower()
    if encodings and not any(not name for name in encodings.values()):
        raise OfferError(488, f"none of {', '.join(encodings.values())[:100]} can be sent")
    return Payload(96, "PS"), RtpPacking.PS, ""


def _sound(media: SdpMedia) -> tuple[Payload, RtpPacking, str]:
    """Of a talk: the first kind of G.711 that is offered, by itself or inside a program stream (C.2.4)."""
    for number, name in media.encodings.items():
        if name in ("PCMA", "PCMU"):
            return Payload(number, name, 8_000), RtpPacking.ES, name.lower()
    for number, name in media.encodings.items():
        if name == "PS":
            return Payload(number, "PS"), RtpPacking.PS, ""
    offered = ", ".join(media.encodings.values())[:100]
    raise OfferError(488, f"of {offered or 'nothing'} no sound can be made; PCMA, PCMU and PS can")
