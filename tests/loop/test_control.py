"""PTZ and presets from the API over SIP to a simulated device and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from gb28181gw.access.roles import Role
from gb28181gw.gb.ptz import Lens, Move, decode
from tests.support.commanding import Bench, bench
from tests.support.devices import until


def codes(made: Bench) -> list[object]:
    return [decode(str(note.facts["code"])) for note in made.sim.noted("ptz")]


@pytest.mark.parametrize("edition", ["1.0", "1.1", "2.0", "3.0"])
async def test_a3_ptz_from_the_api_to_the_device(tmp_path: Path, edition: str) -> None:
    async with bench(tmp_path, edition=edition) as made:
        state = made.device.state.of(made.channel)
        sent = await made.client.post(f"{made.channel_path}/ptz", json={"pan": 0.5, "tilt": -1, "zoom": 1})
        assert sent.status_code == 204
        await until(lambda: not state.motion.is_stop)
        assert state.motion == Move(pan=128, tilt=-255, zoom=15)
        assert (await made.client.post(f"{made.channel_path}/ptz")).status_code == 204
        await until(lambda: state.motion.is_stop)
        for body in ({"focus": -1}, {"iris": 0.2}):
            assert (await made.client.post(f"{made.channel_path}/ptz", json=body)).status_code == 204
        await until(lambda: len(codes(made)) == 4)
        assert codes(made)[2:] == [Lens(focus=-255), Lens(iris=51)]


async def test_ctl06_the_gateway_sends_the_stop_itself(tmp_path: Path) -> None:
    async with bench(tmp_path, devices={"ptz_stop_s": 0.2}) as made:
        await made.client.post(f"{made.channel_path}/ptz", json={"pan": 1})
        await until(lambda: codes(made) == [Move(pan=255), Move()])
        await until(lambda: made.device.state.of(made.channel).motion.is_stop)
        assert made.device.state.of(made.channel).pan > 0


@pytest.mark.parametrize(("edition", "name"), [("1.1", "Preset 9"), ("2.0", "Preset 9"), ("3.0", "North")])
async def test_a34_presets_are_set_listed_called_and_deleted(tmp_path: Path, edition: str, name: str) -> None:
    async with bench(tmp_path, edition=edition) as made:
        url = f"{made.channel_path}/presets"
        done = await made.client.post(f"{url}/9", json={"action": "set", "name": "North"})
        assert done.status_code == 204
        state = made.device.state.of(made.channel)
        await until(lambda: 9 in state.presets)
        listed = (await made.client.get(url)).json()
        assert listed == {
            "items": [{"id": 1, "name": "Gate"}, {"id": 9, "name": name}],
            "total": 2,
            "partial": False,
        }
        assert (await made.client.post(f"{url}/9", json={"action": "goto"})).status_code == 204
        await until(lambda: state.pan == 9.0)
        assert (await made.client.post(f"{url}/9", json={"action": "delete"})).status_code == 204
        await until(lambda: 9 not in state.presets)
        assert [item["id"] for item in (await made.client.get(url)).json()["items"]] == [1]


async def test_ctl10_default_entries_and_sumnum_0_are_tolerated(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-10",)) as made:
        listed = (await made.client.get(f"{made.channel_path}/presets")).json()
        assert (listed["total"], listed["partial"]) == (255, False)
        assert listed["items"][254] == {"id": 255, "name": "预置点255"}
        assert made.running.devices.registry.require(made.id).quirks["preset.count_differs"] == 1


async def test_ctl07_403_is_told_as_what_it_means(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-07",)) as made:
        refused = await made.client.post(f"{made.channel_path}/ptz", json={"pan": 1})
        assert refused.status_code == 502
        problem = refused.json()
        assert (problem["code"], problem["sip_status"]) == ("gb.sip.rejected", 403)
        assert "forbids control" in problem["detail"]


async def test_ctl05_the_device_takes_the_code_and_moves_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-05",)) as made:
        assert (await made.client.post(f"{made.channel_path}/ptz", json={"pan": 1})).status_code == 204
        await until(lambda: codes(made))
        assert made.device.state.of(made.channel).motion.is_stop
        assert made.running.bus.of("ptz.sent")[0]["code"] == "A50F0001FF0000B4"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"pan": 1.1}, "pan"),
        ({"tilt": "up"}, "tilt"),
        ({"speed": 1}, "speed"),
        ({"pan": 1, "focus": 1}, "focus and iris are a command of their own"),
    ],
)
async def test_a_wrong_motion_is_named(tmp_path: Path, body: dict[str, object], field: str) -> None:
    async with bench(tmp_path) as made:
        answer = await made.client.post(f"{made.channel_path}/ptz", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "gb.route.invalid")
        assert field in answer.json()["detail"]
        assert not codes(made)


@pytest.mark.parametrize(("number", "action"), [("0", "set"), ("256", "goto"), ("x", "goto"), ("1", "move")])
async def test_a34_presets_are_1_to_255(tmp_path: Path, number: str, action: str) -> None:
    async with bench(tmp_path) as made:
        answer = await made.client.post(f"{made.channel_path}/presets/{number}", json={"action": action})
        assert answer.status_code == 422


async def test_s09_a_viewer_moves_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, role=Role.VIEWER) as made:
        answer = await made.client.post(f"{made.channel_path}/ptz", json={"pan": 1})
        assert answer.status_code == 403
        assert not codes(made)


async def test_an_unknown_channel_and_an_offline_device(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        other = f"/api/v1/devices/{made.id}/channels/34020000001329999999/ptz"
        unknown = await made.client.post(other, json={"pan": 1})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "gb.route.channel_unknown")
        await made.device.stop()
        await until(lambda: "device.offline" in made.running.bus.names())
        offline = await made.client.post(f"{made.channel_path}/ptz", json={"pan": 1})
        assert (offline.status_code, offline.json()["code"]) == (409, "gb.route.offline")
