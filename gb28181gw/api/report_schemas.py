"""The JSON of what devices report by themselves."""

from __future__ import annotations

from datetime import tzinfo

from pydantic import Field

from gb28181gw.api.schemas import Answer, iso_time
from gb28181gw.devices.reports import Alarm, Place


class AlarmAnswer(Answer):
    """One alarm."""

    id: int
    device_id: str
    channel_id: str = Field(description="What raised it; need not be in the catalogue.")
    priority: int | None = Field(description="1 is the highest, 4 the lowest.")
    method: int | None = Field(
        description="1 telephone, 2 device, 3 SMS, 4 GPS, 5 video, 6 device fault, 7 other."
    )
    type: str = Field(description="AlarmType, by the method.")
    event_type: str = Field(description="Of an intrusion: 1 entered, 2 left.")
    time: str | None = Field(description="As the device says.")
    received_at: str | None
    description: str
    longitude: float | None
    latitude: float | None


def alarm_answer(alarm: Alarm, zone: tzinfo) -> AlarmAnswer:
    return AlarmAnswer(
        id=alarm.id,
        device_id=alarm.device_id,
        channel_id=alarm.channel_id,
        priority=alarm.priority,
        method=alarm.method,
        type=alarm.type,
        event_type=alarm.event_type,
        time=iso_time(alarm.time, zone),
        received_at=iso_time(alarm.received_at, zone),
        description=alarm.description,
        longitude=alarm.longitude,
        latitude=alarm.latitude,
    )


class PositionAnswer(Answer):
    """One position in WGS-84; of a device whose dialect says that it sends GCJ-02 it was converted."""

    id: int
    device_id: str
    channel_id: str
    time: str | None = Field(description="As the device says.")
    received_at: str | None
    longitude: float
    latitude: float
    speed: float | None = Field(description="km/h")
    direction: float | None = Field(description="Degrees clockwise from north.")
    altitude: float | None = Field(description="Metres above sea level.")
    height: float | None = Field(description="Metres above ground.")


def position_answer(place: Place, zone: tzinfo) -> PositionAnswer:
    return PositionAnswer(
        id=place.id,
        device_id=place.device_id,
        channel_id=place.channel_id,
        time=iso_time(place.time, zone),
        received_at=iso_time(place.received_at, zone),
        longitude=place.longitude,
        latitude=place.latitude,
        speed=place.speed,
        direction=place.direction,
        altitude=place.altitude,
        height=place.height,
    )
