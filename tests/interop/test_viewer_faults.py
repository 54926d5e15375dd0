"""Tokens and octets that do not fit, at every kind of consumer: refused with the reason, and nobody else notices."""

from __future__ import annotations

import socket
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gb28181gw.access.tokens import Grant, PlayTokens
from gb28181gw.media import native
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until
from tests.support.hostile import GOOD, HEIGHT, WIDTH, Viewer

pytestmark = pytest.mark.interop
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")
KINDS = ("http_flv", "http_fmp4", "http_ts", "ws_flv", "ws_fmp4", "ws_ts", "hls", "rtsp", "webrtc")
GARBAGE = bytes(range(256)) * 40


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    camera = ("--id", GOOD, "--channels", "2", "--size", f"{WIDTH}x{HEIGHT}", "--bitrate", "300")
    directory = tmp_path_factory.mktemp("faults")
    with (
        running_gateway(directory, media={"plane": request.param}) as gateway,
        simulated_devices(gateway, *camera, "--audio", "none"),
    ):
        gateway.wait_online(GOOD, channels=2, limit_s=60)
        yield gateway


def request_of(kind: str, url: httpx.URL) -> str:
    """The first request of a player."""
    path = url.raw_path.decode()
    if kind == "rtsp":
        return f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    if kind.startswith("ws"):
        return (
            f"GET {path} HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    if kind == "webrtc":
        return f"POST {path} HTTP/1.1\r\nHost: gw\r\nContent-Type: application/sdp\r\nContent-Length: 9000\r\n\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest.fixture(scope="module")
def urls(gateway: GatewayProcess) -> dict[str, str]:
    """Of the first channel."""
    channel = gateway.get(f"/devices/{GOOD}/channels")["items"][0]["id"]
    return dict(gateway.live(GOOD, channel)["urls"])


@pytest.fixture(scope="module")
def witness(urls: dict[str, str]) -> Iterator[Viewer]:
    """Somebody who watches all the time."""
    viewer = Viewer(urls["http_flv"])
    wait_until(lambda: viewer.times_ms, "the first pictures")
    yield viewer
    viewer.close()


def opened(kind: str, url: str) -> tuple[int, str]:
    """Status and code of a player that opens `url`."""
    if kind == "rtsp":
        host, port = httpx.URL(url).host, httpx.URL(url).port
        with socket.create_connection((host, port), 10) as player:
            player.sendall(f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            head, _, body = player.recv(4096).decode().partition("\r\n\r\n")
            return int(head.split()[1]), body + head
    if kind.startswith("ws"):
        with pytest.raises(InvalidStatus) as refused:
            connect(url)
        return refused.value.response.status_code, refused.value.response.body.decode()
    if kind == "webrtc":
        offer = {"content-type": "application/sdp"}
        answer = httpx.post(url, content=b"v=0\r\n", headers=offer, timeout=10)
    else:
        answer = httpx.get(url, timeout=10)
    return answer.status_code, answer.text


def tokens(gateway: GatewayProcess, urls: dict[str, str]) -> dict[str, str]:
    """Tokens for the first channel that open nothing, by what is wrong with them."""
    with (gateway.directory / "data" / "secrets.toml").open("rb") as file:
        key = bytes.fromhex(tomllib.load(file)["token_key"])
    url = httpx.URL(urls["http_flv"])
    good = url.params["token"]
    grant = Grant(grant_id=good.split(".")[0])
    other = gateway.get(f"/devices/{GOOD}/channels")["items"][1]["id"]
    valid = PlayTokens(key, ttl_s=300, wall=time.time)
    assert valid.read(url.path, good) == grant
    return {
        "expired": PlayTokens(key, ttl_s=-1, wall=time.time).mint(url.path, grant),
        "of another stream": valid.mint(f"/live/{GOOD}_{other}.flv", grant),
        "of another gateway": PlayTokens(b"?" * 32, ttl_s=300, wall=time.time).mint(url.path, grant),
        "of a key that is gone": valid.mint(url.path, Grant(grant_id="0123456789abcdef-abcdefgh")),
        "cut": good[:-1],
        "garbage": "%00%ff" * 20,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_s15_tokens_that_do_not_fit_open_nothing(
    gateway: GatewayProcess, urls: dict[str, str], witness: Viewer, kind: str
) -> None:
    place = urls[kind].partition("?")[0]
    consumers = gateway.get("/streams")["items"][0]["consumers"]
    for what, token in tokens(gateway, urls).items():
        status, told = opened(kind, f"{place}?token={token}")
        assert (status, "gb.output.bad_token" in told) == (401, True), (what, told)
    status, told = opened(kind, place)
    assert (status, "gb.route.unauthorised" in told) == (401, True), told
    assert [one["consumers"] for one in gateway.get("/streams")["items"]] == [consumers]
    witness.check()


def test_s15_snapshots_want_a_key(gateway: GatewayProcess, witness: Viewer) -> None:
    channel = gateway.get(f"/devices/{GOOD}/channels")["items"][0]["id"]
    path = f"/api/v1/devices/{GOOD}/channels/{channel}/snapshot"
    for key in ("", "Bearer wrong", "Basic eDp5"):
        answer = httpx.get(f"http://127.0.0.1:{gateway.api_port}{path}", headers={"authorization": key})
        assert (answer.status_code, answer.json()["code"]) == (401, "gb.route.unauthorised")
    assert gateway.api.get(path, params={"max_age": "\0"}).status_code == 422
    witness.check()


@pytest.mark.parametrize("kind", KINDS)
def test_f08_garbage_ends_one_viewer_alone(
    gateway: GatewayProcess, urls: dict[str, str], witness: Viewer, kind: str
) -> None:
    """In place of the request, and behind a request that was answered."""
    url = httpx.URL(urls[kind])
    assert url.port is not None
    for before in ("", request_of(kind, url)):
        with socket.create_connection((url.host, url.port), 10) as player:
            player.sendall(before.encode())
            if before and kind != "webrtc":
                assert b" 200 " in (answer := player.recv(4096)) or b" 101 " in answer
            with suppress(ConnectionError):
                player.sendall(GARBAGE)
                if before and kind.startswith("http"):
                    continue  # nobody reads what comes behind the request of a stream
                while player.recv(65536):
                    pass
    witness.check()
    wait_until(
        lambda: gateway.get("/streams")["items"][0]["consumers"] <= 2,  # the witness, and a session of HLS
        "those who sent garbage to be gone",
        40,
    )


@pytest.mark.long
def test_f10_viewers_that_stop_reading_are_dropped_and_named(
    gateway: GatewayProcess, witness: Viewer
) -> None:
    device = "34020000001180000201"
    rich = ("--id", device, "--channels", "1", "--bitrate", "8000", "--audio", "none")
    with simulated_devices(gateway, *rich), ExitStack() as stuck:
        gateway.wait_online(device, channels=1, limit_s=60)
        channel = gateway.get(f"/devices/{device}/channels")["items"][0]["id"]
        urls = gateway.live(device, channel)["urls"]
        lively = stuck.enter_context(httpx.stream("GET", urls["http_flv"], timeout=20))
        body = lively.iter_raw()
        kinds = [kind for kind in KINDS if kind not in ("hls", "webrtc")]
        for kind in kinds:
            url = httpx.URL(urls[kind])
            assert url.port is not None
            player = stuck.enter_context(socket.socket())
            player.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            player.connect((url.host, url.port))
            player.sendall(request_of(kind, url).encode())
            if kind == "rtsp":
                track = (
                    f"SETUP {url.copy_with(query=None)}/track0?{url.query.decode()} RTSP/1.0\r\nCSeq: 2\r\n"
                )
                player.sendall(f"{track}Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n".encode())
                told = ""
                while "Session: " not in told:
                    told += player.recv(1000).decode()
                session = told.partition("Session: ")[2].split(";")[0].split()[0]
                player.sendall(f"PLAY {url} RTSP/1.0\r\nCSeq: 3\r\nSession: {session}\r\n\r\n".encode())

        def dropped() -> bool:
            next(body)
            ended = gateway.seen("viewer.ended", device_id=device, reason="slow")
            return {one["kind"] for one in ended} == set(kinds)

        wait_until(dropped, "all who stopped to be dropped", 90)
        assert gateway.seen("viewer.ended", device_id=device) == gateway.seen(
            "viewer.ended", device_id=device, reason="slow"
        )
    witness.check()
