from __future__ import annotations

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.ids import NodeKind
from gb28181gw.gb.manscdp.catalogue import (
    MAX_EXTRA,
    MAX_TEXT,
    CatalogEvent,
    CatalogItem,
    CatalogNotify,
    CatalogQuery,
    CatalogResponse,
    Status,
    read_catalog_notify,
    read_catalog_query,
    read_catalog_response,
    write_catalog_notify,
    write_catalog_query,
    write_catalog_response,
)
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk
from tests.support.gb import CHANNEL, DEVICE, body, page_text


def response(*items: str, num: int | None = None, sum_num: str = "1") -> CatalogResponse:
    inner = "".join(f"<Item>{item}</Item>" for item in items)
    count = len(items) if num is None else num
    return read_catalog_response(
        parse(body(f'<SumNum>{sum_num}</SumNum><DeviceList Num="{count}">{inner}</DeviceList>'))
    )


def one(fields: str) -> tuple[CatalogItem, tuple[Quirk, ...]]:
    answer = response(f"<DeviceID>{CHANNEL}</DeviceID>{fields}")
    (item,) = answer.items
    return item, answer.quirks


def test_a_whole_item() -> None:
    item, quirks = one(
        "<Name>East gate</Name><Manufacturer>Acme</Manufacturer><Model>C1</Model><Owner>o</Owner>"
        "<CivilCode>340200</CivilCode><Block>b</Block><Address>a</Address><Parental>0</Parental>"
        f"<ParentID>{DEVICE}</ParentID><SafetyWay>0</SafetyWay><RegisterWay>1</RegisterWay><CertNum>c</CertNum>"
        "<Secrecy>0</Secrecy><IPAddress>192.0.2.9</IPAddress><Port>8000</Port><Password>secret</Password>"
        "<Status>ON</Status><Longitude>117.30</Longitude><Latitude>31.80</Latitude>"
        "<Info><PTZType>3</PTZType><Resolution>6/4</Resolution></Info><VendorThing>x</VendorThing>"
    )
    assert item == CatalogItem(
        device_id=CHANNEL,
        name="East gate",
        manufacturer="Acme",
        model="C1",
        owner="o",
        civil_code="340200",
        block="b",
        address="a",
        parental=False,
        parent_id=DEVICE,
        parent_ids=(DEVICE,),
        safety_way=0,
        register_way=1,
        secrecy=0,
        ip_address="192.0.2.9",
        port=8000,
        status=Status.ON,
        status_text="ON",
        longitude=117.3,
        latitude=31.8,
        ptz_type="3",
        details=(("CertNum", "c"), ("Resolution", "6/4")),
        extra=(("VendorThing", "x"),),
    )
    assert quirks == ()
    assert item.kind is NodeKind.CAMERA
    assert item.detail("Resolution") == "6/4"
    assert item.detail("MAC") == ""


def test_a_password_in_a_catalogue_is_never_kept() -> None:
    item, _ = one("<Password>secret</Password>")
    assert "secret" not in repr(item)


def test_info_members_are_read_at_both_levels() -> None:
    inside, _ = one(
        "<Info><PTZType>2</PTZType><BusinessGroupID>34020000002150000001</BusinessGroupID></Info>"
    )
    direct, _ = one("<PTZType>2</PTZType><BusinessGroupID>34020000002150000001</BusinessGroupID>")
    assert inside == direct
    assert direct.business_group_id == "34020000002150000001"


@pytest.mark.parametrize("value", ["0", "0000", "", " ", "/", "0/0"])
def test_cat07_no_parent(value: str) -> None:
    item, _ = one(f"<ParentID>{value}</ParentID>")
    assert item.parent_ids == ()


def test_cat07_all_parts_of_a_path_are_kept_in_order() -> None:
    item, quirks = one(f"<ParentID>{DEVICE}/ 34020000002160000001 /0</ParentID>")
    assert item.parent_ids == (DEVICE, "34020000002160000001")
    assert item.parent_id == f"{DEVICE}/ 34020000002160000001 /0"
    assert Quirk.CATALOG_PARENT_FORM in quirks


def test_cat07_two_sound_parents_are_the_standard() -> None:
    item, quirks = one(f"<ParentID>{DEVICE}/34020000002160000001</ParentID>")
    assert item.parent_ids == (DEVICE, "34020000002160000001")
    assert quirks == ()


@pytest.mark.parametrize(
    ("value", "parental", "odd"),
    [
        ("0", False, False),
        ("1", True, False),
        ("65535", True, True),
        ("255", True, True),
        (" 1 ", True, False),
        ("", None, False),
        ("x", None, False),
    ],
)
def test_cat08_any_number_but_zero_is_parental(value: str, parental: bool | None, odd: bool) -> None:
    item, quirks = one(f"<Parental>{value}</Parental>")
    assert item.parental is parental
    assert (Quirk.CATALOG_PARENTAL_VALUE in quirks) is odd


@pytest.mark.parametrize(
    ("value", "status", "odd"),
    [
        ("ON", Status.ON, False),
        ("OFF", Status.OFF, False),
        ("On", Status.ON, True),
        ("OK", Status.ON, True),
        ("ONLINE", Status.ON, True),
        ("online", Status.ON, True),
        ("1", Status.ON, True),
        ("OFFLINE", Status.OFF, True),
        ("0", Status.OFF, True),
        ("DEFECT", Status.OFF, True),
        ("在线", Status.ON, True),
        ("离线", Status.OFF, True),
        ("", Status.UNKNOWN, False),
        ("sleeping", Status.UNKNOWN, True),
    ],
)
def test_cat09_status_synonyms(value: str, status: Status, odd: bool) -> None:
    item, quirks = one(f"<Status>{value}</Status>")
    assert item.status is status
    assert item.status_text == value
    assert (Quirk.CATALOG_STATUS_SYNONYM in quirks) is odd


def test_cat09_absent_status_is_unknown() -> None:
    item, _ = one("")
    assert item.status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("value", "code", "odd"),
    [
        ("340200", "340200", False),
        ("", "", False),
        ("CivilCode", "", True),
        ("3402000000", "340200", True),
        (CHANNEL, "340200", True),
    ],
)
def test_cat10_civil_code(value: str, code: str, odd: bool) -> None:
    item, quirks = one(f"<CivilCode>{value}</CivilCode>")
    assert item.civil_code == code
    assert (Quirk.CATALOG_CIVIL_CODE in quirks) is odd


def test_cat11_placeholders_read_as_unknown() -> None:
    names = ("Manufacturer", "Model", "Owner", "Address")
    item, quirks = one("".join(f"<{name}>{name}</{name}>" for name in names))
    assert (item.manufacturer, item.model, item.owner, item.address) == ("", "", "", "")
    assert quirks == (Quirk.CATALOG_PLACEHOLDER,)


def test_cat11_a_channel_may_be_called_name() -> None:
    item, quirks = one("<Name>Name</Name>")
    assert item.name == "Name"
    assert quirks == ()


def test_cat14_an_item_with_the_devices_own_id_is_kept_and_named() -> None:
    answer = response(f"<DeviceID>{DEVICE}</DeviceID>")
    assert answer.items[0].device_id == DEVICE
    assert answer.quirks == (Quirk.CATALOG_SELF_ITEM,)


def test_cat16_the_kind_is_told_for_items_of_any_type() -> None:
    answer = response(
        *(
            f"<DeviceID>{code}</DeviceID>"
            for code in ("34020000001340000001", "34020000001370000001", "340202")
        )
    )
    assert [item.kind for item in answer.items] == [NodeKind.ALARM, NodeKind.AUDIO_OUT, NodeKind.REGION]


@pytest.mark.parametrize("sum_num", ["0", "99", "-1", "", "many"])
def test_cat02_cat05_counts_are_hints(sum_num: str) -> None:
    answer = response(f"<DeviceID>{CHANNEL}</DeviceID>", num=3, sum_num=sum_num)
    assert len(answer.items) == 1
    assert Quirk.CATALOG_COUNT_DIFFERS in answer.quirks


def test_cat05_a_part_without_list_has_no_items() -> None:
    answer = read_catalog_response(parse(body("<SumNum>0</SumNum>")))
    assert (answer.sum_num, answer.items, answer.quirks) == (0, (), ())


def test_an_item_without_id_is_left_out_and_named() -> None:
    answer = response("<Name>ghost</Name>", f"<DeviceID>{CHANNEL}</DeviceID><Name>real</Name>")
    assert [item.name for item in answer.items] == ["real"]
    assert Quirk.CATALOG_ITEM_WITHOUT_ID in answer.quirks


def test_reg13_parameters_behind_an_items_id() -> None:
    answer = response(f"<DeviceID>{CHANNEL};x=1</DeviceID>")
    assert answer.items[0].device_id == CHANNEL
    assert Quirk.ID_FORM in answer.quirks


def test_xml23_texts_are_cut_by_character() -> None:
    item, quirks = one(f"<Name>{'𠮷' * 400}</Name>")
    assert item.name == "𠮷" * MAX_TEXT
    assert Quirk.XML_TEXT_CUT in quirks


def test_unknown_elements_are_kept_within_bounds() -> None:
    item, _ = one("".join(f"<V{index:02d}>{index}</V{index:02d}>" for index in range(50)))
    assert len(item.extra) == MAX_EXTRA
    assert item.extra[:2] == (("V00", "0"), ("V01", "1"))
    nested, _ = one("<Vendor><Deep>a <b>c</b></Deep></Vendor>")
    assert nested.extra == (("Vendor", "a c"),)


@pytest.mark.parametrize("value", ["", "x", "200", "nan", "inf", "1e400", "1_7", "-180.1"])
def test_impossible_positions_are_none(value: str) -> None:
    item, _ = one(f"<Longitude>{value}</Longitude><Latitude>{value}</Latitude>")
    assert (item.longitude, item.latitude) == (None, None)


def test_repeated_strings_are_shared() -> None:
    items = read_catalog_response(parse(page_text().encode("gb18030"))).items
    for name in ("manufacturer", "model", "address", "civil_code", "parent_id", "status_text", "ptz_type"):
        assert getattr(items[0], name) is getattr(items[9], name)
    assert items[0].parent_ids[0] is items[9].parent_ids[0]


# --- notifications -----------------------------------------------------------------------------------------------


def notify(item: str, *, root: str = "Notify") -> CatalogNotify:
    return read_catalog_notify(
        parse(
            body(
                f'<SumNum>1</SumNum><DeviceList Num="1"><Item><DeviceID>{CHANNEL}</DeviceID>{item}</Item></DeviceList>',
                root=root,
            )
        )
    )


@pytest.mark.parametrize("event", list(CatalogEvent))
def test_cat20_events_in_any_case(event: CatalogEvent) -> None:
    assert notify(f"<Event>{event.value}</Event>").items[0].event is event
    odd = notify(f"<Event> {event.value.lower()} </Event>")
    assert odd.items[0].event is event
    assert Quirk.CATALOG_EVENT_FORM in odd.quirks


@pytest.mark.parametrize("text", ["", "<Event/>", "<Event>NEWS</Event>"])
def test_cat20_without_a_known_event_it_is_an_update(text: str) -> None:
    message = notify(text)
    assert message.items[0].event is CatalogEvent.UPDATE
    assert Quirk.CATALOG_EVENT_FORM in message.quirks


def test_notification_of_2011_and_2016_has_root_response() -> None:
    message = notify("<Name>n</Name><Status>OFF</Status>", root="Response")
    assert message.items[0].event is CatalogEvent.UPDATE
    assert message.items[0].status is Status.OFF


def test_an_event_in_a_response_is_read_and_none_is_none() -> None:
    with_event, _ = one("<Event>ADD</Event>")
    without, quirks = one("")
    assert with_event.event is CatalogEvent.ADD
    assert without.event is None
    assert quirks == ()


# --- writing -----------------------------------------------------------------------------------------------------

FULL = CatalogItem(
    device_id=CHANNEL,
    name="东门 <1> & 2",
    manufacturer="Acme",
    model="C1",
    owner="0",
    civil_code="340200",
    block="b",
    address="a",
    parental=True,
    parent_id=DEVICE,
    parent_ids=(DEVICE,),
    safety_way=0,
    register_way=1,
    secrecy=0,
    ip_address="192.0.2.9",
    port=8000,
    status=Status.ON,
    status_text="ON",
    longitude=117.3,
    latitude=-31.8000001,
    business_group_id="34020000002150000001",
    ptz_type="3",
    details=(("CertNum", "c"), ("GrassrootsCode", "000000"), ("SecurityLevelCode", "A")),
)


def tags(data: bytes) -> list[str]:
    (element,) = parse(data).items("DeviceList")
    return [str(node.tag) for node in element.iter() if node is not element]


def test_item_order_of_2022() -> None:
    message = CatalogResponse(sn=1, device_id=DEVICE, sum_num=1, items=(FULL,))
    assert tags(write_catalog_response(message, Charset.GB18030, Edition.V3_0)) == [
        "DeviceID",
        "Name",
        "Manufacturer",
        "Model",
        "CivilCode",
        "Block",
        "Address",
        "Parental",
        "ParentID",
        "RegisterWay",
        "SecurityLevelCode",
        "Secrecy",
        "IPAddress",
        "Port",
        "Status",
        "Longitude",
        "Latitude",
        "BusinessGroupID",
        "Info",
        "PTZType",
        "GrassrootsCode",
    ]


def test_item_order_of_2016_has_owner_and_the_group_at_both_levels() -> None:
    message = CatalogResponse(sn=1, device_id=DEVICE, sum_num=1, items=(FULL,))
    assert tags(write_catalog_response(message, Charset.GB2312, Edition.V2_0)) == [
        "DeviceID",
        "Name",
        "Manufacturer",
        "Model",
        "Owner",
        "CivilCode",
        "Block",
        "Address",
        "Parental",
        "ParentID",
        "SafetyWay",
        "RegisterWay",
        "CertNum",
        "Secrecy",
        "IPAddress",
        "Port",
        "Status",
        "Longitude",
        "Latitude",
        "BusinessGroupID",
        "Info",
        "PTZType",
        "BusinessGroupID",
    ]


def test_region_items_have_only_id_and_name() -> None:
    message = CatalogResponse(
        sn=1, device_id=DEVICE, sum_num=1, items=(CatalogItem(device_id="340202", name="区"),)
    )
    assert tags(write_catalog_response(message, Charset.GB18030, Edition.V3_0)) == ["DeviceID", "Name"]


def test_nothing_found_is_sum_zero_without_list() -> None:
    data = write_catalog_response(CatalogResponse(sn=1, device_id=DEVICE, sum_num=0), Charset.GB2312)
    assert b"<SumNum>0</SumNum>" in data
    assert b"DeviceList" not in data


def test_a_page_states_the_sum_of_all_parts_and_its_own_count() -> None:
    data = write_catalog_response(
        CatalogResponse(sn=1, device_id=DEVICE, sum_num=40, items=(FULL,)), Charset.GB2312
    )
    assert b"<SumNum>40</SumNum>" in data
    assert b'<DeviceList Num="1">' in data


def test_notify_counts_its_own_items_and_puts_the_event_behind_the_id() -> None:
    item = CatalogItem(device_id=CHANNEL, event=CatalogEvent.OFF)
    message = CatalogNotify(sn=1, device_id=DEVICE, sum_num=None, items=(item,))
    data = write_catalog_notify(message, Charset.GB18030)
    assert b"<Notify>" in data
    assert b"<SumNum>1</SumNum>" in data
    assert tags(data) == ["DeviceID", "Event"]


def test_query_times_are_optional() -> None:
    plain = CatalogQuery(sn=5, device_id=DEVICE)
    assert b"Time" not in write_catalog_query(plain, Charset.GB2312)
    timed = CatalogQuery(
        sn=5, device_id=DEVICE, start_time="2024-05-01T00:00:00", end_time="2024-05-02T00:00:00"
    )
    for query in (plain, timed):
        assert read_catalog_query(parse(write_catalog_query(query, Charset.GB2312))) == query
