"""A device played by sipp, which none of us wrote: digest REGISTER, keepalives, and a catalogue in many messages."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

from tests.support.gateway import DEADLINE_SCALE

_MAX_KEYWORDS = 90

_HEAD = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<scenario name="{name}">\n'

_REGISTER = """
  <send retrans="500"><![CDATA[
REGISTER sip:{server}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: <sip:{device}@3402000000>;tag=[call_number]
To: <sip:{device}@3402000000>
Call-ID: [call_id]
CSeq: {cseq} REGISTER
Contact: <sip:{device}@[local_ip]:[local_port]>
Max-Forwards: 70
{authorization}User-Agent: sipp
Expires: 3600
Content-Length: 0

]]></send>
  <recv response="{status}"{auth}></recv>
"""

_KEEPALIVE = """
  <send retrans="500"><![CDATA[
MESSAGE sip:{server}@3402000000 SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: <sip:{device}@3402000000>;tag=[call_number]
To: <sip:{server}@3402000000>
Call-ID: [call_id]
CSeq: {cseq} MESSAGE
Max-Forwards: 70
Content-Type: Application/MANSCDP+xml
Content-Length: [len]

<?xml version="1.0"?>
<Notify>
<CmdType>Keepalive</CmdType>
<SN>{number}</SN>
<DeviceID>{device}</DeviceID>
<Status>OK</Status>
</Notify>
]]></send>
  <recv response="200"></recv>
  <pause milliseconds="200"/>
"""

_ANSWER_QUERY = """
  <recv request="MESSAGE">
    <action>
      <ereg regexp="CmdType&gt;Catalog&lt;" search_in="body" assign_to="catalog"/>
      <ereg regexp="SN&gt;([0-9]+)&lt;" search_in="body" check_it="true" assign_to="whole,sn"/>
    </action>
  </recv>
  <send next="1" test="catalog"><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=ooc[call_number]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
  <nop next="2"/>
  <label id="1"/>
"""

_PAGE = """
  <send retrans="500"><![CDATA[
MESSAGE sip:{server}@3402000000 SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:{device}@3402000000>;tag=page
To: <sip:{server}@3402000000>
Call-ID: [call_id]
CSeq: {cseq} MESSAGE
Content-Type: Application/MANSCDP+xml
Content-Length: [len]

<Response><CmdType>Catalog</CmdType><SN>[$sn]</SN><DeviceID>{device}</DeviceID><SumNum>{total}</SumNum>{listed}</Response>
]]></send>
  <recv response="200"/>
"""

_ITEM = (
    "<Item><DeviceID>{id}</DeviceID><Name>Camera {number}</Name><Manufacturer>sipp</Manufacturer><Model>none</Model>"
    "<Owner>Owner</Owner><CivilCode>340200</CivilCode><Address>Address</Address><Parental>0</Parental>"
    "<ParentID>{parent}</ParentID><RegisterWay>1</RegisterWay><Secrecy>0</Secrecy><Status>ON</Status></Item>"
)


def register_scenario(server: str, device: str, password: str, keepalives: int) -> str:
    """REGISTER, 401, REGISTER with digest, 200, then keepalives."""
    auth = f"[authentication username={device} password={password}]\n"
    text = _HEAD.format(name="register")
    text += _REGISTER.format(
        server=server, device=device, cseq=1, authorization="", status=401, auth=' auth="true"'
    )
    text += _REGISTER.format(server=server, device=device, cseq=2, authorization=auth, status=200, auth="")
    for number in range(1, keepalives + 1):
        text += _KEEPALIVE.format(server=server, device=device, number=number, cseq=number + 2)
    return text + "</scenario>\n"


def catalogue_scenario(
    server: str, device: str, *, items: int, per_message: int, seed: int
) -> tuple[str, dict[str, str]]:
    """Answers every query with 200, and a catalogue query with pages out of order, some of them twice.

    Returns the scenario and the keywords that hold its lists: sipp takes no scenario over 64 KB and no more than
    a hundred keywords.
    """
    ids = [f"{device[:10]}132{device[13]}{number:06d}" for number in range(1, items + 1)]
    pages = [ids[first : first + per_message] for first in range(0, items, per_message)]
    order = list(range(len(pages)))
    random.Random(seed).shuffle(order)
    order[5:5] = order[:3]  # duplicates of pages that came already
    keywords = {}
    lists = []
    for number, page_ids in enumerate(pages):
        listed = "".join(_ITEM.format(id=one, number=int(one[-6:]), parent=device) for one in page_ids)
        lists.append(f'<DeviceList Num="{len(page_ids)}">{listed}</DeviceList>')
        if number < _MAX_KEYWORDS:
            keywords[f"page{number}"] = lists[number]
            lists[number] = f"[page{number}]"
    scenario = _HEAD.format(name="catalogue") + _ANSWER_QUERY
    for cseq, page in enumerate(order, 100):
        scenario += _PAGE.format(server=server, device=device, cseq=cseq, total=items, listed=lists[page])
    scenario += '  <label id="2"/>\n  <nop/>\n  <Reference variables="whole"/>\n</scenario>\n'
    return scenario, keywords


_SUBSCRIBED = """
  <recv request="SUBSCRIBE" optional="true" next="1">
    <action>
      <ereg regexp=".*" search_in="hdr" header="From:" assign_to="from"/>
      <ereg regexp=".*" search_in="hdr" header="Event:" assign_to="event"/>
      <ereg regexp="CmdType&gt;Alarm&lt;" search_in="body" check_it="true" assign_to="alarm"/>
    </action>
  </recv>
  <recv request="MESSAGE"></recv>
  <send next="2"><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=ooc[call_number]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
  <label id="1"/>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=ooc[call_number]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:{device}@[local_ip]:[local_port]>
Expires: 90
Content-Type: Application/MANSCDP+xml
Content-Length: [len]

<?xml version="1.0"?>
<Response><CmdType>Alarm</CmdType><SN>1</SN><DeviceID>{device}</DeviceID><Result>OK</Result></Response>
]]></send>
"""

_NOTIFY = """
  <send retrans="500"><![CDATA[
NOTIFY sip:{server}@3402000000 SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:{device}@3402000000>;tag=ooc[call_number]
To:[$from]
[last_Call-ID:]
CSeq: {cseq} NOTIFY
Contact: <sip:{device}@[local_ip]:[local_port]>
Event:[$event]
Subscription-State: {state}
Max-Forwards: 70
{type}Content-Length: [len]

{body}]]></send>
  <recv response="{status}"></recv>
"""


def alarm_scenario(server: str, device: str, alarm: str) -> str:
    """Grants an alarm subscription as the samples of 2016 do, notifies `alarm` within its dialog, and ends it."""
    text = _HEAD.format(name="alarm") + _SUBSCRIBED.format(device=device)
    for cseq, state, body in (
        (1, "active;expires=90;retry-after=0", alarm),
        (2, "terminated;reason=giveup", ""),
    ):
        text += _NOTIFY.format(
            server=server,
            device=device,
            cseq=cseq,
            state=state,
            body=body,
            status=200,
            type="Content-Type: Application/MANSCDP+xml\n" if body else "",
        )
    return text + '  <label id="2"/>\n  <nop/>\n  <Reference variables="alarm"/>\n</scenario>\n'


def run_sipp(
    directory: Path,
    server: str,
    *,
    transport: str,
    register: str,
    catalogue: tuple[str, dict[str, str]],
    local_port: int,
    limit_s: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Runs sipp once to the end of the register scenario; queries of the platform go to the other scenario."""
    (directory / "register.xml").write_text(register)
    (directory / "catalogue.xml").write_text(catalogue[0])
    keywords = [part for name, value in catalogue[1].items() for part in ("-key", name, value)]
    started = time.monotonic()
    done = subprocess.run(
        [
            "sipp", server, "-i", "127.0.0.1", "-p", str(local_port), "-t", transport, "-m", "1", "-r", "1",
            "-sf", str(directory / "register.xml"), "-oocsf", str(directory / "catalogue.xml"),
            *keywords, "-nostdin", "-trace_err", "-error_file", str(directory / "sipp-errors.log"),
            "-timeout", f"{limit_s:.0f}s",
        ],
        capture_output=True, text=True, cwd=directory, check=False, timeout=limit_s * DEADLINE_SCALE + 20,
    )  # fmt: skip
    assert time.monotonic() - started < limit_s * DEADLINE_SCALE + 20
    return done
