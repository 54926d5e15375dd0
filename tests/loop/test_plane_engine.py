"""A media plane over real loopback sockets: packets in, frames and FLV out."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gb28181gw.clock import SystemClock
from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import (
    Container,
    EventKind,
    MediaTransport,
    ReceiverSpec,
    ReceiverUpdate,
    SocketSinkSpec,
)
from gb28181gw.media.ports import PortPool
from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.es_packetiser import EsPacketiser
from gb28181gw.media.wire.ps_mux import PsMuxer
from tests.support.plane import (
    SSRC,
    RtpSource,
    audio_frames,
    framed_stream,
    free_port_pair,
    interleave,
    send_udp,
    shorten_dialling,
    udp_socket,
    until,
    video_frames,
)
from tests.support.rig import Rig, opened_rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with opened_rig() as made:
        yield made


async def test_udp_ps_becomes_frames_with_tracks_and_events(rig: Rig) -> None:
    await rig.open()
    source = RtpSource(muxer=PsMuxer(audio=Codec.PCMA))
    frames = interleave(video_frames(), audio_frames())
    with udp_socket() as device:
        await send_udp(device, source.all(frames), rig.port)
        await until(lambda: len(rig.pictures) >= 49)
        first = await rig.events.wait(EventKind.FIRST_PACKET)
        assert first.peer == f"127.0.0.1:{device.getsockname()[1]}"
    assert (await rig.stream_events.wait(EventKind.KEY_FRAME)).stream_id == "s"
    tracks = rig.plane.tracks("s")
    assert [(t.codec, t.width, t.height, t.sample_rate) for t in tracks] == [
        (Codec.H264, 320, 240, 0),
        (Codec.PCMA, 0, 0, 8000),
    ]
    assert rig.pictures[0].key
    assert [f.payload for f in rig.pictures[:49]] == [f.payload for f in video_frames()[:49]]
    assert [b.dts_90k - a.dts_90k for a, b in zip(rig.pictures, rig.pictures[1:], strict=False)] == [3600] * (
        len(rig.pictures) - 1
    )
    counters = rig.counters
    assert counters.lost == counters.malformed == counters.foreign == 0
    assert counters.key_frames == 2
    assert counters.ssrc == SSRC
    assert counters.bound == f"127.0.0.1:{rig.port}"


async def test_tcp_passive_device_connects(rig: Rig) -> None:
    await rig.open(MediaTransport.TCP_PASSIVE)
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(framed_stream(RtpSource().all(video_frames())))
    await writer.drain()
    await until(lambda: len(rig.pictures) >= 49)
    writer.close()
    await writer.wait_closed()
    await rig.events.wait(EventKind.DISCONNECTED)
    await until(lambda: len(rig.pictures) == 50, what="the last picture, given out at the end")
    assert rig.counters.lost == 0


async def test_tcp_active_gateway_dials_three_times(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_dialling(rig.plane, monkeypatch)
    await rig.open(MediaTransport.TCP_ACTIVE)
    assert rig.receiver.port == 9
    port = free_port_pair()
    rig.plane.update_receiver(rig.receiver.id, ReceiverUpdate(connect=("127.0.0.1", port)))
    failed = await rig.events.wait(EventKind.CONNECT_FAILED)
    assert failed.peer == f"127.0.0.1:{port}"

    async def device(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(framed_stream(RtpSource().all(video_frames())))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(device, "127.0.0.1", port)
    rig.plane.update_receiver(rig.receiver.id, ReceiverUpdate(connect=("127.0.0.1", port)))
    await until(lambda: len(rig.pictures) == 50)
    server.close()
    await server.wait_closed()
    assert (await rig.events.wait(EventKind.CONNECTED)).peer == f"127.0.0.1:{port}"


async def test_tcp_active_does_not_look_names_up(rig: Rig) -> None:
    await rig.open(MediaTransport.TCP_ACTIVE)
    rig.plane.update_receiver(rig.receiver.id, ReceiverUpdate(connect=("camera.local", 5000)))
    assert (await rig.events.wait(EventKind.CONNECT_FAILED)).detail == "not_an_address"


async def test_inv18_dials_while_it_listens(rig: Rig) -> None:
    await rig.open(MediaTransport.TCP_PASSIVE)
    connected = asyncio.Event()

    async def device(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.write(framed_stream(RtpSource().all(video_frames())))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(device, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rig.plane.update_receiver(rig.receiver.id, ReceiverUpdate(connect=("127.0.0.1", port)))
    await asyncio.wait_for(connected.wait(), 5)
    await until(lambda: len(rig.pictures) == 50)
    server.close()
    await server.wait_closed()


async def connected_to(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As soon as somebody listens there."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("offered", [MediaTransport.UDP, MediaTransport.TCP_PASSIVE])
async def test_inv24_device_may_use_the_other_transport(rig: Rig, offered: MediaTransport) -> None:
    await rig.open(offered)
    packets = RtpSource().all(video_frames())
    if offered is MediaTransport.UDP:
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", rig.port)
        rig.plane.update_receiver(rig.receiver.id, ReceiverUpdate(listen=True, acknowledged=True))
        _, writer = await connected_to(rig.port)
        writer.write(framed_stream(packets))
        await writer.drain()
        await until(lambda: len(rig.pictures) >= 49)
        assert rig.counters.ssrc == SSRC
        writer.close()
        await writer.wait_closed()
    else:
        with udp_socket() as device:
            await send_udp(device, packets, rig.port)
            await until(lambda: len(rig.pictures) >= 49)
        assert rig.counters.ssrc == SSRC


async def test_inv19_media_before_the_stream_is_attached_is_kept(rig: Rig) -> None:
    port = free_port_pair()
    spec = ReceiverSpec(transport=MediaTransport.UDP, host="127.0.0.1", port=port, ssrc=SSRC)
    opened = await rig.plane.open_receiver(spec, rig.events)
    with udp_socket() as device:
        await send_udp(device, RtpSource().all(video_frames(count=20)), port)
        await until(lambda: rig.plane.receiver_counters([opened.id])[opened.id].frames >= 19)
    rig.plane.create_stream("s", rig.stream_events)
    rig.plane.attach(opened.id, "s")
    rig.plane.add_frame_sink("s", rig.frames.extend)
    await until(lambda: len(rig.pictures) >= 19)
    assert rig.pictures[0].key


async def test_f14_port_of_another_program_fails_and_leaves_nothing_bound(rig: Rig) -> None:
    port = free_port_pair()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port + 1))
        spec = ReceiverSpec(transport=MediaTransport.UDP, host="127.0.0.1", port=port, ssrc=SSRC)
        with pytest.raises(OSError, match="in use"):
            await rig.plane.open_receiver(spec, rig.events)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", port))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        passive = ReceiverSpec(transport=MediaTransport.TCP_PASSIVE, host="127.0.0.1", port=port, ssrc=SSRC)
        with pytest.raises(OSError, match="in use"):
            await rig.plane.open_receiver(passive, rig.events)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", port))
    assert rig.plane.gauges["receivers"] == 0


async def test_f14_parallel_starts_on_a_small_pool_share_and_leak_nothing(rig: Rig) -> None:
    clock = SystemClock()
    pool = PortPool(47000, 47039, 0.0, clock)
    occupied = []
    for port in range(47001, 47040, 4):
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        occupied.append(other)
        with suppress(OSError):
            other.bind(("127.0.0.1", port))
    live: set[int] = set()
    outcomes: Counter[str] = Counter()

    async def start(number: int) -> None:
        while True:
            try:
                lease = pool.acquire(f"start {number}")
            except GatewayError as error:
                outcomes[error.reason] += 1
                return
            spec = ReceiverSpec(
                transport=MediaTransport.UDP, host="127.0.0.1", port=lease.port, ssrc=number + 1
            )
            try:
                opened = await rig.plane.open_receiver(spec, rig.events)
            except OSError:
                lease.mark_taken()
                continue
            assert lease.port not in live
            live.add(lease.port)
            await asyncio.sleep(0.001)
            live.discard(lease.port)
            rig.plane.close_receiver(opened.id)
            await asyncio.sleep(0)
            lease.release()
            outcomes["opened"] += 1
            return

    for _ in range(5):
        await asyncio.gather(*(start(number) for number in range(100)))
    for other in occupied:
        other.close()
    assert outcomes.total() == 500
    assert outcomes["opened"] >= 5 * 5
    assert outcomes["port_exhausted"] > 0
    assert (pool.in_use, pool.taken + pool.free) == (0, 20)
    assert pool.taken >= 10
    assert rig.plane.gauges["receivers"] == 0


async def test_f09_reordered_and_doubled_packets_are_put_right(rig: Rig) -> None:
    await rig.open()
    packets = RtpSource().all(video_frames())
    randomness = random.Random(5)
    shuffled = [*packets[:4]]
    for start in range(4, len(packets), 4):
        group = packets[start : start + 4]
        randomness.shuffle(group)
        shuffled += group
        if randomness.random() < 0.2:
            shuffled.append(group[0])
    with udp_socket() as device:
        await send_udp(device, shuffled, rig.port)
        await until(lambda: len(rig.pictures) >= 48)
    counters = rig.counters
    assert counters.lost == 0
    assert counters.reordered > 0
    assert counters.duplicated > 0
    assert [f.payload for f in rig.pictures] == [f.payload for f in video_frames()[: len(rig.pictures)]]


@pytest.mark.parametrize("freeze", [False, True])
async def test_med24_loss_costs_the_picture_or_freezes_until_the_next_key_frame(freeze: bool) -> None:
    async with opened_rig(freeze_on_loss=freeze) as rig:
        await rig.open()
        source = RtpSource()
        frames = video_frames(count=75)
        packets = [source.packets(frame) for frame in frames]
        packets[10] = []
        wanted = [*frames[:10], *frames[25 if freeze else 11 :]]
        with udp_socket() as device:
            await send_udp(device, [p for group in packets for p in group], rig.port)
            await until(lambda: len(rig.pictures) >= len(wanted) - 2)
        assert [f.payload for f in rig.pictures] == [f.payload for f in wanted[: len(rig.pictures)]]
        assert rig.counters.lost == len(source.packets(frames[10]))


async def test_med16_declared_audio_that_never_comes_delays_less_than_a_second(rig: Rig) -> None:
    await rig.open()
    viewer = rig.viewer()
    source = RtpSource(muxer=PsMuxer(audio=Codec.PCMA))
    frames = video_frames(count=75)
    with udp_socket() as device:
        await send_udp(device, source.all(frames[:20]), rig.port)
        await until(lambda: rig.counters.frames >= 19)
        assert rig.stream_events.of(EventKind.KEY_FRAME) == []
        await rig.stream_events.wait(EventKind.KEY_FRAME, timeout_s=2)
        await until(lambda: len(viewer.frames) >= 19)
    assert viewer.frames[0].is_key


async def test_med17_audio_that_begins_later_is_added(rig: Rig) -> None:
    await rig.open()
    viewer = rig.viewer()
    source = RtpSource(muxer=PsMuxer(audio=Codec.PCMA))
    silent = RtpSource()
    frames = video_frames(count=75)
    with udp_socket() as device:
        await send_udp(device, silent.all(frames[:30]), rig.port)
        await until(lambda: len(viewer.frames) >= 28)
        assert {tag.kind for tag in viewer.frames} == {9}
        source.rtp.sequence_number = silent.rtp.sequence_number
        later = [f for f in audio_frames(count=75) if f.dts_90k >= frames[30].dts_90k]
        await send_udp(device, source.all(interleave(frames[30:], tuple(later))), rig.port)
        await until(lambda: 8 in {tag.kind for tag in viewer.frames})
    assert [t.codec for t in rig.plane.tracks("s")] == [Codec.H264, Codec.PCMA]
    assert len(rig.stream_events.of(EventKind.TRACKS)) == 2


async def test_med34_second_consumer_begins_with_the_kept_group_at_once(rig: Rig) -> None:
    await rig.open()
    frames = video_frames(count=40)
    with udp_socket() as device:
        await send_udp(device, RtpSource().all(frames), rig.port)
        await until(lambda: len(rig.pictures) >= 39)
        late = rig.viewer()
        await until(lambda: len(late.frames) >= 14, what="the kept group, with nothing being sent")
    assert late.frames[0].is_key
    assert late.frames[0].timestamp_ms == 0
    assert [tag.kind for tag in late.tags[:2]] == [18, 9]
    assert late.tags[1].is_configuration


async def test_i3_viewer_gets_nothing_of_an_earlier_generation(rig: Rig) -> None:
    await rig.open()
    frames = video_frames(count=75)
    with udp_socket() as device:
        await send_udp(device, RtpSource().all(frames[:30]), rig.port)
        await until(lambda: len(rig.pictures) >= 29)
    port = free_port_pair()
    spec = ReceiverSpec(transport=MediaTransport.UDP, host="127.0.0.1", port=port, ssrc=SSRC + 1)
    second = await rig.plane.open_receiver(spec, rig.events)
    rig.plane.attach(second.id, "s")
    between = rig.viewer()
    before = rig.pictures[-1].dts_90k
    seen = len(rig.pictures)
    with udp_socket() as old, udp_socket() as device:
        source = RtpSource(ssrc=SSRC + 1, start_90k=777)
        await send_udp(device, source.all(frames[40:50]), port)
        await send_udp(old, RtpSource(sequence=500).all(frames[:5]), rig.port)
        await until(lambda: rig.plane.receiver_counters([second.id])[second.id].packets >= 10)
        assert len(rig.pictures) == seen, "a generation begins at a key frame"
        assert between.frames == []
        await send_udp(device, source.all(frames[50:]), port)
        await until(lambda: len(rig.pictures) > seen + 20)
        await until(lambda: len(between.frames) > 20)
    assert rig.pictures[seen].payload == frames[50].payload
    assert rig.pictures[seen].dts_90k > before, "output time goes on"
    assert between.frames[0].is_key
    assert len(rig.stream_events.of(EventKind.KEY_FRAME)) == 2


async def test_s06_foreign_source_neither_gets_in_nor_gets_anything(rig: Rig) -> None:
    await rig.open(expected=frozenset({"127.0.0.1"}))
    frames = video_frames(count=50)
    rogue = RtpSource(muxer=PsMuxer())
    noise = rogue.all(video_frames(Codec.H265, count=50))
    with udp_socket() as device, udp_socket("127.0.0.2") as attacker:
        packets = RtpSource().all(frames)
        for packet in packets:
            device.sendto(packet, ("127.0.0.1", rig.port))
            for foreign in noise[:5]:
                attacker.sendto(foreign, ("127.0.0.1", rig.port))
            await asyncio.sleep(0)
        await until(lambda: len(rig.pictures) >= 49)
        assert [f.payload for f in rig.pictures] == [f.payload for f in frames[: len(rig.pictures)]]
        assert rig.counters.foreign >= 5 * len(packets) * 0.9
        assert await rig.events.wait(EventKind.SOURCE_CONFLICT)
        with pytest.raises(BlockingIOError):
            attacker.recv(100)


async def test_s06_strict_ignores_other_hosts_before_the_first_packet(rig: Rig) -> None:
    await rig.open(mode="strict", expected=frozenset({"127.0.0.3"}))
    with udp_socket("127.0.0.2") as attacker:
        await send_udp(attacker, RtpSource().all(video_frames()), rig.port)
        await until(lambda: rig.counters.foreign > 40)
    assert rig.counters.packets == 0
    assert rig.events.of(EventKind.FIRST_PACKET) == []


async def test_inv02_answered_ssrc_is_taken_in_place(rig: Rig) -> None:
    await rig.open(mode="strict")
    rig.plane.update_receiver(rig.receiver.id, ReceiverUpdate(ssrc=4711, acknowledged=True))
    with udp_socket() as device:
        await send_udp(device, RtpSource(ssrc=4711).all(video_frames()), rig.port)
        await until(lambda: len(rig.pictures) >= 49)
    assert rig.counters.ssrc == 4711
    assert rig.events.of(EventKind.SSRC_MISMATCH) == []


async def test_inv03_byte_swapped_ssrc_is_accepted_and_named(rig: Rig) -> None:
    await rig.open()
    swapped = int.from_bytes(SSRC.to_bytes(4, "big"), "little")
    with udp_socket() as device:
        await send_udp(device, RtpSource(ssrc=swapped).all(video_frames()), rig.port)
        await until(lambda: len(rig.pictures) >= 49)
    told = await rig.events.wait(EventKind.SSRC_MISMATCH)
    assert (told.ssrc, told.detail) == (swapped, "accepted: byte_swapped")


async def test_med29_rtcp_first_does_not_latch(rig: Rig) -> None:
    await rig.open()
    report = bytes.fromhex("80c9000100000001")
    with udp_socket() as device:
        for _ in range(5):
            device.sendto(report, ("127.0.0.1", rig.port))
        await until(lambda: rig.counters.rtcp == 5)
        assert rig.counters.source == ""
        await send_udp(device, RtpSource().all(video_frames()), rig.port)
        await until(lambda: len(rig.pictures) >= 49)
    assert rig.counters.ssrc == SSRC


async def test_med31_receiver_reports_reach_the_device_after_fifty_packets(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.open()
    port = free_port_pair()
    packets = RtpSource().all(video_frames())
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp,
    ):
        for sock, number in ((device, port), (rtcp, port + 1)):
            sock.bind(("127.0.0.1", number))
            sock.setblocking(False)
        await send_udp(device, packets[:49], rig.port)
        await until(lambda: rig.counters.packets == 49)
        await asyncio.sleep(0.15)  # two ticks in which nothing may be sent
        for sock in (device, rtcp):
            with pytest.raises(BlockingIOError):
                sock.recv(200)
        await send_udp(device, packets[49:51], rig.port)
        loop = asyncio.get_running_loop()
        at_rtcp = await asyncio.wait_for(loop.sock_recv(rtcp, 200), 5)
        at_rtp = await asyncio.wait_for(loop.sock_recv(device, 200), 5)
        assert at_rtcp == at_rtp
        assert at_rtcp[1] == 201
        assert at_rtcp[8:12] == SSRC.to_bytes(4, "big")
        assert len(at_rtcp) + len(at_rtp) <= 100
        with pytest.raises(BlockingIOError):
            rtcp.recv(200)


async def test_reg18_source_port_moves_and_the_picture_goes_on(rig: Rig) -> None:
    await rig.open()
    frames = video_frames(count=75)
    source = RtpSource()
    with udp_socket() as before, udp_socket() as after:
        await send_udp(before, source.all(frames[:30]), rig.port)
        await until(lambda: len(rig.pictures) >= 29)
        packets = source.all(frames[30:])
        for packet in packets:
            after.sendto(packet, ("127.0.0.1", rig.port))
            await asyncio.sleep(0.012)
        await until(lambda: len(rig.pictures) >= 74)
        switched = await rig.events.wait(EventKind.SOURCE_SWITCHED)
        assert switched.peer == f"127.0.0.1:{after.getsockname()[1]}"
    assert rig.counters.lost == 0
    assert [f.payload for f in rig.pictures[:74]] == [f.payload for f in frames[:74]]


async def test_f06_silence_is_told_once_and_again_after_new_packets(rig: Rig) -> None:
    await rig.open(silence_s=0.2)
    source = RtpSource()
    frames = video_frames(count=75)
    with udp_socket() as device:
        await send_udp(device, source.all(frames[:10]), rig.port)
        await rig.events.wait(EventKind.SILENCE)
        await send_udp(device, source.all(frames[10:20]), rig.port)
        await rig.events.wait(EventKind.SILENCE, count=2)
    assert len(rig.events.of(EventKind.SILENCE)) == 2


async def test_last_picture_does_not_wait_for_the_next_for_long(rig: Rig) -> None:
    await rig.open()
    with udp_socket() as device:
        await send_udp(device, RtpSource().all(video_frames(count=10)), rig.port)
        await until(lambda: len(rig.pictures) == 10)
    assert rig.pictures[-1].payload == video_frames(count=10)[-1].payload


async def test_med18_mpeg_ts_is_named(rig: Rig) -> None:
    await rig.open()
    source = RtpSource()
    with udp_socket() as device:
        for number in range(10):
            packets = source.rtp.packetise((b"\x47" + bytes(187)) * 7, number * 3600)
            await send_udp(device, packets, rig.port)
        await until(lambda: "rtp.mpeg_ts" in {e.detail for e in rig.events.of(EventKind.QUIRK)})
    assert rig.frames == []
    assert rig.counters.demux_errors >= 8


async def test_med18_raw_h264_under_96_is_played(rig: Rig) -> None:
    await rig.open()
    source = RtpSource()
    with udp_socket() as device:
        for number, frame in enumerate(video_frames()):
            units = [unit for unit in frame.payload.split(b"\0\0\0\1") if unit]
            for index, unit in enumerate(units):
                for packet in source.rtp.packetise(
                    unit.rstrip(b"\0"), frame.pts_90k, marker=index == len(units) - 1
                ):
                    device.sendto(packet, ("127.0.0.1", rig.port))
            if number % 5 == 0:
                await asyncio.sleep(0.001)
        await until(lambda: len(rig.pictures) >= 49)
        assert "rtp.es_under_ps" in {e.detail for e in rig.events.of(EventKind.QUIRK)}


@pytest.mark.parametrize("encoding", ["PS", "H264"])
@pytest.mark.parametrize("early", [True, False], ids=["before", "meanwhile"])
async def test_med35_parameter_sets_of_the_sdp_are_used(rig: Rig, encoding: str, early: bool) -> None:
    """They stand in an answer only; packets may come before it."""
    number = 96 if encoding == "PS" else 98
    await rig.open(payloads={number: encoding})
    frames = video_frames()
    bare = [
        replace(
            frame,
            payload=nal.join_annexb(
                [unit for unit in nal.split_annexb(frame.payload) if unit[0] & 0x1F not in (7, 8)]
            ),
        )
        for frame in frames
    ]
    sets = tuple(unit for unit in nal.split_annexb(frames[0].payload) if unit[0] & 0x1F in (7, 8))
    update = ReceiverUpdate(parameter_sets=sets, acknowledged=True)
    if encoding == "PS":
        packets = RtpSource().all(bare)
    else:
        packetiser = EsPacketiser(Codec.H264, ssrc=SSRC, payload_type=number)
        packets = [packet for frame in bare for packet in packetiser.packetise(frame)]
    with udp_socket() as device:
        if early:
            rig.plane.update_receiver(rig.receiver.id, update)
        else:
            await send_udp(device, packets[:12], rig.port)
            await rig.events.wait(EventKind.FIRST_PACKET)
            rig.plane.update_receiver(rig.receiver.id, update)
            packets = packets[12:]
        await send_udp(device, packets, rig.port)
        await until(lambda: len(rig.pictures) >= 20)
    (track,) = rig.plane.tracks("s")
    assert (track.codec, track.parameter_sets) == (Codec.H264, sets)


async def test_i8_random_bytes_end_nothing(rig: Rig) -> None:
    await rig.open()
    randomness = random.Random(13)
    with udp_socket() as device:
        for index in range(2000):
            junk = randomness.randbytes(randomness.randrange(0, 200))
            if index % 2 and len(junk) > 12:
                junk = b"\x80\x60" + junk[2:8] + SSRC.to_bytes(4, "big") + junk[12:]
            device.sendto(junk, ("127.0.0.1", rig.port))
            if index % 50 == 0:
                await asyncio.sleep(0.001)
    rig.plane.update_receiver(rig.receiver.id, ReceiverUpdate(listen=True))
    _, writer = await connected_to(rig.port)
    writer.write(randomness.randbytes(600_000))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    with udp_socket() as device:
        source = RtpSource(sequence=100)
        for _ in range(3):
            await send_udp(device, source.all(video_frames()), rig.port)
        await until(lambda: len(rig.pictures) >= 49)


async def test_i2_open_and_close_leave_nothing_behind(rig: Rig) -> None:
    packets = RtpSource().all(video_frames(count=5))

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def cycle(index: int) -> None:
        transport = list(MediaTransport)[index % 3]
        port = free_port_pair()
        spec = ReceiverSpec(transport=transport, host="127.0.0.1", port=port, ssrc=SSRC)
        opened = await rig.plane.open_receiver(spec, rig.events)
        rig.plane.create_stream(f"s{index}", rig.stream_events)
        rig.plane.attach(opened.id, f"s{index}")
        ours, theirs = socket.socketpair()
        rig.plane.add_socket_sink(
            f"s{index}", ours.detach(), SocketSinkSpec(container=Container.FLV), rig.events
        )
        with udp_socket() as device:
            await send_udp(device, packets, port)
        if index % 3 == 0:
            theirs.close()
            await asyncio.sleep(0)
        for _ in range(2):
            rig.plane.close_receiver(opened.id)
            rig.plane.close_stream(f"s{index}")
        theirs.close()

    await cycle(1)  # TCP: libuv opens a spare descriptor with the first listener
    await until(lambda: len(rig.events.of(EventKind.SINK_CLOSED)) == 1)
    gc.collect()
    fds, tasks = descriptors(), len(asyncio.all_tasks())
    for index in range(200):
        await cycle(index)
    await until(lambda: descriptors() == fds, what="descriptors back at the baseline")
    await until(lambda: len(asyncio.all_tasks()) == tasks, what="tasks back at the baseline")
    assert rig.plane.gauges == {"receivers": 0, "streams": 0, "sinks": 0}
    await until(lambda: len(rig.events.of(EventKind.SINK_CLOSED)) == 201)


async def test_unknown_ids_are_refused_or_ignored(rig: Rig) -> None:
    rig.plane.update_receiver(99, ReceiverUpdate(ssrc=1))
    rig.plane.close_receiver(99)
    rig.plane.close_sink(99)
    rig.plane.close_stream("none")
    assert rig.plane.tracks("none") == ()
    assert rig.plane.receiver_counters([99]) == {}
    assert rig.plane.stream_counters(["none"]) == {}
    with pytest.raises(GatewayError, match="ended"):
        rig.plane.add_frame_sink("none", rig.frames.extend)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for container in Container:
            spec = SocketSinkSpec(container=container)
            with pytest.raises(GatewayError) as error:
                rig.plane.add_socket_sink("none", ours.fileno(), spec, rig.events)
            assert error.value.code == "gb.route.stream_unknown"
    rig.plane.create_stream("twice", rig.stream_events)
    with pytest.raises(ValueError, match="exists"):
        rig.plane.create_stream("twice", rig.stream_events)
