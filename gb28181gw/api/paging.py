"""`page`, `size` and `q` of every list (docs/reference/api.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from gb28181gw.api.schemas import MAX_PAGE_SIZE, Page

Source = TypeVar("Source")
Shown = TypeVar("Shown", bound=BaseModel)


class Paging:
    """Which part of a list is asked for."""

    def __init__(
        self,
        page: Annotated[int, Query(ge=1, le=1_000_000_000, description="From 1.")] = 1,
        size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = 50,
        q: Annotated[str, Query(max_length=128, description="Part of an id or a name.")] = "",
    ) -> None:
        self.page = page
        self.size = size
        self.q = q.strip()

    @property
    def offset(self) -> int:
        """Rows before the asked page, for lists that are cut elsewhere."""
        return (self.page - 1) * self.size

    def cut(self, rows: Sequence[Source], show: Callable[[Source], Shown]) -> Page[Shown]:
        """The asked page of `rows`; only its rows are turned into answers."""
        start = self.offset
        return Page[Shown](items=[show(row) for row in rows[start : start + self.size]], total=len(rows))

    def matches(self, *texts: str) -> bool:
        """Whether `q` is part of one of the texts, in any case; an empty `q` always is."""
        wanted = self.q.lower()
        return not wanted or any(wanted in text.lower() for text in texts)

    def pick(self, rows: Iterable[Source], texts: Callable[[Source], Sequence[str]]) -> list[Source]:
        """The rows that `q` matches."""
        if not self.q:
            return list(rows)
        return [row for row in rows if self.matches(*texts(row))]


Paged = Annotated[Paging, Depends(Paging)]
