"""Datagrams and streams: every tolerance by name, every framing whole and octet by octet."""

import pytest

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Message, Request, Response
from gb28181gw.sip.parser import PING, Ping, StreamParser, parse_datagram

DEVICE = "34020000001320000001"
XML = b'<?xml version="1.0"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>1</SN>\r\n</Notify>'


def build(
    body: bytes = b"",
    *,
    start: str = "MESSAGE sip:34020000002000000001@3402000000 SIP/2.0",
    length: int | None = -1,
    content_type: str = "Application/MANSCDP+xml",
    extra: bytes = b"",
    end: bytes = b"\r\n",
) -> bytes:
    """A message; `length` -1: the right one, None: no Content-Length."""
    lines = [
        start.encode(),
        b"Via: SIP/2.0/UDP 192.168.1.64:5060;rport;branch=z9hG4bK137",
        b"From: <sip:34020000001320000001@3402000000>;tag=204",
        b"To: <sip:34020000002000000001@3402000000>",
        b"Call-ID: 1011047669@192.168.1.64",
        b"CSeq: 20 MESSAGE",
    ]
    if content_type:
        lines.append(b"Content-Type: " + content_type.encode())
    if extra:
        lines.append(extra)
    if length is not None:
        lines.append(b"Content-Length: %d" % (len(body) if length == -1 else length))
    return end.join(lines) + end + end + body


def read(data: bytes) -> Message:
    message = parse_datagram(data)
    assert message is not None
    return message


def refuse(data: bytes) -> SipParseError:
    with pytest.raises(SipParseError) as caught:
        parse_datagram(data)
    return caught.value


# --- datagrams -------------------------------------------------------------------------------------------------


def test_a_clean_message_has_no_quirks() -> None:
    message = read(build(XML))
    assert isinstance(message, Request)
    assert (message.method, message.uri) == ("MESSAGE", "sip:34020000002000000001@3402000000")
    assert message.body == XML
    assert message.quirks == ()
    assert len(message.headers) == 6


def test_a_response() -> None:
    message = read(build(start="SIP/2.0 180 Ringing it is"))
    assert isinstance(message, Response)
    assert (message.status, message.reason) == (180, "Ringing it is")
    assert message.is_provisional


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\n\r\n\0\0", b"\r\n \r\n"])
def test_reg22_blank_datagram_is_a_keepalive(data: bytes) -> None:
    assert parse_datagram(data) is None


@pytest.mark.parametrize(
    ("data", "quirk"),
    [
        (build(XML, end=b"\n"), "sip.lf_only"),
        (build(XML).replace(b"tag=204\r\n", b"tag=204\n"), "sip.lf_only"),
        (b"\r\n\r\n" + build(XML), "sip.leading_crlf"),
        (build(XML, extra=b"Subject: a\r\n  b\r\n\tc"), "sip.folded_header"),
        (build(XML, extra=b"this line has no colon"), "sip.garbage_line"),
        (build(XML, extra=b"two words: x"), "sip.garbage_line"),
        (build(XML, extra=b"Via"), "sip.garbage_line"),
        (build(XML, extra=b": x"), "sip.garbage_line"),
        (build(XML).replace(b"SIP/2.0\r\n", b"SIP/2.0\r\n folded onto nothing\r\n", 1), "sip.garbage_line"),
        (build(XML).replace(b"Call-ID:", b"Call-ID :"), "sip.space_before_colon"),
        (build(XML, start="Message sip:34020000002000000001@3402000000 SIP/2.0"), "sip.method_case"),
        (build(XML, extra=b"User-Agent: a\0b"), "sip.control_character"),
        (build(XML, extra=b"User-Agent: a\rb"), "sip.control_character"),
        (build(XML, extra="User-Agent: 摄像机".encode("gb18030")), "sip.header_gb18030"),
        (build(XML, extra="User-Agent: 摄像机".encode("gb18030")[:-1]), "sip.header_undecodable"),
        (build(XML).replace(b"Via:", b"X-Gone:"), "sip.no_via"),
        (build(XML, length=len(XML) - 7), "sip.content_length"),
        (build(XML, length=len(XML) + 700), "sip.content_length"),
        (build(XML, length=0), "sip.content_length"),
        (build(XML + b"\0\0\0\r\n", length=len(XML)), "sip.trailing_octets"),
        (build(start="SIP/2.0 200"), "sip.reason_space"),
        (build(XML).replace(b"sip:340", b"sip:\xc9\xe3340", 1), "sip.header_gb18030"),
    ],
)
def test_xml20_every_tolerance_is_named(data: bytes, quirk: str) -> None:
    message = read(data)
    assert message.quirks == (quirk,)
    assert message.call_id == "1011047669@192.168.1.64"
    assert message.cseq.number == 20
    assert message.from_.uri.user == DEVICE
    if isinstance(message, Request):
        assert message.method == "MESSAGE"
        assert message.body == XML


def test_several_tolerances_at_once() -> None:
    data = b"\r\n" + build(
        XML,
        start="message sip:1@2 SIP/2.0",
        extra="garbage\nCALL-id : x\nUser-Agent: 摄\n 像".encode("gb18030"),
        end=b"\n",
        length=9999,
    ).replace(b"Call-ID: 1011047669@192.168.1.64\n", b"")
    message = read(data)
    assert sorted(message.quirks) == [
        "sip.content_length",
        "sip.folded_header",
        "sip.garbage_line",
        "sip.header_gb18030",
        "sip.leading_crlf",
        "sip.lf_only",
        "sip.method_case",
        "sip.space_before_colon",
    ]
    assert message.call_id == "x"
    assert message.headers.get("User-Agent") == "摄 像"
    assert message.body == XML


def test_header_text_utf8_then_gb18030() -> None:
    for name in ("摄像机", "一号楼东门", "Ж"):
        assert read(build(extra=f"Subject: {name}".encode())).headers.get("Subject") == name
    message = read(build(extra="Subject: 一号楼东门".encode("gb18030")))
    assert message.headers.get("Subject") == "一号楼东门"
    assert read(build(extra=b"Subject: \xff\xff")).headers.get("Subject") is not None


def test_body_is_left_as_octets() -> None:
    body = bytes(range(256)) * 3
    assert read(build(body)).body == body
    assert read(build(body, end=b"\n")).body == body


def test_xml20_compact_forms_and_any_case() -> None:
    data = (
        b"REGISTER sip:3402000000 SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1\r\nf: <sip:1@2>;tag=a\r\n"
        b"t: sip:1@2\r\ni: c1\r\nCSEQ: 1 REGISTER\r\nm: <sip:1@9.9.9.9>\r\nx-gb-ver: 2.0\r\nl: 0\r\n\r\n"
    )
    message = read(data)
    assert message.call_id == "c1"
    assert message.contact is not None
    assert message.headers.get("X-GB-Ver") == "2.0"
    assert message.to.uri.user == "1"
    assert message.quirks == ()


def test_head_without_blank_line_ends_with_the_datagram() -> None:
    message = read(build()[:-2])
    assert message.call_id == "1011047669@192.168.1.64"
    assert message.body == b""
    assert read(build()[:-3]).call_id == "1011047669@192.168.1.64"
    assert read(build()[:-4]).call_id == "1011047669@192.168.1.64"


def test_unknown_method_keeps_its_spelling() -> None:
    message = read(build(start="newMethod sip:a@b SIP/2.0"))
    assert isinstance(message, Request)
    assert message.method == "newMethod"
    assert message.quirks == ()


def test_version_compares_without_case() -> None:
    message = read(build(start="MESSAGE sip:a@b sip/2.0"))
    assert isinstance(message, Request)
    assert message.version == "SIP/2.0"


@pytest.mark.parametrize(
    ("start", "status", "answerable"),
    [
        ("MESSAGE  sip:a@b SIP/2.0", 400, True),
        ("MESSAGE sip:a@b SIP/2.0 ", 400, True),
        ("MESSAGE sip:a b SIP/2.0", 400, True),
        ("MESSAGE <sip:a@b> SIP/2.0", 400, True),
        ("MESSAGE SIP/2.0", 400, True),
        ("MESSAGE sip:a@b SIP/7.0", 505, True),
        ("MES(SAGE sip:a@b SIP/2.0", 0, False),
        ("MES(SAGE sip:a@b SIP/7.0", 0, False),
        ("GET / HTTP/1.1", 0, False),
        ("hello", 0, False),
        ("SIP/2.0 99 Low", 0, False),
        ("SIP/2.0 700 High", 0, False),
        ("SIP/2.0 4294967301 better not", 0, False),
        ("SIP/2.0 20x OK", 0, False),
        ("SIP/7.0 200 OK", 0, False),
    ],
)
def test_bad_start_lines(start: str, status: int, answerable: bool) -> None:
    error = refuse(build(start=start))
    assert error.status_hint == status
    assert (error.message is not None) == answerable
    if error.message is not None:
        answer = Response.reply_to(
            error.message, status, error.reason, to_tag="t", received="1.2.3.4", rport=5
        )
        assert answer.to_bytes().startswith(b"SIP/2.0 %d " % status)
        assert answer.call_id == "1011047669@192.168.1.64"


@pytest.mark.parametrize(
    "lengths",
    [b"-999", b"abc", b"", b"1 2", b"0x10", b"5, 5", b"99999999999", b"0\r\nContent-Length: 5", "²".encode()],
)
def test_content_length_that_is_no_number_is_a_400(lengths: bytes) -> None:
    error = refuse(build(length=None, extra=b"Content-Length: " + lengths))
    assert error.status_hint == 400
    assert error.message is not None
    assert error.fatal
    assert refuse(build(start="SIP/2.0 200 OK", length=None, extra=b"l: -1")).status_hint == 0


def test_equal_content_lengths_are_one() -> None:
    assert read(build(XML, extra=b"l: %d" % len(XML))).body == XML


def test_s05_limits_of_the_head() -> None:
    refuse(b"MESSAGE sip:a@b SIP/2.0\r\n" + b"a: b\r\n" * 129 + b"\r\n")
    assert read(b"MESSAGE sip:a@b SIP/2.0\r\n" + b"a: b\r\n" * 128 + b"\r\n").quirks == ("sip.no_via",)
    assert refuse(build(extra=b"Subject: " + b"x" * 8190)).reason == "Header line too long"
    assert refuse(build(extra=b"Subject: " + b"\xe6\x91\x84" * 3000)).reason == "Header line too long"
    assert refuse(build(extra=b"Subject: " + b"x\r\n " * 9000)).reason == "Header section too large"
    assert refuse(b"x" * 65_536).status_hint == 513
    assert read(build(extra=b"Subject: " + b"x" * 8000)).headers.get("Subject") == "x" * 8000


def test_rfc4475_second_message_in_a_datagram_is_ignored() -> None:
    first = build(start="REGISTER sip:3402000000 SIP/2.0", content_type="")
    for second in (build(XML), b"\r\n\r\n" + build(XML), build(start="SIP/2.0 200 OK")):
        message = read(first + second)
        assert message.body == b""
        assert message.quirks == ("sip.trailing_octets",)


# --- streams ---------------------------------------------------------------------------------------------------

Event = Message | Ping | SipParseError


def comparable(events: list[Event]) -> list[object]:
    return [
        (event.reason, event.status_hint, event.fatal) if isinstance(event, SipParseError) else event
        for event in events
    ]


def feed(data: bytes, *, flush: bool = False) -> list[Event]:
    """What comes out when `data` comes in whole; the same must come out octet by octet, and in two parts."""
    whole = StreamParser()
    events = whole.feed(data)
    slow = StreamParser()
    trickled = [event for position in range(len(data)) for event in slow.feed(data[position : position + 1])]
    assert comparable(trickled) == comparable(events)
    assert slow.waiting == whole.waiting
    assert slow.buffered == whole.buffered
    quirks = [event.quirks for event in events if isinstance(event, Request | Response)]
    assert [event.quirks for event in trickled if isinstance(event, Request | Response)] == quirks
    for cut in range(1, len(data), max(1, len(data) // 17)):
        halves = StreamParser()
        assert comparable(halves.feed(data[:cut]) + halves.feed(data[cut:])) == comparable(events)
    if flush:
        flushed = whole.flush()
        assert comparable(slow.flush()) == comparable(flushed)
        events += flushed
    return events


def bodies(events: list[Event]) -> list[bytes]:
    assert all(isinstance(event, Request | Response) for event in events), events
    return [event.body for event in events if isinstance(event, Request | Response)]


REGISTER = build(start="REGISTER sip:3402000000 SIP/2.0", content_type="")
OK = build(start="SIP/2.0 200 OK", content_type="")
INVITE_OK = build(
    b"v=0\r\no=- 0 0 IN IP4 1.2.3.4\r\n", start="SIP/2.0 200 OK", content_type="application/sdp"
)


def test_stream_several_messages_in_one_segment() -> None:
    events = feed(REGISTER + build(XML) + OK + INVITE_OK + build(XML))
    assert bodies(events) == [b"", XML, b"", b"v=0\r\no=- 0 0 IN IP4 1.2.3.4\r\n", XML]
    assert all(event.quirks == () for event in events if isinstance(event, Request | Response))


def test_stream_equals_datagram() -> None:
    for data in (REGISTER, OK, build(XML), build(XML, end=b"\n"), INVITE_OK):
        assert feed(data) == [parse_datagram(data)]


def test_reg22_double_crlf_is_a_ping() -> None:
    events = feed(
        b"\r\n\r\n" + REGISTER + b"\r\n\r\n\r\n\r\n" + build(XML) + b"\r\n" + REGISTER + b"\r\n\r\n"
    )
    assert [type(event).__name__ for event in events] == [
        "Ping",
        "Request",
        "Ping",
        "Ping",
        "Request",
        "Request",
        "Ping",
    ]
    assert events[0] == PING
    assert events[0] != REGISTER
    assert hash(PING) == hash(Ping())
    assert repr(PING) == "Ping()"


def test_stream_needs_more() -> None:
    parser = StreamParser()
    data = build(XML)
    assert parser.feed(data[:-1]) == []
    assert parser.buffered > 0
    assert parser.flush() == []
    assert len(parser.feed(data[-1:])) == 1
    assert parser.buffered == 0


@pytest.mark.parametrize("short", [1, 5, 9, 12, 40, len(XML) - 1])
def test_xml14_content_length_too_small(short: int) -> None:
    events = feed(build(XML, length=len(XML) - short) + build(XML) + REGISTER)
    assert bodies(events) == [XML, XML, b""]
    assert events[0].quirks == ("sip.content_length",)  # type: ignore[union-attr]  # bodies() has checked the types


@pytest.mark.parametrize("excess", [1, 2, 7, 20, 60, 300, 420])
def test_xml14_content_length_too_large(excess: int) -> None:
    message = build(XML, length=len(XML) + excess)
    events = feed(message + build(XML + b"\r\n") + REGISTER)
    assert [body.rstrip() for body in bodies(events)] == [XML, XML, b""]
    assert events[0].quirks == ("sip.content_length",)  # type: ignore[union-attr]  # bodies() has checked the types


def test_xml14_too_large_is_settled_by_the_next_message_and_not_later() -> None:
    parser = StreamParser()
    assert parser.feed(build(XML + b"\r\n", length=len(XML) + 50_000)) == []
    events = parser.feed(REGISTER)
    assert bodies(events) == [XML + b"\r\n", b""]


@pytest.mark.parametrize("blank", [b"", b"\r\n"])
def test_xml14_too_large_ends_with_its_root_when_nothing_follows(blank: bytes) -> None:
    parser = StreamParser()
    assert parser.feed(build(XML + blank, length=len(XML) + 8)[:-20]) == []
    assert not parser.waiting
    assert parser.feed(build(XML + blank, length=len(XML) + 8)[-20:]) == []
    assert parser.waiting
    (event,) = parser.flush()
    assert bodies([event]) == [XML + blank]
    assert event.quirks == ("sip.content_length",)  # type: ignore[union-attr]  # bodies() has checked the types
    assert not parser.waiting
    assert bodies(parser.feed(REGISTER)) == [b""]


def test_xml14_unfinished_body_of_the_right_length() -> None:
    body = XML[:-9]
    events = feed(build(body) + REGISTER)
    assert bodies(events) == [body, b""]
    assert events[0].quirks == ()  # type: ignore[union-attr]  # bodies() has checked the types


def test_xml14_flush_trusts_the_length_when_nothing_follows() -> None:
    body = XML[:-9]
    parser = StreamParser()
    assert parser.feed(build(body)) == []
    assert parser.waiting
    assert bodies(parser.flush()) == [body]
    assert not parser.waiting
    assert bodies(parser.feed(REGISTER)) == [b""]
    assert bodies(feed(build(body), flush=True)) == [body]
    assert bodies(feed(build(XML + b"MESS"), flush=True)) == [XML + b"MESS"]


def test_xml14_start_line_across_the_declared_end() -> None:
    for beyond in range(1, 60, 7):
        events = feed(build(XML + b"\r\n", length=len(XML) + 2 + beyond) + build(XML) + REGISTER)
        assert [body.rstrip() for body in bodies(events)] == [XML, XML, b""]


def test_xml18_octets_behind_the_root_belong_to_the_body() -> None:
    for tail in (b"\0\0\0", b"MESSY", b"junk", b"<Notify/>", b"\r\nMESSAGE is a word\r\n"):
        events = feed(build(XML + tail) + REGISTER)
        assert bodies(events) == [XML + tail, b""]


def test_xml18_strays_outside_the_declared_body_are_skipped() -> None:
    events = feed(build(XML) + b"\0\0" + XML + b"\r\n" + REGISTER + OK)
    assert bodies(events) == [XML, b"", b""]
    assert [event.quirks for event in events] == [(), ("sip.resynchronised",), ()]  # type: ignore[union-attr]


def test_xml14_strays_without_end_close_the_connection() -> None:
    events = feed(build(XML) + b"junk without end\n" * 4200)
    assert isinstance(events[-1], SipParseError)
    assert events[-1].fatal


def test_xml14_lookahead_is_bounded() -> None:
    body = XML[:-9]
    parser = StreamParser()
    events = parser.feed(build(body) + b"\n" * 70_000)
    assert bodies(events[:1]) == [body]
    assert events[1] == PING


def test_xml17_manscdp_under_text_plain_or_no_type() -> None:
    for content_type in ("text/plain", "", "application/xml"):
        events = feed(build(XML, length=len(XML) - 5, content_type=content_type) + REGISTER)
        assert bodies(events) == [XML, b""]
    assert bodies(feed(build(b"hello", content_type="text/plain") + OK)) == [b"hello", b""]


def test_xml14_missing_content_length() -> None:
    events = feed(build(XML, length=None) + build(length=None, content_type="") + REGISTER)
    assert bodies(events) == [XML, b"", b""]
    assert events[0].quirks == ("sip.no_content_length", "sip.content_length")  # type: ignore[union-attr]
    assert events[1].quirks == ("sip.no_content_length",)  # type: ignore[union-attr]
    empty = feed(build(length=None) + REGISTER)
    assert bodies(empty) == [b"", b""]
    assert bodies(feed(build(length=None), flush=True)) == [b""]
    sdp = feed(build(b"v=0", length=None, content_type="application/sdp"))
    assert comparable(sdp) == [("Missing Content-Length", 400, True)]


def test_stream_refused_but_framed_message_does_not_end_the_connection() -> None:
    events = feed(build(XML, start="MESSAGE sip:a@b SIP/7.0") + build(start="SIP/2.0 999 x") + REGISTER)
    assert comparable(events[:2]) == [("Version Not Supported", 505, False), ("Bad Status-Line", 0, False)]
    assert bodies(events[2:]) == [b""]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0),
        (b"MESSAGE  sip:a@b SIP/2.0\r\n\r\n", 400),
        (build(length=None, extra=b"Content-Length: -1"), 400),
        (build(length=None, extra=b"Content-Length: 1\r\nContent-Length: 2"), 400),
        (build(length=2_000_000), 513),
        (build(length=2_000_000, start="SIP/2.0 200 OK"), 513),
        (build(length=2_000_000, start="MESSAGE sip:a@b SIP/7.0"), 513),
        (b"x" * 33_000, 513),
        (b"a: b\r\n" * 6_000, 513),
    ],
)
def test_s20_framing_errors_are_fatal(data: bytes, status: int) -> None:
    parser = StreamParser()
    (event,) = parser.feed(data)
    assert isinstance(event, SipParseError)
    assert (event.status_hint, event.fatal) == (status, True)
    assert parser.failed is event
    assert parser.feed(REGISTER) == []
    assert parser.flush() == []
    assert parser.buffered == 0


def test_stream_limit_of_a_message_is_an_argument() -> None:
    parser = StreamParser(max_message=1000)
    (event,) = parser.feed(build(length=2000))
    assert isinstance(event, SipParseError)
    assert event.message is not None


def test_s05_the_limit_may_be_raised_for_a_peer_that_proved_itself() -> None:
    body = b"<Response>" + b"x" * 2000 + b"</Response>"
    parser = StreamParser(max_message=1000)
    parser.allow(10_000)
    assert bodies(parser.feed(build(body))) == [body]


def test_large_body_arrives_in_pieces() -> None:
    body = b"<Response>" + b"<Item><Name>x</Name></Item>" * 20_000 + b"</Response>"
    data = build(body) + REGISTER
    parser = StreamParser()
    events: list[Event] = []
    for position in range(0, len(data), 1400):
        events += parser.feed(data[position : position + 1400])
    assert bodies(events) == [body, b""]


def test_element_names_that_begin_like_the_root() -> None:
    body = b"<Notify><NotifyType>121</NotifyType></Notify>"
    events = feed(build(body, length=len(body) - 9) + build(body[:-9]) + REGISTER)
    assert bodies(events) == [body, body[:-9], b""]
