from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.gb.manscdp.messages import (
    BroadcastNotify,
    BroadcastResponse,
    read,
    read_broadcast_response,
    write,
)
from gb28181gw.gb.manscdp.xml import parse
from tests.support.gb import body

SPEAKER = "34020000001370000001"
PLATFORM = "34020000002000000001"


def flat(data: bytes) -> str:
    return data.decode("gb18030").replace("\r\n", "")


def test_a255_notify_bytes_both_ways() -> None:
    message = BroadcastNotify(sn=74, source_id=PLATFORM, target_id=SPEAKER)
    data = write(message, Charset.GB2312)
    assert flat(data) == (
        '<?xml version="1.0" encoding="GB2312"?><Notify><CmdType>Broadcast</CmdType><SN>74</SN>'
        f"<SourceID>{PLATFORM}</SourceID><TargetID>{SPEAKER}</TargetID></Notify>"
    )
    assert read(parse(data)) == message


def test_a2611_response_bytes_both_ways() -> None:
    message = BroadcastResponse(sn=74, device_id=SPEAKER, ok=False, reason="busy")
    data = write(message, Charset.GB18030)
    assert flat(data) == (
        '<?xml version="1.0" encoding="GB18030"?><Response><CmdType>Broadcast</CmdType><SN>74</SN>'
        f"<DeviceID>{SPEAKER}</DeviceID><Result>ERROR</Result><Reason>busy</Reason></Response>"
    )
    assert read(parse(data)) == message


@pytest.mark.parametrize(
    ("inner", "ok", "device_id"),
    [
        ("<Result>ok</Result>", True, ""),
        (f"<TargetID>{SPEAKER}</TargetID><Result>OK</Result>", True, SPEAKER),
        ("", True, ""),
        ("<Result>Error</Result>", False, ""),
    ],
)
def test_a2611_answers_with_little_in_them(inner: str, ok: bool, device_id: str) -> None:
    data = f"<Response><CmdType>Broadcast</CmdType><SN>1</SN>{inner}</Response>".encode()
    answer = read_broadcast_response(parse(data))
    assert (answer.ok, answer.device_id) == (ok, device_id)


def test_a_notify_without_sn_is_not_written() -> None:
    with pytest.raises(GbLocalError):
        write(BroadcastNotify(sn=None, source_id=PLATFORM, target_id=SPEAKER), Charset.GB2312)


@given(st.text(max_size=40))
def test_any_target_is_read(text: str) -> None:
    escaped = "".join(f"&#{ord(c)};" for c in text if c.isalnum() and c.isascii())
    data = body(f"<TargetID>{escaped}</TargetID>", root="Notify", cmd_type="Broadcast")
    assert isinstance(read(parse(data)), BroadcastNotify)
