"""Downloads of a simulated device through a real gateway, looked at with FFmpeg and sha256sum."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from gb28181gw.media import native
from gb28181gw.media.engine import Feature
from gb28181gw.media.native import NativePlane
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.sim.recordings import embedded_time
from tests.support.field import Field, Plan, running_field
from tests.support.gateway import GatewayProcess, media_range, simulated_devices, wait_until

pytestmark = pytest.mark.interop
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")
SMALL = {"channels": 1, "size": "320x240", "bitrate_kbps": 200, "record_file_s": 20}
PLANS = {
    "h264": Plan(rows=(), options=SMALL),
    "h265": Plan(rows=(), options={**SMALL, "video": "h265", "audio": "aac"}),
    "gaps": Plan(rows=("PB-13",), options=SMALL),
    "files": Plan(rows=("PB-14-STOP",), options=SMALL),
    "silent": Plan(rows=("PB-11",), options=SMALL),
    "none": Plan(rows=(), options={**SMALL, "record_hours": 0.0}),
    "busy": Plan(rows=("INV-11",), options=SMALL),
    "loss": Plan(rows=(), options={**SMALL, "rtp_loss": 0.005}),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def devices(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("download-field")
    media = {"idle_stop_s": 2, "plane": request.param, "ports": media_range(100)}
    with running_field(directory, PLANS, media=media) as field:
        yield field


def a_minute_boundary(minutes: float) -> datetime:
    """So long ago, at a place where the recorded loop begins: the first picture asked for is a key frame."""
    start = datetime.now(UTC) - timedelta(minutes=minutes)
    return start.replace(second=0, microsecond=0)


def begin(devices: Field, name: str, start: datetime, seconds: float, **body: Any) -> dict[str, Any]:
    devices.device(name, channels=1)
    path = f"/devices/{devices.ids[name]}/channels/{devices.channels(name)[0]['id']}/download"
    span = {"start": start.isoformat(), "end": (start + timedelta(seconds=seconds)).isoformat()}
    answer = devices.gateway.post(path, {**span, **body})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def finished(devices: Field, job: dict[str, Any], limit_s: float = 60.0) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = devices.gateway.get(f"/downloads/{job['id']}")
        return found if found["state"] in ("complete", "failed") else None

    found = wait_until(look, "the download to be over", limit_s)
    assert found is not None
    return found


def fetch(devices: Field, done: dict[str, Any], directory: Path) -> Path:
    return fetch_from(devices.gateway, done, directory)


def fetch_from(gateway: GatewayProcess, done: dict[str, Any], directory: Path) -> Path:
    """The file and its manifest; the manifest is verified by a program that we did not write."""
    file = directory / done["file"]["name"]
    file.write_bytes(gateway.api.get(done["file"]["url"]).content)
    manifest = json.loads(gateway.api.get(done["file"]["manifest_url"]).content)
    shown = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout
    assert shown.split()[0] == manifest["file"]["sha256"] == done["file"]["sha256"]
    assert manifest["file"]["size"] == file.stat().st_size
    return file


def originals(devices: Field, done: dict[str, Any], directory: Path) -> None:
    """The program streams are the device's own bytes, and FFmpeg reads every picture from them."""
    if not can_relay(devices):
        assert done["originals"] == []
        assert any("was not kept" in note for note in done["notes"])
        return
    assert [original["name"] for original in done["originals"]] == [
        part["original"] for part in done["parts"]
    ]
    found = set()
    for original in done["originals"]:
        file = directory / original["name"]
        file.write_bytes(devices.gateway.api.get(original["url"]).content)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == original["sha256"]
        assert file.read_bytes()[:4] == b"\0\0\1\xba"
        found |= {moment for moment, _ in pictures(file)}
    assert len(found) == done["file"]["frames"]
    assert done["notes"] == []


def can_relay(devices: Field) -> bool:
    """The running plane has raw RTP sinks."""
    plane = devices.gateway.seen("gateway.ready")[0]["plane"]
    planes = {"python": ReferencePlane, "native": NativePlane}
    return Feature.RTP_SINKS in planes[plane].features


def pictures(file: Path) -> list[tuple[datetime, float]]:
    """(recorded, seconds in the file) of every picture."""
    found = []
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        for packet in container.demux(stream):
            if packet.dts is not None and packet.size:
                moment = embedded_time(bytes(packet))
                assert moment is not None
                found.append((moment, float(packet.dts * stream.time_base)))
    return found


def counted(file: Path) -> int:
    """Pictures that FFmpeg decodes."""
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v", "-count_frames", "-of", "csv=p=0",
         "-show_entries", "stream=nb_read_frames", file],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return int(done.stdout.strip().rstrip(","))


def whole(file: Path, start: datetime, seconds: int) -> None:
    """Every picture of the span once, in order, 40 ms apart in recorded and in file time."""
    found = pictures(file)
    wanted = [start + timedelta(milliseconds=40 * number) for number in range(25 * seconds)]
    assert [moment for moment, _ in found] == wanted
    steps = [after - before for (_, before), (_, after) in pairwise(found)]
    assert all(abs(step - 0.04) < 0.002 for step in steps)


@pytest.mark.parametrize("transport", ["udp", "tcp-passive", "tcp-active"])
def test_a_minute_at_speed_8_is_complete_and_its_manifest_verifies(
    devices: Field, transport: str, tmp_path: Path
) -> None:
    start = a_minute_boundary(60)
    job = begin(devices, "h264", start, 60, speed=8, transport=transport)
    done = finished(devices, job)
    assert (done["state"], done["progress"], done["gaps"], done["attempts"]) == ("complete", 1.0, [], 1)
    assert done["file"]["frames"] == 1500
    assert done["position_s"] == done["file"]["duration_s"] == 60.0
    assert done["file_size"] > 0
    file = fetch(devices, done, tmp_path)
    assert counted(file) == 1500
    whole(file, start, 60)
    originals(devices, done, tmp_path)
    told = devices.gateway.seen("download.finished", download_id=job["id"])[0]
    assert told["duration_ms"] < 40_000  # a minute in much less than a minute
    assert devices.gateway.api.delete(f"/api/v1/downloads/{job['id']}").status_code == 204
    assert devices.gateway.api.get(done["file"]["url"]).status_code == 404


def test_h265_with_aac(devices: Field, tmp_path: Path) -> None:
    start = a_minute_boundary(61)
    done = finished(devices, begin(devices, "h265", start, 20, speed=8))
    file = fetch(devices, done, tmp_path)
    whole(file, start, 20)
    with av.open(str(file)) as container:
        sound = container.streams.audio[0]
        assert (container.streams.video[0].codec_context.name, sound.codec_context.name) == ("hevc", "aac")
        assert sound.time_base is not None and sound.duration is not None
        assert float(sound.duration * sound.time_base) == pytest.approx(20, abs=1)


@pytest.mark.parametrize("transport", ["udp", "tcp-passive"])
def test_a_transfer_cut_in_the_middle_resumes_without_a_lost_or_doubled_picture(
    devices: Field, transport: str, tmp_path: Path
) -> None:
    start = a_minute_boundary(70)
    job = begin(devices, "h264", start, 60, speed=8, transport=transport)
    wait_until(
        lambda: devices.gateway.get(f"/downloads/{job['id']}")["position_s"] > 20, "a third of the download"
    )
    devices.cut("h264")
    done = finished(devices, job, 90)
    assert (done["state"], done["attempts"], done["gaps"]) == ("complete", 2, [])
    assert [part["joined"] for part in done["parts"]] == ["start", "picture"]
    assert done["parts"][1]["repeated"] > 0
    assert done["position_s"] == 60.0
    file = fetch(devices, done, tmp_path)
    whole(file, start, 60)
    assert counted(file) == 1500
    originals(devices, done, tmp_path)


def test_pb13_gaps_are_reported_and_the_rest_is_there(devices: Field, tmp_path: Path) -> None:
    start = a_minute_boundary(80)
    done = finished(devices, begin(devices, "gaps", start, 40, speed=8))
    assert done["state"] == "complete"
    assert [gap["reason"] for gap in done["gaps"]] == ["not_recorded", "end"]
    assert done["gaps"][0]["seconds"] == pytest.approx(5, abs=0.2)
    assert done["gaps"][0]["at_s"] == pytest.approx(15, abs=2.1)  # looked at four times a second, at speed 8
    found = pictures(fetch(devices, done, tmp_path))
    assert len(found) == 2 * 15 * 25
    assert done["position_s"] == 35.0  # the last picture ends there


def test_pb14_a_download_goes_on_where_the_device_ends_each_file(devices: Field, tmp_path: Path) -> None:
    start = a_minute_boundary(80)
    done = finished(devices, begin(devices, "files", start, 50, speed=8))
    assert (done["state"], done["attempts"], done["gaps"]) == ("complete", 3, [])
    whole(fetch(devices, done, tmp_path), start, 50)


def test_pb11_an_end_without_a_word_is_complete(devices: Field) -> None:
    done = finished(devices, begin(devices, "silent", a_minute_boundary(90), 10, speed=8))
    assert (done["state"], done["file"]["frames"]) == ("complete", 250)


@pytest.mark.parametrize(("name", "status"), [("none", 404), ("busy", 486)])
def test_a_refusal_is_its_own_error_and_leaves_nothing(devices: Field, name: str, status: int) -> None:
    done = finished(devices, begin(devices, name, a_minute_boundary(90), 10))
    assert (done["state"], done["file"]) == ("failed", None)
    assert (done["error"]["code"], done["error"]["sip_status"]) == ("gb.sip.rejected", status)
    assert devices.gateway.api.get(f"/api/v1/downloads/{done['id']}/file").status_code == 404
    wait_until(
        lambda: (
            not [
                one
                for one in devices.gateway.get("/streams")["items"]
                if one["device_id"] == devices.ids[name]
            ]
        ),
        "the stream to be gone",
    )


def test_lost_packets_are_reported_as_a_gap(devices: Field) -> None:
    done = finished(devices, begin(devices, "loss", a_minute_boundary(100), 60, speed=8, transport="udp"))
    assert done["state"] == "complete", done
    assert {gap["reason"] for gap in done["gaps"]} == {"lost"}, done
    assert done["file"]["frames"] < 1500
    missing_s = done["file"]["duration_s"] - done["file"]["frames"] / 25
    assert sum(gap["seconds"] for gap in done["gaps"]) == pytest.approx(missing_s, abs=0.1)
    assert any("packets were lost" in note for note in done["notes"])


def test_pb16_downloads_of_a_device_wait_for_each_other(devices: Field) -> None:
    start = a_minute_boundary(110)
    jobs = [begin(devices, "h264", start, 20, speed=8) for _ in range(3)]
    states = [devices.gateway.get(f"/downloads/{job['id']}") for job in jobs]
    assert [one["queue_position"] for one in states[1:]] == [1, 2]
    assert devices.gateway.api.delete(f"/api/v1/downloads/{jobs[1]['id']}").status_code == 204
    assert [finished(devices, job)["state"] for job in (jobs[0], jobs[2])] == ["complete", "complete"]
    assert devices.gateway.api.get(f"/api/v1/downloads/{jobs[1]['id']}").status_code == 404


def test_deleting_a_running_download_ends_it_at_the_device_and_leaves_no_file(devices: Field) -> None:
    job = begin(devices, "h264", a_minute_boundary(115), 600, speed=1)
    wait_until(lambda: devices.gateway.get(f"/downloads/{job['id']}")["frames"] > 25, "pictures")
    seen = devices.gateway.get(f"/downloads/{job['id']}")
    assert abs(seen["position_s"] - seen["frames"] / 25) < 0.5  # of the last look, four times a second
    assert devices.gateway.api.get(f"/api/v1/downloads/{job['id']}/file").status_code == 409
    assert devices.gateway.api.delete(f"/api/v1/downloads/{job['id']}").status_code == 204
    assert not (devices.gateway.directory / "data" / "downloads" / job["id"]).exists()
    wait_until(
        lambda: not any(one.calls for one in devices.simulations["h264"].devices), "the call to be over"
    )


def test_progress_is_told_as_events(devices: Field) -> None:
    job = begin(devices, "h264", a_minute_boundary(120), 40, speed=8)
    finished(devices, job)
    for event in ("download.queued", "download.started", "download.finished"):
        assert devices.gateway.wait_event(event, download_id=job["id"])


@pytest.mark.parametrize(
    "kill", [pytest.param(True, id="kill"), pytest.param(False, id="stop", marks=pytest.mark.long)]
)
def test_f17_a_download_that_a_restart_interrupts_goes_on_and_so_do_those_that_wait(
    tmp_path: Path, kill: bool
) -> None:
    device = "34020000001180000001"
    gateway = GatewayProcess(tmp_path).start()
    options = ("--id", device, "--channels", "1", "--size", "320x240", "--bitrate", "200")
    try:
        with simulated_devices(gateway, *options):
            gateway.wait_online(device, channels=1, limit_s=60)
            channel = gateway.get(f"/devices/{device}/channels")["items"][0]["id"]
            path = f"/devices/{device}/channels/{channel}/download"
            start = a_minute_boundary(70)

            def ask(seconds: int) -> str:
                span = {"start": start.isoformat(), "end": (start + timedelta(seconds=seconds)).isoformat()}
                return str(gateway.post(path, {**span, "speed": 8}).json()["id"])

            job, waiting = ask(40), ask(5)
            wait_until(lambda: gateway.get(f"/downloads/{job}")["position_s"] > 12, "a part of the file")
            if kill:
                gateway.kill()
            else:
                gateway.halt()
            gateway.events.clear()
            gateway.start()
            resumed = gateway.wait_event("download.resumed", 30, download_id=job)
            assert resumed["position_s"] > 11
            wait_until(lambda: gateway.get(f"/downloads/{waiting}")["state"] == "complete", "the last", 60)
            done = gateway.get(f"/downloads/{job}")
            assert (done["state"], done["position_s"], done["gaps"]) == ("complete", 40.0, [])
            assert [(part["ended"], part["joined"]) for part in done["parts"]] == [
                ("restart", "start"),
                ("end_of_file", "picture"),
            ]
            file = fetch_from(gateway, done, tmp_path)
            whole(file, start, 40)
            assert counted(file) == 1000
            kept = sorted(one.name for one in (tmp_path / "data" / "downloads" / job).iterdir())
            assert kept == sorted(
                ["manifest.json", file.name, *(original["name"] for original in done["originals"])]
            )
            assert gateway.get(f"/downloads/{waiting}")["file"]["frames"] == 125
    finally:
        gateway.stop()
