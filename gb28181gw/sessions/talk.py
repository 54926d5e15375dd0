"""One talk: somebody speaks to a channel, from the first way tried to the last packet (GB/T 28181-2022 9.12).

`Talk.run` is the whole life, top to bottom; one task owns it. It climbs the ladder of ways (TK-01): broadcast, where
the device is told and calls us, to each id that may be its loudspeaker (TK-02); then an INVITE with s=Talk. The way
that worked is remembered for the device.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import EngineEvent, MediaTransport
from gb28181gw.sessions.call import CallContext
from gb28181gw.sessions.microphone import Microphone, MicrophoneKind, MicrophoneUse
from gb28181gw.sessions.talk_leg import LegOwner, TalkLeg
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import Target

if TYPE_CHECKING:
    from gb28181gw.sessions.speaker import Speaker


class TalkWay(StrEnum):
    """How sound gets to a device."""

    BROADCAST = "broadcast"
    """Notify, then the device calls us."""
    TALK = "talk"
    """We call it with s=Talk."""


class TalkState(StrEnum):
    """Exits: STARTING -> TALKING -> ENDING; STARTING -> ENDING when every way failed."""

    STARTING = "starting"
    TALKING = "talking"
    ENDING = "ending"


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkLimits:
    """Seconds."""

    answer_s: float = 20.0
    """A talk stands or has failed within this, all ways together."""
    notify_s: float = 4.0
    """For the device's Response to a Broadcast."""
    call_s: float = 5.0
    """From that Response to the device's INVITE (TK-02)."""
    invite_s: float = 8.0
    connect_s: float = 10.0
    """A device that agreed to TCP has so long to connect."""
    idle_s: float = 60.0
    """A talk that nobody spoke in for so long ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who talks."""

    key_id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkView:
    """One talk as the API shows it."""

    id: str
    state: TalkState
    device_id: str
    channel_id: str
    holder: str
    started_at: float
    """Seconds since 1970 UTC."""
    way: TalkWay | None = None
    target_id: str = ""
    """Whom the device was told: its loudspeaker, the channel, or itself."""
    codec: str = ""
    sample_rate: int = 0
    transport: MediaTransport | None = None
    ssrc: str = ""
    remote: str = ""
    spoken_s: float = 0.0
    queued_s: float = 0.0
    dropped_s: float = 0.0
    microphone: MicrophoneKind | None = None
    """The one that is open."""
    heard_id: str = ""
    """The engine's stream of what the device says in a talk both ways; it is empty in a broadcast."""


class TalkDirectory(Protocol):
    """What a talk asks of the devices' side; `devices.talking.TalkPartners` satisfies it."""

    async def reach_to_talk(self, device_id: str, channel_id: str) -> Target:
        """The channel on its verified path. Raises GatewayError gb.route.*; a path on trial cannot be talked to."""
        ...

    def speakers_of(self, device_id: str, channel_id: str) -> Sequence[str]:
        """Ids to name in a Broadcast, best first (TK-02)."""
        ...

    async def announce(self, device_id: str, target_id: str, timeout_s: float) -> None:
        """Send Broadcast and await an OK. Raises GatewayError gb.sip.no_answer, .rejected, .command_failed."""
        ...

    def talk_way(self, device_id: str) -> str:
        """The way that worked last, or empty."""
        ...

    def remember_talk_way(self, device_id: str, way: str) -> None: ...

    def talk_transport(self, device_id: str) -> MediaTransport:
        """What to offer in an INVITE of ours."""
        ...


WAYS: Final = (TalkWay.BROADCAST, TalkWay.TALK)


class Talk:
    """Owner of one talk."""

    def __init__(
        self,
        context: CallContext,
        directory: TalkDirectory,
        limits: TalkLimits,
        *,
        device_id: str,
        channel_id: str,
        holder: Holder,
        wanted: TalkWay | None,
    ) -> None:
        self._context = context
        self._directory = directory
        self._limits = limits
        self.device_id = device_id
        self.channel_id = channel_id
        self.holder = holder
        self._wanted = wanted
        self.id = secrets.token_hex(16)
        self.hears_id = f"{self.id}.heard"
        self.state = TalkState.STARTING
        self.error: GatewayError | None = None
        self.way: TalkWay | None = None
        self.target_id = ""
        self.started_at = context.clock.wall()
        self._leg: TalkLeg | None = None
        self._speaker: Speaker | None = None
        self._microphone: Microphone | None = None
        self._recording = False
        """What waits to be spoken came as a file."""
        """It is fed live by who began it, an upper platform."""
        self._called: asyncio.Future[Incoming] | None = None
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stop_reason = ""
        self._fed_at = 0.0
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        context.engine.create_stream(self.id, _nobody)
        context.engine.create_stream(self.hears_id, _nobody)

    # ---- for outsiders

    def view(self) -> TalkView:
        leg, speaker = self._leg, self._speaker
        rate = speaker.sample_rate if speaker is not None else 8_000
        return TalkView(
            id=self.id,
            state=self.state,
            device_id=self.device_id,
            channel_id=self.channel_id,
            holder=self.holder.name,
            started_at=self.started_at,
            way=self.way,
            target_id=self.target_id,
            codec=speaker.codec.value if speaker is not None else "",
            sample_rate=rate if speaker is not None else 0,
            transport=leg.transport if leg is not None else None,
            ssrc=leg.ssrc_text if leg is not None else "",
            remote=leg.remote if leg is not None else "",
            spoken_s=speaker.spoken_samples / rate if speaker is not None else 0.0,
            queued_s=speaker.queued_s if speaker is not None else 0.0,
            dropped_s=speaker.dropped_samples / rate if speaker is not None else 0.0,
            microphone=self._microphone.kind if self._microphone is not None else None,
            heard_id=self.hears_id,
        )

    @property
    def reason(self) -> str:
        """Why it ends or ended; empty while it stands."""
        return self._stop_reason or (self._leg.ended if self._leg is not None else "")

    async def ready(self) -> None:
        """Until sound goes out. Raises the GatewayError that ended the start."""
        await asyncio.shield(self._ready)

    def feed(self, pcm: bytes, rate: int) -> None:
        """A recording to speak, or a part of one; see `Speaker.feed`.

        Raises GatewayError gb.route.busy while the talk does not stand, or while a microphone speaks.
        """
        if self._microphone is not None:
            raise self._taken(self._microphone)
        self._recording = True
        self._feed(pcm, rate, live=False)

    def take_microphone(
        self, kind: MicrophoneKind, client: str, on_over: Callable[[], None] | None
    ) -> Microphone:
        """The right to speak live, for one at a time; `on_over` is called when the talk ends before its release.

        Raises GatewayError gb.route.busy while the talk does not stand, or while something else is spoken.
        """
        speaker = self._standing()
        if self._microphone is not None:
            raise self._taken(self._microphone)
        if self._recording and speaker.queued_s:
            raise GatewayError(
                "gb.route.busy",
                f"A recording is spoken; {speaker.queued_s:.1f} s of it wait. Open it again then.",
            )
        self._recording = False
        self._microphone = Microphone(
            MicrophoneUse(
                feed=lambda pcm, rate: self._feed(pcm, rate, live=True), released=self._microphone_released
            ),
            kind=kind,
            client=client,
            sample_rate=speaker.sample_rate,
            opened_at=self._context.clock.wall(),
            on_over=on_over,
        )
        self._tell("talk.microphone_opened", kind=kind, client=client)
        return self._microphone

    def stop(self, reason: str) -> None:
        """Wish: end it, BYE at once."""
        if not self._stop_reason:
            self._stop_reason = reason
            self._stopped.set()
            self._touch()

    def takes_call(self, incoming: Incoming) -> bool:
        """Whether this INVITE of the device is the one that we wait for; then it is answered here (TK-03)."""
        if self._called is None or self._called.done():
            return False
        self._called.set_result(incoming)
        return True

    # ---- the whole life

    async def run(self) -> None:
        """Until the talk has ended. Never raises but for cancellation."""
        try:
            await self._cancellable(self._start())
            await self._watch()
        except GatewayError as error:
            self.error = error
            if not self._ready.done():
                self._ready.set_exception(error)
                self._ready.exception()  # nobody may be waiting
            self._tell("talk.failed", reason=error.reason, detail=error.detail)
        finally:
            self.state = TalkState.ENDING
            if self._microphone is not None:
                self._microphone.talk_over()
            if self._speaker is not None:
                await self._speaker.close()
            if self._leg is not None:
                self._leg.close()
            for stream_id in (self.id, self.hears_id):
                self._context.engine.close_stream(stream_id)
            if not self._ready.done():
                self._ready.set_exception(GatewayError("gb.route.shutting_down"))
                self._ready.exception()

    async def _start(self) -> None:
        """The first way that leads to the device."""
        self._tell("talk.requested", holder=self.holder.name)
        # Unknown, offline, not approved, on trial: told before anything is sent.
        await self._directory.reach_to_talk(self.device_id, self.channel_id)
        deadline = asyncio.get_running_loop().time() + self._limits.answer_s
        # PyAV takes a while to load; the first talk pays for it, and not the loop.
        await asyncio.to_thread(importlib.import_module, "gb28181gw.sessions.speaker")
        failed: GatewayError | None = None
        attempts: list[str] = []
        for way in self._ways():
            self.way = way
            try:
                async with asyncio.timeout_at(deadline):
                    await (self._by_broadcast() if way is TalkWay.BROADCAST else self._by_invite())
            except TimeoutError:
                failed = failed or GatewayError(
                    "gb.sip.no_answer", "The device did not agree to talk in time."
                )
                break
            except GatewayError as error:
                failed = error
                attempts.append(f"{way.value}: {error.detail}")
                continue
            self._stand(way)
            return
        assert failed is not None  # noqa: S101 - there is a way, and it failed
        raise GatewayError(failed.code, " ".join(attempts) or failed.detail, sip_status=failed.sip_status)

    def _ways(self) -> tuple[TalkWay, ...]:
        if self._wanted is not None:
            return (self._wanted,)
        remembered = self._directory.talk_way(self.device_id)
        return tuple(sorted(WAYS, key=lambda way: way.value != remembered))

    def _stand(self, way: TalkWay) -> None:
        """The device listens."""
        from gb28181gw.sessions.speaker import Speaker

        leg = self._leg
        assert leg is not None  # noqa: S101 - a way that worked left its leg
        self._speaker = Speaker(self._context.engine, self.id, leg.codec, leg.sample_rate)
        self._speaker.start()
        self.state = TalkState.TALKING
        self._fed_at = asyncio.get_running_loop().time()
        self._directory.remember_talk_way(self.device_id, way.value)
        self._tell(
            "talk.started",
            way=way.value,
            codec=leg.codec.value,
            transport=leg.transport.value,
            ssrc=leg.ssrc_text,
            holder=self.holder.name,
        )
        if not self._ready.done():
            self._ready.set_result(None)

    async def _watch(self) -> None:
        """Until somebody ends it, or nobody speaks any more."""
        leg, speaker = self._leg, self._speaker
        assert leg is not None and speaker is not None  # noqa: S101 - `_stand` made them
        loop = asyncio.get_running_loop()
        while not (self._stop_reason or leg.ended):
            if speaker.queued_s:
                self._fed_at = loop.time()
            left = self._fed_at + self._limits.idle_s - loop.time()
            if left <= 0:
                self._stop_reason = "idle"
                break
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                continue
        self._tell(
            "talk.ended",
            reason=self.reason,
            duration_ms=int((self._context.clock.wall() - self.started_at) * 1000),
        )

    # ---- ways

    async def _by_broadcast(self) -> None:
        """Tell each id that may be the loudspeaker, and answer the call that follows (9.12.1)."""
        failed: GatewayError | None = None
        for target_id in self._directory.speakers_of(self.device_id, self.channel_id):
            self.target_id = target_id
            self._called = asyncio.get_running_loop().create_future()
            try:
                incoming = await self._called_by(target_id)
                leg = self._new_leg()
                await leg.answer(incoming)
                await self._connected(leg)
            except GatewayError as error:
                failed = error
                self._drop_leg()
                if error.code in ("gb.codec.codec_unsupported", "gb.sip.path_lost"):
                    break
                continue
            finally:
                self._called = None
            return
        raise failed or GatewayError("gb.route.channel_unknown")

    async def _called_by(self, target_id: str) -> Incoming:
        """The device's INVITE; it may come before the Response, or without one."""
        assert self._called is not None  # noqa: S101 - made by the caller
        telling = asyncio.create_task(
            self._directory.announce(self.device_id, target_id, self._limits.notify_s)
        )
        try:
            called = self._called
            waiting: set[asyncio.Future[Any]] = {telling, called}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not called.done():
                telling.result()
                async with asyncio.timeout(self._limits.call_s):
                    return await asyncio.shield(called)
            return called.result()
        except TimeoutError:
            raise GatewayError(
                "gb.sip.no_call",
                f"{target_id} agreed to listen and sent no INVITE within {self._limits.call_s:g} s.",
            ) from None
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _by_invite(self) -> None:
        """Call the channel with s=Talk."""
        target = await self._directory.reach_to_talk(self.device_id, self.channel_id)
        leg = self._new_leg()
        self.target_id = self.channel_id
        try:
            await leg.invite(target, self._directory.talk_transport(self.device_id), self._limits.invite_s)
            await self._connected(leg)
        except BaseException:
            self._drop_leg()
            raise

    async def _connected(self, leg: TalkLeg) -> None:
        """Over TCP: until the connection stands."""
        if leg.transport is MediaTransport.UDP:
            return
        try:
            async with asyncio.timeout(self._limits.connect_s):
                while not (leg.connected or leg.ended):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            leg.ended = "tcp_not_connected"
        if not leg.connected:
            raise GatewayError(
                "gb.media.tcp_not_connected", "The device agreed to TCP and no connection came."
            )

    def _new_leg(self) -> TalkLeg:
        self._leg = TalkLeg(
            self._context,
            LegOwner(
                device_id=self.device_id,
                channel_id=self.channel_id,
                talk_id=self.id,
                hears_id=self.hears_id,
                changed=self._touch,
            ),
        )
        return self._leg

    def _drop_leg(self) -> None:
        leg, self._leg = self._leg, None
        if leg is not None:
            leg.close()

    # ---- sound

    def _standing(self) -> Speaker:
        if self._speaker is None or self.state is not TalkState.TALKING:
            raise GatewayError("gb.route.busy", "The talk does not stand.")
        return self._speaker

    def _feed(self, pcm: bytes, rate: int, *, live: bool) -> None:
        self._standing().feed(pcm, rate, live=live)
        self._fed_at = asyncio.get_running_loop().time()

    def _microphone_released(self, microphone: Microphone, reason: str) -> None:
        self._microphone = None
        self._tell(
            "talk.microphone_closed",
            kind=microphone.kind,
            client=microphone.client,
            reason=reason,
            duration_ms=int((self._context.clock.wall() - microphone.opened_at) * 1000),
        )

    @staticmethod
    def _taken(microphone: Microphone) -> GatewayError:
        return GatewayError(
            "gb.route.busy", f"The microphone of {microphone.client} ({microphone.kind}) speaks in this talk."
        )

    # ---- small

    async def _cancellable(self, work: Coroutine[None, None, None]) -> None:
        """Await `work`, unless `stop` comes first. Raises gb.sip.cancelled then."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise GatewayError("gb.sip.cancelled")
            task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    def _touch(self) -> None:
        self._wake.set()

    def _tell(self, event: str, **fields: object) -> None:
        self._context.bus.emit(
            event,
            device_id=self.device_id,
            channel_id=self.channel_id,
            talk_id=self.id,
            **fields,
        )


def _nobody(event: EngineEvent) -> None:
    """Tracks of a talk are known beforehand."""
