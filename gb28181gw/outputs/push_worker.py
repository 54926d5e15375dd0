"""A process that sends one stream to one URL: FFmpeg's protocols and muxers run in here, and nowhere else.

Standard input: one line with the URL (an argument would be seen in the list of processes), then FLV. Standard output:
one byte when the peer has taken the head and the first packet. It ends with its input; when the peer breaks, with
status 1 and a sentence without the URL on standard error.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Stream

_MEMORY_BYTES = 1024**3
_ERRORS = (ValueError, OSError)
"""PyAV's errors are among them."""


def main(source: BinaryIO, sink: BinaryIO) -> int:
    url = source.readline().decode("ascii").strip()
    try:
        _send(url, source, sink)
    except _ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        sys.stderr.write(f"{reason}\n")
        return 1
    return 0


def _send(url: str, source: BinaryIO, sink: BinaryIO) -> None:
    rtsp = url.lower().startswith("rtsp")
    options = {"rtsp_transport": "tcp"} if rtsp else {"flvflags": "no_duration_filesize"}
    told = False
    probe = {"analyzeduration": "3000000"}
    with av.open(source, "r", format="flv", options=probe, buffer_size=4096) as read:
        assert isinstance(read, InputContainer)  # noqa: S101 - it was opened for reading
        with av.open(url, "w", format="rtsp" if rtsp else "flv", options=options) as written:
            outputs: dict[int, Stream] = {}
            for stream in (*read.streams.video, *read.streams.audio):
                outputs[stream.index] = written.add_stream_from_template(stream)
            for packet in read.demux():
                if packet.dts is None or packet.stream.index not in outputs:
                    continue  # the end of the input
                packet.stream = outputs[packet.stream.index]
                written.mux(packet)
                if not told:
                    told = True
                    sink.write(b"1")
                    sink.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's; its end closes standard input
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    av.logging.set_level(av.logging.PANIC)  # its lines would name the URL
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
