"""A process that sends one stream to one URL: FFmpeg's protocols and muxers run in here, and nowhere else.

Standard input: a line with the file of authorities (empty: the host's; ``-``: certificates are not checked), one with
the URL (an argument would be seen in the list of processes), then FLV. Standard output: one byte when the peer has
taken the head and the first packet. It ends with its input; when the peer breaks, with status 1 and a sentence without
the URL on standard error.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import ssl
import sys
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Stream

_MEMORY_BYTES = 1024**3
_ERRORS = (ValueError, OSError)
"""PyAV's errors are among them."""
_UNVERIFIED = "failed verification"
"""What FFmpeg says of a certificate."""
_TEE_SIGNS = "\\'|"
"""That mean something in a list of tee's targets."""
_OPTION_SIGNS = "\\':]"
"""And in the options before a target."""


def main(source: BinaryIO, sink: BinaryIO) -> int:
    authorities = source.readline().decode().strip()
    url = source.readline().decode("ascii").strip()
    with av.logging.Capture() as lines:
        try:
            _send(url, authorities, source, sink, lines)
        except _ERRORS as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            if any(_UNVERIFIED in line for _, _, line in lines):
                reason = "The certificate of the peer was not accepted."
            sys.stderr.write(f"{reason}\n")
            return 1
    return 0


def _tls(authorities: str) -> dict[str, str]:
    """Options of FFmpeg's TLS, which does not check certificates unless it is told to."""
    if authorities == "-":
        return {"tls_verify": "0"}
    file = authorities or ssl.get_default_verify_paths().cafile
    return {"tls_verify": "1"} | ({"ca_file": file} if file else {})


def _target(url: str, authorities: str) -> tuple[str, str, dict[str, str]]:
    """Where FFmpeg writes, by which muxer, with which options."""
    scheme = url.partition(":")[0].lower()
    if scheme.startswith("rtsp"):
        return url, "rtsp", {"rtsp_transport": "tcp"} | (_tls(authorities) if scheme == "rtsps" else {})
    options = {"flvflags": "no_duration_filesize"}
    if scheme == "rtmp":
        return url, "flv", options
    # PyAV gives a muxer's options to the muxer alone; "tee" gives them to the connection as well.
    options |= {"f": "flv"} | _tls(authorities)
    listed = ":".join(f"{name}={_escaped(value, _OPTION_SIGNS)}" for name, value in options.items())
    return f"[{listed}]{_escaped(url, _TEE_SIGNS)}", "tee", {}


def _escaped(text: str, signs: str) -> str:
    return "".join(f"\\{sign}" if sign in signs else sign for sign in text)


def _send(
    url: str, authorities: str, source: BinaryIO, sink: BinaryIO, lines: list[tuple[int, str, str]]
) -> None:
    target, muxer, options = _target(url, authorities)
    told = False
    probe = {"analyzeduration": "3000000"}
    with av.open(source, "r", format="flv", options=probe, buffer_size=4096) as read:
        assert isinstance(read, InputContainer)  # noqa: S101 - it was opened for reading
        with av.open(target, "w", format=muxer, options=options) as written:
            outputs: dict[int, Stream] = {}
            for stream in (*read.streams.video, *read.streams.audio):
                outputs[stream.index] = written.add_stream_from_template(stream)
            for packet in read.demux():
                if packet.dts is None or packet.stream.index not in outputs:
                    continue  # the end of the input
                packet.stream = outputs[packet.stream.index]
                written.mux(packet)
                lines.clear()  # what did not break it
                if not told:
                    told = True
                    sink.write(b"1")
                    sink.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's; its end closes standard input
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    av.logging.set_level(av.logging.ERROR)  # captured, and never told: its lines name the URL
    logging.disable(logging.CRITICAL)
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
