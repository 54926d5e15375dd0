"""How a device is spoken to: its settings, what it said of itself, and the defaults, made into one `Dialect`."""

from __future__ import annotations

from datetime import timezone
from functools import lru_cache

from gb28181gw.devices.models import Device
from gb28181gw.gb.dialect import DEFAULT, Dialect
from gb28181gw.gb.times import parse_zone


def dialect_of(device: Device) -> Dialect:
    """Switches given by a person win over what was detected."""
    return _dialect(device.edition, device.charset, tuple(device.dialect.items()))


@lru_cache(maxsize=256)
def _dialect(edition: str, charset: str, switches: tuple[tuple[str, str], ...]) -> Dialect:
    found = DEFAULT
    if edition:
        found = found.with_switches({"edition": edition})
    if charset:
        found = found.with_switches({"charset": charset})
    return found.with_switches(dict(switches))


@lru_cache(maxsize=64)
def zone_of(name: str) -> timezone:
    """The zone of a setting that was checked when it was given."""
    return parse_zone(name)
