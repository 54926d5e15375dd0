"""Alarms and positions from a simulated device over SIP to the API."""

from __future__ import annotations

from pathlib import Path

import pytest

from gb28181gw.access.roles import Role
from gb28181gw.devices.reports import ReportFilter
from tests.support.commanding import bench
from tests.support.devices import SipDevice, device_id, gateway, until


@pytest.mark.parametrize("edition", ["1.0", "2.0", "3.0"])
async def test_a253_an_alarm_is_answered_stored_listed_and_told(tmp_path: Path, edition: str) -> None:
    async with bench(tmp_path, edition=edition, role=Role.VIEWER) as made:
        assert await made.device.raise_alarm("东门 有人")
        await until(lambda: made.sim.noted("alarm_answered"))
        (raised,), (answered,) = made.sim.noted("alarm"), made.sim.noted("alarm_answered")
        assert answered.facts == {"sn": raised.facts["sn"], "target": made.channel, "to": made.id}
        (event,) = made.running.bus.of("alarm.received")
        assert (event["channel_id"], event["priority"], event["method"]) == (made.channel, 2, 5)
        found = (await made.client.get("/api/v1/alarms")).json()
        assert found["total"] == 1
        alarm = found["items"][0]
        assert (alarm["device_id"], alarm["channel_id"]) == (made.id, made.channel)
        assert (alarm["priority"], alarm["method"], alarm["description"]) == (2, 5, "东门 有人")
        assert alarm["type"] == ("" if edition == "1.0" else "2")
        for query, total in (
            ("priority=2&method=0", 1), ("priority=0&method=1/5", 1), ("method=2", 0), ("priority=1", 0),
            (f"device_id={made.id}&q=东门", 1), ("start=2099-01-01T00:00:00", 0), ("channel_id=x", 0),
        ):  # fmt: skip
            assert (await made.client.get(f"/api/v1/alarms?{query}")).json()["total"] == total, query


async def test_ctl01_alarms_come_after_setguard(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-01",)) as made:
        assert not await made.device.raise_alarm()
        await made.on_channel("GuardCmd", GuardCmd="SetGuard")
        assert await made.device.raise_alarm()
        await until(lambda: made.running.bus.of("alarm.received"))


async def test_ctl02_an_alarm_input_that_is_not_in_the_catalogue(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-02",)) as made:
        await made.device.raise_alarm()
        await until(lambda: made.sim.noted("alarm_answered"))
        (alarm,) = (await made.client.get("/api/v1/alarms")).json()["items"]
        assert (alarm["device_id"], alarm["channel_id"][10:13]) == (made.id, "134")


async def test_an_alarm_is_raised_by_the_clock(tmp_path: Path) -> None:
    async with bench(tmp_path, alarm_s=0.1, position_s=0.1) as made:
        await until(lambda: len(made.running.bus.of("alarm.received")) >= 2)
        await until(lambda: made.running.reports.counters.positions >= 1)


async def test_a256_devices_of_before_2016_tell_no_positions(tmp_path: Path) -> None:
    async with bench(tmp_path, edition="1.1", alarm_s=0.1, position_s=0.05) as made:
        await until(lambda: len(made.running.bus.of("alarm.received")) >= 2)
        assert made.running.devices.messages.unhandled == {}
        assert made.running.reports.counters.positions == 0


@pytest.mark.parametrize("edition", ["2.0", "3.0"])
async def test_a256_positions_in_both_forms(tmp_path: Path, edition: str) -> None:
    async with bench(tmp_path, edition=edition, role=Role.VIEWER) as made:
        await made.device.tell_position()
        await until(lambda: made.running.reports.counters.positions)
        found = (await made.client.get("/api/v1/positions")).json()
        assert found["total"] == 1
        place = found["items"][0]
        assert place["channel_id"] == (made.channel if edition == "3.0" else made.id)
        assert (place["longitude"], place["latitude"], place["speed"]) == (117.27, 31.86, 36.0)
        latest = await made.client.get(f"/api/v1/positions?latest=true&device_id={made.id}")
        assert latest.json()["total"] == 1


async def test_ctl04_bursts_and_no_places(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-04",)) as made:
        await made.device.tell_position()
        counters = made.running.reports.counters
        await until(lambda: counters.positions + counters.positions_thinned == 4)
        assert counters.positions < 4
        assert made.running.devices.registry.require(made.id).quirks["position.unusable"] == 1
        place = (await made.client.get("/api/v1/positions")).json()["items"][-1]
        assert place["time"] == place["received_at"]


async def test_a259_the_end_of_an_upgrade_and_of_snapshots_are_events(tmp_path: Path) -> None:
    session = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
    async with bench(tmp_path) as made:
        upgrade = {
            "Firmware": "V2",
            "FileURL": "http://192.0.2.1/f",
            "Manufacturer": "A",
            "SessionID": session,
        }
        await made.command("DeviceUpgrade", DeviceUpgrade=upgrade)
        snapshots = {"SnapNum": 1, "Interval": 1, "UploadURL": "http://127.0.0.1:9/s", "SessionID": session}
        await made.on_channel("DeviceConfig", SnapShotConfig=snapshots)
        await until(
            lambda: made.running.bus.of("device.snapshots") and made.running.bus.of("device.upgraded")
        )
        (upgraded,) = made.running.bus.of("device.upgraded")
        assert (upgraded["session"], upgraded["result"], upgraded["firmware"]) == (session, "OK", "V2")
        assert made.running.bus.of("device.snapshots")[0]["files"] == []


def alarm_body(device: str, sn: int, when: str = "2024-05-01T08:30:00") -> str:
    return (
        f"<Notify><CmdType>Alarm</CmdType><SN>{sn}</SN><DeviceID>{device}</DeviceID><AlarmPriority>1</AlarmPriority>"
        f"<AlarmMethod>2</AlarmMethod><AlarmTime>{when}</AlarmTime></Notify>"
    )


async def test_a_repeated_alarm_is_answered_and_stored_once(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        for _ in range(2):
            await device.answer(device.message(alarm_body(device.id, 7)))
        await device.answer(device.message(alarm_body(device.id, 8)))
        await until(lambda: sum("<Result>OK" in body for _, _, body in device.requests) == 3)
        assert (running.reports.counters.alarms, running.reports.counters.alarms_repeated) == (2, 1)
        device.close()


async def test_a_notify_is_answered_by_its_200_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        head = ("Event: presence", "Subscription-State: active", "Content-Type: Application/MANSCDP+xml")
        await device.answer(device.request("NOTIFY", *head, body=alarm_body(device.id, 7)))
        await until(lambda: running.bus.of("alarm.received"))
        assert not [body for _, _, body in device.requests if "<Response>" in body]
        device.close()


async def test_s03_an_alarm_from_elsewhere_changes_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        stranger = await SipDevice(device.id).open(running.port, "127.0.0.2")
        stranger.message(alarm_body(device.id, 7))
        await device.answer(device.message(alarm_body(device.id, 8)))
        await until(lambda: running.bus.of("alarm.received"))
        assert running.reports.counters.alarms == 1
        device.close()
        stranger.close()


async def test_f17_alarms_are_there_after_a_restart(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.device.raise_alarm("before")
        await until(lambda: made.running.bus.of("alarm.received"))
    async with gateway(tmp_path) as running:
        found, total = await running.reports.alarms(ReportFilter())
        assert ([alarm.description for alarm in found], total) == (["before"], 1)
