"""The JSON of the API (docs/reference/api.md). Answers are built from the domain's objects here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from gb28181gw.access.keys import Key
from gb28181gw.access.roles import Role
from gb28181gw.devices.dialects import dialect_of, origins_of
from gb28181gw.devices.experience import unsupported
from gb28181gw.devices.models import CatalogueState, Channel, Device, listed_channels
from gb28181gw.devices.quirks import QUIRK_ROWS
from gb28181gw.devices.tree import TreeNode
from gb28181gw.gb import mansrtsp
from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import DEFAULT
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.media.engine import MediaTransport
from gb28181gw.media.tracks import Track
from gb28181gw.observability.trace import TraceMessage
from gb28181gw.sessions.models import HistoryView, StreamView

Item = TypeVar("Item")
MAX_PAGE_SIZE = 500
Moment = Annotated[AwareDatetime, Field(description="ISO 8601 with offset.")]
Location = Annotated[
    Literal["front_end", "centre"],
    Field(
        description="Whose recordings: those of the channel itself, or those that its device keeps as a centre "
        "(told by the To id, GB/T 28181-2022 A.2.4.5)."
    ),
]
StreamTransport = Literal["auto", "udp", "tcp-passive", "tcp-active"]


def iso_time(seconds: float | None, zone: tzinfo) -> str | None:
    """ISO 8601 with offset, to the millisecond; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, zone).isoformat(timespec="milliseconds")


class Answer(BaseModel):
    """Base of what we send."""

    model_config = ConfigDict(frozen=True)


class Body(BaseModel):
    """Base of what we are sent: an unknown field is an error, so that a typing mistake is seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Answer, Generic[Item]):
    """One page of a list; `total` counts all pages."""

    items: list[Item]
    total: int


# ---------------------------------------------------------------- devices


def charset_name(text: str) -> str:
    return Charset.parse(text).value if text else text


def _zone(text: str) -> str:
    if text and not re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d", text, re.ASCII):
        raise ValueError("is not an offset from UTC, as in +08:00")
    return text


def plain_password(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError("may have printable ASCII characters only")
    return text


def single_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("may not have control characters")
    return text


def _switches(given: dict[str, str | bool]) -> dict[str, str | bool]:
    try:
        DEFAULT.with_switches(switch_texts(given))
    except GbLocalError as error:
        raise ValueError(str(error)) from None
    return given


def switch_texts(given: Mapping[str, str | bool]) -> dict[str, str]:
    """Switches as `gb.dialect` takes them: booleans are words there."""
    return {name: value if isinstance(value, str) else str(value).lower() for name, value in given.items()}


class DeviceSettings(Body):
    """What people set of a device; a field left out, or null, stays as it is."""

    name: Annotated[str, Field(max_length=128), AfterValidator(single_line)] | None = None
    password: Annotated[str, Field(max_length=128), AfterValidator(plain_password)] | None = Field(
        default=None, description="Empty: the shared password."
    )
    media_transport: StreamTransport | None = None
    charset: Annotated[str, Field(max_length=16), AfterValidator(charset_name)] | None = Field(
        default=None, description="GB2312, GB18030 or UTF-8; empty: by edition."
    )
    timezone: Annotated[str, Field(max_length=6), AfterValidator(_zone)] | None = Field(
        default=None, description="Offset such as +08:00; empty: as configured."
    )
    dialect: Annotated[dict[str, str | bool], Field(max_length=16), AfterValidator(_switches)] | None = Field(
        default=None, description='Named switches, as in {"edition": "2.0", "qop": false}; empty: learnt.'
    )
    subscribe: (
        Literal["default"]
        | Annotated[list[Literal["catalog", "alarm", "position", "ptz"]], Field(max_length=4)]
        | None
    ) = Field(
        default=None,
        description='What is subscribed at this device; [] is nothing, "default" as in [sip] subscribe.',
    )


class NewDevice(DeviceSettings):
    """`POST /api/v1/devices`."""

    id: str = Field(min_length=1, max_length=32, pattern=r"^[0-9A-Za-z]+$")


class DeviceAnswer(Answer):
    """One device or lower platform."""

    id: str
    name: str
    online: bool
    transport: str | None = Field(description="udp, tcp or tls; null: it never registered.")
    remote_address: str | None = Field(description="ip:port")
    manufacturer: str
    model: str
    firmware: str
    edition: str = Field(description="1.0, 1.1, 2.0 or 3.0 as in X-GB-Ver; empty: not known.")
    channel_count: int
    registered_at: str | None
    last_seen_at: str | None
    approved: bool
    quirks: dict[str, int] = Field(description="Tolerances that fired for it, with their counts.")
    subscribe: list[str] | None = Field(description="Its own choice; null: as in [sip] subscribe.")


def device_answer(device: Device, zone: tzinfo) -> DeviceAnswer:
    return DeviceAnswer(
        id=device.id,
        name=device.display_name,
        online=device.online,
        transport=device.transport or None,
        remote_address=device.remote_address or None,
        manufacturer=device.manufacturer,
        model=device.model,
        firmware=device.firmware,
        edition=device.edition,
        channel_count=len(listed_channels(device)),
        registered_at=iso_time(device.registered_at, zone),
        last_seen_at=iso_time(device.last_seen_at, zone),
        approved=device.approved,
        quirks=dict(device.quirks),
        subscribe=None if device.subscribe is None else list(device.subscribe),
    )


class SwitchAnswer(Answer):
    """One switch of a dialect."""

    value: str = Field(description="Empty charset: by edition.")
    origin: Literal["default", "told", "learnt", "file", "set"] = Field(
        description="told: X-GB-Ver; learnt: from what it sends; file: a dialect file; set: by a person."
    )


class DialectAnswer(Answer):
    """How a device is spoken to, where each switch comes from, and what it does not know."""

    device_id: str
    switches: dict[str, SwitchAnswer]
    charset_used: str
    file: str | None = Field(description="The dialect file that fits the device.")
    unsupported: dict[str, str] = Field(
        description="What it showed not to know, as command@id or ConfigDownload.type@id: silent, error or sip."
    )
    quirks: dict[str, QuirkAnswer] = Field(description="Tolerances that fired for it.")


class QuirkAnswer(Answer):
    """One tolerance."""

    count: int
    row: str = Field(description="Of docs/reference/quirks.md; empty: none.")


def dialect_answer(device: Device) -> DialectAnswer:
    dialect, origins = dialect_of(device), origins_of(device)
    return DialectAnswer(
        device_id=device.id,
        switches={
            name: SwitchAnswer.model_validate({"value": value, "origin": origins[name]})
            for name, value in dialect.all().items()
        },
        charset_used=dialect.charset_used.value,
        file=device.profile.name if device.profile is not None else None,
        unsupported=unsupported(device),
        quirks={
            name: QuirkAnswer(count=count, row=QUIRK_ROWS.get(name, ""))
            for name, count in sorted(device.quirks.items())
        },
    )


class CatalogAnswer(Answer):
    """Progress of the catalogue query of a device."""

    device_id: str
    state: Literal["running", "complete", "partial", "failed"] | None = Field(
        description="null: never queried."
    )
    received: int
    expected: int | None = Field(description="SumNum of the device; null: not known yet.")
    finished_at: str | None


_CATALOG_STATES: dict[CatalogueState, Literal["running", "complete", "partial", "failed"] | None] = {
    CatalogueState.NONE: None,
    CatalogueState.RUNNING: "running",
    CatalogueState.COMPLETE: "complete",
    CatalogueState.PARTIAL: "partial",
    CatalogueState.FAILED: "failed",
}


def catalog_answer(device: Device, zone: tzinfo) -> CatalogAnswer:
    return CatalogAnswer(
        device_id=device.id,
        state=_CATALOG_STATES[device.catalogue_state],
        received=device.catalogue_received,
        expected=device.catalogue_expected,
        finished_at=iso_time(device.catalogue_at or None, zone),
    )


class ChannelAnswer(Answer):
    """One channel; identity is (device_id, id)."""

    id: str
    device_id: str
    name: str
    status: Literal["ON", "OFF", "UNKNOWN"]
    fault: str = Field(
        description="VLOST or DEFECT while the device says so; listed, but probably not playable."
    )
    ptz_type: str
    parent_id: str
    civil_code: str
    longitude: float | None
    latitude: float | None
    manufacturer: str
    model: str


def channel_answer(device: Device, channel: Channel) -> ChannelAnswer:
    return ChannelAnswer(
        id=channel.id,
        device_id=device.id,
        name=channel.name,
        status=device.status_of(channel).value,
        fault=channel.fault,
        ptz_type=channel.ptz_type,
        parent_id=channel.parent_id or device.id,
        civil_code=channel.civil_code,
        longitude=channel.longitude,
        latitude=channel.latitude,
        manufacturer=channel.manufacturer,
        model=channel.model,
    )


class NodeAnswer(Answer):
    """One node of the tree, playable or not."""

    id: str
    device_id: str
    parent_id: str
    name: str
    kind: str
    status: Literal["ON", "OFF", "UNKNOWN"]
    civil_code: str
    playable: bool = Field(description="Whether it is in the list of channels.")


def node_answer(device: Device, node: TreeNode, *, playable: bool) -> NodeAnswer:
    channel = node.channel
    return NodeAnswer(
        id=channel.id,
        device_id=device.id,
        parent_id=node.parent_id,
        name=channel.name,
        kind=channel.kind,
        status=device.status_of(channel).value,
        civil_code=channel.civil_code,
        playable=playable,
    )


# ---------------------------------------------------------------- streams


class LiveRequest(Body):
    """`POST …/live`; the body may be left out."""

    transport: StreamTransport | None = None

    def media_transport(self) -> MediaTransport | None:
        return None if self.transport in (None, "auto") else MediaTransport(self.transport)


class PlaybackRequest(LiveRequest):
    """`POST …/playback`."""

    start: Moment
    end: Moment
    location: Location = "front_end"

    @model_validator(mode="after")
    def _in_order(self) -> PlaybackRequest:
        if self.end <= self.start:
            raise ValueError("end must lie after start")
        return self


class ControlRequest(Body):
    """`POST /api/v1/streams/{id}/control`."""

    action: Literal["pause", "resume", "seek", "scale"]
    position_s: float | None = Field(
        default=None, ge=0, description="seek: seconds from the start of the span that was asked for."
    )
    scale: float | None = Field(
        default=None,
        description="scale: 0.25 to 8, 1 is normal; negative is backwards, where the device can.",
    )

    @model_validator(mode="after")
    def _complete(self) -> ControlRequest:
        if (self.action == "seek") is not (self.position_s is not None):
            raise ValueError("position_s belongs to seek, which needs it")
        if (self.action == "scale") is not (self.scale is not None):
            raise ValueError("scale belongs to the action scale, which needs it")
        if self.scale is not None and not 0.25 <= abs(self.scale) <= 8:
            raise ValueError("scale lies from 0.25 to 8, or from -8 to -0.25")
        return self

    def to_action(self) -> mansrtsp.Action:
        if self.action == "pause":
            return mansrtsp.Pause()
        if self.action == "resume":
            return mansrtsp.Resume()
        if self.position_s is not None:
            return mansrtsp.Seek(self.position_s)
        return mansrtsp.Scale(self.scale or 1.0)


class TrackAnswer(Answer):
    """A track; what is not known is left out."""

    kind: Literal["video", "audio"]
    codec: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    sample_rate: int | None = None
    channels: int | None = None


def track_answer(track: Track) -> TrackAnswer:
    return TrackAnswer(
        kind=track.kind.value,
        codec=track.codec.value,
        width=track.width or None,
        height=track.height or None,
        fps=round(track.fps, 3) or None,
        sample_rate=track.sample_rate or None,
        channels=track.channels or None,
    )


class RtpAnswer(Answer):
    """What arrived, in the terms of RFC 3550."""

    received: int
    lost: int
    reordered: int
    duplicated: int
    jitter_ms: float
    bitrate_kbps: float


class ControlAnswer(Answer):
    """The last control of a recording."""

    action: str
    sip_status: int
    rtsp_status: int | None = Field(description="null: the device's 200 carried no MANSRTSP answer.")
    answer: str
    effect: Literal["waiting", "seen", "none"] = Field(
        description="Whether the stream's times show it; none: the device said OK and did nothing."
    )


class LeapAnswer(Answer):
    """What of a recording is not there, as far as the device's times or its list tell."""

    at_s: float = Field(description="Seconds from start.")
    seconds: float


class HistoryAnswer(Answer):
    """Where a playback or download stands."""

    start: str | None
    end: str | None
    position_s: float = Field(description="Seconds from start, by the stream's own times.")
    time: str | None = Field(description="The same as a time.")
    paused: bool
    scale: float = Field(description="As asked for.")
    rate: float | None = Field(description="As measured: seconds of recording in a second.")
    file_size: int | None = None
    gaps: list[LeapAnswer]
    control: ControlAnswer | None = None


def history_answer(history: HistoryView, zone: tzinfo) -> HistoryAnswer:
    control = history.control
    return HistoryAnswer(
        start=iso_time(history.start, zone),
        end=iso_time(history.end, zone),
        position_s=history.position_s,
        time=iso_time(history.start + history.position_s, zone),
        paused=history.paused,
        scale=history.scale,
        gaps=[LeapAnswer(at_s=round(at_s, 2), seconds=round(seconds, 2)) for at_s, seconds in history.gaps],
        rate=round(history.rate, 2) if history.rate is not None else None,
        file_size=history.file_size,
        control=ControlAnswer(
            action=control.action,
            sip_status=control.sip_status,
            rtsp_status=control.rtsp_status,
            answer=control.answer,
            effect=control.effect.value,
        )
        if control is not None
        else None,
    )


class StreamAnswer(Answer):
    """One stream that is not ended."""

    id: str
    kind: str
    state: Literal["starting", "running", "retrying", "ending"]
    device_id: str
    channel_id: str
    ssrc: str | None = Field(description="Ten digits as in y=; null while no call stands.")
    transport: Literal["udp", "tcp-passive", "tcp-active"] | None
    tracks: list[TrackAnswer]
    rtp: RtpAnswer
    consumers: int
    started_at: str | None
    history: HistoryAnswer | None = Field(default=None, description="Of playback and download.")


def stream_answer(view: StreamView, zone: tzinfo) -> StreamAnswer:
    rtp = view.rtp
    return StreamAnswer(
        id=view.id,
        kind=view.kind.value,
        state=view.state.value,
        device_id=view.device_id,
        channel_id=view.channel_id,
        ssrc=view.ssrc or None,
        transport=view.transport.value if view.transport is not None else None,
        tracks=[track_answer(track) for track in view.tracks],
        rtp=RtpAnswer(
            received=rtp.packets,
            lost=rtp.lost,
            reordered=rtp.reordered,
            duplicated=rtp.duplicated,
            jitter_ms=round(rtp.jitter_ms, 3),
            bitrate_kbps=round(rtp.bitrate_kbps, 1),
        ),
        consumers=view.consumers,
        started_at=iso_time(view.started_at or None, zone),
        history=history_answer(view.history, zone) if view.history is not None else None,
    )


class PlayUrls(Answer):
    """URLs ready to be opened as given; only outputs that are served."""

    http_flv: str
    ws_flv: str
    http_fmp4: str
    ws_fmp4: str
    http_ts: str
    ws_ts: str
    hls: str
    webrtc: str
    rtsp: str


class LiveAnswer(Answer):
    """A running stream, live or played from a recording, and where it is played."""

    id: str
    kind: str
    state: Literal["starting", "running", "retrying", "ending"]
    device_id: str
    channel_id: str
    tracks: list[TrackAnswer]
    urls: PlayUrls


def live_answer(view: StreamView, urls: PlayUrls) -> LiveAnswer:
    return LiveAnswer(
        id=view.id,
        kind=view.kind.value,
        state=view.state.value,
        device_id=view.device_id,
        channel_id=view.channel_id,
        tracks=[track_answer(track) for track in view.tracks],
        urls=urls,
    )


# ---------------------------------------------------------------- keys, trace, state


class NewKey(Body):
    """`POST /api/v1/keys`."""

    name: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(single_line)]
    role: Role
    days: float | None = Field(default=None, gt=0, le=36_500, description="Left out: it never expires.")


class KeyAnswer(Answer):
    """An access key without its secret."""

    id: str
    name: str
    role: Role
    created_at: str | None
    expires_at: str | None


class NewKeyAnswer(KeyAnswer):
    key: str = Field(description="Shown this once.")


def key_fields(key: Key, zone: tzinfo) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "created_at": iso_time(key.created_at or None, zone),
        "expires_at": iso_time(key.expires_at, zone),
    }


class TraceAnswer(Answer):
    """One SIP message, without credentials."""

    number: int
    timestamp: str
    direction: Literal["in", "out"]
    transport: str
    local: str
    remote: str
    first_line: str
    cseq: str
    bytes: int
    text: str


def trace_answer(message: TraceMessage) -> TraceAnswer:
    return TraceAnswer(
        number=message.number,
        timestamp=message.timestamp,
        direction=message.direction.value,
        transport=message.transport,
        local=message.local,
        remote=message.remote,
        first_line=message.first_line,
        cseq=message.cseq,
        bytes=message.bytes,
        text=message.text,
    )


class TracePage(Page[TraceAnswer]):
    """Messages of a device, oldest first, and how many keepalives there were."""

    keepalives: int


class StateAnswer(Answer):
    """`/healthz` and `/readyz`: the state and nothing else."""

    status: Literal["ok", "degraded", "starting", "stopping"]
