"""`downloads.store.DownloadStore` on SQLite."""

from __future__ import annotations

from gb28181gw.downloads.models import DownloadRequest
from gb28181gw.downloads.store import StoredDownload
from gb28181gw.media.engine import MediaTransport
from gb28181gw.storage.database import Database


class SqliteDownloadStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_downloads(self) -> list[StoredDownload]:
        rows = await self._database.fetch(
            "SELECT id, created_at, device_id, channel_id, start, end, speed, transport, centre, original "
            "FROM downloads ORDER BY created_at, id"
        )
        return [
            StoredDownload(
                id=str(download_id),
                created_at=float(str(created_at)),
                request=DownloadRequest(
                    device_id=str(device_id),
                    channel_id=str(channel_id),
                    start=int(str(start)),
                    end=int(str(end)),
                    speed=float(str(speed)),
                    transport=MediaTransport(str(transport)) if transport else None,
                    centre=bool(centre),
                    original=bool(original),
                ),
            )
            for (
                download_id, created_at, device_id, channel_id, start, end, speed, transport, centre, original
            ) in rows
        ]  # fmt: skip

    async def save_download(self, download: StoredDownload) -> None:
        request = download.request
        await self._database.execute(
            "INSERT OR REPLACE INTO downloads "
            "(id, created_at, device_id, channel_id, start, end, speed, transport, centre, original) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                download.id,
                download.created_at,
                request.device_id,
                request.channel_id,
                request.start,
                request.end,
                request.speed,
                request.transport.value if request.transport is not None else "",
                int(request.centre),
                int(request.original),
            ),
        )

    async def remove_download(self, download_id: str) -> None:
        await self._database.execute("DELETE FROM downloads WHERE id=?", (download_id,))
