from __future__ import annotations

import dataclasses

import pytest

from gb28181gw.sip.timers import Timers

# RFC 3261 table 4 with the default T1, T2, T4; L and M by RFC 6026
DEFAULTS = {
    "a": 0.5,
    "b": 32,
    "c": 180,
    "d": 32,
    "e": 0.5,
    "f": 32,
    "g": 0.5,
    "h": 32,
    "i": 5,
    "j": 32,
    "k": 5,
    "l": 32,
    "m": 32,
    "trying": 0.2,
}


@pytest.mark.parametrize(("name", "seconds"), DEFAULTS.items())
def test_default_values_are_those_of_the_rfc(name: str, seconds: float) -> None:
    assert getattr(Timers(), name) == seconds


def test_a_small_t1_makes_every_t1_timer_small() -> None:
    timers = Timers(t1=0.01, t2=0.08, t4=0.05)
    assert timers.b == timers.d == timers.f == timers.h == timers.j == timers.l == timers.m == 0.64
    assert timers.i == timers.k == 0.05


def test_timers_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Timers().t1 = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [{"t1": 0}, {"t1": 5}, {"t4": 0}, {"t1": -1}])
def test_values_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="timers must be positive"):
        Timers(**wrong)
