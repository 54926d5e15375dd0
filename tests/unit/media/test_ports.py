from __future__ import annotations

import random

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.ports import PortLease, PortPool
from tests.support.clock import FakeClock


def pool(first: int = 20000, last: int = 20039, rest_s: float = 30.0) -> tuple[PortPool, FakeClock]:
    clock = FakeClock()
    return PortPool(first, last, rest_s, clock), clock


def test_ports_are_even_inside_the_range_and_in_random_order() -> None:
    ports, _ = pool(20001, 22000)
    taken = [ports.acquire().port for _ in range(ports.capacity)]
    assert len(set(taken)) == len(taken) == 999
    assert all(port % 2 == 0 for port in taken)
    assert min(taken) == 20002
    assert max(taken) == 21998
    assert taken != sorted(taken)


def test_f14_exhausted_pool_refuses_with_the_figures_and_recovers() -> None:
    ports, clock = pool()
    leases = [ports.acquire("stream") for _ in range(20)]
    with pytest.raises(GatewayError) as error:
        ports.acquire()
    assert error.value.code == "gb.media.port_exhausted"
    assert "20 by streams" in error.value.detail
    leases[0].release()
    with pytest.raises(GatewayError):
        ports.acquire()
    clock.now += 30
    assert ports.acquire().port == leases[0].port


def test_inv06_released_port_rests_before_it_is_used_again() -> None:
    ports, clock = pool()
    lease = ports.acquire()
    lease.release()
    others = [ports.acquire() for _ in range(19)]
    assert lease.port not in {other.port for other in others}
    assert ports.resting == 1
    clock.now += 29
    assert ports.free == 0
    clock.now += 1
    assert ports.free == 1


def test_release_counts_once_even_when_another_lease_has_the_number() -> None:
    ports, clock = pool(20000, 20001, rest_s=0)
    first = ports.acquire("a")
    first.release()
    clock.now += 1
    second = ports.acquire("b")
    first.release()
    first.mark_taken()
    assert ports.owners() == {second.port: "b"}


def test_f14_port_of_another_program_is_set_aside_and_tried_later() -> None:
    ports, clock = pool(20000, 20003)
    lease = ports.acquire()
    ports.mark_taken(lease.port)
    lease.release()
    assert (ports.in_use, ports.taken, ports.resting) == (0, 1, 0)
    assert ports.acquire().port != lease.port
    clock.now += 60
    assert ports.acquire().port == lease.port


def test_f14_alarm_at_80_percent() -> None:
    ports, _ = pool()
    leases = [ports.acquire() for _ in range(15)]
    assert not ports.alarm
    leases.append(ports.acquire())
    assert ports.alarm


def test_context_manager_releases() -> None:
    ports, _ = pool()
    with ports.acquire("talk") as lease:
        assert ports.owners() == {lease.port: "talk"}
    assert ports.in_use == 0
    assert ports.resting == 1


def test_reserve_takes_this_very_port_once() -> None:
    ports, _ = pool()
    lease = ports.reserve(20010, "restored")
    with pytest.raises(GatewayError) as error:
        ports.reserve(20010)
    assert error.value.code == "gb.media.bind_failed"
    assert 20010 not in [ports.acquire().port for _ in range(19)]
    lease.release()
    assert ports.resting == 1


def test_reserved_port_outside_the_range_is_forgotten_after_its_rest() -> None:
    ports, clock = pool()
    ports.reserve(40000).release()
    clock.now += 31
    assert ports.free == ports.capacity


def test_bad_range_is_refused() -> None:
    with pytest.raises(ValueError, match="not a range"):
        PortPool(3, 2, 1.0, FakeClock())


def test_i3_no_port_is_leased_twice_in_a_thousand_random_rounds() -> None:
    ports, clock = pool(rest_s=5)
    randomness = random.Random(3)
    held: dict[int, PortLease] = {}
    released_at: dict[int, float] = {}
    for _ in range(5000):
        clock.now += randomness.random()
        if randomness.random() < 0.5 and ports.free:
            lease = ports.acquire()
            assert lease.port not in held
            assert clock.now - released_at.get(lease.port, 0) >= 5
            held[lease.port] = lease
        elif held:
            lease = held.pop(randomness.choice(list(held)))
            lease.release()
            lease.release()
            released_at[lease.port] = clock.now
        assert ports.in_use == len(held)
        assert ports.in_use + ports.resting + ports.free == ports.capacity
