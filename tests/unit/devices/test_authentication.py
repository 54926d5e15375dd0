"""Digest rules of S-02 on the nonce's life."""

from __future__ import annotations

from typing import Any

import pytest

from gb28181gw.devices.authentication import Authenticator, Judged, Judgement
from gb28181gw.devices.models import Device
from gb28181gw.sip.digest import Credentials, parse_credentials
from tests.support.devices import DOMAIN, FakeClock, PaperDevice, make_device, udp

IP = "10.1.1.1"


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.device = make_device(1)
        self.paper = PaperDevice(self.device.id, udp())
        self.authenticator = self.make()

    def make(self, not_before: float = 0.0) -> Authenticator:
        return Authenticator(key=b"k" * 32, realm=DOMAIN, clock=self.clock, not_before=not_before)

    def challenge(self, ip: str = IP, device_id: str = "") -> str:
        self.paper.nonce = self.authenticator.nonce(ip, device_id or self.device.id)
        self.paper.count = 0
        return self.paper.nonce

    def credentials(self, **options: Any) -> Credentials:
        found = parse_credentials(self.paper.authorization(**options).partition(": ")[2])
        assert found is not None
        return found

    def judge(self, credentials: Credentials | None = None, **changes: Any) -> Judged:
        values: dict[str, Any] = {
            "device_id": self.device.id,
            "username": "",
            "password": "secret-password",
            "device": self.device,
            "ip": IP,
            "changes_state": True,
            **changes,
        }
        return self.authenticator.judge(credentials or self.credentials(), **values)


@pytest.fixture
def world() -> World:
    made = World()
    made.challenge()
    return made


def test_the_right_answer_is_good(world: World) -> None:
    assert world.judge().judgement is Judgement.GOOD
    assert world.device.nonce == world.paper.nonce
    assert world.device.nonce_count == 1


@pytest.mark.parametrize("password", ["wrong", "", None])
def test_s01_a_wrong_or_missing_password_is_wrong(world: World, password: str | None) -> None:
    assert world.judge(password=password) == Judged(Judgement.WRONG, "wrong_password")
    assert world.device.nonce == ""


def test_s01_a_foreign_username_is_wrong_unless_configured(world: World) -> None:
    world.paper.username = "admin"
    assert world.judge() == Judged(Judgement.WRONG, "wrong_username")
    assert world.judge(username="admin").judgement is Judgement.GOOD


def test_s02_only_our_realm(world: World) -> None:
    world.paper.realm = "other"
    assert world.judge() == Judged(Judgement.CHALLENGE, "wrong_realm")


def test_s02_the_same_answer_twice_is_a_replay(world: World) -> None:
    credentials = world.credentials()
    assert world.judge(credentials).judgement is Judgement.GOOD
    assert world.judge(credentials, changes_state=False) == Judged(Judgement.STALE, "nonce_count")


def test_s02_nc_must_rise(world: World) -> None:
    assert world.judge(world.credentials(count=5)).judgement is Judgement.GOOD
    assert world.judge(world.credentials(count=4)).judgement is Judgement.STALE
    assert world.judge(world.credentials(count=5)).judgement is Judgement.STALE
    assert world.judge(world.credentials(count=6)).judgement is Judgement.GOOD
    assert world.device.nonce_count == 6


def test_reg03_nc_is_hashed_as_it_is_written(world: World) -> None:
    for nc in ("9", "0000000a", "0000000B", "c"):
        assert world.judge(world.credentials(nc=nc)).judgement is Judgement.GOOD
    assert world.device.nonce_count == 12


def test_s02_a_count_that_is_no_number_is_asked_again(world: World) -> None:
    assert world.judge(world.credentials(nc="xyz")) == Judged(Judgement.CHALLENGE, "nonce_count")


def test_reg02_without_qop(world: World) -> None:
    assert world.judge(world.credentials(qop=False)).judgement is Judgement.GOOD


def test_s02_without_qop_a_nonce_changes_state_once_and_refreshes_for_an_hour(world: World) -> None:
    credentials = world.credentials(qop=False)
    assert world.judge(credentials).judgement is Judgement.GOOD
    assert world.judge(credentials) == Judged(Judgement.STALE, "used_nonce")
    world.clock.advance(3500)
    assert world.judge(credentials, changes_state=False).judgement is Judgement.GOOD
    world.clock.advance(200)
    assert world.judge(credentials, changes_state=False) == Judged(Judgement.STALE, "expired")


def test_s02_a_counted_nonce_is_not_taken_without_its_count(world: World) -> None:
    assert world.judge().judgement is Judgement.GOOD
    assert world.judge(world.credentials(qop=False), changes_state=False) == Judged(
        Judgement.STALE, "nonce_count"
    )


def test_s02_the_first_use_is_within_a_minute(world: World) -> None:
    world.clock.advance(61)
    assert world.judge() == Judged(Judgement.STALE, "expired")


def test_reg05_a_nonce_in_use_lives_for_an_hour(world: World) -> None:
    assert world.judge().judgement is Judgement.GOOD
    world.clock.advance(3500)
    assert world.judge().judgement is Judgement.GOOD
    world.clock.advance(200)
    assert world.judge() == Judged(Judgement.STALE, "expired")


def test_s02_nonces_minted_before_the_last_used_one_are_dead(world: World) -> None:
    old = world.credentials()
    world.clock.advance(1)
    world.challenge()
    assert world.judge().judgement is Judgement.GOOD
    assert world.judge(old) == Judged(Judgement.STALE, "older_nonce")


@pytest.mark.parametrize(("ip", "device_id"), [("10.9.9.9", ""), (IP, "34020000001180000099")])
def test_s02_a_nonce_of_another_place_or_device_is_foreign(world: World, ip: str, device_id: str) -> None:
    world.challenge(ip, device_id)
    assert world.judge() == Judged(Judgement.STALE, "foreign_nonce")


def test_s02_an_invented_nonce_is_foreign(world: World) -> None:
    world.paper.nonce = "0123456789abcdef"
    assert world.judge() == Judged(Judgement.STALE, "foreign_nonce")


def test_s02_a_wrong_hash_with_a_foreign_nonce_is_wrong_so_it_tells_nothing(world: World) -> None:
    world.paper.nonce = "0123456789abcdef"
    world.paper.password = "guess"
    assert world.judge().judgement is Judgement.WRONG


def test_s02_another_algorithm_than_offered_is_no_way_in(world: World) -> None:
    text = world.paper.authorization().partition(": ")[2].replace("algorithm=MD5", "algorithm=SHA-256")
    credentials = parse_credentials(text)
    assert credentials is not None
    assert world.judge(credentials).judgement is Judgement.WRONG


def test_reg01_the_uri_is_hashed_as_received(world: World) -> None:
    for uri in ("sip:34020000002000000001@10.0.0.9:5060", "34020000002000000001@3402000000", "sip:other"):
        assert world.judge(world.credentials(uri=uri)).judgement is Judgement.GOOD


def test_f17_nonces_survive_a_restart(world: World) -> None:
    used = world.credentials()
    assert world.judge(used).judgement is Judgement.GOOD
    world.authenticator = world.make(not_before=world.device.nonce_minted_at)
    assert world.judge(used).judgement is Judgement.STALE
    assert world.judge().judgement is Judgement.GOOD


@pytest.mark.parametrize("step", [3600.0, -3600.0, 86_400.0, -86_400.0])
def test_f19_a_step_of_the_wall_clock_costs_no_challenge(world: World, step: float) -> None:
    assert world.judge().judgement is Judgement.GOOD
    world.clock.date += step
    assert world.judge().judgement is Judgement.GOOD
    world.clock.advance(1)
    world.challenge()
    assert world.judge().judgement is Judgement.GOOD


def test_f19_a_restart_with_a_clock_set_back_still_lets_devices_in(world: World) -> None:
    assert world.judge().judgement is Judgement.GOOD
    world.clock.date -= 86_400
    world.authenticator = world.make(not_before=world.device.nonce_minted_at)
    world.clock.advance(1)
    world.challenge()
    assert world.judge().judgement is Judgement.GOOD


def test_a_first_registration_has_no_nonce_state(world: World) -> None:
    nobody: Device | None = None
    judged = world.judge(device=nobody)
    assert judged.judgement is Judgement.GOOD
    assert judged.minted_at == pytest.approx(world.clock.date, abs=0.002)
