"""SIP messages: an ordered header multimap, Request and Response, and the strict writer.

How it works. The parser splits the header block into lines and hands over two parallel lists, canonical names and
values; nothing else is read until it is asked for. Typed views (`via`, `from_`, `cseq`, ...) are made on first use
and kept together with the text they were made from, so a changed header is never answered from a stale view. A
reply takes over Via, From, To, Call-ID and CSeq as they came (RFC 3261 8.2.6.2), byte for byte even where a device
wrote a display name in a broken charset: such values are `ReceivedText` and carry their bytes.

What leaves is strict: CRLF, one Content-Length that fits, and no CR, LF or NUL in a value whoever set it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from gb28181gw.sip.exceptions import LocalProtocolError, SipParseError
from gb28181gw.sip.grammar import TOKEN, split_list
from gb28181gw.sip.headers import (
    LIST_HEADERS,
    CSeq,
    Via,
    canonical_name,
    checked_name,
    parse_contact,
    parse_delta_seconds,
)
from gb28181gw.sip.quirks import SipQuirk
from gb28181gw.sip.uri import NameAddr, Uri

SIP_VERSION = "SIP/2.0"

REASONS = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    423: "Interval Too Brief",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    500: "Server Internal Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    600: "Busy Everywhere",
    603: "Decline",
    606: "Not Acceptable",
}
"""Reason phrases of RFC 3261 21 and RFC 6665."""


class ReceivedText(str):
    """A header value that was not ASCII, with the bytes it came in: written back as those."""

    __slots__ = ("raw",)
    raw: bytes

    @classmethod
    def of(cls, text: str, raw: bytes) -> ReceivedText:
        made = cls(text)
        made.raw = raw
        return made


class Headers:
    """Ordered multimap of header fields. Names compare without case; compact forms are mapped.

    `Content-Length` is never among them: it is framing, read by the parser and computed by the writer.
    """

    __slots__ = ("_names", "_values")

    def __init__(self, items: Sequence[tuple[str, str]] = ()) -> None:
        self._names: list[str] = []
        self._values: list[str] = []
        for name, value in items:
            self.add(name, value)

    @classmethod
    def from_lists(cls, names: list[str], values: list[str]) -> Headers:
        """Take over parallel lists; names must be canonical. For the parser and the reply builder."""
        made = cls.__new__(cls)
        made._names = names
        made._values = values
        return made

    def get(self, name: str) -> str | None:
        """First value, decoded; of a comma list (Via, Contact, ...) its first element."""
        names = self._names
        if name not in names:
            name = canonical_name(name)
            if name not in names:
                return None
        value = self._values[names.index(name)]
        if name in LIST_HEADERS and "," in value:
            return split_list(value, ",")[0]
        return value

    def get_all(self, name: str) -> list[str]:
        """Every value in order, comma lists taken apart where RFC 3261 has them."""
        name = canonical_name(name)
        values = [value for key, value in zip(self._names, self._values, strict=True) if key == name]
        if name in LIST_HEADERS and any("," in value for value in values):
            return [part for value in values for part in split_list(value, ",")]
        return values

    def count(self, name: str) -> int:
        """How many header fields of that name there are."""
        return self._names.count(canonical_name(name))

    def field(self, name: str) -> str | None:
        """First field of that name, a comma list whole; `name` in canonical spelling (the quick way)."""
        names = self._names
        return self._values[names.index(name)] if name in names else None

    def count_each(self, names: Sequence[str]) -> list[int]:
        """How many fields of each name there are; names in canonical spelling."""
        return list(map(self._names.count, names))

    def add(self, name: str, value: str) -> None:
        """Append a field. Raises LocalProtocolError for a name that is not a token."""
        name = checked_name(name)
        if name == "Content-Length":
            return
        self._names.append(name)
        self._values.append(value)

    def prepend(self, name: str, value: str) -> None:
        """Insert before all others: a Via on its way out."""
        self._names.insert(0, checked_name(name))
        self._values.insert(0, value)

    def set(self, name: str, value: str) -> None:
        """Replace the first field of that name and drop the others; append if there is none."""
        name = checked_name(name)
        if name not in self._names:
            self.add(name, value)
            return
        position = self._names.index(name)
        self._values[position] = value
        while self._names.count(name) > 1:
            last = len(self._names) - 1 - self._names[::-1].index(name)
            del self._names[last], self._values[last]

    def remove(self, name: str) -> None:
        """Drop every field of that name; nothing happens if there is none."""
        name = canonical_name(name)
        while name in self._names:
            position = self._names.index(name)
            del self._names[position], self._values[position]

    def items(self) -> Iterator[tuple[str, str]]:
        return zip(self._names, self._values, strict=True)

    def copy(self) -> Headers:
        return Headers.from_lists(self._names.copy(), self._values.copy())

    def __contains__(self, name: str) -> bool:
        return name in self._names or canonical_name(name) in self._names

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._names == other._names and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Headers({list(self.items())!r})"

    def write(self, start_line: str, body: bytes) -> bytes:
        """The whole message. Raises LocalProtocolError for CR, LF or NUL anywhere in the head."""
        lines = [start_line]
        for name, value in zip(self._names, self._values, strict=True):
            lines.append(f"{name}: {value}")
        lines.append(f"Content-Length: {len(body)}\r\n\r\n")
        text = "\r\n".join(lines)
        breaks = len(lines) + 1
        if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
            raise LocalProtocolError("CR, LF or NUL in a header value")
        if text.isascii():
            return text.encode("ascii") + body
        return self._write_received(start_line, body)

    def _write_received(self, start_line: str, body: bytes) -> bytes:
        # UTF-8 for text of ours (RFC 3261 7.3.1); what came in goes out as it came.
        lines = [_encode(start_line)]
        for name, value in zip(self._names, self._values, strict=True):
            lines.append(f"{name}: ".encode("ascii") + _encode(value))
        lines.append(b"Content-Length: %d\r\n\r\n" % len(body))
        return b"\r\n".join(lines) + body


def _encode(text: str) -> bytes:
    if isinstance(text, ReceivedText):
        return text.raw
    return text.encode("utf-8", "replace")


def _append(text: str, suffix: str) -> str:
    """`text` + ASCII `suffix`, its received bytes kept."""
    if isinstance(text, ReceivedText):
        return ReceivedText.of(text + suffix, text.raw + suffix.encode("ascii"))
    return text + suffix


class _Typed:
    """What Request and Response share: headers, body, and typed views made on first use."""

    __slots__ = ("_contact", "_cseq", "_from", "_quirks", "_to", "_via", "body", "headers")

    def __init__(self, headers: Headers | None, body: bytes, quirks: list[str] | None) -> None:
        self.headers = Headers() if headers is None else headers
        self.body = body
        self._quirks = quirks
        # (text, view made from it)
        self._via: tuple[str, Via] | None = None
        self._from: tuple[str, NameAddr] | None = None
        self._to: tuple[str, NameAddr] | None = None
        self._cseq: tuple[str, CSeq] | None = None
        self._contact: tuple[str, NameAddr] | None = None

    @property
    def quirks(self) -> tuple[str, ...]:
        """Names of the tolerances that reading this message took so far (`SipQuirk`); typed views may add some."""
        return tuple(self._quirks) if self._quirks else ()

    def note_quirk(self, name: str) -> None:
        """Record a tolerance once."""
        if self._quirks is None:
            self._quirks = [name]
        elif name not in self._quirks:
            self._quirks.append(name)

    def _single(self, name: str) -> str:
        headers = self.headers
        if name not in headers._names:
            raise SipParseError(f"Missing {name}")
        return headers._values[headers._names.index(name)]

    @property
    def via(self) -> Via:
        """Top Via. Raises SipParseError if it is missing or unreadable."""
        text = self._single("Via")
        kept = self._via
        if kept is not None and kept[0] is text:
            return kept[1]
        made = Via.parse(split_list(text, ",")[0] if "," in text else text)
        if not made.transaction_branch:
            self.note_quirk(SipQuirk.BRANCH_WITHOUT_COOKIE)
        self._via = (text, made)
        return made

    def _address(self, text: str) -> NameAddr:
        made = NameAddr.parse(text)
        for note in made.notes:
            self.note_quirk(note)
        return made

    @property
    def from_(self) -> NameAddr:
        """Raises SipParseError if it is missing or unreadable."""
        text = self._single("From")
        kept = self._from
        if kept is not None and kept[0] is text:
            return kept[1]
        made = self._address(text)
        self._from = (text, made)
        return made

    @property
    def to(self) -> NameAddr:
        """Raises SipParseError if it is missing or unreadable."""
        text = self._single("To")
        kept = self._to
        if kept is not None and kept[0] is text:
            return kept[1]
        made = self._address(text)
        self._to = (text, made)
        return made

    @property
    def call_id(self) -> str:
        """As on the wire. Raises SipParseError if it is missing or empty."""
        text = self._single("Call-ID")
        if not text:
            raise SipParseError("Empty Call-ID")
        return text

    @property
    def cseq(self) -> CSeq:
        """Raises SipParseError if it is missing or unreadable."""
        text = self._single("CSeq")
        kept = self._cseq
        if kept is not None and kept[0] is text:
            return kept[1]
        made = CSeq.parse(text)
        self._cseq = (text, made)
        return made

    @property
    def contact(self) -> NameAddr | None:
        """First Contact, None if there is none. Raises SipParseError if it is unreadable."""
        if "Contact" not in self.headers._names:
            return None
        text = self._single("Contact")
        kept = self._contact
        if kept is not None and kept[0] is text:
            return kept[1]
        made = parse_contact(text)
        for note in made.notes:
            self.note_quirk(note)
        self._contact = (text, made)
        return made

    @property
    def expires(self) -> int | None:
        """Seconds: `expires` of the Contact, else the Expires header (RFC 3261 10.2.1.1, REG-10), else None.

        A value that is not a number counts as missing; one that is too large as 2**32-1 (RFC 3261 20.19).
        """
        contact = self.contact
        if contact is not None:
            param = contact.param("expires")
            if param is not None:
                seconds = parse_delta_seconds(param.strip('"'))
                if seconds is not None:
                    return seconds
        text = self.headers.get("Expires")
        return None if text is None else parse_delta_seconds(text)


class Request(_Typed):
    """A request (RFC 3261 7.1)."""

    __slots__ = ("_request_uri", "method", "uri", "version")

    def __init__(
        self,
        method: str,
        uri: str,
        headers: Headers | None = None,
        body: bytes = b"",
        version: str = SIP_VERSION,
        quirks: list[str] | None = None,
    ) -> None:
        super().__init__(headers, body, quirks)
        self.method = method
        """Known methods in upper case, others as they came."""
        self.uri = uri
        """Request-URI as on the wire."""
        self.version = version
        self._request_uri: tuple[str, Uri] | None = None

    @property
    def request_uri(self) -> Uri:
        """The Request-URI taken apart. Raises SipParseError."""
        kept = self._request_uri
        if kept is not None and kept[0] is self.uri:
            return kept[1]
        made = Uri.parse(self.uri)
        if made.is_sip and not made.host:
            self.note_quirk(SipQuirk.URI_WITHOUT_HOST)
        self._request_uri = (self.uri, made)
        return made

    def to_bytes(self) -> bytes:
        """Strict form. Raises LocalProtocolError for anything that must not be on the wire."""
        if TOKEN.fullmatch(self.method) is None:
            raise LocalProtocolError("method is not a token")
        if not self.uri or " " in self.uri or "\t" in self.uri:
            raise LocalProtocolError("Request-URI is empty or has blanks")
        return self.headers.write(f"{self.method} {self.uri} {self.version}", self.body)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Request):
            return NotImplemented
        return (
            self.method == other.method
            and self.uri == other.uri
            and self.version == other.version
            and self.headers == other.headers
            and self.body == other.body
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


class Response(_Typed):
    """A response (RFC 3261 7.2)."""

    __slots__ = ("reason", "status", "version")

    def __init__(
        self,
        status: int,
        reason: str = "",
        headers: Headers | None = None,
        body: bytes = b"",
        version: str = SIP_VERSION,
        quirks: list[str] | None = None,
    ) -> None:
        super().__init__(headers, body, quirks)
        self.status = status
        self.reason = reason
        self.version = version

    @property
    def is_provisional(self) -> bool:
        return self.status < 200

    @classmethod
    def reply_to(
        cls,
        request: Request,
        status: int,
        reason: str = "",
        *,
        to_tag: str = "",
        received: str = "",
        rport: int = 0,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Response:
        """The answer to `request`: every Via, From, To, Call-ID and CSeq as they came (RFC 3261 8.2.6.2).

        `reason`: "" takes the registered phrase. `to_tag` is added to a To that has no tag. `received` and `rport`,
        the source of the packet, go into the top Via whether asked for or not (RFC 3581 4, REG-16), in place of
        whatever the request claimed. Works on what a broken request still has, so a 400 can be built from it.
        """
        names: list[str] = []
        values: list[str] = []
        top = True
        for name, value in zip(request.headers._names, request.headers._values, strict=True):
            if name not in _REPLIED:
                continue
            if name == "Via" and top:
                top = False
                if received:
                    value = _stamp_via(value, received, rport)
            elif name == "To" and to_tag:
                value = _tag_to(request, value, to_tag)
            names.append(name)
            values.append(value)
        made = cls(status, reason or REASONS.get(status, ""), Headers.from_lists(names, values), body)
        for name, value in headers:
            made.headers.add(name, value)
        return made

    def to_bytes(self) -> bytes:
        """Strict form. Raises LocalProtocolError for anything that must not be on the wire."""
        if not 100 <= self.status <= 699:
            raise LocalProtocolError("status out of range")
        return self.headers.write(f"{self.version} {self.status} {self.reason}", self.body)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Response):
            return NotImplemented
        return (
            self.status == other.status
            and self.reason == other.reason
            and self.version == other.version
            and self.headers == other.headers
            and self.body == other.body
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"


Message: TypeAlias = Request | Response

_REPLIED = frozenset(("Via", "From", "To", "Call-ID", "CSeq"))
_STAMPED = re.compile(r"\s*;\s*(?:rport|received)\s*(?:=[^;,]*)?(?=\s*(?:;|$))", re.IGNORECASE)


def _stamp_via(value: str, received: str, rport: int) -> str:
    """Top Via with `received` and `rport` of the packet's source."""
    rest = ""
    top = value
    if "," in value:
        parts = split_list(value, ",")
        top = parts[0]
        rest = "".join(f", {part}" for part in parts[1:]).rstrip()
    lower = top.lower()
    if "rport" in lower or "received" in lower:
        top = _STAMPED.sub("", top)
    return f"{top};received={received};rport={rport}{rest}"


def _tag_to(request: Request, value: str, to_tag: str) -> str:
    try:
        if request.to.tag:
            return value
    except SipParseError:
        return value  # an unreadable To is echoed as it is, with the 400
    return _append(value, f";tag={to_tag}")
