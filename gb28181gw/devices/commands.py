"""Commands of people and programs to a device: every control, query and configuration of the standard.

Theory of operation. The row of the command says what is written and how the answer comes. What is sent follows the
device's edition; what an older edition cannot know is refused with a sentence instead of being sent into silence
(CTL-11), and so is what this very device showed not to know (`experience`). A configuration that was answered OK is
read back, because a few devices answer OK and change nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gb28181gw.devices.assembly import MORE_QUIRK, ConfigParts, Parts
from gb28181gw.devices.dialects import dialect_of, zone_of
from gb28181gw.devices.experience import Experience, key_of
from gb28181gw.devices.models import Device
from gb28181gw.devices.ptz import PtzControl
from gb28181gw.devices.queries import Queries, Waits
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.exceptions import EditionError, GbLocalError
from gb28181gw.gb.manscdp.commands import (
    COMMANDS,
    Answer,
    Command,
    asked_configs,
    config_names,
    read_answer,
    says_nothing,
    write_command,
)
from gb28181gw.gb.manscdp.document import Document, result_ok
from gb28181gw.gb.manscdp.schema import Difference, Style, Value, Values, differences
from gb28181gw.gb.ptz import decode
from gb28181gw.observability.events import EventBus

FIRST_S: Final = 60.0
"""Bound of what a row allows for the first part."""
BETWEEN_S: Final = 5.0
"""From part to part."""
RESTART_S: Final = 60.0
"""How long a device that went away over a configuration is waited for."""
LOOK_S: Final = 0.5
_UNREAD: Final = frozenset({"SnapShotConfig"})
"""Configurations that ask for something to be done: reading them back tells nothing."""
_EDITION_NAMES: Final = {"1.0": "2011", "1.1": "2014", "2.0": "2016", "3.0": "2022"}


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a command ended well."""

    command: str
    device_id: str
    channel_id: str
    answered: bool
    """False: the standard has no answer to it, the device only took it."""
    fields: dict[str, Value] = field(default_factory=dict)
    """The device's answer by the names of the standard; empty without one."""
    partial: bool = False
    missing: list[str] = field(default_factory=list)
    """Configurations that were asked for and not told."""
    applied: bool | None = None
    """Of a configuration that was written: whether it reads so now; None: not written, or it cannot be read."""
    differs: list[Difference] = field(default_factory=list)
    note: str = ""
    """A sentence for people where there is something to know."""


class Commands:
    """Sends commands and judges their answers. Holds no state."""

    def __init__(
        self,
        *,
        registry: Registry,
        queries: Queries,
        ptz: PtzControl,
        experience: Experience,
        bus: EventBus,
        timezone: str,
    ) -> None:
        """`timezone` is that of devices without their own."""
        self._registry = registry
        self._experience = experience
        self._queries = queries
        self._ptz = ptz
        self._bus = bus
        self._timezone = timezone

    async def run(
        self,
        device_id: str,
        name: str,
        values: Values,
        *,
        channel_id: str | None = None,
        force: bool = False,
        key_id: str = "",
    ) -> Outcome:
        """Send the command `name` with `values` and await its answer; `channel_id` None: to the device itself.

        Raises GatewayError: gb.route.invalid naming the field, gb.route.edition and gb.route.unsupported unless
        `force`, gb.sip.command_failed when the device answered ERROR, gb.sip.bad_answer when its answer cannot be
        read or lacks what was asked for, gb.sip.no_answer, and what `Queries.send` raises.
        """
        command = COMMANDS.get(name)
        if command is None:
            raise GatewayError("gb.route.invalid", f"command: {name[:64]!r} is none of the standard.")
        device = self._registry.require(device_id)
        self._registry.target(device_id, channel_id, control=command.root == "Control")
        began = time.monotonic()
        try:
            if not force:
                self._experience.insist(device, command, channel_id or device_id)
            outcome = await self._run(device, command, values, channel_id, force)
        except GatewayError as error:
            self._experience.failed(device, command, channel_id or device_id, error)
            self._bus.emit(
                "command.failed",
                device_id=device_id,
                channel_id=channel_id,
                cmd=name,
                key_id=key_id or None,
                reason=error.reason,
                detail=error.detail,
                sip_status=error.sip_status,
                duration_ms=_since(began),
            )
            raise
        if outcome.answered:
            self._experience.answered(device, key_of(name, channel_id or device_id))
        self._bus.emit(
            "command.answered",
            device_id=device_id,
            channel_id=channel_id,
            cmd=name,
            sn=outcome.fields.get("SN"),
            key_id=key_id or None,
            duration_ms=_since(began),
            partial=outcome.partial or None,
        )
        return outcome

    async def _run(
        self, device: Device, command: Command, values: Values, channel_id: str | None, force: bool
    ) -> Outcome:
        dialect = dialect_of(device)
        style = Style(edition=dialect.edition, zone=zone_of(device.timezone or self._timezone), forced=force)
        target = channel_id or device.id

        def write(sn: int) -> bytes:
            return write_command(command, sn, target, values, charset=dialect.charset_used, style=style)

        try:
            write(1)  # what cannot be written is refused before anything is sent
        except EditionError as error:
            raise self._not_of_edition(device, error) from None
        except GbLocalError as error:
            raise GatewayError("gb.route.invalid", f"{error}.") from None
        outcome = Outcome(
            command=command.name,
            device_id=device.id,
            channel_id=channel_id or "",
            answered=command.answer is not Answer.NONE,
        )
        if command.answer is Answer.NONE:
            await self._tell(device, command, values, channel_id, write(self._queries.next_sn()))
        elif command.answer is Answer.CONFIGS:
            await self._read_configs(device, command, values, channel_id, style, outcome)
        elif command.answer is Answer.PARTS:
            await self._collect(device, command, channel_id, write, outcome)
        elif command.name == "DeviceConfig":
            await self._configure(device, command, channel_id, write, outcome)
            await self._read_back(device, values, channel_id, style, outcome)
        else:
            await self._ask(device, command, channel_id, write, outcome)
        return outcome

    def _not_of_edition(self, device: Device, error: EditionError) -> GatewayError:
        edition = dialect_of(device).edition
        known = "speaks" if device.edition or "edition" in device.dialect else "did not tell and is taken for"
        return GatewayError(
            "gb.route.edition",
            f"{error.what} {'ended with' if error.gone else 'is new in'} edition {error.edition} "
            f"({_EDITION_NAMES[error.edition]}) of the standard, and "
            f"device {device.id} {known} {edition} ({_EDITION_NAMES[edition]}).",
        )

    # -- the ways of an answer -----------------------------------------------------------------------------

    async def _tell(
        self, device: Device, command: Command, values: Values, channel_id: str | None, body: bytes
    ) -> None:
        """Nothing but the SIP 200 is expected."""
        instruction = decode(str(values["PTZCmd"])) if command.name == "PTZCmd" else None
        if instruction is not None:
            await self._ptz.send(device.id, channel_id or device.id, instruction, body=body)
            return
        await self._queries.send(device, body, channel_id=channel_id, control=command.root == "Control")

    async def _ask(
        self,
        device: Device,
        command: Command,
        channel_id: str | None,
        write: Callable[[int], bytes],
        outcome: Outcome,
    ) -> None:
        def take(document: Document) -> bool:
            outcome.fields = read_answer(command, document)
            _insist_on_ok(device, command.name, document.text("Result"), document)
            _insist_on_content(device, command, outcome.fields)
            return True

        await self._gather(device, command, channel_id, write, take)

    async def _configure(
        self,
        device: Device,
        command: Command,
        channel_id: str | None,
        write: Callable[[int], bytes],
        outcome: Outcome,
    ) -> None:
        """CTL-08: a few devices apply a configuration by a restart and never answer; reading it back tells."""
        registered = device.registered_at
        try:
            await self._ask(device, command, channel_id, write, outcome)
        except GatewayError as error:
            if error.code != "gb.sip.no_answer" or not await self._came_back(device, registered):
                raise
            outcome.answered = False
            outcome.note = "The device did not answer and registered anew."
            self._registry.add_quirk(device, "config.restart_instead_of_answer")

    async def _came_back(self, device: Device, registered: float | None) -> bool:
        """Whether the device went away and is here again, by a registration after `registered`."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + RESTART_S
        while device.registered_at == registered or not device.online or device.unregistered_at:
            gone = not device.online or bool(device.unregistered_at)
            if not gone or clock() >= deadline:
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def _collect(
        self,
        device: Device,
        command: Command,
        channel_id: str | None,
        write: Callable[[int], bytes],
        outcome: Outcome,
    ) -> None:
        parts = Parts(command)

        def take(document: Document) -> bool:
            _insist_on_ok(device, command.name, document.text("Result"), document)
            answer = read_answer(command, document)
            _insist_on_content(device, command, answer)
            return parts.take(answer)

        found = parts.all
        whole = await self._gather(
            device, command, channel_id, write, take, after=lambda: found.patience(device, BETWEEN_S)
        )
        outcome.fields = parts.fields
        outcome.partial = found.dropped > 0 or not whole
        if found.beyond:
            self._registry.add_quirk(device, MORE_QUIRK)
        if outcome.partial:
            outcome.note = f"{found.received} of {found.expected} items came."

    async def _read_configs(
        self,
        device: Device,
        command: Command,
        values: Values,
        channel_id: str | None,
        style: Style,
        outcome: Outcome,
    ) -> None:
        asked = asked_configs(values)
        keys = {name: key_of(command.name, channel_id or device.id, name) for name in asked}
        known = [name for name in asked if style.forced or not self._experience.lacks(device, keys[name])]
        if not known:
            raise GatewayError(
                "gb.route.unsupported",
                f"Device {device.id} did not tell {', '.join(asked)} before: it seems not to have them.",
            )
        parts = ConfigParts(command, known)
        write = self._config_query(device, channel_id, known, style)
        answered = await self._gather(device, command, channel_id, write, parts.add)
        for _ in parts.renamed:
            self._registry.add_quirk(device, "config.element_name")
        for name in known:
            if name in parts.fields:
                self._experience.answered(device, keys[name])
            else:
                self._experience.refused(device, keys[name], "error" if parts.refused else "silent")
        if parts.refused and len(parts.missing) == len(known):
            raise GatewayError(
                "gb.sip.command_failed",
                f"Device {device.id} answered {parts.refused[:64]} to ConfigDownload of {'/'.join(known)}.",
            )
        if not answered and len(parts.missing) == len(known):
            raise GatewayError(
                "gb.sip.bad_answer",
                f"Device {device.id} answered ConfigDownload and told nothing of {'/'.join(known)}.",
            )
        outcome.fields = parts.fields
        outcome.missing = [name for name in asked if name not in parts.fields]
        outcome.partial = bool(outcome.missing)
        if outcome.missing:
            outcome.note = f"Not told, so probably not supported by the device: {', '.join(outcome.missing)}."

    def _config_query(
        self, device: Device, channel_id: str | None, names: list[str], style: Style
    ) -> Callable[[int], bytes]:
        command = COMMANDS["ConfigDownload"]
        values: Values = {"ConfigType": "/".join(names)}
        charset = dialect_of(device).charset_used
        target = channel_id or device.id
        return lambda sn: write_command(command, sn, target, values, charset=charset, style=style)

    async def _gather(
        self,
        device: Device,
        command: Command,
        channel_id: str | None,
        write: Callable[[int], bytes],
        take: Callable[[Document], bool],
        after: Callable[[], float] | None = None,
    ) -> bool:
        return await self._queries.gather(
            device,
            command.cmd_type,
            write,
            take,
            channel_id=channel_id,
            waits=Waits(first_s=min(command.first_s, FIRST_S), between_s=BETWEEN_S),
            control=command.root == "Control",
            after=after,
        )

    # -- did it take effect --------------------------------------------------------------------------------

    async def _read_back(
        self, device: Device, values: Values, channel_id: str | None, style: Style, outcome: Outcome
    ) -> None:
        """Compare what was written with what the device tells now."""
        names = [name for name in config_names(values) if name not in _UNREAD]
        if not names:
            return
        command = COMMANDS["ConfigDownload"]
        parts = ConfigParts(command, names)
        write = self._config_query(device, channel_id, names, style)
        try:
            await self._gather(device, command, channel_id, write, parts.add)
        except GatewayError as error:
            outcome.note = f"The device answered OK; whether it applied cannot be read back ({error.detail})"
            return
        for name in names:
            written, read = values[name], parts.fields.get(name)
            if read is None:
                outcome.missing.append(name)
            else:
                outcome.differs += differences({name: written}, {name: read})
        if outcome.missing:
            outcome.note = f"Cannot be read back: {', '.join(outcome.missing)}."
        if len(outcome.missing) < len(names):
            outcome.applied = not outcome.differs
        if outcome.differs:
            self._ignored(device, channel_id, outcome)

    def _ignored(self, device: Device, channel_id: str | None, outcome: Outcome) -> None:
        fields = [difference.field for difference in outcome.differs]
        outcome.note = f"The device answered OK and did not take over {', '.join(fields[:8])}."
        self._registry.add_quirk(device, "config.ok_without_effect")
        self._bus.emit(
            "command.without_effect",
            device_id=device.id,
            channel_id=channel_id,
            cmd="DeviceConfig",
            fields=fields[:16],
        )


def _insist_on_ok(device: Device, name: str, result: str, document: Document) -> None:
    """Raise gb.sip.command_failed for an ERROR, with what the device says about it."""
    if result_ok(result):
        return
    reasons = [document.text(field) for field in ("Reason", "ExtraInfo", "Info")]
    why = next((f": {reason[:200]}" for reason in reasons if reason), "")
    raise GatewayError("gb.sip.command_failed", f"Device {device.id} answered {result[:64]} to {name}{why}.")


def _insist_on_content(device: Device, command: Command, answer: Values) -> None:
    """Raise gb.sip.bad_answer for one that has none of what the command asks for."""
    if says_nothing(command, answer):
        raise GatewayError(
            "gb.sip.bad_answer",
            f"Device {device.id} answered {command.name} without {' or '.join(command.needs)}.",
            cmd=command.cmd_type,
        )


def _since(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
