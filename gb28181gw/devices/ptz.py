"""Pan, tilt, zoom, focus, iris and presets of a channel (GB/T 28181-2022 9.3, A.3).

Theory of operation. A device moves until it is told to stop, so a lost mouse-up would turn a camera for ever
(CTL-06): each motion starts a timer that sends the stop itself, and a newer command for the same kind of motion takes
the timer's place. Commands of one channel go out one after the other: a move that is still being repeated to a slow
device must not arrive behind its stop.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gb28181gw.devices.assembly import MORE_QUIRK, Assembly
from gb28181gw.devices.dialects import dialect_of
from gb28181gw.devices.experience import Experience, key_of
from gb28181gw.devices.models import Device
from gb28181gw.devices.queries import Queries, Waits
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.commands import COMMANDS
from gb28181gw.gb.manscdp.control import write_ptz_control
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.messages import Preset, PresetQuery, read_preset_response, write
from gb28181gw.gb.ptz import (
    LENS_MAX,
    PAN_TILT_MAX,
    PRESETS,
    ZOOM_MAX,
    Action,
    Instruction,
    Lens,
    Move,
    Operation,
    encode,
)
from gb28181gw.observability.events import EventBus

SEND_S: Final = 5.0
"""A control that is not taken by then has failed: a picture that moves later is of no use."""
STOP_TRIES: Final = 4
STOP_PAUSE_S: Final = 2.0
CLOSE_S: Final = 1.0
WAITS: Final = Waits()
_LIST: Final = COMMANDS["PresetQuery"]


class PresetAction(StrEnum):
    """What is done with a preset."""

    GOTO = "goto"
    SET = "set"
    DELETE = "delete"


_PRESET_CODES: Final = {
    PresetAction.GOTO: Action.PRESET_GOTO,
    PresetAction.SET: Action.PRESET_SET,
    PresetAction.DELETE: Action.PRESET_DELETE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetList:
    """The presets of a channel, by number."""

    presets: tuple[Preset, ...]
    partial: bool = False
    """The device announced more than it sent."""


@dataclass(slots=True, eq=False)
class _Channel:
    """Live state of a channel that is being controlled."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    stops: dict[type[Move] | type[Lens], asyncio.TimerHandle] = field(default_factory=dict)
    """Running timers, by the kind of motion that they end."""


class PtzControl:
    """Owner of the stop timers."""

    def __init__(
        self,
        *,
        registry: Registry,
        queries: Queries,
        experience: Experience,
        bus: EventBus,
        stop_after_s: float = 10.0,
    ) -> None:
        self.sent = 0
        self.stopped = 0
        """Stops that we sent by ourselves."""
        self._registry = registry
        self._queries = queries
        self._experience = experience
        self._bus = bus
        self._stop_after_s = stop_after_s
        self._channels: dict[tuple[str, str], _Channel] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def moving(self) -> int:
        """Motions that a timer watches: a gauge."""
        return sum(len(channel.stops) for channel in self._channels.values())

    async def close(self) -> None:
        """Stop what moves, as far as that takes a second."""
        for task in self._stopping:
            task.cancel()
        await asyncio.gather(*self._stopping, return_exceptions=True)
        stops = [
            self._send(device_id, channel_id, kind())
            for (device_id, channel_id), channel in self._channels.items()
            for kind in channel.stops
        ]
        for channel in self._channels.values():
            for timer in channel.stops.values():
                timer.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*stops, return_exceptions=True)

    # -- commands ------------------------------------------------------------------------------------------

    async def move(
        self, device_id: str, channel_id: str, *, pan: float = 0.0, tilt: float = 0.0, zoom: float = 0.0
    ) -> None:
        """Move at speeds from -1 to 1 (+ is right, up, in) until the next command; all 0 stops.

        Raises GatewayError as `Queries.send`.
        """
        await self.send(
            device_id,
            channel_id,
            Move(pan=_speed(pan, PAN_TILT_MAX), tilt=_speed(tilt, PAN_TILT_MAX), zoom=_speed(zoom, ZOOM_MAX)),
        )

    async def lens(self, device_id: str, channel_id: str, *, focus: float = 0.0, iris: float = 0.0) -> None:
        """Focus (+ is far) and iris (+ is open) at speeds from -1 to 1; both 0 stops them."""
        await self.send(
            device_id, channel_id, Lens(focus=_speed(focus, LENS_MAX), iris=_speed(iris, LENS_MAX))
        )

    async def preset(
        self, device_id: str, channel_id: str, number: int, action: PresetAction, *, name: str = ""
    ) -> None:
        """Call, set or delete the preset `number` (1-255); `name` goes to devices of 2022 only."""
        await self.send(
            device_id,
            channel_id,
            Operation(action=_PRESET_CODES[action], preset=number),
            preset_name=name if action is PresetAction.SET else "",
        )

    async def presets(self, device_id: str, channel_id: str) -> PresetList:
        """What the device lists, by number.

        Raises GatewayError as `Queries.gather`, and gb.route.unsupported for a device that is known not to know the
        question.
        """
        device = self._registry.require(device_id)
        self._experience.insist(device, _LIST, channel_id)
        found: Assembly[int, Preset] = Assembly(limit=len(PRESETS))
        quirks: set[tuple[str, str]] = set()

        def collect(document: Document) -> bool:
            part = read_preset_response(document)
            found.take([(preset.number, preset) for preset in part.presets], part.total)
            quirks.update((one.value, one.row) for one in part.quirks if one not in document.quirks)
            return found.expected is None or found.reached

        charset = dialect_of(device).charset_used
        try:
            whole = await self._queries.gather(
                device,
                "PresetQuery",
                lambda sn: write(PresetQuery(sn=sn, device_id=channel_id), charset),
                collect,
                channel_id=channel_id,
                waits=WAITS,
                after=lambda: found.patience(device, WAITS.between_s),
            )
        except GatewayError as error:
            self._experience.failed(device, _LIST, channel_id, error)
            raise
        self._experience.answered(device, key_of(_LIST.name, channel_id))
        if found.beyond:
            self._registry.add_quirk(device, MORE_QUIRK)
        for name, row in sorted(quirks):
            self._registry.add_quirk(device, name, row=row)
        return PresetList(
            presets=tuple(found.items[number] for number in sorted(found.items)), partial=not whole
        )

    async def send(
        self,
        device_id: str,
        channel_id: str,
        instruction: Instruction,
        *,
        preset_name: str = "",
        body: bytes = b"",
    ) -> None:
        """Send one instruction, and watch over a motion that it starts.

        `body`: the message that carries it, where it is written already.
        """
        self._registry.target(device_id, channel_id, control=True)
        if isinstance(instruction, Operation):
            await self._send(device_id, channel_id, instruction, preset_name, body)
            return
        kind = type(instruction)
        self._disarm(device_id, channel_id, kind)
        try:
            await self._send(device_id, channel_id, instruction, body=body)
        except GatewayError as error:
            # Unanswered may mean: it moves, and its answer was lost.
            if error.code == "gb.sip.no_answer":
                self._arm(device_id, channel_id, kind)
            raise
        if not instruction.is_stop:
            self._arm(device_id, channel_id, kind)

    async def _send(
        self,
        device_id: str,
        channel_id: str,
        instruction: Instruction,
        preset_name: str = "",
        body: bytes = b"",
    ) -> None:
        device = self._registry.require(device_id)
        code = encode(instruction)
        key = (device_id, channel_id)
        channel = self._channels.setdefault(key, _Channel())
        channel.users += 1
        try:
            async with channel.lock:
                await self._queries.send(
                    device,
                    body or self._body(device, channel_id, code, preset_name),
                    channel_id=channel_id,
                    timeout_s=SEND_S,
                    control=True,
                )
        finally:
            channel.users -= 1
            self._forget(key)
        self.sent += 1
        self._bus.emit("ptz.sent", device_id=device_id, channel_id=channel_id, code=code)

    def _body(self, device: Device, channel_id: str, code: str, preset_name: str) -> bytes:
        dialect = dialect_of(device)
        return write_ptz_control(
            self._queries.next_sn(),
            channel_id,
            code,
            dialect.charset_used,
            dialect.edition,
            preset_name=preset_name,
        )

    # -- the stop that nobody sent -------------------------------------------------------------------------

    def _arm(self, device_id: str, channel_id: str, kind: type[Move] | type[Lens]) -> None:
        self._disarm(device_id, channel_id, kind)
        channel = self._channels.setdefault((device_id, channel_id), _Channel())
        channel.stops[kind] = asyncio.get_running_loop().call_later(
            self._stop_after_s, self._overdue, device_id, channel_id, kind
        )

    def _disarm(self, device_id: str, channel_id: str, kind: type[Move] | type[Lens]) -> None:
        key = (device_id, channel_id)
        channel = self._channels.get(key)
        timer = channel.stops.pop(kind, None) if channel is not None else None
        if timer is not None:
            timer.cancel()
            self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        channel = self._channels.get(key)
        if channel is not None and not channel.users and not channel.stops:
            del self._channels[key]

    def _overdue(self, device_id: str, channel_id: str, kind: type[Move] | type[Lens]) -> None:
        self._disarm(device_id, channel_id, kind)
        task = asyncio.get_running_loop().create_task(self._stop(device_id, channel_id, kind))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self, device_id: str, channel_id: str, kind: type[Move] | type[Lens]) -> None:
        """CTL-06. Repeated while the device does not answer, unless somebody commands it meanwhile."""
        for attempt in range(1, STOP_TRIES + 1):
            try:
                await self._send(device_id, channel_id, kind())
            except GatewayError as error:
                if attempt == STOP_TRIES or error.code == "gb.sip.rejected":
                    self._bus.emit(
                        "ptz.stop_failed",
                        device_id=device_id,
                        channel_id=channel_id,
                        reason=error.reason,
                        detail=error.detail,
                    )
                    return
                await asyncio.sleep(STOP_PAUSE_S)
                channel = self._channels.get((device_id, channel_id))
                if channel is not None and kind in channel.stops:
                    return
            else:
                self.stopped += 1
                self._bus.emit(
                    "ptz.stopped", device_id=device_id, channel_id=channel_id, after_s=self._stop_after_s
                )
                return


def _speed(value: float, limit: int) -> int:
    """-1…1 to the range of the byte; what is not 0 stays so, since a speed of 0 moves nothing (CTL-05)."""
    if value == 0:
        return 0
    size = max(1, round(abs(value) * limit))
    return size if value > 0 else -size
