"""Registration at upper platforms, what they see, and what they ask: a real gateway, a scripted platform."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.gateway import wait_until
from tests.support.sim_platform import REALM
from tests.support.upper import LOCAL_ID, NVR, UPPER, cascade

CAMERA = "34020000001320000001"
SECOND = "34020000001320000002"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_r001_r069_registers_with_digest_serves_and_unregisters(tmp_path: Path, transport: str) -> None:
    async with cascade(tmp_path) as both:
        added = await both.add_upper(transport=transport)
        assert "password" not in added and added["local_id"] == LOCAL_ID
        found = await both.registered()
        assert found["last_error"] == "" and found["remote_address"].startswith("127.0.0.1:")
        assert both.gateway.wait_event("upper.registered", upper_id=UPPER)["transport"] == transport

        platform = both.platform
        shared = await both.share(items=[{"device_id": NVR, "channel_id": CAMERA}])
        assert [one["shared_id"] for one in shared["items"]] == [CAMERA]
        items = await both.catalogue(41)
        assert [item["DeviceID"] for item in items] == [CAMERA]
        assert items[0]["ParentID"] == LOCAL_ID and items[0]["Status"] == "ON"

        platform.query(LOCAL_ID, "DeviceInfo", sn=42)
        assert "<Model>gb28181gw</Model>" in await both.answer(42)
        platform.query(LOCAL_ID, "PresetQuery", sn=43, target=CAMERA)
        assert "<PresetName>Gate</PresetName>" in await both.answer(43)
        platform.query(
            LOCAL_ID,
            "DeviceControl",
            sn=44,
            target=CAMERA,
            root="Control",
            extra="<RecordCmd>Record</RecordCmd>",
        )
        answer = await both.answer(44)
        assert "<Result>OK</Result>" in answer and f"<DeviceID>{CAMERA}</DeviceID>" in answer

        answer = await asyncio.to_thread(both.gateway.api.delete, f"/api/v1/uppers/{UPPER}")
        assert answer.status_code == 204
        await platform.until(lambda: LOCAL_ID not in platform.registered)
        assert (await asyncio.to_thread(both.gateway.api.get, f"/api/v1/uppers/{UPPER}")).status_code == 404


async def test_s21_what_is_not_shared_is_unknown_and_what_is_not_allowed_is_refused(tmp_path: Path) -> None:
    async with cascade(tmp_path) as both:
        await both.add_upper(control=False)
        await both.share(items=[{"device_id": NVR, "channel_id": CAMERA}])
        platform = both.platform

        async def status(sn: int, target: str, **more: str) -> int:
            before = len(platform.responses)
            platform.query(LOCAL_ID, more.pop("command", "PresetQuery"), sn=sn, target=target, **more)
            await platform.until(lambda: len(platform.responses) > before)
            return platform.responses[-1][0].status

        assert await status(1, SECOND) == 404
        assert await status(2, CAMERA) == 200
        assert (
            await status(
                3, CAMERA, command="DeviceControl", root="Control", extra="<GuardCmd>SetGuard</GuardCmd>"
            )
            == 403
        )
        wait_until(lambda: both.gateway.seen("upper.request_refused", sip_status=403), "a refusal")
        assert both.gateway.seen("upper.request_refused", sip_status=404)


async def test_cs01_served_under_another_code_of_ours_and_cs02_options_are_answered(tmp_path: Path) -> None:
    async with cascade(tmp_path) as both:
        await both.add_upper()
        await both.registered()
        platform = both.platform
        platform.query(LOCAL_ID, "DeviceInfo", sn=7, target="34020100002000000077")
        assert "<DeviceID>34020100002000000077</DeviceID>" in await both.answer(7)
        assert both.gateway.wait_event("upper.other_id")["seen"] == "34020100002000000077"
        before = len(platform.responses)
        platform.send(platform.request("OPTIONS", LOCAL_ID, call_id="o1"), platform.registered[LOCAL_ID])
        await platform.until(lambda: len(platform.responses) > before)
        options = platform.responses[-1][0]
        assert options.status == 200 and "MESSAGE" in options.headers.get_all("Allow")


async def test_cs03_an_upper_that_restarted_is_registered_at_again_by_itself(tmp_path: Path) -> None:
    async with cascade(tmp_path, devices=0) as both:
        await both.add_upper()
        await both.registered()
        platform = both.platform
        port = platform.port
        await platform.close()
        lost = await asyncio.to_thread(both.gateway.wait_event, "upper.lost", 60)
        assert lost["reason"] in ("no_answer", "path_lost")
        assert (await both.registered(False))["last_error"]
        platform.registered.clear()
        await platform.open(port)
        await platform.until(lambda: LOCAL_ID in platform.registered, 30)
        assert (await both.registered())["last_error"] == ""


async def test_s07_a_foreign_realm_gets_no_credentials(tmp_path: Path) -> None:
    async with cascade(tmp_path, devices=0) as both:
        body = {
            "id": UPPER, "domain": REALM, "host": "127.0.0.1", "port": both.platform.port,
            "password": "x", "realm": "another",
        }  # fmt: skip
        await asyncio.to_thread(both.gateway.post, "/uppers", body)
        line = await asyncio.to_thread(both.gateway.wait_event, "upper.register_failed")
        assert line["sip_status"] == 401 and "realm" in line["detail"]
        assert both.platform.authorizations == []
        assert (await both.upper())["registered"] is False


async def test_i09_uppers_and_shares_survive_kill(tmp_path: Path) -> None:
    async with cascade(tmp_path) as both:
        await both.add_upper(name="City")
        await both.share(
            items=[{"device_id": NVR, "channel_id": CAMERA, "shared_id": "34020100001320000777"}]
        )
        gateway, platform = both.gateway, both.platform
        await asyncio.to_thread(gateway.kill)
        platform.registered.clear()
        await asyncio.to_thread(gateway.start)
        await platform.until(lambda: LOCAL_ID in platform.registered)
        found = await both.registered()
        assert found["name"] == "City" and found["shared_channels"] == 1
        rows = await asyncio.to_thread(gateway.get, f"/uppers/{UPPER}/channels")
        assert rows["items"][0]["shared_id"] == "34020100001320000777"


async def test_cat13_cs09_equal_channel_ids_of_two_devices_get_ids_of_their_own(tmp_path: Path) -> None:
    second = "34020000001180000002"
    async with cascade(tmp_path, "--channel-id", CAMERA, devices=2, channels=1) as both:
        await asyncio.to_thread(both.gateway.wait_online, second, 1)
        await both.add_upper()
        rows = (await both.share(all=True))["items"]
        ids = [row["shared_id"] for row in rows]
        assert len(rows) == 2 and len(set(ids)) == 2
        again = (await both.share(all=True))["items"]
        assert [row["shared_id"] for row in again] == ids
        refused = await asyncio.to_thread(
            both.gateway.api.put,
            f"/api/v1/uppers/{UPPER}/channels",
            json={"items": [
                {"device_id": NVR, "channel_id": CAMERA, "shared_id": CAMERA},
                {"device_id": second, "channel_id": rows[1]["channel_id"], "shared_id": CAMERA},
            ]},
        )  # fmt: skip
        assert refused.status_code == 422 and "row 2" in refused.json()["detail"]
