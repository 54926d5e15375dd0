"""Every command in the element order of Annex A, by edition; what cannot be written; answers of all kinds."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import EditionError, GbLocalError
from gb28181gw.gb.manscdp.commands import COMMANDS, read_answer, write_command
from gb28181gw.gb.manscdp.names import KNOWN
from gb28181gw.gb.manscdp.schema import Group, Node, Style, differences
from gb28181gw.gb.manscdp.xml import parse
from tests.support.gb import CHANNEL, body

BOX = {"Length": 1920, "Width": 1080, "MidPointX": 960, "MidPointY": 540, "LengthX": 320, "LengthY": 180}
BOX_XML = (
    "<Length>1920</Length><Width>1080</Width><MidPointX>960</MidPointX><MidPointY>540</MidPointY>"
    "<LengthX>320</LengthX><LengthY>180</LengthY>"
)
SESSION = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
SEGMENT = {"StartHour": 8, "StartMin": 0, "StartSec": 0, "StopHour": 18, "StopMin": 0, "StopSec": 0}
V1, V11, V2, V3 = Edition

GOLDEN: list[tuple[str, Edition, dict[str, Any], str]] = [
    ("PTZCmd", V2, {"PTZCmd": "a50f0001400000f5"}, "<PTZCmd>A50F0001400000F5</PTZCmd>"),
    (
        "PTZCmd",
        V3,
        {"PTZCmdParams": {"PresetName": "Gate"}, "PTZCmd": "A50F008100010036"},
        "<PTZCmd>A50F008100010036</PTZCmd><PTZCmdParams><PresetName>Gate</PresetName></PTZCmdParams>",
    ),
    ("TeleBoot", V1, {"TeleBoot": "Boot"}, "<TeleBoot>Boot</TeleBoot>"),
    (
        "RecordCmd",
        V3,
        {"StreamNumber": 0, "RecordCmd": "Record"},
        "<RecordCmd>Record</RecordCmd><StreamNumber>0</StreamNumber>",
    ),
    ("RecordCmd", V1, {"RecordCmd": "StopRecord"}, "<RecordCmd>StopRecord</RecordCmd>"),
    ("GuardCmd", V2, {"GuardCmd": "SetGuard"}, "<GuardCmd>SetGuard</GuardCmd>"),
    (
        "AlarmCmd",
        V3,
        {"AlarmCmd": "ResetAlarm", "Info": {"AlarmType": "2", "AlarmMethod": "12"}},
        "<AlarmCmd>ResetAlarm</AlarmCmd><Info><AlarmMethod>1/2</AlarmMethod><AlarmType>2</AlarmType></Info>",
    ),
    (
        "AlarmCmd",
        V2,
        {"AlarmCmd": "ResetAlarm", "Info": {"AlarmMethod": "1/2"}},
        "<AlarmCmd>ResetAlarm</AlarmCmd><Info><AlarmMethod>12</AlarmMethod></Info>",
    ),
    ("IFrameCmd", V3, {"IFrameCmd": "Send"}, "<IFrameCmd>Send</IFrameCmd>"),
    ("IFrameCmd", V2, {"IFrameCmd": "Send"}, "<IFameCmd>Send</IFameCmd>"),
    ("DragZoomIn", V2, {"DragZoomIn": BOX}, f"<DragZoomIn>{BOX_XML}</DragZoomIn>"),
    ("DragZoomOut", V3, {"DragZoomOut": BOX}, f"<DragZoomOut>{BOX_XML}</DragZoomOut>"),
    (
        "HomePosition",
        V2,
        {"HomePosition": {"PresetIndex": 1, "Enabled": 1, "ResetTime": 60}},
        "<HomePosition><Enabled>1</Enabled><ResetTime>60</ResetTime><PresetIndex>1</PresetIndex></HomePosition>",
    ),
    (
        "PTZPreciseCtrl",
        V3,
        {"PTZPreciseCtrl": {"Zoom": 2, "Pan": 120.5, "Tilt": 10.0}},
        "<PTZPreciseCtrl><Pan>120.5</Pan><Tilt>10</Tilt><Zoom>2</Zoom></PTZPreciseCtrl>",
    ),
    (
        "DeviceUpgrade",
        V3,
        {
            "DeviceUpgrade": {
                "Firmware": "V2.1.0",
                "FileURL": "http://192.0.2.10/fw/ipc.bin?a=1&b=2",
                "Manufacturer": "Acme",
                "SessionID": SESSION,
            }
        },
        "<DeviceUpgrade><Firmware>V2.1.0</Firmware><FileURL>http://192.0.2.10/fw/ipc.bin?a=1&amp;b=2</FileURL>"
        f"<Manufacturer>Acme</Manufacturer><SessionID>{SESSION}</SessionID></DeviceUpgrade>",
    ),
    ("FormatSDCard", V3, {"FormatSDCard": 0}, "<FormatSDCard>0</FormatSDCard>"),
    (
        "TargetTrack",
        V3,
        {"TargetTrack": "Manual", "TargetArea": BOX, "DeviceID2": CHANNEL},
        f"<TargetTrack>Manual</TargetTrack><DeviceID2>{CHANNEL}</DeviceID2><TargetArea>{BOX_XML}</TargetArea>",
    ),
    (
        "GuardCmd",
        V3,
        {"GuardCmd": "SetGuard", "ExtraInfo": ["<v>1</v>", "two"]},
        "<GuardCmd>SetGuard</GuardCmd><ExtraInfo>&lt;v&gt;1&lt;/v&gt;</ExtraInfo><ExtraInfo>two</ExtraInfo>",
    ),
    (
        "GuardCmd",
        V2,
        {"GuardCmd": "SetGuard", "ExtraInfo": ["two"]},
        "<GuardCmd>SetGuard</GuardCmd><Info>two</Info>",
    ),
    (
        "DeviceConfig",
        V2,
        {"BasicParam": {"HeartBeatInterval": 30}},
        "<BasicParam><HeartBeatInterval>30</HeartBeatInterval></BasicParam>",
    ),
    (
        "DeviceConfig",
        V3,
        {
            "VideoParamAttribute": {
                "Item": [
                    {
                        "StreamNumber": 0,
                        "VideoFormat": "2",
                        "Resolution": "6",
                        "FrameRate": "25",
                        "BitRateType": "1",
                        "VideoBitRate": "4096",
                    }
                ]
            }
        },
        '<VideoParamAttribute Num="1"><Item><StreamNumber>0</StreamNumber><VideoFormat>2</VideoFormat>'
        "<Resolution>6</Resolution><FrameRate>25</FrameRate><BitRateType>1</BitRateType>"
        "<VideoBitRate>4096</VideoBitRate></Item></VideoParamAttribute>",
    ),
    (
        "DeviceConfig",
        V3,
        {
            "VideoRecordPlan": {
                "RecordEnable": 1,
                "RecordSchedule": [{"WeekDayNum": 1, "TimeSegment": [SEGMENT]}],
                "StreamNumber": 0,
            }
        },
        "<VideoRecordPlan><RecordEnable>1</RecordEnable><RecordScheduleSumNum>1</RecordScheduleSumNum>"
        "<RecordSchedule><WeekDayNum>1</WeekDayNum><TimeSegmentSumNum>1</TimeSegmentSumNum><TimeSegment>"
        "<StartHour>8</StartHour><StartMin>0</StartMin><StartSec>0</StartSec><StopHour>18</StopHour>"
        "<StopMin>0</StopMin><StopSec>0</StopSec></TimeSegment></RecordSchedule><StreamNumber>0</StreamNumber>"
        "</VideoRecordPlan>",
    ),
    (
        "DeviceConfig",
        V3,
        {"VideoAlarmRecord": {"RecordEnable": 1, "RecordTime": 30, "PreRecordTime": 5, "StreamNumber": 0}},
        "<VideoAlarmRecord><RecordEnable>1</RecordEnable><RecordTime>30</RecordTime>"
        "<PreRecordTime>5</PreRecordTime><StreamNumber>0</StreamNumber></VideoAlarmRecord>",
    ),
    (
        "DeviceConfig",
        V3,
        {"PictureMask": {"On": 1, "RegionList": {"Item": [{"Seq": 1, "Point": "20,30,50,60"}]}}},
        '<PictureMask><On>1</On><SumNum>1</SumNum><RegionList Num="1"><Item><Seq>1</Seq>'
        "<Point>20,30,50,60</Point></Item></RegionList></PictureMask>",
    ),
    ("DeviceConfig", V3, {"FrameMirror": 1}, "<FrameMirror>1</FrameMirror>"),
    (
        "DeviceConfig",
        V3,
        {"AlarmReport": {"FieldDetection": 0, "MotionDetection": 1}},
        "<AlarmReport><MotionDetection>1</MotionDetection><FieldDetection>0</FieldDetection></AlarmReport>",
    ),
    (
        "DeviceConfig",
        V3,
        {
            "OSDConfig": {
                "Length": 1920,
                "Width": 1080,
                "TimeX": 16,
                "TimeY": 16,
                "TimeEnable": 1,
                "TimeType": 0,
                "TextEnable": 1,
                "Item": [{"Text": "东门", "X": 16, "Y": 1000}],
            }
        },
        "<OSDConfig><Length>1920</Length><Width>1080</Width><TimeX>16</TimeX><TimeY>16</TimeY>"
        "<TimeEnable>1</TimeEnable><TimeType>0</TimeType><TextEnable>1</TextEnable><SumNum>1</SumNum>"
        "<Item><Text>东门</Text><X>16</X><Y>1000</Y></Item></OSDConfig>",
    ),
    (
        "DeviceConfig",
        V3,
        {
            "SnapShotConfig": {
                "SnapNum": 3,
                "Interval": 1,
                "UploadURL": "http://192.0.2.10/snap/tok",
                "SessionID": SESSION,
            }
        },
        "<SnapShotConfig><SnapNum>3</SnapNum><Interval>1</Interval>"
        f"<UploadURL>http://192.0.2.10/snap/tok</UploadURL><SessionID>{SESSION}</SessionID></SnapShotConfig>",
    ),
    (
        "DeviceConfig",
        V3,
        {
            "SVACDecodeConfig": {"SVCParam": {"SVCSTMMode": 0}},
            "SVACEncodeConfig": {"SVCParam": {"SVCTimeDomainMode": 0, "SVCSpaceDomainMode": 0}},
        },
        "<SVACEncodeConfig><SVCParam><SVCSpaceDomainMode>0</SVCSpaceDomainMode>"
        "<SVCTimeDomainMode>0</SVCTimeDomainMode></SVCParam></SVACEncodeConfig>"
        "<SVACDecodeConfig><SVCParam><SVCSTMMode>0</SVCSTMMode></SVCParam></SVACDecodeConfig>",
    ),
    (
        "ConfigDownload",
        V2,
        {"ConfigType": "BasicParam/VideoParamOpt"},
        "<ConfigType>BasicParam/VideoParamOpt</ConfigType>",
    ),
    ("DeviceStatus", V1, {}, ""),
    (
        "Catalog",
        V2,
        {"EndTime": "2024-05-02", "StartTime": "2024-05-01T00:30:00Z"},
        "<StartTime>2024-05-01T08:30:00</StartTime><EndTime>2024-05-02T00:00:00</EndTime>",
    ),
    ("DeviceInfo", V1, {}, ""),
    (
        "RecordInfo",
        V3,
        {
            "AlarmType": "2/3",
            "AlarmMethod": "25",
            "StreamNumber": 1,
            "IndistinctQuery": "0",
            "Type": "all",
            "Secrecy": 0,
            "EndTime": "2024-05-01T23:59:59",
            "StartTime": "2024-05-01T00:00:00",
        },
        "<StartTime>2024-05-01T00:00:00</StartTime><EndTime>2024-05-01T23:59:59</EndTime><Secrecy>0</Secrecy>"
        "<Type>all</Type><IndistinctQuery>0</IndistinctQuery><StreamNumber>1</StreamNumber>"
        "<AlarmMethod>2/5</AlarmMethod><AlarmType>2/3</AlarmType>",
    ),
    (
        "Alarm",
        V3,
        {
            "StartAlarmPriority": 0,
            "EndAlarmPriority": 0,
            "AlarmMethod": "0",
            "StartAlarmTime": "2024-05-01T00:00:00",
        },
        "<StartAlarmPriority>0</StartAlarmPriority><EndAlarmPriority>0</EndAlarmPriority>"
        "<AlarmMethod>0</AlarmMethod><StartAlarmTime>2024-05-01T00:00:00</StartAlarmTime>",
    ),
    (
        "Alarm",
        V1,
        {"AlarmMethod": "1/2", "EndAlarmTime": "2024-05-01T00:00:00"},
        "<AlarmMethod>12</AlarmMethod><EndTime>2024-05-01T00:00:00</EndTime>",
    ),
    ("PresetQuery", V11, {}, ""),
    ("MobilePosition", V2, {"Interval": 5}, "<Interval>5</Interval>"),
    ("HomePositionQuery", V3, {}, ""),
    ("CruiseTrackListQuery", V3, {}, ""),
    ("CruiseTrackQuery", V3, {"Number": 0}, "<Number>0</Number>"),
    ("PTZPosition", V3, {}, ""),
    ("SDCardStatus", V3, {}, ""),
]


def style(edition: Edition, *, forced: bool = False) -> Style:
    return Style(edition=edition, zone=timezone(timedelta(hours=8)), forced=forced)


def written(
    name: str, values: dict[str, Any], edition: Edition = Edition.V3_0, *, forced: bool = False
) -> str:
    """The body without line ends."""
    data = write_command(
        COMMANDS[name], 11, CHANNEL, values, charset=Charset.GB18030, style=style(edition, forced=forced)
    )
    return data.decode("gb18030").replace("\r\n", "")


@pytest.mark.parametrize(("name", "edition", "values", "inner"), GOLDEN)
def test_a23_a24_bytes_of_every_command(
    name: str, edition: Edition, values: dict[str, Any], inner: str
) -> None:
    row = COMMANDS[name]
    assert written(name, values, edition) == (
        f'<?xml version="1.0" encoding="GB18030"?><{row.root}><CmdType>{row.cmd_type}</CmdType><SN>11</SN>'
        f"<DeviceID>{CHANNEL}</DeviceID>{inner}</{row.root}>"
    )


def test_every_command_has_its_bytes_checked() -> None:
    assert {name for name, _, _, _ in GOLDEN} == set(COMMANDS)


def all_nodes(nodes: tuple[Node, ...]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        found.add(node.name)
        if isinstance(node, Group):
            found |= all_nodes(node.members)
    return found


def test_xml10_every_name_of_the_tables_is_known_in_any_case() -> None:
    names = {name for row in COMMANDS.values() for name in all_nodes(row.fields) | all_nodes(row.response)}
    assert names <= KNOWN


@pytest.mark.parametrize(
    ("name", "edition", "values", "what"),
    [
        ("PTZPosition", V2, {}, "PTZPosition"),
        ("HomePosition", V11, {"HomePosition": {"Enabled": 0}}, "HomePosition"),
        ("DeviceConfig", V1, {"BasicParam": {"Name": "x"}}, "DeviceConfig"),
        ("DeviceConfig", V2, {"FrameMirror": 1}, "FrameMirror"),
        ("RecordCmd", V2, {"RecordCmd": "Record", "StreamNumber": 0}, "StreamNumber"),
        ("PTZCmd", V2, {"PTZCmd": "A50F0000000000B4", "PTZCmdParams": {"PresetName": "x"}}, "PTZCmdParams"),
        ("ConfigDownload", V2, {"ConfigType": "BasicParam/OSDConfig"}, "ConfigType OSDConfig"),
        ("ConfigDownload", V3, {"ConfigType": "AudioParamOpt"}, "ConfigType AudioParamOpt"),
        ("DeviceConfig", V3, {"SVACEncodeConfig": {"ROIParam": {"BackGroundQP": 1}}}, "BackGroundQP"),
    ],
)
def test_ctl11_what_an_edition_does_not_know_is_written_only_when_forced(
    name: str, edition: Edition, values: dict[str, Any], what: str
) -> None:
    with pytest.raises(EditionError, match=what):
        written(name, values, edition)
    assert COMMANDS[name].cmd_type in written(name, values, edition, forced=True)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("RecordCmd", {}, "RecordCmd: is missing"),
        ("RecordCmd", {"RecordCmd": "Play"}, "RecordCmd: one of Record, StopRecord, not 'Play'"),
        ("RecordCmd", {"RecordCmd": "Record", "Speed": 1}, "Speed: there is no such field here"),
        ("PTZCmd", {"PTZCmd": "A50F0001400000F6"}, "PTZCmd: the checksum of A50F0001400000F6 should be F5"),
        ("HomePosition", {"HomePosition": {"Enabled": 2}}, "HomePosition.Enabled: 2 is not within 0..1"),
        ("HomePosition", {"HomePosition": 1}, "HomePosition: has members"),
        ("HomePosition", {"HomePosition": {"Enabled": True}}, "HomePosition.Enabled: is a whole number"),
        ("HomePosition", {"HomePosition": {"Enabled": 0.5}}, "HomePosition.Enabled: is a whole number"),
        ("PTZPreciseCtrl", {"PTZPreciseCtrl": {"Pan": float("nan")}}, "Pan: is a number"),
        ("DragZoomIn", {"DragZoomIn": {**BOX, "Width": -1}}, "DragZoomIn.Width: -1 is not within"),
        ("TargetTrack", {"TargetTrack": "Manual"}, "TargetArea: is missing"),
        ("DeviceConfig", {}, "at least one configuration"),
        ("DeviceConfig", {"VideoParamOpt": {"Resolution": "5"}}, "VideoParamOpt: there is no such field"),
        (
            "DeviceConfig",
            {"PictureMask": {"On": 1, "RegionList": {"Item": [{"Seq": 1, "Point": "1,2"}]}}},
            "Point",
        ),
        ("DeviceConfig", {"OSDConfig": {"Length": 1}}, "OSDConfig.Width: is missing"),
        ("ConfigDownload", {"ConfigType": "Nonsense"}, "'Nonsense' is none of BasicParam"),
        ("RecordInfo", {"StartTime": "soon", "EndTime": "2024-05-01"}, "StartTime: 'soon' is not a time"),
        ("AlarmCmd", {"AlarmCmd": "ResetAlarm", "Info": {"AlarmMethod": "9"}}, "methods are 0 to 7"),
        ("TargetTrack", {"TargetTrack": "Auto", "DeviceID2": "x"}, "an id has 2 to 20 digits"),
        ("GuardCmd", {"GuardCmd": "SetGuard", "ExtraInfo": ["x"] * 17}, "ExtraInfo: at most 16"),
        ("GuardCmd", {"GuardCmd": ["SetGuard"]}, "GuardCmd: is there once"),
    ],
)
def test_a_wrong_field_is_named(name: str, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GbLocalError) as caught:
        written(name, values)
    assert sentence in str(caught.value)


def test_s05_values_cannot_leave_their_element() -> None:
    text = written("DeviceConfig", {"BasicParam": {"Name": "</Name><x>\x00&"}})
    assert "<Name>&lt;/Name&gt;&lt;x&gt;?&amp;</Name>" in text


def answer(name: str, inner: str) -> dict[str, Any]:
    document = parse(body(inner, cmd_type=COMMANDS[name].cmd_type))
    return dict(read_answer(COMMANDS[name], document))


def test_an_answer_is_typed_and_keeps_what_is_not_known() -> None:
    found = answer(
        "SDCardStatus",
        '<SumNum>1</SumNum><SDCardStatusInfo Num="1"><Item><ID>1</ID><Status>ok</Status><Capacity>64 GB</Capacity>'
        "<FreeSpace>32</FreeSpace><Vendor><A>1</A><A>2</A></Vendor></Item></SDCardStatusInfo><Empty/>",
    )
    assert found == {
        "CmdType": "SDCardStatus",
        "SN": 7,
        "DeviceID": "34020000001180000001",
        "SumNum": 1,
        "SDCardStatusInfo": {
            "Item": [
                {
                    "ID": 1,
                    "Status": "ok",
                    "Capacity": "64 GB",
                    "FreeSpace": 32,
                    "Vendor": {"A": ["1", "2"]},
                }
            ]
        },
    }


def test_xml10_an_answer_in_lower_case_is_the_same() -> None:
    found = answer("PTZPosition", "<pan>120.50</pan><TILT>10</TILT><zoom> 2.0 </zoom>")
    assert (found["Pan"], found["Tilt"], found["Zoom"]) == (120.5, 10.0, 2.0)


def test_a2469_snapshot_is_read_under_the_name_it_is_asked_by() -> None:
    found = answer("ConfigDownload", "<Result>OK</Result><SnapShot><SnapNum>3</SnapNum></SnapShot>")
    assert found["SnapShotConfig"] == {"SnapNum": 3}


def test_differences_compare_numbers_as_numbers() -> None:
    one = {"A": {"X": 30, "Y": "5", "L": [{"Z": 1}, {"Z": 2}]}, "B": 1.0, "C": "text"}
    assert differences(one, {"A": {"X": "30", "Y": 5, "L": [{"Z": 1}, {"Z": 2}]}, "B": 1, "C": "text"}) == []
    found = differences(one, {"A": {"X": 60, "L": [{"Z": 1}]}, "B": 1})
    assert [(diff.field, diff.read) for diff in found] == [
        ("A.X", 60),
        ("A.Y", None),
        ("A.L[1].Z", None),
        ("C", None),
    ]


def test_xml10_a_name_that_ends_with_a_colon_keeps_it() -> None:
    assert "SumNum:" in answer("PresetQuery", "<SumNum:>1</SumNum:>")
