"""Answers of the media listener as bytes: heads, problems (RFC 9457), CORS, the WebSocket handshake. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import urlsplit

import orjson

from gb28181gw.errors import GatewayError

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
Header = tuple[str, str]


def head(status: int, headers: Iterable[Header], *, version: str = "1.1") -> bytes:
    """Status line and header section. Raises ValueError for a value that would break out of its line."""
    lines = [f"HTTP/{version} {status} {HTTPStatus(status).phrase}", f"Date: {formatdate(usegmt=True)}"]
    for name, value in headers:
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"header {name} has a line break")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def answer(
    status: int,
    headers: Sequence[Header] = (),
    body: bytes = b"",
    *,
    content_type: str = "",
    keep_alive: bool,
    head_only: bool = False,
) -> bytes:
    """A complete answer with its length."""
    fields = [*headers]
    if content_type:
        fields.append(("Content-Type", content_type))
    if status != HTTPStatus.NO_CONTENT:
        fields.append(("Content-Length", str(len(body))))
    fields += [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    fields.append(("Connection", "keep-alive" if keep_alive else "close"))
    return head(status, fields) + (b"" if head_only else body)


def problem(error: GatewayError) -> bytes:
    """The problem document of an error, as the API gives it."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": error.row.title,
        "status": error.row.http_status,
        "detail": error.detail,
        "code": error.code,
        "stage": error.row.stage,
        "hint": error.row.hint,
    }
    if error.sip_status is not None:
        document["sip_status"] = error.sip_status
    return orjson.dumps(document)


def stream_head(content_type: str, cors: Sequence[Header], *, chunked: bool) -> bytes:
    """Head of an answer without end."""
    fields: list[Header] = [
        ("Content-Type", content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Connection", "close"),
        *cors,
    ]
    if chunked:
        fields.append(("Transfer-Encoding", "chunked"))
    return head(200, fields, version="1.1" if chunked else "1.0")


def websocket_accept(key: str) -> str | None:
    """`Sec-WebSocket-Accept` of a key; None when it is not 16 bytes in base64 (RFC 6455 4.2.1)."""
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    # RFC 6455 names SHA-1; it protects nothing here.
    digest = hashlib.sha1(key.encode("ascii") + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def websocket_head(accept: str) -> bytes:
    return head(101, (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)))


def host_name(authority: str) -> str:
    """Host of an authority, without port, in lower case; empty when it has none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


class CorsPolicy:
    """Who may read the answers from a page of another origin: the configured origins, and pages of this host.

    The console is served by another port of the same host, so its origin differs from the listener's.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def headers(self, origin: str, host: str) -> list[Header]:
        """Headers of an answer to a request with these `Origin` and `Host` fields."""
        vary: Header = ("Vary", "Origin")
        if not origin:
            return [vary]
        wanted = origin.rstrip("/").lower()
        try:
            name = (urlsplit(wanted).hostname or "").lower()
        except ValueError:
            name = ""
        if "*" in self._origins or wanted in self._origins or (name and name == host_name(host)):
            return [("Access-Control-Allow-Origin", origin), vary]
        return [vary]

    def preflight(
        self,
        origin: str,
        host: str,
        *,
        methods: str = "GET, HEAD, OPTIONS",
        request_headers: str = "Authorization, Range",
    ) -> list[Header]:
        """Headers of the answer to OPTIONS."""
        fields = self.headers(origin, host)
        if len(fields) > 1:
            fields += [
                ("Access-Control-Allow-Methods", methods),
                ("Access-Control-Allow-Headers", request_headers),
                ("Access-Control-Max-Age", "600"),
            ]
        return fields
