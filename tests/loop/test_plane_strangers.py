"""Strangers at a media port of TCP: they must not keep the device out (S-06)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from gb28181gw.media.engine import EventKind, MediaTransport, ReceiverSpec, ReceiverUpdate
from gb28181gw.media.reference import source
from tests.support.plane import (
    SSRC,
    Events,
    Plane,
    RtpSource,
    framed_stream,
    free_port_pair,
    make_plane,
    until,
    video_frames,
)


class Port:
    """A passive TCP receiver that expects the device at 127.0.0.1."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.events = Events()
        self.number = free_port_pair()
        self.id = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        spec = ReceiverSpec(
            transport=MediaTransport.TCP_PASSIVE,
            host="127.0.0.1",
            port=self.number,
            ssrc=SSRC,
            payloads={96: "PS"},
            expected_hosts=frozenset({"127.0.0.1"}),
        )
        self.id = (await self.plane.open_receiver(spec, self.events)).id

    async def dial(self, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, local_addr=(host, 0))
        self.writers.append(writer)
        return reader, writer

    @property
    def latched(self) -> str:
        return self.plane.receiver_counters([self.id])[self.id].source


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    plane = make_plane()
    made = Port(plane)
    async with AsyncExitStack() as ends:
        ends.push_async_callback(plane.close)
        await made.open()
        yield made
        for writer in made.writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_s06_silent_connections_of_strangers_do_not_keep_the_device_out(port: Port) -> None:
    for number in range(12):
        await port.dial(f"127.20.200.{number + 1}")
    await until(lambda: len(port.events.of(EventKind.CONNECTED)) >= 5)
    _, device = await port.dial("127.0.0.1")
    device.write(framed_stream(RtpSource().all(video_frames()[:10])))
    first = await port.events.wait(EventKind.FIRST_PACKET)
    assert first.peer.startswith("127.0.0.1:")


async def test_s06_device_takes_over_from_a_stranger_that_latched_by_grace(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    port.plane.update_receiver(port.id, ReceiverUpdate(acknowledged=True))
    if port.plane.name == "python":
        monkeypatch.setattr(source, "GRACE_S", 0.0)
    else:
        await asyncio.sleep(source.GRACE_S)  # there it is a constant, and passing it is what is tested
    _, stranger = await port.dial("127.20.200.1")
    forged = RtpSource()
    frames = video_frames()
    stranger.write(framed_stream(forged.all(frames[:5])))
    await until(lambda: port.latched.startswith("127.20.200.1:"), what="the stranger's latch")
    stranger.write(framed_stream(forged.all(frames[5:10])))  # it is alive when the device comes
    _, device = await port.dial("127.0.0.1")
    device.write(framed_stream(RtpSource(sequence=9000).all(frames[:10])))
    await until(lambda: port.latched.startswith("127.0.0.1:"), what="the take-over by the device")
    switched = await port.events.wait(EventKind.SOURCE_SWITCHED)
    assert switched.detail == "expected_address"
