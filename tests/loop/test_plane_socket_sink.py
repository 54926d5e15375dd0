"""One consumer's socket in the reference plane: what is queued, skipped, and when it ends.

The native plane's is tested alike by native/tests/sink.cpp, and both by test_plane_consumers.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gb28181gw.media.reference.socket_sink import SocketSink
from tests.support.plane import SocketReader, until

LIMIT = 10_000
PLANES = ("python",)


class Pair:
    """A sink on one end of a socket pair whose buffers are small."""

    def __init__(self, *, stall_s: float = 10.0, merge_s: float = 0.0, is_websocket: bool = False) -> None:
        ours, self.theirs = socket.socketpair()
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.closed: list[str] = []
        self.loop = asyncio.get_running_loop()
        self.sink = SocketSink(
            ours,
            loop=self.loop,
            is_websocket=is_websocket,
            terminator=b"<end>",
            queue_bytes=LIMIT,
            stall_s=stall_s,
            merge_s=merge_s,
            on_closed=lambda _, reason: self.closed.append(reason),
        )
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.reader: SocketReader | None = None

    def read(self) -> SocketReader:
        self.reader = SocketReader(self.theirs)
        return self.reader

    def fill(self) -> None:
        """Frames until the queue is full."""
        for number in range(1000):
            if self.sink.skipping:
                return
            self.sink.write(b"%4d" % number + b"." * 996, key=False, configuration=b"")
        raise AssertionError("the queue never filled")


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    yield made
    made.sink.close("test")
    if made.reader is not None:
        made.reader.close()
    made.theirs.close()


async def test_waits_for_a_key_frame_and_gets_the_configuration_first(pair: Pair) -> None:
    reader = pair.read()
    pair.sink.start(b"head;", [])
    pair.sink.write(b"delta;", key=False, configuration=b"")
    pair.sink.write(b"key;", key=True, configuration=b"conf;")
    pair.sink.write(b"delta;", key=False, configuration=b"")
    await until(lambda: reader.data == b"head;conf;key;delta;")
    assert pair.sink.frames_dropped == 1


async def test_kept_group_larger_than_the_queue_is_delivered_whole(pair: Pair) -> None:
    group = [b"x" * 5000 for _ in range(40)]
    pair.sink.start(b"head;", group)
    pair.sink.write(b"delta;", key=False, configuration=b"")
    reader = pair.read()
    await until(lambda: len(reader.data) == 5 + 200_000 + 6)
    assert pair.sink.frames_dropped == 0


async def test_f10_full_queue_skips_to_the_next_key_frame(pair: Pair) -> None:
    pair.sink.start(b"head;", [b"key;"])
    pair.fill()
    assert pair.sink.queued_bytes <= LIMIT
    pair.sink.write(b"late key;", key=True, configuration=b"conf;" + b"." * 4000)
    reader = pair.read()
    await until(lambda: pair.sink.queued_bytes == 0)
    pair.sink.write(b"delta;", key=False, configuration=b"")
    pair.sink.write(b"KEY;", key=True, configuration=b"CONF;")
    pair.sink.write(b"DELTA;", key=False, configuration=b"")
    await until(lambda: reader.data.endswith(b"CONF;KEY;DELTA;"))
    assert b"delta;" not in reader.data
    assert pair.closed == []


async def test_frame_larger_than_the_queue_reaches_a_consumer_that_keeps_up(pair: Pair) -> None:
    reader = pair.read()
    pair.sink.start(b"", [b"key;"])
    await until(lambda: pair.sink.queued_bytes == 0)
    pair.sink.write(b"y" * (3 * LIMIT), key=False, configuration=b"")
    await until(lambda: len(reader.data) == 4 + 3 * LIMIT)
    assert pair.sink.frames_dropped == 0


async def test_f10_consumer_without_progress_is_dropped_once(pair: Pair) -> None:
    pair.sink.start(b"head;", [b"key;"])
    pair.fill()
    now = pair.loop.time()
    pair.sink.check(now + 9)
    assert pair.closed == []
    pair.sink.check(now + 11)
    pair.sink.check(now + 12)
    pair.sink.close("again")
    pair.sink.write(b"late", key=True, configuration=b"")
    assert pair.closed == ["slow"]
    assert pair.sink.queued_bytes == 0


async def test_idle_consumer_of_a_silent_stream_is_not_slow(pair: Pair) -> None:
    pair.read()
    pair.sink.start(b"head;", [b"key;"])
    await until(lambda: pair.sink.queued_bytes == 0)
    pair.sink.check(pair.loop.time() + 3600)
    assert pair.closed == []


async def test_end_in_good_order_flushes_what_waits(pair: Pair) -> None:
    reader = pair.read()
    pair.sink.start(b"head;", [b"key;"])
    pair.sink.close("stream_closed")
    await until(lambda: reader.ended)
    assert bytes(reader.data) == b"head;key;<end>"
    assert pair.closed == ["stream_closed"]


async def test_consumer_that_closes_is_gone(pair: Pair) -> None:
    pair.sink.start(b"head;", [b"key;"])
    pair.theirs.close()
    await until(lambda: pair.closed == ["viewer_gone"])
    assert pair.sink.closed


async def test_websocket_breach_is_answered_by_a_protocol_error() -> None:
    pair = Pair(is_websocket=True)
    reader = pair.read()
    pair.sink.start(b"", [])
    await pair.loop.sock_sendall(pair.theirs, b"\x89\x01x")
    await until(lambda: pair.closed == ["viewer_gone"])
    await until(lambda: reader.ended)
    assert bytes(reader.data) == b"\x88\x02\x03\xea"
    reader.close()
