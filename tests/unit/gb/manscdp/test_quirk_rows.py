"""Rows of the field quirks that are about message bodies."""

from __future__ import annotations

from gb28181gw.gb.manscdp.catalogue import read_catalog_response
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk

PAGE = """<?xml version="1.0" encoding="GB2312"?>
<Response><CmdType>Catalog</CmdType><SN>9</SN><DeviceID>34020000001180000001</DeviceID><SumNum>2</SumNum>
<DeviceList Num="2"><Item><DeviceID>34020000001320000001</DeviceID><Name>大门\x01</Name><Address>\x00\x07号</Address>
</Item><Item><DeviceID>34020000001320000002</DeviceID><Name>后门</Name></Item></DeviceList></Response>\0\0\0"""


def test_xml04_forbidden_characters_are_taken_out_and_the_rest_stays() -> None:
    document = parse(PAGE.encode("gb18030"))
    items = read_catalog_response(document).items
    assert [(item.name, item.address) for item in items] == [("大门", "号"), ("后门", "")]
    assert {Quirk.XML_CONTROL_CHAR, Quirk.XML_NUL_PADDING} <= set(document.quirks)
