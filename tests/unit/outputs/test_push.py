"""Pushes without a network: what is kept, what is told, what is refused."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gb28181gw.clock import SystemClock
from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.push import Pushes, PushOrder, PushState
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

    async def lease_live(self, device_id: str, channel_id: str, consumer: Viewer) -> Any:
        self.asked.set()
        if self.offline:
            raise GatewayError("gb.route.offline")
        self.held += 1
        return SimpleNamespace(stream_id="s", release=self._release)

    def _release(self) -> None:
        self.held -= 1

    def tracks(self, stream_id: str) -> list[Track]:
        return [Track(kind=TrackKind.VIDEO, codec=Codec.H265)]


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
