"""One call: port, SSRC, receiver, INVITE, dialog. Opened as a whole, closed as a whole.

The way of a call, top to bottom::

    bind       port and SSRC leased, receiver open and attached (the device may dial before its 200: INV-19)
    invite     offer sent; a refusal ends the call with the peer's status
    store      the dialog is durable before the ACK, so that a killed gateway can still end it (SES-02)
    ack        to the transport address of the peer (INV-16)
    believe    the answer's SSRC, payload types and addresses go into the open receiver (INV-02)
    wait       first packet, then the first key frame, each with its own deadline and its own error
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.manscdp.media_status import read_media_status
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.sdp import (
    PAYLOAD_LISTS,
    Offer,
    Payload,
    Sdp,
    SessionKind,
    Transport,
    agree,
    parse_sdp,
)
from gb28181gw.media.engine import (
    Engine,
    EngineEvent,
    EventKind,
    MediaTransport,
    Receiver,
    ReceiverCounters,
    ReceiverSpec,
    ReceiverUpdate,
)
from gb28181gw.media.ports import PortLease, PortPool
from gb28181gw.media.ssrc import SsrcLease, SsrcPool
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.ending import CallEnder
from gb28181gw.sessions.ladder import Way
from gb28181gw.sessions.models import CallRecord
from gb28181gw.sessions.store import CallStore
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.message import Response
from gb28181gw.sip.path import Path
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import Answer, Target

MAX_STATUS_BYTES = 8_192
"""Of a body in which a MediaStatus is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What an INVITE asks for; live as it stands."""

    session: SessionKind = SessionKind.PLAY
    uri: str = ""
    """`u=` of recordings (Annex G)."""
    start_time: int = 0
    """Unix seconds; 0 live."""
    end_time: int = 0
    attributes: tuple[tuple[str, str], ...] = ()
    """Further `a=` lines."""

    @property
    def live(self) -> bool:
        return self.session is SessionKind.PLAY


LIVE = Ask()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Seconds of each step."""

    answer_s: float = 10.0
    first_packet_s: float = 8.0
    key_frame_s: float = 10.0
    ask_key_frame_s: float = 1.0
    """So long after the first packet a key frame is asked for (MED-34)."""
    silence_s: float = 10.0
    farewell_s: float = 0.5
    """So long after the device closed its media connection its BYE may come."""
    bind_tries: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """What every call of this gateway shares."""

    own_id: str
    media_listen: str
    media_advertise: str
    """Host written into offers; empty: the address that the device talks to (INV-22, NET-01)."""
    source_mode: str
    ua: UserAgent
    engine: Engine
    ports: PortPool
    ssrcs: SsrcPool
    store: CallStore
    ender: CallEnder
    ask_key_frame: Callable[[str, str], None]
    """Asks a device's channel for a key frame; returns at once."""
    bus: EventBus
    clock: Clock
    limits: CallLimits = field(default_factory=CallLimits)
    shared_port: int = 0
    """The engine's shared port, which all calls use; 0: each a port of its own."""


class Call:
    """One attempt to get a channel's media, and then its media.

    Owned by one task. `changed` is called after every fact so that the owner can look again.
    """

    def __init__(
        self,
        context: CallContext,
        *,
        target: Target,
        device_id: str,
        channel_id: str,
        stream_id: str,
        way: Way,
        ask: Ask,
        silence_s: float,
        changed: Callable[[], None],
        on_quirk: Callable[[str], None],
    ) -> None:
        self._context = context
        self._target = target
        self.device_id = device_id
        self.channel_id = channel_id
        self.stream_id = stream_id
        self.way = way
        self._asked = ask
        self._silence_s = silence_s
        self._changed = changed
        self._on_quirk = on_quirk
        self._port: PortLease | None = None
        self._ssrc: SsrcLease | None = None
        self._receiver: Receiver | None = None
        self._invite: asyncio.Task[Answer] | None = None
        self._dialog: Dialog | None = None
        self._record: CallRecord | None = None
        self._offer: Offer | None = None
        self._payloads = PAYLOAD_LISTS[way.payloads]
        self._forgetting: asyncio.Task[None] | None = None
        self._quirks: set[str] = set()
        self._wake = asyncio.Event()
        self._closed = False
        # Facts that the engine and the device told, in the order in which they usually come.
        self.first_packet = False
        self.connected = False
        self.connect_failed = ""
        self.key_frame = False
        self.foreign_ssrc: int | None = None
        self.foreign_source = ""
        self.silent = False
        self.disconnected = False
        """Silent because the device closed its media connection."""
        self.ended_by_device = False
        self.media_status: int | None = None
        """`NotifyType` of a MediaStatus: 121 when a recording was sent to its end (A.2.5.4)."""
        self.file_size: int | None = None
        """`a=filesize` of the answer, in bytes."""
        self.route = ""
        """`X-RoutePath` of the answer; empty: it had none, as those of devices."""

    # ---- what the owner reads

    @property
    def ssrc_text(self) -> str:
        return self._ssrc.text if self._ssrc is not None else ""

    @property
    def call_id(self) -> str:
        return self._dialog.call_id if self._dialog is not None else ""

    @property
    def lost(self) -> bool:
        """The media or the dialog is gone by itself."""
        return self.silent or self.ended_by_device

    def counters(self) -> ReceiverCounters:
        if self._receiver is None:
            return ReceiverCounters()
        found = self._context.engine.receiver_counters([self._receiver.id])
        return found.get(self._receiver.id, ReceiverCounters())

    # ---- the way of a call

    async def open(self, deadline: float) -> None:
        """Until the first key frame; `deadline` in seconds of the event loop's clock.

        Raises GatewayError; then, and when cancelled, everything taken is given back and the device is told.
        """
        try:
            await self._bind()
            answer = await self._ask(deadline)
            if answer is not None:
                await self._establish(answer)
            await self._wait_for_media(deadline)
        except BaseException:
            self.close()
            raise

    async def adopt(
        self, record: CallRecord, dialog: Dialog, port: PortLease | None, ssrc: SsrcLease
    ) -> bool:
        """Take over a dialog of before a restart: True when the device still sends within 2 s (F-17).

        `port` is None for a call on the shared port.
        """
        context = self._context
        self._port, self._ssrc = port, ssrc
        spec = self._spec(record.port, record.ssrc, record.payloads)
        try:
            self._receiver = await context.engine.open_receiver(spec, self.on_media)
        except OSError:
            self.close()
            return False
        self._record, self._dialog = record, dialog
        context.engine.attach(self._receiver.id, self.stream_id)
        context.engine.update_receiver(self._receiver.id, ReceiverUpdate(acknowledged=True))
        context.ua.watch_dialog(dialog, self._on_request, user=self.device_id)
        if await self._until(lambda: self.first_packet, 2.0):
            return True
        self.close()
        return False

    def close(self) -> asyncio.Task[None] | None:
        """Free everything once and tell the device. Returns the BYE that is under way, if one is."""
        if self._closed:
            return None
        self._closed = True
        context = self._context
        if self._invite is not None and not self._invite.done():
            self._invite.cancel()  # the user agent sends CANCEL, and ACK + BYE to a late 200
        ending = None
        if self._dialog is not None:
            context.ua.unwatch_dialog(self._dialog)
            if self._record is not None and not self.ended_by_device:
                ending = context.ender.end(self._record, self._dialog)
        if self._receiver is not None:
            context.engine.close_receiver(self._receiver.id)
        if self._port is not None:
            self._port.release()
        if self._ssrc is not None:
            self._ssrc.release()
        return ending

    # ---- steps

    async def _bind(self) -> None:
        context = self._context
        self._ssrc = context.ssrcs.acquire(self._asked.live, self.stream_id)
        if context.shared_port:
            # A call in which the gateway connects needs no port to be reached at.
            port_number = 0 if self.way.transport is MediaTransport.TCP_ACTIVE else context.shared_port
            spec = self._spec(port_number, self._ssrc.value, _encodings(self._payloads))
            self._receiver = await context.engine.open_receiver(spec, self.on_media)
            context.engine.attach(self._receiver.id, self.stream_id)
            return
        for _ in range(context.limits.bind_tries):
            port = context.ports.acquire(self.stream_id)
            spec = self._spec(port.port, self._ssrc.value, _encodings(self._payloads))
            try:
                self._receiver = await context.engine.open_receiver(spec, self.on_media)
            except OSError:
                port.mark_taken()  # another program has it; F-14
                continue
            except BaseException:
                port.release()
                raise
            self._port = port
            break
        else:
            raise GatewayError(
                "gb.media.bind_failed",
                f"{context.limits.bind_tries} media ports in a row are used by other programs.",
            )
        context.engine.attach(self._receiver.id, self.stream_id)

    def _spec(self, port: int, ssrc: int, payloads: dict[int, str]) -> ReceiverSpec:
        return ReceiverSpec(
            transport=self.way.transport,
            host=self._context.media_listen,
            port=port,
            ssrc=ssrc,
            payloads=payloads,
            expected_hosts=frozenset({self._target.path.remote_host}),
            source_mode=self._context.source_mode,
            silence_s=self._silence_s,
            shared=port != 0 and port == self._context.shared_port,
        )

    async def _ask(self, deadline: float) -> Answer | None:
        """The device's 200; None when its media came without one (INV-15)."""
        context = self._context
        assert self._receiver is not None and self._ssrc is not None  # noqa: S101 - _bind has run
        self._offer = Offer(
            user=context.own_id,
            host=context.media_advertise or self._target.path.local_host,
            port=self._receiver.port,
            transport=Transport(self.way.transport.value),
            ssrc=self._ssrc.value,
            payloads=self._payloads,
            session=self._asked.session,
            uri=self._asked.uri,
            start_time=self._asked.start_time,
            end_time=self._asked.end_time,
            attributes=self._asked.attributes,
        )
        limit = min(context.limits.answer_s, self._left(deadline))
        self._invite = asyncio.create_task(
            context.ua.invite(
                self._target,
                sdp=self._offer.to_bytes(),
                subject=f"{self.channel_id}:{self._ssrc.text},{context.own_id}:0",
                timeout_s=60.0,  # the limit is ours, below: media without an answer keeps the call (INV-15)
            ),
            name=f"invite {self.channel_id}",
        )
        self._invite.add_done_callback(self._after_invite)
        answered = await self._until(lambda: self._invite_done() or self.key_frame, limit)
        if self._invite.done():
            return self._invite.result()
        if answered:
            self._on_quirk("inv.media_without_answer")
            return None
        raise GatewayError(
            "gb.sip.no_answer",
            f"No final answer to INVITE within {limit:.0f} s from {self._target.path.peer}.",
            peer=self._target.path.peer,
        )

    def _invite_done(self) -> bool:
        return self._invite is not None and self._invite.done()

    def _after_invite(self, task: asyncio.Task[Answer]) -> None:
        if not task.cancelled():
            task.exception()  # read here so that an answer nobody waits for any more is no warning
        self._touch()

    async def _establish(self, answer: Answer) -> None:
        """Store, acknowledge, and believe what the answer says."""
        context = self._context
        assert self._receiver is not None and self._ssrc is not None  # noqa: S101 - _bind has run
        self._dialog = answer.dialog
        self.route = answer.route
        record = CallRecord(
            id=secrets.token_hex(16),
            device_id=self.device_id,
            channel_id=self.channel_id,
            dialog=answer.dialog.to_record(),
            ssrc=self._ssrc.value,
            port=self._port.port if self._port is not None else self._receiver.port,
            transport=self.way.transport.value,
            payloads=_encodings(self._payloads),
            created_at=context.clock.wall(),
            live=self._asked.live,
        )
        self._record = record
        context.ua.watch_dialog(answer.dialog, self._on_request, user=self.device_id)
        try:
            await context.store.save_call(record)
        finally:
            context.ua.ack(answer.dialog)
        try:
            sdp = parse_sdp(answer.sdp)
        except GbError as error:
            raise GatewayError(
                "gb.sdp.bad_sdp", f"The 200 to INVITE carries no readable SDP: {error}."
            ) from error
        self.file_size = _file_size(sdp)
        context.engine.update_receiver(self._receiver.id, self._belief(sdp))

    def _belief(self, sdp: Sdp) -> ReceiverUpdate:
        """What the receiver shall expect from now on."""
        assert self._offer is not None  # noqa: S101 - an answer has an offer
        agreed = agree(self._offer, sdp)
        for quirk in agreed.quirks:
            self._on_quirk(quirk.value)
        seen = self._target.path.remote_host
        hosts = {seen, agreed.host} if _is_public(agreed.host) else {seen}
        return ReceiverUpdate(
            ssrc=agreed.ssrc,
            payloads=agreed.payloads,
            expected_hosts=frozenset(hosts),
            parameter_sets=agreed.parameter_sets,
            connect=(_dial_host(agreed.host, seen), agreed.port) if agreed.dial else None,
            listen=agreed.listen,
            acknowledged=True,
        )

    async def _wait_for_media(self, deadline: float) -> None:
        limits = self._context.limits
        if not await self._until(
            lambda: self.first_packet or self.ended_by_device or self.media_status is not None,
            min(limits.first_packet_s, self._left(deadline)),
        ):
            raise self._nothing_arrived()
        await self.wait_for_picture(deadline)

    async def wait_for_picture(self, deadline: float) -> None:
        """Until the first key frame. Raises GatewayError."""
        limits = self._context.limits
        limit = min(limits.key_frame_s, self._left(deadline))
        if not await self._until(self._settled, min(limits.ask_key_frame_s, limit)):
            self._context.ask_key_frame(self.device_id, self.channel_id)
            if not await self._until(self._settled, limit - limits.ask_key_frame_s):
                raise self._no_picture()
        if self.key_frame:
            return
        if self.media_status is not None:
            raise GatewayError(
                "gb.media.no_recording",
                f"The device said that it sent all (MediaStatus {self.media_status}) before its first picture.",
            )
        raise GatewayError("gb.sip.device_bye", "The device sent BYE before its first picture.")

    def _settled(self) -> bool:
        return self.key_frame or self.ended_by_device or self.media_status is not None

    def _nothing_arrived(self) -> GatewayError:
        """Which of the four kinds of silence it was (O-03)."""
        counters = self.counters()
        bound = counters.bound or (f"port {self._port.port}" if self._port else "")
        if self.foreign_ssrc is not None:
            # Not all of them are counted as foreign: those that might have become the stream are not.
            return GatewayError(
                "gb.media.ssrc_mismatch",
                f"Packets came to {bound} with SSRC {self.foreign_ssrc:010d}, not {self.ssrc_text}.",
            )
        if counters.foreign:
            return GatewayError(
                "gb.media.rtp_wrong_source",
                f"{counters.foreign} packets came to {bound} from {self.foreign_source or 'another address'}, "
                f"not from {self._target.path.remote_host}.",
            )
        if self.way.transport is not MediaTransport.UDP and not self.connected:
            told = self.connect_failed or "The device did not connect."
            return GatewayError(
                "gb.media.tcp_not_connected", f"No media connection at {bound} ({self.way.transport}). {told}"
            )
        return GatewayError(
            "gb.media.no_rtp",
            f"The device answered 200 and 0 packets arrived at {bound} ({self.way.transport}); we announced "
            f"{self._context.media_advertise or self._target.path.local_host}.",
        )

    def _no_picture(self) -> GatewayError:
        counters = self.counters()
        if "rtp.mpeg_ts" in self._quirks:
            return GatewayError(
                "gb.codec.codec_unsupported",
                "The device sends an MPEG transport stream, not a program stream.",
            )
        if counters.frames == 0:
            return GatewayError(
                "gb.codec.demux_error",
                f"{counters.packets} packets arrived and no frame could be read from them.",
            )
        return GatewayError(
            "gb.media.no_keyframe", f"{counters.packets} packets, {counters.frames} frames, no key frame."
        )

    # ---- what others tell

    def on_media(self, event: EngineEvent) -> None:
        match event.kind:
            case EventKind.FIRST_PACKET:
                self.first_packet = True
                self.silent = self.disconnected = False
            case EventKind.CONNECTED:
                self.connected = True
            case EventKind.CONNECT_FAILED:
                self.connect_failed = event.detail
            case EventKind.KEY_FRAME:
                self.key_frame = True
            case EventKind.SILENCE:
                self.silent = True
            case EventKind.DISCONNECTED:
                self.silent = self.disconnected = True
            case EventKind.SSRC_MISMATCH:
                self.foreign_ssrc = event.ssrc
                self._tell("media.ssrc_mismatch", event)
            case EventKind.SOURCE_CONFLICT:
                self.foreign_source = event.peer
                self._tell("media.source_conflict", event)
            case EventKind.SOURCE_SWITCHED:
                self._tell("media.source_switched", event)
            case EventKind.QUIRK:
                self._quirks.add(event.detail)
                self._on_quirk(event.detail)
            case _:
                pass
        self._touch()

    def _tell(self, name: str, event: EngineEvent) -> None:
        self._context.bus.emit(
            name,
            device_id=self.device_id,
            channel_id=self.channel_id,
            stream_id=self.stream_id,
            ssrc=f"{event.ssrc:010d}" if event.ssrc is not None else self.ssrc_text,
            peer=event.peer,
        )

    def _on_request(self, incoming: Incoming) -> None:
        """A request of the device inside our dialog."""
        if incoming.method == "BYE":
            incoming.respond(200)
            self.ended_by_device = True
            if self._record is not None:
                self._forgetting = asyncio.create_task(self._context.ender.forget(self._record))
            self._touch()
        elif incoming.method in ("INFO", "MESSAGE", "OPTIONS"):
            incoming.respond(200)
            status = read_status(incoming.request.body)
            if status is not None:
                self.take_status(status)
        else:
            incoming.respond(488)  # a re-INVITE would change what all consumers share

    def take_status(self, notify_type: int) -> None:
        """A MediaStatus of this call, inside its dialog or not (PB-12)."""
        self.media_status = notify_type
        self._touch()

    async def farewell(self) -> None:
        """Many close the media connection just before they send BYE: wait for it, to know which loss this is."""
        if self.disconnected:
            await self._until(lambda: self.ended_by_device, self._context.limits.farewell_s)

    async def send(
        self, method: str, *, body: bytes, content_type: str, path: Path | None, timeout_s: float
    ) -> Response:
        """A request within the dialog, to where the device is now; its final response, whatever its status.

        Raises GatewayError: gb.sip.no_answer, gb.sip.path_lost, or gb.route.busy while there is no dialog.
        """
        if self._dialog is None:
            raise GatewayError("gb.route.busy", "The device has not answered the INVITE of this stream.")
        return await self._context.ua.send_in_dialog(
            self._dialog,
            method,
            body=body,
            content_type=content_type,
            path=path or self._target.path,
            timeout_s=timeout_s,
            platform=self._target.platform,
        )

    def _touch(self) -> None:
        self._wake.set()
        self._changed()

    async def _until(self, met: Callable[[], bool], limit_s: float) -> bool:
        """Wait for facts; False when `limit_s` passed before `met`."""
        try:
            async with asyncio.timeout(max(limit_s, 0.0)):
                while not met():
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return met()
        return True

    def _left(self, deadline: float) -> float:
        return deadline - asyncio.get_running_loop().time()


def _encodings(payloads: tuple[Payload, ...]) -> dict[int, str]:
    return {payload.number: payload.encoding for payload in payloads}


def _file_size(sdp: Sdp) -> int | None:
    """`a=filesize` of a download's answer, wherever it stands."""
    for name, value in (*sdp.attributes, *sdp.first.attributes):
        if name == "filesize" and value.isascii() and value.isdigit() and len(value) < 20:
            return int(value)
    return None


def read_status(body: bytes) -> int | None:
    """`NotifyType` when the body is a MediaStatus. Devices put it into MESSAGE and into INFO (PB-12)."""
    if b"MediaStatus" not in body:
        return None
    try:
        document = parse(body, max_bytes=MAX_STATUS_BYTES)
    except GbError:
        return None
    return read_media_status(document).notify_type if document.cmd_type == "MediaStatus" else None


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def _dial_host(announced: str, seen: str) -> str:
    """Where to open a media connection: the announced address only beside the one that signals (INV-17, S-11)."""
    try:
        first, second = ipaddress.ip_address(announced), ipaddress.ip_address(seen)
    except ValueError:
        return seen
    if first.version == second.version == 4 and first.packed[:2] == second.packed[:2]:
        return announced
    return seen
