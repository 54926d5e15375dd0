"""How our messages look: every header that a caller above need not know about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gb28181gw.sip.dialog import MAX_FORWARDS
from gb28181gw.sip.message import Headers, Request
from gb28181gw.sip.path import Path
from gb28181gw.sip.randomness import random_hex
from gb28181gw.ua.models import AgentConfig, Target
from gb28181gw.ua.passage import headers_for

ALLOW: Final = "INVITE, ACK, INFO, CANCEL, BYE, OPTIONS, MESSAGE, NOTIFY, SUBSCRIBE"
"""GB/T 28181-2022 9.2.3 b names the first seven for INVITE dialogs."""

DIALOG_MAKERS: Final = frozenset({"INVITE", "SUBSCRIBE"})
_WITH_CONTACT: Final = frozenset({"INVITE", "SUBSCRIBE", "REGISTER", "NOTIFY", "OPTIONS"})
"""MESSAGE must not have a Contact (RFC 3428 4)."""


def new_tag() -> str:
    """64 random bits (S-04)."""
    return random_hex(8)


class Composer:
    """Builds requests from what callers know. Has no state."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config

    def outside(
        self,
        target: Target,
        method: str,
        *,
        body: bytes = b"",
        content_type: str = "",
        headers: Sequence[tuple[str, str]] = (),
        from_user: str = "",
        from_domain: str = "",
        request_uri: str = "",
        call_id: str = "",
        cseq: int = 1,
        from_tag: str = "",
        gb_version: str | None = None,
    ) -> Request:
        """A request outside dialogs: To without a tag (XML-22), Call-ID of 128 random bits (S-04, XML-21)."""
        user = from_user or self._config.id
        to_host = target.domain or target.path.peer
        request = Request(
            method,
            request_uri or f"sip:{target.user}@{target.path.peer}",
            Headers(
                (
                    (
                        "From",
                        f"<sip:{user}@{from_domain or self._config.domain}>;tag={from_tag or new_tag()}",
                    ),
                    ("To", f"<sip:{target.user}@{to_host}>"),
                    ("Call-ID", call_id or random_hex(16)),
                    ("CSeq", f"{cseq} {method}"),
                    ("Max-Forwards", MAX_FORWARDS),
                )
            ),
            body,
        )
        headers = (*headers, *headers_for(method, self._config.id, platform=target.platform))
        self.complete(request, target.path, user, content_type, headers)
        version = self._config.gb_version if gb_version is None else gb_version
        if method == "REGISTER" and version:
            request.headers.add("X-GB-Ver", version)
        return request

    def complete(
        self,
        request: Request,
        path: Path,
        user: str = "",
        content_type: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """What every request of ours has beyond its addresses; what the caller gives comes first."""
        made = request.headers
        for name, value in headers:
            made.add(name, value)
        if request.method in _WITH_CONTACT and "Contact" not in made:
            made.add("Contact", self.contact(user or self._config.id, path))
        if "User-Agent" not in made:
            made.add("User-Agent", self._config.user_agent)
        if content_type:
            made.add("Content-Type", content_type)

    def contact(self, user: str, path: Path) -> str:
        """Our address towards this peer."""
        return f"<sip:{user or self._config.id}@{self.sent_by(path)}>"

    def sent_by(self, path: Path) -> str:
        """Our host and port as this peer sees them; never a wildcard address (INV-23, NET-01)."""
        host = self._config.advertise or path.local_host
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{host}:{path.local_port}" if path.local_port else host


def user_of(uri: str) -> str:
    """User part of a URI that we wrote ourselves."""
    return uri.partition(":")[2].partition("@")[0]
