"""Subscriptions of peers at us: the notifier's side of SUBSCRIBE dialogs (RFC 6665, GB/T 28181-2022 9.11, Annex N).

A `Grant` is one dialog with its `Event`, which is echoed as it came (the standard fixes no token but that of the
inter-domain catalogue, so peers differ: CS-18). Refreshes and the end come within the dialog. When to notify, and of
what, is decided above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.headers import parse_delta_seconds
from gb28181gw.sip.message import Response
from gb28181gw.sip.path import Path
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.incoming import Incoming

DEFAULT_S: Final = 600
"""N.2.1.2.1: of a SUBSCRIBE that does not say."""
LONGEST_S: Final = 86_400


@dataclass(slots=True, kw_only=True, eq=False)
class Grant:
    """One subscription of a peer. Its owner watches the time."""

    dialog: Dialog
    event: str
    """Value of `Event` as the peer wrote it."""
    expires_s: int
    """Granted by the latest 2xx."""


def asked_expiry(incoming: Incoming) -> int:
    """Seconds that a SUBSCRIBE asks for, bounded; 0 ends it."""
    asked = parse_delta_seconds(incoming.request.headers.get("Expires") or "")
    return DEFAULT_S if asked is None else min(asked, LONGEST_S)


class Notifier:
    """Grants and notifies. Holds no state of its own: the agent keeps the dialogs."""

    def __init__(self, agent: UserAgent) -> None:
        self._agent = agent

    def accept(
        self,
        incoming: Incoming,
        *,
        user: str,
        on_refresh: Callable[[Incoming], None],
        body: bytes = b"",
        content_type: str = "",
    ) -> Grant | None:
        """Answer 200 to a SUBSCRIBE and begin a subscription; None when it asked for none (Expires 0).

        `user`: who is at the far end, as `UserAgent.watch_dialog` has it. `on_refresh` gets every later request in
        the dialog and answers it, a SUBSCRIBE by `refresh`.
        """
        expires_s = asked_expiry(incoming)
        self._respond(incoming, expires_s, body, content_type)
        if not expires_s or incoming.dialog is None:
            return None
        grant = Grant(
            dialog=incoming.dialog,
            event=incoming.request.headers.get("Event") or "presence",
            expires_s=expires_s,
        )
        self._agent.watch_dialog(grant.dialog, on_refresh, user=user)
        return grant

    def refresh(self, grant: Grant, incoming: Incoming, *, body: bytes = b"", content_type: str = "") -> None:
        """Answer a SUBSCRIBE within the dialog; `expires_s` is 0 afterwards when it ended the subscription."""
        grant.expires_s = asked_expiry(incoming)
        grant.dialog.path = incoming.path
        self._respond(incoming, grant.expires_s, body, content_type)

    async def notify(
        self, grant: Grant, path: Path, body: bytes, content_type: str, *, remaining_s: int, timeout_s: float
    ) -> Response:
        """One notification of a subscription that goes on. Raises GatewayError as `UserAgent.send_in_dialog`.

        `path`: where the peer is now; a subscription outlives a connection.
        """
        grant.dialog.path = path
        return await self._agent.send_in_dialog(
            grant.dialog,
            "NOTIFY",
            body=body,
            content_type=content_type,
            headers=(("Event", grant.event), ("Subscription-State", f"active;expires={max(remaining_s, 0)}")),
            timeout_s=timeout_s,
        )

    async def terminate(self, grant: Grant, path: Path, reason: str, *, timeout_s: float) -> None:
        """Tell the end, once. Raises as `notify`."""
        self.forget(grant)
        grant.dialog.path = path
        await self._agent.send_in_dialog(
            grant.dialog,
            "NOTIFY",
            headers=(("Event", grant.event), ("Subscription-State", f"terminated;reason={reason}")),
            timeout_s=timeout_s,
        )

    def forget(self, grant: Grant) -> None:
        """No request of the peer belongs to it any more. Idempotent."""
        self._agent.unwatch_dialog(grant.dialog)

    @staticmethod
    def _respond(incoming: Incoming, expires_s: int, body: bytes, content_type: str) -> None:
        incoming.respond(
            200,
            headers=(("Expires", str(expires_s)),),
            body=body,
            content_type=content_type if body else "",
        )
