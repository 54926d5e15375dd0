"""Stand-ins for the user agent, the engine, the devices and the store, for tests of `sessions` without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gb28181gw.clock import SystemClock
from gb28181gw.errors import GatewayError
from gb28181gw.gb.dialect import PayloadSet
from gb28181gw.gb.mansrtsp import RtspVersion
from gb28181gw.media.engine import (
    EngineEvent,
    EventHandler,
    EventKind,
    Receiver,
    ReceiverCounters,
    ReceiverSpec,
    ReceiverUpdate,
    StreamCounters,
)
from gb28181gw.media.ports import PortPool
from gb28181gw.media.ssrc import SsrcPool
from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.call import CallContext, CallLimits
from gb28181gw.sessions.ending import CallEnder
from gb28181gw.sessions.history import HistoryLimits
from gb28181gw.sessions.models import CallRecord
from gb28181gw.sessions.stream import StreamLimits
from gb28181gw.sessions.table import Sessions
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.message import Headers, Response
from gb28181gw.sip.path import Path
from gb28181gw.ua.models import Target

PLATFORM = "34020000002000000001"
DEVICE = "34020000001180000001"
CHANNEL = "34020000001320000001"
PATH = Path("udp", "127.0.0.1", 5061, "127.0.0.1", 5060)
VIDEO = Track(kind=TrackKind.VIDEO, codec=Codec.H264, width=1280, height=720, fps=25.0)


def answer_sdp(y: str = "", *, setup: str = "", port: int = 6000, host: str = "127.0.0.1") -> bytes:
    lines = ["v=0", f"o={CHANNEL} 0 0 IN IP4 {host}", "s=Play", f"c=IN IP4 {host}", "t=0 0"]
    lines += [f"m=video {port} {'TCP/' if setup else ''}RTP/AVP 96", "a=sendonly", "a=rtpmap:96 PS/90000"]
    lines += [f"a=setup:{setup}"] if setup else []
    lines += [f"y={y}"] if y else []
    return "\r\n".join([*lines, ""]).encode()


@dataclass
class Reply:
    """What the fake device does with one INVITE."""

    status: int = 200
    sdp: bytes | None = None
    """None: a proper answer."""
    silent: bool = False
    """No final answer at all."""
    media: bool = True
    """A first packet and a key frame follow the ACK."""
    early_media: bool = False
    """They come without an answer."""


@dataclass
class FakeAnswer:
    sdp: bytes
    dialog: Dialog
    route: str = ""


class FakeAgent:
    """Plays the device; `replies` are used up one INVITE each, then every INVITE is answered well."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.replies: list[Reply] = []
        self.invites: list[tuple[Target, bytes, str]] = []
        self.acks: list[str] = []
        self.byes: list[str] = []
        self.infos: list[tuple[str, bytes]] = []
        self.info_answers: list[tuple[int, bytes] | None] = []
        """None: no answer at all."""
        self.cancelled = 0
        self.bye_answers = True
        self.watchers: dict[str, Callable[[Any], None]] = {}
        self._number = 0

    async def invite(self, target: Target, *, sdp: bytes, subject: str, timeout_s: float) -> FakeAnswer:
        self.invites.append((target, sdp, subject))
        reply = self.replies.pop(0) if self.replies else Reply()
        self._number += 1
        if reply.early_media:
            self.engine.media(self.engine.newest)
        if reply.silent:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.cancelled += 1
        if reply.status != 200:
            raise GatewayError("gb.sip.rejected", f"{reply.status}", sip_status=reply.status)
        dialog = Dialog(
            call_id=f"call-{self._number}",
            local_tag="l",
            remote_tag="r",
            local_uri=f"sip:{PLATFORM}@3402000000",
            remote_uri=f"sip:{target.user}@3402000000",
            remote_target="sip:device@127.0.0.1:5061",
            local_cseq=1,
            remote_cseq=None,
            invite_cseq=1,
            path=target.path,
        )
        self._with_media = reply.media
        offered = next(line[2:] for line in sdp.decode().split("\r\n") if line.startswith("y="))
        return FakeAnswer(answer_sdp(offered) if reply.sdp is None else reply.sdp, dialog)

    def ack(self, dialog: Dialog) -> None:
        self.acks.append(dialog.call_id)
        if self._with_media:
            self.engine.media(self.engine.newest)

    async def send_in_dialog(
        self, dialog: Dialog, method: str, *, body: bytes = b"", path: Path | None = None, **_: Any
    ) -> Response | None:
        if method == "INFO":
            self.infos.append((dialog.call_id, body))
            answer = self.info_answers.pop(0) if self.info_answers else (200, b"")
            if answer is None:
                raise GatewayError("gb.sip.no_answer")
            return Response(answer[0], "Said", Headers(), answer[1])
        assert method == "BYE"
        self.byes.append(dialog.call_id)
        if not self.bye_answers:
            raise GatewayError("gb.sip.no_answer")
        return None

    def watch_dialog(self, dialog: Dialog, handler: Callable[[Any], None], *, user: str = "") -> None:
        self.watchers[dialog.call_id] = handler

    def unwatch_dialog(self, dialog: Dialog) -> None:
        self.watchers.pop(dialog.call_id, None)


@dataclass
class FakeIncoming:
    method: str
    answers: list[int] = field(default_factory=list)
    body: bytes = b""

    @property
    def request(self) -> FakeIncoming:
        return self

    def respond(self, status: int, *_: Any, **__: Any) -> None:
        self.answers.append(status)


@dataclass
class FakeReceiver:
    spec: ReceiverSpec
    on_event: EventHandler
    stream: str = ""
    updates: list[ReceiverUpdate] = field(default_factory=list)
    counters: ReceiverCounters = field(default_factory=ReceiverCounters)
    open: bool = True


class FakeEngine:
    """Remembers what was opened and lets the test say what came."""

    name = "fake"

    def __init__(self) -> None:
        self.receivers: dict[int, FakeReceiver] = {}
        self.streams: dict[str, EventHandler] = {}
        self.closed_streams: list[str] = []
        self.refuse_binds = 0
        self.frame_sinks: dict[int, str] = {}
        self.shown: dict[str, StreamCounters] = {}
        """What `stream_counters` tells; the test's to change."""

    @property
    def newest(self) -> int:
        return max(self.receivers)

    @property
    def open_receivers(self) -> list[int]:
        return [number for number, receiver in self.receivers.items() if receiver.open]

    async def open_receiver(self, spec: ReceiverSpec, on_event: EventHandler) -> Receiver:
        if self.refuse_binds:
            self.refuse_binds -= 1
            raise OSError(98, "in use")
        number = len(self.receivers) + 1
        self.receivers[number] = FakeReceiver(spec, on_event)
        return Receiver(id=number, host=spec.host, port=spec.port)

    def update_receiver(self, receiver_id: int, update: ReceiverUpdate) -> None:
        self.receivers[receiver_id].updates.append(update)

    def create_stream(self, stream_id: str, on_event: EventHandler) -> None:
        self.streams[stream_id] = on_event

    def attach(self, receiver_id: int, stream_id: str) -> None:
        self.receivers[receiver_id].stream = stream_id

    def close_receiver(self, receiver_id: int) -> None:
        self.receivers[receiver_id].open = False

    def close_stream(self, stream_id: str, reason: str = "") -> None:
        if self.streams.pop(stream_id, None) is not None:
            self.closed_streams.append(stream_id)

    def add_frame_sink(self, stream_id: str, on_frames: object, **_: Any) -> int:
        self.frame_sinks[len(self.frame_sinks) + 1] = stream_id
        return len(self.frame_sinks)

    def close_sink(self, sink_id: int) -> None:
        self.frame_sinks.pop(sink_id, None)

    def stream_counters(self, stream_ids: Iterable[str]) -> dict[str, StreamCounters]:
        return {name: replace(self.shown.get(name, StreamCounters())) for name in stream_ids}

    def tracks(self, stream_id: str) -> tuple[Track, ...]:
        return (VIDEO,)

    def receiver_counters(self, receiver_ids: Iterable[int]) -> dict[int, ReceiverCounters]:
        return {number: replace(self.receivers[number].counters) for number in receiver_ids}

    # ---- the test's side

    def tell(self, receiver_id: int, kind: EventKind, **fields: Any) -> None:
        self.receivers[receiver_id].on_event(EngineEvent(kind=kind, **fields))

    def media(self, receiver_id: int) -> None:
        """First packet and key frame of a receiver, as the real engine tells them: soon, not at once."""
        loop = asyncio.get_running_loop()
        receiver = self.receivers[receiver_id]
        loop.call_soon(receiver.on_event, EngineEvent(kind=EventKind.FIRST_PACKET, peer="127.0.0.1:6000"))

        def key_frame() -> None:
            on_stream = self.streams.get(receiver.stream)
            if on_stream is not None and receiver.open:
                on_stream(EngineEvent(kind=EventKind.KEY_FRAME, stream_id=receiver.stream))

        loop.call_soon(key_frame)


class FakeDirectory:
    """One online device with one channel."""

    def __init__(self) -> None:
        self.setting = ""
        self.way = ""
        self.only_channel = True
        self.offline = False
        self.gone = False
        self.payloads = PayloadSet.DEFAULT
        self.quirks: list[str] = []

    def target(self, device_id: str, channel_id: str | None = None) -> Target:
        if self.offline:
            raise GatewayError("gb.route.offline", "off")
        if self.gone:
            raise GatewayError("gb.route.channel_unknown", "gone")
        return Target(path=PATH, user=channel_id or device_id, domain="3402000000")

    async def reach(self, device_id: str, channel_id: str | None = None) -> Target:
        return self.target(device_id, channel_id)

    def path_of(self, device_id: str) -> Path | None:
        return PATH

    def media_transport(self, device_id: str) -> str:
        return self.setting

    def media_way(self, device_id: str) -> str:
        return self.way

    def remember_media_way(self, device_id: str, transport: str) -> None:
        self.way = transport

    def payload_set(self, device_id: str) -> PayloadSet:
        return self.payloads

    def rtsp_version(self, device_id: str) -> RtspVersion:
        return RtspVersion.RTSP

    def remember_payloads(self, device_id: str, payloads: PayloadSet) -> None:
        self.payloads = payloads

    def is_only_channel(self, device_id: str, channel_id: str) -> bool:
        return self.only_channel

    def add_quirk(self, device_id: str, name: str) -> None:
        self.quirks.append(name)


class MemoryCallStore:
    def __init__(self) -> None:
        self.records: dict[str, CallRecord] = {}
        self.saved = 0

    async def load_calls(self) -> list[CallRecord]:
        return list(self.records.values())

    async def save_call(self, record: CallRecord) -> None:
        self.records[record.id] = record
        self.saved += 1

    async def remove_call(self, record_id: str) -> None:
        self.records.pop(record_id, None)


class Bench:
    """Real sessions on fakes. Limits are short where a test waits for them to pass."""

    def __init__(
        self,
        *,
        limits: StreamLimits | None = None,
        call_limits: CallLimits | None = None,
        history: HistoryLimits | None = None,
    ) -> None:
        clock = SystemClock()
        self.engine = FakeEngine()
        self.agent = FakeAgent(self.engine)
        self.directory = FakeDirectory()
        self.key_frames_asked: list[str] = []
        self.store = MemoryCallStore()
        self.bus = EventBus()
        self.ports = PortPool(30000, 30099, 0.0, clock)
        self.ssrcs = SsrcPool("20000", 0.0, clock)
        self.ender = CallEnder(
            ua=self.agent,  # type: ignore[arg-type]  # a stand-in
            store=self.store,
            bus=self.bus,
            path_of=self.directory.path_of,
        )
        self.context = CallContext(
            own_id=PLATFORM,
            media_listen="127.0.0.1",
            media_advertise="",
            source_mode="nat",
            ua=self.agent,  # type: ignore[arg-type]  # a stand-in
            engine=self.engine,  # type: ignore[arg-type]  # a stand-in
            ports=self.ports,
            ssrcs=self.ssrcs,
            store=self.store,
            ender=self.ender,
            ask_key_frame=lambda device_id, channel_id: self.key_frames_asked.append(channel_id),
            bus=self.bus,
            clock=clock,
            limits=call_limits or CallLimits(),
        )
        self.limits = limits or StreamLimits(bye_wait_s=0.2, retry_pauses_s=(0.0, 0.0, 0.0, 0.0))
        self.sessions = Sessions(
            self.context, self.directory, self.limits, history if history is not None else HistoryLimits()
        )

    def names(self) -> list[str]:
        """Names of the events so far, with their counts."""
        return [name for name, count in self.bus.counts.items() for _ in range(count)]

    async def assert_clean(self) -> None:
        """I2: nothing is left open, leased or stored."""
        async with asyncio.timeout(5):
            while self.sessions.list() or self.store.records:
                await asyncio.sleep(0)
        assert self.engine.open_receivers == []
        assert self.engine.streams == {}
        assert self.ports.in_use == 0
        assert self.ssrcs.in_use == 0
        assert self.agent.watchers == {}
