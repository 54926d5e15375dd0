"""Elementary streams in RTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.media.wire import aac, nal
from gb28181gw.media.wire.es_depacketiser import (
    AacDepacketiser,
    AudioDepacketiser,
    EsDepacketiser,
    H264Depacketiser,
    H265Depacketiser,
    make_demuxer,
)
from gb28181gw.media.wire.exceptions import UnsupportedPayloadError
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.units import EsUnit
from tests.support.media import audio_clip, ps_stream, video_clip

Payload = tuple[bytes, int, bool]

H264 = video_clip(Codec.H264, frames=30, gop=10)
H265 = video_clip(Codec.H265, frames=30, gop=10)


def _fragments(codec: Codec, unit: bytes, limit: int) -> list[bytes]:
    """FU-A (RFC 6184 5.8) or FU (RFC 7798 4.4.3)."""
    header = 1 if codec is Codec.H264 else 2
    body = unit[header:]
    pieces = [body[i : i + limit] for i in range(0, len(body), limit)]
    out = []
    for number, piece in enumerate(pieces):
        flags = (0x80 if number == 0 else 0) | (0x40 if number == len(pieces) - 1 else 0)
        if codec is Codec.H264:
            out.append(bytes((unit[0] & 0xE0 | 28, flags | unit[0] & 0x1F)) + piece)
        else:
            out.append(bytes((unit[0] & 0x81 | 49 << 1, unit[1], flags | unit[0] >> 1 & 0x3F)) + piece)
    return out


def _packetise(clip: Sequence[Frame], *, limit: int = 600, aggregate: bool = True) -> Iterator[Payload]:
    """As a camera does it: parameter sets in one aggregate, large units in fragments, the rest single."""
    codec = clip[0].track.codec
    for frame in clip:
        payloads: list[bytes] = []
        small: list[bytes] = []
        for unit in nal.split_annexb(frame.payload):
            if aggregate and nal.is_parameter_set(codec, nal.nal_type(codec, unit)):
                small.append(unit)
                continue
            payloads += _fragments(codec, unit, limit) if len(unit) > limit else [unit]
        if small:
            head = b"\x18" if codec is Codec.H264 else b"\x60\x01"
            payloads.insert(0, head + b"".join(len(u).to_bytes(2, "big") + u for u in small))
        for number, payload in enumerate(payloads):
            yield payload, frame.pts_90k, number == len(payloads) - 1


def _run(depacketiser: EsDepacketiser, payloads: Sequence[Payload]) -> list[EsUnit]:
    units = []
    for payload, timestamp, marker in payloads:
        units += depacketiser.feed(payload, timestamp, marker)
    return units + depacketiser.flush()


def _make(codec: Codec) -> H264Depacketiser | H265Depacketiser:
    return H264Depacketiser(98) if codec is Codec.H264 else H265Depacketiser(100)


@pytest.mark.parametrize("clip", [H264, H265], ids=["h264", "h265"])
@pytest.mark.parametrize("aggregate", [False, True])
def test_single_units_aggregates_and_fragments(clip: tuple[Frame, ...], aggregate: bool) -> None:
    depacketiser = _make(clip[0].track.codec)
    units = _run(depacketiser, list(_packetise(clip, aggregate=aggregate)))
    assert [unit.payload for unit in units] == [frame.payload for frame in clip]
    assert [unit.pts_90k for unit in units] == [frame.pts_90k for frame in clip]
    assert [unit.key for unit in units] == [frame.key for frame in clip]
    assert depacketiser.tracks == (clip[0].track,)
    assert depacketiser.tracks_version == 1
    assert depacketiser.counters.errors == 0
    assert depacketiser.quirks == {}


@pytest.mark.parametrize("clip", [H264, H265], ids=["h264", "h265"])
def test_any_single_loss_passes_no_broken_picture(clip: tuple[Frame, ...]) -> None:
    payloads = list(_packetise(clip))
    whole = {frame.payload for frame in clip}
    for lost in range(len(payloads)):
        depacketiser = _make(clip[0].track.codec)
        units: list[EsUnit] = []
        for number, (payload, timestamp, marker) in enumerate(payloads):
            if number == lost:
                depacketiser.gap()
                continue
            units += depacketiser.feed(payload, timestamp, marker)
        units += depacketiser.flush()
        odd = [unit for unit in units if unit.payload not in whole]
        # Without the packet of its parameter sets a key frame is still whole.
        assert all(unit.key and any(f.payload.endswith(unit.payload) for f in clip) for unit in odd), lost


@pytest.mark.parametrize("clip", [H264, H265], ids=["h264", "h265"])
def test_joined_in_the_middle_of_a_fragment(clip: tuple[Frame, ...]) -> None:
    depacketiser = _make(clip[0].track.codec)
    payloads = list(_packetise(clip, limit=200))
    units = _run(depacketiser, payloads[3:])
    assert [unit.payload for unit in units] == [frame.payload for frame in clip[10:]]
    assert depacketiser.counters.malformed == 0


def test_fragment_without_end_is_counted() -> None:
    depacketiser = H264Depacketiser(98)
    payloads = list(_packetise(H264))
    ends = [n for n, (p, _, _) in enumerate(payloads) if p[0] & 0x1F == 28 and p[1] & 0x40]
    del payloads[ends[3]]
    units = _run(depacketiser, payloads)
    assert depacketiser.counters.malformed == 1
    assert all(unit.payload in {frame.payload for frame in H264} for unit in units)


def test_trusted_markers_end_a_picture_at_once() -> None:
    clip = video_clip(Codec.H264, frames=100, gop=25)
    depacketiser = H264Depacketiser(98)
    delays = []
    got = 0
    sent = 0
    for payload, timestamp, marker in _packetise(clip):
        got += len(depacketiser.feed(payload, timestamp, marker))
        if marker:
            sent += 1
            delays.append(sent - got)
    assert delays[0] == 1
    assert delays[-1] == 0


def test_design3_pause_ends_a_picture() -> None:
    depacketiser = H264Depacketiser(98)
    for payload, timestamp, marker in _packetise(H264[:1]):
        depacketiser.feed(payload, timestamp, marker, 5.0)
    assert depacketiser.deadline == pytest.approx(5.04)
    assert depacketiser.flush_after(5.01) == []
    assert len(depacketiser.flush_after(5.05)) == 1


def test_timestamp_wraps_at_32_bits_and_goes_on() -> None:
    depacketiser = H264Depacketiser(98)
    start = (1 << 32) - 10 * 3600
    payloads = [(p, (t + start) % (1 << 32), m) for p, t, m in _packetise(H264)]
    units = _run(depacketiser, payloads)
    assert [unit.pts_90k for unit in units] == [start + n * 3600 for n in range(30)]


def test_med35_parameter_sets_of_the_sdp() -> None:
    clip = video_clip(Codec.H264, frames=10, gop=10)
    bare = [
        (payload, timestamp, marker)
        for payload, timestamp, marker in _packetise(clip, aggregate=True)
        if payload[0] & 0x1F != 24
    ]
    depacketiser = H264Depacketiser(98)
    depacketiser.preset(clip[0].track.parameter_sets)
    units = _run(depacketiser, bare)
    assert len(units) == 10
    assert units[0].key
    assert depacketiser.tracks == (clip[0].track,)


@pytest.mark.parametrize("clip", [H264, H265], ids=["h264", "h265"])
def test_annex_b_in_the_payload_is_tolerated(clip: tuple[Frame, ...]) -> None:
    depacketiser = _make(clip[0].track.codec)
    units = _run(depacketiser, [(frame.payload, frame.pts_90k, True) for frame in clip])
    assert [unit.payload for unit in units] == [frame.payload for frame in clip]
    assert depacketiser.quirks == {"rtp.annexb_in_payload": 30}


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        (Codec.H264, b"\x19\x00\x00"),
        (Codec.H264, b"\x1d\x80\x00"),
        (Codec.H264, b"\x1c"),
        (Codec.H264, b"\x18\x00\x09\x67"),
        (Codec.H264, b"\x18\x00\x00"),
        (Codec.H265, b"\x62"),
        (Codec.H265, b"\x62\x01\x80"),
        (Codec.H265, b"\x64\x01\x00\x00"),
        (Codec.H265, b"\x60\x01\x00\x09\x40"),
    ],
)
def test_malformed_payloads_are_counted(codec: Codec, payload: bytes) -> None:
    depacketiser = _make(codec)
    assert depacketiser.feed(payload, 0, True) == []
    assert depacketiser.counters.malformed == 1
    assert depacketiser.feed(b"", 0, True) == []


@pytest.mark.parametrize("codec", [Codec.PCMA, Codec.PCMU])
def test_g711(codec: Codec) -> None:
    sound = audio_clip(codec)
    depacketiser = AudioDepacketiser(8, codec)
    units = _run(depacketiser, [(f.payload, f.pts_90k * 8000 // 90000, False) for f in sound])
    assert [unit.payload for unit in units] == [frame.payload for frame in sound]
    assert [unit.pts_90k for unit in units] == [frame.pts_90k for frame in sound]
    assert depacketiser.tracks == (sound[0].track,)


def _au_headers(units: Sequence[bytes]) -> bytes:
    sizes = b"".join((len(unit) << 3).to_bytes(2, "big") for unit in units)
    return (16 * len(units)).to_bytes(2, "big") + sizes + b"".join(units)


def test_aac_hbr_single_and_several_units() -> None:
    sound = audio_clip(Codec.AAC)
    depacketiser = AacDepacketiser(102, config=sound[0].track.parameter_sets[0])
    payloads = [
        (_au_headers([frame.payload for frame in sound[n : n + 3]]), n * 1024, True)
        for n in range(0, len(sound), 3)
    ]
    units = _run(depacketiser, payloads)
    assert [unit.payload for unit in units] == [frame.payload for frame in sound]
    assert [unit.pts_90k for unit in units] == [frame.pts_90k for frame in sound]
    assert depacketiser.tracks == (sound[0].track,)
    assert depacketiser.quirks == {}


def test_aac_unit_in_fragments_and_a_lost_fragment() -> None:
    depacketiser = AacDepacketiser(102)
    unit = bytes(range(200)) * 4
    head = b"\x00\x10" + (len(unit) << 3).to_bytes(2, "big")
    pieces = [head + unit[:300], head + unit[300:600], head + unit[600:]]
    assert [len(depacketiser.feed(piece, 0)) for piece in pieces] == [0, 0, 1]
    depacketiser.feed(pieces[0], 1024)
    depacketiser.gap()
    assert depacketiser.feed(pieces[2], 1024) == []
    depacketiser.gap()
    (whole,) = depacketiser.feed(_au_headers([b"abc"]), 2048)
    assert whole.payload == b"abc"


def test_aac_as_adts_is_read_too() -> None:
    sound = audio_clip(Codec.AAC)
    config = sound[0].track.parameter_sets[0]
    depacketiser = AacDepacketiser(102, config=config)
    units = _run(
        depacketiser,
        [(aac.build_adts(config, len(f.payload)) + f.payload, n * 1024, True) for n, f in enumerate(sound)],
    )
    assert [unit.payload for unit in units] == [frame.payload for frame in sound]


def test_med18_program_stream_under_any_name() -> None:
    first = ps_stream(H264)[0]
    for encoding in ("H264", "H265", "PCMA", "PS", "DAHUA"):
        assert isinstance(make_demuxer(encoding, 96, first), PsDemuxer)


def test_med18_transport_stream_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedPayloadError, match="MPEG-TS"):
        make_demuxer("PS", 96, (b"\x47" + bytes(187)) * 7)


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [
        ("h264", H264Depacketiser),
        ("H265", H265Depacketiser),
        ("HEVC", H265Depacketiser),
        ("PCMA", AudioDepacketiser),
        ("G729", AudioDepacketiser),
        ("AAC", AacDepacketiser),
        ("MPEG4-GENERIC", AacDepacketiser),
        ("HIKVISION", PsDemuxer),
    ],
)
def test_med19_reader_by_the_name_of_the_rtpmap(encoding: str, kind: type[object]) -> None:
    assert isinstance(make_demuxer(encoding, 96, b"\x5c\x81\x00"), kind)


def test_elementary_streams_without_reader_are_refused() -> None:
    with pytest.raises(UnsupportedPayloadError, match="MP4V-ES"):
        make_demuxer("MP4V-ES", 97, b"\x00")
