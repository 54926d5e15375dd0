"""Upper platforms, and what is shared with them (docs/how-to/cascade.md)."""

from __future__ import annotations

from itertools import islice

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from gb28181gw.access.roles import Action
from gb28181gw.api.paging import Paged
from gb28181gw.api.schemas import Page
from gb28181gw.api.security import Services, requires
from gb28181gw.api.upper_schemas import (
    NewUpper,
    SharedChannels,
    ShareRequest,
    ToldCatalogue,
    UpperAnswer,
    UpperSettings,
    lint_finding,
    read_share_csv,
    share_csv,
    shared_channel,
    told_item,
    upper_answer,
)
from gb28181gw.cascade.models import Tree
from gb28181gw.cascade.tree import lint

router = APIRouter(prefix="/api/v1/uppers", tags=["uppers"])
FINDINGS = 1_000
"""Told of one tree."""


@router.get("", operation_id="list_uppers", dependencies=[requires(Action.VIEW_UPPERS)])
async def list_uppers(services: Services, paging: Paged) -> Page[UpperAnswer]:
    """Upper platforms in the order of their ids."""
    found = paging.pick(services.uppers.all(), lambda view: (view.upper.id, view.upper.name, view.upper.host))
    return paging.cut(found, lambda view: upper_answer(view, services.zone))


@router.get("/{upper_id}", operation_id="get_upper", dependencies=[requires(Action.VIEW_UPPERS)])
async def get_upper(upper_id: str, services: Services) -> UpperAnswer:
    """One upper platform."""
    return upper_answer(services.uppers.get(upper_id), services.zone)


@router.post("", operation_id="add_upper", status_code=201, dependencies=[requires(Action.MANAGE_UPPERS)])
async def add_upper(body: NewUpper, services: Services, response: Response) -> UpperAnswer:
    """Add an upper platform; it is registered at from now on."""
    view = await services.uppers.add(body.id, body.change())
    response.headers["Location"] = f"/api/v1/uppers/{view.upper.id}"
    return upper_answer(view, services.zone)


@router.patch("/{upper_id}", operation_id="change_upper", dependencies=[requires(Action.MANAGE_UPPERS)])
async def change_upper(upper_id: str, body: UpperSettings, services: Services) -> UpperAnswer:
    """Change settings, in force at once; what is left out stays."""
    return upper_answer(await services.uppers.change(upper_id, body.change()), services.zone)


@router.delete(
    "/{upper_id}", operation_id="remove_upper", status_code=204, dependencies=[requires(Action.MANAGE_UPPERS)]
)
async def remove_upper(upper_id: str, services: Services) -> None:
    """Unregister from it, end what it plays, and forget it."""
    await services.uppers.remove(upper_id)
    services.trace.forget(upper_id)


@router.get(
    "/{upper_id}/channels", operation_id="list_shared_channels", dependencies=[requires(Action.VIEW_UPPERS)]
)
async def list_shared_channels(upper_id: str, services: Services, paging: Paged) -> SharedChannels:
    """What the upper platform sees."""
    share_all, rows = await services.uppers.shared(upper_id)
    found = paging.pick(rows, lambda row: (row[0].device_id, row[0].channel_id, row[1]))
    shown = found[paging.offset : paging.offset + paging.size]
    return SharedChannels(
        all=share_all,
        items=[shared_channel(key, shared_id, services.devices) for key, shared_id in shown],
        total=len(found),
    )


@router.put(
    "/{upper_id}/channels", operation_id="share_channels", dependencies=[requires(Action.MANAGE_UPPERS)]
)
async def share_channels(
    upper_id: str, body: ShareRequest, services: Services, dry_run: bool = False
) -> SharedChannels:
    """Replace what the upper platform sees, in force at once. With `dry_run` nothing is changed.

    The answer has the first 500 of the channels with their ids. An id that two rows want, or a row that comes twice,
    refuses the whole list and names the row.
    """
    rows = await services.uppers.share(upper_id, body.wanted(), share_all=body.all, dry_run=dry_run)
    return SharedChannels(
        all=body.all,
        items=[shared_channel(key, shared_id, services.devices) for key, shared_id in rows[:500]],
        total=len(rows),
    )


@router.get(
    "/{upper_id}/channels.csv",
    operation_id="export_shared_channels",
    dependencies=[requires(Action.VIEW_UPPERS)],
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}},
)
async def export_shared_channels(upper_id: str, services: Services) -> Response:
    """What the upper platform sees, as a table: device_id, channel_id, shared_id, name."""
    _, rows = await services.uppers.shared(upper_id)
    return StreamingResponse(
        share_csv(rows, services.devices),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{upper_id[:32]}.csv"'},
    )


@router.put(
    "/{upper_id}/channels.csv",
    operation_id="import_shared_channels",
    dependencies=[requires(Action.MANAGE_UPPERS)],
    openapi_extra={
        "requestBody": {"content": {"text/csv": {"schema": {"type": "string"}}}, "required": True}
    },
)
async def import_shared_channels(
    upper_id: str, request: Request, services: Services, all: bool = False, dry_run: bool = False
) -> SharedChannels:
    """As PUT …/channels, from a table with the columns device_id, channel_id and, where wanted, shared_id."""
    items = read_share_csv(await request.body())
    rows = await services.uppers.share(upper_id, items, share_all=all, dry_run=dry_run)
    return SharedChannels(
        all=all,
        items=[shared_channel(key, shared_id, services.devices) for key, shared_id in rows[:500]],
        total=len(rows),
    )


@router.get(
    "/{upper_id}/catalog", operation_id="preview_catalog", dependencies=[requires(Action.VIEW_UPPERS)]
)
async def preview_catalog(
    upper_id: str, services: Services, paging: Paged, tree: Tree | None = None
) -> ToldCatalogue:
    """Dry run: the items of a Catalog answer in the order of telling, and what is wrong with them.

    `tree`: in another form than the one that is set.
    """
    told = await services.uppers.tree(upper_id, tree)
    nodes = paging.pick(told.nodes, lambda node: (node.id, node.name))
    shown = nodes[paging.offset : paging.offset + paging.size]
    items = [(told.item(node, services.devices), node.key) for node in shown]
    return ToldCatalogue(
        items=[told_item(item, key) for item, key in items if item is not None],
        total=len(nodes),
        findings=[lint_finding(finding) for finding in islice(lint(told, services.devices), FINDINGS)],
    )
