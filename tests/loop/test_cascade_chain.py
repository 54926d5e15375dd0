"""Platforms in a row: device, gateway, gateway, gateway, simulated platform. What is at the top is what was below."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.gb.mansrtsp import Pause, Resume, Scale, Seek
from gb28181gw.gb.sdp import Transport
from gb28181gw.media import native
from gb28181gw.sim.platform import Lower, Platform, PlatformOptions
from tests.support.gateway import GatewayProcess, simulated_devices

NVR = "34020000001180000001"
CAMERA = "34020000001320000001"
IDS = ("34020100002000000001", "34020200002000000001", "34020300002000000001")
TOP = "34020000002000000099"
USER = f"{TOP}-34020000004000000001"
PASSWORD = "chain-secret"
each_plane = pytest.mark.parametrize(
    "plane",
    [
        pytest.param("python", marks=pytest.mark.long),
        pytest.param(
            "native", marks=pytest.mark.skipif(not native.is_built(), reason="no native plane here")
        ),
    ],
)


class Chain:
    """Three gateways, the lowest with a device, and platforms that are the superiors of the first and the last."""

    def __init__(self, gateways: list[GatewayProcess], bottom: Platform, top: Platform) -> None:
        self.gateways = gateways
        self.bottom = bottom
        self.top = top


async def until(look: Callable[[], object], what: str, limit_s: float = 30.0) -> None:
    try:
        async with asyncio.timeout(limit_s):
            while not await asyncio.to_thread(look):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited for {what}") from None


def join(lower: GatewayProcess, upper_id: str, domain: str, port: int, password: str, **more: object) -> None:
    """Make `lower` a lower platform there, sharing everything."""
    body = {
        "id": upper_id, "domain": domain, "host": "127.0.0.1", "port": port, "password": password, **more
    }  # fmt: skip
    answer = lower.post("/uppers", body)
    assert answer.status_code == 201, answer.text
    answer = lower.api.put(f"/api/v1/uppers/{upper_id}/channels", json={"all": True})
    assert answer.status_code == 200, answer.text


def sent_to(upper: GatewayProcess, lower_id: str, text: str) -> str:
    """The first message with this text to a lower platform, as the trace of the upper one has it."""
    answer = upper.api.get(f"/api/v1/devices/{lower_id}/trace")
    assert answer.status_code == 200, answer.text
    found: list[str] = [
        one["text"] for one in answer.json()["items"] if one["direction"] == "out" and text in one["text"]
    ]
    return found[0].replace("\r\n", "\n")


@asynccontextmanager
async def chain(directory: Path, plane: str, *options: str) -> AsyncIterator[Chain]:
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(ExitStack())
        platforms: list[Platform] = []
        for number in (1, 2):
            platform = Platform(
                PlatformOptions(
                    listen="127.0.0.1:0", id=f"{TOP[:-1]}{number}", domain=TOP[:10], password=PASSWORD
                )
            )
            await platform.start()
            stack.push_async_callback(platform.close)
            platforms.append(platform)
        gateways: list[GatewayProcess] = []
        for number, own in enumerate(IDS):
            (directory / str(number)).mkdir()
            gateway = GatewayProcess(
                directory / str(number),
                sip={"id": own, "domain": own[:10], "password": PASSWORD},
                media={"plane": plane, "idle_stop_s": 1},
            )
            stack.push_async_callback(asyncio.to_thread, gateway.stop)
            gateways.append(gateway)
        await asyncio.gather(*(asyncio.to_thread(gateway.start) for gateway in gateways))
        low, middle, high = gateways
        low_device = simulated_devices(
            low, "--password", PASSWORD, "--server-id", IDS[0], "--domain", IDS[0][:10], "--id", NVR, *options
        )
        processes.enter_context(low_device)
        await asyncio.to_thread(low.wait_online, NVR, 1)
        await asyncio.to_thread(join, low, IDS[1], IDS[1][:10], middle.sip_port, PASSWORD)
        await asyncio.to_thread(join, middle, IDS[2], IDS[2][:10], high.sip_port, PASSWORD, transport="tcp")
        await asyncio.to_thread(join, low, platforms[0].options.id, TOP[:10], platforms[0].port, PASSWORD)
        await asyncio.to_thread(join, high, platforms[1].options.id, TOP[:10], platforms[1].port, PASSWORD)
        await asyncio.to_thread(middle.wait_online, IDS[0], 1)
        await asyncio.to_thread(high.wait_online, IDS[1], 1)
        yield Chain(gateways, platforms[0], platforms[1])
        processes.close()


async def played(
    platform: Platform, lower: Lower, output: Path, transport: Transport, seconds: float
) -> bytes:
    """The program stream of so many seconds."""
    playing = await platform.play(lower, CAMERA, output, transport=transport)
    async with asyncio.timeout(20):
        await playing.recording.first.wait()
    await asyncio.sleep(seconds)
    await platform.stop(playing)
    assert playing.recording.lost == 0 and playing.recording.foreign == 0
    return output.read_bytes()


@each_plane
async def test_cs08_r003_the_chain_plays_bit_identical_moves_and_delivers_an_alarm(
    tmp_path: Path, plane: str
) -> None:
    async with chain(tmp_path, plane, "--alarm", "2", "--channels", "1") as made:
        below = await made.bottom.registered(IDS[0])
        above = await made.top.registered(IDS[2])
        items = await made.top.catalogue(above)
        assert CAMERA in items and items[CAMERA].parent_id == NVR

        for transport in (Transport.UDP, Transport.TCP_PASSIVE, Transport.TCP_ACTIVE):
            bottom, top = await asyncio.gather(
                played(made.bottom, below, tmp_path / f"bottom-{transport}.ps", Transport.TCP_PASSIVE, 6.0),
                played(made.top, above, tmp_path / f"top-{transport}.ps", transport, 3.0),
            )
            assert len(top) > 100_000 and top.startswith(b"\x00\x00\x01\xba")
            # Both begin at a key frame, so the shorter recording lies whole within the longer one.
            assert top[:200_000] in bottom or bottom[:200_000] in top, transport

        await made.top.tell(above, "PTZCmd", {"PTZCmd": "A50F0102200000D7"}, target=CAMERA)
        await until(
            lambda: made.gateways[0].seen("command.answered", cmd="PTZCmd", channel_id=CAMERA),
            "the PTZ command",
        )
        await made.top.subscribe(above, "Alarm")
        await until(lambda: any(one.cmd_type == "Alarm" for one in made.top.notified), "an alarm at the top")
        assert {one.device_id for one in made.top.notified if one.cmd_type == "Alarm"} == {CAMERA}
        for gateway in made.gateways:
            await until(
                lambda gateway=gateway: all(  # type: ignore[misc]
                    one["streams"] == 0 for one in gateway.get("/uppers")["items"]
                ),
                "no stream to be left",
            )


@each_plane
async def test_r032_the_path_and_the_user_go_along_and_f06_the_device_goes_and_every_hop_ends(
    tmp_path: Path, plane: str
) -> None:
    async with chain(tmp_path, plane, "--channels", "1") as made:
        above = await made.top.registered(IDS[2])
        path = "-".join((IDS[2], IDS[1], IDS[0]))
        playing = await made.top.play(
            above,
            CAMERA,
            headers=(("X-PreferredPath", path), ("Monitor-User-Identity", USER)),
        )
        async with asyncio.timeout(20):
            await playing.recording.first.wait()
        assert playing.route == path
        # Who joins a stream that runs is told its whole way as well.
        joined = await made.top.play(above, CAMERA, headers=(("Monitor-User-Identity", USER),))
        assert joined.route == path
        await made.top.stop(joined)
        assert len(made.gateways[0].seen("upper.stream_started")) == 1
        identities = [
            gateway.seen("upper.stream_started")[0]["user_identity"] for gateway in reversed(made.gateways)
        ]
        assert identities == [
            USER,
            f"{IDS[2]}-{USER}",
            f"{IDS[1]}-{IDS[2]}-{USER}",
        ]
        low, middle = made.gateways[:2]
        sent = await asyncio.to_thread(sent_to, middle, IDS[0], "INVITE ")
        assert f"X-PreferredPath: {IDS[0]}\n" in sent
        assert f"Monitor-User-Identity: {IDS[1]}-{IDS[2]}-{USER}\n" in sent
        # Orders and questions say whose they are, on every hop and to the log; answers do not.
        whose = (("Monitor-User-Identity", USER),)
        await made.top.tell(above, "PTZCmd", {"PTZCmd": "A50F0102200000D7"}, target=CAMERA, headers=whose)
        await until(lambda: low.seen("upper.control", cmd="PTZCmd"), "the order at the bottom")
        assert low.seen("upper.control")[0]["user_identity"] == f"{IDS[1]}-{IDS[2]}-{USER}"
        presets = await made.top.ask(above, "PresetQuery", target=CAMERA, headers=whose)
        assert presets["DeviceID"] == CAMERA
        asked = await asyncio.to_thread(sent_to, middle, IDS[0], "<CmdType>PresetQuery<")
        assert f"Monitor-User-Identity: {IDS[1]}-{IDS[2]}-{USER}\n" in asked
        for wrong, identity in ((f"{IDS[2]}-{IDS[1]}-{IDS[2]}", USER), (path, f"{TOP}-{IDS[2]}-{USER}")):
            with pytest.raises(GatewayError) as caught:
                await made.top.play(
                    above, CAMERA, headers=(("X-PreferredPath", wrong), ("Monitor-User-Identity", identity))
                )
            assert caught.value.sip_status == 482
        with pytest.raises(GatewayError) as caught:
            await made.top.ask(
                above, "PresetQuery", target=CAMERA, headers=(("Monitor-User-Identity", f"{IDS[2]}-{USER}"),)
            )
        assert caught.value.sip_status == 482
        answer = await asyncio.to_thread(made.gateways[0].api.delete, f"/api/v1/devices/{NVR}")
        assert answer.status_code == 204
        async with asyncio.timeout(15):
            await playing.ended.wait()
        for gateway in made.gateways[1:]:
            # Asked once more, and what it is told then, by a 404 or by the catalogue, is believed.
            (retrying,) = gateway.seen("stream.retrying")
            assert retrying["reason"] == "device_bye"
            failed = await asyncio.to_thread(gateway.wait_event, "stream.failed")
            assert failed["reason"] == "channel_unknown" or failed["sip_status"] == 404


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP_PASSIVE, Transport.TCP_ACTIVE])
@each_plane
async def test_pb17_a_recording_plays_is_steered_and_ends_through_the_chain(
    tmp_path: Path, plane: str, transport: Transport
) -> None:
    async with chain(tmp_path, plane, "--channels", "1", "--record-hours", "2") as made:
        above = await made.top.registered(IDS[2])
        now = int(time.time())
        span = (now - 3600, now - 3590)
        answer = await made.top.ask(
            above,
            "RecordInfo",
            {"StartTime": beijing(now - 7000), "EndTime": beijing(now - 100), "Type": "all"},
            target=CAMERA,
        )
        assert int(str(answer["SumNum"])) > 0
        playing = await made.top.play(above, CAMERA, tmp_path / "record.ps", transport=transport, span=span)
        async with asyncio.timeout(20):
            await playing.recording.first.wait()
        for action in (Pause(), Resume(), Seek(6.0), Scale(2.0)):
            steered = await made.top.steer(playing, action)
            assert steered is not None and steered.ok
        infos = [line for line in made.gateways[0].events if line.get("event") == "playback.control"]
        assert [line["action"] for line in infos] == ["pause", "resume", "seek", "scale"]
        async with asyncio.timeout(40):
            await playing.ended.wait()
        assert playing.media_status == "121"
        assert playing.recording.bytes > 10_000
        if (plane, transport) == ("native", Transport.UDP):
            await downloaded(made.top, above, tmp_path / "download.ps", (now - 3600, now - 3594))
        for gateway in made.gateways:
            await until(lambda gateway=gateway: gateway.get("/streams")["total"] == 0, "no stream to be left")  # type: ignore[misc]


async def downloaded(platform: Platform, lower: Lower, output: Path, span: tuple[int, int]) -> bytes:
    """The file, fetched four times as fast as it was recorded, and interrupted for a moment."""
    playing = await platform.play(lower, CAMERA, output, transport=Transport.TCP_PASSIVE, span=span, speed=4)
    assert int(playing.file_size) > 100_000
    async with asyncio.timeout(20):
        await playing.recording.first.wait()
    for action in (Pause(), Resume()):
        steered = await platform.steer(playing, action)
        assert steered is not None and steered.ok
    async with asyncio.timeout(30):
        await playing.ended.wait()
    assert playing.media_status == "121"
    await platform.stop(playing)
    assert playing.recording.lost == 0 and playing.recording.foreign == 0
    return output.read_bytes()


@pytest.mark.long
async def test_r111_a_recording_is_downloaded_whole_through_the_chain(tmp_path: Path) -> None:
    async with chain(tmp_path, "auto", "--channels", "1", "--record-hours", "2") as made:
        below, above = await made.bottom.registered(IDS[0]), await made.top.registered(IDS[2])
        minute = int(time.time()) // 60 * 60
        span = (minute - 3600, minute - 3588)
        bottom, top = await asyncio.gather(
            downloaded(made.bottom, below, tmp_path / "bottom.ps", span),
            downloaded(made.top, above, tmp_path / "top.ps", span),
        )
        assert top == bottom and top.startswith(b"\x00\x00\x01\xba")
        for gateway in made.gateways:
            begun = gateway.seen("stream.started", kind="download")
            assert begun, gateway.seen("stream.started")
            infos = [line["action"] for line in gateway.seen("playback.control")]
            assert infos[:2] == ["pause", "resume"]
            await until(lambda gateway=gateway: gateway.get("/streams")["total"] == 0, "no stream to be left")  # type: ignore[misc]


def beijing(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone(timedelta(hours=8))).strftime("%Y-%m-%dT%H:%M:%S")
