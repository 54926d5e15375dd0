"""The media plane against floor programs: one core for the server, one for the load, every figure in the same run.

Run: python -m bench.media_plane [--rows ingest fanout …] [--plane native|python] [--seconds 5] [--json]
     python -m bench.media_plane --list

The tools of `bench/native` are built on the first run (CMake, C++20). The server is a process of its own, pinned to one
core; load tools, floors' load and this program share the other. CPU is user + system of the server process, all
threads, by its CPU clock. Streams are 4 Mbit/s H.264 with G.711, 394.5 packets/s of 1,304 bytes in the mean, a picture
and its sound in one burst, phases spread. On loopback datagrams are merged (GRO) only where the sender used
UDP_SEGMENT: rows with "GRO" do that. A run is sustained when nothing was lost and no socket's queue grew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
IN_PORT = 10_000
OUT_PORT = 13_000
"""Below the ports that the system gives to any program."""
CALL_PORT = 9_990
FLOOR_HTTP_PORT = 9_980
PACKETS_PER_S = 394.5
LIVE_MBIT = 4.115
_MAX_BACKLOG = 1_000_000


@dataclass(kw_only=True)
class Row:
    """One line of the table."""

    work: str
    unit: str
    value: float | str
    aim: str = ""
    met: bool | None = None
    floor: float | None = None
    note: str = ""

    @property
    def ratio(self) -> str:
        if self.floor and isinstance(self.value, float):
            return f"{self.value / self.floor:.2f}"
        return ""


@dataclass
class Queues:
    """Bytes that wait in the receive queues of the ports, over time, and datagrams dropped there."""

    totals: list[int] = field(default_factory=list)
    dropped: int = 0

    @property
    def grew(self) -> bool:
        """The last third holds much more than the first."""
        third = max(1, len(self.totals) // 3)
        first, last = self.totals[:third], self.totals[-third:]
        if not last:
            return False
        return sum(last) / len(last) > 2 * sum(first) / len(first) + _MAX_BACKLOG


@contextlib.contextmanager
def watch_queues(first_port: int, count: int, *, tcp: bool = False) -> Iterator[Queues]:
    """Looks at the kernel's tables while the block runs."""
    ports = range(first_port, first_port + 2 * count, 2)
    table = Path("/proc/net/tcp" if tcp else "/proc/net/udp")
    queues, ended = Queues(), threading.Event()

    def look() -> tuple[int, int]:
        waiting = dropped = 0
        for line in table.read_text().splitlines()[1:]:
            parts = line.split()
            if int(parts[1].rpartition(":")[2], 16) in ports:
                waiting += int(parts[4].partition(":")[2], 16)
                dropped += 0 if tcp else int(parts[-1])
        return waiting, dropped

    _, before = look()

    def run() -> None:
        while not ended.wait(0.25):
            waiting, dropped = look()
            queues.totals.append(waiting)
            queues.dropped = dropped - before

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield queues
    finally:
        ended.set()
        thread.join()


def cpu_clock(pid: int) -> float:
    """User and system seconds of a process so far, all threads, by the kernel's clock of it (nanoseconds)."""
    return time.clock_gettime((~pid << 3) | 2)


def anonymous_kb(pid: int) -> int:
    """Memory of its own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    return 0


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class Tool:
    """A running load tool."""

    def __init__(self, name: str, core: int, **options: Any) -> None:
        arguments = [str(BUILD / f"bench_{name}")]
        for key, value in options.items():
            if value is None or value is False:
                continue
            arguments.append("--" + key.replace("_", "-"))
            if value is not True:
                arguments.append(str(value))
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *arguments], stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def wait_ready(self) -> Tool:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "ready" not in line:
            raise RuntimeError(f"the tool {self._process.args!r} said {line!r}")
        return self

    def result(self, timeout: float = 120) -> dict[str, Any]:
        """What it has counted, when it has ended by itself."""
        output, _ = self._process.communicate(timeout=timeout)
        if self._process.returncode:
            raise RuntimeError(f"the tool {self._process.args!r} failed")
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        return result

    def stop(self) -> dict[str, Any]:
        self._process.send_signal(signal.SIGTERM)
        return self.result()


class Server:
    """The measured process."""

    def __init__(self, core: int, plane: str, *extra: str) -> None:
        self._process = subprocess.Popen(
            [
                "taskset",
                "-c",
                str(core),
                sys.executable,
                "-m",
                "bench.media_server",
                "--plane",
                plane,
                *extra,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._read()
        self.port: int = ready["port"]
        self.pid: int = ready["pid"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server has ended")
        values: dict[str, Any] = json.loads(line)
        if "error" in values:
            raise RuntimeError(values["error"])
        return values

    def send(self, do: str, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        self.send(do, **order)
        return self._read()

    def take(self) -> dict[str, Any]:
        """The answer to what was sent."""
        return self._read()

    @property
    def cpu_s(self) -> float:
        return cpu_clock(self.pid)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


class Bench:
    """The rows. Each starts its own server, so that none inherits another's memory."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._plane: str = options.plane
        self._server_core: int = options.cores[0]
        self._load_core: int = options.cores[1]
        self._seconds: float = options.seconds
        self._step_streams: list[int] = options.streams
        self._consumers: list[int] = options.consumers

    # helpers

    @contextlib.contextmanager
    def server(self, *extra: str) -> Iterator[Server]:
        server = Server(self._server_core, self._plane, *extra)
        try:
            yield server
        finally:
            server.end()

    def load(self, name: str, **options: Any) -> Tool:
        return Tool(name, self._load_core, **options)

    def floor(self, work: str, **options: Any) -> Tool:
        return Tool("floor", self._server_core, work=work, **options).wait_ready()

    def _ingest_floor(self, streams: int, *, gso: bool, tcp: bool = False) -> float:
        floor = self.floor("tcp" if tcp else "ingest", port=IN_PORT, streams=streams, gro=gso)
        sent = self.load(
            "rtp_send", port=IN_PORT, streams=streams, seconds=self._seconds, gso=gso, tcp=tcp
        ).result()
        counted = floor.stop()
        return float(counted["cpu_s"] / sent["packets"] * 1e6)

    def _ingest(self, streams: int, *, gso: bool, tcp: bool = False) -> tuple[float, float, str, bool]:
        """CPU-s per million packets, share of a core, a note, sustained."""
        with self.server() as server:
            transport = "tcp-passive" if tcp else "udp"
            server.ask("open", count=streams, port=IN_PORT, transport=transport)
            # Two seconds until every stream had its first key frame.
            sender = self.load(
                "rtp_send", port=IN_PORT, streams=streams, seconds=self._seconds + 3.5, gso=gso, tcp=tcp
            )
            time.sleep(2.5)
            with watch_queues(IN_PORT, streams, tcp=tcp) as queues:
                before, cpu, wall = server.ask("counters"), server.cpu_s, time.monotonic()
                time.sleep(self._seconds)
                after, cpu, wall = server.ask("counters"), server.cpu_s - cpu, time.monotonic() - wall
            sent = sender.result()
            time.sleep(0.3)
            end = server.ask("counters")
        packets = after["packets"] - before["packets"]
        # What a stream sent before it was latched is not the receiver's loss.
        lost = end["lost"]
        sustained = lost == 0 and queues.dropped == 0 and not queues.grew and end["live"] == streams
        note = f"{100 * cpu / wall:.0f} % of the core, {lost} lost, send late p99 {sent['late_ms']['p99']:.1f} ms"
        if end["demux_errors"]:
            note += f", {end['demux_errors']} demux errors"
        return cpu / packets * 1e6, cpu / wall, note + ("" if sustained else ", NOT sustained"), sustained

    # rows

    def ingest(self) -> Iterator[Row]:
        """200 streams over UDP, taken apart, FLV ready."""
        for gso in (False, True):
            floor = self._ingest_floor(200, gso=gso)
            cost, _, note, _ = self._ingest(200, gso=gso)
            yield Row(
                work=f"ingest with demux, 200 streams{', GRO' if gso else ''}",
                unit="CPU-s per 1M packets",
                value=cost,
                aim="≤ 4.0",
                met=cost <= 4.0,
                floor=floor,
                note=note,
            )

    def tcp(self) -> Iterator[Row]:
        """100 streams over TCP passive."""
        floor = self._ingest_floor(100, gso=False, tcp=True)
        cost, _, note, _ = self._ingest(100, gso=False, tcp=True)
        yield Row(
            work="ingest over TCP passive, 100 streams",
            unit="CPU-s per 1M packets",
            value=cost,
            aim="≤ 5.0",
            met=cost <= 5.0,
            floor=floor,
            note=note,
        )

    def sustained(self) -> Iterator[Row]:
        """Streams taken apart on one core without loss."""
        best, note = 0, ""
        for streams in self._step_streams:
            _, _, told, held = self._ingest(streams, gso=True)
            if not held:
                note += f"; {streams}: {told}"
                break
            best, note = streams, told
        yield Row(
            work="streams sustained with demux, one core, GRO", unit="streams", value=float(best), note=note
        )

    def fanout(self) -> Iterator[Row]:
        """One stream to many consumers."""
        for consumers in self._consumers:
            for ws in (False, True):
                yield self._fan_out(consumers, ws=ws, merge_ms=0)
        # merged later

    def _fan_out(self, consumers: int, *, ws: bool, merge_ms: int) -> Row:
        floor_tool = self.floor("fanout", port=FLOOR_HTTP_PORT, consumers=consumers, merge_ms=merge_ms)
        sink = self.load("flv_sink", port=FLOOR_HTTP_PORT, consumers=consumers).wait_ready()
        cpu = cpu_clock(floor_tool.pid)
        time.sleep(self._seconds)
        cpu = cpu_clock(floor_tool.pid) - cpu
        floor_tool.stop()
        sink.stop()
        seconds = self._seconds
        floor = cpu / (seconds * consumers * (20_340 * 25 * 8) / 1e9)
        extra = ("--merge-ms", str(merge_ms)) if merge_ms else ()
        with self.server(*extra) as server:
            server.ask("open", count=1, port=IN_PORT)
            sender = self.load("rtp_send", port=IN_PORT, seconds=600)
            time.sleep(2.5)
            sink = self.load("flv_sink", port=server.port, consumers=consumers, ws=ws).wait_ready()
            time.sleep(2)
            before, cpu, wall = server.ask("counters"), server.cpu_s, time.monotonic()
            time.sleep(seconds)
            after, cpu, wall = server.ask("counters"), server.cpu_s - cpu, time.monotonic() - wall
            read = sink.stop()
            sender.stop()
        gbit = (after["bytes_out"] - before["bytes_out"]) * 8 / 1e9
        rate = gbit / wall / consumers * 1000
        dropped = after["frames_dropped"] - before["frames_dropped"]
        note = f"{100 * cpu / wall:.0f} % of the core, {rate:.2f} Mbit/s each, {dropped} frames dropped, {read['closed']} closed"
        aim = {0: 0.09, 300: 0.05}[merge_ms]
        cost = cpu / gbit
        return Row(
            work=f"fan-out to {consumers} {'WS' if ws else 'HTTP'}-FLV{f', writes merged {merge_ms} ms' if merge_ms else ''}",
            unit="CPU-s per Gbit",
            value=cost,
            aim=f"≤ {aim:.2f}",
            met=cost <= aim,
            floor=floor,
            note=note,
        )

    def delay(self) -> Iterator[Row]:
        """RTP in to FLV out, 50 streams."""
        with self.server() as server:
            server.ask("open", count=50, port=IN_PORT)
            sender = self.load("rtp_send", port=IN_PORT, streams=50, seconds=600)
            time.sleep(4)
            sink = self.load("flv_sink", port=server.port, consumers=50, streams=50, stamps=True).wait_ready()
            time.sleep(self._seconds)
            read = sink.stop()
            sender.stop()
        delay = read["delay_ms"]
        note = f"p90 {delay['p90']:.2f}, max {delay['max']:.1f}, {delay['count']} pictures, {read['missing']} missing"
        yield Row(
            work="delay RTP in → FLV out, 50 streams, p50",
            unit="ms",
            value=float(delay["p50"]),
            aim="≤ 3",
            met=delay["p50"] <= 3,
            note=note,
        )
        yield Row(
            work="delay RTP in → FLV out, 50 streams, p99",
            unit="ms",
            value=float(delay["p99"]),
            aim="≤ 10",
            met=delay["p99"] <= 10,
        )

    def loss(self) -> Iterator[Row]:
        """One packet of one stream is lost in the middle of a group."""
        with self.server() as server:
            server.ask("open", count=1, port=IN_PORT)
            # The groups have 789 packets: this one is in the middle of the fourth.
            sender = self.load("rtp_send", port=IN_PORT, seconds=12, drop_packet=3 * 789 + 400)
            time.sleep(2.5)
            sink = self.load("flv_sink", port=server.port, stamps=True).wait_ready()
            sender.result()
            counters = server.ask("counters")
            read = sink.stop()
        yield Row(
            work="one lost packet: pictures not shown",
            unit="pictures",
            value=float(read["missing"]),
            aim="≤ 1",
            met=read["missing"] <= 1 and counters["lost"] == 1,
            note=f"{counters['lost']} packet lost, {counters['frames_frozen']} frozen, longest pause {read['longest_pause_ms']:.0f} ms",
        )

    def first_byte(self) -> Iterator[Row]:
        """From the request to a key picture, on a running stream."""
        with self.server() as server:
            server.ask("open", count=10, port=IN_PORT)
            sender = self.load("rtp_send", port=IN_PORT, streams=10, seconds=600)
            time.sleep(4)
            read = self.load(
                "flv_sink", port=server.port, consumers=200, streams=10, one_by_one=True, pause_ms=13
            ).result()
            sender.stop()
        first = read["first_key_ms"]
        yield Row(
            work="key picture on a running stream, from the request, p50",
            unit="ms",
            value=float(first["p50"]),
            aim="≤ 1.0",
            met=first["p50"] <= 1.0,
            note=f"p99 {first['p99']:.2f}, {first['count']} requests; all of the first key picture has come",
        )

    def idle(self) -> Iterator[Row]:
        """Memory and descriptors of receivers that wait."""
        with self.server() as server:
            server.ask("open", count=200, port=IN_PORT, streams=False)
            memory, files = anonymous_kb(server.pid), descriptors(server.pid)
            server.ask("open", count=1000, port=IN_PORT, streams=False)
            each = (anonymous_kb(server.pid) - memory) / 1000
            opened = (descriptors(server.pid) - files) / 1000
        yield Row(
            work="idle UDP receiver (RTP + RTCP)",
            unit="kB",
            value=each,
            aim="≤ 8, 2 descriptors",
            met=each <= 8 and opened <= 2,
            note=f"{opened:g} descriptors",
        )

    def kept(self) -> Iterator[Row]:
        """Memory of a stream with its group of pictures."""
        for watched in (False, True):
            memory = []
            for streams in (20, 80):
                with self.server() as server:
                    server.ask("open", count=streams, port=IN_PORT)
                    sender = self.load("rtp_send", port=IN_PORT, streams=streams, seconds=8, together=True)
                    if watched:
                        time.sleep(3)
                        sink = self.load("flv_sink", port=server.port, consumers=streams, streams=streams)
                        sink.wait_ready()
                    sender.result()
                    time.sleep(0.5)  # the last picture is out, all groups are whole, nothing comes any more
                    memory.append(anonymous_kb(server.pid))
                    if watched:
                        sink.stop()
            each = (memory[1] - memory[0]) / 60 / 1024
            yield Row(
                work=f"stream with its 2 s group kept, 1 MB of data{', one FLV consumer' if watched else ''}",
                unit="MiB",
                value=each,
                aim="" if watched else "≤ 1.2",
                met=None if watched else each <= 1.2,
                note="slope between 20 and 80 streams",
            )

    def control(self) -> Iterator[Row]:
        """Control calls while the data plane is saturated: its consumers ask for more than one core can write."""
        with self.server() as server:
            server.ask("open", count=100, port=IN_PORT)
            server.ask("open", count=1, port=IN_PORT)
            paced = self.load("rtp_send", port=IN_PORT, streams=100, seconds=600)
            heavy = self.load("rtp_send", port=IN_PORT + 200, ssrc=1100, mbit=16, seconds=600)
            time.sleep(3)
            sink = self.load(
                "flv_sink", port=server.port, consumers=800, path="/live/s100_c.flv?token=x"
            ).wait_ready()
            time.sleep(1)
            cpu, wall = server.cpu_s, time.monotonic()
            calls = server.ask("calls", count=200, port=CALL_PORT)
            cpu, wall = server.cpu_s - cpu, time.monotonic() - wall
            sink.stop()
            heavy.stop()
            paced.stop()
        yield Row(
            work="control calls under saturation, p99",
            unit="ms",
            value=float(calls["p99"]),
            aim="≤ 50",
            met=calls["p99"] <= 50,
            note=f"p50 {calls['p50']}, max {calls['max']}, open {calls['open_p99']}, close {calls['close_p99']}; "
            f"{100 * cpu / wall:.0f} % of the core",
        )


ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "ingest": Bench.ingest,
    "tcp": Bench.tcp,
    "sustained": Bench.sustained,
    "fanout": Bench.fanout,
    "delay": Bench.delay,
    "loss": Bench.loss,
    "first-byte": Bench.first_byte,
    "idle": Bench.idle,
    "kept": Bench.kept,
    "control": Bench.control,
}


def build_tools() -> None:
    """CMake's own bookkeeping decides what is to be done."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    for command in (
        ["cmake", "-S", str(ROOT / "bench" / "native"), "-B", str(BUILD), *generator],
        ["cmake", "--build", str(BUILD)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "?")
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--plane", choices=("native", "python"), default="native")
    parser.add_argument("--seconds", type=float, default=5, help="of one measurement")
    parser.add_argument(
        "--streams", type=int, nargs="*", default=[300, 450, 600], help="steps of `sustained`"
    )
    parser.add_argument("--consumers", type=int, nargs="*", default=[50, 200, 500], help="of `fanout`")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1], help="of the server and of the load")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.list:
        for name, row in ROWS.items():
            print(f"{name:12} {row.__doc__}")
        return
    os.sched_setaffinity(0, {options.cores[1]})
    build_tools()
    bench = Bench(options)
    rows = []
    for name in options.rows:
        for row in ROWS[name](bench):
            rows.append(row)
            print(f"{row.work}: {row.value} {row.unit} {row.note}", file=sys.stderr)
    command = "python -m bench.media_plane " + " ".join(sys.argv[1:])
    if options.json:
        print(
            json.dumps(
                {"command": command, "machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2
            )
        )
        return
    show(rows, f"{command}\n{machine()}, {options.plane} plane")


def show(rows: list[Row], title: str) -> None:
    """The table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in ("Work", "Figure", "Unit", "Aim", "", "Floor", "Ratio", "Note"):
        table.add_column(heading)
    marks = {None: "", True: "met", False: "MISSED"}
    for row in rows:
        value = f"{row.value:.3g}" if isinstance(row.value, float) else row.value
        floor = f"{row.floor:.3g}" if row.floor else ""
        table.add_row(row.work, value, row.unit, row.aim, marks[row.met], floor, row.ratio, row.note)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
