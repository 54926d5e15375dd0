"""What the kernel does for UDP, found out by doing it: datagrams merged on receive (GRO), cut on send (GSO)."""

from __future__ import annotations

import socket
import struct
from contextlib import closing
from typing import Final

# linux/udp.h; the socket module has no names for them.
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
_SIZE: Final = 500
_COUNT: Final = 3
_PATIENCE_S: Final = 1.0


def _exchange(*, merge: bool) -> list[int]:
    """Send three datagrams by one call over loopback; the sizes of what comes. Raises OSError."""
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(_PATIENCE_S)
        if merge:
            receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        segment = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("@H", _SIZE))
        sender.sendmsg([b"\0" * (_SIZE * _COUNT)], [segment], 0, receiver.getsockname())
        sizes: list[int] = []
        while sum(sizes) < _SIZE * _COUNT:
            sizes.append(len(receiver.recv(65_535)))
        return sizes


def has_gso() -> bool:
    """One call sends many datagrams (UDP_SEGMENT, Linux 4.18)."""
    try:
        return _exchange(merge=False) == [_SIZE] * _COUNT
    except OSError:
        return False


def has_gro() -> bool:
    """Datagrams that belong together come together (UDP_GRO, Linux 5.0). Without GSO it cannot be seen: False."""
    try:
        return _exchange(merge=True) == [_SIZE * _COUNT]
    except OSError:
        return False
