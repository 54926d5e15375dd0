from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.gb.manscdp.messages import (
    CatalogEvent,
    CatalogItem,
    CatalogNotify,
    CatalogQuery,
    CatalogResponse,
    DeviceInfoQuery,
    DeviceInfoResponse,
    DeviceStatusQuery,
    DeviceStatusResponse,
    Duty,
    Keepalive,
    MediaStatus,
    Message,
    Status,
    read,
    write,
)
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk
from tests.support.gb import DEVICE, body

sns = st.integers(min_value=0, max_value=2**31)
ids = st.text(string.digits, min_size=20, max_size=20)
# What a text keeps through any character set here: no controls, no surrogates, no blanks at the ends.
texts = st.text(
    st.characters(
        codec="gb18030", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), exclude_characters="\ufffe\uffff"
    ),
    max_size=40,
)
sides = st.sampled_from(list(Charset))
words = st.text(string.ascii_letters + string.digits, max_size=20)

items = st.builds(
    CatalogItem,
    device_id=ids,
    name=texts,
    manufacturer=texts.filter(lambda text: text.lower() != "manufacturer"),
    model=texts.filter(lambda text: text.lower() != "model"),
    civil_code=st.sampled_from(["", "34", "3402", "340202", "34020201"]),
    block=words.filter(lambda text: text.lower() != "block"),
    address=texts.filter(lambda text: text.lower() != "address"),
    parental=st.none() | st.booleans(),
    register_way=st.none() | st.integers(1, 4),
    secrecy=st.none() | st.integers(0, 1),
    ip_address=st.just("") | st.ip_addresses().map(str),
    port=st.none() | st.integers(0, 65535),
    longitude=st.none() | st.integers(-1_800_000, 1_800_000).map(lambda n: n / 10_000),
    latitude=st.none() | st.integers(-900_000, 900_000).map(lambda n: n / 10_000),
    business_group_id=st.just("") | ids,
    ptz_type=st.sampled_from(["", "1", "7", "1/4"]),
)


@st.composite
def whole_items(draw: st.DrawFn, event: bool) -> CatalogItem:
    item = draw(items)
    status = draw(st.sampled_from(list(Status)))
    parents = tuple(draw(st.lists(ids.filter(lambda text: bool(text.strip("0"))), max_size=3)))
    return CatalogItem(
        **{
            **{name: getattr(item, name) for name in CatalogItem.__dataclass_fields__},
            "status": status,
            "status_text": "" if status is Status.UNKNOWN else status.value,
            "parent_id": "/".join(parents),
            "parent_ids": parents,
            "event": draw(st.sampled_from(list(CatalogEvent))) if event else None,
        }
    )


@st.composite
def catalogs(draw: st.DrawFn) -> Message:
    event = draw(st.booleans())
    chosen = tuple(draw(st.lists(whole_items(event), max_size=4)))
    if event:
        return CatalogNotify(sn=draw(sns), device_id=DEVICE, sum_num=len(chosen), items=chosen)
    return CatalogResponse(sn=draw(sns), device_id=DEVICE, sum_num=draw(st.integers(0, 10_000)), items=chosen)


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Keepalive,
        sn=sns,
        device_id=ids,
        status=st.sampled_from(["OK", "ERROR"]),
        fault_ids=st.lists(ids).map(tuple),
    ),
    st.builds(CatalogQuery, sn=sns, device_id=ids, start_time=st.sampled_from(["", "2024-05-01T00:00:00"])),
    catalogs(),
    st.builds(DeviceInfoQuery, sn=sns, device_id=ids),
    st.builds(
        DeviceInfoResponse,
        sn=sns,
        device_id=ids,
        name=texts,
        manufacturer=texts.filter(lambda text: text.lower() != "manufacturer"),
        model=texts.filter(lambda text: text.lower() != "model"),
        firmware=words.filter(lambda text: text.lower() != "firmware"),
        channel_count=st.none() | st.integers(0, 4096),
    ),
    st.builds(DeviceStatusQuery, sn=sns, device_id=ids),
    st.builds(
        DeviceStatusResponse,
        sn=sns,
        device_id=ids,
        online=st.booleans(),
        status=st.sampled_from(["OK", "ERROR"]),
        reason=texts,
        encode=st.sampled_from(["", "ON", "OFF"]),
        device_time=st.sampled_from(["", "2024-05-01T08:30:00"]),
        alarm_states=st.lists(st.tuples(ids, st.sampled_from(list(Duty))), max_size=3).map(tuple),
    ),
    st.builds(MediaStatus, sn=sns, device_id=ids, notify_type=st.none() | st.integers(100, 200)),
)


@given(message=messages, charset=sides, edition=st.sampled_from(list(Edition)))
def test_what_is_written_is_read_as_it_was(message: Message, charset: Charset, edition: Edition) -> None:
    assert strip(read(parse(write(message, charset, edition)))) == message


def strip(message: Message | None) -> Message | None:
    """Without quirks that only say that the data is odd: random ids meet the device's, GB 2312 meets rare letters."""
    if message is None or not hasattr(message, "quirks"):
        return message
    allowed = {Quirk.CHARSET_BEYOND_GB2312, Quirk.CATALOG_SELF_ITEM}
    assert set(message.quirks) <= allowed
    fields = {name: getattr(message, name) for name in type(message).__dataclass_fields__}
    return type(message)(**{**fields, "quirks": ()})


def test_rest_of_the_writers_strictness() -> None:
    with pytest.raises(GbLocalError, match="without its SN"):
        write(Keepalive(sn=None, device_id=DEVICE), Charset.GB2312)
    with pytest.raises(GbLocalError, match="without its SN"):
        write(DeviceInfoQuery(sn=-1, device_id=DEVICE), Charset.GB2312)


@pytest.mark.parametrize(
    ("charset", "label", "raw"),
    [
        (Charset.GB2312, b"GB2312", "东𠮷".encode("gb18030")),
        (Charset.GB18030, b"GB18030", "东𠮷".encode("gb18030")),
        (Charset.UTF8, b"UTF-8", "东𠮷".encode()),
    ],
)
def test_the_declaration_says_what_the_bytes_are(charset: Charset, label: bytes, raw: bytes) -> None:
    data = write(DeviceInfoResponse(sn=1, device_id=DEVICE, name="东𠮷"), charset)
    assert data.startswith(b'<?xml version="1.0" encoding="' + label + b'"?>\r\n')
    assert raw in data
    assert data.endswith(b"</Response>\r\n")


def test_s05_forbidden_characters_are_replaced_not_written() -> None:
    data = write(DeviceInfoResponse(sn=1, device_id=DEVICE, name="a\x00\x01b\ud800c\ufffe"), Charset.GB18030)
    message = read(parse(data))
    assert isinstance(message, DeviceInfoResponse)
    assert message.name == "a?b?c?"
    assert message.quirks == ()


def test_markup_in_values_is_text() -> None:
    data = write(
        DeviceInfoResponse(sn=1, device_id=DEVICE, name="</DeviceName><Result>ERROR</Result>&amp;"),
        Charset.GB2312,
    )
    message = read(parse(data))
    assert isinstance(message, DeviceInfoResponse)
    assert message.ok
    assert message.name == "</DeviceName><Result>ERROR</Result>&amp;"


# The standard's message kinds, one line each as they travel, with what must come out.
EXAMPLES: list[tuple[str, Message]] = [
    (
        "<Notify><CmdType>Keepalive</CmdType><SN>71</SN><DeviceID>34020000001180000001</DeviceID><Status>OK</Status>"
        "<Info><DeviceID>34020000001320000009</DeviceID></Info></Notify>",
        Keepalive(sn=71, device_id=DEVICE, fault_ids=("34020000001320000009",)),
    ),
    (
        "<Notify><CmdType>MediaStatus</CmdType><SN>73</SN><DeviceID>34020000001320000007</DeviceID>"
        "<NotifyType>121</NotifyType></Notify>",
        MediaStatus(sn=73, device_id="34020000001320000007", notify_type=121),
    ),
    (
        "<Query><CmdType>Catalog</CmdType><SN>51</SN><DeviceID>34020000001180000001</DeviceID></Query>",
        CatalogQuery(sn=51, device_id=DEVICE),
    ),
    (
        "<Query><CmdType>DeviceStatus</CmdType><SN>52</SN><DeviceID>34020000001180000001</DeviceID></Query>",
        DeviceStatusQuery(sn=52, device_id=DEVICE),
    ),
    (
        "<Query><CmdType>DeviceInfo</CmdType><SN>53</SN><DeviceID>34020000001180000001</DeviceID></Query>",
        DeviceInfoQuery(sn=53, device_id=DEVICE),
    ),
    (
        "<Notify><CmdType>Catalog</CmdType><SN>81</SN><DeviceID>34020000001180000001</DeviceID><SumNum>1</SumNum>"
        '<DeviceList Num="1"><Item><DeviceID>34020000001320000007</DeviceID><Event>OFF</Event></Item>'
        "</DeviceList></Notify>",
        CatalogNotify(
            sn=81,
            device_id=DEVICE,
            sum_num=1,
            items=(CatalogItem(device_id="34020000001320000007", event=CatalogEvent.OFF),),
        ),
    ),
]


@pytest.mark.parametrize(("text", "message"), EXAMPLES)
def test_examples(text: str, message: Message) -> None:
    document = parse(f'<?xml version="1.0" encoding="GB18030"?>\n{text}'.encode("gb18030"))
    assert read(document) == message


def test_kinds_without_a_reader_are_none() -> None:
    assert read(parse(body("", cmd_type="VendorThing"))) is None
    assert read(parse(body("", root="Control", cmd_type="DeviceControl"))) is None
