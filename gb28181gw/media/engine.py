"""The engine interface: what every media plane offers to the control plane.

Theory of operation. A *receiver* owns sockets and turns packets into frames; a *stream* owns the frames of
one source (tracks, kept GOP) and feeds *sinks*. A stream outlives its receivers: when a device falls silent
the session closes the receiver, INVITEs again and attaches a new one, and the consumers stay. Nothing per
packet crosses this interface: the control plane sends commands and gets events and counters.

Two implementations: `media.reference` (pure Python on the event loop; the oracle) and the native plane.
Ports and SSRCs are chosen by the caller (`media.ports`, `media.ssrc`); the engine binds what it is given,
all or nothing. Every `close` is idempotent and frees exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from gb28181gw.media.tracks import Frame, Track


class MediaTransport(StrEnum):
    """As seen from the gateway's offer (`a=setup`): tcp-passive means that the device connects to us."""

    UDP = "udp"
    TCP_PASSIVE = "tcp-passive"
    TCP_ACTIVE = "tcp-active"


class Container(StrEnum):
    """Formats that a socket sink writes. HTTP answers are chunked; the listener has already sent the head."""

    FLV = "flv"
    WS_FLV = "ws-flv"
    FMP4 = "fmp4"
    WS_FMP4 = "ws-fmp4"
    TS = "ts"
    WS_TS = "ws-ts"

    @property
    def is_websocket(self) -> bool:
        return self in (Container.WS_FLV, Container.WS_FMP4, Container.WS_TS)

    @property
    def over_http(self) -> Container:
        """The same without WebSocket frames around it."""
        return Container(self.value.removeprefix("ws-"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSpec:
    """What to bind and whom to believe (docs/concepts/media-sources.md)."""

    transport: MediaTransport
    host: str
    """Local address to bind; ``0.0.0.0`` allowed."""
    port: int
    """Local RTP port (even); RTCP is bound above it, TCP on the same number (INV-24).

    TCP active dials from a port of the host's choice; a port given here is listened on as well (INV-18), 0 not.
    """
    ssrc: int
    """Offered SSRC."""
    payloads: Mapping[int, str] = field(default_factory=lambda: {96: "PS"})
    """RTP payload type -> encoding name (``PS``, ``H264``, ``H265``, ``PCMA``, ``MPEG4-GENERIC`` …)."""
    expected_hosts: frozenset[str] = frozenset()
    """Addresses, or networks in CIDR form, that may latch at once: the SDP's c=, the signalling address."""
    source_mode: str = "nat"
    """``nat`` or ``strict`` (docs/concepts/media-sources.md)."""
    silence_s: float = 10.0
    """A SILENCE event after so long without an accepted packet, counted from the first one; 0 never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverUpdate:
    """What the answer told; applied in place without closing the port (INV-02). None leaves a field alone."""

    ssrc: int | None = None
    payloads: Mapping[int, str] | None = None
    expected_hosts: frozenset[str] | None = None
    connect: tuple[str, int] | None = None
    """Dial this address: 3 tries, 1 s apart (Annex D), while listening where a port is bound (INV-18)."""
    acknowledged: bool = False
    """The ACK was sent now: starts the 2 s of rule 1 of docs/concepts/media-sources.md."""


class EventKind(StrEnum):
    FIRST_PACKET = "first_packet"
    """peer: source that latched."""
    CONNECTED = "connected"
    """A media TCP connection was made; peer."""
    CONNECT_FAILED = "connect_failed"
    DISCONNECTED = "disconnected"
    """The media TCP connection ended."""
    TRACKS = "tracks"
    """Tracks known or changed; tracks."""
    KEY_FRAME = "key_frame"
    """The first key frame of this generation."""
    SOURCE_SWITCHED = "source_switched"
    SOURCE_CONFLICT = "source_conflict"
    SSRC_MISMATCH = "ssrc_mismatch"
    """ssrc: what was seen; accepted by rule 2 or not, see detail."""
    QUIRK = "quirk"
    """A tolerance fired for the first time on this receiver; detail is its name (``rtp.…``, ``ps.…``)."""
    SILENCE = "silence"
    """Told once; again after packets came and stopped again."""
    SINK_CLOSED = "sink_closed"
    """detail: reason (``viewer_gone``, ``slow``, ``stream_closed``, ``tracks_changed``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvent:
    kind: EventKind
    stream_id: str = ""
    peer: str = ""
    ssrc: int | None = None
    tracks: tuple[Track, ...] = ()
    detail: str = ""
    bytes_out: int = 0
    """SINK_CLOSED: bytes that the kernel took for this consumer."""


EventHandler = Callable[[EngineEvent], None]
"""Called on the event loop, soon after the fact and never from within a call of the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Handle of an open receiver."""

    id: int
    host: str
    port: int
    """Bound RTP port, to write into the offer; 9 for TCP active without a port of its own (RFC 4145 4.1)."""


@dataclass(slots=True, kw_only=True)
class ReceiverCounters:
    """RFC 3550 terms. Everything counts from the opening of the receiver."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    reordered: int = 0
    duplicated: int = 0
    late: int = 0
    foreign: int = 0
    """Packets of a source or SSRC that was not accepted."""
    malformed: int = 0
    rtcp: int = 0
    jitter_ms: float = 0.0
    bitrate_kbps: float = 0.0
    """Over the last full second or two."""
    frames: int = 0
    key_frames: int = 0
    demux_errors: int = 0
    ssrc: int | None = None
    """The SSRC that is accepted now."""
    source: str = ""
    """The latched ``ip:port``."""
    bound: str = ""
    """The ``ip:port`` that waits for packets."""


@dataclass(slots=True, kw_only=True)
class StreamCounters:
    sinks: int = 0
    frames_in: int = 0
    frames_dropped: int = 0
    """Frames that slow sinks skipped, summed over sinks."""
    frames_frozen: int = 0
    """Pictures held back because something before them was lost (MED-24)."""
    bytes_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSinkSpec:
    """How one consumer of a socket wants the stream."""

    container: Container
    audio: str = "copy"
    """``copy``: the source's audio where the container has it; ``aac``: the pushed AAC track; ``none``."""
    hevc: str = "enhanced"
    """FLV only: ``enhanced`` (FourCC hvc1) or ``legacy`` (codec id 12)."""
    queue_bytes: int = 2 * 1024 * 1024
    chunked: bool = True
    """HTTP containers: chunked coding (RFC 9112 7.1); False for HTTP/1.0, which ends by closing."""
    received: bytes = field(default=b"", repr=False)
    """What the listener has already read behind the request (WebSocket frames of an eager client)."""
    stall_s: float = 10.0
    """Disconnect when nothing could be written for so long."""


FrameHandler = Callable[[list[Frame]], None]


class Engine(Protocol):
    """One media plane. All calls are made on the event loop's thread."""

    name: str
    """``python`` or ``native``."""

    async def open_receiver(self, spec: ReceiverSpec, on_event: EventHandler) -> Receiver:
        """Bind, all or nothing; for passive TCP listen. Raises OSError when the port is taken."""
        ...

    def update_receiver(self, receiver_id: int, update: ReceiverUpdate) -> None: ...

    def create_stream(self, stream_id: str, on_event: EventHandler) -> None:
        """An empty stream; `on_event` gets TRACKS and KEY_FRAME of it."""
        ...

    def attach(self, receiver_id: int, stream_id: str) -> None:
        """Feed the stream from the receiver: a new generation, which begins at a key frame."""
        ...

    def push(
        self, stream_id: str, track: Track, pts_90k: int, dts_90k: int, data: bytes, *, key: bool = False
    ) -> None:
        """Feed a frame made in Python (transcoded audio, talk, a source of another protocol)."""
        ...

    def add_socket_sink(self, stream_id: str, fd: int, spec: SocketSinkSpec, on_event: EventHandler) -> int:
        """Take over the connected socket `fd` and write the container to it.

        The engine owns and closes it; on GatewayError it still belongs to the caller. Each sink ends with one
        SINK_CLOSED.
        """
        ...

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
        """Frames in batches, starting with the kept GOP. `made_audio`: AAC made from the source's audio as well.

        `on_closed` gets the reason when the stream ends, once; not after `close_sink`.
        """
        ...

    def close_sink(self, sink_id: int) -> None: ...

    def close_receiver(self, receiver_id: int) -> None:
        """Close its sockets. The caller lets the port rest (`media.ports`)."""
        ...

    def close_stream(self, stream_id: str, reason: str = "stream_closed") -> None:
        """End all its sinks, each with SINK_CLOSED."""
        ...

    def tracks(self, stream_id: str) -> tuple[Track, ...]: ...

    def receiver_counters(self, receiver_ids: Iterable[int]) -> dict[int, ReceiverCounters]: ...

    def stream_counters(self, stream_ids: Iterable[str]) -> dict[str, StreamCounters]: ...

    async def close(self) -> None:
        """End everything; returns when the sockets are closed."""
        ...
