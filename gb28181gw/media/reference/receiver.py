"""From packets of any transport to units: what all receivers share.

Order of a packet: RTCP is set aside (MED-29), the fixed header is read, the source rule decides (`source`),
the packets are put in order, the payload is taken apart (`intake`), and the units go to the stream's feed.
Whatever a packet holds, it is counted and ends nothing (invariant I8). Units that come before a stream is
attached are kept from the last key frame on, within bounds: devices send before their answer arrives
(INV-15, INV-19).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from gb28181gw.media.engine import (
    EngineEvent,
    EventHandler,
    EventKind,
    Receiver,
    ReceiverCounters,
    ReceiverSpec,
    ReceiverUpdate,
)
from gb28181gw.media.reference.intake import Intake, clock_rate
from gb28181gw.media.reference.raw_gop import RawGop
from gb28181gw.media.reference.source import Looks, Source, SourceGate, Verdict, address, ssrc_variant
from gb28181gw.media.reference.stream import Feed
from gb28181gw.media.tracks import TrackKind
from gb28181gw.media.wire.exceptions import RtpError
from gb28181gw.media.wire.reception import ReceptionStatistics
from gb28181gw.media.wire.reorder import Gap, ReorderBuffer
from gb28181gw.media.wire.rtcp import SenderReport, build_receiver_report
from gb28181gw.media.wire.rtcp import parse as parse_rtcp
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.media.wire.units import EsUnit

logger = logging.getLogger(__name__)

REPORT_S = 5.0
"""Receiver reports come so often (MED-31)."""
REPORT_AFTER_PACKETS = 50
"""And only to a source that proved itself (threat S-06)."""
_CNAME = "g"
"""Short, so that two reports stay within 100 bytes (threat S-06)."""
_MISMATCH_WAIT_S = 1.0
_MAX_QUIRKS = 32
_MAX_LOGGED_FAILURES = 3
_MAX_PENDING_UNITS = 1500
_MAX_PENDING_BYTES = 8 * 1024 * 1024


class ReceiverCore:
    """Owner of one receiver's decisions and counters. The transports call it; it never touches a socket."""

    def __init__(
        self,
        receiver_id: int,
        spec: ReceiverSpec,
        on_event: EventHandler,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.id = receiver_id
        self.spec = spec
        self._loop = loop
        self._on_event = on_event
        self._payloads = dict(spec.payloads)
        self.gate = SourceGate(
            ssrc=spec.ssrc,
            payload_types=frozenset(self._payloads),
            expected=spec.expected_hosts,
            strict=spec.source_mode == "strict",
        )
        self.bound = ""
        self._feed: Feed | None = None
        self._renew: Callable[[], Feed] | None = None
        self._pending: list[EsUnit] = []
        self._pending_bytes = 0
        self._reorder = ReorderBuffer()
        self._parameter_sets: tuple[bytes, ...] = ()
        self._intake = Intake(self._payloads, self._parameter_sets)
        self._raw = self._new_raw()
        self._statistics = ReceptionStatistics()
        self._began = False
        """Packets were accepted since the chain was made."""
        self._quirks: set[str] = set()
        self._packets = 0
        self._bytes = 0
        self._malformed = 0
        self._rtcp = 0
        self._frames = 0
        self._raw_timestamp = -1
        self._key_frames = 0
        self._earlier = ReceiverCounters()
        """Sums of the chains before the present one."""
        self._bitrate_kbps = 0.0
        self._bitrate_at = loop.time()
        self._bitrate_bytes = 0
        self._silence_told = False
        self._first_told = False
        self._mismatch_since: float | None = None
        self._report_ssrc = secrets.randbits(32)
        self._report_at = 0.0
        self.rtcp_peer: Source | None = None
        """Where RTCP of the latched host came from."""
        self.report_sinks: list[Callable[[bytes, Source], None]] = []
        """RTP sinks that send on this receiver's sockets, for the reports of their peer."""
        self.closed = False
        self.failures = 0
        """Exceptions of packets."""

    # control

    def attach(self, renew: Callable[[], Feed]) -> None:
        """Feed a stream. `renew` begins a new generation there; it is called now and at each new epoch."""
        self._renew = renew
        self._feed = self._begin(renew)
        pending, self._pending = self._pending, []
        self._pending_bytes = 0
        if pending:
            self._give(pending)

    def update(self, update: ReceiverUpdate, now: float) -> None:
        if update.ssrc is not None:
            self.gate.agree(update.ssrc)
        if update.payloads is not None:
            self._payloads = dict(update.payloads)
            self.gate.accept_payloads(frozenset(self._payloads))
            self._intake.agree(self._payloads)
        if update.parameter_sets:
            self._parameter_sets = update.parameter_sets
            self._intake.preset(self._parameter_sets)
        if update.expected_hosts is not None:
            self.gate.expect(update.expected_hosts)
        if update.acknowledged:
            self.gate.acknowledged(now)

    def close(self) -> None:
        self.closed = True
        self._feed = None
        self._renew = None
        self._pending.clear()

    # packets

    def packet(self, data: bytes, source: Source) -> Verdict:
        """One packet of an RTP socket or connection."""
        if len(data) < 8 or data[0] >> 6 != 2:
            self._malformed += 1
            return Verdict.DROP
        second = data[1]
        if 200 <= second <= 204:
            self.rtcp_packet(data, source)
            return Verdict.HOLD
        if len(data) < 12:
            self._malformed += 1
            return Verdict.DROP
        gate = self.gate
        ssrc = int.from_bytes(data[8:12], "big")
        try:
            now = self._loop.time()
            known = source == gate.source and ssrc == gate.ssrc
            looks = Looks.PLAUSIBLE if known else self._looks(data)
            sequence = data[2] << 8 | data[3]
            verdict = gate.receive(now, source, ssrc, second & 0x7F, sequence, looks, data)
            if verdict is Verdict.ACCEPT:
                self._accept(data, now)
            elif verdict is not Verdict.DROP and verdict is not Verdict.HOLD:
                self._decided(verdict, source, now)
            if gate.conflict:
                self._report_conflict(source)
            if gate.mismatch is not None and verdict is not Verdict.ACCEPT:
                self._note_mismatch(source, now, refused=verdict is Verdict.DROP)
        except Exception as error:
            self._failed(error)
            return Verdict.DROP
        return verdict

    def rtcp_packet(self, data: bytes, source: Source) -> None:
        """One RTCP packet, from whichever socket. Only those of the latched host are looked at."""
        self._rtcp += 1
        latched = self.gate.source
        for take in self.report_sinks:
            take(data, source)
        if latched is None or source[0] != latched[0]:
            return
        try:
            packets = parse_rtcp(data)
        except RtpError:
            self._malformed += 1
            return
        for packet in packets:
            if isinstance(packet, SenderReport) and packet.ssrc == self.gate.ssrc:
                self._statistics.sender_report(packet, self._loop.time())
                self.rtcp_peer = source

    def refused(self, ssrc: int, source: Source) -> None:
        """A packet on a shared port that may be meant for this receiver, with an SSRC that does not say so."""
        now = self._loop.time()
        self.gate.refuse(now, ssrc)
        if self.gate.mismatch is not None:
            self._note_mismatch(source, now, refused=True)

    def lost_framing(self, source: Source) -> None:
        """Bytes of the latched connection were passed over."""
        if source == self.gate.source:
            self._intake.gap()

    def disconnected(self, source: Source) -> None:
        """A media connection ended."""
        if source == self.gate.source:
            self._take(self._reorder.flush(), self._loop.time())
            self._give(self._intake.flush())
            self.gate.unlatch()
        else:
            self.gate.forget(source)

    def quirk(self, name: str, peer: str = "") -> None:
        """A tolerance fired; told once a receiver."""
        if name not in self._quirks and len(self._quirks) < _MAX_QUIRKS:
            self._quirks.add(name)
            self.tell(EventKind.QUIRK, detail=name, peer=peer)

    # time

    def tick(self, now: float) -> None:
        """Called several times a second."""
        deadline = self._reorder.deadline
        if deadline is not None and now >= deadline:
            self._take(self._reorder.poll(now), now)
        deadline = self._intake.deadline
        if deadline is not None and now >= deadline:
            self._give(self._intake.flush_after(now))
        for name in self._intake.take_quirks():
            self.quirk(name)  # also of a source that gives no units: it is the only hint there is (MED-18)
        last = self.gate.last_accepted
        if last is not None and self.spec.silence_s > 0:
            silent = now - last >= self.spec.silence_s
            if silent and not self._silence_told:
                self.tell(EventKind.SILENCE, peer=self._source_text())
            self._silence_told = silent
        passed = now - self._bitrate_at
        if passed >= 1.0:
            self._bitrate_kbps = (self._bytes - self._bitrate_bytes) * 8 / 1000 / passed
            self._bitrate_at, self._bitrate_bytes = now, self._bytes

    def due_report(self, now: float) -> bytes | None:
        """A receiver report, when one is due; the UDP transport sends it."""
        ssrc = self.gate.ssrc
        if ssrc is None or self._packets < REPORT_AFTER_PACKETS or now < self._report_at:
            return None
        if now - (self.gate.last_accepted or 0.0) > REPORT_S:
            return None
        self._report_at = now + REPORT_S
        return build_receiver_report(self._report_ssrc, (self._statistics.report_block(ssrc, now),), _CNAME)

    # facts

    def counters(self) -> ReceiverCounters:
        reorder, earlier = self._reorder, self._earlier
        return ReceiverCounters(
            packets=self._packets,
            bytes=self._bytes,
            lost=earlier.lost + max(0, reorder.lost - reorder.late),
            reordered=earlier.reordered + reorder.reordered,
            duplicated=earlier.duplicated + reorder.duplicated,
            late=earlier.late + reorder.late,
            foreign=self.gate.foreign,
            malformed=self._malformed,
            rtcp=self._rtcp,
            jitter_ms=self._statistics.jitter_ms,
            bitrate_kbps=self._bitrate_kbps,
            frames=self._frames,
            key_frames=self._key_frames,
            demux_errors=earlier.demux_errors + self._intake.errors,
            ssrc=self.gate.ssrc,
            source=self._source_text(),
            bound=self.bound,
        )

    def handle(self, port: int) -> Receiver:
        return Receiver(id=self.id, host=self.spec.host, port=port)

    def tell(self, kind: EventKind, *, peer: str = "", ssrc: int | None = None, detail: str = "") -> None:
        """An event, delivered from the event loop."""
        if self.closed:
            return
        stream_id = self._feed.stream_id if self._feed is not None else ""
        event = EngineEvent(kind=kind, stream_id=stream_id, peer=peer, ssrc=ssrc, detail=detail)
        self._loop.call_soon(self._deliver, event)

    # within

    def _failed(self, error: Exception) -> None:
        """A reader failed on a packet: our mistake. It is logged, and a fresh reader goes on (invariant I8)."""
        self.failures += 1
        if self.failures <= _MAX_LOGGED_FAILURES:
            logger.error("a packet of receiver %d could not be handled", self.id, exc_info=error)
        self._intake = Intake(self._payloads, self._parameter_sets)

    def _deliver(self, event: EngineEvent) -> None:
        if not self.closed:
            self._on_event(event)

    def _source_text(self) -> str:
        return address(self.gate.source) if self.gate.source is not None else ""

    def _looks(self, data: bytes) -> Looks:
        """Is it RTP of media? Asked only of packets whose source is not accepted yet."""
        try:
            packet = RtpPacket.parse(data)
        except RtpError:
            return Looks.NOTHING
        return self._intake.looks(packet)

    def _decided(self, verdict: Verdict, source: Source, now: float) -> None:
        """The gate accepted a source or an epoch; its held packets follow."""
        held = self.gate.take_held()
        ssrc = self.gate.ssrc
        if verdict is not Verdict.SWITCHED:
            self._restart(source)
        if verdict is Verdict.LATCHED:
            if not self._first_told:
                self._first_told = True
                self.tell(EventKind.FIRST_PACKET, peer=address(source), ssrc=ssrc)
        elif verdict is not Verdict.EPOCH:
            detail = "same_stream" if verdict is Verdict.SWITCHED else "expected_address"
            self.tell(EventKind.SOURCE_SWITCHED, peer=address(source), ssrc=ssrc, detail=detail)
            self.rtcp_peer = None
        if ssrc is not None and ssrc not in self.gate.agreed:
            variant = ssrc_variant(ssrc, self.gate.agreed)
            self.tell(EventKind.SSRC_MISMATCH, peer=address(source), ssrc=ssrc, detail=f"accepted: {variant}")
            self.gate.take_mismatch()
            self._mismatch_since = None
            self.quirk("rtp.ssrc_mismatch")
        for data in held:
            self._accept(data, now)

    def _report_conflict(self, source: Source) -> None:
        if self.gate.take_conflict():
            self.tell(EventKind.SOURCE_CONFLICT, peer=address(source))

    def _note_mismatch(self, source: Source, now: float, *, refused: bool) -> None:
        """An SSRC fits nothing agreed. It may still be accepted; after a second of waiting it was not."""
        if self._mismatch_since is None:
            self._mismatch_since = now
        if not refused and now - self._mismatch_since < _MISMATCH_WAIT_S:
            return
        self._mismatch_since = None
        mismatch = self.gate.take_mismatch()
        self.tell(
            EventKind.SSRC_MISMATCH,
            peer=address(source),
            ssrc=mismatch,
            detail=f"not accepted: {ssrc_variant(mismatch or 0, self.gate.agreed)}",
        )

    def _accept(self, data: bytes, now: float) -> None:
        self._packets += 1
        self._bytes += len(data)
        try:
            packet = RtpPacket.parse(data)
        except RtpError:
            self._malformed += 1
            return
        if not self._began:
            self._began = True
            rate = clock_rate(self._payloads.get(packet.payload_type, ""))
            self._statistics = ReceptionStatistics(rate)
        self._statistics.update(packet.sequence_number, packet.timestamp, now)
        self._take(self._reorder.push(packet, now), now)

    def _take(self, packets: list[RtpPacket | Gap], now: float) -> None:
        for packet in packets:
            if isinstance(packet, Gap):
                self._raw.gap(packet, now)
                if self._feed is not None:
                    self._feed.relay(packet, key=False)
                self._intake.gap()
                continue
            intake = self._intake
            if not intake.is_program(packet):
                self._demux(packet, now)
                if not intake.is_program(packet):
                    if self._feed is not None and not intake.has_program:
                        self._feed.no_program()
                    continue
                self._relay(packet, now)
                continue
            feed = self._feed
            rested = feed is not None and feed.rests
            key = self._relay(packet, now)
            if feed is not None and feed.rests:
                self._count_raw(packet, key=key)
            elif not rested:  # else waking has demuxed it already
                self._demux(packet, now)

    def _relay(self, packet: RtpPacket, now: float) -> bool:
        """Give the packet of a program stream out as it is. True: a key frame begins."""
        key = self._raw.add(packet, now)
        if self._feed is not None:
            self._feed.relay(packet, key=key)
        return key

    def _demux(self, packet: RtpPacket, now: float) -> None:
        if self._feed is not None:
            self._feed.demuxed()
        units = self._intake.push(packet, now)
        if units:
            self._give(units)

    def _count_raw(self, packet: RtpPacket, *, key: bool) -> None:
        """Pictures of a stream that rests, as far as they are told from outside."""
        self._frames += packet.timestamp != self._raw_timestamp
        self._raw_timestamp = packet.timestamp
        self._key_frames += key

    def _wake(self) -> None:
        """The stream wants units again: from the kept key frame on."""
        self._intake.gap()
        for entry, at in list(self._raw.entries):
            if isinstance(entry, Gap):
                self._intake.gap()
            else:
                self._demux(entry, at)

    def _begin(self, renew: Callable[[], Feed]) -> Feed:
        feed = renew()
        feed.take_over(self._raw, self._wake)
        return feed

    def _new_raw(self) -> RawGop:
        return RawGop(lambda: self._intake.video_codec, lambda: self._intake.audio_only)

    def _give(self, units: list[EsUnit]) -> None:
        for unit in units:
            self._frames += 1
            self._key_frames += unit.key and unit.track.kind is TrackKind.VIDEO
        for name in self._intake.take_quirks():
            self.quirk(name)
        if self._feed is None:
            self._keep(units)
        elif units:
            intake = self._intake
            self._feed.give(units, video_expected=intake.video_expected, audio_expected=intake.audio_expected)

    def _keep(self, units: list[EsUnit]) -> None:
        for unit in units:
            if unit.key and unit.track.kind is TrackKind.VIDEO:
                self._pending.clear()
                self._pending_bytes = 0
            self._pending.append(unit)
            self._pending_bytes += len(unit.payload)
        if self._pending_bytes > _MAX_PENDING_BYTES or len(self._pending) > _MAX_PENDING_UNITS:
            self._pending.clear()
            self._pending_bytes = 0

    def _restart(self, source: Source) -> None:
        """A new epoch: nothing of the old chain reaches the new one."""
        counters = self.counters()
        # What comes over one connection is in order; there a missing number is a loss at once.
        self._reorder = ReorderBuffer() if len(source) == 2 else ReorderBuffer(window_s=0, max_window_s=0)
        if not self._began:
            return
        for name in ("lost", "reordered", "duplicated", "late", "demux_errors"):
            setattr(self._earlier, name, getattr(counters, name))
        self._intake = Intake(self._payloads, self._parameter_sets)
        self._began = False
        self._pending.clear()
        self._pending_bytes = 0
        self._raw = self._new_raw()
        if self._renew is not None:
            self._feed = self._begin(self._renew)
