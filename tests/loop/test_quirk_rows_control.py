"""Rows of bodies, keepalives and control that the simulated device shows, seen from the gateway."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gb28181gw.devices.dialects import dialect_of
from gb28181gw.devices.presence import INTERVAL_MIN_S
from gb28181gw.gb.dialect import DateForm
from tests.support.commanding import PASSWORD, bench
from tests.support.devices import gateway, until
from tests.support.sim import simulated


async def test_xml07_garbage_in_an_address_costs_that_field_only(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("XML-07",)) as made:
        (channel,) = made.running.devices.registry.channels(made.id)
        assert (channel.name, channel.manufacturer) == ("Test NVR 1-1", "gb28181gw")
        assert "xml.illegal_control_char" in made.running.devices.registry.require(made.id).quirks


async def test_xml08_cut_a_body_without_its_end_is_read(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("XML-08-CUT",)) as made:
        (channel,) = made.running.devices.registry.channels(made.id)
        assert channel.name == "Test NVR 1-1"
        assert (await made.on_channel("RecordCmd", RecordCmd="Record"))["Result"] == "OK"


async def test_xml15_long_bodies_that_are_lost_are_told_as_that(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path, catalogue_between_parts_s=0.2) as running,
        simulated(
            f"127.0.0.1:{running.port}", password=PASSWORD, channels=4, catalog_page=3, quirks=("XML-15",)
        ) as sim,
    ):
        await until(lambda: running.bus.of("catalog.partial"))
        (event, *_) = running.bus.of("catalog.partial")
        assert (event["received"], event["expected"]) == (1, 4)
        assert sim.noted("lost_on_the_way")


async def test_xml16_two_changed_bytes_lose_no_item(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("XML-16", "CAT-16"), wait=False) as made:
        await until(lambda: made.running.devices.registry.require(made.id).channels)
        assert len(made.running.devices.registry.require(made.id).channels) >= 3


async def test_ka01_another_interval_is_learnt(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("KA-01",), keepalive_s=2.2) as made:
        device = made.running.devices.registry.require(made.id)
        await until(lambda: device.keepalive_s, timeout_s=15)
        assert device.keepalive_s <= INTERVAL_MIN_S


async def test_ka02_senseless_heartbeat_values_change_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("KA-02",)) as made:
        told = await made.command("ConfigDownload", ConfigType="BasicParam")
        assert (told["BasicParam"]["HeartBeatInterval"], told["BasicParam"]["HeartBeatCount"]) == (0, -1)
        device = made.running.devices.registry.require(made.id)
        assert device.online
        assert made.running.devices.presence.interval(device) >= INTERVAL_MIN_S


async def test_ka03_an_expiry_below_the_heartbeat_keeps_it_online(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("KA-03",), keepalive_s=4.0) as made:
        device = made.running.devices.registry.require(made.id)
        assert device.binding is not None
        assert device.online
        assert made.running.bus.of("device.offline") == []


async def test_ctl03_an_alarm_of_the_device_itself_stays_at_the_device(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-03",)) as made:
        assert await made.device.raise_alarm("moved")
        await until(lambda: made.running.bus.of("alarm.received"))
        (event,) = made.running.bus.of("alarm.received")
        assert event["channel_id"] == made.id


async def test_ctl04_positions_in_gcj02_are_told_in_wgs84(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        changed = await made.client.patch(f"/api/v1/devices/{made.id}", json={"dialect": {"datum": "gcj02"}})
        assert changed.status_code == 200
        await made.device.tell_position()
        await until(lambda: made.running.reports.counters.positions)
        (place,) = (await made.client.get("/api/v1/positions")).json()["items"]
        assert (place["longitude"], place["latitude"]) != (117.27, 31.86)
        assert abs(place["longitude"] - 117.27) < 0.01
        told = (await made.client.get(f"/api/v1/devices/{made.id}/dialect")).json()
        assert told["switches"]["datum"] == {"value": "gcj02", "origin": "set"}


async def test_the_dialect_tells_where_each_switch_comes_from(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("XML-18",)) as made:
        await until(lambda: made.running.devices.registry.require(made.id).learnt)
        told = (await made.client.get(f"/api/v1/devices/{made.id}/dialect")).json()
        assert told["switches"]["edition"] == {"value": "3.0", "origin": "told"}
        assert told["switches"]["charset"] == {"value": "GB2312", "origin": "learnt"}
        assert told["switches"]["qop"] == {"value": "true", "origin": "default"}
        assert told["charset_used"] == "GB2312"
        assert told["file"] is None
        assert told["quirks"]["xml.second_document"]["row"] == "XML-18"


@pytest.mark.parametrize(
    ("offset_s", "form"), [(28_800, DateForm.GMT), (-28_800, DateForm.GMT), (600, DateForm.ISO)]
)
async def test_tm01_a_clock_that_is_wrong_by_the_zone_changes_the_date(
    tmp_path: Path, offset_s: float, form: DateForm
) -> None:
    async with bench(tmp_path) as made:
        device = made.running.devices.registry.require(made.id)
        made.running.devices.catalogue._learn_date(device, offset_s)
        assert dialect_of(device).date is form
        if form is DateForm.GMT:
            made.running.devices.catalogue._learn_date(device, -offset_s)
            assert dialect_of(device).date is DateForm.GMT  # it was not told the time in that form yet
            assert device.binding is not None
            device.binding = replace(device.binding, registered_at=device.binding.registered_at + 60)
            made.running.devices.catalogue._learn_date(device, -offset_s)
            assert dialect_of(device).date is DateForm.OFF


async def test_med34_no_key_frame_is_asked_for_on_a_trial_path(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        devices = made.running.devices
        device = devices.registry.require(made.id)
        device.trial_until = 1e12
        devices.ask_key_frame(made.id, made.channel)
        assert not [task for task in devices._probing if not task.done()]
        device.trial_until = 0.0
        devices.ask_key_frame(made.id, made.channel)
        await until(
            lambda: [note for note in made.sim.noted("query") if note.facts["command"] == "DeviceControl"]
        )
