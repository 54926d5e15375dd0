"""Every control, query and configuration that a device can be sent, as one table (GB/T 28181-2022 A.2.3, A.2.4).

A row says what is written, in which edition it is new, and how the answer comes. `write_command` is the strict
writer; `read_answer` the lenient reader. The API's schema and the documentation are made from the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import EditionError, GbLocalError
from gb28181gw.gb.manscdp.configs import (
    CONFIG_EDITIONS,
    CONFIG_TYPES,
    CONFIGS,
    SESSION,
    config_known,
)
from gb28181gw.gb.manscdp.document import Document, result_ok
from gb28181gw.gb.manscdp.names import INFO_FIELDS, ITEM_FIELDS
from gb28181gw.gb.manscdp.schema import (
    Kind,
    Leaf,
    Node,
    Style,
    Value,
    Values,
    choice,
    group,
    identity,
    moment,
    read_values,
    real,
    text,
    whole,
    write_values,
)
from gb28181gw.gb.manscdp.writer import Writer

_1_1, _2, _3 = Edition.V1_1, Edition.V2_0, Edition.V3_0


class Answer(StrEnum):
    """How a command is answered, besides the SIP 200."""

    NONE = "none"
    """Not at all, or by notifications later on."""
    RESULT = "result"
    """A Response with a Result."""
    ONE = "one"
    """A Response in one message."""
    PARTS = "parts"
    """A Response in one or several messages, counted by SumNum (Annex M)."""
    CONFIGS = "configs"
    """A Response for each type that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One row. `fields` come after CmdType, SN and DeviceID."""

    name: str
    """What callers say: the CmdType, or the control's own element."""
    root: Literal["Control", "Query"]
    cmd_type: str
    clause: str
    meaning: str
    fields: tuple[Node, ...] = ()
    answer: Answer
    response: tuple[Node, ...] = ()
    list_name: str = ""
    item_name: str = "Item"
    keys: tuple[str, ...] = ("DeviceID",)
    """What tells one item from another, to leave out repeated ones."""
    since: Edition = Edition.V1_0
    drastic: bool = False
    """It takes the device away or destroys what it holds."""
    first_s: float = 10.0
    """How long the answer may take to begin."""
    needs: tuple[str, ...] = ()
    """An answer without any of these, readable, says nothing; empty: there is no such answer."""


_EXTRA = Leaf(name="ExtraInfo", many=True, max_length=1024, older="Info", older_until=_2, free=True)
_EXTRA_2022 = Leaf(name="ExtraInfo", many=True, max_length=1024, since=_3, free=True)
_RESULT = (choice("Result", "OK ERROR"), text("Reason"), _EXTRA)


def _control(
    name: str,
    clause: str,
    meaning: str,
    *fields: Node,
    answered: bool = False,
    since: Edition = Edition.V1_0,
    drastic: bool = False,
    first_s: float = 10.0,
) -> Command:
    return Command(
        name=name,
        root="Control",
        cmd_type="DeviceControl",
        clause=clause,
        meaning=meaning,
        fields=(*fields, _EXTRA),
        answer=Answer.RESULT if answered else Answer.NONE,
        response=_RESULT,
        since=since,
        drastic=drastic,
        first_s=first_s,
    )


def _box() -> tuple[Node, ...]:
    names = ("Length", "Width", "MidPointX", "MidPointY", "LengthX", "LengthY")
    return tuple(whole(name, required=True) for name in names)


_CONTROLS = (
    _control(
        "PTZCmd",
        "A.2.3.1.2",
        "Pan, tilt, zoom, focus, iris, presets, cruises, scans and switches, as 16 hexadecimal digits (A.3). A "
        "motion is stopped by the gateway after 10 s without a new command.",
        Leaf(name="PTZCmd", kind=Kind.PTZ, required=True),
        group("PTZCmdParams", text("PresetName"), text("CruiseTrackName", 32), since=_3),
    ),
    _control(
        "TeleBoot",
        "A.2.3.1.3",
        "Restart the device.",
        choice("TeleBoot", "Boot", required=True),
        drastic=True,
    ),
    _control(
        "RecordCmd",
        "A.2.3.1.4",
        "Start or stop recording in the device.",
        choice("RecordCmd", "Record StopRecord", required=True),
        whole("StreamNumber", since=_3, meaning="0 main, 1 sub 1, …"),
        answered=True,
    ),
    _control(
        "GuardCmd",
        "A.2.3.1.5",
        "Arm or disarm. Some devices report alarms only while armed (CTL-01).",
        choice("GuardCmd", "SetGuard ResetGuard", required=True),
        answered=True,
    ),
    _control(
        "AlarmCmd",
        "A.2.3.1.6",
        "Reset an alarm: without it a device alarm (method 2) is not raised again.",
        choice("AlarmCmd", "ResetAlarm", required=True),
        group("Info", Leaf(name="AlarmMethod", kind=Kind.METHODS), text("AlarmType")),
        answered=True,
    ),
    _control(
        "IFrameCmd",
        "A.2.3.1.7",
        "Ask for a key frame; written as IFameCmd to devices before 2022.",
        Leaf(name="IFrameCmd", choices=("Send",), required=True, older="IFameCmd", older_until=_2),
        since=_2,
    ),
    _control(
        "DragZoomIn",
        "A.2.3.1.8",
        "The box fills the window.",
        group("DragZoomIn", *_box(), required=True),
        since=_1_1,
    ),
    _control(
        "DragZoomOut",
        "A.2.3.1.9",
        "The window shrinks into the box.",
        group("DragZoomOut", *_box(), required=True),
        since=_1_1,
    ),
    _control(
        "HomePosition",
        "A.2.3.1.10",
        "Where the camera returns to when nobody moves it.",
        group(
            "HomePosition",
            whole("Enabled", 0, 1, required=True),
            whole("ResetTime", meaning="Seconds."),
            whole("PresetIndex", 0, 255),
            required=True,
        ),
        answered=True,
        since=_2,
    ),
    _control(
        "PTZPreciseCtrl",
        "A.2.3.1.11",
        "Move to a position; PTZPosition reads it.",
        group(
            "PTZPreciseCtrl",
            real("Pan", 0, 360, meaning="Degrees, clockwise seen from above."),
            real("Tilt", -90, 90, meaning="Degrees; 0 is level, more is down."),
            real("Zoom", 0),
            required=True,
        ),
        since=_3,
    ),
    _control(
        "DeviceUpgrade",
        "A.2.3.1.12",
        "Install a firmware; the end is told by the event device.upgraded.",
        group(
            "DeviceUpgrade",
            text("Firmware", required=True),
            text("FileURL", 1024, required=True),
            text("Manufacturer", required=True),
            text("SessionID", 128, pattern=SESSION, required=True),
            required=True,
        ),
        answered=True,
        since=_3,
        drastic=True,
        first_s=20.0,
    ),
    _control(
        "FormatSDCard",
        "A.2.3.1.13",
        "Format a storage card; 0 formats all of them.",
        whole("FormatSDCard", required=True),
        since=_3,
        drastic=True,
    ),
    _control(
        "TargetTrack",
        "A.2.3.1.14",
        "Follow a target; Manual needs TargetArea.",
        choice("TargetTrack", "Auto Manual Stop", required=True),
        identity("DeviceID2", meaning="The panoramic channel."),
        group("TargetArea", *_box()),
        since=_3,
    ),
)

_CONFIG_COMMANDS = (
    Command(
        name="DeviceConfig",
        root="Control",
        cmd_type="DeviceConfig",
        clause="A.2.3.2",
        meaning="Write configurations; what was written is read back and compared. Many devices want the device's id "
        "and not a channel's (CTL-08), so leave channel_id out unless it is refused.",
        fields=(*(node for node in CONFIGS if not node.answer_only), _EXTRA_2022),
        answer=Answer.RESULT,
        response=_RESULT,
        since=_1_1,
    ),
    Command(
        name="ConfigDownload",
        root="Query",
        cmd_type="ConfigDownload",
        clause="A.2.4.7",
        meaning="Read configurations: names of types with / between them.",
        fields=(text("ConfigType", 512, required=True),),
        answer=Answer.CONFIGS,
        response=(*_RESULT, *CONFIGS),
        since=_1_1,
    ),
)


def _query(
    name: str,
    clause: str,
    meaning: str,
    *fields: Node,
    answer: Answer = Answer.ONE,
    response: tuple[Node, ...] = (),
    list_name: str = "",
    item_name: str = "Item",
    keys: tuple[str, ...] = ("DeviceID",),
    since: Edition = Edition.V1_0,
    first_s: float = 10.0,
    needs: tuple[str, ...] = (),
) -> Command:
    return Command(
        name=name,
        root="Query",
        cmd_type=name,
        clause=clause,
        meaning=meaning,
        fields=fields,
        answer=answer,
        response=response,
        list_name=list_name,
        item_name=item_name,
        keys=keys,
        since=since,
        first_s=first_s,
        needs=needs or (("SumNum", list_name) if list_name else ()),
    )


_WHOLE_IN_ITEMS = frozenset({"Parental", "SafetyWay", "RegisterWay", "Certifiable", "Secrecy", "Port"})
_REAL_IN_ITEMS = frozenset(
    {"Longitude", "Latitude", "HorizontalFieldAngle", "VerticalFieldAngle", "MaxViewDistance"}
)


def _item_leaf(name: str) -> Node:
    if name in _WHOLE_IN_ITEMS:
        return whole(name, None, None)
    return real(name) if name in _REAL_IN_ITEMS else text(name)


_CATALOG_ITEM = (
    *(_item_leaf(name) for name in ITEM_FIELDS),
    group("Info", *(_item_leaf(name) for name in INFO_FIELDS)),
)
_SUM = whole("SumNum")

_QUERIES = (
    _query(
        "DeviceStatus",
        "A.2.4.2",
        "Whether it works, encodes and records.",
        response=(
            *_RESULT,
            choice("Online", "ONLINE OFFLINE"),
            text("Status"),
            text("Encode"),
            text("Record"),
            text("DeviceTime", meaning="Local time of the device."),
            group(
                "Alarmstatus",
                group("Item", text("DeviceID"), text("DutyStatus"), text("Status"), many=True),
            ),
        ),
        needs=("Result", "Online", "Status"),
    ),
    _query(
        "Catalog",
        "A.2.4.3",
        "The catalogue as the device tells it; the gateway's own is at …/channels and …/tree.",
        moment("StartTime", meaning="Items added since."),
        moment("EndTime"),
        answer=Answer.PARTS,
        response=(_SUM, group("DeviceList", group("Item", *_CATALOG_ITEM, many=True)), _EXTRA),
        list_name="DeviceList",
        first_s=30.0,
    ),
    _query(
        "DeviceInfo",
        "A.2.4.4",
        "Who made it, and how many channels it has.",
        response=(
            text("DeviceName"),
            *_RESULT,
            text("Manufacturer"),
            text("Model"),
            text("Firmware"),
            whole("Channel"),
            text("DeviceType"),
            whole("MaxCamera"),
            whole("MaxAlarm"),
        ),
        needs=("Result", "DeviceName", "Manufacturer", "Model", "Firmware", "Channel"),
    ),
    _query(
        "RecordInfo",
        "A.2.4.5",
        "Recordings of a channel.",
        moment("StartTime", required=True),
        moment("EndTime", required=True),
        text("FilePath"),
        text("Address"),
        whole("Secrecy", 0, 1),
        choice("Type", "time alarm manual all"),
        text("RecorderID"),
        choice("IndistinctQuery", "0 1"),
        whole("StreamNumber", since=_3),
        Leaf(name="AlarmMethod", kind=Kind.METHODS, since=_3),
        text("AlarmType", since=_3),
        answer=Answer.PARTS,
        response=(
            text("Name"),
            _SUM,
            group(
                "RecordList",
                group(
                    "Item",
                    text("DeviceID"),
                    text("Name"),
                    text("FilePath"),
                    text("Address"),
                    text("StartTime"),
                    text("EndTime"),
                    whole("Secrecy"),
                    text("Type"),
                    text("RecorderID"),
                    text("FileSize", meaning="Bytes."),
                    text("RecordLocation"),
                    whole("StreamNumber"),
                    many=True,
                ),
            ),
            _EXTRA,
        ),
        list_name="RecordList",
        keys=("DeviceID", "StartTime", "EndTime", "FilePath"),
        first_s=20.0,
    ),
    _query(
        "Alarm",
        "A.2.4.6",
        "Ask for alarms of a kind; they come as notifications, see GET /api/v1/alarms.",
        whole("StartAlarmPriority", 0, 4, meaning="0 all, 1 highest."),
        whole("EndAlarmPriority", 0, 4),
        Leaf(name="AlarmMethod", kind=Kind.METHODS),
        text("AlarmType", since=_2),
        Leaf(name="StartAlarmTime", kind=Kind.TIME, older="StartTime", older_until=_1_1),
        Leaf(name="EndAlarmTime", kind=Kind.TIME, older="EndTime", older_until=_1_1),
        answer=Answer.NONE,
    ),
    _query(
        "PresetQuery",
        "A.2.4.8",
        "The presets of a camera.",
        answer=Answer.PARTS,
        response=(
            _SUM,
            group("PresetList", group("Item", text("PresetID"), text("PresetName"), many=True)),
        ),
        list_name="PresetList",
        keys=("PresetID",),
        since=_1_1,
    ),
    _query(
        "MobilePosition",
        "A.2.4.9",
        "Ask for positions; they come as notifications, see GET /api/v1/positions.",
        whole("Interval", 1, meaning="Seconds, 5 by default."),
        answer=Answer.NONE,
        since=_2,
    ),
    _query(
        "HomePositionQuery",
        "A.2.4.10",
        "What HomePosition was set to.",
        response=(group("HomePosition", whole("Enabled"), whole("ResetTime"), whole("PresetIndex")),),
        since=_3,
    ),
    _query(
        "CruiseTrackListQuery",
        "A.2.4.11",
        "The cruises of a camera.",
        answer=Answer.PARTS,
        response=(
            _SUM,
            group("CruiseTrackList", group("CruiseTrack", whole("Number"), text("Name"), many=True)),
        ),
        list_name="CruiseTrackList",
        item_name="CruiseTrack",
        keys=("Number",),
        since=_3,
    ),
    _query(
        "CruiseTrackQuery",
        "A.2.4.12",
        "The points of a cruise.",
        whole("Number", required=True, meaning="0 is the first."),
        answer=Answer.PARTS,
        response=(
            whole("Number"),
            text("Name"),
            _SUM,
            group(
                "CruisePointList",
                group("CruisePoint", whole("PresetIndex"), whole("StayTime"), whole("Speed"), many=True),
            ),
        ),
        list_name="CruisePointList",
        item_name="CruisePoint",
        keys=(),
        since=_3,
    ),
    _query(
        "PTZPosition",
        "A.2.4.13",
        "Where the camera looks.",
        response=(
            real("Pan"),
            real("Tilt"),
            real("Zoom"),
            real("HorizontalFieldAngle"),
            real("VerticalFieldAngle"),
            real("MaxViewDistance"),
        ),
        since=_3,
        needs=("Pan", "Tilt", "Zoom"),
    ),
    _query(
        "SDCardStatus",
        "A.2.4.14",
        "The storage cards.",
        answer=Answer.PARTS,
        response=(
            _SUM,
            group(
                "SDCardStatusInfo",
                group(
                    "Item",
                    whole("ID"),
                    text("HddName"),
                    text("Status"),
                    whole("FormatProgress"),
                    whole("Capacity", meaning="MB."),
                    whole("FreeSpace", meaning="MB."),
                    many=True,
                ),
            ),
        ),
        list_name="SDCardStatusInfo",
        keys=("ID",),
        since=_3,
    ),
)

COMMANDS: Final[dict[str, Command]] = {row.name: row for row in (*_CONTROLS, *_CONFIG_COMMANDS, *_QUERIES)}
"""By what callers say."""


def write_command(
    command: Command, sn: int, device_id: str, values: Values, *, charset: Charset, style: Style
) -> bytes:
    """The body. Raises `EditionError` for what the edition does not know unless `style.forced`, and `GbLocalError`
    naming the field that is wrong."""
    if style.edition < command.since and not style.forced:
        raise EditionError(command.name, command.since)
    _check(command, values, style)
    writer = Writer(command.root, command.cmd_type, sn, device_id)
    write_values(writer, command.fields, values, style)
    return writer.finish(charset)


def _check(command: Command, values: Values, style: Style) -> None:
    """What one field asks of another."""
    if command.name == "TargetTrack" and values.get("TargetTrack") == "Manual" and "TargetArea" not in values:
        raise GbLocalError("TargetArea: is missing, and Manual needs it")
    if command.name == "DeviceConfig" and not config_names(values):
        raise GbLocalError("DeviceConfig: give at least one configuration")
    if command.name == "ConfigDownload":
        for name in asked_configs(values):
            if name not in CONFIG_TYPES:
                raise GbLocalError(f"ConfigType: {name[:40]!r} is none of {', '.join(CONFIG_TYPES)}")
            if not config_known(name, style.edition) and not style.forced:
                since, until = CONFIG_EDITIONS[name]
                gone = style.edition > until
                raise EditionError(f"ConfigType {name}", until if gone else since, gone=gone)


def config_names(values: Values) -> list[str]:
    """The configurations that a DeviceConfig writes."""
    return [node.name for node in CONFIGS if node.name in values]


def asked_configs(values: Values) -> list[str]:
    """The types that a ConfigDownload asks for."""
    return [name.strip() for name in str(values.get("ConfigType", "")).split("/") if name.strip()]


def read_answer(command: Command, document: Document) -> dict[str, Value]:
    """What a Response says, by the names of the standard; the head (CmdType, SN, DeviceID) is in it."""
    head = (text("CmdType"), whole("SN"), text("DeviceID"))
    found = read_values(document.element, (*head, *command.response))
    found["CmdType"] = document.cmd_type
    if document.device_id:
        found["DeviceID"] = document.device_id
    return found


def says_nothing(command: Command, answer: Values) -> bool:
    """Whether an answer lacks all that the command asks for: neither a refusal nor anything that can be used."""
    if not command.needs or not result_ok(str(answer.get("Result", ""))):
        return False
    kinds = {node.name: node.kind for node in command.response if isinstance(node, Leaf)}
    numbers = (Kind.INT, Kind.NUMBER)
    return not any(
        name in answer and not (kinds.get(name) in numbers and isinstance(answer[name], str))
        for name in command.needs
    )


__all__ = [
    "COMMANDS",
    "Answer",
    "Command",
    "asked_configs",
    "config_names",
    "read_answer",
    "says_nothing",
    "write_command",
]
