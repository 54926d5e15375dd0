"""Alarms and positions that devices reported, with or without a subscription."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from gb28181gw.access.roles import Action
from gb28181gw.api.paging import Paged
from gb28181gw.api.report_schemas import AlarmAnswer, PositionAnswer, alarm_answer, position_answer
from gb28181gw.api.schemas import Page
from gb28181gw.api.security import Services, requires
from gb28181gw.devices.reports import ReportFilter

router = APIRouter(prefix="/api/v1", tags=["reports"])

Id = Annotated[str, Query(max_length=64)]
Moment = Annotated[datetime | None, Query(description="ISO 8601; without an offset that of [sip] timezone.")]


@router.get("/alarms", operation_id="list_alarms", dependencies=[requires(Action.VIEW)])
async def list_alarms(
    services: Services,
    paging: Paged,
    device_id: Id = "",
    channel_id: Id = "",
    priority: Annotated[int, Query(ge=0, le=4, description="1 is the highest; 0: all.")] = 0,
    method: Annotated[str, Query(pattern=r"^[0-7](/?[0-7])*$", description="As in 2 or 1/2; 0: all.")] = "0",
    type: Annotated[str, Query(max_length=16, description="AlarmType.")] = "",
    start: Moment = None,
    end: Moment = None,
) -> Page[AlarmAnswer]:
    """Alarms, newest first. `start` and `end` are about the time that the device says."""
    methods = frozenset(int(digit) for digit in method if digit.isdecimal())
    found, total = await services.reports.alarms(
        ReportFilter(
            device_id=device_id,
            channel_id=channel_id,
            priority=priority,
            methods=frozenset() if 0 in methods else methods,
            type=type,
            start=moment_seconds(start, services),
            end=moment_seconds(end, services),
            text=paging.q,
            offset=paging.offset,
            limit=paging.size,
        )
    )
    return Page[AlarmAnswer](items=[alarm_answer(alarm, services.zone) for alarm in found], total=total)


@router.get("/positions", operation_id="list_positions", dependencies=[requires(Action.VIEW)])
async def list_positions(
    services: Services,
    paging: Paged,
    device_id: Id = "",
    channel_id: Id = "",
    start: Moment = None,
    end: Moment = None,
    latest: Annotated[bool, Query(description="Only the last one of each source.")] = False,
) -> Page[PositionAnswer]:
    """Positions, newest first; of each source at most one a second is kept."""
    found, total = await services.reports.places(
        ReportFilter(
            device_id=device_id,
            channel_id=channel_id,
            start=moment_seconds(start, services),
            end=moment_seconds(end, services),
            text=paging.q,
            latest=latest,
            offset=paging.offset,
            limit=paging.size,
        )
    )
    return Page[PositionAnswer](items=[position_answer(place, services.zone) for place in found], total=total)


def moment_seconds(moment: datetime | None, services: Services) -> float | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=services.zone)
    return moment.timestamp()
