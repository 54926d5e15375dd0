"""Catalogue pages and other bodies for the tests of `gb`."""

from __future__ import annotations

from collections.abc import Sequence

DEVICE = "34020000001180000001"
CHANNEL = "34020000001320000007"
DECLARATION = '<?xml version="1.0" encoding="GB2312"?>\r\n'


def item_text(index: int, name: str = "东门摄像机") -> str:
    """One catalogue item as an NVR writes it."""
    return (
        "<Item>\r\n"
        f"<DeviceID>3402000000132{index:07d}</DeviceID>\r\n"
        f"<Name>{name}{index}</Name>\r\n"
        "<Manufacturer>Acme</Manufacturer>\r\n"
        "<Model>IPC-1</Model>\r\n"
        "<CivilCode>340200</CivilCode>\r\n"
        "<Address>合肥市东门</Address>\r\n"
        "<Parental>0</Parental>\r\n"
        f"<ParentID>{DEVICE}</ParentID>\r\n"
        "<RegisterWay>1</RegisterWay>\r\n"
        "<Secrecy>0</Secrecy>\r\n"
        "<Status>ON</Status>\r\n"
        "<Info>\r\n<PTZType>1</PTZType>\r\n</Info>\r\n"
        "</Item>\r\n"
    )


def page_text(items: Sequence[str] | None = None, *, declaration: str = DECLARATION, count: int = 10) -> str:
    """A catalogue answer; ten sound items unless others are given."""
    chosen = [item_text(index) for index in range(count)] if items is None else items
    return (
        f"{declaration}<Response>\r\n<CmdType>Catalog</CmdType>\r\n<SN>51</SN>\r\n<DeviceID>{DEVICE}</DeviceID>\r\n"
        f'<SumNum>{len(chosen)}</SumNum>\r\n<DeviceList Num="{len(chosen)}">\r\n'
        + "".join(chosen)
        + "</DeviceList>\r\n</Response>\r\n"
    )


def body(inner: str, *, root: str = "Response", cmd_type: str = "Catalog", sn: str = "7") -> bytes:
    """Any document with a sound head, UTF-8, declared so."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<{root}><CmdType>{cmd_type}</CmdType><SN>{sn}</SN><DeviceID>{DEVICE}</DeviceID>{inner}</{root}>"
    ).encode()
