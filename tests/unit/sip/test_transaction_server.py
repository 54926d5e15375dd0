from __future__ import annotations

from math import inf

import pytest

from gb28181gw.sip.exceptions import LocalProtocolError
from gb28181gw.sip.timers import Timers
from gb28181gw.sip.transaction_server import (
    INVITE,
    NON_INVITE,
    Action,
    Input,
    InviteServerTransaction,
    ServerTransaction,
    State,
    input_for,
)
from tests.support.sip_network import incoming, path

TCP = path(transport="tcp", connection=7)


def invited(*, over: object = None) -> InviteServerTransaction:
    return InviteServerTransaction("id", incoming("INVITE"), path() if over is None else TCP, Timers(), 0.0)


def run_until(transaction: InviteServerTransaction, end: float) -> list[tuple[float, Input]]:
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


@pytest.mark.parametrize(
    ("status", "happened"),
    [
        (100, Input.SEND_PROVISIONAL),
        (199, Input.SEND_PROVISIONAL),
        (200, Input.SEND_SUCCESS),
        (302, Input.SEND_FAILURE),
    ],
)
def test_status_decides_the_input(status: int, happened: Input) -> None:
    assert input_for(status) is happened


def test_invite_gets_100_after_200_ms_and_only_once() -> None:
    transaction = invited()
    assert transaction.due(0.19) is None
    assert transaction.due(0.2) is Input.TIMER_TRYING
    assert transaction.handle(Input.TIMER_TRYING, 0.2) == (Action.SEND_TRYING,)
    assert run_until(transaction, 179) == []


def test_invite_answered_in_time_gets_no_100_by_itself() -> None:
    transaction = invited()
    assert transaction.handle(Input.SEND_PROVISIONAL, 0.1) == (Action.SEND,)
    assert run_until(transaction, 100) == []
    assert transaction.handle(Input.REQUEST, 1.0) == (Action.SEND,)


def test_invite_failure_is_repeated_up_to_t2_until_timer_h() -> None:
    transaction = invited()
    assert transaction.handle(Input.SEND_FAILURE, 0.0) == (Action.SEND,)
    fired = run_until(transaction, 100)
    assert [when for when, _ in fired] == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5, 32.0]
    assert fired[-1][1] is Input.TIMER_H
    assert transaction.state is State.TERMINATED


def test_ack_ends_the_repetition_and_timer_i_absorbs_more_of_them() -> None:
    transaction = invited()
    transaction.handle(Input.SEND_FAILURE, 0.0)
    assert transaction.handle(Input.ACK, 1.0) == ()
    assert transaction.state is State.CONFIRMED
    assert transaction.handle(Input.ACK, 2.0) == ()
    assert transaction.handle(Input.REQUEST, 2.0) == ()
    assert run_until(transaction, 100) == [(6.0, Input.TIMER_I)]


def test_reliable_transport_turns_g_off_and_makes_i_zero() -> None:
    transaction = invited(over=TCP)
    transaction.handle(Input.SEND_FAILURE, 0.0)
    assert transaction.next_timer() == 32.0
    assert transaction.handle(Input.ACK, 1.0) == (Action.TERMINATED,)


@pytest.mark.parametrize("over", [None, TCP])
def test_2xx_is_repeated_until_its_ack_over_every_transport(over: object) -> None:
    transaction = invited(over=over)
    assert transaction.handle(Input.SEND_SUCCESS, 0.0) == (Action.SEND,)
    assert run_until(transaction, 4.0) == [
        (0.5, Input.TIMER_G),
        (1.5, Input.TIMER_G),
        (3.5, Input.TIMER_G),
    ]
    assert transaction.handle(Input.REQUEST, 4.0) == ()  # RFC 6026: absorbed
    assert transaction.handle(Input.ACK, 4.0) == (Action.ACKNOWLEDGED,)
    assert transaction.handle(Input.ACK, 4.1) == ()  # heard once
    assert run_until(transaction, 31.9) == []
    assert transaction.handle(Input.TIMER_L, 32.0) == (Action.TERMINATED,)


def test_2xx_without_ack_is_reported_at_timer_l() -> None:
    transaction = invited()
    transaction.handle(Input.SEND_SUCCESS, 0.0)
    run_until(transaction, 31.9)
    assert transaction.handle(Input.TIMER_L, 32.0) == (Action.NOT_ACKNOWLEDGED, Action.TERMINATED)


def test_nobody_answers_the_invite_and_it_is_forgotten() -> None:
    transaction = invited()
    run_until(transaction, 179)
    assert transaction.handle(Input.TIMER_UNANSWERED, 180.0) == (Action.UNANSWERED, Action.TERMINATED)


@pytest.mark.parametrize("final", [Input.SEND_SUCCESS, Input.SEND_FAILURE])
@pytest.mark.parametrize("second", [Input.SEND_FAILURE, Input.SEND_PROVISIONAL])
def test_a_second_final_answer_to_invite_is_our_own_mistake(final: Input, second: Input) -> None:
    transaction = invited()
    transaction.handle(final, 0.0)
    with pytest.raises(LocalProtocolError):
        transaction.handle(second, 1.0)


def test_non_invite_absorbs_before_the_answer_and_repeats_it_after() -> None:
    transaction = ServerTransaction("id", path(), 32.0)
    assert transaction.handle(Input.REQUEST) == ()
    assert transaction.handle(Input.SEND_SUCCESS) == (Action.SEND, Action.START_J)
    assert transaction.handle(Input.REQUEST) == (Action.SEND,)
    assert transaction.state is State.COMPLETED


def test_non_invite_provisional_is_repeated_for_a_repeated_request() -> None:
    transaction = ServerTransaction("id", path(), 32.0)
    assert transaction.handle(Input.SEND_PROVISIONAL) == (Action.SEND,)
    assert transaction.handle(Input.REQUEST) == (Action.SEND,)
    assert transaction.handle(Input.SEND_FAILURE) == (Action.SEND, Action.START_J)


@pytest.mark.parametrize("second", [Input.SEND_SUCCESS, Input.SEND_FAILURE, Input.SEND_PROVISIONAL])
def test_a_second_final_answer_is_our_own_mistake(second: Input) -> None:
    transaction = ServerTransaction("id", path(), 32.0)
    transaction.handle(Input.SEND_SUCCESS)
    with pytest.raises(LocalProtocolError):
        transaction.handle(second)


@pytest.mark.parametrize("over", [None, TCP])
def test_no_input_sequence_leaves_a_timer_without_a_row(over: object) -> None:
    happenings = [
        Input.REQUEST,
        Input.ACK,
        Input.SEND_PROVISIONAL,
        Input.SEND_SUCCESS,
        Input.SEND_FAILURE,
        Input.TRANSPORT_ERROR,
    ]
    for first in happenings:
        for second in happenings:
            for third in happenings:
                transaction = invited(over=over)
                for when, happened in enumerate((first, second, third), start=1):
                    try:
                        transaction.handle(happened, when / 10)
                    except LocalProtocolError:
                        continue
                while (when_due := transaction.next_timer()) < inf:
                    due = transaction.due(when_due)
                    assert due is not None
                    assert (transaction.state, due) in INVITE
                    transaction.handle(due, when_due)
                assert transaction.state is State.TERMINATED
