"""SIP of one simulated device: a socket of its own, requests with retransmission, answers that are repeated.

Deliberately apart from the gateway's transaction layer: a simulator that shared it would share its mistakes, and it
must be able to misbehave down to the byte. Messages are read and written with the shared codec (`sip.message`);
what must leave malformed is bent afterwards by `wire_form`.

A device costs one socket, one protocol object and a few dictionaries, so thousands fit into one process.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from gb28181gw.sim.faults import FaultRates, Impairment
from gb28181gw.sim.options import SipTransport
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.headers import COMPACT
from gb28181gw.sip.message import Message, Request, Response
from gb28181gw.sip.parser import Ping, StreamParser, parse_datagram
from gb28181gw.sip.path import Path

T1_S = 0.5
T2_S = 4.0
"""Of RFC 3261 17.1.1.1; a device knows no others."""
TRANSACTION_S = 64 * T1_S
_REMEMBERED_ANSWERS = 64
BODY_WAIT_S = 0.1
"""How long a TCP body of doubtful length waits for more before its Content-Length is believed."""
REORDER_FLUSH_S = 0.05
"""A datagram held back for reordering leaves alone after so long."""


class NoAnswerError(Exception):
    """No final response within the time of the transaction, or the connection ended before it."""


class NotConnectedError(Exception):
    """The platform's address does not take connections or cannot be reached."""


@dataclass(slots=True)
class _Pending:
    """A request of ours that waits for its final response."""

    data: bytes
    method: str
    future: asyncio.Future[Response]
    interval_s: float
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class SipCounters:
    sent: int = 0
    received: int = 0
    retransmitted: int = 0
    malformed: int = 0


RequestHandler = Callable[[Request], None]
LostHandler = Callable[[], None]


def wire_form(message: Message, quirks: frozenset[Quirk]) -> bytes:
    """The message as this device writes it."""
    if Quirk.XML_17 in quirks and isinstance(message, Request) and message.method == "MESSAGE":
        message.headers.set("Content-Type", "text/plain")
    data = message.to_bytes()
    if Quirk.XML_20 in quirks:
        data = _compact(data)
    if isinstance(message, Request) and message.method == "MESSAGE":
        if Quirk.XML_14 in quirks:
            data = _bend_length(data, -8)
        elif Quirk.XML_14_LONG in quirks:
            data = _bend_length(data, 8)
    return data


_SHORT = {full.lower(): short for short, full in COMPACT.items()}


def _compact(data: bytes) -> bytes:
    """Compact names, the others in lower case, and the tag of From on a line of its own (XML-20)."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    written = [lines[0]]
    for line in lines[1:]:
        name, _, value = line.partition(":")
        short = _SHORT.get(name.lower(), name.lower())
        if short == "f":
            value = value.replace(";tag=", "\r\n ;tag=", 1)
        written.append(f"{short}:{value}")
    return "\r\n".join(written).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def _bend_length(data: bytes, by: int) -> bytes:
    """Content-Length wrong by `by` bytes (XML-14)."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for index, line in enumerate(lines):
        name = line.partition(b":")[0].lower()
        if name in (b"content-length", b"l"):
            lines[index] = b"Content-Length: %d" % max(0, len(body) + by)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Signalling:
    """The SIP side of a device. Owned by it; all calls on the event loop."""

    def __init__(
        self,
        *,
        server: tuple[str, int],
        transport: SipTransport,
        bind: str,
        quirks: frozenset[Quirk],
        rates: FaultRates,
        rng: random.Random,
        on_request: RequestHandler,
        on_lost: LostHandler,
    ) -> None:
        self.server = server
        self.transport: SipTransport = transport
        self._bind = bind
        self._quirks = quirks
        self._rng = rng
        self._on_request = on_request
        self._on_lost = on_lost
        self._impairment = None if rates.none or transport == "tcp" else Impairment(rates, rng)
        self._flush: asyncio.TimerHandle | None = None
        self._wire: _UdpWire | _TcpWire | None = None
        self._pending: dict[str, _Pending] = {}
        self._answers: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self.counters = SipCounters()
        self.local: tuple[str, int] = ("", 0)
        """Address that the device has, or (REG-16) claims to have."""
        self.socket_address: tuple[str, int] = ("", 0)
        """Address that the socket has."""

    async def open(self) -> None:
        """Make the socket; over TCP connect. Raises NotConnectedError."""
        self._drop_wire()
        loop = asyncio.get_running_loop()
        local = (self._bind, 0) if self._bind else None
        try:
            if self.transport == "udp":
                _, udp = await loop.create_datagram_endpoint(
                    lambda: _UdpWire(self), local_addr=local, remote_addr=self.server
                )
                self._wire = udp
            else:
                _, tcp = await asyncio.wait_for(
                    loop.create_connection(lambda: _TcpWire(self), *self.server, local_addr=local), 10.0
                )
                self._wire = tcp
        except (OSError, TimeoutError) as error:
            raise NotConnectedError(
                f"{self.server[0]}:{self.server[1]}: {str(error) or 'timed out'}"
            ) from error
        self.socket_address = self._wire.local_address()
        self.local = ("192.168.1.64", 5060) if Quirk.REG_16 in self._quirks else self.socket_address

    @property
    def is_open(self) -> bool:
        return self._wire is not None

    @property
    def socket_name(self) -> str:
        """`socket_address` for people."""
        return f"{self.socket_address[0]}:{self.socket_address[1]}"

    def path(self) -> Path:
        """For dialogs."""
        return Path(self.transport, *self.server, *self.local)

    # --- sending --------------------------------------------------------------------------------------------------

    def branch(self) -> str:
        return f"z9hG4bK{self._rng.getrandbits(64):016x}"

    def tag(self) -> str:
        return f"{self._rng.getrandbits(40):010x}"

    def _via(self, branch: str) -> str:
        rport = "" if Quirk.REG_16 in self._quirks else ";rport"
        host = f"[{self.local[0]}]" if ":" in self.local[0] else self.local[0]
        return f"SIP/2.0/{self.transport.upper()} {host}:{self.local[1]}{rport};branch={branch}"

    async def ask(self, request: Request, timeout_s: float = TRANSACTION_S) -> Response:
        """Send a request (Via is added here) and return the final response. Raises NoAnswerError."""
        branch = self.branch()
        request.headers.prepend("Via", self._via(branch))
        data = wire_form(request, self._quirks)
        loop = asyncio.get_running_loop()
        pending = _Pending(data, request.method, loop.create_future(), T1_S)
        self._pending[branch] = pending
        try:
            self._write(data)
            if self.transport == "udp":
                pending.timer = loop.call_later(T1_S, self._again, pending)
            async with asyncio.timeout(timeout_s):
                return await pending.future
        except TimeoutError:
            raise NoAnswerError(f"no answer to {request.method} in {timeout_s:g} s") from None
        finally:
            del self._pending[branch]
            if pending.timer is not None:
                pending.timer.cancel()

    def _again(self, pending: _Pending) -> None:
        """Timer E: the request once more, with doubled pauses up to T2 (RFC 3261 17.1.2.2)."""
        if pending.future.done():
            return
        self.counters.retransmitted += 1
        self._write(pending.data)
        pending.interval_s = min(2 * pending.interval_s, T2_S)
        pending.timer = asyncio.get_running_loop().call_later(pending.interval_s, self._again, pending)

    def acknowledge(self, request: Request) -> None:
        """Send the ACK of a 2xx: a request of its own that nothing answers (Via is added here)."""
        request.headers.prepend("Via", self._via(self.branch()))
        self._write(request.to_bytes())

    def reply(
        self,
        request: Request,
        status: int,
        reason: str = "",
        *,
        to_tag: str = "",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> bytes:
        """Answer a request; the answer is kept for its retransmissions. Returns what was sent."""
        response = Response.reply_to(request, status, reason, to_tag=to_tag, headers=headers, body=body)
        data = wire_form(response, self._quirks)
        self._remember(request, data)
        self._write(data)
        return data

    def ignore(self, request: Request) -> None:
        """Stay silent now and to its retransmissions."""
        self._remember(request, b"")

    def _remember(self, request: Request, data: bytes) -> None:
        self._answers[_key(request)] = data
        while len(self._answers) > _REMEMBERED_ANSWERS:
            self._answers.popitem(last=False)

    def resend(self, data: bytes) -> None:
        """Bytes of a response once more (200 to INVITE until its ACK)."""
        self.counters.retransmitted += 1
        self._write(data)

    def ping(self) -> None:
        """A double CRLF (REG-22)."""
        self._write(b"\r\n\r\n")

    def _write(self, data: bytes) -> None:
        wire = self._wire
        if wire is None:
            return
        self.counters.sent += 1
        if self._impairment is None:
            wire.write(data)
            return
        for piece in self._impairment.apply(data):
            wire.write(piece)
        if self._flush is not None:
            self._flush.cancel()
        self._flush = asyncio.get_running_loop().call_later(REORDER_FLUSH_S, self._flush_held)

    def _flush_held(self) -> None:
        self._flush = None
        if self._impairment is not None and self._wire is not None:
            for piece in self._impairment.flush():
                self._wire.write(piece)

    # --- receiving ------------------------------------------------------------------------------------------------

    def received(self, message: Message) -> None:
        """From the wire."""
        self.counters.received += 1
        try:
            if isinstance(message, Response):
                self._response(message)
            else:
                self._request(message)
        except SipParseError:
            self.counters.malformed += 1

    def _response(self, response: Response) -> None:
        pending = self._pending.get(response.via.branch)
        if pending is None or pending.method != response.cseq.method:
            return
        if response.is_provisional:
            return
        if not pending.future.done():
            pending.future.set_result(response)

    def _request(self, request: Request) -> None:
        if request.method != "ACK":
            kept = self._answers.get(_key(request))
            if kept is not None:
                if kept:
                    self.resend(kept)
                return
        self._on_request(request)

    def lost(self, wire: _UdpWire | _TcpWire) -> None:
        """The connection ended by itself."""
        if wire is self._wire:
            self._wire = None
            self._fail_pending()
            self._on_lost()

    def _fail_pending(self) -> None:
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(NoAnswerError("the connection to the platform ended"))

    def _drop_wire(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._drop_wire()
        self._fail_pending()


def _key(request: Request) -> tuple[str, str]:
    """What identifies a server transaction for a device: branch, and method (CANCEL shares the INVITE's branch)."""
    return request.via.branch or f"{request.call_id}/{request.cseq.number}", request.method


class _UdpWire(asyncio.DatagramProtocol):
    """A connected UDP socket: answers of anybody but the platform do not arrive."""

    def __init__(self, owner: Signalling) -> None:
        self._owner = owner
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.DatagramTransport", transport
        )  # uvloop's own class has the same methods

    def local_address(self) -> tuple[str, int]:
        if self._transport is None:
            return "", 0
        address: tuple[str, int] = self._transport.get_extra_info("sockname")[:2]
        return address

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            message = parse_datagram(data)
        except SipParseError:
            self._owner.counters.malformed += 1
            return
        if message is not None:
            self._owner.received(message)

    def error_received(self, exc: Exception) -> None:
        """Port unreachable: the platform is away; the timers tell."""

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _TcpWire(asyncio.Protocol):
    """One connection to the platform; everything in both directions uses it (9.1.1 f)."""

    def __init__(self, owner: Signalling) -> None:
        self._owner = owner
        self._parser = StreamParser()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class has the same methods

    def local_address(self) -> tuple[str, int]:
        if self._transport is None:
            return "", 0
        address: tuple[str, int] = self._transport.get_extra_info("sockname")[:2]
        return address

    def data_received(self, data: bytes) -> None:
        self._deliver(self._parser.feed(data))
        if self._parser.waiting:
            asyncio.get_running_loop().call_later(BODY_WAIT_S, self._flush)

    def _flush(self) -> None:
        self._deliver(self._parser.flush())

    def _deliver(self, items: list[Message | Ping | SipParseError]) -> None:
        for item in items:
            if isinstance(item, SipParseError):
                self._owner.counters.malformed += 1
            elif isinstance(item, Ping):
                self.write(b"\r\n")
            else:
                self._owner.received(item)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
