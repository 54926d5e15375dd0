from __future__ import annotations

import pytest

from gb28181gw.gb.exceptions import XmlParseError
from gb28181gw.gb.manscdp.messages import CatalogResponse, read_catalog_response
from gb28181gw.gb.manscdp.xml import MAX_DEPTH, MAX_DOCUMENTS, MAX_ELEMENTS, parse
from gb28181gw.gb.quirks import Quirk
from tests.support.gb import DECLARATION, DEVICE, body, item_text, page_text

TEN = [f"3402000000132{index:07d}" for index in range(10)]
PAGE = page_text()
GB = PAGE.encode("gb18030")


def read(page: bytes) -> CatalogResponse:
    return read_catalog_response(parse(page))


def ids(page: bytes) -> list[str]:
    return [item.device_id for item in read(page).items]


def gb(text: str) -> bytes:
    return text.encode("gb18030")


def test_a_sound_page_needs_no_tolerance() -> None:
    document = parse(GB)
    assert (document.root, document.cmd_type, document.sn, document.device_id) == (
        "Response",
        "Catalog",
        51,
        DEVICE,
    )
    assert document.declared == "GB2312"
    assert document.quirks == ()
    assert not document.recovered
    assert document.following == ()
    assert document.text("SumNum") == "10"
    assert document.text("Name") == ""
    assert document.num("DeviceList") == 10


HALF = "东门摄像机".encode("gb18030")[:-1] + b"4"

# The table "Broken pages": defect, page, quirks that must be named.
BROKEN = [
    ("bare_ampersand", gb(PAGE.replace("东门摄像机3", "A&B3")), {Quirk.XML_BARE_AMPERSAND}),
    ("truncated", GB[:-200], {Quirk.XML_RECOVERED}),
    ("truncated_in_a_tag", GB[:-91], {Quirk.XML_RECOVERED}),
    ("control_char", gb(PAGE.replace("合肥", "\x01合\x08肥", 3)), {Quirk.XML_CONTROL_CHAR}),
    ("unclosed_tag", gb(PAGE.replace("</Address>", "", 1)), {Quirk.XML_ITEMS_SCANNED}),
    ("trailing_nul", GB + b"\0\0\0", {Quirk.XML_NUL_PADDING}),
    ("gbk_char", gb(PAGE.replace("东门摄像机4", "鎌4")), {Quirk.CHARSET_BEYOND_GB2312}),
    ("four_byte_char", gb(PAGE.replace("东门摄像机4", "𠮷4")), {Quirk.CHARSET_BEYOND_GB2312}),
    ("gb2312_declared_utf8", PAGE.encode(), {Quirk.CHARSET_DECLARATION_LIED}),
    ("utf8_declared_gbk", gb(PAGE.replace("GB2312", "UTF-8")), {Quirk.CHARSET_DECLARATION_LIED}),
    ("no_declaration", gb(page_text(declaration="")), {Quirk.XML_NO_DECLARATION}),
    ("leading_crlf", b"\r\n" + GB, {Quirk.XML_LEADING_BYTES}),
    ("leading_junk", b"\x00\xff" + gb(page_text(declaration="")), {Quirk.XML_LEADING_BYTES}),
    ("half_gbk_char", GB.replace(gb("东门摄像机4"), HALF), {Quirk.CHARSET_UNDECODABLE}),
]


@pytest.mark.parametrize(("page", "quirks"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_xml01_xml06_broken_pages_keep_ten_of_ten_items(page: bytes, quirks: set[Quirk]) -> None:
    answer = read(page)
    assert [item.device_id for item in answer.items] == TEN
    assert quirks <= set(answer.quirks)
    sound = [item for item in answer.items if item.name.startswith("东门摄像机")]
    assert len(sound) >= 9
    assert all(item.manufacturer == "Acme" for item in answer.items[:9])


# Damage to the markup itself: what is damaged, and how many of the ten statuses must still be there.
DAMAGED = [
    ("raw_less_than", PAGE.replace("合肥市", "a<b", 3), Quirk.XML_RAW_LESS_THAN),
    ("raw_less_than_alone", PAGE.replace("合肥市", "a < ", 3), Quirk.XML_RAW_LESS_THAN),
    ("second_item_close", PAGE.replace("</Item>", "</Item></Item>", 2), Quirk.XML_ITEMS_SCANNED),
    ("missing_item_close", PAGE.replace("</Item>", "", 2), Quirk.XML_ITEMS_SCANNED),
    ("item_open_with_two_bytes_changed", PAGE.replace("<Item>", "<I#%m>", 2), Quirk.XML_ITEMS_SCANNED),
    ("item_open_renamed", PAGE.replace("<Item>", "<IXXm>", 2), Quirk.XML_ITEMS_SCANNED),
    ("item_open_no_tag", PAGE.replace("<Item>", "XXtem>", 2), Quirk.XML_ITEMS_SCANNED),
    ("item_close_renamed", PAGE.replace("</Item>", "</IXXm>", 2), Quirk.XML_RECOVERED),
    ("item_close_no_tag", PAGE.replace("</Item>", "XXItem>", 2), Quirk.XML_ITEMS_SCANNED),
    ("field_close_renamed", PAGE.replace("</DeviceID>", "</DeXXceID>", 4), Quirk.XML_RECOVERED),
    ("field_close_no_tag", PAGE.replace("</Address>", "/Address>", 3), Quirk.XML_ITEMS_SCANNED),
    ("field_close_cut", PAGE.replace("</Address>", "</Addre", 3), Quirk.XML_ITEMS_SCANNED),
    ("list_open_renamed", PAGE.replace("<DeviceList", "<DevXXList"), Quirk.XML_ITEMS_SCANNED),
    ("list_open_no_tag", PAGE.replace("<DeviceList", "XDeviceList"), Quirk.XML_ITEMS_SCANNED),
    ("root_open_renamed", PAGE.replace("<Response>", "<Respxnse>"), Quirk.XML_ITEMS_SCANNED),
    ("root_close_cut", PAGE.replace("</Response>", "</Respo"), Quirk.XML_RECOVERED),
    ("every_name_unclosed", PAGE.replace("</Name>", ""), Quirk.XML_ITEMS_SCANNED),
]


@pytest.mark.parametrize(("page", "quirk"), [row[1:] for row in DAMAGED], ids=[row[0] for row in DAMAGED])
def test_xml06_xml08_xml16_damaged_markup_loses_no_item(page: str, quirk: Quirk) -> None:
    answer = read(gb(page))
    assert [item.device_id for item in answer.items] == TEN
    assert quirk in answer.quirks
    assert [item.status.value for item in answer.items] == ["ON"] * 10
    assert [item.ptz_type for item in answer.items] == ["1"] * 10
    assert [item.name for item in answer.items] == [f"东门摄像机{index}" for index in range(10)]
    assert answer.sum_num == 10


def test_xml06_the_text_around_a_raw_less_than_is_kept() -> None:
    assert read(gb(PAGE.replace("合肥市", "a<b", 1))).items[0].address == "a<b东门"


def test_xml16_a_damaged_close_tag_does_not_stay_in_the_value() -> None:
    for damage in ("/Address>", "</Addre", "&lt;/Address"):
        assert read(gb(PAGE.replace("</Address>", damage, 1))).items[0].address == "合肥市东门"


def test_xml07_garbage_in_one_field_never_rejects_the_answer() -> None:
    garbage = bytes(range(128, 256)) + b"\x01<&\x02</\x03"
    page = GB.replace(gb("合肥市东门"), garbage, 1)
    answer = read(page)
    assert [item.device_id for item in answer.items] == TEN
    assert answer.items[1].address == "合肥市东门"


def test_xml05_ampersands_are_kept_as_text_and_entities_as_entities() -> None:
    page = gb(PAGE.replace("东门摄像机3", "A&B &amp; &nbsp; &#20013;&#x4E2D; &#1;&#xFFFF;3", 1))
    assert read(page).items[3].name == "A&B & &nbsp; 中中 3"


def test_xml06_a_damaged_root_of_a_message_without_items() -> None:
    text = f"<Notifx><CmdType>Keepalive</CmdType><SN>8</SN><DeviceID>{DEVICE}</DeviceID><Status>OK</Status></Notify>"
    document = parse(text.encode())
    assert (document.root, document.cmd_type, document.sn, document.text("Status")) == (
        "Notify",
        "Keepalive",
        8,
        "OK",
    )
    assert document.recovered


def test_xml06_an_unknown_tag_inside_a_damaged_field_is_its_text() -> None:
    page = PAGE.replace("合肥市东门</Address>", "a <b>c</b> d", 1)
    assert read(gb(page)).items[0].address == "a <b>c</b> d"


def test_s05_the_scan_stops_at_the_records_of_a_message() -> None:
    head = b"<Response><CmdType>Catalog</CmdType><SN>1</SN>"
    bordered = parse(head + b"<Item><DeviceID>1<Name>" * 11_000)
    assert len(list(bordered.items("DeviceList"))) == 10_000
    merged = parse(head + b"<Item>" + b"<DeviceID>1<Name>" * 11_000)
    assert len(list(merged.items("DeviceList"))) == 10_000


def test_xml06_an_item_cut_inside_its_id_is_not_another_item() -> None:
    cut = GB[: GB.index(TEN[9].encode()) + 12]
    assert ids(cut) == TEN[:9]


def test_xml10_names_in_other_case_and_with_prefix() -> None:
    text = (
        PAGE.replace("<", "<tg:")
        .replace("<tg:/", "</tg:")
        .replace("<tg:?", "<?")
        .replace("CmdType", "cmdtype")
    )
    text = text.replace("DeviceID", "deviceid").replace("Item", "ITEM")
    answer = read(gb(text))
    assert [item.device_id for item in answer.items] == TEN
    assert Quirk.XML_NAME_FORM in answer.quirks


def test_xml10_case_may_differ_below_a_sound_head() -> None:
    answer = read(gb(PAGE.replace("Name>", "NAME>").replace("PTZType", "ptztype").replace("Info", "INFO")))
    assert [item.name for item in answer.items] == [f"东门摄像机{index}" for index in range(10)]
    assert answer.items[0].ptz_type == "1"
    assert Quirk.XML_NAME_FORM in answer.quirks


def test_xml10_a_declared_namespace_is_taken_away() -> None:
    document = parse(b'<Notify xmlns="http://example.org/gb"><CmdType>Keepalive</CmdType><SN>1</SN></Notify>')
    assert (document.root, document.cmd_type, document.sn) == ("Notify", "Keepalive", 1)


def test_xml10_head_in_attributes() -> None:
    document = parse(
        f'<Notify CmdType="keepalive" sn="9" DEVICEID="{DEVICE}"><Status>OK</Status></Notify>'.encode()
    )
    assert (document.cmd_type, document.sn, document.device_id) == ("Keepalive", 9, DEVICE)
    assert Quirk.XML_HEAD_IN_ATTRIBUTES in document.quirks


def test_cmd_type_in_other_case_and_unknown_ones() -> None:
    assert parse(body("", cmd_type=" deviceinfo ")).cmd_type == "DeviceInfo"
    assert parse(body("", cmd_type="VendorThing")).cmd_type == "VendorThing"


@pytest.mark.parametrize(
    ("text", "sn"), [("7", 7), (" 007 ", 7), ("", None), ("x1", None), ("-1", None), ("1" * 19, None)]
)
def test_xml11_sn_that_is_no_number_is_none(text: str, sn: int | None) -> None:
    document = parse(body("", sn=text))
    assert document.sn == sn
    assert (Quirk.XML_SN_UNREADABLE in document.quirks) is (sn is None)


def test_xml18_two_documents_in_one_body() -> None:
    document = parse(GB + gb(page_text([item_text(77)])))
    assert len(read_catalog_response(document).items) == 10
    (second,) = document.following
    assert [item.device_id for item in read_catalog_response(second).items] == [f"3402000000132{77:07d}"]
    assert Quirk.XML_SECOND_DOCUMENT in document.quirks


def test_xml18_a_broken_second_document_keeps_the_first() -> None:
    document = parse(GB + b"<Response><SN>")
    assert len(read_catalog_response(document).items) == 10


def test_xml18_a_refused_second_document_keeps_the_first() -> None:
    document = parse(GB + b"<Response>" + b"<a>" * 20 + b"</Response>")
    assert len(read_catalog_response(document).items) == 10
    assert document.following == ()
    assert Quirk.XML_TRAILING_BYTES in document.quirks


@pytest.mark.parametrize("tail", [b"garbage", b"</Response>", b"--boundary--", b"<foo/>"])
def test_xml18_bytes_after_the_root(tail: bytes) -> None:
    document = parse(GB + tail)
    assert len(read_catalog_response(document).items) == 10
    assert Quirk.XML_TRAILING_BYTES in document.quirks


def test_xml18_documents_of_one_body_are_bounded() -> None:
    one = b"<Notify><CmdType>Keepalive</CmdType><SN>1</SN></Notify>"
    document = parse(one * 50)
    assert len(document.following) == MAX_DOCUMENTS - 1


@pytest.mark.parametrize(
    "body_",
    [
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Notify>&x;</Notify>',
        b'<?xml version="1.0"?>\n<!doctype Notify SYSTEM "http://192.0.2.1/x.dtd"><Notify/>',
        b"<Notify><Name><![CDATA[<!DOCTYPE x>]]></Name></Notify>",
        b'<\x01!DOC\x01TYPE a [<!ENTITY x "y">]><Notify>&x;</Notify>',
        '<!DOCTYPE a [<!ENTITY x "y">]><Notify>&x;</Notify>'.encode("utf-16"),
        b'<! ENTITY x "y"><Notify>&x;</Notify>',
        b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><Notify>&b;</Notify>',
    ],
)
def test_s05_document_type_and_entities_are_refused(body_: bytes) -> None:
    with pytest.raises(XmlParseError) as caught:
        parse(body_)
    assert caught.value.reason == "dtd"


def nested(levels: int) -> bytes:
    return b"<Notify>" + b"<a>" * (levels - 1) + b"</a>" * (levels - 1) + b"</Notify>"


def test_s05_depth() -> None:
    assert parse(nested(MAX_DEPTH)).root == "Notify"
    for deep in (nested(MAX_DEPTH + 1), nested(300), nested(9000), b"<Notify>" + b"<a>" * 15_000):
        with pytest.raises(XmlParseError) as caught:
            parse(deep)
        assert caught.value.reason == "too_deep"


@pytest.mark.parametrize(
    "body_",
    [
        b"<a>" * 100_000,
        b"<Notify>" + b"<a/>" * MAX_ELEMENTS + b"</Notify>",
        b"<Notify>" + b"<a></a>" * (MAX_ELEMENTS + 1) + b"</Notify>",
        b"<Notify>" + b"&" * 500_000,
    ],
)
def test_s05_elements_and_references_are_counted(body_: bytes) -> None:
    with pytest.raises(XmlParseError) as caught:
        parse(body_)
    assert caught.value.reason == "too_many_elements"


def test_s05_the_size_is_the_callers() -> None:
    assert parse(GB, max_bytes=len(GB)).sn == 51
    with pytest.raises(XmlParseError) as caught:
        parse(GB, max_bytes=len(GB) - 1)
    assert caught.value.reason == "too_large"


def test_s05_many_attributes_are_no_quadratic_work() -> None:
    attributes = b"".join(b'a%d="1" ' % index for index in range(20_000))
    assert parse(b"<Notify " + attributes + b"/>").cmd_type == ""
    with pytest.raises(XmlParseError):
        parse(b"<Notify " + attributes + b"><")


@pytest.mark.parametrize(
    ("body_", "reason"),
    [
        (b"", "empty"),
        (b"\r\n\0 ", "empty"),
        (DECLARATION.encode(), "empty"),
        (b"hello", "not_xml"),
        (b"<html><body>404</body></html>", "root"),
        (b"<a", "not_xml"),
        (b"<<<<>>>>", "not_xml"),
    ],
)
def test_what_is_no_manscdp_has_a_reason(body_: bytes, reason: str) -> None:
    with pytest.raises(XmlParseError) as caught:
        parse(body_)
    assert caught.value.reason == reason


def test_external_entities_never_reach_the_text() -> None:
    document = parse(b"<Notify><CmdType>Keepalive</CmdType><SN>1</SN><Name>&x;</Name></Notify>")
    assert document.text("Name") == "&x;"


def test_xml09_record_items_are_recovered_into_their_own_list() -> None:
    item = "<Item><DeviceID>34020000001320000007</DeviceID><Name>r</Name>"
    item += "<StartTime>2024-05-01T0{}:00:00</StartTime></Item>"
    text = (
        '<SumNum>3</SumNum><RecordList Num="3">'
        + "".join(item.format(index) for index in range(3))
        + "</RecordList>"
    )
    document = parse(body(text.replace("</Name>", ""), cmd_type="RecordInfo"))
    starts = [element.findtext("StartTime") for element in document.items("RecordList")]
    assert starts == [f"2024-05-01T0{index}:00:00" for index in range(3)]
    renamed = parse(body(text.replace("<RecordList", "<ReXXrdList"), cmd_type="RecordInfo"))
    assert len(list(renamed.items("RecordList"))) == 3


def test_s05_ten_thousand_records_in_one_message_are_read() -> None:
    """Annex M allows so many; a body of so many empty elements is still refused."""
    page = page_text(count=10_000).encode("gb18030")
    assert len(page) < 8_388_608
    document = parse(page, max_bytes=8_388_608)
    assert sum(1 for _ in document.items("DeviceList")) == 10_000
    with pytest.raises(XmlParseError) as caught:
        parse(b"<Notify>" + b"<a/>" * 200_000 + b"</Notify>", max_bytes=8_388_608)
    assert caught.value.reason == "too_many_elements"
