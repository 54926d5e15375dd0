"""What a playback and a download make of the places where a recorder goes from one file to the next (PB-13, PB-14)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from gb28181gw.outputs.source import Viewer
from gb28181gw.sessions.models import HistoryView, StreamView
from tests.support.devices import until
from tests.support.refusing import Party, refusal_bench, span

VIEWER: Final = Viewer(client="127.0.0.1:1", kind="http_flv", grant_id="g")
DEVICES: Final = {
    "kept": ("PB-14",),
    "slow": ("PB-14-SPEED",),
    "stops": ("PB-14-STOP", "PB-13"),
}


@dataclass
class Seen:
    """What came of the playbacks, by device, and of a download."""

    ends: dict[str, str] = field(default_factory=dict)
    history: dict[str, HistoryView] = field(default_factory=dict)
    speeds: dict[str, list[object]] = field(default_factory=dict)
    """Of the INFO that each device got."""
    download: dict[str, Any] = field(default_factory=dict)


async def play(party: Party, seconds: int) -> None:
    """At speed 8 from begin to end, watched."""
    status, stream = await party.post("playback", **span(seconds))
    assert status == 200, stream
    lease = await party.bench.sessions.lease_stream(stream["id"], VIEWER)
    answer = await party.bench.client.post(
        f"/api/v1/streams/{stream['id']}/control", json={"action": "scale", "scale": 8}
    )
    assert answer.status_code == 204, answer.text
    await until(lambda: any(one["kind"] == "playback" for one in party.ended("stream.stopped")), 20.0)
    lease.release()


async def download(party: Party, seconds: int) -> dict[str, Any]:
    status, job = await party.post("download", **span(seconds), speed=8, original=False)
    assert status == 202, job
    return await party.bench.over(job["id"])


async def watch(path: Path) -> Seen:
    seen = Seen()
    devices = {name: {"quirks": rows, "record_file_s": 10} for name, rows in DEVICES.items()}
    async with refusal_bench(path, devices) as bench:
        names = {bench.of(name).id: name for name in DEVICES}

        def ended(view: StreamView, reason: str) -> None:
            if view.kind == "playback" and view.history is not None:
                seen.ends[names[view.device_id]] = reason
                seen.history[names[view.device_id]] = view.history

        bench.sessions.on_ended(ended)
        playing = [play(bench.of(name), 30 if name == "stops" else 20) for name in DEVICES]
        seen.download, *_ = await asyncio.gather(download(bench.of("stops"), 30), *playing)
        seen.speeds = {
            name: [note.facts["scale"] for note in sim.noted("steered")] for name, sim in bench.sims.items()
        }
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return asyncio.run(watch(tmp_path_factory.mktemp("files")))


def test_pb14_who_keeps_its_speed_is_asked_once(seen: Seen) -> None:
    assert (seen.speeds["kept"], seen.ends["kept"]) == ([8.0], "end_of_file")


def test_pb14_speed_is_asked_for_again_once_for_a_file(seen: Seen) -> None:
    assert (seen.speeds["slow"], seen.ends["slow"]) == ([8.0, 8.0], "end_of_file")
    assert seen.history["slow"].scale == 8.0


def test_pb14_stop_speed_is_asked_for_again_with_each_invite(seen: Seen) -> None:
    assert (seen.speeds["stops"], seen.ends["stops"]) == ([8.0, 8.0, 8.0], "end_of_file")


def test_pb13_what_lies_between_two_files_is_a_gap_of_the_playback(seen: Seen) -> None:
    assert seen.history["stops"].gaps == (
        (pytest.approx(5.0, abs=0.05), pytest.approx(5.0, abs=0.05)),
        (pytest.approx(15.0, abs=0.05), pytest.approx(5.0, abs=0.05)),
    )
    assert seen.history["kept"].gaps == ()


def test_pb13_what_lies_between_two_files_is_a_gap_of_the_download(seen: Seen) -> None:
    done = seen.download
    assert (done["state"], done["position_s"], done["file"]["frames"]) == ("complete", 25.0, 375)
    assert [(gap["at_s"], gap["seconds"], gap["reason"]) for gap in done["gaps"]] == [
        (5.0, 5.0, "not_recorded"),
        (15.0, 5.0, "not_recorded"),
        (25.0, 5.0, "end"),
    ]
