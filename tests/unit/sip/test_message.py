"""Headers, typed views, replies and the strict writer."""

import re

import pytest

from gb28181gw.sip.exceptions import LocalProtocolError, SipParseError
from gb28181gw.sip.message import Headers, Request, Response
from gb28181gw.sip.parser import parse_datagram
from gb28181gw.sip.quirks import SipQuirk

KEEPALIVE = (
    b"MESSAGE sip:34020000002000000001@3402000000 SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.168.1.64:5060;rport;branch=z9hG4bK137\r\n"
    b"From: <sip:34020000001320000001@3402000000>;tag=204\r\n"
    b"To: <sip:34020000002000000001@3402000000>\r\n"
    b"Call-ID: 1011047669@192.168.1.64\r\n"
    b"CSeq: 20 MESSAGE\r\n"
    b"Content-Type: Application/MANSCDP+xml\r\n"
    b"Content-Length: 9\r\n\r\n<Notify/>"
)


def read_request(data: bytes) -> Request:
    message = parse_datagram(data)
    assert isinstance(message, Request)
    return message


def read_response(data: bytes) -> Response:
    message = parse_datagram(data)
    assert isinstance(message, Response)
    return message


def test_headers_compare_without_case_and_know_compact_forms() -> None:
    headers = Headers([("v", "SIP/2.0/UDP a"), ("CALL-id", "1"), ("x-gb-VER", "3.0"), ("x-own-thing", "y")])
    assert headers.get("VIA") == "SIP/2.0/UDP a"
    assert headers.get("i") == "1"
    assert headers.get("X-GB-Ver") == "3.0"
    assert headers.get("X-OWN-Thing") == "y"
    assert "via" in headers
    assert "Expires" not in headers
    assert [name for name, _ in headers.items()] == ["Via", "Call-ID", "X-GB-Ver", "X-Own-Thing"]


def test_headers_take_comma_lists_apart_only_where_they_are_lists() -> None:
    headers = Headers(
        [
            ("Via", "SIP/2.0/UDP a;branch=1, SIP/2.0/UDP b"),
            ("Via", "SIP/2.0/TCP c"),
            ("Contact", '"Bell, A" <sip:a@b,c>, <sip:d@e>'),
            ("Subject", "1:0,2:0"),
        ]
    )
    assert headers.get_all("Via") == ["SIP/2.0/UDP a;branch=1", "SIP/2.0/UDP b", "SIP/2.0/TCP c"]
    assert headers.get("Via") == "SIP/2.0/UDP a;branch=1"
    assert (headers.field("Via"), headers.count("Via")) == ("SIP/2.0/UDP a;branch=1, SIP/2.0/UDP b", 2)
    assert headers.get_all("Contact") == ['"Bell, A" <sip:a@b,c>', "<sip:d@e>"]
    assert headers.get_all("Subject") == ["1:0,2:0"]
    assert headers.get_all("Expires") == []


def test_headers_change_in_place() -> None:
    headers = Headers([("Via", "1"), ("To", "x"), ("Via", "2")])
    headers.set("to", "y")
    headers.prepend("Via", "0")
    assert headers.get_all("Via") == ["0", "1", "2"]
    copied = headers.copy()
    headers.set("Via", "only")
    assert headers.get_all("Via") == ["only"]
    headers.remove("via")
    headers.remove("via")
    headers.set("Expires", "5")
    assert list(headers.items()) == [("To", "y"), ("Expires", "5")]
    assert copied.get_all("Via") == ["0", "1", "2"]
    assert headers != copied
    assert headers != "To"
    assert len(headers) == 2
    assert "Expires" in repr(headers)


def test_content_length_is_framing_and_not_a_header() -> None:
    message = read_request(KEEPALIVE)
    assert "Content-Length" not in message.headers
    message.headers.add("l", "77")
    assert message.to_bytes().count(b"Content-Length: 9\r\n") == 1


def test_typed_views() -> None:
    message = read_request(KEEPALIVE)
    assert message.via.branch == "z9hG4bK137"
    assert message.from_.uri.user == "34020000001320000001"
    assert message.from_.tag == "204"
    assert message.to.tag == ""
    assert message.call_id == "1011047669@192.168.1.64"
    assert (message.cseq.number, message.cseq.method) == (20, "MESSAGE")
    assert message.contact is None
    assert message.expires is None
    assert message.request_uri.host == "3402000000"
    assert message.quirks == ()
    assert message.via is message.via
    assert message.request_uri is message.request_uri


def test_typed_views_follow_the_headers() -> None:
    message = read_request(KEEPALIVE)
    assert message.cseq.number == 20
    message.headers.set("CSeq", "21 MESSAGE")
    assert message.cseq.number == 21
    assert message.via.branch == "z9hG4bK137"
    message.headers.prepend("Via", "SIP/2.0/UDP gw;branch=z9hG4bKnew")
    assert message.via.branch == "z9hG4bKnew"


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_typed_view_of_a_missing_field_is_a_400(name: str) -> None:
    message = read_request(KEEPALIVE)
    message.headers.remove(name)
    view = {"Via": "via", "From": "from_", "To": "to", "Call-ID": "call_id", "CSeq": "cseq"}[name]
    with pytest.raises(SipParseError) as caught:
        getattr(message, view)
    assert caught.value.status_hint == 400
    assert name in caught.value.reason


def test_empty_call_id_is_a_400() -> None:
    message = Request("BYE", "sip:a@b", Headers([("Call-ID", "")]))
    with pytest.raises(SipParseError):
        _ = message.call_id


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ([("Expires", "3600")], 3600),
        ([("Contact", "<sip:a@b>;expires=60"), ("Expires", "3600")], 60),
        ([("Contact", '<sip:a@b>;expires="0"')], 0),
        ([("Contact", "<sip:a@b>;expires=soon"), ("Expires", "3600")], 3600),
        ([("Contact", "*"), ("Expires", "0")], 0),
        ([("Expires", "99999999999999999999")], 2**32 - 1),
        ([("Expires", "-1")], None),
        ([("Expires", "")], None),
        ([], None),
    ],
)
def test_reg10_expires_of_contact_then_header(fields: list[tuple[str, str]], seconds: int | None) -> None:
    assert Request("REGISTER", "sip:b", Headers(fields)).expires == seconds


def test_to_bytes_round_trip() -> None:
    message = read_request(KEEPALIVE)
    assert message.to_bytes() == KEEPALIVE
    assert parse_datagram(message.to_bytes()) == message
    response = Response(200, "OK", Headers([("Via", "SIP/2.0/UDP a;branch=z9hG4bK1")]), b"body")
    assert parse_datagram(response.to_bytes()) == response
    assert message != response
    assert response != message
    assert response != Response(201, "OK", response.headers, b"body")
    assert "MESSAGE" in repr(message)
    assert "200" in repr(response)


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\r\nb: c", "a\0b"])
def test_s14_writer_refuses_line_ends_and_nul(bad: str) -> None:
    with pytest.raises(LocalProtocolError):
        Request("MESSAGE", "sip:a@b", Headers([("Subject", bad)])).to_bytes()
    with pytest.raises(LocalProtocolError):
        Request("MESSAGE", f"sip:{bad}@b").to_bytes()
    with pytest.raises(LocalProtocolError):
        Response(200, bad).to_bytes()
    with pytest.raises(LocalProtocolError):
        Response(200, "OK", Headers([("Subject", f"中文{bad}")])).to_bytes()


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "名"])
def test_writer_refuses_header_names_that_are_no_tokens(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        Headers([(name, "x")])


def test_writer_refuses_bad_start_lines() -> None:
    with pytest.raises(LocalProtocolError):
        Request("ME SSAGE", "sip:a@b").to_bytes()
    with pytest.raises(LocalProtocolError):
        Request("MESSAGE", "").to_bytes()
    with pytest.raises(LocalProtocolError):
        Request("MESSAGE", "sip:a b").to_bytes()
    with pytest.raises(LocalProtocolError):
        Response(99).to_bytes()
    with pytest.raises(LocalProtocolError):
        Response(700).to_bytes()


def test_non_ascii_header_is_written_as_utf8() -> None:
    request = Request("MESSAGE", "sip:a@b", Headers([("User-Agent", "摄像机")]))
    assert "User-Agent: 摄像机\r\n".encode() in request.to_bytes()
    assert parse_datagram(request.to_bytes()) == request


def test_reply_copies_what_rfc3261_8_2_6_2_names() -> None:
    request = read_request(KEEPALIVE)
    reply = Response.reply_to(
        request, 200, to_tag="t1", received="10.0.0.9", rport=40001, headers=[("Expires", "60")], body=b"x"
    )
    assert reply.reason == "OK"
    assert not reply.is_provisional
    assert reply.to_bytes() == (
        b"SIP/2.0 200 OK\r\n"
        b"Via: SIP/2.0/UDP 192.168.1.64:5060;branch=z9hG4bK137;received=10.0.0.9;rport=40001\r\n"
        b"From: <sip:34020000001320000001@3402000000>;tag=204\r\n"
        b"To: <sip:34020000002000000001@3402000000>;tag=t1\r\n"
        b"Call-ID: 1011047669@192.168.1.64\r\n"
        b"CSeq: 20 MESSAGE\r\n"
        b"Expires: 60\r\n"
        b"Content-Length: 1\r\n\r\nx"
    )


@pytest.mark.parametrize(
    ("via", "stamped"),
    [
        ("SIP/2.0/UDP a;branch=1", "SIP/2.0/UDP a;branch=1;received=1.2.3.4;rport=5"),
        ("SIP/2.0/UDP a;rport;branch=1", "SIP/2.0/UDP a;branch=1;received=1.2.3.4;rport=5"),
        ("SIP/2.0/UDP a;RPORT=77 ; branch=1", "SIP/2.0/UDP a; branch=1;received=1.2.3.4;rport=5"),
        ("SIP/2.0/UDP a;received=6.6.6.6;rport=1", "SIP/2.0/UDP a;received=1.2.3.4;rport=5"),
        ("SIP/2.0/UDP a;branch=rport", "SIP/2.0/UDP a;branch=rport;received=1.2.3.4;rport=5"),
        ("SIP/2.0/UDP a, SIP/2.0/UDP b;rport", "SIP/2.0/UDP a;received=1.2.3.4;rport=5, SIP/2.0/UDP b;rport"),
    ],
)
def test_reg16_received_and_rport_always_added(via: str, stamped: str) -> None:
    request = Request("REGISTER", "sip:b", Headers([("Via", via), ("Via", "SIP/2.0/UDP z;rport")]))
    reply = Response.reply_to(request, 401, received="1.2.3.4", rport=5)
    vias = [value for name, value in reply.headers.items() if name == "Via"]
    assert vias == [stamped, "SIP/2.0/UDP z;rport"]
    assert reply.reason == "Unauthorized"


def test_reply_keeps_a_tag_and_an_unreadable_to() -> None:
    tagged = Request("BYE", "sip:b", Headers([("To", "sip:a@b;tag=old")]))
    assert Response.reply_to(tagged, 200, to_tag="new").headers.get("To") == "sip:a@b;tag=old"
    plain = Request("BYE", "sip:b", Headers([("To", "sip:a@b")]))
    assert Response.reply_to(plain, 200, to_tag="new").headers.get("To") == "sip:a@b;tag=new"
    quoted = Request("BYE", "sip:b", Headers([("To", '";tag=x" <sip:a@b>')]))
    assert Response.reply_to(quoted, 200, to_tag="new").headers.get("To") == '";tag=x" <sip:a@b>;tag=new'
    broken = Request("BYE", "sip:b", Headers([("To", '"x <sip:a@b>')]))
    assert Response.reply_to(broken, 400, to_tag="new").headers.get("To") == '"x <sip:a@b>'


def test_reply_echoes_broken_charset_byte_for_byte() -> None:
    name = "摄像".encode("gb18030")[:-1]  # cut in the middle of a character
    data = KEEPALIVE.replace(b"From: <", b'From: "' + name + b'" <').replace(b"To: <", b"To: " + name + b" <")
    request = read_request(data)
    assert request.from_.uri.user == "34020000001320000001"
    written = Response.reply_to(request, 200, to_tag="t1").to_bytes()
    assert b'From: "' + name + b'" <sip:34020000001320000001@3402000000>;tag=204\r\n' in written
    assert b"To: " + name + b" <sip:34020000002000000001@3402000000>;tag=t1\r\n" in written


def test_reply_to_a_request_without_via() -> None:
    request = read_request(KEEPALIVE.replace(b"Via:", b"X-Was-Via:"))
    assert request.quirks == ("sip.no_via",)
    reply = Response.reply_to(request, 200, received="1.2.3.4", rport=5)
    assert "Via" not in reply.headers
    assert reply.call_id == "1011047669@192.168.1.64"


def test_quirks_of_typed_views_are_noted_once() -> None:
    request = read_request(
        KEEPALIVE.replace(b"z9hG4bK137", b"137").replace(
            b"sip:34020000001320000001@3402000000", b"sip:34020000001320000001"
        )
    )
    _ = request.via, request.from_, request.contact
    request.headers.set("To", "Bell, A < sip:34020000001320000001 >")
    _ = request.to
    assert request.from_.uri.user == "34020000001320000001"
    assert request.from_.uri.host == ""
    assert sorted(request.quirks) == [
        "sip.branch_without_cookie",
        "sip.display_name",
        "sip.uri_space",
        "sip.uri_without_host",
    ]


def test_reg13_request_uri_without_host_is_noted() -> None:
    request = Request("REGISTER", "sip:34020000002000000001")
    assert request.request_uri.user == "34020000002000000001"
    assert request.quirks == ("sip.uri_without_host",)
    assert SipQuirk.URI_WITHOUT_HOST.row == "REG-13"


def test_every_tolerance_has_a_row() -> None:
    assert all(re.fullmatch(r"(REG|XML)-\d\d", quirk.row) for quirk in SipQuirk)
    assert all(re.fullmatch(r"sip\.[a-z0-9_]+", quirk) for quirk in SipQuirk)


def test_contact_view() -> None:
    request = Request("REGISTER", "sip:b", Headers([("Contact", "<sip:a@h:5060>;q=1, <sip:c@d>")]))
    assert request.contact is not None
    assert request.contact.uri.port == 5060
    assert request.contact is request.contact
    response = read_response(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\nm: < sip:a@h>\r\n\r\n")
    assert response.contact is not None
    assert response.quirks == ("sip.uri_space",)
