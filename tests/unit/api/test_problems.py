"""Every error is a problem document with a code of the closed list."""

from __future__ import annotations

import pytest

from gb28181gw.api.middleware import MAX_BODY_BYTES, SECURITY_HEADERS
from gb28181gw.errors import CODES, GatewayError
from tests.support.api_services import CAMERA, NVR, api_rig

MEMBERS = {"type", "title", "status", "detail", "code", "stage", "hint", "trace_id"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "gb.route.not_found"),
        ("GET", "/api/v1/devices/", 404, "gb.route.not_found"),
        ("GET", "/api/v1/devices/x", 404, "gb.route.device_unknown"),
        ("GET", "/api/v1/streams/x", 404, "gb.route.stream_unknown"),
        ("DELETE", "/api/v1/streams/x", 404, "gb.route.stream_unknown"),
        ("GET", f"/api/v1/devices/{NVR}/channels/x", 404, "gb.route.channel_unknown"),
        ("DELETE", "/api/v1/keys/x", 404, "gb.route.not_found"),
        ("PUT", "/api/v1/devices", 405, "gb.route.invalid"),
        ("POST", "/api/v1/devices", 422, "gb.route.invalid"),
    ],
)
async def test_errors_of_the_route(method: str, path: str, status: int, code: str) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"] == code
        assert problem["status"] == status
        assert set(problem) >= MEMBERS
        assert problem["stage"] == code.split(".")[1]
        assert problem["trace_id"] == answer.headers["x-trace-id"]


async def test_405_says_what_is_possible() -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.put("/api/v1/devices")
        assert set(answer.headers["allow"].split(", ")) >= {"GET"}


@pytest.mark.parametrize("code", sorted(CODES))
async def test_each_code_reaches_the_caller_with_its_status_and_hint(code: str) -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.streams.error = GatewayError(code, "What happened.", sip_status=486)
        answer = await client.post(f"/api/v1/devices/{NVR}/channels/{CAMERA}/live")
        problem = answer.json()
        row = CODES[code]
        assert (answer.status_code, problem["code"], problem["title"]) == (row.http_status, code, row.title)
        assert problem["detail"] == f"What happened. {row.hint}"
        assert problem["sip_status"] == 486


async def test_sip_status_is_only_there_when_a_peer_gave_one() -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.streams.error = GatewayError("gb.sip.no_answer")
        assert "sip_status" not in (await client.post(f"/api/v1/devices/{NVR}/channels/{CAMERA}/live")).json()


async def test_a_bug_is_one_answer_with_the_trace_id_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.streams.error = ZeroDivisionError("secret inside")
        answer = await client.post(f"/api/v1/devices/{NVR}/channels/{CAMERA}/live")
        assert (answer.status_code, answer.json()["code"]) == (500, "gb.route.internal")
        assert "secret inside" not in answer.text
        assert rig.services.bus.counts["api.failed"] == 1
        assert answer.json()["trace_id"] in capsys.readouterr().out
        assert (await client.get("/api/v1/devices")).status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b'{"id": 1}'])
async def test_bodies_that_are_no_object(body: bytes) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post(
            "/api/v1/devices", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422)
        assert answer.json()["code"] == "gb.route.invalid"


async def test_a_body_over_the_limit_is_refused_when_announced() -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post("/api/v1/devices", content=b"x" * (MAX_BODY_BYTES + 1))
        assert (answer.status_code, answer.json()["code"]) == (413, "gb.route.invalid")


async def test_a_body_over_the_limit_is_refused_when_it_comes_in_chunks() -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        for _ in range(17):
            yield b" " * 65536

    async with api_rig() as rig, rig.client() as client:
        answer = await client.post(
            "/api/v1/devices", content=chunks(), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "gb.route.invalid")


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/devices", "/nowhere"])
async def test_s17_security_headers_are_on_every_answer(path: str) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.get(path, headers={"Origin": "https://evil.example"})
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


async def test_s17_device_names_stay_data() -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.devices.devices[NVR].name = "<img src=x onerror=alert(1)>"
        answer = await client.get(f"/api/v1/devices/{NVR}")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
