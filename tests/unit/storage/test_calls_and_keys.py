"""Dialogs and access keys in the database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gb28181gw.access.keys import Key, hash_key
from gb28181gw.access.roles import Role
from gb28181gw.sessions.models import CallRecord
from gb28181gw.storage.calls import SqliteCallStore
from gb28181gw.storage.database import Database
from gb28181gw.storage.keys import SqliteKeyStore

CALL = CallRecord(
    id="c1",
    device_id="d",
    channel_id="c",
    dialog={"call_id": "x@y", "remote_cseq": 2, "route_set": ["<sip:a>"]},
    ssrc=200_000_001,
    port=30_000,
    transport="udp",
    payloads={96: "PS", 98: "H264"},
    created_at=1_714_523_400.5,
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "a.db")
    made.start()
    yield made
    await made.close()


async def test_f17_calls_come_back_as_they_were(database: Database) -> None:
    store = SqliteCallStore(database)
    await store.save_call(CALL)
    await store.save_call(replace(CALL, id="c2"))
    await store.save_call(replace(CALL, port=30_002))
    assert await store.load_calls() == [replace(CALL, port=30_002), replace(CALL, id="c2")]
    await store.remove_call("c1")
    await store.remove_call("c1")
    assert [call.id for call in await store.load_calls()] == ["c2"]


async def test_keys_come_back_as_they_were(database: Database) -> None:
    store = SqliteKeyStore(database)
    one = Key(id="1", name="门", role=Role.VIEWER, hash=hash_key("a"), created_at=1_714_523_400.25)
    two = Key(
        id="2", name="b", role=Role.ADMIN, hash="h", created_at=1_714_523_401.0, expires_at=1_800_000_000.0
    )
    await store.add_key(one)
    await store.add_key(two)
    assert await store.load_keys() == [one, two]
    assert await store.remove_key("1")
    assert not await store.remove_key("1")
    assert await store.load_keys() == [two]


async def test_a_second_process_adds_a_key_while_the_first_runs(database: Database) -> None:
    script = """
import asyncio, sys
from gb28181gw.access.keys import Key
from gb28181gw.access.roles import Role
from gb28181gw.storage.database import Database
from gb28181gw.storage.keys import SqliteKeyStore
async def main():
    database = Database(sys.argv[1])
    database.start()
    await SqliteKeyStore(database).add_key(Key(id="k", name="n", role=Role.ADMIN, hash="h", created_at=1.0))
    await database.close()
asyncio.run(main())
"""
    await database.execute("INSERT INTO settings VALUES ('a', '1')")
    done = subprocess.run([sys.executable, "-c", script, database.path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [key.id for key in await SqliteKeyStore(database).load_keys()] == ["k"]
