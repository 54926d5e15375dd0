"""An upper platform plays: live, playback, download (GB/T 28181-2022 9.2, 9.8, 9.9).

Downwards a call is one more consumer of the channel's stream (which one INVITE to the device feeds, whoever watches).
Upwards the engine forwards the source's own packets where those are a program stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from gb28181gw.cascade.call import BYE_S, Call, CallCounters, CallTools, Lease, Viewer, status_of
from gb28181gw.cascade.link import UpperLink
from gb28181gw.cascade.offers import Wanted
from gb28181gw.cascade.routes import Route
from gb28181gw.cascade.sharing import Key
from gb28181gw.errors import GatewayError
from gb28181gw.gb import mansrtsp
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.manscdp.media_status import SENT_COMPLETELY, MediaStatus, write_media_status
from gb28181gw.gb.manscdp.messages import CONTENT_TYPE as MANSCDP_TYPE
from gb28181gw.gb.mansrtsp import MansRtspAnswer, MansRtspRequest, Teardown
from gb28181gw.gb.sdp import Sdp, SessionKind, answer_to
from gb28181gw.media.engine import MediaTransport, RtpSink, RtpSinkSpec, RtpSinkUpdate
from gb28181gw.sip.dialog import Dialog
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.passage import PASSAGE

_AFTER_END_S: Final = 2.0
"""For the BYE of an upper that was told the end of a recording."""
_AT_END: Final = frozenset({"end_of_file", "end_silent", "end_time"})


class UpperStream(Call):
    """Owner of a lease of the stream that is sent."""

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
        self._lease: Lease | None = None
        self._history = ""
        """Id of the recording's stream, which is ours alone; empty: live."""
        self._file_size: int | None = None
        self._steering: set[asyncio.Task[None]] = set()

    def source_ended(self, stream_id: str, reason: str) -> None:
        """A recording begins to end; `end_of_file` is passed on before the BYE (9.8.2)."""
        if stream_id and stream_id == self._history:
            self.end(reason)

    async def _prepare(self) -> bytes:
        lease = self._lease = await self._lease_source()
        passage = PASSAGE.get()
        if passage is not None and not passage.route:
            passage.route = lease.route  # it ran already: the way is that of whoever asked for it first
        self._stream_id = lease.stream_id
        self._choose_ssrc()
        self._sink = await self._bind(lambda port: self._add_sink(lease.stream_id, port))
        return self._description(self._sink)

    async def _lease_source(self) -> Lease:
        """The channel's live stream, which everybody shares, or a recording's, which is this call's alone (PB-17)."""
        source, sdp, key = self._tools.source, self._wanted.sdp, self.key
        viewer = Viewer(
            client=self.link.path.peer if self.link.path else "", grant_id=f"upper:{self.link.upper.id}"
        )
        if sdp.session is SessionKind.PLAY:
            return await source.lease_live(key.device_id, key.channel_id, viewer)
        start, end = (datetime.fromtimestamp(moment, UTC) for moment in (sdp.start_time, sdp.end_time))
        if sdp.session is SessionKind.PLAYBACK:
            view = await source.start_playback(key.device_id, key.channel_id, start, end)
        else:
            view = await source.start_download(
                key.device_id, key.channel_id, start, end, speed=_download_speed(sdp)
            )
        self._history = view.id
        self._file_size = view.history.file_size if view.history is not None else None
        return await source.lease_stream(view.id, viewer)

    async def _add_sink(self, stream_id: str, port: int) -> RtpSink:
        wanted, tools = self._wanted, self._tools
        spec = RtpSinkSpec(
            transport=wanted.transport,
            host=tools.media_listen,
            port=port,
            ssrc=self._ssrc,
            payload_type=wanted.payload.number,
            packing=wanted.packing,
            codec=wanted.codec,
            remote=wanted.remote,
            expected_hosts=wanted.hosts if wanted.transport is MediaTransport.TCP_PASSIVE else frozenset(),
        )
        return await tools.engine.add_rtp_sink(stream_id, spec, self._on_media)

    def _description(self, sink: RtpSink) -> bytes:
        answer = answer_to(
            self._wanted.sdp,
            user=self.link.upper.local_id,
            host=self._own_host(),
            port=sink.port,
            ssrc=self._ssrc,
            payloads=(self._wanted.payload,),
        )
        if self._file_size is not None:
            answer = replace(answer, attributes=(("filesize", str(self._file_size)),))
        return answer.to_bytes()

    def _begin(self) -> None:
        if self._sink is not None:
            self._tools.engine.update_rtp_sink(self._sink.id, RtpSinkUpdate(sending=True))

    async def _before_bye(self, dialog: Dialog) -> None:
        if self._reason in _AT_END:
            await self._tell_end(dialog)

    async def _tell_end(self, dialog: Dialog) -> None:
        """MediaStatus 121 in the dialog (9.8.2, PB-17); a receiver that understands it sends BYE itself."""
        body = write_media_status(
            MediaStatus(sn=self._tools.next_sn(), device_id=self.channel, notify_type=SENT_COMPLETELY),
            self.link.upper.dialect.charset_used,
        )
        await self._tools.agent.send_in_dialog(
            dialog, "MESSAGE", path=self.link.path, body=body, content_type=MANSCDP_TYPE, timeout_s=BYE_S
        )
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AFTER_END_S):
                while not self._upper_bye:
                    await self._wake.wait()
                    self._wake.clear()
        if self._upper_bye:
            raise GatewayError("gb.sip.cancelled", "The upper ended the call itself.")

    def _steer(self, incoming: Incoming) -> None:
        """MANSRTSP: passed on, and answered with what the device answered (9.8.2)."""
        try:
            request = mansrtsp.parse(incoming.request.body)
        except GbError:
            incoming.respond(400)
            return
        if not isinstance(request, MansRtspRequest) or not self._history:
            incoming.respond(488)
            return
        if isinstance(request.action, Teardown):
            incoming.respond(200, body=self._rtsp(request, 200), content_type=mansrtsp.CONTENT_TYPE)
            self.end("upper_teardown")
            return
        task = asyncio.get_running_loop().create_task(self._control(incoming, request))
        self._steering.add(task)
        task.add_done_callback(self._steering.discard)

    async def _control(self, incoming: Incoming, request: MansRtspRequest) -> None:
        PASSAGE.set(self._route.passage())
        try:
            view = await self._tools.source.control(self._history, request.action)
        except GatewayError as error:
            self._tools.bus.emit(
                "upper.command_failed",
                upper_id=self.link.upper.id,
                device_id=self.key.device_id,
                channel_id=self.key.channel_id,
                cmd="INFO",
                reason=error.reason,
                detail=error.detail,
            )
            incoming.respond(status_of(error))
            return
        body = self._rtsp(request, view.rtsp_status or 200)
        incoming.respond(200, body=body, content_type=mansrtsp.CONTENT_TYPE)

    @staticmethod
    def _rtsp(request: MansRtspRequest, status: int) -> bytes:
        return mansrtsp.write_answer(
            MansRtspAnswer(status=status, cseq=request.cseq, version=request.version)
        )

    def _release_media(self) -> None:
        super()._release_media()
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        for task in self._steering:
            task.cancel()

    async def _end_below(self) -> None:
        """A recording has no other viewer: its device need not wait for the idle time."""
        history, self._history = self._history, ""
        if history:
            with contextlib.suppress(GatewayError):  # it has ended by itself
                await self._tools.source.stop(history, "upper_gone")


def _download_speed(sdp: Sdp) -> float:
    """`a=downloadspeed` of the session or of its media; 1 without one."""
    for name, value in (*sdp.first.attributes, *sdp.attributes):
        if name == "downloadspeed":
            with contextlib.suppress(ValueError):
                return min(max(float(value), 1.0), 32.0)
    return 1.0
