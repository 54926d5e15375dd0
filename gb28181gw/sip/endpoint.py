"""The sans-IO SIP endpoint: all transactions of one user agent, with `now` as an argument.

The shell around it does, after every stimulus (aioquic's contract):

1. `receive`, `send_request`, `respond`, ... or `handle_timer`;
2. `next_event` until None;
3. send everything of `data_to_send`;
4. arm one timer for `get_timer`.

Keys. A repeated request is recognised by its top Via as text, Call-ID, CSeq and the host it came from. RFC 3261
17.2.3 takes branch, sent-by and method, all of which are in those texts; Call-ID and CSeq number are added because
small devices use one branch for everything (XML-20), and the host, so that nobody can meet a transaction of somebody
else (S-04). A repeated message is byte for byte the same, so nothing has to be parsed for the look-up, and requests
of RFC 2543 without a branch need no rule of their own. INVITE is looked up by parsed branch and sent-by, since its
ACK and CANCEL must find it; for an ACK with a wrong branch Call-ID and CSeq do. A response is matched by branch
and method and must come from the host that the request went to; one without Via by Call-ID and CSeq (XML-20).

Memory is bounded (I10). Answered requests are kept for 64*T1 to absorb their repetitions, in queues with a cap: the
oldest is forgotten first. Sources that have not proved themselves have caps of their own (S-11): beyond them a
request is forgotten as soon as it is answered, which costs the attacker the absorption and nobody else anything.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from gb28181gw.sip import transaction_client as client
from gb28181gw.sip import transaction_server as server
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
from gb28181gw.sip.exceptions import LocalProtocolError, SipParseError
from gb28181gw.sip.grammar import MAGIC_COOKIE
from gb28181gw.sip.message import Headers, Message, Request, Response
from gb28181gw.sip.path import Path
from gb28181gw.sip.randomness import random_hex
from gb28181gw.sip.timers import Timers
from gb28181gw.sip.transaction_client import ClientTransaction
from gb28181gw.sip.transaction_server import InviteServerTransaction, ServerTransaction

_SLACK_S: Final = 0.5
"""Server transactions may end so much later than Timer J, so that one timer ends hundreds of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps of the tables (threats 5)."""

    requests: int = 100_000
    """Server transactions other than INVITE."""
    unverified_requests: int = 20_000
    """Those of sources that have not proved themselves."""
    unverified_per_source: int = 200
    invites: int = 2_000
    """Server transactions of INVITE."""
    own_requests: int = 50_000
    """Client transactions."""


@dataclass(slots=True)
class EndpointCounters:
    """Plain counters; they only grow."""

    requests_received: int = 0
    responses_received: int = 0
    repeated_requests: int = 0
    """Absorbed by a server transaction."""
    retransmissions: int = 0
    """Sent again by us because a timer fired."""
    repeated_responses: int = 0
    """Absorbed by a client transaction."""
    responses_unmatched: int = 0
    responses_foreign: int = 0
    """Right branch, wrong host (S-04)."""
    responses_without_via: int = 0
    """Matched by Call-ID and CSeq (XML-20)."""
    acks_unmatched: int = 0
    timed_out: int = 0
    transport_failed: int = 0
    unanswered: int = 0
    """Requests of peers that nobody here answered."""
    late_answers: int = 0
    """Answers of ours to a request that was forgotten already."""
    dropped_oldest: int = 0
    """Transactions that a cap ended early."""
    not_kept: int = 0
    """Answered requests of unverified sources that were not remembered."""


def _unverified(path: Path) -> bool:
    return False


class Endpoint:
    """Transactions of one user agent over any number of paths. Owns no clock, no socket and no task."""

    def __init__(
        self,
        timers: Timers | None = None,
        *,
        limits: Limits | None = None,
        is_verified: Callable[[Path], bool] = _unverified,
    ) -> None:
        self.timers = timers if timers is not None else Timers()
        self.limits = limits if limits is not None else Limits()
        self.is_verified = is_verified
        """Has the far end of this path proved itself? Asked once for every new request."""
        self.counters = EndpointCounters()
        self._life_s = self.timers.j
        self._events: deque[Event] = deque()
        self._out: list[tuple[Path, bytes]] = []
        # server side, not INVITE
        self._requests: dict[str, ServerTransaction] = {}
        self._by_age: deque[ServerTransaction] = deque()
        """In the order of their arrival, which is the order of their end."""
        self._answered_late: deque[tuple[float, ServerTransaction]] = deque()
        """With their end, in the order of their answers: those not answered at once."""
        self._unverified_total = 0
        self._unverified_sources: dict[str, int] = {}
        # server side, INVITE
        self._invites: dict[str, InviteServerTransaction] = {}
        self._invites_by_call: dict[tuple[str, int, str], InviteServerTransaction] = {}
        """(Call-ID, CSeq number, host) for ACKs, whose branch is another one after a 2xx."""
        # client side
        self._own: dict[str, ClientTransaction] = {}
        self._own_by_call: dict[tuple[str, int, str], ClientTransaction] = {}
        """(Call-ID, CSeq number, method) for responses without Via."""
        self._own_by_connection: dict[int, set[str]] = {}
        # timers of both INVITE server and client transactions: (when, id); what is over must not be held until then
        self._timers: list[tuple[float, str]] = []

    # ---- what the shell calls

    def receive(self, message: Message, path: Path, now: float) -> None:
        """Take a message in. Raises SipParseError if a header that transactions need cannot be read."""
        if isinstance(message, Response):
            self.counters.responses_received += 1
            self._receive_response(message, path, now)
            return
        self.counters.requests_received += 1
        method = message.method
        if method == "INVITE":
            self._receive_invite(message, path, now)
            return
        if method == "ACK":
            self._receive_ack(message, path, now)
            return
        get = message.headers.get
        key = f"{get('Via')}\n{get('Call-ID')}\n{get('CSeq')}\n{path.remote_host}"
        known = self._requests.get(key)
        if known is not None:
            self._repeated(known, path)
            return
        if method == "CANCEL":
            # Read before the transaction is made, so that what cannot be read leaves nothing behind.
            invite = self._invites.get(_invite_key(message, path))
            if invite is not None and not _same_call(invite.request, message):
                invite = None
            self._new_request(key, path, now)
            self._events.append(CancelReceived(key, invite.id if invite is not None else "", message, path))
            return
        self._new_request(key, path, now)
        self._events.append(RequestReceived(key, message, path))

    def respond(self, transaction_id: str, response: Response, now: float) -> None:
        """Send a response on the path of its request.

        A request that was forgotten by now is counted and nothing is sent. Raises LocalProtocolError for a second
        final response and for a response that must not be written.
        """
        transaction = self._requests.get(transaction_id)
        if transaction is None:
            self._respond_invite(transaction_id, response, now)
            return
        data = response.to_bytes()
        actions = transaction.handle(server.input_for(response.status))
        transaction.response = data
        self._out.append((transaction.path, data))
        if server.Action.START_J in actions:
            self._start_j(transaction, now)

    def discard(self, transaction_id: str) -> None:
        """Forget a request of a peer without an answer: silence (S-11)."""
        transaction = self._requests.get(transaction_id)
        if transaction is not None:
            self._forget(transaction)
            return
        invite = self._invites.get(transaction_id)
        if invite is not None:
            self._remove_invite(invite)

    def send_request(self, request: Request, path: Path, now: float, *, sent_by: str = "") -> str:
        """Start a client transaction and return its id; the Via with a new branch is put on top here.

        `sent_by` is host and port of the Via, by default the local address of the path. ACK has no transaction: see
        `send_ack`. Raises LocalProtocolError.
        """
        if request.method == "ACK":
            raise LocalProtocolError("ACK has no transaction of its own")
        branch = _new_branch()
        request.headers.prepend("Via", _via(path, sent_by, branch))
        return self._start(request, branch, path, now, internal=False)

    def send_ack(self, request: Request, path: Path, *, sent_by: str = "") -> bytes:
        """Send the ACK of a 2xx; the bytes are returned for `send_again`."""
        request.headers.prepend("Via", _via(path, sent_by, _new_branch()))
        data = request.to_bytes()
        self._out.append((path, data))
        return data

    def send_again(self, data: bytes, path: Path) -> None:
        """Send bytes of before once more: the ACK of a repeated 2xx."""
        self._out.append((path, data))

    def send_stateless(self, response: Response, path: Path) -> None:
        """Answer without a transaction: what could not be read well enough to have one (RFC 3261 8.2.7)."""
        self._out.append((path, response.to_bytes()))

    def cancel(self, transaction_id: str, now: float) -> None:
        """Cancel an INVITE of ours (9.1). Nothing happens if it is over or has its final response."""
        transaction = self._own.get(transaction_id)
        if transaction is not None:
            self._step(transaction, client.Input.CANCEL, now)

    def abandon(self, transaction_id: str) -> None:
        """Forget a request of ours: no more retransmissions, no events. Unknown ids are ignored."""
        transaction = self._own.get(transaction_id)
        if transaction is not None:
            self._remove_own(transaction, report=False)

    def path_failed(self, path: Path, now: float) -> None:
        """The connection of this path has ended: what waits on it fails now and not after 32 s."""
        for transaction_id in list(self._own_by_connection.get(path.connection_id, ())):
            self._step(self._own[transaction_id], client.Input.TRANSPORT_ERROR, now)
        for invite in [one for one in self._invites.values() if one.path.connection_id == path.connection_id]:
            self._step_invite(invite, server.Input.TRANSPORT_ERROR, now)

    def next_event(self) -> Event | None:
        """What has happened, oldest first; None: nothing more."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> list[tuple[Path, bytes]]:
        """What has to leave, in order; each is returned once."""
        if not self._out:
            return _NOTHING
        out, self._out = self._out, []
        return out

    def get_timer(self) -> float | None:
        """When `handle_timer` is due next; None: never. May be too early, never too late by more than half a second."""
        when = self._timers[0][0] if self._timers else inf
        if self._by_age:
            when = min(when, self._by_age[0].expires_at + _SLACK_S)
        if self._answered_late:
            when = min(when, self._answered_late[0][0] + _SLACK_S)
        return None if when == inf else when

    def handle_timer(self, now: float) -> None:
        """Do what is due by `now`."""
        by_age, late, timers = self._by_age, self._answered_late, self._timers
        while by_age and by_age[0].expires_at <= now:
            self._expire(by_age.popleft())
        while late and late[0][0] <= now:
            self._forget(late.popleft()[1])
        while timers and timers[0][0] <= now:
            when, transaction_id = heapq.heappop(timers)
            transaction = self._own.get(transaction_id) or self._invites.get(transaction_id)
            if transaction is None or transaction.scheduled_at != when:
                continue  # it is over, or a later entry of the same transaction holds
            transaction.scheduled_at = inf
            self._fire(transaction, now)

    def gauges(self) -> dict[str, int]:
        """Sizes of the tables, for metrics and for tests of invariant I2."""
        return {
            "server": len(self._requests),
            "server_unverified": self._unverified_total,
            "server_invite": len(self._invites),
            "client": len(self._own),
            "queued": len(self._by_age) + len(self._answered_late) + len(self._timers),
        }

    # ---- requests of peers

    def _new_request(self, key: str, path: Path, now: float) -> None:
        transaction = ServerTransaction(key, path, now + self._life_s)
        self._requests[key] = transaction
        self._by_age.append(transaction)
        if not self.is_verified(path):
            source = path.remote_host
            held = self._unverified_sources.get(source, 0)
            transaction.source = source
            transaction.transient = (
                held >= self.limits.unverified_per_source
                or self._unverified_total >= self.limits.unverified_requests
            )
            self._unverified_sources[source] = held + 1
            self._unverified_total += 1
        if len(self._by_age) > self.limits.requests:
            oldest = self._by_age.popleft()
            if oldest.state is not server.State.TERMINATED and not oldest.answered_late:
                self.counters.dropped_oldest += 1
                self._forget(oldest)

    def _repeated(self, transaction: ServerTransaction, path: Path) -> None:
        self.counters.repeated_requests += 1
        if server.Action.SEND in transaction.handle(server.Input.REQUEST):
            # To where this copy came from: a NAT may have given it another port.
            self._out.append((path, transaction.response))
        transaction.path = path

    def _start_j(self, transaction: ServerTransaction, now: float) -> None:
        """Absorb repetitions for 64*T1 from now, unless there can be none or nobody may ask for it."""
        if transaction.transient:
            self.counters.not_kept += 1
            self._forget(transaction)
        elif transaction.path.reliable:
            self._forget(transaction)
        elif now + self._life_s > transaction.expires_at + _SLACK_S:
            transaction.answered_late = True
            self._answered_late.append((now + self._life_s, transaction))
            if len(self._answered_late) > self.limits.requests:
                self.counters.dropped_oldest += 1
                self._forget(self._answered_late.popleft()[1])

    def _expire(self, transaction: ServerTransaction) -> None:
        """The head of the queue by age is due; it may have ended before, or live on in the other queue."""
        if transaction.state is server.State.TERMINATED or transaction.answered_late:
            return
        if transaction.state is not server.State.COMPLETED:
            self.counters.unanswered += 1
        self._forget(transaction)

    def _forget(self, transaction: ServerTransaction) -> None:
        if transaction.state is server.State.TERMINATED:
            return
        transaction.state = server.State.TERMINATED
        transaction.response = b""
        self._requests.pop(transaction.id, None)
        if transaction.source:
            self._unverified_total -= 1
            left = self._unverified_sources[transaction.source] - 1
            if left:
                self._unverified_sources[transaction.source] = left
            else:
                del self._unverified_sources[transaction.source]
        if self._by_age and self._by_age[-1] is transaction:
            # The common case of a flood, and of TCP: the newest ends in its own turn and leaves no trace.
            self._by_age.pop()

    def _receive_invite(self, request: Request, path: Path, now: float) -> None:
        key = _invite_key(request, path)
        known = self._invites.get(key)
        if known is not None:
            self.counters.repeated_requests += 1
            known.path = path
            self._step_invite(known, server.Input.REQUEST, now)
            return
        call = (request.call_id, request.cseq.number, path.remote_host)
        if len(self._invites) >= self.limits.invites:
            self.counters.dropped_oldest += 1
            self._remove_invite(next(iter(self._invites.values())))
        transaction = InviteServerTransaction(key, request, path, self.timers, now)
        self._invites[key] = transaction
        self._invites_by_call[call] = transaction
        self._schedule(transaction)
        self._events.append(RequestReceived(key, request, path))

    def _receive_ack(self, request: Request, path: Path, now: float) -> None:
        invite = self._invites.get(_invite_key(request, path))
        if invite is None:
            # After a 2xx the ACK is a request of its own, and a few devices give the ACK of a failure a new branch.
            invite = self._invites_by_call.get((request.call_id, request.cseq.number, path.remote_host))
        if invite is None or not _same_call(invite.request, request):
            self.counters.acks_unmatched += 1
            self._events.append(AckReceived("", request, path))
            return
        if invite.state is server.State.ACCEPTED:
            if request.to.tag != invite.to_tag:
                self.counters.acks_unmatched += 1
                return
            if server.Action.ACKNOWLEDGED in self._step_invite(invite, server.Input.ACK, now):
                self._events.append(AckReceived(invite.id, request, path))
            return
        self._step_invite(invite, server.Input.ACK, now)

    def _respond_invite(self, transaction_id: str, response: Response, now: float) -> None:
        invite = self._invites.get(transaction_id)
        if invite is None:
            self.counters.late_answers += 1
            return
        data = response.to_bytes()
        if 200 <= response.status < 300:
            # Only the ACK of a 2xx is matched by it, and the To of a refused INVITE may be unreadable.
            invite.to_tag = response.to.tag
        before = invite.response
        invite.response = data
        try:
            self._step_invite(invite, server.input_for(response.status), now)
        except LocalProtocolError:
            invite.response = before
            raise

    def _step_invite(
        self, invite: InviteServerTransaction, happened: server.Input, now: float
    ) -> tuple[server.Action, ...]:
        actions = invite.handle(happened, now)
        for action in actions:
            if action is server.Action.SEND:
                if invite.response:
                    self._out.append((invite.path, invite.response))
            elif action is server.Action.SEND_TRYING:
                invite.response = Response.reply_to(
                    invite.request, 100, received=invite.path.remote_host, rport=invite.path.remote_port
                ).to_bytes()
                self._out.append((invite.path, invite.response))
            elif action is server.Action.NOT_ACKNOWLEDGED:
                self.counters.timed_out += 1
                self._events.append(TimedOut(invite.id))
            elif action is server.Action.UNANSWERED:
                self.counters.unanswered += 1
            elif action is server.Action.TERMINATED:
                self._remove_invite(invite)
        self._schedule(invite)
        return actions

    def _remove_invite(self, invite: InviteServerTransaction) -> None:
        invite.state = server.State.TERMINATED
        invite.retransmit_at = invite.life_at = inf
        if self._invites.pop(invite.id, None) is None:
            return
        call = (invite.request.call_id, invite.request.cseq.number, invite.path.remote_host)
        if self._invites_by_call.get(call) is invite:
            del self._invites_by_call[call]
        self._events.append(TransactionTerminated(invite.id))

    # ---- requests of ours

    def _start(self, request: Request, branch: str, path: Path, now: float, *, internal: bool) -> str:
        data = request.to_bytes()
        transaction_id = f"{branch} {request.method}"
        if len(self._own) >= self.limits.own_requests:
            self.counters.dropped_oldest += 1
            oldest = next(iter(self._own.values()))
            self._events.append(TimedOut(oldest.id))
            self._remove_own(oldest, report=True)
        transaction = ClientTransaction(transaction_id, request, data, path, self.timers, internal=internal)
        self._own[transaction_id] = transaction
        self._own_by_call[transaction.call] = transaction
        if path.connection_id:
            self._own_by_connection.setdefault(path.connection_id, set()).add(transaction_id)
        self._step(transaction, client.Input.START, now)
        return transaction_id

    def _receive_response(self, response: Response, path: Path, now: float) -> None:
        cseq = response.cseq
        if "Via" in response.headers:
            transaction = self._own.get(f"{response.via.branch} {cseq.method}")
        else:
            transaction = self._own_by_call.get((response.call_id, cseq.number, cseq.method))
            if transaction is not None:
                self.counters.responses_without_via += 1
        if transaction is None:
            self.counters.responses_unmatched += 1
            return
        if transaction.path.remote_host != path.remote_host:
            self.counters.responses_foreign += 1
            return
        if response.status < 200:
            happened = client.Input.PROVISIONAL
        elif response.status < 300:
            happened = client.Input.SUCCESS
        else:
            happened = client.Input.FAILURE
        self._step(transaction, happened, now, response, path)

    def _step(
        self,
        transaction: ClientTransaction,
        happened: client.Input,
        now: float,
        response: Response | None = None,
        path: Path | None = None,
    ) -> None:
        delivered = False
        for action in transaction.handle(happened, now):
            if action is client.Action.SEND:
                if happened is not client.Input.START:
                    self.counters.retransmissions += 1
                self._out.append((transaction.path, transaction.data))
            elif action is client.Action.ACK and response is not None and transaction.invite is not None:
                self._out.append((transaction.path, _failure_ack(transaction.invite, response)))
            elif action is client.Action.SEND_CANCEL and transaction.invite is not None:
                self._send_cancel(transaction.invite, transaction.path, now)
            elif action is client.Action.DELIVER and response is not None and path is not None:
                delivered = True
                if not transaction.internal:
                    self._events.append(ResponseReceived(transaction.id, response, path))
            elif action is client.Action.TIMED_OUT:
                self.counters.timed_out += 1
                if not transaction.internal:
                    self._events.append(TimedOut(transaction.id))
            elif action is client.Action.TRANSPORT_FAILED:
                self.counters.transport_failed += 1
                if not transaction.internal:
                    self._events.append(TransportFailed(transaction.id))
            elif action is client.Action.TERMINATED:
                self._remove_own(transaction, report=not transaction.internal)
        if response is not None and not delivered:
            self.counters.repeated_responses += 1
        self._schedule(transaction)

    def _send_cancel(self, invite: Request, path: Path, now: float) -> None:
        """RFC 3261 9.1: Request-URI, Call-ID, To, From, Route, the number of CSeq and the top Via of the INVITE."""
        headers = Headers()
        for name in ("Via", "Route", "From", "To", "Call-ID"):
            values = invite.headers.get_all(name)
            for value in values[:1] if name == "Via" else values:
                headers.add(name, value)
        headers.add("CSeq", f"{invite.cseq.number} CANCEL")
        headers.add("Max-Forwards", invite.headers.get("Max-Forwards") or "70")
        self._start(Request("CANCEL", invite.uri, headers), invite.via.branch, path, now, internal=True)

    def _remove_own(self, transaction: ClientTransaction, *, report: bool) -> None:
        transaction.state = client.State.TERMINATED
        transaction.retransmit_at = transaction.life_at = inf
        if self._own.pop(transaction.id, None) is None:
            return
        if self._own_by_call.get(transaction.call) is transaction:
            del self._own_by_call[transaction.call]
        held = self._own_by_connection.get(transaction.path.connection_id)
        if held is not None:
            held.discard(transaction.id)
            if not held:
                del self._own_by_connection[transaction.path.connection_id]
        if report:
            self._events.append(TransactionTerminated(transaction.id))

    # ---- timers

    def _schedule(self, transaction: ClientTransaction | InviteServerTransaction) -> None:
        """Make sure that the queue wakes this transaction at its next timer, at the latest."""
        when = transaction.next_timer()
        if when < transaction.scheduled_at:
            transaction.scheduled_at = when
            heapq.heappush(self._timers, (when, transaction.id))

    def _fire(self, transaction: ClientTransaction | InviteServerTransaction, now: float) -> None:
        if isinstance(transaction, ClientTransaction):
            due = transaction.due(now)
            if due is not None:
                self._step(transaction, due, now)
            else:
                self._schedule(transaction)
            return
        fired = transaction.due(now)
        if fired is not None:
            if fired is server.Input.TIMER_G:
                self.counters.retransmissions += 1
            self._step_invite(transaction, fired, now)
        else:
            self._schedule(transaction)


_NOTHING: Final[list[tuple[Path, bytes]]] = []


def _new_branch() -> str:
    return MAGIC_COOKIE + random_hex(12)


def _via(path: Path, sent_by: str, branch: str) -> str:
    if not sent_by:
        host = f"[{path.local_host}]" if ":" in path.local_host else path.local_host
        sent_by = f"{host}:{path.local_port}"
    return f"SIP/2.0/{path.transport.upper()} {sent_by};rport;branch={branch}"


def _invite_key(request: Request, path: Path) -> str:
    """What an INVITE shares with its repetitions, its CANCEL and the ACK of a failure (17.2.3)."""
    via = request.via
    branch = via.transaction_branch
    if branch:
        return f"{branch}\n{via.sent_by}\n{path.remote_host}"
    # RFC 2543: Request-URI, tag of From, Call-ID, number of CSeq, top Via.
    top = request.headers.get("Via")
    return f"{request.uri}\n{request.from_.tag}\n{request.call_id}\n{request.cseq.number}\n{top}\n{path.remote_host}"


def _same_call(invite: Request, other: Request) -> bool:
    """S-04: an ACK or CANCEL agrees with its INVITE in Call-ID, tag of From and number of CSeq."""
    try:
        return (
            invite.call_id == other.call_id
            and invite.from_.tag == other.from_.tag
            and invite.cseq.number == other.cseq.number
        )
    except SipParseError:
        return False


def _failure_ack(invite: Request, response: Response) -> bytes:
    """RFC 3261 17.1.1.3: the INVITE's Request-URI, Call-ID, From, Route and top Via; To from the response."""
    headers = Headers()
    headers.add("Via", invite.headers.get("Via") or "")
    for route in invite.headers.get_all("Route"):
        headers.add("Route", route)
    headers.add("From", invite.headers.get("From") or "")
    headers.add("To", response.headers.get("To") or invite.headers.get("To") or "")
    headers.add("Call-ID", invite.call_id)
    headers.add("CSeq", f"{invite.cseq.number} ACK")
    headers.add("Max-Forwards", invite.headers.get("Max-Forwards") or "70")
    return Request("ACK", invite.uri, headers).to_bytes()
