"""INVITEs of ours: from the request to the end of the transaction, and what nobody waits for any more.

An `_Invitation` outlives its awaiting caller, because a 2xx may come late, again, or from two ends. The first 2xx is
the caller's: it gets an `Answer` and acknowledges it. Every further 2xx of the same end gets that ACK again. A 2xx
after we gave up (F-05), or of another end (a fork), is acknowledged and ended by BYE here, so that no device streams
to nobody.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from gb28181gw.errors import GatewayError
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.events import ResponseReceived
from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Request, Response
from gb28181gw.sip.path import Path
from gb28181gw.ua.compose import Composer, user_of
from gb28181gw.ua.models import AgentCounters, Answer
from gb28181gw.ua.passage import PASSAGE
from gb28181gw.ua.shell import Shell

Supervise = Callable[[Callable[[], None], Path, str], None]
"""Runs a callback of those above and keeps its exception from everybody else."""


class _Invitation:
    __slots__ = (
        "abandoned",
        "acks",
        "final",
        "future",
        "on_provisional",
        "path",
        "request",
        "transaction_id",
        "winner",
    )

    def __init__(
        self, request: Request, path: Path, on_provisional: Callable[[Response], None] | None
    ) -> None:
        self.request = request
        self.path = path
        self.on_provisional = on_provisional
        self.transaction_id = ""
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.abandoned = False
        """Nobody waits any more; whatever is agreed to from now on is ended."""
        self.final: Response | None = None
        """The last final response."""
        self.winner: str | None = None
        """Tag of the end whose 2xx the caller got."""
        self.acks: dict[str, bytes] = {}
        """Tag of the far end -> its ACK, for repeated 2xx."""

    @property
    def key(self) -> tuple[str, str]:
        return self.request.call_id, self.request.from_.tag


class Calls:
    """Owner of the invitations. The `on_...` calls answer whether the transaction is theirs."""

    def __init__(
        self, shell: Shell, composer: Composer, counters: AgentCounters, supervise: Supervise
    ) -> None:
        self._shell = shell
        self._composer = composer
        self._counters = counters
        self._supervise = supervise
        self._by_transaction: dict[str, _Invitation] = {}
        self._by_dialog: dict[tuple[str, str], _Invitation] = {}
        """By Call-ID and our tag."""

    def __len__(self) -> int:
        return len(self._by_transaction)

    async def invite(
        self,
        request: Request,
        path: Path,
        *,
        timeout_s: float,
        on_provisional: Callable[[Response], None] | None,
    ) -> Answer:
        """See `UserAgent.invite`."""
        invitation = _Invitation(request, path, on_provisional)
        invitation.transaction_id = self._shell.endpoint.send_request(
            request, path, self._shell.now(), sent_by=self._composer.sent_by(path)
        )
        self._by_transaction[invitation.transaction_id] = invitation
        self._by_dialog[invitation.key] = invitation
        self._shell.pump()
        try:
            return await self._answer(invitation, timeout_s)
        finally:
            passage = PASSAGE.get()
            if passage is not None and invitation.final is not None:
                passage.route = invitation.final.headers.get("X-RoutePath") or ""

    async def _answer(self, invitation: _Invitation, timeout_s: float) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                return await invitation.future
        except TimeoutError:
            if invitation.future.done() and not invitation.future.cancelled():
                return invitation.future.result()  # answered in the last moment
            self._give_up(invitation)
            raise GatewayError(
                "gb.sip.no_answer",
                f"{invitation.path.peer} gave no final answer to INVITE within {timeout_s:g} s.",
                peer=invitation.path.peer,
            ) from None
        except asyncio.CancelledError:
            self._give_up(invitation)
            raise

    def ack(self, dialog: Dialog) -> None:
        """See `UserAgent.ack`."""
        invitation = self._by_dialog.get((dialog.call_id, dialog.local_tag))
        data = self._shell.endpoint.send_ack(
            dialog.request("ACK"), dialog.path, sent_by=self._composer.sent_by(dialog.path)
        )
        if invitation is not None:
            invitation.acks[dialog.remote_tag] = data
        self._shell.pump()

    def on_response(self, event: ResponseReceived) -> bool:
        """A response to one of our INVITEs."""
        invitation = self._by_transaction.get(event.transaction_id)
        if invitation is None:
            return False
        response = event.response
        if response.status >= 200:
            invitation.final = response
        if response.status < 200:
            if invitation.on_provisional is not None and not invitation.future.done():
                self._supervise(functools.partial(invitation.on_provisional, response), event.path, "INVITE")
        elif response.status < 300:
            self._on_accepted(invitation, response)
        else:
            detail = (
                f"{invitation.path.peer} refused INVITE with {response.status} {response.reason}".rstrip()
            )
            self._fail(invitation, "gb.sip.rejected", f"{detail}.", sip_status=response.status)
        return True

    def on_timed_out(self, transaction_id: str) -> bool:
        """No final response within the time of the transaction."""
        invitation = self._by_transaction.get(transaction_id)
        if invitation is None:
            return False
        self._fail(invitation, "gb.sip.no_answer", f"{invitation.path.peer} did not answer INVITE.")
        return True

    def on_transport_failed(self, transaction_id: str) -> bool:
        """The connection ended before the final response."""
        invitation = self._by_transaction.get(transaction_id)
        if invitation is None:
            return False
        self._fail(invitation, "gb.sip.path_lost", f"The connection to {invitation.path.peer} ended.")
        return True

    def on_terminated(self, transaction_id: str) -> None:
        """No 2xx can come any more, if the transaction was ours."""
        invitation = self._by_transaction.pop(transaction_id, None)
        if invitation is not None:
            self._by_dialog.pop(invitation.key, None)

    def close(self) -> None:
        """Nobody waits any longer."""
        for invitation in list(self._by_transaction.values()):
            if not invitation.future.done():
                invitation.future.set_exception(GatewayError("gb.route.shutting_down"))

    def _on_accepted(self, invitation: _Invitation, response: Response) -> None:
        tag = response.to.tag
        known = invitation.acks.get(tag)
        if known is not None:
            self._counters.acks_repeated += 1
            self._shell.endpoint.send_again(known, invitation.path)
            return
        if invitation.winner == tag and not invitation.abandoned:
            return  # repeated before the caller acknowledged; the peer will repeat it again
        try:
            dialog = Dialog.as_uac(invitation.request, response, invitation.path)
        except SipParseError as error:
            detail = f"The answer of {invitation.path.peer} cannot be read: {error.reason}."
            self._fail(invitation, "gb.sip.rejected", detail, sip_status=response.status)
            return
        if invitation.abandoned or invitation.winner is not None or invitation.future.done():
            self._end_unwanted(dialog)
            return
        invitation.winner = tag
        invitation.future.set_result(Answer(sdp=response.body, dialog=dialog, response=response))

    def _end_unwanted(self, dialog: Dialog) -> None:
        """A 2xx that nobody wants: acknowledge it, or it is repeated for 32 s, and end it (F-05)."""
        self._counters.late_answers += 1
        self.ack(dialog)
        bye = dialog.request("BYE")
        self._composer.complete(bye, dialog.path, user_of(dialog.local_uri))
        self._shell.endpoint.send_request(
            bye, dialog.path, self._shell.now(), sent_by=self._composer.sent_by(dialog.path)
        )
        self._shell.pump()

    def _give_up(self, invitation: _Invitation) -> None:
        """Nobody waits any more: CANCEL, and end what was or will be agreed."""
        invitation.abandoned = True
        future = invitation.future
        if future.done() and not future.cancelled() and future.exception() is None:
            dialog = future.result().dialog
            if dialog.remote_tag not in invitation.acks:
                self._end_unwanted(dialog)
            return
        self._shell.endpoint.cancel(invitation.transaction_id, self._shell.now())
        self._shell.pump()

    def _fail(
        self, invitation: _Invitation, code: str, detail: str, *, sip_status: int | None = None
    ) -> None:
        if not invitation.future.done():
            invitation.future.set_exception(
                GatewayError(code, detail, sip_status=sip_status, peer=invitation.path.peer)
            )
