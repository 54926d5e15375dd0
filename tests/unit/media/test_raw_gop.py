"""Where a program stream's key frames begin, told without demuxing it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gb28181gw.media.reference import raw_gop
from gb28181gw.media.reference.raw_gop import RawGop
from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.media.wire.ps_mux import MapPolicy, PsMuxer
from gb28181gw.media.wire.reorder import Gap
from gb28181gw.media.wire.rtp import RtpPacket, RtpPacketiser
from tests.support.plane import audio_frames, interleave, video_frames


def packets(frames: list[Frame], muxer: PsMuxer, size: int = 1400, still: bool = False) -> list[RtpPacket]:
    rtp = RtpPacketiser(ssrc=1, max_payload=size)
    made = [rtp.packetise(muxer.mux(frame), 0 if still else frame.pts_90k) for frame in frames]
    return [RtpPacket.parse(packet) for group in made for packet in group]


def keys(gop: RawGop, given_packets: list[RtpPacket]) -> list[bytes]:
    """The payload that the group began with, each time that it began."""
    found = []
    for packet in given_packets:
        if gop.add(packet, 0.0):
            first = gop.entries[0][0]
            assert isinstance(first, RtpPacket)
            found.append(first.payload)
    return found


def make(codec: Codec | None, *, audio_only: bool = False) -> RawGop:
    return RawGop(lambda: codec, lambda: audio_only)


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("policy", list(MapPolicy))
@pytest.mark.parametrize("size", [40, 300, 1400, 60000])
def test_med02_med12_key_frames_with_and_without_a_map(
    codec: Codec, known: bool, policy: MapPolicy, size: int
) -> None:
    muxer = PsMuxer(video=codec, audio=Codec.PCMA, map_policy=policy)
    frames = interleave(video_frames(codec), audio_frames())
    found = keys(make(codec if known else None), packets(frames, muxer, size))
    assert len(found) == 2
    assert all(payload.startswith(b"\x00\x00\x01\xba") for payload in found)


def test_med20_a_timestamp_that_stands_still_hides_no_key_frame() -> None:
    assert len(keys(make(Codec.H264), packets(list(video_frames()), PsMuxer(), still=True))) == 2


def test_a_key_frame_in_several_packs_begins_the_group_once() -> None:
    key = video_frames()[0]
    at = key.payload.index(b"\x00\x00\x00\x01\x65")  # behind SPS, PPS and SEI
    split = [replace(key, payload=key.payload[:at]), replace(key, payload=key.payload[at:])]
    gop = make(Codec.H264)
    given_packets = packets([*split, *video_frames()[1:3]], PsMuxer())
    assert len(keys(gop, given_packets)) == 1
    assert [entry[0] for entry in gop.entries] == given_packets


def test_a_gap_is_kept_in_its_place_and_one_before_the_first_key_frame_is_not() -> None:
    gop = make(Codec.H264)
    gop.gap(Gap(1), 0.0)
    assert gop.entries == []
    given_packets = packets(list(video_frames()[:3]), PsMuxer())
    gop.add(given_packets[0], 0.0)
    gop.gap(Gap(2), 0.1)
    gop.add(given_packets[-1], 0.2)
    assert gop.entries == [(given_packets[0], 0.0), (Gap(2), 0.1), (given_packets[-1], 0.2)]


def test_sound_alone_begins_at_any_pack() -> None:
    gop = make(None, audio_only=True)
    muxer = PsMuxer(video=None, audio=Codec.PCMA)
    assert len(keys(gop, packets(list(audio_frames()[:5]), muxer))) == 5


def test_other_codecs_begin_where_a_map_is() -> None:
    muxer = PsMuxer(video=Codec.SVAC)
    frames = [replace(f, track=replace(f.track, codec=Codec.SVAC)) for f in video_frames()]
    assert len(keys(make(Codec.SVAC), packets(frames, muxer))) == 2


def test_i6_a_group_that_outgrows_the_bound_is_given_up_until_the_next_key_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raw_gop, "MAX_ENTRIES", 10)
    gop = make(Codec.H264)
    given_packets = packets(list(video_frames()), PsMuxer())
    lengths = []
    for packet in given_packets:
        gop.add(packet, 0.0)
        lengths.append(len(gop.entries))
    assert max(lengths) == 10
    assert lengths[10] == 0
    assert lengths.count(1) == 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60).map(lambda data: b"\x00\x00\x01\xba" + data), max_size=30))
def test_any_payload_is_bounded_and_raises_nothing(payloads: list[bytes]) -> None:
    for codec in (None, Codec.H264, Codec.H265, Codec.MPEG4):
        gop = make(codec)
        for number, payload in enumerate(payloads):
            gop.add(RtpPacket(96, number, number, 1, payload), 0.0)
        assert len(gop.entries) <= len(payloads)
