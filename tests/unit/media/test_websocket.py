from __future__ import annotations

import pytest

from gb28181gw.media.reference.websocket import (
    BINARY,
    CLOSE,
    PING,
    ClientFrames,
    WebSocketError,
    close_frame,
    frame_head,
)


def masked(opcode: int, payload: bytes, *, final: bool = True, mask: bytes = b"\x11\x22\x33\x44") -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes((0x80 * final | opcode,)) + length + mask + body


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_length_forms(size: int, head: bytes) -> None:
    assert frame_head(BINARY, size) == head


def test_close_frame_has_its_code() -> None:
    assert close_frame(1001) == b"\x88\x02\x03\xe9"


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_control_frames_between_data_of_all_sizes(step: int) -> None:
    data = (
        masked(PING, b"one")
        + masked(1, b"x" * 300)
        + masked(PING, b"")
        + masked(2, b"y" * 70_000, final=False)
        + masked(CLOSE, b"\x03\xe8bye")
    )
    frames = ClientFrames()
    found = []
    for start in range(0, len(data), step):
        found += frames.feed(data[start : start + step])
        assert len(frames._buffer) <= 140 + step, "payloads of data are not kept"
    assert found == [(PING, b"one"), (PING, b""), (CLOSE, b"\x03\xe8bye")]


@pytest.mark.parametrize(
    "data",
    [
        b"\x89\x03abc",  # not masked
        b"\xc9\x80\x00\x00\x00\x00",  # reserved bit
        masked(PING, b"x" * 126),
        masked(PING, b"x", final=False),
        b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"mask",
    ],
)
def test_breaches_are_refused(data: bytes) -> None:
    with pytest.raises(WebSocketError):
        ClientFrames().feed(data)
