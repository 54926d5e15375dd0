"""The hub: frames of one source in the middle, any number of consumers around it.

Theory of operation. A *feed* brings the units of one receiver; attaching a receiver begins a new
*generation*, older feeds are dead from then on (invariant I3). Units pass three gates: a generation begins
at a key frame; video that something was lost before is held back until the next key frame ("freeze rather
than smear", MED-24); the stream's own clock makes their times monotonic over generations and jumps
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
    ) -> None:
        self._loop = loop
        self._on_frames = on_frames
        self._on_failed = on_failed
        self._video = video
        self._audio = audio
        self._batch: list[Frame] = []
        self._flush: asyncio.Handle | None = None
        self._closed = False

    def write(self, role: Role, frame: Frame) -> None:
        if self._closed or not (self._video if role is Role.VIDEO else self._audio and role is Role.AUDIO):
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


class Stream:
    """Owner of the tracks, the kept frames and the sinks of one stream."""

    def __init__(self, stream_id: str, loop: asyncio.AbstractEventLoop, on_event: EventHandler) -> None:
        self.id = stream_id
        self.generation = 0
        self._loop = loop
        self._on_event = on_event
        self._clock = StreamClock()
        self._tracks: dict[Role, Track] = {}
        self._gop = KeptGop()
        self._variants: dict[VariantKey, Variant] = {}
        self._waiting: dict[SocketSink, VariantKey] = {}
        """Sinks that came before the stream was published."""
        self._frame_sinks: set[FrameSink] = set()
        self._outputs: set[RtpOutput] = set()
        self._feed: Feed | None = None
        self._is_raw = False
        """The present source brings raw packets."""
        self.rests = False
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
        for variant in self._variants.values():
            variant.clear()
        for output in self._outputs:
            output.new_source()
        self._is_raw = self.rests = False
        self._feed = Feed(self, self.generation)
        return self._feed

    def relay(self, packet: RtpPacket | Gap, *, key: bool) -> None:
        """Of the current feed; see `Feed.relay`."""
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
        if key and not self.rests and outputs and self._may_rest:
            self.rests = True
            self._gop.clear()

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
                if unit.damaged:
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
        for variant in list(self._variants.values()):
            for sink in list(variant.sinks):
                sink.check(now)
        for output in list(self._outputs):
            output.check(now)

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
        if self._published:
            self._start(sink, key)
        else:
            self._waiting[sink] = key

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
        for key, variant in self._variants.items():
            if sink in variant.sinks:
                variant.sinks.discard(sink)
                if not variant.sinks:
                    del self._variants[key]
                return

    def close(self, reason: str) -> None:
        """End all sinks."""
        self.generation += 1
        for sink in [*self._waiting, *(sink for v in self._variants.values() for sink in v.sinks)]:
            sink.close(reason)
        for output in list(self._outputs):
            output.close(reason)
        for frame_sink in list(self._frame_sinks):
            self.remove_frame_sink(frame_sink)
        self._gop.clear()
        self._publish_at = None

    # facts

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The source's tracks, video first."""
        return tuple(track for role in (Role.VIDEO, Role.AUDIO) if (track := self._tracks.get(role)))

    def counters(self) -> StreamCounters:
        sinks = [*self._waiting, *(sink for v in self._variants.values() for sink in v.sinks)]
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

    @property
    def _has_picture(self) -> bool:
        return Role.VIDEO in self._tracks and not self._await_key

    def _note_track(self, role: Role, track: Track) -> bool:
        known = self._tracks.get(role)
        if known is track:
            return False
        self._tracks[role] = track
        return role is not Role.MADE_AUDIO and known != track

    def _publish(self) -> None:
        self._publish_at = None
        self._published = True
        self._tell(EventKind.TRACKS)
        if self._has_picture:
            self._tell(EventKind.KEY_FRAME)
        waiting, self._waiting = self._waiting, {}
        for sink, key in waiting.items():
            self._start(sink, key)
        for output in tuple(self._outputs):
            if output.awaiting:
                self.start_output(output)

    def _start(self, sink: SocketSink, key: VariantKey) -> None:
        variant = self._variants.get(key)
        if variant is None:
            base_90k = next((frame.dts_90k for _, frame in self._gop), self._last_dts_90k)
            variant = self._variants[key] = Variant(key, base_90k)
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
        for variant in tuple(self._variants.values()):
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
