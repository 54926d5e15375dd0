"""The eight bytes, against the vectors of A.3 worked out by hand and one public one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.gb.exceptions import GbLocalError, GbParseError
from gb28181gw.gb.ptz import (
    PRESETS,
    Action,
    Code,
    Instruction,
    Lens,
    Move,
    Operation,
    decode,
    encode,
    numbers_of,
)

MOVES = [
    (Move(), "A50F0000000000B4"),
    (Move(pan=0x40), "A50F0001400000F5"),
    (Move(pan=-0x40), "A50F0002400000F6"),
    (Move(tilt=-0x40), "A50F0004004000F8"),
    (Move(tilt=0x40), "A50F0008004000FC"),
    (Move(pan=0x40, tilt=-0x40), "A50F000540400039"),
    (Move(pan=-0x40, tilt=-0x40), "A50F00064040003A"),
    (Move(pan=0x40, tilt=0x40), "A50F00094040003D"),
    (Move(pan=-0x40, tilt=0x40), "A50F000A4040003E"),
    (Move(zoom=8), "A50F001000008044"),
    (Move(zoom=-8), "A50F002000008054"),
    (Move(pan=0x40, tilt=0x40, zoom=-8), "A50F0029404080DD"),
]
LENSES = [
    (Lens(iris=-0x40), "A50F00480040003C"),
    (Lens(iris=0x40), "A50F004400400038"),
    (Lens(focus=-0x40), "A50F004240000036"),
    (Lens(focus=0x40), "A50F004140000035"),
    (Lens(), "A50F0040000000F4"),
    (Lens(iris=-0x40, focus=0x40), "A50F00494040007D"),
]
OPERATIONS = [
    (Operation(action=Action.PRESET_SET, preset=1), "A50F008100010036"),
    (Operation(action=Action.PRESET_SET, preset=255), "A50F008100FF0034"),
    (Operation(action=Action.PRESET_GOTO, preset=1), "A50F008200010037"),
    (Operation(action=Action.PRESET_DELETE, preset=255), "A50F008300FF0036"),
    (Operation(action=Action.CRUISE_ADD, group=1, preset=3), "A50F00840103003C"),
    (Operation(action=Action.CRUISE_REMOVE, group=1, preset=3), "A50F00850103003D"),
    (Operation(action=Action.CRUISE_DELETE, group=1), "A50F00850100003A"),
    (Operation(action=Action.CRUISE_SPEED, group=1, value=100), "A50F00860164009F"),
    (Operation(action=Action.CRUISE_SPEED, group=1, value=300), "A50F0086012C1077"),
    (Operation(action=Action.CRUISE_STAY, group=1, value=15), "A50F0087010F004B"),
    (Operation(action=Action.CRUISE_STAY, group=1, value=600), "A50F0087015820B4"),
    (Operation(action=Action.CRUISE_START, group=1), "A50F00880100003D"),
    (Operation(action=Action.SCAN_START, group=1), "A50F00890100003E"),
    (Operation(action=Action.SCAN_LEFT, group=1), "A50F00890101003F"),
    (Operation(action=Action.SCAN_RIGHT, group=1), "A50F008901020040"),
    (Operation(action=Action.SCAN_SPEED, group=1, value=50), "A50F008A01320071"),
    (Operation(action=Action.SCAN_SPEED, group=1, value=1000), "A50F008A01E83057"),
    (Operation(action=Action.AUX_ON, switch=1), "A50F008C01000041"),
    (Operation(action=Action.AUX_OFF, switch=1), "A50F008D01000042"),
]


@pytest.mark.parametrize(("instruction", "text"), [*MOVES, *LENSES, *OPERATIONS])
def test_a3_instructions_both_ways(instruction: Instruction, text: str) -> None:
    assert encode(instruction) == text
    assert decode(text) == instruction
    assert decode(text.lower()) == instruction


def test_a3_the_address_is_written_where_it_belongs_and_ignored_when_read() -> None:
    assert encode(Move(tilt=0xFA), address=1) == "A50F010800FA00B7"
    assert encode(Move(zoom=1), address=0x4D) == "A50F4D1000001021"
    assert decode("A50F4D1000001021") == Move(zoom=1)
    assert Code.parse(Code(instruction=1, address=0xABC).hex()).address == 0xABC


@pytest.mark.parametrize("action", Action)
def test_every_action_has_its_range(action: Action) -> None:
    for name in numbers_of(action):
        with pytest.raises(GbLocalError, match=name):
            encode(Operation(action=action, **{"preset": 1, name: 4096}))
    assert set(numbers_of(action)) <= {"preset", "group", "value", "switch"}


def test_a34_preset_0_is_reserved() -> None:
    with pytest.raises(GbLocalError, match="preset of preset-set is 1 to 255, not 0"):
        encode(Operation(action=Action.PRESET_SET, preset=0))
    assert 0 not in PRESETS


@pytest.mark.parametrize(
    "wrong", [Move(pan=256), Move(tilt=-256), Move(zoom=16), Lens(focus=256), Lens(iris=-999)]
)
def test_a_speed_beyond_its_byte_is_refused(wrong: Instruction) -> None:
    with pytest.raises(GbLocalError):
        encode(wrong)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ptz_form"),
        ("A50F", "ptz_form"),
        ("A50F00000000000G", "ptz_form"),
        ("A60F0000000000B5", "ptz_header"),
        ("A50F0000000000B5", "ptz_checksum"),
    ],
)
def test_a_broken_code_is_named(text: str, reason: str) -> None:
    with pytest.raises(GbParseError) as caught:
        decode(text)
    assert caught.value.reason == reason


def test_a_wrong_check_nibble_is_tolerated() -> None:
    assert decode("A5000001400000E6") == Move(pan=0x40)


def test_an_instruction_that_is_not_defined_is_nothing() -> None:
    assert decode(Code(instruction=0x8B).hex()) is None
    assert decode(Code(instruction=0x89, data2=7).hex()) is None


def test_ctl05_speed_0_with_a_direction_is_the_slowest_motion() -> None:
    assert decode(Code(instruction=0x01).hex()) == Move(pan=1)


@given(st.binary(min_size=7, max_size=7))
def test_any_sound_frame_is_read(octets: bytes) -> None:
    octets = b"\xa5" + octets[1:]
    decode((octets + bytes((sum(octets) % 256,))).hex())


@given(st.text(max_size=24))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        decode(text)
    except GbParseError as error:
        assert error.reason.startswith("ptz_")
