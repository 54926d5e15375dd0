"""The configuration types of `DeviceConfig` and `ConfigDownload` (GB/T 28181-2022 A.2.1.12 to A.2.1.24, A.2.3.2)."""

from __future__ import annotations

from typing import Final

from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.schema import Group, Leaf, Node, group, identity, real, text, whole

_1_1, _3 = Edition.V1_1, Edition.V3_0
SESSION: Final = r"[A-Za-z0-9-]{32,128}"
"""A `SessionID` (A.2.1.24)."""


def _flag(name: str, **more: object) -> Leaf:
    return whole(name, 0, 1, **more)


def _mode(name: str, **more: object) -> Leaf:
    return whole(name, 0, 3, **more)


BASIC_PARAM = group(
    "BasicParam",
    text("Name"),
    identity("DeviceID", until=_1_1),
    identity("SIPServerID", until=_1_1),
    text("SIPServerIP", 64, until=_1_1),
    whole("SIPServerPort", 1, 65_535, until=_1_1),
    text("DomainName", 64, until=_1_1),
    whole("Expiration", meaning="Seconds."),
    whole("HeartBeatInterval", 1, meaning="Seconds."),
    whole("HeartBeatCount", 1),
    text("Password", 64, until=_1_1),
    whole("PositionCapability", 0, 2, answer_only=True, meaning="0 none, 1 GPS, 2 BeiDou (2016)."),
    real("Longitude", answer_only=True),
    real("Latitude", answer_only=True),
    since=Edition.V1_1,
)
VIDEO_PARAM_OPT = group(
    "VideoParamOpt",
    text("DownloadSpeed"),
    text("Resolution"),
    *(
        text(name, until=_1_1)
        for name in (
            "VideoFormatOpt",
            "ResolutionOpt",
            "FrameRateOpt",
            "BitRateTypeOpt",
            "VideoBitRateOpt",
            "DownloadSpeedOpt",
        )
    ),
    since=Edition.V1_1,
    answer_only=True,
)


def _streams(name: str, *members: Leaf) -> Group:
    """A configuration of 2014: one Item for each stream, known by its name."""
    item = group("Item", text("StreamName", required=True), *members, many=True, most=16)
    return group(name, item, num=True, since=_1_1, until=_1_1)


VIDEO_PARAM_CONFIG = _streams(
    "VideoParamConfig",
    text("VideoFormat"),
    text("Resolution"),
    text("FrameRate"),
    text("BitRateType", meaning="1 constant, 2 variable."),
    text("VideoBitRate"),
)
AUDIO_PARAM_OPT = group(
    "AudioParamOpt",
    text("AudioFormatOpt"),
    text("AudioBitRateOpt"),
    text("SamplingRateOpt"),
    since=_1_1,
    until=_1_1,
)
AUDIO_PARAM_CONFIG = _streams(
    "AudioParamConfig", text("AudioFormat"), text("AudioBitRate"), text("SamplingRate")
)
_ROI = group(
    "ROIParam",
    _flag("ROIFlag"),
    whole("ROINumber", 0, 16),
    group(
        "Item",
        whole("ROISeq", 1, 16),
        whole("TopLeft"),
        whole("BottomRight"),
        _mode("ROIQP"),
        many=True,
        most=16,
    ),
    _mode("BackGroundQP", until=Edition.V2_0),
    _flag("BackGroundSkipFlag", until=Edition.V2_0),
)
SVAC_ENCODE = group(
    "SVACEncodeConfig",
    _ROI,
    group(
        "SVCParam",
        _mode("SVCSpaceDomainMode"),
        _mode("SVCTimeDomainMode"),
        text("SSVCRatioValue"),
        _mode("SVCSpaceSupportMode", answer_only=True),
        _mode("SVCTimeSupportMode", answer_only=True),
        text("SSVCRatioSupportList", answer_only=True),
        since=_3,
    ),
    group(
        "SurveillanceParam",
        _flag("TimeFlag"),
        _flag("OSDFlag"),
        _flag("AIFlag"),
        _flag("GISFlag"),
        _flag("EventFlag"),
        _flag("AlertFlag"),
        answer_only=True,
    ),
    group("AudioParam", _flag("AudioRecognitionFlag")),
    since=Edition.V1_1,
)
SVAC_DECODE = group(
    "SVACDecodeConfig",
    group(
        "SVCParam",
        _mode("SVCSTMMode"),
        _mode("SVCSpaceSupportMode", answer_only=True),
        _mode("SVCTimeSupportMode", answer_only=True),
    ),
    group(
        "SurveillanceParam",
        _flag("TimeShowFlag"),
        _flag("OSDShowFlag", since=_3),
        _flag("AIShowFlag", since=_3),
        _flag("GISShowFlag", since=_3),
        _flag("EventShowFlag", until=Edition.V2_0),
        _flag("AlerShowtFlag", until=Edition.V2_0, meaning="So misprinted in 2016."),
    ),
    since=Edition.V1_1,
)
VIDEO_PARAM_ATTRIBUTE = group(
    "VideoParamAttribute",
    group(
        "Item",
        whole("StreamNumber", required=True, meaning="0 main, 1 sub 1, …"),
        text("VideoFormat", required=True),
        text("Resolution", required=True),
        text("FrameRate", required=True),
        text("BitRateType", required=True, meaning="1 constant, 2 variable."),
        text("VideoBitRate", meaning="With a constant bit rate."),
        many=True,
        most=16,
    ),
    num=True,
    since=_3,
)
VIDEO_RECORD_PLAN = group(
    "VideoRecordPlan",
    _flag("RecordEnable", required=True),
    whole("RecordScheduleSumNum", 0, 7, required=True, count_of="RecordSchedule"),
    group(
        "RecordSchedule",
        whole("WeekDayNum", 1, 7, required=True, meaning="1 Monday … 7 Sunday."),
        whole("TimeSegmentSumNum", 0, 8, required=True, count_of="TimeSegment"),
        group(
            "TimeSegment",
            whole("StartHour", 0, 23, required=True),
            whole("StartMin", 0, 59, required=True),
            whole("StartSec", 0, 59, required=True),
            whole("StopHour", 0, 23, required=True),
            whole("StopMin", 0, 59, required=True),
            whole("StopSec", 0, 59, required=True),
            many=True,
            most=8,
        ),
        many=True,
        most=7,
    ),
    whole("StreamNumber", required=True),
    since=_3,
)
VIDEO_ALARM_RECORD = group(
    "VideoAlarmRecord",
    _flag("RecordEnable", required=True),
    whole("RecordTime", meaning="Seconds after the alarm."),
    whole("PreRecordTime", meaning="Seconds before it."),
    whole("StreamNumber", required=True),
    since=_3,
)
PICTURE_MASK = group(
    "PictureMask",
    _flag("On", required=True),
    whole("SumNum", 0, 4, required=True, count_of="RegionList.Item"),
    group(
        "RegionList",
        group(
            "Item",
            whole("Seq", 1, 4, required=True),
            text("Point", pattern=r"\d+,\d+,\d+,\d+", required=True, meaning="lx,ly,rx,ry in pixels."),
            many=True,
            most=4,
        ),
        num=True,
    ),
    since=_3,
)
FRAME_MIRROR = whole("FrameMirror", 0, 3, since=_3, meaning="0 off, 1 left-right, 2 up-down, 3 both.")
ALARM_REPORT = group(
    "AlarmReport", _flag("MotionDetection", required=True), _flag("FieldDetection", required=True), since=_3
)
OSD_CONFIG = group(
    "OSDConfig",
    whole("Length", required=True),
    whole("Width", required=True),
    whole("TimeX", required=True),
    whole("TimeY", required=True),
    _flag("TimeEnable"),
    _flag("TimeType"),
    _flag("TextEnable"),
    whole("SumNum", 0, 8, required=True, count_of="Item"),
    group(
        "Item",
        text("Text", 32, required=True),
        whole("X", required=True),
        whole("Y", required=True),
        many=True,
        most=8,
    ),
    since=_3,
)
SNAPSHOT_CONFIG = group(
    "SnapShotConfig",
    whole("SnapNum", 1, 10, required=True),
    whole("Interval", 1, required=True, meaning="Seconds."),
    text("UploadURL", 1024, required=True),
    text("SessionID", 128, pattern=SESSION, required=True),
    since=_3,
    aliases=("SnapShot",),
)

CONFIGS: Final[tuple[Node, ...]] = (
    BASIC_PARAM,
    VIDEO_PARAM_OPT,
    VIDEO_PARAM_CONFIG,
    AUDIO_PARAM_OPT,
    AUDIO_PARAM_CONFIG,
    SVAC_ENCODE,
    SVAC_DECODE,
    VIDEO_PARAM_ATTRIBUTE,
    VIDEO_RECORD_PLAN,
    VIDEO_ALARM_RECORD,
    PICTURE_MASK,
    FRAME_MIRROR,
    ALARM_REPORT,
    OSD_CONFIG,
    SNAPSHOT_CONFIG,
)
"""All that can be read, in the order of A.2.3.2 (the three of 2014 alone before SVAC, as in its text); those that
are `answer_only` cannot be written."""

CONFIG_EDITIONS: Final = {node.name: (node.since, node.until) for node in CONFIGS}
"""First and last edition of each type."""
CONFIG_TYPES: Final = tuple(CONFIG_EDITIONS)


def config_known(name: str, edition: Edition) -> bool:
    """Whether an edition has a configuration type."""
    since, until = CONFIG_EDITIONS[name]
    return since <= edition <= until
