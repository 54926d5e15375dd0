"""The hub, fed with units directly."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gb28181gw.media.engine import EventKind
from gb28181gw.media.reference.gop import KeptGop
from gb28181gw.media.reference.stream import AUDIO_WAIT_S, Feed, FrameSink, Stream
from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire.units import EsUnit
from tests.support.plane import Events

VIDEO = Track(kind=TrackKind.VIDEO, codec=Codec.H264, width=64, height=64, fps=25.0)
AUDIO = Track(kind=TrackKind.AUDIO, codec=Codec.PCMA, sample_rate=8000, channels=1)
AAC = Track(kind=TrackKind.AUDIO, codec=Codec.AAC, sample_rate=8000, channels=1)


def video(
    number: int, *, key: bool = False, damaged: bool = False, track: Track = VIDEO, start_90k: int = 0
) -> EsUnit:
    return EsUnit(
        track=track,
        stream_id=0xE0,
        pts_90k=start_90k + number * 3600,
        dts_90k=None,
        key=key,
        payload=b"v%d" % number,
        damaged=damaged,
        arrival=10 + number * 0.04,
    )


def audio(number: int) -> EsUnit:
    return EsUnit(
        track=AUDIO,
        stream_id=0xC0,
        pts_90k=number * 3600,
        dts_90k=None,
        key=True,
        payload=b"a" * 320,
        arrival=10 + number * 0.04,
    )


class Hub:
    def __init__(self, *, freeze_on_loss: bool = False) -> None:
        self.events = Events()
        self.loop = asyncio.get_running_loop()
        self.stream = Stream("s", self.loop, self.events, freeze_on_loss=freeze_on_loss)
        self.frames: list[Frame] = []
        self.sink = FrameSink(
            self.loop, self.frames.extend, self.stream.remove_frame_sink, video=True, audio=True
        )
        self.stream.add_frame_sink(self.sink)
        self.feed = self.stream.begin_generation()

    def give(self, *units: EsUnit, feed: Feed | None = None, video: bool = True, audio: bool = False) -> None:
        (feed or self.feed).give(list(units), video_expected=video, audio_expected=audio)

    async def kinds(self) -> list[EventKind]:
        await asyncio.sleep(0)
        return [event.kind for event in self.events.all]

    async def payloads(self) -> list[bytes]:
        await asyncio.sleep(0)
        return [frame.payload for frame in self.frames if frame.track.kind is TrackKind.VIDEO]


async def test_begins_at_a_key_frame_and_tells_once() -> None:
    hub = Hub()
    hub.give(video(0), video(1), video(2, key=True), video(3))
    assert await hub.payloads() == [b"v2", b"v3"]
    assert await hub.kinds() == [EventKind.TRACKS, EventKind.KEY_FRAME]


async def test_med24_damaged_units_freeze_the_picture_until_a_whole_key_frame() -> None:
    hub = Hub(freeze_on_loss=True)
    hub.give(video(0, key=True), video(1), video(2, damaged=True), video(3, damaged=True))
    hub.give(video(4, key=True, damaged=True), video(5), audio(5), video(6, key=True), video(7))
    assert await hub.payloads() == [b"v0", b"v1", b"v6", b"v7"]
    assert sum(frame.track is AUDIO for frame in hub.frames) == 1, "sound goes on"
    assert hub.stream.counters().frames_frozen == 4


async def test_med24_a_stream_begins_at_a_whole_key_frame_and_goes_on_over_damage() -> None:
    hub = Hub()
    hub.give(video(0, key=True, damaged=True), video(1), video(2, key=True), video(3, damaged=True), video(4))
    assert await hub.payloads() == [b"v2", b"v3", b"v4"]
    assert hub.stream.counters().frames_frozen == 2


async def test_med16_declared_audio_is_waited_for_less_than_a_second() -> None:
    hub = Hub()
    hub.give(video(0, key=True), video(1), audio=True)
    hub.stream.tick(10 + AUDIO_WAIT_S / 2)
    assert await hub.kinds() == []
    hub.stream.tick(10 + AUDIO_WAIT_S)
    assert await hub.kinds() == [EventKind.TRACKS, EventKind.KEY_FRAME]
    assert AUDIO_WAIT_S < 1


async def test_declared_audio_that_comes_publishes_at_once_with_both_tracks() -> None:
    hub = Hub()
    hub.give(video(0, key=True), audio=True)
    hub.give(audio(0), audio=True)
    assert await hub.kinds() == [EventKind.TRACKS, EventKind.KEY_FRAME]
    assert hub.events.all[0].tracks == (VIDEO, AUDIO)


async def test_med17_late_audio_is_told_as_a_new_track() -> None:
    hub = Hub()
    hub.give(video(0, key=True), video(1), audio(1), audio(2))
    assert await hub.kinds() == [EventKind.TRACKS, EventKind.KEY_FRAME, EventKind.TRACKS]
    assert hub.stream.tracks == (VIDEO, AUDIO)


async def test_audio_only_stream_is_published_after_the_wait_for_video() -> None:
    hub = Hub()
    hub.give(audio(0), video=False, audio=True)
    hub.stream.tick(10 + AUDIO_WAIT_S)
    assert await hub.kinds() == [EventKind.TRACKS]
    assert hub.stream.tracks == (AUDIO,)


async def test_audio_before_the_first_key_frame_of_an_expected_video_publishes_nothing() -> None:
    hub = Hub()
    for number in range(100):
        hub.give(audio(number), audio=True)
        hub.stream.tick(10 + number * 0.04)
    assert await hub.kinds() == []
    hub.give(video(100, key=True), audio=True)
    assert await hub.kinds() == [EventKind.TRACKS, EventKind.KEY_FRAME]


async def test_i3_older_feed_is_dead_and_output_time_goes_on() -> None:
    hub = Hub()
    hub.give(video(0, key=True), video(1))
    old, new = hub.feed, hub.stream.begin_generation()
    hub.give(video(2, key=True), feed=old)
    hub.give(video(3, start_90k=5_000_000), audio(3), feed=new)
    hub.give(video(4, key=True, start_90k=5_000_000), audio(4), feed=new)
    await asyncio.sleep(0)
    assert [f.payload for f in hub.frames] == [b"v0", b"v1", b"v4", b"a" * 320]
    times = [f.dts_90k for f in hub.frames if f.track is VIDEO]
    assert times == sorted(set(times))
    assert (await hub.kinds()).count(EventKind.KEY_FRAME) == 2


async def test_new_frame_sink_gets_the_kept_group_and_only_what_it_wants() -> None:
    hub = Hub()
    hub.give(video(0, key=True), audio(0), video(1), audio(1))
    wanted: list[Frame] = []
    sink = FrameSink(hub.loop, wanted.extend, hub.stream.remove_frame_sink, video=False, audio=True)
    hub.stream.add_frame_sink(sink)
    await asyncio.sleep(0)
    assert [frame.track for frame in wanted] == [AUDIO, AUDIO]


async def test_frame_consumer_that_raises_loses_its_sink_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()

    def broken(_: list[Frame]) -> None:
        raise RuntimeError("a consumer's mistake")

    hub.stream.add_frame_sink(
        FrameSink(hub.loop, broken, hub.stream.remove_frame_sink, video=True, audio=True)
    )
    with caplog.at_level(logging.ERROR):
        hub.give(video(0, key=True))
        await asyncio.sleep(0)
    assert "a frame consumer failed" in caplog.text
    hub.give(video(1))
    assert await hub.payloads() == [b"v0", b"v1"]
    assert hub.stream.counters().sinks == 1


async def test_made_audio_is_no_track_of_the_source() -> None:
    hub = Hub()
    hub.give(video(0, key=True), audio(0))
    hub.stream.push(AAC, 0, 0, b"raw", key=True, now=10.0)
    await asyncio.sleep(0)
    assert hub.stream.tracks == (VIDEO, AUDIO)
    assert all(frame.track is not AAC for frame in hub.frames)


async def test_stream_fed_from_python_alone_has_aac_as_its_source() -> None:
    hub = Hub()
    hub.stream.push(AAC, 0, 0, b"early", key=True, now=10.0)
    hub.stream.push(VIDEO, 0, 0, b"v", key=False, now=10.0)
    hub.stream.push(VIDEO, 3600, 3600, b"v1", key=True, now=10.0)
    assert await hub.payloads() == [b"v1"]
    assert hub.stream.tracks == (VIDEO, AAC)


async def test_i10_group_that_is_too_large_is_not_kept() -> None:
    hub = Hub()
    hub.stream._gop = KeptGop(max_frames=3)
    hub.give(video(0, key=True), *(video(n) for n in range(1, 8)))
    late: list[Frame] = []
    hub.stream.add_frame_sink(
        FrameSink(hub.loop, late.extend, hub.stream.remove_frame_sink, video=True, audio=True)
    )
    await asyncio.sleep(0)
    assert late == []
    assert len(await hub.payloads()) == 8


async def test_close_ends_feeds_and_sinks() -> None:
    hub = Hub()
    hub.give(video(0, key=True))
    hub.stream.close("stream_closed")
    hub.give(video(1))
    await asyncio.sleep(0)
    assert hub.frames == []
    assert hub.stream.counters().sinks == 0
