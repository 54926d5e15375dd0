"""`gb28181gw simulate device`: from options to an exit status. The command line only fills `DeviceOptions`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import uvloop
from rich.console import Console
from rich.table import Table

from gb28181gw.sim.content import ContentError
from gb28181gw.sim.display import Display, Relay, choose
from gb28181gw.sim.fleet import Fleet
from gb28181gw.sim.options import DeviceOptions, OptionError
from gb28181gw.sim.quirks import TABLE

__all__ = ["DeviceOptions", "OptionError", "list_quirks", "run_device"]


def run_device(options: DeviceOptions) -> int:
    """Run simulated devices until SIGINT or SIGTERM, or for `duration_s`.

    0: every device registered at least once; 1: an option is wrong, content cannot be made, or a device never
    registered. What went wrong is one sentence on standard error.
    """
    try:
        options.validate()
        return uvloop.run(_run(options))
    except (OptionError, ContentError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


async def _run(options: DeviceOptions) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    relay = Relay()
    fleet = Fleet(options, relay)
    await _prepare(fleet)
    display = choose(fleet, as_json=options.json)
    relay.display = display
    try:
        display.say("started", devices=len(fleet.devices), channels=options.channels, seed=fleet.seed)
        fleet.start()
        await _watch(fleet, display, stop, options.duration_s)
        totals = fleet.totals()
        await fleet.stop()
        display.totals(totals)
    finally:
        display.close()
    never = [device for device in fleet.devices if not device.counters.registrations]
    if never:
        reason = never[0].last_error or "no answer yet"
        print(
            f"{len(never)} of {len(fleet.devices)} devices never registered at {options.server} ({reason}). Check "
            "that the platform runs there, and its id, domain and password.",
            file=sys.stderr,
        )
        return 1
    return 0


async def _prepare(fleet: Fleet) -> None:
    """Encode the pictures, with a line of progress on a terminal."""
    tell = sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if tell and (done % 25 == 0 or done == total):
            sys.stderr.write(f"\rencoding the picture: {done}/{total}" + ("\n" if done == total else ""))
            sys.stderr.flush()

    await fleet.prepare(progress)


async def _watch(fleet: Fleet, display: Display, stop: asyncio.Event, duration_s: float) -> None:
    """Show sums from time to time until the end."""
    loop = asyncio.get_running_loop()
    end = loop.time() + duration_s if duration_s else None
    while not stop.is_set():
        wait = display.every_s if end is None else min(display.every_s, end - loop.time())
        if wait <= 0:
            return
        try:
            async with asyncio.timeout(wait):
                await stop.wait()
        except TimeoutError:
            if end is None or loop.time() < end:
                display.totals(fleet.totals())


def list_quirks(*, as_json: bool = False) -> int:
    """Print the table of rows that `--quirk` takes."""
    if as_json:
        print(
            json.dumps([{"id": row.value, "does": text} for row, text in TABLE.items()], ensure_ascii=False)
        )
        return 0
    table = Table(box=None, pad_edge=False)
    table.add_column("row", no_wrap=True)
    table.add_column("what the device does")
    for row, text in TABLE.items():
        table.add_row(row.value, text)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 0
