"""What a device answers besides the plain OK, each with its own outcome; commands over SIP to a simulated device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gb28181gw.devices.commands import Commands
from gb28181gw.devices.queries import Waits
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.commands import COMMANDS, Answer
from gb28181gw.gb.manscdp.configs import config_known
from tests.support.commanding import Bench, bench
from tests.support.devices import until
from tests.support.golden import FIELDS, WRITTEN, instructions


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gb28181gw.devices.commands.FIRST_S", 0.3)
    monkeypatch.setattr("gb28181gw.devices.commands.BETWEEN_S", 0.2)
    monkeypatch.setattr("gb28181gw.devices.assembly.LATE_S", 0.2)


def quirks_of(made: Bench) -> dict[str, int]:
    return made.running.devices.registry.require(made.id).quirks


# -- counts -----------------------------------------------------------------------------------------------------


async def test_cat02_a_count_of_one_message_does_not_end_an_answer(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, quirks=("CAT-02", "CAT-16")) as made:
        found = await made.command("Catalog")
        assert len(found["DeviceList"]["Item"]) == 4  # SumNum says 2 in each of two messages
        assert not found["partial"]
        assert quirks_of(made)["answer.more_than_announced"] >= 1


async def test_cat01_a_count_that_is_never_reached_is_partial(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, quirks=("CAT-01",), devices={"catalogue_between_parts_s": 0.2}) as made:
        found = await made.command("Catalog")
        assert (found["partial"], found["note"]) == (True, "1 of 6 items came.")


async def test_cat05_an_empty_first_part_does_not_end_an_answer(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, quirks=("CAT-05", "CAT-16")) as made:
        assert len((await made.command("Catalog"))["DeviceList"]["Item"]) == 4


async def test_ctl10_a_count_of_none_and_many_items(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-10",)) as made:
        found = await made.on_channel("PresetQuery")
        assert (found["SumNum"], len(found["PresetList"]["Item"])) == (0, 255)


# -- each kind of failure has its own code ----------------------------------------------------------------------

NEW_QUERIES = [
    name
    for name, row in COMMANDS.items()
    if row.since is Edition.V3_0 and row.answer in (Answer.ONE, Answer.PARTS)
]


@pytest.mark.parametrize("name", NEW_QUERIES)
@pytest.mark.parametrize(
    ("quirk", "status", "code"),
    [
        ("CTL-11", 504, "gb.sip.no_answer"),
        ("CTL-11-ERROR", 502, "gb.sip.command_failed"),
        ("CTL-11-501", 502, "gb.sip.rejected"),
        ("XML-16-ALL", 502, "gb.sip.bad_answer"),
    ],
)
async def test_f04_each_bad_end_has_its_own_code(
    tmp_path: Path, hasty: None, name: str, quirk: str, status: int, code: str
) -> None:
    options: dict[str, Any] = {"devices": {"catalogue_first_part_s": 0.2}} if quirk.startswith("XML") else {}
    async with bench(tmp_path, quirks=(quirk,), wait=not options, **options) as made:
        say = made.command if options else made.on_channel  # without a catalogue there are no channels
        failed = await say(name, status, **FIELDS.get(name, {}))
        assert failed["code"] == code
        (event,) = made.running.bus.of("command.failed")
        assert (event["cmd"], event["reason"]) == (name, code.rsplit(".", 1)[1])


EMPTY = {"HomePositionQuery"}
"""All of its answer may be left out: no home position was ever set."""


@pytest.mark.parametrize("name", NEW_QUERIES)
async def test_ctl11_empty_answers_say_so(tmp_path: Path, name: str) -> None:
    async with bench(tmp_path, quirks=("CTL-11-EMPTY",)) as made:
        fields = FIELDS.get(name, {})
        if name in EMPTY:
            assert "HomePosition" not in await made.on_channel(name, **fields)
            return
        failed = await made.on_channel(name, 502, **fields)
        assert failed["code"] == "gb.sip.bad_answer"
        assert COMMANDS[name].needs[0] in failed["detail"]


async def test_ctl11_empty_a_configuration_that_is_not_in_the_answer(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, quirks=("CTL-11-EMPTY",)) as made:
        failed = await made.command("ConfigDownload", 502, ConfigType="OSDConfig")
        assert (failed["code"], "nothing of OSDConfig" in failed["detail"]) == ("gb.sip.bad_answer", True)


async def test_xml13_control_a_result_in_other_words_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("XML-13-CONTROL",)) as made:
        failed = await made.on_channel("RecordCmd", 502, RecordCmd="Record")
        assert failed["code"] == "gb.sip.command_failed"
        assert "answered Fail to RecordCmd: 设备忙" in failed["detail"]


async def test_xml16_all_answers_without_markup_are_counted(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, quirks=("XML-16-ALL",), wait=False) as made:
        failed = await made.command("DeviceStatus", 502)
        assert "cannot be read (not_xml)" in failed["detail"]
        assert {event["reason"] for event in made.running.bus.of("message.invalid")} == {"not_xml"}


# -- what a device does not know is remembered ------------------------------------------------------------------


async def test_ctl11_501_what_was_refused_is_not_sent_again_until_the_firmware_changes(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, quirks=("CTL-11-501",)) as made:
        first = await made.on_channel("PTZPosition", 502)
        assert (first["code"], first["sip_status"]) == ("gb.sip.rejected", 501)
        asked = made.running.devices.queries.asked
        again = await made.on_channel("PTZPosition", 409)
        assert again["code"] == "gb.route.unsupported"
        assert made.running.devices.queries.asked == asked
        (event,) = made.running.bus.of("device.unsupported")
        assert (event["cmd"], event["reason"]) == (f"PTZPosition@{made.channel}", "sip")
        device = (await made.client.get(f"/api/v1/devices/{made.id}/dialect")).json()
        assert device["unsupported"] == {f"PTZPosition@{made.channel}": "sip"}
        assert (await made.on_channel("PTZPosition", 502, force=True))["code"] == "gb.sip.rejected"
        made.running.devices.registry.require(made.id).firmware = "V2.0"
        assert (await made.on_channel("PTZPosition", 502))["code"] == "gb.sip.rejected"


async def test_ctl11_silence_is_waited_for_once(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, quirks=("CTL-11",)) as made:
        assert (await made.on_channel("SDCardStatus", 504))["code"] == "gb.sip.no_answer"
        assert (await made.on_channel("SDCardStatus", 409))["code"] == "gb.route.unsupported"
        assert (await made.on_channel("PresetQuery"))["SumNum"] == 1


async def test_ctl11_an_old_command_that_fails_is_not_taken_for_unknown(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, quirks=("XML-13-CONTROL",)) as made:
        for _ in range(2):
            assert (await made.on_channel("GuardCmd", 502, GuardCmd="SetGuard"))[
                "code"
            ] == "gb.sip.command_failed"


async def test_ctl11_configurations_are_remembered_by_type(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, edition="2.0") as made:
        made.running.devices.registry.require(made.id).dialect = {"edition": "3.0"}
        first = await made.command("ConfigDownload", ConfigType="BasicParam/OSDConfig")
        assert first["missing"] == ["OSDConfig"]
        asked = made.running.devices.queries.asked
        alone = await made.command("ConfigDownload", 409, ConfigType="OSDConfig")
        assert (alone["code"], made.running.devices.queries.asked) == ("gb.route.unsupported", asked)
        again = await made.command("ConfigDownload", ConfigType="BasicParam/OSDConfig")
        assert (again["missing"], again["BasicParam"]["HeartBeatCount"]) == (["OSDConfig"], 3)


# -- configurations and codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("edition", [Edition.V1_1, Edition.V2_0, Edition.V3_0])
async def test_a232_every_configuration_is_written_and_reads_so_in_its_editions(
    tmp_path: Path, edition: Edition
) -> None:
    async with bench(tmp_path, edition=edition.value) as made:
        made.running.devices.registry.require(made.id).dialect = {"edition": edition.value}
        for name, values in WRITTEN.items():
            if not config_known(name, edition):
                refused = await made.command("DeviceConfig", 409, **{name: values})
                assert (refused["code"], name in refused["detail"]) == ("gb.route.edition", True)
                continue
            done = await made.command("DeviceConfig", **{name: values})
            assert done["Result"] == "OK"
            if name != "SnapShotConfig":  # asks for something to be done
                assert (done["applied"], done["differences"]) == (True, []), name
            read = await made.command("ConfigDownload", ConfigType=name)
            assert name in read


OPERATIONS: dict[str, dict[str, Any]] = {
    "cruise-add": {"action": "cruise-add", "group": 1, "preset": 3},
    "cruise-stay": {"action": "cruise-stay", "group": 1, "value": 300},
    "scan-start": {"action": "scan-start", "group": 1},
    "aux-on": {"action": "aux-on", "switch": 1},
    "preset-set": {"action": "preset-set", "preset": 3},
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a3_an_operation_in_words_has_the_bytes_of_the_annex(tmp_path: Path, name: str) -> None:
    async with bench(tmp_path) as made:
        await made.on_channel("PTZCmd", operation=OPERATIONS[name])
        await until(lambda: made.sim.noted("ptz"))
        assert [note.facts["code"] for note in made.sim.noted("ptz")] == [dict(instructions())[name]]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "either PTZCmd or operation"),
        ({"PTZCmd": "A50F0000000000B4", "operation": {"action": "aux-on", "switch": 1}}, "either"),
        ({"operation": {"action": "cruise-add", "group": 1}}, "cruise-add takes group and preset"),
        ({"operation": {"action": "preset-goto", "preset": 0}}, "preset"),
        ({"operation": {"action": "dance"}}, "action"),
    ],
)
async def test_a3_a_wrong_operation_is_named(tmp_path: Path, body: dict[str, Any], sentence: str) -> None:
    async with bench(tmp_path) as made:
        refused = await made.on_channel("PTZCmd", 422, **body)
        assert sentence in refused["detail"]
        assert made.sim.noted("ptz") == []


# -- the typed answers ------------------------------------------------------------------------------------------


async def test_the_schema_types_every_answer(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        schema = (await made.client.get("/api/v1/openapi.json")).json()
        operation = schema["paths"]["/api/v1/devices/{device_id}/commands"]["post"]
        union = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert set(union["discriminator"]["mapping"]) == set(COMMANDS)
        models = schema["components"]["schemas"]
        for name, row in COMMANDS.items():
            told = set() if row.answer is Answer.NONE else {node.name for node in row.response}
            assert told <= set(models[f"{name}CommandAnswer"]["properties"]), name
        pan = models["PTZPositionCommandAnswer"]["properties"]["Pan"]
        assert {kind.get("type") for kind in pan["anyOf"]} == {"number", "string", "null"}


async def test_a4_what_a_vendor_adds_is_in_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Commands.run

    async def with_more(self: Commands, *args: Any, **named: Any) -> Any:
        outcome = await run(self, *args, **named)
        outcome.fields["Vendor"] = {"A": ["1", {"B": "2"}]}
        outcome.fields["ExtraInfo"] = [{"X": "1"}, "text"]
        return outcome

    monkeypatch.setattr(Commands, "run", with_more)
    async with bench(tmp_path) as made:
        found = await made.command("DeviceStatus")
        assert (found["Vendor"], found["ExtraInfo"]) == ({"A": ["1", {"B": "2"}]}, [{"X": "1"}, "text"])


async def test_ctl11_error_of_a_query_is_remembered_for_that_channel(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-11-ERROR",)) as made:
        assert (await made.on_channel("PTZPosition", 502))["code"] == "gb.sip.command_failed"
        assert (await made.on_channel("PTZPosition", 409))["code"] == "gb.route.unsupported"
        assert (await made.command("PTZPosition", 502))["code"] == "gb.sip.command_failed"


async def test_ctl11_a_list_of_presets_that_never_came_is_not_waited_for_again(
    tmp_path: Path, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gb28181gw.devices.ptz.WAITS", Waits(first_s=0.3))
    monkeypatch.setattr("gb28181gw.sim.controls._TELLERS", {})
    async with bench(tmp_path) as made:
        first = await made.client.get(f"{made.channel_path}/presets")
        assert (first.status_code, first.json()["code"]) == (504, "gb.sip.no_answer")
        again = await made.client.get(f"{made.channel_path}/presets")
        assert (again.status_code, again.json()["code"]) == (409, "gb.route.unsupported")
        monkeypatch.undo()
        assert (await made.on_channel("PresetQuery", force=True))["SumNum"] == 1
        assert (await made.client.get(f"{made.channel_path}/presets")).status_code == 200


@pytest.mark.parametrize(
    ("edition", "name"),
    [
        (Edition.V1_0, "PresetQuery"),
        (Edition.V1_0, "DragZoomIn"),
        (Edition.V1_1, "HomePosition"),
        (Edition.V2_0, "SDCardStatus"),
    ],
)
async def test_ctl11_a_device_of_an_older_edition_does_not_react(
    tmp_path: Path, hasty: None, edition: Edition, name: str
) -> None:
    async with bench(tmp_path, edition=edition.value) as made:
        made.running.devices.registry.require(made.id).dialect = {"edition": edition.value}
        before = len(made.sim.noted("query"))
        if COMMANDS[name].answer is Answer.NONE:
            await made.on_channel(name, force=True, **FIELDS[name])
            await until(lambda: len(made.sim.noted("query")) > before)
            assert made.device.state.of(made.channel).zoom == 1.0
        else:
            failed = await made.on_channel(name, 504, force=True, **FIELDS.get(name, {}))
            assert failed["code"] == "gb.sip.no_answer"


async def test_ctl08_reboot_in_place_of_an_answer_is_waited_out(tmp_path: Path, hasty: None) -> None:
    async with bench(tmp_path, quirks=("CTL-08-REBOOT",)) as made:
        done = await made.command("DeviceConfig", FrameMirror=2)
        assert (done["answered"], done["applied"]) == (False, True)
        assert done["note"] == "The device did not answer and registered anew."
        assert quirks_of(made)["config.restart_instead_of_answer"] == 1
        assert [event["reason"] for event in made.running.bus.of("device.unregistered")] == ["expires_0"]
