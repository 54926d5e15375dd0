"""A recording of the gateway that nobody waited for: files and rows as a recorder makes them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path

from gb28181gw.media.tracks import Codec
from gb28181gw.recording.files import SegmentWriter
from gb28181gw.recording.models import Segment
from gb28181gw.sim.recordings import with_time
from gb28181gw.storage.database import Database
from gb28181gw.storage.recordings import SqliteRecordingStore
from tests.support.media import video_clip

STEP_90K = 3600


def make_files(
    directory: Path,
    device_id: str,
    channel_id: str,
    start: datetime,
    seconds: int,
    *,
    segment_s: float = 10.0,
) -> list[Segment]:
    """25 pictures a second, a key frame each second, the time of each embedded in it."""
    clip = video_clip(frames=25)
    writer = SegmentWriter(
        directory, device_id, channel_id, "continuous", segment_s=segment_s, expect_audio=False
    )
    begin = Fraction(start.timestamp())
    for number in range(25 * seconds):
        picture = clip[number % 25]
        moment = begin + Fraction(number, 25)
        dts = number * STEP_90K
        frame = replace(
            picture,
            dts_90k=dts,
            pts_90k=dts,
            payload=with_time(picture.payload, Codec.H264, moment),
        )
        writer.write([(frame, float(moment))])
    writer.finish()
    return [segment for segment in writer.changes if segment.end is not None]


def make_recording(data_dir: Path, device_id: str, channel_id: str, start: datetime, seconds: int) -> None:
    """As `make_files`, and in the index of a gateway that may run."""
    asyncio.run(_save(data_dir, make_files(data_dir / "recordings", device_id, channel_id, start, seconds)))


async def _save(data_dir: Path, segments: list[Segment]) -> None:
    database = Database(data_dir / "gb28181gw.db", busy_timeout_s=5.0)
    database.start()
    store = SqliteRecordingStore(database)
    for segment in segments:
        await store.save_segment(segment)
    await database.close()
