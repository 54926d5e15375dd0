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


@pytest.mark.parametrize("name", ["coverage.md", "quirks.md"])
def test_named_tests_exist(name: str) -> None:
    """Each row of the coverage tables names tests as ``tests/…::test_…``."""
    named = set(re.findall(r"tests/[\w/]+\.py::test_\w+", (ROOT / "docs/reference" / name).read_text()))
    assert len(named) > 20
    assert not named - all_tests()


@pytest.mark.parametrize("name", ["coverage.md", "quirks.md"])
def test_named_modules_exist(name: str) -> None:
    text = (ROOT / "docs/reference" / name).read_text()
    modules = set(
        re.findall(r"`((?:sip|gb|transport|ua|media|devices|sessions|outputs|storage|api)/[\w/]+\.py)`", text)
    )
    assert modules
    assert not [module for module in modules if not (ROOT / "gb28181gw" / module).exists()]


def test_no_workplace_paths_and_no_registry_addresses() -> None:
    """Requirement files carry names, versions and hashes only."""
    for file in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"://|--index-url|--find-links", file.read_text()), file
