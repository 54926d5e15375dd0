"""Recordings over a real plane and a real database, without a device: what tests feed is what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gb28181gw.devices.reports import Alarm
from gb28181gw.errors import GatewayError
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.tracks import Frame
from gb28181gw.observability.events import EventBus
from gb28181gw.recording.models import RecorderState, RecordingPlan, RecordMode, Segment
from gb28181gw.recording.table import Recording, RecordingLimits, UploadPlan
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
    """A gateway's recordings, their database and one stream."""

    def __init__(self, directory: Path, upload: UploadPlan | None = None, **limits: Any) -> None:
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
            upload=upload,
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
async def rig(directory: Path, upload: UploadPlan | None = None, **limits: Any) -> AsyncIterator[Rig]:
    made = Rig(directory, upload, **limits)
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
