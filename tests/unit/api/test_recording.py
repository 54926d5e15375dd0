"""Plans and what was recorded, over the API."""

from __future__ import annotations

from typing import Any

import pytest

from gb28181gw.access.roles import Role
from tests.support.api_services import CAMERA, NVR, PENDING, api_rig

PATH = f"/api/v1/devices/{NVR}/channels/{CAMERA}/recording"
TIME = {"start": "2026-11-22T08:00:00+08:00", "end": "2026-11-22T09:00:00+08:00"}


async def test_a_plan_is_put_listed_read_and_removed() -> None:
    week = [
        {"days": ["mon", "sun"], "begin": "08:00", "end": "18:30"},
        {"days": ["tue"], "begin": "00:00", "end": "24:00"},
    ]
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        assert (await client.get(PATH)).status_code == 404
        answer = await client.put(PATH, json={"mode": "plan", "week": week, "keep_days": 7})
        assert answer.status_code == 200, answer.text
        assert answer.json() == (await client.get(PATH)).json()
        found = answer.json()
        assert (found["week"], found["keep_days"], found["state"]) == (week, 7, "idle")
        assert (await client.get("/api/v1/recordings")).json() == {"items": [found], "total": 1}
        assert (await client.delete(PATH)).status_code == 204
        assert (await client.get("/api/v1/recordings")).json()["total"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"mode": "sometimes"},
        {"mode": "plan"},
        {"mode": "continuous", "week": [{"days": ["mon"]}]},
        {"mode": "plan", "week": [{"days": []}]},
        {"mode": "plan", "week": [{"days": ["mon"], "begin": "18:00", "end": "08:00"}]},
        {"mode": "plan", "week": [{"days": ["mon"], "begin": "25:00"}]},
        {"mode": "event", "post_s": 0},
        {"mode": "continuous", "keep_days": 0},
        {"mode": "continuous", "extra": 1},
    ],
)
async def test_a_plan_that_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.put(PATH, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "gb.route.invalid")


async def test_channels_that_are_not_there_have_no_plan() -> None:
    async with api_rig() as rig, rig.client() as client:
        unknown = await client.put(PATH.replace(CAMERA, "34020000001320000099"), json={"mode": "continuous"})
        assert unknown.json()["code"] == "gb.route.channel_unknown"
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        hidden = await client.get(f"{PATH.replace(NVR, PENDING)}/spans", params=TIME)
        assert hidden.json()["code"] == "gb.route.device_unknown"


async def test_spans_lock_play_and_file() -> None:
    async with api_rig() as rig, rig.client() as client:
        (span,) = (await client.get(f"{PATH}/spans", params=TIME)).json()["items"]
        assert (span["size"], span["files"], span["locked"], span["trigger"]) == (5, 1, False, "plan")
        assert (await client.post(f"{PATH}/lock", json=TIME)).json() == {"files": 2}
        nothing = await client.post(f"{PATH}/playback", json=TIME)
        assert (nothing.status_code, nothing.json()["code"]) == (404, "gb.media.no_recording")
        file = await client.get(f"{PATH}/file", params=TIME)
        assert (file.status_code, file.content) == (200, b"ftypmoov")
        assert file.headers["content-disposition"] == f'attachment; filename="{CAMERA}_20261122T080000.mp4"'
        local = await client.get(f"{PATH}/spans", params={**TIME, "start": "2026-11-22T08:00:00"})
        assert local.status_code == 422
