"""What the handlers of this package need of a request that came in; `ua.Incoming` satisfies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path


class IncomingRequest(Protocol):
    """One request of a peer, answered once (at any later time) or dropped."""

    @property
    def request(self) -> Request: ...

    @property
    def path(self) -> Path: ...

    @property
    def from_user(self) -> str: ...

    def respond(
        self,
        status: int,
        reason: str = "",
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> None: ...

    def ignore(self) -> None:
        """No answer, now or later (S-11)."""
        ...
