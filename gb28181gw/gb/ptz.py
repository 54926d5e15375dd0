"""The front-end control code `PTZCmd`: eight bytes, written as 16 hexadecimal digits (GB/T 28181-2022 A.3).

Theory of operation. `Code` is the frame: header, two combination bytes, address, instruction, data and checksum.
What an instruction means is in one table, `_OPERATIONS`, for presets, cruises, scans and auxiliary switches, and in
the bits of `Move` and `Lens` for the continuous ones. Everything can be read back by `decode`, as a device does it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gb28181gw.gb.exceptions import GbLocalError, GbParseError

HEADER: Final = 0xA5
PAN_TILT_MAX: Final = 0xFF
ZOOM_MAX: Final = 0x0F
LENS_MAX: Final = 0xFF
PRESETS: Final = range(1, 256)
"""Numbers of presets; 0 is reserved (A.3.4)."""
_STOP_LENS: Final = 0x40
_HEX: Final = re.compile(r"[0-9A-Fa-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The frame (A.3.1). The address is not used on this interface: the XML's DeviceID selects the target."""

    instruction: int
    data1: int = 0
    data2: int = 0
    data3: int = 0
    """High nibble of byte 7."""
    address: int = 0

    def hex(self) -> str:
        """16 upper-case hexadecimal digits with the check nibble and the checksum."""
        head = (HEADER, ((HEADER >> 4) + (HEADER & 0xF)) % 16, self.address & 0xFF, self.instruction)
        body = (self.data1, self.data2, (self.data3 & 0xF) << 4 | (self.address >> 8) & 0xF)
        octets = bytes((*head, *body))
        return (octets + bytes((sum(octets) % 256,))).hex().upper()

    @staticmethod
    def parse(text: str) -> Code:
        """Read a code as a device does. A wrong check nibble in byte 2 is tolerated.

        Raises `GbParseError` with reason ``ptz_form``, ``ptz_header`` or ``ptz_checksum``.
        """
        text = text.strip()
        if _HEX.fullmatch(text) is None:
            raise GbParseError("ptz_form", "a PTZ code has 16 hexadecimal digits")
        octets = bytes.fromhex(text)
        if octets[0] != HEADER:
            raise GbParseError("ptz_header", f"a PTZ code begins with A5, not {octets[0]:02X}")
        if sum(octets[:7]) % 256 != octets[7]:
            raise GbParseError(
                "ptz_checksum", f"the checksum of {text} should be {sum(octets[:7]) % 256:02X}"
            )
        return Code(
            instruction=octets[3],
            data1=octets[4],
            data2=octets[5],
            data3=octets[6] >> 4,
            address=octets[2] | (octets[6] & 0xF) << 8,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Pan, tilt and zoom at a speed, until another code comes (A.3.2). All 0 stops everything, cruise and scan too."""

    pan: int = 0
    """-255 left … 255 right."""
    tilt: int = 0
    """-255 down … 255 up."""
    zoom: int = 0
    """-15 out … 15 in."""

    @property
    def is_stop(self) -> bool:
        return not (self.pan or self.tilt or self.zoom)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """Focus and iris at a speed, until another code comes (A.3.3). Both 0 stops them."""

    focus: int = 0
    """-255 near … 255 far."""
    iris: int = 0
    """-255 close … 255 open."""

    @property
    def is_stop(self) -> bool:
        return not (self.focus or self.iris)


class Action(StrEnum):
    """What is done once, or goes on by itself (A.3.4 to A.3.7)."""

    PRESET_SET = "preset-set"
    PRESET_GOTO = "preset-goto"
    PRESET_DELETE = "preset-delete"
    CRUISE_ADD = "cruise-add"
    """A preset becomes the last point of a cruise."""
    CRUISE_REMOVE = "cruise-remove"
    """A point leaves a cruise."""
    CRUISE_DELETE = "cruise-delete"
    CRUISE_SPEED = "cruise-speed"
    CRUISE_STAY = "cruise-stay"
    """Seconds at each point."""
    CRUISE_START = "cruise-start"
    SCAN_START = "scan-start"
    SCAN_LEFT = "scan-left"
    """Where the camera looks now is the left limit."""
    SCAN_RIGHT = "scan-right"
    SCAN_SPEED = "scan-speed"
    AUX_ON = "aux-on"
    """Switch 1 is the wiper."""
    AUX_OFF = "aux-off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One `Action` with the numbers that it takes; `numbers_of` says which."""

    action: Action
    preset: int = 0
    group: int = 0
    """Cruise or scan group."""
    value: int = 0
    """Speed, or seconds of stay: 0-4095."""
    switch: int = 0


Instruction = Move | Lens | Operation


@dataclass(frozen=True, slots=True)
class _Row:
    instruction: int
    first: str
    """What byte 5 holds; empty: 0."""
    second: str = ""
    """What byte 6 holds; ``value`` takes the high nibble of byte 7 as well; empty: `fixed`."""
    fixed: int = 0


_OPERATIONS: Final[dict[Action, _Row]] = {
    Action.PRESET_SET: _Row(0x81, "", "preset"),
    Action.PRESET_GOTO: _Row(0x82, "", "preset"),
    Action.PRESET_DELETE: _Row(0x83, "", "preset"),
    Action.CRUISE_ADD: _Row(0x84, "group", "preset"),
    Action.CRUISE_DELETE: _Row(0x85, "group"),
    Action.CRUISE_REMOVE: _Row(0x85, "group", "preset"),
    Action.CRUISE_SPEED: _Row(0x86, "group", "value"),
    Action.CRUISE_STAY: _Row(0x87, "group", "value"),
    Action.CRUISE_START: _Row(0x88, "group"),
    Action.SCAN_START: _Row(0x89, "group"),
    Action.SCAN_LEFT: _Row(0x89, "group", fixed=1),
    Action.SCAN_RIGHT: _Row(0x89, "group", fixed=2),
    Action.SCAN_SPEED: _Row(0x8A, "group", "value"),
    Action.AUX_ON: _Row(0x8C, "switch"),
    Action.AUX_OFF: _Row(0x8D, "switch"),
}
_RANGES: Final = {
    "preset": PRESETS,
    "group": range(256),
    "value": range(4096),
    "switch": range(256),
}


def numbers_of(action: Action) -> tuple[str, ...]:
    """Names of the fields of `Operation` that an action takes."""
    row = _OPERATIONS[action]
    return tuple(name for name in (row.first, row.second) if name)


def encode(instruction: Instruction, address: int = 0) -> str:
    """The code of an instruction. Raises `GbLocalError` for a number out of range, naming it."""
    match instruction:
        case Move():
            return _move(instruction, address).hex()
        case Lens():
            return _lens(instruction, address).hex()
        case Operation():
            return _operation(instruction, address).hex()


def _move(move: Move, address: int) -> Code:
    _check("pan", move.pan, PAN_TILT_MAX)
    _check("tilt", move.tilt, PAN_TILT_MAX)
    _check("zoom", move.zoom, ZOOM_MAX)
    bits = _one_of(move.pan, 0x01, 0x02) | _one_of(move.tilt, 0x08, 0x04) | _one_of(move.zoom, 0x10, 0x20)
    return Code(
        instruction=bits, data1=abs(move.pan), data2=abs(move.tilt), data3=abs(move.zoom), address=address
    )


def _lens(lens: Lens, address: int) -> Code:
    _check("focus", lens.focus, LENS_MAX)
    _check("iris", lens.iris, LENS_MAX)
    bits = _STOP_LENS | _one_of(lens.focus, 0x01, 0x02) | _one_of(lens.iris, 0x04, 0x08)
    return Code(instruction=bits, data1=abs(lens.focus), data2=abs(lens.iris), address=address)


def _operation(operation: Operation, address: int) -> Code:
    row = _OPERATIONS[operation.action]
    for name in numbers_of(operation.action):
        number, allowed = getattr(operation, name), _RANGES[name]
        if number not in allowed:
            raise GbLocalError(
                f"{name} of {operation.action.value} is {allowed.start} to {allowed.stop - 1}, not {number}"
            )
    first = getattr(operation, row.first) if row.first else 0
    second = getattr(operation, row.second) if row.second else row.fixed
    return Code(
        instruction=row.instruction,
        data1=first,
        data2=second & 0xFF,
        data3=second >> 8,
        address=address,
    )


def _check(name: str, value: int, limit: int) -> None:
    if abs(value) > limit:
        raise GbLocalError(f"{name} is -{limit} to {limit}, not {value}")


def _one_of(value: int, positive: int, negative: int) -> int:
    if value == 0:
        return 0
    return positive if value > 0 else negative


def decode(text: str) -> Instruction | None:
    """What a code asks for; None for an instruction that the standard does not define.

    Raises `GbParseError` as `Code.parse`. Of two opposite bits, which the standard forbids together, neither counts.
    """
    code = Code.parse(text)
    bits = code.instruction
    if bits < 0x40:
        return Move(
            pan=_signed(bits, 0x01, 0x02, code.data1),
            tilt=_signed(bits, 0x08, 0x04, code.data2),
            zoom=_signed(bits, 0x10, 0x20, code.data3),
        )
    if bits < 0x50:
        return Lens(focus=_signed(bits, 0x01, 0x02, code.data1), iris=_signed(bits, 0x04, 0x08, code.data2))
    return _decode_operation(code)


def _signed(bits: int, positive: int, negative: int, speed: int) -> int:
    """A speed of 0 with its bit set still is a motion for the frame: it counts as the slowest."""
    direction = ((bits & positive) != 0) - ((bits & negative) != 0)
    return direction * max(speed, 1)


def _decode_operation(code: Code) -> Operation | None:
    for action, row in _OPERATIONS.items():
        if row.instruction != code.instruction or (not row.second and row.fixed != code.data2):
            continue
        numbers: dict[str, int] = {}
        if row.first:
            numbers[row.first] = code.data1
        if row.second:
            numbers[row.second] = code.data2 | (code.data3 << 8 if row.second == "value" else 0)
        return Operation(action=action, **numbers)
    return None
