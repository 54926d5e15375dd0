"""`stream_type` of the program stream map (GB/T 28181-2022 C.1; MED-15)."""

from __future__ import annotations

from gb28181gw.media.tracks import Codec

CODECS: dict[int, Codec] = {
    0x0F: Codec.AAC,  # ADTS
    0x10: Codec.MPEG4,
    0x1B: Codec.H264,
    0x1C: Codec.AAC,  # raw access units with AU headers, one vendor (MED-14)
    0x24: Codec.H265,
    0x80: Codec.SVAC,
    0x90: Codec.PCMA,
    0x91: Codec.PCMU,
    0x92: Codec.G722_1,
    0x93: Codec.G723_1,
    0x99: Codec.G729,
    0x9B: Codec.SVACA,
}

STREAM_TYPES: dict[Codec, int] = {codec: kind for kind, codec in CODECS.items() if kind != 0x1C}

AUDIO_RATES: dict[Codec, int] = {
    Codec.PCMA: 8000,
    Codec.PCMU: 8000,
    Codec.G722_1: 16000,
    Codec.G723_1: 8000,
    Codec.G729: 8000,
    Codec.SVACA: 8000,
}
"""Sampling rate of the codecs that do not tell theirs."""
