"""Stateless nonces."""

import pytest

from gb28181gw.sip.exceptions import LocalProtocolError
from gb28181gw.sip.nonce import NonceMinter, NonceStatus

KEY = bytes(range(32))
NOW = 1_790_000_000.25
IP = "192.168.1.64"
DEVICE = "34020000001320000001"


def test_valid_with_age() -> None:
    minter = NonceMinter(KEY)
    nonce = minter.mint(NOW, IP, DEVICE)
    verdict = minter.check(nonce, NOW + 60.5, IP, DEVICE)
    assert verdict.valid
    assert not verdict.expired
    assert not verdict.foreign
    assert verdict.age_s == pytest.approx(60.5)
    assert len(nonce) == 32
    assert nonce.replace("-", "").replace("_", "").isalnum()


def test_s02_survives_restart_with_the_same_key() -> None:
    nonce = NonceMinter(KEY).mint(NOW, IP, DEVICE)
    assert NonceMinter(KEY).check(nonce, NOW + 1, IP, DEVICE).valid
    assert NonceMinter(b"another key of ours").check(nonce, NOW + 1, IP, DEVICE).foreign


def test_s02_bound_to_address_and_device() -> None:
    minter = NonceMinter(KEY)
    nonce = minter.mint(NOW, IP, DEVICE)
    assert minter.check(nonce, NOW, "192.168.1.65", DEVICE).foreign
    assert minter.check(nonce, NOW, IP, "34020000001320000002").foreign
    mixed = minter.mint(NOW, "1", "23")
    assert minter.check(mixed, NOW, "12", "3").foreign


def test_reg05_old_nonce_is_expired_and_not_foreign() -> None:
    minter = NonceMinter(KEY, lifetime_s=60)
    nonce = minter.mint(NOW, IP, DEVICE)
    assert minter.check(nonce, NOW + 60, IP, DEVICE).valid
    verdict = minter.check(nonce, NOW + 86_400, IP, DEVICE)
    assert verdict.status is NonceStatus.EXPIRED
    assert verdict.expired
    assert verdict.age_s == pytest.approx(86_400)
    assert minter.check(nonce, NOW + 86_400, IP, DEVICE, lifetime_s=100_000).valid


def test_clock_set_back() -> None:
    minter = NonceMinter(KEY)
    nonce = minter.mint(NOW, IP, DEVICE)
    near = minter.check(nonce, NOW - 2, IP, DEVICE)
    assert near.valid
    assert near.age_s == 0.0
    assert minter.check(nonce, NOW - 3600, IP, DEVICE).expired


def test_two_nonces_of_one_moment_differ() -> None:
    minter = NonceMinter(KEY)
    assert len({minter.mint(NOW, IP, DEVICE) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "nonce", ["", "x", "A" * 32, "é" * 32, "?" * 32, "A" * 31 + "=", "A" * 33, "A" * 30 + "\n\n"]
)
def test_invented_nonce_is_foreign(nonce: str) -> None:
    assert NonceMinter(KEY).check(nonce, NOW, IP, DEVICE).foreign


def test_s02_any_changed_character_is_foreign() -> None:
    minter = NonceMinter(KEY)
    nonce = minter.mint(NOW, IP, DEVICE)
    for position, char in enumerate(nonce):
        changed = nonce[:position] + ("A" if char != "A" else "B") + nonce[position + 1 :]
        assert minter.check(changed, NOW, IP, DEVICE).foreign


def test_short_key_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        NonceMinter(b"short")
