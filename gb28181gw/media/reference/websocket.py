"""The little of RFC 6455 that a server needs which only sends: data frames out, control frames in and out.

The handshake is the listener's. A client of a media stream has nothing to say but ping, pong and close, so
data frames from it are read over; control frames are at most 125 bytes (5.5).
"""

from __future__ import annotations

from gb28181gw.media.wire.exceptions import WireError

BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

GOING_AWAY = 1001
PROTOCOL_ERROR = 1002

_MAX_CONTROL = 125
_MAX_DATA = 1 << 20


class WebSocketError(WireError):
    """The client broke RFC 6455; close with `PROTOCOL_ERROR`."""


def frame_head(opcode: int, size: int) -> bytes:
    """Header of an unmasked, final frame (RFC 6455 5.2)."""
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def close_frame(code: int) -> bytes:
    return frame_head(CLOSE, 2) + code.to_bytes(2, "big")


class ClientFrames:
    """Cuts what a client sends. Bounded: the payload of data frames is never kept."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Control frames as (opcode, payload). Raises `WebSocketError`."""
        frames: list[tuple[int, bytes]] = []
        buffer = self._buffer
        buffer += data
        while buffer:
            if self._skip:
                taken = min(self._skip, len(buffer))
                del buffer[:taken]
                self._skip -= taken
                continue
            if len(buffer) < 2:
                break
            opcode = buffer[0] & 0x0F
            if buffer[0] & 0x70:
                raise WebSocketError("reserved bits are set, though no extension was agreed")
            if not buffer[1] & 0x80:
                raise WebSocketError("a client must mask its frames")
            size, head = buffer[1] & 0x7F, 2
            if size == 126:
                head = 4
            elif size == 127:
                head = 10
            if len(buffer) < head + 4:
                break
            if head > 2:
                size = int.from_bytes(buffer[2:head], "big")
            if opcode & 0x8:
                if size > _MAX_CONTROL or not buffer[0] & 0x80:
                    raise WebSocketError("a control frame is longer than 125 bytes or fragmented")
                if len(buffer) < head + 4 + size:
                    break
                mask = buffer[head : head + 4]
                body = buffer[head + 4 : head + 4 + size]
                frames.append((opcode, bytes(byte ^ mask[i & 3] for i, byte in enumerate(body))))
                del buffer[: head + 4 + size]
            else:
                if size > _MAX_DATA:
                    raise WebSocketError("a data frame is longer than a media client has use for")
                del buffer[: head + 4]
                self._skip = size
        return frames
