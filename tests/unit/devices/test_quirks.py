"""The list of tolerances is closed: what the code names is in it, and the page shows the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gb28181gw.devices.quirks import QUIRK_ROWS
from gb28181gw.sim.quirks import Quirk as SimulatedRow

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reference" / "quirks.md").read_text()
ROWS = {
    "REG": 26, "KA": 10, "XML": 23, "CAT": 24, "INV": 30, "MED": 41, "NET": 10, "SES": 10, "TM": 4, "HOS": 6,
}  # fmt: skip
"""Sections of the catalogue that the page covers, with their number of rows."""


@pytest.mark.parametrize("package", ["media", "sessions", "devices"])
def test_every_name_in_the_code_is_in_the_list(package: str) -> None:
    known = set(QUIRK_ROWS)
    for file in (ROOT / "gb28181gw" / package).rglob("*.py"):
        named = set(re.findall(r'"((?:rtp|ps|es|inv|digest|query)\.[a-z0-9_]+)"', file.read_text()))
        assert named <= known, file


def test_every_name_of_the_list_is_used() -> None:
    code = "\n".join(
        file.read_text()
        for file in (ROOT / "gb28181gw").rglob("*.py")
        if file.name != "quirks.py" and "sim" not in file.parts
    )
    media = [
        name for name in QUIRK_ROWS if name.partition(".")[0] in ("rtp", "ps", "es", "inv", "digest", "query")
    ]
    assert [name for name in media if f'"{name}"' not in code] == []


def test_the_page_lists_the_names_with_their_rows() -> None:
    names = PAGE.partition("## Names of tolerances")[2]
    assert dict(re.findall(r"^\| `([^`]+)` \| (\S*) ?\|$", names, re.MULTILINE)) == dict(QUIRK_ROWS)


@pytest.mark.parametrize(("section", "count"), ROWS.items())
def test_the_page_has_every_row_of_its_sections(section: str, count: int) -> None:
    rows = re.findall(rf"^\| ({section}-\d\d) \|", PAGE, re.MULTILINE)
    assert rows == [f"{section}-{number:02d}" for number in range(1, count + 1)]


def test_the_page_has_every_row_that_the_simulator_plays() -> None:
    played = {"-".join(row.value.split("-")[:2]) for row in SimulatedRow if not row.value.startswith("F-")}
    assert played <= set(re.findall(r"^\| ([A-Z]+-\d\d) \|", PAGE, re.MULTILINE))
