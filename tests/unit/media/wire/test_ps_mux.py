"""The muxer keeps GB/T 28181-2022 C.1 to the letter."""

from __future__ import annotations

import struct

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire.ps_mux import MapPolicy, PsMuxer, crc32_mpeg
from gb28181gw.media.wire.stream_types import CODECS, STREAM_TYPES
from tests.support.media import audio_clip, video_clip


def _layout(data: bytes) -> list[tuple[int, int]]:
    """(start code, payload size) of each unit."""
    out = []
    position = 0
    while position < len(data):
        assert data[position : position + 3] == b"\x00\x00\x01"
        code = data[position + 3]
        if code == 0xBA:
            size = 14 + (data[position + 13] & 7)
            out.append((code, 0))
        else:
            (length,) = struct.unpack_from("!H", data, position + 4)
            size = 6 + length
            out.append((code, length - 3 - data[position + 8] if code >= 0xC0 else length))
        position += size
    assert position == len(data)
    return out


CLIP = video_clip(Codec.H264, frames=10, gop=5)


def test_key_frame_has_system_header_and_map_before_its_pes() -> None:
    muxer = PsMuxer(video=Codec.H264, audio=Codec.PCMA)
    assert [code for code, _ in _layout(muxer.mux(CLIP[0]))] == [0xBA, 0xBB, 0xBC, 0xE0]
    assert [code for code, _ in _layout(muxer.mux(CLIP[1]))] == [0xBA, 0xE0]
    assert [code for code, _ in _layout(muxer.mux(audio_clip(Codec.PCMA)[0]))] == [0xBA, 0xC0]


@pytest.mark.parametrize(
    ("policy", "maps"), [(MapPolicy.ALWAYS, 10), (MapPolicy.NEVER, 0), (MapPolicy.KEY, 2)]
)
def test_map_policy(policy: MapPolicy, maps: int) -> None:
    muxer = PsMuxer(map_policy=policy)
    assert sum(b"\x00\x00\x01\xbc" in muxer.mux(frame) for frame in CLIP) == maps


def test_r134_sound_alone_carries_the_map_in_each_pack() -> None:
    muxer = PsMuxer(video=None, audio=Codec.PCMA)
    for frame in audio_clip(Codec.PCMA)[:3]:
        frame.key = True
        assert [code for code, _ in _layout(muxer.mux(frame))] == [0xBA, 0xBB, 0xBC, 0xC0]


def test_frames_over_64_kb_take_several_pes() -> None:
    payload = b"\x00\x00\x00\x01\x65" + b"\xab" * 150_000
    pack = PsMuxer().mux_payload(payload, 9000, 5400, key=False)
    assert [size for code, size in _layout(pack) if code == 0xE0] == [65_000, 65_000, len(payload) - 130_000]
    first = pack.index(b"\x00\x00\x01\xe0")
    assert pack[first + 7 : first + 9] == b"\xc0\x0a"  # PTS and DTS on the first only
    second = pack.index(b"\x00\x00\x01\xe0", first + 4)
    assert pack[second + 7 : second + 9] == b"\x00\x00"


def test_times_are_written_with_their_marker_bits() -> None:
    pack = PsMuxer().mux_payload(b"x", 0x1_FFFF_FFFF, 0, key=False)
    pes = pack[14:]
    assert pes[9:14] == bytes((0b0011_1111, 0xFF, 0xFF, 0xFF, 0xFF))
    assert pes[14:19] == bytes((0b0001_0001, 0, 1, 0, 1))


def test_pack_header_bits() -> None:
    pack = PsMuxer(mux_rate_bytes=50 * 0x123).mux_payload(b"", 0, 0x1_FFFF_FFFF, key=False)
    assert pack[:4] == b"\x00\x00\x01\xba"
    value = int.from_bytes(pack[4:14], "big")
    assert value >> 78 == 0b01
    assert (value >> 75 & 7, value >> 59 & 0x7FFF, value >> 43 & 0x7FFF) == (7, 0x7FFF, 0x7FFF)
    assert [value >> bit & 1 for bit in (74, 58, 42, 32)] == [1, 1, 1, 1]
    assert value >> 10 & 0x3FFFFF == 0x123
    assert value & 0x3FF == 0b11_11111_000


@pytest.mark.parametrize("codec", sorted(STREAM_TYPES))
def test_med15_stream_types_of_the_map(codec: Codec) -> None:
    video = codec if codec.is_video else None
    audio = None if codec.is_video else codec
    pack = PsMuxer(video=video, audio=audio).mux_payload(b"", 0, 0, key=True)
    start = pack.index(b"\x00\x00\x01\xbc")
    (length,) = struct.unpack_from("!H", pack, start + 4)
    section = pack[start : start + 6 + length]
    assert crc32_mpeg(section) == 0
    stream_id = 0xE0 if codec.is_video else 0xC0
    assert section[12:16] == bytes((STREAM_TYPES[codec], stream_id, 0, 0))
    assert CODECS[STREAM_TYPES[codec]] is codec


def test_crc_of_a_known_string() -> None:
    assert crc32_mpeg(b"123456789") == 0x0376E6E7


def test_aac_gets_its_adts_header() -> None:
    frame = audio_clip(Codec.AAC)[3]
    pack = PsMuxer(video=None, audio=Codec.AAC).mux(frame)
    *_, (_, size) = _layout(pack)
    assert size == len(frame.payload) + 7
    assert pack[-size:][:2] == b"\xff\xf1"
    assert pack.endswith(frame.payload)


def test_deviations_on_request() -> None:
    lying = PsMuxer(video=Codec.H265, stream_types={0xE0: 0x1B}).mux(CLIP[0])
    assert lying[lying.index(b"\x00\x00\x01\xbc") + 12] == 0x1B
    endless = PsMuxer(unbounded_pes=True).mux(CLIP[1])
    assert endless[18:20] == b"\x00\x00"
    with pytest.raises(ValueError, match="max_pes_payload"):
        PsMuxer(max_pes_payload=65_536)
