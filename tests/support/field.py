"""A field of misbehaving devices: one real gateway, and a simulated device for each deviation, all at the same time.

The devices live in a thread of their own, so that tests are plain functions that look at the gateway from outside.
What takes seconds to show is watched from the beginning, and its test waits for what was seen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.gateway import PASSWORD, GatewayProcess, running_gateway, wait_until
from tests.support.plane import FlvTag, flv_tags
from tests.support.sim import Recorder, Simulation, device_options

FIRST_ID = 34020000001180001000
STEP = 20
"""Ids between two devices: each has room for its channels."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One device of the field."""

    rows: tuple[str, ...]
    """Quirks of `gb28181gw.sim.quirks`."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Fields of `DeviceOptions`."""
    media: str = ""
    """Media transport of its play; empty: auto."""
    watch_s: float = 0.0
    """Play it from the beginning and read its FLV for so long."""


@dataclass(kw_only=True)
class Seen:
    """What a play gave."""

    status: int
    answer: dict[str, Any]
    """Of the call, or its problem."""
    stream: dict[str, Any] = field(default_factory=dict)
    """The API's view at the end of the watching."""
    tags: list[FlvTag] = field(default_factory=list)
    device: dict[str, Any] = field(default_factory=dict)

    def times(self, kind: int) -> list[int]:
        """Times in ms of the frames of a kind: 9 video, 8 audio."""
        return [tag.timestamp_ms for tag in self.tags if tag.kind == kind and not tag.is_configuration]

    @property
    def pictures(self) -> list[int]:
        return self.times(9)


class Field:
    """Handle on the gateway and its devices."""

    def __init__(self, gateway: GatewayProcess, plans: Mapping[str, Plan]) -> None:
        self.gateway = gateway
        self.plans = plans
        self.ids = {name: str(FIRST_ID + STEP * number) for number, name in enumerate(plans)}
        for name, plan in plans.items():
            if "REG-13" in plan.rows:
                self.ids[name] = self.ids[name][:19]
        self.simulations: dict[str, Simulation] = {}
        self.watching: dict[str, Future[Seen]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="field")

    def start(self, pool: ThreadPoolExecutor) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)
        for name, plan in self.plans.items():
            if plan.watch_s:
                self.watching[name] = pool.submit(self.play, name, plan.watch_s)

    async def _start(self) -> None:
        for number, (name, plan) in enumerate(self.plans.items()):
            values: dict[str, object] = {
                "password": PASSWORD,
                "id": str(FIRST_ID + STEP * number),
                "channels": 3,
                "name": "大门",
                "quirks": plan.rows,
                **plan.options,
            }
            simulation = Simulation(device_options(self.gateway.sip_server, **values), Recorder())
            await simulation.fleet.prepare()
            simulation.fleet.start()
            self.simulations[name] = simulation

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        await asyncio.gather(*(one.fleet.stop(unregister=False) for one in self.simulations.values()))

    # ---- looks

    def device(self, name: str, channels: int = 3) -> dict[str, Any]:
        """The device, when it is online with so many channels and its catalogue is not being asked for."""
        device_id = self.ids[name]
        self.gateway.wait_online(device_id, channels=channels, limit_s=40)
        wait_until(
            lambda: self.gateway.get(f"/devices/{device_id}/catalog")["state"] != "running",
            f"the catalogue of {name}",
        )
        return dict(self.gateway.get(f"/devices/{device_id}"))

    def quirks(self, name: str, *wanted: str) -> dict[str, int]:
        """The device's quirks, when all of `wanted` are among them."""

        def look() -> tuple[dict[str, int]] | None:
            found: dict[str, int] = self.gateway.get(f"/devices/{self.ids[name]}")["quirks"]
            return (found,) if set(wanted) <= set(found) else None

        found = wait_until(look, f"{wanted} of {name}")
        assert found is not None
        return found[0]

    def channels(self, name: str) -> list[dict[str, Any]]:
        return list(self.gateway.get(f"/devices/{self.ids[name]}/channels")["items"])

    def tree(self, name: str) -> list[dict[str, Any]]:
        return list(self.gateway.get(f"/devices/{self.ids[name]}/tree")["items"])

    def noted(self, name: str, what: str) -> int:
        """How often the simulated device told `what`."""
        return len(self.simulations[name].noted(what))

    def cut(self, name: str) -> None:
        """Every stream of the device stops at once, without a word."""

        def stop() -> None:
            for device in self.simulations[name].devices:
                for call in list(device.calls.values()):
                    call.end("cut")

        self._loop.call_soon_threadsafe(stop)

    def alarm(self, name: str) -> None:
        """The device raises an alarm; returns when it was answered."""
        device = self.simulations[name].device
        assert asyncio.run_coroutine_threadsafe(device.raise_alarm("motion"), self._loop).result(30)

    def leave(self, name: str) -> None:
        """The device unregisters and goes."""
        fleet = self.simulations[name].fleet
        asyncio.run_coroutine_threadsafe(fleet.stop(unregister=True), self._loop).result(30)

    # ---- playing

    def play(self, name: str, watch_s: float = 0.0) -> Seen:
        """Play the first channel, look, and end it."""
        self.device(name, channels=1)
        device_id = self.ids[name]
        media = self.plans[name].media
        channel = self.channels(name)[0]["id"]
        response = self.gateway.post(
            f"/devices/{device_id}/channels/{channel}/live", {"transport": media} if media else {}
        )
        seen = Seen(status=response.status_code, answer=response.json())
        if seen.status == 200:
            if watch_s:
                seen.tags = list(flv_tags(read_for(seen.answer["urls"]["http_flv"], watch_s)))
            stream = self.gateway.api.get(f"/api/v1/streams/{seen.answer['id']}")
            seen.stream = stream.json() if stream.status_code == 200 else {}
        seen.device = self.gateway.get(f"/devices/{device_id}")
        if seen.status == 200:
            self.gateway.api.delete(f"/api/v1/streams/{seen.answer['id']}")
        return seen

    def watched(self, name: str, limit_s: float = 90.0) -> Seen:
        """What was seen of a device that is watched from the beginning."""
        return self.watching[name].result(limit_s)


def read_for(url: str, seconds: float) -> bytes:
    """What a viewer gets in so many seconds."""
    data = bytearray()
    deadline = time.monotonic() + seconds
    with httpx.stream("GET", url, timeout=20) as response:
        assert response.status_code == 200, response.status_code
        for chunk in response.iter_raw():
            data += chunk
            if time.monotonic() > deadline:
                break
    return bytes(data)


@contextmanager
def running_field(directory: Path, plans: Mapping[str, Plan], **settings: dict[str, Any]) -> Iterator[Field]:
    """Gateway and devices for the length of the block."""
    with (
        running_gateway(directory, **settings) as gateway,
        ThreadPoolExecutor(max(1, sum(bool(plan.watch_s) for plan in plans.values()))) as pool,
    ):
        made = Field(gateway, plans)
        made.start(pool)
        try:
            yield made
        finally:
            for future in made.watching.values():
                future.cancel()
            made.stop()
