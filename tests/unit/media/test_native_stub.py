"""`_native.pyi` says what the module has: the same names, with parameters of the same names in the same order."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gb28181gw.media import native

STUB = Path(native.__file__).with_name("_native.pyi")


@pytest.fixture(scope="module")
def module() -> ModuleType:
    if not native.is_built():
        pytest.skip("the native plane was not built")
    from gb28181gw.media import _native

    return _native


def declared() -> dict[str, dict[str, list[str]] | list[str]]:
    """Functions with their parameters, classes with their methods' parameters; a property has none but self."""
    found: dict[str, dict[str, list[str]] | list[str]] = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = [argument.arg for argument in node.args.args]
        elif isinstance(node, ast.ClassDef):
            found[node.name] = {
                member.name: [argument.arg for argument in member.args.args]
                for member in node.body
                if isinstance(member, ast.FunctionDef)
            }
    return found


def parameters(callable_: Any) -> list[str]:
    """Of something that nanobind made, from the one signature that it has."""
    (signature,) = callable_.__nb_signature__
    text = re.sub(r"\[[^][]*\]", "", re.sub(r"\[[^][]*\]", "", signature[0]))
    inside = re.fullmatch(r"def \w+\((.*)\) -> .*", text, re.DOTALL)
    assert inside is not None, signature
    return [part.split(":")[0].strip() for part in inside[1].split(",") if part.strip() not in ("", "/")]


def test_stub_and_module_have_the_same_names(module: ModuleType) -> None:
    stub = declared()
    assert {name for name in dir(module) if not name.startswith("_")} == set(stub)
    for name, members in stub.items():
        if isinstance(members, dict):
            public = {member for member in dir(getattr(module, name)) if not member.startswith("_")}
            assert public == set(members) - {"__init__"}, name


def test_stub_and_module_have_the_same_parameters(module: ModuleType) -> None:
    checked = 0
    for name, members in declared().items():
        thing = getattr(module, name)
        if not isinstance(members, dict):
            assert parameters(thing) == members, name
            checked += 1
            continue
        for member, wanted in members.items():
            found = getattr(thing, member)
            if isinstance(found, property):
                assert wanted == ["self"], f"{name}.{member} is a property"
            else:
                assert parameters(found) == wanted, f"{name}.{member}"
            checked += 1
    assert checked > 30
