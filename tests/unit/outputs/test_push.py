"""Pushes without a network: what is kept, what is told, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from gb28181gw.clock import SystemClock
from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs import push
from gb28181gw.outputs.push import Pushes, PushOrder, PushState
from gb28181gw.outputs.push_worker import _target
from gb28181gw.outputs.source import Viewer

URL = "rtmp://user:geheim@192.0.2.9/live/geheim"


class Store:
    def __init__(self, *orders: PushOrder) -> None:
        self.orders = {order.id: order for order in orders}

    async def load(self) -> list[PushOrder]:
        return [*self.orders.values()]

    async def save(self, order: PushOrder) -> None:
        self.orders[order.id] = order

    async def remove(self, push_id: str) -> None:
        del self.orders[push_id]


class Source:
    """A device that is offline, or sends H.265."""

    def __init__(self, *, offline: bool) -> None:
        self.offline = offline
        self.held = 0
        self.asked = asyncio.Event()
        self.tried = 0
        self.on_frames: Any = None

    async def lease_live(self, device_id: str, channel_id: str, consumer: Viewer) -> Any:
        self.asked.set()
        self.tried += 1
        if self.offline:
            raise GatewayError("gb.route.offline")
        self.held += 1
        return SimpleNamespace(stream_id="s", release=self._release)

    def _release(self) -> None:
        self.held -= 1

    def tracks(self, stream_id: str) -> list[Track]:
        return [Track(kind=TrackKind.VIDEO, codec=Codec.H265)]

    def add_frame_sink(self, stream_id: str, on_frames: Any, **_: object) -> int:
        self.on_frames = on_frames
        return 1

    def close_sink(self, sink: int) -> None:
        self.on_frames = None


def pushes(source: Source, store: Store) -> Pushes:
    engine: Any = source
    audio: Any = None
    return Pushes(
        source=source,
        engine=engine,
        audio=audio,
        store=store,
        bus=EventBus(strict=True),
        clock=SystemClock(),
    )


@pytest.mark.parametrize(
    ("offline", "code"), [(True, "gb.route.offline"), (False, "gb.codec.codec_unsupported")]
)
async def test_s14_a_push_that_fails_tells_its_code_without_its_secrets(offline: bool, code: str) -> None:
    source, store = Source(offline=offline), Store()
    owner = pushes(source, store)
    view = await owner.add("d", "c", URL)
    await source.asked.wait()
    await asyncio.sleep(0)
    found = owner.get(view.order.id)
    assert found.state is PushState.RETRYING
    assert found.last_error.startswith(code)
    assert found.url == "rtmp://192.0.2.9/live/***"
    assert "geheim" not in found.last_error
    assert source.held == 0
    with pytest.raises(GatewayError) as twice:
        await owner.add("d", "c", URL)
    assert twice.value.code == "gb.route.exists"
    await owner.remove(view.order.id)
    assert store.orders == {}
    assert owner.list() == []
    await owner.close()


async def test_stored_orders_are_begun_again_and_go_with_their_device() -> None:
    source = Source(offline=True)
    store = Store(PushOrder(id="1", device_id="d", channel_id="c", url=URL))
    owner = pushes(source, store)
    await owner.start()
    await source.asked.wait()
    assert [view.order.id for view in owner.list()] == ["1"]
    owner.forget_device("other")
    assert len(owner.list()) == 1
    owner.forget_device("d")
    while store.orders or owner.list():
        await asyncio.sleep(0)
    await owner.close()
    assert owner.gauges == {}


async def test_a_device_that_is_back_cuts_the_pause_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "PAUSES_S", (3600.0,))
    source = Source(offline=True)
    owner = pushes(source, Store(PushOrder(id="1", device_id="d", channel_id="c", url=URL)))
    await owner.start()
    for tried in (1, 2, 3):
        async with asyncio.timeout(10):
            while owner.get("1").breaks < tried:
                await asyncio.sleep(0)
        owner.device_online("other")
        assert source.tried == tried
        owner.device_online("d")
    await owner.close()


async def test_med36_another_codec_in_mid_push_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "PAUSES_S", (3600.0,))
    source = Source(offline=False)
    order = PushOrder(id="1", device_id="d", channel_id="c", url="rtsp://127.0.0.1:9/x/y", audio=False)
    owner = pushes(source, Store(order))
    await owner.start()
    async with asyncio.timeout(20):
        while source.on_frames is None:
            await asyncio.sleep(0)
        for codec in (Codec.H265, Codec.H264):
            track = Track(kind=TrackKind.VIDEO, codec=codec)
            frame = Frame(track=track, pts_90k=0, dts_90k=0, payload=b"\0\0\0\1\x65", key=True)
            source.on_frames([frame])
            while not owner.counters.bytes:
                await asyncio.sleep(0.01)
        while owner.get("1").state is not PushState.RETRYING:
            await asyncio.sleep(0.01)
    assert owner.get("1").last_error == "The video is h264 now."
    assert (source.held, source.on_frames) == (0, None)
    await owner.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_worker_that_has_ended_is_a_broken_pipe_and_not_a_bug(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Its own sentence is told then, such as that the connection was refused."""

    async def write() -> None:
        process = await asyncio.create_subprocess_exec("true", stdin=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        await process.wait()
        with pytest.raises(OSError):
            while True:
                push._send(process.stdin, b"data")
                await process.stdin.drain()
        with pytest.raises(OSError):
            for _ in range(10):  # asyncio's own pipe takes what nobody gets
                push._send(process.stdin, b"data")
                await process.stdin.drain()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(write())


@pytest.mark.parametrize(
    ("authorities", "options"),
    [
        ("-", {"tls_verify": "0"}),
        ("/etc/a:b.pem", {"tls_verify": "1", "ca_file": "/etc/a:b.pem"}),
    ],
)
def test_certificates_are_checked_unless_it_is_said(authorities: str, options: dict[str, str]) -> None:
    url = "rtsps://h/live/a|b"
    assert _target(url, authorities) == (url, "rtsp", {"rtsp_transport": "tcp"} | options)
    target, muxer, none = _target(url.replace("rtsp", "rtmp"), authorities)
    assert (muxer, none) == ("tee", {})
    listed = "".join(f":{name}={value}" for name, value in options.items()).replace("a:b", "a\\:b")
    assert target == f"[flvflags=no_duration_filesize:f=flv{listed}]rtmps://h/live/a\\|b"
    assert _target(url, "")[2]["tls_verify"] == "1"
