"""FLV tags, byte by byte."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import NamedTuple

import pytest

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.flv import FlvMuxer, length_prefixed, tag
from tests.support.media import audio_clip, video_clip

H264 = video_clip(Codec.H264, frames=10, gop=5)
H265 = video_clip(Codec.H265, frames=10, gop=5)
BFRAMES = video_clip(Codec.H264, frames=10, gop=10, b_frames=2)


class Tag(NamedTuple):
    kind: int
    timestamp: int
    body: bytes


def _tags(data: bytes) -> list[Tag]:
    out = []
    position = 0
    while position < len(data):
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        time = int.from_bytes(data[position + 4 : position + 7], "big") | data[position + 7] << 24
        assert data[position + 8 : position + 11] == b"\x00\x00\x00"
        body = data[position + 11 : position + 11 + size]
        assert len(body) == size
        (previous,) = struct.unpack_from("!I", data, position + 11 + size)
        assert previous == 11 + size
        out.append(Tag(data[position], time, body))
        position += 15 + size
    return out


def test_file_header_flags() -> None:
    video, audio = H264[0].track, audio_clip(Codec.PCMA)[0].track
    for tracks, flags in (((video,), 1), ((audio,), 4), ((video, audio), 5), ((), 0)):
        data = FlvMuxer().header(tracks)
        assert data[:13] == b"FLV\x01" + bytes((flags,)) + b"\x00\x00\x00\x09\x00\x00\x00\x00"


def test_metadata_and_sequence_headers() -> None:
    audio = audio_clip(Codec.AAC)[0].track
    script, video_head, audio_head = _tags(FlvMuxer().header([H264[0].track, audio])[13:])
    assert script.kind == 18
    assert script.body.startswith(b"\x02\x00\x0aonMetaData\x08")
    assert script.body.endswith(b"\x00\x00\x09")
    for name, value in ((b"width", 320.0), (b"height", 240.0), (b"framerate", 25.0), (b"videocodecid", 7.0)):
        assert name + b"\x00" + struct.pack("!d", value) in script.body
    assert b"audiocodecid\x00" + struct.pack("!d", 10.0) in script.body
    assert video_head == Tag(9, 0, b"\x17\x00\x00\x00\x00" + nal.avcc(H264[0].track.parameter_sets))
    assert audio_head == Tag(8, 0, b"\xaf\x00" + audio.parameter_sets[0])


def test_h264_frames() -> None:
    muxer = FlvMuxer()
    muxer.header([H264[0].track])
    for number, frame in enumerate(H264):
        (found,) = _tags(muxer.mux(frame))
        assert found.kind == 9
        assert found.timestamp == number * 40
        assert found.body[:5] == bytes((0x17 if frame.key else 0x27, 1, 0, 0, 0))
        assert found.body[5:] == length_prefixed(frame.payload)


def test_length_prefix_counts_every_unit() -> None:
    payload = b"\x00\x00\x01\x09\xf0" + b"\x00\x00\x00\x01\x65abc"
    assert length_prefixed(payload) == b"\x00\x00\x00\x02\x09\xf0\x00\x00\x00\x04\x65abc"
    assert length_prefixed(b"") == b""


def test_med37_composition_time_of_b_pictures() -> None:
    muxer = FlvMuxer()
    muxer.header([BFRAMES[0].track])
    tags = [_tags(muxer.mux(frame))[0] for frame in BFRAMES]
    assert [t.timestamp for t in tags] == [frame.dts_90k // 90 for frame in BFRAMES]
    offsets = [int.from_bytes(t.body[2:5], "big") for t in tags]
    assert offsets == [(frame.pts_90k - frame.dts_90k) // 90 for frame in BFRAMES]
    assert max(offsets) > 0


def test_negative_composition_time_is_signed() -> None:
    muxer = FlvMuxer()
    muxer.header([H264[0].track])
    muxer.mux(H264[0])
    frame = replace(H264[1], pts_90k=H264[1].dts_90k - 900)
    assert _tags(muxer.mux(frame))[0].body[2:5] == (-10 & 0xFFFFFF).to_bytes(3, "big")


def test_h265_enhanced() -> None:
    muxer = FlvMuxer(hevc="enhanced")
    script, head = _tags(muxer.header([H265[0].track])[13:])
    assert b"videocodecid\x00" + struct.pack("!d", 0x68766331) in script.body
    assert head.body == b"\x90hvc1" + nal.hvcc(H265[0].track.parameter_sets)
    (key,) = _tags(muxer.mux(H265[0]))
    assert key.body == b"\x93hvc1" + length_prefixed(H265[0].payload)
    (inter,) = _tags(muxer.mux(replace(H265[1], pts_90k=H265[1].dts_90k + 3600)))
    assert inter.body[:8] == b"\xa1hvc1\x00\x00\x28"
    assert inter.body[8:] == length_prefixed(H265[1].payload)


def test_h265_legacy_codec_id_12() -> None:
    muxer = FlvMuxer(hevc="legacy")
    script, head = _tags(muxer.header([H265[0].track])[13:])
    assert b"videocodecid\x00" + struct.pack("!d", 12.0) in script.body
    assert head.body == b"\x1c\x00\x00\x00\x00" + nal.hvcc(H265[0].track.parameter_sets)
    assert _tags(muxer.mux(H265[0]))[0].body == b"\x1c\x01\x00\x00\x00" + length_prefixed(H265[0].payload)
    assert _tags(muxer.mux(H265[1]))[0].body[:2] == b"\x2c\x01"
    with pytest.raises(ValueError, match="enhanced"):
        FlvMuxer(hevc="other")


@pytest.mark.parametrize(
    ("codec", "head"), [(Codec.PCMA, b"\x72"), (Codec.PCMU, b"\x82"), (Codec.AAC, b"\xaf\x01")]
)
def test_audio_tags(codec: Codec, head: bytes) -> None:
    frame = audio_clip(codec)[4]
    muxer = FlvMuxer(base_90k=0)
    muxer.header([frame.track])
    (found,) = _tags(muxer.mux(frame))
    assert found == Tag(8, frame.dts_90k // 90, head + frame.payload)


def test_codecs_that_flv_has_not_are_left_out() -> None:
    track = Track(kind=TrackKind.AUDIO, codec=Codec.G729)
    frame = Frame(track=track, pts_90k=0, dts_90k=0, key=True, payload=b"x")
    muxer = FlvMuxer()
    assert len(_tags(muxer.header([track])[13:])) == 1
    assert muxer.mux(frame) == b""
    assert not muxer.carries(Codec.SVAC)


def test_med17_late_track_is_announced_by_its_first_frame() -> None:
    muxer = FlvMuxer(base_90k=0)
    muxer.header([H264[0].track])
    sound = audio_clip(Codec.AAC)
    assert [t.body[:2] for t in _tags(muxer.mux(sound[2]))] == [b"\xaf\x00", b"\xaf\x01"]
    assert [t.body[:2] for t in _tags(muxer.mux(sound[3]))] == [b"\xaf\x01"]


def test_med36_change_of_the_track_brings_a_new_sequence_header() -> None:
    small = video_clip(Codec.H264, width=160, height=128, frames=10, gop=10)
    muxer = FlvMuxer(base_90k=0)
    muxer.header([H264[0].track])
    assert [t.body[1] for t in _tags(muxer.mux(H264[0]))] == [1]
    changed = _tags(muxer.mux(small[0]))
    assert [t.body[1] for t in changed] == [0, 1]
    assert changed[0].body[5:] == nal.avcc(small[0].track.parameter_sets)
    assert [t.body[1] for t in _tags(muxer.mux(small[1]))] == [1]
    other = _tags(muxer.mux(H265[0]))
    assert [t.body[:1] for t in other] == [b"\x90", b"\x93"]


def test_a_measured_rate_brings_no_new_sequence_header() -> None:
    muxer = FlvMuxer()
    muxer.header([H264[0].track])
    muxer.mux(H264[0])
    frame = replace(H264[1], track=replace(H264[1].track, fps=12.5))
    assert len(_tags(muxer.mux(frame))) == 1


def test_parameter_sets_that_cannot_be_read_give_no_header() -> None:
    track = replace(H264[0].track, parameter_sets=(b"\x67\x00",))
    assert FlvMuxer().sequence_header(track) == b""


def test_timestamps_take_the_extension_byte_and_wrap() -> None:
    for ms in (0xFFFFFF, 0x1000000, 0xFFFFFFFF, 0x1_0000_0005):
        assert _tags(tag(9, ms, b"x"))[0].timestamp == ms & 0xFFFFFFFF
    with pytest.raises(ValueError, match="16,777,215"):
        tag(9, 0, bytes(0x1000000))


def test_time_counts_from_the_first_frame_or_from_a_common_base() -> None:
    own, common = FlvMuxer(), FlvMuxer(base_90k=0)
    for muxer in (own, common):
        muxer.header([H264[0].track])
    assert _tags(own.mux(H264[5]))[-1].timestamp == 0
    assert _tags(own.mux(H264[6]))[-1].timestamp == 40
    assert _tags(common.mux(H264[5]))[-1].timestamp == 200
    assert _tags(own.mux(audio_clip(Codec.PCMA)[0]))[-1].timestamp == 0  # before the first: clamped
