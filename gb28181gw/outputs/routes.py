"""Play URLs (docs/reference/api.md): which stream, which container, which variant. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Container

_LIVE = re.compile(r"/live/([0-9A-Za-z.-]{1,32})_([0-9A-Za-z.-]{1,32})\.([a-z0-9]{1,8})")
_PLAYBACK = re.compile(r"/playback/([0-9A-Za-z_-]{1,64})\.([a-z0-9]{1,8})")
_HLS = re.compile(
    r"(/live/([0-9A-Za-z.-]{1,32})_([0-9A-Za-z.-]{1,32})|/playback/([0-9A-Za-z_-]{1,64}))/"
    r"(index\.m3u8|(?:init|segment|part)-[0-9-]{1,20}\.(?:mp4|m4s))"
)
_WHEP = re.compile(
    r"((?:/live/([0-9A-Za-z.-]{1,32})_([0-9A-Za-z.-]{1,32})|/playback/([0-9A-Za-z_-]{1,64}))/whep)"
    r"(?:/([0-9A-Za-z_-]{8,64}))?"
)
_WHIP = re.compile(r"(/talks/([0-9a-f]{32})/whip)(?:/([0-9A-Za-z_-]{8,64}))?")
_MAX_QUERY = 2048
_MAX_FIELDS = 32

AUDIO_MODES = ("auto", "copy", "aac", "none")
HEVC_MODES = ("enhanced", "legacy")
VIDEO_MODES = ("copy", "h264")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A container without end, as the listener answers it."""

    name: str
    """Of the play URLs in the API, behind ``http_`` and ``ws_``."""
    label: str
    """For people."""
    over_http: Container
    over_websocket: Container
    content_type: str
    auto_audio: str
    """What ``audio=auto`` means."""

    def kind(self, *, websocket: bool) -> str:
        """The name of the play URL in the API."""
        return f"{'ws' if websocket else 'http'}_{self.name}"


FORMS = {
    "flv": Form(
        name="flv",
        label="FLV",
        over_http=Container.FLV,
        over_websocket=Container.WS_FLV,
        content_type="video/x-flv",
        auto_audio="copy",
    ),
    "mp4": Form(
        name="fmp4",
        label="Fragmented MP4",
        over_http=Container.FMP4,
        over_websocket=Container.WS_FMP4,
        content_type="video/mp4",
        auto_audio="aac",
    ),
    "ts": Form(
        name="ts",
        label="MPEG-TS",
        over_http=Container.TS,
        over_websocket=Container.WS_TS,
        content_type="video/mp2t",
        auto_audio="copy",
    ),
}
"""By the extension of the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTarget:
    """The stream that a play path names."""

    device_id: str = ""
    channel_id: str = ""
    stream_id: str = ""
    """Of a playback; empty for live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayTarget(StreamTarget):
    """A stream in a form without end."""

    form: Form


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsTarget(StreamTarget):
    """A playlist, or what it names."""

    path: str
    """Of the stream, without the resource: ``/live/A_B``."""
    resource: str
    """``index.m3u8``, ``segment-17.m4s`` …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhepTarget(StreamTarget):
    """Where WebRTC offers are posted, or a session that one of them made."""

    path: str
    """Of the former: ``/live/A_B/whep``."""
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhipTarget:
    """Where the offer of a talk's microphone is posted, or the session that it made."""

    talk_id: str
    path: str
    """Of the former: ``/talks/ID/whip``."""
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayOptions:
    """The query of a play URL."""

    token: str | None = None
    audio: str = "auto"
    hevc: str = "enhanced"
    video: str = "copy"
    """WebRTC: ``h264`` makes H.264 of H.265."""
    msn: int | None = None
    """HLS: answer when this segment is in the playlist (``_HLS_msn``)."""
    part: int | None = None
    """HLS: or this part of it (``_HLS_part``)."""


def decode_path(raw: bytes) -> str:
    """Percent-decoded path; what is no UTF-8 becomes a character that no path contains."""
    return unquote_to_bytes(raw).decode("utf-8", "replace")


def is_play_path(path: str) -> bool:
    """A path of this listener, though perhaps of a container that is not served."""
    return path.startswith(("/live/", "/playback/"))


def kind_of(path: str) -> str:
    """What a path asks for, by the name that the API has for its URL over HTTP; empty: nothing."""
    if _HLS.fullmatch(path):
        return "hls"
    if _WHEP.fullmatch(path):
        return "webrtc"
    if _WHIP.fullmatch(path):
        return "microphone"
    form = FORMS.get(path.rpartition(".")[2])
    return form.kind(websocket=False) if form is not None else ""


def parse_hls(path: str) -> HlsTarget | None:
    """None for a path of another output."""
    found = _HLS.fullmatch(path)
    if found is None:
        return None
    return HlsTarget(
        device_id=found[2] or "",
        channel_id=found[3] or "",
        stream_id=found[4] or "",
        path=found[1],
        resource=found[5],
    )


def parse_webrtc(path: str) -> WhepTarget | WhipTarget | None:
    """None for a path of another output."""
    found = _WHIP.fullmatch(path)
    if found is not None:
        return WhipTarget(path=found[1], talk_id=found[2], session=found[3] or "")
    found = _WHEP.fullmatch(path)
    if found is None:
        return None
    return WhepTarget(
        device_id=found[2] or "",
        channel_id=found[3] or "",
        stream_id=found[4] or "",
        path=found[1],
        session=found[5] or "",
    )


def parse_target(path: str) -> PlayTarget:
    """Raises `gb.route.not_found` or, for containers that this gateway does not serve,
    `gb.output.unsupported_container`.
    """
    live = _LIVE.fullmatch(path)
    if live is not None:
        return PlayTarget(form=_form(live[3]), device_id=live[1], channel_id=live[2])
    playback = _PLAYBACK.fullmatch(path)
    if playback is not None:
        return PlayTarget(form=_form(playback[2]), stream_id=playback[1])
    raise GatewayError("gb.route.not_found", "No stream has this path.")


def _form(extension: str) -> Form:
    form = FORMS.get(extension)
    if form is None:
        raise GatewayError("gb.output.unsupported_container", f"The container .{extension} is not served.")
    return form


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
    video = found.get("video", "copy")
    if video not in VIDEO_MODES:
        raise GatewayError("gb.route.invalid", f"video is one of {', '.join(VIDEO_MODES)}.")
    return PlayOptions(
        token=found.get("token"),
        audio=audio,
        hevc=hevc,
        video=video,
        msn=_number(found, "_HLS_msn"),
        part=_number(found, "_HLS_part"),
    )


def _number(found: dict[str, str], name: str) -> int | None:
    text = found.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise GatewayError("gb.route.invalid", f"{name} is a number.")
    return int(text)
