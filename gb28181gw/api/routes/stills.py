"""A picture of a channel now, made by the gateway (docs/reference/api.md); those of devices are `routes.snapshots`."""

from __future__ import annotations

from datetime import datetime
from email.utils import formatdate
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from gb28181gw.access.roles import Action
from gb28181gw.api.security import Services, VisibleDevice, requires

router = APIRouter(prefix="/api/v1", tags=["streams"])


@router.get(
    "/devices/{device_id}/channels/{channel_id}/snapshot",
    operation_id="get_snapshot",
    dependencies=[requires(Action.PLAY)],
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_snapshot(
    device: VisibleDevice,
    channel_id: str,
    services: Services,
    max_age: Annotated[
        float,
        Query(ge=0, le=86_400, description="Seconds; a picture no older than this need not be taken anew."),
    ] = 5.0,
    stale: Annotated[
        bool | None,
        Query(
            description="Whether the last picture will do when none can be taken: true always, false never; "
            "left out: when the device is offline."
        ),
    ] = None,
) -> Response:
    """A picture of the channel from its stream, which is started for it when it does not run.

    `X-Picture-Time` says when it was taken, `X-Picture-Stale` why it is older than asked for.
    """
    still = await services.stills.take(device.id, channel_id, max_age_s=max_age, stale=stale)
    taken_at = datetime.fromtimestamp(still.taken_at, services.zone)
    headers = {
        "Last-Modified": formatdate(still.taken_at, usegmt=True),
        "X-Picture-Time": taken_at.isoformat(timespec="milliseconds"),
        "Cache-Control": "private, no-cache",
    }
    if still.stale:
        headers["X-Picture-Stale"] = still.stale
    return Response(still.jpeg, media_type="image/jpeg", headers=headers)
