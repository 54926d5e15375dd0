"""The closed table of event names; `docs/reference/events.md` is checked against it.

A name is ``<subject>.<what happened>``. Names are a stable interface: they are added, not renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]

PROVEN: Final = 5000
"""Lines a second of events that only our own acts or authenticated peers cause."""
NOISE: Final = 10
"""Lines a second of events that anybody on the network can cause (S-14: log flood)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One row of the table."""

    name: str
    level: Level
    fields: tuple[str, ...]
    """Fields that may be present, besides `event`, `level` and `timestamp`."""
    meaning: str
    per_second: int = PROVEN
    """Lines and events a second; what goes beyond is counted and told as `suppressed` on a later line."""


def _row(name: str, level: Level, fields: str, meaning: str, per_second: int = PROVEN) -> EventRow:
    return EventRow(
        name=name, level=level, fields=tuple(fields.split()), meaning=meaning, per_second=per_second
    )


_ROWS = (
    # gateway
    _row(
        "gateway.starting",
        "info",
        "version plane python data_dir",
        "The process starts; nothing is bound yet.",
    ),
    _row(
        "gateway.ready",
        "info",
        "version sip media http rtsp plane devices duration_ms",
        "Every listener is bound and the registry is loaded.",
    ),
    _row(
        "gateway.stopping",
        "info",
        "reason signal",
        "The end has begun: nothing new is accepted.",
    ),
    _row(
        "gateway.stopped",
        "info",
        "duration_ms",
        "Everything has ended; the last line of a clean stop.",
    ),
    _row(
        "gateway.start_failed",
        "error",
        "code reason detail hint",
        "The gateway cannot start; `hint` says what to do.",
    ),
    _row(
        "gateway.exposed",
        "warning",
        "listener address detail",
        "A listener can be reached from beyond this host without encryption (S-24).",
    ),
    _row(
        "gateway.task_failed",
        "error",
        "task error detail",
        "A supervised task ended with an error and is started again or given up.",
        NOISE,
    ),
    _row(
        "secrets.created",
        "info",
        "path",
        "The first start made its secrets; they are shown by `gb28181gw secrets`, never here.",
    ),
    _row(
        "config.warning",
        "warning",
        "key detail",
        "A setting is allowed but probably not meant.",
    ),
    _row(
        "clock.stepped",
        "warning",
        "step_s detail",
        "The host's wall clock jumped; timers are not affected.",
        NOISE,
    ),
    _row(
        "clock.unsynchronised",
        "warning",
        "detail",
        "At the start the host's clock was not synchronised: cameras take their time from it.",
    ),
    _row(
        "log.suppressed",
        "warning",
        "name suppressed",
        "So many lines of event `name` were left out by its rate limit.",
    ),
    # devices
    _row(
        "device.registered",
        "info",
        "device_id peer transport expires_s edition call_id refreshed user_agent duration_ms",
        "A REGISTER with right credentials was accepted and stored.",
    ),
    _row(
        "device.register_refused",
        "warning",
        "device_id peer transport reason detail sip_status call_id",
        "A REGISTER was refused; `reason` tells why.",
        NOISE,
    ),
    _row(
        "device.unregistered",
        "info",
        "device_id peer reason call_id",
        "The device unregistered by itself (Expires: 0).",
    ),
    _row(
        "device.pending",
        "warning",
        "device_id peer transport",
        "An unknown device knows the shared password and waits for approval.",
        NOISE,
    ),
    _row(
        "device.approved",
        "info",
        "device_id",
        "A waiting device was let in.",
    ),
    _row(
        "device.rejected",
        "info",
        "device_id peer reason",
        "A waiting device was turned away or left the list.",
    ),
    _row(
        "device.online",
        "info",
        "device_id peer transport reason",
        "The device is alive; `reason`: registered, keepalive, restored.",
    ),
    _row(
        "device.suspect",
        "info",
        "device_id peer silent_s",
        "The device's window has passed; it is probed once before it counts as offline.",
    ),
    _row(
        "device.offline",
        "warning",
        "device_id peer reason silent_s",
        "The device is gone; `reason`: keepalive, expired, unregistered, connection_lost, removed.",
    ),
    _row(
        "device.provisioned",
        "info",
        "device_id",
        "A device was entered by the API.",
    ),
    _row(
        "device.changed",
        "info",
        "device_id keys",
        "Settings of a device were changed by the API.",
    ),
    _row(
        "device.removed",
        "info",
        "device_id",
        "A device was removed by the API.",
    ),
    _row(
        "device.duplicate_id",
        "warning",
        "device_id peer other_peer detail",
        "Two devices seem to use the same id.",
        NOISE,
    ),
    _row(
        "device.info",
        "info",
        "device_id manufacturer model firmware channel_count edition",
        "DeviceInfo was answered.",
    ),
    _row(
        "device.status",
        "info",
        "device_id online status reason detail",
        "DeviceStatus was answered; the device reports a fault or a change.",
    ),
    _row(
        "device.edition_detected",
        "info",
        "device_id edition detail",
        "The edition of the standard that the device follows is known now.",
    ),
    _row(
        "device.learnt",
        "info",
        "device_id switch value detail",
        "A switch of the device's dialect was found out from what it sends.",
    ),
    _row(
        "device.profile",
        "info",
        "device_id file",
        "A dialect file fits the device from now on; without `file` none does any more.",
    ),
    _row(
        "device.unsupported",
        "info",
        "device_id cmd reason",
        "A device showed that it does not know a command or configuration (silent, error, sip); it is not asked "
        "again at once.",
    ),
    _row(
        "device.quirk",
        "info",
        "device_id quirk row detail count",
        "A tolerance fired for the first time for this device.",
        50,
    ),
    _row(
        "device.clock_wrong",
        "warning",
        "device_id offset_s",
        "The device's clock differs from ours.",
        NOISE,
    ),
    _row(
        "auth.banned",
        "warning",
        "device_id peer reason until duration_s",
        "Too many bad answers: this pair or source is ignored for a time.",
        NOISE,
    ),
    _row(
        "auth.replay",
        "warning",
        "device_id peer reason",
        "A used or foreign nonce came back.",
        NOISE,
    ),
    _row(
        "binding.port_moved",
        "info",
        "device_id peer old_peer transport reason",
        "The device's source port changed behind its NAT; the binding followed.",
        50,
    ),
    _row(
        "binding.conflict",
        "warning",
        "device_id peer old_peer transport reason detail",
        "A message of a bound device came from another address and changed nothing.",
        NOISE,
    ),
    # sip
    _row(
        "sip.malformed",
        "warning",
        "peer transport reason detail device_id bytes",
        "A message could not be read.",
        NOISE,
    ),
    _row(
        "sip.dropped",
        "warning",
        "peer transport reason method count device_id detail",
        "A message was dropped without an answer.",
        NOISE,
    ),
    _row(
        "sip.handler_failed",
        "error",
        "device_id peer method call_id error detail",
        "A handler failed on a message: our bug; the message was answered 500 once.",
        NOISE,
    ),
    _row(
        "message.unhandled",
        "info",
        "device_id peer cmd sn detail",
        "A MANSCDP message of a kind that nothing here handles; counted.",
        NOISE,
    ),
    _row(
        "message.invalid",
        "warning",
        "device_id peer cmd sn reason detail",
        "A MANSCDP body could not be read.",
        NOISE,
    ),
    # catalogue
    _row(
        "catalog.started",
        "info",
        "device_id sn reason",
        "The catalogue of a device is being queried.",
    ),
    _row(
        "catalog.complete",
        "info",
        "device_id sn received expected duration_ms channel_count",
        "All items arrived and are stored.",
    ),
    _row(
        "catalog.partial",
        "warning",
        "device_id sn received expected duration_ms reason channel_count",
        "Items are missing after the wait; what came is stored and the query is repeated once.",
    ),
    _row(
        "catalog.failed",
        "warning",
        "device_id sn received expected duration_ms reason detail",
        "The catalogue query failed; the old catalogue stays.",
    ),
    _row(
        "catalog.changed",
        "info",
        "device_id channel_id change detail added updated removed",
        "The device told a change of its catalogue without being asked.",
        200,
    ),
    _row(
        "channel.status",
        "info",
        "device_id channel_id status fault",
        "A channel changed between ON and OFF, or lost its video (VLOST) or became defective (DEFECT) by `fault`.",
        500,
    ),
    _row(
        "alarm.received",
        "warning",
        "device_id channel_id priority method type time description reason",
        "A device raised an alarm.",
        500,
    ),
    _row(
        "subscription.started",
        "info",
        "device_id channel_id kind expires_s call_id",
        "A device granted a subscription; renewals are not told.",
        500,
    ),
    _row(
        "subscription.ended",
        "info",
        "device_id channel_id kind reason",
        "A subscription ended: not wanted any more, or by the device, for the reason that it gave.",
        500,
    ),
    _row(
        "subscription.failed",
        "info",
        "device_id channel_id kind reason sip_status detail",
        "A device refused or did not answer SUBSCRIBE: told the first time; tried again later, each time later.",
        500,
    ),
    # streams and media
    _row(
        "device.upgraded",
        "info",
        "device_id channel_id session result firmware reason",
        "A device told how its upgrade ended; `reason`: 01 download, 02 package, 03 system, 99 other.",
    ),
    _row(
        "device.snapshots",
        "info",
        "device_id channel_id session files",
        "A device told which pictures it uploaded; no files: all failed.",
    ),
    _row(
        "snapshot.received",
        "info",
        "device_id channel_id session picture size content_type",
        "A picture that the device was asked for was uploaded and is kept.",
        200,
    ),
    _row(
        "snapshot.refused",
        "warning",
        "client device_id reason",
        "An upload was refused: `no_session`, `too_many`, `rate_limited`, or `no_picture` (neither JPEG nor PNG).",
        NOISE,
    ),
    _row(
        "device.video_offered",
        "info",
        "device_id channel_id time",
        "A device told that it has live video to send (VideoUploadNotify).",
    ),
    _row(
        "command.answered",
        "info",
        "device_id channel_id cmd sn key_id duration_ms partial",
        "A command of the API was done; `key_id` is whose.",
    ),
    _row(
        "command.failed",
        "warning",
        "device_id channel_id cmd key_id reason detail sip_status duration_ms",
        "A command of the API was refused, not answered, or answered with ERROR.",
    ),
    _row(
        "command.without_effect",
        "warning",
        "device_id channel_id cmd fields",
        "A device answered OK to a configuration and did not take over these fields.",
    ),
    _row(
        "ptz.sent",
        "debug",
        "device_id channel_id code",
        "A PTZ code was taken by the device; `code` is what was sent.",
    ),
    _row(
        "ptz.stopped",
        "info",
        "device_id channel_id after_s",
        "A motion got no new command and was stopped by the gateway (CTL-06).",
    ),
    _row(
        "ptz.stop_failed",
        "warning",
        "device_id channel_id reason detail",
        "A motion could not be stopped by the gateway; the camera may still turn.",
    ),
    _row(
        "records.partial",
        "warning",
        "device_id channel_id received expected",
        "A search for recordings ended before the device had sent all that it counted.",
    ),
    _row(
        "stream.requested",
        "debug",
        "device_id channel_id stream_id call_id ssrc transport kind",
        "Someone asked for a stream that did not run.",
    ),
    _row(
        "stream.started",
        "info",
        "device_id channel_id stream_id call_id ssrc transport kind peer bound duration_ms attempt",
        "The device agreed and the dialog is confirmed.",
    ),
    _row(
        "stream.first_frame",
        "info",
        "device_id channel_id stream_id call_id ssrc transport kind peer tracks duration_ms",
        "The first key frame is there: pictures can be seen.",
    ),
    _row(
        "stream.retrying",
        "warning",
        "device_id channel_id stream_id call_id ssrc transport kind reason attempt delay_s detail",
        "The source was lost while someone watches; it is invited again after `delay_s`.",
    ),
    _row(
        "stream.failed",
        "warning",
        "device_id channel_id stream_id call_id ssrc transport kind peer reason code detail sip_status "
        "duration_ms attempts bound packets seen attempt",
        "The stream could not be started or has ended with an error.",
    ),
    _row(
        "stream.stopped",
        "info",
        "device_id channel_id stream_id call_id ssrc transport kind reason duration_ms packets lost bytes",
        "The stream ended; `reason` tells why: idle, stopped, device_bye, shutdown and others.",
    ),
    # pushes
    _row(
        "push.started",
        "info",
        "push_id device_id channel_id url",
        "The peer takes the pushed channel.",
    ),
    _row(
        "push.broken",
        "warning",
        "push_id device_id channel_id url detail attempts",
        "A push broke or could not begin; it is begun again after 1 to 30 s.",
    ),
    _row("push.ended", "info", "push_id device_id channel_id url reason", "A push was removed."),
    # recordings of the gateway
    _row(
        "recording.plan_changed",
        "info",
        "device_id channel_id mode",
        "What is recorded of a channel was changed; mode `none`: nothing any more.",
    ),
    _row(
        "recording.started",
        "info",
        "device_id channel_id stream_id mode",
        "A channel is recorded from now on.",
    ),
    _row(
        "recording.stopped",
        "info",
        "device_id channel_id stream_id mode reason",
        "It is not recorded any more: `plan` (its time is over) or `disk_full`.",
    ),
    _row(
        "recording.interrupted",
        "warning",
        "device_id channel_id stream_id mode reason detail",
        "The stream to be recorded ended or did not come: a gap; it is asked for again.",
    ),
    _row(
        "recording.recovered",
        "warning",
        "segments empty",
        "Files that an earlier process left open were read and closed; so many had no picture.",
    ),
    _row(
        "recording.removed",
        "info",
        "device_id channel_id segments reason",
        "Files were deleted: `expired`, `too_large` or `disk_full`.",
    ),
    _row(
        "recording.locked",
        "info",
        "device_id channel_id segments",
        "Files became evidence: they are not deleted.",
    ),
    _row("recording.unlocked", "info", "device_id channel_id segments", "Files are no evidence any more."),
    _row(
        "recording.disk_full",
        "error",
        "detail path",
        "Nothing is recorded: the disk takes no more, and nothing may be deleted. All else goes on.",
    ),
    _row("recording.disk_resumed", "info", "path", "The disk takes recordings again."),
    _row(
        "recording.playback_started",
        "info",
        "device_id channel_id stream_id",
        "A recording of the gateway is played.",
    ),
    _row(
        "recording.playback_steered",
        "info",
        "device_id channel_id stream_id action position_s scale",
        "It was paused, resumed, sought in or played at another speed, by the API.",
    ),
    _row(
        "recording.playback_ended",
        "info",
        "device_id channel_id stream_id reason",
        "It was played to its end, nobody watches any more (`idle`), the API ended it (`stopped`), or the "
        "object store does not give it (`store_unavailable`).",
    ),
    _row(
        "recording.uploaded",
        "debug",
        "device_id channel_id file object size",
        "A file is complete in the object store.",
    ),
    _row(
        "recording.upload_queued",
        "info",
        "place segments",
        "At the start: so many files here that the object store does not have are brought there.",
    ),
    _row(
        "recording.upload_failed",
        "warning",
        "place reason detail waiting",
        "The object store is `unreachable`, `refused`, has no such bucket (`missing`) or `failed`, what it has is a "
        "`mismatch`, or our index does not answer (`storage_unavailable`); so many files wait, and "
        "are tried again after 2 to 120 s. Told once until it is well again.",
    ),
    _row(
        "recording.upload_resumed",
        "info",
        "place waiting",
        "The object store takes files again; so many wait.",
    ),
    _row(
        "recording.upload_lost",
        "warning",
        "device_id channel_id file detail",
        "A file was gone or could not be read before it was uploaded; it is tried again at the next start.",
    ),
    _row(
        "recording.fetch_failed",
        "warning",
        "device_id channel_id file place reason detail",
        "A file that is in the object store only did not come; `missing`: it is not there, what is played has a gap.",
    ),
    # pictures that the gateway takes
    _row(
        "still.taken",
        "info",
        "device_id channel_id size age_s duration_ms",
        "A picture was made of a channel's stream; `age_s` is the age of its key frame.",
    ),
    _row(
        "still.failed",
        "warning",
        "device_id channel_id reason code detail",
        "No picture could be made: the stream did not start, or its key frame cannot be decoded.",
    ),
    _row(
        "still.not_kept",
        "error",
        "device_id channel_id detail",
        "A picture was answered and could not be written below data_dir.",
    ),
    _row(
        "download.queued",
        "info",
        "download_id device_id channel_id position",
        "A download was asked for; it starts when the device and the gateway have room.",
    ),
    _row("download.started", "info", "download_id device_id channel_id stream_id", "The device is asked."),
    _row(
        "download.progress",
        "debug",
        "download_id device_id channel_id stream_id progress position_s rate bytes frames",
        "About once a second while it runs; `progress` is 0 to 1.",
    ),
    _row(
        "download.retrying",
        "warning",
        "download_id device_id channel_id stream_id reason detail position_s delay_s",
        "The transfer broke off; it is resumed after `delay_s`.",
    ),
    _row(
        "download.resumed",
        "info",
        "download_id device_id channel_id stream_id position_s frames",
        "The gateway was started anew; a download goes on from what is on the disk.",
    ),
    _row(
        "download.finished",
        "info",
        "download_id device_id channel_id stream_id progress position_s rate bytes frames gaps sha256 duration_ms",
        "The file is whole, and its manifest is beside it.",
    ),
    _row(
        "download.failed",
        "warning",
        "download_id device_id channel_id stream_id reason code detail sip_status",
        "It has ended with an error; what came before is kept.",
    ),
    _row(
        "download.manifest_failed",
        "error",
        "download_id device_id channel_id stream_id detail",
        "The manifest could not be written: a restart will not know of the file.",
    ),
    _row(
        "download.removed",
        "info",
        "download_id reason",
        "A download and its files are gone: deleted, stopped, expired or too_large.",
    ),
    _row(
        "playback.control",
        "info",
        "device_id channel_id stream_id call_id ssrc transport kind action sip_status rtsp_status detail",
        "A recording was steered: what the device answered to the INFO.",
    ),
    _row(
        "playback.no_effect",
        "warning",
        "device_id channel_id stream_id call_id ssrc transport kind action scale rate detail",
        "The device said OK to a control and its stream shows nothing of it (PB-08).",
    ),
    _row(
        "stream.adopted",
        "info",
        "device_id channel_id stream_id call_id ssrc peer duration_ms",
        "A stream of the process before this one goes on.",
    ),
    _row(
        "stream.orphan_ended",
        "warning",
        "device_id channel_id stream_id call_id ssrc peer reason",
        "A dialog of the process before this one, or one that nobody knows, was ended with BYE.",
    ),
    _row(
        "stream.bye_unanswered",
        "warning",
        "device_id channel_id stream_id call_id attempts reason detail",
        "BYE was repeated to its end without an answer.",
        NOISE,
    ),
    _row(
        "media.source_conflict",
        "warning",
        "device_id channel_id stream_id ssrc peer other_peer detail",
        "Media of a second source was refused.",
        NOISE,
    ),
    _row(
        "media.source_switched",
        "info",
        "device_id channel_id stream_id ssrc peer old_peer detail",
        "The media's source address moved and was accepted.",
        50,
    ),
    _row(
        "media.ssrc_mismatch",
        "warning",
        "device_id channel_id stream_id ssrc seen_ssrc peer detail",
        "Media came with another SSRC than agreed.",
        NOISE,
    ),
    _row(
        "viewer.started",
        "info",
        "device_id channel_id stream_id viewer kind grant_id client",
        "A consumer opened a stream.",
        500,
    ),
    _row(
        "viewer.ended",
        "info",
        "device_id channel_id stream_id viewer kind grant_id client reason duration_ms bytes",
        "A consumer left or was dropped.",
        500,
    ),
    _row(
        "viewer.refused",
        "warning",
        "client path kind reason detail",
        "A play URL was refused.",
        NOISE,
    ),
    _row(
        "transcoding.started",
        "info",
        "device_id channel_id stream_id codec",
        "Sound or picture of a stream is transcoded for consumers that need it. codec: of made AAC that of the source, "
        "for WebRTC what is made (opus, h264).",
    ),
    _row(
        "transcoding.ended",
        "info",
        "device_id channel_id stream_id codec reason",
        "The last consumer of what was made left.",
    ),
    _row(
        "transcoding.failed",
        "warning",
        "device_id channel_id stream_id codec reason detail",
        "A stream could not be transcoded; it goes on without that.",
        NOISE,
    ),
    # talks
    _row(
        "talk.requested",
        "info",
        "device_id channel_id talk_id holder",
        "Somebody wants to speak to a channel.",
    ),
    _row(
        "talk.started",
        "info",
        "device_id channel_id talk_id way codec transport ssrc holder",
        "The device listens; sound goes out.",
    ),
    _row(
        "talk.ended",
        "info",
        "device_id channel_id talk_id reason duration_ms",
        "A talk that stood is over.",
    ),
    _row(
        "talk.failed",
        "warning",
        "device_id channel_id talk_id reason detail",
        "A talk could not be started.",
    ),
    _row(
        "talk.microphone_opened",
        "info",
        "device_id channel_id talk_id kind client",
        "A microphone speaks in a talk; kind: websocket, webrtc or upper.",
    ),
    _row(
        "talk.microphone_closed",
        "info",
        "device_id channel_id talk_id kind client reason duration_ms",
        "A microphone of a talk has gone.",
    ),
    _row(
        "talk.uncalled",
        "warning",
        "device_id peer call_id",
        "A device sent an INVITE that nobody had asked it for; it was refused.",
        NOISE,
    ),
    # upper platforms
    _row(
        "upper.registered",
        "info",
        "upper_id peer transport expires_s",
        "An upper platform accepted our REGISTER.",
    ),
    _row(
        "upper.lost",
        "warning",
        "upper_id peer reason sip_status detail",
        "We are no longer registered at an upper platform: it does not answer, or it refused us.",
    ),
    _row(
        "upper.register_failed",
        "warning",
        "upper_id peer reason sip_status detail",
        "An upper platform could not be registered at; told once for each kind of trouble, it is tried for ever.",
    ),
    _row("upper.added", "info", "upper_id", "An upper platform was added."),
    _row("upper.changed", "info", "upper_id keys", "Settings of an upper platform were changed."),
    _row("upper.removed", "info", "upper_id", "An upper platform was removed, and unregistered from."),
    _row(
        "upper.shared",
        "info",
        "upper_id channels all",
        "What an upper platform sees was replaced.",
    ),
    _row(
        "upper.other_id",
        "info",
        "upper_id seen",
        "An upper platform calls us by another code than our local_id there; it is served all the same (CS-01).",
        NOISE,
    ),
    _row(
        "upper.request_refused",
        "warning",
        "upper_id cmd channel_id sip_status detail",
        "An upper platform asked for what is not shared with it or not allowed to it.",
        NOISE,
    ),
    _row(
        "upper.message_invalid",
        "warning",
        "upper_id peer reason detail",
        "A message of an upper platform cannot be read.",
        NOISE,
    ),
    _row(
        "upper.command_failed",
        "warning",
        "upper_id device_id channel_id cmd reason detail",
        "What an upper platform asked of a device was not done or not answered.",
    ),
    _row(
        "upper.control",
        "info",
        "upper_id device_id channel_id cmd sn user_identity",
        "An upper platform orders something of a device; `user_identity` is who it says wants it.",
    ),
    _row(
        "upper.stream_started",
        "info",
        "upper_id device_id channel_id stream_id call_id ssrc peer transport kind user_identity",
        "An upper platform gets a stream; `user_identity` is who it says watches (Monitor-User-Identity).",
    ),
    _row(
        "upper.stream_stopped",
        "info",
        "upper_id device_id channel_id stream_id call_id ssrc peer transport kind user_identity reason bytes "
        "duration_ms",
        "A stream to an upper platform ended.",
    ),
    _row(
        "upper.stream_failed",
        "warning",
        "upper_id device_id channel_id stream_id call_id ssrc peer transport kind user_identity reason sip_status "
        "detail",
        "An INVITE of an upper platform could not be served.",
    ),
    _row(
        "upper.subscribed",
        "info",
        "upper_id cmd device_id expires_s user_identity",
        "An upper platform subscribed to something.",
    ),
    _row(
        "upper.answer_failed",
        "warning",
        "upper_id cmd sn reason detail",
        "An answer did not reach the upper platform.",
    ),
    # access and API
    _row(
        "key.created",
        "info",
        "key_id key_name role expires_at",
        "An access key was made.",
    ),
    _row(
        "key.revoked",
        "info",
        "key_id key_name role",
        "An access key was removed; the play grants it made have ended.",
    ),
    _row(
        "access.denied",
        "warning",
        "client method path role key_id reason",
        "A request was refused for want of a key or a role.",
        NOISE,
    ),
    _row(
        "api.failed",
        "error",
        "method path error detail trace_id",
        "A handler failed: our bug.",
        NOISE,
    ),
    _row(
        "api.traceback",
        "error",
        "exception trace_id",
        "Where the handler of `api.failed` failed; in the log only.",
        NOISE,
    ),
    _row(
        "library.message",
        "warning",
        "logger detail exception",
        "A line of a library, or of Python itself; in the log only.",
    ),
    _row(
        "events.lost",
        "warning",
        "lost detail",
        "This subscriber read too slowly or came back too late: so many events were left out.",
    ),
    # resources
    _row(
        "limit.reached",
        "warning",
        "limit value peer device_id upper_id detail",
        "A limit was reached and something was refused or dropped.",
        NOISE,
    ),
    _row(
        "storage.degraded",
        "error",
        "reason detail",
        "The database does not take writes; the gateway goes on from memory.",
    ),
    _row(
        "storage.recovered",
        "info",
        "duration_ms",
        "The database takes writes again.",
    ),
)

EVENTS: dict[str, EventRow] = {row.name: row for row in _ROWS}
"""The closed table of event names."""
