"""What simulated cameras show: a loop of encoded pictures and sound, made once with PyAV and kept on disk.

A `Loop` holds access units in decode order. It is endless for its users: picture `n` has decode time
``n * 90000 / fps`` for any `n`, so timestamps go on over the seam. Every loop is whole closed GOPs and begins with
a key frame that carries its parameter sets (GB/T 28181-2022 Annex F). One loop serves any number of streams.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av import AudioFrame, AudioResampler, VideoFrame
from av.audio.codeccontext import AudioCodecContext
from av.bitstream import BitStreamFilterContext
from av.video.codeccontext import VideoCodecContext

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.picture import Painter

CLOCK_RATE = 90_000
VERSION = 1
"""Of the file format and of the picture; a change makes cached loops worthless."""
_MAGIC = b"GBSIMLOOP\n"
G711_CHUNK = 320
"""Samples in one G.711 packet: 40 ms, inside the 20-180 ms of Annex C."""

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""


class ContentError(Exception):
    """The content cannot be made: unreadable file, unsupported codec. The text is a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentSpec:
    """What a loop is made from; the key of the cache."""

    video: Codec = Codec.H264
    audio: Codec | None = Codec.PCMA
    width: int = 1280
    height: int = 720
    fps: int = 25
    bitrate_kbps: int = 2000
    gop: int = 50
    b_frames: int = 0
    loop_s: int = 10
    title: str = "CAMERA"
    media_file: Path | None = None

    @property
    def frames(self) -> int:
        """Pictures in the loop: `loop_s` rounded up to whole GOPs."""
        return math.ceil(self.loop_s * self.fps / self.gop) * self.gop


@dataclass(frozen=True, slots=True)
class Picture:
    """One access unit (Annex B). `pts_offset_90k` is what its display time lies after its decode time."""

    data: bytes
    key: bool
    pts_offset_90k: int


@dataclass(frozen=True, slots=True)
class Access:
    """What one step of the picture clock brings: a picture, and the sound that begins within it."""

    number: int
    dts_90k: int
    pts_90k: int
    key: bool
    data: bytes
    audio: tuple[tuple[int, bytes], ...]
    """(pts_90k, payload): raw G.711 samples, or an AAC access unit without ADTS."""


class Content(Protocol):
    """A source of pictures that a sender steps through."""

    video: Codec
    audio: Codec | None
    fps: Fraction
    width: int
    height: int

    def access(self, number: int) -> Access:
        """Picture `number` (from 0, endless) with its sound."""
        ...

    def key_at_or_before(self, number: int) -> int:
        """The number of the last key frame up to `number`."""
        ...

    def newest(self) -> int | None:
        """The last picture that exists; None when all do."""
        ...

    def ready(self, number: int) -> bool:
        """Whether picture `number` exists already."""
        ...

    def want_key(self) -> None:
        """Make the next picture a key frame, where pictures are made on the way."""
        ...


@dataclass(frozen=True, slots=True)
class Sound:
    """Audio packets that repeat for ever, on the same time base as the pictures."""

    packets: tuple[bytes, ...] = ()
    samples: int = 0
    """Samples in each packet."""
    rate: int = 0

    def between(self, start_90k: int, stop_90k: int) -> Iterator[tuple[int, bytes]]:
        """(pts, packet) of those that begin in [start, stop)."""
        if not self.packets:
            return
        step = self.samples * CLOCK_RATE
        index = -(-start_90k * self.rate // step)
        while (pts := index * step // self.rate) < stop_90k:
            if pts >= start_90k:
                yield pts, self.packets[index % len(self.packets)]
            index += 1


class Loop:
    """Encoded pictures and sound that repeat for ever."""

    def __init__(
        self,
        *,
        video: Codec,
        audio: Codec | None,
        fps: Fraction,
        width: int,
        height: int,
        pictures: tuple[Picture, ...],
        sound: Sound = Sound(),
    ) -> None:
        if not pictures or not pictures[0].key:
            raise ContentError("A loop must begin with a key frame.")
        self.video = video
        self.audio = audio
        self.fps = fps
        self.width = width
        self.height = height
        self.pictures = pictures
        self.sound = sound
        self._keys = tuple(index for index, picture in enumerate(pictures) if picture.key)

    @property
    def duration_s(self) -> float:
        return float(len(self.pictures) / self.fps)

    def dts_90k(self, number: int) -> int:
        return int(number * CLOCK_RATE / self.fps)

    def access(self, number: int) -> Access:
        picture = self.pictures[number % len(self.pictures)]
        dts = self.dts_90k(number)
        return Access(
            number=number,
            dts_90k=dts,
            pts_90k=dts + picture.pts_offset_90k,
            key=picture.key,
            data=picture.data,
            audio=tuple(self.sound.between(dts, self.dts_90k(number + 1))),
        )

    def key_at_or_before(self, number: int) -> int:
        loop, index = divmod(number, len(self.pictures))
        last = max(key for key in self._keys if key <= index)
        return loop * len(self.pictures) + last

    def newest(self) -> None:
        """Every picture exists."""

    def ready(self, number: int) -> bool:
        return True

    def want_key(self) -> None:
        """The loop is as it is; a sender jumps to a key frame."""


# --- making -------------------------------------------------------------------------------------------------------


def make(spec: ContentSpec, progress: Progress | None = None) -> Loop:
    """Encode a loop (1 to 10 s of work). Raises ContentError."""
    if spec.media_file is not None:
        return _from_file(spec)
    painter = Painter(spec.width, spec.height, spec.fps, spec.title)
    encoder = open_encoder(spec)
    packets: list[tuple[int, int, bool, bytes]] = []

    def keep(frame: VideoFrame | None) -> None:
        for packet in encoder.encode(frame):
            if packet.pts is None or packet.dts is None:
                raise ContentError("The encoder gave a packet without a time.")
            packets.append((packet.pts, packet.dts, packet.is_keyframe, bytes(packet)))

    total = spec.frames
    for number in range(total):
        picture = painter.paint(
            number, loop_clock(number, spec.fps), f"LOOP {total // spec.fps} S  FRAME {number:04d}"
        )
        picture.pts = number
        picture.time_base = Fraction(1, spec.fps)
        keep(picture)
        if progress is not None:
            progress(number + 1, total)
    keep(None)
    first_dts = packets[0][1]
    pictures = tuple(
        Picture(data, key, (pts - first_dts - index) * CLOCK_RATE // spec.fps)
        for index, (pts, _, key, data) in enumerate(packets)
    )
    seconds = Fraction(total, spec.fps)
    return Loop(
        video=spec.video,
        audio=spec.audio,
        fps=Fraction(spec.fps),
        width=spec.width,
        height=spec.height,
        pictures=pictures,
        sound=make_sound(spec.audio, seconds),
    )


def loop_clock(number: int, fps: int) -> str:
    """Time in the loop as written into the picture: minutes, seconds, hundredths."""
    seconds, frame = divmod(number, fps)
    return f"{seconds // 60:02d}:{seconds % 60:02d}.{frame * 100 // fps:02d}"


def open_encoder(spec: ContentSpec, *, low_delay: bool = False) -> VideoCodecContext:
    """x264 or x265 as a camera would be set: closed GOPs, no scene cuts, parameter sets before every key frame."""
    name = "libx264" if spec.video is Codec.H264 else "libx265"
    if spec.video not in (Codec.H264, Codec.H265):
        raise ContentError(f"No encoder for {spec.video}; choose h264 or h265.")
    encoder = av.CodecContext.create(name, "w")
    if not isinstance(encoder, VideoCodecContext):
        raise ContentError(f"{name} is not a video encoder.")
    encoder.width = spec.width
    encoder.height = spec.height
    encoder.pix_fmt = "yuv420p"
    encoder.framerate = Fraction(spec.fps)
    encoder.time_base = Fraction(1, spec.fps)
    encoder.bit_rate = spec.bitrate_kbps * 1000
    encoder.gop_size = spec.gop
    encoder.max_b_frames = spec.b_frames
    rate = f"vbv-maxrate={spec.bitrate_kbps}:vbv-bufsize={spec.bitrate_kbps}"
    preset = "ultrafast" if low_delay or spec.video is Codec.H265 else "veryfast"
    options = {"preset": preset, "forced-idr": "1"}
    if low_delay:
        options["tune"] = "zerolatency"
    if spec.video is Codec.H264:
        options["profile"] = "main" if not low_delay else "baseline"
        options["x264-params"] = (
            f"keyint={spec.gop}:min-keyint={spec.gop}:scenecut=0:open-gop=0:bframes={spec.b_frames}:{rate}"
        )
    else:
        options["x265-params"] = (
            f"keyint={spec.gop}:min-keyint={spec.gop}:scenecut=0:open-gop=0:bframes={spec.b_frames}:"
            f"repeat-headers=1:info=0:log-level=none:{rate}"
        )
    encoder.options = options
    return encoder


def make_sound(codec: Codec | None, seconds: Fraction) -> Sound:
    """A quiet chord with a beep at the start of every second.

    8 kHz, one channel, as GB/T 28181 prefers for AAC too (Annex C).
    """
    if codec is None:
        return Sound()
    rate = 8000
    return encode_sound(codec, tone(round(seconds * rate), rate), rate)


def tone(samples: int, rate: int) -> bytes:
    """Signed 16-bit samples of the test sound; whole periods a second, so loops of whole seconds have no click."""
    second: list[int] = []
    for index in range(rate):
        time = index / rate
        value = 1800 * math.sin(2 * math.pi * 220 * time) + 1200 * math.sin(2 * math.pi * 330 * time)
        if time < 0.12:
            # The beep is faded in and out over 10 ms.
            envelope = min(1.0, time / 0.01, (0.12 - time) / 0.01)
            value += 9000 * envelope * math.sin(2 * math.pi * 1000 * time)
        second.append(int(value))
    block = struct.pack(f"<{rate}h", *second)
    return (block * (samples // rate + 1))[: samples * 2]


def encode_sound(codec: Codec, pcm: bytes, rate: int) -> Sound:
    """Mono 16-bit samples as packets: raw G.711, or AAC access units."""
    names = {Codec.PCMA: "pcm_alaw", Codec.PCMU: "pcm_mulaw", Codec.AAC: "aac"}
    if codec not in names:
        raise ContentError(f"No encoder for {codec}; choose pcma, pcmu, aac or none.")
    encoder = av.CodecContext.create(names[codec], "w")
    if not isinstance(encoder, AudioCodecContext):
        raise ContentError(f"{names[codec]} is not an audio encoder.")
    encoder.sample_rate = rate
    encoder.layout = "mono"
    encoder.time_base = Fraction(1, rate)
    if codec is Codec.AAC:
        encoder.format = "fltp"
        encoder.bit_rate = 24_000
        # Two rounds, the second kept: the first carries the encoder's priming and would click at the seam.
        rounds, size = 2, 1024
        pcm = pcm[: len(pcm) // 2 // size * size * 2]
    else:
        encoder.format = "s16"
        rounds, size = 1, G711_CHUNK
    resampler = AudioResampler(format=encoder.format, layout="mono", rate=rate, frame_size=size)
    encoded: list[bytes] = []
    position = 0
    for _ in range(rounds):
        for start in range(0, len(pcm), size * 2):
            piece = pcm[start : start + size * 2]
            frame = AudioFrame(format="s16", layout="mono", samples=len(piece) // 2)
            frame.planes[0].update(piece)
            frame.sample_rate = rate
            frame.pts = position
            frame.time_base = Fraction(1, rate)
            position += len(piece) // 2
            for ready in resampler.resample(frame):
                encoded.extend(bytes(packet) for packet in encoder.encode(ready))
    if codec is Codec.AAC:
        encoded.extend(bytes(packet) for packet in encoder.encode(None))
        keep = len(pcm) // (size * 2)
        encoded = encoded[keep : 2 * keep]
    return Sound(tuple(encoded), size, rate)


# --- a file of the user -------------------------------------------------------------------------------------------


def _from_file(spec: ContentSpec) -> Loop:
    """Copy the video of a file into a loop; its sound is encoded again to the codec asked for."""
    path = spec.media_file
    if path is None:
        raise ContentError("No file was named.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ContentError(f"{path} has no video.")
            stream = container.streams.video[0]
            names = {"h264": (Codec.H264, "h264_mp4toannexb"), "hevc": (Codec.H265, "hevc_mp4toannexb")}
            if stream.codec_context.name not in names:
                raise ContentError(
                    f"{path} has {stream.codec_context.name} video; GB/T 28181 devices send H.264 or H.265."
                )
            codec, filter_name = names[stream.codec_context.name]
            fps = stream.average_rate or stream.guessed_rate or Fraction(25)
            annexb = BitStreamFilterContext(filter_name, stream)
            found: list[tuple[int, int, bool, bytes]] = []
            resampler = AudioResampler(format="s16", layout="mono", rate=8000)
            pcm = bytearray()
            streams = [stream, *container.streams.audio[:1]]
            for packet in container.demux(streams):
                if packet.stream is stream:
                    for ready in annexb.filter(packet) if packet.dts is not None else annexb.filter(None):
                        if ready.pts is not None and ready.dts is not None:
                            found.append((ready.pts, ready.dts, ready.is_keyframe, bytes(ready)))
                elif spec.audio is not None:
                    for frame in packet.decode():
                        if isinstance(frame, AudioFrame):
                            for part in resampler.resample(frame):
                                pcm += bytes(part.planes[0])[: part.samples * 2]
            width, height = stream.codec_context.width, stream.codec_context.height
            base = stream.time_base or Fraction(1, CLOCK_RATE)
    except (av.FFmpegError, OSError) as error:
        raise ContentError(f"{path} cannot be read: {error}.") from error
    while found and not found[0][2]:
        found.pop(0)
    if not found:
        raise ContentError(f"{path} has no key frame.")
    first = found[0][1]
    pictures = tuple(
        Picture(data, key, max(0, int((pts - first) * base * CLOCK_RATE) - int(index * CLOCK_RATE / fps)))
        for index, (pts, _, key, data) in enumerate(found)
    )
    sound = Sound()
    if spec.audio is not None and pcm:
        # The sound is brought to the length of the pictures, so that both repeat together.
        wanted = int(len(found) / fps * 8000) * 2
        sound = encode_sound(spec.audio, bytes(pcm[:wanted].ljust(wanted, b"\0")), 8000)
    return Loop(
        video=codec,
        audio=spec.audio if sound.packets else None,
        fps=Fraction(fps),
        width=width,
        height=height,
        pictures=pictures,
        sound=sound,
    )


# --- keeping ------------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Where loops are kept: the user's cache, or a private directory under the system's temporary one."""
    base = os.environ.get("XDG_CACHE_HOME")
    candidates = [Path(base)] if base else []
    with suppress(RuntimeError):
        candidates.append(Path.home() / ".cache")
    candidates.append(Path(tempfile.gettempdir()) / f"gb28181gw-{os.getuid()}")
    for candidate in candidates:
        directory = candidate / "gb28181gw" / "sim"
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        # Somebody else's directory could feed us anything: only our own is used.
        if directory.stat().st_uid == os.getuid() and os.access(directory, os.W_OK):
            return directory
    return Path(tempfile.mkdtemp(prefix="gb28181gw-sim-"))


def cache_name(spec: ContentSpec) -> str:
    """File name of the loop of `spec`; a user's file counts with its size and time of change."""
    described = [str(VERSION), av.__version__, *(str(getattr(spec, name)) for name in ContentSpec.__slots__)]
    if spec.media_file is not None:
        facts = spec.media_file.stat()
        described += [str(spec.media_file.resolve()), str(facts.st_size), str(facts.st_mtime_ns)]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:32] + ".loop"


def save(loop: Loop, path: Path) -> None:
    """Write the loop; the file appears whole or not at all."""
    head = {
        "video": loop.video,
        "audio": loop.audio,
        "fps": [loop.fps.numerator, loop.fps.denominator],
        "size": [loop.width, loop.height],
        "audio_samples": loop.sound.samples,
        "audio_rate": loop.sound.rate,
        "pictures": [
            [len(picture.data), int(picture.key), picture.pts_offset_90k] for picture in loop.pictures
        ],
        "packets": [len(packet) for packet in loop.sound.packets],
    }
    text = json.dumps(head).encode()
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(_MAGIC + struct.pack(">I", len(text)) + text)
        for picture in loop.pictures:
            file.write(picture.data)
        for packet in loop.sound.packets:
            file.write(packet)
    Path(file.name).replace(path)


def load(path: Path) -> Loop:
    """Read what `save` wrote. Raises ContentError when the file is damaged."""
    data = path.read_bytes()
    try:
        if not data.startswith(_MAGIC):
            raise ContentError(f"{path} is not a loop.")
        (length,) = struct.unpack_from(">I", data, len(_MAGIC))
        start = len(_MAGIC) + 4
        head = json.loads(data[start : start + length])
        position = start + length
        pictures: list[Picture] = []
        for size, key, offset in head["pictures"]:
            pictures.append(Picture(data[position : position + size], bool(key), offset))
            position += size
        packets: list[bytes] = []
        for size in head["packets"]:
            packets.append(data[position : position + size])
            position += size
        if position != len(data):
            raise ContentError(f"{path} is cut short.")
        return Loop(
            video=Codec(head["video"]),
            audio=Codec(head["audio"]) if head["audio"] else None,
            fps=Fraction(*head["fps"]),
            width=head["size"][0],
            height=head["size"][1],
            pictures=tuple(pictures),
            sound=Sound(tuple(packets), head["audio_samples"], head["audio_rate"]),
        )
    except (KeyError, ValueError, TypeError, struct.error) as error:
        raise ContentError(f"{path} is damaged: {error}.") from error


_loops: dict[ContentSpec, Loop] = {}


def loop_of(spec: ContentSpec, progress: Progress | None = None, directory: Path | None = None) -> Loop:
    """The loop of `spec`: from memory, from disk, else made now and kept. Blocking; raises ContentError."""
    kept = _loops.get(spec)
    if kept is not None:
        return kept
    path = (directory or cache_dir()) / cache_name(spec)
    loop: Loop | None = None
    if path.is_file():
        with suppress(ContentError, OSError):
            loop = load(path)
    if loop is None:
        loop = make(spec, progress)
        with suppress(OSError):
            save(loop, path)
    _loops[spec] = loop
    return loop
