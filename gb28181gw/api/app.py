"""The application: routes, middleware, error model. `create_api` is the only way to make it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute

from gb28181gw.access.roles import Action
from gb28181gw.api.errors import PROBLEM_SCHEMA, PROBLEM_TYPE, install_error_handlers
from gb28181gw.api.middleware import PUBLIC_PATHS, WEBSOCKETS, ApiCounters, Gate
from gb28181gw.api.routes import (
    channels,
    control,
    devices,
    downloads,
    events,
    keys,
    pushes,
    recording,
    records,
    reports,
    snapshots,
    stills,
    streams,
    subscriptions,
    system,
    talks,
    trace,
    uppers,
)
from gb28181gw.api.security import action_of, requires
from gb28181gw.api.services import ApiServices

API = "/api/v1"
MODULES = (
    system,
    devices,
    subscriptions,
    channels,
    control,
    streams,
    stills,
    records,
    downloads,
    recording,
    pushes,
    talks,
    reports,
    uppers,
    snapshots,
    events,
    keys,
    trace,
)
"""The resources, in the order of the reference."""


def create_api(services: ApiServices) -> FastAPI:
    """The ASGI application. Its counters are in `app.state.counters` and among `services.metrics`."""
    app = FastAPI(
        title="gb28181gw",
        version=services.version or "0",
        summary="GB/T 28181 gateway: every vendor's camera and NVR behind one interface",
        # The interactive pages load scripts from elsewhere; the schema is served below, behind a key.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.counters = counters = ApiCounters()
    for module in MODULES:
        # Not include_router: newer FastAPI hides the routes in an object of its own, and they are checked below.
        app.router.routes.extend(module.router.routes)

    @app.get(f"{API}/openapi.json", include_in_schema=False, dependencies=[requires(Action.VIEW)])
    async def schema() -> dict[str, Any]:
        return app.openapi()

    install_error_handlers(app)
    app.add_middleware(Gate, keys=services.keys, tokens=services.tokens, bus=services.bus, counters=counters)
    _insist_on_actions(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    _register_metrics(services, counters)
    return app


def _insist_on_actions(app: FastAPI) -> None:
    """Default deny (S-09): a route that does not say who may use it is a mistake that must not start."""
    for route in app.routes:
        if isinstance(route, APIWebSocketRoute) and route.path in WEBSOCKETS:
            continue
        if not isinstance(route, APIRoute):
            raise TypeError(f"{route} is not a route of the API")
        if route.path not in PUBLIC_PATHS and action_of(route) is None:
            raise RuntimeError(f"{route.path} does not say which action it is")


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The schema with the error model on every operation and the key as its security."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        problem = {
            "description": "A problem; see `code`.",
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                if path in PUBLIC_PATHS:
                    operation["security"] = []
                else:
                    operation["responses"]["default"] = problem
                    operation["security"] = [{"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema


def _register_metrics(services: ApiServices, counters: ApiCounters) -> None:
    metrics = services.metrics
    metrics.counters(
        "api_requests",
        "Requests by method, route and status.",
        ("method", "route", "status"),
        lambda: counters.requests,
    )
    metrics.histograms(
        "api_request_seconds",
        "Time to answer, by method and route.",
        ("method", "route"),
        lambda: counters.seconds,
    )
    metrics.counter("api_denied", "Requests without a valid key.", lambda: counters.denied)
    metrics.counter("api_failed", "Requests that ended in a bug of the gateway.", lambda: counters.failed)
    metrics.gauge(
        "event_subscribers", "Programs that read the events.", lambda: services.bus.subscriber_count
    )
    metrics.counters(
        "events",
        "Events by name.",
        ("event",),
        lambda: {(name,): n for name, n in services.bus.counts.items()},
    )
    metrics.gauge("sip_trace_bytes", "Memory of the SIP traces.", lambda: services.trace.bytes)
