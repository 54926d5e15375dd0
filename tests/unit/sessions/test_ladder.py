from __future__ import annotations

import pytest

from gb28181gw.gb.dialect import PayloadSet
from gb28181gw.media.engine import MediaTransport
from gb28181gw.sessions.ladder import CURES, RUNGS, Cure, Way, cure_of, cured, first_ways

UDP, PASSIVE, ACTIVE = MediaTransport.UDP, MediaTransport.TCP_PASSIVE, MediaTransport.TCP_ACTIVE


def test_inv21_auto_tries_tcp_passive_then_udp_then_tcp_active() -> None:
    assert [way.transport for way in first_ways(None, None)] == [PASSIVE, UDP, ACTIVE]


@pytest.mark.parametrize("remembered", [UDP, PASSIVE, ACTIVE])
def test_inv21_the_remembered_way_comes_first_and_the_others_stay(remembered: MediaTransport) -> None:
    ways = [way.transport for way in first_ways(None, remembered)]
    assert ways[0] is remembered
    assert sorted(ways) == sorted([UDP, PASSIVE, ACTIVE])


def test_a_wanted_transport_is_the_only_way() -> None:
    assert first_ways(UDP, PASSIVE) == [Way(transport=UDP)]


@pytest.mark.parametrize("status", [400, 415, 488, 606])
def test_inv13_fewer_payload_types_before_the_next_transport(status: int) -> None:
    assert cure_of(status, set()) is Cure.PS_ONLY
    assert cured(Way(transport=UDP), Cure.PS_ONLY) == Way(transport=UDP, payloads=PayloadSet.PS_ONLY)
    assert cure_of(status, set(RUNGS)) is Cure.NEXT_TRANSPORT


@pytest.mark.parametrize("status", [415, 488, 606])
def test_inv13_every_list_of_payload_types_is_offered_once(status: int) -> None:
    spent: set[Cure] = set()
    offered = [PayloadSet.DEFAULT]
    while (cure := cure_of(status, spent)) in RUNGS:
        spent.add(cure)
        offered.append(cured(Way(transport=UDP), cure).payloads)
    assert sorted(offered) == sorted(PayloadSet)
    assert cure is Cure.NEXT_TRANSPORT


def test_inv13_the_dialect_says_what_is_offered_first() -> None:
    assert {way.payloads for way in first_ways(None, None, PayloadSet.EXTENDED)} == {PayloadSet.EXTENDED}


@pytest.mark.parametrize("status", [403, 404])
def test_inv09_the_device_id_is_asked_once_for_an_unknown_channel(status: int) -> None:
    assert cure_of(status, set()) is Cure.ASK_DEVICE
    assert cure_of(status, {Cure.ASK_DEVICE}) is Cure.NONE
    assert cured(Way(transport=UDP), Cure.ASK_DEVICE).to_device


def test_inv10_481_is_tried_once_more() -> None:
    assert cure_of(481, set()) is Cure.AGAIN
    assert cure_of(481, {Cure.AGAIN}) is Cure.NONE


def test_inv11_486_ends_old_calls_first() -> None:
    assert cure_of(486, set()) is Cure.END_OLD_CALLS
    assert cure_of(486, {Cure.END_OLD_CALLS}) is Cure.NONE


def test_inv14_a_server_error_is_tried_again_then_the_next_transport() -> None:
    assert cure_of(500, set()) is Cure.AGAIN
    assert cure_of(500, {Cure.AGAIN}) is Cure.NEXT_TRANSPORT


@pytest.mark.parametrize("status", [480, 487, 600, 603])
def test_the_device_means_no(status: int) -> None:
    assert cure_of(status, set()) is Cure.NONE


def test_no_cure_is_endless() -> None:
    for status in CURES:
        spent: set[Cure] = set()
        for _ in range(10):
            cure = cure_of(status, spent)
            if cure in (Cure.NONE, Cure.NEXT_TRANSPORT):
                break
            assert cure not in spent
            spent.add(cure)
        else:
            pytest.fail(f"{status} never ends")
