"""The table is complete, and every row is shown to do something by a test that carries its id in its name."""

import re
from pathlib import Path

import pytest

from gb28181gw.sim.quirks import TABLE, Quirk, normalise, select, unknown_rows

TESTS = Path(__file__).parents[2]


def test_every_row_is_described_once() -> None:
    assert set(TABLE) == set(Quirk)
    assert len(set(TABLE.values())) == len(TABLE)
    assert list(TABLE) == list(Quirk)


@pytest.mark.parametrize(
    ("typed", "row"),
    [
        ("REG-01", "REG-01"),
        ("reg-01", "REG-01"),
        ("reg01", "REG-01"),
        ("REG_10_CONTACT", "REG-10-CONTACT"),
        ("inv03-zero", "INV-03-ZERO"),
        (" f-05-no-sdp ", "F-05-NO-SDP"),
        ("f06", "F-06"),
    ],
)
def test_spellings(typed: str, row: str) -> None:
    assert normalise(typed) == row
    assert select([typed]) == {Quirk(row)}


def test_unknown_rows_are_named() -> None:
    assert unknown_rows(["REG-01", "REG-99", "nonsense"]) == ["REG-99", "nonsense"]
    with pytest.raises(ValueError, match="REG-99"):
        select(["REG-99"])


def test_every_row_has_a_test_that_observes_it() -> None:
    names = {
        name
        for folder in (TESTS / "unit" / "sim", TESTS / "loop")
        for path in folder.glob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    wanted = {
        quirk: "_".join(["test", stage + number, *form])
        for quirk in Quirk
        for stage, number, *form in [quirk.value.lower().split("-")]
    }

    def belongs(name: str, quirk: Quirk) -> bool:
        """`name` begins with the row, and with no longer row (MED-22-ALL is not MED-22)."""
        fitting = [row for row, prefix in wanted.items() if f"{name}_".startswith(f"{prefix}_")]
        return bool(fitting) and max(fitting, key=lambda row: len(wanted[row])) is quirk

    assert [quirk.value for quirk in Quirk if not any(belongs(name, quirk) for name in names)] == []
