"""Dialect files: what is known of a kind of device, as data (docs/how-to/dialects.md).

Those of the package come first in `gb28181gw/config/dialects`; the operator's in `data_dir/dialects` are asked before
them, and one of the same name replaces the packaged one.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gb28181gw.gb.dialect import DEFAULT, Profile
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.settings import SettingsError

MAX_BYTES = 65_536
MAX_FILES = 256


def _switches(given: dict[str, str | bool]) -> dict[str, str | bool]:
    try:
        DEFAULT.with_switches(_texts(given))
    except GbLocalError as error:
        raise ValueError(str(error)) from None
    return given


def _texts(given: dict[str, str | bool]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else str(value).lower() for name, value in given.items()}


Globs = Annotated[tuple[Annotated[str, Field(min_length=2, max_length=64)], ...], Field(max_length=64)]


class _Match(BaseModel):
    """``[match]``: either of the two is enough."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    manufacturer: Globs = ()
    user_agent: Globs = ()

    @model_validator(mode="after")
    def _something(self) -> _Match:
        if not self.manufacturer and not self.user_agent:
            raise ValueError("give manufacturer or user_agent")
        if any(not glob.strip("*?") for glob in (*self.manufacturer, *self.user_agent)):
            raise ValueError("a pattern of * alone would fit every device")
        return self


class _File(BaseModel):
    """One dialect file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: _Match
    dialect: Annotated[dict[str, str | bool], Field(min_length=1, max_length=16), AfterValidator(_switches)]


def parse_dialect(name: str, text: str) -> Profile:
    """The profile of one file's text. Raises `SettingsError` with a sentence for each thing that is wrong."""
    try:
        read = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError((f"dialects/{name}.toml is not TOML: {error}.",)) from None
    except ValidationError as error:
        raise SettingsError(tuple(_sentence(name, item) for item in error.errors())) from None
    return Profile(
        name=name,
        manufacturers=read.match.manufacturer,
        user_agents=read.match.user_agent,
        switches=_texts(read.dialect),
    )


def _sentence(name: str, item: Any) -> str:
    where = ".".join(map(str, item["loc"]))
    return f"dialects/{name}.toml: {where}: {str(item['msg']).removeprefix('Value error, ')}."


def load_dialects(data_dir: Path) -> tuple[Profile, ...]:
    """The operator's files, then the packaged ones, each in the order of their names.

    Raises `SettingsError` naming every file that cannot be used: a wrong one is not left out silently.
    """
    problems: list[str] = []
    found: dict[str, Profile] = {}
    for name, text in (*_own(data_dir / "dialects", problems), *_packaged()):
        if name in found:
            continue
        try:
            found[name] = parse_dialect(name, text)
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(tuple(problems))
    return tuple(found.values())


def _own(folder: Path, problems: list[str]) -> list[tuple[str, str]]:
    files = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    if len(files) > MAX_FILES:
        problems.append(f"{folder} has more than {MAX_FILES} dialect files.")
        return []
    found = []
    for file in files:
        try:
            if file.stat().st_size > MAX_BYTES:
                problems.append(f"{file} is larger than {MAX_BYTES} bytes.")
                continue
            found.append((file.stem, file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{file} cannot be read: {error}.")
    return found


def _packaged() -> list[tuple[str, str]]:
    folder = resources.files("gb28181gw").joinpath("config", "dialects")
    entries = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name
    )
    return [(entry.name.removesuffix(".toml"), entry.read_text(encoding="utf-8")) for entry in entries]
