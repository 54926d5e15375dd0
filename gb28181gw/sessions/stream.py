"""What every stream of a device is: one INVITE at a time, any number of consumers that lease it.

`Stream.run` is the whole life, top to bottom; one task owns it. Outsiders set a wish (`stop`, a lease taken
or released) and wake the task; they never touch its state. The engine's stream lives as long as this object, so
a device that falls silent costs the consumers a still picture and not their connection.

Its kinds differ in three places only: what the INVITE asks for (`_ask`), which reasons there are to leave a
running call (`_reason_to_leave`), and what follows from a lost one (`_may_retry`). `sessions.live` and
`sessions.history` are these kinds.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from gb28181gw.errors import GatewayError
from gb28181gw.gb.ids import NodeKind, node_kind
from gb28181gw.media.engine import EngineEvent, MediaTransport, ReceiverCounters
from gb28181gw.sessions.call import LIVE, Ask, Call, CallContext
from gb28181gw.sessions.directory import DeviceDirectory
from gb28181gw.sessions.ladder import RUNGS, Cure, Way, cure_of, cured, first_ways
from gb28181gw.sessions.models import Consumer, HistoryView, StreamKind, StreamState, StreamView


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """Seconds."""

    answer_s: float = 20.0
    """`live` and `playback` answer within this, all attempts together."""
    idle_stop_s: float = 30.0
    brief_stop_s: float = 1.0
    """In its place for a stream that nobody but consumers of a single picture asked for."""
    retry_pauses_s: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """Before each new INVITE of a stream that somebody watches; then it fails (docs/reference/configuration.md)."""
    transport: str = "auto"
    """`[media] transport`: for devices without a setting of their own."""
    bye_wait_s: float = 2.0
    """How long an ending stream stays listed and a new INVITE of its channel waits for the device's answer."""


class Why(Enum):
    """Why a running call is left."""

    STOPPED = auto()
    IDLE = auto()
    LOST = auto()
    ENDED = auto()
    """A recording was sent to its end."""


class StreamLease:
    """One consumer's hold on a stream. Satisfies `outputs.source.Lease`."""

    def __init__(
        self, stream_id: str, consumer: Consumer, on_release: Callable[[StreamLease], None], route: str = ""
    ) -> None:
        self.stream_id = stream_id
        self.consumer = consumer
        self.route = route
        """`X-RoutePath` of the answer that the stream runs by when it is leased; empty: it comes from a device."""
        self._on_release: Callable[[StreamLease], None] | None = on_release

    def release(self) -> None:
        """Idempotent."""
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release(self)


class Stream(ABC):
    """Owner of one stream of a channel."""

    kind: StreamKind

    def __init__(
        self,
        context: CallContext,
        directory: DeviceDirectory,
        limits: StreamLimits,
        *,
        device_id: str,
        channel_id: str,
        wanted: MediaTransport | None,
        end_old_calls: Callable[[str], asyncio.Future[None]],
        ask: Ask = LIVE,
        to_device: bool = False,
    ) -> None:
        self._context = context
        self._directory = directory
        self._limits = limits
        self.device_id = device_id
        self.channel_id = channel_id
        self._wanted = wanted
        self._end_old_calls = end_old_calls
        self._ask = ask
        self._to_device = to_device
        self.id = secrets.token_hex(16)
        self.state = StreamState.STARTING
        self.error: GatewayError | None = None
        """Why it ended, when it was not asked to."""
        self.on_ending: Callable[[Stream], None] | None = None
        """Called once when a stream that ran begins to end, before its BYE."""
        self.end_reason = ""
        """Set when it ends: the `reason` of `stream.stopped` or `stream.failed`."""
        self._call: Call | None = None
        self._leases: set[StreamLease] = set()
        self._wake = asyncio.Event()
        self._stop_reason = ""
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle_since = 0.0
        self.brief = False
        """Nobody but consumers of a single picture asked for it: it need not wait for others."""
        self._last_counters = ReceiverCounters()
        self.started_at = context.clock.wall()
        context.engine.create_stream(self.id, self._on_media)

    # ---- for outsiders

    @property
    def call_ids(self) -> tuple[str, ...]:
        return (self._call.call_id,) if self._call is not None and self._call.call_id else ()

    def view(self) -> StreamView:
        call = self._call
        return StreamView(
            id=self.id,
            kind=self.kind,
            state=self.state,
            device_id=self.device_id,
            channel_id=self.channel_id,
            ssrc=call.ssrc_text if call is not None else "",
            transport=call.way.transport if call is not None else None,
            tracks=self._context.engine.tracks(self.id) if self.state is not StreamState.ENDING else (),
            rtp=call.counters() if call is not None else self._last_counters,
            consumers=len(self._leases),
            started_at=self.started_at,
            history=self._history(),
        )

    async def ready(self) -> None:
        """Until the first key frame. Raises the GatewayError that ended the start."""
        await asyncio.shield(self._ready)

    def lease(self, consumer: Consumer) -> StreamLease:
        route = self._call.route if self._call is not None else ""
        lease = StreamLease(self.id, consumer, self._released, route)
        self._leases.add(lease)
        self._wake.set()
        return lease

    def stop(self, reason: str) -> None:
        """Wish: end for all consumers, BYE at once."""
        if not self._stop_reason:
            self._stop_reason = reason
            self._wake.set()

    # ---- where its kinds differ

    @abstractmethod
    def _history(self) -> HistoryView | None:
        """What the view says of the recording; None for live."""

    def _look(self, call: Call) -> Why | None:
        """Called after every fact and every `_look_s` seconds: a reason to leave the call, or None."""
        return Why.LOST if call.lost else None

    _look_s: float | None = None

    @property
    def _silence_s(self) -> float:
        """So long without a packet ends a call; 0: this kind looks for itself."""
        return self._context.limits.silence_s

    def _may_retry(self, call: Call) -> bool:
        """Whether a lost call is INVITEd again."""
        return bool(self._leases)

    @property
    def _pauses_s(self) -> tuple[float, ...]:
        """Before each new INVITE for a lost call."""
        return self._limits.retry_pauses_s

    def _prepare_retry(self) -> None:  # noqa: B027 - live asks again for the same
        """Called once before a lost call is INVITEd again."""

    def _reason(self, why: Why, call: Call) -> str:
        """The `reason` of `stream.stopped`."""
        if self._stop_reason:
            return self._stop_reason
        return "idle" if why is Why.IDLE else self._loss(call).reason

    # ---- the whole life

    async def run(self, adopted: Call | None = None) -> None:
        """Until the stream has ended. Never raises but for cancellation."""
        try:
            call = await (self._start() if adopted is None else self._take_over(adopted))
            self._enter(call)
            while True:
                why = await self._watch(call)
                if why is Why.LOST:
                    await call.farewell()
                if why is not Why.LOST or not self._may_retry(call):
                    break
                call = await self._again(call)
                self._enter(call)
            await self._leave(self._reason(why, call))
        except GatewayError as error:
            await self._fail(error)
        finally:
            self.state = StreamState.ENDING
            if self._call is not None:
                self._call.close()
            self._context.engine.close_stream(self.id)
            if not self._ready.done():
                self._settle(GatewayError("gb.route.shutting_down"))

    # ---- starting

    async def _take_over(self, adopted: Call) -> Call:
        """A call of before a restart that still has packets: it runs again with its next key frame."""
        deadline = asyncio.get_running_loop().time() + self._limits.answer_s
        await adopted.wait_for_picture(deadline)
        return adopted

    async def _start(self) -> Call:
        """The first call that gives a key frame; raises the last attempt's error."""
        self._emit("stream.requested")
        deadline = asyncio.get_running_loop().time() + self._limits.answer_s
        return await self._cancellable(self._climb(deadline))

    async def _climb(self, deadline: float) -> Call:
        """Try the ways of the ladder in turn; cures of a refusal come before the next transport."""
        loop = asyncio.get_running_loop()
        await self._context.ender.settled(self.device_id, self._limits.bye_wait_s)
        payloads = self._directory.payload_set(self.device_id)
        ways = first_ways(self._wanted_transport(), self._remembered(), payloads, to_device=self._to_device)
        spent = {cure for cure, rung in RUNGS.items() if rung is payloads}
        failed: GatewayError | None = None
        attempts: list[str] = []
        while ways:
            way = ways.pop(0)
            share = (deadline - loop.time()) / (len(ways) + 1)
            if share <= 0.2:
                break
            try:
                call = await self._try(way, loop.time() + share)
            except GatewayError as error:
                failed = error
                told = f"{way.transport}: {error.detail}"
                if told not in attempts:
                    attempts.append(told)
                if error.code == "gb.sip.path_lost":
                    break
                if error.code != "gb.sip.rejected":
                    continue  # silence of one kind or another: the next transport
                cure = cure_of(error.sip_status or 0, spent)
                if cure is Cure.NONE or (cure is Cure.ASK_DEVICE and not self._only_channel()):
                    break
                if cure is Cure.NEXT_TRANSPORT:
                    continue
                spent.add(cure)
                if cure is Cure.END_OLD_CALLS:
                    await self._end_old_calls(self.device_id)
                if cure in (Cure.AGAIN, Cure.END_OLD_CALLS):
                    await asyncio.sleep(min(1.0, max(deadline - loop.time(), 0.0)))
                ways.insert(0, cured(way, cure))
            else:
                if way.payloads is not payloads:
                    self._directory.remember_payloads(self.device_id, way.payloads)
                if self._wanted_transport() is None:
                    self._directory.remember_media_way(self.device_id, way.transport.value)
                return call
        assert failed is not None  # noqa: S101 - at least one way was tried: the deadline is 20 s away
        if len(attempts) > 1:
            failed = GatewayError(
                failed.code, " ".join(attempts), sip_status=failed.sip_status, **failed.evidence
            )
        raise failed

    async def _try(self, way: Way, deadline: float) -> Call:
        # A TCP device that is between two connections is given a moment to come back (REG-21).
        await self._directory.reach(self.device_id, self.channel_id)
        call = self.make_call(way)
        try:
            await call.open(deadline)
        except BaseException:
            self._last_counters = call.counters()
            self._call = None
            raise
        return call

    def make_call(self, way: Way) -> Call:
        """The call that feeds this stream from now on."""
        self._call = Call(
            self._context,
            target=self._directory.target(self.device_id, None if way.to_device else self.channel_id),
            device_id=self.device_id,
            channel_id=self.channel_id,
            stream_id=self.id,
            way=way,
            ask=self._ask,
            silence_s=self._silence_s,
            changed=self._wake.set,
            on_quirk=lambda name: self._directory.add_quirk(self.device_id, name),
        )
        return self._call

    async def _cancellable(self, climb: Coroutine[Any, Any, Call]) -> Call:
        """Run the climb, but give up at once when the stream is stopped meanwhile."""
        task = asyncio.create_task(climb, name=f"climb {self.channel_id}")
        try:
            while not task.done():
                if self._stop_reason:
                    raise GatewayError("gb.sip.cancelled", "The stream was stopped while it started.")
                self._wake.clear()
                waker = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait({task, waker}, return_when=asyncio.FIRST_COMPLETED)
                waker.cancel()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    # ---- running

    def _enter(self, call: Call) -> None:
        self.state = StreamState.RUNNING
        self._call = call
        self._idle_since = asyncio.get_running_loop().time()
        if not self._ready.done():
            self._ready.set_result(None)
            self._emit("stream.started", duration_ms=self._age_ms())
        self._emit("stream.first_frame", duration_ms=self._age_ms())

    async def _watch(self, call: Call) -> Why:
        """Sleep until there is a reason to leave the call."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if self._stop_reason:
                return Why.STOPPED
            found = self._look(call)
            if found is not None:
                return found
            look_s = self._look_s
            if not self._leases:
                idle_stop_s = self._limits.idle_stop_s
                if self.brief:
                    idle_stop_s = min(self._limits.brief_stop_s, idle_stop_s)
                idle_left = self._idle_since + idle_stop_s - loop.time()
                if idle_left <= 0:
                    return Why.IDLE
                look_s = idle_left if look_s is None else min(look_s, idle_left)
            try:
                async with asyncio.timeout(look_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _again(self, lost: Call) -> Call:
        """RETRYING: INVITE again after growing pauses while somebody watches, but not what is known to be gone."""
        failure = self._loss(lost)
        self.state = StreamState.RETRYING
        self._prepare_retry()
        for pause in self._pauses_s:
            self._last_counters = lost.counters()
            lost.close()
            self._call = None
            self._emit("stream.retrying", reason=failure.reason, detail=failure.detail, delay_s=pause)
            await self._pause(pause)
            if self._stop_reason:
                raise GatewayError("gb.sip.cancelled", "The stream was stopped while it was retried.")
            if not self._leases:
                raise failure
            try:
                deadline = asyncio.get_running_loop().time() + self._limits.answer_s
                return await self._cancellable(self._climb(deadline))
            except GatewayError as error:
                if self._is_gone(error):
                    raise
                failure = error
        raise failure

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                while not self._stop_reason and self._leases:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return

    def _loss(self, call: Call) -> GatewayError:
        if call.ended_by_device:
            return GatewayError("gb.sip.device_bye", "The device sent BYE.")
        if call.disconnected:
            return GatewayError("gb.media.silent", "The device closed its media connection.")
        return GatewayError("gb.media.silent", f"No packet for {self._context.limits.silence_s:.0f} s.")

    # ---- ending

    async def _leave(self, reason: str) -> None:
        self.state = StreamState.ENDING
        self.end_reason = reason
        self._emit("stream.stopped", reason=reason, duration_ms=self._age_ms())
        await self._hang_up()

    async def _fail(self, error: GatewayError) -> None:
        self.state = StreamState.ENDING
        self.error = error
        self.end_reason = (
            (self._stop_reason or error.reason) if error.code == "gb.sip.cancelled" else error.reason
        )
        if error.code == "gb.sip.cancelled":
            self._emit("stream.stopped", reason=self.end_reason, duration_ms=self._age_ms())
        else:
            self._emit(
                "stream.failed",
                reason=error.reason,
                code=error.code,
                detail=f"{error.detail} {error.row.hint}",
                sip_status=error.sip_status,
                duration_ms=self._age_ms(),
            )
        if not self._ready.done():
            self._settle(error)
        await self._hang_up()

    async def _hang_up(self) -> None:
        """BYE, then wait a moment for its answer so that DELETE means ended."""
        if self.on_ending is not None and self._ready.done() and self._ready.exception() is None:
            self.on_ending(self)
        call, self._call = self._call, None
        if call is None:
            return
        self._last_counters = call.counters()
        ending = call.close()
        self._context.engine.close_stream(self.id)
        if ending is not None:
            await asyncio.wait({ending}, timeout=self._limits.bye_wait_s)

    # ---- small things

    def _settle(self, error: GatewayError) -> None:
        self._ready.set_exception(error)
        self._ready.exception()  # read here: a start that nobody waits for any more is no warning

    def _on_media(self, event: EngineEvent) -> None:
        """The engine's events of the stream go to the call that feeds it."""
        call = self._call
        if call is not None:
            call.on_media(event)
        self._wake.set()

    def _released(self, lease: StreamLease) -> None:
        self._leases.discard(lease)
        self._idle_since = asyncio.get_running_loop().time()
        self._wake.set()

    def _wanted_transport(self) -> MediaTransport | None:
        if self._wanted is not None:
            return self._wanted
        for setting in (self._directory.media_transport(self.device_id), self._limits.transport):
            if setting not in ("", "auto"):
                return MediaTransport(setting)
        return None

    def _remembered(self) -> MediaTransport | None:
        way = self._directory.media_way(self.device_id)
        return MediaTransport(way) if way else None

    def _only_channel(self) -> bool:
        return self._directory.is_only_channel(self.device_id, self.channel_id)

    def _is_gone(self, error: GatewayError) -> bool:
        """No pause brings it back: we have deleted the device or the channel, or a lower platform knows it no more.

        Of a device 404 may mean that it has started anew and does not see its cameras yet; it is asked again.
        """
        if error.code in ("gb.route.device_unknown", "gb.route.channel_unknown"):
            return True
        return error.sip_status == 404 and node_kind(self.device_id) is NodeKind.SYSTEM

    def _age_ms(self) -> int:
        return int((self._context.clock.wall() - self.started_at) * 1000)

    def _emit(self, event: str, **fields: object) -> None:
        call = self._call
        self._context.bus.emit(
            event,
            device_id=self.device_id,
            channel_id=self.channel_id,
            stream_id=self.id,
            call_id=call.call_id if call is not None else "",
            ssrc=call.ssrc_text if call is not None else "",
            transport=call.way.transport.value if call is not None else "",
            kind=self.kind.value,
            **fields,
        )
