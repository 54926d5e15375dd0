"""The bytes that devices see, kept in files; and the list of all that the standard lets a platform say to a device.

The list was written from the annex's clauses and not from the table of `commands`: element, root, CmdType, first
edition, how it is answered, and the order of its members.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.commands import COMMANDS, Answer
from gb28181gw.gb.manscdp.configs import CONFIGS, config_known
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.ptz import decode
from tests.support.golden import CHANNEL, FOLDER, WRITTEN, Golden, all_golden, instructions

GOLDEN = all_golden()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda one: f"{one.edition.value}-{one.name}")
def test_a2_the_bytes_are_those_of_the_file(golden: Golden) -> None:
    assert golden.written() == golden.path.read_bytes()


def test_every_file_is_one_of_the_list() -> None:
    assert {golden.path for golden in GOLDEN} == set(FOLDER.rglob("*.xml"))


@dataclass(frozen=True)
class Row:
    name: str
    root: str
    cmd_type: str
    since: str
    answer: Answer
    order: str
    """Members behind SN and DeviceID in the newest edition's file, all levels, each name once."""


BOX = "Length Width MidPointX MidPointY LengthX LengthY"
UPGRADE = "DeviceUpgrade Firmware FileURL Manufacturer SessionID"
NONE, RESULT, ONE, PARTS = Answer.NONE, Answer.RESULT, Answer.ONE, Answer.PARTS
AUDIT = [
    Row("PTZCmd", "Control", "DeviceControl", "1.0", NONE, "PTZCmd"),
    Row("TeleBoot", "Control", "DeviceControl", "1.0", NONE, "TeleBoot"),
    Row("RecordCmd", "Control", "DeviceControl", "1.0", RESULT, "RecordCmd"),
    Row("GuardCmd", "Control", "DeviceControl", "1.0", RESULT, "GuardCmd"),
    Row("AlarmCmd", "Control", "DeviceControl", "1.0", RESULT, "AlarmCmd Info AlarmMethod AlarmType"),
    Row("IFrameCmd", "Control", "DeviceControl", "2.0", NONE, "IFrameCmd"),
    Row("DragZoomIn", "Control", "DeviceControl", "1.1", NONE, f"DragZoomIn {BOX}"),
    Row("DragZoomOut", "Control", "DeviceControl", "1.1", NONE, f"DragZoomOut {BOX}"),
    Row("HomePosition", "Control", "DeviceControl", "2.0", RESULT, "HomePosition Enabled ResetTime PresetIndex"),
    Row("PTZPreciseCtrl", "Control", "DeviceControl", "3.0", NONE, "PTZPreciseCtrl Pan Tilt Zoom"),
    Row("DeviceUpgrade", "Control", "DeviceControl", "3.0", RESULT, UPGRADE),
    Row("FormatSDCard", "Control", "DeviceControl", "3.0", NONE, "FormatSDCard"),
    Row("TargetTrack", "Control", "DeviceControl", "3.0", NONE, f"TargetTrack DeviceID2 TargetArea {BOX}"),
    Row("DeviceConfig", "Control", "DeviceConfig", "1.1", RESULT, "BasicParam HeartBeatInterval"),
    Row("ConfigDownload", "Query", "ConfigDownload", "1.1", Answer.CONFIGS, "ConfigType"),
    Row("DeviceStatus", "Query", "DeviceStatus", "1.0", ONE, ""),
    Row("Catalog", "Query", "Catalog", "1.0", PARTS, "StartTime EndTime"),
    Row("DeviceInfo", "Query", "DeviceInfo", "1.0", ONE, ""),
    Row("RecordInfo", "Query", "RecordInfo", "1.0", PARTS, "StartTime EndTime Secrecy Type"),
    Row("Alarm", "Query", "Alarm", "1.0", NONE, "StartAlarmPriority EndAlarmPriority AlarmMethod"),
    Row("PresetQuery", "Query", "PresetQuery", "1.1", PARTS, ""),
    Row("MobilePosition", "Query", "MobilePosition", "2.0", NONE, "Interval"),
    Row("HomePositionQuery", "Query", "HomePositionQuery", "3.0", ONE, ""),
    Row("CruiseTrackListQuery", "Query", "CruiseTrackListQuery", "3.0", PARTS, ""),
    Row("CruiseTrackQuery", "Query", "CruiseTrackQuery", "3.0", PARTS, "Number"),
    Row("PTZPosition", "Query", "PTZPosition", "3.0", ONE, ""),
    Row("SDCardStatus", "Query", "SDCardStatus", "3.0", PARTS, ""),
]  # fmt: skip


def members(path: Path) -> list[str]:
    """Names behind the head, in the order of the bytes, each once."""
    text = path.read_bytes().decode("gb18030")
    found = dict.fromkeys(re.findall(r"<([A-Za-z]\w*)", text.partition("</DeviceID>")[2]))
    return list(found)


def test_r143_nothing_of_the_annex_is_missing() -> None:
    assert [row.name for row in AUDIT] == list(COMMANDS)


@pytest.mark.parametrize("row", AUDIT, ids=lambda row: row.name)
def test_r143_the_list_of_the_annex_is_the_table(row: Row) -> None:
    command = COMMANDS[row.name]
    assert (command.root, command.cmd_type, command.since.value, command.answer) == (
        row.root, row.cmd_type, row.since, row.answer,
    )  # fmt: skip
    for edition in Edition:
        path = FOLDER / edition.value / f"{row.name}.xml"
        assert path.exists() is (edition.value >= row.since)
    document = parse((FOLDER / "3.0" / f"{row.name}.xml").read_bytes())
    assert (document.root, document.cmd_type, document.sn, document.device_id) == (
        row.root, row.cmd_type, 11, CHANNEL,
    )  # fmt: skip
    assert members(FOLDER / "3.0" / f"{row.name}.xml") == row.order.split()


CONFIG_AUDIT = {
    "BasicParam": "1.1 2.0 3.0",
    "VideoParamOpt": "1.1 2.0 3.0",
    "VideoParamConfig": "1.1",
    "AudioParamOpt": "1.1",
    "AudioParamConfig": "1.1",
    "SVACEncodeConfig": "1.1 2.0 3.0",
    "SVACDecodeConfig": "1.1 2.0 3.0",
    "VideoParamAttribute": "3.0",
    "VideoRecordPlan": "3.0",
    "VideoAlarmRecord": "3.0",
    "PictureMask": "3.0",
    "FrameMirror": "3.0",
    "AlarmReport": "3.0",
    "OSDConfig": "3.0",
    "SnapShotConfig": "3.0",
}


def test_a232_every_configuration_by_edition_is_read_and_all_but_one_written() -> None:
    assert list(CONFIG_AUDIT) == [node.name for node in CONFIGS]
    for name, editions in CONFIG_AUDIT.items():
        assert [edition.value for edition in Edition if config_known(name, edition)] == editions.split()
        for edition in editions.split():
            assert (FOLDER / edition / f"ConfigDownload-{name}.xml").exists()
            assert (FOLDER / edition / f"DeviceConfig-{name}.xml").exists() is (name != "VideoParamOpt")
    assert set(WRITTEN) == set(CONFIG_AUDIT) - {"VideoParamOpt"}


VECTORS = {
    "stop": "A50F0000000000B4",
    "right": "A50F0001400000F5",
    "left": "A50F0002400000F6",
    "down": "A50F0004004000F8",
    "up": "A50F0008004000FC",
    "left-up": "A50F000A4040003E",
    "zoom-in": "A50F001000008044",
    "zoom-out": "A50F002000008054",
    "right-up-zoom-out": "A50F0029404080DD",
    "lens-stop": "A50F0040000000F4",
    "iris-close": "A50F00480040003C",
    "iris-open": "A50F004400400038",
    "focus-near": "A50F004240000036",
    "focus-far": "A50F004140000035",
    "preset-set": "A50F008100030038",
    "preset-goto": "A50F008200030039",
    "preset-delete": "A50F00830003003A",
    "cruise-add": "A50F00840103003C",
    "cruise-remove": "A50F00850103003D",
    "cruise-delete": "A50F00850100003A",
    "cruise-speed": "A50F0086012C1077",
    "cruise-stay": "A50F0087012C1078",
    "cruise-start": "A50F00880100003D",
    "scan-start": "A50F00890100003E",
    "scan-left": "A50F00890101003F",
    "scan-right": "A50F008901020040",
    "scan-speed": "A50F008A012C107B",
    "aux-on": "A50F008C01000041",
    "aux-off": "A50F008D01000042",
}


def test_a3_every_instruction_of_the_annex_has_its_bytes() -> None:
    """Speed 40H, zoom 8, preset 3, group 1, value 300, switch 1; worked out by the formulas of A.3.1."""
    assert dict(instructions()) == VECTORS
    assert all(decode(code) is not None for code in VECTORS.values())


def test_a23117_the_key_frame_is_misspelt_before_2022() -> None:
    assert members(FOLDER / "2.0" / "IFrameCmd.xml") == ["IFameCmd"]


def test_6_10_the_label_follows_the_edition() -> None:
    assert b'encoding="GB2312"' in (FOLDER / "2.0" / "DeviceInfo.xml").read_bytes()
    assert b'encoding="GB18030"' in (FOLDER / "3.0" / "DeviceInfo.xml").read_bytes()
