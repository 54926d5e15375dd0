"""What sessions ask of the devices' side; `devices.registry.Registry` satisfies it."""

from __future__ import annotations

from typing import Protocol

from gb28181gw.gb.dialect import PayloadSet
from gb28181gw.gb.mansrtsp import RtspVersion
from gb28181gw.sip.path import Path
from gb28181gw.ua.models import Target


class DeviceDirectory(Protocol):
    """Where a channel is reached and what is known of its device's ways."""

    def target(self, device_id: str, channel_id: str | None = None) -> Target:
        """The bound path and the To user. Raises GatewayError gb.route.device_unknown, .channel_unknown,
        .offline or .not_approved."""
        ...

    async def reach(self, device_id: str, channel_id: str | None = None) -> Target:
        """As `target`, but waits some seconds for the next connection of a TCP device (REG-21)."""
        ...

    def path_of(self, device_id: str) -> Path | None:
        """The bound path now, or None."""
        ...

    def media_transport(self, device_id: str) -> str:
        """The device's setting: ``auto``, ``udp``, ``tcp-passive`` or ``tcp-active``; empty: as configured."""
        ...

    def media_way(self, device_id: str) -> str:
        """The transport that worked last, or empty."""
        ...

    def remember_media_way(self, device_id: str, transport: str) -> None: ...

    def payload_set(self, device_id: str) -> PayloadSet:
        """What the device's dialect says to offer first (INV-13)."""
        ...

    def rtsp_version(self, device_id: str) -> RtspVersion:
        """In which form of MANSRTSP the device is steered (PB-09)."""
        ...

    def remember_payloads(self, device_id: str, payloads: PayloadSet) -> None:
        """What was accepted after other lists of payload types were refused."""
        ...

    def is_only_channel(self, device_id: str, channel_id: str) -> bool: ...

    def add_quirk(self, device_id: str, name: str) -> None: ...
