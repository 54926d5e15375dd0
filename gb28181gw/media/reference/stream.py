"""The hub: frames of one source in the middle, any number of consumers around it.

Theory of operation. A *feed* brings the units of one receiver; attaching a receiver begins a new
*generation*, older feeds are dead from then on (invariant I3). Units pass three gates: a generation begins
at a key frame; video that something was lost before is held back until the next key frame if that is wished
("freeze rather than smear", MED-24); the stream's own clock makes their times monotonic over generations and jumps
(MED-21). What passes is kept since the last key frame and goes to the *variants* (`variant`), each of which
makes its bytes once for all its sinks, and to frame sinks.

A stream is *published* when its video is known: with a key frame, and with its audio if audio was declared
and came within a second (MED-16); audio that comes later is added (MED-17). A stream that has only audio is
published with it after the same wait. Consumers that were there before get everything from the key frame
on.

Beside the units a feed brings the *raw* packets of a program stream, which go to RTP sinks as they are. While those
are the only consumers of a published stream it *rests*: its feed is not demuxed. The first consumer of frames wakes
it, and the kept packets are demuxed then, so that it begins as if the stream had never rested.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from gb28181gw.media.engine import EngineEvent, EventHandler, EventKind, FrameHandler, StreamCounters
from gb28181gw.media.reference.gop import KeptGop, Role
from gb28181gw.media.reference.raw_gop import RawGop
from gb28181gw.media.reference.rtp_output import RtpOutput
from gb28181gw.media.reference.socket_sink import SocketSink
from gb28181gw.media.reference.variant import Variant, VariantKey
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.clock import StreamClock
from gb28181gw.media.wire.reorder import Gap
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.media.wire.units import EsUnit

logger = logging.getLogger(__name__)

AUDIO_WAIT_S = 0.8
"""How long publication waits for declared audio (MED-16), or an audio-only stream for video."""
MADE_AUDIO_WAIT_S = 4.0
"""How long a consumer waits for the sound that is made for it, where it cannot be announced later. The first of a
gateway on a busy host takes its time: FFmpeg's libraries are loaded for it."""
_MAX_RAW_MISSES = 2


class _Waiting(NamedTuple):
    """A consumer that does not get anything yet."""

    key: VariantKey
    until: float
    """Its wait for made audio ends then, whatever has come."""


class Feed:
    """The right of one receiver to feed a stream, until the next one is attached."""

    __slots__ = ("_generation", "_stream", "on_wake", "raw")

    def __init__(self, stream: Stream, generation: int) -> None:
        self._stream = stream
        self._generation = generation
        self.raw: RawGop | None = None
        """The source's packets since its last key frame, where it is a program stream."""
        self.on_wake: Callable[[], None] | None = None
        """Demux what `raw` keeps, and all that comes from now on."""

    @property
    def stream_id(self) -> str:
        return self._stream.id

    def give(self, units: list[EsUnit], *, video_expected: bool, audio_expected: bool) -> None:
        """Units in order. What is expected was declared by the source, whether or not it has come."""
        stream = self._stream
        if self._generation == stream.generation:
            stream.expect(video=video_expected, audio=audio_expected)
            stream.take(units)

    def relay(self, packet: RtpPacket | Gap, *, key: bool) -> None:
        """A packet of a program stream, or what is missing, in order. `key`: with it `raw` began anew."""
        if self._generation == self._stream.generation:
            self._stream.relay(packet, key=key)

    def no_program(self) -> None:
        """The source is none of program streams, though it may have looked like one."""
        if self._generation == self._stream.generation:
            self._stream.leave_raw()

    def take_over(self, raw: RawGop, on_wake: Callable[[], None]) -> None:
        """Where the source keeps its packets; some may have come before the stream was attached."""
        self.raw = raw
        self.on_wake = on_wake
        if raw.entries and self._generation == self._stream.generation:
            self._stream.begin_raw()

    @property
    def rests(self) -> bool:
        """Nobody wants units now."""
        return self._generation == self._stream.generation and self._stream.rests

    def demuxed(self) -> None:
        """A packet went through a demuxer."""
        self._stream.demuxed += 1


class FrameSink:
    """A consumer of frames in Python. Batches are what came within one turn of the event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_frames: FrameHandler,
        on_failed: Callable[[FrameSink], None],
        *,
        video: bool,
        audio: bool,
        made_audio: bool = False,
        on_closed: Callable[[str], None] | None = None,
    ) -> None:
        self._loop = loop
        self._on_frames = on_frames
        self._on_failed = on_failed
        wanted = {Role.VIDEO: video, Role.AUDIO: audio, Role.MADE_AUDIO: made_audio}
        self._roles = frozenset(role for role, is_wanted in wanted.items() if is_wanted)
        self._on_closed = on_closed
        self._batch: list[Frame] = []
        self._flush: asyncio.Handle | None = None
        self._closed = False

    def write(self, role: Role, frame: Frame) -> None:
        if self._closed or role not in self._roles:
            return
        self._batch.append(frame)
        if self._flush is None:
            self._flush = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._flush = None
        batch, self._batch = self._batch, []
        if self._closed or not batch:
            return
        try:
            self._on_frames(batch)
        except Exception:
            # A consumer's mistake must not reach the source or the other consumers; it loses its sink.
            logger.exception("a frame consumer failed and is closed")
            self._on_failed(self)

    def close(self) -> None:
        self._closed = True
        self._batch.clear()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def end(self, reason: str) -> None:
        """The stream ends; the consumer is told."""
        if not self._closed and self._on_closed is not None:
            self._loop.call_soon(self._on_closed, reason)
        self.close()


class Stream:
    """Owner of the tracks, the kept frames and the sinks of one stream."""

    def __init__(
        self,
        stream_id: str,
        loop: asyncio.AbstractEventLoop,
        on_event: EventHandler,
        *,
        freeze_on_loss: bool = False,
    ) -> None:
        self.id = stream_id
        self._freeze_on_loss = freeze_on_loss
        self.generation = 0
        self._loop = loop
        self._on_event = on_event
        self._clock = StreamClock()
        self._tracks: dict[Role, Track] = {}
        self._gop = KeptGop()
        self._variants: list[Variant] = []
        self._waiting: dict[SocketSink, _Waiting] = {}
        """Sinks that came before the stream was published, or before the sound that is made for them."""
        self._frame_sinks: set[FrameSink] = set()
        self._outputs: set[RtpOutput] = set()
        self._feed: Feed | None = None
        self._is_raw = False
        """The present source brings raw packets."""
        self._raw_misses = 0
        """Key frames of it that were not found in its packets."""
        self.rests = False
        self._rest_parameters = b""
        self.demuxed = 0
        self._video_expected = False
        self._audio_expected = False
        self._published = False
        self._publish_at: float | None = None
        self._last_dts_90k = 0
        self._await_key = True
        self._frozen = False
        self._frames_in = 0
        self._frames_frozen = 0
        self._pictures = 0
        self._quirks_told: set[str] = set()
        """Names of the clock's tolerances (MED-20, MED-21) that were told already."""
        self._ended_dropped = 0
        """Of the sinks that have ended."""
        self._ended_bytes = 0

    # input

    def begin_generation(self) -> Feed:
        """A new source: its frames begin at a key frame, and nothing of an earlier one follows them."""
        self.generation += 1
        self._await_key = True
        self._frozen = False
        self._clock.restart()
        self._gop.clear()
        for variant in self._variants:
            variant.clear()
        for output in self._outputs:
            output.new_source()
        self._is_raw = self.rests = False
        self._raw_misses = 0
        self._feed = Feed(self, self.generation)
        return self._feed

    def relay(self, packet: RtpPacket | Gap, *, key: bool) -> None:
        """Of the current feed; see `Feed.relay`."""
        if self._raw_misses >= _MAX_RAW_MISSES:
            return
        if isinstance(packet, RtpPacket):
            self._is_raw = True
        elif not self._is_raw:
            return  # of a source that is no program stream
        outputs = [output for output in self._outputs if output.takes_raw]
        for output in outputs:
            if key and output.awaiting and output.active:
                self._begin_raw(output)
            else:
                output.forward(packet)
        if key:
            self._consider_rest(bool(outputs))

    def _consider_rest(self, has_raw: bool) -> None:
        """A key frame begins: demux no more, or, where its parameters are new, just this group (MED-36)."""
        raw = self._feed.raw if self._feed is not None else None
        parameters = raw.parameters if raw is not None else b""
        if self.rests:
            if parameters != self._rest_parameters:
                self._wake()
        elif has_raw and self._may_rest:
            self.rests = True
            self._gop.clear()
        self._rest_parameters = parameters

    def leave_raw(self) -> None:
        """The source turned out to be no program stream, or one that must be taken apart to find its key frames: RTP
        sinks get it muxed."""
        if not self._is_raw:
            return
        self._wake()
        self._is_raw = False
        for output in tuple(self._outputs):
            if output.takes_raw:
                output.new_source()
                self.start_output(output)

    def begin_raw(self) -> None:
        """The source has kept a group already."""
        self._is_raw = True
        for output in self._outputs:
            if output.takes_raw and output.active:
                self._begin_raw(output)

    @property
    def _may_rest(self) -> bool:
        """What is known of the source is known, and nobody wants frames."""
        return self._published and (self._has_picture or not self._video_expected) and not self._wants_frames

    @property
    def _wants_frames(self) -> bool:
        return bool(
            self._frame_sinks
            or self._waiting
            or self._variants
            or any(not output.takes_raw for output in self._outputs)
        )

    def _wake(self) -> None:
        if self.rests:
            self.rests = False
            if self._feed is not None and self._feed.on_wake is not None:
                self._feed.on_wake()

    def expect(self, *, video: bool, audio: bool) -> None:
        """What the source declared."""
        self._video_expected = video
        self._audio_expected = audio

    def take(self, units: list[EsUnit]) -> None:
        """Units of the current feed."""
        for unit in units:
            is_video = unit.track.kind is TrackKind.VIDEO
            if is_video:
                # Between a picture that was lost and the next key frame decoders may smear, or stand still:
                # as is wished.
                if unit.damaged and (self._freeze_on_loss or self._await_key):
                    self._frozen = True
                elif unit.key:
                    self._frozen = False
                if self._frozen or (self._await_key and not unit.key):
                    self._frames_frozen += self._frozen
                    continue
            frame = self._clock.frame(unit)
            self._take_frame(Role.VIDEO if is_video else Role.AUDIO, frame)

    def push(self, track: Track, pts_90k: int, dts_90k: int, data: bytes, *, key: bool, now: float) -> None:
        """A frame made in Python, with times of the stream's clock.

        AAC beside another audio codec is the made audio for consumers that need it; all else is the source.
        """
        frame = Frame(track=track, pts_90k=pts_90k, dts_90k=dts_90k, key=key, payload=data, arrival=now)
        if track.kind is TrackKind.VIDEO:
            if not (self._await_key and not key):
                self._take_frame(Role.VIDEO, frame)
            return
        source = self._tracks.get(Role.AUDIO)
        made = track.codec is Codec.AAC and source is not None and source.codec is not Codec.AAC
        self._take_frame(Role.MADE_AUDIO if made else Role.AUDIO, frame)

    def tick(self, now: float) -> None:
        """Called several times a second: time-boxed waits, and consumers that stand still."""
        if self._publish_at is not None and now >= self._publish_at:
            self._publish_at = None
            if self._has_picture or not self._video_expected:
                self._publish()
        for name in self._clock.quirks - self._quirks_told:
            self._quirks_told.add(name)
            self._loop.call_soon(
                self._on_event, EngineEvent(kind=EventKind.QUIRK, stream_id=self.id, detail=name)
            )
        for variant in list(self._variants):
            for sink in list(variant.sinks):
                if variant.stale:
                    sink.close("tracks_changed")
                else:
                    sink.check(now)
        for output in list(self._outputs):
            output.check(now)
        self._start_waiting(now)

    # sinks

    def add_output(self, output: RtpOutput) -> None:
        """It begins when it tells so (`start_output`)."""
        if not output.takes_raw:
            self._wake()
        self._outputs.add(output)

    def start_output(self, output: RtpOutput) -> None:
        """It can send now: the kept group first."""
        if not output.active or output not in self._outputs:
            return
        if self._is_raw and output.takes_raw:
            self._begin_raw(output)
            return
        if not self._may_write(output):
            return
        begins = True
        for role, frame in self._gop:
            if output.wants(role, frame.track):
                if begins and not self._begins(role, frame, output):
                    continue
                begins = False
                output.write(frame, self.tracks, key=True, kept=True)

    def _begin_raw(self, output: RtpOutput) -> None:
        raw = self._feed.raw if self._feed is not None else None
        if raw is not None and raw.entries:
            output.begin(raw.entries)

    def forget_output(self, output: RtpOutput) -> None:
        """An RTP sink has closed."""
        if output in self._outputs:
            self._outputs.discard(output)
            counters = output.counters()
            self._ended_bytes += counters.bytes

    def add_socket_sink(self, sink: SocketSink, key: VariantKey) -> None:
        self._wake()
        now = self._loop.time()
        self._waiting[sink] = _Waiting(key, now + MADE_AUDIO_WAIT_S)
        self._start_waiting(now)

    def add_frame_sink(self, sink: FrameSink) -> None:
        self._wake()
        self._frame_sinks.add(sink)
        for role, frame in self._gop:
            sink.write(role, frame)

    def remove_frame_sink(self, sink: FrameSink) -> None:
        self._frame_sinks.discard(sink)
        sink.close()

    def forget_sink(self, sink: SocketSink) -> None:
        """A socket sink has closed."""
        self._ended_dropped += sink.frames_dropped
        self._ended_bytes += sink.bytes_out
        if self._waiting.pop(sink, None) is not None:
            return
        for variant in self._variants:
            if sink in variant.sinks:
                variant.sinks.discard(sink)
                if not variant.sinks:
                    self._variants.remove(variant)
                return

    def close(self, reason: str) -> None:
        """End all sinks."""
        self.generation += 1
        for sink in [*self._waiting, *(sink for v in self._variants for sink in v.sinks)]:
            sink.close(reason)
        for output in list(self._outputs):
            output.close(reason)
        frame_sinks, self._frame_sinks = self._frame_sinks, set()
        for frame_sink in frame_sinks:
            frame_sink.end(reason)
        self._gop.clear()
        self._publish_at = None

    # facts

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The source's tracks, video first."""
        return tuple(track for role in (Role.VIDEO, Role.AUDIO) if (track := self._tracks.get(role)))

    def counters(self) -> StreamCounters:
        sinks = [*self._waiting, *(sink for v in self._variants for sink in v.sinks)]
        picture_90k, device_90k = self._clock.picture_times()
        outputs = [output.counters() for output in self._outputs]
        return StreamCounters(
            sinks=len(sinks) + len(self._frame_sinks) + len(outputs),
            frames_in=self._frames_in,
            frames_dropped=self._ended_dropped + sum(sink.frames_dropped for sink in sinks),
            frames_frozen=self._frames_frozen,
            bytes_out=self._ended_bytes
            + sum(sink.bytes_out for sink in sinks)
            + sum(output.bytes for output in outputs),
            pictures=self._pictures,
            picture_90k=picture_90k,
            device_90k=device_90k,
            demuxed=self.demuxed,
        )

    # within

    def _take_frame(self, role: Role, frame: Frame) -> None:
        self._frames_in += 1
        self._pictures += role is Role.VIDEO
        self._last_dts_90k = frame.dts_90k
        changed = self._note_track(role, frame.track)
        if self._is_raw and role is Role.VIDEO and frame.key:
            self._look_for_raw_key()
        first_key = False
        if role is Role.VIDEO and self._await_key:
            self._await_key = False
            first_key = True
        if self._await_key and Role.VIDEO in self._tracks:
            return  # audio of a new generation waits for its picture
        kept = self._gop.add(role, frame)
        self._dispatch(role, frame, kept=kept)
        if self._published:
            if first_key:
                self._tell(EventKind.KEY_FRAME)
            if changed:
                self._tell(EventKind.TRACKS)
            return
        if self._has_picture:
            if Role.AUDIO in self._tracks or not self._audio_expected:
                self._publish()
                return
        elif self._video_expected:
            return
        if self._publish_at is None:
            self._publish_at = frame.arrival + AUDIO_WAIT_S

    def _look_for_raw_key(self) -> None:
        raw = self._feed.raw if self._feed is not None else None
        if raw is None or raw.entries:
            self._raw_misses = 0
            return
        self._raw_misses += 1
        if self._raw_misses >= _MAX_RAW_MISSES:
            self.leave_raw()

    @property
    def _has_picture(self) -> bool:
        return Role.VIDEO in self._tracks and not self._await_key

    def _note_track(self, role: Role, track: Track) -> bool:
        known = self._tracks.get(role)
        if known is track:
            return False
        self._tracks[role] = track
        if role is Role.MADE_AUDIO:
            self._start_waiting(self._loop.time())
        return role is not Role.MADE_AUDIO and known != track

    def _publish(self) -> None:
        self._publish_at = None
        self._published = True
        self._tell(EventKind.TRACKS)
        if self._has_picture:
            self._tell(EventKind.KEY_FRAME)
        now = self._loop.time()
        for sink, waiting in self._waiting.items():
            self._waiting[sink] = waiting._replace(until=now + MADE_AUDIO_WAIT_S)
        self._start_waiting(now)
        for output in tuple(self._outputs):
            if output.awaiting:
                self.start_output(output)

    def _start_waiting(self, now: float) -> None:
        """Start the sinks that need not wait any longer."""
        if not self._published or not self._waiting:
            return
        for sink, waiting in list(self._waiting.items()):
            if now >= waiting.until or not waiting.key.waits_for(self._tracks):
                del self._waiting[sink]
                self._start(sink, waiting.key)

    def _start(self, sink: SocketSink, key: VariantKey) -> None:
        variant = next((v for v in self._variants if v.fits(key, self._tracks)), None)
        if variant is None:
            base_90k = next((frame.dts_90k for _, frame in self._gop), self._last_dts_90k)
            variant = Variant(key, self._tracks, base_90k)
            self._variants.append(variant)
            for role, frame in self._gop:
                variant.add(role, frame, kept=True)
        variant.sinks.add(sink)
        sink.start(variant.head(self._tracks), variant.group)

    def _dispatch(self, role: Role, frame: Frame, *, kept: bool) -> None:
        for sink in tuple(self._frame_sinks):
            sink.write(role, frame)
        for output in tuple(self._outputs):
            if self._may_write(output) and output.wants(role, frame.track):
                output.write(frame, self.tracks, key=self._begins(role, frame, output))
        can_begin = frame.key if role is Role.VIDEO else Role.VIDEO not in self._tracks
        for variant in tuple(self._variants):
            data = variant.add(role, frame, kept=kept and len(self._gop) > 0)
            if data:
                sinks = tuple(variant.sinks)
                configuration = b""
                if can_begin and any(sink.skipping for sink in sinks):
                    configuration = variant.configuration(self._tracks, frame.dts_90k)
                for socket_sink in sinks:
                    socket_sink.write(data, key=can_begin, configuration=configuration)

    def _may_write(self, output: RtpOutput) -> bool:
        """It takes frames now: no raw packets, and muxed ones once the tracks of the map are known."""
        return not (self._is_raw and output.takes_raw) and (self._published or output.codec is not None)

    def _begins(self, role: Role, frame: Frame, output: RtpOutput) -> bool:
        """An RTP sink can begin with the frame: with a picture that is a key, or with sound where no picture comes."""
        if role is Role.VIDEO:
            return frame.key
        video = self._tracks.get(Role.VIDEO)
        return video is None or not output.wants(Role.VIDEO, video)

    def _tell(self, kind: EventKind) -> None:
        event = EngineEvent(kind=kind, stream_id=self.id, tracks=self.tracks)
        self._loop.call_soon(self._on_event, event)
