"""What the demuxers and depacketisers give: `EsUnit`, and how they count."""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.media.tracks import Codec, Track, TrackKind

PTS_MODULUS = 1 << 33
"""PTS and DTS are 33 bits of 1/90000 s (ISO 13818-1 2.4.3.7)."""


@dataclass(slots=True, kw_only=True)
class EsUnit:
    """One access unit (video) or packet of samples (audio), with the times that the device gave.

    `payload` as in `media.tracks.Frame`. The times are raw: 33 bits, wrapping, jumping, or missing; `StreamClock`
    makes stream time of them.
    """

    track: Track
    stream_id: int
    """PES stream id (0xE0, 0xC0 …); for elementary streams the RTP payload type."""
    pts_90k: int | None
    dts_90k: int | None
    key: bool
    payload: bytes
    damaged: bool = False
    """Something before this unit was lost and no key frame came since: decoding it may smear (MED-24)."""
    rtp_timestamp: int | None = None
    """Timestamp of the packet in which the unit began, 32 bits."""
    arrival: float = 0.0
    """Monotonic seconds of the unit's last packet."""

    @property
    def kind(self) -> TrackKind:
        return self.track.kind

    @property
    def codec(self) -> Codec:
        return self.track.codec


@dataclass(slots=True, kw_only=True)
class DemuxCounters:
    """Plain counters of one demuxer; they only grow."""

    units: int = 0
    key_frames: int = 0
    gaps: int = 0
    """Losses that the receiver told."""
    dropped_units: int = 0
    """Access units that were broken, or came before the parameter sets."""
    resyncs: int = 0
    """Times that the structure was lost and searched for again."""
    skipped_bytes: int = 0
    """Bytes passed over while searching."""
    malformed: int = 0
    """Headers that could not be read."""
    oversized: int = 0
    """Units or maps dropped because they passed a bound."""
    premature: int = 0
    """Pictures that a marker or a pause ended and that went on."""

    @property
    def errors(self) -> int:
        """One figure for people."""
        return self.resyncs + self.malformed + self.oversized + self.premature
