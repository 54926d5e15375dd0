"""What a request that passes through us takes along (GB/T 28181-2022 Annex H, 8.3): its way, and on whose behalf it is.

A passage is set for the task that serves a request from above, and holds for the requests that this task, and those it
starts, send below: between the two lie parts that need not know of it (the sharing of streams, the ladder of ways).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_ON_BEHALF: Final = frozenset({"INVITE", "MESSAGE", "INFO"})
"""What is asked and ordered for somebody; what ends, acknowledges or keeps something is for nobody."""


@dataclass(slots=True, kw_only=True)
class Passage:
    """One request on its way. Mutable: `route` is filled by the answer."""

    preferred: tuple[str, ...] = ()
    """`X-PreferredPath` of our INVITE; empty: none."""
    identity: str = ""
    """`Monitor-User-Identity` of our requests; empty: none."""
    route: str = ""
    """`X-RoutePath` of the final answer to our INVITE, good or bad."""

    def headers(self, method: str) -> tuple[tuple[str, str], ...]:
        """Of a request outside dialogs, or of an INFO."""
        found: list[tuple[str, str]] = []
        if self.preferred and method == "INVITE":
            found.append(("X-PreferredPath", "-".join(self.preferred)))
        if self.identity and method in _ON_BEHALF:
            found.append(("Monitor-User-Identity", self.identity))
        return tuple(found)


PASSAGE: ContextVar[Passage | None] = ContextVar("passage", default=None)
"""Of the task that runs."""
USER: ContextVar[str] = ContextVar("user", default="")
"""Whose request of our own the task serves: the id of a key, which tells other platforms nothing but that it is one.
Empty: nobody's."""


def headers_for(method: str, own_id: str, *, platform: bool) -> tuple[tuple[str, str], ...]:
    """What a request outside dialogs, or an INFO, takes along: its passage, or the user of ours whom it is for.

    Platforms are told of users, devices not (8.3).
    """
    passage, user = PASSAGE.get(), USER.get()
    if passage is not None:
        return passage.headers(method)
    if not platform or not user or method not in _ON_BEHALF:
        return ()
    return (("Monitor-User-Identity", f"{own_id}-{user}"),)


@contextmanager
def passing(passage: Passage | None) -> Iterator[None]:
    """Requests of this task belong to that passage meanwhile, or to none."""
    token = PASSAGE.set(passage)
    try:
        yield
    finally:
        PASSAGE.reset(token)
