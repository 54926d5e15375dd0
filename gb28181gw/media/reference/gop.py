"""The kept group of pictures: what a new consumer gets at once (MED-34).

Everything since the last key frame, in order, bounded in bytes and entries. A group that outgrows the bound
is given up as a whole, because a part of it would smear; consumers that come then wait for the next key
frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from gb28181gw.media.tracks import Frame

MAX_BYTES = 16 * 1024 * 1024
MAX_FRAMES = 4000


class Role(Enum):
    """Where a frame stands in a stream."""

    VIDEO = "video"
    AUDIO = "audio"
    """The source's own audio."""
    MADE_AUDIO = "made_audio"
    """AAC made from it, for consumers that need it."""


class KeptGop:
    """Frames from a key frame on."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_frames: int = MAX_FRAMES) -> None:
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._frames: list[tuple[Role, Frame]] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[tuple[Role, Frame]]:
        return iter(self._frames)

    def add(self, role: Role, frame: Frame) -> bool:
        """Keep the frame. A video key frame begins anew; before one nothing is kept.

        False when the group was given up with this frame.
        """
        if role is Role.VIDEO and frame.key:
            self.clear()
        elif not self._frames:
            return True
        self._frames.append((role, frame))
        self.size_bytes += len(frame.payload)
        if self.size_bytes > self._max_bytes or len(self._frames) > self._max_frames:
            self.clear()
            return False
        return True

    def clear(self) -> None:
        self._frames.clear()
        self.size_bytes = 0
