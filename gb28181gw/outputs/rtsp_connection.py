"""One connection of the RTSP server (RFC 2326): a session, its media, and the requests about it.

States: nothing; *described* (a stream is leased); *ready* (at least one medium has a transport); *playing*. A
connection has one session, which ends with it. The lease is taken by DESCRIBE, or by SETUP of a client that knows the
URL, and the viewer is counted from PLAY on. Who does not come to PLAY within `SETUP_S`, or is silent for `SESSION_S`
while it plays over UDP, is closed; a client of interleaved media shows by reading that it lives.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import TrackKind
from gb28181gw.outputs.routes import PlayOptions, StreamTarget, parse_options
from gb28181gw.outputs.rtsp_message import (
    RtspError,
    RtspParser,
    RtspRequest,
    Transport,
    parse_transport,
    write_response,
)
from gb28181gw.outputs.rtsp_sdp import Medium, describe
from gb28181gw.outputs.source import Grant, Lease, Viewer
from gb28181gw.outputs.viewers import lease_of

if TYPE_CHECKING:
    from gb28181gw.outputs.rtsp import RtspListener
    from gb28181gw.outputs.rtsp_stream import RtspStream

logger = logging.getLogger(__name__)

SETUP_S = 20.0
SESSION_S = 60
STALL_S = 10.0
QUEUE_BYTES = 2 * 1024 * 1024
_METHODS = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER")
_PATH = re.compile(
    r"(/live/([0-9A-Za-z.-]{1,32})_([0-9A-Za-z.-]{1,32})|/playback/([0-9A-Za-z_-]{1,64}))(?:/track([01]))?/?"
)
_MAX_PENDING = 16
_STATUS = {401: 401, 403: 403, 404: 404, 409: 404, 422: 400, 429: 503, 502: 502, 503: 503, 504: 504}


class RtspConnection(asyncio.Protocol):
    """Made by the listener for each accepted socket. A `Player` of the stream once it plays."""

    def __init__(self, listener: RtspListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = RtspParser()
        self._requests: list[RtspRequest] = []
        self._task: asyncio.Task[None] | None = None
        self.host = ""
        self._port = 0
        self._local = ""
        self._session = ""
        self._path = ""
        self._target: StreamTarget | None = None
        self._grant: Grant | None = None
        self._lease: Lease | None = None
        self._audio = "auto"
        self._stream: RtspStream | None = None
        self._transports: dict[int, Transport] = {}
        """By index of the medium."""
        self._viewer: int | None = None
        self._playing = False
        self._skipping = False
        self._heard_at = self._loop.time()
        self._stuck_since: float | None = None
        self._stuck_bytes = 0
        self._bytes_out = 0
        self._queue_bytes = QUEUE_BYTES

    @property
    def client(self) -> str:
        return f"[{self.host}]:{self._port}" if ":" in self.host else f"{self.host}:{self._port}"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if peer:
            self.host, self._port = peer[0], peer[1]
        self._local = local[0] if local else "0.0.0.0"  # noqa: S104 - only shown
        if not self._listener.admit(self):
            self._write(503, "")
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._heard_at = self._loop.time()
        try:
            # What is interleaved from a client is RTCP: it shows that the client lives, and nothing else is read.
            self._requests += [item for item in self._parser.feed(data) if isinstance(item, RtspRequest)]
        except RtspError as error:
            self._listener.refused += 1
            self._write(error.status, "")
            self._transport.close()
            return
        if len(self._requests) > _MAX_PENDING:
            self._transport.abort()
        elif self._requests and self._task is None:
            self._task = self._listener.own(self._serve())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        self._release("viewer_gone")
        self._listener.forget(self)

    def close(self) -> None:
        """The listener closes."""
        self._release("shutting_down")
        if self._transport is not None:
            self._transport.abort()

    def check(self, now: float) -> None:
        """Called now and then: close what stands still."""
        transport = self._transport
        if transport is None or self._task is not None:
            return
        if not self._playing:
            if now - self._heard_at > SETUP_S:
                transport.abort()
            return
        waiting = transport.get_write_buffer_size()
        if waiting == 0 or waiting < self._stuck_bytes:
            self._stuck_since = None
        if waiting and self._stuck_since is None:
            self._stuck_since, self._stuck_bytes = now, waiting
        over_udp = any(chosen.client_ports is not None for chosen in self._transports.values())
        if self._stuck_since is not None and now - self._stuck_since > STALL_S:
            self._end("slow")
        elif over_udp and now - self._heard_at > SESSION_S * 1.5:
            self._end("silent")

    def heard(self) -> None:
        """An RTCP packet came over UDP."""
        self._heard_at = self._loop.time()

    # requests

    async def _serve(self) -> None:
        """Requests one after the other, in their order."""
        try:
            while self._requests and self._transport is not None:
                request = self._requests.pop(0)
                try:
                    await self._answer(request)
                except GatewayError as error:
                    self._refuse(request, error)
        finally:
            self._task = None

    async def _answer(self, request: RtspRequest) -> None:
        if not request.cseq:
            self._write(400, "")
            return
        if "require" in request.headers:
            self._write(551, request.cseq, [("Unsupported", request.headers["require"][:100])])
            return
        method = request.method
        if method == "OPTIONS":
            self._write(200, request.cseq, [("Public", ", ".join(_METHODS)), *self._session_header()])
        elif method == "DESCRIBE":
            await self._describe(request)
        elif method == "SETUP":
            await self._setup(request)
        elif method not in _METHODS:
            # PAUSE too: a camera does not wait, and a recording is paused by the API, for all who watch.
            self._write(405, request.cseq, [("Allow", ", ".join(_METHODS)), *self._session_header()])
        elif (
            request.headers.get("session", "").partition(";")[0].strip() != self._session or not self._session
        ):
            if method == "GET_PARAMETER" and not request.body and "session" not in request.headers:
                self._write(200, request.cseq)  # a keepalive before there is a session
            else:
                self._write(454, request.cseq)
        elif method == "PLAY":
            self._play(request)
        elif method == "TEARDOWN":
            self._write(200, request.cseq)
            self._release("viewer_gone")
        elif request.body:
            self._write(451, request.cseq, self._session_header())
        else:
            self._write(200, request.cseq, self._session_header())

    async def _describe(self, request: RtspRequest) -> None:
        if self._playing:
            self._write(455, request.cseq, self._session_header())
            return
        control, query, _ = await self._open(request)
        stream = self._stream
        if stream is None:
            return
        body = describe(
            stream.media, name=self._path.strip("/"), address=self._local, control=control, query=query
        )
        headers = [
            ("Content-Base", request.uri),
            ("Content-Type", "application/sdp"),
            ("Cache-Control", "no-store"),
        ]
        self._write(200, request.cseq, headers, body)

    async def _setup(self, request: RtspRequest) -> None:
        if self._playing:
            self._write(455, request.cseq, self._session_header())
            return
        named = request.headers.get("session", "").partition(";")[0].strip()
        if named and named != self._session:
            self._write(454, request.cseq)
            return
        _, _, index = await self._open(request)
        stream = self._stream
        if stream is None:
            return
        if index is None or index >= len(stream.media):
            self._write(404 if index is not None else 459, request.cseq, self._session_header())
            return
        chosen = parse_transport(request.headers.get("transport", ""))
        if chosen is None:
            self._write(461, request.cseq, self._session_header())
            return
        ssrc, _, _ = stream.position(stream.media[index])
        if chosen.interleaved is not None:
            if chosen.interleaved == (-1, -1):
                chosen = Transport(interleaved=(2 * index, 2 * index + 1))
            first, second = chosen.interleaved or (0, 1)
            taken = {
                channel
                for other, transport in self._transports.items()
                if other != index
                for channel in transport.interleaved or ()
            }
            if {first, second} & taken:
                self._write(461, request.cseq, self._session_header())
                return
            told = f"RTP/AVP/TCP;unicast;interleaved={first}-{second};ssrc={ssrc:08X}"
        else:
            try:
                first, second = self._listener.udp.open(self)
            except (OSError, GatewayError):
                self._write(453, request.cseq, self._session_header())
                return
            ports = chosen.client_ports or (0, 0)
            told = f"RTP/AVP;unicast;client_port={ports[0]}-{ports[1]};server_port={first}-{second};ssrc={ssrc:08X}"
        self._transports[index] = chosen
        if not self._session:
            self._session = secrets.token_hex(8)
        self._write(200, request.cseq, [("Transport", told), *self._session_header()])

    def _play(self, request: RtspRequest) -> None:
        stream, lease, target, grant = self._stream, self._lease, self._target, self._grant
        if stream is None or not self._transports or target is None or grant is None:
            self._write(455, request.cseq, self._session_header())
            return
        if self._playing:
            self._write(200, request.cseq, self._session_header())
            return
        if lease is not None:
            viewer = Viewer(client=self.client, kind="rtsp", grant_id=grant.id)
            self._viewer = self._listener.viewers.enter(
                target, viewer, lease, self._dismissed, made_audio=self._audio == "aac"
            )
            self._lease = None  # the table of viewers has it now
        base = request.uri.partition("?")[0].rstrip("/")
        info = []
        for index in sorted(self._transports):
            _, sequence, timestamp = stream.position(stream.media[index])
            info.append(f"url={base}/track{index};seq={sequence};rtptime={timestamp}")
        headers = [("Range", "npt=now-"), ("RTP-Info", ",".join(info)), *self._session_header()]
        self._write(200, request.cseq, headers)
        self._playing = True
        self._skipping = True
        # The kept group is shared, and useless when cut.
        self._queue_bytes = QUEUE_BYTES + stream.kept_bytes
        stream.play(self)

    async def _open(self, request: RtspRequest) -> tuple[str, str, int | None]:
        """Lease the stream of the URL, if this connection has not yet; (control URL, its query, medium).

        Raises GatewayError.
        """
        parts = urlsplit(request.uri)
        found = _PATH.fullmatch(unquote(parts.path))
        if found is None or parts.scheme not in ("rtsp", ""):
            raise GatewayError("gb.route.not_found", "No stream has this URL.")
        path, index = found[1], None if found[5] is None else int(found[5])
        options = parse_options(parts.query.encode("utf-8", "replace"))
        control = f"rtsp://{parts.netloc.rpartition('@')[2]}{path}"
        if self._stream is not None and path == self._path:
            return control, parts.query, index
        if self._session:
            raise GatewayError("gb.route.invalid", "A connection plays one stream.")
        self._release("viewer_gone")
        grant = self._listener.guard.check(path, options.token, _bearer(request), self.host)
        target = StreamTarget(device_id=found[2] or "", channel_id=found[3] or "", stream_id=found[4] or "")
        await self._start(path, target, grant, options)
        return control, parts.query, index

    async def _start(self, path: str, target: StreamTarget, grant: Grant, options: PlayOptions) -> None:
        viewer = Viewer(client=self.client, kind="rtsp", grant_id=grant.id)
        lease = await lease_of(self._listener.source, target, viewer)
        try:
            self._stream = self._listener.join(lease.stream_id, options.audio)
        except BaseException:
            lease.release()
            raise
        self._path, self._target, self._grant, self._lease = path, target, grant, lease
        self._audio = options.audio

    def _session_header(self) -> list[tuple[str, str]]:
        return [("Session", f"{self._session};timeout={SESSION_S}")] if self._session else []

    def _refuse(self, request: RtspRequest, error: GatewayError) -> None:
        self._listener.note_refusal(error, urlsplit(request.uri).path, self.client)
        status = _STATUS.get(error.row.http_status, 500)
        headers = [("X-Reason", error.code), *self._session_header()]
        if status == 401:
            headers.append(("WWW-Authenticate", 'Basic realm="gb28181gw"'))
        self._write(status, request.cseq, headers)

    def _write(
        self, status: int, cseq: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(write_response(status, cseq, headers, body))

    # playing (`rtsp_stream.Player`)

    def send(self, medium: Medium, packets: Sequence[bytes], *, key: bool) -> None:
        """RTP packets of one frame. One that does not keep up skips to the next key frame."""
        chosen = self._transports.get(medium.index)
        if chosen is None or self._transport is None:
            return
        if self._skipping:
            can_begin = key or not self._plays_video
            if not can_begin:
                return
            self._skipping = False
        if chosen.client_ports is not None:
            self._bytes_out += self._listener.udp.send(packets, (self.host, chosen.client_ports[0]))
            return
        if self._transport.get_write_buffer_size() > self._queue_bytes:
            self._skipping = True
            return
        channel = chosen.interleaved[0] if chosen.interleaved is not None else 0
        parts: list[bytes] = []
        for packet in packets:
            parts += (bytes((0x24, channel)) + len(packet).to_bytes(2, "big"), packet)
        data = b"".join(parts)
        self._bytes_out += len(data)
        self._transport.write(data)

    def report(self, medium: Medium, data: bytes) -> None:
        """RTCP of a medium."""
        chosen = self._transports.get(medium.index)
        if chosen is None or self._transport is None:
            return
        if chosen.client_ports is not None:
            self._listener.udp.send_control(data, (self.host, chosen.client_ports[1]))
        elif chosen.interleaved is not None and not self._skipping:
            self._transport.write(bytes((0x24, chosen.interleaved[1])) + len(data).to_bytes(2, "big") + data)

    def ended(self, reason: str) -> None:
        """The stream is over: RTSP 1.0 has no word for it but the end of the connection."""
        self._end(reason)

    @property
    def _plays_video(self) -> bool:
        stream = self._stream
        return stream is not None and any(
            medium.track.kind is TrackKind.VIDEO and medium.index in self._transports
            for medium in stream.media
        )

    # ends

    def _dismissed(self, _reason: str) -> None:
        """The table of viewers ends this one, for a reason of its own or because it was told so here."""
        self._viewer = None
        self._leave_stream()
        if self._transport is not None:
            self._transport.close()

    def _end(self, reason: str) -> None:
        self._release(reason)
        if self._transport is not None:
            if reason == "slow":
                self._transport.abort()
            else:
                self._transport.close()

    def _release(self, reason: str) -> None:
        """Give back what the session holds; the connection may go on with another one."""
        self._leave_stream()
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        viewer, self._viewer = self._viewer, None
        if viewer is not None:
            self._listener.viewers.leave(viewer, reason, self._bytes_out)
        self._listener.udp.close(self)
        self._transports.clear()
        self._session = self._path = ""
        self._bytes_out = 0

    def _leave_stream(self) -> None:
        self._playing = False
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.leave(self)
            self._listener.part(stream)


def _bearer(request: RtspRequest) -> str | None:
    """The header as the guard reads it. The password of Basic is a key: players have no other way to send one."""
    text = request.headers.get("authorization", "")
    scheme, _, rest = text.partition(" ")
    if scheme.lower() != "basic":
        return text or None
    try:
        _, _, password = base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return f"Bearer {password}"
