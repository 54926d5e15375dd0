"""How a device is spoken to, from five sources made into one `Dialect`.

Later ones win: the defaults; what the device tells (`X-GB-Ver`, else what its catalogue shows) and what was learnt from
what it sends (`Device.learnt`); a dialect file that fits it (`Device.profile`); what a person set for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timezone
from functools import lru_cache
from typing import Final

from gb28181gw.devices.models import Device
from gb28181gw.gb.dialect import DEFAULT, Dialect, Profile
from gb28181gw.gb.times import parse_zone

LEARNABLE: Final = frozenset(("charset", "date", "payloads"))
"""Switches that may be in `Device.learnt`; the edition has a place of its own."""


def dialect_of(device: Device) -> Dialect:
    """Switches given by a person win over a file's, and these over what was found out."""
    profile = device.profile
    return _dialect(
        device.edition,
        tuple(device.learnt.items()),
        tuple(profile.switches.items()) if profile is not None else (),
        device.charset,
        tuple(device.dialect.items()),
    )


@lru_cache(maxsize=1024)
def _dialect(
    edition: str,
    learnt: tuple[tuple[str, str], ...],
    profile: tuple[tuple[str, str], ...],
    charset: str,
    switches: tuple[tuple[str, str], ...],
) -> Dialect:
    found = DEFAULT
    if edition:
        found = found.with_switches({"edition": edition})
    found = found.with_switches(dict(learnt)).with_switches(dict(profile))
    if charset:
        found = found.with_switches({"charset": charset})
    return found.with_switches(dict(switches))


def origins_of(device: Device) -> dict[str, str]:
    """Where each switch comes from: ``default``, ``told``, ``learnt``, ``file`` or ``set``."""
    binding = device.binding
    found = dict.fromkeys(DEFAULT.all(), "default")
    if device.edition:
        found["edition"] = "told" if binding is not None and binding.edition else "learnt"
    found.update(dict.fromkeys(device.learnt, "learnt"))
    if device.profile is not None:
        found.update(dict.fromkeys(device.profile.switches, "file"))
    if device.charset:
        found["charset"] = "set"
    found.update(dict.fromkeys(device.dialect, "set"))
    return found


def profile_for(profiles: Iterable[Profile], device: Device) -> Profile | None:
    """The first that fits what the device tells of itself."""
    agent = device.binding.user_agent if device.binding is not None else ""
    return next((profile for profile in profiles if profile.fits(device.manufacturer, agent)), None)


def learnable(switches: Mapping[str, str]) -> dict[str, str]:
    """Those of stored switches that this program can have learnt; others are of another version."""
    found: dict[str, str] = {}
    for name, value in switches.items():
        if name in LEARNABLE:
            try:
                DEFAULT.with_switches({name: value})
            except ValueError:
                continue
            found[name] = value
    return found


@lru_cache(maxsize=64)
def zone_of(name: str) -> timezone:
    """The zone of a setting that was checked when it was given."""
    return parse_zone(name)
