"""Talks to the gateway that runs with the same configuration, as `trace`, `device` and `check` need it."""

from __future__ import annotations

import hashlib
import json
import ssl
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gb28181gw.errors import CODES, GatewayError

if TYPE_CHECKING:
    from gb28181gw.settings import Settings


class NotRunningError(Exception):
    """Nothing answers at `[http] listen`."""


class RunningGateway:
    """Its API, at the address of the configuration and with the key of `secrets.toml`."""

    def __init__(self, url: str, key: str, *, certificate: str = "", timeout_s: float = 5.0) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if certificate:
            # Our own certificate is all that we trust; its names need not fit the address that is bound.
            context = ssl.create_default_context(cafile=certificate)
            context.check_hostname = False
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str) -> bytes:
        """The body of an answer. Raises NotRunningError, or GatewayError as the API told it."""
        return self._ask(urllib.request.Request(self.url + path))  # noqa: S310 - the scheme is ours, see `of`

    def picture(self, path: str) -> tuple[bytes, Message]:
        """The body of an answer, and its headers. Raises as `get`."""
        with self._open(urllib.request.Request(self.url + path)) as answer:  # noqa: S310 - the scheme is ours
            headers: Message = answer.headers
            body: bytes = answer.read()
            return body, headers

    def save(self, path: str, file: Path) -> str:
        """GET into a file; its SHA-256. Raises as `get`, and OSError for the file."""
        request = urllib.request.Request(self.url + path)  # noqa: S310 - the scheme is ours, see `of`
        total = hashlib.sha256()
        with self._open(request) as answer, file.open("wb") as out:
            while piece := answer.read(1 << 20):
                total.update(piece)
                out.write(piece)
        return total.hexdigest()

    def post(self, path: str, body: object) -> Any:
        """POST JSON and read JSON; None for an answer without a body. Raises as `get`."""
        request = urllib.request.Request(  # noqa: S310 - the scheme is ours, see `of`
            self.url + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        answer = self._ask(request)
        return json.loads(answer) if answer else None

    def put(self, path: str, body: object, content_type: str = "application/json") -> Any:
        """PUT JSON, or bytes of another type, and read JSON. Raises as `get`."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is ours, see `of`
            self.url + path, data=data, headers={"Content-Type": content_type}, method="PUT"
        )
        return json.loads(self._ask(request))

    def patch(self, path: str, body: object) -> Any:
        """PATCH JSON and read JSON. Raises as `get`."""
        request = urllib.request.Request(  # noqa: S310 - the scheme is ours, see `of`
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method="PATCH",
        )
        return json.loads(self._ask(request))

    def post_bytes(self, path: str, body: bytes, content_type: str) -> Any:
        """POST a body of another kind and read JSON. Raises as `get`."""
        request = urllib.request.Request(  # noqa: S310 - the scheme is ours, see `of`
            self.url + path, data=body, headers={"Content-Type": content_type}
        )
        return json.loads(self._ask(request))

    def delete(self, path: str) -> None:
        """DELETE. Raises as `get`."""
        self._ask(urllib.request.Request(self.url + path, method="DELETE"))  # noqa: S310 - the scheme is ours

    def _ask(self, request: urllib.request.Request) -> bytes:
        with self._open(request) as answer:
            try:
                body: bytes = answer.read()
            except OSError as error:
                raise NotRunningError(str(error)) from error
            return body

    def _open(self, request: urllib.request.Request) -> Any:
        if self._key:
            request.add_header("Authorization", f"Bearer {self._key}")
        try:
            return self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            raise _problem(error.read(), error.code) from None
        except (OSError, ValueError) as error:
            raise NotRunningError(str(error)) from error

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path))


def _problem(body: bytes, status: int) -> GatewayError:
    try:
        document = json.loads(body)
        code, detail = str(document["code"]), str(document["detail"])
    except (ValueError, KeyError, TypeError):
        return GatewayError(
            "gb.config.port_in_use",
            f"http.listen: something that is not the gateway answered there with status {status}.",
        )
    row = CODES.get(code, CODES["gb.route.internal"])
    return GatewayError(row.code, detail.removesuffix(row.hint).strip())


def running_gateway(
    settings: Settings, *, url: str = "", key: str = "", timeout_s: float = 5.0
) -> RunningGateway:
    """For the gateway of these settings; `url` and `key` win over them."""
    from gb28181gw.access.secrets import read_secrets

    if not url:
        address = settings.http.address
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
        host = loopback.get(address.host, address.host)
        scheme = "https" if settings.http.cert else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{address.port}"
    elif not url.startswith(("http://", "https://")):
        raise GatewayError("gb.route.invalid", f"--url {url!r} must begin with http:// or https://.")
    if not key:
        try:
            key = read_secrets(settings.secrets_path).admin_key
        except (FileNotFoundError, GatewayError):
            key = ""
    return RunningGateway(url, key, certificate=settings.http.cert, timeout_s=timeout_s)
