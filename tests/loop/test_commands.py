"""Every command from the API over SIP to a simulated device and back, in each edition that has it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.access.roles import Role
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.commands import COMMANDS, Answer
from tests.support.commanding import bench
from tests.support.devices import until

BOX = {"Length": 1920, "Width": 1080, "MidPointX": 960, "MidPointY": 540, "LengthX": 320, "LengthY": 180}
SESSION = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
FIELDS: dict[str, dict[str, Any]] = {
    "PTZCmd": {"PTZCmd": "A50F0000000000B4"},
    "TeleBoot": {"TeleBoot": "Boot"},
    "RecordCmd": {"RecordCmd": "Record"},
    "GuardCmd": {"GuardCmd": "SetGuard"},
    "AlarmCmd": {"AlarmCmd": "ResetAlarm", "Info": {"AlarmMethod": "1/2"}},
    "IFrameCmd": {"IFrameCmd": "Send"},
    "DragZoomIn": {"DragZoomIn": BOX},
    "DragZoomOut": {"DragZoomOut": BOX},
    "HomePosition": {"HomePosition": {"Enabled": 1, "ResetTime": 60, "PresetIndex": 1}},
    "PTZPreciseCtrl": {"PTZPreciseCtrl": {"Pan": 120.5, "Tilt": 10, "Zoom": 2}},
    "DeviceUpgrade": {
        "DeviceUpgrade": {
            "Firmware": "V2", "FileURL": "http://192.0.2.1/f", "Manufacturer": "Acme", "SessionID": SESSION,
        }
    },
    "FormatSDCard": {"FormatSDCard": 1},
    "TargetTrack": {"TargetTrack": "Auto"},
    "DeviceConfig": {"BasicParam": {"Name": "East"}},
    "ConfigDownload": {"ConfigType": "BasicParam/VideoParamOpt"},
    "RecordInfo": {"StartTime": "2024-05-01T00:00:00", "EndTime": "2024-05-02T00:00:00"},
    "CruiseTrackQuery": {"Number": 0},
}  # fmt: skip


@pytest.mark.parametrize("edition", list(Edition))
async def test_r_every_command_in_each_edition_that_has_it(tmp_path: Path, edition: Edition) -> None:
    async with bench(tmp_path, edition=edition.value) as made:
        # Only devices of 2022 tell their edition; of others it is set by hand.
        made.running.devices.registry.require(made.id).dialect = {"edition": edition.value}
        for name, row in COMMANDS.items():
            fields = FIELDS.get(name, {})
            if edition < row.since:
                refused = await made.on_channel(name, 409, **fields)
                assert refused["code"] == "gb.route.edition", name
                assert row.since.value in refused["detail"], name
                continue
            found = await made.on_channel(name, **fields)
            assert found["answered"] is (row.answer is not Answer.NONE), name
            assert not found["partial"], name
            if found["answered"]:
                assert found["CmdType"] == row.cmd_type, name
                assert found["SN"] > 0, name
            if row.answer is Answer.RESULT:
                assert found["Result"] == "OK", name
        assert {kind for _, kind in made.running.devices.queries._open} <= {"catalog"}  # the gateway's own
        heard = {str(note.facts["command"]) for note in made.sim.noted("query")}
        assert heard >= {row.cmd_type for row in COMMANDS.values() if edition >= row.since}


async def test_what_is_set_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.on_channel("PTZPreciseCtrl", PTZPreciseCtrl={"Pan": 120.5, "Tilt": 10, "Zoom": 2})
        await until(lambda: made.device.state.of(made.channel).pan == 120.5)
        told = await made.on_channel("PTZPosition")
        assert (told["Pan"], told["Tilt"], told["Zoom"]) == (120.5, 10.0, 2.0)
        await made.on_channel("DragZoomIn", DragZoomIn=BOX)
        await until(lambda: made.device.state.of(made.channel).zoom == 12)
        await made.on_channel("DragZoomOut", DragZoomOut=BOX)
        assert (await made.on_channel("PTZPosition"))["Zoom"] == 2.0
        await made.on_channel("HomePosition", HomePosition={"Enabled": 1, "PresetIndex": 3})
        assert (await made.on_channel("HomePositionQuery"))["HomePosition"] == {
            "Enabled": 1,
            "PresetIndex": 3,
        }
        for code in ("A50F00840103003C", "A50F0087010F004B"):  # cruise 1: preset 3, stay 15 s
            await made.on_channel("PTZCmd", PTZCmd=code)
        await until(lambda: made.device.state.of(made.channel).cruise_stay)
        track = await made.on_channel("CruiseTrackQuery", Number=1)
        assert track["CruisePointList"] == {"CruisePoint": [{"PresetIndex": 3, "StayTime": 15, "Speed": 8}]}
        listed = await made.on_channel("CruiseTrackListQuery")
        assert [track["Number"] for track in listed["CruiseTrackList"]["CruiseTrack"]] == [0, 1]
        await made.command("FormatSDCard", FormatSDCard=0)
        await until(lambda: made.device.state.card_free_mb == 65_536)
        cards = await made.command("SDCardStatus")
        assert cards["SDCardStatusInfo"]["Item"] == [
            {"ID": 1, "HddName": "SD1", "Status": "ok", "Capacity": 65536, "FreeSpace": 65536}
        ]
        await made.on_channel("GuardCmd", GuardCmd="SetGuard")
        status = await made.on_channel("DeviceStatus")
        assert status["Alarmstatus"] == {"Item": [{"DeviceID": made.channel, "DutyStatus": "ONDUTY"}]}


async def test_a_catalogue_in_parts_is_one_answer(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CAT-04", "CAT-16")) as made:
        found = await made.command("Catalog")
        assert found["SumNum"] == len(found["DeviceList"]["Item"]) == 4
        cameras = [item for item in found["DeviceList"]["Item"] if "Info" in item]
        assert cameras[0]["Longitude"] == 117.27
        assert cameras[0]["Info"]["PTZType"] == "1"


CONFIGS: dict[str, Any] = {
    "VideoParamAttribute": {
        "Item": [
            {
                "StreamNumber": 0, "VideoFormat": "5", "Resolution": "6", "FrameRate": "20", "BitRateType": "1",
                "VideoBitRate": "2048",
            }
        ]
    },
    "VideoRecordPlan": {
        "RecordEnable": 1,
        "RecordSchedule": [
            {
                "WeekDayNum": day,
                "TimeSegment": [
                    {"StartHour": 8, "StartMin": 0, "StartSec": 0, "StopHour": 18, "StopMin": 0, "StopSec": 0}
                ],
            }
            for day in (1, 2)
        ],
        "StreamNumber": 0,
    },
    "VideoAlarmRecord": {"RecordEnable": 1, "RecordTime": 20, "PreRecordTime": 3, "StreamNumber": 0},
    "PictureMask": {"On": 1, "RegionList": {"Item": [{"Seq": 1, "Point": "20,30,50,60"}]}},
    "FrameMirror": 3,
    "AlarmReport": {"MotionDetection": 1, "FieldDetection": 1},
    "OSDConfig": {
        "Length": 1280, "Width": 720, "TimeX": 8, "TimeY": 8, "Item": [{"Text": "东门", "X": 16, "Y": 700}],
    },
    "SVACEncodeConfig": {"ROIParam": {"ROIFlag": 1, "ROINumber": 0}},
    "SVACDecodeConfig": {"SVCParam": {"SVCSTMMode": 1}},
    "BasicParam": {"Name": "East", "HeartBeatInterval": 30},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
async def test_a232_a_configuration_is_written_and_reads_so(tmp_path: Path, name: str) -> None:
    async with bench(tmp_path) as made:
        done = await made.command("DeviceConfig", **{name: CONFIGS[name]})
        assert (done["Result"], done["applied"], done["differences"]) == ("OK", True, [])
        read = await made.command("ConfigDownload", ConfigType=name)
        told = read[name]
        if isinstance(CONFIGS[name], dict):
            assert set(CONFIGS[name]) <= set(told)
        else:
            assert told == CONFIGS[name]


async def test_ctl08_ok_without_effect_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-08-IGNORED",)) as made:
        done = await made.command("DeviceConfig", BasicParam={"HeartBeatInterval": 30}, FrameMirror=2)
        assert done["Result"] == "OK"
        assert done["applied"] is False
        assert done["differences"] == [
            {"field": "BasicParam.HeartBeatInterval", "written": 30, "read": 60},
            {"field": "FrameMirror", "written": 2, "read": 0},
        ]
        assert "did not take over" in done["note"]
        assert made.running.devices.registry.require(made.id).quirks["config.ok_without_effect"] == 1
        (event,) = made.running.bus.of("command.without_effect")
        assert event["fields"] == ["BasicParam.HeartBeatInterval", "FrameMirror"]


async def test_ctl08_a_channels_configuration_may_want_the_devices_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gb28181gw.devices.commands.FIRST_S", 0.3)
    async with bench(tmp_path, quirks=("CTL-08",)) as made:
        silent = await made.on_channel("DeviceConfig", 504, FrameMirror=1)
        assert silent["code"] == "gb.sip.no_answer"
        assert "took DeviceConfig and did not answer" in silent["detail"]
        assert (await made.command("DeviceConfig", FrameMirror=1))["applied"] is True


async def test_ctl09_another_element_name_is_understood(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-09",)) as made:
        one = await made.command("ConfigDownload", ConfigType="OSDConfig")
        assert (one["OSDConfig"]["Length"], one["missing"]) == (1920, [])
        two = await made.command("ConfigDownload", ConfigType="VideoParamAttribute/FrameMirror")
        assert two["VideoParamAttribute"]["Item"][0]["StreamNumber"] == 0
        assert made.running.devices.registry.require(made.id).quirks["config.element_name"] >= 2


async def test_a_configuration_that_the_device_lacks(tmp_path: Path) -> None:
    async with bench(tmp_path, edition="2.0") as made:
        failed = await made.command("ConfigDownload", 502, ConfigType="OSDConfig", force=True)
        assert failed["code"] == "gb.sip.command_failed"
        assert "answered ERROR" in failed["detail"]
        refused = await made.command("DeviceConfig", 502, FrameMirror=1, force=True)
        assert refused["code"] == "gb.sip.command_failed"


async def test_ctl11_a_missing_type_is_told_after_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gb28181gw.devices.commands.BETWEEN_S", 0.2)
    async with bench(tmp_path, edition="2.0") as made:
        found = await made.command("ConfigDownload", ConfigType="BasicParam/OSDConfig", force=True)
        assert (found["partial"], found["missing"]) == (True, ["OSDConfig"])
        assert found["BasicParam"]["HeartBeatCount"] == 3
        assert "probably not supported" in found["note"]


async def test_ctl11_silence_to_a_new_command_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gb28181gw.devices.commands.FIRST_S", 0.3)
    async with bench(tmp_path, quirks=("CTL-11",)) as made:
        found = await made.on_channel("PTZPosition", 504)
        assert found["code"] == "gb.sip.no_answer"
        (event,) = made.running.bus.of("command.failed")
        assert (event["cmd"], event["reason"]) == ("PTZPosition", "no_answer")


async def test_ctl06_a_raw_code_that_moves_is_stopped_too(tmp_path: Path) -> None:
    async with bench(tmp_path, devices={"ptz_stop_s": 0.2}) as made:
        await made.on_channel("PTZCmd", PTZCmd="A50F0001FF0000B4")
        await until(lambda: made.running.bus.of("ptz.stopped"))
        await until(lambda: made.device.state.of(made.channel).motion.is_stop)


async def test_ctl07_403_to_a_control(tmp_path: Path) -> None:
    async with bench(tmp_path, quirks=("CTL-07",)) as made:
        refused = await made.on_channel("RecordCmd", 502, RecordCmd="Record")
        assert (refused["code"], refused["sip_status"]) == ("gb.sip.rejected", 403)
        assert (await made.on_channel("DeviceInfo"))["Result"] == "OK"


@pytest.mark.parametrize("quirk", ["XML-10", "XML-11", "XML-11-OTHER", "XML-12"])
async def test_odd_answers_are_understood(tmp_path: Path, quirk: str) -> None:
    async with bench(tmp_path, quirks=(quirk,)) as made:
        assert (await made.on_channel("RecordCmd", RecordCmd="Record"))["Result"] == "OK"
        assert (await made.on_channel("PresetQuery"))["PresetList"]["Item"][0]["PresetName"] == "Gate"


@pytest.mark.parametrize("name", sorted(name for name, row in COMMANDS.items() if row.drastic))
async def test_s09_drastic_commands_are_for_admins(tmp_path: Path, name: str) -> None:
    async with bench(tmp_path, role=Role.OPERATOR) as made:
        refused = await made.command(name, 403, **FIELDS[name])
        assert refused["code"] == "gb.route.not_authorised"
        assert made.device.state.rebooted == 0
        assert not [note for note in made.sim.noted("query") if note.facts["command"] == "DeviceControl"]
        assert (await made.on_channel("RecordCmd", RecordCmd="Record"))["Result"] == "OK"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "command"),
        ({"command": "Dance"}, "command"),
        ({"command": "RecordCmd"}, "RecordCmd"),
        ({"command": "RecordCmd", "RecordCmd": "Play"}, "RecordCmd"),
        ({"command": "RecordCmd", "RecordCmd": "Record", "Speed": 1}, "Speed"),
        ({"command": "PTZCmd", "PTZCmd": "A50F"}, "PTZCmd"),
        ({"command": "PTZCmd", "PTZCmd": "A50F0001400000F6"}, "checksum"),
        ({"command": "HomePosition", "HomePosition": {"Enabled": 7}}, "Enabled"),
        ({"command": "DeviceConfig"}, "at least one"),
        ({"command": "DeviceConfig", "VideoParamOpt": {}}, "VideoParamOpt"),
        ({"command": "RecordInfo", "StartTime": "soon", "EndTime": "later"}, "StartTime"),
        ({"command": "ConfigDownload", "ConfigType": "Nonsense"}, "Nonsense"),
    ],
)
async def test_a_wrong_command_is_named_and_not_sent(
    tmp_path: Path, body: dict[str, Any], field: str
) -> None:
    async with bench(tmp_path) as made:
        answer = await made.client.post(f"/api/v1/devices/{made.id}/commands", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "gb.route.invalid")
        assert field in answer.json()["detail"]
        own = {"Catalog", "DeviceInfo", "DeviceStatus"}
        assert {note.facts["command"] for note in made.sim.noted("query")} <= own


async def test_the_schema_has_every_command(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        schema = (await made.client.get("/api/v1/openapi.json")).json()
        operation = schema["paths"]["/api/v1/devices/{device_id}/commands"]["post"]
        union = operation["requestBody"]["content"]["application/json"]["schema"]
        assert set(union["discriminator"]["mapping"]) == set(COMMANDS)
        models = schema["components"]["schemas"]
        for name, row in COMMANDS.items():
            members = models[f"{name}Command"]["properties"]
            assert {node.name for node in row.fields if not node.answer_only} <= set(members), name


async def test_an_answer_is_no_faster_than_its_device_and_several_may_be_open(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        answers = await asyncio.gather(
            *(made.on_channel("RecordCmd", RecordCmd="Record") for _ in range(8)),
            *(made.on_channel("DeviceInfo") for _ in range(8)),
        )
        assert len({answer["SN"] for answer in answers}) == 16
