"""Makes the parts and joins them.

`Gateway.start` makes the parts in the order in which they need each other and puts each one's end on a stack;
`Gateway.stop` and a start that fails half-way take the stack down in reverse. `run` is the process around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import platform
import re
import signal
import time
from collections.abc import Awaitable, Callable

import uvloop

from gb28181gw import __version__
from gb28181gw.access.guard import MediaGuard
from gb28181gw.access.keys import Keys, first_key
from gb28181gw.access.secrets import Secrets, load_or_create_secrets, make_data_dir
from gb28181gw.access.tokens import PlayTokens
from gb28181gw.api.app import create_api
from gb28181gw.api.server import ApiServer, ApiServerConfig
from gb28181gw.api.services import ApiServices, PlayUrlConfig
from gb28181gw.app.metrics import register_metrics
from gb28181gw.app.play_source import PlaySource
from gb28181gw.app.streams import AllStreams
from gb28181gw.cascade.answers import Answers
from gb28181gw.cascade.call import CallTools
from gb28181gw.cascade.calls import UpperCalls
from gb28181gw.cascade.service import Uppers
from gb28181gw.clock import Clock, SystemClock, clock_synchronised
from gb28181gw.devices.config import DateMode, DevicesConfig, Enrolment
from gb28181gw.devices.models import Device
from gb28181gw.devices.records import Records
from gb28181gw.devices.reports import Reports
from gb28181gw.devices.service import Devices
from gb28181gw.devices.snapshots import Snapshots
from gb28181gw.devices.subscriptions import DeviceSubscriptions, Kind, SubscribeConfig
from gb28181gw.devices.talking import TalkPartners
from gb28181gw.dialect_files import load_dialects
from gb28181gw.downloads.table import DownloadLimits, Downloads
from gb28181gw.errors import GatewayError
from gb28181gw.gb.ids import ssrc_domain
from gb28181gw.gb.manscdp.media_status import MediaStatus
from gb28181gw.media import native
from gb28181gw.media.native import NativePlane
from gb28181gw.media.ports import PortPool
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.ssrc import SsrcPool
from gb28181gw.observability.events import EventBus
from gb28181gw.observability.health import HealthBoard
from gb28181gw.observability.logs import configure_logging
from gb28181gw.observability.metrics import Metrics
from gb28181gw.observability.trace import Direction, SipTrace
from gb28181gw.outputs.listener import ListenerConfig, MediaListener
from gb28181gw.outputs.push import Pushes
from gb28181gw.outputs.rtsp import RtspConfig, RtspListener
from gb28181gw.outputs.webrtc_host import WebRtcConfig
from gb28181gw.recording.table import Recording, RecordingLimits, UploadPlan
from gb28181gw.sessions.call import CallContext, CallLimits
from gb28181gw.sessions.ending import CallEnder
from gb28181gw.sessions.models import StreamState
from gb28181gw.sessions.pool_watch import PoolWatch
from gb28181gw.sessions.stream import StreamLimits
from gb28181gw.sessions.table import Sessions
from gb28181gw.sessions.talks import Talks
from gb28181gw.settings import HostPort, MediaSettings, S3Settings, Settings
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.path import Path
from gb28181gw.stills.files import StillFiles
from gb28181gw.stills.stills import Stills
from gb28181gw.storage.calls import SqliteCallStore
from gb28181gw.storage.database import Database
from gb28181gw.storage.downloads import SqliteDownloadStore
from gb28181gw.storage.keys import SqliteKeyStore
from gb28181gw.storage.objects import S3Config, S3Objects
from gb28181gw.storage.pushes import SqlitePushStore
from gb28181gw.storage.recordings import SqliteRecordingStore
from gb28181gw.storage.reports import SqliteReportStore
from gb28181gw.storage.snapshots import SnapshotFiles
from gb28181gw.storage.sqlite import SqliteDeviceStore
from gb28181gw.storage.subscriptions import SqliteSubscriptionStore
from gb28181gw.storage.uppers import SqliteUpperStore
from gb28181gw.transport.tls import server_context
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.models import AgentConfig

HOUSEKEEPING_S = 5.0
"""Pace of what is nobody's hurry: keys changed by the command line, log lines left out, signs of life by media."""

COLLECTOR = (20_000, 20, 50)
"""Thresholds of the garbage collector's generations; Python's are 700, 10, 10."""


def run(settings: Settings) -> int:
    """The process: until SIGTERM or SIGINT; returns the exit status. Raises GatewayError when it cannot start."""
    started = time.monotonic()
    configure_logging(format=settings.log.format, level=settings.log.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, started))


async def _serve(settings: Settings, started: float) -> int:
    make_data_dir(settings.data_dir)
    gateway = Gateway(settings, load_or_create_secrets(settings.secrets_path))
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(name: str) -> None:
        if not ended.done():
            ended.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number.name)
    await gateway.start()
    calm_collector()
    gateway.tell_ready(int((time.monotonic() - started) * 1000))
    await gateway.stop(await ended)
    return 0


def calm_collector() -> None:
    """What was loaded stays: the garbage collector does not look at it again, and looks less often at the rest.

    Going through the objects of 50,000 channels holds the event loop up for some tenths of a second (I8). Nearly all
    garbage goes by reference counts; cycles are rare here, so they may wait for longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)


def choose_plane(settings: MediaSettings) -> type[NativePlane | ReferencePlane]:
    """The media engine to run: native where it was built, unless `[media] plane` says python."""
    if settings.plane == "python" or not native.is_built():
        return ReferencePlane
    return NativePlane


class Gateway:
    """Owner of all parts. `start` and `stop` once each, on one event loop."""

    def __init__(self, settings: Settings, secrets: Secrets, clock: Clock | None = None) -> None:
        self.settings = settings
        self._secrets = secrets
        self._clock = clock if clock is not None else SystemClock()
        self._ends = contextlib.AsyncExitStack()
        self._plane = choose_plane(settings.media)
        self.bus = EventBus(strict=False, zone=settings.sip.zone)
        self.health = HealthBoard()
        self.metrics = Metrics()
        self.trace = SipTrace(zone=settings.sip.zone)
        self.loop_lag_s = 0.0
        """How late the last housekeeping ran (F-20)."""

    # ---- start and stop

    async def start(self) -> None:
        """Everything, in order. Raises GatewayError; then nothing is left open."""
        settings = self.settings
        self.bus.emit(
            "gateway.starting",
            version=__version__,
            plane=self._plane.name,
            python=platform.python_version(),
            data_dir=str(settings.data_dir),
        )
        for warning in settings.warnings():
            self.bus.emit("config.warning", key=warning.key, detail=warning.sentence)
        if self._secrets.created:
            self.bus.emit("secrets.created", path=str(settings.secrets_path))
        if settings.sip.date != "off" and clock_synchronised() is False:
            self.bus.emit(
                "clock.unsynchronised",
                detail="Cameras take their time from this host; start chrony or timesyncd.",
            )
        if settings.media.plane == "auto" and not native.is_built():
            self.bus.emit(
                "config.warning",
                key="media.plane",
                detail="The native media plane was not built; the Python plane runs, which carries fewer streams. "
                "Install g++ and python3-dev and install gb28181gw again.",
            )
        try:
            await self._start_storage()
            self._start_signalling()
            await self._start_devices()
            await self._start_media()
            await self._start_cascade()
            await self._start_listeners()
        except BaseException:
            await self._ends.aclose()
            raise

    async def stop(self, reason: str) -> None:
        """Everything, in reverse order: viewers and devices are told, what is queued is written."""
        began = time.monotonic()
        self.bus.emit("gateway.stopping", reason="signal", signal=reason)
        self.health.stopping()
        self.bus.close()
        await self._ends.aclose()
        self.bus.emit("gateway.stopped", duration_ms=int((time.monotonic() - began) * 1000))

    def tell_ready(self, duration_ms: int) -> None:
        """The line that operators wait for."""
        self.bus.emit(
            "gateway.ready",
            version=__version__,
            sip=f"{self.settings.sip.address.host}:{self.sip_port}",
            media=self.settings.media.ports,
            http=f"{self.settings.http.address.host}:{self.api.port}",
            plane=self._plane.name,
            devices=len(self.devices.registry),
            duration_ms=duration_ms,
        )

    # ---- the parts, in the order in which they need each other

    async def _start_storage(self) -> None:
        self.database = Database(self.settings.database_path)
        self.database.on_health(self._storage_changed)
        self.database.start()
        self._at_end(self.database.close)
        self.keys = Keys(
            SqliteKeyStore(self.database),
            wall=self._clock.wall,
            monotonic=self._clock.monotonic,
            built_in=[first_key(self._secrets.admin_key)],
        )
        await self.keys.load()
        self.tokens = PlayTokens(
            self._secrets.token_key, ttl_s=self.settings.media.token_s, wall=self._clock.wall
        )
        self.guard = MediaGuard(self.keys, self.tokens)

    def _start_signalling(self) -> None:
        """Everything of SIP but its sockets, which open when there is somebody to answer."""
        sip = self.settings.sip
        self.transports = Transports(advertise=sip.advertise, clock=self._clock)
        self._at_end(self.transports.close)
        self.endpoint = Endpoint()
        self.agent = UserAgent(
            AgentConfig(
                id=sip.id, domain=sip.domain, user_agent=f"gb28181gw/{__version__}", advertise=sip.advertise
            ),
            self.endpoint,
            self.transports,
            self._clock,
        )
        self._at_end(self.agent.close)
        self.agent.on_received = self.agent.on_sent = self._trace_message
        self.agent.on_malformed_message = lambda path, reason: self.bus.emit(
            "sip.malformed", peer=path.peer, reason=reason
        )
        self.agent.refusals.on_shed = lambda host, dropped: self.bus.emit(
            "sip.dropped", peer=host, count=dropped, reason="rate_limited"
        )
        self.agent.on_handler_error = lambda path, method, error: self.bus.emit(
            "sip.handler_failed", peer=path.peer, method=method, error=repr(error)
        )

    async def _start_devices(self) -> None:
        sip = self.settings.sip
        self.devices = Devices(
            config=DevicesConfig(
                platform_id=sip.id,
                domain=sip.domain,
                sip_port=sip.address.port,
                password=sip.password or self._secrets.sip_password,
                enrolment=Enrolment(sip.enrolment),
                allow=sip.allow,
                keepalive_s=float(sip.keepalive_s),
                keepalive_misses=sip.keepalive_misses,
                date=DateMode(sip.date),
                timezone=sip.timezone,
                profiles=load_dialects(self.settings.data_dir),
            ),
            store=SqliteDeviceStore(self.database),
            agent=self.agent,
            bus=self.bus,
            clock=self._clock,
        )
        self.reports = Reports(
            registry=self.devices.registry,
            messages=self.devices.messages,
            queries=self.devices.queries,
            store=SqliteReportStore(self.database),
            bus=self.bus,
            clock=self._clock,
            timezone=sip.timezone,
            alarm_days=self.settings.storage.alarm_days,
            position_days=self.settings.storage.position_days,
        )
        self.records = Records(
            registry=self.devices.registry,
            queries=self.devices.queries,
            bus=self.bus,
            timezone=sip.timezone,
        )
        self.subscriptions = DeviceSubscriptions(
            config=SubscribeConfig(
                kinds=tuple(map(Kind, sip.subscribe)),
                expires_s=sip.subscribe_s,
                position_interval_s=sip.position_interval_s,
                timezone=sip.timezone,
            ),
            registry=self.devices.registry,
            presence=self.devices.presence,
            messages=self.devices.messages,
            subscriptions=self.agent.subscriptions,
            store=SqliteSubscriptionStore(self.database),
            bus=self.bus,
            clock=self._clock,
            next_sn=self.devices.queries.next_sn,
        )
        await self.devices.start()
        self._at_end(self.devices.close)
        self.reports.start()
        self._at_end(self.reports.close)
        self._at_end(self.records.close)
        self.subscriptions.start()
        self._at_end(self.subscriptions.close)
        self.health.up("registry")

    async def _start_media(self) -> None:
        settings = self.settings.media
        freeze = settings.on_loss == "freeze"
        self.engine: NativePlane | ReferencePlane = (
            NativePlane(settings.workers, freeze_on_loss=freeze)
            if self._plane is NativePlane
            else ReferencePlane(freeze_on_loss=freeze)
        )
        self._at_end(self.engine.close)
        if settings.shared_port:
            await self._open_shared_port(settings.listen, settings.shared_port)
        ports = settings.port_range
        self.ports = PortPool(ports.first, ports.last, float(settings.port_rest_s), self._clock)
        self.ssrcs = SsrcPool(ssrc_domain(self.settings.sip.id), float(settings.port_rest_s), self._clock)
        store = SqliteCallStore(self.database)
        self.ender = CallEnder(
            ua=self.agent, store=store, bus=self.bus, path_of=self.devices.registry.path_of
        )
        context = CallContext(
            own_id=self.settings.sip.id,
            media_listen=settings.listen,
            media_advertise=settings.advertise,
            source_mode="nat",
            ua=self.agent,
            engine=self.engine,
            ports=self.ports,
            ssrcs=self.ssrcs,
            store=store,
            ender=self.ender,
            ask_key_frame=self.devices.ask_key_frame,
            bus=self.bus,
            clock=self._clock,
            limits=CallLimits(silence_s=float(settings.source_timeout_s)),
            shared_port=settings.shared_port,
        )
        self.sessions = Sessions(
            context,
            self.devices.registry,
            StreamLimits(idle_stop_s=float(settings.idle_stop_s), transport=settings.transport),
            recorded=self.records.spans,
        )
        self._at_end(self.sessions.close)
        self.devices.messages.on_media_status(self._media_status)
        partners = TalkPartners(
            registry=self.devices.registry, queries=self.devices.queries, own_id=self.settings.sip.id
        )
        self.talks = Talks(context, partners, partners.device_of)
        self._at_end(self.talks.close)
        self.agent.on_request("INVITE", self.talks.on_invite)
        self.keys.on_gone(self.talks.stop_key)
        # Who unregistered or was removed has ended, or must end, its media (REG-11).
        self.devices.on_forgotten(lambda device_id: self._end_media(device_id, "device_gone"))
        self.devices.registry.on_removed(lambda device: self._end_media(device.id, "device_removed"))
        limits = self.settings.downloads
        self.downloads = Downloads(
            recordings=self.sessions,
            engine=self.engine,
            bus=self.bus,
            clock=self._clock,
            directory=self.settings.data_dir / "downloads",
            store=SqliteDownloadStore(self.database),
            is_away=self._is_away,
            limits=DownloadLimits(
                at_once=limits.at_once,
                per_device=limits.per_device,
                keep_days=limits.keep_days,
                max_gb=limits.max_gb,
            ),
        )
        self.sessions.on_ended(self.downloads.stream_ended)
        await self.downloads.start()
        self._at_end(self.downloads.close)
        self.stills = Stills(
            streams=self.sessions,
            engine=self.engine,
            files=StillFiles(self.settings.data_dir / "pictures", self.settings.storage.still_mb * 1_000_000),
            bus=self.bus,
            clock=self._clock,
        )
        await self.stills.start()
        self._at_end(self.stills.close)
        self.devices.registry.on_removed(lambda device: self.stills.forget_device(device.id))
        address = settings.http_address
        source = PlaySource(self.sessions)
        self.listener = MediaListener(
            self.engine,
            source,
            self.guard,
            self.bus,
            ListenerConfig(
                host=address.host,
                port=address.port,
                origins=settings.origins,
                merge_s=settings.merge_ms / 1000,
                webrtc=WebRtcConfig(
                    host=settings.listen,
                    advertise=settings.advertise,
                    sessions=settings.webrtc_sessions,
                    transcodes=settings.transcode,
                ),
            ),
        )
        self.listener.webrtc.ask_key_frame = self.devices.ask_key_frame
        self.listener.whip.talks = self.talks
        self.guard.on_revoked(self.listener.close_grants)
        self._make_recording(source)
        self.pushes = Pushes(
            source=source,
            engine=self.engine,
            audio=self.listener.transcoding,
            store=SqlitePushStore(self.database),
            bus=self.bus,
            clock=self._clock,
            authorities=settings.push_ca,
        )
        self.devices.registry.on_removed(lambda device: self.pushes.forget_device(device.id))
        self.devices.presence.on_online(lambda device, _: self.pushes.device_online(device.id))
        self.snapshots = Snapshots(
            registry=self.devices.registry,
            commands=self.devices.commands,
            store=SnapshotFiles(self.database, self.settings.data_dir / "snapshots"),
            bus=self.bus,
            clock=self._clock,
            base_url=self._upload_url,
            days=self.settings.storage.snapshot_days,
            max_bytes=self.settings.storage.snapshot_mb * 1_000_000,
        )
        self.reports.on_snapshots(self.snapshots.finished)
        self.listener.uploads = self.snapshots
        self.snapshots.start()
        self._at_end(self.snapshots.close)
        await self.listener.start()
        self._at_end(self.listener.close)
        address = self.settings.rtsp.address
        self.rtsp = RtspListener(
            self.engine,
            source,
            self.guard,
            self.bus,
            self.listener.viewers,
            self.ports,
            RtspConfig(host=address.host, port=address.port),
        )
        await self.rtsp.start()
        self._at_end(self.rtsp.close)
        self.health.up("rtsp")
        self.health.up("media")

    def _make_recording(self, source: PlaySource) -> None:
        """It begins when devices can be reached."""
        wanted = self.settings.recording
        self.recording = Recording(
            streams=self.sessions,
            engine=self.engine,
            audio=self.listener.transcoding,
            store=SqliteRecordingStore(self.database),
            bus=self.bus,
            clock=self._clock,
            zone=self.settings.sip.zone,
            directory=self.settings.recording_directory,
            limits=RecordingLimits(
                segment_s=float(wanted.segment_s),
                keep_days=wanted.keep_days,
                max_gb=float(wanted.max_gb),
                min_free_mb=float(wanted.min_free_mb),
                idle_s=float(self.settings.media.idle_stop_s),
            ),
            upload=upload_plan(wanted.s3),
        )
        source.recording = self.recording
        self.sessions.on_ended(self.recording.stream_ended)
        self.reports.on_alarm(self.recording.on_alarm)
        self.devices.presence.on_online(lambda device, _: self.recording.device_online(device.id))
        self.devices.registry.on_removed(lambda device: self.recording.forget_device(device.id))

    async def _start_cascade(self) -> None:
        """The upper platforms as stored; they are registered at when SIP listens."""
        sip = self.settings.sip
        self.uppers = Uppers(
            store=SqliteUpperStore(self.database),
            agent=self.agent,
            bus=self.bus,
            clock=self._clock,
            book=self.devices.registry,
            answers=Answers(
                book=self.devices.registry,
                commands=self.devices.commands,
                bus=self.bus,
                clock=self._clock,
                zone=sip.zone,
                version=__version__,
            ),
            calls=UpperCalls(
                CallTools(
                    agent=self.agent,
                    source=self.sessions,
                    talks=self.talks,
                    engine=self.engine,
                    ports=self.ports,
                    ssrcs=self.ssrcs,
                    bus=self.bus,
                    clock=self._clock,
                    next_sn=self.devices.queries.next_sn,
                    media_listen=self.settings.media.listen,
                    media_advertise=self.settings.media.advertise,
                )
            ),
            default_local_id=sip.id,
            is_device_path=self.devices.registry.is_bound,
            zone=sip.zone,
        )
        await self.uppers.load()
        self.devices.registry.on_channel_changed(self.uppers.channel_changed)
        self.devices.presence.on_online(self.uppers.device_changed)
        self.devices.presence.on_offline(self.uppers.device_changed)
        self.devices.messages.on_faults(self.uppers.faults_changed)
        self.reports.on_alarm(self.uppers.alarm)
        self.reports.on_position(self.uppers.place)
        self.reports.on_ptz(self.uppers.ptz_place)
        self.sessions.on_ended(self.uppers.calls.source_ended)
        self._at_end(self.uppers.close)
        self.agent.on_path_closed = self._path_closed

    def _is_away(self, device_id: str) -> bool:
        device = self.devices.registry.get(device_id)
        return device is not None and not device.online

    async def _open_shared_port(self, host: str, port: int) -> None:
        try:
            await self.engine.open_shared_port(host, port)
        except OSError as error:
            raise GatewayError(
                "gb.config.port_in_use",
                f"media.shared_port: {host}:{port} or the port above it cannot be bound: {error.strerror}.",
            ) from error

    async def _start_listeners(self) -> None:
        """SIP first: devices may talk from here on. The API last: who reaches it finds everything."""
        sip, http = self.settings.sip.address, self.settings.http.address
        self.sip_port = await self.transports.listen(sip.host, sip.port)
        await self._listen_tls()
        self.health.up("sip")
        self.subscriptions.begin()
        await self.sessions.recover()
        self.downloads.begin()
        self.uppers.start()
        await self.recording.start()
        self._at_end(self.recording.close)
        await self.pushes.start()
        self._at_end(self.pushes.close)
        self.api = ApiServer(
            create_api(
                ApiServices(
                    devices=self.devices.registry,
                    catalogue=self.devices.catalogue,
                    streams=AllStreams(self.sessions, self.recording),
                    records=self.records,
                    downloads=self.downloads,
                    talks=self.talks,
                    ptz=self.devices.ptz,
                    commands=self.devices.commands,
                    reports=self.reports,
                    uppers=self.uppers,
                    subscriptions=self.subscriptions,
                    snapshots=self.snapshots,
                    stills=self.stills,
                    recording=self.recording,
                    pushes=self.pushes,
                    keys=self.keys,
                    tokens=self.tokens,
                    bus=self.bus,
                    health=self.health,
                    metrics=self.metrics,
                    trace=self.trace,
                    play=PlayUrlConfig(
                        advertise=self.settings.media.http_advertise,
                        port=lambda: self.listener.port,
                        rtsp_port=lambda: self.rtsp.port,
                    ),
                    zone=self.settings.sip.zone,
                    version=__version__,
                )
            ),
            ApiServerConfig(
                host=http.host, port=http.port, cert=self.settings.http.cert, key=self.settings.http.key
            ),
        )
        register_metrics(self.metrics, self)
        await self.api.start()
        self._at_end(self.api.stop)
        self._tell_exposure("http", http, encrypted=bool(self.settings.http.cert))
        housekeeping = asyncio.create_task(self._keep_house(), name="housekeeping")
        self._at_end(lambda: _cancelled(housekeeping))

    async def _listen_tls(self) -> None:
        sip = self.settings.sip
        if sip.tls_address is not None:
            context = server_context(sip.tls_cert, sip.tls_key)
            await self.transports.listen_tls(sip.tls_address.host, sip.tls_address.port, context)

    # ---- small duties of nobody else

    def _upload_url(self, device: Device) -> str:
        """Where a device reaches the media listener: as announced, or the address that it talks SIP to."""
        told = self.settings.media.http_advertise
        if not told:
            host = (
                device.path.local_host if device.path is not None else self.settings.media.http_address.host
            )
            told = f"[{host}]" if ":" in host else host
        if not re.search(r":\d+$", told):
            told = f"{told}:{self.listener.port}"
        return f"http://{told}/upload"

    def _end_media(self, device_id: str, reason: str) -> None:
        self.sessions.stop_device(device_id, reason)
        self.talks.stop_device(device_id, reason)

    def _at_end(self, close: Callable[[], Awaitable[object]]) -> None:
        self._ends.push_async_callback(close)

    async def _keep_house(self) -> None:
        loop = asyncio.get_running_loop()
        pools = PoolWatch({"media_ports": self.ports, "ssrcs": self.ssrcs}, self.bus)
        while True:
            due = loop.time() + HOUSEKEEPING_S
            await asyncio.sleep(HOUSEKEEPING_S)
            self.loop_lag_s = max(loop.time() - due, 0.0)
            self.bus.report_suppressed()
            pools.look()
            for stream in self.sessions.list():
                # Its packets are a sign of life like any other (KA-04); a paused recording sends none.
                paused = stream.history is not None and stream.history.paused
                if stream.state is StreamState.RUNNING and not paused:
                    self.devices.heard_media(stream.device_id)
            await self.keys.load()

    def _path_closed(self, path: Path) -> None:
        self.devices.presence.connection_lost(path)
        self.uppers.connection_closed(path)

    def _media_status(self, device_id: str, status: MediaStatus, call_id: str) -> None:
        self.sessions.media_status(device_id, status.device_id, status.notify_type, call_id)

    def _storage_changed(self, well: bool, detail: str) -> None:
        self.health.problem("storage", "" if well else f"The database does not answer: {detail}.")
        self.bus.emit("storage.recovered" if well else "storage.degraded", detail=detail or None)

    def _tell_exposure(self, listener: str, address: HostPort, *, encrypted: bool) -> None:
        if not address.is_loopback and not encrypted:
            self.bus.emit(
                "gateway.exposed",
                listener=listener,
                address=str(address),
                detail="It can be reached from other hosts and is not encrypted.",
            )

    def _trace_message(self, direction: str, path: Path, data: bytes) -> None:
        device = self.devices.registry.alone_on(path)
        peer_id = device.id if device is not None else self.uppers.owner_of(path)
        if peer_id is not None:
            self.trace.record(peer_id, Direction(direction), path, data)
        else:
            self.trace.record_stranger(Direction(direction), path, data)


def upload_plan(settings: S3Settings) -> UploadPlan | None:
    """None: no object store is configured. Raises GatewayError gb.config.invalid."""
    if not settings.bucket:
        return None
    try:
        ca = settings.certificates()
        secret = settings.secret()
    except (OSError, ValueError) as error:
        raise GatewayError("gb.config.invalid", f"recording.s3: {error}") from error
    config = S3Config(
        endpoint=settings.endpoint,
        bucket=settings.bucket,
        region=settings.region,
        access_key=settings.access_key,
        secret_key=secret,
        virtual_host=settings.virtual_host,
        allow_http=settings.allow_http,
        ca=ca,
    )
    return UploadPlan(
        objects=S3Objects(config),
        prefix=settings.prefix,
        parallel=settings.parallel,
        keep_local=settings.keep_local,
    )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
