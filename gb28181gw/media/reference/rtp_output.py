"""One RTP sink: what becomes of a stream on its way to one peer.

Theory of operation. The stream hands over either the source's own packets (`forward`) or frames (`write`). A packet of
the source gets this sink's SSRC, payload type and sequence number; the difference between the two numberings stays the
same as long as the source's goes on, so what was lost before us, or was skipped for a slow peer, is missing behind us
too. Frames are muxed or packed here. Everything begins at a key frame; a queue that is over its limit is left to run
empty, and the next key frame goes on. RTCP reports go out every five seconds, and what the peer reports is counted.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence

from gb28181gw.media.engine import (
    RTCP_REPORT_S,
    RTCP_SILENCE_S,
    EventKind,
    MediaTransport,
    RtpPacking,
    RtpSinkCounters,
    RtpSinkSpec,
    RtpSinkUpdate,
)
from gb28181gw.media.reference.gop import Role
from gb28181gw.media.reference.raw_gop import Entry
from gb28181gw.media.reference.rtp_links import Link
from gb28181gw.media.reference.source import Source
from gb28181gw.media.tracks import Codec, Frame, Track
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.es_packetiser import MAX_PAYLOAD, EsPacketiser
from gb28181gw.media.wire.exceptions import RtpError
from gb28181gw.media.wire.ps_mux import MapPolicy, PsMuxer
from gb28181gw.media.wire.reorder import Gap
from gb28181gw.media.wire.rtcp import (
    ReceiverReport,
    SenderReport,
    build_goodbye,
    build_sender_report,
    ntp_time,
)
from gb28181gw.media.wire.rtcp import parse as parse_rtcp
from gb28181gw.media.wire.rtp import HEADER_SIZE, RtpPacket, RtpPacketiser

_HEADER = struct.Struct("!BBHII")
_CNAME = "g"
_REPORTS_KEPT = 8
"""Sender reports of which the time is remembered, for the round trip."""


class RtpOutput:
    """Owner of one link, of the numbering behind it and of its queue. `on_event(kind, peer, detail)`."""

    def __init__(
        self,
        spec: RtpSinkSpec,
        loop: asyncio.AbstractEventLoop,
        on_event: Callable[[EventKind, str, str], None],
        on_start: Callable[[RtpOutput], None],
        on_closed: Callable[[RtpOutput, str], None],
    ) -> None:
        self.spec = spec
        self._loop = loop
        self._on_event = on_event
        self._on_start = on_start
        self._on_closed = on_closed
        self._link: Link | None = None
        self.codec = Codec(spec.codec) if spec.packing is RtpPacking.ES else None
        self.takes_raw = spec.packing is RtpPacking.PS and spec.video and spec.audio
        """It sends the source's packets where those are a program stream."""
        self.ssrc = spec.ssrc
        self._payload_type = spec.payload_type
        self._remote = spec.remote
        self._sending = False
        self._waits_since = 0.0
        self._tcp = spec.through is None and spec.transport is not MediaTransport.UDP
        self.awaiting = True
        """For a key frame."""
        self._next = secrets.randbits(16)
        """Sequence number of the next packet that is made here."""
        self._offset: int | None = None
        """What is added to the source's sequence numbers."""
        self._raw = False
        self._es: EsPacketiser | None = None
        self._ps: PsMuxer | None = None
        self._muxed: tuple[Codec | None, Codec | None] | None = None
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._exempt = 0
        """Bytes of the kept group that still wait: they do not count against the limit."""
        self._flush: asyncio.Handle | None = None
        self._counters = RtpSinkCounters()
        self._octets = 0
        self._last_timestamp = 0
        self._last_at = 0.0
        self._clock_rate = 90_000
        self._report_at = 0.0
        self._reports: dict[int, float] = {}
        self._rtcp_heard: float | None = None
        self.closed = False

    def use(self, link: Link) -> None:
        """The way to the peer; told once, before anything else."""
        self._link = link

    @property
    def active(self) -> bool:
        """It wants the stream now."""
        return self._sending and self._link is not None and self._link.is_open

    # control

    def update(self, update: RtpSinkUpdate) -> None:
        if update.ssrc is not None:
            self.ssrc = update.ssrc
            self._es = None
        if update.payload_type is not None:
            self._payload_type = update.payload_type
            self._es = None
        if update.remote is not None:
            self._remote = update.remote
        if update.sending is False:
            self._sending = False
            self._skip()
        begins = update.sending is True and not self._sending
        if begins:
            self._sending = True
            self._waits_since = self._loop.time()
            self._skip()
        if self._sending and self._link is not None:
            was_open = self._link.is_open
            try:
                self._link.connect(self._remote)
            except ValueError:
                self._on_event(
                    EventKind.CONNECT_FAILED, self._remote[0] if self._remote else "", "not_an_address"
                )
                self.close("viewer_gone")
                return
            except OSError as error:
                self._on_event(EventKind.CONNECT_FAILED, "", error.strerror or str(error))
                self.close("viewer_gone")
                return
            if begins and was_open and self._link.is_open:
                self._on_start(self)

    def check(self, now: float) -> None:
        """Called several times a second: reports, and peers that are gone."""
        link = self._link
        if link is None or not self._sending:
            return
        since = link.stalled_since
        if since is not None and now - since > self.spec.stall_s:
            self.close("slow" if self._tcp else "viewer_gone")
        elif self._tcp and not link.is_open:
            if (
                now - self._waits_since > self.spec.stall_s
                and self.spec.transport is MediaTransport.TCP_PASSIVE
            ):
                self.close("viewer_gone")
        elif not self._tcp and self._rtcp_heard is not None and now - self._rtcp_heard > RTCP_SILENCE_S:
            self.close("silent")
        elif self._counters.packets and now >= self._report_at:
            self._report_at = now + RTCP_REPORT_S
            self._report(now)

    def close(self, reason: str) -> None:
        """Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._link is not None:
            if self._counters.packets:
                self._link.control(build_goodbye(self.ssrc, _CNAME))
            self._link.close(abort=reason == "slow")
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._queue.clear()
        self._on_closed(self, reason)

    # what the link tells

    def opened(self, peer: str) -> None:
        if self._tcp:
            self._on_event(EventKind.CONNECTED, peer, "")
        if self._sending:
            self._skip()
            self._on_start(self)

    def writable(self) -> None:
        self._send()

    def failed(self, reason: str, detail: str) -> None:
        if detail:
            self._on_event(EventKind.CONNECT_FAILED, self._link.remote if self._link else "", detail)
        self.close(reason)

    def control(self, data: bytes, source: Source) -> None:
        """RTCP from the peer."""
        del source
        try:
            packets = parse_rtcp(data)
        except RtpError:
            return
        now = self._loop.time()
        for packet in packets:
            if not isinstance(packet, (SenderReport, ReceiverReport)):
                continue
            for block in packet.blocks:
                if block.ssrc != self.ssrc:
                    continue
                self._rtcp_heard = now
                self._counters.reported_lost = max(0, block.cumulative_lost)
                sent_at = self._reports.get(block.last_sender_report)
                if sent_at is not None:
                    # RFC 3550 6.4.1, by our own clock, which does not step.
                    passed = now - sent_at - block.delay_since_last_sender_report / 65536
                    self._counters.rtt_ms = max(0.0, passed * 1000)

    # media

    def begin(self, entries: Sequence[Entry]) -> None:
        """The source's packets since a key frame: nothing has been sent, or packets were skipped before it."""
        if self._queued_bytes > self.spec.queue_bytes:
            return
        self.awaiting = False
        before = self._queued_bytes
        for packet, _ in entries:
            self._relay(packet)
        self._exempt = self._queued_bytes if before == 0 else self._exempt

    def forward(self, packet: RtpPacket | Gap) -> None:
        """The source's next packet."""
        if not self.active:
            return
        if self.awaiting:
            self._counters.dropped += not isinstance(packet, Gap) and self._counters.packets > 0
            return
        if isinstance(packet, RtpPacket) and self._is_full(len(packet.payload)):
            self.awaiting = True
            self._counters.dropped += 1
            return
        self._relay(packet)

    def new_source(self) -> None:
        """Another source feeds the stream from now on."""
        self.awaiting = True
        self._offset = None

    def wants(self, role: Role, track: Track) -> bool:
        if self.codec is not None:
            return track.codec is self.codec
        if role is Role.MADE_AUDIO:
            return False
        return self.spec.video if role is Role.VIDEO else self.spec.audio

    def write(self, frame: Frame, tracks: Sequence[Track], *, key: bool, kept: bool = False) -> None:
        """A frame that it `wants`. `key`: a peer can begin here. `tracks`: of the stream. `kept`: of the kept group."""
        if not self.active:
            return
        if not kept and not self.awaiting and self._is_full(len(frame.payload)):
            self.awaiting = True
        if self.awaiting:
            if not key or self._queued_bytes > self.spec.queue_bytes:
                self._counters.dropped += self._counters.packets > 0
                return
            self.awaiting = False
        self._raw = False
        self._offset = None
        if frame.key and frame.track.codec.is_video:
            frame = with_parameter_sets(frame)
        packets = self._packed(frame) if self.codec is not None else self._packs(frame, tracks)
        for packet in packets:
            self._enqueue(packet)
        if packets:
            self._last_timestamp = int.from_bytes(packets[-1][4:8], "big")
        if kept:
            self._exempt = self._queued_bytes

    # facts

    def counters(self) -> RtpSinkCounters:
        found = self._counters
        found.remote = self._link.remote if self._link is not None else ""
        found.passthrough = self._raw
        return found

    # within

    def _skip(self) -> None:
        """What waits is of no use any more."""
        self._counters.dropped += len(self._queue)
        self._queue.clear()
        self._queued_bytes = self._exempt = 0
        self.awaiting = True

    def _is_full(self, size: int) -> bool:
        waiting = self._queued_bytes - self._exempt
        return waiting > 0 and waiting + size > self.spec.queue_bytes

    def _relay(self, packet: RtpPacket | Gap) -> None:
        if isinstance(packet, Gap):
            if packet.restart:
                self._offset = None
            return
        if self._offset is None:
            # One number is left out where another sequence goes on: the peer shall not join what does not fit.
            self._offset = self._next + (self._counters.packets > 0) - packet.sequence_number
        number = (packet.sequence_number + self._offset) & 0xFFFF
        self._next = (number + 1) & 0xFFFF
        self._raw = True
        self._clock_rate = 90_000
        self._last_timestamp = packet.timestamp
        if packet.csrcs or packet.extension_profile is not None:
            moved = packet._replace(sequence_number=number, ssrc=self.ssrc, payload_type=self._payload_type)
            self._enqueue(moved.serialise())
            return
        second = self._payload_type | 0x80 if packet.marker else self._payload_type
        self._enqueue(_HEADER.pack(0x80, second, number, packet.timestamp, self.ssrc) + packet.payload)

    def _packed(self, frame: Frame) -> list[bytes]:
        """One frame of an elementary stream."""
        es = self._es
        if es is None or es.codec is not frame.track.codec:
            es = self._es = EsPacketiser(frame.track.codec, ssrc=self.ssrc, payload_type=self._payload_type)
        es.sequence_number = self._next
        packets = es.packetise(frame)
        self._next = es.sequence_number
        self._clock_rate = es.clock_rate(frame)
        return packets

    def _packs(self, frame: Frame, tracks: Sequence[Track]) -> list[bytes]:
        """One frame as a pack (GB/T 28181-2022 C.1)."""
        video = next((t.codec for t in tracks if t.codec.is_video and self.spec.video), None)
        audio = next((t.codec for t in tracks if not t.codec.is_video and self.spec.audio), None)
        policy = MapPolicy.KEY
        if self._ps is None or self._muxed != (video, audio):
            if self._ps is not None:
                policy = MapPolicy.ALWAYS  # a track came: the map must not wait for the next key frame
            self._muxed = (video, audio)
            self._ps = PsMuxer(video=video, audio=audio, map_policy=policy)
        pack = self._ps.mux(frame)
        if policy is MapPolicy.ALWAYS:
            self._ps = PsMuxer(video=video, audio=audio)
        self._clock_rate = 90_000
        rtp = RtpPacketiser(
            ssrc=self.ssrc,
            payload_type=self._payload_type,
            max_payload=MAX_PAYLOAD,
            sequence_number=self._next,
        )
        packets = rtp.packetise(pack, frame.dts_90k)
        self._next = rtp.sequence_number
        return packets

    def _enqueue(self, packet: bytes) -> None:
        self._queue.append(packet)
        self._queued_bytes += len(packet)
        if self._flush is None:
            self._flush = self._loop.call_soon(self._flushed)

    def _flushed(self) -> None:
        self._flush = None
        self._send()

    def _send(self) -> None:
        if self._link is None or self.closed:
            return
        packets, size = self._link.send(self._queue)
        if packets:
            self._queued_bytes -= size
            self._exempt = max(0, self._exempt - size)
            self._counters.packets += packets
            self._counters.bytes += size
            self._octets += size - HEADER_SIZE * packets
            self._last_at = self._loop.time()

    def _report(self, now: float) -> None:
        """Sender report (RFC 3550 6.4.1)."""
        assert self._link is not None  # noqa: S101 - asked for with a link only
        passed = int((now - self._last_at) * self._clock_rate)
        report = SenderReport(
            ssrc=self.ssrc,
            ntp_time=ntp_time(time.time()),
            rtp_timestamp=(self._last_timestamp + passed) & 0xFFFFFFFF,
            packet_count=self._counters.packets,
            octet_count=self._octets,
        )
        while len(self._reports) >= _REPORTS_KEPT:
            del self._reports[next(iter(self._reports))]
        self._reports[report.middle_ntp] = now
        self._link.control(build_sender_report(report, _CNAME))


def with_parameter_sets(frame: Frame) -> Frame:
    """A key frame with the parameter sets that a peer needs to begin; those that came apart from it are put before."""
    track = frame.track
    if track.codec not in (Codec.H264, Codec.H265) or not track.parameter_sets:
        return frame
    for unit in nal.split_annexb(frame.payload):
        kind = nal.nal_type(track.codec, unit)
        if nal.is_parameter_set(track.codec, kind):
            return frame
        if nal.is_vcl(track.codec, kind):
            break
    payload = nal.join_annexb(track.parameter_sets) + frame.payload
    return Frame(
        track=track,
        pts_90k=frame.pts_90k,
        dts_90k=frame.dts_90k,
        key=True,
        payload=payload,
        arrival=frame.arrival,
    )
