"""Subscriptions of ours at peers: SUBSCRIBE dialogs, and which NOTIFY belongs to which (RFC 6665, GB/T 28181 9.11).

A subscription is a dialog and an `Event`. A NOTIFY belongs to it by Call-ID and both tags; a few devices change a
tag or the `id` of the Event, so the Call-ID alone is enough and the difference is told (CAT-21). A NOTIFY may
overtake the 200 of its SUBSCRIBE: it is known by the Call-ID from the moment the request leaves.

Nothing here decides when to renew or what a notification means; `devices.subscriptions` does.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from gb28181gw.errors import GatewayError
from gb28181gw.sip.dialog import Dialog
from gb28181gw.sip.exceptions import SipError
from gb28181gw.sip.headers import parse_delta_seconds
from gb28181gw.sip.message import Request, Response
from gb28181gw.sip.path import Path
from gb28181gw.sip.randomness import random_hex
from gb28181gw.ua.compose import Composer, user_of
from gb28181gw.ua.exchanges import Exchanges
from gb28181gw.ua.models import Target

MAX_EXPIRES_S: Final = 86_400
"""What a 423 may make us ask for at most."""
KNOWN_CHARS: Final = 64
"""Texts up to this length are remembered with what they mean."""
ENDED_KEPT: Final = 10_000
"""Call-IDs of subscriptions that we ended: their notifications are answered 481 for as long as they are known."""


@dataclass(slots=True, kw_only=True, eq=False)
class Subscription:
    """One subscription that a peer granted. Its owner moves `dialog.path` when the peer moves."""

    dialog: Dialog
    event: str
    """Value of `Event` as sent."""
    granted_s: int
    """Of the latest 2xx; never more than was asked for."""
    answer: bytes = b""
    """Body of the latest 2xx: in the 2016 edition a MANSCDP Response, since 2022 nothing (9.11.1.3)."""

    def to_record(self) -> dict[str, object]:
        """For the store; `from_record` gives an equal one."""
        return {"dialog": self.dialog.to_record(), "event": self.event, "granted_s": self.granted_s}

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Subscription:
        """Raises KeyError or ValueError for what is not a record."""
        dialog, granted_s = record["dialog"], record["granted_s"]
        if not isinstance(dialog, dict) or not isinstance(granted_s, int):
            raise ValueError("not a record")  # noqa: TRY004 - one family of errors for a bad record
        return cls(dialog=Dialog.from_record(dialog), event=str(record["event"]), granted_s=granted_s)


class Belonging(StrEnum):
    """How far a NOTIFY fits."""

    EXACT = "exact"
    """Call-ID, both tags and the Event."""
    CALL_ID = "call_id"
    """The Call-ID alone (CAT-21)."""
    EARLY = "early"
    """The SUBSCRIBE is not answered yet."""
    ENDED = "ended"
    """We ended that subscription."""
    NONE = "none"
    """No subscription of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A NOTIFY, as far as RFC 6665 is concerned."""

    belonging: Belonging
    subscription: Subscription | None = None
    state: str = "active"
    """``active``, ``pending`` or ``terminated`` of Subscription-State; ``active`` without that header."""
    reason: str = ""
    """Of a termination."""
    expires_s: int | None = None
    retry_after_s: int | None = None


class Subscriptions:
    """Owner of the Call-IDs of our subscriptions."""

    def __init__(self, composer: Composer, exchanges: Exchanges) -> None:
        self._composer = composer
        self._exchanges = exchanges
        self._by_call: dict[str, Subscription] = {}
        self._early: set[str] = set()
        self._ended: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_call)

    # -- asking --------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        target: Target,
        *,
        event: str,
        expires_s: int,
        body: bytes,
        content_type: str,
        timeout_s: float | None = None,
    ) -> Subscription:
        """A new subscription. Raises GatewayError as `UserAgent.request`, and gb.sip.rejected with `sip_status`
        and, where the peer gave one, ``retry_after_s`` in its evidence. 423 is asked once more with its Min-Expires.
        """
        asked, again = expires_s, True
        while True:
            call_id = random_hex(16)
            request = self._composer.outside(
                target,
                "SUBSCRIBE",
                body=body,
                content_type=content_type,
                headers=_headers(event, asked),
                call_id=call_id,
            )
            self._early.add(call_id)
            try:
                response = await self._exchanges.run(request, target.path, timeout_s)
            finally:
                self._early.discard(call_id)
            longer = _min_expires(response)
            if longer is not None and asked < longer and again:
                asked, again = longer, False
                continue
            _insist(response, target.path)
            try:
                dialog = Dialog.as_uac(request, response, target.path)
            except SipError as error:
                raise GatewayError(
                    "gb.sip.rejected",
                    f"The answer of {target.path.peer} to SUBSCRIBE cannot be read: {error}.",
                    sip_status=response.status,
                ) from None
            made = Subscription(
                dialog=dialog, event=event, granted_s=_granted(response, asked), answer=response.body
            )
            self._by_call[call_id] = made
            return made

    async def refresh(
        self,
        subscription: Subscription,
        *,
        expires_s: int,
        body: bytes,
        content_type: str,
        path: Path,
        timeout_s: float | None = None,
    ) -> None:
        """The same once more, within its dialog. Raises as `subscribe`; what the failure means is the caller's.

        `path`: where the peer is now.
        """
        dialog = subscription.dialog
        dialog.path = path
        response = await self._within(subscription, expires_s, body, content_type, timeout_s)
        longer = _min_expires(response)
        if longer is not None and expires_s < longer:
            expires_s = longer
            response = await self._within(subscription, expires_s, body, content_type, timeout_s)
        _insist(response, path)
        with contextlib.suppress(SipError):  # else the old target stays
            dialog.refresh_target(response)
        subscription.granted_s = _granted(response, expires_s)
        subscription.answer = response.body

    async def end(
        self,
        subscription: Subscription,
        *,
        body: bytes,
        content_type: str,
        path: Path | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Expires: 0 within the dialog; its notifications belong to nothing from now on. Raises as `subscribe`."""
        self.forget(subscription, ended=True)
        if path is not None:
            subscription.dialog.path = path
        response = await self._within(subscription, 0, body, content_type, timeout_s)
        _insist(response, subscription.dialog.path)

    async def _within(
        self,
        subscription: Subscription,
        expires_s: int,
        body: bytes,
        content_type: str,
        timeout_s: float | None,
    ) -> Response:
        dialog = subscription.dialog
        request = dialog.request("SUBSCRIBE", body)
        self._composer.complete(
            request,
            dialog.path,
            user_of(dialog.local_uri),
            content_type,
            _headers(subscription.event, expires_s),
        )
        return await self._exchanges.run(request, dialog.path, timeout_s)

    # -- keeping -------------------------------------------------------------------------------------------

    def keep(self, subscription: Subscription) -> None:
        """Take back one of before a restart."""
        self._by_call[subscription.dialog.call_id] = subscription

    def forget(self, subscription: Subscription, *, ended: bool = False) -> None:
        """Its notifications belong to nothing; `ended`: and the peer shall know it. Idempotent."""
        call_id = subscription.dialog.call_id
        if self._by_call.get(call_id) is subscription:
            del self._by_call[call_id]
        if ended:
            self._ended[call_id] = None
            if len(self._ended) > ENDED_KEPT:
                self._ended.popitem(last=False)

    # -- hearing -------------------------------------------------------------------------------------------

    def hear(self, request: Request) -> Heard:
        """Which subscription a NOTIFY belongs to, and what it says of its state. Never raises."""
        call_id = request.call_id
        told = request.headers.get("Subscription-State") or ""
        # Most devices count down from the same number, so a few hundred texts are all that there is.
        read = _known_state if len(told) <= KNOWN_CHARS else _state
        state, reason, expires_s, retry_after_s = read(told)
        subscription = self._by_call.get(call_id)
        if subscription is not None:
            belonging = Belonging.EXACT if _fits(subscription, request) else Belonging.CALL_ID
        elif call_id in self._early:
            belonging = Belonging.EARLY
        elif call_id in self._ended:
            belonging = Belonging.ENDED
        else:
            belonging = Belonging.NONE
        return Heard(
            belonging=belonging,
            subscription=subscription,
            state=state,
            reason=reason,
            expires_s=expires_s,
            retry_after_s=retry_after_s,
        )


def _headers(event: str, expires_s: int) -> tuple[tuple[str, str], ...]:
    return (("Event", event), ("Expires", str(expires_s)))


def _insist(response: Response, path: Path) -> None:
    if response.status < 300:
        return
    raise GatewayError(
        "gb.sip.rejected",
        f"{path.peer} answered {response.status} {response.reason} to SUBSCRIBE.",
        sip_status=response.status,
        retry_after_s=parse_delta_seconds((response.headers.get("Retry-After") or "").split("(")[0].strip()),
    )


def _min_expires(response: Response) -> int | None:
    """Of a 423 (RFC 6665 4.2.1.1); None for any other response and for more than a day."""
    if response.status != 423:
        return None
    wanted = parse_delta_seconds(response.headers.get("Min-Expires") or "")
    return wanted if wanted is not None and wanted <= MAX_EXPIRES_S else None


def _granted(response: Response, asked_s: int) -> int:
    """A notifier may shorten and never lengthen (RFC 6665 4.2.1.1); what is no time says nothing."""
    told = parse_delta_seconds(response.headers.get("Expires") or "")
    return told if told is not None and 0 < told < asked_s else asked_s


def _fits(subscription: Subscription, request: Request) -> bool:
    event = request.headers.get("Event") or ""
    return subscription.dialog.matches(request) and (
        event == subscription.event or _event_key(event) == _event_key(subscription.event)
    )


def _event_key(event: str) -> tuple[str, str]:
    """Package and `id`: what makes two Event values one (RFC 6665 8.2.1)."""
    package, *params = (part.strip() for part in event.split(";"))
    found = next((param.partition("=")[2] for param in params if param.lower().startswith("id=")), "")
    return package.lower(), found


def _state(text: str) -> tuple[str, str, int | None, int | None]:
    """State, reason, expires and retry-after of a Subscription-State (RFC 6665 8.4); leniently."""
    if not text:
        return "active", "", None, None
    state, *params = (part.strip().lower() for part in text.split(";"))
    values = {name.strip(): value.strip() for name, _, value in (param.partition("=") for param in params)}
    return (
        state if state in ("pending", "terminated") else "active",
        values.get("reason", "")[:32],
        parse_delta_seconds(values.get("expires", "")),
        parse_delta_seconds(values.get("retry-after", "")),
    )


_known_state = lru_cache(maxsize=4096)(_state)
