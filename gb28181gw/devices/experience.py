"""What devices proved not to know, so that nobody waits for the same silence twice (CTL-11, Annex I).

A command that is newer than 2011 and was answered by nothing, by ERROR (queries only: a control may fail for many
reasons) or by a SIP status that says "not known", counts as unsupported: for an hour after the first time, since an
answer may have been lost, and after the second time for as long as the device runs the same firmware. An answer
clears it.
"""

from __future__ import annotations

from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.models import REFUSALS_LIMIT, Device, Refusal
from gb28181gw.devices.registry import UNSAVED_FACTS, Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.commands import Command
from gb28181gw.observability.events import EventBus

FIRST_S: Final = 3_600.0
"""How long the first time counts."""
NOT_KNOWN: Final = frozenset((405, 415, 501))
"""SIP status of a device that does not know what it was sent."""


class Experience:
    """Owner of `Device.refused`."""

    def __init__(self, *, registry: Registry, bus: EventBus, clock: Clock) -> None:
        self._registry = registry
        self._bus = bus
        self._clock = clock

    def lacks(self, device: Device, key: str) -> bool:
        """Whether what `key_of` names is known to be unsupported."""
        refusal = device.refused.get(key)
        return refusal is not None and self._counts(device, refusal)

    def insist(self, device: Device, command: Command, target: str) -> None:
        """Raises gb.route.unsupported for a command that `target` (the device or a channel) is known not to know."""
        refusal = device.refused.get(key_of(command.name, target))
        if refusal is not None and self._counts(device, refusal):
            how = {"silent": "did not answer it", "error": "answered ERROR to it"}.get(
                refusal.why, "refused it as not known"
            )
            raise GatewayError(
                "gb.route.unsupported", f"{target} {how} before: it seems not to know {command.name}."
            )

    def failed(self, device: Device, command: Command, target: str, error: GatewayError) -> None:
        """A command ended with `error`: remember it if that says that the device does not know the command."""
        why = ""
        if error.code == "gb.sip.no_answer" and error.evidence.get("taken"):
            why = "silent"
        elif error.code == "gb.sip.command_failed" and command.root == "Query":
            why = "error"
        elif error.sip_status in NOT_KNOWN:
            why = "sip"
        # What ConfigDownload lacks is remembered for each type.
        if why and command.since > Edition.V1_0 and (why != "error" or command.name != "ConfigDownload"):
            self.refused(device, key_of(command.name, target), why)

    def refused(self, device: Device, name: str, why: str) -> None:
        """The device showed that it does not know what `key_of` names `name`."""
        old = device.refused.get(name)
        if old is None and len(device.refused) >= REFUSALS_LIMIT:
            return
        times = old.times + 1 if old is not None and old.by == _software(device) else 1
        device.refused[name] = Refusal(times=times, at=self._clock.wall(), by=_software(device), why=why)
        self._registry.unsaved(device, UNSAVED_FACTS)
        if times == 1:
            self._bus.emit("device.unsupported", device_id=device.id, cmd=name, reason=why)

    def answered(self, device: Device, name: str) -> None:
        """The device knows `name` after all."""
        if device.refused.pop(name, None) is not None:
            self._registry.unsaved(device, UNSAVED_FACTS)

    def _counts(self, device: Device, refusal: Refusal) -> bool:
        if refusal.by != _software(device):
            return False  # other firmware may know more
        return refusal.times > 1 or self._clock.wall() - refusal.at < FIRST_S


def unsupported(device: Device) -> dict[str, str]:
    """What the device does not know with the firmware it runs, with the reason (``silent``, ``error``, ``sip``)."""
    by = _software(device)
    return {name: refusal.why for name, refusal in device.refused.items() if refusal.by == by}


def key_of(name: str, target: str, part: str = "") -> str:
    """Under what a command, or a `part` of it, to `target` is remembered: cameras behind one recorder differ."""
    return f"{name}.{part}@{target}" if part else f"{name}@{target}"


def _software(device: Device) -> str:
    """What the device runs, as far as it tells."""
    agent = device.binding.user_agent if device.binding is not None else ""
    return f"{agent}|{device.firmware}"
