"""Alarms and positions in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gb28181gw.devices.reports import Alarm, Place, ReportFilter
from gb28181gw.storage.database import Database
from gb28181gw.storage.reports import SqliteReportStore

DAY = 86_400.0
NOW = 1_714_523_400.0
ALARM = Alarm(
    device_id="d1",
    channel_id="c1",
    priority=1,
    method=5,
    type="2",
    event_type="",
    time=NOW,
    received_at=NOW + 0.5,
    description="东门 100%",
    longitude=117.3,
    latitude=31.8,
)
PLACE = Place(
    device_id="d1",
    channel_id="c1",
    time=NOW,
    received_at=NOW,
    longitude=117.3,
    latitude=31.8,
    speed=36.0,
    direction=90.0,
    altitude=None,
    height=None,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteReportStore]:
    database = Database(tmp_path / "a.db")
    database.start()
    yield SqliteReportStore(database)
    await database.close()


async def test_alarms_come_back_as_they_were_newest_first(store: SqliteReportStore) -> None:
    store.add_alarm(ALARM)
    bare = replace(ALARM, priority=None, method=None, longitude=None, latitude=None, description="")
    store.add_alarm(bare)
    assert await store.alarms(ReportFilter()) == ([replace(bare, id=2), replace(ALARM, id=1)], 2)
    assert await store.alarms(ReportFilter(limit=1, offset=1)) == ([replace(ALARM, id=1)], 2)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (ReportFilter(device_id="d1"), 3),
        (ReportFilter(device_id="d2"), 1),
        (ReportFilter(channel_id="c2"), 1),
        (ReportFilter(priority=4), 1),
        (ReportFilter(methods=frozenset({2, 5})), 4),
        (ReportFilter(methods=frozenset({2})), 1),
        (ReportFilter(type="6"), 1),
        (ReportFilter(start=NOW + 1), 1),
        (ReportFilter(end=NOW), 3),
        (ReportFilter(text="100%"), 3),
        (ReportFilter(text="1_0"), 0),
        (ReportFilter(text="c2"), 1),
        (ReportFilter(text="' OR 1=1 --"), 0),
    ],
)
async def test_alarms_are_filtered(store: SqliteReportStore, wanted: ReportFilter, count: int) -> None:
    store.add_alarm(ALARM)
    store.add_alarm(replace(ALARM, device_id="d2", priority=4, type="6"))
    store.add_alarm(replace(ALARM, channel_id="c2", method=2))
    store.add_alarm(replace(ALARM, time=NOW + 60, description="West"))
    found, total = await store.alarms(wanted)
    assert (len(found), total) == (count, count)


async def test_positions_and_the_last_of_each_source(store: SqliteReportStore) -> None:
    store.add_place(PLACE)
    store.add_place(replace(PLACE, longitude=118.0, time=NOW + 1))
    store.add_place(replace(PLACE, channel_id="c2"))
    found, total = await store.places(ReportFilter(device_id="d1"))
    assert ([place.id for place in found], total) == ([3, 2, 1], 3)
    assert found[2] == replace(PLACE, id=1)
    latest, total = await store.places(ReportFilter(latest=True))
    assert ([(place.channel_id, place.longitude) for place in latest], total) == (
        [("c2", 117.3), ("c1", 118.0)],
        2,
    )


async def test_what_is_old_is_forgotten(store: SqliteReportStore) -> None:
    for age in (0, 3, 30):
        store.add_alarm(replace(ALARM, received_at=NOW - age * DAY))
        store.add_place(replace(PLACE, received_at=NOW - age * DAY))
    removed = await store.prune(alarms_before=NOW - 10 * DAY, places_before=NOW - DAY)
    assert removed == 3
    assert (await store.alarms(ReportFilter()))[1] == 2
    assert (await store.places(ReportFilter()))[1] == 1


async def test_s14_the_tables_do_not_grow_for_ever(
    store: SqliteReportStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gb28181gw.storage.reports.MAX_ROWS", 2)
    for _ in range(5):
        store.add_alarm(ALARM)
    assert await store.prune(alarms_before=0, places_before=0) == 3
    assert [alarm.id for alarm in (await store.alarms(ReportFilter()))[0]] == [5, 4]
