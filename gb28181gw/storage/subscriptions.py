"""`devices.subscriptions.SubscriptionStore` on SQLite."""

from __future__ import annotations

import json
import sqlite3

from gb28181gw.devices.subscriptions import SubscriptionRecord
from gb28181gw.storage.database import Database

_SAVE = (
    "INSERT INTO subscriptions (device_id, kind, target, event, record, until, note) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (device_id, kind, target) DO UPDATE SET event=excluded.event, record=excluded.record, "
    "until=excluded.until, note=excluded.note"
)


class SqliteSubscriptionStore:
    """One row a wish, the dialog as JSON: nobody asks for its parts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_subscriptions(self) -> list[SubscriptionRecord]:
        return await self._database.run(_load)

    async def save_subscription(self, record: SubscriptionRecord) -> None:
        text = json.dumps(record.dialog) if record.dialog is not None else ""
        await self._database.execute(
            _SAVE,
            (
                record.device_id,
                record.kind,
                record.target,
                record.event,
                text,
                round(record.until * 1000),
                record.note,
            ),
        )

    async def remove_subscription(self, device_id: str, kind: str, target: str) -> None:
        await self._database.execute(
            "DELETE FROM subscriptions WHERE device_id=? AND kind=? AND target=?", (device_id, kind, target)
        )


def _load(connection: sqlite3.Connection) -> list[SubscriptionRecord]:
    """In the database's thread: tens of thousands of dialogs are no work for the event loop."""
    return [
        SubscriptionRecord(
            device_id=device_id,
            kind=kind,
            target=target,
            event=event,
            dialog=json.loads(record) if record else None,
            until=until / 1000,
            note=note,
        )
        for device_id, kind, target, event, record, until, note in connection.execute(
            "SELECT device_id, kind, target, event, record, until, note FROM subscriptions"
        )
    ]
