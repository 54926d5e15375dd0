"""Live view, playback and the list of streams (docs/reference/api.md)."""

from __future__ import annotations

from fastapi import APIRouter, Request

from gb28181gw.access.roles import Action
from gb28181gw.access.tokens import make_grant
from gb28181gw.api.paging import Paged
from gb28181gw.api.play_urls import play_urls
from gb28181gw.api.schemas import (
    ControlRequest,
    LiveAnswer,
    LiveRequest,
    Page,
    PlaybackRequest,
    StreamAnswer,
    live_answer,
    stream_answer,
)
from gb28181gw.api.security import Caller, Services, VisibleDevice, requires, sees_pending
from gb28181gw.api.services import ApiServices
from gb28181gw.errors import GatewayError
from gb28181gw.sessions.models import StreamView

router = APIRouter(prefix="/api/v1", tags=["streams"])


@router.post(
    "/devices/{device_id}/channels/{channel_id}/live",
    operation_id="start_live",
    dependencies=[requires(Action.PLAY)],
    response_model_exclude_none=True,
)
async def start_live(
    request: Request,
    device: VisibleDevice,
    channel_id: str,
    services: Services,
    key: Caller,
    body: LiveRequest | None = None,
) -> LiveAnswer:
    """Start the channel, or take the running stream; answers when the first key frame is there.

    At most 20 s. The URLs carry a token and may be opened for `token_s` seconds.
    """
    transport = body.media_transport() if body is not None else None
    view = await services.streams.start_live(device.id, channel_id, transport=transport)
    urls = play_urls(
        services.play,
        services.tokens,
        make_grant(key.id),
        host=request.headers.get("host", ""),
        path=f"/live/{device.id}_{channel_id}",
    )
    return live_answer(view, urls)


@router.post(
    "/devices/{device_id}/channels/{channel_id}/playback",
    operation_id="start_playback",
    dependencies=[requires(Action.PLAY)],
    response_model_exclude_none=True,
)
async def start_playback(
    request: Request,
    device: VisibleDevice,
    channel_id: str,
    services: Services,
    key: Caller,
    body: PlaybackRequest,
) -> LiveAnswer:
    """Play a recording; answers when its first key frame is there, at most after 20 s.

    Each call is a stream of its own. It ends with the recording, or some time after its last consumer.
    """
    view = await services.streams.start_playback(
        device.id,
        channel_id,
        body.start,
        body.end,
        transport=body.media_transport(),
        centre=body.location == "centre",
    )
    urls = play_urls(
        services.play,
        services.tokens,
        make_grant(key.id),
        host=request.headers.get("host", ""),
        path=f"/playback/{view.id}",
    )
    return live_answer(view, urls)


@router.post(
    "/streams/{stream_id}/control",
    operation_id="control_stream",
    status_code=204,
    dependencies=[requires(Action.PLAY)],
)
async def control_stream(request: Request, stream_id: str, services: Services, body: ControlRequest) -> None:
    """Pause, resume, seek or change the speed of a playback, for all who watch it: one INFO.

    204 is the device's OK. Whether its stream shows it, `history.control.effect` of the stream tells. What the
    gateway recorded itself is steered at once, forwards only.
    """
    if not _is_visible(request, services, services.streams.get(stream_id)):
        raise GatewayError("gb.route.stream_unknown")
    await services.streams.control(stream_id, body.to_action())


@router.get(
    "/streams",
    operation_id="list_streams",
    dependencies=[requires(Action.VIEW)],
    response_model_exclude_none=True,
)
async def list_streams(request: Request, services: Services, paging: Paged) -> Page[StreamAnswer]:
    """Streams that are not ended."""
    shown = [view for view in services.streams.list() if _is_visible(request, services, view)]
    found = paging.pick(shown, lambda view: (view.id, view.device_id, view.channel_id))
    return paging.cut(found, lambda view: stream_answer(view, services.zone))


@router.get(
    "/streams/{stream_id}",
    operation_id="get_stream",
    dependencies=[requires(Action.VIEW)],
    response_model_exclude_none=True,
)
async def get_stream(request: Request, stream_id: str, services: Services) -> StreamAnswer:
    """One stream with what it receives."""
    view = services.streams.get(stream_id)
    if not _is_visible(request, services, view):
        raise GatewayError("gb.route.stream_unknown")
    return stream_answer(view, services.zone)


@router.delete(
    "/streams/{stream_id}",
    operation_id="stop_stream",
    status_code=204,
    dependencies=[requires(Action.STOP_STREAM)],
)
async def stop_stream(stream_id: str, services: Services) -> None:
    """End it for all consumers; a device is told at once."""
    await services.streams.stop(stream_id)


def _is_visible(request: Request, services: ApiServices, view: StreamView) -> bool:
    """A viewer does not see streams of devices that are not there for him."""
    if sees_pending(request):
        return True
    device = services.devices.get(view.device_id)
    return device is not None and device.approved
