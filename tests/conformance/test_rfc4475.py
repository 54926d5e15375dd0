"""The table of RFC 4475 (`tests.support.rfc4475`) against the parser and the validation, whole and octet by octet."""

from __future__ import annotations

import pytest

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Message, Request, Response
from gb28181gw.sip.parser import StreamParser, parse_datagram
from gb28181gw.sip.validate import drop_reason, verdict
from tests.support.rfc4475 import ALL, Case


def judge(octets: bytes) -> tuple[str | int, Message | None]:
    """What parser and validation make of one datagram."""
    try:
        message = parse_datagram(octets)
    except SipParseError as error:
        return error.status_hint or "drop", error.message
    assert message is not None
    if isinstance(message, Response):
        return ("drop" if drop_reason(message) else "accept"), message
    refused = verdict(message)
    return (refused[0] if refused else "accept"), message


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.section}-{case.name}")
def test_rfc4475(case: Case) -> None:
    got, message = judge(case.octets)
    assert got == ("accept" if case.want == "transaction" else case.want)
    if message is not None:
        assert case.check(message)
    if isinstance(got, int):
        assert isinstance(message, Request)
        answer = Response.reply_to(message, got, to_tag="t1", received="192.0.2.9", rport=5060)
        assert answer.to_bytes().startswith(b"SIP/2.0 %d " % got)


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.section}-{case.name}")
def test_rfc4475_on_a_stream(case: Case) -> None:
    """The same messages whole and octet by octet: never an exception, never two different outcomes."""
    whole, slow = StreamParser(), StreamParser()
    events = whole.feed(case.octets)
    trickled = [event for octet in case.octets for event in slow.feed(bytes((octet,)))]
    shown = [repr(event) for event in events]
    assert [repr(event) for event in trickled] == shown
    assert (whole.failed is None) == (slow.failed is None)
    if case.want in (400, 505) or case.name == "bigcode":
        return
    if case.name == "clerr":
        assert events == []
    else:
        expected = parse_datagram(case.octets)
        assert events[0] == expected


def test_every_message_of_the_sections_is_there() -> None:
    sections = {case.section for case in ALL}
    wanted = {f"3.1.1.{n}" for n in range(1, 14)} | {f"3.1.2.{n}" for n in range(1, 20)}
    wanted |= {"3.2.1", "3.4.1"} | {f"3.3.{n}" for n in range(1, 16)}
    assert sections == wanted
