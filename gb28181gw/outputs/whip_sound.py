"""Payloads of a microphone to PCM: G.711, and Opus (RFC 7587) by the reference decoder in PyAV.

Opus of 20 ms takes some 50 us, so it is decoded on the event loop: one microphone costs a quarter of a percent of a
core. What is decoded comes from somebody who was allowed to talk, and by a decoder that is fuzzed for browsers; a
device's bitstream is another matter (`transcode_worker`).
"""

from __future__ import annotations

from typing import Protocol

import av
from av.audio.codeccontext import AudioCodecContext

from gb28181gw.media.wire import g711
from gb28181gw.outputs.webrtc_sdp import OPUS

_OPUS_RATE = 48_000
_SAMPLE_BYTES = 2


class SoundDecoder(Protocol):
    """Payloads of one RTP source in order."""

    rate: int
    """Hz of what `decode` gives."""

    def decode(self, payload: bytes) -> bytes:
        """Signed 16-bit little-endian mono samples. Raises ValueError for what is no such sound."""
        ...


class G711Decoder:
    def __init__(self, name: str) -> None:
        """`name`: ``pcma`` or ``pcmu``."""
        self.rate = 8_000
        self._name = name

    def decode(self, payload: bytes) -> bytes:
        return g711.decode(payload, self._name)


class OpusDecoder:
    """Stereo is mixed down by the decoder."""

    def __init__(self) -> None:
        self.rate = _OPUS_RATE
        decoder = av.CodecContext.create("libopus", "r")
        if not isinstance(decoder, AudioCodecContext):
            raise TypeError("FFmpeg's audio codecs are not audio codecs")
        decoder.sample_rate = _OPUS_RATE
        decoder.layout = "mono"
        decoder.format = "s16"
        self._decoder = decoder

    def decode(self, payload: bytes) -> bytes:
        if not payload:  # an empty packet would end the decoder
            return b""
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except (OSError, ValueError, EOFError) as error:
            # PyAV's errors are of these three kinds.
            raise ValueError(f"no Opus: {error}") from error
        return b"".join(bytes(frame.planes[0])[: frame.samples * _SAMPLE_BYTES] for frame in frames)


def make_decoder(name: str) -> SoundDecoder:
    """For a name of `webrtc_sdp.choose_audio`."""
    return OpusDecoder() if name == OPUS else G711Decoder(name)
