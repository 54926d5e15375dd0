"""A simulated device plays through a real gateway and is read by programs that we did not write."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from websockets.sync.client import connect

from gb28181gw.media import native
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices, wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed"),
]

H264 = "34020000001180000001"
H265 = "34020000001180000101"
TRANSPORTS = ["udp", "tcp-passive", "tcp-active"]


BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")


@pytest.fixture(scope="module", params=["python", pytest.param("native", marks=BUILT)])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    media = {"idle_stop_s": 2, "plane": request.param}
    with running_gateway(tmp_path_factory.mktemp("live"), media=media) as gateway:
        assert gateway.wait_event("gateway.ready")["plane"] == request.param
        yield gateway


@pytest.fixture(scope="module")
def cameras(gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    h264 = ("--id", H264, "--channels", "2", "--video", "h264", "--audio", "pcma")
    h265 = ("--id", H265, "--channels", "1", "--video", "h265", "--audio", "aac")
    with simulated_devices(gateway, *h264), simulated_devices(gateway, *h265):
        gateway.wait_online(H264, channels=2, limit_s=60)
        gateway.wait_online(H265, channels=1, limit_s=60)
        yield gateway


def first_channel(gateway: GatewayProcess, device_id: str) -> str:
    return str(gateway.get(f"/devices/{device_id}/channels")["items"][0]["id"])


def ffprobe(url: str) -> dict[str, Any]:
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-rw_timeout", "15000000", url],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {stream["codec_type"]: stream for stream in json.loads(done.stdout)["streams"]}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h264_and_g711_by_ffprobe_and_ffmpeg(cameras: GatewayProcess, transport: str) -> None:
    channel = first_channel(cameras, H264)
    answer = cameras.live(H264, channel, transport=transport)
    assert (answer["state"], answer["kind"]) == ("running", "live")
    url = answer["urls"]["http_flv"]
    seen = ffprobe(url)
    video, audio = seen["video"], seen["audio"]
    assert (video["codec_name"], video["avg_frame_rate"]) == ("h264", "25/1")
    assert (audio["codec_name"], audio["sample_rate"]) == ("pcm_alaw", "8000")
    tracks = {track["kind"]: track for track in cameras.get(f"/streams/{answer['id']}")["tracks"]}
    assert (video["width"], video["height"]) == (tracks["video"]["width"], tracks["video"]["height"])
    decoded = subprocess.run(
        ["ffmpeg", "-v", "error", "-rw_timeout", "15000000", "-i", url, "-t", "10", "-f", "null", "-"],
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert (decoded.returncode, decoded.stderr) == (0, "")
    stream = cameras.get(f"/streams/{answer['id']}")
    assert stream["transport"] == transport
    assert stream["rtp"]["lost"] == 0
    assert stream["rtp"]["received"] > 500
    assert cameras.api.delete(f"/api/v1/streams/{answer['id']}").status_code == 204
    assert cameras.api.get(f"/api/v1/streams/{answer['id']}").status_code == 404


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h265_and_aac_by_a_newer_ffmpeg(cameras: GatewayProcess, transport: str) -> None:
    """Debian's ffmpeg 5.1 cannot read H.265 in FLV; the one inside PyAV can."""
    answer = cameras.live(H265, first_channel(cameras, H265), transport=transport)
    pictures = 0
    with av.open(answer["urls"]["http_flv"], timeout=20) as source:
        video, audio = source.streams.video[0], source.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("hevc", "aac")
        last_dts = -1
        for packet in source.demux(video):
            if packet.dts is None:
                break
            assert packet.dts > last_dts
            last_dts = packet.dts
            pictures += len(packet.decode())
            if pictures >= 250:
                break
        assert pictures >= 250
        assert round(float(video.average_rate or 0)) == 25
    assert cameras.api.delete(f"/api/v1/streams/{answer['id']}").status_code == 204


def test_ws_flv_is_the_same_stream(cameras: GatewayProcess, tmp_path: Path) -> None:
    answer = cameras.live(H264, first_channel(cameras, H264))
    received = bytearray()
    with connect(answer["urls"]["ws_flv"], max_size=None) as socket:
        while len(received) < 1_000_000:
            message = socket.recv(timeout=20)
            assert isinstance(message, bytes)
            received += message
    (tmp_path / "ws.flv").write_bytes(received)
    assert ffprobe(str(tmp_path / "ws.flv"))["video"]["codec_name"] == "h264"


def test_audio_aac_on_request(cameras: GatewayProcess) -> None:
    answer = cameras.live(H264, first_channel(cameras, H264))
    seen = ffprobe(answer["urls"]["http_flv"] + "&audio=aac")
    assert seen["audio"]["codec_name"] == "aac"


def test_hevc_legacy_on_request(cameras: GatewayProcess) -> None:
    answer = cameras.live(H265, first_channel(cameras, H265))
    with httpx.stream("GET", answer["urls"]["http_flv"] + "&hevc=legacy", timeout=20) as response:
        head = b"".join(chunk for chunk, _ in zip(response.iter_bytes(4096), range(4), strict=False))
    at = 9 + 4
    while head[at] != 9:  # tags before the first video tag: type, 24-bit size, 11 bytes of head, 4 behind
        at += 11 + int.from_bytes(head[at + 1 : at + 4], "big") + 4
    assert head[at + 11] == 0x1C  # key frame (1), codec id 12


def test_a_play_url_alone_starts_the_stream_and_the_last_viewer_ends_it(cameras: GatewayProcess) -> None:
    channel = cameras.get(f"/devices/{H264}/channels")["items"][1]["id"]
    url = f"http://127.0.0.1:{cameras.media_port}/live/{H264}_{channel}.flv"
    assert httpx.get(url, timeout=20).status_code == 401
    with httpx.stream("GET", url, headers={"Authorization": f"Bearer {cameras.key}"}, timeout=20) as response:
        assert response.status_code == 200
        body = response.iter_bytes(13)  # kept: when it is collected, httpx closes the connection
        assert next(body)[:3] == b"FLV"
        running = [one for one in cameras.get("/streams")["items"] if one["channel_id"] == channel]
        assert running[0]["consumers"] == 1
    wait_until(
        lambda: not [one for one in cameras.get("/streams")["items"] if one["channel_id"] == channel],
        "the stream to end after its last viewer",
    )


def test_a_second_viewer_begins_at_the_kept_key_frame(cameras: GatewayProcess, tmp_path: Path) -> None:
    answer = cameras.live(H264, first_channel(cameras, H264))
    for number in range(2):
        with httpx.stream("GET", answer["urls"]["http_flv"], timeout=20) as response:
            head = b"".join(chunk for chunk, _ in zip(response.iter_bytes(65536), range(3), strict=False))
        file = tmp_path / f"{number}.flv"
        file.write_bytes(head)
        shown = subprocess.run(
            ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "packet=flags", "-of", "csv=p=0", file],
            capture_output=True, text=True, timeout=30,
        ).stdout  # fmt: skip
        assert shown.startswith("K")


def test_invite_is_shared_by_viewers(cameras: GatewayProcess) -> None:
    channel = first_channel(cameras, H264)
    answers = [cameras.live(H264, channel) for _ in range(5)]
    assert len({answer["id"] for answer in answers}) == 1
    stream = cameras.get(f"/streams/{answers[0]['id']}")
    assert len(cameras.seen("stream.started", stream_id=stream["id"])) == 1
