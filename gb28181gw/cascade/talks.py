"""An upper platform talks with a channel: s=Talk, sound both ways on one port (GB/T 28181-2016 9.12.2; gone in 2022).

Downwards it is a talk of ours, which knows how its device wants to be spoken to and has the lock: who talks already is
not disturbed (486). What the device says comes from that talk where it goes both ways, else from the channel's live
stream, as talk is built of live play and broadcast (GB/T 28181-2022 9.12.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Final

from gb28181gw.cascade.call import Call, CallCounters, CallTools, Lease, Viewer
from gb28181gw.cascade.link import UpperLink
from gb28181gw.cascade.offers import Wanted
from gb28181gw.cascade.routes import Route
from gb28181gw.cascade.sharing import Key
from gb28181gw.cascade.sound import RATE, samples_of
from gb28181gw.errors import GatewayError
from gb28181gw.gb.sdp import answer_to
from gb28181gw.gb.talk import F_AUDIO
from gb28181gw.media.engine import (
    EngineEvent,
    EventKind,
    MediaTransport,
    Receiver,
    ReceiverSpec,
    ReceiverUpdate,
    RtpPacking,
    RtpSinkSpec,
    RtpSinkUpdate,
)
from gb28181gw.media.tracks import Codec, Frame
from gb28181gw.sessions.microphone import Microphone
from gb28181gw.sessions.talk import Holder, TalkView, TalkWay
from gb28181gw.ua.incoming import Incoming

if TYPE_CHECKING:
    from gb28181gw.sessions.speaker import Speaker

_SILENCE_S: Final = 30.0
"""An upper that spoke and then sends nothing for so long has gone."""
_DIRECTIONS: Final = {"sendonly": "recvonly", "recvonly": "sendonly"}


class UpperTalk(Call):
    """Owner of a talk below, the receiver of what the upper says, and the voice that speaks up to it."""

    def __init__(
        self,
        tools: CallTools,
        counters: CallCounters,
        link: UpperLink,
        incoming: Incoming,
        key: Key,
        wanted: Wanted,
        route: Route,
    ) -> None:
        super().__init__(tools, counters, link, incoming, key, wanted, route)
        mark = secrets.token_hex(8)
        self._said_id = f"upper-{mark}"
        """The engine's stream of what the upper says."""
        self._told_id = f"upper-{mark}.told"
        """Of what it is told."""
        self._stream_id = self._told_id
        self._talk: TalkView | None = None
        self._microphone: Microphone | None = None
        self._watching: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._receiver: Receiver | None = None
        self._voice: Speaker | None = None
        self._lease: Lease | None = None
        self._hears: list[int] = []
        """Frame sinks."""

    async def _prepare(self) -> bytes:
        upper, tools, wanted = self.link.upper, self._tools, self._wanted
        holder = Holder(key_id=f"upper:{upper.id}", name=upper.name or upper.id)
        talk = self._talk = await tools.talks.start(self.key.device_id, self.key.channel_id, holder)
        # Before its first packet: nobody else speaks in a talk of an upper.
        peer = self.link.path.peer if self.link.path else upper.id
        self._microphone = tools.talks.take_microphone(talk.id, kind="upper", client=peer)
        self._watching = asyncio.get_running_loop().create_task(self._watch(talk.id))
        self._choose_ssrc()
        for stream_id in (self._said_id, self._told_id):
            tools.engine.create_stream(stream_id, _nobody)
        receiver = self._receiver = await self._bind(self._open_receiver)
        tools.engine.attach(receiver.id, self._said_id)
        self._sink = await tools.engine.add_rtp_sink(
            self._told_id,
            RtpSinkSpec(
                transport=wanted.transport,
                ssrc=self._ssrc,
                payload_type=wanted.payload.number,
                packing=wanted.packing,
                codec=wanted.codec,
                video=wanted.packing is not RtpPacking.PS,
                remote=wanted.remote if wanted.transport is MediaTransport.UDP else None,
                through=receiver.id,
            ),
            self._on_media,
        )
        return answer_to(
            wanted.sdp,
            user=upper.local_id,
            host=self._own_host(),
            port=receiver.port,
            ssrc=self._ssrc,
            payloads=(wanted.payload,),
            f=F_AUDIO["PCMU" if wanted.codec == "pcmu" else "PCMA"],
            direction=_DIRECTIONS.get(wanted.sdp.first.direction, "sendrecv"),
        ).to_bytes()

    async def _open_receiver(self, port: int) -> Receiver:
        wanted = self._wanted
        return await self._tools.engine.open_receiver(
            ReceiverSpec(
                transport=wanted.transport,
                host=self._tools.media_listen,
                port=port,
                ssrc=self._ssrc,
                payloads={wanted.payload.number: wanted.payload.encoding},
                expected_hosts=wanted.hosts,
                silence_s=_SILENCE_S,
            ),
            self._on_media,
        )

    def _begin(self) -> None:
        # PyAV takes a while to load; the talk below has done it.
        from gb28181gw.sessions.speaker import Speaker

        engine, wanted = self._tools.engine, self._wanted
        if self._receiver is None or self._sink is None or self._talk is None:
            return
        self._voice = Speaker(engine, self._told_id, Codec(wanted.codec or "pcma"), RATE)
        self._voice.start()
        self._hears.append(engine.add_frame_sink(self._said_id, self._on_said, video=False))
        dial = wanted.remote if wanted.transport is MediaTransport.TCP_ACTIVE else None
        engine.update_receiver(self._receiver.id, ReceiverUpdate(connect=dial, acknowledged=True))
        engine.update_rtp_sink(self._sink.id, RtpSinkUpdate(sending=True))
        self._hearing = asyncio.get_running_loop().create_task(self._hear(self._talk))

    async def _hear(self, talk: TalkView) -> None:
        """Find what the device says. Without it the talk goes on one way."""
        heard_id = talk.heard_id
        if talk.way is TalkWay.BROADCAST:
            viewer = Viewer(
                client=self.link.path.peer if self.link.path else "", grant_id=f"upper:{self.link.upper.id}"
            )
            try:
                self._lease = await self._tools.source.lease_live(
                    self.key.device_id, self.key.channel_id, viewer
                )
            except GatewayError as error:
                self._tools.bus.emit(
                    "upper.command_failed",
                    upper_id=self.link.upper.id,
                    device_id=self.key.device_id,
                    channel_id=self.key.channel_id,
                    cmd="Talk",
                    reason=error.reason,
                    detail=error.detail,
                )
                return
            heard_id = self._lease.stream_id
        self._hears.append(self._tools.engine.add_frame_sink(heard_id, self._on_heard, video=False))

    async def _watch(self, talk_id: str) -> None:
        try:
            reason = await self._tools.talks.ended(talk_id)
        except GatewayError:
            reason = ""  # it was over before we looked
        self.end(reason or "device_bye")

    # -- what happens --------------------------------------------------------------------------------------

    def _on_said(self, frames: list[Frame]) -> None:
        for pcm in samples_of(frames):
            if self._microphone is not None:
                with contextlib.suppress(GatewayError):  # the talk has ended, which `_watch` sees
                    self._microphone.feed(pcm, RATE)

    def _on_heard(self, frames: list[Frame]) -> None:
        for pcm in samples_of(frames):
            if self._voice is not None:
                self._voice.feed(pcm, RATE, live=True)

    def _on_media(self, event: EngineEvent) -> None:
        match event.kind:
            case EventKind.SILENCE:
                self.end("silent")
            case EventKind.CONNECT_FAILED:
                self.end("tcp_not_connected")
            case EventKind.DISCONNECTED:
                self.end("media_lost")
            case _:
                super()._on_media(event)

    # -- ends ----------------------------------------------------------------------------------------------

    def _release_media(self) -> None:
        super()._release_media()
        engine = self._tools.engine
        for task in (self._watching, self._hearing):
            if task is not None:
                task.cancel()
        for sink_id in self._hears:
            engine.close_sink(sink_id)
        self._hears.clear()
        if self._receiver is not None:
            engine.close_receiver(self._receiver.id)
            self._receiver = None
        for stream_id in (self._said_id, self._told_id):
            engine.close_stream(stream_id)
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    async def _hang_up(self) -> None:
        await self._end_below()  # the loudspeaker is free before the upper has answered
        await super()._hang_up()

    async def _end_below(self) -> None:
        voice, self._voice = self._voice, None
        if voice is not None:
            await voice.close()
        talk, self._talk, self._microphone = self._talk, None, None
        if talk is not None:
            with contextlib.suppress(GatewayError):  # it has ended by itself
                await self._tools.talks.stop(talk.id, "upper_gone")


def _nobody(event: EngineEvent) -> None:
    """Tracks of a talk are known beforehand."""
