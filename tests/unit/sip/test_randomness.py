from __future__ import annotations

from gb28181gw.sip.randomness import random_bytes, random_hex


def test_s04_no_octet_is_given_twice() -> None:
    drawn = [random_bytes(8) for _ in range(5_000)]
    assert len(set(drawn)) == len(drawn)


def test_sizes() -> None:
    assert {len(random_bytes(size)) for size in (1, 8, 4096)} == {1, 8, 4096}
    assert len(random_hex(16)) == 32
    assert set(random_hex(2000)) == set("0123456789abcdef")
