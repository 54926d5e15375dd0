"""WAV files into the PCM that a talk speaks."""

from __future__ import annotations

import io
import sys
import wave
from array import array
from typing import Final

from gb28181gw.errors import GatewayError

_HINT: Final = "convert it with: ffmpeg -i IN -ar 8000 -ac 1 -c:a pcm_s16le OUT.wav"


def read_wav(data: bytes) -> tuple[bytes, int]:
    """Signed 16-bit little-endian mono PCM, and its rate in Hz. Stereo is mixed.

    Raises GatewayError gb.route.invalid for anything but PCM of 16 bits in one or two channels.
    """
    try:
        with wave.open(io.BytesIO(data)) as source:
            channels, width, rate = source.getnchannels(), source.getsampwidth(), source.getframerate()
            if width != 2 or channels not in (1, 2):
                raise GatewayError(
                    "gb.route.invalid",
                    f"The WAV file has {8 * width} bits and {channels} channels, not 16 and 1 or 2; {_HINT}.",
                )
            pcm = source.readframes(source.getnframes())
    except (wave.Error, EOFError) as error:
        raise GatewayError("gb.route.invalid", f"This is no WAV file ({error}); {_HINT}.") from None
    pcm = pcm[: len(pcm) // (2 * channels) * 2 * channels]
    return (pcm if channels == 1 else _mixed(pcm)), rate


def _mixed(pcm: bytes) -> bytes:
    samples = array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    mono = array("h", ((left + right) // 2 for left, right in zip(samples[::2], samples[1::2], strict=True)))
    if sys.byteorder == "big":
        mono.byteswap()
    return mono.tobytes()
