"""Whom a talk is announced to, and how the device takes it (GB/T 28181-2022 9.12.1).

Satisfies `sessions.talk.TalkDirectory`.
"""

from __future__ import annotations

from typing import Final

from gb28181gw.devices.dialects import dialect_of
from gb28181gw.devices.models import Device
from gb28181gw.devices.queries import Queries
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.ids import NodeKind
from gb28181gw.gb.manscdp.messages import BroadcastNotify, read_broadcast_response, write
from gb28181gw.media.engine import MediaTransport
from gb28181gw.sip.path import Path
from gb28181gw.ua.models import Target

MAX_OUTPUTS: Final = 3
"""Audio outputs that are tried before the channel and the device themselves."""


class TalkPartners:
    """Reads the registry, and asks. Owns nothing."""

    def __init__(self, *, registry: Registry, queries: Queries, own_id: str) -> None:
        self._registry = registry
        self._queries = queries
        self._own_id = own_id

    def device_of(self, path: Path, user: str) -> str:
        """The device whose verified path this is; `user` of From may be one of its channels. Empty: none."""
        if not self._registry.is_bound(path):
            return ""
        device = self._registry.get(user)
        if device is None or device not in self._registry.bound_to(path):
            device = self._registry.alone_on(path)
        return device.id if device is not None and device.approved and not device.unverified else ""

    async def reach_to_talk(self, device_id: str, channel_id: str) -> Target:
        """The channel on its verified path: sound moves people, so it counts as control. Raises gb.route.*."""
        return await self._registry.reach(device_id, channel_id, control=True)

    def speakers_of(self, device_id: str, channel_id: str) -> list[str]:
        """TK-02: audio outputs (type 137) of the channel, then of the device, then the channel, then the device."""
        device = self._registry.get(device_id)
        if device is None:
            return [channel_id, device_id]
        outputs = sorted(
            channel.id
            for channel in device.channels.values()
            if channel.kind == NodeKind.AUDIO_OUT.value and not channel.gone
        )
        near = [one for one in outputs if channel_id in device.channels[one].parent_ids]
        named = [channel_id] if channel_id in outputs else (near or outputs)[:MAX_OUTPUTS]
        return list(dict.fromkeys((*named, channel_id, device_id)))

    async def announce(self, device_id: str, target_id: str, timeout_s: float) -> None:
        """Send Broadcast and await an OK.

        Raises GatewayError gb.sip.no_answer, gb.sip.rejected, gb.sip.path_lost, and gb.sip.command_failed for an
        answer with ERROR.
        """
        device = self._device(device_id)
        document = await self._queries.ask(
            device,
            "Broadcast",
            lambda sn: write(
                BroadcastNotify(sn=sn, source_id=self._own_id, target_id=target_id),
                dialect_of(device).charset_used,
            ),
            timeout_s=timeout_s,
        )
        response = read_broadcast_response(document)
        if not response.ok:
            raise GatewayError(
                "gb.sip.command_failed",
                f"{target_id} answered ERROR to Broadcast{f' ({response.reason})' if response.reason else ''}.",
            )

    def talk_way(self, device_id: str) -> str:
        device = self._registry.get(device_id)
        return device.talk_way if device is not None else ""

    def remember_talk_way(self, device_id: str, way: str) -> None:
        self._registry.remember_talk_way(device_id, way)

    def talk_transport(self, device_id: str) -> MediaTransport:
        """What was set for the device's media, else UDP."""
        device = self._registry.get(device_id)
        if device is None or device.media_transport == "auto":
            return MediaTransport.UDP
        return MediaTransport(device.media_transport)

    def _device(self, device_id: str) -> Device:
        device = self._registry.get(device_id)
        if device is None:
            raise GatewayError("gb.route.device_unknown", f"There is no device {device_id[:64]}.")
        return device
