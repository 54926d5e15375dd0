from __future__ import annotations

from math import inf

import pytest

from gb28181gw.sip.timers import Timers
from gb28181gw.sip.transaction_client import (
    INVITE,
    NON_INVITE,
    Action,
    ClientTransaction,
    Input,
    State,
)
from tests.support.sip_network import path, request

TCP = path(transport="tcp", connection=7)


def made(method: str = "MESSAGE", *, over: object = None) -> ClientTransaction:
    transaction = ClientTransaction("id", request(method), b"data", path() if over is None else TCP, Timers())
    assert transaction.handle(Input.START, 0.0) == (Action.SEND,)
    return transaction


def run_until(transaction: ClientTransaction, end: float) -> list[tuple[float, Input]]:
    """Fire timers as the endpoint does; when which one fired."""
    fired = []
    while (when := transaction.next_timer()) <= end:
        due = transaction.due(when)
        assert due is not None
        fired.append((when, due))
        transaction.handle(due, when)
    return fired


@pytest.mark.parametrize("table", [INVITE, NON_INVITE])
def test_every_state_can_end_and_terminated_is_final(table: dict) -> None:
    states = {state for state, _ in table}
    assert State.TERMINATED not in states
    reach = {State.TERMINATED}
    for _ in states:
        reach |= {state for (state, _), (following, _) in table.items() if following in reach}
    assert reach == states | {State.TERMINATED}


@pytest.mark.parametrize("table", [INVITE, NON_INVITE])
def test_a_row_that_ends_says_so(table: dict) -> None:
    for (state, happened), (following, actions) in table.items():
        assert (Action.TERMINATED in actions) == (following is State.TERMINATED), (state, happened)


def test_invite_is_repeated_at_doubling_intervals_until_timer_b() -> None:
    fired = run_until(made("INVITE"), 100)
    assert fired == [
        (0.5, Input.TIMER_A),
        (1.5, Input.TIMER_A),
        (3.5, Input.TIMER_A),
        (7.5, Input.TIMER_A),
        (15.5, Input.TIMER_A),
        (31.5, Input.TIMER_A),
        (32.0, Input.TIMER_B),
    ]


def test_non_invite_is_repeated_up_to_every_t2_until_timer_f() -> None:
    fired = run_until(made(), 100)
    assert [when for when, _ in fired] == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5, 32.0]
    assert fired[-1][1] is Input.TIMER_F


def test_over_a_reliable_transport_nothing_is_repeated() -> None:
    assert run_until(made(over=TCP), 100) == [(32.0, Input.TIMER_F)]
    assert run_until(made("INVITE", over=TCP), 100) == [(32.0, Input.TIMER_B)]


def test_invite_failure_is_acked_each_time_and_delivered_once() -> None:
    transaction = made("INVITE")
    assert transaction.handle(Input.FAILURE, 1.0) == (Action.ACK, Action.DELIVER)
    assert transaction.state is State.COMPLETED
    assert transaction.handle(Input.FAILURE, 2.0) == (Action.ACK,)
    assert run_until(transaction, 100) == [(33.0, Input.TIMER_D)]
    assert transaction.state is State.TERMINATED


def test_timers_d_and_k_are_zero_over_a_reliable_transport() -> None:
    invite = made("INVITE", over=TCP)
    assert invite.handle(Input.FAILURE, 1.0) == (Action.ACK, Action.DELIVER, Action.TERMINATED)
    other = made(over=TCP)
    assert other.handle(Input.SUCCESS, 1.0) == (Action.DELIVER, Action.TERMINATED)
    assert invite.state is other.state is State.TERMINATED
    assert invite.next_timer() == other.next_timer() == inf


def test_invite_success_every_2xx_is_delivered_until_timer_m() -> None:
    transaction = made("INVITE")
    assert transaction.handle(Input.SUCCESS, 1.0) == (Action.DELIVER,)
    assert transaction.state is State.ACCEPTED
    assert transaction.handle(Input.SUCCESS, 2.0) == (Action.DELIVER,)
    assert transaction.handle(Input.FAILURE, 3.0) == ()
    assert transaction.handle(Input.PROVISIONAL, 3.0) == ()
    assert run_until(transaction, 100) == [(33.0, Input.TIMER_M)]


def test_invite_provisional_stops_repetition_and_starts_timer_c() -> None:
    transaction = made("INVITE")
    assert transaction.handle(Input.PROVISIONAL, 1.0) == (Action.DELIVER,)
    assert transaction.handle(Input.PROVISIONAL, 2.0) == (Action.DELIVER,)
    assert run_until(transaction, 1000) == [(181.0, Input.TIMER_C)]


def test_cancel_after_a_provisional_response_leaves_at_once_and_bounds_the_wait() -> None:
    transaction = made("INVITE")
    transaction.handle(Input.PROVISIONAL, 1.0)
    assert transaction.handle(Input.CANCEL, 2.0) == (Action.SEND_CANCEL,)
    assert transaction.handle(Input.CANCEL, 3.0) == ()
    assert run_until(transaction, 1000) == [(34.0, Input.TIMER_B)]


def test_cancel_before_a_provisional_response_waits_for_one() -> None:
    transaction = made("INVITE")
    assert transaction.handle(Input.CANCEL, 0.2) == ()
    assert run_until(transaction, 20.0) == []  # the INVITE is not repeated any more
    assert transaction.handle(Input.PROVISIONAL, 20.0) == (Action.SEND_CANCEL, Action.DELIVER)
    assert run_until(transaction, 1000) == [(52.0, Input.TIMER_B)]


@pytest.mark.parametrize("happened", [Input.SUCCESS, Input.FAILURE])
def test_cancel_after_the_final_response_does_nothing(happened: Input) -> None:
    transaction = made("INVITE")
    transaction.handle(happened, 1.0)
    assert transaction.handle(Input.CANCEL, 2.0) == ()


def test_non_invite_provisional_slows_repetition_to_t2_and_timer_f_goes_on() -> None:
    transaction = made()
    assert transaction.handle(Input.PROVISIONAL, 1.0) == (Action.DELIVER,)
    fired = run_until(transaction, 100)
    assert [when for when, _ in fired] == [5.0, 9.0, 13.0, 17.0, 21.0, 25.0, 29.0, 32.0]
    assert transaction.state is State.TERMINATED


def test_non_invite_final_response_is_delivered_once() -> None:
    transaction = made()
    assert transaction.handle(Input.FAILURE, 1.0) == (Action.DELIVER,)
    assert transaction.handle(Input.FAILURE, 2.0) == ()
    assert transaction.handle(Input.SUCCESS, 2.0) == ()
    assert run_until(transaction, 100) == [(6.0, Input.TIMER_K)]


@pytest.mark.parametrize("method", ["INVITE", "BYE"])
@pytest.mark.parametrize("before", [(), (Input.PROVISIONAL,)])
def test_transport_error_ends_it(method: str, before: tuple[Input, ...]) -> None:
    transaction = made(method)
    for happened in before:
        transaction.handle(happened, 0.1)
    assert transaction.handle(Input.TRANSPORT_ERROR, 0.2) == (Action.TRANSPORT_FAILED, Action.TERMINATED)
    assert transaction.next_timer() == inf


@pytest.mark.parametrize("method", ["INVITE", "BYE"])
@pytest.mark.parametrize("over", [None, TCP])
def test_no_input_sequence_leaves_a_timer_without_a_row(method: str, over: object) -> None:
    """Whatever happens, the timer that fires next is one that the present state knows."""
    table = INVITE if method == "INVITE" else NON_INVITE
    network = [Input.PROVISIONAL, Input.SUCCESS, Input.FAILURE, Input.CANCEL, Input.TRANSPORT_ERROR]
    for first in network:
        for second in network:
            for third in network:
                transaction = made(method, over=over)
                for when, happened in enumerate((first, second, third), start=1):
                    transaction.handle(happened, when / 10)
                while (when_due := transaction.next_timer()) < inf:
                    due = transaction.due(when_due)
                    assert due is not None
                    assert (transaction.state, due) in table
                    transaction.handle(due, when_due)
                assert transaction.state is State.TERMINATED
