"""Which requests are refused for reasons of SIP alone (RFC 4475 has the rest of the cases)."""

import pytest

from gb28181gw.sip.message import Headers, Request, Response
from gb28181gw.sip.validate import drop_reason, unsupported_extensions, verdict


def request(method: str = "MESSAGE", uri: str = "sip:a@b", body: bytes = b"", **changed: str) -> Request:
    fields = {
        "Via": "SIP/2.0/UDP h;branch=z9hG4bK1",
        "From": "<sip:1@2>;tag=a",
        "To": "<sip:3@2>",
        "Call-ID": "c",
        "CSeq": f"1 {method}",
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    return Request(method, uri, Headers([(name, value) for name, value in fields.items() if value]), body)


def test_a_plain_request_goes_on() -> None:
    assert verdict(request()) is None
    assert verdict(request("REGISTER", "sip:3402000000", Contact="*")) is None
    assert verdict(request("newMethod")) is None


@pytest.mark.parametrize(
    ("changed", "status", "reason"),
    [
        ({"From": ""}, 400, "Missing From"),
        ({"CSeq": "1 BYE"}, 400, "CSeq does not match the method"),
        ({"Via": "nonsense"}, 400, "Bad Via"),
        ({"Via": "SIP/2.0/UDP h, nonsense"}, 400, "Bad Via"),
        ({"Contact": "<sip:a@b>, x"}, 400, "Bad URI"),
        ({"uri": "sip:a@b:0x"}, 400, "Bad port in URI"),
        ({"uri": "tel:1"}, 416, "Unsupported URI Scheme"),
        ({"uri": "sip:a@b?x=y"}, 400, "Headers in Request-URI"),
        ({"Max_Forwards": "x"}, 400, "Bad Max-Forwards"),
        ({"Max_Forwards": "0"}, 483, "Too Many Hops"),
        ({"Require": "100rel"}, 420, "Bad Extension"),
    ],
)
def test_refused(changed: dict[str, str], status: int, reason: str) -> None:
    assert verdict(request(**changed)) == (status, reason)


def test_empty_call_id_is_refused() -> None:
    empty = request()
    empty.headers.set("Call-ID", "")
    assert verdict(empty) == (400, "Empty Call-ID")


def test_ack_and_cancel_pass_where_the_rfc_says_so() -> None:
    for method in ("ACK", "CANCEL"):
        assert verdict(request(method, Require="100rel", Max_Forwards="0")) is None


def test_several_vias_and_contacts_are_all_read() -> None:
    good = request()
    good.headers.add("Via", "SIP/2.0/TCP x")
    good.headers.add("Contact", "<sip:a@b>")
    good.headers.add("Contact", "<sip:c@d>")
    assert verdict(good) is None
    good.headers.add("Contact", "<<")
    assert verdict(good) == (400, "Address without closing bracket")


@pytest.mark.parametrize(
    ("content_type", "accept", "status"),
    [
        ("APPLICATION/SDP", "", None),
        ("application/sdp; charset=x", "", None),
        ("", "", None),
        ("text/plain", "", 415),
        ("application/sdp", "application/SDP;q=1, x/y", None),
        ("application/sdp", "*/*", None),
        ("application/sdp", "text/x", 406),
    ],
)
def test_invite_bodies(content_type: str, accept: str, status: int | None) -> None:
    refused = verdict(request("INVITE", body=b"v=0", Content_Type=content_type, Accept=accept))
    assert (refused[0] if refused else None) == status
    assert verdict(request("MESSAGE", body=b"v=0", Content_Type=content_type, Accept=accept)) is None


def test_unsupported_extensions_are_listed() -> None:
    assert unsupported_extensions(request(Require="a, ,b")) == ["a", "b"]
    assert unsupported_extensions(request()) == []


@pytest.mark.parametrize(
    ("changed", "dropped"),
    [
        ({}, False),
        ({"Via": ""}, False),
        ({"Via": "SIP/2.0/UDP a, SIP/2.0/UDP b"}, True),
        ({"Via": "x"}, True),
        ({"CSeq": ""}, True),
        ({"CSeq": "99999999999 BYE"}, True),
        ({"To": "<"}, True),
    ],
)
def test_responses_to_be_dropped(changed: dict[str, str], dropped: bool) -> None:
    response = Response(200, "OK", request(**changed).headers)
    assert (drop_reason(response) is not None) == dropped
