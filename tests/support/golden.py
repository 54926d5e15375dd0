"""The messages whose bytes are kept in tests/data/golden/manscdp, one file each, by edition.

`python -m tests.support.golden` writes the files anew: look at the difference before it is committed, the files are
what devices see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

from gb28181gw.gb.dialect import Dialect, Edition
from gb28181gw.gb.manscdp.commands import COMMANDS, write_command
from gb28181gw.gb.manscdp.configs import CONFIG_TYPES, config_known
from gb28181gw.gb.manscdp.schema import Style
from gb28181gw.gb.ptz import Action, Lens, Move, Operation, encode, numbers_of

FOLDER = Path(__file__).resolve().parents[1] / "data" / "golden" / "manscdp"
CHANNEL = "34020000001320000007"
SESSION = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
BOX = {"Length": 1920, "Width": 1080, "MidPointX": 960, "MidPointY": 540, "LengthX": 320, "LengthY": 180}
SEGMENT = {"StartHour": 8, "StartMin": 0, "StartSec": 0, "StopHour": 18, "StopMin": 0, "StopSec": 0}
STREAM = {
    "VideoFormat": "2",
    "Resolution": "6",
    "FrameRate": "25",
    "BitRateType": "1",
    "VideoBitRate": "4096",
}

FIELDS: dict[str, dict[str, Any]] = {
    "PTZCmd": {"PTZCmd": "A50F0001400000F5"},
    "TeleBoot": {"TeleBoot": "Boot"},
    "RecordCmd": {"RecordCmd": "Record"},
    "GuardCmd": {"GuardCmd": "SetGuard"},
    "AlarmCmd": {"AlarmCmd": "ResetAlarm", "Info": {"AlarmMethod": "1/2", "AlarmType": "2"}},
    "IFrameCmd": {"IFrameCmd": "Send"},
    "DragZoomIn": {"DragZoomIn": BOX},
    "DragZoomOut": {"DragZoomOut": BOX},
    "HomePosition": {"HomePosition": {"Enabled": 1, "ResetTime": 60, "PresetIndex": 1}},
    "PTZPreciseCtrl": {"PTZPreciseCtrl": {"Pan": 120.5, "Tilt": 10, "Zoom": 2}},
    "DeviceUpgrade": {
        "DeviceUpgrade": {
            "Firmware": "V2.1.0",
            "FileURL": "http://192.0.2.10/fw/ipc.bin",
            "Manufacturer": "Acme",
            "SessionID": SESSION,
        }
    },
    "FormatSDCard": {"FormatSDCard": 1},
    "TargetTrack": {"TargetTrack": "Manual", "DeviceID2": "34020000001320000009", "TargetArea": BOX},
    "DeviceConfig": {"BasicParam": {"HeartBeatInterval": 30}},
    "ConfigDownload": {"ConfigType": "BasicParam/VideoParamOpt"},
    "Catalog": {"StartTime": "2024-05-01T00:00:00", "EndTime": "2024-05-02T00:00:00"},
    "RecordInfo": {
        "StartTime": "2024-05-01T00:00:00",
        "EndTime": "2024-05-01T23:59:59",
        "Secrecy": 0,
        "Type": "all",
    },
    "Alarm": {"StartAlarmPriority": 0, "EndAlarmPriority": 0, "AlarmMethod": "1/2"},
    "MobilePosition": {"Interval": 5},
    "CruiseTrackQuery": {"Number": 0},
}
"""Fields of each command that are good in every edition that has it; none where it has no fields."""

ONLY_2022: dict[str, dict[str, Any]] = {
    "PTZCmd": {"PTZCmd": "A50F008100010036", "PTZCmdParams": {"PresetName": "东门"}},
    "RecordCmd": {"RecordCmd": "Record", "StreamNumber": 0},
    "GuardCmd": {"GuardCmd": "SetGuard", "ExtraInfo": ["<v>1</v>", "two"]},
    "RecordInfo": {
        "StartTime": "2024-05-01T00:00:00",
        "EndTime": "2024-05-01T23:59:59",
        "FilePath": "/a",
        "Address": "East",
        "Secrecy": 0,
        "Type": "alarm",
        "RecorderID": "7",
        "IndistinctQuery": "1",
        "StreamNumber": 1,
        "AlarmMethod": "2/5",
        "AlarmType": "1/2",
    },
}
"""The same with the fields that are new in 2022."""

WRITTEN: dict[str, Any] = {
    "BasicParam": {"Name": "East", "Expiration": 3600, "HeartBeatInterval": 30, "HeartBeatCount": 3},
    "VideoParamConfig": {"Item": [{"StreamName": "Stream1", **STREAM}]},
    "AudioParamOpt": {"AudioFormatOpt": "1/2", "AudioBitRateOpt": "5", "SamplingRateOpt": "1"},
    "AudioParamConfig": {
        "Item": [{"StreamName": "Stream1", "AudioFormat": "1", "AudioBitRate": "5", "SamplingRate": "1"}]
    },
    "SVACEncodeConfig": {
        "ROIParam": {"ROIFlag": 1, "ROINumber": 0},
        "AudioParam": {"AudioRecognitionFlag": 1},
    },
    "SVACDecodeConfig": {"SVCParam": {"SVCSTMMode": 1}, "SurveillanceParam": {"TimeShowFlag": 1}},
    "VideoParamAttribute": {"Item": [{"StreamNumber": 0, **STREAM}]},
    "VideoRecordPlan": {
        "RecordEnable": 1,
        "RecordSchedule": [{"WeekDayNum": day, "TimeSegment": [SEGMENT]} for day in (1, 2)],
        "StreamNumber": 0,
    },
    "VideoAlarmRecord": {"RecordEnable": 1, "RecordTime": 20, "PreRecordTime": 3, "StreamNumber": 0},
    "PictureMask": {"On": 1, "RegionList": {"Item": [{"Seq": 1, "Point": "20,30,50,60"}]}},
    "FrameMirror": 3,
    "AlarmReport": {"MotionDetection": 1, "FieldDetection": 1},
    "OSDConfig": {
        "Length": 1280,
        "Width": 720,
        "TimeX": 8,
        "TimeY": 8,
        "TimeEnable": 1,
        "TimeType": 0,
        "TextEnable": 1,
        "Item": [{"Text": "东门", "X": 16, "Y": 700}],
    },
    "SnapShotConfig": {
        "SnapNum": 3,
        "Interval": 1,
        "UploadURL": "http://192.0.2.10/snap/tok",
        "SessionID": SESSION,
    },
}
"""Each configuration that can be written, good in every edition that has it."""


def instructions() -> Iterator[tuple[str, str]]:
    """Every PTZ code by name, at speed 40H and zoom 8 (A.3)."""
    for name, move in {
        "stop": Move(),
        "right": Move(pan=0x40),
        "left": Move(pan=-0x40),
        "down": Move(tilt=-0x40),
        "up": Move(tilt=0x40),
        "left-up": Move(pan=-0x40, tilt=0x40),
        "zoom-in": Move(zoom=8),
        "zoom-out": Move(zoom=-8),
        "right-up-zoom-out": Move(pan=0x40, tilt=0x40, zoom=-8),
    }.items():
        yield name, encode(move)
    for name, lens in {
        "lens-stop": Lens(),
        "iris-close": Lens(iris=-0x40),
        "iris-open": Lens(iris=0x40),
        "focus-near": Lens(focus=-0x40),
        "focus-far": Lens(focus=0x40),
    }.items():
        yield name, encode(lens)
    numbers = {"preset": 3, "group": 1, "value": 300, "switch": 1}
    for action in Action:
        given = {name: numbers[name] for name in numbers_of(action)}
        yield action.value, encode(Operation(action=action, **given))


@dataclass(frozen=True, slots=True)
class Golden:
    """One file."""

    name: str
    edition: Edition
    command: str
    values: dict[str, Any]

    @property
    def path(self) -> Path:
        return FOLDER / self.edition.value / f"{self.name}.xml"

    def written(self) -> bytes:
        style = Style(edition=self.edition, zone=timezone(timedelta(hours=8)))
        charset = Dialect(edition=self.edition).charset_used
        return write_command(COMMANDS[self.command], 11, CHANNEL, self.values, charset=charset, style=style)


def all_golden() -> list[Golden]:
    """Each command in each edition that has it, each configuration written and read, each PTZ code."""
    found: list[Golden] = []
    for edition in Edition:
        for name, row in COMMANDS.items():
            if edition >= row.since:
                found.append(Golden(name, edition, name, FIELDS.get(name, {})))
        for name in CONFIG_TYPES:
            if not config_known(name, edition):
                continue
            found.append(Golden(f"ConfigDownload-{name}", edition, "ConfigDownload", {"ConfigType": name}))
            if name in WRITTEN:
                values = {name: _of_edition(name, edition)}
                found.append(Golden(f"DeviceConfig-{name}", edition, "DeviceConfig", values))
    newest = Edition.V3_0
    found += [Golden(f"{name}-2022", newest, name, values) for name, values in ONLY_2022.items()]
    found += [
        Golden(f"PTZCmd-{name}", Edition.V2_0, "PTZCmd", {"PTZCmd": code}) for name, code in instructions()
    ]
    return found


def _of_edition(name: str, edition: Edition) -> Any:
    if name == "BasicParam" and edition is Edition.V1_1:
        server = {"SIPServerID": "34020000002000000001", "SIPServerIP": "192.0.2.1", "SIPServerPort": 5060}
        return {**WRITTEN[name], **server, "DomainName": "3402000000", "Password": "x"}
    return WRITTEN[name]


def main() -> None:
    for golden in all_golden():
        golden.path.parent.mkdir(parents=True, exist_ok=True)
        golden.path.write_bytes(golden.written())


if __name__ == "__main__":
    main()
