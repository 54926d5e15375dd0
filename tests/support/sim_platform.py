"""A scripted platform for tests of the simulator: a registrar that checks digests itself, and a caller.

It shares the message reader with the product and nothing else; digests, SDP and RTP are done by hand, so that the
simulator is tested against something that did not come from the same place.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from gb28181gw.sip.message import Headers, Message, Request, Response
from gb28181gw.sip.parser import Ping, StreamParser, parse_datagram

REALM = "3402000000"
SERVER_ID = "34020000002000000001"


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class Seen:
    """A request of a device, with the bytes it came in."""

    request: Request
    raw: bytes
    source: object


@dataclass(slots=True)
class RtpSink:
    """A UDP port pair, or a TCP connection, that collects what arrives."""

    port: int
    packets: list[bytes] = field(default_factory=list)
    stream: bytearray = field(default_factory=bytearray)
    rtcp: list[bytes] = field(default_factory=list)
    sources: set[object] = field(default_factory=set)
    connections: int = 0
    close: Callable[[], None] = lambda: None

    def program_stream(self, ssrc: int | None = None) -> bytes:
        """Payloads in sequence, without reordering."""
        return b"".join(packet[12:] for packet in self.packets if ssrc is None or ssrc_of(packet) == ssrc)


def ssrc_of(packet: bytes) -> int:
    return int.from_bytes(packet[8:12], "big")


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, on_data: Callable[[bytes, object], None]) -> None:
        self._on_data = on_data

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._on_data(data, addr)


class MiniPlatform:
    """One platform on loopback. Everything it saw is in `seen`; how it answers can be changed by attributes."""

    def __init__(self, password: str = "secret", qop: bool = True) -> None:
        self.password = password
        self.qop = qop
        self.port = 0
        self.seen: list[Seen] = []
        self.responses: list[tuple[Response, object]] = []
        self.authorizations: list[str] = []
        self.registered: dict[str, object] = {}
        self.answer_keepalives = True
        self.keepalive_status = 200
        """401 comes with a challenge."""
        self.register_status = 200
        self.silent = False
        self.withhold: Callable[[Request], bool] = lambda request: False
        """What gets no answer before `release`."""
        self.withheld: list[tuple[Request, object]] = []
        self.pings = 0
        self._nonces = 0
        self._cseq = 0
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._writers: dict[object, asyncio.StreamWriter] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Udp(self._datagram), local_addr=("127.0.0.1", port)
            )
            self.port = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
                return
            except OSError:
                self._udp.close()
        raise OSError("no port for both transports")

    async def close(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for writer in list(self._writers.values()):
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    # --- in -------------------------------------------------------------------------------------------------------

    def _datagram(self, data: bytes, source: object) -> None:
        message = parse_datagram(data)
        if message is None:
            self.pings += 1
            return
        self._message(message, data, source)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = writer.get_extra_info("peername")
        self._writers[source] = writer
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        parser = StreamParser()
        with suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65536):
                for item in parser.feed(data):
                    if isinstance(item, Ping):
                        self.pings += 1
                    elif isinstance(item, Request | Response):
                        self._message(item, data, source)
        self._writers.pop(source, None)
        writer.close()

    def drop_connections(self) -> None:
        for writer in list(self._writers.values()):
            writer.transport.abort()

    def _message(self, message: Message, raw: bytes, source: object) -> None:
        if isinstance(message, Response):
            self.responses.append((message, source))
        else:
            self.seen.append(Seen(message, raw, source))
            if self.withhold(message):
                self.withheld.append((message, source))
            elif not self.silent:
                self._serve(message, source)
        self._changed.set()

    def release(self) -> None:
        """Answer what was withheld, and nothing is any more."""
        self.withhold = lambda request: False
        held, self.withheld = self.withheld, []
        for request, source in held:
            self._serve(request, source)

    def _serve(self, request: Request, source: object) -> None:
        if request.method == "REGISTER":
            self._register(request, source)
        elif request.method == "MESSAGE":
            if b"Keepalive" in request.body and not self.answer_keepalives:
                return
            if b"Keepalive" in request.body and self.keepalive_status != 200:
                asks = [("WWW-Authenticate", f'Digest realm="{REALM}", nonce="again"')]
                self.send(Response.reply_to(request, self.keepalive_status, to_tag="p", headers=asks), source)
                return
            self.send(Response.reply_to(request, 200, to_tag="p"), source)
        elif request.method in ("BYE", "NOTIFY"):
            self.send(Response.reply_to(request, 200, to_tag="p"), source)

    def _register(self, request: Request, source: object) -> None:
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            self.authorizations.append(authorization)
        if self.register_status != 200:
            self.send(Response.reply_to(request, self.register_status, to_tag="r"), source)
            return
        if not self._right(authorization or "", request.method):
            self._nonces += 1
            challenge = f'Digest realm="{REALM}", nonce="nonce{self._nonces}"'
            if self.qop:
                challenge += ', algorithm=MD5, qop="auth"'
            self.send(
                Response.reply_to(request, 401, to_tag="r", headers=[("WWW-Authenticate", challenge)]), source
            )
            return
        expires = request.expires
        user = request.to.uri.user
        if expires == 0:
            self.registered.pop(user, None)
        else:
            self.registered[user] = source
        self.send(
            Response.reply_to(request, 200, to_tag="r", headers=[("Expires", str(expires or 3600))]), source
        )

    def _right(self, authorization: str, method: str) -> bool:
        """Digest by the book: what the header says is hashed as it stands."""
        values = {
            name: quoted or bare
            for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))', authorization)
        }
        if "response" not in values:
            return False
        first = md5(f"{values['username']}:{REALM}:{self.password}")
        second = md5(f"{method}:{values['uri']}")
        middle = values["nonce"]
        if "qop" in values:
            middle += f":{values['nc']}:{values['cnonce']}:{values['qop']}"
        response: str = values["response"]
        return md5(f"{first}:{middle}:{second}") == response

    # --- out ------------------------------------------------------------------------------------------------------

    def send(self, message: Message, target: object) -> None:
        data = message.to_bytes()
        writer = self._writers.get(target)
        if writer is not None:
            writer.write(data)
        elif self._udp is not None:
            self._udp.sendto(data, target)  # type: ignore[arg-type]  # the address came from this transport

    def request(
        self,
        method: str,
        user: str,
        *,
        call_id: str,
        body: bytes = b"",
        content_type: str = "",
        to_tag: str = "",
        cseq: int = 0,
        branch: str = "",
        from_tag: str = "pf",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Request:
        """A request of the platform, ready to be sent."""
        self._cseq += 1
        number = cseq or self._cseq
        made = Headers(
            [
                (
                    "Via",
                    f"SIP/2.0/UDP 127.0.0.1:{self.port};rport;branch={branch or f'z9hG4bKp{number}{method}'}",
                ),
                ("From", f"<sip:{SERVER_ID}@{REALM}>;tag={from_tag}"),
                ("To", f"<sip:{user}@{REALM}>" + (f";tag={to_tag}" if to_tag else "")),
                ("Call-ID", call_id),
                ("CSeq", f"{number} {method}"),
                ("Contact", f"<sip:{SERVER_ID}@127.0.0.1:{self.port}>"),
                ("Max-Forwards", "70"),
                *headers,
            ]
        )
        if content_type:
            made.add("Content-Type", content_type)
        return Request(method, f"sip:{user}@127.0.0.1:5060", made, body)

    def query(
        self,
        device_id: str,
        command: str,
        *,
        sn: int = 17,
        target: str = "",
        extra: str = "",
        root: str = "Query",
    ) -> None:
        """Send a MANSCDP query or control."""
        body = (
            f'<?xml version="1.0"?>\r\n<{root}><CmdType>{command}</CmdType><SN>{sn}</SN>'
            f"<DeviceID>{target or device_id}</DeviceID>{extra}</{root}>\r\n"
        ).encode()
        request = self.request(
            "MESSAGE", device_id, call_id=f"q{sn}{command}", body=body, content_type="Application/MANSCDP+xml"
        )
        self.send(request, self.registered[device_id])

    def offer(
        self, port: int, *, transport: str = "udp", ssrc: str = "0200001234", payloads: str = "ps"
    ) -> bytes:
        numbers = "96" if payloads == "ps" else "96 98 97"
        lines = [
            "v=0",
            f"o={SERVER_ID} 0 0 IN IP4 127.0.0.1",
            "s=Play",
            "c=IN IP4 127.0.0.1",
            "t=0 0",
            f"m=video {port} {'RTP/AVP' if transport == 'udp' else 'TCP/RTP/AVP'} {numbers}",
            "a=recvonly",
            "a=rtpmap:96 PS/90000",
        ]
        if payloads != "ps":
            lines += ["a=rtpmap:98 H264/90000", "a=rtpmap:97 MPEG4/90000"]
        if transport != "udp":
            lines += [f"a=setup:{transport.removeprefix('tcp-')}", "a=connection:new"]
        lines.append(f"y={ssrc}")
        return "\r\n".join(lines).encode() + b"\r\n"

    def invite(
        self,
        device_id: str,
        channel_id: str,
        offer: bytes,
        *,
        call_id: str = "call1",
        subject: str = "",
        cseq: int = 1,
    ) -> Request:
        request = self.request(
            "INVITE",
            channel_id,
            call_id=call_id,
            body=offer,
            content_type="application/sdp",
            cseq=cseq,
            branch=f"z9hG4bKi{call_id}",
            headers=(("Subject", subject or f"{channel_id}:0200001234,{SERVER_ID}:0"),),
        )
        self.send(request, self.registered[device_id])
        return request

    def in_dialog(
        self, method: str, device_id: str, invite: Request, final: Response, *, cseq: int = 2
    ) -> Request:
        number = invite.cseq.number if method == "ACK" else cseq
        request = self.request(
            method,
            invite.to.uri.user,
            call_id=invite.call_id,
            to_tag=final.to.tag,
            cseq=number,
            branch=f"z9hG4bKd{method}{invite.call_id}{number}",
        )
        self.send(request, self.registered[device_id])
        return request

    def cancel(self, device_id: str, invite: Request) -> None:
        request = self.request(
            "CANCEL",
            invite.to.uri.user,
            call_id=invite.call_id,
            cseq=invite.cseq.number,
            branch=invite.via.branch,
        )
        self.send(request, self.registered[device_id])

    # --- waiting --------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait until `condition()` is true; AssertionError after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.02):
                            await self._changed.wait()
        except TimeoutError:
            raise AssertionError("the condition did not come true in time") from None

    def finals(self, method: str, call_id: str) -> list[Response]:
        return [
            response
            for response, _ in self.responses
            if response.call_id == call_id and response.cseq.method == method and response.status >= 200
        ]

    def provisionals(self, call_id: str) -> list[int]:
        return [
            response.status
            for response, _ in self.responses
            if response.call_id == call_id and response.status < 200
        ]

    async def final(self, method: str, call_id: str, timeout_s: float = 10.0) -> Response:
        await self.until(lambda: self.finals(method, call_id), timeout_s)
        return self.finals(method, call_id)[0]

    def requests(self, method: str) -> list[Request]:
        return [entry.request for entry in self.seen if entry.request.method == method]

    def bodies(self, command: str) -> list[bytes]:
        """Bodies of MESSAGEs with this text as command."""
        wanted = command.lower().encode()
        return [request.body for request in self.requests("MESSAGE") if wanted in request.body.lower()]


@asynccontextmanager
async def platform(*, password: str = "secret", qop: bool = True) -> AsyncIterator[MiniPlatform]:
    """A platform that runs for the length of the block."""
    made = MiniPlatform(password, qop)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def udp_sink() -> AsyncIterator[RtpSink]:
    """An even UDP port and the one above."""
    loop = asyncio.get_running_loop()
    while True:
        first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        try:
            if port % 2:
                raise OSError("odd")
            second.bind(("127.0.0.1", port + 1))
            break
        except OSError:
            first.close()
            second.close()
    first.setblocking(False)
    second.setblocking(False)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sink = RtpSink(port)

    def keep(data: bytes, source: object) -> None:
        sink.packets.append(data)
        sink.sources.add(source)

    rtp, _ = await loop.create_datagram_endpoint(lambda: _Udp(keep), sock=first)
    rtcp, _ = await loop.create_datagram_endpoint(
        lambda: _Udp(lambda data, _: sink.rtcp.append(data)), sock=second
    )
    try:
        yield sink
    finally:
        rtp.close()
        rtcp.close()


@asynccontextmanager
async def tcp_sink(connect_to: int = 0) -> AsyncIterator[RtpSink]:
    """A TCP port that takes one connection of RTP; with `connect_to` it dials that port instead."""
    sink = RtpSink(0)
    tasks: set[asyncio.Task[None]] = set()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sink.connections += 1
        sink.sources.add(writer.get_extra_info("peername"))
        sink.close = writer.transport.abort
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
        with suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65536):
                sink.stream += data
        writer.close()

    server: asyncio.Server | None = None
    if connect_to:
        reader, writer = await asyncio.open_connection("127.0.0.1", connect_to)
        dialled = asyncio.create_task(read(reader, writer))
        tasks.add(dialled)
    else:
        server = await asyncio.start_server(read, "127.0.0.1", 0)
        sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        if server is not None:
            server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def deframe(stream: bytes) -> list[bytes]:
    """Packets of a clean RFC 4571 stream."""
    packets: list[bytes] = []
    position = 0
    while position + 2 <= len(stream):
        length = int.from_bytes(stream[position : position + 2], "big")
        if position + 2 + length > len(stream):
            break
        packets.append(bytes(stream[position + 2 : position + 2 + length]))
        position += 2 + length
    return packets
