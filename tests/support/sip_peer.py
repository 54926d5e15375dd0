"""What tests of transports and of the user agent need: a recording receiver, a foreign peer, and polling."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Message, Request
from gb28181gw.sip.parser import parse_datagram
from gb28181gw.sip.path import Path

SCALE = float(os.environ.get("GB28181GW_TEST_TIME_SCALE", "1"))
"""Multiplies every deadline of a poll."""


async def until(look: Callable[[], Any], what: str, limit_s: float = 5.0) -> Any:
    """Poll until `look` gives something true; fails with `what`."""
    deadline = time.monotonic() + limit_s * SCALE
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited for {what}")
        await asyncio.sleep(0.005)
    return found


class Recorder:
    """A receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.messages: list[tuple[Message, Path, bytes]] = []
        self.malformed: list[tuple[SipParseError, Path]] = []
        self.closed: list[Path] = []
        self.admits = True

    def admit(self, path: Path) -> bool:
        return self.admits

    def on_message(self, message: Message, path: Path, data: bytes) -> None:
        self.messages.append((message, path, data))

    def on_malformed(self, error: SipParseError, path: Path, data: bytes) -> None:
        self.malformed.append((error, path))

    def on_closed(self, path: Path) -> None:
        self.closed.append(path)


class UdpPeer(asyncio.DatagramProtocol):
    """A foreign UDP socket: keeps what arrives, sends what it is told."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._arrived = asyncio.Event()
        self.transport: asyncio.DatagramTransport
        self.port = 0

    @classmethod
    async def open(cls, host: str = "127.0.0.1") -> UdpPeer:
        loop = asyncio.get_running_loop()
        transport, peer = await loop.create_datagram_endpoint(cls, local_addr=(host, 0))
        peer.transport = transport
        peer.port = transport.get_extra_info("sockname")[1]
        return peer

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.append(data)
        self._arrived.set()

    def send(self, data: bytes, port: int, host: str = "127.0.0.1") -> None:
        self.transport.sendto(data, (host, port))

    async def next(self, limit_s: float = 5.0) -> Message:
        """The oldest message not taken yet."""
        await until(lambda: self.received, "a datagram", limit_s)
        message = parse_datagram(self.received.pop(0))
        assert message is not None
        return message

    async def next_request(self, method: str) -> Request:
        """The next request of this method; others, and responses, are passed over."""
        while True:
            message = await self.next()
            if isinstance(message, Request) and message.method == method:
                return message

    def close(self) -> None:
        self.transport.close()


def wire(
    method: str,
    *,
    port: int,
    to_tag: str = "",
    call_id: str = "c1",
    cseq: int = 1,
    branch: str = "z9hG4bKw1",
    from_tag: str = "dev",
    body: bytes = b"",
    extra: str = "",
    uri: str = "sip:34020000002000000001@3402000000",
    transport: str = "UDP",
    host: str = "127.0.0.1",
) -> bytes:
    """A request as a device writes it."""
    tag = f";tag={to_tag}" if to_tag else ""
    return (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {host}:{port};rport;branch={branch}\r\n"
        f"From: <sip:34020000001320000001@3402000000>;tag={from_tag}\r\n"
        f"To: <sip:34020000002000000001@3402000000>{tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n"
        f"Max-Forwards: 70\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
