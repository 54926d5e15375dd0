from __future__ import annotations

import re
import tracemalloc

import pytest

from gb28181gw.sip.endpoint import Endpoint, Limits
from gb28181gw.sip.events import (
    AckReceived,
    CancelReceived,
    RequestReceived,
    ResponseReceived,
    TimedOut,
    TransactionTerminated,
    TransportFailed,
)
from gb28181gw.sip.exceptions import LocalProtocolError, SipParseError
from gb28181gw.sip.message import Request, Response
from gb28181gw.sip.path import Path
from tests.support.sip_network import drain, incoming, outgoing, path, reply, request

PEER = Path("udp", "10.0.0.9", 5060, "192.0.2.1", 5060)
TCP = Path("tcp", "10.0.0.9", 40000, "192.0.2.1", 5060, 3)


def verified(limits: Limits | None = None) -> Endpoint:
    return Endpoint(limits=limits, is_verified=lambda where: True)


def one_request(endpoint: Endpoint, message: Request, over: Path = PEER, now: float = 0.0) -> RequestReceived:
    endpoint.receive(message, over, now)
    (event,) = drain(endpoint)
    assert isinstance(event, RequestReceived)
    return event


# ---- server side


def test_new_request_is_reported_and_its_answer_goes_to_the_source() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("MESSAGE"))
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    ((where, data),) = endpoint.data_to_send()
    assert where == PEER
    assert data.startswith(b"SIP/2.0 200 OK\r\n")
    assert endpoint.data_to_send() == []


def test_f04_repeated_request_gets_the_same_bytes_and_reaches_nobody() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("MESSAGE"))
    endpoint.receive(incoming("MESSAGE"), PEER, 0.1)
    assert drain(endpoint) == [] and endpoint.data_to_send() == []  # absorbed, there is no answer yet
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.2)
    ((_, first),) = endpoint.data_to_send()
    endpoint.receive(incoming("MESSAGE"), PEER, 0.5)
    assert endpoint.data_to_send() == [(PEER, first)]
    assert drain(endpoint) == []
    assert endpoint.counters.repeated_requests == 2


def test_reg16_repetition_from_another_nat_port_is_answered_there() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("MESSAGE"))
    moved = PEER._replace(remote_port=6000)
    endpoint.receive(incoming("MESSAGE"), moved, 0.1)
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.2)
    ((where, _),) = endpoint.data_to_send()
    assert where == moved


def test_s04_the_same_request_from_another_host_is_another_request() -> None:
    endpoint = verified()
    first = one_request(endpoint, incoming("MESSAGE"))
    endpoint.respond(first.transaction_id, reply(first.request, 200), 0.0)
    endpoint.data_to_send()
    second = one_request(endpoint, incoming("MESSAGE"), PEER._replace(remote_host="10.6.6.6"))
    assert second.transaction_id != first.transaction_id
    assert endpoint.data_to_send() == []


@pytest.mark.parametrize(
    "changed",
    [{"cseq": 2}, {"call_id": "call-2"}, {"branch": "z9hG4bKother"}],
    ids=lambda changed: next(iter(changed)),
)
def test_xml20_one_branch_for_everything_is_told_apart(changed: dict[str, object]) -> None:
    endpoint = verified()
    one_request(endpoint, incoming("MESSAGE"))
    assert one_request(endpoint, incoming("MESSAGE", **changed)).request.method == "MESSAGE"


@pytest.mark.parametrize("branch", ["", "oldstyle"])
def test_xml20_a_via_without_magic_cookie_absorbs_repetitions_too(branch: str) -> None:
    endpoint = verified()
    message = incoming("MESSAGE")
    message.headers.set("Via", "SIP/2.0/UDP 10.0.0.9" + (f";branch={branch}" if branch else ""))
    event = one_request(endpoint, message)
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    endpoint.data_to_send()
    endpoint.receive(message, PEER, 1.0)
    assert drain(endpoint) == []
    assert len(endpoint.data_to_send()) == 1


def test_server_transaction_ends_after_timer_j() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("MESSAGE"))
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    when = endpoint.get_timer()
    assert when is not None and 32 <= when <= 33
    endpoint.handle_timer(31.9)
    assert endpoint.gauges()["server"] == 1
    endpoint.handle_timer(when)
    assert endpoint.gauges() == {
        "server": 0,
        "server_unverified": 0,
        "server_invite": 0,
        "client": 0,
        "queued": 0,
    }
    assert endpoint.get_timer() is None


def test_late_answer_absorbs_for_timer_j_from_the_answer_on() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("MESSAGE"))
    endpoint.respond(event.transaction_id, reply(event.request, 200), 20.0)
    endpoint.handle_timer(40.0)
    assert endpoint.gauges()["server"] == 1
    endpoint.handle_timer(52.0)
    assert endpoint.gauges()["server"] == 0
    assert endpoint.gauges()["queued"] == 0


def test_request_that_nobody_answers_is_forgotten_and_counted() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("MESSAGE"))
    endpoint.handle_timer(32.5)
    assert endpoint.counters.unanswered == 1
    endpoint.respond(event.transaction_id, reply(event.request, 200), 33.0)
    assert endpoint.data_to_send() == []
    assert endpoint.counters.late_answers == 1


def test_over_tcp_the_transaction_is_over_with_its_answer() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("MESSAGE"), TCP)
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    assert endpoint.data_to_send()[0][0] == TCP
    assert endpoint.gauges()["server"] == endpoint.gauges()["queued"] == 0


def test_discarded_request_leaves_nothing_behind() -> None:
    endpoint = verified()
    for method in ("MESSAGE", "INVITE"):
        event = one_request(endpoint, incoming(method))
        endpoint.discard(event.transaction_id)
    endpoint.discard("never was")
    assert [type(event) for event in drain(endpoint)] == [TransactionTerminated]
    endpoint.handle_timer(1000)
    assert endpoint.data_to_send() == []
    assert set(endpoint.gauges().values()) == {0}


def test_second_final_answer_raises() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("MESSAGE"))
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    with pytest.raises(LocalProtocolError):
        endpoint.respond(event.transaction_id, reply(event.request, 500), 0.0)
    assert len(endpoint.data_to_send()) == 1


def test_i10_oldest_request_is_dropped_at_the_cap() -> None:
    endpoint = verified(Limits(requests=3))
    ids = [one_request(endpoint, incoming("MESSAGE", cseq=number)).transaction_id for number in range(1, 6)]
    assert endpoint.gauges()["server"] == 3
    assert endpoint.counters.dropped_oldest == 2
    endpoint.respond(ids[0], reply(incoming("MESSAGE"), 200), 0.0)
    assert endpoint.data_to_send() == []
    endpoint.respond(ids[4], reply(incoming("MESSAGE", cseq=5), 200), 0.0)
    assert len(endpoint.data_to_send()) == 1


def test_i10_late_answers_have_a_cap_of_their_own() -> None:
    endpoint = verified(Limits(requests=3))
    for number in range(1, 9):
        event = one_request(endpoint, incoming("MESSAGE", cseq=number), now=float(number))
        endpoint.respond(event.transaction_id, reply(event.request, 200), number + 5.0)
    assert endpoint.gauges()["server"] <= 6
    endpoint.handle_timer(100.0)
    assert set(endpoint.gauges().values()) == {0}


def test_s11_unverified_source_has_200_transactions_and_not_more() -> None:
    endpoint = Endpoint(limits=Limits(unverified_per_source=200))
    for number in range(1, 301):
        event = one_request(endpoint, incoming("REGISTER", cseq=number))
        endpoint.respond(event.transaction_id, reply(event.request, 401), 0.0)
    assert endpoint.gauges()["server"] == endpoint.gauges()["server_unverified"] == 200
    assert endpoint.counters.not_kept == 100
    assert len(endpoint.data_to_send()) == 300  # everyone was answered
    other = one_request(endpoint, incoming("REGISTER"), PEER._replace(remote_host="10.0.0.10"))
    endpoint.respond(other.transaction_id, reply(other.request, 401), 0.0)
    assert endpoint.gauges()["server"] == 201
    endpoint.handle_timer(33.0)
    assert set(endpoint.gauges().values()) == {0}


def test_s11_all_unverified_sources_together_have_a_cap() -> None:
    endpoint = Endpoint(limits=Limits(unverified_requests=10))
    for number in range(30):
        event = one_request(endpoint, incoming("REGISTER"), PEER._replace(remote_host=f"10.1.0.{number}"))
        endpoint.respond(event.transaction_id, reply(event.request, 401), 0.0)
    assert endpoint.gauges()["server_unverified"] == 10


def test_stateless_answer_is_sent_once_and_remembered_nowhere() -> None:
    endpoint = verified()
    endpoint.send_stateless(reply(incoming("MESSAGE"), 400), PEER)
    assert len(endpoint.data_to_send()) == 1
    assert set(endpoint.gauges().values()) == {0}


# ---- INVITE from a peer


def test_invite_gets_100_by_itself_and_the_ack_of_a_failure_stops_it() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE"))
    endpoint.handle_timer(0.2)
    (trying,) = outgoing(endpoint)
    assert isinstance(trying, Response) and trying.status == 100 and trying.to.tag == ""
    endpoint.respond(event.transaction_id, reply(event.request, 486), 1.0)
    endpoint.handle_timer(1.5)
    assert [message.status for message in outgoing(endpoint) if isinstance(message, Response)] == [486, 486]
    endpoint.receive(incoming("ACK", to_tag="bob"), PEER, 1.6)
    endpoint.handle_timer(5.0)
    assert endpoint.data_to_send() == []
    endpoint.handle_timer(7.0)
    assert [type(one) for one in drain(endpoint)] == [TransactionTerminated]
    endpoint.handle_timer(200.0)
    assert set(endpoint.gauges().values()) == {0}


def test_ack_of_a_failure_with_a_new_branch_is_found_by_call_id() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE"))
    endpoint.respond(event.transaction_id, reply(event.request, 486), 0.0)
    endpoint.receive(incoming("ACK", branch="z9hG4bKnew", to_tag="bob"), PEER, 0.1)
    endpoint.data_to_send()
    endpoint.handle_timer(2.0)
    assert endpoint.data_to_send() == []


def test_ack_of_a_2xx_is_reported_once_and_stops_the_repetition() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE"))
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    endpoint.handle_timer(0.5)
    assert len(endpoint.data_to_send()) == 2
    for now in (0.6, 0.7):
        endpoint.receive(incoming("ACK", branch="z9hG4bKack", to_tag="bob"), PEER, now)
    assert [(type(one), one.transaction_id) for one in drain(endpoint)] == [
        (AckReceived, event.transaction_id)
    ]
    endpoint.handle_timer(31.0)
    assert endpoint.data_to_send() == []


@pytest.mark.parametrize("wrong", [{"to_tag": "mallory"}, {"to_tag": "bob", "from_tag": "mallory"}])
def test_s04_ack_with_a_wrong_tag_stops_nothing(wrong: dict[str, object]) -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE"))
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    endpoint.data_to_send()
    endpoint.receive(incoming("ACK", branch="z9hG4bKack", **wrong), PEER, 0.1)
    endpoint.handle_timer(0.5)
    assert len(endpoint.data_to_send()) == 1
    assert endpoint.counters.acks_unmatched == 1


def test_2xx_that_is_never_acknowledged_times_out() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE"))
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    for now in range(1, 34):
        endpoint.handle_timer(float(now))
    assert drain(endpoint) == [TimedOut(event.transaction_id), TransactionTerminated(event.transaction_id)]


def test_repeated_invite_gets_the_newest_response() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE"))
    endpoint.respond(event.transaction_id, reply(event.request, 180), 0.1)
    endpoint.data_to_send()
    endpoint.receive(incoming("INVITE"), PEER, 0.5)
    assert drain(endpoint) == []
    (again,) = outgoing(endpoint)
    assert isinstance(again, Response) and again.status == 180


def test_invite_without_magic_cookie_finds_its_ack_and_cancel() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE", branch="old"))
    endpoint.receive(incoming("CANCEL", branch="old"), PEER, 0.1)
    (cancel,) = drain(endpoint)
    assert isinstance(cancel, CancelReceived) and cancel.invite_id == event.transaction_id
    endpoint.respond(event.transaction_id, reply(event.request, 487), 0.2)
    endpoint.receive(incoming("ACK", branch="old", to_tag="bob"), PEER, 0.3)
    endpoint.data_to_send()
    endpoint.handle_timer(3.0)
    assert endpoint.data_to_send() == []


@pytest.mark.parametrize(
    ("changed", "over"),
    [
        ({"call_id": "other"}, PEER),
        ({"from_tag": "mallory"}, PEER),
        ({"cseq": 2}, PEER),
        ({"branch": "z9hG4bKguess"}, PEER),
        ({}, PEER._replace(remote_host="10.6.6.6")),
    ],
)
def test_s04_forged_cancel_matches_nothing(changed: dict[str, object], over: Path) -> None:
    endpoint = verified()
    one_request(endpoint, incoming("INVITE"))
    endpoint.receive(incoming("CANCEL", **changed), over, 0.1)
    (event,) = drain(endpoint)
    assert isinstance(event, CancelReceived) and event.invite_id == ""


def test_repeated_cancel_is_absorbed() -> None:
    endpoint = verified()
    one_request(endpoint, incoming("INVITE"))
    endpoint.receive(incoming("CANCEL"), PEER, 0.1)
    (event,) = drain(endpoint)
    assert isinstance(event, CancelReceived)
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.1)
    endpoint.receive(incoming("CANCEL"), PEER, 0.2)
    assert drain(endpoint) == []
    assert len(endpoint.data_to_send()) == 2


def test_unreadable_cancel_raises_and_leaves_nothing() -> None:
    endpoint = verified()
    broken = incoming("CANCEL")
    broken.headers.set("Via", "nonsense")
    with pytest.raises(SipParseError):
        endpoint.receive(broken, PEER, 0.0)
    assert set(endpoint.gauges().values()) == {0}


def test_i10_oldest_invite_is_dropped_at_the_cap() -> None:
    endpoint = verified(Limits(invites=2))
    for number in range(4):
        endpoint.receive(incoming("INVITE", branch=f"z9hG4bK{number}", call_id=f"c{number}"), PEER, 0.0)
    assert endpoint.gauges()["server_invite"] == 2
    assert endpoint.counters.dropped_oldest == 2


def test_failed_second_answer_keeps_the_first_one() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE"))
    endpoint.respond(event.transaction_id, reply(event.request, 486), 0.0)
    with pytest.raises(LocalProtocolError):
        endpoint.respond(event.transaction_id, reply(event.request, 603), 0.0)
    endpoint.handle_timer(0.5)
    statuses = [message.status for message in outgoing(endpoint) if isinstance(message, Response)]
    assert statuses == [486, 486]


# ---- requests of ours


def sent(
    endpoint: Endpoint, method: str = "MESSAGE", over: Path | None = None, **more: object
) -> tuple[str, Request]:
    transaction_id = endpoint.send_request(request(method, **more), over or path(), 0.0)  # type: ignore[arg-type]
    (message,) = outgoing(endpoint)
    assert isinstance(message, Request)
    return transaction_id, message


BOB = path()


def test_s04_branch_has_the_cookie_and_at_least_64_random_bits() -> None:
    endpoint = Endpoint()
    branches = {sent(endpoint, cseq=number)[1].via.branch for number in range(1, 101)}
    assert len(branches) == 100
    assert all(re.fullmatch(r"z9hG4bK[0-9a-f]{16,}", branch) for branch in branches)


@pytest.mark.parametrize(
    ("over", "sent_by", "via"),
    [
        (path(), "", "SIP/2.0/UDP 192.0.2.1:5060;rport;branch="),
        (path(), "203.0.113.5:5062", "SIP/2.0/UDP 203.0.113.5:5062;rport;branch="),
        (TCP, "", "SIP/2.0/TCP 192.0.2.1:5060;rport;branch="),
        (
            path(("2001:db8::2", 5060), ("2001:db8::1", 5060)),
            "",
            "SIP/2.0/UDP [2001:db8::1]:5060;rport;branch=",
        ),
    ],
)
def test_inv23_via_has_the_address_that_the_peer_sees(over: Path, sent_by: str, via: str) -> None:
    endpoint = Endpoint()
    endpoint.send_request(request(), over, 0.0, sent_by=sent_by)
    (message,) = outgoing(endpoint)
    assert (message.headers.get("Via") or "").startswith(via)


def test_final_response_is_reported_once_and_the_transaction_ends() -> None:
    endpoint = Endpoint()
    transaction_id, message = sent(endpoint)
    for now in (0.1, 0.2):
        endpoint.receive(reply(message, 200), BOB, now)
    events = drain(endpoint)
    assert len(events) == 1
    assert isinstance(events[0], ResponseReceived)
    assert (events[0].transaction_id, events[0].response.status) == (transaction_id, 200)
    assert endpoint.counters.repeated_responses == 1
    endpoint.handle_timer(5.1)
    assert drain(endpoint) == [TransactionTerminated(transaction_id)]
    endpoint.handle_timer(100.0)
    assert set(endpoint.gauges().values()) == {0}


def test_no_response_times_out_after_64_t1() -> None:
    endpoint = Endpoint()
    transaction_id, first = sent(endpoint)
    now = 0.0
    while (when := endpoint.get_timer()) is not None:
        now = when
        endpoint.handle_timer(now)
    repeated = outgoing(endpoint)
    assert now == 32.0
    assert len(repeated) == 10 and all(message == first for message in repeated)
    assert drain(endpoint) == [TimedOut(transaction_id), TransactionTerminated(transaction_id)]


def test_s04_response_from_another_host_is_not_taken() -> None:
    endpoint = Endpoint()
    _, message = sent(endpoint)
    endpoint.receive(reply(message, 200), BOB._replace(remote_host="10.6.6.6"), 0.1)
    assert drain(endpoint) == []
    assert endpoint.counters.responses_foreign == 1
    endpoint.receive(reply(message, 200), BOB._replace(remote_port=9999), 0.1)  # NAT may change the port
    assert len(drain(endpoint)) == 1


def test_s04_response_with_an_unknown_branch_or_method_is_not_taken() -> None:
    endpoint = Endpoint()
    _, message = sent(endpoint)
    wrong = reply(message, 200)
    wrong.headers.set("CSeq", "1 BYE")
    endpoint.receive(wrong, BOB, 0.1)
    guessed = reply(message, 200)
    guessed.headers.set("Via", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKguess")
    endpoint.receive(guessed, BOB, 0.1)
    assert drain(endpoint) == []
    assert endpoint.counters.responses_unmatched == 2


def test_xml20_response_without_via_is_matched_by_call_id_and_cseq() -> None:
    endpoint = Endpoint()
    transaction_id, message = sent(endpoint, "INVITE")
    bare = reply(message, 200)
    bare.headers.remove("Via")
    endpoint.receive(bare, BOB._replace(remote_host="10.6.6.6"), 0.1)
    assert drain(endpoint) == []
    endpoint.receive(bare, BOB, 0.1)
    (event,) = drain(endpoint)
    assert isinstance(event, ResponseReceived) and event.transaction_id == transaction_id
    assert endpoint.counters.responses_without_via == 2


def test_failure_of_invite_is_acked_by_the_transaction() -> None:
    endpoint = Endpoint()
    _, invite = sent(endpoint, "INVITE", extra=(("Route", "<sip:p1;lr>"), ("Route", "<sip:p2;lr>")))
    for now in (0.1, 0.2):
        endpoint.receive(reply(invite, 486), BOB, now)
    acks = outgoing(endpoint)
    assert len(acks) == 2
    for ack in acks:
        assert isinstance(ack, Request) and ack.method == "ACK"
        assert ack.uri == invite.uri
        assert ack.headers.get_all("Via") == invite.headers.get_all("Via")
        assert ack.headers.get_all("Route") == ["<sip:p1;lr>", "<sip:p2;lr>"]
        assert (ack.to.tag, ack.from_.tag, str(ack.cseq)) == ("bob", "alice", "1 ACK")
    assert len(drain(endpoint)) == 1


def test_2xx_of_invite_is_reported_each_time_and_not_acked() -> None:
    endpoint = Endpoint()
    _, invite = sent(endpoint, "INVITE")
    for now in (0.1, 0.6, 1.6):
        endpoint.receive(reply(invite, 200), BOB, now)
    assert len(drain(endpoint)) == 3
    assert endpoint.data_to_send() == []


def test_cancel_waits_for_a_provisional_response_and_shares_via_and_number() -> None:
    endpoint = Endpoint()
    transaction_id, invite = sent(endpoint, "INVITE", cseq=4)
    endpoint.cancel(transaction_id, 0.1)
    assert endpoint.data_to_send() == []
    endpoint.receive(reply(invite, 100), BOB, 0.2)
    (cancel,) = outgoing(endpoint)
    assert isinstance(cancel, Request) and cancel.method == "CANCEL"
    assert (cancel.uri, cancel.call_id, str(cancel.cseq)) == (invite.uri, invite.call_id, "4 CANCEL")
    assert cancel.headers.get_all("Via") == invite.headers.get_all("Via")
    assert cancel.to.tag == ""
    drain(endpoint)
    endpoint.receive(reply(cancel, 200), BOB, 0.3)
    assert drain(endpoint) == []  # the answer to our CANCEL is nobody's business
    endpoint.receive(reply(invite, 487), BOB, 0.4)
    (event,) = drain(endpoint)
    assert isinstance(event, ResponseReceived) and event.response.status == 487


def test_cancel_without_any_answer_ends_the_invite_in_time() -> None:
    endpoint = Endpoint()
    transaction_id, invite = sent(endpoint, "INVITE")
    endpoint.receive(reply(invite, 180), BOB, 1.0)
    endpoint.cancel(transaction_id, 10.0)
    drain(endpoint)
    while (when := endpoint.get_timer()) is not None:
        assert when <= 42.0
        endpoint.handle_timer(when)
    assert drain(endpoint) == [TimedOut(transaction_id), TransactionTerminated(transaction_id)]


def test_cancel_of_something_unknown_is_nothing() -> None:
    endpoint = Endpoint()
    endpoint.cancel("nothing", 0.0)
    endpoint.abandon("nothing")
    assert endpoint.data_to_send() == [] and drain(endpoint) == []


def test_abandoned_request_is_silent_from_then_on() -> None:
    endpoint = Endpoint()
    transaction_id, message = sent(endpoint)
    endpoint.abandon(transaction_id)
    endpoint.receive(reply(message, 200), BOB, 0.1)
    endpoint.handle_timer(100.0)
    assert drain(endpoint) == [] and endpoint.data_to_send() == []
    assert set(endpoint.gauges().values()) == {0}


def test_lost_connection_fails_what_waits_on_it_and_nothing_else() -> None:
    endpoint = Endpoint()
    on_tcp, _ = sent(endpoint, over=TCP)
    invite_on_tcp, _ = sent(endpoint, "INVITE", over=TCP, cseq=2)
    other, _ = sent(endpoint, over=TCP._replace(connection_id=4), cseq=3)
    endpoint.path_failed(TCP, 1.0)
    failed = {event.transaction_id for event in drain(endpoint) if isinstance(event, TransportFailed)}
    assert failed == {on_tcp, invite_on_tcp}
    assert other not in failed and endpoint.gauges()["client"] == 1


def test_lost_connection_ends_invites_of_the_peer() -> None:
    endpoint = verified()
    event = one_request(endpoint, incoming("INVITE"), TCP)
    endpoint.respond(event.transaction_id, reply(event.request, 200), 0.0)
    endpoint.path_failed(TCP, 1.0)
    assert drain(endpoint) == [TimedOut(event.transaction_id), TransactionTerminated(event.transaction_id)]


def test_i10_oldest_request_of_ours_times_out_at_the_cap() -> None:
    endpoint = Endpoint(limits=Limits(own_requests=2))
    first, _ = sent(endpoint, cseq=1)
    sent(endpoint, cseq=2)
    sent(endpoint, cseq=3)
    assert drain(endpoint) == [TimedOut(first), TransactionTerminated(first)]
    assert endpoint.gauges()["client"] == 2


def test_ack_is_no_transaction_and_can_be_sent_again() -> None:
    endpoint = Endpoint()
    with pytest.raises(LocalProtocolError):
        endpoint.send_request(request("ACK"), path(), 0.0)
    data = endpoint.send_ack(request("ACK", to_tag="bob"), path())
    endpoint.send_again(data, path())
    assert [sent_data for _, sent_data in endpoint.data_to_send()] == [data, data]
    assert endpoint.gauges()["client"] == 0


def test_terminated_transactions_leave_no_trace_after_their_timers() -> None:
    endpoint = Endpoint()
    for number in range(1, 50):
        _, message = sent(endpoint, cseq=number, method="INVITE" if number % 2 else "BYE")
        endpoint.receive(reply(message, 200 if number % 3 else 486), BOB, 0.1)
        endpoint.data_to_send()
    endpoint.handle_timer(200.0)
    assert set(endpoint.gauges().values()) == {0}
    assert endpoint.get_timer() is None


@pytest.mark.parametrize("over", [BOB, TCP], ids=["udp", "tcp"])
def test_i10_what_was_answered_is_not_held_until_its_timer(over: Path) -> None:
    endpoint = Endpoint()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, 101):
            message = request("MESSAGE", cseq=number)
            message.body = bytes(50_000)
            endpoint.send_request(message, over, 0.0)
            endpoint.receive(reply(message, 200), over, 0.1)
            endpoint.data_to_send()
            drain(endpoint)
        del message
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()
