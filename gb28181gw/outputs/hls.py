"""HLS: playlists, segments and parts of streams, answered in Python (RFC 8216bis, low latency).

Theory of operation. A player opens a playlist and then asks again and again, so what other outputs have as a connection
is a *session* here: one grant, or one key of one host, on one stream in one form. The first playlist request starts it:
the stream is leased, which starts a channel that does not run, and the session ends when nobody has asked for `IDLE_S`.
A token opens a session while it is valid and goes on with it afterwards; a playlist has fresh tokens behind the names
that are new in it. All sessions on the same stream and sound share one *muxer*: a frame sink, a segmenter, and those
who wait for what comes next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, Frame, TrackKind
from gb28181gw.outputs.hls_playlist import PLAYLIST_TYPE, parse_name, render
from gb28181gw.outputs.hls_segments import Segmenter
from gb28181gw.outputs.routes import HlsTarget, PlayOptions
from gb28181gw.outputs.source import Grant, PlayGuard, StreamSource, Viewer
from gb28181gw.outputs.transcoding import SOURCES
from gb28181gw.outputs.viewers import Viewers, lease_of

logger = logging.getLogger(__name__)

IDLE_S = 15.0
"""A session ends when nobody has asked for so long; longer than a playlist may be waited for."""
FIRST_S = 15.0
"""How long the first playlist waits for the first segment."""
_SWEEP_S = 1.0
_MAX_TOKENS = 200
_MEDIA_TYPE = "video/mp4"
_VIDEO = (Codec.H264, Codec.H265)


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsAnswer:
    content_type: str
    body: bytes
    not_taken: Callable[[], None]
    """To be called when the player did not read it, and its connection was ended for that."""


class _Muxer:
    """Owner of one frame sink and its segments."""

    def __init__(self, engine: Engine, stream_id: str, audio: str) -> None:
        tracks = engine.tracks(stream_id)
        made = audio == "aac" and any(track.codec in SOURCES for track in tracks)
        has_aac = audio != "none" and any(track.codec is Codec.AAC for track in tracks)
        self.segmenter = Segmenter(expect_audio=made or has_aac)
        self.sessions = 0
        self._engine = engine
        self._changed = asyncio.Event()
        self._sink = engine.add_frame_sink(
            stream_id,
            self._on_frames,
            audio=audio != "none",
            made_audio=audio == "aac",
            on_closed=self._on_closed,
        )

    async def until(self, ready: Callable[[], bool], limit_s: float) -> bool:
        """Wait until something is so; False when it is not in time, or will never be."""
        try:
            async with asyncio.timeout(limit_s):
                while not ready():
                    if self.segmenter.has_ended:
                        return False
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._engine.close_sink(self._sink)
        self._end()

    def _on_frames(self, frames: list[Frame]) -> None:
        if self.segmenter.take(frames, time.monotonic(), time.time()):
            self._wake()

    def _on_closed(self, _reason: str) -> None:
        self._end()

    def _end(self) -> None:
        if not self.segmenter.has_ended:
            self.segmenter.end()
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@dataclass(slots=True, kw_only=True)
class _Session:
    """One player, as far as requests tell."""

    grant_id: str
    asks: str
    """Key and host, for requests without a token."""
    starting: asyncio.Task[_Muxer]
    seen_at: float
    number: int | None = None
    """Of the viewer; None before there is a stream."""
    bytes_out: int = 0
    waiting: int = 0
    """Requests that wait for an answer."""
    is_stuck: bool = False
    """An answer was not taken, and nothing was asked for since."""
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    """What is behind the names of the playlist, each made when its name was listed first."""


_Key = tuple[str, str, str]
"""Path of the stream, sound, and the grant under which it was opened."""


def _asks(grant_id: str, viewer: Viewer) -> str:
    return f"{grant_id.partition('-')[0]}@{viewer.client.rpartition(':')[0]}"


class HlsOutput:
    """Owner of the sessions and the muxers."""

    def __init__(self, engine: Engine, source: StreamSource, guard: PlayGuard, viewers: Viewers) -> None:
        self._engine = engine
        self._source = source
        self._guard = guard
        self._viewers = viewers
        self._sessions: dict[_Key, _Session] = {}
        self._muxers: dict[tuple[str, str], _Muxer] = {}
        self._sweeping: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Sessions."""
        return len(self._sessions)

    @property
    def muxers(self) -> int:
        """Streams that are cut into segments, each form of one for itself."""
        return len(self._muxers)

    def is_open(self, path: str, grant_id: str) -> bool:
        """Somebody watches this stream under this grant."""
        return any(key[0] == path and session.grant_id == grant_id for key, session in self._sessions.items())

    async def answer(
        self, target: HlsTarget, options: PlayOptions, grant: Grant, viewer: Viewer
    ) -> HlsAnswer:
        """What was asked for, when it is there. Raises GatewayError."""
        audio = "aac" if options.audio == "auto" else options.audio
        key = (target.path, audio, grant.id)
        if not options.token:
            key = self._by_header(key, viewer) or key
        if target.resource == "index.m3u8":
            session = self._sessions.get(key) or self._open(key, target, viewer)
            work: Awaitable[tuple[str, bytes]] = self._playlist(session, target, options)
        else:
            found = self._sessions.get(key)
            if found is None:
                raise GatewayError("gb.route.not_found", "Ask for the playlist first.")
            session = found
            work = self._resource(session, target)
        session.seen_at = time.monotonic()
        session.waiting += 1
        session.is_stuck = False
        try:
            content_type, body = await work
        finally:
            session.waiting -= 1
            session.seen_at = time.monotonic()
        session.bytes_out += len(body)

        def not_taken() -> None:
            session.is_stuck = True

        return HlsAnswer(content_type=content_type, body=body, not_taken=not_taken)

    async def close(self) -> None:
        """End everything. Idempotent."""
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
        for key in list(self._sessions):
            await self._end(key, "shutting_down")

    # answers

    async def _playlist(
        self, session: _Session, target: HlsTarget, options: PlayOptions
    ) -> tuple[str, bytes]:
        # One request that goes away must not take the others' stream with it.
        muxer = await asyncio.shield(session.starting)
        segmenter = muxer.segmenter
        if not await muxer.until(lambda: segmenter.ready, FIRST_S) and not segmenter.ready:
            raise GatewayError("gb.media.no_keyframe", "No whole segment came in time.")
        if options.msn is not None:
            wanted = (options.msn, options.part) if options.part is not None else (options.msn + 1, -1)
            # A playlist holds what precedes `next_part`; RFC 8216bis 6.2.5.2.
            if options.msn > segmenter.next_part[0] + 1:
                raise GatewayError("gb.route.invalid", "_HLS_msn is too far ahead.")
            limit_s = 3.0 * segmenter.target_s
            if (
                not await muxer.until(lambda: segmenter.next_part > wanted, limit_s)
                and not segmenter.has_ended
            ):
                raise GatewayError("gb.media.silent", "No new part came in time.")
        sound = "" if options.audio == "auto" else f"&audio={options.audio}"

        def query(name: str) -> str:
            token = session.tokens.get(name)
            if token is None:
                token = session.tokens[name] = self._guard.renew(target.path, session.grant_id)
                while len(session.tokens) > _MAX_TOKENS:
                    del session.tokens[next(iter(session.tokens))]
            return f"token={token}{sound}"

        return PLAYLIST_TYPE, render(segmenter, query)

    async def _resource(self, session: _Session, target: HlsTarget) -> tuple[str, bytes]:
        named = parse_name(target.resource)
        if named is None:
            raise GatewayError("gb.route.not_found", "No stream has this path.")
        kind, number, index = named
        muxer = await asyncio.shield(session.starting)
        segmenter = muxer.segmenter
        body = b""
        if kind == "init":
            body = segmenter.inits.get(number, b"")
        elif kind == "part":
            if (number, index) == segmenter.next_part:  # the preload hint
                await muxer.until(
                    lambda: segmenter.next_part != (number, index), 3.0 * max(segmenter.target_s, 1)
                )
            segment = segmenter.find(number)
            if segment is not None and index < len(segment.parts):
                body = segment.parts[index].data
        else:
            segment = segmenter.find(number)
            if segment is not None and segment.is_complete:
                body = segment.data()
        if not body:
            raise GatewayError("gb.route.not_found", "This part of the stream is not kept.")
        return _MEDIA_TYPE, body

    # sessions

    def _by_header(self, key: _Key, viewer: Viewer) -> _Key | None:
        """The session that the same key of the same host has opened; each request by a key is a grant of its own."""
        path, audio, grant_id = key
        asks = _asks(grant_id, viewer)
        return next(
            (k for k, session in self._sessions.items() if k[:2] == (path, audio) and session.asks == asks),
            None,
        )

    def _open(self, key: _Key, target: HlsTarget, viewer: Viewer) -> _Session:
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="hls")
        starting = asyncio.get_running_loop().create_task(self._start(key, target, viewer))
        session = _Session(
            grant_id=key[2], asks=_asks(key[2], viewer), starting=starting, seen_at=time.monotonic()
        )
        self._sessions[key] = session

        def forget_failure(task: asyncio.Task[_Muxer]) -> None:
            failed = task.cancelled() or task.exception() is not None
            if failed and self._sessions.get(key) is session:
                del self._sessions[key]

        starting.add_done_callback(forget_failure)
        return session

    async def _start(self, key: _Key, target: HlsTarget, viewer: Viewer) -> _Muxer:
        lease = await lease_of(self._source, target, viewer)
        entered = False
        try:
            stream_id, audio = lease.stream_id, key[1]
            video = [track for track in self._engine.tracks(stream_id) if track.kind is TrackKind.VIDEO]
            if not video or video[0].codec not in _VIDEO:
                what = f"{video[0].codec.value} video" if video else "sound without a picture"
                raise GatewayError("gb.codec.codec_unsupported", f"HLS does not carry {what}.")
            muxer = self._muxers.get((stream_id, audio))
            if muxer is None or muxer.segmenter.has_ended:
                muxer = _Muxer(self._engine, stream_id, audio)
                self._muxers[stream_id, audio] = muxer
            session = self._sessions[key]
            taken = muxer

            def left(_reason: str) -> None:
                self._leave(taken, (stream_id, audio))
                if self._sessions.get(key) is session:
                    del self._sessions[key]

            session.number = self._viewers.enter(target, viewer, lease, left, made_audio=audio == "aac")
            muxer.sessions += 1
            entered = True
            return muxer
        finally:
            if not entered:
                lease.release()

    def _leave(self, muxer: _Muxer, name: tuple[str, str]) -> None:
        muxer.sessions -= 1
        if muxer.sessions == 0:
            muxer.close()
            if self._muxers.get(name) is muxer:
                del self._muxers[name]

    async def _end(self, key: _Key, reason: str) -> None:
        session = self._sessions.pop(key)
        session.starting.cancel()
        await asyncio.gather(session.starting, return_exceptions=True)
        if session.number is not None:
            self._viewers.leave(session.number, reason, session.bytes_out)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for key, session in list(self._sessions.items()):
                if not session.waiting and now - session.seen_at > IDLE_S and key in self._sessions:
                    await self._end(key, "slow" if session.is_stuck else "viewer_gone")
