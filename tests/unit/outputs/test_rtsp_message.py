from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.outputs.rtsp_message import (
    MAX_BODY,
    InterleavedFrame,
    RtspError,
    RtspParser,
    RtspRequest,
    Transport,
    parse_transport,
    write_response,
)

REQUEST = (
    b"PLAY rtsp://h/live/a_b RTSP/1.0\r\nCSeq: 3\r\nSession:  ab12;timeout=60 \r\nContent-Length: 2\r\n\r\nhi"
)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_requests_and_frames_in_any_cut(step: int) -> None:
    data = (
        REQUEST
        + b"$\x01\x00\x03abc"
        + b"\r\n\r\n"
        + b"OPTIONS * RTSP/1.0\r\ncseq: 4\r\n\r\n"
        + b"$\x00\x00\x00"
    )
    parser = RtspParser()
    found: list[RtspRequest | InterleavedFrame] = []
    for place in range(0, len(data), step):
        found += parser.feed(data[place : place + step])
    assert found == [
        RtspRequest(
            method="PLAY",
            uri="rtsp://h/live/a_b",
            headers={"cseq": "3", "session": "ab12;timeout=60", "content-length": "2"},
            body=b"hi",
        ),
        InterleavedFrame(channel=1, data=b"abc"),
        RtspRequest(method="OPTIONS", uri="*", headers={"cseq": "4"}),
        InterleavedFrame(channel=0, data=b""),
    ]
    assert parser.is_between


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 505),
        (b"nonsense\r\n\r\n", 400),
        (b"PL\x00Y x RTSP/1.0\r\n\r\n", 400),
        (b"PLAY x RTSP/1.0\r\nno colon\r\n\r\n", 400),
        (b"PLAY x RTSP/1.0\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PLAY x RTSP/1.0\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
        (b"PLAY x RTSP/1.0\r\n" + b"a: b\r\n" * 100 + b"\r\n", 400),
        (b"PLAY " + b"x" * 9000, 413),
        (b"PLAY x RTSP/1.0\r\nA: " + b"x" * 9000 + b"\r\n\r\n", 413),
    ],
)
def test_s05_what_cannot_be_read_is_named(data: bytes, status: int) -> None:
    with pytest.raises(RtspError) as error:
        RtspParser().feed(data)
    assert error.value.status == status


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_s05_garbage_is_an_error_or_waits(pieces: list[bytes]) -> None:
    parser = RtspParser()
    try:
        for piece in pieces:
            for item in parser.feed(piece):
                assert isinstance(item, RtspRequest | InterleavedFrame)
    except RtspError as error:
        assert error.status in (400, 413, 505)


@pytest.mark.parametrize(("text", "cseq"), [("7", "7"), ("", ""), ("7\x00", ""), ("-1", ""), ("9" * 11, "")])
def test_cseq_that_can_be_repeated(text: str, cseq: str) -> None:
    assert RtspRequest(method="PLAY", uri="x", headers={"cseq": text}).cseq == cseq


def test_response() -> None:
    assert write_response(200, "5", [("Session", "a")], b"body") == (
        b"RTSP/1.0 200 OK\r\nCSeq: 5\r\nSession: a\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert write_response(454, "") == b"RTSP/1.0 454 Session Not Found\r\n\r\n"
    with pytest.raises(ValueError, match="line break"):
        write_response(200, "1", [("Content-Base", "x\r\ny")])


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=2-3", Transport(interleaved=(2, 3))),
        ("RTP/AVP/TCP;interleaved=4", Transport(interleaved=(4, 5))),
        ("RTP/AVP/TCP;unicast", Transport(interleaved=(-1, -1))),
        ("RTP/AVP;unicast;client_port=5000-5001;mode=play", Transport(client_ports=(5000, 5001))),
        ('RTP/AVP/UDP;unicast;client_port=5000-5001;mode="PLAY"', Transport(client_ports=(5000, 5001))),
        ("RTP/AVP;multicast;port=1-2,RTP/AVP/TCP;interleaved=0-1", Transport(interleaved=(0, 1))),
        ("RTP/AVP;multicast", None),
        ("RTP/AVP;unicast;client_port=0-1", None),
        ("RTP/AVP;unicast;client_port=70000-70001", None),
        ("RTP/AVP;unicast;client_port=a-b", None),
        ("RTP/AVP/TCP;interleaved=255", None),
        ("RTP/AVP/TCP;interleaved=3-3", None),
        ("RTP/AVP/TCP;interleaved=0-1;mode=record", None),
        ("RTP/SAVP;unicast;client_port=5000-5001", None),
        ("", None),
    ],
)
def test_transport(value: str, found: Transport | None) -> None:
    assert parse_transport(value) == found
