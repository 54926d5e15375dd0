"""Program streams of foreign muxers: FFmpeg and GStreamer write, libavformat and our demuxer read the same.

libavformat (in PyAV) is the oracle for payloads and times. Where a picture has no time of its own in the stream
libavformat makes one up; ours says None. Once in a while it loses one that is there.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import av
import pytest

from gb28181gw.media.tracks import TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.clock import StreamClock
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.units import EsUnit

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not all(map(shutil.which, ("ffmpeg", "gst-launch-1.0"))), reason="a foreign program is not installed"
    ),
]

FRAMES = 75
Packet = tuple[int | None, int | None, bool, bytes]

FFMPEG: dict[str, tuple[str, str]] = {
    "b_frames": ("-c:v libx264 -bf 2 -g 25 -b:v 1M", "vob"),
    "mpeg1_system": ("-c:v libx264 -bf 2 -g 25 -b:v 1M", "mpeg"),
    "several_pictures_in_a_pes": ("-c:v libx264 -tune zerolatency -g 25 -b:v 100k", "vob"),
    "access_unit_delimiters": ("-c:v libx264 -aud 1 -bf 0 -g 25 -b:v 4M", "vob"),
    "slices": ("-c:v libx264 -bf 3 -b_strategy 0 -x264-params slices=4 -g 25 -b:v 2M", "vob"),
    "interlaced": ("-c:v libx264 -flags +ilme+ildct -x264-params tff=1 -g 25 -b:v 2M", "vob"),
    "h265": ("-c:v libx265 -x265-params log-level=error -g 25 -b:v 1M", "vob"),
    "h265_delimiters": ("-c:v libx265 -x265-params log-level=error:aud=1:slices=3 -g 25 -b:v 3M", "vob"),
}

GSTREAMER: dict[str, tuple[str, str]] = {
    "b_frames": ("x264enc bframes=2 key-int-max=25", "au"),
    "no_delay": ("x264enc tune=zerolatency key-int-max=25 bitrate=4000", "au"),
    "one_pes_for_each_nal_unit": ("x264enc bframes=2 key-int-max=25", "nal"),
}


def _oracle(path: Path, kind: str = "video") -> list[Packet]:
    options = {"probesize": "50000000", "analyzeduration": "50000000"}
    with av.open(str(path), options=options) as container:
        return [
            (packet.pts, packet.dts, packet.is_keyframe, bytes(packet))
            for packet in container.demux()
            if packet.size and packet.stream.type == kind
        ]


def _ours(data: bytes, size: int = 1400) -> tuple[PsDemuxer, list[EsUnit]]:
    demuxer = PsDemuxer()
    units = [unit for start in range(0, len(data), size) for unit in demuxer.feed(data[start : start + size])]
    return demuxer, units + demuxer.flush()


def _assert_video_same(units: list[EsUnit], packets: list[Packet]) -> None:
    video = [unit for unit in units if unit.kind is TrackKind.VIDEO]
    assert len(video) == len(packets) == FRAMES
    for number, (unit, (pts, dts, key, data)) in enumerate(zip(video, packets, strict=True)):
        assert list(nal.split_annexb(unit.payload)) == list(nal.split_annexb(data)), number
        assert unit.key == key, number
        if unit.pts_90k is not None and pts is not None:
            assert (unit.pts_90k, unit.dts_90k) == (pts, dts), number
    assert sum(unit.pts_90k is not None for unit in video) >= FRAMES // 4
    # The stream's clock follows the device's exactly and fills in what is missing. GStreamer leaves out the DTS of
    # the first pictures, which would be negative, so the first group may need one correction.
    clock = StreamClock()
    stamped = [clock.stamp(unit)[1] for unit in video]
    assert clock.rebased <= 1
    assert all(later - earlier == 3600 for earlier, later in itertools.pairwise(stamped[5:]))


def _ffmpeg(target: Path, codec: str, container: str, *audio: str) -> None:
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=s=640x360:r=25:d={FRAMES / 25}"]
    if audio:
        command += ["-f", "lavfi", "-i", f"sine=r=48000:d={FRAMES / 25}", *audio]
    else:
        command.append("-an")
    subprocess.run([*command, *codec.split(), "-f", container, str(target)], check=True, timeout=60)


def _gstreamer(target: Path, encoder: str, alignment: str, extra: str = "") -> None:
    pipeline = (
        f"mpegpsmux name=mux ! filesink location={target} videotestsrc num-buffers={FRAMES} ! "
        f"video/x-raw,width=640,height=360,framerate=25/1 ! {encoder} ! h264parse ! "
        f"video/x-h264,stream-format=byte-stream,alignment={alignment} ! queue ! mux. {extra}"
    )
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split()], check=True, timeout=60)


@pytest.mark.parametrize("name", FFMPEG)
def test_ffmpeg_program_stream(name: str, tmp_path: Path) -> None:
    codec, container = FFMPEG[name]
    path = tmp_path / f"{name}.ps"
    _ffmpeg(path, codec, container)
    demuxer, units = _ours(path.read_bytes())
    _assert_video_same(units, _oracle(path))
    assert demuxer.counters.errors == 0
    assert demuxer.counters.dropped_units == 0
    (track,) = demuxer.tracks
    assert (track.width, track.height, track.fps) == (640, 360, 25.0)


@pytest.mark.parametrize("name", GSTREAMER)
def test_gstreamer_program_stream(name: str, tmp_path: Path) -> None:
    encoder, alignment = GSTREAMER[name]
    path = tmp_path / f"{name}.ps"
    _gstreamer(path, encoder, alignment)
    demuxer, units = _ours(path.read_bytes())
    packets = _oracle(path)
    _assert_video_same(units, packets)
    assert demuxer.counters.errors == 0


def test_med02_gstreamer_stream_without_its_maps(tmp_path: Path) -> None:
    path = tmp_path / "mapless.ps"
    _gstreamer(path, "x264enc bframes=2 key-int-max=25", "au")
    data = path.read_bytes()
    stripped = bytearray()
    position = 0
    while (start := data.find(b"\x00\x00\x01\xbc", position)) >= 0:
        stripped += data[position:start]
        position = start + 6 + int.from_bytes(data[start + 4 : start + 6], "big")
    stripped += data[position:]
    assert len(stripped) < len(data)
    demuxer, units = _ours(bytes(stripped))
    _assert_video_same(units, _oracle(path))
    assert demuxer.quirks == {"ps.no_stream_map": 1}


def test_gstreamer_aac_beside_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.ps"
    sound = (
        "audiotestsrc num-buffers=130 ! audio/x-raw,rate=44100 ! avenc_aac ! aacparse ! "
        "audio/mpeg,stream-format=adts ! queue ! mux."
    )
    _gstreamer(path, "x264enc tune=zerolatency key-int-max=25", "au", sound)
    demuxer, units = _ours(path.read_bytes())
    heard = [unit for unit in units if unit.kind is TrackKind.AUDIO]
    packets = _oracle(path, "audio")
    assert [unit.payload for unit in heard] == [data[7:] for _, _, _, data in packets]
    assert all(
        unit.pts_90k is None or pts is None or abs(unit.pts_90k - pts) <= 2
        for unit, (pts, _, _, _) in zip(heard, packets, strict=True)
    )
    assert demuxer.tracks[1].sample_rate == 44100
    assert demuxer.counters.errors == 0


def test_ffmpeg_layer_2_sound_is_left_out_and_named(tmp_path: Path) -> None:
    """What a camera never sends, and what must not be played as G.711 noise."""
    path = tmp_path / "layer2.ps"
    _ffmpeg(path, "-c:v libx264 -g 25 -bf 0", "vob", "-c:a", "mp2")
    demuxer, units = _ours(path.read_bytes())
    _assert_video_same(units, _oracle(path))
    assert all(unit.kind is TrackKind.VIDEO for unit in units)
    assert "ps.unsupported_stream_type" in demuxer.quirks


@pytest.mark.parametrize("size", [1, 13, 2048, 1 << 20])
def test_cuts_of_any_size_give_the_same(size: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.ps"
    _ffmpeg(path, "-c:v libx264 -bf 2 -g 25 -b:v 300k", "vob")
    data = path.read_bytes()
    wanted = [(u.payload, u.pts_90k, u.dts_90k, u.key) for u in _ours(data)[1]]
    assert [(u.payload, u.pts_90k, u.dts_90k, u.key) for u in _ours(data, size)[1]] == wanted
