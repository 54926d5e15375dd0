"""`devices.subscriptions.SubscriptionStore` on SQLite."""

from __future__ import annotations

import json

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
        rows = await self._database.fetch(
            "SELECT device_id, kind, target, event, record, until, note FROM subscriptions"
        )
        return [
            SubscriptionRecord(
                device_id=str(device_id),
                kind=str(kind),
                target=str(target),
                event=str(event),
                dialog=json.loads(str(record)) if record else None,
                until=until / 1000 if isinstance(until, int) else 0.0,
                note=str(note),
            )
            for device_id, kind, target, event, record, until, note in rows
        ]

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
