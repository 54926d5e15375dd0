"""RTP packets, RFC 3550 5.1."""

from __future__ import annotations

import pytest

from gb28181gw.media.wire.exceptions import RtpError
from gb28181gw.media.wire.rtp import RtpPacket, RtpPacketiser, is_rtcp

PLAIN = bytes.fromhex("80e01234 00015f90 0bebc201") + b"payload"


def test_reads_the_fixed_header() -> None:
    packet = RtpPacket.parse(PLAIN)
    assert packet == RtpPacket(96, 0x1234, 90000, 200000001, b"payload", True)
    assert packet.serialise() == PLAIN


@pytest.mark.parametrize(
    "packet",
    [
        RtpPacket(8, 0, 0, 0, b""),
        RtpPacket(96, 65535, 0xFFFFFFFF, 0xFFFFFFFF, b"x" * 1400, True),
        RtpPacket(96, 1, 2, 3, b"abc", False, (7, 8, 9)),
        RtpPacket(96, 1, 2, 3, b"abc", True, (), 0xBEDE, b"\x00" * 8),
        RtpPacket(96, 1, 2, 3, b"", True, (1,), 0, b""),
    ],
)
def test_round_trip(packet: RtpPacket) -> None:
    assert RtpPacket.parse(packet.serialise()) == packet


def test_padding_is_taken_off() -> None:
    data = bytes([0xA0]) + PLAIN[1:] + b"\x00\x00\x03"
    assert RtpPacket.parse(data).payload == b"payload"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shorter"),
        (PLAIN[:11], "shorter"),
        (b"\x00" + PLAIN[1:], "version is 0"),
        (b"\x40" + PLAIN[1:], "version is 1"),
        (b"\x8f" + PLAIN[1:], "CSRC"),
        (b"\x90" + PLAIN[1:14], "extension header"),
        (b"\x90" + PLAIN[1:12] + b"\xbe\xde\x00\x09", "header extension"),
        (b"\xa0" + PLAIN[1:12] + b"\x00", "padding"),
        (b"\xa0" + PLAIN[1:12] + b"\x09", "padding"),
    ],
)
def test_every_length_is_checked(data: bytes, reason: str) -> None:
    with pytest.raises(RtpError, match=reason):
        RtpPacket.parse(data)


def test_extension_of_whole_words_only() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        RtpPacket(96, 1, 2, 3, b"", extension_profile=1, extension=b"abc").serialise()


@pytest.mark.parametrize("packet_type", range(200, 205))
def test_med29_rtcp_is_told_from_rtp(packet_type: int) -> None:
    assert is_rtcp(bytes((0x80, packet_type, 0, 1)))
    assert is_rtcp(memoryview(bytes((0x81, packet_type, 0, 1))))


@pytest.mark.parametrize("second", [96, 96 | 0x80, 8, 199, 205, 0x7F])
def test_med29_rtp_is_not_rtcp(second: int) -> None:
    assert not is_rtcp(bytes((0x80, second, 0, 1)))
    assert not is_rtcp(b"\x80")
    assert not is_rtcp(bytes((0x00, 200)))


def test_packetiser_shares_the_timestamp_and_marks_the_last() -> None:
    packetiser = RtpPacketiser(ssrc=5, payload_type=96, sequence_number=65534)
    data = bytes(range(256)) * 12
    packets = [RtpPacket.parse(packet) for packet in packetiser.packetise(data, (1 << 32) + 7)]
    assert [packet.sequence_number for packet in packets] == [65534, 65535, 0]
    assert {packet.timestamp for packet in packets} == {7}
    assert [packet.marker for packet in packets] == [False, False, True]
    assert b"".join(packet.payload for packet in packets) == data
    assert max(len(packet.payload) for packet in packets) <= 1400
    assert (packetiser.packets, packetiser.octets) == (3, len(data))


def test_packetiser_without_marker_and_with_nothing() -> None:
    packetiser = RtpPacketiser(ssrc=5)
    assert packetiser.packetise(b"", 0) == []
    (packet,) = packetiser.packetise(b"x", 0, marker=False)
    assert not RtpPacket.parse(packet).marker
    with pytest.raises(ValueError, match="positive"):
        RtpPacketiser(ssrc=5, max_payload=0)
