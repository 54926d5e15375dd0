"""Many simulated devices in one process: started at a pace, sharing one pump, one content and one clock.

Each device has a UDP socket (or TCP connection) of its own, because to a platform the address is the device. What
is shared costs nothing per device: encoded pictures, the packets made from them, and the timer that sends them.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from contextlib import suppress
from dataclasses import dataclass

from gb28181gw.sim.content import Content, ContentSpec, Loop, Progress, loop_of
from gb28181gw.sim.device import DeviceServices, Observer, SimDevice
from gb28181gw.sim.live import LiveContent
from gb28181gw.sim.media_sender import Pump
from gb28181gw.sim.options import DeviceOptions
from gb28181gw.sim.ps_file import is_program_stream, read_ps_file
from gb28181gw.sim.quirks import Quirk, select

OWN_PICTURES = 4
"""Up to so many channels in all have their name in the picture; more of them share one."""


@dataclass(slots=True, kw_only=True)
class FleetTotals:
    """Sums over all devices, for display and tests."""

    devices: int = 0
    registered: int = 0
    registrations: int = 0
    register_failures: int = 0
    keepalives: int = 0
    keepalive_misses: int = 0
    queries: int = 0
    catalog_items: int = 0
    invites: int = 0
    streams: int = 0
    """Sending now."""
    packets: int = 0
    bytes: int = 0
    late: int = 0
    """Pictures that the host was too slow to send in time."""
    elapsed_s: float = 0.0


class Fleet:
    """All devices of a run. `prepare`, then `start`; `stop` ends them all."""

    def __init__(self, options: DeviceOptions, observer: Observer) -> None:
        self.options = options
        self.seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
        self.devices: list[SimDevice] = []
        self._pump = Pump(asyncio.get_running_loop())
        self._contents: dict[str, asyncio.Task[Content]] = {}
        self._live: list[LiveContent] = []
        self._starter: asyncio.Task[None] | None = None
        self._started_at = time.monotonic()
        self._services = DeviceServices(
            pump=self._pump,
            content_of=self.content_of,
            loop_of=self.loop_of,
            observer=observer,
            seed=self.seed,
        )
        quirks = select(options.quirks)
        for index in range(options.count):
            self.devices.append(SimDevice(options, index, self._services))
            if Quirk.REG_15 in quirks:
                self.devices.append(SimDevice(options, index, self._services, twin=True))

    # --- content --------------------------------------------------------------------------------------------------

    def title_of(self, channel_name: str) -> str:
        """What stands in the picture of a channel."""
        if self.options.count * self.options.channels > OWN_PICTURES:
            return "SIMULATED CAMERA"
        if channel_name.isascii():
            return channel_name
        return f"CAMERA {channel_name.rpartition(' ')[2]}"

    def spec(self, title: str) -> ContentSpec:
        """What is encoded for a title."""
        options = self.options
        return ContentSpec(
            video=options.video_codec,
            audio=options.audio_codec,
            width=options.width,
            height=options.height,
            fps=options.fps,
            bitrate_kbps=options.bitrate_kbps,
            gop=options.gop,
            b_frames=options.b_frames,
            loop_s=options.loop_s,
            title="" if options.media_file is not None else title,
            media_file=options.media_file,
        )

    async def content_of(self, channel_name: str) -> Content:
        """Content of a channel; made at the first call and shared. Raises ContentError."""
        title = self.title_of(channel_name)
        task = self._contents.get(title)
        if task is None or (task.done() and task.exception() is not None):
            task = self._contents[title] = asyncio.create_task(self._make(title, None))
        return await asyncio.shield(task)

    async def loop_of(self, channel_name: str) -> Loop:
        """The loop of a channel, whatever it shows live. Raises ContentError."""
        return await asyncio.to_thread(loop_of, self.spec(self.title_of(channel_name)), None)

    async def _make(self, title: str, progress: Progress | None) -> Content:
        spec = self.spec(title)
        if self.options.live_clock:
            live = LiveContent(spec)
            self._live.append(live)
            live.start()
            return live
        if spec.media_file is not None and is_program_stream(spec.media_file):
            return await asyncio.to_thread(read_ps_file, spec.media_file)
        return await asyncio.to_thread(loop_of, spec, progress)

    async def prepare(self, progress: Progress | None = None) -> None:
        """Encode beforehand what will be asked for (a live picture starts with its first viewer). Raises ContentError.

        `progress` is called from another thread.
        """
        if self.options.live_clock or not self.options.channels:
            return
        for device in self.devices:
            for channel in device.channels:
                title = self.title_of(channel.name)
                if title not in self._contents:
                    self._contents[title] = asyncio.create_task(self._make(title, progress))
                    await self._contents[title]

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the devices, `register_rate` a second; returns at once."""
        raise_file_limit(len(self.devices) * (1 + 2 * self.options.channels) + 64)
        self._started_at = time.monotonic()
        self._starter = asyncio.create_task(self._start_all())

    async def _start_all(self) -> None:
        rate = self.options.register_rate
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for index, device in enumerate(self.devices):
            if rate > 0:
                wait = begin + index / rate - loop.time()
                if wait > 0.001:
                    await asyncio.sleep(wait)
            device.start()

    async def stop(self, *, unregister: bool = True) -> None:
        """End all devices; unregistering is done a hundred at a time. Idempotent."""
        if self._starter is not None:
            self._starter.cancel()
            with suppress(asyncio.CancelledError):
                await self._starter
            self._starter = None
        for first in range(0, len(self.devices), 100):
            await asyncio.gather(
                *(device.stop(unregister=unregister) for device in self.devices[first : first + 100])
            )
        self._pump.close()
        for task in self._contents.values():
            task.cancel()
        await asyncio.gather(*self._contents.values(), return_exceptions=True)
        for live in self._live:
            await asyncio.to_thread(live.stop)
        self._live.clear()

    def totals(self) -> FleetTotals:
        """Sums of now."""
        totals = FleetTotals(
            devices=len(self.devices), elapsed_s=time.monotonic() - self._started_at, late=self._pump.late
        )
        for device in self.devices:
            counters = device.counters
            totals.registered += device.registered
            totals.registrations += counters.registrations
            totals.register_failures += counters.register_failures
            totals.keepalives += counters.keepalives
            totals.keepalive_misses += counters.keepalive_misses
            totals.queries += counters.queries
            totals.catalog_items += counters.catalog_items
            totals.invites += counters.invites
            totals.packets += counters.packets
            totals.bytes += counters.bytes
            for call in device.calls.values():
                if call.stream is not None:
                    totals.streams += call.stream.running
                    totals.packets += call.stream.packets
                    totals.bytes += call.stream.bytes
        return totals


def raise_file_limit(wanted: int) -> None:
    """Lift the soft limit of open files towards the hard one: every device is a socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, ceiling), hard))
