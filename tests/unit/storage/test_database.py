"""The writer thread: commits, errors, health, migrations."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.storage.database import Database, RowStatement, connect
from gb28181gw.storage.migrate import migrate, schema_version, steps
from tests.support.devices import Calls, until

INSERT = RowStatement(
    "INSERT INTO settings (key, value)", 2, "ON CONFLICT (key) DO UPDATE SET value=excluded.value"
)


@pytest.fixture
async def database(tmp_path: Path):  # type: ignore[no-untyped-def]  # an async fixture
    made = Database(tmp_path / "a.db", busy_timeout_s=0.1)
    made.start()
    yield made
    await made.close()


def stored(database: Database) -> dict[str, str]:
    """What another connection sees: only what was committed."""
    with sqlite3.connect(database.path) as other:
        found = dict(other.execute("SELECT key, value FROM settings").fetchall())
    other.close()
    return found


async def test_done_is_heard_after_the_commit(database: Database) -> None:
    seen: list[dict[str, str]] = []
    database.submit_row(INSERT, ("a", "1"), lambda _result, _error: seen.append(stored(database)))
    await until(lambda: seen)
    assert seen == [{"a": "1"}]


async def test_rows_and_operations_keep_their_order(database: Database) -> None:
    done = Calls()
    for number in range(300):
        database.submit_row(INSERT, ("a", str(number)))
    database.submit(lambda connection: connection.execute("UPDATE settings SET value=value||'x'"))
    database.submit_row(INSERT, ("b", "1"), done)
    database.submit(lambda connection: connection.execute("DELETE FROM settings WHERE key='b'"))
    assert await database.fetch("SELECT key, value FROM settings") == [("a", "299x")]
    assert done.calls == [(None, None)]


async def test_many_jobs_share_few_commits(database: Database) -> None:
    done = Calls()
    for number in range(1500):
        database.submit_row(INSERT, (f"k{number}", "v"), done)
    await until(lambda: len(done.calls) == 1500)
    assert database.counters.batches < 100
    assert len(stored(database)) == 1500


async def test_a_failing_job_costs_only_itself(database: Database) -> None:
    outcomes: list[BaseException | None] = []

    def hear(_result: object, error: BaseException | None) -> None:
        outcomes.append(error)

    def fail(_connection: sqlite3.Connection) -> None:
        raise ValueError("ours")

    database.submit_row(INSERT, ("a", "1"), hear)
    database.submit(fail, hear)
    database.submit(lambda connection: connection.execute("INSERT INTO nowhere VALUES (1)"), hear)
    database.submit_row(INSERT, ("b", "2"), hear)
    await until(lambda: len(outcomes) == 4)
    assert [type(one) for one in outcomes] == [type(None), ValueError, sqlite3.OperationalError, type(None)]
    assert stored(database) == {"a": "1", "b": "2"}
    assert database.well


async def test_a_callback_that_fails_costs_only_itself(database: Database) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def fail(_result: object, _error: BaseException | None) -> None:
        raise ValueError("callback")

    done = Calls()
    database.submit_row(INSERT, ("a", "1"), fail)
    database.submit_row(INSERT, ("b", "1"), done)
    await until(lambda: done.calls)
    assert len(reported) == 1


async def test_f15_locked_database_is_told_and_recovers(database: Database) -> None:
    health = Calls()
    database.on_health(health)
    locker = sqlite3.connect(database.path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.raises(GatewayError) as caught:
        await database.execute("INSERT INTO settings VALUES ('a', '1')")
    assert caught.value.code == "gb.route.storage_unavailable"
    assert not database.well
    locker.execute("COMMIT")
    locker.close()
    await database.execute("INSERT INTO settings VALUES ('a', '1')")
    await until(lambda: len(health.calls) == 2)
    assert [well for well, _ in health.calls] == [False, True]
    assert "locked" in health.calls[0][1]
    assert stored(database) == {"a": "1"}


async def test_a_statement_error_passes_through(database: Database) -> None:
    await database.execute("INSERT INTO settings VALUES ('a', '1')")
    with pytest.raises(sqlite3.IntegrityError):
        await database.execute("INSERT INTO settings VALUES ('a', '2')")
    assert database.well


async def test_a_full_queue_refuses(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", queue_limit=2)
    database.start()
    hold = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(_connection: sqlite3.Connection) -> None:
        asyncio.run_coroutine_threadsafe(hold.wait(), loop).result()

    started = Calls()
    database.submit(wait, started)
    await until(lambda: database.queued == 0)
    database.submit_row(INSERT, ("a", "1"))
    database.submit_row(INSERT, ("b", "1"))
    with pytest.raises(GatewayError, match="queue is full"):
        database.submit_row(INSERT, ("c", "1"))
    assert database.counters.refused == 1
    hold.set()
    await database.close()
    assert set(stored(database)) == {"a", "b"}


async def test_close_writes_what_is_queued_and_refuses_the_rest(database: Database) -> None:
    for number in range(50):
        database.submit_row(INSERT, (str(number), "v"))
    await database.close()
    assert len(stored(database)) == 50
    with pytest.raises(GatewayError):
        database.submit_row(INSERT, ("late", "v"))
    await database.close()


async def test_a_cancelled_caller_leaves_the_job_alone(database: Database) -> None:
    task = asyncio.create_task(database.execute("INSERT INTO settings VALUES ('a', '1')"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.fetch("SELECT count(*) FROM settings") == [(1,)]


def test_the_file_is_private(tmp_path: Path) -> None:
    connect(str(tmp_path / "a.db"), busy_timeout_s=0.1).close()
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o600


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match=r"a\.db cannot be used"):
        connect(str(tmp_path / "none" / "a.db"), busy_timeout_s=0.1)


def test_no_database_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text(
        "this is a text, and a long one, that no database engine would take for its own\n" * 9
    )
    with pytest.raises(GatewayError, match="cannot be used"):
        connect(str(tmp_path / "a.db"), busy_timeout_s=0.1)


def test_a_newer_schema_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version=999")
    newer.close()
    with pytest.raises(GatewayError, match=r"written by a newer gb28181gw \(schema 999"):
        connect(str(path), busy_timeout_s=0.1)
    with sqlite3.connect(path) as again:
        assert again.execute("SELECT name FROM sqlite_master").fetchall() == []
    again.close()


def test_migration_is_done_once_and_keeps_data(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    first = connect(path, busy_timeout_s=0.1)
    first.execute("INSERT INTO settings VALUES ('a', '1')")
    assert migrate(first, path) == (schema_version(), schema_version())
    first.close()
    again = connect(path, busy_timeout_s=0.1)
    assert again.execute("SELECT value FROM settings").fetchone() == ("1",)
    again.close()


def test_migrations_are_numbered_without_gaps() -> None:
    assert [number for number, _ in steps()] == list(range(1, schema_version() + 1))


def test_two_processes_may_migrate_at_one_time(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    one = sqlite3.connect(path, isolation_level=None)
    two = sqlite3.connect(path, isolation_level=None)
    assert migrate(one, path) == (0, schema_version())
    assert migrate(two, path)[1] == schema_version()
    one.close()
    two.close()


def test_an_older_file_is_copied_before_it_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.db")
    connection = connect(path, busy_timeout_s=0.1)
    connection.execute("INSERT INTO settings VALUES ('a', '1')")
    more = [*steps(), (schema_version() + 1, "CREATE TABLE later (id TEXT);\nCREATE INDEX i ON later (id);")]
    monkeypatch.setattr("gb28181gw.storage.migrate.steps", lambda: more)
    assert migrate(connection, path) == (len(more) - 1, len(more))
    assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)
    connection.close()
    with sqlite3.connect(f"{path}.v{len(more) - 1}.bak") as copy:
        assert copy.execute("SELECT value FROM settings").fetchone() == ("1",)
        assert copy.execute("SELECT count(*) FROM sqlite_master WHERE name='later'").fetchone() == (0,)
    copy.close()


def test_a_broken_migration_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.db")
    connection = connect(path, busy_timeout_s=0.1)
    before = schema_version()
    more = [*steps(), (before + 1, "CREATE TABLE later (id TEXT);\nINSERT INTO nowhere VALUES (1);")]
    monkeypatch.setattr("gb28181gw.storage.migrate.steps", lambda: more)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path)
    assert connection.execute("PRAGMA user_version").fetchone() == (before,)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name='later'").fetchone() == (0,)
    connection.close()


def test_row_statement_writes_every_width() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    statement = RowStatement("INSERT INTO t (a, b)", 2)
    for count in (0, 1, 7, 8, 9, 40, 128, 301):
        connection.execute("DELETE FROM t")
        statement.run(connection, [(number, str(number)) for number in range(count)])
        assert connection.execute("SELECT a, b FROM t ORDER BY a").fetchall() == [
            (n, str(n)) for n in range(count)
        ]
    connection.close()
