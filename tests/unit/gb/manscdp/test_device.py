from __future__ import annotations

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.manscdp.device import (
    DeviceInfoResponse,
    DeviceStatusResponse,
    Duty,
    read_device_info_response,
    read_device_status_response,
    write_device_info_response,
    write_device_status_response,
)
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk
from tests.support.gb import DEVICE, body


def info(inner: str) -> DeviceInfoResponse:
    return read_device_info_response(parse(body(inner, cmd_type="DeviceInfo")))


def status(inner: str) -> DeviceStatusResponse:
    return read_device_status_response(parse(body(inner, cmd_type="DeviceStatus")))


def test_device_info() -> None:
    message = info(
        "<DeviceName>NVR 1</DeviceName><Result>OK</Result><Manufacturer>Acme</Manufacturer><Model>N16</Model>"
        "<Firmware>V1.0</Firmware><Channel>16</Channel><DeviceType>NVR</DeviceType>"
    )
    assert message == DeviceInfoResponse(
        sn=7,
        device_id=DEVICE,
        name="NVR 1",
        manufacturer="Acme",
        model="N16",
        firmware="V1.0",
        channel_count=16,
        extra=(("DeviceType", "NVR"),),
    )


def test_device_info_of_2011_counts_cameras() -> None:
    assert info("<MaxCamera>4</MaxCamera>").channel_count == 4
    assert info("<Channel>-3</Channel>").channel_count is None


def test_cat11_placeholders_in_device_info() -> None:
    message = info("<Result>OK</Result><Manufacturer>Manufacturer</Manufacturer><Model>model</Model>")
    assert (message.manufacturer, message.model) == ("", "")
    assert message.quirks == (Quirk.CATALOG_PLACEHOLDER,)


@pytest.mark.parametrize(
    ("result", "ok", "odd"),
    [
        ("OK", True, False),
        ("ok", True, True),
        ("", True, True),
        ("ERROR", False, False),
        ("Fail", False, True),
        ("失败", False, True),
    ],
)
def test_xml13_result(result: str, ok: bool, odd: bool) -> None:
    message = info(f"<Result>{result}</Result>")
    assert message.ok is ok
    assert message.result == (result or "OK")
    assert (Quirk.XML_RESULT_TEXT in message.quirks) is odd


def test_device_status() -> None:
    message = status(
        "<Result>OK</Result><Online>ONLINE</Online><Status>OK</Status><Reason>r</Reason><Encode>on</Encode>"
        "<Record>OFF</Record><DeviceTime>2024-05-01T08:30:00</DeviceTime>"
        '<Alarmstatus Num="1"><Item><DeviceID>34020000001340000001</DeviceID>'
        "<DutyStatus>ONDUTY</DutyStatus></Item></Alarmstatus>"
    )
    assert message == DeviceStatusResponse(
        sn=7,
        device_id=DEVICE,
        online=True,
        status="OK",
        reason="r",
        encode="ON",
        record="OFF",
        device_time="2024-05-01T08:30:00",
        alarm_states=(("34020000001340000001", Duty.ONDUTY),),
    )


def test_device_status_of_older_editions() -> None:
    message = status(
        "<Result>OK</Result><Online>offline</Online><DeviceTime>2024-5-1 8:30:00</DeviceTime>"
        '<AlarmStatus num="2"><Item><DeviceID>a1</DeviceID><Status>alarm</Status></Item>'
        "<Item><DeviceID>a2</DeviceID></Item></AlarmStatus>"
    )
    assert message.online is False
    assert message.alarm_states == (("a1", Duty.ALARM),)
    assert Quirk.TIME_FORM in message.quirks


def test_online_not_told() -> None:
    assert status("<Result>OK</Result>").online is None


def test_written_in_the_order_of_the_standard() -> None:
    data = write_device_info_response(
        DeviceInfoResponse(
            sn=1, device_id=DEVICE, name="n", manufacturer="m", model="o", firmware="f", channel_count=0
        ),
        Charset.GB18030,
    )
    assert " ".join(parse(data).fields) == (
        "CmdType SN DeviceID DeviceName Result Manufacturer Model Firmware Channel"
    )
    data = write_device_status_response(
        DeviceStatusResponse(
            sn=1,
            device_id=DEVICE,
            ok=False,
            online=False,
            status="ERROR",
            reason="r",
            encode="ON",
            record="ON",
            device_time="2024-05-01T08:30:00",
            alarm_states=(("a1", Duty.OFFDUTY),),
        ),
        Charset.GB18030,
    )
    assert " ".join(parse(data).fields) == (
        "CmdType SN DeviceID Result Online Status Reason Encode Record DeviceTime Alarmstatus"
    )
    assert not read_device_status_response(parse(data)).ok
