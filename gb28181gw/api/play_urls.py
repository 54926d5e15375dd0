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


def media_authority(config: PlayUrlConfig, host_header: str, *, rtsp: bool = False) -> str:
    """``host:port`` of the media listener, or of the RTSP server, as this caller reaches it.

    `advertise` wins; else it is the host name by which the caller reached the API, with the media port. The
    caller writes the Host header himself, so what is no host name is not repeated to him.
    """
    port = config.rtsp_port() if rtsp else config.port()
    found = _HOST.fullmatch(config.advertise or "")
    if found is not None:
        told = None if rtsp else found[2]  # a port in `http_advertise` is that of HTTP
        return f"{found[1]}:{told or port}"
    if config.advertise:  # an IPv6 address without brackets
        return f"[{config.advertise}]:{port}"
    found = _HOST.fullmatch(host_header)
    host = found[1] if found is not None else "127.0.0.1"
    return f"{host}:{port}"


def api_authority(host_header: str) -> str:
    """``host[:port]`` by which this caller reached the API; a Host header that is none is not repeated to him."""
    return host_header if _HOST.fullmatch(host_header) is not None else "127.0.0.1"


def play_urls(config: PlayUrlConfig, tokens: PlayTokens, grant: Grant, *, host: str, path: str) -> PlayUrls:
    """URLs of a stream for one grant; `path` is ``/live/DEVICE_CHANNEL`` or ``/playback/STREAM``."""
    token = tokens.mint(path, grant)
    authority = media_authority(config, host)
    http, websocket = f"http://{authority}{path}", f"ws://{authority}{path}"
    return PlayUrls(
        http_flv=f"{http}.flv?token={token}",
        ws_flv=f"{websocket}.flv?token={token}",
        http_fmp4=f"{http}.mp4?token={token}",
        ws_fmp4=f"{websocket}.mp4?token={token}",
        http_ts=f"{http}.ts?token={token}",
        ws_ts=f"{websocket}.ts?token={token}",
        hls=f"{http}/index.m3u8?token={token}",
        webrtc=f"{http}/whep?token={token}",
        rtsp=f"rtsp://{media_authority(config, host, rtsp=True)}{path}?token={token}",
    )
