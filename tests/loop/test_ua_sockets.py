"""Two user agents over real sockets: the gateway and a device."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.sip.endpoint import Endpoint
from gb28181gw.sip.path import Path
from gb28181gw.sip.timers import Timers
from gb28181gw.transport.transports import Transports
from gb28181gw.ua.agent import UserAgent
from gb28181gw.ua.incoming import Incoming
from gb28181gw.ua.models import AgentConfig, Target
from tests.support.sip_peer import SCALE, UdpPeer, until, wire

GATEWAY = "34020000002000000001"
DEVICE = "34020000001320000001"
DOMAIN = "3402000000"
SDP = b"v=0\r\n"
FAST = Timers(t1=0.05 * SCALE, t2=0.4 * SCALE, t4=0.2 * SCALE)


class Side:
    """One agent with its transports. Everybody is known: policies have tests of their own."""

    def __init__(self, name: str, timers: Timers = FAST) -> None:
        self.transports = Transports()
        self.agent = UserAgent(
            AgentConfig(id=name, domain=DOMAIN, user_agent="test"), Endpoint(timers), self.transports
        )
        self.agent.use_policy(is_known=lambda path, user: True, is_verified=lambda path: True)
        self.port = 0

    async def close(self) -> None:
        await self.agent.close()
        await self.transports.close()


@pytest.fixture
async def gateway() -> AsyncIterator[Side]:
    side = Side(GATEWAY)
    side.port = await side.transports.listen("0.0.0.0", 0)  # noqa: S104 - as in production
    yield side
    await side.close()


@pytest.fixture
async def device() -> AsyncIterator[Side]:
    side = Side(DEVICE)
    yield side
    await side.close()


@pytest.fixture
async def peer() -> AsyncIterator[UdpPeer]:
    made = await UdpPeer.open()
    yield made
    made.close()


async def reach(device: Side, gateway: Side, transport: str) -> tuple[Path, Path]:
    """Register over this transport: the device's path to the gateway, and the gateway's to the device."""
    seen: list[Path] = []

    def register(incoming: Incoming) -> None:
        seen.append(incoming.path)
        incoming.respond(200, headers=(("Expires", "3600"),))

    gateway.agent.on_request("REGISTER", register)
    if transport == "tcp":
        path = await device.transports.connect("127.0.0.1", gateway.port)
    else:
        path = (await device.transports.add_udp("127.0.0.1")).path_to("127.0.0.1", gateway.port)
    response = await device.agent.request(
        Target(path=path, user=DEVICE, domain=DOMAIN), "REGISTER", request_uri=f"sip:{GATEWAY}@{DOMAIN}"
    )
    assert (response.status, response.headers.get("X-GB-Ver")) == (200, "3.0")
    gateway.transports.mark_trusted(seen[0])
    return path, seen[0]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_register_message_call_info_and_bye_from_both_sides(
    gateway: Side, device: Side, transport: str
) -> None:
    _, to_device = await reach(device, gateway, transport)
    assert to_device.transport == transport
    assert to_device.local_host == "127.0.0.1"
    at_device: list[str] = []
    calls: list[Incoming] = []

    def invited(incoming: Incoming) -> None:
        calls.append(incoming)
        incoming.on_ack = lambda request: at_device.append("ACK")
        incoming.respond(100)
        incoming.respond(200, body=SDP, content_type="application/sdp")
        assert incoming.dialog is not None
        device.agent.watch_dialog(incoming.dialog, within)

    def within(incoming: Incoming) -> None:
        at_device.append(incoming.method)
        incoming.respond(200)

    device.agent.on_request("INVITE", invited)
    device.agent.on_request("MESSAGE", within)
    target = Target(path=to_device, user=DEVICE, domain=DOMAIN)
    assert (await gateway.agent.request(target, "MESSAGE", body=b"x" * 3000)).status == 200
    answer = await gateway.agent.invite(target, sdp=SDP, subject=f"{DEVICE}:0,{GATEWAY}:0")
    assert answer.sdp == SDP
    gateway.agent.ack(answer.dialog)
    await until(lambda: "ACK" in at_device, "the ACK")
    assert (await gateway.agent.send_in_dialog(answer.dialog, "INFO", body=b"PLAY")).status == 200
    # the device ends it
    ended: list[Incoming] = []

    def bye(incoming: Incoming) -> None:
        ended.append(incoming)
        incoming.respond(200)

    gateway.agent.watch_dialog(answer.dialog, bye)
    dialog = calls[0].dialog
    assert dialog is not None
    assert (await device.agent.send_in_dialog(dialog, "BYE")).status == 200
    assert [one.method for one in ended] == ["BYE"]
    assert at_device == ["MESSAGE", "ACK", "INFO"]
    gateway.agent.unwatch_dialog(answer.dialog)
    assert (await device.agent.send_in_dialog(dialog, "BYE")).status == 481


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_f05_call_that_is_given_up_is_cancelled_at_the_device(
    gateway: Side, device: Side, transport: str
) -> None:
    _, to_device = await reach(device, gateway, transport)
    cancelled: list[str] = []

    def invited(incoming: Incoming) -> None:
        incoming.on_cancel = lambda: cancelled.append(incoming.to_user)
        incoming.respond(180)

    device.agent.on_request("INVITE", invited)
    with pytest.raises(GatewayError) as caught:
        await gateway.agent.invite(
            Target(path=to_device, user=DEVICE, domain=DOMAIN), sdp=SDP, subject="", timeout_s=0.3 * SCALE
        )
    assert caught.value.code == "gb.sip.no_answer"
    await until(lambda: cancelled, "the CANCEL")
    assert cancelled == [DEVICE]


async def test_f05_lost_ack_is_repaired_by_the_repeated_2xx(gateway: Side, device: Side) -> None:
    _, to_device = await reach(device, gateway, "udp")
    acks: list[str] = []

    def invited(incoming: Incoming) -> None:
        incoming.on_ack = lambda request: acks.append(request.call_id)
        incoming.respond(200, body=SDP)

    device.agent.on_request("INVITE", invited)
    answer = await gateway.agent.invite(
        Target(path=to_device, user=DEVICE, domain=DOMAIN), sdp=SDP, subject=""
    )
    lost = gateway.transports.send
    dropped: list[bytes] = []

    def lose_first(path: Path, data: bytes) -> bool:
        if data.startswith(b"ACK") and not dropped:
            dropped.append(data)
            return True
        return lost(path, data)

    gateway.transports.send = lose_first  # type: ignore[method-assign]
    gateway.agent.ack(answer.dialog)
    await until(lambda: acks, "the second ACK")
    assert len(dropped) == 1 and len(acks) == 1


async def test_f04_request_is_repeated_until_the_peer_wakes_up(gateway: Side, peer: UdpPeer) -> None:
    path = Path("udp", "127.0.0.1", peer.port, "127.0.0.1", gateway.port)
    task = asyncio.create_task(
        gateway.agent.request(Target(path=path, user=DEVICE, domain=DOMAIN), "MESSAGE")
    )
    await until(lambda: len(peer.received) >= 3, "three copies")
    assert len(set(peer.received)) == 1
    request = await peer.next_request("MESSAGE")
    answer = f"SIP/2.0 200 OK\r\nVia: {request.headers.get('Via')}\r\nFrom: {request.headers.get('From')}\r\n"
    answer += (
        f"To: {request.headers.get('To')};tag=1\r\nCall-ID: {request.call_id}\r\nCSeq: {request.cseq}\r\n\r\n"
    )
    peer.send(answer.encode(), gateway.port)
    assert (await task).status == 200


async def test_f08_end_of_the_connection_fails_the_request_at_once(gateway: Side, device: Side) -> None:
    to_gateway, to_device = await reach(device, gateway, "tcp")
    closed: list[Path] = []
    gateway.agent.on_path_closed = closed.append
    device.agent.on_request("MESSAGE", lambda incoming: device.transports.close_path(to_gateway))
    with pytest.raises(GatewayError) as caught:
        await gateway.agent.request(
            Target(path=to_device, user=DEVICE, domain=DOMAIN), "MESSAGE", timeout_s=10
        )
    assert caught.value.code == "gb.sip.path_lost"
    assert closed == [to_device]


async def test_one_agent_hosts_many_identities_on_sockets_of_their_own(gateway: Side, device: Side) -> None:
    asked: list[tuple[str, int]] = []

    def message(incoming: Incoming) -> None:
        asked.append((incoming.from_user, incoming.path.remote_port))
        incoming.respond(200)

    gateway.agent.on_request("MESSAGE", message)
    sockets = [await device.transports.add_udp("127.0.0.1") for _ in range(60)]
    async with asyncio.TaskGroup() as group:
        for number, one in enumerate(sockets):
            target = Target(path=one.path_to("127.0.0.1", gateway.port), user=GATEWAY, domain=DOMAIN)
            group.create_task(
                device.agent.request(target, "MESSAGE", from_user=f"340200000013200{number:05}", timeout_s=10)
            )
    assert sorted(asked) == [(f"340200000013200{number:05}", one.port) for number, one in enumerate(sockets)]


async def test_s20_flood_from_one_host_ends_before_the_parser(gateway: Side, peer: UdpPeer) -> None:
    gateway.agent.use_policy(is_known=lambda path, user: False, is_verified=lambda path: False)
    sheds: list[tuple[str, int]] = []
    gateway.agent.refusals.on_shed = lambda host, count: sheds.append((host, count))
    for number in range(300):
        peer.send(wire("OPTIONS", port=peer.port, cseq=number + 1), gateway.port)
        if number % 50 == 0:
            await asyncio.sleep(0)
    await until(lambda: gateway.transports.counters.received == 300, "the flood")
    assert gateway.transports.counters.gated >= 150
    assert gateway.agent.endpoint.counters.requests_received <= 150
    assert sheds == [("127.0.0.1", 1)]
    assert peer.received == []


async def test_i2_closed_agent_leaves_no_timer(gateway: Side, device: Side) -> None:
    _, to_device = await reach(device, gateway, "udp")
    await device.close()
    task = asyncio.create_task(
        gateway.agent.request(Target(path=to_device, user=DEVICE, domain=DOMAIN), "MESSAGE")
    )
    await until(lambda: gateway.agent.gauges()["exchanges"], "the request")
    await gateway.close()
    with pytest.raises(GatewayError):
        await task
    assert set(gateway.agent.gauges().values()) == {0}
