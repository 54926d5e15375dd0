"""What WebRTC viewers tell about what they get (RFC 4585, RFC 5104 4.3.1), besides RTCP reports. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_COMMON = struct.Struct("!BBH")
_SOURCES = struct.Struct("!II")
_LOSS = struct.Struct("!HH")
_RECEIVER_REPORT = 201
_TRANSPORT = 205
_PAYLOAD = 206
_NACK = 1
_PLI = 1
_FIR = 4
_BLOCK = struct.Struct("!IB")
_BLOCK_SIZE = 24
_MAX_LOST = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """Of one compound packet."""

    lost: tuple[tuple[int, int], ...] = ()
    """(SSRC, sequence number) of packets to be sent again."""
    key_frame: bool = False
    """A picture cannot be decoded: PLI or FIR."""
    loss: tuple[tuple[int, float], ...] = ()
    """(SSRC, share lost since the last report) of receiver reports."""


def parse_feedback(data: bytes) -> Feedback:
    """What cannot be read is passed over: it came from an authenticated peer, and nothing depends on it."""
    lost: list[tuple[int, int]] = []
    loss: list[tuple[int, float]] = []
    key_frame = False
    position = 0
    while position + _COMMON.size <= len(data):
        first, kind, words = _COMMON.unpack_from(data, position)
        end = position + 4 * (words + 1)
        if first >> 6 != 2 or end > len(data):
            break
        form = first & 0x1F
        body = position + _COMMON.size
        if kind == _RECEIVER_REPORT:
            for block in range(
                body + 4, min(end, body + 4 + form * _BLOCK_SIZE) - _BLOCK_SIZE + 1, _BLOCK_SIZE
            ):
                ssrc, fraction = _BLOCK.unpack_from(data, block)
                loss.append((ssrc, fraction / 256))
        elif kind in (_TRANSPORT, _PAYLOAD) and body + _SOURCES.size <= end:
            _, ssrc = _SOURCES.unpack_from(data, body)
            if kind == _PAYLOAD:
                key_frame |= form in (_PLI, _FIR)
            elif form == _NACK:
                for item in range(body + _SOURCES.size, end - 3, _LOSS.size):
                    number, mask = _LOSS.unpack_from(data, item)
                    lost.append((ssrc, number))
                    lost += [(ssrc, number + bit + 1 & 0xFFFF) for bit in range(16) if mask >> bit & 1]
        position = end
    return Feedback(lost=tuple(lost[:_MAX_LOST]), key_frame=key_frame, loss=tuple(loss))
