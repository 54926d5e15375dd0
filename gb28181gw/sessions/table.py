"""The table of streams; the owner of each is the task that runs it.

`Sessions` is what the API and the outputs talk to. A play request goes: `start_live` or `lease_live` → the
channel's `LiveStream` (made when there is none) → its `ready()` → an answer or a lease. A recording is asked for
anew with every `start_playback` or `start_download`: several of one channel run beside each other where the device
allows it, and each is found by its id alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gb28181gw.errors import GatewayError
from gb28181gw.gb.mansrtsp import Action
from gb28181gw.media.engine import MediaTransport
from gb28181gw.media.ports import PortLease
from gb28181gw.media.ssrc import SsrcLease, ssrc_text
from gb28181gw.sessions.call import Call, CallContext
from gb28181gw.sessions.directory import DeviceDirectory
from gb28181gw.sessions.history import (
    HISTORY_LIMITS,
    HistoryLimits,
    HistoryStream,
    RecordedSpans,
    Span,
    nothing_known,
)
from gb28181gw.sessions.ladder import Way
from gb28181gw.sessions.live import LiveStream
from gb28181gw.sessions.models import (
    CallRecord,
    Consumer,
    ControlView,
    StreamKind,
    StreamState,
    StreamView,
)
from gb28181gw.sessions.stream import Stream, StreamLease, StreamLimits
from gb28181gw.sip.dialog import Dialog

MAX_SPAN_S = 31 * 86_400
"""Of one playback or download."""
_Held = tuple[CallRecord, PortLease | None, SsrcLease | None]
"""A dialog of before the start with its port and SSRC, where they could be kept."""


@dataclass(slots=True)
class SessionCounters:
    started: int = 0
    failed: int = 0
    adopted: int = 0
    """Dialogs of before a restart whose stream still ran."""
    orphaned: int = 0
    """Dialogs of before a restart that were ended by BYE."""


class Sessions:
    """Owner of the streams. All calls on the event loop's thread."""

    def __init__(
        self,
        context: CallContext,
        directory: DeviceDirectory,
        limits: StreamLimits,
        history: HistoryLimits = HISTORY_LIMITS,
        recorded: RecordedSpans = nothing_known,
    ) -> None:
        self._context = context
        self._directory = directory
        self._limits = limits
        self._history = history
        self.recorded = recorded
        """Asks a device what it has recorded of a span."""
        self._streams: dict[str, Stream] = {}
        self._by_channel: dict[tuple[str, str], LiveStream] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._recovering: dict[str, asyncio.Task[None]] = {}
        self._ended: list[Callable[[StreamView, str], None]] = []
        self._stopping = False
        self.counters = SessionCounters()

    # ---- for the API

    async def start_live(
        self, device_id: str, channel_id: str, *, transport: MediaTransport | None = None
    ) -> StreamView:
        """The channel's running stream, started when there is none (`POST …/live`)."""
        stream = await self._live(device_id, channel_id, transport)
        return stream.view()

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
        """A recording from `start` to `end` (aware times), playing: its first key frame is there (9.8).

        `centre`: what the device keeps as a centre, in place of what its channel recorded. Raises GatewayError;
        gb.route.invalid for a span that is none.
        """
        span = _span(start, end)
        return await self._start_history(StreamKind.PLAYBACK, device_id, channel_id, span, transport, centre)

    async def start_download(
        self,
        device_id: str,
        channel_id: str,
        start: datetime,
        end: datetime,
        *,
        speed: float,
        transport: MediaTransport | None = None,
        centre: bool = False,
        prepare: Callable[[str], Awaitable[None]] | None = None,
    ) -> StreamView:
        """The same with `s=Download` and `a=downloadspeed` (9.9). A file of it is made by those above.

        `prepare(stream_id)` is awaited before the INVITE: a sink that is added there misses nothing (PB-15).
        """
        span = _span(start, end, speed)
        return await self._start_history(
            StreamKind.DOWNLOAD, device_id, channel_id, span, transport, centre, prepare
        )

    async def control(self, stream_id: str, action: Action) -> ControlView:
        """Steer a recording: exactly one INFO (9.8.2). Returns the device's answer.

        Raises GatewayError: gb.route.not_steerable for a live stream, and as `HistoryStream.control`.
        """
        stream = self._stream(stream_id)
        if not isinstance(stream, HistoryStream):
            raise GatewayError("gb.route.not_steerable", f"Stream {stream_id} is {stream.kind}.")
        return await stream.control(action)

    def on_ended(self, hear: Callable[[StreamView, str], None]) -> None:
        """`hear(view, reason)` when a stream that ran begins to end, before its BYE: `end_of_file` and
        `end_silent` of a recording, `stopped`, `idle`, or the last part of an error's code."""
        self._ended.append(hear)

    def list(self) -> list[StreamView]:
        """Streams not ended."""
        return [stream.view() for stream in self._streams.values()]

    def get(self, stream_id: str) -> StreamView:
        return self._stream(stream_id).view()

    async def stop(self, stream_id: str, reason: str = "stopped") -> None:
        """End for all consumers; returns when the device answered our BYE or 2 s passed."""
        stream = self._stream(stream_id)
        stream.stop(reason)
        task = self._tasks.get(stream_id)
        if task is not None:
            await asyncio.wait({task}, timeout=self._limits.bye_wait_s + 1.0)

    def stop_device(self, device_id: str, reason: str) -> None:
        """End every stream of a device (it was removed, unregistered or started anew: SES-03)."""
        for stream in [stream for stream in self._streams.values() if stream.device_id == device_id]:
            stream.stop(reason)

    # ---- for the devices' side

    def media_status(self, device_id: str, channel_id: str, notify_type: int | None, call_id: str) -> bool:
        """A MediaStatus that came outside a dialog (PB-12): resolved by Call-ID, else by what of the channel or of
        the device plays a recording, when that is one. False: nobody's."""
        mine = [
            stream
            for stream in self._streams.values()
            if isinstance(stream, HistoryStream) and stream.device_id == device_id
        ]
        for found in (
            [stream for stream in mine if call_id in stream.call_ids],
            [stream for stream in mine if stream.channel_id == channel_id],
            mine if channel_id == device_id else [],
        ):
            if len(found) == 1 and notify_type is not None:
                found[0].take_status(notify_type)
                return True
        return False

    # ---- for the outputs (outputs.source.StreamSource)

    async def lease_live(
        self, device_id: str, channel_id: str, consumer: Consumer, *, brief: bool = False
    ) -> StreamLease:
        """A consumer's hold on the channel's stream, which is started when there is none.

        `brief`: for a single picture. A stream that was started for such consumers only ends soon after them (SES-10).
        """
        while True:
            stream = await self._live(device_id, channel_id, None, brief=brief)
            if stream.state in (StreamState.RUNNING, StreamState.RETRYING):
                return stream.lease(consumer)

    async def lease_stream(self, stream_id: str, consumer: Consumer) -> StreamLease:
        stream = self._stream(stream_id)
        await stream.ready()
        return stream.lease(consumer)

    # ---- start and stop of the gateway

    async def recover(self) -> None:
        """Begin to adopt or end the dialogs of before the start (F-17, SES-02). Returns at once; a live
        request of such a device waits until its dialogs are settled."""
        by_device: dict[str, list[_Held]] = {}
        for record in await self._context.store.load_calls():
            by_device.setdefault(record.device_id, []).append(self._hold(record))
        for device_id, held in by_device.items():
            task = asyncio.create_task(self._recover_device(held), name=f"recover {device_id}")
            self._recovering[device_id] = task
            task.add_done_callback(partial(self._recovered, device_id))

    async def close(self, limit_s: float = 4.0) -> None:
        """End every stream with BYE; the answers get `limit_s`."""
        self._stopping = True
        for task in list(self._recovering.values()):
            task.cancel()
        for stream in self._streams.values():
            stream.stop("shutdown")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=limit_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._context.ender.close(max(limit_s - 2.0, 0.5))

    # ---- inside

    def _recovered(self, device_id: str, _task: asyncio.Task[None]) -> None:
        self._recovering.pop(device_id, None)

    def _stream(self, stream_id: str) -> Stream:
        try:
            return self._streams[stream_id]
        except KeyError:
            raise GatewayError("gb.route.stream_unknown", f"There is no stream {stream_id}.") from None

    async def _live(
        self, device_id: str, channel_id: str, wanted: MediaTransport | None, *, brief: bool = False
    ) -> LiveStream:
        """The channel's stream with its first key frame; single flight per channel (INV-28)."""
        await self._may_start(device_id)
        stream = self._current(device_id, channel_id)
        if stream is None:
            # Unknown, offline, not approved: told before anything is made.
            await self._directory.reach(device_id, channel_id)
            stream = self._current(device_id, channel_id)
        if stream is None:
            stream = self._make(device_id, channel_id, wanted)
            stream.brief = brief
            self._run(stream, None)
        stream.brief = stream.brief and brief
        await stream.ready()
        return stream

    async def _may_start(self, device_id: str) -> None:
        """Old dialogs of the device are settled, and the gateway goes on."""
        recovering = self._recovering.get(device_id)
        if recovering is not None:
            await asyncio.wait({recovering}, timeout=self._limits.answer_s / 2)
        if self._stopping:
            raise GatewayError("gb.route.shutting_down")

    async def _start_history(
        self,
        kind: StreamKind,
        device_id: str,
        channel_id: str,
        span: Span,
        wanted: MediaTransport | None,
        centre: bool,
        prepare: Callable[[str], Awaitable[None]] | None = None,
    ) -> StreamView:
        await self._may_start(device_id)
        await self._directory.reach(device_id, channel_id)
        stream = HistoryStream(
            self._context,
            self._directory,
            self._limits,
            self._history,
            kind=kind,
            device_id=device_id,
            channel_id=channel_id,
            span=span,
            wanted=wanted,
            centre=centre,
            end_old_calls=self._end_old_calls,
            recorded=self.recorded,
        )
        if prepare is not None:
            try:
                await prepare(stream.id)
            except BaseException:
                self._context.engine.close_stream(stream.id)
                raise
        self._run(stream, None)
        try:
            await stream.ready()
        except asyncio.CancelledError:
            # Nobody else knows of it: who asked has gone.
            stream.stop("cancelled")
            raise
        except GatewayError as error:
            if error.sip_status == 486:
                self._say_what_runs(error, stream)
            raise
        return stream.view()

    def _say_what_runs(self, error: GatewayError, refused: Stream) -> None:
        """Many devices stream a channel once, whatever for (INV-11, PB-16): say what of it we hold."""
        held = sorted(
            stream.kind
            for stream in self._streams.values()
            if stream is not refused
            and (stream.device_id, stream.channel_id) == (refused.device_id, refused.channel_id)
            and stream.state is not StreamState.ENDING
        )
        if held:
            error.detail += (
                f" This gateway has {', '.join(held)} of the channel; the device may allow one session."
            )

    def _current(self, device_id: str, channel_id: str) -> LiveStream | None:
        """The channel's stream, if it is not ending."""
        stream = self._by_channel.get((device_id, channel_id))
        return None if stream is None or stream.state is StreamState.ENDING else stream

    def _make(self, device_id: str, channel_id: str, wanted: MediaTransport | None) -> LiveStream:
        return LiveStream(
            self._context,
            self._directory,
            self._limits,
            device_id=device_id,
            channel_id=channel_id,
            wanted=wanted,
            end_old_calls=self._end_old_calls,
        )

    def _run(self, stream: Stream, adopted: Call | None) -> None:
        self._streams[stream.id] = stream
        if isinstance(stream, LiveStream):
            self._by_channel[stream.device_id, stream.channel_id] = stream
        self.counters.started += 1
        stream.on_ending = self._ending
        task = asyncio.create_task(stream.run(adopted), name=f"{stream.kind} {stream.channel_id}")
        self._tasks[stream.id] = task
        task.add_done_callback(partial(self._forget, stream))

    def _ending(self, stream: Stream) -> None:
        view = stream.view()
        for hear in self._ended:
            hear(view, stream.end_reason)

    def _forget(self, stream: Stream, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._context.bus.emit("gateway.task_failed", task=task.get_name(), detail=repr(bug))
        if stream.error is not None:
            self.counters.failed += 1
        self._streams.pop(stream.id, None)
        self._tasks.pop(stream.id, None)
        key = (stream.device_id, stream.channel_id)
        if self._by_channel.get(key) is stream:
            del self._by_channel[key]

    def _end_old_calls(self, device_id: str) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._bye_unused(device_id))

    async def _bye_unused(self, device_id: str) -> None:
        """BYE to every stored dialog of the device that no stream uses (INV-11)."""
        used = {call_id for stream in self._streams.values() for call_id in stream.call_ids}
        for record in await self._context.store.load_calls():
            dialog = Dialog.from_record(record.dialog)
            if record.device_id == device_id and dialog.call_id not in used:
                self._context.ender.end(record, dialog)
        await self._context.ender.settled(device_id, self._limits.bye_wait_s)

    async def _recover_device(self, held: Sequence[_Held]) -> None:
        """Adopt what still sends, BYE to the rest, before any new INVITE to this device."""
        await asyncio.gather(*(self._recover_call(*one) for one in held))
        await self._context.ender.settled(held[0][0].device_id, self._limits.bye_wait_s)

    async def _recover_call(self, record: CallRecord, port: PortLease | None, ssrc: SsrcLease | None) -> None:
        dialog = Dialog.from_record(record.dialog)
        # A media connection died with the old process, so only UDP can be adopted; a recording's place is forgotten.
        adoptable = record.live and record.transport == MediaTransport.UDP
        reachable = port is not None or record.port == self._context.shared_port
        if reachable and ssrc is not None and adoptable:
            stream = self._make(record.device_id, record.channel_id, None)
            try:
                call = stream.make_call(Way(transport=MediaTransport.UDP))
                if await call.adopt(record, dialog, port, ssrc):
                    self.counters.adopted += 1
                    self._tell("stream.adopted", record, stream.id)
                    self._run(stream, call)
                    return
            except GatewayError:
                pass  # the device is not bound: its dialog is ended as soon as it can be reached
            self._context.engine.close_stream(stream.id)
        for lease in (port, ssrc):
            if lease is not None:
                lease.release()
        self.counters.orphaned += 1
        self._tell("stream.orphan_ended", record, "", reason="restart")
        self._context.ender.end(record, dialog)

    def _tell(self, event: str, record: CallRecord, stream_id: str, **fields: object) -> None:
        self._context.bus.emit(
            event,
            device_id=record.device_id,
            channel_id=record.channel_id,
            stream_id=stream_id or None,
            call_id=str(record.dialog.get("call_id", "")),
            ssrc=ssrc_text(record.ssrc),
            **fields,
        )

    def _hold(self, record: CallRecord) -> _Held:
        """Keep the port and SSRC of an old dialog from new calls until it is settled (I3, INV-06)."""
        port: PortLease | None = None
        if record.port != self._context.shared_port:
            try:
                port = self._context.ports.reserve(record.port, record.id)
            except GatewayError:
                return record, None, None
        try:
            return record, port, self._context.ssrcs.reserve(record.ssrc, record.id)
        except GatewayError:
            return record, port, None


def _span(start: datetime, end: datetime, speed: float = 1.0) -> Span:
    """`t=` has whole seconds: the span grows to them. Raises gb.route.invalid."""
    first, last = math.floor(start.timestamp()), math.ceil(end.timestamp())
    if not 0 < first < last <= first + MAX_SPAN_S:
        raise GatewayError(
            "gb.route.invalid", f"end lies after start, by at most {MAX_SPAN_S // 86_400} days."
        )
    if not 0.25 <= speed <= 32:
        raise GatewayError("gb.route.invalid", "speed lies from 0.25 to 32.")
    return Span(start=first, end=last, speed=speed)
