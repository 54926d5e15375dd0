from __future__ import annotations

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.ssrc import SsrcPool, ssrc_text
from tests.support.clock import FakeClock


def test_ssrc_follows_the_rule_of_annex_g() -> None:
    ssrcs = SsrcPool("20000", 30, FakeClock())
    live, history = ssrcs.acquire(live=True), ssrcs.acquire(live=False)
    assert live.text.startswith("020000")
    assert history.text.startswith("120000")
    assert len(live.text) == len(history.text) == 10
    assert int(live.text) == live.value < 2**32


def test_leading_zero_stays_in_the_text() -> None:
    assert ssrc_text(200000001) == "0200000001"


def test_inv05_ssrc_zero_is_never_handed_out() -> None:
    ssrcs = SsrcPool("00000", 30, FakeClock())
    values = {ssrcs.acquire(live=True).value for _ in range(9_999)}
    assert 0 not in values
    with pytest.raises(GatewayError) as error:
        ssrcs.acquire(live=True)
    assert error.value.code == "gb.media.ssrc_exhausted"


def test_inv06_ssrc_rests_and_comes_back() -> None:
    clock = FakeClock()
    ssrcs = SsrcPool("20000", 30, clock)
    leases = [ssrcs.acquire(live=True) for _ in range(10_000)]
    assert len({lease.value for lease in leases}) == 10_000
    assert ssrcs.alarm
    leases[5].release()
    leases[5].release()
    with pytest.raises(GatewayError):
        ssrcs.acquire(live=True)
    assert ssrcs.acquire(live=False).value >= 1_200_000_000
    clock.now += 30
    assert ssrcs.acquire(live=True).value == leases[5].value


def test_reserve_for_restored_dialogs() -> None:
    clock = FakeClock()
    ssrcs = SsrcPool("20000", 30, clock)
    restored = ssrcs.reserve(200000001, "stream-1")
    foreign = ssrcs.reserve(999, "stream-2")
    assert ssrcs.owners() == {200000001: "stream-1", 999: "stream-2"}
    with pytest.raises(GatewayError):
        ssrcs.reserve(200000001)
    assert 200000001 not in {ssrcs.acquire(live=True).value for _ in range(9_999)}
    restored.release()
    foreign.release()
    with pytest.raises(GatewayError):
        ssrcs.reserve(999)
    clock.now += 31
    with ssrcs.reserve(999) as lease:
        assert lease.text == "0000000999"
    history = ssrcs.reserve(1_200_000_007)
    assert history.value in ssrcs.owners()


@pytest.mark.parametrize("value", [0, -1, 2**32])
def test_values_that_are_no_ssrc_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="no SSRC"):
        SsrcPool("20000", 30, FakeClock()).reserve(value)


@pytest.mark.parametrize("digits", ["2000", "200000", "2000x", "１２３４５"])
def test_domain_part_is_five_digits(digits: str) -> None:
    with pytest.raises(ValueError, match="digits 4 to 8"):
        SsrcPool(digits, 30, FakeClock())
