"""What moves a channel, and every command of the standard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from gb28181gw.access.roles import Action
from gb28181gw.api.command_schemas import CommandAnswer, CommandRequest, command_answer, command_values
from gb28181gw.api.control_schemas import (
    PresetRequest,
    PresetsAnswer,
    PtzRequest,
    presets_answer,
)
from gb28181gw.api.report_schemas import PtzPositionAnswer, ptz_position_answer
from gb28181gw.api.security import Services, VisibleDevice, caller, insist, requires
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.commands import COMMANDS

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
    "/channels/{channel_id}/ptz", operation_id="get_ptz_position", dependencies=[requires(Action.VIEW)]
)
async def get_ptz_position(device: VisibleDevice, channel_id: str, services: Services) -> PtzPositionAnswer:
    """Where the camera looked when it told last, by a subscription to `ptz`; the command PTZPosition asks it now."""
    place = await services.reports.ptz_place(device.id, channel_id)
    if place is None:
        raise GatewayError("gb.route.not_found", f"Camera {channel_id[:64]} has told no PTZ position yet.")
    return ptz_position_answer(place, services.zone)


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


@router.post(
    "/commands",
    operation_id="send_command",
    response_model_exclude_unset=True,
    dependencies=[requires(Action.CONTROL_DEVICE)],
)
async def send_command(
    device: VisibleDevice, body: CommandRequest, services: Services, request: Request
) -> CommandAnswer:
    """Send a control, query or configuration of the standard and await the device's answer.

    `command` is the CmdType or the control's element; its fields stand beside it by their XML names. An answer with
    ERROR is gb.sip.command_failed, one that cannot be read or says nothing is gb.sip.bad_answer, none is
    gb.sip.no_answer; what the device is known not to know is gb.route.edition or gb.route.unsupported. TeleBoot,
    DeviceUpgrade and FormatSDCard are for admins.
    """
    name, values = command_values(body)
    if COMMANDS[name].drastic:
        insist(request, Action.DRASTIC_CONTROL)
    outcome = await services.commands.run(
        device.id,
        name,
        values,
        channel_id=body.channel_id,
        force=body.force,
        key_id=caller(request).id,
    )
    return command_answer(outcome)
