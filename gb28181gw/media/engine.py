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


class RtpPacking(StrEnum):
    """What the payload of an RTP sink is."""

    PS = "ps"
    """Program stream (GB/T 28181-2022 C.1). The source's own packets where those are PS over RTP, else muxed."""
    ES = "es"
    """One elementary stream: H.264 RFC 6184, H.265 RFC 7798, AAC RFC 3640, G.711 RFC 3551."""


class Feature(StrEnum):
    """What not every plane can do; the others answer ``gb.media.plane_unable``."""

    RTP_SINKS = "rtp_sinks"
    SHARED_PORT = "shared_port"


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
    """Local RTP port (even); RTCP is bound above it. A TCP receiver takes UDP on the same number too (INV-24).

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
    shared: bool = False
    """Receive on the shared port (`Engine.open_shared_port`), told apart by SSRC and source. `host` and `port` are
    then those of the shared port, or ``""`` and 0; no socket of its own is bound. Not for TCP active."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverUpdate:
    """What the answer told; applied in place without closing the port (INV-02). None leaves a field alone."""

    ssrc: int | None = None
    payloads: Mapping[int, str] | None = None
    expected_hosts: frozenset[str] | None = None
    parameter_sets: tuple[bytes, ...] = ()
    """NAL units of the SDP (``sprop-…``), used until the stream has its own (MED-35). Empty leaves them alone."""
    connect: tuple[str, int] | None = None
    """Dial this address: 3 tries, 1 s apart (Annex D), while listening where a port is bound (INV-18)."""
    listen: bool = False
    """Accept connections on the same port from now on: TCP in answer to a UDP offer (INV-24). Where another program has
    the port's TCP side, the receiver goes on without."""
    acknowledged: bool = False
    """The ACK was sent now: starts the 2 s of rule 1 of docs/concepts/media-sources.md."""


class EventKind(StrEnum):
    FIRST_PACKET = "first_packet"
    """peer: source that latched."""
    CONNECTED = "connected"
    """A media TCP connection was made; peer. Of receivers and of RTP sinks."""
    CONNECT_FAILED = "connect_failed"
    """Dialling has ended without a connection; peer, detail. An RTP sink tells SINK_CLOSED ``viewer_gone`` after it."""
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
    """Once for each socket and RTP sink. detail: ``viewer_gone`` (the peer closed, refused or cannot be reached),
    ``slow`` (it took nothing for `stall_s`), ``silent`` (RTP over UDP: its receiver reports came and then stayed
    away for `RTCP_SILENCE_S`), ``stream_closed`` or what `close_stream` was told,
    ``closed`` (`close_sink`), ``tracks_changed`` (fragmented MP4: what comes now was not announced)."""


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
    pictures: int = 0
    """Pictures that passed."""
    picture_90k: int = 0
    """Decoding time of the newest picture on the stream's clock, which never goes back."""
    device_90k: int = 0
    """The same on the device's clock, without its wraps: where the two part, the device's time jumped (MED-21)."""
    demuxed: int = 0
    """Packets that went through a demuxer. Stands still, from a key frame on, while raw RTP sinks are the only
    consumers of a PS source whose tracks are known; a consumer of frames resumes it, at the kept key frame."""


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
    merge_s: float = 0.0
    """Frames of so long are written together, which costs less and delays the picture; 0: each at once."""


RTCP_REPORT_S = 5.0
"""Sender reports of RTP sinks over UDP come so often (RFC 3550 6.2)."""
RTCP_SILENCE_S = 60.0
"""An RTP sink's peer that reported on what it gets is given up after so long without a report. One that never did is
not (GB/T 28181-2022 4.3.6: RTCP is not required of peers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpSinkSpec:
    """Where and how a stream is sent as RTP: to an upper platform, a device that talks, a recorder.

    PS passes through raw when the stream's source is PS over RTP and both `video` and `audio` are wanted: only
    SSRC, sequence number and payload type are rewritten; a gap of the source stays a gap of the same width.
    Otherwise the stream's frames are muxed (`PsMuxer`), one pack a frame, the marker on its last packet.
    """

    transport: MediaTransport
    """As seen from here: UDP; TCP_PASSIVE listens on `host`:`port` for one connection; TCP_ACTIVE dials `remote`."""
    host: str = ""
    """Local address to bind; ``0.0.0.0`` allowed."""
    port: int = 0
    """Local port. UDP: even, RTCP is bound above it. TCP active: 0 for one of the host's choice."""
    ssrc: int
    payload_type: int = 96
    packing: RtpPacking = RtpPacking.PS
    codec: str = ""
    """ES only: the `Codec` of the one track that is sent (``h264``, ``pcma`` …)."""
    video: bool = True
    audio: bool = True
    remote: tuple[str, int] | None = None
    """The peer's RTP address (UDP, TCP active), where it is known already. Addresses, never names."""
    expected_hosts: frozenset[str] = frozenset()
    """TCP passive: addresses or CIDR networks that may connect (threat S-11); empty: any."""
    through: int | None = None
    """A receiver's id: send on its own UDP socket or latched connection (talk: both ways on one port, GB/T
    28181-2022 9.12). `transport`, `host`, `port` are then not used; without `remote` UDP goes to the latched source."""
    queue_bytes: int = 2 * 1024 * 1024
    """Over TCP: what may wait for the kernel before the sink skips to the next key frame."""
    stall_s: float = 10.0
    """Over TCP: disconnect when nothing could be written for so long; also the wait for a peer to connect, counted
    from `sending`. UDP: port unreachable for so long ends the sink with ``viewer_gone``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpSinkUpdate:
    """None leaves a field alone."""

    remote: tuple[str, int] | None = None
    """TCP active dials it (3 tries, 1 s apart, GB/T 28181-2022 Annex D) once the sink sends."""
    sending: bool | None = None
    """True (after the ACK): begin, at a key frame, the kept one first. False: pause, ports stay; True begins anew."""
    ssrc: int | None = None
    payload_type: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpSink:
    """Handle of an RTP sink."""

    id: int
    host: str
    port: int
    """Bound RTP port, to write into the SDP; 9 for TCP active without a port of its own (RFC 4145 4.1)."""


@dataclass(slots=True, kw_only=True)
class RtpSinkCounters:
    """Of one RTP sink since it was made."""

    packets: int = 0
    """RTP packets that the kernel took."""
    bytes: int = 0
    """Their RTP headers and payloads."""
    dropped: int = 0
    """Packets that were skipped because the peer or the kernel was slow."""
    reported_lost: int = 0
    """Cumulative loss of the peer's last receiver report (RFC 3550 6.4.1)."""
    rtt_ms: float = 0.0
    """Round trip of the last report that allowed it (RFC 3550 6.4.1); 0 unknown."""
    remote: str = ""
    """``ip:port`` that is sent to; empty while unknown."""
    passthrough: bool = False
    """The source's own packets are forwarded."""


FrameHandler = Callable[[list[Frame]], None]


class Engine(Protocol):
    """One media plane. All calls are made on the event loop's thread."""

    name: str
    """``python`` or ``native``."""
    features: frozenset[Feature]

    async def open_receiver(self, spec: ReceiverSpec, on_event: EventHandler) -> Receiver:
        """Bind, all or nothing; for passive TCP listen. Raises OSError when the port is taken.

        With `spec.shared` nothing is bound; GatewayError ``gb.media.bind_failed`` without a shared port, and
        ``gb.route.exists`` for an SSRC that another receiver of the shared port has agreed.
        """
        ...

    async def open_shared_port(self, host: str, port: int) -> None:
        """Bind one port, UDP (with RTCP above it) and TCP, for all receivers with `ReceiverSpec.shared`.

        Once, at the start; it lives as long as the engine. A packet belongs to the receiver that latched its source
        and SSRC; else to the one that agreed its SSRC, or of whose SSRC it is a known variant (byte-swapped, read as
        hex: INV-03); else to the only one that latched its source (a new epoch). What fits none is dropped; if just
        one receiver waits for media from its address, that one tells SSRC_MISMATCH. Each receiver applies its own
        source rule to what it is given. A TCP connection belongs to the receiver that its first RTP packet names.
        Raises OSError when the port is taken, GatewayError ``gb.media.plane_unable``.
        """
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

    async def add_rtp_sink(self, stream_id: str, spec: RtpSinkSpec, on_event: EventHandler) -> RtpSink:
        """Bind, all or nothing, and hold the ports; nothing is sent before `RtpSinkUpdate.sending`.

        Raises OSError when the port is taken; GatewayError ``gb.route.stream_unknown`` for a stream or a receiver
        (`through`) that has ended, ``gb.codec.codec_unsupported`` for a codec that cannot be packed,
        ``gb.media.plane_unable``. `on_event` gets CONNECTED, CONNECT_FAILED (TCP) and one SINK_CLOSED.
        """
        ...

    def update_rtp_sink(self, sink_id: int, update: RtpSinkUpdate) -> None:
        """Apply in place. Unknown ids are ignored: the sink has closed meanwhile."""
        ...

    def rtp_sink_counters(self, sink_ids: Iterable[int]) -> dict[int, RtpSinkCounters]:
        """Of those that are open."""
        ...

    def close_sink(self, sink_id: int) -> None:
        """Of any kind; idempotent. Socket and RTP sinks still tell SINK_CLOSED."""
        ...

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
