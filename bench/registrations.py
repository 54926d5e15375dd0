"""What a CPU second of the signalling process is worth: registrations, keepalives, positions, catalogue items.

    python bench/registrations.py [--devices 4000] [--keepalives 40000] [--positions 40000]
                                  [--items 40000]

The process under test is the real stack (UDP on uvloop, parser, transactions, digest, devices, SQLite with its writer
thread, structured log lines to /dev/null) without media and HTTP. The load comes from this process over loopback, a
window of devices at a time, each message built before the clock starts where that is possible. CPU time is that of
the process under test, all its threads, user and system, from /proc.

A challenged registration is four messages (REGISTER, 401, REGISTER, 200), its binding committed before the 200.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import gc
import hashlib
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gb28181gw.storage.sqlite import SqliteDeviceStore

PLATFORM = "34020000002000000001"
DOMAIN = "3402000000"
PASSWORD = "bench-password-1"
WINDOW = 64
"""Requests that wait for their answers at one time."""

# ---- the process under test


async def serve(directory: Path, profile_to: str) -> None:
    from gb28181gw.clock import SystemClock
    from gb28181gw.devices.config import DevicesConfig, Enrolment
    from gb28181gw.devices.reports import Reports
    from gb28181gw.devices.service import Devices
    from gb28181gw.devices.subscriptions import DeviceSubscriptions, Kind, SubscribeConfig
    from gb28181gw.observability.events import EventBus
    from gb28181gw.sip.endpoint import Endpoint
    from gb28181gw.storage.database import Database
    from gb28181gw.storage.reports import SqliteReportStore
    from gb28181gw.storage.sqlite import SqliteDeviceStore
    from gb28181gw.storage.subscriptions import SqliteSubscriptionStore
    from gb28181gw.transport.transports import Transports
    from gb28181gw.ua.agent import UserAgent
    from gb28181gw.ua.models import AgentConfig

    clock = SystemClock()
    database = Database(directory / "bench.db")
    database.start()
    transports = Transports(clock=clock)
    agent = UserAgent(
        AgentConfig(id=PLATFORM, domain=DOMAIN, user_agent="gb28181gw"), Endpoint(), transports, clock
    )
    config = DevicesConfig(
        platform_id=PLATFORM,
        domain=DOMAIN,
        password=PASSWORD,
        enrolment=Enrolment.OPEN,
        # Queries would disturb the other figures: only the devices of the catalogue phase are asked.
        requests_per_s=100_000.0,
        catalogues_in_flight=50,
    )
    bus = EventBus()
    started = time.perf_counter()
    devices = Devices(config=config, agent=agent, store=SqliteDeviceStore(database), bus=bus, clock=clock)
    await devices.start()
    loaded_s = time.perf_counter() - started
    devices.presence._hear_online.clear()
    reports = Reports(
        registry=devices.registry,
        messages=devices.messages,
        queries=devices.queries,
        store=SqliteReportStore(database),
        bus=bus,
        clock=clock,
        timezone="+08:00",
    )
    reports.start()
    subscriptions = DeviceSubscriptions(
        config=SubscribeConfig(kinds=(Kind.POSITION,), requests_per_s=100_000.0),
        registry=devices.registry,
        presence=devices.presence,
        messages=devices.messages,
        subscriptions=agent.subscriptions,
        store=SqliteSubscriptionStore(database),
        bus=bus,
        clock=clock,
        next_sn=devices.queries.next_sn,
    )
    subscriptions.start()
    port = await transports.listen("127.0.0.1", 0)
    print(port, f"{loaded_s:.3f}", flush=True)
    profile = cProfile.Profile(time.thread_time)
    if profile_to:
        profile.enable()
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).decode().split():
        if line[0] == "catalogue":
            for device_id in line[1:]:
                devices.catalogue.enqueue(
                    devices.registry.require(device_id), "bench", urgent=True, info=False
                )
        elif line[0] == "channels":
            print(sum(len(device.channels) for device in devices.registry), flush=True)
        elif line[0] == "positions":
            print(reports.counters.positions, subscriptions.counters.notifies_unasked, flush=True)
        elif line[0] == "subscribe":
            subscriptions.begin()
        elif line[0] == "weigh":
            print(*await weigh(SqliteDeviceStore(database)), flush=True)
        elif line[0] == "settle":
            await devices.catalogue.flush()
            devices.registry.flush()
            await database.run(lambda _connection: None)
            print("ok", flush=True)
    if profile_to:
        profile.disable()
        profile.dump_stats(profile_to)
    await subscriptions.close()
    await reports.close()
    await devices.close()
    await agent.close()
    await transports.close()
    await database.close()


async def weigh(store: SqliteDeviceStore) -> tuple[float, float]:
    """Load everything once more under tracemalloc; bytes a device and a channel."""
    tracemalloc.start()
    loaded = await store.load()
    with_channels = tracemalloc.get_traced_memory()[0]
    count = sum(len(device.channels) for device in loaded)
    for device in loaded:
        device.channels = {}
    gc.collect()
    without = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return without / max(len(loaded), 1), (with_channels - without) / max(count, 1)


class Server:
    """The process under test, from outside."""

    def __init__(self, directory: Path, profile: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(directory), "--profile", profile],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        port, loaded = self.read().split()
        self.address = ("127.0.0.1", int(port))
        self.loaded_s = float(loaded)

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, *words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def weigh(self) -> tuple[float, float]:
        """Bytes of a device without its channels, and of a channel."""
        self.tell("weigh")
        device, channel = self.read().split()
        return float(device), float(channel)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


# ---- the load


def device_id(number: int) -> str:
    return f"34020000001180{number:06d}"


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def request(
    method: str, user: str, to: str, number: int, call_id: str, extra: str, body: bytes = b""
) -> bytes:
    head = (
        f"{method} sip:{PLATFORM}@{DOMAIN} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 192.168.1.64:5060;rport;branch=z9hG4bK{call_id}{number}\r\n"
        f"From: <sip:{user}@{DOMAIN}>;tag={call_id}\r\nTo: <sip:{to}@{DOMAIN}>\r\nCall-ID: {call_id}\r\n"
        f"CSeq: {number} {method}\r\nContact: <sip:{user}@192.168.1.64:5060>\r\nMax-Forwards: 70\r\n"
        f"User-Agent: IP Camera\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_NONCE = re.compile(rb'nonce="([^"]+)"')
_CALL_ID = re.compile(rb"Call-ID: (\S+)")
_SN = re.compile(rb"<SN>(\d+)</SN>\s*<DeviceID>(\d+)</DeviceID>")


def open_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    made.bind(("127.0.0.1", 0))
    made.settimeout(5.0)
    return made


def pump(
    link: socket.socket, server: Server, messages: Iterator[bytes], react: Callable[[bytes], bytes | None]
) -> int:
    """Keep `WINDOW` exchanges under way: each datagram received is answered by `react`, or starts the next one.

    Returns how many exchanges were finished.
    """
    finished = 0
    waiting = 0
    for message in messages:
        link.sendto(message, server.address)
        waiting += 1
        if waiting >= WINDOW:
            break
    while waiting:
        answer = react(link.recv(65536))
        if answer is not None:
            link.sendto(answer, server.address)
            continue
        finished += 1
        following = next(messages, None)
        if following is None:
            waiting -= 1
        else:
            link.sendto(following, server.address)
    return finished


def register(link: socket.socket, server: Server, first: int, count: int, mark: str) -> int:
    uri = f"sip:{PLATFORM}@{DOMAIN}"
    ha2 = md5(f"REGISTER:{uri}")
    known = {f"{mark}{n:06d}".encode(): n for n in range(first, first + count)}
    ha1 = {n: md5(f"{device_id(n)}:{DOMAIN}:{PASSWORD}") for n in range(first, first + count)}

    def react(data: bytes) -> bytes | None:
        status = data[8:11]
        if status == b"200":
            return None
        assert status == b"401", data
        nonce = _NONCE.search(data)[1].decode()  # type: ignore[index]
        call_id = _CALL_ID.search(data)[1]  # type: ignore[index]
        number = known[call_id]
        user = device_id(number)
        response = md5(f"{ha1[number]}:{nonce}:00000001:cn:auth:{ha2}")
        extra = (
            f'Authorization: Digest username="{user}", realm="{DOMAIN}", nonce="{nonce}", uri="{uri}", '
            f'response="{response}", algorithm=MD5, qop=auth, nc=00000001, cnonce="cn"\r\nExpires: 3600\r\n'
        )
        return request("REGISTER", user, user, 2, call_id.decode(), extra)

    starts = (
        request("REGISTER", device_id(n), device_id(n), 1, f"{mark}{n:06d}", "Expires: 3600\r\n")
        for n in range(first, first + count)
    )
    return pump(link, server, starts, react)


def keepalive(link: socket.socket, server: Server, devices: int, count: int) -> int:
    messages = [
        request(
            "MESSAGE",
            device_id(n % devices),
            PLATFORM,
            20,
            f"k{n:06d}",
            "Content-Type: Application/MANSCDP+xml\r\n",
            b'<?xml version="1.0"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>%d</SN>\r\n'
            b"<DeviceID>%s</DeviceID>\r\n<Status>OK</Status>\r\n</Notify>\r\n"
            % (n, device_id(n % devices).encode()),
        )
        for n in range(count)
    ]

    def react(data: bytes) -> None:
        assert data[8:11] == b"200", data

    return pump(link, server, iter(messages), react)


Dialog = tuple[str, str, str]
"""Of a subscription: Call-ID, the platform's tag, the device's."""


def subscribe(link: socket.socket, server: Server, devices: int, dialogs: dict[str, Dialog]) -> int:
    """Every device is asked for its positions and grants it."""
    server.tell("subscribe")
    while True:
        link.settimeout(1.0 if len(dialogs) == devices else 5.0)  # the last ones may come twice
        try:
            head = link.recv(65536).partition(b"\r\n\r\n")[0].decode()
        except TimeoutError:
            if len(dialogs) == devices:
                break
            raise
        assert head.startswith("SUBSCRIBE"), head
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        user = lines["To"].partition("sip:")[2].partition("@")[0]
        dialogs[user] = (lines["Call-ID"], lines["From"].partition("tag=")[2], f"d{user}")
        kept = "".join(f"{name}: {lines[name]}\r\n" for name in ("Via", "From", "Call-ID", "CSeq"))
        link.sendto(
            f"SIP/2.0 200 OK\r\n{kept}To: {lines['To']};tag=d{user}\r\nContact: <sip:{user}@192.168.1.64>\r\n"
            "Expires: 600\r\nContent-Length: 0\r\n\r\n".encode(),
            server.address,
        )
    link.settimeout(5.0)
    return devices


def place(n: int) -> bytes:
    """One place, flat (2016), of the source with this number."""
    return (
        b'<?xml version="1.0" encoding="GB2312"?>\r\n<Notify>\r\n<CmdType>MobilePosition</CmdType>\r\n'
        b"<SN>%d</SN>\r\n<DeviceID>34020000001320%06d</DeviceID>\r\n<Time>2024-05-01T08:30:%02d</Time>\r\n"
        b"<Longitude>117.2%05d</Longitude>\r\n<Latitude>31.8%05d</Latitude>\r\n<Speed>36.5</Speed>\r\n"
        b"<Direction>180.0</Direction>\r\n<Altitude>28.0</Altitude>\r\n</Notify>\r\n"
        % (n, n, n % 60, n % 100_000, n % 100_000)
    )


def position(
    link: socket.socket, server: Server, devices: int, numbers: range, dialogs: dict[str, Dialog] | None
) -> int:
    """One place each, from ever another source: each is stored. `dialogs`: by NOTIFY within these."""
    content = "Content-Type: Application/MANSCDP+xml\r\n"
    messages = []
    for n in numbers:
        user = device_id(n % devices)
        if dialogs is None:
            messages.append(request("MESSAGE", user, PLATFORM, 22, f"p{n:06d}", content, place(n)))
            continue
        call_id, ours, theirs = dialogs[user]
        body = place(n)
        messages.append(
            f"NOTIFY sip:{PLATFORM}@127.0.0.1 SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 192.168.1.64:5060;rport;branch=z9hG4bKn{n}\r\n"
            f"From: <sip:{user}@{DOMAIN}>;tag={theirs}\r\nTo: <sip:{PLATFORM}@{DOMAIN}>;tag={ours}\r\n"
            f"Call-ID: {call_id}\r\nCSeq: {n + 1} NOTIFY\r\nContact: <sip:{user}@192.168.1.64:5060>\r\n"
            "Max-Forwards: 70\r\nUser-Agent: IP Camera\r\nEvent: presence\r\n"
            f"Subscription-State: active;expires={600 - n % 300}\r\n{content}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def react(data: bytes) -> None:
        assert data[8:11] == b"200", data

    return pump(link, server, iter(messages), react)


def catalogue(link: socket.socket, server: Server, devices: int, per_device: int, per_message: int) -> int:
    """Every device is asked once; its pages go out in a window over all devices."""
    ids = [device_id(n) for n in range(devices)]
    server.tell("catalogue", *ids)
    sent = 0
    answered = 0
    pages: list[bytes] = []
    total = devices * ((per_device + per_message - 1) // per_message)
    under_way = 0
    while answered < total:
        data = link.recv(65536)
        if data.startswith(b"MESSAGE"):
            head = data.partition(b"\r\n\r\n")[0].decode()
            kept = [
                line
                for line in head.split("\r\n")[1:]
                if line.split(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq")
            ]
            link.sendto(
                ("SIP/2.0 200 OK\r\n" + "\r\n".join(kept) + "\r\nContent-Length: 0\r\n\r\n").encode(),
                server.address,
            )
            match = _SN.search(data)
            assert match is not None
            pages.extend(make_pages(match[2].decode(), int(match[1]), per_device, per_message))
        else:
            assert data[8:11] == b"200", data
            answered += 1
            under_way -= 1
        while pages and under_way < WINDOW:
            link.sendto(pages.pop(), server.address)
            under_way += 1
            sent += 1
    return devices * per_device


def make_pages(device: str, sn: int, per_device: int, per_message: int) -> list[bytes]:
    made = []
    for at in range(0, per_device, per_message):
        items = "".join(
            f"<Item>\r\n<DeviceID>{device[:10]}132{int(device[13:]) % 100:02d}{n:05d}</DeviceID>\r\n"
            f"<Name>通道 {n}</Name>\r\n"
            "<Manufacturer>Maker</Manufacturer>\r\n<Model>DS-2CD</Model>\r\n<Owner>Owner1</Owner>\r\n"
            "<CivilCode>340200</CivilCode>\r\n<Address>Road 1</Address>\r\n<Parental>0</Parental>\r\n"
            f"<ParentID>{device}</ParentID>\r\n<SafetyWay>0</SafetyWay>\r\n<RegisterWay>1</RegisterWay>\r\n"
            "<Secrecy>0</Secrecy>\r\n<Status>ON</Status>\r\n<Longitude>117.2</Longitude>\r\n"
            "<Latitude>31.8</Latitude>\r\n<Info>\r\n<PTZType>1</PTZType>\r\n</Info>\r\n</Item>\r\n"
            for n in range(at, min(at + per_message, per_device))
        )
        count = min(per_message, per_device - at)
        body = (
            '<?xml version="1.0" encoding="GB2312"?>\r\n<Response>\r\n<CmdType>Catalog</CmdType>\r\n'
            f"<SN>{sn}</SN>\r\n<DeviceID>{device}</DeviceID>\r\n<SumNum>{per_device}</SumNum>\r\n"
            f'<DeviceList Num="{count}">\r\n{items}</DeviceList>\r\n</Response>\r\n'
        ).encode("gb18030")
        made.append(
            request(
                "MESSAGE",
                device,
                PLATFORM,
                21,
                f"c{device[13:]}{sn}{at}",
                "Content-Type: Application/MANSCDP+xml\r\n",
                body,
            )
        )
    return made


# ---- the phases


def measure(server: Server, what: str, run: Callable[[], int]) -> None:
    cpu, wall = server.cpu_s(), time.perf_counter()
    count = run()
    server.tell("settle")
    assert server.read() == "ok"
    cpu, wall = server.cpu_s() - cpu, time.perf_counter() - wall
    print(
        f"{what:<34}{count:>8} in {wall:6.2f} s  {cpu:6.2f} CPU s  {count / cpu:>9,.0f} per CPU second"
        f"  {cpu / count * 1000:7.3f} CPU s per 1,000  RSS {server.rss_mb():6.1f} MB"
    )


def machine() -> str:
    model = "unknown CPU"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=4000)
    parser.add_argument("--keepalives", type=int, default=40000)
    parser.add_argument("--positions", type=int, default=40000)
    parser.add_argument("--items", type=int, default=40000)
    parser.add_argument(
        "--only", choices=("registrations", "keepalives", "positions", "catalogue"), help="one phase"
    )
    parser.add_argument(
        "--profile", default="", help="write a cProfile of the process under test to this file"
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        import uvloop

        from gb28181gw.observability.logs import configure_logging

        configure_logging(format="json", level="info")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options.serve, options.profile))
        return
    print(machine())
    print("command:", " ".join(["python", *sys.argv]))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = Server(directory, options.profile)
        link = open_socket()
        devices, per_device = options.devices, 20
        before = server.rss_mb()
        measure(server, "registrations, new", lambda: register(link, server, 0, devices, "r"))
        print(f"{'':34}{(server.rss_mb() - before) * 1e6 / devices / 1000:8.1f} kB a device")
        if options.only in (None, "registrations"):
            measure(server, "registrations, known", lambda: register(link, server, 0, devices, "s"))
        if options.only in (None, "keepalives"):
            measure(server, "keepalives", lambda: keepalive(link, server, devices, options.keepalives))
        if options.only in (None, "positions"):
            count = options.positions
            measure(
                server,
                "positions by MESSAGE, stored",
                lambda: position(link, server, devices, range(count), None),
            )
            dialogs: dict[str, Dialog] = {}
            measure(server, "subscriptions", lambda: subscribe(link, server, devices, dialogs))
            measure(
                server,
                "positions by NOTIFY, stored",
                lambda: position(link, server, devices, range(count, 2 * count), dialogs),
            )
            server.tell("positions")
            assert server.read().split() == [str(2 * count), "0"], "some were not stored, or of no dialog"
        for per_message in (10, 3) if options.only in (None, "catalogue") else ():
            asked = min(devices // 2, options.items // per_device)
            measure(
                server,
                f"catalogue items, {per_message} a message",
                lambda per_message=per_message, asked=asked: catalogue(
                    link, server, asked, per_device, per_message
                ),
            )
        server.close()
        again = Server(directory)
        again.tell("channels")
        channels = int(again.read())
        print(
            f"restart with {devices} devices, {channels} channels: loaded in {again.loaded_s * 1000:.0f} ms"
        )
        # What stays in memory, without the transactions that are kept for 32 s after a burst.
        a_device, a_channel = again.weigh()
        print(f"memory: {a_device / 1000:.2f} kB a device, {a_channel / 1000:.2f} kB a channel")
        again.close()
        link.close()


if __name__ == "__main__":
    main()
