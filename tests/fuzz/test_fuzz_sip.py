"""Any octets: the parsers raise SipParseError or nothing, and what was read can be written and read again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gb28181gw.sip.digest import answer, parse_challenge, parse_credentials, verify
from gb28181gw.sip.exceptions import LocalProtocolError, SipParseError
from gb28181gw.sip.headers import CSeq, Subject, Via, parse_contact
from gb28181gw.sip.message import Headers, Message, Request, Response
from gb28181gw.sip.nonce import NonceMinter
from gb28181gw.sip.parser import StreamParser, parse_datagram
from gb28181gw.sip.uri import NameAddr, Uri
from gb28181gw.sip.validate import drop_reason, verdict

BODY = "<?xml version='1.0'?><Notify><DeviceID>1</DeviceID><Name>摄像机</Name></Notify>".encode("gb18030")
SEEDS = [
    b"MESSAGE sip:34020000002000000001@3402000000 SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.1:5060;rport;branch=z9hG4bK1\r\n"
    b'From: "a b" <sip:34020000001320000001@3402000000>;tag=1\r\nt: sip:34020000002000000001@3402000000\r\n'
    b"Call-ID : x@y\r\nCSeq: 20 MESSAGE\r\nContent-Type: Application/MANSCDP+xml\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    b"REGISTER sip:3402000000 SIP/2.0\nv: SIP / 2.0 / UDP a ;branch=1,\n SIP/2.0/UDP b\n"
    b"f: <sip:1>;tag=2\nTo: \xc9\xe3 < sip:1@2 >\n"
    b"i: 1\nCSeq: 1 Register\nm: *\nExpires: 0\nMax-Forwards: 70\ngarbage\nl: 0\n\n",
    b"SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1;received=1.2.3.4;rport=5\r\n"
    b"From: <sip:1@2>;tag=3\r\n"
    b'To: <sip:1@2>;tag=4\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\nWWW-Authenticate: Digest realm="r",nonce="n"\r\n'
    b"Content-Length: 0\r\n\r\n",
]
PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b'"',
    b"\\",
    b"<",
    b">",
    b"\r\n\r\n",
    b"\xff\xfe",
    b"\x81\x30",
    b"Content-Length: ",
    b"99999999999",
    b"</Notify>",
    b"SIP/2.0",
    *SEEDS,
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A seed with octets removed, doubled, replaced, or pieces put in; possibly cut short."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        put = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4), st.just(data[start:end] * 2)))
        data = data[:start] + put + data[end:]
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


octets = st.one_of(
    st.binary(max_size=400), mutated(), st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)
)


def read_everything(message: Message) -> None:
    """Every typed view: the only exception is SipParseError."""
    for view in ("via", "from_", "to", "call_id", "cseq", "contact", "expires"):
        try:
            getattr(message, view)
        except SipParseError as error:
            assert error.status_hint == 400
    if isinstance(message, Request):
        verdict(message)
        reply = Response.reply_to(message, 200, to_tag="t", received="1.2.3.4", rport=5)
        again = parse_datagram(reply.to_bytes())
        assert again == reply
    else:
        drop_reason(message)
    assert all(name.startswith("sip.") for name in message.quirks)


@settings(max_examples=400, deadline=None)
@given(octets)
def test_datagram(data: bytes) -> None:
    try:
        message = parse_datagram(data)
    except SipParseError as error:
        assert error.status_hint in (0, 400, 505, 513)
        if error.message is not None:
            Response.reply_to(error.message, 400, to_tag="t", received="1.2.3.4", rport=5).to_bytes()
        return
    if message is None:
        return
    read_everything(message)
    written = message.to_bytes()
    assert parse_datagram(written) == message
    assert written == message.to_bytes()


@settings(max_examples=300, deadline=None)
@given(st.lists(octets, min_size=1, max_size=3).map(b"".join), st.data())
def test_stream_in_any_segmentation(data: bytes, choice: st.DataObject) -> None:
    whole = StreamParser()
    events = whole.feed(data)
    split = StreamParser()
    pieces: list[object] = []
    position = 0
    while position < len(data):
        size = (
            choice.draw(st.integers(1, 64))
            if len(data) - position < 200
            else choice.draw(st.integers(1, 700))
        )
        pieces += split.feed(data[position : position + size])
        position += size
    assert [repr(piece) for piece in pieces] == [repr(event) for event in events]
    for piece, event in zip(pieces, events, strict=True):
        if isinstance(event, Request | Response):
            assert piece == event
            read_everything(event)
    assert (split.waiting, split.buffered) == (whole.waiting, whole.buffered)
    whole.flush()
    whole.feed(b"")


HEADER_TEXT = st.text(max_size=40)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.from_regex(r"[A-Za-z!%'-]{1,12}", fullmatch=True), HEADER_TEXT), max_size=8),
    st.binary(max_size=60),
)
def test_writer_refuses_or_round_trips(items: list[tuple[str, str]], body: bytes) -> None:
    request = Request("MESSAGE", "sip:a@b", Headers(items), body)
    try:
        data = request.to_bytes()
    except LocalProtocolError:
        assert any(char in value for _, value in items for char in "\r\n\0")
        return
    again = parse_datagram(data)
    assert isinstance(again, Request)
    assert again.body == body
    assert [name for name, _ in again.headers.items()] == [name for name, _ in request.headers.items()]
    assert again.to_bytes() == parse_again(again.to_bytes())


def parse_again(data: bytes) -> bytes:
    message = parse_datagram(data)
    assert message is not None
    return message.to_bytes()


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(alphabet='sip:@;=?,<>"\\ 1a[]./%\t', max_size=60)))
def test_values(text: str) -> None:
    for read in (Uri.parse, NameAddr.parse, Via.parse, CSeq.parse, parse_contact):
        try:
            value = read(text)
        except SipParseError as error:
            assert error.status_hint == 400
        else:
            assert read(str(value)) == value
    Subject.parse(text)


PARAMS = st.text(alphabet='Digest realm="nocuspqh=,\\ 1\n', max_size=80)


@settings(max_examples=200, deadline=None)
@given(st.one_of(PARAMS, PARAMS.map(lambda text: "Digest " + text)), st.text(max_size=20))
def test_digest(text: str, password: str) -> None:
    given_credentials = parse_credentials(text)
    if given_credentials is not None:
        assert not verify(given_credentials, "REGISTER", password)
    challenge = parse_challenge(text)
    if challenge is not None:
        try:
            value = answer(challenge, "REGISTER", "sip:1", "u", password, cnonce="c")
        except LocalProtocolError:
            return
        made = parse_credentials(value)
        assert made is None or verify(made, "REGISTER", password)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=25), st.floats(0, 2**38))
def test_nonce(text: str, ip: str, device: str, now: float) -> None:
    minter = NonceMinter(b"0123456789abcdef")
    assert minter.check(text, now, ip, device).foreign
    assert minter.check(minter.mint(now, ip, device), now, ip, device).valid
