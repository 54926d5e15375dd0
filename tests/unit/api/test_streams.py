"""Live view, play URLs and the list of streams."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from gb28181gw.access.roles import Role
from gb28181gw.api.play_urls import media_authority
from gb28181gw.api.services import PlayUrlConfig
from gb28181gw.media.engine import MediaTransport
from tests.support.api_services import CAMERA, NOW, NVR, PENDING, FakeStills, api_rig, make_stream

LIVE = f"/api/v1/devices/{NVR}/channels/{CAMERA}/live"


async def test_live_answers_with_tracks_and_urls_that_open() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        answer = await client.post(LIVE)
        assert answer.status_code == 200
        stream = answer.json()
        assert (stream["id"], stream["kind"], stream["state"]) == ("s1", "live", "running")
        assert stream["tracks"] == [
            {"kind": "video", "codec": "h264", "width": 1280, "height": 720, "fps": 25.0},
            {"kind": "audio", "codec": "pcma", "sample_rate": 8000, "channels": 1},
        ]
        assert set(stream["urls"]) == {
            "http_flv",
            "ws_flv",
            "http_fmp4",
            "ws_fmp4",
            "http_ts",
            "ws_ts",
            "hls",
            "webrtc",
            "rtsp",
        }
        url = urlsplit(stream["urls"]["http_flv"])
        assert (url.scheme, url.netloc, url.path) == ("http", "gw.example:18081", f"/live/{NVR}_{CAMERA}.flv")
        token = parse_qs(url.query)["token"][0]
        grant = rig.services.tokens.read(url.path, token)
        assert grant is not None
        assert rig.services.keys.is_valid(grant.grant_id.partition("-")[0])
        assert stream["urls"]["ws_flv"].startswith(f"ws://gw.example:18081/live/{NVR}_{CAMERA}.flv?token=")


@pytest.mark.parametrize(
    ("body", "transport"),
    [
        (None, None),
        ({}, None),
        ({"transport": "auto"}, None),
        ({"transport": "udp"}, MediaTransport.UDP),
        ({"transport": "tcp-active"}, MediaTransport.TCP_ACTIVE),
    ],
)
async def test_the_transport_may_be_asked_for(
    body: dict[str, str] | None, transport: MediaTransport | None
) -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post(LIVE, json=body) if body is not None else await client.post(LIVE)
        assert answer.status_code == 200
        assert rig.streams.asked == [(NVR, CAMERA, transport)]


async def test_a_wrong_transport_is_named() -> None:
    async with api_rig() as rig, rig.client() as client:
        answer = await client.post(LIVE, json={"transport": "tls"})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("transport: ")


async def test_s09_a_viewer_cannot_play_a_device_that_waits() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        answer = await client.post(f"/api/v1/devices/{PENDING}/channels/{CAMERA}/live")
        assert (answer.status_code, answer.json()["code"]) == (404, "gb.route.device_unknown")
        assert rig.streams.asked == []


async def test_streams_are_listed_shown_and_ended() -> None:
    async with api_rig() as rig, rig.client(Role.OPERATOR) as client:
        assert (await client.get("/api/v1/streams")).json() == {"items": [], "total": 0}
        await client.post(LIVE)
        listed = (await client.get("/api/v1/streams")).json()
        assert listed["total"] == 1
        stream = (await client.get("/api/v1/streams/s1")).json()
        assert stream == listed["items"][0]
        assert stream["ssrc"] == "0200000001"
        assert stream["transport"] == "tcp-passive"
        assert stream["consumers"] == 2
        assert stream["rtp"] == {
            "received": 10, "lost": 1, "reordered": 0, "duplicated": 0, "jitter_ms": 1.235, "bitrate_kbps": 2000.0,
        }  # fmt: skip
        assert (await client.delete("/api/v1/streams/s1")).status_code == 204
        assert (await client.get("/api/v1/streams/s1")).status_code == 404


async def test_s09_viewers_see_streams_of_approved_devices_only() -> None:
    async with api_rig() as rig, rig.client(Role.VIEWER) as client:
        rig.streams.views["s2"] = make_stream(PENDING)
        assert (await client.get("/api/v1/streams")).json()["total"] == 0
        assert (await client.get("/api/v1/streams/s2")).status_code == 404


@pytest.mark.parametrize(
    ("advertise", "host", "expected"),
    [
        ("", "gw.example:18080", "gw.example:18081"),
        ("", "gw.example", "gw.example:18081"),
        ("", "192.0.2.7:18080", "192.0.2.7:18081"),
        ("", "[2001:db8::1]:18080", "[2001:db8::1]:18081"),
        ("", "evil.example/<script>", "127.0.0.1:18081"),
        ("", "a@b", "127.0.0.1:18081"),
        ("", "", "127.0.0.1:18081"),
        ("play.example", "gw.example", "play.example:18081"),
        ("play.example:8443", "gw.example", "play.example:8443"),
        ("2001:db8::2", "gw.example", "[2001:db8::2]:18081"),
        ("[2001:db8::2]:80", "gw.example", "[2001:db8::2]:80"),
    ],
)
def test_the_host_of_play_urls(advertise: str, host: str, expected: str) -> None:
    config = PlayUrlConfig(advertise=advertise, port=lambda: 18081, rtsp_port=lambda: 8554)
    assert media_authority(config, host) == expected
    assert media_authority(config, host, rtsp=True) == f"{expected.rpartition(':')[0]}:8554"


async def test_snapshot() -> None:
    stills = FakeStills()
    path = LIVE.replace("/live", "/snapshot")
    async with api_rig(stills=stills) as rig, rig.client(Role.VIEWER) as client:
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content == b"\xff\xd8\xff\xd9"
        assert datetime.fromisoformat(answer.headers["x-picture-time"]).timestamp() == NOW - 60
        assert "x-picture-stale" not in answer.headers
        stills.stale = "gb.route.offline"
        late = await client.get(f"{path}?max_age=60&stale=true")
        assert late.headers["x-picture-stale"] == "gb.route.offline"
        assert stills.asked == [(NVR, CAMERA, 5.0, None), (NVR, CAMERA, 60.0, True)]
        assert (await client.get(path.replace(NVR, PENDING))).status_code == 404
    async with api_rig() as rig, rig.client(None) as client:
        assert (await client.get(path)).status_code == 401
