"""A user agent on a wire of lists: what it sends can be read, what it receives is handed in."""

from __future__ import annotations

from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.exceptions import SipParseError
from gb28181gw.sip.message import Message, Request, Response
from gb28181gw.sip.parser import parse_datagram
from gb28181gw.sip.path import Path
from gb28181gw.sip.timers import Timers
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.models import AgentConfig, Target
from gb28181gw.ua.refusals import RefusalLimits
from tests.support.clock import FakeClock
from tests.support.sip_peer import until, wire

GATEWAY = "34020000002000000001"
DEVICE = "34020000001320000001"
PEER = Path("udp", "192.0.2.50", 5060, "192.0.2.1", 5062)
TARGET = Target(path=PEER, user=DEVICE, domain="3402000000")


class Wire:
    """Stands for `Transports`."""

    def __init__(self) -> None:
        self.sent: list[tuple[Path, bytes]] = []
        self.gone: set[int] = set()
        """Connections on which nothing can be sent."""

    def attach(self, receiver: object) -> None:
        self.receiver = receiver

    def send(self, path: Path, data: bytes) -> bool:
        if path.connection_id in self.gone:
            return False
        self.sent.append((path, data))
        return True


class Line:
    """An agent with fast timers, everything it needs, and a peer played by the test."""

    def __init__(
        self, *, known: bool = True, advertise: str = "", t1: float = 0.02, real_clock: bool = True
    ) -> None:
        self.wire = Wire()
        self.clock = FakeClock()
        self.endpoint = Endpoint(Timers(t1=t1, t2=8 * t1, t4=10 * t1))
        config = AgentConfig(id=GATEWAY, domain="3402000000", user_agent="gw/1", advertise=advertise)
        self.agent = UserAgent(
            config,
            self.endpoint,
            self.wire,  # type: ignore[arg-type]
            None if real_clock else self.clock,
            refusal_limits=RefusalLimits(),
        )
        self.known = known
        self.agent.use_policy(is_known=lambda path, user: self.known, is_verified=lambda path: self.known)

    def receive(self, data: bytes, path: Path = PEER) -> None:
        """Hand a datagram in as the transport does."""
        try:
            message = parse_datagram(data)
        except SipParseError as error:
            self.agent.on_malformed(error, path, data)
            return
        assert message is not None
        self.agent.on_message(message, path, data)

    def request(self, method: str, path: Path = PEER, **changed: object) -> None:
        """The peer sends a request."""
        self.receive(wire(method, port=path.remote_port, host=path.remote_host, **changed), path)  # type: ignore[arg-type]

    def answer(
        self,
        request: Request,
        status: int,
        *,
        tag: str = "dev",
        contact: str = "<sip:34020000001320000001@10.1.1.1:5060>",
        path: Path = PEER,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """The peer answers a request of ours."""
        extra = (("Contact", contact),) if contact and 200 <= status < 300 else ()
        response = Response.reply_to(
            request, status, to_tag=tag if status > 100 else "", headers=(*extra, *headers), body=body
        )
        self.receive(response.to_bytes(), path)

    def messages(self) -> list[Message]:
        """Everything sent so far, parsed, and forgotten."""
        sent, self.wire.sent = self.wire.sent, []
        parsed = [parse_datagram(data) for _, data in sent]
        return [message for message in parsed if message is not None]

    async def next_request(self, method: str) -> Request:
        """The next request of ours with this method; what was sent before it is forgotten."""

        def look() -> Request | None:
            for number, (_, data) in enumerate(self.wire.sent):
                message = parse_datagram(data)
                if isinstance(message, Request) and message.method == method:
                    del self.wire.sent[: number + 1]
                    return message
            return None

        found = await until(look, f"a {method}")
        assert isinstance(found, Request)
        return found

    def responses(self) -> list[Response]:
        """Responses sent so far, and forget everything."""
        return [message for message in self.messages() if isinstance(message, Response)]
