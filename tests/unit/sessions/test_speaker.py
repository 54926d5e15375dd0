from __future__ import annotations

import asyncio
import io
import math
import struct
import wave
from typing import Any, cast

import pytest

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec
from gb28181gw.sessions.speaker import LIVE_LIMIT_S, Speaker
from gb28181gw.sessions.wav import read_wav


class Pushed:
    """An engine that keeps what is pushed."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.track: Any = None

    def push(self, stream_id: str, track: Any, pts: int, dts: int, data: bytes, *, key: bool) -> None:
        assert (stream_id, pts, key) == ("t", dts, True)
        self.track = track
        self.frames.append((pts, data))


def speaker(codec: Codec = Codec.PCMA, rate: int = 8_000) -> tuple[Speaker, Pushed]:
    engine = Pushed()
    return Speaker(cast(Engine, engine), "t", codec, rate), engine


def tone(rate: int, seconds: float, hertz: float = 440.0) -> bytes:
    return b"".join(
        struct.pack("<h", round(12_000 * math.sin(2 * math.pi * hertz * index / rate)))
        for index in range(int(rate * seconds))
    )


async def until(met: Any) -> None:
    async with asyncio.timeout(10):
        while not met():
            await asyncio.sleep(0.005)


async def test_tk07_packets_keep_coming_in_silence() -> None:
    voice, engine = speaker()
    voice.start()
    await until(lambda: len(engine.frames) >= 5)
    await voice.close()
    assert [pts for pts, _ in engine.frames[:5]] == [0, 1800, 3600, 5400, 7200]
    assert all(data == b"\xd5" * 160 for _, data in engine.frames), "A-law silence, 20 ms each"
    assert voice.spoken_samples == 0


@pytest.mark.parametrize(("codec", "rate"), [(Codec.PCMA, 8_000), (Codec.PCMU, 8_000), (Codec.AAC, 16_000)])
async def test_c24_what_is_fed_is_spoken(codec: Codec, rate: int) -> None:
    voice, engine = speaker(codec, rate)
    voice.feed(tone(48_000, 0.5), 48_000, live=False)
    assert voice.queued_s == pytest.approx(0.5, abs=0.01)
    voice.start()
    await until(lambda: not voice.queued_s)
    await voice.close()
    await voice.close()
    assert voice.spoken_samples == pytest.approx(rate / 2, rel=0.02)
    assert (engine.track.codec, engine.track.sample_rate, engine.track.channels) == (codec, rate, 1)
    assert len({data for _, data in engine.frames}) > 5


async def test_a_microphone_that_is_ahead_is_cut_to_the_newest() -> None:
    voice, _ = speaker()
    for _ in range(10):
        voice.feed(tone(8_000, 0.2), 8_000, live=True)
    assert voice.queued_s == LIVE_LIMIT_S
    assert voice.dropped_samples == 8_000 * 2 - int(8_000 * LIVE_LIMIT_S)
    voice.clear()
    assert voice.queued_s == 0


async def test_a_microphone_has_a_cushion_and_no_holes() -> None:
    voice, engine = speaker()
    sound = struct.pack("<h", 8_000) * 160
    for _ in range(2):
        engine.frames.clear()
        voice.feed(sound, 8_000, live=True)
        for packets in (0, 0, 3, 1, 0, 0, 0, 0):
            voice._speak()
            for _ in range(packets):
                voice.feed(sound, 8_000, live=True)
        assert [set(data) != {0xD5} for _, data in engine.frames] == [False] * 3 + [True] * 5
        assert not voice.queued_s
    voice.feed(sound, 8_000, live=False)
    voice._speak()
    assert set(engine.frames[-1][1]) != {0xD5}, "a recording waits for nothing"


@pytest.mark.parametrize(
    ("pcm", "rate", "code"),
    [
        (b"\0\0", 7_999, "gb.route.invalid"),
        (b"\0\0", 96_000, "gb.route.invalid"),
        (b"\0", 8_000, "gb.route.invalid"),
        (bytes(8_000 * 2 * 601), 8_000, "gb.route.busy"),
    ],
)
async def test_what_cannot_be_spoken_is_refused(pcm: bytes, rate: int, code: str) -> None:
    voice, _ = speaker()
    with pytest.raises(GatewayError) as caught:
        voice.feed(pcm, rate, live=False)
    assert caught.value.code == code


def wav(channels: int, width: int, data: bytes, rate: int = 16_000) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as target:
        target.setnchannels(channels)
        target.setsampwidth(width)
        target.setframerate(rate)
        target.writeframes(data)
    return made.getvalue()


def test_wav_of_one_and_two_channels() -> None:
    assert read_wav(wav(1, 2, b"\x01\x00\x02\x00")) == (b"\x01\x00\x02\x00", 16_000)
    assert read_wav(wav(2, 2, struct.pack("<4h", 100, 300, -8, -4))) == (struct.pack("<2h", 200, -6), 16_000)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"ID3\x03" * 20, wav(1, 1, b"\0"), wav(3, 2, b"\0" * 6)])
def test_other_files_are_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(GatewayError, match="ffmpeg -i IN"):
        read_wav(data)
