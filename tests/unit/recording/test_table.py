"""Plans, alarms, retention and a disk that is full, over a real plane and a real database."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.devices.reports import Alarm
from gb28181gw.errors import GatewayError
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.tracks import Frame
from gb28181gw.observability.events import EventBus
from gb28181gw.recording import files
from gb28181gw.recording.models import (
    RecorderState,
    RecordingPlan,
    RecordMode,
    Segment,
    WeekSpan,
    is_planned,
    spans_of,
)
from gb28181gw.recording.table import Recording, RecordingLimits
from gb28181gw.sessions.models import Consumer
from gb28181gw.storage.database import Database
from gb28181gw.storage.recordings import SqliteRecordingStore
from tests.support.media import video_clip
from tests.support.plane import until

DEVICE, CHANNEL = "34020000001180000001", "34020000001320000001"
MONDAY = datetime(2026, 11, 23, 7, 59, 50, tzinfo=UTC).timestamp()


class Clock:
    """Wall time that tests move; monotonic time goes with the loop, as frames do."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._wall = MONDAY - asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead

    def wall(self) -> float:
        return self._wall + self.monotonic()


class Hold:
    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.stream_id = "s"

    def release(self) -> None:
        self._streams.held -= 1


class Streams:
    def __init__(self) -> None:
        self.held = 0
        self.asked = 0
        self.error: GatewayError | None = None

    async def lease_live(self, device_id: str, channel_id: str, consumer: Consumer) -> Hold:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.held += 1
        return Hold(self)


class NoAudio:
    def use(self, stream_id: str) -> None: ...

    def leave(self, stream_id: str) -> None: ...


class Rig:
    def __init__(self, directory: Path, **limits: Any) -> None:
        self.plane = ReferencePlane()
        self.plane.create_stream("s", lambda event: None)
        self.clock = Clock()
        self.streams = Streams()
        self.bus = EventBus()
        self.events = self.bus.subscribe()
        self.directory = directory / "files"
        self.database = Database(directory / "db.sqlite")
        self.database.start()
        self.store = SqliteRecordingStore(self.database)
        self.recording = Recording(
            streams=self.streams,
            engine=self.plane,
            audio=NoAudio(),
            store=self.store,
            bus=self.bus,
            clock=self.clock,
            zone=UTC,
            directory=self.directory,
            limits=RecordingLimits(**{"segment_s": 2.0, "min_free_mb": 0.001, **limits}),
        )
        self.clip = list(video_clip(frames=250))
        self.at = 0

    def feed(self, seconds: int) -> None:
        """So much of the stream at once."""
        for frame in self._next(25 * seconds):
            self.plane.push("s", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=frame.key)

    def _next(self, number: int) -> list[Frame]:
        found = self.clip[self.at : self.at + number]
        self.at += number
        return found

    async def state(self, wanted: RecorderState) -> None:
        await until(
            lambda: self.recording.get(DEVICE, CHANNEL).state is wanted, what=f"the recorder to be {wanted}"
        )

    async def segments(self) -> list[Segment]:
        hour = timedelta(hours=12)
        now = datetime.fromtimestamp(self.clock.wall(), UTC)
        return await self.recording.segments(DEVICE, CHANNEL, now - hour, now + hour)

    async def written(self, number: int) -> list[Segment]:
        """When so many closed files are in the index."""
        async with asyncio.timeout(10):
            while len(found := [one for one in await self.segments() if one.end is not None]) < number:
                await asyncio.sleep(0.01)
        return found

    @property
    def mp4s(self) -> list[Path]:
        return sorted(self.directory.glob("*/*/*.mp4"))


@asynccontextmanager
async def rig(directory: Path, **limits: Any) -> AsyncIterator[Rig]:
    made = Rig(directory, **limits)
    await made.recording.start()
    try:
        yield made
    finally:
        await made.recording.close()
        await made.plane.close()
        await made.database.close()


def plan(mode: RecordMode = RecordMode.CONTINUOUS, **fields: Any) -> RecordingPlan:
    return RecordingPlan(device_id=DEVICE, channel_id=CHANNEL, mode=mode, **fields)


def alarm(channel_id: str = CHANNEL) -> Alarm:
    return Alarm(
        device_id=DEVICE, channel_id=channel_id, priority=1, method=5, type="6", event_type="", time=0.0,
        received_at=0.0, description="", longitude=None, latitude=None,
    )  # fmt: skip


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


async def put_files(r: Rig, number: int, size: int, *, age_days: float = 0.0) -> list[Segment]:
    """Files of the index, oldest first."""
    made = []
    for at in range(number):
        start = r.clock.wall() - age_days * 86_400 - (number - at) * 60
        segment = Segment(
            id=f"{at:032x}", device_id=DEVICE, channel_id=CHANNEL, start=start, end=start + 60, size=size,
            file=f"c/d/{at}.mp4", form="f", trigger="continuous",
        )  # fmt: skip
        path = r.directory / segment.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        await r.store.save_segment(segment)
        made.append(segment)
    r.recording.total_bytes = await r.store.total_bytes()
    return made


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
