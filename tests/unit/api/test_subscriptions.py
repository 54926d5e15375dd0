"""Subscriptions, PTZ positions and pictures over HTTP; what they do is tested in tests/loop."""

from __future__ import annotations

from gb28181gw.access.roles import Role
from tests.support.api_services import CAMERA, NVR, ORDER, PENDING, PICTURE, api_rig


async def test_subscriptions_are_listed_and_renewed() -> None:
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        found = (await client.get(f"/api/v1/devices/{NVR}/subscriptions")).json()
        assert found["total"] == 1
        assert found["items"][0] == {
            "kind": "catalog", "target": NVR, "state": "active", "event": "Catalog;id=1",
            "since": "2023-11-15T06:13:20.000+08:00", "expires_at": "2023-11-15T06:23:20.000+08:00",
            "renewed_at": "2023-11-15T06:13:20.000+08:00", "notified_at": None, "notifies": 0, "failures": 0,
            "reason": "", "detail": "", "sip_status": None,
        }  # fmt: skip
        assert (await client.post(f"/api/v1/devices/{NVR}/subscriptions")).status_code == 202
        assert rig.subscriptions.renewed == [NVR]


async def test_s09_a_viewer_sees_no_subscriptions_of_a_waiting_device() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        assert (await client.get(f"/api/v1/devices/{NVR}/subscriptions")).status_code == 200
        assert (await client.get(f"/api/v1/devices/{PENDING}/subscriptions")).status_code == 404
        assert (await client.post(f"/api/v1/devices/{NVR}/subscriptions")).status_code == 403


async def test_the_last_ptz_position() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        found = (await client.get(f"/api/v1/devices/{NVR}/channels/{CAMERA}/ptz")).json()
        assert (found["pan"], found["tilt"], found["zoom"], found["max_distance"]) == (120.5, 10.0, 2.0, None)
        none = await client.get(f"/api/v1/devices/{NVR}/channels/34020000001320000002/ptz")
        assert (none.status_code, none.json()["code"]) == (404, "gb.route.not_found")


async def test_pictures_are_ordered_listed_and_given_as_what_they_are() -> None:
    async with api_rig() as rig, rig.client() as client:
        order = await client.post(f"/api/v1/devices/{NVR}/channels/{CAMERA}/snapshots", json={"count": 3})
        assert order.status_code == 202 and order.json()["id"] == ORDER
        assert rig.snapshots.ordered == [(NVR, CAMERA, 3, 1, False)]
        assert (await client.get(f"/api/v1/snapshots/orders/{ORDER}")).json()["state"] == "waiting"
        assert (await client.get(f"/api/v1/snapshots/orders/{ORDER[:-1]}0")).status_code == 404
        assert (await client.get("/api/v1/snapshots/orders/../../healthz")).status_code == 404
        listed = (await client.get("/api/v1/snapshots?page=2&size=1")).json()
        assert listed["total"] == 5 and listed["items"][0]["path"] == f"/api/v1/snapshots/{PICTURE}/image"
        assert (rig.snapshots.asked[0].offset, rig.snapshots.asked[0].limit) == (1, 1)
        image = await client.get(f"/api/v1/snapshots/{PICTURE}/image")
        assert image.headers["content-type"] == "image/jpeg"
        assert image.headers["x-content-type-options"] == "nosniff"
        assert image.content == b"\xff\xd8\xff\xd9"
        assert (await client.get(f"/api/v1/snapshots/{'0' * 32}/image")).status_code == 404
