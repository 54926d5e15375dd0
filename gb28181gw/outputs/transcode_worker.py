"""A process that transcodes one stream: a device's bitstream meets its decoder in here, and nowhere else.

Standard input: frames; standard output: packets (`transcode_protocol`). It ends with its input.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, Protocol

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from gb28181gw.outputs.transcode_protocol import (
    INPUT,
    MAX_FRAME,
    MAX_HEIGHT,
    MAX_SOURCE_PIXELS,
    MAX_WIDTH,
    OUTPUT,
    Made,
)

_DECODERS = ("hevc", "aac", "pcm_alaw", "pcm_mulaw")
"""By `transcode_protocol.NUMBERS`."""
_CONFIGURED = 1
"""AAC, of which the configuration tells rate and channels."""
_MEMORY_BYTES = 2 * 1024**3
_TICKS = Fraction(1, 90_000)
_OPUS_RATE = 48_000
_OPUS_SAMPLES = 960
_OPUS_BITS = 32_000
_REANCHOR_90K = 9_000
"""Samples that are more than 0.1 s from their place start a new count."""
_MAX_BARREN = 50
_ERRORS = (ValueError, OSError)
"""PyAV's errors are among them."""

Packet = tuple[int, bool, bytes]
"""(pts_90k, key, payload)."""


class Maker(Protocol):
    def make(
        self, codec: int, rate: int, config: bytes, pts_90k: int, key: bool, data: bytes
    ) -> Iterator[Packet]: ...


class OpusMaker:
    """AAC or G.711 to Opus."""

    def __init__(self) -> None:
        self._source: tuple[int, int, bytes] | None = None
        self._decoder: AudioCodecContext | None = None
        self._encoder: AudioCodecContext | None = None
        self._resampler: AudioResampler | None = None
        self._anchor = 0
        self._samples = 0
        self._rate = 0

    def make(
        self, codec: int, rate: int, config: bytes, pts_90k: int, key: bool, data: bytes
    ) -> Iterator[Packet]:
        expected = self._anchor + (self._samples * 90_000 // self._rate if self._rate else 0)
        if (codec, rate, config) != self._source or abs(pts_90k - expected) > _REANCHOR_90K:
            self._start(codec, rate, config)
            self._anchor, self._samples = pts_90k, 0
        decoder, encoder, resampler = self._decoder, self._encoder, self._resampler
        if decoder is None or encoder is None or resampler is None:
            return
        for decoded in decoder.decode(av.Packet(data)):
            self._rate = decoded.sample_rate
            decoded.pts = self._samples
            decoded.time_base = Fraction(1, self._rate)
            self._samples += decoded.samples
            for pcm in resampler.resample(decoded):
                for packet in encoder.encode(pcm):
                    at = max(packet.pts or 0, 0)
                    yield self._anchor + at * 90_000 // _OPUS_RATE, True, bytes(packet)

    def _start(self, codec: int, rate: int, config: bytes) -> None:
        decoder = av.CodecContext.create(_DECODERS[codec], "r")
        encoder = av.CodecContext.create("libopus", "w")
        if not isinstance(decoder, AudioCodecContext) or not isinstance(encoder, AudioCodecContext):
            raise TypeError("FFmpeg's audio codecs are not audio codecs")
        if codec == _CONFIGURED:
            decoder.extradata = config
        else:
            decoder.sample_rate = rate
            decoder.layout = "mono"
        encoder.sample_rate = _OPUS_RATE
        encoder.layout = "mono"
        encoder.format = "s16"
        encoder.bit_rate = _OPUS_BITS
        encoder.time_base = Fraction(1, _OPUS_RATE)
        encoder.options = {"application": "lowdelay", "frame_duration": "20"}
        encoder.open()
        self._source, self._decoder, self._encoder = (codec, rate, config), decoder, encoder
        self._rate = 0
        self._resampler = AudioResampler("s16", "mono", _OPUS_RATE, frame_size=_OPUS_SAMPLES)


class H264Maker:
    """H.265 to H.264 that every browser decodes: 4:2:0, 8 bit, no B pictures."""

    def __init__(self) -> None:
        self._decoder: VideoCodecContext | None = None
        self._encoder: VideoCodecContext | None = None
        self._size = (0, 0)
        self._keys: set[int] = set()

    def make(
        self, codec: int, rate: int, config: bytes, pts_90k: int, key: bool, data: bytes
    ) -> Iterator[Packet]:
        if self._decoder is None:
            if not key:
                return
            decoder = av.CodecContext.create(_DECODERS[codec], "r")
            if not isinstance(decoder, VideoCodecContext):
                raise TypeError("FFmpeg's hevc is no video codec")
            decoder.thread_count = 1
            self._decoder = decoder
        packet = av.Packet(data)
        packet.pts = pts_90k
        packet.time_base = _TICKS
        if key:
            self._keys.add(pts_90k)
        for picture in self._decoder.decode(packet):
            yield from self._encode(picture)

    def _encode(self, picture: VideoFrame) -> Iterator[Packet]:
        if picture.width * picture.height > MAX_SOURCE_PIXELS:
            raise ValueError(f"{picture.width}x{picture.height} is too large to be transcoded")
        encoder = self._encoder
        if encoder is None or (picture.width, picture.height) != self._size:
            self._size = (picture.width, picture.height)
            encoder = self._encoder = _h264_encoder(*self._size)
        ready = picture.reformat(width=encoder.width, height=encoder.height, format="yuv420p")
        at = picture.pts or 0
        ready.pts, ready.time_base = at, _TICKS
        ready.pict_type = PictureType.I if at in self._keys else PictureType.NONE
        self._keys = {key for key in self._keys if key > at}
        for made in encoder.encode(ready):
            yield made.pts or 0, made.is_keyframe, bytes(made)


def _h264_encoder(width: int, height: int) -> VideoCodecContext:
    shrink = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
    encoder = av.CodecContext.create("libx264", "w")
    if not isinstance(encoder, VideoCodecContext):
        raise TypeError("FFmpeg's libx264 is no video codec")
    encoder.width, encoder.height = int(width * shrink) & ~1, int(height * shrink) & ~1
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = _TICKS
    encoder.framerate = Fraction(25)
    encoder.thread_count = 1
    encoder.gop_size = 250
    encoder.options = {
        "preset": "superfast",
        "tune": "zerolatency",
        "profile": "main",
        "crf": "26",
        "maxrate": "2500000",
        "bufsize": "2500000",
        "forced-idr": "1",
    }
    encoder.open()
    return encoder


def main(maker: Maker, source: BinaryIO, sink: BinaryIO) -> int:
    """Until the end of `source`; 1 when nothing came of `_MAX_BARREN` frames in a row, told on standard error."""
    config, barren, reason = b"", 0, "nothing can be decoded"
    while len(head := source.read(INPUT.size)) == INPUT.size:
        size, config_size, codec, key, rate, pts_90k = INPUT.unpack(head)
        if config_size:
            config = source.read(config_size)
        data = source.read(min(size, MAX_FRAME))
        barren += 1
        try:
            for pts, is_key, payload in maker.make(codec, rate, config, pts_90k, bool(key), data):
                sink.write(OUTPUT.pack(len(payload), is_key, pts) + payload)
                barren = 0
        except _ERRORS as error:
            reason = str(error)
        sink.flush()
        if barren >= _MAX_BARREN:
            sys.stderr.write(f"{reason}\n")
            return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's; its end closes standard input
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)  # who watches without transcoding comes first
    chosen = H264Maker() if sys.argv[1] == Made.H264 else OpusMaker()
    sys.exit(main(chosen, sys.stdin.buffer, sys.stdout.buffer))
