"""G.711 samples in, AAC packets out, through PyAV. Runs in a worker thread; knows nothing of streams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler

from gb28181gw.media.tracks import Codec, Frame

_DECODERS = {Codec.PCMA: "pcm_alaw", Codec.PCMU: "pcm_mulaw"}
_BIT_RATE = 32_000
_REANCHOR_90K = 9_000
"""Samples that are more than 0.1 s from their place start a new count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AacPacket:
    """One raw_data_block."""

    pts_90k: int
    payload: bytes
    sample_rate: int
    configuration: bytes
    """AudioSpecificConfig (ISO 14496-3 1.6.2.1)."""


class AacEncoder:
    """One stream's decoder and encoder. A gap in the source's times starts the encoder anew."""

    def __init__(self) -> None:
        self._source: tuple[Codec, int] | None = None
        self._decoder: AudioCodecContext | None = None
        self._encoder: AudioCodecContext | None = None
        self._resampler: AudioResampler | None = None
        self._anchor = 0
        self._samples = 0

    def encode(self, frames: Iterable[Frame]) -> list[AacPacket]:
        """Raises OSError or ValueError (PyAV's errors) when the codec does not work."""
        packets: list[AacPacket] = []
        for frame in frames:
            if frame.payload:
                packets += self._encode(frame)
        return packets

    def _encode(self, frame: Frame) -> list[AacPacket]:
        rate = frame.track.sample_rate or 8000
        source = (frame.track.codec, rate)
        expected = self._anchor + self._samples * 90_000 // rate
        if source != self._source or abs(frame.pts_90k - expected) > _REANCHOR_90K:
            self._start(source)
            self._anchor, self._samples = frame.pts_90k, 0
        decoder, encoder, resampler = self._decoder, self._encoder, self._resampler
        if decoder is None or encoder is None or resampler is None:
            return []
        packets: list[AacPacket] = []
        for decoded in decoder.decode(av.Packet(frame.payload)):
            decoded.pts = self._samples
            decoded.time_base = Fraction(1, rate)
            self._samples += decoded.samples
            for pcm in resampler.resample(decoded):
                for packet in encoder.encode(pcm):
                    at = packet.pts or 0
                    if at < 0:
                        continue  # priming: it would come before the first sample of the source
                    packets.append(
                        AacPacket(
                            pts_90k=self._anchor + at * 90_000 // rate,
                            payload=bytes(packet),
                            sample_rate=rate,
                            configuration=bytes(encoder.extradata or b""),
                        )
                    )
        return packets

    def _start(self, source: tuple[Codec, int]) -> None:
        codec, rate = source
        decoder = av.CodecContext.create(_DECODERS[codec], "r")
        encoder = av.CodecContext.create("aac", "w")
        if not isinstance(decoder, AudioCodecContext) or not isinstance(encoder, AudioCodecContext):
            raise TypeError("FFmpeg's audio codecs are not audio codecs")
        decoder.sample_rate = encoder.sample_rate = rate
        decoder.layout = encoder.layout = "mono"
        encoder.format = "fltp"
        encoder.bit_rate = _BIT_RATE
        encoder.time_base = Fraction(1, rate)
        encoder.open()
        self._source, self._decoder, self._encoder = source, decoder, encoder
        self._resampler = AudioResampler("fltp", "mono", rate, frame_size=encoder.frame_size)
