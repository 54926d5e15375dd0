"""Access keys. A key's text is shown once, in the answer that made it."""

from __future__ import annotations

from fastapi import APIRouter

from gb28181gw.access.roles import Action
from gb28181gw.api.errors import invalid
from gb28181gw.api.paging import Paged
from gb28181gw.api.schemas import KeyAnswer, NewKey, NewKeyAnswer, Page, iso_time, key_fields
from gb28181gw.api.security import Services, requires
from gb28181gw.errors import GatewayError

router = APIRouter(prefix="/api/v1/keys", tags=["keys"], dependencies=[])


@router.get("", operation_id="list_keys", dependencies=[requires(Action.MANAGE_KEYS)])
async def list_keys(services: Services, paging: Paged) -> Page[KeyAnswer]:
    """All keys, without their text."""
    await services.keys.load()
    found = paging.pick(services.keys.all(), lambda key: (key.id, key.name))
    return paging.cut(found, lambda key: KeyAnswer(**key_fields(key, services.zone)))


@router.post("", operation_id="create_key", status_code=201, dependencies=[requires(Action.MANAGE_KEYS)])
async def create_key(body: NewKey, services: Services) -> NewKeyAnswer:
    """Make a key; it expires only if `days` is given."""
    key, text = await services.keys.create(body.name, body.role, days=body.days)
    services.bus.emit(
        "key.created",
        key_id=key.id,
        key_name=key.name,
        role=key.role,
        expires_at=iso_time(key.expires_at, services.zone),
    )
    return NewKeyAnswer(**key_fields(key, services.zone), key=text)


@router.delete(
    "/{key_id}", operation_id="remove_key", status_code=204, dependencies=[requires(Action.MANAGE_KEYS)]
)
async def remove_key(key_id: str, services: Services) -> None:
    """Remove a key; what was opened with it, or with URLs that it asked for, ends."""
    try:
        key = await services.keys.remove(key_id)
    except ValueError as error:
        raise invalid("key_id", f"{error}; delete the file and start again to get a new one.") from error
    if key is None:
        raise GatewayError("gb.route.not_found", f"There is no key {key_id[:64]}.")
    services.bus.emit("key.revoked", key_id=key.id, key_name=key.name, role=key.role)
