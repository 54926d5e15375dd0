"""What the sub-commands share: the --config option, and how a failure is told."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gb28181gw.errors import GatewayError

if TYPE_CHECKING:
    from gb28181gw.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The configuration file (TOML); without one the defaults hold.", show_default=False
    ),
]
ANY_WIDTH = 100_000
"""Columns of what is not a terminal."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def sentences(error: GatewayError) -> list[str]:
    """What went wrong, one sentence a line, and what to do."""
    problems = getattr(error, "problems", None)
    lines = [*problems] if problems else [error.detail]
    return [*lines, error.row.hint]


def fail(error: GatewayError) -> NoReturn:
    """Tell it on stderr and end with status 1."""
    for line in sentences(error):
        print(line, file=sys.stderr)
    raise typer.Exit(1)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """On a terminal as wide as that, its cells folded; elsewhere as wide as it needs. Nothing is cut off."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=ANY_WIDTH)
    console.print(table)


def settings_or_exit(config: Path | None) -> Settings:
    """The settings, or sentences and status 1."""
    from gb28181gw.settings import load_settings

    try:
        return load_settings(config)
    except GatewayError as error:
        fail(error)
