"""One simulated device: registers, keeps alive, answers queries, sends pictures when it is INVITEd.

Theory of operation. `SimDevice.run` is the device's life as one task: register, then keep alive and refresh until
three keepalives stay unanswered, then register again; for ever. Requests of the platform arrive through
`Signalling` in between and are answered in that turn; what takes longer (a catalogue, an answer that needs content)
runs in tasks that the device owns. Like the real thing it knows nothing of the platform's health beyond its
registration: a stream goes on until BYE, until its media connection breaks, or until the device stops.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Protocol

from gb28181gw.gb.exceptions import GbError
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.xml import parse as parse_manscdp
from gb28181gw.sim import bodies
from gb28181gw.sim.call import ALLOW, Call, CallServices, InviteError
from gb28181gw.sim.content import Content, ContentError, Loop
from gb28181gw.sim.controls import is_new, snapshots_finished
from gb28181gw.sim.faults import FaultRates
from gb28181gw.sim.media_sender import Pump
from gb28181gw.sim.options import DeviceOptions, count_up
from gb28181gw.sim.queries import react
from gb28181gw.sim.quirks import Quirk, select
from gb28181gw.sim.recordings import Recorded, RecordFile, files
from gb28181gw.sim.registration import USER_AGENT, Account, RefusedError, Registration
from gb28181gw.sim.sdp import OfferError, read_offer
from gb28181gw.sim.signalling import NoAnswerError, NotConnectedError, Signalling
from gb28181gw.sim.snapshots import SnapshotOrder, UploadError, file_id, jpeg, upload
from gb28181gw.sim.state import DeviceState
from gb28181gw.sim.subscriptions import SINCE, Granted, Notifier
from gb28181gw.sim.talking import Talking, TalkServices, is_talk
from gb28181gw.sip.exceptions import SipError
from gb28181gw.sip.message import Headers, Request, Response

MANSCDP = "Application/MANSCDP+xml"
MANSRTSP = "Application/MANSRTSP"
MISSES = 3
"""Unanswered keepalives after which the platform counts as away (9.6)."""
REBOOT_S = 1.0
"""A simulated device is back soon."""
LATER_S = 0.1
"""What a real device needs minutes for, such as an upgrade, takes so long."""


class Observer(Protocol):
    """Told what devices do: the display, the JSON lines, a test."""

    def note(self, device_id: str, what: str, **facts: object) -> None: ...


@dataclass(slots=True)
class DeviceCounters:
    """What a device did so far."""

    registrations: int = 0
    register_failures: int = 0
    keepalives: int = 0
    keepalive_misses: int = 0
    queries: int = 0
    catalog_items: int = 0
    invites: int = 0
    streams: int = 0
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceServices:
    """What devices of a process share."""

    pump: Pump
    content_of: Callable[[str], Awaitable[Content]]
    """Content of a channel by its name; may take seconds the first time."""
    loop_of: Callable[[str], Awaitable[Loop]]
    """The loop that a channel's recordings show."""
    observer: Observer
    seed: int


@dataclass(slots=True)
class _State:
    registered: bool = False
    stopping: bool = False
    last_error: str = ""
    sn: int = 0
    searching: bool = False
    """PB-05: a search for recordings is being answered."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


def local_time() -> str:
    """Now as bodies have it: Beijing time."""
    return datetime.now(timezone(timedelta(hours=8))).strftime("%Y-%m-%dT%H:%M:%S")


class SimDevice:
    """A device. Make it, `start()` it, later `await stop()` it."""

    def __init__(
        self, options: DeviceOptions, index: int, services: DeviceServices, *, twin: bool = False
    ) -> None:
        self.options = options
        self.quirks = select(options.quirks)
        device_id = options.device_id(index)
        if Quirk.REG_13 in self.quirks:
            device_id = device_id[:19]
        self.id = device_id
        self._services = services
        self._rng = random.Random(f"{services.seed}/{index}/{twin}")  # noqa: S311 - repeatable on purpose
        first = options.first_channel_id(index)
        self.channels = tuple(
            bodies.SimChannel(count_up(first, number), f"{options.name} {index + 1}-{number + 1}")
            for number in range(options.channels)
        )
        speaker = f"{first[:10]}137{first[13:]}"
        self.channels += tuple(
            bodies.SimChannel(count_up(speaker, number), f"{options.name} {index + 1} speaker {number + 1}")
            for number in range(options.speakers)
        )
        self.identity = bodies.Identity(
            device_id=device_id,
            name=options.name if options.count == 1 else f"{options.name} {index + 1}",
            server_id=options.server_id,
            charset=options.charset,
            edition=options.edition,
            channels=self.channels,
            page=options.catalog_page,
            quirks=self.quirks,
        )
        self.signalling = Signalling(
            server=options.server_address,
            transport=options.transport,
            bind=options.bind,
            quirks=self.quirks,
            rates=FaultRates(
                loss=options.sip_loss, duplicate=options.sip_duplicate, reorder=options.sip_reorder
            ),
            rng=self._rng,
            on_request=self._request,
            on_lost=self._connection_lost,
        )
        self._registration = Registration(
            Account(
                device_id=device_id,
                server_id=options.server_id,
                domain=options.domain,
                username=options.username or device_id,
                password=options.password,
                expires_s=self._asked_expiry(),
                edition=options.edition,
                quirks=self.quirks,
            ),
            self.signalling,
            self._rng,
        )
        self.notifier = Notifier(
            account=self._registration.account,
            signalling=self.signalling,
            charset=options.charset,
            note=self._note,
            began=self._subscribed,
        )
        self.counters = DeviceCounters()
        self.state = DeviceState()
        """What was set and is told when asked."""
        self.calls: dict[str, Call] = {}
        """By Call-ID; a call stays until its media has ended."""
        self.talks: dict[str, Talking] = {}
        """By Call-ID."""
        self.keepalive_s = options.keepalive_s
        self._state = _State()
        self._wake = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._invited: set[str] = set()

    # --- life -----------------------------------------------------------------------------------------------------

    @property
    def registered(self) -> bool:
        return self._state.registered

    @property
    def last_error(self) -> str:
        """Why the device is not registered; empty while it is."""
        return self._state.last_error

    @property
    def streaming(self) -> int:
        """Streams that send now."""
        return sum(1 for call in self.calls.values() if call.sending)

    def start(self) -> None:
        """Begin; returns at once."""
        self._life = asyncio.create_task(self._run(), name=f"sim-{self.id}")
        if self.options.alarm_s:
            self._spawn(self._every(self.options.alarm_s, self.raise_alarm))
        if self.options.position_s and self.options.edition >= SINCE["MobilePosition"]:
            self._spawn(self._every(self.options.position_s, self._tell_unasked))
        if self.options.change_s:
            self._spawn(self._every(self.options.change_s, self._switch))

    async def stop(self, *, unregister: bool = True) -> None:
        """End streams (with BYE), unregister, close the socket. Idempotent."""
        if self._state.stopping:
            return
        self._state.stopping = True
        if self._life is not None:
            self._life.cancel()
            with suppress(asyncio.CancelledError):
                await self._life
        for call in list(self.calls.values()):
            if unregister:
                with suppress(NoAnswerError):
                    await call.hang_up(timeout_s=1.0)
            call.end("device_stopped")
        for talk in list(self.talks.values()):
            if unregister:
                await talk.hang_up()
            talk.end("device_stopped")
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        if unregister and self._state.registered and self.signalling.is_open:
            with suppress(NoAnswerError, RefusedError, TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._registration.register(0)
                    self._note("unregistered")
        self._state.registered = False
        self.signalling.close()

    def crash(self) -> None:
        """End like a power cut: no BYE, no unregistering."""
        self._state.stopping = True
        if self._life is not None:
            self._life.cancel()
        for task in self._state.tasks:
            task.cancel()
        for call in list(self.calls.values()):
            call.end("crash")
        for talk in list(self.talks.values()):
            talk.end("crash")
        self.notifier.forget()
        self.signalling.close()
        self._state.registered = False

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._sign_in()
                failures = 0
                await self._stay()
            except (RefusedError, NoAnswerError, NotConnectedError) as error:
                failures += 1
                self._state.registered = False
                self._state.last_error = str(error)
                self.counters.register_failures += 1
                status = error.status if isinstance(error, RefusedError) else None
                self._note("register_failed", error=str(error), status=status)
                if Quirk.REG_07 in self.quirks:
                    await asyncio.sleep(0.05)
                else:
                    pause = self.options.retry_s
                    # 9.1.1 c and 7.1 c: a random part keeps a fleet from coming back all at once.
                    await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))

    async def _sign_in(self) -> None:
        if not self.signalling.is_open or Quirk.REG_21 in self.quirks:
            await self.signalling.open()
        if Quirk.REG_11 in self.quirks and not self.counters.registrations:
            with suppress(RefusedError):
                await self._registration.register(0)
        await self._registration.register()
        self._state.registered = True
        self._state.last_error = ""
        self.counters.registrations += 1
        self._note("registered", address=self.signalling.socket_name)

    async def _stay(self) -> None:
        """Keepalives and refreshes; returns when the platform seems to be gone."""
        loop = asyncio.get_running_loop()
        # The first keepalive comes somewhere in the first interval, so that a fleet spreads over it.
        next_beat = loop.time() + self.keepalive_s * self._rng.uniform(0.5, 1.0)
        refresh_at = self._refresh_at()
        misses = beats = 0
        self._wake.clear()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(next_beat, refresh_at)):
                    await self._wake.wait()
            if self._wake.is_set():
                raise NoAnswerError("the connection to the platform ended")
            now = loop.time()
            if now >= refresh_at:
                if Quirk.REG_21 in self.quirks:
                    await self.signalling.open()
                await self._registration.register()
                self.counters.registrations += 1
                self._note("refreshed")
                refresh_at = self._refresh_at()
            if now >= next_beat:
                next_beat = now + self.keepalive_s * (0.5 if Quirk.KA_01 in self.quirks else 1.0)
                if await self._beat():
                    misses = 0
                    beats += 1
                else:
                    misses += 1
                    self.counters.keepalive_misses += 1
                    self._note("keepalive_missed", misses=misses)
                    if misses >= MISSES:
                        raise NoAnswerError(f"{MISSES} keepalives without answer")
                if Quirk.REG_17 in self.quirks and beats == 2:
                    beats = 0
                    await self.signalling.open()
                    await self._registration.register()
                    self._note("moved", address=self.signalling.socket_name)

    def _asked_expiry(self) -> int:
        """KA-03: shorter than the heartbeat."""
        if Quirk.KA_03 in self.quirks:
            return max(1, int(self.options.keepalive_s / 2))
        return self.options.expires_s

    def _refresh_at(self) -> float:
        """When to register again: at 80 % of the granted time, at least 10 s before its end if it allows."""
        granted = self._registration.granted_s
        return asyncio.get_running_loop().time() + max(granted * 0.5, min(granted * 0.8, granted - 10))

    async def _beat(self) -> bool:
        """One keepalive; False when it stayed unanswered. Raises RefusedError for 4xx and above."""
        self._state.sn += 1
        if Quirk.REG_22 in self.quirks:
            self.signalling.ping()
        body = bodies.keepalive(self.identity, self._state.sn)
        try:
            response = await self._message(body, timeout_s=max(1.0, min(self.keepalive_s, 32.0)))
        except NoAnswerError:
            return False
        if response.status >= 400:
            # Many devices ignore this; the text wants the platform's refusal to lead to a new registration.
            raise RefusedError(response.status, response.reason)
        self.counters.keepalives += 1
        self._note("keepalive")
        if Quirk.CAT_03 in self.quirks:
            spontaneous = bodies.spontaneous_catalog(self.identity, 320 + self._state.sn)
            if spontaneous is not None:
                await self._message(spontaneous)
        return True

    def _connection_lost(self) -> None:
        self._note("connection_lost")
        self._wake.set()

    # --- reports --------------------------------------------------------------------------------------------------

    async def raise_alarm(self, description: str = "") -> bool:
        """Tell that something moved; False when the device is not armed (CTL-01). Raises NoAnswerError."""
        source = self.channels[0].id if self.channels else self.id
        if Quirk.CTL_01 in self.quirks and not any(state.guarded for state in self.state.channels.values()):
            return False
        if Quirk.CTL_02 in self.quirks:
            source = f"{self.id[:10]}134{self.id[13:]}"
        if Quirk.CTL_03 in self.quirks:
            source = self.id
        self._state.sn += 1
        self.state.of(source).alarmed = True
        self._note("alarm", channel_id=source, sn=self._state.sn)
        body = bodies.alarm(
            source, self._state.sn, local_time(), description=description, edition=self.options.edition
        )
        if not await self._notify("Alarm", body):
            await self._message(body)
        return True

    async def tell_position(self) -> None:
        """Tell where the channels are. Raises NoAnswerError."""
        places = [
            (channel.id, round(117.27 + number / 1000, 6), 31.86)
            for number, channel in enumerate(self.channels)
        ] or [(self.id, 117.27, 31.86)]
        burst = Quirk.CTL_04 in self.quirks
        for number in range(5 if burst else 1):
            self._state.sn += 1
            if burst and number == 0:
                body = bodies.mobile_position(self.identity, self._state.sn, "", [(self.id, 0.0, 0.0)])
            else:
                when = "" if burst else local_time()
                body = bodies.mobile_position(self.identity, self._state.sn, when, places)
            if not await self._notify("MobilePosition", body):
                await self._message(body)

    async def change_channel(self, channel_id: str, event: str) -> bool:
        """What Annex N calls ON, OFF, VLOST, DEFECT, ADD, DEL or UPDATE happened to a channel; whether anybody had
        subscribed to hear it. Raises NoAnswerError."""
        self.identity = replace(self.identity, states={**self.identity.states, channel_id: event})
        self._state.sn += 1
        self._note("changed", channel_id=channel_id, change=event)
        return await self._notify(
            "Catalog", bodies.catalog_change(self.identity, self._state.sn, self.id, [(channel_id, event)])
        )

    async def _switch(self) -> None:
        """The first channel off, or on again."""
        if self.channels:
            first = self.channels[0].id
            await self.change_channel(first, "ON" if self.identity.states.get(first) == "OFF" else "OFF")

    async def tell_ptz(self, channel_id: str) -> None:
        """Where a camera looks, to those who subscribed it."""
        self._state.sn += 1
        place = self.state.of(channel_id).position(datetime.now(UTC).timestamp())
        await self._notify("PTZPosition", bodies.ptz_position(self._state.sn, channel_id, place), channel_id)

    async def _notify(self, command: str, body: bodies.Element, target: str = "") -> bool:
        """By NOTIFY to whoever subscribed; False when nobody did."""
        found = self.notifier.active(command, target)
        for granted in found:
            await self.notifier.notify(granted, body)
        return bool(found)

    def _subscribed(self, granted: Granted) -> None:
        """What follows at once (N.2.1.2.1: what is not normal), and then again and again."""
        if granted.command == "Catalog":
            changes = [
                (channel_id, state)
                for channel_id, state in self.identity.states.items()
                if state in bodies.ABNORMAL
            ]
            self._state.sn += 1
            if changes:
                body = bodies.catalog_change(self.identity, self._state.sn, granted.target, changes)
                self._spawn(self._tell(granted, body))
        elif granted.command == "MobilePosition" and self.options.position_s:
            self._spawn(self._tell_places(granted))
        elif granted.command == "PTZPosition":
            self._spawn(self.tell_ptz(granted.target))

    async def _tell(self, granted: Granted, body: bodies.Element) -> None:
        await self.notifier.notify(granted, body)

    async def _tell_unasked(self) -> None:
        """By MESSAGE, while nobody has subscribed."""
        if not self.notifier.active("MobilePosition"):
            await self.tell_position()

    async def _tell_places(self, granted: Granted) -> None:
        """In the interval that was subscribed."""
        while self.notifier.holds(granted):
            await asyncio.sleep(granted.interval_s)
            with suppress(NoAnswerError):
                await self.tell_position()

    async def _every(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self._state.registered:
                with suppress(NoAnswerError):
                    await act()

    # --- MESSAGE out ----------------------------------------------------------------------------------------------

    async def _message(self, body: bodies.Element, timeout_s: float = 32.0) -> Response:
        data = bodies.render(body, self.options.charset, self.quirks)
        account = self._registration.account
        domain = account.domain
        if Quirk.REG_16 in self.quirks:
            domain = self.signalling.local[0]
        headers = Headers(
            [
                ("From", f"<sip:{self.id}@{domain}>;tag={self.signalling.tag()}"),
                ("To", f"<sip:{account.server_id}@{account.domain}>"),
                ("Call-ID", f"{self._rng.getrandbits(64):016x}@sim"),
                ("CSeq", "20 MESSAGE"),
                ("Max-Forwards", "70"),
                ("User-Agent", USER_AGENT),
                ("Content-Type", MANSCDP),
            ]
        )
        request = Request("MESSAGE", f"sip:{account.server_id}@{account.domain}", headers, data)
        return await self.signalling.ask(request, timeout_s)

    # --- requests in ----------------------------------------------------------------------------------------------

    def _request(self, request: Request) -> None:
        handlers = {
            "MESSAGE": self._on_message,
            "INVITE": self._on_invite,
            "ACK": self._on_ack,
            "BYE": self._on_bye,
            "CANCEL": self._on_cancel,
            "INFO": self._on_info,
            "SUBSCRIBE": self.notifier.on_subscribe,
            "OPTIONS": self._on_options,
        }
        handler = handlers.get(request.method)
        if handler is None:
            self.signalling.reply(request, 405, to_tag=self.signalling.tag(), headers=[("Allow", ALLOW)])
            return
        try:
            handler(request)
        except SipError:
            self.signalling.counters.malformed += 1

    def _on_options(self, request: Request) -> None:
        self.signalling.reply(request, 200, to_tag=self.signalling.tag(), headers=[("Allow", ALLOW)])

    def _on_info(self, request: Request) -> None:
        call = self.calls.get(request.call_id)
        if call is None:
            self.signalling.reply(request, 481, to_tag=self.signalling.tag())
            return
        status, body = call.steer(request)
        headers = [("Content-Type", MANSRTSP)] if body else []
        self.signalling.reply(request, status, to_tag=call.tag, headers=headers, body=body)

    def _on_message(self, request: Request) -> None:
        if request.to.tag and request.call_id not in self.calls:
            # XML-22: outside a dialog no To tag is due.
            self.signalling.reply(request, 481)
            return
        try:
            document = parse_manscdp(request.body)
        except GbError:
            self.signalling.reply(request, 200, to_tag=self.signalling.tag())
            self._note("unreadable_message")
            return
        if Quirk.CTL_07 in self.quirks and document.root == "Control":
            self.signalling.reply(request, 403, to_tag=self.signalling.tag())
            self._note("control_forbidden", command=document.cmd_type)
            return
        if Quirk.CTL_11_501 in self.quirks and is_new(document):
            self.signalling.reply(request, 501, to_tag=self.signalling.tag())
            return
        self.signalling.reply(request, 200, to_tag=self.signalling.tag())
        self.counters.queries += 1
        self._note("query", command=document.cmd_type, target=document.device_id)
        if document.root == "Response" and document.cmd_type == "Alarm":
            self._note("alarm_answered", sn=document.sn, target=document.device_id, to=request.to.uri.user)
        code = document.text("PTZCmd")
        if code:
            self._note("ptz", channel_id=document.device_id, code=code)
        if Quirk.PB_05 in self.quirks and document.cmd_type == "RecordInfo":
            if self._state.searching:
                return
            self._state.searching = True
        self._spawn(self._react(document))

    async def _before_record_part(self, *, last: bool) -> None:
        """What the PB rows put between the parts of a list of recordings."""
        if Quirk.PB_04 in self.quirks or Quirk.PB_05 in self.quirks:
            await asyncio.sleep(0.5)
        if Quirk.PB_04_LATE in self.quirks and last:
            await asyncio.sleep(3.0)

    async def _react(self, document: Document) -> None:
        """What follows the 200 of a query or a control."""
        reaction = react(
            document,
            self.identity,
            self.state,
            expires_s=self.options.expires_s,
            keepalive_s=self.keepalive_s,
            now=datetime.now(UTC),
            rng=self._rng,
            recordings=self.recordings,
        )
        if reaction.keepalive_s is not None:
            self.keepalive_s = reaction.keepalive_s
        if reaction.reboot:
            with suppress(NoAnswerError, RefusedError):
                await self._registration.register(0)
                self._note("rebooting")
                await asyncio.sleep(REBOOT_S)
                await self._registration.register()
        if reaction.key_frame_of:
            for call in self.calls.values():
                if reaction.key_frame_of in (call.channel_id, self.id):
                    call.force_key()
        if reaction.listen_as:
            self._spawn(self._listen(reaction.listen_as))
        try:
            for number, body in enumerate(reaction.answers, 1):
                if document.cmd_type == "RecordInfo":
                    await self._before_record_part(last=number == len(reaction.answers))
                # Annex M: parts are sent one after the other, each when the one before was answered.
                data = bodies.render(body, self.options.charset, self.quirks)
                if bodies.is_lost_on_the_way(self.identity, data, self.options.transport):
                    self._note("lost_on_the_way", bytes=len(data))
                    continue
                await self._message(body)
                self.counters.catalog_items += len(bodies.items_of(body))
            if document.fields.keys() & {"PTZCmd", "PTZPreciseCtrl"}:
                await self.tell_ptz(document.device_id or self.id)
            for notification in reaction.later:
                await asyncio.sleep(LATER_S)
                self._state.sn += 1
                await self._message(notification(self._state.sn))
            if reaction.snapshots is not None:
                await self._take_pictures(reaction.snapshots)
        except NoAnswerError as error:
            self._note("answer_lost", command=document.cmd_type, error=str(error))
        finally:
            if document.cmd_type == "RecordInfo":
                self._state.searching = False

    async def _take_pictures(self, order: SnapshotOrder) -> None:
        """Take them in their interval, upload each, and tell which ones arrived."""
        title = next((one.name for one in self.channels if one.id == order.channel_id), self.identity.name)
        files: list[str] = []
        for number in range(order.count):
            if number:
                await asyncio.sleep(order.interval_s)
            name = file_id(order.channel_id, datetime.now(timezone(timedelta(hours=8))), number)
            picture = await asyncio.to_thread(
                jpeg, self.options.width, self.options.height, title, number * 25, local_time()
            )
            try:
                await upload(order.url, name, picture)
            except UploadError as error:
                self._note("snapshot_lost", channel_id=order.channel_id, error=str(error))
                continue
            files.append(name)
            self._note("snapshot", channel_id=order.channel_id, file=name)
        self._state.sn += 1
        await self._message(snapshots_finished(order, files)(self._state.sn))

    # --- calls ----------------------------------------------------------------------------------------------------

    def _on_invite(self, request: Request) -> None:
        quirks = self.quirks
        self.counters.invites += 1
        user = request.request_uri.user or request.to.uri.user
        self._note("invite", channel_id=user, call_id=request.call_id)
        if quirks & {Quirk.F_05_SILENT, Quirk.INV_30}:
            self.signalling.ignore(request)
            return
        self.signalling.reply(request, 100)
        if Quirk.F_05_TRYING in quirks:
            return
        status = self._refuses_all()
        if not status and is_talk(request) and self._channel_or_none(user) is not None:
            self._spawn(self._talk(request, user))
            return
        status = status or self._refusal(request, user)
        if status:
            self.signalling.reply(request, status, to_tag=self.signalling.tag())
            self._note("invite_refused", channel_id=user, status=status)
            return
        channel = self._channel(user)
        # Annex K c: a new INVITE for the same stream of the same channel releases the running one.
        serial = request.headers.get("Subject") or ""
        for other in list(self.calls.values()):
            if serial and other.subject.partition(",")[0] == serial.partition(",")[0]:
                other.end("replaced")
        call = Call(
            request=request,
            channel_id=user,
            device_id=self.id,
            tag=self.signalling.tag(),
            options=self.options,
            quirks=quirks,
            services=CallServices(
                signalling=self.signalling,
                pump=self._services.pump,
                content=lambda: self._services.content_of(channel.name),
                recorded=lambda start, stop: self._recorded(channel.name, start, stop),
                tell=self._message,
                note=self._note,
                ended=self._call_ended,
                spawn=self._spawn,
                rng=random.Random(self._rng.getrandbits(64)),  # noqa: S311 - repeatable on purpose
            ),
        )
        self.calls[request.call_id] = call
        self._spawn(self._accept(call, request))

    async def _recorded(self, name: str, start: int, stop: int) -> Recorded | None:
        """What a channel recorded of a time."""
        found = self.recordings(start, stop)
        if Quirk.PB_14_STOP in self.quirks:
            found = found[:1]
        return Recorded(await self._services.loop_of(name), found, start, stop) if found else None

    def recordings(self, start: float, stop: float) -> list[RecordFile]:
        """The files of a channel that touch a time; all channels have the same."""
        return files(
            start,
            stop,
            now=time.time(),
            hours=self.options.record_hours,
            file_s=self.options.record_file_s,
            quirks=self.quirks,
        )

    async def _listen(self, user: str) -> None:
        """Call the platform, which announced a broadcast to `user`."""
        talk = self._new_talk(user)
        await talk.call()
        if not talk.over:
            self.talks[talk.call_id] = talk

    async def _talk(self, request: Request, user: str) -> None:
        """Answer an INVITE with s=Talk."""
        talk, tag = self._new_talk(user), self.signalling.tag()
        try:
            offer = read_offer(request.body)
            if Quirk.TK_01 in self.quirks:
                raise OfferError("s=Talk is not known")
            await talk.answer(request, offer, tag)
        except (OfferError, OSError) as error:
            self.signalling.reply(request, 488, to_tag=tag)
            self._note("invite_refused", channel_id=user, status=488, error=str(error))
            talk.end("refused")
            return
        self.talks[talk.call_id] = talk

    def _new_talk(self, user: str) -> Talking:
        services = TalkServices(
            device_id=self.id,
            server_id=self.options.server_id,
            domain=self.options.domain,
            options=self.options,
            quirks=self.quirks,
            signalling=self.signalling,
            note=self._note,
            spawn=self._spawn,
            rng=self._rng,
        )
        codec = "ps" if Quirk.TK_05 in self.quirks else self.options.talk_codec
        return Talking(services, user, codec, self._talk_ended)

    def _talk_ended(self, talk: Talking) -> None:
        if self.talks.get(talk.call_id) is talk:
            del self.talks[talk.call_id]

    def _refuses_all(self) -> int:
        """Status with which every INVITE is refused, whatever for; 0: none is."""
        refusals = {Quirk.INV_09: 404, Quirk.INV_11: 486, Quirk.INV_13_ALL: 488}
        return next((status for quirk, status in refusals.items() if quirk in self.quirks), 0)

    def _refusal(self, request: Request, user: str) -> int:
        """Status with which an INVITE is refused at once; 0: it is not."""
        quirks = self.quirks
        if self._channel_or_none(user) is None:
            return 404
        if Quirk.INV_08 in quirks and request.to.uri.host != self.options.domain:
            return 400
        if Quirk.PB_16 in quirks and any(call.channel_id == user for call in self.calls.values()):
            return 486
        if Quirk.INV_14 in quirks and user not in self._invited:
            self._invited.add(user)
            return 500
        if request.to.tag:
            # A re-INVITE: nothing of a simulated stream can be changed.
            return 488 if request.call_id in self.calls else 481
        return 0

    def _channel_or_none(self, user: str) -> bodies.SimChannel | None:
        for channel in self.channels:
            if channel.id == user:
                return channel
        if user == self.id and (not self.channels or self.quirks & {Quirk.CAT_14, Quirk.CAT_15}):
            return self.channels[0] if self.channels else bodies.SimChannel(self.id, self.identity.name)
        return None

    def _channel(self, user: str) -> bodies.SimChannel:
        channel = self._channel_or_none(user)
        if channel is None:
            raise LookupError(user)
        return channel

    async def _accept(self, call: Call, request: Request) -> None:
        try:
            await call.answer()
        except InviteError as error:
            if not call.final_sent:
                self.signalling.reply(request, error.status, to_tag=call.tag)
            self._note("invite_refused", channel_id=call.channel_id, status=error.status, error=str(error))
            call.end("refused")
        except (ContentError, OSError) as error:
            if not call.final_sent:
                self.signalling.reply(request, 500, to_tag=call.tag)
            self._note("invite_refused", channel_id=call.channel_id, status=500, error=str(error))
            call.end("failed")

    def _call_ended(self, call: Call) -> None:
        stream = call.stream
        if stream is not None:
            self.counters.packets += stream.packets
            self.counters.bytes += stream.bytes
        if self.calls.get(call.call_id) is call:
            del self.calls[call.call_id]

    def _on_ack(self, request: Request) -> None:
        call = self.calls.get(request.call_id)
        if call is not None:
            call.acknowledged()

    def _on_bye(self, request: Request) -> None:
        if Quirk.F_06 in self.quirks:
            self.signalling.ignore(request)
            self._note("bye_ignored", call_id=request.call_id)
            return
        talk = self.talks.get(request.call_id)
        if talk is not None:
            self.signalling.reply(request, 200, to_tag=self.signalling.tag())
            talk.end("bye")
            return
        call = self.calls.get(request.call_id)
        if call is None or call.ended_by_peer:
            self.signalling.reply(request, 481, to_tag=self.signalling.tag())
            return
        self.signalling.reply(request, 200, to_tag=call.tag)
        self._note("bye", channel_id=call.channel_id, call_id=request.call_id)
        call.bye_received()

    def _on_cancel(self, request: Request) -> None:
        call = self.calls.get(request.call_id)
        if call is None or call.final_sent:
            self.signalling.reply(request, 200 if call is not None else 481, to_tag=self.signalling.tag())
            return
        self.signalling.reply(request, 200, to_tag=call.tag)
        self._note("cancelled", channel_id=call.channel_id, call_id=request.call_id)
        if Quirk.F_05_LATE in self.quirks:
            return
        if Quirk.INV_15 not in self.quirks:
            self.signalling.reply(call.request, 487, to_tag=call.tag)
        call.end("cancelled")

    # --- helpers --------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _note(self, what: str, **facts: object) -> None:
        self._services.observer.note(self.id, what, **facts)
