"""Pictures that devices take and upload (GB/T 28181-2022 9.14)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from gb28181gw.access.roles import Action
from gb28181gw.api.paging import Paged
from gb28181gw.api.routes.reports import Id, Moment, moment_seconds
from gb28181gw.api.schemas import Page
from gb28181gw.api.security import Services, VisibleDevice, caller, find_device, requires
from gb28181gw.api.snapshot_schemas import (
    PictureAnswer,
    SnapshotOrderAnswer,
    SnapshotRequest,
    picture_answer,
    snapshot_order_answer,
)
from gb28181gw.devices.snapshots import PictureFilter
from gb28181gw.errors import GatewayError

router = APIRouter(prefix="/api/v1", tags=["snapshots"])

PictureId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
OrderId = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]


@router.post(
    "/devices/{device_id}/channels/{channel_id}/snapshots",
    operation_id="order_snapshots",
    status_code=202,
    dependencies=[requires(Action.CONTROL_DEVICE)],
)
async def order_snapshots(
    device: VisibleDevice,
    channel_id: str,
    services: Services,
    request: Request,
    body: SnapshotRequest | None = None,
) -> SnapshotOrderAnswer:
    """Have the device take pictures of a channel and upload them to the media listener; answered when it agreed."""
    wanted = body or SnapshotRequest()
    view = await services.snapshots.order(
        device.id,
        channel_id,
        count=wanted.count,
        interval_s=wanted.interval_s,
        force=wanted.force,
        key_id=caller(request).id,
    )
    return snapshot_order_answer(view, services.zone)


@router.get(
    "/snapshots/orders/{order_id}", operation_id="get_snapshot_order", dependencies=[requires(Action.VIEW)]
)
async def get_snapshot_order(order_id: OrderId, services: Services, request: Request) -> SnapshotOrderAnswer:
    """How an order stands; known for as long as the gateway runs, the latest thousand."""
    view = services.snapshots.session(order_id)
    find_device(request, view.device_id)
    return snapshot_order_answer(view, services.zone)


@router.get("/snapshots", operation_id="list_snapshots", dependencies=[requires(Action.VIEW)])
async def list_snapshots(
    services: Services,
    paging: Paged,
    device_id: Id = "",
    channel_id: Id = "",
    order_id: Annotated[str, Query(max_length=64)] = "",
    start: Moment = None,
    end: Moment = None,
) -> Page[PictureAnswer]:
    """Pictures that devices uploaded, newest first."""
    found, total = await services.snapshots.pictures(
        PictureFilter(
            device_id=device_id,
            channel_id=channel_id,
            session_id=order_id,
            start=moment_seconds(start, services),
            end=moment_seconds(end, services),
            offset=paging.offset,
            limit=paging.size,
        )
    )
    return Page[PictureAnswer](items=[picture_answer(one, services.zone) for one in found], total=total)


@router.get(
    "/snapshots/{picture_id}/image",
    operation_id="get_snapshot_image",
    dependencies=[requires(Action.VIEW)],
    response_class=Response,
    responses={
        200: {
            "content": {
                name: {"schema": {"type": "string", "format": "binary"}}
                for name in ("image/jpeg", "image/png")
            }
        }
    },
)
async def get_snapshot_image(picture_id: PictureId, services: Services) -> Response:
    """The picture itself."""
    picture, data = await services.snapshots.picture(picture_id)
    if not data:
        raise GatewayError("gb.route.not_found", "The picture is empty.")
    return Response(data, media_type=picture.content_type)
