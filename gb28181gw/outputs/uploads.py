"""Pictures that devices upload to the media listener: raw by PUT or POST, or as a form (GB/T 28181-2022 9.14.3).

The standard says no more than "by http". The secret is the path: ``/upload/TOKEN``, with a name behind it if the
device wants to; whose token it is, `UploadTaker` knows. Nothing of a body is read before the token was accepted.
"""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import unquote

from gb28181gw.errors import GatewayError

PREFIX = "/upload/"
_PATH = re.compile(r"/upload/([0-9A-Za-z_-]{16,64})(?:/([^/]{1,128}))?/?")
_UNSAFE = re.compile(r"[^0-9A-Za-z._-]+")
_BOUNDARY = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_FILE_NAME = re.compile(rb'filename="?([^"\r\n;]{1,128})', re.IGNORECASE)
_FORM_OVERHEAD = 16 * 1024
"""What the headers of a form may add to the picture."""


class Ticket(Protocol):
    """An upload that was let in."""

    limit: int
    """Bytes of the picture."""

    async def take(self, name: str, data: bytes) -> None: ...

    def release(self) -> None: ...


class UploadTaker(Protocol):
    """Who knows the tokens (`devices.snapshots.Snapshots`)."""

    def admit(self, token: str, client: str) -> Ticket: ...


class Upload:
    """One body on its way. `close` it in any case."""

    def __init__(self, taker: UploadTaker, path: str, content_type: str, announced: int, client: str) -> None:
        """Raises GatewayError gb.route.not_found or gb.route.rate_limited; then nothing is to be closed."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise GatewayError("gb.route.not_found", "Nothing is served under this path.")
        self._name = safe_name(unquote(found[2] or ""))
        self._content_type = content_type
        self._body = bytearray()
        self._ticket = taker.admit(found[1], client)
        self._limit = self._ticket.limit + _FORM_OVERHEAD
        self.fits = announced <= self._limit
        """False as soon as it is larger than it may be."""

    def feed(self, data: bytes) -> None:
        """More of the body; what is beyond the limit is not kept."""
        if len(self._body) + len(data) > self._limit:
            self.fits = False
            self._body.clear()
        if self.fits:
            self._body += data

    async def finish(self) -> None:
        """Hand the picture over. Raises GatewayError."""
        data, name = picture_of(bytes(self._body), self._content_type)
        if len(data) > self._ticket.limit:
            raise GatewayError("gb.route.invalid", "body: the picture is too large.")
        await self._ticket.take(self._name or name, data)

    def close(self) -> None:
        """Idempotent."""
        self._body.clear()
        self._ticket.release()


def safe_name(text: str) -> str:
    """A name for display and for files of people: no path, nothing that a shell or a page could misread."""
    return _UNSAFE.sub("_", text.replace("\\", "/").rpartition("/")[2]).lstrip(".")[:64]


def picture_of(body: bytes, content_type: str) -> tuple[bytes, str]:
    """The picture and its name: the body itself, or of a form the part that is a file, else the largest one."""
    if not content_type.lower().startswith("multipart/"):
        return body, ""
    found = _BOUNDARY.search(content_type)
    if found is None:
        return body, ""
    best, best_name, best_is_file = b"", "", False
    for part in body.split(b"--" + (found[1] or found[2]).encode("latin-1"))[1:]:
        head, blank, data = part.partition(b"\r\n\r\n")
        if not blank:
            continue
        data = data.removesuffix(b"\r\n")
        name = _FILE_NAME.search(head)
        if (name is not None, len(data)) > (best_is_file, len(best)):
            best, best_is_file = data, name is not None
            best_name = safe_name(name[1].decode("utf-8", "replace")) if name is not None else ""
    return best, best_name
