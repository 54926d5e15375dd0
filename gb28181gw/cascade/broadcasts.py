"""Sound from an upper platform to a loudspeaker below (GB/T 28181-2022 9.12.1; TK-11).

The upper tells us (Notify Broadcast); we are the listener, so when the device listens we say so and call the source
that the upper named. What it sends is taken apart here and spoken through a talk of ours, which knows how its device
wants it. Video of the same channel is another session and is not touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from typing import Final

from gb28181gw.cascade.call import CallTools
from gb28181gw.cascade.link import UpperLink
from gb28181gw.cascade.routes import Route
from gb28181gw.cascade.sharing import Key
from gb28181gw.cascade.sound import RATE, samples_of
from gb28181gw.errors import GatewayError
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.manscdp.broadcast import BroadcastNotify, BroadcastResponse, write_broadcast_response
from gb28181gw.gb.sdp import Offer, Payload, Transport, agree, parse_sdp
from gb28181gw.media.engine import (
    EngineEvent,
    EventKind,
    MediaTransport,
    Receiver,
    ReceiverSpec,
    ReceiverUpdate,
)
from gb28181gw.media.ports import PortLease
from gb28181gw.media.ssrc import SsrcLease
from gb28181gw.media.tracks import Frame
from gb28181gw.sessions.microphone import Microphone
from gb28181gw.sessions.talk import Holder
from gb28181gw.sip.dialog import Dialog
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import Answer
from gb28181gw.ua.passage import passing

_PAYLOADS: Final = (Payload(8, "PCMA", 8000),)
_LISTEN_S: Final = 12.0
"""Until the device listens: then the upper is told ERROR."""
_ANSWER_S: Final = 10.0
_SILENCE_S: Final = 30.0
_BYE_S: Final = 4.0
_NOT_LIKE_THIS: Final = frozenset({415, 488, 606})
"""Answers of a source that cannot send what was offered (RFC 3261 13.2.1)."""


@dataclass(slots=True)
class BroadcastCounters:
    """Plain counters for the exporter, summed over all uppers."""

    asked: int = 0
    refused: int = 0
    started: int = 0


class UpperBroadcast:
    """One of them: owner of its talk, its call to the upper, and the receiver between them."""

    def __init__(
        self,
        tools: CallTools,
        counters: BroadcastCounters,
        link: UpperLink,
        key: Key,
        notify: BroadcastNotify,
        route: Route,
    ) -> None:
        self._route = route
        self._tools = tools
        self._talks = tools.talks
        self._counters = counters
        self._link = link
        self.key = self._key = key
        self._notify = notify
        self._talk_id = ""
        self._microphone: Microphone | None = None
        self._stream_id = f"upper-{secrets.token_hex(8)}"
        self._receiver: Receiver | None = None
        self._port: PortLease | None = None
        self._ssrc: SsrcLease | None = None
        self._dialog: Dialog | None = None
        self._transport = MediaTransport.UDP
        self._watching: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._reason = ""

    async def run(self) -> None:
        """Until it is over. Raises GatewayError when it never began; the upper was told ERROR then."""
        try:
            try:
                with passing(self._route.passage()):
                    await self._listen()
            except GatewayError:
                self._counters.refused += 1
                await reply(self._link, self._notify, ok=False)
                raise
            await reply(self._link, self._notify, ok=True)
            self._watching = asyncio.get_running_loop().create_task(self._watch())
            await self._call()
            self._counters.started += 1
            self._tell("upper.stream_started")
            await self._ended.wait()
            self._tell("upper.stream_stopped", reason=self._reason)
            await self._hang_up()
        finally:
            await self._release()

    def end(self, reason: str) -> None:
        """Idempotent; the first reason counts."""
        self._reason = self._reason or reason
        self._ended.set()

    # -- its steps -----------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """The device below."""
        upper = self._link.upper
        try:
            async with asyncio.timeout(_LISTEN_S):
                view = await self._talks.start(
                    self._key.device_id,
                    self._key.channel_id,
                    Holder(key_id=f"upper:{upper.id}", name=upper.name or upper.id),
                )
        except TimeoutError:
            raise GatewayError("gb.sip.no_answer", f"Device {self._key.device_id} does not listen.") from None
        self._talk_id = view.id
        # Before its first packet: nobody else speaks in a talk of an upper.
        peer = self._link.path.peer if self._link.path else upper.id
        self._microphone = self._talks.take_microphone(view.id, kind="upper", client=peer)

    async def _call(self) -> None:
        """The source above."""
        tools, upper = self._tools, self._link.upper
        port = self._port = tools.ports.acquire(f"upper {upper.id}")
        ssrc = self._ssrc = tools.ssrcs.acquire(True, f"upper {upper.id}")
        tools.engine.create_stream(self._stream_id, lambda event: None)
        tools.engine.add_frame_sink(self._stream_id, self._on_frames, video=False)
        try:
            await self._invite(MediaTransport.UDP, port, ssrc)
        except GatewayError as error:
            if error.sip_status not in _NOT_LIKE_THIS:
                raise
            # It has no UDP for sound, or no way for it: then it may connect to us.
            await self._invite(MediaTransport.TCP_PASSIVE, port, ssrc)

    async def _invite(self, transport: MediaTransport, port: PortLease, ssrc: SsrcLease) -> None:
        """One offer. Raises GatewayError."""
        tools, upper = self._tools, self._link.upper
        target = self._link.target(self._notify.source_id)
        if self._receiver is not None:
            tools.engine.close_receiver(self._receiver.id)
            self._receiver = None
        self._transport = transport
        try:
            self._receiver = await tools.engine.open_receiver(
                ReceiverSpec(
                    transport=transport,
                    host=tools.media_listen,
                    port=port.port,
                    ssrc=ssrc.value,
                    payloads={one.number: one.encoding for one in _PAYLOADS},
                    expected_hosts=frozenset({target.path.remote_host, *upper.media_allow}),
                    silence_s=_SILENCE_S,
                ),
                self._on_media,
            )
        except OSError as error:
            port.mark_taken()
            raise GatewayError("gb.media.bind_failed", f"No media port could be bound: {error}.") from error
        tools.engine.attach(self._receiver.id, self._stream_id)
        offer = Offer(
            user=self._notify.target_id,
            host=upper.media_advertise or tools.media_advertise or target.path.local_host,
            port=self._receiver.port,
            ssrc=ssrc.value,
            transport=Transport(transport),
            payloads=_PAYLOADS,
            kind="audio",
        )
        answer = await tools.agent.invite(
            target,
            sdp=offer.to_bytes(),
            subject=f"{self._notify.source_id}:{ssrc.text},{self._notify.target_id}:1",
            timeout_s=_ANSWER_S,
            from_user=self._notify.target_id,
            from_domain=upper.domain,
        )
        self._accept(offer, answer)

    def _accept(self, offer: Offer, answer: Answer) -> None:
        agent = self._tools.agent
        self._dialog = answer.dialog
        agent.watch_dialog(answer.dialog, self._in_dialog, user=self._link.upper.id)
        agent.ack(answer.dialog)
        try:
            agreed = agree(offer, parse_sdp(answer.sdp))
        except GbError as error:
            self.end("bad_sdp")
            raise GatewayError("gb.sdp.bad_sdp", f"The upper's answer cannot be read: {error}.") from error
        if self._receiver is not None:
            self._tools.engine.update_receiver(
                self._receiver.id,
                ReceiverUpdate(ssrc=agreed.ssrc, payloads=agreed.payloads, acknowledged=True),
            )

    # -- what happens --------------------------------------------------------------------------------------

    def _on_frames(self, frames: list[Frame]) -> None:
        for pcm in samples_of(frames):
            if self._microphone is not None:
                with contextlib.suppress(GatewayError):  # the talk below has ended, which `_watch` sees
                    self._microphone.feed(pcm, RATE)

    async def _watch(self) -> None:
        try:
            reason = await self._talks.ended(self._talk_id)
        except GatewayError:
            reason = ""  # it was over before we looked
        self.end(reason or "device_bye")

    def _on_media(self, event: EngineEvent) -> None:
        if event.kind is EventKind.SILENCE:
            self.end("silent")

    def _in_dialog(self, incoming: Incoming) -> None:
        incoming.respond(200)
        if incoming.method == "BYE":
            self._dialog_over()
            self.end("upper_bye")

    # -- ends ----------------------------------------------------------------------------------------------

    def _dialog_over(self) -> None:
        if self._dialog is not None:
            self._tools.agent.unwatch_dialog(self._dialog)
            self._dialog = None

    async def _hang_up(self) -> None:
        dialog = self._dialog
        self._dialog_over()
        if dialog is not None:
            with contextlib.suppress(GatewayError):
                await self._tools.agent.send_in_dialog(dialog, "BYE", path=self._link.path, timeout_s=_BYE_S)

    async def _release(self) -> None:
        self._dialog_over()
        if self._watching is not None:
            self._watching.cancel()
        engine = self._tools.engine
        if self._receiver is not None:
            engine.close_receiver(self._receiver.id)
        engine.close_stream(self._stream_id)
        for lease in (self._port, self._ssrc):
            if lease is not None:
                lease.release()
        if self._talk_id:
            with contextlib.suppress(GatewayError):  # it has ended by itself
                await self._talks.stop(self._talk_id, "upper_gone")

    def _tell(self, event: str, **fields: object) -> None:
        self._tools.bus.emit(
            event,
            upper_id=self._link.upper.id,
            device_id=self._key.device_id,
            channel_id=self._key.channel_id,
            call_id=self._dialog.call_id if self._dialog is not None else None,
            ssrc=self._ssrc.text if self._ssrc is not None else None,
            transport=self._transport.value,
            kind="broadcast",
            user_identity=self._route.identity or None,
            **fields,
        )


async def reply(link: UpperLink, notify: BroadcastNotify, *, ok: bool) -> None:
    """Response/Broadcast. Raises GatewayError."""
    body = write_broadcast_response(
        BroadcastResponse(sn=notify.sn, device_id=notify.target_id, ok=ok), link.upper.dialect.charset_used
    )
    await link.send(body)
