"""Which action a route is, and whether the caller's role allows it: the only dependency that every route has."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from gb28181gw.access.keys import Key
from gb28181gw.access.roles import Action, may
from gb28181gw.api.services import ApiServices
from gb28181gw.devices.models import Device
from gb28181gw.errors import GatewayError


class Requires:
    """Dependency: the key's role may do `action`, else gb.route.not_authorised."""

    def __init__(self, action: Action) -> None:
        self.action = action

    def __call__(self, request: Request) -> None:
        insist(request, self.action)


def insist(request: Request, action: Action) -> None:
    """Raise gb.route.not_authorised unless the caller's role may do `action`."""
    key = caller(request)
    if not may(key.role, action):
        services(request).bus.emit(
            "access.denied",
            client=request.client.host if request.client else None,
            method=request.method,
            path=request.url.path,
            role=key.role,
            key_id=key.id,
            reason="not_authorised",
        )
        raise GatewayError("gb.route.not_authorised", f"A key of the role {key.role.value} may not do this.")


def requires(action: Action) -> Any:
    """For ``dependencies=[requires(Action.X)]`` of a route."""
    return Depends(Requires(action))


def action_of(route: APIRoute) -> Action | None:
    """The action that a route declares; `create_api` refuses routes without one."""
    for dependency in route.dependencies:
        if isinstance(dependency.dependency, Requires):
            return dependency.dependency.action
    return None


def caller(request: Request) -> Key:
    """The key that the middleware verified."""
    key = getattr(request.state, "key", None)
    if not isinstance(key, Key):
        # Only a route beside the middleware could come here: default deny.
        raise GatewayError("gb.route.unauthorised")
    return key


def services(request: Request) -> ApiServices:
    found = request.app.state.services
    assert isinstance(found, ApiServices)  # noqa: S101 - put there by create_api
    return found


def sees_pending(request: Request) -> bool:
    """Whether devices that wait for approval exist for the caller."""
    return may(caller(request).role, Action.VIEW_PENDING)


def find_device(request: Request, device_id: str) -> Device:
    """The device, if it exists for the caller: one that must not be seen is as unknown as any (S-09)."""
    device = services(request).devices.get(device_id)
    if device is None or not (device.approved or sees_pending(request)):
        raise GatewayError("gb.route.device_unknown", f"There is no device {device_id[:64]}.")
    return device


Services = Annotated[ApiServices, Depends(services)]
Caller = Annotated[Key, Depends(caller)]
VisibleDevice = Annotated[Device, Depends(find_device)]
