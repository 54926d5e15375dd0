import random

import pytest

from gb28181gw.sim.faults import FaultRates, Impairment

SENT = [bytes((number,)) for number in range(200)]


def run(rates: FaultRates, seed: int = 1) -> tuple[list[bytes], Impairment]:
    impairment = Impairment(rates, random.Random(seed))
    out: list[bytes] = []
    for data in SENT:
        out.extend(impairment.apply(data))
    out.extend(impairment.flush())
    return out, impairment


def test_nothing_happens_without_rates() -> None:
    out, _ = run(FaultRates())
    assert out == SENT
    assert FaultRates().none


def test_loss_is_counted() -> None:
    out, impairment = run(FaultRates(loss=0.3))
    assert len(out) + impairment.lost == len(SENT)
    assert 30 < impairment.lost < 90


def test_duplicates_follow_at_once() -> None:
    out, impairment = run(FaultRates(duplicate=0.3))
    assert len(out) == len(SENT) + impairment.duplicated
    assert sorted(set(out)) == sorted(SENT)
    assert impairment.duplicated > 30


def test_reordering_loses_nothing_and_swaps_neighbours() -> None:
    out, impairment = run(FaultRates(reorder=0.3))
    assert sorted(out) == sorted(SENT)
    assert out != SENT
    assert impairment.reordered > 20
    assert all(abs(position - data[0]) <= 1 for position, data in enumerate(out))


def test_the_last_held_datagram_leaves_by_flush() -> None:
    impairment = Impairment(FaultRates(reorder=0.999999), random.Random(1))
    assert impairment.apply(b"a") == ()
    assert impairment.flush() == (b"a",)
    assert impairment.flush() == ()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_seed_same_faults(seed: int) -> None:
    rates = FaultRates(loss=0.1, duplicate=0.1, reorder=0.1)
    assert run(rates, seed)[0] == run(rates, seed)[0]
