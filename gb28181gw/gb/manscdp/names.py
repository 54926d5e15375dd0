"""Element names and `CmdType` values of Annex A, for readers that match names without regard to case (XML-10)."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """Names of a table, written with blanks between them."""
    return tuple(text.split())


ROOTS = frozenset({"Control", "Query", "Notify", "Response"})
"""Root elements (A.1)."""

CMD_TYPES = words(
    "Alarm Broadcast Catalog ConfigDownload CruiseTrackListQuery CruiseTrackQuery DeviceConfig DeviceControl "
    "DeviceInfo DeviceStatus DeviceUpgradeResult HomePositionQuery Keepalive MediaStatus MobilePosition "
    "PTZPosition PresetQuery RecordInfo SDCardStatus UploadSnapShotFinished VideoUploadNotify"
)

ITEM_LISTS = frozenset({"DeviceList", "RecordList", "PresetList", "SDCardStatusInfo", "Alarmstatus"})
"""Lists whose members are called `Item`."""

GROUPS = ITEM_LISTS | frozenset(
    words(
        "AlarmTypeParam AudioParam BasicParam CruisePoint CruisePointList CruiseTrack CruiseTrackList DragZoomIn "
        "DragZoomOut HomePosition Info Item OSDConfig PTZCmdParams PTZPreciseCtrl PictureMask ROIParam "
        "RecordSchedule RegionList SVACDecodeConfig SVACEncodeConfig SVCParam SnapShot SnapShotConfig "
        "SnapShotList SurveillanceParam TargetArea TimeSegment VideoAlarmRecord VideoParamAttribute "
        "VideoParamOpt VideoRecordPlan DeviceUpgrade AlarmReport VideoParamConfig AudioParamOpt AudioParamConfig"
    )
)
"""Elements with children."""

ITEM_FIELDS = words(
    "DeviceID Name Manufacturer Model Owner CivilCode Block Address Parental ParentID SafetyWay RegisterWay CertNum "
    "Certifiable ErrCode EndTime SecurityLevelCode Secrecy IPAddress Port Password Status Longitude Latitude "
    "BusinessGroupID"
)
"""Simple members of a catalogue item in writing order (A.2.1.9); removed ones of 2016 in their old places."""

INFO_FIELDS = words(
    "PTZType PositionType PhotoelectricImagingType CapturePositionType RoomType UseType SupplyLightType "
    "DirectionType Resolution BusinessGroupID StreamNumberList DownloadSpeed SVCSpaceSupportMode "
    "SVCTimeSupportMode SSVCRatioSupportList MobileDeviceType HorizontalFieldAngle VerticalFieldAngle "
    "MaxViewDistance GrassrootsCode PointType PointCommonName MAC FunctionType EncodeType InstallTime "
    "ManagementUnit ContactInfo RecordSaveDays IndustrialClassification"
)
"""Members of `Info` in a catalogue item, in writing order."""

LEAVES = frozenset(ITEM_FIELDS + INFO_FIELDS) | frozenset(
    words(
        "CmdType SN Result SumNum Event DeviceName Firmware Channel DeviceType MaxCamera MaxAlarm Online Reason "
        "Encode Record DeviceTime DutyStatus NotifyType SourceID TargetID Time StartTime EndTime FilePath Type "
        "RecorderID FileSize RecordLocation StreamNumber IndistinctQuery AlarmPriority AlarmMethod AlarmTime "
        "AlarmDescription AlarmType EventType StartAlarmPriority EndAlarmPriority StartAlarmTime EndAlarmTime "
        "Interval CaptureTime Speed Direction Altitude Height SessionID SnapShotFileID UpgradeResult "
        "UpgradeFailedReason PresetID PresetName ConfigType Number PresetIndex StayTime Enabled ResetTime Pan "
        "Tilt Zoom ID HddName FormatProgress Capacity FreeSpace PTZCmd TeleBoot RecordCmd GuardCmd AlarmCmd "
        "IFrameCmd IFameCmd ControlPriority Expiration HeartBeatInterval HeartBeatCount FrameMirror "
        "FormatSDCard TargetTrack DeviceID2 EnableBroadcast"
    )
)
LEAVES |= frozenset(
    words(
        "CruiseTrackName Length Width MidPointX MidPointY LengthX LengthY FileURL PositionCapability ROIFlag "
        "ROINumber ROISeq TopLeft BottomRight ROIQP BackGroundQP BackGroundSkipFlag SVCSpaceDomainMode "
        "SVCTimeDomainMode SSVCRatioValue TimeFlag OSDFlag AIFlag GISFlag EventFlag AlertFlag "
        "AudioRecognitionFlag SVCSTMMode TimeShowFlag OSDShowFlag AIShowFlag GISShowFlag EventShowFlag "
        "AlerShowtFlag VideoFormat FrameRate BitRateType VideoBitRate RecordEnable RecordScheduleSumNum "
        "WeekDayNum TimeSegmentSumNum StartHour StartMin StartSec StopHour StopMin StopSec RecordTime "
        "PreRecordTime On Seq Point MotionDetection FieldDetection TimeX TimeY TimeEnable TimeType TextEnable "
        "Text X Y SnapNum UploadURL SIPServerID SIPServerIP SIPServerPort DomainName StreamName VideoFormatOpt "
        "ResolutionOpt FrameRateOpt BitRateTypeOpt VideoBitRateOpt DownloadSpeedOpt AudioFormat AudioBitRate "
        "SamplingRate AudioFormatOpt AudioBitRateOpt SamplingRateOpt"
    )
)
"""Members of controls and configurations."""
"""Elements that hold text only."""

CANONICAL = {name.lower(): name for name in (*ROOTS, *GROUPS, *LEAVES, "ExtraInfo")}
"""Lower case to the name as the standard writes it."""

KNOWN = frozenset(CANONICAL.values())
"""Every name of an element that is known here."""

CANONICAL_CMD = {name.lower(): name for name in CMD_TYPES}


def local_name(tag: str) -> str:
    """The standard's spelling of a tag as a peer wrote it: without namespace or prefix, known names in their
    own case; an unknown name stays as it is."""
    tag = tag.rpartition("}" if tag.startswith("{") else ":")[2] or tag
    return CANONICAL.get(tag.lower(), tag)
