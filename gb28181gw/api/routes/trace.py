"""The SIP trace of a device: its last messages, as JSON, as text, or for Wireshark (O-05)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from gb28181gw.access.roles import Action
from gb28181gw.api.schemas import TracePage, trace_answer
from gb28181gw.api.security import Services, requires
from gb28181gw.errors import GatewayError
from gb28181gw.observability.pcap import write_pcap
from gb28181gw.observability.trace import MESSAGES_PER_DEVICE

router = APIRouter(prefix="/api/v1", tags=["trace"])


@router.get(
    "/devices/{device_id}/trace",
    operation_id="get_trace",
    dependencies=[requires(Action.TRACE)],
    response_model=TracePage,
    responses={200: {"content": {"application/vnd.tcpdump.pcap": {}, "application/json": {}}}},
)
async def get_trace(
    device_id: str,
    services: Services,
    after: Annotated[int, Query(ge=0, description="Only messages with a higher number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MESSAGES_PER_DEVICE)] = MESSAGES_PER_DEVICE,
    format: Literal["json", "pcap"] = "json",
) -> TracePage | Response:
    """The newest messages, oldest first, without credentials. Of keepalives only the last one is kept."""
    # Also of an id that is refused and therefore no device: that is when a trace is wanted most.
    if services.devices.get(device_id) is None and not services.trace.messages(device_id, limit=1):
        raise GatewayError(
            "gb.route.device_unknown", f"There is no device {device_id[:64]}, and no message of it."
        )
    messages = services.trace.messages(device_id, after=after, limit=limit)
    if format == "pcap":
        return Response(
            write_pcap(messages),
            media_type="application/vnd.tcpdump.pcap",
            headers={"Content-Disposition": 'attachment; filename="trace.pcap"'},
        )
    return TracePage(
        items=[trace_answer(message) for message in messages],
        total=len(messages),
        keepalives=services.trace.keepalives(device_id),
    )
