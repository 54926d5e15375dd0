"""From the times of a device to the time of a stream.

Theory of operation. Each track maps its device's clock to the output by one addition: output = device + offset. All
tracks of a stream have the same offset, so audio and video keep their distance. When a track's times jump, forward
by more than 300 ms beyond what was to be expected or backward (MED-21), it takes the offset that the other tracks
have already moved to, if that fits, else a new one, such that its output goes on one frame after the last.
What was to be expected is the larger of the track's interval and the time that really passed, so neither a pause of
the device nor a burst after a stall is a jump.

Sources, in order (MED-20): PTS and DTS of the PES; the RTP timestamp; the arrival. A source that stands still
while pictures arrive, or creeps (milliseconds sold as 90 kHz), is left for the next one. A unit without its own time
follows its predecessor by the duration of its predecessor.

DTS never goes back and never stands still within a track; PTS is never before DTS. A device that orders pictures
(B pictures) but sends no DTS gets one: the smallest of the last PTS (MED-37). How far back these go is what the
parameter sets say, else it is learnt. The same is done at a start, whose first DTS would lie before zero and which
muxers therefore leave out. A reordered picture without PTS is shown where its order count puts it.
"""

from __future__ import annotations

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.picture_order import PictureOrder
from gb28181gw.media.wire.units import PTS_MODULUS, EsUnit

JUMP_90K = 27_000
"""300 ms."""
_CLOCK = 90_000
_RTP_MODULUS = 1 << 32
_STUCK_AFTER = 4
_MISSING_LIMIT = 25
_WINDOW = 64
_MAX_REORDER = 4
_MAX_DELAY = 16
"""Frames between the decoding and the presentation of a picture (H.264 A.3.1)."""
_FORGET_REORDER = 32  # pictures in order after which a learnt reordering was a mistake
_FAR_90K = 10 * _CLOCK


class _Source:
    """One kind of device time, unwrapped."""

    __slots__ = ("last", "modulus", "usable")

    def __init__(self, modulus: int) -> None:
        self.modulus = modulus
        self.last: int | None = None
        self.usable = True

    def unwrap(self, value: int) -> int:
        """The value nearest to the last one, without the wrap."""
        if self.last is None:
            self.last = value
            return value
        half = self.modulus >> 1
        self.last += (value - self.last + half) % self.modulus - half
        return self.last


class _TrackTime:
    """State of one track."""

    __slots__ = (
        "ahead",
        "anchor",
        "arrival",
        "back",
        "described",
        "device",
        "has_dts",
        "interval",
        "key_delay",
        "last_dts",
        "missing",
        "offset",
        "order",
        "pictures",
        "pts",
        "reorder",
        "rtp",
        "source",
        "span_arrival",
        "span_count",
        "span_device",
        "still",
        "top",
    )

    def __init__(self, interval: int) -> None:
        self.pts = _Source(PTS_MODULUS)
        self.rtp = _Source(_RTP_MODULUS)
        self.source = 0  # 0 PTS, 1 RTP timestamp, 2 arrival
        self.interval = interval
        self.offset: int | None = None
        self.device = 0  # last device time, unwrapped
        self.last_dts = -1  # last output
        self.arrival = 0.0
        self.missing = 0  # units in a row without PTS
        self.still = 0
        self.span_count = 0
        self.span_device = 0
        self.span_arrival = 0.0
        self.reorder = 0  # pictures of delay where DTS must be made
        self.order: list[int] = []
        self.top = 0  # highest device time seen
        self.ahead = 0  # units in a row above it
        self.back = 0  # units in a row below `top`
        self.has_dts = False  # units have DTS where it is not PTS
        self.key_delay = 0  # PTS minus DTS of the last key picture
        self.anchor: tuple[bytes, int] | None = None  # the last picture whose PTS is known, and it
        self.described: Track | None = None  # what `pictures` is about
        self.pictures: PictureOrder | None = None

    def learn(self, description: Track) -> PictureOrder:
        """What the parameter sets tell about the order of pictures."""
        if self.pictures is None or description is not self.described:
            self.described = description
            self.pictures = PictureOrder(description)
        return self.pictures

    def begin_order(self, description: Track) -> None:
        """The pictures that follow have nothing to do with those before."""
        self.order.clear()
        self.reorder = min(self.learn(description).delay, _MAX_REORDER)
        self.back = 0


class StreamClock:
    """Stamps the units of one stream. `rtp_clock` is the rate of the RTP timestamp.

    Counters: `rebased` (jumps), `interpolated` (units without a time of their own); `quirks` names of tolerances.
    """

    def __init__(self, *, rtp_clock: int = _CLOCK) -> None:
        self.rebased = 0
        self.interpolated = 0
        self.quirks: set[str] = set()
        self._rtp_clock = rtp_clock
        self._tracks: dict[TrackKind, _TrackTime] = {}
        self._offset: int | None = None  # of the track that moved last

    def picture_times(self) -> tuple[int, int]:
        """(output, device) decoding time of the newest picture, in 1/90000 s; zeros before the first."""
        track = self._tracks.get(TrackKind.VIDEO)
        return (track.last_dts, track.device) if track is not None and track.last_dts >= 0 else (0, 0)

    def frame(self, unit: EsUnit) -> Frame:
        """The unit as a `Frame` on the stream's clock."""
        pts, dts = self.stamp(unit)
        return Frame(
            track=unit.track,
            pts_90k=pts,
            dts_90k=dts,
            key=unit.key,
            payload=unit.payload,
            arrival=unit.arrival,
        )

    def restart(self) -> None:
        """A new receiver feeds the stream (a new generation): its times are another device clock."""
        for track in self._tracks.values():
            track.offset = None
            track.pts = _Source(PTS_MODULUS)
            track.rtp = _Source(_RTP_MODULUS)
            track.source = 0
            track.still = track.span_count = track.back = track.missing = 0
            track.order.clear()
            track.has_dts = False
            track.anchor = None
        self._offset = None

    def stamp(self, unit: EsUnit) -> tuple[int, int]:
        """(pts, dts) of the output, in 1/90000 s; the first unit is at or near 0."""
        track = self._tracks.get(unit.kind)
        if track is None:
            track = self._tracks[unit.kind] = _TrackTime(_duration(unit) or 3600)
        device, delay = self._device_time(track, unit)
        if device is None:
            self.interpolated += 1
            out = self._expected(track, unit.arrival)
            track.device += out - track.last_dts if track.last_dts >= 0 else 0
            return self._finish(track, unit, out, delay)
        if track.offset is None:
            self._anchor_first(track, unit, device)
        elif self._is_jump(track, unit, device):
            self._rebase(track, unit, device)
        else:
            step = device - track.device
            if 0 < step <= 2 * _CLOCK and (unit.kind is TrackKind.VIDEO or not _duration(unit)):
                track.interval += (step - track.interval) // 8
        track.device = device
        out = device + (track.offset or 0)
        if track.source and unit.kind is TrackKind.AUDIO and track.last_dts >= 0:
            # Times of packets, not of samples: sound is gapless as long as they do not contradict it.
            smooth = track.last_dts + track.interval
            if abs(out - smooth) < JUMP_90K:
                out = smooth
        return self._finish(track, unit, out, delay)

    # -------------------------------------------------------------- sources

    def _device_time(self, track: _TrackTime, unit: EsUnit) -> tuple[int | None, int]:
        """(decoding time on the device's clock, PTS minus it); None: the unit has no time of its own."""
        if track.source == 0:
            if unit.pts_90k is not None:
                track.missing = 0
                return self._from_pts(track, unit)
            track.missing += 1
            if track.pts.last is not None and track.missing < _MISSING_LIMIT:
                return None, self._missing_delay(track, unit)  # PTS come, only not with every unit
            self._leave_source(track, unit)
        if track.source <= 1 and unit.rtp_timestamp is not None:
            value = track.rtp.unwrap(unit.rtp_timestamp) * _CLOCK // self._rtp_clock
            self._watch(track, unit, value)
            if track.source <= 1:
                self.quirks.add("ps.clock_from_rtp")
                return value, 0
        self.quirks.add("ps.clock_from_arrival")
        return round(unit.arrival * _CLOCK), 0

    def _from_pts(self, track: _TrackTime, unit: EsUnit) -> tuple[int | None, int]:
        pts_raw = unit.pts_90k or 0
        if unit.dts_90k is not None and unit.dts_90k != pts_raw:
            track.has_dts = True
            dts = track.pts.unwrap(unit.dts_90k)
            delay = (pts_raw - unit.dts_90k) % PTS_MODULUS
            track.order.clear()
            track.reorder = 0
            # A presentation more than some seconds after decoding is no reordering but a fault.
            if delay >= _FAR_90K:
                delay = 0
        else:
            pts = track.pts.unwrap(pts_raw)
            dts = self._without_dts(track, unit, pts) if unit.kind is TrackKind.VIDEO else pts
            delay = pts - dts
        self._watch(track, unit, track.pts.last or 0)
        if track.source != 0:
            return self._device_time(track, unit)
        if unit.kind is TrackKind.VIDEO:
            track.anchor = unit.payload, dts + delay
            if unit.key:
                track.key_delay = delay
        return dts, delay

    def _missing_delay(self, track: _TrackTime, unit: EsUnit) -> int:
        """How long after its decoding a unit without PTS is presented."""
        if unit.kind is not TrackKind.VIDEO or track.anchor is None:
            return 0
        pictures = track.learn(unit.track)
        if not pictures.is_coded:
            return 0
        dts = track.device + track.interval
        frames = pictures.frames_between(track.anchor[0], unit.payload)
        if frames is not None:
            delay = track.anchor[1] + round(frames * track.interval) - dts
        else:
            delay = track.key_delay if unit.key else 0
        if not 0 <= delay <= _MAX_DELAY * track.interval:
            return 0
        track.anchor = unit.payload, dts + delay
        if not track.has_dts:
            self._make_dts(track, unit.track, dts + delay)
        return delay

    def _without_dts(self, track: _TrackTime, unit: EsUnit, pts: int) -> int:
        """DTS of a picture that carries PTS alone: the same (ISO 13818-1 2.4.3.7), if all have DTS that need it."""
        if track.has_dts:
            if pts >= track.device and not self._is_jump(track, unit, pts):
                return pts
            track.has_dts = False
            track.order.clear()
        if not track.order:
            track.begin_order(unit.track)
        return self._make_dts(track, unit.track, pts)

    def _make_dts(self, track: _TrackTime, description: Track, pts: int) -> int:
        """DTS of pictures that carry PTS alone.

        PTS that go back by less than 300 ms and soon pass the old top are B pictures; the delay that they need is
        learnt. Otherwise DTS is PTS, and a step back is a jump.
        """
        order = track.order
        if order and pts > track.top + 2 * _CLOCK:
            order.clear()  # a jump; what came before it is no measure
        if not order or pts > track.top:
            track.top = pts
            track.back = 0
            track.ahead += 1
            if track.ahead > _FORGET_REORDER:
                track.reorder = 0
        else:
            track.back += 1
            track.ahead = 0
            if track.top - pts > JUMP_90K or track.back > _MAX_REORDER:
                track.begin_order(description)
                track.top = pts
            elif pts != track.top and track.reorder < _MAX_REORDER:
                depth = sum(1 for earlier in order if earlier > pts)
                track.reorder = max(track.reorder, min(depth, _MAX_REORDER))
        order.append(pts)
        if len(order) > _MAX_REORDER + 1:
            del order[0]
        if not track.reorder:
            return pts
        # Of the pictures seen, as many are still to be shown as the delay is long; the next one due is the smallest
        # of them, which is what a decoder is fed at this moment.
        recent = sorted(order)[-(track.reorder + 1) :]
        # At the start those that would have been shown before are wanting.
        return recent[0] - (track.reorder + 1 - len(recent)) * track.interval

    def _watch(self, track: _TrackTime, unit: EsUnit, value: int) -> None:
        """Leave a source that stands still or creeps while units arrive."""
        if unit.kind is not TrackKind.VIDEO:
            return
        if value < track.device - JUMP_90K:
            track.span_count = 0  # a jump back inside the span would look like a creep
        if track.span_count == 0:
            track.span_device, track.span_arrival = value, unit.arrival
            track.still = 0
        track.span_count += 1
        track.still = track.still + 1 if value == track.device and track.span_count > 1 else 0
        elapsed = (unit.arrival - track.span_arrival) * _CLOCK
        creeps = False
        if track.span_count >= _WINDOW:
            creeps = elapsed > _CLOCK and 0 <= value - track.span_device < elapsed / 10
            track.span_count = 0
        if creeps or track.still >= _STUCK_AFTER:
            self._leave_source(track, unit)

    def _leave_source(self, track: _TrackTime, unit: EsUnit) -> None:
        name = "rtp.timestamp_useless"
        if track.source == 0:
            name = "ps.pts_missing" if unit.pts_90k is None else "ps.pts_useless"
        self.quirks.add(name)
        track.source += 1
        track.offset = None
        track.span_count = track.still = 0

    # ------------------------------------------------------------- mapping

    def _now(self, arrival: float) -> int:
        """Where the output of the other tracks stands at `arrival`; 0 with none."""
        places = [
            track.last_dts + round((arrival - track.arrival) * _CLOCK)
            for track in self._tracks.values()
            if track.last_dts >= 0
        ]
        return max(0, *places) if places else 0

    def _expected(self, track: _TrackTime, arrival: float) -> int:
        """Output of the track's next unit, if all goes on as it did."""
        if track.last_dts < 0:
            return self._now(arrival)
        return track.last_dts + max(track.interval, 1)

    def _anchor_first(self, track: _TrackTime, unit: EsUnit, device: int) -> None:
        """First unit of a track or of a source: join the others' offset if that is near, else go on by arrival."""
        wanted = self._expected(track, unit.arrival)
        if track.last_dts >= 0:
            wanted = max(wanted, self._now(unit.arrival))
        if self._offset is not None and track.source == 0:
            if abs(device + self._offset - self._now(unit.arrival)) <= _FAR_90K:
                track.offset = self._offset
                return
            self.quirks.add("ps.clocks_differ")
        if unit.kind is TrackKind.AUDIO and track.source == 0 and not wanted:
            wanted = JUMP_90K  # the first picture may have to be decoded before the sound that came first
        track.offset = wanted - device
        if track.source == 0:
            self._offset = track.offset

    def _is_jump(self, track: _TrackTime, unit: EsUnit, device: int) -> bool:
        step = device - track.device
        elapsed = round((unit.arrival - track.arrival) * _CLOCK)
        if step < 0:
            return not track.reorder or step < -JUMP_90K
        return step > max(track.interval, elapsed) + JUMP_90K

    def _rebase(self, track: _TrackTime, unit: EsUnit, device: int) -> None:
        self.rebased += 1
        self.quirks.add("ps.pts_jump")
        expected = self._expected(track, unit.arrival)
        elapsed = max(0, round((unit.arrival - track.arrival) * _CLOCK))
        for offset in (self._offset, *(other.offset for other in self._tracks.values())):
            if offset is None or offset == track.offset:
                continue
            place = device + offset
            if expected - JUMP_90K <= place <= expected + elapsed + JUMP_90K:
                track.offset = offset
                return
        track.offset = expected - device
        if track.source == 0:
            self._offset = track.offset

    def _finish(self, track: _TrackTime, unit: EsUnit, out: int, delay: int) -> tuple[int, int]:
        dts = max(out, track.last_dts + 1, 0)
        pts = max(out + delay, dts)
        track.last_dts = dts
        track.arrival = unit.arrival
        duration = _duration(unit)
        if duration:
            track.interval = duration
        return pts, dts


def _duration(unit: EsUnit) -> int:
    """Of an audio packet, from its codec; of a picture, from the rate that its parameter sets tell; 0 unknown."""
    track = unit.track
    if track.kind is TrackKind.VIDEO:
        return round(_CLOCK / track.fps) if track.fps else 0
    if track.codec is Codec.AAC:
        return 1024 * _CLOCK // track.sample_rate if track.sample_rate else 0
    if track.codec in (Codec.PCMA, Codec.PCMU):
        return len(unit.payload) * _CLOCK // 8000
    return 0
