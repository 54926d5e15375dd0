"""Who may do what: one table, read by the API before every handler and by nobody else twice."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a key may do. Roles are not ordered: the table is the only truth."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class Action(StrEnum):
    """What the API can be asked to do; every route names exactly one."""

    VIEW = "view"
    """See approved devices, their channels and the streams."""
    VIEW_PENDING = "view_pending"
    """See devices that wait for approval; without it they are as unknown as any."""
    PLAY = "play"
    """Start a live stream or a playback, steer it, and get URLs of it."""
    DOWNLOAD = "download"
    """Copy recordings to the gateway, and fetch and remove the files."""
    RECORD = "record"
    """Say what the gateway records, and what of it is evidence."""
    PUSH = "push"
    """Push channels to URLs outside, and see which are."""
    STOP_STREAM = "stop_stream"
    """End a stream for everybody."""
    QUERY_DEVICE = "query_device"
    """Send a query to a device, such as the catalogue."""
    CONTROL_DEVICE = "control_device"
    """Move cameras, and send controls and configurations to a device."""
    TALK = "talk"
    """Speak through a device's loudspeaker, and see who does."""
    DRASTIC_CONTROL = "drastic_control"
    """Restart or upgrade a device, or format what it records on."""
    ADMIT_DEVICE = "admit_device"
    """Approve a device that waits."""
    MANAGE_DEVICES = "manage_devices"
    """Provision, change and remove devices."""
    VIEW_UPPERS = "view_uppers"
    """See upper platforms and what is shared with them."""
    MANAGE_UPPERS = "manage_uppers"
    """Add, change and remove upper platforms, and share channels with them."""
    TRACE = "trace"
    """Read the SIP messages of a device."""
    METRICS = "metrics"
    MANAGE_KEYS = "manage_keys"


_EVERYBODY: Final = frozenset(Role)
_STAFF: Final = frozenset({Role.ADMIN, Role.OPERATOR})
_ADMIN: Final = frozenset({Role.ADMIN})

ALLOWED: Final[dict[Action, frozenset[Role]]] = {
    Action.VIEW: _EVERYBODY,
    Action.VIEW_PENDING: _STAFF,
    Action.PLAY: _EVERYBODY,
    Action.DOWNLOAD: _STAFF,
    Action.RECORD: _STAFF,
    Action.PUSH: _STAFF,
    Action.STOP_STREAM: _STAFF,
    Action.QUERY_DEVICE: _STAFF,
    Action.CONTROL_DEVICE: _STAFF,
    Action.TALK: _STAFF,
    Action.DRASTIC_CONTROL: _ADMIN,
    Action.ADMIT_DEVICE: _STAFF,
    Action.MANAGE_DEVICES: _ADMIN,
    Action.VIEW_UPPERS: _STAFF,
    Action.MANAGE_UPPERS: _ADMIN,
    Action.TRACE: _STAFF,
    Action.METRICS: _EVERYBODY,
    Action.MANAGE_KEYS: _ADMIN,
}


def may(role: Role, action: Action) -> bool:
    """Default deny: an action that the table lacks is nobody's."""
    return role in ALLOWED.get(action, frozenset())
