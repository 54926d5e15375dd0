"""Rows that are about peers no simulated device plays: odd tags, clocks, scanners, forgers."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gb28181gw.devices.registrar import HINTS
from gb28181gw.storage.sqlite import SqliteDeviceStore
from tests.support.devices import (
    DOMAIN,
    SipDevice,
    catalogue_part,
    device_id,
    gateway,
    item,
    until,
)


def notified(device: SipDevice, number: int) -> str:
    """Notify/Catalog with one camera."""
    part = catalogue_part(device.id, 77, [item(number)], 1)
    return part.replace("Response>", "Notify>").replace("</Status>", "</Status><Event>ADD</Event>")


def test_reg20_the_sentence_for_a_device_that_never_reacts_says_where_to_look() -> None:
    assert all(word in HINTS["no_reaction"] for word in ("firewall", "NAT", "SIP over TCP"))


async def test_ka08_f15_keepalives_are_answered_while_the_database_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        await until(lambda: "catalog.started" in running.bus.names())

        async def stuck(*_values: object) -> None:
            raise AssertionError("a keepalive waited for the database")

        monkeypatch.setattr(SqliteDeviceStore, "save_device", stuck)
        monkeypatch.setattr(SqliteDeviceStore, "save_binding", stuck)
        numbers = [device.keepalive() for _ in range(100)]
        for number in numbers:
            assert (await device.answer(number))[0] == 200
        assert running.devices.registry.require(device.id).keepalives == 100
        device.close()


async def test_cat21_a_notification_with_tags_of_no_dialog_is_heard_and_answered(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        number = device.request(
            "NOTIFY",
            "Event: Catalog;id=31",
            "Subscription-State: active",
            "Content-Type: Application/MANSCDP+xml",
            body=notified(device, 5),
        )
        assert (await device.answer(number))[0] == 200
        found = running.devices.registry.require(device.id)
        await until(lambda: "34020000001320000005" in found.channels)
        device.close()


async def test_tm03_a_device_whose_clock_is_an_hour_off_is_told(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        late = (datetime.now(UTC) + timedelta(hours=8 - 1)).strftime("%Y-%m-%dT%H:%M:%S")

        def answer(kind: str, sn: int) -> list[str]:
            if kind == "Catalog":
                return [catalogue_part(device.id, sn, [item(1)], 1)]
            return [
                f"<Response><CmdType>{kind}</CmdType><SN>{sn}</SN><DeviceID>{device.id}</DeviceID><Result>OK</Result>"
                f"<Online>ONLINE</Online><Status>OK</Status><DeviceTime>{late}</DeviceTime></Response>"
            ]

        device.on_query = answer
        await device.registered()
        await until(lambda: "device.clock_wrong" in running.bus.names())
        (event,) = running.bus.of("device.clock_wrong")
        assert abs(event["offset_s"] + 3600) < 60
        device.close()


async def test_tm04_stored_times_mean_the_same_under_another_time_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        before = running.devices.registry.require(device.id).registered_at
        device.close()
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    try:
        async with gateway(tmp_path) as running:
            after = running.devices.registry.require(device.id).registered_at
    finally:
        monkeypatch.undo()
        time.tzset()
    assert before is not None
    assert after == pytest.approx(before, abs=0.001)
    assert abs(after - time.time()) < 600


async def test_hos01_scanners_hear_nothing_and_devices_are_served(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        scanner = await SipDevice("100").open(running.port, host="127.0.0.3")
        device = await SipDevice(device_id(1)).open(running.port)
        for _ in range(100):
            scanner.request("OPTIONS", "User-Agent: friendly-scanner")
            scanner.request("INVITE", user="1001")
            scanner.request("PUBLISH")
        assert (await device.registered())[0] == 200
        assert (await device.answer(device.keepalive()))[0] == 200
        assert scanner.responses == {}
        assert running.agent.refusals.dropped > 100
        scanner.close()
        device.close()


async def test_hos02_who_only_knows_an_id_moves_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        forger = await SipDevice(device.id).open(running.port, host="127.0.0.2")
        forger.keepalive()
        forger.message(notified(device, 9))
        await until(lambda: "binding.conflict" in running.bus.names(), 10)
        found = running.devices.registry.require(device.id)
        assert found.remote_address == f"127.0.0.1:{device.port}"
        assert "34020000001320000009" not in found.channels
        assert forger.responses == {}
        forger.close()
        device.close()


async def test_hos06_a_storm_of_one_broken_device_costs_nobody_else_anything(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        broken = await SipDevice(device_id(2), password="wrong").open(running.port, host="127.0.0.4")
        for _ in range(500):
            broken.request("REGISTER", "Expires: 3600")
        device = await SipDevice(device_id(1), domain=DOMAIN).open(running.port)
        assert (await device.registered())[0] == 200
        counters = running.devices.registrar.counters
        await until(lambda: counters.dropped + running.agent.refusals.dropped >= 400)
        assert counters.delayed < 100
        broken.close()
        device.close()
