"""Sends pictures as RTP in time: one timer for all streams, each picture packed once for all that show it.

A `PsSource` turns content into program stream pieces ready to be put behind an RTP header; streams of the same
content at the same place share them. An `RtpStream` is one dialog's flow: its SSRC, sequence and timestamps. The
`Pump` owns the clock: it wakes for the stream that is due first and sends at most `BURST` packets of a stream in
one go, so that a key frame is spread over its interval (GB/T 28181-2022 4.3.6: a sender limits its peak rate).
"""

from __future__ import annotations

import asyncio
import heapq
import io
import random
import struct
from collections import deque
from fractions import Fraction
from typing import NamedTuple, Protocol

import av

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.ps_mux import PsMuxer
from gb28181gw.sim.content import CLOCK_RATE, Content
from gb28181gw.sim.media_links import Link, UdpLink
from gb28181gw.sim.ps_edit import EDITS, PackEditor
from gb28181gw.sim.ps_file import PsFile
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.recordings import Recorded

BURST = 32
"""Packets of one stream that leave without a pause."""
SLOT_S = 0.005
"""Pause between bursts."""
TICK_S = 0.001
"""What is due within so long is served in one turn."""
MAX_LAG_S = 1.0
"""A stream that is further behind goes on from now instead of catching up."""
_CACHED_STEPS = 256
_HEADER = struct.Struct("!BBHII")
_TICK = Fraction(1, CLOCK_RATE)
_HOUR_90K = 3600 * CLOCK_RATE
PHASE_S = 5.0
"""Length of a phase of the quirks that change with time (MED-17, 21, 23, 33)."""
KEY_WAIT_S = 20.0
"""MED-34: no key frame before so long, unless one is asked for."""

_OF_ONE_STREAM = frozenset({Quirk.MED_02_FIRST, Quirk.MED_03, Quirk.MED_17, Quirk.MED_18, Quirk.MED_21})
"""Rows that depend on what a stream sent before: its source is not shared."""


class Burst(NamedTuple):
    """RTP payloads that share a timestamp; the marker is on the last."""

    timestamp_90k: int
    chunks: tuple[bytes, ...]


class Source(Protocol):
    """Turns content into RTP payloads."""

    content: Content

    def bursts(self, number: int, shift_90k: int) -> tuple[Burst, ...]:
        """Of picture `number`, with `shift_90k` added to its times."""
        ...

    def release(self) -> None:
        """A stream that used it has ended."""
        ...


def chunks_of(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[start : start + size] for start in range(0, len(data), size))


class PsSource:
    """Program stream of one content under one set of quirks (GB/T 28181-2022 C.1)."""

    def __init__(
        self, content: Content, quirks: frozenset[Quirk] = frozenset(), max_payload: int = 1400
    ) -> None:
        self.content = content
        self._quirks = quirks
        self._max_payload = max_payload
        self._editor = PackEditor(quirks)
        self._muxer = PsMuxer(video=content.video, audio=content.audio)
        self._video = Track(
            kind=TrackKind.VIDEO, codec=content.video, width=content.width, height=content.height
        )
        self._audio = (
            Track(kind=TrackKind.AUDIO, codec=content.audio, sample_rate=8000, channels=1)
            if content.audio
            else None
        )
        self._kept: dict[tuple[int, int], tuple[Burst, ...]] = {}
        self._first: int | None = None

    def bursts(self, number: int, shift_90k: int) -> tuple[Burst, ...]:
        kept = self._kept.get((number, shift_90k))
        if kept is None:
            kept = self._make(number, shift_90k)
            while len(self._kept) >= _CACHED_STEPS:
                del self._kept[next(iter(self._kept))]
            self._kept[number, shift_90k] = kept
        return kept

    def release(self) -> None:
        """Nothing is held for one stream."""

    def _make(self, number: int, shift_90k: int) -> tuple[Burst, ...]:
        access = self.content.access(number)
        if self._first is None:
            self._first = number
        elapsed_s = float((number - self._first) / self.content.fps)
        pts_shift = shift_90k
        if Quirk.MED_21 in self._quirks and PHASE_S <= elapsed_s < 2 * PHASE_S:
            pts_shift += _HOUR_90K
        picture = Frame(
            track=self._video,
            pts_90k=access.pts_90k + pts_shift,
            dts_90k=access.dts_90k + pts_shift,
            key=access.key,
            payload=access.data,
        )
        made = [self._burst(access.dts_90k + shift_90k, self._muxer.mux(picture))]
        silent = Quirk.MED_16 in self._quirks or (Quirk.MED_17 in self._quirks and elapsed_s < PHASE_S)
        if self._audio is not None and not silent:
            # 4.3.6: different frames have different RTP timestamps, so sound that begins with the picture gets the
            # next tick; its PES carries the true time.
            last = access.dts_90k
            for pts, payload in access.audio:
                sound = Frame(
                    track=self._audio,
                    pts_90k=pts + pts_shift,
                    dts_90k=pts + pts_shift,
                    key=False,
                    payload=payload,
                )
                last = max(pts, last + 1)
                made.append(self._burst(last + shift_90k, self._muxer.mux(sound)))
        return tuple(made)

    def _burst(self, timestamp_90k: int, pack: bytes) -> Burst:
        if not self._editor.idle:
            pack = self._editor.edit(pack)
        return Burst(timestamp_90k, chunks_of(pack, self._max_payload))


class TsSource:
    """MPEG transport stream where a program stream was agreed (MED-18): 7 packets of 188 bytes in each RTP packet."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self._out = io.BytesIO()
        name = "h264" if content.video is Codec.H264 else "hevc"
        with av.open(io.BytesIO(content.access(0).data), format=name) as template:
            self._container = av.open(self._out, "w", format="mpegts", options={"flush_packets": "1"})
            self._stream = self._container.add_stream_from_template(template.streams.video[0])

    def bursts(self, number: int, shift_90k: int) -> tuple[Burst, ...]:
        access = self.content.access(number)
        packet = av.Packet(access.data)
        packet.stream = self._stream
        packet.time_base = _TICK
        packet.pts = access.pts_90k + shift_90k
        packet.dts = access.dts_90k + shift_90k
        packet.is_keyframe = access.key
        self._container.mux(packet)
        data = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return (Burst(access.dts_90k + shift_90k, chunks_of(data, 7 * 188)),)

    def release(self) -> None:
        """The muxer belongs to the one stream."""
        self._container.close()


class PsFileSource:
    """A foreign program stream in pieces of its own bytes: rows that change the stream do not act on it."""

    def __init__(self, file: PsFile, max_payload: int = 1400) -> None:
        self.content: Content = file
        self._file = file
        self._max_payload = max_payload

    def bursts(self, number: int, shift_90k: int) -> tuple[Burst, ...]:
        return tuple(
            Burst(piece.dts_90k + shift_90k, chunks_of(piece.data, self._max_payload))
            for piece in self._file.pieces(number)
        )

    def release(self) -> None:
        """Nothing is held for one stream."""


def wire_ssrc(agreed: int, quirks: frozenset[Quirk], rng: random.Random) -> int:
    """The SSRC that goes on the wire where `agreed` was promised (INV-03)."""
    if Quirk.INV_03 in quirks:
        return rng.getrandbits(32) | 1
    if Quirk.INV_03_ZERO in quirks:
        return 0
    if Quirk.INV_03_HEX in quirks:
        return int(f"{agreed:010d}", 16) & 0xFFFFFFFF
    if Quirk.INV_03_SWAPPED in quirks:
        return int.from_bytes(agreed.to_bytes(4, "big"), "little")
    return agreed


class RtpStream:
    """One flow of RTP. Made by a device, driven by the pump."""

    def __init__(
        self,
        source: Source,
        link: Link,
        *,
        ssrc: int,
        payload_type: int,
        rng: random.Random,
        quirks: frozenset[Quirk] = frozenset(),
    ) -> None:
        self.source = source
        self.link = link
        self.ssrc = wire_ssrc(ssrc, quirks, rng)
        self.payload_type = 40 if Quirk.MED_19 in quirks else payload_type
        self._quirks = quirks
        self._rng = rng
        self._sequence = 0 if Quirk.MED_23 in quirks else rng.randrange(0x10000)
        self._timestamp_base = rng.getrandbits(32)
        self._pending: deque[bytes] = deque()
        self._interval = float(1 / source.content.fps)
        self._number = 0
        self._shift_90k = 0
        self._next_at = 0.0
        self._started_at = 0.0
        self._phase = 0
        self._skipping = False
        self._key_wanted = False
        self._key_given = False
        """MED-34: a key frame was asked for."""
        self._stranger = rng.getrandbits(32) if Quirk.MED_30 in quirks else None
        self.running = False
        self.packets = 0
        self.bytes = 0
        self.frames = 0
        self.dropped_frames = 0
        """Left out because the TCP receiver was too slow."""

    def start(self, now: float, number: int, *, at_key: bool = False) -> None:
        """Begin with picture `number` at time `now`; `at_key`: leave out what comes before a key frame."""
        self.running = True
        self._skipping = at_key
        self._number = number
        self._next_at = now
        self._started_at = now
        if Quirk.MED_29 in self._quirks:
            # A sender report of 28 bytes whose SSRC is another one.
            report = _HEADER.pack(0x80, 200, 6, (self.ssrc + 1) & 0xFFFFFFFF, 0) + bytes(16)
            self.bytes += self.link.send(report)

    @property
    def number(self) -> int:
        """Picture that is sent next."""
        return self._number

    def force_key(self) -> None:
        """IFrameCmd: the next picture is a key frame."""
        self._key_wanted = True
        self.source.content.want_key()

    def stop(self) -> None:
        """Send nothing more and close the link. Idempotent."""
        if self.running:
            self.source.release()
        self.running = False
        self._pending.clear()
        self.link.close()

    def advance(self, now: float) -> float:
        """Send what is due; returns when to call again."""
        pending = self._pending
        if not pending and now >= self._next_at:
            if not self.source.content.ready(self._number):
                return now + SLOT_S
            if now - self._next_at > MAX_LAG_S:
                self._next_at = now
            self._next_picture(now)
            self._next_at += self._interval
        send = self.link.send
        for _ in range(min(BURST, len(pending))):
            packet = pending.popleft()
            sent = send(packet)
            if sent:
                self.packets += 1
                self.bytes += sent
        return now + SLOT_S if pending else self._next_at

    def _next_picture(self, now: float) -> None:
        content = self.source.content
        if self._key_wanted:
            self._key_wanted = False
            self._jump_to_key(content)
        access = content.access(self._number)
        if self.link.congested:
            self._skipping = True
        held_back = (
            Quirk.MED_34 in self._quirks and now - self._started_at < KEY_WAIT_S and not self._key_given
        )
        if self._skipping and access.key and not self.link.congested:
            self._skipping = False
        if self._skipping or (held_back and access.key):
            self.dropped_frames += 1
        else:
            self.frames += 1
            for burst in self.source.bursts(self._number, self._shift_90k):
                self._packetise(burst)
        self._number += 1
        self._time_quirks(now)

    def _jump_to_key(self, content: Content) -> None:
        """Go on with the key frame before this picture, without a step in the timestamps."""
        self._key_given = True
        if content.newest() is not None:
            return  # made on the way: the encoder was asked
        key = content.key_at_or_before(self._number)
        if key != self._number:
            self._shift_90k += content.access(self._number).dts_90k - content.access(key).dts_90k
            self._number = key

    def _time_quirks(self, now: float) -> None:
        phase = int((now - self._started_at) / PHASE_S)
        if phase == self._phase:
            return
        self._phase = phase
        if Quirk.MED_23 in self._quirks:
            self._sequence = 0
        if Quirk.MED_33 in self._quirks and phase == 1 and isinstance(self.link, UdpLink):
            self.link.move()

    def _packetise(self, burst: Burst) -> None:
        quirks = self._quirks
        plain = self.payload_type
        timestamp = 0 if Quirk.MED_20 in quirks else (self._timestamp_base + burst.timestamp_90k) & 0xFFFFFFFF
        every = Quirk.MED_22_ALL in quirks
        marked = plain | 0x80 if Quirk.MED_22 not in quirks else plain
        pack = _HEADER.pack
        sequence = self._sequence
        ssrc = self.ssrc
        append = self._pending.append
        last = len(burst.chunks) - 1
        each = Quirk.INV_03_EACH in quirks
        for index, chunk in enumerate(burst.chunks):
            if each:
                ssrc = self._rng.getrandbits(32) | 1
            kind = marked if every or index == last else plain
            append(pack(0x80, kind, sequence, timestamp, ssrc) + chunk)
            sequence = (sequence + 1) & 0xFFFF
        self._sequence = sequence
        if self._stranger is not None and self.frames % 5 == 0:
            append(pack(0x80, plain, self.frames & 0xFFFF, timestamp, self._stranger) + bytes(200))


class Pump:
    """Drives all streams of the process with one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[tuple[float, int, RtpStream]] = []
        self._order = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._sources: dict[tuple[int, frozenset[Quirk], int], PsSource] = {}
        self._epoch = loop.time()
        self.late = 0
        """Times that a stream was served more than a picture late: the host is too slow for the load."""

    def source_of(self, content: Content, quirks: frozenset[Quirk], max_payload: int) -> Source:
        """A packer for a new stream: shared where the quirks allow it."""
        if isinstance(content, PsFile):
            return PsFileSource(content, max_payload)
        if Quirk.MED_18 in quirks:
            return TsSource(content)
        if isinstance(content, Recorded):
            return PsSource(content, quirks & EDITS, max_payload)
        acting = quirks & (EDITS | {Quirk.MED_16, Quirk.MED_17, Quirk.MED_21})
        if acting & _OF_ONE_STREAM:
            return PsSource(content, acting, max_payload)
        key = (id(content), acting, max_payload)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = PsSource(content, acting, max_payload)
        return source

    def current_number(self, content: Content) -> int:
        """The picture that the camera "sees" now, the same for all streams of a content."""
        return int((self._loop.time() - self._epoch) * float(content.fps))

    def start(self, stream: RtpStream, *, in_gop: bool = False) -> None:
        """Begin a stream: with the last key frame, or (MED-34) in the middle of a GOP."""
        now = self._loop.time()
        content = stream.source.content
        newest = content.newest()
        if newest is not None:
            content.want_key()
            stream.start(now, max(0, newest), at_key=True)
        elif isinstance(content, Recorded):
            stream.start(now, content.begin(content.spans[0][0]))
        else:
            key = content.key_at_or_before(self.current_number(content))
            stream.start(now, key + 1 if in_gop else key)
        self._push(now, stream)
        self._arm()

    def _push(self, when: float, stream: RtpStream) -> None:
        self._order += 1
        heapq.heappush(self._due, (when, self._order, stream))

    def _arm(self) -> None:
        if not self._due:
            return
        when = self._due[0][0]
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._run)

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time()
        horizon = now + TICK_S
        while self._due and self._due[0][0] <= horizon:
            due, _, stream = heapq.heappop(self._due)
            if not stream.running:
                continue
            if now - due > 0.1:
                self.late += 1
            # Strictly after the horizon: whatever a stream answers, this turn comes to an end.
            self._push(max(stream.advance(horizon), horizon + TICK_S), stream)
        self._arm()

    def close(self) -> None:
        """Stop every stream."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _, _, stream in self._due:
            stream.stop()
        self._due.clear()
