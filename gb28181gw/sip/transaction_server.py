"""Server transactions: RFC 3261 17.2 with the *Accepted* state of RFC 6026.

Theory of operation
===================

As on the client side a machine is a table ``(state, input) -> (next state, actions)``. A pair without a row is
ignored when the network caused it (a repeated request while nothing was answered yet) and a `LocalProtocolError`
when our own code caused it (a second final answer).

Two kinds, because their number differs by four orders of magnitude:

* `ServerTransaction` (not INVITE): tens of thousands at once, one for every keepalive of the last 32 s. It lives for
  a constant time after it was made (and once more after a late answer), so the endpoint keeps them in first-in
  first-out queues instead of a heap; its answer is kept as bytes and sent again for every repeated request. Over a
  reliable transport Timer J is zero and it is over with its answer.
* `InviteServerTransaction`: few, with two timer slots like the client's.

INVITE::

    PROCEEDING --300-699--> COMPLETED --ACK--> CONFIRMED --I--> TERMINATED
        |  (100 by itself      | G: again, H: no ACK -> TERMINATED
        |   after 200 ms)
        `--2xx--> ACCEPTED --L--> TERMINATED
                  (the 2xx is repeated until its ACK; repeated INVITEs are absorbed)

RFC 3261 13.3.1.4 gives the repetition of a 2xx to the user; here the transaction does it with the same timer as
Timer G, also over reliable transports, because the user would need the same timer and the same bytes. When Timer L
fires without an ACK the user is told and ends the session with BYE.

Others::

    TRYING --1xx--> PROCEEDING --200-699--> COMPLETED --J--> TERMINATED
       `-----------200-699---------------------^
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum, auto
from math import inf
from typing import Final

from gb28181gw.sip.exceptions import LocalProtocolError
from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path
from gb28181gw.sip.timers import Timers


class State(IntEnum):
    """States of both server machines."""

    TRYING = auto()
    PROCEEDING = auto()
    ACCEPTED = auto()
    COMPLETED = auto()
    CONFIRMED = auto()
    TERMINATED = auto()


class Input(IntEnum):
    """What can happen to a server transaction."""

    REQUEST = auto()
    """The request came again."""
    ACK = auto()
    SEND_PROVISIONAL = auto()
    SEND_SUCCESS = auto()
    SEND_FAILURE = auto()
    TRANSPORT_ERROR = auto()
    TIMER_G = auto()
    TIMER_H = auto()
    TIMER_I = auto()
    TIMER_J = auto()
    TIMER_L = auto()
    TIMER_TRYING = auto()
    """200 ms without an answer of ours."""
    TIMER_UNANSWERED = auto()
    """Our user never answered; nothing is kept for ever."""


class Action(IntEnum):
    """What the machine asks for. Up to `TERMINATED` they are the endpoint's; the rest the transaction does itself."""

    SEND = auto()
    """Send the newest response, or send it again."""
    SEND_TRYING = auto()
    """Make and send a 100."""
    ACKNOWLEDGED = auto()
    """Tell the user that the ACK of its 2xx came."""
    NOT_ACKNOWLEDGED = auto()
    """Tell the user that no ACK came."""
    UNANSWERED = auto()
    """Count it: the user forgot the request."""
    TERMINATED = auto()
    BACK_OFF = auto()
    STOP_RETRANSMISSION = auto()
    START_G = auto()
    START_G_ALWAYS = auto()
    """Timer G over reliable transports too (13.3.1.4)."""
    START_H = auto()
    START_I = auto()
    START_J = auto()
    START_L = auto()


_S, _I, _A = State, Input, Action

Table = Mapping[tuple[State, Input], tuple[State, tuple[Action, ...]]]

INVITE: Final[Table] = {
    (_S.PROCEEDING, _I.REQUEST): (_S.PROCEEDING, (_A.SEND,)),
    (_S.PROCEEDING, _I.TIMER_TRYING): (_S.PROCEEDING, (_A.STOP_RETRANSMISSION, _A.SEND_TRYING)),
    (_S.PROCEEDING, _I.TIMER_UNANSWERED): (_S.TERMINATED, (_A.UNANSWERED, _A.TERMINATED)),
    (_S.PROCEEDING, _I.SEND_PROVISIONAL): (_S.PROCEEDING, (_A.STOP_RETRANSMISSION, _A.SEND)),
    (_S.PROCEEDING, _I.SEND_SUCCESS): (_S.ACCEPTED, (_A.SEND, _A.START_G_ALWAYS, _A.START_L)),
    (_S.PROCEEDING, _I.SEND_FAILURE): (
        _S.COMPLETED,
        (_A.STOP_RETRANSMISSION, _A.SEND, _A.START_G, _A.START_H),
    ),
    (_S.PROCEEDING, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TERMINATED,)),
    (_S.ACCEPTED, _I.TIMER_G): (_S.ACCEPTED, (_A.SEND, _A.BACK_OFF)),
    (_S.ACCEPTED, _I.ACK): (_S.ACCEPTED, (_A.STOP_RETRANSMISSION, _A.ACKNOWLEDGED)),
    (_S.ACCEPTED, _I.SEND_SUCCESS): (_S.ACCEPTED, (_A.SEND,)),
    (_S.ACCEPTED, _I.TIMER_L): (_S.TERMINATED, (_A.NOT_ACKNOWLEDGED, _A.TERMINATED)),
    (_S.ACCEPTED, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.NOT_ACKNOWLEDGED, _A.TERMINATED)),
    (_S.COMPLETED, _I.REQUEST): (_S.COMPLETED, (_A.SEND,)),
    (_S.COMPLETED, _I.TIMER_G): (_S.COMPLETED, (_A.SEND, _A.BACK_OFF)),
    (_S.COMPLETED, _I.TIMER_H): (_S.TERMINATED, (_A.TERMINATED,)),
    (_S.COMPLETED, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TERMINATED,)),
    (_S.COMPLETED, _I.ACK): (_S.CONFIRMED, (_A.STOP_RETRANSMISSION, _A.START_I)),
    (_S.CONFIRMED, _I.TIMER_I): (_S.TERMINATED, (_A.TERMINATED,)),
}
"""RFC 3261 figure 7 as changed by RFC 6026 figure 4. `NOT_ACKNOWLEDGED` has no effect after an ACK."""

NON_INVITE: Final[Table] = {
    (_S.TRYING, _I.SEND_PROVISIONAL): (_S.PROCEEDING, (_A.SEND,)),
    (_S.TRYING, _I.SEND_SUCCESS): (_S.COMPLETED, (_A.SEND, _A.START_J)),
    (_S.TRYING, _I.SEND_FAILURE): (_S.COMPLETED, (_A.SEND, _A.START_J)),
    (_S.TRYING, _I.TIMER_UNANSWERED): (_S.TERMINATED, (_A.UNANSWERED, _A.TERMINATED)),
    (_S.TRYING, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TERMINATED,)),
    (_S.PROCEEDING, _I.REQUEST): (_S.PROCEEDING, (_A.SEND,)),
    (_S.PROCEEDING, _I.SEND_PROVISIONAL): (_S.PROCEEDING, (_A.SEND,)),
    (_S.PROCEEDING, _I.SEND_SUCCESS): (_S.COMPLETED, (_A.SEND, _A.START_J)),
    (_S.PROCEEDING, _I.SEND_FAILURE): (_S.COMPLETED, (_A.SEND, _A.START_J)),
    (_S.PROCEEDING, _I.TIMER_UNANSWERED): (_S.TERMINATED, (_A.UNANSWERED, _A.TERMINATED)),
    (_S.PROCEEDING, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TERMINATED,)),
    (_S.COMPLETED, _I.REQUEST): (_S.COMPLETED, (_A.SEND,)),
    (_S.COMPLETED, _I.TIMER_J): (_S.TERMINATED, (_A.TERMINATED,)),
    (_S.COMPLETED, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TERMINATED,)),
}
"""RFC 3261 figure 8."""

_SENDING: Final = frozenset({_I.SEND_PROVISIONAL, _I.SEND_SUCCESS, _I.SEND_FAILURE})

_LIFE: Final[Mapping[Action, tuple[Input, Callable[[Timers], float], bool]]] = {
    # action: (input when it fires, duration, zero over a reliable transport)
    _A.START_H: (_I.TIMER_H, lambda timers: timers.h, False),
    _A.START_I: (_I.TIMER_I, lambda timers: timers.i, True),
    _A.START_L: (_I.TIMER_L, lambda timers: timers.l, False),
}


def input_for(status: int) -> Input:
    """The input that sending a response of this status is."""
    if status >= 300:
        return Input.SEND_FAILURE
    return Input.SEND_SUCCESS if status >= 200 else Input.SEND_PROVISIONAL


def _row(table: Table, state: State, happened: Input) -> tuple[State, tuple[Action, ...]] | None:
    row = table.get((state, happened))
    if row is None and happened in _SENDING:
        raise LocalProtocolError(f"a response cannot be sent in state {state.name}")
    return row


class ServerTransaction:
    """A request that is not INVITE, until it can no longer come again. Owned by the endpoint."""

    __slots__ = ("answered_late", "expires_at", "id", "path", "response", "source", "state", "transient")

    def __init__(self, transaction_id: str, path: Path, expires_at: float) -> None:
        self.id = transaction_id
        self.path = path
        """Where the request came from last; the response follows a moved NAT port."""
        self.state = State.TRYING
        self.response = b""
        self.expires_at = expires_at
        """Place in the endpoint's queue: 64*T1 after the request came."""
        self.answered_late = False
        """Its Timer J runs in the endpoint's second queue, since its answer took a while."""
        self.source = ""
        """Host that has not proved itself; empty for those that have. Kept by the endpoint."""
        self.transient = False
        """Forget it with its answer: the source has its share of transactions already."""

    def handle(self, happened: Input) -> tuple[Action, ...]:
        """Move by the table; START_J is returned too, since the endpoint owns the queue."""
        row = _row(NON_INVITE, self.state, happened)
        if row is None:
            return ()
        self.state, actions = row
        return actions


class InviteServerTransaction:
    """An INVITE from a peer. Owned by the endpoint."""

    __slots__ = (
        "acknowledged",
        "id",
        "life_at",
        "life_input",
        "path",
        "request",
        "response",
        "retransmission_interval",
        "retransmit_at",
        "retransmit_input",
        "scheduled_at",
        "state",
        "timers",
        "to_tag",
    )

    def __init__(self, transaction_id: str, request: Request, path: Path, timers: Timers, now: float) -> None:
        self.id = transaction_id
        self.request = request
        self.path = path
        self.timers = timers
        self.state = State.PROCEEDING
        self.response = b""
        """Newest response; empty until one was sent."""
        self.to_tag = ""
        """Tag of ours in the final response; the ACK of a 2xx is matched by it."""
        self.acknowledged = False
        self.retransmit_input = Input.TIMER_TRYING
        self.retransmit_at = now + timers.trying
        self.retransmission_interval = timers.t1
        self.life_input = Input.TIMER_UNANSWERED
        self.life_at = now + timers.c
        self.scheduled_at = inf
        """When the endpoint's timer queue wakes this transaction next; kept by the endpoint."""

    def next_timer(self) -> float:
        """When `due` has something to say; infinity for never."""
        return self.retransmit_at if self.retransmit_at < self.life_at else self.life_at

    def due(self, now: float) -> Input | None:
        """The timer that has fired by `now`, the life timer first."""
        if self.life_at <= now:
            return self.life_input
        if self.retransmit_at <= now:
            return self.retransmit_input
        return None

    def handle(self, happened: Input, now: float) -> tuple[Action, ...]:
        """Move by the table and return what the endpoint has to do."""
        row = _row(INVITE, self.state, happened)
        if row is None:
            return ()
        self.state, wanted = row
        todo: list[Action] = []
        for action in wanted:
            if action is Action.ACKNOWLEDGED:
                # A repeated ACK answers a repeated 2xx; the user hears of the first one only.
                if not self.acknowledged:
                    todo.append(action)
                self.acknowledged = True
            elif action is Action.NOT_ACKNOWLEDGED:
                if not self.acknowledged:
                    todo.append(action)
            elif action <= Action.TERMINATED:
                todo.append(action)
            else:
                self._do(action, now, todo)
        if self.state is State.TERMINATED:
            self.retransmit_at = self.life_at = inf
        return tuple(todo)

    def _do(self, action: Action, now: float, todo: list[Action]) -> None:
        life = _LIFE.get(action)
        if life is not None:
            self.life_input, duration, zero_when_reliable = life
            if zero_when_reliable and self.path.reliable:
                self.state = State.TERMINATED
                todo.append(Action.TERMINATED)
            else:
                self.life_at = now + duration(self.timers)
        elif action is Action.START_G_ALWAYS or (action is Action.START_G and not self.path.reliable):
            self.retransmit_input = Input.TIMER_G
            self.retransmission_interval = self.timers.g
            self.retransmit_at = now + self.retransmission_interval
        elif action is Action.BACK_OFF:
            self.retransmission_interval = min(2 * self.retransmission_interval, self.timers.t2)
            self.retransmit_at = now + self.retransmission_interval
        elif action is Action.STOP_RETRANSMISSION:
            self.retransmit_at = inf
