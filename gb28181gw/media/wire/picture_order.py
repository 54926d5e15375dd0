"""In which order pictures are shown, as far as their headers tell: for pictures whose PES carries no time (MED-37).

H.264 8.2.1 and H.265 8.3.1: each picture has an order count, of which its slice headers carry the low bits. Two
pictures of one coded video sequence that are near each other are shown as far apart as their counts differ.
"""

from __future__ import annotations

from typing import NamedTuple

from gb28181gw.media.tracks import Codec, Track
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.exceptions import ParameterSetError

_HEADER = 40
"""Bytes of a slice that are looked at."""
_H265_IDR = (19, 20)


class _Pps(NamedTuple):
    """What of an H.265 PPS stands between a slice header and its count."""

    output_flag_present: bool
    extra_bits: int


class PictureOrder:
    """What the parameter sets of one track tell about the order of its pictures."""

    def __init__(self, track: Track) -> None:
        self.delay = 0
        """Pictures that may be decoded before and shown after another one; 0 also where nothing is told."""
        self.is_coded = False
        """Pictures may be reordered and their headers say how."""
        self._codec = track.codec
        self._info = _first_sps(track)
        self._pps = _first_pps(track)
        if self._info is not None:
            self.delay = self._info.reorder_pictures or 0
            self.is_coded = self._info.order_bits > 0 and self._info.reorder_pictures != 0

    def frames_between(self, earlier: bytes, later: bytes) -> float | None:
        """How many frames after `earlier` the access unit `later` is shown; negative: before it.

        None when it cannot be read, or when `later` begins a sequence, whose counts begin anew.
        """
        info = self._info
        if info is None or not self.is_coded:
            return None
        before, after = self._count(earlier), self._count(later)
        if before is None or after is None or after.begins:
            return None
        half = 1 << info.order_bits - 1
        distance = (after.low_bits - before.low_bits + half) % (2 * half) - half
        # H.264 counts fields.
        return distance / 2 if self._codec is Codec.H264 else distance

    def _count(self, access_unit: bytes) -> _Count | None:
        for unit in nal.split_annexb(access_unit):
            kind = nal.nal_type(self._codec, unit)
            if nal.is_vcl(self._codec, kind):
                try:
                    head = nal.unescape(unit[:_HEADER])
                    return self._h264(kind, head) if self._codec is Codec.H264 else self._h265(kind, head)
                except ParameterSetError:
                    return None
        return None

    def _h264(self, kind: int, head: bytes) -> _Count | None:
        """Slice header up to pic_order_cnt_lsb (7.3.3)."""
        info = self._info
        if info is None:
            return None
        bits = nal.BitReader(head[1:])
        bits.ue()
        bits.ue()
        bits.ue()
        if info.separate_colour_planes:
            bits.skip(2)
        bits.skip(info.frame_num_bits)
        if not info.frame_mbs_only and bits.flag():
            bits.skip(1)
        if kind == nal.H264_IDR:
            bits.ue()
        return _Count(bits.u(info.order_bits), kind == nal.H264_IDR)

    def _h265(self, kind: int, head: bytes) -> _Count | None:
        """Slice segment header up to slice_pic_order_cnt_lsb (7.3.6.1), of a picture's first segment."""
        info = self._info
        if info is None:
            return None
        if kind in _H265_IDR:
            return _Count(0, True)
        bits = nal.BitReader(head[2:])
        bits.skip(1)
        if nal.is_key_nal(Codec.H265, kind):
            bits.skip(1)
        bits.ue()
        bits.skip(self._pps.extra_bits)
        bits.ue()
        if self._pps.output_flag_present:
            bits.skip(1)
        if info.separate_colour_planes:
            bits.skip(2)
        return _Count(bits.u(info.order_bits), False)


class _Count(NamedTuple):
    """The low bits of a picture's order count, and whether counting begins with it."""

    low_bits: int
    begins: bool


def _first_sps(track: Track) -> nal.SequenceInfo | None:
    if track.codec not in (Codec.H264, Codec.H265):
        return None
    wanted = nal.H264_SPS if track.codec is Codec.H264 else nal.H265_SPS
    for unit in track.parameter_sets:
        if nal.nal_type(track.codec, unit) == wanted:
            try:
                return nal.parse_sps(track.codec, unit)
            except ParameterSetError:
                return None
    return None


def _first_pps(track: Track) -> _Pps:
    if track.codec is Codec.H265:
        for unit in track.parameter_sets:
            if nal.nal_type(track.codec, unit) == nal.H265_PPS:
                bits = nal.BitReader(nal.unescape(unit[2:_HEADER]))
                try:
                    bits.ue()
                    bits.ue()
                    bits.skip(1)  # dependent_slice_segments_enabled_flag
                    return _Pps(bits.flag(), bits.u(3))
                except ParameterSetError:
                    break
    return _Pps(False, 0)
