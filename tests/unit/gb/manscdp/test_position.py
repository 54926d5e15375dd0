from __future__ import annotations

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.gb.manscdp.position import (
    Position,
    PositionNotify,
    read_position_notify,
    write_position_notify,
)
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk
from tests.support.gb import CHANNEL, DEVICE, body

PLACE = Position(
    device_id=CHANNEL,
    time="2024-05-01T08:30:04",
    longitude=117.3,
    latitude=31.8,
    speed=36.0,
    direction=90.0,
    altitude=12.5,
    height=2.0,
)


def positions(inner: str) -> PositionNotify:
    return read_position_notify(parse(body(inner, root="Notify", cmd_type="MobilePosition")))


def flat(data: bytes) -> str:
    return data.decode("gb18030").replace("\r\n", "")


def test_a256_list_form_bytes_both_ways() -> None:
    message = PositionNotify(sn=75, device_id=DEVICE, time="2024-05-01T08:30:05", positions=(PLACE,))
    data = write_position_notify(message, Charset.GB18030, Edition.V3_0)
    assert flat(data) == (
        '<?xml version="1.0" encoding="GB18030"?><Notify><CmdType>MobilePosition</CmdType><SN>75</SN>'
        f"<DeviceID>{DEVICE}</DeviceID><Time>2024-05-01T08:30:05</Time><SumNum>1</SumNum>"
        f'<DeviceList Num="1"><Item><DeviceID>{CHANNEL}</DeviceID><CaptureTime>2024-05-01T08:30:04</CaptureTime>'
        "<Longitude>117.3</Longitude><Latitude>31.8</Latitude><Speed>36</Speed><Direction>90</Direction>"
        "<Altitude>12.5</Altitude><Height>2</Height></Item></DeviceList></Notify>"
    )
    assert read_position_notify(parse(data)) == message


def test_2016_flat_form_bytes_both_ways() -> None:
    message = PositionNotify(sn=75, device_id=DEVICE, time="2024-05-01T08:30:05", positions=(PLACE,))
    data = write_position_notify(message, Charset.GB2312, Edition.V2_0)
    assert flat(data) == (
        '<?xml version="1.0" encoding="GB2312"?><Notify><CmdType>MobilePosition</CmdType><SN>75</SN>'
        f"<DeviceID>{DEVICE}</DeviceID><Time>2024-05-01T08:30:05</Time><Longitude>117.3</Longitude>"
        "<Latitude>31.8</Latitude><Speed>36</Speed><Direction>90</Direction><Altitude>12.5</Altitude></Notify>"
    )
    (found,) = read_position_notify(parse(data)).positions
    assert (found.device_id, found.time, found.direction) == (DEVICE, "2024-05-01T08:30:05", 90.0)
    with pytest.raises(GbLocalError):
        write_position_notify(
            PositionNotify(sn=1, device_id=DEVICE, positions=(PLACE, PLACE)), Charset.GB2312, Edition.V2_0
        )


def test_2016_flat_form_without_device_id() -> None:
    octets = (
        b"<Notify><CmdType>MobilePosition</CmdType><SN>1</SN><Longitude>117</Longitude><Latitude>31</Latitude>"
        b"</Notify>"
    )
    (found,) = read_position_notify(parse(octets)).positions
    assert (found.device_id, found.time) == ("", "")


@pytest.mark.parametrize(
    "place",
    [
        "<Longitude>0</Longitude><Latitude>0</Latitude>",
        "<Longitude/><Latitude/>",
        "<Longitude>E117.3</Longitude><Latitude>31.8</Latitude>",
        "<Longitude>217.3</Longitude><Latitude>31.8</Latitude>",
        "<Longitude>nan</Longitude><Latitude>31.8</Latitude>",
    ],
)
def test_ctl04_what_is_no_place_is_left_out(place: str) -> None:
    found = positions(f'<DeviceList Num="1"><Item><DeviceID>1</DeviceID>{place}</Item></DeviceList>')
    assert found.positions == ()
    assert Quirk.POSITION_UNUSABLE in found.quirks
    assert positions(place).positions == ()
