"""Pushes of a real gateway, taken by FFmpeg as an RTMP server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from gb28181gw.media import native
from tests.support.certificates import authority, signed
from tests.support.field import Field, Plan, running_field
from tests.support.gateway import free_port, media_range, wait_until

pytestmark = pytest.mark.interop
BUILT = pytest.mark.skipif(not native.is_built(), reason="the native plane was not built")
SMALL = {"channels": 1, "size": "320x240", "bitrate_kbps": 200}
SECRET = "Stromschluessel7"


@pytest.fixture(
    scope="module",
    params=[pytest.param("python", marks=pytest.mark.long), pytest.param("native", marks=BUILT)],
)
def devices(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("push")
    ca = authority(directory)
    signed(directory, ca, names="IP:127.0.0.1", name="known")
    authority(directory, "stranger")
    media = {
        "idle_stop_s": 3, "plane": request.param, "ports": media_range(100), "push_ca": str(ca.cert)
    }  # fmt: skip
    plans = {
        "h264": Plan(rows=(), options=SMALL),
        "h264-aac": Plan(rows=(), options={**SMALL, "audio": "aac"}),
        "h265-aac": Plan(rows=(), options={**SMALL, "video": "h265", "audio": "aac"}),
    }
    with running_field(directory, plans, media=media) as field:
        yield field


@contextmanager
def tls_server(directory: Path, name: str, to: int) -> Iterator[int]:
    """A port where TLS with this certificate is taken off; what is in it goes to another port of this host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
    loop = asyncio.new_event_loop()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:

        async def stop() -> None:
            server.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def received(url: str, *options: str) -> dict[str, int]:
    """Frames that FFmpeg decoded as the server of `url`, by codec; one push of it, ended by FFmpeg."""
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-of", "json", "-read_intervals", "%+3",
         "-show_entries", "stream=codec_name,nb_read_frames", *options, "-i", url],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {one["codec_name"]: int(one["nb_read_frames"]) for one in json.loads(done.stdout)["streams"]}


def test_rtmp_is_decoded_and_a_broken_peer_is_come_back_to(devices: Field) -> None:
    devices.device("h264", channels=1)
    channel = f"/api/v1/devices/{devices.ids['h264']}/channels/{devices.channels('h264')[0]['id']}"
    api, port = devices.gateway.api, free_port()
    url = f"rtmp://127.0.0.1:{port}/live/{SECRET}"
    answer = api.post(f"{channel}/push", json={"url": url})
    assert answer.status_code == 201, answer.text
    push = f"/api/v1/pushes/{answer.json()['id']}"
    assert answer.json()["url"] == f"rtmp://127.0.0.1:{port}/live/***"

    told = wait_until(lambda: api.get(push).json()["last_error"], "the first refusal: nobody listens yet")
    assert told == "Connection refused"
    for _ in range(2):
        frames = received(url, "-listen", "1")
        assert frames["h264"] >= 50
        assert frames["aac"] >= 10
    broken = wait_until(lambda: api.get(push).json()["state"] == "retrying", "the loss to be seen", 40)
    assert broken
    assert api.get(push).json()["last_error"] in (
        "Broken pipe",
        "Connection reset by peer",
        "Input/output error",
    )
    assert SECRET not in api.get("/api/v1/pushes").text
    assert api.delete(push).status_code == 204
    assert api.get(push).status_code == 404
    devices.gateway.wait_event("push.started", device_id=devices.ids["h264"])
    devices.gateway.wait_event("push.ended", device_id=devices.ids["h264"])
    assert SECRET not in json.dumps(devices.gateway.events) + "".join(devices.gateway.other_lines)


def test_rtsp_is_decoded_with_the_devices_own_sound_and_goes_on_after_a_restart(devices: Field) -> None:
    devices.device("h264", channels=1)
    channel = f"/api/v1/devices/{devices.ids['h264']}/channels/{devices.channels('h264')[0]['id']}"
    api, url = devices.gateway.api, f"rtsp://127.0.0.1:{free_port()}/live/{SECRET}"
    answer = api.post(f"{channel}/push", json={"url": url})
    assert answer.status_code == 201, answer.text
    frames = received(url, "-rtsp_flags", "listen")
    assert frames["h264"] >= 50
    assert frames["pcm_alaw"] >= 10
    devices.gateway.kill()
    devices.gateway.start()
    assert [one["id"] for one in api.get("/api/v1/pushes").json()["items"]] == [answer.json()["id"]]
    devices.device("h264", channels=1)
    assert received(url, "-rtsp_flags", "listen")["h264"] >= 50
    assert api.delete(f"/api/v1/pushes/{answer.json()['id']}").status_code == 204
    assert SECRET not in json.dumps(devices.gateway.events) + "".join(devices.gateway.other_lines)


@pytest.mark.parametrize("scheme", ["rtmps", "rtsps"])
def test_a_peer_whose_certificate_nobody_vouches_for_gets_nothing(devices: Field, scheme: str) -> None:
    devices.device("h264", channels=1)
    channel = f"/api/v1/devices/{devices.ids['h264']}/channels/{devices.channels('h264')[0]['id']}"
    api = devices.gateway.api
    with tls_server(devices.gateway.directory, "stranger", free_port()) as port:
        answer = api.post(f"{channel}/push", json={"url": f"{scheme}://127.0.0.1:{port}/live/{SECRET}"})
        push = f"/api/v1/pushes/{answer.json()['id']}"
        told = wait_until(lambda: api.get(push).json()["last_error"], "the refusal")
        assert told == "The certificate of the peer was not accepted."
        assert api.delete(push).status_code == 204


def test_rtmps_with_the_devices_own_aac(devices: Field) -> None:
    devices.device("h264-aac", channels=1)
    channel = f"/api/v1/devices/{devices.ids['h264-aac']}/channels/{devices.channels('h264-aac')[0]['id']}"
    api, server = devices.gateway.api, free_port()
    with tls_server(devices.gateway.directory, "known", server) as port, ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(received, f"rtmp://127.0.0.1:{server}/live/{SECRET}|x'y", "-listen", "1")
        answer = api.post(f"{channel}/push", json={"url": f"rtmps://127.0.0.1:{port}/live/{SECRET}|x'y"})
        assert answer.status_code == 201, answer.text
        frames = receiving.result(60)
        assert api.delete(f"/api/v1/pushes/{answer.json()['id']}").status_code == 204
    assert frames["h264"] >= 50
    assert frames["aac"] >= 10


def test_h265_and_aac_over_rtsp(devices: Field) -> None:
    devices.device("h265-aac", channels=1)
    channel = f"/api/v1/devices/{devices.ids['h265-aac']}/channels/{devices.channels('h265-aac')[0]['id']}"
    api, url = devices.gateway.api, f"rtsp://127.0.0.1:{free_port()}/live/{SECRET}"
    answer = api.post(f"{channel}/push", json={"url": url})
    assert answer.status_code == 201, answer.text
    frames = received(url, "-rtsp_flags", "listen")
    assert api.delete(f"/api/v1/pushes/{answer.json()['id']}").status_code == 204
    assert frames["hevc"] >= 50
    assert frames["aac"] >= 10
