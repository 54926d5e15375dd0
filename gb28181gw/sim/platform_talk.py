"""A simulated platform talks with a channel of a lower one: s=Talk, a tone down, and an ear for what comes back."""

from __future__ import annotations

import asyncio
from typing import Final

from gb28181gw.gb.sdp import Offer, Payload, SessionKind, Transport
from gb28181gw.gb.talk import F_AUDIO
from gb28181gw.sim.ear import Ear
from gb28181gw.sim.options import TalkCodec
from gb28181gw.sim.tone import say_tone
from gb28181gw.sip.dialog import Dialog

TONE_HZ: Final = 440.0
_PAYLOADS: Final = {
    "pcma": Payload(8, "PCMA", 8_000),
    "pcmu": Payload(0, "PCMU", 8_000),
    "aac": Payload(102, "AAC", 8_000),
    "ps": Payload(96, "PS"),
}


class Conversation:
    """One call. Owner of its socket; the dialog is set when the lower platform agreed."""

    def __init__(self, channel_id: str, codec: TalkCodec) -> None:
        self.channel_id = channel_id
        self.ear = Ear(codec, lambda: None)
        self.dialog: Dialog | None = None
        self.ended = asyncio.Event()
        """The lower platform ended it, or we did."""
        self._saying: asyncio.Task[None] | None = None

    async def offer(self, *, user: str, host: str, ssrc: int, transport: Transport) -> Offer:
        """Bind, and what to ask for."""
        port = await self.ear.open(host, transport.value)
        return Offer(
            user=user,
            host=host,
            port=port,
            ssrc=ssrc,
            transport=transport,
            payloads=(_PAYLOADS[self.ear.codec],),
            session=SessionKind.TALK,
            kind="audio",
            f=F_AUDIO["PCMA"],
            direction="sendrecv",
        )

    def begin(self, transport: Transport, host: str, port: int, ssrc: int) -> None:
        """Speak, to where the lower platform listens."""
        if transport is Transport.TCP_ACTIVE:
            self.ear.dial(host, port)
        else:
            self.ear.send_to(host, port)
        self._saying = asyncio.get_running_loop().create_task(say_tone(self.ear, ssrc, TONE_HZ))

    def close(self) -> None:
        """Idempotent; what was heard stays."""
        self.ended.set()
        self.ear.close()
        if self._saying is not None:
            self._saying.cancel()
