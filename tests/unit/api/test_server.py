"""The listener inside a running loop, and the event stream over a real connection."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest

from gb28181gw.access.roles import Role
from gb28181gw.api.server import ApiServer, ApiServerConfig
from gb28181gw.errors import GatewayError
from tests.support.api_services import NVR, PENDING, Rig, api_rig


@asynccontextmanager
async def served(rig: Rig) -> AsyncIterator[tuple[ApiServer, str]]:
    server = ApiServer(rig.app, ApiServerConfig(host="127.0.0.1", port=0, graceful_s=1))
    await server.start()
    try:
        yield server, f"http://127.0.0.1:{server.port}"
    finally:
        rig.services.bus.close()
        await server.stop()


def headers(rig: Rig, role: Role = Role.ADMIN) -> dict[str, str]:
    return {"Authorization": f"Bearer {rig.texts[role]}"}


async def read_events(lines: AsyncIterator[str], count: int) -> list[dict[str, str]]:
    """The next `count` events of a stream, as fields of SSE."""
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    async with asyncio.timeout(10):
        async for line in lines:
            if line:
                name, _, value = line.partition(": ")
                current[name] = value
            else:
                if "data" in current:
                    found.append(current)
                current = {}
                if len(found) == count:
                    return found
    return found


async def test_it_serves_without_touching_signal_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with api_rig() as rig, served(rig) as (_, url), httpx.AsyncClient() as client:
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        assert (await client.get(f"{url}/healthz")).json() == {"status": "ok"}
        answer = await client.get(f"{url}/api/v1/devices", headers=headers(rig))
        assert answer.json()["total"] == 2


async def test_a_taken_port_is_told_with_its_key() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with api_rig() as rig:
            with pytest.raises(GatewayError) as caught:
                await ApiServer(rig.app, ApiServerConfig(host="127.0.0.1", port=port)).start()
    assert caught.value.code == "gb.config.port_in_use"
    assert f"http.listen: TCP 127.0.0.1:{port}" in caught.value.detail


async def test_net02_an_address_of_another_host_is_told_with_its_key() -> None:
    async with api_rig() as rig:
        with pytest.raises(GatewayError) as caught:
            await ApiServer(rig.app, ApiServerConfig(host="192.0.2.1", port=0)).start()
    assert caught.value.code == "gb.config.address_unavailable"
    assert "advertise" in str(caught.value)


async def test_a_certificate_that_is_none_is_told(tmp_path: object) -> None:
    async with api_rig() as rig:
        config = ApiServerConfig(host="127.0.0.1", port=0, cert=f"{tmp_path}/c.pem", key=f"{tmp_path}/k.pem")
        with pytest.raises(GatewayError) as caught:
            await ApiServer(rig.app, config).start()
    assert caught.value.code == "gb.config.invalid"


async def test_the_port_is_free_again_after_stop() -> None:
    async with api_rig() as rig:
        async with served(rig) as (server, _):
            port = server.port
        again = ApiServer(rig.app, ApiServerConfig(host="127.0.0.1", port=port))
        await again.start()
        assert again.port == port
        await again.stop()
        await again.stop()


async def test_events_arrive_with_ids_and_end_with_the_bus() -> None:
    async with api_rig() as rig, served(rig) as (_, url), httpx.AsyncClient(timeout=10) as client:
        async with client.stream("GET", f"{url}/api/v1/events", headers=headers(rig)) as response:
            lines = response.aiter_lines()
            assert response.headers["content-type"].startswith("text/event-stream")
            await wait_for_subscriber(rig)
            rig.services.bus.emit("device.online", device_id=NVR, reason="registered")
            rig.services.bus.emit("device.offline", device_id=NVR, reason="keepalive")
            events = await read_events(lines, 2)
            assert [event["event"] for event in events] == ["device.online", "device.offline"]
            data = orjson.loads(events[0]["data"])
            assert data["event"] == "device.online"
            assert data["device_id"] == NVR
            assert data["timestamp"].endswith("+00:00")
            rig.services.bus.close()
            assert await read_events(lines, 1) == []
        assert rig.services.bus.subscriber_count == 0


async def wait_for_subscriber(rig: Rig) -> None:
    async with asyncio.timeout(10):
        while not rig.services.bus.subscriber_count:
            await asyncio.sleep(0.01)


async def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    async with api_rig() as rig, served(rig) as (_, url), httpx.AsyncClient(timeout=10) as client:
        for number in range(3):
            rig.services.bus.emit("device.online", device_id=NVR, reason=str(number))
        last = rig.services.bus._ring[0].id
        asked = {**headers(rig), "Last-Event-ID": last}
        async with client.stream("GET", f"{url}/api/v1/events", headers=asked) as response:
            lines = response.aiter_lines()
            events = await read_events(lines, 2)
            assert [orjson.loads(event["data"])["reason"] for event in events] == ["1", "2"]


async def test_names_choose_events() -> None:
    async with api_rig() as rig, served(rig) as (_, url), httpx.AsyncClient(timeout=10) as client:
        wrong = await client.get(f"{url}/api/v1/events?names=device.onlin", headers=headers(rig))
        assert (wrong.status_code, wrong.json()["code"]) == (422, "gb.route.invalid")
        async with client.stream(
            "GET", f"{url}/api/v1/events?names=stream.started,device.offline", headers=headers(rig)
        ) as response:
            lines = response.aiter_lines()
            await wait_for_subscriber(rig)
            rig.services.bus.emit("device.online", device_id=NVR)
            rig.services.bus.emit("device.offline", device_id=NVR)
            assert [event["event"] for event in await read_events(lines, 1)] == ["device.offline"]


async def test_s09_viewers_get_no_events_of_what_they_cannot_see() -> None:
    async with (
        api_rig() as rig,
        served(rig) as (_, url),
        httpx.AsyncClient(timeout=10) as client,
        client.stream("GET", f"{url}/api/v1/events", headers=headers(rig, Role.VIEWER)) as response,
    ):
        await wait_for_subscriber(rig)
        rig.services.bus.emit("device.online", device_id=PENDING)
        rig.services.bus.emit("auth.banned", device_id=NVR, peer="192.0.2.66:5060")
        rig.services.bus.emit("device.online", device_id=NVR)
        events = await read_events(response.aiter_lines(), 1)
        assert orjson.loads(events[0]["data"])["device_id"] == NVR


async def test_s15_a_removed_key_ends_its_event_stream() -> None:
    async with api_rig() as rig, served(rig) as (_, url), httpx.AsyncClient(timeout=10) as client:
        key, text = await rig.services.keys.create("short", Role.OPERATOR)
        async with client.stream(
            "GET", f"{url}/api/v1/events", headers={"Authorization": f"Bearer {text}"}
        ) as response:
            await wait_for_subscriber(rig)
            await rig.services.keys.remove(key.id)
            rig.services.bus.emit("device.online", device_id=NVR)
            rig.services.bus.emit("device.offline", device_id=NVR)
            assert len(await read_events(response.aiter_lines(), 2)) < 2


async def test_subscribers_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gb28181gw.api.routes.events.MAX_SUBSCRIBERS", 0)
    async with api_rig() as rig, rig.client() as client:
        answer = await client.get("/api/v1/events")
        assert (answer.status_code, answer.json()["code"]) == (429, "gb.route.rate_limited")
        assert rig.services.bus.counts["limit.reached"] == 1
