"""`outputs.push.PushStore` on SQLite."""

from __future__ import annotations

from gb28181gw.outputs.push import PushOrder
from gb28181gw.storage.database import Database


class SqlitePushStore:
    """URLs are stored with their secrets, as the push needs them; the file is its owner's alone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[PushOrder]:
        rows = await self._database.fetch("SELECT id, device_id, channel_id, url, video, audio FROM pushes")
        return [
            PushOrder(
                id=str(push_id),
                device_id=str(device_id),
                channel_id=str(channel_id),
                url=str(url),
                video=bool(video),
                audio=bool(audio),
            )
            for push_id, device_id, channel_id, url, video, audio in rows
        ]

    async def save(self, order: PushOrder) -> None:
        await self._database.execute(
            "INSERT INTO pushes (id, device_id, channel_id, url, video, audio) VALUES (?, ?, ?, ?, ?, ?)",
            (
                order.id,
                order.device_id,
                order.channel_id,
                order.url,
                int(order.video),
                int(order.audio),
            ),
        )

    async def remove(self, push_id: str) -> None:
        await self._database.execute("DELETE FROM pushes WHERE id=?", (push_id,))
