"""State and metrics: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gb28181gw.access.roles import Action
from gb28181gw.api.schemas import StateAnswer
from gb28181gw.api.security import Services, requires
from gb28181gw.observability.metrics import CONTENT_TYPE

router = APIRouter(tags=["system"])


@router.get("/healthz", operation_id="healthz")
async def healthz() -> StateAnswer:
    """The process lives and its event loop runs. Needs no key."""
    return StateAnswer(status="ok")


@router.get("/readyz", operation_id="readyz", responses={503: {"model": StateAnswer}})
async def readyz(services: Services, response: Response) -> StateAnswer:
    """Whether devices can register and streams can start. Needs no key.

    503 until every listener is bound and the registry is loaded, and again when the gateway stops.
    """
    health = services.health.health()
    if not health.ready:
        response.status_code = 503
    return StateAnswer(status=health.status.value)


@router.get(
    "/metrics",
    operation_id="metrics",
    dependencies=[requires(Action.METRICS)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: Services) -> Response:
    """The text format of Prometheus."""
    return Response(services.metrics.render(), media_type=CONTENT_TYPE)
