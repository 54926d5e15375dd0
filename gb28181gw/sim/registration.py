"""How a device registers: the four messages of GB/T 28181-2022 9.1.2.1, and the ways of getting them wrong."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.signalling import Signalling
from gb28181gw.sip import digest
from gb28181gw.sip.exceptions import LocalProtocolError
from gb28181gw.sip.headers import parse_delta_seconds
from gb28181gw.sip.message import Headers, Request, Response

USER_AGENT = "gb28181gw-simulator"


class RefusedError(Exception):
    """The platform refused; `status` says how."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a device was configured with."""

    device_id: str
    server_id: str
    domain: str
    username: str
    password: str
    expires_s: int
    edition: str
    quirks: frozenset[Quirk]


class Registration:
    """The registration of one device: challenge kept, CSeq counted. One exchange at a time."""

    def __init__(self, account: Account, signalling: Signalling, rng: random.Random) -> None:
        self.account = account
        self._signalling = signalling
        self._rng = rng
        self._call_id = self._new_call_id()
        self._tag = signalling.tag()
        self._cseq = 0
        self._challenge: digest.Challenge | None = None
        self._nonce_count = 0
        self.granted_s = account.expires_s
        """Expiry of the last 200."""

    def _new_call_id(self) -> str:
        return f"{self._rng.getrandbits(64):016x}@sim"

    async def register(self, expires_s: int | None = None) -> Response:
        """One registration, refresh or (0) end of it. Returns the 200.

        Raises RefusedError for another final status and NoAnswerError.
        """
        quirks = self.account.quirks
        wanted = self.account.expires_s if expires_s is None else expires_s
        if Quirk.REG_12 in quirks and wanted:
            wanted = 60
        credentials = ""
        if Quirk.REG_06 in quirks and self._challenge is not None:
            response = await self._exchange(wanted, "")
            if response.status == 401:
                # Challenged again: the first nonce is used as if nothing had been said.
                response = await self._exchange(wanted, self._credentials(self._challenge))
        else:
            if self._challenge is not None:
                # A refresh answers the challenge that it knows; the platform may ask anew (stale).
                credentials = self._credentials(self._challenge)
            response = await self._exchange(wanted, credentials)
        if response.status == 401 and Quirk.REG_04 in quirks:
            response = await self._exchange(wanted, "Digest ")
        answered = 0
        while response.status == 401:
            challenge = digest.parse_challenge(response.headers.get("WWW-Authenticate") or "")
            if challenge is None:
                raise RefusedError(401, "challenge that this device cannot answer")
            # A second challenge after an answer means a wrong password, unless the nonce was only too old.
            if answered and not (challenge.stale and answered < 3):
                break
            answered += 1
            self._challenge = challenge
            self._nonce_count = 0
            response = await self._exchange(wanted, self._credentials(challenge))
        if response.status != 200:
            self._challenge = None
            self._call_id = self._new_call_id()
            raise RefusedError(response.status, response.reason)
        if wanted:
            self.granted_s = _granted(response, wanted)
        return response

    async def _exchange(self, expires_s: int, credentials: str) -> Response:
        return await self._signalling.ask(self.request(expires_s, credentials))

    def request(self, expires_s: int, credentials: str) -> Request:
        """The REGISTER itself (without Via)."""
        account, quirks = self.account, self.account.quirks
        self._cseq += 1
        host, port = self._signalling.local
        host = f"[{host}]" if ":" in host else host
        domain = host if Quirk.REG_16 in quirks else account.domain
        contact = f"<sip:{account.device_id}@{host}:{port}>"
        if Quirk.REG_10_CONTACT in quirks:
            contact += f";expires={expires_s}"
        headers = Headers(
            [
                ("From", f"<sip:{account.device_id}@{domain}>;tag={self._tag}"),
                ("To", f"<sip:{account.device_id}@{domain}>"),
                ("Call-ID", self._call_id),
                ("CSeq", f"{self._cseq} REGISTER"),
                ("Contact", contact),
                ("Max-Forwards", "70"),
                ("User-Agent", USER_AGENT),
            ]
        )
        if account.edition == "3.0":
            headers.add("X-GB-Ver", "3.0")
        if not quirks & {Quirk.REG_10, Quirk.REG_10_CONTACT} or (expires_s == 0 and Quirk.REG_10 in quirks):
            headers.add("Expires", str(expires_s))
        if credentials:
            headers.add("Authorization", credentials)
        return Request("REGISTER", f"sip:{account.server_id}@{account.domain}", headers)

    def _credentials(self, challenge: digest.Challenge) -> str:
        account, quirks = self.account, self.account.quirks
        uri = f"sip:{account.server_id}@{account.domain}"
        if Quirk.REG_01 in quirks:
            host, port = self._signalling.server
            uri = f"sip:{account.server_id}@{host}:{port}"
        if Quirk.REG_01_BARE in quirks:
            uri = f"{account.server_id}@{account.domain}"
        if Quirk.REG_02 in quirks:
            challenge = replace(challenge, qop="")
        self._nonce_count += 1
        cnonce = f"{self._rng.getrandbits(32):08x}"
        try:
            value = digest.answer(
                challenge,
                "REGISTER",
                uri,
                account.username,
                account.password,
                nc=self._nonce_count,
                cnonce=cnonce,
            )
        except LocalProtocolError as error:
            raise RefusedError(401, str(error)) from error
        if Quirk.REG_03 in quirks and challenge.qop:
            value = _with_odd_nc(value, account, challenge, uri, self._nonce_count + 9, cnonce)
        return value


def _with_odd_nc(
    value: str, account: Account, challenge: digest.Challenge, uri: str, count: int, cnonce: str
) -> str:
    """The credentials with `nc` as a device without padding writes it; hashed as written."""
    name = {"": "md5", "MD5": "md5", "SHA-256": "sha256"}[challenge.algorithm]

    def hashed(text: str) -> str:
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

    literal = f"{count:X}"
    first = hashed(f"{account.username}:{challenge.realm}:{account.password}")
    second = hashed(f"REGISTER:{uri}")
    response = hashed(f"{first}:{challenge.nonce}:{literal}:{cnonce}:{challenge.qop}:{second}")
    parts: list[str] = []
    for part in value.split(", "):
        if part.startswith("response="):
            part = f'response="{response}"'
        elif part.startswith("nc="):
            part = f"nc={literal}"
        parts.append(part)
    return ", ".join(parts)


def _granted(response: Response, wanted: int) -> int:
    """Expiry that the platform granted."""
    contact = response.contact
    text = contact.param("expires") if contact is not None and not contact.is_star else None
    text = text or response.headers.get("Expires")
    seconds = None if text is None else parse_delta_seconds(text.strip('"'))
    return seconds or wanted
