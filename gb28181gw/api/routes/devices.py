"""Devices: list, provision, change, remove, approve (docs/reference/api.md)."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gb28181gw.access.roles import Action
from gb28181gw.api.paging import Paged
from gb28181gw.api.schemas import (
    DeviceAnswer,
    DeviceSettings,
    DialectAnswer,
    NewDevice,
    Page,
    device_answer,
    dialect_answer,
    switch_texts,
)
from gb28181gw.api.security import Services, VisibleDevice, requires, sees_pending
from gb28181gw.devices.registry import DeviceChange

router = APIRouter(prefix="/api/v1/devices", tags=["devices"])


@router.get("", operation_id="list_devices", dependencies=[requires(Action.VIEW)])
async def list_devices(request: Request, services: Services, paging: Paged) -> Page[DeviceAnswer]:
    """Devices in the order of their ids. Viewers see approved ones only."""
    found = services.devices.search(paging.q, approved_only=not sees_pending(request))
    return paging.cut(found, lambda device: device_answer(device, services.zone))


@router.get("/{device_id}", operation_id="get_device", dependencies=[requires(Action.VIEW)])
async def get_device(device: VisibleDevice, services: Services) -> DeviceAnswer:
    """One device."""
    return device_answer(device, services.zone)


@router.get("/{device_id}/dialect", operation_id="get_dialect", dependencies=[requires(Action.VIEW)])
async def get_dialect(device: VisibleDevice) -> DialectAnswer:
    """How a device is spoken to: each switch with where it comes from, tolerances, and what it does not know."""
    return dialect_answer(device)


@router.post("", operation_id="add_device", status_code=201, dependencies=[requires(Action.MANAGE_DEVICES)])
async def add_device(body: NewDevice, services: Services, response: Response) -> DeviceAnswer:
    """Provision a device before it registers, or take over one that waits for approval."""
    device = await services.devices.provision(body.id, _change(body))
    response.headers["Location"] = f"/api/v1/devices/{device.id}"
    return device_answer(device, services.zone)


@router.patch("/{device_id}", operation_id="change_device", dependencies=[requires(Action.MANAGE_DEVICES)])
async def change_device(device: VisibleDevice, body: DeviceSettings, services: Services) -> DeviceAnswer:
    """Change settings; what is left out stays."""
    return device_answer(await services.devices.change(device.id, _change(body)), services.zone)


@router.delete(
    "/{device_id}",
    operation_id="remove_device",
    status_code=204,
    dependencies=[requires(Action.MANAGE_DEVICES)],
)
async def remove_device(device: VisibleDevice, services: Services) -> None:
    """Forget a device with its channels. If it still knows a password it may come back as a new one."""
    await services.devices.remove(device.id)
    services.trace.forget(device.id)


@router.post(
    "/{device_id}/approve", operation_id="approve_device", dependencies=[requires(Action.ADMIT_DEVICE)]
)
async def approve_device(device: VisibleDevice, services: Services) -> DeviceAnswer:
    """Let in a device that waits; does nothing to one that is in."""
    return device_answer(await services.devices.approve(device.id), services.zone)


def _change(body: DeviceSettings) -> DeviceChange:
    return DeviceChange(
        name=body.name,
        password=body.password,
        media_transport=body.media_transport,
        charset=body.charset,
        timezone=body.timezone,
        dialect=None if body.dialect is None else switch_texts(body.dialect),
        subscribe=tuple(dict.fromkeys(body.subscribe))
        if isinstance(body.subscribe, list)
        else body.subscribe,
    )
