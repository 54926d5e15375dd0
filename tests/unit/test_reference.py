"""The reference says what the code says; `python -m tests.support.reference_docs` brings it up to date."""

from __future__ import annotations

import ast
import re

import pytest

from gb28181gw.observability.event_table import EVENTS
from tests.support.reference_docs import (
    DEFAULT_TOML,
    PAGES,
    REFERENCE,
    ROOT,
    SHOWN_TOML,
    default_toml,
    with_generated,
)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_page_says_what_the_code_says(name: str) -> None:
    page = (REFERENCE / name).read_text()
    assert page == with_generated(page, PAGES[name]())


def test_the_default_configuration_is_annotated_from_the_model() -> None:
    assert DEFAULT_TOML.read_text() == default_toml()


def test_the_shown_configuration_is_that_of_the_package() -> None:
    assert SHOWN_TOML.read_text() == DEFAULT_TOML.read_text()


def test_every_emitted_event_is_in_the_table_with_its_fields() -> None:
    """Reads each `….emit("name", field=…)` of the package."""
    seen = 0
    wrong: list[str] = []
    for file in sorted((ROOT / "gb28181gw").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "emit"
            ):
                continue
            if not node.args or not (
                isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
            ):
                continue
            seen += 1
            name = node.args[0].value
            where = f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
            row = EVENTS.get(name)
            if row is None:
                wrong.append(f"{where} is not in the table")
                continue
            fields = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
            unknown = fields - set(row.fields)
            if unknown:
                wrong.append(f"{where} has {', '.join(sorted(unknown))} beyond the table")
    assert seen > 10
    assert not wrong, "\n".join(wrong)


def test_the_names_of_the_contract_are_in_the_table() -> None:
    text = """gateway.ready device.registered device.register_refused device.online device.offline
    catalog.complete catalog.partial stream.started stream.first_frame stream.stopped stream.failed
    upper.registered upper.lost alarm.received"""
    names = text.split()
    assert set(names) <= set(EVENTS)


def test_names_and_fields_are_well_formed() -> None:
    for row in EVENTS.values():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", row.name)
        assert row.meaning.endswith("."), row.name
        assert len(set(row.fields)) == len(row.fields), row.name
        assert row.per_second > 0
