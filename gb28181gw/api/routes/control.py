"""What moves a channel: PTZ and presets (contract 5.3)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from gb28181gw.access.roles import Action
from gb28181gw.api.control_schemas import (
    PresetRequest,
    PresetsAnswer,
    PtzRequest,
    presets_answer,
)
from gb28181gw.api.security import Services, VisibleDevice, requires

router = APIRouter(prefix="/api/v1/devices/{device_id}", tags=["control"])


@router.post(
    "/channels/{channel_id}/ptz",
    operation_id="move_channel",
    status_code=204,
    dependencies=[requires(Action.CONTROL_DEVICE)],
)
async def move_channel(
    device: VisibleDevice, channel_id: str, services: Services, body: PtzRequest | None = None
) -> None:
    """Move at these speeds until the next command; all 0 stops.

    The gateway sends the stop itself after 10 s without a new command. A device answers only that it took the
    command, so 204 does not say that anything moved.
    """
    wanted = body or PtzRequest()
    if wanted.is_lens:
        await services.ptz.lens(device.id, channel_id, focus=wanted.focus or 0.0, iris=wanted.iris or 0.0)
    else:
        await services.ptz.move(
            device.id, channel_id, pan=wanted.pan or 0.0, tilt=wanted.tilt or 0.0, zoom=wanted.zoom or 0.0
        )


@router.get(
    "/channels/{channel_id}/presets",
    operation_id="list_presets",
    dependencies=[requires(Action.QUERY_DEVICE)],
)
async def list_presets(device: VisibleDevice, channel_id: str, services: Services) -> PresetsAnswer:
    """Ask the device for the presets of a channel."""
    return presets_answer(await services.ptz.presets(device.id, channel_id))


@router.post(
    "/channels/{channel_id}/presets/{number}",
    operation_id="use_preset",
    status_code=204,
    dependencies=[requires(Action.CONTROL_DEVICE)],
)
async def use_preset(
    device: VisibleDevice,
    channel_id: str,
    number: Annotated[int, Path(ge=1, le=255)],
    body: PresetRequest,
    services: Services,
) -> None:
    """Call, set or delete a preset."""
    await services.ptz.preset(device.id, channel_id, number, body.action, name=body.name)
