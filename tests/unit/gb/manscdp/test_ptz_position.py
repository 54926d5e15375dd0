from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.manscdp.ptz_position import PtzPositionNotify, read_ptz_position, write_ptz_position
from gb28181gw.gb.manscdp.xml import parse
from tests.support.gb import CHANNEL, body

numbers = st.none() | st.integers(-3_600_000, 3_600_000).map(lambda value: value / 10_000)


def test_91123_bytes_both_ways() -> None:
    message = PtzPositionNotify(sn=79, device_id=CHANNEL, pan=121.0, tilt=-10.5, zoom=2.0)
    data = write_ptz_position(message, Charset.GB18030)
    assert data.decode("gb18030").replace("\r\n", "") == (
        '<?xml version="1.0" encoding="GB18030"?><Notify><CmdType>PTZPosition</CmdType><SN>79</SN>'
        f"<DeviceID>{CHANNEL}</DeviceID><Pan>121</Pan><Tilt>-10.5</Tilt><Zoom>2</Zoom></Notify>"
    )
    assert read_ptz_position(parse(data)) == message


def test_what_is_no_number_is_absent() -> None:
    text = "<Pan>north</Pan><Tilt></Tilt><Zoom>1e400</Zoom><MaxViewDistance> 80 </MaxViewDistance>"
    told = read_ptz_position(parse(body(text, root="Notify", cmd_type="PTZPosition")))
    assert (told.pan, told.tilt, told.zoom, told.max_distance) == (None, None, None, 80.0)


@given(
    st.builds(
        PtzPositionNotify,
        sn=st.integers(0, 10**9),
        device_id=st.just(CHANNEL),
        pan=numbers,
        tilt=numbers,
        zoom=numbers,
        horizontal_angle=numbers,
        vertical_angle=numbers,
        max_distance=numbers,
    )
)
def test_what_is_written_is_read(message: PtzPositionNotify) -> None:
    assert read_ptz_position(parse(write_ptz_position(message, Charset.GB18030))) == message


@given(st.binary(max_size=64))
def test_whatever_stands_there_is_read_or_absent(inner: bytes) -> None:
    text = "".join(chr(byte) for byte in inner if chr(byte) not in "<>&" and byte >= 32)
    told = read_ptz_position(parse(body(f"<Pan>{text}</Pan>", root="Notify", cmd_type="PTZPosition")))
    assert told.pan is None or isinstance(told.pan, float)
