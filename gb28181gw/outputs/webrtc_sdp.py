"""Offers of WebRTC viewers and speakers and our answers (RFC 8866, RFC 8829, RFC 8843, RFC 8839, RFC 8842). Pure.

An offer is read as far as media one way need it: sections with their payload types, one ICE and DTLS transport
(BUNDLE), candidates. What cannot be read is `gb.output.bad_offer`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec, Track

MAX_OFFER = 64 * 1024
_MAX_LINES = 4000
_MAX_SECTIONS = 8
_MAX_CANDIDATES = 10
"""More addresses of a viewer are not checked: each costs packets to wherever the offer says."""
OPUS = "opus"
_AUDIO = {"PCMA": (Codec.PCMA.value, 8000), "PCMU": (Codec.PCMU.value, 8000), "OPUS": (OPUS, 48000)}
_VIDEO = {"H264": Codec.H264, "H265": Codec.H265}
_STATIC = {0: "PCMU/8000", 8: "PCMA/8000"}
_TOKEN = re.compile(r"[!-~]{1,64}")
_ICE = re.compile(r"[0-9A-Za-z+/]{4,256}")
_FINGERPRINT = re.compile(r"(sha-(?:1|224|256|384|512)) ((?:[0-9A-Fa-f]{2}:){15,63}[0-9A-Fa-f]{2})", re.I)
_FALLBACK_PROFILES = ("64", "4d", "42")
"""Which offered H.264 profile names a stream whose own is not offered: what decoders can, parameter sets tell them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A host or reflexive address of a peer, UDP."""

    foundation: str
    component: int
    priority: int
    host: str
    port: int
    kind: str
    """``host``, ``srflx`` …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One payload type of a section."""

    payload_type: int
    name: str
    """Encoding name in capitals."""
    clock_rate: int
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    kind: str
    mid: str
    protocol: str
    formats: tuple[Format, ...]
    first_format: str
    """As written, for a section that is refused."""
    wants: bool
    """The peer receives."""
    sends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    sections: tuple[Section, ...]
    bundle: tuple[str, ...]
    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    """(hash, value)."""
    active: bool
    """The viewer insists on being the DTLS client."""
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTransport:
    """Our side of the transport, as the answer tells it."""

    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a section of the answer carries; `formats` empty: nothing, the section is refused."""

    section: Section
    ssrc: int
    """0: nothing is sent."""
    formats: Mapping[str, Format]
    """By codec name (`Codec` values and ``opus``), the one to expect first."""


def parse_offer(data: bytes) -> Offer:
    """Raises `gb.output.bad_offer`."""
    session, media = _lines(data)
    if not media or len(media) > _MAX_SECTIONS:
        raise _bad(f"It has {len(media)} media sections.")
    sections = tuple(_section(index, lines) for index, lines in enumerate(media))
    mids = [section.mid for section in sections]
    if len(set(mids)) != len(mids):
        raise _bad("Two sections have the same mid.")
    bundle = next((v.split()[1:] for v in _values(session, "group") if v.startswith("BUNDLE ")), mids[:1])
    # One transport for all: that of the first section of the bundle, which may give its attributes above all sections.
    tagged = next((lines for s, lines in zip(sections, media, strict=True) if s.mid in bundle[:1]), media[0])
    own = [*tagged, *session]
    ufrag, password = _first(own, "ice-ufrag"), _first(own, "ice-pwd")
    if not _ICE.fullmatch(ufrag) or not _ICE.fullmatch(password) or len(password) < 22:
        raise _bad("It has no ICE credentials.")
    prints = tuple(
        (found[1].lower(), found[2].upper())
        for value in _values(own, "fingerprint")
        if (found := _FINGERPRINT.fullmatch(value.strip())) is not None
    )
    if not prints:
        raise _bad("It has no certificate fingerprint.")
    setup = _first(own, "setup").lower() or "actpass"
    if setup not in ("actpass", "active", "passive"):
        raise _bad(f"a=setup:{setup[:20]} is not known.")
    return Offer(
        sections=sections,
        bundle=tuple(bundle),
        ufrag=ufrag,
        password=password,
        fingerprints=prints,
        active=setup == "active",
        candidates=parse_candidates(_values(tagged, "candidate")),
    )


def parse_fragment(data: bytes) -> tuple[str, tuple[Candidate, ...]]:
    """(ICE user fragment, candidates) of a trickle update (RFC 8840 9). Raises `gb.output.bad_offer`."""
    session, media = _lines(data, fragment=True)
    lines = [*session, *(line for section in media for line in section)]
    return _first(lines, "ice-ufrag"), parse_candidates(_values(lines, "candidate"))


def parse_candidates(values: Sequence[str]) -> tuple[Candidate, ...]:
    """Those that can be checked: UDP, addresses and no names (those of mDNS are of the viewer's own network)."""
    found = []
    for value in values:
        parts = value.split()
        if len(parts) < 8 or parts[2].lower() != "udp" or parts[6] != "typ" or parts[1] != "1":
            continue
        try:
            address = ipaddress.ip_address(parts[4])
            priority, port = int(parts[3]), int(parts[5])
        except ValueError:
            continue
        if (
            address.is_multicast
            or address.is_unspecified
            or not 0 < port < 65536
            or not 0 <= priority < 1 << 32
        ):
            continue
        found.append(
            Candidate(
                foundation=parts[0][:32],
                component=1,
                priority=priority,
                host=str(address),
                port=port,
                kind=parts[7],
            )
        )
    return tuple(found[:_MAX_CANDIDATES])


def choose_video(section: Section, track: Track) -> Format | None:
    """The payload type in which this stream can be sent unchanged; None: the viewer cannot take it."""
    formats = [f for f in section.formats if _VIDEO.get(f.name) is track.codec and f.clock_rate == 90_000]
    if track.codec is Codec.H265:
        return formats[0] if formats else None
    if track.codec is not Codec.H264:
        return None
    # Key frames do not fit into one packet: only packetization-mode 1 will do (RFC 6184 6.3).
    formats = [f for f in formats if f.parameters.get("packetization-mode") == "1"]
    sps = next((unit for unit in track.parameter_sets if unit[:1] and unit[0] & 0x1F == 7), b"")
    own = sps[1:4].hex()
    rank = [own[:4], own[:2], *_FALLBACK_PROFILES]

    def place(candidate: Format) -> int:
        profile = candidate.parameters.get("profile-level-id", "42001f").lower()
        return next((i for i, prefix in enumerate(rank) if prefix and profile.startswith(prefix)), len(rank))

    return min(formats, key=place, default=None)


def choose_audio(section: Section, preferred: str) -> dict[str, Format]:
    """All of what we have that the peer has too, by name; `preferred`, a name, comes first."""
    found: dict[str, Format] = {}
    for offered in section.formats:
        known = _AUDIO.get(offered.name)
        if known is not None and known[1] == offered.clock_rate:
            found.setdefault(known[0], offered)
    if preferred in found:
        return {preferred: found.pop(preferred), **found}
    return found


def write_answer(
    offer: Offer,
    choices: Sequence[Choice],
    local: LocalTransport,
    *,
    session_id: int,
    cname: str,
    level: str = "",
    receives: bool = False,
) -> bytes:
    """`level`: two hexadecimal digits of the H.264 stream's level, empty for another codec.

    `receives`: the media are the peer's, and nothing is sent.
    """
    carried = [choice.section.mid for choice in choices if choice.formats]
    lines = ["v=0", f"o=- {session_id} 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    lines += [f"a=group:BUNDLE {' '.join(carried)}", "a=msid-semantic: WMS *"]
    for choice in choices:
        section = choice.section
        if not choice.formats:
            lines += [f"m={section.kind} 0 {section.protocol} {section.first_format}", "c=IN IP4 0.0.0.0"]
            lines += [f"a=mid:{section.mid}", "a=inactive"]
            continue
        numbers = " ".join(str(f.payload_type) for f in choice.formats.values())
        lines += [f"m={section.kind} 9 {section.protocol} {numbers}", "c=IN IP4 0.0.0.0"]
        lines += [f"a=mid:{section.mid}", f"a={'recvonly' if receives else 'sendonly'}", "a=rtcp-mux"]
        for chosen in choice.formats.values():
            lines += _format_lines(chosen, level)
        if not receives:
            lines += [f"a=msid:{cname} {section.kind}", f"a=ssrc:{choice.ssrc} cname:{cname}"]
        lines += [f"a=ice-ufrag:{local.ufrag}", f"a=ice-pwd:{local.password}"]
        lines += [f"a=fingerprint:{kind} {value}" for kind, value in local.fingerprints]
        lines.append(f"a=setup:{'passive' if offer.active else 'active'}")
        if section.mid == carried[0]:
            lines += [f"a=candidate:{_candidate(c)}" for c in local.candidates]
            lines.append("a=end-of-candidates")
    return ("\r\n".join(lines) + "\r\n").encode()


def _format_lines(chosen: Format, level: str) -> list[str]:
    number = chosen.payload_type
    if chosen.name == "OPUS":
        return [f"a=rtpmap:{number} opus/48000/2", f"a=fmtp:{number} minptime=20;useinbandfec=0"]
    lines = [f"a=rtpmap:{number} {chosen.name}/{chosen.clock_rate}"]
    if chosen.name in _VIDEO:
        lines += [f"a=rtcp-fb:{number} {kind}" for kind in ("nack", "nack pli", "ccm fir")]
    if chosen.name == "H264":
        profile = chosen.parameters.get("profile-level-id", "42001f").lower()
        lines.append(
            f"a=fmtp:{number} level-asymmetry-allowed=1;packetization-mode=1;"
            f"profile-level-id={profile[:4]}{level or profile[4:]}"
        )
    return lines


def _candidate(candidate: Candidate) -> str:
    host = f"{candidate.host} {candidate.port}"
    return (
        f"{candidate.foundation} {candidate.component} udp {candidate.priority} {host} typ {candidate.kind}"
    )


def _lines(data: bytes, *, fragment: bool = False) -> tuple[list[str], list[list[str]]]:
    """Lines above all sections, and those of each."""
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise _bad("It is not text.") from None
    if len(lines) > _MAX_LINES:
        raise _bad("It is too long.")
    if not fragment and lines[0] != "v=0":
        raise _bad("It does not begin with v=0.")
    session: list[str] = []
    media: list[list[str]] = []
    for line in lines:
        if line.startswith("m="):
            media.append([line])
        else:
            (media[-1] if media else session).append(line)
    return session, media


def _section(index: int, lines: list[str]) -> Section:
    parts = lines[0][2:].split()
    if len(parts) < 4:
        raise _bad("A media section cannot be read.")
    kind, _, protocol, *numbers = parts
    mid = _first(lines, "mid") or str(index)
    if not _TOKEN.fullmatch(mid) or not all(_TOKEN.fullmatch(part) for part in (kind, protocol, numbers[0])):
        raise _bad("A media section cannot be read.")
    maps = dict(_numbered(_values(lines, "rtpmap")))
    parameters = dict(_numbered(_values(lines, "fmtp")))
    formats = []
    for number in numbers:
        if not (number.isascii() and number.isdecimal() and int(number) < 128):
            continue
        name, _, rest = maps.get(int(number), _STATIC.get(int(number), "")).partition("/")
        clock = rest.partition("/")[0]
        if name and clock.isascii() and clock.isdecimal() and len(clock) < 10:
            formats.append(
                Format(
                    payload_type=int(number),
                    name=name.upper(),
                    clock_rate=int(clock),
                    parameters=_parameters(parameters.get(int(number), "")),
                )
            )
    direction = next((d for d in ("sendonly", "recvonly", "inactive") if f"a={d}" in lines), "sendrecv")
    used = parts[1] != "0"
    return Section(
        kind=kind,
        mid=mid,
        protocol=protocol,
        formats=tuple(formats) if kind in ("audio", "video") else (),
        first_format=numbers[0],
        wants=direction in ("recvonly", "sendrecv") and used,
        sends=direction in ("sendonly", "sendrecv") and used,
    )


def _numbered(values: Sequence[str]) -> list[tuple[int, str]]:
    found = []
    for value in values:
        number, _, rest = value.partition(" ")
        if number.isascii() and number.isdecimal() and len(number) < 4:
            found.append((int(number), rest.strip()))
    return found


def _parameters(text: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return {name.lower(): value for name, _, value in pairs if name}


def _values(lines: Sequence[str], name: str) -> list[str]:
    prefix = f"a={name}:"
    return [line[len(prefix) :].strip() for line in lines if line.startswith(prefix)]


def _first(lines: Sequence[str], name: str) -> str:
    return next(iter(_values(lines, name)), "")


def _bad(detail: str) -> GatewayError:
    return GatewayError("gb.output.bad_offer", f"The offer cannot be answered. {detail}")
