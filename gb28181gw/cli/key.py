"""`gb28181gw key create`: makes an access key, whether the gateway runs or not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gb28181gw.access.roles import Role
from gb28181gw.cli.common import ConfigOption, fail, settings_or_exit
from gb28181gw.errors import GatewayError

if TYPE_CHECKING:
    from gb28181gw.access.keys import Key
    from gb28181gw.settings import Settings

app = typer.Typer(help="Access keys of the API.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def keys() -> None:
    """Access keys of the API."""


@app.command("create")
def create(
    name: Annotated[str, typer.Option("--name", help="What the key is for; shown in lists and logs.")],
    role: Annotated[Role, typer.Option("--role", help="What it may do.")],
    days: Annotated[
        float | None, typer.Option("--days", help="Expires after so many days; without it never.", min=0.0)
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Make a key. Stdout is the key alone; it is shown this once."""
    import asyncio

    name = name.strip()
    if not name or len(name) > 64 or not name.isprintable():
        print("--name needs 1 to 64 printable characters.", file=sys.stderr)
        raise typer.Exit(2)
    if days is not None and not 0 < days <= 36_500:
        print("--days needs a number above 0, up to 36500.", file=sys.stderr)
        raise typer.Exit(2)
    settings = settings_or_exit(config)
    try:
        key, text = asyncio.run(_create(settings, name, role, days))
    except GatewayError as error:
        fail(error)
    until = "never expires" if days is None else f"expires in {days:g} days"
    print(f"Key {key.id} ({key.name}, {key.role.value}) made; it {until}.", file=sys.stderr)
    print(text)


async def _create(settings: Settings, name: str, role: Role, days: float | None) -> tuple[Key, str]:
    import time

    from gb28181gw.access.keys import make_key
    from gb28181gw.access.secrets import make_data_dir
    from gb28181gw.storage.database import Database
    from gb28181gw.storage.keys import SqliteKeyStore

    make_data_dir(settings.data_dir)
    # A running gateway holds the write lock for milliseconds at a time; wait longer than any of its batches.
    database = Database(settings.database_path, busy_timeout_s=5.0)
    database.start()
    try:
        key, text = make_key(name, role, now=time.time(), days=days)
        await SqliteKeyStore(database).add_key(key)
    finally:
        await database.close()
    return key, text
