"""Upper platforms over HTTP; what they do is tested in tests/loop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gb28181gw.access.roles import Role
from tests.support.api_services import CAMERA, NVR, api_rig

UPPER = "34020000002000000055"
SETTINGS = {
    "id": UPPER, "domain": "3402000000", "host": "192.0.2.9", "port": 5060, "transport": "udp",
    "password": "upper-secret", "edition": "2016", "charset": "gb2312",
}  # fmt: skip


async def test_an_upper_is_added_changed_and_removed_and_its_password_is_never_shown() -> None:
    async with api_rig() as rig, rig.client() as client:
        added = await client.post("/api/v1/uppers", json=SETTINGS)
        assert added.status_code == 201 and added.headers["location"] == f"/api/v1/uppers/{UPPER}"
        found = added.json()
        assert (found["edition"], found["charset"], found["tree"]) == ("2.0", "GB2312", "auto")
        assert (found["expires_s"], found["keepalive_s"]) == (86_400, 60)
        assert found["registered"] is False and found["last_error"]
        assert "upper-secret" not in added.text
        assert rig.uppers.views[UPPER].upper.password == "upper-secret"
        changed = await client.patch(
            f"/api/v1/uppers/{UPPER}", json={"tree": "groups", "media_allow": ["192.0.2.0/24"]}
        )
        assert (changed.json()["tree"], changed.json()["media_allow"]) == ("groups", ["192.0.2.0/24"])
        listed = (await client.get("/api/v1/uppers?q=192.0.2")).json()
        assert listed["total"] == 1 and "upper-secret" not in str(listed)
        assert (await client.delete(f"/api/v1/uppers/{UPPER}")).status_code == 204
        gone = await client.get(f"/api/v1/uppers/{UPPER}")
        assert (gone.status_code, gone.json()["code"]) == (404, "gb.route.upper_unknown")


@pytest.mark.parametrize(
    ("field", "value"),
    [("transport", "sctp"), ("tls_ca", "/etc/ca.pem"), ("port", 0), ("edition", "9"), ("tree", "round"),
     ("id", "../x"), ("passwort", "x"),
     ("media_allow", ["nowhere"]), ("host", "a b")],
)  # fmt: skip
async def test_a_wrong_field_is_named(field: str, value: object) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post("/api/v1/uppers", json={**SETTINGS, field: value})
        assert answer.status_code == 422 and field in answer.json()["detail"]
        assert rig.uppers.views == {}


async def test_channels_are_shared_as_list_and_as_table() -> None:
    path = f"/api/v1/uppers/{UPPER}/channels"
    async with api_rig() as rig, rig.client() as client:
        await client.post("/api/v1/uppers", json=SETTINGS)
        tried = await client.put(
            f"{path}?dry_run=true", json={"items": [{"device_id": NVR, "channel_id": CAMERA}]}
        )
        assert tried.json()["total"] == 1 and rig.uppers.shares == {}
        table = "device_id,channel_id,shared_id\r\n" + f"{NVR},{CAMERA},34020000001320000777\r\n"
        done = await client.put(
            f"{path}.csv", content=table.encode("utf-8-sig"), headers={"content-type": "text/csv"}
        )
        assert done.json()["items"][0]["shared_id"] == "34020000001320000777"
        found = (await client.get(path)).json()
        assert found == {"all": False, "items": done.json()["items"], "total": 1}
        exported = await client.get(f"{path}.csv")
        assert exported.headers["content-type"].startswith("text/csv")
        assert exported.text.splitlines()[1].startswith(f"{NVR},{CAMERA},34020000001320000777,")
        told = (await client.get(f"/api/v1/uppers/{UPPER}/catalog?tree=flat")).json()
        assert told["total"] == 1
        twice = {"items": [{"device_id": NVR, "channel_id": CAMERA}] * 2}
        refused = await client.put(path, json=twice)
        assert refused.status_code == 422 and "row 2" in refused.json()["detail"]
        headless = await client.put(f"{path}.csv", content=b"a,b\r\n1,2\r\n")
        assert headless.status_code == 422 and "device_id" in headless.json()["detail"]


async def test_s12_a_name_that_a_spreadsheet_would_run_is_text() -> None:
    async with api_rig() as rig, rig.client() as client:
        await client.post("/api/v1/uppers", json=SETTINGS)
        device = rig.devices.devices[NVR]
        device.channels[CAMERA] = replace(device.channels[CAMERA], name="=1+1")
        await client.put(
            f"/api/v1/uppers/{UPPER}/channels", json={"items": [{"device_id": NVR, "channel_id": CAMERA}]}
        )
        text = (await client.get(f"/api/v1/uppers/{UPPER}/channels.csv")).text
        assert "'=1+1" in text


async def test_s09_operators_see_and_admins_change() -> None:
    async with api_rig() as rig:
        async with rig.client(Role.OPERATOR) as client:
            assert (await client.get("/api/v1/uppers")).status_code == 200
            assert (await client.post("/api/v1/uppers", json=SETTINGS)).status_code == 403
        async with rig.client(Role.VIEWER) as client:
            assert (await client.get("/api/v1/uppers")).status_code == 403
