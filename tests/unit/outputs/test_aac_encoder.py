from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import av
import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire.aac import build_adts, parse_audio_specific_config
from gb28181gw.outputs.aac_encoder import AacEncoder
from tests.support.plane import audio_frames


@pytest.mark.parametrize("codec", [Codec.PCMA, Codec.PCMU])
def test_g711_becomes_aac_on_the_same_clock(codec: Codec) -> None:
    frames = [replace(f, pts_90k=f.pts_90k + 7000) for f in audio_frames(codec)]
    packets = AacEncoder().encode(frames)
    assert packets[0].pts_90k == 7000
    assert {b.pts_90k - a.pts_90k for a, b in pairwise(packets)} == {11520}
    assert packets[-1].pts_90k <= frames[-1].pts_90k
    _, rate, channels = parse_audio_specific_config(packets[0].configuration)
    assert (rate, channels) == (8000, 1)
    decoder = av.CodecContext.create("aac", "r")
    data = b"".join(
        build_adts(packet.configuration[:2], len(packet.payload)) + packet.payload for packet in packets
    )
    samples = [sound for packet in decoder.parse(data) for sound in decoder.decode(packet)]
    assert len(samples) >= 10
    loud = max(abs(value) for value in memoryview(samples[5].planes[0]).cast("f").tolist())
    assert 0.1 < loud < 0.6, "the tone is heard"


def test_gap_in_the_source_starts_a_new_count() -> None:
    encoder = AacEncoder()
    frames = audio_frames()
    before = encoder.encode(frames[:25])
    after = encoder.encode([replace(f, pts_90k=f.pts_90k + 500_000) for f in frames[25:]])
    assert before[-1].pts_90k < frames[25].pts_90k
    assert after[0].pts_90k == frames[25].pts_90k + 500_000


def test_change_of_codec_starts_a_new_decoder() -> None:
    encoder = AacEncoder()
    assert encoder.encode(audio_frames(Codec.PCMA)[:10])
    assert encoder.encode([replace(f, pts_90k=f.pts_90k + 36000) for f in audio_frames(Codec.PCMU)[:10]])


def test_empty_packets_are_passed_over() -> None:
    assert AacEncoder().encode([replace(audio_frames()[0], payload=b"")]) == []
