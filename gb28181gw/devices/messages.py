"""MESSAGE and NOTIFY from devices: the keepalive fast path, and the way of everything else.

Theory of operation. Nine messages in ten are a keepalive in the standard's own words on the bound path: a compiled
pattern, a comparison of two paths, 200. Nothing is parsed, queued or written (F-02, KA-08). Everything else is
parsed, answered at once (9.3.3.1 d), and then routed by root and CmdType; whatever goes wrong after the answer is
counted and costs only this message (F-23).

Who is heard at all is `PathKeeper.admit`: off the bound path nothing has an effect beyond what the path rule allows,
and who is not known gets 403 once and then silence, never a 200 (S-03).
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gb28181gw.clock import Clock
from gb28181gw.devices.binding import Action
from gb28181gw.devices.incoming import IncomingRequest
from gb28181gw.devices.models import Device
from gb28181gw.devices.path_keeper import PathKeeper
from gb28181gw.devices.presence import PresenceKeeper
from gb28181gw.devices.queries import Queries
from gb28181gw.devices.registry import Registry
from gb28181gw.gb.exceptions import GbParseError
from gb28181gw.gb.ids import clean_id, is_gb_id
from gb28181gw.gb.manscdp.catalogue import read_catalog_response
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.keepalive import Keepalive, read_keepalive, sniff_keepalive
from gb28181gw.gb.manscdp.media_status import MediaStatus, read_media_status
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.grammar import MAX_TRUSTED_MESSAGE
from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path

KEEPALIVE_BYTES: Final = 1_024
"""The pattern of the fast path is tried on bodies up to this."""
UDP_BYTES: Final = 65_536
TCP_BYTES: Final = MAX_TRUSTED_MESSAGE
THREAD_BYTES: Final = 131_072
"""Bodies beyond this are parsed in a thread (S-05): a megabyte takes longer than the loop may be blocked (I8)."""
PARSED_AT_ONCE: Final = 8
"""Bodies in threads, or waiting for one."""
POISON_ERRORS: Final = 5
POISON_PAUSE_S: Final = 60.0
STRANGER_S: Final = 600.0
"""A stranger is told 403 once in so long."""
TABLE_LIMIT: Final = 10_000

Handler = Callable[[Device, Document, "Envelope"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a handler may need of the SIP message around a document."""

    method: str
    """MESSAGE or NOTIFY."""
    call_id: str
    path: Path
    bound: bool
    """It came over the bound path: only then may an unasked message change anything (S-03)."""
    sender: str = ""
    """User of From: the device, or a channel of it."""


@dataclass(slots=True)
class MessageCounters:
    """Plain counters for the exporter."""

    keepalives: int = 0
    keepalives_slow: int = 0
    """Keepalives that needed the parser."""
    documents: int = 0
    strangers: int = 0
    off_path: int = 0
    malformed: int = 0
    unhandled: int = 0
    handler_errors: int = 0
    paused: int = 0


@dataclass(slots=True)
class _Poison:
    errors: int = 0
    paused_until: float = 0.0


def _read_apart(body: bytes, limit: int) -> Document:
    """Parse, and read what a long body usually is: 10,000 items take longer than the loop may be blocked (I8)."""
    document = parse(body, max_bytes=limit)
    if document.cmd_type == "Catalog" and document.root == "Response":
        read_catalog_response(document)  # the document keeps what was read
    return document


class Messages:
    """Handler of MESSAGE and of NOTIFY outside dialogs."""

    def __init__(
        self,
        *,
        registry: Registry,
        presence: PresenceKeeper,
        paths: PathKeeper,
        queries: Queries,
        bus: EventBus,
        clock: Clock,
        on_refused: Callable[[Path], None],
        on_heard: Callable[[Device, Document], None] = lambda _device, _document: None,
    ) -> None:
        """`on_refused(path)` counts a refusal against its source (S-20); `on_heard` sees each document of the bound
        path, before it is routed."""
        self._on_heard = on_heard
        self.counters = MessageCounters()
        self.unhandled: Counter[str] = Counter()
        """By root and CmdType; at most 256 names."""
        self._registry = registry
        self._presence = presence
        self._paths = paths
        self._queries = queries
        self._bus = bus
        self._clock = clock
        self._on_refused = on_refused
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._media_status: Callable[[str, MediaStatus, str], None] | None = None
        self._faults: Callable[[Device], None] | None = None
        self._notified: Callable[[Device, Request], int] | None = None
        self._told: OrderedDict[str, float] = OrderedDict()
        self._poison: OrderedDict[tuple[str, str], _Poison] = OrderedDict()
        self._parsing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for bodies that are still being parsed."""
        await asyncio.gather(*self._parsing, return_exceptions=True)

    def on_document(self, root: str, cmd_type: str, handler: Handler) -> None:
        """Give documents that answer no question of ours to `handler(device, document, envelope)`."""
        self._handlers[root, cmd_type] = handler

    def on_faults(self, hear: Callable[[Device], None]) -> None:
        """`hear(device)` when `device.faulty` changed."""
        self._faults = hear

    def on_media_status(self, hear: Callable[[str, MediaStatus, str], None]) -> None:
        """`hear(device_id, status, call_id)` for MediaStatus outside a watched dialog (XML-19)."""
        self._media_status = hear

    def on_notify(self, hear: Callable[[Device, Request], int]) -> None:
        """`hear(device, request)` for each NOTIFY on the bound path, before its body is read; it says the status of
        the answer, and only a 200 lets the body count."""
        self._notified = hear

    # -- in ------------------------------------------------------------------------------------------------

    def handle(self, incoming: IncomingRequest) -> None:
        """Answer one MESSAGE or NOTIFY and do what it asks for."""
        body = incoming.request.body
        path = incoming.path
        device = self._registry.get(incoming.from_user)
        keepalive = sniff_keepalive(body) if len(body) <= KEEPALIVE_BYTES else None
        if device is not None and device.path == path and keepalive is not None:
            self.counters.keepalives += 1
            if incoming.request.quirks:
                self._note_form(incoming, device)
            self._keepalive(incoming, device, keepalive)
            return
        if device is None:
            device = self._sender(incoming)
        if device is None:
            self._stranger(incoming)
            return
        action = self._paths.admit(device, path)
        if action is Action.PROBE_FAR or action is Action.IGNORE:
            self.counters.off_path += 1
            incoming.ignore()
            return
        if keepalive is not None:
            self.counters.keepalives += 1
            self._keepalive(incoming, device, keepalive)
            return
        if not device.online and not self._presence.may_revive(device):
            incoming.ignore()
            return
        bound = action is not Action.PROCESS and action is not Action.PROBE_NEAR
        if bound and incoming.request.quirks:
            self._note_form(incoming, device)
        self._presence.seen(device, "message")
        if bound and self._notified is not None and incoming.request.method == "NOTIFY":
            status = self._notified(device, incoming.request)
            if status != 200:
                incoming.respond(status)
                return
        if not body:
            # Nothing to read; a few devices keep their NAT open with an empty MESSAGE.
            incoming.respond(200)
            return
        self._take(incoming, device, body, bound=bound)

    def _sender(self, incoming: IncomingRequest) -> Device | None:
        """The device behind a From that is none: a channel of the device on this path, or an id with dirt on it."""
        user = clean_id(incoming.from_user)
        device = self._registry.get(user)
        return device if device is not None else self._registry.alone_on(incoming.path)

    def _stranger(self, incoming: IncomingRequest) -> None:
        """403 once, so that a device that lost its registration may register; then silence (S-03, S-11)."""
        self.counters.strangers += 1
        self._on_refused(incoming.path)
        host = incoming.path.remote_host
        now = self._clock.monotonic()
        told = self._told.get(host)
        if (told is not None and now - told < STRANGER_S) or not is_gb_id(clean_id(incoming.from_user)):
            incoming.ignore()
            return
        self._told[host] = now
        self._told.move_to_end(host)
        if len(self._told) > TABLE_LIMIT:
            self._told.popitem(last=False)
        incoming.respond(403)

    # -- keepalive -----------------------------------------------------------------------------------------

    def _keepalive(self, incoming: IncomingRequest, device: Device, keepalive: Keepalive) -> None:
        if not device.online and not self._presence.may_revive(device):
            # REG-23: silence makes the device register anew; many ignore a 4xx.
            incoming.ignore()
            return
        self._presence.keepalive(device)
        if keepalive.status != "OK" or device.warning:
            self._warn(device, keepalive)
        if device.faulty:
            self._note_faults(device, keepalive)
        if device.trial_until:
            # On trial: unanswered, so that the device registers from where it is now.
            incoming.ignore()
        else:
            incoming.respond(200)

    def _warn(self, device: Device, keepalive: Keepalive) -> None:
        """KA-06: a status other than OK is shown, and told when it changes."""
        warning = "" if keepalive.status.upper() == "OK" else keepalive.status
        if warning and keepalive.fault_ids:
            warning = f"{warning}: {', '.join(keepalive.fault_ids[:16])}"
        if warning != device.warning:
            device.warning = warning
            self._bus.emit(
                "device.status",
                device_id=device.id,
                online=True,
                status=keepalive.status,
                reason="keepalive",
                detail=warning or "OK again",
            )

    def _note_faults(self, device: Device, keepalive: Keepalive) -> None:
        """What it calls faulty of what it has (9.6.1); each keepalive tells all of it."""
        faulty = frozenset(one for one in keepalive.fault_ids if one in device.channels)
        if faulty == device.faulty:
            return
        device.faulty = faulty
        named = ", ".join(sorted(faulty)[:16])
        self._bus.emit(
            "device.status",
            device_id=device.id,
            online=True,
            status=keepalive.status,
            reason="keepalive",
            detail=f"{len(faulty)} faulty: {named}" if faulty else "nothing faulty any more",
        )
        if self._faults is not None:
            self._faults(device)

    # -- everything else -----------------------------------------------------------------------------------

    def _take(self, incoming: IncomingRequest, device: Device, body: bytes, *, bound: bool) -> None:
        path = incoming.path
        envelope = Envelope(
            method=incoming.request.method,
            call_id=incoming.request.call_id,
            path=path,
            bound=bound,
            sender=incoming.from_user,
        )
        limit = TCP_BYTES if path.reliable else UDP_BYTES
        if len(body) > THREAD_BYTES and len(body) <= limit:
            if len(self._parsing) >= PARSED_AT_ONCE:
                # A peer that floods with megabytes must not fill our memory (I10); it may send it again.
                self._bus.emit(
                    "limit.reached", limit="bodies_parsed_at_once", value=PARSED_AT_ONCE, device_id=device.id
                )
                incoming.respond(503, headers=(("Retry-After", "5"),))
                return
            incoming.respond(200)
            task = asyncio.get_running_loop().create_task(self._parse_apart(device, body, limit, envelope))
            self._parsing.add(task)
            task.add_done_callback(self._parsing.discard)
            return
        try:
            document = parse(body, max_bytes=limit)
        except GbParseError as error:
            self._malformed(device, error, envelope)
            incoming.respond(400)
            return
        if device.trial_until and document.cmd_type == "Keepalive":
            incoming.ignore()
        else:
            incoming.respond(200)
        self._route_all(device, document, envelope)

    async def _parse_apart(self, device: Device, body: bytes, limit: int, envelope: Envelope) -> None:
        loop = asyncio.get_running_loop()
        try:
            document = await loop.run_in_executor(None, _read_apart, body, limit)
        except GbParseError as error:
            self._malformed(device, error, envelope)
            return
        self._route_all(device, document, envelope)

    def _malformed(self, device: Device, error: GbParseError, envelope: Envelope) -> None:
        self.counters.malformed += 1
        self._queries.unreadable(device, error.reason)
        self._bus.emit(
            "message.invalid",
            device_id=device.id,
            peer=envelope.path.peer,
            reason=error.reason,
            detail=error.detail[:200],
        )

    def _route_all(self, device: Device, document: Document, envelope: Envelope) -> None:
        if not device.approved and document.cmd_type != "Keepalive":
            return
        for one in (document, *document.following):
            self.counters.documents += 1
            self._guarded(device, one, envelope)

    def _guarded(self, device: Device, document: Document, envelope: Envelope) -> None:
        """F-23: a document that makes a handler fail is counted; after five its type is left alone for a while."""
        key = (device.id, document.cmd_type)
        poison = self._poison.get(key) if self._poison else None
        if poison is not None and self._clock.monotonic() < poison.paused_until:
            self.counters.paused += 1
            return
        try:
            self._route(device, document, envelope)
        except Exception as error:  # supervision point: one device's message must not cost another's
            self._failed(device, document, envelope, error)

    def _failed(self, device: Device, document: Document, envelope: Envelope, error: Exception) -> None:
        self.counters.handler_errors += 1
        poison = self._poison.setdefault((device.id, document.cmd_type), _Poison())
        if len(self._poison) > TABLE_LIMIT:
            self._poison.popitem(last=False)
        poison.errors += 1
        if poison.errors >= POISON_ERRORS:
            poison.errors = 0
            poison.paused_until = self._clock.monotonic() + POISON_PAUSE_S
        self._bus.emit(
            "sip.handler_failed",
            device_id=device.id,
            peer=envelope.path.peer,
            method=envelope.method,
            call_id=envelope.call_id,
            error=type(error).__name__,
            detail=f"{document.root} {document.cmd_type}: {error}"[:200],
        )

    def _route(self, device: Device, document: Document, envelope: Envelope) -> None:
        self._note(device, document)
        if envelope.bound:
            self._on_heard(device, document)
        cmd_type = document.cmd_type
        if cmd_type == "Keepalive":
            self.counters.keepalives_slow += 1
            self._presence.keepalive(device)
            keepalive = read_keepalive(document)
            self._warn(device, keepalive)
            if envelope.bound:
                self._note_faults(device, keepalive)
            return
        root = document.root
        if envelope.method == "NOTIFY" and root == "Response":
            # The form of 2011 and 2016 (9.11.4.2): it answers no question, whatever its root says.
            root = "Notify"
        if root == "Response" and self._queries.feed(device, document):
            return
        if cmd_type == "MediaStatus":
            if self._media_status is not None:
                self._media_status(device.id, read_media_status(document), envelope.call_id)
            return
        handler = self._handlers.get((root, cmd_type))
        if handler is not None:
            handler(device, document, envelope)
            return
        self.counters.unhandled += 1
        name = f"{document.root} {cmd_type}"
        if name in self.unhandled or len(self.unhandled) < 256:
            self.unhandled[name] += 1
        self._bus.emit(
            "message.unhandled",
            device_id=device.id,
            peer=envelope.path.peer,
            cmd=cmd_type,
            sn=document.sn,
            detail=document.root,
        )

    def _note_form(self, incoming: IncomingRequest, device: Device) -> None:
        """Deviations of the SIP message, which come with each one of this device."""
        for name in incoming.request.quirks:
            self._registry.count_quirk(device, name)

    def _note(self, device: Device, document: Document) -> None:
        for quirk in document.quirks:
            self._registry.count_quirk(device, quirk.value)
