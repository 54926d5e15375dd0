"""Which requests are refused for reasons of SIP alone, before anyone asks what they want.

The parser refuses what cannot be framed or has no readable start line; this refuses what RFC 3261 8.2 and RFC 4475
ask a server to refuse: missing or doubled fields, unreadable ones, unknown schemes and extensions. What the gateway
does with an unknown method, an unknown user or bad credentials is decided above. Tolerances of GB/T 28181 devices
win where a row says so (no Via, no Max-Forwards, any Date, any Content-Type of a MESSAGE).
"""

from __future__ import annotations

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.headers import Via, bounded_int
from gb28181gw.sip.message import REASONS, Request, Response
from gb28181gw.sip.uri import NameAddr

SUPPORTED_EXTENSIONS: frozenset[str] = frozenset()
"""Option tags that a `Require` may name. None yet."""

_SINGLE = ("From", "To", "Call-ID", "CSeq")
_LOOKED_AT = (*_SINGLE, "Via", "Contact", "Max-Forwards", "Require")
_ONCE_EACH = [1] * len(_SINGLE)
_MAX_HOPS = 255


def verdict(request: Request) -> tuple[int, str] | None:
    """(status, reason) if the request must be refused, None if it may go on.

    An ACK is never answered, whatever this says. For 420 see `unsupported_extensions`.
    """
    *singles, vias, contacts, hops, requires = request.headers.count_each(_LOOKED_AT)
    if singles != _ONCE_EACH:
        name, count = next(pair for pair in zip(_SINGLE, singles, strict=True) if pair[1] != 1)
        return 400, f"Missing {name}" if count == 0 else f"More than one {name}"
    try:
        _read_fields(request, vias, contacts)
        uri = request.request_uri
    except SipParseError as error:
        return 400, error.reason
    if request.cseq.method != request.method:
        return 400, "CSeq does not match the method"
    if not uri.is_sip:
        return 416, REASONS[416]
    if uri.headers:
        return 400, "Headers in Request-URI"
    refusal = _hops(request, hops) if hops else None  # devices leave it out
    if refusal is None and requires:
        refusal = _extensions(request)
    return refusal or _body(request)


def _read_fields(request: Request, vias: int, contacts: int) -> None:
    """Read every field that the transaction and dialog layers rely on. Raises SipParseError.

    `vias`, `contacts`: how many fields of these there are.
    """
    _ = request.call_id, request.cseq, request.from_, request.to
    headers = request.headers
    if vias:  # without one the answer goes to the source all the same (XML-20)
        _ = request.via
        if vias > 1 or "," in (headers.field("Via") or ""):
            for value in headers.get_all("Via")[1:]:
                Via.parse(value)
    if contacts:
        _ = request.contact
        if contacts > 1 or "," in (headers.field("Contact") or ""):
            for value in headers.get_all("Contact")[1:]:
                NameAddr.parse(value)


def _hops(request: Request, count: int) -> tuple[int, str] | None:
    if count > 1:
        return 400, "More than one Max-Forwards"
    hops = bounded_int(request.headers.field("Max-Forwards") or "", _MAX_HOPS)
    if hops is None:
        return 400, "Bad Max-Forwards"
    if hops == 0 and request.method not in ("ACK", "CANCEL"):
        return 483, REASONS[483]
    return None


def unsupported_extensions(request: Request) -> list[str]:
    """Option tags of `Require` that we do not know: the value of `Unsupported` in a 420 (RFC 3261 8.2.2.3)."""
    if "Require" not in request.headers:
        return []
    tags = [tag for tag in request.headers.get_all("Require") if tag]
    return [tag for tag in tags if tag.lower() not in SUPPORTED_EXTENSIONS]


def _extensions(request: Request) -> tuple[int, str] | None:
    if request.method in ("ACK", "CANCEL") or not unsupported_extensions(request):
        return None
    return 420, REASONS[420]


def _body(request: Request) -> tuple[int, str] | None:
    """RFC 3261 8.2.3 and 13.3.1 for INVITE. A MESSAGE is judged by its content, not by its type (XML-17)."""
    if request.method != "INVITE":
        return None
    content_type = (request.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if request.body and content_type and content_type not in ("application/sdp", "multipart/mixed"):
        return 415, REASONS[415]
    ranges = request.headers.get_all("Accept")
    if ranges and not any(_accepts_sdp(item) for item in ranges):
        return 406, REASONS[406]
    return None


def _accepts_sdp(media_range: str) -> bool:
    return media_range.partition(";")[0].strip().lower() in ("application/sdp", "application/*", "*/*")


def drop_reason(response: Response) -> str | None:
    """Why a response must be discarded, None if it may go on (RFC 3261 8.1.3.3, RFC 4475 3.1.2.5 and 3.3.10).

    A response without Via is kept: it is matched by Call-ID and CSeq (XML-20).
    """
    headers = response.headers
    if len(headers.get_all("Via")) > 1:
        return "More than one Via"
    for name, count in zip(_SINGLE, headers.count_each(_SINGLE), strict=True):
        if count != 1:
            return f"{name} is not there once"
    try:
        if "Via" in headers:
            _ = response.via
        _ = response.call_id, response.cseq, response.from_, response.to
    except SipParseError as error:
        return error.reason
    return None
