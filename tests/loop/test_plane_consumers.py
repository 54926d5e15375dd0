"""Consumers of a stream that Python feeds: what they get, what they miss, how they end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from gb28181gw.media.engine import Container, EventKind, SocketSinkSpec
from gb28181gw.media.tracks import Codec, Frame, TrackKind
from gb28181gw.media.wire import nal
from tests.support.plane import (
    Events,
    Plane,
    SocketReader,
    audio_frames,
    dechunk,
    interleave,
    make_plane,
    until,
)
from tests.support.plane import video_frames as bare_frames


def video_frames(count: int = 50) -> tuple[Frame, ...]:
    """Pictures whose track knows its parameter sets, as those of a demuxer do."""
    frames = bare_frames(count=count)
    sets = tuple(
        u for u in nal.split_annexb(frames[0].payload) if u[0] & 0x1F in (nal.H264_SPS, nal.H264_PPS)
    )
    track = replace(frames[0].track, parameter_sets=sets)
    return tuple(replace(frame, track=track) for frame in frames)


class Hub:
    """A plane with the stream `s`."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.events = Events()
        self.readers: list[SocketReader] = []
        self.sockets: list[socket.socket] = []
        plane.create_stream("s", self.events)

    def push(self, frames: list[Frame] | tuple[Frame, ...]) -> None:
        for frame in frames:
            self.plane.push("s", frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=frame.key)

    def connect(self, spec: SocketSinkSpec, *, buffer: int = 0) -> tuple[socket.socket, Events, int]:
        """A consumer that does not read yet."""
        ours, theirs = socket.socketpair()
        if buffer:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sockets.append(theirs)
        events = Events()
        sink_id = self.plane.add_socket_sink("s", ours.detach(), spec, events)
        return theirs, events, sink_id

    def read(self, sock: socket.socket) -> SocketReader:
        reader = SocketReader(sock)
        self.readers.append(reader)
        return reader

    @property
    def dropped(self) -> int:
        return self.plane.stream_counters(["s"])["s"].frames_dropped


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub(make_plane())
    yield hub
    for reader in hub.readers:
        reader.close()
    await hub.plane.close()
    for sock in hub.sockets:
        sock.close()
    assert hub.plane.gauges == {"receivers": 0, "streams": 0, "sinks": 0}
    assert hub.plane.failures == 0


def swollen(frames: tuple[Frame, ...], size: int) -> list[Frame]:
    """The same pictures with filler behind them (ISO 14496-10 7.3.2.7)."""
    return [replace(f, payload=f.payload + b"\0\0\0\1\x0c" + b"\xff" * size) for f in frames]


def moved(frames: list[Frame], seconds: int) -> list[Frame]:
    at = seconds * 90_000
    return [replace(f, pts_90k=f.pts_90k + at, dts_90k=f.dts_90k + at) for f in frames]


async def test_kept_group_larger_than_the_queue_is_delivered_whole(hub: Hub) -> None:
    frames = swollen(video_frames(count=25), 20_000)
    hub.push(frames)
    sock, events, _ = hub.connect(SocketSinkSpec(container=Container.FLV, queue_bytes=10_000), buffer=4096)
    reader = hub.read(sock)
    await until(lambda: len(reader.frames) == 25)
    assert events.all == []
    assert hub.dropped == 0


async def test_f10_full_queue_skips_to_a_key_frame_and_costs_the_others_nothing(hub: Hub) -> None:
    frames = swollen(video_frames(count=50), 20_000)
    lazy, _, _ = hub.connect(SocketSinkSpec(container=Container.FLV, queue_bytes=100_000), buffer=4096)
    eager, _, _ = hub.connect(SocketSinkSpec(container=Container.FLV))
    eager_reader = hub.read(eager)
    for frame in frames:
        hub.push([frame])
        await asyncio.sleep(0.001)
    await until(lambda: len(eager_reader.frames) == 50)
    assert hub.dropped > 0
    lazy_reader = hub.read(lazy)
    await until(lambda: len(lazy_reader.frames) > 3)
    for frame in moved(frames, 2):
        hub.push([frame])
        await asyncio.sleep(0.004)
    await until(lambda: lazy_reader.frames[-1].timestamp_ms == 3960)
    tags = lazy_reader.tags
    times = [tag.timestamp_ms for tag in tags if tag.kind == 9 and not tag.is_configuration]
    gaps = [i for i, (a, b) in enumerate(pairwise(times), 1) if b - a != 40]
    pictures = [tag for tag in tags if tag.kind == 9 and not tag.is_configuration]
    assert gaps
    assert all(pictures[index].is_key for index in gaps)
    before = [tags[tags.index(pictures[index]) - 1] for index in gaps]
    assert all(tag.is_configuration for tag in before), "one that skipped gets the configuration again"


async def test_f10_consumer_without_progress_is_dropped_once(hub: Hub) -> None:
    _, events, _ = hub.connect(
        SocketSinkSpec(container=Container.FLV, queue_bytes=100_000, stall_s=0.1), buffer=4096
    )
    hub.push(swollen(video_frames(count=50), 20_000))
    closed = await events.wait(EventKind.SINK_CLOSED)
    assert (closed.detail, closed.stream_id) == ("slow", "s")
    assert closed.bytes_out > 0
    await asyncio.sleep(0.1)  # two ticks
    assert len(events.all) == 1


async def test_merged_writes_come_together_and_in_time(hub: Hub) -> None:
    frames = video_frames(count=10)
    hub.push(frames[:2])
    patient = hub.read(hub.connect(SocketSinkSpec(container=Container.FLV, merge_s=0.3))[0])
    prompt = hub.read(hub.connect(SocketSinkSpec(container=Container.FLV))[0])
    await until(lambda: len(patient.frames) == len(prompt.frames) == 2)
    hub.push(frames[2:6])
    await until(lambda: len(prompt.frames) == 6)
    assert len(patient.frames) == 2, "what was kept came at once, what is new waits"
    await until(lambda: len(patient.frames) == 6)
    hub.push(frames[6:])
    hub.plane.close_stream("s")
    await until(lambda: patient.ended)
    assert bytes(patient.data) == bytes(prompt.data)


async def test_idle_consumer_of_a_silent_stream_is_not_slow(hub: Hub) -> None:
    sock, events, _ = hub.connect(SocketSinkSpec(container=Container.FLV, stall_s=0.05))
    hub.push(video_frames(count=5))
    reader = hub.read(sock)
    await until(lambda: len(reader.frames) == 5)
    await asyncio.sleep(0.2)
    assert events.all == []


@pytest.mark.parametrize(
    ("spec", "end"),
    [
        (SocketSinkSpec(container=Container.FLV), b"0\r\n\r\n"),
        (SocketSinkSpec(container=Container.WS_FLV), b"\x88\x02\x03\xe9"),
        (SocketSinkSpec(container=Container.FLV, chunked=False), b""),
    ],
)
async def test_end_in_good_order(hub: Hub, spec: SocketSinkSpec, end: bytes) -> None:
    sock, events, _ = hub.connect(spec)
    reader = hub.read(sock)
    hub.push(video_frames(count=5))
    await until(lambda: len(reader.data) > 500)
    hub.plane.close_stream("s", "device_gone")
    await until(lambda: reader.ended)
    assert (await events.wait(EventKind.SINK_CLOSED)).detail == "device_gone"
    assert events.all[0].bytes_out == len(reader.data)
    assert reader.data.endswith(end)


async def test_sink_that_is_closed_tells_so_once(hub: Hub) -> None:
    sock, events, sink_id = hub.connect(SocketSinkSpec(container=Container.FLV))
    reader = hub.read(sock)
    hub.plane.close_sink(sink_id)
    hub.plane.close_sink(sink_id)
    assert hub.plane.gauges["sinks"] == 0
    assert (await events.wait(EventKind.SINK_CLOSED)).detail == "closed"
    await until(lambda: reader.ended)
    hub.plane.close_stream("s")
    await asyncio.sleep(0.05)
    assert len(events.all) == 1


async def test_consumer_that_hangs_up_is_gone(hub: Hub) -> None:
    sock, events, _ = hub.connect(SocketSinkSpec(container=Container.FLV))
    hub.push(video_frames(count=5))
    sock.close()
    assert (await events.wait(EventKind.SINK_CLOSED)).detail == "viewer_gone"
    await until(lambda: hub.plane.stream_counters(["s"])["s"].sinks == 0)


async def test_websocket_ping_and_close(hub: Hub) -> None:
    spec = SocketSinkSpec(container=Container.WS_FLV, received=b"\x89\x81\x01\x02\x03\x04\x60")
    sock, events, _ = hub.connect(spec)
    reader = hub.read(sock)
    await until(lambda: reader.data == b"\x8a\x01a")
    await asyncio.get_running_loop().sock_sendall(sock, b"\x88\x82\0\0\0\0\x03\xe8")
    await until(lambda: reader.ended)
    assert reader.data == b"\x8a\x01a\x88\x02\x03\xe8"
    assert (await events.wait(EventKind.SINK_CLOSED)).detail == "viewer_gone"


async def test_websocket_breach_is_answered_by_a_protocol_error(hub: Hub) -> None:
    sock, events, _ = hub.connect(SocketSinkSpec(container=Container.WS_FLV))
    reader = hub.read(sock)
    await asyncio.get_running_loop().sock_sendall(sock, b"\x89\x01x")
    await until(lambda: reader.ended)
    assert reader.data == b"\x88\x02\x03\xea"
    assert (await events.wait(EventKind.SINK_CLOSED)).detail == "viewer_gone"


async def test_made_audio_reaches_those_who_asked_for_it(hub: Hub) -> None:
    aac = replace(
        audio_frames()[0].track, codec=Codec.AAC, sample_rate=8000, parameter_sets=(bytes.fromhex("1588"),)
    )
    made = [replace(f, track=aac, payload=b"\x21\x10\x05") for f in audio_frames(count=25)]
    frames = interleave(video_frames(count=25), audio_frames(count=25), tuple(made))
    given: list[Frame] = []
    hub.plane.add_frame_sink("s", given.extend)
    readers = {}
    for choice in ("copy", "aac", "none"):
        sock, _, _ = hub.connect(SocketSinkSpec(container=Container.FLV, audio=choice))
        readers[choice] = hub.read(sock)
    hub.push(frames)
    for reader in readers.values():
        await until(lambda reader=reader: sum(tag.kind == 9 for tag in reader.frames) == 25)
    await until(lambda: sum(tag.kind == 8 for tag in readers["copy"].frames) == 25)
    await until(lambda: sum(tag.kind == 8 for tag in readers["aac"].frames) == 25)
    assert {tag.body[0] for tag in readers["copy"].frames if tag.kind == 8} == {0x72}
    assert {tag.body[0] for tag in readers["aac"].frames if tag.kind == 8} == {0xAF}
    assert {tag.kind for tag in readers["none"].frames} == {9}
    assert [track.codec for track in hub.plane.tracks("s")] == [Codec.H264, Codec.PCMA]
    await until(lambda: len(given) == 50)
    assert {frame.track.codec for frame in given} == {Codec.H264, Codec.PCMA}, "made audio is for sockets"


async def test_frame_sinks_choose_and_begin_with_the_kept_group(hub: Hub) -> None:
    frames = interleave(video_frames(count=30), audio_frames(count=30))
    hub.push(frames)
    pictures: list[Frame] = []
    sounds: list[Frame] = []
    hub.plane.add_frame_sink("s", pictures.extend, audio=False)
    gone = hub.plane.add_frame_sink("s", sounds.extend, video=False)
    await until(lambda: len(pictures) == 5)
    assert pictures[0].key
    assert {frame.track.kind for frame in pictures} == {TrackKind.VIDEO}
    await until(lambda: len(sounds) >= 4)
    assert {frame.track.kind for frame in sounds} == {TrackKind.AUDIO}
    hub.plane.close_sink(gone)
    heard = len(sounds)
    hub.push(moved(frames, 2))
    await until(lambda: len(pictures) == 35)
    assert len(sounds) == heard
    assert all(a.track is b.track for a, b in pairwise(pictures))


async def test_i8_frame_consumer_that_raises_loses_its_sink_alone(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[Frame] = []

    def explode(_: list[Frame]) -> None:
        raise RuntimeError("a consumer's mistake")

    hub.plane.add_frame_sink("s", explode)
    hub.plane.add_frame_sink("s", given.extend)
    hub.push(video_frames(count=10))
    await until(lambda: len(given) == 10)
    await until(lambda: hub.plane.gauges["sinks"] == 1)
    assert "a frame consumer failed" in caplog.text


async def test_push_to_a_stream_that_has_ended_is_dropped(hub: Hub) -> None:
    hub.plane.close_stream("s")
    hub.push(video_frames(count=5))
    assert hub.plane.stream_counters(["s"]) == {}
    assert hub.plane.tracks("s") == ()


async def test_plain_body_is_an_flv_file(hub: Hub) -> None:
    sock, _, _ = hub.connect(SocketSinkSpec(container=Container.FLV, chunked=False))
    chunked, _, _ = hub.connect(SocketSinkSpec(container=Container.FLV))
    readers = hub.read(sock), hub.read(chunked)
    hub.push(video_frames(count=10))
    await until(lambda: len(readers[1].frames) == 10)
    body = dechunk(bytes(readers[1].data))
    await until(lambda: len(readers[0].data) == len(body))
    assert bytes(readers[0].data) == body
