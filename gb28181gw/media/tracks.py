"""The neutral unit in the middle: N inputs, M outputs, no N x M.

A `Frame` is one access unit (video) or one packet of samples (audio) with its times on the stream's own,
monotonic clock; a `Track` says what the frames of one kind are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Codec(StrEnum):
    """Names as the API has them in `tracks[].codec`."""

    H264 = "h264"
    H265 = "h265"
    SVAC = "svac"
    MPEG4 = "mpeg4"
    AAC = "aac"
    PCMA = "pcma"
    PCMU = "pcmu"
    G722_1 = "g722.1"
    G723_1 = "g723.1"
    G729 = "g729"
    SVACA = "svaca"

    @property
    def is_video(self) -> bool:
        return self in _VIDEO


_VIDEO = frozenset({Codec.H264, Codec.H265, Codec.SVAC, Codec.MPEG4})


class TrackKind(StrEnum):
    VIDEO = "video"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What a consumer must know before it can read the frames. A change makes a new `Track` (MED-36)."""

    kind: TrackKind
    codec: Codec
    width: int = 0
    height: int = 0
    fps: float = 0.0
    """Frames a second from the parameter sets, else measured from timestamps; 0 unknown."""
    sample_rate: int = 0
    channels: int = 0
    parameter_sets: tuple[bytes, ...] = field(default=(), repr=False)
    """H.264: (SPS, PPS, …); H.265: (VPS, SPS, PPS, …), each a NAL unit without start code.
    AAC: one AudioSpecificConfig."""


@dataclass(slots=True, kw_only=True)
class Frame:
    """One access unit or audio packet.

    `payload`: H.264/H.265 as NAL units with 4-byte start codes (ISO 14496-10 Annex B), parameter sets
    included where the device sent them; AAC without ADTS, one raw_data_block; G.711 raw samples. `pts_90k`
    and `dts_90k` are in units of 1/90000 s on the stream's clock: monotonic in dts, re-anchored when the
    device's clock jumps (MED-21). `arrival` is monotonic seconds of the last packet of the frame.
    """

    track: Track
    pts_90k: int
    dts_90k: int
    key: bool
    payload: bytes
    arrival: float = 0.0
