"""Play URLs (docs/reference/api.md): which stream, which container, which variant. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from gb28181gw.errors import GatewayError

_LIVE = re.compile(r"/live/([0-9A-Za-z.-]{1,32})_([0-9A-Za-z.-]{1,32})\.([a-z0-9]{1,8})")
_PLAYBACK = re.compile(r"/playback/([0-9A-Za-z_-]{1,64})\.([a-z0-9]{1,8})")
_OTHER = re.compile(r"/(?:live|playback)/[0-9A-Za-z_.-]{1,80}/(?:index\.m3u8|whep)")
_MAX_QUERY = 2048
_MAX_FIELDS = 32

AUDIO_MODES = ("auto", "copy", "aac", "none")
HEVC_MODES = ("enhanced", "legacy")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayTarget:
    """What a play path names."""

    container: str
    """Extension of the path: ``flv``."""
    device_id: str = ""
    channel_id: str = ""
    stream_id: str = ""
    """Of a playback; empty for live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayOptions:
    """The query of a play URL."""

    token: str | None = None
    audio: str = "auto"
    hevc: str = "enhanced"


def decode_path(raw: bytes) -> str:
    """Percent-decoded path; what is no UTF-8 becomes a character that no path contains."""
    return unquote_to_bytes(raw).decode("utf-8", "replace")


def is_play_path(path: str) -> bool:
    """A path of this listener, though perhaps of a container that is not served."""
    return path.startswith(("/live/", "/playback/"))


def parse_target(path: str) -> PlayTarget:
    """Raises `gb.route.not_found` or, for outputs that this gateway does not serve,
    `gb.output.unsupported_container`.
    """
    live = _LIVE.fullmatch(path)
    if live is not None:
        target = PlayTarget(container=live[3], device_id=live[1], channel_id=live[2])
    else:
        playback = _PLAYBACK.fullmatch(path)
        if playback is None:
            if _OTHER.fullmatch(path):
                raise GatewayError("gb.output.unsupported_container", "This output is not served.")
            raise GatewayError("gb.route.not_found", "No stream has this path.")
        target = PlayTarget(container=playback[2], stream_id=playback[1])
    if target.container != "flv":
        raise GatewayError(
            "gb.output.unsupported_container", f"The container .{target.container} is not served."
        )
    return target


def parse_options(query: bytes) -> PlayOptions:
    """Raises `gb.route.invalid`. Unknown parameters are ignored: players add their own."""
    if len(query) > _MAX_QUERY:
        raise GatewayError("gb.route.invalid", "The query is too long.")
    try:
        found = dict(parse_qsl(query.decode("ascii", "replace"), max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise GatewayError("gb.route.invalid", "The query has too many fields.") from None
    audio, hevc = found.get("audio", "auto"), found.get("hevc", "enhanced")
    if audio not in AUDIO_MODES:
        raise GatewayError("gb.route.invalid", f"audio is one of {', '.join(AUDIO_MODES)}.")
    if hevc not in HEVC_MODES:
        raise GatewayError("gb.route.invalid", f"hevc is one of {', '.join(HEVC_MODES)}.")
    return PlayOptions(token=found.get("token"), audio=audio, hevc=hevc)
