"""Errors of the SIP core.

::

    SipError                    root
    ├── LocalProtocolError      we asked for something that must never be put on the wire
    └── RemoteProtocolError     the peer broke a rule; `status_hint` is what to answer, 0: answer nothing
        └── SipParseError       bytes or a header value that cannot be read
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gb28181gw.sip.message import Request


class SipError(Exception):
    """Root of what `gb28181gw.sip` raises."""


class LocalProtocolError(SipError):
    """Our own caller's mistake: a value with CR, LF or NUL, a bad method, a challenge that cannot be written."""


class RemoteProtocolError(SipError):
    """The peer broke a rule of RFC 3261."""

    def __init__(self, reason: str, status_hint: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        """Short English text; fit for a reason phrase (never text of the peer)."""
        self.status_hint = status_hint
        """SIP status to answer with; 0: drop in silence (responses, and what cannot be answered)."""


class SipParseError(RemoteProtocolError):
    """The only exception of the parsers, whatever the bytes."""

    def __init__(
        self,
        reason: str,
        status_hint: int = 400,
        message: Request | None = None,
        *,
        fatal: bool = False,
    ) -> None:
        super().__init__(reason, status_hint)
        self.message = message
        """The request as far as it was read, if it can be answered; its method may be empty."""
        self.fatal = fatal
        """On a stream: framing is lost, the connection must be closed."""
        self.content_length: int | None = None
        """Declared length of the body of the refused message, where it could be read."""
