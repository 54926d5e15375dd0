"""How packets of an RTP sink reach its peer: UDP, a TCP connection of its own, or a receiver's socket.

A link sends what it is given and tells when the way is open or gone; it knows nothing of streams. Packets are handed
over in a queue, from which a link takes what the kernel takes; what is left it asks for again when there is room.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from ipaddress import ip_address
from itertools import islice
from typing import Protocol

from gb28181gw.media.reference.sockets import keep_alive
from gb28181gw.media.reference.source import HostSet, Source, address
from gb28181gw.media.wire.exceptions import FramingError
from gb28181gw.media.wire.rfc4571 import Framer

DIAL_TRIES = 3
DIAL_PAUSE_S = 1.0
DIAL_TIMEOUT_S = 3.0
_BURST = 64
"""Packets that go out in one turn; the kept group of a 4K camera must not overrun the peer's socket buffer."""
_PACE_S = 0.002
_VECTOR = 32
"""Packets handed to the kernel in one call over TCP; two buffers each, well below IOV_MAX."""
_SEND_BUFFER = 1024 * 1024
_READ_SIZE = 65536
_REFUSED_RESET_S = 2.0
_UDP_SEGMENT = getattr(socket, "UDP_SEGMENT", 103)  # linux/udp.h; Python does not name it yet
_SEGMENTS = 40
"""Of one send with segmentation: 64 kB hold 46 packets of 1,412 bytes, the kernel takes 64."""


class LinkOwner(Protocol):
    """What a link tells."""

    def opened(self, peer: str) -> None:
        """Packets can be sent now. Over TCP: connected."""

    def writable(self) -> None:
        """There is room again."""

    def failed(self, reason: str, detail: str) -> None:
        """It has ended: ``viewer_gone``; `detail` says of a dialling why."""

    def control(self, data: bytes, source: Source) -> None:
        """An RTCP packet of the peer."""


class Link(Protocol):
    """One way to a peer."""

    port: int
    """Bound local RTP port; 9 where there is none."""

    @property
    def is_open(self) -> bool: ...

    @property
    def remote(self) -> str:
        """``ip:port``; empty while unknown."""

    def connect(self, remote: tuple[str, int] | None) -> None:
        """The sink sends now, and to there. Called again when the address changes. Raises ValueError for a name."""

    def send(self, queue: deque[bytes]) -> tuple[int, int]:
        """Take packets from the queue's left as far as the kernel does; returns how many, and their bytes."""

    def control(self, data: bytes) -> None:
        """Send an RTCP packet, where the link has a way for it."""

    @property
    def stalled_since(self) -> float | None:
        """Since when nothing goes out though something waits, or the peer refuses; None: it flows."""

    def close(self, *, abort: bool = False) -> None:
        """Idempotent. `abort`: the kernel shall not go on offering what waits to a peer that does not take it."""


def has_segmentation(sock: socket.socket) -> bool:
    """The kernel cuts one send into datagrams (UDP_SEGMENT, Linux 4.18)."""
    try:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 0)
    except OSError:
        return False
    return True


class UdpLink:
    """Owner of a bound pair of sockets, RTP connected to the peer so that its refusals are heard."""

    def __init__(
        self, owner: LinkOwner, loop: asyncio.AbstractEventLoop, rtp: socket.socket, rtcp: socket.socket
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._rtp = rtp
        self._rtcp = rtcp
        self.port: int = rtp.getsockname()[1]
        self._remote: tuple[str, int] | None = None
        self._rtcp_peer: tuple[str, int] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._refused_since: float | None = None
        self._refused_at = 0.0
        self._blocked_since: float | None = None
        self._closed = False
        self._segments = has_segmentation(rtp)
        with suppress(OSError):
            rtp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        loop.add_reader(rtp, self._read, rtp)
        loop.add_reader(rtcp, self._read, rtcp)

    @property
    def is_open(self) -> bool:
        return self._remote is not None and not self._closed

    @property
    def remote(self) -> str:
        return address(self._remote) if self._remote is not None else ""

    def connect(self, remote: tuple[str, int] | None) -> None:
        if remote is None or remote == self._remote:
            return
        ip_address(remote[0])
        self._rtp.connect(remote)
        self._remote = remote
        self._rtcp_peer = (remote[0], min(remote[1] + 1, 65535))
        self._refused_since = None
        self._owner.opened(self.remote)

    def send(self, queue: deque[bytes]) -> tuple[int, int]:
        if self._later is not None:
            return 0, 0
        done = size = 0
        while queue and done < _BURST:
            count = self._group(queue) if self._segments else 1
            if not self._out(list(islice(queue, count))):
                break
            for _ in range(count):
                size += len(queue.popleft())
            done += count
        if queue and not self._closed:
            self._later = self._loop.call_later(_PACE_S, self._again)
        return done, size

    def _again(self) -> None:
        self._later = None
        if not self._closed:
            self._owner.writable()

    @staticmethod
    def _group(queue: deque[bytes]) -> int:
        """Packets of one size from the left; the last of them may be shorter."""
        size = len(queue[0])
        count = 1
        for packet in islice(queue, 1, _SEGMENTS):
            if len(packet) > size:
                break
            count += 1
            if len(packet) < size:
                break
        return count

    def _out(self, packets: list[bytes]) -> bool:
        """False: the kernel has no room."""
        ancillary = []
        if len(packets) > 1:
            ancillary.append((socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(packets[0]))))
        for _ in range(2):
            try:
                self._rtp.sendmsg(packets, ancillary)
            except (BlockingIOError, InterruptedError):
                self._blocked_since = self._blocked_since or self._loop.time()
                return False
            except ConnectionRefusedError:
                self._refused()  # of an earlier packet; this one was not sent
                continue
            except OSError as error:
                if len(packets) > 1 and error.errno in (errno.EINVAL, errno.EIO, errno.EMSGSIZE):
                    self._segments = False  # the way out cannot cut them; next time one by one
                    return False
                # No route, no buffers: as lost on the way. The peer's reports and our owner's patience tell.
                self._refused()
            break
        else:
            return True
        self._blocked_since = None
        return True

    def _refused(self) -> None:
        now = self._loop.time()
        if self._refused_since is None or now - self._refused_at > _REFUSED_RESET_S:
            self._refused_since = now
        self._refused_at = now

    @property
    def stalled_since(self) -> float | None:
        if self._refused_since is not None and self._loop.time() - self._refused_at <= _REFUSED_RESET_S:
            return self._refused_since
        return self._blocked_since

    def control(self, data: bytes) -> None:
        if self._rtcp_peer is not None:
            with suppress(OSError):
                self._rtcp.sendto(data, self._rtcp_peer)

    def _read(self, sock: socket.socket) -> None:
        try:
            data, source = sock.recvfrom(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._refused()
            return
        if self._remote is None or source[0] != self._remote[0]:
            return
        if sock is self._rtcp:
            self._rtcp_peer = (source[0], source[1])
        self._owner.control(data, source[:2])

    def close(self, *, abort: bool = False) -> None:
        del abort
        if self._closed:
            return
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        for sock in (self._rtp, self._rtcp):
            self._loop.remove_reader(sock)
            sock.close()


class TcpLink:
    """Owner of one connection, listened for or dialled; RFC 4571 framing."""

    def __init__(
        self,
        owner: LinkOwner,
        loop: asyncio.AbstractEventLoop,
        *,
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        listener: socket.socket | None = None,
        local: tuple[str, int] | None = None,
        expected: frozenset[str] = frozenset(),
    ) -> None:
        """`listener` is bound already and taken over; without one `connect` dials, from `local` where it is given.

        `spawn` starts a task whose end the plane waits for.
        """
        self._owner = owner
        self._spawn = spawn
        self._loop = loop
        self._listener = listener
        self._local = local
        self._expected = HostSet(expected)
        self._sock: socket.socket | None = None
        self._peer = ""
        self._source: Source = ("", 0)
        self._framer = Framer()
        self._rest = b""
        """Of a packet that the kernel took a part of."""
        self._writing = False
        self._progress_at = 0.0
        self._dialling: asyncio.Task[None] | None = None
        self._closed = False
        self.port = 9  # RFC 4145 4.1
        if listener is not None:
            self.port = listener.getsockname()[1]
            listener.listen(4)
            loop.add_reader(listener, self._accept)
        elif local is not None and local[1]:
            self.port = local[1]

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    @property
    def remote(self) -> str:
        return self._peer

    def connect(self, remote: tuple[str, int] | None) -> None:
        if self._listener is not None or remote is None or self._dialling is not None or self._closed:
            return
        ip_address(remote[0])
        self._dialling = self._spawn(self._dial(remote))

    async def _dial(self, remote: tuple[str, int]) -> None:
        reason = ""
        for attempt in range(DIAL_TRIES):
            if attempt:
                await asyncio.sleep(DIAL_PAUSE_S)
            sock = socket.socket(socket.AF_INET6 if ":" in remote[0] else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                if self._local is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(self._local)
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    await self._loop.sock_connect(sock, remote)
            except TimeoutError:
                reason = "timeout"
                sock.close()
            except OSError as error:
                reason = error.strerror or str(error)
                sock.close()
            except BaseException:
                sock.close()
                raise
            else:
                self._made(sock, remote)
                return
        self._peer = address(remote)
        self._owner.failed("viewer_gone", reason)

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - registered for it
        try:
            sock, source = self._listener.accept()
        except OSError:
            return
        if self._sock is not None or (self._expected and source[0] not in self._expected):
            sock.close()  # threat S-11; one connection a session
            return
        self._made(sock, source[:2])

    def _made(self, sock: socket.socket, source: tuple[str, int]) -> None:
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER // 4)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(sock)
        self._sock = sock
        self._peer = address(source)
        self._source = source
        self._progress_at = self._loop.time()
        self._loop.add_reader(sock, self._read)
        self._owner.opened(self._peer)

    def send(self, queue: deque[bytes]) -> tuple[int, int]:
        sock = self._sock
        if sock is None:
            return 0, 0
        if not self._writing:
            self._progress_at = self._loop.time()
        done = size = 0
        while queue or self._rest:
            vector = [self._rest] if self._rest else []
            packets = list(islice(queue, _VECTOR))
            for packet in packets:
                vector += (len(packet).to_bytes(2, "big"), packet)
            try:
                sent = sock.sendmsg(vector)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._lost()
                return done, size
            self._progress_at = self._loop.time()
            taken = self._took(sent, queue, packets)
            done += taken
            size += sum(map(len, packets[:taken]))
        waits = bool(queue or self._rest)
        if waits != self._writing:
            self._writing = waits
            if waits:
                self._loop.add_writer(sock, self._owner.writable)
            else:
                self._loop.remove_writer(sock)
        return done, size

    def _took(self, sent: int, queue: deque[bytes], packets: list[bytes]) -> int:
        """What the kernel took leaves the queue; a packet that it took a part of must go on before anything else."""
        if sent < len(self._rest):
            self._rest = self._rest[sent:]
            return 0
        sent -= len(self._rest)
        self._rest = b""
        done = 0
        for packet in packets:
            if not sent:
                break
            queue.popleft()
            done += 1
            size = len(packet) + 2
            if sent < size:
                self._rest = (len(packet).to_bytes(2, "big") + packet)[sent:]
                break
            sent -= size
        return done

    @property
    def stalled_since(self) -> float | None:
        return self._progress_at if self._writing else None

    def control(self, data: bytes) -> None:
        """Not over TCP: the connection itself tells that the peer lives, and old peers take it for media."""

    def _read(self) -> None:
        assert self._sock is not None  # noqa: S101 - registered for it
        try:
            data = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        try:
            packets = self._framer.feed(data)
        except FramingError:
            self._framer = Framer()  # what it says is of no use; that it reads is what counts
            return
        for packet in packets:
            if packet is not None:
                self._owner.control(packet, self._source)

    def _lost(self) -> None:
        self._drop_connection()
        self._owner.failed("viewer_gone", "")

    def _drop_connection(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._loop.remove_reader(sock)
        if self._writing:
            self._loop.remove_writer(sock)
            self._writing = False
        sock.close()

    def close(self, *, abort: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        if abort and self._sock is not None:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop_connection()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        if self._dialling is not None:
            self._dialling.cancel()


class Duplex(Protocol):
    """A receiver's side of `ThroughLink`: both ways on one port."""

    @property
    def port(self) -> int:
        """Bound RTP port."""

    def sendto(self, data: bytes, remote: tuple[str, int] | None) -> bool:
        """Send an RTP packet to `remote`, or without one to the latched source or connection; False: no room."""

    def control(self, data: bytes, remote: tuple[str, int] | None) -> None:
        """The same for RTCP."""

    def peer(self, remote: tuple[str, int] | None) -> str:
        """Where packets go now; empty: nowhere yet."""


class ThroughLink:
    """Sends on what a receiver owns (talk). It never closes it, and the receiver hands the peer's reports over."""

    def __init__(
        self, owner: LinkOwner, loop: asyncio.AbstractEventLoop, duplex: Duplex, detach: Callable[[], None]
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._duplex = duplex
        self._detach = detach
        self._remote: tuple[str, int] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._asked = False
        self._blocked_since: float | None = None
        self._closed = False
        self.port = duplex.port

    @property
    def is_open(self) -> bool:
        return self._asked and not self._closed and bool(self.remote)

    @property
    def remote(self) -> str:
        return self._duplex.peer(self._remote)

    def connect(self, remote: tuple[str, int] | None) -> None:
        if remote is not None:
            ip_address(remote[0])
            self._remote = remote
        self._asked = True
        if self.is_open:
            self._owner.opened(self.remote)

    def send(self, queue: deque[bytes]) -> tuple[int, int]:
        if self._later is not None:
            return 0, 0
        done = size = 0
        while queue and done < _BURST:
            if not self._duplex.sendto(queue[0], self._remote):
                self._blocked_since = self._blocked_since or self._loop.time()
                break
            self._blocked_since = None
            size += len(queue.popleft())
            done += 1
        if queue:
            self._later = self._loop.call_later(_PACE_S, self._again)
        return done, size

    def _again(self) -> None:
        self._later = None
        if not self._closed:
            self._owner.writable()

    @property
    def stalled_since(self) -> float | None:
        return self._blocked_since

    def control(self, data: bytes) -> None:
        self._duplex.control(data, self._remote)

    def close(self, *, abort: bool = False) -> None:
        del abort
        if self._closed:
            return
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        self._detach()
