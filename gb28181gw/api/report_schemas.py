"""The JSON of what devices report by themselves."""

from __future__ import annotations

from datetime import tzinfo
from typing import Literal

from pydantic import Field

from gb28181gw.api.schemas import Answer, iso_time
from gb28181gw.devices.reports import Alarm, Place, PtzPlace
from gb28181gw.devices.subscriptions import SubscriptionView


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


class PtzPositionAnswer(Answer):
    """Where a camera looked when it told last."""

    device_id: str
    channel_id: str
    received_at: str | None
    pan: float | None = Field(description="Degrees, clockwise seen from above.")
    tilt: float | None = Field(description="Degrees; 0 is horizontal, up is negative.")
    zoom: float | None
    horizontal_angle: float | None = Field(description="Of the field of view, degrees.")
    vertical_angle: float | None
    max_distance: float | None = Field(description="Metres that can be seen.")


def ptz_position_answer(place: PtzPlace, zone: tzinfo) -> PtzPositionAnswer:
    return PtzPositionAnswer(
        device_id=place.device_id,
        channel_id=place.channel_id,
        received_at=iso_time(place.received_at, zone),
        pan=place.pan,
        tilt=place.tilt,
        zoom=place.zoom,
        horizontal_angle=place.horizontal_angle,
        vertical_angle=place.vertical_angle,
        max_distance=place.max_distance,
    )


class SubscriptionAnswer(Answer):
    """One subscription that is wanted of a device."""

    kind: Literal["catalog", "alarm", "position", "ptz"]
    target: str = Field(description="The device, or the camera (ptz).")
    state: Literal["waiting", "active", "failed", "unsupported"] = Field(
        description="waiting: for its turn or for the device; failed and unsupported are tried again, the second one "
        "after a week or with another firmware."
    )
    event: str = Field(description="Value of Event that the device took.")
    since: str | None
    expires_at: str | None
    renewed_at: str | None
    notified_at: str | None = Field(
        description="null: no notification yet; many devices grant and never notify."
    )
    notifies: int
    failures: int = Field(description="In a row.")
    reason: str = Field(description="Of the latest failure or end; empty while it is active.")
    detail: str
    sip_status: int | None


def subscription_answer(view: SubscriptionView, zone: tzinfo) -> SubscriptionAnswer:
    return SubscriptionAnswer(
        kind=view.kind.value,
        target=view.target,
        state=view.state.value,
        event=view.event,
        since=iso_time(view.since, zone),
        expires_at=iso_time(view.expires_at, zone),
        renewed_at=iso_time(view.renewed_at, zone),
        notified_at=iso_time(view.notified_at, zone),
        notifies=view.notifies,
        failures=view.failures,
        reason=view.reason,
        detail=view.detail,
        sip_status=view.sip_status,
    )
