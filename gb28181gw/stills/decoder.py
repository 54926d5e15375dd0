"""The worker process: one key frame in, one JPEG out, over its standard streams.

The bitstream is a device's, so its decoder never runs in the gateway's process. Whatever it does to this one (a crash,
an endless loop, memory without end) costs one picture: the kernel holds it to its limits and the gateway kills it
(`stills.pool`). It ends when its input does, so it does not outlive the gateway.

A request is `REQUEST` and so many bytes; an answer is `ANSWER` and so many bytes: a JPEG, or a sentence.
"""

from __future__ import annotations

import os
import resource
import sys
from fractions import Fraction
from struct import Struct
from typing import BinaryIO, Final

REQUEST: Final = Struct("!BI")
"""Number of the codec, length of the access unit."""
ANSWER: Final = Struct("!BI")
"""`JPEG` or `FAILED`, length."""
JPEG, FAILED = 0, 1
DECODERS: Final = ("h264", "hevc")
"""FFmpeg's name by the number of the codec."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""Of one access unit."""
MAX_PIXELS: Final = 8192 * 8192
MEMORY_BYTES: Final = 2 << 30
"""Address space: a picture of `MAX_PIXELS` decoded and converted takes a quarter of it."""
QUALITY: Final = 4
"""Quantiser of the JPEG encoder, 2 best to 31."""


class DecodeError(Exception):
    """The access unit gives no picture."""


def to_jpeg(decoder: str, data: bytes) -> bytes:
    """The first picture of an access unit in Annex B with its parameter sets. Raises DecodeError."""
    import av
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

    try:
        source = av.CodecContext.create(decoder, "r")
        if not isinstance(source, VideoCodecContext):
            raise DecodeError(f"{decoder} is no decoder of video here.")
        source.thread_count = 1
        source.options = {"max_pixels": str(MAX_PIXELS)}
        pictures = source.decode(av.Packet(data)) or source.decode(None)
        if not pictures or not isinstance(pictures[0], VideoFrame):
            raise DecodeError("There is no whole picture in the key frame.")
        picture = pictures[0].reformat(format="yuvj420p")
        target = VideoCodecContext.create("mjpeg", "w")
        target.width, target.height, target.pix_fmt = picture.width, picture.height, "yuvj420p"
        target.thread_count = 1
        target.options = {"qmin": str(QUALITY), "qmax": str(QUALITY)}
        target.time_base = Fraction(1, 25)
        picture.pts, picture.time_base = 0, target.time_base
        return b"".join(bytes(packet) for packet in (*target.encode(picture), *target.encode(None)))
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise DecodeError(f"The key frame cannot be decoded: {error}.") from error


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until the input ends."""
    while head := source.read(REQUEST.size):
        codec, length = REQUEST.unpack(head)
        if codec >= len(DECODERS) or length > MAX_BYTES:
            return
        data = source.read(length)
        if len(data) < length:
            return
        try:
            status, answer = JPEG, to_jpeg(DECODERS[codec], data)
        except DecodeError as error:
            status, answer = FAILED, str(error).encode()
        sink.write(ANSWER.pack(status, len(answer)) + answer)
        sink.flush()


def main() -> None:
    """Take the limits, then serve. A decoder has no use for files, descriptors or a dump of its memory."""
    import av.logging

    av.logging.set_level(None)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    os.nice(5)  # packets come first
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
