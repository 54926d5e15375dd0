from __future__ import annotations

import pytest

from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.version import detect_edition
from tests.support.gb import CHANNEL, body, page_text


def catalog(item: str, *, root: str = "Response") -> bytes:
    return body(
        f'<SumNum>1</SumNum><DeviceList Num="1"><Item><DeviceID>{CHANNEL}</DeviceID><Name>n</Name>{item}</Item>'
        "</DeviceList>",
        root=root,
    )


@pytest.mark.parametrize(
    ("item", "edition"),
    [
        ("<Owner>o</Owner>", Edition.V2_0),
        ("<SafetyWay>0</SafetyWay>", Edition.V2_0),
        ("<Info><PositionType>1</PositionType></Info>", Edition.V2_0),
        ("<Info><BusinessGroupID>34020000002150000001</BusinessGroupID></Info>", Edition.V2_0),
        ("<BusinessGroupID>34020000002150000001</BusinessGroupID>", None),
        ("<Info><PTZType>1</PTZType></Info>", None),
        ("<Info><PTZType>5</PTZType></Info>", Edition.V3_0),
        ("<Info><PTZType>1/4</PTZType></Info>", Edition.V3_0),
        ("<Info><GrassrootsCode>000000</GrassrootsCode></Info>", Edition.V3_0),
        ("<SecurityLevelCode>A</SecurityLevelCode>", Edition.V3_0),
        ("<RegisterWay>4</RegisterWay>", Edition.V3_0),
        ("<RegisterWay>1</RegisterWay>", None),
        ("<Owner>o</Owner><SecurityLevelCode>A</SecurityLevelCode>", None),
    ],
)
def test_catalogue_items_tell_the_edition(item: str, edition: Edition | None) -> None:
    assert detect_edition(parse(catalog(item))) is edition


def test_full_items_without_event_in_a_notify_are_of_2022() -> None:
    assert detect_edition(parse(catalog("", root="Notify"))) is Edition.V3_0
    assert detect_edition(parse(catalog("<Event>ADD</Event>", root="Notify"))) is None


@pytest.mark.parametrize(
    ("document", "edition"),
    [
        (body("<Time>t</Time><DeviceList/>", root="Notify", cmd_type="MobilePosition"), Edition.V3_0),
        (
            body("<Time>t</Time><Longitude>1</Longitude>", root="Notify", cmd_type="MobilePosition"),
            Edition.V2_0,
        ),
        (body("<SumNum>0</SumNum><PresetList/>", cmd_type="PresetQuery"), Edition.V3_0),
        (body("<PresetList/>", cmd_type="PresetQuery"), Edition.V2_0),
        (body("<ExtraInfo>x</ExtraInfo>", cmd_type="DeviceInfo"), Edition.V3_0),
        (body("<Result>OK</Result>", cmd_type="DeviceInfo"), None),
    ],
)
def test_other_messages_tell_the_edition(document: bytes, edition: Edition | None) -> None:
    assert detect_edition(parse(document)) is edition


def test_a_plain_page_tells_nothing() -> None:
    assert detect_edition(parse(page_text().encode("gb18030"))) is None
