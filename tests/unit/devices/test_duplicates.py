"""Two devices with one id."""

from __future__ import annotations

from itertools import pairwise

from gb28181gw.devices.duplicates import TABLE_LIMIT, DuplicateWatch
from tests.support.devices import tcp, udp

A, B = udp(5060, "10.0.0.1"), udp(5060, "10.0.0.2")


def test_reg15_alternating_sources_are_noticed_and_the_first_is_kept() -> None:
    watch = DuplicateWatch()
    assert not watch.moved("d", A, "call-a", B, "call-b", 100.0, 60.0)
    assert watch.moved("d", B, "call-b", A, "call-a", 130.0, 60.0)
    assert watch.is_rival("d", B, first_alive=True)
    assert not watch.is_rival("d", A, first_alive=True)
    assert not watch.is_rival("other", B, first_alive=True)


def test_reg15_the_rival_is_let_in_when_the_first_is_gone() -> None:
    watch = DuplicateWatch()
    watch.moved("d", A, "call-a", B, "call-b", 100.0, 60.0)
    watch.moved("d", B, "call-b", A, "call-a", 130.0, 60.0)
    assert not watch.is_rival("d", B, first_alive=False)
    assert not watch.is_rival("d", B, first_alive=True)


def test_reg17_a_device_that_moves_for_good_is_no_duplicate() -> None:
    watch = DuplicateWatch()
    hosts = [udp(5060, f"10.0.{number}.1") for number in range(10)]
    for number, (old, new) in enumerate(pairwise(hosts)):
        assert not watch.moved("d", old, f"c{number}", new, f"c{number + 1}", 100.0 + number, 60.0)


def test_a_device_that_comes_back_later_is_no_duplicate() -> None:
    watch = DuplicateWatch()
    watch.moved("d", A, "call-a", B, "call-b", 100.0, 60.0)
    assert not watch.moved("d", B, "call-b", A, "call-a", 161.0, 60.0)


def test_one_device_on_two_networks_keeps_its_call_id() -> None:
    watch = DuplicateWatch()
    watch.moved("d", A, "call", B, "call", 100.0, 60.0)
    assert not watch.moved("d", B, "call", A, "call", 130.0, 60.0)


def test_two_devices_behind_one_nat_differ_by_port() -> None:
    watch = DuplicateWatch()
    one, two = udp(1001), udp(1002)
    watch.moved("d", one, "a", two, "b", 100.0, 60.0)
    assert watch.moved("d", two, "b", one, "a", 110.0, 60.0)


def test_reg21_new_connections_of_one_host_are_no_duplicates() -> None:
    watch = DuplicateWatch()
    for number in range(10):
        assert not watch.moved(
            "d", tcp(number + 1), f"{number}", tcp(number + 2), f"{number + 1}", 100.0, 60.0
        )


def test_forgetting() -> None:
    watch = DuplicateWatch()
    watch.moved("d", A, "call-a", B, "call-b", 100.0, 60.0)
    watch.moved("d", B, "call-b", A, "call-a", 130.0, 60.0)
    watch.forget("d")
    assert not watch.is_rival("d", B, first_alive=True)


def test_i10_the_memory_is_bounded() -> None:
    watch = DuplicateWatch()
    for number in range(TABLE_LIMIT + 10):
        watch.moved(str(number), A, "a", B, "b", 1.0, 60.0)
    assert len(watch._replaced) == TABLE_LIMIT


def test_reg15_who_goes_on_where_the_device_was_registered_is_another_one() -> None:
    watch = DuplicateWatch()
    assert not watch.lives_on("d", A)
    watch.moved("d", A, "call-a", B, "call-b", 100.0, 60.0)
    assert not watch.lives_on("d", udp(5060, "10.0.0.3"))
    assert watch.lives_on("d", A)
    assert not watch.lives_on("d", A)  # told once
    watch.moved("d", B, "call-b", A, "call-a", 200.0, 60.0)
    assert watch.lives_on("d", B)
