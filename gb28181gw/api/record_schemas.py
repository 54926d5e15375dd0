"""The JSON of recordings on devices."""

from __future__ import annotations

from datetime import datetime, tzinfo

from pydantic import Field

from gb28181gw.api.schemas import Answer, Page, iso_time
from gb28181gw.devices.records import RecordList
from gb28181gw.gb.manscdp.records import Record


class RecordAnswer(Answer):
    """One recording."""

    start: str | None
    end: str | None
    name: str
    type: str = Field(description="time, alarm, manual, or what the device says.")
    size: int | None = Field(description="Bytes; null: the device does not tell.")
    channel_id: str
    file_path: str
    location: str = Field(description="Who keeps it; told in answers to location=both.")


class RecordPage(Page[RecordAnswer]):
    """All that was found, oldest first."""

    partial: bool = Field(description="Parts of the answer never came.")
    answered: bool = Field(
        description="false: the device took the question and never answered, as many do that have nothing."
    )
    expected: int | None = Field(description="SumNum of the device; null: it told none.")


def record_page(found: RecordList, zone: tzinfo) -> RecordPage:
    return RecordPage(
        items=[_record_answer(record, zone) for record in found.items],
        total=len(found.items),
        partial=found.partial,
        answered=found.answered,
        expected=found.sum_num,
    )


def _record_answer(record: Record, zone: tzinfo) -> RecordAnswer:
    def moment(time: datetime | None) -> str | None:
        return iso_time(time.timestamp(), zone) if time is not None else None

    return RecordAnswer(
        start=moment(record.start),
        end=moment(record.end),
        name=record.name,
        type=record.kind,
        size=record.size,
        channel_id=record.device_id,
        file_path=record.file_path,
        location=record.location,
    )
