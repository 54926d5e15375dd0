from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path
from gb28181gw.transport.transports import Transports
from tests.support.sip_peer import Recorder, UdpPeer, until, wire


@pytest.fixture
async def transports() -> AsyncIterator[Transports]:
    made = Transports()
    made.attach(Recorder())
    yield made
    await made.close()


@pytest.fixture
async def peer() -> AsyncIterator[UdpPeer]:
    made = await UdpPeer.open()
    yield made
    made.close()


def recorder(transports: Transports) -> Recorder:
    receiver = transports._receiver
    assert isinstance(receiver, Recorder)
    return receiver


async def test_inv23_path_has_the_local_address_and_not_the_wildcard(
    transports: Transports, peer: UdpPeer
) -> None:
    port = await transports.listen("0.0.0.0", 0)  # noqa: S104 - the wildcard is the case
    data = wire("MESSAGE", port=peer.port)
    peer.send(data, port)
    ((message, path, raw),) = await until(lambda: recorder(transports).messages, "the message")
    assert isinstance(message, Request) and message.method == "MESSAGE"
    assert path == Path("udp", "127.0.0.1", peer.port, "127.0.0.1", port)
    assert raw == data
    assert transports.send(path, b"SIP/2.0 200 OK\r\n\r\n")
    assert await until(lambda: peer.received, "the answer") == [b"SIP/2.0 200 OK\r\n\r\n"]
    assert (transports.counters.received, transports.counters.sent) == (1, 1)


async def test_datagram_of_64_kb_arrives_whole(transports: Transports, peer: UdpPeer) -> None:
    port = await transports.listen("127.0.0.1", 0)
    data = wire("MESSAGE", port=peer.port, body=b"x" * 64_900)
    peer.send(data, port)
    ((message, _, raw),) = await until(lambda: recorder(transports).messages, "the message")
    assert len(message.body) == 64_900
    assert raw == data


async def test_crlf_keepalive_is_counted_and_reaches_nobody(transports: Transports, peer: UdpPeer) -> None:
    port = await transports.listen("127.0.0.1", 0)
    peer.send(b"\r\n\r\n", port)
    await until(lambda: transports.counters.pings, "the ping")
    assert recorder(transports).messages == recorder(transports).malformed == []


async def test_malformed_datagram_is_reported_with_its_path(transports: Transports, peer: UdpPeer) -> None:
    port = await transports.listen("127.0.0.1", 0)
    peer.send(b"\x00\x01\x02 rubbish", port)
    ((_, path),) = await until(lambda: recorder(transports).malformed, "the report")
    assert path.remote_port == peer.port
    assert transports.counters.malformed == 1


async def test_s20_datagram_that_is_not_admitted_is_not_parsed(transports: Transports, peer: UdpPeer) -> None:
    port = await transports.listen("127.0.0.1", 0)
    recorder(transports).admits = False
    peer.send(b"rubbish", port)
    await until(lambda: transports.counters.gated, "the drop")
    assert transports.counters.malformed == 0
    assert recorder(transports).malformed == []


async def test_before_a_receiver_is_attached_everything_is_dropped(peer: UdpPeer) -> None:
    transports = Transports()
    port = await transports.listen("127.0.0.1", 0)
    peer.send(wire("MESSAGE", port=peer.port), port)
    await until(lambda: transports.counters.gated, "the drop")
    late = Recorder()
    transports.attach(late)
    peer.send(wire("MESSAGE", port=peer.port), port)
    assert len(await until(lambda: late.messages, "the message")) == 1
    await transports.close()


async def test_several_sockets_beside_each_other_send_from_their_own(
    transports: Transports, peer: UdpPeer
) -> None:
    sockets = [await transports.add_udp("127.0.0.1") for _ in range(3)]
    sources: list[int] = []
    peer.datagram_received = lambda data, addr: sources.append(addr[1])  # type: ignore[method-assign]
    for one in sockets:
        assert transports.send(one.path_to("127.0.0.1", peer.port), b"x")
    await until(lambda: len(sources) == 3, "three datagrams")
    assert sorted(sources) == sorted(one.port for one in sockets)
    await transports.remove_udp(sockets[0])
    await transports.remove_udp(sockets[0])
    assert not transports.send(sockets[0].path_to("127.0.0.1", peer.port), b"x")
    assert not transports.is_open(sockets[0].path_to("127.0.0.1", peer.port))
    assert transports.is_open(sockets[1].path_to("127.0.0.1", peer.port))


async def test_two_hosts_may_share_a_port(transports: Transports, peer: UdpPeer) -> None:
    first = await transports.add_udp("127.0.0.1")
    second = await transports.add_udp("127.0.0.2", first.port)
    sources: list[str] = []
    peer.datagram_received = lambda data, addr: sources.append(addr[0])  # type: ignore[method-assign]
    for one in (first, second):
        assert transports.send(one.path_to("127.0.0.1", peer.port), b"x")
    await until(lambda: len(sources) == 2, "two datagrams")
    assert sorted(sources) == ["127.0.0.1", "127.0.0.2"]


async def test_net01_advertised_address_is_in_every_path(peer: UdpPeer) -> None:
    transports = Transports(advertise="203.0.113.9")
    receiver = Recorder()
    transports.attach(receiver)
    port = await transports.listen("127.0.0.1", 0)
    peer.send(wire("MESSAGE", port=peer.port), port)
    ((_, path, _),) = await until(lambda: receiver.messages, "the message")
    assert path.local_host == "203.0.113.9"
    assert transports.send(path, b"back")
    assert await until(lambda: peer.received, "the answer") == [b"back"]
    await transports.close()


async def test_net10_dual_stack_socket_shows_ipv4_and_answers_it(
    transports: Transports, peer: UdpPeer
) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 in this Python")
    try:
        port = await transports.listen("::", 0)
    except GatewayError:
        pytest.skip("no IPv6 on this host")
    peer.send(wire("MESSAGE", port=peer.port), port)
    ((_, path, _),) = await until(lambda: recorder(transports).messages, "the message")
    assert (path.remote_host, path.local_host) == ("127.0.0.1", "127.0.0.1")
    assert transports.send(path, b"back")
    assert await until(lambda: peer.received, "the answer") == [b"back"]


async def test_listen_is_all_or_nothing(transports: Transports) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        with pytest.raises(GatewayError) as caught:
            await transports.listen("127.0.0.1", port)
        assert caught.value.code == "gb.config.port_in_use"
        assert f"TCP 127.0.0.1:{port}" in caught.value.detail
    assert await transports.listen("127.0.0.1", port) == port  # UDP was given back


async def test_address_that_cannot_be_sent_to_is_a_failure_and_no_exception(transports: Transports) -> None:
    port = await transports.listen("127.0.0.1", 0)
    transports.addresses.towards("127.0.0.1")
    before = transports.counters.send_failures
    transports.send(Path("udp", "not an address", 5060, "127.0.0.1", port), b"x")
    await until(lambda: transports.counters.send_failures > before, "the count")
    assert transports.addresses._young == {}  # our own route may have changed: ask the kernel again
    assert not transports.send(Path("udp", "127.0.0.1", 5060, "127.0.0.1", 1), b"x")


async def test_closed_transports_send_nothing(transports: Transports) -> None:
    udp = await transports.add_udp("127.0.0.1")
    path = udp.path_to("127.0.0.1", 9)
    await transports.close()
    assert not transports.send(path, b"x")
    assert not udp.send(path, b"x")
    await asyncio.sleep(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", udp.port))
        assert again.getsockname()[1] == udp.port
