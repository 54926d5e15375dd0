from __future__ import annotations

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.manscdp.keepalive import Keepalive, read_keepalive, sniff_keepalive, write_keepalive
from gb28181gw.gb.manscdp.xml import parse
from tests.support.gb import CHANNEL, DEVICE, body

PLAIN = Keepalive(sn=71, device_id=DEVICE)


def text(
    tail: str = "<Status>OK</Status>", declaration: str = "<?xml version='1.0' encoding='GB2312'?>\r\n"
) -> bytes:
    return (
        f"{declaration}<Notify>\n<CmdType>Keepalive</CmdType>\n<SN>71</SN>\n<DeviceID>{DEVICE}</DeviceID>\n{tail}\n</Notify>\n"
    ).encode()


@pytest.mark.parametrize(
    "data",
    [
        text(),
        text(declaration=""),
        text("<Status>OK</Status>\n<Info>\n</Info>"),
        text("<Status>OK</Status><Info/>"),
        text().replace(b"\n", b""),
        write_keepalive(PLAIN, Charset.GB18030),
    ],
)
def test_the_fast_path_agrees_with_the_parser(data: bytes) -> None:
    fast = sniff_keepalive(data)
    slow = read_keepalive(parse(data))
    assert fast == PLAIN
    assert (slow.sn, slow.device_id, slow.status, slow.fault_ids) == (71, DEVICE, "OK", ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        text("<Status>OK</Status><Info><DeviceID>34020000001320000007</DeviceID></Info>"),
        text("<Status>OK</Status>") + b"\0",
        text().replace(b"Keepalive", b"keepalive"),
        text().replace(b"<SN>71</SN>", b""),
        text().replace(b"Notify", b"notify"),
        text() + text(),
        text(declaration="<!DOCTYPE x>"),
    ],
)
def test_the_fast_path_leaves_everything_else_to_the_parser(data: bytes) -> None:
    assert sniff_keepalive(data) is None


def test_s05_the_fast_path_never_goes_back() -> None:
    blanks = b" " * 500_000
    assert sniff_keepalive(blanks) is None
    assert sniff_keepalive(text().replace(b"\n", blanks) + b"x") is None


def test_faults_are_read_from_any_number_of_groups() -> None:
    data = body(
        f"<Status>ERROR</Status><Info><DeviceID>{CHANNEL}</DeviceID><DeviceID> a1 </DeviceID></Info>"
        "<Info><DeviceID>b2</DeviceID><Other/></Info>",
        root="Notify",
        cmd_type="Keepalive",
    )
    message = read_keepalive(parse(data))
    assert message.status == "ERROR"
    assert message.fault_ids == (CHANNEL, "a1", "b2")


def test_a_missing_status_is_ok() -> None:
    assert read_keepalive(parse(body("", root="Notify", cmd_type="Keepalive"))).status == "OK"


def test_written_in_the_order_of_the_standard() -> None:
    data = write_keepalive(Keepalive(sn=71, device_id=DEVICE, fault_ids=(CHANNEL,)), Charset.GB2312)
    assert (
        data
        == (
            '<?xml version="1.0" encoding="GB2312"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>71</SN>\r\n'
            f"<DeviceID>{DEVICE}</DeviceID>\r\n<Status>OK</Status>\r\n<Info>\r\n<DeviceID>{CHANNEL}</DeviceID>\r\n</Info>\r\n"
            "</Notify>\r\n"
        ).encode()
    )
