"""RTCP (RFC 3550 6): what a receiver must say and understand.

Read: sender and receiver reports, SDES CNAME, BYE; other packets of a compound are passed over. Written:
receiver report with SDES (devices stop without one, MED-31), sender report with SDES, BYE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gb28181gw.media.wire.exceptions import RtpError

SENDER_REPORT = 200
RECEIVER_REPORT = 201
SOURCE_DESCRIPTION = 202
GOODBYE = 203

_COMMON = struct.Struct("!BBH")
_SENDER_INFO = struct.Struct("!IIIIII")
_BLOCK = struct.Struct("!IIIIII")
_CNAME = 1
NTP_EPOCH_OFFSET_S = 2_208_988_800
"""Seconds from 1900 to 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportBlock:
    """What a receiver says about one source (RFC 3550 6.4.1)."""

    ssrc: int
    fraction_lost: int = 0
    """1/256 of the packets expected since the last report."""
    cumulative_lost: int = 0
    """Signed, 24 bits."""
    extended_highest_sequence_number: int = 0
    interarrival_jitter: int = 0
    """In units of the RTP timestamp."""
    last_sender_report: int = 0
    """Middle 32 bits of the NTP time of the last sender report; 0 none."""
    delay_since_last_sender_report: int = 0
    """In 1/65536 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderReport:
    ssrc: int
    ntp_time: int
    """64 bits, 32.32 fixed point since 1900."""
    rtp_timestamp: int
    packet_count: int
    octet_count: int
    blocks: tuple[ReportBlock, ...] = ()

    @property
    def middle_ntp(self) -> int:
        """What a receiver returns as `last_sender_report`."""
        return (self.ntp_time >> 16) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverReport:
    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDescription:
    ssrc: int
    cname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodbye:
    ssrcs: tuple[int, ...]
    reason: str = ""


RtcpPacket = SenderReport | ReceiverReport | SourceDescription | Goodbye


def ntp_time(wall_s: float) -> int:
    """64-bit NTP time of a Unix time."""
    return int((wall_s + NTP_EPOCH_OFFSET_S) * 4294967296.0) & 0xFFFFFFFFFFFFFFFF


def _read_blocks(data: bytes, position: int, count: int, end: int) -> tuple[ReportBlock, ...]:
    if position + 24 * count > end:
        raise RtpError("RTCP report ends inside its report blocks")
    blocks = []
    for _ in range(count):
        ssrc, loss, highest, jitter, last_sr, delay = _BLOCK.unpack_from(data, position)
        lost = loss & 0xFFFFFF
        blocks.append(
            ReportBlock(
                ssrc=ssrc,
                fraction_lost=loss >> 24,
                cumulative_lost=lost - 0x1000000 if lost & 0x800000 else lost,
                extended_highest_sequence_number=highest,
                interarrival_jitter=jitter,
                last_sender_report=last_sr,
                delay_since_last_sender_report=delay,
            )
        )
        position += 24
    return tuple(blocks)


def _read_descriptions(data: bytes, position: int, count: int, end: int) -> list[SourceDescription]:
    found = []
    for _ in range(count):
        if position + 4 > end:
            raise RtpError("RTCP SDES ends inside a chunk")
        (ssrc,) = struct.unpack_from("!I", data, position)
        position += 4
        while position < end and data[position] != 0:
            if position + 2 > end or position + 2 + data[position + 1] > end:
                raise RtpError("RTCP SDES ends inside an item")
            if data[position] == _CNAME:
                text = data[position + 2 : position + 2 + data[position + 1]]
                found.append(SourceDescription(ssrc=ssrc, cname=text.decode("utf-8", "replace")))
            position += 2 + data[position + 1]
        position = (position // 4 + 1) * 4  # the null item and padding to a 32-bit boundary
    return found


def _read_goodbye(data: bytes, position: int, count: int, end: int) -> Goodbye:
    if position + 4 * count > end:
        raise RtpError("RTCP BYE ends inside its source list")
    ssrcs = struct.unpack_from(f"!{count}I", data, position)
    position += 4 * count
    reason = ""
    if position < end:
        reason = data[position + 1 : min(end, position + 1 + data[position])].decode("utf-8", "replace")
    return Goodbye(ssrcs=ssrcs, reason=reason)


def parse(data: bytes) -> list[RtcpPacket]:
    """Read a compound packet. Raises `RtpError`; unknown packet types are passed over."""
    packets: list[RtcpPacket] = []
    position = 0
    size = len(data)
    while position < size:
        if position + 4 > size:
            raise RtpError("RTCP packet ends inside its header")
        first, packet_type, words = _COMMON.unpack_from(data, position)
        if first >> 6 != 2:
            raise RtpError(f"RTCP version is {first >> 6}, not 2")
        end = position + 4 * (words + 1)
        if end > size:
            raise RtpError("RTCP packet is longer than the datagram")
        following = end
        if first & 0x20:
            padding = data[end - 1]
            if padding == 0 or padding > end - position - 4:
                raise RtpError("RTCP padding does not fit the packet")
            end -= padding
        count = first & 0x1F
        body = position + 4
        if packet_type == SENDER_REPORT:
            if body + 24 > end:
                raise RtpError("RTCP sender report ends inside its sender information")
            ssrc, seconds, fraction, timestamp, packet_count, octets = _SENDER_INFO.unpack_from(data, body)
            packets.append(
                SenderReport(
                    ssrc=ssrc,
                    ntp_time=seconds << 32 | fraction,
                    rtp_timestamp=timestamp,
                    packet_count=packet_count,
                    octet_count=octets,
                    blocks=_read_blocks(data, body + 24, count, end),
                )
            )
        elif packet_type == RECEIVER_REPORT:
            if body + 4 > end:
                raise RtpError("RTCP receiver report has no sender")
            (ssrc,) = struct.unpack_from("!I", data, body)
            packets.append(ReceiverReport(ssrc=ssrc, blocks=_read_blocks(data, body + 4, count, end)))
        elif packet_type == SOURCE_DESCRIPTION:
            packets += _read_descriptions(data, body, count, end)
        elif packet_type == GOODBYE:
            packets.append(_read_goodbye(data, body, count, end))
        position = following
    return packets


def _write_blocks(blocks: tuple[ReportBlock, ...]) -> bytes:
    return b"".join(
        _BLOCK.pack(
            block.ssrc,
            (block.fraction_lost & 0xFF) << 24
            | max(-0x800000, min(0x7FFFFF, block.cumulative_lost)) & 0xFFFFFF,
            block.extended_highest_sequence_number & 0xFFFFFFFF,
            min(block.interarrival_jitter, 0xFFFFFFFF),
            block.last_sender_report,
            min(block.delay_since_last_sender_report, 0xFFFFFFFF),
        )
        for block in blocks
    )


def _write_cname(ssrc: int, cname: str) -> bytes:
    text = cname.encode()[:255]
    chunk = struct.pack("!IBB", ssrc, _CNAME, len(text)) + text
    chunk += bytes(4 - len(chunk) % 4)  # at least the null item
    return _COMMON.pack(0x81, SOURCE_DESCRIPTION, len(chunk) // 4) + chunk


def build_receiver_report(ssrc: int, blocks: tuple[ReportBlock, ...], cname: str) -> bytes:
    """Compound of a receiver report and an SDES CNAME (RFC 3550 6.1); at most 31 blocks."""
    body = struct.pack("!I", ssrc) + _write_blocks(blocks[:31])
    head = _COMMON.pack(0x80 | min(len(blocks), 31), RECEIVER_REPORT, len(body) // 4)
    return head + body + _write_cname(ssrc, cname)


def build_sender_report(report: SenderReport, cname: str) -> bytes:
    """Compound of a sender report and an SDES CNAME."""
    body = _SENDER_INFO.pack(
        report.ssrc,
        report.ntp_time >> 32,
        report.ntp_time & 0xFFFFFFFF,
        report.rtp_timestamp & 0xFFFFFFFF,
        report.packet_count & 0xFFFFFFFF,
        report.octet_count & 0xFFFFFFFF,
    ) + _write_blocks(report.blocks[:31])
    head = _COMMON.pack(0x80 | min(len(report.blocks), 31), SENDER_REPORT, len(body) // 4)
    return head + body + _write_cname(report.ssrc, cname)


def build_goodbye(ssrc: int, cname: str) -> bytes:
    """Compound that ends a source: an empty receiver report, SDES and BYE."""
    return build_receiver_report(ssrc, (), cname) + _COMMON.pack(0x81, GOODBYE, 1) + struct.pack("!I", ssrc)
