"""Plans, alarms, retention and a disk that is full, over a real plane and a real database."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.recording import files
from gb28181gw.recording.models import (
    RecorderState,
    RecordMode,
    Segment,
    WeekSpan,
    is_planned,
    spans_of,
)
from gb28181gw.recording.table import Recording
from tests.support.plane import until
from tests.support.recording_rig import CHANNEL, DEVICE, alarm, plan, put_files, rig


async def test_f17_plans_and_files_are_there_after_a_restart(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.recording.put(plan(keep_days=3))
        await r.state(RecorderState.RECORDING)
        r.feed(5)
        await r.written(2)
    async with rig(tmp_path) as again:
        assert again.recording.get(DEVICE, CHANNEL).plan == plan(keep_days=3)
        found = await again.written(3)  # what was in work was finished
        assert again.recording.total_bytes == sum(path.stat().st_size for path in again.mp4s)
        assert [(again.directory / one.file).stat().st_size for one in found] == [one.size for one in found]


async def test_f17_a_file_that_a_kill_left_open_is_closed_where_it_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.recording.put(plan())
        await r.state(RecorderState.RECORDING)
        r.feed(3)
        (first, *_) = await r.written(1)
        await r.recording.remove(DEVICE, CHANNEL)
        # As a kill leaves them: a row without an end, half a fragment; and a file that never came to a picture.
        await r.store.save_segment(replace_end(first))
        with (r.directory / first.file).open("ab") as file:
            file.write(b"\x00\x00\x10\x00moof half")
        (r.directory / "empty.mp4").write_bytes(b"\x00\x00\x00\x18ftyp")
        await r.store.save_segment(replace_end(first, id="f" * 32, file="empty.mp4"))
    async with rig(tmp_path) as again:
        found = {one.id: one for one in await again.segments()}
        assert "f" * 32 not in found
        assert not (again.directory / "empty.mp4").exists()
        assert (found[first.id].end, found[first.id].size) == (first.end, first.size)
        assert (again.directory / first.file).stat().st_size == first.size


def replace_end(segment: Segment, **changes: Any) -> Segment:
    from dataclasses import replace

    return replace(segment, end=None, size=0, **changes)


async def test_a_weekly_plan_begins_and_ends_the_recording(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        week = (WeekSpan(day=0, begin_s=8 * 3600, end_s=9 * 3600),)
        await r.recording.put(plan(RecordMode.PLAN, week=week))
        await r.state(RecorderState.IDLE)
        assert r.streams.asked == 0
        r.clock.ahead += 20  # eight o'clock
        r.recording.device_online(DEVICE)
        await r.state(RecorderState.RECORDING)
        r.clock.ahead += 3600
        r.recording.device_online(DEVICE)
        await r.state(RecorderState.IDLE)
        assert r.streams.held == 0


async def test_f16_what_becomes_evidence_while_files_are_chosen_for_removal_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path, max_gb=1e-9) as r:
        made = await put_files(r, 3, 1000)
        first = datetime.fromtimestamp(made[0].start, UTC)
        chosen, locked = r.store.oldest_local, asyncio.Event()

        async def choose(limit: int, *, uploaded: bool) -> list[Segment]:
            found = await chosen(limit, uploaded=uploaded)
            if found and not locked.is_set():
                locking.append(asyncio.create_task(lock()))
                await asyncio.sleep(0)  # it has begun
            return found

        async def lock() -> int:
            locked.set()
            return await r.recording.lock(DEVICE, CHANNEL, first, first + timedelta(hours=1), locked=True)

        locking: list[asyncio.Task[int]] = []
        monkeypatch.setattr(r.store, "oldest_local", choose)
        await r.recording.look()
        assert await locking[0] == len(await r.segments()) == len(r.mp4s)  # each file that it counts is there


def test_is_planned_knows_days_and_bounds() -> None:
    week = (WeekSpan(day=6, begin_s=3600, end_s=86_400),)
    assert [is_planned(week, 6, second) for second in (3599, 3600, 86_399)] == [False, True, True]
    assert not is_planned(week, 0, 3600)


async def test_an_alarm_is_recorded_with_what_came_before_it(tmp_path: Path) -> None:
    async with rig(tmp_path, segment_s=60.0) as r:
        await r.recording.put(plan(RecordMode.EVENT, post_s=5))
        await until(lambda: r.streams.held == 1, what="the stream to be held")
        assert r.recording.get(DEVICE, CHANNEL).state is RecorderState.IDLE
        for frame in r._next(20):  # not a second: one group of pictures
            r.plane.push("s", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=frame.key)
        r.recording.on_alarm(alarm("34020000001340000009"))  # an alarm input of the device
        await r.state(RecorderState.RECORDING)
        r.feed(2)
        r.clock.ahead += 6
        r.recording.device_online(DEVICE)
        await r.state(RecorderState.IDLE)
        (found,) = await r.written(1)
        assert found.trigger == "event"
        assert found.end is not None
        assert found.end - found.start == pytest.approx(2.8, abs=0.1)
        assert r.streams.held == 1


async def test_a_stream_that_does_not_come_is_asked_for_again_when_the_device_is_online(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        r.streams.error = GatewayError("gb.route.offline")
        await r.recording.put(plan())
        await r.state(RecorderState.RETRYING)
        r.streams.error = None
        r.recording.device_online(DEVICE)
        await r.state(RecorderState.RECORDING)
        assert r.recording.counters.interruptions == 1


async def test_f16_a_full_disk_stops_the_recording_and_nothing_else_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [400_000]

    def write(descriptor: int, data: bytes) -> None:
        if len(data) > room[0]:
            real(descriptor, data[: room[0]])
            room[0] = 0
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(data)
        real(descriptor, data)

    real = files.write_all
    monkeypatch.setattr(files, "write_all", write)
    monkeypatch.setattr("gb28181gw.recording.table.write_all", write)
    async with rig(tmp_path) as r:
        await r.recording.put(plan())
        await r.state(RecorderState.RECORDING)
        r.feed(7)
        await r.state(RecorderState.DISK_FULL)
        assert r.recording.disk_full == "No space left on device"
        assert r.streams.held == 0
        r.feed(1)  # the stream goes on for others
        before = await r.written(1)
        for segment in before:  # every file that there is ends with a whole fragment
            assert (r.directory / segment.file).stat().st_size == segment.size
        await r.recording.look()
        assert r.recording.disk_full
        room[0] = 1 << 40
        await r.recording.look()
        assert not r.recording.disk_full
        await r.state(RecorderState.RECORDING)
        r.feed(1)
        assert r.recording.counters.disk_errors == 1
    names = []
    while (event := r.events._take()) is not None:
        names.append(event.name)
    assert names.count("recording.disk_full") == 1
    assert names.count("recording.disk_resumed") == 1


async def test_f17_a_file_is_on_the_disk_before_the_index_says_that_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, []
    reached, go_on = threading.Event(), threading.Event()

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        reached.set()
        assert go_on.wait(10)
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    async with rig(tmp_path) as r:
        await r.recording.put(plan())
        await r.state(RecorderState.RECORDING)
        r.feed(3)
        await until(reached.is_set, what="the disk to be waited for")
        assert not [one for one in await r.segments() if one.end is not None]
        go_on.set()
        (first, *_) = await r.written(1)
        path = (r.directory / first.file).resolve()
        # The first of its day: the folders that were made for it as well.
        assert synced[:4] == [path, path.parent, path.parent.parent, path.parent.parent.parent]


async def test_f16_a_disk_that_fails_to_keep_a_file_stops_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with rig(tmp_path) as r:
        await r.recording.put(plan())
        await r.state(RecorderState.RECORDING)
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", fsync)
            r.feed(3)
            await r.state(RecorderState.DISK_FULL)
        assert r.recording.disk_full == "Input/output error"
        assert len(await r.written(1)) == 1
        await r.recording.look()
        await r.state(RecorderState.RECORDING)


async def test_f16_too_much_goes_oldest_first_and_never_what_is_locked(tmp_path: Path) -> None:
    async with rig(tmp_path, max_gb=0.000_005) as r:
        made = await put_files(r, 10, 1000)
        day = timedelta(days=1)
        now = datetime.fromtimestamp(r.clock.wall(), UTC)
        first = datetime.fromtimestamp(made[0].start + 1, UTC)
        assert await r.recording.lock(DEVICE, CHANNEL, first, first + timedelta(seconds=60), locked=True) == 2
        await r.recording.look()
        kept = [one.id for one in await r.segments()]
        assert kept == [one.id for one in (*made[:2], *made[7:])]
        assert r.recording.total_bytes == 5000
        assert len(list((r.directory / "c/d").iterdir())) == 5
        assert await r.recording.lock(DEVICE, CHANNEL, now - day, now, locked=True) == 5
        r.recording.total_bytes += 10_000
        await r.recording.look()
        assert len(await r.segments()) == 5


async def test_what_is_too_old_goes_by_the_plan_of_its_channel(tmp_path: Path) -> None:
    async with rig(tmp_path, keep_days=30) as r:
        await put_files(r, 3, 100, age_days=0.3)
        await r.recording.sweep()
        assert len(await r.segments()) == 3
        r.clock.ahead += 31 * 86_400
        await r.recording.put(plan(RecordMode.EVENT, keep_days=60, pre_roll=False))
        await r.recording.sweep()
        assert await r.store.total_bytes() == 300
        await r.recording.remove(DEVICE, CHANNEL)
        await r.recording.sweep()
        assert await r.store.total_bytes() == 0
        assert not (r.directory / "c").exists()


async def test_f16_when_nothing_may_be_deleted_a_full_disk_stops_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path, min_free_mb=100) as r:
        made = await put_files(r, 4, 1000)
        first = datetime.fromtimestamp(made[0].start, UTC)
        await r.recording.lock(DEVICE, CHANNEL, first, first + timedelta(seconds=90), locked=True)
        await r.recording.put(plan())
        await r.state(RecorderState.RECORDING)
        monkeypatch.setattr(Recording, "_free", lambda self: 1000)
        await r.recording.look()
        await r.state(RecorderState.DISK_FULL)
        assert {one.id for one in await r.segments()} >= {made[0].id, made[1].id}
        assert not {one.id for one in await r.segments()} & {made[2].id, made[3].id}
        monkeypatch.undo()
        await r.recording.look()
        await r.state(RecorderState.RECORDING)


async def test_f15_a_database_that_is_away_loses_no_file(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.recording.put(plan())
        await r.state(RecorderState.RECORDING)
        save = r.store.save_segment

        async def away(segment: Segment) -> None:
            raise GatewayError("gb.route.storage_unavailable")

        r.store.save_segment = away  # type: ignore[method-assign]
        r.feed(5)
        await until(lambda: len(r.mp4s) >= 3, what="three files")
        assert await r.segments() == []
        r.store.save_segment = save  # type: ignore[method-assign]
        await r.recording.look()
        assert len(await r.written(2)) >= 2


async def test_spans_that_make_no_sense_and_times_without_a_recording(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        now = datetime.now(UTC)
        for start, end in ((now, now), (now, now - timedelta(1)), (now, now + timedelta(40))):
            with pytest.raises(GatewayError) as caught:
                await r.recording.spans(DEVICE, CHANNEL, start, end)
            assert caught.value.code == "gb.route.invalid"
        for ask in (r.recording.play, r.recording.file):
            with pytest.raises(GatewayError) as caught:
                await ask(DEVICE, CHANNEL, now, now + timedelta(seconds=1))
            assert caught.value.code == "gb.media.no_recording"


def test_spans_join_what_follows_and_show_gaps() -> None:
    def at(number: int, start: float, end: float | None, form: str = "f") -> Segment:
        return Segment(
            id=str(number), device_id=DEVICE, channel_id=CHANNEL, start=start, end=end, size=10, file="", form=form,
            trigger="plan",
        )  # fmt: skip

    rows = [at(1, 0, 60), at(2, 60.2, 120), at(3, 130, 190), at(4, 190, 200, "g"), at(5, 200, None, "g")]
    found = spans_of(rows, 230)
    assert [(one.start, one.end, one.segments) for one in found] == [
        (0, 120, 2),
        (130, 190, 1),
        (190, 230, 2),
    ]
