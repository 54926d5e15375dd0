"""What a simulated device remembers: a preset that is set is listed, a configuration that is written is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from gb28181gw.gb.manscdp.document import Element as Parsed
from gb28181gw.gb.ptz import Action, Instruction, Lens, Move, Operation
from gb28181gw.sim.bodies import Element, leaf

DEGREES_A_SECOND = 60.0
"""At full speed."""
ZOOMS_A_SECOND = 5.0
CONFIGS_2016 = ("BasicParam", "VideoParamOpt", "SVACEncodeConfig", "SVACDecodeConfig")
CONFIGS_2014 = (*CONFIGS_2016, "VideoParamConfig", "AudioParamOpt", "AudioParamConfig")
CONFIGS_2022 = (
    *CONFIGS_2016,
    "VideoParamAttribute",
    "VideoRecordPlan",
    "VideoAlarmRecord",
    "PictureMask",
    "FrameMirror",
    "AlarmReport",
    "OSDConfig",
    "SnapShotConfig",
)


def configs_of(edition: str) -> tuple[str, ...]:
    """Configuration types that a device of this edition has (A.2.3.2, A.2.4.7)."""
    by_edition = {"1.0": (), "1.1": CONFIGS_2014, "2.0": CONFIGS_2016, "3.0": CONFIGS_2022}
    return by_edition[edition]


def group(name: str, *children: Element, num: int | None = None) -> Element:
    """An element with children; `num` is the attribute of lists."""
    return Element(name, children=children, attributes=() if num is None else (("Num", str(num)),))


def _leaves(name: str, **values: object) -> Element:
    return group(name, *(leaf(key, value) for key, value in values.items()))


_DEFAULTS = (
    group(
        "VideoParamConfig",
        _leaves(
            "Item",
            StreamName="Stream1",
            VideoFormat=2,
            Resolution=5,
            FrameRate=25,
            BitRateType=1,
            VideoBitRate=2048,
        ),
        num=1,
    ),
    _leaves("AudioParamOpt", AudioFormatOpt="1/2", AudioBitRateOpt="1/5", SamplingRateOpt="1"),
    group(
        "AudioParamConfig",
        _leaves("Item", StreamName="Stream1", AudioFormat=1, AudioBitRate=5, SamplingRate=1),
        num=1,
    ),
    _leaves("VideoParamOpt", DownloadSpeed="1/2/4", Resolution="5/6"),
    group("SVACEncodeConfig", _leaves("ROIParam", ROIFlag=0, ROINumber=0)),
    group("SVACDecodeConfig", _leaves("SVCParam", SVCSTMMode=0, SVCSpaceSupportMode=0, SVCTimeSupportMode=0)),
    group(
        "VideoParamAttribute",
        _leaves(
            "Item",
            StreamNumber=0,
            VideoFormat=2,
            Resolution=6,
            FrameRate=25,
            BitRateType=1,
            VideoBitRate=4096,
        ),
        num=1,
    ),
    _leaves("VideoRecordPlan", RecordEnable=0, RecordScheduleSumNum=0, StreamNumber=0),
    _leaves("VideoAlarmRecord", RecordEnable=0, RecordTime=30, PreRecordTime=5, StreamNumber=0),
    _leaves("PictureMask", On=0, SumNum=0),
    leaf("FrameMirror", 0),
    _leaves("AlarmReport", MotionDetection=0, FieldDetection=0),
    _leaves(
        "OSDConfig",
        Length=1920,
        Width=1080,
        TimeX=16,
        TimeY=16,
        TimeEnable=1,
        TimeType=0,
        TextEnable=1,
        SumNum=0,
    ),
    _leaves("SnapShotConfig", SnapNum=1, Interval=1, UploadURL="", SessionID=""),
)


@dataclass(slots=True)
class ChannelState:
    """One camera."""

    presets: dict[int, str] = field(default_factory=lambda: {1: "Gate"})
    pan: float = 0.0
    """0-360."""
    tilt: float = 0.0
    """-30 to 90, 90 is down."""
    zoom: float = 1.0
    motion: Move = field(default_factory=Move)
    since: float = 0.0
    """When `motion` began."""
    lens: Lens = field(default_factory=Lens)
    switches: set[int] = field(default_factory=set)
    cruises: dict[int, list[int]] = field(default_factory=lambda: {0: [1]})
    cruise_names: dict[int, str] = field(default_factory=lambda: {0: "Night"})
    cruise_speed: dict[int, int] = field(default_factory=dict)
    cruise_stay: dict[int, int] = field(default_factory=dict)
    running: str = ""
    """Cruise or scan that runs: ``cruise 1``, ``scan 1``; empty: none."""
    home: tuple[int, int | None, int | None] = (0, None, None)
    """Enabled, ResetTime, PresetIndex."""
    recording: bool = False
    guarded: bool = False
    alarmed: bool = False
    tracking: str = "Stop"
    configs: dict[str, Element] = field(default_factory=lambda: {tree.name: tree for tree in _DEFAULTS})

    def _settle(self, now: float) -> None:
        """Account for the motion until now."""
        passed = max(0.0, now - self.since)
        self.pan = (self.pan + self.motion.pan / 255 * DEGREES_A_SECOND * passed) % 360
        self.tilt = min(90.0, max(-30.0, self.tilt - self.motion.tilt / 255 * DEGREES_A_SECOND * passed))
        self.zoom = min(30.0, max(1.0, self.zoom + self.motion.zoom / 15 * ZOOMS_A_SECOND * passed))
        self.since = now

    def position(self, now: float) -> tuple[float, float, float]:
        """Pan, tilt and zoom."""
        self._settle(now)
        return self.pan, self.tilt, self.zoom

    def place(self, now: float, pan: float | None, tilt: float | None, zoom: float | None) -> None:
        """Move at once to a position (PTZPreciseCtrl)."""
        self._settle(now)
        self.motion = Move()
        if pan is not None:
            self.pan = pan % 360
        if tilt is not None:
            self.tilt = min(90.0, max(-30.0, tilt))
        if zoom is not None:
            self.zoom = min(30.0, max(1.0, zoom))

    def obey(self, instruction: Instruction, now: float, *, name: str = "") -> None:
        """A PTZ code; `name` is the PresetName or CruiseTrackName beside it."""
        if isinstance(instruction, Move):
            self._settle(now)
            self.motion = instruction
            if instruction.is_stop:
                self.running = ""
        elif isinstance(instruction, Lens):
            self.lens = instruction
        else:
            self._operate(instruction, now, name)

    def _operate(self, operation: Operation, now: float, name: str) -> None:
        number, group_number = operation.preset, operation.group
        match operation.action:
            case Action.PRESET_SET:
                self.presets[number] = name or f"Preset {number}"
            case Action.PRESET_GOTO:
                if number in self.presets:
                    self.place(now, number * 1.0, 10.0, 2.0)
            case Action.PRESET_DELETE:
                self.presets.pop(number, None)
            case Action.CRUISE_ADD:
                self.cruises.setdefault(group_number, []).append(number)
                self.cruise_names.setdefault(group_number, name or f"Cruise {group_number}")
            case Action.CRUISE_REMOVE:
                points = self.cruises.get(group_number, [])
                self.cruises[group_number] = [point for point in points if point != number]
            case Action.CRUISE_DELETE:
                self.cruises.pop(group_number, None)
                self.cruise_names.pop(group_number, None)
            case Action.CRUISE_SPEED:
                self.cruise_speed[group_number] = operation.value
            case Action.CRUISE_STAY:
                self.cruise_stay[group_number] = operation.value
            case Action.CRUISE_START:
                self.running = f"cruise {group_number}"
            case Action.SCAN_START:
                self.running = f"scan {group_number}"
            case Action.AUX_ON:
                self.switches.add(operation.switch)
            case Action.AUX_OFF:
                self.switches.discard(operation.switch)
            case Action.SCAN_LEFT | Action.SCAN_RIGHT | Action.SCAN_SPEED:
                pass  # nothing that could be asked back

    def configure(self, name: str, parsed: Parsed) -> None:
        """A configuration is replaced by what was written; of what was left out the old value stays."""
        written = copy_of(parsed)
        old = self.configs.get(name)
        if old is None or not old.children or any(child.children for child in written.children):
            self.configs[name] = written
            return
        given = {child.name: child for child in written.children}
        kept = tuple(given.pop(child.name, child) for child in old.children)
        self.configs[name] = Element(name, children=(*kept, *given.values()), attributes=written.attributes)


def copy_of(parsed: Parsed) -> Element:
    """A parsed element as one that can be written."""
    return Element(
        str(parsed.tag),
        "" if len(parsed) else (parsed.text or "").strip(),
        tuple(copy_of(child) for child in parsed),
        tuple((str(key), str(value)) for key, value in parsed.attrib.items()),
    )


@dataclass(slots=True)
class DeviceState:
    """The device and its channels, made when they are first spoken to."""

    channels: dict[str, ChannelState] = field(default_factory=dict)
    basic: dict[str, str] = field(default_factory=dict)
    """Members of BasicParam that were written."""
    card_free_mb: int = 32_768
    rebooted: int = 0

    def of(self, channel_id: str) -> ChannelState:
        return self.channels.setdefault(channel_id, ChannelState())
