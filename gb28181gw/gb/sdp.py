"""Session descriptions with the national lines (GB/T 28181-2022 Annex G): a lenient reader, strict writers.

``y=`` (SSRC) and ``f=`` (media parameters) are no lines of RFC 4566, so everything is read line by line. What we send
is a value object first (`Offer`, `Answer`); no text is ever put together by a caller. What an answer means for the
receiver is decided in `agree`, in one place for all transports.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gb28181gw.gb.charset import decode
from gb28181gw.gb.dialect import PayloadSet
from gb28181gw.gb.exceptions import GbLocalError, SdpParseError
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.sprop import parameter_sets

CONTENT_TYPE = "application/sdp"
MAX_LINES = 200
MAX_BYTES = 65_536
MAX_VALUE = 2_048
"""Characters kept of a line."""
MAX_SSRC = 0xFFFF_FFFF


class SessionKind(StrEnum):
    """Values of ``s=``; `Talk` existed until 2016."""

    PLAY = "Play"
    PLAYBACK = "Playback"
    DOWNLOAD = "Download"
    TALK = "Talk"


class Setup(StrEnum):
    """``a=setup`` (RFC 4145): who opens the TCP connection, as the writer of the SDP says of itself."""

    ACTIVE = "active"
    PASSIVE = "passive"
    ACTPASS = "actpass"


class Transport(StrEnum):
    """Media transport as seen from the gateway's offer: tcp-passive means that the device connects to us."""

    UDP = "udp"
    TCP_PASSIVE = "tcp-passive"
    TCP_ACTIVE = "tcp-active"


class Payload(NamedTuple):
    """One payload type of an ``m=`` line with its ``a=rtpmap`` and, where it has one, ``a=fmtp``."""

    number: int
    encoding: str
    """Encoding name; empty for a static type that needs no map."""
    clock_rate: int = 90_000
    fmtp: str = ""


_PS = Payload(96, "PS")
_H264 = Payload(98, "H264")
_MPEG4 = Payload(97, "MPEG4")

PAYLOADS_DEFAULT = (_PS, _H264, _MPEG4, Payload(100, "H265"))
"""The suggested numbers of Annex C."""
PAYLOADS_PS_ONLY = (_PS,)
PAYLOADS_H265_99 = (_PS, _H264, _MPEG4, Payload(99, "H265"))
"""H.265 under 99, as many platforms offer it."""
PAYLOADS_EXTENDED = (
    _PS,
    Payload(126, "H264", 90_000, "profile-level-id=42e01e"),
    Payload(125, "H264S", 90_000, "profile-level-id=42e01e"),
    Payload(99, "H265"),
    Payload(34, "H263"),
    _H264,
    _MPEG4,
)
"""What some old platforms and devices insist on."""
PAYLOAD_LISTS = {
    PayloadSet.DEFAULT: PAYLOADS_DEFAULT,
    PayloadSet.PS_ONLY: PAYLOADS_PS_ONLY,
    PayloadSet.H265_99: PAYLOADS_H265_99,
    PayloadSet.EXTENDED: PAYLOADS_EXTENDED,
}


def payload_map(payloads: tuple[Payload, ...]) -> dict[int, str]:
    """Payload type to encoding name, as a receiver is told them."""
    return {payload.number: payload.encoding.upper() for payload in payloads}


# --- reading ---------------------------------------------------------------------------------------------------


class RtpMap(NamedTuple):
    """``a=rtpmap:<number> <encoding>/<clock rate>[/<channels>]``."""

    number: int
    encoding: str
    clock_rate: int
    channels: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SdpMedia:
    """One ``m=`` line with the lines below it."""

    kind: str
    """``video`` or ``audio``, lower case."""
    port: int
    """0 when absent or not readable (INV-17)."""
    protocol: str
    """Upper case: ``RTP/AVP``, ``TCP/RTP/AVP`` …"""
    payload_types: tuple[int, ...] = ()
    rtpmaps: tuple[RtpMap, ...] = ()
    connection_host: str = ""
    """Of a ``c=`` line of its own."""
    setup: Setup | None = None
    connection: str = ""
    """``new`` or ``existing``."""
    direction: str = ""
    """``recvonly``, ``sendonly``, ``sendrecv``, ``inactive`` or empty."""
    attributes: tuple[tuple[str, str], ...] = ()
    """All ``a=`` lines, name in lower case."""

    @property
    def tcp(self) -> bool:
        """Whether it is RTP over TCP (``TCP/RTP/AVP``; any protocol that starts with TCP)."""
        return self.protocol.startswith("TCP")

    @property
    def encodings(self) -> dict[int, str]:
        """Payload type to encoding name in upper case, the offered order; static types by RFC 3551."""
        mapped = {entry.number: entry.encoding.upper() for entry in self.rtpmaps}
        return {
            number: mapped.get(number) or _STATIC_ENCODINGS.get(number, "") for number in self.payload_types
        }


_STATIC_ENCODINGS = {
    0: "PCMU",
    4: "G723",
    8: "PCMA",
    9: "G722",
    18: "G729",
    20: "SVACA",
    34: "H263",
    96: "PS",
}
"""RFC 3551, and the two that the standard fixes (Annex C): 20 SVAC audio and 96 PS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdp:
    """A session description as a peer sent it."""

    origin_user: str = ""
    session_name: str = ""
    """``s=`` as sent."""
    session: SessionKind = SessionKind.PLAY
    """What `session_name` means (INV-25)."""
    uri: str = ""
    """``u=``: device id and kind of recording."""
    connection_host: str = ""
    """Of the session, else of the first media line that has one."""
    start_time: int = 0
    """Unix seconds; 0 live."""
    end_time: int = 0
    media: tuple[SdpMedia, ...] = ()
    y: int | None = None
    """The SSRC; None when absent, unreadable or 0 (INV-01, INV-04, INV-05)."""
    y_text: str | None = None
    """``y=`` as sent; None when absent."""
    f: str | None = None
    """``f=`` as sent; None when absent."""
    attributes: tuple[tuple[str, str], ...] = ()
    quirks: tuple[Quirk, ...] = ()

    @property
    def video(self) -> SdpMedia | None:
        """The first ``m=video``."""
        return next((entry for entry in self.media if entry.kind == "video"), None)

    @property
    def first(self) -> SdpMedia:
        """The video line if there is one, else the first line; there always is one."""
        return self.video or self.media[0]

    def host_of(self, media: SdpMedia) -> str:
        """Address for a media line: its own ``c=``, else the session's."""
        return media.connection_host or self.connection_host


_LINE = re.compile(r"\s*([A-Za-z])\s*=\s*(.*?)\s*")
_RTPMAP = re.compile(r"(\d{1,3})\s+([^\s/]{1,64})\s*(?:/\s*(\d{1,9}))?\s*(?:/\s*(\d{1,3}))?.*", re.ASCII)
_Y = re.compile(r"\d{1,10}", re.ASCII)
_DIRECTIONS = frozenset({"recvonly", "sendonly", "sendrecv", "inactive"})
_KINDS = {kind.value.lower(): kind for kind in SessionKind}


class _MediaDraft:
    """A media section while its lines are read."""

    def __init__(self, value: str, quirks: dict[Quirk, None]) -> None:
        words = value.split()
        self.kind = words[0].lower()[:32] if words else ""
        port = words[1].partition("/")[0] if len(words) > 1 else ""
        self.port = (
            int(port) if port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536 else 0
        )
        if not self.port:
            quirks[Quirk.SDP_PORT_ZERO] = None
        self.protocol = words[2].upper()[:32] if len(words) > 2 else "RTP/AVP"
        if len(words) < 4 or self.protocol != words[2]:
            quirks[Quirk.SDP_LINE_FORM] = None
        self.payload_types = tuple(
            int(word) for word in words[3:131] if word.isascii() and word.isdigit() and len(word) <= 3
        )
        self.host = ""
        self.attributes: list[tuple[str, str]] = []

    def finish(self, quirks: dict[Quirk, None]) -> SdpMedia:
        maps: list[RtpMap] = []
        setup: Setup | None = None
        connection = direction = ""
        for name, value in self.attributes:
            if name == "rtpmap":
                match = _RTPMAP.fullmatch(value)
                if match is None:
                    quirks[Quirk.SDP_LINE_FORM] = None
                else:
                    maps.append(RtpMap(int(match[1]), match[2], int(match[3] or 90_000), int(match[4] or 1)))
            elif name == "setup":
                try:
                    setup = Setup(value.lower())
                except ValueError:
                    quirks[Quirk.SDP_SETUP] = None
            elif name == "connection":
                connection = value.lower()[:32]
            elif name in _DIRECTIONS:
                direction = name
        return SdpMedia(
            kind=self.kind,
            port=self.port,
            protocol=self.protocol,
            payload_types=self.payload_types,
            rtpmaps=tuple(maps),
            connection_host=self.host,
            setup=setup,
            connection=connection,
            direction=direction,
            attributes=tuple(self.attributes),
        )


def parse_sdp(body: bytes) -> Sdp:
    """Read a session description line by line.

    Unknown lines are ignored; blanks, bare LF, another case of the protocol, and missing ``v= o= s= c= t=`` lines are
    tolerated (TK-04). Raises `SdpParseError` with reason ``too_large``, ``too_many_lines`` or ``no_media``; no other
    exception.
    """
    if len(body) > MAX_BYTES:
        raise SdpParseError("too_large", f"{len(body)} bytes, {MAX_BYTES} allowed")
    decoded = decode(body)
    quirks = dict.fromkeys(decoded.quirks)
    lines = decoded.text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > MAX_LINES:
        raise SdpParseError("too_many_lines", f"{len(lines)} lines, {MAX_LINES} allowed")
    if b"\r\n" not in body:
        quirks[Quirk.SDP_LINE_FORM] = None
    session: dict[str, str] = {}
    attributes: list[tuple[str, str]] = []
    drafts: list[_MediaDraft] = []
    for line in lines:
        if not line or line.isspace():
            continue
        match = _LINE.fullmatch(line[:MAX_VALUE])
        if match is None:
            quirks[Quirk.SDP_LINE_FORM] = None
            continue
        key, value = match[1].lower(), match[2]
        if key == "m":
            drafts.append(_MediaDraft(value, quirks))
        elif key == "a":
            name, _, argument = value.partition(":")
            target = drafts[-1].attributes if drafts else attributes
            target.append((name.strip().lower()[:64], argument.strip()))
        elif key == "c" and drafts:
            drafts[-1].host = _connection_host(value, quirks)
        else:
            session.setdefault(key, value)  # of a repeated line the first counts; y= and f= stand behind m=
    if not drafts:
        raise SdpParseError("no_media", "no m= line")
    return _assemble(session, attributes, drafts, quirks)


def _assemble(
    session: dict[str, str],
    attributes: list[tuple[str, str]],
    drafts: list[_MediaDraft],
    quirks: dict[Quirk, None],
) -> Sdp:
    if not session.keys() >= {"v", "o", "s", "t"}:
        quirks[Quirk.SDP_MISSING_LINE] = None
    media = tuple(draft.finish(quirks) for draft in drafts)
    host = _connection_host(session["c"], quirks) if "c" in session else ""
    if not host:
        host = next((entry.connection_host for entry in media if entry.connection_host), "")
        if not host:
            quirks[Quirk.SDP_MISSING_LINE] = None
    start, end = _times(session.get("t", ""), quirks)
    name = session.get("s", "")
    y_text = session.get("y")
    return Sdp(
        origin_user=(session.get("o", "").split() or [""])[0][:64],
        session_name=name,
        session=_session_kind(name, start, end, quirks),
        uri=session.get("u", ""),
        connection_host=host,
        start_time=start,
        end_time=end,
        media=media,
        y=None if y_text is None else _ssrc(y_text, quirks),
        y_text=y_text,
        f=session.get("f"),
        attributes=tuple(attributes),
        quirks=tuple(quirks),
    )


def _connection_host(value: str, quirks: dict[Quirk, None]) -> str:
    """Host of ``IN IP4 192.0.2.1[/ttl]``; also of a line that holds only the address."""
    words = value.split()
    host = words[-1].partition("/")[0][:255] if words else ""
    if len(words) != 3:
        quirks[Quirk.SDP_LINE_FORM] = None
    return host


def _times(value: str, quirks: dict[Quirk, None]) -> tuple[int, int]:
    words = value.split()
    numbers = [
        int(word) if word.isascii() and word.isdigit() and len(word) <= 18 else 0 for word in words[:2]
    ]
    if value and len(words) != 2:
        quirks[Quirk.SDP_LINE_FORM] = None
    numbers += [0, 0]
    return numbers[0], numbers[1]


def _session_kind(name: str, start: int, end: int, quirks: dict[Quirk, None]) -> SessionKind:
    """What ``s=`` means: compared without case; an unknown word is live when ``t=0 0``, else playback (INV-25)."""
    kind = _KINDS.get(name.strip().lower())
    if kind is None or kind.value != name:
        quirks[Quirk.SDP_SESSION_NAME] = None
    if kind is not None:
        return kind
    return SessionKind.PLAY if start == end == 0 else SessionKind.PLAYBACK


def _ssrc(text: str, quirks: dict[Quirk, None]) -> int | None:
    """``y=`` as a number: fewer than ten digits and blanks are taken (INV-04); 0 is no SSRC (INV-05)."""
    squeezed = "".join(text.split())
    if len(text) != 10 or squeezed != text:
        quirks[Quirk.SDP_Y_FORM] = None
    if _Y.fullmatch(squeezed) is None:
        quirks[Quirk.SDP_Y_FORM] = None
        return None
    value = int(squeezed)
    if not 0 < value <= MAX_SSRC:
        quirks[Quirk.SDP_Y_FORM] = None
        return None
    return value


# --- writing ---------------------------------------------------------------------------------------------------


def format_ssrc(ssrc: int) -> str:
    """Ten digits, leading zeros kept (Annex G). Raises `GbLocalError` for 0 and for what does not fit 32 bits."""
    if not 0 < ssrc <= MAX_SSRC:
        raise GbLocalError(f"{ssrc} is not an SSRC to send")
    return f"{ssrc:010d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What we invite a device to send: the receiver's description."""

    user: str
    """``o=`` user: code of the platform that writes the SDP (9.2.3 g)."""
    host: str
    """Address that the media is to be sent to, or that we dial from."""
    port: int
    ssrc: int
    transport: Transport = Transport.UDP
    payloads: tuple[Payload, ...] = PAYLOADS_DEFAULT
    session: SessionKind = SessionKind.PLAY
    uri: str = ""
    """``u=`` of playback and download."""
    start_time: int = 0
    end_time: int = 0
    kind: str = "video"
    attributes: tuple[tuple[str, str], ...] = ()
    """Further ``a=`` lines, e.g. ``("streamnumber", "1")`` (INV-27)."""
    f: str = ""
    direction: str = "recvonly"
    """``sendrecv`` in an offer to talk (GB/T 28181-2016 9.12.2)."""

    def to_bytes(self) -> bytes:
        """The body: CR LF after every line, the last one too (INV-07). Raises `GbLocalError`."""
        setup = {
            Transport.UDP: None,
            Transport.TCP_PASSIVE: Setup.PASSIVE,
            Transport.TCP_ACTIVE: Setup.ACTIVE,
        }[self.transport]
        return _render(self, direction=self.direction, setup=setup, tcp=self.transport is not Transport.UDP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the sender of media answers: our side towards upper platforms (INV-05). The simulator writes its own."""

    user: str
    host: str
    port: int
    ssrc: int
    payloads: tuple[Payload, ...] = PAYLOADS_PS_ONLY
    tcp: bool = False
    setup: Setup | None = None
    session: SessionKind = SessionKind.PLAY
    uri: str = ""
    start_time: int = 0
    end_time: int = 0
    kind: str = "video"
    attributes: tuple[tuple[str, str], ...] = ()
    f: str = ""
    direction: str = "sendonly"
    """``sendrecv`` in answer to s=Talk."""

    def to_bytes(self) -> bytes:
        """The body. Raises `GbLocalError`."""
        return _render(self, direction=self.direction, setup=self.setup, tcp=self.tcp)


def live_offer(
    *,
    user: str,
    host: str,
    port: int,
    ssrc: int,
    transport: Transport | str = Transport.UDP,
    payloads: tuple[Payload, ...] = PAYLOADS_DEFAULT,
    attributes: tuple[tuple[str, str], ...] = (),
) -> Offer:
    """Offer of a live stream (9.2). `transport` may be given by its name, as other layers have it."""
    return Offer(
        user=user,
        host=host,
        port=port,
        ssrc=ssrc,
        transport=Transport(transport),
        payloads=payloads,
        attributes=attributes,
    )


def answer_to(
    offer: Sdp,
    *,
    user: str,
    host: str,
    port: int,
    ssrc: int | None = None,
    payloads: tuple[Payload, ...] = PAYLOADS_PS_ONLY,
    f: str = "",
    direction: str = "sendonly",
) -> Answer:
    """The answer that suits an offer: its transport, the other TCP role, its SSRC unless another is given.

    Raises `GbLocalError` when the offer has no SSRC and none is given (INV-05: the answerer makes one).
    """
    media = offer.first
    chosen = offer.y if ssrc is None else ssrc
    if chosen is None:
        raise GbLocalError("the offer has no SSRC and none was given")
    return Answer(
        user=user,
        host=host,
        port=port,
        ssrc=chosen,
        payloads=payloads,
        tcp=media.tcp,
        setup=_complement(media.setup or Setup.PASSIVE) if media.tcp else None,
        session=offer.session,
        uri=offer.uri,
        start_time=offer.start_time,
        end_time=offer.end_time,
        kind=media.kind,
        f=f,
        direction=direction,
    )


def _complement(setup: Setup) -> Setup:
    return Setup.PASSIVE if setup is Setup.ACTIVE else Setup.ACTIVE


def _render(sdp: Offer | Answer, *, direction: str, setup: Setup | None, tcp: bool) -> bytes:
    family = "IP6" if ":" in sdp.host else "IP4"
    protocol = "TCP/RTP/AVP" if tcp else "RTP/AVP"
    numbers = " ".join(str(payload.number) for payload in sdp.payloads)
    lines = ["v=0", f"o={sdp.user} 0 0 IN {family} {sdp.host}", f"s={sdp.session.value}"]
    if sdp.uri:
        lines.append(f"u={sdp.uri}")
    lines += [
        f"c=IN {family} {sdp.host}",
        f"t={sdp.start_time} {sdp.end_time}",
        f"m={sdp.kind} {sdp.port} {protocol} {numbers}",
        f"a={direction}",
    ]
    for payload in sdp.payloads:
        if payload.encoding:
            lines.append(f"a=rtpmap:{payload.number} {payload.encoding}/{payload.clock_rate}")
        if payload.fmtp:
            lines.append(f"a=fmtp:{payload.number} {payload.fmtp}")
    if setup is not None:
        lines += [f"a=setup:{setup.value}", "a=connection:new"]
    lines += [f"a={name}:{value}" if value else f"a={name}" for name, value in sdp.attributes]
    lines.append(f"y={format_ssrc(sdp.ssrc)}")
    if sdp.f:
        lines.append(f"f={sdp.f}")
    if not sdp.payloads:
        raise GbLocalError("an SDP needs at least one payload type")
    if not (sdp.user and sdp.host and 0 <= sdp.port < 65536):
        raise GbLocalError("an SDP needs user, host and a port")
    if any(character in line for line in lines for character in "\r\n\0"):
        raise GbLocalError("a line of an SDP cannot hold line ends")
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8")


# --- offer and answer --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What offer and answer together mean for the receiver."""

    ssrc: int
    """The SSRC to expect: the answer's, else the offered one (INV-01, INV-02)."""
    listen: bool
    """TCP: keep the listener open."""
    dial: bool
    """TCP: open the connection; with `listen` both in parallel, whoever is first (INV-18)."""
    host: str
    """``c=`` of the answer; empty when no peer can be reached there (absent, a name, 0.0.0.0, multicast: INV-17)."""
    port: int
    """Port of the answer, 0 when unusable. It is dialled at the signalling peer's address (INV-17)."""
    payloads: dict[int, str]
    """Payload type to encoding name: of the answer, and of the offer where the answer names none."""
    parameter_sets: tuple[bytes, ...] = ()
    """NAL units of the answer's ``sprop-…`` parameters (MED-35)."""
    quirks: tuple[Quirk, ...] = ()


def agree(offer: Offer, answer: Sdp) -> Agreement:
    """Read an answer against the offer it answers. Never raises: whatever is odd is decided and named."""
    quirks = dict.fromkeys(answer.quirks)
    media = answer.first
    ssrc = offer.ssrc if answer.y is None else answer.y
    if answer.y is None:
        quirks[Quirk.SDP_NO_Y] = None
    elif ssrc != offer.ssrc:
        quirks[Quirk.SDP_OTHER_Y] = None
    if media.tcp is (offer.transport is Transport.UDP):
        quirks[Quirk.SDP_TRANSPORT_DIFFERS] = None
    host = _usable_host(answer.host_of(media))
    if not host:
        quirks[Quirk.SDP_UNUSABLE_ADDRESS] = None
    listen, dial = _roles(offer.transport, media, quirks)
    encodings = {number: name for number, name in media.encodings.items() if name}
    return Agreement(
        ssrc=ssrc,
        listen=listen,
        dial=dial and media.port != 0,
        host=host,
        port=media.port,
        payloads=encodings or payload_map(offer.payloads),
        parameter_sets=parameter_sets(value for name, value in media.attributes if name == "fmtp"),
        quirks=tuple(quirks),
    )


def _roles(transport: Transport, media: SdpMedia, quirks: dict[Quirk, None]) -> tuple[bool, bool]:
    """Whether to listen and whether to dial.

    A missing answer means the complement of the offer. When both said the same, or the device said ``actpass``, both
    are tried where both are possible (INV-18): who offered passive listens already and can dial too.
    """
    if transport is Transport.UDP:
        if not media.tcp:
            return False, False
        # TCP in answer to UDP (INV-24): nobody agreed on roles, the device normally dials
        return True, media.setup is Setup.PASSIVE
    expected = Setup.ACTIVE if transport is Transport.TCP_PASSIVE else Setup.PASSIVE
    if media.setup is expected:
        return expected is Setup.ACTIVE, expected is Setup.PASSIVE
    if media.tcp:
        quirks[Quirk.SDP_SETUP] = None
    if media.setup is None:
        return expected is Setup.ACTIVE, expected is Setup.PASSIVE
    return True, True


def _usable_host(host: str) -> str:
    """The address, if a peer could have it. Private ones stay: in a local network they are right."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    return "" if address.is_unspecified or address.is_multicast else host
