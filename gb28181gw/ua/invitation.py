"""The life of one INVITE of ours, from the request to the end of its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gb28181gw.sip.message import Request, Response
from gb28181gw.sip.path import Path
from gb28181gw.ua.models import Answer


class Invitation:
    """State that outlives the awaiting caller: a 2xx may come late, again, or from two ends.

    The first 2xx is the caller's: it gets an `Answer` and acknowledges it. Every further 2xx of the same end gets
    that ACK again. A 2xx that nobody waits for any more (CANCEL was sent, F-05) or of another end (a fork) is
    acknowledged and ended by the agent.
    """

    __slots__ = (
        "abandoned",
        "acks",
        "future",
        "on_provisional",
        "path",
        "request",
        "sent_by",
        "transaction_id",
        "winner",
    )

    def __init__(
        self, request: Request, path: Path, sent_by: str, on_provisional: Callable[[Response], None] | None
    ) -> None:
        self.request = request
        self.path = path
        self.sent_by = sent_by
        self.on_provisional = on_provisional
        self.transaction_id = ""
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.abandoned = False
        """Nobody waits any more; whatever is agreed to from now on is ended."""
        self.winner: str | None = None
        """Tag of the end whose 2xx the caller got."""
        self.acks: dict[str, bytes] = {}
        """Tag of the far end -> its ACK, for repeated 2xx."""
