"""Each deviation of recorders that the simulator knows, against a whole gateway: search, steering, ends."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.support.field import Field, Plan, running_field
from tests.support.gateway import media_range, wait_until
from tests.support.recorded import Player, minutes_ago

ROWS = (
    "PB-01", "PB-04", "PB-04-LOST", "PB-04-LATE", "PB-05", "PB-06", "PB-07", "PB-08", "PB-08-ALL",
    "PB-08-REFUSED", "PB-08-TIMES", "PB-09", "PB-11", "PB-11-BYE", "PB-12", "PB-12-INFO", "PB-13", "PB-14",
    "PB-14-STOP", "PB-16", "PB-18", "INV-01", "INV-11", "INV-21", "INV-03", "F-05-SILENT", "INV-30", "INV-13",
)  # fmt: skip
SMALL = {"channels": 1, "size": "320x240", "bitrate_kbps": 200, "record_file_s": 20}
PLANS = {row: Plan(rows=(row,), options=SMALL) for row in ROWS}
PLANS["none"] = Plan(rows=(), options={**SMALL, "record_hours": 0.0})


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("playback-field")
    with running_field(directory, PLANS, media={"idle_stop_s": 2, "ports": media_range(400)}) as field:
        yield field


def channel(devices: Field, name: str) -> str:
    devices.device(name, channels=1)
    return f"/devices/{devices.ids[name]}/channels/{devices.channels(name)[0]['id']}"


def records(devices: Field, name: str, minutes: float = 30, length: float = 10) -> dict[str, Any]:
    start = minutes_ago(minutes)
    end = start + timedelta(minutes=length)
    answer = devices.gateway.api.get(
        f"/api/v1{channel(devices, name)}/records",
        params={"start": start.isoformat(), "end": end.isoformat()},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ask(devices: Field, name: str, seconds: float = 20, minutes: float = 30, **body: Any) -> Any:
    start = minutes_ago(minutes)
    start -= timedelta(seconds=start.second % 20)  # the start of a file, and of a group of pictures
    span = {"start": start.isoformat(), "end": (start + timedelta(seconds=seconds)).isoformat()}
    return start, devices.gateway.post(f"{channel(devices, name)}/playback", {**span, **body})


def played(devices: Field, name: str, seconds: float = 20, **body: Any) -> tuple[datetime, dict[str, Any]]:
    start, answer = ask(devices, name, seconds, **body)
    assert answer.status_code == 200, answer.text
    return start, answer.json()


def ended(devices: Field, stream: dict[str, Any]) -> str:
    return str(devices.gateway.wait_event("stream.stopped", 30, stream_id=stream["id"])["reason"])


def effect(devices: Field, stream: dict[str, Any]) -> str:
    def look() -> str:
        told = devices.gateway.get(f"/streams/{stream['id']}")["history"]["control"]
        return "" if told is None or told["effect"] == "waiting" else str(told["effect"])

    return wait_until(look, "the effect of the control")


def control(devices: Field, stream: dict[str, Any], **body: Any) -> Any:
    return devices.gateway.post(f"/streams/{stream['id']}/control", body)


# --- search -------------------------------------------------------------------------------------------------------


def whole_list(devices: Field, name: str, *quirks: str) -> None:
    found = records(devices, name)
    assert (found["partial"], found["total"]) == (False, found["expected"])
    assert 30 <= found["total"] <= 31
    starts = [datetime.fromisoformat(item["start"]) for item in found["items"]]
    assert {after - before for before, after in pairwise(starts)} == {timedelta(seconds=20)}
    assert {item["type"] for item in found["items"]} == {"time", "alarm"}
    assert set(quirks) <= devices.quirks(name, *quirks).keys()


def test_pb01_times_in_any_form_are_read(devices: Field) -> None:
    whole_list(devices, "PB-01", "time.form")


def test_pb04_late_and_repeated_parts_are_one_list(devices: Field) -> None:
    whole_list(devices, "PB-04-LATE")


def test_pb18_odd_fields_of_recordings_are_read(devices: Field) -> None:
    whole_list(devices, "PB-18", "record.form")


def test_pb04_one_at_a_time_over_seconds_is_waited_for(devices: Field) -> None:
    found = records(devices, "PB-04", length=5)
    assert (found["partial"], found["total"]) == (False, found["expected"])
    assert 15 <= found["total"] <= 16


def test_pb04_lost_parts_are_said_to_be_missing(devices: Field) -> None:
    found = records(devices, "PB-04-LOST")
    assert found["partial"]
    assert 0 < found["total"] < found["expected"]
    assert devices.gateway.seen("records.partial", device_id=devices.ids["PB-04-LOST"])


def test_pb05_searches_of_a_device_wait_for_each_other_and_equal_ones_are_one(devices: Field) -> None:
    path = f"/api/v1{channel(devices, 'PB-05')}/records"
    start = minutes_ago(30)

    def search(minutes: float) -> dict[str, Any]:
        end = start + timedelta(minutes=minutes)
        answer = devices.gateway.api.get(path, params={"start": start.isoformat(), "end": end.isoformat()})
        return dict(answer.json())

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(search, [1, 1, 1, 2]))
    assert [one["partial"] for one in found] == [False] * 4
    assert [one["total"] for one in found] == [one["expected"] for one in found]
    assert [3 <= found[0]["total"] <= 4, 6 <= found[3]["total"] <= 7] == [True, True]
    assert devices.noted("PB-05", "query") <= 5  # catalogue, device info, device status and two searches


def test_pb06_no_answer_when_nothing_is_recorded_is_an_empty_list(devices: Field) -> None:
    found = records(devices, "PB-06", minutes=60 * 48)
    assert (found["items"], found["partial"], found["answered"]) == ([], False, False)


def test_nothing_recorded_is_an_empty_list(devices: Field) -> None:
    found = records(devices, "none")
    assert (found["items"], found["partial"], found["answered"], found["expected"]) == ([], False, True, 0)


# --- the span -----------------------------------------------------------------------------------------------------


def test_pb07_a_device_that_runs_past_the_end_is_stopped_by_our_clock(devices: Field) -> None:
    start, stream = played(devices, "PB-07", 4)
    with Player(stream["urls"]["http_flv"]) as player:
        seen = player.rest()
    assert seen[0].recorded <= start - timedelta(seconds=6)
    assert ended(devices, stream) == "end_time"


def test_pb13_gaps_do_not_stop_a_playback(devices: Field) -> None:
    _, stream = played(devices, "PB-13", 25)
    control(devices, stream, action="scale", scale=4)
    with Player(stream["urls"]["http_flv"]) as player:
        seen = player.rest()
    gaps = [
        (before, after)
        for before, after in pairwise(seen)
        if after.recorded - before.recorded > timedelta(seconds=1)
    ]
    assert len(gaps) == 1
    assert gaps[0][1].recorded - gaps[0][0].recorded >= timedelta(seconds=5)
    assert gaps[0][1].seconds - gaps[0][0].seconds < 1  # players do not stand still for it
    assert ended(devices, stream) == "end_of_file"


# --- steering -----------------------------------------------------------------------------------------------------


def without_effect(devices: Field, name: str, body: dict[str, Any]) -> None:
    _, stream = played(devices, name, 300)
    with Player(stream["urls"]["http_flv"]) as player:
        player.take(0.5)
        assert control(devices, stream, **body).status_code == 204
        player.take(8.0)
        assert effect(devices, stream) == "none"
    assert devices.gateway.seen("playback.no_effect", stream_id=stream["id"], action=body["action"])
    history = devices.gateway.get(f"/streams/{stream['id']}")["history"]
    assert history["position_s"] < 30
    assert not history["paused"]
    devices.gateway.api.delete(f"/api/v1/streams/{stream['id']}")


def test_pb08_a_speed_without_effect_is_told(devices: Field) -> None:
    without_effect(devices, "PB-08", {"action": "scale", "scale": 4})


@pytest.mark.parametrize(
    "body",
    [
        {"action": "scale", "scale": 4},
        {"action": "scale", "scale": -1},
        {"action": "seek", "position_s": 200},
        {"action": "pause"},
    ],
    ids=["scale", "backwards", "seek", "pause"],
)
def test_pb08_all_an_ok_without_effect_is_told(devices: Field, body: dict[str, Any]) -> None:
    without_effect(devices, "PB-08-ALL", body)


def test_pb08_times_that_go_on_at_1_is_seen(devices: Field) -> None:
    start, stream = played(devices, "PB-08-TIMES", 300)
    with Player(stream["urls"]["http_flv"]) as player:
        player.take(0.5)
        assert control(devices, stream, action="scale", scale=4).status_code == 204
        player.take(4.0)
        assert effect(devices, stream) == "seen"
        seen = player.take(1.0)
        assert seen[-1].recorded - start > timedelta(seconds=12)
    devices.gateway.api.delete(f"/api/v1/streams/{stream['id']}")


def test_pb08_refused_speed_is_its_own_error_and_the_stream_goes_on(devices: Field) -> None:
    _, stream = played(devices, "PB-08-REFUSED", 300)
    answer = control(devices, stream, action="scale", scale=8)
    assert (answer.status_code, answer.json()["code"]) == (502, "gb.sip.command_failed")
    assert "400" in answer.json()["detail"]
    assert control(devices, stream, action="pause").status_code == 204
    devices.gateway.api.delete(f"/api/v1/streams/{stream['id']}")


def test_pb09_the_form_of_2011_is_a_switch_of_the_dialect(devices: Field) -> None:
    _, stream = played(devices, "PB-09", 300)
    refused = control(devices, stream, action="pause")
    assert (refused.status_code, refused.json()["sip_status"]) == (502, 400)
    changed = devices.gateway.api.patch(
        f"/api/v1/devices/{devices.ids['PB-09']}", json={"dialect": {"rtsp": "MANSRTSP/1.0"}}
    )
    assert changed.status_code == 200, changed.text
    assert control(devices, stream, action="pause").status_code == 204
    assert devices.noted("PB-09", "steered") == 1
    devices.gateway.api.delete(f"/api/v1/streams/{stream['id']}")


# --- the end ------------------------------------------------------------------------------------------------------


def ends(devices: Field, name: str, reason: str) -> None:
    start, stream = played(devices, name, 3)
    with Player(stream["urls"]["http_flv"]) as player:
        seen = player.rest()
    assert seen[-1].recorded == start + timedelta(seconds=3) - timedelta(milliseconds=40)
    assert ended(devices, stream) == reason


def test_pb11_an_end_without_a_word_is_noticed(devices: Field) -> None:
    ends(devices, "PB-11", "end_silent")


def test_pb11_bye_is_an_end(devices: Field) -> None:
    ends(devices, "PB-11-BYE", "end_of_file")


def test_pb12_media_status_outside_the_dialog_finds_its_stream(devices: Field) -> None:
    ends(devices, "PB-12", "end_of_file")


def test_pb12_info_with_media_status_is_taken(devices: Field) -> None:
    ends(devices, "PB-12-INFO", "end_of_file")


def test_pb14_a_121_of_each_file_ends_nothing_while_the_stream_goes_on(devices: Field) -> None:
    start, stream = played(devices, "PB-14", 50)
    control(devices, stream, action="scale", scale=8)
    with Player(stream["urls"]["http_flv"]) as player:
        seen = player.rest()
    assert seen[-1].recorded == start + timedelta(seconds=50) - timedelta(milliseconds=40)
    assert ended(devices, stream) == "end_of_file"


def test_pb14_stop_with_each_file_the_next_is_asked_for(devices: Field) -> None:
    start, stream = played(devices, "PB-14-STOP", 50)
    with Player(stream["urls"]["http_flv"]) as player:
        seen = player.rest()
    assert [one.recorded for one in seen] == [
        start + timedelta(milliseconds=40 * number) for number in range(50 * 25)
    ]
    assert ended(devices, stream) == "end_of_file"
    assert len(devices.gateway.seen("stream.retrying", stream_id=stream["id"])) == 2


# --- refusals: each its own error, and nothing is left open --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body", "status", "code", "sip_status"),
    [
        ("none", {}, 502, "gb.sip.rejected", 404),
        ("INV-11", {}, 502, "gb.sip.rejected", 486),
        ("INV-30", {"transport": "udp"}, 504, "gb.sip.no_answer", None),
        ("INV-21", {"transport": "tcp-passive"}, 504, "gb.media.tcp_not_connected", None),
    ],
)
def test_refusals_have_their_own_errors_and_leave_nothing_open(
    devices: Field, name: str, body: dict[str, Any], status: int, code: str, sip_status: int | None
) -> None:
    _, answer = ask(devices, name, **body)
    told = answer.json()
    assert (answer.status_code, told["code"], told.get("sip_status")) == (status, code, sip_status)
    wait_until(lambda: not streams_of(devices, name), "the stream to be gone")
    wait_until(
        lambda: not any(one.calls for one in devices.simulations[name].devices), "the calls to be over"
    )


def streams_of(devices: Field, name: str) -> list[dict[str, Any]]:
    return [one for one in devices.gateway.get("/streams")["items"] if one["device_id"] == devices.ids[name]]


def test_pb16_a_channel_that_is_busy_with_live_says_486(devices: Field) -> None:
    path = channel(devices, "PB-16")
    live = devices.gateway.post(f"{path}/live").json()
    _, answer = ask(devices, "PB-16")
    assert (answer.json()["code"], answer.json()["sip_status"]) == ("gb.sip.rejected", 486)
    assert "live" in answer.json()["detail"]
    devices.gateway.api.delete(f"/api/v1/streams/{live['id']}")
    _, stream = played(devices, "PB-16")
    devices.gateway.api.delete(f"/api/v1/streams/{stream['id']}")


def test_a_recording_may_come_with_any_ssrc_of_its_own(devices: Field) -> None:
    _, stream = played(devices, "INV-03")
    assert "rtp.ssrc_mismatch" in devices.quirks("INV-03", "rtp.ssrc_mismatch")
    devices.gateway.api.delete(f"/api/v1/streams/{stream['id']}")


def test_steering_a_live_stream_is_refused(devices: Field) -> None:
    live = devices.gateway.post(f"{channel(devices, 'INV-01')}/live").json()
    answer = control(devices, live, action="pause")
    assert (answer.status_code, answer.json()["code"]) == (409, "gb.route.not_steerable")
    assert devices.noted("INV-01", "steered") == 0
    devices.gateway.api.delete(f"/api/v1/streams/{live['id']}")


def test_a_seek_outside_the_span_never_reaches_the_device(devices: Field) -> None:
    _, stream = played(devices, "INV-13", 20)
    answer = control(devices, stream, action="seek", position_s=20)
    assert (answer.status_code, answer.json()["code"]) == (422, "gb.route.invalid")
    assert devices.noted("INV-13", "steered") == 0
    devices.gateway.api.delete(f"/api/v1/streams/{stream['id']}")


def test_one_info_for_each_control(devices: Field) -> None:
    _, stream = played(devices, "INV-01", 300)
    before = devices.noted("INV-01", "steered")
    for number, body in enumerate(
        ({"action": "pause"}, {"action": "resume"}, {"action": "seek", "position_s": 60}), before + 1
    ):
        assert control(devices, stream, **body).status_code == 204
        assert devices.noted("INV-01", "steered") == number
    steered = [note.facts["cseq"] for note in devices.simulations["INV-01"].noted("steered")]
    assert steered[-3:] == ["1", "2", "3"]
    devices.gateway.api.delete(f"/api/v1/streams/{stream['id']}")
