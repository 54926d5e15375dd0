"""One SQLite connection in one writer thread, with group commit.

Theory of operation. Callers on the event loop hand over *jobs*; nothing on the loop ever waits for the disk. The
thread takes everything that is queued, runs it in one transaction, commits, and reports all outcomes to the loop
with a single `call_soon_threadsafe`. So under load one commit serves hundreds of registrations, and an idle
gateway commits one job within a millisecond. "Done" always means: committed (I9).

There are two kinds of job. An *operation* is a callable that gets the connection. A *row* belongs to a
`RowStatement`; neighbouring rows of one statement become one multi-row statement. That is not only less work for
SQLite: each `execute` gives up and takes back the interpreter's lock, and beside a busy event loop taking it back
costs up to a switch interval (5 ms), so fifty rows in one call are fifty times better than fifty calls.

A failing job must not spoil its neighbours: when a batch fails it is rolled back and its jobs run again one by
one, each in a transaction of its own. Operations must therefore be safe to run twice (the first time without
effect). When the database as a whole does not answer (locked, read-only, disk full) every job of the batch gets
`gb.route.storage_unavailable` after one busy timeout (F-15).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gb28181gw.errors import GatewayError
from gb28181gw.storage.migrate import migrate

T = TypeVar("T")
Value = str | bytes | int | float | None
Operation = Callable[[sqlite3.Connection], object]
Done = Callable[[object, BaseException | None], None]
"""Called on the event loop with (result, None) after the commit, or (None, error)."""

_BATCH_LIMIT = 2_000
"""Jobs in one transaction: bounds how long one commit, and so the oldest job in it, can take."""
_BUSY_S = 0.02
"""A batch that comes so soon after the last one is part of a burst."""
_LINGER_S = 0.003
"""Pause before a batch of a burst is taken, so that more jobs share its commit."""


class RowStatement:
    """An INSERT (with its ON CONFLICT clause) of which many rows may be joined into one execution.

    `head` ends before the word VALUES, `tail` is what follows the rows. The widths are powers of two so that
    the statement cache of the connection holds all variants.
    """

    __slots__ = ("_sql",)

    _WIDTHS = (128, 32, 8, 1)

    def __init__(self, head: str, width: int, tail: str = "") -> None:
        row = "(" + ",".join("?" * width) + ")"
        self._sql = {n: f"{head} VALUES {','.join([row] * n)} {tail}" for n in self._WIDTHS}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Value]]) -> None:
        """Write `rows` in their order with as few executions as possible."""
        at = 0
        left = len(rows)
        for size in self._WIDTHS:
            sql = self._sql[size]
            while left >= size:
                values: list[Value] = []
                for row in rows[at : at + size]:
                    values.extend(row)
                connection.execute(sql, values)
                at += size
                left -= size


@dataclass(slots=True)
class DatabaseCounters:
    """Plain counters for the exporter."""

    jobs: int = 0
    """Jobs handed over."""
    batches: int = 0
    """Transactions committed."""
    failed: int = 0
    """Jobs that ended with an error."""
    refused: int = 0
    """Jobs refused because the queue was full."""
    busy_s: float = 0.0
    """Time the thread spent in transactions."""


@dataclass(slots=True)
class _Job:
    """One thing to do; exactly one of `operation` and `statement` is set."""

    operation: Operation | None
    statement: RowStatement | None
    row: Sequence[Value]
    done: Done | None


@dataclass(slots=True)
class _Outcome:
    done: Done
    result: object = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Health:
    """Whether the last transaction succeeded; told to whoever asked by `Database.on_health`."""

    well: bool = True
    since: float = 0.0
    detail: str = ""
    listeners: list[Callable[[bool, str], None]] = field(default_factory=list)


class Database:
    """Owner of the file, the connection and the thread. `start` and `close` once; the rest from the loop's thread.

    `busy_timeout_s` bounds the wait for another process's lock. A caller waits at most for the batch that runs
    and for its own, so twice that keeps an API answer within one second.
    """

    def __init__(self, path: Path | str, *, busy_timeout_s: float = 0.4, queue_limit: int = 50_000) -> None:
        self.path = str(path)
        self.counters = DatabaseCounters()
        self._busy_timeout_s = busy_timeout_s
        self._queue_limit = queue_limit
        self._queue: deque[_Job] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._health = _Health()

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the file, bring its schema up to date, start the thread. Called on the running event loop.

        Raises GatewayError gb.config.data_dir when the file cannot be used, with a sentence.
        """
        self._loop = asyncio.get_running_loop()
        self._connection = connect(self.path, busy_timeout_s=self._busy_timeout_s)
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Run what is queued, then end the thread and close the file. Idempotent."""
        thread = self._thread
        if thread is None:
            return
        self._closing = True
        self._wake.set()
        await asyncio.to_thread(thread.join)
        self._thread = None
        # The outcomes of the last batch were posted before the thread ended: let them run.
        await asyncio.sleep(0)

    @property
    def queued(self) -> int:
        """Jobs waiting: a gauge."""
        return len(self._queue)

    @property
    def well(self) -> bool:
        """False from the first failed transaction to the next good one."""
        return self._health.well

    def on_health(self, listener: Callable[[bool, str], None]) -> None:
        """`listener(well, detail)` is called on the loop at each change."""
        self._health.listeners.append(listener)

    # -- work ----------------------------------------------------------------------------------------------

    def submit(self, operation: Operation, done: Done | None = None) -> None:
        """Queue `operation(connection)`; `done` hears the outcome after the commit.

        Raises GatewayError gb.route.storage_unavailable when the queue is full or the database is closed.
        """
        self._put(_Job(operation, None, (), done))

    def submit_row(self, statement: RowStatement, row: Sequence[Value], done: Done | None = None) -> None:
        """Queue one row of `statement`; else like `submit`. Order among all jobs is kept."""
        self._put(_Job(None, statement, row, done))

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """`operation(connection)` in the writer thread; returns its result after the commit.

        Raises GatewayError gb.route.storage_unavailable; sqlite3.IntegrityError and errors of the operation
        itself pass through.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: object, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # `submit` is untyped about results

        self.submit(operation, done)
        return await future

    async def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """One statement; returns the number of rows changed, after the commit."""
        return await self.run(lambda connection: connection.execute(sql, values).rowcount)

    async def fetch(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Value, ...]]:
        """All rows of one query, in the writer thread (it sees everything acknowledged before)."""
        return await self.run(lambda connection: connection.execute(sql, values).fetchall())

    def _put(self, job: _Job) -> None:
        if self._thread is None or self._closing:
            raise GatewayError("gb.route.storage_unavailable", "The database is closed.")
        if len(self._queue) >= self._queue_limit:
            self.counters.refused += 1
            raise GatewayError("gb.route.storage_unavailable", "The database's queue is full.")
        self.counters.jobs += 1
        self._queue.append(job)
        if not self._wake.is_set():
            self._wake.set()

    # -- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._connection is not None  # noqa: S101  # set by start() before the thread
        connection = self._connection
        ended = 0.0
        while True:
            self._wake.wait()
            self._wake.clear()
            if time.monotonic() - ended < _BUSY_S:
                time.sleep(_LINGER_S)
            while batch := self._take():
                started = time.monotonic()
                outcomes = self._commit(connection, batch)
                ended = time.monotonic()
                self.counters.busy_s += ended - started
                self._post(outcomes)
            if self._closing and not self._queue:
                connection.close()
                return

    def _take(self) -> list[_Job]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), _BATCH_LIMIT))]

    def _commit(self, connection: sqlite3.Connection, batch: list[_Job]) -> list[_Outcome]:
        try:
            outcomes = _transaction(connection, batch)
        except Exception as error:  # supervision point: a job's error belongs to its caller
            if len(batch) == 1 or _unusable(error):
                return self._failed(batch, error)
        else:
            self._good()
            return outcomes
        return [outcome for job in batch for outcome in self._commit(connection, [job])]

    def _good(self) -> None:
        self.counters.batches += 1
        if not self._health.well:
            self._set_health(well=True, detail="")

    def _failed(self, batch: list[_Job], error: Exception) -> list[_Outcome]:
        self.counters.failed += len(batch)
        told: Exception = error
        if _unusable(error):
            told = GatewayError("gb.route.storage_unavailable", f"The database says: {error}.")
            self._set_health(well=False, detail=str(error))
        return [_Outcome(job.done, None, told) for job in batch if job.done is not None]

    def _set_health(self, *, well: bool, detail: str) -> None:
        changed = self._health.well is not well
        self._health.well, self._health.detail = well, detail
        if changed:
            for listener in self._health.listeners:
                self._to_loop(listener, well, detail)

    def _post(self, outcomes: list[_Outcome]) -> None:
        if outcomes:
            self._to_loop(_deliver, outcomes)

    def _to_loop(self, call: Callable[..., None], *values: object) -> None:
        assert self._loop is not None  # noqa: S101  # set by start()
        try:
            self._loop.call_soon_threadsafe(call, *values)
        except RuntimeError:
            # The loop is closed: the process ends and nobody waits any more.
            return


def connect(path: str, *, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection as every user of the file must open it (also the command line beside a running gateway).

    Creates the file with mode 0600 and brings the schema up to date. Raises GatewayError gb.config.data_dir.
    """
    try:
        if path != ":memory:":
            Path(path).touch(mode=0o600, exist_ok=True)
        connection = sqlite3.connect(
            path,
            timeout=busy_timeout_s,
            isolation_level=None,  # transactions are ours: one per batch
            check_same_thread=False,  # opened by the starter, used by the writer thread alone
            cached_statements=256,
        )
        connection.execute("PRAGMA journal_mode=WAL")
        # With WAL, NORMAL loses nothing when the process dies, only possibly the last commits at power loss.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}")
        migrate(connection, path)
    except (OSError, sqlite3.Error) as error:
        raise GatewayError("gb.config.data_dir", f"The database {path} cannot be used: {error}.") from error
    return connection


def _transaction(connection: sqlite3.Connection, batch: list[_Job]) -> list[_Outcome]:
    """Run the batch in one transaction; raises without effect when any job fails."""
    outcomes: list[_Outcome] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        statement: RowStatement | None = None
        rows: list[Sequence[Value]] = []
        for job in batch:
            if statement is not None and job.statement is not statement:
                statement.run(connection, rows)
                rows = []
            statement = job.statement
            result: object = None
            if statement is not None:
                rows.append(job.row)
            elif job.operation is not None:
                result = job.operation(connection)
            if job.done is not None:
                outcomes.append(_Outcome(job.done, result))
        if statement is not None:
            statement.run(connection, rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _deliver(outcomes: list[_Outcome]) -> None:
    """On the loop: tell each caller. One that fails is reported and does not keep the others from hearing."""
    for outcome in outcomes:
        try:
            outcome.done(outcome.result, outcome.error)
        except Exception as error:  # supervision point: a callback must not cost its neighbours
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a callback of the database failed", "exception": error}
            )


def _unusable(error: Exception) -> bool:
    """True when it is the database that fails and not one statement: trying each job alone would not help."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _UNUSABLE


_UNUSABLE = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    )
)
