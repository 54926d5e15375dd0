"""What the gateway records itself (docs/reference/api.md); recordings that devices have are `routes.records`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime
from starlette.responses import StreamingResponse

from gb28181gw.access.roles import Action
from gb28181gw.access.tokens import make_grant
from gb28181gw.api.paging import Paged
from gb28181gw.api.play_urls import play_urls
from gb28181gw.api.recording_schemas import (
    LockAnswer,
    LockBody,
    RecordingAnswer,
    RecordingPlanBody,
    RecordingPlaybackAnswer,
    RecordingSpanBody,
    SegmentAnswer,
    SpanAnswer,
    recording_answer,
    recording_playback_answer,
    segment_answer,
    span_answer,
)
from gb28181gw.api.schemas import Page
from gb28181gw.api.security import Caller, Services, VisibleDevice, requires
from gb28181gw.devices.models import listed_channels
from gb28181gw.errors import GatewayError

router = APIRouter(prefix="/api/v1", tags=["recording"])
CHANNEL = "/devices/{device_id}/channels/{channel_id}/recording"
Time = Annotated[AwareDatetime, Query(description="ISO 8601 with offset.")]


@router.get("/recordings", operation_id="list_recordings", dependencies=[requires(Action.RECORD)])
async def list_recordings(services: Services, paging: Paged) -> Page[RecordingAnswer]:
    """The plans of all channels, and how their recorders stand."""
    found = paging.pick(services.recording.plans(), lambda view: (view.plan.device_id, view.plan.channel_id))
    return paging.cut(found, lambda view: recording_answer(view, services.zone))


@router.get(CHANNEL, operation_id="get_recording", dependencies=[requires(Action.VIEW)])
async def get_recording(device: VisibleDevice, channel_id: str, services: Services) -> RecordingAnswer:
    """The plan of a channel, and how its recorder stands."""
    return recording_answer(services.recording.get(device.id, channel_id), services.zone)


@router.put(CHANNEL, operation_id="put_recording", dependencies=[requires(Action.RECORD)])
async def put_recording(
    device: VisibleDevice, channel_id: str, services: Services, body: RecordingPlanBody
) -> RecordingAnswer:
    """Record a channel from now on: always, by a week's plan, or at alarms. In force at once."""
    if all(channel.id != channel_id for channel in listed_channels(device)):
        raise GatewayError(
            "gb.route.channel_unknown", f"The device {device.id} has no channel {channel_id[:64]}."
        )
    view = await services.recording.put(body.to_plan(device.id, channel_id))
    return recording_answer(view, services.zone)


@router.delete(
    CHANNEL, operation_id="remove_recording", status_code=204, dependencies=[requires(Action.RECORD)]
)
async def remove_recording(device: VisibleDevice, channel_id: str, services: Services) -> None:
    """Record it no more; what was recorded stays for its time."""
    await services.recording.remove(device.id, channel_id)


@router.get(f"{CHANNEL}/spans", operation_id="list_recorded", dependencies=[requires(Action.VIEW)])
async def list_recorded(
    device: VisibleDevice, channel_id: str, services: Services, paging: Paged, start: Time, end: Time
) -> Page[SpanAnswer]:
    """What the gateway recorded of a channel, oldest first; what lies between two spans was not."""
    found = await services.recording.spans(device.id, channel_id, start, end)
    return paging.cut(found, lambda span: span_answer(span, services.zone))


@router.get(f"{CHANNEL}/files", operation_id="list_recorded_files", dependencies=[requires(Action.VIEW)])
async def list_recorded_files(
    device: VisibleDevice, channel_id: str, services: Services, paging: Paged, start: Time, end: Time
) -> Page[SegmentAnswer]:
    """The files of a channel that overlap a time, oldest first: whether they are here and in the object store."""
    found = await services.recording.segments(device.id, channel_id, start, end)
    return paging.cut(found, lambda segment: segment_answer(segment, services.zone))


@router.post(f"{CHANNEL}/lock", operation_id="lock_recorded", dependencies=[requires(Action.RECORD)])
async def lock_recorded(
    device: VisibleDevice, channel_id: str, services: Services, body: LockBody
) -> LockAnswer:
    """Make what was recorded evidence, which is never deleted, or lift that."""
    number = await services.recording.lock(device.id, channel_id, body.start, body.end, locked=body.locked)
    return LockAnswer(files=number)


@router.post(f"{CHANNEL}/playback", operation_id="play_recorded", dependencies=[requires(Action.PLAY)])
async def play_recorded(
    request: Request,
    device: VisibleDevice,
    channel_id: str,
    services: Services,
    key: Caller,
    body: RecordingSpanBody,
) -> RecordingPlaybackAnswer:
    """Play what the gateway recorded, from the key frame before `start`. It begins with its first viewer."""
    playback = await services.recording.play(device.id, channel_id, body.start, body.end)
    urls = play_urls(
        services.play,
        services.tokens,
        make_grant(key.id),
        host=request.headers.get("host", ""),
        path=f"/playback/{playback.id}",
    )
    return recording_playback_answer(playback, urls, services.zone)


@router.get(
    f"{CHANNEL}/file",
    operation_id="get_recorded_file",
    dependencies=[requires(Action.DOWNLOAD)],
    response_class=StreamingResponse,
    responses={200: {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_recorded_file(
    device: VisibleDevice, channel_id: str, services: Services, start: Time, end: Time
) -> StreamingResponse:
    """What was recorded of a time as one fragmented MP4, from the key frame before `start`."""
    pieces = await services.recording.file(device.id, channel_id, start, end)
    begin = start.astimezone(services.zone)
    headers = {"Content-Disposition": f'attachment; filename="{channel_id}_{begin:%Y%m%dT%H%M%S}.mp4"'}
    return StreamingResponse(pieces, media_type="video/mp4", headers=headers)
