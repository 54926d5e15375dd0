"""What simulated devices and platforms say in a talk: a tone."""

from __future__ import annotations

import asyncio
import math
from typing import Final

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.sim.ear import RATE, Ear

PACKET_SAMPLES: Final = 160
LEVEL: Final = 8_000
_FORMS: Final = {"pcmu": ("pcm_mulaw", 0)}
"""Encoder and payload type; A-law where nothing else is named."""


async def say_tone(ear: Ear, ssrc: int, hertz: float) -> None:
    """Speak through the ear's socket in packets of 20 ms, until it is closed."""
    name, payload_type = _FORMS.get(ear.codec, ("pcm_alaw", 8))
    encoder = av.CodecContext.create(name, "w")
    if not isinstance(encoder, AudioCodecContext):
        raise TypeError("FFmpeg's audio codecs are not audio codecs")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.open()
    loop = asyncio.get_running_loop()
    due, number = loop.time(), 0
    while not ear.closed:
        frame = AudioFrame(format="s16", layout="mono", samples=PACKET_SAMPLES)
        frame.sample_rate = RATE
        first = number * PACKET_SAMPLES
        samples = b"".join(
            int(LEVEL * math.sin(2 * math.pi * hertz * (first + index) / RATE)).to_bytes(
                2, "little", signed=True
            )
            for index in range(PACKET_SAMPLES)
        )
        frame.planes[0].update(samples.ljust(frame.planes[0].buffer_size, b"\0"))
        for packet in encoder.encode(frame):
            ear.speak(
                RtpPacket(
                    payload_type=payload_type,
                    sequence_number=number & 0xFFFF,
                    timestamp=first & 0xFFFF_FFFF,
                    ssrc=ssrc,
                    payload=bytes(packet),
                    marker=number == 0,
                ).serialise()
            )
        number += 1
        due += PACKET_SAMPLES / RATE
        await asyncio.sleep(max(0.0, due - loop.time()))
