"""Catalogue queries over real UDP: pages, loss, order, and what comes unasked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.devices import SipDevice, catalogue_part, device_id, gateway, item, until


def answers(device: SipDevice, items: Sequence[str], page: int = 10):  # type: ignore[no-untyped-def]  # a closure
    def answer(kind: str, sn: int) -> list[str]:
        if kind == "Catalog":
            return [
                catalogue_part(device.id, sn, items[at : at + page], len(items))
                for at in range(0, len(items), page)
            ]
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
