"""The device's half of the offer and answer: read what the platform offers, write what the device accepts.

Read and written apart from the gateway's SDP codec, for the same reason as `bodies`. GB/T 28181-2022 Annex G.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.quirks import Quirk


class OfferError(ValueError):
    """The body is no offer that a device can answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What matters of the platform's SDP."""

    session: str
    host: str
    port: int
    tcp: bool
    setup: str
    """``passive``: the platform listens; ``active``: it dials; empty: not said."""
    payloads: tuple[tuple[int, str], ...]
    """(payload type, encoding name in capitals) in the order of preference."""
    ssrc: int | None
    kind: str = "video"
    fmtp: str = ""
    """Of the first payload type that has one."""
    start: int = 0
    stop: int = 0
    speed: float = 1.0
    """`a=downloadspeed`."""

    @property
    def is_history(self) -> bool:
        """Playback or download (9.8, 9.9)."""
        return self.session.lower() in ("playback", "download")

    @property
    def only_ps(self) -> bool:
        return all(name == "PS" for _, name in self.payloads)

    @property
    def ps_payload(self) -> int | None:
        return next((number for number, name in self.payloads if name == "PS"), None)


_STATIC = {0: "PCMU", 8: "PCMA", 33: "MP2T", 96: "PS"}


def read_offer(body: bytes) -> Offer:
    """Raises OfferError."""
    session = host = setup = fmtp = ""
    kind_of_media = "video"
    port = 0
    tcp = False
    numbers: list[int] = []
    names: dict[int, str] = {}
    ssrc: int | None = None
    start = stop = 0
    speed = 1.0
    try:
        for raw in body.decode("utf-8", "replace").splitlines():
            kind, equals, value = raw.strip().partition("=")
            if not equals:
                continue
            if kind == "s":
                session = value.strip()
            elif kind == "c":
                host = value.split()[2].partition("/")[0]
            elif kind == "t":
                first, second = value.split()[:2]
                start, stop = int(first), int(second)
            elif kind == "m" and not port:
                parts = value.split()
                kind_of_media = parts[0].lower()
                port, tcp = int(parts[1]), parts[2].upper().startswith("TCP")
                numbers = [int(part) for part in parts[3:]]
            elif kind == "y":
                ssrc = int(value.strip())
            elif kind == "a":
                name, _, rest = value.partition(":")
                if name == "setup":
                    setup = rest.strip().lower()
                elif name == "downloadspeed":
                    speed = float(rest)
                elif name == "rtpmap":
                    number, _, encoding = rest.partition(" ")
                    names[int(number)] = encoding.strip().partition("/")[0].upper()
                elif name == "fmtp" and not fmtp:
                    fmtp = rest.partition(" ")[2].strip()
    except (ValueError, IndexError) as error:
        raise OfferError(f"SDP cannot be read: {error}") from error
    if not host or not 0 < port < 65536:
        raise OfferError("SDP without address or port")
    payloads = tuple((number, names.get(number, _STATIC.get(number, ""))) for number in numbers)
    return Offer(
        session=session,
        host=host,
        port=port,
        tcp=tcp,
        setup=setup,
        payloads=payloads,
        ssrc=ssrc,
        kind=kind_of_media,
        fmtp=fmtp,
        start=start,
        stop=stop,
        speed=speed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the device says back."""

    device_id: str
    host: str
    port: int
    tcp: bool
    setup: str
    """Role of the device: ``active`` or ``passive``; unused for UDP."""
    payload_type: int
    ssrc: int
    video: Codec
    audio: Codec | None
    width: int
    height: int
    fps: int
    bitrate_kbps: int
    session: str = "Play"
    start: int = 0
    stop: int = 0
    file_size: int = 0
    """Of a download, in bytes; 0: not said."""
    quirks: frozenset[Quirk] = field(default_factory=frozenset)


def write_answer(answer: Answer) -> bytes:
    """The SDP of the 200, spoilt as the INV rows say."""
    quirks = answer.quirks
    host, port = answer.host, answer.port
    if Quirk.INV_17 in quirks:
        listening = answer.tcp and answer.setup == "passive"
        host, port = ("192.168.1.64", port) if listening else ("0.0.0.0", 0)  # noqa: S104 - text, not a bind
    family = "IP6" if ":" in host else "IP4"
    protocol = "TCP/RTP/AVP" if answer.tcp or Quirk.INV_24 in quirks else "RTP/AVP"
    session = "EmbeddedNetDVR" if Quirk.INV_25 in quirks else answer.session
    lines = [
        "v=0",
        f"o={answer.device_id} 0 0 IN {family} {host}",
        f"s={session}",
        f"c=IN {family} {host}",
        f"t={answer.start} {answer.stop}",
        f"m=video {port} {protocol} {answer.payload_type}",
        f"a=rtpmap:{answer.payload_type} PS/90000",
        "a=sendonly",
    ]
    if answer.file_size:
        lines.append(f"a=filesize:{answer.file_size}")
    if answer.tcp and Quirk.INV_18_OMIT not in quirks:
        lines += [f"a=setup:{_announced_role(answer.setup, quirks)}", "a=connection:new"]
    if Quirk.INV_01 not in quirks:
        lines.append(f"y= {answer.ssrc}" if Quirk.INV_04 in quirks else f"y={answer.ssrc:010d}")
    lines.append(f_line(answer))
    return "\r\n".join(lines).encode() + b"\r\n"


def _announced_role(role: str, quirks: frozenset[Quirk]) -> str:
    if Quirk.INV_18_ACTPASS in quirks:
        return "actpass"
    if Quirk.INV_18 in quirks:
        return "passive" if role == "active" else "active"
    return role


def f_line(answer: Answer) -> str:
    """What is sent, in the codes of Annex G."""
    video = {Codec.H264: "2", Codec.H265: "5"}.get(answer.video, "")
    size = {720: "5", 1080: "6"}.get(answer.height, f"{answer.width}x{answer.height}")
    audio = {Codec.PCMA: "1/8/1", Codec.PCMU: "1/8/1", Codec.AAC: "6/5/1"}
    sound = "//" if answer.audio is None else audio.get(answer.audio, "//")
    return f"f=v/{video}/{size}/{answer.fps}/1/{answer.bitrate_kbps}a/{sound}"


AUDIO_FORMS = {
    "pcma": (8, "PCMA/8000"),
    "pcmu": (0, "PCMU/8000"),
    "aac": (102, "AAC/8000/1"),
    "ps": (96, "PS/90000"),
    "g729": (18, "G729/8000"),
}


def write_audio(
    *,
    device_id: str,
    host: str,
    port: int,
    transport: str,
    codec: str,
    session: str,
    direction: str,
    ssrc: int | None,
    bare: bool = False,
) -> bytes:
    """What a loudspeaker writes (9.12.1): its INVITE's offer, or its answer to s=Talk.

    `transport`: ``udp``, ``tcp-active``, ``tcp-passive`` as the device says of itself. `bare`: without o= and t=
    (TK-04).
    """
    number, encoding = AUDIO_FORMS[codec]
    family = "IP6" if ":" in host else "IP4"
    tcp = transport != "udp"
    lines = ["v=0", f"o={device_id} 0 0 IN {family} {host}", f"s={session}", f"c=IN {family} {host}", "t=0 0"]
    if bare:
        lines = [line for line in lines if line[0] not in ("o", "t")]
    lines += [
        f"m=audio {port} {'TCP/' if tcp else ''}RTP/AVP {number}",
        f"a={direction}",
        f"a=rtpmap:{number} {encoding}",
    ]
    if tcp:
        lines += [f"a=setup:{transport.removeprefix('tcp-')}", "a=connection:new"]
    if ssrc is not None:
        lines.append(f"y={ssrc:010d}")
    lines.append("f=v/////a/1/8/1")
    return "\r\n".join(lines).encode() + b"\r\n"
