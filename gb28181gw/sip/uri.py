"""SIP URIs and name-addr: lenient reader, plain writer.

The domains of GB/T 28181 are numbers (`sip:34020000001320000001@3402000000`), devices leave the host out, and
URIs of foreign schemes appear in headers; none of it is an error here (RFC 3261 19.1, 20.10, 25.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.grammar import Params, find_param, format_params, parse_params
from gb28181gw.sip.quirks import SipQuirk

# The form that nearly every message has; what it does not match goes the long way.
_COMMON_URI = re.compile(r"(sips?):([^\s@:;?<>\"]+)@([0-9A-Za-z.\-]+)(?::([0-9]{1,5}))?", re.ASCII)
_COMMON_ADDRESS = re.compile(
    r"<(sips?:[^\s@:;?<>\"]+@[0-9A-Za-z.\-]+(?::[0-9]{1,5})?)>(?:;tag=([^\s;,=<>\"]+))?", re.ASCII
)
# scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*", re.ASCII)
# hostname, IPv4 or "[" IPv6 "]"; wider than the rule: `_` occurs, and labels may be numbers throughout
_HOST = re.compile(r"[0-9A-Za-z.\-_]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_BARE_ID = re.compile(r"[0-9]{16,20}", re.ASCII)
_FORBIDDEN = re.compile(r"[\s<>\"\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Uri:
    """A URI. Text parts are as on the wire: `%` escapes are kept, so that hashes and echoes stay true."""

    scheme: str = "sip"
    """Lower case."""
    user: str = ""
    """Without the password; may carry parameters of its own (`user;par=x`)."""
    host: str = ""
    """Name, number, IPv4, or IPv6 in brackets. "": left out (REG-13)."""
    port: int | None = None
    params: Params = ()
    password: str | None = None
    headers: str = ""
    """What follows `?`."""
    opaque: str = ""
    """Everything after the colon, for schemes other than sip and sips."""

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Read one URI. Raises SipParseError."""
        return _remembered(text) if len(text) <= _SHORT else _read_uri(text)

    @property
    def is_sip(self) -> bool:
        return self.scheme in ("sip", "sips")

    def param(self, name: str) -> str | None:
        """Value of a parameter; "" if it has none; None if it is absent."""
        return find_param(self.params, name)

    def __str__(self) -> str:
        if not self.is_sip:
            return f"{self.scheme}:{self.opaque}"
        user = self.user if self.password is None else f"{self.user}:{self.password}"
        at = "@" if user else ""
        port = "" if self.port is None else f":{self.port}"
        question = f"?{self.headers}" if self.headers else ""
        return f"{self.scheme}:{user}{at}{self.host}{port}{format_params(self.params)}{question}"


def _read_uri(text: str) -> Uri:
    common = _COMMON_URI.fullmatch(text)
    if common is None:
        return _parse_uri(text)
    scheme, user, host, port = common.groups()
    return Uri(scheme, user, host, None if port is None else _port(port))


_SHORT = 80
"""Characters of a text that is remembered, so that nobody can fill memory with long ones (I10)."""
_remembered = lru_cache(maxsize=8192)(_read_uri)
"""Every message of a device has the same two or three URIs. Some 0.5 kB each; what is refused is not kept."""


def _port(text: str) -> int:
    number = int(text)
    if number > 65_535:
        raise SipParseError("Bad port in URI")
    return number


def _parse_uri(text: str) -> Uri:
    scheme, colon, rest = text.partition(":")
    if not colon or _SCHEME.fullmatch(scheme) is None or _FORBIDDEN.search(rest) is not None:
        raise SipParseError("Bad URI")
    scheme = scheme.lower()
    if scheme not in ("sip", "sips"):
        if not rest:
            raise SipParseError("Bad URI")
        return Uri(scheme, opaque=rest)
    userinfo, at, after = rest.partition("@")
    user, password = "", None
    if at:
        # `;`, `?` and `/` may stand in the user part (RFC 3261 25.1 user-unreserved), hence `@` is looked for first
        name, pass_colon, secret = userinfo.partition(":")
        user, password = name, secret if pass_colon else None
    else:
        after = rest
    after, _, headers = after.partition("?")
    hostport, _, params = after.partition(";")
    host, port = _split_port(hostport)
    if not at and port is None and _BARE_ID.fullmatch(host) is not None:
        user, host = host, ""  # an id of a device and no host at all
    if host and _HOST.fullmatch(host) is None:
        raise SipParseError("Bad host in URI")
    if not host and not user:
        raise SipParseError("Empty URI")
    return Uri(scheme, user, host, port, parse_params(params), password, headers)


def _split_port(hostport: str) -> tuple[str, int | None]:
    """``host:5060`` -> host, port. IPv6 stays in its brackets."""
    if hostport.startswith("["):
        host, bracket, tail = hostport.partition("]")
        host += bracket
        if not tail:
            return host, None
        colon, port = tail[:1], tail[1:]
        if colon != ":":
            raise SipParseError("Bad host in URI")
    else:
        host, colon, port = hostport.partition(":")
        if not colon:
            return host, None
    if not port.isascii() or not port.isdigit() or len(port) > 5:
        raise SipParseError("Bad port in URI")
    return host, _port(port)


@dataclass(frozen=True, slots=True)
class NameAddr:
    """An address with display name and header parameters: From, To, Contact, Route (RFC 3261 20.10)."""

    uri: Uri
    display: str = ""
    """Without quotes and escapes."""
    params: Params = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Tolerances that reading it took (names of `SipQuirk`); not part of the address."""

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Read name-addr or addr-spec with parameters. Raises SipParseError."""
        common = _COMMON_ADDRESS.fullmatch(text)
        if common is not None:
            uri, tag = common.groups()
            return cls(Uri.parse(uri), "", () if tag is None else (("tag", tag),))
        return _parse_address(text)

    @property
    def tag(self) -> str:
        """The tag, or "" (RFC 3261 19.3)."""
        return find_param(self.params, "tag") or ""

    @property
    def is_star(self) -> bool:
        """`Contact: *`, which means all bindings (RFC 3261 10.2.2)."""
        return self.uri.host == "*"

    def param(self, name: str) -> str | None:
        """Value of a header parameter; "" if it has none; None if it is absent."""
        return find_param(self.params, name)

    def __str__(self) -> str:
        if self.is_star:
            return "*"
        display = ""
        if self.display:
            escaped = self.display.replace("\\", "\\\\").replace('"', '\\"')
            display = f'"{escaped}" '
        return f"{display}<{self.uri}>{format_params(self.params)}"


STAR = NameAddr(Uri(scheme="", host="*"))

# quoted-string = SWS DQUOTE *(qdtext / quoted-pair ) DQUOTE
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# display-name = *(token LWS); bytes above ASCII are read too: names in Chinese come without quotes
_PLAIN_DISPLAY = re.compile(r"[A-Za-z0-9\-.!%*_+`'~\s\x80-\U0010ffff]*")


def _parse_address(text: str) -> NameAddr:
    text = text.strip()
    notes: list[str] = []
    display = ""
    rest = text
    if text.startswith('"'):
        quoted = _QUOTED.match(text)
        if quoted is None:
            raise SipParseError("Unterminated quoted string")
        display = _ESCAPE.sub(r"\1", quoted.group(1))
        rest = text[quoted.end() :].lstrip()
        if not rest.startswith("<"):
            raise SipParseError("Display name without address")
    opening = rest.find("<")
    if opening < 0:
        return _parse_addr_spec(rest)
    if opening:
        display = rest[:opening].strip()
        if '"' in display:
            raise SipParseError("Unbalanced quote in display name")
        if _PLAIN_DISPLAY.fullmatch(display) is None:
            notes.append(SipQuirk.DISPLAY_NAME)
    closing = rest.find(">", opening)
    if closing < 0:
        raise SipParseError("Address without closing bracket")
    inner = rest[opening + 1 : closing]
    uri_text = inner.strip()
    if len(uri_text) != len(inner):
        notes.append(SipQuirk.URI_SPACE)
    params = rest[closing + 1 :].strip()
    if params and not params.startswith(";"):
        raise SipParseError("Text after address")
    uri = Uri.parse(uri_text)
    if uri.is_sip and not uri.host:
        notes.append(SipQuirk.URI_WITHOUT_HOST)
    return NameAddr(uri, display, parse_params(params), tuple(notes))


def _parse_addr_spec(text: str) -> NameAddr:
    """Without brackets everything after `;` belongs to the header, and `,` and `?` may not occur (RFC 3261 20)."""
    if text == "*":
        return STAR
    spec, _, params = text.partition(";")
    spec = spec.rstrip()
    if "?" in spec or "," in spec:
        raise SipParseError("URI needs angle brackets")
    uri = Uri.parse(spec)
    notes = (SipQuirk.URI_WITHOUT_HOST,) if uri.is_sip and not uri.host else ()
    return NameAddr(uri, "", parse_params(params), notes)
