"""Access keys."""

from __future__ import annotations

import re

import pytest

from gb28181gw.access.keys import Key, Keys, first_key, hash_key, make_key
from gb28181gw.access.roles import Role
from tests.support.api_services import NOW, TestClock
from tests.support.stores import MemoryKeyStore


class CountingStore(MemoryKeyStore):
    loads = 0

    async def load_keys(self) -> list[Key]:
        self.loads += 1
        return await super().load_keys()


async def rig() -> tuple[Keys, CountingStore, TestClock]:
    clock, store = TestClock(), CountingStore()
    keys = Keys(store, wall=clock.wall, monotonic=clock.monotonic, built_in=[first_key("gbk_first")])
    await keys.load()
    return keys, store, clock


def test_s08_a_key_has_256_random_bits_and_only_its_hash_is_kept() -> None:
    key, text = make_key("wall", Role.VIEWER, now=NOW)
    other, other_text = make_key("wall", Role.VIEWER, now=NOW)
    assert re.fullmatch(r"gbk_[A-Za-z0-9_-]{43}", text)
    assert text != other_text
    assert key.id != other.id
    assert key.hash == hash_key(text)
    assert text not in repr(key)
    assert key.expires_at is None
    assert make_key("x", Role.ADMIN, now=NOW, days=0.5)[0].expires_at == NOW + 43_200


async def test_a_key_opens_until_it_expires() -> None:
    keys, _, clock = await rig()
    key, text = await keys.create("a", Role.OPERATOR, days=1)
    assert await keys.verify(text) == key
    assert keys.is_valid(key.id)
    clock.now += 86_400
    assert await keys.verify(text) is None
    assert not keys.is_valid(key.id)


async def test_the_first_key_is_admin_and_stays() -> None:
    keys, _, _ = await rig()
    found = await keys.verify("gbk_first")
    assert found is not None
    assert found.role is Role.ADMIN
    assert keys.all()[0].id == "first"
    with pytest.raises(ValueError, match=r"secrets\.toml"):
        await keys.remove("first")


@pytest.mark.parametrize("text", ["", "x", "gbk_", "gbk_\udc80", "gbk_" + "x" * 10_000, "gbk_first "])
async def test_what_is_no_key_opens_nothing(text: str) -> None:
    keys, _, _ = await rig()
    assert await keys.verify(text) is None


async def test_a_key_made_by_another_process_is_found_and_the_store_is_spared() -> None:
    keys, store, clock = await rig()
    key, text = make_key("cli", Role.VIEWER, now=NOW)
    await store.add_key(key)
    clock.ticks += 1
    assert await keys.verify(text) == key
    loads = store.loads
    for _ in range(100):
        assert await keys.verify("gbk_unknown") is None
    assert store.loads == loads
    clock.ticks += 1
    await keys.verify("gbk_unknown")
    assert store.loads == loads + 1
    await keys.verify("not of ours")
    assert store.loads == loads + 1


async def test_removal_is_told_and_final() -> None:
    keys, store, _ = await rig()
    gone: list[str] = []
    keys.on_gone(gone.append)
    key, text = await keys.create("a", Role.VIEWER)
    assert await keys.remove(key.id) == key
    assert await keys.verify(text) is None
    assert gone == [key.id]
    assert await keys.remove(key.id) is None
    other, _ = await keys.create("b", Role.VIEWER)
    await store.remove_key(other.id)
    await keys.load()
    assert gone == [key.id, other.id]
