from __future__ import annotations

import pytest

from gb28181gw.gb.charset import Charset, decode, encode
from gb28181gw.gb.quirks import Quirk

NAME = "<N>东门摄像机</N>"


def declared(label: str, text: str = NAME, codec: str = "gb18030") -> bytes:
    return f'<?xml version="1.0" encoding="{label}"?>\n'.encode() + text.encode(codec)


@pytest.mark.parametrize("label", ["GB2312", "gb2312", "GBK", "GB18030", "gb_18030"])
def test_xml01_the_family_is_one(label: str) -> None:
    decoded = decode(declared(label))
    assert decoded.text.strip() == NAME
    assert decoded.encoding == "gb18030"
    assert decoded.declared == label
    assert decoded.quirks == ()


@pytest.mark.parametrize("character", ["鎌", "𠮷", "㐂"])
def test_xml01_characters_beyond_gb2312_are_read_and_named(character: str) -> None:
    decoded = decode(declared("GB2312", f"<N>{character}</N>"))
    assert character in decoded.text
    assert decoded.quirks == (Quirk.CHARSET_BEYOND_GB2312,)


def test_xml02_gb_declared_but_utf8() -> None:
    decoded = decode(declared("GB2312", codec="utf-8"))
    assert decoded.text.strip() == NAME
    assert decoded.encoding == "utf-8"
    assert decoded.quirks == (Quirk.CHARSET_DECLARATION_LIED,)


def test_xml02_utf8_declared_but_gbk() -> None:
    decoded = decode(declared("UTF-8"))
    assert decoded.text.strip() == NAME
    assert decoded.quirks == (Quirk.CHARSET_DECLARATION_LIED,)


def test_xml02_a_utf8_name_that_is_valid_gb18030_by_accident_stays_utf8() -> None:
    text = "浙江省杭州市"
    assert text.encode("utf-8").decode("gb18030") != text
    assert decode(text.encode("utf-8")).text == text


def test_xml02_a_gbk_name_that_is_utf8_by_accident_stays_gbk() -> None:
    body = '<?xml version="1.0" encoding="GB2312"?><A>脓</A>'.encode("gbk")
    assert body.decode("utf-8") != body.decode("gbk")
    found = decode(body)
    assert (found.text, found.encoding, found.quirks) == ("<A>脓</A>", "gb18030", ())


def test_ascii_says_nothing_about_the_label() -> None:
    decoded = decode(declared("UTF-8", "<N>gate</N>"))
    assert (decoded.encoding, decoded.quirks) == ("ascii", ())


@pytest.mark.parametrize(
    "declaration",
    [
        "<?xml version='1.0' encoding='GB2312'?>",
        '<?xml  version = "1.0"  encoding = "GB2312" ?>',
        '<?xml encoding="GB2312" version="1.0" standalone="yes"?>',
        "<?xml version=1.0 encoding=GB2312?>",
    ],
)
def test_xml03_declarations_of_odd_form(declaration: str) -> None:
    decoded = decode(declaration.encode() + NAME.encode("gb18030"))
    assert decoded.text == NAME
    assert decoded.declared == "GB2312"


def test_xml03_byte_order_mark_and_blank_lines_before_the_declaration() -> None:
    decoded = decode(b"\xef\xbb\xbf\r\n\r\n" + declared("UTF-8", codec="utf-8"))
    assert decoded.text.strip() == NAME
    assert decoded.quirks == (Quirk.XML_BOM, Quirk.XML_LEADING_BYTES)


def test_xml06_half_a_gbk_character_costs_only_itself() -> None:
    decoded = decode(
        b"<N>" + "东门".encode("gb18030")[:-1] + b"</N><M>" + "摄像机".encode("gb18030") + b"</M>"
    )
    assert decoded.text == "<N>东\ufffd</N><M>摄像机</M>"
    assert Quirk.CHARSET_UNDECODABLE in decoded.quirks


@pytest.mark.parametrize("cut", [1, 2])
def test_xml06_utf8_with_a_cut_character_stays_utf8(cut: int) -> None:
    broken = "东门摄像机监控室".encode()[:-cut]
    decoded = decode(b"<N>" + broken + b"</N>")
    assert decoded.text.startswith("<N>东门摄像机监控")
    assert decoded.encoding == "utf-8"
    assert decoded.quirks == (Quirk.CHARSET_UTF8_DAMAGED,)


@pytest.mark.parametrize("text", ["联通", "一台摄像机在东门口", "啊" * 40])
def test_gbk_text_is_never_taken_for_damaged_utf8(text: str) -> None:
    assert decode(text.encode("gbk")).text == text


def test_s05_overlong_utf8_is_not_utf8() -> None:
    decoded = decode(b"\xc0\xbcDOCTYPE x\xc0\xbe")
    assert "<" not in decoded.text


def test_every_byte_decodes_to_something() -> None:
    decoded = decode(bytes(range(256)))
    assert decoded.text


@pytest.mark.parametrize(
    ("spelling", "charset"),
    [
        ("gb2312", Charset.GB2312),
        ("GBK", Charset.GB2312),
        ("GB18030", Charset.GB18030),
        ("utf8", Charset.UTF8),
        ("UTF-8", Charset.UTF8),
    ],
)
def test_parse_charset(spelling: str, charset: Charset) -> None:
    assert Charset.parse(spelling) is charset


def test_parse_charset_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="latin1"):
        Charset.parse("latin1")


@pytest.mark.parametrize("charset", list(Charset))
def test_encode_and_decode_are_inverse(charset: Charset) -> None:
    text = "东门鎌𠮷 gate"
    assert decode(encode(text, charset)).text == text


@pytest.mark.parametrize("charset", list(Charset))
def test_s05_what_cannot_be_encoded_is_replaced_not_dropped(charset: Charset) -> None:
    assert encode("a\ud800b", charset) == b"a?b"
