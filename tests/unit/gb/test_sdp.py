from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.gb.exceptions import GbLocalError, SdpParseError
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.sdp import (
    MAX_LINES,
    PAYLOADS_DEFAULT,
    PAYLOADS_EXTENDED,
    Answer,
    Offer,
    Payload,
    RtpMap,
    SessionKind,
    Setup,
    Transport,
    agree,
    answer_to,
    format_ssrc,
    live_offer,
    parse_sdp,
    payload_map,
)

PLATFORM = "34020000002000000001"
DEVICE = "34020000001180000001"
SSRC = 200000001


def offer(transport: Transport = Transport.UDP) -> Offer:
    return live_offer(user=PLATFORM, host="192.0.2.1", port=20000, ssrc=SSRC, transport=transport)


def lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("gb18030")


# A device's answer; each test changes what it is about.
ANSWER = f"""v=0
o={DEVICE} 0 0 IN IP4 192.0.2.20
s=Play
c=IN IP4 192.0.2.20
t=0 0
m=video 15060 RTP/AVP 96
a=sendonly
a=rtpmap:96 PS/90000
y=0200000001
f=v/2/6/25/1/4096a/1/8/1
"""


# --- writing -----------------------------------------------------------------------------------------------------


def test_inv07_live_offer_over_udp_ends_with_crlf() -> None:
    assert (
        offer().to_bytes()
        == (
            "v=0\r\n"
            f"o={PLATFORM} 0 0 IN IP4 192.0.2.1\r\n"
            "s=Play\r\n"
            "c=IN IP4 192.0.2.1\r\n"
            "t=0 0\r\n"
            "m=video 20000 RTP/AVP 96 98 97 100\r\n"
            "a=recvonly\r\n"
            "a=rtpmap:96 PS/90000\r\n"
            "a=rtpmap:98 H264/90000\r\n"
            "a=rtpmap:97 MPEG4/90000\r\n"
            "a=rtpmap:100 H265/90000\r\n"
            "y=0200000001\r\n"
        ).encode()
    )


@pytest.mark.parametrize(
    ("transport", "setup"), [(Transport.TCP_PASSIVE, b"passive"), (Transport.TCP_ACTIVE, b"active")]
)
def test_live_offer_over_tcp_states_its_role(transport: Transport, setup: bytes) -> None:
    data = offer(transport).to_bytes()
    assert b"m=video 20000 TCP/RTP/AVP 96 98 97 100\r\n" in data
    assert b"a=setup:" + setup + b"\r\na=connection:new\r\n" in data
    assert data.endswith(b"y=0200000001\r\n")


def test_transport_may_be_given_by_name() -> None:
    assert (
        live_offer(user=PLATFORM, host="h", port=1, ssrc=1, transport="tcp-active").transport
        is Transport.TCP_ACTIVE
    )


def test_history_offer_has_u_and_unix_times() -> None:
    made = dataclasses.replace(
        offer(), session=SessionKind.PLAYBACK, uri=f"{DEVICE}:0", start_time=1714523400, end_time=1714527000
    )
    data = made.to_bytes().split(b"\r\n")
    assert data[2:6] == [
        b"s=Playback",
        f"u={DEVICE}:0".encode(),
        b"c=IN IP4 192.0.2.1",
        b"t=1714523400 1714527000",
    ]


def test_inv27_further_attributes_and_f_stand_before_and_behind_y() -> None:
    made = dataclasses.replace(
        offer(), attributes=(("streamnumber", "1"), ("flag", "")), f="v/2/6/25/1/4096a///"
    )
    assert made.to_bytes().endswith(
        b"a=streamnumber:1\r\na=flag\r\ny=0200000001\r\nf=v/2/6/25/1/4096a///\r\n"
    )


def test_ipv6_addresses_are_named_so() -> None:
    assert b"c=IN IP6 2001:db8::1\r\n" in dataclasses.replace(offer(), host="2001:db8::1").to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"ssrc": 0},
        {"ssrc": -1},
        {"ssrc": 2**32},
        {"user": ""},
        {"host": ""},
        {"port": 65536},
        {"port": -1},
        {"payloads": ()},
        {"user": "x\r\na=evil"},
        {"attributes": (("a", "b\nc"),)},
        {"f": "\0"},
    ],
)
def test_what_must_not_be_written_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(GbLocalError):
        dataclasses.replace(offer(), **change).to_bytes()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ssrc", "text"), [(1, "0000000001"), (SSRC, "0200000001"), (1200000001, "1200000001")]
)
def test_inv04_y_always_has_ten_digits(ssrc: int, text: str) -> None:
    assert format_ssrc(ssrc) == text


def test_inv13_extended_list_carries_its_parameters() -> None:
    data = dataclasses.replace(offer(), payloads=PAYLOADS_EXTENDED).to_bytes()
    assert b"m=video 20000 RTP/AVP 96 126 125 99 34 98 97\r\n" in data
    assert b"a=rtpmap:126 H264/90000\r\na=fmtp:126 profile-level-id=42e01e\r\n" in data
    assert payload_map(PAYLOADS_EXTENDED)[126] == "H264"


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_sound_answer() -> None:
    sdp = parse_sdp(lines(ANSWER))
    assert sdp.origin_user == DEVICE
    assert sdp.session is SessionKind.PLAY
    assert sdp.connection_host == "192.0.2.20"
    assert (sdp.start_time, sdp.end_time) == (0, 0)
    assert (sdp.y, sdp.y_text) == (SSRC, "0200000001")
    assert sdp.f == "v/2/6/25/1/4096a/1/8/1"
    assert sdp.quirks == ()
    media = sdp.first
    assert media is sdp.video
    assert (media.kind, media.port, media.protocol, media.tcp) == ("video", 15060, "RTP/AVP", False)
    assert media.payload_types == (96,)
    assert media.rtpmaps == (RtpMap(96, "PS", 90000),)
    assert media.encodings == {96: "PS"}
    assert media.direction == "sendonly"
    assert sdp.host_of(media) == "192.0.2.20"


def test_tk04_audio_only_invite_without_o_and_t() -> None:
    sdp = parse_sdp(b"v=0\ns=Play\nc=IN IP4 192.0.2.9\nm=audio 8000 RTP/AVP 8\na=recvonly\n")
    assert sdp.video is None
    assert sdp.first.kind == "audio"
    assert sdp.first.encodings == {8: "PCMA"}
    assert {Quirk.SDP_MISSING_LINE, Quirk.SDP_LINE_FORM} <= set(sdp.quirks)


def test_tk04_blanks_unknown_lines_and_other_case() -> None:
    sdp = parse_sdp(
        lines(
            f" V = 0 \n\no= {DEVICE} 0 0 IN IP4 192.0.2.20\ns = play\ni=camera\nc=IN  IP4  192.0.2.20\nt=0  0\nz=?\n"
            "m=Video  15060  tcp/rtp/avp  96\na= setup : ACTIVE \na=Connection:New\nA=SendOnly\n"
            "a=rtpmap: 96  ps / 90000 \ngarbage\n y = 0200000001 \n"
        )
    )
    media = sdp.first
    assert (media.kind, media.port, media.tcp, media.setup, media.connection) == (
        "video",
        15060,
        True,
        Setup.ACTIVE,
        "new",
    )
    assert media.direction == "sendonly"
    assert media.encodings == {96: "PS"}
    assert sdp.y == SSRC
    assert {Quirk.SDP_LINE_FORM, Quirk.SDP_SESSION_NAME} <= set(sdp.quirks)


def test_names_in_chinese_do_not_matter() -> None:
    sdp = parse_sdp(lines(ANSWER.replace("s=Play", "s=实时点播")))
    assert sdp.session_name == "实时点播"
    assert sdp.session is SessionKind.PLAY


@pytest.mark.parametrize(
    ("text", "value", "odd"),
    [
        ("0200000001", SSRC, False),
        ("200000001", SSRC, True),
        (" 0200000001", SSRC, False),
        ("02000 00001", SSRC, True),
        ("1", 1, True),
        ("0", None, True),
        ("0000000000", None, True),
        ("", None, True),
        ("0BEBC201", None, True),
        ("9999999999", None, True),
        ("02000000010", None, True),
        ("-200000001", None, True),
        ("０２００００００01", None, True),
    ],
)
def test_inv04_inv05_forms_of_y(text: str, value: int | None, odd: bool) -> None:
    sdp = parse_sdp(lines(ANSWER.replace("y=0200000001", f"y={text}")))
    assert sdp.y == value
    assert (Quirk.SDP_Y_FORM in sdp.quirks) is odd


@pytest.mark.parametrize(
    ("name", "times", "kind", "odd"),
    [
        ("Play", "0 0", SessionKind.PLAY, False),
        ("PLAY", "0 0", SessionKind.PLAY, True),
        ("playback", "1 2", SessionKind.PLAYBACK, True),
        ("Download", "1 2", SessionKind.DOWNLOAD, False),
        ("Talk", "0 0", SessionKind.TALK, False),
        ("RealTime", "0 0", SessionKind.PLAY, True),
        ("Vod", "1714523400 1714527000", SessionKind.PLAYBACK, True),
        ("", "0 0", SessionKind.PLAY, True),
    ],
)
def test_inv25_session_names(name: str, times: str, kind: SessionKind, odd: bool) -> None:
    sdp = parse_sdp(lines(ANSWER.replace("s=Play", f"s={name}").replace("t=0 0", f"t={times}")))
    assert sdp.session is kind
    assert (Quirk.SDP_SESSION_NAME in sdp.quirks) is odd


@pytest.mark.parametrize("port", ["0", "", "x", "65536", "-1"])
def test_inv17_port_that_is_none(port: str) -> None:
    sdp = parse_sdp(lines(ANSWER.replace("15060", port)))
    assert sdp.first.port == 0
    assert Quirk.SDP_PORT_ZERO in sdp.quirks


def test_port_with_count_and_connection_of_the_media_line() -> None:
    sdp = parse_sdp(
        lines(
            ANSWER.replace("c=IN IP4 192.0.2.20\n", "").replace("15060 RTP", "15060/2 RTP")
            + "c=IN IP4 192.0.2.30/127\n"
        )
    )
    assert sdp.first.port == 15060
    assert sdp.host_of(sdp.first) == "192.0.2.30"
    assert sdp.connection_host == "192.0.2.30"


def test_several_media_lines_keep_their_own_lines() -> None:
    sdp = parse_sdp(
        lines(ANSWER + "m=audio 15062 RTP/AVP 8 104\na=rtpmap:104 mpeg4-generic/16000/2\na=inactive\n")
    )
    video, audio = sdp.media
    assert video.encodings == {96: "PS"}
    assert audio.encodings == {8: "PCMA", 104: "MPEG4-GENERIC"}
    assert audio.rtpmaps == (RtpMap(104, "mpeg4-generic", 16000, 2),)
    assert (video.direction, audio.direction) == ("sendonly", "inactive")


def test_attributes_of_downloads() -> None:
    sdp = parse_sdp(lines(ANSWER + "a=filesize:1024\na=FLAG\n"))
    assert dict(sdp.first.attributes)["filesize"] == "1024"
    assert dict(sdp.first.attributes)["flag"] == ""


@pytest.mark.parametrize(
    ("old", "new", "quirk"),
    [
        ("a=rtpmap:96 PS/90000", "a=rtpmap:PS", Quirk.SDP_LINE_FORM),
        ("t=0 0", "t=0", Quirk.SDP_LINE_FORM),
        ("c=IN IP4 192.0.2.20", "c=192.0.2.20", Quirk.SDP_LINE_FORM),
        ("c=IN IP4 192.0.2.20\n", "", Quirk.SDP_MISSING_LINE),
        ("v=0\n", "", Quirk.SDP_MISSING_LINE),
    ],
)
def test_tk04_each_odd_line_is_named_and_the_rest_is_read(old: str, new: str, quirk: Quirk) -> None:
    sdp = parse_sdp(lines(ANSWER.replace(old, new)))
    assert quirk in sdp.quirks
    assert (sdp.first.port, sdp.y, sdp.first.encodings) == (15060, SSRC, {96: "PS"})


def test_of_repeated_lines_the_first_counts() -> None:
    sdp = parse_sdp(lines(ANSWER + "s=Download\ny=0100000009\n"))
    assert (sdp.session, sdp.y) == (SessionKind.PLAY, SSRC)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no_media"),
        (b"v=0\r\ns=Play\r\n", "no_media"),
        (b"v=0\r\n" * (MAX_LINES + 1), "too_many_lines"),
        (b"\n" * 60_000, "too_many_lines"),
        (b"x" * 70_000, "too_large"),
    ],
)
def test_s05_limits_and_reasons(body: bytes, reason: str) -> None:
    with pytest.raises(SdpParseError) as caught:
        parse_sdp(body)
    assert caught.value.reason == reason


def test_exactly_the_limit_of_lines_is_read() -> None:
    body = lines(ANSWER)
    body += b"a=x\r\n" * (MAX_LINES - body.count(b"\r\n") - 1)
    assert parse_sdp(body).y == SSRC


# --- offer and answer --------------------------------------------------------------------------------------------


def change(*pairs: tuple[str, str]) -> bytes:
    text = ANSWER
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return lines(text)


def test_a_sound_answer_agrees() -> None:
    agreed = agree(offer(), parse_sdp(lines(ANSWER)))
    assert agreed.ssrc == SSRC
    assert (agreed.listen, agreed.dial) == (False, False)
    assert (agreed.host, agreed.port, agreed.payloads) == ("192.0.2.20", 15060, {96: "PS"})
    assert agreed.quirks == ()


@pytest.mark.parametrize("y", ["", "y=0\n", "y=\n", "y=0000000000\n"])
def test_inv01_without_y_the_offered_ssrc_is_assumed(y: str) -> None:
    agreed = agree(offer(), parse_sdp(change(("y=0200000001\n", y))))
    assert agreed.ssrc == SSRC
    assert Quirk.SDP_NO_Y in agreed.quirks


def test_inv02_another_y_is_the_devices_choice() -> None:
    agreed = agree(offer(), parse_sdp(change(("y=0200000001", "y=0100000009"))))
    assert agreed.ssrc == 100000009
    assert Quirk.SDP_OTHER_Y in agreed.quirks


def test_inv04_y_without_its_leading_zero_is_the_same_number() -> None:
    agreed = agree(offer(), parse_sdp(change(("y=0200000001", "y=200000001"))))
    assert agreed.ssrc == SSRC
    assert Quirk.SDP_OTHER_Y not in agreed.quirks


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "camera.example", "239.1.1.1"])  # noqa: S104
def test_inv17_addresses_nobody_has(host: str) -> None:
    agreed = agree(offer(), parse_sdp(change(("c=IN IP4 192.0.2.20", f"c=IN IP4 {host}"))))
    assert agreed.host == ""
    assert Quirk.SDP_UNUSABLE_ADDRESS in agreed.quirks


def test_inv17_a_private_address_is_left_to_the_caller() -> None:
    agreed = agree(offer(), parse_sdp(change(("c=IN IP4 192.0.2.20", "c=IN IP4 10.0.0.9"))))
    assert agreed.host == "10.0.0.9"


def test_inv17_port_zero_cannot_be_dialled() -> None:
    agreed = agree(
        offer(Transport.TCP_ACTIVE),
        parse_sdp(change(("15060 RTP/AVP", "0 TCP/RTP/AVP"), ("a=sendonly", "a=setup:passive"))),
    )
    assert not agreed.dial


@pytest.mark.parametrize(
    ("transport", "setup", "listen", "dial", "odd"),
    [
        (Transport.TCP_PASSIVE, "active", True, False, False),
        (Transport.TCP_PASSIVE, "passive", True, True, True),
        (Transport.TCP_PASSIVE, "actpass", True, True, True),
        (Transport.TCP_PASSIVE, "", True, False, True),
        (Transport.TCP_PASSIVE, "holdconn", True, False, True),
        (Transport.TCP_ACTIVE, "passive", False, True, False),
        (Transport.TCP_ACTIVE, "active", True, True, True),
        (Transport.TCP_ACTIVE, "actpass", True, True, True),
        (Transport.TCP_ACTIVE, "", False, True, True),
    ],
)
def test_inv18_setup_roles(transport: Transport, setup: str, listen: bool, dial: bool, odd: bool) -> None:
    role = f"a=setup:{setup}\na=connection:new" if setup else "a=connection:new"
    agreed = agree(offer(transport), parse_sdp(change(("RTP/AVP", "TCP/RTP/AVP"), ("a=sendonly", role))))
    assert (agreed.listen, agreed.dial) == (listen, dial)
    assert (Quirk.SDP_SETUP in agreed.quirks) is odd


def test_inv24_tcp_in_answer_to_udp() -> None:
    agreed = agree(offer(), parse_sdp(change(("RTP/AVP", "TCP/RTP/AVP"), ("a=sendonly", "a=setup:active"))))
    assert (agreed.listen, agreed.dial) == (True, False)
    assert Quirk.SDP_TRANSPORT_DIFFERS in agreed.quirks


def test_inv24_udp_in_answer_to_tcp() -> None:
    agreed = agree(offer(Transport.TCP_PASSIVE), parse_sdp(lines(ANSWER)))
    assert agreed.listen
    assert Quirk.SDP_TRANSPORT_DIFFERS in agreed.quirks


def test_an_answer_without_any_map_means_the_offered_one() -> None:
    agreed = agree(offer(), parse_sdp(change(("RTP/AVP 96", "RTP/AVP 127"), ("a=rtpmap:96 PS/90000\n", ""))))
    assert agreed.payloads == payload_map(PAYLOADS_DEFAULT)


# --- the answerer's side -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", list(Transport))
def test_our_answer_suits_our_offer(transport: Transport) -> None:
    made = offer(transport)
    answer = answer_to(
        parse_sdp(made.to_bytes()), user=DEVICE, host="192.0.2.20", port=15060, f="v/2/6/25/1/4096a///"
    )
    sdp = parse_sdp(answer.to_bytes())
    assert sdp.first.direction == "sendonly"
    agreed = agree(made, sdp)
    assert agreed.quirks == ()
    assert (agreed.ssrc, agreed.port, agreed.payloads) == (SSRC, 15060, {96: "PS"})
    assert (agreed.listen, agreed.dial) == (
        transport is Transport.TCP_PASSIVE,
        transport is Transport.TCP_ACTIVE,
    )


def test_inv05_an_offer_without_y_needs_an_ssrc_of_the_answerer() -> None:
    sdp = parse_sdp(offer().to_bytes().replace(b"y=0200000001\r\n", b""))
    with pytest.raises(GbLocalError):
        answer_to(sdp, user=DEVICE, host="192.0.2.20", port=15060)
    assert answer_to(sdp, user=DEVICE, host="192.0.2.20", port=15060, ssrc=5).ssrc == 5


hosts = st.ip_addresses().map(str)
payload_lists = st.lists(
    st.builds(
        Payload,
        number=st.integers(96, 127),
        encoding=st.sampled_from(["PS", "H264", "H265", "MPEG4"]),
        clock_rate=st.just(90_000),
        fmtp=st.just(""),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda payload: payload.number,
).map(tuple)


@given(
    made=st.builds(
        Offer,
        user=st.from_regex(r"\d{20}", fullmatch=True).filter(str.isascii),
        host=hosts,
        port=st.integers(1, 65535),
        ssrc=st.integers(1, 2**32 - 1),
        transport=st.sampled_from(list(Transport)),
        payloads=payload_lists,
        session=st.sampled_from(list(SessionKind)),
        start_time=st.integers(0, 2**33),
        end_time=st.integers(0, 2**33),
    )
)
def test_offers_are_read_as_they_were_written(made: Offer) -> None:
    sdp = parse_sdp(made.to_bytes())
    media = sdp.first
    assert sdp.quirks == ()
    assert (sdp.origin_user, sdp.connection_host, sdp.y, sdp.session) == (
        made.user,
        made.host,
        made.ssrc,
        made.session,
    )
    assert (sdp.start_time, sdp.end_time) == (made.start_time, made.end_time)
    assert (media.port, media.tcp) == (made.port, made.transport is not Transport.UDP)
    assert media.encodings == payload_map(made.payloads)


@given(
    made=st.builds(
        Answer,
        user=st.just(DEVICE),
        host=hosts,
        port=st.integers(1, 65535),
        ssrc=st.integers(1, 2**32 - 1),
        tcp=st.booleans(),
        setup=st.none() | st.sampled_from(list(Setup)),
        payloads=payload_lists,
    )
)
def test_answers_are_read_as_they_were_written(made: Answer) -> None:
    sdp = parse_sdp(made.to_bytes())
    media = sdp.first
    assert (media.tcp, media.setup, media.direction, sdp.y) == (made.tcp, made.setup, "sendonly", made.ssrc)
