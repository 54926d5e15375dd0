"""Listening sockets with their options, and bind failures as sentences: for every listener of the gateway."""

from __future__ import annotations

import errno
import socket
from typing import Final

from gb28181gw.errors import GatewayError

BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Kernel buffers of UDP sockets: about 8,000 messages of a city that comes back after a power cut (F-01)."""

_SO_RCVBUFFORCE: Final = 33
_SO_SNDBUFFORCE: Final = 32
"""Linux; they pass net.core.rmem_max and need CAP_NET_ADMIN. The socket module has no names for them."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted; `create_server` listens anew and must be told too."""


def bind_udp(host: str, port: int, *, key: str = "") -> socket.socket:
    """A non-blocking UDP socket of the setting `key`.

    Raises `GatewayError` gb.config.port_in_use or gb.config.address_unavailable, its sentence with key and address.
    """
    bound = _bind(host, port, socket.SOCK_DGRAM, key)
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            bound.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        except OSError:
            # Not allowed, or not Linux: the kernel gives what net.core.rmem_max permits.
            bound.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
    return bound


def bind_tcp(host: str, port: int, *, key: str = "") -> socket.socket:
    """A listening non-blocking TCP socket, as `bind_udp`.

    SO_REUSEADDR: after kill -9 the port is free at once.
    """
    bound = _bind(host, port, socket.SOCK_STREAM, key)
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _sentence("TCP", host, port, key, error) from error
    return bound


def set_keepalive(connection: socket.socket) -> None:
    """A dead peer is noticed: probes after 30 s, every 10 s, 3 of them (F-08); unsent data gives up after 60 s."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 60_000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _bind(host: str, port: int, kind: socket.SocketKind, key: str) -> socket.socket:
    transport = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, kind)
    try:
        bound.setblocking(False)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _sentence(transport, host, port, key, error) from error
    return bound


def _sentence(transport: str, host: str, port: int, key: str, error: OSError) -> GatewayError:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    what = f"{key}: {transport} {address}" if key else f"{transport} {address}"
    if error.errno == errno.EADDRINUSE:
        return GatewayError(
            "gb.config.port_in_use",
            f"{what} is used by another program.",
            address=address,
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return GatewayError(
            "gb.config.address_unavailable",
            f"{what} may not be bound by this user; ports below 1024 need the right to do so.",
            address=address,
        )
    return GatewayError(
        "gb.config.address_unavailable",
        f"{what} cannot be bound: {error.strerror or error}.",
        address=address,
    )
