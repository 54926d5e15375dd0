"""State, metrics, keys, trace, and the schema."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from fastapi.routing import APIRoute

from gb28181gw.access.keys import first_key
from gb28181gw.access.roles import Role
from gb28181gw.observability.health import HealthBoard
from gb28181gw.observability.trace import Direction
from gb28181gw.sip.path import Path
from tests.support.api_services import NVR, api_rig

PATH = Path("udp", "192.0.2.10", 5060, "192.0.2.1", 5060)
REGISTER = (
    b"REGISTER sip:x SIP/2.0\r\nCSeq: 2 REGISTER\r\n"
    b'Authorization: Digest username="u", realm="r", nonce="n", uri="sip:x", '
    b'response="0123456789abcdef0123456789abcdef"\r\n\r\n'
)


async def test_readiness_follows_the_parts() -> None:
    board = HealthBoard(("sip", "media"))
    async with api_rig(health=board) as rig, rig.client(None) as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "starting"})
        board.up("sip")
        board.up("media")
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        board.problem("storage", "The disk is full.")
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "degraded"})
        board.stopping()
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})
        assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_metrics_need_a_key_and_count_requests_by_template() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        await client.get(f"/api/v1/devices/{NVR}")
        await client.get(f"/nowhere/{NVR}")
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (
            'gb28181gw_api_requests_total{method="GET",route="/api/v1/devices/{device_id}",status="200"} 1.0'
            in answer.text
        )
        assert 'route="other",status="404"' in answer.text
        assert NVR not in answer.text


async def test_keys_are_made_listed_and_removed() -> None:
    async with api_rig() as rig, rig.client() as client:
        made = await client.post("/api/v1/keys", json={"name": "wall", "role": "viewer", "days": 2})
        assert made.status_code == 201
        key = made.json()
        assert key["key"].startswith("gbk_")
        assert key["expires_at"] is not None
        listed = (await client.get("/api/v1/keys", params={"q": "wall"})).json()
        assert listed["total"] == 1
        assert "key" not in listed["items"][0]
        assert key["key"] not in str(rig.key_store.keys)
        headers = {"Authorization": f"Bearer {key['key']}"}
        assert (await client.get("/api/v1/devices", headers=headers)).status_code == 200
        assert (await client.delete(f"/api/v1/keys/{key['id']}")).status_code == 204
        assert (await client.get("/api/v1/devices", headers=headers)).status_code == 401
        assert rig.services.bus.counts["key.created"] == rig.services.bus.counts["key.revoked"] == 1


async def test_the_first_key_cannot_be_removed() -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.services.keys._built_in["x"] = first_key("gbk_x")
        answer = await client.delete("/api/v1/keys/first")
        assert (answer.status_code, answer.json()["code"]) == (422, "gb.route.invalid")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "viewer"}, "name"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "x", "role": "admin", "days": 0}, "days"),
    ],
)
async def test_wrong_keys_name_the_field(body: dict[str, Any], field: str) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post("/api/v1/keys", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == field


async def test_the_trace_has_no_credentials() -> None:
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        rig.services.trace.record(NVR, Direction.IN, PATH, REGISTER)
        rig.services.trace.record(NVR, Direction.OUT, PATH, b"SIP/2.0 200 OK\r\nCSeq: 2 REGISTER\r\n\r\n")
        page = (await client.get(f"/api/v1/devices/{NVR}/trace")).json()
        assert [item["direction"] for item in page["items"]] == ["in", "out"]
        assert page["items"][0]["first_line"] == "REGISTER sip:x SIP/2.0"
        assert "0123456789abcdef" not in page["items"][0]["text"]
        assert page["items"][0]["remote"] == "192.0.2.10:5060"
        number = page["items"][0]["number"]
        later = (await client.get(f"/api/v1/devices/{NVR}/trace", params={"after": number})).json()
        assert [item["cseq"] for item in later["items"]] == ["2 REGISTER"]


async def test_the_trace_of_an_id_that_was_refused() -> None:
    stranger = "34020000001180000099"
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        unknown = await client.get(f"/api/v1/devices/{stranger}/trace")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "gb.route.device_unknown")
        rig.services.trace.record_stranger(
            Direction.IN, PATH, b"REGISTER sip:x SIP/2.0\r\nFrom: <sip:34020000001180000099@x>;tag=1\r\n\r\n"
        )
        assert (await client.get(f"/api/v1/devices/{stranger}/trace")).json()["total"] == 1


async def test_the_trace_as_a_capture_file() -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.services.trace.record(NVR, Direction.IN, PATH, REGISTER)
        answer = await client.get(f"/api/v1/devices/{NVR}/trace", params={"format": "pcap"})
        assert answer.headers["content-type"] == "application/vnd.tcpdump.pcap"
        assert struct.unpack("<I", answer.content[:4])[0] == 0xA1B2C3D4
        assert b"0123456789abcdef" not in answer.content


async def test_the_schema_has_every_route_and_the_error_model() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        schema = (await client.get("/api/v1/openapi.json")).json()
        routes = {
            (route.path, method)
            for route in rig.app.routes
            if isinstance(route, APIRoute) and route.include_in_schema
            for method in route.methods
        }
        documented = {
            (path, method.upper()) for path, methods in schema["paths"].items() for method in methods
        }
        assert routes == documented
        assert len(routes) >= 20
        names = [
            operation["operationId"] for methods in schema["paths"].values() for operation in methods.values()
        ]
        assert len(names) == len(set(names))
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                if path not in ("/healthz", "/readyz"):
                    content = operation["responses"]["default"]["content"]
                    assert content["application/problem+json"]["schema"]["$ref"].endswith("/Problem"), (
                        path,
                        method,
                    )
                assert operation.get("description"), (path, method)
        assert "HTTPValidationError" not in str(schema)


async def test_the_operations_of_the_contract_are_there() -> None:
    async with api_rig() as rig:
        paths = rig.app.openapi()["paths"]
        expected = {
            "/healthz": {"get"},
            "/readyz": {"get"},
            "/metrics": {"get"},
            "/api/v1/devices": {"get", "post"},
            "/api/v1/devices/{device_id}": {"get", "patch", "delete"},
            "/api/v1/devices/{device_id}/approve": {"post"},
            "/api/v1/devices/{device_id}/catalog": {"get", "post"},
            "/api/v1/devices/{device_id}/channels": {"get"},
            "/api/v1/devices/{device_id}/channels/{channel_id}": {"get"},
            "/api/v1/channels": {"get"},
            "/api/v1/devices/{device_id}/tree": {"get"},
            "/api/v1/devices/{device_id}/channels/{channel_id}/live": {"post"},
            "/api/v1/streams": {"get"},
            "/api/v1/streams/{stream_id}": {"get", "delete"},
            "/api/v1/events": {"get"},
        }
        for path, methods in expected.items():
            assert set(paths[path]) == methods
