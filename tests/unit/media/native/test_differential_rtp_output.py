"""Muxer of program streams and packetisers of the native plane against the Python ones."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.media.wire.es_packetiser import EsPacketiser
from gb28181gw.media.wire.exceptions import ParameterSetError
from gb28181gw.media.wire.ps_mux import MapPolicy, PsMuxer
from gb28181gw.media.wire.rtp import RtpPacket, RtpPacketiser
from tests.support import native_codecs
from tests.support.native_codecs import AAC, H264, H265, frame_of

codecs = native_codecs.load()

FAST = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, (1 << 64) - 1)

_VIDEO = [H264[0].track, H265[0].track, Track(kind=TrackKind.VIDEO, codec=Codec.SVAC)]
_AUDIO = [
    AAC[0].track,
    replace(AAC[0].track, parameter_sets=()),
    replace(AAC[0].track, parameter_sets=(b"\x57\x80\x12\x34\x08",)),
    Track(kind=TrackKind.AUDIO, codec=Codec.PCMA, sample_rate=8000, channels=1),
    Track(kind=TrackKind.AUDIO, codec=Codec.PCMU, sample_rate=16000, channels=1),
    Track(kind=TrackKind.AUDIO, codec=Codec.G729, sample_rate=8000, channels=1),
]
_SIZES = (0, 1, 159, 160, 161, 320, 1399, 1400, 1401, 1402, 2800, 8184, 8185, 64_999, 65_000, 65_001, 140_000)


def _time(rng: random.Random) -> int:
    return rng.choice(
        (0, rng.randrange(1 << 20), rng.randrange(1 << 34), (1 << 33) - 1, -rng.randrange(1 << 20))
    )


def _annexb(rng: random.Random) -> bytes:
    units = [rng.randbytes(1) + b"\x01" + b"\x55" * rng.choice(_SIZES) for _ in range(rng.randrange(1, 5))]
    return native_codecs.annexb(rng, units, rng.randrange(3))


@FAST
@given(SEEDS)
def test_ps_muxer(seed: int) -> None:
    rng = random.Random(seed)
    tracks = native_codecs.Tracks(codecs)
    video, audio = rng.choice((*_VIDEO, None)), rng.choice((*_AUDIO, None))
    names = [track.codec.value if track is not None else None for track in (video, audio)]
    native = codecs.PsMuxer(*names)
    for _ in range(8):
        track = rng.choice([track for track in (video, audio) if track is not None] or _VIDEO)
        pts, payload = _time(rng), rng.randbytes(4) * (rng.choice(_SIZES) // 4 + 1)
        payload = payload[: rng.choice(_SIZES)]
        dts = rng.choice((pts, pts, pts - 3600))
        key, with_map = rng.random() < 0.4, rng.random() < 0.2
        head = rng.choice((b"", b"\0\0\0\1\x67head")) if track.codec.is_video else b""
        oracle = PsMuxer(
            video=video.codec if video else None,
            audio=audio.codec if audio else None,
            map_policy=MapPolicy.ALWAYS if with_map else MapPolicy.KEY,
        )
        try:
            expected = oracle.mux(frame_of(track, pts, dts, key, head + payload))
        except (ParameterSetError, ValueError):
            expected = b""
        assert native.mux(tracks.native(track), pts, dts, key, payload, head, with_map) == expected


@FAST
@given(SEEDS)
def test_es_packetiser(seed: int) -> None:
    rng = random.Random(seed)
    tracks = native_codecs.Tracks(codecs)
    track = rng.choice([track for track in _VIDEO + _AUDIO if track.codec not in (Codec.SVAC, Codec.G729)])
    native = codecs.EsPacketiser()
    oracle = EsPacketiser(track.codec, ssrc=1, payload_type=96)
    for _ in range(6):
        pts, head = _time(rng), b""
        payload = _annexb(rng) if track.codec.is_video else rng.randbytes(1) * rng.choice(_SIZES[:12])
        if track.codec.is_video and rng.random() < 0.3:
            head = b"\0\0\0\1\x67\x42\0\0\0\1\x68\xce"
        expected = [
            RtpPacket.parse(data)
            for data in oracle.packetise(frame_of(track, pts, pts, True, head + payload))
        ]
        assert native.packetise(tracks.native(track), pts, payload, head) == [
            (packet.timestamp, packet.marker, packet.payload) for packet in expected
        ]


@FAST
@given(st.binary(max_size=20), st.sampled_from(_SIZES), st.integers(0, (1 << 32) - 1))
def test_pieces_of_a_pack(fill: bytes, size: int, timestamp: int) -> None:
    data = (fill or b"x") * (size // max(1, len(fill)) + 1)
    expected = [RtpPacket.parse(packet) for packet in RtpPacketiser(ssrc=1).packetise(data[:size], timestamp)]
    assert codecs.cut(data[:size], timestamp) == [(p.timestamp, p.marker, p.payload) for p in expected]
