"""What the endpoint reports. Small named tuples: one is made for every message."""

from __future__ import annotations

from typing import NamedTuple

from gb28181gw.sip.message import Request, Response
from gb28181gw.sip.path import Path


class RequestReceived(NamedTuple):
    """A new request, never a repeated one. Answer with `Endpoint.respond`, or drop it with `Endpoint.discard`."""

    transaction_id: str
    request: Request
    path: Path


class ResponseReceived(NamedTuple):
    """A response to a request of ours. Repeated ones are absorbed, except a 2xx to INVITE: it needs its ACK again."""

    transaction_id: str
    response: Response
    path: Path
    """Where it came from; same host as the request's path."""


class AckReceived(NamedTuple):
    """The ACK of a 2xx. `transaction_id` is that of its INVITE, or empty if no INVITE waits for it."""

    transaction_id: str
    request: Request
    path: Path


class CancelReceived(NamedTuple):
    """A CANCEL; its user answers it (RFC 3261 9.2)."""

    transaction_id: str
    """Of the CANCEL itself."""
    invite_id: str
    """Of the INVITE that it cancels; empty: none matches, so the answer is 481."""
    request: Request
    path: Path


class TimedOut(NamedTuple):
    """A client transaction got no final response; or an INVITE of a peer got our 2xx and never sent its ACK."""

    transaction_id: str


class TransportFailed(NamedTuple):
    """The request could not be sent, or the connection ended before the final response."""

    transaction_id: str


class TransactionTerminated(NamedTuple):
    """A client transaction, or the server transaction of an INVITE, is forgotten.

    Other server transactions end without a report: there is one for every keepalive.
    """

    transaction_id: str


Event = (
    RequestReceived
    | ResponseReceived
    | AckReceived
    | CancelReceived
    | TimedOut
    | TransportFailed
    | TransactionTerminated
)
