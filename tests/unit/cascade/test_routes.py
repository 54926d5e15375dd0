"""Annex H and 8.3: what a request says about its way and its user, and what we make of it."""

from __future__ import annotations

import pytest

from gb28181gw.cascade.routes import OfferError, Route, read_route
from gb28181gw.sip.message import Headers, Request

OWN, LOWER, LAST = "34020100002000000001", "34020200002000000001", "34020300002000000001"
USER = "34020000003000000007"


def route(preferred: str = "", identity: str = "", lower: str = LOWER) -> Route:
    headers = [(name, value) for name, value in (
        ("X-PreferredPath", preferred), ("Monitor-User-Identity", identity)
    ) if value]  # fmt: skip
    return read_route(Request("INVITE", "sip:x@127.0.0.1", Headers(headers)), own_id=OWN, lower_id=lower)


def test_r175_our_id_is_taken_out_of_the_path_and_the_rest_goes_on() -> None:
    made = route(f"{OWN}-{LOWER}-{LAST}")
    made.check()
    assert made.passage().preferred == (LOWER, LAST)
    assert dict(made.passage().headers("INVITE")) == {"X-PreferredPath": f"{LOWER}-{LAST}"}
    assert not made.passage().headers("MESSAGE")
    # B of "A sends B the path B-C" sends C; C, which is at the end of it, sends no path on.
    assert route(f"{OWN}-{LOWER}").passage().preferred == (LOWER,)
    assert route(OWN).passage().headers("INVITE") == ()


@pytest.mark.parametrize(
    ("preferred", "identity", "status"),
    [
        (f"{OWN}-{LOWER}-{OWN}", "", 482),
        ("-".join(f"340200000020000000{n:02d}" for n in range(17)), "", 482),
        (f"{OWN}-{LAST}", "", 404),
        ("", f"{LAST}-{OWN}-{USER}", 482),
        ("", "-".join(f"340200000020000000{n:02d}" for n in range(18)), 482),
    ],
)
def test_r175_r064_what_goes_round_or_elsewhere_is_refused(
    preferred: str, identity: str, status: int
) -> None:
    with pytest.raises(OfferError) as caught:
        route(preferred, identity).check()
    assert caught.value.status == status


def test_r064_our_id_comes_before_who_asked_on_what_is_asked_and_ordered_of_a_platform() -> None:
    made = route(identity=f"{LAST}-{USER}")
    made.check()
    for method in ("INVITE", "MESSAGE", "INFO"):
        assert dict(made.passage().headers(method)) == {"Monitor-User-Identity": f"{OWN}-{LAST}-{USER}"}
    for method in ("BYE", "CANCEL", "SUBSCRIBE", "REGISTER"):
        assert made.passage().headers(method) == ()
    assert route(identity=f"{LAST}-{USER}", lower="").passage().headers("INVITE") == (), (
        "a device is told nothing"
    )
    assert route(identity="a\x01b").identity == ""


def test_r175_answers_name_us_first_then_the_way_of_the_answer_below() -> None:
    assert route().headers(f"{LOWER}-{LAST}") == (("X-RoutePath", f"{OWN}-{LOWER}-{LAST}"),)
    assert route().headers() == (("X-RoutePath", f"{OWN}-{LOWER}"),), (
        "made by us where the lower one says none"
    )
    assert route().headers("sip:nonsense") == (("X-RoutePath", f"{OWN}-{LOWER}"),)
    assert route(lower="").headers() == (("X-RoutePath", OWN),)
