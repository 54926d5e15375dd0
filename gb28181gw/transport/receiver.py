"""What the sockets call: the seam between transport and user agent."""

from __future__ import annotations

from typing import Protocol

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Message
from gb28181gw.sip.path import Path


class Receiver(Protocol):
    """Owner of what arrives. All calls come in the event loop's thread and must not raise."""

    def admit(self, path: Path) -> bool:
        """Asked before anything is parsed (S-20); False drops the datagram, or closes the connection."""
        ...

    def on_message(self, message: Message, path: Path, data: bytes) -> None:
        """A message has come. `data`: its datagram; empty for a stream, where messages are cut out of it."""
        ...

    def on_malformed(self, error: SipParseError, path: Path, data: bytes) -> None:
        """Bytes that are no SIP message. A connection they came on may be closed after this call."""
        ...

    def on_closed(self, path: Path) -> None:
        """A connection has ended; nothing can be sent on this path any more."""
        ...
