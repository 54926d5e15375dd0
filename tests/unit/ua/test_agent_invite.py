"""Calls of ours: every way in which an INVITE can end, and that none leaves the device streaming."""

from __future__ import annotations

import asyncio

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.sip.message import Request, Response
from gb28181gw.ua.models import Answer
from gb28181gw.ua.passage import USER
from tests.support.sip_agent import DEVICE, GATEWAY, PEER, TARGET, Line
from tests.support.sip_peer import until

SDP = b"v=0\r\ny=0200000001\r\n"


async def call(line: Line, *, timeout_s: float = 5.0, **more: object) -> tuple[asyncio.Task[Answer], Request]:
    task = asyncio.create_task(
        line.agent.invite(
            TARGET, sdp=SDP, subject=f"{DEVICE}:0200000001,{GATEWAY}:0", timeout_s=timeout_s, **more
        )  # type: ignore[arg-type]
    )
    return task, await line.next_request("INVITE")


async def established(line: Line) -> tuple[Answer, Request]:
    task, invite = await call(line)
    line.answer(invite, 200, body=SDP)
    answer = await task
    line.agent.ack(answer.dialog)
    return answer, invite


def requests(line: Line) -> list[Request]:
    return [message for message in line.messages() if isinstance(message, Request)]


async def test_invite_has_subject_contact_allow_and_sdp() -> None:
    line = Line()
    task, invite = await call(line, headers=(("X-B", "c"),))
    assert invite.headers.get("Subject") == f"{DEVICE}:0200000001,{GATEWAY}:0"
    assert invite.headers.get("Contact") == f"<sip:{GATEWAY}@192.0.2.1:5062>"
    assert set(invite.headers.get_all("Allow")) >= {
        "INVITE",
        "ACK",
        "INFO",
        "CANCEL",
        "BYE",
        "OPTIONS",
        "MESSAGE",
    }
    assert (invite.headers.get("Content-Type"), invite.body) == ("application/sdp", SDP)
    assert invite.headers.get("X-B") == "c"
    assert invite.to.tag == "" and invite.uri == f"sip:{DEVICE}@192.0.2.50:5060"
    line.answer(invite, 486)
    with pytest.raises(GatewayError):
        await task


async def test_answer_is_not_acknowledged_before_the_caller_says_so() -> None:
    line = Line()
    task, invite = await call(line)
    line.answer(invite, 100)
    line.answer(invite, 200, body=SDP)
    answer = await task
    line.answer(invite, 200, body=SDP)
    assert line.messages() == []
    assert (answer.sdp, answer.response.status) == (SDP, 200)
    dialog = answer.dialog
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == (invite.call_id, invite.from_.tag, "dev")
    line.agent.ack(dialog)
    (ack,) = requests(line)
    assert ack.method == "ACK" and str(ack.cseq) == "1 ACK"
    assert ack.via.branch != invite.via.branch
    assert ack.uri == f"sip:{DEVICE}@10.1.1.1:5060"


async def test_inv16_ack_goes_to_the_transport_address_and_again_for_each_2xx() -> None:
    line = Line()
    _, invite = await established(line)
    (first,) = line.wire.sent
    assert first[0] == PEER
    line.answer(invite, 200, body=SDP)
    line.answer(invite, 200, body=SDP)
    assert line.wire.sent == [first] * 3
    assert line.agent.counters.acks_repeated == 2


async def test_bye_after_the_call() -> None:
    line = Line()
    answer, _ = await established(line)
    line.messages()
    task = asyncio.create_task(line.agent.send_in_dialog(answer.dialog, "BYE"))
    bye = await line.next_request("BYE")
    assert (str(bye.cseq), bye.to.tag, bye.from_.tag) == ("2 BYE", "dev", answer.dialog.local_tag)
    line.answer(bye, 200)
    assert (await task).status == 200


@pytest.mark.parametrize("platform", [True, False])
async def test_r064_steering_says_to_platforms_whose_it_is_and_to_devices_nothing(platform: bool) -> None:
    line = Line()
    answer, _ = await established(line)
    line.messages()
    token = USER.set("0123456789abcdef")
    task = asyncio.create_task(line.agent.send_in_dialog(answer.dialog, "INFO", platform=platform))
    USER.reset(token)  # the task has its own copy
    info = await line.next_request("INFO")
    named = f"{line.agent.config.id}-0123456789abcdef" if platform else None
    assert info.headers.get("Monitor-User-Identity") == named
    line.answer(info, 200)
    assert (await task).status == 200


@pytest.mark.parametrize("status", [302, 401, 403, 404, 407, 480, 481, 486, 488, 500, 503, 603])
async def test_refusal_carries_the_status_and_is_acknowledged(status: int) -> None:
    line = Line()
    task, invite = await call(line)
    line.answer(invite, status, headers=(("WWW-Authenticate", 'Digest realm="r", nonce="n"'),))
    with pytest.raises(GatewayError) as caught:
        await task
    assert (caught.value.code, caught.value.sip_status) == ("gb.sip.rejected", status)
    assert str(status) in caught.value.detail
    sent = requests(line)
    assert [message.method for message in sent] == ["ACK"]  # S-07: and nothing with credentials
    assert sent[0].via.branch == invite.via.branch


async def test_f05_silence_ends_at_the_deadline_and_a_late_2xx_is_ended() -> None:
    line = Line(t1=0.5)
    task, invite = await call(line, timeout_s=0.05)
    with pytest.raises(GatewayError) as caught:
        await task
    assert caught.value.code == "gb.sip.no_answer"
    assert requests(line) == []  # CANCEL may not leave before a provisional response
    line.answer(invite, 200, body=SDP)
    ack, bye = requests(line)
    assert (ack.method, bye.method) == ("ACK", "BYE")
    assert (bye.to.tag, str(bye.cseq)) == ("dev", "2 BYE")
    assert bye.headers.get("User-Agent") == "gw/1"
    line.answer(invite, 200, body=SDP)
    assert [message.method for message in requests(line)] == ["ACK"]
    assert line.agent.counters.late_answers == 1
    await line.agent.close()


async def test_f05_only_100_ends_at_the_deadline_with_cancel() -> None:
    line = Line(t1=0.5)
    provisional: list[int] = []
    task, invite = await call(
        line, timeout_s=0.1, on_provisional=lambda response: provisional.append(response.status)
    )
    for _ in range(3):
        line.answer(invite, 100)
    line.answer(invite, 180)
    with pytest.raises(GatewayError, match=r"within 0\.1 s"):
        await task
    assert provisional == [100, 100, 100, 180]
    (cancel,) = requests(line)
    assert cancel.method == "CANCEL" and cancel.via.branch == invite.via.branch
    line.answer(cancel, 200)
    line.answer(invite, 487)
    (ack,) = requests(line)
    assert ack.method == "ACK"
    await line.agent.close()


async def test_f05_2xx_that_crosses_the_cancel_is_ended() -> None:
    line = Line(t1=0.5)
    task, invite = await call(line, timeout_s=0.05)
    line.answer(invite, 180)
    with pytest.raises(GatewayError):
        await task
    line.answer(invite, 200, body=SDP)
    assert [message.method for message in requests(line)] == ["CANCEL", "ACK", "BYE"]
    await line.agent.close()


async def test_cancelled_caller_cancels_the_call() -> None:
    line = Line(t1=0.5)
    task, invite = await call(line)
    line.answer(invite, 100)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [message.method for message in requests(line)] == ["CANCEL"]
    line.answer(invite, 487)
    assert [message.method for message in requests(line)] == ["ACK"]
    await line.agent.close()


async def test_caller_cancelled_in_the_moment_of_the_answer_leaves_no_stream() -> None:
    line = Line()
    task, invite = await call(line)
    line.answer(invite, 200, body=SDP)  # the task has not run yet
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [message.method for message in requests(line)] == ["ACK", "BYE"]
    await line.agent.close()


async def test_second_answer_of_a_fork_is_ended() -> None:
    line = Line()
    answer, invite = await established(line)
    line.messages()
    line.answer(invite, 200, tag="other", body=SDP)
    ack, bye = requests(line)
    assert (ack.method, ack.to.tag, bye.method, bye.to.tag) == ("ACK", "other", "BYE", "other")
    assert answer.dialog.remote_tag == "dev"
    await line.agent.close()


async def test_xml20_answer_without_via_is_the_answer() -> None:
    line = Line()
    task, invite = await call(line)
    response = Response.reply_to(invite, 200, to_tag="dev", body=SDP)
    response.headers.remove("Via")
    line.receive(response.to_bytes())
    assert (await task).sdp == SDP


async def test_answer_with_an_unreadable_contact_is_an_error_and_no_crash() -> None:
    line = Line()
    task, invite = await call(line)
    line.answer(invite, 200, contact='"broken <sip:x')
    with pytest.raises(GatewayError) as caught:
        await task
    assert caught.value.code == "gb.sip.rejected"
    assert "cannot be read" in caught.value.detail


async def test_nobody_home_ends_with_timer_b_at_the_latest() -> None:
    line = Line(t1=0.005)
    with pytest.raises(GatewayError) as caught:
        await line.agent.invite(TARGET, sdp=SDP, subject="", timeout_s=30)
    assert caught.value.code == "gb.sip.no_answer"
    assert "192.0.2.50:5060" in caught.value.detail


async def test_lost_connection_ends_the_call() -> None:
    line = Line()
    tcp = PEER._replace(transport="tcp", connection_id=5)
    target = type(TARGET)(path=tcp, user=DEVICE, domain="3402000000")
    task = asyncio.create_task(line.agent.invite(target, sdp=SDP, subject=""))
    await line.next_request("INVITE")
    line.agent.on_closed(tcp)
    with pytest.raises(GatewayError) as caught:
        await task
    assert caught.value.code == "gb.sip.path_lost"


async def test_provisional_callback_that_raises_does_not_end_the_call() -> None:
    line = Line()

    def fail(response: Response) -> None:
        raise RuntimeError("boom")

    task, invite = await call(line, on_provisional=fail)
    line.answer(invite, 180)
    line.answer(invite, 200, body=SDP)
    assert (await task).sdp == SDP
    assert line.agent.counters.handler_errors == 1


async def test_i2_after_the_last_timer_nothing_is_left() -> None:
    line = Line(t1=0.002)
    await established(line)
    task, invite = await call(line)
    line.answer(invite, 486)
    with pytest.raises(GatewayError):
        await task
    await until(lambda: set(line.endpoint.gauges().values()) == {0}, "empty tables")
    assert set(line.agent.gauges().values()) == {0}


async def test_ack_of_a_dialog_that_is_no_longer_known_is_sent_all_the_same() -> None:
    line = Line(t1=0.002)
    answer, _ = await established(line)
    await until(lambda: not line.agent.gauges()["calls"], "the end of the transaction")
    line.messages()
    line.agent.ack(answer.dialog)
    assert [message.method for message in requests(line)] == ["ACK"]
