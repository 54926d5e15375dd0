from __future__ import annotations

import pytest

from gb28181gw.gb.sdp import Transport, parse_sdp
from gb28181gw.gb.talk import AudioForm, audio_of, broadcast_answer, talk_offer

DEVICE = "34020000001370000001"
PLATFORM = "34020000002000000001"


def offer(media: str, *lines: str, y: str = "0200000001") -> bytes:
    head = [
        "v=0",
        f"o={DEVICE} 0 0 IN IP4 127.0.0.1",
        "s=Play",
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        f"m=audio {media}",
    ]
    return "\r\n".join([*head, *lines, *([f"y={y}"] if y else []), ""]).encode()


@pytest.mark.parametrize(
    ("media", "lines", "form"),
    [
        ("8000 RTP/AVP 8", ("a=rtpmap:8 PCMA/8000",), AudioForm(payload_type=8, encoding="PCMA")),
        ("8000 RTP/AVP 8", (), AudioForm(payload_type=8, encoding="PCMA")),
        ("8000 RTP/AVP 0 8", (), AudioForm(payload_type=0, encoding="PCMU")),
        ("8000 RTP/AVP 9 96", ("a=rtpmap:96 PS/90000",), AudioForm(payload_type=96, encoding="PS")),
        ("8000 RTP/AVP 96", (), AudioForm(payload_type=96, encoding="PS")),
        (
            "8000 RTP/AVP 102",
            ("a=rtpmap:102 AAC/16000/1",),
            AudioForm(payload_type=102, encoding="AAC", sample_rate=16_000),
        ),
        ("8000 RTP/AVP 102", ("a=rtpmap:102 AAC/16000/2",), None),
        ("8000 RTP/AVP 9 18", (), None),
    ],
)
def test_tk05_the_device_says_what_it_wants_to_hear(
    media: str, lines: tuple[str, ...], form: AudioForm | None
) -> None:
    assert audio_of(parse_sdp(offer(media, *lines)).first) == form


def test_9121_the_answer_of_the_speaking_side() -> None:
    asked = parse_sdp(offer("8000 RTP/AVP 8", "a=recvonly", "a=rtpmap:8 PCMA/8000"))
    form = audio_of(asked.first)
    assert form is not None
    answer = broadcast_answer(asked, form, user=PLATFORM, host="127.0.0.1", port=20000, ssrc=200000001)
    assert answer.to_bytes().decode() == (
        f"v=0\r\no={PLATFORM} 0 0 IN IP4 127.0.0.1\r\ns=Play\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        "m=audio 20000 RTP/AVP 8\r\na=sendonly\r\na=rtpmap:8 PCMA/8000\r\ny=0200000001\r\nf=v/////a/1/8/1\r\n"
    )


@pytest.mark.parametrize(
    ("setup", "ours"), [("active", "passive"), ("passive", "active"), ("actpass", "active")]
)
def test_annex_d_the_other_role_over_tcp(setup: str, ours: str) -> None:
    asked = parse_sdp(offer("8000 TCP/RTP/AVP 8", f"a=setup:{setup}"))
    form = audio_of(asked.first)
    assert form is not None
    text = broadcast_answer(asked, form, user=PLATFORM, host="127.0.0.1", port=1, ssrc=2).to_bytes().decode()
    assert f"a=setup:{ours}\r\n" in text
    assert "m=audio 1 TCP/RTP/AVP 8\r\n" in text


def test_rfc3640_the_answer_carries_the_configuration() -> None:
    asked = parse_sdp(offer("8000 RTP/AVP 102", "a=rtpmap:102 AAC/8000/1"))
    form = audio_of(asked.first)
    assert form is not None
    answer = broadcast_answer(
        asked, form, user=PLATFORM, host="127.0.0.1", port=1, ssrc=2, aac_config=b"\x15\x88"
    )
    assert (
        "mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1588\r\n"
        in answer.to_bytes().decode()
    )


def test_2016_f_the_offer_to_talk_both_ways() -> None:
    sdp = parse_sdp(
        talk_offer(
            user=PLATFORM, host="127.0.0.1", port=20000, ssrc=5, transport=Transport.TCP_PASSIVE
        ).to_bytes()
    )
    assert (sdp.session_name, sdp.first.kind, sdp.first.direction) == ("Talk", "audio", "sendrecv")
    assert list(sdp.first.encodings.values()) == ["PCMA", "PCMU", "PS"]
    assert sdp.first.tcp
