"""Mutated bodies raise the documented exceptions only, and what is read stays within its bounds."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gb28181gw.gb.charset import decode
from gb28181gw.gb.dialect import parse_gb_version
from gb28181gw.gb.exceptions import SdpParseError, XmlParseError
from gb28181gw.gb.manscdp.alarm import read_alarm_notify
from gb28181gw.gb.manscdp.catalogue import MAX_EXTRA, MAX_TEXT, CatalogResponse, read_catalog_notify
from gb28181gw.gb.manscdp.keepalive import read_keepalive, sniff_keepalive
from gb28181gw.gb.manscdp.messages import read
from gb28181gw.gb.manscdp.position import MAX_POSITIONS, read_position_notify
from gb28181gw.gb.manscdp.ptz_position import read_ptz_position
from gb28181gw.gb.manscdp.xml import MAX_DOCUMENTS, parse
from gb28181gw.gb.sdp import Transport, agree, live_offer, parse_sdp
from gb28181gw.gb.times import parse_time
from gb28181gw.gb.version import detect_edition
from tests.support.gb import DEVICE, body, page_text

XML_SEEDS = [
    page_text(count=3).encode("gb18030"),
    page_text(count=2).encode(),
    body(
        "<Status>OK</Status><Info><DeviceID>34020000001320000009</DeviceID></Info>",
        root="Notify",
        cmd_type="Keepalive",
    ),
    body("<Result>OK</Result><Manufacturer>A</Manufacturer><Channel>4</Channel>", cmd_type="DeviceInfo"),
    body(
        '<Result>OK</Result><Online>ONLINE</Online><Alarmstatus Num="1"><Item><DeviceID>1</DeviceID>'
        "<DutyStatus>ALARM</DutyStatus></Item></Alarmstatus>",
        cmd_type="DeviceStatus",
    ),
    body("<NotifyType>121</NotifyType>", root="Notify", cmd_type="MediaStatus"),
    body("<Pan>1.5</Pan><Tilt>-10</Tilt><Zoom>2</Zoom>", root="Notify", cmd_type="PTZPosition"),
    body(
        "<AlarmPriority>1</AlarmPriority><AlarmMethod>5</AlarmMethod><AlarmTime>2024-05-01T08:30:00</AlarmTime><Info>"
        "<AlarmType>6</AlarmType><AlarmTypeParam><EventType>1</EventType></AlarmTypeParam></Info>",
        root="Notify",
        cmd_type="Alarm",
    ),
    body(
        '<Time>2024-05-01T08:30:00</Time><SumNum>1</SumNum><DeviceList Num="1"><Item><DeviceID>1</DeviceID>'
        "<Longitude>117.3</Longitude><Latitude>31.8</Latitude></Item></DeviceList>",
        root="Notify",
        cmd_type="MobilePosition",
    ),
]
SDP_SEEDS = [
    live_offer(user=DEVICE, host="192.0.2.1", port=20000, ssrc=200000001, transport=transport).to_bytes()
    for transport in Transport
]
PIECES = st.sampled_from(
    [
        b"<",
        b">",
        b"&",
        b"</",
        b"/>",
        b"<Item>",
        b"</Item>",
        b"<DeviceID>",
        b"<!DOCTYPE",
        b"<![CDATA[",
        b"]]>",
        b"<!--",
        b"<?xml",
        b"?>",
        b"&#0;",
        b"&#x110000;",
        b"\0",
        b"\x01",
        b"\xff\xfe",
        b"\xb6",
        b"\xe4\xb8",
        b"<Response>",
        b"</Response>",
        b'<DeviceList Num="',
        b"<a:b xmlns:a='",
        b"\r\nm=",
        b"\r\ny=",
        b"\r\na=rtpmap:",
        b"\r\na=setup:",
        b"\r\nc=",
        b"=",
    ]
)


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with some places cut, doubled, overwritten or filled in."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 8))):
        first = draw(st.integers(0, len(data)))
        last = min(len(data), first + draw(st.integers(0, 24)))
        action = draw(st.integers(0, 4))
        if action == 0:
            data = data[:first] + data[last:]
        elif action == 1:
            data = data[:first] + data[first:last] * draw(st.integers(2, 20)) + data[last:]
        elif action == 2:
            data = data[:first] + draw(st.binary(max_size=6)) + data[last:]
        elif action == 3:
            data = data[:first] + draw(PIECES) + data[first:]
        else:
            data = data[:first]
    return data


def use(data: bytes) -> None:
    """Everything that is done to a body from a peer."""
    fast = sniff_keepalive(data)
    try:
        document = parse(data)
    except XmlParseError as error:
        assert error.reason
        assert fast is None
        return
    assert len(document.following) < MAX_DOCUMENTS
    assert len(document.device_id) <= 64
    for part in (document, *document.following):
        message = read(part)
        detect_edition(part)
        notify = read_catalog_notify(part)
        assert all(item.event is not None for item in notify.items)
        read_alarm_notify(part)
        read_ptz_position(part)
        assert len(read_position_notify(part).positions) <= MAX_POSITIONS
        if isinstance(message, CatalogResponse):
            for item in message.items:
                assert 0 < len(item.device_id) <= 64
                assert len(item.name) <= MAX_TEXT
                assert len(item.extra) <= MAX_EXTRA
                assert item.longitude is None or -180 <= item.longitude <= 180
    if fast is not None:
        slow = read_keepalive(document)
        assert (fast.sn, fast.device_id, fast.status) == (slow.sn, slow.device_id, slow.status)


@settings(max_examples=400, deadline=None)
@given(data=mutated(XML_SEEDS))
def test_xml06_mutated_bodies_raise_documented_errors_only(data: bytes) -> None:
    use(data)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
@example(data=b"<Notify/>")
@example(data=b"<Item")
@example(data=b"\xff\xfe<\0N\0")
@example(data=b"<Response><Item><Item></Response>")
@example(data=b"<Notify><DeviceList><Item><DeviceID>1</DeviceID><a:b/></Item></DeviceList>")
def test_s05_any_bytes_raise_documented_errors_only(data: bytes) -> None:
    use(data)
    assert isinstance(decode(data).text, str)


@settings(max_examples=400, deadline=None)
@given(data=mutated(SDP_SEEDS), transport=st.sampled_from(list(Transport)))
def test_tk04_mutated_descriptions_raise_documented_errors_only(data: bytes, transport: Transport) -> None:
    offer = live_offer(user=DEVICE, host="192.0.2.1", port=20000, ssrc=1, transport=transport)
    try:
        sdp = parse_sdp(data)
    except SdpParseError as error:
        assert error.reason
        return
    agreed = agree(offer, sdp)
    assert 0 < agreed.ssrc < 2**32
    assert 0 <= agreed.port < 65536
    assert agreed.payloads


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_pb01_any_text_is_a_time_or_none(text: str) -> None:
    moment = parse_time(text)
    assert moment is None or moment.tzinfo is not None
    edition = parse_gb_version(text)
    assert edition is None or edition.value
