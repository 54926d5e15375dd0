"""Elementary streams to RTP: H.264 (RFC 6184), H.265 (RFC 7798), AAC (RFC 3640), G.711 (RFC 3551).

The counterpart of `es_depacketiser`. Video goes as single NAL units and fragments (packetization-mode 1), never in
aggregates, which old readers do not know. The timestamp is the presentation time in the payload's clock.
"""

from __future__ import annotations

import struct

from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.rtp import HEADER_SIZE

MAX_PAYLOAD = 1400
"""Keeps RTP, UDP and IP within an MTU of 1,500 (MED-27)."""
_G711_SAMPLES = 160
"""20 ms a packet, as 9.12 and RFC 3551 4.2 have it."""
_G711_CLOCK = 8000
_HEADER = struct.Struct("!BBHII")
PACKABLE = frozenset({Codec.H264, Codec.H265, Codec.AAC, Codec.PCMA, Codec.PCMU})


class EsPacketiser:
    """Frames of one codec in, RTP packets out. Raises ValueError for a codec that is not in `PACKABLE`."""

    def __init__(
        self,
        codec: Codec,
        *,
        ssrc: int,
        payload_type: int,
        sequence_number: int = 0,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        if codec not in PACKABLE:
            raise ValueError(f"{codec.value} has no RTP payload format here")
        self.codec = codec
        self.ssrc = ssrc
        self.payload_type = payload_type
        self.sequence_number = sequence_number
        """Of the next packet."""
        self._max_payload = max_payload
        self._talking = False

    def clock_rate(self, frame: Frame) -> int:
        """Of the RTP timestamp."""
        if self.codec.is_video:
            return 90_000
        return frame.track.sample_rate or _G711_CLOCK

    def packetise(self, frame: Frame) -> list[bytes]:
        """The packets of one frame of the codec."""
        clock = self.clock_rate(frame)
        timestamp = frame.pts_90k * clock // 90_000
        if self.codec.is_video:
            return self._video(frame, timestamp)
        if self.codec is Codec.AAC:
            return self._aac(frame.payload, timestamp)
        return self._samples(frame.payload, timestamp)

    def _video(self, frame: Frame, timestamp: int) -> list[bytes]:
        units = list(nal.split_annexb(frame.payload))
        packets: list[bytes] = []
        last = len(units) - 1
        for index, unit in enumerate(units):
            if len(unit) <= self._max_payload:
                packets.append(self._packet(timestamp, index == last, unit))
            else:
                self._fragments(unit, timestamp, packets, ends=index == last)
        return packets

    def _fragments(self, unit: bytes, timestamp: int, packets: list[bytes], *, ends: bool) -> None:
        """FU-A (RFC 6184 5.8) or FU (RFC 7798 4.4.3): the unit's header is told in the fragment's two or three."""
        if self.codec is Codec.H264:
            head = bytes((unit[0] & 0xE0 | 28,))
            kind, own = unit[0] & 0x1F, 1
        else:
            head = bytes((unit[0] & 0x81 | 49 << 1, unit[1]))
            kind, own = unit[0] >> 1 & 0x3F, 2
        size = self._max_payload - len(head) - 1
        for start in range(own, len(unit), size):
            first, final = start == own, start + size >= len(unit)
            flags = kind | 0x80 * first | 0x40 * final
            payload = b"".join((head, bytes((flags,)), unit[start : start + size]))
            packets.append(self._packet(timestamp, final and ends, payload))

    def _aac(self, payload: bytes, timestamp: int) -> list[bytes]:
        """Mode AAC-hbr: one access unit a packet; a larger one in fragments with the header of the whole (3.2.3)."""
        head = b"\x00\x10" + (len(payload) << 3 & 0xFFFF).to_bytes(2, "big")
        size = self._max_payload - len(head)
        return [
            self._packet(timestamp, start + size >= len(payload), head + payload[start : start + size])
            for start in range(0, len(payload), size)
        ]

    def _samples(self, payload: bytes, timestamp: int) -> list[bytes]:
        """The marker begins a talkspurt (RFC 3551 4.1): here the first packet."""
        packets = []
        for start in range(0, len(payload), _G711_SAMPLES):
            piece = payload[start : start + _G711_SAMPLES]
            packets.append(self._packet(timestamp + start, not self._talking, piece))
            self._talking = True
        return packets

    def _packet(self, timestamp: int, marker: bool, payload: bytes) -> bytes:
        number = self.sequence_number
        self.sequence_number = (number + 1) & 0xFFFF
        second = self.payload_type | 0x80 * marker
        packet = _HEADER.pack(0x80, second, number, timestamp & 0xFFFFFFFF, self.ssrc) + payload
        assert len(packet) <= HEADER_SIZE + self._max_payload  # noqa: S101 - our own arithmetic
        return packet
