"""RTP and RTCP over TCP: two bytes of length before each packet (RFC 4571; GB/T 28181-2022 Annex D).

Theory of operation. `Framer` learns the dialect from the first bytes (RFC 4571, ``$``-interleaved, a 256-byte
private header before either). From then on it believes a length only if an RTP or RTCP header of version 2
stands behind it. Where the next header is in the buffer already it is looked at *before* the packet is
delivered, so a packet that a partial write cut short (MED-25) is dropped and the search begins inside it.
The search wants a length, version 2, the SSRC seen so far, a plausible sequence number, and the same again
one frame later.
"""

from __future__ import annotations

import struct
from enum import Enum

from gb28181gw.media.wire.exceptions import FramingError
from gb28181gw.media.wire.rtp import HEADER_SIZE

RESYNC_LIMIT = 256 * 1024
"""Bytes that may be passed over in search of a frame before the connection is given up (F-09)."""
MAX_SEQUENCE_STEP = 3000
"""RFC 3550 A.1 MAX_DROPOUT: how far a sequence number may be from the last to be believed."""

_EHOME_HEADER = 256
_RTCP_MINIMUM = 8


class Framing(Enum):
    """How packets are delimited on this connection."""

    UNKNOWN = "unknown"
    LENGTH = "rfc4571"
    INTERLEAVED = "interleaved"


def frame(packet: bytes) -> bytes:
    """A packet with its RFC 4571 length. Raises ValueError above 65,535 bytes."""
    if len(packet) > 0xFFFF:
        raise ValueError("an RFC 4571 frame holds at most 65,535 bytes")
    return len(packet).to_bytes(2, "big") + packet


class Framer:
    """Cuts the bytes of one TCP connection into RTP and RTCP packets.

    `ssrc`, where it is known, is the one to expect; another is believed when two frames in a row have it.

    `feed` returns the packets in order; None among them stands for a place where bytes were lost. It raises
    `FramingError` when nothing plausible was found in `RESYNC_LIMIT` bytes.
    """

    def __init__(self, ssrc: int | None = None) -> None:
        self.framing = Framing.UNKNOWN
        self.resyncs = 0
        self.skipped_bytes = 0
        self.quirks: set[str] = set()
        self._expected_ssrc = ssrc.to_bytes(4, "big") if ssrc is not None else None
        self._ssrc: bytes | None = None
        self._sequence_number = 0
        self._buffer = b""
        self._searching = False
        self._searched = 0
        self._header = 2

    @property
    def buffered(self) -> int:
        """Bytes that wait for the rest of their packet; at most a frame and a read."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes | None]:
        """Take what the socket gave. See the class for the result and the error."""
        buffer = self._buffer + data if self._buffer else data
        packets: list[bytes | None] = []
        position = 0
        if self.framing is Framing.UNKNOWN:
            start = self._sniff(buffer)
            if start is None:
                self._buffer = buffer
                return packets
            position = start
        while True:
            if self._searching:
                found = self._search(buffer, position)
                self._count_skipped(found[1] - position)
                position = found[1]
                if not found[0]:
                    break
                self._searching = False
                self._searched = 0
                packets.append(None)
            following = self._take(buffer, position, packets)
            if following is None:
                if self._searching:
                    continue
                break
            position = following
        self._buffer = buffer[position:] if position else buffer
        return packets

    def _sniff(self, buffer: bytes) -> int | None:
        """Decide the dialect; returns where the first frame starts, None for more bytes."""
        start = 0
        if len(buffer) < 16:
            return None
        if buffer[:2] == b"\x01\x00" and not _plausible(buffer, 2):
            # MED-28: the vendor's own stream header, 256 bytes, then the packets.
            if len(buffer) < _EHOME_HEADER + 16:
                return None
            self.quirks.add("rtp.ehome_header")
            start = _EHOME_HEADER
        if buffer[start] == 0x24 and not _plausible(buffer, start + 2) and _plausible(buffer, start + 4):
            self.framing = Framing.INTERLEAVED
            self.quirks.add("rtp.interleaved_framing")  # MED-26
            self._header = 4
        else:
            self.framing = Framing.LENGTH
        return start

    def _judge(self, buffer: bytes, position: int) -> bool | None:
        """A frame may start at `position`. None: more bytes are needed to tell."""
        header = self._header
        start = position + header
        size = len(buffer)
        if start > size:
            return None
        if header == 4 and buffer[position] != 0x24:
            return False
        length = buffer[start - 2] << 8 | buffer[start - 1]
        if length == 0:  # RFC 4571 2: a null packet
            return True
        if start + 2 > size:
            return None
        if not _plausible_head(buffer, start, length):
            return False
        if 200 <= buffer[start + 1] <= 204:
            return True
        if start + HEADER_SIZE > size:
            return None
        ssrc = buffer[start + 8 : start + 12]
        known = self._ssrc or self._expected_ssrc
        if known is None or ssrc == known:
            return True
        # Another SSRC: a new source, or bytes that only look like a header. The frame after it tells.
        following = start + length + header
        if following + HEADER_SIZE > size:
            return None
        return buffer[following] >> 6 == 2 and buffer[following + 8 : following + 12] in (ssrc, known)

    def _take(self, buffer: bytes, position: int, packets: list[bytes | None]) -> int | None:
        """Deliver the frame at `position`; returns where the next starts.

        None: more bytes are needed, or (`_searching` set) the framing is lost from `position` on.
        """
        verdict = self._judge(buffer, position)
        start = position + self._header
        if verdict:
            length = buffer[start - 2] << 8 | buffer[start - 1]
            end = start + length
            if end > len(buffer):
                # A wrong length may hide here for up to 64 kB; what follows it tells when it is there.
                return None
            if length == 0:
                return end
            if self._judge(buffer, end) is not False:
                packet = buffer[start:end]
                if not 200 <= packet[1] <= 204:
                    self._ssrc = packet[8:12]
                    self._sequence_number = packet[2] << 8 | packet[3]
                packets.append(packet)
                return end
            verdict = False
        if verdict is False:
            self._searching = True
            self._searched = 0
            self.resyncs += 1
            self.quirks.add("rtp.framing_lost")
        return None

    def _search(self, buffer: bytes, position: int) -> tuple[bool, int]:
        """Find the next frame behind `position`; (False, p): search again from p on with more bytes."""
        header = self._header
        ssrc = self._ssrc or self._expected_ssrc
        size = len(buffer)
        candidate = position + 1
        while True:
            # A frame's SSRC stands 8 bytes behind its length. Without a known SSRC look for version 2 alone.
            if ssrc is not None:
                candidate = buffer.find(ssrc, candidate + header + 8) - header - 8
            else:
                candidate = buffer.find(b"\x80", candidate + header) - header
            if candidate <= position:
                return False, max(position, size - header - HEADER_SIZE)
            start = candidate + header
            if start + HEADER_SIZE > size:
                return False, candidate - 1
            length = buffer[start - 2] << 8 | buffer[start - 1]
            if (
                (header == 2 or buffer[candidate] == 0x24)
                and length >= HEADER_SIZE
                and _plausible_head(buffer, start, length)
                and self._is_near(buffer, start)
            ):
                verdict = self._judge(buffer, start + length)
                if verdict is None:
                    return False, candidate - 1  # the frame after it must confirm it
                if verdict:
                    return True, candidate
            candidate += 1

    def _is_near(self, buffer: bytes, start: int) -> bool:
        """Sequence number within `MAX_SEQUENCE_STEP` of the last packet, if there was one."""
        if self._ssrc is None:
            return True
        step = ((buffer[start + 2] << 8 | buffer[start + 3]) - self._sequence_number) & 0xFFFF
        return step <= MAX_SEQUENCE_STEP or step >= 0x10000 - MAX_SEQUENCE_STEP

    def _count_skipped(self, count: int) -> None:
        self.skipped_bytes += count
        self._searched += count
        if self._searched > RESYNC_LIMIT:
            raise FramingError(f"no RTP frame within {RESYNC_LIMIT} bytes")


def _plausible(buffer: bytes, start: int) -> bool:
    """An RTP or RTCP packet may start here; its length stands in the two bytes before."""
    (length,) = struct.unpack_from("!H", buffer, start - 2)
    return _plausible_head(buffer, start, length)


def _plausible_head(buffer: bytes, start: int, length: int) -> bool:
    if buffer[start] >> 6 != 2:
        return False
    if 200 <= buffer[start + 1] <= 204:
        return length >= _RTCP_MINIMUM
    return length >= HEADER_SIZE
