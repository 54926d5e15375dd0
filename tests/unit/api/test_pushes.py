"""Pushes on the API: who may, and that no answer repeats the URL."""

from __future__ import annotations

from typing import Any

import pytest

from gb28181gw.access.roles import Role
from tests.support.api_services import CAMERA, NVR, api_rig

PUSH = f"/api/v1/devices/{NVR}/channels/{CAMERA}/push"


async def test_a_push_is_added_listed_and_removed() -> None:
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        added = await client.post(PUSH, json={"url": "rtmp://u:geheim@h/live/geheim", "audio": False})
        assert added.status_code == 201
        assert (added.json()["url"], added.json()["audio"]) == ("rtmp://h/live/***", False)
        listed = await client.get("/api/v1/pushes")
        assert listed.json()["items"] == [added.json()]
        assert (await client.delete(f"/api/v1/pushes/{added.json()['id']}")).status_code == 204
        assert (await client.get(f"/api/v1/pushes/{added.json()['id']}")).status_code == 404


@pytest.mark.parametrize(
    "body", [{"url": "http://h/geheim"}, {"url": ["geheim"]}, {"url": "rtmp://h/a/geheim", "video": "geheim"}]
)
async def test_s14_a_refusal_does_not_repeat_the_url(body: dict[str, Any]) -> None:
    async with api_rig() as rig, rig.client(Role.ADMIN) as client:
        refused = await client.post(PUSH, json=body)
        assert refused.status_code == 422
        assert "geheim" not in refused.text


async def test_s09_a_viewer_may_not_push() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        assert (await client.post(PUSH, json={"url": "rtmp://h/live/x"})).status_code == 403
        assert (await client.get("/api/v1/pushes")).status_code == 403
