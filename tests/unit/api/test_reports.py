"""Alarms and positions over HTTP."""

from __future__ import annotations

import pytest

from gb28181gw.access.roles import Role
from tests.support.api_services import CAMERA, NOW, NVR, api_rig


async def test_alarms_have_the_times_of_the_zone() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        found = (await client.get("/api/v1/alarms")).json()
        assert found["total"] == 7
        assert found["items"][0] == {
            "id": 3, "device_id": NVR, "channel_id": CAMERA, "priority": 1, "method": 5, "type": "6",
            "event_type": "1", "time": "2023-11-15T06:13:19.000+08:00", "received_at": "2023-11-15T06:13:20.000+08:00",
            "description": "东门", "longitude": None, "latitude": None,
        }  # fmt: skip


async def test_filters_are_handed_on() -> None:
    async with api_rig() as rig, rig.client() as client:
        query = {
            "device_id": NVR, "channel_id": CAMERA, "priority": "2", "method": "1/5", "type": "6", "q": " gate ",
            "start": "2023-11-15T06:13:20", "end": "2023-11-14T22:13:21Z", "page": "3", "size": "10",
        }  # fmt: skip
        assert (await client.get("/api/v1/alarms", params=query)).status_code == 200
        (wanted,) = rig.reports.asked
        assert (wanted.device_id, wanted.channel_id, wanted.priority) == (NVR, CAMERA, 2)
        assert (wanted.methods, wanted.type, wanted.text) == (frozenset({1, 5}), "6", "gate")
        assert (wanted.start, wanted.end) == (NOW, NOW + 1)
        assert (wanted.offset, wanted.limit) == (20, 10)


@pytest.mark.parametrize("query", ["", "priority=0&method=0", "method=0/5"])
async def test_0_means_all(query: str) -> None:
    async with api_rig() as rig, rig.client() as client:
        await client.get(f"/api/v1/alarms?{query}")
        assert (rig.reports.asked[0].priority, rig.reports.asked[0].methods) == (0, frozenset())


@pytest.mark.parametrize("query", ["priority=5", "method=8", "method=a", "start=soon", "size=0"])
async def test_a_wrong_filter_is_named(query: str) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.get(f"/api/v1/alarms?{query}")
        assert answer.status_code == 422
        assert query.partition("=")[0] in answer.json()["detail"]


async def test_positions() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        found = (await client.get("/api/v1/positions?latest=true")).json()
        assert (found["items"][0]["longitude"], found["items"][0]["height"]) == (117.3, None)
        assert rig.reports.asked[0].latest
