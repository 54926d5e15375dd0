from __future__ import annotations

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.control import write_key_frame_control

CHANNEL = "34020000001320000007"


@pytest.mark.parametrize(
    ("edition", "element"),
    [(Edition.V2_0, "IFameCmd"), (Edition.V1_1, "IFameCmd"), (Edition.V3_0, "IFrameCmd")],
)
def test_a23117_key_frame_control_by_edition(edition: Edition, element: str) -> None:
    body = write_key_frame_control(17, CHANNEL, Charset.GB18030, edition)
    assert "".join(body.decode().split("\r\n")[1:]) == (
        "<Control><CmdType>DeviceControl</CmdType><SN>17</SN>"
        f"<DeviceID>{CHANNEL}</DeviceID><{element}>Send</{element}></Control>"
    )
