"""The API, a gateway's devices part on real sockets, and a simulated device, in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gb28181gw.access.roles import Role
from gb28181gw.sim.device import SimDevice
from tests.support.api_services import Rig, api_rig
from tests.support.devices import Running, gateway, until
from tests.support.sim import Simulation, simulated

PASSWORD = "secret-password"


@dataclass
class Bench:
    """A device of `edition` that is registered, and clients of the API."""

    running: Running
    sim: Simulation
    rig: Rig
    client: httpx.AsyncClient

    @property
    def device(self) -> SimDevice:
        return self.sim.device

    @property
    def id(self) -> str:
        return self.device.id

    @property
    def channel(self) -> str:
        return self.device.channels[0].id

    @property
    def channel_path(self) -> str:
        return f"/api/v1/devices/{self.id}/channels/{self.channel}"

    async def command(self, name: str, status: int = 200, **fields: Any) -> dict[str, Any]:
        """`POST …/commands`; the answer, whose status is checked."""
        answer = await self.client.post(
            f"/api/v1/devices/{self.id}/commands", json={"command": name, **fields}
        )
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def on_channel(self, name: str, status: int = 200, **fields: Any) -> dict[str, Any]:
        return await self.command(name, status, channel_id=self.channel, **fields)


@asynccontextmanager
async def bench(
    path: Path,
    *,
    edition: str = "3.0",
    quirks: tuple[str, ...] = (),
    role: Role = Role.ADMIN,
    devices: dict[str, Any] | None = None,
    wait: bool = True,
    **options: Any,
) -> AsyncIterator[Bench]:
    """`devices` are settings of the gateway's side, `options` those of the simulated device; `wait` for the end of
    the first catalogue."""
    async with (
        gateway(path, **(devices or {})) as running,
        simulated(
            f"127.0.0.1:{running.port}",
            password=PASSWORD,
            edition=edition,
            channels=1,
            quirks=quirks,
            **options,
        ) as sim,
        api_rig(devices=running.devices.registry, **services_of(running)) as rig,
        rig.client(role) as client,
    ):
        await sim.registered()
        made = Bench(running, sim, rig, client)
        if wait:
            await until(lambda: {"catalog.complete", "catalog.partial"} & set(running.bus.names()))
        yield made


def services_of(running: Running) -> dict[str, Any]:
    """What the API needs of a real devices part."""
    devices = running.devices
    return {
        "catalogue": devices.catalogue,
        "ptz": devices.ptz,
        "commands": devices.commands,
        "reports": running.reports,
        "subscriptions": running.subscriptions,
        "snapshots": running.snapshots,
    }
