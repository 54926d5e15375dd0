"""Pages that fit, made while they are asked for, few of them in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.cascade.paging import MOST_ITEMS, WINDOW, pages, send_all


def write(items: Sequence[bytes]) -> bytes:
    return b"head" + b"".join(items)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=300), st.integers(10, 400))
def test_annex_m_every_item_comes_once_in_order_and_pages_fit(items: list[bytes], limit: int) -> None:
    made = list(pages(items, write, limit=limit))
    assert b"".join(body[4:] for body in made) == b"".join(items)
    for body in made:
        assert len(body) <= limit or body[4:] in items  # one item goes whatever its size


def test_i10_items_are_taken_as_their_page_is_made() -> None:
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100_000):
            taken += 1
            yield b"x" * 50

    made = pages(source(), write, limit=1_000)
    for _ in range(10):
        next(made)
    assert taken <= 10 * MOST_ITEMS


async def test_cs05_at_most_four_wait_for_their_answer() -> None:
    flying = most = 0

    async def send(body: bytes) -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        for _ in range(20):
            await asyncio.sleep(0)
        flying -= 1

    assert await send_all([b"x"] * 50, send) == 50
    assert most == WINDOW and flying == 0


async def test_i8_others_have_their_turn_between_two_pages() -> None:
    turns: list[str] = []
    ended = False

    async def other() -> None:
        while not ended:
            turns.append("other")
            await asyncio.sleep(0)

    def bodies() -> Iterator[bytes]:
        for _ in range(10):
            turns.append("page")
            yield b"x"

    async def send(body: bytes) -> None:
        await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await send_all(bodies(), send)
    ended = True
    await task
    assert turns.count("page") == 10
    assert "page page" not in " ".join(turns)


async def test_a_page_that_is_refused_ends_the_rest() -> None:
    sent: list[bytes] = []

    async def send(body: bytes) -> None:
        sent.append(body)
        if body == b"2":
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await send_all([b"1", b"2", *[b"3"] * 100], send)
    assert len(sent) < 10
