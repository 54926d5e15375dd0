"""A small upper platform: takes registrations, asks for catalogues, plays and controls channels of lower platforms.

It is to a lower platform what `sim.device` is to the gateway: something to try it against, also one that others made.
It keeps its own tables and shares with the gateway only SIP (`ua`) and the codecs.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from pathlib import Path as FilePath

from gb28181gw.errors import GatewayError
from gb28181gw.gb import mansrtsp
from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.manscdp.catalogue import CatalogItem, read_catalog_notify, read_catalog_response
from gb28181gw.gb.manscdp.commands import COMMANDS, write_command
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.messages import CONTENT_TYPE
from gb28181gw.gb.manscdp.schema import Style, Values, read_values
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.sdp import PAYLOADS_PS_ONLY, Offer, SessionKind, Transport, agree, format_ssrc, parse_sdp
from gb28181gw.sim.options import TalkCodec
from gb28181gw.sim.platform_media import MediaSocket, Recording
from gb28181gw.sim.platform_talk import Conversation
from gb28181gw.sip import digest
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.message import Response
from gb28181gw.sip.path import Path
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import AgentConfig, Target
from gb28181gw.ua.subscriptions import Subscription

_BEIJING = timezone(timedelta(hours=8))
ANSWER_S = 15.0
BODY_BYTES = 1_048_576
USER_AGENT = "gb28181gw-simulator"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformOptions:
    """What `gb28181gw simulate platform` was told."""

    listen: str = "127.0.0.1:5060"
    id: str = "34020000002000000099"
    domain: str = "3402000000"
    password: str = ""
    algorithm: str = "MD5"
    """Of the challenge: MD5 or SHA-256."""
    edition: str = "3.0"
    charset: str = "GB18030"
    expires_s: int = 3600
    redirect: str = ""
    """HOST:PORT that every registration is sent to (302)."""


@dataclass(slots=True, kw_only=True)
class Lower:
    """One registered lower platform or device."""

    id: str
    path: Path
    domain: str
    registrations: int = 0
    keepalives: int = 0
    items: dict[str, CatalogItem] = field(default_factory=dict)
    expected: int | None = None
    """SumNum of the last catalogue answer."""


@dataclass(slots=True, kw_only=True)
class Playing:
    """A call that plays. Owner: `Platform`."""

    channel_id: str
    dialog: Dialog
    recording: Recording
    socket: MediaSocket
    route: str
    """`X-RoutePath` of the answer."""
    file_size: str = ""
    """`a=filesize` of the answer to a download."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The lower platform ended it, or `stop` did."""
    media_status: str = ""
    """NotifyType of a MediaStatus, as 121 at the end of a file."""


class Platform:
    """See the module. `start`, then anything else; `close` at the end."""

    def __init__(self, options: PlatformOptions) -> None:
        host, _, port = options.listen.rpartition(":")
        self.options = options
        self.host, self.port = host, int(port)
        self.lowers: dict[str, Lower] = {}
        self.notified: list[Document] = []
        """Notify bodies that came, newest last; at most 10,000."""
        self.on_event: Callable[[str, dict[str, object]], None] = lambda what, facts: None
        """`on_event(what, facts)` for displays."""
        self.transports = Transports()
        self.agent = UserAgent(
            AgentConfig(
                id=options.id, domain=options.domain, user_agent=USER_AGENT, gb_version=options.edition
            ),
            Endpoint(),
            self.transports,
        )
        self._nonces: set[str] = set()
        self._waiting: dict[int, asyncio.Queue[Document]] = {}
        self._playing: list[Playing] = []
        self._talking: list[Conversation] = []
        self._subscriptions: list[Subscription] = []
        self._sn = secrets.randbelow(1_000_000)
        self._changed = asyncio.Event()

    # -- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen on UDP and TCP. Raises GatewayError."""
        self.agent.use_policy(is_known=lambda path, user: True, is_verified=self._is_registered)
        self.agent.on_request("REGISTER", self._register)
        self.agent.on_request("MESSAGE", self._message)
        self.agent.on_request("NOTIFY", self._message)
        self.port = await self.transports.listen(self.host, self.port)

    async def close(self) -> None:
        """End what plays, and the sockets."""
        for playing in list(self._playing):
            await self.stop(playing)
        for conversation in list(self._talking):
            await self.hang_up(conversation)
        await self.agent.close()
        await self.transports.close()

    def _is_registered(self, path: Path) -> bool:
        return any(lower.path == path for lower in self.lowers.values())

    # -- what lower platforms send -------------------------------------------------------------------------

    def _register(self, incoming: Incoming) -> None:
        if self.options.redirect:
            contact = f"<sip:{self.options.id}@{self.options.redirect}>"
            incoming.respond(302, headers=(("Contact", contact), ("Expires", "3600")))
            return
        credentials = digest.parse_credentials(incoming.request.headers.get("Authorization") or "")
        if (
            credentials is None
            or credentials.nonce not in self._nonces
            or not digest.verify(
                credentials, "REGISTER", self.options.password, algorithm=self.options.algorithm
            )
        ):
            nonce = secrets.token_hex(16)
            self._nonces.add(nonce)
            challenge = digest.Challenge(self.options.domain, nonce, self.options.algorithm)
            status = 401 if credentials is None else 403
            incoming.respond(
                status, headers=(("WWW-Authenticate", challenge.header()),) if status == 401 else ()
            )
            return
        self._nonces.discard(credentials.nonce)
        expires = incoming.request.expires
        expires = self.options.expires_s if expires is None else min(expires, self.options.expires_s)
        incoming.respond(200, headers=(("Expires", str(expires)),))
        user = incoming.from_user
        if not expires:
            self.lowers.pop(user, None)
            self._tell("unregistered", id=user)
            return
        lower = self.lowers.get(user)
        if lower is None:
            lower = self.lowers[user] = Lower(
                id=user, path=incoming.path, domain=incoming.request.from_.uri.host
            )
        lower.path = incoming.path
        lower.registrations += 1
        self.transports.mark_trusted(incoming.path)
        self._tell("registered", id=user, peer=incoming.path.peer, expires_s=expires)

    def _message(self, incoming: Incoming) -> None:
        incoming.respond(200)
        self._take(incoming)

    def _take(self, incoming: Incoming) -> None:
        if not incoming.request.body:
            return
        try:
            document = parse(incoming.request.body, max_bytes=BODY_BYTES)
        except GbError as error:
            self._tell("malformed", detail=str(error))
            return
        lower = self.lowers.get(incoming.from_user)
        if document.cmd_type == "Keepalive":
            if lower is not None:
                lower.keepalives += 1
            return
        if document.root == "Response":
            waiting = self._waiting.get(document.sn or 0)
            if waiting is not None:
                waiting.put_nowait(document)
            return
        if document.cmd_type == "MediaStatus":
            for playing in self._playing:
                if playing.dialog.call_id == incoming.call_id:
                    playing.media_status = document.text("NotifyType")
        if document.cmd_type == "Catalog" and lower is not None:
            for item in read_catalog_notify(document).items:
                known = lower.items.get(item.device_id)
                if known is None and item.name:
                    lower.items[item.device_id] = item
        self.notified.append(document)
        del self.notified[:-10_000]
        self._tell("notified", id=incoming.from_user, cmd=document.cmd_type, device_id=document.device_id)

    # -- asking --------------------------------------------------------------------------------------------

    async def registered(self, lower_id: str = "", timeout_s: float = 60.0) -> Lower:
        """The lower platform, once it registered; without an id the first one. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = self.lowers.get(lower_id) if lower_id else next(iter(self.lowers.values()), None)
                if found is not None:
                    return found
                self._changed.clear()
                await self._changed.wait()

    async def registered_one_of(self, known: set[str]) -> None:
        """Until somebody is registered that is not in `known`."""
        while not self.lowers.keys() - known:
            self._changed.clear()
            await self._changed.wait()

    async def ask(
        self,
        lower: Lower,
        name: str,
        values: Values | None = None,
        *,
        target: str = "",
        timeout_s: float = ANSWER_S,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> dict[str, object]:
        """A query or control of the standard, and the first answer. Raises GatewayError, TimeoutError."""
        sn = self._next_sn()
        queue = self._waiting[sn] = asyncio.Queue()
        try:
            await self._send(lower, name, values or {}, sn, target or lower.id, headers)
            document = await asyncio.wait_for(queue.get(), timeout_s)
            return dict(read_values(document.element, COMMANDS[name].response))
        finally:
            del self._waiting[sn]

    async def tell(
        self,
        lower: Lower,
        name: str,
        values: Values,
        *,
        target: str,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        """A control that has no answer but the 200. Raises GatewayError."""
        return await self._send(lower, name, values, self._next_sn(), target, headers)

    async def catalogue(
        self, lower: Lower, target: str = "", *, idle_s: float = ANSWER_S
    ) -> dict[str, CatalogItem]:
        """Every item; ends when all came or nothing came for `idle_s`. Raises GatewayError."""
        sn = self._next_sn()
        queue = self._waiting[sn] = asyncio.Queue()
        found: dict[str, CatalogItem] = {}
        lower.expected = None
        try:
            await self._send(lower, "Catalog", {}, sn, target or lower.id)
            while lower.expected is None or len(found) < lower.expected:
                answer = read_catalog_response(await asyncio.wait_for(queue.get(), idle_s))
                lower.expected = answer.sum_num
                found.update((item.device_id, item) for item in answer.items)
        except TimeoutError:
            self._tell("catalogue_cut", id=lower.id, received=len(found), expected=lower.expected)
        finally:
            del self._waiting[sn]
        lower.items = found
        return found

    async def subscribe(self, lower: Lower, cmd_type: str, *, expires_s: int = 600) -> Subscription:
        """Subscribe to Catalog, Alarm, MobilePosition or PTZPosition of everything it has. Raises GatewayError."""
        body = self._body(cmd_type, {}, self._next_sn(), lower.id)
        event = f"Catalog;id={self._next_sn()}" if cmd_type == "Catalog" else "presence"
        made = await self.agent.subscriptions.subscribe(
            self._target(lower), event=event, expires_s=expires_s, body=body, content_type=CONTENT_TYPE
        )
        self._subscriptions.append(made)
        return made

    async def _send(
        self,
        lower: Lower,
        name: str,
        values: Values,
        sn: int,
        target: str,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        response = await self.agent.request(
            self._target(lower, target),
            "MESSAGE",
            body=self._body(name, values, sn, target),
            content_type=CONTENT_TYPE,
            headers=headers,
            timeout_s=ANSWER_S,
        )
        if response.status >= 300:
            raise GatewayError(
                "gb.sip.rejected",
                f"{lower.id} answered {response.status} {response.reason} to {name}.",
                sip_status=response.status,
            )
        return response

    def _body(self, name: str, values: Values, sn: int, target: str) -> bytes:
        style = Style(edition=Edition(self.options.edition), zone=_BEIJING, forced=True)
        return write_command(
            COMMANDS[name], sn, target, values, charset=Charset.parse(self.options.charset), style=style
        )

    # -- playing -------------------------------------------------------------------------------------------

    async def play(
        self,
        lower: Lower,
        channel_id: str,
        output: FilePath | None = None,
        *,
        transport: Transport = Transport.UDP,
        span: tuple[int, int] | None = None,
        speed: int = 0,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Playing:
        """INVITE a stream into a file of its payloads. `transport` is seen from our offer. Raises GatewayError.

        `span`: of a recording, Unix seconds; with `speed` it is downloaded, without it played.
        """
        ssrc = (1_200_000_000 if span else 200_000_000) + secrets.randbelow(9_999) + 1
        session = SessionKind.PLAY
        if span is not None:
            session = SessionKind.DOWNLOAD if speed else SessionKind.PLAYBACK
        recording = Recording(output, ssrc)
        socket = MediaSocket(self.host, recording)
        try:
            port = 9
            if transport is Transport.UDP:
                port = await socket.udp()
            elif transport is Transport.TCP_PASSIVE:
                port = await socket.listen()
            offer = Offer(
                user=self.options.id,
                host=lower.path.local_host or self.host,
                port=port,
                ssrc=ssrc,
                transport=transport,
                payloads=PAYLOADS_PS_ONLY,
                session=session,
                uri=f"{channel_id}:0" if span else "",
                start_time=span[0] if span else 0,
                end_time=span[1] if span else 0,
                attributes=(("downloadspeed", str(speed)),) if speed else (),
            )
            answer = await self.agent.invite(
                self._target(lower, channel_id),
                sdp=offer.to_bytes(),
                subject=f"{channel_id}:{format_ssrc(ssrc)},{self.options.id}:0",
                timeout_s=30.0,
                headers=headers,
            )
            answered = parse_sdp(answer.sdp)
            agreed = agree(offer, answered)
            recording.ssrc = agreed.ssrc
        except BaseException:
            await socket.close()
            raise
        playing = Playing(
            channel_id=channel_id,
            dialog=answer.dialog,
            recording=recording,
            socket=socket,
            route=answer.response.headers.get("X-RoutePath") or "",
            file_size=dict((*answered.attributes, *answered.first.attributes)).get("filesize", ""),
        )
        self._playing.append(playing)
        self.agent.watch_dialog(
            answer.dialog, lambda incoming: self._in_dialog(playing, incoming), user=lower.id
        )
        self.agent.ack(answer.dialog)
        if transport is Transport.TCP_ACTIVE:
            try:
                await socket.connect(agreed.host or lower.path.remote_host, agreed.port)
            except OSError as error:
                await self.stop(playing)
                raise GatewayError(
                    "gb.media.tcp_not_connected", f"{agreed.host}:{agreed.port}: {error}."
                ) from error
        self._tell("playing", channel_id=channel_id, ssrc=format_ssrc(recording.ssrc), route=playing.route)
        return playing

    async def steer(self, playing: Playing, action: mansrtsp.Action) -> mansrtsp.MansRtspAnswer | None:
        """One INFO; the MANSRTSP answer, if there is one. Raises GatewayError."""
        response = await self.agent.send_in_dialog(
            playing.dialog,
            "INFO",
            body=mansrtsp.write_request(action, self._next_sn()),
            content_type=mansrtsp.CONTENT_TYPE,
            timeout_s=ANSWER_S,
        )
        if response.status >= 300:
            raise GatewayError(
                "gb.sip.rejected", f"INFO was answered {response.status}.", sip_status=response.status
            )
        answer = mansrtsp.parse(response.body) if response.body else None
        return answer if isinstance(answer, mansrtsp.MansRtspAnswer) else None

    async def stop(self, playing: Playing) -> None:
        """BYE, and close the file. Idempotent."""
        if playing not in self._playing:
            return
        self._playing.remove(playing)
        self.agent.unwatch_dialog(playing.dialog)
        try:
            if not playing.ended.is_set():
                await self.agent.send_in_dialog(playing.dialog, "BYE", timeout_s=4.0)
        except GatewayError as error:
            self._tell("bye_unanswered", channel_id=playing.channel_id, detail=error.detail)
        finally:
            playing.ended.set()
            await playing.socket.close()

    def _in_dialog(self, playing: Playing, incoming: Incoming) -> None:
        incoming.respond(200)
        if incoming.method == "BYE":
            playing.ended.set()
            self._tell("ended", channel_id=playing.channel_id)
        else:
            self._take(incoming)

    # -- talking -------------------------------------------------------------------------------------------

    async def talk(
        self,
        lower: Lower,
        channel_id: str,
        *,
        transport: Transport = Transport.UDP,
        codec: TalkCodec = "pcma",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Conversation:
        """INVITE with s=Talk: a tone of 440 Hz goes down, what comes back is in the ear. Raises GatewayError."""
        ssrc = 200_000_000 + secrets.randbelow(9_999) + 1
        made = Conversation(channel_id, codec)
        try:
            offer = await made.offer(
                user=self.options.id,
                host=lower.path.local_host or self.host,
                ssrc=ssrc,
                transport=transport,
            )
            answer = await self.agent.invite(
                self._target(lower, channel_id),
                sdp=offer.to_bytes(),
                subject=f"{channel_id}:{format_ssrc(ssrc)},{self.options.id}:0",
                timeout_s=30.0,
                headers=headers,
            )
            agreed = agree(offer, parse_sdp(answer.sdp))
        except BaseException:
            made.close()
            raise
        made.dialog = answer.dialog
        self._talking.append(made)
        self.agent.watch_dialog(answer.dialog, lambda incoming: self._in_talk(made, incoming), user=lower.id)
        self.agent.ack(answer.dialog)
        made.begin(transport, agreed.host or lower.path.remote_host, agreed.port, agreed.ssrc)
        self._tell("talking", channel_id=channel_id, ssrc=format_ssrc(agreed.ssrc))
        return made

    async def hang_up(self, conversation: Conversation) -> None:
        """BYE. Idempotent."""
        if conversation not in self._talking or conversation.dialog is None:
            return
        self._talking.remove(conversation)
        self.agent.unwatch_dialog(conversation.dialog)
        ended = conversation.ended.is_set()
        conversation.close()
        try:
            if not ended:
                await self.agent.send_in_dialog(conversation.dialog, "BYE", timeout_s=4.0)
        except GatewayError as error:
            self._tell("bye_unanswered", channel_id=conversation.channel_id, detail=error.detail)

    def _in_talk(self, conversation: Conversation, incoming: Incoming) -> None:
        incoming.respond(200)
        if incoming.method == "BYE":
            conversation.close()
            self._tell("ended", channel_id=conversation.channel_id)

    # -- small things --------------------------------------------------------------------------------------

    def _target(self, lower: Lower, user: str = "") -> Target:
        return Target(path=lower.path, user=user or lower.id, domain=lower.domain)

    def _next_sn(self) -> int:
        self._sn += 1
        return self._sn

    def _tell(self, what: str, **facts: object) -> None:
        self._changed.set()
        self.on_event(what, facts)


__all__ = ["Lower", "Platform", "PlatformOptions", "Playing"]
