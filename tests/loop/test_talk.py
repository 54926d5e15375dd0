"""Broadcast and talk (GB/T 28181-2022 9.12): from the API over SIP and RTP into a simulated loudspeaker."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.access.roles import Role
from gb28181gw.devices.path_keeper import PathKeeper
from gb28181gw.media import native
from gb28181gw.media.engine import Feature
from gb28181gw.media.native import NativePlane
from gb28181gw.sessions.talk import TalkLimits
from tests.support.devices import until
from tests.support.plane import free_port_pair
from tests.support.talking import TalkBench, heard_level, loud_part, talk_bench, tone

HERTZ = 440.0
BUILT = pytest.mark.skipif(
    not (native.is_built() and Feature.RTP_SINKS in NativePlane.features),
    reason="the native plane was not built",
)
pytestmark = pytest.mark.parametrize(
    "plane_name", ["python", pytest.param("native", marks=BUILT)], indirect=True
)


def wav(pcm: bytes, rate: int = 8_000) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(rate)
        target.writeframes(pcm)
    return made.getvalue()


async def speak(bench: TalkBench, talk_id: str, seconds: float = 0.6, hertz: float = HERTZ) -> None:
    answer = await bench.client.post(
        f"/api/v1/talks/{talk_id}/audio",
        content=wav(tone(seconds, hertz=hertz)),
        headers={"Content-Type": "audio/wav"},
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["seconds"] == seconds


@pytest.mark.parametrize("codec", ["pcma", "pcmu", "aac", "ps"])
@pytest.mark.parametrize("transport", ["udp", "tcp-active", "tcp-passive"])
async def test_r133_a_tone_is_heard_at_the_loudspeaker(tmp_path: Path, transport: str, codec: str) -> None:
    async with talk_bench(tmp_path, talk_transport=transport, talk_codec=codec) as bench:
        begun = await bench.start()
        ours = {"udp": "udp", "tcp-active": "tcp-passive", "tcp-passive": "tcp-active"}[transport]
        assert (begun["way"], begun["transport"], begun["state"]) == ("broadcast", ours, "talking")
        assert begun["codec"] == {"ps": "pcma"}.get(codec, codec)
        talk = await bench.listening()
        before = len(talk.ear.pcm)
        await speak(bench, begun["id"])
        await until(lambda: len(loud_part(bytes(talk.ear.pcm))) >= 0.55 * 16_000)
        pcm = bytes(talk.ear.pcm)
        sound = loud_part(pcm)
        assert pcm.index(sound) - before < 0.5 * 16_000, "the delay, counted in what was heard meanwhile"
        assert heard_level(sound, HERTZ) == pytest.approx(12_000, rel=0.15)
        assert heard_level(sound, 2 * HERTZ) < 1_000
        assert talk.ear.malformed == 0
        assert talk.ear.ssrcs == {int(begun["ssrc"])}, "TK-07: the SSRC of its y="
        answer = await bench.client.delete(f"/api/v1/talks/{begun['id']}")
        assert answer.status_code == 204
        await until(lambda: talk.over)
        assert bench.sim.noted("heard")[-1].facts["reason"] == "bye"
        assert bench.running.bus.of("talk.ended")[-1]["reason"] == "stopped"


async def test_tk07_packets_of_20_ms_at_a_constant_rate_from_the_announced_port(tmp_path: Path) -> None:
    async with talk_bench(tmp_path, quirks=("TK-07",)) as bench:
        begun = await bench.start()
        talk = await bench.listening()
        await until(lambda: talk.ear.packets >= 20)
        assert not bench.sim.noted("wrong_sound")
        assert set(talk.ear.spans) == {160}
        assert (await bench.client.get(f"/api/v1/talks/{begun['id']}")).json()["spoken_s"] == 0


@pytest.mark.parametrize("transport", ["udp", "tcp-passive", "tcp-active"])
async def test_tk01_talk_r136_talk_goes_both_ways_on_one_port(tmp_path: Path, transport: str) -> None:
    async with talk_bench(tmp_path, quirks=("TK-01-TALK",)) as bench:
        device = bench.running.devices.registry.require(bench.device.id)
        device.media_transport = transport
        begun = await bench.start()
        assert (begun["way"], begun["transport"]) == ("talk", transport)
        assert device.talk_way == "talk"
        talk = await bench.listening()
        await speak(bench, begun["id"])
        await until(lambda: len(loud_part(bytes(talk.ear.pcm))) >= 0.55 * 16_000)
        assert heard_level(loud_part(bytes(talk.ear.pcm)), HERTZ) == pytest.approx(12_000, rel=0.15)
        frames: list[Any] = []
        bench.plane.add_frame_sink(f"{begun['id']}.heard", frames.extend)
        await until(lambda: len(frames) >= 10)
        assert {frame.track.codec.value for frame in frames} == {"pcma"}, "what the device says arrives"


@pytest.mark.parametrize("transport", ["udp", pytest.param("tcp-passive", marks=pytest.mark.long)])
async def test_net04_talk_goes_both_ways_over_the_shared_port(tmp_path: Path, transport: str) -> None:
    port = free_port_pair()
    async with talk_bench(tmp_path, quirks=("TK-01-TALK",), shared_port=port) as bench:
        bench.running.devices.registry.require(bench.device.id).media_transport = transport
        begun = await bench.start(way="talk")
        assert (begun["transport"], bench.ports.in_use) == (transport, 0)
        assert (await bench.store.load_calls())[0].port == port
        talk = await bench.listening()
        await speak(bench, begun["id"], 0.3)
        await until(lambda: heard_level(loud_part(bytes(talk.ear.pcm)), HERTZ) > 10_000)
        assert transport != "udp" or talk.ear.sources == {("127.0.0.1", port)}
        frames: list[Any] = []
        bench.plane.add_frame_sink(f"{begun['id']}.heard", frames.extend)
        await until(lambda: len(frames) >= 3)


async def test_tk01_the_way_that_worked_is_tried_first(tmp_path: Path) -> None:
    async with talk_bench(tmp_path, quirks=("TK-01-TALK",)) as bench:
        begun = await bench.start()
        await bench.client.delete(f"/api/v1/talks/{begun['id']}")
        asked = len([note for note in bench.sim.noted("query") if note.facts["command"] == "Broadcast"])
        assert asked == 2, "the channel and the device"
        await bench.start()
        again = len([note for note in bench.sim.noted("query") if note.facts["command"] == "Broadcast"])
        assert again == asked


async def test_tk01_a_device_that_knows_neither(tmp_path: Path) -> None:
    async with talk_bench(tmp_path, quirks=("TK-01", "TK-01-TALK")) as bench:
        problem = await bench.start(502)
        assert (problem["code"], problem["sip_status"]) == ("gb.sip.rejected", 488)
        assert "broadcast: " in problem["detail"] and "talk: " in problem["detail"]
        assert bench.running.bus.of("talk.failed")[-1]["reason"] == "rejected"


@pytest.mark.parametrize(("speakers", "kind"), [(0, "118"), (2, "137")])
async def test_tk02_audio_outputs_and_the_device_are_told_too(
    tmp_path: Path, speakers: int, kind: str
) -> None:
    async with talk_bench(tmp_path, quirks=("TK-02",), speakers=speakers) as bench:
        begun = await bench.start()
        assert (begun["way"], begun["target_id"][10:13]) == ("broadcast", kind)


async def heard_in_spite_of(tmp_path: Path, quirk: str) -> None:
    async with talk_bench(tmp_path, quirks=(quirk,)) as bench:
        begun = await bench.start(way="broadcast")
        talk = await bench.listening()
        await speak(bench, begun["id"])
        await until(lambda: heard_level(loud_part(bytes(talk.ear.pcm)), HERTZ) > 10_000)


async def test_tk03_a_call_from_another_id(tmp_path: Path) -> None:
    await heard_in_spite_of(tmp_path, "TK-03")


async def test_tk04_sdp_without_origin_and_times(tmp_path: Path) -> None:
    await heard_in_spite_of(tmp_path, "TK-04")


async def test_tk05_sound_inside_a_program_stream(tmp_path: Path) -> None:
    await heard_in_spite_of(tmp_path, "TK-05")


async def test_tk08_sound_before_the_ack(tmp_path: Path) -> None:
    await heard_in_spite_of(tmp_path, "TK-08")


async def test_one_talks_at_a_time_and_is_named(tmp_path: Path) -> None:
    async with talk_bench(tmp_path) as bench:
        begun = await bench.start()
        problem = await bench.start(409)
        assert problem["code"] == "gb.route.busy"
        assert "operator is talking" in problem["detail"]
        listed = (await bench.client.get("/api/v1/talks")).json()
        assert [(item["id"], item["holder"]) for item in listed["items"]] == [(begun["id"], "operator")]
        await bench.client.delete(f"/api/v1/talks/{begun['id']}")
        assert (await bench.client.get(f"/api/v1/talks/{begun['id']}")).status_code == 404
        await bench.start()


async def test_r135_tk10_the_device_ends_it(tmp_path: Path) -> None:
    async with talk_bench(tmp_path) as bench:
        await bench.start()
        talk = await bench.listening()
        await talk.hang_up()
        await bench.all_given_back()
        assert bench.running.bus.of("talk.ended")[-1]["reason"] == "device_bye"


async def test_nobody_speaks_any_more(tmp_path: Path) -> None:
    limits = TalkLimits(notify_s=1.0, call_s=0.5, invite_s=3.0, idle_s=0.3)
    async with talk_bench(tmp_path, limits=limits) as bench:
        await bench.start()
        await bench.all_given_back()
        assert bench.running.bus.of("talk.ended")[-1]["reason"] == "idle"
        assert not bench.device.talks


async def test_s15_a_revoked_key_talks_no_longer(tmp_path: Path) -> None:
    async with talk_bench(tmp_path) as bench:
        begun = await bench.start()
        holder = bench.talks.get(begun["id"]).holder
        assert holder == "operator"
        key_id = next(iter(bench.talks._talks.values())).holder.key_id
        bench.talks.stop_key(key_id)
        await bench.all_given_back()
        assert bench.running.bus.of("talk.ended")[-1]["reason"] == "revoked"


async def test_s11_an_invite_that_nobody_asked_for(tmp_path: Path) -> None:
    async with talk_bench(tmp_path) as bench:
        await bench.device._listen(bench.channel)
        await until(lambda: bench.sim.noted("listen_refused"))
        assert bench.sim.noted("listen_refused")[0].facts["status"] == 403
        assert bench.running.bus.of("talk.uncalled")[0]["device_id"] == bench.device.id


async def test_nobody_talks_over_a_path_on_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the device says meanwhile over its proven path would end the trial.
    monkeypatch.setattr(PathKeeper, "_end_trial", lambda *_: None)
    async with talk_bench(tmp_path) as bench:
        device = bench.running.devices.registry.require(bench.device.id)
        device.trial_until = 1e12
        problem = await bench.start(403)
        assert problem["code"] == "gb.route.not_authorised"
        assert not [note for note in bench.sim.noted("query") if note.facts["command"] == "Broadcast"]
        device.trial_until = 0.0


async def test_a_viewer_may_not_talk(tmp_path: Path) -> None:
    async with talk_bench(tmp_path, role=Role.VIEWER) as bench:
        assert (await bench.start(403))["code"] == "gb.route.not_authorised"
        assert not bench.sim.noted("listen_call")


async def test_what_is_no_sound_is_refused(tmp_path: Path) -> None:
    async with talk_bench(tmp_path) as bench:
        begun = await bench.start()
        url = f"/api/v1/talks/{begun['id']}/audio"
        answer = await bench.client.post(url, content=b"no wav", headers={"Content-Type": "audio/wav"})
        assert (answer.status_code, answer.json()["code"]) == (422, "gb.route.invalid")
        answer = await bench.client.post(
            "/api/v1/talks/none/audio", content=wav(b"\0\0"), headers={"Content-Type": "audio/wav"}
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "gb.route.talk_unknown")
