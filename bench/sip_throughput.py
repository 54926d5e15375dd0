"""SIP messages per CPU second of the whole control path: uvloop UDP, parser, transactions, user agent, handler, 200.

Run from the repository: ``python bench/sip_throughput.py [--count 40000] [--profile]``. A child process is the server
and reports its own CPU time (user + system); the parent sends from one socket with a window of 100 open requests, so
nothing is lost and nothing waits. Printed: messages, CPU seconds, messages per CPU second, growth of RSS per message
(every answered request is kept for 32 s).
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import multiprocessing
import pstats
import resource
import secrets
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path as FilePath

import uvloop

from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import AgentConfig

_KEEPALIVE = (
    '<?xml version="1.0" encoding="GB2312"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>{sn}</SN>\r\n'
    "<DeviceID>34020000001320000001</DeviceID>\r\n<Status>OK</Status>\r\n</Notify>\r\n"
)


def _rss_kb() -> int:
    for line in FilePath("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _serve(pipe: Connection, profile: bool) -> None:
    transports = Transports()
    agent = UserAgent(
        AgentConfig(id="34020000002000000001", domain="3402000000", user_agent="bench"),
        Endpoint(),
        transports,
    )
    agent.use_policy(is_known=lambda path, user: True, is_verified=lambda path: True)

    def register(incoming: Incoming) -> None:
        incoming.respond(200, headers=(("Expires", "3600"), ("Date", "2024-05-01T08:30:00.000")))

    def message(incoming: Incoming) -> None:
        incoming.respond(200)

    agent.on_request("REGISTER", register)
    agent.on_request("MESSAGE", message)
    port = await transports.listen("127.0.0.1", 0)
    pipe.send(port)
    loop = asyncio.get_running_loop()
    profiler = cProfile.Profile()
    while (order := await loop.run_in_executor(None, pipe.recv)) != "end":
        if profile and order == "profile":
            profiler.enable()
        pipe.send((_cpu_s(), _rss_kb(), transports.counters.received))
    if profile:
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    await agent.close()
    await transports.close()


def _server(pipe: Connection, profile: bool) -> None:
    uvloop.run(_serve(pipe, profile))


def _request(method: str, number: int, port: int) -> bytes:
    body = _KEEPALIVE.format(sn=number) if method == "MESSAGE" else ""
    extra = (
        "Content-Type: Application/MANSCDP+xml\r\n"
        if body
        else "Contact: <sip:34020000001320000001@127.0.0.1:5060>\r\nExpires: 3600\r\n"
    )
    return (
        f"{method} sip:34020000002000000001@3402000000 SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 127.0.0.1:{port};rport;branch=z9hG4bK{secrets.randbits(32)}\r\n"
        f"From: <sip:34020000001320000001@3402000000>;tag={secrets.randbits(31)}\r\n"
        f"To: <sip:34020000002000000001@3402000000>\r\n"
        f"Call-ID: {secrets.randbits(31)}@127.0.0.1\r\n"
        f"CSeq: {number} {method}\r\n"
        f"{extra}Max-Forwards: 70\r\nUser-Agent: IP Camera\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode("ascii")


def _round(pipe: Connection, port: int, method: str, count: int, order: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.connect(("127.0.0.1", port))
        client.settimeout(5)
        messages = [_request(method, number + 1, client.getsockname()[1]) for number in range(count)]
        pipe.send(order)
        cpu_before, rss_before, _ = pipe.recv()
        sent = answered = 0
        while answered < count:
            while sent < count and sent - answered < 100:
                client.send(messages[sent])
                sent += 1
            if not client.recv(65_535).startswith(b"SIP/2.0 200"):
                raise SystemExit("an answer that is not 200")
            answered += 1
        pipe.send("report")
        cpu_after, rss_after, _ = pipe.recv()
    used = cpu_after - cpu_before
    print(
        f"{method:8} {count:7} messages  {used:6.2f} CPU s  {count / used:8.0f} per CPU s  "
        f"{1024 * (rss_after - rss_before) / count:6.0f} bytes RSS each"
    )


def main() -> None:
    """Start the server and run one round of each method."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--count", type=int, default=40_000)
    arguments.add_argument(
        "--profile", action="store_true", help="profile the server (figures are then too low)"
    )
    chosen = arguments.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_server, args=(there, chosen.profile))
    server.start()
    port = here.recv()
    for method in ("MESSAGE", "REGISTER"):
        _round(here, port, method, chosen.count // 10, "warm")
        _round(here, port, method, chosen.count, "profile")
    here.send("end")
    server.join(10)


if __name__ == "__main__":
    main()
