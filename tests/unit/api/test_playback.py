"""Playback, its control, and the search for recordings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gb28181gw.access.roles import Role
from gb28181gw.devices.records import Location, RecordList
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.records import Record
from gb28181gw.gb.mansrtsp import Action, Pause, Resume, Scale, Seek
from gb28181gw.media.engine import MediaTransport
from tests.support.api_services import CAMERA, NVR, PENDING, api_rig, make_stream

CHANNEL = f"/api/v1/devices/{NVR}/channels/{CAMERA}"
START, END = "2024-05-01T08:00:00+08:00", "2024-05-01T00:30:00Z"
SPAN = {"start": START, "end": END}
START_UTC, END_UTC = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, 0, 30, tzinfo=UTC)


async def test_playback_answers_with_urls_of_its_own_path() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        answer = await client.post(
            f"{CHANNEL}/playback", json=SPAN | {"transport": "udp", "location": "centre"}
        )
        assert answer.status_code == 200
        assert (answer.json()["id"], answer.json()["kind"]) == ("p1", "playback")
        assert rig.streams.recordings == [(NVR, CAMERA, START_UTC, END_UTC, MediaTransport.UDP, True)]
        url = urlsplit(answer.json()["urls"]["http_flv"])
        assert url.path == "/playback/p1.flv"
        assert rig.services.tokens.read(url.path, parse_qs(url.query)["token"][0]) is not None
        stream = (await client.get("/api/v1/streams/p1")).json()
        assert stream["history"]["start"] == "2024-05-01T08:00:00.000+08:00"
        assert stream["history"]["time"] == "2024-05-01T08:00:00.000+08:00"
        assert stream["history"]["gaps"] == [{"at_s": 20.04, "seconds": 5.0}]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"start": START},
        {"start": "2024-05-01T08:00:00", "end": END},  # without an offset nobody knows what is meant
        {"start": END, "end": START},
        SPAN | {"speed": 4},
        SPAN | {"location": "moon"},
    ],
)
async def test_a_span_that_is_none_is_refused(body: dict[str, Any]) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post(f"{CHANNEL}/playback", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "gb.route.invalid")
        assert rig.streams.recordings == []


@pytest.mark.parametrize(
    ("body", "action"),
    [
        ({"action": "pause"}, Pause()),
        ({"action": "resume"}, Resume()),
        ({"action": "seek", "position_s": 12.5}, Seek(12.5)),
        ({"action": "seek", "position_s": 0}, Seek(0.0)),
        ({"action": "scale", "scale": 0.25}, Scale(0.25)),
        ({"action": "scale", "scale": -1}, Scale(-1.0)),
    ],
)
async def test_control_is_one_action(body: dict[str, Any], action: Action) -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        rig.streams.views["s1"] = make_stream(NVR, CAMERA)
        answer = await client.post("/api/v1/streams/s1/control", json=body)
        assert (answer.status_code, answer.content) == (204, b"")
        assert rig.streams.steered == [("s1", action)]


@pytest.mark.parametrize(
    "body",
    [
        {"action": "stop"},
        {"action": "seek"},
        {"action": "seek", "position_s": -1},
        {"action": "pause", "position_s": 1},
        {"action": "scale"},
        {"action": "scale", "scale": 0},
        {"action": "scale", "scale": 9},
        {"action": "scale", "scale": 0.1},
        {"action": "resume", "scale": 1},
    ],
)
async def test_control_that_is_none_is_refused(body: dict[str, Any]) -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.streams.views["s1"] = make_stream(NVR, CAMERA)
        answer = await client.post("/api/v1/streams/s1/control", json=body)
        assert answer.status_code == 422
        assert rig.streams.steered == []


async def test_the_refusal_of_the_device_is_told_with_its_status() -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.streams.views["s1"] = make_stream(NVR, CAMERA)
        rig.streams.error = GatewayError("gb.sip.rejected", "No.", sip_status=488)
        answer = await client.post("/api/v1/streams/s1/control", json={"action": "pause"})
        assert (answer.status_code, answer.json()["sip_status"]) == (502, 488)


async def test_streams_of_hidden_devices_cannot_be_steered() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        rig.streams.views["s1"] = make_stream(PENDING, CAMERA)
        answer = await client.post("/api/v1/streams/s1/control", json={"action": "pause"})
        assert answer.status_code == 404
        assert rig.streams.steered == []


async def test_records_are_told_with_offset_and_what_is_missing() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        here = timezone(timedelta(hours=8))
        rig.records.found = RecordList(
            items=(
                Record(
                    device_id=CAMERA,
                    name="Door",
                    start=datetime(2024, 5, 1, 8, 0, tzinfo=here),
                    end=datetime(2024, 5, 1, 8, 10, tzinfo=here),
                    kind="time",
                    size=1000,
                ),
            ),
            partial=True,
            sum_num=4,
        )
        answer = await client.get(
            f"{CHANNEL}/records", params={"start": START, "end": END, "type": "alarm", "location": "both"}
        )
        assert answer.status_code == 200
        assert rig.records.asked == [(NVR, CAMERA, START_UTC, END_UTC, "alarm", Location.BOTH)]
        told = answer.json()
        assert (told["total"], told["partial"], told["answered"], told["expected"]) == (1, True, True, 4)
        item = told["items"][0]
        assert item["start"] == "2024-05-01T08:00:00.000+08:00"
        assert item["end"] == "2024-05-01T08:10:00.000+08:00"
        assert (item["name"], item["type"], item["size"]) == ("Door", "time", 1000)


@pytest.mark.parametrize(
    "query",
    [{}, {"start": START}, {"start": END, "end": START}, {"start": "2024-05-01T08:00:00", "end": END}],
)
async def test_a_search_needs_a_span(query: dict[str, str]) -> None:
    async with api_rig() as rig, rig.client() as client:
        assert (await client.get(f"{CHANNEL}/records", params=query)).status_code == 422
        assert rig.records.asked == []
