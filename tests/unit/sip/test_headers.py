"""Structured header values."""

import pytest

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.grammar import parse_params, split_list
from gb28181gw.sip.headers import (
    COMPACT,
    KNOWN_NAMES,
    CSeq,
    Subject,
    Via,
    bounded_int,
    canonical_name,
    parse_contact,
    parse_delta_seconds,
)


@pytest.mark.parametrize(
    ("text", "transport", "host", "port", "branch"),
    [
        ("SIP/2.0/UDP 192.168.1.64:5060;rport;branch=z9hG4bK1", "UDP", "192.168.1.64", 5060, "z9hG4bK1"),
        ("SIP/2.0/TCP 3402000000", "TCP", "3402000000", None, ""),
        ("sip/2.0/udp h;BRANCH=x", "UDP", "h", None, "x"),
        (
            "SIP  / 2.0  / TCP     spindle.example   ; branch  =   z9hG4bK9 ",
            "TCP",
            "spindle.example",
            None,
            "z9hG4bK9",
        ),
        ("SIP/2.0/UDP h : 5061 ;branch=b", "UDP", "h", 5061, "b"),
        ("SIP/2.0/UNKNOWN t5.example;branch=b", "UNKNOWN", "t5.example", None, "b"),
        ("SIP/2.0/TLS [2001:db8::9]:5061;branch=b", "TLS", "[2001:db8::9]", 5061, "b"),
        ("SIP/2.0/UDP h;;branch=b;", "UDP", "h", None, "b"),
    ],
)
def test_via(text: str, transport: str, host: str, port: int | None, branch: str) -> None:
    via = Via.parse(text)
    assert (via.transport, via.host, via.port, via.branch) == (transport, host, port, branch)
    assert Via.parse(str(via)) == via


def test_via_parameters() -> None:
    via = Via.parse("SIP/2.0/UDP h:5060;rport;received=1.2.3.4;maddr=x;branch=z9hG4bKabc")
    assert via.rport == ""
    assert via.received == "1.2.3.4"
    assert via.param("maddr") == "x"
    assert via.sent_by == "h:5060"
    assert Via.parse("SIP/2.0/UDP h;rport=9").rport == "9"
    assert Via.parse("SIP/2.0/UDP h").rport is None
    assert Via.parse("SIP/2.0/UDP h").received is None


@pytest.mark.parametrize(
    ("branch", "identifies"),
    [("z9hG4bK1", True), ("Z9HG4BK1", True), ("z9hG4bK", False), ("137", False), ("", False)],
)
def test_xml20_branch_identifies_a_transaction_only_with_its_cookie(branch: str, identifies: bool) -> None:
    via = Via.parse(f"SIP/2.0/UDP h;branch={branch}")
    assert via.transaction_branch == (branch if identifies else "")


@pytest.mark.parametrize(
    "text",
    ["", ";;", "SIP/2.0/UDP", "SIP/2.0 h", "SIP/3.0/UDP h", "SIP/2.0/UDP h:99999", "SIP/2.0/UDP h:x", "h"],
)
def test_via_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        Via.parse(text)


@pytest.mark.parametrize(
    ("text", "number", "method"),
    [
        ("1 REGISTER", 1, "REGISTER"),
        ("0009 \t INVITE", 9, "INVITE"),
        ("4294967295 BYE", 2**32 - 1, "BYE"),
        (" 1 Invite ", 1, "INVITE"),
        ("8 NewMethod", 8, "NewMethod"),
        ("7 !interesting~", 7, "!interesting~"),
    ],
)
def test_cseq(text: str, number: int, method: str) -> None:
    cseq = CSeq.parse(text)
    assert (cseq.number, cseq.method) == (number, method)
    assert CSeq.parse(str(cseq)) == cseq


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "REGISTER",
        "-1 BYE",
        "4294967296 BYE",
        "36893488147419103232 BYE",
        "1 B(Y",
        "1 BYE x",
        "9" * 5000 + " X",
    ],
)
def test_cseq_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        CSeq.parse(text)


def test_bounded_int_never_converts_long_texts() -> None:
    assert bounded_int("0" * 9000 + "7", 10) == 7
    assert bounded_int("9" * 9000, 2**64) is None
    assert bounded_int("²", 10) is None
    assert bounded_int("", 10) is None
    assert bounded_int("0", 10) == 0
    assert bounded_int("11", 10) is None


def test_delta_seconds() -> None:
    assert parse_delta_seconds("3600 ;x") == 3600
    assert parse_delta_seconds("9" * 100) == 2**32 - 1
    assert parse_delta_seconds("1.5") is None


def test_contact_first_of_several() -> None:
    assert parse_contact('"a,b" <sip:1@2>;expires=9, <sip:3@4>').uri.user == "1"
    assert parse_contact(" * ").is_star


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1:0100000001,2:0", ("1", "0100000001", "2", "0")),
        (" 1 : 0 , 2 : 0 ", ("1", "0", "2", "0")),
        ("1:0", ("1", "0", "", "")),
        ("1", ("1", "", "", "")),
        ("", ("", "", "", "")),
    ],
)
def test_subject_is_read_leniently(text: str, parts: tuple[str, str, str, str]) -> None:
    subject = Subject.parse(text)
    assert (subject.sender_id, subject.sender_serial, subject.receiver_id, subject.receiver_serial) == parts
    assert Subject.parse(str(subject)) == subject


@pytest.mark.parametrize(("short", "full"), list(COMPACT.items()))
def test_xml20_compact_forms(short: str, full: str) -> None:
    assert canonical_name(short) == full
    assert canonical_name(short.upper()) == full
    assert canonical_name(full.upper()) == full


def test_canonical_name_is_stable() -> None:
    for name in (*KNOWN_NAMES, "x-vendor-THING", "weird"):
        assert canonical_name(canonical_name(name)) == canonical_name(name)
    assert canonical_name("x-gb-ver") == "X-GB-Ver"
    assert canonical_name("x-vendor-THING") == "X-Vendor-Thing"


def test_split_list_respects_quotes_and_brackets() -> None:
    assert split_list('"a,\\",b" <x,y>, c ,,d', ",") == ['"a,\\",b" <x,y>', "c", "", "d"]
    assert split_list('"open, x', ",") == ['"open, x']


def test_params() -> None:
    assert parse_params('; A = 1 ;b;; c="x;y"') == (("a", "1"), ("b", None), ("c", '"x;y"'))
    assert parse_params("") == ()
