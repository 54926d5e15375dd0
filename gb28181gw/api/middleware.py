"""Around every request: a trace id, security headers, the body limit, the key, and the net for our own bugs.

One pure ASGI middleware, because its order matters and because nothing of it may be forgotten on a route:
without a valid key nothing but `PUBLIC_PATHS` is reached (S-09).
"""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gb28181gw.access.guard import bearer
from gb28181gw.access.keys import Key, Keys
from gb28181gw.access.roles import Action, may
from gb28181gw.access.tokens import PlayTokens
from gb28181gw.api.errors import from_http, problem_response
from gb28181gw.errors import GatewayError
from gb28181gw.observability.events import EventBus
from gb28181gw.observability.metrics import Histogram, Labels
from gb28181gw.ua.passage import USER

PUBLIC_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""What needs no key; it tells nothing but the state."""
WEBSOCKETS: Final[dict[str, Action]] = {"/api/v1/talks/{talk_id}/audio": Action.TALK}
"""The routes that are WebSockets, and what they are. Every other one is refused before its handshake."""
_WEBSOCKET_PATH: Final = re.compile(r"/api/v1/talks/[0-9a-f]{32}/audio", re.ASCII)
MAX_BODY_BYTES: Final = 1024 * 1024

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""S-17. The API sends no CORS headers: web pages of other origins have no business with it."""


@dataclass(slots=True)
class ApiCounters:
    """Plain counters for the exporter."""

    requests: Counter[Labels] = field(default_factory=Counter)
    """By (method, route template, status)."""
    seconds: dict[Labels, Histogram] = field(default_factory=dict)
    """By (method, route template)."""
    denied: int = 0
    """Requests without a valid key."""
    failed: int = 0
    """Requests that ended in a bug of ours."""


class Gate:
    """The middleware."""

    def __init__(
        self, app: ASGIApp, *, keys: Keys, tokens: PlayTokens, bus: EventBus, counters: ApiCounters
    ) -> None:
        self._app = app
        self._keys = keys
        self._tokens = tokens
        self._bus = bus
        self._counters = counters
        self._log = structlog.get_logger("gb28181gw.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await self._websocket(scope, receive, send)
            return
        trace_id = secrets.token_hex(8)
        scope.setdefault("state", {})["trace_id"] = trace_id
        started = time.perf_counter()
        status = 0

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Trace-Id"] = trace_id
            await send(message)

        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                await self._admit(scope, receive, send_and_look)
            except Exception as error:
                self._counters.failed += 1
                self._bus.emit(
                    "api.failed",
                    method=scope["method"],
                    path=scope["path"],
                    error=repr(error),
                    trace_id=trace_id,
                )
                self._log.error("api.traceback", exc_info=True)
                if not status:
                    problem = problem_response(GatewayError("gb.route.internal"), trace_id=trace_id)
                    await problem(scope, receive, send_and_look)
            finally:
                self._count(scope, status, time.perf_counter() - started)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """By a token of this very path, since browsers cannot send headers here, or by a key in the header."""
        if not _WEBSOCKET_PATH.fullmatch(scope["path"]) or not await self._may_open(scope):
            self._counters.denied += 1
            client = scope.get("client")
            self._bus.emit(
                "access.denied",
                client=client[0] if client else None,
                method="GET",
                path=scope["path"],
                reason="unauthorised",
            )
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    async def _may_open(self, scope: Scope) -> bool:
        token = QueryParams(scope["query_string"]).get("token")
        if token:
            grant = self._tokens.read(scope["path"], token)
            return grant is not None and self._keys.is_valid(grant.id.partition("-")[0])
        text = bearer(Headers(scope=scope).get("authorization"))
        key = await self._keys.verify(text) if text else None
        return key is not None and may(key.role, Action.TALK)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] not in PUBLIC_PATHS:
                scope["state"]["key"] = await self._authenticate(scope)
            limited = _limit_body(scope, receive)
        except (GatewayError, HTTPException) as error:
            found = error if isinstance(error, GatewayError) else from_http(scope, error)
            await problem_response(found, trace_id=scope["state"]["trace_id"])(scope, receive, send)
            return
        key = scope["state"].get("key")
        token = USER.set(key.id if key is not None else "")
        try:
            await self._app(scope, limited, send)
        finally:
            USER.reset(token)

    async def _authenticate(self, scope: Scope) -> Key:
        text = bearer(Headers(scope=scope).get("authorization"))
        key = await self._keys.verify(text) if text else None
        if key is not None:
            return key
        self._counters.denied += 1
        client = scope.get("client")
        self._bus.emit(
            "access.denied",
            client=client[0] if client else None,
            method=scope["method"],
            path=scope["path"],
            reason="unauthorised",
        )
        raise GatewayError(
            "gb.route.unauthorised",
            "The key is not known or has expired." if text else "The request has no key.",
        )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        # Only templates: a path chosen by the caller would be a label without bound.
        template = str(getattr(route, "path", "other"))
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._counters.requests[method, template, str(status)] += 1
        histogram = self._counters.seconds.get((method, template))
        if histogram is None:
            histogram = self._counters.seconds[method, template] = Histogram()
        histogram.observe(seconds)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _limit_body(scope: Scope, receive: Receive) -> Receive:
    """`receive` that raises a 413 problem when more than `MAX_BODY_BYTES` arrive; at once if announced."""
    announced = Headers(scope=scope).get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise _too_large()
        return message

    return limited


def _too_large() -> HTTPException:
    """Of Starlette's kind, because FastAPI lets only that one through while it reads a body."""
    return HTTPException(413, f"body: it is larger than {MAX_BODY_BYTES} bytes.", {"Connection": "close"})
