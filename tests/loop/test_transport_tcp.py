from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.sip.message import Request
from gb28181gw.sip.path import Path
from gb28181gw.transport.tcp import TcpLimits
from gb28181gw.transport.transports import Transports
from tests.support.clock import FakeClock
from tests.support.sip_peer import Recorder, until, wire


class Bench:
    """Transports with a clock of their own, and connections to them."""

    def __init__(self, limits: TcpLimits | None = None) -> None:
        self.clock = FakeClock()
        self.receiver = Recorder()
        self.transports = Transports(clock=self.clock, tcp_limits=limits)
        self.transports.attach(self.receiver)
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    @property
    def counters(self) -> object:
        return self.transports.counters

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await self.transports.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(TcpLimits(unverified_per_host=4, unverified_total=6, backlog_bytes=100_000))
    made.port = await made.transports.listen("127.0.0.1", 0)
    yield made
    await made.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Did the gateway end the connection without a word? A reset and an orderly end are the same to the peer."""
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionResetError:
        return True


def message(number: int, port: int = 5060) -> bytes:
    return wire(
        "MESSAGE",
        port=port,
        cseq=number,
        body=b"<Notify><CmdType>Keepalive</CmdType></Notify>",
        transport="TCP",
    )


async def test_message_and_answer_use_the_devices_connection(bench: Bench) -> None:
    reader, writer = await bench.dial()
    writer.write(message(1))
    ((got, path, _),) = await until(lambda: bench.receiver.messages, "the message")
    assert isinstance(got, Request)
    assert path.transport == "tcp" and path.connection_id > 0 and path.reliable
    assert (path.remote_host, path.local_host, path.local_port) == ("127.0.0.1", "127.0.0.1", bench.port)
    assert path.remote_port == writer.get_extra_info("sockname")[1]
    assert bench.transports.send(path, b"answer")
    assert await reader.readexactly(6) == b"answer"
    assert bench.transports.is_open(path)


async def test_f08_messages_arrive_however_they_are_cut(bench: Bench) -> None:
    _, writer = await bench.dial()
    whole = message(1) + b"\r\n" + message(2) + message(3)
    for position in range(len(whole)):
        writer.write(whole[position : position + 1])
        if position % 50 == 0:
            await writer.drain()
            await asyncio.sleep(0)
    await until(lambda: len(bench.receiver.messages) == 3, "three messages")
    assert [one.cseq.number for one, _, _ in bench.receiver.messages] == [1, 2, 3]


async def test_reg22_double_crlf_is_answered_by_a_single_one(bench: Bench) -> None:
    reader, writer = await bench.dial()
    writer.write(b"\r\n\r\n")
    assert await reader.readexactly(2) == b"\r\n"
    assert bench.receiver.messages == []


async def test_xml14_doubtful_length_is_believed_after_a_moment_of_silence(bench: Bench) -> None:
    _, writer = await bench.dial()
    body = b"<Notify><CmdType>Keepalive</CmdType>"  # its end tag never comes
    writer.write(wire("MESSAGE", port=1, body=body, extra="Content-Type: Application/MANSCDP+xml\r\n"))
    ((got, _, _),) = await until(lambda: bench.receiver.messages, "the message")
    assert got.body == body


async def test_f08_lost_framing_closes_the_connection_after_the_report(bench: Bench) -> None:
    reader, writer = await bench.dial()
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await reader.read() == b""
    assert len(bench.receiver.malformed) == 1
    assert bench.transports.counters.closed_framing == 1
    await until(lambda: bench.receiver.closed, "the close")


async def test_f08_idle_unverified_connection_ends_after_10_s(bench: Bench) -> None:
    reader, writer = await bench.dial()
    trusted_reader, trusted = await bench.dial()
    writer.write(message(1))
    trusted.write(message(2))
    await until(lambda: len(bench.receiver.messages) == 2, "both messages")
    path = next(path for one, path, _ in bench.receiver.messages if one.cseq.number == 2)
    bench.transports.mark_trusted(path)
    bench.transports.mark_trusted(path)
    bench.clock.now += 10.0
    assert await ended(reader)
    assert bench.transports.counters.closed_idle == 1
    assert bench.transports.is_open(path) and not trusted_reader.at_eof()
    assert bench.transports.counters.connections_unverified == 0


async def test_f08_keepalives_do_not_keep_an_unverified_connection(bench: Bench) -> None:
    reader, writer = await bench.dial()
    writer.write(b"\r\n\r\n")
    assert await reader.readexactly(2) == b"\r\n"
    bench.clock.now += 6.0
    writer.write(b"\r\n\r\n")
    assert await reader.readexactly(2) == b"\r\n"
    bench.clock.now += 5.0
    assert await ended(reader)


async def test_f08_slowloris_ends_after_5_s_even_if_bytes_keep_coming(bench: Bench) -> None:
    reader, writer = await bench.dial()
    writer.write(b"MESSAGE sip:a@b SIP/2.0\r\n")
    await until(lambda: bench.transports._tcp._connections, "the connection")
    (connection,) = bench.transports._tcp._connections.values()
    await until(lambda: connection.partial_since is not None, "the beginning of a message")
    for _ in range(5):
        bench.clock.now += 1.0
        writer.write(b"X: y\r\n")
    assert await ended(reader)
    assert bench.transports.counters.closed_slow == 1


async def test_verified_connection_has_longer_for_one_message_but_not_for_ever(bench: Bench) -> None:
    reader, writer = await bench.dial()
    writer.write(message(1) + b"MESSAGE sip:a@b SIP/2.0\r\n")
    ((_, path, _),) = await until(lambda: bench.receiver.messages, "the message")
    bench.transports.mark_trusted(path)
    (connection,) = bench.transports._tcp._connections.values()
    limits = bench.transports._tcp.limits
    assert connection.overdue(bench.clock.now + 29.0, limits) == ""
    bench.clock.now += 31.0
    assert await ended(reader)
    assert bench.transports.counters.closed_slow == 1


async def test_s05_more_than_a_megabyte_only_from_a_peer_that_proved_itself(bench: Bench) -> None:
    reader, writer = await bench.dial()
    trusted_reader, trusted = await bench.dial()
    trusted.write(message(1))
    ((_, path, _),) = await until(lambda: bench.receiver.messages, "the message")
    bench.transports.mark_trusted(path)
    long = b"<Notify>" + b" " * 1_100_000 + b"</Notify>"
    for one in (writer, trusted):
        one.write(wire("MESSAGE", port=5060, cseq=2, body=long, transport="TCP"))
    assert await ended(reader)
    await until(lambda: len(bench.receiver.messages) == 2, "the long message")
    assert bench.receiver.messages[1][0].body == long
    assert not trusted_reader.at_eof()


async def test_s20_unverified_connections_of_a_host_are_capped(bench: Bench) -> None:
    for _ in range(4):
        _, writer = await bench.dial()
        writer.write(message(1))
    await until(lambda: len(bench.receiver.messages) == 4, "four connections")
    reader, _ = await bench.dial()
    assert await ended(reader)
    assert bench.transports.counters.connections_refused == 1
    bench.transports.mark_trusted(bench.receiver.messages[0][1])  # a verified one no longer counts
    _, writer = await bench.dial()
    writer.write(message(2))
    await until(lambda: len(bench.receiver.messages) == 5, "the fifth connection")


async def test_s20_message_that_is_not_admitted_ends_the_connection(bench: Bench) -> None:
    bench.receiver.admits = False
    reader, writer = await bench.dial()
    writer.write(message(1))
    assert await ended(reader)
    assert bench.transports.counters.gated == 1
    assert bench.receiver.messages == []


async def test_i10_peer_that_does_not_read_is_cut_off(bench: Bench) -> None:
    _, writer = await bench.dial()
    sock = writer.get_extra_info("socket")
    writer.transport.pause_reading()
    assert sock is not None
    writer.write(message(1))
    ((_, path, _),) = await until(lambda: bench.receiver.messages, "the message")
    sends = 0
    while bench.transports.send(path, b"x" * 50_000):
        sends += 1
        assert sends < 1000
    assert bench.transports.counters.closed_backlog == 1
    await until(lambda: bench.receiver.closed, "the end")
    assert not bench.transports.is_open(path)


async def test_end_of_the_connection_is_reported_once_with_its_path(bench: Bench) -> None:
    _, writer = await bench.dial()
    writer.write(message(1))
    ((_, path, _),) = await until(lambda: bench.receiver.messages, "the message")
    writer.close()
    await until(lambda: bench.receiver.closed, "the report")
    assert bench.receiver.closed == [path]
    assert not bench.transports.send(path, b"x")
    assert bench.transports.counters.connections == 0
    bench.transports.close_path(path)


async def test_connection_can_be_closed_by_us(bench: Bench) -> None:
    reader, writer = await bench.dial()
    writer.write(message(1))
    ((_, path, _),) = await until(lambda: bench.receiver.messages, "the message")
    bench.transports.send(path, b"bye")
    bench.transports.close_path(path)
    assert await asyncio.wait_for(reader.read(), 5) == b"bye"


async def test_dialled_connection_is_verified_and_carries_messages_both_ways(bench: Bench) -> None:
    other = Bench()
    path = await other.transports.connect("127.0.0.1", bench.port)
    assert path.remote_port == bench.port and path.local_port > 0
    assert other.transports.send(path, message(1))
    ((_, back, _),) = await until(lambda: bench.receiver.messages, "the message")
    assert bench.transports.send(back, message(2))
    await until(lambda: other.receiver.messages, "the message back")
    assert other.transports.counters.connections_unverified == 0
    await other.close()


async def test_dialling_nobody_is_a_sentence() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        transports = Transports()
        with pytest.raises(GatewayError) as caught:
            await transports.connect("127.0.0.1", reserved.getsockname()[1], timeout_s=5)
        assert caught.value.code == "gb.sip.path_lost"
    await transports.close()


async def test_limit_of_all_connections_holds_for_dialled_ones_too(bench: Bench) -> None:
    other = Bench(TcpLimits(total=1))
    first = await other.transports.connect("127.0.0.1", bench.port)
    with pytest.raises(GatewayError, match="limit of connections"):
        await other.transports.connect("127.0.0.1", bench.port)
    assert other.transports.is_open(first)
    await other.close()


async def test_i2_close_ends_everything_and_frees_the_port(bench: Bench) -> None:
    reader, writer = await bench.dial()
    writer.write(message(1))
    await until(lambda: bench.receiver.messages, "the message")
    await bench.transports.close()
    assert await ended(reader)
    assert bench.transports.counters.connections == bench.transports.counters.connections_unverified == 0
    assert await bench.transports.listen("127.0.0.1", bench.port) == bench.port


def test_path_of_a_connection_is_reliable() -> None:
    assert Path("tcp", "127.0.0.1", 1).reliable
