"""Devices over HTTP."""

from __future__ import annotations

import pytest

from gb28181gw.access.roles import Role
from tests.support.api_services import CAMERA, NVR, PENDING, STRANGER, api_rig

FIELDS = {
    "id", "name", "online", "transport", "remote_address", "manufacturer", "model", "firmware", "edition",
    "channel_count", "registered_at", "last_seen_at", "approved", "quirks",
}  # fmt: skip
ADDED = {"subscribe"}
"""Fields beyond the contract."""


async def test_a_device_has_exactly_the_fields_of_the_contract() -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.get(f"/api/v1/devices/{NVR}")
        assert answer.status_code == 200
        device = answer.json()
        assert set(device) == FIELDS | ADDED
        assert device["id"] == NVR
        assert device["name"] == "Gate 东门"
        assert device["online"] is True
        assert device["approved"] is True
        assert device["transport"] == "udp"
        assert device["remote_address"] == "192.0.2.10:5060"
        assert device["edition"] == "2.0"
        assert device["channel_count"] == 2
        assert device["registered_at"] == "2023-11-15T06:12:20.000+08:00"
        assert device["quirks"] == {"xml.bare_ampersand": 3}


async def test_lists_are_paged_and_searched() -> None:
    async with api_rig() as rig, rig.client() as client:
        both = (await client.get("/api/v1/devices")).json()
        assert [item["id"] for item in both["items"]] == [NVR, PENDING]
        assert both["total"] == 2
        second = (await client.get("/api/v1/devices", params={"page": 2, "size": 1})).json()
        assert [item["id"] for item in second["items"]] == [PENDING]
        assert second["total"] == 2
        found = (await client.get("/api/v1/devices", params={"q": NVR})).json()
        assert found["total"] == 1
        beyond = (await client.get("/api/v1/devices", params={"page": 9})).json()
        assert beyond == {"items": [], "total": 2}


@pytest.mark.parametrize("query", ["page=0", "page=x", "size=0", "size=501", "size=-1"])
async def test_paging_out_of_range_names_the_field(query: str) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.get(f"/api/v1/devices?{query}")
        assert answer.status_code == 422
        assert answer.json()["code"] == "gb.route.invalid"
        assert query.partition("=")[0] in answer.json()["detail"]


async def test_provision_change_remove() -> None:
    async with api_rig() as rig, rig.client() as client:
        body = {
            "id": STRANGER,
            "password": "long enough",
            "name": "South",
            "media_transport": "tcp-passive",
            "charset": "gbk",
            "timezone": "+07:00",
            "dialect": {"edition": "2.0", "qop": False},
        }
        made = await client.post("/api/v1/devices", json=body)
        assert made.status_code == 201
        assert made.headers["location"] == f"/api/v1/devices/{STRANGER}"
        assert made.json()["online"] is False
        assert made.json()["transport"] is None
        change = rig.devices.changes[0][1]
        assert change.password == "long enough"
        assert change.charset in ("GB2312", "GB18030")
        assert change.dialect == {"edition": "2.0", "qop": "false"}
        again = await client.post("/api/v1/devices", json=body)
        assert (again.status_code, again.json()["code"]) == (409, "gb.route.exists")
        changed = await client.patch(f"/api/v1/devices/{STRANGER}", json={"name": "North"})
        assert changed.status_code == 200
        assert rig.devices.changes[-1][1].name == "North"
        assert rig.devices.changes[-1][1].password is None
        assert (await client.delete(f"/api/v1/devices/{STRANGER}")).status_code == 204
        assert (await client.get(f"/api/v1/devices/{STRANGER}")).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "id"),
        ({"id": ""}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": STRANGER, "passwort": "x"}, "passwort"),
        ({"id": STRANGER, "password": "über"}, "password"),
        ({"id": STRANGER, "media_transport": "tls"}, "media_transport"),
        ({"id": STRANGER, "charset": "latin-1"}, "charset"),
        ({"id": STRANGER, "timezone": "Asia/Shanghai"}, "timezone"),
        ({"id": STRANGER, "dialect": {"colour": "red"}}, "dialect"),
        ({"id": STRANGER, "name": "a\nb"}, "name"),
    ],
)
async def test_a_wrong_field_is_named(body: dict[str, object], field: str) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post("/api/v1/devices", json=body)
        assert answer.status_code == 422
        problem = answer.json()
        assert problem["code"] == "gb.route.invalid"
        assert problem["detail"].startswith(f"{field}")
        assert problem["errors"][0]["field"].startswith(field)


async def test_approve_takes_an_empty_body() -> None:
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        answer = await client.post(f"/api/v1/devices/{PENDING}/approve")
        assert answer.status_code == 200
        assert answer.json()["approved"] is True


async def test_catalogue_query_and_progress() -> None:
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        asked = await client.post(f"/api/v1/devices/{NVR}/catalog")
        assert asked.status_code == 202
        assert rig.catalogue.refreshed == [NVR]
        progress = (await client.get(f"/api/v1/devices/{NVR}/catalog")).json()
        assert (progress["state"], progress["received"], progress["expected"]) == ("partial", 3, 4)
        never = (await client.get(f"/api/v1/devices/{PENDING}/catalog")).json()
        assert never["state"] is None


async def test_channels_are_what_can_be_played_and_the_tree_is_everything() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        channels = (await client.get(f"/api/v1/devices/{NVR}/channels")).json()
        assert [item["name"] for item in channels["items"]] == ["Door", "Yard"]
        assert set(channels["items"][0]) == {
            "id", "device_id", "name", "status", "ptz_type", "parent_id", "civil_code", "longitude", "latitude",
            "manufacturer", "model", "fault",
        }  # fmt: skip
        one = (await client.get(f"/api/v1/devices/{NVR}/channels/{CAMERA}")).json()
        assert one == channels["items"][0]
        gone = await client.get(f"/api/v1/devices/{NVR}/channels/34020000001320000003")
        assert (gone.status_code, gone.json()["code"]) == (404, "gb.route.channel_unknown")
        tree = (await client.get(f"/api/v1/devices/{NVR}/tree")).json()
        assert tree["total"] == 3
        assert {item["kind"] for item in tree["items"]} == {"camera", "organisation"}
        found = (await client.get("/api/v1/channels", params={"q": "YARD"})).json()
        assert [item["name"] for item in found["items"]] == ["Yard"]


async def test_s01_viewers_do_not_see_devices_that_wait() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as viewer, rig.client(Role.OPERATOR) as operator:
        assert (await viewer.get("/api/v1/devices")).json()["total"] == 1
        assert (await operator.get("/api/v1/devices")).json()["total"] == 2
        assert (await viewer.get("/api/v1/channels")).json()["total"] == 2
        assert (await operator.get("/api/v1/channels")).json()["total"] == 3


@pytest.mark.parametrize("tail", ["", "/channels", "/tree", "/catalog", f"/channels/{CAMERA}"])
async def test_s09_unknown_and_forbidden_objects_look_alike(tail: str) -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        unknown = await client.get(f"/api/v1/devices/{STRANGER}{tail}")
        forbidden = await client.get(f"/api/v1/devices/{PENDING}{tail}")
        assert unknown.status_code == forbidden.status_code == 404
        texts = [
            {
                k: v.replace(i, "ID") if isinstance(v, str) else v
                for k, v in answer.json().items()
                if k != "trace_id"
            }
            for answer, i in ((unknown, STRANGER), (forbidden, PENDING))
        ]
        assert texts[0] == texts[1]
