"""Program streams of muxers that this project did not write: FFmpeg's `vob` and `mpeg`, GStreamer's `mpegpsmux`.

`clip(name)` makes one of `CLIPS` with the program that its recipe names (once; it is kept in a temporary directory)
and returns its path. Two are made from another one by `one_pes_for_each_nal` and `without_map`, which work on the
bytes with the small reader of this module, not with the gateway's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gb28181gw.media.tracks import Codec

FPS = 25
FRAMES = 100
"""Of every clip: four seconds."""
GOP = 25
PACK, SYSTEM_HEADER, STREAM_MAP, END = 0xBA, 0xBB, 0xBC, 0xB9

muxers_missing = not all(shutil.which(program) for program in ("ffmpeg", "ffprobe", "gst-launch-1.0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One file and what is in it."""

    name: str
    codec: Codec
    size: tuple[int, int]
    b_frames: bool
    audio: Codec | None = None
    """Sound that the gateway can play; what FFmpeg's muxer takes (layer II, LPCM, AC-3) no GB/T 28181 device sends."""
    recipe: tuple[str, ...] = ()
    """Command line, without the name of the file at its end."""
    source: str = ""
    """Name of the clip that it is made from."""
    edit: Callable[[bytes], bytes] | None = None


def _ffmpeg(muxer: str, size: str, video: str, audio: str = "") -> tuple[str, ...]:
    sound = f"-f lavfi -i sine=f=440:r=48000:d={FRAMES // FPS}" if audio else ""
    return tuple(
        f"ffmpeg -y -v error -f lavfi -i testsrc2=s={size}:r={FPS}:d={FRAMES // FPS} {sound} {video} "
        f"-g {GOP} -pix_fmt yuv420p {audio} -f {muxer}".split()
    )


def _x264(b_frames: int) -> str:
    return f"-c:v libx264 -preset veryfast -threads 2 -sc_threshold 0 -bf {b_frames}"


def _x265(b_frames: int) -> str:
    return (
        "-c:v libx265 -preset ultrafast -x265-params "
        f"keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop=0:bframes={b_frames}:b-adapt=0:log-level=none"
    )


def _gstreamer(caps: str = "", sound: bool = False) -> tuple[str, ...]:
    """Key frames of more than 64 kB, so that they need several PES packets; two slices a picture."""
    tail = (
        "audiotestsrc num-buffers=188 samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=1 ! voaacenc ! "
        "aacparse ! mux. "
    )
    return tuple(
        "gst-launch-1.0 -q mpegpsmux name=mux "
        f"videotestsrc pattern=zone-plate kx2=20 ky2=20 kt=1 num-buffers={FRAMES} ! "
        f"video/x-raw,width=640,height=360,framerate={FPS}/1 ! "
        f"x264enc bframes=2 key-int-max={GOP} speed-preset=veryfast pass=quant quantizer=30 threads=2 "
        f"option-string=ipratio=8:scenecut=0:slices=2 ! h264parse ! {caps} mux. "
        f"{tail if sound else ''} mux. ! filesink location=".split()
    )


# --- the structure ------------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """A header or a PES packet (ISO 13818-1 2.5.3)."""

    code: int
    data: bytes

    @property
    def payload_at(self) -> int:
        """Of an MPEG-2 PES packet: where its elementary stream begins."""
        return 9 + self.data[8]


def units(stream: bytes) -> Iterator[Unit]:
    """All units of a well-formed MPEG-2 program stream; joined they are the stream."""
    position = 0
    while position < len(stream):
        assert stream[position : position + 3] == b"\0\0\1", f"no header at byte {position}"
        code = stream[position + 3]
        if code == PACK:
            end = position + 14 + (stream[position + 13] & 7)
        elif code == END:
            end = position + 4
        else:
            end = position + 6 + int.from_bytes(stream[position + 4 : position + 6], "big")
        yield Unit(code, stream[position:end])
        position = end


def without_map(stream: bytes) -> bytes:
    """MED-02."""
    return b"".join(unit.data for unit in units(stream) if unit.code != STREAM_MAP)


def one_pes_for_each_nal(stream: bytes) -> bytes:
    """MED-06: every NAL unit of a picture in a PES packet of its own, all with the times of the picture."""
    return b"".join(
        b"".join(_split(unit)) if 0xE0 <= unit.code <= 0xEF else unit.data for unit in units(stream)
    )


def _split(unit: Unit) -> Iterator[bytes]:
    flags, header = unit.data[6:9], unit.data[9 : unit.payload_at]
    payload = unit.data[unit.payload_at :]
    starts = sorted({0, *nal_starts(payload)})  # a NAL unit may go on from the packet before
    for start, stop in zip(starts, [*starts[1:], len(payload)], strict=True):
        body = flags + header + payload[start:stop]
        yield unit.data[:4] + len(body).to_bytes(2, "big") + body


def nal_starts(payload: bytes) -> list[int]:
    """Places of the start codes, with their leading zero."""
    starts = []
    found = payload.find(b"\0\0\1")
    while found >= 0:
        starts.append(found - 1 if found and payload[found - 1] == 0 else found)
        found = payload.find(b"\0\0\1", found + 3)
    return starts


def nal_units(access_unit: bytes) -> list[bytes]:
    """NAL units without start codes and without trailing zeros."""
    return [part for piece in access_unit.split(b"\0\0\1") if (part := piece.rstrip(b"\0"))]


# --- the clips ----------------------------------------------------------------------------------------------------

CLIPS = {
    clip.name: clip
    for clip in (
        Clip(
            name="vob-h264",
            codec=Codec.H264,
            size=(640, 360),
            b_frames=False,
            recipe=_ffmpeg("vob", "640x360", _x264(0)),
        ),
        # Several small pictures in one PES: most have no times of their own.
        Clip(
            name="vob-h264-b-small-mp2",
            codec=Codec.H264,
            size=(320, 180),
            b_frames=True,
            recipe=_ffmpeg("vob", "320x180", _x264(2), "-c:a mp2"),
        ),
        Clip(
            name="vob-h265-b-lpcm",
            codec=Codec.H265,
            size=(640, 360),
            b_frames=True,
            recipe=_ffmpeg("vob", "640x360", _x265(2), "-c:a pcm_s16be"),
        ),
        # ISO 11172-1: other pack and packet headers.
        Clip(
            name="mpeg1-h264-b-mp2",
            codec=Codec.H264,
            size=(640, 360),
            b_frames=True,
            recipe=_ffmpeg("mpeg", "640x360", _x264(2), "-c:a mp2"),
        ),
        Clip(
            name="mpeg1-h265",
            codec=Codec.H265,
            size=(640, 360),
            b_frames=False,
            recipe=_ffmpeg("mpeg", "640x360", _x265(0)),
        ),
        Clip(
            name="gstreamer-h264-b-aac",
            codec=Codec.H264,
            size=(640, 360),
            b_frames=True,
            audio=Codec.AAC,
            recipe=_gstreamer(sound=True),
        ),
        Clip(
            name="gstreamer-nal-aligned",
            codec=Codec.H264,
            size=(640, 360),
            b_frames=True,
            recipe=_gstreamer("video/x-h264,stream-format=byte-stream,alignment=nal !"),
        ),
        Clip(
            name="one-pes-a-nal",
            codec=Codec.H264,
            size=(640, 360),
            b_frames=True,
            audio=Codec.AAC,
            source="gstreamer-h264-b-aac",
            edit=one_pes_for_each_nal,
        ),
        Clip(
            name="no-map",
            codec=Codec.H264,
            size=(640, 360),
            b_frames=True,
            audio=Codec.AAC,
            source="gstreamer-h264-b-aac",
            edit=without_map,
        ),
    )
}


def clip(name: str) -> Path:
    """The file of a clip. Made in one go or not at all, for tests that run side by side."""
    wanted = CLIPS[name]
    directory = Path(tempfile.gettempdir()) / f"gb28181gw-test-media-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if wanted.edit is not None:
        source = clip(wanted.source)
        file = source.with_name(f"{name}-{source.stem.rpartition('-')[2]}.ps")
        file.with_suffix(f".{os.getpid()}").write_bytes(wanted.edit(source.read_bytes()))
    else:
        recipe = hashlib.sha256(" ".join(wanted.recipe).encode()).hexdigest()[:12]
        file = directory / f"{name}-{recipe}.ps"
        if file.exists():
            return file
        draft = str(file.with_suffix(f".{os.getpid()}"))
        *command, last = wanted.recipe
        # FFmpeg takes the name as a word of its own, GStreamer as the end of a property.
        command += [last + draft] if last.endswith("=") else [last, draft]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    file.with_suffix(f".{os.getpid()}").rename(file)
    return file
