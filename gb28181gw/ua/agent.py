"""SIP as awaitables: requests of ours, requests of peers, calls. The one face of this package.

Everything happens in the event loop's thread. A handler runs in the turn of its datagram and may answer there (the
fast path of keepalives) or later. Inside: `shell` joins endpoint, sockets and timer; `exchanges` waits for the one
answer of a request; `calls` is the life of our INVITEs, `subscriptions` that of our SUBSCRIBEs; `server` decides who
gets what peers send; `compose` knows how our messages look.

Challenges (401, 407) are answers like any other here: there is no code that could send credentials to a device
(S-07). One agent serves any number of identities: `from_user` of `request`, To of an incoming request, and several
UDP sockets in one `Transports` are what a simulator of thousands of devices needs.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence

from gb28181gw.clock import Clock, SystemClock
from gb28181gw.errors import GatewayError
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.events import (
    AckReceived,
    CancelReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    TimedOut,
    TransactionTerminated,
    TransportFailed,
)
from gb28181gw.sip.exceptions import LocalProtocolError, SipError, SipParseError
from gb28181gw.sip.message import Message, Request, Response
from gb28181gw.sip.path import Path
from gb28181gw.sip.validate import drop_reason
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.calls import Calls
from gb28181gw.ua.compose import ALLOW, Composer, user_of
from gb28181gw.ua.exchanges import Exchanges
from gb28181gw.ua.models import AgentConfig, AgentCounters, Answer, Platforms, Target
from gb28181gw.ua.passage import headers_for
from gb28181gw.ua.refusals import RefusalLimits, Refusals
from gb28181gw.ua.server import Handler, Server
from gb28181gw.ua.shell import Shell, Trace
from gb28181gw.ua.subscriptions import Subscriptions


def _nobody_verified(path: Path) -> bool:
    return False


def _nobody_known(path: Path, user: str) -> bool:
    return False


class UserAgent:
    """The one user of an endpoint and its transports; owner of everything that waits for a message."""

    def __init__(
        self,
        config: AgentConfig,
        endpoint: Endpoint,
        transports: Transports,
        clock: Clock | None = None,
        *,
        refusal_limits: RefusalLimits | None = None,
    ) -> None:
        self.config = config
        self.endpoint = endpoint
        self.transports = transports
        self.counters = AgentCounters()
        self.refusals = Refusals(refusal_limits if refusal_limits is not None else RefusalLimits())
        self.on_received: Trace | None = None
        """SIP trace of what comes; direction is ``in``. Not called while None. See `on_sent`."""
        self.on_path_closed: Callable[[Path], None] | None = None
        """A TCP connection ended."""
        self._is_verified: Callable[[Path], bool] = _nobody_verified
        self._policy: tuple[Callable[[Path, str], bool], Callable[[Path], bool]] = (
            _nobody_known,
            _nobody_verified,
        )
        self._platforms: Platforms | None = None
        self._shell = Shell(endpoint, transports, clock if clock is not None else SystemClock())
        self._shell.on_event = self._on_event
        self._composer = Composer(config)
        self._server = Server(config, self._shell, self._composer, self.counters, self.refusals)
        self._exchanges = Exchanges(self._shell, self._composer)
        self.subscriptions = Subscriptions(self._composer, self._exchanges)
        """Subscriptions of ours at peers."""
        self._calls = Calls(self._shell, self._composer, self.counters, self._server.supervise)
        transports.attach(self)

    # ---- what those above set

    def use_policy(
        self, *, is_known: Callable[[Path, str], bool], is_verified: Callable[[Path], bool]
    ) -> None:
        """Say who has proved itself. Without a policy nobody has.

        `is_known`: does this path belong to that user by a verified REGISTER, or to a configured platform? Such a
        peer gets answers to what we do not serve. `is_verified`: is this path bound to anybody? It is asked for
        every message, so it should be one look-up; such a path passes the refusal bucket of its host (many devices
        behind one carrier NAT) and the caps of unverified transactions.
        """
        self._policy = (is_known, is_verified)
        self._apply_policy()

    def use_platforms(self, platforms: Platforms) -> None:
        """Join the platforms that we are registered at: their paths are known and verified beside those of
        `use_policy`, and their requests outside dialogs are offered to `platforms.claim` before the handlers."""
        self._platforms = platforms
        self._server.claim = platforms.claim
        self._apply_policy()

    def _apply_policy(self) -> None:
        is_known, is_verified = self._policy
        platforms = self._platforms
        if platforms is None:
            self._server.is_known = is_known
            self._is_verified = self.endpoint.is_verified = is_verified
            return
        is_platform = platforms.is_bound
        self._server.is_known = lambda path, user: is_known(path, user) or is_platform(path)
        self._is_verified = self.endpoint.is_verified = lambda path: is_verified(path) or is_platform(path)

    @property
    def on_sent(self) -> Trace | None:
        """SIP trace of what leaves; direction is ``out``. Not called while None."""
        return self._shell.on_sent

    @on_sent.setter
    def on_sent(self, trace: Trace | None) -> None:
        self._shell.on_sent = trace

    @property
    def on_malformed_message(self) -> Callable[[Path, str], None] | None:
        """A message was refused for its form: path and reason."""
        return self._server.on_malformed_message

    @on_malformed_message.setter
    def on_malformed_message(self, report: Callable[[Path, str], None] | None) -> None:
        self._server.on_malformed_message = report

    @property
    def on_handler_error(self) -> Callable[[Path, str, Exception], None] | None:
        """A handler raised: path, method, exception."""
        return self._server.on_handler_error

    @on_handler_error.setter
    def on_handler_error(self, report: Callable[[Path, str, Exception], None] | None) -> None:
        self._server.on_handler_error = report

    # ---- requests of peers

    def on_request(self, method: str, handler: Handler) -> None:
        """Give all requests of this method, outside watched dialogs, to `handler`. One handler per method.

        A handler without state of its own for a peer decides itself what strangers get: `Incoming.ignore` is
        silence, and `refused` counts it.
        """
        self._server.handle(method, handler)

    def watch_dialog(self, dialog: Dialog, handler: Handler, *, user: str = "") -> None:
        """Give requests of the far end within this dialog to `handler`.

        `user`: the registered user (device) that the far end is or is a channel of; empty: whoever From names.
        """
        self._server.watch(dialog, handler, user)

    def unwatch_dialog(self, dialog: Dialog) -> None:
        """Stop watching; what still comes gets 481, or its method's handler. Idempotent."""
        self._server.unwatch(dialog)

    def refused(self, path: Path) -> None:
        """Count a refused message (wrong digest, foreign domain, ...) against its source (S-20)."""
        self._server.count_refused(path)

    # ---- requests of ours

    async def request(
        self,
        target: Target,
        method: str,
        *,
        body: bytes = b"",
        content_type: str = "",
        headers: Sequence[tuple[str, str]] = (),
        timeout_s: float | None = None,
        from_user: str = "",
        from_domain: str = "",
        request_uri: str = "",
        call_id: str = "",
        cseq: int = 1,
        from_tag: str = "",
        gb_version: str | None = None,
    ) -> Response:
        """Send a request outside dialogs and wait for its final response, whatever its status.

        Raises `GatewayError`: gb.sip.no_answer after `timeout_s` (None: Timer F, 32 s), gb.sip.path_lost when it
        could not be sent. `from_user` to `gb_version` (None: that of the configuration) are for registrations,
        which keep their Call-ID and count CSeq up (`ua.registration`), and for simulated identities. INVITE has a
        method of its own.
        """
        _check_method(method)
        self._ensure_open()
        request = self._composer.outside(
            target,
            method,
            body=body,
            content_type=content_type,
            headers=headers,
            from_user=from_user,
            from_domain=from_domain,
            request_uri=request_uri,
            call_id=call_id,
            cseq=cseq,
            from_tag=from_tag,
            gb_version=gb_version,
        )
        return await self._exchanges.run(request, target.path, timeout_s)

    async def send_in_dialog(
        self,
        dialog: Dialog,
        method: str,
        *,
        body: bytes = b"",
        content_type: str = "",
        headers: Sequence[tuple[str, str]] = (),
        path: Path | None = None,
        timeout_s: float | None = None,
        platform: bool = False,
    ) -> Response:
        """BYE, INFO, MESSAGE, NOTIFY or SUBSCRIBE within a dialog; waits for the final response. Raises as `request`.

        `path`: where the peer is now, by default where the dialog knows it. `platform`: the peer is one, as in
        `Target`: an INFO tells it whose it is.
        """
        _check_method(method)
        self._ensure_open()
        where = path if path is not None else dialog.path
        request = dialog.request(method, body)
        if method == "INFO":
            headers = (*headers, *headers_for(method, self.config.id, platform=platform))
        self._composer.complete(request, where, user_of(dialog.local_uri), content_type, headers)
        return await self._exchanges.run(request, where, timeout_s)

    async def invite(
        self,
        target: Target,
        *,
        sdp: bytes,
        subject: str,
        timeout_s: float = 10.0,
        headers: Sequence[tuple[str, str]] = (),
        on_provisional: Callable[[Response], None] | None = None,
        from_user: str = "",
        from_domain: str = "",
    ) -> Answer:
        """Call somebody. The answer is not acknowledged yet: store its dialog, then `ack` it.

        Raises `GatewayError`: gb.sip.rejected with `sip_status` for 300-699; gb.sip.no_answer after `timeout_s`,
        which provisional responses do not extend; gb.sip.path_lost. When it gives up, by time or because the task
        was cancelled, CANCEL is sent, and a 2xx that comes all the same is acknowledged and ended by BYE.
        """
        self._ensure_open()
        request = self._composer.outside(
            target,
            "INVITE",
            body=sdp,
            content_type="application/sdp" if sdp else "",
            headers=(("Subject", subject), ("Allow", ALLOW), *headers),
            from_user=from_user,
            from_domain=from_domain,
        )
        return await self._calls.invite(
            request, target.path, timeout_s=timeout_s, on_provisional=on_provisional
        )

    def ack(self, dialog: Dialog) -> None:
        """Acknowledge the 2xx of our INVITE, to the transport address of the peer (INV-16).

        Repeated 2xx are answered with the same ACK from now on, as long as the peer may repeat them (64*T1).
        """
        self._calls.ack(dialog)

    async def close(self) -> None:
        """End what waits with gb.route.shutting_down and stop the timer. The transports are their owner's to close."""
        self._shell.close()
        self._exchanges.close()
        self._calls.close()
        # Those who waited run once more before their loop ends.
        await asyncio.sleep(0)

    # ---- transport.receiver.Receiver

    def admit(self, path: Path) -> bool:
        """See `transport.receiver.Receiver`."""
        return self.refusals.admits(path.remote_host, self._shell.now()) or self._is_verified(path)

    def on_message(self, message: Message, path: Path, data: bytes) -> None:
        """See `transport.receiver.Receiver`."""
        if self.on_received is not None:
            self.on_received("in", path, data or _rewritten(message))
        if isinstance(message, Response) and drop_reason(message) is not None:
            self.counters.responses_dropped += 1
            return
        self._server.arriving_bytes = len(data)
        try:
            self.endpoint.receive(message, path, self._shell.now())
        except SipParseError as error:
            if isinstance(message, Request) and error.message is None:
                error.message = message
            self.on_malformed(error, path, data)
            return
        self._shell.pump()

    def on_malformed(self, error: SipParseError, path: Path, data: bytes) -> None:
        """See `transport.receiver.Receiver`."""
        self._server.on_malformed(error, path, len(data))

    def on_closed(self, path: Path) -> None:
        """See `transport.receiver.Receiver`."""
        self.endpoint.path_failed(path, self._shell.now())
        self._shell.pump()
        if self.on_path_closed is not None:
            self._server.supervise(functools.partial(self.on_path_closed, path), path, "connection")

    def gauges(self) -> dict[str, int]:
        """What waits at this moment; all 0 when nothing does (I2)."""
        return {"exchanges": len(self._exchanges), "calls": len(self._calls), "invited": len(self._server)}

    # ---- events

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._server.on_request(event)
        elif isinstance(event, ResponseReceived):
            if not self._exchanges.on_response(event):
                self._calls.on_response(event)
        elif isinstance(event, TimedOut):
            transaction_id = event.transaction_id
            if not (self._exchanges.on_timed_out(transaction_id) or self._calls.on_timed_out(transaction_id)):
                self._server.on_timed_out(transaction_id)
        elif isinstance(event, TransportFailed):
            if not self._exchanges.on_transport_failed(event.transaction_id):
                self._calls.on_transport_failed(event.transaction_id)
        elif isinstance(event, AckReceived):
            self._server.on_ack(event)
        elif isinstance(event, CancelReceived):
            self._server.on_cancel(event)
        elif isinstance(event, TransactionTerminated):
            self._calls.on_terminated(event.transaction_id)
            self._server.on_terminated(event.transaction_id)

    def _ensure_open(self) -> None:
        if self._shell.closed:
            raise GatewayError("gb.route.shutting_down")


def _check_method(method: str) -> None:
    if method in ("INVITE", "ACK", "CANCEL"):
        raise LocalProtocolError(f"{method} has a life of its own: see UserAgent.invite and ack")


def _rewritten(message: Message) -> bytes:
    """A message of a stream for the trace: its octets were cut out by the parser."""
    try:
        return message.to_bytes()
    except SipError:
        return b""
