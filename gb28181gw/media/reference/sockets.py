"""Sockets of receivers, bound all or nothing (fault row F-14)."""

from __future__ import annotations

import socket
from contextlib import suppress

RECEIVE_BUFFER = 2 * 1024 * 1024
"""A key frame of a 4K camera arrives faster than the event loop may turn."""
_SO_RCVBUFFORCE = 33
"""Linux; it passes net.core.rmem_max and needs CAP_NET_ADMIN. The socket module has no name for it."""


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _open(host: str, kind: socket.SocketKind) -> socket.socket:
    family = _family(host)
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6 and host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    except OSError:
        sock.close()
        raise
    return sock


def bind_udp_pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """RTP on `port`, RTCP on `port + 1` (MED-32). Raises OSError; then nothing is bound.

    Without SO_REUSEADDR: two programs must never share a media port.
    """
    bound: list[socket.socket] = []
    try:
        for number in (port, port + 1):
            sock = _open(host, socket.SOCK_DGRAM)
            bound.append(sock)
            sock.bind((host, number))
        # Not allowed, or not Linux: the kernel gives what net.core.rmem_max permits.
        for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):
            with suppress(OSError):
                bound[0].setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER)
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound[0], bound[1]


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening socket to be; raises OSError. SO_REUSEADDR only steps over connections in TIME_WAIT."""
    sock = _open(host, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def keep_alive(sock: socket.socket) -> None:
    """Find a dead peer within 90 s (fault row F-08): 30 s idle, then 3 probes 10 s apart."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
