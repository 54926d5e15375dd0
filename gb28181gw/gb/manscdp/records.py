"""RecordInfo (GB/T 28181-2022 A.2.4.5, A.2.6.7): which recordings there are of a channel."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.gb.manscdp.document import Document, Element, parse_int
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.times import BEIJING, format_time, is_canonical_time, parse_time

MAX_ITEMS: Final = 10_000
"""Of one message (Annex M)."""
KINDS: Final = ("all", "time", "alarm", "manual")
_NUMBERED = {"0": "all", "1": "manual", "2": "alarm", "3": "time"}
"""The numbers of `u=` (Annex G), which some devices use here (PB-18)."""
_MAX_TEXT: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordInfoQuery:
    """Query/RecordInfo."""

    sn: int | None
    device_id: str
    start: datetime | None
    """Aware; None in a query that cannot be read."""
    end: datetime | None
    kind: str = "all"
    """`Type`, one of `KINDS`; always written (PB-03)."""
    secrecy: int = 0
    fuzzy: bool = False
    """`IndistinctQuery`: recordings of the centre and of the front end; else the To id says which."""
    file_path: str = ""
    address: str = ""
    recorder_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One recording."""

    device_id: str
    name: str = ""
    start: datetime | None = None
    """Aware; None when it was not told."""
    end: datetime | None = None
    kind: str = ""
    """``time``, ``alarm``, ``manual``, or what the device says."""
    secrecy: int = 0
    size: int | None = None
    """Bytes."""
    file_path: str = ""
    address: str = ""
    recorder_id: str = ""
    location: str = ""
    """`RecordLocation`: who keeps it, told in answers to a fuzzy query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordInfoResponse:
    """Response/RecordInfo, one part of it."""

    sn: int | None
    device_id: str
    name: str = ""
    total: int | None = None
    """`SumNum`: of all parts together."""
    records: tuple[Record, ...] = ()
    quirks: tuple[Quirk, ...] = ()


def read_record_info_query(document: Document, zone: timezone = BEIJING) -> RecordInfoQuery:
    """`zone` is that of the sender, for times without one."""
    kind = document.text("Type").lower()
    return RecordInfoQuery(
        sn=document.sn,
        device_id=document.device_id,
        start=parse_time(document.text("StartTime"), zone),
        end=parse_time(document.text("EndTime"), zone),
        kind=kind if kind in KINDS else _NUMBERED.get(kind, "all"),
        secrecy=parse_int(document.text("Secrecy")) or 0,
        fuzzy=document.text("IndistinctQuery") == "1",
        file_path=document.text("FilePath")[:_MAX_TEXT],
        address=document.text("Address")[:_MAX_TEXT],
        recorder_id=document.text("RecorderID")[:_MAX_TEXT],
    )


def read_record_info_response(document: Document, zone: timezone = BEIJING) -> RecordInfoResponse:
    """`zone` is that of the device, for times without one (PB-01)."""
    quirks = dict.fromkeys(document.quirks)
    records: list[Record] = []
    for item in document.items("RecordList"):
        if len(records) >= MAX_ITEMS:
            break
        records.append(_read(item, document.device_id, zone, quirks))
    total = parse_int(document.text("SumNum"))
    return RecordInfoResponse(
        sn=document.sn,
        device_id=document.device_id,
        name=document.text("Name")[:_MAX_TEXT],
        total=total if total is None or total >= 0 else None,
        records=tuple(records),
        quirks=tuple(quirks),
    )


def _read(item: Element, device_id: str, zone: timezone, quirks: dict[Quirk, None]) -> Record:
    def text(name: str) -> str:
        return (item.findtext(name) or "").strip()[:_MAX_TEXT]

    def moment(name: str) -> datetime | None:
        value = text(name)
        if value and not is_canonical_time(value):
            quirks[Quirk.TIME_FORM] = None
        return parse_time(value, zone) if value else None

    kind = text("Type").lower()
    secrecy = item.findtext("Secrecy") or ""
    if kind in _NUMBERED or secrecy != secrecy.strip():
        quirks[Quirk.RECORD_FORM] = None
    return Record(
        device_id=text("DeviceID") or device_id,
        name=text("Name"),
        start=moment("StartTime"),
        end=moment("EndTime"),
        kind=_NUMBERED.get(kind, kind),
        secrecy=parse_int(secrecy) or 0,
        size=parse_int(text("FileSize")),
        file_path=text("FilePath"),
        address=text("Address"),
        recorder_id=text("RecorderID"),
        location=text("RecordLocation"),
    )


def write_record_info_query(
    message: RecordInfoQuery, charset: Charset, edition: Edition, zone: timezone = BEIJING
) -> bytes:
    """Raises `GbLocalError` without a span of time."""
    if message.start is None or message.end is None:
        raise GbLocalError("a search for recordings needs StartTime and EndTime")
    writer = Writer("Query", "RecordInfo", message.sn, message.device_id)
    writer.leaf("StartTime", format_time(message.start.timestamp(), zone))
    writer.leaf("EndTime", format_time(message.end.timestamp(), zone))
    writer.optional("FilePath", message.file_path)
    writer.optional("Address", message.address)
    writer.leaf("Secrecy", str(message.secrecy))
    writer.leaf("Type", message.kind)
    writer.optional("RecorderID", message.recorder_id)
    if message.fuzzy and edition >= Edition.V1_1:
        writer.leaf("IndistinctQuery", "1")
    return writer.finish(charset)


def write_record_info_response(
    message: RecordInfoResponse, charset: Charset, zone: timezone = BEIJING
) -> bytes:
    """Without records there is no list, only `SumNum` 0 (Annex M)."""
    writer = Writer("Response", "RecordInfo", message.sn, message.device_id)
    writer.leaf("Name", message.name)
    writer.leaf("SumNum", str(len(message.records) if message.total is None else message.total))
    if message.records:
        with writer.group("RecordList", len(message.records)):
            for record in message.records:
                with writer.group("Item"):
                    _write(writer, record, zone)
    return writer.finish(charset)


def _write(writer: Writer, record: Record, zone: timezone) -> None:
    writer.leaf("DeviceID", record.device_id)
    writer.leaf("Name", record.name)
    writer.optional("FilePath", record.file_path)
    writer.optional("Address", record.address)
    if record.start is not None:
        writer.leaf("StartTime", format_time(record.start.timestamp(), zone))
    if record.end is not None:
        writer.leaf("EndTime", format_time(record.end.timestamp(), zone))
    writer.leaf("Secrecy", str(record.secrecy))
    writer.optional("Type", record.kind)
    writer.optional("RecorderID", record.recorder_id)
    writer.optional("FileSize", str(record.size) if record.size is not None else None)
    writer.optional("RecordLocation", record.location)
