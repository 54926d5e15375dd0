"""`sessions.store.CallStore` on SQLite: dialogs that a device believes in."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from gb28181gw.sessions.models import CallRecord
from gb28181gw.storage.database import Database

_SAVE = (
    "INSERT INTO calls (id, device_id, record, updated_at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET device_id=excluded.device_id, record=excluded.record, "
    "updated_at=excluded.updated_at"
)


class SqliteCallStore:
    """One row a dialog, the record as JSON: nobody asks for its parts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_calls(self) -> list[CallRecord]:
        rows = await self._database.fetch("SELECT record FROM calls ORDER BY id")
        return [_read(str(record)) for (record,) in rows]

    async def save_call(self, record: CallRecord) -> None:
        text = json.dumps(asdict(record), ensure_ascii=False)
        await self._database.execute(_SAVE, (record.id, record.device_id, text, round(time.time() * 1000)))

    async def remove_call(self, record_id: str) -> None:
        await self._database.execute("DELETE FROM calls WHERE id=?", (record_id,))


def _read(text: str) -> CallRecord:
    values = json.loads(text)
    # JSON has no integer keys.
    values["payloads"] = {int(number): name for number, name in values["payloads"].items()}
    return CallRecord(**values)
