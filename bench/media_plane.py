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
import fcntl
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
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
_MAX_BACKLOG = 1_000_000
_MAX_LATE_MS = 20.0
"""Half of a picture interval."""
_SETTLE_S = 2.0
"""A marker ends a picture after 25 of them fell on picture ends: the first second of a stream is not its delay."""


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

    late_ms: float = 0.0
    """How late the load was sent, p99. What comes late comes in larger lots, which cost less: no figure then."""

    @property
    def verdict(self) -> str:
        if self.late_ms > _MAX_LATE_MS:
            return "late load"
        return {None: "", True: "met", False: "MISSED"}[self.met]

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
        """The last third usually holds much more than the first did. One look may meet a moment of another program."""
        third = max(1, len(self.totals) // 3)
        if len(self.totals) < third * 2:
            return False
        first, last = median(self.totals[:third]), median(self.totals[-third:])
        return last > 2 * first + _MAX_BACKLOG


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

    def abandon(self) -> None:
        """End it if it still runs; whatever it has counted."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


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
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measurement of packets in."""

    cost: float
    """CPU seconds per million packets."""
    share: float
    """Of the core."""
    note: str
    held: bool
    """It was sustained."""
    late_ms: float

    @classmethod
    def of(cls, cpu: float, wall: float, packets: int, sent: dict[str, Any], held: bool, note: str) -> Run:
        """`sent`: what the generator told."""
        late_ms = sent["late_ms"]["p99"]
        note = f"{100 * cpu / wall:.0f} % of the core, {note}, load late p99 {late_ms:.1f} ms"
        return cls(
            cost=cpu / packets * 1e6,
            share=cpu / wall,
            note=note + ("" if held else ", NOT sustained"),
            held=held,
            late_ms=late_ms,
        )


class Bench:
    """The rows. Each starts its own server, so that none inherits another's memory."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._tools: list[Tool] = []
        self._plane: str = options.plane
        self._server_core: int = options.cores[0]
        self._load_core: int = options.cores[1]
        self._seconds: float = options.seconds
        # One block of ports after the other: in, out, the relay's own, a few for single purposes.
        first, span = options.first_port, options.port_span
        self._in_port, self._out_port, self._relay_port = first, first + span, first + 2 * span
        self._call_port, self._http_port = first + 3 * span, first + 3 * span + 2
        self._step_streams: list[int] = options.streams
        self._consumers: list[int] = options.consumers

    # helpers

    def close(self) -> None:
        """End the tools that a row which failed has left behind."""
        for tool in self._tools:
            tool.abandon()

    @contextlib.contextmanager
    def server(self, *extra: str) -> Iterator[Server]:
        server = Server(self._server_core, self._plane, *extra)
        try:
            yield server
        finally:
            server.end()

    def load(self, name: str, **options: Any) -> Tool:
        return self._started(Tool(name, self._load_core, **options))

    def floor(self, work: str, **options: Any) -> Tool:
        return self._started(Tool("floor", self._server_core, work=work, **options)).wait_ready()

    def _started(self, tool: Tool) -> Tool:
        self._tools.append(tool)
        return tool

    def ingest_floor(self, streams: int, *, gso: bool, tcp: bool = False) -> float:
        floor = self.floor("tcp" if tcp else "ingest", port=self._in_port, streams=streams, gro=gso)
        sent = self.load(
            "rtp_send", port=self._in_port, streams=streams, seconds=self._seconds, gso=gso, tcp=tcp
        ).result()
        counted = floor.stop()
        return float(counted["cpu_s"] / sent["packets"] * 1e6)

    def run_ingest(self, streams: int, *, gso: bool, tcp: bool = False) -> Run:
        """Streams taken apart, FLV ready, nobody watching."""
        with self.server() as server:
            transport = "tcp-passive" if tcp else "udp"
            server.ask("open", count=streams, port=self._in_port, transport=transport, awake=self._relay_port)
            # Two seconds until every stream had its first key frame.
            sender = self.load(
                "rtp_send", port=self._in_port, streams=streams, seconds=self._seconds + 3.5, gso=gso, tcp=tcp
            )
            time.sleep(2.5)
            with watch_queues(self._in_port, streams, tcp=tcp) as queues:
                before, cpu, wall = server.ask("counters"), server.cpu_s, time.monotonic()
                time.sleep(self._seconds)
                after, cpu, wall = server.ask("counters"), server.cpu_s - cpu, time.monotonic() - wall
            sent = sender.result()
            time.sleep(0.3)
            end = server.ask("counters")
        held = end["lost"] == 0 and queues.dropped == 0 and not queues.grew and end["live"] == streams
        note = f"{end['lost']} lost" + (
            f", {end['demux_errors']} demux errors" if end["demux_errors"] else ""
        )
        return Run.of(cpu, wall, after["packets"] - before["packets"], sent, held, note)

    # rows

    def relay(self) -> Iterator[Row]:
        """RTP/PS in, the same out, 100 streams, as cascading does."""
        for gso in (False, True):
            floor = self.relay_floor(100, gro=gso)
            run, _ = self.run_relay(100, gso=gso)
            aim, note = (3.3 if gso else 4.0), run.note
            if not gso:
                note += f"; floor with GSO on send {self.relay_floor(100, gso=True):.2f}"
            yield Row(
                work=f"relay 1→1 RTP/PS over UDP, 100 streams{', GRO' if gso else ''}",
                unit="CPU-s per 1M packets",
                value=run.cost,
                aim=f"≤ {aim}",
                met=run.cost <= aim,
                floor=floor,
                note=note,
                late_ms=run.late_ms,
            )
        run, delay = self.run_relay(50, gso=False)
        for name, most in (("p50", 1.0), ("p99", 10.0)):
            yield Row(
                work=f"delay RTP in → RTP out, 50 streams, {name}",
                unit="ms",
                value=float(delay[name]),
                aim=f"≤ {most:g}",
                met=delay[name] <= most,
                note=run.note,
                late_ms=run.late_ms,
            )

    def relay_sustained(self) -> Iterator[Row]:
        """Streams relayed on one core without loss."""
        for gso in (False, True):
            best, note, late_ms = 0, "", 0.0
            for streams in self._step_streams:
                run, _ = self.run_relay(streams, gso=gso)
                if not run.held:
                    note += f"; {streams}: {run.note}"
                    break
                best, note, late_ms = streams, run.note, run.late_ms
            yield Row(
                work=f"relay 1→1, streams sustained on one core{', GRO' if gso else ''}",
                unit="streams",
                value=float(best),
                aim="≥ 600",
                met=best >= 600,
                note=note,
                late_ms=late_ms,
            )

    def relay_floor(self, streams: int, **how: bool) -> float:
        floor = self.floor("relay", port=self._in_port, to=self._out_port, streams=streams, **how)
        gro = how.get("gro", False)
        sink = self.load("rtp_sink", port=self._out_port, streams=streams, gro=gro).wait_ready()
        sent = self.load(
            "rtp_send", port=self._in_port, streams=streams, seconds=self._seconds, gso=gro
        ).result()
        counted = floor.stop()
        sink.stop()
        return float(counted["cpu_s"] / sent["packets"] * 1e6)

    def run_relay(self, streams: int, *, gso: bool) -> tuple[Run, dict[str, float]]:
        """Streams passed on; and the delay of their pictures."""
        with self.server() as server:
            server.ask("open", count=streams, port=self._in_port)
            server.ask("relay", port=self._relay_port, to=self._out_port)
            sender = self.load(
                "rtp_send", port=self._in_port, streams=streams, seconds=self._seconds + 5, gso=gso
            )
            time.sleep(3)  # every stream has had a key frame, and its kept group has left
            sink = self.load("rtp_sink", port=self._out_port, streams=streams, gro=gso).wait_ready()
            with watch_queues(self._in_port, streams) as queues:
                before, cpu, wall = server.ask("counters"), server.cpu_s, time.monotonic()
                time.sleep(self._seconds)
                after, cpu, wall = server.ask("counters"), server.cpu_s - cpu, time.monotonic() - wall
            read = sink.stop()
            sent = sender.result()
            end = server.ask("counters")
        held = end["lost"] == 0 and queues.dropped == 0 and not queues.grew and read["live"] == streams
        note = f"{end['lost']} lost in, {read['lost']} lost out"
        packets = after["packets"] - before["packets"]
        return Run.of(cpu, wall, packets, sent, held and read["lost"] == 0, note), read["delay_ms"]

    def ingest(self) -> Iterator[Row]:
        """200 streams over UDP, taken apart, FLV ready."""
        for gso in (False, True):
            floor = self.ingest_floor(200, gso=gso)
            run = self.run_ingest(200, gso=gso)
            yield Row(
                work=f"ingest with demux, 200 streams{', GRO' if gso else ''}",
                unit="CPU-s per 1M packets",
                value=run.cost,
                aim="≤ 4.0",
                met=run.cost <= 4.0,
                floor=floor,
                note=run.note,
                late_ms=run.late_ms,
            )

    def tcp(self) -> Iterator[Row]:
        """100 streams over TCP passive."""
        floor = self.ingest_floor(100, gso=False, tcp=True)
        run = self.run_ingest(100, gso=False, tcp=True)
        yield Row(
            work="ingest over TCP passive, 100 streams",
            unit="CPU-s per 1M packets",
            value=run.cost,
            aim="≤ 5.0",
            met=run.cost <= 5.0,
            floor=floor,
            note=run.note,
            late_ms=run.late_ms,
        )

    def sustained(self) -> Iterator[Row]:
        """Streams taken apart on one core without loss."""
        best, note, late_ms = 0, "", 0.0
        for streams in self._step_streams:
            run = self.run_ingest(streams, gso=True)
            if not run.held:
                note += f"; {streams}: {run.note}"
                break
            best, note, late_ms = streams, run.note, run.late_ms
        yield Row(
            work="streams sustained with demux, one core, GRO",
            unit="streams",
            value=float(best),
            note=note,
            late_ms=late_ms,
        )

    def fanout(self) -> Iterator[Row]:
        """One stream to many consumers."""
        for consumers in self._consumers:
            for ws in (False, True):
                yield self.fan_out(consumers, ws=ws, merge_ms=0)
        yield self.fan_out(max(self._consumers), ws=False, merge_ms=300)

    def fan_out(self, consumers: int, *, ws: bool, merge_ms: int) -> Row:
        floor_tool = self.floor("fanout", port=self._http_port, consumers=consumers, merge_ms=merge_ms)
        sink = self.load("flv_sink", port=self._http_port, consumers=consumers).wait_ready()
        cpu = cpu_clock(floor_tool.pid)
        time.sleep(self._seconds)
        cpu = cpu_clock(floor_tool.pid) - cpu
        floor_tool.stop()
        sink.stop()
        seconds = self._seconds
        floor = cpu / (seconds * consumers * (20_340 * 25 * 8) / 1e9)
        extra = ("--merge-ms", str(merge_ms)) if merge_ms else ()
        with self.server(*extra) as server:
            server.ask("open", count=1, port=self._in_port)
            sender = self.load("rtp_send", port=self._in_port, seconds=600)
            time.sleep(2.5)
            sink = self.load("flv_sink", port=server.port, consumers=consumers, ws=ws).wait_ready()
            time.sleep(2)
            before, cpu, wall = server.ask("counters"), server.cpu_s, time.monotonic()
            time.sleep(seconds)
            after, cpu, wall = server.ask("counters"), server.cpu_s - cpu, time.monotonic() - wall
            read = sink.stop()
            sent = sender.stop()
        gbit = (after["bytes_out"] - before["bytes_out"]) * 8 / 1e9
        rate = gbit / wall / consumers * 1000
        dropped = after["frames_dropped"] - before["frames_dropped"]
        note = (
            f"{100 * cpu / wall:.0f} % of the core, {rate:.2f} Mbit/s each, {dropped} frames dropped, "
            f"{read['closed']} closed"
        )
        aim = {0: 0.09, 300: 0.05}[merge_ms]
        cost = cpu / gbit
        return Row(
            work=f"fan-out to {consumers} {'WS' if ws else 'HTTP'}-FLV"
            + (f", writes merged {merge_ms} ms" if merge_ms else ""),
            unit="CPU-s per Gbit",
            value=cost,
            aim=f"≤ {aim:.2f}" if consumers >= 500 else "",
            met=cost <= aim if consumers >= 500 else None,
            floor=floor,
            note=note,
            late_ms=sent["late_ms"]["p99"],
        )

    def delay(self, streams: int = 50) -> Iterator[Row]:
        """RTP in to FLV out, 50 streams."""
        with self.server() as server:
            server.ask("open", count=streams, port=self._in_port)
            sender = self.load("rtp_send", port=self._in_port, streams=streams, seconds=600)
            time.sleep(4)
            sink = self.load(
                "flv_sink",
                port=server.port,
                consumers=streams,
                streams=streams,
                stamps=True,
                settle=_SETTLE_S,
            ).wait_ready()
            time.sleep(_SETTLE_S + self._seconds)
            read = sink.stop()
            late_ms = sender.stop()["late_ms"]["p99"]
        delay = read["delay_ms"]
        note = f"p90 {delay['p90']:.2f}, max {delay['max']:.1f}, {delay['count']} pictures, {read['missing']} missing"
        yield Row(
            work=f"delay RTP in → FLV out, {streams} streams, p50",
            unit="ms",
            value=float(delay["p50"]),
            aim="≤ 3",
            met=delay["p50"] <= 3,
            note=note,
            late_ms=late_ms,
        )
        yield Row(
            work=f"delay RTP in → FLV out, {streams} streams, p99",
            unit="ms",
            value=float(delay["p99"]),
            aim="≤ 10",
            met=delay["p99"] <= 10,
            late_ms=late_ms,
        )

    def loss(self) -> Iterator[Row]:
        """One packet of one stream is lost in the middle of a group."""
        with self.server() as server:
            server.ask("open", count=1, port=self._in_port)
            # The groups have 789 packets: this one is in the middle of the fourth.
            sender = self.load("rtp_send", port=self._in_port, seconds=12, drop_packet=3 * 789 + 400)
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
            note=f"{counters['lost']} packet lost, {counters['frames_frozen']} frozen, "
            f"longest pause {read['longest_pause_ms']:.0f} ms",
        )

    def first_byte(self) -> Iterator[Row]:
        """From the request to a key picture, on a running stream."""
        with self.server() as server:
            server.ask("open", count=10, port=self._in_port)
            sender = self.load("rtp_send", port=self._in_port, streams=10, seconds=600)
            time.sleep(4)
            read = self.load(
                "flv_sink", port=server.port, consumers=200, streams=10, one_by_one=True, pause_ms=13
            ).result()
            sender.stop()
        first = read["first_key_ms"]
        yield Row(
            work="first byte of a key picture on a running stream, from the request, p50",
            unit="ms",
            value=float(first["p50"]),
            aim="≤ 1.0",
            met=first["p50"] <= 1.0,
            note=f"p99 {first['p99']:.2f}, {first['count']} requests",
        )
        yield self.first_picture(15)

    def first_picture(self, streams: int) -> Row:
        """From the first packet of a stream to its first picture at a consumer that waits for it."""
        with self.server() as server:
            server.ask("open", count=streams, port=self._in_port)
            delays = []
            for number in range(streams):
                sink = self.load(
                    "flv_sink", port=server.port, path=f"/live/s{number}_c.flv?token=x", stamps=True
                )
                time.sleep(0.3)  # it waits
                sender = self.load(
                    "rtp_send", port=self._in_port + 2 * number, ssrc=1000 + number, seconds=600
                )
                sink.wait_ready()
                delays.append(sink.stop()["first_picture_ms"]["p50"])
                sender.stop()
        return Row(
            work="first packet of a stream to the whole of its first picture at a waiting consumer, p50",
            unit="ms",
            value=float(median(delays)),
            note=f"{min(delays):.1f} to {max(delays):.1f}, {streams} streams",
        )

    def idle(self) -> Iterator[Row]:
        """Memory and descriptors of receivers that wait."""
        with self.server() as server:
            server.ask("open", count=200, port=self._in_port, streams=False)
            memory, files = anonymous_kb(server.pid), descriptors(server.pid)
            server.ask("open", count=1000, port=self._in_port, streams=False)
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
                    server.ask("open", count=streams, port=self._in_port)
                    sender = self.load(
                        "rtp_send", port=self._in_port, streams=streams, seconds=8, together=True
                    )
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
        """Control calls while the data plane is saturated by a flood of small packets from strangers."""
        with self.server() as server:
            server.ask("open", count=100, port=self._in_port)
            paced = self.load("rtp_send", port=self._in_port, streams=100, seconds=600)
            time.sleep(3)
            flood = self.load(
                "rtp_send", port=self._in_port, streams=100, seconds=600, flood=10_000_000, size=100, gso=True
            )
            time.sleep(1)
            cpu, wall = server.cpu_s, time.monotonic()
            calls = server.ask("calls", count=200, port=self._call_port)
            cpu, wall = server.cpu_s - cpu, time.monotonic() - wall
            flooded = flood.stop()
            paced.stop()
            foreign = server.ask("counters")["foreign"]
        yield Row(
            work="control calls under saturation, p99",
            unit="ms",
            value=float(calls["p99"]),
            aim="≤ 50",
            met=calls["p99"] <= 50,
            note=f"p50 {calls['p50']}, max {calls['max']:.1f}, open {calls['open_p99']}, close {calls['close_p99']}; "
            f"{100 * cpu / wall:.0f} % of the core, {flooded['packets'] / flooded['seconds']:,.0f} packets/s sent, "
            f"{foreign:,} foreign ones read",
        )


ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "relay": Bench.relay,
    "relay-sustained": Bench.relay_sustained,
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
    # CMake and Ninja of the development requirements stand beside the interpreter.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    cmake = shutil.which("cmake", path=path)
    if cmake is None:
        raise SystemExit("The load tools need CMake and a C++20 compiler.")
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=path) else []
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs build one after the other
        _build(cmake, generator, path)


def _build(cmake: str, generator: list[str], path: str) -> None:
    for command in (
        [cmake, "-S", str(ROOT / "bench" / "native"), "-B", str(BUILD), *generator],
        [cmake, "--build", str(BUILD), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "?")
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--plane", choices=("native", "python"), default="native")
    parser.add_argument("--seconds", type=float, default=5, help="of one measurement")
    parser.add_argument(
        "--streams", type=int, nargs="*", default=[300, 450, 600], help="steps of `sustained`"
    )
    parser.add_argument("--consumers", type=int, nargs="*", default=[50, 200, 500], help="of `fanout`")
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument(
        "--cores", type=int, nargs=2, default=[cores[0], cores[-1]], help="of the server and of the load"
    )
    parser.add_argument(
        "--first-port",
        type=int,
        default=10_000,
        help="the ports from here on must be free, below those of the system",
    )
    parser.add_argument("--port-span", type=int, default=3_000, help="ports for each direction, two a stream")
    parser.add_argument(
        "--nice", type=int, default=0, help="priority of all processes; below 0 on a busy machine, as root"
    )
    parser.add_argument("--json", action="store_true")
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.list:
        for name, measure in ROWS.items():
            print(f"{name:16} {measure.__doc__}")
        return
    os.sched_setaffinity(0, {options.cores[1]})
    os.nice(options.nice)
    build_tools()
    bench = Bench(options)
    rows: list[Row] = []
    try:
        for name in options.rows:
            for row in ROWS[name](bench):
                rows.append(row)
                print(f"{row.work}: {row.value} {row.unit} {row.note}", file=sys.stderr)
    finally:
        bench.close()
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
    for row in rows:
        value = f"{row.value:.3g}" if isinstance(row.value, float) else row.value
        floor = f"{row.floor:.3g}" if row.floor else ""
        table.add_row(row.work, value, row.unit, row.aim, row.verdict, floor, row.ratio, row.note)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
