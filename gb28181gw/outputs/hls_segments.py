"""HLS segments and parts of a stream, from frames (RFC 8216bis). Pure: frames in, pieces of fragmented MP4 out.

Theory of operation. A segment begins at a key frame and is made of parts, each one fragment with the samples of both
tracks. A picture's duration is the distance to the next one, so the last picture waits for its successor; a part is
published when the next picture would make it longer than the target. What the playlist promises about durations must
never change, so the first segment is seen whole before anything is promised (`ready`). Afterwards a segment that
grows over the promise, because key frames have become rarer, is cut where it is.

A change of the tracks begins a segment with a new initialisation segment and a discontinuity, and so does the first
key frame behind a gap in time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gb28181gw.media.tracks import Frame, Track, TrackKind
from gb28181gw.media.wire.fmp4 import (
    TIMESCALE,
    Sample,
    can_announce,
    fragment,
    init_segment,
    sample_data,
    sample_duration,
)

PART_S = 0.5
MIN_SEGMENT_S = 1.0
MAX_SEGMENT_S = 10.0
"""A first segment that finds no end is cut here."""
LISTED = 8
"""Segments in a playlist."""
KEPT = LISTED + 3
"""Segments in memory: what a playlist named a moment ago is still there."""
MAX_BYTES = 64 * 1024 * 1024
AUDIO_WAIT_S = 4.0
"""How long the beginning waits for sound that is expected."""
_GAP_90K = 2 * TIMESCALE
_DEFAULT_DURATION_90K = 3_600
_MAX_PENDING = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    duration_s: float
    is_independent: bool
    """Begins with a key frame."""
    data: bytes


@dataclass(slots=True, kw_only=True)
class Segment:
    """`number` is the media sequence number."""

    number: int
    init: int
    """Number of its initialisation segment."""
    has_discontinuity: bool
    began_at: float
    """Seconds since 1970 when its first frame was taken."""
    parts: list[Part] = field(default_factory=list)
    is_complete: bool = False

    @property
    def duration_s(self) -> float:
        return sum(part.duration_s for part in self.parts)

    @property
    def size(self) -> int:
        return sum(len(part.data) for part in self.parts)

    def data(self) -> bytes:
        return b"".join(part.data for part in self.parts)


class Segmenter:
    """One stream's segments, the last one in work. `expect_audio`: AAC will come, so wait for it a while."""

    def __init__(self, *, expect_audio: bool) -> None:
        self.segments: deque[Segment] = deque()
        self.inits: dict[int, bytes] = {}
        """Initialisation segments by number."""
        self.target_s = 0
        """EXT-X-TARGETDURATION; 0 before `ready`."""
        self.part_target_s = PART_S
        self.discontinuities_gone = 0
        """Discontinuities in segments that are no longer kept (EXT-X-DISCONTINUITY-SEQUENCE)."""
        self.has_ended = False
        self._expect_audio = expect_audio
        self._tracks: dict[TrackKind, Track] = {}
        self._pending: list[tuple[Frame, float]] = []
        """Frames that wait until the tracks are known."""
        self._pending_since = 0.0
        self._held: tuple[Frame, float] | None = None
        """The last picture: its duration is not known yet."""
        self._origin: int | None = None
        self._init = 0
        self._number = 0
        self._sequence = 0
        self._is_broken = False
        """The next segment begins with a discontinuity."""
        self._video: list[Sample] = []
        self._audio: list[Sample] = []
        self._part_90k = 0
        self._segment_90k = 0
        self._last_duration_90k = _DEFAULT_DURATION_90K

    @property
    def ready(self) -> bool:
        """There is enough to promise durations and to begin."""
        return self.target_s > 0

    @property
    def current(self) -> Segment | None:
        """The segment in work."""
        return self.segments[-1] if self.segments and not self.segments[-1].is_complete else None

    @property
    def next_part(self) -> tuple[int, int]:
        """(media sequence number, part number) of what comes next."""
        current = self.current
        return (current.number, len(current.parts)) if current is not None else (self._number, 0)

    def find(self, number: int) -> Segment | None:
        """A segment that is still kept."""
        if not self.segments or not self.segments[0].number <= number <= self.segments[-1].number:
            return None
        return self.segments[number - self.segments[0].number]

    def take(self, frames: Sequence[Frame], now: float, wall: float) -> bool:
        """Frames in order; `now` monotonic seconds, `wall` since 1970. True when there is something new to serve."""
        before = self.next_part
        for frame in frames:
            if not can_announce(frame.track):
                continue
            if self._tracks:
                self._put(frame, wall)
            else:
                self._await_tracks(frame, now, wall)
        return self.next_part != before

    def end(self) -> None:
        """The stream is over: what there is becomes the last segment."""
        if self._held is not None:
            frame, wall = self._held
            self._held = None
            self._add_picture(frame, self._last_duration_90k, wall)
        self._close_segment()
        self.has_ended = True

    def _await_tracks(self, frame: Frame, now: float, wall: float) -> None:
        """The initialisation segment names all tracks, so it waits for the sound."""
        if not self._pending:
            self._pending_since = now
        is_first = all(pending.track.kind is TrackKind.AUDIO for pending, _ in self._pending)
        if frame.track.kind is TrackKind.VIDEO and is_first and not frame.key:
            return
        self._pending.append((frame, wall))
        kinds = {pending.track.kind: pending.track for pending, _ in self._pending}
        waited = now - self._pending_since >= AUDIO_WAIT_S or len(self._pending) >= _MAX_PENDING
        if TrackKind.VIDEO not in kinds:
            if waited:
                self._pending.clear()
            return
        if self._expect_audio and TrackKind.AUDIO not in kinds and not waited:
            return
        pending, self._pending = self._pending, []
        first = next(f for f, _ in pending if f.track.kind is TrackKind.VIDEO)
        self._tracks[TrackKind.VIDEO] = first.track
        if TrackKind.AUDIO in kinds:
            self._tracks[TrackKind.AUDIO] = kinds[TrackKind.AUDIO]
        self._origin = first.dts_90k
        self._make_init()
        for waiting, at in pending:
            self._put(waiting, at)

    def _put(self, frame: Frame, wall: float) -> None:
        if frame.track.kind is TrackKind.AUDIO:
            self._put_sound(frame)
            return
        held, self._held = self._held, (frame, wall)
        if held is not None:
            step = frame.dts_90k - held[0].dts_90k
            if 0 < step <= _GAP_90K:
                self._last_duration_90k = step
                self._add_picture(held[0], step, held[1])
            else:
                self._add_picture(held[0], self._last_duration_90k, held[1])
                self._close_part()  # a part's samples follow each other
                self._is_broken = True

    def _put_sound(self, frame: Frame) -> None:
        known = self._tracks.get(TrackKind.AUDIO)
        if known is None or known.parameter_sets != frame.track.parameter_sets:
            self._tracks[TrackKind.AUDIO] = frame.track  # announced with the next segment
            self._is_broken = True
            return
        dts = frame.dts_90k - (self._origin or 0)
        if self._is_broken or self.current is None or dts < 0:
            return
        if self._audio and dts <= self._audio[-1].dts_90k:
            return
        self._audio.append(
            Sample(
                dts_90k=dts,
                pts_90k=dts,
                duration_90k=sample_duration(frame.track),
                key=True,
                data=sample_data(frame),
            )
        )

    def _add_picture(self, frame: Frame, duration_90k: int, wall: float) -> None:
        track = self._tracks[TrackKind.VIDEO]
        if frame.key:
            changed = (
                track.codec is not frame.track.codec or track.parameter_sets != frame.track.parameter_sets
            )
            if changed or self._is_broken:
                self._close_segment()
                self._tracks[TrackKind.VIDEO] = frame.track
                self._make_init()
            elif self._segment_90k >= MIN_SEGMENT_S * TIMESCALE:
                self._close_segment()
        elif self._segment_90k + duration_90k > (self.target_s or MAX_SEGMENT_S) * TIMESCALE:
            self._close_segment()
        if self.current is None:
            self._open_segment(wall)
        if self._video and self._part_90k + duration_90k > self.part_target_s * TIMESCALE:
            self._close_part()
        dts = frame.dts_90k - (self._origin or 0)
        self._video.append(
            Sample(
                dts_90k=dts,
                pts_90k=max(frame.pts_90k - (self._origin or 0), dts),
                duration_90k=duration_90k,
                key=frame.key,
                data=sample_data(frame),
            )
        )
        self._part_90k += duration_90k
        self._segment_90k += duration_90k

    def _make_init(self) -> None:
        self._init += 1
        self.inits[self._init] = init_segment(self._tracks.values())

    def _open_segment(self, wall: float) -> None:
        self.segments.append(
            Segment(
                number=self._number,
                init=self._init,
                has_discontinuity=self._number > 0 and self.segments[-1].init != self._init,
                began_at=wall,
            )
        )
        self._number += 1
        self._is_broken = False
        self._segment_90k = 0

    def _close_part(self) -> None:
        current = self.current
        if current is None or not self._video:
            return
        self._sequence += 1
        runs = {TrackKind.VIDEO: self._video, TrackKind.AUDIO: self._audio}
        part = Part(
            duration_s=self._part_90k / TIMESCALE,
            is_independent=self._video[0].key,
            data=fragment(self._sequence, runs),
        )
        current.parts.append(part)
        if not self.ready:
            self.part_target_s = max(self.part_target_s, part.duration_s)
        self._video, self._audio, self._part_90k = [], [], 0

    def _close_segment(self) -> None:
        self._close_part()
        current = self.current
        if current is None:
            return
        current.is_complete = True
        if not self.ready:
            self.target_s = max(2, round(current.duration_s))
        while len(self.segments) > KEPT or (
            len(self.segments) > 3 and sum(segment.size for segment in self.segments) > MAX_BYTES
        ):
            gone = self.segments.popleft()
            self.discontinuities_gone += gone.has_discontinuity
            for number in [n for n in self.inits if n < self.segments[0].init]:
                del self.inits[number]
