"""Registering as a client (RFC 3261 10.2 and 22; GB/T 28181-2022 9.1): one registration as a function of answers.

Each round is the flow of 9.1.2.1: a REGISTER without credentials, the challenge, a REGISTER that answers it. A refresh
is the same flow (9.1.1 b), so a nonce is used once and only when it was just asked for (threat S-07). CSeq rises over
all rounds (REG-25); the Call-ID stays until `renew`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gb28181gw.sip import digest
from gb28181gw.sip.exceptions import LocalProtocolError, SipParseError
from gb28181gw.sip.headers import parse_delta_seconds
from gb28181gw.sip.message import Response
from gb28181gw.sip.randomness import random_hex

_ANSWERED: Final = 3
"""Challenges answered in one round: the first, and later ones only when they say that the nonce was stale."""
_PREFERENCE: Final = {"SHA-256": 0, "MD5": 1, "": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who registers where."""

    server_id: str
    """User of the Request-URI."""
    domain: str
    """Host of the Request-URI, From and To."""
    user: str
    """Our id at that server: user of From, To and Contact."""
    username: str
    """Digest user name."""
    password: str
    realm: str = ""
    """The only realm whose challenges are answered; empty: any that this server asks with."""

    @property
    def request_uri(self) -> str:
        return f"sip:{self.server_id}@{self.domain}"

    def __repr__(self) -> str:
        return f"Account(user={self.user!r}, server_id={self.server_id!r})"  # never the password (S-14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """2xx."""

    expires_s: int
    """Granted; what was asked for when the answer does not say."""
    edition: str
    """`X-GB-Ver` of the answer as sent; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Send the REGISTER again with this header."""

    header: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirected:
    """302 (9.1.2.3): register there."""

    host: str
    port: int
    server_id: str
    """Empty: as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Any other final answer, or a challenge that is not answered."""

    status: int
    why: str
    """A sentence part for people."""
    min_expires_s: int = 0
    """Of a 423; 0: none."""


class ClientRegistration:
    """State of one registration. One round at a time: `begin`, then `receive` for each answer."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.call_id = ""
        self.from_tag = ""
        self._cseq = 0
        self._answered = 0
        self.renew()

    def renew(self) -> None:
        """A new Call-ID: after a failure, or for those who refuse a refresh with the old one (CS-04)."""
        self.call_id = random_hex(16)
        self.from_tag = random_hex(8)

    def begin(self) -> None:
        """A new round: no challenge was answered in it."""
        self._answered = 0

    def next_cseq(self) -> int:
        """Of the next REGISTER."""
        self._cseq += 1
        return self._cseq

    def receive(self, response: Response, wanted_s: int) -> Accepted | Again | Redirected | Refused:
        """What the final answer to our newest REGISTER means; `wanted_s` is the Expires that it asked for."""
        status = response.status
        if 200 <= status < 300:
            return Accepted(
                expires_s=_granted(response, wanted_s), edition=response.headers.get("X-GB-Ver") or ""
            )
        if status in (401, 407):
            return self._challenged(response)
        if status in (301, 302):
            target = _target(response)
            if target is not None:
                return target
            return Refused(status=status, why="it redirects to no address")
        lowest = parse_delta_seconds(response.headers.get("Min-Expires") or "") if status == 423 else None
        return Refused(status=status, why=f"{status} {response.reason}".strip(), min_expires_s=lowest or 0)

    def _challenged(self, response: Response) -> Again | Refused:
        ask, give = (
            ("WWW-Authenticate", "Authorization")
            if response.status == 401
            else ("Proxy-Authenticate", "Proxy-Authorization")
        )
        found = [
            challenge
            for value in response.headers.get_all(ask)
            if (challenge := digest.parse_challenge(value)) is not None
        ]
        if not found:
            return Refused(status=response.status, why="its challenge cannot be answered")
        account = self.account
        ours = [challenge for challenge in found if account.realm in ("", challenge.realm)]
        if not ours:
            return Refused(
                status=response.status,
                why=f"it asks for the password of realm {found[0].realm[:64]!r}, and {account.realm!r} is set",
            )
        challenge = min(ours, key=lambda one: _PREFERENCE[one.algorithm])
        if self._answered and not (challenge.stale and self._answered < _ANSWERED):
            return Refused(status=response.status, why="it does not accept user name or password")
        self._answered += 1
        try:
            value = digest.answer(
                challenge,
                "REGISTER",
                account.request_uri,
                account.username,
                account.password,
                cnonce=random_hex(8) if challenge.qop else "",
            )
        except LocalProtocolError as error:
            return Refused(status=response.status, why=str(error))
        return Again(header=(give, value))


def _granted(response: Response, wanted_s: int) -> int:
    try:
        contact = response.contact
    except SipParseError:
        contact = None  # a broken Contact in a 200 is no reason not to be registered
    text = contact.param("expires") if contact is not None and not contact.is_star else None
    seconds = parse_delta_seconds((text or response.headers.get("Expires") or "").strip('"'))
    return wanted_s if seconds is None else seconds


def _target(response: Response) -> Redirected | None:
    try:
        contact = response.contact
    except SipParseError:
        return None
    if contact is None or contact.is_star or not contact.uri.host:
        return None
    return Redirected(
        host=contact.uri.host.strip("[]"), port=contact.uri.port or 5060, server_id=contact.uri.user
    )
