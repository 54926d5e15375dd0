"""The calls of all upper platforms: who may call, which kind of call it is, and the ends that come from outside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from gb28181gw.cascade.call import Call, CallCounters, CallTools
from gb28181gw.cascade.link import UpperLink
from gb28181gw.cascade.offers import read_offer
from gb28181gw.cascade.routes import OfferError, Route
from gb28181gw.cascade.sharing import Key
from gb28181gw.cascade.streams import UpperStream
from gb28181gw.cascade.talks import UpperTalk
from gb28181gw.gb.sdp import SessionKind
from gb28181gw.sessions.models import StreamView
from gb28181gw.ua.incoming import Incoming

CALLS_LIMIT: Final = 512
"""Of one upper at once (threat S-21)."""


class UpperCalls:
    """Owner of the calls of all uppers."""

    def __init__(self, tools: CallTools) -> None:
        self.counters = CallCounters()
        self.tools = self._tools = tools
        self._calls: dict[str, set[Call]] = {}

    def count(self, upper_id: str) -> int:
        """Calls that send."""
        return sum(call.sending for call in self._calls.get(upper_id, ()))

    @property
    def total(self) -> int:
        """Calls that are not over."""
        return sum(len(calls) for calls in self._calls.values())

    @property
    def raw(self) -> int:
        """Calls that get the device's own packets."""
        sinks = [call.sink_id for calls in self._calls.values() for call in calls if call.sink_id is not None]
        return sum(one.passthrough for one in self._tools.engine.rtp_sink_counters(sinks).values())

    def invite(
        self, link: UpperLink, incoming: Incoming, key: Key | None, route: Route, *, bound: bool
    ) -> None:
        """An INVITE of the upper outside dialogs.

        `key`: what its To is here; None: nothing that is shared. `bound`: it came from where we are registered.
        """
        self.counters.invites += 1
        try:
            if key is None:
                raise OfferError(404, "it is not shared")
            if len(self._calls.get(link.upper.id, ())) >= CALLS_LIMIT:
                raise OfferError(486, f"{CALLS_LIMIT} calls of it run")
            route.check()
            wanted = read_offer(incoming.request.body, incoming.path.remote_host, link.upper.media_allow)
            if wanted.sdp.session is SessionKind.TALK and not link.upper.control:
                raise OfferError(403, "it may not speak")
            if wanted.sdp.session is SessionKind.TALK and not bound:
                raise OfferError(403, "s=Talk from another port than we are registered at")
            if (
                wanted.sdp.session in (SessionKind.PLAYBACK, SessionKind.DOWNLOAD)
                and not 0 < wanted.sdp.start_time < wanted.sdp.end_time
            ):
                raise OfferError(488, "t= is no span of a recording")
        except OfferError as error:
            self.counters.refused += 1
            self._tools.bus.emit(
                "upper.request_refused",
                upper_id=link.upper.id,
                cmd="INVITE",
                channel_id=incoming.to_user[:64],
                sip_status=error.status,
                detail=error.why,
            )
            incoming.respond(error.status, headers=route.headers())
            return
        kind = UpperTalk if wanted.sdp.session is SessionKind.TALK else UpperStream
        call: Call = kind(self._tools, self.counters, link, incoming, key, wanted, route)
        calls = self._calls.setdefault(link.upper.id, set())
        for other in list(calls):
            if call.sender_serial and other.sender_serial == call.sender_serial:
                other.end("replaced")  # Annex K: the same stream asked for again
        calls.add(call)
        call.start(self._done)

    def end_all(self, upper_id: str, reason: str, *, bye: bool = True) -> None:
        """The upper is lost, or nothing may be sent to it any more."""
        for call in list(self._calls.get(upper_id, ())):
            call.end(reason, bye=bye)

    def source_ended(self, view: StreamView, reason: str) -> None:
        """`Sessions.on_ended`."""
        for calls in self._calls.values():
            for call in list(calls):
                call.source_ended(view.id, reason)

    def end_unshared(self, upper_id: str, is_shared: Callable[[Key], bool]) -> None:
        """Shares were taken back: what plays of them ends at once."""
        for call in list(self._calls.get(upper_id, ())):
            if not is_shared(call.key):
                call.end("unshared")

    def end_talks(self, upper_id: str, reason: str) -> None:
        """The upper may not speak any more."""
        for call in list(self._calls.get(upper_id, ())):
            if isinstance(call, UpperTalk):
                call.end(reason)

    async def settled(self, upper_id: str, timeout_s: float | None = None) -> None:
        """Until the calls of an upper have ended, or so long."""
        waiting = asyncio.gather(*(call.ended() for call in list(self._calls.get(upper_id, ()))))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting, timeout_s)

    def _done(self, call: Call) -> None:
        calls = self._calls.get(call.link.upper.id)
        if calls is not None:
            calls.discard(call)
            if not calls:
                del self._calls[call.link.upper.id]
