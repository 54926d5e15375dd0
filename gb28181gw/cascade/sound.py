"""Sound between upper platforms and devices, as linear samples: each side has its own form of G.711."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gb28181gw.media.tracks import Frame, TrackKind
from gb28181gw.media.wire import g711

RATE: Final = 8_000
"""Hz, of G.711 (C.2.4)."""
_CODECS: Final = ("pcma", "pcmu")


def samples_of(frames: Iterable[Frame]) -> Iterator[bytes]:
    """16-bit mono samples of the G.711 among the frames. Other codecs are left out: what a peer sends meets no decoder
    of theirs in this process."""
    for frame in frames:
        if frame.track.kind is TrackKind.AUDIO and frame.track.codec.value in _CODECS:
            yield g711.decode(bytes(frame.payload), frame.track.codec.value)
