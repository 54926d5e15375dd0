"""SIP over TLS (8.2): the contexts of both sides, and the handshake of connections that come in.

TLS 1.2 and later (RFC 5630 keeps to what RFC 3261 26.2.1 asks). There is no setting that leaves the certificate of a
platform unchecked: one that no public authority signed is trusted by naming the file of its authority.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from gb28181gw.errors import GatewayError

HANDSHAKE_S: Final = 5.0
"""As long as an unverified connection may take over one message (F-08)."""
GOODBYE_S: Final = 2.0
"""For the peer's close_notify."""


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """The context of a listener, from two PEM files. Raises `GatewayError` gb.config.invalid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise GatewayError(
            "gb.config.invalid", f"sip.tls_cert and sip.tls_key cannot be used: {error}."
        ) from error
    return context


def client_context(ca_file: str = "") -> ssl.SSLContext:
    """The context towards a platform: its certificate must be valid for the name or address that we dial.

    `ca_file`: the authorities (PEM) that are trusted instead of the system's. Raises `GatewayError` gb.sip.path_lost.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise GatewayError(
            "gb.sip.path_lost", f"tls_ca: {ca_file} cannot be used as a file of authorities: {error}."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def shake(
    bound: socket.socket, context: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol]
) -> bool:
    """The server's side of the handshake on an accepted connection; True: `protocol` speaks on it now."""
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            protocol,
            bound,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=GOODBYE_S,
        )
    except OSError:
        bound.close()  # no TLS, an old version, no common cipher, too slow, or gone
        return False
    except asyncio.CancelledError:
        bound.close()
        raise
    return True
