"""One connection of the media listener: HTTP/1.1 requests in, answers out, or the socket given away.

Order of a request: limits, then method, then who asks (`PlayGuard`), then what is asked; nothing is started
for somebody who may not see it (invariant I6). HEAD answers without starting a stream. A GET of a stream
leases it, sends the head and hands a duplicate of the descriptor to the engine; this connection then ends.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import httptools

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import SocketSinkSpec
from gb28181gw.media.tracks import Codec, TrackKind
from gb28181gw.outputs import http
from gb28181gw.outputs.hls_playlist import PLAYLIST_TYPE
from gb28181gw.outputs.routes import (
    HlsTarget,
    PlayOptions,
    PlayTarget,
    WhepTarget,
    WhipTarget,
    decode_path,
    is_play_path,
    parse_hls,
    parse_options,
    parse_target,
    parse_webrtc,
)
from gb28181gw.outputs.source import Grant, Lease, Viewer
from gb28181gw.outputs.uploads import PREFIX as UPLOAD_PREFIX
from gb28181gw.outputs.uploads import Upload
from gb28181gw.outputs.viewers import lease_of
from gb28181gw.outputs.webrtc_host import FRAGMENT_TYPE, SDP_TYPE
from gb28181gw.outputs.webrtc_sdp import MAX_OFFER

if TYPE_CHECKING:
    from gb28181gw.outputs.listener import MediaListener

logger = logging.getLogger(__name__)

MAX_HEAD = 8 * 1024
HEAD_S = 10.0
"""A request's head must be complete within so long of its first byte, or of the connection."""
IDLE_S = 30.0
"""An answered connection is kept for so long."""
UPLOAD_S = 60.0
"""An uploaded picture must have arrived within so long."""
_MAX_EARLY = 4 * 1024
"""What a client may send behind a WebSocket request before it is answered."""
_PROBLEM_TYPE = "application/problem+json"
_VIDEO = frozenset({Codec.H264, Codec.H265})
"""What the containers carry."""
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_METHODS = ("GET", "HEAD", "OPTIONS")
_WEBRTC_METHODS = "POST, PATCH, DELETE, OPTIONS"


class MediaConnection(asyncio.Protocol):
    """Made by the listener for each accepted socket."""

    def __init__(self, listener: MediaListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = bytearray()
        self._upload: Upload | None = None
        self._offer = bytearray()
        """The body of a WHEP or WHIP request."""
        self._local_host = ""
        self._tail = b""
        self._stalled = False
        """More waits to be sent than a client that reads leaves there."""
        self._not_taken: Callable[[], None] | None = None
        """Of the last answer of HLS."""
        self.host = ""
        self._port = 0
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._has_body = False
        self._offer = bytearray()
        self._webrtc: WhepTarget | WhipTarget | None = None
        self._in_head = True
        self._cors: list[http.Header] = []

    @property
    def client(self) -> str:
        return f"[{self.host}]:{self._port}" if ":" in self.host else f"{self.host}:{self._port}"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if peer:
            self.host, self._port = peer[0], peer[1]
        local = transport.get_extra_info("sockname")
        self._local_host = str(local[0]) if local else ""
        if not self._listener.admit(self, transport.get_extra_info("socket").fileno()):
            self._refuse(GatewayError("gb.route.rate_limited", "Too many connections are open."))
            return
        self._set_timer(HEAD_S)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._task is not None:
            self._keep_early(data)
            return
        if self._in_head:
            self._head_bytes += self._head_part(data)
            if self._head_bytes > MAX_HEAD:
                self._refuse(None, 431)
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._keep_early(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            # Ours, not the client's: it costs this connection and nothing else.
            logger.exception("a request of the media listener failed")
            self._refuse(GatewayError("gb.route.internal"))
        except httptools.HttpParserError:
            self._refuse(None, 400)

    def _head_part(self, data: bytes) -> int:
        """How much of `data` is head: an uploaded picture may come in one piece with it."""
        joined = self._tail + data
        end = joined.find(b"\r\n\r\n")
        size = len(data) if end < 0 else max(0, end + 4 - len(self._tail))
        self._tail = joined[-3:] if end < 0 else b""
        return size

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        elif self._upload is not None:
            self._upload.close()
        self._listener.forget(self)

    def pause_writing(self) -> None:
        """The client takes nothing: no more requests of it until it does, and it has not for ever."""
        if self._transport is not None:
            self._stalled = True
            self._transport.pause_reading()
            self._set_timer(self._listener.config.stall_s)

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._stalled = False
            self._transport.resume_reading()
            self._set_timer(IDLE_S)

    def close(self) -> None:
        """The listener closes."""
        if self._transport is not None:
            self._transport.abort()

    # httptools

    def on_message_begin(self) -> None:
        taken = self._head_bytes
        self._reset()
        self._head_bytes = taken
        self._set_timer(HEAD_S)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip()
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._has_body = (
            self._headers.get("content-length", "0").strip() not in ("", "0")
            or "transfer-encoding" in self._headers
        )
        if self._has_body:
            self._begin_body()

    def on_body(self, data: bytes) -> None:
        if self._upload is not None:
            self._upload.feed(data)
            if not self._upload.fits:
                self._refuse(None, 413)
        elif self._webrtc is not None:
            self._offer += data
            if len(self._offer) > MAX_OFFER:
                self._refuse(None, 413)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._in_head = True
        if self._transport is None or self._transport.is_closing() or self._task is not None:
            return
        if self._upload is not None:
            self._set_timer(None)
            self._task = self._listener.own(self._take_upload(self._upload))
            return
        self._dispatch()

    # uploads

    def _begin_body(self) -> None:
        """Only a device that was asked for a picture may send a body, and who offers WebRTC a small one."""
        taker = self._listener.uploads
        method = self._parser.get_method()
        path = self._url.partition(b"?")[0].decode("latin-1")
        self._webrtc = parse_webrtc(decode_path(self._url.partition(b"?")[0]))
        if self._webrtc is not None and method in (b"POST", b"PATCH"):
            self._head_bytes = 0  # the time limit of the head is that of its body too
            return
        if taker is None or not path.startswith(UPLOAD_PREFIX) or method not in (b"PUT", b"POST"):
            self._refuse(None, 413)
            return
        length = self._headers.get("content-length", "0")
        announced = int(length) if length.isascii() and length.isdecimal() and len(length) < 12 else 0
        try:
            upload = Upload(taker, path, self._headers.get("content-type", ""), announced, self.client)
        except GatewayError as error:
            self._refuse(error)
            return
        self._upload = upload
        if not upload.fits:
            self._refuse(None, 413)
            return
        self._head_bytes = 0
        self._set_timer(UPLOAD_S)
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _take_upload(self, upload: Upload) -> None:
        try:
            await upload.finish()
        except GatewayError as error:
            self._task = None
            self._answer(
                error.row.http_status, [], http.problem(error), content_type=_PROBLEM_TYPE, close=True
            )
        else:
            self._task = None
            self._answer(200, [], close=True)
        finally:
            self._upload = None
            upload.close()

    # requests

    def _dispatch(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        origin, host = self._headers.get("origin", ""), self._headers.get("host", "")
        self._cors = self._listener.cors.headers(origin, host)
        webrtc = parse_webrtc(decode_path(self._url.partition(b"?")[0]))
        if webrtc is not None:
            self._dispatch_webrtc(webrtc, method, origin, host)
            return
        if method not in _METHODS:
            self._answer(405, [("Allow", ", ".join(_METHODS)), *self._cors])
            return
        if method == "OPTIONS":
            self._answer(204, self._listener.cors.preflight(origin, host))
            return
        path = ""
        try:
            try:
                url = httptools.parse_url(self._url)
            except httptools.HttpParserInvalidURLError:
                raise GatewayError("gb.route.not_found", "The path cannot be read.") from None
            path = decode_path(url.path or b"/")
            if not is_play_path(path):
                raise GatewayError("gb.route.not_found", "The media listener serves /live/ and /playback/.")
            options = parse_options(url.query or b"")
            hls = parse_hls(path)
            grant = self._grant(path, options, hls)
            if hls is not None:
                self._begin_hls(hls, options, grant, path, head_only=method == "HEAD")
                return
            target = parse_target(path)
            if method == "HEAD":
                self._answer(200, self._cors, content_type=target.form.content_type, head_only=True)
                return
            accept = self._websocket_accept()
        except GatewayError as error:
            self._refuse_view(error, path, head_only=method == "HEAD")
            return
        if accept == "":
            return
        kind = target.form.kind(websocket=accept is not None)
        viewer = Viewer(client=self.client, kind=kind, grant_id=grant.id)
        self._set_timer(None)
        self._task = self._listener.own(self._play(target, options, viewer, accept, path))

    def _grant(self, path: str, options: PlayOptions, hls: HlsTarget | None) -> Grant:
        """Raises GatewayError. A session of HLS goes on when the token that opened it has expired."""
        guard = self._listener.guard
        if hls is not None and options.token:
            stream = hls.path
            grant = guard.check_open(
                path, options.token, lambda grant_id: self._listener.hls.is_open(stream, grant_id)
            )
            if grant is not None:
                return grant
        return guard.check(path, options.token, self._headers.get("authorization"), self.host)

    def _begin_hls(
        self, target: HlsTarget, options: PlayOptions, grant: Grant, path: str, *, head_only: bool
    ) -> None:
        if head_only:
            self._answer(200, self._cors, content_type=PLAYLIST_TYPE, head_only=True)
            return
        viewer = Viewer(client=self.client, kind="hls", grant_id=grant.id)
        self._set_timer(None)
        self._task = self._listener.own(self._serve_hls(target, options, grant, viewer, path))

    async def _serve_hls(
        self, target: HlsTarget, options: PlayOptions, grant: Grant, viewer: Viewer, path: str
    ) -> None:
        """Answer one request; the connection stays for the next one, which may have come meanwhile."""
        try:
            answer = await self._listener.hls.answer(target, options, grant, viewer)
        except GatewayError as error:
            self._task = None
            self._refuse_view(error, path)
        else:
            self._task = None
            self._not_taken = answer.not_taken
            self._answer(200, self._cors, answer.body, content_type=answer.content_type)
        early, self._early = bytes(self._early), bytearray()
        if early:
            self.data_received(early)

    # WebRTC (draft-ietf-wish-whep, RFC 9725)

    def _dispatch_webrtc(self, target: WhepTarget | WhipTarget, method: str, origin: str, host: str) -> None:
        """A session's name is as good as its token: 144 random bits that only its maker was told."""
        if method == "OPTIONS":
            allowed = self._listener.cors.preflight(
                origin, host, methods=_WEBRTC_METHODS, request_headers="Authorization, Content-Type, If-Match"
            )
            self._answer(204, [("Accept-Post", SDP_TYPE), *allowed])
            return
        if len(self._cors) > 1:
            self._cors.append(("Access-Control-Expose-Headers", "Location, ETag"))
        if method not in (("PATCH", "DELETE") if target.session else ("POST",)):
            self._answer(405, [("Allow", _WEBRTC_METHODS), *self._cors])
            return
        expected = {"POST": SDP_TYPE, "PATCH": FRAGMENT_TYPE, "DELETE": ""}[method]
        if expected and self._headers.get("content-type", "").partition(";")[0].strip().lower() != expected:
            self._answer(415, [(f"Accept-{method.capitalize()}", expected), *self._cors])
            return
        try:
            if method == "DELETE":
                if isinstance(target, WhipTarget):
                    self._listener.whip.delete(target)
                else:
                    self._listener.webrtc.delete(target)
                self._answer(200, self._cors)
                return
            options = parse_options(self._url.partition(b"?")[2])
            grant = None if target.session else self._grant(target.path, options, None)
        except GatewayError as error:
            self._refuse_view(error, target.path)
            return
        self._set_timer(None)
        self._task = self._listener.own(self._serve_webrtc(target, options, grant, bytes(self._offer)))

    async def _serve_webrtc(
        self, target: WhepTarget | WhipTarget, options: PlayOptions, grant: Grant | None, body: bytes
    ) -> None:
        """Answer an offer, or a trickle update when `grant` is None; the connection stays for the next request."""
        try:
            if grant is None:
                etag = self._headers.get("if-match")
                if isinstance(target, WhipTarget):
                    await self._listener.whip.trickle(target, etag, body)
                else:
                    await self._listener.webrtc.trickle(target, etag, body)
                self._task = None
                self._answer(204, self._cors)
            else:
                if isinstance(target, WhipTarget):
                    made = await self._listener.whip.offer(target, grant, self.client, body, self._local_host)
                else:
                    viewer = Viewer(client=self.client, kind="webrtc", grant_id=grant.id)
                    made = await self._listener.webrtc.offer(
                        target, options, grant, viewer, body, self._local_host
                    )
                self._task = None
                fields = [("Location", made.location), ("ETag", made.etag), *self._cors]
                self._answer(201, fields, made.body, content_type=SDP_TYPE)
        except GatewayError as error:
            self._task = None
            self._refuse_view(error, target.path)
        early, self._early = bytes(self._early), bytearray()
        if early:
            self.data_received(early)

    def _websocket_accept(self) -> str | None:
        """The handshake's answer; None for plain HTTP; empty when the handshake was refused."""
        if self._headers.get("upgrade", "").lower() != "websocket":
            return None
        if self._headers.get("sec-websocket-version") != "13":
            self._answer(426, [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")], close=True)
            return ""
        accept = http.websocket_accept(self._headers.get("sec-websocket-key", ""))
        if accept is None:
            self._refuse(None, 400)
            return ""
        return accept

    async def _play(
        self, target: PlayTarget, options: PlayOptions, viewer: Viewer, accept: str | None, path: str
    ) -> None:
        """Lease the stream and give the socket away. Ends with the connection, whichever comes first."""
        source = self._listener.source
        lease: Lease | None = None
        try:
            lease = await lease_of(source, target, viewer)
            self._hand_over(lease, target, options, viewer, accept)
            lease = None
        except GatewayError as error:
            self._task = None
            self._refuse_view(error, path)
        except OSError as error:
            # No descriptor to duplicate, or the peer has gone.
            self._task = None
            code = "gb.route.rate_limited" if error.errno in _NO_DESCRIPTOR else "gb.route.internal"
            self._refuse_view(GatewayError(code, f"The socket cannot be used: {error}."), path)
        finally:
            if lease is not None:
                lease.release()

    def _hand_over(
        self,
        lease: Lease,
        target: PlayTarget,
        options: PlayOptions,
        viewer: Viewer,
        accept: str | None,
    ) -> None:
        """Raises GatewayError or OSError before anything was sent; the lease is then still the caller's."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            raise ConnectionResetError("the consumer has gone")
        if self._listener.viewers.on_stream(lease.stream_id) >= self._listener.viewers.per_stream:
            raise GatewayError("gb.output.too_many_viewers")
        form = target.form
        for track in self._listener.engine.tracks(lease.stream_id):
            if track.kind is TrackKind.VIDEO and track.codec not in _VIDEO:
                raise GatewayError(
                    "gb.codec.codec_unsupported", f"{form.label} does not carry {track.codec.value} video."
                )
        transport.pause_reading()
        chunked = self._parser.get_http_version() != "1.0"
        if accept is not None:
            head = http.websocket_head(accept)
        else:
            head = http.stream_head(form.content_type, self._cors, chunked=chunked)
        spec = SocketSinkSpec(
            container=form.over_http if accept is None else form.over_websocket,
            audio=form.auto_audio if options.audio == "auto" else options.audio,
            hevc=options.hevc,
            chunked=chunked,
            received=bytes(self._early),
            queue_bytes=self._listener.config.queue_bytes,
            stall_s=self._listener.config.stall_s,
            merge_s=self._listener.config.merge_s,
        )
        duplicate = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        try:
            duplicate.setblocking(False)
            with suppress(OSError):
                duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The kernel's buffer of an idle connection takes a head at once; one that does not is not idle.
            if duplicate.send(head) != len(head):
                raise ConnectionResetError("the consumer does not read")
            self._listener.viewers.admit(duplicate.fileno(), spec, target, viewer, lease)
        except BaseException:
            duplicate.close()
            transport.abort()
            raise
        duplicate.detach()
        transport.abort()

    # answers

    def _answer(
        self,
        status: int,
        headers: list[http.Header],
        body: bytes = b"",
        *,
        content_type: str = "",
        head_only: bool = False,
        close: bool = False,
    ) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        keep_alive = self._parser.should_keep_alive() and not close and not self._parser.should_upgrade()
        self._transport.write(
            http.answer(
                status, headers, body, content_type=content_type, keep_alive=keep_alive, head_only=head_only
            )
        )
        if not self._stalled:
            self._set_timer(IDLE_S)
        if not keep_alive:
            self._transport.close()

    def _refuse(self, error: GatewayError | None, status: int = 400) -> None:
        """Answer and close, for requests that cannot be read to their end."""
        if self._transport is None or self._transport.is_closing():
            return
        self._listener.refused += 1
        if error is not None:
            status = error.row.http_status
            body, content_type = http.problem(error), _PROBLEM_TYPE
        else:
            body, content_type = b"", ""
        self._transport.write(http.answer(status, (), body, content_type=content_type, keep_alive=False))
        self._set_timer(IDLE_S)
        self._transport.close()

    def _refuse_view(self, error: GatewayError, path: str, *, head_only: bool = False) -> None:
        self._listener.note_refusal(error, path, self.client)
        headers = list(self._cors)
        if error.row.http_status == 401:
            headers.append(("WWW-Authenticate", "Bearer"))
        self._answer(
            error.row.http_status,
            headers,
            http.problem(error),
            content_type=_PROBLEM_TYPE,
            head_only=head_only,
        )

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > _MAX_EARLY and self._transport is not None:
            self._transport.abort()

    def _set_timer(self, after_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if after_s is None else self._loop.call_later(after_s, self._time_out)

    def _time_out(self) -> None:
        if self._transport is None:
            return
        if self._stalled or self._transport.is_closing():
            if self._not_taken is not None:
                self._not_taken()
            self._transport.abort()
        elif self._head_bytes:
            self._refuse(None, 408)
        else:
            self._transport.close()
