"""The reference media plane: pure Python on the event loop (uvloop in production).

Theory of operation. The plane owns receivers, streams and sinks by id, and one timer that ticks while any
of them exists. A receiver (`receiver*`) binds the port on UDP and TCP where both are possible, because
devices send over the other one than they agreed to (INV-24). Its units go to the stream (`stream`) that it
is attached to. Sockets of consumers belong to their sinks (`socket_sink`). An exception of a packet or of a
consumer ends nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import (
    EngineEvent,
    EventHandler,
    EventKind,
    Feature,
    FrameHandler,
    MediaTransport,
    Receiver,
    ReceiverCounters,
    ReceiverSpec,
    ReceiverUpdate,
    RtpPacking,
    RtpSink,
    RtpSinkCounters,
    RtpSinkSpec,
    RtpSinkUpdate,
    SocketSinkSpec,
    StreamCounters,
)
from gb28181gw.media.reference.receiver import ReceiverCore
from gb28181gw.media.reference.receiver_tcp import TcpReceiver
from gb28181gw.media.reference.receiver_udp import UdpReceiver
from gb28181gw.media.reference.rtp_links import Link, TcpLink, ThroughLink, UdpLink
from gb28181gw.media.reference.rtp_output import RtpOutput
from gb28181gw.media.reference.shared_port import SharedPort
from gb28181gw.media.reference.socket_sink import SocketSink
from gb28181gw.media.reference.sockets import bind_tcp, bind_udp_pair
from gb28181gw.media.reference.source import address
from gb28181gw.media.reference.stream import FrameSink, Stream
from gb28181gw.media.reference.variant import variant_key
from gb28181gw.media.tracks import Track
from gb28181gw.media.wire.es_packetiser import PACKABLE

logger = logging.getLogger(__name__)

TICK_S = 0.05
DISCARD_PORT = 9
"""The port of an offer in which the gateway connects (RFC 4145 4.1)."""


class _OpenReceiver:
    """A receiver with its transports."""

    def __init__(self, core: ReceiverCore) -> None:
        self.core = core
        self.udp: UdpReceiver | None = None
        self.tcp: TcpReceiver | None = None
        self.shared: SharedPort | None = None

    @property
    def port(self) -> int:
        if self.shared is not None:
            return self.shared.port
        return self.core.spec.port or DISCARD_PORT

    def peer(self, remote: tuple[str, int] | None) -> str:
        """Where an RTP sink sends through this receiver; see `rtp_links.Duplex`.

        Without a `remote`, to the latched source if its address was expected: what is learnt from RTP alone gets
        nothing (threat S-06).
        """
        connection = self.tcp.talk if self.tcp is not None else None
        if connection is not None:
            return address(connection.source)
        target = remote or self._believed()
        return address(target) if target is not None and self.udp is not None else ""

    def sendto(self, data: bytes, remote: tuple[str, int] | None) -> bool:
        """An RTP packet of a sink; False: no room."""
        connection = self.tcp.talk if self.tcp is not None else None
        if connection is not None:
            return connection.send(data)
        target = remote or self._believed()
        if self.udp is None or target is None:
            return True  # nowhere to send: as lost on the way
        return self.udp.send(data, target)

    def control(self, data: bytes, remote: tuple[str, int] | None) -> None:
        """An RTCP packet of a sink; over TCP none."""
        target = remote or self._believed()
        if self.udp is not None and target is not None:
            self.udp.send_control(data, target)

    def _believed(self) -> tuple[str, int] | None:
        gate = self.core.gate
        source = gate.source
        if source is None or len(source) != 2 or gate.by_grace or not gate.expects(source):
            return None
        return source

    def tick(self, now: float) -> None:
        self.core.tick(now)
        if self.udp is not None:
            self.udp.tick(now)
        if self.tcp is not None:
            self.tcp.tick(now)

    def close(self) -> None:
        if self.shared is not None:
            self.shared.leave(self.core)
        self.core.close()
        if self.udp is not None:
            self.udp.close()
        if self.tcp is not None:
            self.tcp.close()


class ReferencePlane:
    """Implements `media.engine.Engine`. Made and used on one running event loop."""

    name = "python"
    features: frozenset[Feature] = frozenset({Feature.RTP_SINKS, Feature.SHARED_PORT})

    def __init__(self, *, freeze_on_loss: bool = False) -> None:
        """`freeze_on_loss`: video behind a loss is held back until the next key frame (MED-24)."""
        self._loop = asyncio.get_running_loop()
        self._freeze_on_loss = freeze_on_loss
        self._ids = itertools.count(1)
        self._receivers: dict[int, _OpenReceiver] = {}
        self._streams: dict[str, Stream] = {}
        self._sinks: dict[int, tuple[Stream, SocketSink | FrameSink | RtpOutput]] = {}
        self._shared: SharedPort | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.failures = 0
        """Exceptions that a tick of one receiver or stream raised; each is logged."""

    # receivers

    async def open_receiver(self, spec: ReceiverSpec, on_event: EventHandler) -> Receiver:
        """Bind, all or nothing; for passive TCP listen. Raises OSError when the port is taken."""
        if self._closed:
            raise GatewayError("gb.route.shutting_down")
        core = ReceiverCore(next(self._ids), spec, on_event, self._loop)
        opened = _OpenReceiver(core)
        if spec.shared:
            self._join(opened, spec)
            self._receivers[core.id] = opened
            self._wake()
            return core.handle(opened.port)
        try:
            await self._bind(opened, spec)
        except BaseException:
            opened.close()
            raise
        self._receivers[core.id] = opened
        self._wake()
        port = spec.port if spec.port else DISCARD_PORT
        if spec.port:
            core.bound = f"{spec.host}:{port}"
        return core.handle(port)

    async def open_shared_port(self, host: str, port: int) -> None:
        """Bind one port for all receivers with `ReceiverSpec.shared`. Raises OSError when it is taken."""
        if self._closed:
            raise GatewayError("gb.route.shutting_down")
        if self._shared is not None:
            raise ValueError("the shared port is open already")
        shared = SharedPort(host, port)
        await shared.start()
        self._shared = shared
        self._wake()

    def _join(self, opened: _OpenReceiver, spec: ReceiverSpec) -> None:
        """Take part in the shared port."""
        if self._shared is None:
            raise GatewayError("gb.media.bind_failed", "There is no shared media port.")
        if spec.transport is MediaTransport.TCP_ACTIVE:
            raise ValueError("a receiver that dials has no use for the shared port")
        if self._shared.is_agreed(spec.ssrc):
            raise GatewayError(
                "gb.route.exists", f"SSRC {spec.ssrc:010d} is in use on the shared media port."
            )
        opened.tcp = TcpReceiver(opened.core)
        opened.udp = self._shared.join(opened.core, opened.tcp)
        opened.shared = self._shared
        opened.core.bound = f"{self._shared.host}:{self._shared.port}"

    async def _bind(self, opened: _OpenReceiver, spec: ReceiverSpec) -> None:
        wants_udp = spec.transport is MediaTransport.UDP
        udp: tuple[socket.socket, socket.socket] | None = None
        tcp: socket.socket | None = None
        if spec.port:
            try:
                udp = bind_udp_pair(spec.host, spec.port)
            except OSError:
                if wants_udp:
                    raise
            try:
                # UDP alone until the answer says otherwise: a listener for each camera would be a third descriptor.
                tcp = None if wants_udp else bind_tcp(spec.host, spec.port)
            except OSError:
                if spec.transport is MediaTransport.TCP_PASSIVE:
                    for sock in udp or ():
                        sock.close()
                    raise
        opened.tcp = TcpReceiver(opened.core)
        try:
            if udp is not None:
                opened.udp = UdpReceiver(opened.core)
                await opened.udp.start(*udp)
        except BaseException:
            if tcp is not None:
                tcp.close()
            raise
        if tcp is not None:
            await opened.tcp.listen(tcp)

    def update_receiver(self, receiver_id: int, update: ReceiverUpdate) -> None:
        """Apply in place. Unknown ids are ignored: the receiver was closed meanwhile."""
        opened = self._receivers.get(receiver_id)
        if opened is None:
            return
        opened.core.update(update, self._loop.time())
        if update.ssrc is not None and opened.shared is not None:
            opened.shared.agreed(opened.core)
        if update.listen and opened.tcp is not None and opened.shared is None:
            self._listen(opened.tcp, opened.core.spec)
        if update.connect is not None and opened.tcp is not None:
            opened.tcp.dial(*update.connect)

    def _listen(self, tcp: TcpReceiver, spec: ReceiverSpec) -> None:
        """Late, because UDP was offered; see `ReceiverUpdate.listen`."""
        if tcp.listens or not spec.port:
            return
        try:
            sock = bind_tcp(spec.host, spec.port)
        except OSError:
            return
        self._spawn(tcp.listen(sock))

    def attach(self, receiver_id: int, stream_id: str) -> None:
        """Feed the stream from the receiver: a new generation. Raises KeyError for ids that are not open."""
        self._receivers[receiver_id].core.attach(self._streams[stream_id].begin_generation)

    def close_receiver(self, receiver_id: int) -> None:
        """Idempotent."""
        opened = self._receivers.pop(receiver_id, None)
        if opened is None:
            return
        opened.close()
        if opened.tcp is not None and opened.tcp.is_dialling:
            self._spawn(opened.tcp.wait_closed())

    # streams

    def create_stream(self, stream_id: str, on_event: EventHandler) -> None:
        """Raises ValueError for an id that exists."""
        if stream_id in self._streams:
            raise ValueError(f"stream {stream_id!r} exists")
        self._streams[stream_id] = Stream(
            stream_id, self._loop, on_event, freeze_on_loss=self._freeze_on_loss
        )
        self._wake()

    def push(
        self, stream_id: str, track: Track, pts_90k: int, dts_90k: int, data: bytes, *, key: bool = False
    ) -> None:
        """A frame for a stream that has ended is dropped."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.push(track, pts_90k, dts_90k, data, key=key, now=self._loop.time())

    def close_stream(self, stream_id: str, reason: str = "stream_closed") -> None:
        """Idempotent."""
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        stream.close(reason)
        for sink_id in [number for number, (owner, _) in self._sinks.items() if owner is stream]:
            del self._sinks[sink_id]

    def tracks(self, stream_id: str) -> tuple[Track, ...]:
        """Empty for a stream that has ended."""
        stream = self._streams.get(stream_id)
        return stream.tracks if stream is not None else ()

    # sinks

    def add_socket_sink(self, stream_id: str, fd: int, spec: SocketSinkSpec, on_event: EventHandler) -> int:
        """Take over the connected socket. Raises GatewayError; `fd` then still belongs to the caller."""
        stream = self._streams.get(stream_id)
        if stream is None:
            raise GatewayError("gb.route.stream_unknown", f"Stream {stream_id} has ended.")
        key = variant_key(spec)
        sink_id = next(self._ids)

        def on_closed(sink: SocketSink, reason: str) -> None:
            self._sinks.pop(sink_id, None)
            stream.forget_sink(sink)
            event = EngineEvent(
                kind=EventKind.SINK_CLOSED, stream_id=stream_id, detail=reason, bytes_out=sink.bytes_out
            )
            self._loop.call_soon(on_event, event)

        sink = SocketSink(
            socket.socket(fileno=fd),
            loop=self._loop,
            is_websocket=spec.container.is_websocket,
            terminator=key.terminator,
            queue_bytes=spec.queue_bytes,
            stall_s=spec.stall_s,
            merge_s=spec.merge_s,
            on_closed=on_closed,
            received=spec.received,
        )
        self._sinks[sink_id] = (stream, sink)
        stream.add_socket_sink(sink, key)
        return sink_id

    def add_frame_sink(
        self,
        stream_id: str,
        on_frames: FrameHandler,
        *,
        video: bool = True,
        audio: bool = True,
        made_audio: bool = False,
        on_closed: Callable[[str], None] | None = None,
    ) -> int:
        """Frames in batches, starting with the kept GOP. Raises GatewayError for a stream that has ended."""
        stream = self._streams.get(stream_id)
        if stream is None:
            raise GatewayError("gb.route.stream_unknown", f"Stream {stream_id} has ended.")
        sink_id = next(self._ids)
        sink = FrameSink(
            self._loop,
            on_frames,
            lambda _: self.close_sink(sink_id),
            video=video,
            audio=audio,
            made_audio=made_audio,
            on_closed=on_closed,
        )
        self._sinks[sink_id] = (stream, sink)
        stream.add_frame_sink(sink)
        return sink_id

    async def add_rtp_sink(self, stream_id: str, spec: RtpSinkSpec, on_event: EventHandler) -> RtpSink:
        """Bind and hold the ports. Raises OSError when they are taken, GatewayError as `Engine` says."""
        if self._closed:
            raise GatewayError("gb.route.shutting_down")
        stream = self._streams.get(stream_id)
        if stream is None:
            raise GatewayError("gb.route.stream_unknown", f"Stream {stream_id} has ended.")
        if spec.packing is RtpPacking.ES and spec.codec not in PACKABLE:
            raise GatewayError(
                "gb.codec.codec_unsupported", f"{spec.codec or 'No codec'} cannot be sent as RTP."
            )
        sink_id = next(self._ids)

        def tell(kind: EventKind, peer: str, detail: str) -> None:
            event = EngineEvent(kind=kind, stream_id=stream_id, peer=peer, detail=detail)
            self._loop.call_soon(on_event, event)

        def on_closed(output: RtpOutput, reason: str) -> None:
            self._sinks.pop(sink_id, None)
            stream.forget_output(output)
            event = EngineEvent(
                kind=EventKind.SINK_CLOSED,
                stream_id=stream_id,
                peer=output.counters().remote,
                detail=reason,
                bytes_out=output.counters().bytes,
            )
            self._loop.call_soon(on_event, event)

        output = RtpOutput(spec, self._loop, tell, stream.start_output, on_closed)
        link = self._link(output, spec)
        output.use(link)
        self._sinks[sink_id] = (stream, output)
        stream.add_output(output)
        return RtpSink(id=sink_id, host=spec.host, port=link.port)

    def _link(self, output: RtpOutput, spec: RtpSinkSpec) -> Link:
        if spec.through is not None:
            opened = self._receivers.get(spec.through)
            if opened is None:
                raise GatewayError("gb.route.stream_unknown", "The receiver to send through has closed.")
            core = opened.core
            core.report_sinks.append(output.control)
            return ThroughLink(output, self._loop, opened, lambda: core.report_sinks.remove(output.control))
        if spec.transport is MediaTransport.UDP:
            return UdpLink(output, self._loop, *bind_udp_pair(spec.host, spec.port))
        if spec.transport is MediaTransport.TCP_PASSIVE:
            listener = bind_tcp(spec.host, spec.port)
            return TcpLink(
                output, self._loop, spawn=self._spawn, listener=listener, expected=spec.expected_hosts
            )
        local = (spec.host, spec.port) if spec.host else None
        return TcpLink(output, self._loop, spawn=self._spawn, local=local)

    def update_rtp_sink(self, sink_id: int, update: RtpSinkUpdate) -> None:
        """Apply in place. Unknown ids are ignored: the sink has closed meanwhile."""
        _, sink = self._sinks.get(sink_id, (None, None))
        if isinstance(sink, RtpOutput):
            sink.update(update)

    def rtp_sink_counters(self, sink_ids: Iterable[int]) -> dict[int, RtpSinkCounters]:
        """Of those that are open."""
        return {
            sink_id: replace(sink.counters())
            for sink_id in sink_ids
            if isinstance(sink := self._sinks.get(sink_id, (None, None))[1], RtpOutput)
        }

    def close_sink(self, sink_id: int) -> None:
        """Idempotent. Socket and RTP sinks still tell SINK_CLOSED."""
        entry = self._sinks.pop(sink_id, None)
        if entry is None:
            return
        stream, sink = entry
        if isinstance(sink, FrameSink):
            stream.remove_frame_sink(sink)
        else:
            sink.close("closed")

    # facts

    def receiver_counters(self, receiver_ids: Iterable[int]) -> dict[int, ReceiverCounters]:
        """Of those that are open."""
        return {
            receiver_id: opened.core.counters()
            for receiver_id in receiver_ids
            if (opened := self._receivers.get(receiver_id)) is not None
        }

    def stream_counters(self, stream_ids: Iterable[str]) -> dict[str, StreamCounters]:
        """Of those that exist."""
        return {
            stream_id: stream.counters()
            for stream_id in stream_ids
            if (stream := self._streams.get(stream_id)) is not None
        }

    @property
    def gauges(self) -> dict[str, int]:
        """What is open; all 0 when nothing runs (invariant I2)."""
        return {
            "receivers": len(self._receivers),
            "streams": len(self._streams),
            "sinks": len(self._sinks),
        }

    async def close(self) -> None:
        """End everything; returns when the sockets are closed."""
        self._closed = True
        for stream_id in list(self._streams):
            self.close_stream(stream_id, "shutting_down")
        for receiver_id in list(self._receivers):
            self.close_receiver(receiver_id)
        if self._shared is not None:
            self._shared.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)
        # Transports close their sockets in the next turns of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    # within

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task whose end `close` waits for."""
        task = self._loop.create_task(coroutine)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    def _wake(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        ticks = [opened.tick for opened in self._receivers.values()]
        if self._shared is not None:
            ticks.append(self._shared.tick)
        ticks += [stream.tick for stream in self._streams.values()]
        for tick in ticks:
            try:
                tick(now)
            except Exception:
                # One broken receiver or stream must not stop the clock of all others.
                self.failures += 1
                logger.exception("a tick of the media plane failed")
        if self._receivers or self._streams or self._shared is not None:
            self._wake()
