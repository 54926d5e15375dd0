"""Simulated devices inside a test, against any platform address.

    async with simulated("127.0.0.1:5060", password="secret", channels=2) as sim:
        await sim.registered()
        ...
        await sim.until(lambda: sim.streaming == 1)

The content is small and made once per test run (320x240, two seconds).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gb28181gw.sim.call import Call
from gb28181gw.sim.device import SimDevice
from gb28181gw.sim.fleet import Fleet, FleetTotals
from gb28181gw.sim.options import DeviceOptions


@dataclass(frozen=True, slots=True)
class Noted:
    """One thing that a device told."""

    device_id: str
    what: str
    facts: dict[str, object]


@dataclass(slots=True)
class Recorder:
    """Observer that keeps everything and wakes whoever waits."""

    notes: list[Noted] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, device_id: str, what: str, **facts: object) -> None:
        self.notes.append(Noted(device_id, what, facts))
        self.changed.set()


class Simulation:
    """Handle on the devices of one `simulated` block."""

    def __init__(self, options: DeviceOptions, recorder: Recorder) -> None:
        self.options = options
        self.recorder = recorder
        self.fleet = Fleet(options, recorder)

    @property
    def devices(self) -> list[SimDevice]:
        return self.fleet.devices

    @property
    def device(self) -> SimDevice:
        """The first device."""
        return self.fleet.devices[0]

    @property
    def totals(self) -> FleetTotals:
        return self.fleet.totals()

    @property
    def streaming(self) -> int:
        """Streams that send now, over all devices."""
        return sum(device.streaming for device in self.devices)

    @property
    def calls(self) -> list[Call]:
        """Calls that are not over."""
        return [call for device in self.devices for call in device.calls.values()]

    @property
    def invites(self) -> list[Noted]:
        return self.noted("invite")

    @property
    def bytes_sent(self) -> int:
        """RTP bytes of running and ended streams."""
        return self.totals.bytes

    def noted(self, what: str) -> list[Noted]:
        return [note for note in self.recorder.notes if note.what == what]

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait until `condition()` is true. AssertionError with what happened, after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self.recorder.changed.clear()
                    try:
                        async with asyncio.timeout(0.02):
                            await self.recorder.changed.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            last = [f"{note.what} {note.facts}" for note in self.recorder.notes[-12:]]
            raise AssertionError(f"not in {timeout_s} s; last: {last}") from None

    async def registered(self, timeout_s: float = 10.0) -> None:
        """Wait until every device is registered."""
        await self.until(lambda: all(device.registered for device in self.devices), timeout_s)

    def crash(self) -> None:
        """All devices lose power: no BYE, no unregistering."""
        for device in self.devices:
            device.crash()


def device_options(server: str, **changes: object) -> DeviceOptions:
    """Options for tests: small quick content, short pauses; any field can be changed."""
    values: dict[str, object] = {
        "server": server,
        "password": "secret",
        "size": "320x240",
        "loop_s": 2,
        "gop": 25,
        "bitrate_kbps": 300,
        "retry_s": 0.3,
        "register_rate": 0,
        "seed": 28181,
        "name": "Test NVR",
    }
    values.update(changes)
    made = DeviceOptions(**values)  # type: ignore[arg-type]  # names are checked by the dataclass itself
    made.validate()
    return made


@asynccontextmanager
async def simulated(server: str, *, unregister: bool = True, **changes: object) -> AsyncIterator[Simulation]:
    """Run `count` devices (default 1) against `server` ("host:port") for the length of the block.

    Keyword arguments are fields of `DeviceOptions`. Content is encoded before the block begins.
    """
    simulation = Simulation(device_options(server, **changes), Recorder())
    await simulation.fleet.prepare()
    simulation.fleet.start()
    try:
        yield simulation
    finally:
        await simulation.fleet.stop(unregister=unregister)
