"""Whatever a device sends: codecs raise what they document and nothing else, demuxers never, buffers stay bounded."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import aac, nal, rtcp
from gb28181gw.media.wire.clock import StreamClock
from gb28181gw.media.wire.es_depacketiser import (
    AacDepacketiser,
    AudioDepacketiser,
    EsDepacketiser,
    H264Depacketiser,
    H265Depacketiser,
    make_demuxer,
)
from gb28181gw.media.wire.exceptions import (
    FramingError,
    ParameterSetError,
    RtpError,
    UnsupportedPayloadError,
)
from gb28181gw.media.wire.flv import FlvMuxer, length_prefixed
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.ps_mux import MapPolicy, PsMuxer
from gb28181gw.media.wire.reception import ReceptionStatistics
from gb28181gw.media.wire.reorder import Gap, ReorderBuffer
from gb28181gw.media.wire.rfc4571 import Framer, frame
from gb28181gw.media.wire.rtp import RtpPacket, RtpPacketiser, is_rtcp
from gb28181gw.media.wire.units import EsUnit
from tests.support.media import audio_clip, interleave, ps_stream, video_clip

FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

H264 = video_clip(Codec.H264, width=160, height=128, frames=20, gop=5)
H265 = video_clip(Codec.H265, width=160, height=128, frames=20, gop=5)
MIXED = interleave(H264, audio_clip(Codec.PCMA, packets=20))
MIXED_AAC = interleave(H265, audio_clip(Codec.AAC, packets=7))

# Bytes that mean something to these readers, so that chance goes further than the first check.
SYNTAX = st.sampled_from(
    [
        b"\x00\x00\x01\xba",
        b"\x00\x00\x01\xba\x44\x00\x04\x00\x04\x01\x00\x00\x03\xf8",
        b"\x00\x00\x01\xbb\x00\x06",
        b"\x00\x00\x01\xbc\x00\x0e\xe0\xff\x00\x00\x00\x04\x1b\xe0\x00\x00\x00\x00\x00\x00",
        b"\x00\x00\x01\xbc",
        b"\x00\x00\x01\xbd\x00\x08",
        b"\x00\x00\x01\xe0\x00\x00\x80\x80\x05\x21\x00\x01\x00\x01",
        b"\x00\x00\x01\xe0\x00\x20\x80\xc0\x0a",
        b"\x00\x00\x01\xc0\x00\x10\x80\x00\x00",
        b"\x00\x00\x01\xe0",
        b"\x00\x00\x01",
        b"\x00\x00\x00\x01\x67\x42\xc0\x0d\xda\x05\x07\xe8\x40",
        b"\x00\x00\x00\x01\x68\xce\x0f\xc8",
        b"\x00\x00\x00\x01\x65\x88",
        b"\x00\x00\x00\x01\x41\x9a",
        b"\x00\x00\x00\x01\x42\x01\x01",
        b"\x00\x00\x00\x01\x26\x01\xaf",
        b"\xff\xf1\x6c\x40\x02\x1f\xfc",
        b"\x00\x00",
        b"\xff\xff",
    ]
)
BYTES = st.lists(st.one_of(SYNTAX, st.binary(max_size=40)), max_size=60).map(b"".join)
CUTS = st.lists(st.integers(1, 3000), min_size=1, max_size=30)


def _pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` cut at the given distances, over and over."""
    out = []
    position = number = 0
    while position < len(data):
        step = cuts[number % len(cuts)]
        out.append(data[position : position + step])
        position += step
        number += 1
    return out


def _facts(units: Sequence[EsUnit]) -> list[tuple[object, ...]]:
    return [
        (unit.codec, unit.stream_id, unit.pts_90k, unit.dts_90k, unit.key, unit.damaged, unit.payload)
        for unit in units
    ]


def _by_kind(units: Sequence[EsUnit]) -> list[list[tuple[object, ...]]]:
    return [_facts([unit for unit in units if unit.kind is kind]) for kind in TrackKind]


@FAST
@given(st.binary(max_size=60))
def test_rtp_reader(data: bytes) -> None:
    with contextlib.suppress(RtpError):
        packet = RtpPacket.parse(data)
        assert RtpPacket.parse(packet.serialise()) == packet
    assert is_rtcp(data) in (True, False)


@FAST
@given(
    st.lists(
        st.tuples(st.integers(0x80, 0xBF), st.integers(198, 206), st.binary(max_size=60)).map(
            lambda t: bytes(t[:2]) + (len(t[2]) // 4).to_bytes(2, "big") + t[2][: len(t[2]) // 4 * 4]
        ),
        max_size=4,
    ).map(b"".join)
    | st.binary(max_size=60)
)
def test_rtcp_reader(data: bytes) -> None:
    with contextlib.suppress(RtpError):
        assert isinstance(rtcp.parse(data), list)


@FAST
@given(BYTES)
def test_parameter_set_readers(data: bytes) -> None:
    for unit in nal.split_annexb(data):
        assert unit
        assert b"\x00\x00\x01" not in unit
        for codec in (Codec.H264, Codec.H265):
            with contextlib.suppress(ParameterSetError):
                info = nal.parse_sps(codec, unit)
                assert 0 < info.width <= nal.MAX_DIMENSION
                assert 0 < info.height <= nal.MAX_DIMENSION
        nal.probe_sps(unit)
    for build in (nal.avcc, nal.hvcc):
        with contextlib.suppress(ParameterSetError):
            assert build(tuple(nal.split_annexb(data)))[0] == 1
    assert nal.sniff_payload(data) in ("PS", "TS", "ES")


@FAST
@given(st.integers(0, 30), st.binary(max_size=8), st.data())
def test_parameter_set_readers_on_damaged_ones(place: int, patch: bytes, data: st.DataObject) -> None:
    clip = data.draw(st.sampled_from([H264, H265]))
    for unit in clip[0].track.parameter_sets:
        broken = unit[:place] + patch + unit[place + len(patch) :]
        with contextlib.suppress(ParameterSetError):
            nal.parse_sps(clip[0].track.codec, broken)


@FAST
@given(st.binary(max_size=80))
def test_aac_readers(data: bytes) -> None:
    header = aac.parse_adts(data)
    assert header is None or header.frame_size > header.header_size
    aac.is_adts_chain(data)
    units = aac.split_au_headers(data)
    assert units is None or sum(map(len, units)) == len(data) - 2 - 2 * len(units)
    with contextlib.suppress(ParameterSetError):
        aac.parse_audio_specific_config(data)


@FAST
@given(BYTES, CUTS)
def test_framer_raises_framing_error_only(data: bytes, cuts: list[int]) -> None:
    framer = Framer()
    with contextlib.suppress(FramingError):
        for piece in _pieces(data * 20, cuts):
            for packet in framer.feed(piece):
                assert packet is None or packet[0] >> 6 == 2
            assert framer.buffered < 66_000 + 3000


@FAST
@given(st.lists(st.integers(0, 1500), min_size=1, max_size=12), CUTS, st.booleans())
def test_framer_returns_what_was_framed(sizes: list[int], cuts: list[int], interleaved: bool) -> None:
    packets = [RtpPacket(96, n, n, 77, b"\x55" * size).serialise() for n, size in enumerate(sizes)]
    lead = b"\x24\x00" if interleaved else b""
    stream = b"".join(lead + frame(packet) for packet in packets)
    framer = Framer()
    out = [packet for piece in _pieces(stream, cuts) for packet in framer.feed(piece)]
    # The dialect is told from 16 bytes; one short packet alone stays in the buffer.
    assert out == packets or len(stream) < 16


@FAST
@given(st.lists(st.tuples(st.integers(0, 65535), st.floats(0, 3)), max_size=80))
def test_reorder_buffer_keeps_its_promises(arrivals: list[tuple[int, float]]) -> None:
    buffer, statistics = ReorderBuffer(), ReceptionStatistics()
    now = 0.0
    out: list[RtpPacket | Gap] = []
    for number, pause in arrivals:
        now += pause
        packet = RtpPacket(96, number, 0, 1, b"")
        out += buffer.push(packet, now)
        out += buffer.poll(now)
        statistics.update(number, 0, now)
        assert buffer.held <= 512
        assert 0.2 <= buffer.window_s <= 0.5
        assert 0 <= statistics.report_block(1, now).fraction_lost <= 255
    out += buffer.flush()
    expected: int | None = None
    for item in out:
        if isinstance(item, Gap):
            expected = None if item.restart or expected is None else (expected + item.lost) % 65536
        else:
            assert expected is None or item.sequence_number == expected
            expected = (item.sequence_number + 1) % 65536


@FAST
@given(BYTES, CUTS, st.data())
def test_demuxer_never_raises(data: bytes, cuts: list[int], draw: st.DataObject) -> None:
    demuxer = PsDemuxer(max_unit=20_000)
    prefix = b"".join(ps_stream(MIXED)[:2]) if draw.draw(st.booleans()) else b""
    now = 0.0
    for number, piece in enumerate(_pieces(prefix + data, cuts)):
        now += 0.01
        if number % 7 == 3 and draw.draw(st.booleans()):
            demuxer.gap()
        for unit in demuxer.feed(piece, number, number % 3 == 0, now) + demuxer.flush_after(now):
            assert unit.payload
            assert len(unit.payload) <= 20_000 or unit.kind is TrackKind.AUDIO
    demuxer.flush()
    assert all(count > 0 for count in demuxer.quirks.values())


Edit = tuple[int, int, bytes]
EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 60), st.one_of(SYNTAX, st.binary(max_size=30))),
    max_size=6,
)


def _edit(stream: bytes, edits: Sequence[Edit]) -> bytes:
    """Overwrite, insert and delete."""
    for place, removed, added in edits:
        start = place % len(stream)
        stream = stream[:start] + added + stream[start + removed :]
    return stream


@SLOW
@given(EDITS, st.sampled_from(["h264", "h265"]), CUTS)
def test_demuxer_recovers_from_any_damage(edits: list[Edit], name: str, cuts: list[int]) -> None:
    """After the damage a clean stream is read whole again, at the latest from its second key frame on."""
    clip = H264 if name == "h264" else H265
    damaged = _edit(b"".join(ps_stream(clip)), edits)
    # A header may have been given a length of 64 kB: that much may be swallowed.
    clean = b"".join(ps_stream(clip)) * (70_000 // sum(len(f.payload) for f in clip) + 3)
    demuxer = PsDemuxer()
    units = [unit for piece in _pieces(damaged + clean, cuts) for unit in demuxer.feed(piece)]
    units += demuxer.flush()
    assert [unit.payload for unit in units][-20:] == [frame.payload for frame in clip]
    assert not any(unit.damaged for unit in units[-20:])


@SLOW
@given(EDITS, CUTS, st.sampled_from(["pcma", "aac"]), st.sampled_from(MapPolicy), st.booleans())
@example(
    [(100, 0, b"\xe1\x1a3\x80")], [1], "pcma", MapPolicy.KEY, True
)  # a second video stream, for one picture
def test_the_cut_does_not_matter(
    edits: list[Edit], cuts: list[int], sound: str, policy: MapPolicy, unbounded: bool
) -> None:
    """The same units for any cut of the same bytes, damaged or not."""
    frames = MIXED if sound == "pcma" else MIXED_AAC
    video, audio = (Codec.H264, Codec.PCMA) if sound == "pcma" else (Codec.H265, Codec.AAC)
    muxer = PsMuxer(video=video, audio=audio, map_policy=policy, unbounded_pes=unbounded)
    stream = _edit(b"".join(ps_stream(frames, muxer)), edits)
    whole = PsDemuxer()
    wanted = whole.feed(stream) + whole.flush()
    demuxer = PsDemuxer()
    units = [unit for piece in _pieces(stream, cuts) for unit in demuxer.feed(piece)] + demuxer.flush()
    assert _by_kind(units) == _by_kind(wanted)


@SLOW
@given(
    st.sampled_from(["h264", "h265"]),
    st.integers(1, 65_000),
    st.integers(100, 1400),
    st.sampled_from(MapPolicy),
    st.integers(0, (1 << 33) - 1),
    st.integers(0, 65535),
)
def test_mux_packetise_demux_round_trip(
    name: str, pes_size: int, rtp_size: int, policy: MapPolicy, start: int, sequence_number: int
) -> None:
    clip = [
        replace(f, pts_90k=f.pts_90k + start, dts_90k=f.dts_90k + start)
        for f in (H264 if name == "h264" else H265)
    ]
    muxer = PsMuxer(
        video=clip[0].track.codec,
        map_policy=policy,
        max_pes_payload=max(pes_size, 64),
        mux_rate_bytes=500_000,
    )
    packetiser = RtpPacketiser(ssrc=9, max_payload=rtp_size, sequence_number=sequence_number)
    buffer, demuxer = ReorderBuffer(), PsDemuxer()
    units: list[EsUnit] = []
    for item in clip:
        for data in packetiser.packetise(muxer.mux(item), item.dts_90k):
            for packet in buffer.push(RtpPacket.parse(data), 0.0):
                assert isinstance(packet, RtpPacket)
                units += demuxer.feed(packet.payload, packet.timestamp, packet.marker)
    units += demuxer.flush()
    assert [unit.payload for unit in units] == [frame.payload for frame in clip]
    assert [unit.pts_90k for unit in units] == [frame.pts_90k % (1 << 33) for frame in clip]
    assert demuxer.counters.errors == 0


@FAST
@given(st.lists(st.tuples(BYTES, st.integers(0, 0xFFFFFFFF), st.booleans()), max_size=30), st.data())
def test_depacketisers_never_raise(packets: list[tuple[bytes, int, bool]], draw: st.DataObject) -> None:
    readers: list[EsDepacketiser] = [
        H264Depacketiser(98),
        H265Depacketiser(100),
        AacDepacketiser(102),
        AudioDepacketiser(8, Codec.PCMA),
    ]
    for reader in readers:
        for number, (payload, timestamp, marker) in enumerate(packets):
            if number % 5 == 4:
                reader.gap()
            for unit in reader.feed(payload, timestamp, marker, number * 0.04):
                assert unit.payload
            reader.flush_after(number * 0.04 + 0.03)
        reader.flush()
        assert reader.counters.units >= 0
    with contextlib.suppress(UnsupportedPayloadError):
        first = packets[0][0] if packets else b""
        make_demuxer(draw.draw(st.sampled_from(["PS", "H264", "AAC", "x", "SVAC"])), 96, first)


UNITS = st.lists(
    st.tuples(
        st.booleans(),
        st.none() | st.integers(0, (1 << 33) - 1) | st.integers(0, 1_000_000),
        st.none() | st.integers(0, (1 << 33) - 1) | st.integers(0, 1_000_000),
        st.none() | st.integers(0, (1 << 32) - 1),
        st.floats(0, 5),
        st.integers(0, 400),
    ),
    max_size=60,
)


@FAST
@given(UNITS)
def test_clock_is_monotonic_whatever_the_device_says(
    rows: list[tuple[bool, int | None, int | None, int | None, float, int]],
) -> None:
    clock = StreamClock()
    tracks = {
        True: Track(kind=TrackKind.VIDEO, codec=Codec.H264, fps=25.0),
        False: Track(kind=TrackKind.AUDIO, codec=Codec.PCMA, sample_rate=8000, channels=1),
    }
    last = {True: -1, False: -1}
    now = 0.0
    for video, pts, dts, rtp_timestamp, pause, size in rows:
        now += pause
        unit = EsUnit(
            track=tracks[video],
            stream_id=0xE0,
            pts_90k=pts,
            dts_90k=dts if pts is not None else None,
            key=True,
            payload=bytes(size),
            rtp_timestamp=rtp_timestamp,
            arrival=now,
        )
        out_pts, out_dts = clock.stamp(unit)
        assert out_dts > last[video]
        assert out_dts <= out_pts <= out_dts + 10 * 90000
        last[video] = out_dts


@FAST
@given(
    BYTES,
    st.integers(-(1 << 40), 1 << 40),
    st.integers(0, 1_000_000),
    st.sampled_from(["enhanced", "legacy"]),
)
def test_flv_writer_takes_any_payload(payload: bytes, dts: int, delay: int, hevc: str) -> None:
    muxer = FlvMuxer(hevc=hevc)
    for clip in (H264, H265):
        track = clip[0].track
        assert muxer.header([track]).startswith(b"FLV\x01")
        data = muxer.mux(Frame(track=track, pts_90k=dts + delay, dts_90k=dts, key=True, payload=payload))
        assert length_prefixed(payload) in data
