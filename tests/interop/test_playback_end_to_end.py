"""Recordings of a simulated device through a real gateway, read by FFmpeg's demuxer and by ffprobe."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from gb28181gw.media import native
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until
from tests.support.recorded import Player, minutes_ago

pytestmark = pytest.mark.interop
DEVICE = "34020000001180000001"
TRANSPORTS = ["udp", "tcp-passive", "tcp-active"]
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def recorder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    media = {"idle_stop_s": 2, "plane": request.param}
    small = ("--size", "320x240", "--bitrate", "200")
    with (
        running_gateway(tmp_path_factory.mktemp("playback"), media=media) as gateway,
        simulated_devices(gateway, "--id", DEVICE, "--channels", "1", *small),
    ):
        gateway.wait_online(DEVICE, channels=1, limit_s=60)
        yield gateway


def channel_of(gateway: GatewayProcess) -> str:
    return str(gateway.get(f"/devices/{DEVICE}/channels")["items"][0]["id"])


def play(gateway: GatewayProcess, start: Any, seconds: float, **body: Any) -> dict[str, Any]:
    span = {"start": start.isoformat(), "end": (start + timedelta(seconds=seconds)).isoformat()}
    answer = gateway.post(f"/devices/{DEVICE}/channels/{channel_of(gateway)}/playback", {**span, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def control(gateway: GatewayProcess, stream: str, **body: Any) -> None:
    answer = gateway.post(f"/streams/{stream}/control", body)
    assert answer.status_code == 204, answer.text


def effect(gateway: GatewayProcess, stream: str) -> str:
    """What the stream showed of the last control, once it is known."""

    def look() -> str:
        told = str(gateway.get(f"/streams/{stream}")["history"]["control"]["effect"])
        return "" if told == "waiting" else told

    return wait_until(look, "the effect of the control")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_playback_shows_the_requested_time_before_and_after_a_seek(
    recorder: GatewayProcess, transport: str
) -> None:
    start = minutes_ago(60)
    answer = play(recorder, start, 600, transport=transport)
    assert (answer["kind"], answer["state"]) == ("playback", "running")
    with Player(answer["urls"]["http_flv"]) as player:
        first = player.next()
        assert first.key
        assert timedelta(0) <= start - first.recorded <= timedelta(seconds=2)  # the key frame at or before it
        before = player.take(1.0)
        control(recorder, answer["id"], action="seek", position_s=300)
        after = player.until(start + timedelta(seconds=300))
        assert after.key
        more = player.take(1.0)
        assert effect(recorder, answer["id"]) == "seen"
        times = [picture.seconds for picture in (first, *before, after, *more)]
        assert all(0 < later - earlier < 0.5 for earlier, later in pairwise(times))
    history = recorder.get(f"/streams/{answer['id']}")["history"]
    assert 300 <= history["position_s"] < 320
    stream = recorder.get(f"/streams/{answer['id']}")
    assert (stream["kind"], stream["transport"], stream["ssrc"][0]) == ("playback", transport, "1")
    assert recorder.api.delete(f"/api/v1/streams/{answer['id']}").status_code == 204


@pytest.mark.parametrize("kind", ["http_fmp4", "http_ts", "hls", "rtsp"])
def test_every_kind_of_consumer_keeps_watching_through_a_seek(recorder: GatewayProcess, kind: str) -> None:
    start = minutes_ago(200)
    answer = play(recorder, start, 600)
    with Player(answer["urls"][kind]) as player:
        assert abs(player.next().recorded - start) < timedelta(seconds=8)
        control(recorder, answer["id"], action="seek", position_s=300)
        before = player.take(0.5)
        after = player.until(start + timedelta(seconds=302), 30)
        assert after.seconds > before[-1].seconds
    assert recorder.get(f"/streams/{answer['id']}")["history"]["position_s"] >= 300
    recorder.api.delete(f"/api/v1/streams/{answer['id']}")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_pause_stands_still_and_resume_goes_on_where_it_was(recorder: GatewayProcess, transport: str) -> None:
    start = minutes_ago(90)
    answer = play(recorder, start, 600, transport=transport)
    with Player(answer["urls"]["http_flv"]) as player:
        player.take(1.0)
        control(recorder, answer["id"], action="pause")
        assert effect(recorder, answer["id"]) == "seen"
        assert recorder.get(f"/streams/{answer['id']}")["history"]["paused"]
        before = recorder.get(f"/streams/{answer['id']}")["rtp"]["received"]
        assert recorder.get(f"/streams/{answer['id']}")["rtp"]["received"] == before
        control(recorder, answer["id"], action="resume")
        seen = player.take(1.5)
        gaps = [later.recorded - earlier.recorded for earlier, later in pairwise(seen)]
        assert set(gaps) == {timedelta(milliseconds=40)}  # nothing lost, nothing twice
        assert effect(recorder, answer["id"]) == "seen"
    recorder.api.delete(f"/api/v1/streams/{answer['id']}")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scale", [4, 0.5])
def test_at_a_scale_the_timestamps_run_at_it(recorder: GatewayProcess, transport: str, scale: float) -> None:
    start = minutes_ago(120)
    answer = play(recorder, start, 1200, transport=transport)
    with Player(answer["urls"]["http_flv"]) as player:
        player.take(1.0)
        control(recorder, answer["id"], action="scale", scale=scale)
        assert effect(recorder, answer["id"]) == "seen"
        player.take(0.5)  # what was on its way
        seen = player.take(4.0)
        wall = seen[-1].arrived - seen[0].arrived
        by_stream = (seen[-1].seconds - seen[0].seconds) / wall
        by_content = (seen[-1].recorded - seen[0].recorded).total_seconds() / wall
        assert by_stream == pytest.approx(scale, rel=0.25)
        assert by_content == pytest.approx(scale, rel=0.25)
        history = recorder.get(f"/streams/{answer['id']}")["history"]
        assert history["scale"] == scale
        assert history["rate"] == pytest.approx(scale, rel=0.3)
    recorder.api.delete(f"/api/v1/streams/{answer['id']}")


def test_backwards_shows_earlier_pictures_while_the_stream_goes_on(recorder: GatewayProcess) -> None:
    start = minutes_ago(150)
    answer = play(recorder, start, 600)
    with Player(answer["urls"]["http_flv"]) as player:
        player.take(0.5)
        control(recorder, answer["id"], action="seek", position_s=120)
        player.until(start + timedelta(seconds=120))
        control(recorder, answer["id"], action="scale", scale=-1)
        seen = player.take(8.0)
        assert recorder.get(f"/streams/{answer['id']}")["history"]["control"]["effect"] == "seen"
        assert seen[-1].recorded < start + timedelta(seconds=118)
        assert all(earlier.seconds <= later.seconds for earlier, later in pairwise(seen))
    recorder.api.delete(f"/api/v1/streams/{answer['id']}")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_end_is_told_by_media_status_121(recorder: GatewayProcess, transport: str) -> None:
    start = minutes_ago(30)
    answer = play(recorder, start, 4, transport=transport)
    with Player(answer["urls"]["http_flv"]) as player:
        seen = player.rest()
    assert timedelta(seconds=3.5) < seen[-1].recorded - start <= timedelta(seconds=4)
    stopped = recorder.wait_event("stream.stopped", stream_id=answer["id"])
    assert stopped["reason"] == "end_of_file"
    wait_until(
        lambda: recorder.api.get(f"/api/v1/streams/{answer['id']}").status_code == 404,
        "the stream to be gone",
    )


def test_several_playbacks_of_a_channel_run_beside_live(recorder: GatewayProcess) -> None:
    first, second = minutes_ago(60), minutes_ago(180)
    answers = [play(recorder, first, 60), play(recorder, second, 60)]
    live = recorder.live(DEVICE, channel_of(recorder))
    assert len({answer["id"] for answer in (*answers, live)}) == 3
    for start, answer in zip((first, second), answers, strict=True):
        with Player(answer["urls"]["http_flv"]) as player:
            assert abs(player.next().recorded - start) <= timedelta(seconds=3)
    for answer in (*answers, live):
        recorder.api.delete(f"/api/v1/streams/{answer['id']}")


def test_ffprobe_reads_the_playback_url(recorder: GatewayProcess) -> None:
    answer = play(recorder, minutes_ago(45), 60)
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-of", "json", "-show_streams", answer["urls"]["http_flv"]],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    kinds = {stream["codec_type"]: stream["codec_name"] for stream in json.loads(done.stdout)["streams"]}
    assert kinds == {"video": "h264", "audio": "pcm_alaw"}
    recorder.api.delete(f"/api/v1/streams/{answer['id']}")


def test_a_playback_that_nobody_watches_ends(recorder: GatewayProcess) -> None:
    answer = play(recorder, minutes_ago(45), 600)
    assert recorder.wait_event("stream.stopped", stream_id=answer["id"])["reason"] == "idle"


def test_records_of_a_day_are_complete_and_sorted(recorder: GatewayProcess) -> None:
    start, end = minutes_ago(20 * 60), minutes_ago(0)
    path = f"/devices/{DEVICE}/channels/{channel_of(recorder)}/records"
    answer = recorder.api.get(
        f"/api/v1{path}", params={"start": start.isoformat(), "end": end.isoformat()}
    ).json()
    assert (answer["partial"], answer["answered"]) == (False, True)
    assert answer["total"] == answer["expected"] == len(answer["items"]) >= 120
    spans = [
        (datetime.fromisoformat(item["start"]), datetime.fromisoformat(item["end"]))
        for item in answer["items"]
    ]
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert spans[0][0] <= start < spans[0][1]
    assert all(begin.utcoffset() == timedelta(hours=8) for begin, _ in spans)


def test_what_a_control_did_is_seen_without_anybody_watching(recorder: GatewayProcess) -> None:
    answer = play(recorder, minutes_ago(70), 600)
    control(recorder, answer["id"], action="seek", position_s=200)
    assert effect(recorder, answer["id"]) == "seen"
    assert recorder.get(f"/streams/{answer['id']}")["history"]["position_s"] >= 200
    recorder.api.delete(f"/api/v1/streams/{answer['id']}")
