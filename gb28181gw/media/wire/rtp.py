"""RTP packets (RFC 3550 5.1), reader and writer.

Reader: every length is checked before it is used; a failure is an `RtpError` that says what was wrong.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from gb28181gw.media.wire.exceptions import RtpError

HEADER_SIZE = 12
_HEADER = struct.Struct("!BBHII")
_EXTENSION = struct.Struct("!HH")

RTCP_FIRST = 200
RTCP_LAST = 204


def is_rtcp(data: bytes | memoryview) -> bool:
    """True for an RTCP packet that shares a port or a connection with RTP (MED-29; RFC 5761 4).

    RTCP packet types 200-204 stand where RTP has marker and payload type (72-76 are never assigned).
    """
    return len(data) >= 2 and RTCP_FIRST <= data[1] <= RTCP_LAST and data[0] >> 6 == 2


class RtpPacket(NamedTuple):
    """One RTP packet. A tuple and not a dataclass: hundreds are made per second and stream."""

    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension_profile: int | None = None
    """16 bits "defined by profile"; None: no header extension."""
    extension: bytes = b""
    """Extension data, a multiple of 4 bytes."""

    @classmethod
    def parse(cls, data: bytes) -> RtpPacket:
        """Read one packet; padding and extension are taken off the payload. Raises `RtpError`."""
        size = len(data)
        if size < HEADER_SIZE:
            raise RtpError(f"RTP packet of {size} bytes is shorter than its fixed header")
        first, second, sequence_number, timestamp, ssrc = _HEADER.unpack_from(data)
        if first == 0x80:  # no padding, no extension, no CSRC: almost every packet
            return cls(second & 0x7F, sequence_number, timestamp, ssrc, data[HEADER_SIZE:], second >= 0x80)
        if first >> 6 != 2:
            raise RtpError(f"RTP version is {first >> 6}, not 2")
        position = HEADER_SIZE
        csrcs: tuple[int, ...] = ()
        csrc_count = first & 0x0F
        if csrc_count:
            if position + 4 * csrc_count > size:
                raise RtpError("RTP packet ends inside its CSRC list")
            csrcs = struct.unpack_from(f"!{csrc_count}I", data, position)
            position += 4 * csrc_count
        profile: int | None = None
        extension = b""
        if first & 0x10:
            if position + 4 > size:
                raise RtpError("RTP packet ends inside its extension header")
            profile, words = _EXTENSION.unpack_from(data, position)
            position += 4
            if position + 4 * words > size:
                raise RtpError("RTP packet ends inside its header extension")
            extension = bytes(data[position : position + 4 * words])
            position += 4 * words
        end = size
        if first & 0x20:
            padding = data[size - 1]
            if padding == 0 or position + padding > size:
                raise RtpError(f"RTP padding of {padding} bytes does not fit the packet")
            end = size - padding
        return cls(
            second & 0x7F,
            sequence_number,
            timestamp,
            ssrc,
            data[position:end],
            second >= 0x80,
            csrcs,
            profile,
            extension,
        )

    def serialise(self) -> bytes:
        """The packet as bytes, without padding."""
        first = 0x80 | len(self.csrcs)
        second = self.payload_type | (0x80 if self.marker else 0)
        if self.extension_profile is not None:
            first |= 0x10
        head = _HEADER.pack(
            first, second, self.sequence_number & 0xFFFF, self.timestamp & 0xFFFFFFFF, self.ssrc
        )
        if first == 0x80:
            return head + self.payload
        parts = [head, struct.pack(f"!{len(self.csrcs)}I", *self.csrcs)]
        if self.extension_profile is not None:
            if len(self.extension) % 4:
                raise ValueError("an RTP header extension is a multiple of 4 bytes")
            parts += (_EXTENSION.pack(self.extension_profile, len(self.extension) // 4), self.extension)
        parts.append(self.payload)
        return b"".join(parts)


class RtpPacketiser:
    """Cuts a byte string into the RTP packets of one source.

    GB/T 28181-2022 C.1 and 4.3.6: all packets of one picture share one timestamp; the marker is on the last.
    1,400 bytes keep RTP, UDP and IP within an MTU of 1,500 (MED-27: some receivers read no more).
    """

    def __init__(
        self, *, ssrc: int, payload_type: int = 96, max_payload: int = 1400, sequence_number: int = 0
    ) -> None:
        if max_payload < 1:
            raise ValueError("max_payload must be positive")
        self.ssrc = ssrc
        self.payload_type = payload_type
        self.max_payload = max_payload
        self.sequence_number = sequence_number & 0xFFFF
        """Of the next packet."""
        self.packets = 0
        self.octets = 0
        """Payload bytes so far, as an RTCP sender report counts them."""

    def packetise(self, data: bytes | memoryview, timestamp: int, *, marker: bool = True) -> list[bytes]:
        """Packets of `data`; `timestamp` in units of the payload's clock, taken modulo 2^32."""
        view = memoryview(data)
        size = len(view)
        limit = self.max_payload
        timestamp &= 0xFFFFFFFF
        sequence_number = self.sequence_number
        pack = _HEADER.pack
        plain = self.payload_type
        packets: list[bytes] = []
        for start in range(0, size, limit):
            last = start + limit >= size
            second = plain | 0x80 if last and marker else plain
            packets.append(
                b"".join(
                    (pack(0x80, second, sequence_number, timestamp, self.ssrc), view[start : start + limit])
                )
            )
            sequence_number = (sequence_number + 1) & 0xFFFF
        self.sequence_number = sequence_number
        self.packets += len(packets)
        self.octets += size
        return packets
