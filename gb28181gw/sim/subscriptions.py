"""What the platform subscribed at a device, and the NOTIFY requests of it (GB/T 28181-2022 9.11, Annex N)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.xml import parse as parse_manscdp
from gb28181gw.sim import bodies
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.registration import USER_AGENT, Account
from gb28181gw.sim.signalling import NoAnswerError, Signalling
from gb28181gw.sip.headers import parse_delta_seconds
from gb28181gw.sip.message import Headers, Request

MANSCDP = "Application/MANSCDP+xml"
SINCE = {"Catalog": "1.0", "Alarm": "1.0", "MobilePosition": "2.0", "PTZPosition": "3.0"}
"""What can be subscribed, and since which edition."""
DEFAULT_EXPIRES_S = 600
FORGET_S = 1.0
"""CAT-19-ENDS: a subscription is forgotten after so long."""


@dataclass(slots=True, kw_only=True, eq=False)
class Granted:
    """One subscription of the platform."""

    call_id: str
    event: str
    command: str
    target: str
    own_tag: str
    peer_tag: str
    expires_at: float
    """Of the event loop's clock."""
    interval_s: float
    cseq: int = 0
    notified: int = 0


class Notifier:
    """Owner of the subscriptions of one device. A device forgets them when it crashes."""

    def __init__(
        self,
        *,
        account: Account,
        signalling: Signalling,
        charset: str,
        note: Callable[..., None],
        began: Callable[[Granted], None],
    ) -> None:
        """`began(granted)` hears each new subscription, after its 200."""
        self._account = account
        self._signalling = signalling
        self._charset = charset
        self._note = note
        self._began = began
        self._granted: dict[str, Granted] = {}

    def active(self, command: str, target: str = "") -> list[Granted]:
        """Subscriptions to a command, of this target or of any, that have not expired."""
        now = asyncio.get_running_loop().time()
        for one in [one for one in self._granted.values() if one.expires_at <= now]:
            del self._granted[one.call_id]
        return [
            one
            for one in self._granted.values()
            if one.command == command and (not target or one.target == target)
        ]

    def holds(self, granted: Granted) -> bool:
        """Whether it still stands."""
        return granted in self.active(granted.command)

    def forget(self) -> None:
        """As after a restart."""
        self._granted.clear()

    # -- SUBSCRIBE -----------------------------------------------------------------------------------------

    def on_subscribe(self, request: Request) -> None:
        """Grant, renew, end or refuse."""
        quirks = self._account.quirks
        if Quirk.CAT_19_SILENT in quirks:
            self._signalling.ignore(request)
            self._note("subscribe_ignored")
            return
        expires = parse_delta_seconds(request.headers.get("Expires") or "")
        expires_s = DEFAULT_EXPIRES_S if expires is None else expires
        if request.to.tag:
            self._again(request, expires_s)
            return
        status, document = self._judge(request)
        if document is None:
            self._signalling.reply(request, status, to_tag=self._signalling.tag())
            self._note("subscribe_refused", status=status, package=request.headers.get("Event"))
            return
        interval = document.text("Interval")
        granted = Granted(
            call_id=request.call_id,
            event=request.headers.get("Event") or "",
            command=document.cmd_type,
            target=document.device_id,
            own_tag=self._signalling.tag(),
            peer_tag=request.from_.tag,
            expires_at=asyncio.get_running_loop().time() + expires_s,
            interval_s=float(interval) if interval.isdecimal() and interval.isascii() else 5.0,
        )
        if Quirk.CAT_19_ENDS in quirks:
            granted.expires_at = asyncio.get_running_loop().time() + FORGET_S
        self._granted[granted.call_id] = granted
        self._grant(request, granted, expires_s, document)
        self._note(
            "subscribed",
            command=granted.command,
            target=granted.target,
            package=granted.event,
            expires=expires_s,
        )
        if Quirk.CAT_19 not in quirks:
            self._began(granted)

    def _judge(self, request: Request) -> tuple[int, Document | None]:
        quirks = self._account.quirks
        if Quirk.CAT_19_REFUSED in quirks:
            return 405, None
        event = request.headers.get("Event") or ""
        if Quirk.CAT_19_EVENT in quirks and event.partition(";")[0].strip() != "presence":
            return 489, None
        try:
            document = parse_manscdp(request.body)
        except GbError:
            return 400, None
        since = SINCE.get(document.cmd_type)
        if document.root != "Query" or since is None or self._account.edition < since:
            return 489, None
        return 200, document

    def _again(self, request: Request, expires_s: int) -> None:
        """A SUBSCRIBE in its dialog: renewed, or ended by 0."""
        granted = self._granted.get(request.call_id)
        if granted is None or not self.holds(granted) or request.to.tag != granted.own_tag:
            self._signalling.reply(request, 481, to_tag=request.to.tag)
            self._note("subscription_unknown")
            return
        try:
            document = parse_manscdp(request.body)
        except GbError:
            self._signalling.reply(request, 400, to_tag=granted.own_tag)
            return
        if expires_s == 0:
            del self._granted[granted.call_id]
            self._note("unsubscribed", command=granted.command, target=granted.target)
        else:
            granted.expires_at = asyncio.get_running_loop().time() + expires_s
            self._note("renewed", command=granted.command, target=granted.target)
        self._grant(request, granted, expires_s, document)

    def _grant(self, request: Request, granted: Granted, expires_s: int, document: Document) -> None:
        """The 200; before 2022 with a Response of its own (9.11.1.3), but for the inter-domain catalogue."""
        host, port = self._signalling.local
        headers = [
            ("Expires", str(expires_s)),
            ("Contact", f"<sip:{self._account.device_id}@{host}:{port}>"),
        ]
        body = b""
        old = self._account.edition < "3.0" and not granted.event.startswith("Catalog;id=")
        if old or Quirk.CAT_19_ERROR in self._account.quirks:
            outcome = "ERROR" if Quirk.CAT_19_ERROR in self._account.quirks else "OK"
            answer = bodies.Element(
                "Response",
                children=(
                    bodies.leaf("CmdType", granted.command),
                    bodies.leaf("SN", document.sn or 0),
                    bodies.leaf("DeviceID", granted.target),
                    bodies.leaf("Result", outcome),
                ),
            )
            body = bodies.render(answer, self._charset, self._account.quirks)
            headers.append(("Content-Type", MANSCDP))
        self._signalling.reply(request, 200, to_tag=granted.own_tag, headers=headers, body=body)

    # -- NOTIFY --------------------------------------------------------------------------------------------

    async def notify(
        self, granted: Granted, body: bodies.Element | None, *, state: str = "active", reason: str = ""
    ) -> int:
        """One NOTIFY; the status of its answer, 0 without one. 481 ends the subscription (RFC 6665 4.2.2)."""
        quirks = self._account.quirks
        if Quirk.CAT_19 in quirks:
            return 0
        granted.cseq += 1
        left = max(0, round(granted.expires_at - asyncio.get_running_loop().time()))
        peer_tag, event = granted.peer_tag, granted.event
        if Quirk.CAT_21 in quirks:
            peer_tag, event = self._signalling.tag(), f"{event.partition(';')[0]};id=1"
        told = f"{state};reason={reason}" if state == "terminated" else f"{state};expires={left}"
        account = self._account
        host, port = self._signalling.local
        headers = Headers(
            [
                ("From", f"<sip:{account.device_id}@{account.domain}>;tag={granted.own_tag}"),
                ("To", f"<sip:{account.server_id}@{account.domain}>;tag={peer_tag}"),
                ("Call-ID", granted.call_id),
                ("CSeq", f"{granted.cseq} NOTIFY"),
                ("Contact", f"<sip:{account.device_id}@{host}:{port}>"),
                ("Max-Forwards", "70"),
                ("User-Agent", USER_AGENT),
                ("Event", event),
                ("Subscription-State", told),
            ]
        )
        data = b""
        if body is not None:
            headers.add("Content-Type", MANSCDP)
            data = bodies.render(body, self._charset, quirks)
        request = Request("NOTIFY", f"sip:{account.server_id}@{account.domain}", headers, data)
        if state == "terminated":
            self._granted.pop(granted.call_id, None)
        try:
            response = await self._signalling.ask(request)
        except NoAnswerError:
            return 0
        granted.notified += 1
        self._note("notified", command=granted.command, status=response.status)
        if response.status == 481:
            self._granted.pop(granted.call_id, None)
        return response.status

    async def end(self, command: str, reason: str) -> None:
        """The device ends what it granted."""
        for granted in self.active(command):
            await self.notify(granted, None, state="terminated", reason=reason)
