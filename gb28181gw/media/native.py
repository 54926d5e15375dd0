"""The native media plane's face: `Engine` over the C++ threads of `_native`.

Theory of operation. Packets never reach Python. A call here becomes an order in the mailbox of the worker that owns
the stream; what the workers have to say comes back in batches, told by one descriptor that the event loop watches.
Counters and tracks are read from where the workers publish them, without asking. Only `attach` between two workers
and `close_receiver` wait for a worker, for the time of one of its turns.

Only this module imports `_native`; where that was not built, `is_built` says so and why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import (
    Container,
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
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.es_packetiser import PACKABLE

_why_not = ""
if TYPE_CHECKING:
    from gb28181gw.media import _native
else:
    try:
        from gb28181gw.media import _native
    except ImportError as error:
        _native, _why_not = None, str(error)

logger = logging.getLogger(__name__)

DISCARD_PORT = 9
"""The port of an offer in which the gateway connects (RFC 4145 4.1)."""

_MAX_TRACKS = 4096

# Places in the enums of native/include/gb28181/spec.hpp.
_TRANSPORTS = {MediaTransport.UDP: 0, MediaTransport.TCP_PASSIVE: 1, MediaTransport.TCP_ACTIVE: 2}
_CHUNKED, _PLAIN, _WEBSOCKET = 0, 1, 2
_CONTAINERS = {Container.FLV: 0, Container.FMP4: 1, Container.TS: 2}
_HEVC = {"enhanced": 0, "legacy": 1}
_AUDIO = {"copy": 0, "aac": 1, "none": 2}
_KINDS = (
    EventKind.FIRST_PACKET,
    EventKind.CONNECTED,
    EventKind.CONNECT_FAILED,
    EventKind.DISCONNECTED,
    EventKind.TRACKS,
    EventKind.KEY_FRAME,
    EventKind.SOURCE_SWITCHED,
    EventKind.SOURCE_CONFLICT,
    EventKind.SSRC_MISMATCH,
    EventKind.QUIRK,
    EventKind.SILENCE,
    EventKind.SINK_CLOSED,
)
_TARGET_RECEIVER, _TARGET_STREAM = 0, 1


def is_built() -> bool:
    """The native plane can run here."""
    return _native is not None


def why_not() -> str:
    """The import error, where it is not built."""
    return _why_not


def has_gro() -> bool:
    """The kernel merges datagrams on receive (UDP_GRO). Only where it is built."""
    return _native.probe_udp_gro()


@dataclass(slots=True)
class _Stream:
    id: str
    on_event: EventHandler


@dataclass(slots=True)
class _FrameSink:
    stream: int
    on_frames: FrameHandler
    on_closed: Callable[[str], None] | None


class NativePlane:
    """Implements `media.engine.Engine`. Made and used on one running event loop."""

    name = "native"
    features = frozenset({Feature.RTP_SINKS, Feature.SHARED_PORT})

    def __init__(self, workers: int = 0, *, freeze_on_loss: bool = False) -> None:
        """`workers`: threads; 0 as many as the process may use cores. Raises OSError without descriptors.

        `freeze_on_loss`: video behind a loss is held back until the next key frame (MED-24).
        """
        self._loop = asyncio.get_running_loop()
        self._engine = _native.Engine(workers, freeze_on_loss)
        self._receivers: dict[int, tuple[EventHandler, str, int]] = {}
        """Its handler, what it is bound to, and the port for an SDP."""
        self._streams: dict[int, _Stream] = {}
        self._keys: dict[str, int] = {}
        self._socket_sinks: dict[int, tuple[str, EventHandler]] = {}
        self._open_sinks: dict[int, int] = {}
        """Socket sinks that were not told to end yet, and their streams."""
        self._frame_sinks: dict[int, _FrameSink] = {}
        self._tracks_in: dict[Track, _native.Track] = {}
        self._tracks_out: dict[_native.Track, Track] = {}
        self._shared: tuple[str, int] | None = None
        self._consumer_failures = 0
        self._closed = False
        self._loop.add_reader(self._engine.event_fd(), self._readable)

    # receivers

    async def open_receiver(self, spec: ReceiverSpec, on_event: EventHandler) -> Receiver:
        """Bind, all or nothing; for passive TCP listen. Raises OSError when the port is taken."""
        if self._closed:
            raise GatewayError("gb.route.shutting_down")
        host, port = spec.host, spec.port
        if spec.shared:
            if self._shared is None:
                raise GatewayError("gb.media.bind_failed", "There is no shared media port.")
            if spec.transport is MediaTransport.TCP_ACTIVE:
                raise ValueError("a receiver that dials has no use for the shared port")
            host, port = self._shared
        try:
            receiver_id = self._engine.open_receiver(
                _TRANSPORTS[spec.transport],
                host,
                port,
                spec.ssrc,
                list(spec.payloads.items()),
                list(spec.expected_hosts),
                spec.source_mode == "strict",
                spec.silence_s,
                spec.shared,
            )
        except FileExistsError:
            raise GatewayError(
                "gb.route.exists", f"SSRC {spec.ssrc:010d} is in use on the shared media port."
            ) from None
        bound = f"{host}:{port}" if port else ""
        self._receivers[receiver_id] = (on_event, bound, port or DISCARD_PORT)
        return Receiver(id=receiver_id, host=spec.host, port=port or DISCARD_PORT)

    async def open_shared_port(self, host: str, port: int) -> None:
        """Bind one port for all receivers with `ReceiverSpec.shared`. Raises OSError when it is taken."""
        if self._closed:
            raise GatewayError("gb.route.shutting_down")
        if self._shared is not None:
            raise ValueError("the shared port is open already")
        self._engine.open_shared_port(host, port)
        self._shared = (host, port)

    def update_receiver(self, receiver_id: int, update: ReceiverUpdate) -> None:
        """Apply in place. Unknown ids are ignored: the receiver was closed meanwhile."""
        self._engine.update_receiver(
            receiver_id,
            update.ssrc,
            None if update.payloads is None else list(update.payloads.items()),
            None if update.expected_hosts is None else list(update.expected_hosts),
            list(update.parameter_sets),
            update.connect,
            update.listen,
            update.acknowledged,
        )

    def attach(self, receiver_id: int, stream_id: str) -> None:
        """Feed the stream from the receiver: a new generation. Raises KeyError for ids that are not open."""
        if not self._engine.attach(receiver_id, self._keys[stream_id]):
            raise KeyError(receiver_id)

    def close_receiver(self, receiver_id: int) -> None:
        """Idempotent."""
        if self._receivers.pop(receiver_id, None) is not None:
            self._engine.close_receiver(receiver_id)

    # streams

    def create_stream(self, stream_id: str, on_event: EventHandler) -> None:
        """Raises ValueError for an id that exists."""
        if stream_id in self._keys:
            raise ValueError(f"stream {stream_id!r} exists")
        key = self._engine.create_stream()
        self._keys[stream_id] = key
        self._streams[key] = _Stream(stream_id, on_event)

    def push(
        self, stream_id: str, track: Track, pts_90k: int, dts_90k: int, data: bytes, *, key: bool = False
    ) -> None:
        """A frame for a stream that has ended is dropped."""
        stream = self._keys.get(stream_id)
        if stream is not None:
            self._engine.push(stream, self._native_track(track), pts_90k, dts_90k, key, data)

    def close_stream(self, stream_id: str, reason: str = "stream_closed") -> None:
        """Idempotent."""
        key = self._keys.pop(stream_id, None)
        if key is None:
            return
        del self._streams[key]
        for track in self._engine.tracks(key):
            self._tracks_out.pop(track, None)
        self._engine.close_stream(key, reason)
        for sink_id in [number for number, owner in self._open_sinks.items() if owner == key]:
            del self._open_sinks[sink_id]
        for sink_id in [number for number, sink in self._frame_sinks.items() if sink.stream == key]:
            on_closed = self._frame_sinks.pop(sink_id).on_closed
            if on_closed is not None:
                self._loop.call_soon(on_closed, reason)

    def tracks(self, stream_id: str) -> tuple[Track, ...]:
        """Empty for a stream that has ended."""
        key = self._keys.get(stream_id)
        if key is None:
            return ()
        return tuple(self._track(track) for track in self._engine.tracks(key))

    # sinks

    def add_socket_sink(self, stream_id: str, fd: int, spec: SocketSinkSpec, on_event: EventHandler) -> int:
        """Take over the connected socket. Raises GatewayError; `fd` then still belongs to the caller."""
        key = self._stream_key(stream_id)
        http = _CHUNKED if spec.chunked else _PLAIN
        container = spec.container.over_http
        sink_id = self._engine.add_socket_sink(
            key,
            fd,
            _CONTAINERS[container],
            _WEBSOCKET if spec.container.is_websocket else http,
            _HEVC[spec.hevc] if container is Container.FLV else 0,
            _AUDIO[spec.audio],
            spec.queue_bytes,
            spec.stall_s,
            spec.merge_s,
            spec.received,
        )
        self._socket_sinks[sink_id] = (stream_id, on_event)
        self._open_sinks[sink_id] = key
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
        key = self._stream_key(stream_id)
        sink_id = self._engine.add_frame_sink(key, video, audio, made_audio)
        self._frame_sinks[sink_id] = _FrameSink(key, on_frames, on_closed)
        return sink_id

    async def add_rtp_sink(self, stream_id: str, spec: RtpSinkSpec, on_event: EventHandler) -> RtpSink:
        """Bind, all or nothing. Raises OSError when the port is taken, and GatewayError."""
        key = self._stream_key(stream_id)
        if spec.packing is RtpPacking.ES and spec.codec not in PACKABLE:
            raise GatewayError("gb.codec.codec_unsupported", f"{spec.codec} has no RTP payload format.")
        port = spec.port or DISCARD_PORT
        if spec.through is not None:
            if spec.through not in self._receivers:
                raise GatewayError("gb.route.stream_unknown", "The receiver to send through has closed.")
            port = self._receivers[spec.through][2]
        sink_id = self._engine.add_rtp_sink(
            key,
            _TRANSPORTS[spec.transport],
            spec.host,
            spec.port,
            spec.ssrc,
            spec.payload_type,
            spec.codec if spec.packing is RtpPacking.ES else "",
            spec.video,
            spec.audio,
            spec.remote,
            sorted(spec.expected_hosts),
            spec.through or 0,
            spec.queue_bytes,
            spec.stall_s,
        )
        self._socket_sinks[sink_id] = (stream_id, on_event)
        self._open_sinks[sink_id] = key
        return RtpSink(id=sink_id, host=spec.host, port=port)

    def update_rtp_sink(self, sink_id: int, update: RtpSinkUpdate) -> None:
        """Apply in place. Unknown ids are ignored: the sink has closed meanwhile."""
        self._engine.update_rtp_sink(sink_id, update.remote, update.sending, update.ssrc, update.payload_type)

    def rtp_sink_counters(self, sink_ids: Iterable[int]) -> dict[int, RtpSinkCounters]:
        """Of those that are open."""
        found = {}
        for sink_id in sink_ids:
            values = self._engine.rtp_sink_counters(sink_id) if sink_id in self._open_sinks else None
            if values is not None:
                found[sink_id] = RtpSinkCounters(
                    packets=values[0],
                    bytes=values[1],
                    dropped=values[2],
                    reported_lost=values[3],
                    rtt_ms=values[4],
                    remote=values[5],
                    passthrough=values[6],
                )
        return found

    def close_sink(self, sink_id: int) -> None:
        """Idempotent. A socket sink still tells SINK_CLOSED."""
        known = self._open_sinks.pop(sink_id, None) is not None
        if self._frame_sinks.pop(sink_id, None) is not None or known:
            self._engine.close_sink(sink_id)

    # facts

    def receiver_counters(self, receiver_ids: Iterable[int]) -> dict[int, ReceiverCounters]:
        """Of those that are open."""
        found = {}
        for receiver_id in receiver_ids:
            entry = self._receivers.get(receiver_id)
            values = self._engine.receiver_counters(receiver_id) if entry is not None else None
            if entry is not None and values is not None:
                found[receiver_id] = ReceiverCounters(
                    packets=values[0],
                    bytes=values[1],
                    lost=values[2],
                    reordered=values[3],
                    duplicated=values[4],
                    late=values[5],
                    foreign=values[6],
                    malformed=values[7],
                    rtcp=values[8],
                    jitter_ms=values[9],
                    bitrate_kbps=values[10],
                    frames=values[11],
                    key_frames=values[12],
                    demux_errors=values[13],
                    ssrc=values[14],
                    source=values[15],
                    bound=entry[1],
                )
        return found

    def stream_counters(self, stream_ids: Iterable[str]) -> dict[str, StreamCounters]:
        """Of those that exist."""
        found = {}
        for stream_id in stream_ids:
            key = self._keys.get(stream_id)
            values = self._engine.stream_counters(key) if key is not None else None
            if values is not None:
                found[stream_id] = StreamCounters(
                    sinks=values[0],
                    frames_in=values[1],
                    frames_dropped=values[2],
                    frames_frozen=values[3],
                    bytes_out=values[4],
                    pictures=values[5],
                    picture_90k=values[6],
                    device_90k=values[7],
                    demuxed=values[8],
                )
        return found

    @property
    def gauges(self) -> dict[str, int]:
        """What is open; all 0 when nothing runs (invariant I2)."""
        return {
            "receivers": len(self._receivers),
            "streams": len(self._streams),
            "sinks": len(self._open_sinks) + len(self._frame_sinks),
        }

    @property
    def failures(self) -> int:
        """Mistakes of ours that were survived; each is logged."""
        return self._engine.failures + self._consumer_failures

    @property
    def workers(self) -> int:
        """Threads of the data plane."""
        return self._engine.workers

    async def close(self) -> None:
        """End everything; returns when the sockets are closed and everybody was told."""
        if self._closed:
            return
        self._closed = True
        for stream_id in list(self._keys):
            self.close_stream(stream_id, "shutting_down")
        for receiver_id in list(self._receivers):
            self.close_receiver(receiver_id)
        # The threads end within a turn; a blocking call of that length is shorter than a hop to a thread.
        self._engine.stop()
        self._loop.remove_reader(self._engine.event_fd())
        await asyncio.sleep(0)
        self._readable()

    # within

    def _stream_key(self, stream_id: str) -> int:
        key = self._keys.get(stream_id)
        if key is None:
            raise GatewayError("gb.route.stream_unknown", f"Stream {stream_id} has ended.")
        return key

    def _readable(self) -> None:
        for notice in self._engine.take():
            try:
                if isinstance(notice, _native.FrameBatch):
                    self._deliver_frames(notice)
                elif isinstance(notice, _native.Event):
                    self._deliver(notice)
                else:
                    logger.error("%s", notice)
            except Exception:
                # A handler's mistake must not keep the others from their events.
                self._consumer_failures += 1
                logger.exception("a handler of media events failed")

    def _deliver(self, event: _native.Event) -> None:
        kind = _KINDS[event.kind]
        if event.target == _TARGET_RECEIVER:
            entry = self._receivers.get(event.id)
            if entry is None:
                return  # closed meanwhile
            stream = self._streams.get(event.stream)
            handler, stream_id = entry[0], stream.id if stream is not None else ""
        elif event.target == _TARGET_STREAM:
            stream = self._streams.get(event.id)
            if stream is None:
                return
            handler, stream_id = stream.on_event, stream.id
        else:
            sink = self._socket_sinks.get(event.id)
            if kind is EventKind.SINK_CLOSED:
                self._open_sinks.pop(event.id, None)
                self._socket_sinks.pop(event.id, None)
            if sink is None:
                return
            stream_id, handler = sink
        handler(
            EngineEvent(
                kind=kind,
                stream_id=stream_id,
                peer=event.peer,
                ssrc=event.ssrc,
                tracks=tuple(self._track(track) for track in event.tracks),
                detail=event.detail,
                bytes_out=event.bytes_out,
            )
        )

    def _deliver_frames(self, batch: _native.FrameBatch) -> None:
        sink = self._frame_sinks.get(batch.sink)
        if sink is None:
            return  # closed meanwhile
        frames = [
            Frame(
                track=self._track(track),
                pts_90k=pts_90k,
                dts_90k=dts_90k,
                key=key,
                payload=payload,
                arrival=arrival,
            )
            for track, pts_90k, dts_90k, key, payload, arrival in batch.frames
        ]
        try:
            sink.on_frames(frames)
        except Exception:
            # A consumer's mistake must not reach the source or the other consumers; it loses its sink.
            logger.exception("a frame consumer failed and is closed")
            self.close_sink(batch.sink)

    def _track(self, track: _native.Track) -> Track:
        """The same `Track` for the same native one: consumers compare them by identity."""
        known = self._tracks_out.get(track)
        if known is None:
            if len(self._tracks_out) >= _MAX_TRACKS:
                self._tracks_out.clear()
            codec = Codec(track.codec)
            known = self._tracks_out[track] = Track(
                kind=TrackKind.VIDEO if codec.is_video else TrackKind.AUDIO,
                codec=codec,
                width=track.width,
                height=track.height,
                fps=track.fps,
                sample_rate=track.sample_rate,
                channels=track.channels,
                parameter_sets=track.parameter_sets,
            )
        return known

    def _native_track(self, track: Track) -> _native.Track:
        known = self._tracks_in.get(track)
        if known is None:
            if len(self._tracks_in) >= _MAX_TRACKS:
                self._tracks_in.clear()
            known = self._tracks_in[track] = _native.make_track(
                track.codec.value,
                track.width,
                track.height,
                track.fps,
                track.sample_rate,
                track.channels,
                track.parameter_sets,
            )
        return known
