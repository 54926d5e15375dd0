"""RTCP, RFC 3550 6."""

from __future__ import annotations

import pytest

from gb28181gw.media.wire import rtcp
from gb28181gw.media.wire.exceptions import RtpError
from gb28181gw.media.wire.rtp import is_rtcp

BLOCK = rtcp.ReportBlock(
    ssrc=200000001,
    fraction_lost=12,
    cumulative_lost=-3,
    extended_highest_sequence_number=0x0002FFFE,
    interarrival_jitter=450,
    last_sender_report=0xDEADBEEF,
    delay_since_last_sender_report=65536,
)


def test_med31_receiver_report_round_trip() -> None:
    data = rtcp.build_receiver_report(7, (BLOCK,), "gateway")
    assert is_rtcp(data)
    assert len(data) % 4 == 0
    assert rtcp.parse(data) == [
        rtcp.ReceiverReport(ssrc=7, blocks=(BLOCK,)),
        rtcp.SourceDescription(ssrc=7, cname="gateway"),
    ]


def test_sender_report_round_trip_and_ntp() -> None:
    report = rtcp.SenderReport(
        ssrc=7, ntp_time=rtcp.ntp_time(0.5), rtp_timestamp=90000, packet_count=10, octet_count=13000
    )
    assert report.ntp_time == (2_208_988_800 << 32) + (1 << 31)
    assert report.middle_ntp == ((2_208_988_800 & 0xFFFF) << 16) + 0x8000
    packets = rtcp.parse(rtcp.build_sender_report(report, "abc"))
    assert packets == [report, rtcp.SourceDescription(ssrc=7, cname="abc")]


@pytest.mark.parametrize("length", range(8))
def test_cname_of_any_length_is_padded(length: int) -> None:
    data = rtcp.build_goodbye(9, "c" * length)
    assert len(data) % 4 == 0
    assert rtcp.parse(data)[1:] == [
        rtcp.SourceDescription(ssrc=9, cname="c" * length),
        rtcp.Goodbye(ssrcs=(9,)),
    ]


def test_bye_with_reason_and_unknown_types() -> None:
    application = bytes.fromhex("80cc0002 00000001 47423238")
    bye = bytes.fromhex("81cb0003 00000005 04627965 21000000")
    assert rtcp.parse(application + bye) == [rtcp.Goodbye(ssrcs=(5,), reason="bye!")]


def test_counters_that_do_not_fit_are_clamped() -> None:
    block = rtcp.ReportBlock(
        ssrc=1, cumulative_lost=1 << 30, interarrival_jitter=1 << 40, delay_since_last_sender_report=1 << 40
    )
    (report, _) = rtcp.parse(rtcp.build_receiver_report(1, (block,), ""))
    assert isinstance(report, rtcp.ReceiverReport)
    assert report.blocks[0].cumulative_lost == 0x7FFFFF
    assert report.blocks[0].interarrival_jitter == 0xFFFFFFFF


def test_padding_of_the_last_packet() -> None:
    data = bytes.fromhex("a0c90002 00000001 00000004")
    assert rtcp.parse(data) == [rtcp.ReceiverReport(ssrc=1)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("80c9", "header"),
        ("40c90001 00000001", "version"),
        ("80c90002 00000001", "longer"),
        ("81c90001 00000001", "report blocks"),
        ("80c90000", "no sender"),
        ("80c80001 00000001", "sender information"),
        ("81ca0000", "chunk"),
        ("81ca0002 00000001 01090000", "item"),
        ("82cb0001 00000001", "source list"),
        ("a0c90001 00000000", "padding"),
    ],
)
def test_every_length_is_checked(data: str, reason: str) -> None:
    with pytest.raises(RtpError, match=reason):
        rtcp.parse(bytes.fromhex(data))
