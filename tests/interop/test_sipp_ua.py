"""sipp, which none of us wrote, at the other end of the user agent: UAC for MESSAGE and OPTIONS, UAS for a call."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path as FilePath

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.path import Path
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import AgentConfig, Target
from tests.support.sip_peer import SCALE, until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("sipp") is None, reason="sipp (Debian package sip-tester) is not installed"
    ),
]

GATEWAY = "34020000002000000001"
DEVICE = "34020000001320000001"
DOMAIN = "3402000000"

_HEAD = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<scenario name="x">\n'

_UAC_SEND = """
  <send retrans="500"><![CDATA[
{method} sip:{gateway}@{domain} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: <sip:{device}@{domain}>;tag=[call_number]
To: <sip:{gateway}@{domain}>
Call-ID: {method}///[call_id]
CSeq: 1 {method}
Max-Forwards: 70
{type}Content-Length: [len]

{body}]]></send>
  <recv response="200">
    <action>
      <ereg regexp=";rport=[0-9]+" search_in="hdr" header="Via:" check_it="true" assign_to="rport{method}"/>
      <ereg regexp=";tag=[0-9a-f]+" search_in="hdr" header="To:" check_it="true" assign_to="tag{method}"/>
    </action>
  </recv>
  <Reference variables="rport{method},tag{method}"/>
"""

_UAS_CALL = """
  <recv request="INVITE">
    <action>
      <ereg regexp="{device}:0200000001,{gateway}:0" search_in="hdr" header="Subject:" check_it="true" assign_to="s"/>
      <ereg regexp="sip:{gateway}@127.0.0.1:[0-9]+" search_in="hdr" header="Contact:" check_it="true" assign_to="c"/>
    </action>
  </recv>
  <Reference variables="s,c"/>
  <send><![CDATA[
SIP/2.0 100 Trying
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
  <send retrans="500"><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=sipp[call_number]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:{device}@[local_ip]:[local_port]>
Content-Type: application/sdp
Content-Length: [len]

v=0
o={device} 0 0 IN IP4 [local_ip]
s=Play
c=IN IP4 [local_ip]
t=0 0
m=video 30000 RTP/AVP 96
a=sendonly
a=rtpmap:96 PS/90000
y=0200000001
]]></send>
  <recv request="ACK"></recv>
  <recv request="INFO"></recv>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
  <recv request="BYE"></recv>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
"""

_UAS_RINGS = """
  <recv request="INVITE"></recv>
  <send><![CDATA[
SIP/2.0 180 Ringing
[last_Via:]
[last_From:]
[last_To:];tag=sipp[call_number]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
  <recv request="CANCEL"></recv>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=sipp[call_number]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
  <send retrans="500"><![CDATA[
SIP/2.0 487 Request Terminated
[last_Via:]
[last_From:]
[last_To:];tag=sipp[call_number]
[last_Call-ID:]
CSeq: 1 INVITE
Content-Length: 0

]]></send>
  <recv request="ACK"></recv>
"""


def scenario(directory: FilePath, steps: str) -> FilePath:
    """A scenario file. CDATA of sipp needs the lines as they are."""
    file = directory / "scenario.xml"
    file.write_text(_HEAD + steps + "</scenario>\n", encoding="latin-1")
    return file


class Gateway:
    """An agent on real sockets to which everybody is known."""

    def __init__(self) -> None:
        self.transports = Transports()
        self.agent = UserAgent(
            AgentConfig(id=GATEWAY, domain=DOMAIN, user_agent="gb28181gw"), Endpoint(), self.transports
        )
        self.agent.use_policy(is_known=lambda path, user: True, is_verified=lambda path: True)
        self.port = 0


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    made.port = await made.transports.listen("127.0.0.1", 0)
    yield made
    await made.agent.close()
    await made.transports.close()


async def run_sipp(file: FilePath, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        "sipp",
        *arguments,
        "-sf",
        str(file),
        "-i",
        "127.0.0.1",
        "-nostdin",
        "-timeout",
        "30",
        "-timeout_error",
        cwd=file.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def succeeded(sipp: asyncio.subprocess.Process) -> None:
    output, _ = await asyncio.wait_for(sipp.communicate(), 40 * SCALE)
    assert sipp.returncode == 0, output.decode("latin-1")[-3000:]


async def listening(gateway: Gateway) -> tuple[int, Target]:
    """A port for sipp, and how the gateway reaches it."""
    spare = await gateway.transports.add_udp("127.0.0.1")
    port = spare.port
    await gateway.transports.remove_udp(spare)
    path = Path("udp", "127.0.0.1", port, "127.0.0.1", gateway.port)
    return port, Target(path=path, user=DEVICE, domain=DOMAIN)


async def is_up(port: int) -> None:
    def bound() -> bool:
        entry = f":{port:04X} "
        return entry in FilePath("/proc/net/udp").read_text(encoding="ascii")

    await until(bound, "sipp to listen", 10)


@pytest.mark.parametrize("transport", ["u1", "t1"])
async def test_sipp_sends_messages_and_options(gateway: Gateway, tmp_path: FilePath, transport: str) -> None:
    got: list[tuple[str, bytes]] = []

    def message(incoming: Incoming) -> None:
        got.append((incoming.from_user, incoming.request.body.strip()))
        incoming.respond(200)

    gateway.agent.on_request("MESSAGE", message)
    values = {"gateway": GATEWAY, "device": DEVICE, "domain": DOMAIN}
    body = "<Notify><CmdType>Keepalive</CmdType></Notify>\n"
    steps = _UAC_SEND.format(
        method="MESSAGE", type="Content-Type: Application/MANSCDP+xml\n", body=body, **values
    ) + _UAC_SEND.format(method="OPTIONS", type="", body="", **values)
    sipp = await run_sipp(
        scenario(tmp_path, steps), f"127.0.0.1:{gateway.port}", "-t", transport, "-m", "20", "-r", "100"
    )
    await succeeded(sipp)
    assert got == [(DEVICE, body.strip().encode())] * 20


async def test_sipp_answers_a_call_and_sees_ack_info_and_bye(gateway: Gateway, tmp_path: FilePath) -> None:
    port, target = await listening(gateway)
    steps = _UAS_CALL.format(device=DEVICE, gateway=GATEWAY)
    sipp = await run_sipp(scenario(tmp_path, steps), "-t", "u1", "-m", "1", "-p", str(port))
    await is_up(port)
    answer = await gateway.agent.invite(
        target, sdp=b"v=0\r\ns=Play\r\ny=0200000001\r\n", subject=f"{DEVICE}:0200000001,{GATEWAY}:0"
    )
    assert b"y=0200000001" in answer.sdp
    gateway.agent.ack(answer.dialog)
    info = await gateway.agent.send_in_dialog(
        answer.dialog, "INFO", body=b"PLAY RTSP/1.0\r\n", content_type="Application/MANSRTSP"
    )
    assert info.status == 200
    assert (await gateway.agent.send_in_dialog(answer.dialog, "BYE")).status == 200
    await succeeded(sipp)


async def test_f05_sipp_that_only_rings_is_cancelled(gateway: Gateway, tmp_path: FilePath) -> None:
    port, target = await listening(gateway)
    sipp = await run_sipp(scenario(tmp_path, _UAS_RINGS), "-t", "u1", "-m", "1", "-p", str(port))
    await is_up(port)
    with pytest.raises(GatewayError) as caught:
        await gateway.agent.invite(target, sdp=b"v=0\r\n", subject="", timeout_s=0.5 * SCALE)
    assert caught.value.code == "gb.sip.no_answer"
    await succeeded(sipp)
