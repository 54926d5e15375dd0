"""Which picture is answered: a new one, one that is young enough, or the last one."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.tracks import Codec
from gb28181gw.observability.events import EventBus
from gb28181gw.sessions.models import Consumer
from gb28181gw.stills.files import StillFiles
from gb28181gw.stills.pool import DecoderPool
from gb28181gw.stills.stills import StillLimits, Stills
from tests.support.clock import FakeClock
from tests.support.media import video_clip

DEVICE, CHANNEL = "34020000001180000001", "34020000001320000001"


class Hold:
    def __init__(self, stream_id: str, owner: Streams) -> None:
        self.stream_id = stream_id
        self.owner = owner

    def release(self) -> None:
        self.owner.held -= 1


class Streams:
    """Streams of a real plane that are fed by hand."""

    def __init__(self, plane: ReferencePlane) -> None:
        self.plane = plane
        self.error: GatewayError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.started: Counter[str] = Counter()
        self.held = 0
        self.most = 0

    async def lease_live(
        self, device_id: str, channel_id: str, consumer: Consumer, *, brief: bool = False
    ) -> Hold:
        assert brief
        self.started[channel_id] += 1
        if self.error is not None:
            raise self.error
        self.held += 1
        self.most = max(self.most, self.held)
        try:
            await self.gate.wait()
        except BaseException:
            self.held -= 1
            raise
        stream_id = f"{channel_id}-{self.started[channel_id]}"
        self.plane.create_stream(stream_id, lambda event: None)
        for frame in video_clip(Codec.H264, frames=3):
            self.plane.push(
                stream_id, frame.track, frame.pts_90k, frame.dts_90k, frame.payload, key=frame.key
            )
        return Hold(stream_id, self)


class FakeDecoders(DecoderPool):
    """A JPEG is the number of key frames that were decoded."""

    async def to_jpeg(self, codec: Codec, data: bytes) -> bytes:
        self.counters.decoded += 1
        return b"\xff\xd8\xff" + bytes([self.counters.decoded])


class Rig:
    def __init__(self, directory: Path, **limits: int) -> None:
        self.clock = FakeClock()
        self.plane = ReferencePlane()
        self.streams = Streams(self.plane)
        self.stills = Stills(
            streams=self.streams,
            engine=self.plane,
            files=StillFiles(directory, 1000),
            bus=EventBus(),
            clock=self.clock,
            decoders=FakeDecoders(),
            limits=StillLimits(**limits),
        )

    async def close(self) -> None:
        await self.stills.close()
        await self.plane.close()


async def test_a_picture_is_taken_and_the_stream_given_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    still = await rig.stills.take(DEVICE, CHANNEL)
    assert (still.jpeg[-1], still.stale) == (1, "")
    assert still.taken_at == pytest.approx(rig.clock.wall(), abs=1e6)
    assert (rig.streams.held, len(rig.stills)) == (0, 0)
    await rig.close()


async def test_max_age_answers_the_same_picture_until_it_is_over(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    first = await rig.stills.take(DEVICE, CHANNEL, max_age_s=10)
    rig.clock.now += 9
    assert (await rig.stills.take(DEVICE, CHANNEL, max_age_s=10)).jpeg == first.jpeg
    assert (await rig.stills.take(DEVICE, CHANNEL, max_age_s=0)).jpeg != first.jpeg
    rig.clock.now += 11
    assert (await rig.stills.take(DEVICE, CHANNEL, max_age_s=10)).jpeg[-1] == 3
    assert rig.stills.counters.cached == 1
    await rig.close()


@pytest.mark.parametrize(
    ("code", "stale", "answered"),
    [
        ("gb.route.offline", None, True),
        ("gb.route.offline", True, True),
        ("gb.route.offline", False, False),
        ("gb.sip.no_answer", None, False),
        ("gb.sip.no_answer", True, True),
    ],
)
async def test_when_the_last_picture_will_do(
    tmp_path: Path, code: str, stale: bool | None, answered: bool
) -> None:
    rig = Rig(tmp_path)
    first = await rig.stills.take(DEVICE, CHANNEL)
    rig.clock.now += 3600
    rig.streams.error = GatewayError(code)
    if answered:
        still = await rig.stills.take(DEVICE, CHANNEL, max_age_s=5, stale=stale)
        assert (still.jpeg, still.taken_at) == (first.jpeg, pytest.approx(first.taken_at))
        assert still.stale == code
    else:
        with pytest.raises(GatewayError) as caught:
            await rig.stills.take(DEVICE, CHANNEL, max_age_s=5, stale=stale)
        assert caught.value.code == code
    await rig.close()


async def test_an_offline_device_that_was_never_seen_is_an_error(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.streams.error = GatewayError("gb.route.offline")
    with pytest.raises(GatewayError) as caught:
        await rig.stills.take(DEVICE, CHANNEL, stale=True)
    assert caught.value.code == "gb.route.offline"
    await rig.close()


async def test_many_who_ask_for_a_channel_share_one_picture(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.streams.gate.clear()
    asking = [asyncio.create_task(rig.stills.take(DEVICE, CHANNEL)) for _ in range(5)]
    while not rig.streams.started:
        await asyncio.sleep(0)
    asking[0].cancel()
    rig.streams.gate.set()
    found = await asyncio.gather(*asking[1:])
    assert {still.jpeg[-1] for still in found} == {1}
    assert rig.streams.started[CHANNEL] == 1
    await rig.close()


async def test_ses10_so_many_of_a_device_and_in_all_are_started_at_a_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path, at_once=3, per_device=2, waiting=9)
    rig.streams.gate.clear()
    asking = [asyncio.create_task(rig.stills.take("a", str(number))) for number in range(4)]
    asking += [asyncio.create_task(rig.stills.take("b", str(number))) for number in range(10, 15)]
    while len(rig.streams.started) < 3:
        await asyncio.sleep(0)
    with pytest.raises(GatewayError) as caught:
        await rig.stills.take("c", "99")
    assert caught.value.code == "gb.route.busy"
    assert len({channel for channel in rig.streams.started if int(channel) < 10}) <= 2
    rig.streams.gate.set()
    await asyncio.gather(*asking)
    assert (rig.streams.most, rig.streams.held) == (3, 0)
    assert rig.stills.counters.taken == 9
    await rig.close()


async def test_a_stream_without_a_key_frame_is_an_error_and_given_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def empty(device_id: str, channel_id: str, consumer: Consumer, *, brief: bool = False) -> Hold:
        rig.plane.create_stream("empty", lambda event: None)
        rig.streams.held += 1
        asyncio.get_running_loop().call_soon(rig.plane.close_stream, "empty", "idle")
        return Hold("empty", rig.streams)

    rig.streams.lease_live = empty  # type: ignore[method-assign]
    with pytest.raises(GatewayError) as caught:
        await rig.stills.take(DEVICE, CHANNEL)
    assert caught.value.code == "gb.media.no_keyframe"
    assert rig.streams.held == 0
    await rig.close()


def test_files_keep_the_last_picture_of_each_channel_within_their_limit(tmp_path: Path) -> None:
    files = StillFiles(tmp_path, 1000)
    for number in range(10):
        files.keep(DEVICE, f"c{number}", 1_700_000_000.0 + number, bytes(300))
    assert (len(files), files.total_bytes) == (3, 900)
    assert files.read(DEVICE, "c0") is None
    files.keep(DEVICE, "c9", 1_700_000_100.0, bytes(50))
    (tmp_path / "half.jpg.part").write_bytes(b"x")
    again = StillFiles(tmp_path, 1000)
    again.load()
    assert (len(again), again.total_bytes) == (3, 650)
    found = again.read(DEVICE, "c9")
    assert found is not None
    assert (found[0].taken_at, len(found[1])) == (1_700_000_100.0, 50)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jpg"] * 3
    again.forget_device(DEVICE)
    assert (len(again), again.total_bytes, list(tmp_path.iterdir())) == (0, 0, [])


def test_s09_a_channel_id_cannot_leave_the_directory(tmp_path: Path) -> None:
    files = StillFiles(tmp_path / "pictures", 1000)
    files.keep("../../etc", "../passwd", 1.0, b"x")
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["..%2F..%2Fetc_..%2Fpasswd.jpg"]
