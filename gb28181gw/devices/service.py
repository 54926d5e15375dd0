"""Everything of this package, joined: what `app` constructs and what sessions and the API call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.authentication import Authenticator
from gb28181gw.devices.bans import BanTable
from gb28181gw.devices.catalogue_service import CatalogueService
from gb28181gw.devices.clockwatch import ClockWatch
from gb28181gw.devices.commands import Commands
from gb28181gw.devices.config import DevicesConfig
from gb28181gw.devices.dialects import dialect_of
from gb28181gw.devices.experience import Experience
from gb28181gw.devices.learning import Learning
from gb28181gw.devices.messages import Messages
from gb28181gw.devices.models import Device
from gb28181gw.devices.pacer import Pacer
from gb28181gw.devices.path_keeper import PathKeeper
from gb28181gw.devices.presence import PresenceKeeper, PresenceRules
from gb28181gw.devices.ptz import PtzControl
from gb28181gw.devices.queries import Queries
from gb28181gw.devices.registrar import Registrar
from gb28181gw.devices.registry import Registry
from gb28181gw.devices.store import DeviceStore
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.control import write_key_frame_control
from gb28181gw.gb.manscdp.messages import DeviceStatusQuery, write
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.path import Path
from gb28181gw.ua.agent import UserAgent

PROBE_S: Final = 8.0
"""Time a suspect device has to answer: offline is known at most ten seconds after its window (F-03)."""
PATH_PROBE_S: Final = 4.0
PROBES_AT_ONCE: Final = 500


@dataclass(slots=True)
class DevicesCounters:
    """Plain counters for the exporter."""

    probes: int = 0
    probes_answered: int = 0


class Devices:
    """Owner of the registry and of the tasks around it. `start` after the store is open, before SIP listens."""

    def __init__(
        self, *, config: DevicesConfig, agent: UserAgent, store: DeviceStore, bus: EventBus, clock: Clock
    ) -> None:
        self.config = config
        self.counters = DevicesCounters()
        self.registry = Registry(store=store, bus=bus, clock=clock, profiles=config.profiles)
        self.clock_watch = ClockWatch(clock, bus)
        self._agent = agent
        self._store = store
        self._bus = bus
        self._clock = clock
        self.presence = PresenceKeeper(
            registry=self.registry,
            bus=bus,
            clock=clock,
            rules=PresenceRules(keepalive_s=config.keepalive_s, misses=config.keepalive_misses),
            probe=self._probe,
        )
        self.queries = Queries(
            agent=agent, registry=self.registry, presence=self.presence, timeout_s=config.query_timeout_s
        )
        self.pacer = Pacer(rate=config.requests_per_s, clock=clock)
        self._probe_pacer = Pacer(rate=config.requests_per_s, clock=clock)
        self.paths = PathKeeper(
            registry=self.registry,
            presence=self.presence,
            store=store,
            bus=bus,
            clock=clock,
            mode=config.binding_mode,
            ask=self._ask_path,
            close_path=agent.transports.close_path,
            trust_path=agent.transports.mark_trusted,
            on_conflict=self._conflict,
        )
        self.learning = Learning(self.registry)
        self.messages = Messages(
            registry=self.registry,
            presence=self.presence,
            paths=self.paths,
            queries=self.queries,
            bus=bus,
            clock=clock,
            on_refused=agent.refused,
            on_heard=self.learning.heard,
        )
        self.catalogue = CatalogueService(
            config=config,
            registry=self.registry,
            store=store,
            queries=self.queries,
            pacer=self.pacer,
            bus=bus,
            clock=clock,
        )
        self.experience = Experience(registry=self.registry, bus=bus, clock=clock)
        self.ptz = PtzControl(
            registry=self.registry,
            queries=self.queries,
            experience=self.experience,
            bus=bus,
            stop_after_s=config.ptz_stop_s,
        )
        self.commands = Commands(
            registry=self.registry,
            queries=self.queries,
            ptz=self.ptz,
            experience=self.experience,
            bus=bus,
            timezone=config.timezone,
        )
        self.bans = BanTable(store)
        self._registrar: Registrar | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._probing: set[asyncio.Task[None]] = set()
        self._probe_slots = asyncio.Semaphore(PROBES_AT_ONCE)

    @property
    def registrar(self) -> Registrar:
        """There after `start`."""
        if self._registrar is None:
            raise RuntimeError("devices are not started")
        return self._registrar

    # -- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load everything, take the SIP methods, start the tasks. Raises GatewayError when the store fails."""
        await self.registry.load(self._as_now)
        self.bans.load(await self._store.load_bans())
        key = await self._store.secret("nonce_key")
        latest = max((device.nonce_minted_at for device in self.registry), default=0.0)
        self._registrar = Registrar(
            config=self.config,
            registry=self.registry,
            store=self._store,
            presence=self.presence,
            bus=self._bus,
            clock=self._clock,
            authenticator=Authenticator(
                key=key, realm=self.config.domain, clock=self._clock, not_before=latest
            ),
            bans=self.bans,
            clock_trusted=lambda: self.clock_watch.trusted,
            on_refused=self._agent.refused,
            on_bound=self._bound,
        )
        self.presence.on_online(self.catalogue.came_online)
        self.registry.on_approved(lambda device: self.catalogue.enqueue(device, "approved"))
        self.messages.on_document("Response", "Catalog", self.catalogue.unasked_response)
        self.messages.on_document("Notify", "Catalog", self.catalogue.notified)
        self._agent.use_policy(is_known=self.is_known, is_verified=self.registry.is_bound)
        self._agent.on_path_closed = self.presence.connection_lost
        self._agent.on_request("REGISTER", self._registrar.handle)
        self._agent.on_request("MESSAGE", self.messages.handle)
        self._agent.on_request("NOTIFY", self.messages.handle)
        self.presence.restore()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._supervised("catalogues", self.catalogue.run)),
            loop.create_task(self._supervised("devices", self._run)),
        ]

    async def close(self) -> None:
        """End all tasks and write what is unsaved. The store is its owner's to close afterwards."""
        await self.ptz.close()
        for task in (*self._tasks, *self._probing):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._probing, return_exceptions=True)
        self._tasks.clear()
        await self.messages.close()
        await self.paths.close()
        if self._registrar is not None:
            await self._registrar.close()
        await self.catalogue.flush()
        self.registry.flush()

    def is_known(self, path: Path, user: str) -> bool:
        """Whether `path` is bound to the device `user`, or to a device that `user` may be a channel of."""
        if not self.registry.is_bound(path):
            return False
        device = self.registry.get(user)
        return device is None or device in self.registry.bound_to(path)

    def on_offline(self, hear: Callable[[str, str], None]) -> None:
        """`hear(device_id, reason)` when a device went offline."""
        self.presence.on_offline(lambda device, reason: hear(device.id, reason))

    def on_forgotten(self, hear: Callable[[str], None]) -> None:
        """`hear(device_id)` when a device unregistered: it has ended its media by itself (REG-11)."""
        self.presence.on_forgotten(lambda device: hear(device.id))

    def _as_now(self, path: Path) -> Path:
        """A path of before the start, with the address and port that we have now."""
        host = self._agent.transports.addresses.towards(path.remote_host)
        return path._replace(
            local_host=host or path.local_host, local_port=self.config.sip_port or path.local_port
        )

    def ask_key_frame(self, device_id: str, channel_id: str) -> None:
        """Ask a channel for a key frame (MED-34). Nothing waits for it: the picture is the answer.

        A control like any other: not sent on a trial path (`devices/binding.py`).
        """
        device = self.registry.get(device_id)
        if device is None or device.unverified:
            return
        dialect = dialect_of(device)
        body = write_key_frame_control(
            self.queries.next_sn(), channel_id, dialect.charset_used, dialect.edition
        )
        task = asyncio.get_running_loop().create_task(self._send_control(device, channel_id, body))
        self._probing.add(task)
        task.add_done_callback(self._probing.discard)

    async def _send_control(self, device: Device, channel_id: str, body: bytes) -> None:
        with contextlib.suppress(GatewayError):  # refused or lost: the wait for the picture tells
            await self.queries.send(device, body, channel_id=channel_id, control=True)

    def heard_media(self, device_id: str) -> None:
        """RTP of a device arrives from its address: it is alive (KA-04)."""
        device = self.registry.get(device_id)
        if device is not None and device.path is not None and device.online:
            self.presence.seen(device, "media")

    # -- tasks ---------------------------------------------------------------------------------------------

    async def _supervised(self, name: str, run: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run a service for ever; when it fails it is told and started again."""
        while True:
            try:
                await run()
            except Exception as error:  # supervision point
                self._bus.emit(
                    "gateway.task_failed", task=name, error=type(error).__name__, detail=str(error)[:200]
                )
            await asyncio.sleep(1.0)

    async def _run(self) -> None:
        """The tick of every second, and the flush of every few."""
        flushed = self._clock.monotonic()
        while True:
            await asyncio.sleep(1.0)
            self.clock_watch.tick()
            self.presence.tick()
            self.paths.tick()
            self.catalogue.tick()
            now = self._clock.monotonic()
            if now - flushed >= self.config.flush_s:
                flushed = now
                self.registry.flush()
                await self.catalogue.flush()

    # -- probes --------------------------------------------------------------------------------------------

    def _probe(self, device: Device) -> None:
        task = asyncio.get_running_loop().create_task(self._ask_suspect(device))
        self._probing.add(task)
        task.add_done_callback(self._probing.discard)

    async def _ask_suspect(self, device: Device) -> None:
        """F-03: a query that may be answered with anything, repeated by the rules of SIP over UDP."""
        async with self._probe_slots:
            await self._probe_pacer.permit()
            self.counters.probes += 1
            path = device.path
            answered = path is not None and await self._ask_path(device, path, PROBE_S)
        if answered:
            self.counters.probes_answered += 1
            self.presence.seen(device, "answer")
        else:
            self.presence.unanswered(device)

    async def _ask_path(self, device: Device, path: Path, timeout_s: float = PATH_PROBE_S) -> bool:
        body = write(
            DeviceStatusQuery(sn=self.queries.next_sn(), device_id=device.id), dialect_of(device).charset_used
        )
        return await self.queries.touches(device, path, body, timeout_s=timeout_s)

    def _conflict(self, device: Device, bound: Path, other: Path) -> None:
        if self._registrar is not None:
            self._registrar.heard_beside(device, bound, other)

    def _bound(self, new: Path, old: Path | None) -> None:
        self._agent.transports.mark_trusted(new)
        self.paths.replaced(new, old)
