"""The process that `bench.media_plane` measures: one media plane, its media listener, and orders by lines of JSON.

Run by `bench.media_plane`; alone: python -m bench.media_server --plane native, then e.g.
{"do": "open", "count": 2, "port": 10000} on standard input. Every order is answered by one line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from gb28181gw.media.engine import (
    EngineEvent,
    MediaTransport,
    ReceiverSpec,
    RtpPacking,
    RtpSinkSpec,
    RtpSinkUpdate,
)
from gb28181gw.media.native import NativePlane
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.observability.events import EventBus
from gb28181gw.observability.logs import configure_logging
from gb28181gw.outputs.listener import ListenerConfig, MediaListener
from gb28181gw.outputs.source import Viewer

FIRST_SSRC = 1000


class _Grant:
    id = "bench"


class _Guard:
    def check(self, path: str, token: str | None, authorization: str | None, client: str) -> _Grant:
        return _Grant()


class _Lease:
    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id

    def release(self) -> None: ...


class _Source:
    """The device of a play URL is the stream."""

    async def lease_live(self, device_id: str, channel_id: str, viewer: Viewer) -> _Lease:
        return _Lease(device_id)

    async def lease_stream(self, stream_id: str, viewer: Viewer) -> _Lease:
        return _Lease(stream_id)


def ignore(_: EngineEvent) -> None: ...


class Server:
    """Owner of the plane and of what was opened in it."""

    def __init__(self, plane: NativePlane | ReferencePlane, listener: MediaListener) -> None:
        self._plane = plane
        self._listener = listener
        self._receivers: list[int] = []
        self._streams: list[str] = []

    async def open(self, order: dict[str, Any]) -> dict[str, Any]:
        """`count` receivers from `port` on, each with a stream unless `streams` is false.

        `awake`: the port of sinks that never send, for whose sake the streams are taken apart all the same.
        """
        for _ in range(order["count"]):
            number = len(self._receivers)
            receiver_id = await self._open_receiver(
                order["port"] + 2 * number,
                FIRST_SSRC + number,
                MediaTransport(order.get("transport", "udp")),
            )
            self._receivers.append(receiver_id)
            if order.get("streams", True):
                self._streams.append(f"s{number}")
                self._plane.create_stream(f"s{number}", ignore)
                self._plane.attach(receiver_id, f"s{number}")
                if "awake" in order:
                    spec = RtpSinkSpec(
                        transport=MediaTransport.UDP,
                        host="127.0.0.1",
                        port=order["awake"] + 2 * number,
                        ssrc=1,
                        packing=RtpPacking.ES,
                        codec="pcma",
                    )
                    await self._plane.add_rtp_sink(f"s{number}", spec, ignore)
        return {"receivers": len(self._receivers)}

    async def relay(self, order: dict[str, Any]) -> dict[str, Any]:
        """Each stream goes on as RTP to `to` and every second port above it."""
        for number, stream_id in enumerate(self._streams):
            spec = RtpSinkSpec(
                transport=MediaTransport.UDP,
                host="127.0.0.1",
                port=order["port"] + 2 * number,
                ssrc=500_000 + number,
                remote=("127.0.0.1", order["to"] + 2 * number),
            )
            sink = await self._plane.add_rtp_sink(stream_id, spec, ignore)
            self._plane.update_rtp_sink(sink.id, RtpSinkUpdate(sending=True))
        return {}

    async def close(self, order: dict[str, Any]) -> dict[str, Any]:
        """Everything that was opened."""
        for stream_id in self._streams:
            self._plane.close_stream(stream_id)
        for receiver_id in self._receivers:
            self._plane.close_receiver(receiver_id)
        self._streams.clear()
        self._receivers.clear()
        await asyncio.sleep(0.1)
        gc.collect()
        return {}

    async def counters(self, order: dict[str, Any]) -> dict[str, Any]:
        """Sums over everything."""
        receivers = self._plane.receiver_counters(self._receivers).values()
        streams = self._plane.stream_counters(self._streams).values()
        sums: dict[str, Any] = {
            name: sum(getattr(counter, name) for counter in receivers)
            for name in (
                "packets",
                "bytes",
                "lost",
                "foreign",
                "frames",
                "key_frames",
                "late",
                "demux_errors",
            )
        }
        for name in ("sinks", "frames_in", "frames_dropped", "frames_frozen", "bytes_out"):
            sums[name] = sum(getattr(counter, name) for counter in streams)
        sums["live"] = sum(1 for counter in receivers if counter.packets)
        return sums

    async def calls(self, order: dict[str, Any]) -> dict[str, Any]:
        """How long the control plane waits for its calls: opening, attaching, counters, closing. Milliseconds."""
        times: dict[str, list[float]] = {"open": [], "attach": [], "counters": [], "close": []}

        def note(name: str, begun: float) -> float:
            now = time.perf_counter()
            times[name].append((now - begun) * 1000)
            return now

        for number in range(order["count"]):
            stream_id = f"call{number}"
            at = time.perf_counter()
            receiver_id = await self._open_receiver(order["port"], 900_000 + number, MediaTransport.UDP)
            self._plane.create_stream(stream_id, ignore)
            at = note("open", at)
            self._plane.attach(receiver_id, stream_id)
            at = note("attach", at)
            self._plane.receiver_counters(self._receivers)
            self._plane.stream_counters(self._streams)
            at = note("counters", at)
            self._plane.close_stream(stream_id)
            self._plane.close_receiver(receiver_id)
            note("close", at)
            await asyncio.sleep(order.get("pause_s", 0.01))
        every = sorted(value for values in times.values() for value in values)
        return {
            "p50": quantile(every, 0.5),
            "p99": quantile(every, 0.99),
            "max": every[-1],
            **{f"{name}_p99": quantile(sorted(values), 0.99) for name, values in times.items()},
        }

    async def _open_receiver(self, port: int, ssrc: int, transport: MediaTransport) -> int:
        spec = ReceiverSpec(transport=transport, host="127.0.0.1", port=port, ssrc=ssrc)
        receiver = await self._plane.open_receiver(spec, ignore)
        return receiver.id


def quantile(ordered: list[float], part: float) -> float:
    """Of values in order."""
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3)


async def serve(plane_name: str, workers: int, merge_s: float) -> None:
    """Answer orders until the input ends."""
    plane = NativePlane(workers) if plane_name == "native" else ReferencePlane()
    config = ListenerConfig(
        host="127.0.0.1",
        port=0,
        viewers_per_stream=10_000,
        connections=10_000,
        connections_per_host=10_000,
        merge_s=merge_s,
    )
    listener = MediaListener(plane, _Source(), _Guard(), EventBus(), config)
    await listener.start()
    server = Server(plane, listener)
    handlers: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
        "open": server.open,
        "relay": server.relay,
        "close": server.close,
        "counters": server.counters,
        "calls": server.calls,
    }
    answer({"port": listener.port, "pid": os.getpid()})
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        order = json.loads(line)
        try:
            answer(await handlers[order["do"]](order))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})
    await listener.close()
    await plane.close()


def answer(values: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(values), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plane", choices=("native", "python"), default="native")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--merge-ms", type=int, default=0)
    options = parser.parse_args()
    configure_logging(format="json", level="error")
    uvloop.run(serve(options.plane, options.workers, options.merge_ms / 1000))


if __name__ == "__main__":
    main()
