"""What is subscribed at a device, and how it stands."""

from __future__ import annotations

from fastapi import APIRouter

from gb28181gw.access.roles import Action
from gb28181gw.api.report_schemas import SubscriptionAnswer, subscription_answer
from gb28181gw.api.schemas import Page
from gb28181gw.api.security import Services, VisibleDevice, requires

router = APIRouter(prefix="/api/v1/devices/{device_id}/subscriptions", tags=["devices"])


@router.get("", operation_id="list_subscriptions", dependencies=[requires(Action.VIEW)])
async def list_subscriptions(device: VisibleDevice, services: Services) -> Page[SubscriptionAnswer]:
    """What is wanted by `[sip] subscribe` or by the device's own `subscribe`, and what the device makes of it."""
    found = services.subscriptions.of(device)
    return Page[SubscriptionAnswer](
        items=[subscription_answer(view, services.zone) for view in found], total=len(found)
    )


@router.post(
    "",
    operation_id="renew_subscriptions",
    status_code=202,
    dependencies=[requires(Action.QUERY_DEVICE)],
)
async def renew_subscriptions(device: VisibleDevice, services: Services) -> Page[SubscriptionAnswer]:
    """Renew all of them now, and try again what the device refused or did not know."""
    services.subscriptions.renew(device.id)
    return await list_subscriptions(device, services)
