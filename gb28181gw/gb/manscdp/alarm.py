"""Alarm (GB/T 28181-2022 A.2.5.3, A.2.6.3): a device tells that something happened."""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.document import Document, parse_float, parse_int
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.times import is_canonical_time

MAX_TEXT = 255
MAX_EXTRA = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmNotify:
    """Notify/Alarm."""

    sn: int | None
    device_id: str
    """What raised it: an alarm input, a camera, or the device."""
    priority: int | None = None
    """1 is the highest, 4 the lowest."""
    method: int | None = None
    """1 telephone, 2 device, 3 SMS, 4 GPS, 5 video, 6 device fault, 7 other."""
    time: str = ""
    """As sent: `times.parse_time` with the device's zone reads it."""
    description: str = ""
    longitude: float | None = None
    latitude: float | None = None
    type: str = ""
    """`AlarmType`: what the method means by it."""
    event_type: str = ""
    """Of an intrusion: 1 entered, 2 left."""
    extra: tuple[str, ...] = ()
    quirks: tuple[Quirk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmResponse:
    """Response/Alarm: it was heard."""

    sn: int | None
    device_id: str
    ok: bool = True


def read_alarm_notify(document: Document) -> AlarmNotify:
    """`AlarmType` is a member of `Info`; some devices put it beside."""
    quirks = dict.fromkeys(document.quirks)
    info = document.fields.get("Info")

    def inner(path: str, beside: str) -> str:
        found = (info.findtext(path) or "").strip() if info is not None else ""
        return (found or document.text(beside))[:MAX_TEXT]

    params = document.fields.get("AlarmTypeParam")
    event_type = inner("AlarmTypeParam/EventType", "EventType")
    if not event_type and params is not None:
        event_type = (params.findtext("EventType") or "").strip()[:MAX_TEXT]
    when = document.text("AlarmTime")[:64]
    if when and not is_canonical_time(when):
        quirks[Quirk.TIME_FORM] = None
    extra = [(child.text or "").strip()[:1024] for child in document.element if child.tag == "ExtraInfo"]
    longitude, latitude = place(document.text("Longitude"), document.text("Latitude"))
    return AlarmNotify(
        sn=document.sn,
        device_id=document.device_id,
        priority=_within(document.text("AlarmPriority"), 1, 4),
        method=_within(document.text("AlarmMethod"), 1, 7),
        time=when,
        description=document.text("AlarmDescription")[:MAX_TEXT],
        longitude=longitude,
        latitude=latitude,
        type=inner("AlarmType", "AlarmType"),
        event_type=event_type,
        extra=tuple(text for text in extra[:MAX_EXTRA] if text),
        quirks=tuple(quirks),
    )


def place(longitude: str, latitude: str) -> tuple[float | None, float | None]:
    """Both coordinates, or none of them: 0/0 and what is not on earth is no place (CTL-04)."""
    east, north = parse_float(longitude), parse_float(latitude)
    if east is None or north is None or (east == 0 and north == 0) or abs(east) > 180 or abs(north) > 90:
        return None, None
    return east, north


def _within(text: str, low: int, high: int) -> int | None:
    value = parse_int(text)
    return value if value is not None and low <= value <= high else None


def write_alarm_notify(message: AlarmNotify, charset: Charset, edition: Edition) -> bytes:
    writer = Writer("Notify", "Alarm", message.sn, message.device_id)
    writer.leaf("AlarmPriority", str(message.priority or 4))
    writer.leaf("AlarmMethod", str(message.method or 7))
    writer.leaf("AlarmTime", message.time)
    writer.optional("AlarmDescription", message.description)
    writer.optional("Longitude", message.longitude)
    writer.optional("Latitude", message.latitude)
    if message.type:
        with writer.group("Info"):
            writer.leaf("AlarmType", message.type)
            if message.event_type:
                with writer.group("AlarmTypeParam"):
                    writer.leaf("EventType", message.event_type)
    for text in message.extra if edition >= Edition.V3_0 else ():
        writer.leaf("ExtraInfo", text)
    return writer.finish(charset)


def read_alarm_response(document: Document) -> AlarmResponse:
    return AlarmResponse(
        sn=document.sn, device_id=document.device_id, ok=document.text("Result").upper() in {"", "OK"}
    )


def write_alarm_response(message: AlarmResponse, charset: Charset) -> bytes:
    writer = Writer("Response", "Alarm", message.sn, message.device_id)
    writer.leaf("Result", "OK" if message.ok else "ERROR")
    return writer.finish(charset)
