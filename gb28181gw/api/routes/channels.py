"""Catalogue, channels and the tree of a device (docs/reference/api.md)."""

from __future__ import annotations

from fastapi import APIRouter, Request

from gb28181gw.access.roles import Action
from gb28181gw.api.paging import Paged
from gb28181gw.api.schemas import (
    CatalogAnswer,
    ChannelAnswer,
    NodeAnswer,
    Page,
    catalog_answer,
    channel_answer,
    node_answer,
)
from gb28181gw.api.security import Services, VisibleDevice, requires, sees_pending
from gb28181gw.devices.models import listed_channels
from gb28181gw.errors import GatewayError

router = APIRouter(prefix="/api/v1", tags=["channels"])


@router.post(
    "/devices/{device_id}/catalog",
    operation_id="refresh_catalog",
    status_code=202,
    dependencies=[requires(Action.QUERY_DEVICE)],
)
async def refresh_catalog(device: VisibleDevice, services: Services) -> CatalogAnswer:
    """Query the catalogue; one that runs is left alone. Ask for the progress with GET."""
    await services.catalogue.refresh(device.id)
    return catalog_answer(device, services.zone)


@router.get("/devices/{device_id}/catalog", operation_id="get_catalog", dependencies=[requires(Action.VIEW)])
async def get_catalog(device: VisibleDevice, services: Services) -> CatalogAnswer:
    """Progress of the last catalogue query."""
    return catalog_answer(device, services.zone)


@router.get(
    "/devices/{device_id}/channels", operation_id="list_channels", dependencies=[requires(Action.VIEW)]
)
async def list_channels(device: VisibleDevice, paging: Paged) -> Page[ChannelAnswer]:
    """What can be played or has a function of its own, in the order of the ids."""
    found = paging.pick(listed_channels(device), lambda channel: (channel.id, channel.name))
    return paging.cut(found, lambda channel: channel_answer(device, channel))


@router.get(
    "/devices/{device_id}/channels/{channel_id}",
    operation_id="get_channel",
    dependencies=[requires(Action.VIEW)],
)
async def get_channel(device: VisibleDevice, channel_id: str) -> ChannelAnswer:
    """One channel."""
    for channel in listed_channels(device):
        if channel.id == channel_id:
            return channel_answer(device, channel)
    raise GatewayError(
        "gb.route.channel_unknown", f"The device {device.id} has no channel {channel_id[:64]}."
    )


@router.get("/devices/{device_id}/tree", operation_id="get_tree", dependencies=[requires(Action.VIEW)])
async def get_tree(device: VisibleDevice, services: Services, paging: Paged) -> Page[NodeAnswer]:
    """Every node of the catalogue, parents before their children; `parent_id` of the uppermost is the device."""
    nodes = paging.pick(services.catalogue.tree(device), lambda node: (node.channel.id, node.channel.name))
    playable = {channel.id for channel in listed_channels(device)}
    return paging.cut(nodes, lambda node: node_answer(device, node, playable=node.channel.id in playable))


@router.get("/channels", operation_id="list_all_channels", dependencies=[requires(Action.VIEW)])
async def list_all_channels(request: Request, services: Services, paging: Paged) -> Page[ChannelAnswer]:
    """Channels of all devices that the caller may see."""
    devices = services.devices.search(approved_only=not sees_pending(request))
    pairs = ((device, channel) for device in devices for channel in listed_channels(device))
    found = paging.pick(pairs, lambda pair: (pair[1].id, pair[1].name))
    return paging.cut(found, lambda pair: channel_answer(*pair))
