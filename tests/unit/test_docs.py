"""The documents say what is: links lead somewhere, named tests exist, shown commands parse."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")])


def all_tests() -> set[str]:
    """Every test as ``path::name`` (classes left out of the name)."""
    found = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(f"{file.relative_to(ROOT)}::{node.name}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    missing = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


@pytest.mark.parametrize("name", ["coverage.md", "quirks.md", "threats.md"])
def test_named_tests_exist(name: str) -> None:
    """Each row of the coverage tables names tests as ``tests/…::test_…``."""
    named = set(re.findall(r"tests/[\w/]+\.py::test_\w+", (ROOT / "docs/reference" / name).read_text()))
    assert len(named) > 20
    assert not named - all_tests()


@pytest.mark.parametrize("name", ["coverage.md", "quirks.md"])
def test_named_modules_exist(name: str) -> None:
    text = (ROOT / "docs/reference" / name).read_text()
    packages = "sip|gb|transport|ua|media|devices|sessions|outputs|storage|api"
    modules = set(re.findall(rf"`((?:{packages})/[\w/]+\.py)`", text))
    assert modules
    assert not [module for module in modules if not (ROOT / "gb28181gw" / module).exists()]


def coverage_rows() -> list[tuple[list[int], list[str]]]:
    """Numbers of the requirements of each row, and its other cells."""
    found = []
    for line in (ROOT / "docs/reference/coverage.md").read_text().splitlines():
        if not re.match(r"\| R\d{3}", line):
            continue
        first, *rest = [cell.strip() for cell in line.strip()[1:-1].split(" | ")]
        numbers: list[int] = []
        for part in first.split(", "):
            begin, _, end = part.partition(" to ")
            numbers += range(int(begin[1:]), int((end or begin)[1:]) + 1)
        found.append((numbers, rest))
    return found


def test_every_requirement_has_one_row() -> None:
    numbers = sorted(number for row, _ in coverage_rows() for number in row)
    assert numbers == list(range(1, 177))


def test_a_requirement_is_covered_by_a_module_and_a_test_or_has_a_reason() -> None:
    for numbers, cells in coverage_rows():
        if len(cells) == 5:
            _, _, module, tests, remark = cells
            assert re.search(r"`[\w/]+\.py`", module), numbers
            assert "tests/" in tests, numbers
            assert remark, numbers
        else:
            assert len(cells) == 3, numbers
            assert cells[2], numbers


_THREATS = r"\b(?:[SFO]-\d\d|I(?:10|[1-9]))\b"


def test_every_threat_that_code_or_tests_name_has_a_row() -> None:
    """As ``S-05`` in a comment, or as ``_s05_`` in the name of a test."""
    rows = set(
        re.findall(rf"^\| ({_THREATS}) \|", (ROOT / "docs/reference/threats.md").read_text(), re.MULTILINE)
    )
    named = {
        found
        for file in (ROOT / "gb28181gw").rglob("*.py")
        for found in re.findall(_THREATS, file.read_text())
    }
    for test in all_tests():
        name = test.partition("::")[2]
        named |= {f"{letter.upper()}-{digits}" for letter, digits in re.findall(r"_([sfo])(\d\d)(?=_)", name)}
        named |= {f"I{int(digits)}" for digits in re.findall(r"_i(\d{1,2})(?=_)", name)}
    assert len(named) > 40
    assert named <= rows, sorted(named - rows)


def test_every_threat_has_a_module_that_exists_and_a_test() -> None:
    for line in (ROOT / "docs/reference/threats.md").read_text().splitlines():
        if not re.match(rf"\| {_THREATS} \|", line):
            continue
        _, _, modules, tests = [cell.strip() for cell in line.strip()[1:-1].split(" | ")]
        files = re.findall(r"`([\w/]+\.py)`", modules)
        assert files, line
        assert all((ROOT / "gb28181gw" / file).exists() for file in files), line
        assert "::test_" in tests, line


def test_no_workplace_paths_and_no_registry_addresses() -> None:
    """Requirement files carry names, versions and hashes only."""
    for file in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"://|--index-url|--find-links", file.read_text()), file
