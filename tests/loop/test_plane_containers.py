"""Fragmented MP4 and MPEG-TS to consumers of a stream: where they begin, what skipping and changes do to them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from gb28181gw.media.engine import Container, EventKind, SocketSinkSpec
from gb28181gw.media.tracks import Codec, Frame, Track
from tests.support import mp4
from tests.support.media import audio_clip, video_clip
from tests.support.plane import Events, SocketReader, dechunk, make_plane, until

VIDEO, AUDIO = 1, 2


class Hub:
    """A plane with the stream `s`."""

    def __init__(self) -> None:
        self.plane = make_plane()
        self.readers: list[SocketReader] = []
        self.plane.create_stream("s", Events())

    def push(self, frames: list[Frame], at_90k: int = 0, track: Track | None = None) -> None:
        for frame in frames:
            self.plane.push(
                "s",
                track or frame.track,
                frame.pts_90k + at_90k,
                frame.dts_90k + at_90k,
                frame.payload,
                key=frame.key,
            )

    def view(self, container: Container, audio: str = "copy", **more: int) -> tuple[SocketReader, Events]:
        ours, theirs = socket.socketpair()
        if more:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        events = Events()
        spec = SocketSinkSpec(container=container, audio=audio, **more)
        self.plane.add_socket_sink("s", ours.detach(), spec, events)
        reader = SocketReader(theirs)
        self.readers.append(reader)
        return reader, events


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub()
    yield hub
    for reader in hub.readers:
        reader.close()
    await hub.plane.close()
    assert hub.plane.gauges == {"receivers": 0, "streams": 0, "sinks": 0}
    assert hub.plane.failures == 0


def samples(reader: SocketReader, track: int = VIDEO) -> list[mp4.Sample]:
    return [s for s in mp4.stream_samples(dechunk(bytes(reader.data))) if s.track_id == track]


def kinds(reader: SocketReader) -> list[str]:
    return [kind for kind, _ in mp4.whole_boxes(dechunk(bytes(reader.data)))]


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
async def test_fmp4_begins_with_the_kept_group_and_goes_on(hub: Hub, codec: Codec) -> None:
    clip = video_clip(codec, gop=25)
    hub.push(clip[:30])
    reader, _ = hub.view(Container.FMP4)
    await until(lambda: len(samples(reader)) == 5)
    hub.push(clip[30:40])
    await until(lambda: len(samples(reader)) == 15)
    found = samples(reader)
    assert kinds(reader)[:2] == ["ftyp", "moov"]
    assert found[0].is_sync
    assert [sample.dts for sample in found] == [3600 * n for n in range(15)]


async def test_ts_begins_with_tables_and_a_key_frame(hub: Hub) -> None:
    clip = video_clip(Codec.H264, gop=25)
    hub.push(clip[:30])
    reader, _ = hub.view(Container.TS)
    hub.push(clip[30:40])
    await until(lambda: len(mp4.pes_units(mp4.ts_packets(dechunk(bytes(reader.data))))) == 15)
    packets = mp4.ts_packets(dechunk(bytes(reader.data)))
    mp4.check_continuity(packets)
    assert [packet.pid for packet in packets[:3]] == [0, 0x1000, 0x100]
    assert mp4.pes_units(packets)[0].random_access


def swollen(frames: list[Frame], size: int) -> list[Frame]:
    """The same pictures with filler behind them (ISO 14496-10 7.3.2.7)."""
    return [replace(f, payload=f.payload + b"\0\0\0\1\x0c" + b"\xff" * size) for f in frames]


async def test_f10_slow_ts_consumer_skips_to_a_key_frame_and_is_told(hub: Hub) -> None:
    clip = swollen(video_clip(Codec.H264, gop=25), 20_000)
    reader, _ = hub.view(Container.TS, queue_bytes=100_000)
    asyncio.get_running_loop().remove_reader(reader.sock)
    hub.push(clip)
    await until(lambda: hub.plane.stream_counters(["s"])["s"].frames_dropped > 0)
    asyncio.get_running_loop().add_reader(reader.sock, reader._read)
    await until(lambda: len(reader.data) > 300_000)
    for turn in (1, 2):
        for frame in clip:
            hub.push([frame], at_90k=180_000 * turn)
            await asyncio.sleep(0.002)

    def last() -> int:
        return mp4.pes_units(mp4.ts_packets(dechunk(bytes(reader.data))))[-1].dts

    await until(lambda: last() == 90_000 + 540_000 - 3600)
    packets = mp4.ts_packets(dechunk(bytes(reader.data)))
    mp4.check_continuity(packets)
    units = mp4.pes_units(packets)
    gaps = [after for before, after in pairwise(units) if after.dts - before.dts != 3600]
    assert gaps
    assert all(unit.random_access for unit in gaps)


async def test_f10_slow_fmp4_consumer_skips_to_a_key_frame(hub: Hub) -> None:
    clip = swollen(video_clip(Codec.H264, gop=25), 20_000)
    reader, _ = hub.view(Container.FMP4, queue_bytes=100_000)
    asyncio.get_running_loop().remove_reader(reader.sock)
    hub.push(clip)
    await until(lambda: hub.plane.stream_counters(["s"])["s"].frames_dropped > 0)
    asyncio.get_running_loop().add_reader(reader.sock, reader._read)
    await until(lambda: len(reader.data) > 300_000)
    for turn in (1, 2):
        for frame in clip:
            hub.push([frame], at_90k=180_000 * turn)
            await asyncio.sleep(0.002)
    await until(lambda: samples(reader)[-1].dts == 540_000 - 3600)
    found = samples(reader)
    gaps = [after for before, after in pairwise(found) if after.dts - before.dts != 3600]
    assert gaps
    assert all(sample.is_sync for sample in gaps)
    assert kinds(reader).count("moov") == 1, "nothing changed, so nothing is said again"


async def test_med36_change_of_size_goes_on_and_of_the_codec_ends_fmp4(hub: Hub) -> None:
    reader, events = hub.view(Container.FMP4)
    ts_reader, ts_events = hub.view(Container.WS_TS)
    hub.push(video_clip(Codec.H264)[:10])
    await until(lambda: len(samples(reader)) == 10)
    hub.push(video_clip(Codec.H264, width=160, height=120)[:10], at_90k=90_000)
    await until(lambda: len(samples(reader)) == 20)
    assert kinds(reader).count("moov") == 2
    hub.push(video_clip(Codec.H265)[:10], at_90k=180_000)
    assert (await events.wait(EventKind.SINK_CLOSED)).detail == "tracks_changed"
    again, _ = hub.view(Container.FMP4)
    await until(lambda: len(samples(again)) == 10)
    assert b"hvc1" in again.data
    size = len(ts_reader.data)
    hub.push(video_clip(Codec.H265)[10:20], at_90k=180_000)
    await until(lambda: len(ts_reader.data) > size)
    assert ts_events.all == []


async def test_med17_late_sound_reaches_those_who_come_later(hub: Hub) -> None:
    first, events = hub.view(Container.FMP4)
    hub.push(video_clip(Codec.H264)[:10])
    await until(lambda: len(samples(first)) == 10)
    hub.push(audio_clip(Codec.AAC)[:4])
    second, _ = hub.view(Container.FMP4)
    hub.push(video_clip(Codec.H264)[10:20])
    await until(lambda: len(samples(second)) == 20)
    assert len(samples(second, AUDIO)) == 4
    await until(lambda: len(samples(first)) == 20)
    assert samples(first, AUDIO) == []
    assert events.all == []


@pytest.mark.parametrize("container", [Container.FMP4, Container.TS])
async def test_consumer_waits_for_the_sound_that_is_made_for_it(hub: Hub, container: Container) -> None:
    hub.push(audio_clip(Codec.PCMA)[:2])
    hub.push(video_clip(Codec.H264)[:10])
    hub.push(audio_clip(Codec.PCMA)[2:4])
    reader, _ = hub.view(container, "aac")
    other, _ = hub.view(container, "none")
    await until(lambda: len(other.data) > 1000)
    assert reader.data == b""
    hub.push(audio_clip(Codec.AAC)[:3])
    await until(lambda: len(reader.data) > 1000)
    hub.push(audio_clip(Codec.AAC)[3:4])
    if container is Container.FMP4:
        await until(lambda: len(samples(reader)) == 10 and len(samples(reader, AUDIO)) == 4)
        assert kinds(reader).count("moov") == 1
    else:
        await until(lambda: len(mp4.pes_units(mp4.ts_packets(dechunk(bytes(reader.data))))) == 14)
        types = mp4.stream_types(mp4.ts_packets(dechunk(bytes(reader.data))))
        assert dict(types) == {0: {0x100: 0x1B, 0x101: 0x0F}}


async def test_consumer_whose_sound_is_not_made_gets_the_picture(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gb28181gw.media.reference.stream.MADE_AUDIO_WAIT_S", 0.1)
    hub.push(video_clip(Codec.H264)[:10])
    hub.push(audio_clip(Codec.PCMA)[:4])
    reader, _ = hub.view(Container.FMP4, "aac")
    await until(lambda: len(samples(reader)) == 10, 15)
    assert dechunk(bytes(reader.data)).count(b"mp4a") == 0
