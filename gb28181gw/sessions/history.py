"""A recording of a device, played or downloaded: one INVITE for one span, steered by MANSRTSP.

Differs from live in what ends it. The device says so (MediaStatus 121, in the dialog or not: PB-12), sends BYE, or
just stops (PB-11); packets that still come after a 121 are waited for, because it may overtake them, and a 121 of
each file in the middle ends nothing while the stream goes on (PB-14). Where it stops with each file, a playback that
somebody watches asks for what follows, from where the device's list of recordings says that it goes on, and again
for the speed that it had; a download leaves that to its job. A device that runs past the end is stopped by our clock
(PB-07). While paused, silence means nothing.

What the device answers to a control is told as its answer; whether it did it, the stream's times tell
(`sessions.timeline`): both are in the view, and an OK without effect is an event (PB-08).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from gb28181gw.errors import GatewayError
from gb28181gw.gb import mansrtsp
from gb28181gw.gb.exceptions import GbError, GbLocalError
from gb28181gw.gb.mansrtsp import Action, MansRtspAnswer, Pause, Resume, Scale, Seek, Teardown
from gb28181gw.gb.sdp import SessionKind
from gb28181gw.media.engine import MediaTransport, StreamCounters
from gb28181gw.sessions.call import Ask, Call, CallContext
from gb28181gw.sessions.directory import DeviceDirectory
from gb28181gw.sessions.models import ControlView, Effect, HistoryView, StreamKind, StreamState
from gb28181gw.sessions.stream import Stream, StreamLimits, Why
from gb28181gw.sessions.timeline import Timeline
from gb28181gw.sip.message import Response

SENT_COMPLETELY = 121
MAX_SHORT_FILES = 2
"""A device without anything further may answer each INVITE with its last pictures and a 121."""


class RecordedSpans(Protocol):
    """What the device has recorded of a span, as its list says; `devices.records.Records.spans` satisfies it."""

    async def __call__(
        self, device_id: str, channel_id: str, start: int, end: int, *, centre: bool
    ) -> list[tuple[float, float]]:
        """(start, end) in order, seconds since 1970 UTC; empty: nothing, or nothing is known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLimits:
    """Seconds."""

    silence_s: float = 60.0
    """Without a packet, not while paused."""
    download_silence_s: float = 10.0
    look_s: float = 0.25
    """How often the stream's times are looked at."""
    control_s: float = 8.0
    """Until the device answered an INFO."""
    effect_s: float = 6.0
    """Until what it said OK to must be seen."""
    tail_s: float = 0.5
    """Silence after a 121 that ends the stream."""
    end_silence_s: float = 3.0
    """Silence at the end of the span that ends it without a word of the device (PB-11)."""
    end_near_s: float = 3.0
    """What lies closer to the end of the span counts as its end."""
    file_s: float = 2.5
    """Packets that go on for so long behind a 121 are the next file's (PB-14); long enough to measure their speed."""
    records_s: float = 4.0
    """For the device's list of recordings, once a file ended."""
    end_margin_s: float = 10.0
    """How far past the end of the span a device may run (PB-07)."""


HISTORY_LIMITS = HistoryLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What is asked for: seconds since 1970 UTC, whole ones, as `t=` has them (Annex G)."""

    start: int
    end: int
    speed: float = 1.0
    """`a=downloadspeed`; downloads only."""

    @property
    def length_s(self) -> int:
        return self.end - self.start


@dataclass(slots=True)
class _Expectation:
    """What the stream must show of the last control."""

    action: Action
    until: float
    jumps: int
    packets: int


class HistoryStream(Stream):
    """Owner of one playback or download."""

    def __init__(
        self,
        context: CallContext,
        directory: DeviceDirectory,
        limits: StreamLimits,
        history: HistoryLimits,
        *,
        kind: StreamKind,
        device_id: str,
        channel_id: str,
        span: Span,
        wanted: MediaTransport | None,
        centre: bool,
        end_old_calls: Callable[[str], asyncio.Future[None]],
        recorded: RecordedSpans,
    ) -> None:
        """`centre`: ask the device itself, for what it keeps as a centre, in place of its channel (A.2.4.5)."""
        self.kind = kind
        super().__init__(
            context,
            directory,
            limits,
            device_id=device_id,
            channel_id=channel_id,
            wanted=wanted,
            end_old_calls=end_old_calls,
            ask=_ask(kind, channel_id, span),
            to_device=centre,
        )
        self._span = span
        self._times = history
        self._look_s = history.look_s
        self._timeline = Timeline(span.length_s)
        self._base_s = 0
        """Where, in the span, the running INVITE began."""
        self._scale = span.speed
        self._wanted_scale = span.speed
        """What was last agreed, also over a new INVITE, where the device begins at its own speed."""
        self._asking_speed: asyncio.Task[None] | None = None
        self._centre = centre
        self._recorded = recorded
        self._spans: list[tuple[float, float]] | None = None
        """What the device has recorded of the span, once it was asked."""
        self._paused = False
        self._cseq = 0
        self._steering = asyncio.Lock()
        self._control: ControlView | None = None
        self._expected: _Expectation | None = None
        self._came = (0, 0)
        """Packets and pictures of the last look."""
        self._packet_at = 0.0
        self._end = ""
        self._file_size: int | None = None
        self._file_ended = False
        """The device ended a file before the end of the span (PB-14): what follows is asked for."""
        self._told_at = 0.0
        """When the 121 came that has not ended anything yet."""
        self._files = 0
        """Files that the running INVITE has gone on behind."""
        self._short_files = 0
        """INVITEs in a row that brought hardly anything before their 121."""
        # Where the recording stands is read from its pictures, so they are looked at even while nobody, or only a
        # relay of the raw packets, wants the stream. No frame leaves the plane for this.
        context.engine.add_frame_sink(self.id, lambda _: None, video=False, audio=False)

    # ---- steering

    async def control(self, action: Action) -> ControlView:
        """One INFO. Returns what the device answered; whether it did it, the view tells later.

        Raises GatewayError: gb.route.busy while no call stands, gb.route.invalid for a place outside the span,
        gb.sip.rejected with the device's status, gb.sip.command_failed for a refusal in its MANSRTSP answer,
        gb.sip.no_answer, gb.sip.path_lost.
        """
        async with self._steering:
            call = self._call
            if self.state is not StreamState.RUNNING or call is None:
                raise GatewayError(
                    "gb.route.busy", f"The stream is {self.state}; it can be steered while it runs."
                )
            self._cseq += 1
            version = self._directory.rtsp_version(self.device_id)
            try:
                body = mansrtsp.write_request(self._on_wire(action), self._cseq, version)
            except GbLocalError as error:
                raise GatewayError("gb.route.invalid", f"{error}.") from None
            response = await call.send(
                "INFO",
                body=body,
                content_type=mansrtsp.CONTENT_TYPE,
                path=self._directory.path_of(self.device_id),
                timeout_s=self._times.control_s,
            )
            return self._answered(action, call, response)

    def _on_wire(self, action: Action) -> Action:
        """Places count from the `t=` of the running INVITE."""
        if isinstance(action, Seek):
            place = action.position_s
            if not (math.isfinite(place) and 0 <= place < self._span.length_s):
                raise GatewayError(
                    "gb.route.invalid", f"position_s lies from 0 to below {self._span.length_s} s."
                )
            if place < self._base_s:
                raise GatewayError(
                    "gb.route.invalid",
                    f"After a loss the device was asked again from {self._base_s} s on; start a new playback.",
                )
            return Seek(place - self._base_s)
        return action

    def _answered(self, action: Action, call: Call, response: Response) -> ControlView:
        name = type(action).__name__.lower()
        answer, text = _read_answer(response.body)
        refused = response.status >= 300 or (answer is not None and not answer.ok)
        self._control = ControlView(
            action=name,
            sip_status=response.status,
            rtsp_status=answer.status if answer is not None else None,
            answer=text,
            effect=Effect.NONE if refused else Effect.WAITING,
        )
        self._emit(
            "playback.control",
            action=name,
            sip_status=response.status,
            rtsp_status=self._control.rtsp_status,
            detail=text or None,
        )
        if response.status >= 300:
            raise GatewayError(
                "gb.sip.rejected",
                f"The device refused {name} with {response.status} {response.reason}.".replace(" .", "."),
                sip_status=response.status,
            )
        if answer is not None and not answer.ok:
            raise GatewayError(
                "gb.sip.command_failed", f"The device answered {name} with {answer.status} {answer.reason}."
            )
        self._agreed(action, call)
        return self._control

    def _agreed(self, action: Action, call: Call) -> None:
        """The device said OK: from here on its stream must show it."""
        match action:
            case Pause():
                self._paused = True
            case Resume():
                self._paused = False
            case Seek(position_s):
                self._paused = False
                self._timeline.expect_seek(position_s)
            case Scale(scale):
                self._paused = False
                self._scale = self._wanted_scale = scale
                self._timeline.turn(backwards=scale < 0)
            case Teardown():
                pass
            case _:
                assert_never(action)
        now = asyncio.get_running_loop().time()
        self._packet_at = now
        self._expected = _Expectation(
            action=action,
            until=now + self._times.effect_s,
            jumps=self._timeline.jumps,
            packets=call.counters().packets,
        )
        self._wake.set()

    def take_status(self, notify_type: int) -> None:
        """A MediaStatus that came outside the dialog (PB-12)."""
        if self._call is not None:
            self._call.take_status(notify_type)

    # ---- looking at the stream

    def _look(self, call: Call) -> Why | None:
        now = asyncio.get_running_loop().time()
        counters = self._context.engine.stream_counters([self.id]).get(self.id, StreamCounters())
        tracks = self._context.engine.tracks(self.id)
        self._timeline.observe(now, counters, tracks[0].fps if tracks else 0.0)
        packets = call.counters().packets
        # What waits for a packet that was lost comes out of the plane later than the last packet went in.
        came = (packets, counters.pictures)
        if came != self._came or not self._packet_at:
            self._came, self._packet_at = came, now
        quiet_s = now - self._packet_at
        self._file_size = call.file_size if call.file_size is not None else self._file_size
        self._judge(packets, quiet_s, now)
        told = self._told_end(call, quiet_s, now)
        if told is not None:
            return told
        if call.lost and quiet_s < self._times.tail_s:
            return None  # what came before it may still be on its way through the plane
        if call.lost:
            self._end = "end_of_file" if self._at_end else ""
            return Why.ENDED if self._at_end else Why.LOST
        if self._paused:
            return None
        if self._at_end and quiet_s >= self._times.end_silence_s:
            self._end = "end_silent"
            return Why.ENDED
        if self._timeline.position_s > self._span.length_s + self._times.end_margin_s:
            self._end = "end_time"
            return Why.ENDED
        return Why.LOST if quiet_s >= self._patience_s else None

    def _told_end(self, call: Call, quiet_s: float, now: float) -> Why | None:
        """What follows from a MediaStatus: an end, the next file, or nothing yet."""
        status, times = call.media_status, self._times
        if self._paused:
            return None
        if status is None:
            # It was taken for that of a file in the middle: then silence is what ends the stream.
            over = self._files > 0 and quiet_s >= times.end_silence_s
        else:
            over = quiet_s >= times.tail_s
            if not self._told_at:
                self._told_at = now
                self._timeline.measure_anew()
        if over:
            if status in (SENT_COMPLETELY, None) and self._may_follow():
                self._file_ended = True
                return Why.LOST
            self._end = "end_of_file" if status in (SENT_COMPLETELY, None) else "device_failed"
            return Why.ENDED
        if status == SENT_COMPLETELY and now - self._told_at >= times.file_s and not self._at_end:
            call.media_status = None
            self._told_at = 0.0
            self._files += 1
            rate = self._timeline.rate
            if self._scale > 0 and rate is not None and not _is_near(rate, self._scale):
                self._ask_speed()
        return None

    def _ask_speed(self) -> None:
        """A device that begins with a file at its own speed is told the agreed one again: one INFO (PB-14)."""
        if self.kind is StreamKind.PLAYBACK and self._wanted_scale > 0 and self._wanted_scale != 1.0:
            self._asking_speed = asyncio.create_task(self._speed_again(), name=f"speed {self.id}")

    async def _speed_again(self) -> None:
        try:
            await self.control(Scale(self._wanted_scale))
        except GatewayError:
            return  # told as playback.control; the stream goes on at the device's speed

    def _may_follow(self) -> bool:
        """Whether the span goes on behind what the device calls its end, as far as one can know (PB-14)."""
        if self.kind is StreamKind.DOWNLOAD or not self._leases or self._scale < 0 or self._at_end:
            return False
        short = self._timeline.position_s - self._base_s <= self._times.end_near_s
        self._short_files = self._short_files + 1 if short else 0
        return self._short_files < MAX_SHORT_FILES

    @property
    def _patience_s(self) -> float:
        """A download is never paused, and whoever wants the file asks again."""
        return self._times.download_silence_s if self.kind is StreamKind.DOWNLOAD else self._times.silence_s

    @property
    def _at_end(self) -> bool:
        if self._scale < 0:
            return self._timeline.position_s <= self._base_s + self._times.end_near_s
        return self._timeline.position_s >= self._span.length_s - self._times.end_near_s

    def _judge(self, packets: int, quiet_s: float, now: float) -> None:
        """Whether what the device said OK to is seen in the stream."""
        expected = self._expected
        if expected is None or self._control is None:
            return
        match expected.action:
            case Pause():
                seen = quiet_s >= 1.0
            case Resume():
                seen = packets > expected.packets
            case Seek():
                seen = self._timeline.jumps > expected.jumps
            case Scale(scale):
                rate = self._timeline.rate
                # Backwards the stream's time must go back as well: a device that plays on shows the same rate.
                turned = scale > 0 or self._timeline.leaps_back
                seen = turned and rate is not None and _is_near(rate, scale)
            case _:
                seen = True
        if not seen and now < expected.until:
            return
        self._expected = None
        self._control = replace(self._control, effect=Effect.SEEN if seen else Effect.NONE)
        if not seen:
            if isinstance(expected.action, Pause):
                self._paused = False  # it goes on, so its silence means something again
            self._emit(
                "playback.no_effect",
                action=self._control.action,
                scale=self._scale,
                rate=round(rate, 2) if (rate := self._timeline.rate) is not None else None,
                detail=f"The device answered {self._control.sip_status} and its stream shows nothing of it.",
            )

    # ---- where it differs from live

    @property
    def _silence_s(self) -> float:
        return 0.0

    def _may_retry(self, call: Call) -> bool:
        # A device that says BYE means it; a download is resumed by whoever wants the file.
        if self._file_ended:
            return True
        return bool(self._leases) and self.kind is StreamKind.PLAYBACK and not call.ended_by_device

    def _prepare_retry(self) -> None:
        """Ask from where it stood, or behind the file that ended; whatever speed it had, the device begins anew."""
        base = int(self._timeline.position_s)
        if self._file_ended:  # any earlier, and a device would send the end of the same file again
            base = max(round(self._timeline.position_s), self._base_s + 1)
            following = next_recorded(self._spans or [], self._span.start + base)
            if following is not None and following > self._span.start + base:
                self._timeline.leap(following - self._span.start)
                base = int(following) - self._span.start
        base = min(base, self._span.length_s - 1)
        self._base_s = base
        self._ask = _ask(self.kind, self.channel_id, replace(self._span, start=self._span.start + base))
        self._timeline.restart(base)
        self._scale, self._paused = self._span.speed, False
        if self._wanted_scale < 0:
            self._wanted_scale = self._span.speed
        self._expected = None
        self._packet_at, self._told_at, self._files = 0.0, 0.0, 0

    async def _again(self, lost: Call) -> Call:
        if self._file_ended and self._spans is None:
            await self._learn_spans()
        return await super()._again(lost)

    async def _learn_spans(self) -> None:
        """Ask once what is recorded of the span: the next file may begin later than this one ended."""
        asking = asyncio.ensure_future(
            self._recorded(
                self.device_id, self.channel_id, self._span.start, self._span.end, centre=self._centre
            )
        )
        asking.add_done_callback(lambda _: self._wake.set())
        self._spans = []
        try:
            async with asyncio.timeout(self._times.records_s):
                while not (asking.done() or self._stop_reason):
                    self._wake.clear()
                    await self._wake.wait()
            if asking.done():
                self._spans = asking.result()
        except TimeoutError:
            return
        finally:
            asking.cancel()

    @property
    def _pauses_s(self) -> tuple[float, ...]:
        return (0.0,) if self._file_ended else super()._pauses_s

    def _enter(self, call: Call) -> None:
        self._file_ended = False
        super()._enter(call)
        if self._scale != self._wanted_scale:
            self._ask_speed()

    async def run(self, adopted: Call | None = None) -> None:
        try:
            await super().run(adopted)
        finally:
            if self._asking_speed is not None:
                self._asking_speed.cancel()

    async def _fail(self, error: GatewayError) -> None:
        """A device that has nothing behind the file that ended did not fail: its 121 was the end."""
        if self._file_ended and error.code != "gb.sip.cancelled":
            await self._leave("end_of_file")
        else:
            await super()._fail(error)

    def _loss(self, call: Call) -> GatewayError:
        if self._file_ended:
            return GatewayError("gb.media.silent", "The device ended a file before the end of the span.")
        if call.ended_by_device or call.silent:
            return super()._loss(call)
        return GatewayError("gb.media.silent", f"No packet for {self._patience_s:.0f} s.")

    def _reason(self, why: Why, call: Call) -> str:
        return self._end if why is Why.ENDED else super()._reason(why, call)

    def _history(self) -> HistoryView:
        return HistoryView(
            start=float(self._span.start),
            end=float(self._span.end),
            position_s=round(min(self._timeline.position_s, float(self._span.length_s)), 3),
            paused=self._paused,
            scale=self._scale,
            rate=self._timeline.rate if not self._paused else 0.0,
            file_size=self._file_size,
            gaps=tuple(self._timeline.gaps),
            control=self._control,
        )


async def nothing_known(
    device_id: str, channel_id: str, start: int, end: int, *, centre: bool
) -> list[tuple[float, float]]:
    """A `RecordedSpans` where nobody can be asked."""
    return []


def next_recorded(spans: list[tuple[float, float]], after: float) -> float | None:
    """Where it goes on at or behind `after`: there itself where it is within a span; None: no span is known."""
    found = [max(start, after) for start, end in spans if end > after + 1]
    return min(found, default=None)


def _is_near(rate: float, scale: float) -> bool:
    return 0.7 <= rate / abs(scale) <= 1.4


def _ask(kind: StreamKind, channel_id: str, span: Span) -> Ask:
    download = kind is StreamKind.DOWNLOAD
    return Ask(
        session=SessionKind.DOWNLOAD if download else SessionKind.PLAYBACK,
        uri=f"{channel_id}:0",  # all kinds of recordings (Annex G)
        start_time=span.start,
        end_time=span.end,
        attributes=(("downloadspeed", f"{span.speed:g}"),) if download else (),
    )


def _read_answer(body: bytes) -> tuple[MansRtspAnswer | None, str]:
    """The MANSRTSP answer that the 200 may carry, and its text for people."""
    if not body.strip():
        return None, ""
    try:
        message = mansrtsp.parse(body)
    except GbError:
        return None, ""
    if not isinstance(message, MansRtspAnswer):
        return None, ""
    lines = body.decode("utf-8", "replace").split("\n")
    return message, " | ".join(line.strip() for line in lines if line.strip())[:256]
