"""Catalogue queries over real UDP: pages, order, repeats."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.devices import SipDevice, catalogue_part, device_id, gateway, item, until
from tests.support.sim import simulated


def answers(
    device: SipDevice, items: Sequence[str], page: int = 10, *, seed: int | None = None
) -> Callable[[str, int], Sequence[str]]:
    """What the device sends to a query; with a `seed` out of order and some parts twice."""

    def answer(kind: str, sn: int) -> Sequence[str]:
        if kind == "Catalog":
            parts = [
                catalogue_part(device.id, sn, items[at : at + page], len(items))
                for at in range(0, len(items), page)
            ]
            if seed is not None:
                chance = random.Random(seed)
                parts += chance.sample(parts, len(parts) // 5)
                chance.shuffle(parts)
            return parts
        if kind == "DeviceInfo":
            return [
                f"<Response><CmdType>DeviceInfo</CmdType><SN>{sn}</SN><DeviceID>{device.id}</DeviceID>"
                "<Result>OK</Result><Manufacturer>Acme</Manufacturer><Model>N16</Model><Firmware>V1</Firmware>"
                "</Response>"
            ]
        return []

    return answer


async def test_catalogue_after_registration(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        device.on_query = answers(device, [item(n) for n in range(1, 26)])
        status, headers = await device.registered()
        assert status == 200
        assert headers["expires"] == "3600"
        await until(lambda: "catalog.complete" in running.bus.names())
        found = running.devices.registry.require(device.id)
        assert found.channel_count == 25
        assert running.devices.registry.channel(device.id, "34020000001320000007").name == "通道 7"
        await until(lambda: "device.info" in running.bus.names())
        assert (found.manufacturer, found.model, found.firmware) == ("Acme", "N16", "V1")
        device.close()


async def test_cat04_300_items_in_100_messages_out_of_order_with_repeats(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        device.on_query = answers(device, [item(n) for n in range(1, 301)], page=3, seed=28181)
        await device.registered()
        await until(lambda: "catalog.complete" in running.bus.names())
        (event,) = running.bus.of("catalog.complete")
        assert (event["received"], event["expected"], event["channel_count"]) == (300, 300, 300)
        await until(
            lambda: all(
                len(answers) == 1 and answers[0][0] in (200, 401) for answers in device.responses.values()
            )
        )
        rows = await running.database.fetch("SELECT count(*), count(DISTINCT id) FROM channels")
        assert rows == [(300, 300)]
        device.close()


async def test_f17_the_catalogue_is_there_after_a_restart(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        device.on_query = answers(device, [item(n) for n in range(1, 26)])
        await device.registered()
        await until(lambda: "catalog.complete" in running.bus.names())
        before = running.devices.registry.channels(device.id)
        port = running.port
    async with gateway(tmp_path, port=port) as again:
        assert again.devices.registry.channels(device.id) == before
        assert again.devices.catalogue.waiting == 0
        device.close()


async def test_r172_ten_thousand_items_in_one_message_over_tcp(tmp_path: Path) -> None:
    """Annex M allows it; a device that has registered may send several megabytes in one message."""
    async with (
        gateway(tmp_path) as running,
        simulated(
            f"127.0.0.1:{running.port}",
            password="secret-password",
            id="34020000002000000077",
            transport="tcp",
            channels=10_000,
            catalog_page=10_000,
        ),
    ):
        await until(lambda: running.bus.of("catalog.complete"), timeout_s=60)
        (event,) = running.bus.of("catalog.complete")
        assert event["received"] == 10_000
        assert len(running.devices.registry.require("34020000002000000077").channels) == 10_000
