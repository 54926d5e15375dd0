"""Dialogs: RFC 3261 section 12, from both sides, and their record for storage.

A dialog is what is needed to say one more thing to the far end: Call-ID, both tags, both CSeq counters, the remote
target, the route set, and (ours) the path, because requests go to the transport address of the peer and not to the
text of its Contact (INV-16). The record is written before the ACK, so that a dialog survives a restart and can be
ended (SES-02).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Headers, Request, Response
from gb28181gw.sip.path import Path

MAX_FORWARDS: Final = "70"

Record = dict[str, str | int | list[str]]
"""Flat and JSON-like, for the store."""


@dataclass(slots=True, kw_only=True)
class Dialog:
    """One side of a session. Mutable: its owner is the session, which also moves `path` when the peer moves."""

    call_id: str
    local_tag: str
    remote_tag: str
    """Empty for a peer that sends none (RFC 2543)."""
    local_uri: str
    remote_uri: str
    remote_target: str
    """URI of the peer's Contact: the Request-URI of what follows. Text only; nothing is sent to this address."""
    local_cseq: int
    """Number of our latest request; the next one gets one more."""
    remote_cseq: int | None
    """Number of the peer's latest request; None before the first."""
    invite_cseq: int
    """Number of the INVITE, which its ACK repeats."""
    route_set: tuple[str, ...] = ()
    path: Path

    @classmethod
    def as_uac(cls, request: Request, response: Response, path: Path) -> Dialog:
        """The caller's dialog from its INVITE or SUBSCRIBE and the 2xx (12.1.2). Raises SipParseError."""
        contact = response.contact
        return cls(
            call_id=request.call_id,
            local_tag=request.from_.tag,
            remote_tag=response.to.tag,
            local_uri=str(request.from_.uri),
            remote_uri=str(request.to.uri),
            remote_target=request.uri if contact is None or contact.is_star else str(contact.uri),
            local_cseq=request.cseq.number,
            remote_cseq=None,
            invite_cseq=request.cseq.number,
            route_set=tuple(reversed(response.headers.get_all("Record-Route"))),
            path=path,
        )

    @classmethod
    def as_uas(cls, request: Request, local_tag: str, path: Path) -> Dialog:
        """The callee's dialog from the request that it answers with 2xx (12.1.1). Raises SipParseError."""
        contact = request.contact
        remote_uri = str(request.from_.uri)
        return cls(
            call_id=request.call_id,
            local_tag=local_tag,
            remote_tag=request.from_.tag,
            local_uri=str(request.to.uri),
            remote_uri=remote_uri,
            remote_target=remote_uri if contact is None or contact.is_star else str(contact.uri),
            local_cseq=0,
            remote_cseq=request.cseq.number,
            invite_cseq=request.cseq.number,
            route_set=tuple(request.headers.get_all("Record-Route")),
            path=path,
        )

    def request(self, method: str, body: bytes = b"") -> Request:
        """A request within the dialog (12.2.1.1). ACK repeats the CSeq of the INVITE; all others count up."""
        if method == "ACK":
            number = self.invite_cseq
        else:
            self.local_cseq += 1
            number = self.local_cseq
            if method == "INVITE":
                self.invite_cseq = number
        uri, routes = self._target()
        headers = Headers()
        for route in routes:
            headers.add("Route", route)
        headers.add("From", f"<{self.local_uri}>;tag={self.local_tag}")
        headers.add(
            "To", f"<{self.remote_uri}>;tag={self.remote_tag}" if self.remote_tag else f"<{self.remote_uri}>"
        )
        headers.add("Call-ID", self.call_id)
        headers.add("CSeq", f"{number} {method}")
        headers.add("Max-Forwards", MAX_FORWARDS)
        return Request(method, uri, headers, body)

    def _target(self) -> tuple[str, tuple[str, ...]]:
        """Request-URI and Route values: loose routing, or the old strict one if the first route has no `lr`."""
        if not self.route_set:
            return self.remote_target, ()
        first = _bare_uri(self.route_set[0])
        if ";lr" in first.lower():
            return self.remote_target, self.route_set
        return first, (*self.route_set[1:], f"<{self.remote_target}>")

    def matches(self, request: Request) -> bool:
        """Does this request of the peer belong here: Call-ID and both tags, in either order (S-04).

        Either order, because devices send MediaStatus of a playback with From and To exchanged (GB/T 28181-2016
        J.14.17). Never raises.
        """
        try:
            if request.call_id != self.call_id:
                return False
            tags = (request.from_.tag, request.to.tag)
        except SipParseError:
            return False
        return tags in ((self.remote_tag, self.local_tag), (self.local_tag, self.remote_tag))

    def accepts_cseq(self, number: int) -> bool:
        """Note the CSeq of a request of the peer; False if it goes back (12.2.2: answer 500)."""
        if self.remote_cseq is not None and number < self.remote_cseq:
            return False
        self.remote_cseq = number
        return True

    def refresh_target(self, message: Request | Response) -> None:
        """A re-INVITE or its 2xx names the remote target anew (12.2.1.2, 12.2.2)."""
        contact = message.contact
        if contact is not None and not contact.is_star:
            self.remote_target = str(contact.uri)

    def to_record(self) -> Record:
        """For the store. `from_record` gives an equal dialog."""
        record: Record = {
            "call_id": self.call_id,
            "local_tag": self.local_tag,
            "remote_tag": self.remote_tag,
            "local_uri": self.local_uri,
            "remote_uri": self.remote_uri,
            "remote_target": self.remote_target,
            "local_cseq": self.local_cseq,
            "invite_cseq": self.invite_cseq,
            "route_set": list(self.route_set),
            "transport": self.path.transport,
            "remote_host": self.path.remote_host,
            "remote_port": self.path.remote_port,
            "local_host": self.path.local_host,
            "local_port": self.path.local_port,
            "connection_id": self.path.connection_id,
        }
        if self.remote_cseq is not None:
            record["remote_cseq"] = self.remote_cseq
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Dialog:
        """A stored dialog. Its path is the one of then: a connection of before a restart no longer exists.

        Raises KeyError or ValueError for what is not a record.
        """
        remote_cseq = record.get("remote_cseq")
        route_set = record["route_set"]
        if not isinstance(route_set, list):
            raise ValueError("route_set is not a list")  # noqa: TRY004 - one family of errors for a bad record
        return cls(
            call_id=str(record["call_id"]),
            local_tag=str(record["local_tag"]),
            remote_tag=str(record["remote_tag"]),
            local_uri=str(record["local_uri"]),
            remote_uri=str(record["remote_uri"]),
            remote_target=str(record["remote_target"]),
            local_cseq=_number(record["local_cseq"]),
            remote_cseq=None if remote_cseq is None else _number(remote_cseq),
            invite_cseq=_number(record["invite_cseq"]),
            route_set=tuple(str(route) for route in route_set),
            path=Path(
                str(record["transport"]),
                str(record["remote_host"]),
                _number(record["remote_port"]),
                str(record["local_host"]),
                _number(record["local_port"]),
                _number(record["connection_id"]),
            ),
        )


def _number(value: object) -> int:
    if isinstance(value, int):
        return value
    raise ValueError(f"not a number: {value!r}")


def _bare_uri(route: str) -> str:
    """The URI of a Route value, which always has brackets (RFC 3261 20.34); lenient without."""
    opening, closing = route.find("<"), route.rfind(">")
    return route[opening + 1 : closing] if 0 <= opening < closing else route.strip()
