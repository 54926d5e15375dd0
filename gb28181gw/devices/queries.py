"""Questions to devices: a MESSAGE goes out, the answer comes back as another MESSAGE (GB/T 28181-2022 9.5).

An answer is found by (device, CmdType, SN); when its SN is missing or wrong, and exactly one question of that type
is open, it is that one's (XML-11). The DeviceID in it decides nothing (XML-12).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from gb28181gw.devices.models import Device
from gb28181gw.devices.presence import PresenceKeeper
from gb28181gw.devices.registry import Registry
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.messages import CONTENT_TYPE
from gb28181gw.sip.message import Response
from gb28181gw.sip.path import Path
from gb28181gw.ua.models import Target

OPEN_LIMIT: Final = 64
"""Open questions of one device."""
_SN_LIMIT: Final = 1_000_000_000
"""Some devices read an SN into 32 bits."""

Sink = Callable[[Document], None]


class Requester(Protocol):
    """Sends a request and awaits its final response; `ua.UserAgent` satisfies it."""

    async def request(
        self,
        target: Target,
        method: str,
        *,
        body: bytes = b"",
        content_type: str = "",
        timeout_s: float | None = None,
    ) -> Response: ...


@dataclass(slots=True, eq=False)
class OpenQuery:
    """A question whose answer may still come, in one part or many."""

    device_id: str
    cmd_type: str
    sn: int
    sink: Sink
    unreadable: str = ""
    """Why a message that came meanwhile could not be read: it may have been the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long an answer may take, in seconds."""

    first_s: float = 10.0
    """Until its first part."""
    between_s: float = 5.0
    """From part to part."""
    all_s: float = 60.0


class Queries:
    """Owner of the SN and of the open questions."""

    def __init__(
        self, *, agent: Requester, registry: Registry, presence: PresenceKeeper, timeout_s: float = 10.0
    ) -> None:
        self.asked = 0
        self.unanswered = 0
        self.late = 0
        """Answers that nobody waits for any more."""
        self.guessed = 0
        """Answers matched by their type alone (XML-11)."""
        self._agent = agent
        self._registry = registry
        self._presence = presence
        self._timeout_s = timeout_s
        self._open: dict[tuple[str, str], dict[int, OpenQuery]] = {}
        self._sn = secrets.randbelow(_SN_LIMIT // 2)

    @property
    def open_count(self) -> int:
        return sum(len(queries) for queries in self._open.values())

    def next_sn(self) -> int:
        """Unique in this process; the random start keeps late answers to the process before apart (XML-21)."""
        self._sn = self._sn % _SN_LIMIT + 1
        return self._sn

    @contextmanager
    def listening(self, device_id: str, cmd_type: str, sink: Sink) -> Iterator[OpenQuery]:
        """A question with a fresh SN whose answers go to `sink` until the block ends.

        Raises GatewayError gb.route.busy when the device has too many open questions.
        """
        query = self.open(device_id, cmd_type, sink)
        try:
            yield query
        finally:
            self.close(query)

    def open(self, device_id: str, cmd_type: str, sink: Sink) -> OpenQuery:
        """Like `listening`, ended by `close`."""
        key = (device_id, cmd_type.lower())
        queries = self._open.setdefault(key, {})
        if len(queries) >= OPEN_LIMIT:
            raise GatewayError("gb.route.busy", f"Too many {cmd_type} questions to {device_id} are open.")
        query = OpenQuery(device_id, cmd_type, self.next_sn(), sink)
        queries[query.sn] = query
        return query

    def close(self, query: OpenQuery) -> None:
        """No answer is expected any more. Idempotent."""
        key = (query.device_id, query.cmd_type.lower())
        queries = self._open.get(key)
        if queries is not None and queries.pop(query.sn, None) is not None and not queries:
            del self._open[key]

    def feed(self, device: Device, document: Document) -> bool:
        """Hand an answer to whoever asked. False: nobody did, or not any more."""
        queries = self._open.get((device.id, document.cmd_type.lower()))
        if not queries:
            self.late += 1
            return False
        query = queries.get(document.sn) if document.sn is not None else None
        if query is None:
            if len(queries) != 1:
                self.late += 1
                return False
            query = next(iter(queries.values()))
            self.guessed += 1
            self._registry.add_quirk(device, "query.sn_differs", row="XML-11")
        query.sink(document)
        return True

    def unreadable(self, device: Device, why: str) -> None:
        """A message of the device could not be read; if a question stays without an answer, that is told."""
        for (device_id, _), queries in self._open.items():
            if device_id == device.id:
                for query in queries.values():
                    query.unreadable = why

    async def send(
        self,
        device: Device,
        body: bytes,
        *,
        channel_id: str | None = None,
        timeout_s: float | None = None,
        control: bool = False,
    ) -> None:
        """Send a MANSCDP body; returns when the device took it (any 2xx).

        `control`: it moves or changes something. Raises GatewayError gb.sip.rejected with `sip_status`,
        gb.sip.no_answer, gb.sip.path_lost, and what `Registry.target` raises.
        """
        target = await self._registry.reach(device.id, channel_id, control=control)
        response = await self._agent.request(
            target,
            "MESSAGE",
            body=body,
            content_type=CONTENT_TYPE,
            timeout_s=timeout_s if timeout_s is not None else self._timeout_s,
        )
        # Whatever it answered, it is alive (KA-04).
        self._presence.seen(device, "answer")
        if control and response.status == 403:
            raise GatewayError(
                "gb.sip.rejected",
                f"Device {device.id} forbids control over GB/T 28181 (CTL-07): allow it in its own settings.",
                sip_status=response.status,
            )
        if response.status >= 300:
            raise GatewayError(
                "gb.sip.rejected",
                f"Device {device.id} answered {response.status} {response.reason} to MESSAGE.",
                sip_status=response.status,
            )

    async def reply(self, device: Device, body: bytes, *, user: str = "") -> None:
        """Send an answer of ours to `user` of the device, which need not be in its catalogue.

        Raises GatewayError as `send`.
        """
        target = await self._registry.reach(device.id)
        target = Target(path=target.path, user=user or device.id, domain=target.domain)
        response = await self._agent.request(
            target, "MESSAGE", body=body, content_type=CONTENT_TYPE, timeout_s=self._timeout_s
        )
        if response.status >= 300:
            raise GatewayError(
                "gb.sip.rejected",
                f"Device {device.id} answered {response.status} {response.reason} to our answer.",
                sip_status=response.status,
            )

    async def ask(
        self,
        device: Device,
        cmd_type: str,
        write: Callable[[int], bytes],
        *,
        channel_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Document:
        """Send `write(sn)` and await the answer, one document, within `timeout_s` in all.

        Raises GatewayError like `send`.
        """
        limit_s = timeout_s if timeout_s is not None else self._timeout_s
        answer: asyncio.Future[Document] = asyncio.get_running_loop().create_future()

        def sink(document: Document) -> None:
            if not answer.done():
                answer.set_result(document)

        self.asked += 1
        with self.listening(device.id, cmd_type, sink) as query:
            sending = asyncio.ensure_future(
                self.send(device, write(query.sn), channel_id=channel_id, timeout_s=limit_s)
            )
            try:
                async with asyncio.timeout(limit_s):
                    # A few devices answer without ever sending the 200, so the answer alone is enough.
                    await asyncio.wait((sending, answer), return_when=asyncio.FIRST_COMPLETED)
                    if not answer.done():
                        sending.result()
                    return await answer
            except TimeoutError:
                self.unanswered += 1
                raise _unanswered(query, limit_s, taken=False) from None
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def gather(
        self,
        device: Device,
        cmd_type: str,
        write: Callable[[int], bytes],
        collect: Callable[[Document], bool],
        *,
        waits: Waits,
        channel_id: str | None = None,
        control: bool = False,
        after: Callable[[], float] | None = None,
    ) -> bool:
        """Send `write(sn)` and hand each part of the answer to `collect`, until it says that it was the last.

        `after` tells how long more may come behind what seemed the last one (CAT-02), in seconds; 0: nothing.
        Returns False when `collect` never said so: what there is may be partial. Raises GatewayError like `send`,
        and gb.sip.no_answer or gb.sip.bad_answer when nothing came at all or nothing that can be read.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Document] = asyncio.Queue()
        parts, deadline, wait_s = 0, loop.time() + waits.all_s, waits.first_s
        whole = False
        self.asked += 1
        with self.listening(device.id, cmd_type, arrived.put_nowait) as query:
            sending = asyncio.ensure_future(
                self.send(
                    device, write(query.sn), channel_id=channel_id, timeout_s=waits.first_s, control=control
                )
            )
            try:
                while True:
                    until = min(loop.time() + wait_s, deadline)
                    document = await _next_part(arrived, sending, until, first=parts == 0)
                    if document is None:
                        break
                    parts += 1
                    whole = collect(document)
                    late_s = after() if whole and after is not None else 0.0
                    if whole and not late_s:
                        return True
                    wait_s = late_s if whole else waits.between_s
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            if parts:
                return whole
            self.unanswered += 1
            raise _unanswered(query, waits.first_s, taken=sending.done() and not sending.cancelled())

    async def touches(self, device: Device, path: Path, body: bytes, *, timeout_s: float) -> bool:
        """Whether anything answers `body` over `path` within `timeout_s`. Never raises for an answer's lack."""
        target = Target(path=path, user=device.id, domain=device.domain)
        try:
            await self._agent.request(
                target, "MESSAGE", body=body, content_type=CONTENT_TYPE, timeout_s=timeout_s
            )
        except GatewayError:
            return False
        return True


def _unanswered(query: OpenQuery, limit_s: float, *, taken: bool) -> GatewayError:
    """`taken`: the device's 200 came. The evidence `taken` tells silence of a device from that of the way there."""
    if query.unreadable:
        return GatewayError(
            "gb.sip.bad_answer",
            f"Device {query.device_id} sent a message that cannot be read ({query.unreadable}) and nothing else "
            f"that answers {query.cmd_type}.",
            cmd=query.cmd_type,
            sn=query.sn,
            taken=taken,
        )
    return GatewayError(
        "gb.sip.no_answer",
        f"Device {query.device_id} took {query.cmd_type} and did not answer it within {limit_s:g} s."
        if taken
        else f"Device {query.device_id} did not answer {query.cmd_type} within {limit_s:g} s.",
        cmd=query.cmd_type,
        sn=query.sn,
        taken=taken,
    )


async def _next_part(
    arrived: asyncio.Queue[Document], sending: asyncio.Future[None], until: float, *, first: bool
) -> Document | None:
    """The next part, or None at the time `until`. Before the first one a refusal of the question is raised."""
    getter = asyncio.ensure_future(arrived.get())
    try:
        async with asyncio.timeout_at(until):
            if first and not sending.done():
                await asyncio.wait((sending, getter), return_when=asyncio.FIRST_COMPLETED)
            if first and not getter.done() and sending.done():
                sending.result()
            return await getter
    except TimeoutError:
        return None
    finally:
        getter.cancel()
