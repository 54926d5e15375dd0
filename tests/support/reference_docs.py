"""Writes the generated parts of docs/reference and config/ from the code; tests compare them.

`python -m tests.support.reference_docs` brings them up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer.main

from gb28181gw.errors import CODES
from gb28181gw.observability.event_table import EVENTS
from gb28181gw.settings import Settings, known_keys

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
DEFAULT_TOML = ROOT / "gb28181gw" / "config" / "default.toml"
SHOWN_TOML = ROOT / "config" / "gb28181gw.toml"
BEGIN = "<!-- generated: begin -->"
END = "<!-- generated: end -->"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: list[str], rows: Iterator[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def events() -> str:
    def rows() -> Iterator[list[str]]:
        for row in EVENTS.values():
            fields = " ".join(f"`{name}`" for name in row.fields)
            yield [f"`{row.name}`", row.level, fields, row.meaning]

    return table(["Event", "Level", "Fields", "Meaning"], rows())


def errors() -> str:
    def rows() -> Iterator[list[str]]:
        for row in CODES.values():
            yield [f"`{row.code}`", str(row.http_status), row.title, row.hint]

    return table(["Code", "HTTP", "Title", "What to do"], rows())


def toml_value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


def configuration() -> str:
    def rows() -> Iterator[list[str]]:
        for key, info in known_keys().items():
            kind = info.type + (f", {info.unit}" if info.unit else "")
            yield [f"`{key}`", kind, f"`{toml_value(info.default)}`", info.description]

    return table(["Key", "Type", "Default", "Meaning"], rows())


def wrapped(text: str, width: int = 108) -> Iterator[str]:
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > width and line != "#":
            yield line
            line = "#"
        line += " " + word
    yield line


def default_toml() -> str:
    """The annotated default configuration."""
    lines = [
        "# Configuration of gb28181gw with all its defaults. Every key may be left out.",
        "# Each is also an environment variable: GB28181GW_SECTION__KEY, as in GB28181GW_SIP__KEEPALIVE_S=30.",
        "# 'gb28181gw check --config FILE' says what is wrong with a file.",
    ]
    section = ""
    for key, info in known_keys().items():
        name, _, inner = key.rpartition(".")
        if name != section:
            section = name
            kind: Any = Settings
            for part in name.split("."):
                kind = kind.model_fields[part].annotation
            doc = (kind.__doc__ or "").strip()
            lines += ["", "", f"[{name}]", f"# {doc}"]
        lines += ["", *wrapped(info.description)]
        unit = f", in {info.unit}" if info.unit else ""
        lines.append(f"# Type: {info.type}{unit}. Default: {toml_value(info.default)}")
        lines.append(f"{inner or key} = {toml_value(info.default)}")
    return "\n".join(lines) + "\n"


def api() -> str:
    """Every route with the roles that may use it."""
    from fastapi.routing import APIRoute, APIWebSocketRoute

    from gb28181gw.access.roles import ALLOWED
    from gb28181gw.api.app import MODULES
    from gb28181gw.api.middleware import WEBSOCKETS
    from gb28181gw.api.security import action_of

    def rows() -> Iterator[list[str]]:
        for module in MODULES:
            for route in module.router.routes:
                if isinstance(route, APIWebSocketRoute):
                    roles = ", ".join(sorted(role.value for role in ALLOWED[WEBSOCKETS[route.path]]))
                    yield [
                        f"`WebSocket {route.path}`",
                        roles,
                        (route.endpoint.__doc__ or "").partition(", ")[0] + ".",
                    ]
                    continue
                assert isinstance(route, APIRoute)
                action = action_of(route)
                roles = (
                    "no key" if action is None else ", ".join(sorted(role.value for role in ALLOWED[action]))
                )
                method = ", ".join(sorted(route.methods))
                yield [
                    f"`{method} {route.path}`",
                    roles,
                    route.description.partition("\n\n")[0].replace("\n", " "),
                ]

    return table(["Call", "Roles", "What it does"], rows())


def commands(command: click.Command, path: str = "gb28181gw") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group) or hasattr(command, "commands"):
        for name, inner in command.commands.items():  # type: ignore[union-attr]
            yield from commands(inner, f"{path} {name}")
    else:
        yield path, command


def cli() -> str:
    from gb28181gw.cli.main import make_app

    parts: list[str] = []
    for path, command in commands(typer.main.get_command(make_app())):
        arguments = "".join(
            f" {p.name.upper()}" for p in command.params if p.param_type_name == "argument" and p.name
        )
        parts.append(f"### `{path}{arguments}`\n\n{(command.help or '').strip()}\n")

        def rows(command: Any = command) -> Iterator[list[str]]:
            for parameter in command.params:
                default = parameter.default
                shown = (
                    ""
                    if default in (None, False, "", ()) or parameter.required
                    else f"`{getattr(default, 'value', default)}`"
                )
                name = ", ".join(f"`{option}`" for option in parameter.opts)
                if parameter.param_type_name == "argument":
                    name = f"`{parameter.name.upper()}`"
                yield [
                    name,
                    "required" if parameter.required else shown,
                    getattr(parameter, "help", "") or "",
                ]

        if command.params:
            parts.append(table(["Option", "Default", "Meaning"], rows()))
    return "\n".join(parts)


PAGES = {
    "events.md": events,
    "errors.md": errors,
    "configuration.md": configuration,
    "api.md": api,
    "cli.md": cli,
}


def with_generated(page: str, text: str) -> str:
    """`page` with what stands between its marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}{END}{after}"


def main() -> None:
    DEFAULT_TOML.parent.mkdir(exist_ok=True)
    SHOWN_TOML.parent.mkdir(exist_ok=True)
    DEFAULT_TOML.write_text(default_toml())
    SHOWN_TOML.write_text(default_toml())
    for name, make in PAGES.items():
        path = REFERENCE / name
        path.write_text(with_generated(path.read_text(), make()))


if __name__ == "__main__":
    main()
