"""Where a channel may be pushed to, and how such a URL is shown. Pure.

A push URL is a secret: its user info, query and last path segment (the stream key) let anybody publish there.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from gb28181gw.errors import GatewayError

RTMP = frozenset({"rtmp", "rtmps"})
RTSP = frozenset({"rtsp", "rtsps"})
MAX_CHARS = 2048
HIDDEN = "***"


def checked_url(text: str) -> str:
    """`text`, if it may be pushed to. Raises gb.route.invalid, with nothing of `text` in it."""
    if len(text) > MAX_CHARS or not text.isprintable() or not text.isascii() or " " in text:
        raise GatewayError(
            "gb.route.invalid", "url: printable ASCII without spaces, at most 2048 characters."
        )
    parts = _split(text)
    if parts is None or parts.scheme not in RTMP | RTSP:
        raise GatewayError("gb.route.invalid", "url: begins with rtmp://, rtmps://, rtsp:// or rtsps://.")
    if not parts.hostname or not parts.path.strip("/"):
        raise GatewayError("gb.route.invalid", "url: needs a host and a path.")
    return text


def is_rtmp(url: str) -> bool:
    return url.partition(":")[0].lower() in RTMP


def shown_url(url: str) -> str:
    """Scheme, host and port, and the path without its last segment: what may be logged and answered."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return HIDDEN
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port is not None else ""
    folders = parts.path.strip("/").split("/")[:-1]
    return "/".join([f"{parts.scheme}://{host}{port}", *folders, HIDDEN])


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # out of range raises
    except ValueError:
        return None
    return parts
