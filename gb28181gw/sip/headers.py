"""Header names and the structured header values: Via, CSeq, Contact, Subject, one reader and writer each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gb28181gw.sip.exceptions import LocalProtocolError, SipParseError
from gb28181gw.sip.grammar import (
    MAGIC_COOKIE,
    MAX_CSEQ,
    MAX_DELTA_SECONDS,
    TOKEN,
    TOKEN_CLASS,
    Params,
    find_param,
    format_params,
    parse_params,
    read_method,
    split_list,
)
from gb28181gw.sip.uri import NameAddr

COMPACT = {
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "d": "Request-Disposition",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "n": "Identity-Info",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
    "y": "Identity",
}
"""Compact forms (RFC 3261 7.3.3 and the registry of header fields)."""

_FULL_NAMES = """
    Accept Accept-Encoding Accept-Language Alert-Info Allow Authentication-Info Authorization CSeq Call-Info
    Content-Disposition Content-Language Date Error-Info Expires In-Reply-To MIME-Version Max-Forwards
    Min-Expires Min-SE Monitor-User-Identity Note Organization P-Asserted-Identity Path Priority
    Proxy-Authenticate Proxy-Authorization Proxy-Require RAck RSeq Reason Record-Route Reply-To Require
    Retry-After Route SIP-ETag SIP-If-Match SecurityInfo Server Service-Route Subscription-State Timestamp
    Unsupported User-Agent WWW-Authenticate Warning X-GB-Ver X-PreferredPath X-RoutePath
"""

KNOWN_NAMES: dict[str, str] = COMPACT | {name: name for name in (*COMPACT.values(), *_FULL_NAMES.split())}
"""Spelling on the wire -> canonical spelling: the fast look-up; `canonical_name` knows every other spelling."""
_BY_LOWER: dict[str, str] = {name.lower(): canonical for name, canonical in KNOWN_NAMES.items()}

_LISTS = """
    Via Route Record-Route Contact Path Service-Route Accept Accept-Encoding Accept-Language Allow Allow-Events
    Content-Encoding Content-Language In-Reply-To Proxy-Require Require Supported Unsupported Warning
"""
LIST_HEADERS = frozenset(_LISTS.split())
"""Header fields whose value is a comma list (RFC 3261 7.3.1). `Subject` of GB/T 28181 and `Date` are not."""


def canonical_name(name: str) -> str:
    """One spelling per header: the registered one, else `X-Some-Thing`. Names compare without case."""
    known = KNOWN_NAMES.get(name)
    if known is not None:
        return known
    lower = name.strip().lower()
    known = _BY_LOWER.get(lower)
    if known is not None:
        return known
    return "-".join(part[:1].upper() + part[1:] for part in lower.split("-"))


def checked_name(name: str) -> str:
    """`canonical_name` for names that we put on the wire. Raises LocalProtocolError."""
    known = KNOWN_NAMES.get(name)
    if known is not None:
        return known
    if TOKEN.fullmatch(name) is None:
        raise LocalProtocolError("header name is not a token")
    return canonical_name(name)


# via-parm = sent-protocol LWS sent-by *( SEMI via-params ); blanks may stand around "/" and ":" (25.1)
_VIA = re.compile(
    rf"SIP\s*/\s*2\.0\s*/\s*([{TOKEN_CLASS}]+)\s+(\[[0-9A-Fa-f:.]+\]|[^\s:;,\[\]<>\"]+)\s*(?::\s*([0-9]{{1,5}})\s*)?(;.*)?",
    re.ASCII | re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Via:
    """One hop (RFC 3261 20.42, RFC 3581)."""

    transport: str
    """Upper case."""
    host: str
    port: int | None = None
    params: Params = ()

    @classmethod
    def parse(cls, value: str) -> Via:
        """Raises SipParseError."""
        match = _VIA.fullmatch(value.strip())
        if match is None:
            raise SipParseError("Bad Via")
        transport, host, port_text, params = match.groups()
        port = None if port_text is None else int(port_text)
        if port is not None and port > 65_535:
            raise SipParseError("Bad port in Via")
        return cls(transport.upper(), host, port, parse_params(params) if params else ())

    @property
    def branch(self) -> str:
        """As on the wire, or ""."""
        return find_param(self.params, "branch") or ""

    @property
    def transaction_branch(self) -> str:
        """The branch if it identifies a transaction by RFC 3261 17.2.3, else "" (then RFC 2543 matching).

        The cookie alone identifies nothing (RFC 4475 3.2.1).
        """
        branch = self.branch
        # The cookie compares without case: it is a token (RFC 3261 7.3.1), and old stacks re-write its case.
        if len(branch) > len(MAGIC_COOKIE) and branch[:7].lower() == "z9hg4bk":
            return branch
        return ""

    @property
    def received(self) -> str | None:
        return find_param(self.params, "received")

    @property
    def rport(self) -> str | None:
        """ "" if asked for and not filled in; None if absent."""
        return find_param(self.params, "rport")

    @property
    def sent_by(self) -> str:
        """`host:port` as one text, port left out if it was."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def param(self, name: str) -> str | None:
        return find_param(self.params, name)

    def __str__(self) -> str:
        return f"SIP/2.0/{self.transport} {self.sent_by}{format_params(self.params)}"


_CSEQ = re.compile(rf"([0-9]+)\s+([{TOKEN_CLASS}]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class CSeq:
    """RFC 3261 20.16."""

    number: int
    method: str

    @classmethod
    def parse(cls, value: str) -> CSeq:
        """Raises SipParseError; numbers beyond 32 bits are errors (RFC 4475 3.1.2.4)."""
        match = _CSEQ.fullmatch(value)
        if match is None:
            match = _CSEQ.fullmatch(value.strip())
            if match is None:
                raise SipParseError("Bad CSeq")
        digits, method = match.groups()
        number = bounded_int(digits, MAX_CSEQ)
        if number is None:
            raise SipParseError("CSeq out of range")
        return cls(number, read_method(method))

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


def bounded_int(digits: str, limit: int) -> int | None:
    """Unsigned decimal; None if it is not one or is above `limit`. Length is checked before the conversion."""
    if not digits.isascii() or not digits.isdigit():
        return None
    significant = digits.lstrip("0")
    if len(significant) > 10:
        return None
    number = int(significant or "0")
    return number if number <= limit else None


def parse_delta_seconds(value: str) -> int | None:
    """Seconds of Expires; None if not a number; too large counts as 2**32-1 (RFC 3261 20.19)."""
    text = value.partition(";")[0].strip()
    if not text.isascii() or not text.isdigit():
        return None
    number = bounded_int(text, MAX_DELTA_SECONDS)
    return MAX_DELTA_SECONDS if number is None else number


def parse_contact(value: str) -> NameAddr:
    """First address of a Contact value; `*` has `is_star`. Raises SipParseError."""
    return NameAddr.parse(split_list(value, ",")[0] if "," in value else value)


@dataclass(frozen=True, slots=True)
class Subject:
    """`Subject` of an INVITE: who sends which stream to whom (GB/T 28181-2022 Annex L)."""

    sender_id: str
    sender_serial: str
    """First character 0: live, 1: history."""
    receiver_id: str = ""
    receiver_serial: str = ""

    @classmethod
    def parse(cls, value: str) -> Subject:
        """Lenient: parts that are missing are "", blanks are dropped; never raises."""
        sender, _, receiver = value.partition(",")
        sender_id, _, sender_serial = sender.partition(":")
        receiver_id, _, receiver_serial = receiver.partition(":")
        return cls(sender_id.strip(), sender_serial.strip(), receiver_id.strip(), receiver_serial.strip())

    def __str__(self) -> str:
        return f"{self.sender_id}:{self.sender_serial},{self.receiver_id}:{self.receiver_serial}"
