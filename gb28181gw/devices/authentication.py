"""Digest rules of S-02: whose answer counts, for how long a nonce is good, and what is never accepted twice.

Nonces are stateless (`sip.nonce`): each tells when, for which device and which address it was minted. What is kept
is one nonce per device: that of its last good answer, with its highest `nc`. Every nonce minted before that one is
dead, so a captured REGISTER cannot come back, also after a restart, since the state is stored with the binding.

The time in the nonces never goes back: it is the wall time of the start, moved on by the monotonic clock (F-19).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.models import Device
from gb28181gw.sip.digest import Credentials, verify
from gb28181gw.sip.nonce import NonceMinter

FIRST_USE_S: Final = 60.0
"""A challenge is answered within a minute, or again."""
REUSE_S: Final = 3_600.0
"""A nonce once used may refresh for so long."""
_NOBODY: Final = "\0"
"""Checked against when there is no password, so that unknown ids take the same time; no wire can carry it."""


class Judgement(Enum):
    """What the credentials of a REGISTER are worth."""

    GOOD = auto()
    CHALLENGE = auto()
    """They do not answer a challenge of ours."""
    STALE = auto()
    """The right password, and a nonce that is used up, too old or of another place: challenge with stale=true."""
    WRONG = auto()


@dataclass(frozen=True, slots=True)
class Judged:
    judgement: Judgement
    reason: str = ""
    minted_at: float = 0.0
    """Of a good answer's nonce."""
    count: int = 0
    """`nc` of a good answer; 0 without qop."""


class Authenticator:
    """Owner of the nonce key and of the nonce clock."""

    def __init__(self, *, key: bytes, realm: str, clock: Clock, not_before: float = 0.0) -> None:
        """`not_before`: the latest minting time that is stored; the nonce clock starts no earlier."""
        self._realm = realm
        self._clock = clock
        self._minter = NonceMinter(key, lifetime_s=REUSE_S)
        self._offset = max(clock.wall(), not_before) - clock.monotonic()

    def nonce(self, ip: str, device_id: str) -> str:
        """A nonce for one challenge."""
        return self._minter.mint(self._now(), ip, device_id)

    def _now(self) -> float:
        return self._offset + self._clock.monotonic()

    def judge(
        self,
        credentials: Credentials,
        *,
        device_id: str,
        username: str,
        password: str | None,
        device: Device | None,
        ip: str,
        changes_state: bool,
    ) -> Judged:
        """Judge the answer to a REGISTER of `device_id` from `ip`.

        `password` None: there is none, so no answer is right. `device` holds the nonce state, None at a first
        registration. `changes_state`: a new path, or unregistering; then a nonce without qop counts only once.
        The device's nonce state is moved on when the answer is good: before the commit, so that the same answer
        cannot be good twice.
        """
        right = verify(credentials, "REGISTER", _NOBODY if password is None else password, algorithm="MD5")
        if credentials.realm != self._realm:
            return Judged(Judgement.CHALLENGE, "wrong_realm")
        if not right or password is None:
            return Judged(Judgement.WRONG, "wrong_password")
        if credentials.username not in (device_id, username):
            return Judged(Judgement.WRONG, "wrong_username")
        now = self._now()
        verdict = self._minter.check(credentials.nonce, now, ip, device_id)
        if verdict.foreign:
            return Judged(Judgement.STALE, "foreign_nonce")
        if verdict.expired:
            return Judged(Judgement.STALE, "expired")
        count = credentials.nc_value or 0 if credentials.qop else 0
        if credentials.qop and not count:
            return Judged(Judgement.CHALLENGE, "nonce_count")
        minted_at = round(now - verdict.age_s, 3)
        if device is not None and device.nonce:
            used = _used(device, credentials, minted_at, count, changes_state=changes_state)
            if used:
                return Judged(Judgement.STALE, used)
        if (device is None or credentials.nonce != device.nonce) and verdict.age_s > FIRST_USE_S:
            return Judged(Judgement.STALE, "expired")
        if device is not None:
            remember_nonce(device, credentials.nonce, minted_at, count)
        return Judged(Judgement.GOOD, "", minted_at, count)


def remember_nonce(device: Device, nonce: str, minted_at: float, count: int) -> None:
    """From now on the answer with this nonce and count, and all before it, are used up."""
    device.nonce = nonce
    device.nonce_minted_at = minted_at
    device.nonce_count = count


def _used(
    device: Device, credentials: Credentials, minted_at: float, count: int, *, changes_state: bool
) -> str:
    """Why the nonce cannot be used (again); empty: it can."""
    if credentials.nonce != device.nonce:
        return "older_nonce" if minted_at <= device.nonce_minted_at else ""
    if credentials.qop or device.nonce_count:
        # A nonce that was used with counts is not accepted without one: that would be a way around them.
        return "nonce_count" if count <= device.nonce_count else ""
    return "used_nonce" if changes_state else ""
