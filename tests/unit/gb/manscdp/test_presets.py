from __future__ import annotations

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.control import write_ptz_control
from gb28181gw.gb.manscdp.messages import Preset, PresetQuery, PresetResponse, read, write
from gb28181gw.gb.manscdp.presets import read_preset_response
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk
from tests.support.gb import CHANNEL, body

HEAD = f"<SN>56</SN>\r\n<DeviceID>{CHANNEL}</DeviceID>\r\n"


def response(inner: str) -> PresetResponse:
    return read_preset_response(parse(body(inner, cmd_type="PresetQuery")))


def test_a248_query_bytes() -> None:
    assert write(PresetQuery(sn=56, device_id=CHANNEL), Charset.GB18030) == (
        '<?xml version="1.0" encoding="GB18030"?>\r\n<Query>\r\n<CmdType>PresetQuery</CmdType>\r\n'
        f"{HEAD}</Query>\r\n"
    ).encode("gb18030")


@pytest.mark.parametrize(
    ("edition", "counted"), [(Edition.V2_0, ""), (Edition.V3_0, "<SumNum>1</SumNum>\r\n")]
)
def test_a2610_answer_bytes_by_edition(edition: Edition, counted: str) -> None:
    message = PresetResponse(sn=56, device_id=CHANNEL, presets=(Preset(1, "东门"),))
    data = write(message, Charset.GB18030, edition)
    assert data == (
        '<?xml version="1.0" encoding="GB18030"?>\r\n<Response>\r\n<CmdType>PresetQuery</CmdType>\r\n'
        f'{HEAD}{counted}<PresetList Num="1">\r\n<Item>\r\n<PresetID>1</PresetID>\r\n'
        "<PresetName>东门</PresetName>\r\n</Item>\r\n</PresetList>\r\n</Response>\r\n"
    ).encode("gb18030")
    again = read(parse(data))
    assert isinstance(again, PresetResponse)
    assert again.presets == message.presets
    assert again.total == (1 if counted else None)


def test_ctl10_ids_that_no_code_can_call_are_left_out() -> None:
    found = response(
        '<SumNum>4</SumNum><PresetList Num="4">'
        + "".join(f"<Item><PresetID>{text}</PresetID></Item>" for text in ("0", "256", "Gate", "255"))
        + "</PresetList>"
    )
    assert found.presets == (Preset(255),)
    assert found.total == 1  # nobody waits for what was left out
    assert Quirk.PRESET_ID_FORM in found.quirks


def test_ctl10_a_sumnum_below_the_items_is_none() -> None:
    found = response('<SumNum>0</SumNum><PresetList Num="1"><Item><PresetID>3</PresetID></Item></PresetList>')
    assert (found.total, found.presets) == (None, (Preset(3),))
    assert Quirk.PRESET_COUNT_DIFFERS in found.quirks
    assert response("<SumNum>0</SumNum>").total == 0


@pytest.mark.parametrize(
    ("edition", "params"),
    [
        (Edition.V2_0, ""),
        (Edition.V3_0, "<PTZCmdParams>\r\n<PresetName>Gate</PresetName>\r\n</PTZCmdParams>\r\n"),
    ],
)
def test_a2312_ptz_control_bytes_by_edition(edition: Edition, params: str) -> None:
    data = write_ptz_control(12, CHANNEL, "A50F008100010036", Charset.GB2312, edition, preset_name="Gate")
    assert (
        data
        == (
            '<?xml version="1.0" encoding="GB2312"?>\r\n<Control>\r\n<CmdType>DeviceControl</CmdType>\r\n'
            f"<SN>12</SN>\r\n<DeviceID>{CHANNEL}</DeviceID>\r\n<PTZCmd>A50F008100010036</PTZCmd>\r\n{params}</Control>\r\n"
        ).encode()
    )
