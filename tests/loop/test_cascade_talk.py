"""An upper platform talks with a camera below (s=Talk): a tone down, and what the camera says back up."""

from __future__ import annotations

import asyncio
import re
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.gb.sdp import Transport
from gb28181gw.sim.platform import Lower, Platform, PlatformOptions
from gb28181gw.sim.platform_talk import TONE_HZ, Conversation
from tests.support.gateway import GatewayProcess, simulated_devices
from tests.support.talking import heard_level

NVR, CAMERA = "34020000001180000001", "34020000001320000001"
LOW, MIDDLE, TOP = "34020100002000000001", "34020200002000000001", "34020000002000000099"
PASSWORD = "talk-secret"
RATE = 8_000


class Talkers:
    """A device, one gateway or two in a row, and a simulated platform above."""

    def __init__(self, gateways: list[GatewayProcess], platform: Platform, lower: Lower, heard: Path) -> None:
        self.gateways = gateways
        self.platform = platform
        self.lower = lower
        self._heard = heard

    @property
    def next_below(self) -> GatewayProcess:
        """Of the platform."""
        return self.gateways[-1]

    async def nobody_talks(self) -> None:
        for gateway in self.gateways:
            await until(
                lambda gateway=gateway: (
                    not gateway.get("/talks")["items"]  # type: ignore[misc]
                    and all(not one["streams"] for one in gateway.get("/uppers")["items"])
                ),
                "no talk to be left",
            )

    async def loudspeaker(self) -> bytes:
        """What the device heard, from its file, which is written when the talk is over."""
        await until(lambda: list(self._heard.glob("*.wav")), "the loudspeaker's file")
        (file,) = self._heard.glob("*.wav")
        with wave.open(str(file)) as sound:
            found = sound.readframes(sound.getnframes())
        file.unlink()
        return found


async def until(look: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(look):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited for {what}") from None


def level(pcm: bytes, hertz: float) -> float:
    """Of the loudest half second: what came before and after is silence."""
    half = RATE  # bytes
    steps = range(0, max(len(pcm) - half, 1), half // 2)
    return max((heard_level(pcm[at : at + half], hertz) for at in steps), default=0.0)


@asynccontextmanager
async def talkers(directory: Path, *options: str, hops: int = 1, plane: str = "") -> AsyncIterator[Talkers]:
    heard = directory / "heard"
    heard.mkdir()
    async with AsyncExitStack() as stack:
        platform = Platform(PlatformOptions(listen="127.0.0.1:0", id=TOP, domain=TOP[:10], password=PASSWORD))
        await platform.start()
        stack.push_async_callback(platform.close)
        gateways: list[GatewayProcess] = []
        for own in (LOW, MIDDLE)[:hops]:
            (directory / own).mkdir()
            gateway = GatewayProcess(
                directory / own,
                sip={"id": own, "domain": own[:10], "password": PASSWORD},
                media={"idle_stop_s": 1, **({"plane": plane} if plane else {})},
            )
            gateways.append(gateway)
            stack.push_async_callback(asyncio.to_thread, gateway.stop)
        await asyncio.gather(*(asyncio.to_thread(gateway.start) for gateway in gateways))
        low = gateways[0]
        stack.enter_context(
            simulated_devices(
                low, "--password", PASSWORD, "--server-id", LOW, "--domain", LOW[:10], "--id", NVR,
                "--channels", "1", "--hear-dir", str(heard), *options,
            )
        )  # fmt: skip
        await asyncio.to_thread(low.wait_online, NVR, 1)
        uppers = [(MIDDLE, gateway.sip_port) for gateway in gateways[1:]] + [(TOP, platform.port)]
        for number, (gateway, (upper_id, port)) in enumerate(zip(gateways, uppers, strict=True)):
            body = {
                "id": upper_id, "domain": upper_id[:10], "host": "127.0.0.1", "port": port,
                "password": PASSWORD, "name": "City" if upper_id == TOP else "",
                "transport": "tcp" if number else "udp",
            }  # fmt: skip
            answer = await asyncio.to_thread(gateway.post, "/uppers", body)
            assert answer.status_code == 201, answer.text
            url = f"/api/v1/uppers/{upper_id}/channels"
            await asyncio.to_thread(gateway.api.put, url, json={"all": True})
            if upper_id == MIDDLE:
                await asyncio.to_thread(gateways[1].wait_online, LOW, 1)
        yield Talkers(
            gateways, platform, await platform.registered(gateways[-1].settings["sip"]["id"]), heard
        )


async def converse(made: Talkers, hertz: float, loud: int, **options: object) -> Conversation:
    """Talk until the camera was heard, and end it."""
    talking = await made.platform.talk(made.lower, CAMERA, **options)  # type: ignore[arg-type]  # its names
    await until(lambda: level(bytes(talking.ear.pcm), hertz) > loud, "the camera's sound above")
    low = made.gateways[0]
    await until(lambda: low.get("/talks")["items"][0]["spoken_s"] > 0.7, "the upper's tone to be spoken")
    return talking


async def test_r136_an_upper_talks_both_ways_with_a_device_that_knows_talk(tmp_path: Path) -> None:
    async with talkers(tmp_path, "--quirk", "TK-01-TALK") as made:
        for transport in Transport:
            talking = await converse(made, 1_000, 5_000, transport=transport, codec="pcmu")
            with pytest.raises(GatewayError) as caught:
                await made.platform.talk(made.lower, CAMERA)
            assert caught.value.sip_status == 486, "one loudspeaker speaks with one voice"
            below = await asyncio.to_thread(made.next_below.get, "/talks")
            assert [one["microphone"] for one in below["items"]] == ["upper"]
            busy = await asyncio.to_thread(
                made.next_below.post, f"/devices/{NVR}/channels/{CAMERA}/talk", {"way": "talk"}
            )
            assert busy.status_code == 409 and "City is talking" in busy.json()["detail"]
            await made.platform.hang_up(talking)
            assert talking.ear.malformed == 0 and set(talking.ear.spans) == {160}
            assert level(await made.loudspeaker(), TONE_HZ) > 5_000
            await made.nobody_talks()
        talks = made.next_below.seen("talk.started")
        assert [(talk["way"], talk["holder"]) for talk in talks] == [("talk", "City")] * 3
        begun = made.next_below.seen("upper.stream_started", kind="talk", upper_id=TOP)
        assert [one["transport"] for one in begun] == ["udp", "tcp-active", "tcp-passive"]
        await until(
            lambda: len(made.next_below.seen("upper.stream_stopped", reason="upper_bye")) == 3,
            "every end to be told",
        )
        ended = made.next_below.seen("upper.stream_stopped", reason="upper_bye")
        assert all(one["bytes"] > 1_000 for one in ended)


@pytest.mark.long
async def test_r136_a_talk_goes_through_a_chain_as_broadcast_and_live_play(tmp_path: Path) -> None:
    async with talkers(tmp_path, hops=2) as made:
        low, middle = made.gateways
        # R064: who asks for something at a gateway is named to the platforms below it by the id of the key.
        await asyncio.to_thread(middle.live, LOW, CAMERA)
        watched = await asyncio.to_thread(low.wait_event, "upper.stream_started", kind="play")
        assert re.fullmatch(f"{MIDDLE}-[0-9a-f]{{16}}", watched["user_identity"])
        talking = await converse(made, 220, 1_000)
        assert middle.seen("talk.started")[0]["way"] == low.seen("talk.started")[0]["way"] == "broadcast"
        assert {one["kind"] for one in low.seen("upper.stream_started")} == {"broadcast", "play"}
        # The device has enough: every hop ends, the top by our BYE.
        talk = (await asyncio.to_thread(low.get, "/talks"))["items"][0]
        answer = await asyncio.to_thread(low.api.delete, f"/api/v1/talks/{talk['id']}")
        assert answer.status_code == 204
        async with asyncio.timeout(20):
            await talking.ended.wait()
        assert level(await made.loudspeaker(), TONE_HZ) > 5_000
        await made.nobody_talks()
        assert middle.seen("upper.stream_stopped", kind="talk", upper_id=TOP)
