"""`devices.reports.ReportStore` on SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gb28181gw.devices.reports import Alarm, Place, PtzPlace, ReportFilter
from gb28181gw.errors import GatewayError
from gb28181gw.storage.database import Database, RowStatement, Value

MAX_ROWS: Final = 1_000_000
"""Of each table, whatever their age: the disk of a gateway is finite."""

_ALARM = (
    "device_id",
    "channel_id",
    "priority",
    "method",
    "type",
    "event_type",
    "time",
    "received_at",
    "description",
    "longitude",
    "latitude",
)
_PLACE = (
    "device_id",
    "channel_id",
    "time",
    "received_at",
    "longitude",
    "latitude",
    "speed",
    "direction",
    "altitude",
    "height",
)
_PTZ = ("pan", "tilt", "zoom", "horizontal_angle", "vertical_angle", "max_distance")
_ADD_ALARM = RowStatement(f"INSERT INTO alarms ({', '.join(_ALARM)})", len(_ALARM))
_ADD_PLACE = RowStatement(f"INSERT INTO positions ({', '.join(_PLACE)})", len(_PLACE))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


_SAVE_PTZ = RowStatement(
    f"INSERT INTO ptz_positions (device_id, channel_id, received_at, {', '.join(_PTZ)})",
    3 + len(_PTZ),
    f"ON CONFLICT (device_id, channel_id) DO UPDATE SET received_at=excluded.received_at, "
    f"{', '.join(f'{name}=excluded.{name}' for name in _PTZ)}",
)


class SqliteReportStore:
    """Rows are written behind, many in one transaction; a full queue loses them and is counted by the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_alarm(self, alarm: Alarm) -> None:
        self._add(
            _ADD_ALARM,
            (
                alarm.device_id,
                alarm.channel_id,
                alarm.priority,
                alarm.method,
                alarm.type,
                alarm.event_type,
                _milliseconds(alarm.time),
                _milliseconds(alarm.received_at),
                alarm.description,
                alarm.longitude,
                alarm.latitude,
            ),
        )

    def add_place(self, place: Place) -> None:
        self._add(
            _ADD_PLACE,
            (
                place.device_id,
                place.channel_id,
                _milliseconds(place.time),
                _milliseconds(place.received_at),
                place.longitude,
                place.latitude,
                place.speed,
                place.direction,
                place.altitude,
                place.height,
            ),
        )

    def save_ptz_place(self, place: PtzPlace) -> None:
        values = [getattr(place, name) for name in _PTZ]
        self._add(_SAVE_PTZ, (place.device_id, place.channel_id, _milliseconds(place.received_at), *values))

    async def ptz_place(self, device_id: str, channel_id: str) -> PtzPlace | None:
        rows = await self._database.fetch(
            f"SELECT received_at, {', '.join(_PTZ)} FROM ptz_positions "  # noqa: S608  # names of this module
            "WHERE device_id=? AND channel_id=?",
            (device_id, channel_id),
        )
        if not rows:
            return None
        received, *values = rows[0]
        return PtzPlace(
            device_id=device_id,
            channel_id=channel_id,
            received_at=_number(received) / 1000,
            **dict(zip(_PTZ, map(_maybe, values), strict=True)),
        )

    def _add(self, statement: RowStatement, row: Sequence[Value]) -> None:
        try:
            self._database.submit_row(statement, row)
        except GatewayError:
            self._database.counters.failed += 1

    async def alarms(self, wanted: ReportFilter) -> tuple[list[Alarm], int]:
        terms, values = _common(wanted)
        if wanted.priority:
            terms.append("priority = ?")
            values.append(wanted.priority)
        if wanted.methods:
            terms.append(f"method IN ({', '.join('?' * len(wanted.methods))})")
            values += sorted(wanted.methods)
        if wanted.type:
            terms.append("type = ?")
            values.append(wanted.type)
        if wanted.text:
            terms.append("(device_id || ' ' || channel_id || ' ' || description) LIKE ? ESCAPE '\\'")
            values.append(_like(wanted.text))
        rows, total = await self._page("alarms", _ALARM, terms, values, wanted)
        return [_alarm(row) for row in rows], total

    async def places(self, wanted: ReportFilter) -> tuple[list[Place], int]:
        terms, values = _common(wanted)
        if wanted.text:
            terms.append("(device_id || ' ' || channel_id) LIKE ? ESCAPE '\\'")
            values.append(_like(wanted.text))
        if wanted.latest:
            terms.append("id IN (SELECT max(id) FROM positions GROUP BY device_id, channel_id)")
        rows, total = await self._page("positions", _PLACE, terms, values, wanted)
        return [_place(row) for row in rows], total

    async def _page(
        self,
        table: str,
        columns: tuple[str, ...],
        terms: list[str],
        values: list[Value],
        wanted: ReportFilter,
    ) -> tuple[list[tuple[Value, ...]], int]:
        where = f" WHERE {' AND '.join(terms)}" if terms else ""
        # Names are of this module, everything from outside is a parameter.
        count = f"SELECT count(*) FROM {table}{where}"  # noqa: S608
        page = f"SELECT id, {', '.join(columns)} FROM {table}{where} ORDER BY id DESC LIMIT ? OFFSET ?"  # noqa: S608
        total = (await self._database.fetch(count, values))[0][0]
        rows = await self._database.fetch(page, [*values, wanted.limit, wanted.offset])
        return rows, int(total or 0)

    async def prune(self, *, alarms_before: float, places_before: float) -> int:
        removed = 0
        for table, before in (("alarms", alarms_before), ("positions", places_before)):
            removed += await self._database.execute(
                f"DELETE FROM {table} WHERE received_at < ? "  # noqa: S608
                f"OR id <= (SELECT max(id) FROM {table}) - ?",
                (_milliseconds(before), MAX_ROWS),
            )
        return removed


def _common(wanted: ReportFilter) -> tuple[list[str], list[Value]]:
    terms: list[str] = []
    values: list[Value] = []
    if wanted.device_id:
        terms.append("device_id = ?")
        values.append(wanted.device_id)
    if wanted.channel_id:
        terms.append("channel_id = ?")
        values.append(wanted.channel_id)
    if wanted.start is not None:
        terms.append("time >= ?")
        values.append(_milliseconds(wanted.start))
    if wanted.end is not None:
        terms.append("time <= ?")
        values.append(_milliseconds(wanted.end))
    return terms, values


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _maybe(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: Value) -> int | None:
    return value if isinstance(value, int) else None


def _alarm(row: tuple[Value, ...]) -> Alarm:
    own_id, device_id, channel_id, priority, method, type_, event_type, when, received, description, *at = row
    return Alarm(
        id=_whole(own_id) or 0,
        device_id=str(device_id),
        channel_id=str(channel_id),
        priority=_whole(priority),
        method=_whole(method),
        type=str(type_),
        event_type=str(event_type),
        time=_number(when) / 1000,
        received_at=_number(received) / 1000,
        description=str(description),
        longitude=_maybe(at[0]),
        latitude=_maybe(at[1]),
    )


def _place(row: tuple[Value, ...]) -> Place:
    own_id, device_id, channel_id, when, received, longitude, latitude, *rest = row
    speed, direction, altitude, height = map(_maybe, rest)
    return Place(
        id=_whole(own_id) or 0,
        device_id=str(device_id),
        channel_id=str(channel_id),
        time=_number(when) / 1000,
        received_at=_number(received) / 1000,
        longitude=_number(longitude),
        latitude=_number(latitude),
        speed=speed,
        direction=direction,
        altitude=altitude,
        height=height,
    )
