"""Play URLs as the API returns them (docs/reference/api.md): host, path and token."""

from __future__ import annotations

import re
from typing import Final

from gb28181gw.access.tokens import Grant, PlayTokens
from gb28181gw.api.schemas import PlayUrls
from gb28181gw.api.services import PlayUrlConfig

_HOST: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z](?:[0-9A-Za-z._-]{0,252}))(?::(\d{1,5}))?", re.ASCII
)


def media_authority(config: PlayUrlConfig, host_header: str) -> str:
    """``host:port`` of the media listener as this caller reaches it.

    `advertise` wins; else it is the host name by which the caller reached the API, with the media port. The
    caller writes the Host header himself, so what is no host name is not repeated to him.
    """
    found = _HOST.fullmatch(config.advertise or "")
    if found is not None:
        return f"{found[1]}:{found[2] or config.port()}"
    if config.advertise:  # an IPv6 address without brackets
        return f"[{config.advertise}]:{config.port()}"
    found = _HOST.fullmatch(host_header)
    host = found[1] if found is not None else "127.0.0.1"
    return f"{host}:{config.port()}"


def api_authority(host_header: str) -> str:
    """``host[:port]`` by which this caller reached the API; a Host header that is none is not repeated to him."""
    return host_header if _HOST.fullmatch(host_header) is not None else "127.0.0.1"


def play_urls(config: PlayUrlConfig, tokens: PlayTokens, grant: Grant, *, host: str, path: str) -> PlayUrls:
    """URLs of a stream for one grant; `path` is ``/live/DEVICE_CHANNEL`` or ``/playback/STREAM``."""
    token = tokens.mint(path, grant)
    authority = media_authority(config, host)
    return PlayUrls(
        http_flv=f"http://{authority}{path}.flv?token={token}",
        ws_flv=f"ws://{authority}{path}.flv?token={token}",
    )
