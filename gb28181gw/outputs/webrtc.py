"""WebRTC for viewers, by WHEP (draft-ietf-wish-whep): an offer is posted, the answer names a session.

Owner of the sessions and of the streams that they share. The library behind `webrtc_transport` is imported with the
first viewer. What cannot be sent unchanged is refused with what to do about it; H.265 is made into H.264 only when it
was asked for (``?video=h264``) and `[media] transcode` allows so many.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, Track
from gb28181gw.observability.events import EventBus
from gb28181gw.outputs.routes import PlayOptions, WhepTarget
from gb28181gw.outputs.sender_reports import CNAME
from gb28181gw.outputs.source import Grant, StreamSource, Viewer
from gb28181gw.outputs.transcode_protocol import MAX_SOURCE_PIXELS, Made
from gb28181gw.outputs.viewers import Viewers, lease_of
from gb28181gw.outputs.webrtc_host import SessionAnswer, WebRtcHost, later_candidates
from gb28181gw.outputs.webrtc_sdp import (
    OPUS,
    Choice,
    Format,
    Offer,
    Section,
    choose_audio,
    choose_video,
    parse_offer,
    write_answer,
)
from gb28181gw.outputs.webrtc_session import WebRtcSession
from gb28181gw.outputs.webrtc_stream import SOUNDS, WebRtcStream

logger = logging.getLogger(__name__)

_REPORT_S = 2.0
_KEY_FRAME_S = 3.0
"""A device is asked for a key frame of one stream no more often."""


class WebRtcOutput:
    """Owner of everything that WebRTC needs but the viewers' table."""

    def __init__(
        self,
        engine: Engine,
        source: StreamSource,
        viewers: Viewers,
        bus: EventBus,
        host: WebRtcHost,
    ) -> None:
        self.ask_key_frame: Callable[[str, str], None] | None = None
        """(device id, channel id); None: devices are not asked."""
        self._engine = engine
        self._source = source
        self._viewers = viewers
        self._bus = bus
        self._host = host
        self._config = host.config
        host.counts(lambda: len(self._sessions) + self._opening)
        self._sessions: dict[str, WebRtcSession] = {}
        self._opening = 0
        self._streams: dict[tuple[str, bool], WebRtcStream] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._reporting: asyncio.Task[None] | None = None
        self.transcoders = 0
        """Worker processes, of picture and sound."""

    def __len__(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    @property
    def transcodes(self) -> int:
        """H.265 streams that are made into H.264 now."""
        return sum(made_video for _, made_video in self._streams)

    @property
    def bytes_out(self) -> int:
        """RTP and RTCP of the sessions that are open, before encryption."""
        return sum(session.bytes_out for session in self._sessions.values())

    async def offer(
        self,
        target: WhepTarget,
        options: PlayOptions,
        grant: Grant,
        viewer: Viewer,
        body: bytes,
        local_host: str,
    ) -> SessionAnswer:
        """Answer an offer; the stream is started for it. `local_host`: where the viewer reached the listener.

        Raises GatewayError. Cancelling gives everything back.
        """
        offer = parse_offer(body)
        if options.audio == "aac":
            raise GatewayError("gb.route.invalid", "WebRTC carries G.711 and Opus: leave audio=aac out.")
        self._host.check_room()
        self._opening += 1
        try:
            return await self._open(target, options, viewer, offer, local_host)
        finally:
            self._opening -= 1

    async def _open(
        self, target: WhepTarget, options: PlayOptions, viewer: Viewer, offer: Offer, local_host: str
    ) -> SessionAnswer:
        make_transport = await self._host.transports()
        lease = await lease_of(self._source, target, viewer)
        session: WebRtcSession | None = None
        entered = False
        try:
            tracks = self._engine.tracks(lease.stream_id)
            stream, choices = self._negotiate(lease.stream_id, tracks, offer, options)
            session = WebRtcSession(
                secrets.token_urlsafe(18),
                target,
                stream,
                make_transport,
                on_end=self._session_ended,
                on_picture_lost=self._picture_lost,
            )
            local = await self._host.open(session.transport, local_host)
            answer = write_answer(
                offer,
                choices,
                local,
                session_id=secrets.randbits(62),
                cname=CNAME,
                level=_level(tracks),
            )
            session.viewer = self._viewers.enter(
                target, viewer, lease, self._closer(session), made_audio=False
            )
            entered = True
            self._sessions[session.id] = session
            session.begin(
                offer, {name: chosen for choice in choices for name, chosen in choice.formats.items()}
            )
        except BaseException:
            if not entered:
                lease.release()
                if session is not None:
                    self._drop(session)
            raise
        if self._reporting is None:
            self._reporting = asyncio.get_running_loop().create_task(self._report(), name="webrtc")
        return SessionAnswer(body=answer, location=f"{target.path}/{session.id}", etag=session.etag)

    async def trickle(self, target: WhepTarget, etag: str | None, body: bytes) -> None:
        """Candidates that the viewer found later. Raises GatewayError; a restart of ICE is not served."""
        session = self._session(target)
        await session.transport.add_candidates(
            later_candidates(body, etag, session_etag=session.etag, session_ufrag=session.ufrag)
        )

    def delete(self, target: WhepTarget) -> None:
        """The viewer goes. Raises `gb.route.stream_unknown`."""
        self._session_ended(self._session(target), "viewer_gone")

    async def close(self) -> None:
        """End all sessions. Idempotent."""
        reporting, self._reporting = self._reporting, None
        if reporting is not None:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
        for session in list(self._sessions.values()):
            self._session_ended(session, "shutting_down")
        while self._closing:
            await asyncio.gather(*self._closing)

    # negotiation

    def _negotiate(
        self, stream_id: str, tracks: Sequence[Track], offer: Offer, options: PlayOptions
    ) -> tuple[WebRtcStream, list[Choice]]:
        """Takes a share of the stream. Raises GatewayError; then no share was taken."""
        video = next((track for track in tracks if track.codec.is_video), None)
        audio = next((track for track in tracks if not track.codec.is_video), None)
        made_video = options.video == "h264" and video is not None and video.codec is Codec.H265
        formats: list[tuple[Section, dict[str, Format]]] = []
        has: set[str] = set()
        for section in offer.sections:
            chosen: dict[str, Format] = {}
            if section.wants and section.kind not in has and section.mid in offer.bundle:
                if section.kind == "video" and video is not None:
                    chosen = _video_formats(section, video, made=made_video)
                elif section.kind == "audio" and options.audio != "none":
                    own = audio is not None and audio.codec in SOUNDS
                    chosen = choose_audio(section, audio.codec.value if own and audio is not None else OPUS)
                    if options.audio == "copy":
                        chosen.pop(OPUS, None)
            if chosen:
                has.add(section.kind)
            formats.append((section, chosen))
        if video is not None and "video" not in has:
            raise _not_offered(video, transcodes=self._config.transcodes)
        if not has:
            raise GatewayError(
                "gb.output.codec_not_offered", "The offer asks for nothing that the stream has."
            )
        stream = self._join(stream_id, made_video=made_video, video=video)
        return stream, [
            Choice(section=section, ssrc=stream.ssrc(next(iter(chosen))) if chosen else 0, formats=chosen)
            for section, chosen in formats
        ]

    def _join(self, stream_id: str, *, made_video: bool, video: Track | None) -> WebRtcStream:
        name = (stream_id, made_video)
        stream = self._streams.get(name)
        if stream is None or stream.is_over:
            if made_video:
                self._check_transcode(video)
            stream = self._streams[name] = WebRtcStream(
                self._engine,
                stream_id,
                made_video=made_video,
                on_transcoding=lambda made, what, detail: self._transcoding(stream_id, made, what, detail),
            )
        stream.users += 1
        return stream

    def _check_transcode(self, video: Track | None) -> None:
        if self._config.transcodes == 0:
            raise GatewayError("gb.output.transcoding_off")
        if self.transcodes >= self._config.transcodes:
            raise GatewayError(
                "gb.output.too_many_transcodes",
                f"{self._config.transcodes} streams are transcoded already.",
            )
        if video is not None and video.width * video.height > MAX_SOURCE_PIXELS:
            raise GatewayError(
                "gb.codec.codec_unsupported", f"{video.width}x{video.height} is too large to be transcoded."
            )

    def _part(self, stream: WebRtcStream) -> None:
        stream.users -= 1
        if stream.users == 0:
            for name in [name for name, known in self._streams.items() if known is stream]:
                del self._streams[name]
            self._later(stream.close())

    # sessions

    def _session(self, target: WhepTarget) -> WebRtcSession:
        session = self._sessions.get(target.session)
        if session is None or session.target.path != target.path:
            raise GatewayError("gb.route.stream_unknown", "The WebRTC session has ended or never was.")
        return session

    def _session_ended(self, session: WebRtcSession, reason: str) -> None:
        if session.viewer is not None:
            self._viewers.leave(session.viewer, reason, session.bytes_out)

    def _closer(self, session: WebRtcSession) -> Callable[[str], None]:
        """For the table of viewers: it ends this one, for a reason of its own or because it was told so here."""

        def close(_reason: str) -> None:
            self._sessions.pop(session.id, None)
            session.viewer = None
            self._drop(session)

        return close

    def _drop(self, session: WebRtcSession) -> None:
        self._part(session.stream)
        self._later(session.close())

    def _picture_lost(self, session: WebRtcSession) -> None:
        """The device is asked for a key frame, for all who watch; a recording sends its own."""
        target, stream = session.target, session.stream
        now = time.monotonic()
        if self.ask_key_frame is None or not target.device_id or now - stream.key_frame_asked < _KEY_FRAME_S:
            return
        stream.key_frame_asked = now
        self.ask_key_frame(target.device_id, target.channel_id)

    def _transcoding(self, stream_id: str, made: Made, what: str, detail: str) -> None:
        fields: dict[str, object] = {"stream_id": stream_id, "codec": made.value}
        if what == "started":
            self.transcoders += 1
        elif what == "ended":
            self.transcoders -= 1
            fields["reason"] = detail
        else:
            fields |= {"reason": "codec_unsupported", "detail": detail}
        self._bus.emit(f"transcoding.{what}", **fields)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            for stream in list(self._streams.values()):
                stream.report()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a WebRTC session did not end well", exc_info=error)


def _video_formats(section: Section, track: Track, *, made: bool) -> dict[str, Format]:
    if made:
        track = Track(kind=track.kind, codec=Codec.H264, parameter_sets=(b"\x67\x4d\x40\x1f",))
    found = choose_video(section, track)
    return {track.codec.value: found} if found is not None else {}


def _not_offered(video: Track, *, transcodes: int) -> GatewayError:
    what = {Codec.H264: "H.264 (packetization-mode 1)", Codec.H265: "H.265"}.get(video.codec)
    if what is None:
        return GatewayError("gb.codec.codec_unsupported", f"WebRTC does not carry {video.codec.value} video.")
    allowed = " Or ask with ?video=h264." if video.codec is Codec.H265 and transcodes else ""
    return GatewayError(
        "gb.output.codec_not_offered", f"The stream is {what}, which the viewer does not offer.{allowed}"
    )


def _level(tracks: Sequence[Track]) -> str:
    """level_idc of an H.264 stream in hexadecimal."""
    for track in tracks:
        for unit in track.parameter_sets if track.codec is Codec.H264 else ():
            if unit[:1] and unit[0] & 0x1F == 7 and len(unit) > 3:
                return f"{unit[3]:02x}"
    return ""
