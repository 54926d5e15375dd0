"""`cascade.store.UpperStore` on SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from gb28181gw.cascade.models import Upper
from gb28181gw.cascade.store import ShareRow, StoredUpper
from gb28181gw.storage.database import Database

_SAVE: Final = (
    "INSERT INTO uppers (id, settings) VALUES (?, ?) "
    "ON CONFLICT (id) DO UPDATE SET settings=excluded.settings"
)
_ADD_SHARE: Final = (
    "INSERT INTO upper_shares (upper_id, device_id, channel_id, shared_id) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (upper_id, device_id, channel_id) DO UPDATE SET shared_id=excluded.shared_id"
)


class SqliteUpperStore:
    """One row an upper, its settings as JSON: nobody asks for its parts. One row a share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_uppers(self) -> list[StoredUpper]:
        uppers = await self._database.fetch("SELECT settings, share_all FROM uppers ORDER BY id")
        shares: dict[str, list[ShareRow]] = {}
        for upper_id, device_id, channel_id, shared_id in await self._database.fetch(
            "SELECT upper_id, device_id, channel_id, shared_id FROM upper_shares "
            "ORDER BY upper_id, device_id, channel_id"
        ):
            shares.setdefault(str(upper_id), []).append(
                ShareRow(str(device_id), str(channel_id), str(shared_id))
            )
        found: list[StoredUpper] = []
        for settings, share_all in uppers:
            upper = _read(str(settings))
            rows = tuple(shares.get(upper.id, ()))
            found.append(StoredUpper(upper=upper, share_all=bool(share_all), rows=rows))
        return found

    async def save_upper(self, upper: Upper) -> None:
        await self._database.execute(_SAVE, (upper.id, json.dumps(asdict(upper), ensure_ascii=False)))

    async def remove_upper(self, upper_id: str) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM upper_shares WHERE upper_id=?", (upper_id,))
            connection.execute("DELETE FROM uppers WHERE id=?", (upper_id,))

        await self._database.run(delete)

    async def replace_shares(self, upper_id: str, share_all: bool, rows: Sequence[ShareRow]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM upper_shares WHERE upper_id=?", (upper_id,))
            connection.executemany(_ADD_SHARE, _values(upper_id, rows))
            connection.execute("UPDATE uppers SET share_all=? WHERE id=?", (int(share_all), upper_id))

        await self._database.run(write)

    async def add_shares(self, upper_id: str, rows: Iterable[ShareRow]) -> None:
        values = _values(upper_id, rows)

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_ADD_SHARE, values)

        await self._database.run(write)


def _values(upper_id: str, rows: Iterable[ShareRow]) -> list[tuple[str, str, str, str]]:
    return [(upper_id, row.device_id, row.channel_id, row.shared_id) for row in rows]


def _read(text: str) -> Upper:
    values: dict[str, Any] = json.loads(text)
    known = {field.name for field in fields(Upper)}
    values = {name: value for name, value in values.items() if name in known}
    values["media_allow"] = tuple(values.get("media_allow", ()))
    return Upper(**values)
