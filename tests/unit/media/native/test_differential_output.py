"""Stream clock and container writers of the native plane against the Python ones."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.media.wire.clock import StreamClock
from gb28181gw.media.wire.flv import FlvMuxer
from gb28181gw.media.wire.fmp4 import Fmp4Muxer
from gb28181gw.media.wire.ts_mux import TsMuxer
from gb28181gw.media.wire.units import EsUnit
from tests.support import native_codecs
from tests.support.native_codecs import AAC, CLIPS, H264, H264_B, H265, PCMA, frame_of

codecs = native_codecs.load()

FAST = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, (1 << 64) - 1)

_VIDEO = [clip[0].track for clip in CLIPS]
_VIDEO += [replace(track, fps=0.0) for track in _VIDEO]
_VIDEO.append(Track(kind=TrackKind.VIDEO, codec=Codec.SVAC))
_AUDIO = [
    PCMA[0].track,
    AAC[0].track,
    Track(kind=TrackKind.AUDIO, codec=Codec.G729, sample_rate=8000, channels=1),
    Track(kind=TrackKind.AUDIO, codec=Codec.PCMU, sample_rate=8000, channels=1),
]


def _units(rng: random.Random, count: int) -> list[EsUnit]:
    """What a device may say about its times: jumps, stalls, wraps, reordering, nothing at all."""
    video, audio = rng.choice(_VIDEO), rng.choice(_AUDIO)
    clip = {Codec.H264: rng.choice((H264, H264_B)), Codec.H265: H265}.get(video.codec, H264)
    with_audio = rng.random() < 0.6
    stamps = native_codecs.times(rng, count)
    sound = rng.choice((stamps[0][0] or 0, rng.randrange(1 << 33)))
    timestamp = rng.randrange(1 << 32)
    ticking = rng.choice((3600, 3600, 0, 40))
    arrival = rng.choice((0.0, 1000.0))
    units = []
    for number in range(count):
        arrival += rng.choice((0.04, 0.04, 0.0, 0.05)) + (
            rng.choice((0.5, 5.0)) if rng.random() < 0.02 else 0
        )
        timestamp = (timestamp + ticking) % (1 << 32)
        if rng.random() < 0.03:
            video = rng.choice([track for track in _VIDEO if track.codec is video.codec])
        pts, dts = stamps[number]
        frame = clip[number % len(clip)]
        units.append(
            EsUnit(
                track=video,
                stream_id=0xE0,
                pts_90k=pts,
                dts_90k=dts,
                key=frame.key,
                payload=frame.payload,
                rtp_timestamp=rng.choice((timestamp, timestamp, timestamp, None)),
                arrival=arrival,
            )
        )
        if with_audio and rng.random() < 0.9:
            sound = (sound + rng.choice((3600, 3600, 3600, 3590, 0))) % (1 << 33)
            units.append(
                EsUnit(
                    track=audio,
                    stream_id=0xC0,
                    pts_90k=rng.choice((sound, sound, None)),
                    dts_90k=None,
                    key=True,
                    payload=PCMA[number % len(PCMA)].payload,
                    rtp_timestamp=timestamp,
                    arrival=arrival,
                )
            )
    return units


@FAST
@given(SEEDS)
def test_stream_clock(seed: int) -> None:
    rng = random.Random(seed)
    rate = rng.choice((90000, 90000, 8000))
    oracle, native = StreamClock(rtp_clock=rate), codecs.StreamClock(rate)
    tracks = native_codecs.Tracks(codecs)
    for unit in _units(rng, rng.choice((10, 100, 300))):
        if rng.random() < 0.005:
            oracle.restart()
            native.restart()
        assert native.stamp(
            tracks.native(unit.track),
            unit.pts_90k,
            unit.dts_90k,
            unit.key,
            unit.payload,
            unit.rtp_timestamp,
            unit.arrival,
        ) == oracle.stamp(unit)
    assert native.state == (oracle.rebased, oracle.interpolated, oracle.quirks)


@FAST
@given(SEEDS)
def test_flv(seed: int) -> None:
    rng = random.Random(seed)
    hevc = rng.choice(("enhanced", "legacy"))
    base = rng.choice((None, 0, 90000, -500))
    oracle, native = FlvMuxer(hevc=hevc, base_90k=base), codecs.FlvMuxer(hevc, base)
    tracks = native_codecs.Tracks(codecs)
    known = [track for track in (rng.choice(_VIDEO), rng.choice(_AUDIO)) if rng.random() < 0.8]
    pts = rng.choice((None, 0, 123456))
    twins = [tracks.native(track) for track in known]
    assert native.header(twins, pts) == oracle.header(known, pts_90k=pts)
    clip = rng.choice(CLIPS)
    time = rng.choice((0, 90 << 32, 1 << 40))
    for number in range(rng.randrange(30)):
        time += rng.choice((3600, 1, 90000))
        if rng.random() < 0.3:
            frame = rng.choice((PCMA, AAC))[number % 8]
            track = rng.choice((frame.track, rng.choice(_AUDIO)))
        else:
            frame = clip[number % len(clip)]
            track = rng.choice((frame.track, replace(frame.track), rng.choice(_VIDEO)))
        payload = frame.payload
        if rng.random() < 0.1:
            payload = native_codecs.damage(rng, payload, 3)
        shown = time + rng.choice((0, 0, 3600, -100, -90000))
        made = oracle.mux(frame_of(track, shown, time, frame.key, payload))
        assert native.mux(tracks.native(track), shown, time, frame.key, payload) == made
    for track in known:
        assert native.sequence_header(tracks.native(track), 77) == oracle.sequence_header(track, 77)


@pytest.mark.parametrize("muxer", [Fmp4Muxer, TsMuxer])
@FAST
@given(SEEDS)
def test_fmp4_and_ts(muxer: type[Fmp4Muxer] | type[TsMuxer], seed: int) -> None:
    rng = random.Random(seed)
    base = rng.choice((None, 0, 90000, -500))
    known = [
        track for track in (rng.choice(_VIDEO), rng.choice(_AUDIO), rng.choice(_AUDIO)) if rng.random() < 0.8
    ]
    tracks = native_codecs.Tracks(codecs)
    oracle = muxer(known, base_90k=base)
    native = getattr(codecs, muxer.__name__)([tracks.native(track) for track in known], base)
    clip = rng.choice([clip for clip in CLIPS if not known or clip[0].track.codec is known[0].codec] or CLIPS)
    time = rng.choice((0, 0, 90 << 32, 1 << 40))
    for number in range(rng.randrange(40)):
        time += rng.choice((3600, 3600, 3600, 1, 0, 90000, -40))
        if rng.random() < 0.3:
            frame = rng.choice((PCMA, AAC))[number % 8]
            track = rng.choice((frame.track, frame.track, rng.choice(_AUDIO)))
        else:
            frame = clip[number % len(clip)]
            others = [track for track in _VIDEO if track.codec is frame.track.codec or rng.random() < 0.1]
            track = rng.choice((frame.track, frame.track, replace(frame.track), rng.choice(others)))
        payload = frame.payload
        kind = rng.random()
        if kind < 0.1:
            payload = native_codecs.damage(rng, payload, 3)
        elif kind < 0.4:
            payload = payload[: rng.randrange(400)]  # every way to fill a last packet
        elif kind < 0.5 and track.kind is TrackKind.VIDEO and track.parameter_sets:
            aud = b"\x00\x00\x00\x01\x09\xf0" if track.codec is Codec.H264 else b"\x00\x00\x01\x46\x01\x50"
            slices = payload[payload.rfind(b"\x00\x00\x01") :]
            payload = rng.choice((b"", aud)) + slices  # key frames without their sets
        shown = time + rng.choice((0, 0, 3600, -100, -90000))
        made = oracle.mux(frame_of(track, shown, time, frame.key, payload))
        assert native.mux(tracks.native(track), shown, time, frame.key, payload) == made
        if rng.random() < 0.1:
            assert native.configuration() == oracle.configuration()
    twins = [tracks.native(track) for track in known]
    assert (native.stale, native.fits(twins)) == (oracle.stale, oracle.fits(known))
    assert native.header() == oracle.header()
