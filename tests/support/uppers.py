"""The cascade in this process: real sockets and agent, devices as plain objects, a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta, timezone
from typing import Any

from gb28181gw.cascade.answers import Answers
from gb28181gw.cascade.call import CallTools
from gb28181gw.cascade.calls import UpperCalls
from gb28181gw.cascade.link import LinkTimers
from gb28181gw.cascade.models import Upper, UpperChange
from gb28181gw.cascade.notifications import Pace
from gb28181gw.cascade.service import Uppers
from gb28181gw.cascade.store import ShareRow, StoredUpper
from gb28181gw.clock import SystemClock
from gb28181gw.devices.commands import Outcome
from gb28181gw.devices.models import Channel, ChannelStatus, Device, Presence
from gb28181gw.errors import GatewayError
from gb28181gw.gb.ids import node_kind
from gb28181gw.gb.manscdp.schema import Values
from gb28181gw.media.ports import PortPool
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.ssrc import SsrcPool
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.talk import Holder, TalkView, TalkWay
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.models import AgentConfig
from tests.support.api_services import FakeTalks
from tests.support.sim_platform import REALM, SERVER_ID, MiniPlatform

LOCAL_ID = "34020100002000000001"
NVR = "34020000001180000001"
ZONE = timezone(timedelta(hours=8))
FAST = LinkTimers(retry_s=0.2, first_retry_s=0.02, answer_s=2.0, connect_s=1.0, goodbye_s=0.5)


def camera(number: int) -> str:
    return f"3402000000132{number:07d}"


def make_device(device_id: str = NVR, channels: int = 2, **fields: Any) -> Device:
    """An NVR that is online, with cameras that are on."""
    device = Device(id=device_id, name="NVR", manufacturer="Acme", model="N1")
    device.presence = Presence.ONLINE
    for number in range(1, channels + 1):
        channel_id = camera(number)
        device.channels[channel_id] = Channel(
            device_id=device_id,
            id=channel_id,
            name=f"Gate {number}",
            kind=node_kind(channel_id).value,
            status=ChannelStatus.ON,
            civil_code="340200",
            **fields,
        )
    return device


class Book:
    """As the registry, without its rules."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self.devices = {device.id: device for device in devices}

    def __iter__(self) -> Iterator[Device]:
        return iter(list(self.devices.values()))

    def get(self, device_id: str) -> Device | None:
        return self.devices.get(device_id)


class MemoryUpperStore:
    def __init__(self) -> None:
        self.uppers: dict[str, Upper] = {}
        self.all: dict[str, bool] = {}
        self.rows: dict[str, dict[tuple[str, str], ShareRow]] = {}

    async def load_uppers(self) -> list[StoredUpper]:
        return [
            StoredUpper(
                upper=upper,
                share_all=self.all.get(upper.id, False),
                rows=tuple(self.rows.get(upper.id, {}).values()),
            )
            for upper in self.uppers.values()
        ]

    async def save_upper(self, upper: Upper) -> None:
        self.uppers[upper.id] = upper

    async def remove_upper(self, upper_id: str) -> None:
        self.uppers.pop(upper_id, None)

    async def replace_shares(self, upper_id: str, share_all: bool, rows: Sequence[ShareRow]) -> None:
        self.all[upper_id] = share_all
        self.rows[upper_id] = {(row.device_id, row.channel_id): row for row in rows}

    async def add_shares(self, upper_id: str, rows: Iterable[ShareRow]) -> None:
        for row in rows:
            self.rows.setdefault(upper_id, {})[row.device_id, row.channel_id] = row


class FakeCommands:
    """Devices that do what they are told."""

    def __init__(self) -> None:
        self.run_with: list[tuple[str, str | None, str, Values]] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.error: GatewayError | None = None

    async def run(
        self,
        device_id: str,
        name: str,
        values: Values,
        *,
        channel_id: str | None = None,
        force: bool = False,
        key_id: str = "",
    ) -> Outcome:
        self.run_with.append((device_id, channel_id, name, values))
        if self.error is not None:
            raise self.error
        return Outcome(
            command=name,
            device_id=device_id,
            channel_id=channel_id or "",
            answered=True,
            fields=dict(self.answers.get(name, {"Result": "OK"})),
        )


class BusyTalks(FakeTalks):
    """Somebody talks to every channel."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Holder]] = []

    async def start(
        self, device_id: str, channel_id: str, holder: Holder, *, way: TalkWay | None = None
    ) -> TalkView:
        self.asked.append((device_id, channel_id, holder))
        raise GatewayError("gb.route.busy", "operator is talking.", holder="operator")


class NoStreams:
    async def lease_live(self, device_id: str, channel_id: str, consumer: object) -> Any:
        raise GatewayError("gb.route.offline", "There is no media in this test.")

    lease_stream = start_playback = start_download = control = stop = lease_live


class Lab:
    """The cascade and what it hangs on."""

    def __init__(
        self, devices: Iterable[Device], store: MemoryUpperStore | None = None, pace: Pace | None = None
    ) -> None:
        clock = SystemClock()
        self.book = Book(devices)
        self.store = store if store is not None else MemoryUpperStore()
        self.commands = FakeCommands()
        self.talks = BusyTalks()
        self.bus = EventBus(strict=True, zone=ZONE)
        self.transports = Transports(clock=clock)
        self.endpoint = Endpoint()
        self.agent = UserAgent(
            AgentConfig(id=LOCAL_ID, domain="3402010000", user_agent="test"),
            self.endpoint,
            self.transports,
            clock,
        )
        self.engine = ReferencePlane()
        self.uppers = Uppers(
            store=self.store,
            agent=self.agent,
            bus=self.bus,
            clock=clock,
            book=self.book,
            answers=Answers(
                book=self.book, commands=self.commands, bus=self.bus, clock=clock, zone=ZONE, version="1"
            ),
            calls=UpperCalls(
                CallTools(
                    agent=self.agent,
                    source=NoStreams(),
                    talks=self.talks,
                    engine=self.engine,
                    ports=PortPool(30000, 30100, 1.0, clock),
                    ssrcs=SsrcPool("20100", 1.0, clock),
                    bus=self.bus,
                    clock=clock,
                    next_sn=lambda: 1,
                    media_listen="127.0.0.1",
                    media_advertise="",
                )
            ),
            default_local_id=LOCAL_ID,
            is_device_path=lambda path: False,
            zone=ZONE,
            timers=FAST,
            pace=pace if pace is not None else Pace(gather_s=0.02, between_s=0.05, answer_s=1.0, again_s=0.1),
        )
        self.agent.on_path_closed = self.uppers.connection_closed

    async def register_at(self, platform: MiniPlatform, **settings: Any) -> None:
        """Add the platform and wait until it has us."""
        values: dict[str, Any] = {
            "domain": REALM, "host": "127.0.0.1", "port": platform.port, "password": platform.password, **settings
        }  # fmt: skip
        await self.uppers.add(SERVER_ID, UpperChange(**values))
        await platform.until(lambda: self.uppers.get(SERVER_ID).registered)


@asynccontextmanager
async def lab(*devices: Device, **settings: Any) -> AsyncIterator[Lab]:
    """Listening on loopback, ended cleanly."""
    made = Lab(devices, **settings)
    await made.transports.listen("127.0.0.1", 0)
    await made.uppers.load()
    made.uppers.start()
    try:
        yield made
    finally:
        await made.uppers.close()
        await made.agent.close()
        await made.transports.close()
        await made.engine.close()


def subscribe(
    platform: MiniPlatform,
    cmd_type: str,
    *,
    expires: int = 600,
    target: str = LOCAL_ID,
    call_id: str = "s1",
    event: str = "presence",
    to_tag: str = "",
    cseq: int = 1,
    extra: str = "",
) -> None:
    """SUBSCRIBE from the platform."""
    body = (
        f'<?xml version="1.0"?>\r\n<Query><CmdType>{cmd_type}</CmdType><SN>33</SN><DeviceID>{target}</DeviceID>'
        f"{extra}</Query>\r\n"
    ).encode()
    request = platform.request(
        "SUBSCRIBE",
        LOCAL_ID,
        call_id=call_id,
        body=body,
        content_type="Application/MANSCDP+xml",
        to_tag=to_tag,
        cseq=cseq,
        branch=f"z9hG4bKs{call_id}{cseq}",
        headers=(("Event", event), ("Expires", str(expires))),
    )
    platform.send(request, platform.registered[LOCAL_ID])


def notifies(platform: MiniPlatform, cmd_type: str = "Catalog") -> list[str]:
    """Bodies of NOTIFY that came, each once."""
    seen: dict[tuple[str, int], str] = {}
    for one in platform.seen:
        request = one.request
        if request.method == "NOTIFY" and f"<CmdType>{cmd_type}</CmdType>".encode() in request.body:
            seen[request.call_id, request.cseq.number] = request.body.decode("gb18030")
    return list(seen.values())
