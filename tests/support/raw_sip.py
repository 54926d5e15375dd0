"""SIP written by hand: peers that send any bytes from any loopback address, and just enough of a device to be
believed. Nothing here uses the gateway's own SIP code, so a mistake there cannot hide itself.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from tests.support.gateway import DEADLINE_SCALE, PASSWORD

T = TypeVar("T")
SERVER_ID = "34020000002000000001"
DOMAIN = "3402000000"
MANSCDP = "Application/MANSCDP+xml"
_hosts = itertools.count(1)
_ids = itertools.count(1)


def fresh_host() -> str:
    """A loopback address that nothing has used yet: refusals are counted by address (S-20)."""
    number = next(_hosts)
    return f"127.20.{number // 250}.{number % 250 + 1}"


def fresh_id(kind: str = "118") -> str:
    """A device id that nothing has used yet."""
    return f"3402000000{kind}9{next(_ids):06d}"


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the gateway, read without any tolerance."""

    raw: bytes
    first: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def read(cls, raw: bytes) -> Received:
        head, separator, body = raw.partition(b"\r\n\r\n")
        assert separator, f"no end of the head: {raw!r}"
        lines = head.decode("utf-8", "surrogateescape").split("\r\n")
        fields = tuple(
            (name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])
        )
        assert int(dict(fields)["Content-Length"]) == len(body), raw
        return cls(raw, lines[0], fields, body)

    def get(self, name: str) -> str:
        return next((value for key, value in self.fields if key.lower() == name.lower()), "")

    @property
    def status(self) -> int:
        """0 for a request."""
        return int(self.first.split(" ", 2)[1]) if self.first.startswith("SIP/") else 0

    @property
    def method(self) -> str:
        """Of CSeq."""
        return self.get("CSeq").split()[-1]

    @property
    def key(self) -> tuple[str, str]:
        return self.get("Call-ID"), self.get("CSeq")

    @property
    def to_tag(self) -> str:
        return self.get("To").partition(";tag=")[2]

    @property
    def from_tag(self) -> str:
        return self.get("From").partition(";tag=")[2]

    def masked(self, *secret: str) -> bytes:
        """The octets without what must differ from answer to answer: nonce, tags, branch, Call-ID, Date, `secret`."""
        text = self.raw.decode("ascii")
        for word in secret:
            text = text.replace(word, "*")
        text = re.sub(r'nonce="[^"]*"', 'nonce="*"', text)
        text = re.sub(r"(;(?:tag|branch|rport|received)=)[^;>\r\n]*", r"\1*", text)
        return re.sub(r"(?m)^(Call-ID|Date|CSeq|Via): .*?\r$", r"\1: *\r", text).encode()


def request(
    method: str,
    user: str,
    *,
    to_user: str = "",
    uri: str = "",
    via: str = "127.0.0.1:5060",
    transport: str = "UDP",
    call_id: str = "",
    cseq: int = 1,
    from_tag: str = "",
    to_tag: str = "",
    branch: str = "",
    extra: Sequence[str] = (),
    body: bytes = b"",
    content_type: str = "",
) -> bytes:
    """A sound request; `extra` are further lines of the head."""
    to = f"<sip:{to_user or (user if method == 'REGISTER' else SERVER_ID)}@{DOMAIN}>"
    lines = [
        f"{method} {uri or f'sip:{SERVER_ID}@{DOMAIN}'} SIP/2.0",
        f"Via: SIP/2.0/{transport} {via};rport;branch={branch or 'z9hG4bK' + secrets.token_hex(8)}",
        f"From: <sip:{user}@{DOMAIN}>;tag={from_tag or secrets.token_hex(4)}",
        f"To: {to};tag={to_tag}" if to_tag else f"To: {to}",
        f"Call-ID: {call_id or secrets.token_hex(8)}",
        f"CSeq: {cseq} {method}",
        "Max-Forwards: 70",
        *extra,
    ]
    if content_type or body:
        lines.append(f"Content-Type: {content_type or MANSCDP}")
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reply(
    to: Received,
    status: int,
    *,
    to_tag: str,
    extra: Sequence[str] = (),
    body: bytes = b"",
    content_type: str = "",
) -> bytes:
    """An answer to a request of the gateway."""
    lines = [f"SIP/2.0 {status} Because"]
    for name, value in to.fields:
        if name in ("Via", "From", "Call-ID", "CSeq"):
            lines.append(f"{name}: {value}")
        elif name == "To":
            lines.append(f"To: {value}" if "tag=" in value else f"To: {value};tag={to_tag}")
    lines += extra
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def authorization(challenge: str, user: str, password: str, *, method: str = "REGISTER") -> str:
    """The line that answers a `WWW-Authenticate` (MD5, with or without qop)."""
    asked = dict(re.findall(r'(\w+)="?([^",]+)"?', challenge.partition(" ")[2]))
    uri = f"sip:{SERVER_ID}@{DOMAIN}"
    ha1 = _md5(f"{user}:{asked['realm']}:{password}")
    ha2 = _md5(f"{method}:{uri}")
    parts = [
        f'username="{user}"',
        f'realm="{asked["realm"]}"',
        f'nonce="{asked["nonce"]}"',
        f'uri="{uri}"',
        "algorithm=MD5",
    ]
    if "qop" in asked:
        cnonce = secrets.token_hex(4)
        parts += ["qop=auth", "nc=00000001", f'cnonce="{cnonce}"']
        response = _md5(f"{ha1}:{asked['nonce']}:00000001:{cnonce}:auth:{ha2}")
    else:
        response = _md5(f"{ha1}:{asked['nonce']}:{ha2}")
    return "Authorization: Digest " + ", ".join([*parts, f'response="{response}"'])


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class UdpPeer:
    """A UDP socket of its own address."""

    transport = "UDP"

    def __init__(self, port: int, host: str = "", source_port: int = 0) -> None:
        self.host = host or fresh_host()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.host, source_port))
        self._socket.connect(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self.ended = False

    @property
    def via(self) -> str:
        return f"{self.host}:{self.port}"

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def receive(self, limit_s: float = 5.0) -> Received | None:
        """The next datagram; None when none comes in time."""
        self._socket.settimeout(limit_s * DEADLINE_SCALE)
        try:
            return Received.read(self._socket.recv(65536))
        except (TimeoutError, ConnectionRefusedError):
            return None

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> UdpPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TcpPeer:
    """A TCP connection from an address of its own."""

    transport = "TCP"

    def __init__(self, port: int, host: str = "", source_port: int = 0, receive_buffer: int = 0) -> None:
        self.host = host or fresh_host()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.bind((self.host, source_port))
        self._socket.settimeout(5 * DEADLINE_SCALE)
        self._buffer = b""
        self.pongs = 0
        """Line ends between messages."""
        self.ended = False
        """The gateway has closed or reset the connection."""
        try:
            self._socket.connect(("127.0.0.1", port))
        except ConnectionResetError:
            self.ended = True
        self.port = int(self._socket.getsockname()[1])

    @property
    def via(self) -> str:
        return f"{self.host}:{self.port}"

    def send(self, data: bytes) -> None:
        """Errors show at `receive`, after what the gateway had sent before."""
        with suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
            self._socket.sendall(data)

    def receive(self, limit_s: float = 5.0) -> Received | None:
        """The next message; None when none comes in time, and at the end of the connection."""
        deadline = time.monotonic() + limit_s * DEADLINE_SCALE
        while True:
            while self._buffer.startswith(b"\r\n"):
                self._buffer = self._buffer[2:]
                self.pongs += 1
            end = self._buffer.find(b"\r\n\r\n")
            if end >= 0:
                length = re.search(rb"(?i)\r\nContent-Length: *(\d+)", self._buffer[: end + 2])
                assert length is not None, self._buffer
                size = end + 4 + int(length[1])
                if len(self._buffer) >= size:
                    message, self._buffer = self._buffer[:size], self._buffer[size:]
                    return Received.read(message)
            if self.ended or not self._more(deadline):
                return None

    def _more(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        self._buffer += data
        self.ended = not data
        return bool(data)

    def wait_end(self, limit_s: float) -> bool:
        """Read, and drop, until the gateway ends the connection; False when it does not."""
        deadline = time.monotonic() + limit_s * DEADLINE_SCALE
        while not self.ended and self._more(deadline):
            self._buffer = b""
        return self.ended

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> TcpPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Peer = UdpPeer | TcpPeer


def answers_to(peer: Peer, *sent: bytes) -> list[Received]:
    """What a stranger gets for `sent`. Known without waiting for silence: answers come in order, and a REGISTER of
    an id that nobody used is always challenged, so what has not come before that challenge does not come.
    """
    for data in sent:
        peer.send(data)
    user = fresh_id()
    fence = request("REGISTER", user, via=peer.via, transport=peer.transport)
    call_id = Received.read(fence).get("Call-ID")
    peer.send(fence)
    came: list[Received] = []
    while True:
        answer = peer.receive()
        if answer is None:
            assert peer.ended, f"no challenge came; before it: {[one.first for one in came]}"
            return came
        if answer.get("Call-ID") == call_id:
            assert answer.status == 401, answer.first
            return came
        came.append(answer)


def register(peer: Peer, user: str, password: str = PASSWORD, *, extra: Sequence[str] = ()) -> list[Received]:
    """A REGISTER and, when it is challenged, the answer to that; all answers of the gateway that came."""

    def send(cseq: int, *more: str) -> Received | None:
        data = request(
            "REGISTER",
            user,
            via=peer.via,
            transport=peer.transport,
            call_id=call_id,
            cseq=cseq,
            extra=(f"Contact: <sip:{user}@{peer.via}>", "Expires: 3600", *more, *extra),
        )
        peer.send(data)
        return peer.receive()

    call_id = secrets.token_hex(8)
    challenge = send(1)
    if challenge is None or challenge.status != 401:
        return [challenge] if challenge is not None else []
    answer = send(2, authorization(challenge.get("WWW-Authenticate"), user, password))
    return [challenge, answer] if answer is not None else [challenge]


def keepalive(device_id: str, sn: int = 1) -> bytes:
    return (
        f'<?xml version="1.0" encoding="GB2312"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>{sn}</SN>\r\n'
        f"<DeviceID>{device_id}</DeviceID>\r\n<Status>OK</Status>\r\n</Notify>\r\n"
    ).encode()


def catalogue(device_id: str, channels: Sequence[str], sn: int, total: int | None = None) -> bytes:
    items = "".join(
        f"<Item>\r\n<DeviceID>{one}</DeviceID>\r\n<Name>Raw {one[-4:]}</Name>\r\n<Manufacturer>raw</Manufacturer>\r\n"
        f"<Model>raw</Model>\r\n<Owner>raw</Owner>\r\n<CivilCode>340200</CivilCode>\r\n<Address>raw</Address>\r\n"
        f"<Parental>0</Parental>\r\n<ParentID>{device_id}</ParentID>\r\n<RegisterWay>1</RegisterWay>\r\n"
        f"<Secrecy>0</Secrecy>\r\n<Status>ON</Status>\r\n</Item>\r\n"
        for one in channels
    )
    return (
        f'<?xml version="1.0" encoding="GB2312"?>\r\n<Response>\r\n<CmdType>Catalog</CmdType>\r\n<SN>{sn}</SN>\r\n'
        f"<DeviceID>{device_id}</DeviceID>\r\n<SumNum>{len(channels) if total is None else total}</SumNum>\r\n"
        f'<DeviceList Num="{len(channels)}">\r\n{items}</DeviceList>\r\n</Response>\r\n'
    ).encode()


@dataclass(frozen=True, slots=True)
class Offer:
    """What an INVITE of the gateway offers."""

    host: str
    port: int
    ssrc: int
    transport: str
    """Of the m= line."""

    @classmethod
    def read(cls, invite: Received) -> Offer:
        text = invite.body.decode()
        host = re.search(r"(?m)^c=IN IP4 ([\d.]+)", text)
        media = re.search(r"(?m)^m=video (\d+) (\S+)", text)
        ssrc = re.search(r"(?m)^y=(\d{10})", text)
        assert host is not None and media is not None and ssrc is not None, text
        return cls(host[1], int(media[1]), int(ssrc[1]), media[2])

    def answer(self, host: str, port: int, device_id: str) -> bytes:
        """The SDP of a device that sends a program stream as offered."""
        setup = "a=setup:active\r\na=connection:new\r\n" if self.transport.startswith("TCP") else ""
        return (
            f"v=0\r\no={device_id} 0 0 IN IP4 {host}\r\ns=Play\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
            f"m=video {port} {self.transport} 96\r\n{setup}a=sendonly\r\na=rtpmap:96 PS/90000\r\n"
            f"y={self.ssrc:010d}\r\n"
        ).encode()


@dataclass(eq=False)
class RawDevice:
    """A device on a thread: it answers every query with 200, a catalogue query also with its channels, and an
    INVITE only when the test says so. `mute` makes it deaf and dumb.
    """

    peer: Peer
    id: str
    channels: Sequence[str] = ()
    mute: bool = False
    refusal: int = 0
    """Status of the answer to each INVITE; 0: the test answers."""
    received: list[Received] = field(default_factory=list)
    """Everything, in order of arrival."""

    def __post_init__(self) -> None:
        self.tag = secrets.token_hex(4)
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> RawDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closing = True
        self._thread.join(5 * DEADLINE_SCALE)
        self.peer.close()

    # in

    def _run(self) -> None:
        while not self._closing:
            message = self.peer.receive(0.1 / DEADLINE_SCALE)
            if message is None:
                if self.peer.ended:
                    with self._news:
                        self._news.notify_all()
                    return
                continue
            with self._news:
                self.received.append(message)
                self._news.notify_all()
            if not self.mute and not message.status:
                self._serve(message)

    def _serve(self, message: Received) -> None:
        if message.method == "INVITE" and self.refusal:
            self.peer.send(reply(message, self.refusal, to_tag=self.tag))
        if message.method in ("ACK", "INVITE"):
            return
        self.peer.send(reply(message, 200, to_tag=self.tag))
        found = re.search(rb"<CmdType>Catalog</CmdType>\s*<SN>(\d+)</SN>", message.body)
        if message.method == "MESSAGE" and found is not None:
            self.peer.send(self.request("MESSAGE", body=catalogue(self.id, self.channels, int(found[1]))))

    def wait(self, fits: Callable[[Received], T | None], what: str, limit_s: float = 10.0) -> T:
        """The first thing that `fits` makes of what was received."""
        deadline = time.monotonic() + limit_s * DEADLINE_SCALE
        with self._news:
            while True:
                for message in self.received:
                    found = fits(message)
                    if found is not None:
                        return found
                left = deadline - time.monotonic()
                if left <= 0 or self.peer.ended:
                    raise AssertionError(f"{what}: {[one.first for one in self.received[-5:]]}")
                self._news.wait(left)

    def wait_request(self, method: str, limit_s: float = 10.0, *, after: int = 0) -> Received:
        """The first request of this method behind the `after` first messages."""
        old = {id(one) for one in self.received[:after]}
        return self.wait(
            lambda one: one if not one.status and one.method == method and id(one) not in old else None,
            f"{method} of the gateway",
            limit_s,
        )

    # out

    def request(self, method: str, *, user: str = "", body: bytes = b"", **more: object) -> bytes:
        return request(
            method,
            user or self.id,
            via=self.peer.via,
            transport=self.peer.transport,
            body=body,
            **more,  # type: ignore[arg-type]
        )

    def transact(self, data: bytes, limit_s: float = 10.0) -> Received:
        """Send a request and wait for its answer."""
        key = Received.read(data).key
        self.peer.send(data)
        return self.wait(
            lambda one: one if one.status >= 200 and one.key == key else None, f"an answer to {key}", limit_s
        )

    def register(self, password: str = PASSWORD) -> Received:
        """Register; the last answer."""
        call_id = secrets.token_hex(8)

        def attempt(cseq: int, *more: str) -> Received:
            extra = (f"Contact: <sip:{self.id}@{self.peer.via}>", "Expires: 3600", *more)
            return self.transact(self.request("REGISTER", call_id=call_id, cseq=cseq, extra=extra))

        challenge = attempt(1)
        if challenge.status != 401:
            return challenge
        return attempt(2, authorization(challenge.get("WWW-Authenticate"), self.id, password))

    def keepalive(self, sn: int = 1) -> Received:
        return self.transact(self.request("MESSAGE", body=keepalive(self.id, sn)))

    def answers_to(self, *sent: bytes) -> list[Received]:
        """What comes for `sent`, told by an OPTIONS that a known peer is always answered."""
        with self._news:
            start = len(self.received)
        for data in sent:
            self.peer.send(data)
        fence = self.request("OPTIONS")
        key = Received.read(fence).key
        assert self.transact(fence).status == 200
        with self._news:
            came = self.received[start:]
        return [one for one in came if one.status and one.key != key]

    def accept(self, invite: Received, *, port: int) -> Offer:
        """200 to an INVITE: media will come from this port of this peer's host."""
        offer = Offer.read(invite)
        self.peer.send(
            reply(
                invite,
                200,
                to_tag=self.tag,
                extra=(f"Contact: <sip:{self.id}@{self.peer.via}>",),
                body=offer.answer(self.peer.host, port, self.id),
                content_type="application/sdp",
            )
        )
        return offer
