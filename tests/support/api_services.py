"""The API over fakes: devices, catalogue and streams in memory, real keys, tokens, events and trace."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from fastapi import FastAPI

from gb28181gw.access.keys import Keys, make_key
from gb28181gw.access.roles import Role
from gb28181gw.access.tokens import PlayTokens
from gb28181gw.api.app import create_api
from gb28181gw.api.services import ApiServices, PlayUrlConfig
from gb28181gw.cascade.models import Tree, Upper, UpperChange, UpperView
from gb28181gw.cascade.sharing import Key, ShareItem, sharing_of
from gb28181gw.cascade.tree import Node, SharedTree
from gb28181gw.devices.commands import Outcome
from gb28181gw.devices.models import (
    Binding,
    CatalogueState,
    Channel,
    ChannelStatus,
    Device,
    Presence,
)
from gb28181gw.devices.ptz import PresetAction, PresetList
from gb28181gw.devices.records import Location, RecordList
from gb28181gw.devices.registry import DeviceChange
from gb28181gw.devices.reports import Alarm, Place, PtzPlace, ReportFilter
from gb28181gw.devices.snapshots import Picture, PictureFilter, SnapshotState, SnapshotView
from gb28181gw.devices.subscriptions import Kind, SubscriptionState, SubscriptionView
from gb28181gw.devices.tree import TreeNode, build_tree
from gb28181gw.downloads.models import (
    DownloadFile,
    DownloadRequest,
    DownloadState,
    DownloadView,
    Gap,
    Part,
)
from gb28181gw.errors import GatewayError
from gb28181gw.gb import mansrtsp
from gb28181gw.gb.manscdp.presets import Preset
from gb28181gw.gb.manscdp.schema import Values
from gb28181gw.media.engine import MediaTransport, ReceiverCounters
from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.observability.events import EventBus
from gb28181gw.observability.health import HealthBoard
from gb28181gw.observability.metrics import Metrics
from gb28181gw.observability.trace import SipTrace
from gb28181gw.outputs.push import PushOrder, PushState, PushView
from gb28181gw.outputs.push_url import checked_url, shown_url
from gb28181gw.recording.models import RecorderState, RecorderView, RecordingPlan, Span
from gb28181gw.recording.playback import RecordingPlayback
from gb28181gw.sessions.microphone import Microphone, MicrophoneKind
from gb28181gw.sessions.models import ControlView, HistoryView, StreamKind, StreamState, StreamView
from gb28181gw.sessions.talk import Holder, TalkView, TalkWay
from gb28181gw.sip.path import Path
from gb28181gw.stills.stills import Still
from tests.support.stores import MemoryKeyStore

NVR = "34020000001180000001"
CAMERA = "34020000001320000001"
PENDING = "34020000001180000002"
STRANGER = "34020000001180000099"
ZONE = timezone(timedelta(hours=8))
NOW = 1_700_000_000.0


class TestClock:
    """Wall and monotonic time that tests move."""

    __test__ = False

    def __init__(self) -> None:
        self.now = NOW
        self.ticks = 100.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.ticks


def make_device(device_id: str = NVR, *, approved: bool = True) -> Device:
    path = Path("udp", "192.0.2.10", 5060, "192.0.2.1", 5060)
    device = Device(id=device_id, name="Gate 东门", approved=approved, manufacturer="Acme", model="N1")
    device.binding = Binding(
        path=path,
        registered_at=NOW - 60,
        expires_at=NOW + 3600,
        domain="3402000000",
        call_id="c",
        cseq=1,
        contact="",
        user_agent="ua",
        edition="2.0",
    )
    device.path = path
    device.presence = Presence.ONLINE
    device.seen_wall = NOW - 1
    device.quirks = {"xml.bare_ampersand": 3}
    return device


class FakeDevices:
    """As `devices.registry.Registry`, without a store."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = {device.id: device for device in devices}
        self.changes: list[tuple[str, DeviceChange]] = []

    def __iter__(self) -> Iterator[Device]:
        return iter(self.devices.values())

    def get(self, device_id: str) -> Device | None:
        return self.devices.get(device_id)

    def search(self, text: str = "", *, approved_only: bool = False) -> list[Device]:
        return [
            device
            for _, device in sorted(self.devices.items())
            if (device.approved or not approved_only) and text in device.id + device.display_name
        ]

    async def provision(self, device_id: str, change: DeviceChange) -> Device:
        if device_id in self.devices:
            raise GatewayError("gb.route.exists", f"The device {device_id} is there already.")
        self.devices[device_id] = Device(id=device_id, provisioned=True, name=change.name or "")
        self.changes.append((device_id, change))
        return self.devices[device_id]

    async def change(self, device_id: str, change: DeviceChange) -> Device:
        self.changes.append((device_id, change))
        return self.devices[device_id]

    async def approve(self, device_id: str) -> Device:
        self.devices[device_id].approved = True
        return self.devices[device_id]

    async def remove(self, device_id: str) -> None:
        del self.devices[device_id]


class FakeCatalogue:
    def __init__(self) -> None:
        self.refreshed: list[str] = []

    async def refresh(self, device_id: str) -> None:
        self.refreshed.append(device_id)

    def tree(self, device: Device) -> Sequence[TreeNode]:
        return build_tree(device)


class FakeStreams:
    def __init__(self) -> None:
        self.views: dict[str, StreamView] = {}
        self.asked: list[tuple[str, str, MediaTransport | None]] = []
        self.recordings: list[tuple[Any, ...]] = []
        self.steered: list[tuple[str, mansrtsp.Action]] = []
        self.error: Exception | None = None

    async def start_live(
        self, device_id: str, channel_id: str, *, transport: MediaTransport | None = None
    ) -> StreamView:
        self.asked.append((device_id, channel_id, transport))
        if self.error is not None:
            raise self.error
        return self.views.setdefault("s1", make_stream(device_id, channel_id))

    async def start_playback(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        transport: MediaTransport | None = None,
        centre: bool = False,
    ) -> StreamView:
        self.recordings.append((device_id, channel_id, start, end, transport, centre))
        history = HistoryView(
            start=start.timestamp(), end=end.timestamp(), position_s=0.0, gaps=((20.0401, 5.0),)
        )
        view = replace(make_stream(device_id, channel_id), id="p1", kind=StreamKind.PLAYBACK, history=history)
        return self.views.setdefault("p1", view)

    async def control(self, stream_id: str, action: mansrtsp.Action) -> ControlView:
        self.get(stream_id)
        self.steered.append((stream_id, action))
        if self.error is not None:
            raise self.error
        return ControlView(action="any", sip_status=200)

    def list(self) -> list[StreamView]:
        return [*self.views.values()]

    def get(self, stream_id: str) -> StreamView:
        if stream_id not in self.views:
            raise GatewayError("gb.route.stream_unknown")
        return self.views[stream_id]

    async def stop(self, stream_id: str, reason: str = "stopped") -> None:
        self.get(stream_id)
        del self.views[stream_id]


class FakeRecords:
    """As `devices.records.Records`; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.found = RecordList(items=(), partial=False, sum_num=0)

    async def search(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        kind: str = "all",
        location: Location = Location.FRONT_END,
    ) -> RecordList:
        self.asked.append((device_id, channel_id, start, end, kind, location))
        return self.found


class FakeDownloads:
    """As `downloads.table.Downloads`: a download is complete with the second look at it."""

    def __init__(self, directory: FilePath) -> None:
        self.directory = directory
        self.views: dict[str, DownloadView] = {}
        self.error: GatewayError | None = None

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
    ) -> DownloadView:
        request = DownloadRequest(
            device_id=device_id,
            channel_id=channel_id,
            start=int(start.timestamp()),
            end=int(end.timestamp()),
            speed=speed,
            transport=transport,
            centre=centre,
            original=original,
        )
        view = DownloadView(
            id="d1", request=request, state=DownloadState.QUEUED, created_at=NOW, queue_position=1
        )
        self.views["d1"] = view
        return view

    def list(self) -> list[DownloadView]:
        return [*self.views.values()]

    def get(self, download_id: str) -> DownloadView:
        if download_id not in self.views:
            raise GatewayError("gb.route.download_unknown")
        view = self.views[download_id]
        data = b"a recording"
        (self.directory / "a.mp4").write_bytes(data)
        (self.directory / "manifest.json").write_text("{}")
        file = DownloadFile(
            name="a.mp4", size=len(data), sha256=hashlib.sha256(data).hexdigest(), frames=25, duration_s=1.0
        )
        error = self.error
        self.views[download_id] = replace(
            view,
            state=DownloadState.COMPLETE if error is None else DownloadState.FAILED,
            queue_position=None,
            progress=1.0,
            finished_at=NOW + 5,
            file=file if error is None else None,
            gaps=(Gap(at_s=2.0, seconds=5.0, reason="not_recorded"),),
            parts=(Part(from_s=0, joined="start", repeated=0, ended="end_of_file"),),
            error_code=error.code if error is not None else "",
            error_detail=error.detail if error is not None else "",
            sip_status=error.sip_status if error is not None else None,
        )
        return view

    async def remove(self, download_id: str) -> None:
        if self.views.pop(download_id, None) is None:
            raise GatewayError("gb.route.download_unknown")

    def path_of(self, download_id: str, *, manifest: bool = False, name: str = "") -> FilePath:
        if download_id not in self.views:
            raise GatewayError("gb.route.download_unknown")
        if not self.views[download_id].state.over:
            raise GatewayError("gb.route.busy")
        return self.directory / ("manifest.json" if manifest else "a.mp4")


class FakePtz:
    """As `devices.ptz.PtzControl`; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.listed = PresetList(presets=(Preset(1, "Gate"), Preset(7, "")))

    async def move(
        self, device_id: str, channel_id: str, *, pan: float = 0.0, tilt: float = 0.0, zoom: float = 0.0
    ) -> None:
        self.asked.append(("move", device_id, channel_id, pan, tilt, zoom))

    async def lens(self, device_id: str, channel_id: str, *, focus: float = 0.0, iris: float = 0.0) -> None:
        self.asked.append(("lens", device_id, channel_id, focus, iris))

    async def preset(
        self, device_id: str, channel_id: str, number: int, action: PresetAction, *, name: str = ""
    ) -> None:
        self.asked.append((action.value, device_id, channel_id, number, name))

    async def presets(self, device_id: str, channel_id: str) -> PresetList:
        return self.listed


class FakeCommands:
    """As `devices.commands.Commands`; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def run(
        self,
        device_id: str,
        name: str,
        values: Values,
        *,
        channel_id: str | None = None,
        force: bool = False,
        key_id: str = "",
    ) -> Outcome:
        self.asked.append((device_id, name, dict(values), channel_id, force))
        return Outcome(
            command=name,
            device_id=device_id,
            channel_id=channel_id or "",
            answered=True,
            fields={"CmdType": name, "SN": 7, "Result": "OK"},
        )


class FakeReports:
    """As `devices.reports.Reports` with one alarm and one position; remembers what was looked for."""

    def __init__(self) -> None:
        self.asked: list[ReportFilter] = []

    async def alarms(self, wanted: ReportFilter) -> tuple[list[Alarm], int]:
        self.asked.append(wanted)
        alarm = Alarm(
            id=3, device_id=NVR, channel_id=CAMERA, priority=1, method=5, type="6", event_type="1",
            time=NOW - 1, received_at=NOW, description="东门", longitude=None, latitude=None,
        )  # fmt: skip
        return [alarm], 7

    async def places(self, wanted: ReportFilter) -> tuple[list[Place], int]:
        self.asked.append(wanted)
        place = Place(
            id=4, device_id=NVR, channel_id=CAMERA, time=NOW - 1, received_at=NOW, longitude=117.3, latitude=31.8,
            speed=36.0, direction=None, altitude=None, height=None,
        )  # fmt: skip
        return [place], 1

    async def ptz_place(self, device_id: str, channel_id: str) -> PtzPlace | None:
        if channel_id != CAMERA:
            return None
        return PtzPlace(
            device_id=device_id, channel_id=channel_id, received_at=NOW, pan=120.5, tilt=10.0, zoom=2.0,
            horizontal_angle=None, vertical_angle=None, max_distance=None,
        )  # fmt: skip


class FakeSubscriptions:
    """As `devices.subscriptions.DeviceSubscriptions` with one subscription; remembers what was renewed."""

    def __init__(self) -> None:
        self.renewed: list[str] = []

    def of(self, device: Device) -> list[SubscriptionView]:
        return [
            SubscriptionView(
                kind=Kind.CATALOG, target=device.id, state=SubscriptionState.ACTIVE, event="Catalog;id=1", since=NOW,
                expires_at=NOW + 600, renewed_at=NOW, notified_at=None, notifies=0, failures=0, reason="", detail="",
                sip_status=None,
            )
        ]  # fmt: skip

    def renew(self, device_id: str) -> None:
        self.renewed.append(device_id)


class FakeSnapshots:
    """As `devices.snapshots.Snapshots` with one order and one picture; remembers what was ordered."""

    def __init__(self) -> None:
        self.ordered: list[tuple[object, ...]] = []
        self.asked: list[PictureFilter] = []
        self.received = 0

    async def order(
        self, device_id: str, channel_id: str, *, count: int = 1, interval_s: int = 1, force: bool = False,
        key_id: str = "",
    ) -> SnapshotView:  # fmt: skip
        self.ordered.append((device_id, channel_id, count, interval_s, force))
        return self._view(device_id, channel_id, count)

    def session(self, session_id: str) -> SnapshotView:
        if session_id != ORDER:
            raise GatewayError("gb.route.not_found")
        return self._view(NVR, CAMERA, 1)

    def _view(self, device_id: str, channel_id: str, count: int) -> SnapshotView:
        return SnapshotView(
            id=ORDER, device_id=device_id, channel_id=channel_id, asked=count, received=self.received,
            state=SnapshotState.COMPLETE if self.received else SnapshotState.WAITING,
            pictures=(PICTURE,) * self.received, started_at=NOW,
        )  # fmt: skip

    async def pictures(self, wanted: PictureFilter) -> tuple[list[Picture], int]:
        self.asked.append(wanted)
        return [self._picture], 5

    async def picture(self, picture_id: str) -> tuple[Picture, bytes]:
        if picture_id != PICTURE:
            raise GatewayError("gb.route.not_found")
        return self._picture, b"\xff\xd8\xff\xd9"

    _picture = Picture(
        id="a" * 32, session_id="0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", device_id=NVR, channel_id=CAMERA,
        received_at=NOW, content_type="image/jpeg", size=4, name="gate.jpg",
    )  # fmt: skip


ORDER = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
PICTURE = "a" * 32


class FakeStills:
    """As `stills.stills.Stills` with a picture of one minute ago; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, float, bool | None]] = []
        self.stale = ""

    async def take(
        self, device_id: str, channel_id: str, *, max_age_s: float = 0.0, stale: bool | None = None
    ) -> Still:
        self.asked.append((device_id, channel_id, max_age_s, stale))
        return Still(jpeg=b"\xff\xd8\xff\xd9", taken_at=NOW - 60, stale=self.stale)


class FakeRecording:
    """As `recording.table.Recording` with plans in memory and one span; remembers what it was asked."""

    def __init__(self) -> None:
        self.views: dict[tuple[str, str], RecorderView] = {}
        self.asked: list[tuple[Any, ...]] = []

    def plans(self) -> list[RecorderView]:
        return [*self.views.values()]

    def get(self, device_id: str, channel_id: str) -> RecorderView:
        if (device_id, channel_id) not in self.views:
            raise GatewayError("gb.route.not_found")
        return self.views[device_id, channel_id]

    async def put(self, plan: RecordingPlan) -> RecorderView:
        view = RecorderView(plan=plan, state=RecorderState.IDLE, since=NOW)
        return self.views.setdefault((plan.device_id, plan.channel_id), view)

    async def remove(self, device_id: str, channel_id: str) -> None:
        self.get(device_id, channel_id)
        del self.views[device_id, channel_id]

    async def spans(self, device_id: str, channel_id: str, start: datetime, end: datetime) -> list[Span]:
        self.asked.append((device_id, channel_id, start, end))
        return [Span(start=NOW - 60, end=NOW, size=5, segments=1, locked=False, trigger="plan")]

    async def lock(
        self, device_id: str, channel_id: str, start: datetime, end: datetime, *, locked: bool
    ) -> int:
        self.asked.append((device_id, channel_id, start, end, locked))
        return 2

    async def play(
        self, device_id: str, channel_id: str, start: datetime, end: datetime
    ) -> RecordingPlayback:
        raise GatewayError("gb.media.no_recording")

    async def file(self, device_id: str, channel_id: str, start: datetime, end: datetime) -> Iterator[bytes]:
        return iter((b"ftyp", b"moov"))


class FakePushes:
    """As `outputs.push.Pushes`, without a stream."""

    def __init__(self) -> None:
        self.views: dict[str, PushView] = {}

    def list(self) -> list[PushView]:
        return [*self.views.values()]

    def get(self, push_id: str) -> PushView:
        if push_id not in self.views:
            raise GatewayError("gb.route.not_found")
        return self.views[push_id]

    async def add(
        self, device_id: str, channel_id: str, url: str, *, video: bool = True, audio: bool = True
    ) -> PushView:
        order = PushOrder(
            id=f"p{len(self.views)}",
            device_id=device_id,
            channel_id=channel_id,
            url=checked_url(url),
            video=video,
            audio=audio,
        )
        return self.views.setdefault(
            order.id,
            PushView(
                order=order, url=shown_url(url), state=PushState.STARTING, since=NOW, last_error="", breaks=0
            ),
        )

    async def remove(self, push_id: str) -> None:
        self.get(push_id)
        del self.views[push_id]


class FakeUppers:
    """As `cascade.service.Uppers`, without a network."""

    def __init__(self) -> None:
        self.views: dict[str, UpperView] = {}
        self.shares: dict[str, tuple[bool, list[tuple[Key, str]]]] = {}

    def all(self) -> list[UpperView]:
        return [self.views[key] for key in sorted(self.views)]

    def get(self, upper_id: str) -> UpperView:
        if upper_id not in self.views:
            raise GatewayError("gb.route.upper_unknown")
        return self.views[upper_id]

    async def add(self, upper_id: str, change: UpperChange) -> UpperView:
        blank = Upper(id=upper_id, domain="", host="", local_id="34020000002000000001")
        view = UpperView(
            upper=change.applied(blank),
            registered=False,
            registered_at=None,
            last_error="It does not answer.",
            remote_address="192.0.2.9:5060",
            shared_channels=0,
            share_all=False,
            streams=0,
        )
        self.views[upper_id] = view
        return view

    async def change(self, upper_id: str, change: UpperChange) -> UpperView:
        view = self.get(upper_id)
        self.views[upper_id] = replace(view, upper=change.applied(view.upper))
        return self.views[upper_id]

    async def remove(self, upper_id: str) -> None:
        self.get(upper_id)
        del self.views[upper_id]

    async def shared(self, upper_id: str) -> tuple[bool, list[tuple[Key, str]]]:
        self.get(upper_id)
        return self.shares.get(upper_id, (False, []))

    async def share(
        self, upper_id: str, items: Sequence[ShareItem], *, share_all: bool, dry_run: bool = False
    ) -> list[tuple[Key, str]]:
        rows = sharing_of(self.get(upper_id).upper, items).items()
        if not dry_run:
            self.shares[upper_id] = (share_all, rows)
        return rows

    async def tree(self, upper_id: str, form: Tree | None = None) -> SharedTree:
        _, rows = await self.shared(upper_id)
        return SharedTree(
            self.get(upper_id).upper, [Node(shared_id, "", key, True) for key, shared_id in rows], []
        )


class FakeTalks:
    """As `sessions.talks.Talks` when nobody talks."""

    async def start(
        self, device_id: str, channel_id: str, holder: Holder, *, way: TalkWay | None = None
    ) -> TalkView:
        raise GatewayError("gb.sip.no_call")

    def list(self) -> list[TalkView]:
        return []

    def get(self, talk_id: str) -> TalkView:
        raise GatewayError("gb.route.talk_unknown")

    def feed(self, talk_id: str, pcm: bytes, rate: int, *, live: bool) -> None:
        self.get(talk_id)

    def take_microphone(
        self, talk_id: str, *, kind: MicrophoneKind, client: str, on_over: Callable[[], None] | None = None
    ) -> Microphone:
        self.get(talk_id)
        raise GatewayError("gb.route.busy")

    async def stop(self, talk_id: str, reason: str = "stopped") -> None:
        self.get(talk_id)

    async def ended(self, talk_id: str) -> str:
        self.get(talk_id)
        return ""


def make_stream(device_id: str = NVR, channel_id: str = CAMERA) -> StreamView:
    return StreamView(
        id="s1",
        kind=StreamKind.LIVE,
        state=StreamState.RUNNING,
        device_id=device_id,
        channel_id=channel_id,
        ssrc="0200000001",
        transport=MediaTransport.TCP_PASSIVE,
        tracks=(
            Track(kind=TrackKind.VIDEO, codec=Codec.H264, width=1280, height=720, fps=25.0),
            Track(kind=TrackKind.AUDIO, codec=Codec.PCMA, sample_rate=8000, channels=1),
        ),
        rtp=ReceiverCounters(packets=10, lost=1, jitter_ms=1.23456, bitrate_kbps=2000.04),
        consumers=2,
        started_at=NOW,
    )


@dataclass(slots=True)
class Rig:
    """The application, its fakes, and a key of every role."""

    app: FastAPI
    services: ApiServices
    devices: FakeDevices
    catalogue: FakeCatalogue
    streams: FakeStreams
    records: FakeRecords
    downloads: FakeDownloads
    uppers: FakeUppers
    ptz: FakePtz
    commands: FakeCommands
    reports: FakeReports
    subscriptions: FakeSubscriptions
    snapshots: FakeSnapshots
    clock: TestClock
    key_store: MemoryKeyStore
    texts: dict[Role, str]

    def client(self, role: Role | None = Role.ADMIN, host: str = "gw.example:18080") -> httpx.AsyncClient:
        """A client with the key of `role`; None: without a key."""
        headers = {} if role is None else {"Authorization": f"Bearer {self.texts[role]}"}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=True),
            base_url=f"http://{host}",
            headers=headers,
        )


@asynccontextmanager
async def api_rig(**changes: object) -> AsyncIterator[Rig]:
    """A fresh application; `changes` replace fields of its services."""
    clock = TestClock()
    made = {role: make_key(role.value, role, now=NOW) for role in Role}
    store = MemoryKeyStore(key for key, _ in made.values())
    keys = Keys(store, wall=clock.wall, monotonic=clock.monotonic)
    await keys.load()
    nvr = make_device()
    nvr.channels = {
        CAMERA: Channel(
            NVR, CAMERA, "Door", "camera", ChannelStatus.ON, "1", parent_ids=("34020000002160000001",),
            civil_code="340200", longitude=120.5, latitude=31.5, manufacturer="Acme", model="C1",
        ),
        "34020000001320000002": Channel(NVR, "34020000001320000002", "Yard", "camera", ChannelStatus.OFF),
        "34020000001320000003": Channel(NVR, "34020000001320000003", "Old", "camera", gone=True),
        "34020000002160000001": Channel(NVR, "34020000002160000001", "House", "organisation"),
    }  # fmt: skip
    nvr.catalogue_state = CatalogueState.PARTIAL
    nvr.catalogue_received, nvr.catalogue_expected, nvr.catalogue_at = 3, 4, NOW
    pending = make_device(PENDING, approved=False)
    pending.channels = {CAMERA: Channel(PENDING, CAMERA, "Hidden", "camera")}
    devices, catalogue, streams = FakeDevices([nvr, pending]), FakeCatalogue(), FakeStreams()
    records, directory = FakeRecords(), TemporaryDirectory(prefix="gb28181gw-")
    uppers = FakeUppers()
    downloads = FakeDownloads(FilePath(directory.name))
    ptz, commands, reports = FakePtz(), FakeCommands(), FakeReports()
    subscriptions, snapshots = FakeSubscriptions(), FakeSnapshots()
    health = HealthBoard(())
    services = ApiServices(
        devices=devices,
        catalogue=catalogue,
        streams=streams,
        records=records,
        downloads=downloads,
        stills=FakeStills(),
        recording=FakeRecording(),
        pushes=FakePushes(),
        uppers=uppers,
        talks=FakeTalks(),
        ptz=ptz,
        commands=commands,
        reports=reports,
        subscriptions=subscriptions,
        snapshots=snapshots,
        keys=keys,
        tokens=PlayTokens(b"k" * 32, ttl_s=300, wall=clock.wall),
        bus=EventBus(),
        health=health,
        metrics=Metrics(process=False),
        trace=SipTrace(zone=ZONE, wall=clock.wall),
        play=PlayUrlConfig(port=lambda: 18081, rtsp_port=lambda: 8554),
        zone=ZONE,
        version="0.1.0",
    )
    services = replace(services, **changes)
    with directory:
        yield Rig(
            app=create_api(services),
            services=services,
            devices=devices,
            catalogue=catalogue,
            streams=streams,
            records=records,
            downloads=downloads,
            uppers=uppers,
            snapshots=snapshots,
            subscriptions=subscriptions,
            ptz=ptz,
            commands=commands,
            reports=reports,
            clock=clock,
            key_store=store,
            texts={role: text for role, (_, text) in made.items()},
        )
    services.bus.close()
