"""Pushes of channels to URLs (docs/reference/api.md)."""

from __future__ import annotations

from fastapi import APIRouter

from gb28181gw.access.roles import Action
from gb28181gw.api.paging import Paged
from gb28181gw.api.push_schemas import PushAnswer, PushBody, push_answer
from gb28181gw.api.schemas import Page
from gb28181gw.api.security import Services, VisibleDevice, requires
from gb28181gw.devices.models import listed_channels
from gb28181gw.errors import GatewayError

router = APIRouter(prefix="/api/v1", tags=["pushes"])


@router.post(
    "/devices/{device_id}/channels/{channel_id}/push",
    operation_id="add_push",
    status_code=201,
    dependencies=[requires(Action.PUSH)],
)
async def add_push(device: VisibleDevice, channel_id: str, services: Services, body: PushBody) -> PushAnswer:
    """Push a channel to a URL from now on, until it is removed. It is begun again whenever it breaks."""
    if all(channel.id != channel_id for channel in listed_channels(device)):
        raise GatewayError(
            "gb.route.channel_unknown", f"The device {device.id} has no channel {channel_id[:64]}."
        )
    view = await services.pushes.add(device.id, channel_id, body.url, video=body.video, audio=body.audio)
    return push_answer(view, services.zone)


@router.get("/pushes", operation_id="list_pushes", dependencies=[requires(Action.PUSH)])
async def list_pushes(services: Services, paging: Paged) -> Page[PushAnswer]:
    """All pushes, and how they stand."""
    return paging.cut(services.pushes.list(), lambda view: push_answer(view, services.zone))


@router.get("/pushes/{push_id}", operation_id="get_push", dependencies=[requires(Action.PUSH)])
async def get_push(push_id: str, services: Services) -> PushAnswer:
    """A push, and how it stands."""
    return push_answer(services.pushes.get(push_id), services.zone)


@router.delete(
    "/pushes/{push_id}", operation_id="remove_push", status_code=204, dependencies=[requires(Action.PUSH)]
)
async def remove_push(push_id: str, services: Services) -> None:
    """End a push for good."""
    await services.pushes.remove(push_id)
