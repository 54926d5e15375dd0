"""The path rule as pure decisions."""

from __future__ import annotations

import pytest

from gb28181gw.devices.binding import (
    NETWORK_S,
    NETWORKS_KEPT,
    Action,
    Outcome,
    PathProbe,
    classify,
    is_known_network,
    network_of,
    remember_network,
)
from gb28181gw.devices.config import BindingMode
from tests.support.devices import tcp, udp

NAT, STRICT, ANY = BindingMode.NAT, BindingMode.STRICT, BindingMode.ANY


@pytest.mark.parametrize(
    ("bound", "last", "path", "mode", "action"),
    [
        (udp(1), udp(1), udp(1), NAT, Action.ACCEPT),
        (udp(1), udp(1), udp(1), STRICT, Action.ACCEPT),
        (udp(1), udp(1), udp(2), NAT, Action.PROBE_NEAR),
        (udp(1), udp(1), udp(2), STRICT, Action.IGNORE),
        (udp(1), udp(1), udp(1, "10.9.9.9"), NAT, Action.PROBE_FAR),
        (udp(1), udp(1), udp(1, "10.9.9.9"), STRICT, Action.IGNORE),
        (udp(1), udp(1), udp(1, "10.9.9.9"), ANY, Action.MOVE),
        (udp(1), udp(1), tcp(5), NAT, Action.PROCESS),
        (tcp(5), tcp(5), udp(1), NAT, Action.PROCESS),
        (tcp(5), tcp(5), tcp(5), NAT, Action.ACCEPT),
        (tcp(5), tcp(5), tcp(6), NAT, Action.MOVE),
        (tcp(5), tcp(5), tcp(6, "10.9.9.9"), NAT, Action.PROBE_FAR),
        (None, tcp(5), tcp(6), NAT, Action.MOVE),
        (None, tcp(0), tcp(6), NAT, Action.MOVE),
        (None, tcp(5), tcp(6, "10.9.9.9"), NAT, Action.PROBE_FAR),
        (None, None, udp(1), NAT, Action.IGNORE),
    ],
)
def test_reg17_what_a_message_over_a_path_may_do(bound, last, path, mode, action) -> None:  # type: ignore[no-untyped-def]
    assert classify(bound, last, path, mode) is action


def test_the_local_side_is_not_part_of_the_path() -> None:
    restored = udp(1)._replace(local_host="")
    assert classify(restored, restored, udp(1), STRICT) is Action.ACCEPT


def probe(*, near: bool, known: bool = False) -> PathProbe:
    return PathProbe(near=near, known_network=known, started=100.0)


def test_reg17_a_port_change_is_followed_when_only_the_new_one_answers() -> None:
    run = probe(near=True)
    run.new_answered = True
    assert run.outcome(100.5) is Outcome.WAIT
    assert run.outcome(101.0) is Outcome.MOVE


def test_reg17_a_port_change_is_followed_within_two_seconds() -> None:
    run = probe(near=True)
    assert run.outcome(101.9) is Outcome.WAIT
    run.new_answered = True
    assert run.outcome(101.9) is Outcome.MOVE


def test_s03_the_old_path_answers_so_nothing_moves() -> None:
    for near in (True, False):
        run = probe(near=near, known=True)
        run.new_answered = True
        run.old_answered = True
        assert run.outcome(100.1) is Outcome.STAY


def test_nobody_answers() -> None:
    assert probe(near=True).outcome(102.0) is Outcome.NONE
    assert probe(near=False, known=True).outcome(104.0) is Outcome.NONE


def test_s03_another_address_is_never_more_than_a_trial_and_only_in_a_known_network() -> None:
    for known, outcome in ((True, Outcome.TRIAL), (False, Outcome.NONE)):
        run = probe(near=False, known=known)
        run.new_answered = True
        assert run.outcome(103.9) is Outcome.WAIT
        assert run.outcome(104.0) is outcome


def test_the_next_look_is_at_the_next_mark() -> None:
    assert probe(near=True).next_look(100.25) == 0.75
    assert probe(near=True).next_look(101.5) == 0.5
    assert probe(near=False).next_look(101.0) == 3.0
    assert probe(near=False).next_look(110.0) == 0.0


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.1.2.3", "10.1.0.0/16"),
        ("2001:db8:1234:5678::1", "2001:db8:1200::/40"),
        ("fe80::1%eth0", "fe80::/40"),
        ("camera.local", ""),
    ],
)
def test_networks(host: str, network: str) -> None:
    assert network_of(host) == network


def test_networks_are_remembered_for_30_days() -> None:
    networks = remember_network({}, "10.1.2.3", 1000.0)
    assert is_known_network(networks, "10.1.200.200", 2000.0)
    assert not is_known_network(networks, "10.2.2.3", 2000.0)
    assert not is_known_network(networks, "10.1.2.3", 1000.0 + NETWORK_S)
    later = remember_network(networks, "10.2.2.3", 1000.0 + NETWORK_S)
    assert list(later) == ["10.2.0.0/16"]


def test_a_recent_network_changes_nothing() -> None:
    networks = remember_network({}, "10.1.2.3", 1e6)
    assert remember_network(networks, "10.1.9.9", 1e6 + 3600) is networks
    assert remember_network(networks, "10.1.9.9", 1e6 + 90_000) is not networks
    assert remember_network(networks, "nonsense", 1e9) is networks


def test_i10_networks_are_bounded() -> None:
    networks = {}
    for number in range(40):
        networks = remember_network(networks, f"10.{number}.0.1", 1e6 + number)
    assert len(networks) == NETWORKS_KEPT
    assert "10.39.0.0/16" in networks
