"""Program streams of muxers that we did not write, byte for byte: through our demuxer, and through a running gateway.

The clips play a few at once; each is watched for five seconds on its play URL, so that the file's end and its new
beginning (MED-21) are seen too. FFmpeg 5.1 reads H.264; H.265 in FLV takes the newer one inside PyAV.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from gb28181gw.media.tracks import Codec, TrackKind
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.units import EsUnit
from gb28181gw.sim.media_sender import PsFileSource
from gb28181gw.sim.ps_file import read_ps_file
from tests.support.foreign_ps import (
    CLIPS,
    FPS,
    FRAMES,
    STREAM_MAP,
    Clip,
    clip,
    muxers_missing,
    nal_units,
    units,
)
from tests.support.gateway import GatewayProcess, running_gateway, simulated_devices

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(muxers_missing, reason="ffmpeg, ffprobe or gst-launch-1.0 is not installed"),
]

WATCHED_S = 5
FRAME_MS = 1000 // FPS
TRANSPORTS = {"gstreamer-h264-b-aac": "tcp-passive", "vob-h265-b-lpcm": "tcp-active"}
"""Of the others: UDP."""
AT_ONCE = 4
"""Clips that play at once."""
by_name = pytest.mark.parametrize("name", list(CLIPS))


# --- the demuxer alone --------------------------------------------------------------------------------------------


def demuxed(name: str) -> tuple[PsDemuxer, list[EsUnit]]:
    """What our demuxer makes of the file, cut as in RTP."""
    data = clip(name).read_bytes()
    demuxer = PsDemuxer()
    found = [unit for start in range(0, len(data), 1400) for unit in demuxer.feed(data[start : start + 1400])]
    return demuxer, found + demuxer.flush()


def of_ffmpeg(name: str, kind: str) -> list[av.Packet[Any]]:
    """The packets that FFmpeg's demuxer finds in the file."""
    # Without a map FFmpeg guesses the audio codec wrongly: the clip that was cut tells what is in it.
    wanted = CLIPS[name].source if kind == "audio" else ""
    with av.open(str(clip(wanted or name)), format="mpeg") as container:
        stream = container.streams.best(kind)
        return [packet for packet in container.demux(stream) if packet.size]


@by_name
def test_med06_access_units_and_times_are_those_that_ffmpeg_finds(name: str) -> None:
    demuxer, found = demuxed(name)
    ours = [unit for unit in found if unit.kind is TrackKind.VIDEO]
    theirs = of_ffmpeg(name, "video")
    assert len(ours) == len(theirs) == FRAMES
    assert [nal_units(unit.payload) for unit in ours] == [nal_units(bytes(packet)) for packet in theirs]
    assert [unit.key for unit in ours] == [packet.is_keyframe for packet in theirs]
    for number, (unit, packet) in enumerate(zip(ours, theirs, strict=True)):
        if unit.pts_90k is None:
            continue
        # Where two pictures begin in one PES, FFmpeg's reader may give its times to the first, to both, or to none.
        by_rule = unit.dts_90k == (ours[0].dts_90k or 0) + number * 3600
        assert (unit.pts_90k, unit.dts_90k) == (packet.pts, packet.dts) or by_rule, number
    assert sum(unit.pts_90k is None for unit in ours) <= sum(packet.pts is None for packet in theirs) + 1
    assert not any(unit.damaged for unit in ours)
    assert demuxer.counters.errors == 0


@pytest.mark.parametrize("name", [clip.name for clip in CLIPS.values() if clip.audio is Codec.AAC])
def test_med02_aac_is_found_with_and_without_map(name: str) -> None:
    _, found = demuxed(name)
    ours = [unit for unit in found if unit.kind is TrackKind.AUDIO]
    theirs = of_ffmpeg(name, "audio")
    # Without a map the second packet proves that the first was no accident.
    missing = len(theirs) - len(ours)
    assert missing == (name == "no-map")
    assert [unit.pts_90k for unit in ours] == [packet.pts for packet in theirs[missing:]]
    assert all(bytes(b).endswith(a.payload) for a, b in zip(ours, theirs[missing:], strict=True))


def test_the_clips_are_what_they_are_said_to_be() -> None:
    plain = list(units(clip("gstreamer-h264-b-aac").read_bytes()))
    cut = list(units(clip("one-pes-a-nal").read_bytes()))
    assert any(unit.code == STREAM_MAP for unit in plain)
    assert max(len(unit.data) for unit in plain) > 65_500  # a key frame in several PES
    assert not any(unit.code == STREAM_MAP for unit in units(clip("no-map").read_bytes()))
    video = [unit.data[unit.payload_at :] for unit in cut if unit.code == 0xE0]
    assert all(len(nal_units(payload)) == 1 for payload in video)
    assert len(video) > 2 * FRAMES


# --- the sender ---------------------------------------------------------------------------------------------------


@by_name
def test_the_simulator_sends_the_bytes_of_the_file(name: str) -> None:
    source = PsFileSource(read_ps_file(clip(name)))
    for turn in range(2):
        bursts = [b for n in range(turn * FRAMES, (turn + 1) * FRAMES) for b in source.bursts(n, 0)]
        assert b"".join(chunk for burst in bursts for chunk in burst.chunks) == clip(name).read_bytes()
        assert max(len(chunk) for burst in bursts for chunk in burst.chunks) <= 1400
        times = [burst.timestamp_90k for burst in bursts]
        assert times == sorted(set(times))
        assert times[0] == turn * FRAMES * 3600


# --- through a gateway --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a player met on the play URL."""

    codec: str
    size: tuple[int, int]
    fps: str
    audio: str
    decoded: list[int]
    """Presentation times in ms, in the order in which the decoder gave the pictures out."""
    packets: list[tuple[int, int]]
    """(pts, dts) in ms, in the order of the stream."""
    errors: str
    stream: dict[str, Any]
    """The API's view after the watching."""


def by_ffprobe(url: str) -> dict[str, Any]:
    done = subprocess.run(
        [
            "ffprobe", "-v", "error", "-show_streams", "-show_packets", "-show_frames",
            "-read_intervals", f"%+{WATCHED_S}", "-rw_timeout", "15000000", "-of", "json", url,
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    entries = [
        entry for entry in said["packets_and_frames"] if entry.get("codec_type", entry.get("media_type"))
    ]
    video = next(stream for stream in said["streams"] if stream["codec_type"] == "video")
    audio = next((stream["codec_name"] for stream in said["streams"] if stream["codec_type"] == "audio"), "")
    packets = [entry for entry in entries if entry["type"] == "packet" and entry["codec_type"] == "video"]
    frames = [entry for entry in entries if entry["type"] == "frame" and entry["media_type"] == "video"]
    return {
        "codec": video["codec_name"],
        "size": (video["width"], video["height"]),
        "fps": video["avg_frame_rate"],
        "audio": audio,
        "decoded": [int(frame["pts"]) for frame in frames],
        "packets": [(int(packet["pts"]), int(packet["dts"])) for packet in packets],
        "errors": done.stderr,
    }


def by_pyav(url: str) -> dict[str, Any]:
    packets: list[tuple[int, int]] = []
    decoded: list[int] = []
    with av.open(url, timeout=20) as source:
        video = source.streams.video[0]
        for packet in source.demux(video):
            if packet.pts is None or packet.dts is None:
                break
            packets.append((packet.pts, packet.dts))
            decoded += [int(frame.pts) for frame in packet.decode() if frame.pts is not None]
            if packet.dts - packets[0][1] >= WATCHED_S * 1000:
                break
        return {
            "codec": video.codec_context.name,
            "size": (video.codec_context.width, video.codec_context.height),
            "fps": f"{video.average_rate}/1",
            "audio": next((stream.codec_context.name for stream in source.streams.audio), ""),
            "decoded": decoded,
            "packets": packets,
            "errors": "",
        }


def watch(gateway: GatewayProcess, wanted: Clip, device_id: str) -> Seen:
    """Play one clip from a simulated device of its own; errors of the decoder are in the answer."""
    with simulated_devices(gateway, "--id", device_id, "--media", str(clip(wanted.name))):
        gateway.wait_online(device_id, channels=1, limit_s=60)
        channel = gateway.get(f"/devices/{device_id}/channels")["items"][0]["id"]
        answer = gateway.live(device_id, channel, transport=TRANSPORTS.get(wanted.name, "udp"))
        look = by_pyav if wanted.codec is Codec.H265 else by_ffprobe
        met = look(answer["urls"]["http_flv"])
        stream = gateway.get(f"/streams/{answer['id']}")
        assert gateway.api.delete(f"/api/v1/streams/{answer['id']}").status_code == 204
        return Seen(stream=stream, **met)


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Seen]]]:
    """What was seen of each clip, or what went wrong with it."""
    directory: Path = tmp_path_factory.mktemp("foreign")
    with running_gateway(directory, media={"idle_stop_s": 2}) as gateway, ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            wanted.name: pool.submit(watch, gateway, wanted, f"3402000000118000{number:04d}")
            for number, wanted in enumerate(CLIPS.values(), start=201)
        }


@by_name
def test_med02_med06_foreign_streams_play(plays: dict[str, Future[Seen]], name: str) -> None:
    seen, wanted = plays[name].result(90), CLIPS[name]
    assert seen.codec == ("hevc" if wanted.codec is Codec.H265 else "h264")
    assert (seen.size, seen.fps) == (wanted.size, f"{FPS}/1")
    assert seen.errors == ""
    assert len(seen.decoded) >= 75
    assert seen.audio == (wanted.audio or "")
    assert seen.stream["rtp"]["lost"] == 0
    assert seen.stream["transport"] == TRANSPORTS.get(name, "udp")


@by_name
def test_med37_pictures_are_decoded_and_shown_in_order(plays: dict[str, Future[Seen]], name: str) -> None:
    seen = plays[name].result(90)
    assert all(after > before for (_, before), (_, after) in pairwise(seen.packets))
    assert all(pts >= dts for pts, dts in seen.packets)
    reordered = sum(after < before for (before, _), (after, _) in pairwise(seen.packets))
    assert (reordered > FRAMES // 4) == CLIPS[name].b_frames
    steps = [after - before for before, after in pairwise(seen.decoded)]
    uneven = [step for step in steps if abs(step - FRAME_MS) > 2]
    # Once in the watched time the file begins anew.
    assert len(uneven) <= 1, steps
    assert all(0 < step <= 10 * FRAME_MS for step in uneven), steps
