"""A gateway below an upper platform: 50,000 channels told while live requests go on, and streams passed on.

    python -m bench.cascade [--rows catalogue relay] [--channels 50000] [--seconds 15] [--transports tcp udp]
                            [--streams 40] [--cores 0 1] [--nice -10]

The gateway is `gb28181gw serve` with its defaults in a process of its own on the first core, its log lines in a
file; the upper, the simulated devices and this program share the other. CPU is user + system of the gateway's process,
all threads, by its CPU clock; its event loop is watched by a tick of 2 ms of its own, which is part of the figures.

catalogue: the channels are put into the database before the start; a simulated device with a few cameras is online
besides. The upper (the platform simulator, reading of an answer no more than the ids) asks for the whole catalogue,
first alone, then again and again while the API is asked and channels are played, which is done without a catalogue too.

relay: simulated device → gateway (measured) → gateway; the upper one asks for the streams of the lower one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSWORD = secrets.token_urlsafe(9)
LOWER, UPPER = "34020100002000000001", "34020200002000000001"
DEVICE = "34020000001180000001"
TICK_S = 0.002
PAUSE_S = 0.005
"""Ticks that come later than this are told."""
_ID = re.compile(rb"<Item>\s*<DeviceID>(\d+)</DeviceID>")
_SUM = re.compile(rb"<SumNum>(\d+)</SumNum>")


# ---- what is there before the start


def seed(database_path: Path, channels: int, per_device: int = 1_000) -> None:
    """Put recorders with cameras into the database of a gateway that does not run."""
    asyncio.run(_seed(database_path, channels, per_device))


async def _seed(database_path: Path, channels: int, per_device: int) -> None:
    from gb28181gw.devices.models import CatalogueState, Channel, ChannelStatus, Device
    from gb28181gw.storage.database import Database
    from gb28181gw.storage.sqlite import SqliteDeviceStore

    database_path.parent.mkdir(mode=0o700, exist_ok=True)
    database = Database(database_path)
    database.start()
    store = SqliteDeviceStore(database)
    for first in range(0, channels, per_device):
        count = min(per_device, channels - first)
        device = Device(
            id=f"340300000011{80_000_000 + first // per_device}", name=f"Recorder {first // per_device}",
            manufacturer="Acme", model="N64", catalogue_state=CatalogueState.COMPLETE,
            catalogue_received=count, catalogue_expected=count, created_at=time.time(),
        )  # fmt: skip
        await store.save_device(device)
        await store.save_channels(
            [
                Channel(
                    device_id=device.id, id=f"340300000013{20_000_000 + number}", name=f"Gate {number}, north side",
                    kind="camera", status=ChannelStatus.ON, civil_code="340300", manufacturer="Acme", model="C-4",
                    owner="Owner", address=f"Street {number % 977}", parent_ids=(device.id,), register_way=1,
                    secrecy=0, ptz_type="1", longitude=117.2 + number / 1e6, latitude=31.8,
                )
                for number in range(first, first + count)
            ]
        )  # fmt: skip
    await database.close()


# ---- the measured process


def serve(config: str) -> None:
    """`gb28181gw serve`, which also tells the pauses of its event loop: when, how long, how much CPU time of it."""
    from gb28181gw.app import gateway, run
    from gb28181gw.settings import load_settings

    plain = gateway.Gateway.start

    async def start(self: gateway.Gateway) -> None:
        await plain(self)
        loop = asyncio.get_running_loop()
        due = spent = 0.0

        def tick() -> None:
            nonlocal due, spent
            now, before, spent = time.monotonic(), spent, time.thread_time()
            if due and now - due > PAUSE_S:
                print(f"{now:.4f} {now - due:.4f} {spent - before:.4f}", flush=True)
            due = now + TICK_S
            loop.call_later(TICK_S, tick)

        tick()

    gateway.Gateway.start = start  # type: ignore[method-assign]
    raise SystemExit(run(load_settings(Path(config))))


def free_port(*kinds: socket.SocketKind) -> int:
    """A port that is free for all kinds."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            port = 0
            for kind in kinds:
                probe = stack.enter_context(socket.socket(socket.AF_INET, kind))
                probe.bind(("127.0.0.1", port))
                port = int(probe.getsockname()[1])
            return port


def on_core(core: int, *words: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(["taskset", "-c", str(core), *words], text=True, **more)


class Gateway:
    """One gateway from outside."""

    def __init__(self, directory: Path, core: int, own_id: str, first_port: int) -> None:
        directory.mkdir()
        self.core, self.id = core, own_id
        self.sip = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
        self.api, media = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
        self.database = directory / "data" / "gb28181gw.db"
        self._config = directory / "bench.toml"
        self._config.write_text(
            f'data_dir = "{directory / "data"}"\n[sip]\nid = "{own_id}"\ndomain = "{own_id[:10]}"\n'
            f'listen = "127.0.0.1:{self.sip}"\npassword = "{PASSWORD}"\nenrolment = "open"\n'
            f'[media]\nhttp = "127.0.0.1:{media}"\nlisten = "127.0.0.1"\nports = "{first_port}-{first_port + 999}"\n'
            f'idle_stop_s = 600\n[http]\nlisten = "127.0.0.1:{self.api}"\n'
            f'[rtsp]\nlisten = "127.0.0.1:{free_port(socket.SOCK_STREAM)}"\n'
        )  # fmt: skip
        self._log = (directory / "gateway.log").open("wb")
        self.key = subprocess.run(
            [sys.executable, "-m", "gb28181gw", "key", "create", "--name", "bench", "--role", "admin",
             "--config", str(self._config)],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        self._pauses: list[tuple[float, float, float]] = []
        """(when it ended, how long, CPU seconds of the loop's thread in it)."""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = on_core(
            self.core, sys.executable, "-m", "bench.cascade", "--serve", str(self._config),
            stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        for _ in range(600):
            if self._process.poll() is not None:
                raise SystemExit("the gateway ended; run it with a look at its log")
            with contextlib.suppress(OSError):
                self.call("GET", "/readyz")
                return
            time.sleep(0.05)
        raise SystemExit("the gateway was not ready in time")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            ended, length, spent = map(float, line.split())
            self._pauses.append((ended, length, spent))

    def pauses_since(self, mark: float) -> str:
        """The longest ones; on a busy machine a pause is mostly other programs', its CPU time is not."""
        found = [one for one in self._pauses if one[0] > mark]
        if not found:
            return f"no pause above {1000 * PAUSE_S:.0f} ms"
        return (
            f"longest pause of the event loop {1000 * max(one[1] for one in found):.0f} ms, "
            f"in CPU time {1000 * max(one[2] for one in found):.0f} ms"
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        return time.clock_gettime((~self.pid << 3) | 2)

    @property
    def loop_cpu_s(self) -> float:
        """Of the thread that runs Python; the plane has threads of its own."""
        fields = Path(f"/proc/{self.pid}/task/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from None
        return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()

    def metric(self, name: str) -> float:
        lines = self.call("GET", "/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"gb28181gw_{name}[ {{]", line))

    def join(self, upper_id: str, port: int, **more: Any) -> None:
        """Become a lower platform of another one, sharing everything."""
        self.call(
            "POST", "/api/v1/uppers",
            {"id": upper_id, "domain": upper_id[:10], "host": "127.0.0.1", "port": port, "password": PASSWORD, **more},
        )  # fmt: skip
        self.call("PUT", f"/api/v1/uppers/{upper_id}/channels", {"all": True})

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
        self._log.close()


@contextlib.contextmanager
def memory_of(gateway: Gateway) -> Iterator[list[float]]:
    """Resident megabytes, looked at every 10 ms while the block runs."""
    found, ended = [gateway.rss_mb], threading.Event()

    def run() -> None:
        while not ended.wait(0.01):
            found.append(gateway.rss_mb)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def devices(gateway: Gateway, core: int, channels: int, *more: str) -> Iterator[None]:
    """One simulated device, online with all of its channels."""
    process = on_core(
        core, sys.executable, "-m", "gb28181gw", "simulate", "device", "--server", f"127.0.0.1:{gateway.sip}",
        "--server-id", gateway.id, "--domain", gateway.id[:10], "--password", PASSWORD, "--id", DEVICE,
        "--channels", str(channels), "--json", *more, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(gateway, f"/api/v1/devices/{DEVICE}/channels?size=1", channels)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def wait_for(gateway: Gateway, path: str, total: int) -> None:
    for _ in range(1_200):
        with contextlib.suppress(SystemExit):  # not there yet
            if gateway.call("GET", path)["total"] >= total:
                return
        time.sleep(0.05)
    raise SystemExit(f"{path} did not reach {total}")


# ---- the upper, a process of its own


async def upper(password: str) -> None:
    """The platform simulator with orders by lines of JSON on standard input, each answered by one line."""
    from gb28181gw.sim.platform import Platform, PlatformOptions
    from gb28181gw.ua.incoming import Incoming

    class Counting(Platform):
        """Answers of a catalogue are counted and not read: what is measured is the other side."""

        def __init__(self, options: PlatformOptions) -> None:
            super().__init__(options)
            self.asked_at = 0.0
            self.ids: set[bytes] = set()
            self.expected = -1
            self.times: list[float] = []
            self.sizes: list[int] = []
            self.whole = asyncio.Event()

        def _take(self, incoming: Incoming) -> None:
            body = incoming.request.body
            if b"<Response>" not in body or b"<CmdType>Catalog<" not in body:
                super()._take(incoming)
                return
            self.times.append(time.monotonic())
            self.sizes.append(body.count(b"<Item>"))
            self.ids.update(_ID.findall(body))
            total = _SUM.search(body)
            self.expected = int(total[1]) if total is not None else -1
            if len(self.ids) >= self.expected:
                self.whole.set()

        async def whole_catalogue(self) -> dict[str, Any]:
            lower = await self.registered(LOWER)
            self.ids, self.times, self.sizes = set(), [], []
            self.whole.clear()
            self.asked_at = time.monotonic()
            await self._send(lower, "Catalog", {}, self._next_sn(), LOWER)
            async with asyncio.timeout(300):
                await self.whole.wait()
            gaps = [late - early for early, late in zip(self.times, self.times[1:], strict=False)]
            return {
                "items": len(self.ids),
                "pages": len(self.times),
                "first_s": self.times[0] - self.asked_at,
                "wall_s": self.times[-1] - self.asked_at,
                "longest_gap_s": max(gaps, default=0.0),
                "most_items": max(self.sizes),
            }

        async def plays(self, channels: list[str], seconds: float, every_s: float) -> dict[str, Any]:
            """INVITE one channel after the other; seconds to the 200 and to the first packet."""
            lower = await self.registered(LOWER)
            answered: list[float] = []
            shown: list[float] = []
            failed = 0
            end = time.monotonic() + seconds
            number = 0
            while (began := time.monotonic()) < end:
                try:
                    playing = await self.play(lower, channels[number % len(channels)])
                    answered.append(time.monotonic() - began)
                    async with asyncio.timeout(20):
                        await playing.recording.first.wait()
                    shown.append(time.monotonic() - began)
                    await self.stop(playing)
                except (GatewayError, TimeoutError):
                    failed += 1
                number += 1
                await asyncio.sleep(max(0.0, began + every_s - time.monotonic()))
            return {"answered": answered, "shown": shown, "failed": failed}

        async def again_and_again(self, seconds: float) -> int:
            end, whole = time.monotonic() + seconds, 0
            while time.monotonic() < end:
                await self.whole_catalogue()
                whole += 1
            return whole

    from gb28181gw.errors import GatewayError

    made = Counting(
        PlatformOptions(
            listen="127.0.0.1:0", id=UPPER, domain=UPPER[:10], password=password, expires_s=86_400
        )
    )
    await made.start()
    print(json.dumps({"port": made.port}), flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        order = json.loads(line)
        answer: dict[str, Any] = {}
        if order["do"] == "catalogue":
            answer = await made.whole_catalogue()
        elif order["do"] == "play":
            whole = asyncio.create_task(made.again_and_again(order["seconds"] if order["catalogue"] else 0.0))
            answer = await made.plays(order["channels"], order["seconds"], order["every_s"])
            answer["catalogues"] = await whole
        elif order["do"] == "registered":
            await made.registered(LOWER)
        print(json.dumps(answer), flush=True)
    await made.close()


class Upper:
    """The upper's process from outside."""

    def __init__(self, core: int) -> None:
        self._process = on_core(
            core, sys.executable, "-m", "bench.cascade", "--upper", PASSWORD,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.port: int = self._read()["port"]

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the upper ended")
        return json.loads(line)

    def ask(self, do: str, **order: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


# ---- rows


def ms(values: list[float], share: float) -> str:
    """A percentile, in milliseconds."""
    if not values:
        return "-"
    ordered = sorted(values)
    return f"{1000 * ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]:.1f}"


def spread(values: list[float]) -> str:
    return f"p50 {ms(values, 0.5)}, p99 {ms(values, 0.99)}, longest {ms(values, 1.0)} ms of {len(values)}"


class ApiLoad:
    """Requests at intervals, as a person's browser makes them."""

    PATHS = ("/api/v1/devices?size=20", "/api/v1/streams", f"/api/v1/devices/{DEVICE}")

    def __init__(self, gateway: Gateway, every_s: float) -> None:
        self.delays: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(gateway, every_s))

    def _run(self, gateway: Gateway, every_s: float) -> None:
        number = 0
        while not self._ended.is_set():
            began = time.monotonic()
            gateway.call("GET", self.PATHS[number % len(self.PATHS)])
            self.delays.append(time.monotonic() - began)
            number += 1
            self._ended.wait(max(0.0, began + every_s - time.monotonic()))

    def __enter__(self) -> ApiLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def catalogue(directory: Path, options: argparse.Namespace, transport: str) -> None:
    """See the module."""
    core, other = options.cores
    gateway = Gateway(directory / f"catalogue-{transport}", core, LOWER, options.first_port)
    seed(gateway.database, options.channels)
    superior = Upper(other)
    try:
        gateway.start()
        with devices(gateway, other, 8, "--bitrate", "500"):
            gateway.join(UPPER, superior.port, transport=transport)
            superior.ask("registered")
            time.sleep(2)
            print(f"\ncatalogue of {options.channels} channels over {transport.upper()}")
            for name in ("first", "second"):
                mark, cpu, before = time.monotonic(), gateway.cpu_s, gateway.rss_mb
                with memory_of(gateway) as memory:
                    found = superior.ask("catalogue")
                    cpu = gateway.cpu_s - cpu
                time.sleep(1)
                print(
                    f"  {name}, alone: {found['items']} items in {found['pages']} messages (at most "
                    f"{found['most_items']} items each), first after {1000 * found['first_s']:.0f} ms, all after "
                    f"{found['wall_s']:.2f} s, longest gap between two {1000 * found['longest_gap_s']:.0f} ms\n"
                    f"    {cpu / found['items'] * 1000:.4f} CPU s per 1,000 items; resident {before:.1f} MB before, "
                    f"{max(memory):.1f} at most, {gateway.rss_mb:.1f} after; {gateway.pauses_since(mark)}"
                )
            for during in (False, True):
                mark = time.monotonic()
                with ApiLoad(gateway, 0.05) as api, memory_of(gateway) as memory:
                    played = superior.ask(
                        "play", seconds=options.seconds, every_s=0.25, catalogue=during,
                        channels=[f"340200000013200{number:05d}" for number in range(1, 9)],
                    )  # fmt: skip
                what = f"{played['catalogues']} catalogues meanwhile" if during else "without a catalogue"
                print(
                    f"  requests {what}, resident at most {max(memory):.1f} MB, "
                    f"{gateway.pauses_since(mark)}\n    API: {spread(api.delays)}\n"
                    f"    INVITE to 200: {spread(played['answered'])}; {played['failed']} failed\n"
                    f"    INVITE to first packet: {spread(played['shown'])}"
                )
    finally:
        superior.close()
        gateway.stop()


def relay(directory: Path, options: argparse.Namespace) -> None:
    """See the module."""
    core, other = options.cores
    low = Gateway(directory / "low", core, LOWER, options.first_port)
    high = Gateway(directory / "high", other, UPPER, options.first_port + 1_000)
    try:
        low.start()
        high.start()
        count = options.streams
        with devices(low, other, count, "--bitrate", "4000", "--loop", "4"):
            low.join(UPPER, high.sip)
            wait_for(high, f"/api/v1/devices/{LOWER}/channels?size=1", count)
            idle = low.loop_cpu_s
            time.sleep(options.seconds)
            idle = (low.loop_cpu_s - idle) / options.seconds
            channels = [f"340200000013200{number:05d}" for number in range(1, count + 1)]
            for channel in channels:
                high.call("POST", f"/api/v1/devices/{LOWER}/channels/{channel}/live")
            time.sleep(3)  # until every track is known
            packets, demuxed = _relayed(low), low.metric("rtp_demuxed")
            cpu, loop, wall = low.cpu_s, low.loop_cpu_s, time.monotonic()
            raw = low.metric("upper_streams_raw")
            time.sleep(options.seconds)
            cpu, loop, wall = low.cpu_s - cpu, low.loop_cpu_s - loop, time.monotonic() - wall
            packets, demuxed = _relayed(low) - packets, low.metric("rtp_demuxed") - demuxed
            lost = sum(one["rtp"]["lost"] for one in high.call("GET", "/api/v1/streams?size=500")["items"])
            each = 1e6 / packets
            print(
                f"\nrelay of {raw:.0f} streams, gateway to gateway over UDP: {packets / wall:.0f} packets/s, "
                f"{demuxed:.0f} of {packets:.0f} demuxed, {lost} lost above\n"
                f"  {cpu * each:.2f} CPU s per 1M packets, the whole process ({100 * cpu / wall:.0f} % of the core): "
                f"{(cpu - loop) * each:.2f} in the plane's threads, {loop * each:.2f} in Python's "
                f"({100 * loop / wall:.1f} % of the core; {100 * idle:.1f} % without streams)"
            )
    finally:
        high.stop()
        low.stop()


def _relayed(gateway: Gateway) -> float:
    return sum(one["rtp"]["received"] for one in gateway.call("GET", "/api/v1/streams?size=500")["items"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=("catalogue", "relay"), default=["catalogue", "relay"])
    parser.add_argument("--channels", type=int, default=50_000)
    parser.add_argument("--transports", nargs="+", choices=("tcp", "udp"), default=["tcp", "udp"])
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1])
    parser.add_argument("--first-port", type=int, default=24_000)
    parser.add_argument(
        "--nice", type=int, default=0, help="below 0: keep other programs out as far as it goes"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--upper", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    if options.upper:
        asyncio.run(upper(options.upper))
        return
    if options.nice:
        os.nice(options.nice)
    with Path("/proc/cpuinfo").open() as lines:
        model = next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown"
        )
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    print(f"{model}, {os.cpu_count()} cores, {system}; load {os.getloadavg()[0]:.1f} before")
    print("command: python -m bench.cascade " + " ".join(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as directory:
        if "catalogue" in options.rows:
            for transport in options.transports:
                catalogue(Path(directory), options, transport)
        if "relay" in options.rows:
            relay(Path(directory), options)
    print(f"\nload {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
