"""What the gateway and a transcoding worker (`transcode_worker`) say to each other.

In: ``size config codec key rate pts_90k``, then `config` bytes of codec configuration (AAC: AudioSpecificConfig; 0: as
before) and `size` bytes of one frame. Out: ``size key pts_90k`` and one encoded packet. Network order.
"""

from __future__ import annotations

import struct
from enum import StrEnum

from gb28181gw.media.tracks import Codec

INPUT = struct.Struct("!IHBBIq")
OUTPUT = struct.Struct("!IBq")
MAX_FRAME = 8 * 1024 * 1024
NUMBERS = {Codec.H265: 0, Codec.AAC: 1, Codec.PCMA: 2, Codec.PCMU: 3}


class Made(StrEnum):
    """What a worker makes; its first argument."""

    OPUS = "opus"
    """48 kHz, 20 ms a packet."""
    H264 = "h264"
    """No larger than `MAX_WIDTH` x `MAX_HEIGHT`, a key frame wherever the source has one."""


MAX_WIDTH = 1280
MAX_HEIGHT = 720
MAX_SOURCE_PIXELS = 4096 * 2304
"""A larger source is not decoded."""
