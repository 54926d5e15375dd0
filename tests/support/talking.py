"""The API, devices and talks on real sockets over a media plane, and a simulated device, in one process."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gb28181gw.access.roles import Role
from gb28181gw.clock import SystemClock
from gb28181gw.devices.talking import TalkPartners
from gb28181gw.gb.ids import ssrc_domain
from gb28181gw.media.ports import PortPool
from gb28181gw.media.ssrc import SsrcPool
from gb28181gw.sessions.call import CallContext
from gb28181gw.sessions.ending import CallEnder
from gb28181gw.sessions.talk import TalkLimits
from gb28181gw.sessions.talks import Talks
from gb28181gw.sim.device import SimDevice
from gb28181gw.sim.talking import Talking
from gb28181gw.storage.calls import SqliteCallStore
from tests.support.api_services import Rig, api_rig
from tests.support.commanding import PASSWORD
from tests.support.devices import PLATFORM, Running, gateway, until
from tests.support.gateway import media_range
from tests.support.plane import Plane, make_plane
from tests.support.sim import Simulation, simulated

FAST = TalkLimits(notify_s=1.0, call_s=0.5, invite_s=3.0, idle_s=30.0)


@dataclass
class TalkBench:
    """A registered device, its gateway, and a client of the API."""

    running: Running
    sim: Simulation
    rig: Rig
    client: httpx.AsyncClient
    talks: Talks
    plane: Plane
    ports: PortPool
    ssrcs: SsrcPool
    store: SqliteCallStore

    @property
    def device(self) -> SimDevice:
        return self.sim.device

    @property
    def channel(self) -> str:
        return self.device.channels[0].id

    @property
    def path(self) -> str:
        return f"/api/v1/devices/{self.device.id}/channels/{self.channel}/talk"

    async def start(self, status: int = 200, **body: Any) -> dict[str, Any]:
        answer = await self.client.post(self.path, json=body)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def listening(self) -> Talking:
        """The device's side of the only talk, once it hears something."""
        await until(lambda: [talk for talk in self.device.talks.values() if talk.ear.packets])
        (talk,) = self.device.talks.values()
        return talk

    async def all_given_back(self) -> None:
        """I2, I3: no port, SSRC, stream, sink or dialog is left."""
        await until(lambda: not len(self.talks) and not self.ports.in_use and not self.ssrcs.in_use)
        await until(lambda: self.plane.gauges == {"receivers": 0, "streams": 0, "sinks": 0})
        async with asyncio.timeout(5):
            while await self.store.load_calls():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def talk_bench(
    path: Path,
    *,
    role: Role = Role.OPERATOR,
    limits: TalkLimits = FAST,
    devices: dict[str, Any] | None = None,
    shared_port: int = 0,
    **options: Any,
) -> AsyncIterator[TalkBench]:
    """`options` are those of the simulated device."""
    clock = SystemClock()
    first, last = (int(part) for part in media_range().split("-"))
    async with gateway(path, **(devices or {})) as running:
        plane, store = make_plane(), SqliteCallStore(running.database)
        ports, ssrcs = PortPool(first, last, 0.0, clock), SsrcPool(ssrc_domain(PLATFORM), 0.0, clock)
        if shared_port:
            await plane.open_shared_port("127.0.0.1", shared_port)
        registry = running.devices.registry
        context = CallContext(
            own_id=PLATFORM,
            media_listen="127.0.0.1",
            media_advertise="",
            source_mode="nat",
            ua=running.agent,
            engine=plane,
            ports=ports,
            ssrcs=ssrcs,
            store=store,
            ender=CallEnder(ua=running.agent, store=store, bus=running.bus, path_of=registry.path_of),
            ask_key_frame=running.devices.ask_key_frame,
            bus=running.bus,
            clock=clock,
            shared_port=shared_port,
        )
        partners = TalkPartners(registry=registry, queries=running.devices.queries, own_id=PLATFORM)
        talks = Talks(context, partners, partners.device_of, limits)
        running.agent.on_request("INVITE", talks.on_invite)
        async with (
            simulated(f"127.0.0.1:{running.port}", password=PASSWORD, channels=1, **options) as sim,
            api_rig(devices=registry, talks=talks) as rig,
            rig.client(role) as client,
        ):
            await sim.registered()
            await until(lambda: "catalog.complete" in running.bus.names())
            made = TalkBench(running, sim, rig, client, talks, plane, ports, ssrcs, store)
            yield made
            await talks.close()
            await made.all_given_back()
        await plane.close()


def tone(seconds: float, *, hertz: float = 440.0, rate: int = 8_000, level: int = 12_000) -> bytes:
    """Signed 16-bit PCM."""
    return b"".join(
        struct.pack("<h", round(level * math.sin(2 * math.pi * hertz * index / rate)))
        for index in range(int(rate * seconds))
    )


def heard_level(pcm: bytes, hertz: float, rate: int = 8_000) -> float:
    """Amplitude of one frequency in PCM (Goertzel's way: one bin of a Fourier transform)."""
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm[: len(pcm) // 2 * 2])
    if not samples:
        return 0.0
    step = 2 * math.pi * hertz / rate
    real = sum(sample * math.cos(step * index) for index, sample in enumerate(samples))
    imaginary = sum(sample * math.sin(step * index) for index, sample in enumerate(samples))
    return 2 * math.hypot(real, imaginary) / len(samples)


def loud_part(pcm: bytes, threshold: int = 1_000) -> bytes:
    """From the first to the last sample that is louder than `threshold`."""
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm[: len(pcm) // 2 * 2])
    loud = [index for index, sample in enumerate(samples) if abs(sample) > threshold]
    return pcm[2 * loud[0] : 2 * loud[-1] + 2] if loud else b""
