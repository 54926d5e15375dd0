"""Stateless nonces: HMAC over time, source address and device, so that nothing is kept and a restart forgets none.

Text of a nonce, 32 characters of base64url: 6 octets time of minting in ms, 3 random octets (two nonces of one
millisecond differ, so each can be used once), 15 octets HMAC-SHA256. Bound to address and device: a nonce captured
elsewhere, minted for another device, or invented is `foreign` (S-02, REG-05).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum

from gb28181gw.sip.exceptions import LocalProtocolError
from gb28181gw.sip.randomness import random_bytes

_TIME_SIZE = 6
_SALT_SIZE = 3
_MAC_SIZE = 15
_TEXT_SIZE = (_TIME_SIZE + _SALT_SIZE + _MAC_SIZE) * 4 // 3
_MIN_KEY = 16


class NonceStatus(Enum):
    VALID = "valid"
    """Minted by us for this device at this address, not too old."""
    EXPIRED = "expired"
    """As valid, but older than the lifetime (or minted before the clock was set back): challenge with stale=true."""
    FOREIGN = "foreign"
    """Not minted by this key for this device at this address."""


@dataclass(frozen=True, slots=True)
class NonceVerdict:
    status: NonceStatus
    age_s: float = 0.0
    """Seconds since minting; 0 for a foreign one. The registrar narrows the lifetime by it (first use, refresh)."""

    @property
    def valid(self) -> bool:
        return self.status is NonceStatus.VALID

    @property
    def expired(self) -> bool:
        return self.status is NonceStatus.EXPIRED

    @property
    def foreign(self) -> bool:
        return self.status is NonceStatus.FOREIGN


_FOREIGN = NonceVerdict(NonceStatus.FOREIGN)


class NonceMinter:
    """Mints nonces and recognises its own. Stateless: any number of processes with one key understand each other."""

    __slots__ = ("_key", "_lifetime_s", "_skew_s")

    def __init__(self, key: bytes, *, lifetime_s: float = 3600.0, skew_s: float = 5.0) -> None:
        """`key`: at least 16 random octets, kept across restarts. `lifetime_s`: longest use of a nonce.
        `skew_s`: how far in the future a nonce may lie after a small step of the clock."""
        if len(key) < _MIN_KEY:
            raise LocalProtocolError("nonce key is too short")
        self._key = key
        self._lifetime_s = lifetime_s
        self._skew_s = skew_s

    def mint(self, now_wall: float, source_ip: str, device_id: str) -> str:
        """A new nonce; `now_wall` in seconds since 1970."""
        head = max(0, int(now_wall * 1000)).to_bytes(_TIME_SIZE, "big") + random_bytes(_SALT_SIZE)
        return base64.urlsafe_b64encode(head + self._mac(head, source_ip, device_id)).decode("ascii")

    def check(
        self, nonce: str, now_wall: float, source_ip: str, device_id: str, *, lifetime_s: float | None = None
    ) -> NonceVerdict:
        """Judge a nonce that came back; `lifetime_s` overrides the minter's. Never raises for a peer's text."""
        if len(nonce) != _TEXT_SIZE:
            return _FOREIGN
        try:
            raw = base64.b64decode(nonce.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return _FOREIGN
        head = raw[: _TIME_SIZE + _SALT_SIZE]
        if not hmac.compare_digest(raw[_TIME_SIZE + _SALT_SIZE :], self._mac(head, source_ip, device_id)):
            return _FOREIGN
        age_s = now_wall - int.from_bytes(head[:_TIME_SIZE], "big") / 1000
        lifetime = self._lifetime_s if lifetime_s is None else lifetime_s
        fresh = -self._skew_s <= age_s <= lifetime
        return NonceVerdict(NonceStatus.VALID if fresh else NonceStatus.EXPIRED, max(0.0, age_s))

    def _mac(self, head: bytes, source_ip: str, device_id: str) -> bytes:
        # lengths keep ("1", "23") and ("12", "3") apart
        ip = source_ip.encode("utf-8", "replace")
        text = b"%s%d:%s%s" % (head, len(ip), ip, device_id.encode("utf-8", "replace"))
        # Keyed BLAKE2 is a MAC by itself (RFC 7693 2.9) and costs a fifth of HMAC-SHA-256 here: two for each REGISTER.
        return hashlib.blake2b(text, key=self._key, digest_size=_MAC_SIZE).digest()
