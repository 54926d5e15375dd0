"""NAL units and parameter sets, checked against what real encoders write."""

from __future__ import annotations

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.exceptions import ParameterSetError
from tests.support.media import H264_PPS, BitWriter, h264_sps, video_clip

# 1920x1080, High, cropped from 1088 lines.
SPS_1080 = bytes.fromhex("67640028acb403c0113f2e0220000003002000000651e30654")


@pytest.mark.parametrize("code", [b"\x00\x00\x01", b"\x00\x00\x00\x01"])
def test_split_takes_both_start_codes(code: bytes) -> None:
    assert list(nal.split_annexb(code + b"\x67abc" + code + b"\x68d")) == [b"\x67abc", b"\x68d"]


def test_med40_zeros_and_empty_units() -> None:
    data = b"\x00\x00\x00\x00\x01\x67a\x00\x00\x00\x01\x00\x00\x01\x68b\x00\x00\x00"
    assert list(nal.split_annexb(data)) == [b"\x67a", b"\x68b"]
    assert list(nal.split_annexb(b"garbage")) == []
    assert list(nal.split_annexb(b"xx\x00\x00\x01\x65")) == [b"\x65"]
    assert list(nal.split_annexb(b"\x00\x00\x01")) == []


def test_join_and_split_are_inverse() -> None:
    units = [b"\x67abc", b"\x68", b"\x65" + b"x" * 100]
    assert list(nal.split_annexb(nal.join_annexb(units))) == units


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
@pytest.mark.parametrize(("width", "height"), [(320, 240), (322, 242), (1280, 720)])
def test_sps_of_encoders(codec: Codec, width: int, height: int) -> None:
    clip = video_clip(codec, width=width, height=height, frames=5, gop=5)
    sps = next(
        unit
        for unit in nal.split_annexb(clip[0].payload)
        if nal.nal_type(codec, unit) in ((7,) if codec is Codec.H264 else (33,))
    )
    info = nal.parse_sps(codec, sps)
    assert (info.width, info.height, info.fps) == (width, height, 25.0)
    assert (info.chroma_format_idc, info.bit_depth_luma) == (1, 8)
    assert nal.probe_sps(sps) == info
    assert nal.is_key(codec, clip[0].payload)
    assert not nal.is_key(codec, clip[1].payload)


def test_sps_of_a_camera_with_cropping() -> None:
    info = nal.parse_h264_sps(SPS_1080)
    assert (info.width, info.height) == (1920, 1080)
    assert info.profile_idc == 100
    assert info.level_idc == 40


def test_sps_with_fields_counts_lines_twice() -> None:
    info = nal.parse_h264_sps(h264_sps(width=704, height=576, fields=True))
    assert (info.width, info.height, info.frame_mbs_only) == (704, 576, False)
    assert info.fps == 0.0


@pytest.mark.parametrize("size", range(1, 8))
def test_sps_cut_short_is_an_error(size: int) -> None:
    with pytest.raises(ParameterSetError):
        nal.parse_h264_sps(SPS_1080[:size])


@pytest.mark.parametrize("size", range(len(SPS_1080)))
def test_any_cut_of_an_sps_is_read_or_refused(size: int) -> None:
    """Cameras cut the VUI short; what stands before it holds."""
    try:
        info = nal.parse_h264_sps(SPS_1080[:size])
    except ParameterSetError:
        return
    assert (info.width, info.height) == (1920, 1080)


def test_absurd_values_are_not_believed() -> None:
    assert nal.probe_sps(bytes.fromhex("6705001eacb403c0113f2e")) is None  # no such profile
    assert nal.probe_sps(b"\x67" + b"\xff" * 20) is None
    assert nal.probe_sps(b"\x42\x01" + b"\x00" * 20) is None
    assert nal.probe_sps(b"\x65abc") is None
    with pytest.raises(ParameterSetError):
        nal.parse_h265_sps(b"\x40\x01" + bytes(20))
    with pytest.raises(ParameterSetError, match="too long"):
        nal.BitReader(bytes(9) + b"\x01").ue()


def test_med01_h264_slices_do_not_look_like_h265() -> None:
    """0x41 shifted right is an H.265 VPS; only a readable SPS counts."""
    assert nal.probe_sps(b"\x41\x9a\x00\x00") is None
    assert nal.nal_type(Codec.H265, b"\x41") == nal.H265_VPS


def test_exp_golomb() -> None:
    bits = nal.BitReader(bytes((0b1_010_011_0, 0b0100_0010, 0b1_0000000)))
    assert [bits.ue() for _ in range(4)] == [0, 1, 2, 3]
    bits = nal.BitReader(bytes((0b1_010_011_0, 0b0100_0010, 0b1_0000000)))
    assert [bits.se() for _ in range(5)] == [0, 1, -1, 2, -2]


def test_emulation_prevention_is_taken_out() -> None:
    assert nal.unescape(b"\x00\x00\x03\x00\x00\x03\x01\x00\x03") == b"\x00\x00\x00\x00\x01\x00\x03"


def test_avcc_record() -> None:
    clip = video_clip(Codec.H264, frames=5, gop=5)
    sps, pps = (unit for unit in clip[0].track.parameter_sets)
    record = nal.avcc(clip[0].track.parameter_sets)
    assert record[:6] == b"\x01" + sps[1:4] + b"\xff\xe1"
    assert record[6:8] == len(sps).to_bytes(2, "big")
    assert record[8 : 8 + len(sps)] == sps
    assert record[8 + len(sps) : 9 + len(sps)] == b"\x01"
    assert pps in record
    with pytest.raises(ParameterSetError):
        nal.avcc((sps,))
    with pytest.raises(ParameterSetError):
        nal.avcc((pps,))


def test_avcc_of_high_profile_tells_chroma_and_depth() -> None:
    assert nal.avcc((SPS_1080, b"\x68\xee\x3c\x80"))[-4:] == b"\xfd\xf8\xf8\x00"


def test_avcc_refuses_a_bit_depth_that_it_has_no_room_for() -> None:
    bits = BitWriter().u(100, 8).u(0, 8).u(40, 8).ue(0).ue(1).ue(300).ue(0).u(0, 2)
    bits.ue(0).ue(2).ue(1).u(0, 1).ue(3).ue(2).u(1, 1).u(1, 1).u(0, 2)
    sps = b"\x67" + bits.rbsp()
    assert nal.parse_h264_sps(sps).bit_depth_luma == 308
    with pytest.raises(ParameterSetError):
        nal.avcc((sps, H264_PPS))


def test_hvcc_record() -> None:
    clip = video_clip(Codec.H265, frames=5, gop=5)
    record = nal.hvcc(clip[0].track.parameter_sets)
    sps = clip[0].track.parameter_sets[1]
    info = nal.parse_h265_sps(sps)
    assert record[0] == 1
    assert record[1] & 0x1F == info.profile_idc
    assert record[12] == info.level_idc
    assert record[21] & 3 == 3
    assert record[22] == 3  # VPS, SPS, PPS
    assert all(unit in record for unit in clip[0].track.parameter_sets)
    with pytest.raises(ParameterSetError):
        nal.hvcc(clip[0].track.parameter_sets[:1])


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x00\x00\x01\xba\x44", "PS"),
        (b"\x00\x00\x01\xe0\x00\x10", "PS"),
        (b"\x00\x00\x01\x67\x42", "ES"),
        (b"\x47" + bytes(187), "TS"),
        ((b"\x47" + bytes(187)) * 7, "TS"),
        (b"\x47" + bytes(187) + b"\x46", "ES"),
        (b"\x47" + bytes(100), "ES"),
        (b"\x7c\x85\x88", "ES"),
        (b"", "ES"),
    ],
)
def test_med18_payload_is_recognised_by_its_bytes(data: bytes, found: str) -> None:
    assert nal.sniff_payload(data) == found
