"""Registering as a client: which challenges are answered, how, and what other answers mean."""

from __future__ import annotations

import pytest

from gb28181gw.sip import digest
from gb28181gw.sip.message import Headers, Response
from gb28181gw.sip.registration import Accepted, Account, Again, ClientRegistration, Redirected, Refused

ACCOUNT = Account(
    server_id="34020000002000000001",
    domain="3402000000",
    user="34020100002000000001",
    username="lower",
    password="secret",
)


def answer(status: int, *headers: tuple[str, str]) -> Response:
    return Response(status, "Word", Headers(headers))


def credentials(step: object) -> digest.Credentials:
    assert isinstance(step, Again)
    found = digest.parse_credentials(step.header[1])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("algorithm", "qop"), [("", ""), ("MD5", ""), ("MD5", "auth"), ("SHA-256", "auth"), ("SHA-256", "")]
)
def test_r060_answers_each_form_of_challenge_as_it_was_asked(algorithm: str, qop: str) -> None:
    state = ClientRegistration(ACCOUNT)
    state.begin()
    challenge = digest.Challenge("3402000000", "n1", algorithm, qop)
    step = state.receive(answer(401, ("WWW-Authenticate", challenge.header())), 3600)
    found = credentials(step)
    assert step.header[0] == "Authorization"  # type: ignore[union-attr]  # it is Again
    assert found.uri == "sip:34020000002000000001@3402000000" and found.username == "lower"
    assert (found.algorithm, found.qop) == (algorithm, qop)
    assert digest.verify(found, "REGISTER", "secret")


def test_s07_prefers_sha_256_of_several_and_answers_407_by_its_own_header() -> None:
    state = ClientRegistration(ACCOUNT)
    state.begin()
    offered = [
        ("Proxy-Authenticate", digest.Challenge("3402000000", nonce, algorithm).header())
        for nonce, algorithm in (("a", "MD5"), ("b", "SHA-256"))
    ]
    step = state.receive(answer(407, *offered), 3600)
    assert credentials(step).nonce == "b"
    assert isinstance(step, Again) and step.header[0] == "Proxy-Authorization"


def test_s07_a_foreign_realm_a_second_refusal_and_nonsense_get_no_credentials() -> None:
    state = ClientRegistration(
        Account(server_id="1", domain="d", user="2", username="2", password="p", realm="mine")
    )
    state.begin()
    foreign = state.receive(answer(401, ("WWW-Authenticate", digest.Challenge("other", "n").header())), 60)
    assert isinstance(foreign, Refused) and "realm" in foreign.why
    mine = ("WWW-Authenticate", digest.Challenge("mine", "n").header())
    assert isinstance(state.receive(answer(401, mine), 60), Again)
    again = state.receive(answer(401, mine), 60)
    assert isinstance(again, Refused) and again.status == 401
    state.begin()
    assert isinstance(state.receive(answer(401, ("WWW-Authenticate", "Basic x")), 60), Refused)


def test_s02_a_stale_nonce_is_answered_again_but_not_for_ever() -> None:
    state = ClientRegistration(ACCOUNT)
    state.begin()
    steps = [
        state.receive(
            answer(401, ("WWW-Authenticate", digest.Challenge("3402000000", f"n{n}", stale=n > 0).header())),
            60,
        )
        for n in range(4)
    ]
    assert [type(step) for step in steps] == [Again, Again, Again, Refused]


def test_r077_302_tells_where_and_423_how_long_and_200_what_was_granted() -> None:
    state = ClientRegistration(ACCOUNT)
    moved = state.receive(answer(302, ("Contact", "<sip:34020000002000000007@192.0.2.7:5062>")), 60)
    assert moved == Redirected(host="192.0.2.7", port=5062, server_id="34020000002000000007")
    assert isinstance(state.receive(answer(302), 60), Refused)
    brief = state.receive(answer(423, ("Min-Expires", "3600")), 60)
    assert isinstance(brief, Refused) and brief.min_expires_s == 3600
    granted = state.receive(answer(200, ("Expires", "7200"), ("X-GB-Ver", "3.0")), 60)
    assert granted == Accepted(expires_s=7200, edition="3.0")
    in_contact = state.receive(
        answer(200, ("Contact", "<sip:2@192.0.2.1>;expires=90"), ("Expires", "7200")), 60
    )
    assert isinstance(in_contact, Accepted) and in_contact.expires_s == 90
    silent = state.receive(answer(200), 60)
    assert isinstance(silent, Accepted) and silent.expires_s == 60


def test_reg25_cseq_rises_over_call_ids() -> None:
    state = ClientRegistration(ACCOUNT)
    first, number = state.call_id, state.next_cseq()
    state.renew()
    assert state.call_id != first and state.next_cseq() == number + 1


def test_s14_the_password_is_in_no_representation() -> None:
    assert "secret" not in repr(ACCOUNT)
