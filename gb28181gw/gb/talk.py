"""Audio towards a device (GB/T 28181-2022 9.12, C.2.4): what it asks for, and what we offer and answer.

The listener decides the form: raw G.711 under its static payload type, AAC, or audio inside a program stream as the
2014 supplement had it (TK-05). `audio_of` reads its wish, `broadcast_answer` and `talk_offer` write ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.gb.sdp import Answer, Offer, Payload, Sdp, SdpMedia, SessionKind, Transport, answer_to

_AAC_MODE = "streamtype=5;profile-level-id=16;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3"
F_AUDIO = {"PCMA": "v/////a/1/8/1", "PCMU": "v/////a/1/8/1", "AAC": "v/////a/6//1"}
"""``f=`` of what we send (Annex G): G.711 at 64 kbit/s and 8 kHz; AAC at 8 kHz."""

_PCMA = Payload(8, "PCMA", 8_000)
_PCMU = Payload(0, "PCMU", 8_000)
_PS = Payload(96, "PS")
TALK_PAYLOADS = (_PCMA, _PCMU, _PS)
"""Best first: A-law is what the standard asks every decoder to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioForm:
    """How sound travels in one session."""

    payload_type: int
    encoding: str
    """``PCMA``, ``PCMU``, ``AAC`` or ``PS``; inside PS it is A-law."""
    sample_rate: int = 8_000

    def payload(self, aac_config: bytes = b"") -> Payload:
        """For the SDP; `aac_config`: the AudioSpecificConfig that goes into its fmtp (RFC 3640 4.1)."""
        if self.encoding == "AAC":
            return Payload(
                self.payload_type, "AAC", self.sample_rate, f"{_AAC_MODE};config={aac_config.hex()}"
            )
        return Payload(
            self.payload_type, self.encoding, 90_000 if self.encoding == "PS" else self.sample_rate
        )


def audio_of(media: SdpMedia) -> AudioForm | None:
    """The form to send: the first one that we have, in the order in which the device names them; None: none of ours.

    AAC goes by RFC 3640 at 8, 16, 32, 44.1 or 48 kHz, mono.
    """
    rates = {entry.number: (entry.clock_rate, entry.channels) for entry in media.rtpmaps}
    for number, encoding in media.encodings.items():
        rate, channels = rates.get(number, (8_000, 1))
        if encoding in ("PCMA", "PCMU") and rate == 8_000:
            return AudioForm(payload_type=number, encoding=encoding)
        if encoding in ("AAC", "MPEG4-GENERIC") and channels == 1 and rate in _AAC_RATES:
            return AudioForm(payload_type=number, encoding="AAC", sample_rate=rate)
        if encoding == "PS":
            return AudioForm(payload_type=number, encoding="PS")
    return None


_AAC_RATES = frozenset({8_000, 16_000, 32_000, 44_100, 48_000})


def broadcast_answer(
    offer: Sdp, form: AudioForm, *, user: str, host: str, port: int, ssrc: int, aac_config: bytes = b""
) -> Answer:
    """The 200 to a listener's INVITE: its transport, the other role, ``a=sendonly`` (9.12.1)."""
    return answer_to(
        offer,
        user=user,
        host=host,
        port=port,
        ssrc=ssrc,
        payloads=(form.payload(aac_config),),
        f=F_AUDIO.get(form.encoding, F_AUDIO["PCMA"]),
    )


def talk_offer(
    *, user: str, host: str, port: int, ssrc: int, transport: Transport | str = Transport.UDP
) -> Offer:
    """An INVITE with ``s=Talk`` for devices that know no broadcast (GB/T 28181-2016, Annex F; gone in 2022)."""
    return Offer(
        user=user,
        host=host,
        port=port,
        ssrc=ssrc,
        transport=Transport(transport),
        payloads=TALK_PAYLOADS,
        session=SessionKind.TALK,
        kind="audio",
        f=F_AUDIO["PCMA"],
        direction="sendrecv",
    )
