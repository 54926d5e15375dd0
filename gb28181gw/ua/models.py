"""Values that callers of the user agent hand in and get back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.message import Response
from gb28181gw.sip.path import Path

if TYPE_CHECKING:
    from gb28181gw.ua.incoming import Incoming


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Who we are in SIP."""

    id: str
    """Our 20-digit code: user of From and Contact."""
    domain: str
    """Our SIP domain: host of From."""
    user_agent: str
    """Value of User-Agent."""
    advertise: str = ""
    """Host of Via and Contact; empty: the local address of the path, which depends on the peer (NET-01)."""
    gb_version: str = "3.0"
    """Value of X-GB-Ver (GB/T 28181-2022 Annex I); empty: the header is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Who is asked, and over which path."""

    path: Path
    """Where the request goes: a bound path, never the text of a Contact (threats 4.1, REG-17)."""
    user: str
    """Device or channel id: user of To and of the Request-URI."""
    domain: str
    """Host of To: the realm that the device itself used (INV-08)."""
    platform: bool = False
    """A lower platform is there, which is told on whose behalf something is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A 2xx to our INVITE. It is not acknowledged yet: store the dialog, then call `UserAgent.ack`."""

    sdp: bytes
    dialog: Dialog
    response: Response

    @property
    def route(self) -> str:
        """`X-RoutePath` (Annex H); empty: none."""
        return self.response.headers.get("X-RoutePath") or ""


class Platforms(Protocol):
    """The upper platforms that we are registered at, as the agent asks for them."""

    def is_bound(self, path: Path) -> bool:
        """Whether `path` is that of such a platform now. Asked for every message: one look-up."""
        ...

    def claim(self, incoming: Incoming) -> bool:
        """Take a request outside dialogs, or leave it (False) to the handler of its method."""
        ...


@dataclass(slots=True)
class AgentCounters:
    """Plain counters; they only grow."""

    handler_errors: int = 0
    """Requests whose handler raised (F-23)."""
    refused: int = 0
    """Messages counted against their source (S-20)."""
    malformed: int = 0
    malformed_answered: int = 0
    verdicts: int = 0
    """Requests refused by the rules of SIP alone (RFC 3261 8.2)."""
    responses_dropped: int = 0
    """Responses that the rules of SIP discard (RFC 3261 8.1.3.3)."""
    silent: int = 0
    """Requests of unknown peers that got no answer (S-11)."""
    foreign_in_dialog: int = 0
    """Right Call-ID and tags from a host that the dialog does not know (S-04)."""
    cseq_backwards: int = 0
    """Requests within a dialog whose CSeq went back (RFC 3261 12.2.2)."""
    late_answers: int = 0
    """2xx to an INVITE that was given up: acknowledged and ended by BYE (F-05)."""
    acks_repeated: int = 0
