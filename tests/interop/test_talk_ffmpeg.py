"""What a talk sends is heard by a program that we did not write: ffmpeg takes the loudspeaker's place."""

from __future__ import annotations

import asyncio
import shutil
import wave
from pathlib import Path

import pytest

from gb28181gw.sim.ear import Ear
from gb28181gw.sim.options import TalkTransport
from tests.support.devices import until
from tests.support.plane import free_port_pair
from tests.support.talking import heard_level, loud_part, talk_bench, tone

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed"),
]

FORMS = {
    "pcma": ("8", "PCMA/8000", ""),
    "pcmu": ("0", "PCMU/8000", ""),
    "aac": (
        "102",
        "MPEG4-GENERIC/8000/1",
        "a=fmtp:102 mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1588\n",
    ),
}


@pytest.mark.parametrize("codec", FORMS)
async def test_r134_ffmpeg_hears_the_tone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    number, encoding, fmtp = FORMS[codec]
    port = free_port_pair()
    sdp, heard = tmp_path / "talk.sdp", tmp_path / "heard.wav"
    sdp.write_text(
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=Talk\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=audio {port} RTP/AVP {number}\na=rtpmap:{number} {encoding}\n{fmtp}"
    )

    async def elsewhere(self: Ear, host: str, transport: TalkTransport) -> int:
        self.port = port
        return port

    monkeypatch.setattr(Ear, "open", elsewhere)
    ffmpeg = await asyncio.create_subprocess_exec(
        "ffmpeg", "-v", "error", "-protocol_whitelist", "file,udp,rtp", "-i", str(sdp), "-t", "3",
        "-ac", "1", "-ar", "8000", "-c:a", "pcm_s16le", str(heard),
    )  # fmt: skip
    try:
        async with talk_bench(tmp_path, talk_codec=codec) as bench:
            begun = await bench.start()
            bench.talks.feed(begun["id"], tone(1.0), 8_000)
            await until(lambda: bench.talks.get(begun["id"]).spoken_s >= 1.0)
            async with asyncio.timeout(30):
                assert await ffmpeg.wait() == 0
    finally:
        if ffmpeg.returncode is None:
            ffmpeg.kill()
            await ffmpeg.wait()
    with wave.open(str(heard)) as source:
        sound = loud_part(source.readframes(source.getnframes()))
    assert len(sound) / 16_000 == pytest.approx(1.0, abs=0.1)
    assert heard_level(sound, 440.0) == pytest.approx(12_000, rel=0.2)
