"""The voice of a talk: PCM in from whoever speaks, codec packets out at a constant pace.

Theory of operation. Devices end a talk whose packets stop or come in bursts (TK-07), so the speaker never stops: every
packet time it takes what is queued, fills up with silence, encodes and pushes one frame into the engine's stream,
whose RTP sink sends it at once. What a microphone sends is kept short, because sound that is late by seconds is
worse than sound that is missing; a recording is queued whole.

PyAV resamples and encodes; it sees nothing but PCM of our own people, so it may run here.
"""

from __future__ import annotations

import asyncio
import logging
import math
from fractions import Fraction

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from gb28181gw.errors import GatewayError
from gb28181gw.media.engine import Engine
from gb28181gw.media.tracks import Codec, Track, TrackKind

logger = logging.getLogger(__name__)

PACKET_MS = 20
"""Of G.711: GB/T 28181-2022 C.2.4 allows 20 to 180 ms."""
AAC_SAMPLES = 1_024
"""Of one AAC frame."""
LIVE_LIMIT_S = 0.4
"""Sound of a microphone that may wait; what is older is left out."""
LIVE_CUSHION_S = 0.06
"""Sound of a microphone begins so much later, also after a gap, so that packets which come unevenly make no holes."""
QUEUE_LIMIT_S = 600.0
"""Sound of recordings that may wait."""
BEHIND_S = 0.5
"""A loop that was blocked for longer starts a new count instead of sending a burst."""
RATES = range(8_000, 48_001)

_ENCODERS = {Codec.PCMA: "pcm_alaw", Codec.PCMU: "pcm_mulaw", Codec.AAC: "aac"}
_SAMPLE_BYTES = 2


class Speaker:
    """Owner of one talk's sound. All calls on the event loop's thread."""

    def __init__(self, engine: Engine, stream_id: str, codec: Codec, sample_rate: int) -> None:
        """`codec`: pcma, pcmu or aac; `sample_rate`: of what is sent, in Hz."""
        self.codec = codec
        self.sample_rate = sample_rate
        self.packet_samples = AAC_SAMPLES if codec is Codec.AAC else sample_rate * PACKET_MS // 1_000
        self.dropped_samples = 0
        """Left out because it came faster than it could be spoken."""
        self.spoken_samples = 0
        """Sound that was sent, silence not counted."""
        self.failed = ""
        self._engine = engine
        self._stream_id = stream_id
        self._queue = bytearray()
        self._held_packets = 0
        self._resamplers: dict[int, AudioResampler] = {}
        self._encoder = _make_encoder(codec, sample_rate)
        self._track = _track_of(codec, sample_rate, self._encoder)
        self._samples = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def queued_s(self) -> float:
        """Sound that waits to be spoken."""
        return len(self._queue) / _SAMPLE_BYTES / self.sample_rate

    def start(self) -> None:
        """Begin to speak: silence, until something is fed."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"speaker {self._stream_id}"
            )

    async def close(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def feed(self, pcm: bytes, rate: int, *, live: bool) -> None:
        """Queue signed 16-bit little-endian mono PCM of `rate` Hz.

        `live`: of a microphone, see `LIVE_LIMIT_S`. Raises GatewayError gb.route.invalid for another rate or half a
        sample, gb.route.busy when more waits already than `QUEUE_LIMIT_S`.
        """
        if rate not in RATES:
            raise GatewayError(
                "gb.route.invalid", f"rate: {rate} Hz is not between {RATES.start} and {RATES[-1]}."
            )
        if len(pcm) % _SAMPLE_BYTES:
            raise GatewayError("gb.route.invalid", "PCM of 16 bits has an even number of bytes.")
        if not live and self.queued_s + len(pcm) / _SAMPLE_BYTES / rate > QUEUE_LIMIT_S:
            raise GatewayError("gb.route.busy", f"{self.queued_s:.0f} s of sound wait already.")
        if live and not self._queue:
            self._held_packets = math.ceil(LIVE_CUSHION_S * self.sample_rate / self.packet_samples)
        if pcm:
            self._queue += self._resampled(pcm, rate)
        surplus = len(self._queue) - int(LIVE_LIMIT_S * self.sample_rate) * _SAMPLE_BYTES
        if live and surplus > 0:
            del self._queue[:surplus]
            self.dropped_samples += surplus // _SAMPLE_BYTES

    def clear(self) -> None:
        """Forget what waits."""
        self._queue.clear()

    def _resampled(self, pcm: bytes, rate: int) -> bytes:
        if rate == self.sample_rate:
            return pcm
        resampler = self._resamplers.get(rate)
        if resampler is None:
            self._resamplers.clear()  # a speaker who changes the rate starts anew
            resampler = self._resamplers[rate] = AudioResampler("s16", "mono", self.sample_rate)
        return b"".join(
            bytes(frame.planes[0])[: frame.samples * _SAMPLE_BYTES]
            for frame in resampler.resample(_frame(pcm, rate))
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        interval_s = self.packet_samples / self.sample_rate
        due = loop.time()
        while True:
            try:
                self._speak()
            except (OSError, ValueError) as error:
                # PyAV's errors are OSError and ValueError.
                self.failed = str(error)
                logger.warning("sound of %s cannot be encoded: %s", self._stream_id, error)
                return
            due += interval_s
            now = loop.time()
            if now - due > BEHIND_S:
                due = now
            await asyncio.sleep(max(due - now, 0.0))

    def _speak(self) -> None:
        """One packet time of sound."""
        wanted = self.packet_samples * _SAMPLE_BYTES
        if self._held_packets:
            self._held_packets -= 1
            pcm = b""
        else:
            pcm = bytes(self._queue[:wanted])
            del self._queue[:wanted]
        self.spoken_samples += len(pcm) // _SAMPLE_BYTES
        frame = _frame(pcm.ljust(wanted, b"\0"), self.sample_rate)
        frame.pts = self._samples
        frame.time_base = Fraction(1, self.sample_rate)
        self._samples += self.packet_samples
        for packet in self._encoder.encode(frame):
            at = max(packet.pts or 0, 0) * 90_000 // self.sample_rate
            self._engine.push(self._stream_id, self._track, at, at, bytes(packet), key=True)


def _frame(pcm: bytes, rate: int) -> AudioFrame:
    frame = AudioFrame(format="s16", layout="mono", samples=len(pcm) // _SAMPLE_BYTES)
    frame.planes[0].update(pcm.ljust(frame.planes[0].buffer_size, b"\0"))
    frame.sample_rate = rate
    return frame


def _make_encoder(codec: Codec, rate: int) -> AudioCodecContext:
    encoder = av.CodecContext.create(_ENCODERS[codec], "w")
    if not isinstance(encoder, AudioCodecContext):
        raise TypeError("FFmpeg's audio codecs are not audio codecs")
    encoder.sample_rate = rate
    encoder.layout = "mono"
    encoder.format = "fltp" if codec is Codec.AAC else "s16"
    encoder.time_base = Fraction(1, rate)
    if codec is Codec.AAC:
        encoder.bit_rate = 32_000
    encoder.open()
    return encoder


def _track_of(codec: Codec, rate: int, encoder: AudioCodecContext) -> Track:
    return Track(
        kind=TrackKind.AUDIO,
        codec=codec,
        sample_rate=rate,
        channels=1,
        parameter_sets=(bytes(encoder.extradata or b""),) if codec is Codec.AAC else (),
    )
