"""Requests of peers: who gets them, who is told that he is not served, and who gets silence.

The order: a dialog that is watched (Call-ID, both tags, and a path of its peer, see `_is_peer`); whoever claims the
requests of upper platforms; the handler of its method; OPTIONS of a known peer; and for the rest 481 or 405 for known
peers and nothing for all others (S-11, S-20).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Final

from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.events import AckReceived, CancelReceived, RequestReceived
from gb28181gw.sip.exceptions import LocalProtocolError, SipError, SipParseError
from gb28181gw.sip.message import Response
from gb28181gw.sip.path import Path
from gb28181gw.sip.validate import unsupported_extensions, verdict
from gb28181gw.ua.compose import ALLOW, DIALOG_MAKERS, Composer, new_tag
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import AgentConfig, AgentCounters
from gb28181gw.ua.refusals import Refusals
from gb28181gw.ua.shell import Shell

_log = logging.getLogger(__name__)

Handler = Callable[[Incoming], None]

_REFLECTION_BYTES: Final = 450
_REFLECTION_RATIO: Final = 1.2
"""S-11: what an answer to an unproven UDP source may weigh: so many bytes, or so many times the request."""


def _nobody_known(path: Path, user: str) -> bool:
    return False


def _unclaimed(incoming: Incoming) -> bool:
    return False


class Server:
    """Owner of handlers, watched dialogs, and INVITEs of peers that are not over."""

    def __init__(
        self,
        config: AgentConfig,
        shell: Shell,
        composer: Composer,
        counters: AgentCounters,
        refusals: Refusals,
    ) -> None:
        self._config = config
        self._shell = shell
        self._composer = composer
        self._counters = counters
        self._refusals = refusals
        self.is_known: Callable[[Path, str], bool] = _nobody_known
        self.on_malformed_message: Callable[[Path, str], None] | None = None
        self.on_handler_error: Callable[[Path, str, Exception], None] | None = None
        self.arriving_bytes = 0
        """Size of the datagram whose message is being handed out; 0 for a stream."""
        self.claim: Callable[[Incoming], bool] = _unclaimed
        """See `Platforms.claim`."""
        self._handlers: dict[str, Handler] = {}
        self._watched: dict[str, list[tuple[Dialog, Handler, str]]] = {}
        """Call-ID -> dialogs of ours, and the user whose they are."""
        self._invited: dict[str, Incoming] = {}
        """By server transaction."""

    def __len__(self) -> int:
        return len(self._invited)

    # ---- registration

    def handle(self, method: str, handler: Handler) -> None:
        """One handler per method. Raises LocalProtocolError."""
        if method in self._handlers:
            raise LocalProtocolError(f"{method} has a handler already")
        self._handlers[method] = handler

    def watch(self, dialog: Dialog, handler: Handler, user: str) -> None:
        """Requests of the far end within this dialog go to `handler`. `user`: see `UserAgent.watch_dialog`."""
        self._watched.setdefault(dialog.call_id, []).append((dialog, handler, user))

    def unwatch(self, dialog: Dialog) -> None:
        """Idempotent."""
        left = [one for one in self._watched.get(dialog.call_id, ()) if one[0] is not dialog]
        if left:
            self._watched[dialog.call_id] = left
        else:
            self._watched.pop(dialog.call_id, None)

    # ---- events

    def on_request(self, event: RequestReceived) -> None:
        """A new request."""
        request = event.request
        incoming = Incoming(self, event.transaction_id, request, event.path)
        refusal = verdict(request)
        if refusal is not None:
            self._refuse(incoming, *refusal)
            return
        handler = self._in_dialog(incoming) if self._watched else None
        if incoming.answered:
            return
        if request.method == "INVITE":
            self._invited[event.transaction_id] = incoming
        try:
            if handler is None:
                if self.claim(incoming):
                    return
                # RFC 3261 12.2.2: an INVITE with a To tag is for a dialog, and there is none.
                stray = request.method == "INVITE" and bool(request.to.tag)
                handler = None if stray else self._handlers.get(request.method)
            if handler is not None:
                handler(incoming)
                return
        except Exception as error:
            self._handler_failed(incoming, error)
            return
        self._invited.pop(event.transaction_id, None)
        self._unhandled(incoming)

    def on_ack(self, event: AckReceived) -> None:
        """The ACK of a 2xx of ours."""
        incoming = self._invited.get(event.transaction_id)
        if incoming is not None and incoming.on_ack is not None:
            self.supervise(functools.partial(incoming.on_ack, event.request), event.path, "ACK")

    def on_cancel(self, event: CancelReceived) -> None:
        """RFC 3261 9.2: 200 for the CANCEL, 487 for the INVITE if it has no final answer yet."""
        cancel = Incoming(self, event.transaction_id, event.request, event.path)
        incoming = self._invited.get(event.invite_id)
        if incoming is None:
            if verdict(event.request) is None and self.is_known(event.path, cancel.from_user):
                cancel.respond(481)
            else:
                self._stay_silent(cancel)
            return
        cancel.respond(200)
        if not incoming.answered:
            incoming.respond(487)
            if incoming.on_cancel is not None:
                self.supervise(incoming.on_cancel, event.path, "CANCEL")

    def on_timed_out(self, transaction_id: str) -> None:
        """No ACK for a 2xx of ours."""
        incoming = self._invited.get(transaction_id)
        if incoming is not None and incoming.on_no_ack is not None:
            self.supervise(incoming.on_no_ack, incoming.path, "INVITE")

    def on_terminated(self, transaction_id: str) -> None:
        """The INVITE transaction is over."""
        self._invited.pop(transaction_id, None)

    def on_malformed(self, error: SipParseError, path: Path, size: int) -> None:
        """What has no transaction is answered without one, once (S-11). `size`: bytes of the datagram."""
        self._counters.malformed += 1
        self.count_refused(path)
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
                to_tag=new_tag(),
                received=path.remote_host,
                rport=path.remote_port,
            )
            if _fits(response, size, path):
                self._counters.malformed_answered += 1
                self._shell.endpoint.send_stateless(response, path)
        except SipError:
            return  # what came cannot even be echoed
        self._shell.pump()

    # ---- answering

    def answer(
        self,
        incoming: Incoming,
        status: int,
        reason: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        content_type: str,
    ) -> None:
        """See `Incoming.respond`."""
        response = _reply(incoming, status, reason, headers, body)
        if content_type:
            response.headers.add("Content-Type", content_type)
        method = incoming.request.method
        if method == "REGISTER":
            if self._config.gb_version:
                response.headers.add("X-GB-Ver", self._config.gb_version)
        elif method in DIALOG_MAKERS and 200 <= status < 300:
            self._accept(incoming, response)
        self._shell.endpoint.respond(incoming.transaction_id, response, self._shell.now())
        if status >= 200:
            incoming.answered = True
        self._shell.pump()

    def ignore(self, incoming: Incoming) -> None:
        """See `Incoming.ignore`."""
        incoming.answered = True
        self._shell.endpoint.discard(incoming.transaction_id)
        self._invited.pop(incoming.transaction_id, None)

    def count_refused(self, path: Path) -> None:
        """One message of this source was refused (S-20)."""
        self._counters.refused += 1
        self._refusals.refused(path.remote_host, self._shell.now())

    def supervise(self, callback: Callable[[], None], path: Path, method: str) -> None:
        """Run a callback of those above; what it raises ends here and hurts nobody else."""
        try:
            callback()
        except Exception as error:
            self._count_error(path, method, error)

    # ---- decisions

    def _in_dialog(self, incoming: Incoming) -> Handler | None:
        """The watcher of the dialog that this request belongs to; None: it belongs to none."""
        request, path = incoming.request, incoming.path
        for dialog, handler, user in self._watched.get(request.call_id, ()):
            if not dialog.matches(request):
                continue
            if not self._is_peer(path, dialog, user or incoming.from_user):
                self._counters.foreign_in_dialog += 1
                self._stay_silent(incoming)
                return None
            if not dialog.accepts_cseq(request.cseq.number):
                self._counters.cseq_backwards += 1
                if request.method != "BYE":
                    incoming.respond(500, "CSeq out of order")
                    return None
                # A device whose counter went wrong is still believed when it says that it ends the session.
            if request.method == "INVITE":
                dialog.refresh_target(request)
            return handler
        return None

    def _is_peer(self, path: Path, dialog: Dialog, user: str) -> bool:
        """S-04: a path of the user that the dialog is with, or one of the dialog's host that is nobody else's."""
        if self.is_known(path, user):
            return True
        return path.remote_host == dialog.path.remote_host and not self._shell.endpoint.is_verified(path)

    def _unhandled(self, incoming: Incoming) -> None:
        if not self.is_known(incoming.path, incoming.from_user):
            self._stay_silent(incoming)
        elif incoming.request.to.tag:
            incoming.respond(481)
        elif incoming.method == "OPTIONS":
            incoming.respond(200, headers=(("Allow", ALLOW), ("User-Agent", self._config.user_agent)))
        else:
            incoming.respond(405, headers=(("Allow", ALLOW),))

    def _stay_silent(self, incoming: Incoming) -> None:
        self._counters.silent += 1
        self.count_refused(incoming.path)
        self.ignore(incoming)

    def _refuse(self, incoming: Incoming, status: int, reason: str) -> None:
        """Refused by the rules of SIP alone: once, and to the unproven only in few bytes (S-11)."""
        self._counters.verdicts += 1
        if self.on_malformed_message is not None:
            self.on_malformed_message(incoming.path, reason)
        headers: list[tuple[str, str]] = []
        if status == 420:
            headers.append(("Unsupported", ", ".join(unsupported_extensions(incoming.request))))
        try:
            response = _reply(incoming, status, reason, headers, b"")
            path = incoming.path
            if _fits(response, self.arriving_bytes, path):
                self.count_refused(path)
                if (
                    incoming.method == "INVITE"
                    and not path.reliable
                    and not self._shell.endpoint.is_verified(path)
                ):
                    # Timer G would send ten packets for one to an address that has proved nothing.
                    self.ignore(incoming)
                    self._shell.endpoint.send_stateless(response, path)
                else:
                    incoming.respond(status, reason, headers=headers)
                return
        except SipError:
            pass  # it cannot be echoed, so it is not answered
        self._stay_silent(incoming)

    def _accept(self, incoming: Incoming, response: Response) -> None:
        """Contact, Allow and Record-Route of a 2xx that makes a dialog (RFC 3261 12.1.1), and the dialog."""
        request = incoming.request
        for route in request.headers.get_all("Record-Route"):
            response.headers.add("Record-Route", route)
        if "Contact" not in response.headers:
            response.headers.add("Contact", self._composer.contact(incoming.to_user, incoming.path))
        if request.method == "INVITE" and "Allow" not in response.headers:
            response.headers.add("Allow", ALLOW)
        if not request.to.tag:  # a re-INVITE has its dialog already
            incoming.dialog = Dialog.as_uas(request, incoming.to_tag, incoming.path)

    def _handler_failed(self, incoming: Incoming, error: Exception) -> None:
        """F-23: one answer, one count, and the next message is served."""
        self._count_error(incoming.path, incoming.method, error)
        if not incoming.answered:
            status = error.status_hint if isinstance(error, SipParseError) and error.status_hint else 500
            incoming.respond(status)

    def _count_error(self, path: Path, method: str, error: Exception) -> None:
        self._counters.handler_errors += 1
        _log.error("handler of %s failed", method, exc_info=error, extra={"peer": path.peer})
        if self.on_handler_error is not None:
            self.on_handler_error(path, method, error)


def _reply(
    incoming: Incoming, status: int, reason: str, headers: Sequence[tuple[str, str]], body: bytes
) -> Response:
    return Response.reply_to(
        incoming.request,
        status,
        reason,
        to_tag=incoming.to_tag if status > 100 else "",
        received=incoming.path.remote_host,
        rport=incoming.path.remote_port,
        headers=headers,
        body=body,
    )


def _fits(response: Response, request_bytes: int, path: Path) -> bool:
    """S-11. A connection proves that its peer can receive."""
    if path.reliable:
        return True
    return len(response.to_bytes()) <= max(_REFLECTION_BYTES, _REFLECTION_RATIO * request_bytes)
