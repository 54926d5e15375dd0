"""RTCP of WebRTC viewers."""

from __future__ import annotations

import struct

from aiortc.rtp import RtcpPsfbPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpRtpfbPacket
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.outputs.webrtc_feedback import parse_feedback


def test_a_compound_of_another_writer_is_read() -> None:
    report = RtcpReceiverInfo(
        ssrc=9, fraction_lost=128, packets_lost=5, highest_sequence=7, jitter=0, lsr=0, dlsr=0
    )
    data = bytes(RtcpRrPacket(ssrc=1, reports=[report]))
    data += bytes(RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=9, lost=[7, 8, 23, 300]))
    data += bytes(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=9))
    feedback = parse_feedback(data)
    assert feedback.loss == ((9, 0.5),)
    assert feedback.lost == ((9, 7), (9, 8), (9, 23), (9, 300))
    assert feedback.key_frame is True


def test_numbers_of_lost_packets_wrap() -> None:
    data = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, 9, 65535, 1)
    assert parse_feedback(data).lost == ((9, 65535), (9, 0))


def test_estimates_and_unknown_packets_are_passed_over() -> None:
    other = struct.pack("!BBHII", 0x80 | 15, 206, 2, 1, 9) + struct.pack("!BBHII", 0x81, 207, 2, 1, 9)
    feedback = parse_feedback(other)
    assert (feedback.lost, feedback.loss, feedback.key_frame) == ((), (), False)


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    assert len(parse_feedback(data).lost) <= 512
