"""Roles times endpoints, made from the OpenAPI: nothing answers anybody by accident (S-09)."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from gb28181gw.access.roles import ALLOWED, Action, Role, may
from gb28181gw.api.app import _insist_on_actions
from gb28181gw.api.middleware import PUBLIC_PATHS
from gb28181gw.api.security import action_of
from tests.support.api_services import CAMERA, NVR, ORDER, PICTURE, Rig, api_rig

UPPER = "34020000002000000055"
BODIES: dict[str, dict[str, Any]] = {
    "add_device": {"id": "34020000001180000077"},
    "change_device": {"name": "x"},
    "create_key": {"name": "x", "role": "viewer"},
    "move_channel": {"pan": 0.5},
    "send_command": {"command": "DeviceInfo"},
    "add_push": {"url": "rtmp://192.0.2.9/live/x"},
    "add_upper": {"id": UPPER, "domain": "3402000000", "host": "192.0.2.9"},
    "change_upper": {"name": "x"},
    "share_channels": {"all": True},
    "use_preset": {"action": "goto"},
}
ENDLESS = {"stream_events"}
"""Answers that do not end by themselves; test_server reads them."""

WHO = [None, *Role]


def operations(rig: Rig) -> list[tuple[str, str, str]]:
    """(operation, method, path) of everything in the schema."""
    return [
        (operation["operationId"], method.upper(), path)
        for path, methods in rig.app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def concrete(path: str) -> str:
    values = {
        "device_id": NVR,
        "channel_id": CAMERA,
        "stream_id": "s1",
        "upper_id": UPPER,
        "talk_id": "0" * 32,
        "download_id": "0" * 32,
        "name": "a.ps",
        "key_id": "0000000000000000",
        "push_id": "0" * 16,
        "number": "1",
        "order_id": ORDER,
        "picture_id": PICTURE,
    }
    for name, value in values.items():
        path = path.replace("{" + name + "}", value)
    assert "{" not in path, f"give {path} a value"
    return path


@pytest.mark.parametrize("role", WHO, ids=lambda role: role.value if role else "no key")
async def test_s09_every_operation_answers_by_the_table_of_roles(role: Role | None) -> None:
    async with api_rig() as rig:
        actions = {
            route.operation_id: action_of(route) for route in rig.app.routes if isinstance(route, APIRoute)
        }
        seen = 0
        for operation, method, path in operations(rig):
            action = actions[operation]
            if operation in ENDLESS and role is not None:
                continue
            async with rig.client(role) as client:
                answer = await client.request(method, concrete(path), json=BODIES.get(operation))
            seen += 1
            if path in PUBLIC_PATHS:
                assert answer.status_code == 200, path
                continue
            assert action is not None
            if role is None:
                assert (answer.status_code, answer.json()["code"]) == (401, "gb.route.unauthorised"), (
                    operation
                )
                assert answer.headers["www-authenticate"].startswith("Bearer")
            elif may(role, action):
                assert answer.status_code not in (401, 403), operation
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "gb.route.not_authorised"), (
                    operation
                )
        assert seen >= 20


async def test_s09_the_public_paths_are_two() -> None:
    assert {"/healthz", "/readyz"} == PUBLIC_PATHS


@pytest.mark.parametrize(
    "path", ["/api/v1/openapi.json", "/nowhere", "/api/v1/devices/../../x", "/docs", "/"]
)
async def test_s09_without_a_key_nothing_tells_whether_a_path_exists(path: str) -> None:
    async with api_rig() as rig, rig.client(None) as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (401, "gb.route.unauthorised")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer gbk_wrong",
        "Basic YWRtaW46YWRtaW4=",
        "gbk_x",
        "Bearer " + "x" * 5000,
        "Bearer \xff",
    ],
)
async def test_s09_what_is_no_key_opens_nothing(header: str) -> None:
    async with api_rig() as rig, rig.client(None) as client:
        answer = await client.get("/api/v1/devices", headers={"Authorization": header.encode("latin-1")})
        assert answer.status_code == 401


async def test_expired_keys_open_nothing() -> None:
    async with api_rig() as rig:
        key, text = await rig.services.keys.create("short", Role.ADMIN, days=1)
        assert key.expires_at is not None
        async with rig.client(None) as client:
            headers = {"Authorization": f"Bearer {text}"}
            assert (await client.get("/api/v1/devices", headers=headers)).status_code == 200
            rig.clock.now = key.expires_at
            assert (await client.get("/api/v1/devices", headers=headers)).status_code == 401


async def test_a_role_that_may_not_is_told_before_whether_the_object_exists() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        known = await client.delete(f"/api/v1/devices/{NVR}")
        unknown = await client.delete("/api/v1/devices/34020000001180000099")
        assert known.status_code == unknown.status_code == 403
        assert known.json()["detail"] == unknown.json()["detail"]


async def test_denials_are_counted_and_told() -> None:
    async with api_rig() as rig:
        async with rig.client(None) as client:
            await client.get("/api/v1/devices")
        async with rig.client(Role.VIEWER) as client:
            await client.get("/api/v1/keys")
        assert rig.services.bus.counts["access.denied"] == 2
        assert rig.app.state.counters.denied == 1


def test_s09_a_route_without_an_action_does_not_start() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="/forgotten"):
        _insist_on_actions(app)


def test_every_action_is_in_the_table_and_an_unknown_one_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(ALLOWED) == set(Action)
    assert all(may(Role.ADMIN, action) for action in Action)
    monkeypatch.delitem(ALLOWED, Action.VIEW)
    assert not any(may(role, Action.VIEW) for role in Role)
