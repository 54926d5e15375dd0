"""Helpers of the tests of devices and storage: a clock that tests own, a bus that remembers, ids."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Self

from gb28181gw.clock import Clock, SystemClock
from gb28181gw.devices.config import DevicesConfig, Enrolment
from gb28181gw.devices.models import Binding, Device
from gb28181gw.devices.reports import Reports
from gb28181gw.devices.service import Devices
from gb28181gw.devices.snapshots import Snapshots
from gb28181gw.devices.subscriptions import DeviceSubscriptions, SubscribeConfig
from gb28181gw.errors import GatewayError
from gb28181gw.observability.event_table import EVENTS
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.message import Request, Response
from gb28181gw.sip.parser import parse_datagram
from gb28181gw.sip.path import Path
from gb28181gw.sip.timers import Timers
from gb28181gw.storage.database import Database
from gb28181gw.storage.reports import SqliteReportStore
from gb28181gw.storage.snapshots import SnapshotFiles
from gb28181gw.storage.sqlite import SqliteDeviceStore
from gb28181gw.storage.subscriptions import SqliteSubscriptionStore
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.models import AgentConfig, Target

PLATFORM = "34020000002000000001"
DOMAIN = "3402000000"


def device_id(number: int, type_code: int = 118) -> str:
    """A well-formed device id."""
    return f"34020000{0:02d}{type_code:03d}{number:07d}"


def udp(port: int = 5060, host: str = "10.1.1.1") -> Path:
    return Path("udp", host, port, "127.0.0.1", 5060)


def tcp(connection_id: int, host: str = "10.1.1.1", port: int = 40000) -> Path:
    return Path("tcp", host, port, "127.0.0.1", 5060, connection_id)


@dataclass
class FakeClock:
    """Both clocks move only by `advance`."""

    now: float = 1_000.0
    date: float = 1_714_523_400.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.date

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.date += seconds


class RecordingBus(EventBus):
    """An `EventBus` that keeps (name, fields) and checks both against the table."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def emit(self, name: str, **fields: object) -> None:
        row = EVENTS[name]
        unknown = set(fields) - set(row.fields)
        assert not unknown, f"{name} has no fields {unknown}"
        self.seen.append((name, dict(fields)))

    def names(self) -> list[str]:
        return [name for name, _ in self.seen]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [fields for seen, fields in self.seen if seen == name]


def binding(path: Path, **changes: Any) -> Binding:
    values: dict[str, Any] = {
        "path": path,
        "registered_at": 1_714_523_400.0,
        "expires_at": 1_714_527_000.0,
        "domain": DOMAIN,
        "call_id": "call-1",
        "cseq": 1,
        "contact": "<sip:x@10.1.1.1>",
        "user_agent": "Test",
        "edition": "2.0",
    }
    return Binding(**{**values, **changes})


@dataclass
class Calls:
    """A callback that remembers what it was called with."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __call__(self, *values: Any) -> None:
        self.calls.append(values)


def make_device(number: int = 1, **values: Any) -> Device:
    return Device(id=device_id(number), **values)


# -- a device without a socket ------------------------------------------------------------------------------------


class FakeIncoming:
    """A request as a handler sees it, and what the handler did with it."""

    def __init__(self, text: str, path: Path, body: bytes = b"") -> None:
        parsed = parse_datagram(text.encode("gb18030"))
        assert isinstance(parsed, Request)
        parsed.body = body
        self.request = parsed
        self.path = path
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.ignored = False

    @property
    def from_user(self) -> str:
        return self.request.from_.uri.user

    def respond(
        self,
        status: int,
        reason: str = "",
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> None:
        assert not self.statuses, "answered twice"
        self.statuses.append(status)
        self.headers = {name.lower(): value for name, value in headers}

    def ignore(self) -> None:
        assert not self.statuses
        self.ignored = True

    @property
    def status(self) -> int | None:
        return self.statuses[0] if self.statuses else None


def message(path: Path, body: str | bytes, user: str, method: str = "MESSAGE") -> FakeIncoming:
    """A MESSAGE or NOTIFY of `user` over `path`."""
    octets = body.encode("gb18030") if isinstance(body, str) else body
    head = (
        f"{method} sip:{PLATFORM}@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.64:5060;rport;branch=z9hG4bKx\r\n"
        f"From: <sip:{user}@{DOMAIN}>;tag=t\r\nTo: <sip:{PLATFORM}@{DOMAIN}>\r\nCall-ID: c@x\r\nCSeq: 1 {method}\r\n"
        f"Content-Type: Application/MANSCDP+xml\r\nContent-Length: 0\r\n\r\n"
    )
    return FakeIncoming(head, path, octets)


def keepalive_body(device: str, status: str = "OK") -> str:
    return (
        '<?xml version="1.0"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>1</SN>\r\n'
        f"<DeviceID>{device}</DeviceID>\r\n<Status>{status}</Status>\r\n</Notify>\r\n"
    )


class PaperDevice:
    """Writes the requests of a device from the standard's words."""

    def __init__(self, device: str, path: Path, password: str = "secret-password") -> None:
        self.id = device
        self.path = path
        self.password = password
        self.username = device
        self.realm = DOMAIN
        self.call_id = f"call-{device[-4:]}"
        self.cseq = 0
        self.nonce = ""
        self.count = 0

    def register(
        self, *extra: str, expires: int | None = 3600, to: str = "", credentials: bool = False
    ) -> FakeIncoming:
        self.cseq += 1
        lines = [
            f"REGISTER sip:{PLATFORM}@{DOMAIN} SIP/2.0",
            f"Via: SIP/2.0/UDP 192.168.1.64:5060;rport;branch=z9hG4bK{self.call_id}{self.cseq}",
            f"From: <sip:{self.id}@{DOMAIN}>;tag=t{self.cseq}",
            f"To: <sip:{to or self.id}@{DOMAIN}>",
            f"Call-ID: {self.call_id}",
            f"CSeq: {self.cseq} REGISTER",
            f"Contact: <sip:{self.id}@192.168.1.64:5060>",
            *([f"Expires: {expires}"] if expires is not None else []),
            *([self.authorization()] if credentials else []),
            *extra,
        ]
        return FakeIncoming("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n", self.path)

    def take(self, incoming: FakeIncoming) -> None:
        """Remember the challenge that the registrar gave."""
        assert incoming.status == 401, incoming.statuses
        found = re.search(r'nonce="([^"]+)"', incoming.headers["www-authenticate"])
        assert found is not None
        self.nonce, self.count = found[1], 0

    def authorization(
        self,
        *,
        qop: bool = True,
        count: int | None = None,
        uri: str = f"sip:{PLATFORM}@{DOMAIN}",
        nc: str = "",
    ) -> str:
        ha1 = md5(f"{self.username}:{self.realm}:{self.password}")
        ha2 = md5(f"REGISTER:{uri}")
        who = f'username="{self.username}", realm="{self.realm}"'
        head = f'Authorization: Digest {who}, nonce="{self.nonce}", uri="{uri}"'
        if not qop:
            return f'{head}, response="{md5(f"{ha1}:{self.nonce}:{ha2}")}", algorithm=MD5'
        if count is None:
            self.count += 1
            count = self.count
        nc = nc or f"{count:08x}"
        response = md5(f"{ha1}:{self.nonce}:{nc}:cn:auth:{ha2}")
        return f'{head}, response="{response}", algorithm=MD5, qop=auth, nc={nc}, cnonce="cn"'


class FakeAgent:
    """Takes requests instead of `ua.UserAgent`; a test says who answers what."""

    def __init__(self) -> None:
        self.sent: list[tuple[Path, str, str]] = []
        """Path, To user, body."""
        self.silent: set[Path] = set()
        self.status = 200
        self.hear: Callable[[Path, str], None] | None = None
        """Called with each request that is answered, before its answer."""

    async def request(
        self,
        target: Target,
        method: str,
        *,
        body: bytes = b"",
        content_type: str = "",
        timeout_s: float | None = None,
    ) -> Response:
        assert method == "MESSAGE"
        text = body.decode("gb18030")
        self.sent.append((target.path, target.user, text))
        if target.path in self.silent:
            await asyncio.sleep(timeout_s or 0)
            raise GatewayError("gb.sip.no_answer")
        if self.hear is not None:
            self.hear(target.path, text)
        await asyncio.sleep(0)
        return Response(self.status, "X")

    def queries(self, kind: str) -> list[int]:
        """SNs of the queries of this type that were sent."""
        return [int(between(text, "SN")) for _, _, text in self.sent if between(text, "CmdType") == kind]


# -- a device on a real socket, and the gateway's side of it -------------------------------------------------------


class SipDevice(asyncio.DatagramProtocol):
    """A device written from the standard's flows with strings only: it shares no SIP code with what it tests.

    Requests of the gateway are answered 200 (or by `answer_status`) and kept in `requests`; `on_query` may send
    answers. Responses are kept by CSeq method and number.
    """

    def __init__(self, device: str, password: str = "secret-password", domain: str = DOMAIN) -> None:
        self.id = device
        self.password = password
        self.domain = domain
        self.call_id = secrets.token_hex(8)
        self.cseq = 0
        self.responses: dict[int, list[tuple[int, dict[str, str]]]] = {}
        self.requests: list[tuple[str, dict[str, str], str]] = []
        self.on_query: Callable[[str, int], Sequence[str]] | None = None
        self.answer_status: int | None = 200
        self.host = "127.0.0.1"
        self.port = 0
        self.nonce = ""
        self.count = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._server = ("127.0.0.1", 0)

    async def open(self, server_port: int, host: str = "127.0.0.1") -> Self:
        self.host = host
        self._server = ("127.0.0.1", server_port)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        head, _, body = data.decode("gb18030", "replace").partition("\r\n\r\n")
        lines = head.split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if lines[0].startswith("SIP/2.0"):
            number = int(headers["cseq"].split()[0])
            self.responses.setdefault(number, []).append((int(lines[0].split()[1]), headers))
            return
        method = lines[0].split()[0]
        self.requests.append((method, headers, body))
        if self.answer_status is not None:
            self.send(
                f"SIP/2.0 {self.answer_status} X\r\nVia: {headers['via']}\r\nFrom: {headers['from']}\r\n"
                f"To: {headers['to']};tag=d\r\nCall-ID: {headers['call-id']}\r\nCSeq: {headers['cseq']}\r\n"
                "Content-Length: 0\r\n\r\n"
            )
        if self.on_query is not None and "<Query>" in body:
            kind, sn = between(body, "CmdType"), int(between(body, "SN"))
            for answer in self.on_query(kind, sn):
                self.message(answer)

    def send(self, text: str, encoding: str = "gb18030") -> None:
        assert self._transport is not None
        self._transport.sendto(text.encode(encoding), self._server)

    def request(self, method: str, *extra: str, body: str = "", user: str = "", call_id: str = "") -> int:
        """Send a request and return its CSeq number."""
        self.cseq += 1
        user = user or self.id
        size = len(body.encode("gb18030"))
        lines = [
            f"{method} sip:{PLATFORM}@{self.domain} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.host}:{self.port};rport;branch=z9hG4bK{secrets.token_hex(8)}",
            f"From: <sip:{user}@{self.domain}>;tag={secrets.token_hex(4)}",
            f"To: <sip:{user if method == 'REGISTER' else PLATFORM}@{self.domain}>",
            f"Call-ID: {call_id or (self.call_id if method == 'REGISTER' else secrets.token_hex(8))}",
            f"CSeq: {self.cseq} {method}",
            f"Contact: <sip:{user}@{self.host}:{self.port}>",
            "Max-Forwards: 70",
            *extra,
            f"Content-Length: {size}",
        ]
        self.send("\r\n".join(lines) + "\r\n\r\n" + body)
        return self.cseq

    def message(self, body: str, user: str = "") -> int:
        return self.request("MESSAGE", "Content-Type: Application/MANSCDP+xml", body=body, user=user)

    def keepalive(self, status: str = "OK", user: str = "") -> int:
        return self.message(keepalive_body(user or self.id, status), user=user)

    async def answer(self, number: int, timeout_s: float = 5.0) -> tuple[int, dict[str, str]]:
        """The final response to a request of ours."""
        await until(lambda: any(one[0] >= 200 for one in self.responses.get(number, ())), timeout_s)
        return next(one for one in self.responses[number] if one[0] >= 200)

    async def registered(
        self, expires: int = 3600, *extra: str, fresh: bool = True
    ) -> tuple[int, dict[str, str]]:
        """The whole flow; returns the last answer. `fresh`: ask for a challenge first."""
        if fresh or not self.nonce:
            status, headers = await self.answer(self.request("REGISTER", f"Expires: {expires}", *extra))
            if status != 401:
                return status, headers
            self.take(headers)
        number = self.request("REGISTER", f"Expires: {expires}", self.authorization(), *extra)
        status, headers = await self.answer(number)
        if status == 401:
            self.take(headers)
        return status, headers

    def take(self, headers: dict[str, str]) -> None:
        """Remember the challenge."""
        challenge = headers["www-authenticate"]
        self.nonce = re.search(r'nonce="([^"]+)"', challenge)[1]  # type: ignore[index]
        self.count = 0

    def authorization(self, *, qop: bool = True, method: str = "REGISTER", count: int | None = None) -> str:
        uri = f"sip:{PLATFORM}@{self.domain}"
        ha1 = md5(f"{self.id}:{DOMAIN}:{self.password}")
        ha2 = md5(f"{method}:{uri}")
        head = (
            f'Authorization: Digest username="{self.id}", realm="{DOMAIN}", nonce="{self.nonce}", uri="{uri}"'
        )
        if not qop:
            return f'{head}, response="{md5(f"{ha1}:{self.nonce}:{ha2}")}", algorithm=MD5'
        if count is None:
            self.count += 1
            count = self.count
        nc = f"{count:08x}"
        response = md5(f"{ha1}:{self.nonce}:{nc}:cn:auth:{ha2}")
        return f'{head}, response="{response}", algorithm=MD5, qop=auth, nc={nc}, cnonce="cn"'


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def between(text: str, tag: str) -> str:
    return text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]


async def until(look: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Poll until `look()` is true. Fails the test when it never is."""
    scale = float(os.environ.get("GB28181GW_TEST_TIME_SCALE", "1"))
    async with asyncio.timeout(timeout_s * scale):
        while not look():
            await asyncio.sleep(0.005)


def catalogue_part(device: str, sn: int, items: Sequence[str], total: int) -> str:
    """Response/Catalog with ready `items`."""
    return (
        '<?xml version="1.0" encoding="GB2312"?>\r\n<Response>\r\n<CmdType>Catalog</CmdType>\r\n'
        f"<SN>{sn}</SN>\r\n<DeviceID>{device}</DeviceID>\r\n<SumNum>{total}</SumNum>\r\n"
        f'<DeviceList Num="{len(items)}">\r\n{"".join(items)}</DeviceList>\r\n</Response>\r\n'
    )


def item(number: int, parent: str = "", **fields: str) -> str:
    """One camera of a catalogue."""
    values = {
        "DeviceID": f"34020000001320{number:06d}",
        "Name": f"通道 {number}",
        "Manufacturer": "Maker",
        "Model": "IPC",
        "Owner": "Owner",
        "CivilCode": "340200",
        "Address": "Address 1",
        "Parental": "0",
        "ParentID": parent,
        "RegisterWay": "1",
        "Secrecy": "0",
        "Status": "ON",
        **fields,
    }
    return (
        "<Item>\r\n"
        + "".join(f"<{name}>{text}</{name}>\r\n" for name, text in values.items())
        + "</Item>\r\n"
    )


@asynccontextmanager
async def gateway(
    path: FilePath,
    *,
    port: int = 0,
    clock: Clock | None = None,
    subscribe: SubscribeConfig | None = None,
    timers: Timers | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Devices with real storage, transports and user agent on a loopback port; nothing is subscribed by itself
    unless `subscribe` says so."""
    bus = RecordingBus()
    used = clock or SystemClock()
    database = Database(path / "test.db")
    database.start()
    transports = Transports(clock=used)
    agent = UserAgent(
        AgentConfig(id=PLATFORM, domain=DOMAIN, user_agent="gb28181gw"), Endpoint(timers), transports, used
    )
    config = DevicesConfig(
        **{
            "platform_id": PLATFORM,
            "domain": DOMAIN,
            "password": "secret-password",
            "enrolment": Enrolment.OPEN,
            **settings,
        }
    )
    devices = Devices(config=config, agent=agent, store=SqliteDeviceStore(database), bus=bus, clock=used)
    reports = Reports(
        registry=devices.registry,
        messages=devices.messages,
        queries=devices.queries,
        store=SqliteReportStore(database),
        bus=bus,
        clock=used,
        timezone=config.timezone,
    )
    subscriptions = DeviceSubscriptions(
        config=subscribe if subscribe is not None else SubscribeConfig(kinds=()),
        registry=devices.registry,
        presence=devices.presence,
        messages=devices.messages,
        subscriptions=agent.subscriptions,
        store=SqliteSubscriptionStore(database),
        bus=bus,
        clock=used,
        next_sn=devices.queries.next_sn,
    )
    upload_port = [0]
    snapshots = Snapshots(
        registry=devices.registry,
        commands=devices.commands,
        store=SnapshotFiles(database, path / "snapshots"),
        bus=bus,
        clock=used,
        base_url=lambda _device: f"http://127.0.0.1:{upload_port[0]}/upload",
    )
    reports.on_snapshots(snapshots.finished)
    await devices.start()
    reports.start()
    subscriptions.start()
    bound = await transports.listen("127.0.0.1", port)
    subscriptions.begin()
    try:
        yield Running(
            devices=devices,
            agent=agent,
            bus=bus,
            database=database,
            port=bound,
            reports=reports,
            subscriptions=subscriptions,
            snapshots=snapshots,
            upload_port=upload_port,
        )
    finally:
        await snapshots.close()
        await subscriptions.close()
        await reports.close()
        await devices.close()
        await agent.close()
        await transports.close()
        await database.close()


@dataclass(frozen=True, kw_only=True)
class Running:
    devices: Devices
    agent: UserAgent
    bus: RecordingBus
    database: Database
    port: int
    reports: Reports
    subscriptions: DeviceSubscriptions
    snapshots: Snapshots
    upload_port: list[int]
    """Where the receiver of pictures is; a test that has one says so."""
