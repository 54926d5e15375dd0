import random
import re
from dataclasses import replace

import pytest

from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.sim import bodies
from gb28181gw.sim.bodies import Element, Identity, SimChannel
from gb28181gw.sim.quirks import Quirk

DEVICE = "34020000001180000001"
ME = Identity(
    device_id=DEVICE,
    name="Test NVR",
    server_id="34020000002000000001",
    channels=tuple(SimChannel(f"3402000000132000000{n}", f"东门 {n}") for n in range(1, 6)),
)


def me(*quirks: Quirk) -> Identity:
    return replace(ME, quirks=frozenset(quirks))


def catalog(*quirks: Quirk, seed: int = 1) -> list[Element]:
    return bodies.catalog_messages(me(*quirks), "17", DEVICE, random.Random(seed))


def rendered(*quirks: Quirk) -> list[bytes]:
    return [bodies.render(message, "GB2312", frozenset(quirks)) for message in catalog(*quirks)]


def field(element: Element, name: str) -> str | None:
    return next((child.text for child in element.children if child.name == name), None)


def items(message: Element) -> tuple[Element, ...]:
    return next((child.children for child in message.children if child.name == "DeviceList"), ())


def num(message: Element) -> str:
    return next(dict(child.attributes)["Num"] for child in message.children if child.name == "DeviceList")


def all_items(*quirks: Quirk) -> list[Element]:
    return [item for message in catalog(*quirks) for item in items(message)]


def values(name: str, *quirks: Quirk) -> list[str | None]:
    return [field(item, name) for item in all_items(*quirks)]


# --- correct ------------------------------------------------------------------------------------------------------


def test_catalog_pages_carry_sn_total_and_num() -> None:
    messages = catalog()
    assert [field(message, "SN") for message in messages] == ["17"] * 3
    assert [field(message, "SumNum") for message in messages] == ["5"] * 3
    assert [num(message) for message in messages] == ["2", "2", "1"]
    assert values("DeviceID") == [channel.id for channel in ME.channels]


def test_catalog_is_read_by_the_shared_reader() -> None:
    document = parse(rendered()[0])
    assert (document.root, document.cmd_type, document.sn) == ("Response", "Catalog", 17)
    assert document.quirks == ()
    assert [item.findtext("Name") for item in document.items("DeviceList")] == ["东门 1", "东门 2"]


def test_catalog_of_one_channel() -> None:
    messages = bodies.catalog_messages(ME, "3", ME.channels[1].id, random.Random(1))
    assert [field(item, "DeviceID") for message in messages for item in items(message)] == [ME.channels[1].id]


def test_catalog_of_nothing_has_no_list() -> None:
    (message,) = bodies.catalog_messages(replace(ME, channels=()), "3", DEVICE, random.Random(1))
    assert field(message, "SumNum") == "0"
    assert items(message) == ()


def test_owner_and_safety_way_belong_to_the_older_editions() -> None:
    assert values("Owner") == [None] * 5
    old = replace(ME, edition="2.0")
    first = bodies.catalog_items(old)[0]
    assert field(first, "Owner") == "0"
    assert field(first, "SafetyWay") == "0"


def test_device_info_status_record_and_configuration() -> None:
    info = parse(bodies.render(bodies.device_info(ME, "4", DEVICE), "GB2312"))
    assert (info.text("DeviceName"), info.text("Result"), info.text("Channel")) == ("Test NVR", "OK", "5")
    status = parse(bodies.render(bodies.device_status(ME, "5", DEVICE, "2024-05-01T08:30:00"), "GB2312"))
    assert (status.text("Online"), status.text("DeviceTime")) == ("ONLINE", "2024-05-01T08:30:00")
    records = parse(
        bodies.render(bodies.record_messages(ME, "6", ME.channels[0].id, (), random.Random(1))[0], "GB18030")
    )
    assert (records.text("Name"), records.text("SumNum")) == ("东门 1", "0")
    assert "RecordList" not in records.fields
    param = bodies.basic_param(ME, {"Name": "East", "HeartBeatCount": "5"}, 3600, 30.0)
    assert [(child.name, child.text) for child in param.children] == [
        ("Name", "East"),
        ("Expiration", "3600"),
        ("HeartBeatInterval", "30"),
        ("HeartBeatCount", "5"),
    ]
    outcome = parse(bodies.render(bodies.result(ME, "DeviceControl", "8", DEVICE, "OK"), "GB2312"))
    assert (outcome.cmd_type, outcome.text("Result")) == ("DeviceControl", "OK")


@pytest.mark.parametrize(
    ("charset", "codec"), [("GB2312", "gb18030"), ("GB18030", "gb18030"), ("UTF-8", "utf-8")]
)
def test_text_is_encoded_as_declared(charset: str, codec: str) -> None:
    data = bodies.render(catalog()[0], charset)
    assert f'encoding="{charset}"'.encode() in data
    assert "东门 1" in data.decode(codec)


# --- KA -----------------------------------------------------------------------------------------------------------


def test_keepalive() -> None:
    document = parse(bodies.render(bodies.keepalive(ME, 7), "GB2312"))
    assert (document.root, document.cmd_type, document.sn, document.text("Status")) == (
        "Notify",
        "Keepalive",
        7,
        "OK",
    )


def test_ka06_keepalive_without_status_under_another_root() -> None:
    data = bodies.render(bodies.keepalive(me(Quirk.KA_06), 7), "GB2312")
    assert b"<Response>" in data
    assert b"Status" not in data


def test_ka06_error_keepalive_lists_faulty_channels() -> None:
    document = parse(bodies.render(bodies.keepalive(me(Quirk.KA_06_ERROR), 7), "GB2312"))
    assert document.text("Status") == "ERROR"
    assert [child.text for child in document.fields["Info"]] == [channel.id for channel in ME.channels[:3]]


# --- XML ----------------------------------------------------------------------------------------------------------


def test_xml01_gb18030_under_a_gb2312_declaration() -> None:
    data = rendered(Quirk.XML_01)[0]
    assert b'encoding="GB2312"' in data
    with pytest.raises(UnicodeDecodeError):
        data.decode("gb2312")
    assert "鎕\u3400" in data.decode("gb18030")


def test_xml02_utf8_under_a_gb2312_declaration() -> None:
    data = rendered(Quirk.XML_02)[0]
    assert b'encoding="GB2312"' in data
    assert "东门" in data.decode("utf-8")


def test_xml03_byte_order_mark_and_no_declaration() -> None:
    data = rendered(Quirk.XML_03)[0]
    assert data.startswith(b"\xef\xbb\xbf\r\n\r\n<Response>")


def test_xml04_control_characters_and_nul_padding() -> None:
    data = rendered(Quirk.XML_04)[0]
    assert b"Gate\x01\x02 1" in data
    assert data.endswith(b"\0\0\0")


def test_xml05_raw_ampersands() -> None:
    data = rendered(Quirk.XML_05)[0]
    assert b"A&B &nosuch;" in data
    assert b"?a=0&b=2" in data


def test_xml06_raw_less_than_and_half_a_character() -> None:
    data = rendered(Quirk.XML_06)[0]
    assert b"<Address>East < West</Address>" in data
    assert b"\xb5</Address>" in data


def test_xml08_an_extra_end_tag() -> None:
    data = rendered(Quirk.XML_08)[0]
    assert data.count(b"</Item>") == data.count(b"<Item>") + 1


def test_xml10_attributes_and_lower_case() -> None:
    data = rendered(Quirk.XML_10)[0]
    assert b'<response CmdType="Catalog" SN="17">' in data
    assert b"<item>" in data
    assert parse(data).cmd_type == "Catalog"


def test_xml11_no_sn() -> None:
    assert field(catalog(Quirk.XML_11)[0], "SN") is None


def test_xml11_other_sn() -> None:
    assert field(catalog(Quirk.XML_11_OTHER)[0], "SN") == "24"


def test_xml12_id_of_the_channel_in_answers_of_the_device() -> None:
    assert field(bodies.device_info(me(Quirk.XML_12), "1", DEVICE), "DeviceID") == ME.channels[0].id
    assert field(catalog(Quirk.XML_12)[0], "DeviceID") == DEVICE


def test_xml13_result_absent_or_in_chinese() -> None:
    assert field(bodies.device_info(me(Quirk.XML_13), "1", DEVICE), "Result") is None
    assert field(bodies.device_status(me(Quirk.XML_13), "1", DEVICE, ""), "Result") == "成功"


def test_xml18_a_second_document() -> None:
    data = rendered(Quirk.XML_18)[0]
    assert data.index(b"</Response>") < data.index(b"<Notify>")


def test_xml23_quotes_emoji_and_length() -> None:
    name = values("Name", Quirk.XML_23)[0] or ""
    assert "\U0001f4f7" in name
    assert "'quote\"" in name
    assert len(name) > 300


# --- CAT ----------------------------------------------------------------------------------------------------------


def test_cat01_sumnum_too_large() -> None:
    assert {field(message, "SumNum") for message in catalog(Quirk.CAT_01)} == {"10"}
    assert len(all_items(Quirk.CAT_01)) == 5


def test_cat02_sumnum_of_this_message() -> None:
    assert [field(message, "SumNum") for message in catalog(Quirk.CAT_02)] == ["2", "2", "1"]


def test_cat03_spontaneous_single_item() -> None:
    message = bodies.spontaneous_catalog(me(Quirk.CAT_03), 320)
    assert message is not None
    assert (field(message, "SN"), field(message, "SumNum"), len(items(message))) == ("320", "1", 1)
    assert bodies.spontaneous_catalog(replace(ME, channels=()), 1) is None


@pytest.mark.parametrize("seed", range(5))
def test_cat04_out_of_order_and_twice(seed: int) -> None:
    plain = catalog()
    spoilt = catalog(Quirk.CAT_04, seed=seed)
    assert sorted(map(repr, spoilt)) == sorted(map(repr, [*plain, *plain]))
    assert spoilt != [message for message in plain for _ in range(2)]


def test_cat05_first_message_empty_and_num_wrong() -> None:
    messages = catalog(Quirk.CAT_05)
    assert items(messages[0]) == ()
    assert [num(message) for message in messages] == ["1", "5", "5", "4"]


def test_cat07_forms_of_parent_id() -> None:
    server = ME.server_id
    assert values("ParentID", Quirk.CAT_07) == [server, DEVICE, "0", "", f"{server}/{DEVICE}"]


def test_cat08_parental_out_of_range() -> None:
    assert set(values("Parental", Quirk.CAT_08)) == {"65535", "255"}


def test_cat09_forms_of_status() -> None:
    assert values("Status", Quirk.CAT_09) == ["ON", "OK", "ONLINE", "On", "1"]
    seven = replace(ME, channels=ME.channels * 2, quirks=frozenset({Quirk.CAT_09}))
    assert [field(item, "Status") for item in bodies.catalog_items(seven)][5:7] == [None, "OFF"]


def test_cat10_useless_civil_codes() -> None:
    assert values("CivilCode", Quirk.CAT_10)[:3] == ["CivilCode", DEVICE, "34020"]


def test_cat11_placeholders() -> None:
    item = all_items(Quirk.CAT_11)[0]
    assert [field(item, name) for name in ("Manufacturer", "Model", "Owner", "Address")] == [
        "Manufacturer",
        "Model",
        "Owner",
        "Address",
    ]
    assert field(bodies.device_info(me(Quirk.CAT_11), "1", DEVICE), "Model") == "Model"


def test_cat12_groups_come_after_their_children() -> None:
    found = all_items(Quirk.CAT_12)
    kinds = [(field(item, "DeviceID") or "")[10:13] for item in found]
    assert kinds == ["132"] * 5 + ["216", "216", "215"]
    group = found[-1]
    assert field(group, "ParentID") == field(group, "DeviceID")
    assert field(found[5], "BusinessGroupID") is None
    ids = {field(item, "DeviceID") for item in found}
    assert {part for item in found[:5] for part in (field(item, "ParentID") or "").split("/")} <= ids


def test_cat14_channel_with_the_id_of_the_device() -> None:
    assert values("DeviceID", Quirk.CAT_14)[0] == DEVICE


def test_cat15_no_catalogue() -> None:
    assert catalog(Quirk.CAT_15) == []


def test_cat16_other_kinds_of_channel() -> None:
    kinds = {(name or "")[10:13] for name in values("DeviceID", Quirk.CAT_16)}
    assert {"132", "134", "133", "137"} == kinds


def test_every_broken_catalogue_still_carries_the_channels() -> None:
    readable = [
        quirk for quirk in Quirk if quirk.value.startswith(("CAT-", "XML-")) and quirk is not Quirk.CAT_15
    ]
    for quirk in readable:
        text = b"".join(rendered(quirk))
        ids = set(re.findall(rb"3402000000132000000\d", text))
        assert len(ids) >= 4, quirk
