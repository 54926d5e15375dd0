"""What a session is to those above: states, views, and the record that survives kill -9."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from gb28181gw.media.engine import MediaTransport, ReceiverCounters
from gb28181gw.media.tracks import Track


class StreamKind(StrEnum):
    LIVE = "live"
    PLAYBACK = "playback"
    DOWNLOAD = "download"


class Consumer(Protocol):
    """Who holds a lease, as the outputs describe it."""

    @property
    def client(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def grant_id(self) -> str: ...


class StreamState(StrEnum):
    """As the API shows it. Exits of each state::

    STARTING -> RUNNING   the first key frame is there
             -> ENDING    every way of the ladder failed, DELETE, or the gateway stops
    RUNNING  -> RETRYING  silence, BYE of the device or a broken connection, while somebody watches
             -> ENDING    DELETE, no consumer for idle_stop_s, or the same causes with nobody watching
    RETRYING -> RUNNING   a new INVITE gave a key frame; consumers never noticed more than a still picture
             -> ENDING    four tries failed, DELETE, or the last consumer left
    ENDING                BYE is under way; the stream is listed until the device answered it or 2 s passed
    """

    STARTING = "starting"
    RUNNING = "running"
    RETRYING = "retrying"
    ENDING = "ending"


class Effect(StrEnum):
    """What the stream showed of a control that the device said OK to."""

    WAITING = "waiting"
    SEEN = "seen"
    NONE = "none"
    """The device said OK and did nothing (PB-08)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlView:
    """The last control of a recording's stream."""

    action: str
    """``pause``, ``resume``, ``seek`` or ``scale``."""
    sip_status: int
    rtsp_status: int | None = None
    """Status of the MANSRTSP answer; None: the device sent none, which is its right."""
    answer: str = ""
    """The device's MANSRTSP answer, its lines joined by `` | ``."""
    effect: Effect = Effect.WAITING


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryView:
    """Where a playback or a download stands."""

    start: float
    """Of the span asked for, seconds since 1970 UTC."""
    end: float
    position_s: float
    """Seconds from `start` to what is shown now, by the stream's own times."""
    paused: bool = False
    scale: float = 1.0
    """As asked for."""
    rate: float | None = None
    """As measured: seconds of recording in a second; None while too little was seen."""
    file_size: int | None = None
    """Bytes, as the device told them."""
    gaps: tuple[tuple[float, float], ...] = ()
    """(position, seconds) of what the device's times leapt over."""
    control: ControlView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamView:
    """One stream as the API shows it (docs/reference/api.md)."""

    id: str
    kind: StreamKind
    state: StreamState
    device_id: str
    channel_id: str
    ssrc: str
    """Ten digits as in `y=`; empty while no call stands."""
    transport: MediaTransport | None
    tracks: tuple[Track, ...]
    rtp: ReceiverCounters
    consumers: int
    started_at: float
    """Seconds since 1970 UTC."""
    history: HistoryView | None = None
    """Of playback and download."""
    source: str = "device"
    """``device``, or ``gateway``: the gateway's own recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """A dialog that the device believes in, stored before its ACK (F-17, SES-02).

    It outlives the media: it is removed only when the device answered our BYE, or sent its own.
    """

    id: str
    device_id: str
    channel_id: str
    dialog: dict[str, Any]
    """`sip.dialog.Dialog.to_record()`."""
    ssrc: int
    port: int
    transport: str
    payloads: dict[int, str]
    created_at: float
    live: bool = True
    """Only a live stream can be adopted after a restart; a recording's position is forgotten with the process."""
