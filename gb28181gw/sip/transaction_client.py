"""Client transactions: RFC 3261 17.1 with the *Accepted* state of RFC 6026.

Theory of operation
===================

A machine is a table: ``(state, input) -> (next state, actions)``. `ClientTransaction.handle` looks the row up, moves
to the next state, starts and stops its own timers, and hands the remaining actions to the endpoint, which owns
messages and sending. A pair that has no row is a defined outcome as well: nothing happens (a provisional response
after the final one, a cancel of something that ended) and the endpoint counts it as ignored.

A transaction has at most two running timers, which is why two slots replace a set of timers:

* the *retransmission* timer: A or E; absent over reliable transports;
* the *life* timer, which ends the present state: B, C, D or M for INVITE, F or K for the others. Timer F keeps
  running from Trying into Proceeding.

INVITE::

              START                     PROVISIONAL                  300-699
    (new) ------------> CALLING ---------------------> PROCEEDING ------------> COMPLETED --D--> TERMINATED
                        |  |  `---- 300-699 (ACK) -----------------------------^  (each repeated one is ACKed)
                        |  `------- 2xx --------> ACCEPTED <-- 2xx -- PROCEEDING
                        `-- B, transport -> TERMINATED   `-- M --> TERMINATED

* The ACK of 300-699 belongs to the transaction; the ACK of a 2xx belongs to the user, who therefore gets every
  2xx, the repeated ones too (RFC 6026 8.4), and sends its ACK again.
* CANCEL (RFC 3261 9.1) may leave only after a provisional response. Asked for earlier, the transaction notes it,
  stops to repeat the INVITE, and sends the CANCEL with the first provisional response. After the CANCEL the final
  response has 64*T1 to come. Timer C bounds Proceeding where nobody cancels.

Others::

    (new) --> TRYING --1xx--> PROCEEDING --200-699--> COMPLETED --K--> TERMINATED
                 `------------200-699-------------------^
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum, auto
from math import inf
from typing import Final

from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path
from gb28181gw.sip.timers import Timers


class State(IntEnum):
    """States of both client machines; INVITE uses CALLING and ACCEPTED, the others TRYING."""

    CALLING = auto()
    TRYING = auto()
    PROCEEDING = auto()
    ACCEPTED = auto()
    COMPLETED = auto()
    TERMINATED = auto()


class Input(IntEnum):
    """What can happen to a client transaction."""

    START = auto()
    PROVISIONAL = auto()
    SUCCESS = auto()
    FAILURE = auto()
    CANCEL = auto()
    TRANSPORT_ERROR = auto()
    TIMER_A = auto()
    TIMER_B = auto()
    TIMER_C = auto()
    TIMER_D = auto()
    TIMER_E = auto()
    TIMER_F = auto()
    TIMER_K = auto()
    TIMER_M = auto()


class Action(IntEnum):
    """What the machine asks for. Up to `TERMINATED` they are the endpoint's; the rest the transaction does itself."""

    SEND = auto()
    """Send the request, or send it again."""
    ACK = auto()
    """Send the ACK of a 300-699 response (RFC 3261 17.1.1.3)."""
    SEND_CANCEL = auto()
    DELIVER = auto()
    """Give the response to the user."""
    TIMED_OUT = auto()
    TRANSPORT_FAILED = auto()
    TERMINATED = auto()
    """Forget the transaction."""
    NOTE_CANCEL = auto()
    CANCEL_IF_NOTED = auto()
    BACK_OFF = auto()
    """Double the retransmission interval (E: up to T2)."""
    SLOW_DOWN = auto()
    """Retransmit every T2 from now on."""
    STOP_RETRANSMISSION = auto()
    START_A = auto()
    START_B = auto()
    START_C = auto()
    START_D = auto()
    START_E = auto()
    START_F = auto()
    START_K = auto()
    START_M = auto()


_S, _I, _A = State, Input, Action

Table = Mapping[tuple[State, Input], tuple[State, tuple[Action, ...]]]

INVITE: Final[Table] = {
    (_S.CALLING, _I.START): (_S.CALLING, (_A.SEND, _A.START_A, _A.START_B)),
    (_S.CALLING, _I.TIMER_A): (_S.CALLING, (_A.SEND, _A.BACK_OFF)),
    (_S.CALLING, _I.TIMER_B): (_S.TERMINATED, (_A.TIMED_OUT, _A.TERMINATED)),
    (_S.CALLING, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TRANSPORT_FAILED, _A.TERMINATED)),
    (_S.CALLING, _I.CANCEL): (_S.CALLING, (_A.NOTE_CANCEL, _A.STOP_RETRANSMISSION)),
    (_S.CALLING, _I.PROVISIONAL): (
        _S.PROCEEDING,
        (_A.STOP_RETRANSMISSION, _A.START_C, _A.CANCEL_IF_NOTED, _A.DELIVER),
    ),
    (_S.CALLING, _I.SUCCESS): (_S.ACCEPTED, (_A.STOP_RETRANSMISSION, _A.START_M, _A.DELIVER)),
    (_S.CALLING, _I.FAILURE): (_S.COMPLETED, (_A.STOP_RETRANSMISSION, _A.ACK, _A.DELIVER, _A.START_D)),
    (_S.PROCEEDING, _I.PROVISIONAL): (_S.PROCEEDING, (_A.DELIVER,)),
    (_S.PROCEEDING, _I.CANCEL): (_S.PROCEEDING, (_A.NOTE_CANCEL, _A.CANCEL_IF_NOTED)),
    (_S.PROCEEDING, _I.SUCCESS): (_S.ACCEPTED, (_A.START_M, _A.DELIVER)),
    (_S.PROCEEDING, _I.FAILURE): (_S.COMPLETED, (_A.ACK, _A.DELIVER, _A.START_D)),
    (_S.PROCEEDING, _I.TIMER_B): (_S.TERMINATED, (_A.TIMED_OUT, _A.TERMINATED)),
    (_S.PROCEEDING, _I.TIMER_C): (_S.TERMINATED, (_A.TIMED_OUT, _A.TERMINATED)),
    (_S.PROCEEDING, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TRANSPORT_FAILED, _A.TERMINATED)),
    (_S.ACCEPTED, _I.SUCCESS): (_S.ACCEPTED, (_A.DELIVER,)),
    (_S.ACCEPTED, _I.TIMER_M): (_S.TERMINATED, (_A.TERMINATED,)),
    (_S.COMPLETED, _I.FAILURE): (_S.COMPLETED, (_A.ACK,)),
    (_S.COMPLETED, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TERMINATED,)),
    (_S.COMPLETED, _I.TIMER_D): (_S.TERMINATED, (_A.TERMINATED,)),
}
"""RFC 3261 figure 5 as changed by RFC 6026 figure 3, with CANCEL (9.1) and Timer C."""

NON_INVITE: Final[Table] = {
    (_S.TRYING, _I.START): (_S.TRYING, (_A.SEND, _A.START_E, _A.START_F)),
    (_S.TRYING, _I.TIMER_E): (_S.TRYING, (_A.SEND, _A.BACK_OFF)),
    (_S.TRYING, _I.TIMER_F): (_S.TERMINATED, (_A.TIMED_OUT, _A.TERMINATED)),
    (_S.TRYING, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TRANSPORT_FAILED, _A.TERMINATED)),
    (_S.TRYING, _I.PROVISIONAL): (_S.PROCEEDING, (_A.SLOW_DOWN, _A.DELIVER)),
    (_S.TRYING, _I.SUCCESS): (_S.COMPLETED, (_A.STOP_RETRANSMISSION, _A.DELIVER, _A.START_K)),
    (_S.TRYING, _I.FAILURE): (_S.COMPLETED, (_A.STOP_RETRANSMISSION, _A.DELIVER, _A.START_K)),
    (_S.PROCEEDING, _I.PROVISIONAL): (_S.PROCEEDING, (_A.DELIVER,)),
    (_S.PROCEEDING, _I.TIMER_E): (_S.PROCEEDING, (_A.SEND, _A.SLOW_DOWN)),
    (_S.PROCEEDING, _I.TIMER_F): (_S.TERMINATED, (_A.TIMED_OUT, _A.TERMINATED)),
    (_S.PROCEEDING, _I.TRANSPORT_ERROR): (_S.TERMINATED, (_A.TRANSPORT_FAILED, _A.TERMINATED)),
    (_S.PROCEEDING, _I.SUCCESS): (_S.COMPLETED, (_A.STOP_RETRANSMISSION, _A.DELIVER, _A.START_K)),
    (_S.PROCEEDING, _I.FAILURE): (_S.COMPLETED, (_A.STOP_RETRANSMISSION, _A.DELIVER, _A.START_K)),
    (_S.COMPLETED, _I.TIMER_K): (_S.TERMINATED, (_A.TERMINATED,)),
}
"""RFC 3261 figure 6."""

_LIFE: Final[Mapping[Action, tuple[Input, Callable[[Timers], float], bool]]] = {
    # action: (input when it fires, duration, zero over a reliable transport)
    _A.START_B: (_I.TIMER_B, lambda timers: timers.b, False),
    _A.START_C: (_I.TIMER_C, lambda timers: timers.c, False),
    _A.START_D: (_I.TIMER_D, lambda timers: timers.d, True),
    _A.START_F: (_I.TIMER_F, lambda timers: timers.f, False),
    _A.START_K: (_I.TIMER_K, lambda timers: timers.k, True),
    _A.START_M: (_I.TIMER_M, lambda timers: timers.m, False),
}


class ClientTransaction:
    """One request of ours until its transaction is over. Owned by the endpoint; makes no message itself."""

    __slots__ = (
        "call",
        "cancel_noted",
        "cancel_sent",
        "data",
        "id",
        "internal",
        "invite",
        "is_invite",
        "life_at",
        "life_input",
        "path",
        "retransmission_interval",
        "retransmit_at",
        "scheduled_at",
        "state",
        "timers",
    )

    def __init__(
        self,
        transaction_id: str,
        request: Request,
        data: bytes,
        path: Path,
        timers: Timers,
        *,
        internal: bool = False,
    ) -> None:
        self.id = transaction_id
        self.is_invite = request.method == "INVITE"
        self.invite = request if self.is_invite else None
        """What CANCEL and the ACK of a failure are made from; other requests are not needed once they are sent."""
        self.call = (request.call_id, request.cseq.number, request.method)
        self.data = data
        """The request as sent; retransmissions are byte for byte the same. Empty when there will be none."""
        self.path = path
        self.timers = timers
        self.internal = internal
        """True for the CANCEL that the endpoint sends by itself: nobody waits for its response."""
        self.state = State.CALLING if self.is_invite else State.TRYING
        self.cancel_noted = False
        self.cancel_sent = False
        self.retransmit_at = inf
        self.retransmission_interval = timers.t1
        self.life_at = inf
        self.life_input = Input.TIMER_F
        self.scheduled_at = inf
        """When the endpoint's timer queue wakes this transaction next; kept by the endpoint."""

    def next_timer(self) -> float:
        """When `due` has something to say; infinity for never."""
        return self.retransmit_at if self.retransmit_at < self.life_at else self.life_at

    def due(self, now: float) -> Input | None:
        """The timer that has fired by `now`, the life timer first: what is over is not sent again."""
        if self.life_at <= now:
            return self.life_input
        if self.retransmit_at <= now:
            return Input.TIMER_A if self.is_invite else Input.TIMER_E
        return None

    def handle(self, happened: Input, now: float) -> tuple[Action, ...]:
        """Move by the table and return what the endpoint has to do. An empty tuple: the input means nothing here."""
        row = (INVITE if self.is_invite else NON_INVITE).get((self.state, happened))
        if row is None:
            return ()
        self.state, wanted = row
        todo: list[Action] = []
        for action in wanted:
            if action <= Action.TERMINATED:
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
            if action is Action.START_K:
                self.data = b""  # it has its answer and is not sent again
            if zero_when_reliable and self.path.reliable:
                self.state = State.TERMINATED
                todo.append(Action.TERMINATED)
            else:
                self.life_at = now + duration(self.timers)
        elif action is Action.START_A or action is Action.START_E:
            if not self.path.reliable:
                self.retransmission_interval = self.timers.t1
                self.retransmit_at = now + self.retransmission_interval
        elif action is Action.BACK_OFF:
            self.retransmission_interval *= 2
            if not self.is_invite:
                self.retransmission_interval = min(self.retransmission_interval, self.timers.t2)
            self.retransmit_at = now + self.retransmission_interval
        elif action is Action.SLOW_DOWN:
            if not self.path.reliable:
                self.retransmission_interval = self.timers.t2
                self.retransmit_at = now + self.timers.t2
        elif action is Action.STOP_RETRANSMISSION:
            self.retransmit_at = inf
        elif action is Action.NOTE_CANCEL:
            self.cancel_noted = True
        elif action is Action.CANCEL_IF_NOTED and self.cancel_noted and not self.cancel_sent:
            self.cancel_sent = True
            self.life_input, self.life_at = Input.TIMER_B, now + self.timers.b
            todo.append(Action.SEND_CANCEL)
