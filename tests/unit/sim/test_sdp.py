import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.sdp import Answer, Offer, OfferError, read_offer, write_answer

OFFER = (
    b"v=0\r\no=34020000002000000001 0 0 IN IP4 192.0.2.1\r\ns=Play\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    b"m=video 30000 TCP/RTP/AVP 96 98 97\r\na=recvonly\r\na=rtpmap:96 PS/90000\r\na=rtpmap:98 H264/90000\r\n"
    b"a=rtpmap:97 MPEG4/90000\r\na=setup:passive\r\na=connection:new\r\ny=0200000001\r\nf=v/////a///\r\n"
)


def test_offer_is_read() -> None:
    assert read_offer(OFFER) == Offer(
        session="Play",
        host="192.0.2.1",
        port=30000,
        tcp=True,
        setup="passive",
        payloads=((96, "PS"), (98, "H264"), (97, "MPEG4")),
        ssrc=200000001,
    )


def test_offer_without_y_rtpmap_and_setup() -> None:
    offer = read_offer(b"v=0\r\ns=Play\r\nc=IN IP6 ::1\r\nt=0 0\r\nm=video 5000 RTP/AVP 96\r\n")
    assert (offer.host, offer.ssrc, offer.setup, offer.tcp) == ("::1", None, "", False)
    assert offer.ps_payload == 96
    assert offer.only_ps


def test_ps_under_another_number_is_found() -> None:
    offer = read_offer(
        OFFER.replace(b"rtpmap:96 PS", b"rtpmap:98 PS").replace(b"rtpmap:98 H264", b"rtpmap:96 H264")
    )
    assert offer.ps_payload == 98
    assert not offer.only_ps


@pytest.mark.parametrize(
    "body", [b"", b"v=0\r\ns=Play\r\n", OFFER.replace(b"30000", b"x"), OFFER.replace(b"30000", b"0")]
)
def test_what_is_no_offer(body: bytes) -> None:
    with pytest.raises(OfferError):
        read_offer(body)


def written(
    *quirks: Quirk, tcp: bool = False, setup: str = "active", audio: Codec | None = Codec.PCMA
) -> list[str]:
    data = write_answer(
        Answer(
            device_id="34020000001320000001",
            host="192.0.2.20",
            port=40000,
            tcp=tcp,
            setup=setup,
            payload_type=96,
            ssrc=100000001,
            video=Codec.H265,
            audio=audio,
            width=1280,
            height=720,
            fps=25,
            bitrate_kbps=2000,
            quirks=frozenset(quirks),
        )
    )
    assert data.endswith(b"\r\n")
    return data.decode().splitlines()


def line(lines: list[str], start: str) -> str:
    return next((entry for entry in lines if entry.startswith(start)), "")


def test_answer_in_the_order_of_annex_g() -> None:
    assert written() == [
        "v=0",
        "o=34020000001320000001 0 0 IN IP4 192.0.2.20",
        "s=Play",
        "c=IN IP4 192.0.2.20",
        "t=0 0",
        "m=video 40000 RTP/AVP 96",
        "a=rtpmap:96 PS/90000",
        "a=sendonly",
        "y=0100000001",
        "f=v/5/5/25/1/2000a/1/8/1",
    ]


def test_answer_over_tcp_names_its_role() -> None:
    assert line(written(tcp=True, setup="passive"), "a=setup") == "a=setup:passive"
    assert line(written(tcp=True), "m=") == "m=video 40000 TCP/RTP/AVP 96"


def test_f_line_without_audio_and_with_aac() -> None:
    assert line(written(audio=None), "f=") == "f=v/5/5/25/1/2000a///"
    assert line(written(audio=Codec.AAC), "f=").endswith("a/6/5/1")


def test_inv01_no_y() -> None:
    assert line(written(Quirk.INV_01), "y=") == ""


def test_inv04_y_without_zeros_and_with_a_blank() -> None:
    assert line(written(Quirk.INV_04), "y=") == "y= 100000001"


def test_inv17_useless_address_and_port() -> None:
    lines = written(Quirk.INV_17)
    assert line(lines, "c=") == "c=IN IP4 0.0.0.0"
    assert line(lines, "m=").split()[1] == "0"
    listening = written(Quirk.INV_17, tcp=True, setup="passive")
    assert line(listening, "c=") == "c=IN IP4 192.168.1.64"
    assert line(listening, "m=").split()[1] == "40000"


def test_inv18_role_of_the_offer_repeated() -> None:
    assert line(written(Quirk.INV_18, tcp=True), "a=setup") == "a=setup:passive"
    assert line(written(Quirk.INV_18, tcp=True, setup="passive"), "a=setup") == "a=setup:active"


def test_inv18_omit_no_role() -> None:
    assert line(written(Quirk.INV_18_OMIT, tcp=True), "a=setup") == ""


def test_inv18_actpass() -> None:
    assert line(written(Quirk.INV_18_ACTPASS, tcp=True), "a=setup") == "a=setup:actpass"


def test_inv24_tcp_profile_for_a_udp_offer() -> None:
    assert line(written(Quirk.INV_24), "m=") == "m=video 40000 TCP/RTP/AVP 96"


def test_inv25_free_text_as_session() -> None:
    assert line(written(Quirk.INV_25), "s=") == "s=EmbeddedNetDVR"
