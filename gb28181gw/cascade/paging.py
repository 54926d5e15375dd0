"""Answers in several messages (Annex M): pages that fit the transport, sent with little in flight (CS-05)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

UDP_BODY: Final = 850
"""So that a message with its headers stays below 1,300 bytes (RFC 3261 18.1.1); one item goes whatever its size."""
TCP_BODY: Final = 16_000
"""About 35 items, a millisecond of work: nobody waits longer for their turn (I8)."""
MOST_ITEMS: Final = 200
WINDOW: Final = 4
"""Messages that wait for their 200."""


def pages(items: Iterable[Item], write: Callable[[Sequence[Item]], bytes], *, limit: int) -> Iterator[bytes]:
    """Bodies of at most `limit` bytes with as many items as fit, made while they are asked for."""
    source = iter(items)
    waiting: list[Item] = []
    guess = 1
    ended = False
    while True:
        while not ended and len(waiting) < guess:
            try:
                waiting.append(next(source))
            except StopIteration:
                ended = True
        if not waiting:
            return
        count = min(guess, len(waiting))
        body = write(waiting[:count])
        while len(body) > limit and count > 1:
            count = max(1, min(count - 1, count * limit // len(body)))
            body = write(waiting[:count])
        del waiting[:count]
        # The next page is tried with what this one would have held.
        guess = max(1, min(MOST_ITEMS, count * limit // max(len(body), 1)))
        yield body


async def send_all(bodies: Iterable[bytes], send: Callable[[bytes], Awaitable[object]]) -> int:
    """Send each body when fewer than `WINDOW` wait for their answer; returns how many.

    Raises what `send` raises, after those in flight have ended.
    """
    sent = 0
    flying: set[asyncio.Future[object]] = set()
    try:
        for body in bodies:
            sent += 1
            flying.add(asyncio.ensure_future(send(body)))
            await asyncio.sleep(0)  # a page is a turn: others go on between two (I8)
            if len(flying) >= WINDOW:
                done, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
        if flying:
            done, flying = await asyncio.wait(flying)
            for one in done:
                one.result()
    finally:
        for one in flying:
            one.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
    return sent
