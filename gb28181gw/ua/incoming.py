"""A request from a peer, as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path
from gb28181gw.ua.compose import new_tag

if TYPE_CHECKING:
    from gb28181gw.ua.server import Server


class Incoming:
    """One request to be answered with `respond`, at once or later; or never, by `ignore`.

    Its headers that SIP itself needs were read already (`sip.validate`), so the properties here do not raise.
    For an INVITE set `on_ack`, `on_cancel` and `on_no_ack` before a final answer is given.
    """

    __slots__ = (
        "_server",
        "_tag",
        "answered",
        "dialog",
        "on_ack",
        "on_cancel",
        "on_no_ack",
        "path",
        "request",
        "transaction_id",
    )

    def __init__(self, server: Server, transaction_id: str, request: Request, path: Path) -> None:
        self._server = server
        self._tag = ""
        self.transaction_id = transaction_id
        self.request = request
        self.path = path
        self.answered = False
        """A final response was given."""
        self.dialog: Dialog | None = None
        """After a 2xx to INVITE or SUBSCRIBE: the callee's side of the dialog."""
        self.on_ack: Callable[[Request], None] | None = None
        """The peer acknowledged our 2xx; an answer to an INVITE without offer is in this body."""
        self.on_cancel: Callable[[], None] | None = None
        """The peer gave up before our final answer; 487 was sent already."""
        self.on_no_ack: Callable[[], None] | None = None
        """No ACK came for our 2xx: end the dialog with BYE (RFC 3261 13.3.1.4)."""

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def from_user(self) -> str:
        return self.request.from_.uri.user

    @property
    def to_user(self) -> str:
        return self.request.to.uri.user

    @property
    def call_id(self) -> str:
        return self.request.call_id

    @property
    def to_tag(self) -> str:
        """Our tag of this request's answers; made at first use, 64 random bits (S-04)."""
        if not self._tag:
            self._tag = new_tag()
        return self._tag

    def respond(
        self,
        status: int,
        reason: str = "",
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> None:
        """Send a response. A 2xx to INVITE makes `dialog`, and gets Contact and Allow if `headers` has none.

        Raises LocalProtocolError for a second final response and for values that may not be on the wire.
        """
        self._server.answer(self, status, reason, headers, body, content_type)

    def ignore(self) -> None:
        """No answer at all: silence towards those who have not proved themselves (S-11)."""
        self._server.ignore(self)
