"""One consumer on a socket: a bounded queue of shared byte strings, written when the kernel takes them.

Theory of operation. The bytes are made once for all consumers of a variant (`variant`), so a queue holds
references and not copies. Nothing a consumer does costs the others anything: writes never block; when its
queue is over the limit it skips to the next key frame; when nothing could be written for `stall_s` it is
dropped (fault row F-10). What it sends is read and thrown away, except WebSocket control frames; the end of
its sending is the end of the consumer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from gb28181gw.media.reference import websocket
from gb28181gw.media.reference.sockets import keep_alive

logger = logging.getLogger(__name__)

_READ_SIZE = 4096
_MAX_VECTOR = 64
"""Buffers handed to the kernel in one call; well below IOV_MAX."""
_LINGER_BYTES = 64 * 1024
_SEND_BUFFER = 256 * 1024


class SocketSink:
    """Owner of one connected socket. `on_closed(sink, reason)` is called exactly once."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        loop: asyncio.AbstractEventLoop,
        is_websocket: bool,
        terminator: bytes,
        queue_bytes: int,
        stall_s: float,
        merge_s: float,
        on_closed: Callable[[SocketSink, str], None],
        received: bytes = b"",
    ) -> None:
        sock.setblocking(False)
        with suppress(OSError):
            # The kernel's own queue must not hide for a minute that the consumer has stopped.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        keep_alive(sock)
        self._sock = sock
        self._loop = loop
        self._frames = websocket.ClientFrames() if is_websocket else None
        self._terminator = terminator
        self._limit = queue_bytes
        self._stall_s = stall_s
        self._merge_s = merge_s
        self._held_until: float | None = None
        """When what is held back to be written together is due."""
        self._on_closed = on_closed
        self._queue: deque[bytes] = deque()
        self._offset = 0
        """Bytes of the first entry that are written already."""
        self.queued_bytes = 0
        self._exempt = 0
        """Bytes of the kept group still queued: they are shared, and useless when cut."""
        self._writing = False
        self.skipping = True
        """Waits for a key frame."""
        self._closed = False
        self._progress_at = loop.time()
        self.bytes_out = 0
        self.frames_dropped = 0
        loop.add_reader(sock, self._readable)
        if received:
            loop.call_soon(self._take_input, received)

    @property
    def closed(self) -> bool:
        return self._closed

    def start(self, head: bytes, group: Sequence[bytes]) -> None:
        """The container's head and the kept group of pictures; from then on frames follow without a break."""
        self.skipping = not group
        self._enqueue([head, *group])
        self._exempt = self.queued_bytes
        self._write()

    def write(self, data: bytes, *, key: bool, configuration: bytes) -> None:
        """One frame. `key`: a consumer can begin here; one that skipped gets the `configuration` first."""
        if self._closed:
            return
        waiting = self.queued_bytes - self._exempt
        # A frame larger than the limit still goes to a consumer that keeps up.
        if (self.skipping and not key) or (waiting and waiting + len(data) > self._limit):
            self.skipping = True
            self.frames_dropped += 1
            return
        if self.skipping:
            self.skipping = False
            self._enqueue([configuration])
        self._enqueue([data])
        if not self._writing and not self._holds():
            self._write()

    def _holds(self) -> bool:
        if not self._merge_s:
            return False
        now = self._loop.time()
        if self._held_until is None:
            self._held_until = now + self._merge_s
        return now < self._held_until

    def check(self, now: float) -> None:
        """Called several times a second: write what was held back, drop a consumer that takes nothing."""
        if self._closed:
            return
        if self._queue and now - self._progress_at > self._stall_s:
            self.close("slow")
        elif self._held_until is not None and now >= self._held_until and not self._writing:
            self._write()

    def close(self, reason: str) -> None:
        """End the consumer: what waits is offered to the kernel once. Idempotent."""
        if self._held_until is not None and not self._writing:
            self._write()
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            if self._queue:
                if reason != "slow" and self.queued_bytes <= _LINGER_BYTES:
                    rest = b"".join(self._queue)[self._offset :] + self._terminator
                    self.bytes_out += self._sock.send(rest)
            elif self._terminator:
                self.bytes_out += self._sock.send(self._terminator)
        self._loop.remove_reader(self._sock)
        if self._writing:
            self._loop.remove_writer(self._sock)
            self._writing = False
        self._queue.clear()
        self.queued_bytes = 0
        self._sock.close()
        self._on_closed(self, reason)

    def _enqueue(self, pieces: Sequence[bytes]) -> None:
        if not self._queue:
            self._progress_at = self._loop.time()
        for piece in pieces:
            if piece:
                self._queue.append(piece)
                self.queued_bytes += len(piece)

    def _write(self) -> None:
        self._held_until = None
        queue = self._queue
        while queue and not self._closed:
            if self._offset or len(queue) > 1:
                first = memoryview(queue[0])[self._offset :]
                vector: list[bytes | memoryview] = [first]
                for index in range(1, min(len(queue), _MAX_VECTOR)):
                    vector.append(queue[index])
            else:
                vector = [queue[0]]
            try:
                sent = self._sock.sendmsg(vector)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.close("viewer_gone")
                return
            self._sent(sent)
        if self._closed:
            return
        if queue and not self._writing:
            self._loop.add_writer(self._sock, self._write)
            self._writing = True
        elif not queue and self._writing:
            self._loop.remove_writer(self._sock)
            self._writing = False

    def _sent(self, sent: int) -> None:
        self.bytes_out += sent
        self.queued_bytes -= sent
        self._exempt = max(0, self._exempt - sent)
        self._progress_at = self._loop.time()
        sent += self._offset
        queue = self._queue
        while queue and sent >= len(queue[0]):
            sent -= len(queue.popleft())
        self._offset = sent

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close("viewer_gone")
            return
        self._take_input(data)

    def _take_input(self, data: bytes) -> None:
        if self._frames is None or self._closed:
            return
        try:
            controls = self._frames.feed(data)
        except websocket.WebSocketError as error:
            logger.debug("a WebSocket consumer broke the protocol: %s", error)
            self._terminator = websocket.close_frame(websocket.PROTOCOL_ERROR)
            self.close("viewer_gone")
            return
        for opcode, payload in controls:
            if opcode == websocket.CLOSE:
                self._terminator = websocket.frame_head(websocket.CLOSE, len(payload[:2])) + payload[:2]
                self.close("viewer_gone")
                return
            if opcode == websocket.PING and self.queued_bytes < self._limit:
                self._enqueue([websocket.frame_head(websocket.PONG, len(payload)) + payload])
                if not self._writing:
                    self._write()
