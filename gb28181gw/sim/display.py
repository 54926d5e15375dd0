"""What a run shows: JSON lines, plain lines, or on a terminal a table that is kept up to date."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from datetime import datetime
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gb28181gw.sim.fleet import Fleet, FleetTotals

_QUIET = frozenset({"keepalive", "confirmed", "notified", "renewed"})
"""Too frequent for people."""
_SHOWN_ROWS = 12
_SHOWN_EVENTS = 10
_FEW = 50
"""Up to so many devices each registration gets its own line."""


def plain(value: object) -> str:
    """Text for a terminal: control characters of a peer are shown, not obeyed."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))


def line_of(device_id: str, what: str, facts: dict[str, object]) -> str:
    """One event for people."""
    told = " ".join(f"{name}={plain(value)}" for name, value in facts.items() if value not in (None, ""))
    return f"{datetime.now().astimezone():%H:%M:%S} {device_id} {what.replace('_', ' ')} {told}".rstrip()


class JsonDisplay:
    """One object a line on `out`; sums every `every_s` seconds."""

    every_s = 5.0

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def note(self, device_id: str, what: str, **facts: object) -> None:
        self._write({"event": what, "device_id": device_id, **facts})

    def say(self, what: str, **facts: object) -> None:
        """Something about the run and not about one device."""
        self._write({"event": what, **facts})

    def totals(self, totals: FleetTotals) -> None:
        self._write({"event": "totals", **{name: getattr(totals, name) for name in FleetTotals.__slots__}})

    def _write(self, fields: dict[str, object]) -> None:
        fields["time"] = round(time.time(), 3)
        self._out.write(json.dumps(fields, ensure_ascii=False, default=str) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing to put back."""


class PlainDisplay:
    """Lines for a log file or a pipe."""

    every_s = 10.0

    def __init__(self, out: TextIO, devices: int) -> None:
        self._out = out
        self._many = devices > _FEW

    def note(self, device_id: str, what: str, **facts: object) -> None:
        if what in _QUIET or (self._many and what in ("registered", "refreshed", "query", "unregistered")):
            return
        self._write(line_of(device_id, what, facts))

    def say(self, what: str, **facts: object) -> None:
        self._write(line_of("-", what, facts))

    def totals(self, totals: FleetTotals) -> None:
        self._write(f"{datetime.now().astimezone():%H:%M:%S} - {summary(totals)}")

    def _write(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing to put back."""


def summary(totals: FleetTotals) -> str:
    """The sums as one line."""
    return (
        f"registered {totals.registered}/{totals.devices}, keepalives {totals.keepalives}"
        f" ({totals.keepalive_misses} missed), queries {totals.queries}, items {totals.catalog_items},"
        f" streams {totals.streams}, sent {totals.bytes / 1e6:.1f} MB"
    )


class TableDisplay:
    """A table on a terminal, redrawn once a second."""

    every_s = 1.0

    def __init__(self, console: Console, fleet: Fleet) -> None:
        self._fleet = fleet
        self._events: deque[str] = deque(maxlen=_SHOWN_EVENTS)
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def note(self, device_id: str, what: str, **facts: object) -> None:
        if what not in _QUIET:
            self._events.append(line_of(device_id, what, facts))

    def say(self, what: str, **facts: object) -> None:
        self._events.append(line_of("-", what, facts))

    def totals(self, totals: FleetTotals) -> None:
        self._live.update(self.render(totals), refresh=True)

    def render(self, totals: FleetTotals) -> Group:
        """The whole picture."""
        table = Table(
            title=f"{plain(self._fleet.options.name)} at {plain(self._fleet.options.server)}", expand=True
        )
        for name in ("device", "state", "channels", "keepalives", "streams", "sent"):
            table.add_column(name)
        for device in self._fleet.devices[:_SHOWN_ROWS]:
            state = "registered" if device.registered else plain(device.last_error or "registering")
            sent = device.counters.bytes + sum(
                call.stream.bytes for call in device.calls.values() if call.stream is not None
            )
            table.add_row(
                device.id,
                Text(state, style="green" if device.registered else "yellow"),
                str(len(device.channels)),
                str(device.counters.keepalives),
                str(device.streaming),
                f"{sent / 1e6:.1f} MB",
            )
        hidden = len(self._fleet.devices) - _SHOWN_ROWS
        more = [Text(f"... and {hidden} more devices")] if hidden > 0 else []
        return Group(table, *more, Text(summary(totals)), *(Text(line) for line in self._events))

    def close(self) -> None:
        self._live.stop()


Display = JsonDisplay | PlainDisplay | TableDisplay


class Relay:
    """Observer of the devices that passes on to a display which is made later than they are."""

    def __init__(self) -> None:
        self.display: Display | None = None

    def note(self, device_id: str, what: str, **facts: object) -> None:
        if self.display is not None:
            self.display.note(device_id, what, **facts)


def choose(fleet: Fleet, *, as_json: bool, out: TextIO | None = None) -> Display:
    """The display that fits where the output goes."""
    target = out or sys.stdout
    if as_json:
        return JsonDisplay(target)
    if target.isatty():
        return TableDisplay(Console(file=target), fleet)
    return PlainDisplay(target, len(fleet.devices))
