"""One INVITE of an upper platform, from the request to the last packet: what all kinds of calls have in common.

Theory of operation. The two legs never meet. Downwards a call is a consumer of what the device sends, or a talk;
upwards it is a dialog with the upper, and an RTP sink of the engine. `Call._run` is the whole life, top to bottom;
outsiders (ACK, BYE, CANCEL, the engine, the loss of the upper) set a wish and wake it. What is fetched from below,
and what goes over the sockets, is the subclass's: `UpperStream` plays, `UpperTalk` talks.

    offer read ─▶ 100 ─▶ prepared ─▶ 200 ─ ACK ─▶ begun ─▶ BYE of either side ─▶ all released
       │ refused      │ failed, cancelled │ none: BYE
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

from gb28181gw.cascade.link import UpperLink
from gb28181gw.cascade.offers import Wanted, read_offer
from gb28181gw.cascade.routes import OfferError, Route
from gb28181gw.cascade.sharing import Key
from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.gb.mansrtsp import Action
from gb28181gw.gb.sdp import CONTENT_TYPE, SessionKind
from gb28181gw.media.engine import Engine, EngineEvent, EventKind, MediaTransport, RtpSink
from gb28181gw.media.ports import PortLease, PortPool
from gb28181gw.media.ssrc import SsrcLease, SsrcPool, ssrc_text
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.microphone import Microphone, MicrophoneKind
from gb28181gw.sessions.models import ControlView, StreamView
from gb28181gw.sessions.talk import Holder, TalkView, TalkWay
from gb28181gw.sip.dialog import Dialog
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.passage import PASSAGE

_BIND_TRIES: Final = 4
BYE_S: Final = 4.0
_STATUS: Final = {
    "device_unknown": 404,
    "channel_unknown": 404,
    "not_approved": 404,
    "not_authorised": 403,
    "offline": 480,
    "path_lost": 480,
    "busy": 486,
    "no_answer": 408,
    "no_call": 480,
    "command_failed": 480,
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

    @property
    def route(self) -> str:
        """`X-RoutePath` of the answer from below that it runs by; empty: none."""
        ...

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


class Talks(Protocol):
    """`sessions.talks.Talks`."""

    async def start(
        self, device_id: str, channel_id: str, holder: Holder, *, way: TalkWay | None = None
    ) -> TalkView: ...

    def take_microphone(self, talk_id: str, *, kind: MicrophoneKind, client: str) -> Microphone: ...

    async def stop(self, talk_id: str, reason: str = "stopped") -> None: ...

    async def ended(self, talk_id: str) -> str:
        """Until it has ended; why."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTools:
    """What every call uses."""

    agent: UserAgent
    source: StreamSource
    talks: Talks
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


_Bound = TypeVar("_Bound")


class Call(ABC):
    """Owner of the dialog, port, SSRC and RTP sink of one INVITE."""

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
        self._upper_bye = False
        self._stream_id: str | None = None
        """Of the engine: what is sent up; for the log."""
        self._sink: RtpSink | None = None
        self._port: PortLease | None = None
        self._ssrc_lease: SsrcLease | None = None
        self._ssrc = 0
        self._dialog: Dialog | None = None
        self._answer = b""
        self._began = tools.clock.monotonic()
        self._task: asyncio.Task[None] | None = None

    # -- for outsiders -------------------------------------------------------------------------------------

    def start(self, done: Callable[[Call], None]) -> None:
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

    def source_ended(self, stream_id: str, reason: str) -> None:  # noqa: B027 - most calls share their source
        """A stream of ours begins to end."""

    @property
    def sink_id(self) -> int | None:
        """Of the engine; None: none now."""
        return self._sink.id if self._sink is not None else None

    @property
    def sending(self) -> bool:
        return self._acked and not self._reason

    # -- what the kinds of calls do ------------------------------------------------------------------------

    @abstractmethod
    async def _prepare(self) -> bytes:
        """Source, ports, sink; returns the SDP of the 200. Raises GatewayError; what was acquired is released later."""

    @abstractmethod
    def _begin(self) -> None:
        """The upper acknowledged: media may go."""

    @abstractmethod
    async def _end_below(self) -> None:
        """What has no other user is ended. Idempotent."""

    async def _before_bye(self, dialog: Dialog) -> None:  # noqa: B027 - most calls have nothing to tell
        """Tell the upper what it must know before the BYE. Raises GatewayError to leave the BYE out."""

    def _steer(self, incoming: Incoming) -> None:
        """An INFO of the upper."""
        incoming.respond(488)

    # -- the whole life ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        PASSAGE.set(self._route.passage())
        try:
            try:
                self._accept(await self._prepare())
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
        except Exception as error:  # supervision point: one call's trouble must not cost another
            self._tools.bus.emit(
                "gateway.task_failed", task="upper call", error=type(error).__name__, detail=str(error)[:200]
            )
            if not self._incoming.answered:
                self._respond_failure(500)
        finally:
            self._release_media()
            await self._end_below()
            if self._dialog is not None:
                self._tools.agent.unwatch_dialog(self._dialog)

    def _accept(self, answer: bytes) -> None:
        self._answer = answer
        self._incoming.respond(200, headers=self._route_headers(), body=answer, content_type=CONTENT_TYPE)
        dialog = self._dialog = self._incoming.dialog
        if dialog is not None:
            self._tools.agent.watch_dialog(dialog, self._in_dialog, user=self.link.upper.id)

    async def _stay(self) -> None:
        """From the 200 to the wish to end."""
        begun = False
        while not self._reason:
            if self._acked and not begun:
                begun = True
                self._begin()
            self._wake.clear()
            await self._wake.wait()

    async def _hang_up(self) -> None:
        dialog = self._dialog
        if dialog is None or not self._bye:
            return
        with contextlib.suppress(GatewayError):
            await self._before_bye(dialog)
            await self._tools.agent.send_in_dialog(dialog, "BYE", path=self.link.path, timeout_s=BYE_S)

    # -- for the kinds of calls ----------------------------------------------------------------------------

    def _choose_ssrc(self) -> None:
        if self._wanted.sdp.y is not None:
            self._ssrc = self._wanted.sdp.y  # real uppers choose it (practice); else the called domain does
        else:
            live = self._wanted.sdp.session in (SessionKind.PLAY, SessionKind.TALK)
            self._ssrc_lease = self._tools.ssrcs.acquire(live, f"upper {self.link.upper.id}")
            self._ssrc = self._ssrc_lease.value

    async def _bind(self, make: Callable[[int], Awaitable[_Bound]]) -> _Bound:
        """`make(port)`, all or nothing; a port that another program has is replaced. 0: we dial, from any port."""
        for attempt in range(_BIND_TRIES):
            port = 0
            if self._wanted.transport is not MediaTransport.TCP_ACTIVE:
                self._port = self._tools.ports.acquire(f"upper {self.link.upper.id}")
                port = self._port.port
            try:
                return await make(port)
            except OSError as error:
                if self._port is not None:
                    self._port.mark_taken()
                    self._port = None
                if attempt == _BIND_TRIES - 1:
                    raise GatewayError(
                        "gb.media.bind_failed", f"No media port could be bound: {error}."
                    ) from error
        raise GatewayError("gb.media.bind_failed")

    def _own_host(self) -> str:
        """Our address in the SDP."""
        path = self.link.path
        return (
            self.link.upper.media_advertise
            or self._tools.media_advertise
            or (path.local_host if path is not None else "")
            or self._tools.media_listen
        )

    def _release_media(self) -> None:
        """Idempotent."""
        if self._sink is not None:
            self._tools.engine.close_sink(self._sink.id)
            self._sink = None
        for lease in (self._port, self._ssrc_lease):
            if lease is not None:
                lease.release()
        self._port = self._ssrc_lease = None

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
        self._respond_failure(status_of(error))

    def _respond_failure(self, status: int) -> None:
        self._incoming.respond(status, headers=self._route_headers())

    def _route_headers(self) -> tuple[tuple[str, str], ...]:
        """With the way that the answer from below came, where one did."""
        passage = PASSAGE.get()
        return self._route.headers(passage.route if passage is not None else "")

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
            stream_id=self._stream_id,
            call_id=self._incoming.call_id,
            ssrc=ssrc_text(self._ssrc) if self._ssrc else None,
            peer=":".join(map(str, self._wanted.remote)) if self._wanted.remote else None,
            transport=self._wanted.transport.value,
            kind=self._wanted.sdp.session.value.lower(),
            user_identity=self._route.identity or None,
            **fields,
        )


def status_of(error: GatewayError) -> int:
    """The answer to an INVITE that failed below."""
    if error.reason == "rejected" and error.sip_status is not None and 400 <= error.sip_status < 700:
        return error.sip_status
    return _STATUS.get(error.reason, 504 if error.row.stage == "media" else 500)


def _sender_serial(incoming: Incoming) -> str:
    """`sender id:serial` of the Subject; empty when it does not tell streams apart."""
    subject = incoming.request.headers.get("Subject") or ""
    sender = subject.partition(",")[0].strip()
    serial = sender.partition(":")[2].strip()
    return sender[:64] if len(serial) > 1 else ""
