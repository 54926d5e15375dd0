"""NAL units of H.264 (ISO 14496-10) and H.265 (ISO 23008-2): cut, name, read what a container must know.

Nothing here decodes pictures. Names of syntax elements are those of the standards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire.exceptions import ParameterSetError

START_CODE = b"\x00\x00\x00\x01"
_SHORT_CODE = b"\x00\x00\x01"

# H.264 nal_unit_type (table 7-1)
H264_SLICE = 1
H264_IDR = 5
H264_SEI = 6
H264_SPS = 7
H264_PPS = 8
H264_AUD = 9

# H.265 nal_unit_type (table 7-1)
H265_BLA_W_LP = 16
H265_CRA = 21
H265_VPS = 32
H265_SPS = 33
H265_PPS = 34
H265_AUD = 35
H265_SEI_PREFIX = 39

MAX_PARAMETER_SET = 4096
"""Bytes of one parameter set; a longer one is not believed."""


def split_annexb(data: bytes) -> Iterator[bytes]:
    """NAL units of an Annex B byte stream, without start codes and trailing zeros; empty ones are left out.

    Three- and four-byte start codes may be mixed, zeros may follow a unit (MED-40). Bytes before the first start
    code belong to no unit.
    """
    find = data.find
    start = find(_SHORT_CODE)
    while start >= 0:
        start += 3
        following = find(_SHORT_CODE, start)
        unit = data[start:] if following < 0 else data[start:following]
        if unit and unit[-1] == 0:
            unit = unit.rstrip(b"\x00")
        if unit:
            yield unit
        start = following


def join_annexb(units: Sequence[bytes]) -> bytes:
    """Byte stream with four-byte start codes."""
    return b"".join(piece for unit in units for piece in (START_CODE, unit))


def nal_type(codec: Codec, unit: bytes) -> int:
    """`nal_unit_type` of a non-empty unit."""
    return unit[0] & 0x1F if codec is Codec.H264 else unit[0] >> 1 & 0x3F


def is_parameter_set(codec: Codec, kind: int) -> bool:
    if codec is Codec.H264:
        return kind in (H264_SPS, H264_PPS)
    return H265_VPS <= kind <= H265_PPS


def is_vcl(codec: Codec, kind: int) -> bool:
    """Coded slice (data) of a picture."""
    if codec is Codec.H264:
        return 1 <= kind <= 5
    return kind < 32


def is_key_nal(codec: Codec, kind: int) -> bool:
    """Slice of a picture at which decoding can begin: IDR; for H.265 any IRAP (BLA, IDR, CRA)."""
    if codec is Codec.H264:
        return kind == H264_IDR
    return H265_BLA_W_LP <= kind <= 23


def is_key(codec: Codec, payload: bytes) -> bool:
    """The Annex B access unit holds a key picture."""
    return any(is_key_nal(codec, nal_type(codec, unit)) for unit in split_annexb(payload))


def unescape(unit: bytes) -> bytes:
    """RBSP of a NAL unit: emulation prevention bytes taken out (7.3.1)."""
    return unit.replace(b"\x00\x00\x03", b"\x00\x00")


class BitReader:
    """Reads an RBSP bit by bit. Raises `ParameterSetError` past the end."""

    __slots__ = ("_left", "_value")

    def __init__(self, rbsp: bytes) -> None:
        self._value = int.from_bytes(rbsp, "big")
        self._left = 8 * len(rbsp)

    def u(self, count: int) -> int:
        """Unsigned, `count` bits."""
        self._left -= count
        if self._left < 0:
            raise ParameterSetError("parameter set ends too early")
        return self._value >> self._left & ((1 << count) - 1)

    def flag(self) -> bool:
        return self.u(1) == 1

    def skip(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ParameterSetError("parameter set ends too early")

    def ue(self) -> int:
        """Exp-Golomb, unsigned (9.1)."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise ParameterSetError("Exp-Golomb code is too long")
        return (1 << zeros) - 1 + self.u(zeros) if zeros else 0

    def se(self) -> int:
        """Exp-Golomb, signed."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceInfo:
    """What an SPS tells."""

    codec: Codec
    sps_id: int
    width: int
    """Of the cropped picture."""
    height: int
    fps: float
    """Frames a second from the VUI; 0 when it is absent or not to be believed."""
    profile_idc: int
    level_idc: int
    chroma_format_idc: int
    bit_depth_luma: int
    bit_depth_chroma: int
    frame_mbs_only: bool = True
    """H.264 only: false where pictures may be fields."""
    frame_num_bits: int = 4
    separate_colour_planes: bool = False
    max_sub_layers: int = 1
    temporal_id_nesting: bool = False
    reorder_pictures: int | None = None
    """Pictures that may precede another in decoding and follow it in output, where the SPS says so."""
    order_bits: int = 0
    """Length of a slice's order count (pic_order_cnt_lsb); 0 where slices carry none."""


_H264_PROFILES = frozenset({66, 77, 88, 100, 110, 122, 144, 244, 44, 83, 86, 118, 128, 134, 135, 138, 139})
_H264_HIGH = _H264_PROFILES - {66, 77, 88, 144}
MAX_DIMENSION = 16384


def _fps(numerator: int, denominator: int) -> float:
    """A believable rate, else 0."""
    if not denominator:
        return 0.0
    fps = round(numerator / denominator, 3)
    return fps if 0.1 <= fps <= 240 else 0.0


def _skip_h264_scaling_list(bits: BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) & 0xFF
        last = following or last


def _h264_vui(bits: BitReader) -> tuple[float, int | None]:
    """(fps, max_num_reorder_frames) of vui_parameters (E.1.1)."""
    if bits.flag() and bits.u(8) == 255:  # aspect_ratio_idc Extended_SAR
        bits.skip(32)
    if bits.flag():  # overscan
        bits.skip(1)
    if bits.flag():  # video signal
        bits.skip(4)
        if bits.flag():
            bits.skip(24)
    if bits.flag():  # chroma location
        bits.ue()
        bits.ue()
    fps = 0.0
    if bits.flag():
        num_units_in_tick, time_scale = bits.u(32), bits.u(32)
        bits.skip(1)
        fps = _fps(time_scale, 2 * num_units_in_tick)
    try:
        nal_hrd = bits.flag()
        if nal_hrd:
            _skip_h264_hrd(bits)
        vcl_hrd = bits.flag()
        if vcl_hrd:
            _skip_h264_hrd(bits)
        if nal_hrd or vcl_hrd:
            bits.skip(1)
        bits.skip(1)  # pic_struct_present_flag
        if not bits.flag():
            return fps, None
        bits.skip(1)
        for _ in range(4):
            bits.ue()
        return fps, min(bits.ue(), 16)
    except ParameterSetError:  # cameras cut their VUI short; what came before it holds
        return fps, None


def _skip_h264_hrd(bits: BitReader) -> None:
    count = bits.ue() + 1
    bits.skip(8)
    for _ in range(min(count, 32)):
        bits.ue()
        bits.ue()
        bits.skip(1)
    bits.skip(20)


def parse_h264_sps(unit: bytes) -> SequenceInfo:
    """Read a sequence parameter set (7.3.2.1.1), `unit` with its NAL header. Raises `ParameterSetError`."""
    if len(unit) < 5 or unit[0] & 0x9F != H264_SPS:
        raise ParameterSetError("not an H.264 SPS")
    bits = BitReader(unescape(unit[1:MAX_PARAMETER_SET]))
    profile_idc = bits.u(8)
    if profile_idc not in _H264_PROFILES:
        raise ParameterSetError(f"H.264 profile_idc {profile_idc} does not exist")
    bits.skip(8)
    level_idc = bits.u(8)
    sps_id = bits.ue()
    if sps_id > 31:
        raise ParameterSetError("H.264 SPS id is out of range")
    chroma_format_idc, separate, depth_luma, depth_chroma = 1, False, 8, 8
    if profile_idc in _H264_HIGH:
        chroma_format_idc = bits.ue()
        if chroma_format_idc == 3:
            separate = bits.flag()
        depth_luma = 8 + bits.ue()
        depth_chroma = 8 + bits.ue()
        bits.skip(1)
        if bits.flag():
            for index in range(12 if chroma_format_idc == 3 else 8):
                if bits.flag():
                    _skip_h264_scaling_list(bits, 16 if index < 6 else 64)
    frame_num_bits = bits.ue() + 4
    order_type = bits.ue()
    order_bits = 0
    if order_type == 0:
        order_bits = bits.ue() + 4
        if order_bits > 16:
            raise ParameterSetError("H.264 order count is too long")
    elif order_type == 1:
        bits.skip(1)
        bits.se()
        bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()
    bits.ue()  # max_num_ref_frames
    bits.skip(1)
    width_mbs = bits.ue() + 1
    height_units = bits.ue() + 1
    frame_mbs_only = bits.flag()
    if not frame_mbs_only:
        bits.skip(1)
    bits.skip(1)
    crop = (bits.ue(), bits.ue(), bits.ue(), bits.ue()) if bits.flag() else (0, 0, 0, 0)
    # A monochrome or 4:4:4 picture crops in single samples (7.4.2.1.1).
    unit_x = 2 if chroma_format_idc in (1, 2) and not separate else 1
    unit_y = (2 if chroma_format_idc == 1 and not separate else 1) * (1 if frame_mbs_only else 2)
    width = width_mbs * 16 - unit_x * (crop[0] + crop[1])
    height = height_units * 16 * (1 if frame_mbs_only else 2) - unit_y * (crop[2] + crop[3])
    if not (0 < width <= MAX_DIMENSION and 0 < height <= MAX_DIMENSION):
        raise ParameterSetError(f"H.264 picture of {width}x{height} is not believed")
    fps, reorder = 0.0, None
    try:
        if bits.flag():
            fps, reorder = _h264_vui(bits)
    except ParameterSetError:
        fps = 0.0
    return SequenceInfo(
        codec=Codec.H264,
        sps_id=sps_id,
        width=width,
        height=height,
        fps=fps,
        profile_idc=profile_idc,
        level_idc=level_idc,
        chroma_format_idc=chroma_format_idc,
        bit_depth_luma=depth_luma,
        bit_depth_chroma=depth_chroma,
        frame_mbs_only=frame_mbs_only,
        frame_num_bits=frame_num_bits,
        separate_colour_planes=separate,
        # Order type 2: what is decoded next is shown next (8.2.1.3).
        reorder_pictures=0 if profile_idc == 66 or order_type == 2 else reorder,
        order_bits=order_bits,
    )


def _skip_profile_tier_level(bits: BitReader, max_sub_layers_minus1: int) -> tuple[int, int]:
    """(general_profile_idc, general_level_idc); 7.3.3."""
    bits.skip(3)
    profile_idc = bits.u(5)
    bits.skip(80)
    level_idc = bits.u(8)
    present = [(bits.flag(), bits.flag()) for _ in range(max_sub_layers_minus1)]
    if max_sub_layers_minus1:
        bits.skip(2 * (8 - max_sub_layers_minus1))
    for profile, level in present:
        bits.skip(88 * profile + 8 * level)
    return profile_idc, level_idc


def _skip_h265_scaling_list(bits: BitReader) -> None:
    for size_id in range(4):
        for _ in range(0, 6, 3 if size_id == 3 else 1):
            if not bits.flag():
                bits.ue()
                continue
            if size_id > 1:
                bits.se()
            for _ in range(min(64, 1 << (4 + (size_id << 1)))):
                bits.se()


def _skip_short_term_ref_pic_sets(bits: BitReader, count: int) -> None:
    """st_ref_pic_set for all indices (7.3.7); only the number of pictures of each must be kept."""
    pictures: list[int] = []
    for index in range(count):
        if index and bits.flag():  # inter_ref_pic_set_prediction_flag
            bits.skip(1)
            bits.ue()
            kept = 0
            for _ in range(pictures[-1] + 1):
                used = bits.flag()
                kept += used or bits.flag()
            pictures.append(kept)
            continue
        negative, positive = bits.ue(), bits.ue()
        if negative + positive > 32:
            raise ParameterSetError("H.265 reference picture set is too large")
        for _ in range(negative + positive):
            bits.ue()
            bits.skip(1)
        pictures.append(negative + positive)


def _h265_vui_fps(bits: BitReader) -> float:
    """vui_parameters up to the timing (E.2.1)."""
    if bits.flag() and bits.u(8) == 255:
        bits.skip(32)
    if bits.flag():
        bits.skip(1)
    if bits.flag():
        bits.skip(4)
        if bits.flag():
            bits.skip(24)
    if bits.flag():
        bits.ue()
        bits.ue()
    bits.skip(3)
    if bits.flag():  # default_display_window
        for _ in range(4):
            bits.ue()
    if not bits.flag():
        return 0.0
    num_units_in_tick, time_scale = bits.u(32), bits.u(32)
    return _fps(time_scale, num_units_in_tick)


def parse_h265_sps(unit: bytes) -> SequenceInfo:
    """Read a sequence parameter set (7.3.2.2), `unit` with its NAL header. Raises `ParameterSetError`."""
    if len(unit) < 16 or unit[0] >> 1 != H265_SPS:
        raise ParameterSetError("not an H.265 SPS")
    bits = BitReader(unescape(unit[2:MAX_PARAMETER_SET]))
    bits.skip(4)
    max_sub_layers_minus1 = bits.u(3)
    if max_sub_layers_minus1 > 6:
        raise ParameterSetError("H.265 SPS has too many sub-layers")
    nesting = bits.flag()
    profile_idc, level_idc = _skip_profile_tier_level(bits, max_sub_layers_minus1)
    sps_id = bits.ue()
    chroma_format_idc = bits.ue()
    if sps_id > 15 or chroma_format_idc > 3:
        raise ParameterSetError("H.265 SPS id or chroma format is out of range")
    separate = bits.flag() if chroma_format_idc == 3 else False
    width, height = bits.ue(), bits.ue()
    if bits.flag():
        unit_x = 2 if chroma_format_idc in (1, 2) else 1
        unit_y = 2 if chroma_format_idc == 1 else 1
        width -= unit_x * (bits.ue() + bits.ue())
        height -= unit_y * (bits.ue() + bits.ue())
    if not (0 < width <= MAX_DIMENSION and 0 < height <= MAX_DIMENSION):
        raise ParameterSetError(f"H.265 picture of {width}x{height} is not believed")
    depth_luma, depth_chroma = 8 + bits.ue(), 8 + bits.ue()
    if depth_luma > 16 or depth_chroma > 16:
        raise ParameterSetError("H.265 bit depth is out of range")
    fps, reorder, order_bits = 0.0, None, 0
    try:
        order_bits = bits.ue() + 4
        if order_bits > 16:
            raise ParameterSetError("H.265 order count is too long")
        for _ in range(0 if bits.flag() else max_sub_layers_minus1, max_sub_layers_minus1 + 1):
            bits.ue()
            reorder = bits.ue()
            bits.ue()
        for _ in range(6):
            bits.ue()
        if bits.flag() and bits.flag():  # scaling_list_enabled, sps_scaling_list_data_present
            _skip_h265_scaling_list(bits)
        bits.skip(2)
        if bits.flag():  # pcm_enabled
            bits.skip(8)
            bits.ue()
            bits.ue()
            bits.skip(1)
        count = bits.ue()
        if count > 64:
            raise ParameterSetError("H.265 SPS has too many reference picture sets")
        _skip_short_term_ref_pic_sets(bits, count)
        if bits.flag():
            bits.skip(min(bits.ue(), 32) * (order_bits + 1))
        bits.skip(2)
        if bits.flag():
            fps = _h265_vui_fps(bits)
    except ParameterSetError:  # size and profile hold; the rate is measured instead
        fps = 0.0
    return SequenceInfo(
        codec=Codec.H265,
        sps_id=sps_id,
        width=width,
        height=height,
        fps=fps,
        profile_idc=profile_idc,
        level_idc=level_idc,
        chroma_format_idc=chroma_format_idc,
        bit_depth_luma=depth_luma,
        bit_depth_chroma=depth_chroma,
        separate_colour_planes=separate,
        max_sub_layers=max_sub_layers_minus1 + 1,
        temporal_id_nesting=nesting,
        reorder_pictures=reorder,
        order_bits=order_bits if order_bits <= 16 else 0,
    )


def parse_sps(codec: Codec, unit: bytes) -> SequenceInfo:
    """Raises `ParameterSetError`."""
    return parse_h264_sps(unit) if codec is Codec.H264 else parse_h265_sps(unit)


def probe_sps(unit: bytes) -> SequenceInfo | None:
    """The codec of a stream, from a NAL unit that reads as the SPS of one of the two (MED-01).

    The headers cannot be confused: 0x07, 0x27, 0x47 or 0x67 would be an H.265 unit of a layer above 31, and
    0x42 0x01 an H.264 data partition, which no encoder makes. Slices prove nothing: 0x41 shifted is a VPS.
    """
    try:
        if unit[0] & 0x9F == H264_SPS:
            return parse_h264_sps(unit)
        if unit[:2] == b"\x42\x01":
            return parse_h265_sps(unit)
    except ParameterSetError:
        return None
    return None


def avcc(parameter_sets: Sequence[bytes]) -> bytes:
    """AVCDecoderConfigurationRecord (ISO 14496-15 5.3.3.1), four-byte lengths. Raises `ParameterSetError`."""
    sps = [unit for unit in parameter_sets if unit and unit[0] & 0x1F == H264_SPS]
    pps = [unit for unit in parameter_sets if unit and unit[0] & 0x1F == H264_PPS]
    if not sps or len(sps[0]) < 4 or not pps:
        raise ParameterSetError("an H.264 configuration needs SPS and PPS")
    info = parse_h264_sps(sps[0])
    parts = [b"\x01", sps[0][1:4], b"\xff", bytes([0xE0 | min(len(sps), 31)])]
    for unit in sps[:31]:
        parts += (len(unit).to_bytes(2, "big"), unit)
    parts.append(bytes([min(len(pps), 255)]))
    for unit in pps[:255]:
        parts += (len(unit).to_bytes(2, "big"), unit)
    if info.profile_idc in _H264_HIGH:
        if info.chroma_format_idc > 3 or max(info.bit_depth_luma, info.bit_depth_chroma) > 15:
            raise ParameterSetError("H.264 chroma format or bit depth does not exist")
        parts.append(
            bytes(
                (
                    0xFC | info.chroma_format_idc,
                    0xF8 | info.bit_depth_luma - 8,
                    0xF8 | info.bit_depth_chroma - 8,
                    0,
                )
            )
        )
    return b"".join(parts)


def hvcc(parameter_sets: Sequence[bytes]) -> bytes:
    """HEVCDecoderConfigurationRecord (ISO 14496-15 8.3.3.1), four-byte lengths. Raises `ParameterSetError`."""
    groups = {
        kind: [unit for unit in parameter_sets if unit and unit[0] >> 1 & 0x3F == kind]
        for kind in (H265_VPS, H265_SPS, H265_PPS)
    }
    if not groups[H265_SPS] or not groups[H265_PPS]:
        raise ParameterSetError("an H.265 configuration needs SPS and PPS")
    info = parse_h265_sps(groups[H265_SPS][0])
    # general_profile_space … general_level_idc are 12 whole bytes behind the first byte of the SPS.
    general = unescape(groups[H265_SPS][0][2:64])[1:13]
    parts = [
        b"\x01",
        general,
        b"\xf0\x00",  # min_spatial_segmentation_idc 0: unknown
        b"\xfc",  # parallelismType 0: unknown
        bytes(
            (0xFC | info.chroma_format_idc, 0xF8 | info.bit_depth_luma - 8, 0xF8 | info.bit_depth_chroma - 8)
        ),
        b"\x00\x00",  # avgFrameRate 0: unspecified
        bytes((info.max_sub_layers << 3 | info.temporal_id_nesting << 2 | 3,)),
    ]
    present = [(kind, units) for kind, units in groups.items() if units]
    parts.append(bytes((len(present),)))
    for kind, units in present:
        parts.append(bytes((0x80 | kind,)) + len(units).to_bytes(2, "big"))
        for unit in units:
            parts += (len(unit).to_bytes(2, "big"), unit)
    return b"".join(parts)


def sniff_payload(data: bytes) -> Literal["PS", "TS", "ES"]:
    """What an RTP payload holds, whatever its payload type says (MED-18).

    Certain only for a payload at the start of a pack (PS) or on a packet boundary (TS); "ES" is the answer for all
    else, so ask for several payloads before believing it.
    """
    if len(data) >= 4 and data[:3] == _SHORT_CODE and data[3] >= 0xB9:
        return "PS"
    if len(data) >= 188 and data[0] == 0x47 and all(data[i] == 0x47 for i in range(188, len(data), 188)):
        return "TS"
    return "ES"
