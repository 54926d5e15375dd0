"""DeviceInfo and DeviceStatus (GB/T 28181-2022 A.2.4.2, A.2.4.4, A.2.6.5, A.2.6.6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.manscdp.document import Document, parse_int, result_ok
from gb28181gw.gb.manscdp.names import words
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.times import is_canonical_time

MAX_TEXT = 255
MAX_EXTRA = 16
MAX_ALARM_STATES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfoQuery:
    """Query/DeviceInfo."""

    sn: int | None
    device_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfoResponse:
    """Response/DeviceInfo."""

    sn: int | None
    device_id: str
    ok: bool = True
    result: str = "OK"
    """`Result` as sent; absent reads as OK (XML-13)."""
    name: str = ""
    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    channel_count: int | None = None
    """Video inputs, as the device says (`Channel`; `MaxCamera` of 2011)."""
    extra: tuple[tuple[str, str], ...] = ()
    """Other elements with text, at most 16."""
    quirks: tuple[Quirk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatusQuery:
    """Query/DeviceStatus."""

    sn: int | None
    device_id: str


class Duty(StrEnum):
    """`DutyStatus` of an alarm device: armed, disarmed, in alarm."""

    ONDUTY = "ONDUTY"
    OFFDUTY = "OFFDUTY"
    ALARM = "ALARM"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatusResponse:
    """Response/DeviceStatus."""

    sn: int | None
    device_id: str
    ok: bool = True
    result: str = "OK"
    online: bool | None = None
    """None when not told."""
    status: str = ""
    """``OK`` or ``ERROR``: works normally or not."""
    reason: str = ""
    encode: str = ""
    """``ON``/``OFF``."""
    record: str = ""
    """``ON``/``OFF``."""
    device_time: str = ""
    """As sent: `times.parse_time` with the device's zone reads it."""
    alarm_states: tuple[tuple[str, Duty], ...] = ()
    """Alarm device id and its duty state."""
    quirks: tuple[Quirk, ...] = ()


_INFO_KNOWN = frozenset(
    words("CmdType SN DeviceID DeviceName Result Manufacturer Model Firmware Channel MaxCamera")
)


def read_device_info_query(document: Document) -> DeviceInfoQuery:
    return DeviceInfoQuery(sn=document.sn, device_id=document.device_id)


def read_device_info_response(document: Document) -> DeviceInfoResponse:
    quirks = dict.fromkeys(document.quirks)
    extra = [
        (name[:64], document.text(name)[:MAX_TEXT])
        for name in document.fields
        if name not in _INFO_KNOWN and document.text(name)
    ]
    channels = document.text("Channel") or document.text("MaxCamera")
    count = parse_int(channels)
    result = _result(document, quirks)
    return DeviceInfoResponse(
        sn=document.sn,
        device_id=document.device_id,
        ok=result_ok(result),
        result=result,
        name=document.text("DeviceName")[:MAX_TEXT],
        manufacturer=_known(document, "Manufacturer", quirks),
        model=_known(document, "Model", quirks),
        firmware=_known(document, "Firmware", quirks),
        channel_count=count if count is not None and 0 <= count <= 1_000_000 else None,
        extra=tuple(extra[:MAX_EXTRA]),
        quirks=tuple(quirks),
    )


def read_device_status_query(document: Document) -> DeviceStatusQuery:
    return DeviceStatusQuery(sn=document.sn, device_id=document.device_id)


def read_device_status_response(document: Document) -> DeviceStatusResponse:
    quirks = dict.fromkeys(document.quirks)
    states: list[tuple[str, Duty]] = []
    for item in document.items("Alarmstatus"):
        # 2011 calls the member Status
        device_id = (item.findtext("DeviceID") or "").strip()
        duty = (item.findtext("DutyStatus") or item.findtext("Status") or "").strip().upper()
        if device_id and duty in Duty.__members__ and len(states) < MAX_ALARM_STATES:
            states.append((device_id[:64], Duty(duty)))
    device_time = document.text("DeviceTime")[:64]
    if device_time and not is_canonical_time(device_time):
        quirks[Quirk.TIME_FORM] = None
    online = document.text("Online").upper()
    result = _result(document, quirks)
    return DeviceStatusResponse(
        sn=document.sn,
        device_id=document.device_id,
        ok=result_ok(result),
        result=result,
        online={"ONLINE": True, "ON": True, "OFFLINE": False, "OFF": False}.get(online),
        status=document.text("Status")[:32],
        reason=document.text("Reason")[:MAX_TEXT],
        encode=document.text("Encode").upper()[:16],
        record=document.text("Record").upper()[:16],
        device_time=device_time,
        alarm_states=tuple(states),
        quirks=tuple(quirks),
    )


def _known(document: Document, name: str, quirks: dict[Quirk, None]) -> str:
    """A text that is not merely the name of its element (CAT-11)."""
    text = document.text(name)
    if text.lower() == name.lower():
        quirks[Quirk.CATALOG_PLACEHOLDER] = None
        return ""
    return text[:MAX_TEXT]


def _result(document: Document, quirks: dict[Quirk, None]) -> str:
    text = document.text("Result")
    if text not in {"OK", "ERROR"}:
        quirks[Quirk.XML_RESULT_TEXT] = None
    return text[:MAX_TEXT] or "OK"


def write_device_info_query(message: DeviceInfoQuery, charset: Charset) -> bytes:
    return Writer("Query", "DeviceInfo", message.sn, message.device_id).finish(charset)


def write_device_info_response(message: DeviceInfoResponse, charset: Charset) -> bytes:
    writer = Writer("Response", "DeviceInfo", message.sn, message.device_id)
    writer.optional("DeviceName", message.name)
    writer.leaf("Result", "OK" if message.ok else "ERROR")
    writer.optional("Manufacturer", message.manufacturer)
    writer.optional("Model", message.model)
    writer.optional("Firmware", message.firmware)
    writer.optional("Channel", message.channel_count)
    return writer.finish(charset)


def write_device_status_query(message: DeviceStatusQuery, charset: Charset) -> bytes:
    return Writer("Query", "DeviceStatus", message.sn, message.device_id).finish(charset)


def write_device_status_response(message: DeviceStatusResponse, charset: Charset) -> bytes:
    writer = Writer("Response", "DeviceStatus", message.sn, message.device_id)
    writer.leaf("Result", "OK" if message.ok else "ERROR")
    writer.leaf("Online", "OFFLINE" if message.online is False else "ONLINE")
    writer.leaf("Status", message.status or "OK")
    writer.optional("Reason", message.reason)
    writer.optional("Encode", message.encode)
    writer.optional("Record", message.record)
    writer.optional("DeviceTime", message.device_time)
    if message.alarm_states:
        with writer.group("Alarmstatus", len(message.alarm_states)):
            for device_id, duty in message.alarm_states:
                with writer.group("Item"):
                    writer.leaf("DeviceID", device_id)
                    writer.leaf("DutyStatus", duty.value)
    return writer.finish(charset)
