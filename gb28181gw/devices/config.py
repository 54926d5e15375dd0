"""What the devices part is told at its start. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gb28181gw.gb.dialect import Profile


class Enrolment(StrEnum):
    """What the shared password opens for a device that nobody entered (docs/reference/configuration.md)."""

    OPEN = "open"
    APPROVE = "approve"
    CLOSED = "closed"


class DateMode(StrEnum):
    """Whether the 200 of a REGISTER carries `Date`, which sets the camera's clock (TM-01, TM-02)."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class BindingMode(StrEnum):
    """How far the path rule (`devices/binding.py`) follows a device."""

    STRICT = "strict"
    """Only a verified REGISTER moves a device."""
    NAT = "nat"
    """A port change is probed and followed; a new address at most on trial."""
    ANY = "any"
    """Follows plausible messages: closed networks only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesConfig:
    """`[sip]` of docs/reference/configuration.md, and limits."""

    platform_id: str
    domain: str
    """Realm of our challenges."""
    sip_port: int = 0
    """Where we listen; stored bindings are moved to it at the start. 0: not fixed, they stay as they are."""
    password: str | None
    """Shared by devices without one of their own; None or ``-``: none is accepted."""
    enrolment: Enrolment = Enrolment.APPROVE
    allow: tuple[str, ...] = ()
    """Globs; empty: every id."""
    keepalive_s: float = 60.0
    """Assumed until the device's own interval is learnt."""
    keepalive_misses: int = 3
    date: DateMode = DateMode.AUTO
    timezone: str = "+08:00"
    binding_mode: BindingMode = BindingMode.NAT

    expires_min_s: int = 60
    expires_max_s: int = 86_400
    expires_default_s: int = 3_600
    """Granted when the device names none (REG-10)."""
    pending_limit: int = 100
    pending_per_ip: int = 5
    uncommitted_limit: int = 4_000
    """Registrations whose commit is under way; half of it for devices not known before. Beyond: 503."""
    catalogues_in_flight: int = 50
    requests_per_s: float = 200.0
    """Pace of requests that we start by ourselves: catalogue queries and probes."""
    catalogue_first_part_s: float = 30.0
    catalogue_between_parts_s: float = 10.0
    catalogue_every_s: float = 86_400.0
    query_timeout_s: float = 10.0
    ptz_stop_s: float = 10.0
    """A motion without a new command is stopped after so long (CTL-06)."""
    profiles: tuple[Profile, ...] = ()
    """Dialect files; of several that fit the first counts."""
    flush_s: float = 5.0
    """How often `last seen`, quirks and the like are written, on change only."""

    @property
    def shared_password(self) -> str | None:
        return None if self.password in (None, "", "-") else self.password
