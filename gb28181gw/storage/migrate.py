"""Forward-only schema migrations: numbered .sql files, the version in `PRAGMA user_version`."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

from gb28181gw.errors import GatewayError


def steps() -> list[tuple[int, str]]:
    """(version, script) in order; the file ``0003_what.sql`` leads to version 3."""
    found: list[tuple[int, str]] = []
    for entry in resources.files("gb28181gw.storage").joinpath("migrations").iterdir():
        if entry.name.endswith(".sql"):
            found.append((int(entry.name.split("_", 1)[0]), entry.read_text(encoding="utf-8")))
    return sorted(found)


def schema_version() -> int:
    """The version this program reads and writes."""
    return steps()[-1][0]


def migrate(connection: sqlite3.Connection, path: str) -> tuple[int, int]:
    """Bring the file to this program's schema; returns (version before, version after).

    Each step is one transaction, taken with the write lock so that two processes that start together do not both
    run it. Before an older file with data is changed, a copy named ``<file>.v<N>.bak`` is made beside it.
    Raises GatewayError gb.config.data_dir for a file of a newer program: it is left untouched.
    """
    before = _version(connection)
    newest = schema_version()
    if before > newest:
        raise GatewayError(
            "gb.config.data_dir",
            f"The database {path} was written by a newer gb28181gw (schema {before}, this program knows "
            f"{newest}). Start that version again, or use another data_dir.",
        )
    if 0 < before < newest and path != ":memory:":
        _back_up(connection, Path(f"{path}.v{before}.bak"))
    for version, script in steps():
        if version <= before:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) < version:
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return before, _version(connection)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _back_up(connection: sqlite3.Connection, target: Path) -> None:
    """A consistent copy, also of what is still in the write-ahead log."""
    target.touch(mode=0o600, exist_ok=True)
    copy = sqlite3.connect(target)
    try:
        connection.backup(copy)
    finally:
        copy.close()


def _statements(script: str) -> list[str]:
    """Split a script at the semicolons that end a statement (`executescript` would commit on its own)."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    if pending.strip() and not all(line.startswith("--") for line in pending.strip().splitlines()):
        raise ValueError("a migration ends within a statement")
    return found
