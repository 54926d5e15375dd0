"""The registration at one upper platform: one task, which registers, keeps alive, and comes back after any outage.

Theory of operation. A round tries the addresses in their order and follows a redirect at each (9.1.2.3). When none
serves us the next round comes after `retry_s` ±20 % (9.1.1 c; fault F-11); after a link that stood, the first one comes
within seconds, because the usual cause is a restart or a broken connection. While registered, keepalives decide
(CS-03): three without a 200 in a row, a refusal of one, or a closed connection end the link, and the rounds begin
anew, for ever. Nothing here waits for a person, and no link knows of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gb28181gw.cascade.models import Upper
from gb28181gw.clock import Clock
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.keepalive import MAX_FAULTS
from gb28181gw.gb.manscdp.messages import CONTENT_TYPE, Keepalive, write
from gb28181gw.observability.events import EventBus
from gb28181gw.sip.message import Response
from gb28181gw.sip.path import Path
from gb28181gw.transport.tls import client_context
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.models import Target
from gb28181gw.ua.passage import passing
from gb28181gw.ua.registration import Account, Redirected, Registration

MISSES: Final = 3
"""Keepalives without an answer (9.6.1 d)."""
_UNKNOWN_TO_IT: Final = frozenset({401, 403, 404, 407, 481})
"""What an upper that restarted answers to a keepalive: it does not know us any more."""
_REFRESH_SHARE: Final = 0.75
"""Of the granted time: two more tries fit before it is over."""
_REDIRECTS: Final = 2
_FAULTS_UDP: Final = 16
"""Faulty devices named in a keepalive over UDP: it must fit into one packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTimers:
    """Seconds; tests take smaller ones."""

    retry_s: float = 60.0
    first_retry_s: float = 3.0
    """After a link that stood."""
    answer_s: float = 10.0
    """For each answer to REGISTER, and at most for a keepalive."""
    connect_s: float = 5.0
    goodbye_s: float = 1.5


@dataclass(slots=True)
class LinkCounters:
    """Plain counters for the exporter, summed over all uppers."""

    registered: int = 0
    refreshed: int = 0
    failed: int = 0
    """Rounds in which no address served us."""
    lost: int = 0
    redirected: int = 0
    keepalives: int = 0
    keepalives_missed: int = 0


class UpperLink:
    """See the module. Owner of the path to the upper; everybody else reads it."""

    def __init__(
        self,
        upper: Upper,
        *,
        agent: UserAgent,
        bus: EventBus,
        clock: Clock,
        timers: LinkTimers,
        counters: LinkCounters,
        next_sn: Callable[[], int],
        faults: Callable[[], list[str]],
        on_path: Callable[[Path | None], None],
        on_change: Callable[[bool], None],
    ) -> None:
        """`faults`: the shared ids of what is defective now.

        `on_path(path)` is called when `path` is another one, `on_change(registered)` after the state changed.
        """
        self.upper = upper
        self.path: Path | None = None
        """Where the upper is: set before a REGISTER is sent, so that what it asks at once is known as its."""
        self.registered = False
        self.registered_at: float | None = None
        self.last_error = ""
        self._agent = agent
        self._bus = bus
        self._clock = clock
        self._timers = timers
        self._counters = counters
        self._next_sn = next_sn
        self._faults = faults
        self._on_path = on_path
        self._on_change = on_change
        self._registrations: dict[tuple[str, int], Registration] = {}
        self._registration: Registration | None = None
        self._granted_s = 0
        self._server_id = ""
        self._wake = asyncio.Event()
        self._gone = ""
        """Why the link ended, as others saw it (connection closed)."""
        self._task: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to register."""
        self._task = asyncio.get_running_loop().create_task(
            self._run(),
            name=f"upper {self.upper.id}",
            # Not that of the API request that happened to add the upper: its trace_id ends with it.
            context=contextvars.Context(),
        )

    async def close(self) -> None:
        """Unregister, if registered, and end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self.registered and self._registration is not None and self.path is not None:
            registration, path = self._registration, self.path
            self._set_registered(False)
            with contextlib.suppress(GatewayError, TimeoutError):
                async with asyncio.timeout(self._timers.goodbye_s):
                    await registration.register(path, 0, server_id=self._server_id)
        self._drop_path()

    def connection_lost(self, path: Path) -> None:
        """A connection ended; if it was ours, the upper is lost (9.1.1 f)."""
        if self.path is not None and self.path.connection_id and self.path == path:
            self._gone = "connection_lost"
            self._wake.set()

    # -- use -----------------------------------------------------------------------------------------------

    def target(self, user: str = "") -> Target:
        """Where requests to the upper go. Raises GatewayError gb.sip.path_lost while not registered."""
        if not self.registered or self.path is None:
            raise GatewayError(
                "gb.sip.path_lost", f"We are not registered at upper platform {self.upper.id}."
            )
        return Target(path=self.path, user=user or self.upper.id, domain=self.upper.domain)

    async def send(self, body: bytes, *, user: str = "", timeout_s: float | None = None) -> Response:
        """A MANSCDP body to the upper (or a user of it) in our name there. Raises as `UserAgent.request`."""
        with passing(None):  # what goes up is nobody's wish
            return await self._agent.request(
                self.target(user),
                "MESSAGE",
                body=body,
                content_type=CONTENT_TYPE,
                timeout_s=timeout_s if timeout_s is not None else self._timers.answer_s,
                from_user=self.upper.local_id,
                from_domain=self.upper.domain,
            )

    # -- the task ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        stood = False
        while True:
            self._gone = ""
            self._wake.clear()
            try:
                await self._register()
            except GatewayError as error:
                self._failed(error)
            except Exception as error:  # supervision point: one upper's trouble must not end its task
                self._bus.emit(
                    "gateway.task_failed", task=f"upper {self.upper.id}", error=type(error).__name__,
                    detail=str(error)[:200],
                )  # fmt: skip
                self.last_error = "An internal error; see the log."
            else:
                stood = True
                self._lost(await self._stay())
            await self._pause(self._timers.first_retry_s if stood else self._timers.retry_s)
            stood = False

    async def _pause(self, mean_s: float) -> None:
        await asyncio.sleep(mean_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing

    async def _register(self) -> None:
        """One round. Raises the error of the last address."""
        failure: GatewayError | None = None
        for address in self.upper.addresses:
            try:
                await self._register_at(*address, server_id="", redirects=_REDIRECTS)
            except GatewayError as error:
                failure = error
            else:
                return
        if failure is not None:
            raise failure

    async def _register_at(self, host: str, port: int, *, server_id: str, redirects: int) -> None:
        registration = self._registration_at(host, port)
        path = await self._way_to(host, port)
        result = await registration.register(path, self.upper.expires_s, server_id=server_id)
        if isinstance(result, Redirected):
            self._counters.redirected += 1
            if not redirects:
                raise GatewayError("gb.sip.registration_refused", f"{path.peer} redirects without an end.")
            await self._register_at(
                result.host, result.port, server_id=result.server_id, redirects=redirects - 1
            )
            return
        self._registration, self._server_id = registration, server_id
        self._granted_s = max(result.expires_s, 1)
        self._counters.registered += 1
        self.last_error = ""
        self.registered_at = self._clock.wall()
        self._bus.emit(
            "upper.registered",
            upper_id=self.upper.id,
            peer=path.peer,
            transport=path.transport,
            expires_s=self._granted_s,
        )
        self._set_registered(True)

    def _registration_at(self, host: str, port: int) -> Registration:
        """What is known of an address (its Call-ID, its dislike of refreshes) is kept from round to round."""
        found = self._registrations.get((host, port))
        if found is None:
            if len(self._registrations) >= 8:  # redirected here and there
                self._registrations.pop(next(iter(self._registrations)))
            upper = self.upper
            found = self._registrations[host, port] = Registration(
                self._agent,
                Account(
                    server_id=upper.id,
                    domain=upper.domain,
                    user=upper.local_id,
                    username=upper.username or upper.local_id,
                    password=upper.password,
                    realm=upper.realm,
                ),
                gb_version=upper.gb_version,
                timeout_s=self._timers.answer_s,
            )
        return found

    async def _way_to(self, host: str, port: int) -> Path:
        """The path to an address; over TCP a connection, the standing one if it leads there."""
        transports: Transports = self._agent.transports
        address = await _resolve(host, port)
        if self.upper.transport == "udp":
            return self._take_path(transports.path_to(address, port))
        old = self.path
        if (
            old is not None
            and (old.remote_host, old.remote_port) == (address, port)
            and transports.is_open(old)
        ):
            return old
        self._drop_path()
        tls = None
        if self.upper.transport == "tls":
            # Read anew each time: a renewed file is in force without a restart. Some hundred KB, so not in the loop.
            tls = await asyncio.to_thread(client_context, self.upper.tls_ca)
        path = await transports.connect(
            address, port, timeout_s=self._timers.connect_s, tls=tls, tls_name=host
        )
        transports.mark_trusted(path)
        return self._take_path(path)

    # -- while registered ----------------------------------------------------------------------------------

    async def _stay(self) -> GatewayError:
        """Keep the registration; returns why it ended."""
        loop = asyncio.get_running_loop()
        misses = 0
        refresh_at = loop.time() + self._granted_s * _REFRESH_SHARE
        expires_at = loop.time() + self._granted_s
        keepalive_at = loop.time() + self.upper.keepalive_s
        while True:
            await self._sleep_until(min(refresh_at, keepalive_at))
            if self._gone:
                return GatewayError(
                    "gb.sip.path_lost", f"The connection to upper platform {self.upper.id} ended."
                )
            now = loop.time()
            if now >= refresh_at:
                refused = await self._refresh()
                now = loop.time()
                if refused is None:
                    expires_at, refresh_at = now + self._granted_s, now + self._granted_s * _REFRESH_SHARE
                elif refused.sip_status is not None or now >= expires_at:
                    return refused
                else:
                    # Not answered: it may still come back before it is over; keepalives decide meanwhile.
                    refresh_at = min(now + self._timers.retry_s / 4, expires_at)
            if now >= keepalive_at:
                keepalive_at = max(keepalive_at + self.upper.keepalive_s, now)
                failure = await self._keepalive()
                if failure is None:
                    misses = 0
                    continue
                misses += 1
                self._counters.keepalives_missed += 1
                if failure.sip_status in _UNKNOWN_TO_IT or misses >= MISSES:
                    return failure

    async def _sleep_until(self, when: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(when):
                await self._wake.wait()

    async def _refresh(self) -> GatewayError | None:
        registration, path = self._registration, self.path
        if registration is None or path is None:
            return GatewayError("gb.sip.path_lost", "There is no registration to refresh.")
        try:
            result = await registration.register(path, self.upper.expires_s, server_id=self._server_id)
        except GatewayError as error:
            return error
        if isinstance(result, Redirected):
            return GatewayError(
                "gb.sip.registration_refused", f"{path.peer} redirects to {result.host}:{result.port}.",
                sip_status=302,
            )  # fmt: skip
        self._granted_s = max(result.expires_s, 1)
        self._counters.refreshed += 1
        return None

    async def _keepalive(self) -> GatewayError | None:
        """None: answered with 2xx."""
        upper = self.upper
        limit = MAX_FAULTS if self.path is not None and self.path.reliable else _FAULTS_UDP
        keepalive = Keepalive(
            sn=self._next_sn(), device_id=upper.local_id, fault_ids=tuple(self._faults()[:limit])
        )
        body = write(keepalive, upper.dialect.charset_used)
        self._counters.keepalives += 1
        try:
            response = await self.send(body, timeout_s=min(self._timers.answer_s, max(upper.keepalive_s, 2)))
        except GatewayError as error:
            return error
        if response.status < 300:
            return None
        return GatewayError(
            "gb.sip.rejected",
            f"Upper platform {upper.id} answered {response.status} {response.reason} to our keepalive.",
            sip_status=response.status,
        )

    # -- state ---------------------------------------------------------------------------------------------

    def _failed(self, error: GatewayError) -> None:
        self._counters.failed += 1
        first = self.last_error != error.detail
        self.last_error = error.detail
        if first:
            # Told once for each kind of trouble: an upper that is away for a week is not ten thousand lines.
            self._tell("upper.register_failed", error)

    def _lost(self, error: GatewayError) -> None:
        self._counters.lost += 1
        self.last_error = error.detail
        self._tell("upper.lost", error)
        self._set_registered(False)
        if error.reason == "path_lost":
            self._drop_path()

    def _tell(self, event: str, error: GatewayError) -> None:
        self._bus.emit(
            event,
            upper_id=self.upper.id,
            peer=self.path.peer if self.path is not None else f"{self.upper.host}:{self.upper.port}",
            reason=error.reason,
            sip_status=error.sip_status,
            detail=error.detail,
        )

    def _set_registered(self, registered: bool) -> None:
        self.registered = registered
        if not registered:
            self.registered_at = None
        self._on_change(registered)

    def _take_path(self, path: Path) -> Path:
        self.path = path
        self._on_path(path)
        return path

    def _drop_path(self) -> None:
        path, self.path = self.path, None
        if path is not None:
            self._on_path(None)
            self._agent.transports.close_path(path)


async def _resolve(host: str, port: int) -> str:
    """An address of the host. Names are looked up once a round, never on the way of a message (F-25)."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port)
    except OSError as error:
        raise GatewayError("gb.sip.path_lost", f"The name {host} cannot be resolved: {error}.") from error
    return str(found[0][4][0])
