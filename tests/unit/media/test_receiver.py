"""What all receivers share, without sockets: time is the loop's, packets are handed in."""

from __future__ import annotations

import asyncio

from gb28181gw.media.engine import EventKind, MediaTransport, ReceiverSpec, ReceiverUpdate
from gb28181gw.media.reference.receiver import ReceiverCore
from gb28181gw.media.reference.source import Verdict, address
from gb28181gw.media.reference.stream import Stream
from gb28181gw.media.wire.rtcp import ReceiverReport, SenderReport, parse
from tests.support.plane import SSRC, Events, RtpSource, video_frames

DEVICE = ("10.0.0.7", 30000)


def core(**changes: object) -> tuple[ReceiverCore, Events]:
    events = Events()
    spec = ReceiverSpec(
        transport=MediaTransport.UDP,
        host="127.0.0.1",
        port=40000,
        ssrc=SSRC,
        expected_hosts=frozenset({"10.0.0.7"}),
        **changes,  # type: ignore[arg-type]
    )
    return ReceiverCore(1, spec, events, asyncio.get_running_loop()), events


async def test_counts_what_is_not_rtp() -> None:
    receiver, _ = core()
    for junk in (b"", b"\x80", b"hello world, no RTP", b"\x80\x60" + bytes(6)):
        assert receiver.packet(junk, DEVICE) is Verdict.DROP
    assert receiver.counters().malformed == 4


async def test_loss_is_counted_and_late_packets_are_taken_off() -> None:
    receiver, _ = core()
    packets = RtpSource().all(video_frames())
    now = asyncio.get_running_loop().time()
    for packet in [*packets[:10], *packets[13:40]]:
        receiver.packet(packet, DEVICE)
    receiver.tick(now + 1)
    assert receiver.counters().lost == 3
    receiver.packet(packets[11], DEVICE)
    counters = receiver.counters()
    assert (counters.lost, counters.late) == (2, 1)


async def test_tcp_counts_a_missing_number_at_once() -> None:
    receiver, _ = core()
    packets = RtpSource().all(video_frames())
    for packet in [*packets[:10], *packets[12:40]]:
        receiver.packet(packet, (*DEVICE, 1))
    assert receiver.counters().lost == 2


async def test_bitrate_is_of_the_last_second() -> None:
    receiver, _ = core()
    packets = RtpSource().all(video_frames())
    start = asyncio.get_running_loop().time()
    for packet in packets:
        receiver.packet(packet, DEVICE)
    receiver.tick(start + 2)
    size = sum(len(packet) for packet in packets)
    assert 0.8 * size * 4 / 1000 < receiver.counters().bitrate_kbps < 1.2 * size * 4 / 1000
    receiver.tick(start + 4)
    assert receiver.counters().bitrate_kbps == 0


async def test_med31_report_is_due_after_fifty_packets_and_every_five_seconds() -> None:
    receiver, _ = core()
    packets = RtpSource().all(video_frames(count=75))
    now = asyncio.get_running_loop().time()
    for packet in packets[:49]:
        receiver.packet(packet, DEVICE)
    assert receiver.due_report(now) is None
    receiver.packet(packets[49], DEVICE)
    report = receiver.due_report(now)
    assert report is not None
    assert len(report) <= 50, "two of them stay within the 100 bytes of S-06"
    read = parse(report)[0]
    assert isinstance(read, ReceiverReport)
    assert read.blocks[0].ssrc == SSRC
    assert read.blocks[0].cumulative_lost == 0
    assert receiver.due_report(now + 4.9) is None
    assert receiver.due_report(now + 5) is not None
    assert receiver.due_report(now + 60) is None, "a silent source gets nothing"


async def test_sender_report_of_the_latched_host_is_answered() -> None:
    from gb28181gw.media.wire.rtcp import build_sender_report

    receiver, _ = core()
    report = build_sender_report(
        SenderReport(ssrc=SSRC, ntp_time=1 << 40, rtp_timestamp=0, packet_count=1, octet_count=1), "d"
    )
    receiver.rtcp_packet(report, (DEVICE[0], 30001))
    assert receiver.rtcp_peer is None, "nobody is latched yet"
    for packet in RtpSource().all(video_frames()):
        receiver.packet(packet, DEVICE)
    receiver.rtcp_packet(report, ("10.9.9.9", 30001))
    assert receiver.rtcp_peer is None
    receiver.rtcp_packet(report, (DEVICE[0], 30001))
    assert receiver.rtcp_peer == (DEVICE[0], 30001)
    due = receiver.due_report(asyncio.get_running_loop().time())
    assert due is not None
    read = parse(due)[0]
    assert isinstance(read, ReceiverReport)
    assert read.blocks[0].last_sender_report == (1 << 40 >> 16) & 0xFFFFFFFF
    receiver.rtcp_packet(b"\x80\xc8\x00\xff", (DEVICE[0], 30001))
    assert receiver.counters().malformed == 1


async def test_med23_new_epoch_is_a_new_generation_and_keeps_the_sums() -> None:
    receiver, events = core()
    stream_events = Events()
    stream = Stream("s", asyncio.get_running_loop(), stream_events)
    receiver.attach(stream.begin_generation)
    frames = video_frames()
    first = RtpSource().all(frames)
    for packet in [*first[:5], *first[6:]]:
        receiver.packet(packet, DEVICE)
    receiver.tick(asyncio.get_running_loop().time() + 1)
    generation = stream.generation
    for packet in RtpSource(ssrc=SSRC + 5, sequence=30000).all(frames):
        receiver.packet(packet, DEVICE)
    await asyncio.sleep(0)
    assert stream.generation == generation + 1
    assert receiver.counters().lost == 1
    assert receiver.counters().ssrc == SSRC + 5
    assert len(events.of(EventKind.FIRST_PACKET)) == 1
    assert [e.detail for e in events.of(EventKind.SSRC_MISMATCH)] == ["accepted: other"]
    assert len(stream_events.of(EventKind.KEY_FRAME)) == 2


async def test_ssrc_of_a_stranger_is_told_as_not_accepted_once() -> None:
    receiver, events = core()
    for packet in RtpSource(ssrc=77).all(video_frames()):
        assert receiver.packet(packet, ("10.0.0.66", 5)) is Verdict.DROP
    await asyncio.sleep(0)
    told = events.of(EventKind.SSRC_MISMATCH)
    assert [(e.ssrc, e.detail) for e in told] == [(77, "not accepted: other")]


async def test_update_is_applied_in_place() -> None:
    receiver, _ = core(source_mode="strict")
    now = asyncio.get_running_loop().time()
    receiver.update(ReceiverUpdate(ssrc=5, payloads={100: "PS"}, expected_hosts=frozenset({"10.0.0.8"})), now)
    packets = RtpSource(ssrc=5, payload_type=100).all(video_frames())
    assert receiver.packet(packets[0], DEVICE) is Verdict.DROP
    receiver.packet(packets[1], ("10.0.0.8", 9))
    assert receiver.packet(packets[2], ("10.0.0.8", 9)) is Verdict.LATCHED
    assert receiver.counters().source == "10.0.0.8:9"


async def test_closed_receiver_tells_nothing() -> None:
    receiver, events = core()
    for packet in RtpSource().all(video_frames(count=3)):
        receiver.packet(packet, DEVICE)
    receiver.close()
    await asyncio.sleep(0)
    assert events.all == []


async def test_i10_units_before_a_stream_are_bounded() -> None:
    receiver, _ = core()
    source = RtpSource()
    frames = video_frames()
    for packet in source.all(frames[:25]):
        receiver.packet(packet, DEVICE)
    for _ in range(70):
        for packet in source.all(frames[1:25]):
            receiver.packet(packet, DEVICE)
    assert len(receiver._pending) <= 1500


def test_addresses_are_written_as_people_read_them() -> None:
    assert address(("10.0.0.1", 5)) == "10.0.0.1:5"
    assert address(("2001:db8::1", 5, 7)) == "[2001:db8::1]:5"
