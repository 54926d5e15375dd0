"""A media plane that is opened and closed all the time, flooded, stalled: all is given back, nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gb28181gw.clock import SystemClock
from gb28181gw.media.engine import Container, EventKind, MediaTransport, ReceiverSpec, SocketSinkSpec
from gb28181gw.media.ports import PortPool
from gb28181gw.media.ssrc import SsrcPool
from gb28181gw.media.wire.ps_mux import PsMuxer
from tests.support.plane import (
    SSRC,
    Events,
    RtpSource,
    SocketReader,
    free_port_pair,
    send_udp,
    udp_socket,
    until,
    video_frames,
)
from tests.support.rig import LOCAL, Rig, opened_rig

PACKETS_OF_STRANGERS = 10_000
"""Within the second or so that the test's device sends."""


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with opened_rig() as made:
        yield made


def resident_kb() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Churn:
    """Opens and closes streams with everything that belongs to one, ports and SSRCs from pools without a rest."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        clock = SystemClock()
        self.ports = PortPool(14_000, 14_999, 0.0, clock)
        self.ssrcs = SsrcPool("34020", 0.0, clock)
        self.sinks_ended = 0
        self.sinks = 0
        self.first_packets = 0
        self.frames = video_frames(count=4)

    async def cycle(self, number: int, device: socket.socket) -> None:
        plane, stream_id = self.rig.plane, f"churn{number}"
        transport = MediaTransport.TCP_PASSIVE if number % 5 == 4 else MediaTransport.UDP
        port_lease, ssrc_lease = self.ports.acquire(), self.ssrcs.acquire(live=True)
        events = Events()
        spec = ReceiverSpec(
            transport=transport,
            host="127.0.0.1",
            port=port_lease.port,
            ssrc=ssrc_lease.value,
            expected_hosts=LOCAL,
        )
        try:
            receiver = await plane.open_receiver(spec, events)
        except OSError:  # another program has it
            port_lease.mark_taken()
            ssrc_lease.release()
            return
        plane.create_stream(stream_id, events)
        plane.attach(receiver.id, stream_id)
        ours, theirs = socket.socketpair()
        plane.add_socket_sink(
            stream_id, ours.detach(), SocketSinkSpec(container=Container.FLV), self.sink_event
        )
        plane.add_frame_sink(stream_id, lambda _: None)
        self.sinks += 1
        packets = RtpSource(ssrc=ssrc_lease.value).all(self.frames)
        if transport is MediaTransport.UDP:
            for packet in packets:
                device.sendto(packet, ("127.0.0.1", port_lease.port))
        # Some are closed with their packets still in the socket, some when the pictures are on their way.
        if number % 3:
            await asyncio.sleep(0)
        elif transport is MediaTransport.UDP:
            await events.wait(EventKind.FIRST_PACKET)
        if number % 2:
            plane.close_stream(stream_id)
            plane.close_receiver(receiver.id)
        else:
            plane.close_receiver(receiver.id)
            plane.close_stream(stream_id)
        self.first_packets += len(events.of(EventKind.FIRST_PACKET))
        theirs.close()
        port_lease.release()
        ssrc_lease.release()

    def sink_event(self, event: object) -> None:
        self.sinks_ended += 1

    async def settled(self) -> tuple[int, int]:
        """Descriptors, and resident memory in kB."""
        await until(lambda: self.sinks_ended == self.sinks, what="the end of all sinks")
        gc.collect()
        return descriptors(), resident_kb()


async def churn(rig: Rig, cycles: int, most_growth_kb: int) -> None:
    await rig.open()
    source, frames = RtpSource(), video_frames()
    made = Churn(rig)
    with udp_socket() as device, udp_socket() as churned:
        sent = seen = 0

        def look() -> None:
            """The stream that goes on is whole; its pictures are not kept, because memory is measured."""
            nonlocal seen
            for picture in rig.pictures:
                assert picture.payload == frames[seen % len(frames)].payload
                seen += 1
            rig.frames.clear()

        async def run(first: int, count: int) -> None:
            nonlocal sent
            for number in range(first, first + count):
                await made.cycle(number, churned)
                if number % 10 == 0:
                    look()
                    source.start_90k = sent // len(frames) * len(frames) * 3600
                    await send_udp(device, source.packets(frames[sent % len(frames)]), rig.port)
                    sent += 1

        warm = max(100, cycles // 10)
        await run(0, warm)
        before = await made.settled()
        await run(warm, cycles)
        after = await made.settled()
        await until(lambda: seen + len(rig.pictures) >= sent - 1)
        look()
    assert after[0] == before[0], "descriptors"
    assert after[1] - before[1] <= most_growth_kb, "resident memory"
    assert (made.ports.in_use, made.ports.resting) == (0, 0)
    assert (made.ssrcs.in_use, made.ssrcs.resting) == (0, 0)
    assert rig.plane.gauges == {"receivers": 1, "streams": 1, "sinks": 1}
    assert made.first_packets > cycles // 5
    assert rig.counters.lost == 0


async def test_i2_cycles_of_open_and_close_under_traffic_leave_nothing_behind(rig: Rig) -> None:
    await churn(rig, cycles=300, most_growth_kb=2048)


@pytest.mark.long
async def test_i2_ten_thousand_cycles_under_traffic_leave_nothing_behind(rig: Rig) -> None:
    await churn(rig, cycles=10_000, most_growth_kb=4096)


async def test_s06_flood_with_right_port_and_ssrc_passes_nothing_and_delays_nobody(rig: Rig) -> None:
    await rig.open(expected=frozenset({"127.0.0.1"}))
    other = Rig(rig.plane)
    other.port = free_port_pair()
    spec = ReceiverSpec(transport=MediaTransport.UDP, host="127.0.0.1", port=other.port, ssrc=SSRC + 1)
    neighbour = await rig.plane.open_receiver(spec, other.events)
    rig.plane.create_stream("t", other.stream_events)
    rig.plane.attach(neighbour.id, "t")
    rig.plane.add_frame_sink("t", other.frames.extend)
    frames = video_frames(count=50)
    with udp_socket() as device, udp_socket() as beside, udp_socket("127.0.0.2") as stranger:
        source, quiet = RtpSource(), RtpSource(ssrc=SSRC + 1)
        source.rtp.max_payload = 300
        await send_udp(device, source.packets(frames[0]), rig.port)
        await rig.events.wait(EventKind.FIRST_PACKET)
        # The stranger knows the numbers too: its packets continue the device's, and are pictures.
        forged = RtpSource(muxer=PsMuxer(), sequence=30).all(video_frames(count=25))[:60]
        sent = 0
        for number, frame in enumerate(frames[1:]):
            await send_udp(device, source.packets(frame), rig.port)
            await send_udp(beside, quiet.packets(frames[number]), other.port)
            for index in range(PACKETS_OF_STRANGERS // 49):
                stranger.sendto(forged[index % len(forged)], ("127.0.0.1", rig.port))
                sent += 1
            wanted = sent
            await until(lambda wanted=wanted: rig.counters.foreign >= wanted, what="reading the flood")
        await until(lambda: len(rig.pictures) >= 49 and len(other.pictures) >= 48)
        counters = rig.counters
        with pytest.raises(BlockingIOError):
            stranger.recv(100)
    assert sent >= PACKETS_OF_STRANGERS - 49
    assert counters.foreign == sent, "each of them is counted"
    assert counters.lost == counters.duplicated == 0
    assert counters.source == f"127.0.0.1:{counters.source.rpartition(':')[2]}"
    assert [frame.payload for frame in rig.pictures] == [f.payload for f in frames[: len(rig.pictures)]]
    assert [frame.payload for frame in other.pictures] == [f.payload for f in frames[: len(other.pictures)]]
    assert rig.events.of(EventKind.SOURCE_CONFLICT), "and it is told"
    assert rig.events.of(EventKind.SOURCE_SWITCHED) == []


async def test_f06_stream_that_stalls_in_a_picture_goes_on_and_costs_nobody_anything(rig: Rig) -> None:
    await rig.open(silence_s=0.2)
    viewer = rig.viewer(stall_s=0.1)
    frames = video_frames(count=75)
    source = RtpSource()
    source.rtp.max_payload = 300
    with udp_socket() as device:
        await send_udp(device, source.all(frames[:25]), rig.port)
        half = source.packets(frames[25])
        assert len(half) > 1
        await send_udp(device, half[:-1], rig.port)
        await rig.events.wait(EventKind.SILENCE)
        seen = len(rig.pictures)
        # Meanwhile somebody begins to watch what was kept.
        late: SocketReader = rig.viewer()
        await until(lambda: late.frames)
        await send_udp(device, half[-1:] + source.all(frames[26:]), rig.port)
        await until(lambda: len(rig.pictures) >= 74)
        await until(lambda: len(viewer.frames) >= 74)
    assert seen == 25, "no part of a picture was given out"
    assert [frame.payload for frame in rig.pictures] == [f.payload for f in frames[: len(rig.pictures)]]
    assert rig.counters.lost == 0
    assert not viewer.ended, "a consumer is not slow because its source is silent"
    times = [frame.dts_90k for frame in rig.pictures]
    assert times == sorted(set(times))
    assert late.frames[0].is_key
