"""URIs and addresses: read leniently, written plainly."""

import pytest

from gb28181gw.sip import uri
from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.uri import STAR, NameAddr, Uri


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sip:34020000001320000001@3402000000", Uri("sip", "34020000001320000001", "3402000000")),
        (
            "sip:34020000001320000001@192.168.1.64:5060",
            Uri("sip", "34020000001320000001", "192.168.1.64", 5060),
        ),
        ("sip:3402000000", Uri("sip", "", "3402000000")),
        ("sip:192.168.1.64:5060", Uri("sip", "", "192.168.1.64", 5060)),
        ("sips:a@b", Uri("sips", "a", "b")),
        ("sip:a@[2001:db8::1]:5061", Uri("sip", "a", "[2001:db8::1]", 5061)),
        ("sip:a@[::1]", Uri("sip", "a", "[::1]")),
        ("sip:a:secret@b", Uri("sip", "a", "b", None, (), "secret")),
        ("sip:a@b;transport=tcp;lr", Uri("sip", "a", "b", None, (("transport", "tcp"), ("lr", None)))),
        ("sip:b;transport=udp", Uri("sip", "", "b", None, (("transport", "udp"),))),
        ("sip:a@b?Subject=x", Uri("sip", "a", "b", None, (), None, "Subject=x")),
        ("sip:user;par=u%40x@b", Uri("sip", "user;par=u%40x", "b")),
        ("sip:null-%00-null@b", Uri("sip", "null-%00-null", "b")),
        ("sip:a@some_host.local", Uri("sip", "a", "some_host.local")),
        ("tel:+86-10", Uri("tel", opaque="+86-10")),
        ("isbn:2983792873", Uri("isbn", opaque="2983792873")),
    ],
)
def test_uri_parse_and_write(text: str, expected: Uri) -> None:
    uri = Uri.parse(text)
    assert uri == expected
    assert str(uri) == text
    assert Uri.parse(str(uri)) == uri


def test_reg13_uri_without_host() -> None:
    for text in ("sip:34020000001320000001", "sip:34020000001320000001@"):
        uri = Uri.parse(text)
        assert (uri.user, uri.host) == ("34020000001320000001", "")
    assert Uri.parse("sip:34020000001320000001:5060").host == "34020000001320000001"
    assert Uri.parse("SIP:a@B").scheme == "sip"
    assert Uri.parse("sip:a@b;Transport=TCP").param("transport") == "TCP"
    assert Uri.parse("sip:a@b").param("lr") is None
    assert Uri.parse("sip:a@b;lr").param("lr") == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip",
        "sip:",
        "sip:@",
        ":a@b",
        "1x:a",
        "tel:",
        "sip:a@b c",
        "sip:a@<b>",
        "sip:a@b:99999",
        "sip:a@b:x",
        "sip:a@b:",
        "sip:a@b@c",
        "sip:a@[::1",
        "sip:a@[::1]x",
        "sip:a@[::1]:x",
        "sip:a@[::1]:65536",
        "sip:a@b\r\nc",
        "sip:a@b\0",
        'sip:a"@b',
        "sip:a@b:123456",
    ],
)
def test_uri_refused(text: str) -> None:
    with pytest.raises(SipParseError) as caught:
        Uri.parse(text)
    assert caught.value.status_hint == 400


@pytest.mark.parametrize(
    ("text", "user", "display", "tag", "written"),
    [
        ("<sip:1@2>;tag=x", "1", "", "x", "<sip:1@2>;tag=x"),
        ("<sip:1@2:5060>", "1", "", "", "<sip:1@2:5060>"),
        ("sip:1@2", "1", "", "", "<sip:1@2>"),
        ("sip:1@2;tag=x", "1", "", "x", "<sip:1@2>;tag=x"),
        ("sip:1@2 ;   tag    = x", "1", "", "x", "<sip:1@2>;tag=x"),
        ('"a \\"b\\" \\\\" <sip:1@2> ; tag = x', "1", 'a "b" \\', "x", '"a \\"b\\" \\\\" <sip:1@2>;tag=x'),
        ("caller<sip:1@2>;tag=323", "1", "caller", "323", '"caller" <sip:1@2>;tag=323'),
        ("<sip:1@2;lr?x=y>;a;TAG=q", "1", "", "q", "<sip:1@2;lr?x=y>;a;tag=q"),
        ("摄像机 <sip:1@2>", "1", "摄像机", "", '"摄像机" <sip:1@2>'),
        ("*", "", "", "", "*"),
    ],
)
def test_name_addr(text: str, user: str, display: str, tag: str, written: str) -> None:
    address = NameAddr.parse(text)
    assert (address.uri.user, address.display, address.tag) == (user, display, tag)
    assert str(address) == written
    assert NameAddr.parse(written) == address
    assert address.is_star == (text == "*")


def test_xml20_to_without_brackets_gives_parameters_to_the_header() -> None:
    address = NameAddr.parse("sip:1@2;tag=x;lr")
    assert address.uri.params == ()
    assert address.param("lr") == ""
    assert address.param("nothing") is None
    assert address.notes == ()


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("< sip:1@2 >", "sip.uri_space"),
        ("Bell, Alexander <sip:1@2>", "sip.display_name"),
        ("<sip:34020000001320000001>", "sip.uri_without_host"),
        ("sip:34020000001320000001", "sip.uri_without_host"),
    ],
)
def test_name_addr_tolerances_are_named(text: str, note: str) -> None:
    assert NameAddr.parse(text).notes == (note,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"Mr <sip:1@2>',
        'Mr "J <sip:1@2>',
        '"x"',
        '"x" sip:1@2',
        "<sip:1@2",
        "<sip:1@2> x",
        "<sip:1@2:99999>;tag=1",
        "sip:1@2?Route=%3C",
        "sip:1@2,sip:3@4",
        "<sip:a b@c>",
        "a@b",
    ],
)
def test_name_addr_refused(text: str) -> None:
    with pytest.raises(SipParseError):
        NameAddr.parse(text)


def test_star_is_not_an_address() -> None:
    assert STAR.is_star
    assert not NameAddr.parse("<sip:1@2>").is_star


def test_i10_long_texts_are_not_remembered_and_equal_ones_are_read_once() -> None:
    text = "sip:34020000001320000001@3402000000"
    assert Uri.parse(text) is Uri.parse("".join(text))
    assert NameAddr.parse(f"<{text}>;tag=a").uri is NameAddr.parse(f"<{text}>").uri
    before = uri._remembered.cache_info().currsize
    Uri.parse("sip:" + "9" * 200 + "@3402000000")
    assert uri._remembered.cache_info().currsize == before
