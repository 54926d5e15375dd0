"""`devices.snapshots.SnapshotStore`: pictures as files, what is known of them in SQLite.

A file is there before its row, and gone after it; a file without a row is left from a kill and removed when it is
found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Final

from gb28181gw.devices.snapshots import Picture, PictureFilter
from gb28181gw.errors import GatewayError
from gb28181gw.storage.database import Database, Value

_COLUMNS: Final = (
    "id",
    "session_id",
    "device_id",
    "channel_id",
    "received_at",
    "content_type",
    "size",
    "name",
)
_SUFFIX: Final = {"image/jpeg": ".jpg", "image/png": ".png"}
_ORPHAN_S: Final = 3_600.0


class SnapshotFiles:
    """Files of `directory`, which is made when the first one comes."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory

    async def save_picture(self, picture: Picture, data: bytes) -> None:
        try:
            await asyncio.to_thread(self._write, self._file(picture), data)
        except OSError as error:
            raise GatewayError(
                "gb.route.storage_unavailable", f"The picture cannot be written: {error}."
            ) from error
        values = [getattr(picture, name) for name in _COLUMNS]
        values[_COLUMNS.index("received_at")] = round(picture.received_at * 1000)
        await self._database.execute(
            f"INSERT INTO snapshots ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})",  # noqa: S608
            values,
        )

    def _file(self, picture: Picture) -> Path:
        return self._directory / f"{picture.id}{_SUFFIX[picture.content_type]}"

    def _write(self, file: Path, data: bytes) -> None:
        """Whole or not at all, and for nobody else's eyes."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_suffix(".part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
        partial.replace(file)

    async def pictures(self, wanted: PictureFilter) -> tuple[list[Picture], int]:
        terms: list[str] = []
        values: list[Value] = []
        for name in ("device_id", "channel_id", "session_id"):
            if value := getattr(wanted, name):
                terms.append(f"{name} = ?")
                values.append(value)
        if wanted.start is not None:
            terms.append("received_at >= ?")
            values.append(round(wanted.start * 1000))
        if wanted.end is not None:
            terms.append("received_at <= ?")
            values.append(round(wanted.end * 1000))
        where = f" WHERE {' AND '.join(terms)}" if terms else ""
        total = (await self._database.fetch(f"SELECT count(*) FROM snapshots{where}", values))[0][0]  # noqa: S608
        rows = await self._database.fetch(
            f"SELECT {', '.join(_COLUMNS)} FROM snapshots{where} ORDER BY received_at DESC, id LIMIT ? OFFSET ?",  # noqa: S608
            [*values, wanted.limit, wanted.offset],
        )
        return [_picture(row) for row in rows], int(total or 0)

    async def picture(self, picture_id: str) -> tuple[Picture, bytes] | None:
        rows = await self._database.fetch(
            f"SELECT {', '.join(_COLUMNS)} FROM snapshots WHERE id = ?",  # noqa: S608
            (picture_id,),
        )
        if not rows:
            return None
        picture = _picture(rows[0])
        try:
            return picture, await asyncio.to_thread(self._file(picture).read_bytes)
        except OSError:
            return None  # somebody removed the file

    async def prune_pictures(self, *, before: float, max_bytes: int) -> int:
        rows = await self._database.fetch(
            "SELECT id, content_type, received_at, size FROM snapshots ORDER BY received_at DESC, id"
        )
        kept_bytes, old = 0, []
        for own_id, content_type, received_at, size in rows:
            kept_bytes += int(size or 0)
            if int(received_at or 0) < before * 1000 or kept_bytes > max_bytes:
                old.append((str(own_id), str(content_type)))
        for own_id, content_type in old:
            await self._database.execute("DELETE FROM snapshots WHERE id = ?", (own_id,))
            await asyncio.to_thread(
                self._remove, self._directory / f"{own_id}{_SUFFIX.get(content_type, '')}"
            )
        known = {str(row[0]) for row in rows}
        await asyncio.to_thread(self._remove_orphans, known)
        return len(old)

    def _remove_orphans(self, known: set[str]) -> None:
        with contextlib.suppress(OSError):
            for file in self._directory.iterdir():
                if file.stem not in known and time.time() - file.stat().st_mtime > _ORPHAN_S:
                    self._remove(file)

    @staticmethod
    def _remove(file: Path) -> None:
        with contextlib.suppress(OSError):
            file.unlink()


def _picture(row: tuple[Value, ...]) -> Picture:
    own_id, session_id, device_id, channel_id, received_at, content_type, size, name = row
    return Picture(
        id=str(own_id),
        session_id=str(session_id),
        device_id=str(device_id),
        channel_id=str(channel_id),
        received_at=received_at / 1000 if isinstance(received_at, int) else 0.0,
        content_type=str(content_type),
        size=size if isinstance(size, int) else 0,
        name=str(name),
    )
