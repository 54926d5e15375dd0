"""Which plain counters of which part are exported, and under which name (docs/reference/metrics.md).

The parts count into dataclasses of their own and know no exporter; each field becomes one metric,
``gb28181gw_<group>_<field>``. Nothing here has a device's id as a label.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gb28181gw.observability.metrics import Metrics

if TYPE_CHECKING:
    from gb28181gw.app.gateway import Gateway

_GAUGES = frozenset({"connections", "connections_unverified"})
"""Fields that go down as well."""


def register_metrics(metrics: Metrics, gateway: Gateway) -> None:
    """Once, when all parts are there."""
    devices, sessions = gateway.devices, gateway.sessions
    _export(metrics, "sip_transport", gateway.transports.counters)
    _export(metrics, "sip", gateway.endpoint.counters)
    _export(metrics, "sip_agent", gateway.agent.counters)
    _export(metrics, "register", devices.registrar.counters)
    _export(metrics, "message", devices.messages.counters)
    _export(metrics, "devices", devices.counters)
    _export(metrics, "sessions", sessions.counters)
    _export(metrics, "talks", gateway.talks.counters)
    _export(metrics, "calls", gateway.ender.counters)
    _export(metrics, "upper_links", gateway.uppers.counters)
    _export(metrics, "upper_answers", gateway.uppers.answers.counters)
    _export(metrics, "upper_notify", gateway.uppers.notify_counters)
    _export(metrics, "upper_broadcasts", gateway.uppers.broadcast_counters)
    _export(metrics, "upper_calls", gateway.uppers.calls.counters)
    _export(metrics, "database", gateway.database.counters)
    _export(metrics, "reports", gateway.reports.counters)
    _export(metrics, "snapshots", gateway.snapshots.counters)
    _export(metrics, "stills", gateway.stills.counters)
    _export(metrics, "still_decoders", gateway.stills.decoders.counters)
    metrics.gauge("stills_under_way", "Pictures that are being taken.", lambda: len(gateway.stills))
    metrics.gauge(
        "still_decoder_processes", "Decoder processes that live.", lambda: len(gateway.stills.decoders)
    )
    _export(metrics, "recording", gateway.recording.counters)
    metrics.gauges(
        "recorders", "Plans of recording by state.", ("state",), lambda: _labelled(gateway.recording.gauges)
    )
    metrics.gauge(
        "recording_stored_bytes", "Files in the index that are closed.", lambda: gateway.recording.total_bytes
    )
    metrics.gauge(
        "recording_disk_full",
        "1 while the disk takes no recordings.",
        lambda: int(bool(gateway.recording.disk_full)),
    )
    _export(metrics, "recording_upload", gateway.recording.upload_counters)
    uploads = gateway.recording.uploads
    metrics.gauge(
        "recording_upload_waiting",
        "Files that wait to be uploaded.",
        lambda: uploads.waiting if uploads is not None else 0,
    )
    metrics.gauge(
        "recording_upload_failing",
        "1 while the object store takes nothing.",
        lambda: int(uploads is not None and bool(uploads.failing)),
    )
    _export(metrics, "push", gateway.pushes.counters)
    metrics.gauges("pushes", "Pushes by state.", ("state",), lambda: _labelled(gateway.pushes.gauges))
    _export(metrics, "subscriptions", gateway.subscriptions.counters)
    metrics.gauges(
        "subscriptions",
        "Subscriptions at devices by kind and state.",
        ("kind", "state"),
        lambda: {key: float(number) for key, number in gateway.subscriptions.counts().items()},
    )

    metrics.gauges(
        "devices",
        "Devices by presence.",
        ("state",),
        lambda: {(s,): n for s, n in devices.presence.counts().items()},
    )
    metrics.gauges(
        "downloads",
        "Downloads by state; complete and failed ones are those whose files are kept.",
        ("state",),
        lambda: {(state,): count for state, count in gateway.downloads.gauges.items()},
    )
    metrics.gauge("talks_open", "Talks that are not ended.", lambda: len(gateway.talks))
    metrics.gauge(
        "register_uncommitted",
        "Registrations whose commit is under way.",
        lambda: devices.registrar.uncommitted,
    )
    metrics.gauge("bans", "Banned pairs of address and device.", lambda: len(devices.bans))
    metrics.counter("device_flaps", "Times a device went offline.", lambda: devices.presence.flaps)
    metrics.counter("binding_moved", "Paths that were followed to another port.", lambda: devices.paths.moved)
    metrics.counter(
        "binding_conflicts",
        "Messages off the path while the bound one lives.",
        lambda: devices.paths.conflicts,
    )
    metrics.counter("binding_trials", "Paths that were taken on trial.", lambda: devices.paths.trials)
    metrics.gauge(
        "devices_unsaved", "Devices with something to write.", lambda: devices.registry.unsaved_count
    )
    metrics.gauge(
        "requests_behind_seconds",
        "How long a request of ours waits for its turn.",
        lambda: devices.pacer.behind_s,
    )
    metrics.gauge("queries_open", "Queries that wait for their answer.", lambda: devices.queries.open_count)
    metrics.counter("queries", "Queries sent to devices.", lambda: devices.queries.asked)
    metrics.counter("queries_unanswered", "Queries without an answer.", lambda: devices.queries.unanswered)
    metrics.counter("queries_late", "Answers that nobody waited for any more.", lambda: devices.queries.late)
    metrics.counter(
        "queries_guessed", "Answers matched by their type alone.", lambda: devices.queries.guessed
    )
    metrics.counters(
        "catalogues",
        "Catalogue queries by result.",
        ("result",),
        lambda: {
            ("complete",): devices.catalogue.completed,
            ("partial",): devices.catalogue.partial,
            ("failed",): devices.catalogue.failed,
        },
    )
    metrics.counter("catalogue_items", "Catalogue items received.", lambda: devices.catalogue.items)
    metrics.gauge(
        "catalogues_waiting",
        "Devices that wait for their catalogue query.",
        lambda: devices.catalogue.waiting,
    )
    metrics.gauge("catalogues_running", "Catalogue queries under way.", lambda: devices.catalogue.running)

    metrics.gauge(
        "rtp_demuxed",
        "RTP of the streams that run now: packets that were demuxed; what is only passed on is not.",
        lambda: sum(
            one.demuxed for one in gateway.engine.stream_counters(one.id for one in sessions.list()).values()
        ),
    )
    metrics.gauge(
        "upper_streams_raw",
        "Streams to upper platforms that are the device's own packets.",
        lambda: gateway.uppers.calls.raw,
    )
    metrics.gauge(
        "upper_streams", "Calls of upper platforms that are not over.", lambda: gateway.uppers.calls.total
    )
    metrics.gauge("uppers", "Upper platforms.", lambda: len(gateway.uppers))
    metrics.gauge(
        "uppers_registered",
        "Upper platforms that we are registered at.",
        lambda: gateway.uppers.registered_count,
    )

    metrics.gauges(
        "streams", "Streams by state.", ("state",), lambda: _count(str(one.state) for one in sessions.list())
    )
    metrics.gauge("consumers", "Leases on streams.", lambda: sum(one.consumers for one in sessions.list()))
    for name in ("packets", "bytes", "lost", "reordered", "duplicated", "foreign", "malformed"):
        metrics.gauge(
            f"rtp_{name}",
            f"RTP of the streams that run now: {name}.",
            lambda name=name: sum(getattr(one.rtp, name) for one in sessions.list()),  # type: ignore[misc]
        )
    metrics.gauges(
        "media_ports",
        "Pairs of media ports by state.",
        ("state",),
        lambda: {
            ("in_use",): gateway.ports.in_use,
            ("resting",): gateway.ports.resting,
            ("free",): gateway.ports.free,
        },
    )
    metrics.gauge("media_ports_limit", "Pairs of media ports in all.", lambda: gateway.ports.capacity)
    metrics.gauges(
        "ssrcs",
        "SSRCs by state.",
        ("state",),
        lambda: {("in_use",): gateway.ssrcs.in_use, ("resting",): gateway.ssrcs.resting},
    )
    metrics.gauges(
        "plane", "What the media plane has open.", ("kind",), lambda: _labelled(gateway.engine.gauges)
    )
    metrics.counter("plane_failures", "Errors inside the media plane.", lambda: gateway.engine.failures)
    metrics.counters(
        "viewers_ended",
        "Viewers that ended, by reason.",
        ("reason",),
        lambda: _labelled(gateway.listener.viewers.ended),
    )
    metrics.counter(
        "media_http_refused", "Play requests and connections refused.", lambda: gateway.listener.refused
    )
    metrics.gauge(
        "media_http_connections", "Connections that are no viewers yet.", lambda: gateway.listener.connections
    )
    metrics.gauge("webrtc_sessions", "Open WebRTC sessions of viewers.", lambda: len(gateway.listener.webrtc))
    metrics.gauge(
        "webrtc_microphones", "Open WebRTC sessions of microphones.", lambda: len(gateway.listener.whip)
    )
    metrics.counters(
        "webrtc_microphones_ended",
        "WebRTC sessions of microphones that ended, by reason.",
        ("reason",),
        lambda: _labelled(gateway.listener.whip.ended),
    )
    metrics.gauge(
        "transcoders",
        "Worker processes that transcode for WebRTC viewers.",
        lambda: gateway.listener.webrtc.transcoders,
    )
    metrics.counter("rtsp_refused", "RTSP requests refused.", lambda: gateway.rtsp.refused)
    metrics.gauge("rtsp_connections", "Open RTSP connections.", lambda: gateway.rtsp.connections)
    metrics.counter(
        "rtsp_udp_dropped",
        "RTP packets over UDP that the kernel did not take.",
        lambda: gateway.rtsp.udp.dropped,
    )
    metrics.gauge("database_queued", "Jobs that wait for the database.", lambda: gateway.database.queued)
    metrics.gauge("database_well", "1 while the database answers.", lambda: int(gateway.database.well))
    metrics.gauge(
        "loop_lag_seconds", "How late the event loop ran its last tick.", lambda: gateway.loop_lag_s
    )


def _export(metrics: Metrics, group: str, counters: Any) -> None:
    """Every field of a dataclass of numbers."""
    for field in fields(counters):
        text = f"{group.replace('_', ' ')}: {field.name.replace('_', ' ')}."
        kind = metrics.gauge if field.name in _GAUGES else metrics.counter
        kind(f"{group}_{field.name}", text, lambda name=field.name: float(getattr(counters, name)))  # type: ignore[misc]


def _count(names: Any) -> dict[tuple[str, ...], float]:
    return _labelled(Counter(names))


def _labelled(numbers: Any) -> dict[tuple[str, ...], float]:
    return {(str(name),): float(number) for name, number in numbers.items()}
