"""Recordings of a real gateway: killed while it records, played and fetched, read by FFmpeg."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from gb28181gw.media import native
from tests.support.field import Field, Plan, running_field
from tests.support.gateway import command, media_range, wait_until
from tests.support.made_recording import make_recording
from tests.support.recorded import Player
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, s3_server

pytestmark = pytest.mark.interop
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")
SMALL = {"channels": 1, "size": "320x240", "bitrate_kbps": 200}
PLANS = {
    "h264": Plan(rows=(), options=SMALL),
    "h265": Plan(rows=(), options={**SMALL, "video": "h265", "audio": "aac"}),
    "event": Plan(rows=(), options=SMALL),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def devices(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("recording")
    media = {"idle_stop_s": 3, "plane": request.param, "ports": media_range(100)}
    recording = {"segment_s": 4, "min_free_mb": 1}
    secret = directory / "s3.secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET_KEY)
    with s3_server(directory) as store:
        s3 = {
            "bucket": BUCKET,
            "endpoint": store.endpoint,
            "access_key": ACCESS_KEY,
            "secret_key_file": str(secret),
            "allow_http": True,
        }
        settings = {"media": media, "recording": recording, "recording.s3": s3}
        with running_field(directory, PLANS, **settings) as field:
            yield field


def path_of(devices: Field, name: str) -> str:
    devices.device(name, channels=1)
    return f"/devices/{devices.ids[name]}/channels/{devices.channels(name)[0]['id']}/recording"


def put(devices: Field, name: str, **plan: Any) -> dict[str, Any]:
    answer = devices.gateway.api.put(f"/api/v1{path_of(devices, name)}", json=plan)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def files(devices: Field, name: str) -> list[Path]:
    folder = devices.gateway.directory / "data" / "recordings"
    return sorted(folder.glob(f"{devices.ids[name]}_*/*/*.mp4"))


def probe(file: Path | str) -> dict[str, tuple[int, float]]:
    """(frames that FFmpeg decodes, seconds) by codec."""
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-of", "csv=p=0",
         "-show_entries", "stream=codec_name,duration,nb_read_frames", str(file)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    found = {}
    for line in done.stdout.split():
        codec, duration, frames = line.split(",")[:3]
        found[codec] = (int(frames), float(duration))
    return found


def spans(devices: Field, name: str) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    query = {"start": (now - timedelta(hours=1)).isoformat(), "end": (now + timedelta(minutes=1)).isoformat()}
    answer = devices.gateway.api.get(f"/api/v1{path_of(devices, name)}/spans", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(("name", "video"), [("h264", "h264"), ("h265", "hevc")])
def test_continuous_recording_is_listed_played_and_fetched(
    devices: Field, name: str, video: str, tmp_path: Path
) -> None:
    put(devices, name, mode="continuous")
    devices.gateway.wait_event("recording.started", device_id=devices.ids[name])
    wait_until(lambda: len(files(devices, name)) >= 4, "three whole files and one in work", 60)
    for file in files(devices, name)[:3]:
        found = probe(file)
        assert set(found) == {video, "aac"}
        assert found[video][0] >= 4 * 25
        assert found["aac"][1] == pytest.approx(found[video][1], abs=0.5)
    (span,) = spans(devices, name)
    assert span["files"] >= 4
    assert moment(span["end"]) == pytest.approx(time.time(), abs=5)

    begin = datetime.fromisoformat(span["start"])
    query = {"start": begin.isoformat(), "end": (begin + timedelta(seconds=10)).isoformat()}
    answer = devices.gateway.api.get(f"/api/v1{path_of(devices, name)}/file", params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    fetched = tmp_path / "fetched.mp4"
    fetched.write_bytes(answer.content)
    found = probe(fetched)
    assert 250 <= found[video][0] <= 276
    assert found["aac"][1] == pytest.approx(10.5, abs=1)
    with av.open(str(fetched)) as container:
        times = [packet.dts for packet in container.demux(video=0) if packet.dts is not None]
    steps = [after - before for before, after in itertools.pairwise(times)]
    # Where files meet the step follows the clock of the host a little: an eighth of what a picture came late.
    assert 0 < min(steps) <= max(steps) <= 3600 + 9000
    assert steps.count(3600) >= len(steps) - 4

    asked = devices.gateway.api.post(f"/api/v1{path_of(devices, name)}/playback", json=query)
    assert asked.status_code == 200, asked.text
    playback = asked.json()
    assert {track["codec"] for track in playback["tracks"]} == {name, "aac"}
    began = time.monotonic()
    saved = tmp_path / "played.mp4"
    with httpx.stream("GET", playback["urls"]["http_fmp4"], timeout=30) as response, saved.open("wb") as out:
        assert response.status_code == 200
        for piece in response.iter_raw():
            out.write(piece)
    took = time.monotonic() - began
    assert 7 < took < 16  # real time
    played = probe(saved)
    assert played[video][0] >= 240
    ended = devices.gateway.wait_event("recording.playback_ended", stream_id=playback["id"])
    assert ended["reason"] == "end_of_file"


def stored(devices: Field, name: str) -> list[dict[str, Any]]:
    """Files of the last hour."""
    now = datetime.now(UTC)
    query = {"start": (now - timedelta(hours=1)).isoformat(), "end": (now + timedelta(minutes=1)).isoformat()}
    answer = devices.gateway.api.get(f"/api/v1{path_of(devices, name)}/files", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def test_finished_files_are_in_the_object_store_and_come_from_there(devices: Field, tmp_path: Path) -> None:
    put(devices, "h264", mode="continuous")
    found = wait_until(
        lambda: [one for one in stored(devices, "h264") if one["uploaded"]], "a file in the store", 60
    )[0]
    assert found["local"]
    here = devices.gateway.directory / "data" / "recordings" / found["file"]
    there = devices.gateway.directory / "s3" / BUCKET / found["object"]
    assert there.read_bytes() == here.read_bytes()
    frames = probe(there)["h264"][0]
    channel = devices.channels("h264")[0]["id"]
    begin, end = found["start"], found["end"]
    done = subprocess.run(
        [*command(), "recording", "files", devices.ids["h264"], channel, "--start", begin, "--end", end,
         "--config", str(devices.gateway.config)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found["object"] in done.stdout
    here.unlink()
    answer = devices.gateway.api.get(
        f"/api/v1{path_of(devices, 'h264')}/file", params={"start": begin, "end": end}
    )
    assert answer.status_code == 200, answer.text
    fetched = tmp_path / "fetched.mp4"
    fetched.write_bytes(answer.content)
    assert probe(fetched)["h264"][0] == frames


def test_an_alarm_is_recorded_with_the_pictures_before_it(devices: Field) -> None:
    put(devices, "event", mode="event", post_s=3)
    running = wait_until(
        lambda: [
            one
            for one in devices.gateway.get("/streams")["items"]
            if one["device_id"] == devices.ids["event"] and one["state"] == "running"
        ],
        "the stream to be held",
    )
    frames = running[0]["rtp"]["received"]
    wait_until(
        lambda: devices.gateway.get(f"/streams/{running[0]['id']}")["rtp"]["received"] > frames + 100,
        "pictures",
    )
    assert files(devices, "event") == []
    raised = time.time()
    devices.alarm("event")
    devices.gateway.wait_event("recording.stopped", device_id=devices.ids["event"])
    (span,) = wait_until(lambda: [one for one in spans(devices, "event") if one["size"]], "the recording")
    assert span["trigger"] == "event"
    assert moment(span["start"]) < raised
    assert moment(span["end"]) > raised + 2
    assert probe(files(devices, "event")[0])["h264"][0] > 50
    assert devices.gateway.get(f"/streams/{running[0]['id']}")["state"] == "running"


def test_f16_evidence_is_locked_and_unlocked(devices: Field) -> None:
    path = path_of(devices, "h264")
    put(devices, "h264", mode="continuous")
    wait_until(lambda: spans(devices, "h264"), "a recording")
    now = datetime.now(UTC)
    body = {"start": (now - timedelta(seconds=2)).isoformat(), "end": now.isoformat()}
    wait_until(
        lambda: devices.gateway.api.post(f"/api/v1{path}/lock", json=body).json()["files"], "a file to lock"
    )
    assert any(span["locked"] for span in spans(devices, "h264"))
    devices.gateway.api.post(f"/api/v1{path}/lock", json={**body, "locked": False})
    assert not any(span["locked"] for span in spans(devices, "h264"))


def test_a_channel_without_a_plan_is_not_recorded_any_more_and_keeps_its_files(devices: Field) -> None:
    path = path_of(devices, "h265")
    put(devices, "h265", mode="continuous")
    wait_until(lambda: spans(devices, "h265"), "a recording")
    assert devices.gateway.api.delete(f"/api/v1{path}").status_code == 204
    assert devices.gateway.api.get(f"/api/v1{path}").status_code == 404
    wait_until(
        lambda: (
            not any(
                one["device_id"] == devices.ids["h265"] for one in devices.gateway.get("/streams")["items"]
            )
        ),
        "the end of the stream",
    )
    for file in files(devices, "h265"):
        assert probe(file)["hevc"][0] > 0
    nothing = devices.gateway.api.get(
        f"/api/v1{path}/file",
        params={"start": "2020-01-01T00:00:00Z", "end": "2020-01-01T01:00:00Z"},
    )
    assert (nothing.status_code, nothing.json()["code"]) == (404, "gb.media.no_recording")


@pytest.fixture
def made(devices: Field) -> tuple[str, datetime]:
    """(path of a channel, beginning of a minute that it recorded some hours ago)."""
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
    path = path_of(devices, "event")
    channel = devices.channels("event")[0]["id"]
    make_recording(devices.gateway.directory / "data", devices.ids["event"], channel, begin, 60)
    return path, begin


def test_a_recording_of_the_gateway_is_steered_as_one_of_a_device(
    devices: Field, made: tuple[str, datetime]
) -> None:
    path, begin = made
    api = devices.gateway.api
    span = {"start": begin.isoformat(), "end": (begin + timedelta(minutes=1)).isoformat()}
    playback = api.post(f"/api/v1{path}/playback", json=span).json()

    def control(status: int = 204, **body: Any) -> str:
        answer = api.post(f"/api/v1/streams/{playback['id']}/control", json=body)
        assert answer.status_code == status, answer.text
        return "" if status == 204 else str(answer.json()["code"])

    def view() -> dict[str, Any]:
        return dict(devices.gateway.get(f"/streams/{playback['id']}"))

    with Player(playback["urls"]["http_flv"]) as player:
        first = player.next()
        assert (first.recorded, first.key) == (begin, True)
        (shown,) = [one for one in devices.gateway.get("/streams")["items"] if one["id"] == playback["id"]]
        assert {
            "kind": "playback",
            "source": "gateway",
            "state": "running",
            "consumers": 1,
        }.items() <= shown.items()
        assert shown["device_id"] == devices.ids["event"]
        assert moment(shown["history"]["start"]) == begin.timestamp()

        control(action="seek", position_s=30.5)
        before, found = first, player.next()
        while found.recorded < begin + timedelta(seconds=20):
            before, found = found, player.next()
        # The key frame before the place; the times of the stream go on.
        assert (found.recorded, found.key) == (begin + timedelta(seconds=30), True)
        assert found.seconds - before.seconds == pytest.approx(0.04, abs=0.002)

        control(action="scale", scale=4)
        seen = player.take(1.8)
        fast = [one for one in seen if one.arrived > seen[0].arrived + 0.4]  # what was ahead is over
        played = fast[-1].seconds - fast[0].seconds
        assert played == pytest.approx((fast[-1].recorded - fast[0].recorded).total_seconds(), abs=0.01)
        assert played / (fast[-1].arrived - fast[0].arrived) == pytest.approx(4, rel=0.25)
        assert view()["history"]["rate"] == pytest.approx(4, rel=0.25)

        control(action="pause")
        paused = view()["history"]
        assert paused["paused"]
        assert {view()["history"]["position_s"] for _ in range(30)} == {paused["position_s"]}
        control(action="scale", scale=1)
        control(action="resume")
        last = seen[-1]
        for _ in range(25):  # not one picture was left out
            last, before = player.next(), last
            assert last.recorded - before.recorded == timedelta(milliseconds=40)

        assert control(422, action="seek", position_s=60) == "gb.route.invalid"
        assert control(422, action="scale", scale=-1) == "gb.route.invalid"
        control(action="seek", position_s=59)  # back or forth, and to the end
        assert player.rest()[-1].recorded == begin + timedelta(seconds=59.96)
    assert (
        devices.gateway.wait_event("recording.playback_ended", stream_id=playback["id"])["reason"]
        == "end_of_file"
    )
    assert control(404, action="pause") == "gb.route.stream_unknown"

    another = api.post(f"/api/v1{path}/playback", json=span).json()
    assert api.delete(f"/api/v1/streams/{another['id']}").status_code == 204
    assert (
        devices.gateway.wait_event("recording.playback_ended", stream_id=another["id"])["reason"] == "stopped"
    )
    assert not [one for one in devices.gateway.get("/streams")["items"] if one["id"] == another["id"]]


def test_f17_a_kill_loses_two_seconds_at_most(devices: Field) -> None:
    """Last: the gateway is another process afterwards."""
    put(devices, "h264", mode="continuous")
    before = len(files(devices, "h264"))
    wait_until(lambda: len(files(devices, "h264")) >= before + 2, "a file in work", 60)
    newest = files(devices, "h264")[-1]
    wait_until(lambda: newest.stat().st_size > 30_000, "something in it")
    devices.gateway.kill()
    killed = time.time()
    found = probe(newest)  # as it is, before the gateway looks at it
    assert found["h264"][0] > 0
    devices.gateway.start()
    told = devices.gateway.wait_event("recording.recovered")
    assert (told["segments"], told["empty"]) == (1, 0)
    first = next(span for span in spans(devices, "h264")[::-1] if moment(span["start"]) < killed)
    assert 0 <= killed - moment(first["end"]) < 2.0
    wait_until(lambda: moment(spans(devices, "h264")[-1]["start"]) > killed, "the recording to go on", 90)
    again = spans(devices, "h264")
    assert moment(again[-1]["start"]) > moment(again[-2]["end"]) + 0.5  # the gap is visible
    wait_until(
        lambda: all(one["uploaded"] for one in stored(devices, "h264") if one["end"]),
        "what the kill left to be uploaded",
    )
