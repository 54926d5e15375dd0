from __future__ import annotations

import pytest

from gb28181gw.media.reference.intake import Intake, clock_rate
from gb28181gw.media.reference.source import Looks
from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.ps_mux import MapPolicy, PsMuxer
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.media.wire.units import EsUnit
from tests.support.plane import RtpSource, audio_frames, interleave, video_frames


def push_all(intake: Intake, packets: list[bytes]) -> list[EsUnit]:
    units: list[EsUnit] = []
    for index, data in enumerate(packets):
        units += intake.push(RtpPacket.parse(data), index * 0.01)
    return units


def raw_h264() -> list[bytes]:
    source = RtpSource()
    return [
        packet
        for frame in video_frames()
        for unit in nal.split_annexb(frame.payload)
        for packet in source.rtp.packetise(unit, frame.pts_90k, marker=False)
    ]


@pytest.mark.parametrize("payload_type", [96, 40, 69, 98])
def test_med19_program_stream_under_any_payload_type(payload_type: int) -> None:
    intake = Intake({96: "PS", 98: "H264"})
    units = push_all(intake, RtpSource(payload_type=payload_type).all(video_frames()))
    assert len(units) >= 49
    quirks = intake.take_quirks()
    assert ("rtp.payload_type" in quirks) is (payload_type in (40, 69))
    assert ("rtp.ps_under_es" in quirks) is (payload_type == 98)
    assert intake.take_quirks() == []


def test_f09_mixed_payload_types_share_one_program_stream() -> None:
    packets = [
        RtpPacket.parse(p)._replace(payload_type=96 + index % 3).serialise()
        for index, p in enumerate(RtpSource().all(video_frames()))
    ]
    assert len(push_all(Intake({96: "PS"}), packets)) >= 49


def test_med18_raw_h264_under_96_is_found_by_its_parameter_sets() -> None:
    intake = Intake({96: "PS"})
    units = push_all(intake, raw_h264())
    assert len(units) == 49
    assert units[0].track.codec is Codec.H264
    assert "rtp.es_under_ps" in intake.take_quirks()


def test_raw_h264_under_its_own_payload_type() -> None:
    intake = Intake({96: "H264"})
    assert len(push_all(intake, raw_h264())) == 49
    assert intake.take_quirks() == []


def test_med18_transport_stream_is_named_and_dropped() -> None:
    intake = Intake({96: "PS"})
    packet = RtpPacket(96, 1, 0, 1, (b"\x47" + bytes(187)) * 7)
    assert intake.push(packet, 0.0) == []
    assert intake.push(packet, 0.0) == []
    assert intake.take_quirks() == ["rtp.mpeg_ts"]
    assert intake.errors == 2


def test_i10_payload_types_of_a_fuzzer_are_bounded() -> None:
    intake = Intake({96: "H264"})
    for payload_type in range(128):
        intake.push(RtpPacket(payload_type, 1, 0, 1, b"\x01junk"), 0.0)
    assert len(intake._readers) <= 8


def test_expectations_follow_the_map() -> None:
    declared = Intake({96: "PS"})
    push_all(declared, RtpSource(muxer=PsMuxer(audio=Codec.PCMA)).all(video_frames(count=3)))
    assert declared.video_expected
    assert declared.audio_expected
    silent = Intake({96: "PS"})
    push_all(silent, RtpSource().all(video_frames(count=3)))
    assert not silent.audio_expected
    audio_only = Intake({96: "PS"})
    muxer = PsMuxer(video=None, audio=Codec.PCMA, map_policy=MapPolicy.ALWAYS)
    push_all(audio_only, RtpSource(muxer=muxer).all(audio_frames()))
    assert not audio_only.video_expected
    no_map = Intake({96: "PS"})
    muxer = PsMuxer(audio=Codec.PCMA, map_policy=MapPolicy.NEVER)
    packets = RtpSource(muxer=muxer).all(interleave(video_frames(count=3), audio_frames(count=3)))
    push_all(no_map, packets)
    assert no_map.video_expected, "nothing is declared yet"
    assert Intake({98: "H264"}).video_expected
    assert not Intake({8: "PCMA"}).video_expected


def test_audio_by_its_own_payload_type() -> None:
    intake = Intake({8: "PCMA"})
    source = RtpSource(payload_type=8)
    packets = [p for f in audio_frames() for p in source.rtp.packetise(f.payload, f.pts_90k * 4 // 45)]
    units = push_all(intake, packets)
    assert {unit.track.codec for unit in units} == {Codec.PCMA}
    assert len(units) == 50


def test_looks_of_payloads() -> None:
    intake = Intake({96: "PS", 98: "H264"})
    pack = RtpPacket.parse(RtpSource().all(video_frames(count=1))[0])
    assert intake.looks(pack) is Looks.RECOGNISED
    assert intake.looks(pack._replace(payload=b"\x12\x34middle")) is Looks.PLAUSIBLE
    assert intake.looks(pack._replace(payload=b"")) is Looks.NOTHING
    assert intake.looks(pack._replace(payload=b"\x41slice", payload_type=98)) is Looks.RECOGNISED


def test_gap_and_flush_reach_all_readers() -> None:
    intake = Intake({96: "PS"})
    packets = [RtpSource().packets(frame) for frame in video_frames(count=10)]
    units = push_all(intake, [p for group in packets[:5] for p in group])
    intake.gap()
    units += push_all(intake, [p for group in packets[6:] for p in group])
    units += intake.flush()
    assert [unit.damaged for unit in units][:4] == [False] * 4
    assert any(unit.damaged for unit in units[4:])
    assert intake.deadline is None


def test_clock_rates() -> None:
    assert clock_rate("pcma") == 8000
    assert clock_rate("PS") == clock_rate("") == 90000
