"""Two endpoints over a bad network (F-04): whatever is lost, repeated or late, each request has one outcome."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.events import (
    AckReceived,
    CancelReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    TimedOut,
    TransactionTerminated,
)
from gb28181gw.sip.message import Response
from gb28181gw.sip.timers import Timers
from tests.support.sip_network import Chaos, Network, reply, request

BEHAVIOURS = ("answer", "refuse", "ring_then_answer", "trying_then_silence", "silence")


class Users:
    """Alice asks and counts outcomes; Bob behaves as each request's body tells him and counts what he was asked."""

    def __init__(self, network: Network) -> None:
        self.network = network
        network.on_alice, network.on_bob = self.alice, self.bob
        self.outcomes: dict[str, list[str]] = {}
        self.invites: dict[str, str] = {}
        """Transaction -> Call-ID of those without an outcome."""
        self.asked: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.later: list[tuple[float, RequestReceived, int]] = []
        self.bob_invites: dict[str, RequestReceived] = {}
        self.bob_finals: set[str] = set()
        self.acknowledged: set[str] = set()
        self.agreed: dict[str, str] = {}
        """Bob's transaction of each INVITE that he accepted -> Call-ID."""
        self.number = 0

    def ask(self, method: str, behaviour: str) -> None:
        self.number += 1
        call_id = f"{method}-{self.number}"
        message = request(method, call_id=call_id, cseq=self.number, body=behaviour.encode())
        transaction = self.network.alice.send_request(message, self.network.to_bob, self.network.now)
        self.outcomes[transaction] = []
        if method == "INVITE":
            self.invites[transaction] = call_id
        self.network.collect()

    def cancel_all(self) -> None:
        for transaction in list(self.invites):
            self.network.alice.cancel(transaction, self.network.now)
        self.network.collect()

    def alice(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            if event.response.status < 200:
                return
            if event.response.status < 300 and event.response.cseq.method == "INVITE":
                self._acknowledge(event)
                if "accepted" in self.outcomes[event.transaction_id]:
                    return
                self._outcome(event.transaction_id, "accepted")
            else:
                self._outcome(event.transaction_id, str(event.response.status))
        elif isinstance(event, TimedOut):
            self._outcome(event.transaction_id, "timed out")
        elif isinstance(event, TransactionTerminated):
            self.ended.add(event.transaction_id)

    def _outcome(self, transaction: str, outcome: str) -> None:
        self.outcomes[transaction].append(outcome)
        self.invites.pop(transaction, None)

    def _acknowledge(self, event: ResponseReceived) -> None:
        invite = request("INVITE", call_id=event.response.call_id, cseq=event.response.cseq.number)
        dialog = Dialog.as_uac(invite, event.response, self.network.to_bob)
        self.network.alice.send_ack(dialog.request("ACK"), self.network.to_bob)

    def bob(self, event: Event) -> None:
        network = self.network
        if isinstance(event, RequestReceived):
            self.asked[event.request.call_id] += 1
            behaviour = event.request.body.decode()
            if event.request.method == "INVITE":
                self.bob_invites[event.transaction_id] = event
            if behaviour == "answer":
                self._final(event, 200)
            elif behaviour == "refuse":
                self._final(event, 486)
            elif behaviour == "ring_then_answer":
                self._respond(event, reply(event.request, 180))
                self.later.append((network.now + 3.0, event, 200))
            elif behaviour == "trying_then_silence":
                self._respond(event, reply(event.request, 100))
        elif isinstance(event, CancelReceived):
            network.bob.respond(event.transaction_id, reply(event.request, 200), network.now)
            invite = self.bob_invites.get(event.invite_id)
            if invite is not None and event.invite_id not in self.bob_finals:
                self._final(invite, 487)
        elif isinstance(event, AckReceived):
            self.acknowledged.add(event.transaction_id)

    def _final(self, event: RequestReceived, status: int) -> None:
        self.bob_finals.add(event.transaction_id)
        if status == 200 and event.request.method == "INVITE":
            self.agreed[event.transaction_id] = event.request.call_id
        self._respond(event, reply(event.request, status))

    def _respond(self, event: RequestReceived, response: Response) -> None:
        self.network.bob.respond(event.transaction_id, response, self.network.now)

    def answer_what_is_due(self) -> None:
        due = [one for one in self.later if one[0] <= self.network.now]
        self.later = [one for one in self.later if one[0] > self.network.now]
        for _, event, status in due:
            if event.transaction_id not in self.bob_finals:
                self._final(event, status)
        self.network.collect()

    def run(self, seconds: float) -> None:
        end = self.network.now + seconds
        while self.network.now < end:
            self.network.run(min(0.5, end - self.network.now))
            self.answer_what_is_due()


class BadNetwork(RuleBasedStateMachine):
    @initialize(
        seed=st.integers(0, 2**32),
        loss=st.sampled_from((0.0, 0.01, 0.1, 0.3)),
        duplicate=st.sampled_from((0.0, 0.01, 0.2)),
        jitter=st.sampled_from((0.001, 0.05, 0.4)),
    )
    def build(self, seed: int, loss: float, duplicate: float, jitter: float) -> None:
        chaos = Chaos(random.Random(seed), loss, duplicate, (0.001, 0.001 + jitter))
        self.network = Network(chaos, Timers())
        self.users = Users(self.network)

    @rule(method=st.sampled_from(("MESSAGE", "INVITE", "BYE")), behaviour=st.sampled_from(BEHAVIOURS))
    def ask(self, method: str, behaviour: str) -> None:
        self.users.ask(method, behaviour)

    @rule()
    def cancel(self) -> None:
        self.users.cancel_all()

    @rule(seconds=st.sampled_from((0.01, 0.2, 1.0, 7.0)))
    def wait(self, seconds: float) -> None:
        self.users.run(seconds)

    @invariant()
    def one_outcome_at_most(self) -> None:
        for transaction, outcomes in self.users.outcomes.items():
            assert len(outcomes) <= 1, (transaction, outcomes)

    @invariant()
    def nothing_is_asked_twice(self) -> None:
        """I5: no repeated or duplicated request reaches its handler again."""
        assert all(count == 1 for count in self.users.asked.values())

    def teardown(self) -> None:
        if not hasattr(self, "users"):
            return
        users = self.users
        users.run(10.0)
        users.cancel_all()
        users.run(64 * 0.5 + 1)
        for transaction, outcomes in users.outcomes.items():
            assert len(outcomes) == 1, (transaction, outcomes)
        users.run(2 * 64 * 0.5 + 181)  # what nobody answered at Bob's side ends by his own limit
        assert set(self.network.alice.gauges().values()) == {0}
        assert set(self.network.bob.gauges().values()) == {0}
        assert users.ended >= set(users.outcomes)


def test_f04_no_request_is_stuck_or_answered_twice_on_a_bad_network() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        BadNetwork,
        settings=settings(
            max_examples=120, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize(("loss", "wanted"), [(0.0, 1.0), (0.01, 0.999), (0.1, 0.99)])
def test_f04_requests_succeed_in_spite_of_loss(loss: float, wanted: float) -> None:
    network = Network(Chaos(random.Random(4), loss, 0.01, (0.15, 0.25)))
    users = Users(network)
    for number in range(300):
        users.ask(("MESSAGE", "BYE", "INVITE")[number % 3], "answer")
        network.run(0.05)
    users.run(70.0)
    good = sum(outcomes in (["200"], ["accepted"]) for outcomes in users.outcomes.values())
    assert good >= wanted * len(users.outcomes)
    assert set(network.alice.gauges().values()) == {0}


def test_f05_lost_acks_are_repaired_by_repeated_2xx() -> None:
    network = Network(Chaos(random.Random(9), 0.4, 0.0, (0.01, 0.02)))
    users = Users(network)
    for _ in range(40):
        users.ask("INVITE", "answer")
    users.run(33.0)
    assert len(users.agreed) >= 39
    assert users.acknowledged >= set(users.agreed)
