"""What devices need of a durable store; `storage` implements it.

Every call copies what it needs before it returns, so live objects may be handed over. "Done" means committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gb28181gw.devices.models import Binding, Channel, Device

Done = Callable[[BaseException | None], None]
"""Called on the event loop after the commit with None, or with what went wrong."""


@dataclass(frozen=True, slots=True)
class Ban:
    """A (source, device) pair, or a whole source when `device_id` is empty, that is not answered."""

    ip: str
    device_id: str
    until: float
    """Seconds since 1970 UTC."""
    level: int
    """How often it was banned before: each time doubles the next."""


class DeviceStore(Protocol):
    """Devices, bindings, channels and bans.

    Calls raise, or hand to `done`, GatewayError gb.route.storage_unavailable.
    """

    async def load(self) -> list[Device]:
        """All devices with their bindings and channels."""
        ...

    async def load_bans(self) -> list[Ban]: ...

    async def secret(self, name: str) -> bytes:
        """32 random bytes, made once and kept: what the nonces are signed with must survive a restart (S-02)."""
        ...

    def save_binding(self, device: Device, binding: Binding, done: Done) -> None:
        """Write what a REGISTER fixed. The path of every REGISTER: cheap, callback style."""
        ...

    def enrol(self, device: Device, binding: Binding, done: Done) -> None:
        """Write a device that nobody entered, with its binding, in one transaction."""
        ...

    async def save_device(self, device: Device) -> None:
        """Write everything of the device except binding and channels."""
        ...

    async def remove_device(self, device_id: str) -> None:
        """Device, binding, channels, bans."""
        ...

    async def save_channels(self, channels: Sequence[Channel]) -> None:
        """Insert or replace, 500 rows a transaction."""
        ...

    def flush(self, seen: Sequence[Device], changed: Sequence[Device], done: Done) -> None:
        """The batch of every few seconds: last-seen of `seen`, and what was learnt about `changed`."""
        ...

    def save_ban(self, ban: Ban) -> None:
        """Written behind: losing one to a kill costs an attacker one more round."""
        ...

    def remove_bans(self, device_id: str) -> None: ...
