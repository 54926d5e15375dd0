from __future__ import annotations

import socket

import pytest

from gb28181gw.transport import local_address
from gb28181gw.transport.local_address import LocalAddresses, is_unspecified, normalise


@pytest.mark.parametrize(
    ("shown", "meant"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:0:1", "::ffff:0:1"),
    ],
)
def test_net10_mapped_addresses_are_shown_as_ipv4(shown: str, meant: str) -> None:
    assert normalise(shown) == meant


def test_inv23_the_kernel_says_which_address_a_peer_sees() -> None:
    addresses = LocalAddresses()
    assert addresses.towards("127.0.0.1") == "127.0.0.1"
    assert addresses.towards("127.0.0.5") in ("127.0.0.1", "127.0.0.5")
    assert not is_unspecified(addresses.towards("127.0.0.1"))


def test_net01_a_configured_address_is_told_to_everybody() -> None:
    addresses = LocalAddresses(advertise="203.0.113.9")
    assert addresses.towards("127.0.0.1") == addresses.towards("10.0.0.1") == "203.0.113.9"


def test_no_route_is_an_empty_answer_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class NoRoute:
        def __init__(self, *args: object) -> None:
            asked.append(args)
            raise OSError

    addresses = LocalAddresses()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", NoRoute)
        assert addresses.towards("127.0.0.1") == ""
        assert addresses.towards("127.0.0.1") == ""
    assert len(asked) == 2
    assert addresses.towards("127.0.0.1") == "127.0.0.1"


def test_i10_the_cache_has_two_generations_and_keeps_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(host: str) -> str:
        asked.append(host)
        return "192.0.2.1"

    monkeypatch.setattr(local_address, "_ask_kernel", ask)
    monkeypatch.setattr(local_address, "_CACHED_PER_GENERATION", 10)
    addresses = LocalAddresses()
    for number in range(100):
        addresses.towards(f"10.0.0.{number}")
        assert addresses.towards("10.9.9.9") == "192.0.2.1"
        assert len(addresses._young) + len(addresses._old) <= 20
    assert asked.count("10.9.9.9") == 1
    addresses.forget()
    addresses.towards("10.9.9.9")
    assert asked.count("10.9.9.9") == 2
