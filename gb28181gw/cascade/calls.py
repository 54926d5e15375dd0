"""Media for upper platforms: their INVITEs, from the request to the last packet (GB/T 28181-2022 9.2, 9.8, 9.9).

Theory of operation. The two legs never meet. Downwards a call is one more consumer of the channel's stream (which one
INVITE to the device feeds, whoever watches). Upwards it is a dialog with the upper and an RTP sink of the engine, which
forwards the source's own packets where those are a program stream. `UpperCall.run` is the whole life, top to bottom;
outsiders (ACK, BYE, CANCEL, the engine, the loss of the upper) set a wish and wake it.

    offer read ─▶ 100 ─▶ source leased ─▶ ports bound ─▶ 200 ─ ACK ─▶ sending ─▶ BYE of either side ─▶ all released
       │ refused          │ failed, cancelled                │ none: BYE
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from gb28181gw.cascade.link import UpperLink
from gb28181gw.cascade.routes import OfferError, Route
from gb28181gw.cascade.sharing import Key
from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.gb import mansrtsp
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.manscdp.media_status import SENT_COMPLETELY, MediaStatus, write_media_status
from gb28181gw.gb.manscdp.messages import CONTENT_TYPE as MANSCDP_TYPE
from gb28181gw.gb.mansrtsp import Action, MansRtspAnswer, MansRtspRequest, Teardown
from gb28181gw.gb.sdp import (
    CONTENT_TYPE,
    Payload,
    Sdp,
    SdpMedia,
    SessionKind,
    Setup,
    answer_to,
    parse_sdp,
)
from gb28181gw.media.engine import (
    Engine,
    EngineEvent,
    EventKind,
    MediaTransport,
    RtpPacking,
    RtpSink,
    RtpSinkSpec,
    RtpSinkUpdate,
)
from gb28181gw.media.ports import PortLease, PortPool
from gb28181gw.media.ssrc import SsrcLease, SsrcPool, ssrc_text
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.models import ControlView, StreamView
from gb28181gw.sip.dialog import Dialog
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.passage import PASSAGE

CALLS_LIMIT: Final = 512
"""Of one upper at once (threat S-21)."""
_BIND_TRIES: Final = 4
_BYE_S: Final = 4.0
_AFTER_END_S: Final = 2.0
"""For the BYE of an upper that was told the end of a recording."""
_AT_END: Final = frozenset({"end_of_file", "end_silent"})
_STATUS: Final = {
    "device_unknown": 404,
    "channel_unknown": 404,
    "not_approved": 404,
    "offline": 480,
    "path_lost": 480,
    "busy": 486,
    "no_answer": 408,
    "cancelled": 487,
    "codec_unsupported": 488,
    "bad_sdp": 502,
    "shutting_down": 503,
    "port_exhausted": 503,
    "ssrc_exhausted": 503,
    "bind_failed": 503,
}
"""What the upper is told, by the reason of our error; media that did not come is 504."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """The upper as a consumer of a stream (`sessions.models.Consumer`)."""

    client: str
    grant_id: str
    kind: str = "upper"


class Lease(Protocol):
    """A share in a running stream."""

    @property
    def stream_id(self) -> str: ...

    def release(self) -> None: ...


class StreamSource(Protocol):
    """Starts streams and leases them; `sessions.table.Sessions` satisfies it."""

    async def lease_live(self, device_id: str, channel_id: str, consumer: Viewer) -> Lease: ...

    async def lease_stream(self, stream_id: str, consumer: Viewer) -> Lease: ...

    async def start_playback(
        self, device_id: str, channel_id: str, start: datetime, end: datetime
    ) -> StreamView: ...

    async def start_download(
        self, device_id: str, channel_id: str, start: datetime, end: datetime, *, speed: float
    ) -> StreamView: ...

    async def control(self, stream_id: str, action: Action) -> ControlView: ...

    async def stop(self, stream_id: str, reason: str = "stopped") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTools:
    """What every call uses."""

    agent: UserAgent
    source: StreamSource
    engine: Engine
    ports: PortPool
    ssrcs: SsrcPool
    bus: EventBus
    clock: Clock
    next_sn: Callable[[], int]
    media_listen: str
    media_advertise: str


@dataclass(slots=True)
class CallCounters:
    """Plain counters for the exporter, summed over all uppers."""

    invites: int = 0
    refused: int = 0
    """By the offer alone: not shared, not readable, media to a foreign address."""
    failed: int = 0
    cancelled: int = 0
    started: int = 0
    ended_by_upper: int = 0
    unacknowledged: int = 0


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
    payload, packing, codec = _payload(media)
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


class UpperCall:
    """One INVITE of an upper. Owner of its lease, sink, port, SSRC and dialog."""

    def __init__(
        self,
        tools: CallTools,
        counters: CallCounters,
        link: UpperLink,
        incoming: Incoming,
        key: Key,
        wanted: Wanted,
        route: Route,
    ) -> None:
        self.link = link
        self.key = key
        self.channel = incoming.to_user
        self.sender_serial = _sender_serial(incoming)
        self._tools = tools
        self._counters = counters
        self._incoming = incoming
        self._wanted = wanted
        self._route = route
        self._wake = asyncio.Event()
        self._acked = False
        self._reason = ""
        self._bye = True
        """We end the dialog; False: the upper did."""
        self._lease: Lease | None = None
        self._history = ""
        """Id of the recording's stream, which is ours alone; empty: live."""
        self._file_size: int | None = None
        self._steering: set[asyncio.Task[None]] = set()
        self._sink: RtpSink | None = None
        self._port: PortLease | None = None
        self._ssrc_lease: SsrcLease | None = None
        self._ssrc = 0
        self._dialog: Dialog | None = None
        self._upper_bye = False
        self._answer = b""
        self._began = tools.clock.monotonic()
        self._task: asyncio.Task[None] | None = None

    # -- for outsiders -------------------------------------------------------------------------------------

    def start(self, done: Callable[[UpperCall], None]) -> None:
        """Answer 100 and begin; `done(call)` when everything is released."""
        incoming = self._incoming
        incoming.on_ack = lambda request: self._on_ack()
        incoming.on_no_ack = self._on_no_ack
        incoming.on_cancel = self._on_cancel
        incoming.respond(100)  # at once: some uppers wait 10 s for media and the device needs them (CS-12)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"upper call {self.channel}")
        self._task.add_done_callback(lambda task: done(self))

    def end(self, reason: str, *, bye: bool = True) -> None:
        """Wish: end now. Idempotent; the first reason counts."""
        if not self._reason:
            self._reason, self._bye = reason, bye
            self._wake.set()
            if self._dialog is None and self._task is not None:
                self._task.cancel()

    async def ended(self) -> None:
        """Until everything is released."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def source_ended(self, stream_id: str, reason: str) -> None:
        """A recording begins to end; `end_of_file` is passed on before the BYE (9.8.2)."""
        if stream_id and stream_id == self._history:
            self.end(reason)

    @property
    def sink_id(self) -> int | None:
        """Of the engine; None: none now."""
        return self._sink.id if self._sink is not None else None

    @property
    def sending(self) -> bool:
        return self._acked and not self._reason

    # -- the whole life ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        PASSAGE.set(self._route.passage())
        try:
            try:
                await self._open()
            except GatewayError as error:
                self._fail(error)
                return
            except asyncio.CancelledError:
                # CANCEL (487 was sent already), or the end of the upper.
                if not self._incoming.answered:
                    self._respond_failure(503 if self._reason != "cancelled" else 487)
                return
            self._counters.started += 1
            self._tell("upper.stream_started")
            await self._stay()
            self._tell(
                "upper.stream_stopped",
                reason=self._reason,
                bytes=self._bytes_sent(),
                duration_ms=int((self._tools.clock.monotonic() - self._began) * 1000),
            )
            self._release_media()
            await self._hang_up()
            await self._stop_recording()
        except Exception as error:  # supervision point: one call's trouble must not cost another
            self._tools.bus.emit(
                "gateway.task_failed", task="upper call", error=type(error).__name__, detail=str(error)[:200]
            )
            if not self._incoming.answered:
                self._respond_failure(500)
        finally:
            self._release_media()
            if self._dialog is None and self._history:
                await self._stop_recording()
            if self._dialog is not None:
                self._tools.agent.unwatch_dialog(self._dialog)

    async def _open(self) -> None:
        """Source, ports, 200. Raises GatewayError; what was acquired is released by the caller."""
        self._lease = await self._lease_source()
        if self._wanted.sdp.y is not None:
            self._ssrc = self._wanted.sdp.y  # real uppers choose it (practice); else the called domain does
        else:
            live = self._wanted.sdp.session is SessionKind.PLAY
            self._ssrc_lease = self._tools.ssrcs.acquire(live, f"upper {self.link.upper.id}")
            self._ssrc = self._ssrc_lease.value
        self._sink = await self._add_sink(self._lease.stream_id)
        self._answer = self._description(self._sink)
        passage = PASSAGE.get()
        headers = self._route.headers(passage.route if passage is not None else "")
        self._incoming.respond(200, headers=headers, body=self._answer, content_type=CONTENT_TYPE)
        dialog = self._dialog = self._incoming.dialog
        if dialog is not None:
            self._tools.agent.watch_dialog(dialog, self._in_dialog, user=self.link.upper.id)

    async def _lease_source(self) -> Lease:
        """The channel's live stream, which everybody shares, or a recording's, which is this call's alone (PB-17)."""
        source, sdp, key = self._tools.source, self._wanted.sdp, self.key
        viewer = Viewer(
            client=self.link.path.peer if self.link.path else "", grant_id=f"upper:{self.link.upper.id}"
        )
        if sdp.session is SessionKind.PLAY:
            return await source.lease_live(key.device_id, key.channel_id, viewer)
        start, end = (datetime.fromtimestamp(moment, UTC) for moment in (sdp.start_time, sdp.end_time))
        if sdp.session is SessionKind.PLAYBACK:
            view = await source.start_playback(key.device_id, key.channel_id, start, end)
        else:
            view = await source.start_download(
                key.device_id, key.channel_id, start, end, speed=_download_speed(sdp)
            )
        self._history = view.id
        self._file_size = view.history.file_size if view.history is not None else None
        return await source.lease_stream(view.id, viewer)

    async def _add_sink(self, stream_id: str) -> RtpSink:
        """Ports and sink, all or nothing; a port that another program has is replaced."""
        wanted, tools = self._wanted, self._tools
        for attempt in range(_BIND_TRIES):
            port = 0
            if wanted.transport is not MediaTransport.TCP_ACTIVE:
                self._port = tools.ports.acquire(f"upper {self.link.upper.id}")
                port = self._port.port
            spec = RtpSinkSpec(
                transport=wanted.transport,
                host=tools.media_listen,
                port=port,
                ssrc=self._ssrc,
                payload_type=wanted.payload.number,
                packing=wanted.packing,
                codec=wanted.codec,
                remote=wanted.remote,
                expected_hosts=wanted.hosts
                if wanted.transport is MediaTransport.TCP_PASSIVE
                else frozenset(),
            )
            try:
                return await tools.engine.add_rtp_sink(stream_id, spec, self._on_media)
            except OSError as error:
                if self._port is not None:
                    self._port.mark_taken()
                    self._port = None
                if attempt == _BIND_TRIES - 1:
                    raise GatewayError(
                        "gb.media.bind_failed", f"No media port could be bound: {error}."
                    ) from error
        raise GatewayError("gb.media.bind_failed")

    def _description(self, sink: RtpSink) -> bytes:
        upper, path = self.link.upper, self.link.path
        host = (
            upper.media_advertise
            or self._tools.media_advertise
            or (path.local_host if path is not None else "")
        )
        answer = answer_to(
            self._wanted.sdp,
            user=upper.local_id,
            host=host or sink.host,
            port=sink.port,
            ssrc=self._ssrc,
            payloads=(self._wanted.payload,),
        )
        if self._file_size is not None:
            answer = replace(answer, attributes=(("filesize", str(self._file_size)),))
        return answer.to_bytes()

    async def _stay(self) -> None:
        """From the 200 to the wish to end."""
        sending = False
        while not self._reason:
            if self._acked and not sending and self._sink is not None:
                sending = True
                self._tools.engine.update_rtp_sink(self._sink.id, RtpSinkUpdate(sending=True))
            self._wake.clear()
            await self._wake.wait()

    async def _hang_up(self) -> None:
        """BYE, after the word that a recording is at its end."""
        dialog = self._dialog
        if dialog is None or not self._bye:
            return
        with contextlib.suppress(GatewayError):
            if self._reason in _AT_END:
                await self._tell_end(dialog)
            await self._tools.agent.send_in_dialog(dialog, "BYE", path=self.link.path, timeout_s=_BYE_S)

    async def _tell_end(self, dialog: Dialog) -> None:
        """MediaStatus 121 in the dialog (9.8.2, PB-17); a receiver that understands it sends BYE itself."""
        body = write_media_status(
            MediaStatus(sn=self._tools.next_sn(), device_id=self.channel, notify_type=SENT_COMPLETELY),
            self.link.upper.dialect.charset_used,
        )
        await self._tools.agent.send_in_dialog(
            dialog, "MESSAGE", path=self.link.path, body=body, content_type=MANSCDP_TYPE, timeout_s=_BYE_S
        )
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AFTER_END_S):
                while not self._upper_bye:
                    await self._wake.wait()
                    self._wake.clear()
        if self._upper_bye:
            raise GatewayError("gb.sip.cancelled", "The upper ended the call itself.")

    # -- what happens --------------------------------------------------------------------------------------

    def _on_ack(self) -> None:
        self._acked = True
        self._wake.set()

    def _on_no_ack(self) -> None:
        self._counters.unacknowledged += 1
        self.end("ack_unconfirmed")

    def _on_cancel(self) -> None:
        self._counters.cancelled += 1
        self.end("cancelled", bye=False)

    def _on_media(self, event: EngineEvent) -> None:
        if event.kind is EventKind.SINK_CLOSED:
            self.end(event.detail or "stream_closed")

    def _in_dialog(self, incoming: Incoming) -> None:
        """A request of the upper within the call."""
        match incoming.method:
            case "BYE":
                incoming.respond(200)
                self._counters.ended_by_upper += 1
                self._upper_bye = True
                self.end("upper_bye", bye=False)
                self._wake.set()
            case "INFO":
                self._steer(incoming)
            case "INVITE":
                # A refresh of the session; media that would go elsewhere is another call.
                self._refresh(incoming)
            case "MESSAGE" | "OPTIONS":
                incoming.respond(200)
            case _:
                incoming.respond(488)

    def _steer(self, incoming: Incoming) -> None:
        """MANSRTSP: passed on, and answered with what the device answered (9.8.2)."""
        try:
            request = mansrtsp.parse(incoming.request.body)
        except GbError:
            incoming.respond(400)
            return
        if not isinstance(request, MansRtspRequest) or not self._history:
            incoming.respond(488)
            return
        if isinstance(request.action, Teardown):
            incoming.respond(200, body=self._rtsp(request, 200), content_type=mansrtsp.CONTENT_TYPE)
            self.end("upper_teardown")
            return
        task = asyncio.get_running_loop().create_task(self._control(incoming, request))
        self._steering.add(task)
        task.add_done_callback(self._steering.discard)

    async def _control(self, incoming: Incoming, request: MansRtspRequest) -> None:
        try:
            view = await self._tools.source.control(self._history, request.action)
        except GatewayError as error:
            self._tools.bus.emit(
                "upper.command_failed",
                upper_id=self.link.upper.id,
                device_id=self.key.device_id,
                channel_id=self.key.channel_id,
                cmd="INFO",
                reason=error.reason,
                detail=error.detail,
            )
            status = error.sip_status if error.sip_status is not None else _STATUS.get(error.reason, 500)
            incoming.respond(status if 400 <= status < 700 else 500)
            return
        body = self._rtsp(request, view.rtsp_status or 200)
        incoming.respond(200, body=body, content_type=mansrtsp.CONTENT_TYPE)

    @staticmethod
    def _rtsp(request: MansRtspRequest, status: int) -> bytes:
        return mansrtsp.write_answer(
            MansRtspAnswer(status=status, cseq=request.cseq, version=request.version)
        )

    def _refresh(self, incoming: Incoming) -> None:
        body = incoming.request.body
        if body:
            try:
                wanted = read_offer(body, incoming.path.remote_host, self.link.upper.media_allow)
            except OfferError as error:
                incoming.respond(error.status)
                return
            if (wanted.transport, wanted.remote) != (self._wanted.transport, self._wanted.remote):
                incoming.respond(488)
                return
        incoming.respond(200, body=self._answer, content_type=CONTENT_TYPE)

    # -- ends ----------------------------------------------------------------------------------------------

    def _fail(self, error: GatewayError) -> None:
        self._counters.failed += 1
        self._tell(
            "upper.stream_failed", reason=error.reason, sip_status=error.sip_status, detail=error.detail
        )
        if self._incoming.answered:
            return
        status = _STATUS.get(error.reason, 504 if error.row.stage == "media" else 500)
        if error.reason == "rejected" and error.sip_status is not None and 400 <= error.sip_status < 700:
            status = error.sip_status
        self._respond_failure(status)

    def _respond_failure(self, status: int) -> None:
        self._incoming.respond(status, headers=self._route.headers())

    def _release_media(self) -> None:
        """Idempotent."""
        if self._sink is not None:
            self._tools.engine.close_sink(self._sink.id)
            self._sink = None
        for lease in (self._lease, self._port, self._ssrc_lease):
            if lease is not None:
                lease.release()
        self._lease = self._port = self._ssrc_lease = None
        for task in self._steering:
            task.cancel()

    async def _stop_recording(self) -> None:
        """A recording has no other viewer: its device need not wait for the idle time."""
        if self._history:
            with contextlib.suppress(GatewayError):  # it has ended by itself
                await self._tools.source.stop(self._history, "upper_gone")

    def _bytes_sent(self) -> int:
        if self._sink is None:
            return 0
        counters = self._tools.engine.rtp_sink_counters([self._sink.id]).get(self._sink.id)
        return counters.bytes if counters is not None else 0

    def _tell(self, event: str, **fields: object) -> None:
        self._tools.bus.emit(
            event,
            upper_id=self.link.upper.id,
            device_id=self.key.device_id,
            channel_id=self.key.channel_id,
            stream_id=self._lease.stream_id if self._lease is not None else None,
            call_id=self._incoming.call_id,
            ssrc=ssrc_text(self._ssrc) if self._ssrc else None,
            peer=":".join(map(str, self._wanted.remote)) if self._wanted.remote else None,
            transport=self._wanted.transport.value,
            kind=self._wanted.sdp.session.value.lower(),
            user_identity=self._route.identity or None,
            **fields,
        )


def _download_speed(sdp: Sdp) -> float:
    """`a=downloadspeed` of the session or of its media; 1 without one."""
    for name, value in (*sdp.first.attributes, *sdp.attributes):
        if name == "downloadspeed":
            with contextlib.suppress(ValueError):
                return min(max(float(value), 1.0), 32.0)
    return 1.0


def _sender_serial(incoming: Incoming) -> str:
    """`sender id:serial` of the Subject; empty when it does not tell streams apart."""
    subject = incoming.request.headers.get("Subject") or ""
    sender = subject.partition(",")[0].strip()
    serial = sender.partition(":")[2].strip()
    return sender[:64] if len(serial) > 1 else ""


class UpperCalls:
    """Owner of the calls of all uppers."""

    def __init__(self, tools: CallTools) -> None:
        self.counters = CallCounters()
        self.tools = self._tools = tools
        self._calls: dict[str, set[UpperCall]] = {}

    def count(self, upper_id: str) -> int:
        """Calls that send."""
        return sum(call.sending for call in self._calls.get(upper_id, ()))

    @property
    def total(self) -> int:
        """Calls that are not over."""
        return sum(len(calls) for calls in self._calls.values())

    @property
    def raw(self) -> int:
        """Calls that get the device's own packets."""
        sinks = [call.sink_id for calls in self._calls.values() for call in calls if call.sink_id is not None]
        return sum(one.passthrough for one in self._tools.engine.rtp_sink_counters(sinks).values())

    def invite(self, link: UpperLink, incoming: Incoming, key: Key | None, route: Route) -> None:
        """An INVITE of the upper outside dialogs. `key`: what its To is here; None: nothing that is shared."""
        self.counters.invites += 1
        try:
            if key is None:
                raise OfferError(404, "it is not shared")
            if len(self._calls.get(link.upper.id, ())) >= CALLS_LIMIT:
                raise OfferError(486, f"{CALLS_LIMIT} calls of it run")
            route.check()
            wanted = read_offer(incoming.request.body, incoming.path.remote_host, link.upper.media_allow)
            if wanted.sdp.session is SessionKind.TALK:
                raise OfferError(488, f"s={wanted.sdp.session_name[:32]} cannot be served")
            if (
                wanted.sdp.session is not SessionKind.PLAY
                and not 0 < wanted.sdp.start_time < wanted.sdp.end_time
            ):
                raise OfferError(488, "t= is no span of a recording")
        except OfferError as error:
            self.counters.refused += 1
            self._tools.bus.emit(
                "upper.request_refused",
                upper_id=link.upper.id,
                cmd="INVITE",
                channel_id=incoming.to_user[:64],
                sip_status=error.status,
                detail=error.why,
            )
            incoming.respond(error.status, headers=route.headers())
            return
        call = UpperCall(self._tools, self.counters, link, incoming, key, wanted, route)
        calls = self._calls.setdefault(link.upper.id, set())
        for other in list(calls):
            if call.sender_serial and other.sender_serial == call.sender_serial:
                other.end("replaced")  # Annex K: the same stream asked for again
        calls.add(call)
        call.start(self._done)

    def end_all(self, upper_id: str, reason: str, *, bye: bool = True) -> None:
        """The upper is lost, or nothing may be sent to it any more."""
        for call in list(self._calls.get(upper_id, ())):
            call.end(reason, bye=bye)

    def source_ended(self, view: StreamView, reason: str) -> None:
        """`Sessions.on_ended`."""
        for calls in self._calls.values():
            for call in list(calls):
                call.source_ended(view.id, reason)

    def end_unshared(self, upper_id: str, is_shared: Callable[[Key], bool]) -> None:
        """Shares were taken back: what plays of them ends at once."""
        for call in list(self._calls.get(upper_id, ())):
            if not is_shared(call.key):
                call.end("unshared")

    async def settled(self, upper_id: str, timeout_s: float | None = None) -> None:
        """Until the calls of an upper have ended, or so long."""
        waiting = asyncio.gather(*(call.ended() for call in list(self._calls.get(upper_id, ()))))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting, timeout_s)

    def _done(self, call: UpperCall) -> None:
        calls = self._calls.get(call.link.upper.id)
        if calls is not None:
            calls.discard(call)
            if not calls:
                del self._calls[call.link.upper.id]
