"""What a device and a channel are. Compact, because a gateway holds 10,000 of one and 200,000 of the other.

`Device` is live and mutable and has one owner, the `Registry`; everybody else reads it. `Channel` is a value:
a changed channel is a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gb28181gw.gb.dialect import Profile
from gb28181gw.gb.ids import NodeKind
from gb28181gw.gb.manscdp.catalogue import Status
from gb28181gw.sip.path import Path

CHANNEL_LIMIT: Final = 1_024
"""Channels of one device."""
PLATFORM_CHANNEL_LIMIT: Final = 100_000
"""Channels of a lower platform (type code 200)."""
QUIRK_LIMIT: Final = 64
"""Names on one device's quirk list; the list of names is closed, this is a second guard (I10)."""


REFUSALS_LIMIT: Final = 256
"""Commands and configurations of one device that are remembered as unsupported (I10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A command that a device showed not to know; `devices.experience` judges it."""

    times: int
    at: float
    """Wall time of the last time."""
    by: str
    """What the device ran then: User-Agent and firmware."""
    why: str
    """``silent``, ``error`` or ``sip``."""


class Presence(StrEnum):
    """Where a device stands. Exits of each state::

    OFFLINE  -> ONLINE    verified REGISTER, or a message on the bound path (REG-23)
    ONLINE   -> SUSPECT   the window passed in silence: a probe is under way
             -> OFFLINE   expired and silent; unregistered; connection gone for 30 s; removed
    SUSPECT  -> ONLINE    any authenticated message or answer
             -> OFFLINE   the probe was not answered
    """

    OFFLINE = "offline"
    ONLINE = "online"
    SUSPECT = "suspect"


ChannelStatus = Status
"""What the device says of a channel; UNKNOWN is shown as playable (CAT-09)."""


class CatalogueState(StrEnum):
    """Of the last catalogue query of a device; empty: never queried."""

    NONE = ""
    RUNNING = "running"
    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Channel:
    """One catalogue node: a camera, a sub-device, a region, a group… Identity is (device_id, id) (CAT-13)."""

    device_id: str
    id: str
    name: str = ""
    kind: str = ""
    """Value of `gb.ids.NodeKind`."""
    status: ChannelStatus = ChannelStatus.UNKNOWN
    ptz_type: str = ""
    """``1`` dome, ``2`` hemisphere, ``3`` bullet, ``4`` remote-controlled bullet, 5-7 since 2022; may be ``1/4``."""
    parental: bool | None = None
    parent_ids: tuple[str, ...] = ()
    """As sent, split at ``/``; resolved by `tree`."""
    group_id: str = ""
    """BusinessGroupID of a virtual organisation."""
    civil_code: str = ""
    """2, 4, 6 or 8 digits, else empty (CAT-10)."""
    block: str = ""
    address: str = ""
    owner: str = ""
    manufacturer: str = ""
    model: str = ""
    longitude: float | None = None
    latitude: float | None = None
    ip_address: str = ""
    port: int | None = None
    register_way: int | None = None
    secrecy: int | None = None
    details: tuple[tuple[str, str], ...] = ()
    """Other members that the standard knows, by element name: kept for upper platforms."""
    fault: str = ""
    """``VLOST`` or ``DEFECT`` while the device says so (CAT-20)."""
    implicit: bool = False
    """Made by us for a device that answers no catalogue (CAT-15)."""
    missed: int = 0
    """Complete answers in a row that did not list it."""
    gone: bool = False
    """Tombstone: two complete answers in a row without it, or the device said DEL (CAT-17)."""

    @property
    def parent_id(self) -> str | None:
        """The last path element (CAT-07); None: the device itself."""
        return self.parent_ids[-1] if self.parent_ids else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What one verified REGISTER fixed. Replaced as a whole, in memory and on disk."""

    path: Path
    registered_at: float
    """Seconds since 1970 UTC."""
    expires_at: float
    """Seconds since 1970 UTC; never before what the device asked for (REG-12)."""
    domain: str
    """Host part the device used in From/To; goes into our To (INV-08)."""
    call_id: str
    cseq: int
    contact: str
    """For display only; never a route (REG-16)."""
    user_agent: str
    edition: str
    """``X-GB-Ver`` as a known edition; empty: the device did not say."""
    nonce: str = ""
    nonce_minted_at: float = 0.0
    """Seconds since 1970 UTC, from the nonce itself: older ones are never accepted again (S-02)."""
    nonce_count: int = 0
    """Highest `nc` seen with `nonce`; 0 without qop."""
    networks: Mapping[str, int] = field(default_factory=dict)
    """Prefix of a verified registration -> second since 1970 of the latest one: where a trial may be."""
    active: bool = True
    """False after the device unregistered."""


@dataclass(slots=True, eq=False)
class Device:
    """One device or lower platform. Written by `devices` only."""

    id: str
    name: str = ""
    """Given by a person; `display_name` falls back to what the device reports."""
    password: str | None = None
    """Its own; None: the shared one."""
    username: str = ""
    """Digest user name where it is not the id."""
    media_transport: str = "auto"
    charset: str = ""
    timezone: str = ""
    dialect: dict[str, str] = field(default_factory=dict)
    """Switches of `gb.dialect.Dialect` that differ from its default."""
    subscribe: tuple[str, ...] | None = None
    """Kinds of subscriptions that a person chose (`devices.subscriptions.Kind`); None: as configured."""
    approved: bool = True
    provisioned: bool = False
    created_at: float = 0.0
    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    reported_name: str = ""
    detected_edition: str = ""
    """Found in the catalogue when the device sends no `X-GB-Ver`."""
    media_way: str = ""
    """Media transport that worked last, for `auto`."""
    talk_way: str = ""
    """Way of talking that worked last (TK-01): ``broadcast`` or ``talk``."""
    quirks: dict[str, int] = field(default_factory=dict)
    learnt: dict[str, str] = field(default_factory=dict)
    """Switches of `gb.dialect.Dialect` found out from what it sends; those of `dialect` win."""
    profile: Profile | None = None
    """The dialect file that fits it."""
    refused: dict[str, Refusal] = field(default_factory=dict)
    """What it showed not to know, by `experience.key_of`."""
    channels: dict[str, Channel] = field(default_factory=dict)
    catalogue_state: CatalogueState = CatalogueState.NONE
    catalogue_received: int = 0
    catalogue_expected: int | None = None
    catalogue_at: float = 0.0
    """Wall time of the last complete or partial answer."""
    catalogue_tried: float = 0.0
    """Monotonic time of the last query."""

    nonce: str = ""
    """Nonce of the last good answer; ahead of `binding` while a commit is under way."""
    nonce_minted_at: float = 0.0
    nonce_count: int = 0

    # live state
    binding: Binding | None = None
    path: Path | None = None
    """Bound path: of `binding` while that is active, or a trial path."""
    trial_until: float = 0.0
    """Monotonic; > 0 while `path` is a trial one: control is refused."""
    presence: Presence = Presence.OFFLINE
    seen: float = 0.0
    """Monotonic time of the last authenticated message."""
    seen_wall: float = 0.0
    """Wall time of the last authenticated message; 0: never."""
    expires: float = 0.0
    """Monotonic time at which the registration expires."""
    keepalive_s: float = 0.0
    """Learnt interval; 0: not known yet."""
    keepalive_at: float = 0.0
    keepalive_gaps: tuple[int, ...] = ()
    keepalives: int = 0
    faulty: frozenset[str] = frozenset()
    """Channels that its last keepalive called faulty (9.6.1); those of a lower platform are passed on."""
    warning: str = ""
    """What a keepalive or DeviceStatus reported besides OK (KA-06)."""
    lost_at: float = 0.0
    """Monotonic; > 0 since the connection of a TCP registration closed."""
    unregistered_at: float = 0.0
    """Monotonic; > 0 during the grace after Expires: 0 (REG-11)."""
    slot: int = 0
    """Second of the presence wheel that will look at this device; 0: none."""
    unsaved: int = 0
    """Bit set of what the next batch must write; see `registry`."""

    @property
    def online(self) -> bool:
        """A suspect device is still online until its probe failed."""
        return self.presence is not Presence.OFFLINE

    @property
    def unverified(self) -> bool:
        """True on a trial path: queries and live view only."""
        return self.trial_until > 0

    @property
    def display_name(self) -> str:
        return self.name or self.reported_name

    @property
    def edition(self) -> str:
        """``X-GB-Ver`` wins; else what the catalogue shows; empty: unknown."""
        return (self.binding.edition if self.binding is not None else "") or self.detected_edition

    @property
    def domain(self) -> str:
        """What goes after @ in our To."""
        return self.binding.domain if self.binding is not None else ""

    @property
    def transport(self) -> str:
        """SIP transport of the registration: udp, tcp, tls; empty when there never was one."""
        return self.binding.path.transport if self.binding is not None else ""

    @property
    def remote_address(self) -> str:
        """``ip:port``; empty when it never registered."""
        path = self.path or (self.binding.path if self.binding is not None else None)
        return path.peer if path is not None else ""

    @property
    def registered_at(self) -> float | None:
        return self.binding.registered_at if self.binding is not None else None

    @property
    def last_seen_at(self) -> float | None:
        return self.seen_wall or None

    @property
    def channel_count(self) -> int:
        """Channels that are listed."""
        return len(listed_channels(self))

    @property
    def channel_limit(self) -> int:
        """By type code: lower platforms (200) bring more."""
        return PLATFORM_CHANNEL_LIMIT if self.id[10:13] == "200" else CHANNEL_LIMIT

    def status_of(self, channel: Channel) -> ChannelStatus:
        """Own state AND the device's (KA-09)."""
        if not self.online or channel.gone:
            return ChannelStatus.OFF
        return channel.status


TREE_KINDS: Final = frozenset(
    (NodeKind.REGION.value, NodeKind.SYSTEM.value, NodeKind.GROUP.value, NodeKind.ORGANISATION.value)
)
"""Kinds that only order others. Everything else can be played or has a function of its own (CAT-16)."""


def listed_channels(device: Device) -> list[Channel]:
    """What `GET …/channels` lists, in the order of ids.

    Not listed: tombstones, nodes that only order others, and sub-devices that own others. The device itself
    counts as a channel only while nothing else is there (CAT-14).
    """
    parents = {parent for channel in device.channels.values() for parent in channel.parent_ids}
    found = [
        channel
        for channel in device.channels.values()
        if not channel.gone
        and channel.kind not in TREE_KINDS
        and not (channel.kind == NodeKind.DEVICE.value and channel.id in parents)
    ]
    others = [channel for channel in found if channel.id != device.id]
    return sorted(others or found, key=lambda channel: channel.id)
