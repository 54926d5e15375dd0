"""Every error of the API as an RFC 9457 problem document with a code of the closed list (docs/reference/api.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from gb28181gw.errors import CODES, GatewayError

PROBLEM_TYPE: Final = "application/problem+json"


class ProblemError(GatewayError):
    """A problem of HTTP itself, whose status is not that of its code (405, 413)."""

    def __init__(self, code: str, detail: str, *, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(code, detail)
        self.status = status
        self.headers = headers or {}


def invalid(field: str, sentence: str) -> GatewayError:
    """gb.route.invalid that names the field."""
    return GatewayError("gb.route.invalid", f"{field}: {sentence}", field=field)


def problem_document(
    error: GatewayError, *, trace_id: str = "", fields: Sequence[Any] = ()
) -> dict[str, object]:
    """The members of the answer; `hint` says what the reader does next."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": error.row.title,
        "status": error.status if isinstance(error, ProblemError) else error.row.http_status,
        "detail": f"{error.detail} {error.row.hint}" if error.detail != error.row.title else error.row.hint,
        "code": error.code,
        "stage": error.row.stage,
        "hint": error.row.hint,
    }
    if error.sip_status is not None:
        document["sip_status"] = error.sip_status
    if fields:
        document["errors"] = list(fields)
    if trace_id:
        document["trace_id"] = trace_id
    return document


def problem_response(error: GatewayError, *, trace_id: str = "", fields: Sequence[Any] = ()) -> Response:
    document = problem_document(error, trace_id=trace_id, fields=fields)
    headers: dict[str, str] = dict(error.headers) if isinstance(error, ProblemError) else {}
    if error.code == "gb.route.unauthorised":
        headers["WWW-Authenticate"] = 'Bearer realm="gb28181gw"'
    if error.code in ("gb.route.rate_limited", "gb.route.storage_unavailable", "gb.route.shutting_down"):
        headers["Retry-After"] = "5"
    status = document["status"]
    assert isinstance(status, int)  # noqa: S101 - it was put there above
    return Response(orjson.dumps(document), status, headers, media_type=PROBLEM_TYPE)


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer with problems only."""

    async def gateway_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)  # noqa: S101 - registered for it below
        return problem_response(error, trace_id=_trace_id(request))

    async def validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it below
        fields = [{"field": _field(item["loc"]), "message": _message(item)} for item in error.errors()]
        detail = " ".join(f"{item['field']}: {item['message']}." for item in fields[:5])
        return problem_response(
            GatewayError("gb.route.invalid", detail), trace_id=_trace_id(request), fields=fields[:20]
        )

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it below
        return problem_response(from_http(request.scope, error), trace_id=_trace_id(request))

    app.add_exception_handler(GatewayError, gateway_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)


def from_http(scope: Scope, error: HTTPException) -> GatewayError:
    """An error that the HTTP layer found, in our words."""
    path, method = scope["path"][:200], scope["method"]
    if error.status_code == 404:
        return GatewayError("gb.route.not_found", f"There is nothing at {path}.")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        detail = f"{method} is not possible at {path}; use {headers.get('Allow', 'another method')}."
        return ProblemError("gb.route.invalid", detail, status=405, headers=headers)
    if error.status_code < 500:
        return ProblemError("gb.route.invalid", str(error.detail), status=error.status_code, headers=headers)
    return GatewayError("gb.route.internal", str(error.detail))


def _trace_id(request: Request) -> str:
    return str(getattr(request.state, "trace_id", ""))


def _field(location: Sequence[object]) -> str:
    """The name as the caller wrote it: without where it was found (body, query, path, header)."""
    parts = [str(part) for part in location[1:]]
    return ".".join(parts) or "body"


def _message(item: dict[str, Any]) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "missing":
        return "is missing"
    if kind == "json_invalid":
        return "is not valid JSON"
    if kind == "value_error":
        return str(item["ctx"]["error"]).rstrip(".")
    message = str(item["msg"])
    return message[:1].lower() + message[1:]


PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457 problem details. `code` is stable and one of the closed list in docs/reference/errors.md.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "stage", "hint"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What went wrong in this case, and what to do."},
        "code": {"type": "string", "enum": sorted(CODES)},
        "stage": {"type": "string", "enum": sorted({row.stage for row in CODES.values()})},
        "hint": {"type": "string"},
        "sip_status": {"type": "integer", "description": "The peer's status, where it gave one."},
        "trace_id": {"type": "string", "description": "Also in the log lines of this request."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
