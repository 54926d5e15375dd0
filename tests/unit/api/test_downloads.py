"""Recordings as files: start, list, fetch, remove, and who may."""

from __future__ import annotations

from typing import Any

import pytest

from gb28181gw.access.roles import Role
from gb28181gw.errors import GatewayError
from tests.support.api_services import CAMERA, NVR, api_rig

DOWNLOAD = f"/api/v1/devices/{NVR}/channels/{CAMERA}/download"
SPAN = {"start": "2024-05-01T08:00:00+08:00", "end": "2024-05-01T08:10:00+08:00"}


async def test_a_download_from_the_queue_to_its_file() -> None:
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        answer = await client.post(
            DOWNLOAD, json=SPAN | {"speed": 8, "transport": "udp", "location": "centre"}
        )
        assert answer.status_code == 202
        asked = rig.downloads.views["d1"].request
        assert (asked.length_s, asked.speed, asked.transport, asked.centre) == (600, 8.0, "udp", True)
        told = answer.json()
        assert (told["state"], told["queue_position"], told["file"]) == ("queued", 1, None)
        assert told["start"] == "2024-05-01T08:00:00.000+08:00"
        await client.get("/api/v1/downloads/d1")
        done = (await client.get("/api/v1/downloads/d1")).json()
        assert (done["state"], done["progress"], done["error"]) == ("complete", 1.0, None)
        assert done["gaps"] == [
            {"at_s": 2.0, "time": "2024-05-01T08:00:02.000+08:00", "seconds": 5.0, "reason": "not_recorded"}
        ]
        file = await client.get(done["file"]["url"])
        assert (file.headers["content-type"], file.content) == ("video/mp4", b"a recording")
        assert 'filename="a.mp4"' in file.headers["content-disposition"]
        part = await client.get(done["file"]["url"], headers={"Range": "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"rec")
        assert (await client.get(done["file"]["manifest_url"])).json() == {}
        assert (await client.get("/api/v1/downloads")).json()["total"] == 1
        assert (await client.delete("/api/v1/downloads/d1")).status_code == 204
        assert (await client.get("/api/v1/downloads/d1")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"start": SPAN["end"], "end": SPAN["start"]},
        SPAN | {"speed": 0},
        SPAN | {"speed": 100},
        SPAN | {"file": "/etc/passwd"},
    ],
)
async def test_what_is_no_download_is_refused(body: dict[str, Any]) -> None:
    async with api_rig() as rig, rig.client() as client:
        assert (await client.post(DOWNLOAD, json=body)).status_code == 422
        assert rig.downloads.views == {}


async def test_unknown_channels_are_told_at_once() -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post(DOWNLOAD.replace(CAMERA, "34020000001320000099"), json=SPAN)
        assert (answer.status_code, answer.json()["code"]) == (404, "gb.route.channel_unknown")
        assert rig.downloads.views == {}


async def test_a_failed_download_tells_the_status_of_the_device() -> None:
    async with api_rig() as rig, rig.client() as client:
        rig.downloads.error = GatewayError("gb.sip.rejected", "No.", sip_status=404)
        await client.post(DOWNLOAD, json=SPAN)
        await client.get("/api/v1/downloads/d1")
        done = (await client.get("/api/v1/downloads/d1")).json()
        assert done["error"] == {"code": "gb.sip.rejected", "detail": "No.", "sip_status": 404}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", DOWNLOAD),
        ("GET", "/api/v1/downloads"),
        ("GET", "/api/v1/downloads/d1"),
        ("GET", "/api/v1/downloads/d1/file"),
        ("GET", "/api/v1/downloads/d1/manifest"),
        ("DELETE", "/api/v1/downloads/d1"),
    ],
)
async def test_viewers_get_no_files(method: str, path: str) -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        answer = await client.request(method, path, json=SPAN if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (403, "gb.route.not_authorised")
        assert rig.downloads.views == {}
