from __future__ import annotations

import json

import pytest

from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.message import Request, Response
from tests.support.sip_network import DEVICE, PLATFORM, incoming, path, reply, request

CONTACT = f"<sip:{DEVICE}@10.1.1.1:5061>"


def answered(*, extra: tuple[tuple[str, str], ...] = (("Contact", CONTACT),), tag: str = "bob") -> Dialog:
    invite = request("INVITE", cseq=7)
    return Dialog.as_uac(invite, reply(invite, 200, tag=tag, headers=extra), path())


def test_callers_side_of_a_2xx() -> None:
    dialog = answered()
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == ("call-1", "alice", "bob")
    assert dialog.local_uri == f"sip:{PLATFORM}@3402000000"
    assert dialog.remote_uri == f"sip:{DEVICE}@3402000000"
    assert dialog.remote_target == f"sip:{DEVICE}@10.1.1.1:5061"
    assert (dialog.local_cseq, dialog.invite_cseq, dialog.remote_cseq) == (7, 7, None)


def test_without_contact_the_request_uri_stays_the_target() -> None:
    assert answered(extra=()).remote_target == f"sip:{DEVICE}@192.0.2.2:5060"


def test_requests_count_cseq_up_and_ack_repeats_that_of_the_invite() -> None:
    dialog = answered()
    info, bye, ack = dialog.request("INFO", b"x"), dialog.request("BYE"), dialog.request("ACK")
    assert [str(one.cseq) for one in (info, bye, ack)] == ["8 INFO", "9 BYE", "7 ACK"]
    assert info.body == b"x"
    for one in (info, bye, ack):
        assert one.uri == f"sip:{DEVICE}@10.1.1.1:5061"
        assert (one.from_.tag, one.to.tag, one.call_id) == ("alice", "bob", "call-1")
        assert one.headers.get("Max-Forwards") == "70"
        assert "Route" not in one.headers


def test_a_new_invite_moves_the_number_that_its_ack_repeats() -> None:
    dialog = answered()
    assert str(dialog.request("INVITE").cseq) == "8 INVITE"
    assert str(dialog.request("ACK").cseq) == "8 ACK"


def test_route_set_of_the_caller_is_reversed_and_loose() -> None:
    routes = (
        ("Record-Route", "<sip:p2.example;lr>, <sip:p1.example;lr>"),
        ("Contact", CONTACT),
    )
    bye = answered(extra=routes).request("BYE")
    assert bye.headers.get_all("Route") == ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]
    assert bye.uri == f"sip:{DEVICE}@10.1.1.1:5061"


def test_strict_first_route_becomes_the_request_uri() -> None:
    routes = (
        ("Record-Route", "<sip:p2.example;lr>"),
        ("Record-Route", "<sip:p1.example>"),
        ("Contact", CONTACT),
    )
    bye = answered(extra=routes).request("BYE")
    assert bye.uri == "sip:p1.example"
    assert bye.headers.get_all("Route") == ["<sip:p2.example;lr>", f"<sip:{DEVICE}@10.1.1.1:5061>"]


def test_callees_side_mirrors_it() -> None:
    invite = incoming(
        "INVITE",
        cseq=3,
        extra=(("Contact", "<sip:x@10.9.9.9>"), ("Record-Route", "<sip:p1.example;lr>, <sip:p2.example;lr>")),
    )
    dialog = Dialog.as_uas(invite, "mine", path())
    assert (dialog.local_tag, dialog.remote_tag, dialog.remote_target) == ("mine", "alice", "sip:x@10.9.9.9")
    assert (dialog.local_cseq, dialog.remote_cseq) == (0, 3)
    bye = dialog.request("BYE")
    assert bye.headers.get_all("Route") == ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]
    assert (bye.from_.tag, bye.to.tag) == ("mine", "alice")
    assert bye.to.uri.user == PLATFORM


def test_record_survives_json_and_a_restored_dialog_says_bye() -> None:
    dialog = answered(extra=(("Record-Route", "<sip:p1.example;lr>"), ("Contact", CONTACT)))
    dialog.request("INFO")
    dialog.accepts_cseq(4)
    restored = Dialog.from_record(json.loads(json.dumps(dialog.to_record())))
    assert restored == dialog
    bye = restored.request("BYE")
    assert (str(bye.cseq), bye.from_.tag, bye.to.tag, bye.call_id) == ("9 BYE", "alice", "bob", "call-1")
    assert bye.headers.get_all("Route") == ["<sip:p1.example;lr>"]


@pytest.mark.parametrize(
    "broken",
    [{}, {"route_set": "x"}, {"route_set": [], "call_id": "c"}],
)
def test_what_is_no_record_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Dialog.from_record(broken)


def test_numbers_of_a_record_are_numbers() -> None:
    record = answered().to_record()
    record["local_cseq"] = "9"
    with pytest.raises(ValueError, match="not a number"):
        Dialog.from_record(record)


@pytest.mark.parametrize(
    ("tags", "fits"), [(("bob", "alice"), True), (("alice", "bob"), True), (("bob", ""), False)]
)
def test_s04_matches_call_id_and_both_tags_in_either_order(tags: tuple[str, str], fits: bool) -> None:
    bye = incoming("BYE", from_tag=tags[0], to_tag=tags[1])
    assert answered().matches(bye) is fits


def test_s04_another_call_id_or_an_unreadable_address_does_not_match() -> None:
    assert not answered().matches(incoming("BYE", call_id="other", from_tag="bob", to_tag="alice"))
    broken = incoming("BYE", from_tag="bob", to_tag="alice")
    broken.headers.set("From", '"unterminated <sip:a@b>')
    assert not answered().matches(broken)


def test_a_peer_without_tags_still_matches_itself() -> None:
    dialog = answered(tag="")
    assert dialog.remote_tag == ""
    assert dialog.request("BYE").headers.get("To") == f"<sip:{DEVICE}@3402000000>"
    bye = incoming("BYE", to_tag="alice")
    bye.headers.set("From", f"<sip:{DEVICE}@3402000000>")
    assert dialog.matches(bye)


def test_cseq_of_the_peer_may_not_go_back() -> None:
    dialog = answered()
    assert dialog.accepts_cseq(20)
    assert dialog.accepts_cseq(20)
    assert not dialog.accepts_cseq(19)
    assert dialog.remote_cseq == 20


def test_target_refresh_takes_a_new_contact_only() -> None:
    dialog = answered()
    dialog.refresh_target(Response(200))
    assert dialog.remote_target == f"sip:{DEVICE}@10.1.1.1:5061"
    dialog.refresh_target(
        Request("INVITE", "sip:a@b", incoming("INVITE", extra=(("Contact", "<sip:n@h>"),)).headers)
    )
    assert dialog.remote_target == "sip:n@h"
