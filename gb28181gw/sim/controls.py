"""What a device does about a control or a configuration, and how it answers the queries of its state. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gb28181gw.gb.exceptions import GbParseError
from gb28181gw.gb.manscdp.document import Document, parse_float
from gb28181gw.gb.ptz import decode
from gb28181gw.sim import bodies
from gb28181gw.sim.bodies import Element, Identity, leaf
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.snapshots import SnapshotOrder
from gb28181gw.sim.state import ChannelState, DeviceState, configs_of, group

_WITH_RESULT = ("RecordCmd", "GuardCmd", "AlarmCmd", "HomePosition", "DeviceUpgrade")
"""Controls that have an answer (A.2.3.1)."""
_NEW_CONTROLS = ("PTZPreciseCtrl", "DeviceUpgrade", "FormatSDCard", "TargetTrack")
_NEW_QUERIES = (
    "HomePositionQuery",
    "CruiseTrackListQuery",
    "CruiseTrackQuery",
    "PTZPosition",
    "SDCardStatus",
)
_SINCE = {
    **dict.fromkeys((*_NEW_CONTROLS, *_NEW_QUERIES), "3.0"),
    **dict.fromkeys(("IFameCmd", "IFrameCmd", "HomePosition", "MobilePosition"), "2.0"),
    **dict.fromkeys(("DeviceConfig", "ConfigDownload", "PresetQuery", "DragZoomIn", "DragZoomOut"), "1.1"),
}
"""First edition of what 2011 did not have, by CmdType or the control's element."""
CARD_MB = 65_536

Later = Callable[[int], Element]
"""A notification that follows on its own; it is given its SN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One message of the platform and whom it is about."""

    document: Document
    me: Identity
    state: DeviceState
    sn: str
    target: str
    now: float
    """Seconds of any clock."""

    @property
    def channel(self) -> ChannelState:
        return self.state.of(self.target)

    def text(self, group_name: str, name: str = "") -> str:
        """Text of a child of the root, or of a child of that."""
        element = self.document.fields.get(group_name)
        if element is None:
            return ""
        found = element.findtext(name) if name else element.text
        return (found or "").strip()

    def result(self, command: str, outcome: str = "OK") -> Element:
        return bodies.result(self.me, command, self.sn, self.target, outcome)

    def response(self, command: str, *fields: Element) -> Element:
        return Element("Response", children=(*bodies.head(self.me, command, self.sn, self.target), *fields))


def knows(asked: Asked) -> bool:
    """Whether a device of this edition has ever heard of the command (CTL-11)."""
    if asked.document.root not in ("Control", "Query"):
        return True
    edition = "2.0" if asked.me.quirks & _BEFORE_2022 and asked.me.edition == "3.0" else asked.me.edition
    names = (asked.document.cmd_type, *asked.document.fields)
    return all(_SINCE.get(name, "1.0") <= edition for name in names)


_BEFORE_2022 = frozenset((Quirk.CTL_11, Quirk.CTL_11_501))


def is_new(document: Document) -> bool:
    """Whether a command is new in 2022."""
    return document.cmd_type in _NEW_QUERIES or any(name in document.fields for name in _NEW_CONTROLS)


def poor(asked: Asked) -> tuple[Element, ...] | None:
    """CTL-11 in its spoken forms: an ERROR, or nothing inside, to what is new in 2022; None: not one of them."""
    if Quirk.CTL_11_ERROR in asked.me.quirks and asked.document.cmd_type in _NEW_QUERIES:
        return (asked.result(asked.document.cmd_type, "ERROR"),)
    if Quirk.CTL_11_EMPTY not in asked.me.quirks:
        return None
    if asked.document.cmd_type == "ConfigDownload":
        return (asked.result("ConfigDownload"),)
    return (asked.response(asked.document.cmd_type),) if asked.document.cmd_type in _NEW_QUERIES else None


# -- controls ------------------------------------------------------------------------------------------------------


def obey(asked: Asked) -> tuple[tuple[Element, ...], tuple[Later, ...]]:
    """Control/DeviceControl: answers, and what is told later."""
    fields, channel = asked.document.fields, asked.channel
    if "PTZCmd" in fields:
        _ptz(asked)
    elif "RecordCmd" in fields:
        channel.recording = asked.text("RecordCmd") == "Record"
    elif "GuardCmd" in fields:
        channel.guarded = asked.text("GuardCmd") == "SetGuard"
    elif "AlarmCmd" in fields:
        channel.alarmed = False
    elif "TeleBoot" in fields:
        asked.state.rebooted += 1
    elif "HomePosition" in fields:
        channel.home = (
            _whole(asked.text("HomePosition", "Enabled")) or 0,
            _whole(asked.text("HomePosition", "ResetTime")),
            _whole(asked.text("HomePosition", "PresetIndex")),
        )
    elif "PTZPreciseCtrl" in fields:
        pan, tilt, zoom = (
            parse_float(asked.text("PTZPreciseCtrl", axis)) for axis in ("Pan", "Tilt", "Zoom")
        )
        channel.place(asked.now, pan, tilt, zoom)
    elif "DragZoomIn" in fields or "DragZoomOut" in fields:
        _drag_zoom(asked, "DragZoomIn" if "DragZoomIn" in fields else "DragZoomOut")
    elif "FormatSDCard" in fields:
        asked.state.card_free_mb = CARD_MB
    elif "TargetTrack" in fields:
        channel.tracking = asked.text("TargetTrack")
    answers = (_done(asked, "DeviceControl"),) if any(name in fields for name in _WITH_RESULT) else ()
    later = (_upgraded(asked),) if "DeviceUpgrade" in fields else ()
    return answers, later


def _drag_zoom(asked: Asked, way: str) -> None:
    """A.2.3.1.8, A.2.3.1.9: the box fills the window, or the window shrinks into the box."""
    window, box = (parse_float(asked.text(way, name)) for name in ("Length", "LengthX"))
    if not window or not box or window < 0 or box < 0:
        return
    _, _, zoom = asked.channel.position(asked.now)
    asked.channel.place(
        asked.now, None, None, zoom * window / box if way == "DragZoomIn" else zoom * box / window
    )


def _done(asked: Asked, command: str) -> Element:
    """The Result of a control."""
    if Quirk.XML_13_CONTROL in asked.me.quirks:
        return asked.response(command, leaf("Result", "Fail"), leaf("Reason", "设备忙"))
    return asked.result(command)


def _ptz(asked: Asked) -> None:
    if Quirk.CTL_05 in asked.me.quirks:
        return
    try:
        instruction = decode(asked.text("PTZCmd"))
    except GbParseError:
        return  # as a device: a damaged code moves nothing
    name = asked.text("PTZCmdParams", "PresetName") or asked.text("PTZCmdParams", "CruiseTrackName")
    if instruction is not None:
        asked.channel.obey(instruction, asked.now, name=name)


def _upgraded(asked: Asked) -> Later:
    """A.2.5.9: how the upgrade ended."""
    session, firmware = asked.text("DeviceUpgrade", "SessionID"), asked.text("DeviceUpgrade", "Firmware")
    return lambda sn: Element(
        "Notify",
        children=(
            leaf("CmdType", "DeviceUpgradeResult"),
            leaf("SN", sn),
            leaf("DeviceID", asked.target),
            leaf("SessionID", session),
            leaf("UpgradeResult", "OK"),
            leaf("Firmware", firmware),
        ),
    )


# -- configuration -------------------------------------------------------------------------------------------------


def configure(asked: Asked) -> tuple[tuple[Element, ...], tuple[Later, ...]]:
    """Control/DeviceConfig: one Result for the whole message."""
    if Quirk.CTL_08 in asked.me.quirks and asked.target != asked.me.device_id:
        return (), ()
    names = [name for name in configs_of(asked.me.edition) if name in asked.document.fields]
    writable = [name for name in names if name != "VideoParamOpt"]
    if not writable:
        return (asked.result("DeviceConfig", "ERROR"),), ()
    if Quirk.CTL_08_IGNORED not in asked.me.quirks:
        for name in writable:
            element = asked.document.fields[name]
            if name == "BasicParam":
                asked.state.basic.update(
                    (str(child.tag), (child.text or "").strip()) for child in element if child.text
                )
            else:
                asked.channel.configure(name, element)
    return (asked.result("DeviceConfig"),), ()


def snapshot_order(asked: Asked) -> SnapshotOrder | None:
    """What SnapShotConfig of a DeviceConfig asks to be taken; None: nothing."""
    session, url = asked.text("SnapShotConfig", "SessionID"), asked.text("SnapShotConfig", "UploadURL")
    if not session or not url or "SnapShotConfig" not in configs_of(asked.me.edition):
        return None
    return SnapshotOrder(
        channel_id=asked.target,
        count=min(10, max(1, _whole(asked.text("SnapShotConfig", "SnapNum")) or 1)),
        interval_s=float(_whole(asked.text("SnapShotConfig", "Interval")) or 1),
        url=url,
        session=session,
    )


def snapshots_finished(order: SnapshotOrder, files: Sequence[str]) -> Later:
    """A.2.5.7: which pictures were uploaded; none means that all failed."""
    return lambda sn: Element(
        "Notify",
        children=(
            leaf("CmdType", "UploadSnapShotFinished"),
            leaf("SN", sn),
            leaf("DeviceID", order.channel_id),
            leaf("SessionID", order.session),
            group("SnapShotList", *(leaf("SnapShotFileID", name) for name in files)),
        ),
    )


def read_configs(asked: Asked, basic: Element) -> tuple[Element, ...]:
    """Query/ConfigDownload: a response for each type; `basic` is BasicParam as it is now."""
    known = configs_of(asked.me.edition)
    wanted = [name for name in asked.text("ConfigType").split("/") if name in known]
    if not wanted:
        return (asked.result("ConfigDownload", "ERROR"),)
    answers = []
    for name in wanted:
        element = basic if name == "BasicParam" else asked.channel.configs[name]
        if name == "SnapShotConfig":
            element = Element("SnapShot", element.text, element.children)  # as A.2.6.9 prints it
        if Quirk.CTL_09 in asked.me.quirks:
            element = Element(f"{name}Cfg", element.text, element.children, element.attributes)
        answers.append(asked.response("ConfigDownload", leaf("Result", "OK"), element))
    return tuple(answers)


# -- queries of the state ------------------------------------------------------------------------------------------


def tell(asked: Asked) -> tuple[Element, ...]:
    """The answer to a query of the channel's state; empty for a command that is not one."""
    answer = _TELLERS.get(asked.document.cmd_type)
    return () if answer is None else answer(asked)


def _presets(asked: Asked) -> tuple[Element, ...]:
    presets = asked.channel.presets
    total = len(presets)
    if Quirk.CTL_10 in asked.me.quirks:
        presets, total = {number: presets.get(number, f"预置点{number}") for number in range(1, 256)}, 0
    items = [
        group("Item", leaf("PresetID", number), leaf("PresetName", presets[number]))
        for number in sorted(presets)
    ]
    counted = (leaf("SumNum", total),) if asked.me.edition == "3.0" or Quirk.CTL_10 in asked.me.quirks else ()
    return (asked.response("PresetQuery", *counted, group("PresetList", *items, num=len(items))),)


def _home(asked: Asked) -> tuple[Element, ...]:
    enabled, reset, preset = asked.channel.home
    fields = [leaf("Enabled", enabled)]
    if reset is not None:
        fields.append(leaf("ResetTime", reset))
    if preset is not None:
        fields.append(leaf("PresetIndex", preset))
    return (asked.response("HomePositionQuery", group("HomePosition", *fields)),)


def _cruises(asked: Asked) -> tuple[Element, ...]:
    names = asked.channel.cruise_names
    tracks = [
        group("CruiseTrack", leaf("Number", number), leaf("Name", names.get(number, "")))
        for number in sorted(asked.channel.cruises)
    ]
    return (
        asked.response(
            "CruiseTrackListQuery",
            leaf("SumNum", len(tracks)),
            group("CruiseTrackList", *tracks, num=len(tracks)),
        ),
    )


def _cruise(asked: Asked) -> tuple[Element, ...]:
    number = _whole(asked.text("Number")) or 0
    channel = asked.channel
    points = [
        group(
            "CruisePoint",
            leaf("PresetIndex", preset),
            leaf("StayTime", channel.cruise_stay.get(number, 15)),
            leaf("Speed", min(15, max(1, channel.cruise_speed.get(number, 8)))),
        )
        for preset in channel.cruises.get(number, [])
    ]
    return (
        asked.response(
            "CruiseTrackQuery",
            leaf("Number", number),
            leaf("Name", channel.cruise_names.get(number, "")),
            leaf("SumNum", len(points)),
            group("CruisePointList", *points, num=len(points)),
        ),
    )


def _position(asked: Asked) -> tuple[Element, ...]:
    pan, tilt, zoom = asked.channel.position(asked.now)
    return (
        asked.response(
            "PTZPosition", leaf("Pan", f"{pan:.2f}"), leaf("Tilt", f"{tilt:.2f}"), leaf("Zoom", f"{zoom:.2f}")
        ),
    )


def _cards(asked: Asked) -> tuple[Element, ...]:
    card = group(
        "Item",
        leaf("ID", 1),
        leaf("HddName", "SD1"),
        leaf("Status", "ok"),
        leaf("Capacity", CARD_MB),
        leaf("FreeSpace", asked.state.card_free_mb),
    )
    return (asked.response("SDCardStatus", leaf("SumNum", 1), group("SDCardStatusInfo", card, num=1)),)


_TELLERS: dict[str, Callable[[Asked], tuple[Element, ...]]] = {
    "PresetQuery": _presets,
    "HomePositionQuery": _home,
    "CruiseTrackListQuery": _cruises,
    "CruiseTrackQuery": _cruise,
    "PTZPosition": _position,
    "SDCardStatus": _cards,
}


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None
