from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.alarm import (
    AlarmNotify,
    AlarmResponse,
    read_alarm_notify,
    read_alarm_response,
    write_alarm_notify,
    write_alarm_response,
)
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk
from tests.support.gb import CHANNEL, body

INPUT = "34020000001340000001"


def alarm(inner: str) -> AlarmNotify:
    return read_alarm_notify(parse(body(inner, root="Notify", cmd_type="Alarm")))


def flat(data: bytes) -> str:
    return data.decode("gb18030").replace("\r\n", "")


def test_a253_bytes_both_ways() -> None:
    message = AlarmNotify(
        sn=72,
        device_id=INPUT,
        priority=1,
        method=5,
        time="2024-05-01T08:30:00",
        description="东门",
        longitude=117.3,
        latitude=31.8,
        type="6",
        event_type="1",
        extra=("a<b",),
    )
    data = write_alarm_notify(message, Charset.GB18030, Edition.V3_0)
    assert flat(data) == (
        '<?xml version="1.0" encoding="GB18030"?><Notify><CmdType>Alarm</CmdType><SN>72</SN>'
        f"<DeviceID>{INPUT}</DeviceID><AlarmPriority>1</AlarmPriority><AlarmMethod>5</AlarmMethod>"
        "<AlarmTime>2024-05-01T08:30:00</AlarmTime><AlarmDescription>东门</AlarmDescription>"
        "<Longitude>117.3</Longitude><Latitude>31.8</Latitude><Info><AlarmType>6</AlarmType><AlarmTypeParam>"
        "<EventType>1</EventType></AlarmTypeParam></Info><ExtraInfo>a&lt;b</ExtraInfo></Notify>"
    )
    assert read_alarm_notify(parse(data)) == message
    assert "ExtraInfo" not in flat(write_alarm_notify(message, Charset.GB2312, Edition.V2_0))


def test_a263_answer_bytes_both_ways() -> None:
    data = write_alarm_response(AlarmResponse(sn=72, device_id=INPUT), Charset.GB2312)
    assert flat(data) == (
        '<?xml version="1.0" encoding="GB2312"?><Response><CmdType>Alarm</CmdType><SN>72</SN>'
        f"<DeviceID>{INPUT}</DeviceID><Result>OK</Result></Response>"
    )
    assert read_alarm_response(parse(data)) == AlarmResponse(sn=72, device_id=INPUT)
    refused = write_alarm_response(AlarmResponse(sn=1, device_id=CHANNEL, ok=False), Charset.GB2312)
    assert not read_alarm_response(parse(refused)).ok


@pytest.mark.parametrize(
    "inner",
    [
        "<Info><AlarmType>6</AlarmType><AlarmTypeParam><EventType>2</EventType></AlarmTypeParam></Info>",
        "<AlarmType>6</AlarmType><AlarmTypeParam><EventType>2</EventType></AlarmTypeParam>",
        "<AlarmType>6</AlarmType><EventType>2</EventType>",
        "<info><alarmtype> 6 </alarmtype></info><EventType>2</EventType>",
    ],
)
def test_the_type_is_read_in_info_and_beside_it(inner: str) -> None:
    found = alarm(inner)
    assert (found.type, found.event_type) == ("6", "2")


def test_numbers_that_are_none_are_not_told() -> None:
    found = alarm(
        "<AlarmPriority>9</AlarmPriority><AlarmMethod>x</AlarmMethod><AlarmTime>2024-5-1 8:30:00</AlarmTime>"
        "<Longitude>0</Longitude><Latitude>0</Latitude>"
    )
    assert (found.priority, found.method, found.longitude) == (None, None, None)
    assert Quirk.TIME_FORM in found.quirks


@given(st.binary(max_size=200))
def test_any_body_is_read(inner: bytes) -> None:
    octets = b"<Notify><CmdType>Alarm</CmdType>" + inner.replace(b"<", b"&lt;") + b"</Notify>"
    assert read_alarm_notify(parse(octets)).device_id == ""
