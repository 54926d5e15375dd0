"""The media and the dialog of one talk: port, SSRC, RTP sink, and who called whom. Opened and closed as a whole.

Two ways lead to the same leg (TK-01)::

    answer   the device called us after a Broadcast (9.12.1): offer read, port bound, record stored, 200; sound starts
             with its ACK, or half a second later when none comes (TK-08)
    invite   we call it with s=Talk (GB/T 28181-2016): port bound, INVITE, record stored, ACK, sound; it may speak back
             on the same port or connection

What the device says back is received, so that its packets are not answered with ICMP errors, and feeds `hears_id`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gb28181gw.errors import GatewayError
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.sdp import CONTENT_TYPE, Sdp, SdpMedia, Setup, agree, parse_sdp
from gb28181gw.gb.talk import TALK_PAYLOADS, AudioForm, audio_of, broadcast_answer, talk_offer
from gb28181gw.media.engine import (
    EngineEvent,
    EventKind,
    MediaTransport,
    Receiver,
    ReceiverSpec,
    ReceiverUpdate,
    RtpPacking,
    RtpSink,
    RtpSinkSpec,
    RtpSinkUpdate,
)
from gb28181gw.media.ports import PortLease
from gb28181gw.media.ssrc import SsrcLease, ssrc_text
from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire.aac import audio_specific_config
from gb28181gw.sessions.call import CallContext
from gb28181gw.sessions.models import CallRecord
from gb28181gw.sip.dialog import Dialog
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import Target

ACK_WAIT_S: Final = 0.5
"""Sound starts without an ACK after so long (TK-08)."""

_CODECS: Final = {"PCMA": Codec.PCMA, "PCMU": Codec.PCMU, "AAC": Codec.AAC, "PS": Codec.PCMA}


@dataclass(frozen=True, slots=True, kw_only=True)
class LegOwner:
    """Whose leg it is, and who hears of it."""

    device_id: str
    channel_id: str
    talk_id: str
    """Also the engine's stream that the sound is pushed into."""
    hears_id: str
    """The engine's stream of what the device says."""
    changed: Callable[[], None]


class TalkLeg:
    """Owner of one port, one SSRC, one RTP sink and one dialog."""

    def __init__(self, context: CallContext, owner: LegOwner) -> None:
        self._context = context
        self._owner = owner
        self.form: AudioForm | None = None
        self.transport = MediaTransport.UDP
        self.ssrc = 0
        self.ended = ""
        """Why the device or the media ended it; empty while it stands."""
        self.connected = False
        self._port: PortLease | None = None
        self._lease: SsrcLease | None = None
        self._receiver: Receiver | None = None
        self._sink: RtpSink | None = None
        self._dialog: Dialog | None = None
        self._record: CallRecord | None = None
        self._acked = asyncio.Event()
        self._closed = False
        self._forgetting: asyncio.Task[None] | None = None

    # ---- what the owner reads

    @property
    def codec(self) -> Codec:
        return _CODECS[self.form.encoding] if self.form is not None else Codec.PCMA

    @property
    def sample_rate(self) -> int:
        return self.form.sample_rate if self.form is not None else 8_000

    @property
    def ssrc_text(self) -> str:
        return ssrc_text(self.ssrc) if self.ssrc else ""

    @property
    def remote(self) -> str:
        """``ip:port`` that sound is sent to; empty while unknown."""
        if self._sink is None:
            return ""
        found = self._context.engine.rtp_sink_counters([self._sink.id]).get(self._sink.id)
        return found.remote if found is not None else ""

    # ---- the device calls us

    async def answer(self, incoming: Incoming) -> None:
        """Agree to a listener's INVITE. Raises GatewayError after having refused it with a SIP status."""
        try:
            offer = parse_sdp(incoming.request.body)
        except GbError as error:
            incoming.respond(400)
            raise GatewayError(
                "gb.sdp.bad_sdp", f"The device's INVITE has no readable SDP: {error}."
            ) from None
        media = next((entry for entry in offer.media if entry.kind == "audio"), offer.first)
        self.form = audio_of(media)
        if self.form is None:
            incoming.respond(488)
            asked = ", ".join(name or str(number) for number, name in media.encodings.items()) or "nothing"
            raise GatewayError(
                "gb.codec.codec_unsupported",
                f"The device wants {asked} to listen to; PCMA, PCMU, AAC and PS can be sent.",
            )
        try:
            await self._bind_towards(incoming, offer, media)
            await self._agree(incoming, offer)
        except BaseException:
            if not incoming.answered:
                incoming.respond(500)
            raise
        self._send()

    async def _bind_towards(self, incoming: Incoming, offer: Sdp, media: SdpMedia) -> None:
        """Port, SSRC and sink as the offer wants them; nothing is sent yet."""
        context, seen = self._context, incoming.path.remote_host
        remote = (_believed(offer.host_of(media), seen), media.port) if media.port else None
        if not media.tcp:
            self.transport = MediaTransport.UDP
        elif media.setup is Setup.PASSIVE and remote is not None:
            self.transport = MediaTransport.TCP_ACTIVE
        else:
            self.transport = MediaTransport.TCP_PASSIVE
        if offer.y is None:
            self._lease = context.ssrcs.acquire(True, self._owner.talk_id)
            self.ssrc = self._lease.value
        else:
            self.ssrc = offer.y  # TK-07: devices drop sound under any other
        self._sink = await self._bind(
            lambda port: self._spec(
                host=context.media_listen, port=port, remote=remote, expected_hosts=frozenset({seen})
            )
        )

    async def _agree(self, incoming: Incoming, offer: Sdp) -> None:
        """The dialog is durable before our 200, so that a killed gateway can still end it (SES-02, TK-10)."""
        context = self._context
        assert self.form is not None and self._sink is not None  # noqa: S101 - bound before
        dialog = Dialog.as_uas(incoming.request, incoming.to_tag, incoming.path)
        await self._keep(dialog)
        answer = broadcast_answer(
            offer,
            self.form,
            user=context.own_id,
            host=context.media_advertise or incoming.path.local_host,
            port=self._sink.port,
            ssrc=self.ssrc,
            aac_config=audio_specific_config(self.form.sample_rate, 1),
        )
        incoming.on_ack = lambda _request: self._acked.set()
        incoming.on_cancel = lambda: self._over("cancelled")
        incoming.on_no_ack = lambda: self._over("no_ack")
        incoming.respond(200, body=answer.to_bytes(), content_type=CONTENT_TYPE)
        try:
            async with asyncio.timeout(ACK_WAIT_S):
                await self._acked.wait()
        except TimeoutError:
            return

    # ---- we call the device

    async def invite(self, target: Target, transport: MediaTransport, timeout_s: float) -> None:
        """Ask for a talk both ways. Raises GatewayError as `UserAgent.invite`."""
        context = self._context
        self.transport = transport
        self._lease = context.ssrcs.acquire(True, self._owner.talk_id)
        self.ssrc = self._lease.value
        receiver = await self._bind_receiver(transport, target)
        offer = talk_offer(
            user=context.own_id,
            host=context.media_advertise or target.path.local_host,
            port=receiver.port,
            ssrc=self.ssrc,
            transport=transport.value,
        )
        answer = await context.ua.invite(
            target,
            sdp=offer.to_bytes(),
            subject=f"{self._owner.channel_id}:{ssrc_text(self.ssrc)},{context.own_id}:0",
            timeout_s=timeout_s,
        )
        try:
            await self._keep(answer.dialog)
        finally:
            context.ua.ack(answer.dialog)
        try:
            sdp = parse_sdp(answer.sdp)
        except GbError as error:
            raise GatewayError(
                "gb.sdp.bad_sdp", f"The 200 to INVITE carries no readable SDP: {error}."
            ) from None
        self.form = audio_of(sdp.first) or AudioForm(payload_type=8, encoding="PCMA")
        agreed, seen = agree(offer, sdp), target.path.remote_host
        remote = (_believed(agreed.host, seen), agreed.port) if agreed.port else None
        context.engine.update_receiver(
            receiver.id,
            ReceiverUpdate(
                ssrc=agreed.ssrc,
                payloads=agreed.payloads,
                connect=remote if agreed.dial else None,
                acknowledged=True,
            ),
        )
        self._sink = await context.engine.add_rtp_sink(
            self._owner.talk_id,
            self._spec(through=receiver.id, remote=remote if transport is MediaTransport.UDP else None),
            self._on_media,
        )
        self._send()

    async def _bind_receiver(self, transport: MediaTransport, target: Target) -> Receiver:
        """For a talk both ways, on the shared port where there is one: the SSRC is ours, and the device sends under it.

        A broadcast keeps a port of its own. Nothing comes from its listener that would tell whose a TCP connection
        is, and the SSRC is of the device's choice and may be that of a stream.
        """
        context = self._context
        if context.shared_port:
            number = 0 if transport is MediaTransport.TCP_ACTIVE else context.shared_port
            spec = self._receiver_spec(transport, target, number, shared=number != 0)
            self._receiver = await context.engine.open_receiver(spec, self._on_media)
            context.engine.attach(self._receiver.id, self._owner.hears_id)
            return self._receiver
        for _ in range(context.limits.bind_tries):
            port = context.ports.acquire(self._owner.talk_id)
            spec = self._receiver_spec(transport, target, port.port, shared=False)
            try:
                self._receiver = await context.engine.open_receiver(spec, self._on_media)
            except OSError:
                port.mark_taken()
                continue
            except BaseException:
                port.release()
                raise
            self._port = port
            context.engine.attach(self._receiver.id, self._owner.hears_id)
            return self._receiver
        raise _all_taken(context.limits.bind_tries)

    def _receiver_spec(
        self, transport: MediaTransport, target: Target, port: int, *, shared: bool
    ) -> ReceiverSpec:
        return ReceiverSpec(
            transport=transport,
            host=self._context.media_listen,
            port=port,
            ssrc=self.ssrc,
            payloads={payload.number: payload.encoding for payload in TALK_PAYLOADS},
            expected_hosts=frozenset({target.path.remote_host}),
            source_mode=self._context.source_mode,
            silence_s=0.0,
            shared=shared,
        )

    # ---- both

    async def _bind(self, spec: Callable[[int], RtpSinkSpec]) -> RtpSink:
        context = self._context
        for _ in range(context.limits.bind_tries):
            port = context.ports.acquire(self._owner.talk_id)
            try:
                sink = await context.engine.add_rtp_sink(self._owner.talk_id, spec(port.port), self._on_media)
            except OSError:
                port.mark_taken()
                continue
            except BaseException:
                port.release()
                raise
            self._port = port
            return sink
        raise _all_taken(context.limits.bind_tries)

    def _spec(
        self,
        *,
        host: str = "",
        port: int = 0,
        remote: tuple[str, int] | None = None,
        expected_hosts: frozenset[str] = frozenset(),
        through: int | None = None,
    ) -> RtpSinkSpec:
        """The sink for the agreed form."""
        assert self.form is not None  # noqa: S101 - agreed before
        ps = self.form.encoding == "PS"
        return RtpSinkSpec(
            transport=self.transport,
            host=host,
            port=port,
            ssrc=self.ssrc,
            payload_type=self.form.payload_type,
            packing=RtpPacking.PS if ps else RtpPacking.ES,
            codec="" if ps else self.codec.value,
            video=not ps,
            remote=remote,
            expected_hosts=expected_hosts,
            through=through,
        )

    async def _keep(self, dialog: Dialog) -> None:
        """Store and watch the dialog."""
        context, owner = self._context, self._owner
        bound = self._receiver or self._sink
        assert bound is not None  # noqa: S101 - bound before
        self._dialog = dialog
        self._record = CallRecord(
            id=secrets.token_hex(16),
            device_id=owner.device_id,
            channel_id=owner.channel_id,
            dialog=dialog.to_record(),
            ssrc=self.ssrc,
            port=bound.port,
            transport=self.transport.value,
            payloads={},
            created_at=context.clock.wall(),
            live=False,
        )
        context.ua.watch_dialog(dialog, self._on_request, user=owner.device_id)
        await context.store.save_call(self._record)

    def _send(self) -> None:
        assert self._sink is not None  # noqa: S101 - made before
        self._context.engine.update_rtp_sink(self._sink.id, RtpSinkUpdate(sending=True))

    def _on_media(self, event: EngineEvent) -> None:
        if event.kind is EventKind.CONNECTED:
            self.connected = True
            self._owner.changed()
        elif event.kind is EventKind.CONNECT_FAILED:
            self._over("tcp_not_connected")
        elif event.kind in (EventKind.SINK_CLOSED, EventKind.DISCONNECTED):
            self._over(event.detail or "media_lost")

    def _on_request(self, incoming: Incoming) -> None:
        """A request of the device inside our dialog."""
        if incoming.method == "BYE":
            incoming.respond(200)
            if self._record is not None:
                self._forgetting = asyncio.create_task(self._context.ender.forget(self._record))
                self._record = None
            self._over("device_bye")
        elif incoming.method == "INVITE":
            incoming.respond(488)
        else:
            incoming.respond(200)

    def _over(self, reason: str) -> None:
        if not self.ended and not self._closed:
            self.ended = reason
            self._owner.changed()

    def close(self) -> asyncio.Task[None] | None:
        """Free everything once and tell the device. Returns the BYE that is under way, if one is."""
        if self._closed:
            return None
        self._closed = True
        context, ending = self._context, None
        if self._sink is not None:
            context.engine.close_sink(self._sink.id)
        if self._receiver is not None:
            context.engine.close_receiver(self._receiver.id)
        if self._dialog is not None:
            context.ua.unwatch_dialog(self._dialog)
            if self._record is not None:
                ending = context.ender.end(self._record, self._dialog)
        for lease in (self._port, self._lease):
            if lease is not None:
                lease.release()
        return ending


def _all_taken(tries: int) -> GatewayError:
    return GatewayError("gb.media.bind_failed", f"{tries} media ports in a row are used by other programs.")


def _believed(announced: str, seen: str) -> str:
    """The announced address only beside the one that signals (INV-17, S-11)."""
    try:
        first, second = ipaddress.ip_address(announced), ipaddress.ip_address(seen)
    except ValueError:
        return seen
    return (
        announced if first.version == second.version == 4 and first.packed[:2] == second.packed[:2] else seen
    )
