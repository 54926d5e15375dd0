"""Recordings as files (docs/reference/api.md)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import FileResponse

from gb28181gw.access.roles import Action
from gb28181gw.api.download_schemas import DownloadAnswer, DownloadBody, download_answer
from gb28181gw.api.paging import Paged
from gb28181gw.api.schemas import Page
from gb28181gw.api.security import Services, VisibleDevice, requires
from gb28181gw.devices.models import listed_channels
from gb28181gw.errors import GatewayError

router = APIRouter(prefix="/api/v1", tags=["downloads"])


@router.post(
    "/devices/{device_id}/channels/{channel_id}/download",
    operation_id="start_download",
    status_code=202,
    dependencies=[requires(Action.DOWNLOAD)],
)
async def start_download(
    device: VisibleDevice, channel_id: str, services: Services, body: DownloadBody
) -> DownloadAnswer:
    """Copy a recording into a file. Answers at once; it may wait for its turn."""
    if all(channel.id != channel_id for channel in listed_channels(device)):
        raise GatewayError(
            "gb.route.channel_unknown", f"The device {device.id} has no channel {channel_id[:64]}."
        )
    view = await services.downloads.add(
        device.id,
        channel_id,
        body.start,
        body.end,
        speed=body.speed,
        transport=body.media_transport(),
        centre=body.location == "centre",
        original=body.original,
    )
    return download_answer(view, services.zone)


@router.get("/downloads", operation_id="list_downloads", dependencies=[requires(Action.DOWNLOAD)])
async def list_downloads(request: Request, services: Services, paging: Paged) -> Page[DownloadAnswer]:
    """Downloads that wait, run, or whose files are kept; newest first."""
    found = paging.pick(
        services.downloads.list(), lambda view: (view.id, view.request.device_id, view.request.channel_id)
    )
    return paging.cut(found, lambda view: download_answer(view, services.zone))


@router.get("/downloads/{download_id}", operation_id="get_download", dependencies=[requires(Action.DOWNLOAD)])
async def get_download(download_id: str, services: Services) -> DownloadAnswer:
    """One download with its progress."""
    return download_answer(services.downloads.get(download_id), services.zone)


@router.get(
    "/downloads/{download_id}/file",
    operation_id="get_download_file",
    dependencies=[requires(Action.DOWNLOAD)],
    response_class=FileResponse,
)
async def get_download_file(download_id: str, services: Services) -> FileResponse:
    """The MP4 file; ranges are served."""
    path = services.downloads.path_of(download_id)
    return FileResponse(path, media_type="video/mp4", filename=path.name)


@router.get(
    "/downloads/{download_id}/manifest",
    operation_id="get_download_manifest",
    dependencies=[requires(Action.DOWNLOAD)],
    response_class=FileResponse,
)
async def get_download_manifest(download_id: str, services: Services) -> FileResponse:
    """The manifest: what was asked for, what came, and the SHA-256 of the file."""
    return FileResponse(services.downloads.path_of(download_id, manifest=True), media_type="application/json")


@router.get(
    "/downloads/{download_id}/originals/{name}",
    operation_id="get_download_original",
    dependencies=[requires(Action.DOWNLOAD)],
    response_class=FileResponse,
)
async def get_download_original(download_id: str, name: str, services: Services) -> FileResponse:
    """A program stream as the device sent it."""
    path = services.downloads.path_of(download_id, name=name)
    return FileResponse(path, media_type="video/mp2p", filename=path.name)


@router.delete(
    "/downloads/{download_id}",
    operation_id="remove_download",
    status_code=204,
    dependencies=[requires(Action.DOWNLOAD)],
)
async def remove_download(download_id: str, services: Services) -> None:
    """End it, if it runs, and remove its files."""
    await services.downloads.remove(download_id)
