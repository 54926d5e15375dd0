"""Digest access authentication, both directions (RFC 3261 22, RFC 2617, RFC 7616; GB/T 28181-2022 9.1).

Values are hashed as they stood on the wire: the `uri` of the credentials and never the Request-URI (REG-01), the
`nc` token letter by letter (REG-03), with qop if the answer has one and without if it has not (REG-02). Where the
nonce comes from, how long it lives and which realm is ours is the registrar's business; nothing here falls back
from one algorithm to another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from gb28181gw.sip.exceptions import LocalProtocolError

ALGORITHMS = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
"""Names on the wire -> functions."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")
_UNESCAPED_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')
# auth-param = token "=" ( token / quoted-string ); values without quotes may here hold anything but blank, comma
_PARAM = re.compile(r"""[\s,]*([A-Za-z0-9_\-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))""", re.DOTALL)


def _hash(algorithm: str, text: str) -> str:
    return ALGORITHMS[algorithm](text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def _response(
    algorithm: str,
    username: str,
    realm: str,
    password: str,
    method: str,
    uri: str,
    nonce: str,
    qop: str,
    nc: str,
    cnonce: str,
) -> str:
    ha1 = _hash(algorithm, f"{username}:{realm}:{password}")
    ha2 = _hash(algorithm, f"{method}:{uri}")
    if qop:
        return _hash(algorithm, f"{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}")
    return _hash(algorithm, f"{ha1}:{nonce}:{ha2}")


def _quoted(name: str, value: str) -> str:
    # Values are wire text: an escape stays an escape, a bare quote would end the string early.
    if _FORBIDDEN.search(value) is not None or _UNESCAPED_QUOTE.search(value) is not None:
        raise LocalProtocolError(f"digest {name} cannot be written")
    return f'{name}="{value}"'


def _read_params(value: str) -> dict[str, str] | None:
    """Parameters of a Digest header value, names in lower case, values without quotes but with their escapes.

    None if the scheme is another one. The first of equal names counts.
    """
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    found: dict[str, str] = {}
    position = 0
    while (match := _PARAM.match(rest, position)) is not None:
        name, quoted, plain = match.groups()
        found.setdefault(name.lower(), plain if quoted is None else quoted)
        position = match.end()
    return found


def _read_algorithm(text: str | None) -> str | None:
    """Canonical name; missing means MD5 (RFC 2617 3.2.1); None if it is not ours to compute."""
    if not text:
        return "MD5"
    name = text.upper()
    return name if name in ALGORITHMS else None


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server asks: the value of WWW-Authenticate or Proxy-Authenticate."""

    realm: str
    nonce: str
    algorithm: str = "MD5"
    """`MD5` or `SHA-256`; "" leaves the parameter out, which means MD5 and is the oldest devices' form."""
    qop: str = "auth"
    """`auth`, or "" for the form without qop (a few firmwares fail when it is offered, REG-02)."""
    opaque: str = ""
    stale: bool = False
    """The nonce was too old but the hash was right: answer with the new nonce, do not ask a person."""

    def header(self) -> str:
        """Header value. Raises LocalProtocolError if a part cannot be written."""
        if self.algorithm and self.algorithm not in ALGORITHMS:
            raise LocalProtocolError("unknown digest algorithm")
        if self.qop not in ("", "auth"):
            raise LocalProtocolError("unknown qop")
        parts = [_quoted("realm", self.realm), _quoted("nonce", self.nonce)]
        if self.opaque:
            parts.append(_quoted("opaque", self.opaque))
        if self.stale:
            parts.append("stale=true")
        if self.algorithm:
            parts.append(f"algorithm={self.algorithm}")
        if self.qop:
            parts.append('qop="auth"')
        return f"Digest {', '.join(parts)}"


def parse_challenge(value: str) -> Challenge | None:
    """Read a challenge. None if it cannot be answered: other scheme or algorithm, no realm or nonce, no `auth`."""
    params = _read_params(value)
    if params is None or "realm" not in params or not params.get("nonce"):
        return None
    algorithm = _read_algorithm(params.get("algorithm"))
    if algorithm is None:
        return None
    qop = ""
    if params.get("qop"):
        options = {option.strip().lower() for option in params["qop"].split(",")}
        if "auth" not in options:
            return None  # auth-int alone: no GB/T 28181 peer uses it
        qop = "auth"
    return Challenge(
        realm=params["realm"],
        nonce=params["nonce"],
        # "" stays "": the answer then leaves the parameter out as well
        algorithm=algorithm if params.get("algorithm") else "",
        qop=qop,
        opaque=params.get("opaque", ""),
        stale=params.get("stale", "").lower() == "true",
    )


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client answers: the value of Authorization. Texts are as received, without their quotes."""

    username: str
    realm: str
    nonce: str
    uri: str
    """Byte for byte as received; it need not be the Request-URI (REG-01)."""
    response: str
    algorithm: str = ""
    """As received; "" if left out."""
    qop: str = ""
    nc: str = ""
    """The literal token (REG-03); see `nc_value`."""
    cnonce: str = ""
    opaque: str = ""

    @property
    def nc_value(self) -> int | None:
        """The nonce count as a number (it is hexadecimal), None if it is missing or no number."""
        if not 1 <= len(self.nc) <= 16 or not all(char in "0123456789abcdefABCDEF" for char in self.nc):
            return None
        return int(self.nc, 16)

    def __repr__(self) -> str:
        # the response is a password's equivalent for an offline guess: never in a log (S-14)
        return f"Credentials(username={self.username!r}, realm={self.realm!r}, uri={self.uri!r})"


def parse_credentials(value: str) -> Credentials | None:
    """Read an Authorization value.

    None means "no credentials", to be answered by a fresh challenge: empty, another scheme, or without one of
    username, realm, nonce, uri, response (REG-04, RFC 4475 3.3.7).
    """
    params = _read_params(value)
    if params is None or not all(params.get(name) for name in _NEEDED):
        return None
    return Credentials(
        username=params["username"],
        realm=params["realm"],
        nonce=params["nonce"],
        uri=params["uri"],
        response=params["response"],
        algorithm=params.get("algorithm", ""),
        qop=params.get("qop", ""),
        nc=params.get("nc", ""),
        cnonce=params.get("cnonce", ""),
        opaque=params.get("opaque", ""),
    )


_NEEDED = ("username", "realm", "nonce", "uri", "response")


def verify(credentials: Credentials, method: str, password: str, *, algorithm: str = "") -> bool:
    """Whether the response is right for this password. Compares in constant time.

    `algorithm`: what was offered; an answer with another one is wrong (no downgrade). "": any that we know.
    `method` is the request's, in its usual spelling. Realm, nonce and `nc` order are for the caller to check.
    """
    used = _read_algorithm(credentials.algorithm)
    if used is None or (algorithm and used != algorithm):
        return False
    qop = credentials.qop
    if qop and (qop.lower() != "auth" or not credentials.nc or not credentials.cnonce):
        return False
    expected = _response(
        used,
        credentials.username,
        credentials.realm,
        password,
        method,
        credentials.uri,
        credentials.nonce,
        qop,
        credentials.nc,
        credentials.cnonce,
    )
    given = credentials.response.lower().encode("utf-8", "replace")
    return hmac.compare_digest(expected.encode("ascii"), given)


def answer(
    challenge: Challenge,
    method: str,
    uri: str,
    username: str,
    password: str,
    *,
    nc: int = 1,
    cnonce: str = "",
) -> str:
    """Authorization value that answers `challenge`.

    `nc` counts the requests sent with this nonce, from 1; `cnonce` is needed with qop and comes from `secrets`.
    Raises LocalProtocolError for a challenge that cannot be answered or a value that cannot be written.
    """
    algorithm = challenge.algorithm or "MD5"
    if algorithm not in ALGORITHMS:
        raise LocalProtocolError("unknown digest algorithm")
    if challenge.qop and not cnonce:
        raise LocalProtocolError("qop needs a cnonce")
    count = f"{nc:08x}"
    response = _response(
        algorithm,
        username,
        challenge.realm,
        password,
        method,
        uri,
        challenge.nonce,
        challenge.qop,
        count,
        cnonce,
    )
    parts = [
        _quoted("username", username),
        _quoted("realm", challenge.realm),
        _quoted("nonce", challenge.nonce),
        _quoted("uri", uri),
        _quoted("response", response),
    ]
    if challenge.algorithm:
        parts.append(f"algorithm={challenge.algorithm}")
    if challenge.qop:
        parts += [f"qop={challenge.qop}", f"nc={count}", _quoted("cnonce", cnonce)]
    if challenge.opaque:
        parts.append(_quoted("opaque", challenge.opaque))
    return f"Digest {', '.join(parts)}"
