"""Registration, presence and paths over real sockets and a real database."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest

from gb28181gw.devices import service
from gb28181gw.devices.binding import NEAR_NEW_S
from gb28181gw.devices.config import Enrolment
from gb28181gw.errors import GatewayError
from tests.support.devices import (
    DOMAIN,
    PLATFORM,
    SipDevice,
    device_id,
    gateway,
    keepalive_body,
    until,
)


async def test_register_keepalive_unregister(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        status, headers = await device.registered(3600, "X-GB-Ver: 3.0")
        assert status == 200
        assert headers["x-gb-ver"] == "3.0"
        assert headers["date"]
        assert (await device.answer(device.keepalive()))[0] == 200
        found = running.devices.registry.require(device.id)
        assert (found.online, found.remote_address) == (True, f"127.0.0.1:{device.port}")
        assert found.keepalives == 1
        status, headers = await device.registered(0)
        assert (status, headers["expires"]) == (200, "0")
        await until(lambda: not found.online, 10)
        device.close()


async def test_xgbver_is_on_every_answer_to_register(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1), password="wrong").open(running.port)
        status, headers = await device.answer(device.request("REGISTER", "Expires: 60"))
        assert (status, headers["x-gb-ver"]) == (401, "3.0")
        status, headers = await device.registered()
        assert (status, headers["x-gb-ver"]) == (403, "3.0")
        device.close()


async def test_f17_a_killed_gateway_knows_its_devices(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        port = running.port
        # What a kill leaves is what is committed: a second process reads the same file now.
        copy = tmp_path / "killed"
        copy.mkdir()
        for name in ("test.db", "test.db-wal"):
            (copy / name).write_bytes((tmp_path / name).read_bytes())
    async with gateway(copy, port=port) as again:
        found = again.devices.registry.require(device.id)
        assert found.online
        assert [event["reason"] for event in again.bus.of("device.online")] == ["restored"]
        assert (await device.answer(device.keepalive()))[0] == 200
        target = again.devices.registry.target(device.id)
        assert (await again.agent.request(target, "MESSAGE", body=b"<Query/>", timeout_s=5)).status == 200
        device.cseq += 10
        status, _ = await device.registered(fresh=False)
        assert status == 200
        device.close()


async def test_f03_silence_is_probed_and_an_answer_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PROBE_S", 1.0)
    async with gateway(tmp_path, keepalive_s=0.5, keepalive_misses=2) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        found = running.devices.registry.require(device.id)
        await until(lambda: running.devices.counters.probes_answered >= 2, 15)
        assert found.online
        assert "device.offline" not in running.bus.names()
        device.answer_status = None
        await until(lambda: not found.online, 15)
        assert [event["reason"] for event in running.bus.of("device.offline")] == ["keepalive"]
        assert (await device.answer(device.keepalive()))[0] == 200
        assert found.online
        device.close()


async def test_f07_a_new_source_port_is_followed(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        device.answer_status = None
        moved = await SipDevice(device.id).open(running.port)
        assert (await moved.answer(moved.keepalive()))[0] == 200
        found = running.devices.registry.require(device.id)
        await until(lambda: found.remote_address == f"127.0.0.1:{moved.port}", NEAR_NEW_S + 5)
        assert [event["reason"] for event in running.bus.of("binding.port_moved")] == ["nat"]
        probes = [headers for method, headers, _ in moved.requests if method == "MESSAGE"]
        assert probes
        device.close()
        moved.close()


async def test_s03_forged_messages_from_another_address_change_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        await device.registered()
        found = running.devices.registry.require(device.id)
        before = found.keepalives
        forger = await SipDevice(device.id).open(running.port, host="127.0.0.2")
        for _ in range(200):
            forger.keepalive()
            forger.message("<Response><CmdType>Catalog</CmdType><SN>1</SN><SumNum>0</SumNum></Response>")
        await until(lambda: running.devices.messages.counters.off_path >= 400)
        await until(lambda: "binding.conflict" in running.bus.names(), 10)
        assert forger.responses == {}
        assert found.keepalives == before
        assert found.remote_address == f"127.0.0.1:{device.port}"
        assert (await device.answer(device.keepalive()))[0] == 200
        device.close()
        forger.close()


async def test_s03_an_unknown_sender_hears_no_200(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        stranger = await SipDevice(device_id(9)).open(running.port)
        assert (await stranger.answer(stranger.keepalive()))[0] == 403
        for _ in range(5):
            stranger.keepalive()
        await until(lambda: running.devices.messages.counters.strangers == 6)
        assert len(stranger.responses) == 1
        stranger.close()


class TcpDevice:
    """Enough of a device over TCP: one connection, requests in turn."""

    def __init__(self, device: SipDevice) -> None:
        self.device = device
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask(self, method: str, *extra: str, body: str = "") -> tuple[int, dict[str, str]]:
        device = self.device
        device.cseq += 1
        lines = [
            f"{method} sip:{PLATFORM}@{DOMAIN} SIP/2.0",
            f"Via: SIP/2.0/TCP 127.0.0.1:5060;rport;branch=z9hG4bK{secrets.token_hex(8)}",
            f"From: <sip:{device.id}@{DOMAIN}>;tag=t",
            f"To: <sip:{device.id if method == 'REGISTER' else PLATFORM}@{DOMAIN}>",
            f"Call-ID: {secrets.token_hex(8)}",
            f"CSeq: {device.cseq} {method}",
            f"Contact: <sip:{device.id}@127.0.0.1:5060;transport=tcp>",
            "Max-Forwards: 70",
            *extra,
            f"Content-Length: {len(body)}",
        ]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        while True:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *rest = head.strip().split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)
            }
            await self.reader.readexactly(int(headers["content-length"]))
            if first.startswith("SIP/2.0"):
                return int(first.split()[1]), headers

    async def register(self) -> int:
        _, headers = await self.ask("REGISTER", "Expires: 3600")
        self.device.take(headers)
        status, _ = await self.ask("REGISTER", "Expires: 3600", self.device.authorization())
        return status

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def test_reg21_a_tcp_device_with_a_new_connection_each_time(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        device = SipDevice(device_id(1))
        first = TcpDevice(device)
        await first.open(running.port)
        assert await first.register() == 200
        found = running.devices.registry.require(device.id)
        assert found.transport == "tcp"
        await first.close()
        await until(lambda: found.path is None)
        assert found.online
        with pytest.raises(GatewayError) as caught:
            running.devices.registry.target(device.id)
        assert caught.value.code == "gb.sip.path_lost"
        waiting = asyncio.create_task(running.devices.registry.reach(device.id, timeout_s=10))
        second = TcpDevice(device)
        await second.open(running.port)
        status, _ = await second.ask("MESSAGE", "Content-Type: x", body=keepalive_body(device.id))
        assert status == 200
        assert (await waiting).path == found.path
        assert found.path is not None
        await second.close()


async def test_several_devices_behind_one_socket(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        link = await SipDevice(device_id(1)).open(running.port)
        for number in range(1, 21):
            link.id = device_id(number)
            link.call_id = f"call{number}"
            assert (await link.registered())[0] == 200
            assert (await link.answer(link.keepalive()))[0] == 200
        assert len(running.devices.registry.bound_to(running.devices.registry.require(link.id).path)) == 20
        link.close()


async def test_approval_starts_the_catalogue(tmp_path: Path) -> None:
    async with gateway(tmp_path, enrolment=Enrolment.APPROVE) as running:
        device = await SipDevice(device_id(1)).open(running.port)
        assert (await device.registered())[0] == 200
        assert (await device.answer(device.keepalive()))[0] == 200
        assert "device.pending" in running.bus.names()
        with pytest.raises(GatewayError) as caught:
            await running.devices.catalogue.refresh(device.id)
        assert caught.value.code == "gb.route.not_approved"
        assert device.requests == []
        await running.devices.registry.approve(device.id)
        await until(lambda: any("Catalog" in body for _, _, body in device.requests))
        device.close()
