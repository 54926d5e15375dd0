"""What RTP sinks send, read by ffmpeg: elementary streams by SDP, program streams as the file that RTP carries."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import pytest

from gb28181gw.media.engine import MediaTransport, RtpPacking, RtpSinkSpec, RtpSinkUpdate
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.media.tracks import Codec, Frame
from tests.support.plane import Events, audio_frames, free_port_pair, interleave, until, video_frames
from tests.support.rtp_peer import UdpPeer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed"),
]


@pytest.fixture
async def plane() -> AsyncIterator[ReferencePlane]:
    made = ReferencePlane()
    made.create_stream("s", Events())
    yield made
    await made.close()


async def send(plane: ReferencePlane, remote: tuple[str, int], **changes: Any) -> None:
    spec = RtpSinkSpec(
        transport=MediaTransport.UDP,
        host="127.0.0.1",
        port=free_port_pair(),
        ssrc=7,
        remote=remote,
        **changes,
    )
    made = await plane.add_rtp_sink("s", spec, Events())
    plane.update_rtp_sink(made.id, RtpSinkUpdate(sending=True))


def push(plane: ReferencePlane, frame: Frame, later_90k: int = 0) -> None:
    plane.push(
        "s", frame.track, frame.pts_90k + later_90k, frame.dts_90k + later_90k, frame.payload, key=frame.key
    )


def streams(text: str) -> dict[str, dict[str, Any]]:
    return {stream["codec_type"]: stream for stream in json.loads(text)["streams"]}


@pytest.mark.parametrize("video", [Codec.H264, Codec.H265])
async def test_muxed_ps_is_a_program_stream_to_ffmpeg(
    plane: ReferencePlane, tmp_path: Path, video: Codec
) -> None:
    peer = UdpPeer()
    await send(plane, peer.remote)
    for frame in interleave(video_frames(video), audio_frames()):
        push(plane, frame)
    await until(lambda: peer.payload.endswith(audio_frames()[-1].payload))
    file = tmp_path / "sent.ps"
    file.write_bytes(peer.payload)
    peer.close()
    seen = subprocess.run(
        ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-count_frames", "-f", "mpeg", str(file)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = streams(seen.stdout)
    assert found["video"]["codec_name"] == ("hevc" if video is Codec.H265 else "h264")
    assert int(found["video"]["nb_read_frames"]) == 50
    # Debian's ffmpeg 5.1 does not know G.711 in a program stream; the one inside PyAV does.
    with av.open(str(file), format="mpeg", options={"probesize": "5000000"}) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "pcm_alaw"
        heard = b"".join(bytes(packet) for packet in container.demux(sound))
    assert heard == b"".join(frame.payload for frame in audio_frames())


@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265, Codec.PCMA])
async def test_an_elementary_stream_is_decoded_by_its_sdp(
    plane: ReferencePlane, tmp_path: Path, codec: Codec
) -> None:
    port = free_port_pair()
    number = 8 if codec is Codec.PCMA else 96
    kind, clock = ("audio", 8000) if codec is Codec.PCMA else ("video", 90000)
    sdp = tmp_path / "sent.sdp"
    sdp.write_text(
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm={kind} {port} RTP/AVP {number}\n"
        f"a=rtpmap:{number} {codec.value.upper()}/{clock}\n"
    )
    await send(plane, ("127.0.0.1", port), packing=RtpPacking.ES, codec=codec.value, payload_type=number)
    ffmpeg = await asyncio.create_subprocess_exec(
        "ffmpeg", "-v", "error", "-protocol_whitelist", "file,udp,rtp", "-i", str(sdp),
        "-t", "2", "-f", "framemd5", "-",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def play() -> None:
        frames = audio_frames() if codec is Codec.PCMA else video_frames(codec)
        round_number = 0
        while True:
            for frame in frames:
                push(plane, frame, round_number * 50 * 3600)
                await asyncio.sleep(0.02)
            round_number += 1

    playing = asyncio.create_task(play())
    try:
        out, errors = await asyncio.wait_for(ffmpeg.communicate(), 60)
    finally:
        playing.cancel()
    decoded = [line for line in out.decode().splitlines() if not line.startswith("#")]
    assert ffmpeg.returncode == 0
    assert len(decoded) >= 40, errors.decode()
    if codec is not Codec.PCMA:
        assert f"#dimensions 0: {320}x{240}" in out.decode()
