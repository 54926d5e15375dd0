"""Requests of ours outside calls: how they look, and every way in which they end."""

from __future__ import annotations

import asyncio
import re

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.exceptions import LocalProtocolError
from gb28181gw.sip.message import Request, Response
from gb28181gw.sip.path import Path
from gb28181gw.ua.models import Target
from tests.support.sip_agent import DEVICE, GATEWAY, PEER, TARGET, Line
from tests.support.sip_peer import until

TCP = Path("tcp", "192.0.2.50", 40000, "192.0.2.1", 5060, 3)


async def ask(
    line: Line, method: str = "MESSAGE", target: Target = TARGET, **more: object
) -> tuple[asyncio.Task[Response], Request]:
    task = asyncio.create_task(line.agent.request(target, method, **more))  # type: ignore[arg-type]
    return task, await line.next_request(method)


async def finish(task: asyncio.Task[Response]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_message_has_the_headers_of_the_standard() -> None:
    line = Line()
    task, sent = await ask(
        line, body=b"<Query/>", content_type="Application/MANSCDP+xml", headers=(("X-A", "b"),)
    )
    assert sent.uri == f"sip:{DEVICE}@192.0.2.50:5060"
    assert re.fullmatch(rf"<sip:{GATEWAY}@3402000000>;tag=[0-9a-f]{{16,}}", sent.headers.get("From") or "")
    assert sent.headers.get("To") == f"<sip:{DEVICE}@3402000000>"  # XML-22: no tag
    assert re.fullmatch(r"[0-9a-f]{32,}", sent.call_id)  # 128 bits
    assert str(sent.cseq) == "1 MESSAGE"
    assert sent.headers.get("Max-Forwards") == "70"
    assert sent.headers.get("User-Agent") == "gw/1"
    assert sent.headers.get("Content-Type") == "Application/MANSCDP+xml"
    assert sent.headers.get("X-A") == "b"
    assert "Contact" not in sent.headers  # RFC 3428
    assert sent.via.sent_by == "192.0.2.1:5062" and sent.via.rport == ""
    assert sent.body == b"<Query/>"
    line.answer(sent, 200)
    assert (await task).status == 200


async def test_xml22_requests_outside_dialogs_carry_no_to_tag() -> None:
    line = Line()
    for method in ("MESSAGE", "REGISTER", "OPTIONS", "SUBSCRIBE", "NOTIFY"):
        task, sent = await ask(line, method)
        assert sent.to.tag == ""
        await finish(task)


async def test_xml21_s04_call_ids_tags_and_branches_never_repeat() -> None:
    line = Line(t1=5.0)  # nothing is repeated meanwhile, however busy the machine is
    seen: set[str] = set()
    for _ in range(50):
        task, sent = await ask(line)
        seen |= {sent.call_id, sent.from_.tag, sent.via.branch}
        await finish(task)
    assert len(seen) == 150


async def test_net01_advertised_host_is_in_via_and_contact() -> None:
    line = Line(advertise="203.0.113.9")
    task, sent = await ask(line, "OPTIONS")
    assert sent.via.sent_by == "203.0.113.9:5062"
    assert sent.headers.get("Contact") == f"<sip:{GATEWAY}@203.0.113.9:5062>"
    await finish(task)


async def test_ipv6_addresses_stand_in_brackets() -> None:
    line = Line()
    path = Path("udp", "2001:db8::2", 5060, "2001:db8::1", 5060)
    task, sent = await ask(line, "OPTIONS", Target(path=path, user=DEVICE, domain=""))
    assert sent.via.sent_by == "[2001:db8::1]:5060"
    assert sent.headers.get("Contact") == f"<sip:{GATEWAY}@[2001:db8::1]:5060>"
    assert (
        sent.uri
        == sent.headers.get(
            "To",
        )[1:-1]
        == f"sip:{DEVICE}@[2001:db8::2]:5060"
    )  # type: ignore[index]
    await finish(task)


async def test_registration_keeps_its_call_id_and_may_be_anybodys() -> None:
    line = Line()
    target = Target(path=PEER, user=DEVICE, domain="3402000000")
    task, sent = await ask(
        line,
        "REGISTER",
        target,
        from_user=DEVICE,
        from_domain="3402000001",
        request_uri=f"sip:{GATEWAY}@3402000000",
        call_id="mine",
        cseq=7,
        headers=(("Contact", "<sip:me@10.0.0.1>"), ("Expires", "3600"), ("User-Agent", "cam")),
    )
    assert sent.uri == f"sip:{GATEWAY}@3402000000"
    assert (sent.from_.uri.user, sent.from_.uri.host, sent.to.uri.user) == (DEVICE, "3402000001", DEVICE)
    assert (sent.call_id, str(sent.cseq)) == ("mine", "7 REGISTER")
    assert sent.headers.get_all("Contact") == ["<sip:me@10.0.0.1>"]
    assert sent.headers.get_all("User-Agent") == ["cam"]
    assert sent.headers.get("X-GB-Ver") == "3.0"
    await finish(task)


@pytest.mark.parametrize("status", [200, 302, 403, 481, 503, 603])
async def test_final_response_of_any_status_is_returned(status: int) -> None:
    line = Line()
    task, sent = await ask(line)
    line.answer(sent, 100)
    line.answer(sent, status)
    assert (await task).status == status


@pytest.mark.parametrize("method", ["MESSAGE", "BYE", "OPTIONS"])
@pytest.mark.parametrize(("status", "header"), [(401, "WWW-Authenticate"), (407, "Proxy-Authenticate")])
async def test_s07_challenge_of_a_device_is_never_answered(method: str, status: int, header: str) -> None:
    line = Line(t1=5.0)  # nothing is repeated meanwhile, however busy the machine is
    task, sent = await ask(line, method)
    line.answer(sent, status, headers=((header, 'Digest realm="3402000000", nonce="n", qop="auth"'),))
    assert (await task).status == status
    assert line.messages() == []
    assert "Authorization" not in sent.headers and "Proxy-Authorization" not in sent.headers


async def test_no_answer_within_the_callers_time_ends_the_transaction() -> None:
    line = Line()
    with pytest.raises(GatewayError) as caught:
        await line.agent.request(TARGET, "MESSAGE", timeout_s=0.05)
    assert caught.value.code == "gb.sip.no_answer"
    assert "192.0.2.50:5060" in caught.value.detail and "MESSAGE" in caught.value.detail
    assert line.endpoint.gauges()["client"] == 0


async def test_no_answer_within_timer_f_and_the_request_was_repeated() -> None:
    line = Line(t1=0.005)
    with pytest.raises(GatewayError) as caught:
        await line.agent.request(TARGET, "MESSAGE")
    assert caught.value.code == "gb.sip.no_answer"
    assert "did not answer MESSAGE" in caught.value.detail
    assert len(line.messages()) > 5


async def test_connection_that_is_gone_fails_at_once() -> None:
    line = Line()
    line.wire.gone.add(TCP.connection_id)
    with pytest.raises(GatewayError) as caught:
        await line.agent.request(Target(path=TCP, user=DEVICE, domain="d"), "MESSAGE")
    assert caught.value.code == "gb.sip.path_lost"
    assert set(line.endpoint.gauges().values()) - {1} <= {0}


async def test_connection_that_ends_fails_what_waits_on_it() -> None:
    line = Line()
    closed: list[Path] = []
    line.agent.on_path_closed = closed.append
    task, _ = await ask(line, target=Target(path=TCP, user=DEVICE, domain="d"))
    line.agent.on_closed(TCP)
    with pytest.raises(GatewayError) as caught:
        await task
    assert caught.value.code == "gb.sip.path_lost"
    assert closed == [TCP]


async def test_cancelled_caller_leaves_no_transaction() -> None:
    line = Line()
    task, sent = await ask(line)
    await finish(task)
    line.answer(sent, 200)
    assert line.endpoint.gauges()["client"] == 0


async def test_s04_response_from_elsewhere_is_not_the_answer() -> None:
    line = Line()
    task, sent = await ask(line)
    line.answer(sent, 403, path=PEER._replace(remote_host="198.51.100.9"))
    assert not task.done()
    line.answer(sent, 200)
    assert (await task).status == 200


async def test_response_that_sip_discards_is_counted() -> None:
    line = Line()
    task, sent = await ask(line)
    twice = Response.reply_to(sent, 200)
    twice.headers.add("Via", "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx")
    line.receive(twice.to_bytes())
    assert line.agent.counters.responses_dropped == 1 and not task.done()
    await finish(task)


@pytest.mark.parametrize("method", ["INVITE", "ACK", "CANCEL"])
async def test_methods_with_a_life_of_their_own_are_refused(method: str) -> None:
    line = Line()
    with pytest.raises(LocalProtocolError):
        await line.agent.request(TARGET, method)
    with pytest.raises(LocalProtocolError):
        await line.agent.send_in_dialog(Dialog.from_record(RECORD), method)


RECORD: dict[str, object] = {
    "call_id": "c9",
    "local_tag": "ours",
    "remote_tag": "dev",
    "local_uri": f"sip:{GATEWAY}@3402000000",
    "remote_uri": f"sip:{DEVICE}@3402000000",
    "remote_target": f"sip:{DEVICE}@10.1.1.1:5060",
    "local_cseq": 4,
    "invite_cseq": 1,
    "route_set": ["<sip:p1;lr>"],
    "transport": "udp",
    "remote_host": "192.0.2.50",
    "remote_port": 5060,
    "local_host": "192.0.2.1",
    "local_port": 5062,
    "connection_id": 0,
}


async def test_ses02_dialog_restored_after_a_restart_says_bye() -> None:
    line = Line()
    dialog = Dialog.from_record(RECORD)
    task = asyncio.create_task(line.agent.send_in_dialog(dialog, "BYE"))
    sent = await line.next_request("BYE")
    assert sent.uri == f"sip:{DEVICE}@10.1.1.1:5060"
    assert (sent.call_id, sent.from_.tag, sent.to.tag, str(sent.cseq)) == ("c9", "ours", "dev", "5 BYE")
    assert sent.headers.get_all("Route") == ["<sip:p1;lr>"]
    line.answer(sent, 200)
    assert (await task).status == 200


async def test_reg17_request_within_a_dialog_follows_the_peer_to_its_new_path() -> None:
    line = Line()
    moved = PEER._replace(remote_port=7777)
    task = asyncio.create_task(
        line.agent.send_in_dialog(
            Dialog.from_record(RECORD), "INFO", body=b"PLAY", content_type="Application/MANSRTSP", path=moved
        )
    )
    await until(lambda: line.wire.sent, "the INFO")
    assert line.wire.sent[0][0] == moved
    sent = await line.next_request("INFO")
    assert (sent.body, sent.headers.get("Content-Type")) == (b"PLAY", "Application/MANSRTSP")
    line.answer(sent, 200, path=moved)
    assert (await task).status == 200


async def test_close_ends_what_waits_and_refuses_more() -> None:
    line = Line()
    task, _ = await ask(line)
    call = asyncio.create_task(line.agent.invite(TARGET, sdp=b"v=0\r\n", subject="a:0,b:0"))
    await line.next_request("INVITE")
    await line.agent.close()
    for waiting in (task, call):
        with pytest.raises(GatewayError) as caught:
            await waiting
        assert caught.value.code == "gb.route.shutting_down"
    with pytest.raises(GatewayError):
        await line.agent.request(TARGET, "MESSAGE")
    with pytest.raises(GatewayError):
        await line.agent.invite(TARGET, sdp=b"", subject="")
