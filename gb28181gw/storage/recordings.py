"""`recording.models.RecordingStore` and `UploadStore` on SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

from gb28181gw.recording.models import RecordingPlan, RecordMode, Segment, WeekSpan
from gb28181gw.storage.database import Database, Value

_COLUMNS: Final = (
    'id, device_id, channel_id, start, "end", size, file, form, cause, locked, local, object, upload_due, '
    "upload_name"
)
_SAVE: Final = (
    f"INSERT INTO recording_segments ({_COLUMNS}) VALUES ({', '.join('?' * 14)}) "  # noqa: S608 - our columns
    'ON CONFLICT (id) DO UPDATE SET start=excluded.start, "end"=excluded."end", size=excluded.size, '
    "upload_due=excluded.upload_due"
)
_SLACK_MS: Final = 3_600_000
"""No segment is longer: rows that began earlier need not be looked at."""


class SqliteRecordingStore:
    """A plan is JSON: nobody asks for its parts. A segment is a row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_plans(self) -> list[RecordingPlan]:
        rows = await self._database.fetch("SELECT device_id, channel_id, plan FROM recording_plans")
        return [
            _plan(str(device_id), str(channel_id), json.loads(str(text)))
            for device_id, channel_id, text in rows
        ]

    async def save_plan(self, plan: RecordingPlan) -> None:
        text = json.dumps(
            {
                "mode": plan.mode.value,
                "week": [[span.day, span.begin_s, span.end_s] for span in plan.week],
                "post_s": plan.post_s,
                "pre_roll": plan.pre_roll,
                "keep_days": plan.keep_days,
            }
        )
        await self._database.execute(
            "INSERT INTO recording_plans (device_id, channel_id, plan) VALUES (?, ?, ?) "
            "ON CONFLICT (device_id, channel_id) DO UPDATE SET plan=excluded.plan",
            (plan.device_id, plan.channel_id, text),
        )

    async def remove_plan(self, device_id: str, channel_id: str) -> None:
        await self._database.execute(
            "DELETE FROM recording_plans WHERE device_id=? AND channel_id=?", (device_id, channel_id)
        )

    async def save_segment(self, segment: Segment) -> None:
        await self._database.execute(
            _SAVE,
            (
                segment.id,
                segment.device_id,
                segment.channel_id,
                round(segment.start * 1000),
                round(segment.end * 1000) if segment.end is not None else None,
                segment.size,
                segment.file,
                segment.form,
                segment.trigger,
                int(segment.locked),
                int(segment.local),
                segment.object,
                round(segment.upload_due * 1000) if segment.upload_due is not None else None,
                segment.upload_name,
            ),
        )

    async def remove_segments(self, ids: Iterable[str]) -> None:
        gone = [(own_id,) for own_id in ids]

        def remove(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR IGNORE INTO recording_objects_to_remove "
                "SELECT coalesce(nullif(object, ''), upload_name) FROM recording_segments "
                "WHERE id=? AND (object<>'' OR upload_name<>'')",
                gone,
            )
            connection.executemany("DELETE FROM recording_segments WHERE id=?", gone)

        await self._database.run(remove)

    async def open_segments(self) -> list[Segment]:
        return await self._select('WHERE "end" IS NULL', ())

    async def segments(self, device_id: str, channel_id: str, start: float, end: float) -> list[Segment]:
        begin, until = round(start * 1000), round(end * 1000)
        return await self._select(
            'WHERE device_id=? AND channel_id=? AND start>? AND start<? AND ("end" IS NULL OR "end">?) ORDER BY start',
            (device_id, channel_id, begin - _SLACK_MS, until, begin),
        )

    async def lock(self, device_id: str, channel_id: str, start: float, end: float, *, locked: bool) -> int:
        begin, until = round(start * 1000), round(end * 1000)
        return await self._database.execute(
            "UPDATE recording_segments SET locked=? WHERE device_id=? AND channel_id=? AND start>? AND start<? "
            'AND ("end" IS NULL OR "end">?)',
            (int(locked), device_id, channel_id, begin - _SLACK_MS, until, begin),
        )

    async def expired(self, device_id: str, channel_id: str, before: float, limit: int) -> list[Segment]:
        mine = "AND device_id=? AND channel_id=? " if device_id else ""
        values: tuple[Value, ...] = (device_id, channel_id) if device_id else ()
        return await self._select(
            f'WHERE locked=0 AND "end" IS NOT NULL AND "end"<? {mine}ORDER BY "end" LIMIT ?',
            (round(before * 1000), *values, limit),
        )

    async def oldest_local(self, limit: int, *, uploaded: bool) -> list[Segment]:
        return await self._select(
            f"WHERE local=1 AND locked=0 AND \"end\" IS NOT NULL AND object{'<>' if uploaded else '='}'' "
            'ORDER BY "end" LIMIT ?',
            (limit,),
        )

    async def local_removed(self, ids: Iterable[str]) -> None:
        gone = [(own_id,) for own_id in ids]

        def remove(connection: sqlite3.Connection) -> None:
            connection.executemany("UPDATE recording_segments SET local=0 WHERE id=? AND object<>''", gone)

        await self._database.run(remove)

    async def total_bytes(self) -> int:
        rows = await self._database.fetch(
            "SELECT coalesce(sum(size), 0) FROM recording_segments WHERE local=1"
        )
        return int(rows[0][0] or 0)

    async def recorded_channels(self) -> list[tuple[str, str]]:
        rows = await self._database.fetch("SELECT DISTINCT device_id, channel_id FROM recording_segments")
        return [(str(device_id), str(channel_id)) for device_id, channel_id in rows]

    async def uploads_due(self, now: float, limit: int) -> list[Segment]:
        return await self._select(
            "WHERE upload_due IS NOT NULL AND upload_due<=? ORDER BY upload_due LIMIT ?",
            (round(now * 1000), limit),
        )

    async def uploads_waiting(self) -> int:
        rows = await self._database.fetch(
            "SELECT count(*) FROM recording_segments WHERE upload_due IS NOT NULL"
        )
        return int(rows[0][0] or 0)

    async def queue_uploads(self, due: float) -> int:
        return await self._database.execute(
            "UPDATE recording_segments SET upload_due=? WHERE \"end\" IS NOT NULL AND local=1 AND object='' "
            "AND upload_due IS NULL",
            (round(due * 1000),),
        )

    async def name_upload(self, segment_id: str, name: str) -> None:
        await self._database.execute(
            "UPDATE recording_segments SET upload_name=? WHERE id=?", (name, segment_id)
        )

    async def put_off_upload(self, segment_id: str, due: float | None) -> None:
        await self._database.execute(
            "UPDATE recording_segments SET upload_due=? WHERE id=?",
            (round(due * 1000) if due is not None else None, segment_id),
        )

    async def uploaded(self, segment_id: str, name: str) -> bool:
        def told(connection: sqlite3.Connection) -> bool:
            done = connection.execute(
                "UPDATE recording_segments SET object=?, upload_due=NULL WHERE id=?", (name, segment_id)
            )
            if done.rowcount == 0:
                connection.execute("INSERT OR IGNORE INTO recording_objects_to_remove VALUES (?)", (name,))
            return done.rowcount > 0

        return await self._database.run(told)

    async def objects_to_remove(self, limit: int) -> list[str]:
        rows = await self._database.fetch("SELECT name FROM recording_objects_to_remove LIMIT ?", (limit,))
        return [str(name) for (name,) in rows]

    async def objects_removed(self, names: Iterable[str]) -> None:
        for name in names:
            await self._database.execute("DELETE FROM recording_objects_to_remove WHERE name=?", (name,))

    async def _select(self, where: str, values: tuple[Value, ...]) -> list[Segment]:
        rows = await self._database.fetch(f"SELECT {_COLUMNS} FROM recording_segments {where}", values)  # noqa: S608
        return [_segment(row) for row in rows]


def _plan(device_id: str, channel_id: str, found: dict[str, object]) -> RecordingPlan:
    week, post_s, keep_days = found["week"], found["post_s"], found["keep_days"]
    return RecordingPlan(
        device_id=device_id,
        channel_id=channel_id,
        mode=RecordMode(str(found["mode"])),
        week=tuple(WeekSpan(day=day, begin_s=begin, end_s=end) for day, begin, end in week)
        if isinstance(week, list)
        else (),
        post_s=post_s if isinstance(post_s, int) else 30,
        pre_roll=bool(found["pre_roll"]),
        keep_days=keep_days if isinstance(keep_days, int) else None,
    )


def _segment(row: tuple[Value, ...]) -> Segment:
    own_id, device_id, channel_id, start, end, size, file, form, cause, locked, local, name, due, upload = row
    return Segment(
        id=str(own_id),
        device_id=str(device_id),
        channel_id=str(channel_id),
        start=int(start or 0) / 1000,
        end=int(end) / 1000 if end is not None else None,
        size=int(size or 0),
        file=str(file),
        form=str(form),
        trigger=str(cause),
        locked=bool(locked),
        local=bool(local),
        object=str(name),
        upload_due=int(due) / 1000 if due is not None else None,
        upload_name=str(upload),
    )
