"""How a simulated device takes part in broadcast and talk (GB/T 28181-2022 9.12), and what it hears.

After a Broadcast the device calls the platform: `call`. An INVITE with s=Talk is answered: `answer`; such a
device speaks back too, with a tone. Both end in an `Ear`; what it heard is written as a WAV file where that was asked
for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, Protocol

from gb28181gw.sim.ear import RATE, Ear
from gb28181gw.sim.options import DeviceOptions, TalkCodec, TalkTransport
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.registration import USER_AGENT
from gb28181gw.sim.sdp import Offer, OfferError, read_offer, write_audio
from gb28181gw.sim.signalling import NoAnswerError, Signalling
from gb28181gw.sim.tone import say_tone
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Headers, Request

TONE_HZ: Final = 1_000
"""What a device says back in a talk."""
ANSWER_S: Final = 10.0


class Note(Protocol):
    def __call__(self, what: str, **facts: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkServices:
    """What a talk needs of its device."""

    device_id: str
    server_id: str
    domain: str
    options: DeviceOptions
    quirks: frozenset[Quirk]
    signalling: Signalling
    note: Note
    spawn: Callable[[Coroutine[None, None, None]], None]
    rng: random.Random


class Talking:
    """One talk of the device, whoever called. Owner of its ear and its dialog."""

    def __init__(
        self, services: TalkServices, user: str, codec: TalkCodec, ended: Callable[[Talking], None]
    ) -> None:
        self.user = user
        """The device's own id in this talk: its loudspeaker, or the channel."""
        self.call_id = ""
        self.ear = Ear(codec, self._heard)
        self.over = False
        self._services = services
        self._ended = ended
        self._dialog: Dialog | None = None
        self._announced: tuple[str, int] = ("", 0)
        self._ssrc: int | None = None
        self._ack: Request | None = None
        self._told = False

    # --- the device calls -----------------------------------------------------------------------------------------

    async def call(self) -> None:
        """INVITE the platform, which has announced a broadcast to `user`."""
        services = self._services
        quirks, signalling = services.quirks, services.signalling
        transport: TalkTransport = services.options.talk_transport
        host = signalling.socket_address[0]
        port = await self.ear.open(host, transport)
        caller = services.device_id if Quirk.TK_03 in quirks else self.user
        self._ssrc = 200_000_000 + services.rng.randrange(1_000_000)
        sdp = write_audio(
            device_id=caller,
            host=host,
            port=port,
            transport=transport,
            codec="g729" if Quirk.TK_05_G729 in quirks else self.ear.codec,
            session="Play",
            direction="recvonly",
            ssrc=self._ssrc,
            bare=Quirk.TK_04 in quirks,
        )
        if Quirk.TK_04_UNREAD in quirks:
            sdp = sdp[: sdp.index(b"m=")]
        request = Request("INVITE", f"sip:{services.server_id}@{services.domain}", self._headers(caller), sdp)
        self.call_id = request.call_id
        services.note("listen_call", channel_id=self.user, call_id=self.call_id)
        try:
            response = await signalling.ask(request, ANSWER_S)
            if response.status >= 300:
                services.note("listen_refused", channel_id=self.user, status=response.status)
                self.end("refused")
                return
            self._dialog = Dialog.as_uac(request, response, signalling.path())
            answer = read_offer(response.body)
        except (NoAnswerError, OfferError, SipParseError) as error:
            services.note("listen_failed", channel_id=self.user, error=str(error))
            self.end("failed")
            return
        self._believe(answer)
        ack = self._dialog.request("ACK")
        if Quirk.TK_08 in quirks:
            self._ack = ack
        else:
            signalling.acknowledge(ack)
        if transport == "tcp-active" and Quirk.INV_21 not in quirks:
            self.ear.dial(answer.host, answer.port)

    def _headers(self, caller: str) -> Headers:
        services = self._services
        local = services.signalling.local
        return Headers(
            [
                ("From", f"<sip:{caller}@{services.domain}>;tag={services.signalling.tag()}"),
                ("To", f"<sip:{services.server_id}@{services.domain}>"),
                ("Call-ID", f"{services.rng.getrandbits(64):016x}@sim"),
                ("CSeq", "1 INVITE"),
                ("Max-Forwards", "70"),
                ("Contact", f"<sip:{caller}@{local[0]}:{local[1]}>"),
                ("Subject", f"{services.server_id}:0,{caller}:0"),
                ("User-Agent", USER_AGENT),
                ("Content-Type", "application/sdp"),
            ]
        )

    # --- the platform calls ---------------------------------------------------------------------------------------

    async def answer(self, request: Request, offer: Offer, tag: str) -> None:
        """200 to an INVITE with s=Talk, and a tone back."""
        services = self._services
        host = services.signalling.socket_address[0]
        transport: TalkTransport = "udp"
        if offer.tcp:
            transport = "tcp-passive" if offer.setup == "active" else "tcp-active"
        port = await self.ear.open(host, transport)
        self.call_id = request.call_id
        self._dialog = Dialog.as_uas(request, tag, services.signalling.path())
        body = write_audio(
            device_id=self.user,
            host=host,
            port=port,
            transport=transport,
            codec=self.ear.codec,
            session="Talk",
            direction="sendrecv",
            ssrc=offer.ssrc,
        )
        local = services.signalling.local
        services.signalling.reply(
            request,
            200,
            to_tag=tag,
            headers=[
                ("Contact", f"<sip:{self.user}@{local[0]}:{local[1]}>"),
                ("Content-Type", "application/sdp"),
                ("User-Agent", USER_AGENT),
            ],
            body=b"" if Quirk.F_05_NO_SDP in services.quirks else body,
        )
        self._believe(offer)
        if transport == "tcp-active":
            if Quirk.INV_21 not in services.quirks:
                self.ear.dial(offer.host, offer.port)
        else:
            self.ear.send_to(offer.host, offer.port)
        if Quirk.F_05_NO_RTP not in services.quirks:
            services.spawn(self._say())

    async def _say(self) -> None:
        await say_tone(self.ear, self._ssrc or 1, TONE_HZ)

    # --- both -----------------------------------------------------------------------------------------------------

    def _believe(self, sdp: Offer) -> None:
        self._announced = (sdp.host, sdp.port)
        if sdp.ssrc is not None:
            self._ssrc = sdp.ssrc
        for part in sdp.fmtp.split(";"):
            name, _, value = part.strip().partition("=")
            if name == "config":
                self.ear.parameter_sets = bytes.fromhex(value)

    def _heard(self) -> None:
        """Something came, or a connection was made."""
        services = self._services
        if self._ack is not None and self.ear.packets:
            ack, self._ack = self._ack, None
            services.signalling.acknowledge(ack)
        if not self._told and self.ear.packets:
            self._told = True
            services.note("hears", channel_id=self.user, call_id=self.call_id, ssrc=self._ssrc)
        if Quirk.TK_07 in services.quirks and self.ear.packets and not self.over:
            # Without SDP of the answer yet nothing can be compared.
            foreign = self._announced[1] and self.ear.sources - {self._announced}
            if (foreign and not self.ear.connected) or self.ear.ssrcs - {self._ssrc}:
                services.note("wrong_sound", channel_id=self.user)
                services.spawn(self.hang_up())

    async def hang_up(self) -> None:
        """BYE."""
        if self._dialog is not None and not self.over:
            try:
                await self._services.signalling.ask(self._dialog.request("BYE"), 4.0)
            except NoAnswerError:
                self._services.note("bye_unanswered", channel_id=self.user)
        self.end("own_bye")

    def end(self, reason: str) -> None:
        """Idempotent."""
        if self.over:
            return
        self.over = True
        self.ear.close()
        services = self._services
        services.note(
            "heard",
            channel_id=self.user,
            call_id=self.call_id,
            reason=reason,
            packets=self.ear.packets,
            seconds=round(len(self.ear.pcm) / 2 / RATE, 3),
        )
        if services.options.hear_dir is not None and self.ear.pcm:
            self.ear.save(
                services.options.hear_dir / f"{self.user}-{self.call_id.partition('@')[0][:16]}.wav"
            )
        self._ended(self)


def is_talk(request: Request) -> bool:
    """Whether an INVITE asks for a talk."""
    try:
        return read_offer(request.body).session.lower() == "talk"
    except OfferError:
        return False
