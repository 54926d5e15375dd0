"""What foreign players make of fragmented MP4 and MPEG-TS: ffprobe and ffmpeg of the host."""

from __future__ import annotations

import shutil

import pytest

from gb28181gw.media import native
from gb28181gw.media.engine import MediaTransport
from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire.ps_mux import PsMuxer
from tests.interop.test_outputs_ffprobe import device, endless, probe, run
from tests.support import plane
from tests.support.media import audio_clip, video_clip
from tests.support.outputs import CHANNEL, DEVICE, Bench, bench

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe"),
]


@pytest.fixture(params=["python", "native"], autouse=True)
def both_planes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "native" and not native.is_built():
        pytest.skip("the native plane was not built")
    monkeypatch.setattr(plane, "selected", request.param)


def url(b: Bench, extension: str, query: str = "") -> str:
    return f"http://127.0.0.1:{b.port}/live/{DEVICE}_{CHANNEL}.{extension}?token=good{query}"


@pytest.mark.parametrize(
    ("extension", "query", "video", "audio"),
    [
        ("mp4", "", Codec.H264, Codec.PCMA),
        ("mp4", "", Codec.H265, Codec.AAC),
        ("ts", "&audio=aac", Codec.H264, Codec.PCMA),
        ("ts", "", Codec.H265, Codec.AAC),
    ],
)
async def test_ffmpeg_decodes_without_an_error_line(
    extension: str, query: str, video: Codec, audio: Codec
) -> None:
    sound = audio_clip(audio)[:50]  # ends where a picture ends
    turn = len(sound) * (sound[1].dts_90k - sound[0].dts_90k)
    pictures = [frame for frame in video_clip(video, frames=200) if frame.dts_90k < turn]
    frames = endless(tuple(sound), tuple(pictures), turn_90k=turn)
    muxer = PsMuxer(video=video, audio=audio)
    async with bench() as b, device(b, MediaTransport.UDP, frames, muxer):
        streams, complaints = await probe(url(b, extension, query))
        assert streams["video"]["codec_name"] == {Codec.H264: "h264", Codec.H265: "hevc"}[video]
        assert (streams["video"]["width"], streams["video"]["height"]) == (320, 240)
        assert streams["audio"]["codec_name"] == "aac"
        assert streams["audio"]["sample_rate"] == "8000"
        assert complaints == ""
        command = ["ffmpeg", "-v", "warning", "-i", url(b, extension, query), "-t", "6", "-f", "null", "-"]
        _, err = await run(*command)
        assert err == ""
