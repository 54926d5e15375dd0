"""`access.keys.KeyStore` on SQLite. The command line uses it beside a running gateway: one short transaction each."""

from __future__ import annotations

from gb28181gw.access.keys import Key
from gb28181gw.access.roles import Role
from gb28181gw.storage.database import Database


class SqliteKeyStore:
    """Hashes of access keys; never a key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_keys(self) -> list[Key]:
        rows = await self._database.fetch(
            "SELECT id, name, role, hash, created_at, expires_at FROM keys ORDER BY created_at, id"
        )
        return [
            Key(
                id=str(key_id),
                name=str(name),
                role=Role(str(role)),
                hash=str(digest),
                created_at=_seconds(created_at) or 0.0,
                expires_at=_seconds(expires_at),
            )
            for key_id, name, role, digest, created_at, expires_at in rows
        ]

    async def add_key(self, key: Key) -> None:
        await self._database.execute(
            "INSERT INTO keys (id, name, role, hash, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                key.id,
                key.name,
                key.role.value,
                key.hash,
                round(key.created_at * 1000),
                None if key.expires_at is None else round(key.expires_at * 1000),
            ),
        )

    async def remove_key(self, key_id: str) -> bool:
        return await self._database.execute("DELETE FROM keys WHERE id=?", (key_id,)) > 0


def _seconds(milliseconds: object) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int) else None
