"""The table of talks: one talker at a time for each channel, and the calls of devices that were told to listen.

`Talks` is what the API talks to; the lock names who holds it (one loudspeaker speaks with one voice).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gb28181gw.errors import GatewayError
from gb28181gw.sessions.call import CallContext
from gb28181gw.sessions.microphone import Microphone, MicrophoneKind
from gb28181gw.sessions.talk import Holder, Talk, TalkDirectory, TalkLimits, TalkState, TalkView, TalkWay
from gb28181gw.sip.path import Path
from gb28181gw.ua.incoming import Incoming

DeviceOf = Callable[[Path, str], str]
"""The device behind a path and a From user; empty: none."""


@dataclass(slots=True)
class TalkCounters:
    started: int = 0
    failed: int = 0
    uncalled: int = 0
    """INVITEs of devices that nobody had asked to listen."""


class Talks:
    """Owner of the talks. All calls on the event loop's thread."""

    def __init__(
        self,
        context: CallContext,
        directory: TalkDirectory,
        device_of: DeviceOf,
        limits: TalkLimits | None = None,
    ) -> None:
        self._context = context
        self._directory = directory
        self._device_of = device_of
        self._limits = limits if limits is not None else TalkLimits()
        self._talks: dict[str, Talk] = {}
        self._by_channel: dict[tuple[str, str], Talk] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self.counters = TalkCounters()

    def __len__(self) -> int:
        return len(self._talks)

    # ---- for the API

    async def start(
        self, device_id: str, channel_id: str, holder: Holder, *, way: TalkWay | None = None
    ) -> TalkView:
        """Begin to talk; answers when the device listens.

        Raises GatewayError: gb.route.busy naming who talks already, what `TalkDirectory` raises, gb.sip.no_call,
        gb.sip.no_answer, gb.sip.rejected, gb.codec.codec_unsupported, gb.media.*.
        """
        if self._stopping:
            raise GatewayError("gb.route.shutting_down")
        running = self._by_channel.get((device_id, channel_id))
        if running is not None:
            raise GatewayError(
                "gb.route.busy",
                f"{running.holder.name} is talking to {channel_id}: end talk {running.id}, or wait.",
                holder=running.holder.name,
            )
        talk = Talk(
            self._context,
            self._directory,
            self._limits,
            device_id=device_id,
            channel_id=channel_id,
            holder=holder,
            wanted=way,
        )
        self._talks[talk.id] = self._by_channel[device_id, channel_id] = talk
        task = asyncio.create_task(talk.run(), name=f"talk {channel_id}")
        self._tasks[talk.id] = task
        task.add_done_callback(partial(self._ended, talk))
        try:
            await talk.ready()
        except asyncio.CancelledError:
            talk.stop("cancelled")
            raise
        self.counters.started += 1
        return talk.view()

    def list(self) -> list[TalkView]:
        """Talks not ended."""
        return [talk.view() for talk in self._talks.values()]

    def get(self, talk_id: str) -> TalkView:
        """Raises GatewayError gb.route.talk_unknown."""
        return self._talk(talk_id).view()

    def feed(self, talk_id: str, pcm: bytes, rate: int) -> None:
        """A recording to speak, or a part of one; see `Talk.feed`."""
        self._talk(talk_id).feed(pcm, rate)

    def take_microphone(
        self, talk_id: str, *, kind: MicrophoneKind, client: str, on_over: Callable[[], None] | None = None
    ) -> Microphone:
        """See `Talk.take_microphone`. Raises GatewayError gb.route.talk_unknown besides."""
        return self._talk(talk_id).take_microphone(kind, client, on_over)

    async def stop(self, talk_id: str, reason: str = "stopped") -> None:
        """End it, BYE at once; returns when it has ended."""
        talk = self._talk(talk_id)
        talk.stop(reason)
        task = self._tasks.get(talk_id)
        if task is not None:
            await asyncio.wait({task})

    async def ended(self, talk_id: str) -> str:
        """Until it has ended; why. Raises GatewayError gb.route.talk_unknown."""
        talk, task = self._talk(talk_id), self._tasks[talk_id]
        await asyncio.wait({task})
        return talk.reason

    def stop_device(self, device_id: str, reason: str) -> None:
        """End every talk with a device (it was removed, unregistered or went offline)."""
        for talk in list(self._talks.values()):
            if talk.device_id == device_id:
                talk.stop(reason)

    def stop_key(self, key_id: str) -> None:
        """End every talk of a key that was revoked."""
        for talk in list(self._talks.values()):
            if talk.holder.key_id == key_id:
                talk.stop("revoked")

    # ---- for the user agent

    def on_invite(self, incoming: Incoming) -> None:
        """An INVITE of a device, outside dialogs: only one that was told to listen is answered (TK-03)."""
        device_id = self._device_of(incoming.path, incoming.from_user)
        if not device_id:
            incoming.ignore()  # S-11: who has not proved itself hears nothing
            return
        for talk in self._talks.values():
            if talk.device_id == device_id and talk.takes_call(incoming):
                return
        self.counters.uncalled += 1
        self._context.bus.emit(
            "talk.uncalled", device_id=device_id, peer=incoming.path.peer, call_id=incoming.call_id
        )
        incoming.respond(486 if any(talk.device_id == device_id for talk in self._talks.values()) else 403)

    # ---- stop of the gateway

    async def close(self, limit_s: float = 2.0) -> None:
        """End every talk with BYE."""
        self._stopping = True
        for talk in self._talks.values():
            talk.stop("shutdown")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=limit_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # ---- inside

    def _talk(self, talk_id: str) -> Talk:
        talk = self._talks.get(talk_id)
        if talk is None or talk.state is TalkState.ENDING:
            raise GatewayError("gb.route.talk_unknown", f"There is no talk {talk_id[:64]}.")
        return talk

    def _ended(self, talk: Talk, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._context.bus.emit("gateway.task_failed", task=task.get_name(), detail=repr(bug))
        if talk.error is not None:
            self.counters.failed += 1
        self._talks.pop(talk.id, None)
        self._tasks.pop(talk.id, None)
        key = (talk.device_id, talk.channel_id)
        if self._by_channel.get(key) is talk:
            del self._by_channel[key]
