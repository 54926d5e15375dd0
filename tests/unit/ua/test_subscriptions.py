"""SUBSCRIBE dialogs: what is sent, what the answers mean, and which NOTIFY belongs to which."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.errors import GatewayError
from gb28181gw.sip.message import Headers, Request
from gb28181gw.sip.path import Path
from gb28181gw.ua.subscriptions import Belonging, Subscription, _event_key, _state
from tests.support.sip_agent import DEVICE, GATEWAY, TARGET, Line

ELSEWHERE = Path("udp", "192.0.2.50", 7777, "192.0.2.1", 5062)
BODY = b"<Query/>"


def asking(line: Line, *, expires_s: int = 600, event: str = "Catalog;id=7") -> asyncio.Task[Subscription]:
    return asyncio.create_task(
        line.agent.subscriptions.subscribe(
            TARGET, event=event, expires_s=expires_s, body=BODY, content_type="Application/MANSCDP+xml"
        )
    )


async def granted(line: Line, **headers: str) -> Subscription:
    task = asking(line)
    line.answer(await line.next_request("SUBSCRIBE"), 200, headers=tuple(headers.items()))
    return await task


def notify(subscription: Subscription, **changes: str) -> Request:
    dialog = subscription.dialog
    values = {
        "From": f"<sip:{DEVICE}@3402000000>;tag={dialog.remote_tag}",
        "To": f"<sip:{GATEWAY}@3402000000>;tag={dialog.local_tag}",
        "Call-ID": dialog.call_id,
        "CSeq": "1 NOTIFY",
        "Event": subscription.event,
        **{name.replace("_", "-"): text for name, text in changes.items()},
    }
    return Request("NOTIFY", "sip:x", Headers(tuple(values.items())), b"")


async def test_n42_subscribe_has_event_expires_contact_and_body() -> None:
    line = Line()
    task = asking(line)
    sent = await line.next_request("SUBSCRIBE")
    assert sent.headers.get("Event") == "Catalog;id=7" and sent.headers.get("Expires") == "600"
    assert sent.headers.get("Contact") == f"<sip:{GATEWAY}@192.0.2.1:5062>"
    assert sent.headers.get("Content-Type") == "Application/MANSCDP+xml" and sent.body == BODY
    assert sent.to.tag == "" and str(sent.cseq) == "1 SUBSCRIBE"
    line.answer(sent, 200)
    made = await task
    assert made.granted_s == 600 and made.dialog.remote_tag == "dev"
    assert len(line.agent.subscriptions) == 1


@pytest.mark.parametrize(
    ("told", "granted_s"), [("90", 90), ("3600", 600), ("0", 600), ("", 600), ("soon", 600)]
)
async def test_rfc6665_a_notifier_may_shorten_and_not_lengthen(told: str, granted_s: int) -> None:
    made = await granted(Line(), Expires=told)
    assert made.granted_s == granted_s


async def test_rfc6665_a_renewal_stays_in_the_dialog_and_follows_the_peer() -> None:
    line = Line()
    made = await granted(line)
    task = asyncio.create_task(
        line.agent.subscriptions.refresh(
            made, expires_s=300, body=b"<Query>2</Query>", content_type="x/y", path=ELSEWHERE
        )
    )
    sent = await line.next_request("SUBSCRIBE")
    assert (sent.call_id, sent.to.tag, str(sent.cseq)) == (made.dialog.call_id, "dev", "2 SUBSCRIBE")
    assert sent.headers.get("Event") == made.event and sent.headers.get("Expires") == "300"
    line.answer(sent, 200, headers=(("Expires", "100"),))
    await task
    assert made.granted_s == 100 and made.dialog.path == ELSEWHERE


async def test_rfc6665_423_is_asked_once_more_with_its_least_time() -> None:
    line = Line()
    task = asking(line, expires_s=60)
    first = await line.next_request("SUBSCRIBE")
    line.answer(first, 423, headers=(("Min-Expires", "120"),))
    second = await line.next_request("SUBSCRIBE")
    assert second.headers.get("Expires") == "120" and second.call_id != first.call_id
    line.answer(second, 423, headers=(("Min-Expires", "240"),))
    with pytest.raises(GatewayError) as caught:
        await task
    assert caught.value.sip_status == 423
    assert not len(line.agent.subscriptions)


async def test_a_refusal_carries_its_status_and_when_to_come_again() -> None:
    line = Line()
    task = asking(line)
    line.answer(await line.next_request("SUBSCRIBE"), 503, headers=(("Retry-After", "90 (busy)"),))
    with pytest.raises(GatewayError) as caught:
        await task
    assert (caught.value.code, caught.value.sip_status) == ("gb.sip.rejected", 503)
    assert caught.value.evidence["retry_after_s"] == 90
    assert line.agent.gauges()["exchanges"] == 0


async def test_the_end_is_expires_0_and_its_notifications_are_known_as_ended() -> None:
    line = Line()
    made = await granted(line)
    task = asyncio.create_task(line.agent.subscriptions.end(made, body=BODY, content_type="x/y"))
    sent = await line.next_request("SUBSCRIBE")
    assert sent.headers.get("Expires") == "0" and sent.call_id == made.dialog.call_id
    line.answer(sent, 200)
    await task
    assert line.agent.subscriptions.hear(notify(made)).belonging is Belonging.ENDED
    assert not len(line.agent.subscriptions)


async def test_cat21_which_notify_belongs_to_which() -> None:
    line = Line()
    made = await granted(line)
    hear = line.agent.subscriptions.hear
    assert hear(notify(made)).belonging is Belonging.EXACT
    for changed in (
        {"Event": "catalog;ID=7"},
        {"Event": "Catalog ; id=7"},
    ):
        assert hear(notify(made, **changed)).belonging is Belonging.EXACT, changed
    for changed in (
        {"Event": "Catalog;id=8"},
        {"Event": "presence"},
        {"To": f"<sip:{GATEWAY}@3402000000>;tag=other"},
        {"To": f"<sip:{GATEWAY}@3402000000>"},
        {"From": f"<sip:{DEVICE}@3402000000>"},
    ):
        heard = hear(notify(made, **changed))
        assert heard.belonging is Belonging.CALL_ID and heard.subscription is made, changed
    assert hear(notify(made, Call_ID="another")).belonging is Belonging.NONE
    # Tags of a dialog from both ends, as some devices exchange them.
    line.agent.subscriptions.forget(made)
    assert hear(notify(made)).belonging is Belonging.NONE


async def test_rfc6665_a_notify_may_overtake_the_200() -> None:
    line = Line()
    task = asking(line)
    sent = await line.next_request("SUBSCRIBE")
    early = Request(
        "NOTIFY",
        "sip:x",
        Headers((("Call-ID", sent.call_id), ("Subscription-State", "active;expires=9"))),
        b"",
    )
    assert line.agent.subscriptions.hear(early).belonging is Belonging.EARLY
    line.answer(sent, 200)
    await task


async def test_f17_a_record_makes_it_again() -> None:
    line = Line()
    made = await granted(line)
    again = Subscription.from_record(made.to_record())
    assert (again.dialog, again.event, again.granted_s) == (made.dialog, made.event, made.granted_s)
    other = Line()
    other.agent.subscriptions.keep(again)
    assert other.agent.subscriptions.hear(notify(made)).belonging is Belonging.EXACT
    for wrong in ({}, {"dialog": {}, "granted_s": 1}, {"dialog": {}, "granted_s": "1", "event": ""}):
        with pytest.raises((KeyError, ValueError)):
            Subscription.from_record(wrong)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("active;expires=90;retry-after=0", ("active", "", 90, 0)),
        ("Terminated; Reason=Timeout", ("terminated", "timeout", None, None)),
        ("pending", ("pending", "", None, None)),
        ("", ("active", "", None, None)),
        ("nonsense;expires=x", ("active", "", None, None)),
        ("terminated;reason=probation;retry-after=30", ("terminated", "probation", None, 30)),
    ],
)
def test_rfc6665_subscription_state(text: str, state: tuple[str, str, int | None, int | None]) -> None:
    assert _state(text) == state


@given(st.text())
def test_whatever_a_peer_writes_has_a_state_and_an_event(text: str) -> None:
    state, reason, expires_s, retry_after_s = _state(text)
    assert state in ("active", "pending", "terminated") and len(reason) <= 32
    assert all(value is None or value >= 0 for value in (expires_s, retry_after_s))
    assert len(_event_key(text)) == 2
