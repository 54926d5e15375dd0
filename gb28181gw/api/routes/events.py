"""The event stream: server-sent events with the names and fields of the log (docs/reference/events.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from gb28181gw.access.roles import Action
from gb28181gw.api.errors import invalid
from gb28181gw.api.security import Caller, Services, requires, sees_pending
from gb28181gw.api.services import ApiServices
from gb28181gw.errors import GatewayError
from gb28181gw.observability.events import EVENTS, Event, Subscription

router = APIRouter(prefix="/api/v1", tags=["events"])

HEARTBEAT_S: Final = 15.0
"""A comment line after so long without an event: keeps proxies from closing and finds dead clients."""
_LOOK_S: Final = 1.0
"""So often an idle stream looks whether its key still is one (S-15: within 2 s)."""
MAX_SUBSCRIBERS: Final = 100
_VIEWER_EVENTS: Final = (
    "gateway.",
    "device.online",
    "device.offline",
    "catalog.",
    "channel.",
    "stream.",
    "alarm.",
)
"""Beginnings of the names that a viewer gets; the others tell of addresses and attempts to get in."""


@router.get(
    "/events",
    operation_id="stream_events",
    dependencies=[requires(Action.VIEW)],
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream_events(
    request: Request,
    services: Services,
    key: Caller,
    names: Annotated[
        str, Query(max_length=2000, description="Names separated by commas; all by default.")
    ] = "",
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=64)] = None,
) -> Response:
    """Events as they happen, until the client or the gateway ends it.

    `Last-Event-ID` first gives what was missed, as far as it is kept; `events.lost` tells how many are not.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in EVENTS]
    if unknown:
        raise invalid("names", f"{unknown[0]!r} is not an event; see docs/reference/events.md.")
    if services.bus.subscriber_count >= MAX_SUBSCRIBERS:
        services.bus.emit("limit.reached", limit="event_subscribers", value=MAX_SUBSCRIBERS)
        raise GatewayError("gb.route.rate_limited", f"{MAX_SUBSCRIBERS} programs read the events already.")
    subscription = services.bus.subscribe(wanted or None, last_id=last_event_id)
    text = _lines(subscription, services, everything=sees_pending(request), key_id=key.id)
    return StreamingResponse(text, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _lines(
    subscription: Subscription, services: ApiServices, *, everything: bool, key_id: str
) -> AsyncIterator[bytes]:
    try:
        yield b"retry: 2000\n\n"
        quiet_s = 0.0
        while services.keys.is_valid(key_id):
            event = await subscription.next(_LOOK_S)
            if event is None:
                if subscription.closed:
                    return
                quiet_s += _LOOK_S
                if quiet_s >= HEARTBEAT_S:
                    quiet_s = 0.0
                    yield b": still here\n\n"
            elif everything or _viewer_may_see(services, event):
                yield b"id: %s\nevent: %s\ndata: %s\n\n" % (
                    event.id.encode(),
                    event.name.encode(),
                    orjson.dumps(event.as_dict()),
                )
    finally:
        subscription.close()


def _viewer_may_see(services: ApiServices, event: Event) -> bool:
    if event.name == "events.lost":
        return True
    if not event.name.startswith(_VIEWER_EVENTS):
        return False
    device_id = event.fields.get("device_id")
    if device_id is None:
        return True
    device = services.devices.get(str(device_id))
    return device is not None and device.approved
