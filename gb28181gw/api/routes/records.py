"""Recordings on devices (docs/reference/api.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from gb28181gw.access.roles import Action
from gb28181gw.api.record_schemas import RecordPage, record_page
from gb28181gw.api.security import Services, VisibleDevice, requires
from gb28181gw.devices.records import Location
from gb28181gw.errors import GatewayError

router = APIRouter(prefix="/api/v1", tags=["records"])


@router.get(
    "/devices/{device_id}/channels/{channel_id}/records",
    operation_id="list_records",
    dependencies=[requires(Action.PLAY)],
)
async def list_records(
    device: VisibleDevice,
    channel_id: str,
    services: Services,
    start: Annotated[AwareDatetime, Query(description="ISO 8601 with offset.")],
    end: Annotated[AwareDatetime, Query(description="ISO 8601 with offset.")],
    type: Literal["all", "time", "alarm", "manual"] = "all",
    location: Location = Location.FRONT_END,
) -> RecordPage:
    """What the device has recorded of the channel: answered when it is complete or quiet, at most after 20 s."""
    if end <= start:
        raise GatewayError("gb.route.invalid", "end must lie after start.")
    found = await services.records.search(device.id, channel_id, start, end, kind=type, location=location)
    return record_page(found, services.zone)
