"""What sessions need of a durable store; `storage` implements it."""

from __future__ import annotations

from typing import Protocol

from gb28181gw.sessions.models import CallRecord


class CallStore(Protocol):
    """Dialogs by record id. Each call returns after the commit (I9)."""

    async def load_calls(self) -> list[CallRecord]: ...

    async def save_call(self, record: CallRecord) -> None: ...

    async def remove_call(self, record_id: str) -> None: ...
