"""MANSRTSP (GB/T 28181-2022 Annex B): what is written, and everything that is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.gb.exceptions import GbLocalError, MansRtspParseError
from gb28181gw.gb.mansrtsp import (
    Action,
    MansRtspAnswer,
    MansRtspRequest,
    Pause,
    Resume,
    RtspVersion,
    Scale,
    Seek,
    Teardown,
    parse,
    write_answer,
    write_request,
)

FORMS: list[tuple[Action, bytes]] = [
    (Pause(), b"PAUSE RTSP/1.0\r\nCSeq: 3\r\nPauseTime: now\r\n\r\n"),
    (Resume(), b"PLAY RTSP/1.0\r\nCSeq: 3\r\nRange: npt=now-\r\n\r\n"),
    (Seek(100.0), b"PLAY RTSP/1.0\r\nCSeq: 3\r\nRange: npt=100-\r\n\r\n"),
    (Seek(0.5), b"PLAY RTSP/1.0\r\nCSeq: 3\r\nRange: npt=0.5-\r\n\r\n"),
    (Scale(2.0), b"PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: 2.0\r\n\r\n"),
    (Scale(0.25), b"PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: 0.25\r\n\r\n"),
    (Scale(-1.0), b"PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: -1.0\r\n\r\n"),
    (
        Scale(-1.0, 600.0, 120.0),
        b"PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: -1.0\r\nRange: npt=600-120\r\n\r\n",
    ),
    (Teardown(), b"TEARDOWN RTSP/1.0\r\nCSeq: 3\r\n\r\n"),
]


@pytest.mark.parametrize(("action", "body"), FORMS, ids=lambda value: str(value)[:24])
def test_the_forms_of_annex_b_both_ways(action: Action, body: bytes) -> None:
    assert write_request(action, 3) == body
    assert parse(body) == MansRtspRequest(action=action, cseq=3)
    older = write_request(action, 3, RtspVersion.MANSRTSP)
    assert older == body.replace(b"RTSP/1.0", b"MANSRTSP/1.0")
    assert parse(older) == MansRtspRequest(action=action, cseq=3, version=RtspVersion.MANSRTSP)


@pytest.mark.parametrize("position", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_position_that_is_none_is_not_written(position: float) -> None:
    with pytest.raises(GbLocalError):
        write_request(Seek(position), 1)


@pytest.mark.parametrize("scale", [0.0, 100.0, float("nan")])
def test_a_speed_that_is_none_is_not_written(scale: float) -> None:
    with pytest.raises(GbLocalError):
        write_request(Scale(scale), 1)


@pytest.mark.parametrize(
    ("body", "action"),
    [
        (b"play mansrtsp/1.0\ncseq:3\nrange:npt=now-", Resume()),
        (b"\r\n\r\nPLAY RTSP/1.0\r\nCSeq : 3\r\nRange : npt = 12.500 -\r\n\r\n\r\n", Seek(12.5)),
        (b"PLAY RTSP/1.0\r\nCSeq: 3\r\nRange: npt=0:01:40-\r\n", Seek(100.0)),
        (b"PLAY RTSP/1.0\r\nCSeq: 3\r\nRange: smpte=0:10:00-\r\n", Seek(600.0)),
        (b"PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: 4\r\nRange: npt=now-\r\n", Scale(4.0)),
        (b"PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: zero\r\n", Resume()),
        (b"PLAY RTSP/1.0\r\nCSeq: 3\r\n", Resume()),
        (b"PAUSE RTSP/1.0\r\nCSeq: 3\r\nPauseTime: 12\r\n", Pause()),
    ],
)
def test_pb09_other_forms_are_read(body: bytes, action: Action) -> None:
    found = parse(body)
    assert isinstance(found, MansRtspRequest)
    assert (found.action, found.cseq) == (action, 3)


def test_an_answer_both_ways() -> None:
    answer = MansRtspAnswer(
        status=200, reason="OK", cseq=5, range="npt=100-", sequence=18139, rtp_time=3119600838
    )
    body = write_answer(answer)
    assert body == (
        b"RTSP/1.0 200 OK\r\nCSeq: 5\r\nRange: npt=100-\r\nRTP-Info: seq=18139;rtptime=3119600838\r\n\r\n"
    )
    assert parse(body) == answer


def test_an_answer_with_a_refusal_or_another_speed() -> None:
    refused = parse(b"MANSRTSP/1.0 451 Invalid Parameter\nCSeq: x\n")
    assert isinstance(refused, MansRtspAnswer)
    assert (refused.ok, refused.status, refused.reason, refused.cseq) == (
        False,
        451,
        "Invalid Parameter",
        None,
    )
    slower = parse(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nScale: -1\r\n\r\n")
    assert isinstance(slower, MansRtspAnswer)
    assert (slower.ok, slower.scale) == (True, -1.0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "start_line"),
        (b"HELLO\r\n", "start_line"),
        (b"PLAY HTTP/1.0\r\n", "start_line"),
        (b"RECORD RTSP/1.0\r\nCSeq: 1\r\n", "no_action"),
        (b"x" * 9000, "too_large"),
    ],
)
def test_what_is_none_has_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(MansRtspParseError) as caught:
        parse(body)
    assert caught.value.reason == reason


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_hostile_bodies_raise_the_one_error(body: bytes) -> None:
    for text in (body, b"PLAY RTSP/1.0\r\n" + body, b"RTSP/1.0 200 OK\r\n" + body):
        try:
            found = parse(text)
        except MansRtspParseError:
            continue
        assert isinstance(found, MansRtspRequest | MansRtspAnswer)
