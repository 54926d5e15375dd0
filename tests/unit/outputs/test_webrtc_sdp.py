"""Offers and answers of WebRTC."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.errors import GatewayError
from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.outputs.webrtc_sdp import (
    Choice,
    LocalTransport,
    choose_audio,
    choose_video,
    parse_fragment,
    parse_offer,
    write_answer,
)
from tests.support.webrtc import FINGERPRINT, PASSWORD, UFRAG, browser_offer


def h264(profile: str) -> Track:
    return Track(kind=TrackKind.VIDEO, codec=Codec.H264, parameter_sets=(b"\x67" + bytes.fromhex(profile),))


def test_an_offer_is_read() -> None:
    offer = parse_offer(browser_offer())
    assert [(s.kind, s.mid, s.wants) for s in offer.sections] == [("video", "0", True), ("audio", "1", True)]
    assert (offer.ufrag, offer.password, offer.active) == (UFRAG, PASSWORD, False)
    assert offer.fingerprints == (("sha-256", FINGERPRINT),)
    assert offer.bundle == ("0", "1")


@pytest.mark.parametrize(
    ("profile", "expected"), [("42c01e", 102), ("4d0028", 108), ("640028", 108), ("58001f", 108)]
)
def test_h264_takes_packetization_mode_1_and_the_nearest_profile(profile: str, expected: int) -> None:
    section = parse_offer(browser_offer()).sections[0]
    chosen = choose_video(section, h264(profile))
    assert chosen is not None and chosen.payload_type == expected


def test_h265_only_where_it_is_offered() -> None:
    track = Track(kind=TrackKind.VIDEO, codec=Codec.H265)
    assert choose_video(parse_offer(browser_offer()).sections[0], track) is None
    chosen = choose_video(parse_offer(browser_offer(h265=True)).sections[0], track)
    assert chosen is not None and chosen.payload_type == 116


def test_sound_that_the_stream_has_comes_first() -> None:
    section = parse_offer(browser_offer()).sections[1]
    assert list(choose_audio(section, "pcma")) == ["pcma", "opus", "pcmu"]
    assert list(choose_audio(section, "g729")) == ["opus", "pcmu", "pcma"]


def test_candidates_are_addresses_of_udp_and_few() -> None:
    lines = "".join(
        f"a=candidate:{n} 1 {kind} 2113937151 {host} {port} typ host\r\n"
        for n, (kind, host, port) in enumerate(
            [
                ("udp", "127.0.0.9", 5000),
                ("udp", "e6b0c5a4-11.local", 5000),
                ("tcp", "127.0.0.9", 9),
                ("udp", "224.0.0.1", 5000),
                ("udp", "127.0.0.9", 0),
                *[("udp", "127.0.0.8", 6000 + n) for n in range(30)],
            ]
        )
    )
    offer = parse_offer(browser_offer(candidates=lines))
    assert (offer.candidates[0].host, offer.candidates[0].port) == ("127.0.0.9", 5000)
    assert len(offer.candidates) == 10
    ufrag, found = parse_fragment(f"a=ice-ufrag:{UFRAG}\r\nm=video 9 X 0\r\na=mid:0\r\n{lines}".encode())
    assert (ufrag, len(found)) == (UFRAG, 10)


def test_an_answer_says_what_was_agreed_and_refuses_the_rest() -> None:
    offer = parse_offer(browser_offer())
    video = choose_video(offer.sections[0], h264("640028"))
    assert video is not None
    local = LocalTransport(
        ufrag="ours", password="o" * 22, fingerprints=(("sha-256", FINGERPRINT),), candidates=()
    )
    choices = [
        Choice(section=offer.sections[0], ssrc=7, formats={"h264": video}),
        Choice(section=offer.sections[1], ssrc=0, formats={}),
    ]
    text = write_answer(offer, choices, local, session_id=1, cname="x", level="28").decode()
    assert "a=group:BUNDLE 0\r\n" in text
    assert "m=video 9 UDP/TLS/RTP/SAVPF 108\r\n" in text
    assert "a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640028\r\n" in text
    assert "a=setup:active\r\n" in text and "a=sendonly\r\n" in text
    assert "m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n" in text
    assert parse_offer(text.encode()).sections[1].wants is False


@pytest.mark.parametrize(
    "change",
    [
        (b"v=0", b"v=1"),
        (b"a=ice-pwd:" + PASSWORD.encode(), b"a=ice-pwd:short"),
        (b"a=ice-ufrag:", b"a=ice-nothing:"),
        (b"a=fingerprint:sha-256", b"a=fingerprint:md5"),
        (b"a=setup:actpass", b"a=setup:holdconn"),
        (b"a=mid:1", b"a=mid:0"),
        (b"m=video 9 UDP/TLS/RTP/SAVPF 96 102 104 108", b"m=video 9"),
        (b"s=-", b"s=\xff"),
    ],
)
def test_what_cannot_be_answered_is_refused(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(GatewayError) as caught:
        parse_offer(browser_offer().replace(*change))
    assert caught.value.code == "gb.output.bad_offer"


@given(st.data())
def test_a_damaged_offer_is_read_or_refused_never_more(data: st.DataObject) -> None:
    text = bytearray(browser_offer(h265=True))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=8))
    try:
        offer = parse_offer(bytes(text))
    except GatewayError as error:
        assert error.code == "gb.output.bad_offer"
    else:
        assert 1 <= len(offer.sections) <= 8
