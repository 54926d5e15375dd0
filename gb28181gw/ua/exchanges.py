"""Requests of ours that have one answer: everything but INVITE."""

from __future__ import annotations

import asyncio

from gb28181gw.errors import GatewayError
from gb28181gw.sip.events import ResponseReceived
from gb28181gw.sip.message import Request, Response
from gb28181gw.sip.path import Path
from gb28181gw.ua.compose import Composer
from gb28181gw.ua.shell import Shell


class Exchanges:
    """Owner of the futures of those who await a response. The `on_...` calls answer whether it is theirs."""

    def __init__(self, shell: Shell, composer: Composer) -> None:
        self._shell = shell
        self._composer = composer
        self._waiting: dict[str, tuple[asyncio.Future[Response], Request, Path]] = {}
        """By client transaction."""

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self, request: Request, path: Path, timeout_s: float | None) -> Response:
        """Send and wait; see `UserAgent.request` for the errors."""
        endpoint = self._shell.endpoint
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        transaction_id = endpoint.send_request(
            request, path, self._shell.now(), sent_by=self._composer.sent_by(path)
        )
        self._waiting[transaction_id] = (future, request, path)
        try:
            self._shell.pump()
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()  # answered in the last moment
            raise GatewayError(
                "gb.sip.no_answer",
                f"{path.peer} did not answer {request.method} within {timeout_s:g} s.",
                peer=path.peer,
            ) from None
        finally:
            del self._waiting[transaction_id]
            if not future.done() or future.cancelled():
                endpoint.abandon(transaction_id)

    def on_response(self, event: ResponseReceived) -> bool:
        """Only a final response is an answer."""
        waiting = self._waiting.get(event.transaction_id)
        if waiting is None:
            return False
        if event.response.status >= 200 and not waiting[0].done():
            waiting[0].set_result(event.response)
        return True

    def on_timed_out(self, transaction_id: str) -> bool:
        """Timer F."""
        waiting = self._waiting.get(transaction_id)
        if waiting is None:
            return False
        future, request, path = waiting
        if not future.done():
            detail = f"{path.peer} did not answer {request.method}."
            future.set_exception(GatewayError("gb.sip.no_answer", detail, peer=path.peer))
        return True

    def on_transport_failed(self, transaction_id: str) -> bool:
        """The connection ended, or there was none."""
        waiting = self._waiting.get(transaction_id)
        if waiting is None:
            return False
        future, _, path = waiting
        if not future.done():
            detail = f"The connection to {path.peer} ended."
            future.set_exception(GatewayError("gb.sip.path_lost", detail, peer=path.peer))
        return True

    def close(self) -> None:
        """Nobody waits any longer."""
        for future, _, _ in list(self._waiting.values()):
            if not future.done():
                future.set_exception(GatewayError("gb.route.shutting_down"))
