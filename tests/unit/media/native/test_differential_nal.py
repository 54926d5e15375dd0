"""Parameter sets, start codes and picture order of the native plane against the Python ones."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.exceptions import ParameterSetError
from gb28181gw.media.wire.picture_order import PictureOrder
from tests.support import media, native_codecs
from tests.support.native_codecs import CLIPS, SYNTAX

codecs = native_codecs.load()

FAST = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, (1 << 64) - 1)
BYTES = st.lists(st.one_of(st.sampled_from(SYNTAX), st.binary(max_size=40)), max_size=30).map(b"".join)


@FAST
@given(st.lists(st.sampled_from([b"\x00", b"\x00\x00\x01", b"\x01", b"\xff" * 15, b"\x02"])).map(b"".join))
def test_start_codes(data: bytes) -> None:
    for start in range(len(data) + 2):
        assert codecs.find_start_code(data, start) == data.find(b"\x00\x00\x01", start)


@FAST
@given(st.lists(st.sampled_from([b"\x00", b"\x03", b"\x00\x00\x03", b"\x01"]), max_size=40).map(b"".join))
def test_emulation_prevention(data: bytes) -> None:
    assert codecs.unescape(data) == nal.unescape(data)


def _facts(info: nal.SequenceInfo) -> tuple[object, ...]:
    return (
        str(info.codec),
        info.sps_id,
        info.width,
        info.height,
        info.fps,
        info.profile_idc,
        info.level_idc,
        info.chroma_format_idc,
        info.bit_depth_luma,
        info.bit_depth_chroma,
        info.frame_mbs_only,
        info.frame_num_bits,
        info.separate_colour_planes,
        info.max_sub_layers,
        info.temporal_id_nesting,
        info.reorder_pictures,
        info.order_bits,
    )


def _compare_sps(codec: Codec, unit: bytes) -> bool:
    found = codecs.parse_sps(str(codec), unit)
    try:
        expected = nal.parse_sps(codec, unit)
    except ParameterSetError:
        assert found is None
        return False
    assert found == _facts(expected)
    return True


def _random_sps(rng: random.Random, codec: Codec) -> bytes:
    """A sequence parameter set of plausible beginnings and random bits."""
    bits = media.BitWriter()
    if codec is Codec.H264:
        profile = rng.choice((66, 77, 88, 100, 110, 122, 244, 44, 118))
        bits.u(profile, 8).u(rng.randrange(256), 8).u(rng.choice((31, 40)), 8).ue(
            rng.choice((0, 0, 1, 31, 32))
        )
        if profile in (100, 110, 122, 244, 44, 118):
            chroma = rng.choice((1, 1, 0, 2, 3, 4, 300))
            bits.ue(chroma)
            if chroma == 3:
                bits.u(rng.randrange(2), 1)
            bits.ue(rng.choice((0, 2, 300))).ue(0).u(0, 1)
            scaling = rng.random() < 0.2
            bits.u(scaling, 1)
            if scaling:
                for _ in range(40):
                    bits.ue(rng.randrange(6))
        bits.ue(rng.choice((0, 4, 12, 60)))
        order = rng.choice((0, 0, 1, 2, 3))
        bits.ue(order)
        if order == 0:
            bits.ue(rng.choice((0, 4, 12, 13)))
        elif order == 1:
            bits.u(0, 1).ue(3).ue(4).ue(2).ue(1).ue(1)
        bits.ue(4).u(0, 1).ue(rng.randrange(130)).ue(rng.randrange(100))
        frames = rng.random() < 0.8
        bits.u(frames, 1)
        if not frames:
            bits.u(0, 1)
        bits.u(1, 1)
        crop = rng.random() < 0.5
        bits.u(crop, 1)
        if crop:
            for _ in range(4):
                bits.ue(rng.randrange(5))
        head = b"\x67"
    else:
        layers = rng.choice((0, 0, 1, 2, 7))
        bits.u(0, 4).u(layers, 3).u(1, 1).u(0, 3).u(1, 5).u(rng.getrandbits(80), 80).u(93, 8)
        for _ in range(layers):
            bits.u(0, 2)
        if layers:
            bits.u(0, 2 * (8 - layers))
        chroma = rng.choice((1, 1, 0, 2, 3, 4))
        bits.ue(rng.choice((0, 0, 3, 16))).ue(chroma)
        if chroma == 3:
            bits.u(1, 1)
        bits.ue(rng.choice((1920, 64, 20000))).ue(rng.choice((1080, 48)))
        window = rng.random() < 0.5
        bits.u(window, 1)
        if window:
            for _ in range(4):
                bits.ue(rng.randrange(5))
        bits.ue(rng.choice((0, 2, 9))).ue(0).ue(rng.choice((4, 12, 13))).u(rng.randrange(2), 1)
        for _ in range(3):
            bits.ue(rng.randrange(5))
        for _ in range(6):
            bits.ue(rng.randrange(3))
        head = b"\x42\x01"
    # The rest by chance, with a bias to what ends early codes.
    for _ in range(rng.randrange(40)):
        if rng.random() < 0.6:
            bits.u(rng.randrange(2), 1)
        else:
            bits.ue(rng.randrange(40))
    if rng.random() < 0.3:
        bits.u(rng.getrandbits(64), 64)
    return head + bits.rbsp()


@FAST
@given(SEEDS)
def test_parameter_sets_of_many_kinds(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        codec = rng.choice((Codec.H264, Codec.H265))
        _compare_sps(codec, _random_sps(rng, codec))


@FAST
@given(SEEDS)
def test_damaged_parameter_sets(seed: int) -> None:
    rng = random.Random(seed)
    for clip in CLIPS:
        for unit in clip[0].track.parameter_sets:
            _compare_sps(clip[0].track.codec, native_codecs.damage(rng, unit, 1))
            _compare_sps(clip[0].track.codec, unit[: rng.randrange(len(unit) + 1)])


def test_real_parameter_sets() -> None:
    for clip in CLIPS:
        codec = clip[0].track.codec
        kind = nal.H264_SPS if codec is Codec.H264 else nal.H265_SPS
        for unit in clip[0].track.parameter_sets:
            assert _compare_sps(codec, unit) == (nal.nal_type(codec, unit) == kind)


@FAST
@given(SEEDS)
def test_decoder_configurations(seed: int) -> None:
    rng = random.Random(seed)
    codec = rng.choice((Codec.H264, Codec.H265))
    pool = [unit for clip in CLIPS for unit in clip[0].track.parameter_sets]
    pool += [_random_sps(rng, codec), media.H264_PPS, b"\x44\x01\xc1\x72"]
    sets = [rng.choice(pool) for _ in range(rng.randrange(6))]
    build = nal.avcc if codec is Codec.H264 else nal.hvcc
    try:
        expected = build(tuple(sets))
    except ParameterSetError:
        expected = b""
    assert codecs.configuration(str(codec), sets) == expected


@FAST
@given(BYTES)
def test_payload_is_named(data: bytes) -> None:
    assert codecs.sniff_payload(data) == nal.sniff_payload(data)
    packets = b"\x47" + data[:187].ljust(187, b"\x00")
    assert codecs.sniff_payload(packets * 3) == nal.sniff_payload(packets * 3)


@FAST
@given(SEEDS)
def test_picture_order(seed: int) -> None:
    rng = random.Random(seed)
    tracks = native_codecs.Tracks(codecs)
    clip = rng.choice(CLIPS)
    track = clip[0].track
    if rng.random() < 0.3:
        codec = track.codec
        pps = b"\x68\xce\x0f\xc8" if codec is Codec.H264 else b"\x44\x01" + rng.randbytes(6)
        track = Track(kind=TrackKind.VIDEO, codec=codec, parameter_sets=(_random_sps(rng, codec), pps))
    order = PictureOrder(track)
    for _ in range(10):
        earlier, later = rng.choice(clip).payload, rng.choice(clip).payload
        if rng.random() < 0.3:
            later = native_codecs.damage(rng, later[:200], 3)
        assert codecs.frames_between(tracks.native(track), earlier, later) == order.frames_between(
            earlier, later
        )
