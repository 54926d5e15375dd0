"""Registration at a platform as an awaitable: the only code that answers challenges (threat S-07).

Credentials leave for the path that was asked for, as the answer to a challenge that came back on it, and only in a
REGISTER.
"""

from __future__ import annotations

from gb28181gw.errors import GatewayError
from gb28181gw.sip.path import Path
from gb28181gw.sip.registration import (
    Accepted,
    Account,
    Again,
    ClientRegistration,
    Redirected,
    Refused,
)
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.models import Target


class Registration:
    """One registration of ours. One call at a time; its owner repeats it before it expires."""

    def __init__(self, agent: UserAgent, account: Account, *, gb_version: str, timeout_s: float) -> None:
        """`gb_version`: value of X-GB-Ver; empty: the header is left out. `timeout_s`: for each answer."""
        self._agent = agent
        self._account = account
        self._gb_version = gb_version
        self._timeout_s = timeout_s
        self._state = ClientRegistration(account)
        self._renewing = False
        """This server refused a refresh with the Call-ID of before (CS-04)."""
        self._stands = False

    async def register(self, path: Path, expires_s: int, *, server_id: str = "") -> Accepted | Redirected:
        """Register or refresh; 0 unregisters. `server_id`: that of a redirect, empty: the configured one.

        Raises GatewayError: gb.sip.registration_refused with `sip_status`, gb.sip.no_answer, gb.sip.path_lost.
        """
        if self._renewing or not self._stands:
            self._state.renew()
        refreshed = self._stands
        try:
            result = await self._round(path, expires_s, server_id)
            if isinstance(result, Refused) and result.min_expires_s > expires_s > 0:
                result = await self._round(path, result.min_expires_s, server_id)
            if isinstance(result, Refused) and refreshed and not self._renewing and expires_s:
                # Some take a refresh as a repeated request; they want a new Call-ID each time.
                self._state.renew()
                result = await self._round(path, expires_s, server_id)
                self._renewing = isinstance(result, Accepted)
        except GatewayError:
            self._stands = False
            raise
        self._stands = isinstance(result, Accepted) and expires_s > 0
        if isinstance(result, Refused):
            raise GatewayError(
                "gb.sip.registration_refused",
                f"{path.peer} refused our registration: {result.why}.",
                sip_status=result.status,
                peer=path.peer,
            )
        return result

    async def _round(self, path: Path, expires_s: int, server_id: str) -> Accepted | Redirected | Refused:
        state, account = self._state, self._account
        state.begin()
        credentials: tuple[tuple[str, str], ...] = ()
        while True:
            response = await self._agent.request(
                Target(path=path, user=account.user, domain=account.domain),
                "REGISTER",
                headers=(("Expires", str(expires_s)), *credentials),
                timeout_s=self._timeout_s,
                from_user=account.user,
                from_domain=account.domain,
                request_uri=f"sip:{server_id}@{account.domain}" if server_id else account.request_uri,
                call_id=state.call_id,
                cseq=state.next_cseq(),
                from_tag=state.from_tag,
                gb_version=self._gb_version,
            )
            step = state.receive(response, expires_s)
            if not isinstance(step, Again):
                return step
            credentials = (step.header,)


__all__ = ["Accepted", "Account", "Redirected", "Registration"]
