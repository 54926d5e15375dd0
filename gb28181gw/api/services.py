"""What the handlers need from the rest of the gateway: protocols owned here, satisfied below, joined in `app`.

Handlers translate between HTTP and these calls; they decide nothing. Every call may raise `GatewayError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Protocol

from gb28181gw.access.keys import Keys
from gb28181gw.access.tokens import PlayTokens
from gb28181gw.cascade.models import Tree, UpperChange, UpperView
from gb28181gw.cascade.sharing import Key, ShareItem
from gb28181gw.cascade.tree import SharedTree
from gb28181gw.devices.commands import Outcome
from gb28181gw.devices.models import Device
from gb28181gw.devices.ptz import PresetAction, PresetList
from gb28181gw.devices.records import Location, RecordList
from gb28181gw.devices.registry import DeviceChange
from gb28181gw.devices.reports import Alarm, Place, PtzPlace, ReportFilter
from gb28181gw.devices.snapshots import Picture, PictureFilter, SnapshotView
from gb28181gw.devices.subscriptions import SubscriptionView
from gb28181gw.devices.tree import TreeNode
from gb28181gw.downloads.models import DownloadView
from gb28181gw.gb.manscdp.schema import Values
from gb28181gw.gb.mansrtsp import Action
from gb28181gw.media.engine import MediaTransport
from gb28181gw.observability.events import EventBus
from gb28181gw.observability.health import HealthBoard
from gb28181gw.observability.metrics import Metrics
from gb28181gw.observability.trace import SipTrace
from gb28181gw.outputs.push import PushView
from gb28181gw.recording.models import RecorderView, RecordingPlan, Segment, Span
from gb28181gw.recording.playback import RecordingPlayback
from gb28181gw.sessions.microphone import Microphone, MicrophoneKind
from gb28181gw.sessions.models import ControlView, StreamView
from gb28181gw.sessions.talk import Holder, TalkView, TalkWay
from gb28181gw.stills.stills import Still


class DeviceBook(Protocol):
    """The registry (`devices.registry.Registry`)."""

    def get(self, device_id: str) -> Device | None: ...

    def search(self, text: str = "", *, approved_only: bool = False) -> list[Device]:
        """In the order of their ids."""
        ...

    async def provision(self, device_id: str, change: DeviceChange) -> Device: ...

    async def change(self, device_id: str, change: DeviceChange) -> Device: ...

    async def approve(self, device_id: str) -> Device: ...

    async def remove(self, device_id: str) -> None: ...

    def __iter__(self) -> Iterator[Device]: ...


class Catalogue(Protocol):
    """Queries of catalogues, and their trees."""

    async def refresh(self, device_id: str) -> None:
        """Begin a query, or leave the running one alone. Raises gb.route.offline, .not_approved."""
        ...

    def tree(self, device: Device) -> Sequence[TreeNode]:
        """Every node, parents before their children, without loops."""
        ...


class RecordBook(Protocol):
    """Recordings on devices (`devices.records.Records`)."""

    async def search(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        kind: str = "all",
        location: Location = Location.FRONT_END,
    ) -> RecordList: ...


class DownloadBook(Protocol):
    """Recordings that are copied into files (`downloads.table.Downloads`)."""

    async def add(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        speed: float,
        transport: MediaTransport | None = None,
        centre: bool = False,
        original: bool = True,
    ) -> DownloadView: ...

    def list(self) -> list[DownloadView]: ...

    def get(self, download_id: str) -> DownloadView: ...

    async def remove(self, download_id: str) -> None: ...

    def path_of(self, download_id: str, *, manifest: bool = False, name: str = "") -> Path: ...


class Ptz(Protocol):
    """Motion and presets of channels (`devices.ptz.PtzControl`)."""

    async def move(
        self, device_id: str, channel_id: str, *, pan: float = 0.0, tilt: float = 0.0, zoom: float = 0.0
    ) -> None: ...

    async def lens(
        self, device_id: str, channel_id: str, *, focus: float = 0.0, iris: float = 0.0
    ) -> None: ...

    async def preset(
        self, device_id: str, channel_id: str, number: int, action: PresetAction, *, name: str = ""
    ) -> None: ...

    async def presets(self, device_id: str, channel_id: str) -> PresetList: ...


class DeviceCommands(Protocol):
    """Commands of the standard (`devices.commands.Commands`)."""

    async def run(
        self,
        device_id: str,
        name: str,
        values: Values,
        *,
        channel_id: str | None = None,
        force: bool = False,
        key_id: str = "",
    ) -> Outcome: ...


class ReportBook(Protocol):
    """What devices reported (`devices.reports.Reports`), newest first, and how many there are in all."""

    async def alarms(self, wanted: ReportFilter) -> tuple[list[Alarm], int]: ...

    async def places(self, wanted: ReportFilter) -> tuple[list[Place], int]: ...

    async def ptz_place(self, device_id: str, channel_id: str) -> PtzPlace | None:
        """Where the camera looked when it told last."""
        ...


class SubscriptionBook(Protocol):
    """What is subscribed at devices (`devices.subscriptions.DeviceSubscriptions`)."""

    def of(self, device: Device) -> list[SubscriptionView]: ...

    def renew(self, device_id: str) -> None:
        """Try everything again now. Raises gb.route.offline, .not_approved."""
        ...


class SnapshotBook(Protocol):
    """Pictures that devices take and upload (`devices.snapshots.Snapshots`)."""

    async def order(
        self,
        device_id: str,
        channel_id: str,
        *,
        count: int = 1,
        interval_s: int = 1,
        force: bool = False,
        key_id: str = "",
    ) -> SnapshotView: ...

    def session(self, session_id: str) -> SnapshotView: ...

    async def pictures(self, wanted: PictureFilter) -> tuple[list[Picture], int]: ...

    async def picture(self, picture_id: str) -> tuple[Picture, bytes]: ...


class Streams(Protocol):
    """The streams of devices and of recordings (`app.streams.AllStreams`)."""

    async def start_live(
        self, device_id: str, channel_id: str, *, transport: MediaTransport | None = None
    ) -> StreamView: ...

    async def start_playback(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        transport: MediaTransport | None = None,
        centre: bool = False,
    ) -> StreamView: ...

    async def control(self, stream_id: str, action: Action) -> ControlView | None: ...

    def list(self) -> list[StreamView]: ...

    def get(self, stream_id: str) -> StreamView: ...

    async def stop(self, stream_id: str, reason: str = "stopped") -> None: ...


class StillBook(Protocol):
    """Pictures that the gateway makes of streams (`stills.stills.Stills`)."""

    async def take(
        self, device_id: str, channel_id: str, *, max_age_s: float = 0.0, stale: bool | None = None
    ) -> Still: ...


class RecordingBook(Protocol):
    """What the gateway records itself (`recording.table.Recording`)."""

    def plans(self) -> Sequence[RecorderView]: ...

    def get(self, device_id: str, channel_id: str) -> RecorderView: ...

    async def put(self, plan: RecordingPlan) -> RecorderView: ...

    async def remove(self, device_id: str, channel_id: str) -> None: ...

    async def spans(
        self, device_id: str, channel_id: str, start: datetime, end: datetime
    ) -> Sequence[Span]: ...

    async def segments(
        self, device_id: str, channel_id: str, start: datetime, end: datetime
    ) -> Sequence[Segment]: ...

    async def lock(
        self, device_id: str, channel_id: str, start: datetime, end: datetime, *, locked: bool
    ) -> int: ...

    async def play(
        self, device_id: str, channel_id: str, start: datetime, end: datetime
    ) -> RecordingPlayback: ...

    async def file(
        self, device_id: str, channel_id: str, start: datetime, end: datetime
    ) -> Iterator[bytes]: ...


class PushBook(Protocol):
    """Channels that are pushed to URLs (`outputs.push.Pushes`)."""

    def list(self) -> list[PushView]: ...

    def get(self, push_id: str) -> PushView: ...

    async def add(
        self, device_id: str, channel_id: str, url: str, *, video: bool = True, audio: bool = True
    ) -> PushView: ...

    async def remove(self, push_id: str) -> None: ...


class UpperBook(Protocol):
    """Upper platforms (`cascade.service.Uppers`)."""

    def all(self) -> list[UpperView]:
        """In the order of their ids."""
        ...

    def get(self, upper_id: str) -> UpperView: ...

    async def add(self, upper_id: str, change: UpperChange) -> UpperView: ...

    async def change(self, upper_id: str, change: UpperChange) -> UpperView: ...

    async def remove(self, upper_id: str) -> None: ...

    async def shared(self, upper_id: str) -> tuple[bool, list[tuple[Key, str]]]:
        """Whether everything is shared; channels and the ids that the upper knows them by."""
        ...

    async def share(
        self, upper_id: str, items: Sequence[ShareItem], *, share_all: bool, dry_run: bool = False
    ) -> list[tuple[Key, str]]: ...

    async def tree(self, upper_id: str, form: Tree | None = None) -> SharedTree:
        """What it is told, or would be told in another form."""
        ...


class TalkBook(Protocol):
    """The table of talks (`sessions.talks.Talks`)."""

    async def start(
        self, device_id: str, channel_id: str, holder: Holder, *, way: TalkWay | None = None
    ) -> TalkView: ...

    def list(self) -> list[TalkView]: ...

    def get(self, talk_id: str) -> TalkView: ...

    def feed(self, talk_id: str, pcm: bytes, rate: int) -> None: ...

    def take_microphone(
        self, talk_id: str, *, kind: MicrophoneKind, client: str, on_over: Callable[[], None] | None = None
    ) -> Microphone: ...

    async def stop(self, talk_id: str, reason: str = "stopped") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayUrlConfig:
    """Where the media listener is reached."""

    advertise: str = ""
    """``host`` or ``host:port``; empty: the Host name of the API request."""
    port: Callable[[], int]
    """The bound port of the media listener."""
    rtsp_port: Callable[[], int]
    """The bound port of the RTSP server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """Everything the API talks to."""

    devices: DeviceBook
    catalogue: Catalogue
    streams: Streams
    records: RecordBook
    downloads: DownloadBook
    stills: StillBook
    recording: RecordingBook
    pushes: PushBook
    talks: TalkBook
    ptz: Ptz
    commands: DeviceCommands
    reports: ReportBook
    uppers: UpperBook
    subscriptions: SubscriptionBook
    snapshots: SnapshotBook
    keys: Keys
    tokens: PlayTokens
    bus: EventBus
    health: HealthBoard
    metrics: Metrics
    trace: SipTrace
    play: PlayUrlConfig
    zone: tzinfo = field(default=UTC)
    """Offset of the times in answers."""
    version: str = ""
