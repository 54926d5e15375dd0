"""SIP as awaitables: requests of ours, requests of peers, calls.

Theory of operation. Everything happens in the event loop's thread. After every stimulus (a message, a timer, a call
from above) `_pump` takes the endpoint's events and hands each to whoever waits for it, sends what is to be sent, and
arms one timer. A handler runs in the turn of its datagram and may answer there (the fast path of keepalives) or later.

Who gets a request, in this order:

1. a dialog that is watched (Call-ID, both tags, and a path of its peer, see `_is_peer`);
2. the handler of its method;
3. OPTIONS: the agent itself, for known peers;
4. otherwise a known peer gets 481 or 405, and nobody else gets anything (S-11, S-20).

Challenges (401, 407) are answers like any other here: there is no code that could send credentials to a device
(S-07). One agent serves any number of identities: `from_user` of `request`, To of an incoming request, and several
UDP sockets in one `Transports` are what a simulator of thousands of devices needs.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final, Literal

from gb28181gw.clock import Clock, SystemClock
from gb28181gw.errors import GatewayError
from gb28181gw.sip.dialog import MAX_FORWARDS, Dialog
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.events import (
    AckReceived,
    CancelReceived,
    RequestReceived,
    ResponseReceived,
    TimedOut,
    TransactionTerminated,
    TransportFailed,
)
from gb28181gw.sip.exceptions import LocalProtocolError, SipError, SipParseError
from gb28181gw.sip.message import Headers, Message, Request, Response
from gb28181gw.sip.path import Path
from gb28181gw.sip.validate import drop_reason, unsupported_extensions, verdict
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.invitation import Invitation
from gb28181gw.ua.models import AgentConfig, AgentCounters, Answer, Target
from gb28181gw.ua.refusals import RefusalLimits, Refusals

_log = logging.getLogger(__name__)

ALLOW: Final = "INVITE, ACK, INFO, CANCEL, BYE, OPTIONS, MESSAGE, NOTIFY"
"""GB/T 28181-2022 9.2.3 b names the first seven for INVITE dialogs."""

_REFLECTION_BYTES: Final = 450
_REFLECTION_RATIO: Final = 1.2
"""S-11: what an answer to an unproven UDP source may weigh: so many bytes, or so many times the request."""

_DIALOG_MAKERS: Final = frozenset({"INVITE", "SUBSCRIBE"})
_WITH_CONTACT: Final = frozenset({"INVITE", "SUBSCRIBE", "REGISTER", "NOTIFY", "OPTIONS"})
"""MESSAGE must not have a Contact (RFC 3428 4)."""

Handler = Callable[[Incoming], None]
Trace = Callable[[Literal["in", "out"], Path, bytes], None]


def _nobody_known(path: Path, user: str) -> bool:
    return False


def _nobody_verified(path: Path) -> bool:
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
        self._is_known: Callable[[Path, str], bool] = _nobody_known
        self._is_verified: Callable[[Path], bool] = _nobody_verified
        self.on_received: Trace | None = None
        self.on_sent: Trace | None = None
        """SIP trace: direction, path, bytes. Not called while None."""
        self.on_malformed_message: Callable[[Path, str], None] | None = None
        """A message that was refused for its form: path and reason."""
        self.on_path_closed: Callable[[Path], None] | None = None
        """A TCP connection ended."""
        self.on_handler_error: Callable[[Path, str, Exception], None] | None = None
        """A handler raised: path, method, exception."""
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._handlers: dict[str, Handler] = {}
        self._watched: dict[str, list[tuple[Dialog, Handler, str]]] = {}
        """Call-ID -> dialogs of ours, and the user whose they are."""
        self._waiting: dict[str, tuple[asyncio.Future[Response], Request, Path]] = {}
        """By client transaction: who awaits the final response."""
        self._invitations: dict[str, Invitation] = {}
        """By client transaction."""
        self._invitations_by_dialog: dict[tuple[str, str], Invitation] = {}
        """By Call-ID and our tag."""
        self._invited: dict[str, Incoming] = {}
        """INVITEs of peers by server transaction."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._pumping = False
        self._closed = False
        transports.attach(self)

    def use_policy(
        self, *, is_known: Callable[[Path, str], bool], is_verified: Callable[[Path], bool]
    ) -> None:
        """Say who has proved itself. Without a policy nobody has.

        `is_known`: does this path belong to that user by a verified REGISTER, or to a configured platform? Such a
        peer gets answers to what we do not serve. `is_verified`: is this path bound to anybody? It is asked for
        every message, so it should be one look-up; such a path passes the refusal bucket of its host (many devices
        behind one carrier NAT) and the caps of unverified transactions.
        """
        self._is_known, self._is_verified = is_known, is_verified
        self.endpoint.is_verified = is_verified

    # ---- requests of peers: what those above register

    def on_request(self, method: str, handler: Handler) -> None:
        """Give all requests of this method, outside watched dialogs, to `handler`. One handler per method."""
        if method in self._handlers:
            raise LocalProtocolError(f"{method} has a handler already")
        self._handlers[method] = handler

    def watch_dialog(self, dialog: Dialog, handler: Handler, *, user: str = "") -> None:
        """Give requests of the far end within this dialog to `handler`.

        `user`: the registered user (device) that the far end is or is a channel of; empty: whoever From names.
        """
        self._watched.setdefault(dialog.call_id, []).append((dialog, handler, user))

    def unwatch_dialog(self, dialog: Dialog) -> None:
        """Stop watching; what still comes gets 481. Idempotent."""
        watchers = self._watched.get(dialog.call_id, [])
        left = [one for one in watchers if one[0] is not dialog]
        if left:
            self._watched[dialog.call_id] = left
        else:
            self._watched.pop(dialog.call_id, None)

    def refused(self, path: Path) -> None:
        """Count a refused message (wrong digest, foreign domain, ...) against its source (S-20)."""
        self.counters.refused += 1
        self.refusals.refused(path.remote_host, self._clock.monotonic())

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
    ) -> Response:
        """Send a request outside dialogs and wait for its final response, whatever its status.

        Raises `GatewayError`: gb.sip.no_answer after `timeout_s` (None: Timer F, 32 s), gb.sip.path_lost when it
        could not be sent. `from_user`, `from_domain`, `request_uri`, `call_id` and `cseq` are for registrations,
        which keep their Call-ID and count CSeq up, and for simulated identities. `INVITE` has a method of its own.
        """
        if method in ("INVITE", "ACK", "CANCEL"):
            raise LocalProtocolError(f"{method} is not sent by request()")
        request = self._outside(
            target, method, body, content_type, headers, from_user, from_domain, request_uri, call_id, cseq
        )
        return await self._transact(request, target.path, timeout_s)

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
    ) -> Response:
        """BYE, INFO, MESSAGE, NOTIFY or SUBSCRIBE within a dialog; waits for the final response. Raises as `request`.

        `path`: where the peer is now, by default where the dialog knows it.
        """
        if method in ("INVITE", "ACK", "CANCEL"):
            raise LocalProtocolError(f"{method} is not sent by send_in_dialog()")
        where = path if path is not None else dialog.path
        request = dialog.request(method, body)
        self._complete(request, where, _user_of(dialog.local_uri) or self.config.id, content_type, headers)
        return await self._transact(request, where, timeout_s)

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
        request = self._outside(
            target,
            "INVITE",
            sdp,
            "application/sdp" if sdp else "",
            (("Subject", subject), ("Allow", ALLOW), *headers),
            from_user,
            from_domain,
            "",
            "",
            1,
        )
        invitation = Invitation(request, target.path, self._sent_by(target.path), on_provisional)
        self._ensure_open()
        invitation.transaction_id = self.endpoint.send_request(
            request, target.path, self._clock.monotonic(), sent_by=invitation.sent_by
        )
        self._invitations[invitation.transaction_id] = invitation
        self._invitations_by_dialog[(request.call_id, request.from_.tag)] = invitation
        self._pump()
        try:
            async with asyncio.timeout(timeout_s):
                return await invitation.future
        except TimeoutError:
            if invitation.future.done() and not invitation.future.cancelled():
                return invitation.future.result()  # answered in the last moment
            self._give_up(invitation)
            raise GatewayError(
                "gb.sip.no_answer",
                f"{target.user} at {target.path.peer} gave no final answer to INVITE within {timeout_s:g} s.",
                peer=target.path.peer,
            ) from None
        except asyncio.CancelledError:
            self._give_up(invitation)
            raise

    def ack(self, dialog: Dialog) -> None:
        """Acknowledge the 2xx of our INVITE, to the transport address of the peer (INV-16).

        Repeated 2xx are answered with the same ACK from now on, as long as the peer may repeat them (64*T1).
        """
        invitation = self._invitations_by_dialog.get((dialog.call_id, dialog.local_tag))
        sent_by = invitation.sent_by if invitation is not None else self._sent_by(dialog.path)
        data = self.endpoint.send_ack(dialog.request("ACK"), dialog.path, sent_by=sent_by)
        if invitation is not None:
            invitation.acks[dialog.remote_tag] = data
        self._pump()

    async def close(self) -> None:
        """End what waits with gb.route.shutting_down and stop the timer. The transports are their owner's to close."""
        self._closed = True
        for future, _, _ in list(self._waiting.values()):
            if not future.done():
                future.set_exception(GatewayError("gb.route.shutting_down"))
        for invitation in list(self._invitations.values()):
            if not invitation.future.done():
                invitation.future.set_exception(GatewayError("gb.route.shutting_down"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Those who waited run once more before their loop ends.
        await asyncio.sleep(0)

    # ---- transport.receiver.Receiver

    def admit(self, path: Path) -> bool:
        """See `transport.receiver.Receiver`."""
        return self.refusals.admits(path.remote_host, self._clock.monotonic()) or self._is_verified(path)

    def on_message(self, message: Message, path: Path, data: bytes) -> None:
        """See `transport.receiver.Receiver`."""
        if self.on_received is not None:
            self.on_received("in", path, data or _rewritten(message))
        if isinstance(message, Response) and drop_reason(message) is not None:
            self.counters.responses_dropped += 1
            return
        try:
            self.endpoint.receive(message, path, self._clock.monotonic())
        except SipParseError as error:
            if isinstance(message, Request) and error.message is None:
                error.message = message
            self.on_malformed(error, path, data)
            return
        self._pump()

    def on_malformed(self, error: SipParseError, path: Path, data: bytes) -> None:
        """See `transport.receiver.Receiver`. The answer, if there is one, has no transaction (S-11)."""
        self.counters.malformed += 1
        self.refused(path)
        if self.on_malformed_message is not None:
            self.on_malformed_message(path, error.reason)
        request = error.message
        if request is None or not error.status_hint or request.method == "ACK":
            return
        try:
            response = Response.reply_to(
                request,
                error.status_hint,
                error.reason,
                to_tag=secrets.token_hex(8),
                received=path.remote_host,
                rport=path.remote_port,
            )
            if self._fits(len(response.to_bytes()), len(data), path):
                self.counters.malformed_answered += 1
                self.endpoint.send_stateless(response, path)
                self._pump()
        except SipError:
            return  # what came cannot even be echoed

    def on_closed(self, path: Path) -> None:
        """See `transport.receiver.Receiver`."""
        self.endpoint.path_failed(path, self._clock.monotonic())
        self._pump()
        if self.on_path_closed is not None:
            self._supervise(functools.partial(self.on_path_closed, path), path, "connection")

    # ---- called by Incoming

    def answer(
        self,
        incoming: Incoming,
        status: int,
        reason: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        content_type: str,
    ) -> None:
        """Answer a request; see `Incoming.respond`."""
        request, path = incoming.request, incoming.path
        response = Response.reply_to(
            request,
            status,
            reason,
            to_tag=incoming.to_tag if status > 100 else "",
            received=path.remote_host,
            rport=path.remote_port,
            headers=headers,
            body=body,
        )
        if content_type:
            response.headers.add("Content-Type", content_type)
        method = request.method
        if method == "REGISTER":
            if self.config.gb_version:
                response.headers.add("X-GB-Ver", self.config.gb_version)
        elif method in _DIALOG_MAKERS and 200 <= status < 300:
            self._accept(incoming, response)
        self.endpoint.respond(incoming.transaction_id, response, self._clock.monotonic())
        if status >= 200:
            incoming.answered = True
        self._pump()

    def ignore(self, incoming: Incoming) -> None:
        """Forget a request without an answer; see `Incoming.ignore`."""
        self.endpoint.discard(incoming.transaction_id)
        self._invited.pop(incoming.transaction_id, None)

    # ---- events

    def _pump(self) -> None:
        """Hand out events, send, arm the timer. Calls from within a handler only add to what is being handed out."""
        if self._pumping:
            return
        self._pumping = True
        try:
            next_event = self.endpoint.next_event
            while (event := next_event()) is not None:
                if isinstance(event, RequestReceived):
                    self._on_request(event)
                elif isinstance(event, ResponseReceived):
                    self._on_response(event)
                elif isinstance(event, TimedOut):
                    self._on_timed_out(event.transaction_id)
                elif isinstance(event, TransportFailed):
                    self._on_transport_failed(event.transaction_id)
                elif isinstance(event, AckReceived):
                    self._on_ack(event)
                elif isinstance(event, CancelReceived):
                    self._on_cancel(event)
                elif isinstance(event, TransactionTerminated):
                    self._on_terminated(event.transaction_id)
        finally:
            self._pumping = False
        self._flush()
        self._arm()

    def _flush(self) -> None:
        send, on_sent = self.transports.send, self.on_sent
        lost: list[Path] = []
        for path, data in self.endpoint.data_to_send():
            if on_sent is not None:
                on_sent("out", path, data)
            if not send(path, data) and path.connection_id:
                lost.append(path)
        for path in lost:
            self.endpoint.path_failed(path, self._clock.monotonic())
        if lost:
            self._pump()

    def _arm(self) -> None:
        when = self.endpoint.get_timer()
        if when is None or self._closed:
            return
        if self._timer is not None:
            if self._timer_at <= when:
                return  # fires early enough, and looks again then
            self._timer.cancel()
        self._timer_at = when
        # At least a millisecond, the resolution of the loop's timers: a timer never fires twice for one reason.
        delay = max(0.001, when - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.endpoint.handle_timer(self._clock.monotonic())
        self._pump()

    def _on_request(self, event: RequestReceived) -> None:
        request, path = event.request, event.path
        incoming = Incoming(self, event.transaction_id, request, path)
        refusal = verdict(request)
        if refusal is not None:
            self._refuse(incoming, *refusal)
            return
        method = request.method
        handler = self._in_dialog(incoming) if self._watched else None
        if incoming.answered:
            return
        if handler is None:
            handler = self._handlers.get(method)
        if handler is None:
            self._unhandled(incoming)
            return
        if method == "INVITE":
            self._invited[event.transaction_id] = incoming
        try:
            handler(incoming)
        except Exception as error:
            self._handler_failed(incoming, error)

    def _in_dialog(self, incoming: Incoming) -> Handler | None:
        """The watcher of the dialog that this request belongs to; None: it belongs to none (S-04)."""
        request, path = incoming.request, incoming.path
        for dialog, handler, user in self._watched.get(request.call_id, ()):
            if not dialog.matches(request):
                continue
            if not self._is_peer(path, dialog, user or incoming.from_user):
                self.counters.foreign_in_dialog += 1
                self.refused(path)
                incoming.ignore()
                return None
            if not dialog.accepts_cseq(request.cseq.number):
                self.counters.cseq_backwards += 1
                if request.method != "BYE":
                    # A device whose counter went wrong is still believed when it says that it ends the session.
                    incoming.respond(500, "CSeq out of order")
                    return None
            return handler
        return None

    def _is_peer(self, path: Path, dialog: Dialog, user: str) -> bool:
        """S-04: a path of the user that the dialog is with, or one of the dialog's host that is nobody else's."""
        if self._is_known(path, user):
            return True
        return path.remote_host == dialog.path.remote_host and not self._is_verified(path)

    def _unhandled(self, incoming: Incoming) -> None:
        method = incoming.method
        if not self._is_known(incoming.path, incoming.from_user):
            self.counters.silent += 1
            self.refused(incoming.path)
            incoming.ignore()
        elif incoming.request.to.tag:
            incoming.respond(481)
        elif method == "OPTIONS":
            incoming.respond(200, headers=(("Allow", ALLOW), ("User-Agent", self.config.user_agent)))
        else:
            incoming.respond(405, headers=(("Allow", ALLOW),))

    def _refuse(self, incoming: Incoming, status: int, reason: str) -> None:
        """Refused by the rules of SIP alone: once, and to the unproven only in few bytes (S-11)."""
        self.counters.verdicts += 1
        self.refused(incoming.path)
        if self.on_malformed_message is not None:
            self.on_malformed_message(incoming.path, reason)
        headers: list[tuple[str, str]] = []
        if status == 420:
            headers.append(("Unsupported", ", ".join(unsupported_extensions(incoming.request))))
        path = incoming.path
        try:
            size = len(incoming.request.to_bytes())
            response = Response.reply_to(
                incoming.request,
                status,
                reason,
                to_tag=incoming.to_tag,
                received=path.remote_host,
                rport=path.remote_port,
                headers=headers,
            )
            if self._fits(len(response.to_bytes()), size, path):
                if incoming.method == "INVITE" and not path.reliable and not self._is_verified(path):
                    # Timer G would send ten packets for one to an address that has proved nothing.
                    incoming.ignore()
                    self.endpoint.send_stateless(response, path)
                else:
                    incoming.respond(status, reason, headers=headers)
                return
        except SipError:
            pass  # it cannot be echoed, so it is not answered
        self.counters.silent += 1
        incoming.ignore()

    def _handler_failed(self, incoming: Incoming, error: Exception) -> None:
        """F-23: one answer, one count, and the next message is served."""
        self._count_error(incoming.path, incoming.method, error)
        if not incoming.answered:
            status = error.status_hint if isinstance(error, SipParseError) and error.status_hint else 500
            incoming.respond(status)

    def _count_error(self, path: Path, method: str, error: Exception) -> None:
        self.counters.handler_errors += 1
        _log.error("handler of %s failed", method, exc_info=error, extra={"peer": path.peer})
        if self.on_handler_error is not None:
            self.on_handler_error(path, method, error)

    def _supervise(self, callback: Callable[[], None], path: Path, method: str) -> None:
        """Run a callback of those above; what it raises ends here and hurts nobody else."""
        try:
            callback()
        except Exception as error:
            self._count_error(path, method, error)

    def _on_ack(self, event: AckReceived) -> None:
        incoming = self._invited.get(event.transaction_id)
        if incoming is not None and incoming.on_ack is not None:
            self._supervise(functools.partial(incoming.on_ack, event.request), event.path, "ACK")

    def _on_cancel(self, event: CancelReceived) -> None:
        cancel = Incoming(self, event.transaction_id, event.request, event.path)
        incoming = self._invited.get(event.invite_id)
        if incoming is None:
            if verdict(event.request) is None and self._is_known(event.path, cancel.from_user):
                cancel.respond(481)
            else:
                self.counters.silent += 1
                cancel.ignore()
            return
        cancel.respond(200)
        if not incoming.answered:
            incoming.respond(487)
            if incoming.on_cancel is not None:
                self._supervise(incoming.on_cancel, event.path, "CANCEL")

    def _on_response(self, event: ResponseReceived) -> None:
        response = event.response
        waiting = self._waiting.get(event.transaction_id)
        if waiting is not None:
            if response.status >= 200 and not waiting[0].done():
                waiting[0].set_result(response)
            return
        invitation = self._invitations.get(event.transaction_id)
        if invitation is None:
            return
        if response.status < 200:
            if invitation.on_provisional is not None and not invitation.future.done():
                self._supervise(functools.partial(invitation.on_provisional, response), event.path, "INVITE")
        elif response.status < 300:
            self._on_accepted(invitation, response)
        elif not invitation.future.done():
            invitation.future.set_exception(_rejected(invitation, response))

    def _on_accepted(self, invitation: Invitation, response: Response) -> None:
        tag = response.to.tag
        known = invitation.acks.get(tag)
        if known is not None:
            self.counters.acks_repeated += 1
            self.endpoint.send_again(known, invitation.path)
            return
        if invitation.winner == tag and not invitation.abandoned:
            return  # repeated before the caller acknowledged; the peer will repeat it again
        try:
            dialog = Dialog.as_uac(invitation.request, response, invitation.path)
        except SipParseError as error:
            if not invitation.future.done():
                invitation.future.set_exception(
                    GatewayError(
                        "gb.sip.rejected",
                        f"The answer cannot be read: {error.reason}.",
                        sip_status=response.status,
                    )
                )
            return
        if invitation.abandoned or invitation.winner is not None:
            self._end_unwanted(dialog)
            return
        invitation.winner = tag
        invitation.future.set_result(Answer(sdp=response.body, dialog=dialog, response=response))

    def _end_unwanted(self, dialog: Dialog) -> None:
        """A 2xx that nobody wants: acknowledge it, or it is repeated for 32 s, and end it (F-05)."""
        self.counters.late_answers += 1
        self.ack(dialog)
        bye = dialog.request("BYE")
        self._complete(bye, dialog.path, _user_of(dialog.local_uri), "", ())
        self.endpoint.send_request(
            bye, dialog.path, self._clock.monotonic(), sent_by=self._sent_by(dialog.path)
        )
        self._pump()

    def _give_up(self, invitation: Invitation) -> None:
        """Nobody waits any more: CANCEL, and end what was or will be agreed."""
        if invitation.abandoned:
            return
        invitation.abandoned = True
        future = invitation.future
        if future.done() and not future.cancelled() and future.exception() is None:
            dialog = future.result().dialog
            if dialog.remote_tag not in invitation.acks:
                self._end_unwanted(dialog)
            return
        self.endpoint.cancel(invitation.transaction_id, self._clock.monotonic())
        self._pump()

    def _on_timed_out(self, transaction_id: str) -> None:
        waiting = self._waiting.get(transaction_id)
        if waiting is not None:
            future, request, path = waiting
            if not future.done():
                future.set_exception(
                    GatewayError(
                        "gb.sip.no_answer", f"{path.peer} did not answer {request.method}.", peer=path.peer
                    )
                )
            return
        invitation = self._invitations.get(transaction_id)
        if invitation is not None:
            if not invitation.future.done():
                invitation.future.set_exception(
                    GatewayError("gb.sip.no_answer", f"{invitation.path.peer} did not answer INVITE.")
                )
            return
        incoming = self._invited.get(transaction_id)
        if incoming is not None and incoming.on_no_ack is not None:
            self._supervise(incoming.on_no_ack, incoming.path, "INVITE")

    def _on_transport_failed(self, transaction_id: str) -> None:
        waiting = self._waiting.get(transaction_id)
        if waiting is not None and not waiting[0].done():
            peer = waiting[2].peer
            waiting[0].set_exception(
                GatewayError("gb.sip.path_lost", f"The connection to {peer} ended.", peer=peer)
            )
        invitation = self._invitations.get(transaction_id)
        if invitation is not None and not invitation.future.done():
            invitation.future.set_exception(
                GatewayError("gb.sip.path_lost", f"The connection to {invitation.path.peer} ended.")
            )

    def _on_terminated(self, transaction_id: str) -> None:
        invitation = self._invitations.pop(transaction_id, None)
        if invitation is not None:
            key = (invitation.request.call_id, invitation.request.from_.tag)
            self._invitations_by_dialog.pop(key, None)
        self._invited.pop(transaction_id, None)

    # ---- building messages

    async def _transact(self, request: Request, path: Path, timeout_s: float | None) -> Response:
        self._ensure_open()
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        transaction_id = self.endpoint.send_request(
            request, path, self._clock.monotonic(), sent_by=self._sent_by(path)
        )
        self._waiting[transaction_id] = (future, request, path)
        try:
            self._pump()
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()
            raise GatewayError(
                "gb.sip.no_answer",
                f"{path.peer} did not answer {request.method} within {timeout_s:g} s.",
                peer=path.peer,
            ) from None
        finally:
            del self._waiting[transaction_id]
            if not future.done() or future.cancelled():
                self.endpoint.abandon(transaction_id)

    def _outside(
        self,
        target: Target,
        method: str,
        body: bytes,
        content_type: str,
        headers: Sequence[tuple[str, str]],
        from_user: str,
        from_domain: str,
        request_uri: str,
        call_id: str,
        cseq: int,
    ) -> Request:
        """A request outside dialogs: To without a tag (XML-22), Call-ID of 128 random bits (S-04, XML-21)."""
        user = from_user or self.config.id
        made = Headers()
        made.add("From", f"<sip:{user}@{from_domain or self.config.domain}>;tag={secrets.token_hex(8)}")
        made.add(
            "To",
            f"<sip:{target.user}@{target.domain}>"
            if target.domain
            else f"<sip:{target.user}@{target.path.peer}>",
        )
        made.add("Call-ID", call_id or secrets.token_hex(16))
        made.add("CSeq", f"{cseq} {method}")
        made.add("Max-Forwards", MAX_FORWARDS)
        request = Request(method, request_uri or f"sip:{target.user}@{target.path.peer}", made, body)
        self._complete(request, target.path, user, content_type, headers)
        if method == "REGISTER" and self.config.gb_version and "X-GB-Ver" not in request.headers:
            request.headers.add("X-GB-Ver", self.config.gb_version)
        return request

    def _complete(
        self,
        request: Request,
        path: Path,
        user: str,
        content_type: str,
        headers: Sequence[tuple[str, str]],
    ) -> None:
        """What every request of ours has beyond its addresses; what the caller gives comes first."""
        made = request.headers
        for name, value in headers:
            made.add(name, value)
        if request.method in _WITH_CONTACT and "Contact" not in made:
            made.add("Contact", self._contact(user, path))
        if "User-Agent" not in made:
            made.add("User-Agent", self.config.user_agent)
        if content_type:
            made.add("Content-Type", content_type)

    def _accept(self, incoming: Incoming, response: Response) -> None:
        """Contact, Allow and Record-Route of a 2xx that makes a dialog (RFC 3261 12.1.1), and the dialog."""
        request = incoming.request
        for route in request.headers.get_all("Record-Route"):
            response.headers.add("Record-Route", route)
        if "Contact" not in response.headers:
            user = incoming.to_user or self.config.id
            response.headers.add("Contact", self._contact(user, incoming.path))
        if request.method == "INVITE" and "Allow" not in response.headers:
            response.headers.add("Allow", ALLOW)
        if not request.to.tag:  # a re-INVITE has its dialog already
            incoming.dialog = Dialog.as_uas(request, incoming.to_tag, incoming.path)

    def _contact(self, user: str, path: Path) -> str:
        return f"<sip:{user}@{self._sent_by(path)}>"

    def _sent_by(self, path: Path) -> str:
        """Our host and port as this peer sees them; never a wildcard address (INV-23)."""
        host = self.config.advertise or path.local_host
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{host}:{path.local_port}" if path.local_port else host

    @staticmethod
    def _fits(answer_bytes: int, request_bytes: int, path: Path) -> bool:
        """S-11. A connection proves that its peer can receive."""
        return path.reliable or answer_bytes <= max(_REFLECTION_BYTES, _REFLECTION_RATIO * request_bytes)

    def _ensure_open(self) -> None:
        if self._closed:
            raise GatewayError("gb.route.shutting_down")


def _user_of(uri: str) -> str:
    """User part of a URI that we wrote ourselves."""
    return uri.partition(":")[2].partition("@")[0]


def _rewritten(message: Message) -> bytes:
    """A message of a stream for the trace: its octets were cut out by the parser."""
    try:
        return message.to_bytes()
    except SipError:
        return b""


def _rejected(invitation: Invitation, response: Response) -> GatewayError:
    reason = response.reason or "no reason given"
    return GatewayError(
        "gb.sip.rejected",
        f"{invitation.path.peer} refused INVITE with {response.status} {reason}.",
        sip_status=response.status,
        peer=invitation.path.peer,
    )
