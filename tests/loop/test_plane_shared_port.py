"""One UDP and TCP port for all receivers of a media plane: told apart by SSRC and source, judged by the same rule."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import (
    EventKind,
    Feature,
    MediaTransport,
    Receiver,
    ReceiverCounters,
    ReceiverSpec,
    ReceiverUpdate,
    RtpPacking,
    RtpSinkSpec,
    RtpSinkUpdate,
)
from gb28181gw.media.tracks import Frame, TrackKind
from gb28181gw.media.wire import rtcp
from tests.support.plane import (
    Events,
    Plane,
    RtpSource,
    audio_frames,
    framed_stream,
    free_port_pair,
    make_plane,
    send_udp,
    udp_socket,
    until,
    video_frames,
)
from tests.support.rig import LOCAL
from tests.support.rtp_peer import TcpPeer, UdpPeer

NEEDS = Feature.SHARED_PORT
ONE, TWO = 200000001, 200000002


class Inlet:
    """A receiver on the shared port, the stream it feeds, and what came."""

    def __init__(self, plane: Plane, name: str) -> None:
        self.plane = plane
        self.name = name
        self.events, self.stream_events = Events(), Events()
        self.frames: list[Frame] = []
        self.receiver = Receiver(id=0, host="", port=0)

    @property
    def pictures(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.track.kind is TrackKind.VIDEO]

    @property
    def counters(self) -> ReceiverCounters:
        return self.plane.receiver_counters([self.receiver.id])[self.receiver.id]

    def update(self, **changes: object) -> None:
        self.plane.update_receiver(self.receiver.id, ReceiverUpdate(**changes))  # type: ignore[arg-type]


class Shared:
    """A plane with its shared port open."""

    def __init__(self) -> None:
        self.plane = make_plane()
        self.port = free_port_pair()

    async def inlet(
        self,
        ssrc: int,
        transport: MediaTransport = MediaTransport.UDP,
        *,
        expected: frozenset[str] = LOCAL,
        mode: str = "nat",
    ) -> Inlet:
        made = Inlet(self.plane, f"s{ssrc}")
        spec = ReceiverSpec(
            transport=transport,
            host="127.0.0.1",
            port=self.port,
            ssrc=ssrc,
            expected_hosts=expected,
            source_mode=mode,
            shared=True,
        )
        made.receiver = await self.plane.open_receiver(spec, made.events)
        self.plane.create_stream(made.name, made.stream_events)
        self.plane.attach(made.receiver.id, made.name)
        self.plane.add_frame_sink(made.name, made.frames.extend)
        return made


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    made = Shared()
    await made.plane.open_shared_port("127.0.0.1", made.port)
    yield made
    await made.plane.close()
    assert made.plane.gauges == {"receivers": 0, "streams": 0, "sinks": 0}
    assert made.plane.failures == 0
    assert free(made.port)


def free(port: int) -> bool:
    with ExitStack() as stack:
        try:
            for kind, number in (
                (socket.SOCK_DGRAM, port),
                (socket.SOCK_DGRAM, port + 1),
                (socket.SOCK_STREAM, port),
            ):
                probe = stack.enter_context(closing(socket.socket(socket.AF_INET, kind)))
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True


async def test_net04_two_devices_share_one_port(shared: Shared) -> None:
    one, two = await shared.inlet(ONE), await shared.inlet(TWO)
    assert (one.receiver.port, two.receiver.port) == (shared.port, shared.port)
    pictures = video_frames()
    with udp_socket() as first, udp_socket("127.0.0.2") as second:
        two.update(expected_hosts=frozenset({"127.0.0.2"}))
        mine, other = RtpSource(ssrc=ONE).all(pictures[:26]), RtpSource(ssrc=TWO).all(pictures[25:])
        for left, right in zip(mine, other, strict=False):
            await send_udp(first, [left], shared.port)
            await send_udp(second, [right], shared.port)
        await send_udp(first, mine[len(other) :], shared.port)
        await send_udp(second, other[len(mine) :], shared.port)
        await until(lambda: len(one.pictures) >= 25 and len(two.pictures) >= 24)
    assert [f.payload for f in one.pictures[:25]] == [f.payload for f in pictures[:25]]
    assert [f.payload for f in two.pictures[:24]] == [f.payload for f in pictures[25:49]]
    assert (one.counters.foreign, two.counters.foreign) == (0, 0)
    assert (one.counters.ssrc, two.counters.ssrc) == (ONE, TWO)
    assert one.counters.bound == f"127.0.0.1:{shared.port}"


async def test_channels_of_one_nvr_come_from_one_socket(shared: Shared) -> None:
    one, two = await shared.inlet(ONE), await shared.inlet(TWO)
    with udp_socket() as nvr:
        mine, other = RtpSource(ssrc=ONE).all(video_frames()), RtpSource(ssrc=TWO).all(video_frames())
        for left, right in zip(mine, other, strict=True):
            await send_udp(nvr, [left, right], shared.port)
        await until(lambda: len(one.pictures) >= 49 and len(two.pictures) >= 49)
    assert one.counters.packets == two.counters.packets == len(mine)


async def test_s06_unknown_pairs_are_dropped(shared: Shared) -> None:
    one = await shared.inlet(ONE)
    with udp_socket() as device, udp_socket("127.0.0.3") as stranger:
        packets = RtpSource(ssrc=ONE).all(video_frames())
        await send_udp(device, packets[:20], shared.port)
        await one.events.wait(EventKind.FIRST_PACKET)
        await send_udp(stranger, RtpSource(ssrc=ONE, sequence=500).all(video_frames()), shared.port)
        await send_udp(stranger, RtpSource(ssrc=TWO).all(video_frames()), shared.port)
        await send_udp(device, packets[20:], shared.port)
        await until(lambda: len(one.pictures) >= 49)
    assert one.counters.packets == len(packets)
    assert one.counters.foreign == len(
        packets
    )  # with our SSRC from elsewhere; the other SSRC belongs to nobody
    assert [f.payload for f in one.pictures[:49]] == [f.payload for f in video_frames()[:49]]


async def test_inv03_known_variants_of_an_ssrc_are_accepted(shared: Shared) -> None:
    one = await shared.inlet(ONE)
    swapped = int.from_bytes(ONE.to_bytes(4, "big"), "little")
    with udp_socket() as device:
        await send_udp(device, RtpSource(ssrc=swapped).all(video_frames()), shared.port)
        await until(lambda: len(one.pictures) >= 49)
    assert (await one.events.wait(EventKind.SSRC_MISMATCH)).detail == "accepted: byte_swapped"


async def test_inv03_any_other_ssrc_is_told_to_the_one_that_waits(shared: Shared) -> None:
    one = await shared.inlet(ONE)
    with udp_socket() as device:
        await send_udp(device, RtpSource(ssrc=77).all(video_frames()), shared.port)
        event = await one.events.wait(EventKind.SSRC_MISMATCH)
    assert (event.ssrc, event.detail) == (77, "not accepted: other")
    assert not one.frames
    assert one.counters.packets == 0


async def test_inv02_the_answers_ssrc_is_told_apart_too(shared: Shared) -> None:
    one, two = await shared.inlet(ONE), await shared.inlet(TWO)
    one.update(ssrc=31)
    with udp_socket() as device:
        await send_udp(device, RtpSource(ssrc=31).all(video_frames()), shared.port)
        await until(lambda: len(one.pictures) >= 49)
    assert one.counters.ssrc == 31
    assert not two.frames


async def test_med23_a_new_epoch_of_the_latched_source(shared: Shared) -> None:
    one = await shared.inlet(ONE)
    await shared.inlet(TWO)
    with udp_socket() as device:
        await send_udp(device, RtpSource(ssrc=ONE).all(video_frames()[:30]), shared.port)
        await until(lambda: len(one.pictures) >= 29)
        await send_udp(device, RtpSource(ssrc=999).all(video_frames()), shared.port)
        await until(lambda: len(one.pictures) >= 29 + 49)
    assert one.counters.ssrc == 999


async def test_strict_mode_believes_expected_addresses_only(shared: Shared) -> None:
    one = await shared.inlet(ONE, expected=frozenset({"127.0.0.9"}), mode="strict")
    one.update(acknowledged=True)
    packets = RtpSource(ssrc=ONE).all(video_frames())
    with udp_socket() as stranger:
        await send_udp(stranger, packets, shared.port)
        await until(lambda: one.counters.foreign == len(packets))
    assert not one.frames


async def test_tcp_connections_belong_to_the_receiver_that_their_first_packet_names(shared: Shared) -> None:
    one = await shared.inlet(ONE, MediaTransport.TCP_PASSIVE)
    two = await shared.inlet(TWO, MediaTransport.TCP_PASSIVE)
    writers = []
    for ssrc in (TWO, ONE):
        _, writer = await asyncio.open_connection("127.0.0.1", shared.port)
        data = framed_stream(RtpSource(ssrc=ssrc).all(video_frames()))
        writer.write(data[:5])  # not even a header
        await writer.drain()
        writer.write(data[5:])
        await writer.drain()
        writers.append(writer)
    await until(lambda: len(one.pictures) >= 49 and len(two.pictures) >= 49)
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    for inlet in (one, two):
        await inlet.events.wait(EventKind.CONNECTED)
        await inlet.events.wait(EventKind.DISCONNECTED)
        await until(lambda inlet=inlet: len(inlet.pictures) == 50)


async def test_s06_a_connection_that_names_nobody_is_closed(shared: Shared) -> None:
    await shared.inlet(ONE, MediaTransport.TCP_PASSIVE)
    stranger = await TcpPeer.dial(shared.port)
    await asyncio.get_running_loop().sock_sendall(
        stranger.sock, framed_stream(RtpSource(ssrc=4711).all(video_frames()[:2]))
    )
    await until(stranger.drain)
    stranger.close()


async def test_s06_one_host_cannot_hold_all_connections(shared: Shared) -> None:
    one = await shared.inlet(ONE, MediaTransport.TCP_PASSIVE)
    idle = [await TcpPeer.dial(shared.port, source="127.0.0.4") for _ in range(20)]
    await until(lambda: sum(peer.drain() for peer in idle) == 4, what="the end of those over the limit")
    _, writer = await asyncio.open_connection("127.0.0.1", shared.port)
    writer.write(framed_stream(RtpSource(ssrc=ONE).all(video_frames())))
    await writer.drain()
    await until(lambda: len(one.pictures) >= 49)
    writer.close()
    await writer.wait_closed()
    for peer in idle:
        peer.close()


async def test_inv24_a_device_that_was_asked_for_tcp_may_send_udp(shared: Shared) -> None:
    one = await shared.inlet(ONE, MediaTransport.TCP_PASSIVE)
    with udp_socket() as device:
        await send_udp(device, RtpSource(ssrc=ONE).all(video_frames()), shared.port)
        await until(lambda: len(one.pictures) >= 49)


async def test_i3_a_closed_receiver_gets_nothing_and_its_ssrc_is_free_again(shared: Shared) -> None:
    one = await shared.inlet(ONE)
    with pytest.raises(GatewayError) as error:
        await shared.inlet(ONE)
    assert error.value.code == "gb.route.exists"
    with udp_socket() as device:
        packets = RtpSource(ssrc=ONE).all(video_frames())
        await send_udp(device, packets[:30], shared.port)
        await until(lambda: one.counters.packets == 30)
        shared.plane.close_receiver(one.receiver.id)
        shared.plane.close_stream(one.name)
        count = len(one.frames)
        again = await shared.inlet(ONE)
        await send_udp(device, packets[30:], shared.port)
        await until(lambda: again.counters.packets == len(packets) - 30)
        assert len(one.frames) == count


async def test_reports_go_back_from_the_shared_port(shared: Shared) -> None:
    one = await shared.inlet(ONE)
    device = UdpPeer()
    report = rtcp.SenderReport(
        ssrc=ONE, ntp_time=rtcp.ntp_time(1.0), rtp_timestamp=0, packet_count=1, octet_count=1
    )
    for packet in RtpSource(ssrc=ONE).all(video_frames() + video_frames()):
        device.send_rtp(packet, ("127.0.0.1", shared.port))
    await one.events.wait(EventKind.FIRST_PACKET)
    device.send_rtcp(rtcp.build_sender_report(report, "d"), ("127.0.0.1", shared.port + 1))
    await until(lambda: one.counters.rtcp >= 1 and len(device.reports) > 0)
    data, source = device.reports[0]
    assert source == ("127.0.0.1", shared.port + 1)
    blocks = [block for p in rtcp.parse(data) if isinstance(p, rtcp.ReceiverReport) for block in p.blocks]
    assert blocks[0].ssrc == ONE
    device.close()


async def test_talk_goes_out_of_the_shared_port(shared: Shared) -> None:
    one = await shared.inlet(ONE)
    device = UdpPeer()
    shared.plane.create_stream("voice", Events())
    spec = RtpSinkSpec(
        transport=MediaTransport.UDP,
        ssrc=5,
        payload_type=8,
        packing=RtpPacking.ES,
        codec="pcma",
        remote=device.remote,
        through=one.receiver.id,
    )
    made = await shared.plane.add_rtp_sink("voice", spec, Events())
    assert made.port == shared.port
    shared.plane.update_rtp_sink(made.id, RtpSinkUpdate(sending=True))
    for frame in audio_frames():
        shared.plane.push("voice", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=True)
    await until(lambda: len(device.packets) == 100)
    device.close()


async def test_without_a_shared_port_and_with_a_taken_one() -> None:
    plane = make_plane()
    spec = ReceiverSpec(transport=MediaTransport.UDP, host="", port=0, ssrc=ONE, shared=True)
    with pytest.raises(GatewayError) as error:
        await plane.open_receiver(spec, Events())
    assert error.value.code == "gb.media.bind_failed"
    port = free_port_pair()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as other:
        other.bind(("127.0.0.1", port))
        with pytest.raises(OSError):
            await plane.open_shared_port("127.0.0.1", port)
    assert free(port)
    await plane.close()
