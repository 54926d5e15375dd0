"""What we write is read by FFmpeg without a complaint: program streams and FLV."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import av
import pytest

from gb28181gw.media.tracks import Codec, Frame, TrackKind
from gb28181gw.media.wire.flv import FlvMuxer
from tests.support.media import audio_clip, interleave, ps_stream, video_clip

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not all(map(shutil.which, ("ffmpeg", "ffprobe"))), reason="a foreign program is not installed"
    ),
]


def _probe(path: Path, *, count: bool = True) -> tuple[dict[str, dict[str, str]], str]:
    """Streams by kind, and everything that ffprobe complained about while it decoded the whole file."""
    command = ["ffprobe", "-v", "warning", "-show_streams", "-of", "json"]
    if count:
        command += ["-count_frames"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True, timeout=60)
    return {stream["codec_type"]: stream for stream in json.loads(done.stdout)["streams"]}, done.stderr


def _flv(frames: Sequence[Frame], hevc: str = "enhanced") -> bytes:
    tracks = {frame.track.kind: frame.track for frame in frames}
    muxer = FlvMuxer(hevc=hevc)
    return muxer.header(tracks.values()) + b"".join(muxer.mux(frame) for frame in frames)


@pytest.mark.parametrize("b_frames", [0, 2])
def test_ffprobe_reads_our_program_stream_h264(tmp_path: Path, b_frames: int) -> None:
    clip = video_clip(Codec.H264, frames=50, gop=25, b_frames=b_frames, noise=20)
    path = tmp_path / "ours.ps"
    path.write_bytes(b"".join(ps_stream(clip)))
    streams, complaints = _probe(path)
    assert complaints == ""
    assert (streams["video"]["codec_name"], streams["video"]["nb_read_frames"]) == ("h264", "50")


def test_pyav_reads_our_program_stream_with_its_times() -> None:
    for codec in (Codec.H264, Codec.H265):
        clip = video_clip(codec, frames=50, gop=25, b_frames=2)
        data = io.BytesIO(b"".join(ps_stream(clip)))
        with av.open(data, format="mpeg") as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        assert [bytes(packet) for packet in packets] == [frame.payload for frame in clip]
        assert [(packet.pts, packet.dts) for packet in packets] == [(f.pts_90k, f.dts_90k) for f in clip]


@pytest.mark.parametrize(("codec", "name"), [(Codec.PCMA, "pcm_alaw"), (Codec.AAC, "aac")])
def test_pyav_reads_our_audio_in_a_program_stream(codec: Codec, name: str) -> None:
    sound = audio_clip(codec)
    data = io.BytesIO(b"".join(ps_stream(interleave(video_clip(Codec.H264), sound))))
    with av.open(data, format="mpeg", options={"probesize": "5000000"}) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == name
        payload = b"".join(bytes(packet) for packet in container.demux(stream))
    wanted = b"".join(frame.payload for frame in sound)
    if codec is Codec.PCMA:
        assert payload == wanted
    else:
        assert len(payload) == len(wanted) + 7 * len(sound)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("codec", "name"), [(Codec.PCMA, "pcm_alaw"), (Codec.PCMU, "pcm_mulaw"), (Codec.AAC, "aac")]
)
def test_ffprobe_reads_our_flv_h264(tmp_path: Path, codec: Codec, name: str, b_frames: int) -> None:
    clip = video_clip(Codec.H264, frames=50, gop=25, b_frames=b_frames)
    sound = audio_clip(codec, rate=44100 if codec is Codec.AAC else 8000)
    path = tmp_path / "ours.flv"
    path.write_bytes(_flv(interleave(clip, sound)))
    streams, complaints = _probe(path)
    assert complaints == ""
    video, audio = streams["video"], streams["audio"]
    assert (video["codec_name"], video["nb_read_frames"]) == ("h264", "50")
    assert (video["width"], video["height"], video["avg_frame_rate"]) == (320, 240, "25/1")
    assert (audio["codec_name"], int(audio["nb_read_frames"])) == (name, len(sound))
    assert audio["sample_rate"] == str(sound[0].track.sample_rate)


@pytest.mark.parametrize("hevc", ["enhanced"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_pyav_reads_our_flv_h265(hevc: str, b_frames: int) -> None:
    clip = video_clip(Codec.H265, frames=50, gop=25, b_frames=b_frames)
    with av.open(io.BytesIO(_flv(interleave(clip, audio_clip(Codec.PCMA)), hevc)), format="flv") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "hevc"
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert [(packet.pts, packet.dts) for packet in packets] == [
            (f.pts_90k // 90, f.dts_90k // 90) for f in clip
        ]
        stream.codec_context.thread_count = 1
        pictures = [picture for packet in packets for picture in stream.codec_context.decode(packet)]
        pictures += stream.codec_context.decode(None)
    assert len(pictures) == 50
    assert {(picture.width, picture.height) for picture in pictures} == {(320, 240)}


def test_pyav_reads_our_flv_with_a_change_of_size() -> None:
    big = video_clip(Codec.H264, frames=10, gop=10)
    small = video_clip(Codec.H264, width=160, height=128, frames=10, gop=10)
    muxer = FlvMuxer(base_90k=0)
    data = muxer.header([big[0].track]) + b"".join(muxer.mux(frame) for frame in big)
    for frame in small:
        moved = Frame(
            track=frame.track,
            pts_90k=frame.pts_90k + 36000,
            dts_90k=frame.dts_90k + 36000,
            key=frame.key,
            payload=frame.payload,
        )
        data += muxer.mux(moved)
    with av.open(io.BytesIO(data), format="flv") as container:
        pictures = list(container.decode(video=0))
    assert [picture.width for picture in pictures] == [320] * 10 + [160] * 10


def test_ffmpeg_copies_our_flv_to_mp4(tmp_path: Path) -> None:
    """A strict reader of the sequence header and of the times."""
    clip = video_clip(Codec.H264, frames=50, gop=25, b_frames=2)
    source, target = tmp_path / "ours.flv", tmp_path / "copy.mp4"
    source.write_bytes(_flv(clip))
    done = subprocess.run(
        ["ffmpeg", "-v", "warning", "-y", "-i", str(source), "-c", "copy", str(target)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    streams, complaints = _probe(target)
    assert complaints == ""
    assert streams["video"]["nb_read_frames"] == "50"
    assert next(iter(streams.values()))["codec_type"] == TrackKind.VIDEO
