"""The queue of downloads, what a restart finds, and what goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gb28181gw.downloads.job import JobLimits
from gb28181gw.downloads.models import DownloadFile, DownloadState, manifest_of, view_of
from gb28181gw.downloads.store import StoredDownload
from gb28181gw.downloads.table import DownloadLimits, Downloads
from gb28181gw.errors import GatewayError
from gb28181gw.observability.events import EventBus
from tests.support.api_services import CAMERA, NOW, NVR, TestClock
from tests.support.devices import until
from tests.support.stores import MemoryDownloadStore

START = datetime(2024, 5, 1, tzinfo=UTC)
OTHER = "34020000001180000002"


class FakeRecordings:
    """Streams that stay in their start until the test refuses them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refusal: asyncio.Future[GatewayError] = asyncio.get_running_loop().create_future()
        self.cancelled = 0

    async def start_download(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        prepare: Callable[[str], Awaitable[None]] | None = None,
        **_: Any,
    ) -> Any:
        self.asked.append(device_id)
        try:
            raise await asyncio.shield(self.refusal)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def stop(self, stream_id: str, reason: str = "stopped") -> None:
        raise GatewayError("gb.route.stream_unknown")

    async def lease_stream(self, stream_id: str, consumer: object) -> Any:
        raise AssertionError("no stream ever ran")

    @property
    def recorded(self) -> Any:
        raise AssertionError("no file ever ended")

    def get(self, stream_id: str) -> Any:
        raise GatewayError("gb.route.stream_unknown")


class Rig:
    def __init__(self, directory: Path, store: MemoryDownloadStore | None = None, **limits: int) -> None:
        self.store = store if store is not None else MemoryDownloadStore()
        self.away: set[str] = set()
        self.clock = TestClock()
        self.bus = EventBus()
        self.recordings = FakeRecordings()
        self.downloads = Downloads(
            recordings=self.recordings,
            engine=SimpleNamespace(),  # type: ignore[arg-type]  # nothing is ever streamed
            bus=self.bus,
            clock=self.clock,
            directory=directory,
            store=self.store,
            is_away=self.away.__contains__,
            limits=DownloadLimits(job=JobLimits(pauses_s=()), **limits),
        )
        self.downloads.begin()

    async def add(self, device_id: str = NVR) -> str:
        self.clock.now += 1
        view = await self.downloads.add(device_id, CAMERA, START, START + timedelta(minutes=1), speed=4)
        return view.id

    def positions(self, *ids: str) -> list[int | None]:
        return [self.downloads.get(one).queue_position for one in ids]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_pb16_one_of_a_device_at_a_time_others_keep_their_place(tmp_path: Path) -> None:
    rig = Rig(tmp_path, at_once=2)
    first, second, third, elsewhere = [await rig.add(device) for device in (NVR, NVR, NVR, OTHER)]
    await until(lambda: len(rig.recordings.asked) == 2)
    assert sorted(rig.recordings.asked) == sorted([NVR, OTHER])
    assert rig.positions(first, second, third, elsewhere) == [None, 1, 2, None]
    await rig.downloads.remove(second)
    assert rig.positions(first, third) == [None, 1]
    await rig.downloads.close()
    assert rig.recordings.cancelled == 2


async def test_a_running_one_that_is_removed_does_not_start_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    first, second = await rig.add(), await rig.add()
    await until(lambda: rig.recordings.asked == [NVR])
    await rig.downloads.remove(first)
    await until(lambda: len(rig.recordings.asked) > 1)
    assert rig.recordings.asked == [NVR, NVR]  # the second came to its turn
    assert [view.id for view in rig.downloads.list()] == [second]
    assert rig.downloads.get(second).state is DownloadState.RUNNING
    await rig.downloads.close()


async def test_a_refusal_is_kept_with_its_status_and_the_next_begins(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    first, second = await rig.add(), await rig.add()
    await turns()
    rig.recordings.refusal.set_result(GatewayError("gb.sip.rejected", "No.", sip_status=404))
    async with asyncio.timeout(5):
        while not rig.downloads.get(second).state.over:
            await asyncio.sleep(0.005)
    view = rig.downloads.get(first)
    assert (view.state, view.error_code, view.sip_status) == (DownloadState.FAILED, "gb.sip.rejected", 404)
    assert rig.bus.counts["download.failed"] == 2
    with pytest.raises(GatewayError) as caught:
        rig.downloads.path_of(first)
    assert caught.value.code == "gb.route.not_found"
    assert rig.downloads.path_of(first, manifest=True).is_file()
    await rig.downloads.close()
    again = Rig(tmp_path)
    await again.downloads.start()
    assert {one.id for one in again.downloads.list()} == {first, second}
    await again.downloads.close()


async def test_what_a_stop_interrupted_and_what_waited_go_on_in_their_order(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    first, second = await rig.add(), await rig.add()
    await until(lambda: rig.recordings.asked)
    await rig.downloads.close()
    again = Rig(tmp_path, rig.store)
    again.away.add(NVR)
    await again.downloads.start()
    again.downloads.begin()
    assert [again.downloads.get(one).state for one in (first, second)] == [DownloadState.QUEUED] * 2
    assert again.positions(first, second) == [1, 2]
    assert [view.created_at for view in again.downloads.list()] == [NOW + 2, NOW + 1]
    assert again.recordings.asked == []  # until its device is there
    again.away.clear()
    await until(lambda: again.recordings.asked == [NVR])
    assert again.downloads.get(first).state is DownloadState.RUNNING
    assert again.positions(second) == [1]
    again.recordings.refusal.set_result(GatewayError("gb.sip.rejected", "No.", sip_status=404))
    await until(lambda: not again.store.rows)
    await again.downloads.close()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["manifest.json"] * 2


async def test_what_was_over_is_not_asked_for_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    kept = keep(tmp_path, "a" * 32, rig.clock.wall())
    (tmp_path / kept / "journal").write_text("left")
    request = view_of(json.loads((tmp_path / kept / "manifest.json").read_text())).request
    await rig.store.save_download(StoredDownload(id=kept, created_at=1.0, request=request))
    await rig.downloads.start()
    assert rig.store.rows == {}
    assert rig.downloads.get(kept).state is DownloadState.COMPLETE
    assert not (tmp_path / kept / "journal").exists()
    await rig.downloads.close()


async def test_what_is_not_stored_and_not_over_has_failed_and_leaves_no_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = await rig.add()
    await until(lambda: rig.recordings.asked)
    (tmp_path / job / "f.mp4.part").write_text("cut")
    await rig.downloads.close()
    for _ in range(2):  # what the first start found stays so
        again = Rig(tmp_path)
        await again.downloads.start()
        view = again.downloads.get(job)
        assert (view.state, view.error_code) == (DownloadState.FAILED, "gb.route.shutting_down")
        assert view.finished_at is not None
        assert [path.name for path in (tmp_path / job).iterdir()] == ["manifest.json"]
        with pytest.raises(GatewayError) as caught:
            again.downloads.path_of(job)
        assert caught.value.code == "gb.route.not_found"
        await again.downloads.close()


async def test_files_cannot_be_reached_by_names_of_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    kept = keep(tmp_path, "a" * 32, rig.clock.wall())
    (tmp_path / "secret").write_text("x")
    await rig.downloads.start()
    assert rig.downloads.path_of(kept).name == "f.mp4"
    assert rig.downloads.path_of(kept, name="f.1.ps").name == "f.1.ps"
    for name in ("../secret", "f.mp4", "manifest.json"):
        with pytest.raises(GatewayError):
            rig.downloads.path_of(kept, name=name)
    await rig.downloads.close()


async def test_what_is_too_old_or_too_much_goes_and_leftovers_go_at_the_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path, keep_days=7, max_gb=1)
    now = rig.clock.wall()
    old = keep(tmp_path, "1" * 32, now - 8 * 86_400)
    larger = keep(tmp_path, "2" * 32, now - 2 * 86_400, size=700_000_000)
    newest = keep(tmp_path, "3" * 32, now - 86_400, size=700_000_000)
    (tmp_path / ("4" * 32)).mkdir()
    (tmp_path / ("4" * 32) / "f.mp4.part").write_text("cut")
    await rig.downloads.start()
    async with asyncio.timeout(5):
        while rig.bus.counts["download.removed"] < 2:
            await asyncio.sleep(0.005)
    assert [view.id for view in rig.downloads.list()] == [newest]
    assert sorted(path.name for path in tmp_path.iterdir()) == [newest]
    assert old != larger
    await rig.downloads.close()


@pytest.mark.parametrize("days", [-1, 0, 40])
async def test_a_span_that_is_none_is_refused(tmp_path: Path, days: int) -> None:
    rig = Rig(tmp_path)
    with pytest.raises(GatewayError) as caught:
        await rig.downloads.add(NVR, CAMERA, START, START + timedelta(days=days), speed=4)
    assert caught.value.code == "gb.route.invalid"
    assert rig.downloads.list() == []
    await rig.downloads.close()


def keep(directory: Path, job_id: str, finished_at: float, size: int = 3) -> str:
    """A finished download as an earlier process left it."""
    view = view_of(
        {
            "id": job_id, "device_id": NVR, "channel_id": CAMERA, "start": 1, "end": 61, "speed": 4,
            "state": "complete", "created_at": finished_at - 5, "finished_at": finished_at, "position_s": 60.0,
            "attempts": 1, "bytes_received": 9, "file": None, "originals": [], "gaps": [], "parts": [],
            "notes": [], "error": None,
        }
    )  # fmt: skip
    view = replace(
        view,
        file=DownloadFile(name="f.mp4", size=size, sha256="0", frames=1500, duration_s=60.0),
        originals=(DownloadFile(name="f.1.ps", size=3, sha256="0"),),
    )
    home = directory / job_id
    home.mkdir()
    (home / "f.mp4").write_bytes(b"abc")
    (home / "f.1.ps").write_bytes(b"abc")
    (home / "manifest.json").write_text(json.dumps(manifest_of(view)))
    assert view_of(json.loads((home / "manifest.json").read_text())) == replace(view, frames=1500)
    return job_id
