"""Bans and the pace of registrations."""

from __future__ import annotations

from gb28181gw.devices.bans import (
    BAD_ANSWERS,
    BAN_MAX_S,
    BAN_S,
    DROP_PER_MINUTE,
    FAILING_DEVICES,
    LOOP_PER_MINUTE,
    TABLE_LIMIT,
    BanTable,
    RegisterRates,
)
from tests.support.stores import MemoryDeviceStore

IP = "10.0.0.1"


def fail(table: BanTable, times: int, *, device: str = "d", wall: float = 1000.0, ip: str = IP):  # type: ignore[no-untyped-def]
    ban = None
    for _ in range(times):
        ban = table.bad(ip, device, wall, proven=False)
    return ban


def banned(
    table: BanTable, device: str = "d", wall: float = 1000.0, *, proven: bool = False, ip: str = IP
) -> bool:
    return table.banned(ip, device, wall, proven=proven)


def test_s02_the_sixth_answer_is_banned() -> None:
    table = BanTable(MemoryDeviceStore())
    assert fail(table, BAD_ANSWERS - 1) is None
    assert not banned(table)
    ban = fail(table, 1)
    assert ban is not None
    assert banned(table)
    assert not banned(table, wall=1000.0 + BAN_S)
    assert not banned(table, "other")
    assert not banned(table, ip="10.0.0.2")


def test_s02_old_failures_do_not_count() -> None:
    table = BanTable(MemoryDeviceStore())
    for number in range(20):
        assert table.bad(IP, "d", 1000.0 + 160 * number, proven=False) is None


def test_s02_a_good_answer_starts_anew() -> None:
    table = BanTable(MemoryDeviceStore())
    fail(table, 4)
    table.good(IP, "d")
    assert fail(table, 4) is None


def test_s02_bans_double_up_to_a_day() -> None:
    table = BanTable(MemoryDeviceStore())
    wall = 1000.0
    lengths = []
    for _ in range(10):
        ban = fail(table, BAD_ANSWERS, wall=wall)
        lengths.append(ban.until - wall)
        wall = ban.until
    assert lengths[:3] == [BAN_S, 2 * BAN_S, 4 * BAN_S]
    assert lengths[-1] == BAN_MAX_S


def test_s02_a_ban_long_ago_is_forgotten() -> None:
    table = BanTable(MemoryDeviceStore())
    ban = fail(table, BAD_ANSWERS)
    later = ban.until + BAN_MAX_S
    assert fail(table, BAD_ANSWERS, wall=later).until - later == BAN_S


def test_s02_twenty_failing_devices_ban_the_address_but_not_the_proven() -> None:
    table = BanTable(MemoryDeviceStore())
    for number in range(FAILING_DEVICES - 1):
        assert table.bad(IP, f"d{number}", 1000.0, proven=False) is None
    assert table.bad(IP, "proven", 1000.0, proven=True) is None
    assert table.bad(IP, "last", 1000.0, proven=False) is not None
    assert banned(table, "never seen")
    assert not banned(table, "never seen", proven=True)


async def test_s02_bans_are_stored_and_loaded() -> None:
    store = MemoryDeviceStore()
    fail(BanTable(store), BAD_ANSWERS)
    again = BanTable(store)
    again.load(await store.load_bans())
    assert banned(again)
    assert len(again) == 1


async def test_reg07_a_person_who_corrects_the_password_ends_the_ban() -> None:
    store = MemoryDeviceStore()
    table = BanTable(store)
    fail(table, BAD_ANSWERS)
    fail(table, BAD_ANSWERS, ip="10.0.0.2")
    table.forgive("d")
    assert not banned(table)
    assert not banned(table, ip="10.0.0.2")
    assert await store.load_bans() == []


def test_i10_the_tables_are_bounded() -> None:
    table = BanTable(MemoryDeviceStore())
    for number in range(TABLE_LIMIT + 50):
        table.bad(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "d", 1000.0, proven=False)
    assert len(table._bad) == TABLE_LIMIT
    assert len(table._failing) == TABLE_LIMIT
    rates = RegisterRates()
    for number in range(TABLE_LIMIT + 50):
        rates.count(IP, str(number), 1.0, credentials=False)
    assert len(rates._rates) == TABLE_LIMIT


def test_f01_a_looping_device_is_answered_slower_and_slower() -> None:
    rates = RegisterRates()
    delays = [rates.count(IP, "d", 1.0, credentials=True).delay_s for _ in range(20)]
    assert delays[:LOOP_PER_MINUTE] == [0.0] * LOOP_PER_MINUTE
    assert delays[LOOP_PER_MINUTE] == 0.5
    assert delays == sorted(delays)
    assert max(delays) == 4.0
    assert rates.count(IP, "other", 1.0, credentials=True).delay_s == 0
    assert rates.count(IP, "d", 62.0, credentials=True).delay_s == 0


def test_reg07_tens_of_registers_a_second_are_dropped() -> None:
    rates = RegisterRates()
    dropped = [rates.count(IP, "d", 1.0, credentials=True).drop for _ in range(DROP_PER_MINUTE + 10)]
    assert dropped.count(True) == 10


def test_reg19_a_device_that_never_reacts_to_401_is_noticed_once() -> None:
    rates = RegisterRates()
    noticed = [rates.count(IP, "d", 1.0, credentials=False).unheard for _ in range(20)]
    assert noticed.count(True) == 1
    reacting = RegisterRates()
    assert not any(reacting.count(IP, "d", 1.0, credentials=bool(number % 2)).unheard for number in range(20))
