from __future__ import annotations

from gb28181gw.ua.refusals import RefusalLimits, Refusals


def test_s20_burst_of_60_then_20_a_second() -> None:
    refusals = Refusals(RefusalLimits())
    for _ in range(60):
        assert refusals.admits("10.0.0.1", 0.0)
        refusals.refused("10.0.0.1", 0.0)
    assert not refusals.admits("10.0.0.1", 0.0)
    read = 0
    for step in range(1000):
        if refusals.admits("10.0.0.1", step / 1000):
            read += 1
            refusals.refused("10.0.0.1", step / 1000)
    assert 18 <= read <= 20
    assert refusals.dropped == 1001 - read


def test_s20_others_are_not_touched() -> None:
    refusals = Refusals(RefusalLimits(burst=1))
    refusals.refused("10.0.0.1", 0.0)
    assert not refusals.admits("10.0.0.1", 0.0)
    assert refusals.admits("10.0.0.2", 0.0)
    assert len(refusals) == 1


def test_i10_hosts_that_behave_again_are_forgotten() -> None:
    refusals = Refusals(RefusalLimits())
    refusals.refused("10.0.0.1", 0.0)
    assert len(refusals) == 1
    assert refusals.admits("10.0.0.1", 1.0)
    assert len(refusals) == 0


def test_i10_table_has_a_cap_and_drops_the_oldest() -> None:
    refusals = Refusals(RefusalLimits(hosts=100, burst=1))
    for number in range(1000):
        refusals.refused(f"10.0.{number // 250}.{number % 250}", 0.0)
    assert len(refusals) == 100
    assert refusals.admits("10.0.0.0", 0.0)
    assert not refusals.admits("10.0.3.249", 0.0)


def test_s20_one_report_a_host_and_minute_with_the_number_of_drops() -> None:
    reports: list[tuple[str, int]] = []
    refusals = Refusals(
        RefusalLimits(burst=1, per_second=0.001), on_shed=lambda host, count: reports.append((host, count))
    )
    refusals.refused("10.0.0.1", 0.0)
    for step in range(100):
        refusals.admits("10.0.0.1", step / 10)
    assert reports == [("10.0.0.1", 1)]
    refusals.admits("10.0.0.1", 60.0)
    assert reports == [("10.0.0.1", 1), ("10.0.0.1", 100)]


def test_entry_with_drops_stays_until_its_minute_is_over() -> None:
    reports: list[int] = []
    refusals = Refusals(RefusalLimits(burst=1), on_shed=lambda host, count: reports.append(count))
    refusals.refused("10.0.0.1", 0.0)
    assert not refusals.admits("10.0.0.1", 0.0)
    assert not refusals.admits("10.0.0.1", 0.0)
    assert refusals.admits("10.0.0.1", 30.0)
    assert len(refusals) == 1
    assert refusals.admits("10.0.0.1", 61.0)
    assert len(refusals) == 0
    assert reports == [1, 1]
