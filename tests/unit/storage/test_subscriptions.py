"""Subscriptions, PTZ positions and pictures on SQLite: what is written is read, and what is removed is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gb28181gw.devices.reports import PtzPlace
from gb28181gw.devices.snapshots import Picture, PictureFilter
from gb28181gw.devices.subscriptions import SubscriptionRecord
from gb28181gw.errors import GatewayError
from gb28181gw.storage.database import Database
from gb28181gw.storage.reports import SqliteReportStore
from gb28181gw.storage.snapshots import SnapshotFiles
from gb28181gw.storage.sqlite import SqliteDeviceStore
from gb28181gw.storage.subscriptions import SqliteSubscriptionStore

NVR = "34020000001180000001"
RECORD = SubscriptionRecord(
    device_id=NVR,
    kind="catalog",
    target=NVR,
    event="Catalog;id=1",
    dialog={"dialog": {"call_id": "x", "route_set": []}, "event": "Catalog;id=1", "granted_s": 600},
    until=1_714_523_400.25,
)
PLACE = PtzPlace(
    device_id=NVR, channel_id="c", received_at=1_714_523_400.5, pan=120.5, tilt=-10.0, zoom=2.0,
    horizontal_angle=None, vertical_angle=30.0, max_distance=None,
)  # fmt: skip
PICTURE = Picture(
    id="a" * 32, session_id="s", device_id=NVR, channel_id="c", received_at=1_714_523_400.5,
    content_type="image/png", size=3, name="gate.png",
)  # fmt: skip


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "a.db")
    made.start()
    yield made
    await made.close()


async def test_f17_a_subscription_comes_back_as_it_was(database: Database) -> None:
    store = SqliteSubscriptionStore(database)
    unknown = SubscriptionRecord(device_id=NVR, kind="ptz", target="c", until=2e9, note="V1")
    await store.save_subscription(RECORD)
    await store.save_subscription(unknown)
    later = replace(RECORD, until=RECORD.until + 60, event="presence")
    await store.save_subscription(later)
    assert sorted(await store.load_subscriptions(), key=lambda one: one.kind) == [later, unknown]
    await store.remove_subscription(NVR, "catalog", NVR)
    assert await store.load_subscriptions() == [unknown]


async def test_of_a_camera_the_last_ptz_position_is_kept(database: Database) -> None:
    store = SqliteReportStore(database)
    assert await store.ptz_place(NVR, "c") is None
    store.save_ptz_place(PLACE)
    store.save_ptz_place(replace(PLACE, pan=1.0, received_at=PLACE.received_at + 1))
    assert await store.ptz_place(NVR, "c") == replace(PLACE, pan=1.0, received_at=PLACE.received_at + 1)


async def test_removing_a_device_takes_its_subscriptions_along(database: Database) -> None:
    subscriptions, reports = SqliteSubscriptionStore(database), SqliteReportStore(database)
    await subscriptions.save_subscription(RECORD)
    reports.save_ptz_place(PLACE)
    await SqliteDeviceStore(database).remove_device(NVR)
    assert await subscriptions.load_subscriptions() == []
    assert await reports.ptz_place(NVR, "c") is None


async def test_a_picture_is_a_private_file_and_a_row(database: Database, tmp_path: Path) -> None:
    store = SnapshotFiles(database, tmp_path / "pictures")
    await store.save_picture(PICTURE, b"png")
    assert await store.picture(PICTURE.id) == (PICTURE, b"png")
    assert await store.pictures(
        PictureFilter(session_id="s", start=1_714_523_400.0, end=1_714_523_401.0)
    ) == (
        [PICTURE],
        1,
    )
    (file,) = (tmp_path / "pictures").iterdir()
    assert file.name == f"{PICTURE.id}.png" and file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    assert await store.picture(PICTURE.id) is None
    assert await store.picture("b" * 32) is None


async def test_what_a_kill_left_is_removed_when_it_is_old(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotFiles(database, tmp_path)
    await store.save_picture(PICTURE, b"png")
    orphan = tmp_path / "pictures.jpg"
    orphan.write_bytes(b"x")
    assert await store.prune_pictures(before=0.0, max_bytes=1_000) == 0
    assert orphan.exists()
    monkeypatch.setattr("gb28181gw.storage.snapshots._ORPHAN_S", -1.0)
    only = SnapshotFiles(database, tmp_path / "own")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "left.part").write_bytes(b"x")
    assert await only.prune_pictures(before=0.0, max_bytes=1_000) == 0
    assert not list((tmp_path / "own").iterdir())


async def test_f16_a_disk_that_cannot_be_written_is_told(database: Database, tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file where the directory should be")
    store = SnapshotFiles(database, tmp_path / "pictures")
    with pytest.raises(GatewayError) as caught:
        await store.save_picture(PICTURE, b"png")
    assert caught.value.code == "gb.route.storage_unavailable"
    assert (await store.pictures(PictureFilter()))[1] == 0
