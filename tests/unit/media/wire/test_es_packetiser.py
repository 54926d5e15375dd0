"""Elementary streams to RTP and back: the depacketisers are the other side."""

from __future__ import annotations

import itertools

import pytest

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.es_depacketiser import AacDepacketiser, H264Depacketiser, H265Depacketiser
from gb28181gw.media.wire.es_packetiser import EsPacketiser
from gb28181gw.media.wire.rtp import RtpPacket
from tests.support.plane import audio_frames, video_frames


def parsed(packetiser: EsPacketiser, frames: list[Frame] | tuple[Frame, ...]) -> list[RtpPacket]:
    return [RtpPacket.parse(packet) for frame in frames for packet in packetiser.packetise(frame)]


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
@pytest.mark.parametrize("size", [60, 500, 1400])
def test_rfc6184_rfc7798_fragments_come_together_again(codec: Codec, size: int) -> None:
    frames = video_frames(codec)
    packets = parsed(EsPacketiser(codec, ssrc=1, payload_type=96, max_payload=size), frames)
    assert max(len(packet.payload) for packet in packets) <= size
    reader = H264Depacketiser(96) if codec is Codec.H264 else H265Depacketiser(96)
    units = [unit for p in packets for unit in reader.feed(p.payload, p.timestamp, p.marker)] + reader.flush()
    assert [unit.payload for unit in units] == [frame.payload for frame in frames]
    assert not any(unit.damaged for unit in units)


def test_rfc6184_5_8_fragment_header() -> None:
    unit = bytes([0x65]) + bytes(range(1, 101))
    track = Track(kind=TrackKind.VIDEO, codec=Codec.H264)
    frame = Frame(track=track, pts_90k=3600, dts_90k=0, key=True, payload=nal.START_CODE + unit)
    packets = parsed(EsPacketiser(Codec.H264, ssrc=1, payload_type=96, max_payload=52), [frame])
    assert [packet.payload[0] for packet in packets] == [0x60 | 28, 0x60 | 28]
    assert [packet.payload[1] for packet in packets] == [0x80 | 5, 0x40 | 5]
    assert b"".join(packet.payload[2:] for packet in packets) == unit[1:]
    assert [packet.marker for packet in packets] == [False, True]
    assert {packet.timestamp for packet in packets} == {3600}


def test_rfc3551_sound_is_twenty_ms_a_packet_and_the_sequence_goes_round() -> None:
    packets = parsed(
        EsPacketiser(Codec.PCMA, ssrc=1, payload_type=8, sequence_number=65530), audio_frames()[:5]
    )
    assert [len(packet.payload) for packet in packets] == [160] * 10
    assert [b.timestamp - a.timestamp for a, b in itertools.pairwise(packets)] == [160] * 9
    assert [packet.sequence_number for packet in packets] == [*range(65530, 65536), 0, 1, 2, 3]


@pytest.mark.parametrize("size", [1, 300, 1396, 1397, 5000])
def test_rfc3640_access_units_of_any_size(size: int) -> None:
    config = b"\x14\x08"
    track = Track(
        kind=TrackKind.AUDIO, codec=Codec.AAC, sample_rate=16000, channels=1, parameter_sets=(config,)
    )
    frame = Frame(track=track, pts_90k=5760, dts_90k=5760, key=True, payload=b"\x21" * size)
    packets = parsed(EsPacketiser(Codec.AAC, ssrc=1, payload_type=97), [frame])
    assert {packet.timestamp for packet in packets} == {1024}
    reader = AacDepacketiser(97, config=config)
    units = [unit for p in packets for unit in reader.feed(p.payload, p.timestamp, p.marker)]
    assert [unit.payload for unit in units] == [frame.payload]


def test_what_has_no_payload_format_is_refused() -> None:
    with pytest.raises(ValueError, match="svac"):
        EsPacketiser(Codec.SVAC, ssrc=1, payload_type=96)
