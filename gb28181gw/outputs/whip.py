"""Microphones by WebRTC, by WHIP (RFC 9725): an offer is posted to a talk, the answer names a session.

Owner of the sessions. A talk has one microphone at a time, by whatever way it comes; that is the talk's own rule
(`source.TalkSource`). Either side's end ends the other's part: the talk's end closes the session, and the session's
end gives the microphone back, while the talk stays for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec
from gb28181gw.outputs.routes import WhipTarget
from gb28181gw.outputs.sender_reports import CNAME
from gb28181gw.outputs.source import Grant, TalkSource
from gb28181gw.outputs.webrtc_host import SessionAnswer, WebRtcHost, later_candidates
from gb28181gw.outputs.webrtc_sdp import (
    OPUS,
    Choice,
    Format,
    Offer,
    Section,
    choose_audio,
    parse_offer,
    write_answer,
)
from gb28181gw.outputs.whip_session import WhipSession

logger = logging.getLogger(__name__)

_NARROW_HZ = 8_000


class WhipInput:
    """Owner of the sessions of microphones."""

    def __init__(self, host: WebRtcHost) -> None:
        self.talks: TalkSource | None = None
        """None: nobody talks."""
        self.ended: Counter[str] = Counter()
        """Sessions that ended, by reason."""
        self._host = host
        self._sessions: dict[str, WhipSession] = {}
        self._opening = 0
        self._closing: set[asyncio.Task[None]] = set()
        host.counts(lambda: len(self._sessions) + self._opening)

    def __len__(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    async def offer(
        self, target: WhipTarget, grant: Grant, client: str, body: bytes, local_host: str
    ) -> SessionAnswer:
        """Answer an offer; the microphone of the talk is taken for it. `local_host`: where it reached the listener.

        Raises GatewayError. Cancelling gives everything back.
        """
        offer = parse_offer(body)
        section, formats = _sound(offer)
        if self.talks is None:
            raise GatewayError("gb.route.talk_unknown")
        self._host.check_room()
        self._opening += 1
        try:
            session = WhipSession(
                secrets.token_urlsafe(18),
                target,
                grant.id,
                await self._host.transports(),
                self._session_ended,
            )
            try:
                session.microphone = self.talks.take_microphone(
                    target.talk_id, kind="webrtc", client=client, on_over=lambda: session.end("talk_over")
                )
            except GatewayError:
                self._later(session.close())
                raise
            try:
                return await self._open(session, offer, section, formats, local_host)
            except BaseException:
                session.end("not_connected")
                self._later(session.close())
                raise
        finally:
            self._opening -= 1

    async def _open(
        self,
        session: WhipSession,
        offer: Offer,
        section: Section,
        formats: dict[str, Format],
        local_host: str,
    ) -> SessionAnswer:
        from gb28181gw.outputs.whip_sound import make_decoder  # PyAV is there since the talk began

        assert session.microphone is not None  # noqa: S101 - taken before
        name = best_codec(formats, session.microphone.sample_rate)
        local = await self._host.open(session.transport, local_host)
        if session.ended:
            raise GatewayError("gb.route.talk_unknown", "The talk has ended meanwhile.")
        answer = write_answer(
            offer,
            [
                Choice(section=one, ssrc=0, formats={name: formats[name]} if one is section else {})
                for one in offer.sections
            ],
            local,
            session_id=secrets.randbits(62),
            cname=CNAME,
            receives=True,
        )
        self._sessions[session.id] = session
        session.begin(offer, formats[name], make_decoder(name))
        return SessionAnswer(body=answer, location=f"{session.target.path}/{session.id}", etag=session.etag)

    async def trickle(self, target: WhipTarget, etag: str | None, body: bytes) -> None:
        """Candidates that were found later. Raises GatewayError."""
        session = self._session(target)
        await session.transport.add_candidates(
            later_candidates(body, etag, session_etag=session.etag, session_ufrag=session.ufrag)
        )

    def delete(self, target: WhipTarget) -> None:
        """The speaker goes. Raises `gb.route.stream_unknown`."""
        self._session(target).end("speaker_gone")

    def close_grants(self, has_ended: Callable[[str], bool]) -> None:
        """End the sessions whose grant id `has_ended`."""
        for session in list(self._sessions.values()):
            if has_ended(session.grant_id):
                session.end("revoked")

    async def close(self) -> None:
        """End all sessions. Idempotent."""
        for session in list(self._sessions.values()):
            session.end("shutting_down")
        while self._closing:
            await asyncio.gather(*self._closing)

    def _session(self, target: WhipTarget) -> WhipSession:
        session = self._sessions.get(target.session)
        if session is None or session.target.path != target.path:
            raise GatewayError("gb.route.stream_unknown", "The WebRTC session has ended or never was.")
        return session

    def _session_ended(self, session: WhipSession, reason: str) -> None:
        begun = self._sessions.pop(session.id, None) is not None
        self.ended[reason] += 1
        microphone, session.microphone = session.microphone, None
        if microphone is not None:
            microphone.release(reason)
        if begun:  # else it is closed by who opens it, when its ports are bound
            self._later(session.close())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a WebRTC session did not end well", exc_info=error)


def best_codec(offered: Collection[str], sample_rate: int) -> str:
    """What G.711 leaves out of a voice, a talk of 8 kHz does not carry either, and it costs nothing to decode.

    `offered`: at least one of ``opus``, ``pcma``, ``pcmu``.
    """
    narrow = (Codec.PCMA.value, Codec.PCMU.value)
    order = (*narrow, OPUS) if sample_rate == _NARROW_HZ else (OPUS, *narrow)
    return next(name for name in order if name in offered)


def _sound(offer: Offer) -> tuple[Section, dict[str, Format]]:
    """The first section that sends sound which we can decode. Raises `gb.output.no_sound_offered`."""
    for section in offer.sections:
        if section.kind == "audio" and section.sends and section.mid in offer.bundle:
            formats = choose_audio(section, OPUS)
            if formats:
                return section, formats
    raise GatewayError("gb.output.no_sound_offered")
