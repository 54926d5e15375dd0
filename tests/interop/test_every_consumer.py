"""Twenty consumers of every kind on one channel: one call to the device, one demuxing, and each sees a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import av
import pytest
from av.container import InputContainer
from websockets.sync.client import connect

from gb28181gw.media import native
from tests.support.field import Field, Plan, running_field
from tests.support.gateway import media_range, wait_until
from tests.support.hostile import metric
from tests.support.players import WebSocketFile
from tests.support.whep import only_loopback, whep

pytestmark = pytest.mark.interop
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")
PLAN = Plan(rows=(), options={"channels": 1, "size": "320x240", "bitrate_kbps": 200})
KINDS = (
    "http_flv",
    "http_fmp4",
    "http_ts",
    "ws_flv",
    "ws_fmp4",
    "ws_ts",
    "hls",
    "rtsp",
    "rtsp_udp",
    "webrtc",
)
PICTURES = 40


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def devices(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    media = {"idle_stop_s": 1, "plane": request.param, "ports": media_range(100)}
    with running_field(tmp_path_factory.mktemp("every"), {"camera": PLAN}, media=media) as field:
        yield field


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    only_loopback(monkeypatch)


class Audience:
    """Consumers that watch until they are told to stop."""

    def __init__(self, urls: dict[str, str], kinds: tuple[str, ...]) -> None:
        self.urls = urls
        self.kinds = kinds
        self.pictures = [0] * len(kinds)
        """That a foreign decoder made, by consumer."""
        self.enough = Event()

    def watch(self, number: int) -> None:
        kind = self.kinds[number]
        sound = "&audio=aac" if kind.endswith("ts") else ""  # FFmpeg looks long for what G.711 in TS may be
        if kind == "webrtc":
            asyncio.run(self._webrtc(number))
        elif kind.startswith("ws"):
            with connect(self.urls[kind] + sound, max_size=None) as socket:
                self._decode(number, WebSocketFile(socket))
        elif kind.startswith("rtsp"):
            transport = "udp" if kind == "rtsp_udp" else "tcp"
            self._decode(number, self.urls["rtsp"], rtsp_transport=transport)
        else:
            self._decode(number, self.urls[kind] + sound)

    def _decode(self, number: int, source: str | WebSocketFile, **options: str) -> None:
        with av.open(source, "r", options=options, timeout=30) as container:
            assert isinstance(container, InputContainer)
            for _ in container.decode(video=0):
                self.pictures[number] += 1
                if self.enough.is_set():
                    return

    async def _webrtc(self, number: int) -> None:
        async with whep(self.urls["webrtc"]) as client:
            response = await client.play()
            assert response.status_code == 201, response.text
            while not self.enough.is_set():
                await asyncio.sleep(0.05)
                self.pictures[number] = client.frames["video"]


def test_twenty_consumers_cause_one_call_and_one_demuxing(devices: Field) -> None:
    gateway = devices.gateway
    device = devices.device("camera", channels=1)["id"]
    channel = str(devices.channels("camera")[0]["id"])
    audience = Audience(gateway.live(device, channel)["urls"], KINDS * 2)
    with ThreadPoolExecutor(len(audience.kinds)) as pool:
        watching = [pool.submit(audience.watch, number) for number in range(len(audience.kinds))]

        def everybody(pictures: int) -> bool:
            for ended in (one for one in watching if one.done()):
                ended.result()
            return min(audience.pictures) >= pictures

        try:
            wait_until(lambda: everybody(PICTURES), "everybody's pictures", 90)
            streams = gateway.get("/streams")
            packets, demuxed = (metric(gateway, name) for name in ("rtp_packets", "rtp_demuxed"))
            wait_until(lambda: everybody(2 * PICTURES), "more pictures", 90)
            demuxed = metric(gateway, "rtp_demuxed") - demuxed
            packets = metric(gateway, "rtp_packets") - packets
        except AssertionError as error:
            raise AssertionError(
                dict(enumerate(zip(audience.kinds, audience.pictures, strict=True)))
            ) from error
        finally:
            audience.enough.set()
    for ended in watching:
        ended.result()
    assert streams["total"] == 1
    assert streams["items"][0]["consumers"] == len(audience.kinds) - 1, "one HLS session for one token"
    assert 0 < demuxed <= packets
    assert devices.noted("camera", "invite") == metric(gateway, "sessions_started_total") == 1
