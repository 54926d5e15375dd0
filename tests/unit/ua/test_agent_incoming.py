"""Requests of peers: who gets them, who is answered, and who gets silence."""

from __future__ import annotations

import pytest

from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.exceptions import LocalProtocolError
from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path
from gb28181gw.ua.incoming import Incoming
from tests.support.sip_agent import DEVICE, GATEWAY, PEER, Line
from tests.support.sip_peer import until, wire

STRANGER = Path("udp", "198.51.100.9", 5060, "192.0.2.1", 5062)


def collect(line: Line, method: str) -> list[Incoming]:
    got: list[Incoming] = []
    line.agent.on_request(method, got.append)
    return got


def watched(line: Line) -> tuple[Dialog, list[Incoming]]:
    """A dialog of ours with the peer at PEER: Call-ID c1, tags ours and dev."""
    dialog = Dialog(
        call_id="c1",
        local_tag="ours",
        remote_tag="dev",
        local_uri=f"sip:{GATEWAY}@3402000000",
        remote_uri=f"sip:{DEVICE}@3402000000",
        remote_target=f"sip:{DEVICE}@10.1.1.1",
        local_cseq=1,
        remote_cseq=None,
        invite_cseq=1,
        path=PEER,
    )
    got: list[Incoming] = []
    line.agent.watch_dialog(dialog, got.append)
    return dialog, got


async def test_handler_sees_the_request_and_answers_in_its_turn() -> None:
    line = Line()
    line.agent.on_request("MESSAGE", lambda incoming: incoming.respond(200))
    line.request("MESSAGE")
    (response,) = line.responses()
    assert (response.status, response.call_id, str(response.cseq)) == (200, "c1", "1 MESSAGE")
    assert len(response.to.tag) >= 16
    assert response.via.received == "192.0.2.50" and response.via.rport == "5060"


async def test_incoming_tells_who_wants_what() -> None:
    line = Line()
    got = collect(line, "MESSAGE")
    line.request("MESSAGE")
    assert (got[0].method, got[0].from_user, got[0].to_user, got[0].call_id, got[0].path) == (
        "MESSAGE",
        DEVICE,
        GATEWAY,
        "c1",
        PEER,
    )
    assert got[0].dialog is None


async def test_answer_may_come_later_and_repeated_requests_reach_the_handler_once() -> None:
    line = Line()
    got = collect(line, "MESSAGE")
    line.request("MESSAGE")
    line.request("MESSAGE")
    assert len(got) == 1 and line.messages() == []
    got[0].respond(403, "Not you", headers=(("Warning", "399 gw x"),), body=b"x", content_type="text/plain")
    line.request("MESSAGE")
    first, second = line.responses()
    assert first == second
    assert (first.status, first.reason, first.body) == (403, "Not you", b"x")
    assert (first.headers.get("Warning"), first.headers.get("Content-Type")) == ("399 gw x", "text/plain")


async def test_second_final_answer_raises() -> None:
    line = Line()
    got = collect(line, "MESSAGE")
    line.request("MESSAGE")
    got[0].respond(200)
    with pytest.raises(LocalProtocolError):
        got[0].respond(200)


async def test_one_handler_per_method() -> None:
    line = Line()
    collect(line, "MESSAGE")
    with pytest.raises(LocalProtocolError):
        collect(line, "MESSAGE")


@pytest.mark.parametrize("status", [200, 401, 403])
async def test_version_header_is_on_every_answer_to_register(status: int) -> None:
    line = Line(known=False)
    line.agent.on_request("REGISTER", lambda incoming: incoming.respond(status))
    line.request("REGISTER", path=STRANGER)
    (response,) = line.responses()
    assert response.headers.get("X-GB-Ver") == "3.0"


@pytest.mark.parametrize("method", ["REGISTER", "MESSAGE", "NOTIFY", "BYE"])
async def test_handlers_decide_about_strangers(method: str) -> None:
    line = Line(known=False)
    got = collect(line, method)
    line.request(method, path=STRANGER, to_tag="x" if method == "BYE" else "")
    assert len(got) == 1 and line.messages() == []


@pytest.mark.parametrize("method", ["OPTIONS", "SUBSCRIBE", "PUBLISH", "XYZZY", "INVITE", "BYE", "INFO"])
async def test_s11_strangers_get_silence_for_what_is_not_served(method: str) -> None:
    line = Line(known=False)
    line.request(method, path=STRANGER)
    line.request(method, path=STRANGER)
    assert line.messages() == []
    assert line.agent.counters.silent == 2
    assert line.agent.counters.refused == 2
    gauges = line.endpoint.gauges()
    assert gauges["server"] == gauges["server_invite"] == 0


async def test_options_of_a_known_peer_are_answered_with_what_is_allowed() -> None:
    line = Line()
    line.request("OPTIONS")
    (response,) = line.responses()
    assert response.status == 200
    allowed = {one.strip() for one in (response.headers.get_all("Allow"))}
    assert allowed >= {"INVITE", "ACK", "INFO", "CANCEL", "BYE", "OPTIONS", "MESSAGE"}
    assert response.headers.get("User-Agent") == "gw/1"


@pytest.mark.parametrize(("to_tag", "status"), [("", 405), ("gone", 481)])
async def test_known_peer_is_told_why_it_is_not_served(to_tag: str, status: int) -> None:
    line = Line()
    line.request("PUBLISH", to_tag=to_tag)
    (response,) = line.responses()
    assert response.status == status
    assert ("Allow" in response.headers) == (status == 405)


async def test_an_invite_for_a_dialog_that_is_none_is_answered_481() -> None:
    line = Line()
    heard: list[Incoming] = []
    line.agent.on_request("INVITE", heard.append)
    line.request("INVITE", to_tag="gone")
    assert [response.status for response in line.responses()] == [481]
    assert heard == []


async def test_ignore_sends_nothing_and_keeps_nothing() -> None:
    line = Line()
    line.agent.on_request("MESSAGE", lambda incoming: incoming.ignore())
    line.request("MESSAGE")
    assert line.messages() == []
    assert line.endpoint.gauges()["server"] == 0


async def test_f23_handler_that_raises_costs_one_500_and_nobody_else_anything() -> None:
    line = Line()
    failures: list[tuple[str, str]] = []
    line.agent.on_handler_error = lambda path, method, error: failures.append((method, str(error)))

    def handle(incoming: Incoming) -> None:
        if incoming.request.body == b"poison":
            raise RuntimeError("boom")
        incoming.respond(200)

    line.agent.on_request("MESSAGE", handle)
    line.request("MESSAGE", body=b"poison")
    line.request("MESSAGE", cseq=2, body=b"good")
    assert [response.status for response in line.responses()] == [500, 200]
    assert failures == [("MESSAGE", "boom")]
    assert line.agent.counters.handler_errors == 1


async def test_handler_that_fails_after_its_answer_sends_no_second_one() -> None:
    line = Line()

    def handle(incoming: Incoming) -> None:
        incoming.respond(200)
        raise RuntimeError("late")

    line.agent.on_request("MESSAGE", handle)
    line.request("MESSAGE")
    assert [response.status for response in line.responses()] == [200]


@pytest.mark.parametrize(
    ("extra", "status"),
    [("Max-Forwards: 70\r\n", 400), ("Require: magic\r\n", 420), ("From: <sip:x@y>;tag=2\r\n", 400)],
)
async def test_requests_that_sip_refuses_get_one_answer_and_reach_nobody(extra: str, status: int) -> None:
    line = Line(known=False)
    reasons: list[str] = []
    line.agent.on_malformed_message = lambda path, reason: reasons.append(reason)
    got = collect(line, "MESSAGE")
    line.request("MESSAGE", path=STRANGER, extra=extra)
    (response,) = line.responses()
    assert response.status == status
    assert (response.headers.get("Unsupported") == "magic") == (status == 420)
    assert got == [] and len(reasons) == 1
    assert line.agent.counters.verdicts == line.agent.counters.refused == 1


async def test_malformed_request_gets_one_400_without_a_transaction() -> None:
    line = Line(known=False)
    data = wire("MESSAGE", port=5060).replace(b"Content-Length: 0", b"Content-Length: x")
    line.receive(data, STRANGER)
    (response,) = line.responses()
    assert response.status == 400
    assert response.via.received == STRANGER.remote_host
    assert line.agent.counters.malformed == line.agent.counters.malformed_answered == 1
    assert set(line.endpoint.gauges().values()) == {0}


async def test_unreadable_invite_is_refused_like_other_malformed_requests() -> None:
    line = Line()
    got = collect(line, "INVITE")
    line.receive(wire("INVITE", port=5060).replace(b"Via: SIP/2.0/UDP", b"Via: nonsense"))
    assert [response.status for response in line.responses()] == [400]
    assert got == []


async def test_malformed_ack_and_response_get_nothing() -> None:
    line = Line()
    line.receive(wire("ACK", port=5060).replace(b"Content-Length: 0", b"Content-Length: x"))
    line.receive(b"SIP/2.0 200 OK\r\nContent-Length: x\r\n\r\n")
    line.receive(b"rubbish")
    assert line.messages() == []
    assert line.agent.counters.malformed == 3


@pytest.mark.parametrize("kind", ["malformed", "verdict"])
async def test_s11_answer_that_would_amplify_is_not_sent(kind: str) -> None:
    """Compact names and LF come back as full names and CRLF: more than 1.2 times the bytes of the request."""
    line = Line(known=False)
    vias = "".join("v:SIP/2.0/UDP h\n" for _ in range(100))
    head = f"OPTIONS sip:a SIP/2.0\n{vias}f:<sip:a@b>;tag=1\nt:<sip:a@b>\ni:1\nCSeq:1 OPTIONS\n"
    head += "l:x\n" if kind == "malformed" else "Max-Forwards:x\n"
    data = (head + "\n").encode()
    line.receive(data, STRANGER)
    assert line.agent.counters.malformed + line.agent.counters.verdicts == 1
    assert line.wire.sent == []


async def test_s20_source_that_is_refused_too_often_is_not_read_any_more() -> None:
    line = Line(known=False, real_clock=False)
    for number in range(60):
        assert line.agent.admit(STRANGER)
        line.request("OPTIONS", path=STRANGER, cseq=number + 1)
    assert not line.agent.admit(STRANGER)
    assert line.agent.admit(PEER)
    line.known = True
    assert line.agent.admit(STRANGER)  # a bound path behind the same address (carrier NAT)
    line.known = False
    line.clock.now += 1.0
    assert line.agent.admit(STRANGER)


async def test_s20_the_registrar_reports_wrong_digests_by_itself() -> None:
    line = Line(known=False, real_clock=False)
    for _ in range(60):
        line.agent.refused(STRANGER)
    assert not line.agent.admit(STRANGER)
    assert line.agent.counters.refused == 60


# ---- dialogs


async def test_request_within_a_watched_dialog_goes_to_its_watcher() -> None:
    line = Line()
    elsewhere = collect(line, "MESSAGE")
    dialog, got = watched(line)
    line.request("MESSAGE", to_tag="ours", cseq=5)
    assert [incoming.method for incoming in got] == ["MESSAGE"] and elsewhere == []
    got[0].respond(200)
    assert line.responses()[0].to.tag == "ours"
    assert dialog.remote_cseq == 5
    line.agent.unwatch_dialog(dialog)
    line.agent.unwatch_dialog(dialog)
    line.request("BYE", to_tag="ours", cseq=6)
    assert len(got) == 1
    assert [response.status for response in line.responses()] == [481]


async def test_two_dialogs_of_one_call_id_are_told_apart_by_tags() -> None:
    line = Line()
    first, of_first = watched(line)
    second, of_second = watched(line)
    second.remote_tag = "other"
    line.request("BYE", to_tag="ours", from_tag="other")
    assert (len(of_first), len(of_second)) == (0, 1)
    line.agent.unwatch_dialog(second)
    line.request("BYE", to_tag="ours", cseq=2)
    assert (len(of_first), len(of_second)) == (1, 1)
    assert first.remote_cseq == 2


@pytest.mark.parametrize(
    "forged",
    [
        {"to_tag": ""},
        {"to_tag": "guess"},
        {"from_tag": "guess", "to_tag": "ours"},
        {"call_id": "x", "to_tag": "ours"},
    ],
)
async def test_s04_bye_without_both_tags_ends_nothing(forged: dict[str, object]) -> None:
    line = Line(known=False)
    _, got = watched(line)
    line.request("BYE", **forged)
    assert got == [] and line.messages() == []


async def test_s04_bye_with_everything_but_the_source_ends_nothing() -> None:
    line = Line(known=False)
    _, got = watched(line)
    line.request("BYE", path=STRANGER, to_tag="ours")
    assert got == [] and line.messages() == []
    assert line.agent.counters.foreign_in_dialog == 1


async def test_f07_device_that_moved_is_still_in_its_dialog_when_the_policy_knows_it() -> None:
    line = Line(known=True)
    _, got = watched(line)
    line.request("BYE", path=STRANGER, to_tag="ours")
    line.request("INFO", path=PEER._replace(remote_port=6000), to_tag="ours", cseq=2)
    assert [incoming.method for incoming in got] == ["BYE", "INFO"]


async def test_f04_cseq_that_goes_back_gets_500_but_bye_is_believed() -> None:
    line = Line()
    _, got = watched(line)
    line.request("INFO", to_tag="ours", cseq=9)
    got[0].respond(200)
    line.request("INFO", to_tag="ours", cseq=8)
    assert [response.status for response in line.responses()] == [200, 500]
    line.request("BYE", to_tag="ours", cseq=3)
    assert [incoming.method for incoming in got] == ["INFO", "BYE"]
    assert line.agent.counters.cseq_backwards == 2


async def test_invite_within_a_dialog_names_the_remote_target_anew() -> None:
    line = Line()
    dialog, got = watched(line)
    line.request("INVITE", to_tag="ours", extra="Contact: <sip:dev@10.2.2.2:5070>\r\n")
    assert dialog.remote_target == "sip:dev@10.2.2.2:5070"
    got[0].respond(200, body=b"v=0\r\n", content_type="application/sdp")
    assert got[0].dialog is None  # it has one already
    assert [response.to.tag for response in line.responses()] == ["ours"]


async def test_exchanged_tags_of_media_status_are_recognised() -> None:
    line = Line()
    _, got = watched(line)
    line.request("MESSAGE", from_tag="ours", to_tag="dev")
    assert len(got) == 1


# ---- INVITE from a peer


async def test_invite_is_answered_acknowledged_and_ended_within_its_dialog() -> None:
    line = Line()
    acks: list[Request] = []

    def handle(incoming: Incoming) -> None:
        incoming.on_ack = acks.append
        incoming.respond(100)
        incoming.respond(200, body=b"v=0\r\n", content_type="application/sdp")

    line.agent.on_request("INVITE", handle)
    line.request("INVITE", extra="Contact: <sip:dev@192.0.2.50>\r\nRecord-Route: <sip:p;lr>\r\n")
    trying, accepted = line.responses()
    assert (trying.status, trying.to.tag) == (100, "")
    assert accepted.status == 200 and accepted.body == b"v=0\r\n"
    assert accepted.headers.get("Contact") == f"<sip:{GATEWAY}@192.0.2.1:5062>"
    assert accepted.headers.get_all("Record-Route") == ["<sip:p;lr>"]
    assert "ACK" in (accepted.headers.get("Allow") or "") or "ACK" in accepted.headers.get_all("Allow")
    line.request("ACK", to_tag=accepted.to.tag, branch="z9hG4bKack")
    line.request("ACK", to_tag=accepted.to.tag, branch="z9hG4bKack")
    assert len(acks) == 1


async def test_incoming_dialog_belongs_to_the_callee() -> None:
    line = Line()
    got = collect(line, "INVITE")
    line.request("INVITE")
    got[0].respond(200, headers=(("Contact", "<sip:me@here>"),))
    dialog = got[0].dialog
    assert dialog is not None
    assert (dialog.local_tag, dialog.remote_tag, dialog.path) == (got[0].to_tag, "dev", PEER)
    assert line.responses()[0].headers.get("Contact") == "<sip:me@here>"


async def test_repeated_2xx_without_ack_ends_in_on_no_ack() -> None:
    line = Line(t1=0.005)
    lost: list[str] = []

    def handle(incoming: Incoming) -> None:
        incoming.on_no_ack = lambda: lost.append(incoming.call_id)
        incoming.respond(200)

    line.agent.on_request("INVITE", handle)
    line.request("INVITE")
    await until(lambda: lost, "the report")
    assert lost == ["c1"]
    assert len(line.responses()) > 3
    await line.agent.close()


async def test_cancel_gets_200_the_invite_487_and_the_handler_is_told() -> None:
    line = Line()
    cancelled: list[str] = []

    def handle(incoming: Incoming) -> None:
        incoming.on_cancel = lambda: cancelled.append(incoming.call_id)
        incoming.respond(180)

    line.agent.on_request("INVITE", handle)
    line.request("INVITE")
    line.request("CANCEL")
    assert [(response.status, response.cseq.method) for response in line.responses()] == [
        (180, "INVITE"),
        (200, "CANCEL"),
        (487, "INVITE"),
    ]
    assert cancelled == ["c1"]


async def test_cancel_after_the_answer_changes_nothing() -> None:
    line = Line()
    got = collect(line, "INVITE")
    line.request("INVITE")
    got[0].respond(200)
    line.request("CANCEL")
    assert [(response.status, response.cseq.method) for response in line.responses()] == [
        (200, "INVITE"),
        (200, "CANCEL"),
    ]


@pytest.mark.parametrize(("known", "statuses"), [(True, [481]), (False, [])])
async def test_cancel_of_nothing(known: bool, statuses: list[int]) -> None:
    line = Line(known=known)
    line.request("CANCEL")
    assert [response.status for response in line.responses()] == statuses


async def test_f23_callback_that_raises_is_counted() -> None:
    line = Line()

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    def handle(incoming: Incoming) -> None:
        incoming.on_ack = incoming.on_cancel = fail
        incoming.respond(200)

    line.agent.on_request("INVITE", handle)
    line.request("INVITE")
    line.request("ACK", to_tag=line.responses()[0].to.tag, branch="z9hG4bKack")
    line.agent.on_path_closed = fail
    line.agent.on_closed(PEER)
    assert line.agent.counters.handler_errors == 2
    await line.agent.close()


async def test_trace_has_both_directions_and_the_bytes() -> None:
    line = Line()
    seen: list[tuple[str, Path, bytes]] = []
    line.agent.on_received = line.agent.on_sent = lambda direction, path, data: seen.append(
        (direction, path, data)
    )
    line.agent.on_request("MESSAGE", lambda incoming: incoming.respond(200))
    data = wire("MESSAGE", port=5060, host="192.0.2.50")
    line.receive(data)
    assert [(direction, path) for direction, path, _ in seen] == [("in", PEER), ("out", PEER)]
    assert seen[0][2] == data and seen[1][2].startswith(b"SIP/2.0 200")
