"""RTP sinks of a media plane: what is forwarded as it is, what is muxed, and what becomes of slow peers."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections.abc import AsyncIterator
from contextlib import closing, suppress

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import (
    EventKind,
    Feature,
    MediaTransport,
    ReceiverUpdate,
    RtpPacking,
    RtpSink,
    RtpSinkSpec,
    RtpSinkUpdate,
)
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import rtcp
from gb28181gw.media.wire.es_depacketiser import (
    AacDepacketiser,
    AudioDepacketiser,
    EsDepacketiser,
    H264Depacketiser,
    H265Depacketiser,
)
from gb28181gw.media.wire.es_packetiser import EsPacketiser
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.ps_mux import PsMuxer
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.media.wire.units import EsUnit
from tests.support.plane import (
    SSRC,
    Events,
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
from tests.support.rtp_peer import TcpPeer, UdpPeer

NEEDS = Feature.RTP_SINKS
OUR_SSRC = 100000077
AAC_TRACK = Track(
    kind=TrackKind.AUDIO, codec=Codec.AAC, sample_rate=16000, channels=1, parameter_sets=(b"\x14\x08",)
)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with opened_rig() as made:
        yield made


@pytest.fixture
async def peer() -> AsyncIterator[UdpPeer]:
    made = UdpPeer()
    yield made
    made.close()


class Sending:
    """A sink of the rig's stream, with its events."""

    def __init__(self, rig: Rig, sink: RtpSink, events: Events) -> None:
        self.rig, self.sink, self.events = rig, sink, events

    @property
    def counters(self):  # type: ignore[no-untyped-def]
        return self.rig.plane.rtp_sink_counters([self.sink.id])[self.sink.id]

    def update(self, **changes: object) -> None:
        self.rig.plane.update_rtp_sink(self.sink.id, RtpSinkUpdate(**changes))  # type: ignore[arg-type]


async def sink(
    rig: Rig, remote: tuple[str, int] | None = None, *, start: bool = True, **changes: object
) -> Sending:
    facts: dict[str, object] = {
        "transport": MediaTransport.UDP,
        "host": "127.0.0.1",
        "port": 0 if changes.get("transport") is MediaTransport.TCP_ACTIVE else free_port_pair(),
        "ssrc": OUR_SSRC,
        "payload_type": 97,
        "remote": remote,
    }
    events = Events()
    made = await rig.plane.add_rtp_sink("s", RtpSinkSpec(**(facts | changes)), events)  # type: ignore[arg-type]
    sending = Sending(rig, made, events)
    if start:
        sending.update(sending=True)
    return sending


def payload_of(packets: list[bytes]) -> bytes:
    return b"".join(RtpPacket.parse(packet).payload for packet in packets)


def push(rig: Rig, frames: list[Frame] | tuple[Frame, ...]) -> None:
    for frame in frames:
        rig.plane.push("s", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=frame.key)


def depacketised(reader: EsDepacketiser | PsDemuxer, packets: list[RtpPacket]) -> list[EsUnit]:
    units: list[EsUnit] = []
    for packet in packets:
        units += reader.feed(packet.payload, packet.timestamp, packet.marker)
    return units + reader.flush()


# -- program streams as they are


async def test_raw_ps_passes_with_nothing_but_ssrc_number_and_payload_type_changed(
    rig: Rig, peer: UdpPeer
) -> None:
    await rig.open(frames=False)
    sending = await sink(rig, peer.remote)
    sent = RtpSource(muxer=PsMuxer(audio=Codec.PCMA)).all(interleave(video_frames(), audio_frames()))
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len(peer.packets) == len(sent))
    got = peer.packets
    given = [RtpPacket.parse(packet) for packet in sent]
    assert peer.payload == payload_of(sent)
    assert [(p.timestamp, p.marker) for p in got] == [(p.timestamp, p.marker) for p in given]
    assert {(p.ssrc, p.payload_type) for p in got} == {(OUR_SSRC, 97)}
    first = got[0].sequence_number
    assert [p.sequence_number for p in got] == [(first + n) & 0xFFFF for n in range(len(got))]
    counters = sending.counters
    assert (counters.packets, counters.dropped, counters.passthrough) == (len(sent), 0, True)
    assert counters.bytes == sum(map(len, sent))
    assert counters.remote == f"127.0.0.1:{peer.port}"
    assert rig.plane.stream_counters(["s"])["s"].bytes_out == counters.bytes


async def test_raw_keeps_the_sources_gaps_as_wide_as_they_were(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    await sink(rig, peer.remote)
    sent = RtpSource().all(video_frames())
    kept = sent[:30] + sent[33:]
    with udp_socket() as device:
        await send_udp(device, kept, rig.port)
        await until(lambda: len(peer.packets) == len(kept))
    numbers = [packet.sequence_number for packet in peer.packets]
    steps = [(b - a) & 0xFFFF for a, b in itertools.pairwise(numbers)]
    assert [step for step in steps if step != 1] == [4]
    assert steps.index(4) == 29


async def test_raw_keeps_header_extensions(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    await sink(rig, peer.remote)
    given = [
        RtpPacket.parse(packet)._replace(extension_profile=0xBEDE, extension=b"\x10\xaa\0\0")
        for packet in RtpSource().all(video_frames())
    ]
    with udp_socket() as device:
        await send_udp(device, [packet.serialise() for packet in given], rig.port)
        await until(lambda: len(peer.packets) == len(given))
    assert [p.extension for p in peer.packets] == [p.extension for p in given]
    assert peer.payload == b"".join(packet.payload for packet in given)


async def test_raw_begins_with_the_kept_key_frame(rig: Rig, peer: UdpPeer) -> None:
    await rig.open()
    source = RtpSource()
    first = source.all(video_frames()[:25])
    second = source.all(video_frames()[25:40])
    rest = source.all(video_frames()[40:])
    with udp_socket() as device:
        await send_udp(device, first + second, rig.port)
        await until(lambda: len(rig.pictures) >= 39)
        await sink(rig, peer.remote)
        await until(lambda: len(peer.packets) == len(second))
        await send_udp(device, rest, rig.port)
        await until(lambda: len(peer.packets) == len(second + rest))
    assert peer.payload == payload_of(second + rest)


async def test_nothing_is_sent_before_sending_and_the_ports_are_held(rig: Rig, peer: UdpPeer) -> None:
    await rig.open()
    sending = await sink(rig, peer.remote, start=False)
    for port in (sending.sink.port, sending.sink.port + 1):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other, pytest.raises(OSError):
            other.bind(("127.0.0.1", port))
    sent = RtpSource().all(video_frames())
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len(rig.pictures) >= 49)
        assert not peer.datagrams
        sending.update(sending=True)
        await until(lambda: len(peer.packets) > 0)
    assert peer.payload.startswith(b"\x00\x00\x01\xba")
    rig.plane.close_sink(sending.sink.id)
    assert (await sending.events.wait(EventKind.SINK_CLOSED)).detail == "closed"
    await until(lambda: _is_free(sending.sink.port))


def _is_free(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def test_paused_and_resumed_at_a_key_frame(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    sending = await sink(rig, peer.remote)
    source = RtpSource()
    first, second = source.all(video_frames()[:30]), source.all(video_frames()[30:])
    with udp_socket() as device:
        await send_udp(device, first, rig.port)
        await until(lambda: len(peer.packets) == len(first))
        sending.update(sending=False)
        await send_udp(device, second, rig.port)
        await until(lambda: rig.counters.packets == len(first + second))
        assert len(peer.packets) == len(first)
        peer.datagrams.clear()
        sending.update(sending=True, ssrc=5, payload_type=98)
        await until(lambda: len(peer.packets) > 0)
    assert peer.payload.startswith(b"\x00\x00\x01\xba")
    assert {(p.ssrc, p.payload_type) for p in peer.packets} == {(5, 98)}


async def test_a_taken_port_and_an_ended_stream_are_told(rig: Rig) -> None:
    await rig.open()
    with pytest.raises(OSError):
        await sink(rig, port=rig.port)
    spec = RtpSinkSpec(transport=MediaTransport.UDP, host="127.0.0.1", port=0, ssrc=1)
    with pytest.raises(GatewayError, match="gone"):
        await rig.plane.add_rtp_sink("gone", spec, Events())
    with pytest.raises(GatewayError) as error:
        await sink(rig, packing=RtpPacking.ES, codec="g729")
    assert error.value.code == "gb.codec.codec_unsupported"
    assert rig.plane.rtp_sink_counters([12345]) == {}


# -- demuxing only for who needs it


async def test_a_stream_with_raw_sinks_only_is_not_demuxed(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    await sink(rig, peer.remote)
    source = RtpSource(muxer=PsMuxer(audio=Codec.PCMA))
    frames = interleave(video_frames(), audio_frames())
    head, tail = source.all(frames[:60]), source.all(frames[60:])
    with udp_socket() as device:
        await send_udp(device, head, rig.port)
        await rig.stream_events.wait(EventKind.KEY_FRAME)
        await until(lambda: len(peer.packets) == len(head))
        before = rig.plane.stream_counters(["s"])["s"].demuxed
        assert 0 < before < len(head)
        await send_udp(device, tail, rig.port)
        await until(lambda: len(peer.packets) == len(head + tail))
        assert rig.plane.stream_counters(["s"])["s"].demuxed == before
        assert rig.counters.key_frames == 2
        assert [track.codec for track in rig.plane.tracks("s")] == [Codec.H264, Codec.PCMA]
        # A consumer of frames gets the kept group, as if it had been demuxed all the time.
        rig.plane.add_frame_sink("s", rig.frames.extend)
        await until(lambda: len(rig.pictures) >= 24)
        assert rig.pictures[0].key
        assert [f.payload for f in rig.pictures[:24]] == [f.payload for f in video_frames()[25:49]]
        assert [b.dts_90k - a.dts_90k for a, b in zip(rig.pictures, rig.pictures[1:], strict=False)] == [
            3600
        ] * (len(rig.pictures) - 1)
        assert rig.plane.stream_counters(["s"])["s"].demuxed > before
    assert peer.payload == payload_of(head + tail)


async def test_a_viewer_wakes_the_demuxer_and_its_end_lets_it_rest(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    await sink(rig, peer.remote)
    source = RtpSource()

    def demuxed() -> int:
        return rig.plane.stream_counters(["s"])["s"].demuxed

    with udp_socket() as device:
        one = source.all(video_frames())
        source.start_90k += 50 * 3600
        await send_udp(device, one, rig.port)
        await until(lambda: len(peer.packets) == len(one))
        resting = demuxed()
        reader = rig.viewer()
        await until(lambda: len(reader.frames) >= 24)
        assert reader.frames[0].is_key
        assert demuxed() > resting
        reader.sock.shutdown(socket.SHUT_RDWR)
        await rig.events_of_viewer.wait(EventKind.SINK_CLOSED)
        two = source.all(video_frames())
        await send_udp(device, two[:-1], rig.port)
        await until(lambda: len(peer.packets) == len(one + two) - 1)
        resting = demuxed()
        await send_udp(device, two[-1:], rig.port)
        await until(lambda: len(peer.packets) == len(one + two))
        assert demuxed() == resting


async def test_med36_other_parameters_are_noticed_by_a_stream_that_is_not_demuxed(
    rig: Rig, peer: UdpPeer
) -> None:
    await rig.open(frames=False)
    await sink(rig, peer.remote)
    source = RtpSource()
    sent = source.all(video_frames())
    source.start_90k += 50 * 3600
    changed = source.all(video_frames(width=640, height=480))
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len(peer.packets) == len(sent))
        await send_udp(device, changed, rig.port)
        await until(lambda: len(peer.packets) == len(sent + changed))
        await until(lambda: [track.width for track in rig.plane.tracks("s")] == [640])
    assert [event.tracks[0].width for event in rig.stream_events.of(EventKind.TRACKS)] == [320, 640]
    assert rig.plane.stream_counters(["s"])["s"].demuxed < len(sent + changed) - 10
    assert peer.payload == payload_of(sent + changed)


async def test_silence_is_told_of_a_stream_that_is_not_demuxed(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False, silence_s=0.3)
    await sink(rig, peer.remote)
    sent = RtpSource().all(video_frames())
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await rig.events.wait(EventKind.SILENCE)


async def test_a_new_epoch_begins_at_its_key_frame(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    await sink(rig, peer.remote)
    one = RtpSource().all(video_frames()[:30])
    later = RtpSource(sequence=30000, start_90k=9_000_000).all(video_frames()[10:])
    key = RtpSource().all(video_frames()[10:25])
    with udp_socket() as device:
        await send_udp(device, one, rig.port)
        await until(lambda: len(peer.packets) == len(one))
        await send_udp(device, later, rig.port)
        await until(lambda: len(peer.packets) == len(one + later) - len(key))
    got = peer.packets
    assert peer.payload == payload_of(one) + payload_of(later[len(key) :])
    step = (got[len(one)].sequence_number - got[len(one) - 1].sequence_number) & 0xFFFF
    assert step == 2  # what follows does not join what was


# -- made here


async def test_pushed_frames_are_muxed_to_ps(rig: Rig, peer: UdpPeer) -> None:
    await rig.open()
    sending = await sink(rig, peer.remote)
    frames = interleave(video_frames(), audio_frames())
    push(rig, frames)
    await until(lambda: b"".join(f.payload for f in audio_frames()[-1:]) in peer.payload[-2000:])
    packets = peer.packets
    assert all(len(packet.payload) <= 1400 for packet in packets)
    assert sum(packet.marker for packet in packets) == len({packet.timestamp for packet in packets}) * 2
    units = depacketised(PsDemuxer(), packets)
    pictures = [unit.payload for unit in units if unit.kind is TrackKind.VIDEO]
    assert pictures == [frame.payload for frame in video_frames()]
    assert b"".join(u.payload for u in units if u.kind is TrackKind.AUDIO) == b"".join(
        frame.payload for frame in audio_frames()
    )
    assert not sending.counters.passthrough


async def test_video_alone_of_a_ps_source_is_muxed_anew(rig: Rig, peer: UdpPeer) -> None:
    await rig.open()
    await sink(rig, peer.remote, audio=False)
    source = RtpSource(muxer=PsMuxer(audio=Codec.PCMA))
    with udp_socket() as device:
        await send_udp(device, source.all(interleave(video_frames(), audio_frames())), rig.port)
        await until(lambda: len({packet.timestamp for packet in peer.packets}) >= 49)
    units = depacketised(PsDemuxer(), peer.packets)
    assert {unit.codec for unit in units} == {Codec.H264}
    assert [unit.payload for unit in units][:49] == [frame.payload for frame in video_frames()][:49]


async def test_med18_an_elementary_stream_under_the_type_of_ps_is_muxed(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    await sink(rig, peer.remote)
    es = EsPacketiser(Codec.H264, ssrc=SSRC, payload_type=96)
    sent = [packet for frame in video_frames() for packet in es.packetise(frame)]
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len({packet.timestamp for packet in peer.packets}) >= 49)
    units = depacketised(PsDemuxer(), peer.packets)
    assert [unit.payload for unit in units][:49] == [frame.payload for frame in video_frames()][:49]


async def test_a_source_whose_key_frames_do_not_show_in_its_packets_is_muxed(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    await sink(rig, peer.remote)
    stream = b"".join(PsMuxer().mux(frame) for frame in video_frames(count=100))
    # Each pack header is torn between two packets.
    places = [0]
    while (place := stream.find(b"\x00\x00\x01\xba", places[-1])) >= 0:
        places.append(place + 2)
    places.append(len(stream))
    pieces = [
        stream[a:b][at : at + 1400] for a, b in itertools.pairwise(places) for at in range(0, b - a, 1400)
    ]
    sent = [
        RtpPacket(96, number & 0xFFFF, number * 900, SSRC, piece).serialise()
        for number, piece in enumerate(pieces)
        if piece
    ]
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len({packet.timestamp for packet in peer.packets}) >= 49)
    units = depacketised(PsDemuxer(), peer.packets)
    assert units[0].key
    assert {unit.payload for unit in units[:49]} <= {frame.payload for frame in video_frames(count=100)}


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
async def test_es_video(rig: Rig, peer: UdpPeer, codec: Codec) -> None:
    await rig.open()
    await sink(rig, peer.remote, packing=RtpPacking.ES, codec=codec.value)
    frames = video_frames(codec)
    push(rig, interleave(frames, audio_frames()))
    await until(lambda: len({packet.timestamp for packet in peer.packets}) == 50)
    packets = peer.packets
    assert all(len(packet.payload) <= 1400 for packet in packets)
    assert sum(packet.marker for packet in packets) == 50
    reader = H264Depacketiser(97) if codec is Codec.H264 else H265Depacketiser(97)
    assert [unit.payload for unit in depacketised(reader, packets)] == [frame.payload for frame in frames]


async def test_es_pcma_is_twenty_ms_a_packet(rig: Rig, peer: UdpPeer) -> None:
    await rig.open()
    await sink(rig, peer.remote, packing=RtpPacking.ES, codec="pcma", payload_type=8)
    push(rig, audio_frames())
    await until(lambda: len(peer.packets) == 100)
    packets = peer.packets
    assert {(len(packet.payload), packet.payload_type) for packet in packets} == {(160, 8)}
    assert [(b.timestamp - a.timestamp) for a, b in itertools.pairwise(packets)] == [160] * 99
    assert [packet.marker for packet in packets] == [True] + [False] * 99
    units = depacketised(AudioDepacketiser(8, Codec.PCMA), packets)
    assert b"".join(unit.payload for unit in units) == b"".join(frame.payload for frame in audio_frames())


async def test_es_aac(rig: Rig, peer: UdpPeer) -> None:
    await rig.open()
    await sink(rig, peer.remote, packing=RtpPacking.ES, codec="aac")
    units = [bytes([n]) * (200 if n else 3000) for n in range(10)]
    push(
        rig,
        [
            Frame(track=AAC_TRACK, pts_90k=n * 5760, dts_90k=n * 5760, key=True, payload=data)
            for n, data in enumerate(units)
        ],
    )
    await until(lambda: len({packet.timestamp for packet in peer.packets}) == 10)
    timestamps = sorted({packet.timestamp for packet in peer.packets})
    assert timestamps == [n * 1024 for n in range(10)]
    got = depacketised(AacDepacketiser(97, config=b"\x14\x08"), peer.packets)
    assert [unit.payload for unit in got] == units


# -- TCP


async def test_tcp_passive_peer_connects(rig: Rig) -> None:
    await rig.open(frames=False)
    sending = await sink(rig, transport=MediaTransport.TCP_PASSIVE, expected_hosts=frozenset({"127.0.0.1"}))
    stranger = await TcpPeer.dial(sending.sink.port, source="127.0.0.2")
    await until(lambda: stranger.ended, what="the end of a connection from elsewhere (S-11)")
    stranger.close()
    platform = await TcpPeer.dial(sending.sink.port)
    await sending.events.wait(EventKind.CONNECTED)
    sent = RtpSource().all(video_frames())
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len(platform.packets) == len(sent))
    assert platform.payload == payload_of(sent)
    second = await TcpPeer.dial(sending.sink.port)
    await until(lambda: second.ended, what="the end of a second connection")
    second.close()
    platform.close()
    assert (await sending.events.wait(EventKind.SINK_CLOSED)).detail == "viewer_gone"


async def test_tcp_active_dials_when_it_shall_send(rig: Rig) -> None:
    await rig.open(frames=False)
    accepted: list[TcpPeer] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        sending = await sink(
            rig, ("127.0.0.1", port), transport=MediaTransport.TCP_ACTIVE, start=False, host="127.0.0.1"
        )
        assert sending.sink.port == 9
        loop = asyncio.get_running_loop()
        accepting = asyncio.ensure_future(loop.sock_accept(server))
        sending.update(sending=True)
        accepted.append(TcpPeer((await accepting)[0]))
    await sending.events.wait(EventKind.CONNECTED)
    sent = RtpSource().all(video_frames())
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len(accepted[0].packets) == len(sent))
    assert accepted[0].payload == payload_of(sent)
    rig.plane.close_stream("s")
    await until(lambda: accepted[0].ended)
    accepted[0].close()
    assert (await sending.events.wait(EventKind.SINK_CLOSED)).detail == "stream_closed"


async def test_tcp_active_refused_ends_the_sink(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_dialling(rig.plane, monkeypatch)
    await rig.open()
    sending = await sink(
        rig, ("127.0.0.1", free_port_pair()), transport=MediaTransport.TCP_ACTIVE, host="127.0.0.1"
    )
    await sending.events.wait(EventKind.CONNECT_FAILED)
    assert (await sending.events.wait(EventKind.SINK_CLOSED)).detail == "viewer_gone"


async def test_names_are_not_looked_up(rig: Rig) -> None:
    await rig.open()
    sending = await sink(rig, ("platform.local", 5000))
    assert (await sending.events.wait(EventKind.CONNECT_FAILED)).detail == "not_an_address"
    assert (await sending.events.wait(EventKind.SINK_CLOSED)).detail == "viewer_gone"


# -- peers that are slow, gone or silent


async def test_f10_slow_peer_skips_to_a_key_frame_and_then_is_dropped(rig: Rig) -> None:
    await rig.open(frames=False)
    sending = await sink(rig, transport=MediaTransport.TCP_PASSIVE, queue_bytes=64 * 1024, stall_s=1.0)
    platform = await TcpPeer.dial(sending.sink.port)
    await sending.events.wait(EventKind.CONNECTED)
    platform.pause()
    source = RtpSource()
    with udp_socket() as device:
        for _ in range(400):
            sent = source.all(video_frames(count=50, width=640, height=480))
            source.start_90k += 50 * 3600
            await send_udp(device, sent, rig.port)
            found = rig.plane.rtp_sink_counters([sending.sink.id])
            if not found or found[sending.sink.id].dropped > 50:
                break
        assert found and found[sending.sink.id].dropped > 50
    assert (await sending.events.wait(EventKind.SINK_CLOSED)).detail == "slow"
    await until(platform.drain)
    platform.close()


async def test_udp_peer_that_refuses_is_given_up(rig: Rig) -> None:
    await rig.open(frames=False)
    gone = free_port_pair()
    sending = await sink(rig, ("127.0.0.1", gone), stall_s=0.3)
    packets = RtpSource().all(video_frames(count=50))
    with udp_socket() as device:
        for packet in packets:
            await send_udp(device, [packet], rig.port)
            if sending.events.of(EventKind.SINK_CLOSED):
                break
            await asyncio.sleep(0.01)
        assert (await sending.events.wait(EventKind.SINK_CLOSED)).detail == "viewer_gone"


async def test_tcp_passive_without_a_peer_is_given_up(rig: Rig) -> None:
    await rig.open()
    sending = await sink(rig, transport=MediaTransport.TCP_PASSIVE, stall_s=0.2)
    assert (await sending.events.wait(EventKind.SINK_CLOSED)).detail == "viewer_gone"


async def test_sender_reports_go_out_and_receiver_reports_are_counted(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    sending = await sink(rig, peer.remote)
    sent = RtpSource().all(video_frames())
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len(peer.reports) > 0)
    data, source = peer.reports[0]
    assert source == ("127.0.0.1", sending.sink.port + 1)
    report = next(p for p in rtcp.parse(data) if isinstance(p, rtcp.SenderReport))
    assert report.ssrc == OUR_SSRC
    assert 0 < report.packet_count <= len(sent)
    assert 0 < report.octet_count <= sum(len(packet) - 12 for packet in sent)
    block = rtcp.ReportBlock(
        ssrc=OUR_SSRC,
        cumulative_lost=7,
        last_sender_report=report.middle_ntp,
        delay_since_last_sender_report=0,
    )
    peer.send_rtcp(rtcp.build_receiver_report(9, (block,), "p"), source)
    await until(lambda: sending.counters.reported_lost == 7)
    assert sending.counters.rtt_ms > 0
    rig.plane.close_sink(sending.sink.id)
    await until(
        lambda: any(isinstance(p, rtcp.Goodbye) for data, _ in peer.reports for p in rtcp.parse(data))
    )


@pytest.mark.parametrize("transport", [MediaTransport.UDP, MediaTransport.TCP_PASSIVE])
async def test_i8_whatever_a_peer_sends_ends_nothing(
    rig: Rig, peer: UdpPeer, transport: MediaTransport
) -> None:
    await rig.open(frames=False)
    sending = await sink(rig, peer.remote, transport=transport)
    noise = random.Random(7).randbytes(400_000)
    reports = [
        b"\x80\xc9\xff\xff" + noise[:40],
        b"\x81\xc9\x00\x07" + noise[:28],
        b"\x9f\xc8\x00\x01\x00\x00\x00\x00",
        b"\x80\xc9",
        b"",
    ]
    sent = RtpSource().all(video_frames())
    if transport is MediaTransport.UDP:
        for data in reports:
            peer.send_rtcp(data, ("127.0.0.1", sending.sink.port + 1))
            peer.send_rtp(data, ("127.0.0.1", sending.sink.port))
        with udp_socket() as device:
            await send_udp(device, sent, rig.port)
            await until(lambda: len(peer.packets) == len(sent))
        return
    platform = await TcpPeer.dial(sending.sink.port)
    await sending.events.wait(EventKind.CONNECTED)
    await asyncio.get_running_loop().sock_sendall(platform.sock, framed_stream(reports[:3]) + noise)
    with udp_socket() as device:
        await send_udp(device, sent, rig.port)
        await until(lambda: len(platform.packets) == len(sent))
    platform.close()


async def test_reports_of_strangers_are_not_counted(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    sending = await sink(rig, peer.remote)
    with udp_socket() as device, udp_socket("127.0.0.3") as stranger:
        await send_udp(device, RtpSource().all(video_frames()), rig.port)
        await until(lambda: len(peer.reports) > 0)
        block = rtcp.ReportBlock(ssrc=OUR_SSRC, cumulative_lost=99)
        stranger.sendto(rtcp.build_receiver_report(9, (block,), "p"), ("127.0.0.1", sending.sink.port + 1))
        other = rtcp.ReportBlock(ssrc=OUR_SSRC, cumulative_lost=3)
        peer.send_rtcp(rtcp.build_receiver_report(9, (other,), "p"), ("127.0.0.1", sending.sink.port + 1))
        await until(lambda: sending.counters.reported_lost == 3)


async def test_r019_sender_reports_over_tcp_are_answered_and_nobody_else_gets_rtcp(rig: Rig) -> None:
    await rig.open(MediaTransport.TCP_PASSIVE, frames=False)
    device = await TcpPeer.dial(rig.port)
    packets = RtpSource().all(video_frames() + video_frames())
    report = rtcp.SenderReport(
        ssrc=SSRC, ntp_time=rtcp.ntp_time(1_700_000_000.5), rtp_timestamp=0, packet_count=60, octet_count=1
    )
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(device.sock, framed_stream(packets[:60]))
    await until(lambda: rig.counters.packets == 60)
    assert not device.frames
    await loop.sock_sendall(
        device.sock, framed_stream([rtcp.build_sender_report(report, "d"), *packets[60:]])
    )
    await until(lambda: device.frames)
    answer = next(p for p in rtcp.parse(device.frames[0]) if isinstance(p, rtcp.ReceiverReport))
    assert (answer.blocks[0].ssrc, answer.blocks[0].last_sender_report) == (SSRC, report.middle_ntp)
    device.close()


# -- both ways on one port


async def test_talk_goes_through_the_receivers_socket(rig: Rig, peer: UdpPeer) -> None:
    await rig.open(frames=False)
    rig.plane.create_stream("voice", Events())
    events = Events()
    spec = RtpSinkSpec(
        transport=MediaTransport.UDP,
        ssrc=OUR_SSRC,
        payload_type=8,
        packing=RtpPacking.ES,
        codec="pcma",
        remote=peer.remote,
        through=rig.receiver.id,
    )
    made = await rig.plane.add_rtp_sink("voice", spec, events)
    assert made.port == rig.port
    rig.plane.update_rtp_sink(made.id, RtpSinkUpdate(sending=True))
    for frame in audio_frames():
        rig.plane.push("voice", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=True)
    await until(lambda: len(peer.packets) == 100)
    for packet in RtpSource().all(video_frames()):
        peer.send_rtp(packet, ("127.0.0.1", rig.port))
    await rig.stream_events.wait(EventKind.KEY_FRAME)
    rig.plane.close_stream("voice")
    assert (await events.wait(EventKind.SINK_CLOSED)).detail == "stream_closed"
    assert rig.plane.gauges["receivers"] == 1


async def test_talk_goes_back_over_the_devices_connection(rig: Rig) -> None:
    await rig.open(MediaTransport.TCP_PASSIVE, frames=False)
    device = await TcpPeer.dial(rig.port)
    await asyncio.get_running_loop().sock_sendall(device.sock, framed_stream(RtpSource().all(video_frames())))
    await rig.stream_events.wait(EventKind.KEY_FRAME)
    rig.plane.create_stream("voice", Events())
    spec = RtpSinkSpec(
        transport=MediaTransport.TCP_PASSIVE,
        ssrc=OUR_SSRC,
        payload_type=8,
        packing=RtpPacking.ES,
        codec="pcma",
        through=rig.receiver.id,
    )
    made = await rig.plane.add_rtp_sink("voice", spec, Events())
    rig.plane.update_rtp_sink(made.id, RtpSinkUpdate(sending=True))
    for frame in audio_frames():
        rig.plane.push("voice", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=True)
    await until(lambda: len(device.packets) == 100)
    assert device.payload == b"".join(frame.payload for frame in audio_frames())
    device.close()


async def test_talk_reaches_a_device_that_connects_and_says_nothing(rig: Rig) -> None:
    await rig.open(MediaTransport.TCP_PASSIVE, frames=False)
    rig.plane.create_stream("voice", Events())
    spec = RtpSinkSpec(
        transport=MediaTransport.TCP_PASSIVE,
        ssrc=OUR_SSRC,
        payload_type=8,
        packing=RtpPacking.ES,
        codec="pcma",
        through=rig.receiver.id,
    )
    made = await rig.plane.add_rtp_sink("voice", spec, Events())
    rig.plane.update_rtp_sink(made.id, RtpSinkUpdate(sending=True))
    stranger = await TcpPeer.dial(rig.port, source="127.0.0.2")
    device = await TcpPeer.dial(rig.port)
    await rig.events.wait(EventKind.CONNECTED, 2)
    for frame in audio_frames():
        rig.plane.push("voice", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=True)
    await until(lambda: len(device.packets) == 100)
    assert not stranger.frames
    device.close()
    stranger.close()


async def test_s06_talk_is_not_sent_to_a_source_that_was_only_learnt_from_rtp(rig: Rig) -> None:
    await rig.open(frames=False, expected=frozenset({"127.0.0.9"}))
    rig.plane.update_receiver(rig.receiver.id, ReceiverUpdate(acknowledged=True))
    spec = RtpSinkSpec(
        transport=MediaTransport.UDP,
        ssrc=OUR_SSRC,
        packing=RtpPacking.ES,
        codec="pcma",
        through=rig.receiver.id,
    )
    rig.plane.create_stream("voice", Events())
    made = await rig.plane.add_rtp_sink("voice", spec, Events())
    rig.plane.update_rtp_sink(made.id, RtpSinkUpdate(sending=True))
    packets = RtpSource().all(video_frames())
    with udp_socket() as stranger:
        index = 0
        while not rig.events.of(EventKind.FIRST_PACKET):
            await send_udp(stranger, packets[index : index + 1], rig.port)
            index += 1
            await asyncio.sleep(0.05)
        for frame in audio_frames():
            rig.plane.push("voice", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=True)
        await asyncio.sleep(0)
        assert rig.plane.rtp_sink_counters([made.id])[made.id].remote == ""
        got = []
        with suppress(BlockingIOError):
            while True:
                got.append(stranger.recv(2000))
        assert [data for data in got if data[1] != 201] == []  # receiver reports go to whom we believe
