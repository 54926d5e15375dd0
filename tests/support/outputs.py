"""A media listener over a media plane, with a stream that the test feeds and a guard that knows one token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Frame
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.listener import ListenerConfig, MediaListener
from gb28181gw.outputs.source import Viewer
from tests.support.plane import Events, make_plane

DEVICE = "34020000001320000001"
CHANNEL = "34020000001310000001"
PATH = f"/live/{DEVICE}_{CHANNEL}.flv"
TOKEN = "good"


@dataclass(frozen=True)
class Grant:
    id: str = "key-grant"


class Guard:
    """Knows the token ``good`` and the key ``secret``; records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None, str]] = []
        self.renewed = 0

    def check(self, path: str, token: str | None, authorization: str | None, client: str) -> Grant:
        self.asked.append((path, token, authorization, client))
        if token == TOKEN or authorization == "Bearer secret":
            return Grant(f"key-{token or 'header'}")
        if token:
            raise GatewayError("gb.output.bad_token")
        raise GatewayError("gb.route.unauthorised")

    def check_open(self, path: str, token: str, is_open: Callable[[str], bool]) -> Grant | None:
        for grant_id in ("key-good", "key-header"):
            if token.startswith("expired") and is_open(grant_id):
                return Grant(grant_id)
        return None

    def renew(self, path: str, grant_id: str) -> str:
        self.renewed += 1
        return f"expired-{self.renewed}"


@dataclass
class Lease:
    stream_id: str
    released: int = 0

    def release(self) -> None:
        self.released += 1


@dataclass
class Source:
    """Leases the stream ``live``; waits for `ready` first."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    error: GatewayError | None = None
    leases: list[Lease] = field(default_factory=list)
    viewers: list[Viewer] = field(default_factory=list)
    cancelled: int = 0

    async def lease_live(self, device_id: str, channel_id: str, viewer: Viewer) -> Lease:
        assert (device_id, channel_id) == (DEVICE, CHANNEL)
        return await self.lease_stream("live", viewer)

    async def lease_stream(self, stream_id: str, viewer: Viewer) -> Lease:
        self.viewers.append(viewer)
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        lease = Lease(stream_id)
        self.leases.append(lease)
        return lease

    @property
    def held(self) -> int:
        return sum(lease.released == 0 for lease in self.leases)


class Bench:
    """Everything that a test of the listener needs."""

    def __init__(self, config: ListenerConfig) -> None:
        self.plane = make_plane()
        self.source = Source()
        self.guard = Guard()
        self.bus = EventBus()
        self.listener = MediaListener(self.plane, self.source, self.guard, self.bus, config)
        self.stream_events = Events()
        self.plane.create_stream("live", self.stream_events)
        self.source.ready.set()

    @property
    def port(self) -> int:
        return self.listener.port

    def url(self, query: str = f"token={TOKEN}", *, scheme: str = "http", path: str = PATH) -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}?{query}"

    def push(self, frames: Sequence[Frame]) -> None:
        """Feed the stream from Python."""
        for frame in frames:
            self.plane.push("live", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=frame.key)

    async def feed(self, frames: Sequence[Frame], *, interval_s: float = 0.004) -> None:
        """Feed it at some pace."""
        for frame in frames:
            self.push([frame])
            await asyncio.sleep(interval_s)


@asynccontextmanager
async def bench(**changes: object) -> AsyncIterator[Bench]:
    """A started listener; at the end everything must be released."""
    made = Bench(ListenerConfig(host="127.0.0.1", port=0, **changes))  # type: ignore[arg-type]
    await made.listener.start()
    try:
        yield made
    finally:
        await made.listener.close()
        await made.plane.close()
        made.bus.close()
    assert made.source.held == 0, "a lease leaked"
    assert all(lease.released == 1 for lease in made.source.leases)
    assert len(made.listener.viewers) == len(made.listener.transcoding) == 0
    assert made.listener.tasks == 0
    assert made.plane.gauges == {"receivers": 0, "streams": 0, "sinks": 0}


async def request(
    port: int, text: str, *, until_closed: bool = False, timeout_s: float = 5.0
) -> tuple[int, dict[str, str], bytes]:
    """One raw request; returns status, headers and body as far as its length says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(text.replace("\n", "\r\n").encode())
        async with asyncio.timeout(timeout_s):
            status, headers = await read_head(reader)
            if until_closed:
                return status, headers, await reader.read()
            return status, headers, await reader.readexactly(int(headers.get("content-length", "0")))
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}
