"""From octets to messages: one reader for the head, two framings (datagram and stream).

A datagram is its own frame: the declared Content-Length is advice (XML-14). A stream is cut by Content-Length, and
because devices get it wrong for MANSCDP bodies (they count characters, or add a constant), such a body must also
end with the end tag of its root element; where it does not, the cut moves to the end tag or to the next start line.
The decision depends on the octets only, never on how they were segmented.

Tolerances are recorded on the message (`SipQuirk`). The only exception is SipParseError.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from functools import lru_cache
from typing import Final

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.grammar import (
    KNOWN_METHODS,
    MAX_DATAGRAM,
    MAX_HEADER_COUNT,
    MAX_HEADER_SECTION,
    MAX_LINE,
    MAX_STREAM_MESSAGE,
    METHODS,
    TOKEN,
)
from gb28181gw.sip.headers import KNOWN_NAMES, canonical_name
from gb28181gw.sip.message import SIP_VERSION, Headers, Message, ReceivedText, Request, Response
from gb28181gw.sip.quirks import SipQuirk


class Ping:
    """A double CRLF between messages; the answer is a single one (RFC 5626 4.4.1, REG-22)."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ping)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "Ping()"


PING: Final = Ping()

_HEAD_END = re.compile(rb"\n\r?\n")
_BLANK = b"\r\n\t \0"
_LWS = " \t\x0b\x0c"
"""Trimmed from values: LWS of RFC 3261 25.1, and two blanks that no value begins or ends with on purpose."""


def parse_datagram(data: bytes) -> Message | None:
    """One message of one datagram; None for a keepalive of blank lines (or nothing at all).

    Raises SipParseError; its `message` is the request as far as it could be read.
    """
    quirks: list[str] | None = None
    if len(data) > MAX_DATAGRAM:
        raise SipParseError("Message too large", 513)
    if data[:1] in (b"\r", b"\n", b""):
        data = data.lstrip(b"\r\n")
        if not data.strip(_BLANK):
            return None
        quirks = [SipQuirk.LEADING_CRLF]
    end = data.find(b"\r\n\r\n")
    if end < 0 or data.find(b"\n\n", 0, end) >= 0 or data.find(b"\n\r\n", 0, end) >= 0:
        found = _HEAD_END.search(data)
        # A head without its blank line: the datagram ends it.
        end, start = (found.start(), found.end()) if found else (len(data), len(data))
        if data[end - 1 : end] == b"\r":
            end -= 1
    else:
        start = end + 4
    message, declared = _parse_head(data[:end], quirks)
    body = data[start:]
    if declared is not None and declared != len(body):
        body = _trim_datagram_body(message, body, declared)
    message.body = body
    return message


def _trim_datagram_body(message: Message, body: bytes, declared: int) -> bytes:
    """XML-14: the datagram decides, unless what exceeds the declared length is no body at all."""
    if declared < len(body):
        excess = body[declared:].lstrip(_BLANK)
        # RFC 4475 3.1.1.8: a second message behind the first one is to be ignored; padding likewise
        if not excess or _START_LINE.match(excess) is not None:
            message.note_quirk(SipQuirk.TRAILING_OCTETS)
            return body[:declared]
    message.note_quirk(SipQuirk.CONTENT_LENGTH)
    return body


def _decode(raw: bytes) -> tuple[str, str | None]:
    """Header text: UTF-8, else GB18030, else with replacements; and the tolerance it took."""
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        pass
    try:
        return raw.decode("gb18030"), SipQuirk.HEADER_GB18030
    except UnicodeDecodeError:
        return raw.decode("gb18030", "replace"), SipQuirk.HEADER_UNDECODABLE


def _parse_head(head: bytes, quirks: list[str] | None) -> tuple[Message, int | None]:
    """Start line and header fields (without the blank line); the message without body, and the declared length."""
    if len(head) > MAX_HEADER_SECTION:
        raise SipParseError("Header section too large", 513, fatal=True)
    if not head.isascii():
        return _parse_head_bytes(head, quirks)
    text = head.decode("ascii")
    lines = text.split("\r\n")
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        lines, quirks = _split_lenient(text, quirks)
    if len(text) > MAX_LINE and max(map(len, lines)) > MAX_LINE:
        raise SipParseError("Header line too long", 513, fatal=True)
    names: list[str] = []
    values: list[str] = []
    known = KNOWN_NAMES.get
    start_line = lines[0]
    del lines[0]
    for line in lines:
        name, colon, value = line.partition(":")
        canonical = known(name)
        if canonical is None or not colon:
            quirks = _odd_line(line, names, values, quirks)
        else:
            names.append(canonical)
            values.append(value.strip(_LWS))
    return _assemble(start_line, names, values, quirks)


def _split_lenient(text: str, quirks: list[str] | None) -> tuple[list[str], list[str]]:
    """Lines ended by LF with or without CR; a CR elsewhere, and NUL, are read as blanks (RFC 9112 2.2 does so)."""
    quirks = quirks if quirks is not None else []
    lines = text.split("\n")
    if text.count("\r\n") != len(lines) - 1:
        quirks.append(SipQuirk.LF_ONLY)
    lines = [line[:-1] if line.endswith("\r") else line for line in lines]
    if any("\r" in line or "\0" in line for line in lines):
        quirks.append(SipQuirk.CONTROL_CHARACTER)
        lines = [line.replace("\r", " ").replace("\0", " ") for line in lines]
    return lines, quirks


def _parse_head_bytes(head: bytes, quirks: list[str] | None) -> tuple[Message, int | None]:
    """The head of a message that is not ASCII: split first (LF and ':' are no parts of UTF-8 or GB18030 characters)."""
    # latin-1 maps octets to characters one to one, so the lenient splitter and the folding rule serve here as well
    lines, quirks = _split_lenient(head.decode("latin-1"), quirks)
    if max(map(len, lines)) > MAX_LINE:
        raise SipParseError("Header line too long", 513, fatal=True)
    names: list[str] = []
    values: list[str] = []
    for line in lines[1:]:
        quirks = _odd_line(line, names, values, quirks) or quirks
    for position, value in enumerate(values):
        if value.isascii():
            continue
        raw = value.encode("latin-1")
        text, note = _decode(raw)
        values[position] = ReceivedText.of(text, raw)
        if note is not None and note not in quirks:
            quirks.append(note)
    start_line, note = _decode(lines[0].encode("latin-1"))
    if note is not None and note not in quirks:
        quirks.append(note)
    return _assemble(start_line, names, values, quirks)


def _odd_line(line: str, names: list[str], values: list[str], quirks: list[str] | None) -> list[str] | None:
    """A line whose name is not spelt in a registered way: folded, unknown, odd case, or garbage."""
    note = ""
    if line[:1] in (" ", "\t"):
        if names:
            note = SipQuirk.FOLDED_HEADER
            values[-1] = f"{values[-1]} {line.strip(_LWS)}".strip(_LWS)
        else:
            note = SipQuirk.GARBAGE_LINE
    else:
        name, colon, value = line.partition(":")
        token = name.rstrip(" \t")
        if not colon or TOKEN.fullmatch(token) is None:
            note = SipQuirk.GARBAGE_LINE
        else:
            if len(token) != len(name):
                note = SipQuirk.SPACE_BEFORE_COLON
            names.append(canonical_name(token))
            values.append(value.strip(_LWS))
    if note:
        if quirks is None:
            return [note]
        if note not in quirks:
            quirks.append(note)
    return quirks


def _assemble(
    start_line: str, names: list[str], values: list[str], quirks: list[str] | None
) -> tuple[Message, int | None]:
    declared: int | None = None
    length_error = ""
    if "Content-Length" in names:
        declared, length_error = _take_length(names, values)
    if len(names) > MAX_HEADER_COUNT:
        raise SipParseError("Too many header fields", 513, fatal=True)
    headers = Headers.from_lists(names, values)
    message: Message
    if start_line.startswith("SIP/"):
        message = _parse_status_line(start_line, headers, quirks, declared)
        if length_error:
            raise SipParseError(length_error, 0, fatal=True)
    else:
        message = _parse_request_line(start_line, headers, quirks, declared)
        if length_error:
            raise SipParseError(length_error, 400, message, fatal=True)
    if "Via" not in names:
        message.note_quirk(SipQuirk.NO_VIA)
    return message, declared


def _take_length(names: list[str], values: list[str]) -> tuple[int | None, str]:
    """Remove Content-Length; its value, or why it cannot be trusted (RFC 4475 3.1.2.3, 3.3.9)."""
    found: set[str] = set()
    while "Content-Length" in names:
        position = names.index("Content-Length")
        found.add(values[position])
        del names[position], values[position]
    if len(found) > 1:
        return None, "Different Content-Length values"
    (text,) = found
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        return None, "Bad Content-Length"
    return int(text), ""


def _parse_request_line(
    line: str, headers: Headers, quirks: list[str] | None, declared: int | None
) -> Request:
    """Request-Line = Method SP Request-URI SP SIP-Version: single blanks, nothing else (RFC 3261 7.1)."""
    parts = line.split(" ")
    if len(parts) != 3 or not parts[1]:
        raise _bad_request_line(line, headers, quirks, declared)
    method, uri, version = parts
    known = KNOWN_METHODS.get(method)
    if version != SIP_VERSION:
        if version.upper() != SIP_VERSION:
            raise _bad_version(parts, headers, quirks, declared)
        version = SIP_VERSION  # the version compares without case (RFC 3261 7.1)
    if known is None:
        if TOKEN.fullmatch(method) is None:
            raise _bad_request_line(line, headers, quirks, declared)
        known = KNOWN_METHODS.get(method.upper())
        if known is None:
            known = method
        else:
            quirks = quirks if quirks is not None else []
            quirks.append(SipQuirk.METHOD_CASE)
    if uri[0] == "<" or "\t" in uri:
        raise _bad_request_line(line, headers, quirks, declared)
    return Request(known, uri, headers, b"", version, quirks)


def _bad_request_line(
    line: str, headers: Headers, quirks: list[str] | None, declared: int | None
) -> SipParseError:
    """400 for a request line with a slip; what has no SIP version at its end is not SIP at all and gets nothing."""
    words = line.split()
    if len(words) < 2 or not words[-1].upper().startswith("SIP/") or TOKEN.fullmatch(words[0]) is None:
        return SipParseError("Not a SIP message", 0, fatal=True)
    error = SipParseError("Bad Request-Line", 400, Request(words[0], "", headers, b"", SIP_VERSION, quirks))
    error.content_length = declared
    return error


def _bad_version(
    parts: list[str], headers: Headers, quirks: list[str] | None, declared: int | None
) -> SipParseError:
    method, uri, version = parts
    if not version.upper().startswith("SIP/") or TOKEN.fullmatch(method) is None:
        return SipParseError("Not a SIP message", 0, fatal=True)
    # RFC 4475 3.1.2.16
    error = SipParseError("Version Not Supported", 505, Request(method, uri, headers, b"", version, quirks))
    error.content_length = declared
    return error


# Status-Line = SIP-Version SP Status-Code SP Reason-Phrase; the phrase may be empty, its blank may not
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6][0-9]{2})(?: (.*))?", re.DOTALL)


def _parse_status_line(
    line: str, headers: Headers, quirks: list[str] | None, declared: int | None
) -> Response:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        # RFC 4475 3.1.2.19: a response that cannot be read is dropped
        error = SipParseError("Bad Status-Line", 0)
        error.content_length = declared
        raise error
    reason = match.group(2)
    if reason is None:
        quirks = quirks if quirks is not None else []
        quirks.append(SipQuirk.REASON_SPACE)
    return Response(int(match.group(1)), reason or "", headers, b"", SIP_VERSION, quirks)


# --- streams ---------------------------------------------------------------------------------------------------

_LOOKAHEAD = 65_536
"""Octets after a wrong Content-Length within which the end of the body is looked for."""
_WINDOW = 1_024
"""More than the longest thing that the patterns below match, so that a search may go on where it stopped."""

_START = (
    rb"(?:(?:" + "|".join(METHODS).encode("ascii") + rb") sips?:[^\s<>]{1,400} SIP/2\.0[ \t]{0,8}\r?\n"
    rb"|SIP/2\.0 [1-6][0-9]{2}(?: [^\r\n<>]{0,200})?\r?\n)"
)
_START_LINE = re.compile(_START, re.IGNORECASE)
_ANY_START_LINE = re.compile(
    rb"[!-;=?-~]{1,200} [^\s<>]{1,8000} SIP/[0-9.]+[ \t]{0,8}\r?\n|SIP/[0-9.]+ [^\n]*\n", re.I
)
_START_WORDS = tuple(word.encode("ascii") for word in (*METHODS, SIP_VERSION))

_ROOT = re.compile(
    rb"[\s\0\xef\xbb\xbf]{0,64}(?:<\?xml[^<>]{0,200}\?>[\s\0]{0,64})?<([A-Za-z][\w.\-]{0,63})[\s>]"
)


@lru_cache(maxsize=16)
def _patterns(root: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """For a root element: its end tag at the end; its end tag and a start line; its end tag or a start line."""
    close = rb"</" + re.escape(root) + rb"\s{0,8}>"
    return (
        re.compile(rb"(?:" + close + rb")\Z", re.IGNORECASE),
        re.compile(close + rb"[\s\0]{0,16}(" + _START + rb")", re.IGNORECASE),
        re.compile(rb"(" + close + rb")|" + _START, re.IGNORECASE),
    )


def _may_become_start(tail: bytes) -> bool:
    """Whether `tail` (no line end in it) can be the beginning of a start line."""
    upper = tail[:12].upper()
    return bool(tail) and any(
        word.startswith(upper) or upper.startswith(word + b" ") for word in _START_WORDS
    )


class StreamParser:
    """Messages out of one connection's octets. One owner, one connection; nothing is shared.

    After a fatal error (`failed`) it takes nothing more: the connection must be closed. The machine is a generator
    that asks for octets by yielding, so its state is where it stands.
    """

    __slots__ = (
        "_buffer",
        "_events",
        "_flushing",
        "_machine",
        "_max_message",
        "_skipped",
        "failed",
        "waiting",
    )

    def __init__(self, max_message: int = MAX_STREAM_MESSAGE) -> None:
        self.failed: SipParseError | None = None
        """The fatal error, once there was one."""
        self.waiting = False
        """A body came in full by its Content-Length but does not end as it should, or ended before it; what follows
        will tell where it ends. If nothing follows for a moment, call `flush`."""
        self._buffer = bytearray()
        self._events: list[Message | Ping | SipParseError] = []
        self._flushing = False
        self._skipped = False
        self._max_message = max_message
        self._machine = self._run()
        next(self._machine)

    def allow(self, max_message: int) -> None:
        """Another limit from the next message on."""
        self._max_message = max_message

    def feed(self, data: bytes) -> list[Message | Ping | SipParseError]:
        """Everything that `data` completes, in order. Never raises for octets of the peer."""
        if self.failed is not None:
            return []
        self._buffer += data
        return self._advance()

    def flush(self) -> list[Message | Ping | SipParseError]:
        """Nothing follows: trust the Content-Length of the body that `waiting` is about, or its end tag before it."""
        if self.failed is not None or not self.waiting:
            return []
        self._flushing = True
        try:
            return self._advance()
        finally:
            self._flushing = False

    @property
    def buffered(self) -> int:
        """Octets kept of an unfinished message."""
        return len(self._buffer)

    def _advance(self) -> list[Message | Ping | SipParseError]:
        next(self._machine, None)
        events, self._events = self._events, []
        return events

    def _fail(self, error: SipParseError) -> None:
        error.fatal = True
        self.failed = error
        self._events.append(error)
        self._buffer.clear()

    def _run(self) -> Generator[None, None, None]:
        resync = False
        while True:
            yield from self._between(resync)
            if self.failed is not None:
                return
            head = yield from self._head()
            if head is None:
                return
            error: SipParseError | None = None
            message: Message | None = None
            try:
                message, declared = _parse_head(head, None)
            except SipParseError as caught:
                error, declared = caught, caught.content_length
                if error.fatal or declared is None:
                    self._fail(error)
                    return
            if declared is not None and declared + len(head) > self._max_message:
                self._fail(
                    SipParseError("Message too large", 513, message if isinstance(message, Request) else None)
                )
                return
            if message is None:
                # refused, but framed: its body is skipped
                while len(self._buffer) < (declared or 0):
                    yield
                del self._buffer[: declared or 0]
                resync = True
                if error is not None:
                    self._events.append(error)
                continue
            if self._skipped:
                self._skipped = False
                message.note_quirk(SipQuirk.RESYNCHRONISED)
            content_type = (message.headers.get("Content-Type") or "").lower()
            resync = _may_be_xml(content_type)
            if declared is None:
                message.note_quirk(SipQuirk.NO_CONTENT_LENGTH)
                if content_type and not resync:
                    self._fail(
                        SipParseError(
                            "Missing Content-Length", 400, message if isinstance(message, Request) else None
                        )
                    )
                    return
                end = (yield from self._body_end(message, 0)) if content_type else 0
            elif resync and declared:
                end = yield from self._body_end(message, declared)
            else:
                end = declared
                while len(self._buffer) < end:
                    yield
            message.body = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._events.append(message)

    def _between(self, resync: bool) -> Generator[None, None, None]:
        """Up to the first octet of a start line: blank lines are keepalives; after XML, strays are skipped."""
        buffer = self._buffer
        line_ends = 0
        while True:
            if not buffer:
                yield
            elif buffer[0] == 0x0A:
                del buffer[:1]
                line_ends += 1
                if line_ends == 2:
                    line_ends = 0
                    self._events.append(PING)
            elif buffer[0] == 0x0D or (resync and buffer[0] in b" \t\0"):
                del buffer[:1]
            else:
                break
        if not resync:
            return
        scanned = 0
        while _ANY_START_LINE.match(buffer) is None:
            complete = b"\n" in buffer or len(buffer) > MAX_LINE
            if complete:
                found = _START_LINE.search(buffer, scanned, _LOOKAHEAD)
                if found is not None:
                    del buffer[: found.start()]
                    self._skipped = True
                    return
                scanned = max(0, len(buffer) - _WINDOW)
            if len(buffer) >= _LOOKAHEAD:
                self._fail(SipParseError("Not a SIP message", 0))
                return
            yield

    def _head(self) -> Generator[None, None, bytes | None]:
        """The head without its blank line, taken out of the buffer; None after failure."""
        buffer = self._buffer
        scanned = 0
        while True:
            found = _HEAD_END.search(buffer, scanned)
            if found is not None:
                head = bytes(buffer[: found.start()]).removesuffix(b"\r")
                del buffer[: found.end()]
                return head
            if len(buffer) > MAX_HEADER_SECTION + 4:
                self._fail(SipParseError("Header section too large", 513))
                return None
            scanned = max(0, len(buffer) - 3)
            yield

    def _body_end(self, message: Message, declared: int) -> Generator[None, None, int]:
        """Where an XML body ends (XML-14). See the module's docstring."""
        buffer = self._buffer
        # 1. up to the declared length; a whole message within it ends the body early
        scanned = 0
        root: bytes | None = None
        while True:
            if root is None:
                opened = _ROOT.match(buffer, 0, declared)
                root = opened.group(1) if opened else None
            if root is not None:
                inner = _patterns(root)[1].search(buffer, scanned, declared)
                if inner is not None:
                    message.note_quirk(SipQuirk.CONTENT_LENGTH)
                    return inner.start(1)
                scanned = max(0, min(len(buffer), declared) - _WINDOW)
            if len(buffer) >= declared:
                break
            # The root has ended and octets are still announced: if nothing follows for a moment, nothing will.
            tail = bytes(buffer[-_WINDOW:]).rstrip(_BLANK)
            self.waiting = root is not None and _patterns(root)[0].search(tail) is not None
            if self.waiting and self._flushing:
                self.waiting = False
                message.note_quirk(SipQuirk.CONTENT_LENGTH)
                return len(buffer)
            yield
            self.waiting = False
        if declared and root is None and not bytes(buffer[:declared]).lstrip(_BLANK).startswith(b"<"):
            return declared  # no XML after all
        try:
            self.waiting = True
            return (yield from self._settle_end(message, declared, root))
        finally:
            self.waiting = False

    def _settle_end(self, message: Message, declared: int, root: bytes | None) -> Generator[None, None, int]:
        """The declared length is reached; if the body does not end with its root's end tag, what follows tells."""
        buffer = self._buffer
        while root is None:  # no Content-Length, or one that ends before the root element begins
            opened = _ROOT.match(buffer, 0, declared + _WINDOW)
            if opened is not None:
                root = opened.group(1)
                break
            if (
                self._flushing
                or len(buffer) >= declared + _WINDOW
                or _START_LINE.match(buffer, declared) is not None
            ):
                return declared
            yield
        at_end, _, either = _patterns(root)
        body = bytes(buffer[:declared]).rstrip(_BLANK)
        if at_end.search(body, max(0, len(body) - 80)) is not None:
            return declared
        limit = declared + _LOOKAHEAD
        position = body.lower().rfind(b"</" + root.lower())
        closed = either.match(buffer, position, declared) if position >= 0 else None
        if closed is not None:
            # Octets behind the root (XML-18), or the beginning of the next message?
            start = closed.end()
            while start < declared and buffer[start] in _BLANK:
                start += 1
            tail = bytes(buffer[start:declared])
            if b"\n" in tail or not _may_become_start(tail):
                return declared
            while _START_LINE.match(buffer, start) is None:
                if (
                    self._flushing
                    or b"\n" in buffer[start : start + _WINDOW]
                    or len(buffer) > start + _WINDOW
                ):
                    return declared
                yield
            message.note_quirk(SipQuirk.CONTENT_LENGTH)
            return start
        scanned = 0
        while True:
            found = either.search(buffer, scanned, limit)
            if found is not None:
                end = found.end() if found.group(1) is not None else found.start()
                if (
                    not bytes(buffer[declared:end]).strip(_BLANK)
                    and end >= declared
                    and found.group(1) is None
                ):
                    return declared  # an unfinished body of the right length, and the next message
                message.note_quirk(SipQuirk.CONTENT_LENGTH)
                return end
            if self._flushing or len(buffer) >= limit:
                return declared
            scanned = max(0, len(buffer) - _WINDOW)
            yield


def _may_be_xml(content_type: str) -> bool:
    """XML-17: MANSCDP comes under its own type, under text/plain, or under none."""
    return (
        not content_type
        or "xml" in content_type
        or "manscdp" in content_type
        or content_type.startswith("text/")
    )
