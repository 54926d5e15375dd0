"""What the gateway recorded, played: places, gaps, speeds, and who watches."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.gb.mansrtsp import Pause, Resume, Scale, Seek, Teardown
from gb28181gw.media.tracks import Frame
from gb28181gw.recording.playback import RecordingPlayback
from gb28181gw.sim.recordings import embedded_time
from tests.support.made_recording import make_files
from tests.support.plane import until
from tests.support.recording_rig import CHANNEL, DEVICE, Rig, rig

BEGIN = datetime(2026, 11, 22, 8, tzinfo=UTC)


@dataclass
class Viewer:
    client: str = "test"
    kind: str = "test"
    grant_id: str = ""


@asynccontextmanager
async def played(
    tmp_path: Path, idle_s: float = 30.0
) -> AsyncIterator[tuple[Rig, RecordingPlayback, list[Frame]]]:
    """20 s, a gap of 20 s, and 10 s; with what is pushed."""
    async with rig(tmp_path, idle_s=idle_s) as r:
        for begin, seconds in ((BEGIN, 20), (BEGIN + timedelta(seconds=40), 10)):
            for segment in make_files(r.directory, DEVICE, CHANNEL, begin, seconds, segment_s=5.0):
                await r.store.save_segment(segment)
        playback = await r.recording.play(DEVICE, CHANNEL, BEGIN, BEGIN + timedelta(seconds=60))
        seen: list[Frame] = []
        r.plane.add_frame_sink(playback.id, seen.extend)
        yield r, playback, seen


def places(frames: list[Frame]) -> list[float]:
    """Seconds from the beginning."""
    found = [embedded_time(frame.payload) for frame in frames]
    return [(moment - BEGIN).total_seconds() for moment in found if moment is not None]


async def test_a_seek_into_a_gap_goes_on_behind_it(tmp_path: Path) -> None:
    async with played(tmp_path) as (r, playback, seen):
        hold = playback.lease(Viewer())
        playback.control(Scale(8))
        playback.control(Seek(30))
        await until(lambda: len(places(seen)) > 20, what="pictures")
        at = places(seen).index(40.0)
        assert seen[at].key
        assert max(places(seen)[:at], default=0) < 20
        times = [frame.dts_90k for frame in seen]
        assert all(after > before for before, after in itertools.pairwise(times))
        refused = {50.5: "no_recording", 60.0: "invalid", float("nan"): "invalid"}
        for place, reason in refused.items():
            with pytest.raises(GatewayError) as caught:
                playback.control(Seek(place))
            assert caught.value.reason == reason
        view = playback.view()
        assert (view.source, view.consumers) == ("gateway", 1)
        assert view.history is not None
        assert 40 <= view.history.position_s < 50
        assert [one.id for one in r.recording.playing()] == [playback.id]
        hold.release()


async def test_what_is_not_for_a_recording_is_refused(tmp_path: Path) -> None:
    async with played(tmp_path) as (_, playback, _):
        for action in (Scale(-1), Teardown()):
            with pytest.raises(GatewayError) as caught:
                playback.control(action)
            assert caught.value.code == "gb.route.invalid"


async def test_a_seek_while_it_stands_still_is_shown_when_it_goes_on(tmp_path: Path) -> None:
    async with played(tmp_path) as (_, playback, seen):
        playback.lease(Viewer())
        playback.control(Pause())
        playback.control(Seek(12.3))

        def position() -> float:
            history = playback.view().history
            return history.position_s if history is not None else 0.0

        await until(lambda: position() == 12.3, what="the new place")
        assert max(places(seen), default=0) < 2
        playback.control(Resume())
        await until(lambda: [one for one in places(seen) if one > 5], what="pictures")
        assert min(one for one in places(seen) if one > 5) == 12.0


async def test_nobody_watches_a_recording_that_stands_still(tmp_path: Path) -> None:
    async with played(tmp_path, idle_s=0.05) as (r, playback, _):
        hold = playback.lease(Viewer())
        playback.control(Pause())
        hold.release()
        await until(playback.ended.is_set, what="its end")
        await until(lambda: not r.recording.playing(), what="the list to be empty")
        assert r.recording.playback(playback.id) is None
