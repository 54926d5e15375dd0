"""Two SIP endpoints joined in memory: a fake clock, and a network that loses, repeats and reorders."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from gb28181gw.sip.endpoint import Endpoint, Limits
from gb28181gw.sip.events import Event
from gb28181gw.sip.message import Headers, Request, Response
from gb28181gw.sip.parser import parse_datagram
from gb28181gw.sip.path import Path
from gb28181gw.sip.timers import Timers

ALICE = ("192.0.2.1", 5060)
BOB = ("192.0.2.2", 5060)
DEVICE = "34020000001320000001"
PLATFORM = "34020000002000000001"


def path(
    remote: tuple[str, int] = BOB,
    local: tuple[str, int] = ALICE,
    *,
    transport: str = "udp",
    connection: int = 0,
) -> Path:
    return Path(transport, remote[0], remote[1], local[0], local[1], connection)


def request(
    method: str = "MESSAGE",
    *,
    call_id: str = "call-1",
    cseq: int = 1,
    from_tag: str = "alice",
    to_tag: str = "",
    uri: str = f"sip:{DEVICE}@192.0.2.2:5060",
    body: bytes = b"",
    extra: tuple[tuple[str, str], ...] = (),
) -> Request:
    to = f"<sip:{DEVICE}@3402000000>"
    return Request(
        method,
        uri,
        Headers(
            (
                ("From", f"<sip:{PLATFORM}@3402000000>;tag={from_tag}"),
                ("To", f"{to};tag={to_tag}" if to_tag else to),
                ("Call-ID", call_id),
                ("CSeq", f"{cseq} {method}"),
                ("Max-Forwards", "70"),
                *extra,
            )
        ),
        body,
    )


def incoming(method: str = "MESSAGE", *, branch: str = "z9hG4bKin1", **changed: object) -> Request:
    """A request as a peer sends it, with its Via."""
    made = request(method, **changed)  # type: ignore[arg-type]
    made.headers.prepend("Via", f"SIP/2.0/UDP 10.0.0.9:5060;rport;branch={branch}")
    return made


def reply(to: Request, status: int, *, tag: str = "bob", **more: object) -> Response:
    return Response.reply_to(to, status, to_tag=tag if status > 100 else "", **more)  # type: ignore[arg-type]


@dataclass
class Chaos:
    """Probabilities for each packet; delays are seconds."""

    rng: random.Random
    loss: float = 0.0
    duplicate: float = 0.0
    delay: tuple[float, float] = (0.001, 0.002)


@dataclass
class Network:
    """Alice and Bob, with everything that was sent and every event of each."""

    chaos: Chaos = field(default_factory=lambda: Chaos(random.Random(1)))
    timers: Timers = field(default_factory=Timers)
    limits: Limits = field(default_factory=Limits)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.alice = Endpoint(self.timers, limits=self.limits)
        self.bob = Endpoint(self.timers, limits=self.limits)
        self.to_bob = path(BOB, ALICE)
        self.to_alice = path(ALICE, BOB)
        self._flying: list[tuple[float, int, Endpoint, Path, bytes]] = []
        self._number = 0
        self.sent: list[tuple[str, bytes]] = []
        self.on_alice: Callable[[Event], None] = lambda event: None
        self.on_bob: Callable[[Event], None] = lambda event: None

    def collect(self) -> None:
        """Events to their users, packets into the air; until nothing is left to do."""
        work = True
        while work:
            work = False
            for name, endpoint, user in (
                ("alice", self.alice, self.on_alice),
                ("bob", self.bob, self.on_bob),
            ):
                while (event := endpoint.next_event()) is not None:
                    user(event)
                    work = True
                for _, data in endpoint.data_to_send():
                    self._launch(name, data)
                    work = True

    def _launch(self, sender: str, data: bytes) -> None:
        self.sent.append((sender, data))
        chaos = self.chaos
        if chaos.rng.random() < chaos.loss:
            return
        copies = 2 if chaos.rng.random() < chaos.duplicate else 1
        for _ in range(copies):
            self._number += 1
            arrival = self.now + chaos.rng.uniform(*chaos.delay)
            if sender == "alice":
                self._flying.append((arrival, self._number, self.bob, self.to_alice, data))
            else:
                self._flying.append((arrival, self._number, self.alice, self.to_bob, data))

    def run(self, seconds: float) -> None:
        """Let time pass: packets and timers in their order."""
        end = self.now + seconds
        self.collect()
        while True:
            due = [
                timer for endpoint in (self.alice, self.bob) if (timer := endpoint.get_timer()) is not None
            ]
            self._flying.sort(key=lambda packet: packet[:2])
            if self._flying:
                due.append(self._flying[0][0])
            step = min(due, default=end)
            if step >= end:
                self.now = end
                self._timers()
                return
            self.now = max(self.now, step)
            while self._flying and self._flying[0][0] <= self.now:
                _, _, endpoint, over, data = self._flying.pop(0)
                message = parse_datagram(data)
                assert message is not None
                endpoint.receive(message, over, self.now)
                self.collect()
            self._timers()

    def _timers(self) -> None:
        for endpoint in (self.alice, self.bob):
            endpoint.handle_timer(self.now)
        self.collect()


def drain(endpoint: Endpoint) -> list[Event]:
    """All events now."""
    events: list[Event] = []
    while (event := endpoint.next_event()) is not None:
        events.append(event)
    return events


def outgoing(endpoint: Endpoint) -> list[Request | Response]:
    """All messages that are to be sent now, parsed."""
    parsed = [parse_datagram(data) for _, data in endpoint.data_to_send()]
    return [message for message in parsed if message is not None]
