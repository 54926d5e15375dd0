"""From the bytes of a video elementary stream to access units.

Theory of operation. `VideoAssembler` is handed the elementary stream in pieces cut anywhere, and told where a PES
packet (or an RTP timestamp) with times began. It scans each piece once for start codes, names each NAL unit, and
cuts where the standards say that an access unit begins (H.264 7.4.1.2.3, H.265 7.4.2.4.4): delimiter, parameter
set, SEI, or the first slice of a picture, after a slice of the picture before. Packs and PES do not decide: some
senders put one NAL unit into each pack, some let one PES hold the end of one picture and the start of another
(MED-06). Times belong to the first access unit that begins in their PES (ISO 13818-1 2.4.3.7).

The codec is what a readable SPS says (MED-01); until one was seen nothing is given out (MED-35). SVAC and MPEG-4,
which the program stream map alone can tell, are cut where the times change (MED-38).

Ends before the next start. The RTP marker ends a picture only after `TRUSTED_MARKERS` markers in a row fell on
picture ends (MED-22), and `flush` is called after a pause; if the picture then goes on after all, the rest is
dropped, counted, and what follows is marked damaged. Muxers that fill packets without regard to pictures (MED-06)
send a picture's last bytes with the next picture, so the pause is long until pictures were seen to end with packets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.exceptions import ParameterSetError
from gb28181gw.media.wire.units import PTS_MODULUS, DemuxCounters, EsUnit

MAX_UNIT = 4 * 1024 * 1024
"""Bytes of one access unit; a larger one is dropped."""
TRUSTED_MARKERS = 25
"""Markers in a row that must have fallen on picture ends before one ends a picture."""
_UNREADY_LIMIT = 250
"""Pictures without parameter sets after which it is said (MED-35): ten seconds."""
_JUDGED_NALS = 100
_FPS_SAMPLES = 25
_MIN_PATIENCE_S = 0.02
_MAX_PATIENCE_S = 0.5
_RAGGED = 25
"""Pictures in a row that must end where a PES packet ends before a short pause is believed to end one again."""
_H264_OPENERS = frozenset({6, 7, 8, 9, 15})
_H265_OPENERS = frozenset({32, 33, 34, 35, 39, 41, 42, 43, 44, *range(48, 56)})
_OPAQUE = frozenset({Codec.SVAC, Codec.MPEG4})


class _Mark(NamedTuple):
    """Times that begin at a place of the elementary stream."""

    offset: int
    pts: int | None
    dts: int | None


class _FieldHeader(NamedTuple):
    """What tells the second field of a frame from a new frame."""

    frame_num: int
    is_field: bool
    bottom: bool


class VideoAssembler:
    """One video elementary stream. See the module for how it works."""

    def __init__(
        self,
        stream_id: int,
        counters: DemuxCounters,
        on_quirk: Callable[[str], None],
        *,
        max_unit: int = MAX_UNIT,
        aligned: bool = False,
    ) -> None:
        """`aligned`: pictures are known to end where packets end (RTP of an elementary stream)."""
        self.stream_id = stream_id
        self.track: Track | None = None
        """Known once the parameter sets are."""
        self.version = 0
        """Grows with each new track."""
        self.trusted_markers = 0
        self._counters = counters
        self._on_quirk = on_quirk
        self._max_unit = max_unit
        self._codec: Codec | None = None
        self._info: nal.SequenceInfo | None = None
        self._declared: Codec | None = None
        self._sets: dict[tuple[int, bytes], bytes] = {}
        self._last_sets: tuple[bytes, ...] = ()
        # The access unit in work
        self._es = bytearray()
        self._base = 0  # place of _es[0] in the elementary stream
        self._scan = 0  # start codes before this index are known
        self._nals: list[int] = []  # indices of 00 00 01
        self._vcl = -1  # index of the first slice
        self._key = False
        self._field: _FieldHeader | None = None
        self._marks: deque[_Mark] = deque()
        self._packets: deque[int] = deque(maxlen=4)  # places where the last PES packets began
        self._split_at: int | None = None  # place behind a start code whose first zero ended the PES before
        self._ragged = 0 if aligned else 1  # pictures yet to end with a PES packet
        self._rtp_timestamp: int | None = None
        self._arrival = 0.0
        self._ended_early = False
        self._skipping = False
        self._fresh = False  # the start code just read begins a unit and what is before it belongs to none
        self._damaged = True  # until the first key frame
        self._marker_at: int | None = None
        self._patience = 1.0
        # Health
        self._unready = 0
        self._good_nals = 0
        self._bad_nals = 0
        self._interval = 3600.0
        self._last_dts: int | None = None
        self._steps: list[int] = []
        self._timed = False
        self._out: list[EsUnit] = []

    # ---------------------------------------------------------------- input

    def declare(self, codec: Codec) -> None:
        """What the program stream map says; believed only for codecs without NAL units to probe."""
        self._declared = codec
        if self._codec is None and codec in _OPAQUE:
            self._codec = codec
            self._info = None
            self._reset_unit()
            self._set_track(Track(kind=TrackKind.VIDEO, codec=codec))
        elif self._codec in _OPAQUE and codec is not self._codec:
            self._codec = None
            self._reset_unit()
            if codec in _OPAQUE:
                self.declare(codec)

    def preset(self, codec: Codec, parameter_sets: tuple[bytes, ...]) -> None:
        """Parameter sets from the SDP (`sprop-…`), used until the stream has its own (MED-35)."""
        if self._info is not None:
            return
        self._codec = codec
        self._learn_sets(list(parameter_sets))

    def mark(self, pts: int | None, dts: int | None) -> None:
        """A PES packet with these times begins here."""
        if self._codec in _OPAQUE:
            self._mark_opaque(pts, dts)
            return
        self._packets.append(self._base + len(self._es))
        if pts is None:
            return
        if self._codec is None:
            self._count_unready()
        if len(self._marks) >= 64:
            self._marks.popleft()
        self._marks.append(_Mark(self._base + len(self._es), pts, dts))

    def append(self, data: bytes, arrival: float, rtp_timestamp: int | None) -> None:
        """The next bytes. Finished units are fetched by `take`."""
        es = self._es
        known = self._base + len(es)  # bytes up to here came with earlier packets
        if not es:
            self._rtp_timestamp = rtp_timestamp
        if self._codec in _OPAQUE:
            if self._skipping:
                return
            es += data
            self._arrival = arrival
            if len(es) > self._max_unit:
                self._overflow()
            return
        es += data
        while True:
            index = es.find(b"\x00\x00\x01", self._scan)
            if index < 0:
                self._scan = max(self._scan, len(es) - 2, 0)
                break
            if len(es) < index + self._lookahead():
                self._scan = index
                break
            cut = self._open(index)
            if cut >= 0:
                self._cut(cut, self._arrival if self._base + cut <= known else arrival)
                index -= cut
                self._rtp_timestamp = rtp_timestamp
            elif self._fresh:
                self._fresh = False
                index -= self._start_fresh(index)
                self._rtp_timestamp = rtp_timestamp
            self._enter(index)
        self._arrival = arrival
        if len(es) > self._max_unit:
            self._overflow()
        elif self._skipping or self._codec is None:
            self._trim()

    def marker(self, arrival: float, *, between: bool) -> None:
        """An RTP packet with the marker bit ended here; `between`: no PES packet is open."""
        size = len(self._es)
        if not size or self._codec is None:
            return
        if not between or (self._vcl < 0 and self._codec not in _OPAQUE):
            self.trusted_markers = 0
            self._marker_at = None
            return
        place = self._base + size
        if self._marker_at is not None and self._marker_at != place:
            self.trusted_markers = 0  # the one before fell into a picture
        self._marker_at = place
        if self.trusted_markers >= TRUSTED_MARKERS and self._is_whole():
            self._end_early(arrival)

    def gap(self) -> None:
        """Bytes were lost: the unit in work is dropped, and what follows it up to the next start."""
        if self._es or self._nals:
            self._counters.dropped_units += 1
        self._reset_unit()
        self._skipping = self._codec is not None  # else the search for an SPS begins anew
        self._ended_early = False
        self._damaged = True

    def flush(self) -> None:
        """Give out the picture in work, which is believed to be whole."""
        if self._codec in _OPAQUE:
            if self._es:
                self._emit(len(self._es), self._arrival)
        elif self._is_whole():
            self._end_early(self._arrival)

    @property
    def deadline(self) -> float | None:
        """When `flush` may be called if nothing comes: one frame interval after the last byte."""
        waiting = bool(self._es) if self._codec in _OPAQUE else self._is_whole()
        if not waiting:
            return None
        if self._ragged:
            return self._arrival + _MAX_PATIENCE_S
        pause = min(max(self._interval / 90000, _MIN_PATIENCE_S), 0.2) * self._patience
        return self._arrival + min(pause, _MAX_PATIENCE_S)

    def take(self) -> list[EsUnit]:
        """Units finished since the last call."""
        out = self._out
        if out:
            self._out = []
        return out

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    # ------------------------------------------------------- start of units

    def _lookahead(self) -> int:
        """Bytes from a start code on that `_open` looks at."""
        if self._codec is Codec.H264:
            return 24 if self._info is not None and not self._info.frame_mbs_only else 5
        return 6

    def _open(self, index: int) -> int:
        """Where to cut if the start code at `index` begins an access unit, else -1 (and perhaps `_fresh`)."""
        codec = self._codec
        if codec is None:
            self._probe(index)
            return -1
        header = self._es[index + 3]
        if self._nals:
            self._probe_change(index)
            codec = self._codec
        opens, is_slice = self._opens(index, header, codec)
        self._judge(header, codec)
        if self._ended_early:
            self._ended_early = False
            if not opens or self._es[:index].strip(b"\x00"):
                # The marker or the pause was inside the picture after all.
                self._counters.premature += 1
                self._on_quirk("rtp.marker_inside_picture")
                self.trusted_markers = 0
                self._patience = min(self._patience * 2, 16.0)
                self._damaged = True
                self._skipping = True
                self._counters.dropped_units += 1
        if self._skipping:
            if not opens:
                return -1
            self._skipping = False
            self._fresh = True
            return -1
        if opens and self._vcl >= 0 and not (is_slice and self._is_second_field(index)):
            # A four-byte start code belongs to what follows, unless the times say that it begins one later.
            if index and self._es[index - 1] == 0:
                if not self._marked(self._base + index):
                    return index - 1
                self._split_at = self._base + index
            return index
        return -1

    def _opens(self, index: int, header: int, codec: Codec | None) -> tuple[bool, bool]:
        """(may begin an access unit, is the first slice of a picture)."""
        if codec is Codec.H264:
            kind = header & 0x1F
            if kind in (1, 2, 5):
                first = self._es[index + 4] >= 0x80  # first_mb_in_slice is 0
                return first, first
            return kind in _H264_OPENERS, False
        kind = header >> 1 & 0x3F
        if kind < 32:
            if self._es[index + 4] == 0:
                return False, False  # temporal id 0 is forbidden: an empty unit before the next start code
            first = self._es[index + 5] >= 0x80  # first_slice_segment_in_pic_flag
            return first, first
        return kind in _H265_OPENERS, False

    def _enter(self, index: int) -> None:
        """Note the NAL unit whose start code is at `index`."""
        self._scan = index + 3
        if self._skipping:
            return
        self._nals.append(index)
        codec = self._codec
        if codec is None:
            return
        header = self._es[index + 3]
        kind = header & 0x1F if codec is Codec.H264 else header >> 1 & 0x3F
        if nal.is_vcl(codec, kind) and (codec is Codec.H264 or self._es[index + 4]):
            if self._vcl < 0:
                self._vcl = index
                if codec is Codec.H264 and self._info is not None and not self._info.frame_mbs_only:
                    self._field = self._read_field(index)
            if nal.is_key_nal(codec, kind):
                self._key = True

    def _read_field(self, index: int) -> _FieldHeader | None:
        """frame_num, field_pic_flag and bottom_field_flag of the slice header (H.264 7.3.3)."""
        info = self._info
        if info is None:
            return None
        try:
            bits = nal.BitReader(nal.unescape(bytes(self._es[index + 4 : index + 24])))
            bits.ue()
            bits.ue()
            bits.ue()
            if info.separate_colour_planes:
                bits.skip(2)
            frame_num = bits.u(info.frame_num_bits)
            is_field = bits.flag()
            return _FieldHeader(frame_num, is_field, is_field and bits.flag())
        except ParameterSetError:
            return None

    def _is_second_field(self, index: int) -> bool:
        first = self._field
        if first is None or not first.is_field:
            return False
        second = self._read_field(index)
        if second is None or not second.is_field:
            return False
        self._field = None  # a third field is a new frame
        return second.frame_num == first.frame_num and second.bottom != first.bottom

    def _marked(self, place: int) -> bool:
        return any(mark.offset == place for mark in self._marks)

    # ---------------------------------------------------------------- probe

    def _probe(self, index: int) -> None:
        """Codec unknown: look whether the NAL unit that ends at `index` is an SPS."""
        self._judge(self._es[index + 3], None)
        unit = bytes(self._es[self._nals[-1] + 3 : index]).rstrip(b"\x00") if self._nals else b""
        info = nal.probe_sps(unit) if unit else None
        if info is not None:
            self._adopt(info)
        elif not _may_precede_sps(unit):
            self._fresh = True

    def _adopt(self, info: nal.SequenceInfo) -> None:
        self._codec = info.codec
        self._info = info
        self._vcl = -1
        self._key = False
        self._skipping = False

    def _probe_change(self, index: int) -> None:
        """The codec changed in mid-stream (MED-36): the last NAL unit is an SPS of the other one."""
        start = self._nals[-1]
        header = self._es[start + 3]
        other = (
            header == 0x42 and self._es[start + 4] == 1
            if self._codec is Codec.H264
            else header in (0x67, 0x27, 0x47, 0x07)
        )
        if not other:
            return
        info = nal.probe_sps(bytes(self._es[start + 3 : index]).rstrip(b"\x00"))
        if info is None or info.codec is self._codec:
            return
        # What stands before it in the buffer was read by the wrong rules; at most its VPS is kept.
        keep = start
        for earlier in reversed(self._nals[:-1]):
            if not _may_precede_sps(bytes(self._es[earlier + 3 : earlier + 5])):
                break
            keep = earlier
        self._nals = [place for place in self._nals if place >= keep]
        self._vcl = -1
        self._key = False
        self._field = None
        self._damaged = True
        self._sets.clear()
        self._last_sets = ()
        self._adopt(info)

    def _judge(self, header: int, codec: Codec | None) -> None:
        """Count NAL types that no encoder makes: an encrypted stream is a valid PS of invalid units (MED-39)."""
        if codec is Codec.H264:
            bad = header >= 0x80 or header & 0x1F in (0, *range(22, 32))
        elif codec is Codec.H265:
            bad = header >= 0x80 or (header >> 1 & 0x3F) >= 41
        else:
            bad = header >= 0x80
        if bad:
            self._bad_nals += 1
        else:
            self._good_nals += 1
        if self._bad_nals + self._good_nals >= _JUDGED_NALS:
            if self._bad_nals > self._good_nals:
                self._on_quirk("ps.video_encrypted")
            self._bad_nals = self._good_nals = 0

    def _count_unready(self) -> None:
        self._unready += 1
        if self._unready == _UNREADY_LIMIT:
            self._on_quirk("ps.no_parameter_sets")
            # Hundreds of pictures and hardly a start code among them.
            if self._good_nals + self._bad_nals < _UNREADY_LIMIT // 10:
                self._on_quirk("ps.video_encrypted")

    # --------------------------------------------------------------- output

    def _is_whole(self) -> bool:
        """A picture is in work and no start code hangs unread at its end."""
        return (
            self._vcl >= 0
            and not self._skipping
            and self._codec is not None
            and self._scan >= len(self._es) - 2
        )

    def _end_early(self, arrival: float) -> None:
        self._split_at = None  # nothing else began in its PES
        self._emit(len(self._es), arrival)
        self._ended_early = True
        self._marker_at = None

    def _cut(self, end: int, arrival: float) -> None:
        """The structure shows that the unit ends at index `end`."""
        if self._marker_at is not None:
            if self._marker_at == self._base + end:
                self.trusted_markers += 1
            else:
                self.trusted_markers = 0
            self._marker_at = None
        place = self._base + end
        if place in self._packets or place + 1 in self._packets:
            self._ragged = max(0, self._ragged - 1)
        else:
            self._ragged = _RAGGED
        self._emit(end, arrival)

    def _emit(self, end: int, arrival: float) -> None:
        """Give out `_es[:end]` and make the rest the unit in work."""
        es = self._es
        codec = self._codec
        mark = self._take_mark(end)
        payload: bytes | None
        key = self._key
        if end > self._max_unit:
            self._counters.oversized += 1
            self._on_quirk("es.unit_too_large")
            self._damaged = True
            payload = None
        elif codec is not None and codec in _OPAQUE:
            payload = bytes(es)
            key = codec is Codec.SVAC or _is_mpeg4_key(payload)
        else:
            payload, key = self._close_payload(end, key)
        del es[:end]
        self._base += end
        self._scan = max(0, self._scan - end)
        self._nals.clear()
        self._vcl = -1
        self._key = False
        self._field = None
        track = self.track
        if payload is None or track is None:
            self._counters.dropped_units += 1
            self._count_unready()
            return
        if key:
            if self._declared is not None and self._declared is not codec:
                self._on_quirk("ps.psm_codec_mismatch")
            self._damaged = False
            self._counters.key_frames += 1
        pts = mark.pts if mark is not None else None
        dts = mark.dts if mark is not None and mark.dts is not None else pts
        self._measure(dts)
        self._counters.units += 1
        self._out.append(
            EsUnit(
                track=self.track or track,
                stream_id=self.stream_id,
                pts_90k=pts,
                dts_90k=dts,
                key=key,
                payload=payload,
                damaged=self._damaged,
                rtp_timestamp=self._rtp_timestamp,
                arrival=arrival,
            )
        )

    def _close_payload(self, end: int, key: bool) -> tuple[bytes | None, bool]:
        """Annex B with four-byte start codes; learns parameter sets on the way. None: not to be given out yet."""
        codec = self._codec
        nals = self._nals
        if codec is None or not nals or self._vcl < 0:
            return None, False
        view = bytes(memoryview(self._es)[:end])
        stops = [*nals[1:], end]
        uniform = nals[0] == 1 and view[-1] != 0
        sets: list[bytes] = []
        for index, stop in zip(nals, stops, strict=True):
            if stop != end and (view[stop - 1] != 0 or view[stop - 2] == 0):
                uniform = False  # a three-byte start code, or zeros in front of it (MED-40)
            if index + 3 >= stop:
                uniform = False  # an empty unit
                continue
            header = view[index + 3]
            kind = header & 0x1F if codec is Codec.H264 else header >> 1 & 0x3F
            if nal.is_parameter_set(codec, kind):
                unit = view[index + 3 : stop].rstrip(b"\x00")
                if 4 <= len(unit) <= nal.MAX_PARAMETER_SET:
                    sets.append(unit)
        if not uniform:
            units = (view[index + 3 : stop].rstrip(b"\x00") for index, stop in zip(nals, stops, strict=True))
            view = nal.join_annexb([unit for unit in units if unit])
        if sets:
            self._learn_sets(sets)
            if not key and codec is Codec.H264:
                key = self._is_intra(view)
        return (view if self.track is not None else None), key

    def _is_intra(self, payload: bytes) -> bool:
        """An I picture that is no IDR but comes with parameter sets: encoders with open GOPs mean a key frame."""
        for unit in nal.split_annexb(payload):
            if unit[0] & 0x1F == nal.H264_SLICE:
                try:
                    bits = nal.BitReader(unit[1:12])
                    bits.ue()
                    if bits.ue() not in (2, 7):
                        return False
                except ParameterSetError:
                    return False
                self._on_quirk("es.key_without_idr")
                return True
        return False

    def _learn_sets(self, sets: list[bytes]) -> None:
        """Keep parameter sets by type and id; a change makes a new track (MED-36)."""
        current = tuple(sets)
        if current == self._last_sets and self.track is not None:
            return
        codec = self._codec
        if codec is None:
            return
        sps_kind = nal.H264_SPS if codec is Codec.H264 else nal.H265_SPS
        fresh: dict[tuple[int, bytes], bytes] = {}
        info = self._info
        for unit in sets:
            kind = nal.nal_type(codec, unit)
            if kind == sps_kind:
                try:
                    info = nal.parse_sps(codec, unit)
                except ParameterSetError:
                    self._counters.malformed += 1
                    continue
            fresh[kind, _set_id(codec, kind, unit)] = unit
        if info is None or not fresh:
            return
        kinds = {kind for kind, _ in fresh}
        if sps_kind in kinds:
            # A new SPS replaces what was there of each kind that came with it.
            merged = {name: unit for name, unit in self._sets.items() if name[0] not in kinds}
            merged.update(fresh)
        else:
            merged = {**self._sets, **fresh}
        while len(merged) > 64:
            merged.pop(next(iter(merged)))
        self._last_sets = current
        pps_kind = nal.H264_PPS if codec is Codec.H264 else nal.H265_PPS
        changed = merged != self._sets
        self._sets = merged
        self._info = info
        present = {kind for kind, _ in merged}
        if not changed or sps_kind not in present or pps_kind not in present:
            return
        previous = self.track
        ordered = tuple(unit for _, unit in sorted(merged.items(), key=lambda item: item[0][0]))
        if previous is not None and previous.parameter_sets == ordered:
            return
        if previous is not None:
            self._steps.clear()
        self._set_track(
            Track(
                kind=TrackKind.VIDEO,
                codec=codec,
                width=info.width,
                height=info.height,
                fps=info.fps,
                parameter_sets=ordered,
            )
        )

    def _set_track(self, track: Track) -> None:
        self.track = track
        self.version += 1
        if track.fps:
            self._interval = 90000 / track.fps

    def _take_mark(self, end: int) -> _Mark | None:
        """Times of the unit `_es[:end]`, and forget the marks that are used up."""
        marks = self._marks
        if not marks:
            return None
        start = self._base
        chosen: _Mark | None = None
        while marks and marks[0].offset <= start:
            chosen = marks.popleft()
        stop = start + end
        if chosen is not None and start == self._split_at:
            # A start code whose first zero is in the PES before. If another picture begins in this PES, the times are
            # that one's (ISO 13818-1 2.4.3.7); if not, the zero was the end of the picture before.
            self._split_at = None
            if not any(start < packet <= stop for packet in self._packets):
                marks.appendleft(chosen)
                return None
        if not marks or marks[0].offset >= stop:
            return chosen
        starts = {start + index for index in self._nals}
        later: _Mark | None = None
        while marks and marks[0].offset < stop:
            mark = marks.popleft()
            aligned = mark.offset in starts or mark.offset + 1 in starts
            if chosen is None and aligned and mark.offset <= start + self._vcl:
                # What precedes the slices hung at the end of the PES before.
                chosen = mark
            elif not aligned:
                later = mark  # belongs to the first unit that begins in its PES: the next one
        if later is not None and (chosen is None or later.pts != chosen.pts):
            marks.appendleft(later)
        return chosen

    def _measure(self, dts: int | None) -> None:
        """Learn the frame interval, and the rate where the parameter sets tell none."""
        last, self._last_dts = self._last_dts, dts
        if dts is None or last is None:
            return
        step = (dts - last) % PTS_MODULUS
        if not 0 < step < 180_000:
            return
        self._interval += (step - self._interval) / 8
        track = self.track
        if track is not None and track.fps == 0 and len(self._steps) < _FPS_SAMPLES:
            self._steps.append(step)
            if len(self._steps) == _FPS_SAMPLES:
                # The middle half: one lost frame or one hiccup must not tilt it.
                middle = sorted(self._steps)[6:19]
                fps = round(90000 * len(middle) / sum(middle), 1)
                self._set_track(replace(track, fps=fps))

    # ------------------------------------------------------- start again

    def _start_fresh(self, index: int) -> int:
        """Forget what stands before the start code at `index`, but for its leading zero; returns how much."""
        start = index - 1 if index and self._es[index - 1] == 0 else index
        del self._es[:start]
        self._base += start
        self._nals.clear()
        self._vcl = -1
        self._key = False
        self._field = None
        self._marker_at = None
        while len(self._marks) > 1 and self._marks[1].offset <= self._base:
            self._marks.popleft()
        return start

    def _reset_unit(self) -> None:
        self._base += len(self._es)
        self._es.clear()
        self._scan = 0
        self._nals.clear()
        self._vcl = -1
        self._key = False
        self._field = None
        self._marks.clear()
        self._marker_at = None

    def _trim(self) -> None:
        """Nothing in work: keep only what may become a start code or is a candidate for an SPS."""
        es = self._es
        if self._codec is None and self._nals and len(es) <= 4 * nal.MAX_PARAMETER_SET:
            header = bytes(es[self._nals[-1] + 3 : self._nals[-1] + 5])
            if header == b"\x42\x01" or header[0] & 0x9F == nal.H264_SPS or _may_precede_sps(header):
                return
        keep = max(0, min(self._scan, len(es)))
        if keep:
            if es[keep - 1] == 0:
                keep -= 1
            del es[:keep]
            self._base += keep
            self._scan = max(0, self._scan - keep)
            self._nals.clear()

    def _overflow(self) -> None:
        self._counters.oversized += 1
        self._on_quirk("es.unit_too_large")
        self.gap()

    def pack(self) -> None:
        """A pack header: ends a unit without NAL units where the PES carry no times."""
        if self._codec in _OPAQUE and not self._timed:
            if self._es:
                self._emit(len(self._es), self._arrival)
            self._skipping = False

    def _mark_opaque(self, pts: int | None, dts: int | None) -> None:
        """Without NAL units a unit ends where the time changes."""
        if pts is None:
            return
        self._timed = True
        if self._es and (not self._marks or self._marks[-1].pts != pts):
            self._emit(len(self._es), self._arrival)
        self._skipping = False
        if not self._marks:
            self._marks.append(_Mark(self._base, pts, dts))


def _set_id(codec: Codec, kind: int, unit: bytes) -> bytes:
    """A name for the set's id: enough leading bits to tell several sets of one kind apart."""
    try:
        if codec is Codec.H264:
            if kind == nal.H264_SPS:
                bits = nal.BitReader(unit[4:12])
                return bits.ue().to_bytes(2, "big")
            return nal.BitReader(unit[1:9]).ue().to_bytes(4, "big")
        if kind == nal.H265_VPS:
            return bytes((unit[2] >> 4,))
        if kind == nal.H265_SPS:
            return nal.parse_h265_sps(unit).sps_id.to_bytes(1, "big")
        return nal.BitReader(unit[2:10]).ue().to_bytes(4, "big")
    except (ParameterSetError, OverflowError):
        return b"\xff"


def _may_precede_sps(unit: bytes) -> bool:
    """A delimiter or a VPS: worth keeping until it is known whether an SPS follows."""
    return bool(unit) and (unit[0] & 0x9F == nal.H264_AUD or unit[:2] in (b"\x40\x01", b"\x46\x01"))


def _is_mpeg4_key(payload: bytes) -> bool:
    """The first VOP is intra coded (ISO 14496-2 6.2.5); without a VOP, a configuration begins."""
    place = payload.find(b"\x00\x00\x01\xb6")
    if place < 0 or place + 4 >= len(payload):
        return b"\x00\x00\x01\xb0" in payload
    return payload[place + 4] >> 6 == 0
