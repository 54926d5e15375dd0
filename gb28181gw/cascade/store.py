"""What is kept of upper platforms over restarts; `storage.uppers` implements it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gb28181gw.cascade.models import Upper


@dataclass(frozen=True, slots=True)
class ShareRow:
    """One channel and the id under which one upper knows it."""

    device_id: str
    channel_id: str
    shared_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUpper:
    """One upper as loaded."""

    upper: Upper
    share_all: bool
    rows: tuple[ShareRow, ...]


class UpperStore(Protocol):
    """Every call returns when it is committed (I9). Raises GatewayError gb.route.storage_unavailable."""

    async def load_uppers(self) -> list[StoredUpper]: ...

    async def save_upper(self, upper: Upper) -> None: ...

    async def remove_upper(self, upper_id: str) -> None:
        """With its shares."""
        ...

    async def replace_shares(self, upper_id: str, share_all: bool, rows: Sequence[ShareRow]) -> None:
        """All or nothing."""
        ...

    async def add_shares(self, upper_id: str, rows: Iterable[ShareRow]) -> None:
        """Ids that were made for colliding channels."""
        ...
