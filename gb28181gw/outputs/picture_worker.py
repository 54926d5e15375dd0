"""A process that makes JPEG of key frames: what a device's bitstream may do to a decoder, it does in here.

Standard input: jobs; standard output: answers, one each, in order (`picture_protocol`).
"""

from __future__ import annotations

import resource
import signal
import sys
from fractions import Fraction
from typing import BinaryIO

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from gb28181gw.outputs.picture_protocol import ANSWER, JOB, MAX_JOB

_CODECS = ("h264", "hevc")
"""By `picture_protocol.NUMBERS`."""
_MEMORY_BYTES = 2 * 1024**3
_QUALITY = 4
"""Of 2 (best) to 31."""


def make_jpeg(codec: str, payload: bytes) -> bytes:
    """Raises ValueError or OSError (PyAV's errors) when the access unit gives no picture."""
    picture = _decode(codec, payload)
    encoder = av.CodecContext.create("mjpeg", "w")
    if not isinstance(encoder, VideoCodecContext):
        raise TypeError("FFmpeg's mjpeg is no video codec")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuvj420p"
    encoder.framerate = Fraction(25)
    encoder.qmin = encoder.qmax = _QUALITY
    ready = picture.reformat(format="yuvj420p")
    ready.pts = 0
    packets = [*encoder.encode(ready), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def _decode(codec: str, payload: bytes) -> VideoFrame:
    decoder = av.CodecContext.create(codec, "r")
    if not isinstance(decoder, VideoCodecContext):
        raise TypeError(f"FFmpeg's {codec} is no video codec")
    decoder.thread_count = 1
    for packet in (av.Packet(payload), None):
        for frame in decoder.decode(packet):
            return frame
    raise ValueError("the key frame gives no picture")


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Until the end of `source`."""
    while len(head := source.read(JOB.size)) == JOB.size:
        size, codec = JOB.unpack(head)
        payload = source.read(min(size, MAX_JOB))
        status, body = 0, b""
        try:
            body = make_jpeg(_CODECS[codec], payload)
        except (ValueError, OSError, MemoryError) as error:
            status, body = 1, str(error).encode("utf-8", "replace")[:300]
        sink.write(ANSWER.pack(len(body), status) + body)
        sink.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's; its end closes standard input
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main(sys.stdin.buffer, sys.stdout.buffer)
