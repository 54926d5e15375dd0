"""A gateway's sessions, downloads and talks behind its API, simulated devices, and a look at what is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from gb28181gw.access.roles import Role
from gb28181gw.clock import SystemClock
from gb28181gw.devices.records import Records
from gb28181gw.devices.talking import TalkPartners
from gb28181gw.downloads.job import JobLimits
from gb28181gw.downloads.table import DownloadLimits, Downloads
from gb28181gw.gb.ids import ssrc_domain
from gb28181gw.media.ports import PortPool
from gb28181gw.media.ssrc import SsrcPool
from gb28181gw.sessions.call import CallContext, CallLimits
from gb28181gw.sessions.ending import CallEnder
from gb28181gw.sessions.history import HistoryLimits
from gb28181gw.sessions.stream import StreamLimits
from gb28181gw.sessions.table import Sessions
from gb28181gw.sessions.talk import TalkLimits
from gb28181gw.sessions.talks import Talks
from gb28181gw.sip.timers import Timers
from gb28181gw.storage.calls import SqliteCallStore
from gb28181gw.storage.downloads import SqliteDownloadStore
from tests.support.api_services import api_rig
from tests.support.commanding import PASSWORD
from tests.support.devices import PLATFORM, Running, gateway, until
from tests.support.gateway import media_range
from tests.support.plane import Plane, make_plane
from tests.support.sim import Simulation, simulated

CALL: Final = CallLimits(answer_s=1.0, first_packet_s=1.5, key_frame_s=1.5, ask_key_frame_s=0.2)
STREAM: Final = StreamLimits(
    answer_s=6.0, idle_stop_s=30.0, retry_pauses_s=(0.0,), transport="udp", bye_wait_s=0.3
)
HISTORY: Final = HistoryLimits(
    silence_s=0.7,
    download_silence_s=0.7,
    look_s=0.05,
    tail_s=0.2,
    end_silence_s=0.7,
    end_near_s=1.0,
    file_s=1.5,
    end_margin_s=2.0,
)
TALK: Final = TalkLimits(answer_s=6.0, notify_s=1.0, call_s=0.5, invite_s=1.0, connect_s=0.5, idle_s=30.0)
JOB: Final = JobLimits(pauses_s=(0.02,), look_s=0.05)
TIMERS: Final = Timers(t1=0.02, t2=0.1, t4=0.1)
"""What waits for answers that never come gives up after 1.3 s."""
BYES: Final = (0.02, 0.02)
FIRST_ID: Final = 34020000001180000100
STEP: Final = 20


@dataclass(frozen=True)
class Party:
    """One device of the bench, as the API sees it."""

    bench: RefusalBench
    sim: Simulation

    @property
    def id(self) -> str:
        return self.sim.device.id

    @property
    def path(self) -> str:
        return f"/api/v1/devices/{self.id}/channels/{self.sim.device.channels[0].id}"

    async def post(self, what: str, **body: Any) -> tuple[int, dict[str, Any]]:
        answer = await self.bench.client.post(f"{self.path}/{what}", json=body)
        found: dict[str, Any] = answer.json()
        return answer.status_code, found

    def ended(self, event: str) -> list[dict[str, Any]]:
        """The events of this device."""
        return [one for one in self.bench.running.bus.of(event) if one["device_id"] == self.id]


@dataclass(frozen=True)
class RefusalBench:
    running: Running
    sims: Mapping[str, Simulation]
    client: httpx.AsyncClient
    sessions: Sessions
    downloads: Downloads
    talks: Talks
    plane: Plane
    ports: PortPool
    ssrcs: SsrcPool
    store: SqliteCallStore
    directory: Path
    """Of the downloads."""

    def of(self, name: str) -> Party:
        return Party(self, self.sims[name])

    async def over(self, download_id: str) -> dict[str, Any]:
        """The download, when it has ended."""
        await until(lambda: self.downloads.get(download_id).state.over, 15.0)
        found: dict[str, Any] = (await self.client.get(f"/api/v1/downloads/{download_id}")).json()
        return found

    async def open(self) -> dict[str, object]:
        """Everything that a call takes and must give back."""
        return {
            "ports": self.ports.owners(),
            "ssrcs": self.ssrcs.owners(),
            "plane": self.plane.gauges,
            "user agent": self.running.agent.gauges(),
            "stored dialogs": len(await self.store.load_calls()),
            "streams": [view.id for view in self.sessions.list()],
            "talks": [view.id for view in self.talks.list()],
            "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        }

    def calls(self) -> set[str]:
        """Devices that think that a call is open."""
        return {name for name, sim in self.sims.items() if sim.device.calls or sim.device.talks}

    def hang_up(self, name: str) -> None:
        """A device forgets its calls, without a word."""
        device = self.sims[name].device
        for call in (*device.calls.values(), *device.talks.values()):
            call.end("forgotten")

    async def left(self, before: Mapping[str, object], limit_s: float = 10.0) -> dict[str, object]:
        """What is not as it was, when it has had time to become so."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while True:
            now = await self.open()
            left = {key: now[key] for key in now if now[key] != before[key]}
            if not left or asyncio.get_running_loop().time() > deadline:
                return left
            await asyncio.sleep(0.02)


def span(seconds: int) -> dict[str, str]:
    """A span of recordings that begins with a file."""
    start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=30)
    return {"start": start.isoformat(), "end": (start + timedelta(seconds=seconds)).isoformat()}


@asynccontextmanager
async def refusal_bench(
    path: Path, devices: Mapping[str, Mapping[str, object]]
) -> AsyncIterator[RefusalBench]:
    """`devices`: by name, options of the simulated device."""
    clock = SystemClock()
    first, last = (int(part) for part in media_range().split("-"))
    directory = path / "downloads"
    async with gateway(path, timers=TIMERS) as running:
        plane, store = make_plane(), SqliteCallStore(running.database)
        ports, ssrcs = PortPool(first, last, 0.0, clock), SsrcPool(ssrc_domain(PLATFORM), 0.0, clock)
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
            ender=CallEnder(
                ua=running.agent, store=store, bus=running.bus, path_of=registry.path_of, pauses_s=BYES
            ),
            ask_key_frame=running.devices.ask_key_frame,
            bus=running.bus,
            clock=clock,
            limits=CALL,
        )
        records = Records(
            registry=registry, queries=running.devices.queries, bus=running.bus, timezone="+08:00"
        )
        sessions = Sessions(context, registry, STREAM, HISTORY, records.spans)
        downloads = Downloads(
            recordings=sessions,
            engine=plane,
            bus=running.bus,
            clock=clock,
            directory=directory,
            store=SqliteDownloadStore(running.database),
            is_away=lambda _: False,
            limits=DownloadLimits(at_once=16, job=JOB),
        )
        sessions.on_ended(downloads.stream_ended)
        await downloads.start()
        downloads.begin()
        partners = TalkPartners(registry=registry, queries=running.devices.queries, own_id=PLATFORM)
        talks = Talks(context, partners, partners.device_of, TALK)
        running.agent.on_request("INVITE", talks.on_invite)
        async with AsyncExitStack() as stack:
            server, sims = f"127.0.0.1:{running.port}", {}
            for number, (name, options) in enumerate(devices.items()):
                values: dict[str, object] = {
                    "id": str(FIRST_ID + STEP * number),
                    "password": PASSWORD,
                    "channels": 1,
                    "record_file_s": 20,
                    "bitrate_kbps": 100,
                    **options,
                }
                sims[name] = await stack.enter_async_context(simulated(server, **values))
            rig = await stack.enter_async_context(
                api_rig(devices=registry, streams=sessions, downloads=downloads, talks=talks)
            )
            client = await stack.enter_async_context(rig.client(Role.OPERATOR))
            await until(lambda: running.bus.names().count("catalog.complete") >= len(sims), 20.0)
            await until(lambda: not any(running.agent.gauges().values()))
            yield RefusalBench(
                running, sims, client, sessions, downloads, talks, plane, ports, ssrcs, store, directory
            )
            await downloads.close()
            await talks.close()
            await sessions.close()
            await records.close()
        await plane.close()
