"""sipp as an upper platform that none of us wrote: digest, catalogue query, INVITE with media, subscription."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess, free_port, simulated_devices
from tests.support.sim_platform import ssrc_of, udp_sink
from tests.support.sip_peer import SCALE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("sipp") is None, reason="sipp (Debian package sip-tester) is not installed"
    ),
]

UPPER, DOMAIN = "34020000002000000001", "3402000000"
LOCAL_ID, LOCAL_DOMAIN = "34020100002000000001", "3402010000"
NVR, CAMERA = "34020000001180000001", "34020000001320000001"
PASSWORD = "sipp-secret"

_HEAD = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<scenario name="x">\n'
_ECHO = """[last_Via:]
[last_From:]
{to}
[last_Call-ID:]
[last_CSeq:]
{more}Content-Length: 0

]]></send>
"""


def reply(line: str, *, tag: str = "", more: str = "", attributes: str = "") -> str:
    to = f"[last_To:];tag={tag}" if tag else "[last_To:]"
    return f"<send{attributes}><![CDATA[\nSIP/2.0 {line}\n" + _ECHO.format(to=to, more=more)


REGISTRAR = (
    '<recv request="REGISTER"></recv>'
    + reply(
        "401 Unauthorized",
        tag="r1",
        more=f'WWW-Authenticate: Digest realm="{DOMAIN}", nonce="5a1f", algorithm=MD5, qop="auth"\n',
    )
    + f"""<recv request="REGISTER"><action>
    <verifyauth assign_to="right" username="{LOCAL_ID}" password="{PASSWORD}"/>
    <ereg regexp="86400" search_in="hdr" header="Expires:" check_it="true" assign_to="expires"/>
    <ereg regexp="3.0" search_in="hdr" header="X-GB-Ver:" check_it="true" assign_to="version"/>
  </action></recv>
  <Reference variables="expires,version"/>
  <nop test="right" next="good"></nop>
"""
    + reply("403 Forbidden", tag="r2", attributes=' next="end"')
    + '<label id="good"/>'
    + reply("200 OK", tag="r2", more="Expires: 86400\n")
    + '<label id="end"/>'
)


def request(method: str, user: str, *, cseq: int, to_tag: str = "", headers: str = "", body: str = "") -> str:
    """A request of the platform. CDATA of sipp needs the lines as they are."""
    to = f"<sip:{user}@{LOCAL_DOMAIN}>{to_tag}"
    branch = "[branch]" if method != "ACK" else "[branch-2]"
    return f"""<send{' retrans="500"' if method != "ACK" else ""}><![CDATA[
{method} sip:{user}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch={branch}
From: <sip:{UPPER}@{DOMAIN}>;tag=sipp[call_number]
To: {to}
Call-ID: [call_id]
CSeq: {cseq} {method}
Contact: <sip:{UPPER}@[local_ip]:[local_port]>
Max-Forwards: 70
{headers}Content-Length: [len]

{body}]]></send>
"""


def query(cmd_type: str) -> str:
    return f"""<?xml version="1.0" encoding="GB2312"?>
<Query>
<CmdType>{cmd_type}</CmdType>
<SN>1001</SN>
<DeviceID>{LOCAL_ID}</DeviceID>
</Query>
"""


MANSCDP = "Content-Type: Application/MANSCDP+xml\n"
ASK_CATALOGUE = (
    request("MESSAGE", LOCAL_ID, cseq=1, headers=MANSCDP, body=query("Catalog"))
    + '<recv response="200"></recv><pause milliseconds="2000"/>'
)
TAKE_ANSWERS = '<recv request="MESSAGE"></recv>' + reply("200 OK", tag="o[call_number]")


def play(port: int) -> str:
    offer = f"""v=0
o={UPPER} 0 0 IN IP4 127.0.0.1
s=Play
c=IN IP4 127.0.0.1
t=0 0
m=video {port} RTP/AVP 96
a=recvonly
a=rtpmap:96 PS/90000
y=0200009876
"""
    subject = f"Subject: {CAMERA}:0200009876,{UPPER}:0\nContent-Type: application/sdp\n"
    return (
        request("INVITE", CAMERA, cseq=1, headers=subject, body=offer)
        + """<recv response="100" optional="true"></recv>
  <recv response="200" rtd="true"><action>
    <ereg regexp="y=0200009876" search_in="body" check_it="true" assign_to="y"/>
    <ereg regexp="a=sendonly" search_in="body" check_it="true" assign_to="dir"/>
    <ereg regexp=";tag=[0-9a-f]+" search_in="hdr" header="To:" check_it="true" assign_to="tag"/>
  </action></recv>
  <Reference variables="y,dir"/>
"""
        + request("ACK", CAMERA, cseq=1, to_tag="[$tag]")
        + '<pause milliseconds="3000"/>'
        + request("BYE", CAMERA, cseq=2, to_tag="[$tag]")
        + '<recv response="200"></recv>'
    )


SUBSCRIBE = (
    request(
        "SUBSCRIBE",
        LOCAL_ID,
        cseq=1,
        headers=f"Event: Catalog;id=77\nExpires: 300\n{MANSCDP}",
        body=query("Catalog"),
    )
    + """<recv response="200"><action>
    <ereg regexp="300" search_in="hdr" header="Expires:" check_it="true" assign_to="expires"/>
  </action></recv>
  <recv request="NOTIFY"><action>
    <ereg regexp="Catalog;id=77" search_in="hdr" header="Event:" check_it="true" assign_to="event"/>
    <ereg regexp="active" search_in="hdr" header="Subscription-State:" check_it="true" assign_to="state"/>
    <ereg regexp="OFF" search_in="body" check_it="true" assign_to="off"/>
  </action></recv>
  <Reference variables="expires,event,state,off"/>
"""
    + reply("200 OK")
)


class Sipp:
    """sipp on one port, again and again: one scenario after the other."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self._runs = 0

    async def start(self, steps: str, *arguments: str) -> asyncio.subprocess.Process:
        self._runs += 1
        file = self.directory / f"scenario{self._runs}.xml"
        file.write_text(f"{_HEAD}{steps}</scenario>\n", encoding="latin-1")
        return await asyncio.create_subprocess_exec(
            "sipp", *arguments, "-sf", str(file), "-i", "127.0.0.1", "-p", str(self.port), "-t", "u1",
            "-m", "1", "-nostdin", "-timeout", "40", "-timeout_error",
            cwd=self.directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    @staticmethod
    async def succeeded(process: asyncio.subprocess.Process) -> None:
        output, _ = await asyncio.wait_for(process.communicate(), 60 * SCALE)
        assert process.returncode == 0, output.decode("latin-1")[-3000:]


async def test_cs02_sipp_registers_us_asks_plays_and_subscribes(tmp_path: Path) -> None:
    gateway = GatewayProcess(
        tmp_path, sip={"id": LOCAL_ID, "domain": LOCAL_DOMAIN}, media={"plane": "python", "idle_stop_s": 1}
    )
    sipp = Sipp(tmp_path, free_port(socket.SOCK_DGRAM))
    await asyncio.to_thread(gateway.start)
    try:
        options = ("--server-id", LOCAL_ID, "--domain", LOCAL_DOMAIN, "--id", NVR, "--channels", "1")
        with simulated_devices(gateway, *options):
            await asyncio.to_thread(gateway.wait_online, NVR, 1)
            registrar = await sipp.start(REGISTRAR)
            body = {
                "id": UPPER, "domain": DOMAIN, "host": "127.0.0.1", "port": sipp.port, "password": PASSWORD
            }  # fmt: skip
            await asyncio.to_thread(gateway.post, "/uppers", body)
            await sipp.succeeded(registrar)
            await asyncio.to_thread(gateway.wait_event, "upper.registered")
            shared = [{"device_id": NVR, "channel_id": CAMERA}]
            await asyncio.to_thread(
                gateway.api.put, f"/api/v1/uppers/{UPPER}/channels", json={"items": shared}
            )
            target = f"127.0.0.1:{gateway.sip_port}"

            answers = tmp_path / "answers.xml"
            answers.write_text(f"{_HEAD}{TAKE_ANSWERS}</scenario>\n", encoding="latin-1")
            log = tmp_path / "messages.log"
            asking = await sipp.start(
                ASK_CATALOGUE, target, "-oocsf", str(answers), "-trace_msg", "-message_file", str(log)
            )
            await sipp.succeeded(asking)
            text = log.read_text(encoding="latin-1")
            assert re.search(r"<SN>1001</SN>\s*<DeviceID>" + LOCAL_ID, text)
            assert "<SumNum>1</SumNum>" in text and f"<DeviceID>{CAMERA}</DeviceID>" in text

            async with udp_sink() as sink:
                await sipp.succeeded(await sipp.start(play(sink.port), target))
                assert len(sink.packets) > 50
                assert {ssrc_of(packet) for packet in sink.packets} == {200009876}
            await asyncio.to_thread(gateway.wait_event, "upper.stream_stopped", 20, reason="upper_bye")

            subscribing = await sipp.start(SUBSCRIBE, target)
            await asyncio.to_thread(gateway.wait_event, "upper.subscribed")
        # The device unregisters, so its channel goes off.
        await sipp.succeeded(subscribing)
    finally:
        await asyncio.to_thread(gateway.stop)
