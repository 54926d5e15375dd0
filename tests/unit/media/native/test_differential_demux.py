"""The native demuxers against the Python ones: same units, same tolerances, same counters, step by step."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gb28181gw.media.tracks import Codec, TrackKind
from gb28181gw.media.wire import aac
from gb28181gw.media.wire.es_depacketiser import (
    AacDepacketiser,
    AudioDepacketiser,
    H264Depacketiser,
    H265Depacketiser,
    make_demuxer,
)
from gb28181gw.media.wire.exceptions import UnsupportedPayloadError
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.ps_mux import PsMuxer
from gb28181gw.media.wire.video import MAX_UNIT
from tests.support import media, native_codecs
from tests.support.native_codecs import AAC, CLIPS, PCMA, SYNTAX, Pair

codecs = native_codecs.load()

FAST = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, (1 << 64) - 1)
BYTES = st.lists(st.one_of(st.sampled_from(SYNTAX), st.binary(max_size=40)), max_size=60).map(b"".join)


def ps_pair(max_unit: int = MAX_UNIT) -> Pair:
    return Pair(PsDemuxer(max_unit=max_unit), codecs.ps_demuxer(max_unit, aac.DEFAULT_CONFIG))


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("audio", [(), PCMA, AAC])
@pytest.mark.parametrize("size", [1, 100, 1400, 70000])
def test_proper_program_streams(clip, audio, size) -> None:
    frames = media.interleave(clip, audio)
    pair = ps_pair()
    now = 0.0
    for pack, frame in zip(media.ps_stream(frames), frames, strict=True):
        for place in range(0, len(pack), size):
            now += 0.0001
            pair.feed(pack[place : place + size], frame.dts_90k, place + size >= len(pack), now)
    pair.finish()
    assert len(pair.units) >= len(frames) - 1


@FAST
@given(SEEDS)
def test_program_streams_of_rare_things(seed: int) -> None:
    rng = random.Random(seed)
    pair = ps_pair(rng.choice((MAX_UNIT, MAX_UNIT, 3000, 200)))
    if rng.random() < 0.1:
        clip = rng.choice(CLIPS)
        pair.oracle.preset(clip[0].track.codec, clip[0].track.parameter_sets)
        pair.native.preset(str(clip[0].track.codec), list(clip[0].track.parameter_sets))
    native_codecs.feed_pair(rng, pair, native_codecs.program_stream(rng, rng.choice((3, 20, 60))))


@pytest.mark.parametrize("size", [1, 7, 1400, 1 << 20])
def test_which_of_two_video_streams_is_given_out_does_not_depend_on_the_cuts(size: int) -> None:
    stream = b"".join(
        media.ps_stream(media.interleave(CLIPS[0], PCMA), PsMuxer(audio=Codec.PCMA, unbounded_pes=True))
    )
    stream = stream[:100] + b"\xe1\x1a3\x80" + stream[100:]
    whole, pair = ps_pair(), ps_pair()
    whole.feed(stream, 0, False, 0.0)
    for place in range(0, len(stream), size):
        pair.feed(stream[place : place + size], 0, False, 0.0)
    assert [unit.payload for unit in pair.units] == [unit.payload for unit in whole.units]
    assert {unit.stream_id for unit in pair.units if unit.track.kind is TrackKind.VIDEO} == {0xE1}


@FAST
@given(SEEDS)
def test_damaged_program_streams(seed: int) -> None:
    rng = random.Random(seed)
    data = native_codecs.program_stream(rng, rng.choice((5, 30)))
    native_codecs.feed_pair(rng, ps_pair(), native_codecs.damage(rng, data, rng.choice((1, 5, 40))))


@FAST
@given(BYTES, SEEDS)
def test_syntax_in_any_order(data: bytes, seed: int) -> None:
    native_codecs.feed_pair(random.Random(seed), ps_pair(), data)


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_long_streams(seed: int) -> None:
    """Long enough for what is learnt: markers, rates, encryption, missing parameter sets."""
    rng = random.Random(seed)
    native_codecs.feed_pair(rng, ps_pair(), native_codecs.program_stream(rng, 400))


@FAST
@given(SEEDS)
def test_h264_in_rtp(seed: int) -> None:
    rng = random.Random(seed)
    pair = Pair(H264Depacketiser(96), codecs.h264_depacketiser(96, MAX_UNIT))
    native_codecs.feed_elementary(rng, pair, native_codecs.payloads_h264, rng.choice((5, 40, 80)))


@FAST
@given(SEEDS)
def test_h265_in_rtp(seed: int) -> None:
    rng = random.Random(seed)
    pair = Pair(H265Depacketiser(96), codecs.h265_depacketiser(96, MAX_UNIT))
    native_codecs.feed_elementary(rng, pair, native_codecs.payloads_h265, rng.choice((5, 40, 80)))


@FAST
@given(st.lists(BYTES, max_size=12), st.sampled_from(["h264", "h265"]))
def test_any_payload_as_elementary_video(payloads: list[bytes], kind: str) -> None:
    if kind == "h264":
        pair = Pair(H264Depacketiser(98), codecs.h264_depacketiser(98, MAX_UNIT))
    else:
        pair = Pair(H265Depacketiser(98), codecs.h265_depacketiser(98, MAX_UNIT))
    for number, payload in enumerate(payloads):
        pair.feed(payload, number * 3600, number % 2 == 1, number / 25)
    pair.finish()


@FAST
@given(SEEDS, st.sampled_from([Codec.PCMA, Codec.PCMU, Codec.G722_1, Codec.G723_1, Codec.G729, Codec.SVACA]))
def test_audio_in_rtp(seed: int, codec: Codec) -> None:
    rng = random.Random(seed)
    rate = rng.choice((8000, 16000))
    pair = Pair(AudioDepacketiser(8, codec, rate), codecs.audio_depacketiser(8, str(codec), rate))
    timestamp = rng.randrange(1 << 32)
    for number in range(rng.randrange(1, 80)):
        timestamp = (timestamp + rng.choice((320, 320, 0, 100000, (1 << 32) - 320))) % (1 << 32)
        kind = rng.random()
        if kind < 0.7:
            payload = PCMA[number % len(PCMA)].payload
        elif kind < 0.85:
            payload = native_codecs.adts(AAC[number % len(AAC)].payload) * rng.choice((1, 2, 3))
        else:
            payload = rng.randbytes(rng.randrange(60))
        if rng.random() < 0.03:
            pair.gap()
        pair.feed(payload, rng.choice((timestamp, timestamp, None)), number == 0, number / 25)
    pair.finish()


@FAST
@given(SEEDS)
def test_aac_in_rtp(seed: int) -> None:
    rng = random.Random(seed)
    config = rng.choice((aac.DEFAULT_CONFIG, b"\x12\x10", bytes.fromhex("17805dc008")))
    pair = Pair(AacDepacketiser(97, config=config), codecs.aac_depacketiser(97, config, 0))
    timestamp = 0
    for number in range(rng.randrange(1, 40)):
        timestamp = (timestamp + 1024) % (1 << 32)
        sample = AAC[number % len(AAC)].payload
        kind = rng.random()
        head = b"\x00\x10" + (len(sample) << 3).to_bytes(2, "big")
        if kind < 0.4:
            payloads = [head + sample]
        elif kind < 0.7:
            cut = rng.randrange(len(sample) + 1)
            payloads = [head + sample[:cut], head + sample[cut:]]
        elif kind < 0.8:
            payloads = [native_codecs.adts(sample)]
        elif kind < 0.9:
            both = b"".join((len(sample) << 3).to_bytes(2, "big") for _ in range(2))
            payloads = [b"\x00\x20" + both + sample * 2]
        else:
            payloads = [native_codecs.damage(rng, head + sample, 2)]
        for payload in payloads:
            if rng.random() < 0.03:
                pair.gap()
                continue
            pair.feed(payload, timestamp, True, number / 8)
    pair.finish()


@pytest.mark.parametrize(
    "encoding",
    [
        "PS",
        "H264",
        "h265",
        "HEVC",
        "PCMA",
        "PCMU",
        "G723",
        "G729",
        "G722",
        "SVACA",
        "AAC",
        "mpeg4-generic",
        "MP4V-ES",
        "MPEG4",
        "SVAC",
        "X-VENDOR",
        "",
    ],
)
@pytest.mark.parametrize(
    "first",
    [b"", b"\x00\x00\x01\xba", b"\x47" + bytes(187), (b"\x47" + bytes(187)) * 7, b"\x67\x42", b"\xd5"],
)
def test_choice_of_reader(encoding: str, first: bytes) -> None:
    found = codecs.make_demuxer(encoding, 96, first)
    try:
        expected = type(make_demuxer(encoding, 96, first)).__name__
    except UnsupportedPayloadError:
        assert found is None
    else:
        assert found.kind == expected
